//! Feature flags: who is asked when, and what an answer does.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use circuit_breaker_supervisor::{
    ChildSpec, ChildStatus, Exit, OffBy, StopCause, Supervisor, SupervisorBuilder,
};
use crossbeam_channel::unbounded;
use parking_lot::Mutex;

use crate::support::*;

/// A switch that a test and a flag closure share.
#[derive(Clone)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn new(on: bool) -> Self {
        Self(Arc::new(AtomicBool::new(on)))
    }

    fn set(&self, on: bool) {
        self.0.store(on, Ordering::SeqCst);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A supervisor whose child `switched` has that flag, and which is never polled by itself.
fn switched(switch: &Switch, recorder: &Recorder) -> SupervisorBuilder {
    let its = switch.clone();
    Supervisor::builder()
        .telemetry(recorder.clone())
        .poll_interval(Duration::MAX)
        .backoff(constant(Duration::ZERO))
        .enabled(move |id| id != "switched" || its.is_on())
}

#[test]
fn child_whose_flag_goes_off_is_asked_to_stop_at_the_next_poll() {
    let (switch, recorder) = (Switch::new(true), Recorder::default());
    let (child, strings) = puppet("switched");
    let (other, other_strings) = puppet("other");
    let supervisor = switched(&switch, &recorder)
        .poll_interval(5 * MS)
        .child(child)
        .child(other)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    strings.act(Act::Fail("no"));
    strings.next_run();
    strings.next_run();
    switch.set(false);
    let child = wait_off(handle, "switched", OffBy::Flag);
    assert_eq!(child.failures, 1, "switching off is no failure, and forgives none");
    assert_eq!(child.last_stop.unwrap().cause, StopCause::Disabled);
    assert_eq!(handle.snapshot().counts().running, 1);
    let stop = recorder.wait_for("switched", "stop disabled", 1);
    assert_eq!((stop.failures, stop_of(&stop).retry_in), (1, None));
    switch.set(true);
    assert_eq!(strings.next_run().1, 1);
    other_strings.next_run();
    assert!(other_strings.runs.is_empty());
    assert_eq!(recorder.story("other"), ["start 0"]);
    check_trace(&recorder.events(), None, false);
}

#[test]
fn child_that_was_off_at_the_start_is_started_once_its_flag_is_on() {
    let (switch, recorder) = (Switch::new(false), Recorder::default());
    let mut simulation =
        simulate(switched(&switch, &recorder).poll_interval(5 * SECOND).child(unused("switched")));
    assert_eq!(recorder.whole_story(), ["switched: flag off"]);
    simulation.advance(7 * SECOND);
    switch.set(true);
    simulation.advance(3 * SECOND - Duration::from_nanos(1));
    assert_eq!(status(&simulation, "switched"), ChildStatus::Off { by: OffBy::Flag });
    simulation.advance(Duration::from_nanos(1));
    simulation.handle().request_shutdown();
    simulation.advance(Duration::ZERO);
    assert_eq!(recorder.story("switched"), ["flag off", "flag on", "start 0", "stop shutdown 0"]);
}

#[test]
fn poll_now_does_not_wait_for_the_poll() {
    let (switch, recorder) = (Switch::new(false), Recorder::default());
    let (child, strings) = puppet("switched");
    let supervisor = switched(&switch, &recorder).child(child).start().unwrap();
    for _ in 0..50 {
        switch.set(true);
        supervisor.handle().poll_now().unwrap();
        assert_eq!(strings.next_run().1, 0);
        switch.set(false);
        supervisor.handle().poll_now().unwrap();
        wait_off(supervisor.handle(), "switched", OffBy::Flag);
    }
    check_trace(&recorder.events(), None, false);
}

#[test]
fn flag_is_asked_right_before_a_restart() {
    let (switch, recorder) = (Switch::new(true), Recorder::default());
    let mut simulation = simulate(
        switched(&switch, &recorder).child(unused("switched").backoff(constant(20 * SECOND))),
    );
    switch.set(false);
    simulation.exit("switched", Exit::failed("no")).unwrap();
    // Nothing polls: it is the end of the backoff that has the flag asked.
    simulation.advance(20 * SECOND - Duration::from_nanos(1));
    assert_eq!(status(&simulation, "switched"), ChildStatus::BackingOff);
    simulation.advance(HOUR);
    let child = seen(&simulation, "switched");
    assert_eq!((child.status, child.failures), (ChildStatus::Off { by: OffBy::Flag }, 1));
    switch.set(true);
    simulation.handle().poll_now().unwrap();
    simulation.advance(Duration::ZERO);
    assert_eq!(
        recorder.story("switched"),
        ["start 0", "stop exited 0", "flag off", "flag on", "start 1"]
    );
    check_trace(&recorder.events(), None, false);
}

#[test]
fn switching_off_and_on_shortens_no_backoff() {
    let (switch, recorder) = (Switch::new(true), Recorder::default());
    let mut simulation = simulate(
        switched(&switch, &recorder).child(unused("switched").backoff(constant(300 * SECOND))),
    );
    simulation.exit("switched", Exit::panicked("no")).unwrap();
    for on in [false, true, false, true] {
        switch.set(on);
        simulation.handle().poll_now().unwrap();
        simulation.advance(SECOND);
        let expected =
            if on { ChildStatus::BackingOff } else { ChildStatus::Off { by: OffBy::Flag } };
        assert_eq!(status(&simulation, "switched"), expected);
    }
    assert_eq!(seen(&simulation, "switched").retry_in, Some(296 * SECOND));
    simulation.advance(296 * SECOND);
    assert_eq!(
        recorder.story("switched"),
        ["start 0", "stop exited 0", "flag off", "flag on", "flag off", "flag on", "start 1"]
    );
    check_trace(&recorder.events(), None, false);
}

#[test]
fn flag_that_is_on_again_before_it_is_asked_changes_nothing() {
    let (switch, recorder) = (Switch::new(true), Recorder::default());
    let (child, strings) = puppet("switched");
    let supervisor = switched(&switch, &recorder).child(child).start().unwrap();
    let (run, _) = strings.next_run();
    switch.set(false);
    switch.set(true);
    supervisor.handle().poll_now().unwrap();
    barrier(supervisor.handle());
    let child = supervisor.handle().child("switched").unwrap();
    assert_eq!((child.run, child.stopping.map(|(cause, _)| cause)), (run, None));
    assert_eq!(recorder.story("switched"), ["start 0"]);
}

#[test]
fn each_round_asks_once_for_each_child_and_never_for_a_removed_one() {
    let calls: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let its = calls.clone();
    let supervisor = Supervisor::builder()
        .poll_interval(Duration::MAX)
        .enabled(move |id| {
            *its.lock().entry(id.to_owned()).or_default() += 1;
            !id.starts_with("off")
        })
        .children(["a", "b", "off", "gone"].map(idler))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let round = || -> HashMap<String, u32> {
        std::mem::take(&mut *calls.lock())
            .into_iter()
            .filter(|(id, _)| !id.starts_with("barrier"))
            .collect()
    };
    let asked = |ids: &[&str]| -> HashMap<String, u32> {
        ids.iter().map(|id| ((*id).to_owned(), 1)).collect()
    };
    assert_eq!(round(), asked(&["a", "b", "off", "gone"]), "once each, at the start");
    handle.poll_now().unwrap();
    barrier(handle);
    assert_eq!(round(), asked(&["a", "b", "off", "gone"]));
    handle.remove("gone").unwrap();
    handle.wait_until_gone("gone", DEADLINE).unwrap();
    handle.poll_now().unwrap();
    barrier(handle);
    assert_eq!(round(), asked(&["a", "b", "off"]));
}

#[test]
fn child_that_is_off_and_does_not_stop_is_told_once_and_stays_alone_in_it() {
    let (switch, recorder) = (Switch::new(true), Recorder::default());
    let (deaf, mut gate, started) = stubborn("switched");
    let (other, strings) = puppet("other");
    let supervisor = switched(&switch, &recorder)
        .poll_interval(MS)
        .child(deaf.stop_timeout(20 * MS))
        .child(other)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let ctx = take(&started);
    let calls = Arc::new(AtomicU32::new(0));
    let its = calls.clone();
    let guard = ctx.on_stop(move || its.fetch_add(1, Ordering::SeqCst));
    switch.set(false);
    handle.wait_for("switched", DEADLINE, |child| child.is_overdue).unwrap();
    assert!(ctx.is_stopping());
    for _ in 0..20 {
        handle.poll_now().unwrap();
    }
    strings.next_run();
    strings.act(Act::Fail("no"));
    strings.next_run();
    barrier(handle);
    let child = handle.child("switched").unwrap();
    assert_eq!(
        (child.status, child.stopping.map(|(cause, _)| cause)),
        (ChildStatus::Stopping, Some(StopCause::Disabled))
    );
    assert!(child.stopping.unwrap().1 >= 20 * MS);
    assert_eq!(handle.snapshot().counts().running, 2, "it still lives");
    assert!(!handle.snapshot().is_healthy());
    assert_eq!(recorder.story("switched"), ["start 0", "flag off", "overdue"]);
    eventually("the callback is called", || calls.load(Ordering::SeqCst) == 1);
    gate.open();
    wait_off(handle, "switched", OffBy::Flag);
    drop(guard);
    recorder.wait_for("switched", "stop disabled 0", 1);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    // Once it has stopped, it comes back as any other.
    switch.set(true);
    take(&started);
    check_trace(&recorder.events(), None, false);
}

#[test]
fn supervisor_with_all_flags_off_ends_at_once() {
    let recorder = Recorder::default();
    let drops = Drops::default();
    let children = ["a", "b", "c"].map(|id| {
        let token = drops.token();
        ChildSpec::new(id, move |ctx| {
            let _ = &token;
            idle(ctx)
        })
    });
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .enabled(|_| false)
        .children(children)
        .start()
        .unwrap();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert!(recorder.events().iter().all(|event| word(event) == "flag off"));
    assert_eq!(recorder.events().len(), 3, "each is told once");
    assert_eq!(drops.count(), 3, "bodies that never ran are dropped too");
}

#[test]
fn child_that_is_switched_off_as_it_starts_tells_both_in_order() {
    let (switch, recorder) = (Switch::new(true), Recorder::default());
    let its = switch.clone();
    let (sender, stops) = unbounded();
    let supervisor = switched(&switch, &recorder)
        .poll_interval(MS)
        .on_event(move |event| {
            if event.id == "switched" {
                let word = word(event);
                if word.starts_with("start") {
                    its.set(false);
                } else if word.starts_with("stop") {
                    its.set(true);
                    let _ = sender.send(());
                }
            }
        })
        .child(idler("switched"))
        .start()
        .unwrap();
    for _ in 0..20 {
        take(&stops);
    }
    let report = supervisor.shutdown();
    let story = recorder.story("switched");
    let as_told = ["start 0", "flag off", "stop disabled 0", "flag on"];
    assert!(story[..76].chunks(4).all(|run| run == as_told), "{story:?}");
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn flag_that_cannot_tell_keeps_the_last_answer() {
    let answer = Arc::new(Mutex::new(None));
    let its = answer.clone();
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .poll_interval(Duration::MAX)
        .enabled(move |_| *its.lock())
        .child(child)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let ask = |new| {
        *answer.lock() = new;
        handle.poll_now().unwrap();
    };
    strings.next_run(); // on, for want of any answer
    ask(Some(false));
    wait_off(handle, "child", OffBy::Flag);
    ask(None);
    barrier(handle); // whose own flag has no last answer, and so is on
    assert!(matches!(
        handle.child("child").unwrap().status,
        ChildStatus::Off { by: OffBy::Flag, .. }
    ));
    assert!(strings.runs.is_empty());
    ask(Some(true));
    strings.next_run();
    ask(None);
    barrier(handle);
    assert_eq!(handle.child("child").unwrap().status, ChildStatus::OnTrial);
    assert!(strings.runs.is_empty());
}

#[test]
fn hundred_polls_of_a_child_that_is_off_tell_it_once() {
    let (switch, recorder) = (Switch::new(false), Recorder::default());
    let polls = Arc::new(AtomicU32::new(0));
    let its = polls.clone();
    let supervisor = switched(&switch, &recorder)
        .enabled(move |_| {
            its.fetch_add(1, Ordering::SeqCst);
            false
        })
        .poll_interval(Duration::from_micros(500))
        .child(idler("switched"))
        .start()
        .unwrap();
    eventually("100 polls", || polls.load(Ordering::SeqCst) > 100);
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(recorder.story("switched"), ["flag off"], "told once");
}

#[test]
fn child_may_be_added_while_its_flag_is_off() {
    let (switch, recorder) = (Switch::new(false), Recorder::default());
    let supervisor = switched(&switch, &recorder).start().unwrap();
    let handle = supervisor.handle();
    let (child, strings) = puppet("switched");
    handle.add(child).unwrap();
    wait_off(handle, "switched", OffBy::Flag);
    barrier(handle);
    assert_eq!(recorder.story("switched"), ["flag off"]);
    switch.set(true);
    handle.poll_now().unwrap();
    assert_eq!(strings.next_run().1, 0);
}

#[test]
fn one_shot_child_waits_for_its_flag_and_is_gone_after_its_only_run() {
    let (switch, recorder) = (Switch::new(false), Recorder::default());
    let supervisor =
        switched(&switch, &recorder).child(ChildSpec::once("switched", idle)).start().unwrap();
    let handle = supervisor.handle();
    wait_off(handle, "switched", OffBy::Flag);
    switch.set(true);
    handle.poll_now().unwrap();
    recorder.wait_for("switched", "start 0", 1);
    switch.set(false);
    handle.poll_now().unwrap();
    handle.wait_until_gone("switched", DEADLINE).unwrap();
    recorder.wait_for("switched", "stop disabled 0", 1);
    assert_eq!(
        recorder.story("switched"),
        ["flag off", "flag on", "start 0", "flag off", "stop disabled 0"]
    );
}

#[test]
fn flag_that_goes_off_while_its_change_is_told_prevents_the_start() {
    let (switch, recorder) = (Switch::new(false), Recorder::default());
    let its = switch.clone();
    let builder = switched(&switch, &recorder)
        .on_event(move |event| its.set(event.id != "switched"))
        .poll_interval(SECOND)
        .child(unused("switched"));
    let mut simulation = simulate(builder);
    switch.set(true);
    simulation.advance(SECOND);
    assert_eq!(recorder.story("switched"), ["flag off", "flag on", "flag off"]);
    assert_eq!(status(&simulation, "switched"), ChildStatus::Off { by: OffBy::Flag });
}

#[test]
fn flag_that_panics_before_a_start_is_asked_again_once_that_is_told() {
    let (calls, is_off) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, its) = (calls.clone(), is_off.clone());
    let builder = Supervisor::builder()
        .enabled(move |_| {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                panic!("no answer");
            }
            !is_off.load(Ordering::SeqCst)
        })
        .on_event(move |_| its.store(true, Ordering::SeqCst))
        .child(unused("child"));
    let simulation = simulate(builder);
    assert_eq!(words(&simulation, "child"), ["panic enabled", "flag off"]);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn flag_that_is_on_again_while_its_run_stops_is_told_in_the_order_of_its_changes() {
    let (switch, recorder) = (Switch::new(true), Recorder::default());
    let builder = switched(&switch, &recorder).poll_interval(SECOND).child(unused("switched"));
    let mut simulation = simulate(builder);
    simulation.ignore_stop_for("switched", 3 * SECOND);
    for on in [false, true] {
        switch.set(on);
        simulation.advance(SECOND);
    }
    simulation.advance(3 * SECOND);
    assert_eq!(
        recorder.story("switched"),
        ["start 0", "flag off", "flag on", "stop disabled 0", "start 0"]
    );
}
