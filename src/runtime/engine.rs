//! Supervisor without its waiting: passes each message to the core, and performs what follows.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;

use crate::{
    backoff::Backoff,
    child::{ChildSpec, Job},
    context::Link,
    core::{
        dependencies::Dependency,
        interface::{Environment, Progress},
        key::Key,
        roster::Roster,
    },
    event::{Callback, Order},
    exit::Exit,
    handle::Handle,
    id::ChildId,
    report::ShutdownReport,
    runtime::{
        environment::{ChildEntry, EngineEnvironment, FlagFn, Looks},
        inbox::{Message, RunEnd},
        lifecycle::Noticed,
        pulse::{Pulse, PulseFn},
        row::Row,
        shared::Shared,
        sinks::Sinks,
        workers::Workers,
    },
    sync::{deadline, panic::Panic, unwind},
    telemetry::{TARGET, TelemetrySink},
};

/// The parts of a supervisor before it runs.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: Receiver<Message>,
    pub(crate) poll_interval: Duration,
    pub(crate) start_rate: Option<NonZeroU32>,
    pub(crate) flag: Option<FlagFn>,
    pub(crate) backoff: Backoff,
    /// Takes the place of a backoff closure that panics.
    pub(crate) fallback: Backoff,
    pub(crate) pulse: Option<(Duration, PulseFn)>,
    pub(crate) sinks: Vec<Arc<dyn TelemetrySink>>,
    pub(crate) children: Vec<(Arc<Row>, ChildSpec)>,
}

impl Parts {
    /// How often the flags are asked; `None` is never.
    pub(crate) fn polls(&self) -> Option<Duration> {
        let polls = self.flag.is_some() && !deadline::is_never(self.poll_interval);
        polls.then_some(self.poll_interval)
    }
}

pub(crate) struct Engine<W: Workers> {
    inbox: Receiver<Message>,
    roster: Roster<ChildEntry<W::Worker>>,
    environment: EngineEnvironment<W>,
    pulse: Option<Pulse>,
    closing: Option<Noticed>,
}

impl<W: Workers> Engine<W> {
    /// Lists the children. The first round looks at them, and starts those that are enabled.
    pub(crate) fn new(parts: Parts, workers: W) -> Self {
        let Parts {
            shared,
            inbox,
            poll_interval: _,
            start_rate,
            flag,
            backoff,
            fallback,
            pulse,
            sinks,
            children,
        } = parts;
        let now = shared.now();
        let mut engine = Self {
            inbox,
            roster: Roster::new(start_rate),
            environment: EngineEnvironment {
                shared,
                workers,
                flag,
                backoff,
                fallback,
                sinks: Sinks::new(sinks),
                events: 0,
                has_started_run: false,
                looks: Looks::default(),
            },
            pulse: pulse.map(|(interval, f)| Pulse::new(interval, f, now)),
            closing: None,
        };
        for (row, spec) in children {
            engine.list(row, spec, now);
        }
        engine.roster.begin_round();
        engine
    }

    pub(crate) fn now(&self) -> Instant {
        self.environment.now()
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

    /// Whether there is something to do now, after what was just done.
    pub(crate) fn is_due(&self) -> bool {
        self.next_deadline().is_some_and(|deadline| deadline <= self.now())
    }

    /// The next instant at which there is something to do. It may be in the past.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.roster.next_deadline()
    }

    /// Calls the pulse if that is due.
    pub(crate) fn beat(&mut self) {
        if let Some(pulse) = self.pulse.as_mut().filter(|_| self.roster.has_had_round()) {
            pulse.beat(&self.environment.shared);
        }
    }

    /// When the next pulse is due.
    pub(crate) fn next_pulse(&self) -> Option<Instant> {
        self.pulse.as_ref()?.due()
    }

    /// Whether a start signal was sent, or refused, since the last call.
    pub(crate) fn take_has_started_run(&mut self) -> bool {
        std::mem::take(&mut self.environment.has_started_run)
    }

    /// The shutdown that is under way, if any.
    pub(crate) fn closing(&self) -> Option<Noticed> {
        self.closing
    }

