//! Orders of an operator to running children: add, remove, restart, reset, hold, release.

use std::time::Duration;

use circuit_breaker_supervisor::{
    ChildInfo, ChildSpec, ChildStatus, EventKind, Exit, OffBy, RestartPolicy, StopCause, Supervisor,
};
use crossbeam_channel::{never, unbounded};

use crate::support::*;

#[test]
fn added_child_is_listed_at_once_and_started() {
    let recorder = Recorder::default();
    let supervisor =
        Supervisor::builder().telemetry(recorder.clone()).child(idler("first")).start().unwrap();
    let handle = supervisor.handle();
    let (child, strings) = puppet("added");
    handle.add(child).unwrap();
    assert!(handle.child("added").is_some(), "listed as soon as `add` has returned");
    assert_eq!(strings.next_run().1, 0);
    assert_eq!(handle.snapshot().counts().children, 2);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert_eq!(recorder.story("added"), ["start 0", "stop shutdown 0"]);
}

#[test]
fn added_child_that_gets_no_thread_is_kept_and_tried_again() {
    let recorder = Recorder::default();
    let supervisor =
        Supervisor::builder().telemetry(recorder.clone()).backoff(constant(MS)).start().unwrap();
    let handle = supervisor.handle();
    handle.add(idler("huge").stack_size(IMPOSSIBLE_STACK)).unwrap();
    recorder.wait_for("huge", "stop not_spawned 1", 1);
    assert_eq!(wait_status(handle, "huge", ChildStatus::BackingOff).failures, 2);
}

#[test]
fn held_child_stays_down_until_it_is_released() {
    let recorder = Recorder::default();
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .poll_interval(MS)
        .enabled(|_| true)
        .backoff(constant(Duration::ZERO))
        .child(child)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    strings.act(Act::Fail("no"));
    strings.next_run();
    strings.next_run();
    for _ in 0..3 {
        handle.hold("child").unwrap();
    }
    let child = wait_off(handle, "child", OffBy::Operator);
    assert_eq!(child.failures, 1, "a hold forgives nothing, and is no failure");
    assert_eq!(child.last_stop.unwrap().cause, StopCause::Held);
    handle.hold("child").unwrap();
    handle.poll_now().unwrap();
    handle.reset("child").unwrap();
    barrier(handle);
    let child = handle.child("child").unwrap();
    assert!(matches!(child.status, ChildStatus::Off { by: OffBy::Operator, .. }), "{child}");
    assert!(strings.runs.is_empty());
    handle.release("child").unwrap();
    handle.release("child").unwrap();
    assert_eq!(strings.next_run().1, 0);
    barrier(handle);
    assert!(strings.runs.is_empty());
    let story = recorder.story("child");
    assert_eq!(story, ["start 0", "stop exited 0", "start 1", "stop held 1", "start 0"]);
    check_trace(&recorder.events(), None, true);
}

#[test]
fn hold_shortens_no_backoff() {
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder().backoff(constant(HOUR)).child(child).start().unwrap();
    let handle = supervisor.handle();
    strings.next_run();
    strings.act(Act::Fail("no"));
    wait_status(handle, "child", ChildStatus::BackingOff);
    handle.hold("child").unwrap();
    wait_off(handle, "child", OffBy::Operator);
    handle.release("child").unwrap();
    let child = wait_status(handle, "child", ChildStatus::BackingOff);
    assert_eq!(child.failures, 1);
    assert!(child.retry_in.unwrap() > HOUR / 2);
    assert!(strings.runs.is_empty());
}

#[test]
fn thousand_children_come_and_go_one_by_one() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder().telemetry(recorder.clone()).start().unwrap();
    let handle = supervisor.handle();
    for number in 0..1000 {
        handle.add(idler(&number.to_string()).stack_size(1 << 16)).unwrap();
        if number % 100 == 0 {
            assert_eq!(handle.snapshot().counts().children, number + 1);
        }
    }
    assert_eq!(handle.snapshot().counts().children, 1000);
    handle.wait_for("999", DEADLINE, ChildInfo::is_running).unwrap();
    assert_eq!(handle.snapshot().counts().running, 1000);
    for number in 0..1000 {
        handle.remove(&number.to_string()).unwrap();
        if number % 100 == 0 {
            for removed in usize::saturating_sub(number, 100)..=number {
                handle.wait_until_gone(&removed.to_string(), DEADLINE).unwrap();
            }
            assert_eq!(handle.snapshot().counts().children, 999 - number);
        }
    }
    for number in 0..1000 {
        handle.wait_until_gone(&number.to_string(), DEADLINE).unwrap();
    }
    assert_eq!(handle.snapshot().counts().children, 0);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert_eq!(recorder.events().len(), 4000, "each is added, started, removed and stopped");
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn id_that_was_removed_begins_anew_with_its_first_run() {
    let recorder = Recorder::default();
    let supervisor =
        Supervisor::builder().telemetry(recorder.clone()).backoff(constant(HOUR)).start().unwrap();
    let handle = supervisor.handle();
    for round in 0..50 {
        let (child, strings) = puppet("child");
        handle.add(child).unwrap();
        let (run, failures) = strings.next_run();
        assert_eq!((run, failures), (1, 0), "round {round}");
        if round % 2 == 0 {
            // Its backoff and its last stop must not reach its successor.
            strings.act(Act::Panic("no"));
            wait_status(handle, "child", ChildStatus::BackingOff);
        }
        handle.remove("child").unwrap();
        handle.wait_until_gone("child", DEADLINE).unwrap();
    }
    check_trace(&recorder.events(), None, true);
}

