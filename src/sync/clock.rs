//! Clock of a supervisor: the system's, or virtual time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::sync::deadline;

/// The clock of one supervisor.
#[derive(Clone, Debug)]
pub(crate) enum Clock {
    System,
    ByHand(VirtualTime),
}

/// Time that passes only by calls of [`set`](VirtualTime::set).
#[derive(Clone, Debug)]
pub(crate) struct VirtualTime {
    origin: Instant,
    now: Arc<Mutex<Instant>>,
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
pub(crate) fn system_now() -> Instant {
    Instant::now()
}

impl Clock {
    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::System => system_now(),
            Self::ByHand(time) => time.now(),
        }
    }

    /// The deadline, on the system's clock, of a wait that begins now. On virtual time it has
    /// passed already, since virtual time does not pass while a thread waits.
    pub(crate) fn wait_deadline(&self, timeout: Duration) -> Option<Instant> {
        match self {
            Self::System => deadline::after(system_now(), timeout),
            Self::ByHand(time) => Some(time.origin),
        }
    }
}

impl VirtualTime {
    pub(crate) fn new() -> Self {
        let origin = system_now();
        Self { origin, now: Arc::new(Mutex::new(origin)) }
    }

    pub(crate) fn origin(&self) -> Instant {
        self.origin
    }

    pub(crate) fn now(&self) -> Instant {
        *self.now.lock()
    }

    pub(crate) fn set(&self, now: Instant) {
        *self.now.lock() = now;
    }
}
