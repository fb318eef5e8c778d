//! Calls in tight loops. What a body, a caller or an operator does without pause takes no memory,
//! delays no other child and makes no shutdown late. Each case has a process of its own, where
//! nobody else takes memory.

use std::{
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{Breaker, ChildContext, ChildSpec, Handle, OffBy, Supervisor};
use crossbeam_channel::{TryRecvError, unbounded};

use crate::{subprocess::*, support::*};

/// How many threads call in a loop, and how often each does in one go.
const THREADS: usize = 4;
const CALLS: usize = 50_000;

/// How much memory these calls may take, in KiB. A message for each would take several times as
/// much.
const ROOM: u64 = 8 << 10;

/// How much address space the process may have, in KiB: where memory grows without end, it ends
/// before the machine's does.
const ADDRESS_SPACE: u64 = 2 << 20;

/// The name of the supervisor thread.
const NAME: &str = "flooded-sup";

/// What there is to call.
#[derive(Clone)]
struct Stage {
    handle: Handle,
    /// Of a run that was asked to stop and ignores it. Its child has a watchdog.
    stopping: ChildContext,
    /// Of a run that was not asked to stop.
    running: ChildContext,
    /// Of the same child.
    breaker: Breaker,
}

/// Has some threads make this call again and again: while the supervisor thread is held by a sink,
/// while it goes on, and while it shuts down.
fn check_flood(call: fn(&Stage), is_closing: bool) {
    let (hold, mut gate_of_plug, held) = hold_at_plug();
    let (deaf, _gate, deaf_runs) = stubborn("deaf");
    let (running_sender, running_runs) = unbounded();
    let running = ChildSpec::new("running", move |ctx| {
        let _ = running_sender.send(ctx.clone());
        idle(ctx)
    });
    let (sibling, strings) = puppet("sibling");
    let supervisor = Supervisor::builder()
        .name(NAME)
        .on_event(hold)
        .backoff(constant(Duration::ZERO))
        .child(deaf.stop_timeout(10 * MS).watchdog(HOUR))
        .child(running)
        .child(idler("held"))
        .child(idler("restarted"))
        .child(sibling)
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    strings.next_run();
    handle.hold("held").unwrap();
    handle.hold("deaf").unwrap();
    let (stopping, running) = (take(&deaf_runs), take(&running_runs));
    stopping.stopped().recv().unwrap_err();
    wait_off(&handle, "held", OffBy::Operator);
    let stage = Stage {
        stopping,
        running,
        breaker: handle.breaker("running").unwrap(),
        handle: handle.clone(),
    };
    // From here on the supervisor thread is held.
    handle.add(idler("plug")).unwrap();
    take(&held);
    if is_closing {
        handle.request_shutdown();
    }

    let enough = Arc::new(AtomicBool::new(false));
    // Each lets the callers make so many calls; the last one lets them call until it is enough.
    let (mut gates, bars): (Vec<_>, Vec<_>) = (0..3).map(|_| gate()).unzip();
    let (sender, made) = unbounded();
    let callers: Vec<_> = (0..THREADS)
        .map(|_| {
            let (stage, enough, bars, sender) =
                (stage.clone(), enough.clone(), bars.clone(), sender.clone());
            thread::spawn(move || {
                for bar in &bars[..2] {
                    bar.wait();
                    (0..CALLS).for_each(|_| call(&stage));
                    let _ = sender.send(());
                }
                bars[2].wait();
                while !enough.load(Ordering::SeqCst) {
                    call(&stage);
                }
            })
        })
        .collect();
    let before = held_memory();
    let growth_of_calls = |gate: &mut Gate| {
        gate.open();
        (0..THREADS).for_each(|_| take(&made));
        held_memory().saturating_sub(before)
    };
    // Asserted at the end, so that one fault does not hide the others.
    let while_held = growth_of_calls(&mut gates[0]);
    gate_of_plug.open();
    if !is_closing {
        strings.act(Act::Fail("it goes on"));
        strings.next_run();
    }
    let while_free = growth_of_calls(&mut gates[1]);
    println!(
        "grown by {while_held} KiB while the supervisor thread was held, \
         and by {while_free} KiB in all"
    );
    gates[2].open();
    if !is_closing {
        strings.act(Act::Fail("it still goes on"));
        strings.next_run();
    }

    let (sender, reports) = unbounded();
    let owner = thread::spawn(move || {
        let _ = sender.send(supervisor.shutdown_within(100 * MS));
    });
    let report = take(&reports);
    owner.join().unwrap();
    assert!(report.unstopped.iter().any(|child| child.id == "deaf"), "{report}");
    // They still call, and the body still ignores its stop.
    let _ = handle.wait_until_stopped(DEADLINE).unwrap();
    eventually("the supervisor thread has ended", || threads_named(NAME) == 0);
    enough.store(true, Ordering::SeqCst);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    assert!(
        while_held < ROOM && while_free < ROOM,
        "{while_held} KiB while it was held, {while_free} KiB in all"
    );
    println!("{DONE}");
}

/// Each name is that of a test, followed by the call and whether a shutdown was asked for before.
macro_rules! floods {
    ($($name:ident: $call:expr, $is_closing:literal;)*) => {
        $(#[test] fn $name() {
            if is_inside() {
                check_flood($call, $is_closing);
            } else {
                let name = concat!("flood::", stringify!($name));
                if let Some(command) = again_within(ADDRESS_SPACE, name) {
                    run_to_the_end(command);
                }
            }
        })*
    };
}

