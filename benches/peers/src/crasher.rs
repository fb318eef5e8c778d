//! The child that crashes, and those that are idle, as all peers run them.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use crossbeam_channel::Sender;

use crate::fleet::Gate;

/// Takes the time from each crash to the next run.
#[derive(Clone)]
pub(crate) struct Crasher(Arc<Mutex<State>>);

struct State {
    crashes: usize,
    crashed_at: Option<Instant>,
    latencies: Vec<f64>,
    done: Sender<Vec<f64>>,
}

impl Crasher {
    pub(crate) fn new(crashes: usize, done: Sender<Vec<f64>>) -> Self {
        Self(Arc::new(Mutex::new(State {
            crashes,
            crashed_at: None,
            latencies: Vec::with_capacity(crashes),
            done,
        })))
    }

    /// The first instruction of a run: panics, until it has done so often enough.
    pub(crate) fn run(&self) {
        let now = Instant::now();
        let mut state = self.0.lock().expect("it is released before each panic");
        if let Some(crashed_at) = state.crashed_at {
            state.latencies.push((now - crashed_at).as_secs_f64() * 1e6);
        }
        if state.latencies.len() == state.crashes {
            let latencies = std::mem::take(&mut state.latencies);
            let _ = state.done.send(latencies);
            return;
        }
        state.crashed_at = Some(Instant::now());
        drop(state);
        panic!("crash");
    }
}

/// What is to be supervised.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) idle: usize,
    pub(crate) crasher: Option<Crasher>,
    /// At which every idle child arrives when it runs.
    pub(crate) started: Gate,
    /// At which every idle child arrives when it has ended.
    pub(crate) gone: Gate,
}

impl Plan {
    pub(crate) fn new(idle: usize, crasher: Option<Crasher>) -> Self {
        Self { idle, crasher, started: Gate::new(idle), gone: Gate::new(idle) }
    }

    /// To be held by an idle child for as long as it is there.
    pub(crate) fn arrive(&self) -> Present {
        self.started.arrive();
        Present(self.gone.clone())
    }
}

/// Tells when it is dropped that its holder has ended.
pub(crate) struct Present(Gate);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.arrive();
    }
}
