//! Workers of the engine as threads, with a later try of spawns that failed.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    child::Job,
    context::Link,
    core::run::Heartbeats,
    exit::Failure,
    report::{Unstopped, UnstoppedPhase},
    runtime::{
        thread_record::ThreadRecord,
        thread_registry::ThreadRegistry,
        worker::{Remain, WorkerShared},
        workers::Workers,
    },
    sync::{clock::system_now, deadline},
};

/// How long a deferred spawn waits before it is tried again.
const DELAY: Duration = Duration::from_millis(100);

/// The supervisor thread's access to its threads, with the spawns that failed.
pub(crate) struct ThreadWorkers {
    threads: Arc<ThreadRegistry>,
    deferred: Vec<DeferredSpawn>,
    retry_at: Option<Instant>,
}

/// A task for which no thread could be spawned, and which is tried again.
enum DeferredSpawn {
    CallBack(Arc<WorkerShared>),
    Drop(Arc<WorkerShared>),
}

impl ThreadWorkers {
    pub(crate) fn new(threads: Arc<ThreadRegistry>) -> Self {
        Self { threads, deferred: Vec::new(), retry_at: None }
    }

    /// When the deferred spawns are tried again; `None` if there are none.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Tries the deferred spawns again, if it is time to.
    pub(crate) fn retry_spawns(&mut self) {
        if self.retry_at.is_some() && deadline::is_reached(self.retry_at, system_now()) {
            self.retry_at = None;
            let mut deferred = std::mem::take(&mut self.deferred).into_iter();
            while let Some(spawn) = deferred.next() {
                let done = match &spawn {
                    DeferredSpawn::CallBack(worker) => self.threads.call_back(worker),
                    DeferredSpawn::Drop(worker) => self.threads.retire(worker, false),
                };
                if done.is_err() {
                    // There is no thread for the others either, so they wait as well.
                    self.note(done, spawn);
                    self.deferred.extend(deferred);
                    return;
                }
            }
        }
    }

    fn note(&mut self, done: io::Result<()>, spawn: DeferredSpawn) {
        if done.is_err() {
            self.deferred.push(spawn);
            self.retry_at = self.retry_at.or(deadline::after(system_now(), DELAY));
        }
    }
}

impl Workers for ThreadWorkers {
    type Worker = Arc<WorkerShared>;

    fn engage(&mut self, link: Link, job: Job) -> Arc<WorkerShared> {
        WorkerShared::new(link, job)
    }

    fn provide(&mut self, worker: &Arc<WorkerShared>) -> Result<(), Failure> {
        self.threads.provide(worker)
    }

    fn send_start(&mut self, worker: &Arc<WorkerShared>, run: u64, failures: u32) -> bool {
        worker.send_start(run, failures)
    }

    fn stop(&mut self, worker: &Arc<WorkerShared>) {
        let done = self.threads.stop(worker, system_now());
        self.note(done, DeferredSpawn::CallBack(worker.clone()));
    }

    fn postpone(&mut self, worker: &Arc<WorkerShared>) {
        self.threads.postpone(worker);
    }

    fn call_back(&mut self, worker: &Arc<WorkerShared>) {
        let done = self.threads.call_back(worker);
        self.note(done, DeferredSpawn::CallBack(worker.clone()));
    }

    fn make_final(&mut self, worker: &Arc<WorkerShared>, is_closing: bool) {
        worker.make_final(is_closing);
    }

    fn note_run_end(&mut self, worker: &Arc<WorkerShared>) {
        worker.note_run_end();
        self.threads.end_postponement(worker, system_now());
    }

    fn entrust(&mut self, worker: &Arc<WorkerShared>, remain: Remain) {
        worker.entrust(remain);
    }

    fn retire(&mut self, worker: &Arc<WorkerShared>, keep_body: bool) {
        let done = self.threads.retire(worker, keep_body);
        self.note(done, DeferredSpawn::Drop(worker.clone()));
    }

    fn heartbeats(&self, worker: &Arc<WorkerShared>) -> Option<Heartbeats> {
        worker.context().map(|context| context.heartbeats())
    }

    fn stop_phase(&self, worker: &Arc<WorkerShared>) -> Option<UnstoppedPhase> {
        worker.stop_phase()
    }

    fn thread(&self, worker: &Arc<WorkerShared>) -> Option<Arc<ThreadRecord>> {
        worker.thread()
    }

    fn close(&mut self, since: Instant) {
        self.threads.close(since);
    }

    fn unstopped(&self, now: Instant, since: Instant) -> Vec<Unstopped> {
        self.threads.unstopped(now, since)
    }

    fn dismiss(&mut self) {
        self.threads.dismiss();
    }
}
