//! Process of the program: its end, its panic hook, its thread-locals. Each test runs itself again
//! in a process of its own.

mod logging;

use std::{
    cell::RefCell,
    fmt, fs, panic,
    path::Path,
    process::{Command, ExitCode, Termination},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{
    ChildSpec, ChildStatus, Handle, Simulation, Supervisor, capture_panic_locations,
};
use crossbeam_channel::unbounded;

use crate::{subprocess::*, support::*};

#[test]
fn exit_in_a_child_ends_the_process_at_once() {
    if !is_inside() {
        let ended = run(again("process::exit_in_a_child_ends_the_process_at_once"));
        assert_eq!(ended.code, Some(3), "{ended:?}");
        return;
    }
    let _supervisor = Supervisor::builder()
        .child(idler("other"))
        .child(ChildSpec::new("child", |_| std::process::exit(3)))
        .start()
        .unwrap();
    wait_for_the_end();
}

#[test]
fn stack_overflow_ends_the_process() {
    fn dig(depth: u64) -> u64 {
        let room = std::hint::black_box([depth; 512]);
        if room[3] == u64::MAX { 0 } else { dig(depth + 1) + room[17] }
    }
    if !is_inside() {
        let ended = run(again("process::stack_overflow_ends_the_process"));
        assert_eq!(ended.signal, SIGABRT, "{ended:?}");
        assert!(
            ended.err.contains("thread 'digger'") && ended.err.contains("overflowed its stack"),
            "{ended:?}"
        );
        return;
    }
    let _supervisor = Supervisor::builder()
        .child(ChildSpec::new("digger", |_| {
            std::hint::black_box(dig(0));
            Ok(())
        }))
        .start()
        .unwrap();
    wait_for_the_end();
}

#[test]
fn panic_in_the_drop_of_a_thread_local_ends_the_process() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in the drop of a thread-local");
        }
    }
    thread_local! {
        static BOMB: RefCell<Option<Bomb>> = const { RefCell::new(None) };
    }
    if !is_inside() {
        let ended = run(again("process::panic_in_the_drop_of_a_thread_local_ends_the_process"));
        assert_eq!(ended.signal, SIGABRT, "{ended:?}");
        assert!(!ended.out.contains(DONE), "{ended:?}");
        return;
    }
    let supervisor = Supervisor::builder()
        .child(ChildSpec::once("child", |_| {
            BOMB.set(Some(Bomb));
            Ok(())
        }))
        .start()
        .unwrap();
    drop(supervisor);
    wait_for_the_end();
}

#[test]
fn panic_in_a_drop_while_a_child_unwinds_ends_the_process() {
    if !is_inside() {
        let ended = run(again("process::panic_in_a_drop_while_a_child_unwinds_ends_the_process"));
        assert_eq!(ended.signal, SIGABRT, "{ended:?}");
        assert!(ended.err.contains("the first") && ended.err.contains("the second"), "{ended:?}");
        return;
    }
    let _supervisor = Supervisor::builder()
        .child(ChildSpec::new("child", |_| {
            let _bomb = OnDrop(|| panic!("the second"));
            panic!("the first")
        }))
        .start()
        .unwrap();
    wait_for_the_end();
}

