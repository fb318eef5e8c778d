//! Events: what happens to children, as telemetry sees it, with its causes and orders.

mod fields;
mod waiting_for;

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use self::waiting_for::Wellness;
pub use self::{fields::FieldValue, waiting_for::WaitingFor};
use crate::{
    exit::Exit,
    id::ChildId,
    sync::{one_line::OneLine, panic::Panic},
    thread_info::{ThreadInfo, Whereabouts},
    verdict::Advice,
    wording::{Failures, GotNoThread, Ran, Retry, Span},
};

/// Event: one thing that happened to a child, as every [`TelemetrySink`](crate::TelemetrySink)
/// receives it.
///
/// All events of one supervisor are totally ordered by [`seq`](Event::seq) and recorded in that
/// order. `Started` is recorded before the first instruction of the body, `Stopped` after its last.
/// Code that has received an event and queries a [`Handle`](crate::Handle) sees at least what the
/// event says.
///
/// Its `Display` is the one sentence that [`LogSink`](crate::LogSink) logs.
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::{ChildSpec, EventKind, Supervisor};
///
/// let supervisor = Supervisor::builder()
///     .on_event(|event| match &event.kind {
///         EventKind::Stopped { exit, retry_in: Some(delay), .. } => {
///             eprintln!("{}: {exit}; down for {delay:?}", event.id)
///         }
///         EventKind::Hung { .. } | EventKind::Abandoned { .. } | EventKind::GaveUp => {
///             eprintln!("look at this: {event}")
///         }
///         _ => {}
///     })
///     .child(ChildSpec::new("orders", |ctx| ctx.wait_until_stopped()))
///     .start()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The name of the [supervisor](crate::SupervisorBuilder::name).
    pub supervisor: Arc<str>,
    /// The event's number among those of its supervisor, counted from 0, without a gap.
    pub seq: u64,
    /// The child.
    pub id: ChildId,
    /// The run that this is about: the number of its start, counted from 1 for each child. A start
    /// for which no thread could be spawned counts, too. 0 if the child has not been started yet. A
    /// child that is removed and added again begins anew.
    pub run: u64,
    /// The failures since the child was last healthy. A `Stopped` that is a failure, by its
    /// `failed`, does not count itself yet: a metric of failures adds one to it, or takes the count
    /// of what follows, the next `Started` or `GaveUp`, which does count it. `Healthy`, and an
    /// order that forgives failures, have 0. In the `Stopped` of a run that marked itself healthy
    /// too soon, it is the count from before that.
    #[doc(alias = "attempt_count")]
    pub failures: u32,
    /// When the sinks received it, on the monotonic clock: later than what happened if another
    /// callback was slow.
    pub at: Instant,
    /// What happened.
    pub kind: EventKind,
}

impl Event {
    /// Returns the stable dotted name of this kind of event, for filters and metrics.
    ///
    /// | kind | name |
    /// | --- | --- |
    /// | `Started` | `circuit_breaker_supervisor.child.start` |
    /// | `Stopped` | `circuit_breaker_supervisor.child.stop` |
    /// | `Healthy` | `circuit_breaker_supervisor.child.healthy` |
    /// | `FlagChanged` | `circuit_breaker_supervisor.child.flag` |
    /// | `Waiting` | `circuit_breaker_supervisor.child.waiting` |
    /// | `Overdue` | `circuit_breaker_supervisor.child.overdue` |
    /// | `Abandoned` | `circuit_breaker_supervisor.child.abandoned` |
    /// | `Tripped` | `circuit_breaker_supervisor.child.tripped` |
    /// | `Hung` | `circuit_breaker_supervisor.child.hung` |
    /// | `GaveUp` | `circuit_breaker_supervisor.child.gave_up` |
    /// | `Ordered` | `circuit_breaker_supervisor.child.order` |
    /// | `CallbackPanicked` | `circuit_breaker_supervisor.callback.panic` |
    pub fn name(&self) -> &'static str {
        match self.kind {
            EventKind::Started => "circuit_breaker_supervisor.child.start",
            EventKind::Stopped { .. } => "circuit_breaker_supervisor.child.stop",
            EventKind::Healthy { .. } => "circuit_breaker_supervisor.child.healthy",
            EventKind::FlagChanged { .. } => "circuit_breaker_supervisor.child.flag",
            EventKind::Waiting { .. } => "circuit_breaker_supervisor.child.waiting",
            EventKind::Overdue { .. } => "circuit_breaker_supervisor.child.overdue",
            EventKind::Abandoned { .. } => "circuit_breaker_supervisor.child.abandoned",
            EventKind::Tripped { .. } => "circuit_breaker_supervisor.child.tripped",
            EventKind::Hung { .. } => "circuit_breaker_supervisor.child.hung",
            EventKind::GaveUp => "circuit_breaker_supervisor.child.gave_up",
            EventKind::Ordered { .. } => "circuit_breaker_supervisor.child.order",
            EventKind::CallbackPanicked { .. } => "circuit_breaker_supervisor.callback.panic",
        }
    }
}

