//! The texts that people read, in logs and in what their own program prints.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use circuit_breaker_supervisor::{
    CallError, ChildSpec, ConfigError, Exit, Handle, RecvError, RestartPolicy, Simulation, Stopped,
    Supervisor, Verdict,
};

use crate::support::*;

fn told(simulation: &Simulation) -> Vec<String> {
    simulation.events().iter().map(ToString::to_string).collect()
}

#[test]
fn every_event_is_a_sentence_of_one_line() {
    let orders =
        unused("orders").failure_threshold(2).watchdog(SECOND).stop_timeout(SECOND).max_restarts(1);
    let breaker = orders.breaker();
    let builder = Supervisor::builder()
        .healthy_after(HOUR)
        .backoff(constant(SECOND))
        .enabled(|_| true)
        .child(orders);
    let mut simulation = simulate(builder);
    simulation.ignore_stop_for("orders", 2 * SECOND);
    simulation.advance(1500 * MS);
    breaker.report_failure("no answer");
    breaker.report_failure("no\nanswer");
    simulation.advance(3 * SECOND);
    simulation.heartbeat("orders", "reading").unwrap();
    simulation.mark_healthy("orders").unwrap();
    simulation.advance(5050 * MS);
    simulation.mark_healthy("orders").unwrap();
    simulation.handle().restart("orders").unwrap();
    simulation.advance(Duration::ZERO);
    simulation.exit("orders", Exit::panicked("index out of bounds")).unwrap();
    simulation.advance(90 * SECOND);
    simulation.exit("orders", Exit::failed("the broker\nhung up")).unwrap();
    simulation.advance(SECOND);
    simulation.exit("orders", Exit::Completed).unwrap();
    assert_eq!(
        told(&simulation),
        [
            "child `orders` started (run 1)",
            "child `orders` is asked to stop: its callers reported 2 failures in a row, \
             the last: no\\nanswer",
            "child `orders` was asked to stop 1.0 s ago and has not stopped",
            "child `orders` stopped after 3.5 s: its callers reported failures; \
             tried again in 1.0 s",
            "child `orders` started again (run 2, after 1 failure)",
            "child `orders` is healthy again, 3.0 s after its failure",
            "child `orders` hangs: silent for 1.0 s while reading; it is asked to stop",
            "child `orders` was asked to stop 1.0 s ago and has not stopped, while reading",
            "child `orders` stopped after 3.0 s: it was silent for too long; tried again in 1.0 s",
            "child `orders` started again (run 3, after 1 failure)",
            "child `orders` is healthy again, 4.0 s after its failure",
            "child `orders` is restarted by hand",
            "child `orders` stopped after 1.0 s: it is restarted by hand \
             (it panicked: index out of bounds)",
            "child `orders` started (run 4)",
            "child `orders` failed after 1 min 30 s: the broker\\nhung up; tried again in 1.0 s",
            "child `orders` started again (run 5, after 1 failure)",
            "child `orders` returned after 0 µs",
            "child `orders` is given up after 2 failures in a row",
        ]
    );
}

#[test]
fn recovery_and_flags_are_told_in_words() {
    let (on, builder) = (Arc::new(AtomicBool::new(false)), Supervisor::builder());
    let its = on.clone();
    let builder = builder
        .healthy_after(10 * SECOND)
        .backoff(constant(SECOND))
        .enabled(move |_| its.load(Ordering::SeqCst))
        .child(unused("orders"));
    let mut simulation = simulate(builder);
    on.store(true, Ordering::SeqCst);
    simulation.advance(SECOND);
    for _ in 0..3 {
        simulation.exit("orders", Exit::failed("no")).unwrap();
        simulation.advance(1500 * MS);
    }
    simulation.advance(10 * SECOND);
    let told = told(&simulation);
    assert_eq!(told[0], "child `orders` is switched off by its flag");
    assert_eq!(told[1], "child `orders` is switched on by its flag");
    assert_eq!(
        told.last().unwrap(),
        "child `orders` is healthy again, 14.0 s after the first of 3 failures"
    );
}

#[test]
fn every_order_is_told_in_words() {
    let mut simulation = simulate(Supervisor::builder().telemetry(()));
    let handle = simulation.handle().clone();
    handle.add(unused("orders")).unwrap();
    simulation.advance(Duration::ZERO);
    for order in [Handle::hold, Handle::release, Handle::reset, Handle::restart, Handle::remove] {
        order(&handle, "orders").unwrap();
        simulation.advance(Duration::ZERO);
    }
    let orders =
        simulation.events().iter().filter(|event| is_order(event)).map(ToString::to_string);
    assert_eq!(
        orders.collect::<Vec<_>>(),
        [
            "child `orders` was added",
            "child `orders` is held, and stays down until it is released",
            "child `orders` is released",
            "child `orders` is reset: its failures are forgiven",
            "child `orders` is restarted by hand",
            "child `orders` is removed",
        ]
    );
}

