//! Verdicts: errors of a body that say what is to follow.

use std::{error::Error, fmt, io, time::Duration};

use circuit_breaker_supervisor::{
    Backoff, ChildResult, ChildSpec, ChildStatus, EventKind, Exit, Order, ShutdownCause,
    Simulation, StopCause, Supervisor, Verdict,
};

use crate::support::*;

/// What its first `Stopped` says of a child on virtual time that fails at once with this error.
fn first_stop(spec: ChildSpec, error: impl Into<Box<dyn Error + Send + Sync>>) -> Simulation {
    let builder =
        Supervisor::builder().backoff(Backoff::constant(2 * SECOND).jitter(0.0)).child(spec);
    let mut simulation = Simulation::new(builder, 7).unwrap();
    simulation.advance(Duration::ZERO);
    simulation.exit("child", Exit::failed(error)).unwrap();
    simulation
}

fn child() -> ChildSpec {
    ChildSpec::new("child", |_| unreachable!("a simulation runs no body"))
}

#[test]
fn child_that_says_it_is_useless_is_given_up_at_its_first_failure() {
    let mut simulation = first_stop(child(), Verdict::give_up("no licence"));
    let info = simulation.handle().child("child").unwrap();
    assert_eq!((info.status, info.failures, info.retry_in), (ChildStatus::GaveUp, 1, None));
    assert_eq!(
        info.to_string(),
        "`child` gave up: it failed after 0 \u{b5}s: no licence; trying again is useless, says the \
         error; stays down until it is reset"
    );
    let texts: Vec<_> = simulation.events().iter().map(ToString::to_string).collect();
    assert!(
        texts[1].ends_with(
            "failed after 0 \u{b5}s: no licence; trying again is useless, says the error"
        ),
        "{texts:?}"
    );
    assert!(matches!(simulation.events()[2].kind, EventKind::GaveUp));
    // The operator's orders work as ever.
    simulation.handle().reset("child").unwrap();
    simulation.advance(Duration::ZERO);
    assert_eq!(simulation.handle().child("child").unwrap().status, ChildStatus::OnTrial);
}

#[test]
fn longer_of_the_wait_and_the_backoff_counts() {
    for (wait, expected) in [(SECOND, 2 * SECOND), (HOUR, HOUR), (Duration::MAX, Duration::MAX)] {
        let mut asked = Vec::new();
        let (sender, attempts) = crossbeam_channel::unbounded();
        let spec = child().backoff(Backoff::from_fn(move |attempt| {
            sender.send(attempt).unwrap();
            2 * SECOND
        }));
        let simulation = first_stop(spec, Verdict::retry_after(wait, "busy"));
        let info = simulation.handle().child("child").unwrap();
        assert_eq!((info.status, info.failures), (ChildStatus::BackingOff, 1));
        assert_eq!(info.retry_in, Some(expected));
        asked.extend(attempts.try_iter());
        assert_eq!(asked, [1], "the backoff is asked once");
        let says_so = simulation.events()[1].to_string().contains("as the error demands");
        assert_eq!(says_so, wait == expected);
    }
}

#[test]
fn waits_that_are_demanded_use_up_the_restarts() {
    let spec = child().max_restarts(0);
    let simulation = first_stop(spec, Verdict::retry_after(HOUR, "busy"));
    assert_eq!(simulation.handle().child("child").unwrap().status, ChildStatus::GaveUp);
}

#[test]
fn significant_child_that_says_it_is_useless_ends_the_supervisor() {
    let supervisor = Supervisor::builder()
        .child(
            ChildSpec::new("child", |_| Err(Verdict::give_up("no licence").into()))
                .significant(true),
        )
        .start()
        .unwrap();
    let report = supervisor.wait();
    let ShutdownCause::GaveUp(child) = &report.cause else { panic!("{report}") };
    assert_eq!(child.exit.message(), Some("no licence"));
}

