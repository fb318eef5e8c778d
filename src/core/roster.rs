//! All children of one supervisor: decisions, timers and the order of actions.

mod dependents;
mod reporting;
mod round;
mod shutdown;

use std::{
    collections::{BTreeSet, VecDeque},
    num::NonZeroU32,
    sync::Arc,
    time::Instant,
};

use crate::{
    core::{
        circuit::{Circuit, Decision, View},
        dependencies::{Dependencies, Dependency},
        faults::Faults,
        flag_cache::{Expectation, FlagCache},
        interface::{Action, Environment, NotProvided, Progress, Sight, StartDenied},
        key::{Key, KeyMap},
        roster::{reporting::healthy, round::Round, shutdown::Closing},
        rules::Rules,
        start_rate::{StartRate, Ticket},
    },
    event::{Callback, EventKind, Order, StopCause},
    exit::Exit,
    id::ChildId,
    sync::deadline,
};

/// The one table of children on the supervisor thread. `T` is what the environment keeps for each.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Roster<T> {
    /// Boxed, because a hash table that grows leaves up to half of its places empty.
    children: KeyMap<Box<Child<T>>>,
    flags: FlagCache,
    /// At most one deadline per child. A new one replaces it, so that no stale timer remains.
    deadlines: BTreeSet<(Instant, Key)>,
    /// What the environment has to do now.
    steps: VecDeque<(Key, Step)>,
    /// The children to decide about: their facts have changed, their deadlines have come, or it is
    /// their turn to start. Those with `true` had their flags asked just now.
    unsettled: VecDeque<(Key, bool)>,
    /// How many runs may start in a second, and who waits for that.
    rate: StartRate,
    round: Option<Round>,
    /// The first round is complete.
    has_had_round: bool,
    dependencies: Dependencies,
    /// How many children are neither at work nor down on purpose, but for those that wait for
    /// others.
    unwell: usize,
    /// A status has changed since `take_may_be_well` was called last.
    health_changed: bool,
    closing: Option<Closing>,
    /// The number of runs whose stop has not timed out. A shutdown waits for them.
    live_runs: usize,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Child<T> {
    id: ChildId,
    /// What the environment keeps for it.
    entry: T,
    circuit: Circuit,
    /// What was last published.
    shown: Option<View>,
    /// The same as in `Roster::flags`.
    expectation: Expectation,
    /// Its entry in `deadlines`.
    wake: Option<Instant>,
    /// Its place in the queue of `rate`, while it waits for its turn to start.
    ticket: Option<Ticket>,
    /// An operator restarts it: then its place is at the head of that queue.
    is_restarted: bool,
    /// Others come after it.
    is_awaited: bool,
    /// The callbacks whose last call panicked. Of panics in a row, only the first is reported.
    faults: Faults,
}

impl<T> Child<T> {
    /// Which answer of its flag needs no decision, while there is nothing to do for the child.
    fn expectation(&self) -> Expectation {
        if self.circuit.is_removing() {
            Expectation::Unasked
        } else if self.faults.contains(Callback::Enabled) {
            // The next success has to reach `note_call`, which ends the row of panics.
            Expectation::Unknown
        } else {
            Expectation::NothingIf(self.circuit.flag())
        }
    }
}

