//! Builder: the settings of a supervisor, and its start, on a thread of its own or nested.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fmt, io,
    num::NonZeroU32,
    sync::{Arc, Once},
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, bounded, unbounded};
use parking_lot::Mutex;

use crate::{
    backoff::Backoff,
    child::{ChildSpec, check_dependency},
    context::ChildContext,
    core::{dependencies::find_circle, rules::Defaults},
    error::ConfigError,
    event::Event,
    exit::ChildResult,
    handle::Handle,
    id::ChildId,
    report::ShutdownCause,
    runtime::{
        engine::Parts,
        environment::FlagFn,
        inbox::Message,
        main_loop::{Host, MainLoop, supervise},
        pulse::PulseFn,
        shared::{OuterChild, Shared},
        thread_registry::ThreadRegistry,
        tree::ShownBranch,
    },
    supervisor::{LOOK, NestedShutdown, Supervisor},
    sync::{
        clock::{Clock, VirtualTime, system_now},
        deadline, unwind,
    },
    telemetry::{LogSink, OnEvent, TARGET, TelemetrySink},
};

const DEFAULT_NAME: &str = "supervisor";

/// Configuration of a supervisor, from [`Supervisor::builder`].
///
/// | setting | default | of the Elixir package |
/// | --- | --- | --- |
/// | [`name`](SupervisorBuilder::name) | `supervisor`; nested, the id of the child | |
/// | [`poll_interval`](SupervisorBuilder::poll_interval) | 1 s | `poll_interval` |
/// | [`healthy_after`](SupervisorBuilder::healthy_after) | 60 s | `child_startup_time` |
/// | [`stop_timeout`](SupervisorBuilder::stop_timeout) | 5 s | the child spec's `shutdown` |
/// | [`backoff`](SupervisorBuilder::backoff) | doubles from 100 ms to 60 s, jitter 0.1 | `backoff/1` |
/// | [`max_starts_per_second`](SupervisorBuilder::max_starts_per_second) | no limit | |
/// | [`enabled`](SupervisorBuilder::enabled) | every child is enabled, and nothing is polled | `enabled?/1` |
/// | [`pulse`](SupervisorBuilder::pulse) | none | |
/// | [`telemetry`](SupervisorBuilder::telemetry), [`on_event`](SupervisorBuilder::on_event) | [`LogSink`] | `:telemetry` events |
/// | [`child`](SupervisorBuilder::child), [`children`](SupervisorBuilder::children) | none | `children:` of `start_link` |
///
/// `healthy_after`, `stop_timeout` and `backoff` may be set for one child too, by its
/// [`ChildSpec`].
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::{Backoff, ChildSpec, Supervisor};
/// use std::time::Duration;
///
/// let supervisor = Supervisor::builder()
///     .name("ingest")
///     .backoff(Backoff::exponential(Duration::from_millis(10), Duration::from_secs(5)))
///     .healthy_after(Duration::from_secs(30))
///     .children(
///         ["north", "south"]
///             .map(|id| ChildSpec::new(id, |ctx| ctx.wait_until_stopped())),
///     )
///     .start()?;
/// assert_eq!(supervisor.handle().snapshot().counts().running, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing runs before `start`"]
pub struct SupervisorBuilder {
    /// `None` is the default.
    name: Option<String>,
    poll_interval: Duration,
    healthy_after: Duration,
    stop_timeout: Duration,
    backoff: Backoff,
    /// `None` is no limit.
    start_rate: Option<u32>,
    flag: Option<FlagFn>,
    pulse: Option<(Duration, PulseFn)>,
    sinks: Vec<Arc<dyn TelemetrySink>>,
    children: Vec<ChildSpec>,
}

impl SupervisorBuilder {
    /// The defaults of all settings.
    pub(crate) fn new() -> Self {
        Self {
            name: None,
            poll_interval: Duration::from_secs(1),
            healthy_after: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(5),
            backoff: Backoff::default(),
            start_rate: None,
            flag: None,
            pulse: None,
            sinks: Vec::new(),
            children: Vec::new(),
        }
    }

