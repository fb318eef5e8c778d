//! Children that do not stop, and end their supervisor.

use std::{
    process::{ExitCode, Termination},
    time::Duration,
};

use circuit_breaker_supervisor::{
    ChildSpec, EventKind, Handle, ShutdownCause, ShutdownReport, StartErrorReason, Supervisor,
    Unstopped, UnstoppedPhase,
};
use crossbeam_channel::unbounded;

use crate::support::*;

/// The child that ended the supervisor.
#[track_caller]
fn culprit(report: &ShutdownReport) -> &Unstopped {
    let ShutdownCause::Abandoned(child) = &report.cause else { panic!("{report}") };
    child
}

#[test]
fn simulated_child_is_abandoned_to_the_millisecond_and_the_rest_is_shut_down() {
    let limit = 30 * SECOND;
    let mut simulation = simulate(
        Supervisor::builder()
            .child(unused("db"))
            .child(unused("deaf").watchdog(HOUR).abandon_after(limit).after("db"))
            .child(unused("other")),
    );
    simulation.ignore_stop_for("deaf", HOUR);
    simulation.advance(Duration::ZERO);
    simulation.mark_healthy("db").unwrap();
    simulation.advance(SECOND);
    simulation.heartbeat("deaf", "asking the PLC").unwrap();
    simulation.handle().restart("deaf").unwrap();
    simulation.advance(limit - MS);
    let handle = simulation.handle().clone();
    let deaf = seen(&simulation, "deaf");
    assert!(handle.snapshot().is_running && deaf.is_overdue);
    assert!(deaf.to_string().ends_with("ago, overdue, while asking the PLC"), "{deaf}");
    simulation.advance(MS);
    let since = simulation.events().iter().position(|event| word(event) == "abandoned").unwrap();
    let words: Vec<_> = simulation.events()[since..]
        .iter()
        .map(|event| format!("{} {}", event.id, word(event)))
        .collect();
    assert_eq!(words, ["deaf abandoned", "other stop shutdown 0"]);
    let event = &simulation.events()[since];
    let EventKind::Abandoned { stopping_for, .. } = event.kind else { panic!("{event}") };
    assert_eq!(stopping_for, limit);
    assert_eq!(
        event.to_string(),
        "child `deaf` is abandoned: it was asked to stop 30.0 s ago and has not stopped, while \
         asking the PLC; only the end of the process ends it"
    );
    // It has its stop timeout once more, and `db` waits for it.
    simulation.advance(5 * SECOND - MS);
    assert!(handle.wait_until_stopped(Duration::ZERO).is_err());
    simulation.advance(MS);
    let report = handle.wait_until_stopped(Duration::ZERO).unwrap();
    assert!(!report.is_clean());
    assert_eq!(culprit(&report).stopping_for, limit);
    assert_eq!(unstopped(&report), ["deaf"]);
    assert_eq!(
        report.to_string(),
        "shut down because a child was abandoned, `deaf` (run 1, asked 30.0 s ago, running, while \
         asking the PLC); 1 did not stop: `deaf` (run 1, asked 35.0 s ago, running, while asking \
         the PLC)"
    );
    check_trace(simulation.events(), Some(&report), true);
}

