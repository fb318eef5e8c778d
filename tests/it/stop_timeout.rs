//! Limits of a stop: the stop timeout of each child, and the limit of a shutdown.

use std::{
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    ChildContext, ChildSpec, EventKind, OffBy, Supervisor, UnstoppedPhase, WaitError,
};
use crossbeam_channel::{never, unbounded};

use crate::support::*;

#[test]
fn all_are_asked_together_and_each_has_its_own_time() {
    let recorder = Recorder::default();
    let (deaf, gate, started) = stubborn("deaf");
    let (sender, stopped) = unbounded();
    let good = |id: &str| {
        let sender = sender.clone();
        ChildSpec::new(id, move |ctx| {
            let _ = ctx.sleep(Duration::MAX);
            let _ = sender.send(Instant::now());
            Ok(())
        })
    };
    // The stubborn one is last in the list, and so the first to be asked: the others must not wait
    // for it.
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .stop_timeout(HOUR)
        .children([good("a"), good("b"), deaf.stop_timeout(300 * MS)])
        .start()
        .unwrap();
    take(&started);
    let began = Instant::now();
    let report = shut_down(supervisor, DEADLINE);
    assert!(began.elapsed() >= 300 * MS, "it has its whole time");
    assert_eq!(unstopped(&report), ["deaf"], "{report}");
    assert!(report.unstopped[0].stopping_for >= 300 * MS);
    assert_eq!((stopped.len(), report.unstopped[0].phase), (2, UnstoppedPhase::Running));
    assert!(!report.is_clean());
    assert_eq!(recorder.story("deaf"), ["start 0", "overdue"]);
    check_trace(&recorder.events(), Some(&report), false);
    drop(gate);
}

