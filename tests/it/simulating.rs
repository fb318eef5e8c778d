//! Simulation: the supervisor on virtual time, which decides what the real one does.

mod determinism;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use circuit_breaker_supervisor::{
    Backoff, ChildSpec, ChildStatus, CircuitState, ConfigError, EventKind, Exit, Handle,
    NotRunning, OffBy, Simulation, StartErrorReason, StopCause, Supervisor, UnstoppedPhase,
    WaitError,
};
use crossbeam_channel::unbounded;
use parking_lot::Mutex;

use crate::support::*;

/// What was told of a child, each with the milliseconds at which it was.
fn story(simulation: &Simulation, id: &str) -> Vec<(u128, String)> {
    let of_child = simulation.events().iter().filter(|event| event.id == *id);
    of_child.map(|event| ((event.at - simulation.origin()).as_millis(), word(event))).collect()
}

#[test]
fn nothing_happens_before_time_is_let_pass() {
    let (sender, asked) = unbounded();
    let builder = Supervisor::builder()
        .enabled(move |id| {
            let _ = sender.send(id.to_owned());
            true
        })
        .children([unused("one"), unused("two")]);
    let mut simulation = Simulation::new(builder, 1).unwrap();
    assert_eq!(status(&simulation, "one"), ChildStatus::Due);
    assert!(simulation.events().is_empty() && asked.is_empty());
    simulation.advance(Duration::ZERO);
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((simulation.events().len(), simulation.elapsed()), (2, Duration::ZERO));
}

#[test]
fn hour_of_backoff_is_waited_out_to_the_nanosecond() {
    let builder = Supervisor::builder().backoff(constant(HOUR)).child(unused("child"));
    let mut simulation = simulate(builder);
    simulation.exit("child", Exit::failed("no")).unwrap();
    simulation.advance(HOUR - Duration::from_nanos(1));
    assert_eq!(status(&simulation, "child"), ChildStatus::BackingOff);
    assert_eq!(simulation.handle().child("child").unwrap().retry_in, Some(Duration::from_nanos(1)));
    simulation.advance(Duration::from_nanos(1));
    assert_eq!(status(&simulation, "child"), ChildStatus::OnTrial);
    assert_eq!(simulation.elapsed(), HOUR);
    check_trace(simulation.events(), None, true);
}

#[test]
fn things_happen_each_at_its_own_time_in_one_long_advance() {
    let builder =
        Supervisor::builder().healthy_after(60 * SECOND).backoff(constant(5 * SECOND)).children([
            unused("one"),
            unused("two").healthy_after(2 * SECOND).stop_timeout(3 * SECOND),
        ]);
    let mut simulation = simulate(builder);
    simulation.ignore_stop_for("two", 4 * SECOND);
    simulation.exit("one", Exit::panicked("no")).unwrap();
    simulation.advance(10 * SECOND);
    simulation.handle().restart("two").unwrap();
    simulation.advance(HOUR);
    let at = |at, word: &str| (at, word.to_owned());
    assert_eq!(
        story(&simulation, "one"),
        [at(0, "start 0"), at(0, "stop exited 0"), at(5000, "start 1"), at(65_000, "healthy")]
    );
    assert_eq!(
        story(&simulation, "two"),
        [
            at(0, "start 0"),
            at(2000, "healthy"),
            at(10_000, "order restart"),
            at(13_000, "overdue"),
            at(14_000, "stop restarted 0"),
            at(14_000, "start 0"),
            at(16_000, "healthy")
        ]
    );
}

