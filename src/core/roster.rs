//! All children of one supervisor: their timers, and the order in which things are done and told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    core::{
        circuit::{Circuit, Decision, Ended, Rules, View},
        flag_cache::{Answers, FlagCache},
        key::Key,
    },
    event::{Callback, EventKind, LastStop, Order, StopCause},
    exit::{Exit, Failure},
    id::ChildId,
    sync::panic::Panic,
};

/// How many children a round looks at before the engine is given a chance to serve its inbox.
const ROUND_CHUNK: u32 = 256;

/// An answer of user code; a panic comes with the answer that takes its place.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) panic: Option<Panic>,
}

/// The signs of life of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeats {
    pub(crate) count: u64,
    pub(crate) doing: &'static str,
}

/// A start was forbidden after all, by an order or a shutdown that was asked for while it was being
/// prepared. The message that says so is on its way, and what follows from it is done when it
/// comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartDenied;

/// There is no thread for a start.
#[derive(Debug)]
pub(crate) enum NotProvided {
    /// None is needed: the start is forbidden.
    Denied(StartDenied),
    /// None could be had.
    Failed(Failure),
}

/// What the core asks of the environment. All of it is total: whatever user code does, there is an
/// answer.
pub(crate) trait Environment {
    fn now(&self) -> Instant;
    /// Asks the child's flag; `None` keeps the last answer.
    fn is_enabled(&mut self, key: Key, id: &ChildId) -> Answer<Option<bool>>;
    /// Asks how long the child stays down after the failure that made the count `attempt`.
    fn backoff(&mut self, key: Key, attempt: u32) -> Answer<Duration>;
    /// Looks how many heartbeats the present run has given, and what it said with the last.
    fn heartbeats(&mut self, key: Key) -> Heartbeats;
    /// Sees to it that there is a thread for the child, unless an order forbids its start.
    fn provide_thread(&mut self, key: Key) -> Result<(), NotProvided>;
    /// Makes the new run known to all, unless an order forbids it. Both at once: after an order has
    /// been given, no run begins.
    fn begin(&mut self, key: Key, view: View) -> Result<(), StartDenied>;
}

/// What the core tells the environment to do, in this order.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) enum Action {
    /// Let other threads see this; `stopped` is there if a run has just ended.
    Publish {
        key: Key,
        view: View,
        stopped: Option<LastStop>,
    },
    Report {
        key: Key,
        report: Report,
    },
    /// Give the word to go to a run that was reported as started.
    SendStart {
        key: Key,
        run: u64,
        attempt_count: u32,
    },
    /// Tell a run to stop.
    Stop {
        key: Key,
    },
    /// The present run is the last: its body may be dropped as it ends.
    MakeFinal {
        key: Key,
    },
    /// End the thread that waits for a next run; drop the body too unless it may run again by hand.
    Retire {
        key: Key,
        keep_body: bool,
    },
    /// The child is gone: free its id.
    Forget {
        key: Key,
    },
    /// A significant child was given up: the supervisor is to shut down.
    GiveUp {
        id: ChildId,
        cause: StopCause,
        exit: Exit,
    },
}

/// What one step came to.
#[derive(Debug)]
pub(crate) enum Progress {
    Perform(Action),
    Again,
    /// There is nothing to do before something happens.
    Settled,
}

