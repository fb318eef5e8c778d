//! Context of one run, as a body sees it.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, select};

use crate::{
    core::{key::Key, run::Heartbeats},
    error::{RecvError, RecvTimeoutError, SendError, Stopped},
    event::Callback,
    exit::ChildResult,
    handle::Handle,
    id::ChildId,
    runtime::{
        inbox::Message,
        signs_of_life::{Activity, Heart},
    },
    sync::{
        panic::Panic,
        primitives::{
            OnceLock, ThreadId,
            atomic::{AtomicBool, AtomicU8, Ordering},
            current,
        },
        stop::{StopCallback, StopSignal},
    },
    telemetry::TelemetrySink,
};

/// A callback that repeats leaves the others of its run this much time.
const LEAST_INTERVAL: Duration = Duration::from_millis(1);

/// Context of one run, for its body: whether to stop, ways to wait that end at a stop request, and
/// ways to unblock a system call.
///
/// It is made for one run. It *stops* when the run is asked to stop, and when the run ends, however
/// it ends. So a body gives a clone to each helper thread that it spawns: when the run has crashed,
/// its helpers stop too. Clones of an ended run do nothing: they report stopped, and set no
/// callbacks.
///
/// Spawn helper threads with [`std::thread::spawn`]. A scoped helper ([`std::thread::scope`]) that
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
/// It is unwind-safe: a body that should survive a panic in one order can catch it and continue
/// with the next.
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
    run: Arc<RunState>,
}

/// A child as its runs and its thread know it. It has no reference to the body, since clones of a
/// context may outlive everything.
pub(crate) struct Link {
    pub(crate) key: Key,
    pub(crate) id: ChildId,
    pub(crate) handle: Handle,
    pub(crate) stop_timeout: Duration,
    /// What its runs are doing, by their heartbeats, if it has a watchdog.
    pub(crate) activity: Option<Arc<Activity>>,
    /// The sinks of its supervisor; `Weak`, so that they do not outlive it.
    pub(crate) sinks: Weak<Vec<Arc<dyn TelemetrySink>>>,
}

struct RunState {
    link: Arc<Link>,
    number: u64,
    failures: u32,
    /// The child's own thread, on which the body runs.
    thread: OnceLock<ThreadId>,
    /// Whether this run has marked itself healthy: once is enough.
    marked_healthy: AtomicBool,
    /// The outcome of its stop callbacks so far: one of [`Callbacks`].
    callbacks: AtomicU8,
    heart: Heart,
    signal: StopSignal,
}

/// The outcomes of the stop callbacks of a run.
struct Callbacks;

impl Callbacks {
    const NONE: u8 = 0;
    const SUCCEEDED: u8 = 1;
    const PANICKED: u8 = 2;
}

impl RunState {
    fn new(link: Arc<Link>, number: u64, failures: u32) -> Self {
        Self {
            link,
            number,
            failures,
            thread: OnceLock::new(),
            marked_healthy: AtomicBool::new(false),
            callbacks: AtomicU8::new(Callbacks::NONE),
            heart: Heart::default(),
            signal: StopSignal::new(),
        }
    }
}

impl ChildContext {
    pub(crate) fn new(link: Arc<Link>, number: u64, failures: u32) -> Self {
        Self { run: Arc::new(RunState::new(link, number, failures)) }
    }

    /// Turns this context, whose run has ended, into that of the next run; makes a new one only if
    /// a clone of this one still exists.
    pub(crate) fn renew(mut self, number: u64, failures: u32) -> Self {
        let link = self.run.link.clone();
        match Arc::get_mut(&mut self.run) {
            Some(run) => {
                *run = RunState::new(link, number, failures);
                self
            }
            None => Self::new(link, number, failures),
        }
    }

    /// Returns the child's id.
    pub fn id(&self) -> &ChildId {
        &self.run.link.id
    }

    pub(crate) fn stop_timeout(&self) -> Duration {
        self.run.link.stop_timeout
    }

    pub(crate) fn key(&self) -> Key {
        self.run.link.key
    }

