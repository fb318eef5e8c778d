//! Shutdown of all children: who is asked to stop, and when.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    core::{
        interface::{Action, Environment},
        key::Key,
        roster::Roster,
    },
    event::{EventKind, StopCause},
    sync::deadline,
};

/// The least time to stop of a child that waited for others, at the end of a shutdown's limit: it
/// could not begin sooner.
const LEAST_TIME: Duration = Duration::from_millis(250);

/// A shutdown.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Closing {
    /// When the time of all is over; `None` is never.
    pub(super) cap: Option<Instant>,
    /// Until when those have time that were asked at the end of that, after they had waited for
    /// others.
    pub(super) last_cap: Option<Instant>,
    /// The running children that were not asked to stop yet, since others that come after them run.
    pub(super) postponed: BTreeSet<Key>,
}

impl<T> Roster<T> {
    /// Shuts down: requests every child to stop, in reverse list order; those that others come
    /// after, when these have ended. Each has its own stop timeout, and all together have `limit`.
    pub(crate) fn close(&mut self, now: Instant, limit: Duration) {
        let is_first = self.closing.is_none();
        let closing = self.closing.get_or_insert_default();
        closing.cap = deadline::sooner(closing.cap, deadline::after(now, limit));
        closing.last_cap = None;
        let cap = closing.cap;
        self.round = None;
        let mut keys: Vec<_> = self.children.keys().copied().collect();
        keys.sort_unstable_by(|one, other| other.cmp(one));
        for &key in &keys {
            let Some(child) = self.children.get_mut(&key) else { continue };
            self.live_runs += usize::from(child.circuit.close(now, cap));
            if is_first && child.circuit.is_running() {
                self.dependencies.await_end_of(key);
            }
        }
        for key in keys {
            let Some(child) = self.children.get(&key) else { continue };
            if child.circuit.is_running() {
                // All stop requests come before any report: the report on one child must not delay
                // the stop of another.
                self.queue(key, Action::MakeFinal { is_closing: true });
                self.stop_in_turn(key, now);
            }
            self.unsettled.push_back((key, false));
        }
    }

    /// Has the outermost supervisor shut down, because a run does not stop and keeps its thread:
    /// only the end of the process helps.
    pub(super) fn abandon(
        &mut self,
        key: Key,
        stopping_for: Duration,
        now: Instant,
        environment: &mut impl Environment<Entry = T>,
    ) {
        let Some(child) = self.children.get(&key) else { return };
        let (entry, run) = (&child.entry, child.circuit.last_run());
        let sight = environment.look_at(entry, run);
        if environment.abandon(entry, run, stopping_for, sight.clone()) {
            let (doing, thread) = (sight.doing.map(Into::into), sight.thread);
            self.queue_report(key, EventKind::Abandoned { stopping_for, doing, thread }, now);
        }
    }

    /// Whether a shutdown has nothing left to wait for: every child is down or its stop has timed
    /// out.
    pub(crate) fn is_over(&self) -> bool {
        self.closing.is_some()
            && self.live_runs == 0
            && self.steps.is_empty()
            && self.unsettled.is_empty()
    }

    /// Requests a run to stop, in a shutdown until the end of that at the latest. Returns whether
    /// it is the first request.
    pub(super) fn request_stop(&mut self, key: Key, cause: StopCause, now: Instant) -> bool {
        let Some(child) = self.children.get_mut(&key) else { return false };
        let mut cap = None;
        if let Some(closing) = &mut self.closing {
            cap = closing.cap;
            if closing.postponed.remove(&key) {
                let least = deadline::after(now, LEAST_TIME);
                if cap.is_some() && cap < least {
                    (cap, closing.last_cap) = (least, least);
                }
            }
        }
        child.circuit.request_stop(cause, cap, now)
    }

    /// In a shutdown: asks a child to stop, unless others that come after it run.
    pub(super) fn stop_in_turn(&mut self, key: Key, now: Instant) {
        let Some(child) = self.children.get(&key).filter(|child| child.circuit.is_running()) else {
            return;
        };
        let awaits_ends = !child.circuit.is_stopping() && self.dependencies.awaits_ends(&child.id);
        let Some(closing) = &mut self.closing else { return };
        if awaits_ends && !deadline::is_reached(closing.cap, now) {
            closing.postponed.insert(key);
        } else if self.request_stop(key, StopCause::Shutdown, now) {
            self.queue(key, Action::Stop);
        }
    }

    /// In a shutdown: asks those to stop that have waited for the end of this run. Its time to stop
    /// may be over as well.
    pub(super) fn note_end_in_shutdown(&mut self, key: Key, now: Instant) {
        if let Some(closing) = &mut self.closing {
            closing.postponed.remove(&key);
            for key in self.dependencies.note_end_of(key) {
                self.stop_in_turn(key, now);
                self.unsettled.push_back((key, false));
            }
        }
    }

    /// In a shutdown: asks all to stop that wait for others, without their turn.
    pub(crate) fn stop_the_postponed(&mut self, now: Instant) {
        let Some(closing) = &self.closing else { return };
        for key in closing.postponed.clone().into_iter().rev() {
            if self.request_stop(key, StopCause::Shutdown, now) {
                self.queue(key, Action::Stop);
            }
            self.unsettled.push_back((key, false));
        }
    }

    /// What the environment keeps for those that the shutdown has not asked to stop yet.
    pub(crate) fn postponed(&self) -> impl Iterator<Item = &T> {
        let postponed = self.closing.iter().flat_map(|closing| &closing.postponed);
        postponed.filter_map(|key| self.entry(*key))
    }

    /// Whether children run that the shutdown has not asked to stop yet.
    pub(crate) fn has_postponed(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| !closing.postponed.is_empty())
    }

    /// Until when a shutdown waits at most; `None` is without end.
    pub(crate) fn closing_cap(&self) -> Option<Instant> {
        let closing = self.closing.as_ref()?;
        closing.last_cap.or(closing.cap)
    }

    /// When the limit of the shutdown is over, for those that wait by then. `None` if nobody does,
    /// or there is no limit.
    pub(super) fn postponed_until(&self) -> Option<Instant> {
        let closing = self.closing.as_ref()?;
        closing.cap.filter(|_| !closing.postponed.is_empty())
    }
}
