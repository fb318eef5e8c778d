//! The promises of the crate, put to the test on real threads through its public face.

#![allow(
    clippy::disallowed_methods,
    reason = "the ban keeps the library's logic off the clock and its spawns in one file; \
              tests are the outside world"
)]
#![allow(clippy::unwrap_used, reason = "a test that finds no value has failed")]

mod chronicle;
mod laws;
mod program;
mod reference;
mod subprocess;
mod support;

mod abandoned;
mod backoff;
mod blocking;
mod breaker;
mod callbacks;
mod clock;
mod contexts;
mod dependencies;
mod drops;
mod exit;
mod flags;
mod flood;
mod footprint;
mod force_stop;
mod input;
mod joins;
mod limits;
mod model;
mod nesting;
mod on_stop;
mod operating;
mod order_table;
mod ownership;
mod postponed;
mod process;
mod pulse;
mod queries;
mod races;
mod reentrancy;
mod restarting;
mod rooms;
mod seen;
mod shortage;
mod shutdown;
mod shutdown_order;
mod simulating;
mod slow_drops;
mod start;
mod start_rate;
mod stop_timeout;
mod storm;
mod stress;
mod stubborn;
#[cfg(target_os = "linux")]
mod stuck;
mod telemetry;
mod texts;
mod threads;
mod trees;
mod turns;
mod verdicts;
mod waiting_for_health;
mod watching;
