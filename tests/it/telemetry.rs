//! Events that sinks receive: their order, and what a handle answers meanwhile.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{
    ChildSpec, ChildStatus, Event, EventKind, Exit, FieldValue, Handle, OffBy, RestartPolicy,
    StopCause, Supervisor, TelemetrySink, Verdict,
};
use crossbeam_channel::{bounded, unbounded};

use crate::support::*;

#[test]
fn one_crash_is_a_start_a_stop_and_a_start() {
    let recorder = Recorder::default();
    let (child, strings) = puppet("child");
    let _supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(child)
        .start()
        .unwrap();
    strings.next_run();
    strings.act(Act::Panic("no"));
    let (run, failures) = strings.next_run();
    assert_eq!(recorder.story("child"), ["start 0", "stop exited 0", "start 1"]);
    let events = recorder.events();
    assert_eq!((events[0].run, events[1].run, events[2].run), (1, 1, run));
    assert_eq!(failures, 1);
    check_trace(&events, None, false);
}

#[test]
fn each_way_to_end_can_be_told_apart() {
    let recorder = Recorder::default();
    let flag = Arc::new(AtomicBool::new(true));
    let its = flag.clone();
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .poll_interval(Duration::MAX)
        .enabled(move |id| id != "child" || its.load(Ordering::SeqCst))
        .backoff(constant(Duration::ZERO))
        .child(child)
        .child(idler("huge").stack_size(IMPOSSIBLE_STACK).backoff(constant(HOUR)))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    strings.next_run();
    for act in [Act::Return, Act::Fail("the text"), Act::Panic("the panic")] {
        strings.act(act);
        strings.next_run();
    }
    handle.restart("child").unwrap();
    strings.next_run();
    handle.hold("child").unwrap();
    wait_off(handle, "child", OffBy::Operator);
    handle.release("child").unwrap();
    strings.next_run();
    flag.store(false, Ordering::SeqCst);
    handle.poll_now().unwrap();
    wait_off(handle, "child", OffBy::Flag);
    flag.store(true, Ordering::SeqCst);
    handle.poll_now().unwrap();
    strings.next_run();
    handle.remove("child").unwrap();
    handle.wait_until_gone("child", DEADLINE).unwrap();
    let (child, strings) = puppet("child");
    handle.add(child).unwrap();
    strings.next_run();
    let report = supervisor.shutdown();

    let stops: Vec<_> = recorder
        .events()
        .iter()
        .filter(|event| word(event).starts_with("stop") && !event.id.starts_with("barrier"))
        .map(stop_of)
        .collect();
    let told: Vec<_> =
        stops.iter().map(|stop| (stop.cause, stop.exit.name(), stop.retry_in.is_some())).collect();
    let expected = [
        (StopCause::NotSpawned, "failed", true),
        (StopCause::Exited, "completed", true),
        (StopCause::Exited, "failed", true),
        (StopCause::Exited, "panicked", true),
        (StopCause::Restarted, "failed", false),
        (StopCause::Held, "failed", false),
        (StopCause::Disabled, "failed", false),
        (StopCause::Removed, "failed", false),
        (StopCause::Shutdown, "failed", false),
    ];
    assert_eq!(told, expected);
    assert_eq!(stops[2].exit.message(), Some("the text"));
    assert_eq!(stops[3].exit.message(), Some("the panic"));
    check_trace(&recorder.events(), Some(&report), true);
}

#[test]
fn failure_that_is_retried_shows_when_and_one_that_is_not_shows_none() {
    let recorder = Recorder::default();
    let (retried, first) = puppet("retried");
    let (finished, second) = puppet("finished");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(HOUR))
        .child(retried)
        .child(finished.restart(RestartPolicy::Transient))
        .child(ChildSpec::once("once", |_| Err("no".into())))
        .start()
        .unwrap();
    first.act(Act::Fail("no"));
    second.act(Act::Return);
    assert_eq!(stop_of(&recorder.wait_for("retried", "stop", 1)).retry_in, Some(HOUR));
    assert_eq!(stop_of(&recorder.wait_for("finished", "stop", 1)).retry_in, None);
    assert_eq!(stop_of(&recorder.wait_for("once", "stop", 1)).retry_in, None);
    let text = recorder.of("retried")[1].to_string();
    assert!(
        text.starts_with("child `retried` failed after ")
            && text.ends_with(": no; tried again in 1 h 0 min"),
        "{text}"
    );
    drop(supervisor);
}

