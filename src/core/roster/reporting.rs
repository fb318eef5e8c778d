//! What the table of children queues to be published of them, and reported as events.

use std::time::Instant;

use crate::{
    core::{
        circuit::{Consequence, Decision, Ended, View},
        interface::{Action, Answer, Environment, Report},
        key::Key,
        roster::{Roster, Step, is_unwell},
        run::Streak,
    },
    event::{Callback, EventKind, LastStop},
    exit::Exit,
    sync::{deadline, panic::Panic},
};

/// The event of a run that becomes healthy at `at`, and has these failures forgiven.
pub(super) fn healthy(streak: Streak, at: Instant, marked: bool) -> EventKind {
    let failing_for = streak.since.map(|since| at.saturating_duration_since(since));
    EventKind::Healthy {
        forgiven: streak.failures,
        failing_for: failing_for.unwrap_or_default(),
        marked,
    }
}

impl<T> Roster<T> {
    /// Queues a stop request and a report. The request comes first, since event sinks may take
    /// time.
    pub(super) fn queue_stop_and_report(&mut self, key: Key, kind: EventKind, now: Instant) {
        self.queue_view(key, None, now);
        self.queue(key, Action::Stop);
        self.queue_report(key, kind, now);
    }

    /// Queues the report of what was changed from outside, and the stop request that follows from
    /// it for a running child.
    pub(super) fn queue_change(&mut self, key: Key, kind: EventKind, now: Instant) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if let (_, Decision::RequestStop(cause)) = child.circuit.judge(now) {
            self.request_stop(key, cause, now);
            self.queue_stop_and_report(key, kind, now);
        } else {
            self.queue_report(key, kind, now);
        }
    }

    /// Asks for the backoff if one follows the end of a run, then queues the publication and the
    /// report of the end.
    pub(super) fn conclude_run(
        &mut self,
        key: Key,
        ended: Ended,
        exit: Exit,
        at: Instant,
        environment: &mut impl Environment<Entry = T>,
    ) {
        let Ended { newly_healthy, cause, uptime, failures_before, consequence, .. } = ended;
        let Some(child) = self.children.get_mut(&key) else { return };
        let backoff = match consequence {
            Consequence::BackOff { least } => {
                let mut backoff =
                    environment.backoff(key, &mut child.entry, child.circuit.failures());
                backoff.value = backoff.value.max(least);
                child.circuit.back_off(at, backoff.value);
                self.dependencies.set_earliest(key, deadline::after(at, least));
                Some(backoff)
            }
            Consequence::NoFailure | Consequence::GiveUp => None,
        };
        let failed = consequence != Consequence::NoFailure;
        let (id, run) = (child.id.clone(), child.circuit.last_run());
        let is_significant = child.circuit.rules.significant;
        self.queue_view(key, Some(LastStop { cause, exit: exit.clone(), uptime, failed }), at);
        let mut report = |failures, kind| {
            let report = Report { id: id.clone(), run, failures, kind };
            self.steps.push_back((key, Step::Act(Action::Report(report))));
        };
        if let Some((streak, at)) = newly_healthy {
            report(0, healthy(streak, at, false));
        }
        let retry_in = backoff.as_ref().map(|backoff| backoff.value);
        let stopped = EventKind::Stopped { cause, exit: exit.clone(), uptime, failed, retry_in };
        report(failures_before, stopped);
        if consequence == Consequence::GiveUp {
            report(failures_before.saturating_add(1), EventKind::GaveUp);
            if is_significant {
                self.queue(key, Action::ShutDown { id, cause, exit });
            }
        }
        if let Some(backoff) = backoff {
            self.note_call(key, Callback::Backoff, backoff.panic, at);
        }
        self.unsettled.push_back((key, false));
    }

    /// Notes an answer of the child's flag.
    pub(super) fn note_flag(&mut self, key: Key, answer: Answer<Option<bool>>, now: Instant) {
        let Answer { value, panic } = answer;
        if let (Some(enabled), Some(child)) = (value, self.children.get_mut(&key)) {
            if child.circuit.flag_is(enabled) {
                self.queue_change(key, EventKind::FlagChanged { enabled }, now);
            }
        }
        self.note_call(key, Callback::Enabled, panic, now);
    }

    /// Notes a call of one of the child's callbacks, for its present or last run.
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

    /// Notes a call of one of the child's callbacks, for this run. A panic is reported, unless the
    /// last call of that callback panicked as well.
    pub(crate) fn note_call_of(
        &mut self,
        key: Key,
        run: u64,
        callback: Callback,
        panic: Option<Panic>,
        now: Instant,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let differs = child.faults.note(callback, panic.is_some());
        if let Some(panic) = panic.filter(|_| differs) {
            self.queue_report_of(key, run, EventKind::CallbackPanicked { callback, panic }, now);
        }
    }

    /// Queues the report of an event, after the publication of the child's present state.
    pub(super) fn queue_report(&mut self, key: Key, kind: EventKind, now: Instant) {
        let Some(run) = self.children.get(&key).map(|child| child.circuit.last_run()) else {
            return;
        };
        self.queue_report_of(key, run, kind, now);
    }

    fn queue_report_of(&mut self, key: Key, run: u64, kind: EventKind, now: Instant) {
        self.queue_view(key, None, now);
        let Some(child) = self.children.get(&key) else { return };
        let (id, failures) = (child.id.clone(), child.circuit.failures());
        self.queue(key, Action::Report(Report { id, run, failures, kind }));
    }

    /// Notes what is shown of a child from now on.
    pub(super) fn note_shown(&mut self, key: Key, view: View) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let before = child.shown.replace(view);
        if before.map(|before| before.status) != Some(view.status) {
            self.unwell += usize::from(is_unwell(Some(view)));
            self.unwell -= usize::from(is_unwell(before));
            self.health_changed = true;
        }
    }

    /// Queues the publication of the child's state if it has changed since the last time, or if a
    /// run has ended.
    pub(super) fn queue_view(&mut self, key: Key, stopped: Option<LastStop>, now: Instant) {
        self.note_readiness(key, now);
        let Some(child) = self.children.get_mut(&key) else { return };
        let view = child.circuit.view(now);
        if child.shown != Some(view) || stopped.is_some() {
            self.note_shown(key, view);
            self.queue(key, Action::Publish { view, stopped });
        }
    }
}
