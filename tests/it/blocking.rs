//! User code that blocks the supervisor thread: what goes on meanwhile, and what the report says.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    Backoff, Callback, ChildSpec, EventKind, Handle, Supervisor, UnstoppedPhase, WaitError,
};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::support::*;

/// Everything but a wait answers while the supervisor thread is stuck; a wait ends in time.
fn check_answers(handle: &Handle, id: &str) {
    let began = Instant::now();
    for command in [
        handle.poll_now(),
        handle.hold(id),
        handle.release(id),
        handle.restart(id),
        handle.reset(id),
    ] {
        command.unwrap();
    }
    handle.add(idler("added meanwhile")).unwrap();
    handle.remove("added meanwhile").unwrap();
    assert!(handle.child(id).is_some());
    assert!(handle.snapshot().counts().children >= 1);
    assert!(matches!(handle.wait_for(id, 10 * MS, |_| false), Err(WaitError::TimedOut(_))));
    assert!(matches!(handle.wait_until_gone(id, 10 * MS), Err(WaitError::TimedOut(_))));
    assert!(matches!(handle.wait_until_stopped(10 * MS), Err(WaitError::TimedOut(_))));
    assert!(began.elapsed() < DEADLINE);
}

/// Ends a supervisor whose thread is stuck in a callback for `id`, and checks that its children end
/// without it.
fn check_stuck_shutdown(supervisor: Supervisor, callback: Callback, id: &str) {
    let handle = supervisor.handle().clone();
    let began = Instant::now();
    let report = supervisor.shutdown();
    assert!(began.elapsed() < DEADLINE, "bounded");
    let stuck = report.stuck_in.clone().unwrap_or_else(|| panic!("stuck: {report}"));
    assert_eq!((stuck.callback, stuck.id.as_deref()), (callback, Some(id)), "{report}");
    assert!(report.unstopped.is_empty() && !report.is_clean(), "{report}");
    assert!(
        report
            .to_string()
            .contains(&format!("stuck in the `{callback}` callback for child `{id}`")),
        "{report}"
    );
    assert!(handle.add(idler("late")).is_err());
}

#[test]
fn sink_that_blocks_delays_neither_answers_nor_the_shutdown() {
    let (gate, bar) = gate();
    let (entered, blocked) = bounded(1);
    let (child, strings) = puppet("child");
    let (bystander, ended) = bounded(1);
    let supervisor = Supervisor::builder()
        .on_event(move |event| {
            if event.id == "child" && matches!(event.kind, EventKind::Stopped { .. }) {
                let _ = entered.try_send(());
                bar.wait();
            }
        })
        .stop_timeout(1000 * MS)
        .child(child)
        .child(ChildSpec::new("bystander", move |ctx| {
            let _ = ctx.sleep(Duration::MAX);
            let _ = bystander.try_send(());
            Ok(())
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    strings.next_run();
    strings.act(Act::Fail("no"));
    take(&blocked);
    check_answers(&handle, "child");
    check_stuck_shutdown(supervisor, Callback::Sink, "child");
    take(&ended);
    drop(gate);
    // The thread that comes back finds nothing left to do, and ends.
    let _ = handle.wait_until_stopped(DEADLINE).unwrap();
    assert!(strings.runs.is_empty(), "nothing restarts");
}

#[test]
fn flag_that_blocks_delays_neither_answers_nor_the_shutdown() {
    let (gate, bar) = gate();
    let (entered, blocked) = bounded(1);
    let stuck = Arc::new(AtomicBool::new(false));
    let its = stuck.clone();
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .stop_timeout(1000 * MS)
        .poll_interval(Duration::MAX)
        .enabled(move |_| {
            if its.load(Ordering::SeqCst) {
                let _ = entered.try_send(());
                bar.wait();
            }
            true
        })
        .child(child)
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    strings.next_run();
    stuck.store(true, Ordering::SeqCst);
    handle.poll_now().unwrap();
    take(&blocked);
    check_answers(&handle, "child");
    check_stuck_shutdown(supervisor, Callback::Enabled, "child");
    drop(gate);
    let _ = handle.wait_until_stopped(DEADLINE).unwrap();
    assert!(strings.runs.is_empty());
}

#[test]
fn backoff_that_blocks_delays_neither_answers_nor_the_shutdown() {
    let (gate, bar) = gate();
    let (entered, blocked) = bounded(1);
    let (child, strings) = puppet("child");
    let backoff = Backoff::from_fn(move |_| {
        let _ = entered.try_send(());
        bar.wait();
        Duration::ZERO
    });
    let supervisor = Supervisor::builder()
        .stop_timeout(1000 * MS)
        .child(child.backoff(backoff))
        .child(idler("other"))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    strings.next_run();
    strings.act(Act::Fail("no"));
    take(&blocked);
    check_answers(&handle, "child");
    check_stuck_shutdown(supervisor, Callback::Backoff, "child");
    drop(gate);
    let _ = handle.wait_until_stopped(DEADLINE).unwrap();
    assert!(strings.runs.is_empty());
}

/// Blocks as it is dropped.
#[derive(Debug)]
struct Sticky(Sender<()>, Receiver<()>);

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sticky")
    }
}

impl Error for Sticky {}

impl Drop for Sticky {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
        let _ = self.1.recv();
    }
}

