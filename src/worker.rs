//! The threads: nothing else in the crate spawns one.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::{Condvar, Mutex};

use crate::{
    child::Body,
    context::{ChildContext, Link},
    exit::{Exit, Failure, Panic},
    inbox::{Message, RunEnd, ThreadNumber},
    lineage::Lineage,
    report::{Unstopped, UnstoppedPhase},
    roster::Key,
    unwind,
};

thread_local! {
    /// Says that its thread is gone, when all destructors of thread-local variables have run: it is the first to be made, and
    /// the last to be dropped.
    static FAREWELL: RefCell<Option<Farewell>> = const { RefCell::new(None) };
}

/// All threads of one supervisor.
///
/// Whoever asks a thread to end waits for the word that it is gone, and joins it only then: a join before that word would wait
/// for as long as the destructors of the thread's thread-local variables take.
pub(crate) struct Crew {
    lineage: Lineage,
    roll: Mutex<Roll>,
    /// A thread has gone.
    left: Condvar,
}

#[derive(Default)]
struct Roll {
    next: u64,
    threads: BTreeMap<ThreadNumber, Entry>,
    /// Nothing is spawned any more.
    sealed: bool,
}

struct Entry {
    thread: Arc<Thread>,
    join: Option<JoinHandle<()>>,
    is_gone: bool,
}

struct Thread {
    number: ThreadNumber,
    /// The child whose thread it is; the supervisor's own has none.
    post: Option<Arc<Post>>,
    phase: AtomicU8,
}

/// How far a thread has come, in the order of a life.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Phase {
    Waiting,
    Running,
    Dropping,
    Ending,
}

impl Thread {
    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// How far it has come, for those who wait for its end. One that waits for a word was told to leave and is about to.
    fn phase(&self) -> UnstoppedPhase {
        match self.phase.load(Ordering::Relaxed) {
            phase if phase == Phase::Running as u8 => UnstoppedPhase::Running,
            phase if phase == Phase::Dropping as u8 => UnstoppedPhase::Dropping,
            _ => UnstoppedPhase::Ending,
        }
    }
}

struct Farewell {
    crew: Arc<Crew>,
    thread: Arc<Thread>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.crew.is_gone(&self.thread);
    }
}

/// What a child's thread and its supervisor share: the body in its slot, and the word to go.
///
/// The body is in the slot whenever it is not running, and whoever finds the slot empty has no right to run it. So a thread
/// that could not be spawned takes no body with it, and two runs of one child cannot be.
pub(crate) struct Post {
    pub(crate) link: Arc<Link>,
    stop_timeout: Duration,
    stack_size: Option<usize>,
    fresh_thread: bool,
    slot: Mutex<Option<Body>>,
    /// There will be no further run: the body is dropped on its thread as soon as it is out of work.
    last_run: AtomicBool,
    run: AtomicU64,
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Desk {
    /// Reaches the thread that waits for a word.
    words: Option<Sender<Word>>,
    /// The present run.
    context: Option<ChildContext>,
    told_at: Option<Instant>,
    /// No run is let go any more.
    sealed: bool,
}

enum Word {
    Run(ChildContext),
    Leave { keep_body: bool },
}

impl Post {
    pub(crate) fn new(
        link: Arc<Link>,
        body: Body,
        stop_timeout: Duration,
        stack_size: Option<usize>,
        fresh_thread: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            link,
            stop_timeout,
            stack_size,
            fresh_thread,
            slot: Mutex::new(Some(body)),
            last_run: AtomicBool::new(false),
            run: AtomicU64::new(0),
            desk: Mutex::default(),
        })
    }

    /// Gives the word to go. `false` if this is forbidden by now: the body will not run.
    pub(crate) fn go(&self, run: u64, attempt_count: u32) -> bool {
        let context = ChildContext::new(self.link.clone(), run, attempt_count);
        let mut desk = self.desk.lock();
        if desk.sealed {
            return false;
        }
        self.run.store(run, Ordering::Relaxed);
        desk.context = Some(context.clone());
        desk.told_at = None;
        // The thread waits for a word or is just about to: there is room for it.
        desk.words.as_ref().is_some_and(|words| words.try_send(Word::Run(context)).is_ok())
    }

    /// No further run will be: the body may be dropped as the present one ends.
    pub(crate) fn make_last_run(&self) {
        self.last_run.store(true, Ordering::Release);
    }

    /// No run is let go any more.
    fn seal(&self) {
        self.desk.lock().sealed = true;
        self.make_last_run();
    }

    /// The run's end has been seen by the supervisor: a thread that serves one run only has left.
    pub(crate) fn run_is_over(&self) {
        if self.fresh_thread {
            self.desk.lock().words = None;
        }
    }

    /// Has the thread leave that waits for a word. `false` if there is none.
    fn leave(&self, keep_body: bool) -> bool {
        let Some(words) = self.desk.lock().words.take() else { return false };
        // One that is yet to hear the word to go has no room for another. It runs the body, which is not to be taken from
        // under it, and leaves when it hears no more; a body that has its last run is dropped then.
        !matches!(words.try_send(Word::Leave { keep_body }), Err(TrySendError::Disconnected(_)))
    }

    fn holds_body(&self) -> bool {
        self.slot.lock().is_some()
    }

    /// That of the present run.
    pub(crate) fn context(&self) -> Option<ChildContext> {
        self.desk.lock().context.clone()
    }
}

