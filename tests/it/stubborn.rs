//! Children that do not stop.

use std::{any::Any, cell::RefCell, thread, time::Duration};

use circuit_breaker_supervisor::{
    AddErrorReason, ChildSpec, ChildStatus, ConfigError, EventKind, OffBy, StopCause, Supervisor,
    UnstoppedPhase, WaitError,
};
use crossbeam_channel::{Sender, unbounded};

use crate::support::*;

#[test]
fn child_that_ignores_its_stop_is_named_by_the_report() {
    let recorder = Recorder::default();
    let (deaf, gate, started) = stubborn("ns01-deaf");
    let supervisor = Supervisor::builder()
        .poll_interval(MS)
        .enabled(|_| true)
        .telemetry(recorder.clone())
        .stop_timeout(100 * MS)
        .child(deaf)
        .start()
        .unwrap();
    let run = take(&started).run();
    let report = shut_down(supervisor, DEADLINE);
    let [unstopped] = &report.unstopped[..] else { panic!("{report}") };
    assert_eq!(
        (&*unstopped.id, unstopped.run, unstopped.phase),
        ("ns01-deaf", run, UnstoppedPhase::Running)
    );
    assert!(unstopped.stopping_for >= 100 * MS);
    assert_eq!(recorder.story("ns01-deaf"), ["start 0", "overdue"], "once, not once a poll");
    let EventKind::Overdue { stopping_for, .. } = recorder.of("ns01-deaf")[1].kind else {
        panic!("overdue")
    };
    assert!(stopping_for >= 100 * MS);
    // Once its gate opens, it ends without anybody's help.
    drop(gate);
    eventually("its thread ends", || threads_named("ns01-deaf") == 0);
    assert_eq!(recorder.events().len(), 2, "nothing is told after the end");
}

