//! Interface of the core: what it asks of its environment, and the actions it has it perform.

use std::time::{Duration, Instant};

use crate::{
    core::{circuit::View, key::Key, run::Heartbeats},
    event::{EventKind, LastStop, StopCause, WaitingFor},
    exit::{Exit, Failure},
    id::ChildId,
    sync::panic::Panic,
    thread_info::ThreadInfo,
};

/// What the core asks of its environment. Every method is total: it answers whatever user code
/// does.
pub(crate) trait Environment {
    /// What the environment keeps for each child, in the core's table.
    type Entry;

    fn now(&self) -> Instant;
    /// Asks the child's flag; `None` keeps the last answer.
    fn is_enabled(&mut self, key: Key, id: &str) -> Answer<Option<bool>>;
    /// Asks how long the child stays down after a failure that raised the failure count to
    /// `attempt`.
    fn backoff(&mut self, key: Key, entry: &mut Self::Entry, attempt: u32) -> Answer<Duration>;
    /// Reads the number of heartbeats of the present run, and the text of the last.
    fn heartbeats(&mut self, entry: &Self::Entry) -> Heartbeats;
    /// Looks at what this run is doing, which is silent or does not stop.
    fn look_at(&mut self, entry: &Self::Entry, run: u64) -> Sight;
    /// Has the outermost supervisor shut down because this run does not stop. Returns `false` if it
    /// shuts down already, or if the run has ended, and the message of its end is on the way.
    fn abandon(
        &mut self,
        entry: &Self::Entry,
        run: u64,
        stopping_for: Duration,
        sight: Sight,
    ) -> bool;
    /// Describes for whom a child waits that comes after others, and why.
    fn waiting_for(&mut self, entry: &Self::Entry) -> WaitingFor;
    /// Makes sure that the child has a thread, unless an order or a shutdown forbids its start.
    fn provide_thread(&mut self, entry: &mut Self::Entry) -> Result<(), NotProvided>;
    /// Publishes the new run, unless an order or a shutdown forbids it. Check and publication are
    /// one atomic step, so that no run begins after that was requested.
    fn publish_begin(&mut self, entry: &Self::Entry, view: View) -> Result<(), StartDenied>;
}

/// What a run is doing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight {
    /// By its last heartbeat.
    pub(crate) doing: Option<&'static str>,
    /// By its thread, as far as that is known.
    pub(crate) thread: Option<ThreadInfo>,
}

/// An answer of user code. After a panic, `value` is the answer that replaces it.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) panic: Option<Panic>,
}

/// Why there is no thread for a start.
#[derive(Debug)]
pub(crate) enum NotProvided {
    /// No thread is needed: the start is forbidden.
    Denied(StartDenied),
    /// No thread could be spawned.
    Failed(Failure),
}

/// An order or a shutdown, requested while a start was being prepared, forbids the start. Its
/// message is on the way to the core, which acts on it when it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartDenied;

/// The result of one step of the core.
#[derive(Debug)]
pub(crate) enum Progress<'a, T> {
    /// The environment has to do this for a child. It performs actions in the order in which it
    /// receives them.
    Perform(Key, &'a mut T, Action),
    /// The child has left the table: the environment drops what it keeps for it.
    Forgotten(Key, T),
    Again,
    /// There is nothing to do before the next message or deadline.
    Settled,
}

/// What the environment has to do for one child.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) enum Action {
    /// Show this to other threads. `stopped` is set if a run has just ended.
    Publish {
        view: View,
        stopped: Option<LastStop>,
    },
    Report(Report),
    /// Send the start signal of a run, after the report that it has started.
    SendStart {
        run: u64,
        failures: u32,
    },
    /// Request the present run to stop.
    Stop,
    /// Mark the present run as the final one: the body may be dropped when it ends. In a shutdown
    /// its thread then leaves.
    MakeFinal {
        is_closing: bool,
    },
    /// End the thread that waits for the next run. Drop the body too, unless an operator may start
    /// the child again.
    Retire {
        keep_body: bool,
    },
    /// Shut the supervisor down, because a significant child was given up.
    ShutDown {
        id: ChildId,
        cause: StopCause,
        exit: Exit,
    },
}

/// An event without its sequence number, which the environment assigns when it records the event.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Report {
    pub(crate) id: ChildId,
    pub(crate) run: u64,
    pub(crate) failures: u32,
    pub(crate) kind: EventKind,
}