/// Whoever lets go last drops a body that found no thread to be dropped on: that may be a thread in the destructors of its
/// thread-local variables, where a panic would end the process.
impl Drop for Post {
    fn drop(&mut self) {
        let _ = unwind::discard(self.slot.get_mut().take());
    }
}

impl Crew {
    /// The threads of the supervisor of this number, which itself works for those of `outer`.
    pub(crate) fn new(number: u64) -> Arc<Self> {
        let lineage = Lineage::of(number);
        Arc::new(Self { lineage, roll: Mutex::default(), left: Condvar::new() })
    }

    /// Supervises on this thread, which is that of an outer supervisor's child.
    pub(crate) fn supervise_here<R>(&self, f: impl FnOnce() -> R) -> R {
        self.lineage.supervise(f)
    }

    // ── Spawning ────────────────────────────────────────────────────────────────────────────────────────────────────

    fn spawn(
        self: &Arc<Self>,
        name: String,
        stack_size: Option<usize>,
        post: Option<Arc<Post>>,
        main: impl FnOnce(&Thread) + Send + 'static,
    ) -> io::Result<()> {
        // Held while the thread is spawned, so that it is listed before it can be gone. No user code runs meanwhile.
        let mut roll = self.roll.lock();
        if roll.sealed {
            return Err(io::Error::other("the supervisor shuts down"));
        }
        let number = ThreadNumber(roll.next);
        roll.next += 1;
        let thread = Arc::new(Thread { number, post, phase: AtomicU8::new(Phase::Waiting as u8) });
        let (crew, its) = (self.clone(), thread.clone());
        let mut builder = thread::Builder::new().name(name);
        if let Some(bytes) = stack_size {
            builder = builder.stack_size(bytes);
        }
        #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
        let join = builder.spawn(move || {
            FAREWELL.set(Some(Farewell { crew: crew.clone(), thread: its.clone() }));
            crew.lineage.adopt();
            main(&its);
            its.enter(Phase::Ending);
        })?;
        roll.threads.insert(number, Entry { thread, join: Some(join), is_gone: false });
        Ok(())
    }

    /// Spawns the supervisor's own thread.
    pub(crate) fn spawn_supervisor(self: &Arc<Self>, name: String, main: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let lineage = self.lineage.clone();
        self.spawn(name, None, None, move |_| lineage.supervise(main))
    }

    /// Sees to it that a thread waits for the word to go.
    pub(crate) fn provide(self: &Arc<Self>, post: &Arc<Post>) -> Result<(), Failure> {
        if post.desk.lock().words.is_some() {
            return Ok(());
        }
        let (words, inbox) = bounded(1);
        let its = post.clone();
        self.spawn(post.link.id.as_str().to_owned(), post.stack_size, Some(post.clone()), move |thread| {
            work(thread, &its, &inbox)
        })
        .map_err(|error| Failure::new(&error.to_string(), Arc::new(error)))?;
        post.desk.lock().words = Some(words);
        Ok(())
    }

