//! The supervisor thread's select loop.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError, Sender, select, tick};

use crate::{
    context::ChildContext,
    report::{ShutdownCause, ShutdownReport},
    runtime::{
        engine::{Engine, Parts},
        inbox::Message,
        lifecycle::Noticed,
        shared::Shared,
        thread_registry::ThreadRegistry,
        thread_workers::ThreadWorkers,
    },
    sync::{clock::system_now, deadline, unwind},
    telemetry::TARGET,
};

/// How long the supervisor thread polls its inbox, before it parks, after it has started a run.
const AWAKE_AFTER_START: Duration = Duration::from_micros(100);

/// Runs a supervisor's loop. If it ever dies, of a fault in this crate, its children are asked to
/// stop, and every query says that it has ended.
pub(crate) fn supervise(
    shared: &Shared,
    threads: &Arc<ThreadRegistry>,
    inbox: Receiver<Message>,
    run: impl FnOnce() -> ShutdownReport,
) {
    let (report, fault) = match unwind::catch(run) {
        Ok(report) => (report, None),
        Err(panic) => {
            shared.refuse_starts();
            let now = system_now();
            threads.force_stop_all(now);
            let (cause, unstopped) = (ShutdownCause::Died, threads.unstopped(now, now));
            (ShutdownReport { cause, unstopped, stuck_in: None, has_ended: true }, Some(panic))
        }
    };
    shared.ended(report);
    if let Some(panic) = fault {
        // Last, since a logger may block.
        let name = &shared.name;
        let _ = unwind::catch(
            || log::error!(target: TARGET, "the supervisor thread of `{name}` died: {panic}"),
        );
    }
    // Nothing is listed any more, so no thread is between listing a child and sending it: what is
    // dropped here is all there is. The loop ends, since no run starts any more, and each run sends
    // a few messages at most.
    while let Ok(message) = inbox.try_recv() {
        match message {
            Message::RunEnded(end) => shared.publish_missed_end(end.key, end.run, Some(end)),
            message => drop(unwind::discard(message)),
        }
    }
    // A run that outlives its supervisor may report its end at this very moment.
    let _ = unwind::discard(inbox);
}

pub(crate) struct MainLoop {
    engine: Engine<ThreadWorkers>,
    threads: Arc<ThreadRegistry>,
    inbox: Receiver<Message>,
    /// Ticks once per poll interval; `None` without flags, since there is nothing to poll.
    ticker: Option<Receiver<Instant>>,
    host: Host,
    /// Until when a shutdown waits for the threads that are alive; `None` is without end.
    until: Option<Instant>,
    /// The last wake was a tick. No second one is taken while there is a message: otherwise flags
    /// that answer more slowly than they are polled would leave the messages no turn.
    was_tick: bool,
}

/// Whose thread the loop runs on.
pub(crate) enum Host {
    /// Its own.
    Own {
        /// Gets one message when every enabled child has had its first start.
        started: Option<Sender<()>>,
    },
    /// That of a child of an outer supervisor. The loop then ends only after all threads of its own
    /// children have exited, without a timeout.
    Child {
        /// The child's run.
        context: ChildContext,
        /// It was marked as healthy, as all below it were well at work.
        is_marked: bool,
    },
}

enum Wake {
    Message(Message),
    Tick,
    Proceed,
}

impl MainLoop {
    pub(crate) fn new(parts: Parts, threads: Arc<ThreadRegistry>, host: Host) -> Self {
        // The ticker would panic when it sets a tick beyond the end of time.
        let ticker = parts.polls().map(tick);
        let engine = Engine::new(parts, ThreadWorkers::new(threads.clone()));
        let inbox = engine.inbox().clone();
        Self { engine, threads, inbox, ticker, host, until: None, was_tick: false }
    }

    /// Runs the loop until a shutdown is over.
    pub(crate) fn run(mut self) -> ShutdownReport {
        loop {
            self.engine.proceed();
            self.engine.workers().retry_spawns();
            self.tell_host();
            self.engine.beat();
            if let Some(closing) = self.engine.closing() {
                if self.is_over(closing) {
                    return self.engine.finish();
                }
            }
            match self.wait() {
                Wake::Message(message) => self.engine.handle_message(message),
                Wake::Tick => {
                    self.was_tick = true;
                    self.engine.begin_round();
                }
                Wake::Proceed => {}
            }
        }
    }

