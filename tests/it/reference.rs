//! Reference supervisor: one written from the documentation alone, with none of the crate's own
//! code but names.
//!
//! Where the documentation leaves something open, it does as the supervisor does, and says so.

mod child;
mod steps;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use circuit_breaker_supervisor::{ChildStatus, CircuitState, OffBy, StopCause};

use self::child::{Child, Run};
use crate::program::*;

#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) now: Duration,
    pub(crate) children: Vec<Child>,
    /// What each child was told of, also of those that are gone.
    pub(crate) told: BTreeMap<Id, Vec<Told>>,
    flags: BTreeMap<Id, Option<bool>>,
    next_poll: Duration,
    inbox: VecDeque<Message>,
    failing_spawns: BTreeMap<Id, u32>,
    deafness: BTreeMap<Id, Duration>,
    runs: u64,
    /// The children that are to be looked at: all that they come after became ready, or ceased to
    /// be.
    unseen: VecDeque<Id>,
    /// How many runs may start in one second.
    rate: Option<usize>,
    /// When runs started, or could not for want of a thread.
    starts: Vec<Duration>,
    /// Those that are due and have no turn yet.
    queue: Vec<Id>,
    /// While all flags are being asked.
    round: Option<Round>,
    /// The first round is over.
    has_had_round: bool,
    /// Who was found waiting before that: it is told after it.
    deferred: Vec<Id>,
    added: u64,
    /// Asked to shut down: from then on nothing starts.
    pub(crate) is_closing: bool,
    /// Since when it shuts down.
    closes: Option<Duration>,
    pub(crate) gave_up: Option<Id>,
    pub(crate) abandoned: Option<Id>,
    pub(crate) has_ended: bool,
}

/// All flags are asked in list order.
#[derive(Clone, Debug)]
struct Round {
    /// The number of the child that was asked last.
    after: u64,
    /// Another round was called for meanwhile.
    again: bool,
}

#[derive(Clone, Debug)]
enum Message {
    /// The next order of the child of this number.
    Order(Id, u64),
    Add(Id),
    PollNow,
    Shutdown,
    /// An end, and how long a wait its error demands.
    End(Id, u64, Ending, Duration),
    Healthy(Id, u64),
    Tripped(Id, u64, u32),
    /// The first heartbeat of a run: nothing is to be done, but it has its place among the others.
    /// The documentation leaves that open; this is how it is.
    Watch,
}

impl Reference {
    pub(crate) fn new(specs: &[Spec], rate: Option<u32>) -> Self {
        Self {
            now: Duration::ZERO,
            children: (1..)
                .zip(specs)
                .map(|(number, spec)| Child {
                    has_had_turn: false,
                    ..Child::new(number, spec.clone())
                })
                .collect(),
            told: BTreeMap::new(),
            flags: BTreeMap::new(),
            next_poll: POLL,
            inbox: VecDeque::new(),
            failing_spawns: BTreeMap::new(),
            deafness: BTreeMap::new(),
            runs: 0,
            unseen: VecDeque::new(),
            rate: rate.map(|rate| rate as usize),
            starts: Vec::new(),
            queue: Vec::new(),
            round: Some(Round { after: 0, again: false }),
            has_had_round: false,
            deferred: Vec::new(),
            added: specs.len() as u64,
            is_closing: false,
            closes: None,
            gave_up: None,
            abandoned: None,
            has_ended: false,
        }
    }

    pub(crate) fn shown(&self, id: Id) -> Option<Shown> {
        let child = self.child(id)?;
        Some(child.shown(self.now, self.closes, self.waits_for(child)))
    }

    /// What callers see of a child's circuit.
    pub(crate) fn breaker(&self, id: Id) -> Option<CircuitState> {
        self.child(id).map(Child::breaker)
    }

