//! Record of one live thread: whom it serves, and what it is doing.

use std::sync::{Arc, Weak};

use crate::{
    core::key::Key,
    id::ChildId,
    report::UnstoppedPhase,
    runtime::{live_threads::LiveThreads, worker::WorkerShared},
    sync::primitives::atomic::{AtomicU8, AtomicU64, Ordering},
};

/// The number of a thread, which its supervisor uses only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ThreadNumber(pub(crate) u64);

/// The record of one live thread in the registry of its supervisor.
pub(crate) struct ThreadRecord {
    pub(crate) number: ThreadNumber,
    /// The child that the thread serves; `None` for the supervisor thread.
    pub(crate) child: Option<Served>,
    phase: AtomicU8,
}

/// The child that a thread serves.
///
/// It holds the worker weakly: a thread drops its own record after it has reported its exit, and
/// must not drop a user's value by then.
pub(crate) struct Served {
    pub(crate) key: Key,
    pub(crate) id: ChildId,
    pub(crate) worker: Weak<WorkerShared>,
    /// The number of the child's latest run when this thread was spawned or finished its work. It
    /// is read once the worker is gone.
    pub(crate) last_run: AtomicU64,
    pub(crate) threads: Arc<LiveThreads>,
}

/// What a thread is doing.
///
/// Each run takes a child's thread from `Waiting` through `Running` and `Dropping` back to
/// `Waiting`. In `Ending` only the destructors of thread-local variables are left.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum ThreadPhase {
    Waiting,
    Running,
    Dropping,
    Ending,
}

impl ThreadRecord {
    pub(crate) fn new(number: ThreadNumber, worker: Option<&Arc<WorkerShared>>) -> Self {
        let child = worker.map(|worker| Served {
            key: worker.link.key,
            id: worker.link.id.clone(),
            worker: Arc::downgrade(worker),
            last_run: AtomicU64::new(worker.last_run()),
            threads: worker.threads.clone(),
        });
        Self { number, child, phase: AtomicU8::new(ThreadPhase::Waiting as u8) }
    }

    pub(crate) fn enter(&self, phase: ThreadPhase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// The phase for the report of children that did not stop. A thread that waits for a command
    /// counts as ending: it was asked to leave and is about to.
    pub(crate) fn phase(&self) -> UnstoppedPhase {
        match self.phase.load(Ordering::Relaxed) {
            phase if phase == ThreadPhase::Running as u8 => UnstoppedPhase::Running,
            phase if phase == ThreadPhase::Dropping as u8 => UnstoppedPhase::Dropping,
            _ => UnstoppedPhase::Ending,
        }
    }
}
