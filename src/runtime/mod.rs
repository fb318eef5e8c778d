//! The runtime: the supervisor thread, the children's threads, and the state that they share.
//!
//! # From a panic to the next run
//!
//! | file | what happens there |
//! | --- | --- |
//! | `worker` | `run` catches the panic, puts the body back into its slot, and sends the end of the run |
//! | `main_loop` | `next` receives the message |
//! | `engine` | `handle` and `run_ended` pass it to the core, and `settle` carries out what follows |
//! | `core/roster` | `run_ended` finds the child, if the run is still the present one |
//! | `core/circuit` | `end` counts the failure, and says what follows: here, that the child backs off |
//! | `core/roster/reporting` | `tell_end` asks for the backoff, publishes the new state and reports the end |
//! | `environment` | `perform` shows and records that; until here all happens at once |
//! | `core/roster` | at the end of the backoff, `decide` asks the flag, and `start` gets a thread, publishes the run and reports the start |
//! | `environment` | `perform` sends the start signal, last of all |
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
pub(crate) mod sinks;
pub(crate) mod thread_registry;
pub(crate) mod thread_workers;
mod user_call;
pub(crate) mod worker;
pub(crate) mod workers;
