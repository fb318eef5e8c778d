//! One face for a supervisor of ours and for its bare baselines, so that a workload is written
//! once.

use std::{
    convert::Infallible,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use circuit_breaker_supervisor::{Backoff, ChildContext, ChildSpec, Supervisor};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::{bare, measure::Side};

pub(crate) type BodyResult = Result<(), Box<dyn Error + Send + Sync>>;

/// What a child does; boxed on both sides.
pub(crate) type Body = Box<dyn FnMut(Context<'_>) -> BodyResult + Send>;

/// How a body learns that it is to stop.
#[derive(Clone, Copy)]
pub(crate) enum Context<'a> {
    Ours(&'a ChildContext),
    Bare(&'a Receiver<Infallible>),
}

impl Context<'_> {
    /// Is idle until asked to stop.
    pub(crate) fn idle(self) -> BodyResult {
        match self {
            Self::Ours(ctx) => Ok(ctx.sleep(Duration::MAX)?),
            Self::Bare(stopped) => {
                let _ = stopped.recv();
                Ok(())
            }
        }
    }
}

/// Children that run.
pub(crate) enum Fleet {
    Ours(Supervisor),
    Supervised(bare::Supervised),
    Threads(bare::Threads),
}

impl Fleet {
    /// Children that are restarted without a backoff. The baseline is a controller that tells warm
    /// threads to go again.
    pub(crate) fn supervised(side: Side, bodies: impl IntoIterator<Item = Body>) -> Self {
        Self::with_backoff(side, Duration::ZERO, bodies)
    }

    pub(crate) fn with_backoff(
        side: Side,
        backoff: Duration,
        bodies: impl IntoIterator<Item = Body>,
    ) -> Self {
        match side {
            Side::Ours => Self::Ours(supervisor(backoff, bodies)),
            Side::Baseline => Self::Supervised(bare::Supervised::start(backoff, bodies)),
        }
    }

    /// Children that never end by themselves. The baseline is plain threads, which nobody controls.
    pub(crate) fn unsupervised(side: Side, bodies: impl IntoIterator<Item = Body>) -> Self {
        match side {
            Side::Ours => Self::Ours(supervisor(Duration::ZERO, bodies)),
            Side::Baseline => Self::Threads(bare::Threads::start(bodies)),
        }
    }

    /// Returns when all threads are joined.
    pub(crate) fn stop(self) {
        match self {
            Self::Ours(supervisor) => {
                let report = supervisor.shutdown();
                assert!(report.is_clean(), "{report}");
            }
            Self::Supervised(fleet) => fleet.stop(),
            Self::Threads(fleet) => fleet.stop(),
        }
    }
}

fn supervisor(backoff: Duration, bodies: impl IntoIterator<Item = Body>) -> Supervisor {
    Supervisor::builder()
        .backoff(Backoff::constant(backoff).jitter(0.0))
        .telemetry(())
        .children(bodies.into_iter().enumerate().map(|(index, body)| spec(index, body)))
        .start()
        .expect("the children are in order")
}

pub(crate) fn spec(index: usize, mut body: Body) -> ChildSpec {
    ChildSpec::new(name(index), move |ctx| body(Context::Ours(ctx)))
}

/// Of a child, or of a bare thread: short enough for the kernel.
pub(crate) fn name(index: usize) -> String {
    format!("child-{index:05}")
}

/// Children that are idle from the beginning.
pub(crate) fn idle_bodies(count: usize) -> impl Iterator<Item = Body> {
    (0..count).map(|_| -> Body { Box::new(|ctx| ctx.idle()) })
}

/// Opens when so many have arrived.
#[derive(Clone)]
pub(crate) struct Gate {
    missing: Arc<AtomicUsize>,
    open: Sender<()>,
    opened: Receiver<()>,
}

impl Gate {
    pub(crate) fn new(count: usize) -> Self {
        let (open, opened) = bounded(1);
        Self { missing: Arc::new(AtomicUsize::new(count)), open, opened }
    }

    pub(crate) fn arrive(&self) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _ = self.open.send(());
        }
    }

    pub(crate) fn wait(&self) {
        self.opened.recv().expect("it holds a sender itself");
    }
}

/// Gives that many threads time to come to rest.
pub(crate) fn let_come_to_rest(threads: usize) {
    std::thread::sleep(
        Duration::from_millis(20)
            + Duration::from_micros(10) * u32::try_from(threads).unwrap_or(u32::MAX),
    );
}
