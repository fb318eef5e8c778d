//! Table of what each order does to a child in each state.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use circuit_breaker_supervisor::{
    ChildInfo, ChildSpec, ChildStatus, Handle, OffBy, RestartPolicy, StopCause, Supervisor,
};
use crossbeam_channel::unbounded;

use crate::support::*;

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
fn check_case(state: State, command: Command) {
    struct Case(State, Command);
    impl fmt::Display for Case {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{:?} × {:?}", self.0, self.1)
        }
    }
    let case = Case(state, command);
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
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    let (run, failures) = (before.run, before.failures);

    command.give(handle);
    barrier(handle);
    if state == State::Stopping {
        let meanwhile = handle.child("child").unwrap();
        assert_eq!(
            (meanwhile.run, meanwhile.status),
            (run, ChildStatus::Stopping),
            "{case}: its run goes on"
        );
        assert_eq!(
            meanwhile.stopping.map(|(cause, _)| cause),
            Some(StopCause::Held),
            "{case}: the first cause stays"
        );
        opener.open();
    }
    let look = |what: &str, fits: &dyn Fn(&ChildInfo) -> bool| {
        handle
            .wait_for("child", DEADLINE, fits)
            .unwrap_or_else(|error| panic!("{case}: {what}: {error}"));
        barrier(handle);
        let child = handle.child("child").unwrap();
        assert!(fits(&child), "{case}: {what} for good: {child}");
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
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            handle.add(idler("child")).unwrap();
        }
    }
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{case}: {report}");
    check_trace(&recorder.events(), Some(&report), true);
}

#[test]
fn every_command_does_what_the_table_says_in_every_state() {
    for state in State::ALL {
        for command in Command::ALL {
            check_case(state, command);
        }
    }
}
