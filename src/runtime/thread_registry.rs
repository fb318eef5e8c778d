//! Every spawn of a thread, and the live threads of one supervisor until they exit.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use crate::{
    core::key::Key,
    exit::Failure,
    report::{Unstopped, UnstoppedPhase},
    runtime::{
        child_thread::{drop_all, work},
        inbox::Message,
        lineage::Lineage,
        live_threads::{LiveCounts, LiveThreads},
        shared::Shared,
        thread_record::{ThreadNumber, ThreadPhase, ThreadRecord},
        worker::WorkerShared,
        workers::stopping_for,
    },
    sync::{primitives::atomic::Ordering, slot::slot},
};

thread_local! {
    /// Reports the exit of its thread after all other destructors of thread-local variables: it is
    /// set first and dropped last.
    static EXIT_NOTIFIER: RefCell<Option<ExitNotifier>> = const { RefCell::new(None) };
}

/// The number of live threads of one child at which it is given no further one to run on. Its
/// earlier threads may take long to end, if it has fresh threads or is restarted by hand after it
/// was given up; without a bound they could use up all threads of the machine.
const MOST_THREADS: u64 = 8;

/// How many threads a report looks at: with thousands, it would come late.
const MOST_LOOKS: u32 = 256;

/// All threads of one supervisor.
///
/// None of them is ever joined. A join has no timeout, and lasts as long as the destructors of
/// pthread keys, which C libraries set and which run after [`ExitNotifier`] has reported the exit.
/// So the waits here end with that report.
pub(crate) struct ThreadRegistry {
    lineage: Lineage,
    /// Leads to the supervisor thread.
    inbox: Sender<Message>,
    registered: Mutex<Registered>,
    /// Notified when a thread has exited.
    left: Condvar,
}

/// The live threads of a supervisor, and how far it has ended.
///
/// | call | sets | a run in progress | a thread that waits for a command | `spawn` |
/// | --- | --- | --- | --- | --- |
/// | `close` | `closing_since` | goes on | stays | works |
/// | `postpone` | `postponed` | goes on | stays | works |
/// | `end_postponement` | takes that back | goes on | stays | works |
/// | `force_stop_all` | `sealed` of each worker | is requested to stop | leaves | works |
/// | `dismiss` | `sealed`, here and of each worker | goes on | leaves | only to drop values |
///
/// *Each worker* is that of each child with a live thread. Once it is sealed, it gets no start
/// signal, and its thread leaves when the run in progress ends. The flags are independent:
/// `dismiss` may come without `close`, where the supervisor thread never noticed the shutdown.
#[derive(Default)]
struct Registered {
    next: u64,
    threads: BTreeMap<ThreadNumber, Arc<ThreadRecord>>,
    /// The live threads of children.
    alive: LiveCounts,
    /// The supervisor thread waits for all of them since then, and gets a message whenever an exit
    /// changes the longest patience, which bounds that wait.
    closing_since: Option<Instant>,
    /// The children that run, and that the shutdown has not asked to stop yet.
    postponed: BTreeSet<Key>,
    /// No thread is spawned any more, except to drop values.
    sealed: bool,
}

impl Registered {
    fn thread_began(&mut self, thread: &ThreadRecord) {
        if let Some(child) = &thread.child {
            self.alive.add(&child.threads);
        }
    }

    /// Notes that a child was asked to stop so long after the begin of the shutdown; `None` if it
    /// was not yet, since others have to end first.
    fn note_asked(&mut self, key: Key, threads: &LiveThreads, asked_after: Option<Duration>) {
        self.alive.set_asked_after(threads, asked_after);
        if asked_after.is_none() {
            self.postponed.insert(key);
        } else {
            self.postponed.remove(&key);
        }
    }

    /// Returns whether the exit is sent to the supervisor thread.
    fn thread_gone(&mut self, thread: &ThreadRecord) -> bool {
        let Some(child) = &thread.child else { return false };
        let longest = self.alive.longest_patience();
        self.alive.remove(&child.threads);
        self.closing_since.is_some() && self.alive.longest_patience() != longest
    }
}

