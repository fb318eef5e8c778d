//! A supervisor as its documentation describes it, written from that alone, and with none of the
//! crate's own code but names.
//!
//! Where the documentation leaves something open, it does as the supervisor does, and says so.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use circuit_breaker_supervisor::{ChildStatus, CircuitState, OffBy, StopCause};

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
    /// While all flags are being asked.
    round: Option<Round>,
    added: u64,
    /// Asked to shut down: from then on nothing starts.
    pub(crate) is_closing: bool,
    /// Since when it shuts down.
    closes: Option<Duration>,
    pub(crate) gave_up: Option<Id>,
    pub(crate) has_ended: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Child {
    /// Counts those that were added.
    number: u64,
    pub(crate) spec: Spec,
    run: Option<Run>,
    failures: u32,
    /// The delay after its last failure.
    last_delay: Option<Duration>,
    retry_at: Option<Duration>,
    is_flag_on: bool,
    is_held: bool,
    /// Whether the last order to it, which the supervisor may be yet to carry out, was to hold or
    /// to remove it: no run begins then.
    is_to_stay_down: bool,
    is_to_go: bool,
    is_removed: bool,
    /// Restarted by hand while it stops: no failure of that run counts.
    is_restarted: bool,
    is_finished: bool,
    has_given_up: bool,
    has_thread: bool,
    /// The orders that are yet to be carried out. One that repeats another, or takes it back, takes
    /// its place, at the end.
    orders: Vec<Order>,
    /// The supervisor has learnt that it was added.
    is_known: bool,
    /// The children that there are at first are started in turn, or when there is something else to
    /// be done with them.
    has_had_turn: bool,
    last_stop: Option<(StopCause, Ending, Duration)>,
}

#[derive(Clone, Debug)]
struct Run {
    number: u64,
    since: Duration,
    is_healthy: bool,
    /// How many failures were forgiven as it became healthy.
    forgiven: u32,
    has_said_so: bool,
    told: Option<(StopCause, Duration)>,
    /// Since when its stop timeout runs: since it was told, and anew from the beginning of a
    /// shutdown.
    time_from: Duration,
    is_overdue: bool,
    /// When it returns, since it was told to stop.
    returns_at: Option<Duration>,
    /// It has ended, which the supervisor is yet to learn.
    is_over: bool,
    heartbeat: Option<(Duration, &'static str)>,
    reports: u32,
    is_tripped: bool,
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
    End(Id, u64, Ending),
    Healthy(Id, u64),
    Tripped(Id, u64, u32),
}

impl Child {
    fn new(number: u64, spec: Spec) -> Self {
        Self {
            number,
            spec,
            run: None,
            failures: 0,
            last_delay: None,
            retry_at: None,
            is_flag_on: true,
            is_held: false,
            is_to_stay_down: false,
            is_to_go: false,
            is_removed: false,
            is_restarted: false,
            is_finished: false,
            has_given_up: false,
            has_thread: false,
            orders: Vec::new(),
            is_known: true,
            has_had_turn: true,
            last_stop: None,
        }
    }

    /// The table at `ChildStatus`, row by row.
    fn status(&self, now: Duration, closes: Option<Duration>) -> ChildStatus {
        match &self.run {
            Some(run) if run.told.is_some() => ChildStatus::Stopping,
            Some(run) if run.is_healthy => ChildStatus::Healthy,
            Some(_) => ChildStatus::OnTrial,
            None if closes.is_some() => ChildStatus::Off { by: OffBy::Shutdown },
            None if self.is_finished => ChildStatus::Finished,
            None if self.has_given_up => ChildStatus::GaveUp,
            None if self.is_held => ChildStatus::Off { by: OffBy::Operator },
            None if !self.is_flag_on => ChildStatus::Off { by: OffBy::Flag },
            None if self.retry_at.is_some_and(|at| at > now) => ChildStatus::BackingOff,
            None => ChildStatus::Due,
        }
    }

    fn is_due(&self, now: Duration) -> bool {
        self.run.is_none() && self.status(now, None) == ChildStatus::Due
    }

