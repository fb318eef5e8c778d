//! The supervisor without its waiting: messages in, actions of the core carried out.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;

use crate::{
    backoff::Backoff,
    child::{ChildSpec, Job},
    context::Link,
    core::{
        circuit::View,
        key::{Key, KeyMap},
        roster::{
            Action, Answer, Environment, Heartbeats, NotProvided, Progress, Report, Roster,
            StartDenied,
        },
    },
    event::{Callback, Event, LastStop, Order},
    exit::{Exit, Failure},
    handle::Handle,
    id::ChildId,
    report::{ShutdownCause, ShutdownReport, Unstopped},
    runtime::{
        inbox::{Message, RunEnd},
        shared::{Row, Shared},
        worker::Remain,
    },
    sync::{deadline, panic::Panic, unwind},
    telemetry::{TARGET, TelemetrySink},
};

/// Answers whether a child is enabled; `None` keeps the last answer.
pub(crate) type FlagFn = Box<dyn FnMut(&ChildId) -> Option<bool> + Send>;

/// The parts of a supervisor before it runs.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: Receiver<Message>,
    pub(crate) poll_interval: Duration,
    pub(crate) flag: Option<FlagFn>,
    pub(crate) backoff: Backoff,
    /// Takes the place of a backoff closure that panics.
    pub(crate) fallback: Backoff,
    pub(crate) sinks: Vec<Arc<dyn TelemetrySink>>,
    pub(crate) children: Vec<(Arc<Row>, ChildSpec)>,
}

/// What runs the bodies: threads, or the script of a simulation.
pub(crate) trait Workers {
    /// The state of one child that the engine shares with what runs it.
    type WorkerShared;

    /// Makes the worker of a new child.
    fn engage(&mut self, link: Link, job: Job) -> Self::WorkerShared;
    /// Provides what waits for the start signal: with threads, spawns one if there is none.
    fn provide(&mut self, worker: &Self::WorkerShared) -> Result<(), Failure>;
    /// Sends the start signal. Returns `false` if it is refused by now: the body will not run.
    fn send_start(&mut self, worker: &Self::WorkerShared, run: u64, failures: u32) -> bool;
    /// Requests the present run to stop.
    fn stop(&mut self, worker: &Self::WorkerShared);
    /// Makes the present run the last: the body may be dropped as it ends, and in a shutdown its
    /// thread then leaves.
    fn make_final(&mut self, worker: &Self::WorkerShared, is_closing: bool);
    /// Notes that the engine has received the end of the present run.
    fn run_is_over(&mut self, worker: &Self::WorkerShared);
    /// Keeps a user's value, to be dropped where the body is dropped.
    fn entrust(&mut self, worker: &Self::WorkerShared, remain: Remain);
    /// Ends the thread that waits for a next run, and drops the body unless it is kept.
    fn retire(&mut self, worker: &Self::WorkerShared, keep_body: bool);
    fn heartbeats(&self, worker: &Self::WorkerShared) -> Heartbeats;
    /// Notes that a shutdown begins.
    fn close(&mut self);
    /// The children that have not stopped, in list order. Each was requested to stop at `since` at
    /// the latest.
    fn unstopped(&self, now: Instant, since: Instant) -> Vec<Unstopped>;
    /// Asks all worker threads to leave, as the engine ends.
    fn dismiss(&mut self);
}

pub(crate) struct Engine<W: Workers> {
    inbox: Receiver<Message>,
    roster: Roster,
    environment: EngineEnvironment<W>,
    closing: Option<Closing>,
    has_started_run: bool,
}

/// A shutdown under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    pub(crate) since: Instant,
    /// The shutdown waits for no child any longer than until then.
    pub(crate) cap: Option<Instant>,
}

