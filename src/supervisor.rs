//! The supervisor as its owner holds it: to wait for its end, or to bring it about.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    builder::SupervisorBuilder, clock::system_now, crew::Crew, deadline, handle::Handle, lineage, report::ShutdownReport,
    shared::Shared, telemetry::TARGET, unwind,
};

/// How long the supervisor thread may take to notice a shutdown before it counts as stuck, and its children are stopped
/// without it.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often a shutdown looks at what the supervisor thread does.
const LOOK: Duration = Duration::from_millis(25);

/// How much longer than the children's stop timeouts a shutdown waits for a callback that holds the supervisor thread.
const SLACK: Duration = Duration::from_millis(250);

/// How much longer it waits for a supervisor thread that has much to do, or is itself ending.
const LATENESS: Duration = Duration::from_secs(5);

/// Keeps its children alive until it is shut down, waited for, or dropped.
///
/// Dropping it shuts it down, as [`shutdown`](Supervisor::shutdown) does, and waits as long; what did not stop is logged.
#[must_use = "dropping a supervisor shuts it down, and `let _ =` drops it at once: keep it in a variable, or wait for it"]
pub struct Supervisor {
    handle: Handle,
    shared: Arc<Shared>,
    crew: Arc<Crew>,
    is_done: bool,
}

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>, crew: Arc<Crew>) -> Self {
        Self { handle: Handle::new(shared.clone()), shared, crew, is_done: false }
    }

    /// Begins the description of a supervisor.
    pub fn builder() -> SupervisorBuilder {
        SupervisorBuilder::new()
    }

    /// Returns the handle by which to ask and command this supervisor.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Asks all children to stop, waits for them together, and returns who did not.
    ///
    /// They are asked in reverse list order, all at once. Each has its own stop timeout, 5 s by default, so this takes at most the
    /// longest of them and up to half a second, or five if the supervisor thread has that much to do. Afterwards no thread of the
    /// supervisor is alive except those that the report names, and nothing restarts. A thread cannot be killed: a child that never
    /// stops stays, and ends with the process.
    ///
    /// If a callback holds the supervisor thread, the children are stopped without it, and the report names that callback. On
    /// the supervisor's own thread or on a thread of one of its children, where waiting would be waiting for oneself, this only
    /// asks, and the report names those that run.
    pub fn shutdown(mut self) -> ShutdownReport {
        self.end(Duration::MAX)
    }

    /// Shuts down as [`shutdown`](Supervisor::shutdown) does, but gives no child more than `limit` to stop.
    ///
    /// With zero, all are asked and this returns at once, or as late as [`shutdown`](Supervisor::shutdown) may if a callback holds
    /// the supervisor thread or it has much to do.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor, UnstoppedPhase};
    /// use std::time::Duration;
    ///
    /// let (gate, closed) = crossbeam_channel::bounded::<()>(0);
    /// let supervisor = Supervisor::builder()
    ///     .child(ChildSpec::new("deaf", move |_ctx| Ok(closed.recv()?))) // looks at nothing but its channel
    ///     .start()?;
    /// let report = supervisor.shutdown_within(Duration::from_millis(20));
    /// assert_eq!(report.unstopped[0].id, "deaf");
    /// assert_eq!(report.unstopped[0].phase, UnstoppedPhase::Running);
    /// drop(gate);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_within(mut self, limit: Duration) -> ShutdownReport {
        self.end(limit)
    }

    /// Waits until something ends the supervisor, such as [`Handle::request_shutdown`] or a significant child that gives up,
    /// and returns what [`shutdown`](Supervisor::shutdown) would.
    ///
    /// A supervisor whose children have all finished goes on, since more may be added: whoever knows that nothing is left to
    /// do calls [`Handle::request_shutdown`].
    ///
    /// On the supervisor's own thread, or one of its children's, this asks for the shutdown and returns.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::Supervisor;
    /// use std::thread;
    ///
    /// let supervisor = Supervisor::builder().start()?;
    /// let handle = supervisor.handle().clone();
    /// thread::spawn(move || handle.request_shutdown()); // when a signal comes, for example
    /// assert!(supervisor.wait().is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait(mut self) -> ShutdownReport {
        if !lineage::is_within(self.shared.number) {
            self.shared.wait_for(None, || (self.shared.has_ended() || self.shared.is_closing()).then_some(()));
        }
        self.end(Duration::MAX)
    }

    fn end(&mut self, limit: Duration) -> ShutdownReport {
        self.is_done = true;
        let since = system_now();
        if lineage::is_within(self.shared.number) {
            self.shared.request_shutdown(limit);
            return self.report_meanwhile(since);
        }
        stop_children(&self.shared, &self.crew, limit);
        if let Some(mut report) = self.await_end(since, limit) {
            // Destructors of thread-local variables that callbacks have made may run on it.
            report.has_ended = self.crew.join_supervisor(system_now() + LATENESS);
            return report;
        }
        let report = self.report_meanwhile(since);
        // A supervisor thread that comes back finds its threads let go, and nothing left to do.
        self.crew.dismiss();
        report
    }

    /// Waits for the supervisor thread to end, for as long as the children whose threads are alive may take to stop. Then it may
    /// still be late, but not be held by one call of user code. Such a call is noticed before, and the children stopped without it.
    fn await_end(&self, since: Instant, limit: Duration) -> Option<ShutdownReport> {
        let (mut call, mut call_since, mut is_seized) = (None, since, false);
        let mut late_since = None;
        loop {
            if let Some(report) = self.shared.wait_for(deadline::after(system_now(), LOOK), || self.shared.end()) {
                return Some(report);
            }
            let now = system_now();
            let before = std::mem::replace(&mut call, self.shared.call_in_progress());
            let is_held = call.is_some() && call == before;
            if !is_held {
                call_since = now;
            } else if !std::mem::replace(&mut is_seized, true) {
                self.shared.open_breakers_for_good();
                self.crew.seize(now);
            }
            let longest = self.crew.longest_stop_timeout();
            if longest.is_some_and(|timeout| !deadline::is_reached(deadline::after(since, timeout.min(limit)), now)) {
                late_since = None;
                continue;
            }
            let late_for = now - *late_since.get_or_insert(now);
            if late_for >= LATENESS || late_for >= SLACK && now - call_since >= SLACK {
                return None;
            }
        }
    }

    fn report_meanwhile(&self, since: Instant) -> ShutdownReport {
        let unstopped = self.crew.unstopped(system_now(), since);
        let (cause, stuck_in) = (self.shared.cause(), self.shared.stuck_in());
        ShutdownReport { cause, unstopped, stuck_in, has_ended: self.shared.has_ended() }
    }
}

/// Asks for a shutdown and sees to it that the children are told, by the supervisor thread or without it.
pub(crate) fn stop_children(shared: &Shared, crew: &Arc<Crew>, limit: Duration) {
    let until = deadline::after(system_now(), PATIENCE);
    shared.request_shutdown(limit);
    if shared.wait_for(until, || shared.is_acknowledged().then_some(())).is_none() {
        // That thread cannot show that they stop.
        shared.open_breakers_for_good();
        crew.seize(system_now());
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let within = lineage::is_within(self.shared.number);
        let report = self.end(Duration::MAX);
        if !within && !report.is_clean() {
            let _ = unwind::catch(|| log::warn!(target: TARGET, "{}: {report}", self.shared.name));
        }
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("name", &self.shared.name).finish_non_exhaustive()
    }
}
