//! Supervisors that run on a child of another.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    ChildContext, ChildGaveUp, ChildResult, ChildSpec, ChildStatus, Exit, Handle, OffBy,
    ShutdownReport, StopCause, Supervisor, UnstoppedPhase,
};
use crossbeam_channel::{Sender, bounded, unbounded};

use crate::support::*;

/// A body that supervises idlers of these ids.
fn branch(
    ids: &'static [&'static str],
) -> impl FnMut(&ChildContext) -> ChildResult + Send + 'static {
    move |ctx| Supervisor::builder().children(ids.iter().map(|id| idler(id))).run(ctx)
}

/// Says in which order bodies end.
fn leaver(id: &'static str, left: Sender<&'static str>) -> ChildSpec {
    ChildSpec::new(id, move |ctx| {
        let _ = ctx.sleep(HOUR);
        let _ = left.send(id);
        Ok(())
    })
}

/// The nested supervisor's handle, said by one of its children.
fn teller(id: &'static str, handles: Sender<Handle>) -> ChildSpec {
    ChildSpec::new(id, move |ctx| {
        let _ = handles.send(ctx.supervisor().clone());
        idle(ctx)
    })
}

#[test]
fn nested_supervisor_ends_before_the_child_that_runs_it() {
    let (left, order) = unbounded();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(ChildSpec::new("root", move |ctx| {
            let result = Supervisor::builder().child(leaver("leaf", left.clone())).run(ctx);
            let _ = left.send("root");
            result
        }))
        .start()
        .unwrap();
    recorder.wait_for("root/leaf", "start", 1);
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(order.try_iter().collect::<Vec<_>>(), ["leaf", "root"]);
    let stories: Vec<String> = recorder.whole_story();
    assert_eq!(
        stories,
        [
            "root: start 0",
            "root/leaf: start 0",
            "root/leaf: stop shutdown 0",
            "root: stop shutdown 0"
        ]
    );
    eventually("the leaf's thread is gone", || threads_named("root/leaf") == 0);
}

#[test]
fn of_three_levels_the_leaves_stop_first() {
    let (left, order) = unbounded();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(ChildSpec::new("a", move |ctx| {
            let left = left.clone();
            Supervisor::builder()
                .child(ChildSpec::new("b", move |ctx| {
                    let result = Supervisor::builder().child(leaver("c", left.clone())).run(ctx);
                    let _ = left.send("b");
                    result
                }))
                .run(ctx)
        }))
        .start()
        .unwrap();
    recorder.wait_for("a/b/c", "start", 1);
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(order.try_iter().collect::<Vec<_>>(), ["c", "b"]);
}

#[test]
fn crash_of_an_inner_child_stays_inside() {
    let (spec, strings) = puppet("inner");
    let mut spec = Some(spec.backoff(constant(MS)));
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(ChildSpec::new("outer", move |ctx| {
            Supervisor::builder().children(spec.take()).run(ctx)
        }))
        .start()
        .unwrap();
    strings.next_run();
    strings.act(Act::Panic("inside"));
    assert_eq!(strings.next_run().1, 1);
    let outer = supervisor.handle().child("outer").unwrap();
    assert_eq!((outer.failures, outer.status), (0, ChildStatus::OnTrial));
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(recorder.story("outer"), ["start 0", "stop shutdown 0"]);
    assert_eq!(
        recorder.story("outer/inner"),
        ["start 0", "stop exited 0", "start 1", "stop shutdown 1"]
    );
}

