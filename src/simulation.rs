//! Supervisor on virtual time, whose children follow a script.

use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    builder::{StartError, SupervisorBuilder},
    core::key::Key,
    event::Event,
    exit::Exit,
    handle::Handle,
    id::ChildId,
    runtime::{engine::Engine, inbox::Message, lineage::Lineage, script::Script},
    snapshot::ChildInfo,
    sync::{clock::VirtualTime, deadline, unwind},
    telemetry::OnEvent,
};

/// Supervisor for tests: real in all that it decides, on virtual time, without threads.
///
/// It is made from the same [`SupervisorBuilder`] as the one in production, and calls its flag and
/// backoff closures and its sinks in the same way. Its [`Handle`] is a real one. But no body is
/// ever called: the test says how each run ends, and an hour of backoff takes microseconds. A child
/// that is asked to stop returns `Ok` at once, unless it [ignores](Simulation::ignore_stop_for) the
/// stop request for a while.
///
/// Time passes only in [`advance`](Simulation::advance). The supervisor works only in `advance`,
/// [`exit`](Simulation::exit), [`mark_healthy`](Simulation::mark_healthy) and
/// [`heartbeat`](Simulation::heartbeat), on the thread that calls them: there the children of the
/// builder have their first start, as in [`start`](SupervisorBuilder::start), and what was
/// commanded through a handle or reported to a [`Breaker`](crate::Breaker) since is carried out, in
/// the order in which it was given. `advance(Duration::ZERO)` does that and no more.
///
/// The waits of a handle return at once, as if their time was over; so the
/// [report](crate::ShutdownReport) of a supervisor that has ended comes from
/// `handle().wait_until_stopped(Duration::ZERO)`. From then on nothing happens any more, and time
/// still passes.
///
/// With the same builder, seed and calls, the [events](Simulation::events) are the same: a backoff
/// without a [seed](crate::Backoff::seed) gets one that is derived from this seed, and for a
/// child's own backoff from the child's id as well. Another version of Rust may derive others.
///
/// Effects of threads on one another are not simulated. A callback takes no time; so one that
/// causes more work each time, such as a sink that restarts a child whenever it starts or a flag
/// closure that has all flags queried anew, never lets time pass. A stop callback is not called,
/// and a supervisor that a body would run does not exist.
///
/// # Examples
///
/// A test of a program's own backoff and flag:
///
/// ```
/// use circuit_breaker_supervisor::{
///     Backoff, ChildSpec, ChildStatus, EventKind, Exit, OffBy, Simulation, Supervisor,
///     SupervisorBuilder,
/// };
/// use std::{
///     sync::{
///         Arc,
///         atomic::{AtomicBool, Ordering},
///     },
///     time::Duration,
/// };
///
/// // In the program:
/// fn supervisor(is_printing: Arc<AtomicBool>) -> SupervisorBuilder {
///     Supervisor::builder()
///         .poll_interval(Duration::from_secs(10))
///         .enabled(move |id| id != "printer" || is_printing.load(Ordering::Relaxed))
///         .backoff(
///             Backoff::exponential(Duration::from_secs(1), Duration::from_secs(3600))
///                 .jitter(0.0),
///         )
///         .child(ChildSpec::new("printer", |ctx| {
///             // … print; the simulation does not call this …
///             ctx.wait_until_stopped()
///         }))
/// }
///
/// // In the test:
/// let is_printing = Arc::new(AtomicBool::new(true));
/// let mut simulation = Simulation::new(supervisor(is_printing.clone()), 1)?;
/// let handle = simulation.handle().clone();
/// simulation.advance(Duration::ZERO);
/// for failures in 0..20 {
///     simulation.exit("printer", Exit::panicked("paper jam"))?;
///     let printer = handle.child("printer").ok_or("not listed")?;
///     let delay = Duration::from_secs((1 << failures).min(3600));
///     assert_eq!(
///         (printer.status, printer.retry_in),
///         (ChildStatus::BackingOff, Some(delay))
///     );
///     simulation.advance(delay);
///     assert!(handle.child("printer").is_some_and(|printer| printer.is_running()));
/// }
/// assert!(simulation.elapsed() > Duration::from_secs(8 * 3600)); // it took no time
///
/// is_printing.store(false, Ordering::Relaxed);
/// simulation.advance(Duration::from_secs(10)); // until the next poll
/// assert_eq!(
///     handle.child("printer").map(|printer| printer.status),
///     Some(ChildStatus::Off { by: OffBy::Flag })
/// );
/// let starts = simulation
///     .events()
///     .iter()
///     .filter(|event| matches!(event.kind, EventKind::Started));
/// assert_eq!(starts.count(), 21);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Simulation {
    handle: Handle,
    time: VirtualTime,
    lineage: Lineage,
    /// `None` after the supervisor's end.
    engine: Option<Engine<Script>>,
    poll: Option<Poll>,
    recorded: Arc<Mutex<Vec<Event>>>,
    events: Vec<Event>,
}