    /// Tells whoever has started this supervisor how far it is.
    fn tell_host(&mut self) {
        match &mut self.host {
            Host::Own { started } if self.engine.has_had_round() => {
                if let Some(started) = started.take() {
                    let _ = started.send(());
                }
            }
            Host::Child { context, is_marked: is_marked @ false } if self.engine.take_is_well() => {
                *is_marked = true;
                context.mark_healthy();
            }
            Host::Own { .. } | Host::Child { .. } => {}
        }
    }

    /// Waits for a message, a tick or a deadline. In a round it does not wait, since more children
    /// are left to look at.
    ///
    /// However many messages come, at most one of them is received before a tick that is due, and
    /// the deadlines are looked at after each.
    fn wait(&mut self) -> Wake {
        let was_tick = std::mem::take(&mut self.was_tick);
        if !was_tick && self.ticker.as_ref().is_some_and(|ticker| ticker.try_recv().is_ok()) {
            return Wake::Tick;
        }
        if let Ok(message) = self.inbox.try_recv() {
            return Wake::Message(message);
        }
        if self.engine.is_in_round() {
            return Wake::Proceed;
        }
        let (engine, retry_at) = (self.engine.next_deadline(), self.engine.workers().retry_at());
        let deadlines = [engine, retry_at, self.engine.next_pulse(), self.until];
        let deadline = deadlines.into_iter().fold(None, deadline::sooner);
        if deadline::is_reached(deadline, self.engine.now()) {
            // To wait until then, a channel would give the CPU to others first: when a thousand
            // children are due, that is what takes time.
            return Wake::Proceed;
        }
        if self.engine.take_has_started_run() {
            if let Some(message) = self.poll_before_parking(deadline) {
                return Wake::Message(message);
            }
        }
        match (&self.ticker, deadline) {
            // Waiting for one channel wakes faster than a `select!` over one channel does.
            (None, None) => received(self.inbox.recv()),
            (None, Some(deadline)) => match self.inbox.recv_deadline(deadline) {
                Err(RecvTimeoutError::Timeout) => Wake::Proceed,
                message => received(message.map_err(|_| RecvError)),
            },
            (Some(ticker), None) => select! {
                recv(self.inbox) -> message => received(message),
                recv(ticker) -> _ => Wake::Tick,
            },
            (Some(ticker), Some(deadline)) => select! {
                recv(self.inbox) -> message => received(message),
                recv(ticker) -> _ => Wake::Tick,
                default(deadline.saturating_duration_since(self.engine.now())) => Wake::Proceed,
            },
        }
    }

    /// Polls the inbox for a while after a run was started, since the run may fail at once. To park
    /// and wake a thread costs several times what a restart does; and if this thread parked, the
    /// child's thread would wait so long for its next start signal that it would park, too.
    fn poll_before_parking(&self, deadline: Option<Instant>) -> Option<Message> {
        let until = self.engine.now() + AWAKE_AFTER_START;
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        loop {
            if let Ok(message) = self.inbox.try_recv() {
                return Some(message);
            }
            if self.engine.now() >= until {
                return None;
            }
            // The child that is waited for may need this core.
            std::thread::yield_now();
        }
    }

    /// Whether a shutdown is over: all children are down and their threads have exited, or timed
    /// out.
    fn is_over(&mut self, closing: Noticed) -> bool {
        if !self.engine.is_over() {
            return false;
        }
        let Some(timeout) = self.threads.longest_patience() else { return true };
        if let Host::Own { .. } = self.host {
            let cap = self.engine.closing_cap();
            self.until = deadline::sooner(deadline::after(closing.since, timeout), cap);
        }
        deadline::is_reached(self.until, self.engine.now())
    }
}

fn received(message: Result<Message, RecvError>) -> Wake {
    Wake::Message(message.expect("the shared state, which the loop holds, has a sender"))
}
