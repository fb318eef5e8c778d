//! Shutdowns along children that come after others.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{ChildSpec, ChildStatus, EventKind, Exit, Simulation, Supervisor};

use crate::support::*;

/// Records in which order bodies end.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<&'static str>>>);

impl Ends {
    /// A child that is healthy at once, and notes its end after `flush`.
    fn child(&self, id: &'static str, flush: impl Fn() + Send + 'static) -> ChildSpec {
        let ends = self.0.clone();
        ChildSpec::new(id, move |ctx| {
            ctx.mark_healthy();
            let _ = ctx.wait_until_stopped();
            flush();
            ends.lock().unwrap().push(id);
            Ok(())
        })
    }

    fn list(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }
}

#[track_caller]
fn all_healthy(supervisor: &Supervisor) {
    supervisor.handle().wait_until_healthy(DEADLINE).unwrap();
}

#[test]
fn shutdown_goes_from_the_leaves_inwards() {
    let ends = Ends::default();
    let supervisor = Supervisor::builder()
        .child(ends.child("mail", || {}).after("orders"))
        .child(ends.child("orders", || {}).after("cache").after("db"))
        .child(ends.child("cache", || {}).after("db"))
        .child(ends.child("db", || {}))
        .start()
        .unwrap();
    all_healthy(&supervisor);
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(ends.list(), ["mail", "orders", "cache", "db"]);
}

#[test]
fn last_flush_finds_what_it_comes_after_up_also_when_a_sink_is_slow() {
    let is_up = Arc::new(AtomicBool::new(false));
    let flushes = Arc::new(AtomicU32::new(0));
    let (up, its, count) = (is_up.clone(), is_up.clone(), flushes.clone());
    let supervisor = Supervisor::builder()
        .on_event(|event| {
            if matches!(event.kind, EventKind::Stopped { .. }) {
                thread::sleep(50 * MS); // what is slow, and no wait
            }
        })
        .child(ChildSpec::new("db", move |ctx| {
            up.store(true, Ordering::SeqCst);
            ctx.mark_healthy();
            let stopped = ctx.wait_until_stopped();
            up.store(false, Ordering::SeqCst);
            stopped
        }))
        .children((0..3).map(|number| {
            let (its, count) = (its.clone(), count.clone());
            ChildSpec::new(format!("orders-{number}"), move |ctx| {
                ctx.mark_healthy();
                let stopped = ctx.wait_until_stopped();
                thread::sleep(20 * MS * number); // as long as a flush takes
                assert!(its.load(Ordering::SeqCst), "the database is gone");
                count.fetch_add(1, Ordering::SeqCst);
                stopped
            })
            .after("db")
        }))
        .start()
        .unwrap();
    all_healthy(&supervisor);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert_eq!((flushes.load(Ordering::SeqCst), is_up.load(Ordering::SeqCst)), (3, false));
}

/// `a`, `b` that comes after it, and `c` after that, all healthy at once, with 5 s to stop each, in
/// which the deaf ones do not.
fn chain(deaf: &[&str]) -> Simulation {
    let builder = Supervisor::builder()
        .healthy_after(Duration::ZERO)
        .stop_timeout(5 * SECOND)
        .child(unused("a"))
        .child(unused("b").after("a"))
        .child(unused("c").after("b"));
    let mut simulation = simulate(builder);
    for id in deaf {
        simulation.ignore_stop_for(id, HOUR);
    }
    simulation
}

#[test]
fn simulated_shutdown_waits_along_the_chain_for_the_sum_of_the_timeouts() {
    let mut simulation = chain(&["a", "b", "c"]);
    let handle = simulation.handle().clone();
    let stopping = |id: &str| handle.child(id).unwrap().stopping.is_some();
    let all = || (stopping("a"), stopping("b"), stopping("c"));
    handle.request_shutdown();
    simulation.advance(Duration::ZERO);
    assert_eq!(all(), (false, false, true));
    simulation.advance(5 * SECOND);
    assert_eq!(all(), (false, true, true));
    simulation.advance(5 * SECOND);
    assert_eq!(all(), (true, true, true));
    simulation.advance(4999 * MS);
    assert!(handle.wait_until_stopped(Duration::ZERO).is_err());
    simulation.advance(MS);
    let report = handle.wait_until_stopped(Duration::ZERO).unwrap();
    assert_eq!(unstopped(&report), ["a", "b", "c"]);
    let for_how_long: Vec<_> = report.unstopped.iter().map(|child| child.stopping_for).collect();
    assert_eq!(for_how_long, [5 * SECOND, 10 * SECOND, 15 * SECOND]);
}

