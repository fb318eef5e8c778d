//! Reference model of one child: state derived from what the core asks and does, and its laws.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::world::MS;
use crate::{
    core::{
        circuit::View,
        environment::{NotProvided, StartDenied},
        rules::{Policy, Rules},
    },
    event::{Callback, EventKind, Order, StopCause},
    exit::Failure,
    id::ChildId,
    status::{ChildStatus, CircuitState, OffBy},
    sync::deadline,
};

/// One child, as an observer of the core knows it.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) id: ChildId,
    pub(crate) rules: Rules,
    /// What the flag answers; `None` if it has no answer.
    pub(crate) flag: Option<bool>,
    /// The last answer of the flag.
    asked_flag: bool,
    /// The settling in which the core last asked the flag.
    asked_in: u64,
    /// The last call of the flag panicked.
    is_flag_faulty: bool,
    /// Panics of the flag that the core still has to report.
    flag_panics_untold: usize,
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
    /// The settling in which the core last asked for a thread.
    thread_in: u64,
    /// A thread was provided, and the core has not retired it since.
    has_thread: bool,
    began: Option<u64>,
    started: Option<u64>,
    pub(crate) body: Option<Body>,
    /// The time of the stop request of the present run, and the deadline of that stop.
    pub(crate) told: Option<(Instant, Option<Instant>)>,
    /// The stop request came because it hung or its callers tripped it, which counts as a failure.
    told_as_failure: bool,
    overdue: bool,
    /// An operator has ordered a restart of the present run.
    restarting: bool,
    pub(crate) heartbeats: u64,
    pub(crate) last_heartbeat: Option<Instant>,
    healthy: bool,
    /// It was up for `healthy_after`. The core has to report this before the end of the run.
    was_healthy: bool,
    failures: u32,
    /// The failure count that was reset when the present run became healthy.
    forgiven: u32,
    /// The delay after its last failure.
    last_retry_in: Option<Duration>,
    /// The failure count at the end of the last run, without that failure.
    failures_at_end: u32,
    backoffs_asked: u32,
    /// The end of the backoff, if there is one; `Some(None)` is never.
    pub(crate) not_before: Option<Option<Instant>>,
    done: bool,
    /// Its body was dropped, or will be when the run ends.
    let_go: bool,
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

/// The expected consequences of the end of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreseen {
    failed: bool,
    done: bool,
    backoffs_asked: u32,
}

impl Model {
    pub(crate) fn new(id: ChildId, rules: Rules, flag: bool, fails_to_spawn: bool) -> Self {
        Self {
            id,
            rules,
            flag: Some(flag),
            asked_flag: true,
            asked_in: 0,
            is_flag_faulty: false,
            flag_panics_untold: 0,
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
            told: None,
            told_as_failure: false,
            overdue: false,
            restarting: false,
            heartbeats: 0,
            last_heartbeat: None,
            healthy: false,
            was_healthy: false,
            failures: 0,
            forgiven: 0,
            last_retry_in: None,
            failures_at_end: 0,
            backoffs_asked: 0,
            not_before: None,
            done: false,
            let_go: false,
            view: None,
            runs: 0,
            last_run: 0,
        }
    }

    // ── What the core asks ──

    /// The answer of the flag; `None` if it panics or has no answer.
    pub(crate) fn ask_flag(&mut self, settling: u64, panics: bool) -> Option<bool> {
        assert!(self.listed, "{} is gone and its flag was asked", self.id);
        assert!(!self.arrived_removing, "{} is being removed and its flag was asked", self.id);
        self.asked_in = settling;
        self.flag_panics_untold += usize::from(panics && !self.is_flag_faulty);
        self.is_flag_faulty = panics;
        if panics {
            return None;
        }
        self.asked_flag = self.flag.unwrap_or(self.asked_flag);
        self.flag
    }

    pub(crate) fn ask_backoff(&mut self) {
        self.backoffs_asked += 1;
    }

