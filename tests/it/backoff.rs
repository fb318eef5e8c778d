//! Backoff after a failure, and the failures that are forgiven.

use std::time::{Duration, Instant};

use circuit_breaker_supervisor::{Backoff, ChildSpec, ChildStatus, Exit, StopCause, Supervisor};
use crossbeam_channel::{Receiver, unbounded};

use crate::support::*;

/// A backoff that says what it was asked.
fn told(delay: impl Fn(u32) -> Duration + Send + 'static) -> (Backoff, Receiver<u32>) {
    let (sender, asked) = unbounded();
    let backoff = Backoff::from_fn(move |attempt| {
        let _ = sender.send(attempt);
        delay(attempt)
    });
    (backoff, asked)
}

#[test]
fn crashed_child_waits_out_its_backoff() {
    let recorder = Recorder::default();
    let (backoff, asked) = told(|attempt| 10 * MS * 2u32.pow(attempt));
    let (sender, begun) = unbounded();
    let _supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(backoff)
        .child(ChildSpec::new("child", move |ctx| {
            let _ = sender.send(Instant::now());
            if ctx.failures() < 4 { panic!("no") } else { idle(ctx) }
        }))
        .start()
        .unwrap();
    let begun = [(); 5].map(|()| take(&begun));
    for (attempt, pair) in (1..).zip(begun.windows(2)) {
        let gap = pair[1] - pair[0];
        assert!(gap >= 10 * MS * 2u32.pow(attempt), "attempt {attempt} came after {gap:?}");
        let stop = stop_of(&recorder.wait_for("child", "stop", attempt as usize));
        assert_eq!(stop.retry_in, Some(10 * MS * 2u32.pow(attempt)));
    }
    assert_eq!(
        asked.try_iter().collect::<Vec<_>>(),
        [1, 2, 3, 4],
        "once per failure, never for attempt 0"
    );
    check_trace(&recorder.events(), None, false);
}

#[test]
fn child_in_backoff_is_down_and_says_for_how_long() {
    let mut simulation = simulate(
        Supervisor::builder().backoff(constant(HOUR)).children([unused("child"), unused("other")]),
    );
    simulation.exit("child", Exit::failed("the disk is full")).unwrap();
    simulation.advance(SECOND);
    let child = seen(&simulation, "child");
    assert_eq!(
        (child.status, child.is_running(), child.uptime),
        (ChildStatus::BackingOff, false, None)
    );
    assert_eq!(child.retry_in, Some(HOUR - SECOND));
    let snapshot = simulation.handle().snapshot();
    let counts = snapshot.counts();
    assert_eq!((counts.children, counts.running, counts.backing_off), (2, 1, 1));
    assert!(!snapshot.is_healthy());
    let table = snapshot.to_string();
    assert!(
        table.contains("the disk is full") && table.contains("tried again in 59 min 59 s"),
        "{table}"
    );
}

#[test]
fn being_healthy_forgives_the_failures_while_the_child_runs() {
    let (backoff, asked) = told(|_| Duration::ZERO);
    let mut simulation = simulate(
        Supervisor::builder().backoff(backoff).child(unused("child").healthy_after(5 * SECOND)),
    );
    for failures in 0..4 {
        simulation.advance(5 * SECOND - Duration::from_nanos(1));
        let trial = seen(&simulation, "child");
        assert_eq!(
            (trial.status, trial.failures),
            (ChildStatus::OnTrial, failures.min(1)),
            "never early: {trial}"
        );
        simulation.advance(Duration::from_nanos(1));
        let healthy = seen(&simulation, "child");
        assert_eq!(
            (healthy.status, healthy.failures),
            (ChildStatus::Healthy, 0),
            "it reads 0 while the child runs"
        );
        assert_eq!(healthy.uptime, Some(5 * SECOND));
        simulation.exit("child", Exit::failed("no")).unwrap();
    }
    let run = ["start 1", "healthy", "stop exited 0"];
    let expected = [["start 0", "healthy", "stop exited 0"], run, run, run].concat();
    assert_eq!(
        words(&simulation, "child"),
        [&expected[..], &["start 1"]].concat(),
        "healthy once in each run"
    );
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), [1, 1, 1, 1]);
    check_trace(simulation.events(), None, false);
}

#[test]
fn child_that_lasts_on_its_thread_is_healthy_and_never_early() {
    let (child, strings) = puppet("child");
    let supervisor =
        Supervisor::builder().telemetry(()).child(child.healthy_after(5 * MS)).start().unwrap();
    strings.next_run();
    let child = wait_status(supervisor.handle(), "child", ChildStatus::Healthy);
    assert!(child.uptime.unwrap() >= 5 * MS, "never early: {child}");
}

