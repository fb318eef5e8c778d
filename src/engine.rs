//! The supervisor thread: waits for what happens, asks the core what follows, and does that.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, never, select, tick};

use crate::{
    backoff::Backoff,
    child::ChildSpec,
    circuit::View,
    context::Link,
    crew::Crew,
    deadline,
    event::{Callback, Event, LastStop},
    exit::{Exit, Failure},
    handle::Handle,
    id::ChildId,
    inbox::{Message, Order, RunEnd, ThreadNumber},
    report::{ShutdownCause, ShutdownReport},
    roster::{Action, Answer, Bar, Heartbeats, Key, Outside, Progress, Report, Roster},
    shared::{Row, Shared},
    telemetry::{TARGET, TelemetrySink},
    unwind,
    worker::Post,
};

/// How many messages may follow one another before the ticker is looked at.
const MESSAGES_PER_TICK: u32 = 64;

/// How long what found no thread waits before it is tried again.
const CHORE_DELAY: Duration = Duration::from_millis(100);

#[expect(clippy::disallowed_methods, reason = "the loop reads the clock, and gives it to the core")]
fn now() -> Instant {
    Instant::now()
}

/// Answers whether a child is enabled.
pub(crate) type FlagFn = Box<dyn FnMut(&ChildId) -> Option<bool> + Send>;

/// What a supervisor is made of, before it runs.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) crew: Arc<Crew>,
    pub(crate) inbox: Receiver<Message>,
    pub(crate) poll_interval: Duration,
    pub(crate) flag: Option<FlagFn>,
    pub(crate) backoff: Backoff,
    pub(crate) sinks: Vec<Arc<dyn TelemetrySink>>,
    pub(crate) children: Vec<(Arc<Row>, ChildSpec)>,
    /// Told when every enabled child has had its first start.
    pub(crate) started: Option<Sender<()>>,
    /// It runs on a child's thread, and must not end while a thread of its own children lives.
    pub(crate) is_nested: bool,
}

pub(crate) struct Engine {
    inbox: Receiver<Message>,
    ticker: Receiver<Instant>,
    roster: Roster,
    desk: Desk,
    started: Option<Sender<()>>,
    is_nested: bool,
    closing: Option<Closing>,
    chores: Vec<Chore>,
    chores_at: Option<Instant>,
    messages_since_tick: u32,
}

/// A shutdown under way.
struct Closing {
    since: Instant,
    /// No thread is waited for longer than until then.
    cap: Option<Instant>,
    /// The thread that is waited for the longest; looked for anew when it is gone.
    last: Option<ThreadNumber>,
    until: Option<Instant>,
}

/// What found no thread to be done on.
enum Chore {
    CallBack(Arc<Post>),
    Retire(Arc<Post>),
}

