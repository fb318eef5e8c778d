//! Test bench of the core: messages go in, actions come out, models check both after every step.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use super::{
    model::Model,
    world::{Whims, World},
};
use crate::{
    core::{
        dependencies::Dependency,
        interface::{Action, Progress},
        key::Key,
        roster::Roster,
        rules::Rules,
    },
    event::Order,
    exit::Exit,
    id::ChildId,
};

/// Many more steps than a few children need to come to rest.
pub(crate) const WITHIN: u32 = 10_000;

/// A message on its way to the core.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    RunEnded {
        key: Key,
        run: u64,
        exit: Exit,
        at: Instant,
    },
    MarkedHealthy {
        key: Key,
        run: u64,
    },
    FirstHeartbeat {
        key: Key,
        run: u64,
    },
    Trip {
        key: Key,
        run: u64,
    },
    /// The next pending order of the child.
    Order {
        key: Key,
    },
    Add {
        key: Key,
    },
    Round,
    Close {
        limit: Duration,
    },
}

/// The core, its simulated environment, and the messages on their way to the core.
#[derive(Clone)]
pub(crate) struct Trial {
    pub(crate) roster: Roster<Key>,
    pub(crate) world: World,
    pub(crate) inbox: VecDeque<Message>,
    next_key: u64,
    /// The children requested to stop since the shutdown reached the core, until that is settled.
    stops_in_close: Option<Vec<Key>>,
    pub(crate) trace: Option<Vec<String>>,
}