    /// Returns how often the child had failed since it was last healthy when this run started: 0
    /// for the first run.
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
    ///         ctx.send(&choices, brokers[ctx.failures() as usize % brokers.len()])?;
    ///         Err("nobody there: the next one, then".into())
    ///     }))
    ///     .start()?;
    /// assert_eq!(
    ///     chosen.iter().take(3).collect::<Vec<_>>(),
    ///     ["first.example", "second.example", "first.example"]
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "attempt_count")]
    pub fn failures(&self) -> u32 {
        self.run.failures
    }

    /// Returns the number of this run: how often the child was started, this time and starts for
    /// which no thread could be spawned included.
    pub fn run(&self) -> u64 {
        self.run.number
    }

    /// Returns whether this run was asked to stop. It costs one atomic load.
    pub fn is_stopping(&self) -> bool {
        self.run.signal.is_stopping()
    }

    /// Returns a channel for `select!` that never carries a message and is disconnected when this
    /// run is asked to stop.
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

    /// Sleeps for `duration`, or until this run is asked to stop.
    ///
    /// [`Duration::MAX`] sleeps until the stop request.
    ///
    /// # Errors
    ///
    /// [`Stopped`] as soon as the run is asked to stop; at once if it already was.
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
        let _wait = self.wait();
        self.run.signal.sleep(duration);
        if self.is_stopping() { Err(Stopped) } else { Ok(()) }
    }

    /// Waits until this run is asked to stop: for bodies whose work is done by callbacks or by
    /// threads of others. Returns `Ok`, to be the last expression of a body.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    ///
    /// let listener = ChildSpec::new("listener", |ctx| {
    ///     // … subscribe with a guard that unsubscribes as it is dropped …
    ///     ctx.wait_until_stopped()
    /// });
    /// let supervisor = Supervisor::builder().child(listener).start()?;
    /// assert!(supervisor.shutdown().is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_until_stopped(&self) -> ChildResult {
        while self.sleep(Duration::MAX).is_ok() {}
        Ok(())
    }

    /// Receives a message, or returns when this run is asked to stop.
    ///
    /// # Errors
    ///
    /// [`RecvError::Stopped`] when the run is asked to stop, even if there is a message: it stays
    /// in the channel. [`RecvError::Disconnected`] when the channel is empty and all its senders
    /// are gone.
    pub fn recv<T>(&self, receiver: &Receiver<T>) -> Result<T, RecvError> {
        if self.is_stopping() {
            return Err(RecvError::Stopped);
        }
        let _wait = self.wait();
        select! {
            recv(receiver) -> message => message.map_err(|_| RecvError::Disconnected),
            recv(self.stopped()) -> _ => Err(RecvError::Stopped),
        }
    }

    /// Receives a message, or returns when `timeout` is over or this run is asked to stop.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError::Stopped`] when the run is asked to stop, even if there is a message: it
    /// stays in the channel. [`RecvTimeoutError::Timeout`] when there was no message in time.
    /// [`RecvTimeoutError::Disconnected`] when the channel is empty and all its senders are gone.
    ///
    /// # Examples
    ///
    /// A consumer that writes in batches, and what it has after a second without an order:
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildContext, ChildResult, RecvTimeoutError};
    /// use crossbeam_channel::Receiver;
    /// use std::time::Duration;
    ///
    /// // `batch` outlives the run: what could not be written is written by the next one.
    /// fn body(
    ///     ctx: &ChildContext,
    ///     orders: &Receiver<String>,
    ///     batch: &mut Vec<String>,
    /// ) -> ChildResult {
    ///     loop {
    ///         match ctx.recv_timeout(orders, Duration::from_secs(1)) {
    ///             Ok(order) => batch.push(order),
    ///             Err(RecvTimeoutError::Timeout) => write(batch)?,
    ///             Err(RecvTimeoutError::Stopped) => return write(batch),
    ///             Err(error) => return Err(error.into()),
    ///         }
    ///         if batch.len() >= 100 {
    ///             write(batch)?;
    ///         }
    ///     }
    /// }
    ///
    /// fn write(batch: &mut Vec<String>) -> ChildResult {
    ///     // … and only when that has worked:
    ///     batch.clear();
    ///     Ok(())
    /// }
    /// # let _ = body;
    /// ```
    pub fn recv_timeout<T>(
        &self,
        receiver: &Receiver<T>,
        timeout: Duration,
    ) -> Result<T, RecvTimeoutError> {
        if self.is_stopping() {
            return Err(RecvTimeoutError::Stopped);
        }
        let _wait = self.wait();
        select! {
            recv(receiver) -> message => message.map_err(|_| RecvTimeoutError::Disconnected),
            recv(self.stopped()) -> _ => Err(RecvTimeoutError::Stopped),
            default(timeout) => Err(RecvTimeoutError::Timeout),
        }
    }

    /// Sends a message, waiting for room, or returns when this run is asked to stop.
    ///
    /// # Errors
    ///
    /// [`SendError`] gives the message back, when the run is asked to stop or when all receivers
    /// are gone.
    pub fn send<T>(&self, sender: &Sender<T>, message: T) -> Result<(), SendError<T>> {
        if self.is_stopping() {
            return Err(SendError::stopped(message));
        }
        let _wait = self.wait();
        select! {
            send(sender, message) -> sent => {
                sent.map_err(|error| SendError::disconnected(error.into_inner()))
            }
            recv(self.stopped()) -> _ => Err(SendError::stopped(message)),
        }
    }

    /// Sets a callback to be called when this run is asked to stop: the way out of a blocking
    /// system call.
    ///
    /// The callbacks of a run are called once, in the order in which they were set, on a
    /// short-lived thread named `<id>:stop`, unless the body returns first and takes them back
    /// before their turn. A callback that is set after the stop request is called at once, on the
    /// caller's thread. The value that a callback returns is dropped. At the end of a run nothing
    /// is called.
    ///
    /// Dropping the guard takes the callback back; if it is just being called on another thread,
    /// the drop waits for it. So once the guard is dropped, nothing uses what the callback uses. A
    /// callback that blocks keeps its own child from ending, which is reported as overdue, and
    /// delays no other. A panic in it is contained and reported, the first one of a run. If no
    /// thread can be spawned for the callbacks, the spawn is tried again every 100 ms, until the
    /// supervisor has ended.
    ///
    /// The guard must not be dropped under a lock that the callback takes: each would wait for the
    /// other.
    ///
    /// A callback is for unblocking and not for cleaning up: it is not called if the body returns
    /// first. To clean up, use `Drop`.
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
        self.set_callback(StopCallback::once(move || drop(callback())))
    }

    /// Sets a callback to be called when this run is asked to stop, and again after each `interval`
    /// until the run has ended: for what may come too soon to unblock anything, such as cancelling
    /// a query that has not begun yet, a connection to one's own listener, or an `unpark`.
    ///
    /// It is as [`on_stop`](ChildContext::on_stop) otherwise. All callbacks of a run are called one
    /// after another, those that repeat after all others. The interval is counted from the end of a
    /// call, and is at least 1 ms. One that is set after the stop request is called at once, on the
    /// caller's thread, and then again on `<id>:stop`.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    /// use std::{net::{TcpListener, TcpStream}, time::Duration};
    ///
    /// let server = ChildSpec::new("server", |ctx| {
    ///     let listener = TcpListener::bind("127.0.0.1:0")?;
    ///     let address = listener.local_addr()?;
    ///     // One connection might be accepted, and served, before the stop is looked at.
    ///     let _unblock = ctx.on_stop_every(Duration::from_millis(100), move || {
    ///         TcpStream::connect_timeout(&address, Duration::from_millis(100))
    ///     });
    ///     while !ctx.is_stopping() {
    ///         let (_client, _) = listener.accept()?;
    ///         // … serve it …
    ///     }
    ///     Ok(())
    /// });
    /// let supervisor = Supervisor::builder().child(server).start()?;
    /// assert!(supervisor.shutdown().is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_stop_every<F, R>(&self, interval: Duration, mut callback: F) -> StopGuard<'_>
    where
        F: FnMut() -> R + Send + 'static,
    {
        let interval = interval.max(LEAST_INTERVAL);
        self.set_callback(StopCallback::every(interval, move || drop(callback())))
    }

    fn set_callback(&self, callback: StopCallback) -> StopGuard<'_> {
        let signal = &self.run.signal;
        let number = match signal.set(callback) {
            Ok(number) => number,
            Err(mut callback) => {
                self.callback_returned(signal.call_now(&mut callback));
                signal.repeat(callback).map(|(number, is_orphan)| {
                    if is_orphan {
                        self.tell(Message::CallBack { key: self.run.link.key });
                    }
                    number
                })
            }
        };
        StopGuard { signal, number }
    }

    /// Reports that this run is doing its job: from now on the child counts as healthy, and its
    /// failures are forgiven.
    ///
    /// Without this call, the child becomes healthy after `healthy_after`. Only the first call of a
    /// run does anything; further calls cost one atomic load, so it may stand in a loop. After a
    /// stop request it has no effect.
    ///
    /// A run that fails right after this call does not start its backoff anew. If the run lasted
    /// for less time than the child had been down before it
    /// ([`retry_in`](crate::EventKind::Stopped), and `healthy_after` at most), the failures that
    /// were forgiven count again, and this one is added to them: so the delays grow, and
    /// [`max_restarts`](crate::ChildSpec::max_restarts) are used up, as if it had not been called.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, CircuitState, Supervisor};
    /// use std::time::Duration;
    ///
    /// let supervisor = Supervisor::builder()
    ///     .child(ChildSpec::new("orders", |ctx| match ctx.failures() {
    ///         0 => Err("not yet".into()),
    ///         _ => {
    ///             // … connect, and receive a first order …
    ///             ctx.mark_healthy();
    ///             ctx.wait_until_stopped()
    ///         }
    ///     }))
    ///     .start()?;
    /// let orders =
    ///     supervisor.handle().wait_for("orders", Duration::from_secs(10), |orders| {
    ///         orders.run == 2 && orders.circuit == CircuitState::Closed
    ///     })?;
    /// assert_eq!(orders.failures, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mark_healthy(&self) {
        if !self.run.marked_healthy.load(Ordering::Relaxed)
            && !self.run.marked_healthy.swap(true, Ordering::Relaxed)
        {
            self.tell(Message::MarkedHealthy { key: self.run.link.key, run: self.run.number });
        }
    }

    /// Sends a sign of life to the child's [watchdog](crate::ChildSpec::watchdog), with what the
    /// child is about to do.
    ///
    /// The text completes the sentence "silent for 40 s while …": `"reading the port"`.
    ///
    /// While the child's own thread waits by [`recv`](ChildContext::recv),
    /// [`recv_timeout`](ChildContext::recv_timeout), [`send`](ChildContext::send) or
    /// [`sleep`](ChildContext::sleep), no heartbeat is needed: the wait is a sign of life from its
    /// begin to its end, since it would hear of a stop. That holds until another thread has sent a
    /// heartbeat for this run, with a clone of this context: from then on the child is alive by
    /// heartbeats alone. A wait starts no watchdog. A `select!` on
    /// [`stopped`](ChildContext::stopped) is silence; give it an arm with a
    /// [`tick`](crossbeam_channel::tick) in which it sends a heartbeat.
    ///
    /// Without a watchdog it does nothing. With one it costs an atomic load, an atomic addition and
    /// a look at the thread's id, some 20 ns, and does not read the clock. It costs an uncontended
    /// lock besides if the text differs from the one before, or the machine has no 64-bit atomics.
    /// So it may stand in a hot loop. Clones of the context, on helper threads, send heartbeats for
    /// the same run.
    pub fn heartbeat(&self, doing: &'static str) {
        let Some(activity) = &self.run.link.activity else { return };
        let (number, is_own) = (self.run.number, self.is_on_its_thread());
        if self.run.heart.beat(number, is_own, doing, activity) {
            self.tell(Message::FirstHeartbeat { key: self.run.link.key, run: self.run.number });
        }
    }

    pub(crate) fn heartbeats(&self) -> Heartbeats {
        let doing =
            self.run.link.activity.as_ref().and_then(|activity| activity.of(self.run.number));
        self.run.heart.read(doing.unwrap_or_default())
    }

    /// Returns the handle of the supervisor that runs this child.
    ///
    /// A body that needs its supervisor should use this instead of capturing a [`Handle`], which
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

    /// Begins a wait, which is a sign of life of a child with a watchdog if it is on the child's
    /// own thread: there it would hear of a stop.
    fn wait(&self) -> Option<Wait<'_>> {
        let heart = self.run.link.activity.is_some().then_some(&self.run.heart)?;
        (self.is_on_its_thread() && heart.begin_wait()).then(|| Wait(heart))
    }

    /// Records that the body starts on this thread.
    pub(crate) fn note_thread(&self) {
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

    /// Notes that stop callbacks were called. The first panic is reported to the supervisor at
    /// once, since the run may never end; success is reported with the end of the run.
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
        // A supervisor that has ended does not listen, and no longer needs the message.
        let _ = self.run.link.handle.shared().tell(message);
    }
}

impl fmt::Debug for ChildContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildContext")
            .field("id", self.id())
            .field("run", &self.run())
            .field("failures", &self.failures())
            .field("is_stopping", &self.is_stopping())
            .finish()
    }
}

/// A wait by the context, from its begin to its end.
struct Wait<'a>(&'a Heart);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.end_wait();
    }
}

/// Guard of an [`on_stop`](ChildContext::on_stop) callback; dropping it takes the callback back.
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
