//! Trees of supervisors, as handles see them: snapshots, paths, waits and health.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{
    ChildContext, ChildResult, ChildSpec, ChildStatus, CommandError, ConfigError, Event, EventKind,
    Handle, OffBy, StartErrorReason, Supervisor, SupervisorBuilder, WaitError,
};
use crossbeam_channel::{Receiver, unbounded};

use crate::support::*;

/// A child that runs a supervisor with these children, which are made anew for each run.
fn branch<I: IntoIterator<Item = ChildSpec>>(
    id: &str,
    children: impl Fn() -> I + Send + 'static,
) -> ChildSpec {
    ChildSpec::new(id, move |ctx| {
        Supervisor::builder().backoff(constant(MS)).children(children()).run(ctx)
    })
}

fn broken(id: &str) -> ChildSpec {
    ChildSpec::new(id, |_| Err("no such queue".into())).backoff(constant(HOUR))
}

fn start(child: ChildSpec) -> Supervisor {
    builder().child(child).start().unwrap()
}

fn builder() -> SupervisorBuilder {
    Supervisor::builder().name("shop").backoff(constant(MS))
}

#[track_caller]
fn wait_running(handle: &Handle, path: &str) {
    handle.wait_for(path, DEADLINE, |child| child.is_running()).unwrap();
}

// ── Snapshots and health ──

#[test]
fn snapshot_shows_what_runs_below_and_the_table_as_well() {
    let supervisor = builder()
        .child(branch("ingest", || {
            [branch("feeds", || [healthy("north"), broken("south")]), healthy("parser")]
        }))
        .child(healthy("reports"))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    handle
        .wait_for("ingest/feeds/south", DEADLINE, |south| south.status == ChildStatus::BackingOff)
        .unwrap();
    for path in ["ingest/feeds/north", "ingest/parser", "reports"] {
        wait_status(handle, path, ChildStatus::Healthy);
    }
    let snapshot = handle.snapshot();
    let ids: Vec<_> =
        snapshot.to_string().lines().skip(2).map(|row| row[..18].to_owned()).collect();
    assert_eq!(
        ids.iter().map(|id| id.trim()).collect::<Vec<_>>(),
        [
            "ingest",
            "ingest/feeds",
            "ingest/feeds/north",
            "ingest/feeds/south",
            "ingest/parser",
            "reports"
        ]
    );
    let ingest = &snapshot.children[0];
    let below = ingest.branch.as_ref().unwrap();
    assert_eq!((&*below.name, below.children.len(), below.is_running), ("ingest", 2, true));
    let counts = snapshot.counts();
    assert_eq!((counts.children, counts.running, counts.backing_off), (6, 5, 1));
    assert!(!snapshot.is_healthy(), "what fails below counts");
    assert!(snapshot.to_string().starts_with("shop: not healthy, 5 of 6 children running"));
    assert!(handle.child("ingest").unwrap().branch.is_none(), "only in a snapshot");

    handle.hold("ingest/feeds/south").unwrap();
    wait_off(handle, "ingest/feeds/south", OffBy::Operator);
    assert!(handle.snapshot().is_healthy());
}

#[test]
fn branch_is_healthy_as_soon_as_all_below_it_is_well_at_work() {
    let (done, finish) = unbounded::<()>();
    let supervisor = start(branch("outer", move || {
        let finish = finish.clone();
        [
            branch("inner", move || {
                let finish = finish.clone();
                [ChildSpec::new("late", move |ctx| {
                    ctx.recv(&finish)?;
                    ctx.mark_healthy();
                    idle(ctx)
                })]
            }),
            healthy("db"),
            idler("orders").after("db"),
        ]
    }));
    let handle = supervisor.handle();
    wait_status(handle, "outer/db", ChildStatus::Healthy);
    wait_running(handle, "outer/orders");
    wait_running(handle, "outer/inner/late");
    assert_eq!(handle.child("outer").unwrap().status, ChildStatus::OnTrial);
    let error = handle.wait_until_healthy(Duration::ZERO).unwrap_err();
    let WaitError::NotHealthy(ill) = error else { panic!("{error}") };
    let mut ids: Vec<_> = ill.iter().map(|child| child.id.to_string()).collect();
    ids.sort();
    assert_eq!(ids, ["outer/inner/late", "outer/orders"], "those who are not well, and no branch");

    done.send(()).unwrap();
    wait_status(handle, "outer/inner", ChildStatus::Healthy);
    assert_eq!(handle.child("outer").unwrap().status, ChildStatus::OnTrial);
    // What is off does not count.
    handle.hold("outer/orders").unwrap();
    wait_status(handle, "outer", ChildStatus::Healthy);
    handle.wait_until_healthy(DEADLINE).unwrap();
}

