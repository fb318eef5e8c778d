//! Children that will not stop, and the callbacks that make them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{
    AddErrorReason, Callback, ChildContext, ChildSpec, ChildStatus, ConfigError, EventKind, OffBy,
    StopCause, Supervisor, UnstoppedPhase, WaitError,
};
use crossbeam_channel::{Sender, bounded, unbounded};

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
    // Let go, it ends without anybody's help.
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
    assert_eq!(report.unstopped.iter().map(|child| &*child.id).collect::<Vec<_>>(), ["deaf"]);
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
        (child.status, child.told_to_stop, child.is_overdue),
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
        static LAST_WORDS: std::cell::RefCell<Option<Box<dyn std::any::Any>>> = const { std::cell::RefCell::new(None) };
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
fn stuck_child_that_is_let_go_is_restarted_when_it_is_wanted_again() {
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

// ── Callbacks ──

#[test]
fn callbacks_end_a_blocked_call_in_the_order_in_which_they_were_set() {
    let (sender, called) = unbounded();
    let supervisor = Supervisor::builder()
        .stop_timeout(DEADLINE)
        .child(ChildSpec::new("reader", move |ctx| {
            let (close, socket) = bounded::<()>(0);
            let (one, two, three) = (sender.clone(), sender.clone(), sender.clone());
            let _first = ctx.on_stop(move || one.send("first"));
            let taken_back = ctx.on_stop(move || two.send("taken back"));
            let _last = ctx.on_stop(move || {
                let _ = three.send("last");
                drop(close);
            });
            drop(taken_back);
            let _ = sender.send("ready");
            let _ = socket.recv();
            Ok(())
        }))
        .start()
        .unwrap();
    assert_eq!(take(&called), "ready");
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert_eq!(called.try_iter().collect::<Vec<_>>(), ["first", "last"]);
}

#[test]
fn callback_that_is_set_after_the_stop_is_called_at_once_by_its_setter() {
    let (sender, threads) = unbounded();
    let (ready, begun) = unbounded();
    let supervisor = Supervisor::builder()
        .child(ChildSpec::new("late", move |ctx| {
            let _ = ready.send(());
            let _ = ctx.sleep(Duration::MAX);
            let its = sender.clone();
            let called = Arc::new(AtomicBool::new(false));
            let flag = called.clone();
            let _guard = ctx.on_stop(move || {
                flag.store(true, Ordering::SeqCst);
                its.send(thread::current().id())
            });
            let _ = sender.send(if called.load(Ordering::SeqCst) {
                thread::current().id()
            } else {
                panic!("not at once")
            });
            Ok(())
        }))
        .start()
        .unwrap();
    take(&begun);
    assert!(supervisor.shutdown().is_clean());
    let (by, of) = (take(&threads), take(&threads));
    assert_eq!(by, of);
}

#[test]
fn callbacks_are_not_called_at_the_end_of_a_run_that_nobody_stopped() {
    let (sender, called) = unbounded();
    let drops = Drops::default();
    let its = drops.clone();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(HOUR))
        .child(ChildSpec::new("child", move |ctx| {
            let (token, sender) = (its.token(), sender.clone());
            // Left behind, so that the end of the run finds it set.
            std::mem::forget(ctx.on_stop(move || {
                let _ = &token;
                sender.send(())
            }));
            panic!("before any stop")
        }))
        .start()
        .unwrap();
    wait_status(supervisor.handle(), "child", ChildStatus::BackingOff);
    assert_eq!(drops.count(), 1, "it is dropped with the run");
    assert!(supervisor.shutdown().is_clean());
    assert!(called.is_empty());
}

