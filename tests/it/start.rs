//! Start of a supervisor, until every enabled child has had its first start.

use std::{thread, time::Duration};

use circuit_breaker_supervisor::{ChildSpec, ChildStatus, Counts, OffBy, Supervisor};
use crossbeam_channel::unbounded;

use crate::support::*;

#[test]
fn supervisor_without_children_starts_and_ends_in_silence() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder().telemetry(recorder.clone()).start().unwrap();
    let snapshot = supervisor.handle().snapshot();
    assert_eq!(snapshot.counts(), Counts::default());
    assert!(snapshot.is_healthy());
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert_eq!(recorder.whole_story(), [""; 0]);
}

#[test]
fn enabled_children_have_been_started_when_start_returns() {
    let recorder = Recorder::default();
    let (a, runs_of_a) = puppet("a");
    let (b, runs_of_b) = puppet("b");
    let supervisor =
        Supervisor::builder().telemetry(recorder.clone()).child(a).child(b).start().unwrap();
    assert_eq!(recorder.whole_story(), ["a: start 0", "b: start 0"]);
    assert_eq!(supervisor.handle().snapshot().counts().running, 2);
    let (first, second) = (runs_of_a.next_run(), runs_of_b.next_run());
    assert_eq!((first, second), ((1, 0), (1, 0)), "each counts its own runs");
}

#[test]
fn children_are_started_in_the_order_in_which_they_were_added() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(idler("ch7"))
        .children(["ch3", "ch10"].map(idler))
        .child(idler("ch2"))
        .children([idler("ch5")])
        .start()
        .unwrap();
    let expected = ["ch7", "ch3", "ch10", "ch2", "ch5"];
    assert_eq!(recorder.whole_story(), expected.map(|id| format!("{id}: start 0")));
    let listed: Vec<_> = supervisor
        .handle()
        .snapshot()
        .children
        .into_iter()
        .map(|child| child.id.to_string())
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn child_that_never_returns_holds_up_nobodys_start() {
    let (deaf, _gate, started) = stubborn("deaf");
    let (sender, runs) = unbounded();
    let next = ChildSpec::new("next", move |ctx| {
        let _ = sender.send(());
        idle(ctx)
    });
    let supervisor =
        Supervisor::builder().child(deaf.stop_timeout(Duration::ZERO)).child(next).start().unwrap();
    take(&started);
    take(&runs);
    drop(supervisor);
}

#[test]
fn child_whose_flag_is_off_is_listed_and_never_runs() {
    let recorder = Recorder::default();
    let (off, strings) = puppet("off");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .enabled(|id| id != "off")
        .child(off)
        .child(idler("on"))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    handle.poll_now().unwrap();
    barrier(handle);
    let counts = handle.snapshot().counts();
    assert_eq!((counts.children, counts.running, counts.off), (2, 1, 1));
    let child = handle.child("off").unwrap();
    assert!(matches!(child.status, ChildStatus::Off { by: OffBy::Flag, .. }), "{child}");
    assert_eq!((child.run, child.uptime), (0, None));
    assert!(handle.snapshot().is_healthy(), "a flag that is off is no illness");
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(recorder.story("off"), ["flag off"]);
    assert!(strings.runs.is_empty());
}

#[test]
fn crash_without_a_backoff_set_gets_the_documented_default() {
    let recorder = Recorder::default();
    let (child, strings) = puppet("child");
    let _supervisor =
        Supervisor::builder().telemetry(recorder.clone()).child(child).start().unwrap();
    strings.next_run();
    strings.act(Act::Fail("no"));
    let delay = stop_of(&recorder.wait_for("child", "stop", 1)).retry_in.unwrap();
    assert!((90 * MS..=100 * MS).contains(&delay), "100 ms less a jitter of a tenth: {delay:?}");
    assert_eq!(strings.next_run().1, 1);
    strings.act(Act::Fail("again"));
    let delay = stop_of(&recorder.wait_for("child", "stop", 2)).retry_in.unwrap();
    assert!((180 * MS..=200 * MS).contains(&delay), "doubled: {delay:?}");
    check_trace(&recorder.events(), None, false);
}

