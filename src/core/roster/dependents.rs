//! Children that come after others, and when they may start.

use std::time::Instant;

use crate::{
    core::{
        circuit::Decision, dependencies::Dependency, interface::Environment, key::Key,
        roster::Roster,
    },
    event::EventKind,
    id::ChildId,
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
        for key in self.dependencies.set_ready(id, is_ready) {
            let are_ready = self.dependencies.are_ready(key);
            let earliest = self.dependencies.earliest(key);
            let Some(child) = self.children.get_mut(&key) else { continue };
            if are_ready == child.circuit.is_blocked() {
                if are_ready {
                    child.circuit.dependencies_recovered(earliest);
                } else {
                    child.circuit.dependency_failed();
                }
                let is_due = matches!(child.circuit.judge(now), (_, Decision::Start));
                self.dependencies.note_changed(key, now);
                if is_due {
                    // From now on, whenever the core decides about it.
                    self.join_queue(key, now);
                }
            }
        }
    }

    /// Notes that a run of a child begins. While it lasts, it does not matter who is ready.
    pub(super) fn note_run_began(&mut self, key: Key) {
        self.dependencies.set_running(key, true);
    }

    /// Notes that a run of a child has ended.
    pub(super) fn note_run_over(&mut self, key: Key) {
        self.dependencies.set_running(key, false);
        let are_ready = self.dependencies.are_ready(key);
        if let Some(child) = self.children.get_mut(&key).filter(|_| !are_ready) {
            child.circuit.dependency_failed();
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
        let waiting_for = environment.waiting_for(&child.entry);
        self.queue_report(key, EventKind::Waiting { waiting_for }, now);
    }
}
