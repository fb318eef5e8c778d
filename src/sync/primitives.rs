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
    use std::{
        sync::{self, PoisonError},
        time::Instant,
    };

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

    use crate::sync::clock::system_now;

    /// Wakes those who wait for something that an atomic says.
    ///
    /// Where each child may wait, this takes the place of a condition variable of parking_lot's,
    /// which keeps tables for its waiters: 400 bytes for each of the most that ever were. This is
    /// the standard library's. `park` would do, too, but takes the
    /// [`unpark`](std::thread::Thread::unpark) that was meant for the user's code on that thread.
    #[derive(Debug, Default)]
    pub(crate) struct Bell {
        /// How many wait; once there were more than can be counted, it stays at the most. Two bytes
        /// fit beside the lock, and each child has two bells.
        waiting: sync::Mutex<u16>,
        rung: sync::Condvar,
    }

    impl Bell {
        /// Waits until `is_over` says so or the deadline comes; `None` is never.
        pub(crate) fn wait_until(&self, deadline: Option<Instant>, is_over: impl Fn() -> bool) {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            *waiting = waiting.saturating_add(1);
            while !is_over() {
                waiting = match deadline {
                    None => self.rung.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                    Some(deadline) => {
                        let left = deadline.saturating_duration_since(system_now());
                        if left.is_zero() {
                            break;
                        }
                        let woken = self.rung.wait_timeout(waiting, left);
                        woken.unwrap_or_else(PoisonError::into_inner).0
                    }
                };
            }
            if *waiting < u16::MAX {
                *waiting -= 1;
            }
        }

        /// Wakes all who wait, to be called after what they wait for has been stored. If nobody
        /// waits, it takes no system call.
        pub(crate) fn ring(&self) {
            // Whoever has looked before the store, and does not wait yet, holds the lock.
            let waiting = *self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match waiting {
                0 => {}
                // For all, the kernel looks through the whole bucket, which waits of others share.
                1 => self.rung.notify_one(),
                _ => self.rung.notify_all(),
            }
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