    pub(crate) fn is_well(&self) -> bool {
        let is_well = |child: &Child| match self.status(child) {
            // It is as well as the one at the root; if that is listed, it is asked here itself.
            ChildStatus::Waiting => {
                self.waits_for(child).is_some_and(|its| self.child(its.root).is_some())
            }
            ChildStatus::Finished | ChildStatus::Off { by: OffBy::Flag | OffBy::Operator } => true,
            ChildStatus::GaveUp => false,
            _ => {
                let stop_request = child.run.as_ref().and_then(|run| run.stop_request);
                let is_bad =
                    matches!(stop_request, Some((StopCause::Tripped | StopCause::Hung, _)));
                child.failures == 0 && !child.is_overdue() && !is_bad
            }
        };
        !self.is_closing && self.children.iter().all(is_well)
    }

    /// When something happens next, by its own account: what a test is to come close to.
    pub(crate) fn deadlines(&self) -> Vec<Duration> {
        let silence = |child: &Child| child.silent_since().map(|(limit, at, _)| at + limit);
        let of_children =
            self.children.iter().flat_map(|child| child.deadlines().chain(silence(child)));
        let mut deadlines: Vec<_> = of_children
            .chain([self.next_poll])
            .chain(self.next_turn())
            .filter(|at| *at < MAX)
            .collect();
        deadlines.sort();
        deadlines
    }

    fn child(&self, id: Id) -> Option<&Child> {
        self.children.iter().find(|child| child.spec.id == id)
    }

