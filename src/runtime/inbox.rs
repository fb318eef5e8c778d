//! Messages to the supervisor thread.
//!
//! All of them go through one channel, so that what one thread did in an order is seen in that
//! order. The channel has no bound, and a sender never waits; so nothing may be sent without bound.
//! Each kind of message is sent at most once for each run, child or thread, or is not sent again
//! while one is under way, whatever bodies, callers and operators do in a loop.

use std::{sync::Arc, time::Instant};

use crate::{
    child::ChildSpec,
    core::key::Key,
    event::Callback,
    exit::Exit,
    sync::{panic::Panic, unwind::Drops},
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
    /// A callback panicked on another thread. A run sends this once for its stop callbacks, and a
    /// thread once for what it drops as it leaves.
    CallbackPanicked {
        key: Key,
        /// The run that it was called for, which may have ended since.
        run: u64,
        callback: Callback,
        panic: Panic,
    },
    /// In a shutdown: the threads are gone that might have taken the longest.
    ThreadGone,
    /// All flags are to be asked. It is not sent again before it is taken up.
    CheckNow,
    Add {
        key: Key,
        spec: Box<ChildSpec>,
    },
    /// The child's next pending order is to be carried out: there is one such message for each.
    Order {
        key: Key,
    },
    /// A shutdown was asked for, with a limit that is shorter than the one before. It is not sent
    /// again before it is taken up.
    Shutdown,
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
    /// How the drops of the user's values went on the child's thread, if there were any: of the
    /// error before the last, a payload, callbacks that were left behind, the body.
    pub(crate) drops: Drops,
    /// Stop callbacks were called, and none of them panicked.
    pub(crate) callbacks_succeeded: bool,
}

impl RunEnd {
    /// The end of a run whose body was not called, for no run may be without an end.
    pub(crate) fn of_no_run(key: Key, run: u64, at: Instant) -> Self {
        Self {
            key,
            run,
            exit: Exit::Completed,
            at,
            display_panic: None,
            drops: Drops::default(),
            callbacks_succeeded: false,
        }
    }
}
