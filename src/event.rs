//! What is told to telemetry.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    exit::Exit,
    id::ChildId,
    sync::{one_line::OneLine, panic::Panic},
};

/// One thing that happened to a child, as it is given to every
/// [`TelemetrySink`](crate::TelemetrySink).
///
/// All events of one supervisor are totally ordered by [`seq`](Event::seq) and recorded in that
/// order. `Started` is recorded before the first instruction of the body, `Stopped` after its last;
/// whoever is told of an event and asks a [`Handle`](crate::Handle) sees at least what the event
/// says.
///
/// Its `Display` is one sentence, the one that [`LogSink`](crate::LogSink) logs.
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::{ChildSpec, EventKind, Supervisor};
/// use std::time::Duration;
///
/// let supervisor = Supervisor::builder()
///     .on_event(|event| match &event.kind {
///         EventKind::Stopped { exit, retry_in: Some(delay), .. } => {
///             eprintln!("{}: {exit}; down for {delay:?}", event.id)
///         }
///         EventKind::Overdue { .. } | EventKind::Hung { .. } | EventKind::GaveUp => {
///             eprintln!("look at this: {event}")
///         }
///         _ => {}
///     })
///     .child(ChildSpec::new("orders", |ctx| Ok(ctx.sleep(Duration::MAX)?)))
///     .start()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// Counts this supervisor's events, from 0, without a gap.
    pub seq: u64,
    /// The child.
    pub id: ChildId,
    /// The run that this is about: the number of its start, counted from 1 for each child. A start
    /// for which no thread could be had counts, too. 0 if the child has not been started yet. A
    /// child that is removed and added again begins anew.
    pub run: u64,
    /// The failures since the child was last healthy. A `Stopped` that is a failure, as its
    /// `failed` says, does not count itself yet: a metric of failures adds one to it, or takes the
    /// count of what follows, the next `Started` or `GaveUp`, which does. `Healthy`, and an order
    /// that forgives failures, say 0. In the `Stopped` of a run that said too soon that it was
    /// healthy it is the count from before it said so.
    pub attempt_count: u32,
    /// When the sinks were told, on the monotonic clock: later than what happened if another
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
    /// | `Overdue` | `circuit_breaker_supervisor.child.overdue` |
    /// | `Tripped` | `circuit_breaker_supervisor.child.tripped` |
    /// | `Hung` | `circuit_breaker_supervisor.child.hung` |
    /// | `GaveUp` | `circuit_breaker_supervisor.child.gave_up` |
    /// | `Ordered` | `circuit_breaker_supervisor.child.order` |
    /// | `CallbackPanicked` | `circuit_breaker_supervisor.callback.panic` |
    pub fn name(&self) -> &'static str {
        match self.kind {
            EventKind::Started => "circuit_breaker_supervisor.child.start",
            EventKind::Stopped { .. } => "circuit_breaker_supervisor.child.stop",
            EventKind::Healthy => "circuit_breaker_supervisor.child.healthy",
            EventKind::Overdue { .. } => "circuit_breaker_supervisor.child.overdue",
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
    /// A run begins.
    Started,
    /// A run has ended. Exactly one follows each `Started`, unless the run outlives the supervisor,
    /// which the [`ShutdownReport`](crate::ShutdownReport) tells. A child for which no thread could
    /// be had reports it without a `Started`.
    #[non_exhaustive]
    Stopped {
        /// Why it ended.
        cause: StopCause,
        /// How the body ended.
        exit: Exit,
        /// How long it ran, from when the sinks had been told of `Started` until the body had
        /// ended.
        uptime: Duration,
        /// Whether it counts as a failure: then the child is tried again after its backoff, or
        /// given up. An end that was asked for is none, nor is any end of a
        /// [`once`](crate::ChildSpec::once) child.
        failed: bool,
        /// After a failure, the backoff: how long after its end it is tried again. `None` if this
        /// was no failure, or there is no next time. The very long delay that a backoff may give
        /// means "not before it is reset by hand".
        retry_in: Option<Duration>,
    },
    /// The child has been up for `healthy_after`, or said so itself: its failures are forgiven.
    Healthy,
    /// The child was asked to stop and has not, within its `stop_timeout`. Told once a run.
    #[non_exhaustive]
    Overdue {
        /// How long ago it was asked.
        stopping_for: Duration,
    },
    /// Callers have [reported](crate::Breaker) so many failures that the child's breaker has
    /// tripped: it is told to stop.
    #[non_exhaustive]
    Tripped {
        /// How many there were in a row.
        failures: u32,
        /// What was said of the last.
        last: Arc<str>,
    },
    /// The child has a [watchdog](crate::ChildSpec::watchdog) and has been silent for too long: it
    /// is told to stop.
    #[non_exhaustive]
    Hung {
        /// What it said that it was doing, with its last
        /// [heartbeat](crate::ChildContext::heartbeat).
        doing: &'static str,
        /// For how long the supervisor has seen it silent, its own lateness left out.
        silent_for: Duration,
    },
    /// The child has used up its [`max_restarts`](crate::ChildSpec::max_restarts) and stays down
    /// until reset by hand.
    GaveUp,
    /// An order that was given through a [`Handle`](crate::Handle) was carried out. It is told once
    /// for each, also where it changed nothing: this is the audit trail. [`run`](Event::run) is the
    /// child's present or last one. The children of the builder have no `Add`. An order that
    /// repeats one which is still pending is one with it. Not told is an order to a child that is
    /// gone by then, and what the end of the supervisor overtakes.
    #[non_exhaustive]
    Ordered {
        /// What was ordered.
        order: Order,
    },
    /// User code panicked outside of a body. Told once per callback and child, until that callback
    /// succeeds again.
    #[non_exhaustive]
    CallbackPanicked {
        /// Whose code it was.
        callback: Callback,
        /// What is known of it.
        panic: Panic,
    },
}

