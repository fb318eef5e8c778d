//! Shutdown of a supervisor and all its children.

use std::{thread, time::Duration};

use circuit_breaker_supervisor::{
    AddErrorReason, ChildContext, ChildSpec, ChildStatus, CommandError, OffBy, ShutdownCause,
    StopCause, Supervisor, WaitError,
};
use crossbeam_channel::{bounded, unbounded};

use crate::support::*;

#[test]
fn shutdown_ends_all_children_and_their_threads() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .name("sh01-sup")
        .telemetry(recorder.clone())
        .children(["sh01-a", "sh01-b"].map(idler))
        .start()
        .unwrap();
    eventually("named threads", || {
        threads_named("sh01-a") + threads_named("sh01-b") + threads_named("sh01-sup") == 3
    });
    let handle = supervisor.handle().clone();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    // Joined threads leave the kernel's list a moment later.
    eventually("no thread left", || {
        threads_named("sh01-a") + threads_named("sh01-b") + threads_named("sh01-sup") == 0
    });
    assert_eq!(recorder.story("sh01-a"), ["start 0", "stop shutdown 0"]);
    assert_eq!(recorder.story("sh01-b"), ["start 0", "stop shutdown 0"]);
    check_trace(&recorder.events(), Some(&report), false);
    for child in handle.snapshot().children {
        assert!(matches!(child.status, ChildStatus::Off { by: OffBy::Shutdown, .. }), "{child}");
    }
}

#[test]
fn children_are_asked_in_reverse_list_order() {
    for _ in 0..20 {
        let (sender, contexts) = unbounded::<(usize, ChildContext)>();
        let (verdict, verdicts) = unbounded();
        let children = (0..8).map(|position| {
            let (sender, verdict) = (sender.clone(), verdict.clone());
            let (hand, others) = bounded::<Vec<ChildContext>>(1);
            let spec = ChildSpec::new(position.to_string(), move |ctx| {
                let _ = sender.send((position, ctx.clone()));
                let later = others.recv()?;
                let _ = ctx.stopped().recv();
                let _ = verdict.send(later.iter().all(ChildContext::is_stopping));
                Ok(())
            });
            (spec, hand)
        });
        let (specs, hands): (Vec<_>, Vec<_>) = children.unzip();
        let supervisor = Supervisor::builder().children(specs).start().unwrap();
        let mut known: Vec<_> = (0..8).map(|_| take(&contexts)).collect();
        known.sort_by_key(|(position, _)| *position);
        for (position, hand) in hands.iter().enumerate() {
            hand.send(known[position + 1..].iter().map(|(_, ctx)| ctx.clone()).collect()).unwrap();
        }
        assert!(supervisor.shutdown().is_clean());
        let verdicts: Vec<_> = verdicts.try_iter().collect();
        assert_eq!(
            verdicts, [true; 8],
            "whoever is asked finds all that are listed later asked already"
        );
    }
}

#[test]
fn shutdown_may_be_requested_by_many_at_once_and_again() {
    for _ in 0..20 {
        let recorder = Recorder::default();
        let supervisor = Supervisor::builder()
            .telemetry(recorder.clone())
            .children(["a", "b"].map(idler))
            .start()
            .unwrap();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| supervisor.handle().request_shutdown());
            }
        });
        let handle = supervisor.handle().clone();
        handle.request_shutdown();
        let seen = handle.wait_until_stopped(DEADLINE).unwrap();
        handle.request_shutdown();
        let report = supervisor.shutdown();
        assert!(report.is_clean() && seen.is_clean(), "{report}");
        assert_eq!(recorder.events().len(), 4);
        check_trace(&recorder.events(), Some(&report), false);
    }
}