impl<W: Workers> Engine<W> {
    /// Lists the children. The first round looks at them, and starts those that are enabled.
    pub(crate) fn new(parts: Parts, workers: W) -> Self {
        let Parts { shared, inbox, poll_interval: _, flag, backoff, fallback, sinks, children } =
            parts;
        let mut engine = Self {
            inbox,
            roster: Roster::new(),
            environment: EngineEnvironment {
                shared,
                workers,
                entries: KeyMap::default(),
                flag,
                backoff,
                fallback,
                faults: sinks.iter().map(|_| BTreeSet::new()).collect(),
                sinks: sinks.into(),
                events: 0,
            },
            closing: None,
            has_started_run: false,
        };
        let now = engine.now();
        for (row, spec) in children {
            engine.list(row, spec, now);
        }
        engine.roster.begin_round();
        engine
    }

    pub(crate) fn now(&self) -> Instant {
        self.environment.shared.now()
    }

    pub(crate) fn inbox(&self) -> &Receiver<Message> {
        &self.inbox
    }

    pub(crate) fn workers(&mut self) -> &mut W {
        &mut self.environment.workers
    }

    /// Begins a round, which asks all flags.
    pub(crate) fn begin_round(&mut self) {
        self.roster.begin_round();
    }

    pub(crate) fn is_in_round(&self) -> bool {
        self.roster.is_in_round()
    }

    /// Whether every enabled child has had its first start.
    pub(crate) fn has_had_round(&self) -> bool {
        self.roster.has_had_round()
    }

