//! Shutdowns that stop all children past a supervisor thread that is stuck.

use std::{thread, time::Duration};

use circuit_breaker_supervisor::{
    Callback, ChildSpec, Event, EventKind, OffBy, ShutdownCause, Supervisor,
};
use crossbeam_channel::{Receiver, bounded, unbounded};

use crate::support::*;

/// A sink that holds the supervisor thread when it is told of the child `last`; whoever has the
/// receiver hears of it.
fn holding() -> (impl Fn(&Event) + Send + Sync + 'static, Gate, Receiver<()>) {
    let (gate, bar) = gate();
    let (entered, blocked) = bounded(1);
    let hold = move |event: &Event| {
        if event.id == "last" {
            let _ = entered.try_send(());
            bar.wait();
        }
    };
    (hold, gate, blocked)
}

#[test]
fn stubborn_child_of_a_stuck_supervisor_is_named_as_well() {
    let (hold, gate, blocked) = holding();
    let (deaf, deaf_gate, started) = stubborn("deaf");
    let supervisor =
        Supervisor::builder().stop_timeout(1000 * MS).on_event(hold).child(deaf).start().unwrap();
    let handle = supervisor.handle().clone();
    let ctx = take(&started);
    handle.add(idler("last")).unwrap();
    take(&blocked);
    let report = supervisor.shutdown();
    assert!(ctx.is_stopping());
    assert_eq!(unstopped(&report), ["deaf"], "{report}");
    assert!(report.stuck_in.is_some());
    // The supervisor thread comes back, and finds it there as well.
    drop(gate);
    let report = handle.wait_until_stopped(DEADLINE).unwrap();
    assert_eq!(unstopped(&report), ["deaf"], "{report}");
    assert!(report.stuck_in.is_none());
    drop(deaf_gate);
}

