//! Specification of a child, which an error gives back if the child was not added.

use std::{
    error::Error,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    backoff::Backoff,
    breaker::Breaker,
    context::ChildContext,
    core::rules::{Defaults, Policy, Rules},
    error::ConfigError,
    exit::ChildResult,
    id::ChildId,
    runtime::breaker_state::BreakerState,
};

/// A child's closure, in the form in which it is kept between its runs.
///
/// Here closes the one circle of imports that no floor plan can open: a body takes a context, the
/// context has a handle, the handle sends specs to the supervisor thread, and a spec holds a body.
/// All files between the face and the shared state lie on it.
pub(crate) type Body = Box<dyn FnMut(&ChildContext) -> ChildResult + Send>;

/// The body of a child, and how to run it.
pub(crate) struct Job {
    pub(crate) body: Body,
    pub(crate) stack_size: Option<usize>,
    pub(crate) fresh_thread: bool,
}

/// When a child that has ended by itself is started again. The names are those of Erlang/OTP; its
/// *temporary* child is [`ChildSpec::once`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RestartPolicy {
    /// Always. Returning `Ok` is a failure too: a consumer that returns does not do its job.
    #[default]
    Permanent,
    /// Only after an error or a panic. After `Ok` it stays in the list as finished.
    Transient,
}

/// Specification of a child: its id, the closure that is its body, and its settings.
///
/// | setting | default |
/// | --- | --- |
/// | [`restart`](ChildSpec::restart) | [`RestartPolicy::Permanent`] |
/// | [`backoff`](ChildSpec::backoff) | the supervisor's |
/// | [`healthy_after`](ChildSpec::healthy_after) | the supervisor's |
/// | [`stop_timeout`](ChildSpec::stop_timeout) | the supervisor's |
/// | [`stack_size`](ChildSpec::stack_size) | that of the standard library |
/// | [`fresh_thread`](ChildSpec::fresh_thread) | `false` |
/// | [`max_restarts`](ChildSpec::max_restarts) | no limit |
/// | [`significant`](ChildSpec::significant) | `false` |
/// | [`watchdog`](ChildSpec::watchdog) | none |
/// | [`abandon_after`](ChildSpec::abandon_after) | never |
/// | [`after`](ChildSpec::after) | nobody |
/// | [`failure_threshold`](ChildSpec::failure_threshold) | 10 |
///
/// A child keeps one thread, on which all its runs follow one another, until it has finished or is
/// given up. What the closure captures, and the thread's thread-local variables, are kept from run
/// to run, also after a panic; make inside the body what each run needs anew.
/// [`fresh_thread`](ChildSpec::fresh_thread) renews the thread.
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::{Backoff, ChildSpec};
/// use std::time::Duration;
///
/// let spec = ChildSpec::new("poller", |ctx| {
///     while !ctx.is_stopping() {
///         // … ask the device …
///         ctx.sleep(Duration::from_secs(1))?;
///     }
///     Ok(())
/// })
/// .backoff(Backoff::constant(Duration::from_secs(5)))
/// .stop_timeout(Duration::from_secs(1));
/// assert_eq!(*spec.id(), "poller");
/// ```
#[must_use = "a child runs only once it is given to a supervisor"]
pub struct ChildSpec {
    pub(crate) id: ChildId,
    pub(crate) body: Body,
    pub(crate) policy: Policy,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) healthy_after: Option<Duration>,
    pub(crate) stop_timeout: Option<Duration>,
    pub(crate) stack_size: Option<usize>,
    pub(crate) fresh_thread: bool,
    pub(crate) max_restarts: Option<u32>,
    pub(crate) significant: bool,
    pub(crate) watchdog: Option<Duration>,
    pub(crate) abandon_after: Option<Duration>,
    pub(crate) after: Vec<ChildId>,
    pub(crate) breaker: Arc<BreakerState>,
}

impl ChildSpec {
    /// Describes a child that runs for as long as its supervisor does.
    ///
    /// The body is run on the child's own thread, again and again, never twice at the same time. An
    /// `Ok`, an error and a panic each trip its breaker; see [`restart`](ChildSpec::restart) for
    /// `Ok`.
    pub fn new<F>(id: impl Into<ChildId>, body: F) -> Self
    where
        F: FnMut(&ChildContext) -> ChildResult + Send + 'static,
    {
        Self::with(id.into(), Box::new(body), Policy::Permanent)
    }

