//! Rejected calls: what a rejection says of the child, and of its supervisor.

use std::thread;

use circuit_breaker_supervisor::{
    CallError, ChildInfo, ChildSpec, ChildStatus, CircuitState, Event, EventKind, Exit, OffBy,
    Rejected, RestartPolicy, Supervisor, WaitError,
};
use crossbeam_channel::unbounded;

use super::forbidden;
use crate::support::*;

/// Where there is no child to be called, a rejection says why, and nothing else.
#[track_caller]
pub(super) fn check_says_only(rejected: &Rejected, why: &str) {
    assert_eq!(rejected.to_string(), format!("the call was rejected: {why}"));
    let known =
        (rejected.status(), rejected.retry_in(), rejected.last_exit().map(|exit| exit.to_string()));
    assert_eq!(known, (None, None, None));
}

/// The error says how the child failed last.
#[track_caller]
fn check_says_last(child: &ChildInfo, message: &str) {
    let last = child.last_stop.as_ref().expect("it has run");
    assert_eq!((&*child.id, last.exit.message()), ("child", Some(message)));
}

#[test]
fn child_that_is_down_is_not_called_and_the_rejection_says_why() {
    let (spec, strings) = puppet("child");
    let breaker = spec.breaker();
    let (supervisor, _) = supervise(spec, HOUR);
    let handle = supervisor.handle();
    strings.next_run();
    strings.act(Act::Fail("no broker"));
    wait_status(handle, "child", ChildStatus::BackingOff);
    let Err(CallError::Rejected(rejected)) = breaker.call(forbidden) else {
        panic!("not rejected")
    };
    assert_eq!(rejected.status(), Some(ChildStatus::BackingOff));
    assert!(rejected.retry_in().unwrap() > HOUR - DEADLINE);
    assert_eq!(rejected.last_exit().as_ref().and_then(Exit::message), Some("no broker"));
    assert!(rejected.to_string().contains("no broker"), "{rejected}");

    handle.reset("child").unwrap();
    strings.next_run();
    assert_eq!(breaker.state(), CircuitState::Closed, "an operator's reset forgives its failures");
    handle.hold("child").unwrap();
    wait_off(handle, "child", OffBy::Operator);
    assert!(breaker.call(forbidden).is_err());
    assert_eq!(
        rejected.status(),
        Some(ChildStatus::Off { by: OffBy::Operator }),
        "it looks when asked"
    );
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn finished_child_is_not_called() {
    let spec = ChildSpec::new("child", |_| Ok(())).restart(RestartPolicy::Transient);
    let breaker = spec.breaker();
    let supervisor = Supervisor::builder().telemetry(()).child(spec).start().unwrap();
    wait_status(supervisor.handle(), "child", ChildStatus::Finished);
    let Err(CallError::Rejected(rejected)) = breaker.call(forbidden) else {
        panic!("not rejected")
    };
    assert_eq!((rejected.status(), rejected.retry_in()), (Some(ChildStatus::Finished), None));
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn rejection_says_that_the_child_is_gone_whoever_has_a_handle() {
    for (keeps_handle, is_once) in [(true, true), (true, false), (false, true), (false, false)] {
        let (spec, strings) = if is_once { puppet_once("child") } else { puppet("child") };
        let breaker = spec.breaker();
        let (supervisor, _) = supervise(spec, HOUR);
        let handle = supervisor.handle().clone();
        strings.next_run();
        strings.act(Act::Fail("no broker"));
        if !is_once {
            wait_status(&handle, "child", ChildStatus::BackingOff);
            handle.remove("child").unwrap();
        }
        handle.wait_until_gone("child", DEADLINE).unwrap();
        let kept = keeps_handle.then_some(handle);
        // And after the end of its supervisor it is no less gone.
        let mut supervisor = Some(supervisor);
        for _ in 0..2 {
            let rejected = breaker.permit().unwrap_err();
            check_says_only(&rejected, "`child` is gone from the list of its supervisor");
            let Err(WaitError::Gone(child)) = breaker.wait_until_permitted(DEADLINE) else {
                panic!("it is gone")
            };
            check_says_last(&child, "no broker");
            drop(supervisor.take());
        }
        drop(kept);
    }
}

#[test]
fn rejection_says_that_the_supervisor_has_ended_whoever_has_a_handle() {
    for keeps_handle in [true, false] {
        let (spec, strings) = puppet("child");
        let breaker = spec.breaker();
        let (supervisor, _) = supervise(spec, HOUR);
        let kept = keeps_handle.then(|| supervisor.handle().clone());
        strings.next_run();
        strings.act(Act::Fail("no broker"));
        wait_status(supervisor.handle(), "child", ChildStatus::BackingOff);
        let early = breaker.permit().unwrap_err();
        let its = breaker.clone();
        let waiting = thread::spawn(move || its.wait_until_permitted(HOUR));
        assert!(supervisor.shutdown().is_clean());
        for rejected in [early, breaker.permit().unwrap_err()] {
            check_says_only(&rejected, "the supervisor of `child` has ended");
        }
        for answer in [waiting.join().unwrap(), breaker.wait_until_permitted(DEADLINE)] {
            let Err(WaitError::Ended(child)) = answer else { panic!("{answer:?}") };
            check_says_last(&child, "no broker");
        }
        drop(kept);
    }
}

#[test]
fn rejection_of_a_nested_child_calls_it_by_its_whole_id() {
    let (breakers, sent) = unbounded();
    let outer = ChildSpec::new("outer", move |ctx| {
        let inner = idler("inner");
        breakers.send(inner.breaker())?;
        Supervisor::builder().child(inner).run(ctx)
    });
    let supervisor = Supervisor::builder().telemetry(()).child(outer).start().unwrap();
    let breaker = take(&sent);
    breaker.wait_until_permitted(DEADLINE).unwrap();
    assert!(supervisor.shutdown().is_clean());
    check_says_only(&breaker.permit().unwrap_err(), "the supervisor of `outer/inner` has ended");
}

#[test]
fn child_that_is_stopped_without_the_stuck_supervisor_is_not_called() {
    let (mut gate, bar) = gate();
    let (stuck, is_stuck) = unbounded();
    let spec = idler("child");
    let breaker = spec.breaker();
    let sink = move |event: &Event| {
        if event.id == *"other" && matches!(event.kind, EventKind::Started) {
            stuck.send(()).unwrap();
            bar.wait();
        }
    };
    let supervisor = Supervisor::builder().on_event(sink).child(spec).start().unwrap();
    let handle = supervisor.handle().clone();
    let other = idler("other");
    let of_other = other.breaker();
    handle.add(other).unwrap();
    take(&is_stuck);
    assert!(of_other.is_call_permitted() && breaker.is_call_permitted());
    let report = supervisor.shutdown_within(MS);
    assert!(report.stuck_in.is_some(), "{report}");
    assert_eq!((breaker.state(), of_other.state()), (CircuitState::Open, CircuitState::Open));
    breaker.call(forbidden).unwrap_err();
    check_says_only(&breaker.permit().unwrap_err(), "the supervisor of `child` shuts down");
    // Nobody but the stuck thread knows of the children from here on.
    drop(handle);
    check_says_only(&of_other.permit().unwrap_err(), "the supervisor of `other` shuts down");
    assert!(
        matches!(breaker.wait_until_permitted(MS), Err(WaitError::TimedOut(_))),
        "it has not ended yet"
    );
    gate.open();
    assert!(matches!(of_other.wait_until_permitted(HOUR), Err(WaitError::Ended(_))));
    check_says_only(&of_other.permit().unwrap_err(), "the supervisor of `other` has ended");
    assert_eq!((breaker.state(), of_other.state()), (CircuitState::Open, CircuitState::Open));
}
