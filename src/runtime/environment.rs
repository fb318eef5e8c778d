//! Environment of the core: answers to what it asks, and its actions carried out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    backoff::Backoff,
    core::{
        circuit::View,
        interface::{Action, Answer, Environment, NotProvided, Report, Sight, StartDenied},
        key::Key,
        run::Heartbeats,
    },
    event::{Callback, Event, WaitingFor},
    report::{ChildGaveUp, Unstopped},
    runtime::{
        inbox::{Message, RunEnd},
        row::Row,
        shared::Shared,
        sinks::Sinks,
        worker::Remain,
        workers::Workers,
    },
    sync::{panic::Panic, unwind},
};

/// Answers whether a child is enabled; `None` keeps the last answer.
pub(crate) type FlagFn = Box<dyn FnMut(&str) -> Option<bool> + Send>;

pub(crate) struct EngineEnvironment<W: Workers> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) workers: W,
    pub(crate) flag: Option<FlagFn>,
    pub(crate) backoff: Backoff,
    /// Takes the place of a backoff closure that panics.
    pub(crate) fallback: Backoff,
    pub(crate) sinks: Sinks,
    /// The number of events so far.
    pub(crate) events: u64,
    /// A start signal was sent, or refused, since the main loop looked last.
    pub(crate) has_started_run: bool,
    pub(crate) looks: Looks,
}

/// How many more threads the supervisor thread may look at now: if thousands of children are stuck,
/// the others would have to wait.
#[derive(Default)]
pub(crate) struct Looks {
    since: Option<Instant>,
    count: u32,
}

impl Looks {
    /// The most in one second.
    const MOST: u32 = 256;

    /// Counts one look. Returns whether it may be made.
    fn is_left(&mut self, now: Instant) -> bool {
        let is_old = |since: Instant| now.saturating_duration_since(since) > Duration::from_secs(1);
        if self.since.is_none_or(is_old) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count += 1;
        self.count <= Self::MOST
    }
}

/// What the runtime keeps for one child, in the core's table.
pub(crate) struct ChildEntry<W> {
    pub(crate) row: Arc<Row>,
    pub(crate) worker: W,
    /// The child's own backoff. In a box, because few children have one.
    pub(crate) backoff: Option<Box<Backoff>>,
}

impl<W: Workers> EngineEnvironment<W> {
    /// Carries out an action of the core.
    pub(crate) fn perform(&mut self, key: Key, entry: &mut ChildEntry<W::Worker>, action: Action) {
        match action {
            Action::Publish { view, stopped } => {
                let before = self.shared.publish(&entry.row, view, stopped);
                if let Some(before) = before.filter(|before| before.holds_error()) {
                    self.workers.entrust(&entry.worker, Remain::LastStop(before));
                }
            }
            Action::Report(report) => self.record(key, report),
            Action::SendStart { run, failures } => {
                self.has_started_run = true;
                if !self.workers.send_start(&entry.worker, run, failures) {
                    // Another thread found the supervisor thread stuck and has sealed the worker,
                    // so the body never ran. Its start was reported already, so the run needs an
                    // end.
                    let end = RunEnd::of_no_run(key, run, self.now());
                    let _ = self.shared.tell(Message::RunEnded(end));
                }
            }
            Action::Stop => self.workers.stop(&entry.worker),
            Action::MakeFinal { is_closing } => {
                // No run follows, so the backoff closure is not called any more.
                self.entrust_backoff(entry);
                self.workers.make_final(&entry.worker, is_closing);
            }
            Action::Retire { keep_body } => {
                if !keep_body {
                    self.entrust_backoff(entry);
                }
                self.workers.retire(&entry.worker, keep_body);
            }
            Action::ShutDown { id, cause, exit } => {
                self.shared.give_up(ChildGaveUp { id, cause, exit });
            }
        }
    }

    /// Takes a child off the list, and has its worker drop what it still holds.
    pub(crate) fn forget(&mut self, key: Key, mut entry: ChildEntry<W::Worker>) {
        self.entrust_backoff(&mut entry);
        let ChildEntry { row, worker, backoff: _ } = entry;
        drop(self.shared.forget(&row));
        if row.holds_error() {
            self.workers.entrust(&worker, Remain::Row(row));
        }
        self.workers.retire(&worker, false);
        self.sinks.forget(key);
    }