#[test]
fn all_children_run_where_there_are_no_flags() {
    let supervisor = Supervisor::builder().children(["a", "b", "c"].map(idler)).start().unwrap();
    assert_eq!(supervisor.handle().snapshot().counts().running, 3);
    supervisor.handle().poll_now().unwrap();
    barrier(supervisor.handle());
    assert_eq!(supervisor.handle().snapshot().counts().running, 3);
}

#[test]
fn defaults_can_be_read() {
    let text = format!("{:?}", Supervisor::builder());
    for setting in [
        "\"supervisor\"",
        "poll_interval: 1s",
        "healthy_after: 60s",
        "stop_timeout: 5s",
        "initial: 100ms",
        "max: 60s",
    ] {
        assert!(text.contains(setting), "{setting} is not in {text}");
    }
}

#[test]
fn threads_bear_the_names_of_their_children_and_supervisor() {
    let current = || thread::current().name().map(str::to_owned);
    let (names, seen) = unbounded();
    let supervisors = names.clone();
    let supervisor = Supervisor::builder()
        .name("ingest")
        .on_event(move |event| drop(supervisors.send((word(event), current()))))
        .child(ChildSpec::new("db", move |ctx| {
            let (called, its) = (unbounded(), names.clone());
            let _guard = ctx.on_stop(move || {
                let _ = its.send((String::from("callback"), current()));
                called.0.send(())
            });
            // Only now: one that is set after the stop is called on this thread.
            let _ = names.send((String::from("body"), current()));
            // Until the callback has been called: a run that ends sooner takes it back.
            called.1.recv()?;
            Ok(())
        }))
        .start()
        .unwrap();
    let next = || take(&seen);
    let named = |what: &str, name: &str| (what.to_owned(), Some(name.to_owned()));
    assert_eq!(next(), named("start 0", "ingest"));
    assert_eq!(next(), named("body", "db"));
    supervisor.handle().request_shutdown();
    assert_eq!(next(), named("callback", "db:stop"));
    assert_eq!(next(), named("stop shutdown 0", "ingest"));
}

#[test]
fn start_returns_though_a_child_gets_no_thread() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(idler("huge").stack_size(IMPOSSIBLE_STACK).backoff(constant(HOUR)))
        .child(idler("small"))
        .start()
        .unwrap();
    assert_eq!(recorder.whole_story(), ["huge: stop not_spawned 0", "small: start 0"]);
    assert_eq!(supervisor.handle().child("huge").unwrap().status, ChildStatus::BackingOff);
}

#[test]
fn the_first_event_is_told_before_the_first_instruction_of_the_body() {
    let recorder = Recorder::default();
    let (sender, seen) = unbounded();
    let its = recorder.clone();
    let (gate, bar) = gate();
    let _supervisor = Supervisor::builder()
        .telemetry(recorder)
        .backoff(constant(Duration::ZERO))
        .child(ChildSpec::new("eager", move |ctx| {
            let told = its
                .of("eager")
                .iter()
                .any(|event| word(event).starts_with("start") && event.run == ctx.run());
            let _ = sender.send(told);
            if ctx.failures() < 200 {
                return Ok(());
            }
            bar.wait();
            Ok(())
        }))
        .start()
        .unwrap();
    for run in 0..=200 {
        assert!(take(&seen), "run {run} began before it was told of");
    }
    drop(gate);
}

#[test]
fn start_returns_though_slow_flags_fail_without_end() {
    // Each poll is due before the round of the last is over: there is always a round under way.
    let supervisor = Supervisor::builder()
        .telemetry(())
        .poll_interval(MS)
        .enabled(|_| -> bool {
            // A flag that is slow; nothing hopes that the time suffices. Were it faster, there
            // would be pauses between rounds.
            thread::sleep(MS / 10);
            std::panic::resume_unwind(Box::new("no flags today"))
        })
        .children((0..100).map(|number| idler(&number.to_string())))
        .start()
        .unwrap();
    assert_eq!(supervisor.handle().snapshot().counts().running, 100);
    assert!(supervisor.shutdown().is_clean());
}
