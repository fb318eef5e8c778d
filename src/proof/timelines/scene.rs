//! Scene of a timeline: the core, with a script that answers what it asks.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use crate::{
    core::{
        circuit::View,
        dependencies::Dependency,
        interface::{Action, Answer, Environment, NotProvided, Progress, Sight, StartDenied},
        key::Key,
        roster::Roster,
        rules::{Policy, Rules},
        run::Heartbeats,
    },
    event::{EventKind, Order, WaitingFor, Wellness},
    exit::{Exit, Failure},
    id::ChildId,
    proof::{trial::WITHIN, world::MS},
    sync::clock::system_now,
};

pub(super) const A: Key = Key(0);
pub(super) const B: Key = Key(1);
pub(super) const C: Key = Key(2);

/// The core on virtual time: a script answers what it asks, and `reported` records what it reports.
pub(super) struct Scene {
    pub(super) roster: Roster<()>,
    pub(super) script: Script,
    pub(super) origin: Instant,
    pub(super) reported: Vec<String>,
}

pub(super) struct Script {
    pub(super) now: Instant,
    pub(super) off: Vec<Key>,
    pub(super) no_thread: bool,
    /// An order forbids the start, and its message is on the way.
    pub(super) is_denied: bool,
    pub(super) delay: fn(u32) -> Duration,
    pub(super) heartbeats: u64,
    pub(super) is_waiting: bool,
    pub(super) flags_asked: Vec<Key>,
    pub(super) backoffs_asked: Vec<u32>,
    /// How many runs were asked to stop, and how many before each look at a thread.
    pub(super) stops: usize,
    pub(super) looked_after: Vec<usize>,
    /// The outermost supervisor shuts down.
    pub(super) is_closing: bool,
    /// The runs that were abandoned, and how long ago they had been asked to stop.
    pub(super) abandoned: Vec<(u64, Duration)>,
}

impl Environment for Script {
    type Entry = ();

    fn now(&self) -> Instant {
        self.now
    }

    fn is_enabled(&mut self, key: Key, _id: &str) -> Answer<Option<bool>> {
        self.flags_asked.push(key);
        Answer { value: Some(!self.off.contains(&key)), panic: None }
    }

    fn backoff(&mut self, _key: Key, _entry: &mut (), attempt: u32) -> Answer<Duration> {
        self.backoffs_asked.push(attempt);
        Answer { value: (self.delay)(attempt), panic: None }
    }

    fn heartbeats(&mut self, _entry: &()) -> Heartbeats {
        Heartbeats { count: self.heartbeats, doing: "working", is_waiting: self.is_waiting }
    }

    fn look_at(&mut self, _entry: &(), _run: u64) -> Sight {
        self.looked_after.push(self.stops);
        Sight::default()
    }

    fn abandon(&mut self, _entry: &(), run: u64, stopping_for: Duration, _sight: Sight) -> bool {
        self.abandoned.push((run, stopping_for));
        !self.is_closing
    }

    fn waiting_for(&mut self, _entry: &()) -> WaitingFor {
        let (id, root, reason) = ("a".into(), "a".into(), "is not ready".into());
        let state = "is not ready".into();
        WaitingFor { id, root, reason, state, wellness: Wellness::Well }
    }

    fn publish_begin(&mut self, _entry: &(), _view: View) -> Result<(), StartDenied> {
        if self.is_denied { Err(StartDenied) } else { Ok(()) }
    }

    fn provide_thread(&mut self, _entry: &mut ()) -> Result<(), NotProvided> {
        if self.no_thread {
            Err(NotProvided::Failed(Failure::new("no thread".into())))
        } else {
            Ok(())
        }
    }
}

pub(super) fn rules() -> Rules {
    Rules {
        policy: Policy::Permanent,
        healthy_after: 1000 * MS,
        stop_timeout: 200 * MS,
        max_restarts: None,
        significant: false,
        watchdog: None,
        abandon_after: None,
    }
}

pub(super) fn failed() -> Exit {
    Exit::panicked("boom")
}

impl Scene {
    pub(super) fn new(rules: &[Rules]) -> Self {
        Self::with_rate(None, rules)
    }

    /// With so many starts in one second at most.
    pub(super) fn with_rate(most: impl Into<Option<u32>>, rules: &[Rules]) -> Self {
        Self::with(most, rules, &[])
    }