#[test]
fn branch_without_children_is_healthy_and_so_is_one_of_which_all_is_off() {
    let supervisor = builder()
        .child(branch("empty", || []))
        .child(ChildSpec::new("off", |ctx| {
            Supervisor::builder()
                .enabled(|_| false)
                .child(idler("db"))
                .child(idler("orders").after("db"))
                .run(ctx)
        }))
        .start()
        .unwrap();
    supervisor.handle().wait_until_healthy(DEADLINE).unwrap();
}

#[test]
fn dependents_of_a_branch_start_when_all_below_it_is_well() {
    let (done, finish) = unbounded::<()>();
    let supervisor = builder()
        .child(idler("orders").after("ingest"))
        .child(branch("ingest", move || {
            let finish = finish.clone();
            [ChildSpec::new("db", move |ctx| {
                ctx.recv(&finish)?;
                ctx.mark_healthy();
                idle(ctx)
            })]
        }))
        .start()
        .unwrap();
    wait_running(supervisor.handle(), "ingest/db");
    assert_eq!(supervisor.handle().child("orders").unwrap().status, ChildStatus::Waiting);
    done.send(()).unwrap();
    wait_running(supervisor.handle(), "orders");
}

#[test]
fn branch_that_is_shutting_down_is_no_failure() {
    let (leaf, gate, started) = stubborn("leaf");
    let leaf = std::sync::Mutex::new(Some(leaf.stop_timeout(HOUR)));
    let supervisor = start(branch("ingest", move || leaf.lock().unwrap().take()));
    take(&started);
    let handle = supervisor.handle();
    handle.hold("ingest").unwrap();
    handle.wait_for("ingest/leaf", DEADLINE, |leaf| leaf.stopping.is_some()).unwrap();
    assert!(handle.snapshot().is_healthy());
    drop(gate);
    wait_off(handle, "ingest", OffBy::Operator);
    assert!(handle.snapshot().children[0].branch.is_none());
    assert!(handle.child("ingest/leaf").is_none());
}

// ── Paths ──

#[test]
fn commands_and_queries_take_the_paths_that_the_log_prints() {
    let supervisor = start(branch("a", || [branch("b", || [healthy("c")])]));
    let handle = supervisor.handle();
    let path = "a/b/c";
    wait_status(handle, path, ChildStatus::Healthy);
    assert_eq!(handle.child(path).unwrap().id, path);
    handle.restart(path).unwrap();
    handle.wait_for(path, DEADLINE, |child| child.run == 2).unwrap();
    handle.hold(path).unwrap();
    wait_off(handle, path, OffBy::Operator);
    handle.reset(path).unwrap();
    handle.release(path).unwrap();
    wait_status(handle, path, ChildStatus::Healthy);
    handle.remove(path).unwrap();
    let gone = handle.wait_until_gone(path, DEADLINE).unwrap();
    assert!(gone.is_none_or(|child| child.id == path));
    assert!(handle.child(path).is_none());
    assert_eq!(handle.restart(path), Err(CommandError::UnknownId(path.into())));
    for unknown in ["a/x", "a/b/", "/a", "a//b", "x/b", "a/b/c/d", ""] {
        assert!(handle.child(unknown).is_none(), "{unknown}");
        assert_eq!(handle.hold(unknown), Err(CommandError::UnknownId(unknown.into())));
    }
}

