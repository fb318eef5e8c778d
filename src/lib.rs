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
//!         Ok(ctx.sleep(Duration::MAX)?) // until it is told to stop
//!     }))
//!     .start()?;
//! let worker =
//!     supervisor.handle().wait_for("worker", Duration::from_secs(10), |worker| {
//!         worker.status == ChildStatus::Healthy
//!     })?;
//! assert_eq!(worker.run_number, 2);
//! assert!(supervisor.shutdown().is_clean());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//!
//! A [`Supervisor`] owns one thread that watches, and one thread for each child. A child's *body*
//! is the closure that [`ChildSpec::new`] is given; one execution of it is a *run*. When a run ends
//! without having been asked to, by a panic, an error or a return, the child's circuit breaker
//! trips: the child stays down for a [`Backoff`], and then the body is run again. A run that has
//! lasted for `healthy_after`, or has called [`ChildContext::mark_healthy`], is trusted: the
//! failures so far are forgiven, and the next failure meets the shortest backoff again, unless it
//! comes right after the run has said that it is well.
//!
//! Nothing is shared between children but the supervisor thread, and that never waits for one of
//! them. A child that is slow to stop, or never stops, keeps nobody but itself from running.
//!
//! Other threads look on and take part through a [`Handle`]: [`Handle::snapshot`] shows all
//! children, and prints as a table that says of each why it is down and when it is tried again;
//! [`Handle::wait_for`] waits for a state; [`hold`](Handle::hold), [`release`](Handle::release),
//! [`restart`](Handle::restart), [`reset`](Handle::reset), [`add`](Handle::add) and
//! [`remove`](Handle::remove) are for [operators](#operating-a-running-supervisor).
//!
//! There is no async runtime, no global registry, and no unsafe code. A supervisor with nothing to
//! do wakes up for the poll of its flags and to look for the heartbeats of watched children only;
//! without either, not at all.
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
//! A child keeps one warm thread, on which all its runs follow one another, never two at the same
//! time, until it has finished or is given up. So what the closure captures lives on from run to
//! run, after a panic as well, and so do thread-local variables. What has to be new for every run,
//! a connection for example, is made inside the body. A body that panics half-way through a change
//! of its captured state finds that state as it left it: the crate asserts unwind safety on its
//! behalf. A body that is to survive the panic of a single step catches it: the context and all
//! other handles of this crate are [unwind-safe](ChildContext#examples).
//!
//! - [`ChildSpec::fresh_thread`] gives every run a new thread, for bodies that change theirs:
//!   affinity, priority, a C library's state.
//! - [`RestartPolicy::Transient`] is for work that can be finished: `Ok` ends it, an error or a
//!   panic trips the breaker.
//! - [`ChildSpec::once`] takes an `FnOnce`: it is run a single time, and is gone from the list when
//!   that has ended.
//! - [`ChildSpec::max_restarts`] gives up after so many restarts in a row; if the child is
//!   [`significant`](ChildSpec::significant), that ends the supervisor.
//!
//! A body is given a [`ChildContext`]. Its [`sleep`](ChildContext::sleep),
//! [`recv`](ChildContext::recv) and [`send`](ChildContext::send) end when the run is told to stop;
//! [`is_stopping`](ChildContext::is_stopping) costs one atomic load;
//! [`on_stop`](ChildContext::on_stop) is the way out of a blocking system call.
//!
//! # Backoff
//!
//! Unless told otherwise, a child is down for 100 ms after its first failure, then 200 ms, 400 ms,
//! and so on up to a minute, each shortened by up to a tenth at random, so that children that
//! failed together do not come back together. A supervisor and each of its children may have
//! another [`Backoff`]:
//!
//! ```
//! use circuit_breaker_supervisor::{Backoff, ChildSpec, Supervisor};
//! use std::time::Duration;
//!
//! let mut steep =
//!     Backoff::exponential(Duration::from_millis(50), Duration::from_secs(5));
//! assert_eq!(steep.preview(3), [50, 100, 200].map(Duration::from_millis));
//!
//! let supervisor = Supervisor::builder()
//!     .backoff(steep)
//!     .child(
//!         ChildSpec::new("probe", |ctx| Ok(ctx.sleep(Duration::MAX)?))
//!             .backoff(Backoff::constant(Duration::from_secs(30))),
//!     )
//!     .start()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The time is counted from the moment at which the run ended, and a timer ends it: polls have no
//! part in it. The first start is immediate. Being switched off and on again is no failure, and
//! neither shortens nor prolongs a backoff.
//!
//! # Flags
//!
//! [`SupervisorBuilder::enabled`] takes a closure that says of each child whether it is to run. It
//! is asked for all children every [`poll_interval`](SupervisorBuilder::poll_interval), 1 s by
//! default, at once by [`Handle::check_now`], and for one child right before each of its starts.
//! `None` means "I cannot tell" and keeps the last answer. An operator's [`hold`](Handle::hold)
//! wins over the flag.
//!
//! # Calling through the breaker
//!
//! While a child is down, the code that depends on it must not pile up behind it. A [`Breaker`],
//! from [`ChildSpec::breaker`] or [`Handle::breaker`], is the callers' view of one child:
//! [`is_call_permitted`](Breaker::is_call_permitted) costs one atomic load; [`call`](Breaker::call)
//! rejects at once, without making the call, while the child is down or about to stop, and the
//! [`Rejected`] says why and how long it is until the child is tried again. Its docs draw the
//! states.
//!
//! Callers have a say, too. Ten failures in a row
//! ([`failure_threshold`](ChildSpec::failure_threshold)) that [`call`](Breaker::call) has seen or
//! [`report_failure`](Breaker::report_failure) was told of open the breaker for everybody, and the
//! child is restarted after its backoff, as after a failure of its own: a connection that no longer
//! answers is made anew. A half-open breaker opens at the first.
//! [`wait_until_permitted`](Breaker::wait_until_permitted) waits for better times, and
//! [`permit`](Breaker::permit) is for calls that do not fit into a closure.
//!
//! ```
//! use circuit_breaker_supervisor::{CallError, ChildSpec, Supervisor};
//! use std::time::Duration;
//!
//! let mailer = ChildSpec::new("mailer", |ctx| Ok(ctx.sleep(Duration::MAX)?))
//!     .failure_threshold(3);
//! let breaker = mailer.breaker();
//! let supervisor = Supervisor::builder().child(mailer).start()?;
//!
//! for _ in 0..3 {
//!     let result: Result<(), _> = breaker.call(|| Err("the server does not answer"));
//!     assert!(matches!(result, Err(CallError::Failed(_))));
//! }
//! let Err(rejected) = breaker.permit() else {
//!     panic!("three failures in a row trip it")
//! };
//! println!("{rejected}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | here | breaky | failsafe | gobreaker | resilience4j |
//! | --- | --- | --- | --- | --- |
//! | [`Breaker::call`] | `breaky:call` | `CircuitBreaker::call` | `Execute` | `executeCallable` |
//! | [`CallError::Rejected`] | `off`, `open` | `Error::Rejected` | `ErrOpenState` | `CallNotPermittedException` |
//! | [`is_call_permitted`](Breaker::is_call_permitted) | | `is_call_permitted` | `State` | `tryAcquirePermission` |
//! | [`report_failure`](Breaker::report_failure) | `failure/1` | `on_error` | a `done(false)` of the two-step breaker | `onError` |
//! | [`failure_threshold`](ChildSpec::failure_threshold), 10 | `failure_threshold`, 10 | `consecutive_failures` | `ReadyToTrip` | `failureRateThreshold` |
//! | the child's [`Backoff`] | `retry_timeout` | `backoff` | `Timeout` | `waitDurationInOpenState` |
//! | on trial: `healthy_after`, `mark_healthy` | | a success | `MaxRequests` successes | `permittedNumberOfCallsInHalfOpenState` |
//! | [`call_with`](Breaker::call_with) | | `call_with` | `IsSuccessful` | `ignoreExceptions` |
//!
//! What is different here: there is something behind the breaker that can be restarted, and whether
//! that is well decides. A half-open breaker admits all callers and not a few; success of a call
//! does not close it, the child's health does.
//!
//! # Telemetry
//!
//! All that happens is an [`Event`], and every [`TelemetrySink`] is given every event, in order, on
//! the supervisor thread. The event that a run has started comes before the first instruction of
//! its body, the one that it has stopped after the last, and tells [why it stopped](StopCause),
//! [how the body ended](Exit) and when the child is tried again. The commands of operators are
//! events, too, as they are [carried out](EventKind::Ordered). Where no sink is given, [`LogSink`]
//! writes to the [`log`] crate. A closure is a sink by [`on_event`](SupervisorBuilder::on_event),
//! and so is the sender of a crossbeam channel:
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
//! assert_eq!(
//!     names,
//!     [
//!         "circuit_breaker_supervisor.child.start",
//!         "circuit_breaker_supervisor.child.stop"
//!     ]
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Operating a running supervisor
//!
//! Any thread may ask and command a supervisor through a [`Handle`], bodies, sinks and callbacks
//! included; a body finds it in [`ctx.supervisor()`](ChildContext::supervisor). What a command does
//! to a child in which state is drawn in the table at [`Handle`]; in short:
//!
//! | command | what it is for |
//! | --- | --- |
//! | [`hold`](Handle::hold), [`release`](Handle::release) | the operator's override of the flag: a held child stays down, through crashes and polls, until it is released |
//! | [`restart`](Handle::restart) | stop it if it runs, forgive its failures, start it |
//! | [`reset`](Handle::reset) | forgive its failures: a backoff ends now, a given-up child is tried again, a running one runs on |
//! | [`add`](Handle::add), [`remove`](Handle::remove) | children that come and go while the program runs |
//! | [`check_now`](Handle::check_now) | ask all flags now instead of at the next poll |
//! | [`request_shutdown`](Handle::request_shutdown) | end it all |
//!
//! A command is checked on the caller's thread and carried out by the supervisor's, in the order
//! given; so `Ok` means *accepted*. [`wait_for`](Handle::wait_for) waits until it shows,
//! [`wait_until_gone`](Handle::wait_until_gone) until a removed or one-shot child has ended,
//! [`wait_until_stopped`](Handle::wait_until_stopped) until the supervisor has. A wait has a time
//! limit, and its error holds what was known last; on the supervisor's own thread, in a sink for
//! example, it is an error at once.
//!
//! ```
//! use circuit_breaker_supervisor::{ChildSpec, Supervisor};
//! use std::time::Duration;
//!
//! const LIMIT: Duration = Duration::from_secs(10);
//!
//! let supervisor = Supervisor::builder().start()?;
//! let handle = supervisor.handle();
//! handle.add(ChildSpec::new("orders", |ctx| Ok(ctx.sleep(Duration::MAX)?)))?;
//! handle.wait_for("orders", LIMIT, |orders| orders.is_running())?;
//!
//! handle.hold("orders")?;
//! let orders = handle.wait_for("orders", LIMIT, |orders| !orders.is_running())?;
//! assert!(
//!     orders.to_string().starts_with(
//!         "`orders` is off (operator): held by the operator until released"
//!     )
//! );
//!
//! handle.release("orders")?;
//! handle.wait_for("orders", LIMIT, |orders| orders.is_running())?;
//! handle.remove("orders")?;
//! handle.wait_until_gone("orders", LIMIT)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Why is it down, and when is it tried again? [`ChildInfo`] has the facts, and prints as one
//! sentence: `` `orders` is backing off: it failed after 1.3 s: the broker hung up; 1 failure;
//! tried again in 73 ms ``. A [`Snapshot`] prints as a table of all children, and
//! [`Snapshot::is_healthy`] is the answer for a health endpoint. The examples `operator` and
//! `health` are a console and an HTTP server to start from.
//!
//! # Giving up
//!
//! By itself a child is tried again for ever, at the longest backoff in the end.
//! [`ChildSpec::max_restarts`] sets how often it is restarted in a row without becoming healthy in
//! between; the failure after that gives it up. It is then in the state
//! [`GaveUp`](ChildStatus::GaveUp), which is reported once, and stays down until it is reset or
//! restarted by hand.
//!
//! Where a program is of no use without a child, the child is
//! [`significant`](ChildSpec::significant): giving it up shuts the supervisor down,
//! [`Supervisor::wait`] returns, and [`ShutdownReport::cause`] names the child and its last exit:
//!
//! ```
//! use circuit_breaker_supervisor::{Backoff, ChildSpec, ShutdownCause, Supervisor};
//! use std::time::Duration;
//!
//! let supervisor = Supervisor::builder()
//!     .backoff(Backoff::constant(Duration::from_millis(1)))
//!     .child(
//!         ChildSpec::new("database", |_| Err("no such host".into()))
//!             .max_restarts(2)
//!             .significant(true),
//!     )
//!     .start()?;
//! let report = supervisor.wait();
//! let ShutdownCause::GaveUp { id, exit, .. } = &report.cause else { unreachable!() };
//! assert_eq!((id.as_str(), exit.message()), ("database", Some("no such host")));
//! assert!(!report.is_clean()); // `main` may return the report: the exit code is 1
//!
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Hanging children
//!
//! A child that neither returns nor fails is not noticed by itself: a read from a device that has
//! fallen silent, a deadlock, an endless loop. With a [`watchdog`](ChildSpec::watchdog) the body
//! says now and then what it is about to do, by [`ctx.heartbeat`](ChildContext::heartbeat), which
//! costs some nanoseconds. If it is silent for longer than the limit, the event
//! [`Hung`](EventKind::Hung) tells what it was doing; it is told to stop, its
//! [`on_stop`](ChildContext::on_stop) callbacks unblock it, and the end of that run is a failure
//! with the cause [`StopCause::Hung`], whatever the body returns. If it does not stop, it is
//! overdue, and keeps nobody but itself from running: a thread cannot be killed.
//!
//! - The watch begins with the first heartbeat of a run: a slow start is no hang, and a body that
//!   gives none is not watched.
//! - A silence is noticed after one to one and a quarter of the limit, give or take a millisecond,
//!   provided that no callback holds the supervisor thread.
//! - Stalls are discounted: where the machine slept, or the process was stopped or starved, the
//!   supervisor comes late to its next look at the child, and however late that is, it counts as a
//!   quarter of the limit. So an hour's sleep of the machine is no hour of silence, and a hang
//!   during a stall is noticed later.
//! - Waiting is silence, too. A body that waits for work in [`recv`](ChildContext::recv) for longer
//!   than the limit is told to stop; let it wait with a time limit of its own, and give a heartbeat
//!   each time.
//!
//! # Nesting
//!
//! A child may be a supervisor itself, for children that belong together:
//! [`SupervisorBuilder::run`] supervises on the child's thread, until the child is told to stop.
//!
//! ```
//! use circuit_breaker_supervisor::{ChildContext, ChildResult, ChildSpec, Supervisor};
//! use std::time::Duration;
//!
//! fn ingest(ctx: &ChildContext) -> ChildResult {
//!     Supervisor::builder()
//!         .child(ChildSpec::new("orders", |ctx| Ok(ctx.sleep(Duration::MAX)?)))
//!         .child(
//!             ChildSpec::new("feed", |ctx| Ok(ctx.sleep(Duration::MAX)?))
//!                 .max_restarts(3)
//!                 .significant(true),
//!         )
//!         .run(ctx)
//! }
//!
//! let (sink, events) = crossbeam_channel::unbounded();
//! let supervisor = Supervisor::builder()
//!     .telemetry(sink)
//!     .child(ChildSpec::new("ingest", ingest))
//!     .start()?;
//! let ids: Vec<_> = events.iter().take(3).map(|event| event.id).collect();
//! assert_eq!(ids, ["ingest", "ingest/orders", "ingest/feed"]);
//! assert!(supervisor.shutdown().is_clean());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - Ids are paths, in events, flags, thread names and logs; so a `/` in an id of one's own is
//!   allowed, and may mislead. The [sequence](Event::seq) of events is counted for each supervisor.
//! - Sinks are inherited unless the nested supervisor has its own; settings and flags are not. The
//!   flag of the outer child switches its whole branch, and so do `hold`, `restart` and `remove`.
//! - A crash inside stays inside: the outer supervisor sees a child that runs. Its snapshot has no
//!   row for what is below, and its health is not the branch's; inside,
//!   [`ctx.supervisor()`](ChildContext::supervisor) is the handle of the branch.
//! - A branch fails as a whole when a significant child is given up, or when it is shut down by its
//!   own handle. The body that built it runs again after the outer child's backoff, and makes its
//!   children anew; what was added by hand is gone.
//! - At a stop the leaves go first. [`run`](SupervisorBuilder::run) returns when no thread below it
//!   is alive, however long that takes; so a grandchild that does not stop is reported as overdue,
//!   and makes the outer child overdue, which is what the outer [`ShutdownReport`] names. Give the
//!   outer child a longer [`stop_timeout`](ChildSpec::stop_timeout) than those below.
//!
//! # Panic locations
//!
//! The text of a panic is part of the [`Exit`]; its file and line are told to the process-wide
//! panic hook alone. A program that wants them in its events and snapshots calls
//! [`capture_panic_locations`] at the beginning of `main`: [`Panic::location`] is known from then
//! on, and the end of a run reads `panicked after 3.2 s: index out of bounds (src/orders.rs:41:9)`.
//! It chains to the hook that is there, which goes on printing, and looks at nothing but panics in
//! code that a supervisor called.
//!
//! # Shutdown
//!
//! [`Supervisor::shutdown`] asks all children to stop, in reverse list order but without waiting in
//! between, and then waits for all of them together, each for its
//! [`stop_timeout`](SupervisorBuilder::stop_timeout) at most, 5 s by default. The
//! [`ShutdownReport`] names those that did not stop; no other thread of a child is alive
//! afterwards. `main` can return the report: the exit code is 0 if it is clean. One that is not is
//! logged as well, so that it may be left alone. Dropping the supervisor shuts it down in the same
//! way; [`shutdown_within`](Supervisor::shutdown_within) sets a limit for all of it.
//!
//! [`Supervisor::wait`] leaves the decision to others: to [`Handle::request_shutdown`], called from
//! a signal handler's thread for example, or to a significant child that gives up.
//!
//! # Testing what you built
//!
//! A [`Simulation`] is the same supervisor on virtual time and without threads. It is made of the
//! program's own builder, so that a test sees the program's own backoff, flag and sinks at work:
//! hours pass in microseconds, a child crashes when the test says so, and the same seed gives the
//! same events.
//!
//! ```
//! use circuit_breaker_supervisor::{Backoff, ChildSpec, Exit, Simulation, Supervisor};
//! use std::time::Duration;
//!
//! let hour = Duration::from_secs(3600);
//! let builder = Supervisor::builder()
//!     .backoff(Backoff::exponential(Duration::from_secs(1), hour).jitter(0.0))
//!     .child(ChildSpec::new("orders", |ctx| Ok(ctx.sleep(Duration::MAX)?)));
//! let mut simulation = Simulation::new(builder, 1)?;
//! simulation.advance(hour);
//! simulation.exit("orders", Exit::panicked("index out of bounds"))?;
//! assert_eq!(
//!     simulation.handle().child("orders").and_then(|orders| orders.retry_in),
//!     Some(Duration::from_secs(1))
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limitations
//!
//! - A thread cannot be killed. A body that neither looks at its context nor can be unblocked runs
//!   until the process ends: it is reported as [overdue](EventKind::Overdue), it is not started a
//!   second time, and the [`ShutdownReport`] names it.
//! - A thread counts as gone once its Rust thread-local variables are dropped. Destructors that C
//!   libraries have set for it (keys of pthreads) run after that; nobody waits for them, and no
//!   report names them.
//! - Only a panic that unwinds can be caught. With `panic = "abort"`, which is warned of through
//!   `log` at the first start, any panic ends the process; and so do a stack overflow, a panic in a
//!   destructor that runs because of a panic, a panic in the destructor of a thread-local variable,
//!   [`std::process::exit`] and [`std::process::abort`], and running out of memory.
//! - Each child takes a thread. On Linux with its usual settings about 16,000 threads are the end,
//!   and beyond that a new thread may abort the process inside the standard library instead of
//!   failing to start.
//! - A scoped thread ([`std::thread::scope`]) of a body must not wait on the body's context: if the
//!   body panics, the scope waits for that thread and that thread for the end of the run, for ever.
//!   Clones of the context are for [`std::thread::spawn`].
//! - After `fork`, the new process has none of these threads. Fork before a supervisor is started,
//!   or `exec` right away.
//! - Some machines have no 64-bit atomics, such as those of ARMv5TE, 32-bit MIPS, PowerPC and
//!   RISC-V, and Xtensa. There a number behind a lock takes their place, and what is said to cost
//!   an atomic load costs a short lock: asking and reporting to a [`Breaker`], and
//!   [heartbeats](ChildContext::heartbeat).
//! - On a small stack, a panic that prints its backtrace (`RUST_BACKTRACE=1`) may overflow the
//!   stack, which ends the process: give a child no [`stack_size`](ChildSpec::stack_size) below 64
//!   KiB.
//! - `enabled`, `backoff` and the sinks run on the supervisor thread. One that is slow delays all
//!   supervision, and [`start`](SupervisorBuilder::start), which does not return while one blocks,
//!   although never a shutdown. What is dropped of a child, its closures and its errors among it,
//!   is dropped on the child's own thread and delays no other.
//! - The sinks that a nested supervisor inherits are called on its thread as well as on the outer
//!   one's, possibly at the same time. The events of each supervisor are in order, those of
//!   different ones come as they come.
//! - The last error of each child is kept, also after the end, for those who still have a handle.
//!   One that holds a [`Handle`] or a [`ChildContext`] of the same supervisor keeps that handle in
//!   turn, and the memory of both is never freed: what a failed [`send`](ChildContext::send) or
//!   [`add`](Handle::add) gives back may hold one.
//! - A [snapshot](Handle::snapshot) shows the children of one supervisor, not those of supervisors
//!   nested below it.
//! - A [watchdog](ChildSpec::watchdog) sees that a body is silent, not that it does no good: one
//!   that gives heartbeats in an endless loop is not noticed.
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
//! - `backoff` is asked once for each failure that is retried and never for attempt 0; there, the
//!   first start asks for it too.
//! - Switching a child off and on is no failure; there, it counts as an attempt.
//! - A `backoff` or `enabled` that is not set has a default, and one that panics is contained;
//!   there, either takes the monitor down, and all counts with it.
//! - Stopping a slow child delays no other; there, the monitor waits for it.
//! - A nested supervisor is a child's body, [`SupervisorBuilder::run`]; there, a supervisor is a
//!   child like any process.
//! - New are `mark_healthy`, transient and one-shot children, giving up, watchdogs, the operator's
//!   commands, snapshots, events with causes, and a shutdown that reports.
//!
//! # FAQ
//!
//! **My body blocks in `read`. How does it stop?** [`ChildContext::on_stop`] sets what is called
//! when the run is told to stop: for a socket `socket.shutdown(Shutdown::Both)` on a clone of it,
//! for a listener a connection to its own address, for a process whose output is read `kill`.
//! [`std::net::TcpStream::connect`] has no socket yet that could be shut down: use its
//! `connect_timeout`. Where nothing can interrupt a call, as with a serial port or a UDP socket,
//! let it time out and look at [`is_stopping`](ChildContext::is_stopping) in between:
//!
//! ```no_run
//! use circuit_breaker_supervisor::{ChildContext, ChildResult};
//! use std::{io::ErrorKind, net::UdpSocket, time::Duration};
//!
//! fn body(ctx: &ChildContext) -> ChildResult {
//!     let socket = UdpSocket::bind("127.0.0.1:7000")?;
//!     socket.set_read_timeout(Some(Duration::from_millis(200)))?;
//!     let mut buffer = [0; 1500];
//!     while !ctx.is_stopping() {
//!         match socket.recv(&mut buffer) {
//!             Ok(length) => println!("{length} bytes"),
//!             Err(error)
//!                 if matches!(
//!                     error.kind(),
//!                     ErrorKind::WouldBlock | ErrorKind::TimedOut
//!                 ) =>
//!             {
//!                 continue;
//!             }
//!             Err(error) => return Err(error.into()),
//!         }
//!     }
//!     Ok(())
//! }
//! # let _ = body;
//! ```
//!
//! **Which channels does the context wait on?** Those of the crate `crossbeam-channel`, version
//! 0.5, which a program that uses [`recv`](ChildContext::recv), [`send`](ChildContext::send) or
//! [`stopped`](ChildContext::stopped) has among its own dependencies. A body may use any other
//! channel by itself; to be stopped there, it needs [`on_stop`](ChildContext::on_stop).
//!
//! **How do I pass state to a child, and how do I get it out?** The closure captures it. It has to
//! be `Send + 'static`, and it is there for every run:
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
//! **Why is `Ok` a failure?** Because a consumer that returns no longer consumes, and a supervisor
//! that took this for success would be silent about it. For work that can be done, use
//! [`RestartPolicy::Transient`] or [`ChildSpec::once`]. A body that was asked to stop may return
//! whatever it likes.
//!
//! **Why did my watchdog stop a child that was only idle?** Because waiting is silence, too: see
//! [Hanging children](#hanging-children). The channels of the context wait without end; to beat in
//! between, wait with `select!` on [`ctx.stopped()`](ChildContext::stopped) and a
//! [`tick`](crossbeam_channel::tick).
//!
//! **How do I restart several children together?** Make them the children of a nested supervisor:
//! restarting the outer child stops them all, and starts them all anew. If one of them is to take
//! the others down when it fails, it is [`significant`](ChildSpec::significant) with
//! `max_restarts(0)`.
//!
//! **How do I see all that is down, in one place?** Each supervisor has a
//! [snapshot](Handle::snapshot) of its own. For a tree, keep what the events say in a sink: they
//! carry the whole path, and inherited sinks get those of all branches.
//!
//! **How do I test my children?** A body that is a function of a `&ChildContext` and its parts is
//! tested under a supervisor with short times, by waiting for what should become true rather than
//! sleeping:
//!
//! ```
//! use circuit_breaker_supervisor::{
//!     Backoff, ChildContext, ChildResult, ChildSpec, Supervisor,
//! };
//! use std::time::Duration;
//!
//! fn body(ctx: &ChildContext) -> ChildResult {
//!     if ctx.attempt_count() < 2 {
//!         Err("not yet".into())
//!     } else {
//!         Ok(ctx.sleep(Duration::MAX)?)
//!     }
//! }
//!
//! let supervisor = Supervisor::builder()
//!     .backoff(Backoff::constant(Duration::ZERO))
//!     .telemetry(())
//!     .child(ChildSpec::new("body", body))
//!     .start()?;
//! supervisor.handle().wait_for("body", Duration::from_secs(10), |body| {
//!     body.attempt_count == 2 && body.is_running()
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Can I use it with tokio?** A body may build a runtime and block on it; let `on_stop` send what
//! its main future selects on. From async code, every call of a [`Handle`] that has no `wait` in
//! its name returns at once; `shutdown`, `start` and the waits block and belong on a blocking
//! thread. For programs that are async throughout, a supervisor of tasks fits better.
//!
//! **How many children can there be?** As many as there can be threads: hundreds are nothing
//! special, thousands work. [`ChildSpec::stack_size`] says how much address space each reserves.
//!
//! **What does it log?** With [`LogSink`], one line for each event, under the target
//! `circuit_breaker_supervisor`, with the facts as key-values; its docs have the level of each.
//! Whatever the sinks, five things go to `log`: a sink that panics, a callback that panics for a
//! child that is gone, a shutdown that is not clean, `panic = "abort"`, and a fault of the
//! supervisor thread itself. Each panic, of a body or a callback, is printed by the program's panic
//! hook, too, which this crate leaves alone.

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
mod unwind_safety;