    /// Provides a thread for a run that is about to begin, unless an order forbids it.
    pub(crate) fn provide_thread(
        &mut self,
        settling: u64,
        now: Instant,
    ) -> Result<(), NotProvided> {
        if self.removing || self.held {
            return Err(NotProvided::Denied(StartDenied));
        }
        assert!(
            self.began.is_none() && self.body.is_none(),
            "promise 1: {} begins while it runs",
            self.id
        );
        assert!(self.asked_flag, "promise 6: {} begins with its flag off", self.id);
        assert_eq!(
            self.asked_in, settling,
            "promise 6: the flag is asked right before every start"
        );
        assert!(!self.done, "a finished or given-up child begins");
        if let Some(not_before) = self.not_before {
            let due = not_before.is_some_and(|at| at <= now);
            assert!(due, "promise 3: {} begins at {now:?}, before {not_before:?}", self.id);
        }
        assert!(self.fails_to_spawn || !self.let_go, "its body is gone");
        self.thread_in = settling;
        self.has_thread |= !self.fails_to_spawn;
        if self.fails_to_spawn {
            Err(NotProvided::Failed(Failure::new("no thread".into())))
        } else {
            Ok(())
        }
    }

    /// Publishes a new run, unless an order forbids it.
    pub(crate) fn begin(&mut self, view: View, settling: u64) -> Result<(), StartDenied> {
        if self.removing || self.held {
            return Err(StartDenied);
        }
        assert_eq!(
            self.thread_in, settling,
            "promise 2: nobody sees a run begin for which there may be no thread"
        );
        assert!(!self.fails_to_spawn, "promise 2: a run is seen to begin that has no thread");
        assert_eq!(view.failures, self.failures, "promise 4");
        assert_eq!(view.run, self.last_run + 1, "promise 12: runs are counted from 1");
        self.last_run = view.run;
        self.began = Some(view.run);
        self.runs += 1;
        self.view = Some(view);
        Ok(())
    }

    // ── What arrives at the core ──

    /// Whether this run is present and has no stop request.
    fn is_told_nothing(&self, run: u64) -> bool {
        self.told.is_none() && self.body.is_some_and(|body| body.run == run)
    }

    pub(crate) fn marked_healthy(&mut self, run: u64) {
        self.is_owed_health |= self.is_told_nothing(run);
    }

    pub(crate) fn tripped(&mut self, run: u64) {
        self.is_owed_trip |= self.is_told_nothing(run);
    }

    /// Notes a shutdown, which limits the time to stop.
    pub(crate) fn closed(&mut self, limit: Duration, again: bool, now: Instant) {
        self.rules.stop_timeout = self.rules.stop_timeout.min(limit);
        let until = deadline::after(now, self.rules.stop_timeout);
        if let Some(told) = &mut self.told {
            told.1 = if again { deadline::sooner(told.1, until) } else { until };
        }
    }

    pub(crate) fn ordered(&mut self, order: Order) {
        self.owed_orders.push_back(order);
        match order {
            Order::Add => {}
            Order::Hold => self.arrived_held = true,
            Order::Release => self.arrived_held = false,
            Order::Remove => self.arrived_removing = true,
            Order::Restart | Order::Reset => {
                self.failures = 0;
                self.last_retry_in = None;
                self.not_before = None;
                // A finished child is not started by a reset.
                let finished = self.view.is_some_and(|view| view.status == ChildStatus::Finished);
                self.done &= order == Order::Reset && finished;
                if order == Order::Restart {
                    self.restarting = self.started.is_some();
                }
            }
        }
    }

    /// Notes the end of a run, before the core learns of it.
    pub(crate) fn end(
        &mut self,
        body: Body,
        completed: bool,
        is_closed: bool,
        at: Instant,
    ) -> Foreseen {
        self.body = None;
        let until = self.told.map_or(at, |(told, _)| told.min(at));
        let healthy_at = deadline::after(body.since, self.rules.healthy_after);
        self.was_healthy = deadline::is_reached(healthy_at, until);
        if self.was_healthy && !self.healthy {
            self.failures = 0;
        }
        let asked = self.told.is_some() && !self.told_as_failure;
        let temporary = self.rules.policy == Policy::Temporary;
        let finished = completed && self.rules.policy == Policy::Transient && !self.told_as_failure;
        let leaves = self.arrived_removing || is_closed || self.restarting;
        let failed = !asked && !temporary && !finished && !leaves;
        // Promise 4: a child that said too soon that it is healthy gets its failures back.
        let least =
            self.last_retry_in.map_or(Duration::ZERO, |delay| delay.min(self.rules.healthy_after));
        if failed && self.healthy && until.saturating_duration_since(body.since) < least {
            self.failures = self.forgiven;
        }
        self.failures_at_end = self.failures;
        Foreseen {
            failed,
            done: temporary || (finished && !asked),
            backoffs_asked: self.backoffs_asked,
        }
    }

