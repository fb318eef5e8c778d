//! What an operator does to running children: add, remove, restart, reset, hold, release.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use circuit_breaker_supervisor::{
    ChildInfo, ChildSpec, ChildStatus, Exit, Handle, OffBy, RestartPolicy, StopCause, Supervisor,
};
use crossbeam_channel::unbounded;

use crate::support::*;

#[test]
fn added_child_is_listed_at_once_and_started() {
    let recorder = Recorder::default();
    let supervisor =
        Supervisor::builder().telemetry(recorder.clone()).child(idler("first")).start().unwrap();
    let handle = supervisor.handle();
    let (child, strings) = puppet("added");
    handle.add(child).unwrap();
    assert!(handle.child("added").is_some(), "listed as soon as `add` has returned");
    assert_eq!(strings.next_run().1, 0);
    assert_eq!(handle.snapshot().counts().children, 2);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert_eq!(recorder.story("added"), ["start 0", "stop shutdown 0"]);
}

#[test]
fn added_child_that_gets_no_thread_is_kept_and_tried_again() {
    let recorder = Recorder::default();
    let supervisor =
        Supervisor::builder().telemetry(recorder.clone()).backoff(constant(MS)).start().unwrap();
    let handle = supervisor.handle();
    handle.add(idler("huge").stack_size(IMPOSSIBLE_STACK)).unwrap();
    recorder.wait_for("huge", "stop not_spawned 1", 1);
    assert_eq!(wait_status(handle, "huge", ChildStatus::BackingOff).failures, 2);
}

#[test]
fn held_child_stays_down_until_it_is_released() {
    let recorder = Recorder::default();
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .poll_interval(MS)
        .enabled(|_| true)
        .backoff(constant(Duration::ZERO))
        .child(child)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    strings.act(Act::Fail("no"));
    strings.next_run();
    strings.next_run();
    for _ in 0..3 {
        handle.hold("child").unwrap();
    }
    let child = wait_off(handle, "child", OffBy::Operator);
    assert_eq!(child.failures, 1, "a hold forgives nothing, and is no failure");
    assert_eq!(child.last_stop.unwrap().cause, StopCause::Held);
    handle.hold("child").unwrap();
    handle.poll_now().unwrap();
    handle.reset("child").unwrap();
    barrier(handle);
    let child = handle.child("child").unwrap();
    assert!(matches!(child.status, ChildStatus::Off { by: OffBy::Operator, .. }), "{child}");
    assert!(strings.runs.is_empty());
    handle.release("child").unwrap();
    handle.release("child").unwrap();
    assert_eq!(strings.next_run().1, 0);
    barrier(handle);
    assert!(strings.runs.is_empty());
    let story = recorder.story("child");
    assert_eq!(story, ["start 0", "stop exited 0", "start 1", "stop held 1", "start 0"]);
    check_trace(&recorder.events(), None, true);
}

#[test]
fn hold_shortens_no_backoff() {
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder().backoff(constant(HOUR)).child(child).start().unwrap();
    let handle = supervisor.handle();
    strings.next_run();
    strings.act(Act::Fail("no"));
    wait_status(handle, "child", ChildStatus::BackingOff);
    handle.hold("child").unwrap();
    wait_off(handle, "child", OffBy::Operator);
    handle.release("child").unwrap();
    let child = wait_status(handle, "child", ChildStatus::BackingOff);
    assert_eq!(child.failures, 1);
    assert!(child.retry_in.unwrap() > HOUR / 2);
    assert!(strings.runs.is_empty());
}

