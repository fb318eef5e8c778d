//! Shutdowns in which children wait for others, which come after them.

use std::{
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{ChildContext, ChildSpec, ChildStatus, EventKind, Supervisor};
use crossbeam_channel::{Receiver, bounded, unbounded};
use parking_lot::Mutex;

use crate::support::*;

/// A healthy child that obeys stops, and gives its context away.
fn seen_child(id: &str) -> (ChildSpec, Receiver<ChildContext>) {
    let (sender, started) = unbounded();
    let spec = ChildSpec::new(id, move |ctx| {
        ctx.mark_healthy();
        let _ = sender.send(ctx.clone());
        idle(ctx)
    });
    (spec, started)
}

#[test]
fn shutdown_ends_although_the_thread_of_one_that_ended_meanwhile_lingers() {
    let (lingering, bar) = gate();
    let (mut go, go_bar) = gate();
    let (leaf, leaf_gate, started) = stubborn("leaf");
    let db = ChildSpec::new("db", move |ctx| {
        ctx.mark_healthy();
        linger(&bar);
        go_bar.wait();
        Ok(())
    });
    let supervisor = Supervisor::builder()
        .stop_timeout(500 * MS)
        .child(db)
        .child(leaf.after("db"))
        .start()
        .unwrap();
    take(&started);
    let handle = supervisor.handle().clone();
    let (sender, report) = bounded(1);
    thread::spawn(move || sender.send(supervisor.shutdown()));
    handle.wait_for("leaf", DEADLINE, |leaf| leaf.stopping.is_some()).unwrap();
    go.open(); // `db` ends by itself while it is postponed
    let came = report.recv_timeout(20 * SECOND);
    drop((lingering, leaf_gate));
    came.expect("each thread is waited for no longer than its stop timeout");
}

#[test]
fn all_were_asked_when_shutdown_within_returns() {
    let (db, contexts) = seen_child("db");
    let (stuck, gate, started) = stubborn("stuck");
    let mut builder = Supervisor::builder();
    for _ in 0..4 {
        builder = builder.on_event(|event| {
            if event.id == "leaf" && matches!(event.kind, EventKind::Stopped { .. }) {
                thread::sleep(700 * MS); // slow, but not stuck
            }
        });
    }
    let supervisor = builder
        .child(db)
        .child(stuck.stop_timeout(HOUR).after("db"))
        .child(healthy("leaf").after("db"))
        .start()
        .unwrap();
    let ctx = take(&contexts);
    take(&started);
    wait_status(supervisor.handle(), "leaf", ChildStatus::Healthy);
    let handle = supervisor.handle().clone();
    let report = supervisor.shutdown_within(100 * MS);
    let was_asked = ctx.is_stopping();
    drop(gate);
    let _ = handle.wait_until_stopped(DEADLINE).unwrap();
    assert!(was_asked, "`db` was not asked: {report}");
}

#[test]
fn cause_of_one_that_was_stopped_past_a_stuck_supervisor_is_the_shutdown() {
    let (mut sink_gate, bar) = gate();
    let (stuck, mut leaf_gate, started) = stubborn("stuck");
    let (sender, ended) = unbounded();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .on_event(move |event| {
            if event.id == "leaf" && matches!(event.kind, EventKind::Stopped { .. }) {
                bar.wait();
            }
        })
        .child(ChildSpec::new("db", move |ctx| {
            ctx.mark_healthy();
            let stopped = idle(ctx);
            let _ = sender.send(());
            stopped
        }))
        .child(stuck.stop_timeout(HOUR).after("db"))
        .child(healthy("leaf").after("db"))
        .start()
        .unwrap();
    take(&started);
    wait_status(supervisor.handle(), "leaf", ChildStatus::Healthy);
    let ender = thread::spawn(move || supervisor.shutdown());
    take(&ended); // by the take-over
    thread::sleep(50 * MS); // until its exit is in the inbox; a little later does no harm
    sink_gate.open();
    let stop = recorder.wait_for("db", "stop", 1);
    leaf_gate.open();
    let _ = ender.join().unwrap();
    assert_eq!(word(&stop), "stop shutdown 0", "{} at level {}", stop, stop.level());
}

#[test]
fn limit_is_for_the_whole_tree() {
    for levels in [1, 2] {
        let (leaf, gate, started) = stubborn("leaf");
        let (db, contexts) = seen_child("db");
        let specs = Mutex::new(Some((db, leaf.stop_timeout(HOUR).after("db"))));
        let deepest = ChildSpec::new("deepest", move |ctx| {
            let (db, leaf) = specs.lock().take().unwrap();
            Supervisor::builder().child(db).child(leaf).run(ctx)
        })
        .stop_timeout(HOUR);
        let child = if levels == 1 {
            deepest
        } else {
            let deepest = Mutex::new(Some(deepest));
            ChildSpec::new("middle", move |ctx| {
                Supervisor::builder().children(deepest.lock().take()).run(ctx)
            })
            .stop_timeout(HOUR)
        };
        let supervisor = Supervisor::builder().child(child).start().unwrap();
        let ctx = take(&contexts);
        take(&started);
        let report = supervisor.shutdown_within(500 * MS);
        let was_asked = ctx.is_stopping();
        drop(gate);
        assert!(was_asked, "{levels} levels: {report}");
    }
}

#[test]
fn those_that_are_asked_last_have_a_moment() {
    for _ in rounds(6) {
        let (leaf, gate, started) = stubborn("leaf");
        let supervisor = Supervisor::builder()
            .child(healthy("db"))
            .child(leaf.stop_timeout(HOUR).after("db"))
            .start()
            .unwrap();
        take(&started);
        let report = supervisor.shutdown_within(20 * MS);
        assert_eq!(unstopped(&report), ["leaf"]);
        drop(gate);
    }
}

#[test]
fn children_of_a_stuck_nested_supervisor_are_asked() {
    let (gate_of_sink, bar) = gate();
    let (stuck, gate, started) = stubborn("stuck");
    let (db, contexts) = seen_child("db");
    let specs = Mutex::new(Some((db, stuck.stop_timeout(300 * MS).after("db"))));
    let supervisor = Supervisor::builder()
        .stop_timeout(2 * SECOND)
        .child(ChildSpec::new("ingest", move |ctx| {
            let (db, stuck) = specs.lock().take().unwrap();
            let bar = bar.clone();
            Supervisor::builder()
                .on_event(move |event| {
                    if event.id == "ingest/leaf" && matches!(event.kind, EventKind::Stopped { .. })
                    {
                        bar.wait();
                    }
                })
                .child(db)
                .child(stuck)
                .child(healthy("leaf").after("db"))
                .run(ctx)
        }))
        .start()
        .unwrap();
    let ctx = take(&contexts);
    take(&started);
    supervisor.handle().wait_for("ingest/leaf", DEADLINE, |leaf| leaf.is_running()).unwrap();
    let report = supervisor.shutdown();
    let was_asked = ctx.is_stopping();
    drop((gate, gate_of_sink));
    assert!(was_asked, "{report}");
}

#[test]
fn report_counts_from_when_a_child_was_asked_also_without_a_stop_timeout() {
    let (leaf, leaf_gate, started) = stubborn("leaf");
    let (gate_of_db, bar) = gate();
    let db = ChildSpec::new("db", move |ctx| {
        ctx.mark_healthy();
        bar.wait();
        Ok(())
    });
    let supervisor = Supervisor::builder()
        .child(db.stop_timeout(Duration::MAX))
        .child(leaf.stop_timeout(SECOND).after("db"))
        .start()
        .unwrap();
    take(&started);
    let handle = supervisor.handle().clone();
    let since = Instant::now();
    let report = supervisor.shutdown_within(1500 * MS);
    let took = since.elapsed();
    let shown = handle.child("db").unwrap();
    drop((leaf_gate, gate_of_db));
    let db = report.unstopped.iter().find(|child| child.id == "db").unwrap();
    // `leaf` has its second first.
    assert!(db.stopping_for + SECOND <= took, "{report}; {shown}");
}

#[test]
fn restart_in_a_shutdown_does_nothing() {
    let builder = Supervisor::builder()
        .healthy_after(Duration::ZERO)
        .child(unused("db"))
        .child(unused("orders").after("db").stop_timeout(HOUR));
    let mut simulation = simulate(builder);
    simulation.ignore_stop_for("orders", 10 * SECOND);
    simulation.handle().request_shutdown();
    simulation.advance(SECOND);
    simulation.handle().restart("db").unwrap();
    simulation.advance(SECOND);
    assert_eq!(words(&simulation, "db"), ["start 0", "healthy"]);
}

#[test]
fn lingering_threads_along_a_chain_are_waited_for_and_named() {
    let (lingering, bar) = gate();
    let bars = bar.clone();
    let (leaf, leaf_gate, started) = stubborn("leaf");
    let supervisor = Supervisor::builder()
        .stop_timeout(400 * MS)
        .child(ChildSpec::new("db", move |ctx| {
            ctx.mark_healthy();
            linger(&bar);
            idle(ctx)
        }))
        .child(
            ChildSpec::new("cache", move |ctx| {
                ctx.mark_healthy();
                linger(&bars);
                idle(ctx)
            })
            .after("db"),
        )
        .child(leaf.after("cache"))
        .start()
        .unwrap();
    take(&started);
    let since = Instant::now();
    let report = supervisor.shutdown();
    let took = since.elapsed();
    drop((lingering, leaf_gate));
    assert_eq!(unstopped(&report), ["db", "cache", "leaf"]);
    assert!(took >= 800 * MS, "{took:?}");
}

// ── Limits in trees ──

fn once_branch(id: &str, children: Vec<ChildSpec>) -> ChildSpec {
    let slot = Mutex::new(Some(children));
    ChildSpec::new(id, move |ctx| {
        Supervisor::builder()
            .backoff(constant(MS))
            .children(slot.lock().take().into_iter().flatten())
            .run(ctx)
    })
}

fn nested_sink_is_held(limit: Option<Duration>, stop_timeout: Duration) -> (bool, String) {
    let (gate_of_sink, bar) = gate();
    let (sender, held) = unbounded();
    let (db, contexts) = seen_child("db");
    let specs = Mutex::new(Some((db, healthy("leaf").after("db"))));
    let supervisor = Supervisor::builder()
        .child(
            ChildSpec::new("ingest", move |ctx| {
                let (db, leaf) = specs.lock().take().unwrap();
                let (bar, sender) = (bar.clone(), sender.clone());
                Supervisor::builder()
                    .on_event(move |event| {
                        if event.id == "ingest/leaf"
                            && matches!(event.kind, EventKind::Ordered { .. })
                        {
                            let _ = sender.send(());
                            bar.wait();
                        }
                    })
                    .child(db)
                    .child(leaf)
                    .run(ctx)
            })
            .stop_timeout(stop_timeout),
        )
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    let ctx = take(&contexts);
    wait_status(&handle, "ingest/leaf", ChildStatus::Healthy);
    handle.reset("ingest/leaf").unwrap();
    take(&held);
    let report = match limit {
        Some(limit) => supervisor.shutdown_within(limit),
        None => supervisor.shutdown(),
    };
    let was_asked = ctx.is_stopping();
    drop(gate_of_sink);
    (was_asked, report.to_string())
}

/// The outer supervisor thread is held in a sink; the chain is in a branch.
fn chain_below_a_stuck_outer(limit: Duration, a_timeout: Duration) -> (bool, String) {
    let (hold, sink_gate, held) = hold_at_plug();
    let (leaf, gate, started) = stubborn("leaf");
    let (db, contexts) = seen_child("db");
    let a = once_branch("a", vec![db, leaf.stop_timeout(HOUR).after("db")]).stop_timeout(a_timeout);
    let supervisor = Supervisor::builder().on_event(hold).child(a).start().unwrap();
    let ctx = take(&contexts);
    take(&started);
    supervisor.handle().add(idler("plug")).unwrap();
    take(&held);
    let report = supervisor.shutdown_within(limit);
    let was_asked = ctx.is_stopping();
    drop((gate, sink_gate));
    (was_asked, report.to_string())
}

#[test]
fn second_limit_hurries_a_shutdown_in_which_one_was_asked_in_its_turn() {
    let (db, gate, started) = stubborn("db");
    let supervisor = Supervisor::builder()
        .healthy_after(Duration::ZERO)
        .child(db.stop_timeout(HOUR))
        .child(healthy("leaf").after("db"))
        .start()
        .unwrap();
    take(&started);
    let handle = supervisor.handle().clone();
    wait_status(&handle, "leaf", ChildStatus::Healthy);
    handle.request_shutdown_within(HOUR);
    handle.wait_for("db", DEADLINE, |db| db.stopping.is_some()).unwrap();
    handle.request_shutdown_within(20 * MS);
    let ended = handle.wait_until_stopped(DEADLINE);
    drop(gate);
    assert!(ended.is_ok(), "{ended:?}");
}

#[test]
fn children_of_a_branch_whose_thread_is_held_are_asked_by_the_end_of_a_limit() {
    let (was_asked, report) = nested_sink_is_held(Some(400 * MS), HOUR);
    assert!(was_asked, "{report}");
}

#[test]
fn children_of_a_branch_whose_thread_is_held_are_asked_by_the_end_of_its_timeout() {
    let (was_asked, report) = nested_sink_is_held(None, 400 * MS);
    assert!(was_asked, "{report}");
}

#[test]
fn limit_is_for_the_whole_tree_also_if_the_outer_thread_is_stuck() {
    let (was_asked, report) = chain_below_a_stuck_outer(300 * MS, HOUR);
    assert!(was_asked, "{report}");
}

#[test]
fn second_limit_hurries_a_stuck_outer_thread_and_the_tree_below() {
    let (hold, sink_gate, held) = hold_at_plug();
    let (leaf, gate, started) = stubborn("leaf");
    let (db, contexts) = seen_child("db");
    let a = once_branch("a", vec![db, leaf.stop_timeout(HOUR).after("db")]).stop_timeout(HOUR);
    let supervisor = Supervisor::builder().on_event(hold).child(a).start().unwrap();
    let ctx = take(&contexts);
    take(&started);
    let handle = supervisor.handle().clone();
    handle.add(idler("plug")).unwrap();
    take(&held);
    handle.request_shutdown_within(20 * SECOND);
    let report = supervisor.shutdown_within(1500 * MS);
    let was_asked = ctx.is_stopping();
    drop((gate, sink_gate));
    assert!(was_asked, "{report}");
}

#[test]
fn table_says_that_the_shutdown_goes_on() {
    let builder = Supervisor::builder().name("shop").child(unused("deaf"));
    let mut simulation = simulate(builder);
    simulation.ignore_stop_for("deaf", SECOND);
    let handle = simulation.handle().clone();
    handle.request_shutdown();
    simulation.advance(Duration::ZERO);
    let begins = |text: &str| handle.snapshot().to_string().starts_with(text);
    assert!(begins("shop: shutting down, 1 of 1 children running"));
    simulation.advance(SECOND);
    assert!(begins("shop: shut down, 0 of 1 children running"));
}
