//! Drops of a user's values that block: each delays nobody but, at most, its own child.

use std::{error::Error, fmt, panic::panic_any, time::Duration};

use circuit_breaker_supervisor::{
    Backoff, ChildContext, ChildResult, ChildSpec, ChildStatus, Handle, OffBy, Supervisor,
};
use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::support::*;

/// A value whose drop blocks at a gate. It says when it begins to be dropped, and when it has been.
struct Sticky {
    bar: Bar,
    dropped: Sender<&'static str>,
}

impl Drop for Sticky {
    fn drop(&mut self) {
        let _ = self.dropped.send("begun");
        self.bar.wait();
        let _ = self.dropped.send("done");
    }
}

impl fmt::Debug for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sticky")
    }
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sticky")
    }
}

impl Error for Sticky {}

/// The test's side of a [`Sticky`].
struct Drops {
    gate: Gate,
    dropped: Receiver<&'static str>,
}

fn sticky() -> (Sticky, Drops) {
    let (gate, bar) = gate();
    let (sender, dropped) = unbounded();
    (Sticky { bar, dropped: sender }, Drops { gate, dropped })
}

/// Has the value dropped, and checks that meanwhile another child of the same supervisor is
/// restarted again and again. The child that holds the value is named `child`.
#[track_caller]
fn check_delays_nobody(child: ChildSpec, mut drops: Drops, drop_it: impl FnOnce(&Handle)) {
    let builder =
        Supervisor::builder().telemetry(()).backoff(constant(Duration::ZERO)).stop_timeout(20 * MS);
    let (other, strings) = puppet("other");
    let supervisor = builder.child(child).child(other).start().unwrap();
    strings.next_run();
    drop_it(supervisor.handle());
    assert_eq!(take(&drops.dropped), "begun");
    for _ in 0..20 {
        strings.act(Act::Fail("it goes on"));
        strings.next_run();
    }
    assert!(drops.dropped.is_empty(), "its drop still blocks");
    drops.gate.open();
    assert_eq!(take(&drops.dropped), "done");
    let _ = shut_down(supervisor, DEADLINE);
}

fn remove_running(handle: &Handle) {
    handle.wait_for("child", DEADLINE, |child| child.is_running()).unwrap();
    handle.remove("child").unwrap();
}

fn remove_held(handle: &Handle) {
    handle.hold("child").unwrap();
    wait_off(handle, "child", OffBy::Operator);
    handle.remove("child").unwrap();
}

/// For a child that drops the value by itself.
fn leave_alone(_: &Handle) {}

// ── What closures capture ──

fn child_with_body_of(value: Sticky) -> ChildSpec {
    ChildSpec::new("child", move |ctx| {
        let _ = &value;
        idle(ctx)
    })
}

#[test]
fn body_of_a_running_child_that_is_removed() {
    let (value, drops) = sticky();
    check_delays_nobody(child_with_body_of(value), drops, remove_running);
}

#[test]
fn body_of_a_held_child_that_is_removed() {
    let (value, drops) = sticky();
    check_delays_nobody(child_with_body_of(value), drops, remove_held);
}

#[test]
fn body_of_a_once_child_that_has_ended() {
    let (value, drops) = sticky();
    let child = ChildSpec::once("child", move |_| {
        drop(value);
        Ok(())
    });
    check_delays_nobody(child, drops, leave_alone);
}

fn backoff_of(value: Sticky) -> Backoff {
    Backoff::from_fn(move |_| {
        let _ = &value;
        Duration::ZERO
    })
}

#[test]
fn backoff_of_a_running_child_that_is_removed() {
    let (value, drops) = sticky();
    check_delays_nobody(idler("child").backoff(backoff_of(value)), drops, remove_running);
}

#[test]
fn backoff_of_a_held_child_that_is_removed() {
    let (value, drops) = sticky();
    check_delays_nobody(idler("child").backoff(backoff_of(value)), drops, remove_held);
}

#[test]
fn backoff_of_a_once_child_that_has_ended() {
    let (value, drops) = sticky();
    let child = ChildSpec::once("child", |_| Ok(())).backoff(backoff_of(value));
    check_delays_nobody(child, drops, leave_alone);
}

