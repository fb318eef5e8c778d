//! Processes with no room for another thread. Each test runs itself again in one with little
//! address space.

use std::{
    any::Any,
    cell::RefCell,
    thread::{self, JoinHandle},
    time::Duration,
};

use circuit_breaker_supervisor::{ChildSpec, OffBy, Supervisor};
use crossbeam_channel::{bounded, unbounded};

use crate::{subprocess::*, support::*};

const GIB: usize = 1 << 30;

/// Has [`GIB`] as the size of a stack for which none is asked for: that of supervisor threads and
/// their helpers.
const DEFAULT_STACK: &str = "RUST_MIN_STACK";

/// What children use that are not to be in anybody's way.
const SMALL: usize = 1 << 20;

/// Threads that take all the room there is for stacks of [`GIB`], until they are dropped.
struct Hoard(Vec<(Gate, JoinHandle<()>)>);

fn hoard() -> Hoard {
    Hoard(
        std::iter::from_fn(|| {
            let (gate, bar) = gate();
            let thread = thread::Builder::new().stack_size(GIB).spawn(move || bar.wait()).ok()?;
            Some((gate, thread))
        })
        .collect(),
    )
}

impl Drop for Hoard {
    fn drop(&mut self) {
        for (gate, thread) in self.0.drain(..) {
            drop(gate);
            thread.join().unwrap();
        }
    }
}

#[test]
fn children_for_which_there_is_no_memory_wait_until_there_is() {
    if !is_inside() {
        // 8 GiB of address space, for children of which each wants one for its stack.
        if let Some(command) = again_within(
            8 << 20,
            "shortage::children_for_which_there_is_no_memory_wait_until_there_is",
        ) {
            run_to_the_end(command);
        }
        return;
    }
    let recorder = Recorder::default();
    let ids: Vec<_> = (0..10).map(|number| number.to_string()).collect();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .children(ids.iter().map(|id| idler(id).stack_size(GIB)))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let counts = handle.snapshot().counts();
    assert!(counts.running >= 3 && counts.running < 8, "{}", handle.snapshot());
    let stop = stop_of(&recorder.wait_for("9", "stop not_spawned", 3));
    // EAGAIN, as with every other limit on threads.
    assert!(stop.exit.message().unwrap().contains("os error 11"), "{}", stop.exit);
    // Each that goes makes room for another.
    for id in &ids {
        handle.wait_for(id, DEADLINE, |child| child.is_running()).unwrap();
        handle.remove(id).unwrap();
        handle.wait_until_gone(id, DEADLINE).unwrap();
    }
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    check_trace(&recorder.events(), Some(&report), false);
    println!("{DONE}");
}

#[test]
fn supervisor_that_gets_no_thread_gives_its_builder_back() {
    if !is_inside() {
        // The thread's stack does not fit.
        let Some(mut command) = again_within(
            2 << 20,
            "shortage::supervisor_that_gets_no_thread_gives_its_builder_back",
        ) else {
            return;
        };
        command.env(DEFAULT_STACK, GIB.to_string());
        run_to_the_end(command);
        return;
    }
    let drops = Drops::default();
    let token = drops.token();
    // What room there is is taken, if the test's own thread has left any.
    let taken = hoard();
    let child = ChildSpec::new("child", move |ctx| {
        let _ = &token;
        idle(ctx)
    });
    let error = Supervisor::builder().child(child).start().unwrap_err();
    assert!(
        error.to_string().starts_with("cannot start the supervisor: no thread for it: "),
        "{error}"
    );
    assert_eq!(drops.count(), 0, "the child is given back with the builder");
    drop(taken);
    drop(error.into_builder());
    assert_eq!(drops.count(), 1);
    println!("{DONE}");
}

