//! Panics of a user's code beside the bodies: callbacks, errors, payloads and drops.

use std::{
    error::Error,
    fmt,
    panic::panic_any,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{
    Backoff, Callback, ChildSpec, ChildStatus, Event, EventKind, OffBy, Supervisor, TelemetrySink,
};
use parking_lot::Mutex;

use crate::support::*;

/// What a `CallbackPanicked` says.
#[track_caller]
fn panic_of(event: &Event) -> (Callback, String) {
    match &event.kind {
        EventKind::CallbackPanicked { callback, panic, .. } => {
            (*callback, panic.message().to_owned())
        }
        _ => panic!("not a panic: {event}"),
    }
}

#[test]
fn child_whose_flag_panics_counts_as_enabled_and_that_is_told_once() {
    let recorder = Recorder::default();
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .poll_interval(Duration::MAX)
        .enabled(|id| if id == "child" { panic!("no flags today") } else { true })
        .child(child)
        .start()
        .unwrap();
    strings.next_run();
    for _ in 0..5 {
        supervisor.handle().poll_now().unwrap();
    }
    barrier(supervisor.handle());
    assert_eq!(recorder.count("child", "panic"), 1);
    let told = recorder.wait_for("child", "panic enabled", 1);
    assert_eq!(panic_of(&told), (Callback::Enabled, "no flags today".to_owned()));
    assert_eq!(recorder.count("child", "start"), 1);
    assert!(supervisor.shutdown().is_clean());
}

#[test]
fn flag_that_panics_keeps_its_last_answer_and_is_told_anew_after_a_success() {
    let recorder = Recorder::default();
    let answer = Arc::new(Mutex::new(Some(true)));
    let its = answer.clone();
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .poll_interval(Duration::MAX)
        .enabled(move |id| if id == "child" { its.lock().expect("an answer") } else { true })
        .child(child)
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let ask = |new| {
        *answer.lock() = new;
        handle.poll_now().unwrap();
        barrier(handle);
        handle.child("child").unwrap().status
    };
    let off = |status| matches!(status, ChildStatus::Off { by: OffBy::Flag, .. });
    strings.next_run();
    assert_eq!(ask(None), ChildStatus::OnTrial);
    ask(Some(false));
    wait_off(handle, "child", OffBy::Flag);
    assert!(off(ask(None)), "the last answer stands");
    assert!(off(ask(None)));
    assert_eq!(recorder.count("child", "panic enabled"), 2, "told once until it succeeds again");
    ask(Some(true));
    strings.next_run();
    ask(None);
    assert_eq!(recorder.count("child", "panic enabled"), 3);
    check_trace(&recorder.events(), None, false);
}

#[test]
fn backoff_that_panics_is_replaced_by_the_default() {
    let recorder = Recorder::default();
    let calls = Arc::new(AtomicU32::new(0));
    let its = calls.clone();
    let backoff = Backoff::from_fn(move |attempt| {
        its.fetch_add(1, Ordering::SeqCst);
        assert_eq!(attempt, 3, "no delay for {attempt}");
        Duration::ZERO
    });
    let _supervisor =
        Supervisor::builder()
            .telemetry(recorder.clone())
            .child(
                ChildSpec::new("child", |ctx| {
                    if ctx.failures() < 4 { Err("no".into()) } else { idle(ctx) }
                })
                .backoff(backoff),
            )
            .start()
            .unwrap();
    recorder.wait_for("child", "start 4", 1);
    let delays: Vec<_> = recorder
        .of("child")
        .iter()
        .filter(|e| word(e).starts_with("stop"))
        .map(|e| stop_of(e).retry_in.unwrap())
        .collect();
    assert!((90 * MS..=100 * MS).contains(&delays[0]), "{delays:?}");
    assert!((180 * MS..=200 * MS).contains(&delays[1]), "{delays:?}");
    assert_eq!(delays[2], Duration::ZERO);
    assert!((720 * MS..=800 * MS).contains(&delays[3]), "{delays:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 4, "asked once for each failure");
    let panics: Vec<_> =
        recorder.of("child").into_iter().filter(|event| word(event).starts_with("panic")).collect();
    assert_eq!(panics.len(), 2, "told at the first, and after a success again");
    assert!(panics.iter().all(|event| panic_of(event).0 == Callback::Backoff));
    check_trace(&recorder.events(), None, false);
}

#[test]
fn sink_that_panics_harms_neither_the_child_nor_the_other_sinks() {
    let (before, after) = (Recorder::default(), Recorder::default());
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .telemetry(before.clone())
        .on_event(|event| panic!("cannot write {event}"))
        .telemetry(after.clone())
        .backoff(constant(Duration::ZERO))
        .child(child)
        .start()
        .unwrap();
    for _ in 0..3 {
        strings.next_run();
        strings.act(Act::Panic("no"));
    }
    strings.next_run();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    for recorder in [before, after] {
        assert_eq!(
            recorder.events().len(),
            8,
            "nothing is told of a sink that panics: nobody is left to be told"
        );
        check_trace(&recorder.events(), Some(&report), false);
    }
}

/// An error whose every method is a trap.
#[derive(Debug)]
struct Hostile {
    display: bool,
    drop: bool,
}

impl fmt::Display for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(!self.display, "cannot be shown");
        f.write_str("hostile")
    }
}

