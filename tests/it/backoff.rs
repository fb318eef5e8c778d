//! How long children stay down, and how failures are forgiven.

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

// BO-01, TE-09
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
            if ctx.attempt_count() < 4 { panic!("no") } else { idle(ctx) }
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
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), [1, 2, 3, 4], "once per failure, never for attempt 0");
    check_trace(&recorder.events(), None, false);
}

// BO-02, QU-02
#[test]
fn child_in_backoff_is_down_and_says_for_how_long() {
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder().backoff(constant(HOUR)).child(child).child(idler("other")).start().unwrap();
    let handle = supervisor.handle();
    strings.next_run();
    strings.act(Act::Fail("the disk is full"));
    let child = wait_status(handle, "child", ChildStatus::BackingOff);
    assert!(!child.is_running() && child.uptime.is_none());
    let left = child.retry_in.unwrap();
    assert!(left <= HOUR && left > HOUR / 2, "{left:?}");
    let counts = handle.snapshot().counts();
    assert_eq!((counts.children, counts.running, counts.backing_off), (2, 1, 1));
    assert!(!handle.snapshot().is_healthy());
    let table = handle.snapshot().to_string();
    assert!(table.contains("the disk is full") && table.contains("tried again in 59 min"), "{table}");
    assert!(strings.runs.is_empty());
}

// BO-05, BO-10
#[test]
fn being_healthy_forgives_the_failures_while_the_child_runs() {
    let recorder = Recorder::default();
    let (backoff, asked) = told(|_| Duration::ZERO);
    let (child, strings) = puppet("child");
    let supervisor =
        Supervisor::builder().telemetry(recorder.clone()).backoff(backoff).child(child.healthy_after(5 * MS)).start().unwrap();
    let handle = supervisor.handle();
    for failures in 0..4 {
        let (run, attempt_count) = strings.next_run();
        assert_eq!(attempt_count, failures.min(1));
        let healthy =
            handle.wait_for("child", DEADLINE, |child| child.run_number == run && child.status == ChildStatus::Healthy).unwrap();
        assert!(healthy.uptime.unwrap() >= 5 * MS, "never early: {healthy}");
        assert_eq!(healthy.attempt_count, 0, "it reads 0 while the child runs");
        if failures < 3 {
            strings.act(Act::Fail("no"));
        }
    }
    recorder.wait_for("child", "healthy", 4);
    let starts = recorder.count("child", "start");
    assert_eq!(recorder.count("child", "healthy"), starts, "one for each run");
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), [1, 1, 1]);
    check_trace(&recorder.events(), None, false);
    for event in recorder.of("child").iter().filter(|event| word(event).starts_with("stop")) {
        assert!(stop_of(event).uptime >= 5 * MS);
    }
}

