//! Callers of a child, and what they say of it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{
    Breaker, CallError, ChildInfo, ChildSpec, ChildStatus, CircuitState, ConfigError, Event,
    EventKind, Exit, OffBy, Rejected, RestartPolicy, StartErrorReason, StopCause, Supervisor,
    WaitError,
};
use crossbeam_channel::unbounded;

use crate::support::{
    Act, DEADLINE, HOUR, MS, Recorder, check_trace, constant, gate, idle, idler, puppet,
    puppet_once, rounds, stop_of, take, wait_off, wait_status,
};

/// A call that must not be made.
fn forbidden() -> Result<(), &'static str> {
    panic!("the breaker is open, and the call was made")
}

/// Reports so many failures.
fn report(breaker: &Breaker, count: u32) {
    for _ in 0..count {
        breaker.report_failure("refused");
    }
}

/// Where there is no child to be called, a rejection says why, and nothing else.
#[track_caller]
fn check_says_only(rejected: &Rejected, why: &str) {
    assert_eq!(rejected.to_string(), format!("the call was rejected: {why}"));
    let known =
        (rejected.status(), rejected.retry_in(), rejected.last_exit().map(|exit| exit.to_string()));
    assert_eq!(known, (None, None, None));
}

/// The error says how the child failed last.
#[track_caller]
fn check_says_last(child: &ChildInfo, message: &str) {
    let last = child.last_stop.as_ref().expect("it has run");
    assert_eq!((&*child.id, last.exit.message()), ("child", Some(message)));
}

#[test]
fn running_child_can_be_called() {
    let spec = idler("child");
    let breaker = spec.breaker();
    assert_eq!(breaker.state(), CircuitState::Open, "before the start there is nobody to call");
    let rejected = breaker.permit().unwrap_err();
    check_says_only(&rejected, "`child` has not been started yet");
    let supervisor = Supervisor::builder().telemetry(()).child(spec).start().unwrap();
    assert_eq!(breaker.call(|| Ok::<_, &str>(42)).unwrap(), 42);
    assert_eq!(breaker.state(), CircuitState::Closed, "a first run is no trial for callers");
    assert_eq!(supervisor.handle().breaker("child").unwrap().state(), CircuitState::Closed);
    assert!(supervisor.handle().breaker("nobody").is_none());
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[test]
fn failure_that_cannot_be_shown_trips_the_child_all_the_same() {
    struct Unspeakable;
    impl std::fmt::Display for Unspeakable {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no words")
        }
    }
    let recorder = Recorder::default();
    let (spec, strings) = puppet("child");
    let spec = spec.failure_threshold(1);
    let breaker = spec.breaker();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(MS))
        .child(spec)
        .start()
        .unwrap();
    strings.next_run();
    breaker.report_failure(Unspeakable);
    let EventKind::Tripped { failures, last, .. } = recorder.wait_for("child", "tripped", 1).kind
    else {
        unreachable!()
    };
    assert_eq!((failures, &*last), (1, "an error whose `Display` panicked"));
    assert_eq!(strings.next_run().1, 1);
    breaker.wait_until_permitted(DEADLINE).unwrap();
    breaker.permit().unwrap().failure(Unspeakable);
    assert_eq!(strings.next_run().1, 2);
    assert!(supervisor.shutdown().is_clean());
    check_trace(&recorder.events(), None, false);
}