    /// The next instant at which there is something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.roster.next_deadline()
    }

    /// Whether a start signal was sent since the last call.
    pub(crate) fn take_has_started_run(&mut self) -> bool {
        std::mem::take(&mut self.has_started_run)
    }

    /// The shutdown that is under way, if any.
    pub(crate) fn closing(&self) -> Option<Closing> {
        self.closing
    }

    /// Whether a shutdown has no child to wait for: all are down, or timed out.
    pub(crate) fn is_over(&self) -> bool {
        self.roster.is_over()
    }

    /// Does all that is due now, but only a part of a round over many children.
    pub(crate) fn proceed(&mut self) {
        self.settle();
        if self.roster.is_in_round() {
            let now = self.now();
            self.roster.continue_round(now, &mut self.environment);
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.roster.expire(self.now());
        loop {
            match self.roster.settle(&mut self.environment) {
                Progress::Perform(action) => self.perform(action),
                Progress::Again => {}
                Progress::Settled => break,
            }
        }
    }

    /// Passes a message to the core. [`proceed`](Engine::proceed) carries out what follows.
    pub(crate) fn handle(&mut self, message: Message) {
        let now = self.now();
        match message {
            Message::Exit(end) => self.run_ended(end),
            Message::MarkedHealthy { key, run } => self.roster.marked_healthy(key, run, now),
            Message::Trip { key, run, failures, last } => {
                self.roster.tripped(key, run, failures, last, now)
            }
            Message::FirstHeartbeat { key, run } => {
                self.roster.gave_heartbeat(key, run, now, &mut self.environment)
            }
            Message::CallbackPanicked { key, run, callback, panic } => {
                self.note_panic(key, run, callback, panic)
            }
            Message::ThreadGone => {}
            Message::PollNow => {
                self.environment.shared.poll_is_taken_up();
                self.roster.begin_round();
            }
            Message::Add { key, spec } => {
                match self.environment.shared.row_of(key) {
                    Some(row) => self.list(row, *spec, now),
                    None => debug_assert!(
                        false,
                        "a listed child keeps its row until the engine forgets it"
                    ),
                }
                self.roster.order(key, Order::Add, now);
            }
            Message::Order { key } => {
                // A child that is gone has taken its pending orders with it.
                if let Some(order) =
                    self.environment.entries.get(&key).and_then(|entry| entry.row.take_order())
                {
                    self.roster.order(key, order, now);
                }
            }
            Message::Shutdown => {
                let limit = self.environment.shared.acknowledge();
                self.environment.workers.close();
                self.roster.close(now, limit);
                let closing = self.closing.get_or_insert(Closing { since: now, cap: None });
                closing.cap = deadline::sooner(closing.cap, deadline::after(now, limit));
            }
        }
    }

    /// Reports the panic of a callback on another thread. The sinks get no events of a child that
    /// has left the list; then the panic is logged, so that none is lost.
    fn note_panic(&mut self, key: Key, run: u64, callback: Callback, panic: Panic) {
        if self.environment.entries.contains_key(&key) {
            let now = self.now();
            self.roster.note_call_of(key, run, callback, Some(panic), now);
        } else {
            let whose = format!("the `{callback}` callback for a child that is gone");
            let log = || log::error!(target: TARGET, "{whose} panicked: {panic}");
            let _ = self.environment.shared.doing.call(Callback::Sink, key, || unwind::catch(log));
        }
    }

    fn run_ended(&mut self, end: RunEnd) {
        let RunEnd { key, run, exit, at, display_panic, drops, callbacks_succeeded } = end;
        let failed = matches!(exit, Exit::Failed(_));
        if let Some(entry) = self.environment.entries.get(&key) {
            self.environment.workers.run_is_over(&entry.worker);
        }
        match self.roster.run_ended(key, run, exit, at, &mut self.environment) {
            Ok(()) => {
                let now = self.now();
                if failed {
                    self.roster.note_call(key, Callback::Display, display_panic, now);
                }
                if let Some(result) = drops.into_result() {
                    self.roster.note_call(key, Callback::Drop, result.err(), now);
                }
                if callbacks_succeeded {
                    self.roster.note_call(key, Callback::OnStop, None, now);
                }
            }
            Err(stale) => {
                let _ = self.environment.discard(key, stale);
            }
        }
    }

    fn list(&mut self, row: Arc<Row>, spec: ChildSpec, now: Instant) {
        let rules = self.environment.shared.defaults.rules(&spec);
        let ChildSpec { body, backoff, stack_size, fresh_thread, .. } = spec;
        let (key, id) = (row.key(), row.id().clone());
        let handle = Handle::new(self.environment.shared.clone());
        let sinks = Arc::downgrade(&self.environment.sinks);
        let link = Link { key, id: id.clone(), activity: row.activity().cloned(), handle, sinks };
        let job = Job { body, stop_timeout: rules.stop_timeout, stack_size, fresh_thread };
        let worker = self.environment.workers.engage(link, job);
        self.roster.insert(key, id, rules, now);
        self.environment
            .entries
            .insert(key, ChildEntry { row, worker, backoff: backoff.map(Box::new) });
    }

    fn perform(&mut self, action: Action) {
        let EngineEnvironment { workers, entries, shared, .. } = &mut self.environment;
        match action {
            Action::Publish { key, view, stopped } => self.publish(key, view, stopped),
            Action::Report { key, report } => self.environment.record(key, report),
            Action::SendStart { key, run, failures } => {
                self.has_started_run = true;
                if entries
                    .get(&key)
                    .is_some_and(|entry| !workers.send_start(&entry.worker, run, failures))
                {
                    // Another thread found this one stuck and has sealed the worker, so the body
                    // never ran. Its start was reported already, so the run needs an end.
                    let _ = shared.tell(Message::Exit(RunEnd::of_no_run(key, run, shared.now())));
                }
            }
            Action::Stop { key } => {
                if let Some(entry) = entries.get(&key) {
                    workers.stop(&entry.worker);
                }
            }
            Action::MakeFinal { key } => {
                if let Some(entry) = entries.get_mut(&key) {
                    // No run follows, so the backoff closure is not called any more.
                    if let Some(backoff) = entry.backoff.take_if(|backoff| backoff.holds_closure())
                    {
                        workers.entrust(&entry.worker, Remain::Backoff(backoff));
                    }
                    workers.make_final(&entry.worker, self.roster.is_closing());
                }
            }
            Action::Retire { key, keep_body } => {
                if let Some(entry) = entries.get_mut(&key) {
                    if let Some(backoff) =
                        entry.backoff.take_if(|backoff| !keep_body && backoff.holds_closure())
                    {
                        workers.entrust(&entry.worker, Remain::Backoff(backoff));
                    }
                    workers.retire(&entry.worker, keep_body);
                }
            }
            Action::Forget { key } => {
                if let Some(ChildEntry { row, worker, backoff }) = entries.remove(&key) {
                    if let Some(backoff) = backoff.filter(|backoff| backoff.holds_closure()) {
                        workers.entrust(&worker, Remain::Backoff(backoff));
                    }
                    drop(shared.forget(&row));
                    if row.holds_error() {
                        workers.entrust(&worker, Remain::Row(row));
                    }
                    workers.retire(&worker, false);
                }
                for faults in &mut self.environment.faults {
                    faults.remove(&key);
                }
            }
            Action::GiveUp { id, cause, exit } => {
                if !self.roster.is_closing()
                    && shared.give_up(ShutdownCause::GaveUp { id, cause, exit })
                {
                    shared.request_shutdown(Duration::MAX);
                }
            }
        }
    }

    fn publish(&mut self, key: Key, view: View, stopped: Option<LastStop>) {
        let Some(entry) = self.environment.entries.get(&key) else { return };
        if let Some(before) = self.environment.shared.publish(&entry.row, view, stopped) {
            if before.holds_error() {
                self.environment.workers.entrust(&entry.worker, Remain::Stop(before));
            }
        }
    }

    /// Receives the messages that are in the inbox now, but none that arrive meanwhile. Returns
    /// whether the end of a run was among them.
    fn clear_inbox(&mut self) -> bool {
        let mut has_run_ended = false;
        for _ in 0..self.inbox.len() {
            let Ok(message) = self.inbox.try_recv() else { break };
            match message {
                Message::Exit(end) => {
                    has_run_ended = true;
                    self.run_ended(end);
                }
                Message::CallbackPanicked { key, run, callback, panic } => {
                    self.note_panic(key, run, callback, panic)
                }
                Message::Add { key, spec } => drop(self.environment.discard(key, spec)),
                Message::MarkedHealthy { .. }
                | Message::Trip { .. }
                | Message::FirstHeartbeat { .. }
                | Message::ThreadGone
                | Message::PollNow
                | Message::Order { .. }
                | Message::Shutdown => {}
            }
            self.settle();
        }
        has_run_ended
    }

    /// Ends the supervisor, and reports the children that did not stop.
    pub(crate) fn finish(mut self) -> ShutdownReport {
        self.environment.shared.close_directory();
        // Each run is either reported as ended or named as unstopped. The threads are looked at
        // before the inbox: a child whose thread is gone by then has left its exit in the inbox.
        // If there was an exit, the look is repeated, since the list may name a child that has
        // just ended.
        let since = self.closing.map_or_else(|| self.now(), |closing| closing.since);
        let unstopped = loop {
            let unstopped = self.environment.workers.unstopped(self.now(), since);
            if !self.clear_inbox() {
                break unstopped;
            }
        };
        let Self { environment, inbox, .. } = self;
        let EngineEnvironment { shared, mut workers, mut entries, flag, backoff, sinks, .. } =
            environment;
        for entry in entries.values_mut() {
            if let Some(backoff) = entry.backoff.take_if(|backoff| backoff.holds_closure()) {
                workers.entrust(&entry.worker, Remain::Backoff(backoff));
            }
        }
        workers.dismiss();
        // The user's closures are dropped here at the latest. The rows stay in the directory, for
        // handles that ask for the last state.
        shared.doing.call(Callback::Drop, None, || {
            for entry in entries.into_values() {
                let _ = unwind::discard(entry);
            }
            let _ = unwind::discard(workers);
            let _ = unwind::discard(inbox);
            let _ = unwind::discard(flag);
            let _ = unwind::discard(backoff);
            // One by one, if there is no other reference: so each drop that panics is caught on
            // its own.
            match Arc::try_unwrap(sinks) {
                Ok(sinks) => sinks.into_iter().for_each(|sink| drop(unwind::discard(sink))),
                Err(shared) => drop(unwind::discard(shared)),
            }
        });
        ShutdownReport { cause: shared.cause(), unstopped, stuck_in: None, has_ended: true }
    }
}

