//! Answers of a handle.

use std::{
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{
    ChildSpec, ChildStatus, CircuitState, CommandError, Counts, Handle, OffBy, RestartPolicy,
    Supervisor, Verdict, WaitError,
};

use crate::support::*;

/// Counts agree with the children that they count.
fn check_counts(handle: &Handle) -> Counts {
    let counts = handle.snapshot().counts();
    let Counts {
        children,
        running,
        on_trial,
        healthy,
        stopping,
        backing_off,
        off,
        due,
        finished,
        gave_up,
        ..
    } = counts;
    assert_eq!(running, on_trial + healthy + stopping, "{counts:?}");
    assert_eq!(children, running + backing_off + off + due + finished + gave_up, "{counts:?}");
    counts
}

#[test]
fn counts_agree_with_every_transition() {
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .backoff(constant(HOUR))
        .child(child.max_restarts(1))
        .child(idler("other"))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let counts = check_counts(handle);
    assert_eq!((counts.children, counts.on_trial), (2, 2));
    strings.act(Act::MarkHealthy);
    wait_status(handle, "child", ChildStatus::Healthy);
    assert_eq!((check_counts(handle).on_trial, check_counts(handle).healthy), (1, 1));
    strings.act(Act::Fail("no"));
    wait_status(handle, "child", ChildStatus::BackingOff);
    assert_eq!((check_counts(handle).running, check_counts(handle).backing_off), (1, 1));
    handle.hold("child").unwrap();
    wait_off(handle, "child", OffBy::Operator);
    assert_eq!((check_counts(handle).running, check_counts(handle).off), (1, 1));
    handle.release("child").unwrap();
    wait_status(handle, "child", ChildStatus::BackingOff);
    handle.reset("child").unwrap();
    wait_status(handle, "child", ChildStatus::OnTrial);
    strings.act(Act::Fail("no"));
    wait_status(handle, "child", ChildStatus::BackingOff);
    handle.restart("child").unwrap();
    for _ in 0..2 {
        strings.act(Act::Fail("no"));
        handle.wait_for("child", DEADLINE, |child| !child.is_running()).unwrap();
        if handle.child("child").unwrap().status == ChildStatus::BackingOff {
            break;
        }
    }
    handle.remove("child").unwrap();
    handle.wait_until_gone("child", DEADLINE).unwrap();
    assert_eq!((check_counts(handle).children, check_counts(handle).running), (1, 1));
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn list_keeps_the_order_of_adding_over_restarts() {
    let (a, strings) = puppet("a");
    let supervisor = Supervisor::builder()
        .backoff(constant(Duration::ZERO))
        .child(idler("c"))
        .child(a)
        .child(idler("b"))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let listed =
        || handle.snapshot().children.iter().map(|child| child.id.to_string()).collect::<Vec<_>>();
    assert_eq!(listed(), ["c", "a", "b"]);
    strings.next_run();
    strings.act(Act::Panic("no"));
    strings.next_run();
    assert_eq!(listed(), ["c", "a", "b"]);
    handle.remove("c").unwrap();
    handle.wait_until_gone("c", DEADLINE).unwrap();
    handle.add(idler("c")).unwrap();
    assert_eq!(listed(), ["a", "b", "c"], "what is added comes last, and is listed at once");
}

#[test]
fn unknown_child_is_told_from_known_ones() {
    let supervisor = Supervisor::builder().child(idler("known")).start().unwrap();
    let handle = supervisor.handle();
    handle.remove("known").unwrap();
    handle.wait_until_gone("known", DEADLINE).unwrap();
    for id in ["known", "", "nobody", "kno\0wn"] {
        assert!(handle.child(id).is_none());
        for command in [
            handle.hold(id),
            handle.release(id),
            handle.remove(id),
            handle.restart(id),
            handle.reset(id),
        ] {
            assert_eq!(command, Err(CommandError::UnknownId(id.into())));
        }
        assert!(matches!(
            handle.wait_for(id, HOUR, |_| true),
            Err(WaitError::UnknownId(unknown)) if unknown == id
        ));
        handle.wait_until_gone(id, HOUR).unwrap();
    }
}

#[test]
fn time_left_of_a_backoff_never_falls_below_zero() {
    let (gate, bar) = gate();
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .backoff(constant(20 * MS))
        // The supervisor thread is held up: the backoff ends, and nobody is there to start the
        // child.
        .on_event(move |event| {
            if word(event).starts_with("stop") {
                bar.wait();
            }
        })
        .child(child)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    strings.next_run();
    strings.act(Act::Fail("no"));
    wait_status(handle, "child", ChildStatus::BackingOff);
    eventually("the backoff is over", || {
        handle.child("child").unwrap().retry_in == Some(Duration::ZERO)
    });
    let child = handle.child("child").unwrap();
    assert!(child.to_string().contains("backing off"), "{child}");
    assert!(strings.runs.is_empty());
    drop(gate);
    assert_eq!(strings.next_run().1, 1);
}

#[test]
fn running_child_shows_its_run_and_uptime() {
    let (child, strings) = puppet("child");
    let slot: Arc<OnceLock<Handle>> = Arc::default();
    let its = slot.clone();
    let (sender, stops) = crossbeam_channel::unbounded();
    let supervisor = Supervisor::builder()
        .backoff(constant(50 * MS))
        .on_event(move |event| {
            if word(event).starts_with("stop") {
                let _ = sender.send(its.get().unwrap().child("child").unwrap());
            }
        })
        .child(child)
        .start()
        .unwrap();
    slot.set(supervisor.handle().clone()).unwrap();
    let handle = supervisor.handle();
    let (run, _) = strings.next_run();
    let first = handle.child("child").unwrap();
    assert_eq!((first.run, first.failures, first.circuit), (run, 0, CircuitState::Closed));
    assert!(first.last_stop.is_none() && first.retry_in.is_none() && first.stopping.is_none());
    eventually("the uptime rises", || handle.child("child").unwrap().uptime > first.uptime);
    strings.act(Act::Fail("no"));
    // As the sink saw it, before the backoff could end.
    let down = take(&stops);
    assert_eq!((down.uptime, down.run, down.circuit), (None, run, CircuitState::Open));
    assert!(down.status == ChildStatus::BackingOff && down.retry_in.unwrap() <= 50 * MS);
    let (next, _) = strings.next_run();
    let again = handle.child("child").unwrap();
    assert_eq!((again.run, again.failures, again.circuit), (next, 1, CircuitState::HalfOpen));
    assert!(again.last_stop.is_some());
    strings.act(Act::MarkHealthy);
    assert_eq!(wait_status(handle, "child", ChildStatus::Healthy).circuit, CircuitState::Closed);
    assert!(handle.snapshot().is_healthy());
}

#[test]
fn hot_looping_child_keeps_nobody_from_asking() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(ChildSpec::new("hot", |_| Ok(())))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..500 {
                    assert_eq!(check_counts(handle).children, 1);
                    let child = handle.child("hot").unwrap();
                    assert_eq!(child.is_running(), child.uptime.is_some(), "{child:?}");
                }
                handle.wait_for("hot", DEADLINE, |child| child.run > 100).unwrap();
            });
        }
    });
    let report = supervisor.shutdown();
    assert!(report.is_clean());
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn health_is_lost_by_failures_and_stuck_children_and_by_nothing_else() {
    let (child, strings) = puppet("child");
    let (deaf, mut gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder()
        .backoff(constant(Duration::ZERO))
        .child(child)
        .child(deaf.stop_timeout(MS))
        .child(ChildSpec::new("job", |_| Ok(())).restart(RestartPolicy::Transient))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    wait_status(handle, "job", ChildStatus::Finished);
    assert!(handle.snapshot().is_healthy(), "on trial for the first time, and finished, are well");
    take(&started);
    handle.hold("deaf").unwrap();
    handle.wait_for("deaf", DEADLINE, |child| child.is_overdue).unwrap();
    assert!(!handle.snapshot().is_healthy());
    gate.open();
    wait_off(handle, "deaf", OffBy::Operator);
    assert!(handle.snapshot().is_healthy());
    strings.next_run();
    strings.act(Act::Fail("no"));
    strings.next_run();
    assert!(!handle.snapshot().is_healthy(), "it runs again, and is not trusted yet");
    strings.act(Act::MarkHealthy);
    wait_status(handle, "child", ChildStatus::Healthy);
    assert!(handle.snapshot().is_healthy());
    handle.request_shutdown();
    assert!(!handle.snapshot().is_healthy());
}

#[test]
fn wait_that_times_out_shows_the_child_as_it_is() {
    let supervisor = Supervisor::builder().child(idler("child")).start().unwrap();
    let handle = supervisor.handle();
    for timeout in [Duration::ZERO, 5 * MS] {
        match handle.wait_for("child", timeout, |child| child.failures > 0) {
            Err(WaitError::TimedOut(Some(child))) => assert_eq!(child.status, ChildStatus::OnTrial),
            other => panic!("{other:?}"),
        }
        assert!(matches!(handle.wait_until_stopped(timeout), Err(WaitError::TimedOut(None))));
    }
}

#[test]
fn predicate_may_use_the_handle_and_panic() {
    let (child, strings) = puppet("child");
    let supervisor =
        Supervisor::builder().backoff(constant(Duration::ZERO)).child(child).start().unwrap();
    let handle = supervisor.handle();
    strings.act(Act::Fail("no"));
    let its = handle.clone();
    let child = handle
        .wait_for("child", DEADLINE, |child| {
            its.poll_now().unwrap();
            its.snapshot().counts().children == 1 && child.failures == 1 && child.is_running()
        })
        .unwrap();
    assert_eq!(child.failures, 1);
    let waiter = {
        let handle = handle.clone();
        thread::spawn(move || handle.wait_for("child", DEADLINE, |_| panic!("no")).is_ok())
    };
    assert!(waiter.join().is_err());
    strings.act(Act::Fail("no"));
    handle.wait_for("child", DEADLINE, |child| child.failures == 2).unwrap();
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn many_wait_for_one_child() {
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder().child(child).start().unwrap();
    let handle = supervisor.handle();
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| wait_status(handle, "child", ChildStatus::Healthy).failures))
            .collect();
        strings.act(Act::MarkHealthy);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 0);
        }
    });
}

