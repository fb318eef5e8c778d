//! Equipment of the tests: waits, gates, virtual time, and values that count their drops.

mod children;
mod recorder;

use std::{
    cell::RefCell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    ChildInfo, ChildSpec, ChildStatus, Event, EventKind, Handle, OffBy, ShutdownReport, Simulation,
    Supervisor, SupervisorBuilder,
};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

pub(crate) use self::{children::*, recorder::*};
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

/// Asserts that something takes less than so long in one of three tries. A fault makes it too long
/// in each, a machine that is busy for a moment in one.
#[track_caller]
pub(crate) fn takes_less_than<T: fmt::Debug>(limit: Duration, mut what: impl FnMut() -> T) {
    let mut tries = Vec::new();
    for _ in 0..3 {
        let since = Instant::now();
        let outcome = what();
        let took = since.elapsed();
        if took < limit {
            return;
        }
        tries.push((took, outcome));
    }
    panic!("not one took less than {limit:?}: {tries:?}");
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
/// with a late one returns sooner.
#[track_caller]
pub(crate) fn shut_down(supervisor: Supervisor, limit: Duration) -> ShutdownReport {
    let handle = supervisor.handle().clone();
    let report = supervisor.shutdown_within(limit);
    let _ = handle.wait_until_stopped(DEADLINE).unwrap();
    report
}

/// The ids of the children that a report names as unstopped.
pub(crate) fn unstopped(report: &ShutdownReport) -> Vec<&str> {
    report.unstopped.iter().map(|child| child.id.as_str()).collect()
}

/// Whether the kernel tells what threads are doing.
pub(crate) fn can_look_at_threads() -> bool {
    std::path::Path::new("/proc/thread-self/stat").exists()
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

/// A sink that holds the supervisor thread at the start of the child `plug`, until the gate opens.
/// The receiver says that it does.
pub(crate) fn hold_at_plug() -> (impl Fn(&Event) + Send + Sync + 'static, Gate, Receiver<()>) {
    let (gate, bar) = gate();
    let (sender, held) = unbounded();
    let hold = move |event: &Event| {
        if event.id == "plug" && matches!(event.kind, EventKind::Started) {
            let _ = sender.send(());
            bar.wait();
        }
    };
    (hold, gate, held)
}

/// Keeps the thread that calls this from ending until the gate is open.
pub(crate) fn linger(bar: &Bar) {
    struct Linger(Bar);
    impl Drop for Linger {
        fn drop(&mut self) {
            self.0.wait();
        }
    }
    thread_local! {
        static LINGER: RefCell<Option<Linger>> = const { RefCell::new(None) };
    }
    LINGER.with_borrow_mut(|linger| {
        linger.get_or_insert_with(|| Linger(bar.clone()));
    });
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

// ── Drops ──

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

// ── The process ──

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

/// How much memory this process holds, in KiB. The pages of its program file are not counted: the
/// kernel drops them and reads them again as it likes.
pub(crate) fn held_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let size_of = |line: &str| -> Option<u64> {
        let size = line.strip_prefix("Anonymous:").or(line.strip_prefix("Swap:"))?;
        size.trim().strip_suffix(" kB")?.parse().ok()
    };
    text.lines().filter_map(size_of).sum()
}