#[test]
fn child_that_does_not_last_is_not_forgiven() {
    let (backoff, asked) = told(|_| Duration::ZERO);
    let mut simulation =
        simulate(Supervisor::builder().healthy_after(HOUR).backoff(backoff).child(unused("child")));
    for _ in 0..4 {
        simulation.advance(HOUR - Duration::from_nanos(1));
        simulation.exit("child", Exit::failed("no")).unwrap();
    }
    assert_eq!(seen(&simulation, "child").failures, 4);
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn child_may_say_itself_that_it_is_healthy() {
    let recorder = Recorder::default();
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .healthy_after(Duration::MAX)
        .backoff(constant(Duration::ZERO))
        .child(child)
        .start()
        .unwrap();
    strings.act(Act::Fail("no"));
    strings.act(Act::Fail("no"));
    for _ in 0..3 {
        strings.act(Act::MarkHealthy);
    }
    let child = wait_status(supervisor.handle(), "child", ChildStatus::Healthy);
    assert_eq!(child.failures, 0);
    // What it said right before its end counts, too.
    strings.act(Act::Fail("no"));
    strings.act(Act::MarkHealthy);
    strings.act(Act::Fail("no"));
    recorder.wait_for("child", "start", 5);
    let expected = [
        "start 0",
        "stop exited 0",
        "start 1",
        "stop exited 1",
        "start 2",
        "healthy",
        "stop exited 0",
        "start 1",
        "healthy",
        "stop exited 0",
        "start 1",
    ];
    assert_eq!(recorder.story("child"), expected);
    check_trace(&recorder.events(), None, false);
}

#[test]
fn every_run_is_healthy_where_no_uptime_is_asked_for() {
    let (backoff, asked) = told(|_| Duration::ZERO);
    let mut simulation = simulate(
        Supervisor::builder().healthy_after(Duration::ZERO).backoff(backoff).child(unused("child")),
    );
    for _ in 0..20 {
        simulation.exit("child", Exit::panicked("no")).unwrap();
    }
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), [1; 20]);
    let story = words(&simulation, "child");
    assert!(
        story.chunks_exact(3).skip(1).all(|run| run == ["start 1", "healthy", "stop exited 0"]),
        "{story:?}"
    );
    check_trace(simulation.events(), None, false);
}

#[test]
fn child_that_gets_no_thread_fails_and_is_tried_again() {
    let recorder = Recorder::default();
    let (backoff, asked) = told(|attempt| if attempt == 3 { HOUR } else { Duration::ZERO });
    let began = Instant::now();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(idler("huge").stack_size(IMPOSSIBLE_STACK).backoff(backoff))
        .child(idler("other"))
        .start()
        .unwrap();
    recorder.wait_for("huge", "stop", 3);
    assert!(
        began.elapsed() >= 200 * MS,
        "100 ms at least between the attempts, though the backoff said none"
    );
    assert_eq!(
        recorder.story("huge"),
        ["stop not_spawned 0", "stop not_spawned 1", "stop not_spawned 2"]
    );
    let events = recorder.of("huge");
    let stop = stop_of(&events[0]);
    assert_eq!(stop.retry_in, Some(100 * MS));
    assert_eq!((stop.cause, stop.uptime), (StopCause::NotSpawned, Duration::ZERO));
    let Exit::Failed(failure) = stop.exit else { panic!("an operating system's error") };
    assert!(failure.error().downcast_ref::<std::io::Error>().is_some(), "{failure:?}");
    assert!(!failure.message().is_empty());
    assert_eq!(stop_of(&events[2]).retry_in, Some(HOUR));
    assert!(events.windows(2).all(|pair| pair[1].at - pair[0].at >= 100 * MS - MS), "{events:?}");
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), [1, 2, 3]);
    let huge = wait_status(supervisor.handle(), "huge", ChildStatus::BackingOff);
    assert_eq!(huge.failures, 3);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn children_come_back_in_the_order_of_their_deadlines() {
    let child = |id: &str, seconds| unused(id).backoff(constant(Duration::from_secs(seconds)));
    let mut simulation = simulate(Supervisor::builder().children([
        child("a", 900),
        child("b", 50),
        child("c", 450),
    ]));
    for id in ["a", "b", "c"] {
        simulation.exit(id, Exit::failed("no")).unwrap();
    }
    simulation.advance(HOUR);
    let again = simulation.events().iter().filter(|event| word(event) == "start 1");
    let order: Vec<_> =
        again.map(|event| (event.id.to_string(), event.at - simulation.origin())).collect();
    assert_eq!(
        order,
        [("b", 50), ("c", 450), ("a", 900)]
            .map(|(id, seconds)| (id.to_owned(), Duration::from_secs(seconds)))
    );
    check_trace(simulation.events(), None, false);
}

