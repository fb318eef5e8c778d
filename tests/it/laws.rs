//! The laws that every trace of events obeys.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{Event, EventKind, Order, ShutdownReport, StopCause};

use crate::support::*;

/// What the checker knows of one child.
#[derive(Default)]
struct Known {
    /// The present run: when it was reported as started, and what was told of it.
    run: Option<(u64, Instant)>,
    last_run: u64,
    /// By what was told of its flag.
    is_off: bool,
    healthy: bool,
    overdue: bool,
    failures: u32,
    /// The failures that were forgiven as it became healthy, and the delay after the last one.
    forgiven: u32,
    last_delay: Option<Duration>,
    /// The earliest instant at which it may start.
    not_before: Option<Instant>,
}

/// Checks what holds for the events of any supervisor: they are numbered without a gap, their time
/// does not run backwards, each child's starts are counted from 1, each `Started` is followed by
/// one `Stopped` of the same run before the next, counts follow from failures, and no backoff is
/// cut short. With `by_hand`, resets and restarts may have cleared counts and backoffs.
///
/// The report, if the supervisor has ended, names all runs without a `Stopped`.
#[track_caller]
pub(crate) fn check_trace(events: &[Event], report: Option<&ShutdownReport>, by_hand: bool) {
    check_trace_of(events, report, |_| by_hand);
}

/// As [`check_trace`], with children of which only some were reset or restarted by hand.
#[track_caller]
pub(crate) fn check_trace_of(
    events: &[Event],
    report: Option<&ShutdownReport>,
    is_by_hand: impl Fn(&str) -> bool,
) {
    let mut children: HashMap<&str, Known> = HashMap::new();
    let mut last_at = None;
    let mut is_abandoned = false;
    for (position, event) in events.iter().enumerate() {
        assert_eq!(event.seq, position as u64, "numbered without a gap: {event}");
        assert!(last_at <= Some(event.at), "time does not run backwards: {event}");
        last_at = Some(event.at);
        let child = children.entry(event.id.as_str()).or_default();
        let by_hand = is_by_hand(&event.id);
        let is_count_right =
            |expected: u32| event.failures == expected || (by_hand && event.failures < expected);
        match &event.kind {
            EventKind::Started => {
                assert!(child.run.is_none(), "one run at a time: {event}");
                assert!(!child.is_off, "it was switched on: {event}");
                check_run(child, event);
                assert!(is_count_right(child.failures), "expected {}: {event}", child.failures);
                if !by_hand {
                    assert!(child.not_before <= Some(event.at), "the backoff is kept: {event}");
                }
                *child = Known {
                    run: Some((event.run, event.at)),
                    last_run: event.run,
                    failures: event.failures,
                    last_delay: child.last_delay,
                    ..Known::default()
                };
            }
            EventKind::Stopped { cause, exit, uptime, failed: is_failure, retry_in, .. } => {
                // One that said too soon that it is healthy has its failures back.
                let was_hasty =
                    child.healthy && event.failures > 0 && event.failures == child.forgiven;
                let is_hasty = *cause != StopCause::Exited
                    || child.last_delay.is_some_and(|delay| *uptime < delay);
                let is_right = is_count_right(child.failures) || was_hasty && is_hasty;
                assert!(is_right, "expected {}: {event}", child.failures);
                child.failures = event.failures;
                let since = if *cause == StopCause::NotSpawned {
                    assert!(child.run.is_none(), "it was not running: {event}");
                    check_run(child, event);
                    assert!(
                        retry_in.is_none_or(|delay| delay >= 100 * MS),
                        "it waits for threads: {event}"
                    );
                    child.last_run = event.run;
                    event.at
                } else {
                    let (run, since) = child
                        .run
                        .take()
                        .unwrap_or_else(|| panic!("a stop without a start: {event}"));
                    assert_eq!(run, event.run, "of the present run: {event}");
                    since
                };
                let next = events.get(position + 1).filter(|next| next.id == event.id);
                let gives_up = next.is_some_and(|next| matches!(next.kind, EventKind::GaveUp));
                assert_eq!(
                    *is_failure,
                    retry_in.is_some() || gives_up,
                    "a failure is tried again or given up: {event}"
                );
                let failed = *cause == StopCause::NotSpawned
                    || (matches!(cause, StopCause::Exited | StopCause::Tripped | StopCause::Hung)
                        && retry_in.is_some());
                assert!(
                    failed || retry_in.is_none(),
                    "only failures are backed off from: {event} {exit:?}"
                );
                if let Some(delay) = retry_in {
                    child.failures += 1;
                    child.last_delay = Some(*delay);
                    if *cause != StopCause::NotSpawned {
                        child.not_before =
                            since.checked_add(*uptime).and_then(|ended| ended.checked_add(*delay));
                    }
                }
            }
            EventKind::Healthy { forgiven, failing_for, .. } => {
                assert_eq!(
                    child.run.map(|(run, _)| run),
                    Some(event.run),
                    "of the present run: {event}"
                );
                assert!(!std::mem::replace(&mut child.healthy, true), "told once a run: {event}");
                assert_eq!(event.failures, 0, "forgiven: {event}");
                child.forgiven = std::mem::take(&mut child.failures);
                assert_eq!(*forgiven, child.forgiven, "all of them: {event}");
                assert!(*forgiven > 0 || failing_for.is_zero(), "since the first: {event}");
            }
            EventKind::Overdue { .. } => {
                assert_eq!(
                    child.run.map(|(run, _)| run),
                    Some(event.run),
                    "of the present run: {event}"
                );
                assert!(!std::mem::replace(&mut child.overdue, true), "told once a run: {event}");
            }
            EventKind::Abandoned { .. } => {
                assert_eq!(
                    child.run.map(|(run, _)| run),
                    Some(event.run),
                    "of the present run: {event}"
                );
                assert!(!std::mem::replace(&mut is_abandoned, true), "one is enough: {event}");
            }
            EventKind::Ordered { order: Order::Add, .. } => {
                assert!(child.run.is_none(), "the one before is gone: {event}");
                *child = Known::default();
                assert_eq!(event.run, 0, "it is yet to run: {event}");
            }
            EventKind::Ordered { order, .. } => {
                assert_eq!(event.run, child.last_run, "of the present or last run: {event}");
                if matches!(order, Order::Reset | Order::Restart) {
                    assert_eq!(event.failures, 0, "forgiven: {event}");
                    child.failures = 0;
                }
            }
            EventKind::FlagChanged { enabled, .. } => {
                assert_eq!(event.run, child.last_run, "of the present or last run: {event}");
                assert_eq!(*enabled, child.is_off, "each change once: {event}");
                child.is_off = !enabled;
            }
            EventKind::GaveUp => {
                assert!(child.run.is_none(), "down: {event}");
                child.failures += 1;
                assert_eq!(event.failures, child.failures, "counts the last failure: {event}");
            }
            _ => {}
        }
    }
    if let Some(report) = report {
        for (id, known) in &children {
            if let Some((run, _)) = known.run {
                assert!(
                    report.unstopped.iter().any(|child| child.id == **id && child.run == run),
                    "run {run} of `{id}` has no `Stopped`, and the report does not name it: \
                     {report}"
                );
            }
        }
    }
}

#[track_caller]
fn check_run(child: &Known, event: &Event) {
    assert_eq!(event.run, child.last_run + 1, "starts are counted: {event}");
}
