//! What the tests have in common: a sink that remembers, children on strings, gates.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    Backoff, ChildContext, ChildInfo, ChildResult, ChildSpec, ChildStatus, Event, EventKind,
    Handle, OffBy, ShutdownReport, Simulation, StopCause, Supervisor, SupervisorBuilder,
    TelemetrySink,
};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::{Condvar, Mutex};

pub(crate) use crate::laws::check_trace;

/// How long anything is waited for that is bound to happen. Reaching it fails the test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const MS: Duration = Duration::from_millis(1);

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Longer than any test.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The size of a stack that no system can provide, so that no thread can be spawned.
///
/// It must be more than the address space that a process has, and not only more than the memory: a
/// system may promise what it does not have, and an emulator's host would have to keep that
/// promise. Where pointers are wider than 32 bits, a quarter of what they reach is already so much,
/// and musl takes nothing greater for a size. With 32 bits a process may have all of 4 GiB, but
/// never three quarters of it in one piece.
pub(crate) const IMPOSSIBLE_STACK: usize =
    if usize::BITS > 32 { usize::MAX / 4 } else { usize::MAX / 4 * 3 };

// ── Waiting ──

/// Receives what is bound to come.
#[track_caller]
pub(crate) fn take<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(DEADLINE).expect("what is waited for comes within the deadline")
}

/// Waits for a condition of which nobody tells.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < DEADLINE, "{what}: not within the deadline");
        thread::yield_now();
    }
}

/// Waits until a child is in this status.
#[track_caller]
pub(crate) fn wait_status(handle: &Handle, id: &str, status: ChildStatus) -> ChildInfo {
    handle
        .wait_for(id, DEADLINE, |child| child.status == status)
        .unwrap_or_else(|error| panic!("{status}: {error}"))
}

/// Waits until a child is off, and asserts by whom.
#[track_caller]
pub(crate) fn wait_off(handle: &Handle, id: &str, who: OffBy) -> ChildInfo {
    handle
        .wait_for(
            id,
            DEADLINE,
            |child| matches!(child.status, ChildStatus::Off { by, .. } if by == who),
        )
        .unwrap_or_else(|error| panic!("off by {who:?}: {error}"))
}

/// So many rounds of a race, or as many as there is time for on a busy machine.
pub(crate) fn rounds(count: u64) -> impl Iterator<Item = u64> {
    let since = Instant::now();
    (0..count).take_while(move |_| since.elapsed() < Duration::from_secs(3))
}

/// Returns once the supervisor thread has carried out everything that this thread has asked of it.
#[track_caller]
pub(crate) fn barrier(handle: &Handle) {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    let id = format!("barrier {}", NUMBERS.fetch_add(1, Ordering::Relaxed));
    handle.add(ChildSpec::once(id.as_str(), |_| Ok(()))).unwrap();
    handle.wait_until_gone(&id, DEADLINE).unwrap();
}

/// Shuts down, and returns once the supervisor thread has ended too: a caller who loses patience
/// with a late one is let go sooner.
#[track_caller]
pub(crate) fn shut_down(supervisor: Supervisor, limit: Duration) -> ShutdownReport {
    let handle = supervisor.handle().clone();
    let report = supervisor.shutdown_within(limit);
    let _ = handle.wait_until_stopped(DEADLINE).unwrap();
    report
}

/// Whether an event tells of an order, which the test itself has given.
pub(crate) fn is_order(event: &Event) -> bool {
    matches!(event.kind, EventKind::Ordered { .. })
}

/// Whether an event is of a child that only [`barrier`] made.
fn is_of_barrier(event: &Event) -> bool {
    event.id.starts_with("barrier ")
}

// ── Chance ──

/// A small generator, so that a schedule can be had again by its seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// Gives others a little time, a different one each time.
    pub(crate) fn dawdle(&mut self) {
        for _ in 0..self.roll(400) {
            std::hint::spin_loop();
        }
        if self.roll(4) == 0 {
            thread::yield_now();
        }
    }
}

// ── Gates ──

/// Holds up whoever waits at it, until it is opened or dropped.
pub(crate) struct Gate(Option<Sender<()>>);

/// The side of a [`Gate`] that is held up.
#[derive(Clone)]
pub(crate) struct Bar(Receiver<()>);

pub(crate) fn gate() -> (Gate, Bar) {
    let (sender, receiver) = bounded(0);
    (Gate(Some(sender)), Bar(receiver))
}

impl Gate {
    pub(crate) fn open(&mut self) {
        self.0 = None;
    }
}

impl Bar {
    /// Blocks until the gate is open, deaf to everything else.
    pub(crate) fn wait(&self) {
        let _ = self.0.recv();
    }
}

// ── Virtual time ──

/// Simulates it, from right after the first starts.
pub(crate) fn simulate(builder: SupervisorBuilder) -> Simulation {
    let mut simulation = Simulation::new(builder, 7).unwrap();
    simulation.advance(Duration::ZERO);
    simulation
}

pub(crate) fn seen(simulation: &Simulation, id: &str) -> ChildInfo {
    simulation.handle().child(id).unwrap()
}

pub(crate) fn status(simulation: &Simulation, id: &str) -> ChildStatus {
    seen(simulation, id).status
}

/// What was told of a child, without the instants.
pub(crate) fn words(simulation: &Simulation, id: &str) -> Vec<String> {
    simulation
        .events()
        .iter()
        .filter(|event| event.id == *id && !is_order(event))
        .map(word)
        .collect()
}

/// A child whose body is never to be called.
pub(crate) fn unused(id: &str) -> ChildSpec {
    ChildSpec::new(id, |_| unreachable!("a simulation calls no body"))
}