#[test]
fn restart_has_a_timer_of_its_own_and_does_not_wait_for_the_poll() {
    let builder =
        Supervisor::builder().poll_interval(HOUR).enabled(|_| true).backoff(constant(30 * SECOND));
    let mut simulation = simulate(builder.child(unused("child")));
    for attempt in 0..3 {
        assert_eq!(seen(&simulation, "child").failures, attempt);
        simulation.exit("child", Exit::panicked("no")).unwrap();
        simulation.advance(30 * SECOND - Duration::from_nanos(1));
        assert_eq!(status(&simulation, "child"), ChildStatus::BackingOff);
        simulation.advance(Duration::from_nanos(1));
        assert_eq!(status(&simulation, "child"), ChildStatus::OnTrial);
    }
}

#[test]
fn backoff_that_falls_is_taken_at_its_word() {
    let (backoff, _asked) = told(|attempt| [40, 10, 0][attempt as usize - 1] * SECOND);
    let mut simulation = simulate(Supervisor::builder().child(unused("child").backoff(backoff)));
    for delay in [40, 10, 0] {
        simulation.exit("child", Exit::failed("no")).unwrap();
        simulation.advance(delay * SECOND);
        assert_eq!(status(&simulation, "child"), ChildStatus::OnTrial, "after {delay} s");
    }
    let stops = simulation.events().iter().filter(|event| word(event).starts_with("stop"));
    let delays: Vec<_> = stops.map(|event| stop_of(event).retry_in.unwrap()).collect();
    assert_eq!(delays, [40 * SECOND, 10 * SECOND, Duration::ZERO]);
    check_trace(simulation.events(), None, false);
}

#[test]
fn failures_of_one_child_are_nothing_to_another() {
    let recorder = Recorder::default();
    let (bad, bad_strings) = puppet("bad");
    let (down, down_strings) = puppet("down");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(bad)
        .child(down.backoff(constant(HOUR)))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    down_strings.act(Act::Fail("no"));
    let before = wait_status(handle, "down", ChildStatus::BackingOff);
    for _ in 0..10 {
        bad_strings.next_run();
        bad_strings.act(Act::Panic("no"));
    }
    assert_eq!(bad_strings.next_run().1, 10);
    let (added, strings) = puppet("added");
    handle.add(added).unwrap();
    assert_eq!(strings.next_run().1, 0, "a child is added at once, whatever is down");
    let after = handle.child("down").unwrap();
    assert_eq!((after.status, after.failures), (before.status, before.failures));
    assert!(after.retry_in <= before.retry_in && after.retry_in > Some(HOUR / 2));
    check_trace(&recorder.events(), None, false);
}

#[test]
fn endless_backoff_is_ended_by_a_reset() {
    for endless in
        [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(i64::MAX as u64)]
    {
        let (child, strings) = puppet("child");
        let supervisor = Supervisor::builder()
            .healthy_after(Duration::MAX)
            .stop_timeout(Duration::MAX)
            .backoff(constant(endless))
            .child(child)
            .start()
            .unwrap();
        let handle = supervisor.handle();
        strings.next_run();
        strings.act(Act::Return);
        let child = wait_status(handle, "child", ChildStatus::BackingOff);
        assert_eq!(child.retry_in, Some(Duration::MAX));
        assert!(child.to_string().contains("only after a reset"), "{child}");
        handle.reset("child").unwrap();
        assert_eq!(strings.next_run().1, 0);
        assert!(supervisor.shutdown().is_clean());
    }
}

#[test]
fn backoff_of_a_nanosecond_and_of_none_restart_at_once() {
    for delay in [Duration::from_nanos(1), Duration::ZERO] {
        let (child, strings) = puppet("child");
        let _supervisor =
            Supervisor::builder().backoff(constant(delay)).child(child).start().unwrap();
        strings.act(Act::Return);
        strings.next_run();
        assert_eq!(strings.next_run().1, 1);
    }
}

#[test]
fn jitter_only_ever_shortens() {
    let backoff = Backoff::constant(2 * HOUR).jitter(1.0).seed(7);
    let mut simulation = simulate(Supervisor::builder().backoff(backoff).child(unused("child")));
    for _ in 0..20 {
        simulation.exit("child", Exit::Completed).unwrap();
        let delay = seen(&simulation, "child").retry_in.unwrap();
        simulation.advance(delay);
    }
    let stops = simulation.events().iter().filter(|event| word(event).starts_with("stop"));
    let delays: Vec<_> = stops.map(|event| stop_of(event).retry_in.unwrap()).collect();
    assert!(delays.iter().all(|delay| *delay <= 2 * HOUR), "{delays:?}");
    assert!(
        delays.iter().any(|delay| *delay < HOUR) && delays.iter().any(|delay| *delay > HOUR),
        "it spreads: {delays:?}"
    );
}