#[test]
fn kinds_of_events_have_stable_names() {
    let recorder = Recorder::default();
    let (child, strings) = puppet("child");
    let (deaf, _gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .enabled(|id| if id == "deaf" { panic!("no") } else { true })
        .child(child.max_restarts(0))
        .child(deaf.stop_timeout(Duration::ZERO))
        .start()
        .unwrap();
    take(&started);
    strings.act(Act::MarkHealthy);
    strings.act(Act::Return);
    recorder.wait_for("child", "gave up", 1);
    drop(supervisor);
    let mut names: Vec<_> = recorder
        .events()
        .iter()
        .map(|event| (word(event).split(' ').next().unwrap().to_owned(), event.name()))
        .collect();
    names.sort();
    names.dedup();
    let expected = [
        ("gave", "circuit_breaker_supervisor.child.gave_up"),
        ("healthy", "circuit_breaker_supervisor.child.healthy"),
        ("overdue", "circuit_breaker_supervisor.child.overdue"),
        ("panic", "circuit_breaker_supervisor.callback.panic"),
        ("start", "circuit_breaker_supervisor.child.start"),
        ("stop", "circuit_breaker_supervisor.child.stop"),
    ];
    assert_eq!(names, expected.map(|(word, name)| (word.to_owned(), name)));
}

#[test]
fn slow_sink_loses_nothing_and_keeps_the_order() {
    let recorder = Recorder::default();
    let (tick, slowness) = (2 * MS, crossbeam_channel::never::<()>());
    let supervisor = Supervisor::builder()
        .on_event(move |_| {
            let _ = slowness.recv_timeout(tick);
        })
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .children(["a", "b"].map(|id| ChildSpec::new(id, |_| Err("no".into()))))
        .start()
        .unwrap();
    recorder.wait_for("a", "start", 50);
    recorder.wait_for("b", "start", 50);
    let report = supervisor.shutdown();
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn sink_that_asks_sees_what_it_was_told() {
    let handle: Arc<OnceLock<Handle>> = Arc::default();
    let its = handle.clone();
    let (sender, wrong) = unbounded();
    let (count, seen) = unbounded();
    let supervisor = Supervisor::builder()
        .backoff(constant(Duration::ZERO))
        .on_event(move |event| {
            let Some(handle) = its.get() else { return };
            let Some(child) = handle.child(&event.id) else {
                let _ = sender.send(format!("{event}, but it is not listed"));
                return;
            };
            let fits = match &event.kind {
                EventKind::Started => {
                    child.is_running() && child.run == event.run && child.failures == event.failures
                }
                EventKind::Stopped { cause, exit, retry_in, .. } => {
                    let last = child.last_stop.as_ref();
                    let failures =
                        u32::from(retry_in.is_some() || child.status == ChildStatus::GaveUp);
                    !child.is_running()
                        && child.run == event.run
                        && child.failures == event.failures + failures
                        && last.is_some_and(|last| {
                            last.cause == *cause && last.exit.message() == exit.message()
                        })
                }
                EventKind::Healthy { .. } => {
                    child.status == ChildStatus::Healthy && child.failures == 0
                }
                EventKind::Overdue { .. } => {
                    child.is_overdue && child.status == ChildStatus::Stopping
                }
                EventKind::GaveUp => child.status == ChildStatus::GaveUp,
                _ => true,
            };
            if !fits {
                let _ = sender.send(format!("{event}, but {child}"));
            }
            let _ = count.send(());
        })
        .start()
        .unwrap();
    handle.set(supervisor.handle().clone()).unwrap();
    let handle = supervisor.handle();
    handle.add(ChildSpec::new("crasher", |_| Err("no".into()))).unwrap();
    let (deaf, mut gate, started) = stubborn("deaf");
    handle.add(deaf.stop_timeout(Duration::ZERO)).unwrap();
    let (child, strings) = puppet("child");
    handle.add(child.max_restarts(1)).unwrap();
    take(&started);
    handle.hold("deaf").unwrap();
    strings.next_run();
    strings.act(Act::MarkHealthy);
    wait_status(handle, "child", ChildStatus::Healthy);
    strings.act(Act::Fail("one"));
    strings.act(Act::Fail("two"));
    wait_status(handle, "child", ChildStatus::GaveUp);
    handle.wait_for("deaf", DEADLINE, |child| child.is_overdue).unwrap();
    gate.open();
    wait_off(handle, "deaf", OffBy::Operator);
    handle.restart("child").unwrap();
    handle.remove("child").unwrap();
    handle.wait_until_gone("child", DEADLINE).unwrap();
    for _ in 0..200 {
        take(&seen);
    }
    assert_eq!(wrong.try_iter().next(), None);
}

#[test]
fn every_sink_gets_every_event() {
    let (one, two) = (Recorder::default(), Arc::new(Recorder::default()));
    let boxed: Box<dyn TelemetrySink> = Box::new(two.clone());
    let (sender, copies) = unbounded();
    let supervisor = Supervisor::builder()
        .telemetry(one.clone())
        .telemetry(())
        .telemetry(boxed)
        .telemetry(sender)
        .on_event(|_| ())
        .child(idler("child"))
        .start()
        .unwrap();
    assert!(supervisor.shutdown().is_clean());
    let of =
        |events: &[Event]| events.iter().map(|event| (event.seq, word(event))).collect::<Vec<_>>();
    let expected = vec![(0, "start 0".to_owned()), (1, "stop shutdown 0".to_owned())];
    assert_eq!(of(&one.events()), expected);
    assert_eq!(of(&two.events()), expected);
    assert_eq!(of(&copies.try_iter().collect::<Vec<_>>()), expected);
}

#[test]
fn channel_sink_never_blocks_and_shows_what_it_dropped_as_a_gap() {
    let recorder = Recorder::default();
    let (sender, events) = bounded(2);
    let supervisor = Supervisor::builder()
        .telemetry(sender)
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(ChildSpec::new("child", |ctx| {
            if ctx.failures() < 3 { Err("no".into()) } else { idle(ctx) }
        }))
        .start()
        .unwrap();
    recorder.wait_for("child", "start 3", 1);
    assert_eq!((take(&events).seq, take(&events).seq), (0, 1));
    assert!(supervisor.shutdown().is_clean());
    let last = take(&events);
    assert_eq!((last.seq, word(&last)), (7, "stop shutdown 3".to_owned()), "five were dropped");
    assert!(events.try_recv().is_err());
}

#[test]
fn sink_whose_receiver_is_gone_harms_nobody() {
    let (sender, events) = bounded(1);
    drop(events);
    let supervisor = Supervisor::builder().telemetry(sender).child(idler("child")).start().unwrap();
    assert_eq!(supervisor.handle().snapshot().counts().running, 1);
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn stopped_is_told_after_the_last_instruction_of_the_body() {
    let inside = Arc::new(AtomicBool::new(false));
    let (seen, wrong) = (inside.clone(), Arc::new(AtomicBool::new(false)));
    let its = wrong.clone();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .on_event(move |_| {
            if seen.load(Ordering::SeqCst) {
                its.store(true, Ordering::SeqCst);
            }
        })
        .backoff(constant(Duration::ZERO))
        .child(ChildSpec::new("child", move |ctx| {
            let flag = inside.clone();
            inside.store(true, Ordering::SeqCst);
            let _last = OnDrop(move || {
                thread::yield_now();
                flag.store(false, Ordering::SeqCst);
            });
            if ctx.run() % 2 == 0 { panic!("no") } else { Err("no".into()) }
        }))
        .start()
        .unwrap();
    recorder.wait_for("child", "start", 100);
    drop(supervisor);
    assert!(!wrong.load(Ordering::SeqCst));
}

/// The fields of an event that not all events have, as a line, with its level.
fn line(event: &Event) -> String {
    let common = ["event", "supervisor", "child", "seq", "run", "failures"];
    let keys: Vec<_> = event.fields().map(|(key, _)| key).take(common.len()).collect();
    assert_eq!(keys, common);
    let fields = event.fields().skip(common.len()).map(|(key, value)| format!(" {key}={value}"));
    let name = event.name().rsplit('.').next().unwrap();
    format!("{} {name}{}", event.level(), fields.collect::<String>())
}

#[test]
fn each_event_has_its_level_and_its_fields() {
    let flag = Arc::new(AtomicBool::new(false));
    let its = flag.clone();
    let (child, deaf) = (unused("child"), unused("deaf"));
    let breaker = child.breaker();
    let builder = Supervisor::builder()
        .name("the one")
        .telemetry(())
        .poll_interval(SECOND)
        .healthy_after(HOUR)
        .backoff(constant(500 * MS))
        .enabled(move |id| match id {
            "child" => its.load(Ordering::SeqCst),
            "deaf" => panic!("no\nanswer"),
            _ => true,
        })
        .child(child.failure_threshold(2).watchdog(4 * SECOND).max_restarts(9))
        .child(deaf.stop_timeout(SECOND));
    let mut simulation = simulate(builder);
    flag.store(true, Ordering::SeqCst);
    simulation.advance(SECOND);
    simulation.exit("child", Exit::failed("no\nroute")).unwrap();
    simulation.advance(SECOND);
    breaker.report_failure("late");
    simulation.advance(600 * MS);
    simulation.mark_healthy("child").unwrap();
    simulation.heartbeat("child", "reading").unwrap();
    simulation.advance(4 * SECOND);
    simulation.advance(3 * SECOND);
    simulation.exit("child", Exit::panicked("index")).unwrap();
    simulation.advance(SECOND);
    simulation.exit("child", Exit::failed(Verdict::give_up("no licence"))).unwrap();
    simulation.advance(SECOND);
    simulation.ignore_stop_for("deaf", 2 * SECOND);
    simulation.handle().hold("deaf").unwrap();
    simulation.advance(3 * SECOND);
    let of = |id: &str| {
        let events = simulation.events().iter().filter(|event| event.id == *id);
        events.map(line).collect::<Vec<_>>()
    };
    assert_eq!(
        of("child"),
        [
            "INFO flag enabled=false",
            "INFO flag enabled=true",
            "INFO start",
            "WARN stop cause=exited exit=failed failed=true uptime_ms=0 retry_in_ms=500 \
             error=no\\nroute",
            "INFO start",
            "ERROR tripped reported=1 error=late",
            "WARN stop cause=tripped exit=completed failed=true uptime_ms=500 retry_in_ms=500",
            "INFO start",
            "INFO healthy forgiven=2 failing_for_ms=1600 marked=true",
            "ERROR hung doing=reading silent_ms=4000",
            "WARN stop cause=hung exit=completed failed=true uptime_ms=4100 retry_in_ms=500",
            "INFO start",
            "ERROR stop cause=exited exit=panicked failed=true uptime_ms=2500 retry_in_ms=500 \
             error=index",
            "INFO start",
            "WARN stop cause=exited exit=failed failed=true uptime_ms=500 verdict=give_up \
             error=no licence",
            "ERROR gave_up",
        ]
    );
    assert_eq!(
        of("deaf"),
        [
            "ERROR panic callback=enabled error=no\\nanswer",
            "INFO start",
            "INFO order order=hold",
            "WARN overdue stopping_for_ms=1000",
            "INFO stop cause=held exit=completed failed=false uptime_ms=13600",
        ]
    );
    let mut fields = simulation.events().iter().flat_map(Event::fields);
    assert_eq!(fields.nth(1), Some(("supervisor", FieldValue::Text("the one"))));
    let whole = ("error", FieldValue::Text("no\nroute"));
    assert!(fields.any(|field| field == whole), "a value is whole, and its text is one line");
}
