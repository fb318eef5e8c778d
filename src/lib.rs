//! Keeps the worker threads of a blocking program alive: each child is a closure on a thread of its
//! own, behind a circuit breaker.
//!
//! A child that panics, and comes back:
//!
//! ```
//! use circuit_breaker_supervisor::{ChildSpec, ChildStatus, Supervisor};
//! use std::time::Duration;
//!
//! let mut has_crashed = false; // what a child captures outlives its crashes
//! let supervisor = Supervisor::builder()
//!     .child(ChildSpec::new("worker", move |ctx| {
//!         if !std::mem::replace(&mut has_crashed, true) {
//!             panic!("once");
//!         }
//!         ctx.mark_healthy();
//!         ctx.wait_until_stopped() // until it is asked to stop
//!     }))
//!     .start()?;
//! let worker =
//!     supervisor.handle().wait_for("worker", Duration::from_secs(10), |worker| {
//!         worker.status == ChildStatus::Healthy
//!     })?;
//! assert_eq!(worker.run, 2);
//! assert!(supervisor.shutdown().is_clean());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//!
//! A [`Supervisor`] owns one thread that watches, and one thread for each child. A child's *body*
//! is the closure that [`ChildSpec::new`] is given; one execution of it is a *run*. When a run
//! ends without having been asked to, by a panic, an error or a return, the child's circuit
//! breaker trips: the child stays down for a [`Backoff`], by default 100 ms that double up to a
//! minute, and then the body is run again. A run that has lasted for
//! [`healthy_after`](ChildSpec::healthy_after), 60 s by default, or has called
//! [`ChildContext::mark_healthy`], is trusted: the failures so far are forgiven, and the next
//! failure meets the shortest backoff again. (If a run says that it is healthy, and fails within
//! less time than the backoff before it took, the forgiven failures count again.)
//!
//! Children share only the supervisor thread and what it calls: the flag closure, the backoff and
//! the sinks. That thread never waits for a child: one that is slow to stop, or never stops, delays
//! nobody else.
//!
//! A body has to cooperate in being stopped, since a thread cannot be killed: it waits by its
//! [`ChildContext`], or sets a callback that unblocks it. Other threads look on and take part
//! through a [`Handle`]: [`Handle::snapshot`] shows all children, and prints as a table that says
//! of each why it is down and when it is tried again; [`Handle::wait_for`] waits for a state;
//! [`hold`](Handle::hold), [`release`](Handle::release), [`restart`](Handle::restart),
//! [`reset`](Handle::reset), [`add`](Handle::add) and [`remove`](Handle::remove) are for
//! [operators](crate::operating#operating-a-running-supervisor).
//!
//! There is no async runtime, no global registry, and no unsafe code. A supervisor with nothing to
//! do wakes up for the poll of its flags and to look for the heartbeats of watched children only;
//! without either, not at all.
//!
//! # The life of a child
//!
//! ```text
//!             start               healthy_after, or mark_healthy
//!   due ────────────────▶ on trial ────────────────────────────▶ healthy
//!    ▲                       │                                      │
//!    │ backoff over          │ panic, error or return               │
//!    │                       ▼                                      │
//!    └────────────────── backing off ◀─────────────────────────────┘
//!                            │
//!                            │ more failures in a row than max_restarts, or a verdict
//!                            ▼
//!                         gave up ──▶ due, by reset or restart
//! ```
//!
//! A flag that is off, [`hold`](Handle::hold), [`restart`](Handle::restart),
//! [`remove`](Handle::remove) and a shutdown ask a running child to stop; that is no failure.
//!
//! | [`ChildStatus`] | meaning | [`CircuitState`] | what comes next |
//! | --- | --- | --- | --- |
//! | `OnTrial` | runs, not for long enough to be trusted | half-open; closed if nothing has failed | `Healthy` after `healthy_after` |
//! | `Healthy` | runs, and its failures are forgiven | closed | |
//! | `Stopping` | was asked to stop and still runs | open | reported as overdue after `stop_timeout`; the outermost supervisor shuts down after [`abandon_after`](ChildSpec::abandon_after) |
//! | `Waiting` | to be started [after](ChildSpec::after) another, which is not ready | open | started when that is ready |
//! | `BackingOff` | down after a failure | open | tried again when the backoff is over |
//! | `Off` | down: its flag is off, it is held, or the supervisor shuts down | open | started when it is wanted again and no backoff is left |
//! | `Due` | to be started in its turn, at once unless there is a [limit](SupervisorBuilder::max_starts_per_second) | open | |
//! | `Finished` | did what it was for, as a transient child | open | stays so until it is restarted by hand |
//! | `GaveUp` | failed more often than [`max_restarts`](ChildSpec::max_restarts) allows, or said that a retry is [useless](Verdict::give_up) | open | stays so until it is reset or restarted by hand |
//!
//! The whole table, in the order in which it decides, is at [`ChildStatus`].
//!
//! # What to use for what
//!
//! | you want | use | more |
//! | --- | --- | --- |
//! | a worker that is restarted when it fails | [`ChildSpec::new`], [`Backoff`] | [guide] |
//! | work that can be finished, or is done once | [`RestartPolicy::Transient`], [`ChildSpec::once`] | [guide](crate::guide#children) |
//! | an error to say that a retry is useless, or when to retry | [`Verdict`] | [guide](crate::guide#giving-up) |
//! | to switch children on and off at run time | [`SupervisorBuilder::enabled`], [`Handle::hold`] | [guide](crate::guide#flags) |
//! | a read or a lock that ends at a stop | [`ChildContext::on_stop`], [`ChildContext::recv`] | [guide](crate::guide#children) |
//! | a worker that hangs to be noticed | [`ChildSpec::watchdog`] | [guide](crate::guide#hanging-children) |
//! | to know where a thread is stuck, and to end the process if it stays so | [`ThreadInfo`], [`ChildSpec::abandon_after`] | [stuck threads](crate::stuck_threads) |
//! | callers that are rejected while a child is down | [`Breaker`] | [calling] |
//! | logs, metrics, an audit trail | [`TelemetrySink`], [`LogSink`] | [operating](crate::operating#telemetry) |
//! | a table of what runs and why not, a health endpoint | [`Handle::snapshot`] | [operating] |
//! | the supervisor itself to be watched | [`SupervisorBuilder::pulse`] | [stuck threads](crate::stuck_threads#who-watches-the-supervisor) |
//! | children that depend on one another, a migration first | [`ChildSpec::after`] | [dependencies] |
//! | a group of children with a life of its own | [`SupervisorBuilder::run`] | [nesting] |
//! | tests without threads and without waiting | [`Simulation`] | [testing] |
//! | to know what cannot be done | | [limitations] |
//! | to know what it runs on, and what may change | | [platforms] |
//! | to come from the Elixir package | | [comparison] |
//! | recipes: signals, clients of servers, workers by the dozen, a loop of your own | | [cookbook] |
//! | answers | | [FAQ](faq) |
//! | evidence and figures | | [how it is tested](crate::how_it_is_tested), [what it costs](crate::what_it_costs) |

