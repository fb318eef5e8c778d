//! Reference model of one child, against which the core is checked.
//!
//! Its state follows from what arrives at the core, and from what the core asks, does and reports.
//! The parts hold the laws that are checked meanwhile: of each step, of each report, of the end of
//! a run, and of the core at rest.

mod reports;
mod run_end;
mod settled;
mod steps;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    core::{
        circuit::View,
        rules::{Policy, Rules},
    },
    event::Order,
    id::ChildId,
    proof::world::MS,
    status::{ChildStatus, OffBy},
    sync::deadline,
};

/// One child, as an observer of the core knows it.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) id: ChildId,
    pub(crate) rules: Rules,
    /// The ids of those that it comes after.
    pub(crate) after: Vec<ChildId>,
    /// Not all of them were ready when that was looked at last.
    pub(super) was_blocked: bool,
    /// It was reported as waiting since its last run.
    is_waiting_told: bool,
    /// The end of the wait that its last failure demands, whatever recovers; `None` is never.
    earliest: Option<Instant>,
    /// The shutdown has had it wait for others.
    pub(crate) was_postponed: bool,
    /// The end of a shutdown, with a limit.
    cap: Option<Instant>,
    /// What the flag answers; `None` if it has no answer.
    pub(crate) flag: Option<bool>,
    /// The last answer of the flag.
    asked_flag: bool,
    /// The moment at which the core last asked the flag.
    asked_in: u64,
    /// The last call of the flag panicked.
    is_flag_faulty: bool,
    /// Changes of the flag that the core still has to report.
    owed_flags: VecDeque<bool>,
    /// Panics of the flag that the core still has to report.
    unreported_flag_panics: usize,
    pub(crate) fails_to_spawn: bool,
    /// The core knows the child.
    pub(crate) is_inserted: bool,
    /// The core has not yet forgotten it.
    pub(crate) listed: bool,
    /// Whether the child is held or being removed, by the orders that were given.
    pub(crate) held: bool,
    pub(crate) removing: bool,
    /// Orders on their way to the core. An order that repeats or revokes a pending one replaces it,
    /// and stands at the end.
    pub(crate) pending: Vec<Order>,
    /// The same, by the orders that have reached the core.
    arrived_held: bool,
    pub(crate) arrived_removing: bool,
    /// A message that the run is healthy, or tripped, has arrived: the core has to act on it.
    is_owed_health: bool,
    is_owed_trip: bool,
    /// Orders that have arrived, and that the core still has to report.
    owed_orders: VecDeque<Order>,
    /// The moment at which the core last asked for a thread.
    thread_in: u64,
    /// A thread was provided, and the core has not retired it since.
    has_thread: bool,
    began: Option<u64>,
    started: Option<u64>,
    pub(crate) body: Option<Body>,
    /// The time of the stop request of the present run, and the deadline of that stop.
    pub(crate) stop_asked: Option<(Instant, Option<Instant>)>,
    /// The stop request came because it hung or its callers tripped it, which counts as a failure.
    stopped_for_fault: bool,
    overdue: bool,
    /// The present run was abandoned.
    abandoned: bool,
    /// The core still has to report that.
    is_owed_abandonment: bool,
    /// An operator has ordered a restart of the present run.
    restarting: bool,
    pub(crate) heartbeats: u64,
    /// The last heartbeat, or the begin or end of a wait, once there was a heartbeat.
    pub(crate) last_heartbeat: Option<Instant>,
    /// The run waits by its context, which is a sign of life throughout.
    pub(crate) is_waiting: bool,
    healthy: bool,
    /// It was up for `healthy_after`. The core has to report this before the end of the run.
    was_healthy: bool,
    failures: u32,
    /// When the first of these failures happened.
    failing_since: Option<Instant>,
    /// The failure count that was reset when the present run became healthy, and since when.
    forgiven: (u32, Option<Instant>),
    /// What was to be reported of it, if the end of the run shows that it was healthy.
    forgiven_at_end: (u32, Duration),
    /// The delay after its last failure.
    last_retry_in: Option<Duration>,
    /// The failure count at the end of the last run, without that failure.
    failures_at_end: u32,
    /// The last run was a failure.
    failed: bool,
    backoffs_asked: u32,
    /// The end of the backoff, if there is one; `Some(None)` is never.
    pub(crate) not_before: Option<Option<Instant>>,
    done: bool,
    /// It has finished, as its restart policy has it.
    is_finished: bool,
    /// The verdict of its last run was that trying again is useless.
    gave_up_by_verdict: bool,
    /// Its body was dropped, or will be when the run ends.
    is_body_gone: bool,
    view: Option<View>,
    pub(crate) runs: u32,
    pub(crate) last_run: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Body {
    pub(crate) run: u64,
    pub(crate) since: Instant,
    /// It has ended, and the message about that is on its way.
    pub(crate) ended: bool,
}