    /// What the supervisor knows; callers see at once what they have tripped.
    fn circuit(&self) -> CircuitState {
        match &self.run {
            Some(run) if run.told.is_some() => CircuitState::Open,
            Some(run) if run.is_healthy || self.failures == 0 => CircuitState::Closed,
            Some(_) => CircuitState::HalfOpen,
            None => CircuitState::Open,
        }
    }

    fn breaker(&self) -> CircuitState {
        if self.run.as_ref().is_some_and(|run| run.is_tripped) {
            CircuitState::Open
        } else {
            self.circuit()
        }
    }

    fn shown(&self, now: Duration, closes: Option<Duration>) -> Shown {
        let status = self.status(now, closes);
        let told = self.run.as_ref().and_then(|run| run.told);
        let left = |at: Duration| if at == MAX { MAX } else { at - now };
        Shown {
            status,
            circuit: self.circuit(),
            failures: self.failures,
            retry_in: self.retry_at.filter(|_| status == ChildStatus::BackingOff).map(left),
            uptime: self.run.as_ref().map(|run| now - run.since),
            told_to_stop: told.map(|(cause, _)| cause),
            stopping_for: told.map(|(_, at)| now - at),
            is_overdue: self.run.as_ref().is_some_and(|run| run.is_overdue),
            last_stop: self.last_stop,
        }
    }

    /// When something happens to it by itself.
    fn deadlines(&self) -> impl Iterator<Item = Duration> {
        let run = self.run.as_ref();
        let told = run.and_then(|run| run.told);
        let trial = run.filter(|run| told.is_none() && !run.is_healthy);
        [
            self.retry_at.filter(|_| run.is_none()),
            trial.map(|run| run.since.saturating_add(self.spec.healthy_after)),
            run.filter(|run| told.is_some() && !run.is_overdue)
                .map(|run| run.time_from.saturating_add(self.spec.stop_timeout)),
            run.and_then(|run| run.returns_at),
        ]
        .into_iter()
        .flatten()
    }

    fn is_overdue(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.is_overdue)
    }

    /// Whether a shutdown waits for it: from its own beginning on for as long as the child may take
    /// to stop.
    fn is_waited_for(&self, since: Duration, now: Duration) -> bool {
        self.run.is_some() && now < since.saturating_add(self.spec.stop_timeout)
    }

    /// Since when it has been silent, if that is watched.
    fn silent_since(&self) -> Option<(Duration, Duration, &'static str)> {
        let run = self.run.as_ref().filter(|run| run.told.is_none())?;
        let (at, doing) = run.heartbeat?;
        Some((self.spec.watchdog?, at, doing))
    }
}

