//! Waiting for news.

use std::time::Instant;

use crate::sync::{
    Condvar, Mutex,
    atomic::{AtomicUsize, Ordering, fence},
};

/// Wakes those who wait for news. It costs next to nothing while nobody does.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    waiters: AtomicUsize,
    epoch: Mutex<u64>,
    changed: Condvar,
}

impl Watch {
    /// To be called after the news can be seen.
    pub(crate) fn notify(&self) {
        // Either this load sees the waiter, or the waiter's look, which follows its own fence, sees the news.
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::Relaxed) > 0 {
            let mut epoch = self.epoch.lock();
            *epoch = epoch.wrapping_add(1);
            drop(epoch);
            self.changed.notify_all();
        }
    }

    /// Waits until `check` has an answer, asking again at all news; at the deadline it is asked for the last time. It is called
    /// with no lock held.
    pub(crate) fn wait_for<T>(&self, deadline: Option<Instant>, mut check: impl FnMut() -> Option<T>) -> Option<T> {
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
            if let Some(answer) = check() {
                return Some(answer);
            }
            let mut epoch = self.epoch.lock();
            while *epoch == seen {
                match deadline {
                    None => self.changed.wait(&mut epoch),
                    Some(deadline) => {
                        if self.changed.wait_until(&mut epoch, deadline).timed_out() {
                            drop(epoch);
                            return check();
                        }
                    }
                }
            }
        }
    }
}
