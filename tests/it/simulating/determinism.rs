//! Determinism of a simulation: the same seed gives the same trace.

use std::time::Duration;

use circuit_breaker_supervisor::{Backoff, Event, Exit, Simulation, Supervisor};

use super::story;
use crate::support::*;

/// Everything of the events but the instant at which virtual time began.
fn trace(simulation: &Simulation) -> Vec<String> {
    let line = |event: &Event| {
        let Event { seq, id, run, failures, at, kind, .. } = event;
        format!("{seq} {:?} {id} {run} {failures} {kind:?}", *at - simulation.origin())
    };
    simulation.events().iter().map(line).collect()
}

/// A busy hour: crashes, spawns that fail, stops that are ignored, and commands, with jitter on
/// every backoff.
fn busy_hour(seed: u64, is_quiet: impl Fn(&str) -> bool) -> Simulation {
    let mut random = fastrand::Rng::with_seed(seed);
    let own =
        |id: &str| unused(id).backoff(Backoff::exponential(100 * MS, 20 * SECOND).jitter(0.5));
    let builder =
        Supervisor::builder().healthy_after(30 * SECOND).children(["a", "b", "c", "d"].map(own));
    let mut simulation = Simulation::new(builder, seed).unwrap();
    while simulation.elapsed() < HOUR {
        let id = ["a", "b", "c", "d"][random.usize(..4)];
        let (what, seconds) = (random.u8(..12), random.u64(..10));
        if !is_quiet(id) {
            let handle = simulation.handle().clone();
            match what {
                0 => simulation.fail_next_spawn(id),
                1 => simulation.ignore_stop_for(id, Duration::from_secs(seconds)),
                2 => handle.hold(id).unwrap(),
                3 | 4 => handle.release(id).unwrap(),
                5 => handle.restart(id).unwrap(),
                6 => handle.reset(id).unwrap(),
                7 => drop(simulation.mark_healthy(id)),
                _ => drop(simulation.exit(id, Exit::failed("no"))),
            }
        }
        simulation.advance(Duration::from_secs(seconds));
    }
    simulation
}

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let (one, other) = (busy_hour(seed, |_| false), busy_hour(seed, |_| false));
        assert!(one.events().len() > 100);
        assert_eq!(trace(&one), trace(&other));
        check_trace(one.events(), None, true);
    }
    assert_ne!(trace(&busy_hour(1, |_| false)), trace(&busy_hour(2, |_| false)));
}

// Promise 7: children are independent of one another.
#[test]
fn what_happens_to_one_child_changes_nothing_for_the_others() {
    for seed in 0..20 {
        let whole = busy_hour(seed, |_| false);
        for quiet in ["a", "b", "c", "d"] {
            let without = busy_hour(seed, |id| id == quiet);
            for id in ["a", "b", "c", "d"].into_iter().filter(|id| *id != quiet) {
                assert_eq!(
                    story(&whole, id),
                    story(&without, id),
                    "seed {seed}: without what happens to {quiet}"
                );
            }
        }
    }
}

/// Half an hour of a child whose callbacks panic and take their time, as random as a seed makes
/// them.
fn clumsy_hour(seed: u64) -> Vec<String> {
    let mut fate = fastrand::Rng::with_seed(seed);
    let mut luck = fate.fork();
    let dawdle =
        |random: &mut fastrand::Rng| (0..random.u32(..2000)).for_each(|_| std::hint::spin_loop());
    let flag = move |_: &str| {
        dawdle(&mut luck);
        assert!(luck.u8(..4) > 0, "the flag is clumsy");
        luck.u8(..8) > 0
    };
    let mut whim = fate.fork();
    let delays = move |attempt| {
        dawdle(&mut whim);
        assert!(whim.u8(..3) > 0, "the backoff is clumsy");
        SECOND * attempt
    };
    let builder = Supervisor::builder()
        .poll_interval(10 * SECOND)
        .enabled(flag)
        .on_event(|event| assert!(event.seq % 5 != 3, "the sink is clumsy"))
        .backoff(Backoff::from_fn(delays))
        .child(unused("clumsy"));
    let mut simulation = Simulation::new(builder, seed).unwrap();
    while simulation.elapsed() < HOUR / 2 {
        simulation.advance(Duration::from_secs(fate.u64(1..20)));
        drop(simulation.exit("clumsy", Exit::failed("no")));
    }
    trace(&simulation)
}

#[test]
fn callbacks_that_panic_and_take_their_time_do_not_keep_a_trace_from_repeating_itself() {
    for seed in 0..20 {
        let trace = clumsy_hour(seed);
        assert!(
            trace.iter().any(|line| line.contains("callback: Backoff")),
            "seed {seed}: {trace:?}"
        );
        assert_eq!(trace, clumsy_hour(seed), "seed {seed}");
    }
}

#[test]
fn jitter_of_children_that_are_added_later_repeats_too() {
    let delays = |seed| {
        let mut simulation = Simulation::new(Supervisor::builder(), seed).unwrap();
        for id in ["one", "two"] {
            simulation
                .handle()
                .add(unused(id).backoff(Backoff::constant(HOUR).jitter(1.0)))
                .unwrap();
            simulation.advance(Duration::ZERO);
            simulation.exit(id, Exit::Completed).unwrap();
        }
        let delay = |id| simulation.handle().child(id).unwrap().retry_in.unwrap();
        [delay("one"), delay("two")]
    };
    assert_eq!(delays(1), delays(1));
    assert_ne!(delays(1), delays(2));
    assert_ne!(delays(1)[0], delays(1)[1], "children do not come back together");
}

#[test]
fn backoff_with_a_seed_of_its_own_keeps_it() {
    let delay = |seed| {
        let builder = Supervisor::builder()
            .backoff(Backoff::constant(HOUR).jitter(1.0).seed(3))
            .child(unused("child"));
        let mut simulation = Simulation::new(builder, seed).unwrap();
        simulation.advance(Duration::ZERO);
        simulation.exit("child", Exit::Completed).unwrap();
        simulation.handle().child("child").unwrap().retry_in
    };
    assert_eq!(delay(1), delay(2));
}
