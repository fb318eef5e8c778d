//! Faults that were found by attacking the library, each of which has its test here.

use std::{
    cell::RefCell,
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    ChildSpec, ChildStatus, EventKind, ShutdownCause, StopCause, Supervisor,
};
use crossbeam_channel::{never, unbounded};

use crate::{subprocess::*, support::*};

/// What a child's failed starts leave behind is kept until there is a thread, which may be never.
#[test]
fn failed_starts_take_no_memory() {
    if !is_inside() {
        println!("{}", run_to_the_end(again("past_faults::failed_starts_take_no_memory")).out);
        return;
    }
    let failures = Arc::new(AtomicU64::new(0));
    let counted = failures.clone();
    let supervisor = Supervisor::builder()
        .on_event(move |event| {
            if matches!(event.kind, EventKind::Stopped { .. }) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        })
        .child(idler("none").stack_size(IMPOSSIBLE_STACK))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    let flood = |count: u64| {
        let until = failures.load(Ordering::SeqCst) + count;
        while failures.load(Ordering::SeqCst) < until {
            handle.restart("none").unwrap();
            thread::yield_now();
        }
    };
    flood(2_000);
    let before = resident();
    flood(50_000);
    let grown = resident().saturating_sub(before);
    println!("grown by {grown} KiB over 50000 failed starts");
    drop(supervisor);
    assert!(grown < 2 << 10, "grown by {grown} KiB over 50000 failed starts");
    println!("{DONE}");
}

/// A supervisor thread that comes back after it was taken over tells of starts that nobody tried,
/// and of giving up.
#[test]
fn supervisor_that_comes_back_gives_nobody_up() {
    let recorder = Recorder::default();
    let (mut hold, bar) = gate();
    let (sender, held) = unbounded();
    let supervisor = Supervisor::builder()
        .on_event(move |event| {
            if event.id == "plug" && matches!(event.kind, EventKind::Started) {
                let _ = sender.send(());
                bar.wait();
            }
        })
        .telemetry(recorder.clone())
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    handle.add(idler("plug")).unwrap();
    take(&held);
    handle.add(idler("late").max_restarts(0).significant(true)).unwrap();
    let report = supervisor.shutdown_within(Duration::ZERO);
    assert!(!report.has_ended && matches!(report.cause, ShutdownCause::Requested), "{report}");
    hold.open();
    let report = handle.wait_until_stopped(DEADLINE).unwrap();
    println!("{report}\n{:?}", recorder.story("late"));
    assert!(matches!(report.cause, ShutdownCause::Requested), "{report}");
    assert!(recorder.story("late").is_empty());
}

/// After `hold` has returned there is a new run all the same, if only a failed one.
#[test]
fn no_start_is_tried_after_hold_has_returned() {
    let recorder = Recorder::default();
    let (mut holds, bars): (Vec<_>, Vec<_>) = (0..2).map(|_| gate()).unzip();
    let (sender, held) = unbounded();
    let supervisor =
        Supervisor::builder()
            .on_event(move |event| {
                // Holds the supervisor thread until both backoffs are over, and then at the start of
                // the first of them.
                let place = match &event.kind {
                    EventKind::Ordered { .. } if event.id == "plug" => 0,
                    EventKind::Started if event.id == "first" && event.run == 2 => 1,
                    _ => return,
                };
                let _ = sender.send(());
                bars[place].wait();
            })
            .telemetry(recorder.clone())
            .backoff(constant(200 * MS))
            .child(ChildSpec::new("first", |ctx| {
                if ctx.run() == 1 { Err("no".into()) } else { idle(ctx) }
            }))
            .child(idler("none").stack_size(IMPOSSIBLE_STACK).backoff(constant(250 * MS)))
            .child(idler("plug"))
            .start()
            .unwrap();
    let handle = supervisor.handle().clone();
    recorder.wait_for("first", "stop", 1);
    handle.reset("plug").unwrap();
    take(&held);
    let _ = never::<()>().recv_timeout(400 * MS);
    holds[0].open();
    take(&held);
    handle.hold("none").unwrap();
    let run = handle.child("none").unwrap().run;
    holds[1].open();
    barrier(&handle);
    println!("{:?}", recorder.story("none"));
    let after = handle.child("none").unwrap().run;
    drop(supervisor);
    assert_eq!(after, run, "no run after `hold` has returned");
}

