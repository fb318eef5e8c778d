//! For whom a child waits that comes after others.

use std::{fmt, sync::Arc};

use crate::id::ChildId;

/// For whom a child waits that comes [after](crate::ChildSpec::after) others, and why that one is
/// not ready.
///
/// ```
/// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
///
/// let supervisor = Supervisor::builder()
///     .child(ChildSpec::new("db", |ctx| ctx.wait_until_stopped()))
///     .child(ChildSpec::new("cache", |ctx| ctx.wait_until_stopped()).after("db"))
///     .child(ChildSpec::new("orders", |ctx| ctx.wait_until_stopped()).after("cache"))
///     .start()?;
/// let orders = supervisor.handle().child("orders").ok_or("not listed")?;
/// let waiting = orders.waiting_for.ok_or("it waits")?;
/// assert_eq!((waiting.id.as_str(), waiting.root.as_str()), ("cache", "db"));
/// assert!(waiting.reason.starts_with("is on trial: ready in 59."));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Its `Display` is the end of a sentence that begins with "waits for": `` `db`, which is backing
/// off: it failed after 3 ms: connection refused; 1 failure; tried again in 800 ms ``.
#[derive(Clone, Debug)]
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
    /// The same without why.
    pub(crate) state: Arc<str>,
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

impl WaitingFor {
    /// The same without why the child at the root is not ready, for a table in which that child has
    /// a row of its own.
    pub(crate) fn in_short(&self) -> String {
        self.with(&self.state)
    }

    fn with(&self, reason: &str) -> String {
        let Self { id, root, .. } = self;
        if root == id {
            format!("`{id}`, which {reason}")
        } else {
            format!("`{id}`, which waits for `{root}`, which {reason}")
        }
    }
}

impl fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with(&self.reason))
    }
}
