//! Bad and odd configuration.

use std::{
    error::Error,
    panic::{RefUnwindSafe, UnwindSafe},
    time::Duration,
};

use circuit_breaker_supervisor::{
    AddErrorReason, Breaker, ChildContext, ChildId, ChildSpec, ConfigError, Event, Handle, Permit,
    Rejected, SendError, ShutdownReport, Snapshot, StartError, StartErrorReason, StopGuard,
    Supervisor, SupervisorBuilder,
};
use crossbeam_channel::unbounded;

use crate::support::*;

/// Starts what cannot be started; nothing runs, and the builder comes back.
#[track_caller]
fn refused(builder: SupervisorBuilder) -> ConfigError {
    let error = builder.start().unwrap_err();
    let again = error.into_builder().start().unwrap_err();
    match again.reason() {
        StartErrorReason::Config(error) => error.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bad_configuration_is_refused_before_anything_starts() {
    let recorder = Recorder::default();
    let (sender, runs) = unbounded();
    let child = |id: &str| {
        let sender = sender.clone();
        ChildSpec::new(id, move |ctx| {
            let _ = sender.send(());
            idle(ctx)
        })
    };
    let builder = || Supervisor::builder().telemetry(recorder.clone()).child(child("fine"));
    let duplicate =
        refused(builder().child(child("twice")).child(child("between")).child(child("twice")));
    assert!(matches!(&duplicate, ConfigError::DuplicateId(id) if *id == "twice"));
    assert!(duplicate.to_string().contains("twice"), "{duplicate}");
    assert!(matches!(refused(builder().child(child(""))), ConfigError::EmptyId));
    assert!(
        matches!(refused(builder().child(child("a\0b"))), ConfigError::NulInId(id) if id == "a\0b")
    );
    assert!(matches!(refused(builder().name("a\0b")), ConfigError::NulInName));
    let zero = refused(builder().poll_interval(Duration::ZERO));
    assert!(
        matches!(zero, ConfigError::ZeroPollInterval) && zero.to_string().contains("poll_interval"),
        "{zero}"
    );
    assert_eq!(refused(builder().max_starts_per_second(0)), ConfigError::ZeroStartRate);
    assert!(runs.is_empty());
    assert_eq!(recorder.events().len(), 0);
}

#[test]
fn builder_that_was_given_back_can_be_mended() {
    let error = Supervisor::builder()
        .poll_interval(Duration::ZERO)
        .child(idler("child"))
        .start()
        .unwrap_err();
    let supervisor = error.into_builder().poll_interval(MS).start().unwrap();
    assert_eq!(supervisor.handle().snapshot().counts().running, 1);
}

#[test]
fn child_whose_id_is_taken_is_given_back() {
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder().backoff(constant(HOUR)).child(child).start().unwrap();
    let handle = supervisor.handle();
    let (run, _) = strings.next_run();
    let drops = Drops::default();
    for act in [None, Some(Act::Fail("no"))] {
        // While it runs, and while it is down.
        if let Some(act) = act {
            strings.act(act);
            handle.wait_for("child", DEADLINE, |child| !child.is_running()).unwrap();
        }
        let token = drops.token();
        let before = drops.count();
        let error = handle
            .add(ChildSpec::once("child", move |_| {
                drop(token);
                Ok(())
            }))
            .unwrap_err();
        assert!(
            matches!(
                error.reason(),
                AddErrorReason::Config(ConfigError::DuplicateId(id)) if *id == "child"
            ),
            "{error}"
        );
        assert_eq!(drops.count(), before);
        drop(error.into_spec());
        assert_eq!(drops.count(), before + 1);
    }
    assert_eq!(handle.child("child").unwrap().run, run);
    assert!(matches!(
        handle.add(idler("")).unwrap_err().reason(),
        AddErrorReason::Config(ConfigError::EmptyId)
    ));
    let error = handle.add(idler("a\0b")).unwrap_err();
    assert!(matches!(error.reason(), AddErrorReason::Config(ConfigError::NulInId(_))));
    assert_eq!(error.to_string(), "cannot add the child: the id \"a\\0b\" holds a NUL");
    assert_eq!(handle.snapshot().counts().children, 1);
}

#[test]
fn ids_may_be_long_and_in_any_script() {
    let long = "x".repeat(10_000);
    let ids = [long.as_str(), "заказы", "注文", " ", "a\\b", "\n", "🦀🦀🦀🦀🦀🦀"];
    let supervisor = Supervisor::builder()
        .name("名前".repeat(1000))
        .children(ids.map(|id| {
            ChildSpec::new(id, |ctx| {
                let called = crossbeam_channel::bounded(1);
                let _guard = ctx.on_stop(move || called.0.send(()));
                called.1.recv()?;
                Ok(())
            })
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    assert_eq!(handle.snapshot().counts().running, ids.len());
    for id in ids {
        assert!(handle.child(id).unwrap().is_running());
        handle.restart(id).unwrap();
        handle.wait_for(id, DEADLINE, |child| child.run > 1).map(drop).unwrap();
    }
    let _ = handle.snapshot().to_string();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn absurd_durations_mean_never() {
    for absurd in [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_secs(i64::MAX as u64),
        HOUR * 24 * 365 * 200,
    ] {
        let recorder = Recorder::default();
        let (child, strings) = puppet("child");
        let supervisor = Supervisor::builder()
            .telemetry(recorder.clone())
            .poll_interval(absurd)
            .enabled(|_| true)
            .healthy_after(absurd)
            .stop_timeout(absurd)
            .backoff(constant(Duration::ZERO))
            .child(child)
            .start()
            .unwrap();
        let handle = supervisor.handle();
        strings.next_run();
        strings.act(Act::Fail("no"));
        assert_eq!(strings.next_run().1, 1);
        handle.wait_for("child", absurd, |child| child.is_running()).unwrap();
        handle.hold("child").unwrap();
        wait_off(handle, "child", circuit_breaker_supervisor::OffBy::Operator);
        handle.release("child").unwrap();
        strings.next_run();
        let report = supervisor.shutdown_within(absurd);
        assert!(report.is_clean(), "{report}");
        assert_eq!(recorder.count("child", "healthy") + recorder.count("child", "overdue"), 0);
        check_trace(&recorder.events(), Some(&report), false);
    }
}

#[test]
fn types_can_be_sent_and_shared_as_promised() {
    fn send<T: Send + 'static>() {}
    fn share<T: Send + Sync + Clone + 'static>() {}
    fn error<T: Error + Send + Sync + 'static>() {}
    send::<ChildSpec>();
    send::<SupervisorBuilder>();
    send::<Supervisor>();
    share::<Handle>();
    share::<ChildContext>();
    share::<ChildId>();
    share::<Event>();
    share::<Snapshot>();
    share::<ShutdownReport>();
    error::<StartError>();
    error::<circuit_breaker_supervisor::AddError>();
    error::<circuit_breaker_supervisor::CommandError>();
    error::<circuit_breaker_supervisor::WaitError>();
    error::<circuit_breaker_supervisor::Stopped>();
    error::<circuit_breaker_supervisor::RecvError>();
    // A message that is not `Sync` makes an error that is.
    error::<SendError<std::cell::Cell<u8>>>();
}

#[test]
fn types_can_be_used_in_what_is_caught_when_it_panics() {
    fn safe<T: UnwindSafe + RefUnwindSafe>() {}
    safe::<Supervisor>();
    safe::<Handle>();
    safe::<ChildContext>();
    safe::<StopGuard<'_>>();
    safe::<Breaker>();
    safe::<Permit>();
    safe::<Rejected>();
    safe::<Event>();
    safe::<Snapshot>();
    safe::<ShutdownReport>();
    safe::<circuit_breaker_supervisor::WaitError>();
    safe::<circuit_breaker_supervisor::CommandError>();
}

#[test]
fn descriptions_are_debugged_without_their_closures() {
    let spec = ChildSpec::new("child", idle)
        .max_restarts(3)
        .significant(true)
        .fresh_thread(true)
        .stack_size(1 << 16);
    let text = format!("{:?}", Supervisor::builder().child(spec));
    for part in [
        "\"child\"",
        "max_restarts: Some(3)",
        "significant: true",
        "fresh_thread: true",
        "stack_size: Some(65536)",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}
