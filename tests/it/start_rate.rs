//! Limit of the starts in one second.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    ChildSpec, ChildStatus, Event, EventKind, Exit, Handle, OffBy, Simulation, StopCause,
    Supervisor,
};

use crate::support::*;

fn numbered(count: usize) -> impl Iterator<Item = ChildSpec> {
    (0..count).map(|number| unused(&number.to_string()))
}

/// When runs started, or could not for want of a thread.
fn starts(events: &[Event]) -> Vec<Instant> {
    let is_start = |kind: &EventKind| match kind {
        EventKind::Started => true,
        EventKind::Stopped { cause, .. } => *cause == StopCause::NotSpawned,
        _ => false,
    };
    events.iter().filter(|event| is_start(&event.kind)).map(|event| event.at).collect()
}

/// No window of one second holds more than so many.
#[track_caller]
fn check_windows(starts: &[Instant], most: usize) {
    for window in starts.windows(most + 1) {
        let span = window[most] - window[0];
        assert!(span >= SECOND, "{} starts within {span:?}", most + 1);
    }
}

#[test]
fn children_that_come_back_together_start_in_their_turns() {
    let builder = Supervisor::builder()
        .max_starts_per_second(10)
        .backoff(constant(5 * SECOND))
        .children(numbered(35));
    let mut simulation = simulate(builder);
    simulation.advance(20 * SECOND);
    assert_eq!(simulation.handle().snapshot().counts().running, 35);
    for number in 0..35 {
        simulation.exit(&number.to_string(), Exit::failed("the broker is away")).unwrap();
    }
    simulation.advance(5 * SECOND);
    let counts = simulation.handle().snapshot().counts();
    assert_eq!((counts.running, counts.due), (10, 25));
    simulation.advance(3 * SECOND);
    assert_eq!(simulation.handle().snapshot().counts().running, 35);
    check_windows(&starts(simulation.events()), 10);
    let again: Vec<_> = simulation.events().iter().rev().take(35).collect();
    assert!(
        again.iter().rev().zip(0..).all(|(event, number)| event.id == number.to_string().as_str()),
        "in the order in which they became due"
    );
    check_trace(simulation.events(), None, false);
}

#[test]
fn child_that_is_added_meanwhile_is_behind_those_that_are_due() {
    let slot: Arc<OnceLock<Handle>> = Arc::default();
    let its = slot.clone();
    let builder = Supervisor::builder()
        .max_starts_per_second(1)
        .on_event(move |event| {
            if event.id == "0" && word(event) == "start 0" {
                its.get().unwrap().add(unused("late")).unwrap();
            }
        })
        .children(numbered(4));
    let mut simulation = Simulation::new(builder, 1).unwrap();
    slot.set(simulation.handle().clone()).unwrap();
    simulation.advance(10 * SECOND);
    let starts = simulation.events().iter().filter(|event| word(event) == "start 0");
    let order: Vec<_> = starts.map(|event| event.id.to_string()).collect();
    assert_eq!(order, ["0", "1", "2", "3", "late"]);
}

#[test]
fn fewer_than_the_limit_are_not_delayed() {
    let builder = Supervisor::builder()
        .max_starts_per_second(3)
        .backoff(constant(400 * MS))
        .child(unused("child"));
    let mut simulation = simulate(builder);
    for _ in 0..20 {
        simulation.exit("child", Exit::Completed).unwrap();
        simulation.advance(400 * MS);
        assert!(status(&simulation, "child").is_running());
    }
}

#[test]
fn start_that_fails_counts_and_the_next_has_its_turn_a_second_later() {
    let builder = Supervisor::builder().max_starts_per_second(1).children(numbered(2));
    let mut simulation = Simulation::new(builder, 1).unwrap();
    simulation.fail_next_spawn("0");
    simulation.advance(900 * MS);
    assert_eq!(words(&simulation, "0"), ["stop not_spawned 0"]);
    assert_eq!(status(&simulation, "1"), ChildStatus::Due);
    simulation.advance(100 * MS);
    assert!(status(&simulation, "1").is_running());
    simulation.advance(SECOND);
    assert!(status(&simulation, "0").is_running());
}

#[test]
fn restarts_by_hand_come_first_in_the_order_in_which_they_were_given() {
    let builder = Supervisor::builder().max_starts_per_second(1).children(numbered(5));
    let mut simulation = simulate(builder);
    let handle = simulation.handle().clone();
    for id in ["3", "0", "4"] {
        handle.restart(id).unwrap();
    }
    simulation.advance(10 * SECOND);
    let order: Vec<_> = simulation
        .events()
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Started))
        .map(|event| event.id.to_string())
        .collect();
    // The first was running, and has its place once that run has ended.
    assert_eq!(order, ["0", "3", "4", "0", "1", "2"]);
    check_windows(&starts(simulation.events()), 1);
}

#[test]
fn waiting_child_obeys_its_flag_and_its_operator_and_the_shutdown() {
    let builder = Supervisor::builder()
        .max_starts_per_second(1)
        .enabled(|id| id != "1")
        .children(numbered(5));
    let mut simulation = simulate(builder);
    let handle = simulation.handle().clone();
    handle.hold("2").unwrap();
    handle.remove("3").unwrap();
    simulation.advance(SECOND);
    assert_eq!(status(&simulation, "1"), ChildStatus::Off { by: OffBy::Flag });
    assert_eq!(status(&simulation, "2"), ChildStatus::Off { by: OffBy::Operator });
    assert!(handle.child("3").is_none());
    assert!(status(&simulation, "4").is_running(), "nobody who is down takes its turn");
    handle.add(unused("5")).unwrap();
    simulation.advance(Duration::ZERO);
    assert_eq!(status(&simulation, "5"), ChildStatus::Due);
    handle.request_shutdown();
    simulation.advance(Duration::ZERO);
    assert_eq!(status(&simulation, "5"), ChildStatus::Off { by: OffBy::Shutdown });
    assert!(handle.wait_until_stopped(Duration::ZERO).unwrap().is_clean());
}

#[test]
fn crashing_threads_keep_to_the_limit_and_the_start_does_not_wait() {
    const MOST: u32 = 30;
    let recorder = Recorder::default();
    let children = (0..50).map(|number| ChildSpec::new(number.to_string(), |_| Ok(())));
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .max_starts_per_second(MOST)
        .backoff(constant(Duration::ZERO))
        .children(children)
        .start()
        .unwrap();
    assert!(supervisor.handle().snapshot().counts().due > 0, "most of them wait");
    recorder.wait_until(|events| starts(events).len() > 3 * MOST as usize);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    check_windows(&starts(&recorder.events()), MOST as usize);
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn ten_thousand_children_start_at_the_rate_that_was_set() {
    let builder =
        Supervisor::builder().telemetry(()).max_starts_per_second(1000).children(numbered(10_000));
    let mut simulation = simulate(builder);
    for second in 1..=10 {
        assert_eq!(simulation.handle().snapshot().counts().running, 1000 * second);
        simulation.advance(SECOND);
    }
}
