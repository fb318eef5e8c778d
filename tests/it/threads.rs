//! Threads of a child: what it may rely on, and what is left of them.

use std::{
    cell::Cell,
    sync::{Arc, Mutex as StdMutex},
    thread::{self, ThreadId},
    time::Duration,
};

use circuit_breaker_supervisor::{
    ChildSpec, ChildStatus, EventKind, OffBy, RestartPolicy, StopCause, Supervisor,
};
use crossbeam_channel::unbounded;

use crate::{subprocess::*, support::*};

thread_local! {
    static RUNS: Cell<u32> = const { Cell::new(0) };
}

/// Says on which thread each run is, and how many runs that thread has seen.
fn nomad(id: &str) -> (ChildSpec, crossbeam_channel::Receiver<(ThreadId, u32)>) {
    let (sender, runs) = unbounded();
    let spec = ChildSpec::new(id, move |ctx| {
        RUNS.set(RUNS.get() + 1);
        let _ = sender.send((thread::current().id(), RUNS.get()));
        match ctx.failures() {
            0 => Err("no".into()),
            1 => panic!("no"),
            2 => Ok(()),
            _ => idle(ctx),
        }
    });
    (spec, runs)
}

#[test]
fn all_runs_of_a_child_are_on_one_warm_thread() {
    let (child, runs) = nomad("child");
    let supervisor =
        Supervisor::builder().backoff(constant(Duration::ZERO)).child(child).start().unwrap();
    let handle = supervisor.handle();
    let first = take(&runs);
    assert_eq!(first.1, 1);
    for expected in 2..=4 {
        assert_eq!(take(&runs), (first.0, expected), "thread-locals live on, too");
    }
    handle.hold("child").unwrap();
    wait_off(handle, "child", OffBy::Operator);
    handle.release("child").unwrap();
    assert_eq!(take(&runs), (first.0, 5), "also over a hold");
    handle.restart("child").unwrap();
    assert_eq!(take(&runs), (first.0, 6));
}

#[test]
fn fresh_threads_are_new_for_every_run() {
    let (child, runs) = nomad("fresh-thread");
    let supervisor = Supervisor::builder()
        .backoff(constant(Duration::ZERO))
        .child(child.fresh_thread(true))
        .start()
        .unwrap();
    let mut threads: Vec<_> = (0..4)
        .map(|_| {
            let (thread, count) = take(&runs);
            assert_eq!(count, 1, "a thread that no run has seen");
            thread
        })
        .collect();
    supervisor.handle().restart("fresh-thread").unwrap();
    threads.push(take(&runs).0);
    let count = threads.len();
    threads.sort_by_key(|thread| format!("{thread:?}"));
    threads.dedup();
    assert_eq!(threads.len(), count);
    eventually("the old ones are gone", || threads_named("fresh-thread") == 1);
    assert!(supervisor.shutdown().is_clean());
    eventually("all are gone", || threads_named("fresh-thread") == 0);
}

#[test]
fn fresh_thread_that_cannot_be_had_is_a_failed_start() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(idler("child").fresh_thread(true).stack_size(IMPOSSIBLE_STACK))
        .start()
        .unwrap();
    recorder.wait_for("child", "stop not_spawned", 2);
    supervisor.handle().remove("child").unwrap();
    supervisor.handle().wait_until_gone("child", DEADLINE).unwrap();
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn nothing_that_a_child_captured_is_left_after_the_shutdown() {
    let captured = Arc::new(());
    let spec = |id: &str| {
        let its = captured.clone();
        ChildSpec::new(id, move |ctx| {
            let inner = its.clone();
            std::mem::forget(ctx.on_stop(move || drop(inner)));
            match &**ctx.id() {
                "crashing" => panic!("no"),
                "finished" => Ok(()),
                _ => idle(ctx),
            }
        })
    };
    let supervisor = Supervisor::builder()
        .enabled(|id| id != "off")
        .children(["running", "crashing", "off", "held", "removed"].map(spec))
        .child(spec("finished").restart(RestartPolicy::Transient))
        .child(spec("given up").max_restarts(0))
        .child(spec("huge").stack_size(IMPOSSIBLE_STACK))
        .child(spec("fresh").fresh_thread(true))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    handle.hold("held").unwrap();
    handle.remove("removed").unwrap();
    handle.wait_until_gone("removed", DEADLINE).unwrap();
    wait_off(&handle, "held", OffBy::Operator);
    wait_status(&handle, "finished", ChildStatus::Finished);
    handle.reset("given up").unwrap();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    // Though the handle, and what it shows, live on.
    assert_eq!(Arc::strong_count(&captured), 1, "{}", handle.snapshot());
}

