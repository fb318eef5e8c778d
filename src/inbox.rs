//! What reaches the supervisor thread, all of it through one channel, so that what one thread did in an order is seen in it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    child::ChildSpec,
    event::Callback,
    exit::{Exit, Panic},
    key::Key,
};

/// Tells one thread of a supervisor from all others that it ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ThreadNumber(pub(crate) u64);

#[derive(Debug)]
pub(crate) enum Message {
    /// A run is over: its body has returned and its state is put away.
    Exit(RunEnd),
    MarkedHealthy {
        key: Key,
        run: u64,
    },
    /// Callers have tripped a run.
    Trip {
        key: Key,
        run: u64,
        failures: u32,
        last: Arc<str>,
    },
    /// The first heartbeat of a run that is to be watched.
    FirstHeartbeat {
        key: Key,
        run: u64,
    },
    /// A callback was called on another thread.
    Called {
        key: Key,
        /// The run that it was called for, which may have ended since.
        run: u64,
        callback: Callback,
        panic: Option<Panic>,
    },
    /// In a shutdown: the threads are gone that might have taken the longest.
    ThreadGone,
    CheckNow,
    Add {
        key: Key,
        spec: Box<ChildSpec>,
    },
    Order {
        key: Key,
        order: Order,
    },
    /// Shut down; each child has its own stop timeout, but at most `limit`.
    Shutdown {
        limit: Duration,
    },
}

/// The end of one run.
#[derive(Debug)]
pub(crate) struct RunEnd {
    pub(crate) key: Key,
    pub(crate) run: u64,
    pub(crate) exit: Exit,
    /// When the body had ended.
    pub(crate) at: Instant,
    /// The error's `Display` panicked.
    pub(crate) display_panic: Option<Panic>,
    /// A payload, a left-behind callback or the body panicked as it was dropped.
    pub(crate) drop_panic: Option<Panic>,
}

/// What an operator wants of one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Hold,
    Release,
    Remove,
    Restart,
    Reset,
}