#[test]
fn in_a_branch_a_path_begins_there_or_at_the_root() {
    let (sender, handles) = unbounded::<Handle>();
    let supervisor = start(branch("a", move || {
        let sender = sender.clone();
        [
            ChildSpec::new("teller", move |ctx| {
                let _ = sender.send(ctx.supervisor().clone());
                idle(ctx)
            }),
            // Of the same name as the branch.
            branch("a", || [healthy("b")]),
            healthy("b"),
        ]
    }));
    wait_running(supervisor.handle(), "a/a/b");
    let handle: Handle = take(&handles);
    let id = |path: &str| handle.child(path).map(|child| child.id.to_string());
    assert_eq!(id("b").as_deref(), Some("a/b"));
    assert_eq!(id("a/b").as_deref(), Some("a/b"), "the whole path is tried first");
    assert_eq!(id("a/a/b").as_deref(), Some("a/a/b"));
    assert_eq!(id("a/a").as_deref(), Some("a/a"));
    assert_eq!(id("a").as_deref(), Some("a/a"), "it lists no child above it");
    assert_eq!(id("a/a/a/b"), None);
}

#[test]
fn hold_by_a_path_is_for_this_run_of_the_branch() {
    let supervisor = start(branch("ingest", || [healthy("parser")]));
    let handle = supervisor.handle();
    wait_running(handle, "ingest/parser");
    handle.hold("ingest/parser").unwrap();
    wait_off(handle, "ingest/parser", OffBy::Operator);
    handle.restart("ingest").unwrap();
    wait_running(handle, "ingest/parser");
}

