//! The supervisor's own sign of life.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    Callback, EventKind, StartErrorReason, Supervisor, SupervisorBuilder, WaitError,
};
use crossbeam_channel::{Receiver, unbounded};

use crate::support::*;

/// A builder with a pulse, and what it gives for each call: how many children have started.
fn beating() -> (SupervisorBuilder, Receiver<usize>) {
    let (sender, beats) = unbounded();
    let builder = Supervisor::builder().pulse(MS, move |handle| {
        let _ = sender.send(handle.snapshot().counts().running);
    });
    (builder, beats)
}

#[test]
fn pulse_begins_after_the_first_round_and_goes_on() {
    let (builder, beats) = beating();
    let supervisor =
        builder.children((0..20).map(|number| idler(&number.to_string()))).start().unwrap();
    for _ in 0..10 {
        assert_eq!(take(&beats), 20);
    }
    assert!(supervisor.shutdown().is_clean());
    beats.try_iter().for_each(drop);
    assert!(beats.recv().is_err(), "it is dropped with its supervisor");
}

#[test]
fn pulse_goes_on_in_a_shutdown() {
    let (builder, beats) = beating();
    let (leaf, gate, started) = stubborn("leaf");
    let supervisor = builder.child(leaf.stop_timeout(HOUR)).start().unwrap();
    take(&started);
    let handle = supervisor.handle().clone();
    handle.request_shutdown();
    handle.wait_for("leaf", DEADLINE, |leaf| leaf.stopping.is_some()).unwrap();
    beats.try_iter().for_each(drop);
    for _ in 0..3 {
        take(&beats);
    }
    drop(gate);
    assert!(supervisor.wait().is_clean());
}

#[test]
fn pulse_sees_that_a_shutdown_begins_however_quick_that_is() {
    let (sender, beats) = unbounded();
    let supervisor = Supervisor::builder()
        .pulse(Duration::MAX, move |handle| {
            let _ = sender.send(handle.snapshot().is_running);
        })
        .child(idler("orders"))
        .start()
        .unwrap();
    assert!(take(&beats));
    let handle = supervisor.handle().clone();
    handle.request_shutdown_within(HOUR);
    handle.request_shutdown();
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(beats.iter().collect::<Vec<_>>(), [false], "once");
}

#[test]
fn pulse_that_feeds_nobody_while_a_child_is_overdue_feeds_again_afterwards() {
    let (sender, beats) = unbounded();
    let (deaf, gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder()
        .pulse(MS, move |handle| {
            let _ = sender.send(!handle.child("deaf").is_some_and(|deaf| deaf.is_overdue));
        })
        .child(deaf.stop_timeout(MS))
        .start()
        .unwrap();
    take(&started);
    assert!(take(&beats), "fed");
    supervisor.handle().hold("deaf").unwrap();
    while take(&beats) {}
    // It is not fed by chance, however often it is asked.
    assert!((0..20).all(|_| !take(&beats)));
    drop(gate);
    while !take(&beats) {}
    drop(supervisor);
}

#[test]
fn supervisor_thread_that_is_stuck_gives_no_sign_and_makes_up_for_none() {
    let (builder, beats) = beating();
    let (hold, gate, held) = hold_at_plug();
    let supervisor = builder.on_event(hold).child(idler("orders")).start().unwrap();
    take(&beats);
    supervisor.handle().add(idler("plug")).unwrap();
    take(&held);
    beats.try_iter().for_each(drop);
    // As long as many beats, if there were any. A slow machine makes it longer.
    assert!(beats.recv_timeout(50 * MS).is_err());
    let since = Instant::now();
    drop(gate);
    take(&beats);
    assert!(supervisor.shutdown().is_clean());
    // No burst: of the fifty that were missed, none is made up for. A shutdown makes one more due.
    let (count, took) = (beats.try_iter().count() as u128, since.elapsed());
    assert!(count <= took.as_millis() + 2, "{count} in {took:?}");
}

#[test]
fn pulse_that_panics_is_called_again() {
    let calls = Arc::new(AtomicU32::new(0));
    let its = calls.clone();
    let supervisor = Supervisor::builder()
        .pulse(MS, move |_| {
            its.fetch_add(1, Ordering::SeqCst);
            panic!("no such device");
        })
        .child(idler("orders"))
        .start()
        .unwrap();
    eventually("called again", || calls.load(Ordering::SeqCst) > 3);
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn pulse_may_ask_and_command_and_cannot_wait() {
    let (sender, errors) = unbounded();
    let supervisor = Supervisor::builder()
        .pulse(MS, move |handle| {
            let error = handle.wait_for("orders", DEADLINE, |_| false).unwrap_err();
            let _ = sender.send(error);
            handle.request_shutdown();
        })
        .child(idler("orders"))
        .start()
        .unwrap();
    assert!(matches!(take(&errors), WaitError::OnSupervisorThread));
    assert!(supervisor.wait().is_clean());
}

#[test]
fn pulse_that_hangs_holds_up_no_shutdown_and_is_named() {
    let (gate, bar) = gate();
    let (sender, called) = unbounded();
    let supervisor = Supervisor::builder()
        .pulse(MS, move |_| {
            let _ = sender.send(());
            bar.wait();
        })
        .child(idler("orders"))
        .start()
        .unwrap();
    take(&called);
    let handle = supervisor.handle().clone();
    let report = supervisor.shutdown();
    let stuck = report.stuck_in.clone().unwrap();
    assert_eq!((stuck.callback, stuck.id), (Callback::Pulse, None));
    assert!(report.to_string().ends_with("stuck in the `pulse` callback"), "{report}");
    drop(gate);
    let _ = handle.wait_until_stopped(DEADLINE).unwrap();
}

#[test]
fn pulse_of_zero_is_an_error_and_one_of_ever_is_called_once() {
    let error = Supervisor::builder().pulse(Duration::ZERO, |_| {}).start().unwrap_err();
    assert!(matches!(error.reason(), StartErrorReason::Config(_)));
    assert_eq!(
        error.to_string(),
        "cannot start the supervisor: the interval of the `pulse` is zero"
    );
    let (sender, calls) = unbounded();
    let supervisor = Supervisor::builder()
        .pulse(Duration::MAX, move |_| {
            let _ = sender.send(());
        })
        .child(idler("orders"))
        .start()
        .unwrap();
    take(&calls);
    barrier(supervisor.handle());
    assert!(calls.is_empty());
}

#[test]
fn simulation_calls_no_pulse() {
    let was_called = Arc::new(AtomicBool::new(false));
    let its = was_called.clone();
    let builder = Supervisor::builder()
        .pulse(MS, move |_| its.store(true, Ordering::SeqCst))
        .child(unused("orders"));
    let mut simulation = simulate(builder);
    simulation.advance(HOUR);
    assert!(!was_called.load(Ordering::SeqCst));
    assert!(simulation.events().iter().any(|event| matches!(event.kind, EventKind::Started)));
}

#[test]
fn pulse_is_called_once_after_a_stall() {
    let interval = 100 * MS;
    let (sender, beats) = unbounded();
    let (hold, gate, held) = hold_at_plug();
    let supervisor = Supervisor::builder()
        .pulse(interval, move |_| {
            let _ = sender.send(Instant::now());
        })
        .on_event(hold)
        .start()
        .unwrap();
    take(&beats);
    supervisor.handle().add(idler("plug")).unwrap();
    take(&held);
    assert!(beats.recv_timeout(3 * interval).is_err(), "it is held");
    drop(gate);
    let (first, second) = (take(&beats), take(&beats));
    // Counted from just before the first call.
    assert!(second - first >= interval / 2, "{:?}", second - first);
}
