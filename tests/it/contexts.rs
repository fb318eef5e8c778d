//! Contexts of a run that is asked to stop, and of one that has ended.

use std::{
    thread,
    time::{Duration, Instant},
};

use circuit_breaker_supervisor::{ChildContext, ChildResult, ChildSpec, Supervisor};
use crossbeam_channel::{bounded, unbounded};

use crate::support::*;

#[test]
fn endless_waits_of_a_body_end_at_a_stop() {
    type Body = fn(&ChildContext) -> ChildResult;
    let bodies: [(&str, Body); 4] = [
        ("sleep", |ctx| Ok(ctx.sleep(Duration::MAX)?)),
        ("receive", |ctx| Ok(ctx.recv(&crossbeam_channel::never::<()>())?)),
        ("send", |ctx| {
            let (sender, _receiver) = bounded(0);
            Ok(ctx.send(&sender, ())?)
        }),
        ("select", |ctx| {
            let _ = ctx.stopped().recv();
            Ok(())
        }),
    ];
    let supervisor = Supervisor::builder()
        .stop_timeout(DEADLINE)
        .children(bodies.map(|(id, body)| ChildSpec::new(id, body)))
        .start()
        .unwrap();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn contexts_that_outlive_everything_say_stopped() {
    let (sender, contexts) = unbounded();
    let supervisor = Supervisor::builder()
        .child(ChildSpec::new("child", move |ctx| {
            let _ = sender.send(ctx.clone());
            idle(ctx)
        }))
        .start()
        .unwrap();
    let ctx = take(&contexts);
    assert!(!ctx.is_stopping());
    drop(supervisor);
    assert!(ctx.is_stopping());
    assert!(ctx.sleep(Duration::MAX).is_err());
    assert!(ctx.stopped().recv().is_err());
    assert!(ctx.recv(&crossbeam_channel::never::<()>()).is_err());
    assert_eq!(ctx.send(&bounded(0).0, 7).unwrap_err().into_inner(), 7);
    ctx.mark_healthy();
    let drops = Drops::default();
    let token = drops.token();
    let _guard = ctx.on_stop(move || panic!("called, with {}", size_of_val(&token)));
    assert_eq!(drops.count(), 1, "dropped uncalled");
    assert_eq!((&**ctx.id(), ctx.run(), ctx.failures()), ("child", 1, 0));
    assert!(ctx.supervisor().poll_now().is_err());
}

#[test]
fn unpark_that_comes_in_a_sleep_or_between_two_runs_is_left_to_the_body() {
    let (sender, waits) = unbounded();
    let _supervisor = Supervisor::builder()
        .backoff(constant(50 * MS))
        .child(ChildSpec::new("child", move |ctx| {
            if ctx.run() > 1 {
                let began = Instant::now();
                thread::park_timeout(DEADLINE);
                let _ = sender.send(began.elapsed());
                thread::current().unpark();
                ctx.sleep(MS)?;
                let began = Instant::now();
                thread::park_timeout(DEADLINE);
                let _ = sender.send(began.elapsed());
                return idle(ctx);
            }
            thread::current().unpark();
            Err("between two runs, its thread waits".into())
        }))
        .start()
        .unwrap();
    for _ in 0..2 {
        let waited = take(&waits);
        assert!(waited < DEADLINE / 2, "{waited:?}");
    }
}

#[test]
fn helpers_of_a_crashed_run_are_asked_to_stop() {
    let (sender, helpers) = unbounded();
    let supervisor = Supervisor::builder()
        .backoff(constant(Duration::ZERO))
        .child(ChildSpec::new("child", move |ctx| {
            let helper = ctx.clone();
            let handle = thread::spawn(move || {
                let is_stopped = if helper.run() % 2 == 0 {
                    helper.stopped().recv().is_err()
                } else {
                    helper.sleep(HOUR).is_err()
                };
                (helper.run(), helper.is_stopping(), is_stopped)
            });
            let _ = sender.send(handle);
            if ctx.failures() < 3 { panic!("no") } else { idle(ctx) }
        }))
        .start()
        .unwrap();
    let crashed: Vec<_> = (0..4).map(|_| take(&helpers)).collect();
    let mut helpers = crashed.into_iter();
    for run in 1..=3 {
        assert_eq!(helpers.next().unwrap().join().unwrap(), (run, true, true));
    }
    let last = helpers.next().unwrap();
    assert!(!last.is_finished(), "the helper of the present run is wanted");
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(last.join().unwrap(), (4, true, true));
}

#[test]
fn context_is_debugged_without_what_it_guards() {
    let (sender, texts) = unbounded();
    let _supervisor = Supervisor::builder()
        .child(ChildSpec::new("child", move |ctx: &ChildContext| {
            let _guard = ctx.on_stop(|| ());
            let _ = sender.send(format!("{ctx:?} {_guard:?}"));
            idle(ctx)
        }))
        .start()
        .unwrap();
    assert!(
        take(&texts)
            .starts_with("ChildContext { id: \"child\", run: 1, failures: 0, is_stopping: false }")
    );
}