    /// Describes a child that runs once: OTP's *temporary* child.
    ///
    /// It is never restarted, and is gone from the list when its run has ended, for whatever
    /// reason. Until its run starts, it waits like any other child: for its flag, or for a thread.
    ///
    /// ```
    /// use circuit_breaker_supervisor::ChildSpec;
    ///
    /// let receipt = String::from("what an FnOnce may consume");
    /// let spec = ChildSpec::once("job", move |_ctx| {
    ///     drop(receipt);
    ///     Ok(())
    /// });
    /// # let _ = spec;
    /// ```
    #[doc(alias = "temporary")]
    pub fn once<F>(id: impl Into<ChildId>, body: F) -> Self
    where
        F: FnOnce(&ChildContext) -> ChildResult + Send + 'static,
    {
        let mut body = Some(body);
        let body = move |ctx: &ChildContext| match body.take() {
            Some(body) => body(ctx),
            None => Ok(()),
        };
        Self::with(id.into(), Box::new(body), Policy::Temporary)
    }

    fn with(id: ChildId, body: Body, policy: Policy) -> Self {
        Self {
            breaker: BreakerState::new(id.clone()),
            id,
            body,
            policy,
            backoff: None,
            healthy_after: None,
            stop_timeout: None,
            stack_size: None,
            fresh_thread: false,
            max_restarts: None,
            significant: false,
            watchdog: None,
            abandon_after: None,
            after: Vec::new(),
        }
    }

