//! Restart policies: what follows the end of a run, up to the last restart.

use std::time::Duration;

use circuit_breaker_supervisor::{
    AddErrorReason, Backoff, ChildSpec, ChildStatus, ConfigError, Exit, RestartPolicy,
    ShutdownCause, StopCause, Supervisor, WaitError,
};
use crossbeam_channel::unbounded;

use crate::support::*;

#[test]
fn permanent_child_is_restarted_after_a_return_an_error_and_a_panic() {
    let (child, strings) = puppet("child");
    let (supervisor, recorder) = supervise(child, Duration::ZERO);
    let mut runs = vec![strings.next_run()];
    for act in [Act::Return, Act::Fail("broken pipe"), Act::Panic("index out of bounds")] {
        strings.act(act);
        runs.push(strings.next_run());
    }
    assert!(runs.is_sorted_by(|one, next| one.0 < next.0 && one.1 + 1 == next.1), "{runs:?}");
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    let expected = [
        "start 0",
        "stop exited 0",
        "start 1",
        "stop exited 1",
        "start 2",
        "stop exited 2",
        "start 3",
        "stop shutdown 3",
    ];
    assert_eq!(recorder.story("child"), expected);
    let exits: Vec<_> = recorder
        .of("child")
        .iter()
        .filter(|event| word(event).starts_with("stop"))
        .map(|e| stop_of(e).exit)
        .collect();
    assert_eq!(
        exits.iter().map(Exit::name).collect::<Vec<_>>(),
        ["completed", "failed", "panicked", "failed"]
    );
    check_trace(&recorder.events(), Some(&report), false);
    assert!(strings.runs.is_empty(), "exactly four runs");
}

#[test]
fn panic_leaves_the_siblings_untouched() {
    let (one, strings) = puppet("one");
    let (two, other) = puppet("two");
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(one)
        .child(two)
        .start()
        .unwrap();
    let before = other.next_run();
    for _ in 0..20 {
        strings.next_run();
        strings.act(Act::Panic("again"));
    }
    strings.next_run();
    let child = supervisor.handle().child("two").unwrap();
    assert_eq!((child.run, child.status, child.failures), (before.0, ChildStatus::OnTrial, 0));
    assert_eq!(recorder.story("two"), ["start 0"]);
    other.act(Act::MarkHealthy);
    wait_status(supervisor.handle(), "two", ChildStatus::Healthy);
    assert!(other.runs.is_empty());
}

#[test]
fn transient_child_that_returns_is_finished_and_keeps_its_place() {
    let (child, strings) = puppet("job");
    let (supervisor, recorder) = supervise(child.restart(RestartPolicy::Transient), Duration::ZERO);
    let handle = supervisor.handle();
    let first = strings.next_run();
    strings.act(Act::Return);
    let job = wait_status(handle, "job", ChildStatus::Finished);
    let last = job.last_stop.unwrap();
    assert!(last.exit.is_completed() && last.cause == StopCause::Exited);
    let counts = handle.snapshot().counts();
    assert_eq!((counts.children, counts.running, counts.finished), (1, 0, 1));
    assert!(handle.snapshot().is_healthy());
    assert_eq!(stop_of(&recorder.wait_for("job", "stop", 1)).retry_in, None);

    let error = handle.add(idler("job")).unwrap_err();
    assert!(
        matches!(
            error.reason(),
            AddErrorReason::Config(ConfigError::DuplicateId(id)) if *id == "job"
        ),
        "{error}"
    );

    handle.poll_now().unwrap();
    handle.reset("job").unwrap();
    barrier(handle);
    assert_eq!(
        handle.child("job").unwrap().status,
        ChildStatus::Finished,
        "a reset revives no finished child"
    );

    handle.restart("job").unwrap();
    let second = strings.next_run();
    assert!(second.0 > first.0);
    assert_eq!(second.1, 0);
    let report = supervisor.shutdown();
    check_trace(&recorder.events(), Some(&report), true);
    assert_eq!(recorder.story("job"), ["start 0", "stop exited 0", "start 0", "stop shutdown 0"]);
}

