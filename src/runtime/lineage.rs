//! Whose thread this is: which supervisors it works for, and whether it is one itself.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

thread_local! {
    /// The supervisors that this thread works for.
    static LINEAGE: RefCell<Lineage> = RefCell::new(Lineage::default());
    /// The supervisor that this thread is.
    static SUPERVISOR: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A supervisor and those above it, by their numbers, the outermost first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lineage(Arc<[u64]>);

impl Lineage {
    /// That of a new supervisor, which works for those that this thread works for.
    pub(crate) fn of(number: u64) -> Self {
        Self(present().0.iter().copied().chain([number]).collect())
    }

    /// From now on this thread works for these.
    pub(crate) fn adopt(&self) {
        LINEAGE.set(self.clone());
    }

    /// Supervises on this thread: for as long as `f` takes, it is the last one's.
    pub(crate) fn supervise<R>(&self, f: impl FnOnce() -> R) -> R {
        // A simulation may be dropped where a thread is ending, and the thread-local variable be
        // gone.
        let outer = LINEAGE.try_with(|lineage| lineage.replace(self.clone()));
        let before = SUPERVISOR.replace(self.0.last().copied());
        let result = f();
        SUPERVISOR.set(before);
        if let Ok(outer) = outer {
            LINEAGE.set(outer);
        }
        result
    }
}

/// Whether this is the thread of that supervisor, on which its callbacks run.
pub(crate) fn is_supervisor(number: u64) -> bool {
    SUPERVISOR.get() == Some(number)
}

/// Whether that supervisor cannot end before this thread does: it is its own, or one of its
/// children's, however deep.
pub(crate) fn is_within(number: u64) -> bool {
    present().0.contains(&number)
}

/// On a supervised thread this outlives all thread-local variables of the user's; on any other it
/// may be gone when one of those drops a supervisor, and such a thread works for none.
fn present() -> Lineage {
    LINEAGE.try_with(|lineage| lineage.borrow().clone()).unwrap_or_default()
}
