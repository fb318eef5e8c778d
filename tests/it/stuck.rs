//! What the threads of children are doing that hang or do not stop.

use std::{
    cell::RefCell,
    io::Read,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use circuit_breaker_supervisor::{
    Backoff, ChildSpec, EventKind, Supervisor, ThreadInfo, ThreadState, UnstoppedPhase,
};
use crossbeam_channel::unbounded;

use crate::support::*;

/// Holds a child that does not stop, and waits until its thread, by the later looks at it, is in
/// this state, and has been looked at for long enough to tell how much CPU it uses.
fn stuck_thread(
    body: impl FnMut() + Send + 'static,
    state: ThreadState,
) -> (Supervisor, ThreadInfo, Recorder) {
    let mut body = body;
    let (sender, started) = unbounded();
    let recorder = Recorder::default();
    let spec = ChildSpec::new("stuck", move |_| {
        let _ = sender.send(());
        body();
        Ok(())
    });
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(spec.stop_timeout(MS))
        .start()
        .unwrap();
    take(&started);
    let handle = supervisor.handle();
    assert_eq!(handle.child("stuck").unwrap().thread, None, "it is not stuck");
    handle.hold("stuck").unwrap();
    recorder.wait_for("stuck", "overdue", 1);
    let mut found = None;
    eventually("its thread is seen as it is", || {
        let thread = handle.child("stuck").unwrap().thread.unwrap();
        let is_so = thread.state == state && thread.cpu_used.is_some();
        found = is_so.then_some(thread);
        is_so
    });
    (supervisor, found.unwrap(), recorder)
}

/// What the log says of the thread, in `Overdue`.
fn overdue_thread(recorder: &Recorder) -> ThreadInfo {
    let EventKind::Overdue { thread, .. } = recorder.wait_for("stuck", "overdue", 1).kind else {
        panic!("overdue")
    };
    thread.unwrap()
}

#[test]
fn thread_in_a_blocking_read_sleeps_and_says_where() {
    if !can_look_at_threads() {
        return;
    }
    let (reader, writer) = UnixStream::pair().unwrap();
    let (supervisor, thread, recorder) =
        stuck_thread(move || drop((&reader).read(&mut [0])), ThreadState::Sleeping);
    // Where the kernel hides it, it is unknown.
    assert!(thread.wait_channel.is_none_or(|channel| channel.contains("unix_stream")));
    assert_eq!(overdue_thread(&recorder).observed_for, Duration::ZERO, "the first look");
    let report = supervisor.shutdown_within(MS);
    let [unstopped] = &report.unstopped[..] else { panic!("{report}") };
    let last = unstopped.thread.clone().unwrap();
    assert_eq!(last.state, ThreadState::Sleeping);
    assert!(last.observed_for > thread.observed_for, "counted from the same first look");
    assert!(report.to_string().contains("running; its thread sleeps in "), "{report}");
    drop(writer);
}

#[test]
fn thread_that_waits_for_a_lock_sleeps() {
    if !can_look_at_threads() {
        return;
    }
    let lock = Arc::new(Mutex::new(()));
    let its = lock.clone();
    let guard = lock.lock().unwrap();
    let (supervisor, thread, recorder) =
        stuck_thread(move || drop(its.lock()), ThreadState::Sleeping);
    assert!(thread.wait_channel.is_none_or(|channel| channel.contains("futex")));
    drop(guard);
    recorder.wait_for("stuck", "stop held", 1);
    let child = supervisor.handle().child("stuck").unwrap();
    assert_eq!(child.thread, None, "its run is over");
}

#[test]
fn thread_in_an_endless_loop_runs() {
    if !can_look_at_threads() {
        return;
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let its = is_over.clone();
    let spin = move || {
        while !its.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    };
    let (supervisor, thread, _) = stuck_thread(spin, ThreadState::Running);
    assert_eq!(thread.wait_channel, None);
    let handle = supervisor.handle();
    eventually("it uses CPU time", || {
        let thread = handle.child("stuck").unwrap().thread;
        thread.is_some_and(|thread| thread.cpu_used.is_some_and(|used| used > MS))
    });
    let row = handle.child("stuck").unwrap().to_string();
    assert!(row.contains("overdue; its thread runs, "), "{row}");
    is_over.store(true, Ordering::Relaxed);
}

#[test]
fn event_of_a_hang_says_where_the_thread_hangs() {
    if !can_look_at_threads() {
        return;
    }
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(Backoff::constant(HOUR))
        .child(
            ChildSpec::new("reader", |ctx| {
                let (mut reader, writer) = UnixStream::pair()?;
                let _unblock = ctx.on_stop(move || drop(writer));
                ctx.heartbeat("reading");
                reader.read_exact(&mut [0]).or_else(|_| ctx.wait_until_stopped())?;
                Ok(())
            })
            .watchdog(300 * MS),
        )
        .start()
        .unwrap();
    let event = recorder.wait_for("reader", "hung reading", 1);
    let EventKind::Hung { thread: Some(thread), .. } = &event.kind else { panic!("{event}") };
    assert_eq!(thread.state, ThreadState::Sleeping, "it has been silent for long");
    assert!(thread.wait_channel.as_ref().is_none_or(|channel| channel.contains("unix_stream")));
    assert!(event.to_string().contains("while reading; its thread sleeps in "), "{event}");
    recorder.wait_for("reader", "stop hung", 1);
    assert_eq!(supervisor.handle().child("reader").unwrap().thread, None);
}

#[test]
fn nothing_is_said_of_the_next_run() {
    if !can_look_at_threads() {
        return;
    }
    let (deaf, gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder().child(deaf.stop_timeout(MS)).start().unwrap();
    take(&started);
    let handle = supervisor.handle();
    handle.restart("deaf").unwrap();
    let deaf = handle.wait_for("deaf", DEADLINE, |deaf| deaf.is_overdue).unwrap();
    assert!(deaf.thread.is_some());
    drop(gate);
    let deaf = handle.wait_for("deaf", DEADLINE, |deaf| deaf.run == 2).unwrap();
    assert_eq!(deaf.thread, None);
}

/// Its name, as the kernel cuts it, ends within a character.
#[test]
fn thread_of_any_name_can_be_looked_at() {
    if !can_look_at_threads() {
        return;
    }
    for id in ["aaaaaaaaaaaaaaé", "a) R (b", "a\nb"] {
        let (deaf, gate, started) = stubborn(id);
        let supervisor = Supervisor::builder().child(deaf).start().unwrap();
        take(&started);
        let report = supervisor.shutdown_within(MS);
        assert!(report.unstopped[0].thread.is_some(), "{id:?}");
        drop(gate);
    }
}

/// Waits as the thread of an earlier run ends.
struct Lingering(Bar);

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.wait();
    }
}

thread_local!(static LINGERING: RefCell<Option<Lingering>> = const { RefCell::new(None) });

#[test]
fn report_tells_of_the_thread_of_the_last_run_and_not_of_an_earlier_one() {
    if !can_look_at_threads() {
        return;
    }
    let ((linger, lingers), (hold, held)) = (gate(), gate());
    let is_over = Arc::new(AtomicBool::new(false));
    let its = is_over.clone();
    let (sender, spins) = unbounded();
    let supervisor = Supervisor::builder()
        .backoff(constant(MS))
        .child(
            ChildSpec::new("stuck", move |ctx| {
                if ctx.run() == 1 {
                    LINGERING.set(Some(Lingering(lingers.clone())));
                    return Err("no".into());
                }
                let held = held.clone();
                let _hangs = ctx.on_stop(move || held.wait());
                let _ = sender.send(());
                while !its.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                Ok(())
            })
            .fresh_thread(true),
        )
        .start()
        .unwrap();
    take(&spins);
    let report = supervisor.shutdown_within(100 * MS);
    let [stuck] = &report.unstopped[..] else { panic!("{report}") };
    assert_eq!((stuck.run, stuck.phase), (2, UnstoppedPhase::InStopCallback));
    assert_eq!(stuck.thread.as_ref().unwrap().state, ThreadState::Running, "{report}");
    is_over.store(true, Ordering::Relaxed);
    drop((linger, hold));
}

#[test]
fn simulated_threads_are_doing_nothing() {
    let mut simulation = simulate(Supervisor::builder().child(unused("deaf")));
    simulation.ignore_stop_for("deaf", HOUR);
    simulation.advance(MS);
    simulation.handle().hold("deaf").unwrap();
    simulation.advance(10 * SECOND);
    let deaf = seen(&simulation, "deaf");
    assert!(deaf.is_overdue && deaf.thread.is_none());
}
