//! Children that come after others.

use std::{
    panic::resume_unwind,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{
    AddErrorReason, Backoff, ChildSpec, ChildStatus, ConfigError, Event, EventKind, Exit, Handle,
    OffBy, RestartPolicy, Simulation, StartErrorReason, StopCause, Supervisor, SupervisorBuilder,
    Verdict, WaitError,
};

use crossbeam_channel::unbounded;

use crate::{subprocess::*, support::*};

fn migration() -> ChildSpec {
    unused("migration").restart(RestartPolicy::Transient)
}

/// `db`, and `orders` that comes after it, with a backoff of this length for both.
fn pair(backoff: Duration) -> Simulation {
    let builder = Supervisor::builder()
        .backoff(constant(backoff))
        .child(unused("db"))
        .child(unused("orders").after("db"));
    simulate(builder)
}

/// The pair, both running, and `db` healthy.
fn running_pair(backoff: Duration) -> Simulation {
    let mut simulation = pair(backoff);
    simulation.mark_healthy("db").unwrap();
    simulation.advance(Duration::ZERO);
    assert!(status(&simulation, "orders").is_running());
    simulation
}

fn sentence(simulation: &Simulation, id: &str) -> String {
    seen(simulation, id).to_string()
}

fn config_error(builder: SupervisorBuilder) -> ConfigError {
    match builder.start().unwrap_err().reason() {
        StartErrorReason::Config(invalid) => invalid.clone(),
        reason => panic!("{reason:?}"),
    }
}

// ── When it starts ──

#[test]
fn child_starts_when_the_permanent_one_before_it_is_healthy() {
    let mut simulation = pair(SECOND);
    assert_eq!(status(&simulation, "orders"), ChildStatus::Waiting);
    simulation.advance(59 * SECOND);
    assert_eq!(status(&simulation, "orders"), ChildStatus::Waiting);
    simulation.advance(SECOND);
    assert_eq!(words(&simulation, "db"), ["start 0", "healthy"]);
    assert_eq!(words(&simulation, "orders"), ["waits for db", "start 0"]);
}

#[test]
fn child_starts_when_the_transient_one_before_it_has_finished() {
    let builder = Supervisor::builder().child(migration()).child(unused("db").after("migration"));
    let mut simulation = simulate(builder);
    simulation.mark_healthy("migration").unwrap();
    simulation.advance(HOUR);
    assert_eq!(
        sentence(&simulation, "db"),
        "`db` waits for `migration`, which runs, and is ready when it has finished"
    );
    simulation.exit("migration", Exit::Completed).unwrap();
    simulation.advance(Duration::ZERO);
    assert!(status(&simulation, "db").is_running());
}

#[test]
fn order_of_the_list_does_not_matter() {
    let builder = Supervisor::builder()
        .child(unused("c").after("b").after("a"))
        .child(unused("b").after("a"))
        .child(unused("a"));
    let mut simulation = simulate(builder);
    for id in ["a", "b"] {
        assert_eq!(status(&simulation, "c"), ChildStatus::Waiting);
        simulation.mark_healthy(id).unwrap();
        simulation.advance(Duration::ZERO);
    }
    assert!(status(&simulation, "c").is_running());
}

#[test]
fn all_that_it_comes_after_has_to_be_ready() {
    let builder = Supervisor::builder()
        .child(unused("db"))
        .child(unused("queue"))
        .child(unused("orders").after("db").after("queue"));
    let mut simulation = simulate(builder);
    simulation.mark_healthy("queue").unwrap();
    simulation.advance(Duration::ZERO);
    assert!(sentence(&simulation, "orders").starts_with("`orders` waits for `db`, which is"));
    simulation.exit("queue", Exit::Completed).unwrap();
    simulation.mark_healthy("db").unwrap();
    simulation.advance(Duration::ZERO);
    assert!(sentence(&simulation, "orders").starts_with("`orders` waits for `queue`, which is"));
    assert_eq!(words(&simulation, "orders"), ["waits for db"], "reported once");
}

#[test]
fn recovery_ends_the_backoff_and_keeps_the_failures() {
    let mut simulation = running_pair(HOUR);
    simulation.exit("orders", Exit::failed("gone away")).unwrap();
    simulation.advance(MS);
    assert_eq!(status(&simulation, "orders"), ChildStatus::BackingOff, "`db` is still healthy");
    simulation.handle().restart("db").unwrap();
    simulation.advance(MS);
    assert_eq!(status(&simulation, "orders"), ChildStatus::Waiting);
    simulation.mark_healthy("db").unwrap();
    simulation.advance(Duration::ZERO);
    let orders = seen(&simulation, "orders");
    assert_eq!((orders.status, orders.failures, orders.run), (ChildStatus::OnTrial, 1, 2));
    // Once for each recovery: the next backoff is its own.
    simulation.exit("orders", Exit::failed("gone away")).unwrap();
    simulation.advance(59 * SECOND);
    assert_eq!(status(&simulation, "orders"), ChildStatus::BackingOff);
}

#[test]
fn recovery_ends_neither_a_wait_that_an_error_demands_nor_a_backoff_without_end() {
    let error = || Exit::failed(Verdict::retry_after(30 * SECOND, "too many requests"));
    let mut simulation = running_pair(HOUR);
    simulation.exit("orders", error()).unwrap();
    simulation.handle().restart("db").unwrap();
    simulation.advance(10 * SECOND);
    simulation.mark_healthy("db").unwrap();
    simulation.advance(Duration::ZERO);
    assert_eq!(seen(&simulation, "orders").retry_in, Some(20 * SECOND));
    simulation.advance(20 * SECOND);
    assert!(status(&simulation, "orders").is_running());

    let mut simulation = running_pair(Duration::MAX);
    simulation.exit("orders", Exit::failed("broken")).unwrap();
    simulation.handle().restart("db").unwrap();
    simulation.advance(SECOND);
    simulation.mark_healthy("db").unwrap();
    simulation.advance(HOUR);
    assert_eq!(seen(&simulation, "orders").retry_in, Some(Duration::MAX));
}

#[test]
fn recovery_leaves_a_child_that_got_no_thread_its_hundred_milliseconds() {
    let mut simulation = pair(Duration::ZERO);
    simulation.fail_next_spawn("orders");
    simulation.mark_healthy("db").unwrap();
    simulation.advance(Duration::ZERO);
    assert_eq!(words(&simulation, "orders"), ["waits for db", "stop not_spawned 0"]);
    simulation.handle().restart("db").unwrap();
    simulation.advance(10 * MS);
    simulation.mark_healthy("db").unwrap();
    simulation.advance(Duration::ZERO);
    assert_eq!(seen(&simulation, "orders").retry_in, Some(90 * MS));
}

#[test]
fn running_child_goes_on_when_what_it_comes_after_fails() {
    let mut simulation = running_pair(SECOND);
    simulation.exit("db", Exit::failed("connection refused")).unwrap();
    simulation.advance(HOUR);
    assert_eq!(words(&simulation, "orders"), ["waits for db", "start 0", "healthy"]);
}

#[test]
fn restart_by_hand_waits_too() {
    let mut simulation = running_pair(HOUR);
    simulation.exit("db", Exit::failed("connection refused")).unwrap();
    simulation.handle().restart("orders").unwrap();
    simulation.advance(SECOND);
    assert_eq!(status(&simulation, "orders"), ChildStatus::Waiting);
    simulation.handle().reset("orders").unwrap();
    simulation.advance(SECOND);
    assert_eq!(status(&simulation, "orders"), ChildStatus::Waiting);
    assert_eq!(
        words(&simulation, "orders"),
        ["waits for db", "start 0", "stop restarted 0", "waits for db"]
    );
}

#[test]
fn flag_and_operator_come_before_the_wait() {
    let on = Arc::new(AtomicBool::new(false));
    let its = on.clone();
    let builder = Supervisor::builder()
        .enabled(move |id| id != "orders" || its.load(Ordering::Relaxed))
        .child(unused("db"))
        .child(unused("orders").after("db"));
    let mut simulation = simulate(builder);
    assert_eq!(status(&simulation, "orders"), ChildStatus::Off { by: OffBy::Flag });
    on.store(true, Ordering::Relaxed);
    simulation.advance(SECOND);
    assert_eq!(status(&simulation, "orders"), ChildStatus::Waiting);
    simulation.handle().hold("orders").unwrap();
    simulation.advance(Duration::ZERO);
    assert_eq!(status(&simulation, "orders"), ChildStatus::Off { by: OffBy::Operator });
    simulation.mark_healthy("db").unwrap();
    simulation.advance(SECOND);
    assert_eq!(status(&simulation, "orders"), ChildStatus::Off { by: OffBy::Operator });
    assert_eq!(words(&simulation, "orders"), ["flag off", "flag on", "waits for db"]);
}

#[test]
fn waiting_asks_no_backoff_and_counts_nothing() {
    let mut simulation = pair(MS);
    for _ in 0..50 {
        simulation.exit("db", Exit::failed("connection refused")).unwrap();
        simulation.advance(MS);
    }
    let orders = seen(&simulation, "orders");
    assert_eq!((orders.status, orders.failures, orders.run), (ChildStatus::Waiting, 0, 0));
    assert_eq!(words(&simulation, "orders"), ["waits for db"]);
}

// ── What is seen ──

#[test]
fn sentence_says_for_whom_and_why_and_when_that_one_will_be_ready() {
    let mut simulation = pair(800 * MS);
    simulation.advance(2 * SECOND);
    let trial = "`orders` waits for `db`, which is on trial: ready in 58.0 s, or when it calls \
                 `mark_healthy`";
    assert_eq!(sentence(&simulation, "orders"), trial);
    let event = simulation.events().iter().find(|event| event.id == "orders").unwrap();
    assert_eq!(
        event.to_string(),
        "child `orders` waits for `db`, which is on trial: ready in 1 min 0 s, or when it calls \
         `mark_healthy`",
        "in the log from the first second"
    );
    let row = simulation.handle().snapshot().to_string();
    let row = row.lines().last().unwrap();
    assert!(row.starts_with("orders  waiting") && row.contains("  for `db`, which is on trial: r"));

    simulation.exit("db", Exit::failed("connection refused")).unwrap();
    simulation.advance(Duration::ZERO);
    assert_eq!(
        sentence(&simulation, "orders"),
        "`orders` waits for `db`, which is backing off: it failed after 2.0 s: connection refused; \
         1 failure; tried again in 800 ms"
    );
    simulation.advance(800 * MS);
    assert_eq!(
        sentence(&simulation, "orders"),
        "`orders` waits for `db`, which is on trial: ready in 1 min 0 s, or when it calls \
         `mark_healthy`; 1 failure; last time, it failed after 2.0 s: connection refused"
    );
    simulation.handle().hold("db").unwrap();
    simulation.advance(Duration::ZERO);
    let held = "`orders` waits for `db`, which is off (operator): held by the operator until \
                released; it was stopped after 0 µs";
    assert_eq!(sentence(&simulation, "orders"), held);
    simulation.handle().remove("db").unwrap();
    simulation.advance(Duration::ZERO);
    assert_eq!(sentence(&simulation, "orders"), "`orders` waits for `db`, which is not listed");
}

#[test]
fn child_that_is_ready_only_by_its_word_says_so() {
    let builder = Supervisor::builder()
        .child(unused("db").healthy_after(Duration::MAX))
        .child(unused("orders").after("db"));
    let mut simulation = simulate(builder);
    simulation.advance(HOUR);
    assert_eq!(
        sentence(&simulation, "orders"),
        "`orders` waits for `db`, which is on trial: ready when it calls `mark_healthy`"
    );
    let db = seen(&simulation, "db");
    assert_eq!(db.healthy_in, Some(Duration::MAX));
    simulation.mark_healthy("db").unwrap();
    simulation.advance(Duration::ZERO);
    assert_eq!(seen(&simulation, "db").healthy_in, None);
}

#[test]
fn along_a_chain_the_root_is_named() {
    let builder = Supervisor::builder()
        .backoff(constant(SECOND))
        .child(unused("db"))
        .child(unused("cache").after("db"))
        .child(unused("orders").after("cache"))
        .child(unused("mail").after("orders"));
    let mut simulation = simulate(builder);
    simulation.exit("db", Exit::failed("connection refused")).unwrap();
    simulation.advance(Duration::ZERO);
    let mail = seen(&simulation, "mail");
    let waiting = mail.waiting_for.clone().unwrap();
    assert_eq!((waiting.id.as_str(), waiting.root.as_str()), ("orders", "db"));
    assert!(
        mail.to_string().starts_with(
            "`mail` waits for `orders`, which waits for `db`, which is backing off: it failed"
        ),
        "{mail}"
    );
    assert_eq!(simulation.handle().snapshot().counts().waiting, 3);
    let error = simulation.handle().wait_until_healthy(Duration::ZERO).unwrap_err();
    let WaitError::NotHealthy(ill) = error else { panic!("{error}") };
    assert!(ill.iter().map(|child| child.id.as_str()).eq(["db"]), "the root, not the mountain");
}

#[test]
fn waiting_child_is_as_well_as_the_one_it_waits_for() {
    let mut simulation = pair(SECOND);
    let is_well = |simulation: &Simulation| simulation.handle().snapshot().is_healthy();
    let at_work =
        |simulation: &Simulation| simulation.handle().wait_until_healthy(Duration::ZERO).is_ok();
    assert!(is_well(&simulation) && !at_work(&simulation), "on its first trial");
    simulation.exit("db", Exit::failed("connection refused")).unwrap();
    simulation.advance(Duration::ZERO);
    assert!(!is_well(&simulation));
    simulation.handle().hold("db").unwrap();
    simulation.advance(Duration::ZERO);
    assert!(is_well(&simulation) && at_work(&simulation), "down on purpose");
    simulation.handle().remove("db").unwrap();
    simulation.advance(Duration::ZERO);
    assert!(!is_well(&simulation) && !at_work(&simulation));
}

#[test]
fn event_has_fields_for_whom_and_why() {
    let simulation = pair(SECOND);
    let event = simulation.events().iter().find(|event| event.id == "orders").unwrap();
    assert_eq!(event.name(), "circuit_breaker_supervisor.child.waiting");
    let fields: Vec<_> =
        event.fields().skip(6).map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        fields.join(" "),
        "waiting_for=db root=db reason=is on trial: ready in 1 min 0 s, or when it calls \
         `mark_healthy`"
    );
}

