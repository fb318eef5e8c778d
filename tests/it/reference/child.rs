//! Child of the reference supervisor: its state, and what is shown of it.

use std::time::Duration;

use circuit_breaker_supervisor::{ChildStatus, CircuitState, OffBy, StopCause};

use crate::program::*;

#[derive(Clone, Debug)]
pub(crate) struct Child {
    /// Counts those that were added.
    pub(super) number: u64,
    pub(crate) spec: Spec,
    pub(super) run: Option<Run>,
    pub(super) failures: u32,
    /// When the first of them happened.
    pub(super) failing_since: Option<Duration>,
    /// The delay after its last failure.
    pub(super) last_delay: Option<Duration>,
    pub(super) retry_at: Option<Duration>,
    pub(super) is_flag_on: bool,
    pub(super) is_held: bool,
    /// Whether the last order to it, which the supervisor may be yet to carry out, was to hold or
    /// to remove it: no run begins then.
    pub(super) is_to_stay_down: bool,
    pub(super) is_to_go: bool,
    pub(super) is_removed: bool,
    /// Restarted by hand while it stops: no failure of that run counts.
    pub(super) is_restarted: bool,
    pub(super) is_finished: bool,
    pub(super) has_given_up: bool,
    pub(super) has_thread: bool,
    /// The orders that are yet to be carried out. One that repeats another, or takes it back, takes
    /// its place, at the end.
    pub(super) orders: Vec<Order>,
    /// The supervisor has learnt that it was added.
    pub(super) is_known: bool,
    /// The children that there are at first are started in turn, or when there is something else to
    /// be done with them.
    pub(super) has_had_turn: bool,
    pub(super) last_stop: Option<(StopCause, Ending, Duration)>,
}

#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) number: u64,
    pub(super) since: Duration,
    pub(super) is_healthy: bool,
    /// How many failures were forgiven as it became healthy.
    pub(super) forgiven: (u32, Option<Duration>),
    pub(super) has_said_so: bool,
    /// Why and when it was asked to stop.
    pub(super) stop_request: Option<(StopCause, Duration)>,
    /// Since when its stop timeout runs: since that request, and anew from the beginning of a
    /// shutdown.
    pub(super) time_from: Duration,
    pub(super) is_overdue: bool,
    /// When it returns, since it was asked to stop.
    pub(super) returns_at: Option<Duration>,
    /// It has ended, which the supervisor is yet to learn.
    pub(super) is_over: bool,
    pub(super) heartbeat: Option<(Duration, &'static str)>,
    pub(super) reports: u32,
    pub(super) is_tripped: bool,
}

impl Child {
    pub(super) fn new(number: u64, spec: Spec) -> Self {
        Self {
            number,
            spec,
            run: None,
            failures: 0,
            failing_since: None,
            last_delay: None,
            retry_at: None,
            is_flag_on: true,
            is_held: false,
            is_to_stay_down: false,
            is_to_go: false,
            is_removed: false,
            is_restarted: false,
            is_finished: false,
            has_given_up: false,
            has_thread: false,
            orders: Vec::new(),
            is_known: true,
            has_had_turn: true,
            last_stop: None,
        }
    }

    /// The table at `ChildStatus`, row by row.
    pub(super) fn status(&self, now: Duration, closes: Option<Duration>) -> ChildStatus {
        match &self.run {
            Some(run) if run.stop_request.is_some() => ChildStatus::Stopping,
            Some(run) if run.is_healthy => ChildStatus::Healthy,
            Some(_) => ChildStatus::OnTrial,
            None if closes.is_some() => ChildStatus::Off { by: OffBy::Shutdown },
            None if self.is_finished => ChildStatus::Finished,
            None if self.has_given_up => ChildStatus::GaveUp,
            None if self.is_held => ChildStatus::Off { by: OffBy::Operator },
            None if !self.is_flag_on => ChildStatus::Off { by: OffBy::Flag },
            None if self.retry_at.is_some_and(|at| at > now) => ChildStatus::BackingOff,
            None => ChildStatus::Due,
        }
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.run.is_none() && self.status(now, None) == ChildStatus::Due
    }

    /// What the supervisor knows; callers see at once what they have tripped.
    pub(super) fn circuit(&self) -> CircuitState {
        match &self.run {
            Some(run) if run.stop_request.is_some() => CircuitState::Open,
            Some(run) if run.is_healthy || self.failures == 0 => CircuitState::Closed,
            Some(_) => CircuitState::HalfOpen,
            None => CircuitState::Open,
        }
    }

    pub(super) fn breaker(&self) -> CircuitState {
        if self.run.as_ref().is_some_and(|run| run.is_tripped) {
            CircuitState::Open
        } else {
            self.circuit()
        }
    }

    pub(super) fn shown(&self, now: Duration, closes: Option<Duration>) -> Shown {
        let status = self.status(now, closes);
        let stop_request = self.run.as_ref().and_then(|run| run.stop_request);
        let left = |at: Duration| if at == MAX { MAX } else { at - now };
        Shown {
            status,
            circuit: self.circuit(),
            failures: self.failures,
            retry_in: self.retry_at.filter(|_| status == ChildStatus::BackingOff).map(left),
            uptime: self.run.as_ref().map(|run| now - run.since),
            stopping: stop_request.map(|(cause, at)| (cause, now - at)),
            is_overdue: self.run.as_ref().is_some_and(|run| run.is_overdue),
            last_stop: self.last_stop,
        }
    }

    /// When something happens to it by itself.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Duration> {
        let run = self.run.as_ref();
        let stop_request = run.and_then(|run| run.stop_request);
        let trial = run.filter(|run| stop_request.is_none() && !run.is_healthy);
        [
            self.retry_at.filter(|_| run.is_none()),
            trial.map(|run| run.since.saturating_add(self.spec.healthy_after)),
            run.filter(|run| stop_request.is_some() && !run.is_overdue)
                .map(|run| run.time_from.saturating_add(self.spec.stop_timeout)),
            run.and_then(|run| run.returns_at),
        ]
        .into_iter()
        .flatten()
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.is_overdue)
    }

    /// Whether a shutdown waits for it: from its own beginning on for as long as the child may take
    /// to stop.
    pub(super) fn is_waited_for(&self, since: Duration, now: Duration) -> bool {
        self.run.is_some() && now < since.saturating_add(self.spec.stop_timeout)
    }

    /// Since when it has been silent, if that is watched.
    pub(super) fn silent_since(&self) -> Option<(Duration, Duration, &'static str)> {
        let run = self.run.as_ref().filter(|run| run.stop_request.is_none())?;
        let (at, doing) = run.heartbeat?;
        Some((self.spec.watchdog?, at, doing))
    }
}