/// Whether a child is not at work, by what is shown of it. One that waits for others does not
/// count.
fn is_unwell(shown: Option<View>) -> bool {
    shown.is_none_or(|view| view.status.is_at_work() == Some(false))
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
enum Step {
    Act(Action),
    /// Send the start signal. The uptime counts from this step, which comes after the sinks have
    /// received `Started`.
    SendStart,
    /// Take the child off the table, after all that is still to be done for it.
    Forget,
}

impl<T> Roster<T> {
    /// `most` is how many runs may start in one second, if that is limited.
    pub(crate) fn new(most: Option<NonZeroU32>) -> Self {
        Self {
            rate: StartRate::new(most),
            children: KeyMap::default(),
            flags: FlagCache::default(),
            deadlines: BTreeSet::new(),
            steps: VecDeque::new(),
            unsettled: VecDeque::new(),
            round: None,
            has_had_round: false,
            dependencies: Dependencies::default(),
            unwell: 0,
            health_changed: true,
            closing: None,
            live_runs: 0,
        }
    }

    // ── What happens ──

    /// Lists a new child; keys have to rise. The core decides nothing about it before a round
    /// reaches it or something happens to it, such as [`Order::Add`].
    pub(crate) fn insert(
        &mut self,
        key: Key,
        id: ChildId,
        entry: T,
        rules: Rules,
        after: Vec<Dependency>,
        now: Instant,
    ) {
        let mut circuit = Circuit::new(rules, now);
        if self.closing.is_some() {
            circuit.close(now, Some(now));
        }
        self.flags.list(key, &id);
        let child = Child {
            id: id.clone(),
            entry,
            circuit,
            shown: None,
            expectation: Expectation::Unknown,
            wake: None,
            ticket: None,
            is_restarted: false,
            is_awaited: false,
            faults: Faults::default(),
        };
        let before = self.children.insert(key, Box::new(child));
        debug_assert!(before.is_none(), "keys are never used twice");
        self.unwell += 1;
        self.list_dependencies(key, &id, after, now);
        if self.closing.is_none() && self.dependencies.are_ready(key) {
            // It is due from now on, whenever a round reaches it.
            self.join_queue(key, now);
        }
    }

    /// What the environment keeps for a child, unless that is gone.
    pub(crate) fn entry(&self, key: Key) -> Option<&T> {
        self.children.get(&key).map(|child| &child.entry)
    }

    /// What the environment keeps for the children, as the supervisor ends.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = T> {
        self.children.into_values().map(|child| child.entry)
    }

    /// Marks the children whose deadlines have come, and those whose turn it is to start.
    pub(crate) fn expire(&mut self, now: Instant) {
        if deadline::is_reached(self.postponed_until(), now) {
            self.stop_the_postponed(now);
        }
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
        let next = [self.rate.next(now), self.dependencies.take_changed()];
        self.unsettled.extend(next.into_iter().flatten().map(|key| (key, false)));
    }

    /// Notes that a run ended. Gives the exit back if that run is not the present one.
    pub(crate) fn run_ended(
        &mut self,
        key: Key,
        run: u64,
        exit: Exit,
        at: Instant,
        environment: &mut impl Environment<Entry = T>,
    ) -> Result<(), Exit> {
        let Some(child) = self.children.get_mut(&key) else { return Err(exit) };
        if !child.circuit.is_present(run) {
            return Err(exit);
        }
        let ended = child.circuit.end_run(at, &exit);
        self.note_run_over(key);
        if !ended.was_timed_out {
            self.live_runs -= 1;
            self.note_end_in_shutdown(key, environment.now());
        }
        self.conclude_run(key, ended, exit, at, environment);
        Ok(())
    }

    /// Notes that the child said that it is healthy.
    pub(crate) fn marked_healthy(&mut self, key: Key, run: u64, now: Instant) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if !child.circuit.is_present(run) {
            return;
        }
        if let Some(streak) = child.circuit.trust() {
            self.queue_report(key, healthy(streak, now, true), now);
            self.unsettled.push_back((key, false));
        }
    }

    /// Notes that callers have tripped the child.
    pub(crate) fn tripped(
        &mut self,
        key: Key,
        run: u64,
        failures: u32,
        last: Arc<str>,
        now: Instant,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.circuit.is_present(run) && self.request_stop(key, StopCause::Tripped, now) {
            self.queue_stop_and_report(key, EventKind::Tripped { failures, last }, now);
            self.unsettled.push_back((key, false));
        }
    }

    /// Notes the first heartbeat of a run.
    pub(crate) fn gave_heartbeat(
        &mut self,
        key: Key,
        run: u64,
        now: Instant,
        environment: &mut impl Environment<Entry = T>,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.circuit.is_present(run) {
            child.circuit.watch(environment.heartbeats(&child.entry).count, now);
            self.unsettled.push_back((key, false));
        }
    }

    /// Whether all children but those that wait for others are at work, or down on purpose. Not if
    /// no status has changed since the last call.
    pub(crate) fn take_may_be_well(&mut self) -> bool {
        std::mem::take(&mut self.health_changed) && self.unwell == 0
    }

    // ── Orders ──

    /// Carries out an order.
    pub(crate) fn order(&mut self, key: Key, order: Order, now: Instant) {
        let Some(child) = self.children.get_mut(&key) else { return };
        child.circuit.order(order, now);
        match order {
            Order::Restart => {
                child.is_restarted = true;
                self.leave_queue(key);
            }
            Order::Hold => child.is_restarted = false,
            Order::Add | Order::Release | Order::Reset | Order::Remove => {}
        }
        let Some(child) = self.children.get_mut(&key) else { return };
        if order == Order::Remove && child.circuit.is_running() {
            self.queue(key, Action::MakeFinal { is_closing: self.closing.is_some() });
        }
        self.queue_change(key, EventKind::Ordered { order }, now);
        self.unsettled.push_back((key, false));
    }

    // ── What follows ──

    /// Takes one step. The caller repeats this until all is settled. Each step reads the time anew,
    /// since the step before may have called user code, which takes time.
    pub(crate) fn next_step(
        &mut self,
        environment: &mut impl Environment<Entry = T>,
    ) -> Progress<'_, T> {
        let Some((key, step)) = self.steps.pop_front() else {
            let Some((key, asked)) = self.unsettled.pop_front() else { return Progress::Settled };
            self.carry_out(key, environment.now(), asked, environment);
            return Progress::Again;
        };
        let action = match step {
            Step::Act(action) => action,
            Step::SendStart => self.date_start(key, environment.now()),
            Step::Forget => {
                let child = self.children.remove(&key).expect("a child is forgotten once");
                // It was shown as finished by then.
                self.health_changed = true;
                return Progress::Forgotten(key, child.entry);
            }
        };
        let child = self.children.get_mut(&key).expect("a child is forgotten last of all");
        Progress::Perform(key, &mut child.entry, action)
    }

    /// The next deadline of any child, or turn to start. It may be in the past.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let first = self.deadlines.first().map(|&(deadline, _)| deadline);
        let others =
            [self.rate.next_turn(), self.dependencies.changed_at(), self.postponed_until()];
        others.into_iter().fold(first, deadline::sooner)
    }

    /// Does what the facts about one child demand, until they demand nothing more. `asked` says
    /// whether its flag was asked just now.
    fn carry_out(
        &mut self,
        key: Key,
        now: Instant,
        mut asked: bool,
        environment: &mut impl Environment<Entry = T>,
    ) {
        loop {
            let Some(child) = self.children.get_mut(&key) else { return };
            let (_, decision) = child.circuit.judge(now);
            match decision {
                Decision::Start => {
                    if !self.steps.is_empty() {
                        // `start` publishes the run at once, so that all queued actions have to
                        // come first. They take time, so the flag is asked after them.
                        return self.unsettled.push_front((key, false));
                    }
                    if !self.has_turn(key, now) {
                        self.wake_at(key, None);
                        return self.show_at_rest(key, now);
                    }
                    if std::mem::replace(&mut asked, true) {
                        return self.start(key, now, environment);
                    }
                    let Some(child) = self.children.get(&key) else { return };
                    let answer = environment.is_enabled(key, &child.id);
                    self.note_flag(key, answer, now);
                }
                Decision::ReportWaiting if !self.has_had_round => {
                    // What it waits for may not have been looked at yet.
                    self.dependencies.defer(key);
                    return self.leave_alone(key, None, now);
                }
                Decision::ReportWaiting => {
                    if !self.steps.is_empty() {
                        // What it waits for has to be published before it is described.
                        return self.unsettled.push_front((key, false));
                    }
                    self.report_waiting(key, now, environment);
                }
                Decision::RequestStop(cause) => {
                    self.request_stop(key, cause, now);
                    self.queue_view(key, None, now);
                    self.queue(key, Action::Stop);
                }
                Decision::StopTimedOut => {
                    let overdue = child.circuit.stop_timed_out(now);
                    self.live_runs -= 1;
                    // The requests that follow come first, since event sinks may take time.
                    self.note_end_in_shutdown(key, now);
                    if let Some(stopping_for) = overdue {
                        let Sight { doing, thread } = self.look_at(key, environment);
                        let doing = doing.map(Into::into);
                        let overdue = EventKind::Overdue { stopping_for, doing, thread };
                        self.queue_report(key, overdue, now);
                    }
                }
                Decision::ConsiderAbandoning => {
                    if let Some(stopping_for) = child.circuit.consider_abandoning(now) {
                        self.abandon(key, stopping_for, now, environment);
                    }
                }
                Decision::Trust => {
                    if let Some(streak) = child.circuit.trust() {
                        self.queue_report(key, healthy(streak, now, false), now);
                    }
                }
                Decision::LookForHeartbeat => {
                    let heartbeats = environment.heartbeats(&child.entry);
                    if let Some(silent_for) = child.circuit.look(heartbeats, now) {
                        let doing = heartbeats.doing.into();
                        // Before it is asked to stop, which may wake it.
                        let Sight { thread, .. } = self.look_at(key, environment);
                        self.request_stop(key, StopCause::Hung, now);
                        let hung = EventKind::Hung { doing, silent_for, thread };
                        self.queue_stop_and_report(key, hung, now);
                    }
                }
                Decision::Retire { keep_body } => {
                    child.circuit.retired();
                    self.queue(key, Action::Retire { keep_body });
                }
                Decision::Forget => {
                    let id = child.id.clone();
                    self.queue_view(key, None, now);
                    self.steps.push_back((key, Step::Forget));
                    self.wake_at(key, None);
                    self.leave_queue(key);
                    self.dependencies.forget(key, &id);
                    self.flags.forget(key, self.round.as_mut().map(|round| &mut round.next));
                    return;
                }
                Decision::Sleep(deadline) => return self.leave_alone(key, deadline, now),
            }
        }
    }

    /// Looks at what the child's present run is doing.
    fn look_at(&self, key: Key, environment: &mut impl Environment<Entry = T>) -> Sight {
        self.children
            .get(&key)
            .map(|child| environment.look_at(&child.entry, child.circuit.last_run()))
            .unwrap_or_default()
    }

    /// Leaves the child alone until this instant, or until something happens to it.
    fn leave_alone(&mut self, key: Key, deadline: Option<Instant>, now: Instant) {
        self.leave_queue(key);
        self.wake_at(key, deadline);
        self.show_at_rest(key, now);
    }

    /// Whether a child that is due may start now. Otherwise it waits in the queue for its turn.
    fn has_turn(&mut self, key: Key, now: Instant) -> bool {
        let ticket = self.join_queue(key, now);
        ticket.is_none_or(|ticket| self.rate.is_turn_of(ticket, now))
    }

    /// Gives a child that is due its place in the queue; `None` without a start rate.
    fn join_queue(&mut self, key: Key, now: Instant) -> Option<Ticket> {
        if !self.rate.is_limited() {
            return None;
        }
        let child = self.children.get_mut(&key)?;
        let join = || self.rate.join(key, child.is_restarted, now);
        Some(*child.ticket.get_or_insert_with(join))
    }

    fn leave_queue(&mut self, key: Key) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if let Some(ticket) = child.ticket.take() {
            self.rate.leave(ticket);
        }
    }

    /// Publishes the state of a child for which there is nothing to do now.
    fn show_at_rest(&mut self, key: Key, now: Instant) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let expectation = child.expectation();
        if std::mem::replace(&mut child.expectation, expectation) != expectation {
            self.flags.set(key, expectation);
        }
        self.queue_view(key, None, now);
    }

    /// Starts a run, or counts a failed spawn. A child whose start is denied stays due until the
    /// message arrives that says why.
    fn start(&mut self, key: Key, now: Instant, environment: &mut impl Environment<Entry = T>) {
        // A thread first: as soon as the run is published, callers are permitted.
        let Some(child) = self.children.get_mut(&key) else { return };
        match environment.provide_thread(&mut child.entry) {
            Ok(()) => {}
            Err(NotProvided::Denied(StartDenied)) => return self.leave_alone(key, None, now),
            Err(NotProvided::Failed(failure)) => {
                let now = environment.now();
                child.is_restarted = false;
                let ended = child.circuit.fail_spawn(now);
                self.leave_queue(key);
                self.rate.note(now);
                return self.conclude_run(key, ended, Exit::Failed(failure), now, environment);
            }
        }
        child.circuit.got_thread();
        child.circuit.begin_run(now);
        let view = child.circuit.view(now);
        if let Err(StartDenied) = environment.publish_begin(&child.entry, view) {
            child.circuit.take_back_run();
            return self.leave_alone(key, None, now);
        }
        self.live_runs += 1;
        child.is_restarted = false;
        self.note_shown(key, view);
        self.note_run_began(key);
        self.leave_queue(key);
        self.queue_report(key, EventKind::Started, now);
        self.steps.push_back((key, Step::SendStart));
    }

    fn date_start(&mut self, key: Key, now: Instant) -> Action {
        let child = self.children.get_mut(&key).expect("a started child is in the table");
        child.circuit.date_run(now);
        self.rate.note(now);
        let (run, failures) = (child.circuit.last_run(), child.circuit.failures());
        self.unsettled.push_front((key, false));
        Action::SendStart { run, failures }
    }

    fn queue(&mut self, key: Key, action: Action) {
        self.steps.push_back((key, Step::Act(action)));
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

#[cfg(test)]
impl Roster<Key> {
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// The number of children that are not at work, by what is shown of them.
    pub(crate) fn unwell(&self) -> usize {
        self.unwell
    }

    pub(crate) fn check_dependencies(&self) {
        let runs = |key| Some(self.children.get(&key)?.circuit.is_running());
        self.dependencies.check(runs);
    }

    pub(crate) fn deadline_count(&self) -> usize {
        self.deadlines.len()
    }

    /// All that decides its future behaviour, once all is settled. Run numbers are left out, since
    /// nothing depends on them except that they rise.
    pub(crate) fn essence(&self, now: Instant) -> impl std::hash::Hash + use<> {
        let Self {
            children,
            flags,
            deadlines,
            steps,
            unsettled,
            rate,
            round,
            has_had_round: _,
            dependencies,
            unwell: _,
            health_changed: _,
            closing,
            live_runs,
        } = self;
        assert!(
            steps.is_empty()
                && unsettled.is_empty()
                && !rate.is_limited()
                && round.is_none()
                && deadlines.len() <= children.len()
        );
        let children: std::collections::BTreeMap<_, _> = children
            .iter()
            .map(|(key, child)| {
                let expectation = child.expectation();
                assert!(flags.get(*key) == Some(expectation) && child.expectation == expectation);
                let Child { id: _, entry: _, circuit, shown, wake, faults, .. } = &**child;
                let wake = wake.map(|at| at.saturating_duration_since(now));
                let shown = shown.map(|view| (view.status, view.circuit));
                (*key, (circuit.essence(now), shown, wake, *faults))
            })
            .collect();
        let closing = closing.as_ref().map(|Closing { cap, last_cap: _, postponed }| {
            (cap.map(|at| at.saturating_duration_since(now)), postponed.clone())
        });
        (children, closing, *live_runs, dependencies.essence(now))
    }
}