    /// Checks the settings, except whether the id is taken.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let id = &self.id;
        if self.watchdog.is_some_and(|limit| limit.is_zero()) {
            Err(ConfigError::ZeroWatchdog(id.clone()))
        } else if self.abandon_after.is_some_and(|limit| limit.is_zero()) {
            Err(ConfigError::ZeroAbandonAfter(id.clone()))
        } else if self.breaker.threshold() == 0 {
            Err(ConfigError::ZeroFailureThreshold(id.clone()))
        } else if id.is_empty() {
            Err(ConfigError::EmptyId)
        } else if id.contains('\0') {
            Err(ConfigError::NulInId(id.clone()))
        } else if id.contains('/') {
            Err(ConfigError::SlashInId(id.clone()))
        } else {
            Ok(())
        }
    }

    /// Completes the settings with the defaults of a supervisor.
    pub(crate) fn rules(&self, defaults: Defaults) -> Rules {
        Rules {
            policy: self.policy,
            healthy_after: self.healthy_after.unwrap_or(defaults.healthy_after),
            stop_timeout: self.stop_timeout.unwrap_or(defaults.stop_timeout),
            max_restarts: self.max_restarts,
            significant: self.significant,
            watchdog: self.watchdog,
            abandon_after: self.abandon_after,
        }
    }

    /// Seeds the child's own backoff. The seed depends on the id, so that children still differ.
    pub(crate) fn be_repeatable(&mut self, seed: u64) {
        if let Some(backoff) = &mut self.backoff {
            let mut hasher = DefaultHasher::new();
            (seed, &self.id).hash(&mut hasher);
            backoff.be_repeatable(hasher.finish());
        }
    }

    /// Returns the child's id.
    pub fn id(&self) -> &ChildId {
        &self.id
    }

    /// Returns the breaker by which others call this child: hand it out before you give the child
    /// to a supervisor.
    pub fn breaker(&self) -> Breaker {
        Breaker::new(self.breaker.clone())
    }

    /// Sets how many failures, reported by callers in a row with no success between them and all
    /// about the same run, trip the child while it is closed; 10 unless set. While it is half-open,
    /// one failure does.
    ///
    /// Zero is an error at the start, or as the child is added. More than 4 194 304 is never
    /// reached.
    ///
    /// ```
    /// # use circuit_breaker_supervisor::{ChildSpec, Supervisor, StopCause};
    /// # use std::time::Duration;
    /// let store =
    ///     ChildSpec::new("store", |ctx| ctx.wait_until_stopped()).failure_threshold(2);
    /// let breaker = store.breaker();
    /// let supervisor = Supervisor::builder().child(store).start()?;
    /// breaker.report_failure("timed out");
    /// assert!(breaker.is_call_permitted());
    /// breaker.report_failure("timed out");
    /// assert!(!breaker.is_call_permitted());
    /// let store =
    ///     supervisor.handle().wait_for("store", Duration::from_secs(10), |store| {
    ///         store.last_stop.is_some()
    ///     })?;
    /// assert_eq!(store.last_stop.map(|stop| stop.cause), Some(StopCause::Tripped));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn failure_threshold(self, n: u32) -> Self {
        self.breaker.set_threshold(n);
        self
    }

    /// Sets when the child is started again after it has ended by itself. A
    /// [`once`](ChildSpec::once) child still runs only once.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, ChildStatus, RestartPolicy, Supervisor};
    /// use std::time::Duration;
    ///
    /// let migration =
    ///     ChildSpec::new("migration", |_ctx| Ok(())).restart(RestartPolicy::Transient);
    /// let supervisor = Supervisor::builder().child(migration).start()?;
    /// supervisor.handle().wait_for("migration", Duration::from_secs(10), |child| {
    ///     child.status == ChildStatus::Finished
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.policy = match (self.policy, policy) {
            (Policy::Temporary, _) => Policy::Temporary,
            (_, RestartPolicy::Permanent) => Policy::Permanent,
            (_, RestartPolicy::Transient) => Policy::Transient,
        };
        self
    }

    /// Gives the child a backoff of its own.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// Sets how long a run must last to be trusted: then the child's failures are forgiven.
    ///
    /// With zero every run counts as healthy, so that the backoff never grows; [`Duration::MAX`]
    /// leaves it to [`mark_healthy`](ChildContext::mark_healthy), by which a run may say sooner
    /// that it can be trusted.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, ChildStatus, Supervisor};
    /// use std::time::Duration;
    ///
    /// let supervisor = Supervisor::builder()
    ///     .child(
    ///         ChildSpec::new("sensor", |ctx| ctx.wait_until_stopped())
    ///             .healthy_after(Duration::from_millis(20)),
    ///     )
    ///     .start()?;
    /// let limit = Duration::from_secs(10);
    /// let sensor = supervisor
    ///     .handle()
    ///     .wait_for("sensor", limit, |sensor| sensor.status == ChildStatus::Healthy)?;
    /// assert!(sensor.uptime >= Some(Duration::from_millis(20)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn healthy_after(mut self, uptime: Duration) -> Self {
        self.healthy_after = Some(uptime);
        self
    }

    /// Sets how long the child may take to stop. After that it is reported as overdue, and a
    /// shutdown no longer waits for it.
    ///
    /// A shutdown gives every child this time anew, counted from when it asks the child to stop: at
    /// its start, or when those that come [`after`](ChildSpec::after) it have ended or had their
    /// time. With zero the child is reported as soon as it is asked to stop, and no shutdown waits
    /// for it; with [`Duration::MAX`] a shutdown waits without end.
    #[doc(alias = "TimeoutStopSec")]
    pub fn stop_timeout(mut self, limit: Duration) -> Self {
        self.stop_timeout = Some(limit);
        self
    }

    /// Sets the stack size of the child's thread, in bytes.
    ///
    /// With less than 64 KiB a panic that prints a backtrace may overflow the stack, which ends the
    /// process. With a size that the system cannot provide, the start fails with the operating
    /// system's error, and is tried again after a backoff.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    ///
    /// // A thousand children that need little, in 250 MiB of addresses rather than 2 GiB.
    /// let children = (0..1000).map(|number| {
    ///     ChildSpec::new(format!("meter-{number}"), |ctx| ctx.wait_until_stopped())
    ///         .stack_size(256 * 1024)
    /// });
    /// # let children = children.take(3);
    /// let supervisor = Supervisor::builder().children(children).start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Sets whether every run gets a new thread instead of the child's warm one.
    ///
    /// This is for bodies that change their thread: affinity, signal mask, priority, a C library's
    /// per-thread state. It makes restarts slower, and they fail if no thread can be spawned. The
    /// next thread may start while the last destructors of the old one's thread-local variables
    /// still run. While eight threads of a child have not ended, it gets no further one: that is a
    /// failed start, as when no thread can be spawned.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    /// use std::cell::Cell;
    ///
    /// thread_local!(static USED: Cell<bool> = const { Cell::new(false) });
    ///
    /// let (uses, used) = crossbeam_channel::unbounded();
    /// let supervisor = Supervisor::builder()
    ///     .child(ChildSpec::new("driver", move |ctx| {
    ///         ctx.send(&uses, USED.replace(true))?;
    ///         ctx.wait_until_stopped()
    ///     })
    ///     .fresh_thread(true))
    ///     .start()?;
    /// assert!(!used.recv()?);
    /// supervisor.handle().restart("driver")?;
    /// assert!(!used.recv()?); // without a fresh thread it would be `true`
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fresh_thread(mut self, fresh: bool) -> Self {
        self.fresh_thread = fresh;
        self
    }

    /// Limits how often the child is restarted in a row without becoming healthy in between. A run
    /// that marks itself healthy, and is shorter than the backoff before it, does not count; see
    /// [`mark_healthy`](ChildContext::mark_healthy).
    ///
    /// After `n` such restarts, the next failure gives the child up: it is reported as
    /// [`GaveUp`](crate::EventKind::GaveUp), the backoff is not called, and the child stays down
    /// until [`reset`](crate::Handle::reset) or [`restart`](crate::Handle::restart) by hand. Zero
    /// gives up at the first failure. A start for which no thread could be spawned is a failure,
    /// too. A [`once`](ChildSpec::once) child, which is never restarted, is never given up.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{Backoff, ChildInfo, ChildSpec, ChildStatus, Supervisor};
    /// use std::time::Duration;
    ///
    /// let supervisor = Supervisor::builder()
    ///     .backoff(Backoff::constant(Duration::from_millis(1)))
    ///     .child(ChildSpec::new("probe", |_| Err("no answer".into())).max_restarts(2))
    ///     .start()?;
    /// let limit = Duration::from_secs(10);
    /// let gave_up = |probe: &ChildInfo| probe.status == ChildStatus::GaveUp;
    /// let probe = supervisor.handle().wait_for("probe", limit, gave_up)?;
    /// // The first run, and two restarts.
    /// assert_eq!((probe.run, probe.failures), (3, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "intensity")]
    pub fn max_restarts(mut self, n: u32) -> Self {
        self.max_restarts = Some(n);
        self
    }

    /// Sets a watchdog for a child that sends heartbeats: if it is silent for longer than `limit`,
    /// it is asked to stop, with the cause [`Hung`](crate::StopCause::Hung), and the end of that
    /// run is a failure.
    ///
    /// The watch begins with the first [`heartbeat`](ChildContext::heartbeat) of a run, so that a
    /// slow start is no hang. A silence is noticed when it has lasted for between one and one and a
    /// quarter of `limit` (and 1 ms), unless a callback holds the supervisor thread. If the whole
    /// process or machine stood still, the supervisor was late too, and the time that it did not
    /// see does not count. A child that does not stop when asked is reported as overdue and blocks
    /// only itself, unless it may be [abandoned](ChildSpec::abandon_after).
    ///
    /// Zero is an error at the start, or as the child is added; [`Duration::MAX`] is no watch. The
    /// idea is that of hardware watchdogs, and of the watchdog of systemd's services.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::ChildSpec;
    /// use std::time::Duration;
    ///
    /// let spec = ChildSpec::new("reader", |ctx| {
    ///     while !ctx.is_stopping() {
    ///         ctx.heartbeat("reading");
    ///         // … read from the device …
    ///         ctx.heartbeat("writing");
    ///         // … write to the database …
    ///     }
    ///     Ok(())
    /// })
    /// .watchdog(Duration::from_secs(30));
    /// # let _ = spec;
    /// ```
    #[doc(alias = "WatchdogSec")]
    pub fn watchdog(mut self, limit: Duration) -> Self {
        self.watchdog = Some(limit);
        self
    }

    /// Has the outermost supervisor shut down if the child has not stopped within `limit` of a stop
    /// request, whoever made it. By default no child does that.
    ///
    /// A thread cannot be killed: one that never stops keeps its child down for ever, with all that
    /// it holds. Where the program can do nothing without that child, only a new process helps.
    /// The child is reported as [`Abandoned`](crate::EventKind::Abandoned), once; all children are
    /// shut down as usual, each with its stop timeout, the abandoned one, too; and
    /// [`ShutdownReport::cause`](crate::ShutdownReport::cause) names it. Return that report from
    /// `main`, so that the process ends with an exit code of 1, and have it started anew by its own
    /// supervisor, such as systemd.
    ///
    /// A nested supervisor cannot end by itself, since a body cannot return while threads below it
    /// live: so the outermost one is shut down. If that shuts down already, nothing happens. As
    /// with the [`watchdog`](ChildSpec::watchdog), of a time for which the whole process or machine
    /// stood still, a quarter of the limit counts at most.
    ///
    /// Zero is an error at the start, or as the child is added; [`Duration::MAX`] is never. For the
    /// steps before and after this one, see [*Threads that do not stop*](crate::stuck_threads).
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, ShutdownCause, Supervisor};
    /// use std::time::Duration;
    ///
    /// let (gate, closed) = crossbeam_channel::bounded::<()>(0);
    /// let supervisor = Supervisor::builder()
    ///     .stop_timeout(Duration::from_millis(10))
    ///     .child(
    ///         // It looks at nothing but its channel.
    ///         ChildSpec::new("deaf", move |_ctx| Ok(closed.recv()?))
    ///             .abandon_after(Duration::from_millis(50)),
    ///     )
    ///     .start()?;
    /// supervisor.handle().restart("deaf")?;
    /// let report = supervisor.wait();
    /// assert!(matches!(&report.cause, ShutdownCause::Abandoned(child) if child.id == "deaf"));
    /// # drop(gate);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn abandon_after(mut self, limit: Duration) -> Self {
        self.abandon_after = Some(limit);
        self
    }

    /// Sets whether giving up this child shuts the whole supervisor down. The name is OTP's.
    ///
    /// [`ShutdownReport::cause`](crate::ShutdownReport::cause) then names the child and its last
    /// exit. A child is given up after its [`max_restarts`](ChildSpec::max_restarts), or when its
    /// body says so by [`Verdict::give_up`](crate::Verdict::give_up); a [`once`](ChildSpec::once)
    /// child never is. So a job that must succeed for the rest to make sense is a
    /// [transient](RestartPolicy::Transient) child with `max_restarts(0)`.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, ShutdownCause, Supervisor};
    ///
    /// let supervisor = Supervisor::builder()
    ///     .child(
    ///         ChildSpec::new("licence", |_| Err("expired".into()))
    ///             .max_restarts(0)
    ///             .significant(true),
    ///     )
    ///     .start()?;
    /// let report = supervisor.wait();
    /// assert!(matches!(&report.cause, ShutdownCause::GaveUp(child) if child.id == "licence"));
    /// let text = report.to_string();
    /// assert!(text.starts_with("shut down because child `licence` was given up: it failed"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn significant(mut self, significant: bool) -> Self {
        self.significant = significant;
        self
    }

    /// Has the child start only while another child of the same supervisor is ready: a permanent
    /// one when it is [`Healthy`](crate::ChildStatus::Healthy), a
    /// [transient](RestartPolicy::Transient) one, such as a migration, when it is
    /// [`Finished`](crate::ChildStatus::Finished). Call it several times for several children.
    ///
    /// - Until then the child is [`Waiting`](crate::ChildStatus::Waiting), which is no failure; its
    ///   [`ChildInfo`](crate::ChildInfo) and an event say for whom, and why that one is not ready.
    /// - When the last of those it waits for becomes ready, the child's own backoff ends, and it is
    ///   started. Its [`failures`](crate::ChildInfo::failures) stay; a wait that a
    ///   [`Verdict`](crate::Verdict) demands goes on, and so does a backoff without end.
    /// - This holds for every start, those by hand included. A running child is not stopped when
    ///   the other one fails. For children that are to fall together, see
    ///   [*Children that depend on one another*](crate::dependencies).
    /// - A shutdown asks the other child to stop when this one has ended, or has had its
    ///   [`stop_timeout`](ChildSpec::stop_timeout).
    /// - A child that is removed is still waited for, and counts again once one of that id is
    ///   added.
    ///
    /// A permanent child that never calls [`mark_healthy`](ChildContext::mark_healthy) is ready
    /// after its [`healthy_after`](ChildSpec::healthy_after), one minute by default: so even one
    /// that hangs as it connects. With [`Duration::MAX`] only its own word counts. A child that
    /// runs a nested supervisor is ready when all below it is well.
    ///
    /// An id that its own supervisor does not list, the id of a [`once`](ChildSpec::once) child,
    /// and a circle are errors at the start, or as a child is added.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, ChildStatus, RestartPolicy, Supervisor};
    /// use std::time::Duration;
    ///
    /// let supervisor = Supervisor::builder()
    ///     .child(ChildSpec::new("migration", |_ctx| Ok(())).restart(RestartPolicy::Transient))
    ///     .child(
    ///         ChildSpec::new("db", |ctx| {
    ///             // … connect …
    ///             ctx.mark_healthy();
    ///             ctx.wait_until_stopped()
    ///         })
    ///         .after("migration"),
    ///     )
    ///     .child(ChildSpec::new("orders", |ctx| ctx.wait_until_stopped()).after("db"))
    ///     .start()?;
    /// let handle = supervisor.handle();
    /// handle.wait_for("orders", Duration::from_secs(10), |orders| orders.is_running())?;
    /// let migration = handle.child("migration").ok_or("not listed")?;
    /// assert_eq!(migration.status, ChildStatus::Finished);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "depends_on")]
    pub fn after(mut self, id: impl Into<ChildId>) -> Self {
        let id = id.into();
        if !self.after.contains(&id) {
            self.after.push(id);
        }
        self
    }
}