/// Reports the exit of a thread to the registry when it is dropped.
struct ExitNotifier {
    threads: Arc<ThreadRegistry>,
    thread: Arc<ThreadRecord>,
}

impl Drop for ExitNotifier {
    fn drop(&mut self) {
        self.thread.enter(ThreadPhase::Gone);
        self.threads.thread_gone(&self.thread);
    }
}

impl ThreadRegistry {
    /// Makes the registry of a new supervisor, which is nested in those that the current thread
    /// works for.
    pub(crate) fn new(shared: &Shared) -> Arc<Self> {
        let (lineage, inbox) = (Lineage::of(shared.number), shared.inbox().clone());
        Arc::new(Self { lineage, inbox, registered: Mutex::default(), left: Condvar::new() })
    }

    /// Runs a nested supervisor's loop on the current thread, a child's thread of the outer one.
    pub(crate) fn supervise_here<R>(&self, f: impl FnOnce() -> R) -> R {
        self.lineage.supervise(f)
    }

    // ── Spawning ──

    fn spawn(
        self: &Arc<Self>,
        name: String,
        stack_size: Option<usize>,
        worker: Option<&Arc<WorkerShared>>,
        is_for_drops: bool,
        main: impl FnOnce(&ThreadRecord) + Send + 'static,
    ) -> io::Result<Arc<ThreadRecord>> {
        // Held while the thread is spawned: the thread is registered before it can report its
        // exit. No user code runs under the lock.
        let mut registered = self.registered.lock();
        if registered.sealed && !is_for_drops {
            return Err(io::Error::other("the supervisor has ended"));
        }
        let number = ThreadNumber(registered.next);
        registered.next += 1;
        let thread = Arc::new(ThreadRecord::new(number, worker));
        let (threads, its) = (self.clone(), thread.clone());
        let mut builder = thread::Builder::new().name(name);
        if let Some(bytes) = stack_size {
            builder = builder.stack_size(bytes);
        }
        #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
        builder.spawn(move || {
            EXIT_NOTIFIER.set(Some(ExitNotifier { threads: threads.clone(), thread: its.clone() }));
            threads.lineage.adopt();
            its.note_kernel_thread();
            main(&its);
            its.enter(ThreadPhase::Ending);
        })?;
        registered.thread_began(&thread);
        registered.threads.insert(number, thread.clone());
        Ok(thread)
    }

    /// Spawns the supervisor thread.
    pub(crate) fn spawn_supervisor(
        self: &Arc<Self>,
        name: String,
        main: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let lineage = self.lineage.clone();
        self.spawn(name, None, None, false, move |_| lineage.supervise(main)).map(drop)
    }

    /// Spawns a thread that waits for the start signal, unless there is one.
    pub(crate) fn provide(self: &Arc<Self>, worker: &Arc<WorkerShared>) -> Result<(), Failure> {
        if worker.has_thread() {
            return Ok(());
        }
        if worker.threads.count() >= MOST_THREADS {
            return Err(Failure::new("its earlier threads have not ended".into()));
        }
        let (commands, received) = slot();
        let its = worker.clone();
        let thread = self
            .spawn(
                worker.link.id.as_str().to_owned(),
                worker.stack_size,
                Some(worker),
                false,
                move |thread| work(thread, &its, received),
            )
            .map_err(|error| Failure::new(error.into()))?;
        worker.set_thread(thread, commands);
        Ok(())
    }

    /// Requests the present run of a child to stop, and calls its stop callbacks on a thread of
    /// their own.
    ///
    /// # Errors
    ///
    /// If no thread can be spawned for the callbacks. The request itself is made; the caller tries
    /// [`call_back`](ThreadRegistry::call_back) again.
    pub(crate) fn stop(
        self: &Arc<Self>,
        worker: &Arc<WorkerShared>,
        now: Instant,
    ) -> io::Result<()> {
        worker.request_stop(now);
        self.end_postponement(worker, now);
        self.call_back(worker)
    }