/// What an operator asks of one child, by the method of [`Handle`](crate::Handle) that has this
/// name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// The child is listed, and started if its flag is on.
    Add,
    /// It is stopped and kept down.
    Hold,
    /// It is held no longer.
    Release,
    /// Its failures are forgiven.
    Reset,
    /// It is stopped and started again, and its failures are forgiven.
    Restart,
    /// It is stopped, and gone from the list.
    Remove,
}

impl Order {
    /// Whether this order takes the place of one that is yet to be carried out.
    pub(crate) fn replaces(self, pending: Self) -> bool {
        let is_switch = |order| matches!(order, Self::Hold | Self::Release);
        self == pending || is_switch(self) && is_switch(pending)
    }
}

/// Shows the stable word that the `order` key of a log line carries: `add`, `hold`, and so on.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Reset => "reset",
            Self::Restart => "restart",
            Self::Remove => "remove",
        })
    }
}

/// Why a run ended: the first reason to stop it, or that it ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopCause {
    /// Nobody asked: the body returned or panicked by itself. A failure, except `Ok` from a
    /// transient child and any end of a [`once`](crate::ChildSpec::once) child.
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
    /// or it has but one run.
    Tripped,
    /// It had been silent for longer than its [watchdog](crate::ChildSpec::watchdog) allows. A
    /// failure however it ended, as after `Tripped`.
    Hung,
    /// The supervisor shuts down.
    Shutdown,
    /// It never ran: no thread could be had for it. A failure, after which it stays down for at
    /// least 100 ms whatever its backoff says.
    NotSpawned,
}

impl StopCause {
    /// Why, as the end of a sentence.
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

/// Shows the stable word that the `cause` key of a log line carries: `exited`, `disabled`, and so
/// on.
impl fmt::Display for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exited => "exited",
            Self::Disabled => "disabled",
            Self::Held => "held",
            Self::Restarted => "restarted",
            Self::Removed => "removed",
            Self::Tripped => "tripped",
            Self::Hung => "hung",
            Self::Shutdown => "shutdown",
            Self::NotSpawned => "not_spawned",
        })
    }
}

/// How a child's last run ended, as [`ChildInfo`](crate::ChildInfo) shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LastStop {
    /// Why it ended.
    pub cause: StopCause,
    /// How the body ended.
    pub exit: Exit,
    /// How long it had run.
    pub uptime: Duration,
    /// Whether it counted as a failure: then the child was to be tried again, or given up. An end
    /// that was asked for is none, nor is any end of a [`once`](crate::ChildSpec::once) child.
    pub failed: bool,
}

impl LastStop {
    /// Whether it holds an error of the user's, whose `Drop` is the user's code.
    pub(crate) fn holds_error(&self) -> bool {
        matches!(self.exit, Exit::Failed(_)) && self.cause != StopCause::NotSpawned
    }
}