// ── Children ──

/// A body that does nothing until it is told to stop.
pub(crate) fn idle(ctx: &ChildContext) -> ChildResult {
    Ok(ctx.sleep(Duration::MAX)?)
}

/// A backoff that is always the same, to the nanosecond.
pub(crate) fn constant(delay: Duration) -> Backoff {
    Backoff::constant(delay).jitter(0.0)
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
    /// The run number and attempt count of each run, said by its body.
    pub(crate) runs: Receiver<(u64, u32)>,
}

impl Puppet {
    pub(crate) fn act(&self, act: Act) {
        self.acts.send(act).unwrap();
    }

    /// Waits for the next run, and returns its number and attempt count.
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

/// Counts how often clones of it were dropped by the code under test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drops(Arc<AtomicU64>);

impl Drops {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn token(&self) -> DropToken {
        DropToken(self.clone())
    }
}

pub(crate) struct DropToken(Drops);

impl Drop for DropToken {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Calls a closure as it is dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The names of this process's threads, as the kernel shows them: cut after 15 bytes.
pub(crate) fn threads_named(name: &str) -> usize {
    let cut = &name.as_bytes()[..name.len().min(15)];
    let names = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read(task.ok()?.path().join("comm")).ok());
    names.filter(|comm| comm.strip_suffix(b"\n").unwrap_or(comm) == cut).count()
}

/// How many threads this process has. One that was joined may still be counted for a moment.
pub(crate) fn thread_count() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Threads:"));
    line.unwrap().trim().parse().unwrap()
}

/// How much memory this process has resident, in KiB.
pub(crate) fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
}

// ── Recording ──

/// A sink that remembers everything.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Record>);

#[derive(Default)]
struct Record {
    events: Mutex<Vec<Event>>,
    grown: Condvar,
}

impl TelemetrySink for Recorder {
    fn record(&self, event: &Event) {
        self.0.events.lock().push(event.clone());
        self.0.grown.notify_all();
    }
}

impl Recorder {
    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.events.lock().clone()
    }

    /// The events of one child.
    pub(crate) fn of(&self, id: &str) -> Vec<Event> {
        self.0.events.lock().iter().filter(|event| event.id == id).cloned().collect()
    }

    /// The events of one child but for the orders, a word or three each: `start 0`,
    /// `stop exited 0`, `healthy`, `overdue`, `gave up`, `panic enabled`. The number is the attempt
    /// count.
    pub(crate) fn story(&self, id: &str) -> Vec<String> {
        self.of(id).iter().filter(|event| !is_order(event)).map(word).collect()
    }

    /// The events of all children but for the orders and those of barriers, each with its id.
    pub(crate) fn whole_story(&self) -> Vec<String> {
        let events = self.0.events.lock();
        events
            .iter()
            .filter(|event| !is_of_barrier(event) && !is_order(event))
            .map(|event| format!("{}: {}", event.id, word(event)))
            .collect()
    }

    /// Waits until the events are as wanted.
    #[track_caller]
    pub(crate) fn wait_until(&self, mut wanted: impl FnMut(&[Event]) -> bool) {
        let until = Instant::now() + DEADLINE;
        let mut events = self.0.events.lock();
        while !wanted(&events) {
            if self.0.grown.wait_until(&mut events, until).timed_out() {
                let story: String = events.iter().fold(String::new(), |mut text, event| {
                    let _ = write!(text, "\n  {}: {}", event.id, word(event));
                    text
                });
                panic!("not within the deadline; the events are:{story}");
            }
        }
    }

    /// Waits for the `count`th event of one child whose word begins like this, and returns it.
    #[track_caller]
    pub(crate) fn wait_for(&self, id: &str, beginning: &str, count: usize) -> Event {
        let is_wanted = |event: &&Event| event.id == id && word(event).starts_with(beginning);
        self.wait_until(|events| events.iter().filter(is_wanted).count() >= count);
        self.events().iter().filter(is_wanted).nth(count - 1).cloned().unwrap()
    }

    pub(crate) fn count(&self, id: &str, beginning: &str) -> usize {
        self.of(id).iter().filter(|event| word(event).starts_with(beginning)).count()
    }
}

pub(crate) fn word(event: &Event) -> String {
    let attempt = event.failures;
    match &event.kind {
        EventKind::Started => format!("start {attempt}"),
        EventKind::Stopped { cause, .. } => format!("stop {cause} {attempt}"),
        EventKind::Healthy => String::from("healthy"),
        EventKind::Overdue { .. } => String::from("overdue"),
        EventKind::Tripped { .. } => String::from("tripped"),
        EventKind::Hung { doing, .. } => format!("hung {doing}"),
        EventKind::GaveUp => String::from("gave up"),
        EventKind::CallbackPanicked { callback, .. } => format!("panic {callback}"),
        EventKind::Ordered { order, .. } => format!("order {order}"),
        _ => String::from("unknown"),
    }
}

/// What a `Stopped` says; anything else fails the test.
pub(crate) struct Stop {
    pub(crate) cause: StopCause,
    pub(crate) exit: circuit_breaker_supervisor::Exit,
    pub(crate) uptime: Duration,
    pub(crate) retry_in: Option<Duration>,
}

#[track_caller]
pub(crate) fn stop_of(event: &Event) -> Stop {
    match &event.kind {
        EventKind::Stopped { cause, exit, uptime, retry_in, .. } => {
            Stop { cause: *cause, exit: exit.clone(), uptime: *uptime, retry_in: *retry_in }
        }
        _ => panic!("not a stop: {event}"),
    }
}
