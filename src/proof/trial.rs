//! The core on trial: a reference model that knows only what is told and asked, and checks every promise after every step.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crate::{
    circuit::{ChildStatus, CircuitState, Policy, Rules, View},
    deadline,
    event::{Callback, EventKind, StopCause},
    exit::{Exit, Failure, Panic, Text},
    id::ChildId,
    inbox::Order,
    key::Key,
    roster::{Action, Answer, Bar, Heartbeats, Outside, Progress, Roster},
};

pub(crate) const MS: Duration = Duration::from_millis(1);

/// What is on its way to the core.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Exit { key: Key, run: u64, exit: Exit, at: Instant },
    MarkedHealthy { key: Key, run: u64 },
    FirstHeartbeat { key: Key, run: u64 },
    Trip { key: Key, run: u64 },
    Order { key: Key, order: Order },
    Add { key: Key },
    Round,
    Close { limit: Duration },
}

/// What a child is known to be by somebody who only sees what is told and asked.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) id: ChildId,
    pub(crate) rules: Rules,
    pub(crate) flag: Option<bool>,
    pub(crate) asked_flag: bool,
    /// The settling in which it was asked last.
    pub(crate) asked_in: u64,
    /// It panicked when it was asked last.
    pub(crate) is_flag_faulty: bool,
    pub(crate) flag_panics_untold: usize,
    /// The core knows of the child.
    pub(crate) is_inserted: bool,
    /// The word of these has arrived.
    pub(crate) is_owed_health: bool,
    pub(crate) is_owed_trip: bool,
    pub(crate) fails_to_spawn: bool,
    /// Orders that hold from the moment at which they were given.
    pub(crate) held: bool,
    pub(crate) removing: bool,
    /// The orders that have arrived.
    pub(crate) arrived_held: bool,
    pub(crate) arrived_removing: bool,
    pub(crate) listed: bool,
    pub(crate) began: Option<u64>,
    pub(crate) started: Option<u64>,
    pub(crate) body: Option<Body>,
    pub(crate) told: Option<(Instant, Option<Instant>)>,
    /// Who sees only the outside may know of a restart by hand by this.
    pub(crate) restarting: bool,
    pub(crate) heartbeats: u64,
    pub(crate) last_heartbeat: Option<Instant>,
    /// Told to stop because it hung or its callers tripped it, which is a failure.
    pub(crate) told_as_failure: bool,
    pub(crate) failures: u32,
    pub(crate) last_run: u64,
    pub(crate) not_before: Option<Option<Instant>>,
    pub(crate) healthy: bool,
    /// It was up long enough; that has to be told before its end is.
    pub(crate) was_healthy: bool,
    pub(crate) overdue: bool,
    pub(crate) done: bool,
    /// Its closure has been given up, or will be as the run ends.
    pub(crate) let_go: bool,
    pub(crate) view: Option<View>,
    pub(crate) backoffs_asked: u32,
    pub(crate) runs: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Body {
    pub(crate) run: u64,
    pub(crate) since: Instant,
    /// It has ended, and the message is on the way.
    pub(crate) ended: bool,
}

/// How the outside answers where it has a choice.
#[derive(Clone, Debug)]
pub(crate) enum Whims {
    Random(fastrand::Rng),
    /// Callbacks take no time and never panic, and each backoff is so long.
    None {
        backoff: Duration,
    },
}

impl Whims {
    /// Something that happens `n` times in 256, if anything is left to chance.
    fn happens(&mut self, n: u8) -> bool {
        match self {
            Self::Random(random) => random.u8(..) < n,
            Self::None { .. } => false,
        }
    }

    fn panics(&mut self) -> bool {
        self.happens(8)
    }

    fn time_taken(&mut self) -> Duration {
        let takes_time = self.happens(20);
        match self {
            Self::Random(random) => random.u32(..8) * u32::from(takes_time) * MS,
            Self::None { .. } => Duration::ZERO,
        }
    }