    /// Has the child's worker drop its backoff closure, whose `Drop` may take long.
    pub(crate) fn entrust_backoff(&mut self, entry: &mut ChildEntry<W::Worker>) {
        if let Some(backoff) = entry.backoff.take_if(|backoff| backoff.holds_closure()) {
            self.workers.entrust(&entry.worker, Remain::Backoff(backoff));
        }
    }

    /// Numbers a report, and passes it to all sinks as an event.
    fn record(&mut self, key: Key, report: Report) {
        let Report { id, run, failures, kind } = report;
        let supervisor = self.shared.name.clone();
        let (seq, at) = (self.events, self.now());
        let event = Event { supervisor, seq, id, run, failures, at, kind };
        self.events += 1;
        self.sinks.record(&self.shared, key, &event);
        let _ = self.discard(key, event);
    }

    /// Drops a value that may hold a user's value.
    pub(crate) fn discard<T>(&self, key: Key, value: T) -> Result<(), Panic> {
        self.shared.user_call.make(Callback::Drop, key, || unwind::discard(value))
    }
}

impl<W: Workers> Environment for EngineEnvironment<W> {
    type Entry = ChildEntry<W::Worker>;

    fn now(&self) -> Instant {
        self.shared.now()
    }

    fn is_enabled(&mut self, key: Key, id: &str) -> Answer<Option<bool>> {
        let Some(flag) = &mut self.flag else { return Answer { value: None, panic: None } };
        let ask = || unwind::catch(|| flag(id));
        match self.shared.user_call.make(Callback::Enabled, key, ask) {
            Ok(value) => Answer { value, panic: None },
            Err(panic) => Answer { value: None, panic: Some(panic) },
        }
    }

    fn backoff(&mut self, key: Key, entry: &mut Self::Entry, attempt: u32) -> Answer<Duration> {
        let backoff = entry.backoff.as_deref_mut().unwrap_or(&mut self.backoff);
        let ask = || unwind::catch(|| backoff.delay(attempt));
        match self.shared.user_call.make(Callback::Backoff, key, ask) {
            Ok(value) => Answer { value, panic: None },
            Err(panic) => Answer { value: self.fallback.delay(attempt), panic: Some(panic) },
        }
    }

    fn heartbeats(&mut self, entry: &Self::Entry) -> Heartbeats {
        // The end of a run is a sign of life.
        let ended = Heartbeats { is_waiting: true, ..Heartbeats::default() };
        self.workers.heartbeats(&entry.worker).unwrap_or(ended)
    }

    fn look_at(&mut self, entry: &Self::Entry, run: u64) -> Sight {
        let now = self.now();
        let thread = self.workers.thread(&entry.worker).filter(|_| self.looks.is_left(now));
        let thread = thread.and_then(|thread| {
            let info = thread.look_in(run);
            entry.row.note_stuck_thread(thread);
            info
        });
        Sight { doing: entry.row.doing(run), thread }
    }

    fn abandon(
        &mut self,
        entry: &Self::Entry,
        run: u64,
        stopping_for: Duration,
        sight: Sight,
    ) -> bool {
        let Some(phase) = self.workers.stop_phase(&entry.worker) else { return false };
        let id = entry.row.id().clone();
        let Sight { doing, thread } = sight;
        self.shared.abandon(Unstopped { id, run, stopping_for, phase, doing, thread })
    }

    fn waiting_for(&mut self, entry: &Self::Entry) -> WaitingFor {
        self.shared.waiting_for(&entry.row, self.now())
    }

    fn provide_thread(&mut self, entry: &mut Self::Entry) -> Result<(), NotProvided> {
        self.shared.check_start(&entry.row).map_err(NotProvided::Denied)?;
        self.workers.provide(&entry.worker).map_err(|failure| {
            // An order may have forbidden the start meanwhile: then it is no failed start.
            self.shared
                .check_start(&entry.row)
                .map_or_else(NotProvided::Denied, |()| NotProvided::Failed(failure))
        })
    }

    fn publish_begin(&mut self, entry: &Self::Entry, view: View) -> Result<(), StartDenied> {
        self.shared.publish_begin(&entry.row, view)
    }
}