#[derive(Clone, Copy, Debug)]
struct Poll {
    interval: Duration,
    next: Instant,
}

impl Simulation {
    /// Creates a simulation of what the builder describes. Nothing happens before the first
    /// [`advance`](Simulation::advance).
    ///
    /// # Errors
    ///
    /// [`StartError`], as in [`SupervisorBuilder::start`]; it gives the builder back.
    pub fn new(builder: SupervisorBuilder, seed: u64) -> Result<Self, StartError> {
        let time = VirtualTime::new();
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let recorder = recorded.clone();
        let record = OnEvent(move |event: &Event| recorder.lock().push(event.clone()));
        let (shared, parts) = builder.simulate(seed, time.clone(), record)?;
        let poll = parts.polls().map(|interval| Poll { interval, next: time.now() + interval });
        let script = Script::new(shared.clone(), time.clone(), seed);
        let lineage = Lineage::of(shared.number);
        let handle = Handle::new(shared);
        Ok(Self {
            handle,
            time,
            lineage,
            engine: Some(Engine::new(parts, script)),
            poll,
            recorded,
            events: Vec::new(),
        })
    }

    /// Returns the handle by which to query and command this supervisor. Commands are carried out
    /// in the next [`advance`](Simulation::advance), [`exit`](Simulation::exit),
    /// [`mark_healthy`](Simulation::mark_healthy) or [`heartbeat`](Simulation::heartbeat).
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Returns all events so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Returns the instant at which virtual time began: the origin for the instants of
    /// [events](Event::at).
    pub fn origin(&self) -> Instant {
        self.time.origin()
    }

    /// Returns how much virtual time has passed.
    pub fn elapsed(&self) -> Duration {
        self.time.now().saturating_duration_since(self.time.origin())
    }

    // ── What happens ──

    /// Lets time pass, and everything that is due meanwhile happen, each thing at its time.
    ///
    /// # Panics
    ///
    /// If that leads beyond the last instant that can be represented, some centuries from now.
    #[track_caller]
    pub fn advance(&mut self, duration: Duration) {
        let until = self.time.now().checked_add(duration).expect("time ends before that");
        self.catch_up();
        while let Some(next) = self.next_instant().filter(|next| *next <= until) {
            self.time.set(next);
            if let Some(poll) = self.poll.as_mut().filter(|poll| poll.next <= next) {
                poll.next += poll.interval;
                if let Some(engine) = &mut self.engine {
                    engine.begin_round();
                }
            }
            let Self { engine, lineage, .. } = self;
            if let Some(engine) = engine {
                engine.workers().end_due(next);
                // A run that ends at the very instant at which its stop timeout is over has stopped
                // in time.
                lineage.supervise(|| while take_message(engine) {});
            }
            self.catch_up();
        }
        self.time.set(until);
    }