    /// Notes that in a shutdown a child is not asked to stop before others have ended.
    pub(crate) fn postpone(&self, worker: &WorkerShared) {
        self.registered.lock().note_asked(worker.link.key, &worker.threads, None);
    }

    /// Notes that a child was asked to stop, or that its run has ended: from now on its threads
    /// have its stop timeout.
    pub(crate) fn end_postponement(&self, worker: &WorkerShared, now: Instant) {
        let mut registered = self.registered.lock();
        if let (Some(since), None) = (registered.closing_since, worker.threads.asked_after()) {
            let asked_after = Some(now.saturating_duration_since(since));
            registered.note_asked(worker.link.key, &worker.threads, asked_after);
        }
    }

    /// Whether the supervisor thread has asked all children to stop.
    pub(crate) fn has_asked_all(&self) -> bool {
        let registered = self.registered.lock();
        registered.closing_since.is_some() && registered.postponed.is_empty()
    }

    /// Calls the stop callbacks of a run that was requested to stop, on a thread of their own, if
    /// there are any and no thread has begun to call them.
    ///
    /// # Errors
    ///
    /// If no thread can be spawned for them.
    pub(crate) fn call_back(self: &Arc<Self>, worker: &Arc<WorkerShared>) -> io::Result<()> {
        let Some(context) = worker.context().filter(|context| context.signal().needs_caller())
        else {
            return Ok(());
        };
        self.spawn(
            format!("{}:stop", worker.link.id.as_str()),
            None,
            Some(worker),
            false,
            move |thread| {
                thread.enter(ThreadPhase::Running);
                context.signal().call_all(|panic| context.callback_returned(panic));
            },
        )
        .map(drop)
    }

    /// Asks the thread that waits for commands to leave. It drops the child's entrusted values, and
    /// the body unless it is kept. If there is no such thread, and the body is not kept, a new one
    /// drops them.
    ///
    /// # Errors
    ///
    /// If no thread can be spawned to drop them; the caller tries again.
    pub(crate) fn retire(
        self: &Arc<Self>,
        worker: &Arc<WorkerShared>,
        keep_body: bool,
    ) -> io::Result<()> {
        if worker.leave(keep_body) || keep_body || !worker.holds_anything() {
            return Ok(());
        }
        let its = worker.clone();
        self.spawn(
            format!("{}:drop", worker.link.id.as_str()),
            None,
            Some(worker),
            true,
            move |thread| {
                drop_all(thread, &its, false);
            },
        )
        .map(drop)
    }

    // ── Ending ──

    /// Stops all children without the supervisor thread, which is stuck or died: every run is
    /// requested to stop, every child's thread to leave, and no further start signal is sent.
    pub(crate) fn force_stop_all(self: &Arc<Self>, now: Instant) {
        for worker in self.workers() {
            worker.seal();
            // Sealed first: from then on a supervisor thread that returns can start no run behind
            // the stop request. If no thread can be spawned, the callbacks are not called and the
            // body is not dropped: nothing tries again here, unlike in `ThreadWorkers`.
            let _ = self.stop(&worker, now);
            let _ = self.retire(&worker, false);
        }
    }

    /// The workers of all children that have a live thread, in reverse list order.
    fn workers(&self) -> Vec<Arc<WorkerShared>> {
        let mut workers: Vec<_> = self
            .registered
            .lock()
            .threads
            .values()
            .filter_map(|thread| thread.child.as_ref()?.worker.upgrade())
            .collect();
        workers.sort_by_key(|worker| Reverse(worker.link.key));
        workers.dedup_by_key(|worker| worker.link.key);
        workers
    }

    fn thread_gone(&self, thread: &ThreadRecord) {
        let mut registered = self.registered.lock();
        registered.threads.remove(&thread.number);
        let is_reported = registered.thread_gone(thread);
        drop(registered);
        self.left.notify_all();
        if is_reported {
            // Fails if the supervisor thread has ended, which needs no message any more.
            let _ = self.inbox.send(Message::ThreadGone);
        }
    }

