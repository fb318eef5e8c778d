//! Drops of a user's values that panic or block: of what a body made, captured or panicked with,
//! and of callbacks.

use std::{fmt, panic::panic_any, time::Duration};

use circuit_breaker_supervisor::{
    Callback, ChildContext, ChildSpec, ChildStatus, OffBy, StopCause, Supervisor, WaitError,
};
use crossbeam_channel::{Receiver, unbounded};

use crate::support::*;

/// Says that it is being dropped, and blocks.
fn sticky() -> (impl Send + 'static, Gate, Receiver<()>) {
    let (gate, bar) = gate();
    let (sender, dropping) = unbounded();
    let block = move || {
        let _ = sender.send(());
        bar.wait();
    };
    (OnDrop(block), gate, dropping)
}

/// Nobody else is held up: another child goes on failing and coming back.
#[track_caller]
fn check_not_held_up(other: &Puppet) {
    for _ in 0..5 {
        other.act(Act::Fail("the loop goes on"));
        other.next_run();
    }
}

#[test]
fn local_whose_drop_panics_is_a_panic_of_its_run() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(ChildSpec::new("child", |ctx| {
            if ctx.failures() > 1 {
                return idle(ctx);
            }
            let _local = OnDrop(|| panic!("no way to go"));
            // The error is lost, with whatever it holds: what has been returned is not dropped by
            // the panic of a local.
            if ctx.failures() == 0 { Ok(()) } else { Err(fmt::Error.into()) }
        }))
        .start()
        .unwrap();
    recorder.wait_for("child", "start 2", 1);
    for count in 1..=2 {
        let stop = stop_of(&recorder.wait_for("child", "stop exited", count));
        assert!(
            stop.exit.is_panicked() && stop.exit.message() == Some("no way to go"),
            "{}",
            stop.exit
        );
    }
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn payload_whose_drop_blocks_makes_its_own_child_overdue_and_delays_no_other() {
    let recorder = Recorder::default();
    let (payload, gate, dropping) = sticky();
    let (other, strings) = puppet("other");
    let mut payload = Some(payload);
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(
            ChildSpec::new("child", move |ctx| match payload.take() {
                Some(payload) => panic_any(payload),
                None => idle(ctx),
            })
            .stop_timeout(20 * MS),
        )
        .child(other)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    take(&dropping);
    strings.next_run();
    check_not_held_up(&strings);
    // It is the child's own code that still runs.
    assert!(handle.child("child").unwrap().is_running());
    handle.hold("child").unwrap();
    recorder.wait_for("child", "overdue", 1);
    check_not_held_up(&strings);
    drop(gate);
    let child = wait_off(handle, "child", OffBy::Operator);
    let stop = child.last_stop.unwrap();
    assert_eq!((stop.cause, stop.exit.message()), (StopCause::Held, Some("unknown panic")));
    handle.release("child").unwrap();
    recorder.wait_for("child", "start 0", 2);
    check_trace(&recorder.events(), None, false);
}

#[test]
fn removed_child_whose_body_blocks_as_it_is_dropped_delays_no_other() {
    let recorder = Recorder::default();
    let (captured, gate, dropping) = sticky();
    let (other, strings) = puppet("other");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(
            ChildSpec::new("child", move |ctx| {
                let _ = &captured;
                idle(ctx)
            })
            .stop_timeout(20 * MS),
        )
        .child(other)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    strings.next_run();
    handle.remove("child").unwrap();
    take(&dropping);
    recorder.wait_for("child", "overdue", 1);
    assert_eq!(handle.child("child").unwrap().status, ChildStatus::Stopping);
    assert!(handle.add(idler("child")).is_err(), "its id is taken for as long");
    check_not_held_up(&strings);
    drop(gate);
    handle.wait_until_gone("child", DEADLINE).unwrap();
    handle.add(idler("child")).unwrap();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    check_trace(&recorder.events(), Some(&report), true);
}

#[test]
fn body_of_a_removed_child_that_was_down_may_block_as_it_is_dropped() {
    let (captured, gate, dropping) = sticky();
    let (other, strings) = puppet("other");
    let body = move |ctx: &ChildContext| {
        let _ = &captured;
        idle(ctx)
    };
    let supervisor = Supervisor::builder()
        .backoff(constant(Duration::ZERO))
        .child(ChildSpec::new("child", body))
        .child(other)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    strings.next_run();
    handle.hold("child").unwrap();
    wait_off(handle, "child", OffBy::Operator);
    handle.remove("child").unwrap();
    take(&dropping);
    // There is no run to wait for: the id is free, and used again while the old body goes.
    handle.wait_until_gone("child", DEADLINE).unwrap();
    handle.add(idler("child")).unwrap();
    handle.wait_for("child", DEADLINE, |child| child.is_running()).unwrap();
    check_not_held_up(&strings);
    drop(gate);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn callback_whose_drop_blocks_does_not_keep_the_shutdown() {
    let (captured, gate, dropping) = sticky();
    let supervisor = Supervisor::builder()
        .stop_timeout(100 * MS)
        .enabled(move |_| {
            let _ = &captured;
            true
        })
        .child(idler("child"))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    let report = supervisor.shutdown();
    take(&dropping);
    assert!(report.unstopped.is_empty(), "{report}");
    let stuck = report.stuck_in.clone().unwrap_or_else(|| panic!("stuck: {report}"));
    assert_eq!((stuck.callback, stuck.id), (Callback::Drop, None), "{report}");
    drop(gate);
    let report = handle.wait_until_stopped(DEADLINE).unwrap();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn breaker_keeps_the_text_of_its_childs_last_error_and_not_the_error() {
    #[derive(Debug)]
    struct Explosive(Drops);
    impl fmt::Display for Explosive {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("explosive")
        }
    }
    impl std::error::Error for Explosive {}
    impl Drop for Explosive {
        fn drop(&mut self) {
            drop(self.0.token());
            panic!("no way to go");
        }
    }
    let drops = Drops::default();
    let error = drops.clone();
    let spec = ChildSpec::new("child", move |_| Err(Explosive(error.clone()).into()));
    let breaker = spec.breaker();
    let supervisor =
        Supervisor::builder().telemetry(()).backoff(constant(HOUR)).child(spec).start().unwrap();
    wait_status(supervisor.handle(), "child", ChildStatus::BackingOff);
    assert!(supervisor.shutdown().is_clean());
    eventually("nobody keeps the error", || drops.count() == 1);
    let Err(WaitError::Ended(child)) = breaker.wait_until_permitted(HOUR) else {
        panic!("the supervisor has ended")
    };
    assert_eq!(child.last_stop.unwrap().exit.message(), Some("explosive"));
}