#[test]
fn good_children_are_not_named_beside_a_stuck_one() {
    let recorder = Recorder::default();
    let (deaf, _gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(idler("ns02-a"))
        .child(deaf.stop_timeout(50 * MS))
        .child(idler("ns02-b"))
        .start()
        .unwrap();
    take(&started);
    let report = shut_down(supervisor, DEADLINE);
    assert_eq!(unstopped(&report), ["deaf"], "{report}");
    eventually("the others' threads are gone", || {
        threads_named("ns02-a") + threads_named("ns02-b") == 0
    });
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn stuck_child_that_is_removed_keeps_its_id_until_it_ends() {
    let recorder = Recorder::default();
    let (deaf, gate, started) = stubborn("deaf");
    let (other, strings) = puppet("other");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(deaf.stop_timeout(20 * MS))
        .child(other)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    take(&started);
    handle.remove("deaf").unwrap();
    recorder.wait_for("deaf", "overdue", 1);
    assert!(matches!(handle.wait_until_gone("deaf", 20 * MS), Err(WaitError::TimedOut(Some(_)))));
    let error = handle.add(idler("deaf")).unwrap_err();
    assert!(
        matches!(error.reason(), AddErrorReason::Config(ConfigError::DuplicateId(_))),
        "{error}"
    );
    // Every other command is taken and revives nothing.
    for command in [
        handle.remove("deaf"),
        handle.restart("deaf"),
        handle.reset("deaf"),
        handle.release("deaf"),
    ] {
        command.unwrap();
    }
    for _ in 0..3 {
        strings.next_run();
        strings.act(Act::Fail("the loop goes on"));
    }
    strings.next_run();
    let child = handle.child("deaf").unwrap();
    assert_eq!(
        (child.status, child.stopping.map(|(cause, _)| cause), child.is_overdue),
        (ChildStatus::Stopping, Some(StopCause::Removed), true)
    );
    drop(gate);
    handle.wait_until_gone("deaf", DEADLINE).unwrap();
    assert_eq!(recorder.story("deaf"), ["start 0", "overdue", "stop removed 0"]);
    handle.add(idler("deaf")).unwrap();
    assert_eq!(recorder.wait_for("deaf", "start 0", 2).run, 1, "it is another child");
    assert!(matches!(
        supervisor.handle().wait_until_gone("deaf", Duration::ZERO),
        Err(WaitError::TimedOut(_))
    ));
    check_trace(&recorder.events(), None, true);
}

#[test]
fn waiting_for_a_stuck_child_ends_with_the_supervisor() {
    let (deaf, _gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder()
        .child(deaf.stop_timeout(20 * MS))
        .child(idler("good"))
        .start()
        .unwrap();
    take(&started);
    let handle = supervisor.handle().clone();
    handle.remove("good").unwrap();
    handle.wait_until_gone("good", DEADLINE).unwrap();
    handle.wait_until_gone("good", Duration::ZERO).unwrap();
    handle.remove("deaf").unwrap();
    let waiter = thread::spawn(move || handle.wait_until_gone("deaf", HOUR));
    assert_eq!(supervisor.shutdown().unstopped.len(), 1);
    assert!(matches!(waiter.join().unwrap(), Err(WaitError::Ended(_))));
}

#[test]
fn drop_of_what_a_body_made_or_captured_may_be_what_does_not_end() {
    let (gate, bar) = gate();
    let (sender, dropping) = unbounded();
    let blocking = |sender: &Sender<()>| {
        let (bar, sender) = (bar.clone(), sender.clone());
        OnDrop(move || {
            let _ = sender.send(());
            bar.wait();
        })
    };
    let captured = blocking(&sender);
    let (bar_of_local, sender_of_local) = (bar.clone(), sender.clone());
    thread_local! {
        static LAST_WORDS: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    }
    let (bar_of_thread, sender_of_thread) = (bar.clone(), sender.clone());
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .stop_timeout(1000 * MS)
        .child(ChildSpec::new("local", move |ctx| {
            let (bar, sender) = (bar_of_local.clone(), sender_of_local.clone());
            let _local = OnDrop(move || {
                let _ = sender.send(());
                bar.wait();
            });
            idle(ctx)
        }))
        .child(ChildSpec::new("captured", move |ctx| {
            let _ = &captured;
            idle(ctx)
        }))
        .child(ChildSpec::new("thread", move |ctx| {
            let (bar, sender) = (bar_of_thread.clone(), sender_of_thread.clone());
            let last = OnDrop(move || {
                let _ = sender.send(());
                bar.wait();
            });
            LAST_WORDS.set(Some(Box::new(last)));
            idle(ctx)
        }))
        .child(idler("good"))
        .start()
        .unwrap();
    let report = shut_down(supervisor, DEADLINE);
    let named: Vec<_> = report.unstopped.iter().map(|child| (&*child.id, child.phase)).collect();
    assert_eq!(
        named,
        [
            ("local", UnstoppedPhase::Running),
            ("captured", UnstoppedPhase::Dropping),
            ("thread", UnstoppedPhase::Ending)
        ],
        "{report}"
    );
    assert_eq!(dropping.len(), 3);
    // The body of the third had ended: its thread has not.
    assert_eq!(recorder.story("thread"), ["start 0", "stop shutdown 0"]);
    check_trace(&recorder.events(), Some(&report), false);
    drop(gate);
}

#[test]
fn stuck_child_that_ends_is_restarted_when_it_is_wanted_again() {
    let recorder = Recorder::default();
    let (deaf, mut gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .stop_timeout(MS)
        .child(deaf)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    take(&started);
    handle.restart("deaf").unwrap();
    recorder.wait_for("deaf", "overdue", 1);
    assert!(started.is_empty(), "one run at a time");
    gate.open();
    assert!(take(&started).run() > 1);
    assert_eq!(recorder.story("deaf")[..4], ["start 0", "overdue", "stop restarted 0", "start 0"]);
}

#[test]
fn run_that_outlives_its_supervisor_is_shown_as_down_once_it_has_ended() {
    let (deaf, mut gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder().child(deaf).start().unwrap();
    take(&started);
    let handle = supervisor.handle().clone();
    let report = supervisor.shutdown_within(Duration::ZERO);
    assert_eq!(report.unstopped.len(), 1, "{report}");
    let _ = handle.wait_until_stopped(DEADLINE).unwrap();
    let deaf = handle.child("deaf").unwrap();
    assert_eq!(
        (deaf.status, deaf.stopping.map(|(cause, _)| cause)),
        (ChildStatus::Stopping, Some(StopCause::Shutdown))
    );
    gate.open();
    eventually("its end is shown", || !handle.child("deaf").unwrap().is_running());
    let deaf = handle.child("deaf").unwrap();
    assert_eq!((deaf.status, deaf.uptime), (ChildStatus::Off { by: OffBy::Shutdown }, None));
    let stop = deaf.last_stop.unwrap();
    assert!(
        stop.cause == StopCause::Shutdown && stop.exit.is_completed() && !stop.failed,
        "{stop:?}"
    );
}

/// The body of a child may be dropped on a thread that has seen none of its runs. Where that thread
/// does not end, the report names the last run all the same.
#[test]
fn last_run_of_a_child_is_named_whichever_of_its_threads_lingers() {
    let (_hold, bar) = gate();
    let (sender, dropped) = unbounded();
    let value = OnDrop(move || {
        linger(&bar);
        let _ = sender.send(());
    });
    let child = ChildSpec::new("child", move |_| {
        let _ = &value;
        Err("no".into())
    });
    let supervisor = Supervisor::builder().child(child.max_restarts(0)).start().unwrap();
    wait_status(supervisor.handle(), "child", ChildStatus::GaveUp);
    // Its thread ends, so that the body has to be dropped on another one.
    eventually("its thread is gone", || threads_named("child") == 0);
    supervisor.handle().remove("child").unwrap();
    take(&dropped);
    let _ = supervisor.handle().wait_until_gone("child", DEADLINE);
    let report = supervisor.shutdown_within(100 * MS);
    println!("{report}");
    assert_eq!(report.unstopped[0].run, 1, "{report}");
}