    /// Ends the present run of a child, now, and does all that follows from that at once.
    ///
    /// Earlier commands are carried out first: a run that ends by itself just as it is
    /// [held](Handle::hold) has the cause [`Held`](crate::StopCause::Held), and this exit. A run
    /// that such a command would start does not exist yet; to end that one,
    /// [advance](Simulation::advance) first, by zero if need be.
    ///
    /// # Errors
    ///
    /// [`NotRunning`] if the child does not run. Then nothing else is done either.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Exit, Simulation, Supervisor};
    /// use std::time::Duration;
    ///
    /// let builder = Supervisor::builder().child(ChildSpec::new("orders", |_| Ok(())));
    /// let mut simulation = Simulation::new(builder, 1)?;
    /// simulation.advance(Duration::ZERO);
    /// simulation.exit("orders", Exit::failed("the broker hung up"))?;
    /// let error = simulation.exit("orders", Exit::Completed).unwrap_err();
    /// assert!(
    ///     error
    ///         .to_string()
    ///         .starts_with("not running: `orders` is backing off: it failed after")
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exit(&mut self, id: &str, exit: Exit) -> Result<(), NotRunning> {
        self.script_for(id, |script, key| script.exit(key, exit))?;
        self.catch_up();
        Ok(())
    }

    /// Reports the present run of a child as healthy, as
    /// [`ChildContext::mark_healthy`](crate::ChildContext::mark_healthy) does.
    ///
    /// # Errors
    ///
    /// [`NotRunning`] if the child does not run.
    pub fn mark_healthy(&mut self, id: &str) -> Result<(), NotRunning> {
        self.script_for(id, Script::mark_healthy)?;
        self.catch_up();
        Ok(())
    }

    /// Sends a sign of life from the present run of a child, as
    /// [`ChildContext::heartbeat`](crate::ChildContext::heartbeat) does.
    ///
    /// # Errors
    ///
    /// [`NotRunning`] if the child does not run.
    pub fn heartbeat(&mut self, id: &str, doing: &'static str) -> Result<(), NotRunning> {
        self.script_for(id, |script, key| script.heartbeat(key, doing))?;
        self.catch_up();
        Ok(())
    }

    // ── The script ──

    /// Makes the next spawn of a thread for this child fail, as on a machine that has no more
    /// threads; called twice, the next two.
    ///
    /// A thread is spawned for the first run; for every run of a child with a
    /// [`fresh_thread`](crate::ChildSpec::fresh_thread); and after the child was finished or given
    /// up. The child need not be listed yet.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Simulation, StopCause, Supervisor};
    /// use std::time::Duration;
    ///
    /// let builder = Supervisor::builder().child(ChildSpec::new("orders", |_| Ok(())));
    /// let mut simulation = Simulation::new(builder, 1)?;
    /// simulation.fail_next_spawn("orders");
    /// simulation.advance(Duration::ZERO);
    /// let orders = simulation.handle().child("orders").ok_or("not listed")?;
    /// assert_eq!(orders.last_stop.map(|stop| stop.cause), Some(StopCause::NotSpawned));
    /// simulation.advance(Duration::from_millis(100)); // after the backoff there is one
    /// assert!(
    ///     simulation.handle().child("orders").is_some_and(|orders| orders.is_running())
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fail_next_spawn(&mut self, id: &str) {
        if let Some(engine) = &mut self.engine {
            *engine.workers().failing_spawns.entry(ChildId::from(id)).or_default() += 1;
        }
    }

