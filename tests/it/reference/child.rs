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
    /// Before this, no recovery ends its backoff.
    pub(super) not_before: Duration,
    /// All that it comes after are ready.
    pub(super) is_free: bool,
    /// Not all were, since it was last looked at.
    pub(super) is_kept: bool,
    /// It is yet to be looked at since all became ready, or ceased to be.
    pub(super) is_unseen: bool,
    /// That it waits was told since its last run.
    pub(super) has_told_wait: bool,
    pub(super) is_flag_on: bool,
    pub(super) is_held: bool,
    /// Whether the last order to it, which the supervisor may be yet to carry out, was to hold or
    /// to remove it: no run begins then.
    pub(super) is_to_stay_down: bool,
    pub(super) is_to_go: bool,
    pub(super) is_removed: bool,
    /// Restarted by hand while it stops: no failure of that run counts.
    pub(super) is_restarted: bool,
    /// Restarted by hand, it is started before others.
    pub(super) is_by_hand: bool,
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
    /// shutdown, also if others that come after it still run.
    pub(super) time_from: Duration,
    pub(super) is_overdue: bool,
    /// It was abandoned, or was to be when the supervisor shut down already.
    pub(super) is_abandoned: bool,
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
            is_free: spec.after.is_empty(),
            is_kept: !spec.after.is_empty(),
            spec,
            run: None,
            failures: 0,
            failing_since: None,
            last_delay: None,
            retry_at: None,
            not_before: Duration::ZERO,
            has_told_wait: false,
            is_unseen: false,
            is_flag_on: true,
            is_held: false,
            is_to_stay_down: false,
            is_to_go: false,
            is_removed: false,
            is_restarted: false,
            is_by_hand: false,
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
            None if self.is_kept => ChildStatus::Waiting,
            None if self.retry_at.is_some_and(|at| at > now) => ChildStatus::BackingOff,
            None => ChildStatus::Due,
        }
    }

    /// Whether those that come after it may start.
    pub(super) fn is_ready(&self) -> bool {
        match &self.run {
            Some(run) => {
                self.spec.policy == Policy::Permanent
                    && run.is_healthy
                    && run.stop_request.is_none()
            }
            None => self.spec.policy == Policy::Transient && self.is_finished && !self.is_removed,
        }
    }

    /// When the last of those before a child has become ready, its backoff ends, but for one
    /// without end. Where the documentation leaves it open: also that of a child that is off
    /// meanwhile, and also if nobody has seen it wait, since the one before it failed and was well
    /// again at once.
    pub(super) fn look(&mut self) {
        self.is_unseen = false;
        if self.is_kept && self.is_free {
            self.is_kept = false;
            let least = self.not_before;
            self.retry_at = self.retry_at.map(|at| if at == MAX { at } else { at.min(least) });
        }
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

    pub(super) fn shown(
        &self,
        now: Duration,
        closes: Option<Duration>,
        waits_for: Option<WaitsFor>,
    ) -> Shown {
        let status = self.status(now, closes);
        let stop_request = self.run.as_ref().and_then(|run| run.stop_request);
        let left = |at: Duration| if at == MAX { MAX } else { at - now };
        Shown {
            status,
            circuit: self.circuit(),
            failures: self.failures,
            retry_in: self.retry_at.filter(|_| status == ChildStatus::BackingOff).map(left),
            waits_for: waits_for.filter(|_| status == ChildStatus::Waiting),
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
            run.filter(|run| !run.is_abandoned)
                .and(stop_request)
                .zip(self.spec.abandon_after)
                .map(|((_, at), limit)| at.saturating_add(limit)),
            run.and_then(|run| run.returns_at),
        ]
        .into_iter()
        .flatten()
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.is_overdue)
    }

    /// Until when a shutdown waits for it, if it has been asked to stop.
    pub(super) fn last_wait(&self) -> Option<Duration> {
        let run = self.run.as_ref().filter(|run| run.stop_request.is_some())?;
        Some(run.time_from.saturating_add(self.spec.stop_timeout))
    }

    /// Whether a shutdown waits for it: for as long as it may take to stop, and until it is asked.
    pub(super) fn is_waited_for(&self, now: Duration) -> bool {
        self.run.is_some() && self.last_wait().is_none_or(|last| now < last)
    }

    /// Since when it has been silent, if that is watched.
    pub(super) fn silent_since(&self) -> Option<(Duration, Duration, &'static str)> {
        let run = self.run.as_ref().filter(|run| run.stop_request.is_none())?;
        let (at, doing) = run.heartbeat?;
        Some((self.spec.watchdog?, at, doing))
    }
}