#[test]
fn limit_is_for_the_whole_and_asks_the_rest_when_it_is_over() {
    let mut simulation = chain(&["b", "c"]);
    let handle = simulation.handle().clone();
    handle.request_shutdown();
    simulation.advance(6 * SECOND);
    handle.request_shutdown_within(SECOND);
    simulation.advance(999 * MS);
    assert!(handle.child("a").unwrap().stopping.is_none());
    simulation.advance(MS);
    assert_eq!(words(&simulation, "a").last().unwrap(), "stop shutdown 0");
    let report = handle.wait_until_stopped(Duration::ZERO).unwrap();
    assert_eq!(unstopped(&report), ["b", "c"]);
}

#[test]
fn threads_are_waited_for_along_a_chain() {
    // `orders` takes longer than `db` has time for, counted from the start of the shutdown.
    let ends = Ends::default();
    let supervisor = Supervisor::builder()
        .child(ends.child("db", || {}).stop_timeout(500 * MS))
        .child(ends.child("orders", || thread::sleep(800 * MS)).stop_timeout(DEADLINE).after("db"))
        .start()
        .unwrap();
    all_healthy(&supervisor);
    shut_down(supervisor, Duration::MAX);
    assert_eq!(ends.list(), ["orders", "db"]);
}

#[test]
fn stubborn_leaf_delays_the_rest_by_its_timeout() {
    let ends = Ends::default();
    let (leaf, gate, started) = stubborn("leaf");
    let supervisor = Supervisor::builder()
        .child(ends.child("db", || {}))
        .child(leaf.stop_timeout(300 * MS).after("db"))
        .start()
        .unwrap();
    take(&started);
    let since = Instant::now();
    let report = shut_down(supervisor, Duration::MAX);
    assert!(since.elapsed() >= 300 * MS);
    assert_eq!((unstopped(&report), ends.list()), (vec!["leaf"], vec!["db"]));
    drop(gate);
}

#[test]
fn limit_cuts_that_short_and_the_rest_is_asked_with_no_time_left() {
    let ends = Ends::default();
    let (leaf, gate, started) = stubborn("leaf");
    let supervisor = Supervisor::builder()
        .child(ends.child("db", || {}))
        .child(leaf.stop_timeout(HOUR).after("db"))
        .start()
        .unwrap();
    take(&started);
    let report = shut_down(supervisor, 50 * MS);
    assert!(unstopped(&report).contains(&"leaf"), "{report}");
    eventually("`db` was asked", || ends.list() == ["db"]);
    drop(gate);
}

#[test]
fn child_that_waits_for_the_others_in_a_shutdown_still_serves_its_callers() {
    let (leaf, gate, started) = stubborn("leaf");
    let db = idler("db").healthy_after(Duration::ZERO);
    let breaker = db.breaker();
    let supervisor =
        Supervisor::builder().child(db).child(leaf.stop_timeout(HOUR).after("db")).start().unwrap();
    take(&started);
    let handle = supervisor.handle().clone();
    handle.request_shutdown();
    handle.wait_for("leaf", DEADLINE, |leaf| leaf.stopping.is_some()).unwrap();
    let db = handle.child("db").unwrap();
    assert_eq!((db.status, db.stopping), (ChildStatus::Healthy, None));
    assert!(breaker.is_call_permitted());
    drop(gate);
    assert!(shut_down(supervisor, Duration::MAX).is_clean());
}

#[test]
fn child_that_fails_while_a_shutdown_has_it_wait_is_not_started_again() {
    let builder = Supervisor::builder()
        .healthy_after(Duration::ZERO)
        .backoff(constant(MS))
        .child(unused("db"))
        .child(unused("orders").after("db").stop_timeout(HOUR));
    let mut simulation = simulate(builder);
    simulation.ignore_stop_for("orders", SECOND);
    simulation.handle().request_shutdown();
    simulation.advance(MS);
    simulation.exit("db", Exit::failed("killed")).unwrap();
    simulation.advance(HOUR);
    assert_eq!(words(&simulation, "db"), ["start 0", "healthy", "stop exited 0"]);
    assert!(simulation.handle().wait_until_stopped(Duration::ZERO).unwrap().is_clean());
}