#[test]
fn removed_child_that_is_down_is_gone_and_its_body_dropped() {
    let drops = Drops::default();
    let (its, mut failed) = (drops.token(), false);
    let supervisor = Supervisor::builder()
        .backoff(constant(HOUR))
        .child(ChildSpec::new("child", move |_| {
            let _ = &its;
            assert!(!std::mem::replace(&mut failed, true), "one run");
            Err("no".into())
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    wait_status(handle, "child", ChildStatus::BackingOff);
    handle.remove("child").unwrap();
    handle.wait_until_gone("child", DEADLINE).unwrap();
    eventually("its body is dropped", || drops.count() == 1);
}

#[test]
fn restart_stops_a_running_child_and_starts_it_with_a_clean_history() {
    let mut simulation =
        simulate(Supervisor::builder().backoff(constant(50 * SECOND)).child(unused("child")));
    for _ in 0..2 {
        simulation.exit("child", Exit::failed("no")).unwrap();
        simulation.advance(50 * SECOND);
    }
    simulation.handle().restart("child").unwrap();
    simulation.advance(Duration::ZERO);
    simulation.exit("child", Exit::failed("no")).unwrap();
    simulation.advance(50 * SECOND);
    let expected = [
        "start 0",
        "stop exited 0",
        "start 1",
        "stop exited 1",
        "start 2",
        "stop restarted 0",
        "start 0",
        "stop exited 0",
        "start 1",
    ];
    assert_eq!(words(&simulation, "child"), expected, "the next failure is the first");
    check_trace(simulation.events(), None, true);
}

#[test]
fn reset_forgives_a_running_child_and_leaves_it_running() {
    let (child, strings) = puppet("child");
    let (supervisor, _recorder) = supervise(child, Duration::ZERO);
    let handle = supervisor.handle();
    strings.act(Act::Fail("no"));
    strings.next_run();
    let (run, failures) = strings.next_run();
    assert_eq!(failures, 1);
    handle.reset("child").unwrap();
    let child = handle.wait_for("child", DEADLINE, |child| child.failures == 0).unwrap();
    assert_eq!((child.run, child.status), (run, ChildStatus::OnTrial));
    assert!(handle.snapshot().is_healthy());
    strings.act(Act::Fail("no"));
    assert_eq!(strings.next_run().1, 1);
}

#[test]
fn holding_what_is_finished_or_given_up_keeps_it_down_after_a_revival() {
    for (spec, status) in [
        (
            ChildSpec::new("child", |_| Ok(())).restart(RestartPolicy::Transient),
            ChildStatus::Finished,
        ),
        (ChildSpec::new("child", |_| Err("no".into())).max_restarts(0), ChildStatus::GaveUp),
    ] {
        let recorder = Recorder::default();
        let supervisor =
            Supervisor::builder().telemetry(recorder.clone()).child(spec).start().unwrap();
        let handle = supervisor.handle();
        wait_status(handle, "child", status);
        handle.hold("child").unwrap();
        handle.restart("child").unwrap();
        wait_off(handle, "child", OffBy::Operator);
        barrier(handle);
        assert_eq!(recorder.count("child", "start"), 1);
        handle.release("child").unwrap();
        recorder.wait_for("child", "start 0", 2);
        wait_status(handle, "child", status);
    }
}

/// A start that gets no thread counts as a run too. It is not tried once `hold` has returned,
/// though it became due while the supervisor thread was busy with the start of another child.
#[test]
fn no_start_is_tried_after_hold_has_returned() {
    let recorder = Recorder::default();
    let (mut holds, bars): (Vec<_>, Vec<_>) = (0..2).map(|_| gate()).unzip();
    let (sender, held) = unbounded();
    let supervisor =
        Supervisor::builder()
            .on_event(move |event| {
                // Holds the supervisor thread until both backoffs are over, and then at the
                // first of the two starts.
                let place = match &event.kind {
                    EventKind::Ordered { .. } if event.id == "plug" => 0,
                    EventKind::Started if event.id == "first" && event.run == 2 => 1,
                    _ => return,
                };
                let _ = sender.send(());
                bars[place].wait();
            })
            .telemetry(recorder.clone())
            .backoff(constant(200 * MS))
            .child(ChildSpec::new("first", |ctx| {
                if ctx.run() == 1 { Err("no".into()) } else { idle(ctx) }
            }))
            .child(idler("none").stack_size(IMPOSSIBLE_STACK).backoff(constant(250 * MS)))
            .child(idler("plug"))
            .start()
            .unwrap();
    let handle = supervisor.handle().clone();
    recorder.wait_for("first", "stop", 1);
    handle.reset("plug").unwrap();
    take(&held);
    let _ = never::<()>().recv_timeout(400 * MS);
    holds[0].open();
    take(&held);
    handle.hold("none").unwrap();
    let run = handle.child("none").unwrap().run;
    holds[1].open();
    barrier(&handle);
    println!("{:?}", recorder.story("none"));
    let after = handle.child("none").unwrap().run;
    drop(supervisor);
    assert_eq!(after, run, "no run after `hold` has returned");
}