    fn backoff(&mut self) -> Duration {
        const CHOICES: [u64; 5] = [0, 1, 1_000_000, 10_000_000, 1_000_000_000];
        match self {
            Self::Random(random) => {
                CHOICES.get(random.usize(..=CHOICES.len())).map_or(Duration::MAX, |nanos| Duration::from_nanos(*nanos))
            }
            Self::None { backoff } => *backoff,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) whims: Whims,
    pub(crate) now: Instant,
    pub(crate) models: BTreeMap<Key, Model>,
    /// Counts how often all was settled.
    pub(crate) settlings: u64,
    pub(crate) closing: bool,
    /// The core knows of the shutdown.
    pub(crate) is_closed: bool,
    pub(crate) last_backoff: Option<(u32, Duration)>,
    pub(crate) last_run: u64,
    pub(crate) stops_in_close: Option<Vec<Key>>,
}

/// The core, the outside as the model has it, and what is on its way between them.
#[derive(Clone)]
pub(crate) struct Trial {
    pub(crate) roster: Roster,
    pub(crate) world: World,
    pub(crate) inbox: VecDeque<Message>,
    next_key: u64,
    pub(crate) trace: Option<Vec<String>>,
}

impl Outside for World {
    fn now(&self) -> Instant {
        self.now
    }

    fn is_enabled(&mut self, key: Key, id: &ChildId) -> Answer<Option<bool>> {
        self.take_time();
        let model = self.models.get_mut(&key).expect("only known children are asked for");
        assert_eq!(model.id, *id);
        assert!(model.listed, "{id} is gone and its flag was asked");
        assert!(!model.arrived_removing, "{id} is being removed and its flag was asked");
        assert!(!self.is_closed, "a flag was asked in a shutdown");
        model.asked_in = self.settlings;
        let panics = self.whims.panics();
        model.flag_panics_untold += usize::from(panics && !model.is_flag_faulty);
        model.is_flag_faulty = panics;
        if panics {
            return Answer { value: None, panic: Some(Panic::new(Text::Literal("flag"), None)) };
        }
        model.asked_flag = model.flag.unwrap_or(model.asked_flag);
        Answer { value: model.flag, panic: None }
    }

    fn backoff(&mut self, key: Key, attempt: u32) -> Answer<Duration> {
        assert!(attempt >= 1, "a backoff was asked for attempt 0");
        let model = self.models.get_mut(&key).expect("only known children fail");
        model.backoffs_asked += 1;
        let delay = self.whims.backoff();
        self.last_backoff = Some((attempt, delay));
        let panic = self.whims.panics().then(|| Panic::new(Text::Literal("backoff"), None));
        Answer { value: delay, panic }
    }

    fn heartbeats(&mut self, key: Key) -> Heartbeats {
        Heartbeats { count: self.models[&key].heartbeats, doing: "simulating" }
    }

    fn begin(&mut self, key: Key, view: View) -> Result<(), Bar> {
        let model = self.models.get_mut(&key).expect("only known children begin");
        if self.closing {
            return Err(Bar::Closing);
        } else if model.removing {
            return Err(Bar::Removing);
        } else if model.held {
            return Err(Bar::Held);
        }
        assert!(model.began.is_none() && model.body.is_none(), "promise 1: {key:?} begins while it runs");
        assert!(view.run > self.last_run, "promise 12: run {} begins after run {}", view.run, self.last_run);
        assert!(model.asked_flag, "promise 6: {key:?} begins with its flag off");
        assert_eq!(model.asked_in, self.settlings, "promise 6: the flag is asked right before every start");
        assert!(!model.done, "a finished or given-up child begins");
        if let Some(not_before) = model.not_before {
            let due = not_before.is_some_and(|at| at <= self.now);
            assert!(due, "promise 3: {key:?} begins at {:?}, before {not_before:?}", self.now);
        }
        assert_eq!(view.attempt_count, model.failures, "promise 4");
        self.last_run = view.run;
        model.last_run = view.run;
        model.began = Some(view.run);
        model.runs += 1;
        model.view = Some(view);
        Ok(())
    }

    fn provide_thread(&mut self, key: Key) -> Result<(), Failure> {
        self.take_time();
        let model = self.models.get_mut(&key).expect("only known children get threads");
        assert!(model.began.is_some());
        if model.fails_to_spawn {
            Err(Failure::new("no thread".into()))
        } else {
            assert!(!model.let_go, "its body is gone");
            Ok(())
        }
    }
}

impl World {
    /// Callbacks and threads take time, which a step that follows has to see.
    fn take_time(&mut self) {
        self.now += self.whims.time_taken();
    }
}

impl Trial {
    pub(crate) fn new(whims: Whims, origin: Instant) -> Self {
        let world = World {
            whims,
            now: origin,
            models: BTreeMap::new(),
            settlings: 1,
            closing: false,
            is_closed: false,
            last_backoff: None,
            last_run: 0,
            stops_in_close: None,
        };
        let (roster, inbox) = (Roster::new(), VecDeque::new());
        Self { roster, world, inbox, next_key: 0, trace: None }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(what());
        }
    }

