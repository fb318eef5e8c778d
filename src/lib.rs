//! Keeps the worker threads of a blocking program alive: each child is a closure on a thread of its own, behind a circuit
//! breaker.
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
//!         Ok(ctx.sleep(Duration::MAX)?) // until it is told to stop
//!     }))
//!     .start()?;
//! let worker = supervisor.handle().wait_for("worker", Duration::from_secs(10), |worker| worker.status == ChildStatus::Healthy)?;
//! assert_eq!(worker.run_number, 2);
//! assert!(supervisor.shutdown().is_clean());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//!
//! A [`Supervisor`] owns one thread that watches, and one thread for each child. A child's *body* is the closure that
//! [`ChildSpec::new`] is given; one execution of it is a *run*. When a run ends without having been asked to, by a panic, an
//! error or a return, the child's circuit breaker trips: the child stays down for a [`Backoff`], and then the body is run
//! again. A run that has lasted for `healthy_after`, or has called [`ChildContext::mark_healthy`], is trusted: the failures so
//! far are forgiven, and the next failure meets the shortest backoff again.
//!
//! Nothing is shared between children but the supervisor thread, and that never waits for one of them. A child that is slow
//! to stop, or never stops, keeps nobody but itself from running.
//!
//! Other threads look on and take part through a [`Handle`]: [`Handle::snapshot`] shows all children, and prints as a table
//! that says of each why it is down and when it is tried again; [`Handle::wait_for`] waits for a state;
//! [`hold`](Handle::hold), [`release`](Handle::release), [`restart`](Handle::restart), [`reset`](Handle::reset),
//! [`add`](Handle::add) and [`remove`](Handle::remove) are for operators.
//!
//! There is no async runtime, no global registry, and no unsafe code. A supervisor with nothing to do wakes up for the poll of
//! its flags only, and not at all without flags.
//!
//! # The circuit
//!
//! | [`ChildStatus`] | meaning | [`CircuitState`] | what comes next |
//! | --- | --- | --- | --- |
//! | `OnTrial` | runs, not for long enough to be trusted | half-open; closed if nothing has failed | `Healthy` after `healthy_after` |
//! | `Healthy` | runs, and its failures are forgiven | closed | |
//! | `Stopping` | was asked to stop and still runs | open | reported as overdue after `stop_timeout` |
//! | `BackingOff` | down after a failure | open | tried again when the backoff is over |
//! | `Off` | down: its flag is off, it is held, or the supervisor shuts down | open | started when it is wanted again and no backoff is left |
//! | `Due` | about to be started | open | |
//! | `Finished` | did what it was for, as a transient child | open | stays so until it is restarted by hand |
//! | `GaveUp` | failed more often than [`max_restarts`](ChildSpec::max_restarts) allows | open | stays so until it is reset by hand |
//!
//! The whole table, in the order in which it decides, is at [`ChildStatus`].
//!
//! # Children
//!
//! A child keeps one warm thread, on which all its runs follow one another, never two at the same time. So what the closure
//! captures lives on from run to run, after a panic as well, and so do thread-local variables. What has to be new for every
//! run, a connection for example, is made inside the body. A body that panics half-way through a change of its captured state
//! finds that state as it left it: the crate asserts unwind safety on its behalf.
//!
//! - [`ChildSpec::fresh_thread`] gives every run a new thread, for bodies that change theirs: affinity, priority, a C library's
//!   state.
//! - [`RestartPolicy::Transient`] is for work that can be finished: `Ok` ends it, an error or a panic trips the breaker.
//! - [`ChildSpec::once`] takes an `FnOnce`: it is run a single time, and is gone from the list when that has ended.
//! - [`ChildSpec::max_restarts`] gives up after so many restarts in a row; if the child is
//!   [`significant`](ChildSpec::significant), that ends the supervisor.
//!
//! A body is given a [`ChildContext`]. Its [`sleep`](ChildContext::sleep), [`recv`](ChildContext::recv) and
//! [`send`](ChildContext::send) end when the run is told to stop; [`is_stopping`](ChildContext::is_stopping) costs one atomic
//! load; [`on_stop`](ChildContext::on_stop) is the way out of a blocking system call.
//!
//! # Backoff
//!
//! Unless told otherwise, a child is down for 100 ms after its first failure, then 200 ms, 400 ms, and so on up to a minute,
//! each shortened by up to a tenth at random, so that children that failed together do not come back together. A supervisor
//! and each of its children may have another [`Backoff`]:
//!
//! ```
//! use circuit_breaker_supervisor::{Backoff, ChildSpec, Supervisor};
//! use std::time::Duration;
//!
//! let mut steep = Backoff::exponential(Duration::from_millis(50), Duration::from_secs(5));
//! assert_eq!(steep.preview(3), [50, 100, 200].map(Duration::from_millis));
//!
//! let supervisor = Supervisor::builder()
//!     .backoff(steep)
//!     .child(ChildSpec::new("probe", |ctx| Ok(ctx.sleep(Duration::MAX)?)).backoff(Backoff::constant(Duration::from_secs(30))))
//!     .start()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The time is counted from the moment at which the run ended, and a timer ends it: polls have no part in it. The first start
//! is immediate. Being switched off and on again is no failure, and neither shortens nor prolongs a backoff.
//!
//! # Flags
//!
//! [`SupervisorBuilder::enabled`] takes a closure that says of each child whether it is to run. It is asked for all children
//! every [`poll_interval`](SupervisorBuilder::poll_interval), 1 s by default, at once by [`Handle::check_now`], and for one
//! child right before each of its starts. `None` means "I cannot tell" and keeps the last answer. An operator's
//! [`hold`](Handle::hold) wins over the flag.
//!
//! # Telemetry
//!
//! All that happens is an [`Event`], and every [`TelemetrySink`] is given every event, in order, on the supervisor thread. The
//! event that a run has started comes before the first instruction of its body, the one that it has stopped after the last,
//! and tells [why it stopped](StopCause), [how the body ended](Exit) and when the child is tried again. Where no sink is
//! given, [`LogSink`] writes to the [`log`] crate. A closure is a sink by [`on_event`](SupervisorBuilder::on_event), and so is
//! the sender of a crossbeam channel:
//!
//! ```
//! use circuit_breaker_supervisor::{ChildSpec, Supervisor};
//! use std::time::Duration;
//!
//! let (sink, events) = crossbeam_channel::bounded(1024);
//! let supervisor = Supervisor::builder()
//!     .telemetry(sink)
//!     .child(ChildSpec::new("orders", |ctx| Ok(ctx.sleep(Duration::MAX)?)))
//!     .start()?;
//! supervisor.shutdown();
//! let names: Vec<_> = events.iter().map(|event| event.name()).collect();
//! assert_eq!(names, ["circuit_breaker_supervisor.child.start", "circuit_breaker_supervisor.child.stop"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Shutdown
//!
//! [`Supervisor::shutdown`] asks all children to stop, in reverse list order but without waiting in between, and then waits
//! for all of them together, each for its [`stop_timeout`](SupervisorBuilder::stop_timeout) at most, 5 s by default. The
//! [`ShutdownReport`] names those that did not stop; no other thread of a child is alive afterwards. `main` can return the
//! report: the exit code is 0 if it is clean. Dropping the supervisor shuts it down in the same way.
//!
//! [`Supervisor::wait`] leaves the decision to others: to [`Handle::request_shutdown`], called from a signal handler's thread
//! for example, or to a significant child that gives up.
//!
//! # Limitations
//!
//! - A thread cannot be killed. A body that neither looks at its context nor can be unblocked runs until the process ends: it
//!   is reported as [overdue](EventKind::Overdue), it is not started a second time, and the [`ShutdownReport`] names it.
//! - Only a panic that unwinds can be caught. With `panic = "abort"`, which is warned of through `log` at the first start, any
//!   panic ends the process; and so do a stack overflow, a panic in a destructor that runs because of a panic, a panic in the
//!   destructor of a thread-local variable, [`std::process::exit`] and [`std::process::abort`], and running out of memory.
//! - Each child takes a thread. On Linux with its usual settings about 16,000 threads are the end, and beyond that a new thread
//!   may abort the process inside the standard library instead of failing to start.
//! - A scoped thread ([`std::thread::scope`]) of a body must not wait on the body's context: if the body panics, the scope
//!   waits for that thread and that thread for the end of the run, for ever. Clones of the context are for
//!   [`std::thread::spawn`].
//! - After `fork`, the new process has none of these threads. Fork before a supervisor is started, or `exec` right away.
//! - On a small stack, a panic that prints its backtrace (`RUST_BACKTRACE=1`) may overflow the stack, which ends the process:
//!   give a child no [`stack_size`](ChildSpec::stack_size) below 64 KiB.
//! - `enabled`, `backoff` and the sinks run on the supervisor thread. One that is slow delays all supervision, and
//!   [`start`](SupervisorBuilder::start), although never a shutdown.
//!
//! # Differences from the Elixir package
//!
//! The crate brings Elixir's `circuit_breaker_supervisor` to threads.
//!
//! | there | here |
//! | --- | --- |
//! | `use CircuitBreakerSupervisor`, `start_link(children: …)` | [`Supervisor::builder`], [`child`](SupervisorBuilder::child), [`start`](SupervisorBuilder::start) |
//! | `child_startup_time`, 60 s | [`healthy_after`](SupervisorBuilder::healthy_after), 60 s |
//! | `poll_interval`, 1 s | [`poll_interval`](SupervisorBuilder::poll_interval), 1 s, for flags only |
//! | `backoff/1`, in milliseconds | [`backoff`](SupervisorBuilder::backoff), in [`Duration`](std::time::Duration)s, or [`Backoff::from_fn`] |
//! | `enabled?/1` | [`enabled`](SupervisorBuilder::enabled) |
//! | `shutdown` of a child's spec | [`stop_timeout`](ChildSpec::stop_timeout), after which nothing is killed |
//! | `[:circuit_breaker_supervisor, :child, :start]` and `:stop` | `circuit_breaker_supervisor.child.start`, `….stop`, and more: [`Event::name`] |
//! | `running_in_startup`, `running_past_startup` | [`ChildStatus::OnTrial`], [`ChildStatus::Healthy`] |
//! | `stopped_in_backoff`, `stopped_past_backoff`, `stopped_disabled` | [`BackingOff`](ChildStatus::BackingOff), [`Due`](ChildStatus::Due), [`Off`](ChildStatus::Off) |
//!
//! Changed on purpose:
//!
//! - A timer restarts a child at the end of its backoff; there, the next poll does.
//! - `backoff` is asked once for each failure and never for attempt 0; there, the first start asks for it too.
//! - Switching a child off and on is no failure; there, it counts as an attempt.
//! - A `backoff` or `enabled` that is not set has a default, and one that panics is contained; there, either takes the monitor
//!   down, and all counts with it.
//! - Stopping a slow child delays no other; there, the monitor waits for it.
//! - New are `mark_healthy`, transient and one-shot children, giving up, the operator's commands, snapshots, events with causes,
//!   and a shutdown that reports.
//!
//! # FAQ
//!
//! **My body blocks in `read`. How does it stop?** [`ChildContext::on_stop`] sets what is called when the run is told to stop: for
//! a socket `socket.shutdown(Shutdown::Both)` on a clone of it, for a listener a connection to its own address, for a process
//! whose output is read `kill`. [`std::net::TcpStream::connect`] has no socket yet that could be shut down: use its
//! `connect_timeout`. Where nothing can interrupt a call, let it time out and look at
//! [`is_stopping`](ChildContext::is_stopping) in between.
//!
//! **How do I pass state to a child, and how do I get it out?** The closure captures it. It has to be `Send + 'static`, and it
//! is there for every run:
//!
//! ```
//! use circuit_breaker_supervisor::{ChildSpec, Supervisor};
//!
//! let (lines, received) = crossbeam_channel::unbounded::<String>();
//! let (lengths, sent) = crossbeam_channel::unbounded();
//! let mut total = 0;
//! let counter = ChildSpec::new("counter", move |ctx| {
//!     loop {
//!         total += ctx.recv(&received)?.len();
//!         ctx.send(&lengths, total)?;
//!     }
//! });
//! let supervisor = Supervisor::builder().child(counter).start()?;
//! lines.send("twelve bytes".into())?;
//! assert_eq!(sent.recv()?, 12);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Why is `Ok` a failure?** Because a consumer that returns no longer consumes, and a supervisor that took this for success
//! would be silent about it. For work that can be done, use [`RestartPolicy::Transient`] or [`ChildSpec::once`]. A body that was
//! asked to stop may return whatever it likes.
//!
//! **How do I test my children?** A body that is a function of a `&ChildContext` and its parts is tested under a supervisor
//! with short times, by waiting for what should become true rather than sleeping:
//!
//! ```
//! use circuit_breaker_supervisor::{Backoff, ChildContext, ChildResult, ChildSpec, Supervisor};
//! use std::time::Duration;
//!
//! fn body(ctx: &ChildContext) -> ChildResult {
//!     if ctx.attempt_count() < 2 { Err("not yet".into()) } else { Ok(ctx.sleep(Duration::MAX)?) }
//! }
//!
//! let supervisor = Supervisor::builder()
//!     .backoff(Backoff::constant(Duration::ZERO))
//!     .telemetry(())
//!     .child(ChildSpec::new("body", body))
//!     .start()?;
//! supervisor.handle().wait_for("body", Duration::from_secs(10), |body| body.attempt_count == 2 && body.is_running())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Can I use it with tokio?** A body may build a runtime and block on it; let `on_stop` send what its main future selects on.
//! From async code, every call of a [`Handle`] that has no `wait` in its name returns at once; `shutdown`, `start` and the waits
//! block and belong on a blocking thread. For programs that are async throughout, a supervisor of tasks fits better.
//!
//! **How many children can there be?** As many as there can be threads: hundreds are nothing special, thousands work.
//! [`ChildSpec::stack_size`] says how much address space each reserves.
//!
//! **What does it log?** With [`LogSink`], one line for each event, under the target `circuit_breaker_supervisor`, with the facts
//! as key-values; its docs have the level of each. Whatever the sinks, four things go to `log`: a sink that panics, a
//! supervisor that is dropped and does not end cleanly, `panic = "abort"`, and a fault of the supervisor thread itself. Each
//! panic, of a body or a callback, is printed by the program's panic hook, too, which this crate leaves alone.

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

/// The README's code is compiled as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
