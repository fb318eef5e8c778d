//! Dependencies by what is published: checks of new children, and descriptions of those that wait.

use std::time::Instant;

use crate::{
    child::{ChildSpec, check_dependency},
    core::dependencies::find_circle,
    error::ConfigError,
    event::{WaitingFor, Wellness},
    id::ChildId,
    runtime::{directory::Directory, row::Row, shared::Shared},
    snapshot::Description,
    status::ChildStatus,
};

impl Shared {
    /// Checks what a child that is to be added comes after, and who comes after it.
    pub(super) fn check_dependencies(
        &self,
        directory: &Directory,
        spec: &ChildSpec,
    ) -> Result<(), ConfigError> {
        let id = self.path(&spec.id);
        if directory.find(&id).is_some() {
            return Err(ConfigError::DuplicateId(id));
        }
        let after: Vec<_> = spec.after.iter().map(|id| self.path(id)).collect();
        for dependency in after.iter().filter(|dependency| **dependency != id) {
            let listed = directory.find(dependency).map(|row| row.policy());
            check_dependency(&id, dependency, listed)?;
        }
        match directory.dependent_of(&id) {
            Some(dependent) => check_dependency(dependent.id(), &id, Some(spec.policy))?,
            // Nobody comes after it, so that it closes no circle.
            None if !after.contains(&id) => return Ok(()),
            None => {}
        }
        let after_of = |other: &ChildId| {
            if *other == id {
                &*after
            } else {
                directory.find(other).map_or(&[][..], |row| row.after())
            }
        };
        find_circle([&id], after_of).map_or(Ok(()), |circle| Err(ConfigError::Circle(circle)))
    }

    /// For whom a child waits, by what is published of the others.
    pub(super) fn waiting_for(&self, row: &Row, now: Instant) -> WaitingFor {
        let first_unready = |row: &Row| {
            let is_unready = |id: &&ChildId| !self.listed(id).is_some_and(|row| row.is_ready());
            row.after().iter().find(is_unready).or(row.after().last()).cloned()
        };
        let id = first_unready(row).expect("only those wait that come after others");
        let mut root = id.clone();
        // There is no circle. But the others are read one after the other, and may be replaced
        // meanwhile.
        let listed = self.directory.read().len();
        for _ in 0..listed {
            let next = self.listed(&root).filter(|row| row.status() == ChildStatus::Waiting);
            let Some(next) = next.and_then(|row| first_unready(&row)) else { break };
            root = next;
        }
        let Description { state, reason, wellness } = match self.listed(&root) {
            Some(row) => row.info(now).as_dependency(row.policy(), row.branch().is_some()),
            None => {
                let state = String::from("is not listed");
                Description { reason: state.clone(), state, wellness: Wellness::Ill }
            }
        };
        WaitingFor { id, root, reason: reason.into(), state: state.into(), wellness }
    }
}