    /// Makes a child known to the outside.
    pub(crate) fn list(&mut self, rules: Rules, flag: bool, fails_to_spawn: bool) -> Key {
        let key = Key(self.next_key);
        self.next_key += 1;
        let model = Model {
            id: ChildId::from(format!("child{}", key.0)),
            rules,
            flag: Some(flag),
            asked_flag: true,
            asked_in: 0,
            is_flag_faulty: false,
            flag_panics_untold: 0,
            is_inserted: false,
            is_owed_health: false,
            is_owed_trip: false,
            fails_to_spawn,
            held: false,
            removing: false,
            arrived_held: false,
            arrived_removing: false,
            listed: true,
            began: None,
            started: None,
            body: None,
            told: None,
            restarting: false,
            heartbeats: 0,
            last_heartbeat: None,
            told_as_failure: false,
            failures: 0,
            last_run: 0,
            not_before: None,
            healthy: false,
            was_healthy: false,
            overdue: false,
            done: false,
            let_go: false,
            view: None,
            backoffs_asked: 0,
            runs: 0,
        };
        self.world.models.insert(key, model);
        key
    }

    pub(crate) fn insert(&mut self, key: Key) {
        let Some(model) = self.world.models.get_mut(&key) else { return };
        model.is_inserted = true;
        self.roster.insert(key, model.id.clone(), model.rules.clone(), self.world.now);
    }

    pub(crate) fn order(&mut self, key: Key, order: Order) {
        let model = self.world.models.get_mut(&key).expect("picked from the models");
        if !model.listed {
            return;
        }
        match order {
            Order::Hold => model.held = true,
            Order::Release => model.held = false,
            Order::Remove => model.removing = true,
            Order::Restart | Order::Reset => {}
        }
        self.inbox.push_back(Message::Order { key, order });
    }

    pub(crate) fn close(&mut self, limit: Duration) {
        self.world.closing = true;
        self.inbox.push_back(Message::Close { limit });
    }

    pub(crate) fn deliver(&mut self) {
        let Some(message) = self.inbox.pop_front() else { return };
        self.note(|| format!("deliver {message:?}"));
        let now = self.world.now;
        match message {
            Message::Exit { key, run, exit, at } => self.deliver_exit(key, run, exit, at),
            Message::MarkedHealthy { key, run } => {
                let model = self.world.models.get_mut(&key).expect("it said so");
                model.is_owed_health |= model.is_told_nothing(run);
                self.roster.marked_healthy(key, run, now);
            }
            Message::FirstHeartbeat { key, run } => self.roster.gave_heartbeat(key, run, now, &mut self.world),
            Message::Trip { key, run } => {
                let before = self.world.models.get(&key).is_some_and(|model| model.body.is_none_or(|body| body.run != run));
                let told = format!("{:?}", self.roster);
                if let Some(model) = self.world.models.get_mut(&key) {
                    model.is_owed_trip |= model.is_told_nothing(run);
                }
                self.roster.tripped(key, run, 10, "said callers".into(), now);
                assert!(!before || told == format!("{:?}", self.roster), "a report on an earlier run acted");
            }
            Message::Add { key } => {
                self.insert(key);
                self.roster.unsettle(key);
            }
            Message::Round => self.roster.begin_round(),
            Message::Close { limit } => {
                self.world.stops_in_close = (!self.roster.is_closing()).then(Vec::new);
                let again = std::mem::replace(&mut self.world.is_closed, true);
                for model in self.world.models.values_mut() {
                    model.rules.stop_timeout = model.rules.stop_timeout.min(limit);
                    let until = deadline::after(now, model.rules.stop_timeout);
                    if let Some(told) = &mut model.told {
                        told.1 = if again { deadline::sooner(told.1, until) } else { until };
                    }
                }
                self.roster.close(now, limit);
            }
            Message::Order { key, order } => {
                let model = self.world.models.get_mut(&key).expect("an order was given to it");
                match order {
                    _ if !model.listed => {
                        let before = format!("{:?}", self.roster);
                        self.roster.hold(key);
                        self.roster.release(key);
                        self.roster.remove(key);
                        self.roster.restart(key, now);
                        self.roster.reset(key, now);
                        assert_eq!(before, format!("{:?}", self.roster), "promise 12: an order to a child that is gone acted");
                    }
                    Order::Hold => {
                        model.arrived_held = true;
                        self.roster.hold(key);
                    }
                    Order::Release => {
                        model.arrived_held = false;
                        self.roster.release(key);
                    }
                    Order::Remove => {
                        model.arrived_removing = true;
                        self.roster.remove(key);
                    }
                    Order::Restart | Order::Reset => {
                        model.failures = 0;
                        model.not_before = None;
                        // A finished child is not started by a reset.
                        let finished = model.view.is_some_and(|view| view.status == ChildStatus::Finished);
                        let stays = order == Order::Reset && (finished || self.world.closing && model.done && !self.gave_up(key));
                        let model = self.world.models.get_mut(&key).expect("as above");
                        if !stays {
                            model.done = false;
                        }
                        if order == Order::Restart {
                            model.restarting = model.started.is_some();
                            self.roster.restart(key, now);
                        } else {
                            self.roster.reset(key, now);
                        }
                    }
                }
            }
        }
    }