/// An error with a verdict as its source.
#[derive(Debug)]
struct Outer(Verdict);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outer")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn verdict_counts_only_in_the_error_that_the_body_returns() {
    let simulation = first_stop(child(), Outer(Verdict::give_up("inner")));
    let info = simulation.handle().child("child").unwrap();
    assert_eq!(info.status, ChildStatus::BackingOff);
    assert_eq!(info.last_stop.unwrap().exit.message(), Some("outer: inner"));
}

#[test]
fn given_up_grandchild_does_not_give_up_its_branch() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .backoff(Backoff::constant(HOUR))
        .telemetry(recorder.clone())
        .child(ChildSpec::new("branch", |ctx| {
            let leaf = ChildSpec::new("leaf", |_| Err(Verdict::give_up("no licence").into()));
            Supervisor::builder().child(leaf.significant(true)).run(ctx)
        }))
        .start()
        .unwrap();
    let branch = wait_status(supervisor.handle(), "branch", ChildStatus::BackingOff);
    assert_eq!(branch.failures, 1);
}

#[test]
fn failure_has_the_error_in_the_verdict_and_what_it_says() {
    let error = io::Error::from(io::ErrorKind::PermissionDenied);
    let text = error.to_string();
    let exit = Exit::failed(Verdict::give_up(error));
    let Exit::Failed(failure) = exit else { unreachable!() };
    assert!(failure.error().is::<io::Error>() && failure.message() == text);
    assert!(failure.gives_up() && failure.retry_after().is_none());
    let Exit::Failed(later) = Exit::failed(Verdict::retry_after(HOUR, "busy")) else {
        unreachable!()
    };
    assert_eq!((later.gives_up(), later.retry_after()), (false, Some(HOUR)));
    assert_eq!(Verdict::retry_after(HOUR, "busy").to_string(), "busy");
}

#[test]
fn run_that_was_asked_to_stop_has_no_verdict() {
    let builder = Supervisor::builder().child(child());
    let mut simulation = Simulation::new(builder, 7).unwrap();
    simulation.advance(Duration::ZERO);
    simulation.ignore_stop_for("child", HOUR);
    simulation.handle().hold("child").unwrap();
    simulation.advance(Duration::ZERO);
    simulation.exit("child", Exit::failed(Verdict::give_up("useless"))).unwrap();
    simulation.handle().release("child").unwrap();
    simulation.advance(Duration::ZERO);
    let info = simulation.handle().child("child").unwrap();
    assert_eq!((info.status, info.failures, info.run), (ChildStatus::OnTrial, 0, 2));
    let stop = info.last_stop.unwrap();
    assert_eq!((stop.cause, stop.failed), (StopCause::Held, false));
    let orders = simulation.events().iter().filter(|event| {
        matches!(event.kind, EventKind::Ordered { order: Order::Hold | Order::Release, .. })
    });
    assert_eq!(orders.count(), 2);
}

#[test]
fn child_that_is_run_once_is_gone_whatever_it_says() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(ChildSpec::once("child", |_| Err(Verdict::retry_after(HOUR, "busy").into())))
        .start()
        .unwrap();
    supervisor.handle().wait_until_gone("child", DEADLINE).unwrap();
    let events = recorder.of("child");
    assert!(
        matches!(&events[1].kind, EventKind::Stopped { failed: false, retry_in: None, .. }),
        "{events:?}"
    );
}

/// The way out of an error type that hides the verdict in it, as the documentation has it.
#[test]
fn verdict_is_taken_out_of_an_anyhow_error() {
    fn work() -> anyhow::Result<()> {
        Err(Verdict::give_up("no licence"))?
    }
    let hidden = Exit::failed(work().unwrap_err());
    let Exit::Failed(failure) = hidden else { unreachable!() };
    assert!(!failure.gives_up(), "the recipe is needed");

    let (supervisor, _) = supervise(
        ChildSpec::new("child", |_| -> ChildResult {
            work().map_err(|error| error.downcast::<Verdict>().map_or_else(Into::into, Into::into))
        }),
        HOUR,
    );
    let info = wait_status(supervisor.handle(), "child", ChildStatus::GaveUp);
    assert_eq!(info.last_stop.unwrap().exit.message(), Some("no licence"));
}
