//! Loom models of what a child's thread shares with its supervisor.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering as Seen},
    },
    time::Duration,
};

use crossbeam_channel::Receiver;
use loom::thread::{self, JoinHandle};

use super::{Count, PREEMPTIONS, explore, shared, spawn};
use crate::{
    child::Job,
    context::{ChildContext, Link},
    core::key::Key,
    exit::Exit,
    handle::Handle,
    id::ChildId,
    runtime::{
        child_thread::{drop_all, work},
        inbox::Message,
        shared::Shared,
        thread_record::{ThreadNumber, ThreadRecord},
        worker::WorkerShared,
    },
    sync::{clock::system_now, slot::slot},
};

/// A child as the supervisor thread knows it. The test acts as the supervisor thread.
struct Child {
    worker: Arc<WorkerShared>,
    shared: Arc<Shared>,
    inbox: Receiver<Message>,
    /// The number of times that the body was called.
    begun: Count,
    /// Upgradable as long as the body is not dropped.
    body: Weak<()>,
}

impl Child {
    fn new(fresh_thread: bool, mut body: impl FnMut(&ChildContext) + Send + 'static) -> Self {
        let (shared, inbox) = shared();
        let (begun, held) = (Count::default(), Arc::new(()));
        let weak = Arc::downgrade(&held);
        let link = Link {
            key: Key(0),
            id: ChildId::from("child"),
            handle: Handle::new(shared.clone()),
            activity: Some(Arc::default()),
            stop_timeout: Duration::MAX,
            sinks: Weak::new(),
        };
        let counted = begun.clone();
        let runs = AtomicU32::new(0);
        let body = Box::new(move |ctx: &ChildContext| {
            let _ = &held;
            assert_eq!(runs.fetch_add(1, Seen::Relaxed), 0, "two at once");
            counted.fetch_add(1, Seen::Relaxed);
            body(ctx);
            runs.fetch_sub(1, Seen::Relaxed);
            Ok(())
        });
        let job = Job { body, stack_size: None, fresh_thread };
        Self { worker: WorkerShared::new(link, job), shared, inbox, begun, body: weak }
    }

    /// What `ThreadRegistry::provide` does if no thread waits for the start signal.
    fn provide(&self, number: u64) -> JoinHandle<()> {
        let (commands, inbox) = slot();
        let worker = self.worker.clone();
        let record = Arc::new(ThreadRecord::new(ThreadNumber(number), None));
        let its = record.clone();
        let thread = spawn(move || work(&its, &worker, inbox));
        self.worker.set_thread(record, commands);
        thread
    }

    /// Waits for the end of this run, and checks that its body has returned.
    fn await_exit(&self, run: u64) {
        loop {
            match self.inbox.try_recv() {
                Ok(Message::RunEnded(end)) => {
                    assert_eq!(end.run, run);
                    assert!(matches!(end.exit, Exit::Completed), "{:?}", end.exit);
                    return;
                }
                Ok(_) => {}
                Err(_) => thread::yield_now(),
            }
        }
    }
}

/// What `ThreadRegistry::force_stop_all` does for one child when the supervisor thread is stuck.
fn force_stop_all(worker: &Arc<WorkerShared>) {
    worker.seal();
    request_stop(worker);
    retire(worker);
}

fn request_stop(worker: &Arc<WorkerShared>) {
    worker.request_stop(system_now());
    if let Some(context) = worker.context().filter(|context| context.signal().needs_caller()) {
        context.signal().call_all(|_| ());
    }
}

fn retire(worker: &Arc<WorkerShared>) {
    if !worker.leave(false) && worker.holds_anything() {
        drop_all(&ThreadRecord::new(ThreadNumber(99), None), worker, false);
    }
}

