//! Children that come after others: when they may start, and who stops first.

use std::time::Instant;

use crate::{
    core::{
        circuit::Decision,
        dependencies::Dependency,
        interface::{Action, Environment},
        key::Key,
        roster::Roster,
    },
    event::{EventKind, StopCause},
    id::ChildId,
    sync::deadline,
};

impl<T> Roster<T> {
    /// Notes what a new child comes after, and who comes after it.
    pub(super) fn list_dependencies(
        &mut self,
        key: Key,
        id: &ChildId,
        after: Vec<Dependency>,
        now: Instant,
    ) {
        for Dependency { id, key: other } in after {
            let other = other.filter(|other| self.children.contains_key(other));
            let listed = other.and_then(|other| self.children.get_mut(&other));
            let is_ready = listed.is_some_and(|listed| {
                listed.is_awaited = true;
                listed.circuit.is_ready()
            });
            self.dependencies.add(key, Dependency { id, key: other }, is_ready, now);
        }
        let (are_ready, is_awaited) =
            (self.dependencies.are_ready(key), self.dependencies.list(key, id));
        if let Some(child) = self.children.get_mut(&key) {
            child.is_awaited = is_awaited;
            if !are_ready {
                child.circuit.dependency_failed();
            }
        }
    }

    /// Passes on whether a child is ready, if others come after it.
    pub(super) fn note_readiness(&mut self, key: Key, now: Instant) {
        let Some(child) = self.children.get(&key) else { return };
        if child.is_awaited && self.closing.is_none() {
            let (id, is_ready) = (child.id.clone(), child.circuit.is_ready());
            self.set_ready(&id, is_ready, now);
        }
    }

    /// Notes whether the child of this id is ready. For those that come after it, this costs time
    /// only when it changes.
    pub(crate) fn set_ready(&mut self, id: &ChildId, is_ready: bool, now: Instant) {
        for key in self.dependencies.set_ready(id, is_ready, now) {
            let earliest = self.dependencies.earliest(key);
            let Some(child) = self.children.get_mut(&key) else { continue };
            if is_ready {
                child.circuit.dependencies_recovered(earliest);
                if let (_, Decision::Start) = child.circuit.judge(now) {
                    // It is due from now on, whenever the core decides about it.
                    self.join_queue(key, now);
                }
            } else {
                child.circuit.dependency_failed();
            }
        }
    }

    /// Reports that a child waits for another one.
    pub(super) fn report_waiting(
        &mut self,
        key: Key,
        now: Instant,
        environment: &mut impl Environment<Entry = T>,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        child.circuit.note_waiting_told();
        let on = environment.waiting_for(&child.entry);
        self.queue_report(key, EventKind::Waiting { on }, now);
    }

    // ── The shutdown ──

    /// Requests a run to stop, in a shutdown until the end of that at the latest. Returns whether
    /// it is the first request.
    pub(super) fn request_stop(&mut self, key: Key, cause: StopCause, now: Instant) -> bool {
        let cap = self.closing.as_ref().and_then(|closing| closing.cap);
        let Some(child) = self.children.get_mut(&key) else { return false };
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
            self.queue(key, Action::Postpone);
        } else {
            closing.postponed.remove(&key);
            if self.request_stop(key, StopCause::Shutdown, now) {
                self.queue(key, Action::Stop);
            }
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

    /// In a shutdown: asks all the others to stop when its time is over.
    pub(super) fn stop_the_postponed(&mut self, now: Instant) {
        let Some(closing) = &mut self.closing else { return };
        if deadline::is_reached(closing.cap, now) {
            for key in std::mem::take(&mut closing.postponed).into_iter().rev() {
                if self.request_stop(key, StopCause::Shutdown, now) {
                    self.queue(key, Action::Stop);
                }
                self.unsettled.push_back((key, false));
            }
        }
    }

    /// When that is; `None` if nobody is left to be asked, or there is no limit.
    pub(super) fn postponed_until(&self) -> Option<Instant> {
        let closing = self.closing.as_ref()?;
        closing.cap.filter(|_| !closing.postponed.is_empty())
    }
}