    /// Names the supervisor and its thread.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets how often all flags are queried. It has no effect on restarts, which have their own
    /// timers.
    ///
    /// Without [`enabled`](SupervisorBuilder::enabled) nothing is polled. Zero is an error at the
    /// start; more than a century means never: then flags are queried only by
    /// [`poll_now`](crate::Handle::poll_now) and before starts.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets how long a run must last to be trusted, for the children that do not set it themselves;
    /// see [`ChildSpec::healthy_after`].
    pub fn healthy_after(mut self, uptime: Duration) -> Self {
        self.healthy_after = uptime;
        self
    }

    /// Limits how many runs may start in one second, of all children together: for a program whose
    /// children all come back at once, after an outage for example, and would overwhelm what has
    /// just recovered.
    ///
    /// Every window of one second holds at most `n` starts, and with fewer than that none is
    /// delayed. A start for which no thread could be spawned counts. Children wait for their turn
    /// as [`Due`](crate::ChildStatus::Due), in the order in which they became so;
    /// [restarts](crate::Handle::restart) by hand come first, and count. The flag is asked when it
    /// is a child's turn. [`start`](SupervisorBuilder::start) does not wait for those who wait. The
    /// limit is this supervisor's own; those [below](SupervisorBuilder::run) it have theirs.
    ///
    /// By default there is no limit; zero is an error at the start.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Simulation, Supervisor};
    /// use std::time::Duration;
    ///
    /// let workers = (0..5).map(|n| ChildSpec::new(format!("worker-{n}"), |_| Ok(())));
    /// let builder = Supervisor::builder().max_starts_per_second(2).children(workers);
    /// let mut simulation = Simulation::new(builder, 1)?;
    /// let mut running = |seconds| {
    ///     simulation.advance(Duration::from_secs(seconds));
    ///     simulation.handle().snapshot().counts().running
    /// };
    /// assert_eq!([running(0), running(1), running(1)], [2, 4, 5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_starts_per_second(mut self, n: u32) -> Self {
        self.start_rate = Some(n);
        self
    }

    /// Sets how long a child may take to stop, for the children that do not set it themselves; see
    /// [`ChildSpec::stop_timeout`].
    pub fn stop_timeout(mut self, limit: Duration) -> Self {
        self.stop_timeout = limit;
        self
    }

    /// Sets how long children stay down after a failure, for those that have no backoff of their
    /// own.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the feature flag of each child: a closure that receives the child's id and returns
    /// whether the child should run.
    ///
    /// It is called for every child each [poll interval](SupervisorBuilder::poll_interval), for one
    /// child right before each of its starts, and for all at
    /// [`poll_now`](crate::Handle::poll_now). A running child whose flag is off is asked to stop;
    /// that is no failure, and a backoff that is under way goes on. `None` means "I cannot tell":
    /// the last answer stands, or `true` if there is none.
    ///
    /// The closure runs on the supervisor thread and should be quick: look at a cache that another
    /// thread keeps fresh rather than at a service. A panic in it counts as `None` and is reported.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, ChildStatus, Supervisor};
    /// use std::{
    ///     sync::{
    ///         Arc,
    ///         atomic::{AtomicBool, Ordering},
    ///     },
    ///     time::Duration,
    /// };
    ///
    /// let flag = Arc::new(AtomicBool::new(true));
    /// let its = flag.clone();
    /// let supervisor = Supervisor::builder()
    ///     .enabled(move |id| id != "mailer" || its.load(Ordering::Relaxed))
    ///     .child(ChildSpec::new("mailer", |ctx| ctx.wait_until_stopped()))
    ///     .start()?;
    ///
    /// flag.store(false, Ordering::Relaxed);
    /// supervisor.handle().poll_now()?; // or wait for the next poll
    /// supervisor.handle().wait_for("mailer", Duration::from_secs(10), |child| {
    ///     matches!(child.status, ChildStatus::Off { .. })
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn enabled<R: Into<Option<bool>>>(
        mut self,
        mut flag: impl FnMut(&str) -> R + Send + 'static,
    ) -> Self {
        self.flag = Some(Box::new(move |id| flag(id).into()));
        self
    }

    /// Has a closure called every `interval` on the supervisor thread: a sign of life of the
    /// supervisor itself, for those who watch the watchman, such as the watchdog of systemd, that
    /// of the machine, or a file.
    ///
    /// It is first called when every enabled child has had its first start, or as a shutdown begins
    /// before that, and then until the supervisor ends. It is called during a shutdown, too, and at
    /// once when one begins: by then [`Snapshot::is_running`](crate::Snapshot::is_running) is
    /// `false`. While the supervisor thread is stuck, in a flag or a sink for example, it is not
    /// called, which is the point; while that does much at once, such as starting a thousand
    /// children whose backoffs end together, it comes late by that. After a stall it is called
    /// once. It is a callback as any other: it should be quick, its panics are caught and logged,
    /// and a shutdown is not held up by one that hangs. A [`Simulation`](crate::Simulation) does
    /// not call it.
    ///
    /// The supervisor is well by then, but perhaps not its children: the closure may ask the
    /// [`Handle`] for a [snapshot](Handle::snapshot), and give no sign if one of them is stuck.
    ///
    /// Without it, an idle supervisor does not wake up at all. Zero is an error at the start; with
    /// more than a century it is called twice, after the start and as a shutdown begins.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    /// use std::time::Duration;
    ///
    /// let (beats, beaten) = crossbeam_channel::bounded(1);
    /// let supervisor = Supervisor::builder()
    ///     .child(ChildSpec::new("orders", |ctx| ctx.wait_until_stopped()))
    ///     .pulse(Duration::from_millis(10), move |handle| {
    ///         let snapshot = handle.snapshot(); // and look into the branches, if there are any
    ///         if !snapshot.children.iter().any(|child| child.is_overdue) {
    ///             let _ = beats.try_send(()); // feed the watchdog
    ///         }
    ///     })
    ///     .start()?;
    /// for _ in 0..3 {
    ///     beaten.recv()?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "watchdog")]
    pub fn pulse(mut self, interval: Duration, f: impl FnMut(&Handle) + Send + 'static) -> Self {
        self.pulse = Some((interval, Box::new(f)));
        self
    }

    /// Adds a telemetry sink. Any number may be given; each gets every event, in the order in which
    /// they were added.
    pub fn telemetry(mut self, sink: impl TelemetrySink) -> Self {
        self.sinks.push(Arc::new(sink));
        self
    }

    /// Adds a closure as a telemetry sink.
    ///
    /// ```
    /// # use circuit_breaker_supervisor::Supervisor;
    /// let supervisor =
    ///     Supervisor::builder().on_event(|event| println!("{event}")).start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_event(self, sink: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.telemetry(OnEvent(sink))
    }

    /// Adds a child. Children are started in the order in which they were added, and asked to stop
    /// in the reverse order, unless they come [`after`](ChildSpec::after) others.
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Adds children.
    pub fn children(mut self, children: impl IntoIterator<Item = ChildSpec>) -> Self {
        self.children.extend(children);
        self
    }

    /// Starts the supervisor thread, which starts the children, and returns once every enabled
    /// child has had its first start, or waits: for its turn by the
    /// [start rate](SupervisorBuilder::max_starts_per_second), or for another one that it comes
    /// [`after`](ChildSpec::after).
    ///
    /// # Errors
    ///
    /// [`StartError`] names what is wrong with the configuration, or says that no thread could be
    /// spawned for the supervisor, and gives the builder back. Nothing has been started then. If no
    /// thread can be spawned for a *child*, that is a failed start of the child, which is tried
    /// again after its backoff.
    pub fn start(self) -> Result<Supervisor, StartError> {
        if let Err(invalid) = self.check() {
            return Err(StartError::new(StartErrorReason::Config(invalid), self));
        }
        warn_of_abort();
        let name = self.name.clone().unwrap_or_else(|| String::from(DEFAULT_NAME));
        let (shared, inbox) = self.share(&name, None, Clock::System);
        let threads = ThreadRegistry::new(&shared);
        let (started, first_round) = bounded(1);
        // A spawn that fails drops its closure, so the builder is kept outside of the closure.
        let slot = Arc::new(Mutex::new(Some(self)));
        let its = (slot.clone(), shared.clone(), threads.clone());
        let spawned = threads.spawn_supervisor(name, move || {
            let (slot, shared, threads) = its;
            let Some(builder) = slot.lock().take() else { return };
            let its = inbox.clone();
            supervise(&shared, &threads, inbox, || {
                let host = Host::Own { started: Some(started) };
                MainLoop::new(builder.parts(&shared, its), threads.clone(), host).run()
            });
        });
        if let Err(error) = spawned {
            let builder =
                slot.lock().take().expect("the thread that would take it was not spawned");
            return Err(StartError::new(StartErrorReason::Thread(error), builder));
        }
        // An engine that dies before the end of its first round drops its sender.
        let _ = first_round.recv();
        Ok(Supervisor::new(shared, threads))
    }

    /// Supervises on this child's thread until the child is asked to stop: supervisors nest this
    /// way.
    ///
    /// The ids of the children become paths: a child `orders` of a supervisor that is run by the
    /// child `ingest` is `ingest/orders`, in events, flags, reports and thread names. A
    /// [`Handle`] of the outer supervisor takes these paths. That of the nested one,
    /// which bodies get from [`ctx.supervisor()`](ChildContext::supervisor), also accepts the
    /// child's own id. The outer child is marked as healthy as soon as all below it is well at
    /// work. Unless the builder has sinks of its own, events go to those of the outer supervisor;
    /// the [sequence](Event::seq) is counted for each supervisor. Flags are not inherited: the flag
    /// of the child that runs this is the flag of all below it.
    ///
    /// When the child is asked to stop, all children below it are asked too, the leaves first; this
    /// returns when no thread of its children is alive, however long that takes. So a grandchild
    /// that does not stop makes the outer child overdue, and nothing else waits for it; if it may
    /// be [abandoned](ChildSpec::abandon_after), it ends the outermost supervisor.
    ///
    /// # Errors
    ///
    /// A [`ChildGaveUp`](crate::ChildGaveUp) if a significant child was given up, and a
    /// [`ConfigError`] if the configuration is wrong, or if this is called on a helper's thread
    /// with a clone of the context: such a supervisor could outlive its child's run. Each is a
    /// failure of the outer child. So is an `Ok` when the nested supervisor was shut down through
    /// its own handle.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    ///
    /// let supervisor = Supervisor::builder()
    ///     .child(ChildSpec::new("ingest", |ctx| {
    ///         Supervisor::builder()
    ///             .child(ChildSpec::new("orders", |ctx| {
    ///                 println!("{} runs", ctx.id()); // ingest/orders
    ///                 ctx.wait_until_stopped()
    ///             }))
    ///             .run(ctx)
    ///     }))
    ///     .start()?;
    /// assert!(supervisor.shutdown().is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "one_for_all")]
    pub fn run(mut self, ctx: &ChildContext) -> ChildResult {
        self.check()?;
        if !ctx.is_on_its_thread() {
            return Err(ConfigError::ForeignThread(ctx.id().clone()).into());
        }
        if self.sinks.is_empty() {
            // No sinks means that the outer supervisor has ended: then this run was asked to stop
            // as well.
            self.sinks = ctx.sinks().map(|sinks| sinks.to_vec()).unwrap_or_default();
        }
        if ctx.is_stopping() {
            return Ok(());
        }
        let name = self.name.clone().unwrap_or_else(|| ctx.id().to_string());
        let outer = OuterChild::new(ctx.id().clone(), ctx.supervisor().shared());
        let (shared, inbox) = self.share(&name, Some(outer), Clock::System);
        let threads = ThreadRegistry::new(&shared);
        let (stop_timeout, here) = (ctx.stop_timeout(), thread::current().id());
        let mut shutdown = NestedShutdown::new(shared.clone(), threads.clone());
        let its = shared.clone();
        let mut is_noted = false;
        let _stop = ctx.on_stop_every(LOOK, move || {
            if !std::mem::replace(&mut is_noted, true) {
                its.note_outer_stop(deadline::after(system_now(), stop_timeout));
            }
            if thread::current().id() == here {
                // The run was asked to stop before this callback was set: this thread is about to
                // notice by itself.
                its.request_shutdown(Duration::MAX);
            } else {
                shutdown.look();
            }
        });
        let messages = inbox.clone();
        threads.supervise_here(|| {
            supervise(&shared, &threads, inbox, || {
                let parts = self.parts(&shared, messages);
                // Only now, as its children are listed.
                let _shown = ShownBranch::new(ctx.supervisor().shared(), ctx.key(), &shared);
                let host = Host::Child { context: ctx.clone(), is_marked: false };
                MainLoop::new(parts, threads.clone(), host).run()
            });
            // Children are left to wait for only if the supervisor has died of a fault of its own.
            threads.wait_for_children();
        });
        match shared.cause() {
            // A nested supervisor never has the second cause: the outermost one has it instead.
            ShutdownCause::Requested | ShutdownCause::Abandoned(_) => Ok(()),
            ShutdownCause::GaveUp(child) => Err(child.into()),
            ShutdownCause::Died => Err("the nested supervisor died".into()),
        }
    }

    fn share(
        &self,
        name: &str,
        outer: Option<OuterChild>,
        clock: Clock,
    ) -> (Arc<Shared>, Receiver<Message>) {
        let (sender, inbox) = unbounded();
        let defaults =
            Defaults { healthy_after: self.healthy_after, stop_timeout: self.stop_timeout };
        (Shared::new(name.into(), outer, defaults, clock, sender), inbox)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.poll_interval.is_zero() {
            return Err(ConfigError::ZeroPollInterval);
        }
        if self.pulse.as_ref().is_some_and(|(interval, _)| interval.is_zero()) {
            return Err(ConfigError::ZeroPulse);
        }
        if self.start_rate == Some(0) {
            return Err(ConfigError::ZeroStartRate);
        }
        if self.name.as_ref().is_some_and(|name| name.contains('\0')) {
            return Err(ConfigError::NulInName);
        }
        let mut ids = HashSet::new();
        for child in &self.children {
            child.check()?;
            if !ids.insert(&child.id) {
                return Err(ConfigError::DuplicateId(child.id.clone()));
            }
        }
        self.check_dependencies()
    }

    fn check_dependencies(&self) -> Result<(), ConfigError> {
        let specs: HashMap<_, _> = self.children.iter().map(|child| (&child.id, child)).collect();
        for child in &self.children {
            for after in child.after.iter().filter(|after| **after != child.id) {
                let listed = specs.get(after).map(|listed| listed.policy);
                check_dependency(&child.id, after, listed)?;
            }
        }
        let after_of = |id: &ChildId| specs.get(id).map_or(&[][..], |child| &child.after);
        find_circle(self.children.iter().map(|child| &child.id), after_of)
            .map_or(Ok(()), |circle| Err(ConfigError::Circle(circle)))
    }

    pub(crate) fn parts(self, shared: &Arc<Shared>, inbox: Receiver<Message>) -> Parts {
        let Self {
            name: _,
            poll_interval,
            healthy_after: _,
            stop_timeout: _,
            backoff,
            start_rate,
            flag,
            pulse,
            mut sinks,
            children,
        } = self;
        if sinks.is_empty() {
            // No failure is ever silent.
            sinks.push(Arc::new(LogSink));
        }
        let children = children.into_iter().map(|spec| (shared.list(&spec), spec)).collect();
        let fallback = Backoff::default();
        Parts {
            shared: shared.clone(),
            inbox,
            poll_interval,
            start_rate: start_rate.and_then(NonZeroU32::new),
            flag,
            backoff,
            fallback,
            pulse,
            sinks,
            children,
        }
    }

    /// Everything of a supervisor that runs on virtual time instead of threads: each backoff
    /// repeats itself, and `recorder` receives every event first.
    pub(crate) fn simulate(
        mut self,
        seed: u64,
        time: VirtualTime,
        recorder: impl TelemetrySink,
    ) -> Result<(Arc<Shared>, Parts), StartError> {
        if let Err(invalid) = self.check() {
            return Err(StartError::new(StartErrorReason::Config(invalid), self));
        }
        let name = self.name.clone().unwrap_or_else(|| String::from(DEFAULT_NAME));
        let (shared, inbox) = self.share(&name, None, Clock::ByHand(time));
        self.backoff.be_repeatable(seed);
        for child in &mut self.children {
            child.be_repeatable(seed);
        }
        let mut parts = self.parts(&shared, inbox);
        parts.fallback.be_repeatable(seed);
        parts.sinks.insert(0, Arc::new(recorder));
        Ok((shared, parts))
    }
}