// ── Who is listed ──

#[test]
fn child_that_was_removed_is_waited_for_until_one_of_its_id_is_ready() {
    let mut simulation = running_pair(SECOND);
    simulation.handle().remove("db").unwrap();
    simulation.handle().restart("orders").unwrap();
    simulation.advance(SECOND);
    assert_eq!(sentence(&simulation, "orders"), "`orders` waits for `db`, which is not listed");
    simulation.handle().add(unused("db")).unwrap();
    simulation.advance(SECOND);
    assert_eq!(status(&simulation, "orders"), ChildStatus::Waiting);
    simulation.mark_healthy("db").unwrap();
    simulation.advance(Duration::ZERO);
    assert!(status(&simulation, "orders").is_running());
}

#[test]
fn child_that_is_added_after_a_ready_one_starts_at_once() {
    let mut simulation = running_pair(SECOND);
    simulation.handle().add(unused("late").after("db").after("orders")).unwrap();
    simulation.advance(Duration::ZERO);
    assert_eq!(words(&simulation, "late"), ["waits for orders"]);
    simulation.mark_healthy("orders").unwrap();
    simulation.advance(Duration::ZERO);
    simulation.handle().add(unused("later").after("db").after("orders")).unwrap();
    simulation.advance(Duration::ZERO);
    assert_eq!(words(&simulation, "late"), ["waits for orders", "start 0"]);
    assert_eq!(words(&simulation, "later"), ["start 0"]);
}

