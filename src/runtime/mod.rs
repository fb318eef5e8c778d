//! The runtime: the supervisor thread, the children's threads, and the state that they share.

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
