//! Many children, many restarts, and many operators at a time.

mod denied_starts;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    Backoff, ChildContext, ChildSpec, EventKind, Handle, RestartPolicy, Supervisor,
};
use crossbeam_channel::unbounded;

use crate::support::*;

#[test]
fn two_thousand_children_may_end_at_once() {
    const CHILDREN: usize = 2000;
    let recorder = Recorder::default();
    let (gate, bar) = gate();
    let children = (0..CHILDREN).map(|number| {
        let bar = bar.clone();
        ChildSpec::new(number.to_string(), move |ctx| {
            if ctx.failures() > 0 {
                return idle(ctx);
            }
            bar.wait();
            if number % 2 == 0 { Ok(()) } else { Err("no".into()) }
        })
        .restart(if number % 4 == 0 { RestartPolicy::Transient } else { RestartPolicy::Permanent })
        .stack_size(1 << 16)
    });
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .stop_timeout(DEADLINE)
        .children(children)
        .start()
        .unwrap();
    assert_eq!(supervisor.handle().snapshot().counts().running, CHILDREN);
    drop(gate);
    recorder.wait_until(|events| events.len() == CHILDREN + CHILDREN + CHILDREN * 3 / 4);
    let counts = supervisor.handle().snapshot().counts();
    assert_eq!(
        (counts.children, counts.running, counts.finished),
        (CHILDREN, CHILDREN * 3 / 4, CHILDREN / 4)
    );
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn fifty_supervisors_of_twenty_children_do_not_mix() {
    thread::scope(|scope| {
        for number in 0..50u64 {
            scope.spawn(move || {
                let recorder = Recorder::default();
                // All supervisors use the same ids.
                let children = (0..20).map(|child| {
                    ChildSpec::new(child.to_string(), move |ctx| match (child + number) % 4 {
                        0 if ctx.failures() < 5 => panic!("no"),
                        1 if ctx.failures() < 5 => Err("no".into()),
                        2 if ctx.failures() < 5 => Ok(()),
                        _ => idle(ctx),
                    })
                    .stack_size(1 << 18)
                });
                let supervisor = Supervisor::builder()
                    .name(format!("stress-{number}"))
                    .telemetry(recorder.clone())
                    .backoff(Backoff::constant(MS).jitter(1.0).seed(number))
                    .stop_timeout(DEADLINE)
                    .children(children)
                    .start()
                    .unwrap();
                recorder.wait_until(|events| {
                    events.iter().filter(|event| word(event) == "start 5").count() == 15
                });
                let report = supervisor.shutdown();
                assert!(report.is_clean(), "{report}");
                let events = recorder.events();
                assert_eq!(events.len(), 15 * 12 + 5 * 2, "of its own children, and of no others");
                check_trace(&events, Some(&report), false);
            });
        }
    });
}

#[test]
fn twenty_thousand_restarts_need_no_more_threads_than_one() {
    // Fewer where the machine is busy: there is a time for them.
    const RESTARTS: u32 = 20_000;
    const TIME: Duration = Duration::from_secs(5);
    let (exclusive, enough) = (Exclusive::default(), Arc::new(AtomicBool::new(false)));
    let (its, is_enough) = (exclusive.clone(), enough.clone());
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .name("restarts-sup")
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(ChildSpec::new("restarts", move |ctx| {
            let _inside = its.enter();
            if ctx.failures() < RESTARTS && !is_enough.load(Ordering::SeqCst) {
                Err("no".into())
            } else {
                idle(ctx)
            }
        }))
        .start()
        .unwrap();
    let (mut most, since) = (0, Instant::now());
    while supervisor.handle().child("restarts").unwrap().failures < RESTARTS
        && since.elapsed() < TIME
    {
        most = most.max(threads_named("restarts"));
    }
    assert_eq!(most, 1);
    enough.store(true, Ordering::SeqCst);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert!(!exclusive.was_broken());
    check_trace(&recorder.events(), Some(&report), false);
}

/// A child that ends by itself again and again, in all ways, at odd moments.
fn restless(id: &str, exclusive: &Exclusive, seed: u64) -> ChildSpec {
    let (exclusive, mut dice) = (exclusive.clone(), Dice(seed));
    ChildSpec::new(id, move |ctx| {
        let _inside = exclusive.enter();
        let _guard = ctx.on_stop(|| ());
        dice.dawdle();
        match dice.roll(8) {
            0 => panic!("no"),
            1 | 2 => Err("no".into()),
            3 | 4 => Ok(()),
            5 => {
                ctx.mark_healthy();
                Err("no".into())
            }
            6 => Ok(ctx.sleep(Duration::from_micros(50))?),
            _ => idle(ctx),
        }
    })
}

#[test]
fn every_run_is_told_of_by_its_stop_or_by_the_report() {
    for round in rounds(1500) {
        let recorder = Recorder::default();
        let mut dice = Dice(round);
        let (sender, started) = unbounded();
        let children = (0..3).map(|number| {
            let (mut dice, sender) = (Dice(round * 3 + number), sender.clone());
            ChildSpec::new(number.to_string(), move |ctx| {
                let _ = sender.send(());
                let _ = ctx.sleep(Duration::MAX);
                dice.dawdle();
                Err("no".into())
            })
            .fresh_thread(number == 1)
        });
        let supervisor =
            Supervisor::builder().telemetry(recorder.clone()).children(children).start().unwrap();
        for _ in 0..3 {
            take(&started);
        }
        // So little time that some end just as they are given up on.
        let report = shut_down(supervisor, Duration::from_micros(dice.roll(60)));
        check_trace(&recorder.events(), Some(&report), false);
    }
}

#[test]
fn operators_who_disagree_do_no_harm() {
    let exclusive = [(); 3].map(|()| Exclusive::default());
    let recorder = Recorder::default();
    let (over, lies) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
    let flags = lies.clone();
    let children = exclusive
        .iter()
        .enumerate()
        .map(|(number, its)| restless(&number.to_string(), its, number as u64));
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .poll_interval(MS)
        .enabled(move |id| id.len() > 1 || flags.fetch_add(1, Ordering::Relaxed) % 3 > 0)
        .backoff(Backoff::from_fn(|attempt| Duration::from_micros(u64::from(attempt % 7) * 10)))
        .stop_timeout(DEADLINE)
        .healthy_after(Duration::from_micros(200))
        .children(children)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    thread::scope(|scope| {
        for operator in 0..8 {
            let (over, exclusive) = (over.clone(), &exclusive);
            scope.spawn(move || {
                let mut dice = Dice(operator);
                while !over.load(Ordering::SeqCst) {
                    let number = usize::try_from(dice.roll(3)).unwrap();
                    let id = number.to_string();
                    // An id may be gone at the moment, or taken.
                    let _ = match dice.roll(9) {
                        8 => {
                            if let Some(breaker) = handle.breaker(&id) {
                                breaker.report_failure("says an operator");
                            }
                            Ok(())
                        }
                        0 => handle.hold(&id),
                        1 | 2 => handle.release(&id),
                        3 => handle.restart(&id),
                        4 => handle.reset(&id),
                        5 => handle.poll_now(),
                        6 if dice.roll(4) == 0 => handle.remove(&id),
                        _ => {
                            let _ = handle.add(restless(&id, &exclusive[number], dice.roll(1000)));
                            Ok(())
                        }
                    };
                    dice.dawdle();
                    let _ = handle.child(&id);
                }
            });
        }
        let since = Instant::now();
        recorder
            .wait_until(|events| events.len() > 20_000 || since.elapsed() > Duration::from_secs(3));
        over.store(true, Ordering::SeqCst);
    });
    // After all of this it still does what it is told.
    for number in 0..3 {
        let id = number.to_string();
        let _ = handle.remove(&id);
        handle.wait_until_gone(&id, DEADLINE).unwrap();
    }
    handle.add(idler("sane")).unwrap();
    handle.wait_for("sane", DEADLINE, |child| child.is_running()).unwrap();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert!(!exclusive.iter().any(Exclusive::was_broken));
    check_trace(&recorder.events(), Some(&report), true);
}

#[test]
fn shutdown_is_not_behind_an_endless_stream_of_commands() {
    let over = AtomicBool::new(false);
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .enabled(|_| true)
        .children((0..50).map(|number| idler(&number.to_string())))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    thread::scope(|scope| {
        for command in [
            Handle::poll_now,
            |handle: &Handle| handle.reset("7"),
            |handle: &Handle| handle.hold("8"),
        ] {
            let (handle, over) = (&handle, &over);
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) && command(handle).is_ok() {
                    thread::yield_now();
                }
            });
        }
        barrier(&handle);
        let report = supervisor.shutdown_within(DEADLINE);
        over.store(true, Ordering::SeqCst);
        assert!(report.is_clean(), "{report}");
        check_trace(&recorder.events(), Some(&report), true);
    });
}

