//! Many callers of one child at a time.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{
    CallError, ChildSpec, ChildStatus, CircuitState, OffBy, Supervisor, WaitError,
};
use crossbeam_channel::unbounded;

use super::report;
use crate::support::*;

#[test]
fn callers_may_wait_until_they_are_permitted() {
    let (spec, strings) = puppet("child");
    let breaker = spec.breaker();
    let its = breaker.clone();
    let early = thread::spawn(move || its.wait_until_permitted(DEADLINE).is_ok());
    let (supervisor, _) = supervise(spec, HOUR);
    assert!(early.join().unwrap(), "one who waits before the start is told too");
    strings.next_run();
    strings.act(Act::Fail("no"));
    wait_status(supervisor.handle(), "child", ChildStatus::BackingOff);
    assert!(matches!(
        breaker.wait_until_permitted(Duration::ZERO),
        Err(WaitError::TimedOut(Some(_)))
    ));
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let its = breaker.clone();
            thread::spawn(move || its.wait_until_permitted(DEADLINE).is_ok())
        })
        .collect();
    supervisor.handle().reset("child").unwrap();
    assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
    assert!(supervisor.shutdown().is_clean());
}

// The counts of callers are exact, however many there are.
#[test]
fn reports_of_many_threads_are_counted_exactly() {
    for _ in rounds(20) {
        let spec = idler("child").failure_threshold(40_000).backoff(constant(HOUR));
        let breaker = spec.breaker();
        let supervisor = Supervisor::builder().telemetry(()).child(spec).start().unwrap();
        let ready = Barrier::new(4);
        thread::scope(|scope| {
            for number in 0..4 {
                let (breaker, ready) = (&breaker, &ready);
                scope.spawn(move || {
                    ready.wait();
                    // One short of the threshold, all together.
                    report(breaker, if number == 0 { 9_999 } else { 10_000 });
                });
            }
        });
        assert_eq!(breaker.state(), CircuitState::Closed);
        breaker.report_failure("the last");
        assert_eq!(breaker.state(), CircuitState::Open);
        assert!(supervisor.shutdown().is_clean());
    }
}

/// What the callers of one test saw.
#[derive(Default)]
struct Tally {
    admitted: AtomicU64,
    rejected: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

#[test]
fn eight_callers_of_a_crashing_child_add_up() {
    let (requests, inbox) = unbounded::<(u64, crossbeam_channel::Sender<u64>)>();
    let recorder = Recorder::default();
    let spec = ChildSpec::new("server", move |ctx| {
        loop {
            let (number, reply) = ctx.recv(&inbox)?;
            assert_ne!(number % 50, 49, "every fiftieth request is poison");
            let _ = reply.send(number + 1);
        }
    })
    .backoff(constant(MS))
    .healthy_after(MS);
    let breaker = spec.breaker();
    let supervisor = Supervisor::builder().telemetry(recorder.clone()).child(spec).start().unwrap();
    let (tally, over) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (breaker, requests, tally, over) =
                (breaker.clone(), requests.clone(), tally.clone(), over.clone());
            thread::spawn(move || {
                let mut calls = 0u64;
                for number in rounds(2_000) {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    calls += 1;
                    let result = breaker.call(|| {
                        tally.admitted.fetch_add(1, Ordering::SeqCst);
                        let (reply, answer) = unbounded();
                        requests.send((number, reply)).map_err(|_| "nobody listens")?;
                        // The reply's sender goes with the run that crashed: nobody hangs.
                        answer.recv_timeout(DEADLINE).map_err(|_| "no answer")
                    });
                    match result {
                        Ok(answer) => {
                            assert_eq!(answer, number + 1);
                            tally.succeeded.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(CallError::Rejected(_)) => {
                            tally.rejected.fetch_add(1, Ordering::SeqCst);
                            let _ = breaker.wait_until_permitted(DEADLINE);
                        }
                        Err(CallError::Failed(_)) => {
                            tally.failed.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
                calls
            })
        })
        .collect();
    let calls: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    over.store(true, Ordering::SeqCst);
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    assert_eq!(calls, count(&tally.admitted) + count(&tally.rejected));
    assert_eq!(count(&tally.admitted), count(&tally.succeeded) + count(&tally.failed));
    assert!(count(&tally.failed) > 0, "poison was sent");
    assert!(supervisor.shutdown().is_clean());
    check_trace(&recorder.events(), None, false);
}

// No call is made by a breaker that was open from before the call until after it.
#[test]
fn nothing_is_called_while_the_breaker_is_held_open() {
    let (opened, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let spec = ChildSpec::new("child", idle);
    let breaker = spec.breaker();
    let supervisor = Supervisor::builder().telemetry(()).child(spec).start().unwrap();
    let handle = supervisor.handle();
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (breaker, opened, calls, over) =
                (breaker.clone(), opened.clone(), calls.clone(), over.clone());
            thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let was_open = opened.load(Ordering::SeqCst);
                    let _ = breaker.call(|| {
                        // Closed again in the meantime is no fault.
                        assert!(
                            !(was_open && opened.load(Ordering::SeqCst)),
                            "called while it was open"
                        );
                        calls.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, &str>(())
                    });
                }
            })
        })
        .collect();
    for _ in rounds(200) {
        handle.hold("child").unwrap();
        handle
            .wait_for("child", DEADLINE, |child| {
                child.status == ChildStatus::Off { by: OffBy::Operator }
            })
            .unwrap();
        opened.store(true, Ordering::SeqCst);
        assert!(!breaker.is_call_permitted());
        opened.store(false, Ordering::SeqCst);
        handle.release("child").unwrap();
        breaker.wait_until_permitted(DEADLINE).unwrap();
        let before = calls.load(Ordering::SeqCst);
        eventually("somebody calls", || calls.load(Ordering::SeqCst) > before);
    }
    over.store(true, Ordering::SeqCst);
    assert!(
        callers.into_iter().all(|caller| caller.join().is_ok()),
        "no call was made while the breaker was open"
    );
    assert!(supervisor.shutdown().is_clean());
}