    /// Tells the present run of a child to stop. Its callbacks are called on a thread of their own.
    ///
    /// # Errors
    ///
    /// If there is no thread for the callbacks; then [`call_back`](Crew::call_back) is to be tried again.
    pub(crate) fn stop(self: &Arc<Self>, post: &Arc<Post>, now: Instant) -> io::Result<()> {
        let context = {
            let mut desk = post.desk.lock();
            desk.told_at.get_or_insert(now);
            desk.context.clone()
        };
        if let Some(context) = context {
            context.signal().tell();
        }
        self.call_back(post)
    }

    /// Has the callbacks of a run that was told to stop called, if that is yet to be done.
    pub(crate) fn call_back(self: &Arc<Self>, post: &Arc<Post>) -> io::Result<()> {
        let Some(context) = post.context().filter(|context| context.signal().needs_caller()) else { return Ok(()) };
        self.spawn(format!("{}:stop", post.link.id.as_str()), None, Some(post.clone()), move |thread| {
            thread.enter(Phase::Running);
            if let Ok(panic) = context.signal().call_all() {
                context.callback_returned(panic);
            }
        })
    }

    /// Ends the thread that waits for a word. The body is dropped with it unless it is kept, on a thread of its own if it has
    /// none.
    ///
    /// # Errors
    ///
    /// If there is no thread to drop it on; then this is to be tried again.
    pub(crate) fn retire(self: &Arc<Self>, post: &Arc<Post>, keep_body: bool) -> io::Result<()> {
        if post.leave(keep_body) || keep_body || !post.holds_body() {
            return Ok(());
        }
        let its = post.clone();
        self.spawn(format!("{}:drop", post.link.id.as_str()), None, Some(post.clone()), move |thread| drop_body(thread, &its))
    }

    // ── Ending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Takes everything out of the hands of a supervisor thread that does not come back: every run is told to stop, every
    /// thread to leave, and no run is let go any more.
    pub(crate) fn seize(self: &Arc<Self>, now: Instant) {
        for post in self.posts() {
            post.seal();
            // Without a thread for them, callbacks are not called and bodies not dropped: whoever seizes does not retry.
            let _ = self.stop(&post, now);
            let _ = self.retire(&post, false);
        }
    }

    /// The children that have a thread, the last first.
    fn posts(&self) -> Vec<Arc<Post>> {
        let mut posts: Vec<_> = self.roll.lock().threads.values().filter_map(|entry| entry.thread.post.clone()).collect();
        posts.sort_by_key(|post| std::cmp::Reverse(post.link.key));
        posts.dedup_by_key(|post| post.link.key);
        posts
    }

    fn is_gone(&self, thread: &Thread) {
        let mut roll = self.roll.lock();
        let detached = match roll.threads.get_mut(&thread.number) {
            // Nobody joins one that was let go.
            Some(entry) if entry.join.is_none() => roll.threads.remove(&thread.number),
            Some(entry) => {
                entry.is_gone = true;
                None
            }
            None => None,
        };
        drop(roll);
        drop(detached);
        self.left.notify_all();
        if let Some(post) = &thread.post {
            let _ = post.link.handle.shared().tell(Message::ThreadGone(thread.number));
        }
    }

    /// Joins a thread that has said that it is gone.
    pub(crate) fn reap(&self, number: ThreadNumber) {
        let entry = self.roll.lock().threads.remove(&number);
        if let Some(join) = entry.and_then(|entry| entry.join) {
            // No result: user code runs under a guard.
            let _ = join.join();
        }
    }

    /// Joins all threads that have said that they are gone.
    fn reap_all(&self) {
        let gone: Vec<_> =
            self.roll.lock().threads.iter().filter(|(_, entry)| entry.is_gone).map(|(number, _)| *number).collect();
        for number in gone {
            self.reap(number);
        }
    }

    /// A thread of a child that is not gone, of those with the longest stop timeout.
    pub(crate) fn most_patient(&self) -> Option<(ThreadNumber, Duration)> {
        let roll = self.roll.lock();
        let alive = roll.threads.values().filter(|entry| !entry.is_gone);
        let patience = |entry: &Entry| Some((entry.thread.number, entry.thread.post.as_ref()?.stop_timeout));
        alive.filter_map(patience).min_by_key(|(_, timeout)| std::cmp::Reverse(*timeout))
    }

    pub(crate) fn is_alive(&self, number: ThreadNumber) -> bool {
        self.roll.lock().threads.get(&number).is_some_and(|entry| !entry.is_gone)
    }

