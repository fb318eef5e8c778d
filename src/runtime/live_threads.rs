//! Live threads of children: how many, and how long a shutdown waits for them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use crate::sync::primitives::atomic::{AtomicU64, Ordering};

/// The live threads of one child. Its fields change through [`LiveCounts`] alone, under the lock of
/// the registry.
pub(crate) struct LiveThreads {
    count: AtomicU64,
    stop_timeout: Duration,
    /// How long after the begin of a shutdown the child was asked to stop, or ended, in
    /// nanoseconds; `POSTPONED` while the shutdown has it wait for others.
    asked_after: AtomicU64,
}

const POSTPONED: u64 = u64::MAX;

impl LiveThreads {
    pub(crate) fn new(stop_timeout: Duration) -> Arc<Self> {
        let (count, asked_after) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { count, stop_timeout, asked_after })
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How long after the begin of a shutdown the child was asked to stop; `None` if it was not
    /// yet.
    pub(crate) fn asked_after(&self) -> Option<Duration> {
        let nanos = self.asked_after.load(Ordering::Relaxed);
        (nanos != POSTPONED).then(|| Duration::from_nanos(nanos))
    }

    fn set_asked_after(&self, asked_after: Option<Duration>) {
        let nanos = asked_after
            .map_or(POSTPONED, |after| u64::try_from(after.as_nanos()).unwrap_or(POSTPONED - 1));
        self.asked_after.store(nanos, Ordering::Relaxed);
    }

    /// How long a shutdown waits for the threads, from when it began.
    fn patience(&self) -> Duration {
        let asked_after = self.asked_after().unwrap_or(Duration::MAX);
        asked_after.saturating_add(self.stop_timeout)
    }
}

/// The number of live threads of all children, by how long a shutdown waits for them.
#[derive(Default)]
pub(crate) struct LiveCounts(BTreeMap<Duration, u64>);

impl LiveCounts {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How long a shutdown waits for those for which it waits longest.
    pub(crate) fn longest_patience(&self) -> Option<Duration> {
        self.0.last_key_value().map(|(patience, _)| *patience)
    }

    /// Counts one more thread of a child.
    pub(crate) fn add(&mut self, child: &LiveThreads) {
        child.count.fetch_add(1, Ordering::Relaxed);
        self.enter(child.patience(), 1);
    }

    /// Counts one thread of a child less.
    pub(crate) fn remove(&mut self, child: &LiveThreads) {
        child.count.fetch_sub(1, Ordering::Relaxed);
        self.leave(child.patience(), 1);
    }

    /// Sets how long after the begin of the shutdown a child was asked to stop; `None` if it was
    /// not yet.
    pub(crate) fn set_asked_after(&mut self, child: &LiveThreads, asked_after: Option<Duration>) {
        self.leave(child.patience(), child.count());
        child.set_asked_after(asked_after);
        self.enter(child.patience(), child.count());
    }

    fn enter(&mut self, patience: Duration, count: u64) {
        if count > 0 {
            *self.0.entry(patience).or_default() += count;
        }
    }

    fn leave(&mut self, patience: Duration, count: u64) {
        match self.0.entry(patience) {
            Entry::Occupied(mut counted) => {
                *counted.get_mut() -= count;
                if *counted.get() == 0 {
                    counted.remove();
                }
            }
            Entry::Vacant(_) => debug_assert_eq!(count, 0, "threads that leave were counted"),
        }
    }
}
