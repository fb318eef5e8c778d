//! The messages to the supervisor thread.
//!
//! All of them go through one channel, so that the supervisor thread sees what another thread did
//! in the order in which it was done. The channel is unbounded, and a sender never waits; so the
//! number of messages needs a bound of its own. Each kind is sent at most once for each run, child
//! or thread, or is not sent again before the supervisor thread has received the last one, whatever
//! bodies, callers and operators do in a loop.

use std::{sync::Arc, time::Instant};

use crate::{
    child::ChildSpec,
    core::key::Key,
    event::Callback,
    exit::Exit,
    runtime::row::Row,
    sync::{panic::Panic, unwind::Drops},
};

#[derive(Debug)]
pub(crate) enum Message {
    /// A run has ended: the body is back in its slot, or dropped.
    RunEnded(RunEnd),
    /// The body called [`mark_healthy`](crate::ChildContext::mark_healthy), for the first time in
    /// this run.
    MarkedHealthy {
        key: Key,
        run: u64,
    },
    /// The failures that callers reported have tripped the breaker of a run.
    Trip {
        key: Key,
        run: u64,
        failures: u32,
        last: Arc<str>,
    },
    /// The first heartbeat of a run with a watchdog, which watches from now on.
    FirstHeartbeat {
        key: Key,
        run: u64,
    },
    /// A callback panicked on another thread. A run sends this once for its stop callbacks, and a
    /// thread once for what it drops as it leaves.
    CallbackPanicked {
        key: Key,
        /// The run for which the callback was called. It may have ended since.
        run: u64,
        callback: Callback,
        panic: Panic,
    },
    /// A callback was set after the stop request and is to be called again, and no thread calls
    /// such callbacks. Not sent again for a run before it is received.
    CallBack {
        key: Key,
    },
    /// In a shutdown, the last thread with the longest stop timeout has exited. This only wakes
    /// the supervisor thread, which then looks again how long it has to wait.
    ThreadGone,
    /// A caller wants all flags to be asked. Not sent again before it is received.
    PollNow,
    Add {
        row: Arc<Row>,
        spec: Box<ChildSpec>,
    },
    /// The child has a pending order: there is one such message for each.
    Order {
        key: Key,
    },
    /// The time of the outer child is about to be over: those are asked to stop that the shutdown
    /// has wait for others. Sent once.
    StopPostponed,
    /// A shutdown was requested, or its limit made shorter. Not sent again before it is received.
    Shutdown,
}

/// The end of one run.
#[derive(Debug)]
pub(crate) struct RunEnd {
    pub(crate) key: Key,
    pub(crate) run: u64,
    pub(crate) exit: Exit,
    /// When the body returned or panicked, was found to be missing, or could not be started any
    /// more.
    pub(crate) at: Instant,
    /// The panic of the error's `Display` or `source`.
    pub(crate) display_panic: Option<Panic>,
    /// The result of the drops of user values on the child's thread, if there were any: an earlier
    /// error, a panic's payload, stop callbacks that were not called, the body.
    pub(crate) drops: Drops,
    /// At least one stop callback was called, and none of them panicked.
    pub(crate) callbacks_succeeded: bool,
}

impl RunEnd {
    /// The end of a run whose body was not called: each run that was started needs an end.
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
