//! The runtime: the supervisor thread, the children's threads, and the state that they share.

pub(crate) mod breaker_state;
pub(crate) mod engine;
pub(crate) mod inbox;
pub(crate) mod lineage;
pub(crate) mod main_loop;
pub(crate) mod shared;
pub(crate) mod thread_registry;
pub(crate) mod threads;
pub(crate) mod worker;