    fn gave_up(&self, key: Key) -> bool {
        let model = &self.world.models[&key];
        model.rules.policy != Policy::Temporary && model.rules.max_restarts.is_some_and(|most| model.failures > most)
    }

    fn deliver_exit(&mut self, key: Key, run: u64, exit: Exit, at: Instant) {
        let completed = exit.is_completed();
        let Some(model) = self.world.models.get_mut(&key) else {
            assert!(self.roster.run_ended(key, run, exit, at, &mut self.world).is_err(), "promise 12: an unknown child ended");
            return;
        };
        let Some(body) = model.body.filter(|body| body.run == run && body.ended) else {
            let before = format!("{:?}", self.roster);
            assert!(self.roster.run_ended(key, run, exit, at, &mut self.world).is_err(), "promise 12: a stale exit acted");
            assert_eq!(before, format!("{:?}", self.roster), "promise 12: a stale exit changed something");
            return;
        };
        // What follows from the end is foreseen here, by the rules alone.
        model.body = None;
        let until = model.told.map_or(at, |(told, _)| told.min(at));
        let healthy_at = deadline::after(body.since, model.rules.healthy_after);
        model.was_healthy = deadline::is_reached(healthy_at, until);
        if model.was_healthy && !model.healthy {
            model.failures = 0;
        }
        let asked = model.told.is_some() && !model.told_as_failure;
        let temporary = model.rules.policy == Policy::Temporary;
        let finished = completed && model.rules.policy == Policy::Transient && !model.told_as_failure;
        let leaves = model.arrived_removing || self.world.is_closed || model.restarting;
        let failed = !asked && !temporary && !finished && !leaves;
        self.world.last_backoff = None;
        let asked_before = model.backoffs_asked;
        self.roster.run_ended(key, run, exit, at, &mut self.world).expect("the present run ended");
        let last_backoff = self.world.last_backoff;
        let model = self.world.models.get_mut(&key).expect("as above");
        let mut gave_up = false;
        if failed {
            model.failures += 1;
            gave_up = model.rules.max_restarts.is_some_and(|most| model.failures > most);
            if gave_up {
                assert_eq!(model.backoffs_asked, asked_before, "no backoff is asked for a child that is given up");
            } else {
                let (attempt, delay) = last_backoff.expect("promise 3: a backoff is asked for each failure");
                assert_eq!(attempt, model.failures, "promise 4");
                assert_eq!(model.backoffs_asked, asked_before + 1, "promise 3: once for each failure");
                model.not_before = Some(deadline::after(at, delay));
            }
        } else {
            assert_eq!(model.backoffs_asked, asked_before, "promise 4: this was no failure");
        }
        model.done = gave_up || temporary || (finished && !asked);
        if std::mem::take(&mut model.restarting) {
            model.failures = 0;
            model.not_before = None;
            model.done = temporary;
        }
    }

