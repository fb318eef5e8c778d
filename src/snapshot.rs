//! Snapshot of a supervisor and its children.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    core::{circuit::View, rules::Policy},
    event::{LastStop, StopCause, StopKind, WaitingFor, Wellness},
    id::ChildId,
    status::{ChildStatus, CircuitState, OffBy},
    sync::one_line::OneLine,
    thread_info::{ThreadInfo, Whereabouts},
    verdict::Advice,
    wording::{Failures, GotNoThread, In, Ran, Span},
};

/// State of one child at one moment, as far as it is known.
///
/// Its `Display` is one sentence that says what the child is doing or why it is down, and when it
/// is tried again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChildInfo {
    /// The child's id.
    pub id: ChildId,
    /// What it is doing.
    pub status: ChildStatus,
    /// The state of its breaker, as the supervisor knows it: a [`Breaker`](crate::Breaker) that its
    /// callers have just tripped is open already.
    pub circuit: CircuitState,
    /// The failures since it was last healthy:
    /// [`Event::failures`](crate::Event::failures).
    #[doc(alias = "attempt_count")]
    pub failures: u32,
    /// The present run, or the last one: the number of its start, counted from 1 for each child. A
    /// start for which no thread could be spawned counts, too. 0 before the first. A child that is
    /// removed and added again begins anew.
    pub run: u64,
    /// How long the present run has been up.
    pub uptime: Option<Duration>,
    /// Why the present run was asked to stop, and how long ago, if it was.
    pub stopping: Option<(StopCause, Duration)>,
    /// Whether the present run has not stopped within its stop timeout.
    pub is_overdue: bool,
    /// Once it was found to hang, to be overdue or to be abandoned: what its thread is doing, as
    /// far as that is known.
    pub thread: Option<ThreadInfo>,
    /// What the present or last run was doing, by its last
    /// [`heartbeat`](crate::ChildContext::heartbeat). `None` if it sent none, or if the child has
    /// no [watchdog](crate::ChildSpec::watchdog).
    pub doing: Option<&'static str>,
    /// How the last run ended.
    pub last_stop: Option<LastStop>,
    /// While it backs off: the time until it is tried again, zero if that is just about to happen
    /// and [`Duration::MAX`] if only a reset ends the backoff.
    pub retry_in: Option<Duration>,
    /// While it is on trial: the time until it is healthy, zero if that is just about to happen and
    /// [`Duration::MAX`] if only [`mark_healthy`](crate::ChildContext::mark_healthy) makes it so.
    pub healthy_in: Option<Duration>,
    /// While it waits for what it comes [after](crate::ChildSpec::after): for whom, and why.
    pub waiting_for: Option<WaitingFor>,
    /// In a [`Snapshot`]: what runs below it, while its body runs a
    /// [nested](crate::SupervisorBuilder::run) supervisor.
    pub branch: Option<Snapshot>,
}

impl ChildInfo {
    pub(crate) fn new(
        id: ChildId,
        view: &View,
        doing: Option<&'static str>,
        last_stop: Option<LastStop>,
        now: Instant,
    ) -> Self {
        let ago = |instant: Instant| now.saturating_duration_since(instant);
        let until = |status| {
            let left = |at: Instant| at.saturating_duration_since(now);
            (view.status == status).then(|| view.until.map_or(Duration::MAX, left))
        };
        Self {
            id,
            status: view.status,
            circuit: view.circuit,
            failures: view.failures,
            run: view.run,
            uptime: view.since.map(ago),
            stopping: view.stop.map(|(cause, at)| (cause, ago(at))),
            is_overdue: view.is_overdue,
            thread: None,
            doing,
            last_stop,
            retry_in: until(ChildStatus::BackingOff),
            healthy_in: until(ChildStatus::OnTrial),
            waiting_for: None,
            branch: None,
        }
    }

    /// The same with only the text of the user's error, without the error itself, to be kept for
    /// long.
    pub(crate) fn without_error(mut self) -> Self {
        if let Some(last) = &mut self.last_stop {
            last.exit = last.exit.without_error();
        }
        self
    }