enum Wake {
    Message(Message),
    Tick,
    Timer,
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { shared, crew, inbox, poll_interval, flag, backoff, sinks, children, started, is_nested } = parts;
        // Without flags there is nothing to poll; and a tick beyond the end of time would panic as it is set again.
        let ticker = if flag.is_none() || deadline::is_never(poll_interval) { never() } else { tick(poll_interval) };
        let mut engine = Self {
            inbox,
            ticker,
            roster: Roster::new(),
            desk: Desk {
                shared,
                crew,
                stations: HashMap::new(),
                flag,
                backoff,
                fallback: Backoff::default(),
                faults: sinks.iter().map(|_| BTreeSet::new()).collect(),
                sinks: sinks.into(),
                events: 0,
            },
            started,
            is_nested,
            closing: None,
            chores: Vec::new(),
            chores_at: None,
            messages_since_tick: 0,
        };
        let now = now();
        for (row, spec) in children {
            engine.list(row, spec, now);
        }
        engine
    }

    /// Supervises until something ends it.
    pub(crate) fn run(mut self) -> ShutdownReport {
        self.roster.begin_round();
        loop {
            self.settle();
            if self.roster.is_in_round() {
                self.roster.continue_round(now(), &mut self.desk);
                self.settle();
            }
            if self.roster.has_had_round() {
                if let Some(started) = self.started.take() {
                    let _ = started.send(());
                }
            }
            if self.is_over() {
                return self.finish();
            }
            match self.next() {
                Wake::Message(message) => self.handle(message),
                Wake::Tick => self.roster.begin_round(),
                Wake::Timer => {}
            }
        }
    }

    /// Does all that is to be done now.
    fn settle(&mut self) {
        self.roster.expire(now());
        loop {
            match self.roster.settle(now(), &mut self.desk) {
                Progress::Perform(action) => self.perform(action),
                Progress::Again => {}
                Progress::Settled => break,
            }
        }
        if deadline::is_reached(self.chores_at, now()) {
            self.chores_at = None;
            for chore in std::mem::take(&mut self.chores) {
                self.attempt(chore);
            }
        }
    }

    /// Waits for the next thing to happen. In a round it does not wait: there is more to do.
    fn next(&mut self) -> Wake {
        self.messages_since_tick += 1;
        if self.messages_since_tick >= MESSAGES_PER_TICK {
            self.messages_since_tick = 0;
            if self.ticker.try_recv().is_ok() {
                return Wake::Tick;
            }
        }
        if let Ok(message) = self.inbox.try_recv() {
            return Wake::Message(message);
        }
        if self.roster.is_in_round() {
            return Wake::Timer;
        }
        self.messages_since_tick = 0;
        if let Some(message) = self.try_patiently() {
            return Wake::Message(message);
        }
        let until = self.closing.as_ref().filter(|_| !self.is_nested).and_then(|closing| closing.until);
        let deadline = [self.roster.next_deadline(), self.chores_at, until].into_iter().fold(None, deadline::sooner);
        match deadline {
            None => select! {
                recv(self.inbox) -> message => Self::received(message),
                recv(self.ticker) -> _ => Wake::Tick,
            },
            Some(deadline) => select! {
                recv(self.inbox) -> message => Self::received(message),
                recv(self.ticker) -> _ => Wake::Tick,
                default(deadline.saturating_duration_since(now())) => Wake::Timer,
            },
        }
    }

    fn received(message: Result<Message, crossbeam_channel::RecvError>) -> Wake {
        Wake::Message(message.expect("the shared state, which the loop holds, has a sender"))
    }

    /// Tries the inbox for about as long as a thread that has just crashed takes to say so. `select!` parks at once, and being
    /// woken costs several times what a restart does; `recv` tries in this way too.
    fn try_patiently(&self) -> Option<Message> {
        for step in 0..10u32 {
            if step < 7 {
                for _ in 0..1u32 << step {
                    std::hint::spin_loop();
                }
            } else {
                std::thread::yield_now();
            }
            if let Ok(message) = self.inbox.try_recv() {
                return Some(message);
            }
        }
        None
    }

    fn handle(&mut self, message: Message) {
        let now = now();
        match message {
            Message::Exit(end) => self.run_ended(*end),
            Message::MarkedHealthy { key, run } => self.roster.marked_healthy(key, run, now),
            Message::Trip { key, run, failures, last } => self.roster.tripped(key, run, failures, last, now),
            Message::FirstHeartbeat { key, run } => self.roster.gave_heartbeat(key, run, now, &mut self.desk),
            Message::Called { key, run, callback, panic } => self.roster.note_call_of(key, run, callback, panic, now),
            Message::ThreadGone(number) => {
                self.desk.crew.reap(number);
                if let Some(closing) = &mut self.closing {
                    if closing.last == Some(number) {
                        closing.look_for_last(&self.desk.crew);
                    }
                }
            }
            Message::CheckNow => self.roster.begin_round(),
            Message::Add { key, spec } => {
                match self.desk.shared.row_of(key) {
                    Some(row) => self.list(row, *spec, now),
                    None => debug_assert!(false, "a listed child keeps its row until the loop forgets it"),
                }
                self.roster.unsettle(key);
            }
            Message::Order { key, order } => match order {
                Order::Hold => self.roster.hold(key),
                Order::Release => self.roster.release(key),
                Order::Remove => self.roster.remove(key),
                Order::Restart => self.roster.restart(key, now),
                Order::Reset => self.roster.reset(key, now),
            },
            Message::Shutdown { limit } => self.close(limit),
        }
    }

    fn run_ended(&mut self, end: RunEnd) {
        let RunEnd { key, run, exit, at, display_panic, drop_panic } = end;
        let (failed, panicked) = (matches!(exit, Exit::Failed(_)), exit.is_panicked());
        if let Some(station) = self.desk.stations.get(&key) {
            station.post.run_is_over();
        }
        match self.roster.run_ended(key, run, exit, at, &mut self.desk) {
            Ok(()) => {
                let now = now();
                if failed {
                    self.roster.note_call(key, Callback::Display, display_panic, now);
                }
                if panicked || drop_panic.is_some() {
                    self.roster.note_call(key, Callback::Drop, drop_panic, now);
                }
            }
            Err(stale) => {
                let _ = self.desk.discard(key, stale);
            }
        }
    }

    fn list(&mut self, row: Arc<Row>, spec: ChildSpec, now: Instant) {
        let rules = self.desk.shared.defaults.rules(&spec);
        let ChildSpec { body, backoff, stack_size, fresh_thread, .. } = spec;
        let (key, id) = (row.key(), row.id().clone());
        let handle = Handle::new(self.desk.shared.clone());
        let sinks = Arc::downgrade(&self.desk.sinks);
        let link = Arc::new(Link { key, id: id.clone(), is_watched: rules.watchdog.is_some(), handle, sinks });
        let post = Post::new(link, body, rules.stop_timeout, stack_size, fresh_thread);
        self.roster.insert(key, id, rules, now);
        self.desk.stations.insert(key, Station { row, post, backoff });
    }

    fn close(&mut self, limit: Duration) {
        let now = now();
        self.desk.shared.acknowledge();
        self.roster.close(now, limit);
        let closing = self.closing.get_or_insert(Closing { since: now, cap: None, last: None, until: None });
        closing.cap = deadline::sooner(closing.cap, deadline::after(now, limit));
        closing.look_for_last(&self.desk.crew);
    }

    /// Whether a shutdown has come to its end: all children are down and their threads gone, or have had their time.
    fn is_over(&mut self) -> bool {
        let Some(closing) = &mut self.closing else { return false };
        if !self.roster.is_over() {
            return false;
        }
        if closing.last.is_none_or(|last| !self.desk.crew.is_alive(last)) {
            closing.look_for_last(&self.desk.crew);
        }
        closing.last.is_none() || (!self.is_nested && deadline::is_reached(closing.until, now()))
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Publish { key, view, stopped } => self.publish(key, view, stopped),
            Action::Report { key, report } => self.desk.record(key, report),
            Action::Go { key, run, attempt_count } => self.go(key, run, attempt_count),
            Action::Stop { key } => {
                if let Some(station) = self.desk.stations.get(&key) {
                    if self.desk.crew.stop(&station.post, now()).is_err() {
                        self.put_off(Chore::CallBack(station.post.clone()));
                    }
                }
            }
            Action::LastRun { key } => {
                if let Some(station) = self.desk.stations.get(&key) {
                    station.post.make_last_run();
                }
            }
            Action::Retire { key, keep_body } => self.retire(key, keep_body),
            Action::Forget { key } => {
                self.retire(key, false);
                if let Some(station) = self.desk.stations.remove(&key) {
                    let row = self.desk.shared.forget(&station.row);
                    let _ = self.desk.discard(key, (station.row, station.backoff, row));
                }
                for faults in &mut self.desk.faults {
                    faults.remove(&key);
                }
            }
            Action::GiveUp { id, cause, exit } => {
                if !self.roster.is_closing() && self.desk.shared.give_up(ShutdownCause::GaveUp { id, cause, exit }) {
                    self.desk.shared.request_shutdown(Duration::MAX);
                }
            }
        }
    }

    fn publish(&mut self, key: Key, view: View, stopped: Option<LastStop>) {
        let Some(station) = self.desk.stations.get(&key) else { return };
        if let Some(before) = self.desk.shared.publish(&station.row, view, stopped) {
            let holds_error = matches!(before.exit, Exit::Failed(_));
            let panic = self.desk.discard(key, before).err();
            if holds_error {
                self.roster.note_call(key, Callback::Drop, panic, now());
            }
        }
    }

    fn go(&mut self, key: Key, run: u64, attempt_count: u32) {
        let Some(station) = self.desk.stations.get(&key) else { return };
        if !station.post.go(run, attempt_count) {
            // Somebody who found this thread stuck has taken over and ended the threads; the body never ran.
            let end = RunEnd { key, run, exit: Exit::Completed, at: now(), display_panic: None, drop_panic: None };
            let _ = self.desk.shared.tell(Message::Exit(Box::new(end)));
        }
    }

    fn retire(&mut self, key: Key, keep_body: bool) {
        let Some(station) = self.desk.stations.get(&key) else { return };
        if self.desk.crew.retire(&station.post, keep_body).is_err() {
            self.put_off(Chore::Retire(station.post.clone()));
        }
    }

    fn attempt(&mut self, chore: Chore) {
        let done = match &chore {
            Chore::CallBack(post) => self.desk.crew.call_back(post),
            Chore::Retire(post) => self.desk.crew.retire(post, false),
        };
        if done.is_err() {
            self.put_off(chore);
        }
    }

    fn put_off(&mut self, chore: Chore) {
        self.chores.push(chore);
        self.chores_at = self.chores_at.or(deadline::after(now(), CHORE_DELAY));
    }

    /// Takes what is in the inbox by now, though not what is sent meanwhile. Returns whether a run's end was among it.
    fn clear_inbox(&mut self) -> bool {
        let mut has_run_ended = false;
        for _ in 0..self.inbox.len() {
            let Ok(message) = self.inbox.try_recv() else { break };
            match message {
                Message::Exit(end) => {
                    has_run_ended = true;
                    self.run_ended(*end);
                }
                Message::ThreadGone(number) => self.desk.crew.reap(number),
                Message::Add { key, spec } => drop(self.desk.discard(key, spec)),
                _ => {}
            }
            self.settle();
        }
        has_run_ended
    }

    /// Lets go of everything, and says who did not stop.
    fn finish(mut self) -> ShutdownReport {
        self.desk.shared.close_directory();
        // Each run is told of or named: whoever is not named has gone before, and left an exit in the inbox; and after an exit
        // that comes at the last moment it is looked anew who is still there.
        let since = self.closing.as_ref().map_or_else(now, |closing| closing.since);
        let unstopped = loop {
            let unstopped = self.desk.crew.unstopped(now(), since);
            if !self.clear_inbox() {
                break unstopped;
            }
        };
        let Self { desk, chores, inbox, .. } = self;
        let Desk { shared, crew, stations, flag, backoff, sinks, .. } = desk;
        crew.dismiss();
        // User closures end here at the latest. The rows stay in the directory, for those who ask what was known last.
        shared.doing.call(Callback::Drop, None, || {
            for station in stations.into_values() {
                let _ = unwind::discard(station);
            }
            let _ = unwind::discard(chores);
            let _ = unwind::discard(inbox);
            let _ = unwind::discard(flag);
            let _ = unwind::discard(backoff);
            // One by one, if nobody else has them: a panic in the drop of one is not to take the others along.
            match Arc::try_unwrap(sinks) {
                Ok(sinks) => sinks.into_iter().for_each(|sink| drop(unwind::discard(sink))),
                Err(shared) => drop(unwind::discard(shared)),
            }
        });
        ShutdownReport { cause: shared.cause(), unstopped, stuck_in: None }
    }
}