#[test]
fn error_whose_drop_blocks_keeps_its_own_child_from_running_and_nobody_else() {
    let (gate, bar) = bounded::<()>(0);
    let (entered, blocked) = bounded(1);
    let supervisor = Supervisor::builder()
        .telemetry(())
        .stop_timeout(100 * MS)
        .backoff(constant(Duration::ZERO))
        .child(ChildSpec::new("child", move |ctx| match ctx.failures() {
            0 => Err(Sticky(entered.clone(), bar.clone()).into()),
            1 => Err("its message takes the place of the sticky one".into()),
            2 => Err("and as this run ends, the sticky one is dropped".into()),
            _ => idle(ctx),
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    take(&blocked);
    check_answers(&handle, "child");
    let report = supervisor.shutdown();
    assert!(report.has_ended && report.stuck_in.is_none(), "{report}");
    let unstopped: Vec<_> =
        report.unstopped.iter().map(|child| (&*child.id, child.phase)).collect();
    assert_eq!(unstopped, [("child", UnstoppedPhase::Dropping)], "{report}");
    drop(gate);
    eventually("its thread is gone", || threads_named("child") == 0);
}

/// What a sink has made on the supervisor thread, and blocks as it goes.
#[test]
fn supervisor_thread_that_does_not_end_makes_no_clean_report() {
    let (gate, bar) = gate();
    let supervisor = Supervisor::builder()
        .name("lingering")
        .on_event(move |_| {
            linger(&bar);
        })
        .child(ChildSpec::once("child", |_| Ok(())))
        .start()
        .unwrap();
    supervisor.handle().wait_until_gone("child", DEADLINE).unwrap();
    let report = supervisor.shutdown();
    assert_eq!(threads_named("lingering"), 1);
    assert!(!report.has_ended && !report.is_clean(), "{report}");
    assert_eq!(
        report.to_string(),
        "shut down as requested; all children stopped; the supervisor thread has not ended"
    );
    drop(gate);
    eventually("the thread ends", || threads_named("lingering") == 0);
}

#[test]
fn shutdown_that_is_requested_again_and_again_is_one() {
    let children = (0..100).map(|number| idler(&number.to_string()));
    let supervisor = Supervisor::builder().telemetry(()).children(children).start().unwrap();
    let handle = supervisor.handle().clone();
    for _ in 0..100_000 {
        handle.request_shutdown();
    }
    let report = supervisor.shutdown_within(HOUR);
    assert!(report.is_clean(), "{report}");
    let _ = handle.wait_until_stopped(Duration::ZERO).unwrap();
}