#[test]
fn stuck_supervisor_still_has_stop_callbacks_called() {
    let (hold, gate, blocked) = holding();
    let (sender, ended) = unbounded();
    let supervisor = Supervisor::builder()
        .stop_timeout(DEADLINE)
        .on_event(hold)
        .child(ChildSpec::new("reader", move |ctx| {
            let (close, socket) = bounded::<()>(0);
            let _guard = ctx.on_stop(move || drop(close));
            let _ = socket.recv();
            let _ = sender.send(());
            Ok(())
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    handle.add(idler("last")).unwrap();
    take(&blocked);
    let ender = thread::spawn(move || supervisor.shutdown_within(Duration::from_secs(1)));
    take(&ended);
    let report = ender.join().unwrap();
    assert!(report.unstopped.is_empty() && report.stuck_in.is_some(), "{report}");
    drop(gate);
    let _ = handle.wait_until_stopped(DEADLINE).unwrap();
}

#[test]
fn report_of_a_stuck_supervisor_says_who_gave_up_all_the_same() {
    let (held, bar) = gate();
    let (entered, is_held) = unbounded();
    let supervisor = Supervisor::builder()
        .on_event(move |event| {
            // The very last event of a supervisor that ends by itself.
            if event.id == "idle" && matches!(event.kind, EventKind::Stopped { .. }) {
                let _ = entered.send(());
                bar.wait();
            }
        })
        .stop_timeout(100 * MS)
        .child(idler("idle"))
        .child(
            ChildSpec::new("doomed", |_| Err("no luck".into())).max_restarts(0).significant(true),
        )
        .start()
        .unwrap();
    take(&is_held);
    let report = supervisor.shutdown();
    assert!(
        matches!(&report.cause, ShutdownCause::GaveUp(child) if child.id == "doomed"),
        "{report}"
    );
    assert_eq!(report.stuck_in.map(|stuck| stuck.callback), Some(Callback::Sink));
    drop(held);
}

/// A child that is down has nothing to stop, however long it might take; and the others have no
/// more than their own time.
#[test]
fn shutdown_of_a_stuck_supervisor_waits_for_nobody_who_is_down() {
    for patience in [HOUR, Duration::MAX] {
        let (hold, gate, blocked) = holding();
        let (deaf, _deaf_gate, started) = stubborn("deaf");
        let supervisor = Supervisor::builder()
            .on_event(hold)
            .child(idler("held").stop_timeout(patience))
            .child(idler("obedient").stop_timeout(patience))
            .child(deaf.stop_timeout(50 * MS))
            .start()
            .unwrap();
        let handle = supervisor.handle().clone();
        take(&started);
        handle.hold("held").unwrap();
        wait_off(&handle, "held", OffBy::Operator);
        handle.add(idler("last")).unwrap();
        take(&blocked);
        let (sender, reports) = bounded(1);
        thread::spawn(move || sender.send(supervisor.shutdown()));
        let report = take(&reports);
        assert_eq!(unstopped(&report), ["deaf"], "{report}");
        assert!(report.stuck_in.is_some() && !report.has_ended && !report.is_clean(), "{report}");
        drop(gate);
        let _ = handle.wait_until_stopped(DEADLINE).unwrap();
    }
}

#[test]
fn child_that_is_down_is_not_named_where_the_shutdown_gets_stuck() {
    let (gate, bar) = gate();
    let (deaf, _deaf_gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder()
        .on_event(move |event| {
            if matches!(event.kind, EventKind::Overdue { .. }) {
                bar.wait();
            }
        })
        .child(idler("held"))
        .child(deaf.stop_timeout(Duration::ZERO))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    take(&started);
    handle.hold("held").unwrap();
    wait_off(&handle, "held", OffBy::Operator);
    let report = supervisor.shutdown();
    assert_eq!(unstopped(&report), ["deaf"], "{report}");
    drop(gate);
    let _ = handle.wait_until_stopped(DEADLINE).unwrap();
}

/// The starts that a supervisor thread finds denied when it comes back are no failures: no event
/// tells of them, and no child is given up for them.
#[test]
fn supervisor_that_comes_back_gives_nobody_up() {
    let recorder = Recorder::default();
    let (hold, mut gate, held) = hold_at_plug();
    let supervisor =
        Supervisor::builder().on_event(hold).telemetry(recorder.clone()).start().unwrap();
    let handle = supervisor.handle().clone();
    handle.add(idler("plug")).unwrap();
    take(&held);
    handle.add(idler("late").max_restarts(0).significant(true)).unwrap();
    let report = supervisor.shutdown_within(Duration::ZERO);
    assert!(!report.has_ended && matches!(report.cause, ShutdownCause::Requested), "{report}");
    gate.open();
    let report = handle.wait_until_stopped(DEADLINE).unwrap();
    println!("{report}\n{:?}", recorder.story("late"));
    assert!(matches!(report.cause, ShutdownCause::Requested), "{report}");
    assert!(recorder.story("late").is_empty());
}

/// A child that was added while the supervisor thread was stuck has no thread for its body to be
/// dropped on. The drop may block, so that the supervisor thread must not do it either.
#[test]
fn body_is_not_dropped_on_the_supervisor_thread_after_a_take_over() {
    let (hold, mut gate, held) = hold_at_plug();
    let (name_sender, dropped_on) = unbounded();
    let supervisor = Supervisor::builder().name("the-supervisor").on_event(hold).start().unwrap();
    let handle = supervisor.handle().clone();
    let value = OnDrop(move || drop(name_sender.send(thread::current().name().map(str::to_owned))));
    let child = ChildSpec::new("held", move |ctx| {
        let _ = &value;
        idle(ctx)
    });
    handle.add(idler("plug")).unwrap();
    take(&held);
    handle.add(child).unwrap();
    let _ = supervisor.shutdown_within(Duration::ZERO);
    gate.open();
    let name = take(&dropped_on);
    println!("dropped on {name:?}");
    assert_ne!(name.as_deref(), Some("the-supervisor"));
}

/// The supervisor thread, which is stuck, cannot note that these children have ended: a handle has
/// to look at their runs.
#[test]
fn children_that_a_take_over_has_stopped_are_not_shown_as_running() {
    let (hold, mut gate, held) = hold_at_plug();
    let supervisor = Supervisor::builder().on_event(hold).child(idler("idle")).start().unwrap();
    let handle = supervisor.handle().clone();
    handle.add(idler("plug")).unwrap();
    take(&held);
    let report = supervisor.shutdown();
    let child = handle.child("idle").unwrap();
    println!(
        "{report}\n{child}\n{}\n{:?}",
        handle.snapshot(),
        handle.wait_for("idle", SECOND, |child| !child.is_running()).map(drop)
    );
    gate.open();
    assert!(!child.is_running(), "{report}, but {child}");
}
