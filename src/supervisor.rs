//! Running supervisor, and its shutdown, even past a stuck supervisor thread.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    builder::SupervisorBuilder,
    handle::Handle,
    report::ShutdownReport,
    runtime::{inbox::Message, lineage, shared::Shared, thread_registry::ThreadRegistry},
    sync::{aside::within_limit, clock::system_now, deadline},
    telemetry::TARGET,
};

/// How long the supervisor thread may be in one call of user code, or take to notice a shutdown,
/// before it counts as stuck and its children are stopped without it.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// How often a shutdown checks what the supervisor thread does.
pub(crate) const LOOK: Duration = Duration::from_millis(25);

/// How long before the end of its time a nested supervisor asks those to stop that wait for others.
const HEAD_START: Duration = Duration::from_millis(100);

/// How long a shutdown still waits, after the children's stop timeouts, for a supervisor thread
/// that is stuck: it may just have been about to end.
const SLACK: Duration = Duration::from_millis(250);

/// How long a shutdown still waits, after the children's stop timeouts, for a supervisor thread
/// that is at work.
const LATENESS: Duration = Duration::from_secs(5);

/// Supervisor: keeps its children alive until it is shut down, waited for, or dropped.
///
/// Dropping it shuts it down, as [`shutdown`](Supervisor::shutdown) does, and waits as long;
/// children that did not stop are logged.
#[must_use = "dropping a supervisor shuts it down: keep it in a variable, or wait for it"]
#[doc(alias = "one_for_one")]
#[doc(alias = "Suture")]
pub struct Supervisor {
    handle: Handle,
    shared: Arc<Shared>,
    threads: Arc<ThreadRegistry>,
    is_done: bool,
}

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>, threads: Arc<ThreadRegistry>) -> Self {
        Self { handle: Handle::new(shared.clone()), shared, threads, is_done: false }
    }

    /// Returns a builder, with which to configure a supervisor.
    pub fn builder() -> SupervisorBuilder {
        SupervisorBuilder::new()
    }

    /// Returns the handle by which to query and command this supervisor.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Asks all children to stop, waits for them together, and reports those that did not stop.
    ///
    /// They are asked in reverse list order, all at once; those that others come
    /// [`after`](crate::ChildSpec::after), when these have ended or had their time. Each has its
    /// own stop timeout, 5 s by default: this waits for every thread that is alive until then, and
    /// not for the timeouts of children that are down. Afterwards no thread of a child is alive
    /// except those that the report names, and nothing restarts. A thread cannot be killed: a child
    /// that never stops stays, and ends with the process. A report that is not
    /// [clean](ShutdownReport::is_clean) is logged as well.
    ///
    /// When all children have stopped or their stop timeouts are over, the supervisor thread may
    /// still have events to record, and is waited for as long as it is at work, up to 5 s. It is
    /// *stuck* if one call of a callback has lasted for 1 s, or if it has not noticed the shutdown
    /// for so long. Then this thread asks the children that were not asked before, and the
    /// report names the callback.
    ///
    /// On the supervisor's own thread or on a thread of one of its children, which would wait for
    /// itself, this only asks, and the report names the children that still run.
    pub fn shutdown(mut self) -> ShutdownReport {
        self.end(Duration::MAX)
    }

    /// Shuts down as [`shutdown`](Supervisor::shutdown) does, but within `limit`, which is for all
    /// of it. When it is over, no child is waited for any longer, and a supervisor thread that has
    /// not noticed the shutdown after a quarter of a second more is bypassed: all children have
    /// been asked when this returns.
    ///
    /// With zero, the children that do not stop at once are named. A supervisor thread that is
    /// still at work or stuck when the limit is over makes this up to 1 s longer.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor, UnstoppedPhase};
    /// use std::time::Duration;
    ///
    /// let (gate, closed) = crossbeam_channel::bounded::<()>(0);
    /// let supervisor = Supervisor::builder()
    ///     // It looks at nothing but its channel.
    ///     .child(ChildSpec::new("deaf", move |_ctx| Ok(closed.recv()?)))
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

    /// Waits until something ends the supervisor, such as [`Handle::request_shutdown`] or a
    /// significant child that gives up, or one that is abandoned, and returns what
    /// [`shutdown`](Supervisor::shutdown) would.
    ///
    /// A supervisor whose children have all finished goes on, since more may be added: call
    /// [`Handle::request_shutdown`] when nothing is left to do.
    ///
    /// On the supervisor's own thread, or one of its children's, this asks for the shutdown and
    /// returns.
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
            self.shared.wait_for(None, || (!self.shared.is_running()).then_some(()));
        }
        self.end(Duration::MAX)
    }

    fn end(&mut self, limit: Duration) -> ShutdownReport {
        self.is_done = true;
        let asked_at = system_now();
        self.shared.request_shutdown(limit);
        if lineage::is_within(self.shared.number) {
            return self.report_meanwhile(asked_at);
        }
        // With a limit, all of this ends at this instant at the latest.
        let last_at =
            deadline::after(asked_at, limit).and_then(|at| deadline::after(at, STUCK_AFTER));
        let report = match self.await_end(asked_at, limit) {
            Some(mut report) => {
                // Destructors of thread-local variables that callbacks have made may still run on
                // that thread.
                let until = deadline::after(system_now(), STUCK_AFTER);
                report.has_ended =
                    self.threads.wait_for_supervisor(deadline::sooner(until, last_at));
                report
            }
            None => {
                // A supervisor thread that comes back finds that its threads were asked to leave,
                // and nothing left to do.
                self.threads.dismiss();
                self.report_meanwhile(asked_at)
            }
        };
        if !report.is_clean() {
            // The caller may not look at the report.
            let line = format!("{}: {report}", self.shared.name);
            let left = last_at.map_or(SLACK, |at| at.saturating_duration_since(system_now()));
            let left_for_log = left.min(SLACK);
            within_limit(left_for_log, move || log::warn!(target: TARGET, "{line}"));
        }
        report
    }

    /// Waits for the supervisor thread to end: until every thread of a child is gone or its stop
    /// timeout is over, and then a little for the supervisor thread itself. A supervisor thread
    /// that is stuck is noticed earlier, and the children are stopped without it.
    fn await_end(&self, asked_at: Instant, limit: Duration) -> Option<ShutdownReport> {
        let limit_at = deadline::after(asked_at, limit);
        let mut watch = StuckWatch::new(asked_at);
        let (mut taken_over_at, mut late_since) = (None, None);
        loop {
            if let Some(report) =
                self.shared.wait_for(deadline::after(system_now(), LOOK), || self.shared.end())
            {
                return Some(report);
            }
            let now = system_now();
            let is_stuck = watch.is_stuck(&self.shared, now);
            let noticed_at = self.shared.noticed_at();
            // A supervisor thread that has not asked all children a little after the limit is
            // bypassed.
            let is_limit_over =
                deadline::is_reached(limit_at.and_then(|at| deadline::after(at, SLACK)), now);
            let is_unasked = noticed_at.is_none() || !self.threads.has_asked_all();
            if taken_over_at.is_none() && (is_stuck || is_limit_over && is_unasked) {
                // Those that are asked only now have a moment.
                (taken_over_at, late_since) = (Some(now), None);
                take_over(&self.shared, &self.threads);
            }
            // When the children were asked: as the supervisor thread noticed the shutdown, or as
            // this thread took over.
            let since = [noticed_at, taken_over_at].into_iter().flatten().min().unwrap_or(now);
            let longest = self.threads.longest_patience();
            let until =
                longest.map(|timeout| deadline::sooner(deadline::after(since, timeout), limit_at));
            if until.is_some_and(|until| !deadline::is_reached(until, now)) {
                late_since = None;
                continue;
            }
            let late_for = now - *late_since.get_or_insert(now);
            let is_hopeless = is_stuck || taken_over_at.is_some();
            let is_limit_long_over =
                deadline::is_reached(limit_at.and_then(|at| deadline::after(at, STUCK_AFTER)), now);
            if late_for >= LATENESS || late_for >= SLACK && is_hopeless || is_limit_long_over {
                return None;
            }
        }
    }

    fn report_meanwhile(&self, since: Instant) -> ShutdownReport {
        let unstopped = self.threads.unstopped(system_now(), since);
        let (cause, stuck_in) = (self.shared.cause(), self.shared.stuck_in());
        ShutdownReport { cause, unstopped, stuck_in, has_ended: self.shared.has_ended() }
    }
}