    /// Notes that a shutdown has begun, in which the supervisor thread waits for all threads.
    pub(crate) fn close(&self, since: Instant) {
        self.registered.lock().closing_since.get_or_insert(since);
    }

    /// How long a shutdown waits for the threads that are alive, from when it began: the longest
    /// stop timeout, with the time that others had before a child was asked to stop.
    pub(crate) fn longest_patience(&self) -> Option<Duration> {
        self.registered.lock().alive.longest_patience()
    }

    /// The children that have a live thread, in list order. Each was requested to stop at `since`
    /// at the latest, unless the shutdown had it wait for others.
    pub(crate) fn unstopped(&self, now: Instant, since: Instant) -> Vec<Unstopped> {
        // Dropped after the lock is released: one may be the last reference to a user's value.
        let mut kept = Vec::new();
        let registered = self.registered.lock();
        let mut children: BTreeMap<Key, (Unstopped, Arc<ThreadRecord>)> = BTreeMap::new();
        for thread in registered.threads.values() {
            let Some(served) = &thread.child else { continue };
            let worker = served.worker.upgrade();
            let new = || Unstopped {
                id: served.id.clone(),
                run: worker.as_ref().map_or_else(
                    || served.last_run.load(Ordering::Relaxed),
                    |worker| worker.last_run(),
                ),
                stopping_for: {
                    let asked_after = served.threads.asked_after();
                    let asked_at = asked_after.and_then(|after| since.checked_add(after));
                    let requested = worker.as_ref().and_then(|worker| worker.stop_requested_at());
                    stopping_for(now, asked_at.unwrap_or(now), requested)
                },
                phase: UnstoppedPhase::Ending,
                doing: worker.as_ref().and_then(|worker| worker.doing()),
                thread: None,
            };
            let (child, least_advanced) =
                children.entry(served.key).or_insert_with(|| (new(), thread.clone()));
            // Of several, one of an earlier run may not be gone yet.
            let rank = |thread: &ThreadRecord| (thread.unstopped_phase(), Reverse(thread.run()));
            if rank(thread) < rank(least_advanced) {
                *least_advanced = thread.clone();
            }
            child.phase = child.phase.min(thread.unstopped_phase());
            let context = worker.as_ref().and_then(|worker| worker.context());
            if context.as_ref().is_some_and(|context| context.signal().is_calling()) {
                child.phase = UnstoppedPhase::InStopCallback;
            }
            kept.push((worker, context));
        }
        drop(registered);
        let mut looks = 0..MOST_LOOKS;
        let mut look = |thread: &ThreadRecord, run| {
            // One that has had no run drops what the child has left.
            let is_of_run = [0, run].contains(&thread.run());
            looks.next().filter(|_| is_of_run).and_then(|_| thread.look())
        };
        let look = |(child, thread): (Unstopped, Arc<ThreadRecord>)| Unstopped {
            thread: look(&thread, child.run),
            ..child
        };
        children.into_values().map(look).collect()
    }

    /// Asks the children's threads to leave, and spawns no more, except to drop values. Live
    /// threads stay registered until they exit: a later report, such as that of a supervisor thread
    /// that was stuck, names them too.
    pub(crate) fn dismiss(&self) {
        self.registered.lock().sealed = true;
        // Nobody sends a command after the end of a run that still goes on: once its worker is
        // sealed, the thread leaves by itself.
        for worker in self.workers() {
            worker.seal();
            worker.leave(false);
        }
    }

    /// Waits until all threads of children have exited, without a timeout.
    pub(crate) fn wait_for_children(&self) {
        let mut registered = self.registered.lock();
        while !registered.alive.is_empty() {
            self.left.wait(&mut registered);
        }
    }