floods! {
    // Of a body, or a helper thread of one.
    on_stop: |stage| drop(stage.running.on_stop(|| ())), false;
    on_stop_after_the_stop: |stage| drop(stage.stopping.on_stop(|| ())), false;
    on_stop_that_panics_after_the_stop: |stage| {
        drop(stage.stopping.on_stop(|| -> () { resume_unwind(Box::new("no")) }))
    }, false;
    mark_healthy: |stage| stage.running.mark_healthy(), false;
    mark_healthy_after_the_stop: |stage| stage.stopping.mark_healthy(), false;
    heartbeats_of_alternating_texts: |stage| {
        stage.stopping.heartbeat("reading");
        stage.stopping.heartbeat("writing");
    }, false;
    stopped_after_the_stop: |stage| {
        assert_ne!(stage.stopping.stopped().try_recv(), Err(TryRecvError::Empty))
    }, false;

    // Of a caller.
    breaker_of_a_handle: |stage| drop(stage.handle.breaker("running")), false;
    call_that_succeeds: |stage| drop(stage.breaker.call(|| Ok::<_, &str>(()))), false;
    call_that_fails: |stage| drop(stage.breaker.call(|| Err::<(), _>("no"))), false;
    permit_and_success: |stage| {
        if let Ok(permit) = stage.breaker.permit() { permit.success() }
    }, false;
    permit_and_failure: |stage| {
        if let Ok(permit) = stage.breaker.permit() { permit.failure("no") }
    }, false;
    report_success: |stage| stage.breaker.report_success(), false;
    report_failure: |stage| stage.breaker.report_failure("no"), false;
    failures_and_successes: |stage| {
        stage.breaker.report_failure("no");
        stage.breaker.report_success();
    }, false;

    // Of an operator.
    child: |stage| drop(stage.handle.child("running")), false;
    snapshot: |stage| drop(stage.handle.snapshot()), false;
    wait_for_without_time: |stage| {
        drop(stage.handle.wait_for("running", Duration::ZERO, |_| false))
    }, false;
    wait_until_gone_without_time: |stage| {
        drop(stage.handle.wait_until_gone("running", Duration::ZERO))
    }, false;
    wait_until_stopped_without_time: |stage| {
        drop(stage.handle.wait_until_stopped(Duration::ZERO))
    }, false;
    poll_now: |stage| drop(stage.handle.poll_now()), false;
    reset: |stage| drop(stage.handle.reset("running")), false;
    reset_of_a_held_child: |stage| drop(stage.handle.reset("held")), false;
    restart: |stage| drop(stage.handle.restart("restarted")), false;
    restart_of_a_held_child: |stage| drop(stage.handle.restart("held")), false;
    restart_of_a_child_that_ignores_its_stop: |stage| drop(stage.handle.restart("deaf")), false;
    hold: |stage| drop(stage.handle.hold("held")), false;
    release: |stage| drop(stage.handle.release("running")), false;
    hold_and_release: |stage| {
        let _ = stage.handle.hold("restarted");
        let _ = stage.handle.release("restarted");
    }, false;
    add_of_a_taken_id: |stage| drop(stage.handle.add(idler("running"))), false;
    remove: |stage| drop(stage.handle.remove("deaf")), false;
    request_shutdown: |stage| stage.handle.request_shutdown(), true;
    orders_in_the_shutdown: |stage| {
        let _ = stage.handle.poll_now();
        let _ = stage.handle.reset("running");
        let _ = stage.handle.restart("deaf");
    }, true;
    on_stop_in_the_shutdown: |stage| drop(stage.stopping.on_stop(|| ())), true;
}