/// The kinds of events.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// A run starts.
    Started,
    /// A run has ended. Exactly one follows each `Started`, unless the run outlives the supervisor,
    /// which the [`ShutdownReport`](crate::ShutdownReport) shows. A child for which no thread could
    /// be spawned reports it without a `Started`.
    #[non_exhaustive]
    Stopped {
        /// Why it ended.
        cause: StopCause,
        /// How the body ended.
        exit: Exit,
        /// How long it ran, from when the sinks had received `Started` until the body had ended.
        uptime: Duration,
        /// Whether it counts as a failure: then the child is tried again after its backoff, or
        /// given up. The end of a run that was asked to stop is no failure, except after a trip or
        /// a hang; nor is any end of a run of a [`once`](crate::ChildSpec::once) child.
        failed: bool,
        /// After a failure, the backoff: the time from its end until it is tried again. `None` if
        /// this was no failure, or it is not tried again. The very long delay that a backoff may
        /// give means "not before it is reset by hand".
        retry_in: Option<Duration>,
    },
    /// The child has been up for `healthy_after`, or has marked itself healthy: its failures are
    /// forgiven.
    #[non_exhaustive]
    Healthy {
        /// The failures that are forgiven; 0 if there were none.
        forgiven: u32,
        /// How long ago the first of those failures was: since that run ended by itself, or was
        /// asked to stop after a trip or a hang. Zero if there were none.
        failing_for: Duration,
        /// Whether the child [said so](crate::ChildContext::mark_healthy). Otherwise it has been up
        /// for its `healthy_after`.
        marked: bool,
    },
    /// The child's flag has changed. A flag counts as on before its first answer.
    #[non_exhaustive]
    FlagChanged {
        /// The flag's answer.
        enabled: bool,
    },
    /// The child is to be started, and waits for one that it comes
    /// [after](crate::ChildSpec::after). Reported at most once between two runs.
    #[non_exhaustive]
    Waiting {
        /// For whom it waits, and why.
        waiting_for: WaitingFor,
    },
    /// The child has not stopped within its `stop_timeout`. Reported once per run.
    #[non_exhaustive]
    Overdue {
        /// How long ago it was asked to stop.
        stopping_for: Duration,
        /// What it was doing, by its last [heartbeat](crate::ChildContext::heartbeat).
        doing: Option<Cow<'static, str>>,
        /// What its thread is doing, as far as that is known.
        thread: Option<ThreadInfo>,
    },
    /// The child has not stopped within its [`abandon_after`](crate::ChildSpec::abandon_after):
    /// since only the end of the process helps, the outermost supervisor shuts down. Not reported
    /// if that shuts down already.
    #[non_exhaustive]
    Abandoned {
        /// How long ago it was asked to stop.
        stopping_for: Duration,
        /// What it was doing, by its last [heartbeat](crate::ChildContext::heartbeat).
        doing: Option<Cow<'static, str>>,
        /// What its thread is doing, as far as that is known.
        thread: Option<ThreadInfo>,
    },
    /// Callers have [reported](crate::Breaker) so many failures that the child's breaker has
    /// tripped: the child is asked to stop.
    #[non_exhaustive]
    Tripped {
        /// How many failures in a row were reported.
        failures: u32,
        /// The text of the last failure.
        last: Arc<str>,
    },
    /// The child has a [watchdog](crate::ChildSpec::watchdog) and has been silent for too long: it
    /// is asked to stop.
    #[non_exhaustive]
    Hung {
        /// What it was doing, by its last [heartbeat](crate::ChildContext::heartbeat).
        doing: Cow<'static, str>,
        /// For how long the supervisor has seen it silent, without the time by which the supervisor
        /// was late.
        silent_for: Duration,
        /// What its thread is doing, as far as that is known.
        thread: Option<ThreadInfo>,
    },
    /// The child has used up its [`max_restarts`](crate::ChildSpec::max_restarts), or has
    /// [said](crate::Verdict::give_up) that trying again is useless. It stays down until it is
    /// reset by hand.
    GaveUp,
    /// An order that was given through a [`Handle`](crate::Handle) was carried out. Each order is
    /// reported once, even if it changed nothing: this is the audit trail. [`run`](Event::run) is
    /// the child's present or last one. The children of the builder have no `Add`. An order that
    /// repeats one that is still pending is one with it. Not reported are an order to a child that
    /// is gone by then, and orders that the end of the supervisor overtakes.
    #[non_exhaustive]
    Ordered {
        /// The order.
        order: Order,
    },
    /// User code panicked outside of a body. Reported once per callback and child, until that
    /// callback succeeds again.
    #[non_exhaustive]
    CallbackPanicked {
        /// Which user code it was.
        callback: Callback,
        /// The panic.
        panic: Panic,
    },
}