/// Checks what a child comes after; `policy` is that one's, `None` if it is not listed.
pub(crate) fn check_dependency(
    child: &ChildId,
    after: &ChildId,
    policy: Option<Policy>,
) -> Result<(), ConfigError> {
    let (child, after) = (child.clone(), after.clone());
    match policy {
        Some(Policy::Permanent | Policy::Transient) => Ok(()),
        Some(Policy::Temporary) => Err(ConfigError::AfterOnce { child, after }),
        None => Err(ConfigError::UnknownAfter { child, after }),
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            body: _,
            policy,
            backoff,
            healthy_after,
            stop_timeout,
            stack_size,
            fresh_thread,
            max_restarts,
            significant,
            watchdog,
            abandon_after,
            after,
            breaker,
        } = self;
        f.debug_struct("ChildSpec")
            .field("id", id)
            .field("restart", policy)
            .field("backoff", backoff)
            .field("healthy_after", healthy_after)
            .field("stop_timeout", stop_timeout)
            .field("stack_size", stack_size)
            .field("fresh_thread", fresh_thread)
            .field("max_restarts", max_restarts)
            .field("significant", significant)
            .field("watchdog", watchdog)
            .field("abandon_after", abandon_after)
            .field("after", after)
            .field("failure_threshold", &breaker.threshold())
            .finish_non_exhaustive()
    }
}