#[test]
fn children_added_to_a_nested_supervisor_go_with_it() {
    let (handles, told) = unbounded();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(ChildSpec::new("outer", move |ctx| {
            Supervisor::builder().child(teller("coded", handles.clone())).run(ctx)
        }))
        .start()
        .unwrap();
    let inner = take(&told);
    inner.add(idler("added")).unwrap();
    // Both names are good; the whole one is what is shown.
    assert_eq!(inner.child("added").unwrap().id, "outer/added");
    assert_eq!(inner.child("outer/added").unwrap().id, "outer/added");
    assert!(inner.add(idler("added")).is_err());
    recorder.wait_for("outer/added", "start", 1);

    supervisor.handle().restart("outer").unwrap();
    let again = take(&told);
    assert!(again.child("added").is_none());
    assert_eq!(again.snapshot().children.len(), 1);
    assert!(
        inner.add(idler("late")).is_err(),
        "the nested supervisor of the earlier run has ended"
    );
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(recorder.story("outer/added"), ["start 0", "stop shutdown 0"]);
    assert_eq!(
        recorder.story("outer"),
        ["start 0", "stop restarted 0", "start 0", "stop shutdown 0"]
    );
}

#[test]
fn hundred_nested_supervisors_leave_nothing_behind() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .children((0..100).map(|number| ChildSpec::new(format!("hundred{number}"), branch(&["x"]))))
        .start()
        .unwrap();
    recorder.wait_until(|events| events.len() == 200);
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(recorder.events().len(), 400);
    let is_gone = |name: String| threads_named(&name) == 0;
    eventually("the threads of all branches are gone", || {
        (0..100).all(|n| is_gone(format!("hundred{n}")))
    });
    eventually("and all below them", || (0..100).all(|n| is_gone(format!("hundred{n}/x"))));
}

#[test]
fn flag_of_the_outer_child_is_the_flag_of_all_below_it() {
    let flag = Arc::new(AtomicBool::new(true));
    let its = flag.clone();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .poll_interval(HOUR)
        .enabled(move |id| {
            assert_eq!(id, "outer", "flags are not inherited");
            its.load(Ordering::SeqCst)
        })
        .child(ChildSpec::new("outer", branch(&["one", "two"])))
        .start()
        .unwrap();
    recorder.wait_for("outer/two", "start", 1);
    flag.store(false, Ordering::SeqCst);
    supervisor.handle().poll_now().unwrap();
    wait_off(supervisor.handle(), "outer", OffBy::Flag);
    recorder.wait_for("outer/one", "stop", 1);
    recorder.wait_for("outer/two", "stop", 1);
    flag.store(true, Ordering::SeqCst);
    supervisor.handle().poll_now().unwrap();
    recorder.wait_for("outer/two", "start", 2);
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(
        recorder.story("outer"),
        ["start 0", "flag off", "stop disabled 0", "flag on", "start 0", "stop shutdown 0"]
    );
}

#[test]
fn nested_supervisor_that_gives_up_is_a_failure_of_the_outer_child() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(
            ChildSpec::new("outer", |ctx| {
                let doomed = ChildSpec::new("doomed", |_| Err("no luck".into()));
                Supervisor::builder()
                    .child(doomed.backoff(constant(MS)).max_restarts(1).significant(true))
                    .child(idler("other"))
                    .run(ctx)
            })
            .backoff(constant(HOUR)),
        )
        .start()
        .unwrap();
    let outer = wait_status(supervisor.handle(), "outer", ChildStatus::BackingOff);
    assert_eq!(outer.failures, 1);
    let Some(Exit::Failed(failure)) = outer.last_stop.map(|stop| stop.exit) else {
        panic!("it failed")
    };
    let gave_up: &ChildGaveUp = failure.error().downcast_ref().unwrap();
    assert_eq!(gave_up.id, "outer/doomed");
    assert_eq!(gave_up.exit.message(), Some("no luck"));
    assert_eq!(
        recorder.story("outer/doomed"),
        ["start 0", "stop exited 0", "start 1", "stop exited 1", "gave up"]
    );
    assert!(recorder.story("outer/other").ends_with(&["stop shutdown 0".into()]));
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn stuck_grandchild_makes_its_branch_overdue_and_nothing_else() {
    let (spec, mut gate, _started) = stubborn("stuck");
    let mut spec = Some(spec.stop_timeout(20 * MS));
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .stop_timeout(50 * MS)
        .child(ChildSpec::new("outer", move |ctx| {
            Supervisor::builder().children(spec.take()).child(idler("good")).run(ctx)
        }))
        .child(idler("neighbour"))
        .start()
        .unwrap();
    recorder.wait_for("outer/good", "start", 1);
    supervisor.handle().restart("outer").unwrap();
    recorder.wait_for("outer/stuck", "overdue", 1);
    recorder.wait_for("outer", "overdue", 1);
    recorder.wait_for("outer/good", "stop", 1);
    assert_eq!(supervisor.handle().child("neighbour").unwrap().status, ChildStatus::OnTrial);
    assert_eq!(
        recorder.count("outer", "start"),
        1,
        "promise 1 holds for the tree: it is not started again"
    );

    let report = supervisor.shutdown();
    assert_eq!(unstopped_and_phases(&report), [("outer", UnstoppedPhase::Running)]);
    gate.open();
    recorder.wait_for("outer/stuck", "stop", 1);
}