    /// Waits until the supervisor thread has exited. Returns `false` if the deadline comes first.
    pub(crate) fn wait_for_supervisor(&self, deadline: Option<Instant>) -> bool {
        let mut registered = self.registered.lock();
        while registered.threads.values().any(|thread| thread.child.is_none()) {
            match deadline {
                None => self.left.wait(&mut registered),
                Some(deadline) => {
                    if self.left.wait_until(&mut registered, deadline).timed_out() {
                        return false;
                    }
                }
            }
        }
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Weak;

    use crossbeam_channel::{Receiver, bounded, unbounded};

    use super::*;
    use crate::{
        child::Job,
        context::{ChildContext, Link},
        core::rules::Defaults,
        handle::Handle,
        id::ChildId,
        runtime::worker::Command,
        sync::clock::Clock,
    };

    const LIMIT: Duration = Duration::from_secs(30);

    /// A child's worker without a supervisor thread, whose part the test plays.
    fn worker(
        body: impl FnMut(&ChildContext) + Send + 'static,
        fresh_thread: bool,
    ) -> (Arc<ThreadRegistry>, Arc<WorkerShared>, Receiver<Message>) {
        let (sender, inbox) = unbounded();
        let defaults = Defaults { healthy_after: LIMIT, stop_timeout: LIMIT };
        let shared = Shared::new("test".into(), None, defaults, Clock::System, sender);
        let threads = ThreadRegistry::new(&shared);
        let (id, handle) = (ChildId::from("child"), Handle::new(shared));
        let link = Link {
            key: Key(0),
            id,
            handle,
            activity: None,
            stop_timeout: LIMIT,
            sinks: Weak::new(),
        };
        let mut body = body;
        let body = Box::new(move |ctx: &ChildContext| {
            body(ctx);
            Ok(())
        });
        let job = Job { body, stack_size: None, fresh_thread };
        (threads, WorkerShared::new(link, job), inbox)
    }

    fn record() -> Arc<ThreadRecord> {
        Arc::new(ThreadRecord::new(ThreadNumber(7), None))
    }

    #[test]
    fn body_is_not_taken_from_under_a_start_signal_that_is_on_its_way() {
        let (threads, worker, _inbox) = worker(|_| (), false);
        let (commands, unreceived) = slot();
        worker.set_thread(record(), commands);
        assert!(worker.send_start(1, 0));
        threads.retire(&worker, false).unwrap();
        assert!(
            worker.holds_body() && threads.workers().is_empty(),
            "the body is left for the run"
        );
        assert!(matches!(unreceived.recv(), Ok(Command::Run(_))));
        assert!(unreceived.recv().is_err(), "the thread gets no more and leaves");
    }

    #[test]
    fn thread_that_leaves_late_does_not_take_the_body_of_the_next_run() {
        let (_threads, worker, _inbox) = worker(|_| (), false);
        // The child is restarted by hand after it had been given up. A new thread is about to
        // receive the start signal when a shutdown begins.
        let (commands, _unreceived) = slot();
        worker.set_thread(record(), commands);
        assert!(worker.send_start(2, 0));
        worker.make_final(true);
        let (_, of_old_thread) = slot();
        work(&record(), &worker, of_old_thread);
        assert!(worker.holds_body());
    }

    #[test]
    fn thread_whose_run_ends_after_its_supervisor_does_not_stay() {
        let (token, dropped) = bounded::<()>(0);
        let (threads, worker, inbox) = worker(move |_| drop(token.clone()), false);
        threads.provide(&worker).unwrap();
        assert!(worker.send_start(1, 0));
        // The supervisor thread sees this end too late: it has not made the run the last one.
        assert!(matches!(inbox.recv_timeout(LIMIT), Ok(Message::RunEnded(_))));
        threads.dismiss();
        assert!(
            dropped.recv_timeout(LIMIT).is_err_and(|error| error.is_disconnected()),
            "the body is dropped"
        );
        threads.wait_for_children();
        assert!(!worker.send_start(2, 0), "nothing runs any more");
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
        let (_threads, worker, _inbox) = worker(
            move |_| {
                let _ = &bomb;
            },
            true,
        );
        drop(worker);
    }
}