    /// Ends the present run of a child; the word of it is on its way.
    pub(crate) fn exit(&mut self, key: Key, exit: Exit) {
        let at = self.world.now;
        let body = self.world.models.get_mut(&key).and_then(|model| model.body.as_mut()).expect("it runs");
        body.ended = true;
        let run = body.run;
        self.inbox.push_back(Message::Exit { key, run, exit, at });
    }

    /// What the engine does after each message.
    pub(crate) fn settle(&mut self) {
        self.world.settlings += 1;
        loop {
            self.roster.expire(self.world.now);
            self.perform_all();
            if self.roster.is_in_round() {
                self.roster.continue_round(self.world.now, &mut self.world);
            } else if self.roster.next_deadline().is_none_or(|deadline| deadline > self.world.now) {
                break;
            }
        }
        self.check();
    }

    fn perform_all(&mut self) {
        loop {
            match self.roster.settle(&mut self.world) {
                Progress::Perform(action) => {
                    self.note(|| format!("{action:?}"));
                    self.perform(action);
                }
                Progress::Again => {}
                Progress::Settled => break,
            }
        }
    }

    fn perform(&mut self, action: Action) {
        let now = self.world.now;
        match action {
            Action::Publish { key, view, .. } => {
                let model = self.world.models.get_mut(&key).expect("known");
                assert!(model.listed);
                model.view = Some(view);
            }
            Action::Report { key, report } => self.reported(key, report.run, report.attempt_count, report.kind),
            Action::Go { key, run, attempt_count } => {
                let model = self.world.models.get_mut(&key).expect("known");
                assert!(model.body.is_none(), "promise 1: two bodies of {key:?}");
                assert_eq!(model.started, Some(run), "promise 2: Started comes before the body");
                assert_eq!(attempt_count, model.failures, "promise 4");
                model.body = Some(Body { run, since: now, ended: false });
                model.told = None;
                model.healthy = false;
                model.overdue = false;
                model.told_as_failure = false;
                model.heartbeats = 0;
                model.last_heartbeat = None;
            }
            Action::Stop { key } => {
                let model = self.world.models.get_mut(&key).expect("known");
                assert!(model.body.is_some() && model.told.is_none(), "a run is told to stop once");
                model.told = Some((now, deadline::after(now, model.rules.stop_timeout)));
                if let Some(stops) = &mut self.world.stops_in_close {
                    stops.push(key);
                }
            }
            Action::LastRun { key } => {
                let model = self.world.models.get_mut(&key).expect("known");
                assert!(model.arrived_removing || self.world.is_closed, "an orderly child loses its body");
                model.let_go = true;
            }
            Action::Retire { key, keep_body } => {
                let model = self.world.models.get_mut(&key).expect("known");
                assert!(model.body.is_none() && model.listed);
                assert!(self.roster.is_closing() || model.done || !keep_body || self.world.closing, "its thread is still of use");
                assert!(keep_body || self.world.closing, "its body is still of use");
                model.let_go |= !keep_body;
            }
            Action::Forget { key } => {
                let model = self.world.models.get_mut(&key).expect("known");
                assert!(model.body.is_none() && model.started.is_none(), "a running child is forgotten");
                assert!(model.removing || model.rules.policy == Policy::Temporary, "nobody wanted it gone");
                model.listed = false;
            }
            Action::GiveUp { .. } => unreachable!("no child is significant"),
        }
    }

