//! For whom a child waits that comes after others.

use std::{fmt, sync::Arc};

use crate::id::ChildId;

/// For whom a child waits that comes [after](crate::ChildSpec::after) others, and why that one is
/// not ready.
///
/// Its `Display` is the end of a sentence that begins with "waits for": `` `db`, which is backing
/// off: it failed after 3 ms: connection refused; 1 failure; tried again in 800 ms ``.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingFor {
    /// The first of those that it comes after that is not ready.
    pub id: ChildId,
    /// The child for which it waits in the end: the same one, unless that waits for another one
    /// itself.
    pub root: ChildId,
    /// What that child is doing, and when it will be ready as far as that is known: the part of the
    /// sentence after "which".
    pub reason: Arc<str>,
    pub(crate) wellness: Wellness,
}

/// What the state of the child that is waited for says about those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wellness {
    /// It is down on purpose, so they are, too.
    Off,
    /// Nothing is wrong with it.
    Well,
    Ill,
}

impl fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, root, reason, wellness: _ } = self;
        write!(f, "`{id}`, which ")?;
        if root != id {
            write!(f, "waits for `{root}`, which ")?;
        }
        f.write_str(reason)
    }
}