/// Warns that a panic cannot be caught where it aborts the process; once, so that nobody relies on
/// it.
fn warn_of_abort() {
    static ONCE: Once = Once::new();
    if cfg!(panic = "abort") {
        ONCE.call_once(|| {
            let _ = unwind::catch(|| {
                let text = "this program is built with panic = \"abort\"";
                log::warn!(target: TARGET, "{text}: a panic in a child ends the process");
            });
        });
    }
}

impl fmt::Debug for SupervisorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            poll_interval,
            healthy_after,
            stop_timeout,
            backoff,
            start_rate,
            flag,
            pulse,
            sinks,
            children,
        } = self;
        f.debug_struct("SupervisorBuilder")
            .field("name", &name.as_deref().unwrap_or(DEFAULT_NAME))
            .field("poll_interval", poll_interval)
            .field("healthy_after", healthy_after)
            .field("stop_timeout", stop_timeout)
            .field("backoff", backoff)
            .field("max_starts_per_second", start_rate)
            .field("enabled", &flag.is_some())
            .field("pulse", &pulse.as_ref().map(|(interval, _)| interval))
            .field("sinks", &sinks.len())
            .field("children", children)
            .finish()
    }
}

/// A supervisor could not be started. Nothing was started: no thread exists, no body ran.
pub struct StartError {
    reason: StartErrorReason,
    /// Closures are `Send` but not always `Sync`, which an error should be; the mutex makes it so.
    builder: Mutex<Box<SupervisorBuilder>>,
}

