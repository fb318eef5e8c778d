//! The runtime: the supervisor thread, the children's threads, and the state that they share.
//!
//! # From a panic to the next run
//!
//! The files are of this folder, but for those of the core.
//!
//! | file | what happens there |
//! | --- | --- |
//! | `child_thread` | `run_body` catches the panic, puts the body back, and sends the end of the run; the thread stays |
//! | `main_loop` | `next_wake` receives the message |
//! | `engine` | `handle_run_end` passes it to the core |
//! | `core/roster` | `run_ended` finds the child, if the run is still the present one |
//! | `core/circuit` | `end_run` counts the failure, and says what follows: here, that the child backs off |
//! | `core/roster/reporting` | `conclude_run` asks for the backoff, and queues what is to be shown and reported |
//! | `engine` | `settle` takes the queued actions one by one, and has `environment::perform` carry them out |
//! | `core/roster` | `decide` finds, by `Circuit::judge`, that there is nothing to do before the end of the backoff, and `leave_alone` sets a timer |
//! | `main_loop` | `next_wake` waits for that instant |
//! | `core/roster` | `expire` wakes the child; `decide` asks the flag, and `start` sees to it that there is a thread, shows the run and queues the report and the start signal |
//! | `environment` | `perform` has the start signal sent, last of all |
//! | `child_thread` | `obey` receives it, and `run_body` calls the body again |
//!
//! What these call is passed on as it is: the `Environment` that the core asks, and the `Workers`
//! that the environment asks, are interfaces of which there is one more implementation each, for
//! the proofs and for the [simulation](crate::Simulation).

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
