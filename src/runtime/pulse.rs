//! Pulse: the supervisor's own sign of life, for whoever watches the watchman.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    event::Callback,
    handle::Handle,
    runtime::shared::Shared,
    sync::{deadline, unwind},
    telemetry::TARGET,
};

/// A closure of the program's that is called again and again.
pub(crate) type PulseFn = Box<dyn FnMut(&Handle) + Send>;

/// The pulse of one supervisor.
pub(crate) struct Pulse {
    interval: Duration,
    f: PulseFn,
    /// When it is due; `None` is never.
    due: Option<Instant>,
    /// The last call panicked. Of panics in a row, only the first is logged.
    is_faulty: bool,
}

impl Pulse {
    /// The first call is due at once.
    pub(crate) fn new(interval: Duration, f: PulseFn, now: Instant) -> Self {
        Self { interval, f, due: Some(now), is_faulty: false }
    }

    /// When the next call is due; `None` is never.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Has the next call come at once.
    pub(crate) fn make_due(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// Calls the closure if that is due. After a stall the calls that were missed are not made up
    /// for.
    pub(crate) fn beat(&mut self, shared: &Arc<Shared>) {
        let now = shared.now();
        let Some(due) = self.due.filter(|due| *due <= now) else { return };
        let next = deadline::after(due, self.interval);
        self.due = if deadline::is_reached(next, now) {
            deadline::after(now, self.interval)
        } else {
            next
        };
        let handle = Handle::new(shared.clone());
        let call = || unwind::catch(|| (self.f)(&handle));
        match shared.user_call.make(Callback::Pulse, None, call) {
            Ok(()) => self.is_faulty = false,
            Err(panic) if !std::mem::replace(&mut self.is_faulty, true) => {
                let name = &shared.name;
                let log = || log::error!(target: TARGET, "the pulse of `{name}` panicked: {panic}");
                let _ = shared.user_call.make(Callback::Sink, None, || unwind::catch(log));
            }
            Err(_) => {}
        }
    }
}