    /// Whether all children are well at work. It is not looked at again before a status changes.
    pub(crate) fn take_is_well(&mut self) -> bool {
        let shared = &self.environment.shared;
        let are_at_work = || shared.rows().iter().all(|row| shared.info(row).is_at_work());
        self.roster.has_had_round() && self.roster.take_may_be_well() && are_at_work()
    }

    /// Until when a shutdown waits for threads at most; `None` is without end.
    pub(crate) fn closing_cap(&self) -> Option<Instant> {
        self.roster.closing_cap()
    }

    /// Whether a shutdown has no child to wait for: all are down, or timed out.
    pub(crate) fn is_over(&self) -> bool {
        self.roster.is_over()
    }

    /// Does all that is due now, but only a part of a round over many children.
    pub(crate) fn proceed(&mut self) {
        self.accept_take_over();
        self.settle();
        if self.roster.is_in_round() {
            self.roster.continue_round(&mut self.environment);
            self.settle();
        }
    }

    fn settle(&mut self) {
        let Self { roster, environment, .. } = self;
        roster.expire(environment.now());
        loop {
            match roster.next_step(environment) {
                Progress::Perform(key, entry, action) => environment.perform(key, entry, action),
                Progress::Forgotten(key, entry) => environment.forget(key, entry),
                Progress::Again => {}
                Progress::Settled => break,
            }
        }
    }

    /// Passes a message to the core. [`proceed`](Engine::proceed) carries out what follows.
    pub(crate) fn handle_message(&mut self, message: Message) {
        let now = self.now();
        self.accept_take_over();
        match message {
            Message::RunEnded(end) => self.handle_run_end(end),
            Message::MarkedHealthy { key, run } => self.roster.marked_healthy(key, run, now),
            Message::Trip { key, run, failures, last } => {
                self.roster.tripped(key, run, failures, last, now)
            }
            Message::FirstHeartbeat { key, run } => {
                self.roster.gave_heartbeat(key, run, now, &mut self.environment)
            }
            Message::CallbackPanicked { key, run, callback, panic } => {
                self.handle_panic(key, run, callback, panic)
            }
            Message::CallBack { key } => {
                if let Some(entry) = self.roster.entry(key) {
                    self.environment.workers.call_back(&entry.worker);
                }
            }
            Message::ThreadGone => {}
            Message::PollNow => {
                self.environment.shared.poll_is_taken_up();
                self.roster.begin_round();
            }
            Message::Add { row, spec } => {
                let key = row.key();
                self.list(row, *spec, now);
                self.roster.order(key, Order::Add, now);
            }
            Message::Order { key } => {
                // A child that is gone has taken its pending orders with it.
                if let Some(order) = self.roster.entry(key).and_then(|entry| entry.row.take_order())
                {
                    self.roster.order(key, order, now);
                }
            }
            Message::StopPostponed => self.stop_the_postponed(),
            Message::Shutdown => {
                let Self { roster, environment, .. } = self;
                let closing = environment.shared.notice_shutdown();
                roster.close(now, closing.limit);
                for entry in roster.postponed() {
                    environment.workers.postpone(&entry.worker);
                }
                // Last: from now on whoever looks sees whether all others are about to be asked.
                environment.workers.close(closing.since);
                // A later request only shortens the limit.
                if self.closing.replace(closing).is_none() {
                    self.pulse.iter_mut().for_each(|pulse| pulse.make_due(now));
                }
            }
        }
    }

    /// Notes that this thread was stuck in a shutdown, if it was: another one has asked all
    /// children to stop meanwhile.
    fn accept_take_over(&mut self) {
        if self.roster.has_postponed() && self.environment.shared.shows_no_more() {
            self.stop_the_postponed();
        }
    }

    /// Asks the children to stop that a shutdown has wait for others.
    fn stop_the_postponed(&mut self) {
        let now = self.now();
        self.roster.stop_the_postponed(now);
    }

