//! Facts about one run, from the decision to start it to its end.

use std::time::{Duration, Instant};

use crate::{core::rules::Rules, event::StopCause, sync::deadline};

/// The failures in a row since a child was last healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streak {
    pub(crate) failures: u32,
    /// When the first of them happened.
    pub(crate) since: Option<Instant>,
}

impl Streak {
    pub(super) fn add(&mut self, at: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.since.get_or_insert(at);
    }
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Run {
    pub(super) since: Instant,
    pub(super) healthy: bool,
    /// The failures that were forgiven when it became healthy.
    pub(super) forgiven: Streak,
    pub(super) stop: Option<StopRequest>,
    pub(super) overdue: bool,
    watched: Option<Watched>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StopRequest {
    /// The first cause wins and is never replaced.
    pub(super) cause: StopCause,
    pub(super) at: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) timed_out: bool,
}

/// The watchdog's record of a run. It begins with the first heartbeat.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Watched {
    /// The number of heartbeats at the last look, and the time of that look.
    heartbeats: u64,
    looked: Instant,
    silent_for: Duration,
}

/// The signs of life of a run, and the text that came with its last heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heartbeats {
    /// The number of heartbeats, and of waits that began or ended.
    pub(crate) count: u64,
    pub(crate) doing: &'static str,
    /// It waits by its context now, where a stop would reach it.
    pub(crate) is_waiting: bool,
}

impl Run {
    pub(super) fn new(now: Instant) -> Self {
        let forgiven = Streak::default();
        Self { since: now, healthy: false, forgiven, stop: None, overdue: false, watched: None }
    }

    /// Notes a stop request. Returns whether it is the first one; a later one changes nothing.
    pub(super) fn request_stop(
        &mut self,
        cause: StopCause,
        deadline: Option<Instant>,
        now: Instant,
    ) -> bool {
        if self.stop.is_some() {
            return false;
        }
        self.stop = Some(StopRequest { cause, at: now, deadline, timed_out: false });
        true
    }

    /// Notes that its stop timeout is over. Returns how long it has been stopping, unless it was
    /// reported as overdue before.
    pub(super) fn stop_timed_out(&mut self, now: Instant) -> Option<Duration> {
        let stop = self.stop.as_mut()?;
        stop.timed_out = true;
        let first = !std::mem::replace(&mut self.overdue, true);
        first.then(|| now.saturating_duration_since(stop.at))
    }

    /// When it becomes healthy by its uptime, unless it is healthy; `None` is never.
    pub(super) fn healthy_at(&self, rules: &Rules) -> Option<Instant> {
        if self.healthy { None } else { deadline::after(self.since, rules.healthy_after) }
    }

    /// Starts the watchdog, on the first heartbeat.
    pub(super) fn watch(&mut self, heartbeats: u64, now: Instant) {
        self.watched.get_or_insert(Watched { heartbeats, looked: now, silent_for: Duration::ZERO });
    }

    /// When to look for a new heartbeat; `None` if the watchdog has not started.
    pub(super) fn look_at(&self, rules: &Rules) -> Option<Instant> {
        deadline::after(self.watched.as_ref()?.looked, rules.time_to_look())
    }

    /// Notes the present number of heartbeats. Returns how long the run has been silent, if that
    /// reaches the watchdog's limit.
    ///
    /// A late look counts for one interval only: while the supervisor thread could not run, perhaps
    /// the child could not run either.
    pub(super) fn look(
        &mut self,
        heartbeats: Heartbeats,
        rules: &Rules,
        now: Instant,
    ) -> Option<Duration> {
        let watched = self.watched.as_mut()?;
        let since = now.saturating_duration_since(watched.looked).min(rules.time_to_look());
        watched.looked = now;
        let before = std::mem::replace(&mut watched.heartbeats, heartbeats.count);
        if before == heartbeats.count && !heartbeats.is_waiting {
            watched.silent_for = watched.silent_for.saturating_add(since);
        } else {
            watched.silent_for = Duration::ZERO;
        }
        (watched.silent_for >= rules.watchdog?).then_some(watched.silent_for)
    }
}

#[cfg(test)]
impl Run {
    /// All that decides its future behaviour, with instants relative to `now` and to its start.
    pub(super) fn essence(&self, rules: &Rules, now: Instant) -> impl std::hash::Hash + use<> {
        let Self { since, healthy, forgiven, stop, overdue, watched } = self;
        let age = |at: Instant| at.saturating_duration_since(*since).min(rules.healthy_after);
        let stop = stop.as_ref().map(|StopRequest { cause, at, deadline, timed_out }| {
            (*cause, age(*at), deadline.map(|at| at.saturating_duration_since(now)), *timed_out)
        });
        let watched = watched.as_ref().map(|Watched { heartbeats, looked, silent_for }| {
            (*heartbeats, now.saturating_duration_since(*looked), *silent_for)
        });
        // Nothing is decided by the time of the first failure.
        (age(now), *healthy, forgiven.failures, stop, *overdue, watched)
    }
}