/// The user code that runs beside the bodies.
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
    /// error that is no longer the last one is dropped as the next run ends. What panics after its
    /// child has left the list is logged and not reported.
    Drop,
    /// A telemetry sink. Its panics are logged and not reported: there is nobody left to report
    /// them to.
    Sink,
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Backoff => "backoff",
            Self::OnStop => "on_stop",
            Self::Display => "display",
            Self::Drop => "drop",
            Self::Sink => "sink",
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, run, attempt_count, kind, .. } = self;
        match kind {
            EventKind::Started if *attempt_count == 0 => {
                write!(f, "child `{id}` started (run {run})")
            }
            EventKind::Started => {
                write!(
                    f,
                    "child `{id}` started again (run {run}, after {})",
                    Failures(*attempt_count)
                )
            }
            EventKind::Stopped { cause, exit, uptime, failed, retry_in } => {
                match cause {
                    // A transient or one-shot child that did what it was for.
                    StopCause::Exited if exit.is_completed() && !failed => {
                        write!(f, "child `{id}` finished after {}", Span(*uptime))?;
                    }
                    StopCause::Exited => write!(f, "child `{id}` {}", Ran(exit, *uptime))?,
                    StopCause::NotSpawned => {
                        write!(
                            f,
                            "child `{id}` got no thread: {}",
                            OneLine(exit.message().unwrap_or_default())
                        )?;
                    }
                    asked => write!(
                        f,
                        "child `{id}` stopped after {}: {}",
                        Span(*uptime),
                        asked.reason()
                    )?,
                }
                // A run that was asked to stop may leave with any error; only its panic is worth a
                // word.
                if exit.is_panicked() && *cause != StopCause::Exited {
                    write!(f, " (it {exit})")?;
                }
                match retry_in {
                    Some(delay) => write!(f, "; tried again {}", In(*delay)),
                    None => Ok(()),
                }
            }
            EventKind::Tripped { failures, last } => {
                let failures = Failures(*failures);
                write!(
                    f,
                    "child `{id}` is told to stop: its callers reported {failures}, the last: {}",
                    OneLine(last)
                )
            }
            EventKind::Hung { doing, silent_for } => {
                write!(
                    f,
                    "child `{id}` hangs: silent for {} while {doing}; it is told to stop",
                    Span(*silent_for)
                )
            }
            EventKind::GaveUp => {
                write!(
                    f,
                    "child `{id}` is given up after {}, and stays down unless it is reset",
                    Failures(*attempt_count)
                )
            }
            EventKind::Healthy => write!(f, "child `{id}` is healthy"),
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
            EventKind::Overdue { stopping_for } => {
                write!(
                    f,
                    "child `{id}` was asked to stop {} ago and still runs",
                    Span(*stopping_for)
                )
            }
            EventKind::CallbackPanicked { callback, panic } => {
                write!(f, "the `{callback}` callback for child `{id}` panicked: {panic}")
            }
        }
    }
}

/// Shows a duration as a person would say it: `850 ms`, `3.2 s`, `4 min 10 s`, `2 h 5 min`.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let text = match seconds {
            0 if self.0.as_millis() == 0 => format!("{} µs", self.0.as_micros()),
            0 => format!("{} ms", self.0.as_millis()),
            1..60 => format!("{}.{} s", seconds, self.0.subsec_millis() / 100),
            60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
            3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
            _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
        };
        f.pad(&text)
    }
}

/// Shows a number of failures: `1 failure`, `3 failures in a row`.
pub(crate) struct Failures(pub(crate) u32);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 failure"),
            count => write!(f, "{count} failures in a row"),
        }
    }
}

/// Shows how a body ended and after how long: `panicked after 3.2 s: index out of bounds`.
pub(crate) struct Ran<'a>(pub(crate) &'a Exit, pub(crate) Duration);

impl fmt::Display for Ran<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(exit, uptime) = self;
        let span = Span(*uptime);
        match exit {
            Exit::Completed => write!(f, "returned after {span}"),
            Exit::Failed(failure) => write!(f, "failed after {span}: {failure}"),
            Exit::Panicked(panic) => write!(f, "panicked after {span}: {panic}"),
        }
    }
}

/// Shows why a failed run ended: by itself, and how, or for what it was stopped.
pub(crate) struct Why<'a>(pub(crate) StopCause, pub(crate) &'a Exit);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            StopCause::Exited => write!(f, "it {}", self.1),
            StopCause::NotSpawned => {
                write!(f, "it got no thread: {}", OneLine(self.1.message().unwrap_or_default()))
            }
            asked => f.write_str(asked.reason()),
        }
    }
}

/// Shows when something happens that may never do so by itself.
pub(crate) struct In(pub(crate) Duration);

impl fmt::Display for In {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            f.write_str("now")
        } else if crate::sync::deadline::is_never(self.0) {
            f.write_str("only after a reset")
        } else {
            write!(f, "in {}", Span(self.0))
        }
    }
}
