//! What a child's body is given for one run.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select};

use crate::{
    core::{key::Key, roster::Heartbeats},
    error::{RecvError, SendError, Stopped},
    event::Callback,
    handle::Handle,
    id::ChildId,
    runtime::inbox::Message,
    sync::{
        panic::Panic,
        primitives::{
            Mutex, OnceLock, ThreadId,
            atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
            current,
        },
        stop::StopSignal,
    },
    telemetry::TelemetrySink,
};

/// The hand that a body holds on its own run: whether it is to stop, ways to wait that end at a
/// stop, and ways to be unblocked.
///
/// It is made for one run. It *stops* when the run is told to stop, and when the run ends, however
/// it ends; so helper threads that a body spawns are given a clone, and told to go when the run
/// that they helped has crashed. Clones of an ended run do nothing: they report stopped, and set no
/// callbacks.
///
/// Helper threads are for [`std::thread::spawn`]. A scoped helper ([`std::thread::scope`]) that
/// waits on the context waits for ever if the body panics: the scope waits for the helper, the
/// helper for the end of the run, and the run for the scope.
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
/// use std::time::Duration;
///
/// let (jobs, queue) = crossbeam_channel::unbounded::<u32>();
/// let (results, done) = crossbeam_channel::unbounded();
///
/// let supervisor = Supervisor::builder()
///     .child(ChildSpec::new("doubler", move |ctx| {
///         loop {
///             let job = ctx.recv(&queue)?; // ends at a stop, too
///             ctx.send(&results, job * 2)?;
///             ctx.mark_healthy();
///         }
///     }))
///     .start()?;
///
/// jobs.send(21)?;
/// assert_eq!(done.recv_timeout(Duration::from_secs(10))?, 42);
/// assert!(supervisor.shutdown().is_clean());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It is unwind-safe: a body that is to survive the panic of one order catches it, and goes on to
/// the next.
///
/// ```
/// use circuit_breaker_supervisor::{ChildContext, ChildResult};
/// use crossbeam_channel::Receiver;
/// use std::panic::catch_unwind;
///
/// fn body(ctx: &ChildContext, orders: &Receiver<String>) -> ChildResult {
///     loop {
///         let order = ctx.recv(orders)?;
///         if catch_unwind(|| handle(ctx, &order)).is_err() {
///             println!("skipped {order}");
///         }
///     }
/// }
///
/// fn handle(ctx: &ChildContext, order: &str) {
///     // …
/// #   let _ = (ctx, order);
/// }
/// # let _ = body;
/// ```
#[derive(Clone)]
pub struct ChildContext {
    run: Arc<Run>,
}

/// A child as its runs and its thread know it. It does not lead to the body: clones of a context
/// may outlive everything.
pub(crate) struct Link {
    pub(crate) key: Key,
    pub(crate) id: ChildId,
    pub(crate) handle: Handle,
    /// What its runs say that they are doing, if it has a watchdog.
    pub(crate) activity: Option<Arc<Activity>>,
    /// The sinks of its supervisor, which they do not outlive.
    pub(crate) sinks: Weak<Vec<Arc<dyn TelemetrySink>>>,
}

struct Run {
    link: Arc<Link>,
    number: u64,
    attempt_count: u32,
    /// The child's own, on which the body runs.
    thread: OnceLock<ThreadId>,
    /// It has said that it is healthy: once is enough.
    marked_healthy: AtomicBool,
    /// What became of its stop callbacks so far, as [`Callbacks`] has it.
    callbacks: AtomicU8,
    heart: Heart,
    signal: StopSignal,
}

/// What became of the stop callbacks of a run.
struct Callbacks;

impl Callbacks {
    const NONE: u8 = 0;
    const SUCCEEDED: u8 = 1;
    const PANICKED: u8 = 2;
}

