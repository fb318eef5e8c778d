//! Lock-based 64-bit atomic, for machines without native ones.

use std::sync::atomic::Ordering;

use parking_lot::Mutex;

/// Offers those methods of the native type that this crate uses. It ignores orderings: the lock
/// gives the accesses of one number the strongest order that they could ask for. `fetch_update`
/// calls its closure once, under the lock, so the closure must not access the same number.
#[derive(Debug, Default)]
pub(crate) struct AtomicU64(Mutex<u64>);

impl AtomicU64 {
    pub(crate) const fn new(number: u64) -> Self {
        Self(Mutex::new(number))
    }

    pub(crate) fn load(&self, _order: Ordering) -> u64 {
        *self.0.lock()
    }

    pub(crate) fn store(&self, number: u64, _order: Ordering) {
        *self.0.lock() = number;
    }

    pub(crate) fn swap(&self, number: u64, _order: Ordering) -> u64 {
        std::mem::replace(&mut *self.0.lock(), number)
    }

    /// Wraps around on overflow, as the native type does.
    pub(crate) fn fetch_add(&self, number: u64, _order: Ordering) -> u64 {
        let mut sum = self.0.lock();
        let before = *sum;
        *sum = before.wrapping_add(number);
        before
    }

    /// Wraps around on overflow, as the native type does.
    pub(crate) fn fetch_sub(&self, number: u64, order: Ordering) -> u64 {
        self.fetch_add(number.wrapping_neg(), order)
    }

    pub(crate) fn fetch_update(
        &self,
        _set_order: Ordering,
        _fetch_order: Ordering,
        mut f: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        let mut number = self.0.lock();
        let before = *number;
        match f(before) {
            Some(after) => {
                *number = after;
                Ok(before)
            }
            None => Err(before),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::Ordering::Relaxed, thread};

    use super::*;

    static NUMBER: AtomicU64 = AtomicU64::new(u64::MAX);

    #[test]
    fn each_operation_answers_as_the_real_one() {
        assert_eq!(NUMBER.load(Relaxed), u64::MAX);
        assert_eq!(NUMBER.fetch_add(2, Relaxed), u64::MAX);
        assert_eq!(NUMBER.swap(7, Relaxed), 1);
        assert_eq!(NUMBER.fetch_update(Relaxed, Relaxed, |number| Some(number * 3)), Ok(7));
        assert_eq!(NUMBER.fetch_update(Relaxed, Relaxed, |_| None), Err(21));
        assert_eq!(NUMBER.load(Relaxed), 21);
        NUMBER.store(4, Relaxed);
        assert_eq!(NUMBER.fetch_sub(5, Relaxed), 4);
        assert_eq!(NUMBER.load(Relaxed), u64::MAX, "it wraps around");
        assert_eq!(AtomicU64::default().load(Relaxed), 0);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        const THREADS: u64 = 4;
        const ROUNDS: u64 = 10_000;
        let (added, updated) = (AtomicU64::default(), AtomicU64::default());
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        added.fetch_add(1, Relaxed);
                        updated
                            .fetch_update(Relaxed, Relaxed, |number| number.checked_add(1))
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(
            (added.load(Relaxed), updated.load(Relaxed)),
            (THREADS * ROUNDS, THREADS * ROUNDS)
        );
    }
}
