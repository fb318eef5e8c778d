//! Record of one live thread: whom it serves, and what it is doing.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crate::{
    core::key::Key,
    id::ChildId,
    report::UnstoppedPhase,
    runtime::{kernel_thread::KernelThread, live_threads::LiveThreads, worker::WorkerShared},
    sync::primitives::{
        Mutex, OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    thread_info::ThreadInfo,
};

/// For how long a thread has to be observed before the CPU time that it uses says anything: the
/// kernel may count that only once in ten milliseconds.
const LEAST_OBSERVATION: Duration = Duration::from_millis(100);

/// The number of a thread, which its supervisor uses only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ThreadNumber(pub(crate) u64);

/// The record of one live thread in the registry of its supervisor.
pub(crate) struct ThreadRecord {
    pub(crate) number: ThreadNumber,
    /// The child that the thread serves; `None` for the supervisor thread.
    pub(crate) child: Option<Served>,
    phase: AtomicU8,
    /// The run that it is in, or was in last; 0 before the first.
    run: AtomicU64,
    /// What the kernel knows it by, if that can be learnt.
    kernel_thread: OnceLock<KernelThread>,
    /// When it was first looked at. Few threads ever are.
    first_look: Mutex<Option<Box<FirstLook>>>,
}

/// The first look at a thread in one run.
struct FirstLook {
    run: u64,
    at: Instant,
    /// How much CPU time the thread had used by then.
    cpu: Option<Duration>,
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
/// `Waiting`. In `Ending` only the destructors of thread-local variables are left, in `Gone` none
/// of ours.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum ThreadPhase {
    Waiting,
    Running,
    Dropping,
    Ending,
    Gone,
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
        Self {
            number,
            child,
            phase: AtomicU8::new(ThreadPhase::Waiting as u8),
            run: AtomicU64::new(0),
            kernel_thread: OnceLock::new(),
            first_look: Mutex::default(),
        }
    }

    /// Learns what the kernel knows the current thread by, whose record this is.
    pub(crate) fn note_kernel_thread(&self) {
        if let Some(thread) = KernelThread::current() {
            let _ = self.kernel_thread.set(thread);
        }
    }

    pub(crate) fn enter(&self, phase: ThreadPhase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(crate) fn begin_run(&self, run: u64) {
        self.run.store(run, Ordering::Release);
        self.enter(ThreadPhase::Running);
    }

    /// The number of the run that it is in, or was in last; 0 before the first.
    pub(crate) fn run(&self) -> u64 {
        self.run.load(Ordering::Acquire)
    }

    pub(crate) fn is_in(&self, phase: ThreadPhase) -> bool {
        self.phase.load(Ordering::Acquire) == phase as u8
    }

    /// Looks at what the thread is doing in this run, from any thread. `None` if that run is over,
    /// or if nothing can be known.
    pub(crate) fn look_in(&self, run: u64) -> Option<ThreadInfo> {
        self.look_while(|| {
            let is_in_run = self.is_in(ThreadPhase::Running) || self.is_in(ThreadPhase::Dropping);
            is_in_run && self.run() == run
        })
    }

    /// Looks at what the thread is doing in any phase but [`Gone`](ThreadPhase::Gone), in which its
    /// id may be that of another thread.
    pub(crate) fn look(&self) -> Option<ThreadInfo> {
        self.look_while(|| !self.is_in(ThreadPhase::Gone))
    }

    /// `is_so` is checked before the look and after it; the system calls of the look keep the
    /// second check behind it. If the thread went on meanwhile, that check sees it, and what was
    /// seen is left out.
    fn look_while(&self, is_so: impl Fn() -> bool) -> Option<ThreadInfo> {
        let thread = self.kernel_thread.get().filter(|_| is_so())?;
        let run = self.run();
        let sample = thread.sample().filter(|_| is_so())?;
        let mut first = self.first_look.lock();
        let first = match &mut *first {
            Some(first) if first.run == run => first,
            first => first.insert(Box::new(FirstLook { run, at: sample.at, cpu: sample.cpu })),
        };
        let observed_for = sample.at.saturating_duration_since(first.at);
        let cpu_used = sample.cpu.zip(first.cpu).map(|(now, then)| now.saturating_sub(then));
        Some(ThreadInfo {
            state: sample.state,
            wait_channel: sample.wait_channel,
            cpu_used: cpu_used.filter(|_| observed_for >= LEAST_OBSERVATION),
            observed_for,
        })
    }

    /// How far the stop of the child has got, by this thread alone, for the report of a shutdown. A
    /// thread that waits for a command counts as ending: it was asked to leave and is about to.
    pub(crate) fn unstopped_phase(&self) -> UnstoppedPhase {
        match self.phase.load(Ordering::Relaxed) {
            phase if phase == ThreadPhase::Running as u8 => UnstoppedPhase::Running,
            phase if phase == ThreadPhase::Dropping as u8 => UnstoppedPhase::Dropping,
            _ => UnstoppedPhase::Ending,
        }
    }
}
