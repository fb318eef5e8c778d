//! Children of the tests: idle ones, stubborn ones, and puppets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use circuit_breaker_supervisor::{Backoff, ChildContext, ChildResult, ChildSpec, Supervisor};
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;

/// A body that does nothing until it is asked to stop.
pub(crate) fn idle(ctx: &ChildContext) -> ChildResult {
    Ok(ctx.sleep(Duration::MAX)?)
}

/// A child that is healthy at once, and idle.
pub(crate) fn healthy(id: &str) -> ChildSpec {
    ChildSpec::new(id, |ctx| {
        ctx.mark_healthy();
        idle(ctx)
    })
}

/// The same as `idle`, in a wait that is no sign of life.
pub(crate) fn silent(ctx: &ChildContext) -> ChildResult {
    let _ = ctx.stopped().recv();
    Ok(())
}

/// A backoff that is always the same, to the nanosecond.
pub(crate) fn constant(delay: Duration) -> Backoff {
    Backoff::constant(delay).jitter(0.0)
}

/// Starts one child, each failure of which is followed by this delay, and records its events.
pub(crate) fn supervise(child: ChildSpec, delay: Duration) -> (Supervisor, Recorder) {
    let recorder = Recorder::default();
    let builder =
        Supervisor::builder().telemetry(recorder.clone()).backoff(constant(delay)).child(child);
    (builder.start().unwrap(), recorder)
}

pub(crate) fn idler(id: &str) -> ChildSpec {
    ChildSpec::new(id, idle)
}

/// A child that ignores every stop until its gate opens.
pub(crate) fn stubborn(id: &str) -> (ChildSpec, Gate, Receiver<ChildContext>) {
    let (gate, bar) = gate();
    let (sender, started) = unbounded();
    let spec = ChildSpec::new(id, move |ctx| {
        let _ = sender.send(ctx.clone());
        bar.wait();
        Ok(())
    });
    (spec, gate, started)
}

/// What a puppet does next.
#[derive(Debug)]
pub(crate) enum Act {
    Return,
    Fail(&'static str),
    Panic(&'static str),
    MarkHealthy,
}

/// Pulls the strings of one child.
pub(crate) struct Puppet {
    acts: Sender<Act>,
    /// The number of each run and its failures, as its body sees them.
    pub(crate) runs: Receiver<(u64, u32)>,
}

impl Puppet {
    pub(crate) fn act(&self, act: Act) {
        self.acts.send(act).unwrap();
    }

    /// Waits for the next run, and returns its number and its failures.
    #[track_caller]
    pub(crate) fn next_run(&self) -> (u64, u32) {
        take(&self.runs)
    }
}

/// A child that says when it runs, obeys stops, and otherwise does what it is told.
pub(crate) fn puppet(id: &str) -> (ChildSpec, Puppet) {
    let (body, strings) = puppet_body();
    (ChildSpec::new(id, body), strings)
}

/// One that has a single run.
pub(crate) fn puppet_once(id: &str) -> (ChildSpec, Puppet) {
    let (mut body, strings) = puppet_body();
    (ChildSpec::once(id, move |ctx| body(ctx)), strings)
}

fn puppet_body() -> (impl FnMut(&ChildContext) -> ChildResult + Send + 'static, Puppet) {
    let (acts, script) = unbounded();
    let (sender, runs) = unbounded();
    let body = move |ctx: &ChildContext| {
        let _ = sender.send((ctx.run(), ctx.failures()));
        loop {
            match ctx.recv(&script)? {
                Act::Return => return Ok(()),
                Act::Fail(text) => return Err(text.into()),
                Act::Panic(text) => panic!("{text}"),
                Act::MarkHealthy => ctx.mark_healthy(),
            }
        }
    };
    (body, Puppet { acts, runs })
}

/// Notices two runs at a time.
#[derive(Clone, Default)]
pub(crate) struct Exclusive(Arc<(AtomicBool, AtomicBool)>);

pub(crate) struct Inside<'a>(&'a Exclusive);

impl Exclusive {
    pub(crate) fn enter(&self) -> Inside<'_> {
        if self.0.0.swap(true, Ordering::SeqCst) {
            self.0.1.store(true, Ordering::SeqCst);
        }
        Inside(self)
    }

    pub(crate) fn was_broken(&self) -> bool {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.0.0.store(false, Ordering::SeqCst);
    }
}