    /// Returns whether the body is running.
    pub fn is_running(&self) -> bool {
        self.status.is_running()
    }

    /// Whether it does what it is for, or is down on purpose.
    pub(crate) fn is_at_work(&self) -> bool {
        self.status.is_at_work().unwrap_or_else(|| self.wellness_of_root() == Wellness::Off)
    }

    /// Whether it needs no attention.
    fn is_well(&self) -> bool {
        match self.status {
            ChildStatus::Off { by: OffBy::Flag | OffBy::Operator } | ChildStatus::Finished => true,
            ChildStatus::GaveUp => false,
            ChildStatus::Waiting => self.wellness_of_root() != Wellness::Ill,
            ChildStatus::OnTrial
            | ChildStatus::Healthy
            | ChildStatus::Stopping
            | ChildStatus::BackingOff
            | ChildStatus::Off { by: OffBy::Shutdown }
            | ChildStatus::Due => {
                let has_fault =
                    self.stopping.is_some_and(|(cause, _)| cause.kind() == StopKind::Fault);
                self.failures == 0 && !self.is_overdue && !has_fault
            }
        }
    }

    /// How the child is for which it waits in the end.
    fn wellness_of_root(&self) -> Wellness {
        self.waiting_for.as_ref().map_or(Wellness::Ill, |waiting| waiting.wellness)
    }

    /// Describes the child to those that come after it. `runs_branch` says whether its body runs a
    /// nested supervisor.
    pub(crate) fn as_dependency(&self, policy: Policy, runs_branch: bool) -> Description {
        let wellness = match self.status {
            ChildStatus::Off { by: OffBy::Flag | OffBy::Operator } => Wellness::Off,
            _ if self.is_well() => Wellness::Well,
            _ => Wellness::Ill,
        };
        let mut explanation = self.explanation();
        let (state, separator) = match self.status {
            status if policy.is_ready_in(status) => {
                explanation.clear();
                (String::from("has just become ready"), "")
            }
            ChildStatus::OnTrial | ChildStatus::Healthy if policy == Policy::Transient => {
                (String::from("runs, and is ready when it has finished"), "; ")
            }
            ChildStatus::OnTrial => {
                let when = if runs_branch {
                    "when all below it is well"
                } else {
                    "when it calls `mark_healthy`"
                };
                let ready = match self.healthy_in.unwrap_or(Duration::MAX) {
                    Duration::MAX => when.to_owned(),
                    left => format!("{}, or {when}", In(left)),
                };
                (format!("is on trial: ready {ready}"), "; ")
            }
            ChildStatus::GaveUp => (String::from("gave up"), ": "),
            status => (format!("is {status}"), ": "),
        };
        let separator = if explanation.is_empty() { "" } else { separator };
        Description { reason: format!("{state}{separator}{explanation}"), state, wellness }
    }

    /// What the last run said is to follow, if it ended by itself.
    fn advice(&self) -> Option<Advice> {
        let last = self.last_stop.as_ref()?;
        last.cause.advice(&last.exit)
    }

    /// Why its present or last run was asked to stop, with what it was doing if it fell silent.
    fn reason_to_stop(&self, cause: StopCause) -> String {
        match (cause, self.doing) {
            (StopCause::Hung, Some(doing)) => {
                format!("{} while {}", cause.reason(), OneLine(doing))
            }
            _ => cause.reason().to_owned(),
        }
    }