/// What the engine answers the core's questions and carries out its actions with.
struct EngineEnvironment<W: Workers> {
    shared: Arc<Shared>,
    workers: W,
    entries: KeyMap<ChildEntry<W::WorkerShared>>,
    flag: Option<FlagFn>,
    backoff: Backoff,
    /// Takes the place of a backoff closure that panics.
    fallback: Backoff,
    /// Nested supervisors without sinks of their own use these.
    sinks: Arc<Vec<Arc<dyn TelemetrySink>>>,
    /// For each sink, the children for whose last event it panicked: this is logged only once.
    faults: Vec<BTreeSet<Key>>,
    /// The number of events so far.
    events: u64,
}

/// What the engine knows of one child.
struct ChildEntry<P> {
    row: Arc<Row>,
    worker: P,
    /// The child's own backoff. In a box, because few children have one.
    backoff: Option<Box<Backoff>>,
}

impl<W: Workers> EngineEnvironment<W> {
    /// Numbers a report, and passes it to all sinks as an event.
    fn record(&mut self, key: Key, report: Report) {
        let Report { id, run, failures, kind } = report;
        let event = Event { seq: self.events, id, run, failures, at: self.shared.now(), kind };
        self.events += 1;
        for (sink, faults) in self.sinks.iter().zip(&mut self.faults) {
            let result = self
                .shared
                .doing
                .call(Callback::Sink, key, || unwind::catch(|| sink.record(&event)));
            match result {
                Ok(()) => {
                    if !faults.is_empty() {
                        faults.remove(&key);
                    }
                }
                Err(panic) => {
                    if faults.insert(key) {
                        // Under a guard, and marked as a call to a sink: the logger may be what
                        // panicked, and it may block.
                        let log = || {
                            let (name, id) = (event.name(), &event.id);
                            let text =
                                format!("a telemetry sink panicked at `{name}` of child `{id}`");
                            log::error!(target: TARGET, "{text}: {panic}");
                        };
                        let _ = self.shared.doing.call(Callback::Sink, key, || unwind::catch(log));
                    }
                }
            }
        }
        let _ = self.discard(key, event);
    }

