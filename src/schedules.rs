//! Random schedules against the core, on virtual time, with every promise checked after every step.
//!
//! `SCHEDULES=50000000 cargo test simulation` runs as many as given; a failure prints the seed of its schedule, and `SEED=n`
//! runs that one alone.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    env,
    time::{Duration, Instant},
};

use crate::{
    circuit::{ChildStatus, Policy, Rules, View},
    deadline,
    event::{EventKind, StopCause},
    exit::{Exit, Failure, Panic},
    id::ChildId,
    roster::{Action, Answer, Bar, Heartbeats, Key, Outside, Progress, Roster},
};

const MS: Duration = Duration::from_millis(1);
const STEPS: u32 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Hold,
    Release,
    Remove,
    Restart,
    Reset,
}

#[derive(Debug)]
enum Message {
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
#[derive(Debug)]
struct Model {
    id: ChildId,
    rules: Rules,
    flag: Option<bool>,
    asked_flag: bool,
    fails_to_spawn: bool,
    /// Orders that hold from the moment at which they were given.
    held: bool,
    removing: bool,
    /// The orders that have arrived.
    arrived_held: bool,
    arrived_removing: bool,
    listed: bool,
    began: Option<u64>,
    started: Option<u64>,
    body: Option<Body>,
    told: Option<(Instant, Option<Instant>)>,
    /// Who sees only the outside may know of a restart by hand by this.
    restarting: bool,
    heartbeats: u64,
    last_heartbeat: Option<Instant>,
    /// Told to stop because it hung or its callers tripped it, which is a failure.
    told_as_failure: bool,
    failures: u32,
    last_run: u64,
    not_before: Option<Option<Instant>>,
    healthy: bool,
    /// It was up long enough; that has to be told before its end is.
    was_healthy: bool,
    overdue: bool,
    done: bool,
    /// Its closure has been given up, or will be as the run ends.
    let_go: bool,
    view: Option<View>,
    backoffs_asked: u32,
}

#[derive(Clone, Copy, Debug)]
struct Body {
    run: u64,
    since: Instant,
    /// It has ended, and the message is on the way.
    ended: bool,
}

#[derive(Debug)]
struct World {
    random: fastrand::Rng,
    now: Instant,
    models: BTreeMap<Key, Model>,
    closing: bool,
    last_backoff: Option<(u32, Duration)>,
    last_run: u64,
    stops_in_close: Option<Vec<Key>>,
}

struct Simulation {
    seed: u64,
    roster: Roster,
    world: World,
    inbox: VecDeque<Message>,
    next_key: u64,
    trace: Vec<String>,
    keeps_trace: bool,
    is_closed: bool,
}

impl Outside for World {
    fn is_enabled(&mut self, key: Key, id: &ChildId) -> Answer<Option<bool>> {
        self.take_time();
        let model = self.models.get_mut(&key).expect("only known children are asked for");
        assert_eq!(model.id, *id);
        assert!(model.listed, "{id} is gone and its flag was asked");
        assert!(!model.arrived_removing, "{id} is being removed and its flag was asked");
        if self.random.u8(..) < 8 {
            return Answer { value: None, panic: Some(Panic::new("flag", None)) };
        }
        model.asked_flag = model.flag.unwrap_or(model.asked_flag);
        Answer { value: model.flag, panic: None }
    }

    fn backoff(&mut self, key: Key, attempt: u32) -> Answer<Duration> {
        assert!(attempt >= 1, "a backoff was asked for attempt 0");
        let model = self.models.get_mut(&key).expect("only known children fail");
        model.backoffs_asked += 1;
        let choices = [Duration::ZERO, Duration::from_nanos(1), MS, 10 * MS, 1000 * MS, Duration::MAX];
        let delay = choices[self.random.usize(..choices.len())];
        self.last_backoff = Some((attempt, delay));
        let panic = (self.random.u8(..) < 8).then(|| Panic::new("backoff", None));
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
        assert!(!model.done, "a finished or given-up child begins");
        if let Some(not_before) = model.not_before {
            let due = not_before.is_some_and(|at| at <= self.now);
            assert!(due, "promise 3: {key:?} begins at {:?}, before {not_before:?}", self.now);
        }
        assert_eq!(view.attempt_count, model.failures, "promise 4");
        self.last_run = view.run;
        model.last_run = view.run;
        model.began = Some(view.run);
        model.view = Some(view);
        Ok(())
    }