pub use crate::{
    backoff::Backoff,
    breaker::{Breaker, CallError, Permit, Rejected},
    builder::{StartError, StartErrorReason, SupervisorBuilder},
    child::{ChildSpec, RestartPolicy},
    context::{ChildContext, StopGuard},
    error::{
        AddError, AddErrorReason, ChildGaveUp, CommandError, Invalid, RecvError, SendError,
        Stopped, WaitError,
    },
    event::{Callback, Event, EventKind, LastStop, Order, StopCause},
    exit::{ChildResult, Exit, Failure},
    handle::Handle,
    id::ChildId,
    report::{ShutdownCause, ShutdownReport, StuckIn, Unstopped, UnstoppedPhase},
    simulation::{NotRunning, Simulation},
    snapshot::{ChildInfo, Counts, Snapshot},
    status::{ChildStatus, CircuitState, OffBy},
    supervisor::Supervisor,
    sync::{panic::Panic, unwind::capture_panic_locations},
    telemetry::{LogSink, TelemetrySink},
};

#[cfg(doc)]
#[doc = include_str!("docs/how_it_is_tested.md")]
pub mod how_it_is_tested {}

#[cfg(doc)]
#[doc = include_str!("docs/what_it_costs.md")]
pub mod what_it_costs {}

/// The README's code is compiled as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