impl Trial {
    pub(crate) fn new(whims: Whims, most_starts: Option<u32>, origin: Instant) -> Self {
        let roster = Roster::new(most_starts.and_then(NonZeroU32::new));
        let (world, inbox) = (World::new(whims, most_starts, origin), VecDeque::new());
        Self { roster, world, inbox, next_key: 0, stops_in_close: None, trace: None }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(what());
        }
    }

    // ── What happens in the environment ──

    /// Lists a child in the environment; the core does not know it yet.
    pub(crate) fn list(&mut self, rules: Rules, flag: bool, fails_to_spawn: bool) -> Key {
        let key = Key(self.next_key);
        self.next_key += 1;
        let id = ChildId::from(format!("child{}", key.0));
        self.list_as(key, id, rules, flag, fails_to_spawn)
    }

    /// Lists a child under the id of an earlier one, which is gone.
    pub(crate) fn list_again(&mut self, id: ChildId, rules: Rules) -> Key {
        let key = Key(self.next_key);
        self.next_key += 1;
        self.list_as(key, id, rules, true, false)
    }

    fn list_as(
        &mut self,
        key: Key,
        id: ChildId,
        rules: Rules,
        flag: bool,
        fails_to_spawn: bool,
    ) -> Key {
        self.world.models.insert(key, Model::new(id, rules, flag, fails_to_spawn));
        key
    }

    pub(crate) fn order(&mut self, key: Key, order: Order) {
        let model = self.world.model(key);
        if !model.listed {
            return;
        }
        match order {
            Order::Hold => model.held = true,
            Order::Release => model.held = false,
            Order::Remove => model.removing = true,
            Order::Add | Order::Restart | Order::Reset => {}
        }
        match model.pending.iter().position(|pending| order.replaces(*pending)) {
            Some(place) => drop(model.pending.remove(place)),
            None => self.inbox.push_back(Message::Order { key }),
        }
        self.world.model(key).pending.push(order);
    }

    pub(crate) fn close(&mut self, limit: Duration) {
        self.world.closing = true;
        self.inbox.push_back(Message::Close { limit });
    }

    /// Ends the present run of a child, and sends the message about it.
    pub(crate) fn exit(&mut self, key: Key, exit: Exit) {
        let at = self.world.now;
        let body = self.world.model(key).body.as_mut().expect("it runs");
        body.ended = true;
        let run = body.run;
        self.inbox.push_back(Message::RunEnded { key, run, exit, at });
    }

    // ── What arrives at the core ──

    pub(crate) fn insert(&mut self, key: Key) {
        let model = self.world.model(key);
        model.is_inserted = true;
        let (id, rules, after) = (model.id.clone(), model.rules.clone(), model.after.clone());
        let key_of = |id: &ChildId| {
            let listed = |(_, model): &(&Key, &Model)| model.listed && model.id == *id;
            self.world.models.iter().find(listed).map(|(key, _)| *key)
        };
        let dependencies =
            after.into_iter().map(|id| Dependency { key: key_of(&id), id }).collect();
        self.roster.insert(key, id, key, rules, dependencies, self.world.now);
        self.world.note_readiness();
        assert_eq!(self.roster.entry(key), Some(&key));
    }

    pub(crate) fn deliver(&mut self) {
        let Some(message) = self.inbox.pop_front() else { return };
        self.note(|| format!("deliver {message:?}"));
        let now = self.world.now;
        self.deliver_message(message, now);
        self.world.note_readiness();
    }

    fn deliver_message(&mut self, message: Message, now: Instant) {
        match message {
            Message::RunEnded { key, run, exit, at } => self.deliver_exit(key, run, exit, at),
            Message::MarkedHealthy { key, run } => {
                self.world.model(key).marked_healthy(run);
                self.roster.marked_healthy(key, run, now);
            }
            Message::FirstHeartbeat { key, run } => {
                self.roster.gave_heartbeat(key, run, now, &mut self.world)
            }
            Message::Trip { key, run } => {
                let model = self.world.model(key);
                model.tripped(run);
                let is_present = model.body.is_some_and(|body| body.run == run);
                self.act(is_present, "a report on an earlier run", |roster| {
                    roster.tripped(key, run, 10, "said callers".into(), now);
                });
            }
            Message::Add { key } => {
                self.insert(key);
                self.world.model(key).ordered(Order::Add, false);
                self.roster.order(key, Order::Add, now);
            }
            Message::Round => self.roster.begin_round(),
            Message::Close { limit } => {
                self.stops_in_close = (!self.roster.is_closing()).then(Vec::new);
                let again = std::mem::replace(&mut self.world.is_closed, true);
                for model in self.world.models.values_mut() {
                    model.closed(limit, again, now);
                }
                self.roster.close(now, limit);
                for key in self.roster.postponed().copied().collect::<Vec<_>>() {
                    // One whose stop timeout is zero has had its time as soon as it is asked.
                    let id = self.world.model(key).id.clone();
                    let awaits = |other: &Model| other.body.is_some() && other.after.contains(&id);
                    let is_postponed = self.world.models.values().any(awaits);
                    assert!(is_postponed, "promise 11: {key:?} waits for nobody");
                    let model = self.world.model(key);
                    assert!(model.stop_asked.is_none(), "promise 11: {key:?} was asked before");
                    model.was_postponed = true;
                }
            }
            Message::Order { key } => {
                let is_closed = self.world.is_closed;
                let model = self.world.model(key);
                let order = model.pending.remove(0);
                let listed = model.listed;
                if listed {
                    model.ordered(order, is_closed);
                }
                self.act(listed, "an order to a child that is gone", |roster| {
                    roster.order(key, order, now)
                });
            }
        }
    }

    /// Runs `act` on the core, and checks that it changes nothing if its run or child is not
    /// present.
    fn act(&mut self, is_present: bool, what: &str, act: impl FnOnce(&mut Roster<Key>)) {
        let before = (!is_present).then(|| format!("{:?}", self.roster));
        act(&mut self.roster);
        if let Some(before) = before {
            assert_eq!(
                before,
                format!("{:?}", self.roster),
                "promise 12: {what} changed something"
            );
        }
    }

    fn deliver_exit(&mut self, key: Key, run: u64, exit: Exit, at: Instant) {
        let present = self.world.models.get_mut(&key).and_then(|model| {
            let body = model.body.filter(|body| body.run == run && body.ended)?;
            Some((model, body))
        });
        let Some((model, body)) = present else {
            let before = format!("{:?}", self.roster);
            assert!(
                self.roster.run_ended(key, run, exit, at, &mut self.world).is_err(),
                "promise 12: a stale exit acted"
            );
            assert_eq!(
                before,
                format!("{:?}", self.roster),
                "promise 12: a stale exit changed something"
            );
            return;
        };
        let foreseen = model.end(body, &exit, self.world.is_closed, at);
        self.world.last_backoff = None;
        self.roster.run_ended(key, run, exit, at, &mut self.world).expect("the present run ended");
        let last_backoff = self.world.last_backoff;
        self.world.model(key).ended(foreseen, last_backoff, at);
    }

    // ── What the core does ──

    /// Settles the core, as the engine does after each message.
    pub(crate) fn settle(&mut self) {
        self.world.moment += 1;
        for _ in 0..WITHIN {
            self.roster.expire(self.world.now);
            self.perform_all();
            if self.roster.is_in_round() {
                self.roster.continue_round(&mut self.world);
            } else if self.roster.next_deadline().is_none_or(|deadline| deadline > self.world.now) {
                return self.check();
            }
        }
        panic!("promise 14: the core does not come to rest");
    }

    fn perform_all(&mut self) {
        for _ in 0..WITHIN {
            match self.roster.next_step(&mut self.world) {
                Progress::Perform(key, _, action) => {
                    self.note(|| format!("{key:?}: {action:?}"));
                    self.perform(key, action);
                    self.world.note_readiness();
                }
                Progress::Forgotten(key, _) => {
                    self.note(|| format!("{key:?}: forgotten"));
                    self.world.model(key).forget();
                    self.world.note_readiness();
                }
                Progress::Again => {}
                Progress::Settled => return,
            }
        }
        panic!("promise 14: there is no end to what the core does");
    }

    fn perform(&mut self, key: Key, action: Action) {
        let World { now, closing, is_closed, .. } = self.world;
        match action {
            Action::Publish { view, .. } => self.world.model(key).show(view),
            Action::Report(report) => {
                self.world.moment += 1;
                self.world.model(key).report(report.run, report.failures, report.kind, now);
            }
            Action::SendStart { run, failures } => {
                self.world.note_start();
                self.world.model(key).send_start(run, failures, now)
            }
            Action::Stop => {
                assert!(
                    !is_closed
                        || !self.world.is_postponed(key)
                        || self.world.model(key).has_own_reason_to_stop(),
                    "promise 11: {key:?} is asked to stop before those that come after it"
                );
                let id = self.world.model(key).id.clone();
                self.world.model(key).stop(now);
                let is_awaited = self.world.models.values().any(|model| model.after.contains(&id));
                if !is_awaited {
                    self.stops_in_close.iter_mut().for_each(|stops| stops.push(key));
                }
            }
            Action::MakeFinal { is_closing } => {
                assert_eq!(is_closing, is_closed, "a thread leaves by itself in a shutdown only");
                self.world.model(key).is_last_run(is_closed);
            }
            Action::Retire { keep_body } => self.world.model(key).retire(keep_body, closing),
            Action::ShutDown { .. } => unreachable!("no child is significant"),
        }
    }

    // ── What holds ──

    /// Checks what has to hold whenever the core has nothing left to do.
    fn check(&mut self) {
        let World { now, closing, is_closed, .. } = self.world;
        assert_eq!(self.roster.is_closing(), is_closed, "promise 11: whether it shuts down");
        if let Some(stops) = self.stops_in_close.take() {
            assert!(
                stops.iter().is_sorted_by(|one, next| one > next),
                "promise 11: stopped in reverse list order: {stops:?}"
            );
        }
        let is_rate_used_up = self.world.is_rate_used_up();
        let postponed: Vec<_> =
            self.world.models.keys().map(|key| self.world.is_postponed(*key)).collect();
        for (model, is_postponed) in self.world.models.values_mut().zip(postponed) {
            model.check(is_closed && !is_postponed, now);
            if !closing && self.inbox.is_empty() {
                model.check_at_rest(is_rate_used_up, now);
            }
        }
        let is_unwell = |model: &&Model| model.listed && model.is_inserted && model.is_unwell();
        let unwell = self.world.models.values().filter(is_unwell).count();
        assert_eq!(self.roster.unwell(), unwell, "how many are not at work");
        self.roster.check_dependencies();
        let deadlines = self.roster.deadline_count();
        let listed = self.world.models.values().filter(|model| model.listed).count();
        assert!(deadlines <= listed, "one timer at most for each child");
        // If no callback takes time, no time is left out.
        let is_late = |model: &Model| self.world.is_punctual() && model.is_to_be_abandoned(now);
        assert!(
            !self.world.models.values().any(is_late),
            "it has not stopped, and is not abandoned"
        );
        let looks = self.world.models.values().filter_map(|model| model.look_due(now));
        let next = self.roster.next_deadline();
        for due in looks {
            assert!(next.is_some_and(|next| next <= due), "nobody sees that it does not stop");
        }
        if let Some(deadline) = next {
            assert!(deadline > now, "a timer that is due was left behind: the loop would spin");
        }
    }

    /// Checks what has to hold after a shutdown in which every run has ended.
    pub(crate) fn check_end(&self) {
        assert!(self.roster.is_over(), "promise 11: a shutdown with nobody running is over");
        self.world.models.values().for_each(Model::check_end);
        let listed: Vec<_> = self.world.models.iter().filter(|(_, model)| model.listed).collect();
        let mut entries: Vec<_> = self.roster.clone().into_entries().collect();
        entries.sort_unstable();
        assert!(entries.iter().eq(listed.iter().map(|(key, _)| *key)), "entries are given back");
    }

    /// All that decides what can happen next and what the models then expect.
    pub(crate) fn essence(&self) -> impl std::hash::Hash + use<> {
        let Self { roster, world, inbox, next_key: _, stops_in_close: _, trace: _ } = self;
        let models: Vec<_> = world.models.values().map(|model| model.essence(world.now)).collect();
        let inbox: Vec<_> = inbox.iter().map(|message| message.essence(world)).collect();
        let outside: Vec<bool> = world.outside.values().copied().collect();
        (roster.essence(world.now), models, inbox, world.closing, world.is_closed, outside)
    }
}

impl Message {
    fn essence(&self, world: &World) -> impl std::hash::Hash + use<> {
        let is_present = |key: &Key, run: &u64| {
            world.models.get(key).is_some_and(|model| model.last_run == *run)
        };
        match self {
            Self::RunEnded { key, run, exit, at } => {
                let ago = world.now.saturating_duration_since(*at);
                (0, Some(*key), is_present(key, run), exit.name(), Some(ago))
            }
            Self::MarkedHealthy { key, run } => (1, Some(*key), is_present(key, run), "", None),
            Self::FirstHeartbeat { key, run } => (2, Some(*key), is_present(key, run), "", None),
            Self::Trip { key, run } => (3, Some(*key), is_present(key, run), "", None),
            Self::Order { key } => (4, Some(*key), false, "", None),
            Self::Add { key } => (5, Some(*key), false, "", None),
            Self::Round => (6, None, false, "", None),
            Self::Close { limit } => (7, None, false, "", Some(*limit)),
        }
    }
}