/// An event but for its place in the order of all, which the environment gives it as it records it.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Report {
    pub(crate) id: ChildId,
    pub(crate) run: u64,
    pub(crate) attempt_count: u32,
    pub(crate) kind: EventKind,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Roster {
    /// In boxes, for a tree that has grown at its end is half empty.
    children: BTreeMap<Key, Box<Child>>,
    flags: FlagCache,
    /// One deadline at most for each child, replaced and never left behind.
    deadlines: BTreeSet<(Instant, Key)>,
    /// What is to be done now.
    actions: VecDeque<Step>,
    /// Whose facts have changed, or whose time has come; with whether its flag was asked just now.
    unsettled: VecDeque<(Key, bool)>,
    round: Option<Round>,
    /// A first round has come to its end.
    has_had_round: bool,
    closing: bool,
    /// Runs that have not timed_out: what a shutdown still waits for.
    awaited: usize,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Child {
    id: ChildId,
    circuit: Circuit,
    /// What others were last shown.
    shown: Option<View>,
    /// As `asked` has it.
    answers: Answers,
    /// Its entry in `deadlines`.
    wake: Option<Instant>,
    /// The callbacks whose last call panicked: they are told of once.
    faults: Vec<Callback>,
}

impl Child {
    /// What the answer of its flag would mean, while there is nothing to do for it.
    fn answers(&self) -> Answers {
        match () {
            () if self.circuit.is_removing() => Answers::Unasked,
            // That the flag no longer panics is news.
            () if self.faults.contains(&Callback::Enabled) => Answers::Unknown,
            () => Answers::NothingIf(self.circuit.flag()),
        }
    }
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
enum Step {
    Act(Action),
    /// The run is up from the instant at which this is taken up, after the sinks were told of its
    /// start.
    Start(Key),
}

/// A pass over all children in list order that asks each flag.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Round {
    /// The place of the next one.
    next: usize,
    /// Another one was asked for meanwhile.
    again: bool,
}

impl Roster {
    pub(crate) fn new() -> Self {
        Self {
            children: BTreeMap::new(),
            flags: FlagCache::default(),
            deadlines: BTreeSet::new(),
            actions: VecDeque::new(),
            unsettled: VecDeque::new(),
            round: None,
            has_had_round: false,
            closing: false,
            awaited: 0,
        }
    }

    // ── What happens ──

    /// Lists a new child; keys have to rise. Nothing is done about it before a round comes to it,
    /// or something happens to it, such as the order by which it was added.
    pub(crate) fn insert(&mut self, key: Key, id: ChildId, rules: Rules, now: Instant) {
        let mut circuit = Circuit::new(rules, now);
        if self.closing {
            circuit.close(now, Duration::ZERO);
        }
        self.flags.list(key, id.clone());
        let child = Child {
            id,
            circuit,
            shown: None,
            answers: Answers::Unknown,
            wake: None,
            faults: Vec::new(),
        };
        let before = self.children.insert(key, Box::new(child));
        debug_assert!(before.is_none(), "keys are never used twice");
    }

    /// Starts a round over all flags; one that is under way is followed by another, since it may
    /// have passed what changed.
    pub(crate) fn begin_round(&mut self) {
        match &mut self.round {
            _ if self.closing => {}
            Some(round) => round.again = true,
            None => self.round = Some(Round { next: 0, again: false }),
        }
    }

    pub(crate) fn is_in_round(&self) -> bool {
        self.round.is_some()
    }

    /// Whether all children that were there at first have been looked at, or nobody looks any more.
    /// Rounds may follow one another without end, where flags are slow and fail.
    pub(crate) fn has_had_round(&self) -> bool {
        self.has_had_round || self.closing
    }

    /// Marks those whose time has come.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, key)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(child) = self.children.get_mut(&key) {
                child.wake = None;
                self.unsettled.push_back((key, false));
            }
        }
    }

    /// A run ended. Gives the exit back if that run is not the present one.
    pub(crate) fn run_ended(
        &mut self,
        key: Key,
        run: u64,
        exit: Exit,
        at: Instant,
        environment: &mut impl Environment,
    ) -> Result<(), Exit> {
        let Some(child) = self.children.get_mut(&key) else { return Err(exit) };
        if !child.circuit.is_present(run) {
            return Err(exit);
        }
        let mut asked = None;
        let completed = exit.is_completed();
        let ended = child
            .circuit
            .end(at, completed, |attempt| ask_backoff(environment, key, attempt, &mut asked));
        self.awaited -= usize::from(!ended.was_timed_out);
        self.tell_end(key, ended, exit, asked, at);
        Ok(())
    }

    /// The child said that it is healthy.
    pub(crate) fn marked_healthy(&mut self, key: Key, run: u64, now: Instant) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.circuit.is_present(run) && child.circuit.trust() {
            self.report(key, EventKind::Healthy, now);
            self.unsettled.push_back((key, false));
        }
    }

    /// Callers have tripped the child.
    pub(crate) fn tripped(
        &mut self,
        key: Key,
        run: u64,
        failures: u32,
        last: Arc<str>,
        now: Instant,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.circuit.is_present(run) && child.circuit.request_stop(StopCause::Tripped, now) {
            self.stop_and_report(key, EventKind::Tripped { failures, last }, now);
            self.unsettled.push_back((key, false));
        }
    }

    /// The child gave its first heartbeat.
    pub(crate) fn gave_heartbeat(
        &mut self,
        key: Key,
        run: u64,
        now: Instant,
        environment: &mut impl Environment,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.circuit.is_present(run) {
            child.circuit.watch(environment.heartbeats(key).count, now);
            self.unsettled.push_back((key, false));
        }
    }

    /// Shuts down: every child is told to stop, in reverse list order, each with its own stop
    /// timeout or `limit`.
    pub(crate) fn close(&mut self, now: Instant, limit: Duration) {
        self.closing = true;
        self.round = None;
        for (&key, child) in self.children.iter_mut().rev() {
            self.awaited += usize::from(child.circuit.close(now, limit));
            if child.circuit.is_running() {
                self.actions.push_back(Step::Act(Action::MakeFinal { key }));
                // All are told before any of them is looked at more closely: what is reported of
                // one delays no other.
                if child.circuit.request_stop(StopCause::Shutdown, now) {
                    self.actions.push_back(Step::Act(Action::Stop { key }));
                }
            }
            self.unsettled.push_back((key, false));
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether a shutdown has nothing to wait for: every child is down, or had its time.
    pub(crate) fn is_over(&self) -> bool {
        self.closing && self.awaited == 0 && self.actions.is_empty() && self.unsettled.is_empty()
    }

    // ── What is told by hand ──

    /// Carries out an order.
    pub(crate) fn order(&mut self, key: Key, order: Order, now: Instant) {
        let Some(child) = self.children.get_mut(&key) else { return };
        child.circuit.order(order, now);
        if order == Order::Remove && child.circuit.is_running() {
            self.actions.push_back(Step::Act(Action::MakeFinal { key }));
        }
        if let (_, Decision::RequestStop(cause)) = child.circuit.judge(now) {
            child.circuit.request_stop(cause, now);
            self.stop_and_report(key, EventKind::Ordered { order }, now);
        } else {
            self.report(key, EventKind::Ordered { order }, now);
        }
        self.unsettled.push_back((key, false));
    }

    // ── What follows ──

    /// Takes one step. To be called until all is settled; each step that needs the time asks for it
    /// anew, for a step before may have asked user code, which takes time.
    pub(crate) fn settle(&mut self, environment: &mut impl Environment) -> Progress {
        match self.actions.pop_front() {
            Some(Step::Act(action)) => Progress::Perform(action),
            Some(Step::Start(key)) => Progress::Perform(self.send_start(key, environment.now())),
            None => match self.unsettled.pop_front() {
                Some((key, asked)) => {
                    self.decide(key, environment.now(), asked, environment);
                    Progress::Again
                }
                None => Progress::Settled,
            },
        }
    }

    /// Goes on with a round, up to the first child for which there is something to do. Only when
    /// all actions are done.
    pub(crate) fn continue_round(&mut self, now: Instant, environment: &mut impl Environment) {
        debug_assert!(self.actions.is_empty() && self.unsettled.is_empty());
        let Some(round) = &mut self.round else { return };
        let mut left = ROUND_CHUNK;
        let mut stopped_at = None;
        for (key, id, answers) in self.flags.from(round.next) {
            round.next += 1;
            if matches!(answers, Answers::Unasked | Answers::Gone) {
                continue;
            }
            let answer = environment.is_enabled(*key, id);
            let is_settled = match answers {
                Answers::NothingIf(on) => answer.value.is_none_or(|value| value == *on),
                Answers::Unknown | Answers::Unasked | Answers::Gone => false,
            };
            if !is_settled || answer.panic.is_some() {
                stopped_at = Some((*key, answer));
                break;
            }
            left -= 1;
            if left == 0 {
                return;
            }
        }
        match stopped_at {
            Some((key, Answer { value, panic })) => {
                if let (Some(on), Some(child)) = (value, self.children.get_mut(&key)) {
                    child.circuit.flag_is(on);
                }
                self.note_call(key, Callback::Enabled, panic, now);
                // What is to be done is done with a `now` from after the callbacks.
                self.unsettled.push_back((key, true));
            }
            None => {
                self.round = round.again.then_some(Round { next: 0, again: false });
                self.has_had_round = true;
            }
        }
    }

    /// When there is something to do next, by the clock.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    #[cfg(test)]
    pub(crate) fn deadline_count(&self) -> usize {
        self.deadlines.len()
    }

    /// Does what the facts about one child demand, until they demand nothing any more. `asked` says
    /// that its flag was asked just now.
    fn decide(
        &mut self,
        key: Key,
        now: Instant,
        mut asked: bool,
        environment: &mut impl Environment,
    ) {
        loop {
            let Some(child) = self.children.get_mut(&key) else { return };
            let (_, decision) = child.circuit.judge(now);
            match decision {
                Decision::Start if !asked => {
                    asked = true;
                    let answer = environment.is_enabled(key, &child.id);
                    if let Some(on) = answer.value {
                        child.circuit.flag_is(on);
                    }
                    self.note_call(key, Callback::Enabled, answer.panic, now);
                }
                Decision::Start if !self.actions.is_empty() => {
                    // A start is made known at once; what is still to be said comes before it.
                    self.unsettled.push_front((key, true));
                    return;
                }
                Decision::Start => return self.start(key, now, environment),
                Decision::RequestStop(cause) => {
                    child.circuit.request_stop(cause, now);
                    self.publish(key, None, now);
                    self.act(Action::Stop { key });
                }
                Decision::StopTimedOut => {
                    self.awaited -= 1;
                    if let Some(stopping_for) = child.circuit.stop_timed_out(now) {
                        self.report(key, EventKind::Overdue { stopping_for }, now);
                    }
                }
                Decision::Trust => {
                    child.circuit.trust();
                    self.report(key, EventKind::Healthy, now);
                }
                Decision::LookForHeartbeat => {
                    let Heartbeats { count, doing } = environment.heartbeats(key);
                    if let Some(silent_for) = child.circuit.look(count, now) {
                        child.circuit.request_stop(StopCause::Hung, now);
                        self.stop_and_report(key, EventKind::Hung { doing, silent_for }, now);
                    }
                }
                Decision::Retire { keep_body } => {
                    child.circuit.retired();
                    self.act(Action::Retire { key, keep_body });
                }
                Decision::Forget => {
                    self.publish(key, None, now);
                    self.act(Action::Forget { key });
                    self.wake_at(key, None);
                    self.flags.forget(key, self.round.as_mut().map(|round| &mut round.next));
                    self.children.remove(&key);
                    return;
                }
                Decision::Sleep(deadline) => return self.rest(key, deadline, now),
            }
        }
    }

    /// There is nothing to do for the child before this instant, or before something happens to it.
    fn rest(&mut self, key: Key, deadline: Option<Instant>, now: Instant) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let answers = child.answers();
        if std::mem::replace(&mut child.answers, answers) != answers {
            self.flags.set(key, answers);
        }
        self.publish(key, None, now);
        self.wake_at(key, deadline);
    }

    /// The child itself comes first: what is reported of it may take time.
    fn stop_and_report(&mut self, key: Key, kind: EventKind, now: Instant) {
        self.publish(key, None, now);
        self.act(Action::Stop { key });
        self.report(key, kind, now);
    }

    /// Starts a run, or finds that there is no thread for it: the child is looked at again in
    /// either case. One whose start is denied stays due, and is looked at when the message comes
    /// that says why.
    fn start(&mut self, key: Key, now: Instant, environment: &mut impl Environment) {
        // Before anybody sees the run: callers are let through to whoever is seen running.
        match environment.provide_thread(key) {
            Ok(()) => {}
            Err(NotProvided::Denied(StartDenied)) => return self.rest(key, None, now),
            Err(NotProvided::Failed(failure)) => {
                return self.not_spawned(key, failure, environment);
            }
        }
        let Some(child) = self.children.get_mut(&key) else { return };
        child.circuit.got_thread();
        child.circuit.begin(now);
        let view = child.circuit.view(now);
        if let Err(StartDenied) = environment.begin(key, view) {
            child.circuit.unbegin();
            return self.rest(key, None, now);
        }
        self.awaited += 1;
        child.shown = Some(view);
        self.report(key, EventKind::Started, now);
        self.actions.push_back(Step::Start(key));
    }

    fn not_spawned(&mut self, key: Key, failure: Failure, environment: &mut impl Environment) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let now = environment.now();
        let mut asked = None;
        let ended = child
            .circuit
            .end_without_thread(now, |attempt| ask_backoff(environment, key, attempt, &mut asked));
        self.tell_end(key, ended, Exit::Failed(failure), asked, now);
    }

    fn send_start(&mut self, key: Key, now: Instant) -> Action {
        let child =
            self.children.get_mut(&key).expect("a started child is listed until it has ended");
        child.circuit.started(now);
        let (run, attempt_count) = (child.circuit.last_run(), child.circuit.attempt_count());
        self.unsettled.push_front((key, false));
        Action::SendStart { key, run, attempt_count }
    }

    /// Publishes and reports the end of a run.
    fn tell_end(
        &mut self,
        key: Key,
        ended: Ended,
        exit: Exit,
        asked: Option<Option<Panic>>,
        now: Instant,
    ) {
        let Ended {
            newly_healthy,
            cause,
            uptime,
            attempt_count,
            failed,
            retry_in,
            gave_up,
            was_timed_out: _,
        } = ended;
        let Some(child) = self.children.get_mut(&key) else { return };
        let (id, run) = (child.id.clone(), child.circuit.last_run());
        let given_up = (gave_up && child.circuit.rules.significant).then(|| exit.clone());
        self.publish(key, Some(LastStop { cause, exit: exit.clone(), uptime, failed }), now);
        let mut report = |attempt_count, kind| {
            self.actions.push_back(Step::Act(Action::Report {
                key,
                report: Report { id: id.clone(), run, attempt_count, kind },
            }));
        };
        if newly_healthy {
            report(0, EventKind::Healthy);
        }
        report(attempt_count, EventKind::Stopped { cause, exit, uptime, failed, retry_in });
        if gave_up {
            report(attempt_count.saturating_add(1), EventKind::GaveUp);
        }
        if let Some(exit) = given_up {
            self.act(Action::GiveUp { id, cause, exit });
        }
        if let Some(panic) = asked {
            self.note_call(key, Callback::Backoff, panic, now);
        }
        self.unsettled.push_back((key, false));
    }

    /// A callback of the child was called, for its present or last run.
    pub(crate) fn note_call(
        &mut self,
        key: Key,
        callback: Callback,
        panic: Option<Panic>,
        now: Instant,
    ) {
        let Some(run) = self.children.get(&key).map(|child| child.circuit.last_run()) else {
            return;
        };
        self.note_call_of(key, run, callback, panic, now);
    }

    /// A callback of the child was called, for this run. A panic is reported, unless the last call
    /// of that callback panicked as well.
    pub(crate) fn note_call_of(
        &mut self,
        key: Key,
        run: u64,
        callback: Callback,
        panic: Option<Panic>,
        now: Instant,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let known = child.faults.iter().position(|faulty| *faulty == callback);
        match (panic, known) {
            (None, Some(position)) => {
                child.faults.swap_remove(position);
            }
            (Some(panic), None) => {
                child.faults.push(callback);
                self.report_of(key, run, EventKind::CallbackPanicked { callback, panic }, now);
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Reports what is true of the child as it is now, after others can see it.
    fn report(&mut self, key: Key, kind: EventKind, now: Instant) {
        let Some(run) = self.children.get(&key).map(|child| child.circuit.last_run()) else {
            return;
        };
        self.report_of(key, run, kind, now);
    }

    fn report_of(&mut self, key: Key, run: u64, kind: EventKind, now: Instant) {
        self.publish(key, None, now);
        let Some(child) = self.children.get(&key) else { return };
        let (id, attempt_count) = (child.id.clone(), child.circuit.attempt_count());
        self.act(Action::Report { key, report: Report { id, run, attempt_count, kind } });
    }

    /// Publishes what has changed since it was last published.
    fn publish(&mut self, key: Key, stopped: Option<LastStop>, now: Instant) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let view = child.circuit.view(now);
        if child.shown != Some(view) || stopped.is_some() {
            child.shown = Some(view);
            self.act(Action::Publish { key, view, stopped });
        }
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(Step::Act(action));
    }

    fn wake_at(&mut self, key: Key, deadline: Option<Instant>) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.wake == deadline {
            return;
        }
        if let Some(before) = child.wake {
            self.deadlines.remove(&(before, key));
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, key));
        }
        child.wake = deadline;
    }
}

