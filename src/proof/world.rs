//! Simulated environment of the core, on virtual time with unpredictable callbacks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::model::Model;
use crate::{
    core::{
        circuit::View,
        interface::{Answer, Environment, NotProvided, Sight, StartDenied},
        key::Key,
        run::Heartbeats,
    },
    event::{WaitingFor, Wellness},
    id::ChildId,
    sync::panic::{Panic, Text},
};

pub(crate) const MS: Duration = Duration::from_millis(1);

/// How the environment answers where it has a choice.
#[derive(Clone, Debug)]
pub(crate) enum Whims {
    Random(fastrand::Rng),
    /// Callbacks take no time and never panic, and each backoff has this length.
    None {
        backoff: Duration,
    },
}

impl Whims {
    /// True `n` times in 256 if the whims are random, and else never.
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
            Self::Random(random) => CHOICES
                .get(random.usize(..=CHOICES.len()))
                .map_or(Duration::MAX, |nanos| Duration::from_nanos(*nanos)),
            Self::None { backoff } => *backoff,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    whims: Whims,
    pub(crate) now: Instant,
    pub(crate) models: BTreeMap<Key, Model>,
    /// Whether children are ready that others come after and that are not part of the world.
    pub(crate) outside: BTreeMap<ChildId, bool>,
    /// Counts the messages and the calls of sinks: whatever takes time outside of the core.
    pub(crate) moment: u64,
    /// A shutdown was requested.
    pub(crate) closing: bool,
    /// The shutdown has reached the core.
    pub(crate) is_closed: bool,
    pub(crate) last_backoff: Option<(u32, Duration)>,
    /// How many runs may start in one second, and when they did.
    most_starts: Option<u32>,
    starts: Vec<Instant>,
}

impl World {
    pub(crate) fn new(whims: Whims, most_starts: Option<u32>, origin: Instant) -> Self {
        Self {
            whims,
            now: origin,
            models: BTreeMap::new(),
            outside: BTreeMap::new(),
            moment: 1,
            closing: false,
            is_closed: false,
            last_backoff: None,
            most_starts,
            starts: Vec::new(),
        }
    }

    /// Notes the start of a run, or a try without a thread.
    pub(crate) fn note_start(&mut self) {
        let Some(most) = self.most_starts else { return };
        assert!(
            self.recent_starts() < most as usize,
            "promise 3: more than {most} starts a second"
        );
        self.starts.push(self.now);
    }

    /// Whether nothing that the core asks for takes time.
    pub(crate) fn is_punctual(&self) -> bool {
        matches!(self.whims, Whims::None { .. })
    }

    /// Whether no further run may start now.
    pub(crate) fn is_rate_used_up(&self) -> bool {
        self.most_starts.is_some_and(|most| self.recent_starts() >= most as usize)
    }

    fn recent_starts(&self) -> usize {
        let is_recent = |at: &&Instant| self.now.duration_since(**at) < 1000 * MS;
        self.starts.iter().rev().take_while(is_recent).count()
    }

    /// The model of a child that the core knows.
    pub(crate) fn model(&mut self, key: Key) -> &mut Model {
        self.models.get_mut(&key).expect("the core knows only children that were inserted")
    }

    /// Has every model see whether what it comes after is ready.
    pub(crate) fn note_readiness(&mut self) {
        if self.is_closed {
            return;
        }
        let ready: BTreeSet<ChildId> = self
            .models
            .values()
            .filter(|model| model.listed && model.is_inserted && model.is_ready())
            .map(|model| model.id.clone())
            .chain(self.outside.iter().filter(|(_, ready)| **ready).map(|(id, _)| id.clone()))
            .collect();
        for model in self.models.values_mut().filter(|model| model.is_inserted) {
            let is_blocked = model.after.iter().any(|id| !ready.contains(id));
            model.depends(is_blocked);
        }
    }

    /// Whether the shutdown has a child wait for others.
    pub(crate) fn is_postponed(&self, key: Key) -> bool {
        let Some(child) = self.models.get(&key) else { return false };
        let awaits = |other: &Model| {
            other.listed && other.after.contains(&child.id) && other.is_still_stopping(self.now)
        };
        self.models.values().any(awaits)
    }

    /// Moves the clock as callbacks and spawning do: the core has to read the time anew afterwards.
    fn take_time(&mut self) {
        self.now += self.whims.time_taken();
    }
}

impl Environment for World {
    type Entry = Key;

    fn now(&self) -> Instant {
        self.now
    }

    fn is_enabled(&mut self, key: Key, id: &str) -> Answer<Option<bool>> {
        self.take_time();
        assert!(!self.is_closed, "a flag was asked in a shutdown");
        let (panics, moment) = (self.whims.panics(), self.moment);
        let model = self.model(key);
        assert_eq!(model.id, *id);
        let value = model.ask_flag(moment, panics);
        Answer { value, panic: panics.then(|| Panic::new(Text::Literal("flag"), None)) }
    }

    fn backoff(&mut self, key: Key, entry: &mut Key, attempt: u32) -> Answer<Duration> {
        assert!(attempt >= 1, "a backoff was asked for attempt 0");
        assert_eq!(key, *entry);
        self.model(key).ask_backoff();
        let delay = self.whims.backoff();
        self.last_backoff = Some((attempt, delay));
        let panic = self.whims.panics().then(|| Panic::new(Text::Literal("backoff"), None));
        Answer { value: delay, panic }
    }

    fn heartbeats(&mut self, key: &Key) -> Heartbeats {
        let model = self.model(*key);
        Heartbeats { count: model.heartbeats, doing: "simulating", is_waiting: model.is_waiting }
    }

    fn look_at(&mut self, key: &Key, run: u64) -> Sight {
        let body = self.model(*key).body.expect("only a run that goes on is looked at");
        assert_eq!(body.run, run, "promise 12");
        Sight::default()
    }

    fn abandon(&mut self, key: &Key, run: u64, stopping_for: Duration, _sight: Sight) -> bool {
        let (now, ends_outermost) = (self.now, !self.closing);
        self.model(*key).abandon(run, stopping_for, ends_outermost, now);
        ends_outermost
    }

    fn waiting_for(&mut self, key: &Key) -> WaitingFor {
        let id = self.model(*key).after.first().expect("it comes after others").clone();
        let (root, reason) = (id.clone(), "is not ready".into());
        let state = "is not ready".into();
        WaitingFor { id, root, reason, state, wellness: Wellness::Well }
    }

    fn provide_thread(&mut self, key: &mut Key) -> Result<(), NotProvided> {
        self.take_time();
        let (closing, moment, now) = (self.closing, self.moment, self.now);
        if closing {
            return Err(NotProvided::Denied(StartDenied));
        }
        let provided = self.model(*key).provide_thread(moment, now);
        if matches!(provided, Err(NotProvided::Failed(_))) {
            self.note_start();
        }
        provided
    }

    fn publish_begin(&mut self, key: &Key, view: View) -> Result<(), StartDenied> {
        if self.closing {
            return Err(StartDenied);
        }
        let moment = self.moment;
        self.model(*key).publish_begin(view, moment)
    }
}
