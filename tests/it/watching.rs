//! Children that fall silent.

use std::{thread, time::Duration};

use circuit_breaker_supervisor::{
    ChildContext, ChildSpec, ChildStatus, ConfigError, EventKind, Exit, StartErrorReason,
    StopCause, Supervisor,
};
use crossbeam_channel::{bounded, never, unbounded};

use crate::support::*;

#[test]
fn silent_child_is_asked_to_stop_and_started_again() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(
            ChildSpec::new("reader", |ctx| {
                ctx.heartbeat("opening the port");
                ctx.heartbeat("reading the port");
                silent(ctx)
            })
            .watchdog(30 * MS)
            .backoff(constant(MS)),
        )
        .child(idler("neighbour"))
        .start()
        .unwrap();
    recorder.wait_for("reader", "start 1", 1);
    assert_eq!(
        recorder.story("reader")[..4],
        ["start 0", "hung reading the port", "stop hung 0", "start 1"]
    );
    let EventKind::Hung { doing, silent_for, .. } = recorder.wait_for("reader", "hung", 1).kind
    else {
        unreachable!()
    };
    assert_eq!(doing, "reading the port");
    assert!(silent_for >= 30 * MS);
    let stop = stop_of(&recorder.wait_for("reader", "stop", 1));
    assert_eq!((stop.cause, stop.retry_in), (StopCause::Hung, Some(MS)));
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(recorder.story("neighbour"), ["start 0", "stop shutdown 0"]);
}

#[test]
fn hanging_system_call_is_ended_by_its_callback() {
    let (ended, unblocked) = unbounded();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(HOUR))
        .child(
            ChildSpec::new("reader", move |ctx| {
                let (unblock, blocked) = unbounded();
                let _unblock = ctx.on_stop(move || unblock.send(()));
                ctx.heartbeat("blocking");
                blocked.recv()?;
                ended.send(())?;
                Ok(())
            })
            .watchdog(20 * MS),
        )
        .start()
        .unwrap();
    take(&unblocked);
    let reader = wait_status(supervisor.handle(), "reader", ChildStatus::BackingOff);
    assert_eq!(reader.failures, 1, "an `Ok` from a hung run is a failure too");
    assert!(
        reader.to_string().contains(
            "because it was silent for too long while blocking; 1 failure; tried again in 59 min"
        ),
        "{reader}"
    );
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn child_that_hangs_for_good_is_overdue_and_blocks_only_itself() {
    let (_gate, bar) = gate();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .stop_timeout(10 * MS)
        .child(
            ChildSpec::new("stuck", move |ctx| {
                ctx.heartbeat("reading the port");
                bar.wait();
                Ok(())
            })
            .watchdog(20 * MS),
        )
        .start()
        .unwrap();
    recorder.wait_for("stuck", "overdue", 1);
    assert_eq!(recorder.story("stuck"), ["start 0", "hung reading the port", "overdue"]);
    supervisor.handle().add(idler("later")).unwrap();
    recorder.wait_for("later", "start", 1);
    let snapshot = supervisor.handle().snapshot();
    assert!(!snapshot.is_healthy());
    assert!(
        snapshot.to_string().contains("it was silent for too long while reading the port, asked"),
        "{snapshot}"
    );
    drop(_gate);
    recorder.wait_for("stuck", "stop hung", 1);
    let _ = supervisor.shutdown();
}

#[test]
fn child_that_beats_is_left_alone_and_so_is_one_that_has_not_begun_to() {
    let (beats, counted) = unbounded();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(
            ChildSpec::new("busy", move |ctx| {
                loop {
                    ctx.heartbeat("working");
                    let _ = beats.send(());
                    // Only so that it does not take a core; nothing hopes for this time.
                    thread::sleep(MS);
                    if ctx.is_stopping() {
                        return Ok(());
                    }
                }
            })
            // Far more than a busy machine keeps a thread waiting; what matters is that it is
            // watched.
            .watchdog(20_000 * MS),
        )
        .child(ChildSpec::new("slow", idle).watchdog(MS))
        .start()
        .unwrap();
    for _ in 0..200 {
        take(&counted);
    }
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(recorder.story("busy"), ["start 0", "stop shutdown 0"]);
    assert_eq!(recorder.story("slow"), ["start 0", "stop shutdown 0"]);
}

#[test]
fn watchdog_of_zero_is_an_error_that_names_the_child() {
    let error =
        Supervisor::builder().child(idler("hasty").watchdog(Duration::ZERO)).start().unwrap_err();
    assert!(
        matches!(
            error.reason(),
            StartErrorReason::Config(ConfigError::ZeroWatchdog(id)) if *id == "hasty"
        ),
        "{error}"
    );
}