/// After a take-over, the body of a child that never ran is dropped on the supervisor thread.
#[test]
fn body_is_not_dropped_on_the_supervisor_thread_after_a_take_over() {
    let (mut hold, bar) = gate();
    let (sender, held) = unbounded();
    let (name_sender, dropped_on) = unbounded();
    let supervisor = Supervisor::builder()
        .name("the-supervisor")
        .on_event(move |event| {
            if event.id == "plug" && matches!(event.kind, EventKind::Started) {
                let _ = sender.send(());
                bar.wait();
            }
        })
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    let value = OnDrop(move || drop(name_sender.send(thread::current().name().map(str::to_owned))));
    let child = ChildSpec::new("held", move |ctx| {
        let _ = &value;
        idle(ctx)
    });
    handle.add(idler("plug")).unwrap();
    take(&held);
    handle.add(child).unwrap();
    let _ = supervisor.shutdown_within(Duration::ZERO);
    hold.open();
    let name = take(&dropped_on);
    println!("dropped on {name:?}");
    assert_ne!(name.as_deref(), Some("the-supervisor"));
}

/// Threads of one child pile up without bound.
#[test]
fn threads_of_one_child_are_bounded() {
    if !is_inside() {
        println!("{}", run_to_the_end(again("past_faults::threads_of_one_child_are_bounded")).out);
        return;
    }
    struct Linger(Bar);
    impl Drop for Linger {
        fn drop(&mut self) {
            self.0.wait();
        }
    }
    thread_local! {
        static LINGER: RefCell<Option<Linger>> = const { RefCell::new(None) };
    }
    let (mut hold, bar) = gate();
    let mut runs = 0;
    let before = thread_count();
    let (sender, refused) = unbounded();
    let supervisor = Supervisor::builder()
        .on_event(move |event| {
            if matches!(event.kind, EventKind::Stopped { cause: StopCause::NotSpawned, .. }) {
                let _ = sender.send(event.to_string());
            }
        })
        .backoff(constant(Duration::ZERO))
        .child(
            ChildSpec::new("child", move |ctx| {
                runs += 1;
                if runs > 2000 {
                    return idle(ctx);
                }
                LINGER.set(Some(Linger(bar.clone())));
                Err("no".into())
            })
            .fresh_thread(true),
        )
        .start()
        .unwrap();
    let text = take(&refused);
    assert!(text.contains("its earlier threads have not ended"), "{text}");
    let threads = thread_count() - before;
    hold.open();
    drop(supervisor);
    assert!(threads < 20, "{threads} threads");
    println!("{DONE}");
}

/// Children that a take-over has stopped are shown as running for as long as the supervisor thread
/// is stuck.
#[test]
fn children_that_a_take_over_has_stopped_are_not_shown_as_running() {
    let (mut hold, bar) = gate();
    let (sender, held) = unbounded();
    let supervisor = Supervisor::builder()
        .on_event(move |event| {
            if event.id == "plug" && matches!(event.kind, EventKind::Started) {
                let _ = sender.send(());
                bar.wait();
            }
        })
        .child(idler("idle"))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    handle.add(idler("plug")).unwrap();
    take(&held);
    let report = supervisor.shutdown();
    let child = handle.child("idle").unwrap();
    println!(
        "{report}\n{child}\n{}\n{:?}",
        handle.snapshot(),
        handle.wait_for("idle", SECOND, |child| !child.is_running()).map(drop)
    );
    hold.open();
    assert!(!child.is_running(), "{report}, but {child}");
}

/// The limit of a shutdown, with a supervisor thread that ends late and lingers.
#[test]
fn shutdown_with_a_limit_is_a_second_longer_at_most() {
    struct Linger(Bar);
    impl Drop for Linger {
        fn drop(&mut self) {
            self.0.wait();
        }
    }
    thread_local! {
        static LINGER: RefCell<Option<Linger>> = const { RefCell::new(None) };
    }
    let (_hold, bar) = gate();
    let supervisor = Supervisor::builder()
        .on_event(move |event| match event.kind {
            EventKind::Started => LINGER.set(Some(Linger(bar.clone()))),
            EventKind::Stopped { .. } => drop(never::<()>().recv_timeout(800 * MS)),
            _ => {}
        })
        .child(idler("idle"))
        .start()
        .unwrap();
    let since = Instant::now();
    let report = supervisor.shutdown_within(Duration::ZERO);
    let took = since.elapsed();
    // Not as long as both, of which the second began anew where the first was over.
    assert!(took < 1750 * MS, "{took:?}: {report}");
}