impl Closing {
    fn look_for_last(&mut self, crew: &Crew) {
        let last = crew.most_patient();
        self.last = last.map(|(number, _)| number);
        self.until = last.and_then(|(_, timeout)| deadline::sooner(deadline::after(self.since, timeout), self.cap));
    }
}

/// What the core's questions are answered with, and its words carried out.
struct Desk {
    shared: Arc<Shared>,
    crew: Arc<Crew>,
    stations: HashMap<Key, Station>,
    flag: Option<FlagFn>,
    backoff: Backoff,
    /// For when a backoff closure panics.
    fallback: Backoff,
    /// Nested supervisors that have none of their own borrow these.
    sinks: Arc<Vec<Arc<dyn TelemetrySink>>>,
    /// For each sink, the children for which it panicked the last time: that is logged once.
    faults: Vec<BTreeSet<Key>>,
    events: u64,
}

/// What belongs to one child.
struct Station {
    row: Arc<Row>,
    post: Arc<Post>,
    backoff: Option<Backoff>,
}

impl Desk {
    /// Gives a report its place in the order of events, and tells all sinks.
    fn record(&mut self, key: Key, report: Report) {
        let Report { id, run, attempt_count, kind } = report;
        let event = Event { seq: self.events, id, run, attempt_count, at: now(), kind };
        self.events += 1;
        for (sink, faults) in self.sinks.iter().zip(&mut self.faults) {
            let result = self.shared.doing.call(Callback::Sink, key, || unwind::catch(|| sink.record(&event)));
            match result {
                Ok(()) => {
                    if !faults.is_empty() {
                        faults.remove(&key);
                    }
                }
                Err(panic) => {
                    if faults.insert(key) {
                        // The log may be what panicked.
                        let _ = unwind::catch(|| {
                            log::error!(target: TARGET, "a telemetry sink panicked at `{}` of child `{}`: {panic}", event.name(), event.id);
                        });
                    }
                }
            }
        }
        let _ = self.discard(key, event);
    }

