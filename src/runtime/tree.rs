//! Tree of supervisors: nested ones, below the children that run them.
//!
//! A child's row leads to the supervisor that its body runs. No lock is held across two
//! supervisors: each is looked into by itself, and may have ended by the time the next is.

use std::sync::Arc;

use crate::{
    core::key::Key,
    runtime::{row::Row, shared::Shared},
    snapshot::{ChildInfo, Snapshot},
    status::ChildStatus,
};

/// Where a path of ids leads, such as `ingest/parser`.
pub(crate) enum Place {
    Child(Arc<Shared>, Arc<Row>),
    /// Below this child, where no supervisor runs now.
    Down(Arc<Shared>, Arc<Row>),
    /// Into this nested supervisor, which does not list the child.
    NotListed(Arc<Shared>),
    /// Nowhere: its first id is not listed.
    Nowhere,
}

/// Looks a path up. In a nested supervisor it may begin at the outermost one, as in events, or at
/// the nested one itself.
pub(crate) fn locate(shared: &Arc<Shared>, path: &str) -> Place {
    let mut best = Place::Nowhere;
    for path in shared.without_prefix(path).into_iter().chain([path]) {
        match locate_below(shared, path) {
            child @ Place::Child(..) => return child,
            Place::Nowhere => {}
            place if matches!(best, Place::Nowhere) => best = place,
            _ => {}
        }
    }
    best
}

fn locate_below(shared: &Arc<Shared>, path: &str) -> Place {
    let (first, mut rest) = split(path);
    let Some(mut row) = shared.own_row(first) else { return Place::Nowhere };
    let mut shared = shared.clone();
    while let Some(path) = rest {
        let Some(branch) = row.branch() else { return Place::Down(shared, row) };
        let (next, after) = split(path);
        let Some(below) = branch.own_row(next) else { return Place::NotListed(branch) };
        (shared, row, rest) = (branch, below, after);
    }
    Place::Child(shared, row)
}

/// The first id of a path, and the path below it.
fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)))
}

/// What is known of all children of a supervisor, and of all below them.
pub(crate) fn snapshot(shared: &Shared) -> Snapshot {
    let is_running = shared.is_running();
    let with_branch = |row: &Arc<Row>| {
        let branch = row.branch().map(|branch| snapshot(&branch));
        ChildInfo { branch, ..shared.info(row) }
    };
    let children = shared.rows().iter().map(with_branch).collect();
    Snapshot { name: shared.name.clone(), is_running, children }
}

/// The children that are not well at work, with their supervisors: of a nested supervisor those
/// below it, instead of the child that runs it.
pub(crate) fn ill(shared: &Arc<Shared>) -> Vec<(Arc<Shared>, Arc<Row>)> {
    let mut found = Vec::new();
    for row in shared.rows() {
        if row.is_gone() {
            continue;
        }
        let runs = matches!(row.status(), ChildStatus::OnTrial | ChildStatus::Healthy);
        let below = row.branch().filter(|_| runs).map_or_else(Vec::new, |branch| ill(&branch));
        if below.is_empty() && !shared.info(&row).is_at_work() {
            found.push((shared.clone(), row));
        } else {
            found.extend(below);
        }
    }
    found
}

/// Shows a nested supervisor below the child that runs it, until it is dropped.
pub(crate) struct ShownBranch(Arc<Row>);

impl ShownBranch {
    /// Returns `None` if the child has left the list.
    pub(crate) fn new(outer: &Shared, key: Key, branch: &Arc<Shared>) -> Option<Self> {
        let row = outer.row_of(key)?;
        row.set_branch(Some(branch));
        Some(Self(row))
    }
}

impl Drop for ShownBranch {
    fn drop(&mut self) {
        self.0.set_branch(None);
    }
}