    /// Why it is as it is, and what comes next: the part of the sentence after the status.
    fn explanation(&self) -> String {
        let last = self.last_stop.as_ref().map(|last| match last.cause.kind() {
            StopKind::NotSpawned => format!("it {}", GotNoThread(&last.exit)),
            StopKind::ByItself if last.exit.is_completed() && !last.failed => {
                format!("it ran for {}", Span(last.uptime))
            }
            StopKind::ByItself => format!("it {}", Ran(&last.exit, last.uptime)),
            StopKind::Fault => {
                format!(
                    "it was stopped after {} because {}",
                    Span(last.uptime),
                    self.reason_to_stop(last.cause)
                )
            }
            StopKind::Asked if !last.exit.obeys_stop() => {
                format!("it was stopped after {} and {}", Span(last.uptime), last.exit)
            }
            StopKind::Asked => format!("it was stopped after {}", Span(last.uptime)),
        });
        let last = last.unwrap_or_else(|| String::from("it has not run yet"));
        match self.status {
            ChildStatus::Healthy => String::new(),
            ChildStatus::OnTrial if self.failures == 0 => String::new(),
            ChildStatus::OnTrial => {
                format!("{}; last time, {last}", Failures(self.failures))
            }
            ChildStatus::Stopping => {
                let Some((cause, stopping_for)) = self.stopping else { return last };
                let reason = self.reason_to_stop(cause);
                let overdue = if self.is_overdue { ", overdue" } else { "" };
                // The reason to stop one that hangs says it already.
                let doing = self.doing.filter(|_| self.is_overdue && cause != StopCause::Hung);
                let stuck = Whereabouts { doing, thread: self.thread.as_ref() };
                format!("{reason}, asked {} ago{overdue}{stuck}", Span(stopping_for))
            }
            ChildStatus::BackingOff => {
                let demand = match self.advice() {
                    Some(Advice::RetryAfter(wait)) => {
                        format!(" (its error demands {})", Span(wait))
                    }
                    Some(Advice::GiveUp) | None => String::new(),
                };
                format!(
                    "{last}; {}; tried again {}{demand}",
                    Failures(self.failures),
                    In(self.retry_in.unwrap_or_default())
                )
            }
            ChildStatus::Off { by } => {
                let why = match by {
                    OffBy::Flag => "its flag is off",
                    OffBy::Operator => "held by the operator until released",
                    OffBy::Shutdown => "its supervisor shuts down",
                };
                if self.run == 0 { why.to_owned() } else { format!("{why}; {last}") }
            }
            ChildStatus::Waiting => {
                // Why the root is down stands in its own row.
                let waiting = self.waiting_for.as_ref().map(|on| format!("for {}", on.in_short()));
                waiting.unwrap_or_default()
            }
            ChildStatus::Due if self.run == 0 => String::from("to be started in its turn"),
            ChildStatus::Due => format!("to be started in its turn; {last}"),
            ChildStatus::Finished => last,
            ChildStatus::GaveUp => {
                let why = match self.advice() {
                    Some(Advice::GiveUp) => String::from("trying again is useless, says the error"),
                    Some(Advice::RetryAfter(_)) | None => Failures(self.failures).to_string(),
                };
                format!("{last}; {why}; stays down until it is reset")
            }
        }
    }
}

/// What those that come after a child are told about it.
pub(crate) struct Description {
    /// What it is doing, and when it will be ready: the part of a sentence after "which".
    pub(crate) state: String,
    /// The same with why.
    pub(crate) reason: String,
    pub(crate) wellness: Wellness,
}

impl fmt::Display for ChildInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            ChildStatus::GaveUp => write!(f, "`{}` gave up", self.id)?,
            ChildStatus::Waiting => {
                write!(f, "`{}` waits", self.id)?;
                return self.waiting_for.as_ref().map_or(Ok(()), |on| write!(f, " for {on}"));
            }
            status => write!(f, "`{}` is {status}", self.id)?,
        }
        if let Some(uptime) = self.uptime {
            write!(f, ", up for {} (run {})", Span(uptime), self.run)?;
        }
        let explanation = self.explanation();
        if explanation.is_empty() { Ok(()) } else { write!(f, ": {explanation}") }
    }
}

/// State of a supervisor and all its children, as far as it is known.
///
/// Each child is shown as it was at one moment; the children are read one after the other. What
/// runs below a child is in its [`branch`](ChildInfo::branch). The `Display` of a snapshot is a
/// table of all of that, one row for each child, which says why a child is not running and when it
/// is tried again. The column `RUN` holds the number of the present or last run, which says how
/// often the child was started.
///
/// ```
/// # use circuit_breaker_supervisor::{ChildSpec, Supervisor};
/// let supervisor = Supervisor::builder()
///     .name("pipeline")
///     .child(ChildSpec::new("parser", |ctx| ctx.wait_until_stopped()))
///     .start()?;
/// let snapshot = supervisor.handle().snapshot();
/// assert!(snapshot.is_healthy());
/// assert_eq!(snapshot.counts().running, 1);
/// println!("{snapshot}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The supervisor's name.
    pub name: Arc<str>,
    /// Whether the supervisor runs and was not asked to shut down.
    pub is_running: bool,
    /// The children, in list order.
    pub children: Vec<ChildInfo>,
}