// The supervisor thread was stuck, and starts a run just while another thread force-stops all.
#[test]
fn run_with_a_start_signal_is_stopped_by_whoever_takes_over_bounded() {
    explore("taking over", Some(PREEMPTIONS), || {
        // This body returns only after a stop request: one that does not reach it is a deadlock.
        let child = Child::new(false, |ctx| {
            let _ = ctx.sleep(Duration::MAX);
        });
        let worker = child.provide(1);
        let other = spawn({
            let worker = child.worker.clone();
            move || force_stop_all(&worker)
        });
        let went = child.worker.send_start(1, 0);
        other.join().unwrap();
        worker.join().unwrap();
        assert_eq!(child.begun.load(Seen::Relaxed), u32::from(went));
        if went {
            child.await_exit(1);
        }
        assert!(!child.inbox.try_iter().any(|message| matches!(message, Message::RunEnded(_))));
        assert!(
            !child.worker.holds_body() && child.body.strong_count() == 0,
            "the body is dropped"
        );
        assert!(!child.worker.send_start(2, 0), "no run starts any more");
    });
}

#[test]
fn thread_that_stays_runs_the_body_again() {
    explore("two runs", None, || {
        let child = Child::new(false, |_| ());
        let worker = child.provide(1);
        for run in 1..=2 {
            assert!(child.worker.send_start(run, 0), "there is room for the word");
            child.await_exit(run);
            assert!(child.worker.holds_body(), "it is put back before the end is reported");
            child.worker.note_run_end();
        }
        assert_eq!(child.begun.load(Seen::Relaxed), 2);
        retire(&child.worker);
        worker.join().unwrap();
        assert_eq!(child.body.strong_count(), 0);
    });
}

// Each run has a thread of its own. The first thread leaves while the second run starts, and
// another thread force-stops all meanwhile.
#[test]
fn thread_that_leaves_late_takes_no_body_from_the_next_run_bounded() {
    explore("fresh threads", Some(PREEMPTIONS), || {
        let child = Child::new(true, |_| ());
        let first = child.provide(1);
        assert!(child.worker.send_start(1, 0));
        child.await_exit(1);
        child.worker.note_run_end();
        let second = child.provide(2);
        let other = spawn({
            let worker = child.worker.clone();
            move || force_stop_all(&worker)
        });
        let went = child.worker.send_start(2, 0);
        for thread in [first, second, other] {
            thread.join().unwrap();
        }
        assert_eq!(
            child.begun.load(Seen::Relaxed),
            1 + u32::from(went),
            "a run with a start signal has its body"
        );
        assert_eq!(child.body.strong_count(), 0, "the body is dropped");
    });
}

// A child is removed just when its run ends by itself.
#[test]
fn body_of_a_last_run_is_dropped_once_whenever_that_is_said() {
    explore("last run", None, || {
        let child = Child::new(false, |_| ());
        let worker = child.provide(1);
        assert!(child.worker.send_start(1, 0));
        child.worker.make_final(false);
        request_stop(&child.worker);
        child.await_exit(1);
        retire(&child.worker);
        worker.join().unwrap();
        assert_eq!((child.begun.load(Seen::Relaxed), child.body.strong_count()), (1, 0));
    });
}

#[test]
fn first_heartbeat_is_told_once_and_no_text_hides_another() {
    // Texts are distinguished by their addresses, and one literal may have two of them.
    static READING: &str = "reading";
    static WRITING: &str = "writing";
    explore("heartbeats", None, || {
        let child = Child::new(false, |_| ());
        let context = ChildContext::new(child.worker.link.clone(), 1, 0);
        let helper = spawn({
            let context = context.clone();
            move || context.heartbeat(READING)
        });
        context.heartbeat(WRITING);
        helper.join().unwrap();
        let seen = child
            .inbox
            .try_iter()
            .filter(|message| matches!(message, Message::FirstHeartbeat { .. }))
            .count();
        assert_eq!((seen, context.heartbeats().count), (1, 2));
        context.heartbeat(READING);
        assert_eq!(context.heartbeats().doing, READING);
        context.heartbeat(WRITING);
        assert_eq!(context.heartbeats().doing, WRITING);
        drop(child.shared);
    });
}
