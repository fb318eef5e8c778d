//! Loom models of the small parts in which threads share locks and atomics.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --lib interleavings` explores them. The code is the crate's
//! own, over the locks, atomics and waits of `sync/primitives.rs`: the stop signal with its
//! callbacks and guards, the breaker state with the callers that report to it, the wait for news,
//! the heartbeats, and what a child's thread shares with its supervisor. Loom follows every order
//! in which two or three threads can take their steps. For loads and stores without a lock, it also
//! follows what weak memory allows beyond that. It reports a thread that waits for ever.
//!
//! Loom does not show the following, which other checks cover:
//!
//! - The memory order of crossbeam's channels. A message is one step here, and loom does not follow
//!   what it publishes. Covered by the stress test and ThreadSanitizer.
//! - Waits that time out. Loom does not model time: a wait with a deadline is one without. Covered
//!   by tests on real threads.
//! - The last drop of an `Arc`. The models use the standard library's. Covered by AddressSanitizer.
//! - Spawning, and the registry of threads. Threads are loom's, and the tests spawn them. Covered
//!   by tests on real threads.
//! - Panics, by which loom reports its findings. Covered by tests on real threads.
//!
//! A test whose name ends with `bounded` explores only schedules of at most `PREEMPTIONS` switches
//! away from a thread that could continue. The others explore all schedules.

mod breaker;
mod handles;
mod news;
mod stop_signal;
mod worker;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering as Seen},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, unbounded};
use loom::thread::{self, JoinHandle};

use crate::{
    core::rules::Defaults,
    runtime::{inbox::Message, shared::Shared},
    sync::clock::Clock,
};

/// The bound of preemptions, that is of switches away from a thread that could continue, in the
/// tests that do not explore all schedules.
const PREEMPTIONS: usize = 3;

/// A counter of the test itself. It is a real atomic, so that loom does not explore its accesses.
type Count = Arc<AtomicU32>;

fn explore(name: &str, bound: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let schedules = Count::default();
    let counted = schedules.clone();
    let mut builder = loom::model::Builder::new();
    // `LOOM_MAX_PREEMPTIONS` has precedence: `Builder::new` has read it.
    builder.preemption_bound = builder.preemption_bound.or(bound);
    builder.max_branches = 20_000;
    builder.check(move || {
        counted.fetch_add(1, Seen::Relaxed);
        model();
    });
    println!("{name}: {} schedules", schedules.load(Seen::Relaxed));
}

fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    thread::spawn(f)
}

/// What a supervisor shares with its handles, and the inbox of the supervisor thread.
fn shared() -> (Arc<Shared>, Receiver<Message>) {
    let (sender, inbox) = unbounded();
    let defaults =
        Defaults { healthy_after: Duration::from_secs(60), stop_timeout: Duration::from_secs(5) };
    (Shared::new("test".into(), None, defaults, Clock::System, sender), inbox)
}
