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
        let rounds = Rounds::take(options.launches(LAUNCHES), |side| launch(side, crashing));
        Figure::ratio("restart_rate", crashing, "1/s", &rounds, Limit::AtLeast(0.8))
    };
    options.sizes(CRASHING).into_iter().map(figure).collect()
}

/// Each child counts for itself, on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);

fn launch(side: Side, crashing: usize) -> f64 {
    let counts: Arc<[Count]> = (0..crashing).map(|_| Count::default()).collect();
    let enough = Arc::new(AtomicBool::new(false));
    let bodies = (0..crashing).map(|index| -> Body {
        let (counts, enough) = (counts.clone(), enough.clone());
        Box::new(move |ctx| {
            counts[index].0.fetch_add(1, Ordering::Relaxed);
            if enough.load(Ordering::Relaxed) { ctx.idle() } else { crash(How::Panic) }
        })
    });
    let fleet = Fleet::supervised(side, bodies);
    thread::sleep(WARM_UP);
    let total = || counts.iter().map(|count| count.0.load(Ordering::Relaxed)).sum::<u64>();
    let (began, before) = (Instant::now(), total());
    thread::sleep(WINDOW);
    let (restarts, took) = (total() - before, began.elapsed());
    enough.store(true, Ordering::Relaxed);
    fleet.stop();
    restarts as f64 / took.as_secs_f64()
}