#[test]
fn thousand_children_come_and_go_one_by_one() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder().telemetry(recorder.clone()).start().unwrap();
    let handle = supervisor.handle();
    for number in 0..1000 {
        handle.add(idler(&number.to_string()).stack_size(1 << 16)).unwrap();
        if number % 100 == 0 {
            assert_eq!(handle.snapshot().counts().children, number + 1);
        }
    }
    assert_eq!(handle.snapshot().counts().children, 1000);
    handle.wait_for("999", DEADLINE, ChildInfo::is_running).unwrap();
    assert_eq!(handle.snapshot().counts().running, 1000);
    for number in 0..1000 {
        handle.remove(&number.to_string()).unwrap();
        if number % 100 == 0 {
            for removed in usize::saturating_sub(number, 100)..=number {
                handle.wait_until_gone(&removed.to_string(), DEADLINE).unwrap();
            }
            assert_eq!(handle.snapshot().counts().children, 999 - number);
        }
    }
    for number in 0..1000 {
        handle.wait_until_gone(&number.to_string(), DEADLINE).unwrap();
    }
    assert_eq!(handle.snapshot().counts().children, 0);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert_eq!(recorder.events().len(), 4000, "each is added, started, removed and stopped");
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn id_that_was_removed_begins_anew_with_its_first_run() {
    let recorder = Recorder::default();
    let supervisor =
        Supervisor::builder().telemetry(recorder.clone()).backoff(constant(HOUR)).start().unwrap();
    let handle = supervisor.handle();
    for round in 0..50 {
        let (child, strings) = puppet("child");
        handle.add(child).unwrap();
        let (run, failures) = strings.next_run();
        assert_eq!((run, failures), (1, 0), "round {round}");
        if round % 2 == 0 {
            // Its backoff and its last stop must not reach its successor.
            strings.act(Act::Panic("no"));
            wait_status(handle, "child", ChildStatus::BackingOff);
        }
        handle.remove("child").unwrap();
        handle.wait_until_gone("child", DEADLINE).unwrap();
    }
    check_trace(&recorder.events(), None, true);
}