#[test]
fn each_of_two_hundred_who_wait_for_one_child_gets_its_answer() {
    const WAITERS: u32 = 200;
    let (child, strings) = puppet("child");
    let supervisor =
        Supervisor::builder().backoff(constant(Duration::ZERO)).child(child).start().unwrap();
    let handle = supervisor.handle();
    let (run, _) = strings.next_run();
    let (look, looks) = crossbeam_channel::unbounded();
    let (answer, answers) = crossbeam_channel::unbounded();
    let waiters: Vec<_> = (0..WAITERS)
        .map(|number| {
            // Half of them are woken by the first failure for nothing, and wait on for the second.
            let failures = 1 + number % 2;
            let (handle, look, answer) = (handle.clone(), look.clone(), answer.clone());
            let wait = move || {
                let mut look = Some(look);
                // Far beyond the deadline of the test: the last look of a wait that is over would
                // find the answer as well.
                let child = handle.wait_for("child", HOUR, |child| {
                    if let Some(look) = look.take() {
                        look.send(child.run).unwrap();
                    }
                    child.failures >= failures && child.is_running()
                });
                let _ = answer.send(child.map(|child| (child.failures >= failures, child.run)));
            };
            thread::Builder::new().stack_size(128 * 1024).spawn(wait).unwrap()
        })
        .collect();
    for _ in 0..WAITERS {
        assert_eq!(take(&looks), run, "all of them have looked before it changes");
    }
    strings.act(Act::Fail("once"));
    strings.next_run();
    strings.act(Act::Fail("twice"));
    let (last, _) = strings.next_run();
    for _ in 0..WAITERS {
        let (has_failed, seen) = take(&answers).unwrap();
        assert!(has_failed && seen > run && seen <= last);
    }
    for waiter in waiters {
        waiter.join().unwrap();
    }
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn wait_for_health_ends_as_soon_as_all_are_well_or_down_on_purpose() {
    let (go, gate) = crossbeam_channel::unbounded::<()>();
    let supervisor = Supervisor::builder()
        .enabled(|id| id != "off")
        .child(ChildSpec::new("late", move |ctx| {
            ctx.recv(&gate)?;
            ctx.mark_healthy();
            idle(ctx)
        }))
        .child(idler("off"))
        .child(ChildSpec::new("done", |_| Ok(())).restart(RestartPolicy::Transient))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let error = handle.wait_until_healthy(20 * MS).unwrap_err();
    let WaitError::NotHealthy(children) = &error else { panic!("{error}") };
    assert!(children.iter().any(|child| child.id == "late"), "{error}");
    assert!(children.iter().all(|child| child.id != "off"), "{error}");
    let waiting = thread::spawn({
        let handle = handle.clone();
        move || handle.wait_until_healthy(DEADLINE)
    });
    go.send(()).unwrap();
    waiting.join().unwrap().unwrap();
    assert_eq!(handle.child("late").unwrap().status, ChildStatus::Healthy);
    // A child that is taken off the list, and one that is held, need not become well.
    handle.add(idler("held")).unwrap();
    handle.add(idler("gone")).unwrap();
    handle.hold("held").unwrap();
    handle.remove("gone").unwrap();
    handle.wait_until_healthy(DEADLINE).unwrap();
}

#[test]
fn wait_for_health_does_not_wait_for_a_child_that_is_given_up() {
    let supervisor = Supervisor::builder()
        .child(ChildSpec::new("lost", |_| Err(Verdict::give_up("no licence").into())))
        .start()
        .unwrap();
    let error = supervisor.handle().wait_until_healthy(HOUR).unwrap_err();
    assert!(error.to_string().contains("no licence"), "{error}");
}

#[test]
fn wait_for_health_names_all_who_are_not_and_ends_with_the_supervisor() {
    let supervisor = Supervisor::builder()
        .backoff(constant(HOUR))
        .child(ChildSpec::new("first", |_| Err("no queue".into())))
        .child(ChildSpec::new("last", |_| Err("no disk".into())))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    for id in ["first", "last"] {
        wait_status(&handle, id, ChildStatus::BackingOff);
    }
    let error = handle.wait_until_healthy(Duration::ZERO).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("not healthy: `first` is backing off"), "{text}");
    assert!(text.contains("no queue") && text.contains("; and `last`"), "{text}");
    assert_eq!(format!("{error:?}"), text, "as `main` prints it");
    let waiting = thread::spawn({
        let handle = handle.clone();
        move || handle.wait_until_healthy(Duration::MAX)
    });
    handle.request_shutdown();
    assert!(matches!(waiting.join().unwrap(), Err(WaitError::ShuttingDown)));
    assert!(supervisor.wait().is_clean());
    assert!(matches!(handle.wait_until_healthy(Duration::MAX), Err(WaitError::ShuttingDown)));
}
