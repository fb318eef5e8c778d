//! Breaker of a child: the calls that it permits, and the reports that trip the child.

mod callers;
mod rejections;

use std::panic::{AssertUnwindSafe, catch_unwind};

use circuit_breaker_supervisor::{
    Breaker, CallError, ChildStatus, CircuitState, ConfigError, EventKind, StartErrorReason,
    StopCause, Supervisor, WaitError,
};
use crossbeam_channel::unbounded;

use self::rejections::check_says_only;
use crate::support::*;

/// A call that must not be made.
fn forbidden() -> Result<(), &'static str> {
    panic!("the breaker is open, and the call was made")
}

/// Reports so many failures.
fn report(breaker: &Breaker, count: u32) {
    for _ in 0..count {
        breaker.report_failure("refused");
    }
}

#[test]
fn running_child_can_be_called() {
    let spec = idler("child");
    let breaker = spec.breaker();
    assert_eq!(breaker.state(), CircuitState::Open, "before the start there is nobody to call");
    let rejected = breaker.permit().unwrap_err();
    check_says_only(&rejected, "`child` has not been started yet");
    let supervisor = Supervisor::builder().telemetry(()).child(spec).start().unwrap();
    assert_eq!(breaker.call(|| Ok::<_, &str>(42)).unwrap(), 42);
    assert_eq!(breaker.state(), CircuitState::Closed, "a first run is no trial for callers");
    assert_eq!(supervisor.handle().breaker("child").unwrap().state(), CircuitState::Closed);
    assert!(supervisor.handle().breaker("nobody").is_none());
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[test]
fn failure_that_cannot_be_shown_trips_the_child_all_the_same() {
    struct Unspeakable;
    impl std::fmt::Display for Unspeakable {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no words")
        }
    }
    let (spec, strings) = puppet("child");
    let spec = spec.failure_threshold(1);
    let breaker = spec.breaker();
    let (supervisor, recorder) = supervise(spec, MS);
    strings.next_run();
    breaker.report_failure(Unspeakable);
    let EventKind::Tripped { failures, last, .. } = recorder.wait_for("child", "tripped", 1).kind
    else {
        unreachable!()
    };
    assert_eq!((failures, &*last), (1, "an error whose `Display` panicked"));
    assert_eq!(strings.next_run().1, 1);
    breaker.wait_until_permitted(DEADLINE).unwrap();
    breaker.permit().unwrap().failure(Unspeakable);
    assert_eq!(strings.next_run().1, 2);
    assert!(supervisor.shutdown().is_clean());
    check_trace(&recorder.events(), None, false);
}

#[test]
fn text_of_a_reported_failure_is_bounded_and_does_not_keep_its_caller() {
    struct Endless;
    impl std::fmt::Display for Endless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            let mut written = 0;
            loop {
                f.write_str("on and ")?;
                written += 7;
                assert!(written < 1 << 20, "nobody ends it");
            }
        }
    }
    let (spec, strings) = puppet("child");
    let spec = spec.failure_threshold(1);
    let breaker = spec.breaker();
    let (supervisor, recorder) = supervise(spec, MS);
    for count in 1..=2 {
        strings.next_run();
        breaker.wait_until_permitted(DEADLINE).unwrap();
        if count == 1 {
            breaker.report_failure(Endless);
        } else {
            breaker.permit().unwrap().failure(Endless);
        }
        let EventKind::Tripped { last, .. } = recorder.wait_for("child", "tripped", count).kind
        else {
            unreachable!()
        };
        assert!(last.starts_with("on and on and ") && last.ends_with('…'), "{}", last.len());
        assert!(last.len() <= 64 * 1024);
    }
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn failures_in_a_row_trip_the_child_at_the_threshold() {
    let (spec, strings) = puppet("child");
    let breaker = spec.breaker();
    let (supervisor, recorder) = supervise(spec, MS);
    strings.next_run();
    report(&breaker, 9);
    breaker.report_success();
    report(&breaker, 9);
    assert_eq!(
        breaker.state(),
        CircuitState::Closed,
        "10 in a row are the default, and a success is between"
    );
    breaker.report_failure("the tenth");
    assert!(
        !breaker.is_call_permitted() || breaker.state() == CircuitState::HalfOpen,
        "open at once, or restarted already"
    );
    assert_eq!(strings.next_run().1, 1, "its end is a failure");
    let EventKind::Tripped { failures, last, .. } = recorder.wait_for("child", "tripped", 1).kind
    else {
        unreachable!()
    };
    assert_eq!((failures, &*last), (10, "the tenth"));
    let stop = stop_of(&recorder.wait_for("child", "stop", 1));
    assert_eq!((stop.cause, stop.retry_in), (StopCause::Tripped, Some(MS)));

    // On trial, one is enough; and once it is healthy, ten are needed again.
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    breaker.report_failure("on trial");
    assert_eq!(strings.next_run().1, 2);
    strings.act(Act::MarkHealthy);
    wait_status(supervisor.handle(), "child", ChildStatus::Healthy);
    assert_eq!(breaker.state(), CircuitState::Closed);
    report(&breaker, 9);
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert!(supervisor.shutdown().is_clean());
    check_trace(&recorder.events(), None, false);
}

