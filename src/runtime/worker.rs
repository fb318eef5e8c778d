//! The life of a child's thread, and what it shares with its supervisor: the body, and the word to
//! go.

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
        shared::Row,
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

/// One thread of a supervisor, as it is known to others.
pub(crate) struct Thread {
    pub(crate) number: ThreadNumber,
    /// The child whose thread it is; the supervisor's own has none.
    pub(crate) child: Option<Served>,
    phase: AtomicU8,
}

/// The child whom a thread serves.
///
/// It holds the worker weakly, so that what is known of an ending thread keeps no user's value alive:
/// a thread that has said that it is gone drops none.
pub(crate) struct Served {
    pub(crate) key: Key,
    pub(crate) id: ChildId,
    pub(crate) stop_timeout: Duration,
    pub(crate) worker: Weak<WorkerShared>,
    /// The last run, as far as it was known when its work began or was over.
    pub(crate) last_run: AtomicU64,
    /// How many threads of the child are alive.
    pub(crate) alive: Arc<AtomicU64>,
}

/// How far a thread has come, in the order of a life.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Phase {
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
        Self { number, child, phase: AtomicU8::new(Phase::Waiting as u8) }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// How far it has come, for those who wait for its end. One that waits for a word was told to
    /// leave and is about to.
    pub(crate) fn phase(&self) -> UnstoppedPhase {
        match self.phase.load(Ordering::Relaxed) {
            phase if phase == Phase::Running as u8 => UnstoppedPhase::Running,
            phase if phase == Phase::Dropping as u8 => UnstoppedPhase::Dropping,
            _ => UnstoppedPhase::Ending,
        }
    }
}

/// What a child's thread and its supervisor share: the body in its slot, and the word to go.
///
/// The body is in the slot whenever it is not running, and whoever finds the slot empty has no
/// right to run it. So a thread that could not be spawned takes no body with it, and two runs of
/// one child cannot be.
pub(crate) struct WorkerShared {
    pub(crate) link: Arc<Link>,
    pub(crate) stop_timeout: Duration,
    pub(crate) stack_size: Option<usize>,
    fresh_thread: bool,
    slot: Mutex<Option<Body>>,
    /// There will be no further run: the body is dropped on its thread as soon as it is out of
    /// work.
    last_run: AtomicBool,
    /// The thread leaves after its last run by itself. Otherwise it waits until it is told to:
    /// there may be more of the child to be dropped.
    leaves_by_itself: AtomicBool,
    run: AtomicU64,
    /// How many threads of it are alive.
    alive: Arc<AtomicU64>,
    state: Mutex<WorkerState>,
}

#[derive(Default)]
struct WorkerState {
    /// Reaches the thread that waits for a word.
    commands: Option<Sender<Command>>,
    /// The present run.
    context: Option<ChildContext>,
    /// The context of the run before, for the next one: a restart that takes no memory is a faster
    /// one.
    spare: Option<ChildContext>,
    stop_requested_at: Option<Instant>,
    /// What is yet to be dropped on the child's thread.
    remains: Vec<Remain>,
    /// No run is let go any more.
    sealed: bool,
}

