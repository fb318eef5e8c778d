//! Decision logic of a supervisor, without clocks, threads, channels, locks or logs.

pub(crate) mod circuit;
pub(crate) mod dependencies;
mod faults;
pub(crate) mod flag_cache;
pub(crate) mod interface;
pub(crate) mod key;
pub(crate) mod roster;
pub(crate) mod rules;
pub(crate) mod run;
mod start_rate;