#[test]
fn mutex_of_a_crashed_run_is_poisoned_for_the_next_and_for_nobody_else() {
    let mutex = Arc::new(StdMutex::new(7));
    let its = mutex.clone();
    let (sender, seen) = unbounded();
    let supervisor = Supervisor::builder()
        .backoff(constant(Duration::ZERO))
        .child(ChildSpec::new("child", move |ctx| {
            let _ = sender.send(its.is_poisoned());
            if ctx.failures() > 0 {
                return idle(ctx);
            }
            let _guard = its.lock();
            panic!("with the lock held");
        }))
        .start()
        .unwrap();
    assert_eq!((take(&seen), take(&seen)), (false, true));
    assert!(supervisor.handle().child("child").unwrap().is_running());
    assert!(supervisor.shutdown().is_clean());
    assert!(mutex.is_poisoned());
}

#[test]
fn threads_of_children_that_are_done_end_at_once() {
    let (finished, first) = puppet("done-finished");
    let (given_up, second) = puppet("done-given-up");
    let (removed, third) = puppet("done-removed");
    let supervisor = Supervisor::builder()
        .backoff(constant(HOUR))
        .child(finished.restart(RestartPolicy::Transient))
        .child(given_up.max_restarts(0))
        .child(removed)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let names = ["done-finished", "done-given-up", "done-removed"];
    for strings in [&first, &second, &third] {
        strings.next_run();
        strings.act(Act::Return);
    }
    wait_status(handle, "done-finished", ChildStatus::Finished);
    wait_status(handle, "done-given-up", ChildStatus::GaveUp);
    wait_status(handle, "done-removed", ChildStatus::BackingOff);
    handle.remove("done-removed").unwrap();
    handle.wait_until_gone("done-removed", DEADLINE).unwrap();
    for name in names {
        eventually(name, || threads_named(name) == 0);
    }
    // By hand they get a thread again, and their bodies are as they were.
    handle.restart("done-finished").unwrap();
    handle.reset("done-given-up").unwrap();
    first.next_run();
    second.next_run();
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn stack_is_as_large_as_asked_for() {
    fn dig(depth: u32) -> u32 {
        let room = std::hint::black_box([1u8; 1024]);
        if depth == 0 { u32::from(room[7]) } else { dig(depth - 1) + u32::from(room[1]) / 256 }
    }
    let supervisor = Supervisor::builder()
        .child(
            ChildSpec::new("deep", |_| {
                // 16 MiB at least: eight times the standard library's default.
                std::hint::black_box(dig(16 * 1024));
                Ok(())
            })
            .stack_size(64 << 20)
            .restart(RestartPolicy::Transient),
        )
        .start()
        .unwrap();
    wait_status(supervisor.handle(), "deep", ChildStatus::Finished);
}

#[test]
fn idle_supervisor_sleeps() {
    let tasks = |name: &str| -> Vec<std::path::PathBuf> {
        let tasks = std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| Some(task.ok()?.path()));
        tasks
            .filter(|task| {
                std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
            })
            .collect()
    };
    let switches = |task: &std::path::Path| -> u64 {
        let status = std::fs::read_to_string(task.join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    let (child, strings) = puppet("idle-down");
    let supervisor = Supervisor::builder()
        .name("idle-sup")
        .poll_interval(MS) // which has nothing to ask
        .healthy_after(HOUR)
        .backoff(constant(HOUR))
        .child(idler("idle-child"))
        .child(child)
        .start()
        .unwrap();
    strings.act(Act::Fail("no"));
    wait_status(supervisor.handle(), "idle-down", ChildStatus::BackingOff);
    let threads: Vec<_> =
        ["idle-sup", "idle-child", "idle-down"].into_iter().flat_map(tasks).collect();
    assert_eq!(threads.len(), 3);
    let window = |length| {
        let _ = crossbeam_channel::never::<()>().recv_timeout(length);
        threads.iter().map(|task| switches(task)).collect::<Vec<_>>()
    };
    // What is still settling settles in the first window; then nothing wakes any more.
    let mut before = window(20 * MS);
    eventually("all have settled", || {
        let now = window(20 * MS);
        std::mem::replace(&mut before, now.clone()) == now
    });
    assert_eq!(window(300 * MS), before);
    drop(supervisor);
}

#[test]
fn supervisor_that_outlives_its_starter_is_unharmed() {
    let starter = thread::spawn(|| Supervisor::builder().child(idler("child")).start().unwrap());
    let supervisor = starter.join().unwrap();
    assert_eq!(supervisor.handle().snapshot().counts().running, 1);
    assert!(supervisor.shutdown().is_clean());
}

/// Threads that do not end after their run would pile up where each run has a fresh one: above a
/// bound, the next start fails.
#[test]
fn threads_of_one_child_are_bounded() {
    if !is_inside() {
        println!("{}", run_to_the_end(again("threads::threads_of_one_child_are_bounded")).out);
        return;
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
                linger(&bar);
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
