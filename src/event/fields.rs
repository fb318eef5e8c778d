//! Level and fields of events, for sinks that pass them on.

use std::{fmt, time::Duration};

use log::{
    Level,
    kv::{ToValue, Value},
};

use super::{Event, EventKind, StopKind};
use crate::{exit::Exit, sync::one_line::OneLine, thread_info::ThreadInfo};

impl Event {
    /// Returns how important the event is.
    ///
    /// | event | level |
    /// | --- | --- |
    /// | started, healthy, ordered, flag changed, waiting; stopped because it was asked to, or finished | info |
    /// | stopped by an error or a return, or after a trip or a hang; overdue | warn |
    /// | stopped by a panic or because no thread could be spawned, tripped, hung, abandoned, given up, a callback panicked | error |
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::Supervisor;
    ///
    /// let supervisor = Supervisor::builder()
    ///     .on_event(|event| {
    ///         if event.level() <= log::Level::Warn {
    ///             eprintln!("{event}");
    ///         }
    ///     })
    ///     .start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn level(&self) -> Level {
        match &self.kind {
            EventKind::Started
            | EventKind::Healthy { .. }
            | EventKind::FlagChanged { .. }
            | EventKind::Waiting { .. }
            | EventKind::Ordered { .. } => Level::Info,
            EventKind::Stopped { exit, .. } if exit.is_panicked() => Level::Error,
            EventKind::Stopped { cause, exit, failed, .. } => match cause.kind() {
                StopKind::NotSpawned => Level::Error,
                // A transient or one-shot child that has done its job.
                StopKind::ByItself if exit.is_completed() && !failed => Level::Info,
                StopKind::ByItself | StopKind::Fault => Level::Warn,
                StopKind::Asked => Level::Info,
            },
            EventKind::Overdue { .. } => Level::Warn,
            EventKind::Abandoned { .. }
            | EventKind::Tripped { .. }
            | EventKind::Hung { .. }
            | EventKind::GaveUp
            | EventKind::CallbackPanicked { .. } => Level::Error,
        }
    }

    /// Returns what the event says as pairs of a stable key and a value: what
    /// [`LogSink`](crate::LogSink) adds to its lines, and what a sink for metrics or JSON needs.
    ///
    /// | key | in which events | value |
    /// | --- | --- | --- |
    /// | `event` | all | the [name](Event::name) |
    /// | `supervisor` | all | the name of the supervisor |
    /// | `child` | all | the id of the child |
    /// | `seq`, `run`, `failures` | all | the fields of [`Event`] |
    /// | `cause` | stop | a word for the [`StopCause`](crate::StopCause) |
    /// | `exit` | stop | `completed`, `failed` or `panicked` |
    /// | `failed` | stop | whether it counts as a failure, which `failures` does not include yet |
    /// | `uptime_ms` | stop | how long the run lasted |
    /// | `verdict` | stop, after a [`Verdict`](crate::Verdict) | `give_up` or `retry_after` |
    /// | `retry_in_ms` | stop, if the child is tried again | the backoff |
    /// | `error` | stop, but for errors that only say that the run was [asked to stop](crate::Stopped); tripped; callback panicked | the text of the error or panic |
    /// | `location` | stop, callback panicked | where the panic was, if that is [known](crate::Panic::location) |
    /// | `forgiven`, `failing_for_ms`, `marked` | healthy | its fields |
    /// | `enabled` | flag changed | whether it is on |
    /// | `waiting_for`, `root`, `reason` | waiting | its fields |
    /// | `reported` | tripped | the number of failures that callers reported |
    /// | `doing`, `silent_ms` | hung | its fields |
    /// | `stopping_for_ms`, `doing` | overdue, abandoned | its fields, the second if there was a heartbeat |
    /// | `thread_state`, `wait_channel`, `cpu_used_ms`, `observed_for_ms` | hung, overdue, abandoned | the fields of [`ThreadInfo`], as far as they are known |
    /// | `order` | ordered | a word for the [`Order`](crate::Order) |
    /// | `callback` | callback panicked | a word for the [`Callback`](crate::Callback) |
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Exit, Simulation, Supervisor};
    ///
    /// let builder = Supervisor::builder().child(ChildSpec::new("orders", |_| Ok(())));
    /// let mut simulation = Simulation::new(builder, 1)?;
    /// simulation.advance(std::time::Duration::ZERO);
    /// simulation.exit("orders", Exit::failed("connection refused"))?;
    /// let line: Vec<_> = simulation.events()[1]
    ///     .fields()
    ///     .filter(|(key, _)| ["child", "run", "cause", "error"].contains(key))
    ///     .map(|(key, value)| format!("{key}={value}"))
    ///     .collect();
    /// assert_eq!(line.join(" "), "child=orders run=1 cause=exited error=connection refused");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, FieldValue<'_>)> {
        let mut fields = Vec::with_capacity(14);
        let mut add = |key, value| fields.push((key, value));
        add("event", text(self.name()));
        add("supervisor", text(&self.supervisor));
        add("child", text(self.id.as_str()));
        add("seq", FieldValue::Number(self.seq));
        add("run", FieldValue::Number(self.run));
        add("failures", number(self.failures));
        match &self.kind {
            EventKind::Started | EventKind::GaveUp => {}
            EventKind::Stopped { cause, exit, uptime, failed, retry_in } => {
                add("cause", text(cause.name()));
                add("exit", text(exit.name()));
                add("failed", FieldValue::Bool(*failed));
                add("uptime_ms", milliseconds(*uptime));
                if let Some(advice) = cause.advice(exit).filter(|_| *failed) {
                    add("verdict", text(advice.name()));
                }
                if let Some(delay) = retry_in {
                    add("retry_in_ms", milliseconds(*delay));
                }
                if !cause.is_request() || !exit.obeys_stop() {
                    exit.message().into_iter().for_each(|error| add("error", text(error)));
                }
                if let Exit::Panicked(panic) = exit {
                    panic.location().into_iter().for_each(|at| add("location", text(at)));
                }
            }
            EventKind::Healthy { forgiven, failing_for, marked } => {
                add("forgiven", number(*forgiven));
                add("failing_for_ms", milliseconds(*failing_for));
                add("marked", FieldValue::Bool(*marked));
            }
            EventKind::FlagChanged { enabled } => add("enabled", FieldValue::Bool(*enabled)),
            EventKind::Waiting { waiting_for } => {
                add("waiting_for", text(waiting_for.id.as_str()));
                add("root", text(waiting_for.root.as_str()));
                add("reason", text(&waiting_for.reason));
            }
            EventKind::Overdue { stopping_for, doing, thread }
            | EventKind::Abandoned { stopping_for, doing, thread } => {
                add("stopping_for_ms", milliseconds(*stopping_for));
                doing.iter().for_each(|doing| add("doing", text(doing)));
                add_thread(&mut fields, thread.as_ref());
            }
            EventKind::Tripped { failures, last } => {
                add("reported", number(*failures));
                add("error", text(last));
            }
            EventKind::Hung { doing, silent_for, thread } => {
                add("doing", text(doing));
                add("silent_ms", milliseconds(*silent_for));
                add_thread(&mut fields, thread.as_ref());
            }
            EventKind::Ordered { order } => add("order", text(order.name())),
            EventKind::CallbackPanicked { callback, panic } => {
                add("callback", text(callback.name()));
                add("error", text(panic.message()));
                panic.location().into_iter().for_each(|at| add("location", text(at)));
            }
        }
        fields.into_iter()
    }
}