#[test]
fn each_child_has_its_own_stop_timeout() {
    let recorder = Recorder::default();
    let (none, _gate, started) = stubborn("none");
    let (some, _other_gate, other_started) = stubborn("some");
    let (endless, mut last_gate, last_started) = stubborn("endless");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(none.stop_timeout(Duration::ZERO))
        .child(some.stop_timeout(100 * MS))
        .child(endless.stop_timeout(Duration::MAX))
        .start()
        .unwrap();
    for started in [started, other_started, last_started] {
        take(&started);
    }
    let handle = supervisor.handle().clone();
    let ender = thread::spawn(move || supervisor.shutdown());
    // Both are given up on, and the endless one is still waited for.
    recorder.wait_for("none", "overdue", 1);
    recorder.wait_for("some", "overdue", 1);
    assert!(
        matches!(handle.wait_until_stopped(600 * MS), Err(WaitError::TimedOut(None))),
        "it waits without end"
    );
    last_gate.open();
    let report = ender.join().unwrap();
    assert_eq!(unstopped(&report), ["none", "some"], "{report}");
    assert_eq!(recorder.story("endless"), ["start 0", "stop shutdown 0"]);
    assert_eq!(recorder.count("none", "overdue") + recorder.count("some", "overdue"), 2);
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn dropping_the_supervisor_is_bounded_by_the_stop_timeouts() {
    let (deaf, gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder().stop_timeout(50 * MS).child(deaf).start().unwrap();
    let ctx = take(&started);
    drop(supervisor);
    assert!(ctx.is_stopping());
    drop(gate);
}

#[test]
fn shutdown_within_nothing_asks_all_and_waits_for_none() {
    let recorder = Recorder::default();
    let (one, _gate, started) = stubborn("one");
    let (two, _other_gate, other_started) = stubborn("two");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .stop_timeout(HOUR)
        .child(one)
        .child(two)
        .start()
        .unwrap();
    let contexts = [take(&started), take(&other_started)];
    let report = shut_down(supervisor, Duration::ZERO);
    let named: Vec<_> =
        report.unstopped.iter().map(|child| (child.id.to_string(), child.run)).collect();
    assert_eq!(
        named,
        [("one".to_owned(), contexts[0].run()), ("two".to_owned(), contexts[1].run())]
    );
    assert!(contexts.iter().all(ChildContext::is_stopping));
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn child_that_was_stopped_before_the_shutdown_is_timed_from_the_shutdown() {
    let (gate, bar) = gate();
    let captured = OnDrop(move || bar.wait());
    let supervisor = Supervisor::builder()
        .child(ChildSpec::new("child", move |ctx| {
            let _ = &captured;
            idle(ctx)
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    handle.hold("child").unwrap();
    let held = Instant::now();
    wait_off(handle, "child", OffBy::Operator);
    // So that the two can be distinguished.
    eventually("some time has gone by", || held.elapsed() > MS);
    let shutdown = Instant::now();
    let report = supervisor.shutdown_within(20 * MS);
    let [unstopped] = &report.unstopped[..] else { panic!("{report}") };
    assert_eq!(unstopped.phase, UnstoppedPhase::Dropping);
    assert!(unstopped.stopping_for <= shutdown.elapsed(), "{report}");
    drop(gate);
}

#[test]
fn thread_of_a_removed_child_has_its_own_time_to_end() {
    let (gate, bar) = gate();
    let (sender, dropping) = unbounded();
    let captured = OnDrop(move || {
        let _ = sender.send(());
        bar.wait();
    });
    let body = move |ctx: &ChildContext| {
        let _ = &captured;
        idle(ctx)
    };
    let supervisor = Supervisor::builder()
        .stop_timeout(MS)
        .child(ChildSpec::new("child", body).stop_timeout(HOUR))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    handle.hold("child").unwrap();
    wait_off(&handle, "child", OffBy::Operator);
    handle.remove("child").unwrap();
    handle.wait_until_gone("child", DEADLINE).unwrap();
    take(&dropping);
    let (sender, reports) = unbounded();
    let owner = thread::spawn(move || sender.send(supervisor.shutdown()));
    // Much longer than the time of the others, and than a stuck supervisor thread is given.
    assert!(reports.recv_timeout(600 * MS).is_err(), "it is waited for");
    drop(gate);
    let report = take(&reports);
    assert!(report.is_clean(), "{report}");
    owner.join().unwrap().unwrap();
    assert!(
        handle.wait_until_stopped(Duration::ZERO).is_ok(),
        "the supervisor has ended with its shutdown"
    );
}

/// A supervisor thread that comes back during a shutdown does not give the children their stop
/// timeout once more.
#[test]
fn stop_timeout_begins_once() {
    // Stuck after 1 s, 2.5 s for the child, and a little; not 2.5 s from when the sink has
    // returned.
    takes_less_than(5400 * MS, || {
        let (deaf, _deaf_gate, _runs) = stubborn("deaf");
        let (sender, held) = unbounded();
        let supervisor = Supervisor::builder()
            .on_event(move |event| {
                if event.id == "plug" && matches!(event.kind, EventKind::Started) {
                    let _ = sender.send(());
                    let _ = never::<()>().recv_timeout(3 * SECOND);
                }
            })
            .stop_timeout(2500 * MS)
            .child(deaf)
            .start()
            .unwrap();
        supervisor.handle().add(idler("plug")).unwrap();
        take(&held);
        supervisor.shutdown()
    });
}

/// A supervisor thread that is late, and then does not end, is waited for no longer than one that
/// is only late.
#[test]
fn shutdown_with_a_limit_is_a_second_longer_at_most() {
    // Not as long as both, of which the second began anew where the first was over.
    takes_less_than(1750 * MS, || {
        let (_hold, bar) = gate();
        let supervisor = Supervisor::builder()
            .on_event(move |event| match event.kind {
                EventKind::Started => linger(&bar),
                EventKind::Stopped { .. } | EventKind::Overdue { .. } => {
                    let _ = never::<()>().recv_timeout(800 * MS);
                }
                _ => {}
            })
            .child(idler("idle"))
            .start()
            .unwrap();
        supervisor.shutdown_within(Duration::ZERO)
    });
}