/// Runs once with the value, and idles ever after.
fn child_that_once(
    mut value: Option<Sticky>,
    with: impl Fn(&ChildContext, Sticky) -> ChildResult + Send + 'static,
) -> ChildSpec {
    ChildSpec::new("child", move |ctx| match value.take() {
        Some(value) => with(ctx, value),
        None => idle(ctx),
    })
}

#[test]
fn stop_callback_that_is_taken_back() {
    let (value, drops) = sticky();
    let child = child_that_once(Some(value), |ctx, value| {
        drop(ctx.on_stop(move || drop(value)));
        idle(ctx)
    });
    check_delays_nobody(child, drops, leave_alone);
}

#[test]
fn stop_callback_that_is_called() {
    let (value, drops) = sticky();
    let child = child_that_once(Some(value), |ctx, value| {
        let _guard = ctx.on_stop(move || drop(value));
        idle(ctx)
    });
    // At the stop the body returns, and takes the callback back unless it is being called: either
    // way it is dropped.
    check_delays_nobody(child, drops, remove_running);
}

#[test]
fn stop_callback_that_is_left_behind_at_the_end_of_its_run() {
    let (value, drops) = sticky();
    let child = child_that_once(Some(value), |ctx, value| {
        std::mem::forget(ctx.on_stop(move || drop(value)));
        Ok(())
    });
    check_delays_nobody(child, drops, leave_alone);
}

// ── What runs end with ──

#[test]
fn error_that_the_error_of_the_next_run_replaces() {
    let (value, drops) = sticky();
    let mut value = Some(value);
    let child = ChildSpec::new("child", move |ctx| match (value.take(), ctx.failures()) {
        (Some(value), _) => Err(value.into()),
        (None, 1) => Err("another".into()),
        // As this one ends, the first is dropped.
        (None, 2) => Err("a third".into()),
        (None, _) => idle(ctx),
    });
    check_delays_nobody(child, drops, leave_alone);
}

#[test]
fn error_of_a_child_that_is_removed_while_it_backs_off() {
    let (value, drops) = sticky();
    let child = child_that_once(Some(value), |_, value| Err(value.into())).backoff(constant(HOUR));
    check_delays_nobody(child, drops, |handle| {
        wait_status(handle, "child", ChildStatus::BackingOff);
        handle.remove("child").unwrap();
    });
}

#[test]
fn error_of_a_child_that_is_removed_while_it_runs_again() {
    let (value, drops) = sticky();
    let child = child_that_once(Some(value), |_, value| Err(value.into()));
    check_delays_nobody(child, drops, |handle| {
        handle
            .wait_for("child", DEADLINE, |child| child.is_running() && child.failures == 1)
            .unwrap();
        handle.remove("child").unwrap();
    });
}

#[test]
fn error_of_a_once_child() {
    let (value, drops) = sticky();
    check_delays_nobody(ChildSpec::once("child", |_| Err(value.into())), drops, leave_alone);
}

#[test]
fn payload_of_a_panic() {
    let (value, drops) = sticky();
    check_delays_nobody(
        child_that_once(Some(value), |_, value| panic_any(value)),
        drops,
        leave_alone,
    );
}

/// The thread of a child may be dropping the error of an earlier run while the next one is started.
/// However long that takes, a run whose body has not begun is not healthy.
#[test]
fn run_is_not_healthy_before_its_body_has_begun() {
    let (value, _drops) = sticky();
    let mut values = vec![value];
    let (sender, begun) = unbounded();
    let supervisor = Supervisor::builder()
        .backoff(constant(Duration::ZERO))
        .healthy_after(100 * MS)
        .stop_timeout(10 * MS)
        .child(ChildSpec::new("child", move |ctx| {
            let _ = sender.send(ctx.run());
            match ctx.run() {
                1 => Err(values.pop().unwrap().into()),
                2 => Err("another".into()),
                _ => idle(ctx),
            }
        }))
        .start()
        .unwrap();
    let child = supervisor
        .handle()
        .wait_for("child", DEADLINE, |child| child.status == ChildStatus::Healthy)
        .unwrap();
    let runs: Vec<_> = begun.try_iter().collect();
    assert!(runs.contains(&child.run), "{child}; bodies begun: {runs:?}");
}
