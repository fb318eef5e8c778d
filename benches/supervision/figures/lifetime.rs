//! How long it takes to start many children, and to stop them: once in a process, as programs do.

use std::time::Instant;

use crate::{
    fleet::{Body, Fleet, Gate, let_come_to_rest},
    measure::{Rounds, Side},
    options::Options,
    process::{self, Asked},
    report::{Figure, Limit},
};

pub(crate) fn figures(options: &Options) -> Vec<Figure> {
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for n in options.sizes(&[10, 1_000, 10_000]) {
        // Each takes from 1 ms to 1 s, and the short ones stray more.
        let launches = match n {
            ..=10 => 101,
            11..=1_000 => 31,
            _ => 11,
        };
        let rounds = Rounds::take(options.launches(launches), |side| {
            match process::launch("lifetime", side, n, options.quick)[..] {
                [start, stop] => (start, stop),
                _ => panic!("a launch prints two numbers"),
            }
        });
        starts.push(Figure::ratio(
            "start",
            n,
            "ms",
            &rounds.map(|&(start, _)| start),
            Limit::AtMost(1.15),
        ));
        stops.push(Figure::ratio(
            "stop",
            n,
            "ms",
            &rounds.map(|&(_, stop)| stop),
            Limit::AtMost(1.2),
        ));
    }
    starts.into_iter().chain(stops).collect()
}

pub(crate) fn launch(asked: &Asked) -> Vec<f64> {
    let (start, stop) = lifetime(asked.side, asked.n);
    vec![start, stop]
}

/// Until all bodies run, and from the wish that they stop until all threads are joined; in
/// milliseconds.
pub(crate) fn lifetime(side: Side, n: usize) -> (f64, f64) {
    let gate = Gate::new(n);
    let began = Instant::now();
    let bodies = (0..n).map(|_| -> Body {
        let gate = gate.clone();
        Box::new(move |ctx| {
            gate.arrive();
            ctx.idle()
        })
    });
    let fleet = Fleet::unsupervised(side, bodies);
    gate.wait();
    let start = began.elapsed();
    let_come_to_rest(n);
    let began = Instant::now();
    fleet.stop();
    (start.as_secs_f64() * 1e3, began.elapsed().as_secs_f64() * 1e3)
}