/// What a child said with its last heartbeat, and the run that said so.
#[derive(Default)]
pub(crate) struct Activity(Mutex<(u64, &'static str)>);

impl Activity {
    pub(crate) fn say(&self, run: u64, doing: &'static str) {
        Self::note(&mut self.0.lock(), run, doing);
    }

    fn note(last: &mut (u64, &'static str), run: u64, doing: &'static str) {
        // A helper of an earlier run may still be at it.
        if last.0 <= run {
            *last = (run, doing);
        }
    }

    /// What this run said last, if it is the one that did.
    pub(crate) fn of(&self, run: u64) -> Option<&'static str> {
        let (by, doing) = *self.0.lock();
        (by == run).then_some(doing)
    }
}

/// The heartbeats of a run.
#[derive(Default)]
struct Heart {
    count: AtomicU64,
    /// Tells one text from another without the lock: where it is, mixed with its length.
    mark: AtomicUsize,
}

impl Heart {
    /// Returns whether this was the first. Relaxed is enough: the count tells only that there is
    /// life, and the lock orders the texts.
    fn beat(&self, run: u64, doing: &'static str, activity: &Activity) -> bool {
        let mark = doing.as_ptr().addr() ^ doing.len().rotate_left(usize::BITS / 2);
        if self.mark.load(Ordering::Relaxed) != mark {
            // Both under the lock: the mark of one text beside another would keep the first from
            // ever being seen again.
            let mut last = activity.0.lock();
            Activity::note(&mut last, run, doing);
            self.mark.store(mark, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed) == 0
    }
}

impl Run {
    fn new(link: Arc<Link>, number: u64, attempt_count: u32) -> Self {
        Self {
            link,
            number,
            attempt_count,
            thread: OnceLock::new(),
            marked_healthy: AtomicBool::new(false),
            callbacks: AtomicU8::new(Callbacks::NONE),
            heart: Heart::default(),
            signal: StopSignal::new(),
        }
    }
}

impl ChildContext {
    pub(crate) fn new(link: Arc<Link>, number: u64, attempt_count: u32) -> Self {
        Self { run: Arc::new(Run::new(link, number, attempt_count)) }
    }

    /// Makes the context of the next run of this one, whose run has ended: a new one only if
    /// somebody still has this.
    pub(crate) fn renew(mut self, number: u64, attempt_count: u32) -> Self {
        let link = self.run.link.clone();
        match Arc::get_mut(&mut self.run) {
            Some(run) => {
                *run = Run::new(link, number, attempt_count);
                self
            }
            None => Self::new(link, number, attempt_count),
        }
    }

    /// Returns the child's id.
    pub fn id(&self) -> &ChildId {
        &self.run.link.id
    }

    /// Returns how often the child had failed since it was last healthy when this run began: 0 for
    /// the first run.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{Backoff, ChildSpec, Supervisor};
    /// use std::time::Duration;
    ///
    /// let brokers = ["first.example", "second.example"];
    /// let (choices, chosen) = crossbeam_channel::unbounded();
    /// let supervisor = Supervisor::builder()
    ///     .backoff(Backoff::constant(Duration::ZERO))
    ///     .child(ChildSpec::new("orders", move |ctx| {
    ///         ctx.send(&choices, brokers[ctx.attempt_count() as usize % brokers.len()])?;
    ///         Err("nobody there: the next one, then".into())
    ///     }))
    ///     .start()?;
    /// assert_eq!(
    ///     chosen.iter().take(3).collect::<Vec<_>>(),
    ///     ["first.example", "second.example", "first.example"]
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn attempt_count(&self) -> u32 {
        self.run.attempt_count
    }

    /// Returns the number of this run: how often the child was started, this time and starts that
    /// found no thread included.
    pub fn run_number(&self) -> u64 {
        self.run.number
    }

    /// Returns whether this run is to stop. It costs one atomic load.
    pub fn is_stopping(&self) -> bool {
        self.run.signal.is_stopping()
    }

    /// Returns a channel that never carries a message and is disconnected when this run is to stop,
    /// for `select!`.
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildContext, ChildResult};
    /// use crossbeam_channel::{Receiver, select, tick};
    /// use std::time::Duration;
    ///
    /// fn body(ctx: &ChildContext, orders: &Receiver<String>) -> ChildResult {
    ///     let flush = tick(Duration::from_secs(1));
    ///     loop {
    ///         select! {
    ///             recv(orders) -> order => println!("{}", order?),
    ///             recv(flush) -> _ => println!("flush"),
    ///             recv(ctx.stopped()) -> _ => return Ok(()),
    ///         }
    ///     }
    /// }
    /// # let _ = body;
    /// ```
    pub fn stopped(&self) -> &Receiver<Infallible> {
        self.run.signal.stopped()
    }

    /// Sleeps for `duration`, or until this run is to stop.
    ///
    /// [`Duration::MAX`] sleeps until the stop.
    ///
    /// # Errors
    ///
    /// [`Stopped`] as soon as the run is to stop; at once if it already is.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    /// use std::time::Duration;
    ///
    /// let poller = ChildSpec::new("poller", |ctx| {
    ///     loop {
    ///         println!("polling");
    ///         ctx.sleep(Duration::from_secs(3600))?; // a stop ends it at once
    ///     }
    /// });
    /// let supervisor = Supervisor::builder().child(poller).start()?;
    /// assert!(supervisor.shutdown().is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sleep(&self, duration: Duration) -> Result<(), Stopped> {
        if self.is_stopping() {
            return Err(Stopped);
        }
        match self.stopped().recv_timeout(duration) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(Stopped),
            Ok(never) => match never {},
        }
    }

    /// Receives a message, or ends when this run is to stop.
    ///
    /// # Errors
    ///
    /// [`RecvError::Stopped`] when the run is to stop, also if there is a message: it stays in the
    /// channel. [`RecvError::Disconnected`] when the channel is empty and all its senders are gone.
    pub fn recv<T>(&self, receiver: &Receiver<T>) -> Result<T, RecvError> {
        if self.is_stopping() {
            return Err(RecvError::Stopped);
        }
        select! {
            recv(receiver) -> message => message.map_err(|_| RecvError::Disconnected),
            recv(self.stopped()) -> _ => Err(RecvError::Stopped),
        }
    }

    /// Sends a message, waiting for room, or ends when this run is to stop.
    ///
    /// # Errors
    ///
    /// [`SendError`] gives the message back, when the run is to stop or when all receivers are
    /// gone.
    pub fn send<T>(&self, sender: &Sender<T>, message: T) -> Result<(), SendError<T>> {
        if self.is_stopping() {
            return Err(SendError::stopped(message));
        }
        select! {
            send(sender, message) -> sent => {
                sent.map_err(|error| SendError::disconnected(error.into_inner()))
            }
            recv(self.stopped()) -> _ => Err(SendError::stopped(message)),
        }
    }

    /// Sets what is to be called when this run is told to stop: the way out of a blocking system
    /// call.
    ///
    /// The callbacks of a run are called once, in the order in which they were set, on a
    /// short-lived thread named `<id>:stop`, unless the body has left by itself and taken them back
    /// before their turn; a callback that is set when the stop was already asked for is called at
    /// once, on the caller's thread. What it returns is dropped. At the end of a run nothing is
    /// called.
    ///
    /// Dropping the guard takes the callback back; if it is just being called on another thread,
    /// the drop waits for it. So what the callback uses may be let go after the guard. A callback
    /// that blocks keeps its own child from ending, which is reported as overdue, and delays no
    /// other. A panic in it is contained and reported, the first one of a run. If there is no
    /// thread to be had for the callbacks, it is tried again every 100 ms, until the supervisor has
    /// ended.
    ///
    /// The guard must not be dropped under a lock that the callback takes: each would wait for the
    /// other.
    ///
    /// It is a way out and not a way to clean up: of a body that leaves first, it is not called.
    /// For that there is `Drop`.
    ///
    /// # Examples
    ///
    /// A blocked read is ended by shutting the socket down:
    ///
    /// ```no_run
    /// use circuit_breaker_supervisor::{ChildContext, ChildResult};
    /// use std::{
    ///     io::Read,
    ///     net::{Shutdown, TcpStream},
    /// };
    ///
    /// fn body(ctx: &ChildContext) -> ChildResult {
    ///     let mut stream = TcpStream::connect("127.0.0.1:7000")?;
    ///     let socket = stream.try_clone()?;
    ///     let _unblock = ctx.on_stop(move || socket.shutdown(Shutdown::Both));
    ///     let mut buffer = [0; 512];
    ///     while !ctx.is_stopping() {
    ///         let count = stream.read(&mut buffer)?;
    ///         println!("{count} bytes");
    ///     }
    ///     Ok(())
    /// }
    /// # let _ = body;
    /// ```
    pub fn on_stop<F, R>(&self, callback: F) -> StopGuard<'_>
    where
        F: FnOnce() -> R + Send + 'static,
    {
        let number = match self.run.signal.set(Box::new(move || drop(callback()))) {
            Ok(number) => number,
            Err(callback) => {
                self.callback_returned(self.run.signal.call_now(callback));
                None
            }
        };
        StopGuard { signal: &self.run.signal, number }
    }

    /// Says that this run is doing its job: the child is trusted from now on, and its failures are
    /// forgiven.
    ///
    /// Without it, that takes `healthy_after`. Only the first call of a run does anything; more
    /// cost one atomic load, so it may stand in a loop. In a run that was told to stop it comes too
    /// late.
    ///
    /// A run that fails right after it has said so does not start its backoff anew. If it lasted
    /// for less time than the child had been down before it
    /// ([`retry_in`](crate::EventKind::Stopped), and `healthy_after` at most), the failures that
    /// were forgiven count again, and this one is added to them: so the delays grow, and
    /// [`max_restarts`](crate::ChildSpec::max_restarts) are used up, as if it had said nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, CircuitState, Supervisor};
    /// use std::time::Duration;
    ///
    /// let supervisor = Supervisor::builder()
    ///     .child(ChildSpec::new("orders", |ctx| match ctx.attempt_count() {
    ///         0 => Err("not yet".into()),
    ///         _ => {
    ///             // … connect, and receive a first order …
    ///             ctx.mark_healthy();
    ///             Ok(ctx.sleep(Duration::MAX)?)
    ///         }
    ///     }))
    ///     .start()?;
    /// let orders =
    ///     supervisor.handle().wait_for("orders", Duration::from_secs(10), |orders| {
    ///         orders.run_number == 2 && orders.circuit == CircuitState::Closed
    ///     })?;
    /// assert_eq!(orders.attempt_count, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mark_healthy(&self) {
        if !self.run.marked_healthy.load(Ordering::Relaxed)
            && !self.run.marked_healthy.swap(true, Ordering::Relaxed)
        {
            self.tell(Message::MarkedHealthy { key: self.run.link.key, run: self.run.number });
        }
    }

    /// Gives a sign of life to the child's [watchdog](crate::ChildSpec::watchdog), and says what it
    /// is about to do.
    ///
    /// The text is for the end of a sentence, "silent for 40 s while …": `"reading the port"`.
    ///
    /// Without a watchdog it does nothing. With one it costs an atomic load and an atomic addition,
    /// some nanoseconds, and no look at the clock; where the text is another one than before, or
    /// the machine has no 64-bit atomics, an uncontended lock besides. So it may stand in a hot
    /// loop. Clones of the context, on helper threads, beat for the same run.
    pub fn heartbeat(&self, doing: &'static str) {
        let Some(activity) = &self.run.link.activity else { return };
        if self.run.heart.beat(self.run.number, doing, activity) {
            self.tell(Message::FirstHeartbeat { key: self.run.link.key, run: self.run.number });
        }
    }

    pub(crate) fn heartbeats(&self) -> Heartbeats {
        let doing =
            self.run.link.activity.as_ref().and_then(|activity| activity.of(self.run.number));
        Heartbeats {
            count: self.run.heart.count.load(Ordering::Relaxed),
            doing: doing.unwrap_or_default(),
        }
    }

    /// Returns the handle of the supervisor that runs this child.
    ///
    /// A body that needs its supervisor takes it from here instead of capturing a [`Handle`], which
    /// would keep the supervisor's shared state alive for as long as the body.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    ///
    /// let (results, done) = crossbeam_channel::unbounded();
    /// let dispatcher = ChildSpec::once("dispatcher", move |ctx| {
    ///     for number in 1..=3 {
    ///         let results = results.clone();
    ///         let job = ChildSpec::once(format!("job-{number}"), move |ctx| {
    ///             Ok(ctx.send(&results, number * number)?)
    ///         });
    ///         ctx.supervisor().add(job)?;
    ///     }
    ///     Ok(())
    /// });
    /// let supervisor = Supervisor::builder().child(dispatcher).start()?;
    /// assert_eq!(done.iter().take(3).sum::<u32>(), 14);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn supervisor(&self) -> &Handle {
        &self.run.link.handle
    }

    /// The body begins on this thread.
    pub(crate) fn begin(&self) {
        let _ = self.run.thread.set(current().id());
    }

    /// Whether this is the thread on which the body runs.
    pub(crate) fn is_on_its_thread(&self) -> bool {
        self.run.thread.get() == Some(&current().id())
    }

    pub(crate) fn sinks(&self) -> Option<Arc<Vec<Arc<dyn TelemetrySink>>>> {
        self.run.link.sinks.upgrade()
    }

    pub(crate) fn signal(&self) -> &StopSignal {
        &self.run.signal
    }

    /// Notes that stop callbacks were called. The supervisor is told of the first panic at once,
    /// for the run may never end; that all went well it learns from the end of the run.
    pub(crate) fn callback_returned(&self, panic: Option<Panic>) {
        let callbacks = &self.run.callbacks;
        match panic {
            None if callbacks.load(Ordering::Relaxed) == Callbacks::NONE => {
                let _ = callbacks.compare_exchange(
                    Callbacks::NONE,
                    Callbacks::SUCCEEDED,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
            None => {}
            Some(panic)
                if callbacks.swap(Callbacks::PANICKED, Ordering::Relaxed)
                    != Callbacks::PANICKED =>
            {
                let (key, run, callback) = (self.run.link.key, self.run.number, Callback::OnStop);
                self.tell(Message::CallbackPanicked { key, run, callback, panic });
            }
            Some(_) => {}
        }
    }

    /// Whether stop callbacks were called, and none of them panicked.
    pub(crate) fn callbacks_succeeded(&self) -> bool {
        self.run.callbacks.load(Ordering::Relaxed) == Callbacks::SUCCEEDED
    }

    fn tell(&self, message: Message) {
        // A supervisor that has ended does not listen, and there is nothing left to be told.
        let _ = self.run.link.handle.shared().tell(message);
    }
}

impl fmt::Debug for ChildContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildContext")
            .field("id", self.id())
            .field("run_number", &self.run_number())
            .field("attempt_count", &self.attempt_count())
            .field("is_stopping", &self.is_stopping())
            .finish()
    }
}

/// Keeps an [`on_stop`](ChildContext::on_stop) callback set; dropping it takes the callback back.
///
/// Bind it to a name: `let _ = ctx.on_stop(…)` drops it at once.
#[must_use = "dropping the guard takes the callback back: bind it to a name, as `let _guard =`"]
pub struct StopGuard<'a> {
    signal: &'a StopSignal,
    number: Option<u64>,
}

impl Drop for StopGuard<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.signal.take_back(number);
        }
    }
}

impl fmt::Debug for StopGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopGuard").finish_non_exhaustive()
    }
}