#[test]
fn removed_child_that_is_down_is_gone_and_its_body_dropped() {
    let drops = Drops::default();
    let (its, mut failed) = (drops.token(), false);
    let supervisor = Supervisor::builder()
        .backoff(constant(HOUR))
        .child(ChildSpec::new("child", move |_| {
            let _ = &its;
            assert!(!std::mem::replace(&mut failed, true), "one run");
            Err("no".into())
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    wait_status(handle, "child", ChildStatus::BackingOff);
    handle.remove("child").unwrap();
    handle.wait_until_gone("child", DEADLINE).unwrap();
    eventually("its body is dropped", || drops.count() == 1);
}

#[test]
fn restart_stops_a_running_child_and_starts_it_with_a_clean_history() {
    let mut simulation =
        simulate(Supervisor::builder().backoff(constant(50 * SECOND)).child(unused("child")));
    for _ in 0..2 {
        simulation.exit("child", Exit::failed("no")).unwrap();
        simulation.advance(50 * SECOND);
    }
    simulation.handle().restart("child").unwrap();
    simulation.advance(Duration::ZERO);
    simulation.exit("child", Exit::failed("no")).unwrap();
    simulation.advance(50 * SECOND);
    let expected = [
        "start 0",
        "stop exited 0",
        "start 1",
        "stop exited 1",
        "start 2",
        "stop restarted 0",
        "start 0",
        "stop exited 0",
        "start 1",
    ];
    assert_eq!(words(&simulation, "child"), expected, "the next failure is the first");
    check_trace(simulation.events(), None, true);
}

#[test]
fn reset_forgives_a_running_child_and_leaves_it_running() {
    let recorder = Recorder::default();
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(child)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    strings.act(Act::Fail("no"));
    strings.next_run();
    let (run, failures) = strings.next_run();
    assert_eq!(failures, 1);
    handle.reset("child").unwrap();
    let child = handle.wait_for("child", DEADLINE, |child| child.failures == 0).unwrap();
    assert_eq!((child.run, child.status), (run, ChildStatus::OnTrial));
    assert!(handle.snapshot().is_healthy());
    strings.act(Act::Fail("no"));
    assert_eq!(strings.next_run().1, 1);
}

// ── Every command in every state ──

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    OnTrial,
    Healthy,
    Stopping,
    BackingOff,
    FlagOff,
    Held,
    Finished,
    GaveUp,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Command {
    Hold,
    Release,
    Remove,
    Restart,
    Reset,
    PollNow,
    Add,
}

/// What a command has led to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    /// Nothing has changed.
    Same,
    /// The same run, with no failures.
    Forgiven,
    /// A new run, with no failures.
    Anew,
    /// Down, and not to be started by itself, with its count kept.
    Held,
    /// Down as before, with no failures.
    Cleared,
    Gone,
}

impl State {
    const ALL: [Self; 8] = [
        Self::OnTrial,
        Self::Healthy,
        Self::Stopping,
        Self::BackingOff,
        Self::FlagOff,
        Self::Held,
        Self::Finished,
        Self::GaveUp,
    ];

    fn status(self) -> ChildStatus {
        match self {
            Self::OnTrial => ChildStatus::OnTrial,
            Self::Healthy => ChildStatus::Healthy,
            Self::Stopping => ChildStatus::Stopping,
            Self::BackingOff => ChildStatus::BackingOff,
            Self::Finished => ChildStatus::Finished,
            Self::GaveUp => ChildStatus::GaveUp,
            Self::FlagOff | Self::Held => unreachable!("see `fits`"),
        }
    }

    fn fits(self, child: &ChildInfo) -> bool {
        match self {
            Self::FlagOff => matches!(child.status, ChildStatus::Off { by: OffBy::Flag, .. }),
            Self::Held => matches!(child.status, ChildStatus::Off { by: OffBy::Operator, .. }),
            state => child.status == state.status(),
        }
    }
}

impl Command {
    const ALL: [Self; 7] = [
        Self::Hold,
        Self::Release,
        Self::Remove,
        Self::Restart,
        Self::Reset,
        Self::PollNow,
        Self::Add,
    ];

    fn give(self, handle: &Handle) {
        match self {
            Self::Hold => handle.hold("child").unwrap(),
            Self::Release => handle.release("child").unwrap(),
            Self::Remove => handle.remove("child").unwrap(),
            Self::Restart => handle.restart("child").unwrap(),
            Self::Reset => handle.reset("child").unwrap(),
            Self::PollNow => handle.poll_now().unwrap(),
            Self::Add => assert!(handle.add(idler("child")).is_err(), "its id is taken"),
        }
    }

    /// The table: what this command does to a child in that state, once a child that was stopping
    /// has stopped.
    fn expected(self, state: State) -> After {
        match (self, state) {
            (Self::PollNow | Self::Add, State::Stopping) => After::Held, // as it was being held
            (Self::PollNow | Self::Add, _) => After::Same,
            (Self::Remove, _) => After::Gone,
            (Self::Hold, State::Finished | State::GaveUp | State::Held) => After::Same,
            (Self::Hold, _) => After::Held,
            (Self::Release, State::Held | State::Stopping) => After::Anew,
            (Self::Release, _) => After::Same,
            (Self::Restart, State::FlagOff | State::Held | State::Stopping) => After::Cleared,
            (Self::Restart, _) => After::Anew,
            (Self::Reset, State::OnTrial | State::Healthy) => After::Forgiven,
            (Self::Reset, State::FlagOff | State::Held | State::Stopping | State::Finished) => {
                After::Cleared
            }
            (Self::Reset, State::BackingOff | State::GaveUp) => After::Anew,
        }
    }
}

/// Brings a child, with one failure behind it where that can be, into a state, gives it a command,
/// and looks.
fn check_cell(state: State, command: Command) {
    struct Cell(State, Command);
    impl fmt::Display for Cell {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{:?} × {:?}", self.0, self.1)
        }
    }
    let cell = Cell(state, command);
    let recorder = Recorder::default();
    let (on, delayed) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (flag, delay) = (on.clone(), delayed.clone());
    let (acts, script) = unbounded();
    let (mut opener, bar) = gate();
    let body = move |ctx: &circuit_breaker_supervisor::ChildContext| loop {
        match ctx.recv(&script) {
            Ok(Act::Return) => return Ok(()),
            Ok(Act::Fail(text)) => return Err(text.into()),
            Ok(Act::Panic(text)) => panic!("{text}"),
            Ok(Act::MarkHealthy) => ctx.mark_healthy(),
            Err(_) => {
                bar.wait();
                return Ok(());
            }
        }
    };
    if state != State::Stopping {
        opener.open();
    }
    let mut spec = ChildSpec::new("child", body).backoff(
        circuit_breaker_supervisor::Backoff::from_fn(move |_| {
            if delay.load(Ordering::SeqCst) { HOUR } else { Duration::ZERO }
        }),
    );
    match state {
        State::Finished => spec = spec.restart(RestartPolicy::Transient),
        State::GaveUp => spec = spec.max_restarts(1),
        _ => {}
    }
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .poll_interval(Duration::MAX)
        .enabled(move |id| id != "child" || flag.load(Ordering::SeqCst))
        .child(spec)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    acts.send(Act::Fail("the first")).unwrap();
    handle.wait_for("child", DEADLINE, |child| child.failures == 1 && child.is_running()).unwrap();
    match state {
        State::OnTrial => {}
        State::Healthy => acts.send(Act::MarkHealthy).unwrap(),
        State::BackingOff => {
            delayed.store(true, Ordering::SeqCst);
            acts.send(Act::Fail("the second")).unwrap();
        }
        State::Stopping | State::Held => handle.hold("child").unwrap(),
        State::FlagOff => {
            on.store(false, Ordering::SeqCst);
            handle.poll_now().unwrap();
        }
        State::Finished => acts.send(Act::Return).unwrap(),
        State::GaveUp => acts.send(Act::Panic("the second")).unwrap(),
    }
    let before = handle
        .wait_for("child", DEADLINE, |child| state.fits(child))
        .unwrap_or_else(|error| panic!("{cell}: {error}"));
    let (run, failures) = (before.run, before.failures);

    command.give(handle);
    barrier(handle);
    if state == State::Stopping {
        let meanwhile = handle.child("child").unwrap();
        assert_eq!(
            (meanwhile.run, meanwhile.status),
            (run, ChildStatus::Stopping),
            "{cell}: its run goes on"
        );
        assert_eq!(meanwhile.told_to_stop, Some(StopCause::Held), "{cell}: the first cause stays");
        opener.open();
    }
    let look = |what: &str, fits: &dyn Fn(&ChildInfo) -> bool| {
        handle
            .wait_for("child", DEADLINE, fits)
            .unwrap_or_else(|error| panic!("{cell}: {what}: {error}"));
        barrier(handle);
        let child = handle.child("child").unwrap();
        assert!(fits(&child), "{cell}: {what} for good: {child}");
    };
    let is_held =
        |child: &ChildInfo| matches!(child.status, ChildStatus::Off { by: OffBy::Operator, .. });
    let expected = command.expected(state);
    match expected {
        After::Same => {
            look("the same", &|c| state.fits(c) && c.run == run && c.failures == failures)
        }
        After::Forgiven => look("forgiven", &|c| state.fits(c) && c.run == run && c.failures == 0),
        After::Anew => look("anew", &|c| {
            // A release forgives nothing; what is cleared by hand is.
            let count = if command == Command::Release { failures } else { 0 };
            c.status == ChildStatus::OnTrial && c.run > run && c.failures == count
        }),
        After::Held => look("held", &|c| is_held(c) && c.run == run && c.failures == failures),
        After::Cleared if state == State::Stopping => {
            look("cleared", &|c| is_held(c) && c.failures == 0)
        }
        After::Cleared => look("cleared", &|c| state.fits(c) && c.run == run && c.failures == 0),
        After::Gone => {
            handle
                .wait_until_gone("child", DEADLINE)
                .unwrap_or_else(|error| panic!("{cell}: {error}"));
            handle.add(idler("child")).unwrap();
        }
    }
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{cell}: {report}");
    check_trace(&recorder.events(), Some(&report), true);
}

#[test]
fn every_command_does_what_the_table_says_in_every_state() {
    for state in State::ALL {
        for command in Command::ALL {
            check_cell(state, command);
        }
    }
}

#[test]
fn holding_what_is_finished_or_given_up_keeps_it_down_after_a_revival() {
    for (spec, status) in [
        (
            ChildSpec::new("child", |_| Ok(())).restart(RestartPolicy::Transient),
            ChildStatus::Finished,
        ),
        (ChildSpec::new("child", |_| Err("no".into())).max_restarts(0), ChildStatus::GaveUp),
    ] {
        let recorder = Recorder::default();
        let supervisor =
            Supervisor::builder().telemetry(recorder.clone()).child(spec).start().unwrap();
        let handle = supervisor.handle();
        wait_status(handle, "child", status);
        handle.hold("child").unwrap();
        handle.restart("child").unwrap();
        wait_off(handle, "child", OffBy::Operator);
        barrier(handle);
        assert_eq!(recorder.count("child", "start"), 1);
        handle.release("child").unwrap();
        recorder.wait_for("child", "start 0", 2);
        wait_status(handle, "child", status);
    }
}
