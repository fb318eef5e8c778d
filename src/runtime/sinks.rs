//! Event sinks of one supervisor, each under a guard.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    core::key::Key,
    event::{Callback, Event},
    runtime::shared::Shared,
    sync::unwind,
    telemetry::{TARGET, TelemetrySink},
};

pub(crate) struct Sinks {
    /// Nested supervisors without sinks of their own use these.
    pub(crate) all: Arc<Vec<Arc<dyn TelemetrySink>>>,
    /// For each sink, the children for whose last event it panicked: this is logged only once.
    faults: Vec<BTreeSet<Key>>,
}

impl Sinks {
    pub(crate) fn new(sinks: Vec<Arc<dyn TelemetrySink>>) -> Self {
        Self { faults: sinks.iter().map(|_| BTreeSet::new()).collect(), all: Arc::new(sinks) }
    }

    /// Passes an event to all sinks.
    pub(crate) fn record(&mut self, shared: &Shared, key: Key, event: &Event) {
        for (sink, faults) in self.all.iter().zip(&mut self.faults) {
            let record = || unwind::catch(|| sink.record(event));
            match shared.user_call.make(Callback::Sink, key, record) {
                Ok(()) if faults.is_empty() => {}
                Ok(()) => drop(faults.remove(&key)),
                Err(panic) if faults.insert(key) => {
                    // Under a guard, and marked as a call to a sink: the logger may be what
                    // panicked, and it may block.
                    let (name, id) = (event.name(), &event.id);
                    let text = format!("a telemetry sink panicked at `{name}` of child `{id}`");
                    let log = || log::error!(target: TARGET, "{text}: {panic}");
                    let _ = shared.user_call.make(Callback::Sink, key, || unwind::catch(log));
                }
                Err(_) => {}
            }
        }
    }

    /// Notes that there will be no more events of this child.
    pub(crate) fn forget(&mut self, key: Key) {
        for faults in &mut self.faults {
            faults.remove(&key);
        }
    }

    /// Drops the sinks one by one, if there is no other reference: so each drop that panics is
    /// caught on its own.
    pub(crate) fn discard(self) {
        match Arc::try_unwrap(self.all) {
            Ok(sinks) => sinks.into_iter().for_each(|sink| drop(unwind::discard(sink))),
            Err(shared) => drop(unwind::discard(shared)),
        }
    }
}
