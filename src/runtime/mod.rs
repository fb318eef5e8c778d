//! The runtime: the supervisor thread, the children's threads, and the state that they share.
//!
//! # From a panic to the next run
//!
//! `core/…` is in `src`; the other files are in this folder.
//!
//! | file | what happens there |
//! | --- | --- |
//! | `child_thread` | `run_body` catches the panic; waits for a stop callback that is just being called; drops what was entrusted; puts the body back into `worker`; and sends the end of the run. The thread stays, unless the child wants fresh ones |
//! | `main_loop` | `wait` receives the message |
//! | `engine` | `handle_run_end` passes it to the core |
//! | `core/roster` | `run_ended` finds the child, and ignores any run but the present one |
//! | `core/circuit` | `end_run` counts the failure, and says what follows: here, that the child backs off |
//! | `core/roster/reporting` | `conclude_run` asks for the backoff, has it noted by `Circuit::back_off`, queues what is to be published and reported, and marks the child as unsettled |
//! | `engine` | `settle` repeats `Roster::next_step`; `EngineEnvironment::perform` carries out each action |
//! | `core/roster` | `carry_out` finds, by `Circuit::judge`, that there is nothing to do before the end of the backoff, and `leave_alone` sets a timer |
//! | `main_loop` | `wait` returns at that instant |
//! | `core/roster` | `expire`, which `settle` calls first, marks the child as unsettled; `carry_out` sees by `has_turn` that it may start, and asks the flag; `start` sees to it that there is a thread (`thread_registry`), publishes the run, and queues the report and the start signal; `date_start` dates the run |
//! | `environment` | `perform` has the start signal sent, last of all, by `WorkerShared::send_start` |
//! | `child_thread` | `obey` receives it, and `run_body` calls the body again |
//!
//! Without a backoff the timer is left out. Two interfaces lie on the way. The core asks its
//! `Environment`, which the proofs implement, too. Bodies run behind `Workers`: `thread_workers`
//! has threads for them, and `script` those of a [simulation](crate::Simulation).

pub(crate) mod breaker_state;
pub(crate) mod child_thread;
mod dependencies;
mod directory;
pub(crate) mod engine;
pub(crate) mod environment;
pub(crate) mod inbox;
mod kernel_thread;
pub(crate) mod lifecycle;
pub(crate) mod lineage;
pub(crate) mod live_threads;
pub(crate) mod main_loop;
pub(crate) mod pulse;
pub(crate) mod row;
pub(crate) mod script;
pub(crate) mod shared;
pub(crate) mod signs_of_life;
pub(crate) mod sinks;
pub(crate) mod thread_record;
pub(crate) mod thread_registry;
pub(crate) mod thread_workers;
pub(crate) mod tree;
mod user_call;
pub(crate) mod worker;
pub(crate) mod workers;
