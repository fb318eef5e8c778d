//! Building blocks that know nothing of children: stop signal, waiting, panics and time.

pub(crate) mod aside;
pub(crate) mod bell;
pub(crate) mod clock;
pub(crate) mod deadline;
#[cfg(any(test, lock_based_atomics, not(target_has_atomic = "64")))]
pub(crate) mod locked;
pub(crate) mod one_line;
pub(crate) mod panic;
pub(crate) mod primitives;
pub(crate) mod slot;
pub(crate) mod stop;
pub(crate) mod unwind;
pub(crate) mod watch;