impl Reference {
    pub(crate) fn new(specs: &[Spec]) -> Self {
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
            round: Some(Round { after: 0, again: false }),
            added: specs.len() as u64,
            is_closing: false,
            closes: None,
            gave_up: None,
            has_ended: false,
        }
    }

    pub(crate) fn shown(&self, id: Id) -> Option<Shown> {
        Some(self.child(id)?.shown(self.now, self.closes))
    }

    /// What callers see of a child's circuit.
    pub(crate) fn breaker(&self, id: Id) -> Option<CircuitState> {
        self.child(id).map(Child::breaker)
    }

    pub(crate) fn is_well(&self) -> bool {
        let is_well = |child: &Child| match child.status(self.now, self.closes) {
            ChildStatus::Finished | ChildStatus::Off { by: OffBy::Flag | OffBy::Operator } => true,
            ChildStatus::GaveUp => false,
            _ => {
                let told = child.run.as_ref().and_then(|run| run.told);
                let is_bad = matches!(told, Some((StopCause::Tripped | StopCause::Hung, _)));
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
        let mut deadlines: Vec<_> =
            of_children.chain([self.next_poll]).filter(|at| *at < MAX).collect();
        deadlines.sort();
        deadlines
    }

    fn child(&self, id: Id) -> Option<&Child> {
        self.children.iter().find(|child| child.spec.id == id)
    }

    fn child_mut(&mut self, id: Id) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.spec.id == id)
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
                || matches!(transition, Transition::ReportFailure(id) | Transition::ReportSuccess(id) if self.child(id).is_some());
        }
        match transition {
            Transition::Advance(duration) => self.advance(*duration, hangs),
            Transition::Exit(id, ending) => {
                let Some(run) = self.child_mut(id).and_then(|child| child.run.as_mut()) else {
                    return false;
                };
                (run.is_over, run.returns_at) = (true, None);
                let number = run.number;
                self.inbox.push_back(Message::End(id, number, *ending));
                self.catch_up();
            }
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
                run.heartbeat = Some((now, doing));
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
                if self.is_closing || self.child(spec.id).is_some() {
                    return false;
                }
                self.added += 1;
                self.children
                    .push(Child { is_known: false, ..Child::new(self.added, spec.clone()) });
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
            let last = |child: &Child| {
                self.closes.map(|since| since.saturating_add(child.spec.stop_timeout))
            };
            let own = self
                .children
                .iter()
                .flat_map(|child| child.deadlines().chain(last(child)))
                .chain([self.next_poll]);
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
                    self.inbox.push_back(Message::End(
                        child.spec.id,
                        run.number,
                        Ending::Completed,
                    ));
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
        self.tell(id, What::Hung { doing });
        self.tell_to_stop(id, StopCause::Hung);
    }

    // ── What is to be done ──

    fn catch_up(&mut self) {
        loop {
            self.see_to_all();
            self.continue_round();
            self.see_to_all();
            if self.closes.is_some_and(|since| {
                self.children.iter().all(|child| !child.is_waited_for(since, self.now))
            }) {
                self.has_ended = true;
                // Ends of the same moment are told of still.
                for message in std::mem::take(&mut self.inbox) {
                    if let Message::End(..) = message {
                        self.carry_out(message);
                    }
                }
                return;
            }
            match self.inbox.pop_front() {
                Some(message) => self.carry_out(message),
                None if self.round.is_none() => break,
                None => {}
            }
        }
    }

    fn ids(&self) -> Vec<Id> {
        self.children.iter().map(|child| child.spec.id).collect()
    }

    fn see_to_all(&mut self) {
        for id in self.ids() {
            self.see_to(id);
        }
    }

    /// The column "what the supervisor does" of the table at `ChildStatus`.
    fn see_to(&mut self, id: Id) {
        let (now, closes) = (self.now, self.closes);
        let Some(child) = self.child_mut(id) else { return };
        let Some(run) = &mut child.run else {
            if child.is_removed {
                self.children.retain(|child| child.spec.id != id);
            } else if closes.is_none() && child.is_due(now) && child.is_known && child.has_had_turn
            {
                self.start(id);
            }
            return;
        };
        match run.told {
            Some((_, at))
                if !run.is_overdue
                    && now >= run.time_from.saturating_add(child.spec.stop_timeout) =>
            {
                run.is_overdue = true;
                self.tell(id, What::Overdue { stopping_for: now - at });
            }
            None if !run.is_healthy
                && now >= run.since.saturating_add(child.spec.healthy_after) =>
            {
                self.trust(id)
            }
            _ => {}
        }
    }

    fn trust(&mut self, id: Id) {
        let Some(child) = self.child_mut(id) else { return };
        let forgiven = std::mem::take(&mut child.failures);
        if let Some(run) = &mut child.run {
            (run.is_healthy, run.forgiven) = (true, forgiven);
        }
        self.tell(id, What::Healthy);
    }

    fn start(&mut self, id: Id) {
        self.ask_flag(id);
        let failing = self.failing_spawns.get_mut(id).filter(|left| **left > 0);
        let now = self.now;
        let Some(child) =
            self.children.iter_mut().find(|child| child.spec.id == id && child.is_flag_on)
        else {
            return;
        };
        // An order that keeps it down is known before its turn comes: the child stays due until
        // then.
        if self.is_closing || child.is_to_stay_down {
            return;
        }
        if !child.has_thread {
            if let Some(left) = failing {
                *left -= 1;
                return self.fail(id, StopCause::NotSpawned, Ending::Failed, Duration::ZERO);
            }
            child.has_thread = true;
        }
        child.retry_at = None;
        self.runs += 1;
        child.run = Some(Run {
            number: self.runs,
            since: now,
            is_healthy: false,
            forgiven: 0,
            has_said_so: false,
            told: None,
            time_from: Duration::ZERO,
            is_overdue: false,
            returns_at: None,
            is_over: false,
            heartbeat: None,
            reports: 0,
            is_tripped: false,
        });
        self.tell(id, What::Started);
        self.see_to(id);
    }

    fn ask_flag(&mut self, id: Id) {
        let answer = self.flags.get(id).copied().unwrap_or(Some(true));
        if let (Some(child), Some(answer)) = (self.child_mut(id), answer) {
            child.is_flag_on = answer;
        }
    }

    fn begin_round(&mut self) {
        match &mut self.round {
            Some(round) => round.again = true,
            None => self.round = Some(Round { after: 0, again: false }),
        }
    }

    /// Asks the flags of the children in turn, up to one for which something is to be done: before
    /// the next one, there is a look at what was asked of the supervisor meanwhile. The
    /// documentation leaves that open; this is how it is.
    fn continue_round(&mut self) {
        while let Some(Round { after, again }) = self.round {
            let next = self
                .children
                .iter()
                .find(|child| child.number > after && child.is_known && !child.is_removed);
            let Some(id) = next.map(|child| child.spec.id) else {
                self.round = again.then_some(Round { after: 0, again: false });
                return;
            };
            let (now, is_closing) = (self.now, self.is_closing);
            let answer = self.flags.get(id).copied().flatten();
            let Some(child) = self.child_mut(id) else { return };
            let is_news = answer.is_some_and(|answer| answer != child.is_flag_on);
            let is_turn = !std::mem::replace(&mut child.has_had_turn, true);
            // One whose start an order forbids is left alone until that order comes.
            let is_due = child.is_due(now) && !child.is_to_stay_down && !is_closing;
            self.round = Some(Round { after: child.number, again });
            self.ask_flag(id);
            if self.child(id).is_some_and(|child| !child.is_flag_on) {
                self.tell_to_stop(id, StopCause::Disabled);
            }
            if is_news || is_turn || is_due {
                return;
            }
        }
    }

    /// The first reason counts.
    fn tell_to_stop(&mut self, id: Id, cause: StopCause) {
        let (now, deafness) = (self.now, self.deafness.get(id).copied().unwrap_or_default());
        let Some(run) = self.child_mut(id).and_then(|child| child.run.as_mut()) else { return };
        if run.told.is_some() {
            return;
        }
        (run.told, run.time_from) = (Some((cause, now)), now);
        if run.is_over {
        } else if deafness.is_zero() {
            run.is_over = true;
            let message = Message::End(id, run.number, Ending::Completed);
            self.inbox.push_back(message);
        } else {
            run.returns_at =
                Some(deafness).filter(|duration| *duration < MAX).map(|duration| now + duration);
        }
    }

    fn carry_out(&mut self, message: Message) {
        match message {
            Message::Order(id, number) => {
                let child = self.child_mut(id).filter(|child| child.number == number);
                if let Some(child) = child {
                    let order = child.orders.remove(0);
                    self.obey(id, order);
                }
            }
            Message::Add(id) => {
                if let Some(child) = self.child_mut(id) {
                    child.is_known = true;
                    self.tell(id, What::Ordered(Order::Add));
                }
            }
            Message::PollNow => self.begin_round(),
            Message::Shutdown => self.shut_down(),
            Message::End(id, number, ending) => self.end(id, number, ending),
            Message::Healthy(id, number) => {
                if self.run_mut(id, number).is_some_and(|run| run.told.is_none() && !run.is_healthy)
                {
                    self.trust(id);
                }
            }
            Message::Tripped(id, number, failures) => {
                if self.run_mut(id, number).is_some_and(|run| run.told.is_none()) {
                    self.tell(id, What::Tripped { failures });
                    self.tell_to_stop(id, StopCause::Tripped);
                }
            }
        }
    }

    /// What was asked before comes first; but nothing starts from now on.
    fn ask_to_shut_down(&mut self) {
        if !std::mem::replace(&mut self.is_closing, true) {
            self.inbox.push_back(Message::Shutdown);
        }
    }

    fn shut_down(&mut self) {
        self.closes = self.closes.or(Some(self.now));
        for child in &mut self.children {
            if let Some(run) = &mut child.run {
                run.time_from = self.now;
            }
        }
        for id in self.ids().into_iter().rev() {
            self.tell_to_stop(id, StopCause::Shutdown);
        }
    }

    /// The table at `Handle`.
    fn obey(&mut self, id: Id, order: Order) {
        let Some(child) = self.child_mut(id) else { return };
        child.has_had_turn = true;
        let cause = match order {
            Order::Add => unreachable!("it is a message of its own"),
            Order::Hold => {
                child.is_held = true;
                Some(StopCause::Held)
            }
            Order::Release => {
                child.is_held = false;
                None
            }
            Order::Restart => {
                (child.failures, child.last_delay, child.retry_at) = (0, None, None);
                (child.is_finished, child.has_given_up) = (false, false);
                child.is_restarted = child.run.is_some();
                Some(StopCause::Restarted)
            }
            Order::Reset => {
                (child.failures, child.last_delay, child.retry_at, child.has_given_up) =
                    (0, None, None, false);
                None
            }
            Order::Remove => {
                child.is_removed = true;
                Some(StopCause::Removed)
            }
        };
        self.tell(id, What::Ordered(order));
        if let Some(cause) = cause {
            self.tell_to_stop(id, cause);
        }
    }

    fn end(&mut self, id: Id, number: u64, ending: Ending) {
        let (now, closes) = (self.now, self.closes.is_some());
        let Some(child) = self.child_mut(id) else { return };
        let Some(run) = child.run.take_if(|run| run.number == number) else { return };
        let is_restarted = std::mem::take(&mut child.is_restarted);
        let uptime = now - run.since;
        let cause = run.told.map_or(StopCause::Exited, |(cause, _)| cause);
        child.has_thread &= !child.spec.fresh_thread;
        let is_done = child.spec.policy == Policy::Transient && ending == Ending::Completed;
        let is_failure = match cause {
            StopCause::Exited => !is_done,
            // Nothing comes after it that a failure would count for.
            StopCause::Tripped | StopCause::Hung => !is_restarted && !closes,
            _ => false,
        };
        let is_gone = child.spec.policy == Policy::Once || child.is_removed;
        if is_failure && !is_gone {
            // Healthy, and failed sooner than its last delay was long: the failures that were
            // forgiven count again.
            let lasted = run.told.map_or(uptime, |(_, at)| at - run.since);
            let least = child
                .last_delay
                .map_or(Duration::ZERO, |delay| delay.min(child.spec.healthy_after));
            if run.is_healthy && lasted < least {
                child.failures = run.forgiven;
            }
            return self.fail(id, cause, ending, uptime);
        }
        child.last_stop = Some((cause, ending, uptime));
        if cause == StopCause::Exited && is_done {
            (child.is_finished, child.has_thread) = (true, false);
        }
        self.tell(id, What::Stopped { cause, ending, uptime, retry_in: None });
        if is_gone {
            self.children.retain(|child| child.spec.id != id);
        }
    }

    fn fail(&mut self, id: Id, cause: StopCause, ending: Ending, uptime: Duration) {
        let (now, closes) = (self.now, self.closes);
        let Some(child) = self.child_mut(id) else { return };
        child.last_stop = Some((cause, ending, uptime));
        let attempt = child.failures + 1;
        // A once child is never restarted, nor given up: without a thread, it waits for one.
        let is_last = child.spec.policy != Policy::Once
            && child.spec.max_restarts.is_some_and(|most| attempt > most);
        let mut delay = child.spec.delay(attempt);
        if cause == StopCause::NotSpawned {
            delay = delay.max(Duration::from_millis(100));
        }
        let retry_in = Some(delay).filter(|_| !is_last && closes.is_none());
        let is_significant = child.spec.significant;
        self.tell(id, What::Stopped { cause, ending, uptime, retry_in });
        let Some(child) = self.child_mut(id) else { return };
        child.failures = attempt;
        child.last_delay = retry_in.or(child.last_delay);
        child.retry_at = retry_in.map(|delay| now.saturating_add(delay));
        if is_last && closes.is_none() {
            (child.has_given_up, child.has_thread) = (true, false);
            self.tell(id, What::GaveUp);
            if is_significant {
                self.gave_up = self.gave_up.or(Some(id));
                self.ask_to_shut_down();
            }
        }
    }
}