    /// Drops a value that may hold a user's value.
    fn discard<T>(&self, key: Key, value: T) -> Result<(), Panic> {
        self.shared.doing.call(Callback::Drop, key, || unwind::discard(value))
    }
}

impl<W: Workers> Environment for EngineEnvironment<W> {
    fn now(&self) -> Instant {
        self.shared.now()
    }

    fn is_enabled(&mut self, key: Key, id: &ChildId) -> Answer<Option<bool>> {
        let Some(flag) = &mut self.flag else { return Answer { value: None, panic: None } };
        match self.shared.doing.call(Callback::Enabled, key, || unwind::catch(|| flag(id))) {
            Ok(value) => Answer { value, panic: None },
            Err(panic) => Answer { value: None, panic: Some(panic) },
        }
    }

    fn backoff(&mut self, key: Key, attempt: u32) -> Answer<Duration> {
        let own = self.entries.get_mut(&key).and_then(|entry| entry.backoff.as_deref_mut());
        let backoff = own.unwrap_or(&mut self.backoff);
        match self
            .shared
            .doing
            .call(Callback::Backoff, key, || unwind::catch(|| backoff.delay(attempt)))
        {
            Ok(value) => Answer { value, panic: None },
            Err(panic) => Answer { value: self.fallback.delay(attempt), panic: Some(panic) },
        }
    }

    fn heartbeats(&mut self, key: Key) -> Heartbeats {
        let entry = self.entries.get(&key);
        entry.map_or(Heartbeats { count: 0, doing: "" }, |entry| {
            self.workers.heartbeats(&entry.worker)
        })
    }

    fn begin(&mut self, key: Key, view: View) -> Result<(), StartDenied> {
        match self.entries.get(&key) {
            Some(entry) => self.shared.publish_begin(&entry.row, view),
            None => Err(StartDenied),
        }
    }

    fn provide_thread(&mut self, key: Key) -> Result<(), NotProvided> {
        let Some(entry) = self.entries.get(&key) else {
            return Err(NotProvided::Denied(StartDenied));
        };
        self.shared.check_start(&entry.row).map_err(NotProvided::Denied)?;
        self.workers.provide(&entry.worker).map_err(|failure| {
            // An order may have forbidden the start meanwhile: then it is no failed start.
            self.shared
                .check_start(&entry.row)
                .map_or_else(NotProvided::Denied, |()| NotProvided::Failed(failure))
        })
    }
}
