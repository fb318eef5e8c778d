//! How long it takes to ask the flags of all children.

use std::{
    collections::HashSet,
    hint::black_box,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{Handle, Supervisor};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::{
    fleet::{idle_bodies, name, spec},
    measure::{Rounds, Side, median},
    options::Options,
    process::{self, Asked},
    report::{Figure, Limit},
};

const LAUNCHES: usize = 11;
const LAPS: usize = 51;

/// How much more than the bare loop a child may cost among the most than among the fewest. The loop
/// itself is slower over more names than a cache holds.
const LINEAR: Limit = Limit::AtMost(1.5);

pub(crate) fn figures(options: &Options) -> Vec<Figure> {
    let of_n = |n| {
        (
            n,
            Rounds::take(options.launches(LAUNCHES), |side| {
                process::launch("poll", side, n, options.quick)[0]
            }),
        )
    };
    let all: Vec<(usize, Rounds)> =
        options.sizes(&[100, 1_000, 10_000]).into_iter().map(of_n).collect();
    let mut figures: Vec<Figure> = all
        .iter()
        .map(|(n, rounds)| Figure::ratio("poll", *n, "µs", rounds, Limit::AtMost(1.5)))
        .collect();
    if let [(_, small), .., (n, large)] = &all[..] {
        figures.push(Figure::growth("poll_growth", *n, large, small, LINEAR));
    }
    figures
}

pub(crate) fn launch(asked: &Asked) -> Vec<f64> {
    vec![poll(asked.side, asked.n)]
}

/// One round over all children, in microseconds: the median of some that follow one another. A
/// round ends when the last child is asked, which is also when the next one is asked for; so a
/// round holds all that it takes but the waking of a thread.
pub(crate) fn poll(side: Side, n: usize) -> f64 {
    let (mut flags, handle, laps) = Flags::new(n);
    match side {
        Side::Ours => {
            let supervisor = Supervisor::builder()
                .telemetry(())
                .poll_interval(Duration::MAX)
                .enabled(move |id| flags.is_on(id))
                .children(idle_bodies(n).enumerate().map(|(index, body)| spec(index, body)))
                .start()
                .expect("the children are in order");
            // From here on the rounds are counted: that of the start is over.
            let _ = handle.set(Some(supervisor.handle().clone()));
            supervisor.handle().poll_now().expect("it runs");
            let lap = laps.recv().expect("the rounds come to an end");
            assert!(supervisor.shutdown().is_clean());
            lap
        }
        Side::Baseline => {
            let names: Vec<String> = (0..n).map(name).collect();
            let _ = handle.set(None);
            loop {
                for name in &names {
                    black_box(flags.is_on(name));
                }
                if let Ok(lap) = laps.try_recv() {
                    return lap;
                }
            }
        }
    }
}

/// The flag closure of both sides: it looks into a hash set, and takes the time when the last child
/// is asked.
struct Flags {
    on: HashSet<String>,
    last: String,
    rounds: Arc<OnceLock<Option<Handle>>>,
    ends: Vec<Instant>,
    laps: Sender<f64>,
}

impl Flags {
    fn new(n: usize) -> (Self, Arc<OnceLock<Option<Handle>>>, Receiver<f64>) {
        let (laps, received) = bounded(1);
        let rounds = Arc::new(OnceLock::new());
        let on = (0..n).map(name).collect();
        let ends = Vec::with_capacity(LAPS + 1);
        (Self { on, last: name(n - 1), rounds: rounds.clone(), ends, laps }, rounds, received)
    }

    fn is_on(&mut self, id: &str) -> bool {
        let on = self.on.contains(id);
        if id == self.last {
            self.end_round();
        }
        on
    }

    fn end_round(&mut self) {
        let Some(handle) = self.rounds.get() else { return };
        self.ends.push(Instant::now());
        if self.ends.len() <= LAPS {
            if let Some(handle) = handle {
                let _ = handle.poll_now();
            }
            return;
        }
        let laps: Vec<f64> =
            self.ends.windows(2).map(|ends| (ends[1] - ends[0]).as_secs_f64() * 1e6).collect();
        let _ = self.laps.try_send(median(&laps));
    }
}
