//! The runtime: the supervisor thread, the children's threads, and the state that they share.
//!
//! # From a panic to the next run
//!
//! The files are of this folder, but for those of the core.
//!
//! | file | what happens there |
//! | --- | --- |
//! | `child_thread` | `run_body` catches the panic; waits for the run's stop callbacks, if any runs; drops what was entrusted; puts the body back into `worker`; and sends the end of the run. The thread stays, unless the child wants fresh ones |
//! | `main_loop` | `wait` receives the message |
//! | `engine` | `handle_run_end` passes it to the core |
//! | `core/roster` | `run_ended` finds the child, if the run is still the present one |
//! | `core/circuit` | `end_run` counts the failure, and says what follows: here, that the child backs off |
//! | `core/roster/reporting` | `conclude_run` asks for the backoff, has it noted by `Circuit::back_off`, queues what is to be published and reported, and marks the child as unsettled |
//! | `engine` | `settle` has the core take one step after another, by `Roster::next_step`, and `EngineEnvironment::perform` carry out the actions |
//! | `core/roster` | `carry_out` finds, by `Circuit::judge`, that there is nothing to do before the end of the backoff, and `leave_alone` sets a timer |
//! | `main_loop` | `wait` returns at that instant |
//! | `core/roster` | `expire`, which `settle` calls first, wakes the child; `carry_out` asks the flag, and `start` sees to it that there is a thread, publishes the run, and queues the report and the start signal; `date_start` dates the run |
//! | `environment` | `perform` has the start signal sent, last of all, by `WorkerShared::send_start` |
//! | `child_thread` | `obey` receives it, and `run_body` calls the body again |
//!
//! Two interfaces lie on the way. Of `Environment`, which the core asks, the proofs have
//! implementations of their own; of `Workers`, which the environment has run the bodies, there is
//! the script of a [simulation](crate::Simulation) beside the threads.

pub(crate) mod breaker_state;
pub(crate) mod child_thread;
mod directory;
pub(crate) mod engine;
pub(crate) mod environment;
pub(crate) mod inbox;
pub(crate) mod lifecycle;
pub(crate) mod lineage;
pub(crate) mod main_loop;
pub(crate) mod row;
pub(crate) mod script;
pub(crate) mod shared;
pub(crate) mod signs_of_life;
pub(crate) mod sinks;
pub(crate) mod thread_record;
pub(crate) mod thread_registry;
pub(crate) mod thread_workers;
mod user_call;
pub(crate) mod worker;
pub(crate) mod workers;
