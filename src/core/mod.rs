//! The decisions of a supervisor: no clock, thread, channel, lock or log.

pub(crate) mod circuit;
pub(crate) mod flag_cache;
pub(crate) mod key;
pub(crate) mod roster;