#[test]
fn stops_race_with_callbacks_being_set_and_taken_back() {
    let (sender, called) = unbounded();
    let supervisor = Supervisor::builder()
        .stop_timeout(DEADLINE)
        .child(ChildSpec::new("child", move |ctx: &ChildContext| {
            let mut dice = Dice(ctx.run());
            let counts: Vec<_> = (0..8).map(|_| Arc::new(AtomicU64::new(0))).collect();
            while !ctx.is_stopping() {
                let guards: Vec<_> = counts
                    .iter()
                    .map(|count| {
                        let count = count.clone();
                        ctx.on_stop(move || count.fetch_add(1, Ordering::SeqCst))
                    })
                    .collect();
                dice.dawdle();
                drop(guards);
            }
            let _ = sender
                .send(counts.iter().map(|count| count.load(Ordering::SeqCst)).collect::<Vec<_>>());
            Ok(())
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    for round in rounds(300) {
        // A restart of a run that is stopping already would ask for nothing new.
        handle
            .wait_for("child", DEADLINE, |child| child.run == round + 1 && child.is_running())
            .unwrap();
        Dice(round).dawdle();
        handle.restart("child").unwrap();
        let counts = take(&called);
        assert!(counts.iter().all(|count| *count <= 1), "each is called once at most: {counts:?}");
    }
    drop(supervisor);
}

#[test]
fn starts_of_all_kinds_pair_with_stops_over_the_life_of_a_process() {
    let recorder = Recorder::default();
    let threads = Arc::new(AtomicU64::new(0));
    let mut last_round = 0;
    for round in rounds(100) {
        last_round = round;
        let its = threads.clone();
        let supervisor = Supervisor::builder()
            .backoff(constant(Duration::ZERO))
            .telemetry(recorder.clone())
            .child(ChildSpec::once("once", |_| Ok(())))
            .child(ChildSpec::new("crash", move |ctx| {
                its.fetch_add(1, Ordering::SeqCst);
                let its = its.clone();
                let _ended = OnDrop(move || {
                    its.fetch_sub(1, Ordering::SeqCst);
                });
                if ctx.failures() < 3 { panic!("no") } else { idle(ctx) }
            }))
            .start()
            .unwrap();
        recorder.wait_for("crash", "start 3", usize::try_from(round).unwrap() + 1);
        assert!(supervisor.shutdown().is_clean());
        assert_eq!(threads.load(Ordering::SeqCst), 0, "no body runs any more");
    }
    // Of each round one of the child that runs once, and four of the other.
    let expected = 5 * (usize::try_from(last_round).unwrap() + 1);
    let events = recorder.events();
    let count =
        |wanted: fn(&EventKind) -> bool| events.iter().filter(|event| wanted(&event.kind)).count();
    assert_eq!(count(|kind| matches!(kind, EventKind::Started)), expected);
    assert_eq!(count(|kind| matches!(kind, EventKind::Stopped { .. })), expected);
}

#[test]
fn panic_of_a_callback_is_told_of_the_run_that_it_was_called_for() {
    let recorder = Recorder::default();
    let (sender, ready) = unbounded();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(ChildSpec::new("child", move |ctx| {
            let (run, (open, door)) = (ctx.run(), unbounded::<()>());
            let _guard = ctx.on_stop(move || {
                drop(open);
                // Every other one, so that each panic is told.
                if run % 2 == 1 {
                    std::panic::resume_unwind(Box::new(run.to_string()));
                }
            });
            let _ = sender.send(());
            let _ = door.recv();
            Ok(())
        }))
        .start()
        .unwrap();
    for _ in rounds(10_000) {
        take(&ready);
        supervisor.handle().restart("child").unwrap();
    }
    assert!(supervisor.shutdown().is_clean());
    for event in recorder.of("child") {
        if let EventKind::CallbackPanicked { panic, .. } = &event.kind {
            assert_eq!(panic.message(), event.run.to_string());
        }
    }
}
