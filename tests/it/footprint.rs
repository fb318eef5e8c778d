//! Memory and threads that a supervisor takes of its process. Each test has a process of its own,
//! where nobody else takes any.

use std::{
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{
    ChildContext, ChildResult, ChildSpec, ChildStatus, EventKind, OffBy, Supervisor,
};

use crate::{subprocess::*, support::*};

/// A child that ends at once, each time in another way, and leaves a callback behind.
fn mayfly(ctx: &ChildContext) -> ChildResult {
    std::mem::forget(ctx.on_stop(|| ()));
    let _ = ctx.stopped();
    match ctx.run() % 4 {
        0 => Ok(()),
        // Past the hook: that would write a line for each.
        1 => resume_unwind(Box::new("no")),
        _ => Err("no".into()),
    }
}

/// Restarts a child again and again, the first runs of which may take what they need. Then it may
/// take no more than 1 MiB in all, and no thread.
fn check_restarts(child: ChildSpec, warm_up: u64, restarts: u64) {
    let threads = thread_count();
    let supervisor = Supervisor::builder()
        .telemetry(())
        .healthy_after(Duration::ZERO)
        .backoff(constant(Duration::ZERO))
        .child(child)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let runs_until = |run: u64| {
        // However slow the machine is: as long as it goes on.
        let seen = || handle.child("child").map_or(0, |child| child.run);
        while seen() < run {
            let next = run.min(seen() + 100);
            handle.wait_for("child", DEADLINE, |child| child.run >= next).unwrap();
        }
        // Held, so that no thread is just coming or going while they are counted.
        handle.hold("child").unwrap();
        let last = wait_off(handle, "child", OffBy::Operator).run;
        eventually("no thread is left over", || thread_count() <= threads + 2);
        let now = (last, held_memory());
        handle.release("child").unwrap();
        now
    };
    let (first, before) = runs_until(warm_up);
    let (last, after) = runs_until(first + restarts);
    assert!(
        after < before + 1024,
        "{before} KiB, and {after} KiB after {} more restarts",
        last - first
    );
    assert!(supervisor.shutdown().is_clean());
    eventually("its threads are gone", || thread_count() == threads);
}

#[test]
fn memory_and_threads_stay_flat_over_restarts() {
    if !is_inside() {
        if !cannot_be_emulated("a look at its own memory") {
            check_done("footprint::memory_and_threads_stay_flat_over_restarts");
        }
        return;
    }
    check_restarts(ChildSpec::new("child", mayfly), 10_000, 30_000);
    check_restarts(ChildSpec::new("child", mayfly).fresh_thread(true), 2000, 5000);
    println!("{DONE}");
}

#[test]
fn memory_and_threads_stay_flat_over_supervisors() {
    if !is_inside() {
        if !cannot_be_emulated("a look at its own memory") {
            check_done("footprint::memory_and_threads_stay_flat_over_supervisors");
        }
        return;
    }
    let cycle = || {
        let supervisor = Supervisor::builder()
            .telemetry(())
            .backoff(constant(Duration::ZERO))
            .children((0..5).map(|number| {
                ChildSpec::new(number.to_string(), |ctx| {
                    if ctx.failures() < 2 { Err("no".into()) } else { idle(ctx) }
                })
            }))
            .start()
            .unwrap();
        for number in 0..5 {
            let handle = supervisor.handle();
            handle
                .wait_for(&number.to_string(), DEADLINE, |child| {
                    child.failures == 2 && child.is_running()
                })
                .unwrap();
        }
        assert!(supervisor.shutdown().is_clean());
    };
    let threads = thread_count();
    (0..20).for_each(|_| cycle());
    let before = held_memory();
    (0..200).for_each(|_| cycle());
    let after = held_memory();
    assert!(after < before + 1024, "{before} KiB, and {after} KiB after 200 more supervisors");
    eventually("their threads are gone", || thread_count() == threads);
    println!("{DONE}");
}

#[test]
fn two_thousand_children_that_are_done_leave_no_thread() {
    const CHILDREN: usize = 2000;
    if !is_inside() {
        check_done("footprint::two_thousand_children_that_are_done_leave_no_thread");
        return;
    }
    let threads = thread_count();
    let (gate, bar) = gate();
    let children = (0..CHILDREN).map(|number| {
        let bar = bar.clone();
        ChildSpec::once(number.to_string(), move |_| {
            bar.wait();
            if number % 2 == 0 { Ok(()) } else { Err("no".into()) }
        })
        .stack_size(1 << 16)
    });
    let supervisor = Supervisor::builder()
        .telemetry(())
        .children(children)
        .child(idler("kept"))
        .start()
        .unwrap();
    assert_eq!(thread_count(), threads + CHILDREN + 2);
    drop(gate);
    eventually("all but one are gone", || supervisor.handle().snapshot().counts().children == 1);
    eventually("their threads are gone", || thread_count() == threads + 2);
    assert_eq!(supervisor.handle().child("kept").unwrap().status, ChildStatus::OnTrial);
    assert!(supervisor.shutdown().is_clean());
    eventually("all threads are gone", || thread_count() == threads);
    println!("{DONE}");
}

/// What a failed start leaves to be dropped is not kept until there is a thread for it, which may
/// be never.
#[test]
fn failed_starts_take_no_memory() {
    if !is_inside() {
        if !cannot_be_emulated("a look at its own memory") {
            println!("{}", run_to_the_end(again("footprint::failed_starts_take_no_memory")).out);
        }
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
    let before = held_memory();
    flood(50_000);
    let grown = held_memory().saturating_sub(before);
    println!("grown by {grown} KiB over 50000 failed starts");
    drop(supervisor);
    assert!(grown < 2 << 10, "grown by {grown} KiB over 50000 failed starts");
    println!("{DONE}");
}