#[test]
fn unknown_ids_and_one_shot_children_are_errors_and_the_spec_comes_back() {
    let unknown = Supervisor::builder().child(idler("orders").after("db"));
    assert_eq!(
        config_error(unknown).to_string(),
        r#"the child "orders" comes after "db", which its supervisor does not list"#
    );
    let once = Supervisor::builder()
        .child(ChildSpec::once("job", |_| Ok(())))
        .child(idler("orders").after("job"));
    assert_eq!(
        config_error(once).to_string(),
        r#"the child "orders" comes after "job", which runs only once"#
    );

    let supervisor = Supervisor::builder()
        .child(idler("db"))
        .child(idler("orders").after("db"))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let error = handle.add(idler("mail").after("smtp")).unwrap_err();
    assert!(matches!(
        error.reason(),
        AddErrorReason::Config(ConfigError::UnknownAfter { after, .. }) if after == "smtp"
    ));
    assert_eq!(*error.into_spec().id(), "mail");
    // A job under an id for which somebody waits.
    handle.remove("db").unwrap();
    handle.wait_until_gone("db", DEADLINE).unwrap();
    let error = handle.add(ChildSpec::once("db", |_| Ok(()))).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"cannot add the child: the child "orders" comes after "db", which runs only once"#
    );
    handle.add(idler("db")).unwrap();
    // And once nobody does any more.
    for id in ["orders", "db"] {
        handle.remove(id).unwrap();
        handle.wait_until_gone(id, DEADLINE).unwrap();
    }
    handle.add(ChildSpec::once("db", |_| Ok(()))).unwrap();
    handle.wait_until_gone("db", DEADLINE).unwrap();
}