impl Error for Hostile {}

impl Drop for Hostile {
    fn drop(&mut self) {
        assert!(!self.drop || thread::panicking(), "cannot be dropped");
    }
}

#[test]
fn error_that_cannot_be_shown_is_an_error_all_the_same() {
    let recorder = Recorder::default();
    let (_supervisor, failing) = (
        Supervisor::builder()
            .telemetry(recorder.clone())
            .backoff(constant(Duration::ZERO))
            .child(ChildSpec::new("child", |ctx| match ctx.failures() {
                0 | 1 | 3 => Err(Hostile { display: true, drop: false }.into()),
                2 => Err("fine".into()),
                _ => idle(ctx),
            }))
            .start()
            .unwrap(),
        recorder.wait_for("child", "start 4", 1),
    );
    assert_eq!(failing.failures, 4);
    let panics: Vec<_> =
        recorder.of("child").into_iter().filter(|event| word(event).starts_with("panic")).collect();
    assert_eq!(
        panics.len(),
        2,
        "at the first, and again after one that could be shown: {:?}",
        recorder.story("child")
    );
    assert!(
        panics
            .iter()
            .all(|event| panic_of(event) == (Callback::Display, "cannot be shown".to_owned()))
    );
    assert!(stop_of(&recorder.of("child")[1]).exit.message().unwrap().contains("Display"));
    check_trace(&recorder.events(), None, false);
}

#[test]
fn error_whose_drop_panics_harms_nobody() {
    let supervisor = Supervisor::builder()
        .telemetry(())
        .backoff(Backoff::from_fn(|attempt| if attempt < 20 { Duration::ZERO } else { HOUR }))
        .child(ChildSpec::new("child", |_| Err(Hostile { display: false, drop: true }.into())))
        .start()
        .unwrap();
    let child = wait_status(supervisor.handle(), "child", ChildStatus::BackingOff);
    assert_eq!(child.failures, 20);
    assert_eq!(child.last_stop.as_ref().unwrap().exit.message(), Some("hostile"));
    drop(child);
    // The last error is still listed, and goes with the supervisor and its handles.
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
}

/// Panics as it is dropped, with a payload that does so too.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic_any(Bomb);
        }
    }
}

#[test]
fn payload_whose_drop_panics_is_told_and_the_child_is_restarted() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(ChildSpec::new("child", |ctx| {
            if ctx.failures() < 5 { panic_any(Bomb) } else { idle(ctx) }
        }))
        .start()
        .unwrap();
    recorder.wait_for("child", "start 5", 1);
    assert_eq!(recorder.count("child", "panic drop"), 1);
    assert_eq!(stop_of(&recorder.of("child")[1]).exit.message(), Some("unknown panic"));
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn body_whose_drop_panics_ends_its_child_all_the_same() {
    let recorder = Recorder::default();
    let spec = |id: &str| {
        let bomb = Bomb;
        ChildSpec::new(id, move |ctx| {
            let _ = &bomb;
            idle(ctx)
        })
    };
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .enabled(|id| id != "off")
        .children(["removed", "held", "off", "left"].map(spec))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    handle.remove("removed").unwrap();
    handle.wait_until_gone("removed", DEADLINE).unwrap();
    handle.hold("held").unwrap();
    wait_off(handle, "held", OffBy::Operator);
    handle.remove("held").unwrap();
    handle.wait_until_gone("held", DEADLINE).unwrap();
    let bomb = Bomb;
    handle
        .add(ChildSpec::once("once", move |_| {
            std::mem::forget(bomb);
            Err("no".into())
        }))
        .unwrap();
    handle.wait_until_gone("once", DEADLINE).unwrap();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    assert_eq!(recorder.story("left")[..2], ["start 0", "stop shutdown 0"]);
    check_trace(&recorder.events(), Some(&report), false);
}

/// A sink, flag and backoff whose drops panic.
struct BombSink(Bomb);

impl TelemetrySink for BombSink {
    fn record(&self, _event: &Event) {
        let _ = &self.0;
    }
}

#[test]
fn callbacks_whose_drops_panic_end_with_their_supervisor() {
    let (flag, backoff, own) = (Bomb, Bomb, Bomb);
    let with = |bomb: Bomb| {
        Backoff::from_fn(move |_| {
            let _ = &bomb;
            Duration::ZERO
        })
    };
    let supervisor = Supervisor::builder()
        .telemetry(BombSink(Bomb))
        .enabled(move |_| {
            let _ = &flag;
            true
        })
        .backoff(with(backoff))
        .child(idler("child").backoff(with(own)))
        .child(idler("gone").backoff(with(Bomb)))
        .start()
        .unwrap();
    supervisor.handle().remove("gone").unwrap();
    supervisor.handle().wait_until_gone("gone", DEADLINE).unwrap();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
}