impl Model {
    pub(crate) fn new(id: ChildId, rules: Rules, flag: bool, fails_to_spawn: bool) -> Self {
        Self {
            id,
            rules,
            after: Vec::new(),
            was_blocked: false,
            is_waiting_told: false,
            earliest: None,
            was_postponed: false,
            cap: None,
            is_finished: false,
            flag: Some(flag),
            asked_flag: true,
            asked_in: 0,
            is_flag_faulty: false,
            owed_flags: VecDeque::new(),
            unreported_flag_panics: 0,
            fails_to_spawn,
            is_inserted: false,
            listed: true,
            held: false,
            removing: false,
            pending: Vec::new(),
            arrived_held: false,
            arrived_removing: false,
            is_owed_health: false,
            is_owed_trip: false,
            owed_orders: VecDeque::new(),
            thread_in: 0,
            has_thread: false,
            began: None,
            started: None,
            body: None,
            stop_asked: None,
            stopped_for_fault: false,
            overdue: false,
            abandoned: false,
            is_owed_abandonment: false,
            restarting: false,
            heartbeats: 0,
            last_heartbeat: None,
            is_waiting: false,
            healthy: false,
            was_healthy: false,
            failures: 0,
            failing_since: None,
            forgiven: (0, None),
            forgiven_at_end: (0, Duration::ZERO),
            last_retry_in: None,
            failures_at_end: 0,
            failed: false,
            backoffs_asked: 0,
            not_before: None,
            done: false,
            gave_up_by_verdict: false,
            is_body_gone: false,
            view: None,
            runs: 0,
            last_run: 0,
        }
    }

