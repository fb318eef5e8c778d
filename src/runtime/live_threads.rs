//! Live threads of one child: how many, and how long a shutdown waits for them.

use std::{sync::Arc, time::Duration};

use crate::sync::primitives::{Mutex, atomic::AtomicU64};

/// The live threads of one child.
pub(crate) struct LiveThreads {
    pub(crate) count: AtomicU64,
    pub(crate) stop_timeout: Duration,
    /// How long after the begin of a shutdown the child was asked to stop, or ended; `None` while
    /// the shutdown has it wait for others.
    asked_after: Mutex<Option<Duration>>,
}

impl LiveThreads {
    pub(crate) fn new(stop_timeout: Duration) -> Arc<Self> {
        let asked_after = Mutex::new(Some(Duration::ZERO));
        Arc::new(Self { count: AtomicU64::new(0), stop_timeout, asked_after })
    }

    pub(crate) fn asked_after(&self) -> Option<Duration> {
        *self.asked_after.lock()
    }

    pub(crate) fn set_asked_after(&self, asked_after: Option<Duration>) {
        *self.asked_after.lock() = asked_after;
    }

    /// How long a shutdown waits for the threads, from when it began.
    pub(crate) fn patience(&self) -> Duration {
        let asked_after = self.asked_after().unwrap_or(Duration::MAX);
        asked_after.saturating_add(self.stop_timeout)
    }
}
