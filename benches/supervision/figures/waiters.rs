//! Whether a child that crashes is held up by those who wait for news of another one.

use std::{
    thread::{self, JoinHandle},
    time::Duration,
};

use circuit_breaker_supervisor::{Handle, WaitError};

use crate::{
    figures::rate::Crashing,
    fleet::{Fleet, Gate, idle_bodies, let_come_to_rest, name},
    measure::{Rounds, Side},
    options::Options,
    report::{Figure, Limit},
};

const WAITERS: usize = 1_000;
const LAUNCHES: usize = 31;

/// A thread that only waits needs no more, and 1 000 of them fit anywhere.
const STACK: usize = 64 * 1024;

/// The baseline is a supervisor of ours as well, for whose children nobody waits.
pub(crate) fn figures(options: &Options) -> Vec<Figure> {
    let rounds = Rounds::take(options.launches(LAUNCHES), |side| {
        launch(if side == Side::Ours { WAITERS } else { 0 })
    });
    vec![Figure::ratio("waiters", WAITERS, "1/s", &rounds, Limit::AtLeast(0.9))]
}

/// How often a second one child restarts beside an idle one, which so many threads wait for.
fn launch(waiters: usize) -> f64 {
    let crashing = Crashing::new(1);
    let fleet = Fleet::supervised(Side::Ours, crashing.bodies().chain(idle_bodies(1)));
    let Fleet::Ours(supervisor) = &fleet else { panic!("it has no bare baseline") };
    let gate = Gate::new(waiters);
    let threads: Vec<_> =
        (0..waiters).map(|_| waiter(supervisor.handle().clone(), gate.clone())).collect();
    if waiters > 0 {
        gate.wait();
    }
    let_come_to_rest(waiters);
    let rate = crashing.rate();
    crashing.end();
    fleet.stop();
    for thread in threads {
        thread.join().expect("a waiter does not panic");
    }
    rate
}

/// Waits for what never happens to the idle child, until the supervisor ends.
fn waiter(handle: Handle, gate: Gate) -> JoinHandle<()> {
    let wait = move || {
        let mut gate = Some(gate);
        let answer = handle.wait_for(&name(1), Duration::MAX, |_| {
            if let Some(gate) = gate.take() {
                gate.arrive();
            }
            false
        });
        assert!(matches!(answer, Err(WaitError::Ended(_))), "{answer:?}");
    };
    thread::Builder::new().stack_size(STACK).spawn(wait).expect("there is room for a thread")
}