    /// All that decides what can happen next and what the model then expects.
    pub(crate) fn essence(&self, now: Instant) -> impl std::hash::Hash + use<> {
        let left = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now));
        let ago = |at: Instant| now.saturating_duration_since(at).min(self.rules.healthy_after);
        let body = self.body.map(|body| (ago(body.since), body.ended));
        let stop_asked = self.stop_asked.map(|(at, until)| (ago(at), left(until)));
        let orders = [self.held, self.removing, self.arrived_held, self.arrived_removing];
        let life = [
            self.listed,
            self.began.is_some(),
            self.started.is_some(),
            self.restarting,
            self.done,
            self.is_body_gone,
            self.has_thread,
        ];
        let run =
            [self.stopped_for_fault, self.healthy, self.was_healthy, self.overdue, self.abandoned];
        let pending: Vec<_> = self.pending.iter().map(|order| *order as u8).collect();
        let outside = (self.flag, self.asked_flag, self.fails_to_spawn, pending);
        {
            let earliest = left(self.earliest).filter(|_| !self.after.is_empty());
            let waiting = (self.was_postponed, self.was_blocked, self.is_waiting_told, earliest);
            let counts = (
                self.is_finished,
                waiting,
                self.failures,
                self.forgiven.0,
                self.last_retry_in,
                self.runs,
            );
            (body, stop_asked, orders, life, run, outside, counts, self.not_before.map(left))
        }
    }

    // ── What arrives at the core ──

    /// Whether this run is present and has no stop request.
    fn is_told_nothing(&self, run: u64) -> bool {
        self.stop_asked.is_none() && self.body.is_some_and(|body| body.run == run)
    }

    pub(crate) fn marked_healthy(&mut self, run: u64) {
        self.is_owed_health |= self.is_told_nothing(run);
    }

    pub(crate) fn tripped(&mut self, run: u64) {
        self.is_owed_trip |= self.is_told_nothing(run);
    }

    /// Notes a shutdown, which limits the time to stop.
    pub(crate) fn closed(&mut self, limit: Duration, again: bool, now: Instant) {
        self.cap = deadline::sooner(self.cap, deadline::after(now, limit));
        let until = deadline::sooner(deadline::after(now, self.rules.stop_timeout), self.cap);
        if let Some(asked) = &mut self.stop_asked {
            asked.1 = if again { deadline::sooner(asked.1, until) } else { until };
        }
    }

    /// When the core has to look at it next, at the latest, if it may be abandoned.
    pub(crate) fn look_due(&self, now: Instant) -> Option<Instant> {
        let limit = self.rules.abandon_after.filter(|_| !self.abandoned)?;
        self.body?;
        self.stop_asked?;
        deadline::after(now, (limit / 4).max(MS))
    }

    /// Whether it has not stopped for so long, and was not abandoned.
    pub(crate) fn is_to_be_abandoned(&self, now: Instant) -> bool {
        let Some((asked, _)) = self.stop_asked.filter(|_| self.body.is_some()) else {
            return false;
        };
        let limit = self.rules.abandon_after.filter(|_| !self.abandoned);
        limit.is_some_and(|limit| deadline::is_reached(deadline::after(asked, limit), now))
    }

    /// Until when it has time to stop, if it is asked now.
    fn time_to_stop(&self, now: Instant) -> Option<Instant> {
        let least = if self.was_postponed { Some(now + 250 * MS) } else { None };
        let cap = self.cap.map(|cap| least.map_or(cap, |least| least.max(cap)));
        deadline::sooner(deadline::after(now, self.rules.stop_timeout), cap)
    }

    // ── What it comes after ──

    /// Whether those that come after it may start.
    pub(crate) fn is_ready(&self) -> bool {
        match self.rules.policy {
            Policy::Permanent => self.body.is_some() && self.healthy && self.stop_asked.is_none(),
            Policy::Transient => self.body.is_none() && self.is_finished && !self.arrived_removing,
            Policy::Temporary => false,
        }
    }

    /// Notes whether all that it comes after is ready. A recovery ends its backoff.
    pub(crate) fn depends(&mut self, is_blocked: bool) {
        if std::mem::replace(&mut self.was_blocked, is_blocked) && !is_blocked {
            if let (Some(Some(not_before)), Some(earliest)) = (&mut self.not_before, self.earliest)
            {
                *not_before = earliest.min(*not_before);
            }
        }
    }

    /// Whether it neither does what it is for nor is down on purpose, nor waits for others.
    pub(crate) fn is_unwell(&self) -> bool {
        self.view.is_none_or(|view| match view.status {
            ChildStatus::Healthy | ChildStatus::Finished | ChildStatus::Waiting => false,
            ChildStatus::Off { by } => by == OffBy::Shutdown,
            _ => true,
        })
    }

    /// Whether, in a shutdown, those that it comes after have to wait for it.
    pub(crate) fn is_still_stopping(&self, now: Instant) -> bool {
        let had_its_time =
            self.stop_asked.is_some_and(|(_, until)| deadline::is_reached(until, now));
        self.body.is_some() && !had_its_time && !deadline::is_reached(self.cap, now)
    }

    /// Whether it was asked to stop, or may have been, for another reason than a shutdown.
    pub(crate) fn has_own_reason_to_stop(&self) -> bool {
        self.arrived_held
            || self.arrived_removing
            || self.restarting
            || self.is_owed_trip
            || self.rules.watchdog.is_some()
    }

    pub(crate) fn ordered(&mut self, order: Order, is_closed: bool) {
        self.owed_orders.push_back(order);
        match order {
            Order::Add => {}
            Order::Hold => self.arrived_held = true,
            Order::Release => self.arrived_held = false,
            Order::Remove => self.arrived_removing = true,
            Order::Restart | Order::Reset => {
                (self.failures, self.failing_since) = (0, None);
                self.last_retry_in = None;
                self.not_before = None;
                // A finished child is not started by a reset.
                let finished = self.view.is_some_and(|view| view.status == ChildStatus::Finished);
                self.done &= order == Order::Reset && finished;
                self.is_finished &= self.done;
                if order == Order::Restart {
                    self.restarting = self.started.is_some() && !is_closed;
                }
            }
        }
    }
}
