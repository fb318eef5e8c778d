//! Interface of what runs the bodies: threads, or the script of a simulation.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    child::Job,
    context::Link,
    core::run::Heartbeats,
    exit::Failure,
    report::{Unstopped, UnstoppedPhase},
    runtime::{thread_record::ThreadRecord, worker::Remain},
};

/// What runs the bodies: threads, or the script of a simulation.
pub(crate) trait Workers {
    /// What runs the body of one child.
    type Worker;

    /// Makes the worker of a new child.
    fn engage(&mut self, link: Link, job: Job) -> Self::Worker;
    /// Provides what waits for the start signal: with threads, spawns one if there is none.
    fn provide(&mut self, worker: &Self::Worker) -> Result<(), Failure>;
    /// Sends the start signal. Returns `false` if it is refused by now: the body will not run.
    fn send_start(&mut self, worker: &Self::Worker, run: u64, failures: u32) -> bool;
    /// Requests the present run to stop.
    fn stop(&mut self, worker: &Self::Worker);
    /// Notes that in a shutdown the present run is not asked to stop before others have ended.
    fn postpone(&mut self, worker: &Self::Worker);
    /// Has the stop callbacks of the present run called, if no thread calls them.
    fn call_back(&mut self, worker: &Self::Worker);
    /// Makes the present run the last: the body may be dropped as it ends, and in a shutdown its
    /// thread then leaves.
    fn make_final(&mut self, worker: &Self::Worker, is_closing: bool);
    /// Notes that the engine has received the end of the present run.
    fn note_run_end(&mut self, worker: &Self::Worker);
    /// Keeps a user's value, to be dropped where the body is dropped.
    fn entrust(&mut self, worker: &Self::Worker, remain: Remain);
    /// Ends the thread that waits for a next run, and drops the body unless it is kept.
    fn retire(&mut self, worker: &Self::Worker, keep_body: bool);
    /// The signs of life of the present run; `None` if that has ended, and the engine has not
    /// received its end.
    fn heartbeats(&self, worker: &Self::Worker) -> Option<Heartbeats>;
    /// How far the stop of the present run has got; `None` if that has ended, and the engine has
    /// not received its end.
    fn stop_phase(&self, worker: &Self::Worker) -> Option<UnstoppedPhase>;
    /// The thread of the present run, if it has one.
    fn thread(&self, worker: &Self::Worker) -> Option<Arc<ThreadRecord>>;
    /// Notes that a shutdown has begun at `since`.
    fn close(&mut self, since: Instant);
    /// The children that have not stopped, in list order. Each was requested to stop at `since` at
    /// the latest.
    fn unstopped(&self, now: Instant, since: Instant) -> Vec<Unstopped>;
    /// Asks the children's threads to leave, as the engine ends.
    fn dismiss(&mut self);
}

/// How long a child that has not stopped has been stopping: since its own stop request or since
/// `since`, whichever came first.
pub(crate) fn stopping_for(now: Instant, since: Instant, requested: Option<Instant>) -> Duration {
    now.saturating_duration_since(requested.map_or(since, |at| at.min(since)))
}
