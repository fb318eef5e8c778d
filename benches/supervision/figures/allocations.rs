//! How often memory is asked for.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use circuit_breaker_supervisor::{Backoff, Supervisor};
use crossbeam_channel::bounded;
use tracking_allocator::{AllocationGroupId, AllocationRegistry, AllocationTracker};

use crate::{
    figures::restart::{How, crash},
    fleet::{Body, Fleet, spec},
    measure::{Rounds, Side},
    options::Options,
    process::{self, Asked},
    report::{Figure, Limit},
};

/// So many crashes are not counted: tables and channels grow to their size.
const WARM_UP: usize = 200;
const COUNTED: usize = 400;
const LAST: usize = WARM_UP + COUNTED;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counter;

impl AllocationTracker for Counter {
    fn allocated(&self, _: usize, _: usize, _: usize, _: AllocationGroupId) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }

    fn deallocated(
        &self,
        _: usize,
        _: usize,
        _: usize,
        _: AllocationGroupId,
        _: AllocationGroupId,
    ) {
    }
}

/// From now on the allocations of this process are counted, all threads together.
fn count_from_now_on() {
    AllocationRegistry::set_global_tracker(Counter).expect("a process makes one launch");
    AllocationRegistry::enable_tracking();
}

fn allocations() -> f64 {
    ALLOCATIONS.load(Ordering::Relaxed) as f64
}

/// The baseline is a supervisor without the event: 0.
pub(crate) fn event(options: &Options) -> Vec<Figure> {
    let figure = |name, sinks: usize, limit| {
        let rounds = Rounds::take(1, |side| match side {
            Side::Ours => process::launch("event", side, sinks, options.quick)[0],
            Side::Baseline => 0.0,
        });
        Figure::difference(name, sinks, "allocs", &rounds, Limit::AtMost(limit))
    };
    vec![figure("event", 1, 1.0), figure("event_silent", 0, 0.0)]
}

/// The allocations between the question for the backoff and the question for the flag, for each
/// restart. In between the end of the run is shown and told to the sink: one event. The child's own
/// thread waits for its word meanwhile.
pub(crate) fn event_launch(asked: &Asked) -> Vec<f64> {
    static BEFORE: AtomicU64 = AtomicU64::new(0);
    let (done, received) = bounded(1);
    let (mut crashes, mut sum) = (0, 0);
    let builder = Supervisor::builder()
        .backoff(Backoff::from_fn(|_| {
            BEFORE.store(ALLOCATIONS.load(Ordering::Relaxed), Ordering::Relaxed);
            Duration::ZERO
        }))
        .enabled(move |_| {
            crashes += 1;
            // The first question comes before the first start.
            if crashes > 1 + WARM_UP && crashes <= 1 + LAST {
                sum += ALLOCATIONS.load(Ordering::Relaxed) - BEFORE.load(Ordering::Relaxed);
            }
            if crashes == 1 + LAST {
                let _ = done.try_send(sum as f64 / COUNTED as f64);
            }
            true
        })
        .poll_interval(Duration::MAX);
    let builder = if asked.n == 0 {
        builder.telemetry(())
    } else {
        builder.on_event(|event| {
            std::hint::black_box(event);
        })
    };
    count_from_now_on();
    let mut left = LAST + 10;
    let body: Body = Box::new(move |ctx| {
        if left == 0 {
            return ctx.idle();
        }
        left -= 1;
        crash(How::Error)
    });
    let supervisor = builder.child(spec(0, body)).start().expect("the child is in order");
    let mean = received.recv().expect("the crashes come to an end");
    assert!(supervisor.shutdown().is_clean());
    vec![mean]
}

/// The baseline is the panic or the error itself.
pub(crate) fn steady_state(options: &Options) -> Vec<Figure> {
    let figure = |name| {
        let rounds = Rounds::take(options.launches(3), |side| {
            process::launch(name, side, 1, options.quick)[0]
        });
        Figure::difference(name, 1, "allocs", &rounds, Limit::AtMost(3.0))
    };
    ["steady_state", "steady_state_err"].map(figure).into()
}

/// Allocations for each restart of a child that crashes all the time.
pub(crate) fn steady_state_launch(asked: &Asked, how: How) -> Vec<f64> {
    let (done, received) = bounded(1);
    let (mut crashes, mut before) = (0, 0.0);
    let mut count = move || {
        crashes += 1;
        match crashes {
            WARM_UP => before = allocations(),
            LAST => {
                let _ = done.send((allocations() - before) / COUNTED as f64);
            }
            _ => {}
        }
        crashes < LAST
    };
    count_from_now_on();
    match asked.side {
        Side::Ours => {
            let body: Body = Box::new(move |ctx| if count() { crash(how) } else { ctx.idle() });
            let fleet = Fleet::supervised(Side::Ours, [body]);
            let mean = received.recv().expect("the crashes come to an end");
            fleet.stop();
            vec![mean]
        }
        Side::Baseline => {
            while count() {
                drop(std::hint::black_box(catch_unwind(AssertUnwindSafe(|| crash(how)))));
            }
            vec![received.recv().expect("the crashes have come to an end")]
        }
    }
}
