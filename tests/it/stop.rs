//! How supervisors end.

use std::{
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    AddErrorReason, ChildContext, ChildResult, ChildSpec, ChildStatus, CommandError, OffBy,
    ShutdownCause, StopCause, Supervisor, UnstoppedPhase, WaitError,
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
fn all_are_told_together_and_each_has_its_own_time() {
    let recorder = Recorder::default();
    let (deaf, gate, started) = stubborn("deaf");
    let (sender, told) = unbounded();
    let good = |id: &str| {
        let sender = sender.clone();
        ChildSpec::new(id, move |ctx| {
            let _ = ctx.sleep(Duration::MAX);
            let _ = sender.send(Instant::now());
            Ok(())
        })
    };
    // The stubborn one is last in the list, and so the first to be asked: the others must not wait
    // for it.
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .stop_timeout(HOUR)
        .children([good("a"), good("b"), deaf.stop_timeout(300 * MS)])
        .start()
        .unwrap();
    take(&started);
    let began = Instant::now();
    let report = shut_down(supervisor, DEADLINE);
    assert!(began.elapsed() >= 300 * MS, "it has its whole time");
    let named: Vec<_> = report.unstopped.iter().map(|child| child.id.to_string()).collect();
    assert_eq!(named, ["deaf"]);
    assert!(report.unstopped[0].stopping_for >= 300 * MS);
    assert_eq!((told.len(), report.unstopped[0].phase), (2, UnstoppedPhase::Running));
    assert!(!report.is_clean());
    assert_eq!(recorder.story("deaf"), ["start 0", "overdue"]);
    check_trace(&recorder.events(), Some(&report), false);
    drop(gate);
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
            "whoever is told finds all that are listed later told already"
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
fn each_child_has_its_own_stop_timeout() {
    let recorder = Recorder::default();
    let (none, _gate, started) = stubborn("none");
    let (some, _other_gate, other_started) = stubborn("some");
    let (endless, mut last_gate, last_started) = stubborn("endless");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(none.stop_timeout(Duration::ZERO))
        .child(some.stop_timeout(100 * MS))
        .child(endless.stop_timeout(Duration::MAX))
        .start()
        .unwrap();
    for started in [started, other_started, last_started] {
        take(&started);
    }
    let handle = supervisor.handle().clone();
    let ender = thread::spawn(move || supervisor.shutdown());
    // Both are given up on, and the endless one is still waited for.
    recorder.wait_for("none", "overdue", 1);
    recorder.wait_for("some", "overdue", 1);
    assert!(
        matches!(handle.wait_until_stopped(600 * MS), Err(WaitError::TimedOut(None))),
        "it waits without end"
    );
    last_gate.open();
    let report = ender.join().unwrap();
    let named: Vec<_> = report.unstopped.iter().map(|child| child.id.to_string()).collect();
    assert_eq!(named, ["none", "some"]);
    assert_eq!(recorder.story("endless"), ["start 0", "stop shutdown 0"]);
    assert_eq!(recorder.count("none", "overdue") + recorder.count("some", "overdue"), 2);
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn contexts_that_outlive_everything_say_stopped() {
    let (sender, contexts) = unbounded();
    let supervisor = Supervisor::builder()
        .child(ChildSpec::new("child", move |ctx| {
            let _ = sender.send(ctx.clone());
            idle(ctx)
        }))
        .start()
        .unwrap();
    let ctx = take(&contexts);
    assert!(!ctx.is_stopping());
    drop(supervisor);
    assert!(ctx.is_stopping());
    assert!(ctx.sleep(Duration::MAX).is_err());
    assert!(ctx.stopped().recv().is_err());
    assert!(ctx.recv(&crossbeam_channel::never::<()>()).is_err());
    assert_eq!(ctx.send(&bounded(0).0, 7).unwrap_err().into_inner(), 7);
    ctx.mark_healthy();
    let drops = Drops::default();
    let token = drops.token();
    let _guard = ctx.on_stop(move || panic!("called, with {}", size_of_val(&token)));
    assert_eq!(drops.count(), 1, "dropped uncalled");
    assert_eq!((&**ctx.id(), ctx.run(), ctx.failures()), ("child", 1, 0));
    assert!(ctx.supervisor().poll_now().is_err());
}

#[test]
fn dropping_the_supervisor_shuts_it_down() {
    let recorder = Recorder::default();
    let supervisor =
        Supervisor::builder().telemetry(recorder.clone()).child(idler("child")).start().unwrap();
    let handle = supervisor.handle().clone();
    drop(supervisor);
    assert!(handle.wait_until_stopped(Duration::ZERO).unwrap().is_clean(), "it waits for the end");
    assert_eq!(recorder.story("child"), ["start 0", "stop shutdown 0"]);
}

#[test]
fn dropping_the_supervisor_is_bounded_by_the_stop_timeouts() {
    let (deaf, gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder().stop_timeout(50 * MS).child(deaf).start().unwrap();
    let ctx = take(&started);
    drop(supervisor);
    assert!(ctx.is_stopping());
    drop(gate);
}

#[test]
fn shutdown_within_nothing_tells_all_and_waits_for_none() {
    let recorder = Recorder::default();
    let (one, _gate, started) = stubborn("one");
    let (two, _other_gate, other_started) = stubborn("two");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .stop_timeout(HOUR)
        .child(one)
        .child(two)
        .start()
        .unwrap();
    let contexts = [take(&started), take(&other_started)];
    let report = shut_down(supervisor, Duration::ZERO);
    let named: Vec<_> =
        report.unstopped.iter().map(|child| (child.id.to_string(), child.run)).collect();
    assert_eq!(
        named,
        [("one".to_owned(), contexts[0].run()), ("two".to_owned(), contexts[1].run())]
    );
    assert!(contexts.iter().all(ChildContext::is_stopping));
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
fn supervisor_may_be_ended_from_a_thread_of_its_own_children() {
    for how in [Supervisor::shutdown, Supervisor::wait, |supervisor: Supervisor| {
        supervisor.shutdown_within(HOUR)
    }] {
        let (hand, slot) = bounded::<Supervisor>(1);
        let (sender, reports) = unbounded();
        let supervisor = Supervisor::builder()
            .stop_timeout(HOUR)
            .child(ChildSpec::new("child", move |ctx| {
                let supervisor = ctx.recv(&slot)?;
                let report = how(supervisor);
                let _ = sender.send((report, ctx.is_stopping() || ctx.stopped().recv().is_err()));
                Ok(())
            }))
            .start()
            .unwrap();
        let handle = supervisor.handle().clone();
        hand.send(supervisor).unwrap();
        let (report, is_stopping) = take(&reports);
        assert!(is_stopping);
        assert_eq!(report.unstopped.len(), 1, "it could not wait for itself: {report}");
        assert!(handle.wait_until_stopped(DEADLINE).unwrap().is_clean());
    }
}

#[test]
fn shutdown_ends_a_backoff_without_a_start() {
    let recorder = Recorder::default();
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(HOUR))
        .child(child)
        .start()
        .unwrap();
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
    assert!(text.ends_with(" ago, running)"), "{text}");
}

#[test]
fn endless_waits_of_a_body_end_at_a_stop() {
    type Body = fn(&ChildContext) -> ChildResult;
    let bodies: [(&str, Body); 4] = [
        ("sleep", |ctx| Ok(ctx.sleep(Duration::MAX)?)),
        ("receive", |ctx| Ok(ctx.recv(&crossbeam_channel::never::<()>())?)),
        ("send", |ctx| {
            let (sender, _receiver) = bounded(0);
            Ok(ctx.send(&sender, ())?)
        }),
        ("select", |ctx| {
            let _ = ctx.stopped().recv();
            Ok(())
        }),
    ];
    let supervisor = Supervisor::builder()
        .stop_timeout(DEADLINE)
        .children(bodies.map(|(id, body)| ChildSpec::new(id, body)))
        .start()
        .unwrap();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn child_that_was_stopped_before_the_shutdown_is_timed_from_the_shutdown() {
    let (gate, bar) = gate();
    let captured = OnDrop(move || bar.wait());
    let supervisor = Supervisor::builder()
        .child(ChildSpec::new("child", move |ctx| {
            let _ = &captured;
            idle(ctx)
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    handle.hold("child").unwrap();
    let held = Instant::now();
    wait_off(handle, "child", OffBy::Operator);
    // So that the two can be told apart.
    eventually("some time has gone by", || held.elapsed() > MS);
    let shutdown = Instant::now();
    let report = supervisor.shutdown_within(20 * MS);
    let [unstopped] = &report.unstopped[..] else { panic!("{report}") };
    assert_eq!(unstopped.phase, UnstoppedPhase::Dropping);
    assert!(unstopped.stopping_for <= shutdown.elapsed(), "{report}");
    drop(gate);
}

#[test]
fn thread_of_a_removed_child_has_its_own_time_to_end() {
    let (gate, bar) = gate();
    let (sender, dropping) = unbounded();
    let captured = OnDrop(move || {
        let _ = sender.send(());
        bar.wait();
    });
    let body = move |ctx: &ChildContext| {
        let _ = &captured;
        idle(ctx)
    };
    let supervisor = Supervisor::builder()
        .stop_timeout(MS)
        .child(ChildSpec::new("child", body).stop_timeout(HOUR))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    handle.hold("child").unwrap();
    wait_off(&handle, "child", OffBy::Operator);
    handle.remove("child").unwrap();
    handle.wait_until_gone("child", DEADLINE).unwrap();
    take(&dropping);
    let (sender, reports) = unbounded();
    let owner = thread::spawn(move || sender.send(supervisor.shutdown()));
    // Much longer than the time of the others, and than a stuck supervisor thread is given.
    assert!(reports.recv_timeout(600 * MS).is_err(), "it is waited for");
    drop(gate);
    let report = take(&reports);
    assert!(report.is_clean(), "{report}");
    owner.join().unwrap().unwrap();
    assert!(
        handle.wait_until_stopped(Duration::ZERO).is_ok(),
        "the supervisor has ended with its shutdown"
    );
}
