//! Trait of event sinks, and the sink that logs.

use std::sync::Arc;

use crossbeam_channel::Sender;
use log::Record;

use crate::event::Event;

/// Sink that receives every event of a supervisor, in order, on the supervisor's own thread.
///
/// [Nested](crate::SupervisorBuilder::run) supervisors have threads of their own: a sink that they
/// inherit is called from each of these, possibly at the same time. The events of each supervisor
/// are in order.
///
/// [`record`](TelemetrySink::record) should be quick: a sink that blocks delays supervision, though
/// neither a wait nor a shutdown that somebody asks for. Meanwhile nothing is noticed, neither a
/// failure nor a hang. It may query and command the supervisor through a
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
/// The line is the event's `Display`, its level is [`Event::level`], and its key-values are
/// [`Event::fields`].
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
        let level = event.level();
        if level > log::max_level() {
            return;
        }
        let fields: Vec<_> = event.fields().collect();
        log::logger().log(
            &Record::builder()
                .level(level)
                .target(TARGET)
                .module_path_static(Some(module_path!()))
                .key_values(&fields.as_slice())
                .args(format_args!("{event}"))
                .build(),
        );
    }
}