    fn reported(&mut self, key: Key, run: u64, attempt_count: u32, kind: EventKind) {
        let now = self.world.now;
        let model = self.world.models.get_mut(&key).expect("known");
        let view = model.view.expect("promise 2: what is told can be seen");
        match kind {
            EventKind::Started => {
                assert_eq!((model.began, view.run), (Some(run), run), "promise 2");
                assert!(model.started.is_none());
                assert_eq!(attempt_count, model.failures, "promise 4");
                model.started = Some(run);
                model.began = None;
            }
            EventKind::Stopped { cause: StopCause::NotSpawned, retry_in, .. } => {
                assert_eq!(model.began.take(), Some(run), "promise 2: a start that failed has no Started");
                assert_eq!(attempt_count, model.failures, "promise 4");
                assert!(!view.status.is_running(), "promise 2");
                model.failures += 1;
                let gave_up =
                    model.rules.policy != Policy::Temporary && model.rules.max_restarts.is_some_and(|most| model.failures > most);
                assert_eq!(gave_up, retry_in.is_none());
                if let Some(delay) = retry_in {
                    assert!(delay >= 100 * MS, "promise 3: a failed spawn waits");
                    model.not_before = Some(deadline::after(now, delay));
                } else {
                    model.done = true;
                }
            }
            EventKind::Stopped { cause, .. } => {
                assert_eq!(model.started.take(), Some(run), "promise 2: Stopped pairs with its Started");
                assert!(model.body.is_none() && !view.status.is_running(), "promise 2: Stopped comes after the body");
                assert_eq!(cause == StopCause::Exited, model.told.is_none(), "asked or not: {cause}");
                assert!(model.healthy || !model.was_healthy, "promise 5: nobody noticed that it had been up long enough");
                model.told = None;
            }
            EventKind::Healthy => {
                assert!(model.started == Some(run) && !model.healthy, "promise 5: Healthy once a run");
                assert_eq!(attempt_count, 0, "promise 4");
                if model.body.is_some() {
                    assert!(model.told.is_none(), "a stopping run does not become healthy");
                    model.failures = 0;
                }
                model.healthy = true;
            }
            EventKind::Overdue { .. } => {
                let (_, until) = model.told.expect("only those who were asked are overdue");
                assert!(!model.overdue, "promise 2: Overdue once a run");
                assert!(deadline::is_reached(until, now), "overdue before its time");
                model.overdue = true;
            }
            EventKind::Tripped { .. } => {
                assert!(model.told.is_some() && !model.told_as_failure && model.started == Some(run), "it is told to stop, once");
                model.told_as_failure = true;
            }
            EventKind::Hung { .. } => {
                let silent_for = now - model.last_heartbeat.expect("only a run that has given a heartbeat is watched");
                assert!(silent_for >= model.rules.watchdog.expect("a watchdog"), "a hang after {silent_for:?} of silence");
                assert!(model.told.is_some() && !model.told_as_failure, "it is told to stop, once");
                model.told_as_failure = true;
            }
            EventKind::GaveUp => {
                assert!(
                    model.done && attempt_count == model.failures && attempt_count > model.rules.max_restarts.expect("a limit")
                );
            }
            EventKind::CallbackPanicked { callback: Callback::Enabled, .. } => {
                assert!(model.flag_panics_untold > 0, "promise 8: a flag's panic is told once until it succeeds");
                model.flag_panics_untold -= 1;
            }
            EventKind::CallbackPanicked { .. } => {}
        }
    }

    /// What holds whenever the core has nothing left to do.
    fn check(&mut self) {
        let now = self.world.now;
        if let Some(stops) = self.world.stops_in_close.take() {
            assert!(stops.iter().is_sorted_by(|one, next| one > next), "promise 11: stopped in reverse list order: {stops:?}");
        }
        for model in self.world.models.values_mut() {
            assert!(!std::mem::take(&mut model.is_owed_health) || model.healthy, "promise 5: it said that it is healthy");
            assert!(!std::mem::take(&mut model.is_owed_trip) || model.told_as_failure, "its callers tripped it");
        }
        for (key, model) in &self.world.models {
            assert_eq!(model.flag_panics_untold, 0, "promise 8: a flag's panic is told");
            assert!(model.view.is_some() || !model.is_inserted, "{key:?} was added and nobody looked at it");
            let Some(view) = model.view else { continue };
            if let Some(body) = model.body {
                let healthy_at = deadline::after(body.since, model.rules.healthy_after);
                assert!(
                    model.healthy || model.told.is_some() || !deadline::is_reached(healthy_at, now),
                    "promise 5: {key:?} is up long enough and nobody noticed"
                );
                if model.arrived_held || model.arrived_removing || self.roster.is_closing() || !model.asked_flag {
                    assert!(model.told.is_some(), "promise 6: {key:?} is not wanted and was not told");
                }
                if let Some((_, until)) = model.told {
                    assert!(model.overdue || !deadline::is_reached(until, now), "{key:?} is overdue and nobody noticed");
                }
                assert!(view.status.is_running());
            } else if model.listed && !self.world.closing && self.inbox.is_empty() {
                let due = model.not_before.is_none_or(|at| deadline::is_reached(at, now));
                let wanted = model.asked_flag && !model.held && !model.removing && !model.done;
                assert!(!(wanted && due), "promise 3: {key:?} is due and was not started: {view:?}");
                assert!(!model.arrived_removing, "a removed child stays");
            }
            assert_eq!(view.attempt_count, model.failures, "promise 4: {key:?}");
            let circuit = match model.body {
                Some(_) if model.told.is_none() && (model.healthy || model.failures == 0) => CircuitState::Closed,
                Some(_) if model.told.is_none() => CircuitState::HalfOpen,
                _ => CircuitState::Open,
            };
            assert_eq!(view.circuit, circuit, "what callers see of {key:?}: {view:?}");
        }
        let deadlines = self.roster.deadline_count();
        let listed = self.world.models.values().filter(|model| model.listed).count();
        assert!(deadlines <= listed, "one timer at most for each child");
        if let Some(deadline) = self.roster.next_deadline() {
            assert!(deadline > now, "a timer that is due was left behind: the loop would spin");
        }
    }

