//! Vocabulary of the model test: a program of children and calls, and what is seen of it.

use std::{borrow::Cow, time::Duration};

use circuit_breaker_supervisor::{ChildStatus, CircuitState, StopCause};

pub(crate) type Id = &'static str;

pub(crate) const MAX: Duration = Duration::MAX;

/// The poll's interval. The odd nanoseconds of this, of the watchdog's limit, of the time after
/// which a child is abandoned, and of the deafness, which are each child's own, keep deadlines of
/// different kinds from falling on one instant, where no documentation says which comes first.
pub(crate) const POLL: Duration = Duration::from_nanos(7_000_003_001);

// ── What is described ──

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Permanent,
    Transient,
    Once,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Delays {
    Constant(Duration),
    /// 1 s, 2 s, 4 s, 8 s, 8 s, …
    Doubling,
}

#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) id: Id,
    pub(crate) policy: Policy,
    pub(crate) delays: Delays,
    pub(crate) healthy_after: Duration,
    pub(crate) stop_timeout: Duration,
    pub(crate) max_restarts: Option<u32>,
    pub(crate) significant: bool,
    pub(crate) fresh_thread: bool,
    pub(crate) watchdog: Option<Duration>,
    pub(crate) abandon_after: Option<Duration>,
    pub(crate) failure_threshold: u32,
    pub(crate) after: Vec<Id>,
}

impl Spec {
    pub(crate) fn delay(&self, attempt: u32) -> Duration {
        match self.delays {
            Delays::Constant(delay) => delay,
            Delays::Doubling => Duration::from_secs(1 << (attempt - 1).min(3)),
        }
    }
}

/// How a run ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Completed,
    Failed,
    Panicked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Add,
    Hold,
    Release,
    Restart,
    Reset,
    Remove,
}

#[derive(Clone, Debug)]
pub(crate) enum Transition {
    Advance(Duration),
    Exit(Id, Ending),
    /// The run fails, and its error demands so long a wait.
    Demand(Id, Duration),
    MarkHealthy(Id),
    Heartbeat(Id, &'static str),
    /// The flag says yes, no, or that it cannot tell.
    Flag(Id, Option<bool>),
    Order(Id, Order),
    Add(Spec),
    PollNow,
    Shutdown,
    ReportFailure(Id),
    ReportSuccess(Id),
    FailNextSpawn(Id),
    IgnoreStopFor(Id, Duration),
}

// ── What is told ──

/// An event, with instants counted from the beginning.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) at: Duration,
    pub(crate) failures: u32,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    Started,
    Stopped { cause: StopCause, ending: Ending, uptime: Duration, retry_in: Option<Duration> },
    Healthy { forgiven: u32, failing_for: Duration, marked: bool },
    FlagChanged(bool),
    Waiting(WaitsFor),
    Overdue { stopping_for: Duration },
    Abandoned { stopping_for: Duration },
    Tripped { failures: u32 },
    Hung { doing: Cow<'static, str> },
    GaveUp,
    Ordered(Order),
}

/// For whom a child waits: the first of those before it, and the one at the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitsFor {
    pub(crate) id: Id,
    pub(crate) root: Id,
}

/// What is known of a child by who asks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) status: ChildStatus,
    pub(crate) circuit: CircuitState,
    pub(crate) failures: u32,
    pub(crate) retry_in: Option<Duration>,
    pub(crate) waits_for: Option<WaitsFor>,
    pub(crate) uptime: Option<Duration>,
    pub(crate) stopping: Option<(StopCause, Duration)>,
    pub(crate) is_overdue: bool,
    pub(crate) last_stop: Option<(StopCause, Ending, Duration)>,
}