/// Order of an operator to one child: the method of [`Handle`](crate::Handle) that has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// The child is added to the list, and started if its flag is on.
    Add,
    /// The child is stopped and kept down.
    Hold,
    /// The child is no longer held.
    Release,
    /// The child's failures are forgiven.
    Reset,
    /// The child is stopped and started again, and its failures are forgiven.
    Restart,
    /// The child is stopped, and removed from the list.
    Remove,
}

impl Order {
    /// Whether this order replaces that one, which is still pending.
    pub(crate) fn replaces(self, pending: Self) -> bool {
        let is_switch = |order| matches!(order, Self::Hold | Self::Release);
        self == pending || is_switch(self) && is_switch(pending)
    }
}

impl Order {
    /// The stable word for it.
    fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Reset => "reset",
            Self::Restart => "restart",
            Self::Remove => "remove",
        }
    }
}

/// Shows the stable word that the `order` key of a log line carries: `add`, `hold`, and so on.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Cause of the end of a run: the first reason to stop it, or that it ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopCause {
    /// There was no stop request: the body returned or panicked by itself. A failure, except `Ok`
    /// from a transient child and any end of a [`once`](crate::ChildSpec::once) child.
    Exited,
    /// Its flag was off.
    Disabled,
    /// It was held by an operator, with [`Handle::hold`](crate::Handle::hold).
    Held,
    /// It was restarted by hand, with [`Handle::restart`](crate::Handle::restart).
    Restarted,
    /// It was removed, with [`Handle::remove`](crate::Handle::remove).
    Removed,
    /// Its callers [reported](crate::Breaker::report_failure) too many failures. A failure however
    /// it ended, unless it was restarted by hand or removed meanwhile, its supervisor shuts down,
    /// or it runs only once.
    Tripped,
    /// It had been silent for longer than its [watchdog](crate::ChildSpec::watchdog) allows. A
    /// failure however it ended, as after `Tripped`.
    Hung,
    /// The supervisor shuts down.
    Shutdown,
    /// It never ran: no thread could be spawned for it. A failure, after which it stays down for at
    /// least 100 ms whatever its backoff says.
    NotSpawned,
}