#[test]
fn id_with_a_slash_is_an_error() {
    let error = Supervisor::builder().child(idler("a/b")).start().unwrap_err();
    assert_eq!(error.to_string(), r#"cannot start the supervisor: the id "a/b" holds a `/`"#);
    assert!(matches!(
        error.reason(),
        StartErrorReason::Config(ConfigError::SlashInId(id)) if id == "a/b"
    ));
}

// ── Waits ──

#[test]
fn wait_by_a_path_waits_for_the_branch_over_its_restarts() {
    let (runs, starts) = unbounded::<()>();
    let fails = Arc::new(AtomicBool::new(true));
    let its = fails.clone();
    let supervisor = start(ChildSpec::new("ingest", move |ctx| {
        let _ = runs.send(());
        let fails = its.clone();
        let child = ChildSpec::new("parser", move |ctx| {
            if fails.load(Ordering::SeqCst) {
                return Err("not yet".into());
            }
            ctx.mark_healthy();
            idle(ctx)
        });
        Supervisor::builder().child(child.max_restarts(0).significant(true)).run(ctx)
    }));
    let handle = supervisor.handle().clone();
    let waiter = thread::spawn(move || {
        handle.wait_for("ingest/parser", DEADLINE, |parser| parser.status == ChildStatus::Healthy)
    });
    for _ in 0..20 {
        take(&starts);
    }
    fails.store(false, Ordering::SeqCst);
    let parser = waiter.join().unwrap().unwrap();
    assert_eq!(parser.id, "ingest/parser");
}

#[test]
fn wait_by_a_path_waits_for_a_child_that_is_added_below() {
    let (sender, handles) = unbounded::<Handle>();
    let supervisor = start(branch("ingest", move || {
        let sender = sender.clone();
        [ChildSpec::new("teller", move |ctx| {
            let _ = sender.send(ctx.supervisor().clone());
            idle(ctx)
        })]
    }));
    let inner: Handle = take(&handles);
    for number in rounds(50) {
        let (handle, id) = (supervisor.handle().clone(), format!("late-{number}"));
        let path = format!("ingest/{id}");
        let its = path.clone();
        let waiter =
            thread::spawn(move || handle.wait_for(&its, DEADLINE, |late| late.is_running()));
        Dice(number).dawdle();
        inner.add(idler(&id)).unwrap();
        assert_eq!(waiter.join().unwrap().unwrap().id, *path);
    }
}

#[test]
fn only_an_unlisted_first_id_fails_at_once() {
    let supervisor = builder().child(idler("leaf")).start().unwrap();
    let handle = supervisor.handle();
    let wait = |path: &str, limit| handle.wait_for(path, limit, |_| true).unwrap_err();
    assert!(matches!(wait("x/y", DEADLINE), WaitError::UnknownId(id) if id == "x/y"));
    // A leaf might run a supervisor later.
    let error = wait("leaf/y", 10 * MS);
    assert!(matches!(&error, WaitError::TimedOut(Some(leaf)) if leaf.id == "leaf"), "{error}");
    assert!(handle.wait_until_gone("leaf/y", DEADLINE).unwrap().is_none());
    let its = handle.clone();
    let waiter = thread::spawn(move || its.wait_for("leaf/y", DEADLINE, |_| true).unwrap_err());
    drop(supervisor);
    let error = waiter.join().unwrap();
    assert!(matches!(error, WaitError::Ended(_)), "{error}");
}

#[test]
fn child_that_ends_with_its_branch_is_gone() {
    let supervisor = start(branch("ingest", || [healthy("parser")]));
    let handle = supervisor.handle().clone();
    wait_running(&handle, "ingest/parser");
    let its = handle.clone();
    for number in rounds(50) {
        let its = its.clone();
        let waiter = thread::spawn(move || its.wait_until_gone("ingest/parser", DEADLINE).unwrap());
        Dice(number).dawdle();
        handle.hold("ingest").unwrap();
        // It was gone already, or its last state is given.
        let parser = waiter.join().unwrap();
        assert!(parser.is_none_or(|parser| parser.id == "ingest/parser"));
        handle.release("ingest").unwrap();
        wait_running(&handle, "ingest/parser");
    }
}

#[test]
fn thread_of_any_supervisor_along_the_path_cannot_wait() {
    // The sink is called on the thread of the outermost, the middle and the innermost one.
    for level in ["a", "a/b", "a/b/c"] {
        let slot: Arc<OnceLock<Handle>> = Arc::default();
        let (its, (sender, errors)) = (slot.clone(), unbounded());
        let sink = move |event: &Event| {
            let Some(handle) = its.get().filter(|_| event.id == level) else { return };
            let one = handle.wait_for("a/b/c", MS, |_| false).unwrap_err();
            let all = handle.wait_until_healthy(MS).unwrap_err();
            let gone = handle.wait_until_gone("a/b/c", MS).unwrap_err();
            let _ = sender.send([one, all, gone]);
        };
        let inner = sink.clone();
        let supervisor = builder()
            .on_event(sink)
            .child(ChildSpec::new("a", move |ctx| {
                let (sink, innermost) = (inner.clone(), inner.clone());
                Supervisor::builder()
                    .on_event(sink)
                    .child(ChildSpec::new("b", move |ctx| {
                        let sink = innermost.clone();
                        Supervisor::builder().on_event(sink).child(healthy("c")).run(ctx)
                    }))
                    .run(ctx)
            }))
            .start()
            .unwrap();
        let handle = supervisor.handle();
        wait_status(handle, "a", ChildStatus::Healthy);
        slot.set(handle.clone()).unwrap();
        handle.reset(level).unwrap(); // an event, and no more
        for error in take(&errors) {
            assert!(matches!(error, WaitError::OnSupervisorThread), "{level}: {error}");
        }
    }
}

#[test]
fn wait_until_healthy_names_what_is_ill_below() {
    let supervisor = builder()
        .child(branch("ingest", || {
            [broken("db"), healthy("orders").after("db"), healthy("mail").after("orders")]
        }))
        .child(healthy("reports").after("ingest"))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    wait_status(handle, "ingest/db", ChildStatus::BackingOff);
    let error = handle.wait_until_healthy(Duration::ZERO).unwrap_err();
    let text = error.to_string();
    let WaitError::NotHealthy(ill) = error else { panic!("{text}") };
    let ids: Vec<_> = ill.iter().map(|child| child.id.as_str()).collect();
    assert_eq!(ids, ["ingest/db"], "{text}");
}

#[test]
fn wait_until_healthy_keeps_its_limit_beside_a_branch_that_crashes_all_the_time() {
    let supervisor = start(ChildSpec::new("ingest", |ctx| {
        let child = ChildSpec::new("parser", |_| Err("no".into()));
        Supervisor::builder().child(child.max_restarts(0).significant(true)).run(ctx)
    }));
    let error = supervisor.handle().wait_until_healthy(100 * MS);
    assert!(error.is_err());
    let error = supervisor.handle().wait_for("ingest/parser", 100 * MS, |_| false).unwrap_err();
    assert!(matches!(error, WaitError::TimedOut(_)), "{error}");
}

/// What a wait by a path says when the own supervisor has ended, and the branch has not.
fn ended_beside_a_stuck_branch(wait: impl FnOnce(&Handle) -> String + Send + 'static) -> String {
    let (leaf, gate, started) = stubborn("leaf");
    let leaf = std::sync::Mutex::new(Some(leaf.stop_timeout(HOUR)));
    let supervisor = start(branch("a", move || leaf.lock().unwrap().take()));
    take(&started);
    let handle = supervisor.handle().clone();
    let (sender, result) = unbounded();
    thread::spawn(move || sender.send(wait(&handle)));
    let _ = shut_down(supervisor, 50 * MS);
    let result = take(&result);
    drop(gate);
    result
}

/// Calls the outer handle on the thread of the branch `a`, while `a` is stopping.
fn on_the_thread_of_a_stopping_branch(
    call: impl Fn(&Handle) -> String + Send + Sync + 'static,
) -> String {
    let slot: Arc<OnceLock<Handle>> = Arc::default();
    let (sender, said) = unbounded();
    let its = slot.clone();
    let call = Arc::new(call);
    let supervisor = Supervisor::builder()
        .child(ChildSpec::new("a", move |ctx| {
            let (slot, sender, call) = (its.clone(), sender.clone(), call.clone());
            Supervisor::builder()
                .on_event(move |event: &Event| {
                    if matches!(event.kind, EventKind::Stopped { .. }) {
                        if let Some(handle) = slot.get() {
                            let _ = sender.send(call(handle));
                        }
                    }
                })
                .child(healthy("x"))
                .run(ctx)
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    wait_status(handle, "a", ChildStatus::Healthy);
    slot.set(handle.clone()).unwrap();
    handle.hold("a").unwrap();
    take(&said)
}

#[test]
fn wait_for_a_path_ends_with_its_supervisor() {
    let said = ended_beside_a_stuck_branch(|handle| {
        format!("{:?}", handle.wait_for("a/leaf", HOUR, |_| false).is_err())
    });
    assert_eq!(said, "true");
}

#[test]
fn wait_until_gone_of_a_path_ends_with_its_supervisor() {
    let said = ended_beside_a_stuck_branch(|handle| {
        format!("{:?}", handle.wait_until_gone("a/leaf", HOUR).is_err())
    });
    assert_eq!(said, "true");
}

#[test]
fn wait_for_a_listing_ends_with_its_supervisor() {
    let said = ended_beside_a_stuck_branch(|handle| {
        format!("{:?}", handle.wait_for("a/none", HOUR, |_| true).is_err())
    });
    assert_eq!(said, "true");
}

#[test]
fn wait_until_healthy_goes_through_the_restart_of_a_branch() {
    let runs = Arc::new(AtomicU32::new(0));
    let its = runs.clone();
    let (go, gone) = unbounded::<()>();
    let supervisor = Supervisor::builder()
        .backoff(constant(50 * MS))
        .child(ChildSpec::new("ingest", move |ctx| {
            let (runs, gone) = (its.clone(), gone.clone());
            let child = ChildSpec::new("parser", move |ctx| {
                if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                    ctx.recv(&gone)?;
                    return Err("not yet".into());
                }
                ctx.mark_healthy();
                idle(ctx)
            });
            Supervisor::builder().child(child.max_restarts(0).significant(true)).run(ctx)
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    handle.wait_for("ingest/parser", DEADLINE, |parser| parser.is_running()).unwrap();
    let its = handle.clone();
    let waiter = thread::spawn(move || its.wait_until_healthy(DEADLINE));
    go.send(()).unwrap();
    let result = waiter.join().unwrap();
    assert!(result.is_ok(), "{result:?}");
}

#[test]
fn wait_until_healthy_notices_what_is_given_up_in_a_branch_on_trial() {
    let (gate_of_sink, bar) = gate();
    let (sender, held) = unbounded();
    let (tell, handles) = unbounded::<Handle>();
    let supervisor = Supervisor::builder()
        .child(ChildSpec::new("a", move |ctx| {
            let (bar, sender, tell) = (bar.clone(), sender.clone(), tell.clone());
            Supervisor::builder()
                .on_event(move |event| {
                    if matches!(event.kind, EventKind::Healthy { .. }) {
                        let _ = sender.send(());
                        bar.wait();
                    }
                })
                .child(ChildSpec::new("x", move |ctx| {
                    let _ = tell.send(ctx.supervisor().clone());
                    ctx.mark_healthy();
                    idle(ctx)
                }))
                .run(ctx)
        }))
        .start()
        .unwrap();
    let inner = take(&handles);
    take(&held);
    let handle = supervisor.handle().clone();
    let (answer, answers) = unbounded();
    thread::spawn(move || answer.send(handle.wait_until_healthy(HOUR)));
    inner.add(ChildSpec::new("broken", |_| Err("no".into())).max_restarts(0)).unwrap();
    drop(gate_of_sink);
    wait_status(&inner, "broken", ChildStatus::GaveUp);
    assert!(take(&answers).is_err());
}

#[test]
fn wait_until_healthy_on_the_thread_of_a_stopping_branch_is_an_error() {
    let said = on_the_thread_of_a_stopping_branch(|handle| match handle.wait_until_healthy(MS) {
        Err(WaitError::OnSupervisorThread) => String::from("on supervisor thread"),
        other => format!("{other:?}"),
    });
    assert_eq!(said, "on supervisor thread");
}

// ── A storm ──

fn crashing(ctx: &ChildContext, crashes: &Receiver<()>) -> ChildResult {
    ctx.mark_healthy();
    ctx.recv(crashes)?;
    Err("crashed".into())
}

#[test]
fn tree_can_be_asked_while_its_branches_come_and_go() {
    let (crash, crashes) = unbounded::<()>();
    let leaves = move || {
        let crashes = crashes.clone();
        let child = ChildSpec::new("leaf", move |ctx| crashing(ctx, &crashes));
        [child.max_restarts(0).significant(true), healthy("other").after("leaf")]
    };
    let leaves = Arc::new(std::sync::Mutex::new(leaves));
    let supervisor = builder()
        .children(["north", "south"].map(|id| {
            let leaves = leaves.clone();
            branch(id, move || {
                let leaves = leaves.clone();
                [branch("deep", move || leaves.lock().unwrap()())]
            })
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    thread::scope(|scope| {
        for seed in 0..3 {
            let (handle, crash) = (handle.clone(), crash.clone());
            scope.spawn(move || {
                let mut dice = Dice(seed);
                for _ in rounds(200) {
                    let side = if dice.roll(2) == 0 { "north" } else { "south" };
                    let path = format!("{side}/deep/leaf");
                    match dice.roll(9) {
                        0 => drop(crash.send(())),
                        1 => drop(handle.snapshot().to_string()),
                        2 => drop(handle.child(&path)),
                        3 => drop(handle.restart(&path)),
                        4 => drop(handle.wait_for(&path, MS, |leaf| leaf.failures > 0)),
                        5 => drop(handle.restart(side)),
                        6 => drop(handle.wait_until_healthy(MS)),
                        7 => drop(handle.wait_until_gone(&path, MS)),
                        _ => drop(handle.remove(&format!("{side}/deep/other"))),
                    }
                }
            });
        }
    });
    drop(crash);
    let report = shut_down(supervisor, Duration::MAX);
    assert!(report.is_clean(), "{report}");
}
