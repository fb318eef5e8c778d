//! Exits of runs: what is said of an error and of a panic, and where.

use std::{
    error::Error,
    fmt, io,
    panic::{catch_unwind, panic_any, resume_unwind},
    time::Duration,
};

use circuit_breaker_supervisor::{ChildSpec, ChildStatus, Exit, WaitError};
use crossbeam_channel::unbounded;

use crate::support::*;

#[test]
fn body_that_catches_the_panic_of_a_step_goes_on_with_its_context() {
    let (sender, steps) = unbounded();
    let (supervisor, recorder) = supervise(
        ChildSpec::new("child", move |ctx| {
            let breaker = ctx.supervisor().breaker("child").unwrap();
            let guard = ctx.on_stop(|| ());
            for number in 0..3 {
                let step = catch_unwind(|| {
                    let _ = breaker.call::<(), WaitError>(|| {
                        ctx.supervisor()
                            .wait_for("child", DEADLINE, |_| panic!("step {number}"))?;
                        Ok(())
                    });
                });
                let _ = sender.send(step.is_err());
            }
            drop(guard);
            ctx.mark_healthy();
            idle(ctx)
        }),
        Duration::ZERO,
    );
    assert_eq!([(); 3].map(|()| take(&steps)), [true; 3]);
    // Three calls have failed, which trips nothing by default, and the run is the first.
    let child = wait_status(supervisor.handle(), "child", ChildStatus::Healthy);
    assert_eq!((child.run, child.failures), (1, 0));
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn texts_of_panics_are_told() {
    let bodies: [(&str, fn()); 6] = [
        ("plain", || panic!("plain")),
        ("number 7", || panic!("number {}", std::hint::black_box(7))),
        ("unknown panic", || panic_any(7u32)),
        ("resumed", || resume_unwind(Box::new("resumed"))),
        ("boxed", || resume_unwind(Box::new(String::from("boxed")))),
        ("unknown panic", || resume_unwind(Box::new(()))),
    ];
    let mut run = 0;
    let (_supervisor, recorder) = supervise(
        ChildSpec::new("child", move |ctx| {
            run += 1;
            match bodies.get(run - 1) {
                Some((_, body)) => body(),
                None => idle(ctx)?,
            }
            Ok(())
        }),
        Duration::ZERO,
    );
    recorder.wait_for("child", "start", 7);
    let stops: Vec<_> = recorder
        .of("child")
        .iter()
        .filter(|event| word(event).starts_with("stop"))
        .map(stop_of)
        .collect();
    for (stop, (text, _)) in stops.iter().zip(bodies) {
        assert!(stop.exit.is_panicked());
        assert_eq!(stop.exit.message(), Some(text));
    }
    check_trace(&recorder.events(), None, false);
}

/// An error that can be told apart from all others.
#[derive(Debug, PartialEq)]
struct Jam(u32);

impl fmt::Display for Jam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "jam {}", self.0)
    }
}

impl Error for Jam {}

#[test]
fn error_reaches_the_event_and_the_handle_and_its_text_is_cut_after_64_kib() {
    let text = format!("first\nsecond\0{}", "x".repeat(1 << 20));
    let its = text.clone();
    let (supervisor, recorder) = supervise(
        ChildSpec::new("child", move |ctx| match ctx.failures() {
            0 => Err(Jam(3).into()),
            1 => Err(its.as_str().into()),
            _ => idle(ctx),
        }),
        Duration::ZERO,
    );
    recorder.wait_for("child", "start", 3);
    let stops: Vec<_> = recorder
        .of("child")
        .iter()
        .filter(|event| word(event).starts_with("stop"))
        .cloned()
        .collect();
    let Exit::Failed(failure) = stop_of(&stops[0]).exit else { panic!("an error") };
    assert_eq!(failure.message(), "jam 3");
    assert_eq!(failure.error().downcast_ref::<Jam>(), Some(&Jam(3)));
    let told = stop_of(&stops[1]).exit;
    let message = told.message().unwrap();
    assert_eq!(message.len(), 64 * 1024);
    assert!(message.strip_suffix('…').is_some_and(|start| text.starts_with(start)));
    let line = stops[1].to_string();
    assert!(line.len() < 1000 && !line.contains(['\n', '\0']), "{line}");
    let child = supervisor.handle().child("child").unwrap();
    assert_eq!(child.last_stop.as_ref().unwrap().exit.message(), Some(message));
    let Exit::Failed(failure) = &told else { panic!("an error") };
    assert_eq!(failure.error().to_string(), text, "the error itself is whole");
    for shown in [child.to_string(), supervisor.handle().snapshot().to_string()] {
        assert!(
            shown.len() < 2000 && shown.lines().count() <= 3 && !shown.contains('\0'),
            "{shown}"
        );
    }
}

/// An error that says what failed, and leaves it to its source to say why.
#[derive(Debug)]
struct Connecting(io::Error);

impl fmt::Display for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("error connecting to server")
    }
}

impl Error for Connecting {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn sources_of_an_error_are_told_wherever_the_error_is() {
    let client = ChildSpec::new("client", |_| {
        let refused =
            io::Error::new(io::ErrorKind::ConnectionRefused, "Connection refused by peer");
        Err(Connecting(refused).into())
    });
    let breaker = client.breaker();
    let (supervisor, recorder) = supervise(client, HOUR);
    let handle = supervisor.handle();
    let child = handle.wait_for("client", DEADLINE, |child| child.last_stop.is_some()).unwrap();
    let text = "error connecting to server: Connection refused by peer";
    let exit = child.last_stop.as_ref().unwrap().exit.clone();
    assert_eq!(exit.message(), Some(text));
    let Exit::Failed(failure) = &exit else { panic!("an error") };
    let source = failure.error().source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(
        source.kind(),
        io::ErrorKind::ConnectionRefused,
        "the sources themselves are still there"
    );
    let event = recorder.wait_for("client", "stop", 1);
    let rejected = breaker.permit().unwrap_err();
    for shown in [
        child.to_string(),
        event.to_string(),
        handle.snapshot().to_string(),
        rejected.to_string(),
        exit.to_string(),
    ] {
        assert!(shown.contains(text), "{shown}");
    }
    let last = rejected.last_exit().unwrap();
    assert_eq!(last.message(), Some(text));
}