#[test]
fn child_that_outlives_its_supervisor_does_not_keep_the_process() {
    if !is_inside() {
        check_done("process::child_that_outlives_its_supervisor_does_not_keep_the_process");
        return;
    }
    let (deaf, gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder().child(deaf).start().unwrap();
    take(&started);
    assert_eq!(supervisor.shutdown_within(Duration::ZERO).unstopped.len(), 1);
    // Its gate never opens: the end of the process is what ends it.
    std::mem::forget(gate);
    println!("{DONE}");
}

#[test]
fn report_of_an_unclean_shutdown_is_a_failure_with_its_text_on_standard_error() {
    if !is_inside() {
        let ended = run_to_the_end(again(
            "process::report_of_an_unclean_shutdown_is_a_failure_with_its_text_on_standard_error",
        ));
        assert_eq!(
            ended.err.matches("shut down as requested").count(),
            1,
            "once, and nothing of the clean one: {ended:?}"
        );
        assert!(ended.err.contains("1 did not stop: `deaf` (run 1, asked "), "{ended:?}");
        return;
    }
    let clean = Supervisor::builder().child(idler("good")).start().unwrap().shutdown();
    assert_eq!(clean.report(), ExitCode::SUCCESS);
    let (deaf, _gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder().child(deaf).start().unwrap();
    take(&started);
    assert_eq!(supervisor.shutdown_within(Duration::ZERO).report(), ExitCode::from(1));
    println!("{DONE}");
}

#[test]
fn report_that_cannot_be_printed_does_not_keep_the_process() {
    if !is_inside() {
        let ended = run(again("process::report_that_cannot_be_printed_does_not_keep_the_process"));
        assert_eq!(ended.code, Some(7), "{ended:?}");
        return;
    }
    let (deaf, _gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder().telemetry(()).child(deaf).start().unwrap();
    take(&started);
    let report = supervisor.shutdown_within(Duration::ZERO);
    // As a thread does that is stuck while it prints.
    std::mem::forget(std::io::stderr().lock());
    thread::spawn(|| {
        let _ = crossbeam_channel::never::<()>().recv_timeout(DEADLINE);
        std::process::exit(1);
    });
    // On another thread: the lock lets the one in again that holds it.
    let code = thread::spawn(|| report.report() == ExitCode::from(1)).join().unwrap();
    std::process::exit(if code { 7 } else { 8 });
}

#[test]
fn panic_hook_is_the_programs_own_and_may_ask_the_handle() {
    if !is_inside() {
        check_done("process::panic_hook_is_the_programs_own_and_may_ask_the_handle");
        return;
    }
    static HANDLE: OnceLock<Handle> = OnceLock::new();
    static CALLS: AtomicU32 = AtomicU32::new(0);
    panic::set_hook(Box::new(|_| {
        CALLS.fetch_add(1, Ordering::SeqCst);
        if let Some(handle) = HANDLE.get() {
            assert!(handle.child("child").is_some_and(|child| child.is_running()));
            let _ = handle.snapshot().to_string();
            handle.poll_now().unwrap();
            handle.wait_for("child", DEADLINE, |child| child.is_running()).unwrap();
        }
    }));
    let (child, strings) = puppet("child");
    let supervisor = Supervisor::builder()
        .telemetry(())
        .backoff(constant(Duration::ZERO))
        .child(child)
        .start()
        .unwrap();
    HANDLE.set(supervisor.handle().clone()).unwrap();
    for expected in 1..=3 {
        strings.next_run();
        strings.act(Act::Panic("no"));
        strings.act(Act::Fail("no"));
        strings.next_run();
        eventually("the hook is called once for each panic", || {
            CALLS.load(Ordering::SeqCst) == expected
        });
    }
    strings.next_run();
    assert!(supervisor.shutdown().is_clean());
    assert_eq!(CALLS.load(Ordering::SeqCst), 3);
    println!("{DONE}");
}

#[test]
fn supervisor_may_be_kept_in_a_thread_local() {
    thread_local! {
        static KEPT: RefCell<Option<Supervisor>> = const { RefCell::new(None) };
    }
    if !is_inside() {
        check_done("process::supervisor_may_be_kept_in_a_thread_local");
        return;
    }
    let (sender, handles) = unbounded();
    let owner = thread::spawn(move || {
        KEPT.with_borrow_mut(|kept| {
            // The thread-local is known to its thread before anything of the supervisor's is, and
            // so outlives all of that.
            let supervisor = Supervisor::builder().child(idler("child")).start().unwrap();
            let _ = sender.send(supervisor.handle().clone());
            *kept = Some(supervisor);
        });
    });
    owner.join().unwrap();
    let report = take(&handles).wait_until_stopped(Duration::ZERO).unwrap();
    assert!(report.is_clean(), "the destructor shut it down: {report}");
    println!("{DONE}");
}

#[test]
fn simulation_may_be_kept_in_a_thread_local() {
    thread_local! {
        static KEPT: RefCell<Option<Simulation>> = const { RefCell::new(None) };
    }
    if !is_inside() {
        check_done("process::simulation_may_be_kept_in_a_thread_local");
        return;
    }
    let owner = thread::spawn(|| {
        KEPT.with_borrow_mut(|kept| {
            *kept = Some(simulate(Supervisor::builder().child(unused("child"))))
        });
    });
    owner.join().unwrap();
    println!("{DONE}");
}

/// An error whose drop panics, and is counted.
#[derive(Debug)]
struct Bomb;

static BOMBS_DROPPED: AtomicU32 = AtomicU32::new(0);

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bomb")
    }
}

impl std::error::Error for Bomb {}

impl Drop for Bomb {
    fn drop(&mut self) {
        BOMBS_DROPPED.fetch_add(1, Ordering::SeqCst);
        panic!("cannot be dropped");
    }
}

#[test]
fn child_that_outlives_its_supervisor_and_whose_error_panics_last_ends_nothing() {
    if !is_inside() {
        check_done(
            "process::child_that_outlives_its_supervisor_and_whose_error_panics_last_ends_nothing",
        );
        return;
    }
    let (deaf, gate, started) = stubborn("deaf");
    let supervisor = Supervisor::builder()
        .telemetry(())
        .backoff(constant(HOUR))
        .child(ChildSpec::new("failed", |_| Err(Bomb.into())))
        .child(deaf.stop_timeout(Duration::ZERO))
        .start()
        .unwrap();
    let ctx = take(&started);
    wait_status(supervisor.handle(), "failed", ChildStatus::BackingOff);
    drop(ctx);
    let unstopped = supervisor.shutdown().unstopped;
    assert!(unstopped.len() == 1 && unstopped[0].id == "deaf", "{unstopped:?}");
    // Now the child's thread alone holds what is left of the supervisor.
    drop(gate);
    eventually("the thread ends", || threads_named("deaf") == 0);
    println!("{DONE}");
}

/// A panic that is caught as the thread-local variables go, whichever of them go first: by then
/// there may be no place to keep where it happened.
#[test]
fn panic_that_is_caught_where_a_thread_is_ending_ends_nothing() {
    thread_local! {
        static EARLY: RefCell<Option<Handle>> = const { RefCell::new(None) };
        static LATE: RefCell<Option<Handle>> = const { RefCell::new(None) };
    }
    if !is_inside() {
        check_done("process::panic_that_is_caught_where_a_thread_is_ending_ends_nothing");
        return;
    }
    capture_panic_locations();
    // Of each supervisor, only a handle is left, and what it knows of a child goes with it.
    let [one, two, three] = [(); 3].map(|()| {
        let failing = ChildSpec::new("failing", |_| Err(Bomb.into()));
        let supervisor = Supervisor::builder()
            .telemetry(())
            .backoff(constant(HOUR))
            .child(failing)
            .start()
            .unwrap();
        let handle = supervisor.handle().clone();
        wait_status(&handle, "failing", ChildStatus::BackingOff);
        let _ = shut_down(supervisor, DEADLINE);
        handle
    });
    assert_eq!(BOMBS_DROPPED.load(Ordering::SeqCst), 0);
    let owner = thread::spawn(move || {
        EARLY.set(Some(one));
        // The first place of a panic on this thread.
        drop(two);
        LATE.set(Some(three));
    });
    owner.join().unwrap();
    assert_eq!(BOMBS_DROPPED.load(Ordering::SeqCst), 3);
    println!("{DONE}");
}

/// Fails three times, and then panics.
const PROGRAM: &str = r#"
use std::time::Duration;

use circuit_breaker_supervisor::{Backoff, ChildSpec, Supervisor};

struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{} {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

fn main() {
    log::set_logger(&Log).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    drop(Supervisor::builder().start().unwrap());
    let child = ChildSpec::new("child", |ctx| {
        assert!(ctx.failures() < 3, "the end");
        Err("no".into())
    });
    let backoff = Backoff::constant(Duration::from_millis(1));
    let supervisor = Supervisor::builder().backoff(backoff).child(child).start().unwrap();
    drop(supervisor.wait());
    println!("it lives");
}
"#;

#[test]
#[ignore = "builds the crate and its dependencies once more: cargo test -- --ignored panic_abort"]
fn panic_abort_is_warned_of_and_only_errors_are_survived() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("panic-abort");
    fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"panic-abort\"\nedition = \"2024\"\n[workspace]\n\
         [profile.dev]\npanic = \"abort\"\n\
         [dependencies]\ncircuit-breaker-supervisor = {{ path = {root:?} }}\nlog = \"0.4\"\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.join("src/main.rs"), PROGRAM).unwrap();
    // The same versions as here: they are there, and nothing is asked of the network.
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut program = Command::new(folder.join("target/debug/panic-abort"));
    program.env("RUST_BACKTRACE", "0");
    let ended = run(program);
    assert_eq!(ended.signal, SIGABRT, "{ended:?}");
    assert!(!ended.out.contains("it lives"), "{ended:?}");
    let warning =
        "WARN this program is built with panic = \"abort\": a panic in a child ends the process\n";
    assert!(ended.err.starts_with(warning), "at the first start: {ended:?}");
    assert_eq!(ended.err.matches(warning).count(), 1, "once: {ended:?}");
    assert_eq!(
        ended.err.matches("child `child` failed after").count(),
        3,
        "errors are handled: {ended:?}"
    );
    assert!(ended.err.contains("the end"), "{ended:?}");
}