    /// Checks what the core did at the end of a run.
    pub(crate) fn ended(
        &mut self,
        foreseen: Foreseen,
        last_backoff: Option<(u32, Duration)>,
        at: Instant,
    ) {
        self.done = foreseen.done;
        if foreseen.failed {
            self.failures += 1;
            if self.rules.max_restarts.is_some_and(|most| self.failures > most) {
                assert_eq!(
                    self.backoffs_asked, foreseen.backoffs_asked,
                    "no backoff is asked for a child that is given up"
                );
                self.done = true;
            } else {
                let (attempt, delay) =
                    last_backoff.expect("promise 3: a backoff is asked for each failure");
                assert_eq!(attempt, self.failures, "promise 4");
                assert_eq!(
                    self.backoffs_asked,
                    foreseen.backoffs_asked + 1,
                    "promise 3: once for each failure"
                );
                self.not_before = Some(deadline::after(at, delay));
                self.last_retry_in = Some(delay);
            }
        } else {
            assert_eq!(
                self.backoffs_asked, foreseen.backoffs_asked,
                "promise 4: this was no failure"
            );
        }
        if std::mem::take(&mut self.restarting) {
            self.failures = 0;
            self.last_retry_in = None;
            self.not_before = None;
            self.done = self.rules.policy == Policy::Temporary;
        }
    }

    // ── What the core does ──

    pub(crate) fn show(&mut self, view: View) {
        assert!(self.listed);
        let is_told = self.began == Some(view.run) || self.started == Some(view.run);
        assert!(
            !view.status.is_running() || is_told,
            "promise 2: {} is seen running before its start is told",
            self.id
        );
        self.view = Some(view);
    }

    pub(crate) fn send_start(&mut self, run: u64, failures: u32, now: Instant) {
        assert!(self.body.is_none(), "promise 1: two bodies of {}", self.id);
        assert_eq!(self.started, Some(run), "promise 2: Started comes before the body");
        assert_eq!(failures, self.failures, "promise 4");
        self.body = Some(Body { run, since: now, ended: false });
        self.told = None;
        self.told_as_failure = false;
        self.overdue = false;
        self.healthy = false;
        self.heartbeats = 0;
        self.last_heartbeat = None;
    }

    pub(crate) fn stop(&mut self, now: Instant) {
        assert!(self.body.is_some() && self.told.is_none(), "a run is told to stop once");
        self.told = Some((now, deadline::after(now, self.rules.stop_timeout)));
    }

    pub(crate) fn is_last_run(&mut self, is_closed: bool) {
        assert!(self.arrived_removing || is_closed, "an orderly child loses its body");
        assert!(self.body.is_some() || self.started.is_some(), "only a run can be the last");
        self.let_go = true;
    }

    pub(crate) fn retire(&mut self, keep_body: bool, closing: bool) {
        assert!(self.body.is_none() && self.listed);
        assert!(self.done || !keep_body || closing, "its thread is still of use");
        assert!(keep_body || closing, "its body is still of use");
        self.has_thread = false;
        self.let_go |= !keep_body;
    }

    pub(crate) fn forget(&mut self) {
        assert!(self.body.is_none() && self.started.is_none(), "a running child is forgotten");
        assert!(self.removing || self.rules.policy == Policy::Temporary, "nobody wanted it gone");
        self.listed = false;
    }

    // ── What the core reports ──