#[test]
fn taking_back_a_callback_waits_while_it_is_called() {
    let (sender, order) = unbounded();
    let (gate, bar) = gate();
    let supervisor = Supervisor::builder()
        .stop_timeout(DEADLINE)
        .child(ChildSpec::new("child", move |ctx| {
            let (its, bar) = (sender.clone(), bar.clone());
            let guard = ctx.on_stop(move || {
                let _ = its.send("called");
                bar.wait();
                its.send("returned")
            });
            let _ = sender.send("set");
            let _ = ctx.sleep(Duration::MAX);
            // Only once it is being called: a guard that is dropped sooner takes it back.
            while sender.len() < 2 {
                thread::yield_now();
            }
            let _ = sender.send("dropping");
            drop(guard);
            let _ = sender.send("dropped");
            Ok(())
        }))
        .start()
        .unwrap();
    eventually("it is set", || order.len() == 1);
    supervisor.handle().request_shutdown();
    eventually("the drop has begun", || order.len() == 3);
    drop(gate);
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(
        order.try_iter().collect::<Vec<_>>(),
        ["set", "called", "dropping", "returned", "dropped"]
    );
}

#[test]
fn callback_that_blocks_makes_its_own_child_overdue_and_delays_no_other() {
    let recorder = Recorder::default();
    let (gate, bar) = gate();
    let (sender, ready) = unbounded();
    let (other, strings) = puppet("other");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(
            ChildSpec::new("child", move |ctx| {
                let (bar, called) = (bar.clone(), bounded(1));
                let _guard = ctx.on_stop(move || {
                    let _ = called.0.send(());
                    bar.wait();
                });
                let _ = sender.send(());
                called.1.recv()?;
                Ok(())
            })
            .stop_timeout(20 * MS),
        )
        .child(other)
        .start()
        .unwrap();
    take(&ready);
    let handle = supervisor.handle();
    handle.hold("child").unwrap();
    recorder.wait_for("child", "overdue", 1);
    for _ in 0..5 {
        strings.next_run();
        strings.act(Act::Fail("no"));
    }
    strings.next_run();
    assert_eq!(handle.child("child").unwrap().status, ChildStatus::Stopping);
    drop(gate);
    wait_off(handle, "child", OffBy::Operator);
    // Not necessarily clean: the little time that the child is given is its thread's as well.
    let _ = supervisor.shutdown();
    assert_eq!(recorder.story("child"), ["start 0", "overdue", "stop held 0"]);
}

#[test]
fn stuck_callback_is_named_by_the_report() {
    let (_gate, bar) = gate();
    let (sender, ready) = unbounded();
    let supervisor = Supervisor::builder()
        .stop_timeout(50 * MS)
        .child(ChildSpec::new("child", move |ctx| {
            let (bar, called) = (bar.clone(), bounded(1));
            let guard = ctx.on_stop(move || {
                let _ = called.0.send(());
                bar.wait();
            });
            let _ = sender.send(());
            called.1.recv()?;
            // The body itself would be ready to go.
            std::mem::forget(guard);
            Ok(())
        }))
        .start()
        .unwrap();
    take(&ready);
    let report = supervisor.shutdown();
    let [unstopped] = &report.unstopped[..] else { panic!("{report}") };
    assert_eq!((&*unstopped.id, unstopped.phase), ("child", UnstoppedPhase::InStopCallback));
    assert!(report.to_string().contains("in an `on_stop` callback"), "{report}");
}