#[test]
fn transient_child_is_restarted_after_an_error_and_a_panic() {
    let (child, strings) = puppet("job");
    let (supervisor, recorder) = supervise(child.restart(RestartPolicy::Transient), Duration::ZERO);
    strings.next_run();
    strings.act(Act::Fail("no"));
    assert_eq!(strings.next_run().1, 1);
    strings.act(Act::Panic("no"));
    assert_eq!(strings.next_run().1, 2);
    strings.act(Act::Return);
    let job = wait_status(supervisor.handle(), "job", ChildStatus::Finished);
    assert_eq!(job.failures, 2, "the failures stay known");
    check_trace(&recorder.events(), None, false);
}

#[test]
fn one_shot_child_is_gone_however_it_ends_and_its_id_is_free() {
    let (supervisor, recorder) = supervise(idler("other"), Duration::ZERO);
    let handle = supervisor.handle();
    let ends: [fn() -> ChildSpec; 3] = [
        || ChildSpec::once("job", |_| Ok(())),
        || ChildSpec::once("job", |_| Err("no".into())),
        || ChildSpec::once("job", |_| panic!("no")),
    ];
    for (round, job) in ends.into_iter().enumerate() {
        handle.add(job()).unwrap();
        handle.wait_until_gone("job", DEADLINE).unwrap();
        assert!(handle.child("job").is_none());
        assert_eq!(handle.snapshot().counts().children, 1);
        let story = recorder.story("job");
        assert_eq!(story.len(), 2 * (round + 1), "{story:?}");
        assert!(story.chunks(2).all(|run| run == ["start 0", "stop exited 0"]), "{story:?}");
    }
    assert!(
        recorder
            .of("job")
            .iter()
            .filter(|e| word(e).starts_with("stop"))
            .all(|e| stop_of(e).retry_in.is_none())
    );
    assert!(handle.snapshot().is_healthy());
}

#[test]
fn one_who_waits_for_a_one_shot_child_is_told_how_it_ended() {
    let (gate, bar) = gate();
    let (supervisor, _recorder) = supervise(
        ChildSpec::once("job", move |_| {
            bar.wait();
            Err("no paper".into())
        }),
        Duration::ZERO,
    );
    let handle = supervisor.handle().clone();
    let (sender, answers) = unbounded();
    let waiter = std::thread::spawn(move || {
        sender.send(handle.wait_for("job", DEADLINE, |_| false)).unwrap()
    });
    drop(gate);
    let error = take(&answers).unwrap_err();
    waiter.join().unwrap();
    match error {
        WaitError::Gone(child) => {
            assert_eq!(child.last_stop.unwrap().exit.message(), Some("no paper"))
        }
        // The waiter may have come too late to find it.
        WaitError::UnknownId(id) => assert_eq!(id, "job"),
        other => panic!("{other}"),
    }
}

#[test]
fn what_a_body_captured_lives_on_from_run_to_run() {
    let (sender, counts) = unbounded();
    let mut count = 0;
    let (_supervisor, _recorder) = supervise(
        ChildSpec::new("counter", move |ctx| {
            count += 1;
            let _ = sender.send(count);
            match count {
                1 => Err("no".into()),
                2 => panic!("no"),
                3 => Ok(()),
                _ => idle(ctx),
            }
        }),
        Duration::ZERO,
    );
    assert_eq!([(); 4].map(|()| take(&counts)), [1, 2, 3, 4]);
}