#[test]
fn text_of_a_reported_failure_is_bounded_and_does_not_keep_its_caller() {
    struct Endless;
    impl std::fmt::Display for Endless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            let mut written = 0;
            loop {
                f.write_str("on and ")?;
                written += 7;
                assert!(written < 1 << 20, "nobody ends it");
            }
        }
    }
    let recorder = Recorder::default();
    let (spec, strings) = puppet("child");
    let spec = spec.failure_threshold(1);
    let breaker = spec.breaker();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(MS))
        .child(spec)
        .start()
        .unwrap();
    for count in 1..=2 {
        strings.next_run();
        breaker.wait_until_permitted(DEADLINE).unwrap();
        if count == 1 {
            breaker.report_failure(Endless);
        } else {
            breaker.permit().unwrap().failure(Endless);
        }
        let EventKind::Tripped { last, .. } = recorder.wait_for("child", "tripped", count).kind
        else {
            unreachable!()
        };
        assert!(last.starts_with("on and on and ") && last.ends_with('…'), "{}", last.len());
        assert!(last.len() <= 64 * 1024);
    }
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn child_that_is_down_is_not_called_and_the_rejection_says_why() {
    let (spec, strings) = puppet("child");
    let breaker = spec.breaker();
    let supervisor =
        Supervisor::builder().telemetry(()).backoff(constant(HOUR)).child(spec).start().unwrap();
    let handle = supervisor.handle();
    strings.next_run();
    strings.act(Act::Fail("no broker"));
    wait_status(handle, "child", ChildStatus::BackingOff);
    let Err(CallError::Rejected(rejected)) = breaker.call(forbidden) else {
        panic!("not rejected")
    };
    assert_eq!(rejected.status(), Some(ChildStatus::BackingOff));
    assert!(rejected.retry_in().unwrap() > HOUR - DEADLINE);
    assert_eq!(rejected.last_exit().as_ref().and_then(Exit::message), Some("no broker"));
    assert!(rejected.to_string().contains("no broker"), "{rejected}");

    handle.reset("child").unwrap();
    strings.next_run();
    assert_eq!(breaker.state(), CircuitState::Closed, "an operator's reset forgives its failures");
    handle.hold("child").unwrap();
    wait_off(handle, "child", OffBy::Operator);
    assert!(breaker.call(forbidden).is_err());
    assert_eq!(
        rejected.status(),
        Some(ChildStatus::Off { by: OffBy::Operator }),
        "it looks when asked"
    );
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn failures_in_a_row_trip_the_child_at_the_threshold() {
    let recorder = Recorder::default();
    let (spec, strings) = puppet("child");
    let breaker = spec.breaker();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(MS))
        .child(spec)
        .start()
        .unwrap();
    strings.next_run();
    report(&breaker, 9);
    breaker.report_success();
    report(&breaker, 9);
    assert_eq!(
        breaker.state(),
        CircuitState::Closed,
        "10 in a row are the default, and a success is between"
    );
    breaker.report_failure("the tenth");
    assert!(
        !breaker.is_call_permitted() || breaker.state() == CircuitState::HalfOpen,
        "open at once, or restarted already"
    );
    assert_eq!(strings.next_run().1, 1, "its end is a failure");
    let EventKind::Tripped { failures, last, .. } = recorder.wait_for("child", "tripped", 1).kind
    else {
        unreachable!()
    };
    assert_eq!((failures, &*last), (10, "the tenth"));
    let stop = stop_of(&recorder.wait_for("child", "stop", 1));
    assert_eq!((stop.cause, stop.retry_in), (StopCause::Tripped, Some(MS)));

    // On trial, one is enough; and once it is healthy, ten are needed again.
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    breaker.report_failure("on trial");
    assert_eq!(strings.next_run().1, 2);
    strings.act(Act::MarkHealthy);
    wait_status(supervisor.handle(), "child", ChildStatus::Healthy);
    assert_eq!(breaker.state(), CircuitState::Closed);
    report(&breaker, 9);
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert!(supervisor.shutdown().is_clean());
    check_trace(&recorder.events(), None, false);
}

