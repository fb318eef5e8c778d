//! How long it is from a crash to the first instruction of the next run.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::{
    CRASH,
    cores::on_one_core,
    fleet::{Body, BodyResult, Context, Fleet, idle_bodies},
    measure::{Rounds, Side, quantile},
    options::Options,
    report::{Figure, Limit},
};

/// On how many idle siblings there are.
const SIBLINGS: &[usize] = &[1, 100, 1_000];

const LAUNCHES: usize = 31;
const HOT_CRASHES: usize = 400;
const COLD_CRASHES: usize = 60;

/// Long enough for the cores to fall idle.
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Panic,
    Error,
}

pub(crate) fn hot(options: &Options) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut of_p50 = Vec::new();
    let mut of_p99 = Vec::new();
    for siblings in options.sizes(SIBLINGS) {
        let rounds = rounds(options, siblings, How::Panic, None, HOT_CRASHES);
        of_p50.push((siblings, rounds.map(|latencies| latencies.p50)));
        of_p99.push((siblings, rounds.map(|latencies| latencies.p99)));
    }
    for (siblings, rounds) in &of_p50 {
        figures.push(Figure::ratio("restart_p50", *siblings, "µs", rounds, limit(*siblings)));
    }
    if let [(_, small), .., (siblings, large)] = &of_p50[..] {
        figures.push(Figure::growth("restart_growth", *siblings, large, small, Limit::AtMost(1.2)));
    }
    for (siblings, rounds) in &of_p99 {
        figures.push(Figure::ratio("restart_p99", *siblings, "µs", rounds, Limit::None));
    }
    figures
}

pub(crate) fn hot_errors(options: &Options) -> Vec<Figure> {
    p50("restart_err_p50", options, How::Error, None, HOT_CRASHES, |_| Limit::AtMost(1.3))
}

pub(crate) fn cold(options: &Options) -> Vec<Figure> {
    p50("restart_cold_p50", options, How::Panic, Some(PAUSE), COLD_CRASHES, |_| Limit::AtMost(1.3))
}

fn limit(siblings: usize) -> Limit {
    Limit::AtMost(if siblings == 1 { 1.2 } else { 1.3 })
}

fn p50(
    name: &'static str,
    options: &Options,
    how: How,
    pause: Option<Duration>,
    crashes: usize,
    limit: impl Fn(usize) -> Limit,
) -> Vec<Figure> {
    let figure = |siblings| {
        let rounds = rounds(options, siblings, how, pause, crashes).map(|latencies| latencies.p50);
        Figure::ratio(name, siblings, "µs", &rounds, limit(siblings))
    };
    options.sizes(SIBLINGS).into_iter().map(figure).collect()
}

/// Of the restarts of one launch, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Latencies {
    p50: f64,
    p99: f64,
}

fn rounds(
    options: &Options,
    siblings: usize,
    how: How,
    pause: Option<Duration>,
    crashes: usize,
) -> Rounds<Latencies> {
    Rounds::take(options.launches(LAUNCHES), |side| {
        on_one_core(|| launch(side, siblings, how, pause, crashes))
    })
}

fn launch(
    side: Side,
    siblings: usize,
    how: How,
    pause: Option<Duration>,
    crashes: usize,
) -> Latencies {
    let (crasher, done) = Crasher::new(how, pause, crashes);
    let fleet = Fleet::supervised(side, idle_bodies(siblings).chain([crasher.into_body()]));
    let latencies = done.recv().expect("the crasher comes to its end");
    fleet.stop();
    Latencies { p50: quantile(&latencies, 0.5), p99: quantile(&latencies, 0.99) }
}

/// A body that crashes so many times, then hands over how long each restart took in microseconds,
/// and is idle.
pub(crate) struct Crasher {
    how: How,
    pause: Option<Duration>,
    crashes: usize,
    crashed_at: Option<Instant>,
    latencies: Vec<f64>,
    done: Sender<Vec<f64>>,
}

impl Crasher {
    pub(crate) fn new(
        how: How,
        pause: Option<Duration>,
        crashes: usize,
    ) -> (Self, Receiver<Vec<f64>>) {
        let (done, received) = bounded(1);
        (
            Self {
                how,
                pause,
                crashes,
                crashed_at: None,
                latencies: Vec::with_capacity(crashes),
                done,
            },
            received,
        )
    }

    pub(crate) fn into_body(mut self) -> Body {
        Box::new(move |ctx| self.run(ctx))
    }

    fn run(&mut self, ctx: Context<'_>) -> BodyResult {
        let now = Instant::now();
        if let Some(crashed_at) = self.crashed_at {
            self.latencies.push((now - crashed_at).as_secs_f64() * 1e6);
        }
        if self.latencies.len() == self.crashes {
            let _ = self.done.send(std::mem::take(&mut self.latencies));
            return ctx.idle();
        }
        if let Some(pause) = self.pause {
            std::thread::sleep(pause);
        }
        self.crashed_at = Some(Instant::now());
        crash(self.how)
    }
}

pub(crate) fn crash(how: How) -> BodyResult {
    match how {
        How::Panic => panic!("crash"),
        How::Error => Err(CRASH.into()),
    }
}