#[test]
fn flag_is_asked_at_each_poll_and_before_each_start() {
    let is_on = Arc::new(AtomicBool::new(true));
    let count = Arc::new(AtomicU32::new(0));
    let (on, asked) = (is_on.clone(), count.clone());
    let builder = Supervisor::builder()
        .poll_interval(10 * SECOND)
        .enabled(move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            on.load(Ordering::Relaxed)
        })
        .child(unused("child"));
    let mut simulation = simulate(builder);
    let asked = |within: &mut Simulation, duration| {
        let before = count.load(Ordering::Relaxed);
        within.advance(duration);
        count.load(Ordering::Relaxed) - before
    };
    assert_eq!(asked(&mut simulation, 100 * SECOND), 10);
    is_on.store(false, Ordering::Relaxed);
    assert_eq!(asked(&mut simulation, 9 * SECOND), 0);
    assert_eq!(asked(&mut simulation, SECOND), 1);
    assert_eq!(status(&simulation, "child"), ChildStatus::Off { by: OffBy::Flag });
    is_on.store(true, Ordering::Relaxed);
    simulation.handle().poll_now().unwrap();
    // Again after the sinks, which have had the change by then: they may take long.
    assert_eq!(asked(&mut simulation, Duration::ZERO), 2);
    assert!(status(&simulation, "child").is_running());
}

#[test]
fn child_that_stops_at_the_very_instant_at_which_its_time_is_over_has_stopped_in_time() {
    let mut simulation =
        simulate(Supervisor::builder().child(unused("deaf").stop_timeout(5 * SECOND)));
    for (deaf_for, expected) in [(5 * SECOND, 0), (5 * SECOND + MS, 1)] {
        simulation.ignore_stop_for("deaf", deaf_for);
        simulation.handle().restart("deaf").unwrap();
        simulation.advance(HOUR);
        let overdue = words(&simulation, "deaf").iter().filter(|word| *word == "overdue").count();
        assert_eq!(overdue, expected, "deaf for {deaf_for:?}");
    }
}

#[test]
fn spawn_fails_only_where_a_thread_is_spawned() {
    let builder = Supervisor::builder()
        .backoff(constant(Duration::ZERO))
        .children([unused("warm"), unused("fresh").fresh_thread(true)]);
    let mut simulation = simulate(builder);
    for id in ["warm", "fresh"] {
        simulation.fail_next_spawn(id);
        simulation.fail_next_spawn(id);
        simulation.exit(id, Exit::failed("no")).unwrap();
    }
    assert_eq!(simulation.handle().child("warm").unwrap().run, 2, "its thread is there");
    let fresh = simulation.handle().child("fresh").unwrap();
    assert_eq!((fresh.status, fresh.failures), (ChildStatus::BackingOff, 2));
    assert_eq!(fresh.last_stop.unwrap().cause, StopCause::NotSpawned);
    simulation.advance(100 * MS);
    assert_eq!(
        simulation.handle().child("fresh").unwrap().failures,
        3,
        "the second one fails as well"
    );
    simulation.advance(100 * MS);
    assert!(status(&simulation, "fresh").is_running());
    check_trace(simulation.events(), None, true);
}

// A once child is never given up: that there is no thread for it is not its fault.
#[test]
fn once_child_waits_for_a_thread_however_few_restarts_it_may_have() {
    let job = ChildSpec::once("job", |_| unreachable!("a simulation calls no body"))
        .max_restarts(0)
        .significant(true);
    let mut simulation =
        Simulation::new(Supervisor::builder().backoff(constant(SECOND)).child(job), 1).unwrap();
    for _ in 0..3 {
        simulation.fail_next_spawn("job");
    }
    simulation.advance(2 * SECOND);
    assert_eq!(status(&simulation, "job"), ChildStatus::BackingOff);
    simulation.advance(SECOND);
    simulation.exit("job", Exit::failed("its own fault")).unwrap();
    assert!(simulation.handle().child("job").is_none());
    assert!(simulation.handle().snapshot().is_running);
}

#[test]
fn run_that_ends_by_itself_as_it_is_held_has_both_told() {
    let mut simulation = simulate(Supervisor::builder().child(unused("child")));
    simulation.handle().hold("child").unwrap();
    simulation.exit("child", Exit::panicked("at the same moment")).unwrap();
    let stop = simulation.handle().child("child").unwrap().last_stop.unwrap();
    assert_eq!((stop.cause, stop.exit.message()), (StopCause::Held, Some("at the same moment")));
    assert_eq!(status(&simulation, "child"), ChildStatus::Off { by: OffBy::Operator });
}

