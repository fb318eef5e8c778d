//! Limits of waits, which are woken only for their own child, whatever else is new.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{ChildSpec, Handle, Supervisor, SupervisorBuilder, WaitError};
use crossbeam_channel::{never, unbounded};

use crate::support::*;

const LIMIT: Duration = Duration::from_millis(50);

/// A supervisor of an idle child, and of so many that make news all the time.
fn restless(crashing: usize, backoff: Duration) -> SupervisorBuilder {
    let children =
        (0..crashing).map(|number| ChildSpec::new(format!("crashing-{number}"), |_| Ok(())));
    Supervisor::builder()
        .telemetry(())
        .backoff(constant(backoff))
        .children(children)
        .child(idler("idle"))
}

/// Waits on a thread of its own, so that the test fails where the wait has no end.
#[track_caller]
fn check_times_out<T: fmt::Debug + Send + 'static>(
    handle: &Handle,
    wait: impl FnOnce(&Handle) -> Result<T, WaitError> + Send + 'static,
) {
    let (sender, ended) = unbounded();
    let handle = handle.clone();
    thread::spawn(move || {
        let _ = sender.send(wait(&handle));
    });
    let result = take(&ended);
    assert!(matches!(result, Err(WaitError::TimedOut(_))), "{result:?}");
}

/// Waits for a child in vain, by a predicate that takes longer than it is until the next news.
#[track_caller]
fn check_slow_predicate(id: &'static str) {
    // Many more calls than fit into the limit. Here the wait succeeds, so that the test does not
    // have to wait for the deadline.
    const TOO_MANY: usize = 200;
    let supervisor = restless(1, MS).start().unwrap();
    check_times_out(supervisor.handle(), move |handle| {
        let mut calls = 0;
        handle.wait_for(id, LIMIT, |_| {
            calls += 1;
            let _ = never::<()>().recv_timeout(5 * MS);
            calls >= TOO_MANY
        })
    });
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn slow_predicate_is_not_called_again_after_the_limit() {
    check_slow_predicate("idle");
}

#[test]
fn slow_predicate_on_a_restarting_child_is_not_called_again_after_the_limit() {
    check_slow_predicate("crashing-0");
}

#[test]
fn wait_until_gone_keeps_its_limit_under_constant_news() {
    let supervisor = restless(3, Duration::ZERO).start().unwrap();
    check_times_out(supervisor.handle(), |handle| handle.wait_until_gone("crashing-0", LIMIT));
    check_times_out(supervisor.handle(), |handle| handle.wait_until_gone("idle", LIMIT));
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn wait_until_stopped_keeps_its_limit_under_constant_news() {
    let supervisor = restless(3, Duration::ZERO).start().unwrap();
    check_times_out(supervisor.handle(), |handle| handle.wait_until_stopped(LIMIT));
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn wait_until_permitted_keeps_its_limit_under_constant_news() {
    let supervisor = restless(3, Duration::ZERO).start().unwrap();
    let handle = supervisor.handle();
    handle.hold("idle").unwrap();
    handle.wait_for("idle", DEADLINE, |child| !child.is_running()).unwrap();
    let idle = handle.breaker("idle").unwrap();
    check_times_out(handle, move |_| idle.wait_until_permitted(LIMIT));
    // This one is permitted and rejected in turn, so it may be found either way. What counts is
    // that the waits end.
    let crashing = handle.breaker("crashing-0").unwrap();
    let (sender, ended) = unbounded();
    thread::spawn(move || {
        for _ in 0..1000 {
            let _ = sender.send(crashing.wait_until_permitted(MS));
        }
    });
    for _ in 0..1000 {
        let result = take(&ended);
        assert!(matches!(result, Ok(()) | Err(WaitError::TimedOut(_))), "{result:?}");
    }
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn news_of_one_child_does_not_wake_those_who_wait_for_another() {
    const WAITERS: usize = 300;
    const RESTARTS: usize = 200;
    // The first call, one for news that was on its way, and one to spare.
    const CALLS: usize = 3;
    let (busy, strings) = puppet("busy");
    let supervisor = restless(0, Duration::ZERO).child(busy).start().unwrap();
    let handle = supervisor.handle();
    strings.next_run();
    let calls = Arc::new(AtomicUsize::new(0));
    let (sender, first_calls) = unbounded();
    let waiters: Vec<_> = (0..WAITERS)
        .map(|_| {
            let (handle, calls, sender) = (handle.clone(), calls.clone(), sender.clone());
            let wait = move || {
                let mut is_first = true;
                handle.wait_for("idle", DEADLINE * 2, |child| {
                    calls.fetch_add(1, Ordering::SeqCst);
                    if std::mem::take(&mut is_first) {
                        let _ = sender.send(());
                    }
                    !child.is_running()
                })
            };
            thread::Builder::new().stack_size(1 << 16).spawn(wait).unwrap()
        })
        .collect();
    for _ in 0..WAITERS {
        take(&first_calls);
    }
    for _ in 0..RESTARTS {
        strings.act(Act::Fail("news"));
        strings.next_run();
    }
    let seen = calls.load(Ordering::SeqCst);
    // All of them are woken by what they wait for.
    handle.hold("idle").unwrap();
    for waiter in waiters {
        waiter.join().unwrap().unwrap();
    }
    assert!(
        seen <= CALLS * WAITERS,
        "{seen} calls of {WAITERS} predicates over {RESTARTS} restarts of another child"
    );
    assert!(supervisor.shutdown().is_clean());
}
