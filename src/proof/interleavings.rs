//! Loom models of the small parts in which threads share locks and atomics.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --lib interleavings` explores them. The code is the crate's
//! own, over the locks and atomics of `sync/primitives.rs`: the stop signal with its callbacks and
//! guards, the breaker state with the callers that report to it, the wait for news, the heartbeats,
//! and what a child's thread shares with its supervisor. Loom follows every order in which two or
//! three threads can take their steps. For loads and stores without a lock, it also follows what
//! weak memory allows beyond that. It reports a thread that waits for ever.
//!
//! Loom does not show the following, which other checks cover:
//!
//! - The memory order of crossbeam's channels. A message is one step here, and loom does not follow
//!   what it publishes; the channel of the start signal is a stand-in made of a lock and a
//!   condition variable. Covered by the stress test and ThreadSanitizer.
//! - Waits that time out. Loom does not model time: a wait with a deadline is one without. Covered
//!   by tests on real threads.
//! - The last drop of an `Arc`. The models use the standard library's. Covered by AddressSanitizer.
//! - Spawning, and the registry of threads. Threads are loom's, and the tests spawn them. Covered
//!   by tests on real threads.
//! - Panics, by which loom reports its findings. Covered by tests on real threads.
//!
//! A test whose name ends with `bounded` explores only schedules of at most `PREEMPTIONS` switches
//! away from a thread that could continue. The others explore all schedules.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering as Seen},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, TryRecvError, unbounded};
use loom::thread::{self, JoinHandle};

use crate::{
    breaker::Breaker,
    child::{ChildSpec, Job},
    context::{ChildContext, Link},
    core::{circuit::View, key::Key, rules::Defaults},
    error::WaitError,
    event::Order,
    exit::Exit,
    handle::Handle,
    id::ChildId,
    report::{ShutdownCause, ShutdownReport},
    runtime::{
        inbox::{Message, ThreadNumber},
        row::Row,
        shared::Shared,
        worker::{Thread, WorkerShared, drop_all, work},
    },
    status::CircuitState,
    sync::{
        clock::{Clock, system_now},
        primitives::{
            atomic::{AtomicBool, AtomicU64, Ordering},
            channel::bounded,
        },
        stop::{StopCallback, StopSignal},
        watch::Watch,
    },
};

/// The bound of preemptions, that is of switches away from a thread that could continue, in the
/// tests that do not explore all schedules.
const PREEMPTIONS: usize = 3;

/// A counter of the test itself. It is a real atomic, so that loom does not explore its accesses.
type Count = Arc<AtomicU32>;

fn explore(name: &str, bound: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let schedules = Count::default();
    let counted = schedules.clone();
    let mut builder = loom::model::Builder::new();
    // `LOOM_MAX_PREEMPTIONS` has precedence: `Builder::new` has read it.
    builder.preemption_bound = builder.preemption_bound.or(bound);
    builder.max_branches = 20_000;
    builder.check(move || {
        counted.fetch_add(1, Seen::Relaxed);
        model();
    });
    println!("{name}: {} schedules", schedules.load(Seen::Relaxed));
}

fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    thread::spawn(f)
}

// ── The stop signal ──

fn counting(count: &Count) -> StopCallback {
    let count = count.clone();
    Box::new(move || {
        count.fetch_add(1, Seen::Relaxed);
    })
}

/// Stops a run, as the supervisor does, and calls the callbacks, as the thread spawned for them
/// does.
fn stop(signal: &StopSignal) {
    signal.request();
    let panic = if signal.needs_caller() { signal.call_all().ok().flatten() } else { None };
    assert_eq!(panic, None, "a callback has found a fault");
}

