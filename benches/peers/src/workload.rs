//! What all peers have to do.

use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use crate::{
    crasher::{Crasher, Plan},
    fleet::let_come_to_rest,
    linux,
    measure::median,
    peers::Peer,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    Restart,
    Start,
    Stop,
    Memory,
}

impl Workload {
    pub(crate) const ALL: [Self; 4] = [Self::Restart, Self::Start, Self::Stop, Self::Memory];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Memory => "memory",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name)
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Restart => "µs",
            Self::Start | Self::Stop => "ms",
            Self::Memory => "B/child",
        }
    }

    /// On how many idle children there are.
    pub(crate) fn sizes(self) -> &'static [usize] {
        match self {
            Self::Restart => &[1, 100, 1_000],
            Self::Start | Self::Stop => &[10, 1_000],
            Self::Memory => &[1_000],
        }
    }

    /// One launch.
    pub(crate) fn measure(self, peer: &Peer, n: usize) -> f64 {
        match self {
            Self::Restart => {
                let (done, latencies) = bounded(1);
                let stop = (peer.start)(Plan::new(n, Some(Crasher::new(peer.crashes, done))));
                let p50 = median(&latencies.recv().expect("the crasher comes to its end"));
                stop();
                p50
            }
            Self::Start | Self::Stop => {
                let plan = Plan::new(n, None);
                let began = Instant::now();
                let stop = (peer.start)(plan.clone());
                plan.started.wait();
                let start = milliseconds(began.elapsed());
                let_come_to_rest(n);
                let began = Instant::now();
                stop();
                plan.gone.wait();
                if self == Self::Start { start } else { milliseconds(began.elapsed()) }
            }
            Self::Memory => {
                let plan = Plan::new(n, None);
                let before = linux::held_bytes();
                let stop = (peer.start)(plan.clone());
                plan.started.wait();
                let_come_to_rest(n);
                let held = linux::held_bytes() - before;
                stop();
                held / n as f64
            }
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
