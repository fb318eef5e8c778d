//! Turns of children and orders beside children that crash in a loop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{ChildContext, ChildSpec, Supervisor, SupervisorBuilder};
use crossbeam_channel::{Receiver, unbounded};

use crate::support::*;

/// The child that shares its supervisor with the crashing ones.
const SIBLING: &str = "sibling";

/// What there is beside the crashing children.
struct Beside {
    /// What is reported of the sibling.
    reports: Receiver<String>,
    /// How many runs the crashing children have had.
    runs: Arc<AtomicU64>,
}

/// A supervisor of so many children that fail as soon as they run and are restarted at once.
/// Nothing here waits by the handle: news of the crashing children would come all the time.
fn beside(crashing: usize) -> (SupervisorBuilder, Beside) {
    let (sender, reports) = unbounded();
    let runs = Arc::new(AtomicU64::new(0));
    let its = runs.clone();
    let children = (0..crashing).map(move |number| {
        let runs = its.clone();
        let body = move |_: &ChildContext| {
            runs.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        ChildSpec::new(format!("crashing-{number}"), body).backoff(constant(Duration::ZERO))
    });
    let builder = Supervisor::builder().children(children).on_event(move |event| {
        if event.id == SIBLING {
            let _ = sender.send(word(event));
        }
    });
    (builder, Beside { reports, runs })
}

impl Beside {
    /// Waits for a report of the sibling.
    #[track_caller]
    fn wait_for_report(&self, expected: &str) {
        while take(&self.reports) != expected {}
    }
}

fn flags_are_polled(crashing: usize) {
    const POLLS: u32 = 100;
    // In a poll's time there are some hundred restarts, on a busy machine fewer: they take time of
    // the supervisor thread, too.
    const RUNS_BETWEEN_POLLS: u64 = 5000;
    let (builder, beside) = beside(crashing);
    let (sender, asked) = unbounded();
    let enabled = Arc::new(AtomicBool::new(true));
    let (is_enabled, runs) = (enabled.clone(), beside.runs.clone());
    let supervisor = builder
        .poll_interval(MS)
        .enabled(move |id| {
            if id != SIBLING {
                return true;
            }
            let _ = sender.send(runs.load(Ordering::Relaxed));
            is_enabled.load(Ordering::SeqCst)
        })
        .child(idler(SIBLING))
        .start()
        .unwrap();
    let (mut polls, mut runs_at_last, since) = (0, take(&asked), Instant::now());
    while polls < POLLS {
        // Before the look for a poll: those runs are at most as many as there have been since the
        // last poll.
        let runs = beside.runs.load(Ordering::Relaxed);
        let poll = asked.recv_timeout(10 * MS).ok();
        let between = poll.unwrap_or(runs) - runs_at_last;
        assert!(between < RUNS_BETWEEN_POLLS, "{between} runs of others since poll {polls}");
        assert!(since.elapsed() < DEADLINE, "{polls} polls within the deadline");
        if poll.is_some() {
            polls += 1;
            runs_at_last += between;
        }
    }
    enabled.store(false, Ordering::SeqCst);
    beside.wait_for_report("stop disabled 0");
    assert!(supervisor.shutdown().is_clean());
}

fn backoff_ends(crashing: usize) {
    let (builder, _) = beside(crashing);
    let (sender, runs) = unbounded();
    let sibling = ChildSpec::new(SIBLING, move |ctx| {
        let _ = sender.send(ctx.failures());
        Err("no".into())
    });
    let supervisor = builder.child(sibling.backoff(constant(5 * MS))).start().unwrap();
    for expected in 0..=50 {
        assert_eq!(take(&runs), expected);
    }
    assert!(supervisor.shutdown().is_clean());
}

fn silence_is_noticed(crashing: usize) {
    let (builder, beside) = beside(crashing);
    let sibling = ChildSpec::new(SIBLING, |ctx| {
        ctx.heartbeat("waiting");
        silent(ctx)
    });
    let supervisor = builder.child(sibling.watchdog(20 * MS)).start().unwrap();
    beside.wait_for_report("hung waiting");
    beside.wait_for_report("stop hung 0");
    assert!(supervisor.shutdown().is_clean());
}

fn stop_timeout_is_noticed(crashing: usize) {
    let (builder, beside) = beside(crashing);
    let (sibling, mut gate, started) = stubborn(SIBLING);
    let supervisor = builder.child(sibling.stop_timeout(20 * MS)).start().unwrap();
    take(&started);
    supervisor.handle().hold(SIBLING).unwrap();
    beside.wait_for_report("overdue");
    gate.open();
    beside.wait_for_report("stop held 0");
    assert!(supervisor.shutdown().is_clean());
}

fn orders_are_carried_out(crashing: usize) {
    let (builder, beside) = beside(crashing);
    let supervisor = builder.child(idler(SIBLING)).start().unwrap();
    for _ in 0..50 {
        beside.wait_for_report("start 0");
        supervisor.handle().hold(SIBLING).unwrap();
        beside.wait_for_report("stop held 0");
        supervisor.handle().release(SIBLING).unwrap();
    }
    assert!(supervisor.shutdown().is_clean());
}

/// The same tests beside one crashing child, which leaves the supervisor thread pauses, and beside
/// three, which leave none.
macro_rules! tests {
    ($($name:ident),*) => {
        mod beside_one_crashing_child {
            $(#[test] fn $name() { super::$name(1); })*
        }
        mod beside_three_crashing_children {
            $(#[test] fn $name() { super::$name(3); })*
        }
    };
}

tests!(
    flags_are_polled,
    backoff_ends,
    silence_is_noticed,
    stop_timeout_is_noticed,
    orders_are_carried_out
);
