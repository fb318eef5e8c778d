//! The runtime: the supervisor thread, the children's threads, and the state that they share.
//!
//! # From a panic to the next run
//!
//! The files are of this folder, but for those of the core.
//!
//! | file | what happens there |
//! | --- | --- |
//! | `worker` | `run` catches the panic, puts the body back into its slot, and sends the end of the run; the thread stays |
//! | `main_loop` | `next` receives the message |
//! | `engine` | `handle` and `run_ended` pass it to the core |
//! | `core/roster` | `run_ended` finds the child, if the run is still the present one |
//! | `core/circuit` | `end` counts the failure, and says what follows: here, that the child backs off |
//! | `core/roster/reporting` | `tell_end` asks for the backoff, and queues what is to be shown and reported |
//! | `engine` | `settle` takes the queued actions, and `environment::perform` carries them out |
//! | `core/roster` | `decide` finds, by `Circuit::judge`, that there is nothing to do before the end of the backoff, and `rest` sets a timer |
//! | `main_loop` | `next` waits for that instant |
//! | `core/roster` | `expire` wakes the child; `decide` asks the flag, and `start` sees to it that there is a thread, shows the run and queues the report and the start signal |
//! | `environment` | `perform` has the start signal sent by `WorkerShared::send_start`, last of all |
//! | `worker` | `serve` receives it, and `run` calls the body again |

pub(crate) mod breaker_state;
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
pub(crate) mod thread_registry;
pub(crate) mod thread_workers;
mod user_call;
pub(crate) mod worker;
pub(crate) mod workers;