    /// Reports the panic of a callback on another thread. The sinks get no events of a child that
    /// has left the list; then the panic is logged, so that none is lost.
    fn handle_panic(&mut self, key: Key, run: u64, callback: Callback, panic: Panic) {
        if self.roster.entry(key).is_some() {
            let now = self.now();
            self.roster.note_call_of(key, run, callback, Some(panic), now);
        } else {
            let whose = format!("the `{callback}` callback for a child that is gone");
            let log = || log::error!(target: TARGET, "{whose} panicked: {panic}");
            let _ =
                self.environment.shared.user_call.make(Callback::Sink, key, || unwind::catch(log));
        }
    }

    fn handle_run_end(&mut self, end: RunEnd) {
        let RunEnd { key, run, exit, at, display_panic, drops, callbacks_succeeded } = end;
        let failed = matches!(exit, Exit::Failed(_));
        if let Some(entry) = self.roster.entry(key) {
            self.environment.workers.note_run_end(&entry.worker);
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
        let rules = spec.rules(self.environment.shared.defaults);
        let key_of = |id: &ChildId| self.environment.shared.listed(id).map(|row| row.key());
        let dependency = |id: &ChildId| Dependency { key: key_of(id), id: id.clone() };
        let after = row.after().iter().map(dependency).collect();
        let ChildSpec { body, backoff, stack_size, fresh_thread, .. } = spec;
        let (key, id) = (row.key(), row.id().clone());
        let handle = Handle::new(self.environment.shared.clone());
        let sinks = Arc::downgrade(&self.environment.sinks.all);
        let link = Link {
            key,
            id: id.clone(),
            activity: row.activity().cloned(),
            handle,
            stop_timeout: rules.stop_timeout,
            sinks,
        };
        let job = Job { body, stack_size, fresh_thread };
        let worker = self.environment.workers.engage(link, job);
        let entry = ChildEntry { row, worker, backoff: backoff.map(Box::new) };
        self.roster.insert(key, id, entry, rules, after, now);
    }

    /// Receives the messages that are in the inbox now, but none that arrive meanwhile. Returns
    /// whether the end of a run was among them.
    fn clear_inbox(&mut self) -> bool {
        let mut has_run_ended = false;
        for _ in 0..self.inbox.len() {
            let Ok(message) = self.inbox.try_recv() else { break };
            match message {
                Message::RunEnded(end) => {
                    has_run_ended = true;
                    self.handle_run_end(end);
                }
                Message::CallbackPanicked { key, run, callback, panic } => {
                    self.handle_panic(key, run, callback, panic)
                }
                Message::Add { row, spec } => drop(self.environment.discard(row.key(), spec)),
                Message::MarkedHealthy { .. }
                | Message::Trip { .. }
                | Message::FirstHeartbeat { .. }
                | Message::CallBack { .. }
                | Message::ThreadGone
                | Message::PollNow
                | Message::Order { .. }
                | Message::StopPostponed
                | Message::Shutdown => {}
            }
            self.settle();
        }
        has_run_ended
    }

    /// Ends the supervisor, and reports the children that did not stop.
    pub(crate) fn finish(mut self) -> ShutdownReport {
        self.environment.shared.refuse_starts();
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
        let Self { roster, mut environment, pulse, inbox, closing: _ } = self;
        let mut entries: Vec<_> = roster.into_entries().collect();
        entries.iter_mut().for_each(|entry| environment.entrust_backoff(entry));
        let EngineEnvironment { shared, mut workers, flag, backoff, sinks, .. } = environment;
        workers.dismiss();
        // The user's closures are dropped here at the latest. The rows stay in the directory, for
        // handles that ask for the last state.
        shared.user_call.make(Callback::Drop, None, || {
            entries.into_iter().for_each(|entry| drop(unwind::discard(entry)));
            let _ = unwind::discard(workers);
            let _ = unwind::discard(inbox);
            let _ = unwind::discard(flag);
            let _ = unwind::discard(pulse);
            let _ = unwind::discard(backoff);
            sinks.discard();
        });
        ShutdownReport { cause: shared.cause(), unstopped, stuck_in: None, has_ended: true }
    }
}