#[test]
fn panicking_callback_and_a_thread_that_was_not_to_be_had_are_told_in_words() {
    let builder = Supervisor::builder()
        .enabled(|_| -> bool { panic!("the switch is broken") })
        .child(unused("orders"));
    let mut simulation = Simulation::new(builder, 1).unwrap();
    simulation.fail_next_spawn("orders");
    simulation.advance(Duration::ZERO);
    let told = told(&simulation);
    assert_eq!(told[0], "the `enabled` callback for child `orders` panicked: the switch is broken");
    assert!(
        told[1].starts_with("child `orders` got no thread: ")
            && told[1].ends_with("; tried again in 100 ms"),
        "{told:?}"
    );
}

#[test]
fn error_of_a_run_that_was_asked_to_stop_is_told_unless_it_only_says_so() {
    let wrapped = anyhow::Error::new(RecvError::Stopped).context("waiting for an order");
    let ends: [(Exit, &str); 4] = [
        (Exit::failed(Stopped), ""),
        (Exit::failed(wrapped), ""),
        (Exit::failed("the last batch\nis lost"), " (it failed: the last batch\\nis lost)"),
        (Exit::panicked("no"), " (it panicked: no)"),
    ];
    for (exit, told) in ends {
        let mut simulation = simulate(Supervisor::builder().child(unused("orders")));
        simulation.ignore_stop_for("orders", HOUR);
        simulation.handle().hold("orders").unwrap();
        simulation.advance(SECOND);
        simulation.exit("orders", exit).unwrap();
        simulation.advance(Duration::ZERO);
        let stop = simulation.events().last().unwrap();
        let expected =
            format!("child `orders` stopped after 1.0 s: it is held by the operator{told}");
        assert_eq!(stop.to_string(), expected);
        let error = stop.fields().find(|(key, _)| *key == "error");
        assert_eq!(error.is_some(), !told.is_empty(), "{stop}");
        let sentence = seen(&simulation, "orders").to_string();
        assert_eq!(sentence.contains("is lost"), told.contains("is lost"), "{sentence}");
    }
}

#[test]
fn what_a_heartbeat_says_is_shown_on_one_line() {
    let mut simulation = simulate(Supervisor::builder().child(unused("orders").watchdog(SECOND)));
    simulation.ignore_stop_for("orders", HOUR);
    simulation.heartbeat("orders", "reading\nERROR\u{2028}\u{202e}all").unwrap();
    simulation.advance(3 * SECOND);
    let hung = told(&simulation).pop().unwrap();
    let shown = "reading\\nERROR\\u{2028}\\u{202e}all";
    assert!(hung.contains(shown), "{hung}");
    let sentence = seen(&simulation, "orders").to_string();
    assert!(sentence.contains(shown), "{sentence}");
}

#[test]
fn verdict_of_a_run_that_was_asked_to_stop_is_not_said_to_decide() {
    let child = unused("orders").failure_threshold(1).max_restarts(0);
    let breaker = child.breaker();
    let mut simulation = simulate(Supervisor::builder().child(child));
    simulation.ignore_stop_for("orders", HOUR);
    breaker.report_failure("late");
    simulation.advance(SECOND);
    simulation.exit("orders", Exit::failed(Verdict::give_up("no licence"))).unwrap();
    simulation.advance(Duration::ZERO);
    let stop = &simulation.events()[2];
    assert_eq!(
        stop.to_string(),
        "child `orders` stopped after 1.0 s: its callers reported failures \
         (it failed: no licence)"
    );
    assert!(stop.fields().all(|(key, _)| key != "verdict"), "{stop:?}");
}

#[test]
fn child_that_did_what_it_was_for_has_finished_and_one_that_returned_too_soon_has_not() {
    let transient = unused("transient").restart(RestartPolicy::Transient);
    let once = ChildSpec::once("once", |_| unreachable!("a simulation calls no body"));
    let builder = Supervisor::builder()
        .telemetry(())
        .child(transient)
        .child(once)
        .child(unused("permanent").max_restarts(0));
    let mut simulation = simulate(builder);
    for id in ["transient", "once", "permanent"] {
        simulation.exit(id, Exit::Completed).unwrap();
    }
    assert_eq!(
        told(&simulation)[3..],
        [
            "child `transient` finished after 0 µs",
            "child `once` finished after 0 µs",
            "child `permanent` returned after 0 µs",
            "child `permanent` is given up after 1 failure",
        ]
    );
    assert_eq!(
        seen(&simulation, "transient").to_string(),
        "`transient` is finished: it ran for 0 µs"
    );
    let permanent = seen(&simulation, "permanent");
    assert!(permanent.last_stop.as_ref().is_some_and(|stop| stop.failed));
    assert!(
        permanent.to_string().starts_with("`permanent` gave up: it returned after 0 µs; 1 failure"),
        "{permanent}"
    );
}

