//! Live threads of one child: how many, and how long a shutdown waits for them.

use std::{sync::Arc, time::Duration};

use crate::sync::primitives::{Mutex, atomic::AtomicU64};

/// The live threads of one child.
pub(crate) struct LiveThreads {
    pub(crate) count: AtomicU64,
    /// How long a shutdown waits for them from when it began. `Duration::MAX` while the child was
    /// not asked to stop yet, since others have to end first.
    pub(crate) patience: Mutex<Duration>,
}

impl LiveThreads {
    pub(crate) fn new(stop_timeout: Duration) -> Arc<Self> {
        Arc::new(Self { count: AtomicU64::new(0), patience: Mutex::new(stop_timeout) })
    }
}