/// Whoever asks for the stop, and for whatever reason.
#[test]
fn whatever_a_child_is_asked_to_stop_for_it_may_be_abandoned() {
    let reasons: [fn(&Handle); 5] = [
        |handle| handle.hold("deaf").unwrap(),
        |handle| handle.restart("deaf").unwrap(),
        |handle| handle.remove("deaf").unwrap(),
        |handle| handle.breaker("deaf").unwrap().report_failure("no"),
        |handle| handle.poll_now().unwrap(),
    ];
    for (number, ask) in reasons.into_iter().enumerate() {
        let recorder = Recorder::default();
        let (deaf, gate, started) = stubborn("deaf");
        let (flags, asked) = unbounded();
        let supervisor = Supervisor::builder()
            .telemetry(recorder.clone())
            .poll_interval(HOUR)
            .enabled(move |id| {
                let is_on = id != "deaf" || number != 4 || flags.is_empty();
                if id == "deaf" {
                    let _ = flags.send(());
                }
                is_on
            })
            .child(idler("other"))
            .child(deaf.stop_timeout(MS).failure_threshold(1).abandon_after(20 * MS))
            .start()
            .unwrap();
        take(&started);
        ask(supervisor.handle());
        let report = supervisor.wait();
        let child = culprit(&report);
        assert_eq!(
            (child.id.as_str(), child.run, child.phase),
            ("deaf", 1, UnstoppedPhase::Running)
        );
        assert!(child.stopping_for >= 20 * MS);
        assert_eq!(child.thread.is_some(), can_look_at_threads());
        assert_eq!(unstopped(&report), ["deaf"], "all others have stopped");
        assert_eq!(recorder.count("deaf", "abandoned"), 1);
        assert_eq!(recorder.story("other").last().unwrap(), "stop shutdown 0");
        drop((gate, asked));
    }
}

#[test]
fn child_that_hangs_and_hears_nothing_is_abandoned() {
    let (gate, bar) = gate();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .stop_timeout(MS)
        .child(
            ChildSpec::new("stuck", move |ctx| {
                ctx.heartbeat("reading");
                bar.wait();
                Ok(())
            })
            .watchdog(10 * MS)
            .abandon_after(20 * MS),
        )
        .start()
        .unwrap();
    let report = supervisor.wait();
    assert_eq!(culprit(&report).id, "stuck");
    let story = recorder.story("stuck");
    assert_eq!(story, ["start 0", "hung reading", "overdue", "abandoned"]);
    drop(gate);
}

/// A child at the bottom of three supervisors, and the handle of the innermost.
fn tree(deaf: ChildSpec, recorder: &Recorder) -> (Supervisor, crossbeam_channel::Receiver<Handle>) {
    let (sender, handles) = unbounded();
    let mut deaf = Some(deaf);
    let outermost = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(idler("other"))
        .child(
            ChildSpec::new("outer", move |ctx| {
                let (sender, deaf) = (sender.clone(), deaf.take());
                let inner = ChildSpec::once("inner", move |ctx| {
                    let builder = Supervisor::builder().stop_timeout(20 * MS).children(deaf);
                    let builder = builder.child(ChildSpec::new("guide", move |ctx| {
                        let _ = sender.send(ctx.supervisor().clone());
                        idle(ctx)
                    }));
                    builder.run(ctx)
                });
                Supervisor::builder().stop_timeout(20 * MS).child(inner).run(ctx)
            })
            .stop_timeout(20 * MS),
        )
        .start()
        .unwrap();
    (outermost, handles)
}

#[test]
fn child_of_a_branch_ends_the_outermost_supervisor() {
    for is_branch_stopped in [false, true] {
        let recorder = Recorder::default();
        let (deaf, gate, started) = stubborn("deaf");
        let (outermost, handles) = tree(deaf.abandon_after(50 * MS), &recorder);
        take(&started);
        let innermost = take(&handles);
        // Once while the branches run, and once while one of them is being stopped.
        let id = if is_branch_stopped { "outer" } else { "outer/inner/deaf" };
        outermost.handle().restart(id).unwrap();
        let report = outermost.wait();
        let child = culprit(&report);
        assert_eq!(child.id, "outer/inner/deaf", "the whole path");
        assert_eq!(unstopped(&report), ["outer"], "{report}");
        assert_eq!(recorder.count("outer/inner/deaf", "abandoned"), 1);
        assert_eq!(recorder.story("other").last().unwrap(), "stop shutdown 0");
        // Of the others, none gave a cause.
        drop(gate);
        let report = innermost.wait_until_stopped(DEADLINE).unwrap();
        assert!(matches!(report.cause, ShutdownCause::Requested), "{report}");
    }
}