/// A value of the user's that the supervisor has no more use for. Its `Drop` may block, which is
/// nobody's business but the child's: so it goes where the body goes.
#[expect(dead_code, reason = "they are kept to be dropped")]
pub(crate) enum Remain {
    Backoff(Box<Backoff>),
    /// How a run ended, after the next one has ended, too.
    Stop(LastStop),
    /// What was known of a child that is gone, with how its last run ended.
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
            last_run: AtomicBool::new(false),
            leaves_by_itself: AtomicBool::new(false),
            run: AtomicU64::new(0),
            alive: Arc::default(),
            state: Mutex::default(),
        })
    }

    /// Gives the word to go. `false` if this is forbidden by now: the body will not run.
    pub(crate) fn send_start(&self, run: u64, attempt_count: u32) -> bool {
        let mut state = self.state.lock();
        if state.sealed {
            return false;
        }
        let context = match state.spare.take() {
            Some(spare) => spare.renew(run, attempt_count),
            None => ChildContext::new(self.link.clone(), run, attempt_count),
        };
        self.run.store(run, Ordering::Relaxed);
        state.context = Some(context.clone());
        state.stop_requested_at = None;
        // The thread waits for a word or is just about to: there is room for it.
        state
            .commands
            .as_ref()
            .is_some_and(|commands| commands.try_send(Command::Run(context)).is_ok())
    }

    /// No further run will be: the body may be dropped as the present one ends. In a shutdown its
    /// thread leaves then, without another word.
    pub(crate) fn make_final(&self, is_closing: bool) {
        if is_closing {
            self.leaves_by_itself.store(true, Ordering::Relaxed);
        }
        self.last_run.store(true, Ordering::Release);
    }

    /// Leaves a value to be dropped on the child's thread: as its next run ends, or as the thread
    /// leaves.
    pub(crate) fn entrust(&self, remain: Remain) {
        self.state.lock().remains.push(remain);
    }

    /// No run is let go any more.
    pub(crate) fn seal(&self) {
        self.state.lock().sealed = true;
        self.make_final(true);
    }

    /// The run's end has been seen by the supervisor: a thread that serves one run only has left.
    pub(crate) fn run_is_over(&self) {
        if self.fresh_thread {
            self.state.lock().commands = None;
        }
    }

    /// Has the thread leave that waits for a word. `false` if there is none.
    pub(crate) fn leave(&self, keep_body: bool) -> bool {
        let Some(commands) = self.state.lock().commands.take() else { return false };
        // One that is yet to hear the word to go has no room for another. It runs the body, which
        // is not to be taken from under it, and leaves when it hears no more; a body that has its
        // last run is dropped then.
        !matches!(
            commands.try_send(Command::Leave { keep_body }),
            Err(TrySendError::Disconnected(_))
        )
    }

    /// How many of its threads are alive.
    pub(crate) fn alive(&self) -> u64 {
        self.alive.load(Ordering::Relaxed)
    }

    /// Whether a thread waits for a word.
    pub(crate) fn has_thread(&self) -> bool {
        self.state.lock().commands.is_some()
    }

    /// A thread waits for a word here.
    pub(crate) fn has_got_thread(&self, commands: Sender<Command>) {
        self.state.lock().commands = Some(commands);
    }

    /// Tells the present run to stop.
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

    /// When the present run was told to stop.
    pub(crate) fn stop_requested_at(&self) -> Option<Instant> {
        self.state.lock().stop_requested_at
    }

    pub(crate) fn last_run(&self) -> u64 {
        self.run.load(Ordering::Relaxed)
    }

    pub(crate) fn holds_body(&self) -> bool {
        self.slot.lock().is_some()
    }

    /// Whether there is anything to be dropped when the child is gone.
    pub(crate) fn holds_anything(&self) -> bool {
        self.holds_body() || !self.state.lock().remains.is_empty()
    }

    /// Drops what was left to be.
    fn drop_remains(&self, drops: &mut Drops) {
        let mut remains = mem::take(&mut self.state.lock().remains);
        if remains.is_empty() {
            return;
        }
        remains.drain(..).for_each(|remain| drops.discard(remain));
        // A child that fails again and again needs the room again and again.
        let mut state = self.state.lock();
        if state.remains.capacity() == 0 {
            state.remains = remains;
        }
    }

    /// That of the present run.
    pub(crate) fn context(&self) -> Option<ChildContext> {
        self.state.lock().context.clone()
    }
}

/// Whoever lets go last drops a body that found no thread to be dropped on: that may be a thread in
/// the destructors of its thread-local variables, where a panic would end the process.
impl Drop for WorkerShared {
    fn drop(&mut self) {
        let _ = unwind::discard(self.slot.get_mut().take());
        for remain in self.state.get_mut().remains.drain(..) {
            let _ = unwind::discard(remain);
        }
    }
}

