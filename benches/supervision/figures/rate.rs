//! How many restarts a second there are when children do nothing but crash.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    cores::on_one_core,
    figures::restart::{How, crash},
    fleet::{Body, Fleet},
    measure::{Rounds, Side},
    options::Options,
    report::{Figure, Limit},
};

const CRASHING: &[usize] = &[1, 2, 16];
const LAUNCHES: usize = 31;
const WARM_UP: Duration = Duration::from_millis(10);
const WINDOW: Duration = Duration::from_millis(60);

pub(crate) fn figures(options: &Options) -> Vec<Figure> {
    let figure = |crashing| {
        let rounds = Rounds::take(options.launches(LAUNCHES), |side| match crashing {
            // Its thread and the supervisor's hand over to one another.
            1 => on_one_core(|| launch(side, 1)),
            _ => launch(side, crashing),
        });
        Figure::ratio("restart_rate", crashing, "1/s", &rounds, Limit::AtLeast(0.8))
    };
    options.sizes(CRASHING).into_iter().map(figure).collect()
}

fn launch(side: Side, count: usize) -> f64 {
    let crashing = Crashing::new(count);
    let fleet = Fleet::supervised(side, crashing.bodies());
    let rate = crashing.rate();
    crashing.end();
    fleet.stop();
    rate
}

/// Children that do nothing but crash, until it is enough.
pub(crate) struct Crashing {
    counts: Arc<[Count]>,
    enough: Arc<AtomicBool>,
}

/// Each child counts for itself, on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);

impl Crashing {
    pub(crate) fn new(count: usize) -> Self {
        Self { counts: (0..count).map(|_| Count::default()).collect(), enough: Arc::default() }
    }

    pub(crate) fn bodies(&self) -> impl Iterator<Item = Body> {
        (0..self.counts.len()).map(|index| -> Body {
            let (counts, enough) = (self.counts.clone(), self.enough.clone());
            Box::new(move |ctx| {
                counts[index].0.fetch_add(1, Ordering::Relaxed);
                if enough.load(Ordering::Relaxed) { ctx.idle() } else { crash(How::Panic) }
            })
        })
    }

    /// Measures how many restarts a second there are of all of them.
    pub(crate) fn rate(&self) -> f64 {
        thread::sleep(WARM_UP);
        let (began, before) = (Instant::now(), self.total());
        thread::sleep(WINDOW);
        let (restarts, took) = (self.total() - before, began.elapsed());
        restarts as f64 / took.as_secs_f64()
    }

    /// They are idle from their next run on, and can be stopped.
    pub(crate) fn end(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.0.load(Ordering::Relaxed)).sum()
    }
}
