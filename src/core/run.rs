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
    /// In boxes, this and the watchdog's record: few children have one at a time.
    pub(super) stop: Option<Box<StopRequest>>,
    pub(super) overdue: bool,
    watched: Option<Box<Watched>>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StopRequest {
    /// The first cause wins and is never replaced.
    pub(super) cause: StopCause,
    pub(super) at: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) timed_out: bool,
    /// For how long the run has not stopped, as the supervisor has seen it. `None` if it may not be
    /// abandoned, or was.
    unstopped_for: Option<SeenTime>,
}

/// The watchdog's record of a run. It begins with the first heartbeat.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Watched {
    /// The number of heartbeats at the last look.
    heartbeats: u64,
    silence: SeenTime,
}

/// Time that the supervisor has seen pass: of each gap between two looks, a quarter of a limit
/// counts at most. While the supervisor thread could not run, perhaps no other could either.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct SeenTime {
    looked: Instant,
    seen: Duration,
}

impl SeenTime {
    fn new(now: Instant) -> Self {
        Self { looked: now, seen: Duration::ZERO }
    }

    /// The most that counts between two looks: a quarter of the limit, and at least 1 ms.
    fn interval(limit: Duration) -> Duration {
        (limit / 4).max(Duration::from_millis(1))
    }

    /// When to look at the clock next; `None` is never.
    fn next_look(&self, limit: Duration) -> Option<Instant> {
        let left = limit.saturating_sub(self.seen);
        deadline::after(self.looked, Self::interval(limit).min(left))
    }

    /// Counts the time since the last look. Returns whether the limit is reached.
    fn count(&mut self, limit: Duration, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.looked).min(Self::interval(limit));
        *self = Self { looked: now, seen: self.seen.saturating_add(since) };
        self.seen >= limit
    }
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
        rules: &Rules,
        now: Instant,
    ) -> bool {
        if self.stop.is_some() {
            return false;
        }
        let unstopped_for = rules.abandon_after.map(|_| SeenTime::new(now));
        let request = StopRequest { cause, at: now, deadline, timed_out: false, unstopped_for };
        self.stop = Some(Box::new(request));
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
        self.watched
            .get_or_insert_with(|| Box::new(Watched { heartbeats, silence: SeenTime::new(now) }));
    }

    /// When to look for a new heartbeat; `None` if the watchdog has not started.
    pub(super) fn next_look(&self, rules: &Rules) -> Option<Instant> {
        self.watched.as_ref()?.silence.next_look(rules.watchdog?)
    }

    /// Notes the present number of heartbeats. Returns how long the run has been silent, if that
    /// reaches the watchdog's limit.
    pub(super) fn look(
        &mut self,
        heartbeats: Heartbeats,
        rules: &Rules,
        now: Instant,
    ) -> Option<Duration> {
        let Watched { heartbeats: last, silence } = self.watched.as_deref_mut()?;
        let is_silent = std::mem::replace(last, heartbeats.count) == heartbeats.count;
        if is_silent && !heartbeats.is_waiting {
            silence.count(rules.watchdog?, now).then_some(silence.seen)
        } else {
            *silence = SeenTime::new(now);
            None
        }
    }
}

impl StopRequest {
    /// When to look whether the run is to be abandoned; `None` is never.
    pub(super) fn next_look(&self, rules: &Rules) -> Option<Instant> {
        self.unstopped_for.as_ref()?.next_look(rules.abandon_after?)
    }

    /// Counts the time for which the run has not stopped. Returns the time since the stop request
    /// if the run has to be abandoned now, once.
    pub(super) fn count(&mut self, rules: &Rules, now: Instant) -> Option<Duration> {
        let is_over = self.unstopped_for.as_mut()?.count(rules.abandon_after?, now);
        self.unstopped_for.take_if(|_| is_over)?;
        Some(now.saturating_duration_since(self.at))
    }
}

#[cfg(test)]
impl Run {
    /// All that decides its future behaviour, with instants relative to `now` and to its start.
    pub(super) fn essence(&self, rules: &Rules, now: Instant) -> impl std::hash::Hash + use<> {
        let Self { since, healthy, forgiven, stop, overdue, watched } = self;
        let age = |at: Instant| at.saturating_duration_since(*since).min(rules.healthy_after);
        let seen =
            |SeenTime { looked, seen }: &SeenTime| (now.saturating_duration_since(*looked), *seen);
        let stop = stop.as_ref().map(|stop| {
            let StopRequest { cause, at, deadline, timed_out, unstopped_for } = &**stop;
            let left = deadline.map(|at| at.saturating_duration_since(now));
            (*cause, age(*at), left, *timed_out, unstopped_for.as_ref().map(seen))
        });
        let watched =
            watched.as_deref().map(|Watched { heartbeats, silence }| (*heartbeats, seen(silence)));
        // Nothing is decided by the time of the first failure.
        (age(now), *healthy, forgiven.failures, stop, *overdue, watched)
    }
}
