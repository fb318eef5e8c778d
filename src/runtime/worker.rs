//! State that a child's thread shares with the supervisor thread: the body, and the commands.

use std::{mem, sync::Arc, time::Instant};

use crate::{
    backoff::Backoff,
    child::{Body, Job},
    context::{ChildContext, Link},
    event::LastStop,
    report::UnstoppedPhase,
    runtime::{
        live_threads::LiveThreads,
        row::Row,
        thread_record::{ThreadPhase, ThreadRecord},
    },
    sync::{
        primitives::{
            Mutex,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        slot::{SendError, Sender},
        unwind::{self, Drops},
    },
};

/// The state that a child's thread and the supervisor share.
///
/// The body is in `slot` whenever it is neither running nor just about to return to it, until it is
/// dropped; a thread that finds the
/// slot empty does not run it. So a thread that could not be spawned takes no body with it, and two
/// runs of one child cannot overlap.
///
/// # The end of a run
///
/// The child's thread reads `is_final` once after the body has returned (`child_thread::run_body`):
///
/// | `is_final` | `fresh_thread` | `leaves_by_itself` | the body | the thread |
/// | --- | --- | --- | --- | --- |
/// | no | no | any | goes back into `slot` | waits for a command |
/// | no | yes | any | goes back into `slot` | leaves |
/// | yes | no | no | is dropped | waits for a command, which is `Leave` |
/// | yes | no | yes | is dropped | leaves |
/// | yes | yes | any | is dropped | leaves |
///
/// A leaving thread reads it again, after it has dropped its end of `commands` (`obey`), since
/// [`make_final`](Self::make_final) may have come just after the first look:
///
/// | `is_final` | `context` | what is in `slot` and `remains` |
/// | --- | --- | --- |
/// | no | any | stays for the child's next thread |
/// | yes | none | is dropped by this thread |
/// | yes | some | is left to the thread to which that run was sent |
///
/// # Leaving
///
/// [`leave`](Self::leave) takes `commands` out and tries to send `Leave`:
///
/// | `commands` | `leave` returns | who drops the body, unless it is kept |
/// | --- | --- | --- |
/// | empty channel | `true` | the thread, when it receives `Leave` |
/// | holds a `Run` not yet received | `true` | the thread, after that run, if it is the last |
/// | disconnected: the thread has left | `false` | the caller |
/// | none: no thread waits | `false` | the caller |
pub(crate) struct WorkerShared {
    pub(crate) link: Arc<Link>,
    pub(crate) stack_size: Option<usize>,
    fresh_thread: bool,
    slot: Mutex<Option<Body>>,
    /// No further run will start: the child's thread drops the body when the present run ends.
    is_final: AtomicBool,
    /// After the last run the thread leaves without a command. Otherwise it waits for `Leave`: the
    /// supervisor thread may still entrust it with values to drop.
    leaves_by_itself: AtomicBool,
    /// The number of the latest run that was sent a start signal.
    run: AtomicU64,
    pub(crate) threads: Arc<LiveThreads>,
    state: Mutex<WorkerState>,
}

#[derive(Default)]
struct WorkerState {
    /// The channel to the thread that waits for commands. It has room for one.
    commands: Option<Sender<Command>>,
    /// The last thread that was spawned for runs.
    thread: Option<Arc<ThreadRecord>>,
    /// The context of the present run.
    context: Option<ChildContext>,
    /// The context of the run before, which the next run reuses: a restart that allocates nothing
    /// is faster.
    spare: Option<ChildContext>,
    stop_requested_at: Option<Instant>,
    /// What the child's thread drops as the present or next run ends, or as it leaves.
    remains: Vec<Remain>,
    /// No further start signal is sent, not even by a supervisor thread that was stuck and returns.
    sealed: bool,
}

/// A user's value that the supervisor no longer needs. Its `Drop` may block, which must delay no
/// other child: so the child's thread drops it, as it drops the body.
#[expect(dead_code, reason = "they are kept to be dropped")]
pub(crate) enum Remain {
    Backoff(Box<Backoff>),
    /// How a run ended, once the end of a later run has taken its place.
    LastStop(LastStop),
    /// The row of a child that is gone, which holds how its last run ended.
    Row(Arc<Row>),
}

pub(crate) enum Command {
    Run(ChildContext),
    Leave { keep_body: bool },
}

impl WorkerShared {
    pub(crate) fn new(link: Link, job: Job) -> Arc<Self> {
        let Job { body, stack_size, fresh_thread } = job;
        let threads = LiveThreads::new(link.stop_timeout);
        Arc::new(Self {
            link: Arc::new(link),
            stack_size,
            fresh_thread,
            slot: Mutex::new(Some(body)),
            is_final: AtomicBool::new(false),
            leaves_by_itself: AtomicBool::new(false),
            run: AtomicU64::new(0),
            threads,
            state: Mutex::default(),
        })
    }

    /// Sends the start signal. Returns `false` if the worker is sealed or has no thread by now: the
    /// body will not run.
    pub(crate) fn send_start(&self, run: u64, failures: u32) -> bool {
        let mut state = self.state.lock();
        if state.sealed {
            return false;
        }
        let context = match state.spare.take() {
            Some(spare) => spare.renew(run, failures),
            None => ChildContext::new(self.link.clone(), run, failures),
        };
        self.run.store(run, Ordering::Relaxed);
        state.context = Some(context.clone());
        state.stop_requested_at = None;
        // The thread waits for a command or is about to, so the channel has room.
        state
            .commands
            .as_ref()
            .is_some_and(|commands| commands.try_send(Command::Run(context)).is_ok())
    }

    /// Makes the present run the last: the child's thread drops the body when it ends. In a
    /// shutdown the thread then leaves without a command.
    pub(crate) fn make_final(&self, is_closing: bool) {
        // Stored first: a thread that sees `is_final` sees this too, by its Acquire load.
        if is_closing {
            self.leaves_by_itself.store(true, Ordering::Relaxed);
        }
        self.is_final.store(true, Ordering::Release);
    }

    /// Keeps a value for the child's thread to drop: when its present or next run ends, or when the
    /// thread leaves and no run follows.
    pub(crate) fn entrust(&self, remain: Remain) {
        self.state.lock().remains.push(remain);
    }

    /// Forbids all further start signals, and has the thread leave after the present run.
    pub(crate) fn seal(&self) {
        self.state.lock().sealed = true;
        self.make_final(true);
    }

    /// Notes that the supervisor thread has received the end of the present run: a fresh thread
    /// serves one run only, and takes no more commands.
    pub(crate) fn note_run_end(&self) {
        if self.fresh_thread {
            self.state.lock().commands = None;
        }
    }

    /// Asks the thread that waits for commands to leave. Returns `false` if there is none.
    pub(crate) fn leave(&self, keep_body: bool) -> bool {
        let Some(commands) = self.state.lock().commands.take() else { return false };
        // Full means that the thread has yet to receive its start signal. It still runs the body,
        // so nobody else may take it, and leaves afterwards, because the sender is dropped here. If
        // that run is the last, it drops the body at its end.
        !matches!(commands.try_send(Command::Leave { keep_body }), Err(SendError::Disconnected))
    }

    /// Whether a thread takes commands.
    pub(crate) fn has_thread(&self) -> bool {
        self.state.lock().commands.is_some()
    }

    /// Notes a thread that was just spawned for runs, and the channel to it.
    pub(crate) fn set_thread(&self, thread: Arc<ThreadRecord>, commands: Sender<Command>) {
        let mut state = self.state.lock();
        (state.thread, state.commands) = (Some(thread), Some(commands));
    }

    /// The last thread that was spawned for runs.
    pub(crate) fn thread(&self) -> Option<Arc<ThreadRecord>> {
        self.state.lock().thread.clone()
    }

    /// How far the stop of the present run has got; `None` if that has ended, and the message of
    /// its end is on the way.
    pub(crate) fn stop_phase(&self) -> Option<UnstoppedPhase> {
        let (context, thread) = (self.context()?, self.thread());
        Some(if context.signal().is_calling() {
            UnstoppedPhase::InStopCallback
        } else if thread.is_some_and(|thread| thread.is_in(ThreadPhase::Dropping)) {
            UnstoppedPhase::Dropping
        } else {
            UnstoppedPhase::Running
        })
    }

    /// Requests the present run to stop. Its callbacks are called by
    /// [`ThreadRegistry::call_back`](crate::runtime::thread_registry::ThreadRegistry::call_back).
    pub(crate) fn request_stop(&self, now: Instant) {
        let context = {
            let mut state = self.state.lock();
            state.stop_requested_at.get_or_insert(now);
            state.context.clone()
        };
        if let Some(context) = context {
            context.signal().request();
        }
    }

    /// When the present run was requested to stop, for the first time.
    pub(crate) fn stop_requested_at(&self) -> Option<Instant> {
        self.state.lock().stop_requested_at
    }

    /// The number of the latest run; 0 if there was none.
    pub(crate) fn last_run(&self) -> u64 {
        self.run.load(Ordering::Relaxed)
    }

    /// What the latest run was doing, by its last heartbeat.
    pub(crate) fn doing(&self) -> Option<&'static str> {
        self.link.activity.as_ref()?.of(self.last_run())
    }

    pub(crate) fn holds_body(&self) -> bool {
        self.slot.lock().is_some()
    }

    /// Whether a body or an entrusted value is left to drop.
    pub(crate) fn holds_anything(&self) -> bool {
        self.holds_body() || !self.state.lock().remains.is_empty()
    }

    pub(crate) fn take_body(&self) -> Option<Body> {
        self.slot.lock().take()
    }

    pub(crate) fn put_back(&self, body: Body) {
        *self.slot.lock() = Some(body);
    }

    /// Whether no run follows the present one.
    pub(crate) fn is_final(&self) -> bool {
        self.is_final.load(Ordering::Acquire)
    }

    /// Whether the thread leaves without a command after a run, which is the last or not.
    pub(crate) fn thread_leaves_after(&self, is_last: bool) -> bool {
        self.fresh_thread || is_last && self.leaves_by_itself.load(Ordering::Relaxed)
    }

    /// Notes that the present run has ended, and keeps its context for the next. A stop request
    /// ends with its run; but after the last run the time of the request is kept, for the report of
    /// a child whose thread is still alive.
    pub(crate) fn keep_context(&self, spare: Option<ChildContext>, is_last: bool) {
        let mut state = self.state.lock();
        state.context = None;
        if !is_last && spare.is_some() {
            state.spare = spare;
            state.stop_requested_at = None;
        }
    }

    /// Drops the entrusted values, with no lock held.
    pub(crate) fn drop_remains(&self, drops: &mut Drops) {
        let mut remains = mem::take(&mut self.state.lock().remains);
        if remains.is_empty() {
            return;
        }
        remains.drain(..).for_each(|remain| drops.discard(remain));
        // The emptied vector goes back: a child that keeps failing fills it after each run.
        let mut state = self.state.lock();
        if state.remains.capacity() == 0 {
            state.remains = remains;
        }
    }

    /// The context of the present run, if there is one.
    pub(crate) fn context(&self) -> Option<ChildContext> {
        self.state.lock().context.clone()
    }
}

/// Drops a body for which no thread could be had, and catches its panic: the last reference may be
/// dropped by a thread that runs the destructors of its thread-local variables, where a panic would
/// end the process.
impl Drop for WorkerShared {
    fn drop(&mut self) {
        let _ = unwind::discard(self.slot.get_mut().take());
        for remain in self.state.get_mut().remains.drain(..) {
            let _ = unwind::discard(remain);
        }
    }
}
