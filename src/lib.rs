//! Keeps the worker threads of a blocking program alive.

mod backoff;
mod builder;
mod child;
mod circuit;
mod context;
mod deadline;
mod engine;
mod error;
mod event;
mod exit;
mod handle;
mod id;
mod inbox;
mod report;
mod roster;
mod shared;
#[cfg(test)]
mod simulation;
mod snapshot;
mod stop;
mod supervisor;
mod telemetry;
#[cfg(test)]
mod timelines;
mod unwind;
mod worker;

pub use crate::{
    backoff::Backoff,
    builder::SupervisorBuilder,
    child::{ChildSpec, RestartPolicy},
    circuit::{ChildStatus, CircuitState, OffBy},
    context::{ChildContext, StopGuard},
    error::{
        AddError, AddErrorReason, ChildGaveUp, CommandError, Invalid, RecvError, SendError, StartError, StartErrorReason,
        Stopped, WaitError,
    },
    event::{Callback, Event, EventKind, LastStop, StopCause},
    exit::{ChildResult, Exit, Failure, Panic},
    handle::Handle,
    id::ChildId,
    report::{ShutdownCause, ShutdownReport, StuckIn, Unstopped, UnstoppedPhase},
    snapshot::{ChildInfo, Counts, Snapshot},
    supervisor::Supervisor,
    telemetry::{LogSink, TelemetrySink},
    unwind::capture_panic_locations,
};