/// Asks for a backoff, and remembers that it was asked and how that went.
fn ask_backoff(
    environment: &mut impl Environment,
    key: Key,
    attempt: u32,
    asked: &mut Option<Option<Panic>>,
) -> Duration {
    let answer = environment.backoff(key, attempt);
    *asked = Some(answer.panic);
    answer.value
}

#[cfg(test)]
impl Roster {
    /// Whatever decides what it does next, once all is settled. Run numbers are left out: that they
    /// rise is all they do.
    pub(crate) fn essence(&self, now: Instant) -> impl std::hash::Hash + use<> {
        let Self {
            children,
            flags,
            deadlines,
            actions,
            unsettled,
            round,
            has_had_round: _,
            closing,
            awaited,
        } = self;
        assert!(
            actions.is_empty()
                && unsettled.is_empty()
                && round.is_none()
                && deadlines.len() <= children.len()
        );
        let children: Vec<_> = children
            .iter()
            .map(|(key, child)| {
                let answers = match child.circuit.is_removing() {
                    true => Answers::Unasked,
                    false if child.faults.contains(&Callback::Enabled) => Answers::Unknown,
                    false => Answers::NothingIf(child.circuit.flag()),
                };
                assert!(flags.get(*key) == Some(answers) && child.answers == answers);
                let Child { id: _, circuit, shown, answers: _, wake, faults } = &**child;
                let wake = wake.map(|at| at.saturating_duration_since(now));
                (
                    *key,
                    circuit.essence(now),
                    shown.map(|view| (view.status, view.circuit)),
                    wake,
                    faults.clone(),
                )
            })
            .collect();
        (children, *closing, *awaited)
    }
}