#[test]
fn callback_is_not_called_once_its_guard_is_gone() {
    explore("guard", None, || {
        let signal = Arc::new(StopSignal::new());
        let (calls, gone) = (Count::default(), Arc::new(AtomicBool::new(false)));
        let written = Arc::new(AtomicU64::new(0));
        let callback = {
            let (calls, gone, written) = (calls.clone(), gone.clone(), written.clone());
            Box::new(move || {
                assert!(!gone.load(Ordering::Relaxed), "called after its guard is gone");
                written.store(1, Ordering::Relaxed);
                thread::yield_now();
                written.store(2, Ordering::Relaxed);
                calls.fetch_add(1, Seen::Relaxed);
            })
        };
        let number = signal.set(callback).ok().flatten().expect("nobody was told");
        let teller = spawn({
            let signal = signal.clone();
            move || stop(&signal)
        });
        signal.take_back(number);
        gone.store(true, Ordering::Relaxed);
        assert_ne!(
            written.load(Ordering::Relaxed),
            1,
            "the guard has waited for it, and sees what it did"
        );
        teller.join().unwrap();
        assert!(calls.load(Seen::Relaxed) <= 1);
        assert_eq!(written.load(Ordering::Relaxed), 2 * u64::from(calls.load(Seen::Relaxed)));
    });
}

#[test]
fn callbacks_are_called_once_and_one_after_the_other() {
    explore("callers", None, || {
        let signal = Arc::new(StopSignal::new());
        let calls = Count::default();
        for number in [0, 2] {
            let calls = calls.clone();
            let set = signal.set(Box::new(move || {
                assert_eq!(calls.fetch_add(1, Seen::Relaxed), number, "in their order");
                thread::yield_now();
                assert_eq!(calls.fetch_add(1, Seen::Relaxed), number + 1, "one at a time");
            }));
            assert!(set.is_ok());
        }
        // The supervisor thread, and the thread that has found it stuck.
        let other = spawn({
            let signal = signal.clone();
            move || stop(&signal)
        });
        stop(&signal);
        other.join().unwrap();
        assert_eq!(calls.load(Seen::Relaxed), 4);
        assert!(!signal.needs_caller());
    });
}

#[test]
fn callback_that_is_set_as_the_stop_comes_is_called_once() {
    explore("late callback", None, || {
        let signal = Arc::new(StopSignal::new());
        let calls = Count::default();
        let tellers = [(); 2].map(|()| {
            let signal = signal.clone();
            spawn(move || stop(&signal))
        });
        if let Err(now) = signal.set(counting(&calls)) {
            assert!(signal.is_stopping());
            now();
        }
        for teller in tellers {
            teller.join().unwrap();
        }
        assert_eq!(calls.load(Seen::Relaxed), 1);
    });
}

#[test]
fn end_of_a_run_leaves_no_callback_that_is_called_or_kept() {
    explore("end", None, || {
        let signal = Arc::new(StopSignal::new());
        let (calls, ended) = (Count::default(), Arc::new(AtomicBool::new(false)));
        for _ in 0..2 {
            let (calls, ended) = (calls.clone(), ended.clone());
            let set = signal.set(Box::new(move || {
                thread::yield_now();
                assert!(!ended.load(Ordering::Relaxed), "called after the end");
                calls.fetch_add(1, Seen::Relaxed);
            }));
            assert!(set.is_ok());
        }
        let teller = spawn({
            let signal = signal.clone();
            move || stop(&signal)
        });
        assert_eq!(signal.end(), None);
        ended.store(true, Ordering::Relaxed);
        assert!(signal.is_stopping());
        assert!(
            matches!(signal.set(counting(&calls)), Ok(None)),
            "what is set after the end is dropped"
        );
        teller.join().unwrap();
        assert!(calls.load(Seen::Relaxed) <= 2);
        assert_eq!(Arc::strong_count(&ended), 1, "each is dropped");
        assert!(!signal.needs_caller());
    });
}

