//! How exactly a backoff is kept.

use std::time::Duration;

use crate::{
    figures::restart::{Crasher, How},
    fleet::Fleet,
    measure::{Rounds, Side, median},
    options::Options,
    report::{Figure, Limit},
};

const ASKED: Duration = Duration::from_millis(50);
const LAUNCHES: usize = 31;
const CRASHES: usize = 4;

pub(crate) fn figures(options: &Options) -> Vec<Figure> {
    let rounds = Rounds::take(options.launches(LAUNCHES), launch);
    let late = rounds.map(|lateness| median(lateness));
    // How many restarts of a launch came early.
    let early = rounds.map(|lateness| lateness.iter().filter(|&&late| late < 0.0).count() as f64);
    let any_early = Rounds {
        ours: vec![early.ours.iter().sum()],
        baseline: vec![early.baseline.iter().sum()],
        again: vec![early.again.iter().sum()],
    };
    vec![
        Figure::ratio("backoff_lateness", 50, "µs", &late, Limit::AtMost(1.3)),
        Figure::difference("backoff_early", 50, "early", &any_early, Limit::AtMost(0.0)),
    ]
}

/// How much longer than asked it was from each crash to the next run, in microseconds.
fn launch(side: Side) -> Vec<f64> {
    let (crasher, done) = Crasher::new(How::Error, None, CRASHES);
    let fleet = Fleet::with_backoff(side, ASKED, [crasher.into_body()]);
    let latencies = done.recv().expect("the crasher comes to its end");
    fleet.stop();
    latencies.iter().map(|latency| latency - ASKED.as_secs_f64() * 1e6).collect()
}