    /// Drops what may hold a user's value.
    fn discard<T>(&self, key: Key, value: T) -> Result<(), crate::exit::Panic> {
        self.shared.doing.call(Callback::Drop, key, || unwind::discard(value))
    }
}

impl Outside for Desk {
    fn is_enabled(&mut self, key: Key, id: &ChildId) -> Answer<Option<bool>> {
        let Some(flag) = &mut self.flag else { return Answer { value: None, panic: None } };
        match self.shared.doing.call(Callback::Enabled, key, || unwind::catch(|| flag(id))) {
            Ok(value) => Answer { value, panic: None },
            Err(panic) => Answer { value: None, panic: Some(panic) },
        }
    }

    fn backoff(&mut self, key: Key, attempt: u32) -> Answer<Duration> {
        let own = self.stations.get_mut(&key).and_then(|station| station.backoff.as_mut());
        let backoff = own.unwrap_or(&mut self.backoff);
        match self.shared.doing.call(Callback::Backoff, key, || unwind::catch(|| backoff.delay(attempt))) {
            Ok(value) => Answer { value, panic: None },
            Err(panic) => Answer { value: self.fallback.delay(attempt), panic: Some(panic) },
        }
    }

    fn heartbeats(&mut self, key: Key) -> Heartbeats {
        let context = self.stations.get(&key).and_then(|station| station.post.context());
        context.map_or(Heartbeats { count: 0, doing: "" }, |context| context.heartbeats())
    }

    fn begin(&mut self, key: Key, view: View) -> Result<(), Bar> {
        match self.stations.get(&key) {
            Some(station) => self.shared.publish_begin(&station.row, view),
            None => Err(Bar::Removing),
        }
    }

    fn provide_thread(&mut self, key: Key) -> Result<(), Failure> {
        match self.stations.get(&key) {
            Some(station) => self.crew.provide(&station.post),
            None => Err(Failure::new("the child is not listed", Arc::new(io::Error::other("the child is not listed")))),
        }
    }
}
