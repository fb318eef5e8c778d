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
/// It holds the post weakly, so that what is known of an ending thread keeps no user's value alive:
/// a thread that has said that it is gone drops none.
pub(crate) struct Served {
    pub(crate) key: Key,
    pub(crate) id: ChildId,
    pub(crate) stop_timeout: Duration,
    pub(crate) post: Weak<Post>,
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
    pub(crate) fn new(number: ThreadNumber, post: Option<&Arc<Post>>) -> Self {
        let child = post.map(|post| Served {
            key: post.link.key,
            id: post.link.id.clone(),
            stop_timeout: post.stop_timeout,
            post: Arc::downgrade(post),
            last_run: AtomicU64::new(post.last_run()),
            alive: post.alive.clone(),
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
pub(crate) struct Post {
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
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Desk {
    /// Reaches the thread that waits for a word.
    words: Option<Sender<Word>>,
    /// The present run.
    context: Option<ChildContext>,
    /// The context of the run before, for the next one: a restart that takes no memory is a faster
    /// one.
    spare: Option<ChildContext>,
    told_at: Option<Instant>,
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

pub(crate) enum Word {
    Run(ChildContext),
    Leave { keep_body: bool },
}

impl Post {
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
            desk: Mutex::default(),
        })
    }

    /// Gives the word to go. `false` if this is forbidden by now: the body will not run.
    pub(crate) fn go(&self, run: u64, attempt_count: u32) -> bool {
        let mut desk = self.desk.lock();
        if desk.sealed {
            return false;
        }
        let context = match desk.spare.take() {
            Some(spare) => spare.renew(run, attempt_count),
            None => ChildContext::new(self.link.clone(), run, attempt_count),
        };
        self.run.store(run, Ordering::Relaxed);
        desk.context = Some(context.clone());
        desk.told_at = None;
        // The thread waits for a word or is just about to: there is room for it.
        desk.words.as_ref().is_some_and(|words| words.try_send(Word::Run(context)).is_ok())
    }

    /// No further run will be: the body may be dropped as the present one ends. In a shutdown its
    /// thread leaves then, without another word.
    pub(crate) fn make_last_run(&self, is_closing: bool) {
        if is_closing {
            self.leaves_by_itself.store(true, Ordering::Relaxed);
        }
        self.last_run.store(true, Ordering::Release);
    }

    /// Leaves a value to be dropped on the child's thread: as its next run ends, or as the thread
    /// leaves.
    pub(crate) fn entrust(&self, remain: Remain) {
        self.desk.lock().remains.push(remain);
    }

    /// No run is let go any more.
    pub(crate) fn seal(&self) {
        self.desk.lock().sealed = true;
        self.make_last_run(true);
    }

    /// The run's end has been seen by the supervisor: a thread that serves one run only has left.
    pub(crate) fn run_is_over(&self) {
        if self.fresh_thread {
            self.desk.lock().words = None;
        }
    }

    /// Has the thread leave that waits for a word. `false` if there is none.
    pub(crate) fn leave(&self, keep_body: bool) -> bool {
        let Some(words) = self.desk.lock().words.take() else { return false };
        // One that is yet to hear the word to go has no room for another. It runs the body, which
        // is not to be taken from under it, and leaves when it hears no more; a body that has its
        // last run is dropped then.
        !matches!(words.try_send(Word::Leave { keep_body }), Err(TrySendError::Disconnected(_)))
    }

    /// How many of its threads are alive.
    pub(crate) fn alive(&self) -> u64 {
        self.alive.load(Ordering::Relaxed)
    }

    /// Whether a thread waits for a word.
    pub(crate) fn has_thread(&self) -> bool {
        self.desk.lock().words.is_some()
    }

    /// A thread waits for a word here.
    pub(crate) fn has_got_thread(&self, words: Sender<Word>) {
        self.desk.lock().words = Some(words);
    }

    /// Tells the present run to stop.
    pub(crate) fn tell_to_stop(&self, now: Instant) {
        let context = {
            let mut desk = self.desk.lock();
            desk.told_at.get_or_insert(now);
            desk.context.clone()
        };
        if let Some(context) = context {
            context.signal().tell();
        }
    }

    /// When the present run was told to stop.
    pub(crate) fn told_at(&self) -> Option<Instant> {
        self.desk.lock().told_at
    }

    pub(crate) fn last_run(&self) -> u64 {
        self.run.load(Ordering::Relaxed)
    }

    pub(crate) fn holds_body(&self) -> bool {
        self.slot.lock().is_some()
    }

    /// Whether there is anything to be dropped when the child is gone.
    pub(crate) fn holds_anything(&self) -> bool {
        self.holds_body() || !self.desk.lock().remains.is_empty()
    }

    /// Drops what was left to be.
    fn drop_remains(&self, drops: &mut Drops) {
        let mut remains = mem::take(&mut self.desk.lock().remains);
        if remains.is_empty() {
            return;
        }
        remains.drain(..).for_each(|remain| drops.discard(remain));
        // A child that fails again and again needs the room again and again.
        let mut desk = self.desk.lock();
        if desk.remains.capacity() == 0 {
            desk.remains = remains;
        }
    }

    /// That of the present run.
    pub(crate) fn context(&self) -> Option<ChildContext> {
        self.desk.lock().context.clone()
    }
}

/// Whoever lets go last drops a body that found no thread to be dropped on: that may be a thread in
/// the destructors of its thread-local variables, where a panic would end the process.
impl Drop for Post {
    fn drop(&mut self) {
        let _ = unwind::discard(self.slot.get_mut().take());
        for remain in self.desk.get_mut().remains.drain(..) {
            let _ = unwind::discard(remain);
        }
    }
}

/// The life of a child's thread: it waits for the word, runs the body, puts it back, says how that
/// went, and waits again.
pub(crate) fn work(thread: &Thread, post: &Arc<Post>, words: Receiver<Word>) {
    serve(thread, post, words);
    if let Some(child) = &thread.child {
        child.last_run.store(post.last_run(), Ordering::Relaxed);
    }
}

fn serve(thread: &Thread, post: &Arc<Post>, words: Receiver<Word>) {
    while let Ok(word) = words.recv() {
        match word {
            Word::Run(context) => {
                if !run(thread, post, context) {
                    break;
                }
            }
            Word::Leave { keep_body } => {
                drop_all(thread, post, keep_body);
                break;
            }
        }
    }
    // Whoever has it leave from now on learns that nobody listens, and sees to the body. A word
    // that came before and is not heard any more was given after the last run was made that, which
    // is seen here.
    drop(words);
    // It may have become the last run when that had just ended. But another thread may have been
    // let go with the next run, as after a restart by hand, and be about to take the body: then
    // that thread drops it.
    if post.last_run.load(Ordering::Acquire) && post.context().is_none() {
        drop_all(thread, post, false);
    }
}

/// Runs the body once. Returns whether the thread stays for another run.
fn run(thread: &Thread, post: &Arc<Post>, context: ChildContext) -> bool {
    let Some(mut body) = post.slot.lock().take() else {
        // No run may be without an end.
        let at = system_now();
        post.desk.lock().context = None;
        let (key, run) = (post.link.key, context.run_number());
        tell_end(post, RunEnd::of_no_run(key, run, at));
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
    post.drop_remains(&mut drops);
    let (number, callbacks_succeeded) = (context.run_number(), context.callbacks_succeeded());
    let is_last = post.last_run.load(Ordering::Acquire);
    {
        let mut desk = post.desk.lock();
        desk.context = None;
        if !is_last {
            desk.spare = Some(context);
            // It has done what it was told; what its thread is told later is another matter.
            desk.told_at = None;
        }
    }
    if is_last {
        drops.discard(body);
    } else {
        *post.slot.lock() = Some(body);
    }
    thread.enter(Phase::Waiting);
    let end = RunEnd {
        key: post.link.key,
        run: number,
        exit,
        at,
        display_panic,
        drops,
        callbacks_succeeded,
    };
    tell_end(post, end);
    let leaves = is_last && post.leaves_by_itself.load(Ordering::Relaxed);
    !leaves && !post.fresh_thread
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
pub(crate) fn drop_all(thread: &Thread, post: &Arc<Post>, keep_body: bool) {
    thread.enter(Phase::Dropping);
    let body = if keep_body { None } else { post.slot.lock().take() };
    let mut drops = Drops::default();
    post.drop_remains(&mut drops);
    drops.discard(body);
    if let Some(Err(panic)) = drops.into_result() {
        let (key, run, callback) = (post.link.key, post.last_run(), Callback::Drop);
        tell(post, Message::CallbackPanicked { key, run, callback, panic });
    }
}

/// Tells the supervisor that a run has ended. One that has ended itself shows nothing any more,
/// which is done here then.
fn tell_end(post: &Post, end: RunEnd) {
    let (shared, key, run) = (post.link.handle.shared(), post.link.key, end.run);
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
fn tell(post: &Post, message: Message) {
    let _ = unwind::catch(|| post.link.handle.shared().tell(message).is_ok());
}