    /// The children of which a thread is alive, in list order. Those that had no run to be told to stop were told `since`.
    pub(crate) fn unstopped(&self, now: Instant, since: Instant) -> Vec<Unstopped> {
        let roll = self.roll.lock();
        let mut children: BTreeMap<Key, Unstopped> = BTreeMap::new();
        for entry in roll.threads.values().filter(|entry| !entry.is_gone) {
            let Some(post) = &entry.thread.post else { continue };
            let phase = entry.thread.phase();
            let told_at = post.desk.lock().told_at;
            let child = children.entry(post.link.key).or_insert_with(|| Unstopped {
                id: post.link.id.clone(),
                run: post.run.load(Ordering::Relaxed),
                stopping_for: now.saturating_duration_since(told_at.unwrap_or(since)),
                phase,
            });
            child.phase = child.phase.min(phase);
        }
        children.into_values().collect()
    }

    /// Lets go of all threads, and spawns no more: those that are gone are joined, the others detached. These stay on the
    /// roll until they are gone: whoever looks later, such as a supervisor thread that was stuck, names them too.
    pub(crate) fn dismiss(&self) {
        self.roll.lock().sealed = true;
        self.reap_all();
        // A run that ends only now finds nobody to tell its thread what to do next.
        for post in self.posts() {
            post.seal();
            post.leave(false);
        }
        let mut roll = self.roll.lock();
        let alive = roll.threads.values_mut().filter(|entry| !entry.is_gone && entry.thread.post.is_some());
        let detached: Vec<_> = alive.filter_map(|entry| entry.join.take()).collect();
        drop(roll);
        drop(detached);
    }

    /// Waits until the threads of all children are gone, and joins them.
    pub(crate) fn join_all(&self) {
        let mut roll = self.roll.lock();
        while roll.threads.values().any(|entry| !entry.is_gone && entry.thread.post.is_some()) {
            self.left.wait(&mut roll);
        }
        drop(roll);
        self.reap_all();
    }

    /// Waits until the supervisor's own thread is gone too, and joins it.
    pub(crate) fn join_supervisor(&self, deadline: Instant) {
        let mut roll = self.roll.lock();
        while roll.threads.values().any(|entry| !entry.is_gone && entry.thread.post.is_none()) {
            if self.left.wait_until(&mut roll, deadline).timed_out() {
                return;
            }
        }
        drop(roll);
        self.reap_all();
    }
}

/// The life of a child's thread: it waits for the word, runs the body, puts it back, says how that went, and waits again.
fn work(thread: &Thread, post: &Arc<Post>, words: &Receiver<Word>) {
    while let Ok(word) = words.recv() {
        match word {
            Word::Run(context) => {
                if !run(thread, post, context) {
                    break;
                }
            }
            Word::Leave { keep_body } => {
                if !keep_body {
                    drop_body(thread, post);
                }
                break;
            }
        }
    }
    // It may have become the last run when that had just ended.
    if post.last_run.load(Ordering::Acquire) {
        drop_body(thread, post);
    }
}

/// Runs the body once. Returns whether the thread stays for another run.
fn run(thread: &Thread, post: &Arc<Post>, context: ChildContext) -> bool {
    let Some(mut body) = post.slot.lock().take() else { return true };
    thread.enter(Phase::Running);
    context.begin();
    let outcome = unwind::catch_both(|| body(&context));
    #[expect(clippy::disallowed_methods, reason = "only the thread itself knows when the body ended")]
    let at = Instant::now();
    let (exit, display_panic, mut drop_panic) = reduce(outcome);
    drop_panic = drop_panic.or(context.signal().end());
    let number = context.run_number();
    drop(context);
    let is_last = post.last_run.load(Ordering::Acquire);
    {
        let mut desk = post.desk.lock();
        desk.context = None;
        if !is_last {
            // It has done what it was told; what its thread is told later is another matter.
            desk.told_at = None;
        }
    }
    if is_last {
        thread.enter(Phase::Dropping);
        drop_panic = drop_panic.or(unwind::discard(body).err());
    } else {
        *post.slot.lock() = Some(body);
    }
    thread.enter(Phase::Waiting);
    let end = RunEnd { key: post.link.key, run: number, exit, at, display_panic, drop_panic };
    tell(post, Message::Exit(Box::new(end)));
    !is_last && !post.fresh_thread
}

