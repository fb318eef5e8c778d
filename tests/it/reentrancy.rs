//! Calls into the supervisor from the code that it calls: bodies, flags, backoffs, sinks and drops.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use circuit_breaker_supervisor::{
    AddErrorReason, Backoff, ChildSpec, EventKind, Handle, OffBy, Supervisor, WaitError,
};
use crossbeam_channel::unbounded;

use crate::support::*;

type Slot = Arc<OnceLock<Handle>>;

#[test]
fn flag_that_asks_for_the_shutdown_sees_no_start_follow() {
    let recorder = Recorder::default();
    let (slot, calls) = (Slot::default(), Arc::new(AtomicU32::new(0)));
    let (its, count) = (slot.clone(), calls.clone());
    let (child, strings) = puppet("asked about");
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .poll_interval(Duration::MAX)
        .enabled(move |_| match its.get() {
            Some(handle) => {
                count.fetch_add(1, Ordering::SeqCst);
                handle.request_shutdown();
                true
            }
            None => false,
        })
        .child(child)
        .child(idler("next"))
        .start()
        .unwrap();
    slot.set(supervisor.handle().clone()).unwrap();
    supervisor.handle().poll_now().unwrap();
    let report = supervisor.wait();
    assert!(report.is_clean(), "{report}");
    assert_eq!(
        recorder.whole_story(),
        ["asked about: flag off", "next: flag off", "asked about: flag on"]
    );
    assert!(strings.runs.is_empty());
    assert!(calls.load(Ordering::SeqCst) >= 1);
}

