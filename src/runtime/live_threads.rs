//! Live threads of one child: how many, and how long a shutdown waits for them.

use std::{sync::Arc, time::Duration};

use crate::sync::primitives::atomic::{AtomicU64, Ordering};

/// The live threads of one child. All of it changes under the lock of the registry.
pub(crate) struct LiveThreads {
    pub(crate) count: AtomicU64,
    pub(crate) stop_timeout: Duration,
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

    /// How long after the begin of a shutdown the child was asked to stop; `None` if it was not
    /// yet.
    pub(crate) fn asked_after(&self) -> Option<Duration> {
        let nanos = self.asked_after.load(Ordering::Relaxed);
        (nanos != POSTPONED).then(|| Duration::from_nanos(nanos))
    }

    pub(crate) fn set_asked_after(&self, asked_after: Option<Duration>) {
        let nanos = asked_after
            .map_or(POSTPONED, |after| u64::try_from(after.as_nanos()).unwrap_or(POSTPONED - 1));
        self.asked_after.store(nanos, Ordering::Relaxed);
    }

    /// How long a shutdown waits for the threads, from when it began.
    pub(crate) fn patience(&self) -> Duration {
        let asked_after = self.asked_after().unwrap_or(Duration::MAX);
        asked_after.saturating_add(self.stop_timeout)
    }
}