    fn provide_thread(&mut self, key: Key) -> Result<(), Failure> {
        self.take_time();
        let model = self.models.get_mut(&key).expect("only known children get threads");
        assert!(model.began.is_some());
        if model.fails_to_spawn {
            Err(Failure::new("no thread", std::sync::Arc::new(std::io::Error::other("no thread"))))
        } else {
            assert!(!model.let_go, "its body is gone");
            Ok(())
        }
    }
}

impl World {
    /// Callbacks and threads take time, which a step that follows has to see.
    fn take_time(&mut self) {
        if self.random.u8(..) < 20 {
            self.now += self.random.u32(..8) * MS;
        }
    }
}

impl Simulation {
    fn new(seed: u64, origin: Instant, keeps_trace: bool) -> Self {
        let world = World {
            random: fastrand::Rng::with_seed(seed),
            now: origin,
            models: BTreeMap::new(),
            closing: false,
            last_backoff: None,
            last_run: 0,
            stops_in_close: None,
        };
        let mut simulation = Self {
            seed,
            roster: Roster::new(),
            world,
            inbox: VecDeque::new(),
            next_key: 0,
            trace: Vec::new(),
            keeps_trace,
            is_closed: false,
        };
        for _ in 0..simulation.world.random.u32(0..4) {
            let key = simulation.list();
            simulation.insert(key);
        }
        simulation.roster.begin_round();
        simulation
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.keeps_trace {
            self.trace.push(what());
        }
    }

    fn list(&mut self) -> Key {
        let random = &mut self.world.random;
        let pick = |random: &mut fastrand::Rng, choices: &[Duration]| choices[random.usize(..choices.len())];
        let rules = Rules {
            policy: [Policy::Permanent, Policy::Permanent, Policy::Transient, Policy::Temporary][random.usize(..4)],
            healthy_after: pick(random, &[Duration::ZERO, 5 * MS, 100 * MS, Duration::MAX]),
            stop_timeout: pick(random, &[Duration::ZERO, 5 * MS, 1000 * MS, Duration::MAX]),
            max_restarts: [None, None, Some(0), Some(2)][random.usize(..4)],
            significant: false,
            watchdog: [None, Some(MS / 3), Some(40 * MS), Some(Duration::MAX)][random.usize(..4)],
        };
        let key = Key(self.next_key);
        self.next_key += 1;
        let model = Model {
            id: ChildId::from(format!("child{}", key.0)),
            rules,
            flag: Some(random.u8(..) < 200),
            asked_flag: true,
            fails_to_spawn: random.u8(..) < 20,
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
        };
        self.world.models.insert(key, model);
        key
    }

    fn insert(&mut self, key: Key) {
        let model = &self.world.models[&key];
        self.roster.insert(key, model.id.clone(), model.rules.clone(), self.world.now);
    }

    fn run(&mut self) {
        self.settle();
        for _ in 0..STEPS {
            self.step();
            self.settle();
        }
        self.end();
    }