fn add_thread<'a>(
    fields: &mut Vec<(&'static str, FieldValue<'a>)>,
    thread: Option<&'a ThreadInfo>,
) {
    let Some(ThreadInfo { state, wait_channel, cpu_used, observed_for }) = thread else { return };
    fields.push(("thread_state", text(state.name())));
    fields.extend(wait_channel.iter().map(|channel| ("wait_channel", text(channel))));
    if let Some(used) = cpu_used {
        fields.push(("cpu_used_ms", milliseconds(*used)));
        fields.push(("observed_for_ms", milliseconds(*observed_for)));
    }
}

fn text(text: &str) -> FieldValue<'_> {
    FieldValue::Text(text)
}

fn number(number: u32) -> FieldValue<'static> {
    FieldValue::Number(number.into())
}

fn milliseconds(duration: Duration) -> FieldValue<'static> {
    FieldValue::Number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Value of one of the [fields](Event::fields) of an event.
///
/// Its `Display`, and what it is as a value of the `log` crate, show a text on one line of bounded
/// length, as the event's sentence does: what children and callers say may hold anything.
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::FieldValue;
///
/// fn quoted(value: FieldValue<'_>) -> String {
///     match value {
///         FieldValue::Text(text) => format!("{text:?}"),
///         other => other.to_string(),
///     }
/// }
///
/// assert_eq!(quoted(FieldValue::Number(3)), "3");
/// assert_eq!(quoted(FieldValue::Text("no such host")), "\"no such host\"");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldValue<'a> {
    /// Whether something is so.
    Bool(bool),
    /// A count, or a number of milliseconds.
    Number(u64),
    /// A word or a text, whole and as it is.
    Text(&'a str),
}

impl fmt::Display for FieldValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => OneLine(text).fmt(f),
        }
    }
}

impl ToValue for FieldValue<'_> {
    fn to_value(&self) -> Value<'_> {
        match self {
            Self::Bool(value) => Value::from(*value),
            Self::Number(number) => Value::from(*number),
            Self::Text(text) if OneLine::is(text) => Value::from(*text),
            Self::Text(_) => Value::from_display(self),
        }
    }
}