/// Why a supervisor could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartErrorReason {
    /// The configuration is wrong.
    Config(ConfigError),
    /// The operating system could not spawn a thread for the supervisor.
    Thread(io::Error),
}

impl StartError {
    pub(crate) fn new(reason: StartErrorReason, builder: SupervisorBuilder) -> Self {
        Self { reason, builder: Mutex::new(Box::new(builder)) }
    }

    /// Returns the reason.
    pub fn reason(&self) -> &StartErrorReason {
        &self.reason
    }

    /// Returns the builder, unchanged.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{StartErrorReason, Supervisor};
    /// use std::time::Duration;
    ///
    /// let error = Supervisor::builder().poll_interval(Duration::ZERO).start().unwrap_err();
    /// assert_eq!(error.to_string(), "cannot start the supervisor: `poll_interval` is zero");
    /// assert!(matches!(error.reason(), StartErrorReason::Config(_)));
    /// let supervisor =
    ///     error.into_builder().poll_interval(Duration::from_secs(1)).start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_builder(self) -> SupervisorBuilder {
        *self.builder.into_inner()
    }
}

/// Same text as `Display`, since `main` prints the `Debug` of an error that it returns.
impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            StartErrorReason::Config(invalid) => {
                write!(f, "cannot start the supervisor: {invalid}")
            }
            StartErrorReason::Thread(error) => {
                write!(f, "cannot start the supervisor: no thread for it: {error}")
            }
        }
    }
}

/// Its text says the reason, which is therefore no source: code that prints all sources would print
/// it twice.
impl Error for StartError {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{error::CommandError, handle::Handle};

    #[test]
    fn supervisor_that_dies_says_so_to_everybody() {
        let builder = SupervisorBuilder::new().child(ChildSpec::new("left", |_| Ok(())));
        let (shared, inbox) = builder.share("fragile", None, Clock::System);
        let threads = ThreadRegistry::new(&shared);
        let handle = Handle::new(shared.clone());
        handle.add(ChildSpec::new("waiting", |_| Ok(()))).unwrap();
        supervise(&shared, &threads, inbox, || panic!("a fault of the crate's own"));

        let report = handle.wait_until_stopped(Duration::ZERO).unwrap();
        assert!(matches!(report.cause, ShutdownCause::Died) && !report.is_clean());
        assert_eq!(handle.poll_now(), Err(CommandError::Ended));
        assert_eq!(handle.hold("waiting"), Err(CommandError::Ended));
        let refused = handle.add(ChildSpec::new("late", |_| Ok(()))).unwrap_err();
        assert_eq!(*refused.into_spec().id(), "late");
        assert!(!handle.snapshot().is_healthy());
    }
}