#[test]
#[cfg_attr(target_pointer_width = "32", ignore = "there the room may be there, and in pieces")]
fn fresh_thread_for_which_there_is_no_room_is_a_failed_start_until_there_is() {
    thread_local! {
        static LAST_WORDS: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    }
    if !is_inside() {
        if let Some(command) = again_within(
            4 << 20,
            "shortage::fresh_thread_for_which_there_is_no_room_is_a_failed_start_until_there_is",
        ) {
            run_to_the_end(command);
        }
        return;
    }
    let recorder = Recorder::default();
    let (sender, runs) = unbounded();
    let (acts, script) = unbounded();
    let (old, bar) = gate();
    let child = ChildSpec::new("child", move |ctx| {
        if ctx.run() == 1 {
            let bar = bar.clone();
            LAST_WORDS.set(Some(Box::new(OnDrop(move || bar.wait()))));
        }
        let _ = sender.send(ctx.failures());
        let () = ctx.recv(&script)?;
        Err("no".into())
    });
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(child.stack_size(GIB).fresh_thread(true))
        .start()
        .unwrap();
    assert_eq!(take(&runs), 0);
    let taken = hoard();
    // The run ends, and its thread does not: it keeps its own room.
    acts.send(()).unwrap();
    let stop = stop_of(&recorder.wait_for("child", "stop not_spawned", 2));
    assert!(stop.exit.message().unwrap().contains("os error 11"), "{}", stop.exit);
    assert!(runs.is_empty());
    // The thread goes, and the next takes its place: it is told of all the failures.
    drop(old);
    let attempt = take(&runs);
    assert_eq!(usize::try_from(attempt).unwrap(), 1 + recorder.count("child", "stop not_spawned"));
    drop(taken);
    // Back to normal.
    acts.send(()).unwrap();
    assert_eq!(take(&runs), attempt + 1);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    check_trace(&recorder.events(), Some(&report), false);
    println!("{DONE}");
}

#[test]
fn stop_callbacks_for_which_there_is_no_thread_are_called_once_there_is() {
    if !is_inside() {
        let Some(mut command) = again_within(
            8 << 20,
            "shortage::stop_callbacks_for_which_there_is_no_thread_are_called_once_there_is",
        ) else {
            return;
        };
        command.env(DEFAULT_STACK, GIB.to_string());
        run_to_the_end(command);
        return;
    }
    let recorder = Recorder::default();
    let (sender, ready) = unbounded();
    let (calls, called) = unbounded();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(
            ChildSpec::new("reader", move |ctx| {
                let ((close, socket), calls) = (bounded::<()>(0), calls.clone());
                let _guard = ctx.on_stop(move || {
                    let _ = calls.send(());
                    drop(close);
                });
                let _ = sender.send(());
                let _ = socket.recv();
                Ok(())
            })
            .stack_size(SMALL)
            .stop_timeout(20 * MS),
        )
        .start()
        .unwrap();
    let handle = supervisor.handle();
    take(&ready);
    let taken = hoard();
    handle.hold("reader").unwrap();
    recorder.wait_for("reader", "overdue", 1);
    assert!(called.is_empty());
    drop(taken);
    take(&called);
    wait_off(handle, "reader", OffBy::Operator);
    assert!(called.is_empty(), "once");
    assert!(supervisor.shutdown().is_clean());
    println!("{DONE}");
}

#[test]
fn bodies_for_which_there_is_no_thread_to_be_dropped_on_are_dropped_once_there_is() {
    if !is_inside() {
        let name = "shortage::\
            bodies_for_which_there_is_no_thread_to_be_dropped_on_are_dropped_once_there_is";
        let Some(mut command) = again_within(8 << 20, name) else { return };
        command.env(DEFAULT_STACK, GIB.to_string());
        run_to_the_end(command);
        return;
    }
    let drops = Drops::default();
    let spec = |id: &str| {
        let token = drops.token();
        let spec = ChildSpec::new(id, move |ctx| {
            let _ = &token;
            idle(ctx)
        });
        spec.stack_size(SMALL).fresh_thread(true)
    };
    let supervisor = Supervisor::builder().children(["one", "two"].map(spec)).start().unwrap();
    let handle = supervisor.handle();
    // Down, so that they have no thread.
    for id in ["one", "two"] {
        handle.hold(id).unwrap();
        wait_off(handle, id, OffBy::Operator);
        eventually("its thread is gone", || threads_named(id) == 0);
    }
    let taken = hoard();
    handle.remove("one").unwrap();
    handle.wait_until_gone("one", DEADLINE).unwrap();
    assert_eq!(drops.count(), 0, "not on the supervisor thread");
    drop(taken);
    eventually("the body is dropped", || drops.count() == 1);
    // A supervisor that ends does not wait for room.
    let taken = hoard();
    handle.remove("two").unwrap();
    handle.wait_until_gone("two", DEADLINE).unwrap();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert_eq!(drops.count(), 2);
    drop(taken);
    println!("{DONE}");
}