#[test]
fn backoff_that_asks_for_the_shutdown_sees_no_start_follow() {
    let recorder = Recorder::default();
    let slot = Slot::default();
    let its = slot.clone();
    let (child, strings) = puppet("child");
    let backoff = Backoff::from_fn(move |_| {
        its.get().unwrap().request_shutdown();
        Duration::ZERO
    });
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(child.backoff(backoff))
        .start()
        .unwrap();
    slot.set(supervisor.handle().clone()).unwrap();
    strings.act(Act::Fail("no"));
    let report = supervisor.wait();
    assert!(report.is_clean(), "{report}");
    assert_eq!(recorder.story("child"), ["start 0", "stop exited 0"]);
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn flag_that_holds_or_removes_the_child_it_is_asked_about_sees_no_start_follow() {
    for remove in [false, true] {
        let recorder = Recorder::default();
        let slot = Slot::default();
        let its = slot.clone();
        let (child, strings) = puppet("child");
        let supervisor = Supervisor::builder()
            .telemetry(recorder.clone())
            .poll_interval(Duration::MAX)
            .enabled(move |id| match its.get() {
                Some(handle) if id == "child" => {
                    if remove { handle.remove(id) } else { handle.hold(id) }.unwrap();
                    true
                }
                Some(_) => true,
                None => false,
            })
            .child(child)
            .start()
            .unwrap();
        slot.set(supervisor.handle().clone()).unwrap();
        let handle = supervisor.handle();
        handle.poll_now().unwrap();
        if remove {
            handle.wait_until_gone("child", DEADLINE).unwrap();
        } else {
            wait_off(handle, "child", OffBy::Operator);
        }
        barrier(handle);
        assert!(strings.runs.is_empty());
        assert!(supervisor.shutdown().is_clean());
        assert_eq!(recorder.story("child"), ["flag off", "flag on"]);
    }
}

#[test]
fn body_may_add_and_remove_other_children() {
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(ChildSpec::once("parent", |ctx| {
            let handle = ctx.supervisor();
            for id in ["one", "two"] {
                handle.add(ChildSpec::new(id, idle))?;
            }
            handle.wait_for("two", DEADLINE, |child| child.is_running())?;
            handle.remove("one")?;
            handle.wait_until_gone("one", DEADLINE)?;
            Ok(())
        }))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    handle.wait_until_gone("parent", DEADLINE).unwrap();
    assert!(stop_of(&recorder.wait_for("parent", "stop", 1)).exit.is_completed());
    assert!(handle.child("two").unwrap().is_running());
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn body_may_command_itself() {
    let recorder = Recorder::default();
    let exclusive = Exclusive::default();
    let its = exclusive.clone();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .child(ChildSpec::new("child", move |ctx| {
            let _inside = its.enter();
            let handle = ctx.supervisor();
            match ctx.run() {
                run @ 1..=20 => {
                    handle.restart(ctx.id())?;
                    if run % 2 == 0 { idle(ctx) } else { panic!("no") }
                }
                21 => {
                    handle.hold(ctx.id())?;
                    // Not before the hold is carried out: a release takes the place of one that is
                    // not.
                    let stopped = idle(ctx);
                    handle.release(ctx.id())?;
                    stopped
                }
                22 => {
                    handle.reset(ctx.id())?;
                    handle.remove(ctx.id())?;
                    idle(ctx)
                }
                _ => unreachable!("removed"),
            }
        }))
        .start()
        .unwrap();
    supervisor.handle().wait_until_gone("child", DEADLINE).unwrap();
    assert!(!exclusive.was_broken());
    assert_eq!(recorder.count("child", "start 0"), 22, "what is asked for by hand is no failure");
    assert_eq!(recorder.story("child").last().unwrap(), "stop removed 0");
    let report = supervisor.shutdown();
    check_trace(&recorder.events(), Some(&report), true);
}

#[test]
fn sink_may_add_a_replacement_on_every_stop() {
    let slot = Slot::default();
    let its = slot.clone();
    let recorder = Recorder::default();
    let (sender, refused) = unbounded();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .on_event(move |event| {
            if let (EventKind::Stopped { .. }, Some(handle)) = (&event.kind, its.get()) {
                let number: u32 = event.id.parse().unwrap();
                if number < 100 {
                    let next = ChildSpec::once((number + 1).to_string(), |_| Err("no".into()));
                    if let Err(error) = handle.add(next) {
                        let _ = sender.send(error.to_string());
                    }
                    // The one that has just stopped is still listed.
                    let again =
                        handle.add(ChildSpec::once(event.id.as_str(), |_| Ok(()))).unwrap_err();
                    assert!(matches!(again.reason(), AddErrorReason::Config(_)));
                }
            }
        })
        .start()
        .unwrap();
    slot.set(supervisor.handle().clone()).unwrap();
    supervisor.handle().add(ChildSpec::once("1", |_| Ok(()))).unwrap();
    recorder.wait_for("100", "stop", 1);
    supervisor.handle().wait_until_gone("100", DEADLINE).unwrap();
    assert!(refused.is_empty());
    assert_eq!(supervisor.handle().snapshot().counts().children, 0);
    let report = supervisor.shutdown();
    check_trace(&recorder.events(), Some(&report), false);
}

#[test]
fn sink_may_command_the_child_it_is_told_of() {
    let slot = Slot::default();
    let its = slot.clone();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .on_event(move |event| {
            let Some(handle) = its.get() else { return };
            match (&event.kind, event.run) {
                (EventKind::Started, 1..=10) => handle.hold(&event.id).unwrap(),
                (EventKind::Started, 11) => handle.remove(&event.id).unwrap(),
                (EventKind::Stopped { .. }, 1..=10) => handle.release(&event.id).unwrap(),
                _ => {}
            }
        })
        .start()
        .unwrap();
    slot.set(supervisor.handle().clone()).unwrap();
    supervisor.handle().add(idler("child")).unwrap();
    supervisor.handle().wait_until_gone("child", DEADLINE).unwrap();
    let story = recorder.story("child");
    assert!(story[..20].chunks(2).all(|run| run == ["start 0", "stop held 0"]), "{story:?}");
    assert_eq!(story[20..], ["start 0", "stop removed 0"]);
    check_trace(&recorder.events(), None, false);
}

#[test]
fn waits_on_the_supervisors_own_thread_are_refused_at_once() {
    let slot = Slot::default();
    let (in_flag, in_backoff, in_sink) = (slot.clone(), slot.clone(), slot.clone());
    let (sender, refusals) = unbounded();
    let (from_flag, from_backoff) = (sender.clone(), sender.clone());
    let refused = |slot: &Slot| {
        let handle = slot.get()?;
        let answers = [
            handle.wait_for("child", HOUR, |_| true).err(),
            handle.wait_until_gone("nobody", HOUR).err(),
            handle.wait_until_stopped(HOUR).err(),
        ];
        Some(answers.iter().all(|answer| matches!(answer, Some(WaitError::OnSupervisorThread))))
    };
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .poll_interval(Duration::MAX)
        .enabled(move |_| from_flag.send(("flag", refused(&in_flag))).is_ok())
        .backoff(Backoff::from_fn(move |_| {
            let _ = from_backoff.send(("backoff", refused(&in_backoff)));
            Duration::ZERO
        }))
        .on_event(move |_| {
            let _ = sender.send(("sink", refused(&in_sink)));
        })
        .child(child)
        .start()
        .unwrap();
    slot.set(supervisor.handle().clone()).unwrap();
    strings.act(Act::Fail("no"));
    strings.next_run();
    strings.next_run();
    drop(supervisor);
    let answers: Vec<_> =
        refusals.try_iter().filter_map(|(who, answer)| Some((who, answer?))).collect();
    for who in ["flag", "backoff", "sink"] {
        assert!(answers.iter().any(|(told, _)| *told == who), "{who} was called");
    }
    assert!(answers.iter().all(|(_, refused)| *refused), "{answers:?}");
}

#[test]
fn handle_may_be_used_while_a_body_an_error_or_a_callback_is_dropped() {
    #[derive(Debug)]
    struct Caller(Handle);
    impl Caller {
        fn call(&self) {
            let _ = self.0.snapshot().to_string();
            let _ = self.0.child("child");
            let _ = self.0.poll_now();
            let _ = self.0.reset("child");
            let _ = self.0.wait_for("child", Duration::ZERO, |_| true);
        }
    }
    impl std::fmt::Display for Caller {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.call();
            f.write_str("a caller")
        }
    }
    impl std::error::Error for Caller {}
    impl Drop for Caller {
        fn drop(&mut self) {
            self.call();
        }
    }
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let (captured, in_backoff) = (Caller(handle.clone()), Caller(handle.clone()));
    handle
        .add(
            ChildSpec::new("child", move |ctx| {
                captured.call();
                let caller = Caller(ctx.supervisor().clone());
                match ctx.run() {
                    1..=10 => Err(caller.into()),
                    11..=20 => std::panic::panic_any(caller),
                    _ => {
                        std::mem::forget(ctx.on_stop(move || caller.call()));
                        idle(ctx)
                    }
                }
            })
            .backoff(Backoff::from_fn(move |_| {
                in_backoff.call();
                Duration::ZERO
            })),
        )
        .unwrap();
    handle.wait_for("child", DEADLINE, |child| child.run == 21 && child.is_running()).unwrap();
    handle.remove("child").unwrap();
    handle.wait_until_gone("child", DEADLINE).unwrap();
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    check_trace(&recorder.events(), Some(&report), true);
}