// A helper of the body sets a callback and takes it back, while the body ends and the run is
// requested to stop.
#[test]
fn helpers_guard_the_end_and_the_stop_agree() {
    explore("helper", None, || {
        let signal = Arc::new(StopSignal::new());
        let (calls, token) = (Count::default(), Arc::new(()));
        let teller = spawn({
            let signal = signal.clone();
            move || stop(&signal)
        });
        let helper = spawn({
            let (signal, calls, token) = (signal.clone(), calls.clone(), token.clone());
            move || match signal
                .set(Box::new(move || drop((calls.fetch_add(1, Seen::Relaxed), token))))
            {
                Ok(Some(number)) => signal.take_back(number),
                Ok(None) => assert!(signal.is_stopping()),
                Err(callback) => callback(),
            }
        });
        signal.end();
        teller.join().unwrap();
        helper.join().unwrap();
        assert!(calls.load(Seen::Relaxed) <= 1);
        assert_eq!(Arc::strong_count(&token), 1);
    });
}

#[test]
fn channel_is_disconnected_whenever_it_is_asked_for() {
    explore("channel", None, || {
        let signal = Arc::new(StopSignal::new());
        let askers = [(); 2].map(|()| {
            let signal = signal.clone();
            spawn(move || signal.stopped().clone())
        });
        stop(&signal);
        assert_eq!(signal.stopped().try_recv(), Err(TryRecvError::Disconnected));
        for asker in askers {
            assert_eq!(asker.join().unwrap().try_recv(), Err(TryRecvError::Disconnected));
        }
    });
}

#[test]
fn whoever_sees_the_stop_sees_what_was_done_before() {
    explore("order", None, || {
        let signal = Arc::new(StopSignal::new());
        let reason = Arc::new(AtomicU64::new(0));
        let teller = spawn({
            let (signal, reason) = (signal.clone(), reason.clone());
            move || {
                reason.store(1, Ordering::Relaxed);
                signal.request();
                assert!(signal.is_stopping());
            }
        });
        if signal.is_stopping() {
            assert_eq!(reason.load(Ordering::Relaxed), 1);
        }
        teller.join().unwrap();
        assert!(signal.is_stopping());
    });
}

// ── The breaker state ──

/// A child as its callers and the supervisor thread know it. The test acts as the supervisor
/// thread.
struct Listed {
    shared: Arc<Shared>,
    inbox: Receiver<Message>,
    row: Arc<Row>,
    breaker: Breaker,
}

impl Listed {
    fn new(threshold: u32) -> Self {
        let (shared, inbox) = shared();
        let spec = ChildSpec::new("child", |_| Ok(())).failure_threshold(threshold);
        let breaker = spec.breaker();
        let row = shared.list(&spec);
        Self { shared, inbox, row, breaker }
    }

    fn show(&self, run: u64, circuit: CircuitState) {
        assert!(self.shared.publish(&self.row, View::of_run(run, circuit), None).is_none());
    }

    /// The trips that were sent to the supervisor: their runs, and the failures that led to them.
    fn trips(&self) -> Vec<(u64, u32)> {
        let trip = |message| match message {
            Message::Trip { run, failures, .. } => Some((run, failures)),
            _ => None,
        };
        self.inbox.try_iter().filter_map(trip).collect()
    }
}

fn shared() -> (Arc<Shared>, Receiver<Message>) {
    let (sender, inbox) = unbounded();
    let defaults =
        Defaults { healthy_after: Duration::from_secs(60), stop_timeout: Duration::from_secs(5) };
    (Shared::new("test".into(), None, defaults, Clock::System, sender), inbox)
}

// Two callers report failures while the child becomes healthy. On trial, the first failure trips
// it; once it is healthy, it takes both.
#[test]
fn trip_is_told_once_for_each_run() {
    explore("trip", None, || {
        let child = Listed::new(2);
        child.show(1, CircuitState::HalfOpen);
        let callers = [(); 2].map(|()| {
            let permit = child.breaker.permit().unwrap();
            spawn(move || permit.failure("no answer"))
        });
        child.show(1, CircuitState::Closed);
        for caller in callers {
            caller.join().unwrap();
        }
        let trips = child.trips();
        assert!(matches!(trips[..], [(1, 1 | 2)]), "{trips:?}");
        child.show(1, CircuitState::Closed);
        assert!(
            !child.breaker.is_call_permitted(),
            "it stays so until the supervisor has heard of it"
        );
        child.show(1, CircuitState::Open);
        child.breaker.report_failure("again");
        assert!(child.trips().is_empty());
    });
}