#[test]
fn report_that_reaches_the_threshold_opens_the_breaker_before_the_supervisor_knows() {
    let (mut held, bar) = gate();
    let (entered, is_held) = unbounded();
    let spec = idler("child").failure_threshold(2);
    let breaker = spec.breaker();
    let supervisor = Supervisor::builder()
        .telemetry(())
        .poll_interval(HOUR)
        .enabled({
            let mut asked = 0;
            move |_| {
                asked += 1;
                if asked == 2 {
                    let _ = entered.send(());
                    bar.wait();
                }
                true
            }
        })
        .backoff(constant(HOUR))
        .child(spec)
        .start()
        .unwrap();
    supervisor.handle().poll_now().unwrap();
    take(&is_held);
    report(&breaker, 2);
    assert_eq!(breaker.state(), CircuitState::Open, "by the report itself");
    assert!(breaker.call(forbidden).is_err());
    held.open();
    let child = wait_status(supervisor.handle(), "child", ChildStatus::BackingOff);
    assert_eq!(child.last_stop.as_ref().map(|stop| stop.cause), Some(StopCause::Tripped));
    assert!(child.to_string().contains("because its callers reported failures"), "{child}");
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn what_became_of_a_call_of_an_earlier_run_changes_nothing() {
    let (spec, strings) = puppet("child");
    let spec = spec.failure_threshold(1);
    let breaker = spec.breaker();
    let (supervisor, _) = supervise(spec, MS);
    strings.next_run();
    let early = breaker.permit().unwrap();
    let late = breaker.permit().unwrap();
    strings.act(Act::Return);
    let (second, _) = strings.next_run();
    strings.act(Act::MarkHealthy);
    wait_status(supervisor.handle(), "child", ChildStatus::Healthy);
    early.failure("of the first run");
    late.success();
    assert_eq!(breaker.state(), CircuitState::Closed);
    drop(breaker.permit().unwrap());
    assert_eq!(breaker.state(), CircuitState::Closed, "a permit that is dropped tells nothing");
    breaker.permit().unwrap().failure("of the second run");
    assert!(strings.next_run().0 > second);
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn panic_in_a_call_is_a_failure_and_goes_on_to_the_caller() {
    let recorder = Recorder::default();
    let spec = idler("child").failure_threshold(1).backoff(constant(HOUR));
    let breaker = spec.breaker();
    let supervisor = Supervisor::builder().telemetry(recorder.clone()).child(spec).start().unwrap();
    let caught = catch_unwind(AssertUnwindSafe(|| {
        breaker.call(|| -> Result<(), &str> { panic!("the caller's own") })
    }));
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"the caller's own"));
    let tripped = recorder.wait_for("child", "tripped", 1);
    assert!(
        tripped.to_string().ends_with("its callers reported 1 failure, the last: a call panicked"),
        "{tripped}"
    );
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn errors_that_are_nobodys_fault_do_not_count() {
    let spec = idler("child").failure_threshold(1);
    let breaker = spec.breaker();
    let (supervisor, _) = supervise(spec, HOUR);
    for _ in 0..3 {
        let result: Result<(), _> =
            breaker.call_with(|| Err("no such row"), |error| *error != "no such row");
        assert!(matches!(result, Err(CallError::Failed("no such row"))));
    }
    assert!(breaker.is_call_permitted());
    let result: Result<(), _> =
        breaker.call_with(|| Err("timed out"), |error| *error != "no such row");
    assert_eq!(result.unwrap_err().to_string(), "timed out");
    wait_status(supervisor.handle(), "child", ChildStatus::BackingOff);
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn breaker_of_a_child_that_is_gone_is_open_for_ever() {
    let supervisor = Supervisor::builder().telemetry(()).child(idler("child")).start().unwrap();
    let handle = supervisor.handle();
    let breaker = handle.breaker("child").unwrap();
    handle.remove("child").unwrap();
    handle.wait_until_gone("child", DEADLINE).unwrap();
    handle.add(idler("child")).unwrap();
    let another = handle.breaker("child").unwrap();
    another.wait_until_permitted(DEADLINE).unwrap();
    assert_eq!((breaker.state(), another.state()), (CircuitState::Open, CircuitState::Closed));
    breaker.report_failure("nobody is there");
    assert!(matches!(breaker.wait_until_permitted(DEADLINE), Err(WaitError::Gone(_))));
    assert!(supervisor.shutdown().is_clean());
    assert!(matches!(another.wait_until_permitted(DEADLINE), Err(WaitError::Ended(_))));
}

#[test]
fn threshold_of_zero_is_an_error_that_names_the_child() {
    let error =
        Supervisor::builder().child(idler("touchy").failure_threshold(0)).start().unwrap_err();
    assert!(
        matches!(
            error.reason(),
            StartErrorReason::Config(ConfigError::ZeroFailureThreshold(id)) if *id == "touchy"
        ),
        "{error}"
    );
}