/// The kinds of stop causes. Whatever depends on a cause beyond its words depends on its kind, so
/// that a new cause is placed by [`StopCause::kind`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopKind {
    /// The run ended by itself.
    ByItself,
    /// There was no run: no thread could be spawned.
    NotSpawned,
    /// The run was asked to stop for a fault of its own, which is a failure.
    Fault,
    /// The run was asked to stop for another reason, which is no failure.
    Asked,
}

impl StopCause {
    pub(crate) fn kind(self) -> StopKind {
        match self {
            Self::Exited => StopKind::ByItself,
            Self::NotSpawned => StopKind::NotSpawned,
            Self::Tripped | Self::Hung => StopKind::Fault,
            Self::Disabled | Self::Held | Self::Restarted | Self::Removed | Self::Shutdown => {
                StopKind::Asked
            }
        }
    }

    /// What the body's error says is to follow. That counts only if the run ended by itself.
    pub(crate) fn advice(self, exit: &Exit) -> Option<Advice> {
        exit.advice().filter(|_| self.kind() == StopKind::ByItself)
    }

    /// Whether the run was asked to stop.
    pub(crate) fn is_request(self) -> bool {
        match self.kind() {
            StopKind::Fault | StopKind::Asked => true,
            StopKind::ByItself | StopKind::NotSpawned => false,
        }
    }

    /// The reason, as the end of a sentence.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Exited => "it ended by itself",
            Self::Disabled => "its flag is off",
            Self::Held => "it is held by the operator",
            Self::Restarted => "it is restarted by hand",
            Self::Removed => "it is removed",
            Self::Tripped => "its callers reported failures",
            Self::Hung => "it was silent for too long",
            Self::Shutdown => "its supervisor shuts down",
            Self::NotSpawned => "there was no thread for it",
        }
    }
}

impl StopCause {
    /// The stable word for it.
    fn name(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Disabled => "disabled",
            Self::Held => "held",
            Self::Restarted => "restarted",
            Self::Removed => "removed",
            Self::Tripped => "tripped",
            Self::Hung => "hung",
            Self::Shutdown => "shutdown",
            Self::NotSpawned => "not_spawned",
        }
    }
}

/// Shows the stable word that the `cause` key of a log line carries: `exited`, `disabled`, and so
/// on.
impl fmt::Display for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// End of a child's last run, as [`ChildInfo`](crate::ChildInfo) shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LastStop {
    /// Why it ended.
    pub cause: StopCause,
    /// How the body ended.
    pub exit: Exit,
    /// How long it had run.
    pub uptime: Duration,
    /// Whether it counted as a failure: then the child was to be tried again, or given up. The end
    /// of a run that was asked to stop is no failure, except after a trip or a hang; nor is any end
    /// of a run of a [`once`](crate::ChildSpec::once) child.
    pub failed: bool,
}

impl LastStop {
    /// Whether it holds a user's error, whose `Drop` is user code.
    pub(crate) fn holds_error(&self) -> bool {
        matches!(self.exit, Exit::Failed(_)) && self.cause.kind() != StopKind::NotSpawned
    }
}

/// User code that runs outside of the bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Callback {
    /// The flag closure, [`SupervisorBuilder::enabled`](crate::SupervisorBuilder::enabled).
    Enabled,
    /// A backoff closure, [`Backoff::from_fn`](crate::Backoff::from_fn).
    Backoff,
    /// An [`on_stop`](crate::ChildContext::on_stop) callback.
    OnStop,
    /// The `Display` or the `source` of the error that a body returned, or of one of its sources.
    Display,
    /// The `Drop` of a body, a backoff closure, an error, a panic's payload or a stop callback. An
    /// error that is no longer the last one is dropped when the next run ends. A panic after the
    /// child has left the list is logged and not reported.
    Drop,
    /// A telemetry sink. Its panics are logged and not reported, since reports go to the sinks.
    Sink,
    /// The supervisor's own [pulse](crate::SupervisorBuilder::pulse). Its panics are logged and not
    /// reported, since it is no child's.
    Pulse,
}