    pub(crate) fn report(&mut self, run: u64, failures: u32, kind: EventKind, now: Instant) {
        let view = self.view.expect("promise 2: what is told can be seen");
        match kind {
            EventKind::Started => {
                assert_eq!((self.began, view.run), (Some(run), run), "promise 2");
                assert!(self.started.is_none());
                assert_eq!(failures, self.failures, "promise 4");
                self.started = Some(run);
                self.began = None;
            }
            EventKind::Stopped { cause: StopCause::NotSpawned, retry_in, .. } => {
                assert!(
                    self.began.is_none() && self.started.is_none(),
                    "promise 2: a start that failed has no Started"
                );
                assert_eq!(
                    run,
                    self.last_run + 1,
                    "promise 12: starts that failed are counted, too"
                );
                (self.last_run, self.runs) = (run, self.runs + 1);
                assert_eq!(failures, self.failures, "promise 4");
                assert!(!view.status.is_running(), "promise 2");
                self.not_spawned(retry_in, now);
            }
            EventKind::Stopped { cause, .. } => {
                assert_eq!(
                    self.started.take(),
                    Some(run),
                    "promise 2: Stopped pairs with its Started"
                );
                assert!(
                    self.body.is_none() && !view.status.is_running(),
                    "promise 2: Stopped comes after the body"
                );
                assert_eq!(
                    cause == StopCause::Exited,
                    self.told.is_none(),
                    "asked or not: {cause}"
                );
                assert!(
                    self.healthy || !self.was_healthy,
                    "promise 5: nobody noticed that it had been up long enough"
                );
                assert_eq!(
                    failures, self.failures_at_end,
                    "promise 4: the failures before this one"
                );
                self.told = None;
            }
            EventKind::Healthy => {
                assert!(
                    self.started == Some(run) && !self.healthy,
                    "promise 5: Healthy once a run"
                );
                assert_eq!(failures, 0, "promise 4");
                if let Some(body) = self.body {
                    assert!(self.told.is_none(), "a stopping run does not become healthy");
                    let is_due = deadline::is_reached(
                        deadline::after(body.since, self.rules.healthy_after),
                        now,
                    );
                    assert!(
                        is_due || self.is_owed_health,
                        "promise 5: {} is not up long enough",
                        self.id
                    );
                    self.forgiven = std::mem::take(&mut self.failures);
                }
                self.healthy = true;
            }
            EventKind::Overdue { .. } => {
                let (_, until) = self.told.expect("only those who were asked are overdue");
                assert!(!self.overdue, "promise 2: Overdue once a run");
                assert!(deadline::is_reached(until, now), "overdue before its time");
                self.overdue = true;
            }
            EventKind::Tripped { .. } => {
                assert!(
                    self.told.is_some() && !self.told_as_failure && self.started == Some(run),
                    "it is told to stop, once"
                );
                self.told_as_failure = true;
            }
            EventKind::Hung { .. } => {
                let silent_for = now
                    - self
                        .last_heartbeat
                        .expect("only a run that has given a heartbeat is watched");
                assert!(
                    silent_for >= self.rules.watchdog.expect("a watchdog"),
                    "a hang after {silent_for:?} of silence"
                );
                assert!(self.told.is_some() && !self.told_as_failure, "it is told to stop, once");
                self.told_as_failure = true;
            }
            EventKind::GaveUp => {
                assert!(
                    self.done
                        && failures == self.failures
                        && failures > self.rules.max_restarts.expect("a limit")
                );
            }
            EventKind::Ordered { order } => {
                assert_eq!(
                    self.owed_orders.pop_front(),
                    Some(order),
                    "promise 10: each order is told once, in its turn"
                );
                assert_eq!(run, self.last_run, "promise 10: with the present or last run");
                assert_eq!(failures, self.failures, "promise 4");
            }
            EventKind::CallbackPanicked { callback: Callback::Enabled, .. } => {
                assert!(
                    self.flag_panics_untold > 0,
                    "promise 8: a flag's panic is told once until it succeeds"
                );
                self.flag_panics_untold -= 1;
            }
            EventKind::CallbackPanicked { .. } => {}
        }
    }

    /// Counts a failed spawn. Its delay comes from the report, not from a call of `ask_backoff`.
    fn not_spawned(&mut self, retry_in: Option<Duration>, now: Instant) {
        self.failures += 1;
        let gives_up = self.rules.policy != Policy::Temporary
            && self.rules.max_restarts.is_some_and(|most| self.failures > most);
        assert_eq!(gives_up, retry_in.is_none());
        match retry_in {
            Some(delay) => {
                assert!(delay >= 100 * MS, "promise 3: a failed spawn waits");
                self.not_before = Some(deadline::after(now, delay));
                self.last_retry_in = Some(delay);
            }
            None => self.done = true,
        }
    }

    // ── What holds ──

