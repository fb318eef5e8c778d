//! Trait of event sinks, and the sink that logs.

use std::sync::Arc;

use crossbeam_channel::Sender;
use log::{Level, Record, kv::Value};

use crate::event::{Event, EventKind, StopKind};

/// Sink that receives every event of a supervisor, in order, on the supervisor's own thread.
///
/// [Nested](crate::SupervisorBuilder::run) supervisors have threads of their own: a sink that they
/// inherit is called from each of these, possibly at the same time. The events of each supervisor
/// are in order.
///
/// [`record`](TelemetrySink::record) should be quick: a sink that blocks delays supervision (though
/// never a shutdown or a wait). It may query and command the supervisor through a
/// [`Handle`](crate::Handle). A panic in it is contained, and logged once until the sink succeeds
/// again; the other sinks still get the event.
///
/// | sink | what it does |
/// | --- | --- |
/// | [`LogSink`] | logs through the `log` crate; used when no sink is given |
/// | a closure, by [`on_event`](crate::SupervisorBuilder::on_event) | what the closure does |
/// | [`Sender<Event>`](crossbeam_channel::Sender) | hands a copy to another thread and never blocks |
/// | `()` | nothing: for silence |
/// | `Arc<T>`, `Box<T>` | what `T` does |
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::{Event, EventKind, Supervisor, TelemetrySink};
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// #[derive(Default)]
/// struct Restarts(AtomicUsize);
///
/// impl TelemetrySink for Restarts {
///     fn record(&self, event: &Event) {
///         if matches!(event.kind, EventKind::Started) && event.failures > 0 {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let supervisor = Supervisor::builder().telemetry(Restarts::default()).start()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait TelemetrySink: Send + Sync + 'static {
    /// Records one event.
    fn record(&self, event: &Event);
}

/// Records nothing.
impl TelemetrySink for () {
    fn record(&self, _event: &Event) {}
}

impl<T: TelemetrySink + ?Sized> TelemetrySink for Arc<T> {
    fn record(&self, event: &Event) {
        (**self).record(event);
    }
}

impl<T: TelemetrySink + ?Sized> TelemetrySink for Box<T> {
    fn record(&self, event: &Event) {
        (**self).record(event);
    }
}

/// Sends a copy of each event without ever blocking. An event is dropped if the channel is full or
/// has no receiver; it then shows as a gap in [`Event::seq`], which is counted for each supervisor
/// where supervisors are nested.
impl TelemetrySink for Sender<Event> {
    fn record(&self, event: &Event) {
        let _ = self.try_send(event.clone());
    }
}

/// A closure as a sink.
pub(crate) struct OnEvent<F>(pub(crate) F);

impl<F: Fn(&Event) + Send + Sync + 'static> TelemetrySink for OnEvent<F> {
    fn record(&self, event: &Event) {
        (self.0)(event);
    }
}

/// Sink that logs each event as one line through the [`log`] crate, under the target
/// `circuit_breaker_supervisor`.
///
/// The line is the event's `Display`. The same facts are added as key-values: `event`, `id`, `run`,
/// `failures`; with a stop `cause`, `exit` (`completed`, `failed` or `panicked`), `failed`
/// (whether it counts as a failure, which `failures` does not include yet), `uptime_ms`,
/// after a [`Verdict`](crate::Verdict) `verdict` (`give_up` or `retry_after`) and, if the child is
/// tried again, `retry_in_ms`; with an overdue child `stopping_for_ms`; with a trip
/// `reported` and `last`; with a hang `doing` and `silent_ms`; with an order `order`; and with a
/// callback's panic `callback`.
///
/// | event | level |
/// | --- | --- |
/// | started, healthy, ordered; stopped because it was asked to, or finished | info |
/// | stopped by an error or a return, or after a trip or a hang; overdue | warn |
/// | stopped by a panic or because no thread could be spawned, tripped, hung, given up, a callback panicked | error |
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::{LogSink, Supervisor};
///
/// // With a sink of one's own, the log is no longer the default; so it is asked for.
/// let (sink, events) = crossbeam_channel::bounded(1024);
/// let supervisor = Supervisor::builder().telemetry(LogSink).telemetry(sink).start()?;
/// # drop(events);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSink;

/// Target of all log records of this crate.
pub(crate) const TARGET: &str = "circuit_breaker_supervisor";

impl TelemetrySink for LogSink {
    fn record(&self, event: &Event) {
        let level = level(event);
        if level > log::max_level() {
            return;
        }
        let mut pairs = vec![
            ("event", Value::from(event.name())),
            ("id", Value::from(event.id.as_str())),
            ("run", Value::from(event.run)),
            ("failures", Value::from(event.failures)),
        ];
        let words;
        match &event.kind {
            EventKind::Stopped { cause, exit, uptime, failed, retry_in } => {
                words = cause.to_string();
                pairs.push(("cause", Value::from(words.as_str())));
                pairs.push(("exit", Value::from(exit.name())));
                pairs.push(("failed", Value::from(*failed)));
                pairs.push(("uptime_ms", Value::from(uptime.as_millis())));
                if let Some(advice) = exit.advice().filter(|_| *failed) {
                    pairs.push(("verdict", Value::from(advice.name())));
                }
                if let Some(delay) = retry_in {
                    pairs.push(("retry_in_ms", Value::from(delay.as_millis())));
                }
            }
            EventKind::CallbackPanicked { callback, .. } => {
                words = callback.to_string();
                pairs.push(("callback", Value::from(words.as_str())));
            }
            EventKind::Overdue { stopping_for } => {
                pairs.push(("stopping_for_ms", Value::from(stopping_for.as_millis())))
            }
            EventKind::Ordered { order } => {
                words = order.to_string();
                pairs.push(("order", Value::from(words.as_str())));
            }
            EventKind::Started | EventKind::Healthy | EventKind::GaveUp => {}
            EventKind::Tripped { failures, last } => {
                pairs.push(("reported", Value::from(*failures)));
                pairs.push(("last", Value::from(&**last)));
            }
            EventKind::Hung { doing, silent_for } => {
                pairs.push(("doing", Value::from(*doing)));
                pairs.push(("silent_ms", Value::from(silent_for.as_millis())));
            }
        }
        log::logger().log(
            &Record::builder()
                .level(level)
                .target(TARGET)
                .module_path_static(Some(module_path!()))
                .key_values(&pairs.as_slice())
                .args(format_args!("{event}"))
                .build(),
        );
    }
}

fn level(event: &Event) -> Level {
    match &event.kind {
        EventKind::Started | EventKind::Healthy | EventKind::Ordered { .. } => Level::Info,
        EventKind::Stopped { exit, .. } if exit.is_panicked() => Level::Error,
        EventKind::Stopped { cause, exit, failed, .. } => match cause.kind() {
            StopKind::NotSpawned => Level::Error,
            // A transient or one-shot child that has done its job.
            StopKind::ByItself if exit.is_completed() && !failed => Level::Info,
            StopKind::ByItself | StopKind::Fault => Level::Warn,
            StopKind::Asked => Level::Info,
        },
        EventKind::Overdue { .. } => Level::Warn,
        EventKind::Tripped { .. }
        | EventKind::Hung { .. }
        | EventKind::GaveUp
        | EventKind::CallbackPanicked { .. } => Level::Error,
    }
}