/// Error of a child that was not added; it gives the spec back.
pub struct AddError {
    reason: AddErrorReason,
    spec: Mutex<Box<ChildSpec>>,
}

/// Reason why a child was not added.
#[derive(Debug)]
#[non_exhaustive]
pub enum AddErrorReason {
    /// Its id or one of its settings cannot be used. An id stays taken until the last run of a
    /// removed child has ended.
    Config(ConfigError),
    /// The supervisor shuts down or has ended.
    Ended,
}

impl AddError {
    pub(crate) fn new(reason: AddErrorReason, spec: ChildSpec) -> Self {
        Self { reason, spec: Mutex::new(Box::new(spec)) }
    }

    /// Returns the reason.
    pub fn reason(&self) -> &AddErrorReason {
        &self.reason
    }

    /// Returns the spec, unchanged.
    pub fn into_spec(self) -> ChildSpec {
        *self.spec.into_inner()
    }
}

/// Same text as `Display`, since `main` prints the `Debug` of an error that it returns.
impl fmt::Debug for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            AddErrorReason::Config(invalid) => write!(f, "cannot add the child: {invalid}"),
            AddErrorReason::Ended => {
                f.write_str("cannot add the child: the supervisor shuts down or has ended")
            }
        }
    }
}

/// Its text says the reason, which is therefore no source: code that prints all sources would print
/// it twice.
impl Error for AddError {}