/// The life of a child's thread: it waits for the word, runs the body, puts it back, says how that
/// went, and waits again.
pub(crate) fn work(thread: &Thread, worker: &Arc<WorkerShared>, commands: Receiver<Command>) {
    serve(thread, worker, commands);
    if let Some(child) = &thread.child {
        child.last_run.store(worker.last_run(), Ordering::Relaxed);
    }
}

fn serve(thread: &Thread, worker: &Arc<WorkerShared>, commands: Receiver<Command>) {
    while let Ok(word) = commands.recv() {
        match word {
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
    // Whoever has it leave from now on learns that nobody listens, and sees to the body. A word
    // that came before and is not heard any more was given after the last run was made that, which
    // is seen here.
    drop(commands);
    // It may have become the last run when that had just ended. But another thread may have been
    // let go with the next run, as after a restart by hand, and be about to take the body: then
    // that thread drops it.
    if worker.last_run.load(Ordering::Acquire) && worker.context().is_none() {
        drop_all(thread, worker, false);
    }
}

/// Runs the body once. Returns whether the thread stays for another run.
fn run(thread: &Thread, worker: &Arc<WorkerShared>, context: ChildContext) -> bool {
    let Some(mut body) = worker.slot.lock().take() else {
        // No run may be without an end.
        let at = system_now();
        worker.state.lock().context = None;
        let (key, run) = (worker.link.key, context.run_number());
        tell_end(worker, RunEnd::of_no_run(key, run, at));
        return false;
    };
    let mut drops = Drops::default();
    thread.enter(Phase::Running);
    context.begin();
    let outcome = unwind::catch_both(|| body(&context));
    let at = system_now();
    let (exit, display_panic) = reduce(outcome, &mut drops);
    if let Some(panic) = context.signal().end() {
        drops.note(Err(panic));
    }
    // Not before the body: by then it was told that this run has started, and its uptime counts.
    thread.enter(Phase::Dropping);
    worker.drop_remains(&mut drops);
    let (number, callbacks_succeeded) = (context.run_number(), context.callbacks_succeeded());
    let is_last = worker.last_run.load(Ordering::Acquire);
    {
        let mut state = worker.state.lock();
        state.context = None;
        if !is_last {
            state.spare = Some(context);
            // It has done what it was told; what its thread is told later is another matter.
            state.stop_requested_at = None;
        }
    }
    if is_last {
        drops.discard(body);
    } else {
        *worker.slot.lock() = Some(body);
    }
    thread.enter(Phase::Waiting);
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

/// Makes data of what came out of a body. Returns the panic of an error's `Display` or `source`
/// too.
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

/// Drops all that the child has left, and the body too unless it is kept.
pub(crate) fn drop_all(thread: &Thread, worker: &Arc<WorkerShared>, keep_body: bool) {
    thread.enter(Phase::Dropping);
    let body = if keep_body { None } else { worker.slot.lock().take() };
    let mut drops = Drops::default();
    worker.drop_remains(&mut drops);
    drops.discard(body);
    if let Some(Err(panic)) = drops.into_result() {
        let (key, run, callback) = (worker.link.key, worker.last_run(), Callback::Drop);
        tell(worker, Message::CallbackPanicked { key, run, callback, panic });
    }
}

/// Tells the supervisor that a run has ended. One that has ended itself shows nothing any more,
/// which is done here then.
fn tell_end(worker: &WorkerShared, end: RunEnd) {
    let (shared, key, run) = (worker.link.handle.shared(), worker.link.key, end.run);
    match shared.inbox().send(Message::Exit(end)) {
        Err(SendError(Message::Exit(end))) => shared.run_ended_late(key, run, Some(end)),
        Err(SendError(message)) => drop(unwind::discard(message)),
        // Either the supervisor has not ended yet, and finds the message; or it may have looked for
        // the last time.
        Ok(()) if shared.shows_no_more() => shared.run_ended_late(key, run, None),
        Ok(()) => {}
    }
}

/// Tells the supervisor. One that has ended does not listen; what it would have been told is
/// dropped here, under a guard.
fn tell(worker: &WorkerShared, message: Message) {
    let _ = unwind::catch(|| worker.link.handle.shared().tell(message).is_ok());
}