#[test]
fn ended_supervisor_answers_at_once() {
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .backoff(constant(HOUR))
        .child(child)
        .child(idler("other"))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    strings.act(Act::Fail("the last word"));
    wait_status(&handle, "child", ChildStatus::BackingOff);
    assert!(supervisor.shutdown().is_clean());

    for id in ["child", "unknown"] {
        for command in [
            handle.hold(id),
            handle.release(id),
            handle.remove(id),
            handle.restart(id),
            handle.reset(id),
            handle.poll_now(),
        ] {
            assert_eq!(command, Err(CommandError::Ended));
        }
    }
    let drops = Drops::default();
    let token = drops.token();
    let error = handle
        .add(ChildSpec::once("new", move |_| {
            drop(token);
            Ok(())
        }))
        .unwrap_err();
    assert!(matches!(error.reason(), AddErrorReason::Ended), "{error}");
    assert_eq!(drops.count(), 0, "the spec is given back whole");
    assert_eq!(*error.into_spec().id(), "new");
    assert_eq!(drops.count(), 1);

    let snapshot = handle.snapshot();
    assert!(!snapshot.is_running && !snapshot.is_healthy());
    assert_eq!(snapshot.counts().children, 2);
    let child = handle.child("child").unwrap();
    assert_eq!(child.failures, 1);
    assert_eq!(child.last_stop.as_ref().unwrap().exit.message(), Some("the last word"));
    assert_eq!(handle.child("other").unwrap().last_stop.unwrap().cause, StopCause::Shutdown);
    assert!(handle.child("unknown").is_none());
    assert!(matches!(handle.wait_for("child", HOUR, |_| false), Err(WaitError::Ended(_))));
    assert!(handle.wait_for("child", HOUR, |_| true).is_ok());
    assert!(matches!(handle.wait_for("unknown", HOUR, |_| true), Err(WaitError::UnknownId(_))));
    assert!(matches!(handle.wait_until_gone("child", HOUR), Err(WaitError::Ended(_))));
    assert!(handle.wait_until_gone("unknown", HOUR).is_ok());
    assert!(handle.wait_until_stopped(HOUR).unwrap().is_clean());
    handle.request_shutdown();
}

#[test]
fn removed_child_is_no_part_of_a_shutdown() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .children(["gone", "left"].map(idler))
        .start()
        .unwrap();
    supervisor.handle().remove("gone").unwrap();
    supervisor.handle().wait_until_gone("gone", DEADLINE).unwrap();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert_eq!(recorder.story("gone"), ["start 0", "stop removed 0"]);
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn wait_lasts_until_somebody_ends_the_supervisor() {
    let supervisor = Supervisor::builder()
        .child(ChildSpec::new("child", |ctx| {
            ctx.supervisor().request_shutdown();
            idle(ctx)
        }))
        .start()
        .unwrap();
    let report = supervisor.wait();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn shutdown_ends_a_backoff_without_a_start() {
    let (child, strings) = puppet("child");
    let (supervisor, recorder) = supervise(child, HOUR);
    strings.act(Act::Fail("no"));
    recorder.wait_for("child", "stop", 1);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert_eq!(
        recorder.story("child"),
        ["start 0", "stop exited 0"],
        "a shutdown is no failure, and starts nothing"
    );
}

#[test]
fn run_that_panics_as_it_is_stopped_has_not_failed() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(circuit_breaker_supervisor::Backoff::from_fn(|_| panic!("nobody asks")))
        .child(ChildSpec::new("child", |ctx| {
            let _ = ctx.sleep(Duration::MAX);
            panic!("on the way out")
        }))
        .start()
        .unwrap();
    let report = supervisor.shutdown();
    assert!(report.is_clean() && matches!(report.cause, ShutdownCause::Requested), "{report}");
    assert_eq!(recorder.story("child"), ["start 0", "stop shutdown 0"]);
    let stop = stop_of(&recorder.of("child")[1]);
    assert!(stop.exit.is_panicked() && stop.retry_in.is_none());
}

#[test]
fn report_says_who_did_not_stop_and_why() {
    let (deaf, _gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder().stop_timeout(10 * MS).child(deaf).start().unwrap();
    take(&started);
    let text = supervisor.shutdown().to_string();
    assert!(
        text.starts_with("shut down as requested; 1 did not stop: `deaf` (run 1, asked "),
        "{text}"
    );
    // Where the kernel tells, what the thread is doing stands behind it.
    assert!(text.contains(" ago, running") && text.ends_with(')'), "{text}");
}
