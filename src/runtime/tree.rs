//! Tree of supervisors: nested ones, below the children that run them.
//!
//! A child's row leads to the supervisor that its body runs. No lock is held across two
//! supervisors: each is looked into by itself, and may have ended by the time the next is.

use std::{convert::Infallible, sync::Arc};

use crate::{
    core::key::Key,
    error::WaitError,
    runtime::{lineage, row::Row, shared::Shared},
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

/// A child, with the supervisor that lists it.
pub(crate) type Listed = (Arc<Shared>, Arc<Row>);

/// Looks a path up. In a nested supervisor it may begin at the outermost one, as in events, or at
/// the nested one itself.
pub(crate) fn locate(shared: &Arc<Shared>, path: &str) -> Place {
    let Ok(place) = look_up(shared, path, &mut |_| Ok::<_, Infallible>(()));
    place
}

/// The same for a wait, which no supervisor along the path can do on its own thread.
pub(crate) fn locate_to_wait(shared: &Arc<Shared>, path: &str) -> Result<Place, WaitError> {
    look_up(shared, path, &mut check_thread)
}

/// Checks that this is not the thread of that supervisor, which cannot wait for itself.
pub(crate) fn check_thread(shared: &Shared) -> Result<(), WaitError> {
    if lineage::is_supervisor(shared.number) { Err(WaitError::OnSupervisorThread) } else { Ok(()) }
}

/// Looks a path up, and calls `visit` for each supervisor along it.
fn look_up<E>(
    shared: &Arc<Shared>,
    path: &str,
    visit: &mut impl FnMut(&Shared) -> Result<(), E>,
) -> Result<Place, E> {
    visit(shared)?;
    let mut best = Place::Nowhere;
    for path in shared.without_prefix(path).into_iter().chain([path]) {
        match look_up_below(shared, path, visit)? {
            child @ Place::Child(..) => return Ok(child),
            Place::Nowhere => {}
            place if matches!(best, Place::Nowhere) => best = place,
            _ => {}
        }
    }
    Ok(best)
}

fn look_up_below<E>(
    shared: &Arc<Shared>,
    path: &str,
    visit: &mut impl FnMut(&Shared) -> Result<(), E>,
) -> Result<Place, E> {
    let (first, mut rest) = split(path);
    let Some(mut row) = shared.own_row(first) else { return Ok(Place::Nowhere) };
    let mut shared = shared.clone();
    while let Some(path) = rest {
        let Some(branch) = row.branch() else { return Ok(Place::Down(shared, row)) };
        visit(&branch)?;
        let (next, after) = split(path);
        let Some(below) = branch.own_row(next) else { return Ok(Place::NotListed(branch)) };
        (shared, row, rest) = (branch, below, after);
    }
    Ok(Place::Child(shared, row))
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
///
/// # Errors
///
/// On the thread of one of these supervisors.
pub(crate) fn ill(shared: &Arc<Shared>) -> Result<Vec<Listed>, WaitError> {
    check_thread(shared)?;
    let mut found = Vec::new();
    for row in shared.rows() {
        if row.is_gone() {
            continue;
        }
        let runs = matches!(row.status(), ChildStatus::OnTrial | ChildStatus::Healthy);
        let below = match row.branch() {
            Some(branch) if runs => ill(&branch)?,
            Some(branch) => check_thread(&branch).map(|()| Vec::new())?,
            None => Vec::new(),
        };
        if below.is_empty() && !shared.info(&row).is_at_work() {
            found.push((shared.clone(), row));
        } else {
            found.extend(below);
        }
    }
    Ok(found)
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
