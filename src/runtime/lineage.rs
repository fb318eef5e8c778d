//! The place of the current thread in the tree of supervisors.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

thread_local! {
    /// The supervisors that this thread works for, directly or through nested ones.
    static LINEAGE: RefCell<Lineage> = RefCell::new(Lineage::default());
    /// The number of the supervisor whose loop runs on this thread.
    static SUPERVISOR: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The numbers of a supervisor and of those in which it is nested, the outermost first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lineage(Arc<[u64]>);

impl Lineage {
    /// The lineage of a new supervisor, nested in those that the current thread works for.
    pub(crate) fn of(number: u64) -> Self {
        Self(present().0.iter().copied().chain([number]).collect())
    }

    /// Makes the current thread one of this supervisor's.
    pub(crate) fn adopt(&self) {
        LINEAGE.set(self.clone());
    }

    /// Runs `f` with the current thread as the supervisor thread of the innermost supervisor.
    pub(crate) fn supervise<R>(&self, f: impl FnOnce() -> R) -> R {
        // A simulation may be dropped while its thread runs the destructors of thread-local
        // variables, and `LINEAGE` may be gone by then.
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

/// Whether the current thread is the supervisor thread of that supervisor, which calls its
/// callbacks.
pub(crate) fn is_supervisor(number: u64) -> bool {
    SUPERVISOR.get() == Some(number)
}

/// Whether the current thread belongs to that supervisor or to one nested in it. Waiting here for
/// the end of that supervisor would never return, since the supervisor waits for this thread.
pub(crate) fn is_within(number: u64) -> bool {
    present().0.contains(&number)
}

/// The lineage of the current thread. On a thread of a supervisor, `LINEAGE` outlives all
/// thread-local variables of the user. On any other thread it may be gone when one of those drops a
/// supervisor; such a thread works for no supervisor.
fn present() -> Lineage {
    LINEAGE.try_with(|lineage| lineage.borrow().clone()).unwrap_or_default()
}