/// Numbers of children, by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// All listed children.
    pub children: usize,
    /// Those whose body is running: the sum of the next three.
    pub running: usize,
    /// Running, and on trial.
    pub on_trial: usize,
    /// Running, and healthy.
    pub healthy: usize,
    /// Running, and asked to stop.
    pub stopping: usize,
    /// Waiting for what they come [after](crate::ChildSpec::after).
    pub waiting: usize,
    /// Down, until their backoff is over.
    pub backing_off: usize,
    /// Off, by their flag, an operator or the shutdown.
    pub off: usize,
    /// About to be started.
    pub due: usize,
    /// Finished.
    pub finished: usize,
    /// Given up.
    pub gave_up: usize,
}

impl Snapshot {
    /// Counts the children by status, those of nested supervisors included.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.visit(&mut |child| {
            counts.children += 1;
            counts.running += usize::from(child.is_running());
            *match child.status {
                ChildStatus::OnTrial => &mut counts.on_trial,
                ChildStatus::Healthy => &mut counts.healthy,
                ChildStatus::Stopping => &mut counts.stopping,
                ChildStatus::Waiting => &mut counts.waiting,
                ChildStatus::BackingOff => &mut counts.backing_off,
                ChildStatus::Off { .. } => &mut counts.off,
                ChildStatus::Due => &mut counts.due,
                ChildStatus::Finished => &mut counts.finished,
                ChildStatus::GaveUp => &mut counts.gave_up,
            } += 1;
        });
        counts
    }

    /// Returns whether all is well: the answer for `/healthz`.
    ///
    /// The supervisor runs, and no child, its own or one below, has failed since it was last
    /// healthy, was given up, is overdue, hangs, or was tripped by its callers. A child on its
    /// first trial is well; so is one that has finished, or is off by its flag or by an operator,
    /// whatever happened before: it is down on purpose. One that waits for another is as well as
    /// that one.
    pub fn is_healthy(&self) -> bool {
        let mut are_well = true;
        self.visit(&mut |child| are_well &= child.is_well());
        self.is_running && are_well
    }

    /// Calls `f` for each child, and for those below it.
    fn visit<'a>(&'a self, f: &mut impl FnMut(&'a ChildInfo)) {
        for child in &self.children {
            f(child);
            if let Some(branch) = &child.branch {
                branch.visit(f);
            }
        }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { children, running, .. } = self.counts();
        let state = match (self.is_running, self.is_healthy()) {
            (false, _) if running > 0 => "shutting down",
            (false, _) => "shut down",
            (true, true) => "healthy",
            (true, false) => "not healthy",
        };
        write!(f, "{}: {state}, {running} of {children} children running", self.name)?;
        let mut rows = Vec::new();
        self.visit(&mut |child| rows.push(child));
        let width = rows.iter().map(|child| child.id.chars().count()).max();
        let width = width.unwrap_or(0).clamp(2, 40);
        if !rows.is_empty() {
            write!(
                f,
                "\n{:width$}  {:14}  {:>6}  {:>8}  {:>11}  WHY",
                "ID", "STATUS", "RUN", "FAILURES", "UP"
            )?;
        }
        for child in rows {
            let up =
                child.uptime.map_or_else(|| String::from("-"), |uptime| Span(uptime).to_string());
            let row = format!(
                "{:width$}  {:14}  {:>6}  {:>8}  {up:>11}  {}",
                child.id,
                child.status,
                child.run,
                child.failures,
                child.explanation(),
            );
            write!(f, "\n{}", row.trim_end())?;
        }
        Ok(())
    }
}