    /// With children that come after others: pairs of ids, the later one first.
    pub(super) fn with(
        most: impl Into<Option<u32>>,
        rules: &[Rules],
        after: &[(&str, &str)],
    ) -> Self {
        let most = most.into().and_then(NonZeroU32::new);
        let now = system_now();
        let script = Script {
            now,
            off: Vec::new(),
            no_thread: false,
            is_denied: false,
            delay: |attempt| 10 * MS * 2u32.pow(attempt),
            heartbeats: 0,
            is_waiting: false,
            flags_asked: Vec::new(),
            backoffs_asked: Vec::new(),
            stops: 0,
            looked_after: Vec::new(),
            is_closing: false,
            abandoned: Vec::new(),
        };
        let mut scene =
            Self { roster: Roster::new(most), script, origin: now, reported: Vec::new() };
        for (number, (rules, name)) in rules.iter().zip(["a", "b", "c"]).enumerate() {
            let after = after.iter().filter(|(child, _)| *child == name).map(|(_, other)| {
                let key = ["a", "b", "c"].iter().position(|name| name == other);
                Dependency { id: ChildId::from(*other), key: key.map(|key| Key(key as u64)) }
            });
            let (key, id) = (Key(number as u64), ChildId::from(name));
            scene.roster.insert(key, id, (), rules.clone(), after.collect(), now);
        }
        scene.poll();
        scene
    }

    pub(super) fn settle(&mut self) {
        self.roster.expire(self.script.now);
        for _ in 0..WITHIN {
            match self.roster.next_step(&mut self.script) {
                Progress::Perform(key, (), action) => self.perform(key, action),
                Progress::Forgotten(..) | Progress::Again => {}
                Progress::Settled => {
                    let now = self.script.now;
                    if self.roster.is_in_round() {
                        self.roster.continue_round(&mut self.script);
                    } else if self.roster.next_deadline().is_none_or(|deadline| deadline > now) {
                        return;
                    }
                    self.roster.expire(now);
                }
            }
        }
        panic!("the core does not come to rest");
    }

    fn perform(&mut self, key: Key, action: Action) {
        let millis = (self.script.now - self.origin).as_millis();
        match action {
            Action::Report(report) => {
                let name = match report.kind {
                    EventKind::Started => "started",
                    EventKind::Stopped { .. } => "stopped",
                    EventKind::Healthy { .. } => "healthy",
                    EventKind::FlagChanged { enabled: true } => "switched on",
                    EventKind::FlagChanged { enabled: false } => "switched off",
                    EventKind::Waiting { .. } => "waits",
                    EventKind::Overdue { .. } => "overdue",
                    EventKind::Abandoned { .. } => "abandoned",
                    EventKind::GaveUp => "gave up",
                    EventKind::Hung { .. } => "hung",
                    EventKind::Tripped { .. } => "tripped",
                    EventKind::Ordered { .. } => "ordered",
                    EventKind::CallbackPanicked { .. } => "panicked",
                };
                self.reported.push(format!("{millis} {} {name} {}", report.id, report.failures));
            }
            Action::Stop => {
                self.script.stops += 1;
                self.reported.push(format!("{millis} {key:?} asked to stop"));
            }
            _ => {}
        }
    }

    pub(super) fn poll(&mut self) {
        self.roster.begin_round();
        self.settle();
    }

    /// Moves the clock to a moment, and stops at every deadline on the way, as the engine does.
    pub(super) fn at(&mut self, millis: u32) -> &mut Self {
        let target = self.origin + millis * MS;
        while let Some(deadline) =
            self.roster.next_deadline().filter(|deadline| *deadline <= target)
        {
            assert!(
                deadline > self.script.now,
                "a timer that is due was left behind: the loop would spin"
            );
            self.script.now = deadline;
            self.settle();
        }
        self.script.now = target;
        self
    }

    pub(super) fn order(&mut self, key: Key, order: Order) -> &mut Self {
        self.roster.order(key, order, self.script.now);
        self.settle();
        self
    }

    pub(super) fn exits(&mut self, key: Key, run: u64, exit: Exit) -> &mut Self {
        self.roster
            .run_ended(key, run, exit, self.script.now, &mut self.script)
            .expect("it is the present run");
        self.settle();
        self
    }

    #[track_caller]
    pub(super) fn reports(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.reported), expected);
    }
}