    /// Checks what has to hold whenever the core has nothing left to do.
    pub(crate) fn check(&mut self, is_closed: bool, now: Instant) {
        let id = &self.id;
        assert!(
            !std::mem::take(&mut self.is_owed_health) || self.healthy,
            "promise 5: {id} said that it is healthy"
        );
        assert!(
            !std::mem::take(&mut self.is_owed_trip) || self.told_as_failure,
            "{id} was tripped by its callers"
        );
        assert!(
            self.owed_orders.is_empty(),
            "promise 10: {id} was ordered {:?}, which nobody was told",
            self.owed_orders
        );
        assert_eq!(self.flag_panics_untold, 0, "promise 8: the panic of {id}'s flag is told");
        assert!(self.view.is_some() || !self.is_inserted, "{id} was added and nobody looked at it");
        let Some(view) = self.view else { return };
        if let Some(body) = self.body {
            let healthy_at = deadline::after(body.since, self.rules.healthy_after);
            assert!(
                self.healthy || self.told.is_some() || !deadline::is_reached(healthy_at, now),
                "promise 5: {id} is up long enough and nobody noticed"
            );
            if self.arrived_held || self.arrived_removing || is_closed || !self.asked_flag {
                assert!(self.told.is_some(), "promise 6: {id} is not wanted and was not told");
            }
            if let Some((_, until)) = self.told {
                assert!(
                    self.overdue || !deadline::is_reached(until, now),
                    "{id} is overdue and nobody noticed"
                );
            }
            assert!(view.status.is_running());
        }
        assert_eq!(view.failures, self.failures, "promise 4: {id}");
        assert_eq!(view.since, self.body.map(|body| body.since), "since when {id} is up");
        assert_eq!(
            view.stop.map(|(_, at)| at),
            self.told.map(|(at, _)| at),
            "since when {id} is stopping"
        );
        assert_eq!(view.is_overdue, self.body.is_some() && self.overdue, "whether {id} is overdue");
        let retry_at = self.not_before.flatten().filter(|_| view.status == ChildStatus::BackingOff);
        assert_eq!(view.retry_at, retry_at, "when {id} is tried again");
        let circuit = match self.body {
            Some(_) if self.told.is_none() && (self.healthy || self.failures == 0) => {
                CircuitState::Closed
            }
            Some(_) if self.told.is_none() => CircuitState::HalfOpen,
            _ => CircuitState::Open,
        };
        assert_eq!(view.circuit, circuit, "what callers see of {id}: {view:?}");
    }

    /// Checks what has to hold when, in addition, no message is on its way to the core.
    pub(crate) fn check_at_rest(&self, now: Instant) {
        if self.view.is_none() || self.body.is_some() || !self.listed {
            return;
        }
        let due = self.not_before.is_none_or(|at| deadline::is_reached(at, now));
        let wanted = self.asked_flag && !self.held && !self.removing && !self.done;
        assert!(
            !(wanted && due),
            "promise 3: {} is due and was not started: {:?}",
            self.id,
            self.view
        );
        assert!(!self.arrived_removing, "{} was removed and stays", self.id);
        assert!(!(self.done && self.has_thread), "{} is done, and keeps a thread", self.id);
        let status = self.view.map(|view| view.status);
        let is_off = status == Some(ChildStatus::Off { by: OffBy::Operator });
        assert_eq!(
            is_off,
            self.arrived_held && !self.done,
            "whether {} is shown as held: {status:?}",
            self.id
        );
    }

    /// Checks what has to hold after a shutdown in which every run has ended.
    pub(crate) fn check_end(&self) {
        assert!(!self.listed || self.let_go, "promise 11: the body of {} was not let go", self.id);
        assert!(
            self.started.is_none() && self.began.is_none(),
            "promise 2: no Stopped for {}",
            self.id
        );
    }

    /// All that decides what can happen next and what the model then expects.
    pub(crate) fn essence(&self, now: Instant) -> impl std::hash::Hash + use<> {
        let left = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now));
        let ago = |at: Instant| now.saturating_duration_since(at).min(self.rules.healthy_after);
        let body = self.body.map(|body| (ago(body.since), body.ended));
        let told = self.told.map(|(at, until)| (ago(at), left(until)));
        let orders = [self.held, self.removing, self.arrived_held, self.arrived_removing];
        let life = [
            self.listed,
            self.began.is_some(),
            self.started.is_some(),
            self.restarting,
            self.done,
            self.let_go,
            self.has_thread,
        ];
        let run = [self.told_as_failure, self.healthy, self.was_healthy, self.overdue];
        let pending: Vec<_> = self.pending.iter().map(|order| *order as u8).collect();
        let outside = (self.flag, self.asked_flag, self.fails_to_spawn, pending);
        {
            let counts = (self.failures, self.forgiven, self.last_retry_in, self.runs);
            (body, told, orders, life, run, outside, counts, self.not_before.map(left))
        }
    }
}