    fn child_mut(&mut self, id: Id) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.spec.id == id)
    }

    /// Whether something was asked of it that it is yet to do.
    pub(crate) fn is_asked(&self) -> bool {
        !self.inbox.is_empty() || self.round.is_some()
    }

    /// Whether nothing more is to be asked of it before it has done that. Of two things that are
    /// asked at the same time, one may make a child ready or unready, and the other concern those
    /// that come after it: which of the two they see first, the documentation does not say.
    pub(crate) fn has_to_settle(&self) -> bool {
        let comes_after = |child: &Child| !child.spec.after.is_empty();
        self.is_asked() && (self.rate.is_some() || self.children.iter().any(comes_after))
    }

    /// Whether its children have their first start, in their turns. If the first spawn of one that
    /// is significant fails then, the documentation does not say who is started still.
    pub(crate) fn is_starting_in_turns(&self) -> bool {
        self.rate.is_some() && self.round.is_some()
    }

    fn status(&self, child: &Child) -> ChildStatus {
        child.status(self.now, self.closes)
    }

    fn is_due(&self, child: &Child) -> bool {
        self.status(child) == ChildStatus::Due
    }

    /// For whom it waits: the first of those that it comes after which is not ready. If all are,
    /// and it is yet to be looked at, that is the last of them; the documentation leaves that open.
    fn waits_for(&self, child: &Child) -> Option<WaitsFor> {
        let after = child.spec.after.iter().copied();
        let is_ready = |id: &Id| self.child(id).is_some_and(Child::is_ready);
        let id = after.clone().find(|id| !is_ready(id)).or(after.last())?;
        let next = self.child(id).filter(|next| self.status(next) == ChildStatus::Waiting);
        let root = next.and_then(|next| self.waits_for(next)).map_or(id, |its| its.root);
        Some(WaitsFor { id, root })
    }

    /// Whether the child may be added, by what it comes after and who comes after it. One that is
    /// being removed counts until it is gone; the documentation leaves that open.
    fn fits(&self, spec: &Spec) -> bool {
        let is_listed =
            |id: &Id| self.child(id).is_some_and(|other| other.spec.policy != Policy::Once);
        let is_awaited = self.children.iter().any(|child| child.spec.after.contains(&spec.id));
        // All that it comes after, directly or not.
        let mut before = spec.after.clone();
        let mut seen = 0;
        while let Some(id) = before.get(seen).copied() {
            let of_that = self.child(id).into_iter().flat_map(|child| child.spec.after.clone());
            let new: Vec<_> = of_that.filter(|id| !before.contains(id)).collect();
            before.extend(new);
            seen += 1;
        }
        spec.after.iter().all(is_listed)
            && !before.contains(&spec.id)
            && !(is_awaited && spec.policy == Policy::Once)
    }

    /// When the next run may start, if one is due and there were as many as may start.
    fn next_turn(&self) -> Option<Duration> {
        let first = self.starts.len().checked_sub(self.rate?)?;
        self.queue.first()?;
        Some(self.starts[first] + Duration::from_secs(1))
    }

    /// The child's present run, if that is the one.
    fn run_mut(&mut self, id: Id, number: u64) -> Option<&mut Run> {
        self.child_mut(id)?.run.as_mut().filter(|run| run.number == number)
    }

    fn tell(&mut self, id: Id, what: What) {
        let failures = self.child(id).map_or(0, |child| child.failures);
        self.told.entry(id).or_default().push(Told { at: self.now, failures, what });
    }

    /// Does what a test does. Returns whether that was accepted.
    ///
    /// A silence is noticed within a span of time and not at an instant; so those that were noticed
    /// are given, or they are noticed as early as may be.
    pub(crate) fn apply(
        &mut self,
        transition: &Transition,
        hangs: Option<&[(Duration, Id)]>,
    ) -> bool {
        if self.has_ended {
            if let Transition::Advance(duration) = transition {
                self.now += *duration;
            }
            let is_always = matches!(
                transition,
                Transition::Advance(_)
                    | Transition::Flag(..)
                    | Transition::Shutdown
                    | Transition::FailNextSpawn(_)
                    | Transition::IgnoreStopFor(..)
            );
            return is_always
                || matches!(
                    transition,
                    Transition::ReportFailure(id) | Transition::ReportSuccess(id)
                        if self.child(id).is_some()
                );
        }
        match transition {
            Transition::Advance(duration) => self.advance(*duration, hangs),
            Transition::Exit(id, ending) => return self.exit(id, *ending, Duration::ZERO),
            Transition::Demand(id, wait) => return self.exit(id, Ending::Failed, *wait),
            Transition::MarkHealthy(id) => {
                let Some(run) = self.child_mut(id).and_then(|child| child.run.as_mut()) else {
                    return false;
                };
                let number = run.number;
                if !std::mem::replace(&mut run.has_said_so, true) {
                    self.inbox.push_back(Message::Healthy(id, number));
                }
                self.catch_up();
            }
            Transition::Heartbeat(id, doing) => {
                let now = self.now;
                let Some(run) = self.child_mut(id).and_then(|child| child.run.as_mut()) else {
                    return false;
                };
                if run.heartbeat.replace((now, doing)).is_none() {
                    self.inbox.push_back(Message::Watch);
                }
                self.catch_up();
            }
            Transition::Flag(id, answer) => drop(self.flags.insert(id, *answer)),
            Transition::Order(id, order) => {
                let Some(child) = self.child_mut(id) else { return false };
                match order {
                    Order::Hold | Order::Remove => child.is_to_stay_down = true,
                    Order::Release => child.is_to_stay_down = child.is_to_go,
                    _ => {}
                }
                child.is_to_go |= *order == Order::Remove;
                let is_switch = |order: Order| matches!(order, Order::Hold | Order::Release);
                let same = |other: &Order| other == order || is_switch(*other) && is_switch(*order);
                let place = child.orders.iter().position(same);
                child.orders.push(*order);
                let number = child.number;
                match place {
                    Some(place) => drop(child.orders.remove(place)),
                    None => self.inbox.push_back(Message::Order(id, number)),
                }
            }
            Transition::Add(spec) => {
                if self.is_closing || self.child(spec.id).is_some() || !self.fits(spec) {
                    return false;
                }
                self.added += 1;
                let is_ready = |id: &Id| self.child(id).is_some_and(Child::is_ready);
                let is_free = spec.after.iter().all(is_ready);
                let child = Child::new(self.added, spec.clone());
                self.children.push(Child { is_known: false, is_free, is_kept: !is_free, ..child });
                self.inbox.push_back(Message::Add(spec.id));
            }
            // Asked again before that is taken up, it is one wish.
            Transition::PollNow
                if self.inbox.iter().any(|message| matches!(message, Message::PollNow)) => {}
            Transition::PollNow => self.inbox.push_back(Message::PollNow),
            Transition::Shutdown => self.ask_to_shut_down(),
            Transition::ReportFailure(id) => return self.report_failure(id),
            Transition::ReportSuccess(id) => {
                let Some(child) = self.child_mut(id) else { return false };
                if let Some(run) = &mut child.run {
                    run.reports = 0;
                }
            }
            Transition::FailNextSpawn(id) => *self.failing_spawns.entry(id).or_default() += 1,
            Transition::IgnoreStopFor(id, duration) => drop(self.deafness.insert(id, *duration)),
        }
        true
    }

    fn exit(&mut self, id: Id, ending: Ending, demanded: Duration) -> bool {
        let Some(run) = self.child_mut(id).and_then(|child| child.run.as_mut()) else {
            return false;
        };
        (run.is_over, run.returns_at) = (true, None);
        let number = run.number;
        self.inbox.push_back(Message::End(id, number, ending, demanded));
        self.catch_up();
        true
    }

    fn report_failure(&mut self, id: Id) -> bool {
        let Some(child) = self.child_mut(id) else { return false };
        let circuit = child.breaker();
        let threshold =
            if circuit == CircuitState::HalfOpen { 1 } else { child.spec.failure_threshold };
        let Some(run) = child.run.as_mut().filter(|_| circuit != CircuitState::Open) else {
            return true;
        };
        run.reports += 1;
        if run.reports >= threshold {
            run.is_tripped = true;
            let message = Message::Tripped(id, run.number, run.reports);
            self.inbox.push_back(message);
        }
        true
    }

    // ── Time ──

    fn advance(&mut self, duration: Duration, noticed: Option<&[(Duration, Id)]>) {
        let until = self.now + duration;
        let mut hangs: VecDeque<_> = noticed.unwrap_or_default().iter().copied().collect();
        self.catch_up();
        loop {
            if noticed.is_none() {
                let silent = |child: &Child| {
                    child.silent_since().map(|(limit, since, _)| (since + limit, child.spec.id))
                };
                hangs = self.children.iter().filter_map(silent).min().into_iter().collect();
            }
            let own = self
                .children
                .iter()
                .flat_map(|child| child.deadlines().chain(child.last_wait()))
                .chain([self.next_poll])
                .chain(self.next_turn());
            let hang = hangs.front().map(|(at, _)| *at);
            let next = own.chain(hang).filter(|at| *at > self.now || Some(*at) == hang).min();
            let Some(next) = next.filter(|next| *next <= until && !self.has_ended) else { break };
            self.check_silences(next);
            self.now = next;
            if self.next_poll == next {
                self.next_poll += POLL;
                self.begin_round();
            }
            for child in &mut self.children {
                if let Some(run) = child.run.as_mut().filter(|run| run.returns_at == Some(next)) {
                    (run.is_over, run.returns_at) = (true, None);
                    let (id, number) = (child.spec.id, run.number);
                    let end = Message::End(id, number, Ending::Completed, Duration::ZERO);
                    self.inbox.push_back(end);
                }
            }
            while let Some((_, id)) = hangs.front().copied().filter(|(at, _)| *at == next) {
                hangs.pop_front();
                self.hang(id);
            }
            self.catch_up();
        }
        if !self.has_ended {
            self.check_silences(until);
        }
        assert!(noticed.is_none() || hangs.is_empty(), "hangs after the end: {hangs:?}");
        self.now = until;
    }

    /// No silence lasts beyond the span within which it is noticed.
    fn check_silences(&self, at: Duration) {
        for child in &self.children {
            if let Some((limit, since, _)) = child.silent_since() {
                let latest = since + limit + limit / 4 + Duration::from_millis(1);
                assert!(
                    at <= latest,
                    "{} is silent since {since:?}, and at {at:?} nobody has noticed",
                    child.spec.id
                );
            }
        }
    }

    fn hang(&mut self, id: Id) {
        let watched = self.child(id).and_then(Child::silent_since);
        let (limit, since, doing) =
            watched.unwrap_or_else(|| panic!("{id} hangs, which nobody watches"));
        assert!(self.now - since >= limit, "{id} hangs, and is not silent for long enough");
        // Up for long enough until it is asked to stop, it is healthy before.
        self.see_to(id);
        self.tell(id, What::Hung { doing: doing.into() });
        self.request_stop(id, StopCause::Hung);
    }
}