/// Repeated check whether a supervisor thread is stuck: in one call of user code, or without having
/// noticed a shutdown.
struct StuckWatch {
    asked_at: Instant,
    /// The call that was in progress at the last check, and the time of the check that first saw
    /// it.
    call: Option<(u64, Instant)>,
}

impl StuckWatch {
    fn new(asked_at: Instant) -> Self {
        Self { asked_at, call: None }
    }

    fn is_stuck(&mut self, shared: &Shared, now: Instant) -> bool {
        let before = self.call;
        self.call = shared.user_call.number().map(|call| match before {
            Some((same, since)) if same == call => (call, since),
            _ => (call, now),
        });
        let is_held = self.call.is_some_and(|(_, since)| now - since >= STUCK_AFTER);
        is_held || shared.noticed_at().is_none() && now - self.asked_at >= STUCK_AFTER
    }
}

/// Shutdown of a nested supervisor, which is looked at again and again until that has ended.
pub(crate) struct NestedShutdown {
    shared: Arc<Shared>,
    threads: Arc<ThreadRegistry>,
    /// When it was requested, with the watch over the supervisor thread.
    begun: Option<StuckWatch>,
    /// Those that wait for others are about to be asked.
    is_hurried: bool,
    /// The children are stopped without the supervisor thread.
    is_taken_over: bool,
}

