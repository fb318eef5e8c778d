//! Callbacks of `on_stop`: when they are called, and what one does that blocks or panics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{
    Callback, ChildSpec, ChildStatus, EventKind, OffBy, Supervisor, UnstoppedPhase,
};
use crossbeam_channel::{TryRecvError, bounded, unbounded};

use crate::support::*;

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

/// The first call comes before the body blocks, and so unblocks nothing.
#[test]
fn callback_that_repeats_unblocks_what_blocks_after_its_first_call() {
    let (unblock, blocked) = bounded(0);
    let (sender, calls) = unbounded();
    let first = calls.clone();
    let supervisor = Supervisor::builder()
        .stop_timeout(DEADLINE)
        .child(ChildSpec::new("child", move |ctx| {
            let (unblock, sender) = (unblock.clone(), sender.clone());
            let _unblock = ctx.on_stop_every(MS, move || {
                let _ = unblock.try_send(());
                let _ = sender.send(());
            });
            take(&first);
            // Only a second call ends this: the first has found nobody who waits.
            let _ = blocked.recv();
            Ok(())
        }))
        .start()
        .unwrap();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    let _ = calls.try_iter().count();
    assert_eq!(calls.try_recv(), Err(TryRecvError::Disconnected), "and no more afterwards");
}

#[test]
fn callback_that_repeats_is_called_in_its_turn_and_holds_up_no_other() {
    let (sender, calls) = unbounded();
    let (go, gate) = bounded::<()>(0);
    let (supervisor, recorder) = supervise(
        ChildSpec::new("child", move |ctx| {
            let [first, again, last] = [(); 3].map(|()| sender.clone());
            let _first = ctx.on_stop(move || first.send("first"));
            let _again = ctx.on_stop_every(MS, move || again.send("again"));
            let _last = ctx.on_stop(move || last.send("last"));
            let _ = gate.recv();
            Ok(())
        }),
        HOUR,
    );
    supervisor.handle().hold("child").unwrap();
    let seen: Vec<_> = calls.iter().take(6).collect();
    assert_eq!(seen[..3], ["first", "again", "last"]);
    assert_eq!(seen[3..], ["again"; 3]);
    drop(go);
    recorder.wait_for("child", "stop held", 1);
    let _ = calls.try_iter().count();
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(calls.iter().count(), 0, "not after the run");
}

#[test]
fn callback_that_repeats_and_was_set_after_the_stop_goes_on_until_its_guard_is_gone() {
    let (sender, calls) = unbounded();
    let (result, results) = unbounded();
    let supervisor = Supervisor::builder()
        .stop_timeout(DEADLINE)
        .child(ChildSpec::new("child", move |ctx| {
            let _ = ctx.stopped().recv();
            // Twice, since the thread that calls the first may have left when the second is set.
            for number in 0..2 {
                let (its, me) = (sender.clone(), thread::current().id());
                let guard =
                    ctx.on_stop_every(MS, move || its.send((number, thread::current().id() == me)));
                // In the second round, none is of the first.
                let _ = result.send([(); 4].map(|()| take(&calls)));
                drop(guard);
                let _ = calls.try_iter().count();
            }
            Ok(())
        }))
        .start()
        .unwrap();
    assert!(supervisor.shutdown().is_clean());
    let results: Vec<_> = results.try_iter().collect();
    let expected = [0, 1].map(|number| [true, false, false, false].map(|here| (number, here)));
    assert_eq!(results, expected);
}

#[test]
fn callback_that_repeats_is_not_called_if_the_run_ends_by_itself() {
    let (sender, calls) = unbounded();
    let (supervisor, recorder) = supervise(
        ChildSpec::new("child", move |ctx| {
            let sender = sender.clone();
            std::mem::forget(ctx.on_stop_every(MS, move || sender.send(())));
            Err("no".into())
        }),
        HOUR,
    );
    recorder.wait_for("child", "stop", 1);
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(calls.iter().count(), 0);
}

#[test]
fn callback_that_repeats_and_panics_is_reported_once_and_called_again() {
    let (go, gate) = bounded::<()>(0);
    let (sender, calls) = unbounded();
    let (supervisor, recorder) = supervise(
        ChildSpec::new("child", move |ctx| {
            let sender = sender.clone();
            let _guard = ctx.on_stop_every(MS, move || {
                let _ = sender.send(());
                panic!("in vain");
            });
            let _ = gate.recv();
            Ok(())
        }),
        HOUR,
    );
    supervisor.handle().hold("child").unwrap();
    for _ in 0..3 {
        take(&calls);
    }
    recorder.wait_for("child", "panic on_stop", 1);
    drop(go);
    wait_off(supervisor.handle(), "child", OffBy::Operator);
    assert_eq!(recorder.count("child", "panic on_stop"), 1);
    assert!(supervisor.shutdown().is_clean());
}
