//! Locks and atomics: the real ones, or modelled ones under `--cfg loom`.
//!
//! The modelled ones have the interface of the real ones, as far as this crate uses it, so that
//! loom explores the schedules of unchanged code. `proof/interleavings.rs` lists what it explores.

#[cfg(not(all(test, loom)))]
pub(crate) use self::real::*;

#[cfg(all(test, loom))]
pub(crate) use self::modelled::*;

#[cfg(not(all(test, loom)))]
mod real {
    pub(crate) use std::{
        sync::OnceLock,
        thread::{ThreadId, current},
    };
    use std::{
        thread::{self, Thread},
        time::Instant,
    };

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

    use crate::sync::clock::system_now;

    /// The thread that made it, for others to wake.
    ///
    /// Where each child may wait, this takes the place of a condition variable: for each thread
    /// that has ever waited on one, parking_lot keeps some 400 bytes of tables for good.
    #[derive(Clone, Debug)]
    pub(crate) struct Parker(Thread);

    impl Parker {
        pub(crate) fn new() -> Self {
            Self(current())
        }

        /// Parks the current thread, which has to be the one that made this, until it is unparked
        /// or the deadline comes; `None` is never. It may have been unparked before. It may also
        /// return for no reason.
        pub(crate) fn park_until(&self, deadline: Option<Instant>) {
            match deadline {
                None => thread::park(),
                Some(deadline) => {
                    thread::park_timeout(deadline.saturating_duration_since(system_now()));
                }
            }
        }

        pub(crate) fn unpark(&self) {
            self.0.unpark();
        }

        pub(crate) fn is(&self, other: &Self) -> bool {
            self.0.id() == other.0.id()
        }
    }

    /// The atomics of the standard library. Not every machine has those of 64 bits; for tests,
    /// `--cfg lock_based_atomics` replaces them on the machines that do.
    pub(crate) mod atomic {
        pub(crate) use std::sync::atomic::{
            AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence,
        };

        #[cfg(all(target_has_atomic = "64", not(lock_based_atomics)))]
        pub(crate) use std::sync::atomic::AtomicU64;

        #[cfg(any(not(target_has_atomic = "64"), lock_based_atomics))]
        pub(crate) use crate::sync::locked::AtomicU64;
    }
}

#[cfg(all(test, loom))]
#[path = "../proof/modelled_primitives.rs"]
mod modelled;