    /// Makes all runs of this child from now on run for this long after they are asked to stop,
    /// before they return `Ok`. A run that was already asked to stop is not affected.
    ///
    /// With [`Duration::MAX`] they never return; zero restores the default. The child need not be
    /// listed yet, and [`exit`](Simulation::exit) still ends a run.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Simulation, Supervisor};
    /// use std::time::Duration;
    ///
    /// let builder = Supervisor::builder()
    ///     .child(ChildSpec::new("deaf", |_| Ok(())).stop_timeout(Duration::from_secs(5)));
    /// let mut simulation = Simulation::new(builder, 1)?;
    /// simulation.ignore_stop_for("deaf", Duration::from_secs(8));
    /// simulation.advance(Duration::from_secs(1));
    /// simulation.handle().restart("deaf")?;
    /// simulation.advance(Duration::from_secs(5));
    /// assert!(simulation.handle().child("deaf").is_some_and(|deaf| deaf.is_overdue));
    /// simulation.advance(Duration::from_secs(3));
    /// assert_eq!(simulation.handle().child("deaf").map(|deaf| deaf.run), Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ignore_stop_for(&mut self, id: &str, duration: Duration) {
        if let Some(engine) = &mut self.engine {
            engine.workers().deafness.insert(ChildId::from(id), duration);
        }
    }

    // ── Within ──

    /// Applies an action of the script to a child.
    fn script_for<R>(
        &mut self,
        id: &str,
        f: impl FnOnce(&mut Script, Key) -> Option<R>,
    ) -> Result<R, NotRunning> {
        let row = self.handle.shared().row(id);
        let key = row.as_ref().map(|row| row.key());
        let done = self.engine.as_mut().zip(key).and_then(|(engine, key)| f(engine.workers(), key));
        done.ok_or_else(|| NotRunning { id: id.into(), child: self.handle.child(id).map(Box::new) })
    }

    /// When something happens next.
    fn next_instant(&mut self) -> Option<Instant> {
        let engine = self.engine.as_mut()?;
        let poll = self.poll.map(|poll| poll.next);
        [engine.next_deadline(), engine.workers().next_end(), poll]
            .into_iter()
            .fold(None, deadline::sooner)
    }

    /// Does all that is due now.
    fn catch_up(&mut self) {
        let Self { engine: slot, handle, lineage, .. } = self;
        lineage.supervise(|| {
            while let Some(engine) = slot {
                engine.proceed();
                if engine.is_over() {
                    end(slot, handle);
                } else if !take_message(engine) && !engine.is_in_round() && !engine.is_due() {
                    break;
                }
            }
        });
        self.events.append(&mut self.recorded.lock());
    }
}

/// Handles the next message, if there is one.
fn take_message(engine: &mut Engine<Script>) -> bool {
    let Ok(mut message) = engine.inbox().try_recv() else { return false };
    if let Message::Add { spec, .. } = &mut message {
        spec.be_repeatable(engine.workers().seed);
    }
    engine.handle_message(message);
    true
}

/// Ends the supervisor, and shows the end to all handles.
fn end(engine: &mut Option<Engine<Script>>, handle: &Handle) {
    if let Some(engine) = engine.take() {
        handle.shared().ended(engine.finish());
    }
}

/// The drop of what a user's closures have captured may panic, and so may the drop of an event's
/// error.
impl Drop for Simulation {
    fn drop(&mut self) {
        let Self { engine, handle, lineage, events, recorded, .. } = self;
        lineage.supervise(|| end(engine, handle));
        events.append(&mut recorded.lock());
        for event in events.drain(..) {
            let _ = unwind::discard(event);
        }
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("elapsed", &self.elapsed())
            .field("events", &self.events.len())
            .field("has_ended", &self.engine.is_none())
            .finish_non_exhaustive()
    }
}

/// Error of a script step for a child of a [`Simulation`] that has no run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NotRunning {
    /// The child.
    pub id: ChildId,
    /// What the child is doing; `None` if there is no child of this id.
    pub child: Option<Box<ChildInfo>>,
}

impl fmt::Display for NotRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.child {
            Some(child) => write!(f, "not running: {child}"),
            None => write!(f, "there is no child {:?}", self.id),
        }
    }
}

impl Error for NotRunning {}