#[test]
fn count_outlives_what_the_supervisor_shows_of_the_same_run() {
    explore("count", None, || {
        let child = Listed::new(2);
        child.show(1, CircuitState::Closed);
        let breaker = child.breaker.clone();
        let caller = spawn(move || breaker.report_failure("one"));
        child.show(1, CircuitState::Closed);
        child.breaker.report_failure("another");
        child.show(1, CircuitState::Closed);
        caller.join().unwrap();
        assert_eq!(child.trips(), [(1, 2)]);
    });
}

#[test]
fn reports_of_an_earlier_run_do_not_count() {
    explore("earlier run", None, || {
        let child = Listed::new(2);
        child.show(1, CircuitState::Closed);
        child.breaker.report_failure("once");
        let (bad, good) = (child.breaker.permit().unwrap(), child.breaker.permit().unwrap());
        let caller = spawn(move || {
            bad.failure("twice");
            good.success();
        });
        child.show(1, CircuitState::Open);
        child.show(2, CircuitState::Closed);
        child.breaker.report_failure("once again");
        caller.join().unwrap();
        assert!(child.breaker.is_call_permitted(), "it takes two");
        child.breaker.report_failure("twice again");
        assert!(
            !child.breaker.is_call_permitted(),
            "and they were not forgiven by a success of the run before"
        );
        let trips = child.trips();
        assert!(matches!(trips[..], [(2, 2)] | [(1, 2), (2, 2)]), "{trips:?}");
    });
}

#[test]
fn success_is_counted_before_a_failure_or_after_it_and_none_is_lost() {
    explore("success", None, || {
        let child = Listed::new(3);
        child.show(1, CircuitState::Closed);
        child.breaker.report_failure("one");
        let (good, bad, worse) = (
            child.breaker.permit().unwrap(),
            child.breaker.permit().unwrap(),
            child.breaker.permit().unwrap(),
        );
        let callers = [spawn(move || good.success()), spawn(move || bad.failure("two"))];
        worse.failure("three");
        for caller in callers {
            caller.join().unwrap();
        }
        // Now there are between zero and three failures in a row, and only three trip the child.
        let is_tripped = child.trips() == [(1, 3)];
        assert_eq!(child.breaker.is_call_permitted(), !is_tripped);
        let mut more = 0;
        while child.breaker.is_call_permitted() {
            child.breaker.report_failure("more");
            more += 1;
        }
        assert!(is_tripped && more == 0 || (1..=3).contains(&more), "{more}");
    });
}

#[test]
fn open_for_good_is_final() {
    explore("for good", None, || {
        let child = Listed::new(1);
        let breaker = child.breaker.clone();
        let caller = spawn(move || {
            breaker.report_failure("no answer");
            breaker.report_success();
        });
        let (shared, breaker) = (child.shared.clone(), child.breaker.clone());
        let taking_over = spawn(move || {
            shared.show_take_over();
            assert!(!breaker.is_call_permitted());
        });
        child.show(1, CircuitState::HalfOpen);
        child.show(1, CircuitState::Closed);
        caller.join().unwrap();
        taking_over.join().unwrap();
        assert!(!child.breaker.is_call_permitted());
        child.show(2, CircuitState::Closed);
        assert!(!child.breaker.is_call_permitted());
        assert!(child.trips().len() <= 1);
    });
}

// ── The state that a supervisor shares with its handles ──