#[test]
fn stuck_callback_that_was_set_too_late_is_named_as_well() {
    let (_gate, bar) = gate();
    let (entered, blocked) = unbounded();
    let supervisor = Supervisor::builder()
        .child(ChildSpec::new("child", move |ctx| {
            let _ = ctx.sleep(Duration::MAX);
            let (bar, entered) = (bar.clone(), entered.clone());
            let _guard = ctx.on_stop(move || {
                let _ = entered.send(());
                bar.wait();
            });
            Ok(())
        }))
        .start()
        .unwrap();
    supervisor.handle().hold("child").unwrap();
    take(&blocked);
    let report = supervisor.shutdown_within(Duration::ZERO);
    let phases: Vec<_> = report.unstopped.iter().map(|child| child.phase).collect();
    assert_eq!(phases, [UnstoppedPhase::InStopCallback], "{report}");
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
        (deaf.status, deaf.told_to_stop),
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

#[test]
fn panic_in_a_callback_is_told_and_the_next_are_called_all_the_same() {
    let recorder = Recorder::default();
    let (sender, told) = unbounded();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(ChildSpec::new("child", move |ctx| {
            let (called, its) = (bounded(1), sender.clone());
            let _bad = ctx.on_stop(|| panic!("cannot close"));
            let _good = ctx.on_stop(move || called.0.send(()));
            let _ = its.send(());
            called.1.recv()?;
            Ok(())
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    take(&told);
    handle.restart("child").unwrap();
    let panic = recorder.wait_for("child", "panic on_stop", 1);
    let EventKind::CallbackPanicked { callback, panic, .. } = panic.kind else { panic!("a panic") };
    assert_eq!((callback, panic.message()), (Callback::OnStop, "cannot close"));
    take(&told);
    // It panics every time, and that is told once.
    handle.restart("child").unwrap();
    take(&told);
    handle.hold("child").unwrap();
    wait_off(handle, "child", OffBy::Operator);
    barrier(handle);
    assert_eq!(recorder.count("child", "panic"), 1);
    check_trace(&recorder.events(), None, true);
}

#[test]
fn panic_of_a_callback_that_is_set_after_the_stop_stays_in_it() {
    let recorder = Recorder::default();
    let (sender, told) = unbounded();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(ChildSpec::new("child", move |ctx| {
            let _ = sender.send(());
            let _ = ctx.sleep(Duration::MAX);
            let _guard = ctx.on_stop(|| panic!("cannot close"));
            Ok(())
        }))
        .start()
        .unwrap();
    take(&told);
    supervisor.handle().restart("child").unwrap();
    take(&told);
    recorder.wait_for("child", "panic on_stop", 1);
    let stop = stop_of(&recorder.wait_for("child", "stop restarted", 1));
    assert!(stop.exit.is_completed());
}

#[test]
fn helpers_of_a_crashed_run_are_told_to_go() {
    let (sender, helpers) = unbounded();
    let supervisor = Supervisor::builder()
        .backoff(constant(Duration::ZERO))
        .child(ChildSpec::new("child", move |ctx| {
            let helper = ctx.clone();
            let handle = thread::spawn(move || {
                let _ = helper.stopped().recv();
                (helper.run(), helper.is_stopping(), helper.sleep(HOUR).is_err())
            });
            let _ = sender.send(handle);
            if ctx.failures() < 3 { panic!("no") } else { idle(ctx) }
        }))
        .start()
        .unwrap();
    let crashed: Vec<_> = (0..4).map(|_| take(&helpers)).collect();
    let mut helpers = crashed.into_iter();
    for run in 1..=3 {
        assert_eq!(helpers.next().unwrap().join().unwrap(), (run, true, true));
    }
    let last = helpers.next().unwrap();
    assert!(!last.is_finished(), "the helper of the present run is wanted");
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(last.join().unwrap(), (4, true, true));
}

#[test]
fn callbacks_of_helpers_count_as_the_childs() {
    let (sender, called) = unbounded();
    let supervisor = Supervisor::builder()
        .child(ChildSpec::new("child", move |ctx| {
            let (helper, sender, ready) = (ctx.clone(), sender.clone(), bounded(0));
            let handle = thread::spawn(move || {
                let (close, socket) = bounded::<()>(0);
                let _guard = helper.on_stop(move || drop(close));
                let _ = ready.0.send(());
                let _ = socket.recv();
                let _ = sender.send(());
            });
            ready.1.recv()?;
            ctx.supervisor().restart(ctx.id())?;
            handle.join().map_err(|_| "the helper panicked")?;
            idle(ctx)
        }))
        .start()
        .unwrap();
    take(&called);
    take(&called);
    drop(supervisor);
}

#[test]
fn context_is_debugged_without_what_it_guards() {
    let (sender, texts) = unbounded();
    let _supervisor = Supervisor::builder()
        .child(ChildSpec::new("child", move |ctx: &ChildContext| {
            let _guard = ctx.on_stop(|| ());
            let _ = sender.send(format!("{ctx:?} {_guard:?}"));
            idle(ctx)
        }))
        .start()
        .unwrap();
    assert!(
        take(&texts)
            .starts_with("ChildContext { id: \"child\", run: 1, failures: 0, is_stopping: false }")
    );
}