#[test]
fn report_that_reaches_the_threshold_opens_the_breaker_before_the_supervisor_knows() {
    let (mut held, bar) = gate();
    let (entered, is_held) = unbounded();
    let spec = idler("child").failure_threshold(2);
    let breaker = spec.breaker();
    let supervisor = Supervisor::builder()
        .telemetry(())
        .poll_interval(HOUR)
        .enabled({
            let mut asked = 0;
            move |_| {
                asked += 1;
                if asked == 2 {
                    let _ = entered.send(());
                    bar.wait();
                }
                true
            }
        })
        .backoff(constant(HOUR))
        .child(spec)
        .start()
        .unwrap();
    supervisor.handle().poll_now().unwrap();
    take(&is_held);
    report(&breaker, 2);
    assert_eq!(breaker.state(), CircuitState::Open, "by the report itself");
    assert!(breaker.call(forbidden).is_err());
    held.open();
    let child = wait_status(supervisor.handle(), "child", ChildStatus::BackingOff);
    assert_eq!(child.last_stop.as_ref().map(|stop| stop.cause), Some(StopCause::Tripped));
    assert!(child.to_string().contains("because its callers reported failures"), "{child}");
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn what_became_of_a_call_of_an_earlier_run_changes_nothing() {
    let (spec, strings) = puppet("child");
    let spec = spec.failure_threshold(1);
    let breaker = spec.breaker();
    let supervisor =
        Supervisor::builder().telemetry(()).backoff(constant(MS)).child(spec).start().unwrap();
    strings.next_run();
    let early = breaker.permit().unwrap();
    let late = breaker.permit().unwrap();
    strings.act(Act::Return);
    let (second, _) = strings.next_run();
    strings.act(Act::MarkHealthy);
    wait_status(supervisor.handle(), "child", ChildStatus::Healthy);
    early.failure("of the first run");
    late.success();
    assert_eq!(breaker.state(), CircuitState::Closed);
    drop(breaker.permit().unwrap());
    assert_eq!(breaker.state(), CircuitState::Closed, "a permit that is dropped tells nothing");
    breaker.permit().unwrap().failure("of the second run");
    assert!(strings.next_run().0 > second);
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn panic_in_a_call_is_a_failure_and_goes_on_to_the_caller() {
    let recorder = Recorder::default();
    let spec = idler("child").failure_threshold(1).backoff(constant(HOUR));
    let breaker = spec.breaker();
    let supervisor = Supervisor::builder().telemetry(recorder.clone()).child(spec).start().unwrap();
    let caught = catch_unwind(AssertUnwindSafe(|| {
        breaker.call(|| -> Result<(), &str> { panic!("the caller's own") })
    }));
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"the caller's own"));
    let tripped = recorder.wait_for("child", "tripped", 1);
    assert!(
        tripped.to_string().ends_with("its callers reported 1 failure, the last: a call panicked"),
        "{tripped}"
    );
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn errors_that_are_nobodys_fault_do_not_count() {
    let spec = idler("child").failure_threshold(1);
    let breaker = spec.breaker();
    let supervisor =
        Supervisor::builder().telemetry(()).backoff(constant(HOUR)).child(spec).start().unwrap();
    for _ in 0..3 {
        let result: Result<(), _> =
            breaker.call_with(|| Err("no such row"), |error| *error != "no such row");
        assert!(matches!(result, Err(CallError::Failed("no such row"))));
    }
    assert!(breaker.is_call_permitted());
    let result: Result<(), _> =
        breaker.call_with(|| Err("timed out"), |error| *error != "no such row");
    assert_eq!(result.unwrap_err().to_string(), "timed out");
    wait_status(supervisor.handle(), "child", ChildStatus::BackingOff);
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn finished_child_is_not_called() {
    let spec = ChildSpec::new("child", |_| Ok(())).restart(RestartPolicy::Transient);
    let breaker = spec.breaker();
    let supervisor = Supervisor::builder().telemetry(()).child(spec).start().unwrap();
    wait_status(supervisor.handle(), "child", ChildStatus::Finished);
    let Err(CallError::Rejected(rejected)) = breaker.call(forbidden) else {
        panic!("not rejected")
    };
    assert_eq!((rejected.status(), rejected.retry_in()), (Some(ChildStatus::Finished), None));
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn breaker_of_a_child_that_is_gone_is_open_for_ever() {
    let supervisor = Supervisor::builder().telemetry(()).child(idler("child")).start().unwrap();
    let handle = supervisor.handle();
    let breaker = handle.breaker("child").unwrap();
    handle.remove("child").unwrap();
    handle.wait_until_gone("child", DEADLINE).unwrap();
    handle.add(idler("child")).unwrap();
    let another = handle.breaker("child").unwrap();
    another.wait_until_permitted(DEADLINE).unwrap();
    assert_eq!((breaker.state(), another.state()), (CircuitState::Open, CircuitState::Closed));
    breaker.report_failure("nobody is there");
    assert!(matches!(breaker.wait_until_permitted(DEADLINE), Err(WaitError::Gone(_))));
    assert!(supervisor.shutdown().is_clean());
    assert!(matches!(another.wait_until_permitted(DEADLINE), Err(WaitError::Ended(_))));
}

#[test]
fn rejection_says_that_the_child_is_gone_whoever_has_a_handle() {
    for (keeps_handle, is_once) in [(true, true), (true, false), (false, true), (false, false)] {
        let (spec, strings) = if is_once { puppet_once("child") } else { puppet("child") };
        let breaker = spec.breaker();
        let supervisor = Supervisor::builder()
            .telemetry(())
            .backoff(constant(HOUR))
            .child(spec)
            .start()
            .unwrap();
        let handle = supervisor.handle().clone();
        strings.next_run();
        strings.act(Act::Fail("no broker"));
        if !is_once {
            wait_status(&handle, "child", ChildStatus::BackingOff);
            handle.remove("child").unwrap();
        }
        handle.wait_until_gone("child", DEADLINE).unwrap();
        let kept = keeps_handle.then_some(handle);
        // And after the end of its supervisor it is no less gone.
        let mut supervisor = Some(supervisor);
        for _ in 0..2 {
            let rejected = breaker.permit().unwrap_err();
            check_says_only(&rejected, "`child` is gone from the list of its supervisor");
            let Err(WaitError::Gone(child)) = breaker.wait_until_permitted(DEADLINE) else {
                panic!("it is gone")
            };
            check_says_last(&child, "no broker");
            drop(supervisor.take());
        }
        drop(kept);
    }
}

#[test]
fn rejection_says_that_the_supervisor_has_ended_whoever_has_a_handle() {
    for keeps_handle in [true, false] {
        let (spec, strings) = puppet("child");
        let breaker = spec.breaker();
        let supervisor = Supervisor::builder()
            .telemetry(())
            .backoff(constant(HOUR))
            .child(spec)
            .start()
            .unwrap();
        let kept = keeps_handle.then(|| supervisor.handle().clone());
        strings.next_run();
        strings.act(Act::Fail("no broker"));
        wait_status(supervisor.handle(), "child", ChildStatus::BackingOff);
        let early = breaker.permit().unwrap_err();
        let its = breaker.clone();
        let waiting = thread::spawn(move || its.wait_until_permitted(HOUR));
        assert!(supervisor.shutdown().is_clean());
        for rejected in [early, breaker.permit().unwrap_err()] {
            check_says_only(&rejected, "the supervisor of `child` has ended");
        }
        for answer in [waiting.join().unwrap(), breaker.wait_until_permitted(DEADLINE)] {
            let Err(WaitError::Ended(child)) = answer else { panic!("{answer:?}") };
            check_says_last(&child, "no broker");
        }
        drop(kept);
    }
}

#[test]
fn rejection_of_a_nested_child_calls_it_by_its_whole_id() {
    let (breakers, sent) = unbounded();
    let outer = ChildSpec::new("outer", move |ctx| {
        let inner = idler("inner");
        breakers.send(inner.breaker())?;
        Supervisor::builder().child(inner).run(ctx)
    });
    let supervisor = Supervisor::builder().telemetry(()).child(outer).start().unwrap();
    let breaker = take(&sent);
    breaker.wait_until_permitted(DEADLINE).unwrap();
    assert!(supervisor.shutdown().is_clean());
    check_says_only(&breaker.permit().unwrap_err(), "the supervisor of `outer/inner` has ended");
}

#[test]
fn callers_may_wait_until_they_are_permitted() {
    let (spec, strings) = puppet("child");
    let breaker = spec.breaker();
    let its = breaker.clone();
    let early = thread::spawn(move || its.wait_until_permitted(DEADLINE).is_ok());
    let supervisor =
        Supervisor::builder().telemetry(()).backoff(constant(HOUR)).child(spec).start().unwrap();
    assert!(early.join().unwrap(), "one who waits before the start is told too");
    strings.next_run();
    strings.act(Act::Fail("no"));
    wait_status(supervisor.handle(), "child", ChildStatus::BackingOff);
    assert!(matches!(
        breaker.wait_until_permitted(Duration::ZERO),
        Err(WaitError::TimedOut(Some(_)))
    ));
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let its = breaker.clone();
            thread::spawn(move || its.wait_until_permitted(DEADLINE).is_ok())
        })
        .collect();
    supervisor.handle().reset("child").unwrap();
    assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
    assert!(supervisor.shutdown().is_clean());
}

// The counts of callers are exact, however many there are.
#[test]
fn reports_of_many_threads_are_counted_exactly() {
    for _ in rounds(20) {
        let spec = idler("child").failure_threshold(40_000).backoff(constant(HOUR));
        let breaker = spec.breaker();
        let supervisor = Supervisor::builder().telemetry(()).child(spec).start().unwrap();
        let ready = Barrier::new(4);
        thread::scope(|scope| {
            for number in 0..4 {
                let (breaker, ready) = (&breaker, &ready);
                scope.spawn(move || {
                    ready.wait();
                    // One short of the threshold, all together.
                    report(breaker, if number == 0 { 9_999 } else { 10_000 });
                });
            }
        });
        assert_eq!(breaker.state(), CircuitState::Closed);
        breaker.report_failure("the last");
        assert_eq!(breaker.state(), CircuitState::Open);
        assert!(supervisor.shutdown().is_clean());
    }
}

/// What the callers of one test saw.
#[derive(Default)]
struct Tally {
    admitted: AtomicU64,
    rejected: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

#[test]
fn eight_callers_of_a_crashing_child_add_up() {
    let (requests, inbox) = unbounded::<(u64, crossbeam_channel::Sender<u64>)>();
    let recorder = Recorder::default();
    let spec = ChildSpec::new("server", move |ctx| {
        loop {
            let (number, reply) = ctx.recv(&inbox)?;
            assert_ne!(number % 50, 49, "every fiftieth request is poison");
            let _ = reply.send(number + 1);
        }
    })
    .backoff(constant(MS))
    .healthy_after(MS);
    let breaker = spec.breaker();
    let supervisor = Supervisor::builder().telemetry(recorder.clone()).child(spec).start().unwrap();
    let (tally, over) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (breaker, requests, tally, over) =
                (breaker.clone(), requests.clone(), tally.clone(), over.clone());
            thread::spawn(move || {
                let mut calls = 0u64;
                for number in rounds(2_000) {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    calls += 1;
                    let result = breaker.call(|| {
                        tally.admitted.fetch_add(1, Ordering::SeqCst);
                        let (reply, answer) = unbounded();
                        requests.send((number, reply)).map_err(|_| "nobody listens")?;
                        // The reply's sender goes with the run that crashed: nobody hangs.
                        answer.recv_timeout(DEADLINE).map_err(|_| "no answer")
                    });
                    match result {
                        Ok(answer) => {
                            assert_eq!(answer, number + 1);
                            tally.succeeded.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(CallError::Rejected(_)) => {
                            tally.rejected.fetch_add(1, Ordering::SeqCst);
                            let _ = breaker.wait_until_permitted(DEADLINE);
                        }
                        Err(CallError::Failed(_)) => {
                            tally.failed.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
                calls
            })
        })
        .collect();
    let calls: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    over.store(true, Ordering::SeqCst);
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    assert_eq!(calls, count(&tally.admitted) + count(&tally.rejected));
    assert_eq!(count(&tally.admitted), count(&tally.succeeded) + count(&tally.failed));
    assert!(count(&tally.failed) > 0, "poison was sent");
    assert!(supervisor.shutdown().is_clean());
    check_trace(&recorder.events(), None, false);
}

// No call is made by a breaker that was open from before the call until after it.
#[test]
fn nothing_is_called_while_the_breaker_is_held_open() {
    let (opened, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let spec = ChildSpec::new("child", idle);
    let breaker = spec.breaker();
    let supervisor = Supervisor::builder().telemetry(()).child(spec).start().unwrap();
    let handle = supervisor.handle();
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (breaker, opened, calls, over) =
                (breaker.clone(), opened.clone(), calls.clone(), over.clone());
            thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let was_open = opened.load(Ordering::SeqCst);
                    let _ = breaker.call(|| {
                        // Closed again in the meantime is no fault.
                        assert!(
                            !(was_open && opened.load(Ordering::SeqCst)),
                            "called while it was open"
                        );
                        calls.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, &str>(())
                    });
                }
            })
        })
        .collect();
    for _ in rounds(200) {
        handle.hold("child").unwrap();
        handle
            .wait_for("child", DEADLINE, |child| {
                child.status == ChildStatus::Off { by: OffBy::Operator }
            })
            .unwrap();
        opened.store(true, Ordering::SeqCst);
        assert!(!breaker.is_call_permitted());
        opened.store(false, Ordering::SeqCst);
        handle.release("child").unwrap();
        breaker.wait_until_permitted(DEADLINE).unwrap();
        let before = calls.load(Ordering::SeqCst);
        crate::support::eventually("somebody calls", || calls.load(Ordering::SeqCst) > before);
    }
    over.store(true, Ordering::SeqCst);
    assert!(
        callers.into_iter().all(|caller| caller.join().is_ok()),
        "no call was made while the breaker was open"
    );
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn threshold_of_zero_is_an_error_that_names_the_child() {
    let error =
        Supervisor::builder().child(idler("touchy").failure_threshold(0)).start().unwrap_err();
    assert!(
        matches!(error.reason(), StartErrorReason::Config(ConfigError::ZeroFailureThreshold(id)) if *id == "touchy"),
        "{error}"
    );
}

#[test]
fn child_that_is_stopped_without_the_stuck_supervisor_is_not_called() {
    let (mut gate, bar) = gate();
    let (stuck, is_stuck) = unbounded();
    let spec = idler("child");
    let breaker = spec.breaker();
    let sink = move |event: &Event| {
        if event.id == *"other" && matches!(event.kind, EventKind::Started) {
            stuck.send(()).unwrap();
            bar.wait();
        }
    };
    let supervisor = Supervisor::builder().on_event(sink).child(spec).start().unwrap();
    let handle = supervisor.handle().clone();
    let other = idler("other");
    let of_other = other.breaker();
    handle.add(other).unwrap();
    take(&is_stuck);
    assert!(of_other.is_call_permitted() && breaker.is_call_permitted());
    let report = supervisor.shutdown_within(MS);
    assert!(report.stuck_in.is_some(), "{report}");
    assert_eq!((breaker.state(), of_other.state()), (CircuitState::Open, CircuitState::Open));
    breaker.call(forbidden).unwrap_err();
    check_says_only(&breaker.permit().unwrap_err(), "the supervisor of `child` shuts down");
    // Nobody but the stuck thread knows of the children from here on.
    drop(handle);
    check_says_only(&of_other.permit().unwrap_err(), "the supervisor of `other` shuts down");
    assert!(
        matches!(breaker.wait_until_permitted(MS), Err(WaitError::TimedOut(_))),
        "it has not ended yet"
    );
    gate.open();
    assert!(matches!(of_other.wait_until_permitted(HOUR), Err(WaitError::Ended(_))));
    check_says_only(&of_other.permit().unwrap_err(), "the supervisor of `other` has ended");
    assert_eq!((breaker.state(), of_other.state()), (CircuitState::Open, CircuitState::Open));
}