/// Makes data of what came out of a body. Returns the panics of the error's `Display` and of a payload's `Drop` too.
fn reduce(outcome: Result<crate::exit::ChildResult, (Panic, Option<Panic>)>) -> (Exit, Option<Panic>, Option<Panic>) {
    match outcome {
        Ok(Ok(())) => (Exit::Completed, None, None),
        Ok(Err(error)) => {
            let error: Arc<dyn Error + Send + Sync> = Arc::from(error);
            match unwind::catch(|| error.to_string()) {
                Ok(message) => (Exit::Failed(Failure::new(&message, error)), None, None),
                Err(panic) => (Exit::Failed(Failure::new("an error whose `Display` panicked", error)), Some(panic), None),
            }
        }
        Err((panic, drop_panic)) => (Exit::Panicked(panic), None, drop_panic),
    }
}

fn drop_body(thread: &Thread, post: &Arc<Post>) {
    let Some(body) = post.slot.lock().take() else { return };
    thread.enter(Phase::Dropping);
    if let Err(panic) = unwind::discard(body) {
        let (key, run, callback) = (post.link.key, post.run.load(Ordering::Relaxed), crate::event::Callback::Drop);
        tell(post, Message::Called { key, run, callback, panic: Some(panic) });
    }
}

/// Tells the supervisor. One that has ended does not listen; what it would have been told is dropped here, under a guard.
fn tell(post: &Post, message: Message) {
    let _ = unwind::catch(|| post.link.handle.shared().tell(message).is_ok());
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::{
        handle::Handle,
        id::ChildId,
        shared::{Defaults, Shared},
    };

    const LIMIT: Duration = Duration::from_secs(30);

    /// A child as the supervisor thread has it, without that thread: the test plays its part.
    fn post(body: impl FnMut(&ChildContext) + Send + 'static, fresh_thread: bool) -> (Arc<Crew>, Arc<Post>, Receiver<Message>) {
        let (sender, inbox) = unbounded();
        let defaults = Defaults { healthy_after: LIMIT, stop_timeout: LIMIT };
        let shared = Shared::new("test".into(), None, defaults, sender);
        let crew = Crew::new(shared.number);
        let (id, handle) = (ChildId::from("child"), Handle::new(shared));
        let link = Arc::new(Link { key: Key(0), id, handle, is_watched: false, sinks: Weak::new() });
        let mut body = body;
        let body = Box::new(move |ctx: &ChildContext| {
            body(ctx);
            Ok(())
        });
        (crew, Post::new(link, body, LIMIT, None, fresh_thread), inbox)
    }

    #[test]
    fn body_is_not_taken_from_under_a_word_that_is_yet_to_be_heard() {
        let (crew, post, _inbox) = post(|_| (), false);
        let (words, unheard) = bounded(1);
        post.desk.lock().words = Some(words);
        assert!(post.go(1, 0));
        crew.retire(&post, false).unwrap();
        assert!(post.holds_body() && crew.posts().is_empty(), "the body is left for the run");
        assert!(matches!(unheard.recv(), Ok(Word::Run(_))));
        assert!(unheard.recv().is_err(), "the thread hears no more and leaves");
    }

    #[test]
    fn thread_whose_run_ends_after_its_supervisor_does_not_stay() {
        let (token, dropped) = bounded::<()>(0);
        let (crew, post, inbox) = post(move |_| drop(token.clone()), false);
        crew.provide(&post).unwrap();
        assert!(post.go(1, 0));
        // The end that the supervisor thread is too late to see: it has not said that this was the last run.
        assert!(matches!(inbox.recv_timeout(LIMIT), Ok(Message::Exit(_))));
        crew.dismiss();
        assert!(dropped.recv_timeout(LIMIT).is_err_and(|error| error.is_disconnected()), "the body is dropped");
        assert!(matches!(inbox.recv_timeout(LIMIT), Ok(Message::ThreadGone(_))));
        assert!(!post.go(2, 0), "nothing runs any more");
    }

    #[test]
    fn body_that_found_no_thread_is_dropped_under_a_guard() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("no way to go");
            }
        }
        let bomb = Bomb;
        let (_crew, post, _inbox) = post(
            move |_| {
                let _ = &bomb;
            },
            true,
        );
        drop(post);
    }
}
