//! Whether one exit costs more among many children than among few.

use crate::{
    cores::on_one_core,
    figures::restart::{Crasher, How},
    fleet::{Fleet, idle_bodies, let_come_to_rest, spec},
    measure::{Rounds, Side, median},
    options::Options,
    process::{self, Asked},
    report::{Figure, Limit},
};

const FEW: usize = 10;
const LAUNCHES: usize = 7;

/// Children that crash, one after the other, each on a thread of its own.
const CRASHERS: usize = 5;
const CRASHES: usize = 400;

/// The baseline is a supervisor of ours as well: with few children.
pub(crate) fn figures(options: &Options) -> Vec<Figure> {
    let figure = |many| {
        let rounds = Rounds::take(options.launches(LAUNCHES), |side| {
            let n = if side == Side::Ours { many } else { FEW };
            process::launch("scale", Side::Ours, n, options.quick)
        });
        let each = |launches: &[Vec<f64>]| launches.concat();
        let rounds = Rounds {
            ours: each(&rounds.ours),
            baseline: each(&rounds.baseline),
            again: each(&rounds.again),
        };
        Figure::ratio("exit_at_scale", many, "µs", &rounds, Limit::AtMost(1.5))
    };
    let most = options.sizes(&[1_000, 10_000]).pop();
    most.map(figure).into_iter().collect()
}

/// From an error to the next run, for each of the children that crash: with an error rather than a
/// panic, for that is the shorter way, on which what grows shows the most.
pub(crate) fn launch(asked: &Asked) -> Vec<f64> {
    on_one_core(|| latencies(asked))
}

fn latencies(asked: &Asked) -> Vec<f64> {
    let fleet = Fleet::supervised(asked.side, idle_bodies(asked.n));
    let Fleet::Ours(supervisor) = &fleet else { panic!("it has no bare baseline") };
    let_come_to_rest(asked.n);
    let latencies = (0..CRASHERS).map(|crasher| {
        let (body, done) = Crasher::new(How::Error, None, CRASHES);
        let child = spec(asked.n + crasher, body.into_body());
        supervisor.handle().add(child).expect("its id is free");
        median(&done.recv().expect("the crasher comes to its end"))
    });
    let latencies = latencies.collect();
    fleet.stop();
    latencies
}