fn unstopped_and_phases(report: &ShutdownReport) -> Vec<(&str, UnstoppedPhase)> {
    report.unstopped.iter().map(|child| (child.id.as_str(), child.phase)).collect()
}

#[test]
fn released_grandchild_lets_its_branch_start_again() {
    let (spec, mut gate, _started) = stubborn("stuck");
    let mut spec = Some(spec.stop_timeout(20 * MS));
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(ChildSpec::new("outer", move |ctx| {
            Supervisor::builder().children(spec.take()).child(idler("good")).run(ctx)
        }))
        .start()
        .unwrap();
    recorder.wait_for("outer/good", "start", 1);
    supervisor.handle().restart("outer").unwrap();
    recorder.wait_for("outer/stuck", "overdue", 1);
    gate.open();
    recorder.wait_for("outer/good", "start", 2);
    assert_eq!(recorder.story("outer/stuck"), ["start 0", "overdue", "stop shutdown 0"]);
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn sinks_of_its_own_take_the_place_of_inherited_ones() {
    let (outer, inner) = (Recorder::default(), Recorder::default());
    let its = inner.clone();
    let supervisor = Supervisor::builder()
        .telemetry(outer.clone())
        .child(ChildSpec::new("outer", move |ctx| {
            Supervisor::builder().telemetry(its.clone()).child(idler("leaf")).run(ctx)
        }))
        .start()
        .unwrap();
    inner.wait_for("outer/leaf", "start", 1);
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(outer.whole_story(), ["outer: start 0", "outer: stop shutdown 0"]);
    check_trace(&inner.events(), None, false);
    check_trace(&outer.events(), None, false);
}

#[test]
fn bad_configuration_of_a_nested_supervisor_is_a_failure_that_names_it() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(HOUR))
        .child(ChildSpec::new("outer", branch(&["same", "same"])))
        .start()
        .unwrap();
    let stop = recorder.wait_for("outer", "stop exited", 1);
    assert!(stop.to_string().contains(r#"the id "same" is taken"#), "{stop}");
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn shutdown_of_the_inner_supervisor_alone_is_a_failure_of_the_outer_child() {
    let (handles, told) = unbounded();
    let supervisor = Supervisor::builder()
        .telemetry(())
        .backoff(constant(HOUR))
        .child(ChildSpec::new("outer", move |ctx| {
            Supervisor::builder().child(teller("leaf", handles.clone())).run(ctx)
        }))
        .start()
        .unwrap();
    take(&told).request_shutdown();
    let outer = wait_status(supervisor.handle(), "outer", ChildStatus::BackingOff);
    assert_eq!(
        outer.last_stop.map(|stop| (stop.cause, stop.exit.is_completed())),
        Some((StopCause::Exited, true))
    );
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn panic_beside_a_nested_supervisor_comes_after_its_end() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(HOUR))
        .child(ChildSpec::new("outer", |ctx| {
            let handle_of_leaf = ChildSpec::new("leaf", |ctx: &ChildContext| {
                ctx.supervisor().request_shutdown();
                idle(ctx)
            });
            Supervisor::builder().child(handle_of_leaf).run(ctx)?;
            panic!("after the nested one");
        }))
        .start()
        .unwrap();
    recorder.wait_for("outer", "stop exited", 1);
    assert_eq!(
        recorder.whole_story(),
        [
            "outer: start 0",
            "outer/leaf: start 0",
            "outer/leaf: stop shutdown 0",
            "outer: stop exited 0"
        ]
    );
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn callback_that_holds_a_nested_supervisor_does_not_keep_its_children_from_stopping() {
    let (mut held, bar): (Gate, _) = gate();
    let (entered, is_held) = unbounded();
    let (left, order) = unbounded();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .stop_timeout(100 * MS)
        .child(ChildSpec::new("outer", move |ctx| {
            let (bar, entered, mut asked) = (bar.clone(), entered.clone(), 0);
            Supervisor::builder()
                .poll_interval(MS)
                .enabled(move |_| {
                    asked += 1;
                    if asked > 1 {
                        let _ = entered.send(());
                        bar.wait();
                    }
                    true
                })
                .child(leaver("leaf", left.clone()))
                .run(ctx)
        }))
        .start()
        .unwrap();
    take(&is_held);
    let handle = supervisor.handle().clone();
    handle.request_shutdown();
    assert_eq!(
        order.recv_timeout(DEADLINE),
        Ok("leaf"),
        "it is asked to stop without the thread that is held"
    );
    held.open();
    let _ = supervisor.shutdown();
    recorder.wait_for("outer/leaf", "stop", 1);
}

#[test]
fn helper_of_a_body_cannot_run_a_nested_supervisor_that_would_outlive_it() {
    let (sender, refused) = unbounded();
    let supervisor = Supervisor::builder()
        .telemetry(())
        .child(ChildSpec::new("outer", move |ctx| {
            let (ctx_of_helper, sender) = (ctx.clone(), sender.clone());
            std::thread::spawn(move || {
                let result = Supervisor::builder().child(idler("leaf")).run(&ctx_of_helper);
                let _ = sender.send(result.unwrap_err().to_string());
            });
            idle(ctx)
        }))
        .start()
        .unwrap();
    assert_eq!(
        take(&refused),
        r#"a nested supervisor has to run on the own thread of its child "outer""#
    );
    assert!(supervisor.shutdown().is_clean());
}

/// A stop request that comes while a nested supervisor is being made finds nobody to pass it on to.
/// If it were lost, the child would wait for itself.
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

/// An error of the outer child, which the outer supervisor keeps.
#[derive(Debug)]
struct HoldsBranch(#[expect(dead_code, reason = "it is kept to be dropped")] Handle, Sender<()>);

impl fmt::Display for HoldsBranch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keeps a handle of what ran below")
    }
}

impl Error for HoldsBranch {}

impl Drop for HoldsBranch {
    fn drop(&mut self) {
        let _ = self.1.send(());
    }
}

#[test]
fn error_that_holds_a_handle_of_a_branch_is_dropped_with_its_supervisor() {
    let (sender, dropped) = unbounded();
    let supervisor = Supervisor::builder()
        .backoff(constant(HOUR))
        .child(ChildSpec::new("outer", move |ctx| {
            let (handles, handle) = bounded(1);
            let guide = ChildSpec::new("guide", move |ctx| {
                let _ = handles.send(ctx.supervisor().clone());
                ctx.supervisor().request_shutdown();
                idle(ctx)
            });
            Supervisor::builder().child(guide).run(ctx)?;
            Err(HoldsBranch(handle.recv()?, sender.clone()).into())
        }))
        .start()
        .unwrap();
    wait_status(supervisor.handle(), "outer", ChildStatus::BackingOff);
    assert!(supervisor.shutdown().is_clean());
    take(&dropped);
}