impl NestedShutdown {
    pub(crate) fn new(shared: Arc<Shared>, threads: Arc<ThreadRegistry>) -> Self {
        Self { shared, threads, begun: None, is_hurried: false, is_taken_over: false }
    }

    /// Requests it, the first time, and makes sure that the children are asked to stop, by the
    /// supervisor thread or without it. Those that wait for others are asked a little before the
    /// time of the outer child is over: by then, whoever waits for that child may end the process.
    pub(crate) fn look(&mut self) {
        let (shared, now) = (&self.shared, system_now());
        let watch = self.begun.get_or_insert_with(|| {
            shared.request_shutdown(Duration::MAX);
            StuckWatch::new(now)
        });
        if self.is_taken_over || self.threads.has_asked_all() || shared.has_ended() {
            return;
        }
        if watch.is_stuck(shared, now) {
            self.is_taken_over = true;
            return take_over(shared, &self.threads);
        }
        let left = shared.closing_cap().map(|until| until.saturating_duration_since(now));
        if left.is_some_and(|left| left <= HEAD_START / 2) {
            // The supervisor thread is held up by something.
            self.is_taken_over = true;
            take_over(shared, &self.threads);
        } else if left.is_some_and(|left| left <= HEAD_START)
            && !std::mem::replace(&mut self.is_hurried, true)
        {
            let _ = shared.tell(Message::StopPostponed);
        }
    }
}

/// Stops the children without the supervisor thread, which is stuck and cannot report that they
/// stop.
fn take_over(shared: &Shared, threads: &Arc<ThreadRegistry>) {
    shared.show_take_over();
    threads.force_stop_all(system_now());
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        self.end(Duration::MAX);
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("name", &self.shared.name).finish_non_exhaustive()
    }
}