// BO-06
#[test]
fn child_that_does_not_last_is_not_forgiven() {
    let (backoff, asked) = told(|_| Duration::ZERO);
    let (child, strings) = puppet("child");
    let _supervisor = Supervisor::builder().healthy_after(HOUR).backoff(backoff).child(child).start().unwrap();
    for _ in 0..4 {
        strings.next_run();
        strings.act(Act::Fail("no"));
    }
    assert_eq!(strings.next_run().1, 4);
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
    assert_eq!(child.attempt_count, 0);
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

// BO-09
#[test]
fn every_run_is_healthy_where_no_uptime_is_asked_for() {
    let recorder = Recorder::default();
    let (backoff, asked) = told(|_| Duration::ZERO);
    let _supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .healthy_after(Duration::ZERO)
        .backoff(backoff)
        .child(ChildSpec::new("child", |_| panic!("no")))
        .start()
        .unwrap();
    recorder.wait_for("child", "start", 20);
    assert!(asked.try_iter().all(|attempt| attempt == 1));
    let story = recorder.story("child");
    assert!(story[..57].chunks(3).skip(1).all(|run| run == ["start 1", "healthy", "stop exited 0"]), "{story:?}");
    check_trace(&recorder.events(), None, false);
}

// BO-11, TE-02, BI-09
#[test]
fn child_that_gets_no_thread_fails_and_is_tried_again() {
    let recorder = Recorder::default();
    let (backoff, asked) = told(|attempt| if attempt == 3 { HOUR } else { Duration::ZERO });
    let began = Instant::now();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(idler("huge").stack_size(1 << 46).backoff(backoff))
        .child(idler("other"))
        .start()
        .unwrap();
    recorder.wait_for("huge", "stop", 3);
    assert!(began.elapsed() >= 200 * MS, "100 ms at least between the attempts, though the backoff said none");
    assert_eq!(recorder.story("huge"), ["stop not_spawned 0", "stop not_spawned 1", "stop not_spawned 2"]);
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
    assert_eq!(huge.attempt_count, 3);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    check_trace(&recorder.events(), Some(&report), false);
}

// BO-14
#[test]
fn children_come_back_in_the_order_of_their_deadlines() {
    let recorder = Recorder::default();
    let (gate, bar) = gate();
    let child = |id: &str, millis| {
        let bar = bar.clone();
        let body = move |ctx: &circuit_breaker_supervisor::ChildContext| {
            if ctx.attempt_count() > 0 {
                return idle(ctx);
            }
            bar.wait();
            Err("no".into())
        };
        ChildSpec::new(id, body).backoff(constant(Duration::from_millis(millis)))
    };
    let _supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .children([child("a", 900), child("b", 50), child("c", 450)])
        .start()
        .unwrap();
    drop(gate);
    recorder.wait_until(|events| events.iter().filter(|event| word(event) == "start 1").count() == 3);
    let order: Vec<_> = recorder.events().iter().filter(|event| word(event) == "start 1").map(|e| e.id.to_string()).collect();
    assert_eq!(order, ["b", "c", "a"]);
    check_trace(&recorder.events(), None, false);
}

// BO-15
#[test]
fn restart_has_a_timer_of_its_own_and_does_not_wait_for_the_poll() {
    let (child, strings) = puppet("child");
    let _supervisor =
        Supervisor::builder().poll_interval(HOUR).enabled(|_| true).backoff(constant(30 * MS)).child(child).start().unwrap();
    for attempt in 0..3 {
        assert_eq!(strings.next_run().1, attempt);
        strings.act(Act::Panic("no"));
    }
}

// BO-16
#[test]
fn backoff_that_falls_is_taken_at_its_word() {
    let recorder = Recorder::default();
    let (backoff, _asked) = told(|attempt| [40, 10, 0][attempt as usize - 1] * MS);
    let _supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(
            ChildSpec::new("child", |ctx| if ctx.attempt_count() == 3 { idle(ctx) } else { Err("no".into()) }).backoff(backoff),
        )
        .start()
        .unwrap();
    recorder.wait_for("child", "start 3", 1);
    let delays: Vec<_> =
        recorder.of("child").iter().filter(|e| word(e).starts_with("stop")).map(|e| stop_of(e).retry_in.unwrap()).collect();
    assert_eq!(delays, [40 * MS, 10 * MS, Duration::ZERO]);
    check_trace(&recorder.events(), None, false);
}

// BO-24, DY-19
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
    assert_eq!((after.status, after.attempt_count), (before.status, before.attempt_count));
    assert!(after.retry_in <= before.retry_in && after.retry_in > Some(HOUR / 2));
    check_trace(&recorder.events(), None, false);
}

// CK-02, BI-07
#[test]
fn endless_backoff_is_ended_by_a_reset() {
    for endless in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(i64::MAX as u64)] {
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

// CK-02
#[test]
fn backoff_of_a_nanosecond_and_of_none_restart_at_once() {
    for delay in [Duration::from_nanos(1), Duration::ZERO] {
        let (child, strings) = puppet("child");
        let _supervisor = Supervisor::builder().backoff(constant(delay)).child(child).start().unwrap();
        strings.act(Act::Return);
        strings.next_run();
        assert_eq!(strings.next_run().1, 1);
    }
}

#[test]
fn jitter_only_ever_shortens() {
    let recorder = Recorder::default();
    let _supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(Backoff::constant(2 * MS).jitter(1.0).seed(7))
        .child(ChildSpec::new("child", |_| Ok(())))
        .start()
        .unwrap();
    recorder.wait_for("child", "stop", 20);
    let delays: Vec<_> =
        recorder.of("child").iter().filter(|e| word(e).starts_with("stop")).map(|e| stop_of(e).retry_in.unwrap()).collect();
    assert!(delays.iter().all(|delay| *delay <= 2 * MS), "{delays:?}");
    assert!(delays.iter().any(|delay| *delay < MS) && delays.iter().any(|delay| *delay > MS), "it spreads: {delays:?}");
}