#[test]
fn whoever_waits_for_a_permit_hears_that_the_child_runs() {
    explore("permit", None, || {
        let (shared, _inbox) = shared();
        let spec = ChildSpec::new("child", |_| Ok(()));
        let breaker = spec.breaker();
        let row = shared.list(&spec);
        let waiter = spawn(move || breaker.wait_until_permitted(Duration::MAX).is_ok());
        assert!(shared.publish_begin(&row, View::of_run(1, CircuitState::HalfOpen)).is_ok());
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn whoever_waits_for_a_permit_hears_that_the_child_is_gone() {
    explore("gone", None, || {
        let (shared, _inbox) = shared();
        let spec = ChildSpec::new("child", |_| Ok(()));
        let breaker = spec.breaker();
        let row = shared.list(&spec);
        let waiter = spawn(move || match breaker.wait_until_permitted(Duration::MAX) {
            Err(WaitError::Gone(_)) => true,
            other => panic!("{other:?}"),
        });
        drop(shared.forget(&row));
        assert!(waiter.join().unwrap());
    });
}

// By its row, as a thread that waits for it sees it, and by the list.
#[test]
fn who_has_seen_that_the_child_is_gone_is_told_so_by_its_breaker() {
    for by_row in [true, false] {
        explore("seen gone", None, move || {
            let (shared, _inbox) = shared();
            let spec = ChildSpec::new("child", |_| Ok(()));
            let breaker = spec.breaker();
            let row = shared.list(&spec);
            let observer = spawn({
                let (shared, row) = (shared.clone(), row.clone());
                move || {
                    let seen = if by_row { row.is_gone() } else { shared.row("child").is_none() };
                    !seen || breaker.permit().unwrap_err().to_string().contains(" is gone ")
                }
            });
            drop(shared.forget(&row));
            assert!(observer.join().unwrap(), "another answer");
        });
    }
}

#[test]
fn who_has_seen_that_the_supervisor_has_ended_is_told_so_by_the_breakers() {
    explore("seen ended", None, || {
        let (shared, _inbox) = shared();
        let spec = ChildSpec::new("child", |_| Ok(()));
        let breaker = spec.breaker();
        let _row = shared.list(&spec);
        let observer = spawn({
            let shared = shared.clone();
            move || {
                let seen = shared.has_ended();
                !seen || breaker.permit().unwrap_err().to_string().contains(" has ended")
            }
        });
        shared.ended(ShutdownReport {
            cause: ShutdownCause::Requested,
            unstopped: Vec::new(),
            stuck_in: None,
            has_ended: true,
        });
        assert!(observer.join().unwrap(), "another answer");
    });
}

// An order that comes before the start prevents the run. In any case, the supervisor receives the
// order.
#[test]
fn run_that_begins_after_an_order_knows_of_it() {
    for order in [Some(Order::Hold), Some(Order::Remove), None] {
        explore("order before a start", None, move || {
            let (shared, inbox) = shared();
            let spec = ChildSpec::new("child", |_| Ok(()));
            let row = shared.list(&spec);
            let returned = Arc::new(AtomicBool::new(false));
            let operator = spawn({
                let (shared, returned) = (shared.clone(), returned.clone());
                move || {
                    match order {
                        Some(order) => shared.order("child", order).unwrap(),
                        None => shared.request_shutdown(Duration::MAX),
                    }
                    returned.store(true, Ordering::Release);
                }
            });
            let was_ordered = returned.load(Ordering::Acquire);
            let begun = shared.publish_begin(&row, View::of_run(1, CircuitState::HalfOpen)).is_ok();
            assert!(!(was_ordered && begun), "begun after the order");
            operator.join().unwrap();
            assert_eq!(inbox.try_iter().count(), 1);
        });
    }
}

// ── Waiting for news ──

#[test]
fn no_news_are_missed() {
    explore("news", None, || {
        let (watch, news) = (Arc::new(Watch::default()), Arc::new(AtomicU64::new(0)));
        let teller = spawn({
            let (watch, news) = (watch.clone(), news.clone());
            move || {
                for number in 1..=2 {
                    news.store(number, Ordering::Relaxed);
                    watch.notify();
                }
            }
        });
        watch.wait_for(None, || (news.load(Ordering::Relaxed) == 2).then_some(()));
        teller.join().unwrap();
    });
}

#[test]
fn no_news_are_missed_by_two_who_wait_bounded() {
    explore("news for two", Some(PREEMPTIONS), || {
        let (watch, news) = (Arc::new(Watch::default()), Arc::new(AtomicU64::new(0)));
        let waiters = [(); 2].map(|()| {
            let (watch, news) = (watch.clone(), news.clone());
            spawn(move || {
                watch.wait_for(None, || (news.load(Ordering::Relaxed) == 1).then_some(()))
            })
        });
        news.store(1, Ordering::Relaxed);
        watch.notify();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Some(()));
        }
    });
}

// ── What a child's thread shares with its supervisor ──

/// A child as the supervisor thread knows it. The test acts as the supervisor thread.
struct Child {
    worker: Arc<WorkerShared>,
    shared: Arc<Shared>,
    inbox: Receiver<Message>,
    /// The number of times that the body was called.
    begun: Count,
    /// Upgradable as long as the body is not dropped.
    body: Weak<()>,
}

impl Child {
    fn new(fresh_thread: bool, mut body: impl FnMut(&ChildContext) + Send + 'static) -> Self {
        let (shared, inbox) = shared();
        let (begun, held) = (Count::default(), Arc::new(()));
        let weak = Arc::downgrade(&held);
        let link = Link {
            key: Key(0),
            id: ChildId::from("child"),
            handle: Handle::new(shared.clone()),
            activity: Some(Arc::default()),
            sinks: Weak::new(),
        };
        let counted = begun.clone();
        let runs = AtomicU32::new(0);
        let body = Box::new(move |ctx: &ChildContext| {
            let _ = &held;
            assert_eq!(runs.fetch_add(1, Seen::Relaxed), 0, "two at once");
            counted.fetch_add(1, Seen::Relaxed);
            body(ctx);
            runs.fetch_sub(1, Seen::Relaxed);
            Ok(())
        });
        let job = Job { body, stop_timeout: Duration::MAX, stack_size: None, fresh_thread };
        Self { worker: WorkerShared::new(link, job), shared, inbox, begun, body: weak }
    }

    /// What `ThreadRegistry::provide` does if no thread waits for the start signal.
    fn provide(&self, number: u64) -> JoinHandle<()> {
        let (commands, inbox) = bounded(1);
        let worker = self.worker.clone();
        let thread = spawn(move || work(&Thread::new(ThreadNumber(number), None), &worker, inbox));
        self.worker.has_got_thread(commands);
        thread
    }

    /// Waits for the end of this run, and checks that its body has returned.
    fn await_exit(&self, run: u64) {
        loop {
            match self.inbox.try_recv() {
                Ok(Message::Exit(end)) => {
                    assert_eq!(end.run, run);
                    assert!(matches!(end.exit, Exit::Completed), "{:?}", end.exit);
                    return;
                }
                Ok(_) => {}
                Err(_) => thread::yield_now(),
            }
        }
    }
}

/// What `ThreadRegistry::force_stop_all` does for one child when the supervisor thread is stuck.
fn force_stop_all(worker: &Arc<WorkerShared>) {
    worker.seal();
    request_stop(worker);
    retire(worker);
}

fn request_stop(worker: &Arc<WorkerShared>) {
    worker.request_stop(system_now());
    if let Some(context) = worker.context().filter(|context| context.signal().needs_caller()) {
        let _ = context.signal().call_all();
    }
}

fn retire(worker: &Arc<WorkerShared>) {
    if !worker.leave(false) && worker.holds_anything() {
        drop_all(&Thread::new(ThreadNumber(99), None), worker, false);
    }
}

// The supervisor thread was stuck, and starts a run just while another thread force-stops all.
#[test]
fn run_that_is_let_go_is_told_to_stop_by_whoever_takes_over() {
    explore("taking over", None, || {
        // This body returns only after a stop request: one that does not reach it is a deadlock.
        let child = Child::new(false, |ctx| {
            while !ctx.is_stopping() {
                thread::yield_now();
            }
        });
        let worker = child.provide(1);
        let other = spawn({
            let worker = child.worker.clone();
            move || force_stop_all(&worker)
        });
        let went = child.worker.send_start(1, 0);
        other.join().unwrap();
        worker.join().unwrap();
        assert_eq!(child.begun.load(Seen::Relaxed), u32::from(went));
        if went {
            child.await_exit(1);
        }
        assert!(!child.inbox.try_iter().any(|message| matches!(message, Message::Exit(_))));
        assert!(
            !child.worker.holds_body() && child.body.strong_count() == 0,
            "the body is dropped"
        );
        assert!(!child.worker.send_start(2, 0), "nothing is let go any more");
    });
}

#[test]
fn thread_that_stays_runs_the_body_again() {
    explore("two runs", None, || {
        let child = Child::new(false, |_| ());
        let worker = child.provide(1);
        for run in 1..=2 {
            assert!(child.worker.send_start(run, 0), "there is room for the word");
            child.await_exit(run);
            assert!(child.worker.holds_body(), "it is put back before the end is told");
            child.worker.run_is_over();
        }
        assert_eq!(child.begun.load(Seen::Relaxed), 2);
        retire(&child.worker);
        worker.join().unwrap();
        assert_eq!(child.body.strong_count(), 0);
    });
}

// Each run has a thread of its own. The first thread leaves while the second run starts, and
// another thread force-stops all meanwhile.
#[test]
fn thread_that_leaves_late_takes_no_body_from_the_next_run_bounded() {
    explore("fresh threads", Some(PREEMPTIONS), || {
        let child = Child::new(true, |_| ());
        let first = child.provide(1);
        assert!(child.worker.send_start(1, 0));
        child.await_exit(1);
        child.worker.run_is_over();
        let second = child.provide(2);
        let other = spawn({
            let worker = child.worker.clone();
            move || force_stop_all(&worker)
        });
        let went = child.worker.send_start(2, 0);
        for thread in [first, second, other] {
            thread.join().unwrap();
        }
        assert_eq!(
            child.begun.load(Seen::Relaxed),
            1 + u32::from(went),
            "a run that was let go has its body"
        );
        assert_eq!(child.body.strong_count(), 0, "the body is dropped");
    });
}

// A child is removed just when its run ends by itself.
#[test]
fn body_of_a_last_run_is_dropped_once_whenever_that_is_said() {
    explore("last run", None, || {
        let child = Child::new(false, |_| ());
        let worker = child.provide(1);
        assert!(child.worker.send_start(1, 0));
        child.worker.make_final(false);
        request_stop(&child.worker);
        child.await_exit(1);
        retire(&child.worker);
        worker.join().unwrap();
        assert_eq!((child.begun.load(Seen::Relaxed), child.body.strong_count()), (1, 0));
    });
}

#[test]
fn first_heartbeat_is_told_once_and_no_text_hides_another() {
    // Texts are told apart by their addresses, and one literal may have two of them.
    static READING: &str = "reading";
    static WRITING: &str = "writing";
    explore("heartbeats", None, || {
        let child = Child::new(false, |_| ());
        let context = ChildContext::new(child.worker.link.clone(), 1, 0);
        let helper = spawn({
            let context = context.clone();
            move || context.heartbeat(READING)
        });
        context.heartbeat(WRITING);
        helper.join().unwrap();
        let told = child
            .inbox
            .try_iter()
            .filter(|message| matches!(message, Message::FirstHeartbeat { .. }))
            .count();
        assert_eq!((told, context.heartbeats().count), (1, 2));
        context.heartbeat(READING);
        assert_eq!(context.heartbeats().doing, READING);
        context.heartbeat(WRITING);
        assert_eq!(context.heartbeats().doing, WRITING);
        drop(child.shared);
    });
}