impl Callback {
    /// The stable word for it.
    fn name(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Backoff => "backoff",
            Self::OnStop => "on_stop",
            Self::Display => "display",
            Self::Drop => "drop",
            Self::Sink => "sink",
            Self::Pulse => "pulse",
        }
    }
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, run, failures, kind, .. } = self;
        match kind {
            EventKind::Started if *failures == 0 => {
                write!(f, "child `{id}` started (run {run})")
            }
            EventKind::Started => {
                write!(f, "child `{id}` started again (run {run}, after {})", Failures(*failures))
            }
            EventKind::Stopped { cause, exit, uptime, failed, retry_in } => {
                match cause {
                    // A transient or one-shot child that has done its job.
                    StopCause::Exited if exit.is_completed() && !failed => {
                        write!(f, "child `{id}` finished after {}", Span(*uptime))?;
                    }
                    StopCause::Exited => write!(f, "child `{id}` {}", Ran(exit, *uptime))?,
                    StopCause::NotSpawned => {
                        write!(f, "child `{id}` {}", GotNoThread(exit))?;
                    }
                    asked => write!(
                        f,
                        "child `{id}` stopped after {}: {}",
                        Span(*uptime),
                        asked.reason()
                    )?,
                }
                if cause.is_request() && !exit.obeys_stop() {
                    write!(f, " (it {exit})")?;
                }
                let advice = cause.advice(exit);
                match retry_in {
                    Some(delay) => write!(f, "; tried again {}", Retry(advice, *delay)),
                    None if *failed && advice == Some(Advice::GiveUp) => {
                        f.write_str("; trying again is useless, says the error")
                    }
                    None => Ok(()),
                }
            }
            EventKind::Tripped { failures, last } => {
                let failures = Failures(*failures);
                write!(
                    f,
                    "child `{id}` is asked to stop: its callers reported {failures}, the last: {}",
                    OneLine(last)
                )
            }
            EventKind::Hung { doing, silent_for, thread } => {
                write!(
                    f,
                    "child `{id}` hangs: silent for {} while {}",
                    Span(*silent_for),
                    OneLine(doing)
                )?;
                let its = Whereabouts { doing: None, thread: thread.as_ref() };
                write!(f, "{its}; it is asked to stop")
            }
            EventKind::GaveUp => {
                write!(f, "child `{id}` is given up after {}", Failures(*failures))
            }
            EventKind::Healthy { forgiven: 0, .. } => write!(f, "child `{id}` is healthy"),
            EventKind::Healthy { forgiven, failing_for, .. } => {
                write!(f, "child `{id}` is healthy again, {} after ", Span(*failing_for))?;
                match forgiven {
                    1 => f.write_str("its failure"),
                    count => write!(f, "the first of {count} failures"),
                }
            }
            EventKind::FlagChanged { enabled } => {
                let switched = if *enabled { "on" } else { "off" };
                write!(f, "child `{id}` is switched {switched} by its flag")
            }
            EventKind::Waiting { waiting_for } => {
                write!(f, "child `{id}` waits for {waiting_for}")
            }
            EventKind::Ordered { order } => {
                let what = match order {
                    Order::Add => "was added",
                    Order::Hold => "is held, and stays down until it is released",
                    Order::Release => "is released",
                    Order::Reset => "is reset: its failures are forgiven",
                    Order::Restart => "is restarted by hand",
                    Order::Remove => "is removed",
                };
                write!(f, "child `{id}` {what}")
            }
            EventKind::Overdue { stopping_for, doing, thread } => {
                write!(
                    f,
                    "child `{id}` was asked to stop {} ago and has not stopped{}",
                    Span(*stopping_for),
                    Whereabouts { doing: doing.as_deref(), thread: thread.as_ref() }
                )
            }
            EventKind::Abandoned { stopping_for, doing, thread } => {
                write!(
                    f,
                    "child `{id}` is abandoned: it was asked to stop {} ago and has not stopped{}; \
                     only the end of the process ends it",
                    Span(*stopping_for),
                    Whereabouts { doing: doing.as_deref(), thread: thread.as_ref() }
                )
            }
            EventKind::CallbackPanicked { callback, panic } => {
                write!(f, "the `{callback}` callback for child `{id}` panicked: {panic}")
            }
        }
    }
}
