//! Callbacks of a supervisor: where and how often they are called, and how long they live.

mod panics;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{Backoff, ChildSpec, OffBy, Supervisor};
use crossbeam_channel::{bounded, unbounded};

use crate::support::*;

#[test]
fn callbacks_are_called_on_one_thread_and_one_at_a_time() {
    let exclusive = Exclusive::default();
    let (sender, threads) = unbounded();
    let (flag, backoff, sink) = (
        (exclusive.clone(), sender.clone()),
        (exclusive.clone(), sender.clone()),
        exclusive.clone(),
    );
    let supervisor = Supervisor::builder()
        .poll_interval(Duration::from_micros(500))
        .enabled(move |_| {
            let _inside = flag.0.enter();
            thread::yield_now();
            flag.1.send(thread::current().id()).is_ok()
        })
        .backoff(Backoff::from_fn(move |_| {
            let _inside = backoff.0.enter();
            let _ = backoff.1.send(thread::current().id());
            Duration::ZERO
        }))
        .on_event(move |_| {
            let _inside = sink.enter();
            thread::yield_now();
            let _ = sender.send(thread::current().id());
        })
        .children(["a", "b", "c"].map(|id| ChildSpec::new(id, |_| Err("no".into()))))
        .start()
        .unwrap();
    supervisor.handle().wait_for("c", DEADLINE, |child| child.failures > 50).unwrap();
    assert!(supervisor.shutdown().is_clean());
    assert!(!exclusive.was_broken());
    let first = take(&threads);
    assert_ne!(first, thread::current().id());
    assert!(threads.try_iter().all(|thread| thread == first));
}

#[test]
fn what_callbacks_own_is_dropped_once_and_after_their_last_call() {
    for deaf in [false, true] {
        let drops = [(); 5].map(|()| Drops::default());
        let called_late = Arc::new(AtomicBool::new(false));
        let watched = |index: usize| {
            let (token, drops, late) =
                (drops[index].token(), drops[index].clone(), called_late.clone());
            move || {
                let _ = &token;
                if drops.count() > 0 {
                    late.store(true, Ordering::SeqCst);
                }
            }
        };
        let (flag, backoff, sink, own, body) =
            (watched(0), watched(1), watched(2), watched(3), watched(4));
        let (stuck, gate, started) = stubborn("deaf");
        let mut builder = Supervisor::builder()
            .enabled(move |_| {
                flag();
                true
            })
            .backoff(Backoff::from_fn(move |_| {
                backoff();
                Duration::ZERO
            }))
            .on_event(move |_| sink())
            .child(
                ChildSpec::new("child", move |ctx| {
                    body();
                    if ctx.failures() < 3 { Err("no".into()) } else { idle(ctx) }
                })
                .backoff(Backoff::from_fn(move |_| {
                    own();
                    Duration::ZERO
                })),
            );
        if deaf {
            builder = builder.child(stuck.stop_timeout(50 * MS));
        }
        let supervisor = builder.start().unwrap();
        if deaf {
            take(&started);
        }
        supervisor
            .handle()
            .wait_for("child", DEADLINE, |child| child.failures == 3 && child.is_running())
            .unwrap();
        assert_eq!(drops.each_ref().map(Drops::count), [0; 5]);
        let report = supervisor.shutdown();
        assert_eq!(report.unstopped.len(), usize::from(deaf), "{report}");
        assert_eq!(
            drops.each_ref().map(Drops::count),
            [1; 5],
            "flag, backoff, sink, own backoff, body"
        );
        assert!(!called_late.load(Ordering::SeqCst));
        drop(gate);
    }
}

#[test]
fn builder_that_never_starts_drops_what_it_was_given_once() {
    let drops = Drops::default();
    let (one, two, three) = (drops.token(), drops.token(), drops.token());
    let builder = Supervisor::builder()
        .poll_interval(Duration::ZERO)
        .enabled(move |_| {
            let _ = &one;
            true
        })
        .on_event(move |_| {
            let _ = &two;
        })
        .child(ChildSpec::new("child", move |ctx| {
            let _ = &three;
            idle(ctx)
        }));
    let error = builder.start().unwrap_err();
    assert_eq!(drops.count(), 0, "it is given back");
    let supervisor = error.into_builder().poll_interval(HOUR).start().unwrap();
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(drops.count(), 3);
}

#[test]
fn slow_flags_pile_up_no_polls_and_keep_nobody_from_commanding() {
    let (asked, polls) = bounded(10_000);
    let supervisor = Supervisor::builder()
        .poll_interval(MS)
        .enabled(move |id| {
            if id == "child" {
                let _ = asked.try_send(Instant::now());
                // Longer than the interval.
                let _ = crossbeam_channel::never::<()>().recv_timeout(5 * MS);
            }
            true
        })
        .child(idler("child"))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    for _ in 0..5 {
        take(&polls);
        barrier(handle); // served between the rounds
    }
    handle.hold("child").unwrap();
    wait_off(handle, "child", OffBy::Operator);
    let polls: Vec<_> = polls.try_iter().take(20).collect();
    assert!(polls.windows(2).all(|pair| pair[1] - pair[0] >= 5 * MS), "no two at a time");
    assert!(supervisor.shutdown().is_clean());
}
