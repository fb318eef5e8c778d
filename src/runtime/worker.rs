//! Worker thread of one child, and the state that it shares with the supervisor thread.

use std::{
    mem,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crossbeam_channel::SendError;

use crate::{
    backoff::Backoff,
    child::{Body, Job},
    context::{ChildContext, Link},
    core::key::Key,
    event::{Callback, LastStop},
    exit::{ChildResult, Exit, Failure},
    id::ChildId,
    report::UnstoppedPhase,
    runtime::{
        inbox::{Message, RunEnd, ThreadNumber},
        row::Row,
    },
    sync::{
        clock::system_now,
        panic::Panic,
        primitives::{
            Mutex,
            atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
            channel::{Receiver, Sender, TrySendError},
        },
        unwind::{self, Drops},
    },
};

/// The record of one live thread in the registry of its supervisor.
pub(crate) struct Thread {
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
    pub(crate) stop_timeout: Duration,
    pub(crate) worker: Weak<WorkerShared>,
    /// The number of the child's latest run when this thread was spawned or finished its work. It
    /// is read once the worker is gone.
    pub(crate) last_run: AtomicU64,
    /// The number of live threads of the child.
    pub(crate) alive: Arc<AtomicU64>,
}

/// What a thread is doing.
///
/// Each run takes a worker thread from `Waiting` through `Running` and `Dropping` back to
/// `Waiting`. In `Ending` only the destructors of thread-local variables are left.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum ThreadPhase {
    Waiting,
    Running,
    Dropping,
    Ending,
}