/// The waits of the context, each for longer than the watchdog's limit.
#[test]
fn wait_by_the_context_is_a_sign_of_life_from_its_begin_to_its_end() {
    type Wait = fn(&ChildContext) -> bool;
    let waits: [(&str, Wait); 4] = [
        ("sleep", |ctx| ctx.sleep(HOUR).is_ok()),
        ("recv", |ctx| ctx.recv(&never::<()>()).is_ok()),
        ("recv_timeout", |ctx| ctx.recv_timeout(&never::<()>(), HOUR).is_ok()),
        ("send", |ctx| {
            let (full, _receiver) = bounded(0);
            ctx.send(&full, ()).is_ok()
        }),
    ];
    let recorder = Recorder::default();
    let builder = Supervisor::builder().telemetry(recorder.clone()).backoff(constant(MS));
    let builder = waits.into_iter().fold(builder, |builder, (id, wait)| {
        builder.child(
            ChildSpec::new(id, move |ctx| {
                ctx.heartbeat("waiting");
                let _ = wait(ctx);
                Ok(())
            })
            .watchdog(20 * MS),
        )
    });
    let silent_one = ChildSpec::new("silent", |ctx| {
        ctx.heartbeat("nothing");
        silent(ctx)
    });
    let supervisor = builder.child(silent_one.watchdog(20 * MS)).start().unwrap();
    // It has the same watchdog as the others, so that these would have been bitten by then, too.
    recorder.wait_for("silent", "hung", 3);
    assert!(supervisor.shutdown().is_clean());
    for (id, _) in waits {
        assert_eq!(recorder.story(id), ["start 0", "stop shutdown 0"]);
    }
}

#[test]
fn waits_prove_nothing_once_another_thread_gives_the_heartbeats() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(
            ChildSpec::new("child", |ctx| {
                let helper = ctx.clone();
                thread::spawn(move || helper.heartbeat("helping")).join().unwrap();
                idle(ctx)
            })
            .watchdog(20 * MS)
            .backoff(constant(HOUR)),
        )
        .start()
        .unwrap();
    recorder.wait_for("child", "hung helping", 1);
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn waits_on_other_threads_and_without_a_heartbeat_count_for_nothing() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(
            ChildSpec::new("child", |ctx| {
                ctx.heartbeat("nothing");
                let helper = ctx.clone();
                thread::spawn(move || helper.sleep(HOUR));
                silent(ctx)
            })
            .watchdog(20 * MS)
            .backoff(constant(HOUR)),
        )
        .child(
            ChildSpec::new("unwatched", |ctx| {
                let _ = ctx.sleep(MS);
                silent(ctx)
            })
            .watchdog(20 * MS),
        )
        .start()
        .unwrap();
    recorder.wait_for("child", "hung nothing", 1);
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(recorder.story("unwatched"), ["start 0", "stop shutdown 0"]);
}

#[test]
fn child_that_is_given_up_for_hanging_says_so() {
    let supervisor = Supervisor::builder()
        .telemetry(())
        .child(
            ChildSpec::new("reader", |ctx| {
                ctx.heartbeat("reading");
                silent(ctx)
            })
            .watchdog(10 * MS)
            .max_restarts(0)
            .significant(true),
        )
        .start()
        .unwrap();
    let report = supervisor.wait();
    assert_eq!(
        report.to_string(),
        "shut down because child `reader` was given up: it was silent for too long; \
         all children stopped"
    );
}

#[test]
fn what_a_child_last_said_that_it_was_doing_is_shown_until_its_next_run() {
    let watched = unused("watched").watchdog(HOUR).backoff(constant(SECOND));
    let mut simulation = simulate(Supervisor::builder().child(watched).child(unused("unwatched")));
    assert_eq!(seen(&simulation, "watched").doing, None);
    for doing in ["reading", "writing", "reading"] {
        simulation.heartbeat("watched", doing).unwrap();
        assert_eq!(seen(&simulation, "watched").doing, Some(doing));
    }
    simulation.heartbeat("unwatched", "reading").unwrap();
    assert_eq!(seen(&simulation, "unwatched").doing, None, "without a watchdog nobody listens");
    simulation.exit("watched", Exit::failed("no")).unwrap();
    assert_eq!(seen(&simulation, "watched").doing, Some("reading"), "of its last run");
    simulation.advance(SECOND);
    assert!(seen(&simulation, "watched").is_running());
    assert_eq!(seen(&simulation, "watched").doing, None);
}

#[test]
fn helper_of_an_earlier_run_does_not_speak_for_the_present_one() {
    let (contexts, given) = unbounded();
    let supervisor = Supervisor::builder()
        .child(
            ChildSpec::new("child", move |ctx| {
                ctx.heartbeat(if ctx.run() == 1 { "the first" } else { "the second" });
                let _ = contexts.send(ctx.clone());
                idle(ctx)
            })
            .watchdog(HOUR),
        )
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let earlier: ChildContext = take(&given);
    assert_eq!(handle.child("child").unwrap().doing, Some("the first"));
    handle.restart("child").unwrap();
    let _present: ChildContext = take(&given);
    earlier.heartbeat("still at it");
    assert_eq!(handle.child("child").unwrap().doing, Some("the second"));
}