    fn step(&mut self) {
        let keys: Vec<Key> = self.world.models.keys().copied().collect();
        let key = (!keys.is_empty()).then(|| keys[self.world.random.usize(..keys.len())]);
        match self.world.random.u32(..100) {
            0..28 => self.deliver(),
            28..45 => self.advance(),
            45..50 => {
                // The engine was held up: it finds a message and a timer at the same time.
                self.advance();
                self.deliver();
            }
            50..65 => self.exit(),
            65..68 => self.stale_exit(),
            68..74 => {
                if let Some(model) = key.and_then(|key| self.world.models.get_mut(&key)) {
                    model.flag = [Some(true), Some(true), Some(false), None][self.world.random.usize(..4)];
                }
            }
            74..80 => self.inbox.push_back(Message::Round),
            80..82 => {
                if let Some(model) = key.and_then(|key| self.world.models.get_mut(&key)) {
                    model.fails_to_spawn = self.world.random.bool();
                }
            }
            82..84 => {
                let now = self.world.now;
                if let Some(model) = key.and_then(|key| self.world.models.get_mut(&key)) {
                    if let Some(body) = model.body.filter(|body| !body.ended) {
                        model.heartbeats += 1;
                        model.last_heartbeat = Some(now);
                        if model.heartbeats == 1 {
                            self.inbox.push_back(Message::FirstHeartbeat { key: key.expect("there is a body"), run: body.run });
                        }
                    }
                }
            }
            84 => {
                if let Some(body) = key.and_then(|key| self.world.models[&key].body) {
                    let run = if self.world.random.bool() { body.run.wrapping_sub(1) } else { body.run };
                    self.inbox.push_back(Message::Trip { key: key.expect("there is a body"), run });
                }
            }
            85 => {
                if let Some(body) = key.and_then(|key| self.world.models[&key].body) {
                    let run = if self.world.random.u8(..) < 30 { body.run.wrapping_sub(1) } else { body.run };
                    self.inbox.push_back(Message::MarkedHealthy { key: key.expect("there is a body"), run });
                }
            }
            86..96 => {
                if let Some(key) = key {
                    let orders = [Order::Hold, Order::Release, Order::Remove, Order::Restart, Order::Reset];
                    let order = orders[self.world.random.usize(..orders.len())];
                    self.order(key, order);
                }
            }
            96..99 => {
                if !self.world.closing && self.world.models.len() < 8 {
                    let key = self.list();
                    self.inbox.push_back(Message::Add { key });
                }
            }
            _ => {
                if self.world.random.u8(..) < 60 {
                    let limit = [Duration::ZERO, 50 * MS, Duration::MAX][self.world.random.usize(..3)];
                    self.close(limit);
                }
            }
        }
    }