#[test]
fn circle_is_an_error_that_shows_the_circle() {
    let circle = Supervisor::builder()
        .child(idler("outside").after("a"))
        .child(idler("a").after("b"))
        .child(idler("b").after("c"))
        .child(idler("c").after("a"));
    let error = config_error(circle);
    let ConfigError::Circle(ids) = &error else { panic!("{error}") };
    assert!(ids.len() == 4 && ids.first() == ids.last());
    let text = error.to_string();
    let turns = ["a", "b", "c"].map(|start| {
        let ids: String = ["a", "b", "c", "a", "b", "c"].concat();
        let from = ids.find(start).unwrap();
        let ids = ids[from..from + 4].chars().map(|id| format!("{id:?}").replace('\'', "\""));
        format!(
            "children come after one another in a circle: {}",
            ids.collect::<Vec<_>>().join(" after ")
        )
    });
    assert!(turns.contains(&text), "{text}");

    let alone = config_error(Supervisor::builder().child(idler("a").after("a")));
    assert_eq!(alone.to_string(), r#"children come after one another in a circle: "a" after "a""#);

    // As one is added again, in the middle of a chain.
    let supervisor = Supervisor::builder()
        .child(idler("a"))
        .child(idler("b").after("a"))
        .child(idler("c").after("b"))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    handle.remove("a").unwrap();
    handle.wait_until_gone("a", DEADLINE).unwrap();
    let error = handle.add(idler("a").after("c")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot add the child: children come after one another in a circle: \
         \"a\" after \"c\" after \"b\" after \"a\""
    );
}

#[test]
fn in_a_nested_supervisor_ids_are_those_of_siblings() {
    let supervisor = Supervisor::builder()
        .child(ChildSpec::new("ingest", |ctx| {
            Supervisor::builder()
                .child(ChildSpec::new("db", |ctx| {
                    ctx.mark_healthy();
                    idle(ctx)
                }))
                .child(
                    ChildSpec::new("orders", |ctx| {
                        let info = ctx.supervisor().child("ingest/orders");
                        assert!(info.is_some());
                        ctx.mark_healthy();
                        idle(ctx)
                    })
                    .after("db"),
                )
                .run(ctx)
        }))
        .start()
        .unwrap();
    wait_status(supervisor.handle(), "ingest/orders", ChildStatus::Healthy);
    assert!(supervisor.shutdown().is_clean());
}

// ── Many ──

#[test]
fn ten_thousand_that_wait_for_one_are_reported_once_and_start_in_list_order() {
    let children = (0..10_000).map(|number| unused(&number.to_string()).after("db"));
    let builder = Supervisor::builder()
        .max_starts_per_second(1000)
        .backoff(constant(MS))
        .child(unused("db"))
        .children(children);
    let mut simulation = simulate(builder);
    let is_of_dependent = |event: &&Event| event.id != "db";
    assert_eq!(simulation.events().iter().filter(is_of_dependent).count(), 10_000);
    for _ in 0..100 {
        simulation.exit("db", Exit::failed("connection refused")).unwrap();
        simulation.advance(MS);
    }
    assert_eq!(simulation.events().iter().filter(is_of_dependent).count(), 10_000);
    simulation.advance(SECOND);
    simulation.mark_healthy("db").unwrap();
    for second in 1..=10 {
        simulation.advance(Duration::ZERO);
        let counts = simulation.handle().snapshot().counts();
        assert_eq!(counts.running, 1 + 1000 * second);
        assert_eq!(counts.due, 10_000 - 1000 * second);
        simulation.advance(SECOND);
    }
    let order = simulation
        .events()
        .iter()
        .filter(|event| is_of_dependent(event) && matches!(event.kind, EventKind::Started));
    assert!(order.zip(0..).all(|(event, number)| event.id == number.to_string().as_str()));
}

#[test]
fn messages_are_served_between_the_starts_of_those_that_recover_together() {
    let slot: Arc<OnceLock<Handle>> = Arc::default();
    let its = slot.clone();
    let builder = Supervisor::builder()
        .on_event(move |event| {
            if event.id == "0" && matches!(event.kind, EventKind::Started) {
                its.get().unwrap().reset("db").unwrap();
            }
        })
        .child(unused("db"))
        .children((0..20).map(|number| unused(&number.to_string()).after("db")));
    let mut simulation = simulate(builder);
    slot.set(simulation.handle().clone()).unwrap();
    simulation.mark_healthy("db").unwrap();
    simulation.advance(Duration::ZERO);
    let place = |of: &dyn Fn(&Event) -> bool| simulation.events().iter().position(of).unwrap();
    let order = place(&|event| is_order(event));
    let last = place(&|event| event.id == "19" && matches!(event.kind, EventKind::Started));
    assert!(order < last);
}

// ── A storm ──

#[test]
fn nothing_starts_before_what_it_comes_after_whatever_happens() {
    const CHAIN: [(&str, &[&str]); 5] = [
        ("db", &[]),
        ("queue", &[]),
        ("cache", &["db"]),
        ("orders", &["cache", "queue"]),
        ("mail", &["orders"]),
    ];
    fn spec(id: &'static str) -> ChildSpec {
        let after = CHAIN.iter().find(|(name, _)| *name == id).unwrap().1;
        let mut dice = Dice(id.len() as u64);
        let spec = ChildSpec::new(id, move |ctx| {
            match dice.roll(4) {
                0 => return Err("refused".into()),
                1 => ctx.sleep(MS / 4)?,
                _ => {}
            }
            ctx.mark_healthy();
            if dice.roll(3) == 0 {
                ctx.sleep(2 * MS)?;
                // Past the hook, which would print a line for each.
                resume_unwind(Box::new("fell over"));
            }
            idle(ctx)
        })
        .backoff(constant(MS));
        after.iter().fold(spec, |spec, other| spec.after(*other))
    }
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .children(CHAIN.iter().map(|(id, _)| spec(id)))
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    let mut dice = Dice(3);
    for _ in rounds(800) {
        let id = usize::try_from(dice.roll(5)).map(|place| CHAIN[place].0).unwrap();
        let _ = match dice.roll(6) {
            0 => handle.hold(id),
            1 | 2 => handle.release(id),
            3 => handle.restart(id),
            4 => handle.remove(id),
            _ => handle.reset(id),
        };
        for (id, _) in &CHAIN {
            if handle.child(id).is_none() {
                // Refused while something that it comes after is away.
                let _ = handle.add(spec(id));
            }
        }
        thread::sleep(MS / 4); // the pace of the storm
    }
    // All of it comes up in the end, also what is about to be removed, once it is added again.
    for (id, _) in &CHAIN {
        let _ = handle.release(id);
        eventually("everybody is well", || match handle.child(id) {
            Some(child) => child.status == ChildStatus::Healthy,
            None => {
                let _ = handle.add(spec(id));
                false
            }
        });
    }
    let report = shut_down(supervisor, Duration::MAX);
    assert!(report.is_clean(), "{report}");
    let events = recorder.events();
    check_trace(&events, Some(&report), true);
    // By the events, too: whoever starts comes after a `Healthy` of each before it.
    let mut healthy: Vec<&str> = Vec::new();
    for event in &events {
        let Some((id, after)) = CHAIN.iter().find(|(id, _)| event.id == *id) else { continue };
        match &event.kind {
            EventKind::Healthy { .. } => healthy.push(id),
            EventKind::Stopped { .. } => healthy.retain(|other| other != id),
            EventKind::Started => {
                let missing = after.iter().find(|other| !healthy.contains(other));
                assert_eq!(missing, None, "{event}");
            }
            _ => {}
        }
    }
    assert!(events.iter().any(|event| event.id == "mail" && word(event).starts_with("start")));
    let is_by_itself = |event: &&Event| match &event.kind {
        EventKind::Stopped { cause, .. } => *cause == StopCause::Exited,
        _ => false,
    };
    assert!(events.iter().filter(is_by_itself).count() > 10);
}

// ── What it is good for ──

/// An outage of 63 s, in which every run of these children fails at once. Returns how long after
/// its end the last of them ran again, and how many events there were until then.
fn outage(children: impl IntoIterator<Item = ChildSpec>, ids: &[&str]) -> (Duration, usize) {
    const STEP: Duration = Duration::from_millis(10);
    let mut simulation = simulate(Supervisor::builder().children(children));
    let is_up = |simulation: &Simulation, id: &&&str| status(simulation, id).is_running();
    // What works says so at once.
    let work = |simulation: &mut Simulation| {
        for id in ids {
            let _ = simulation.mark_healthy(id);
        }
        simulation.advance(Duration::ZERO);
        for id in ids {
            let _ = simulation.mark_healthy(id);
        }
        simulation.advance(Duration::ZERO);
    };
    work(&mut simulation);
    simulation.advance(600 * SECOND);
    let before = simulation.events().len();
    for _ in 0..6300 {
        for id in ids {
            let _ = simulation.exit(id, Exit::failed("connection refused"));
        }
        simulation.advance(STEP);
    }
    let mut back_after = Duration::ZERO;
    loop {
        work(&mut simulation);
        if ids.iter().all(|id| is_up(&simulation, &id)) {
            return (back_after, simulation.events().len() - before);
        }
        simulation.advance(STEP);
        back_after += STEP;
    }
}

// The figures stand in `src/docs/dependencies.md`.
#[test]
fn five_consumers_are_back_with_their_server() {
    const CONSUMERS: [&str; 5] = ["1", "2", "3", "4", "5"];
    let with = |probe: ChildSpec| {
        let after = CONSUMERS.map(|id| unused(id).after("redis"));
        let ids: Vec<_> = ["redis"].into_iter().chain(CONSUMERS).collect();
        outage([probe].into_iter().chain(after), &ids)
    };
    let milliseconds = |(back_after, lines): (Duration, usize)| (back_after.as_millis(), lines);
    assert_eq!(milliseconds(outage(CONSUMERS.map(unused), &CONSUMERS)), (35_270, 105));
    assert_eq!(milliseconds(with(unused("redis"))), (34_880, 41));
    for (seconds, figures) in [(1, (350, 153)), (5, (4070, 49))] {
        let backoff = Backoff::constant(seconds * SECOND);
        assert_eq!(milliseconds(with(unused("redis").backoff(backoff))), figures);
    }
}

// ── Locks ──

#[test]
fn children_can_be_added_while_those_that_wait_are_looked_at() {
    let supervisor = Supervisor::builder()
        .telemetry(())
        .child(idler("db"))
        .child(idler("orders").after("db"))
        .start()
        .unwrap();
    let (done, ends) = unbounded();
    for is_adding in [true, false, false] {
        let (handle, done) = (supervisor.handle().clone(), done.clone());
        thread::spawn(move || {
            for number in rounds(1000) {
                if is_adding {
                    handle.add(unused_at_all(number)).unwrap();
                } else {
                    assert!(handle.child("orders").unwrap().waiting_for.is_some());
                }
            }
            done.send(()).unwrap();
        });
    }
    for _ in 0..3 {
        take(&ends);
    }
}

/// A child that waits for ever.
fn unused_at_all(number: u64) -> ChildSpec {
    idler(&number.to_string()).after("orders")
}

// ── Bounds ──

#[test]
fn waiting_is_told_at_most_once_between_two_runs_whatever_becomes_of_a_start() {
    let (db, strings) = puppet("db");
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(db)
        .child(idler("orders").after("db").fresh_thread(true))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let mut dice = Dice(11);
    for _ in rounds(1500) {
        wait_status(handle, "orders", ChildStatus::Waiting);
        let run = strings.next_run().0;
        strings.act(Act::MarkHealthy);
        let until = Instant::now() + Duration::from_micros(dice.roll(150));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        handle.hold("orders").unwrap();
        wait_status(handle, "db", ChildStatus::Healthy);
        wait_off(handle, "orders", OffBy::Operator);
        handle.restart("db").unwrap();
        handle
            .wait_for("db", DEADLINE, |db| db.run > run && db.status == ChildStatus::OnTrial)
            .unwrap();
        handle.release("orders").unwrap();
    }
    let story = recorder.story("orders");
    let twice = story.windows(2).position(|two| two[0] == two[1] && two[0].starts_with("waits"));
    assert_eq!(twice, None, "of {}", story.len());
}

#[test]
fn memory_is_bounded_while_readiness_flips() {
    const FLIPS: u32 = 2000;
    if !is_inside() {
        // In a process of its own, in which nobody else takes memory.
        let name = "dependencies::memory_is_bounded_while_readiness_flips";
        return drop(run_to_the_end(again(name)));
    }
    let slot: Arc<OnceLock<Handle>> = Arc::default();
    let its = slot.clone();
    let (flips, memory) = (AtomicU32::new(0), Arc::new(AtomicU64::new(0)));
    let at_end = memory.clone();
    let builder = Supervisor::builder()
        .on_event(move |event| {
            if event.id == "db" && matches!(event.kind, EventKind::Healthy { .. }) {
                if flips.fetch_add(1, Ordering::Relaxed) < FLIPS {
                    its.get().unwrap().restart("db").unwrap();
                } else {
                    at_end.store(held_memory(), Ordering::Relaxed);
                }
            }
        })
        .child(unused("db").healthy_after(Duration::ZERO))
        .children((0..1000).map(|number| unused(&number.to_string()).after("db")));
    let mut simulation = Simulation::new(builder, 1).unwrap();
    slot.set(simulation.handle().clone()).unwrap();
    let before = held_memory();
    simulation.advance(Duration::ZERO);
    let grown = memory.load(Ordering::Relaxed).saturating_sub(before);
    assert!(grown < 30_000, "{grown} KiB more after {FLIPS} flips");
    println!("{DONE}");
}

#[test]
fn first_line_says_when_it_will_be_ready_in_any_order_of_the_list() {
    let builder = Supervisor::builder().child(unused("orders").after("db")).child(unused("db"));
    let simulation = simulate(builder);
    let event = simulation.events().iter().find(|event| event.id == "orders").unwrap();
    assert!(event.to_string().contains("ready in"), "{event}");
}

#[test]
fn reason_is_one_line() {
    let builder = Supervisor::builder()
        .backoff(constant(SECOND))
        .child(unused("db"))
        .child(unused("orders").after("db"));
    let mut simulation = simulate(builder);
    simulation.exit("db", Exit::failed("no\nwell\u{1b}[31m\r\nat all")).unwrap();
    simulation.handle().restart("orders").unwrap();
    simulation.advance(Duration::ZERO);
    let orders = seen(&simulation, "orders");
    let reason = orders.waiting_for.clone().unwrap().reason;
    assert!(!reason.contains(char::is_control), "{reason:?}");
    assert!(!orders.to_string().contains(char::is_control));
}
