//! Condition variable for those who wait for news.

use std::time::Instant;

use crate::sync::{
    clock::system_now,
    primitives::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering, fence},
    },
};

/// Wakes the threads that wait for news. While none waits, `notify` costs a fence and a load.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    waiters: AtomicUsize,
    epoch: Mutex<u64>,
    changed: Condvar,
}

impl Watch {
    /// Wakes all waiters. The caller has to make the news visible first.
    pub(crate) fn notify(&self) {
        // One of the two fences comes first: either this load sees the waiter, or the waiter's
        // check, which follows its own fence, sees the news.
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::Relaxed) > 0 {
            let mut epoch = self.epoch.lock();
            *epoch = epoch.wrapping_add(1);
            drop(epoch);
            self.changed.notify_all();
        }
    }

    /// Waits until `check` has an answer. Calls it first, after each notification, and a last time
    /// once the deadline has passed, always without a lock held.
    pub(crate) fn wait_for<T>(
        &self,
        deadline: Option<Instant>,
        mut check: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        struct Registered<'a>(&'a AtomicUsize);
        impl Drop for Registered<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.waiters.fetch_add(1, Ordering::Relaxed);
        let _registered = Registered(&self.waiters);
        fence(Ordering::SeqCst);
        loop {
            let seen = *self.epoch.lock();
            // Read in every turn, and before the check. If news comes faster than the check
            // returns, no turn ever waits below, and nothing else would notice the deadline.
            let is_over = deadline.is_some_and(|deadline| deadline <= system_now());
            if let Some(answer) = check() {
                return Some(answer);
            }
            if is_over {
                return None;
            }
            let mut epoch = self.epoch.lock();
            while *epoch == seen {
                match deadline {
                    None => self.changed.wait(&mut epoch),
                    Some(deadline) => {
                        if self.changed.wait_until(&mut epoch, deadline).timed_out() {
                            break;
                        }
                    }
                }
            }
        }
    }
}
