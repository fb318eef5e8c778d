//! Owners of a supervisor: where it may be ended, dropped or moved to.

use std::{sync::Arc, thread, time::Duration};

use circuit_breaker_supervisor::{
    ChildResult, ChildSpec, ChildStatus, EventKind, OffBy, RestartPolicy, ShutdownReport,
    Supervisor,
};
use crossbeam_channel::{bounded, unbounded};
use parking_lot::Mutex;

use crate::support::*;

#[test]
fn dropping_the_supervisor_shuts_it_down() {
    let recorder = Recorder::default();
    let supervisor =
        Supervisor::builder().telemetry(recorder.clone()).child(idler("child")).start().unwrap();
    let handle = supervisor.handle().clone();
    drop(supervisor);
    assert!(handle.wait_until_stopped(Duration::ZERO).unwrap().is_clean(), "it waits for the end");
    assert_eq!(recorder.story("child"), ["start 0", "stop shutdown 0"]);
}

#[test]
fn supervisor_may_be_ended_from_a_thread_of_its_own_children() {
    for how in [Supervisor::shutdown, Supervisor::wait, |supervisor: Supervisor| {
        supervisor.shutdown_within(HOUR)
    }] {
        let (hand, slot) = bounded::<Supervisor>(1);
        let (sender, reports) = unbounded();
        let supervisor = Supervisor::builder()
            .stop_timeout(HOUR)
            .child(ChildSpec::new("child", move |ctx| {
                let supervisor = ctx.recv(&slot)?;
                let report = how(supervisor);
                let _ = sender.send((report, ctx.is_stopping() || ctx.stopped().recv().is_err()));
                Ok(())
            }))
            .start()
            .unwrap();
        let handle = supervisor.handle().clone();
        hand.send(supervisor).unwrap();
        let (report, is_stopping) = take(&reports);
        assert!(is_stopping);
        assert_eq!(report.unstopped.len(), 1, "it could not wait for itself: {report}");
        assert!(handle.wait_until_stopped(DEADLINE).unwrap().is_clean());
    }
}

#[test]
fn supervisor_may_be_dropped_on_its_own_thread() {
    let recorder = Recorder::default();
    let slot: Arc<Mutex<Option<Supervisor>>> = Arc::default();
    let its = slot.clone();
    let (sender, dropped) = unbounded();
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .stop_timeout(HOUR)
        .on_event(move |event| {
            if matches!(event.kind, EventKind::Stopped { .. }) {
                let supervisor = its.lock().take();
                if supervisor.is_some() {
                    drop(supervisor);
                    let _ = sender.send(());
                }
            }
        })
        .backoff(constant(Duration::ZERO))
        .child(child)
        .child(idler("other"))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    *slot.lock() = Some(supervisor);
    strings.act(Act::Fail("no"));
    take(&dropped);
    let report = handle.wait_until_stopped(DEADLINE).unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(recorder.count("child", "start"), 1, "nothing starts any more");
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn supervisor_may_be_ended_on_its_own_thread() {
    let slot: Arc<Mutex<Option<Supervisor>>> = Arc::default();
    let its = slot.clone();
    let (sender, reports) = unbounded::<ShutdownReport>();
    let supervisor = Supervisor::builder()
        .poll_interval(MS)
        .enabled(move |_| {
            if let Some(supervisor) = its.lock().take() {
                let _ = sender.send(supervisor.shutdown());
            }
            true
        })
        .child(idler("child"))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    *slot.lock() = Some(supervisor);
    let report = take(&reports);
    assert_eq!(report.unstopped.len(), 1, "it could not wait: {report}");
    assert!(handle.wait_until_stopped(DEADLINE).unwrap().is_clean());
}

#[test]
fn on_stop_callback_may_end_the_supervisor_and_wait_for_it_in_vain() {
    let (hand, slot) = bounded::<Supervisor>(1);
    let (sender, reports) = unbounded();
    let (ready, begun) = unbounded();
    let supervisor = Supervisor::builder()
        .stop_timeout(HOUR)
        .child(ChildSpec::new("child", move |ctx| {
            let (slot, sender, called) = (slot.clone(), sender.clone(), bounded(1));
            let _guard = ctx.on_stop(move || {
                if let Ok(supervisor) = slot.recv() {
                    let _ = sender.send(supervisor.shutdown());
                }
                let _ = called.0.send(());
            });
            let _ = ready.send(());
            called.1.recv()?;
            Ok(())
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    take(&begun);
    handle.hold("child").unwrap();
    hand.send(supervisor).unwrap();
    drop(hand);
    assert!(!take(&reports).is_clean());
    assert!(handle.wait_until_stopped(DEADLINE).unwrap().is_clean());
}

#[test]
fn supervisor_may_be_moved_into_its_own_child() {
    let (hand, slot) = bounded::<Supervisor>(1);
    let drops = Drops::default();
    let token = drops.token();
    let mut kept = Vec::new();
    let supervisor = Supervisor::builder()
        .child(
            ChildSpec::new("child", move |ctx| -> ChildResult {
                let _ = &token;
                kept.push(ctx.recv(&slot)?);
                ctx.supervisor().request_shutdown();
                idle(ctx)
            })
            .restart(RestartPolicy::Transient),
        )
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    hand.send(supervisor).unwrap();
    let report = handle.wait_until_stopped(DEADLINE).unwrap();
    assert!(report.is_clean(), "{report}");
    eventually("the body is dropped, with the supervisor in it", || drops.count() == 1);
}

#[test]
fn supervisor_may_be_dropped_while_its_owner_unwinds() {
    let recorder = Recorder::default();
    let its = recorder.clone();
    let owner = thread::spawn(move || {
        let _supervisor =
            Supervisor::builder().telemetry(its).child(idler("child")).start().unwrap();
        panic!("the owner's own fault");
    });
    assert!(owner.join().is_err());
    assert_eq!(recorder.story("child"), ["start 0", "stop shutdown 0"]);
}

#[test]
fn supervisor_may_live_inside_a_child_of_another() {
    let recorder = Recorder::default();
    let its = recorder.clone();
    let outer = Supervisor::builder()
        .child(ChildSpec::new("outer", move |ctx| {
            let inner =
                Supervisor::builder().telemetry(its.clone()).child(idler("inner")).start()?;
            let _ = ctx.sleep(Duration::MAX);
            if inner.shutdown().is_clean() { Ok(()) } else { Err("not clean".into()) }
        }))
        .start()
        .unwrap();
    recorder.wait_for("inner", "start 0", 1);
    let handle = outer.handle().clone();
    assert!(outer.shutdown().is_clean());
    assert!(handle.child("outer").unwrap().last_stop.unwrap().exit.is_completed());
    assert_eq!(recorder.story("inner"), ["start 0", "stop shutdown 0"]);
    assert!(matches!(
        handle.child("outer").unwrap().status,
        ChildStatus::Off { by: OffBy::Shutdown, .. }
    ));
}