#[derive(Debug)]
struct Sticky(Bar);

impl fmt::Debug for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bar")
    }
}

impl Drop for Sticky {
    fn drop(&mut self) {
        self.0.wait();
    }
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sticky")
    }
}

impl Error for Sticky {}

/// A run whose body has not begun becomes healthy.
#[test]
fn run_is_not_healthy_before_its_body_has_begun() {
    let (_hold, bar) = gate();
    let mut values = vec![Sticky(bar)];
    let (sender, begun) = unbounded();
    let supervisor = Supervisor::builder()
        .backoff(constant(Duration::ZERO))
        .healthy_after(100 * MS)
        .stop_timeout(10 * MS)
        .child(ChildSpec::new("child", move |ctx| {
            let _ = sender.send(ctx.run());
            match ctx.run() {
                1 => Err(values.pop().unwrap().into()),
                2 => Err("another".into()),
                _ => idle(ctx),
            }
        }))
        .start()
        .unwrap();
    let child = supervisor
        .handle()
        .wait_for("child", DEADLINE, |child| child.status == ChildStatus::Healthy)
        .unwrap();
    let runs: Vec<_> = begun.try_iter().collect();
    assert!(runs.contains(&child.run), "{child}; bodies begun: {runs:?}");
}

/// A supervisor thread that comes back makes a shutdown wait for everybody's stop timeout once
/// more.
#[test]
fn stop_timeout_begins_once() {
    let (deaf, _deaf_gate, _runs) = stubborn("deaf");
    let (sender, held) = unbounded();
    let supervisor = Supervisor::builder()
        .on_event(move |event| {
            if event.id == "plug" && matches!(event.kind, EventKind::Started) {
                let _ = sender.send(());
                let _ = never::<()>().recv_timeout(3 * SECOND);
            }
        })
        .stop_timeout(2500 * MS)
        .child(deaf)
        .start()
        .unwrap();
    supervisor.handle().add(idler("plug")).unwrap();
    take(&held);
    let since = Instant::now();
    let report = supervisor.shutdown();
    let took = since.elapsed();
    // Stuck after 1 s, 2.5 s for the child, and a little; not 2.5 s from when the sink has
    // returned.
    assert!(took < 5400 * MS, "{took:?}: {report}");
}

/// The stop comes while a nested supervisor is being made.
#[test]
fn nested_supervisor_that_is_stopped_as_it_begins_does_not_take_a_second() {
    let (sender, begun) = unbounded();
    let supervisor = Supervisor::builder()
        .backoff(constant(Duration::ZERO))
        .child(ChildSpec::new("branch", move |ctx| {
            let _ = sender.send(());
            Supervisor::builder().telemetry(()).child(idler("leaf")).run(ctx)
        }))
        .telemetry(())
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    let mut dice = Dice(3);
    for _ in rounds(2000) {
        take(&begun);
        for _ in 0..dice.roll(3000) {
            std::hint::spin_loop();
        }
        let since = Instant::now();
        handle.hold("branch").unwrap();
        handle.wait_for("branch", DEADLINE, |child| !child.is_running()).unwrap();
        let took = since.elapsed();
        // A busy machine may take any time; just a second is that of a thread that waits for
        // itself.
        assert!(!(1000 * MS..1100 * MS).contains(&took), "{took:?}");
        while begun.try_recv().is_ok() {}
        handle.release("branch").unwrap();
    }
}

/// A child that ran is named as one that never did.
#[test]
fn last_run_of_a_child_is_named_whichever_of_its_threads_lingers() {
    struct Linger(Bar);
    impl Drop for Linger {
        fn drop(&mut self) {
            self.0.wait();
        }
    }
    thread_local! {
        static LINGER: RefCell<Option<Linger>> = const { RefCell::new(None) };
    }
    let (_hold, bar) = gate();
    let (sender, dropped) = unbounded();
    let value = OnDrop(move || {
        LINGER.set(Some(Linger(bar.clone())));
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