mod backoff;
mod breaker;
mod builder;
mod child;
mod context;
mod core;
mod error;
mod event;
mod exit;
mod handle;
mod id;
#[cfg(test)]
mod proof;
mod report;
mod runtime;
mod simulation;
mod snapshot;
mod status;
mod supervisor;
mod sync;
mod telemetry;
mod thread_info;
mod unwind_safety;
mod verdict;
mod wording;

pub use crate::{
    backoff::Backoff,
    breaker::{Breaker, CallError, Permit, Rejected},
    builder::{StartError, StartErrorReason, SupervisorBuilder},
    child::{AddError, AddErrorReason, ChildSpec, RestartPolicy},
    context::{ChildContext, StopGuard},
    error::{
        CommandError, ConfigError, RecvError, RecvTimeoutError, SendError, Stopped, WaitError,
    },
    event::{Callback, Event, EventKind, FieldValue, LastStop, Order, StopCause, WaitingFor},
    exit::{ChildResult, Exit, Failure},
    handle::Handle,
    id::ChildId,
    report::{ChildGaveUp, ShutdownCause, ShutdownReport, StuckIn, Unstopped, UnstoppedPhase},
    simulation::{NotRunning, Simulation},
    snapshot::{ChildInfo, Counts, Snapshot},
    status::{ChildStatus, CircuitState, OffBy},
    supervisor::Supervisor,
    sync::{
        panic::Panic,
        unwind::{capture_panic_locations, is_supervised},
    },
    telemetry::{LogSink, TelemetrySink},
    thread_info::{ThreadInfo, ThreadState},
    verdict::Verdict,
};

#[cfg(doc)]
#[doc = include_str!("docs/guide.md")]
pub mod guide {}

#[cfg(doc)]
#[doc = include_str!("docs/cookbook.md")]
pub mod cookbook {}

#[cfg(doc)]
#[doc = include_str!("docs/calling.md")]
pub mod calling {}

#[cfg(doc)]
#[doc = include_str!("docs/operating.md")]
pub mod operating {}

#[cfg(doc)]
#[doc = include_str!("docs/dependencies.md")]
pub mod dependencies {}

#[cfg(doc)]
#[doc = include_str!("docs/stuck_threads.md")]
pub mod stuck_threads {}

#[cfg(doc)]
#[doc = include_str!("docs/nesting.md")]
pub mod nesting {}

#[cfg(doc)]
#[doc = include_str!("docs/testing.md")]
pub mod testing {}

#[cfg(doc)]
#[doc = include_str!("docs/limitations.md")]
pub mod limitations {}

#[cfg(doc)]
#[doc = include_str!("docs/platforms.md")]
pub mod platforms {}

#[cfg(doc)]
#[doc = include_str!("docs/comparison.md")]
pub mod comparison {}

#[cfg(doc)]
#[doc = include_str!("docs/faq.md")]
pub mod faq {}

#[cfg(doc)]
#[doc = include_str!("docs/how_it_is_tested.md")]
pub mod how_it_is_tested {}

#[cfg(doc)]
#[doc = include_str!("docs/what_it_costs.md")]
#[doc = ""] // a picture is a paragraph of its own
#[doc = include_str!("docs/growth.svg")]
pub mod what_it_costs {}

/// The README's code is compiled as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