impl Thread {
    pub(crate) fn new(number: ThreadNumber, worker: Option<&Arc<WorkerShared>>) -> Self {
        let child = worker.map(|worker| Served {
            key: worker.link.key,
            id: worker.link.id.clone(),
            stop_timeout: worker.stop_timeout,
            worker: Arc::downgrade(worker),
            last_run: AtomicU64::new(worker.last_run()),
            alive: worker.alive.clone(),
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

/// The state that a child's thread and the supervisor share.
///
/// The body is in `slot` whenever it is not running, until it is dropped; a thread that finds the
/// slot empty does not run it. So a thread that could not be spawned takes no body with it, and two
/// runs of one child cannot overlap.
///
/// # The end of a run
///
/// The worker thread reads `is_final` once after the body has returned (`run`):
///
/// | `is_final` | `fresh_thread` | `leaves_by_itself` | the body | the thread |
/// | --- | --- | --- | --- | --- |
/// | no | no | any | goes back into `slot` | waits for a command |
/// | no | yes | any | goes back into `slot` | leaves |
/// | yes | no | no | is dropped | waits for a command, which is `Leave` |
/// | yes | no | yes | is dropped | leaves |
/// | yes | yes | any | is dropped | leaves |
///
/// A leaving thread reads it again, after it has dropped its end of `commands` (`serve`), since
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
    pub(crate) stop_timeout: Duration,
    pub(crate) stack_size: Option<usize>,
    fresh_thread: bool,
    slot: Mutex<Option<Body>>,
    /// No further run will start: the worker thread drops the body when the present run ends.
    is_final: AtomicBool,
    /// After the last run the thread leaves without a command. Otherwise it waits for `Leave`: the
    /// supervisor thread may still entrust it with values to drop.
    leaves_by_itself: AtomicBool,
    /// The number of the latest run that was sent a start signal.
    run: AtomicU64,
    /// The number of live threads of the child.
    alive: Arc<AtomicU64>,
    state: Mutex<WorkerState>,
}

#[derive(Default)]
struct WorkerState {
    /// The channel to the thread that waits for commands. It has room for one.
    commands: Option<Sender<Command>>,
    /// The context of the present run.
    context: Option<ChildContext>,
    /// The context of the run before, which the next run reuses: a restart that allocates nothing
    /// is faster.
    spare: Option<ChildContext>,
    stop_requested_at: Option<Instant>,
    /// What the child's thread drops after its next run, or as it leaves.
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
    Stop(LastStop),
    /// The row of a child that is gone, which holds how its last run ended.
    Row(Arc<Row>),
}

pub(crate) enum Command {
    Run(ChildContext),
    Leave { keep_body: bool },
}

impl WorkerShared {
    pub(crate) fn new(link: Link, job: Job) -> Arc<Self> {
        let Job { body, stop_timeout, stack_size, fresh_thread } = job;
        Arc::new(Self {
            link: Arc::new(link),
            stop_timeout,
            stack_size,
            fresh_thread,
            slot: Mutex::new(Some(body)),
            is_final: AtomicBool::new(false),
            leaves_by_itself: AtomicBool::new(false),
            run: AtomicU64::new(0),
            alive: Arc::default(),
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

    /// Makes the present run the last: the worker thread drops the body when it ends. In a shutdown
    /// the thread then leaves without a command.
    pub(crate) fn make_final(&self, is_closing: bool) {
        // Stored first: a thread that sees `is_final` sees this too, by its Acquire load.
        if is_closing {
            self.leaves_by_itself.store(true, Ordering::Relaxed);
        }
        self.is_final.store(true, Ordering::Release);
    }

    /// Keeps a value for the child's thread to drop: when its next run ends, or when the thread
    /// leaves.
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
    pub(crate) fn run_is_over(&self) {
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
        !matches!(
            commands.try_send(Command::Leave { keep_body }),
            Err(TrySendError::Disconnected(_))
        )
    }

    /// The number of live threads of the child.
    pub(crate) fn alive(&self) -> u64 {
        self.alive.load(Ordering::Relaxed)
    }

    /// Whether a thread takes commands.
    pub(crate) fn has_thread(&self) -> bool {
        self.state.lock().commands.is_some()
    }

    /// Stores the channel to a thread that was just spawned.
    pub(crate) fn has_got_thread(&self, commands: Sender<Command>) {
        self.state.lock().commands = Some(commands);
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

    pub(crate) fn holds_body(&self) -> bool {
        self.slot.lock().is_some()
    }

    /// Whether a body or an entrusted value is left to drop.
    pub(crate) fn holds_anything(&self) -> bool {
        self.holds_body() || !self.state.lock().remains.is_empty()
    }

    /// Drops the entrusted values, with no lock held.
    fn drop_remains(&self, drops: &mut Drops) {
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

/// The main function of a worker thread. It waits for a start signal, runs the body, puts it back,
/// reports the end of the run to the supervisor thread, and waits again.
pub(crate) fn work(thread: &Thread, worker: &Arc<WorkerShared>, commands: Receiver<Command>) {
    serve(thread, worker, commands);
    if let Some(child) = &thread.child {
        child.last_run.store(worker.last_run(), Ordering::Relaxed);
    }
}

fn serve(thread: &Thread, worker: &Arc<WorkerShared>, commands: Receiver<Command>) {
    while let Ok(command) = commands.recv() {
        match command {
            Command::Run(context) => {
                if !run(thread, worker, context) {
                    break;
                }
            }
            Command::Leave { keep_body } => {
                drop_all(thread, worker, keep_body);
                break;
            }
        }
    }
    // Before the look at `is_final`: from here on `leave` finds the channel disconnected, and its
    // caller sees to the body. A `Leave` may have been sent before that, and never received. But
    // `make_final` comes before any `Leave`, so that the load below sees it.
    drop(commands);
    // `make_final` may have come just after the run had ended, with the body back in the slot. But
    // another thread may have been sent the next run, as after a restart by hand, and be about to
    // take the body: then that thread drops it.
    if worker.is_final.load(Ordering::Acquire) && worker.context().is_none() {
        drop_all(thread, worker, false);
    }
}

/// Runs the body once. Returns whether the thread stays for another run.
fn run(thread: &Thread, worker: &Arc<WorkerShared>, context: ChildContext) -> bool {
    let Some(mut body) = worker.slot.lock().take() else {
        // Each run that was started needs an end, also one without a body.
        let at = system_now();
        worker.state.lock().context = None;
        let (key, run) = (worker.link.key, context.run());
        tell_end(worker, RunEnd::of_no_run(key, run, at));
        return false;
    };
    let mut drops = Drops::default();
    thread.enter(ThreadPhase::Running);
    context.begin();
    let outcome = unwind::catch_both(|| body(&context));
    let at = system_now();
    let (exit, display_panic) = reduce(outcome, &mut drops);
    if let Some(panic) = context.signal().end() {
        drops.note(Err(panic));
    }
    // Dropped after the body, not before it: the run counts as started since before this thread
    // woke, so a slow drop before the body would add to the uptime.
    thread.enter(ThreadPhase::Dropping);
    worker.drop_remains(&mut drops);
    let (number, callbacks_succeeded) = (context.run(), context.callbacks_succeeded());
    let is_last = worker.is_final.load(Ordering::Acquire);
    {
        let mut state = worker.state.lock();
        state.context = None;
        if !is_last {
            state.spare = Some(context);
            // A stop request ends with its run. After the last run its time is kept, for the report
            // of a child whose thread is still alive.
            state.stop_requested_at = None;
        }
    }
    if is_last {
        drops.discard(body);
    } else {
        *worker.slot.lock() = Some(body);
    }
    thread.enter(ThreadPhase::Waiting);
    let end = RunEnd {
        key: worker.link.key,
        run: number,
        exit,
        at,
        display_panic,
        drops,
        callbacks_succeeded,
    };
    tell_end(worker, end);
    let leaves = is_last && worker.leaves_by_itself.load(Ordering::Relaxed);
    !leaves && !worker.fresh_thread
}

/// Turns the outcome of a body into an [`Exit`]. Returns the panic of an error's `Display` or
/// `source` too.
fn reduce(
    outcome: Result<ChildResult, (Panic, Option<Panic>)>,
    drops: &mut Drops,
) -> (Exit, Option<Panic>) {
    match outcome {
        Ok(Ok(())) => (Exit::Completed, None),
        Ok(Err(error)) => {
            let (failure, display_panic) = Failure::catching(error);
            (Exit::Failed(failure), display_panic)
        }
        Err((panic, drop_panic)) => {
            drops.note(drop_panic.map_or(Ok(()), Err));
            (Exit::Panicked(panic), None)
        }
    }
}

/// Drops the entrusted values of a child, and its body too unless it is kept.
pub(crate) fn drop_all(thread: &Thread, worker: &Arc<WorkerShared>, keep_body: bool) {
    thread.enter(ThreadPhase::Dropping);
    let body = if keep_body { None } else { worker.slot.lock().take() };
    let mut drops = Drops::default();
    worker.drop_remains(&mut drops);
    drops.discard(body);
    if let Some(Err(panic)) = drops.into_result() {
        let (key, run, callback) = (worker.link.key, worker.last_run(), Callback::Drop);
        tell(worker, Message::CallbackPanicked { key, run, callback, panic });
    }
}

/// Sends the end of a run to the supervisor thread. If the supervisor thread has ended or is stuck,
/// it may never publish that end: then the worker thread publishes it.
fn tell_end(worker: &WorkerShared, end: RunEnd) {
    let (shared, key, run) = (worker.link.handle.shared(), worker.link.key, end.run);
    match shared.inbox().send(Message::Exit(end)) {
        Err(SendError(Message::Exit(end))) => shared.run_ended_late(key, run, Some(end)),
        Err(SendError(message)) => drop(unwind::discard(message)),
        // Looked at after the send: a supervisor that has not ended by now finds the message. One
        // that has ended, or is stuck, may not.
        Ok(()) if shared.shows_no_more() => shared.run_ended_late(key, run, None),
        Ok(()) => {}
    }
}

/// Sends a message to the supervisor thread. If that thread has ended, the message is dropped here,
/// and a panic in the drop is caught.
fn tell(worker: &WorkerShared, message: Message) {
    let _ = unwind::catch(|| worker.link.handle.shared().tell(message).is_ok());
}