    fn order(&mut self, key: Key, order: Order) {
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

    fn close(&mut self, limit: Duration) {
        self.world.closing = true;
        self.inbox.push_back(Message::Close { limit });
    }

    fn deliver(&mut self) {
        let Some(message) = self.inbox.pop_front() else { return };
        self.note(|| format!("deliver {message:?}"));
        let now = self.world.now;
        match message {
            Message::Exit { key, run, exit, at } => self.deliver_exit(key, run, exit, at),
            Message::MarkedHealthy { key, run } => self.roster.marked_healthy(key, run, now),
            Message::FirstHeartbeat { key, run } => self.roster.gave_heartbeat(key, run, now, &mut self.world),
            Message::Trip { key, run } => {
                let before = self.world.models.get(&key).is_some_and(|model| model.body.is_none_or(|body| body.run != run));
                let told = format!("{:?}", self.roster);
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
                let again = std::mem::replace(&mut self.is_closed, true);
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
        model.rules.max_restarts.is_some_and(|most| model.failures > most)
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
        let leaves = model.arrived_removing || self.is_closed || model.restarting;
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

    fn exit(&mut self) {
        let running: Vec<Key> = self
            .world
            .models
            .iter()
            .filter(|(_, model)| model.body.is_some_and(|body| !body.ended))
            .map(|(&key, _)| key)
            .collect();
        if running.is_empty() {
            return;
        }
        let key = running[self.world.random.usize(..running.len())];
        self.exit_of(key);
    }

    fn exit_of(&mut self, key: Key) {
        let exit = match self.world.random.u8(..3) {
            0 => Exit::Completed,
            1 => Exit::Failed(Failure::new("failed", std::sync::Arc::new(std::io::Error::other("failed")))),
            _ => Exit::Panicked(Panic::new("panicked", None)),
        };
        let at = self.world.now;
        let body = self.world.models.get_mut(&key).and_then(|model| model.body.as_mut()).expect("it runs");
        body.ended = true;
        let run = body.run;
        self.inbox.push_back(Message::Exit { key, run, exit, at });
    }

    fn stale_exit(&mut self) {
        let key = Key(self.world.random.u64(..self.next_key + 2));
        let run = self.world.random.u64(..self.world.last_run + 2);
        let is_present = self.world.models.get(&key).and_then(|model| model.body).is_some_and(|body| body.run == run);
        if !is_present {
            let at = self.world.now;
            self.inbox.push_front(Message::Exit { key, run, exit: Exit::Completed, at });
            self.deliver();
        }
    }

    /// Goes to just before, at, or just after something that is due, or a little on.
    fn advance(&mut self) {
        let mut moments: Vec<Instant> = Vec::new();
        for model in self.world.models.values() {
            moments.extend(model.not_before.flatten());
            moments.extend(model.told.and_then(|(_, until)| until));
            moments.extend(model.body.and_then(|body| deadline::after(body.since, model.rules.healthy_after)));
        }
        moments.retain(|moment| *moment + Duration::from_nanos(1) > self.world.now);
        let target = if moments.is_empty() || self.world.random.u8(..) < 60 {
            self.world.now + self.world.random.u32(..20) * MS
        } else {
            let moment = moments[self.world.random.usize(..moments.len())];
            match self.world.random.u8(..3) {
                0 => moment.checked_sub(Duration::from_nanos(1)).unwrap_or(moment),
                1 => moment,
                _ => moment + Duration::from_nanos(1),
            }
        };
        self.world.now = self.world.now.max(target);
        self.note(|| String::from("advance"));
    }

    /// What the engine does after each message.
    fn settle(&mut self) {
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
            match self.roster.settle(self.world.now, &mut self.world) {
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
                assert!(model.arrived_removing || self.is_closed, "an orderly child loses its body");
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
                let gave_up = model.rules.max_restarts.is_some_and(|most| model.failures > most);
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
            EventKind::CallbackPanicked { .. } => {}
        }
    }

    /// What holds whenever the core has nothing left to do.
    fn check(&mut self) {
        let now = self.world.now;
        if let Some(stops) = self.world.stops_in_close.take() {
            assert!(stops.iter().is_sorted_by(|one, next| one > next), "promise 11: stopped in reverse list order: {stops:?}");
        }
        for (key, model) in &self.world.models {
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
        }
        let deadlines = self.roster.deadline_count();
        let listed = self.world.models.values().filter(|model| model.listed).count();
        assert!(deadlines <= listed, "one timer at most for each child");
        if let Some(deadline) = self.roster.next_deadline() {
            assert!(deadline > now, "a timer that is due was left behind: the loop would spin");
        }
    }

    /// Shuts down: whatever happened before, that comes to an end.
    fn end(&mut self) {
        self.close(Duration::MAX);
        while !self.inbox.is_empty() {
            self.deliver();
            self.settle();
        }
        assert!(self.roster.is_closing());
        let running: Vec<Key> = self.world.models.iter().filter(|(_, model)| model.body.is_some()).map(|(&key, _)| key).collect();
        for key in running {
            self.exit_of(key);
            self.advance();
            self.settle();
            self.deliver();
            self.settle();
        }
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

#[test]
#[expect(clippy::disallowed_methods, reason = "any instant does as the origin of virtual time")]
fn every_promise_of_the_core_holds_on_random_schedules() {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let origin = Instant::now();
    if let Some(seed) = number("SEED") {
        let mut simulation = Simulation::new(seed, origin, true);
        let result = crate::unwind::catch(|| simulation.run());
        for line in &simulation.trace {
            println!("{line}");
        }
        result.expect("the schedule of this seed fails");
        return;
    }
    let schedules = number("SCHEDULES").unwrap_or(200_000);
    std::thread::scope(|scope| {
        for half in 0..2 {
            std::thread::Builder::new()
                .spawn_scoped(scope, move || {
                    for seed in (half..schedules).step_by(2) {
                        let mut simulation = Simulation::new(seed, origin, false);
                        if let Err(panic) = crate::unwind::catch(|| simulation.run()) {
                            panic!("schedule failed, run it alone with SEED={}: {}", simulation.seed, panic.message());
                        }
                    }
                })
                .expect("a thread for half of the schedules");
        }
    });
}