    /// What holds after a shutdown that nobody outlives.
    pub(crate) fn check_end(&self) {
        assert!(self.roster.is_over(), "promise 11: a shutdown with nobody running is over");
        let open: BTreeSet<&Key> = self
            .world
            .models
            .iter()
            .filter(|(_, model)| model.started.is_some() || model.began.is_some())
            .map(|(key, _)| key)
            .collect();
        let kept: Vec<&Key> =
            self.world.models.iter().filter(|(_, model)| model.listed && !model.let_go).map(|(key, _)| key).collect();
        assert!(kept.is_empty(), "promise 11: the bodies of {kept:?} were not let go");
        assert!(open.is_empty(), "promise 2: no Stopped for {open:?}");
    }
}

impl Trial {
    /// Whatever decides what can happen next, and what the model then expects.
    pub(crate) fn essence(&self) -> impl std::hash::Hash + use<> {
        let Self { roster, world, inbox, next_key: _, trace: _ } = self;
        let World { whims: _, now, models, settlings: _, closing, is_closed, last_backoff: _, last_run: _, stops_in_close: _ } =
            world;
        let models: Vec<_> = models.values().map(|model| model.essence(*now)).collect();
        let inbox: Vec<_> = inbox.iter().map(|message| message.essence(world)).collect();
        (roster.essence(*now), models, inbox, *closing, *is_closed)
    }
}

impl Model {
    /// Whether this run is there and was not told to stop.
    fn is_told_nothing(&self, run: u64) -> bool {
        self.told.is_none() && self.body.is_some_and(|body| body.run == run)
    }

    fn essence(&self, now: Instant) -> impl std::hash::Hash + use<> {
        let left = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now));
        let ago = |at: Instant| now.saturating_duration_since(at).min(self.rules.healthy_after);
        let body = self.body.map(|body| (ago(body.since), body.ended));
        let told = self.told.map(|(at, until)| (ago(at), left(until)));
        let orders = [self.held, self.removing, self.arrived_held, self.arrived_removing];
        let life = [self.listed, self.began.is_some(), self.started.is_some(), self.restarting, self.done, self.let_go];
        let run = [self.told_as_failure, self.healthy, self.was_healthy, self.overdue];
        let outside = (self.flag, self.asked_flag, self.fails_to_spawn);
        (body, told, orders, life, run, outside, self.failures, self.not_before.map(left), self.runs)
    }
}

impl Message {
    fn essence(&self, world: &World) -> impl std::hash::Hash + use<> {
        let is_present = |key: &Key, run: &u64| world.models.get(key).is_some_and(|model| model.last_run == *run);
        match self {
            Self::Exit { key, run, exit, at } => {
                let ago = world.now.saturating_duration_since(*at);
                (0, Some(*key), is_present(key, run), exit.name(), Some(ago), None)
            }
            Self::MarkedHealthy { key, run } => (1, Some(*key), is_present(key, run), "", None, None),
            Self::FirstHeartbeat { key, run } => (2, Some(*key), is_present(key, run), "", None, None),
            Self::Trip { key, run } => (3, Some(*key), is_present(key, run), "", None, None),
            Self::Order { key, order } => (4, Some(*key), false, "", None, Some(*order as u8)),
            Self::Add { key } => (5, Some(*key), false, "", None, None),
            Self::Round => (6, None, false, "", None, None),
            Self::Close { limit } => (7, None, false, "", Some(*limit), None),
        }
    }
}
