//! What one call through a breaker costs, beside bare atomics and two crates of circuit breakers.

use std::{
    hint::black_box,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{Breaker, Supervisor};
use failsafe::CircuitBreaker as _;

use crate::{
    fleet::{idle_bodies, name, spec},
    measure::Rounds,
    options::Options,
    report::{Figure, Limit},
};

const LAUNCHES: usize = 31;
const CALLS: u32 = 200_000;

/// For longer than the benchmark takes.
const FOR_LONG: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) const PERMITTED: &[&str] =
    &["breaker_permitted", "breaker_permitted_failsafe", "breaker_permitted_recloser"];
pub(crate) const REJECTED: &[&str] =
    &["breaker_rejected", "breaker_rejected_failsafe", "breaker_rejected_recloser"];

pub(crate) fn permitted(options: &Options) -> Vec<Figure> {
    with_breaker(|breaker, _| figures(options, PERMITTED, breaker, true))
}

pub(crate) fn rejected(options: &Options) -> Vec<Figure> {
    with_breaker(|breaker, supervisor| {
        supervisor.handle().hold(&name(0)).expect("it is listed");
        let held = supervisor
            .handle()
            .wait_for(&name(0), Duration::from_secs(10), |child| !child.is_running());
        held.expect("an idle child stops when it is held");
        figures(options, REJECTED, breaker, false)
    })
}

fn with_breaker(f: impl FnOnce(&Breaker, &Supervisor) -> Vec<Figure>) -> Vec<Figure> {
    let children = idle_bodies(1).enumerate().map(|(index, body)| spec(index, body));
    let supervisor = Supervisor::builder()
        .telemetry(())
        .children(children)
        .start()
        .expect("the child is in order");
    let breaker = supervisor.handle().breaker(&name(0)).expect("it is listed");
    f(&breaker, &supervisor)
}

/// The work behind the breaker: it cannot fail, but the compiler does not know.
fn work() -> Result<u64, ()> {
    black_box(Ok(1))
}

/// Their fastest settings: failsafe counts failures in a row, which takes no clock and no window;
/// recloser has its defaults, for its window costs the same whatever its length. Both stay open for
/// long once they are.
fn figures(
    options: &Options,
    names: &[&'static str],
    ours: &Breaker,
    permitted: bool,
) -> Vec<Figure> {
    let policy =
        failsafe::failure_policy::consecutive_failures(1, failsafe::backoff::constant(FOR_LONG));
    let failsafe = failsafe::Config::new().failure_policy(policy).build();
    let recloser = recloser::Recloser::custom().open_wait(FOR_LONG).build();
    let word = AtomicU64::new(u64::from(permitted));
    if !permitted {
        let _ = failsafe.call(|| Err::<(), _>(()));
        // Its window has to be full of failures first.
        for _ in 0..1_000 {
            let _ = recloser.call(|| Err::<(), _>(()));
        }
    }
    let mut figures = Vec::new();
    for threads in [1, 2] {
        let mut through_failsafe = Vec::new();
        let mut through_recloser = Vec::new();
        let mut through_ours = Vec::new();
        let mut bare = [Vec::new(), Vec::new()];
        for _ in 0..options.launches(LAUNCHES) {
            let call_bare = || {
                if black_box(&word).load(Ordering::Relaxed) == 1 { work().is_ok() } else { false }
            };
            bare[0].push(nanoseconds(threads, permitted, || call_bare));
            through_ours.push(nanoseconds(threads, permitted, || {
                let ours = ours.clone();
                move || ours.call(work).is_ok()
            }));
            bare[1].push(nanoseconds(threads, permitted, || call_bare));
            through_failsafe
                .push(nanoseconds(threads, permitted, || || failsafe.call(work).is_ok()));
            through_recloser
                .push(nanoseconds(threads, permitted, || || recloser.call(work).is_ok()));
        }
        let [baseline, again] = bare;
        let rounds = Rounds { ours: through_ours, baseline, again };
        figures.push(Figure::difference(names[0], threads, "ns", &rounds, Limit::AtMost(5.0)));
        for (name, theirs) in [(names[1], through_failsafe), (names[2], through_recloser)] {
            figures.push(Figure::lead(name, threads, "ns", &rounds, &theirs, Limit::AtLeast(4.0)));
        }
    }
    figures
}

/// Of one call, when so many threads make them at once.
fn nanoseconds<C: Fn() -> bool>(
    threads: usize,
    permitted: bool,
    caller: impl Fn() -> C + Sync,
) -> f64 {
    let together = Barrier::new(threads);
    let one = || {
        let call = caller();
        together.wait();
        let began = Instant::now();
        let mut passed = 0;
        for _ in 0..CALLS {
            passed += u32::from(call());
        }
        let took = began.elapsed();
        assert_eq!(passed, if permitted { CALLS } else { 0 }, "the breaker is not as it should be");
        took.as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    let each: Vec<f64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a call does not panic")).collect()
    });
    each.iter().sum::<f64>() / each.len() as f64
}
