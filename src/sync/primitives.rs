//! Locks, atomics and waits: the real ones, or modelled ones under `--cfg loom`.
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

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

    /// The locks of the standard library, which keep nothing outside of themselves.
    pub(crate) mod plain {
        pub(crate) use std::sync::{Condvar, Mutex};
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
