//! Waits of few threads for what an atomic says.

use std::{sync::PoisonError, time::Instant};

use crate::sync::{
    clock::system_now,
    primitives::plain::{Condvar, Mutex},
};

/// Wakes those who wait for something that an atomic says.
///
/// Where each child may wait, this takes the place of a condition variable of parking_lot's, which
/// keeps tables for its waiters: 400 bytes for each of the most that ever were. It is made of the
/// standard library's. `park` would do, too, but takes the [`unpark`](std::thread::Thread::unpark)
/// that was meant for the user's code on that thread.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// How many wait; once it is at the most, it stays there. Two bytes fit beside the lock, and
    /// each child has two bells.
    waiting: Mutex<u16>,
    rung: Condvar,
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

    /// Wakes all who wait, to be called after what they wait for has been stored. If nobody is
    /// counted as waiting, it makes no call to wake.
    pub(crate) fn ring(&self) {
        // Whoever has looked before the store, and does not wait yet, holds the lock.
        let waiting = *self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting {
            0 => {}
            // To wake all, the kernel goes through a whole bucket of waits, which those of other
            // threads share; to wake one, it stops at the first.
            1 => self.rung.notify_one(),
            _ => self.rung.notify_all(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
        time::Duration,
    };

    use super::*;

    fn waiting(bell: &Bell) -> u16 {
        *bell.waiting.lock().expect("nobody panics with it")
    }

    #[test]
    fn wait_that_is_over_is_not_counted() {
        let bell = Bell::default();
        bell.wait_until(None, || true);
        assert_eq!(waiting(&bell), 0);
        let (began, length) = (system_now(), Duration::from_millis(2));
        bell.wait_until(Some(began + length), || false);
        assert!(system_now() - began >= length);
        assert_eq!(waiting(&bell), 0);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test needs other threads")]
    fn ring_wakes_one_and_many() {
        for count in [1, 2, 5] {
            let state = Arc::new((Bell::default(), AtomicBool::new(false)));
            let threads: Vec<_> = (0..count)
                .map(|_| {
                    let its = state.clone();
                    thread::spawn(move || its.0.wait_until(None, || its.1.load(Ordering::Acquire)))
                })
                .collect();
            while waiting(&state.0) < count {
                thread::yield_now();
            }
            state.1.store(true, Ordering::Release);
            state.0.ring();
            threads.into_iter().for_each(|thread| thread.join().expect("it is woken"));
            assert_eq!(waiting(&state.0), 0);
        }
    }

    #[test]
    fn more_than_can_be_counted_stay_many() {
        let bell = Bell::default();
        *bell.waiting.lock().expect("nobody panics with it") = u16::MAX;
        bell.wait_until(None, || true);
        assert_eq!(waiting(&bell), u16::MAX);
    }
}
