//! Log of the program, which is the process's only one. Each test runs itself again in a process of
//! its own.

use std::{panic, time::Duration};

use circuit_breaker_supervisor::{Callback, ChildSpec, ChildStatus, OffBy, Supervisor};
use parking_lot::Mutex;

use crate::{subprocess::*, support::*};

/// Remembers what is logged; panics at what says so.
struct Log(Mutex<Vec<String>>);

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        struct Pairs(String);
        impl<'kvs> log::kv::VisitSource<'kvs> for Pairs {
            fn visit_pair(
                &mut self,
                key: log::kv::Key<'kvs>,
                value: log::kv::Value<'kvs>,
            ) -> Result<(), log::kv::Error> {
                self.0 += &format!(" {key}={value}");
                Ok(())
            }
        }
        let mut pairs = Pairs(String::new());
        record.key_values().visit(&mut pairs).unwrap();
        self.0.lock().push(format!("{} {}{}", record.level(), record.args(), pairs.0));
        assert!(!record.args().to_string().contains("explosive"), "the log backend is broken");
    }

    fn flush(&self) {}
}

static LOG: Log = Log(Mutex::new(Vec::new()));

#[test]
fn everything_is_logged_where_there_is_no_sink_and_a_broken_log_is_contained() {
    if !is_inside() {
        check_done(
            "process::logging::\
             everything_is_logged_where_there_is_no_sink_and_a_broken_log_is_contained",
        );
        return;
    }
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let (child, strings) = puppet("child");
    let supervisor =
        Supervisor::builder().backoff(constant(Duration::ZERO)).child(child).start().unwrap();
    for act in [Act::Fail("explosive"), Act::Panic("first\nsecond"), Act::Return] {
        strings.next_run();
        strings.act(act);
    }
    strings.next_run();
    strings.act(Act::MarkHealthy);
    wait_status(supervisor.handle(), "child", ChildStatus::Healthy);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    let lines = LOG.0.lock().clone();
    let levels: Vec<_> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    // The fifth of nine is of the sink that panicked; the child's own are all there.
    let expected =
        ["INFO", "WARN", "ERROR", "INFO", "ERROR", "INFO", "WARN", "INFO", "INFO", "INFO"];
    assert_eq!(levels, expected, "{lines:#?}");
    assert!(
        lines[1].starts_with("WARN child `child` failed after ")
            && lines[1].contains(": explosive; tried again now"),
        "{lines:#?}"
    );
    assert!(
        lines[1].contains(
            " event=circuit_breaker_supervisor.child.stop supervisor=supervisor child=child \
             seq=1 run=1 failures=0"
        ),
        "{lines:#?}"
    );
    assert!(
        lines[1].contains(" cause=exited exit=failed failed=true uptime_ms=")
            && lines[1].contains(" retry_in_ms=0 error=explosive"),
        "{lines:#?}"
    );
    assert!(lines[4].contains(": first\\nsecond; "), "{lines:#?}");
    assert!(lines[4].ends_with(" error=first\\nsecond"), "{lines:#?}");
    println!("{DONE}");
}

#[test]
fn what_did_not_stop_as_the_supervisor_was_dropped_is_logged() {
    if !is_inside() {
        check_done("process::logging::what_did_not_stop_as_the_supervisor_was_dropped_is_logged");
        return;
    }
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let (deaf, _gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder()
        .telemetry(())
        .child(deaf.stop_timeout(Duration::ZERO))
        .start()
        .unwrap();
    take(&started);
    drop(supervisor);
    let lines = LOG.0.lock().clone();
    assert!(
        lines.len() == 1 && lines[0].starts_with("WARN ") && lines[0].contains("`deaf`"),
        "{lines:#?}"
    );
    println!("{DONE}");
}

#[test]
fn panic_in_the_drop_of_a_body_whose_child_is_gone_is_logged() {
    if !is_inside() {
        check_done("process::logging::panic_in_the_drop_of_a_body_whose_child_is_gone_is_logged");
        return;
    }
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Error);
    let bomb = OnDrop(|| panic!("no way to go"));
    let child = ChildSpec::new("child", move |ctx| {
        let _ = &bomb;
        idle(ctx)
    });
    let supervisor = Supervisor::builder().telemetry(()).child(child).start().unwrap();
    let handle = supervisor.handle();
    handle.hold("child").unwrap();
    wait_off(handle, "child", OffBy::Operator);
    handle.remove("child").unwrap();
    handle.wait_until_gone("child", DEADLINE).unwrap();
    eventually("it is logged", || {
        LOG.0.lock().iter().any(|line| line.contains("that is gone panicked: no way to go"))
    });
    println!("{DONE}");
}

#[test]
fn log_that_blocks_is_a_sink_that_does() {
    struct Blocking;
    impl log::Log for Blocking {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            if record.args().to_string().contains("sink panicked") {
                wait_for_the_end();
            }
        }
        fn flush(&self) {}
    }
    if !is_inside() {
        check_done("process::logging::log_that_blocks_is_a_sink_that_does");
        return;
    }
    log::set_logger(&Blocking).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let (child, _strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .on_event(|event| assert!(!word(event).starts_with("stop"), "no stops"))
        .child(child)
        .start()
        .unwrap();
    let report = supervisor.shutdown();
    assert_eq!(
        report.stuck_in.as_ref().map(|stuck| stuck.callback),
        Some(Callback::Sink),
        "{report}"
    );
    assert!(!report.is_clean());
    println!("{DONE}");
}