#[test]
fn nobody_is_abandoned_once_the_outermost_supervisor_shuts_down() {
    let recorder = Recorder::default();
    let (deaf, gate, started) = stubborn("deaf");
    let (outermost, _handles) = tree(deaf.stop_timeout(10 * MS).abandon_after(MS), &recorder);
    take(&started);
    outermost.handle().request_shutdown();
    // By then it would have been abandoned for long.
    recorder.wait_for("outer/inner/deaf", "overdue", 1);
    drop(gate);
    let report = outermost.wait();
    assert!(matches!(report.cause, ShutdownCause::Requested), "{report}");
    assert_eq!(recorder.count("outer/inner/deaf", "abandoned"), 0);
}

#[test]
fn of_several_stubborn_children_one_ends_the_supervisor() {
    let recorder = Recorder::default();
    let (children, gates): (Vec<_>, Vec<_>) = (0..5)
        .map(|number| {
            let (deaf, gate, started) = stubborn(&format!("deaf-{number}"));
            (deaf.abandon_after(20 * MS), (gate, started))
        })
        .unzip();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .stop_timeout(10 * MS)
        .children(children)
        .start()
        .unwrap();
    for (number, (_, started)) in gates.iter().enumerate() {
        take(started);
        supervisor.handle().hold(&format!("deaf-{number}")).unwrap();
    }
    let report = supervisor.wait();
    assert!(culprit(&report).id.starts_with("deaf-"));
    assert_eq!(report.unstopped.len(), 5);
    let told = recorder.events().iter().filter(|event| word(event) == "abandoned").count();
    assert_eq!(told, 1);
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn child_that_stops_late_but_in_time_is_not_abandoned() {
    let (deaf, gate, started) = stubborn("deaf");
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(deaf.stop_timeout(MS).abandon_after(HOUR))
        .child(idler("never").abandon_after(Duration::MAX))
        .start()
        .unwrap();
    take(&started);
    supervisor.handle().restart("deaf").unwrap();
    recorder.wait_for("deaf", "overdue", 1);
    drop(gate);
    recorder.wait_for("deaf", "start", 2);
    // One with such a stop timeout may be named as unstopped.
    assert!(matches!(supervisor.shutdown().cause, ShutdownCause::Requested));
}

#[test]
fn time_of_zero_is_an_error_that_names_the_child() {
    let error = Supervisor::builder()
        .child(idler("hasty").abandon_after(Duration::ZERO))
        .start()
        .unwrap_err();
    assert!(matches!(error.reason(), StartErrorReason::Config(_)));
    assert_eq!(
        error.to_string(),
        "cannot start the supervisor: the `abandon_after` of the child \"hasty\" is zero"
    );
}

#[test]
fn report_on_an_abandoned_child_makes_an_exit_code_of_1() {
    let (deaf, _gate, started) = stubborn("deaf");
    let supervisor =
        Supervisor::builder().child(deaf.stop_timeout(MS).abandon_after(20 * MS)).start().unwrap();
    take(&started);
    supervisor.handle().restart("deaf").unwrap();
    assert_eq!(supervisor.wait().report(), ExitCode::from(1));
}

/// The supervisor thread is late: the end of the run waits in its inbox.
#[test]
fn run_that_has_ended_is_not_abandoned_before_that_is_known() {
    let recorder = Recorder::default();
    let (deaf, gate, started) = stubborn("ended");
    let (hold, bar) = self::gate();
    let (sender, held) = unbounded();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .on_event(move |event| {
            // Behind the stop request.
            if word(event) == "order hold" {
                let _ = sender.send(());
                bar.wait();
            }
        })
        .child(deaf.fresh_thread(true).stop_timeout(HOUR).abandon_after(MS))
        .start()
        .unwrap();
    take(&started);
    supervisor.handle().hold("ended").unwrap();
    take(&held);
    drop(gate);
    // A fresh thread leaves after its run, of which it has told by then.
    eventually("its thread is gone", || threads_named("ended") == 0);
    drop(hold);
    recorder.wait_for("ended", "stop held", 1);
    assert_eq!(recorder.count("ended", "abandoned"), 0);
    assert!(supervisor.shutdown().is_clean());
}