#[test]
fn returning_at_once_is_backed_off_from_like_any_failure() {
    let recorder = Recorder::default();
    let _supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(Backoff::exponential(MS, HOUR).jitter(0.0))
        .child(ChildSpec::new("idle hands", |_| Ok(())))
        .start()
        .unwrap();
    recorder.wait_for("idle hands", "stop", 7);
    let delays: Vec<_> = recorder
        .of("idle hands")
        .iter()
        .filter(|e| word(e).starts_with("stop"))
        .map(|e| stop_of(e).retry_in.unwrap())
        .collect();
    assert_eq!(delays[..7], [1, 2, 4, 8, 16, 32, 64].map(Duration::from_millis));
    check_trace(&recorder.events(), None, false);
}

#[test]
fn child_is_given_up_after_its_last_restart_and_revived_by_a_reset() {
    let (child, strings) = puppet("child");
    let (supervisor, recorder) = supervise(child.max_restarts(2), Duration::ZERO);
    let handle = supervisor.handle();
    for attempt in 0..=2 {
        assert_eq!(strings.next_run().1, attempt);
        strings.act(Act::Panic("no"));
    }
    let child = wait_status(handle, "child", ChildStatus::GaveUp);
    assert_eq!((child.failures, child.retry_in), (3, None));
    assert!(!handle.snapshot().is_healthy());
    assert_eq!(handle.snapshot().counts().gave_up, 1);
    recorder.wait_for("child", "gave up", 1);
    let events = recorder.of("child");
    assert_eq!(stop_of(&events[5]).retry_in, None, "there is no next time");
    let expected = [
        "start 0",
        "stop exited 0",
        "start 1",
        "stop exited 1",
        "start 2",
        "stop exited 2",
        "gave up",
    ];
    assert_eq!(recorder.story("child"), expected);
    check_trace(&events, None, false);

    handle.poll_now().unwrap();
    barrier(handle);
    assert_eq!(handle.child("child").unwrap().status, ChildStatus::GaveUp);
    handle.reset("child").unwrap();
    assert_eq!(strings.next_run().1, 0);
    // Being healthy gives it all its restarts back.
    for _ in 0..2 {
        strings.act(Act::Fail("no"));
        strings.next_run();
    }
    strings.act(Act::MarkHealthy);
    strings.act(Act::Fail("no"));
    assert_eq!(strings.next_run().1, 1);
    strings.act(Act::Fail("no"));
    strings.next_run();
    strings.act(Act::Fail("no"));
    wait_status(handle, "child", ChildStatus::GaveUp);
    handle.restart("child").unwrap();
    assert_eq!(strings.next_run().1, 0);
}

#[test]
fn child_without_a_restart_to_spare_is_given_up_at_its_first_failure() {
    let (child, strings) = puppet("child");
    let backoff = Backoff::from_fn(|_| panic!("nobody asks"));
    let (supervisor, recorder) = supervise(child.max_restarts(0).backoff(backoff), Duration::ZERO);
    strings.next_run();
    strings.act(Act::Return);
    wait_status(supervisor.handle(), "child", ChildStatus::GaveUp);
    recorder.wait_for("child", "gave up", 1);
    assert_eq!(recorder.story("child"), ["start 0", "stop exited 0", "gave up"]);
}

#[test]
fn significant_child_that_is_given_up_takes_the_supervisor_with_it() {
    let (child, strings) = puppet("heart");
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(child.max_restarts(1).significant(true))
        .child(idler("limb"))
        .start()
        .unwrap();
    strings.act(Act::Fail("first"));
    strings.act(Act::Fail("last"));
    let report = supervisor.wait();
    let ShutdownCause::GaveUp(child) = &report.cause else { panic!("{report}") };
    assert_eq!((child.id.as_str(), child.exit.message()), ("heart", Some("last")));
    assert!(!report.is_clean() && report.unstopped.is_empty(), "{report}");
    assert_eq!(recorder.story("limb"), ["start 0", "stop shutdown 0"]);
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn child_without_a_limit_is_restarted_for_ever() {
    let (supervisor, recorder) =
        supervise(ChildSpec::new("child", |_| Err("no".into())), Duration::ZERO);
    recorder.wait_for("child", "start", 1001);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    check_trace(&recorder.events(), Some(&report), false);
}
