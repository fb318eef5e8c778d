//! Starts that a call has forbidden: none comes after the call has returned.

use std::time::Duration;

use circuit_breaker_supervisor::Supervisor;

use super::restless;
use crate::support::*;

#[test]
fn no_run_begins_after_a_hold_has_returned() {
    let exclusive = Exclusive::default();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(restless("child", &exclusive, 1))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let mut dice = Dice(2);
    for _ in rounds(1500) {
        handle.hold("child").unwrap();
        // The run that had begun by now is the last one.
        let last = handle.child("child").unwrap().run;
        dice.dawdle();
        let down = handle.wait_for("child", DEADLINE, |child| !child.is_running()).unwrap();
        assert!(down.run <= last, "run {} began after the hold, which had seen {last}", down.run);
        dice.dawdle();
        assert!(handle.child("child").unwrap().run <= last);
        handle.release("child").unwrap();
        if dice.roll(3) > 0 {
            handle.wait_for("child", DEADLINE, |child| child.run > last).unwrap();
        }
        dice.dawdle();
    }
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert!(!exclusive.was_broken());
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn no_run_begins_after_a_removal_has_returned() {
    let exclusive = Exclusive::default();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let mut dice = Dice(3);
    for round in rounds(1000) {
        handle.add(restless("child", &exclusive, round)).unwrap();
        dice.dawdle();
        if dice.roll(4) == 0 {
            handle.restart("child").unwrap();
        }
        handle.remove("child").unwrap();
        let last = handle.child("child").map_or(u64::MAX, |child| child.run);
        let seen = recorder.events().len();
        handle.wait_until_gone("child", DEADLINE).unwrap();
        for event in &recorder.events()[seen..] {
            assert!(event.run <= last, "{event}, though the removal had seen run {last}");
        }
    }
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert!(!exclusive.was_broken());
    check_trace(&recorder.events(), Some(&report), true);
}

#[test]
fn no_run_begins_after_a_shutdown_was_requested() {
    for round in rounds(150) {
        let exclusive = [(); 4].map(|()| Exclusive::default());
        let recorder = Recorder::default();
        let children = exclusive
            .iter()
            .enumerate()
            .map(|(number, its)| restless(&number.to_string(), its, round + number as u64));
        let supervisor = Supervisor::builder()
            .telemetry(recorder.clone())
            .backoff(constant(Duration::ZERO))
            .stop_timeout(DEADLINE)
            .children(children)
            .start()
            .unwrap();
        Dice(round).dawdle();
        let handle = supervisor.handle().clone();
        handle.request_shutdown();
        let last: Vec<_> = handle.snapshot().children.iter().map(|child| child.run).collect();
        let report = supervisor.wait();
        assert!(report.is_clean(), "{report}");
        for (child, last) in handle.snapshot().children.iter().zip(last) {
            assert!(
                child.run <= last,
                "{child} began after the request, which had seen run {last}"
            );
        }
        assert!(!exclusive.iter().any(Exclusive::was_broken));
        check_trace(&recorder.events(), Some(&report), false);
    }
}