#[test]
fn errors_that_main_may_return_are_printed_as_sentences() {
    let error = Supervisor::builder().poll_interval(Duration::ZERO).start().unwrap_err();
    assert_eq!(format!("{error:?}"), "cannot start the supervisor: `poll_interval` is zero");
    let supervisor = Supervisor::builder().start().unwrap();
    let error = supervisor.handle().add(idler("")).unwrap_err();
    assert_eq!(format!("{error:?}"), "cannot add the child: the id of a child is empty");
}

/// What an error says, and that it says all of it: nothing is left for a source, which would be
/// printed a second time.
#[track_caller]
fn says(error: &impl Error, text: &str) {
    assert_eq!(error.to_string(), text);
    assert!(error.source().is_none() && !format!("{error:?}").is_empty());
}

#[test]
fn every_error_says_what_is_wrong_and_with_whom() {
    says(&Stopped, "the child was asked to stop");
    says(&RecvError::Stopped, "the child was asked to stop");
    says(&RecvError::Disconnected, "receiving on an empty and disconnected channel");
    for (invalid, text) in [
        (ConfigError::EmptyId, "the id of a child is empty"),
        (ConfigError::NulInId("a\0".into()), "the id \"a\\0\" holds a NUL"),
        (ConfigError::DuplicateId("a".into()), "the id \"a\" is taken"),
        (ConfigError::NulInName, "the supervisor's name holds a NUL"),
        (ConfigError::ZeroPollInterval, "`poll_interval` is zero"),
        (ConfigError::ZeroStartRate, "`max_starts_per_second` is zero"),
        (ConfigError::ZeroWatchdog("a".into()), "the `watchdog` of the child \"a\" is zero"),
        (
            ConfigError::ZeroFailureThreshold("a".into()),
            "the `failure_threshold` of the child \"a\" is zero",
        ),
    ] {
        says(&invalid, text);
    }
    let unusable = Supervisor::builder().poll_interval(Duration::ZERO).start().unwrap_err();
    says(&unusable, "cannot start the supervisor: `poll_interval` is zero");

    let orders = unused("orders");
    let breaker = orders.breaker();
    let mut simulation = simulate(Supervisor::builder().child(orders).child(unused("idle")));
    let handle = simulation.handle().clone();
    says(
        &handle.add(ChildSpec::once("idle", |_| Ok(()))).unwrap_err(),
        "cannot add the child: the id \"idle\" is taken",
    );
    says(&handle.hold("nobody").unwrap_err(), "there is no child \"nobody\"");
    says(&handle.wait_for("nobody", HOUR, |_| true).unwrap_err(), "there is no child \"nobody\"");
    says(
        &handle.wait_for("idle", HOUR, |_| false).unwrap_err(),
        "timed out: `idle` is on trial, up for 0 µs (run 1)",
    );
    says(&handle.wait_until_stopped(HOUR).unwrap_err(), "timed out");
    says(&simulation.exit("nobody", Exit::Completed).unwrap_err(), "there is no child \"nobody\"");
    says(&breaker.call(|| Err::<(), _>("no answer\n")).unwrap_err(), "no answer\\n");

    simulation.exit("orders", Exit::failed("no")).unwrap();
    let rejected: CallError<Stopped> = breaker.call(|| Ok(())).unwrap_err();
    let down = "`orders` is backing off: it failed after 0 µs: no; 1 failure; tried again in ";
    assert!(
        rejected.to_string().starts_with(&format!("the call was rejected: {down}")),
        "{rejected}"
    );

    handle.request_shutdown();
    simulation.advance(SECOND);
    says(&handle.hold("idle").unwrap_err(), "the supervisor has ended");
    says(
        &handle.add(unused("late")).unwrap_err(),
        "cannot add the child: the supervisor shuts down or has ended",
    );
    says(
        &handle.wait_for("idle", HOUR, |_| false).unwrap_err(),
        "the supervisor has ended: `idle` is off (shutdown): its supervisor shuts down; \
         it was stopped after 0 µs",
    );
    let text = format!("{simulation:?} {handle:?} {breaker:?} {rejected:?}");
    for word in ["Simulation {", "Handle", "Breaker {", "Rejected {"] {
        assert!(text.contains(word), "{text}");
    }
}
