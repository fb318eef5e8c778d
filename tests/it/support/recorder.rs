//! Sink that remembers all events, and gives them back in words.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{Event, EventKind, StopCause, TelemetrySink};
use parking_lot::{Condvar, Mutex};

use super::*;

/// A sink that remembers everything.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Record>);

#[derive(Default)]
struct Record {
    events: Mutex<Vec<Event>>,
    grown: Condvar,
}

impl TelemetrySink for Recorder {
    fn record(&self, event: &Event) {
        self.0.events.lock().push(event.clone());
        self.0.grown.notify_all();
    }
}

impl Recorder {
    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.events.lock().clone()
    }

    /// The events of one child.
    pub(crate) fn of(&self, id: &str) -> Vec<Event> {
        self.0.events.lock().iter().filter(|event| event.id == id).cloned().collect()
    }

    /// The events of one child but for the orders, a word or three each: `start 0`,
    /// `stop exited 0`, `healthy`, `overdue`, `gave up`, `panic enabled`. The number is the attempt
    /// count.
    pub(crate) fn story(&self, id: &str) -> Vec<String> {
        self.of(id).iter().filter(|event| !is_order(event)).map(word).collect()
    }

    /// The events of all children but for the orders and those of barriers, each with its id.
    pub(crate) fn whole_story(&self) -> Vec<String> {
        let events = self.0.events.lock();
        events
            .iter()
            .filter(|event| !is_of_barrier(event) && !is_order(event))
            .map(|event| format!("{}: {}", event.id, word(event)))
            .collect()
    }

    /// Waits until the events are as wanted.
    #[track_caller]
    pub(crate) fn wait_until(&self, mut wanted: impl FnMut(&[Event]) -> bool) {
        let until = Instant::now() + DEADLINE;
        let mut events = self.0.events.lock();
        while !wanted(&events) {
            if self.0.grown.wait_until(&mut events, until).timed_out() {
                let story: String = events.iter().fold(String::new(), |mut text, event| {
                    let _ = write!(text, "\n  {}: {}", event.id, word(event));
                    text
                });
                panic!("not within the deadline; the events are:{story}");
            }
        }
    }

    /// Waits for the `count`th event of one child whose word begins like this, and returns it.
    #[track_caller]
    pub(crate) fn wait_for(&self, id: &str, beginning: &str, count: usize) -> Event {
        let is_wanted = |event: &&Event| event.id == id && word(event).starts_with(beginning);
        self.wait_until(|events| events.iter().filter(is_wanted).count() >= count);
        self.events().iter().filter(is_wanted).nth(count - 1).cloned().unwrap()
    }

    pub(crate) fn count(&self, id: &str, beginning: &str) -> usize {
        self.of(id).iter().filter(|event| word(event).starts_with(beginning)).count()
    }
}

pub(crate) fn word(event: &Event) -> String {
    let attempt = event.failures;
    match &event.kind {
        EventKind::Started => format!("start {attempt}"),
        EventKind::Stopped { cause, .. } => format!("stop {cause} {attempt}"),
        EventKind::Healthy { .. } => String::from("healthy"),
        EventKind::FlagChanged { enabled: true, .. } => String::from("flag on"),
        EventKind::FlagChanged { enabled: false, .. } => String::from("flag off"),
        EventKind::Waiting { waiting_for, .. } => format!("waits for {}", waiting_for.id),
        EventKind::Overdue { .. } => String::from("overdue"),
        EventKind::Abandoned { .. } => String::from("abandoned"),
        EventKind::Tripped { .. } => String::from("tripped"),
        EventKind::Hung { doing, .. } => format!("hung {doing}"),
        EventKind::GaveUp => String::from("gave up"),
        EventKind::CallbackPanicked { callback, .. } => format!("panic {callback}"),
        EventKind::Ordered { order, .. } => format!("order {order}"),
        _ => String::from("unknown"),
    }
}

/// What a `Stopped` says; anything else fails the test.
pub(crate) struct Stop {
    pub(crate) cause: StopCause,
    pub(crate) exit: circuit_breaker_supervisor::Exit,
    pub(crate) uptime: Duration,
    pub(crate) retry_in: Option<Duration>,
}

#[track_caller]
pub(crate) fn stop_of(event: &Event) -> Stop {
    match &event.kind {
        EventKind::Stopped { cause, exit, uptime, retry_in, .. } => {
            Stop { cause: *cause, exit: exit.clone(), uptime: *uptime, retry_in: *retry_in }
        }
        _ => panic!("not a stop: {event}"),
    }
}

/// Whether an event tells of an order, which the test itself has given.
pub(crate) fn is_order(event: &Event) -> bool {
    matches!(event.kind, EventKind::Ordered { .. })
}

/// Whether an event is of a child that only [`barrier`] made.
fn is_of_barrier(event: &Event) -> bool {
    event.id.starts_with("barrier ")
}