#[test]
fn breaker_is_tripped_by_those_who_call() {
    let store = unused("store").failure_threshold(3);
    let breaker = store.breaker();
    let mut simulation =
        simulate(Supervisor::builder().backoff(constant(SECOND)).healthy_after(HOUR).child(store));
    for _ in 0..3 {
        assert_eq!(breaker.state(), CircuitState::Closed);
        breaker.report_failure("timed out");
    }
    assert_eq!(breaker.state(), CircuitState::Open);
    simulation.advance(Duration::ZERO);
    assert_eq!(breaker.permit().unwrap_err().retry_in(), Some(SECOND));
    assert!(
        matches!(breaker.wait_until_permitted(HOUR), Err(WaitError::TimedOut(_))),
        "time does not pass in a wait"
    );
    simulation.advance(SECOND);
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    simulation.mark_healthy("store").unwrap();
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[test]
fn watchdog_bites_a_child_that_falls_silent() {
    let builder =
        Supervisor::builder().backoff(constant(HOUR)).child(unused("child").watchdog(40 * SECOND));
    let mut simulation = simulate(builder);
    simulation.advance(HOUR);
    for _ in 0..10 {
        simulation.heartbeat("child", "reading").unwrap();
        simulation.advance(39 * SECOND);
    }
    assert!(status(&simulation, "child").is_running());
    simulation.advance(20 * SECOND);
    let hung = simulation.events().iter().find_map(|event| match &event.kind {
        EventKind::Hung { doing, silent_for, .. } => Some((doing.to_string(), *silent_for)),
        _ => None,
    });
    let (doing, silent_for) = hung.unwrap();
    assert!(
        doing == "reading" && silent_for >= 40 * SECOND && silent_for < 51 * SECOND,
        "{silent_for:?}"
    );
    assert_eq!(status(&simulation, "child"), ChildStatus::BackingOff);
}

#[test]
fn shutdown_names_who_did_not_stop_and_drops_what_others_captured() {
    let tokens: BTreeMap<&str, Arc<()>> = ["good", "deaf"].map(|id| (id, Arc::new(()))).into();
    let child = |id: &str| {
        let token = tokens[id].clone();
        ChildSpec::new(id, move |_| unreachable!("{token:?}")).stop_timeout(3 * SECOND)
    };
    let mut simulation = simulate(Supervisor::builder().children([child("good"), child("deaf")]));
    simulation.ignore_stop_for("deaf", Duration::MAX);
    let handle = simulation.handle().clone();
    handle.request_shutdown();
    simulation.advance(Duration::ZERO);
    assert_eq!(Arc::strong_count(&tokens["good"]), 1);
    assert_eq!(status(&simulation, "deaf"), ChildStatus::Stopping);
    assert!(handle.wait_until_stopped(HOUR).is_err());
    simulation.advance(HOUR);
    let report = handle.wait_until_stopped(Duration::ZERO).unwrap();
    let [unstopped] = &report.unstopped[..] else { panic!("{report}") };
    assert_eq!((unstopped.id.as_str(), unstopped.phase), ("deaf", UnstoppedPhase::Running));
    assert_eq!(unstopped.stopping_for, 3 * SECOND);
    assert_eq!(Arc::strong_count(&tokens["deaf"]), 1, "there is no thread that would hold it");
    check_trace(simulation.events(), Some(&report), true);
    assert!(simulation.exit("deaf", Exit::Completed).is_err());
    assert!(handle.add(unused("late")).is_err());
}

// Promise 8: also where the drop is the last thing that a shutdown does.
#[test]
fn capture_that_panics_as_it_is_dropped_by_a_shutdown_is_told_of() {
    let bomb = OnDrop(|| panic!("no way to go"));
    let child = ChildSpec::new("child", move |_| {
        let _ = &bomb;
        Ok(())
    });
    let mut simulation = simulate(Supervisor::builder().backoff(constant(HOUR)).child(child));
    simulation.exit("child", Exit::failed("no")).unwrap();
    simulation.handle().request_shutdown();
    simulation.advance(Duration::ZERO);
    assert!(simulation.handle().wait_until_stopped(Duration::ZERO).unwrap().is_clean());
    let last = simulation.events().last().unwrap();
    assert!(
        matches!(
            &last.kind,
            EventKind::CallbackPanicked { panic, .. } if panic.message() == "no way to go"
        ),
        "{last}"
    );
    assert_eq!(last.run, 1);
}

#[test]
fn simulation_that_is_dropped_has_ended() {
    let token = Arc::new(());
    let its = token.clone();
    let builder = Supervisor::builder().on_event(move |_| drop(its.clone())).child(unused("child"));
    let simulation = simulate(builder);
    let handle = simulation.handle().clone();
    drop(simulation);
    assert_eq!(Arc::strong_count(&token), 1);
    assert!(handle.poll_now().is_err() && handle.wait_until_stopped(Duration::ZERO).is_ok());
}

#[test]
fn removed_child_is_gone_and_its_id_free() {
    let mut simulation = simulate(Supervisor::builder().child(unused("child")));
    simulation.handle().remove("child").unwrap();
    simulation.advance(Duration::ZERO);
    assert!(simulation.handle().child("child").is_none());
    let error = simulation.exit("child", Exit::Completed).unwrap_err();
    assert_eq!(error.to_string(), r#"there is no child "child""#);
    simulation.handle().add(unused("child")).unwrap();
    simulation.advance(Duration::ZERO);
    assert!(status(&simulation, "child").is_running());
}

#[test]
fn bad_description_is_given_back() {
    let error =
        Simulation::new(Supervisor::builder().children([unused("twice"), unused("twice")]), 1)
            .unwrap_err();
    assert!(matches!(error.reason(), StartErrorReason::Config(ConfigError::DuplicateId(_))));
    assert!(Simulation::new(error.into_builder(), 1).is_err());
}

#[test]
fn child_that_does_not_run_says_what_it_does_instead() {
    let mut simulation = Simulation::new(Supervisor::builder().child(unused("child")), 1).unwrap();
    let NotRunning { child, .. } = simulation.heartbeat("child", "nothing").unwrap_err();
    assert_eq!(child.unwrap().status, ChildStatus::Due);
    simulation.advance(Duration::ZERO);
    simulation.exit("child", Exit::failed("no")).unwrap();
    let error = simulation.mark_healthy("child").unwrap_err();
    assert!(error.to_string().contains("`child` is backing off: it failed"), "{error}");
}

#[test]
fn callbacks_may_panic_and_command_the_supervisor_that_calls_them() {
    let place = Arc::new(Mutex::new(None::<Handle>));
    let its = place.clone();
    let builder = Supervisor::builder()
        .on_event(move |event| {
            let handle = its.lock().clone().unwrap();
            assert!(matches!(handle.wait_until_stopped(HOUR), Err(WaitError::OnSupervisorThread)));
            if matches!(event.kind, EventKind::Started) && event.id == "first" {
                handle.add(unused("second")).unwrap();
                panic!("a sink panics");
            }
        })
        .backoff(Backoff::from_fn(|_| panic!("a backoff panics")))
        .child(unused("first"));
    let mut simulation = Simulation::new(builder, 1).unwrap();
    *place.lock() = Some(simulation.handle().clone());
    simulation.advance(Duration::ZERO);
    assert!(status(&simulation, "second").is_running());
    simulation.exit("second", Exit::failed("no")).unwrap();
    assert_eq!(status(&simulation, "second"), ChildStatus::BackingOff);
    assert!(
        simulation
            .events()
            .iter()
            .any(|event| matches!(event.kind, EventKind::CallbackPanicked { .. }))
    );
    place.lock().take();
}
