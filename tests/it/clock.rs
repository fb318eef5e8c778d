//! Clocks: the wall clock is set back and forth, and the whole process is stopped for a while.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use circuit_breaker_supervisor::{ChildSpec, ChildStatus, Supervisor};

use crate::{subprocess::*, support::*};

/// Names the file that sets the wall clock back for as long as it exists.
const SET_BACK: &str = "CIRCUIT_BREAKER_SUPERVISOR_TEST_SET_BACK";

/// Stands before the C library's function: the clock of the machine is not ours to set.
const WALL_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    const char *file = getenv("CIRCUIT_BREAKER_SUPERVISOR_TEST_SET_BACK");
    if (clock == CLOCK_REALTIME && file && access(file, F_OK) == 0) now->tv_sec -= 3600;
    return result;
}
"#;

#[test]
#[cfg_attr(
    target_pointer_width = "32",
    ignore = "there the C library has a second function for it"
)]
fn wall_clock_that_is_set_means_nothing() {
    if !is_inside() {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("wall-clock-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
        fs::write(&source, WALL_CLOCK).unwrap();
        let compiler =
            c_compiler().args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
        assert!(compiler.expect("the C compiler, by which Rust links too").success());
        let mut command = again("clock::wall_clock_that_is_set_means_nothing");
        command.env("LD_PRELOAD", library).env(SET_BACK, folder.join("set-back"));
        run_to_the_end(command);
        fs::remove_dir_all(folder).unwrap();
        return;
    }
    let file = env::var_os(SET_BACK).unwrap();
    let recorder = Recorder::default();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .poll_interval(50 * MS)
        .enabled(|_| true)
        .backoff(constant(200 * MS))
        .healthy_after(200 * MS)
        .child(ChildSpec::new("soon", |ctx| {
            if ctx.failures() == 0 { Err("no".into()) } else { idle(ctx) }
        }))
        .child(ChildSpec::new("later", |_| Err("no".into())).backoff(constant(HOUR / 2)))
        .child(
            ChildSpec::new("silent", |ctx| {
                ctx.heartbeat("nothing");
                silent(ctx)
            })
            .watchdog(200 * MS),
        )
        .start()
        .unwrap();
    let handle = supervisor.handle();
    let before = SystemTime::now();
    fs::write(&file, "").unwrap();
    assert!(SystemTime::now() < before - HOUR / 2, "it is set back");
    // Nothing comes an hour late.
    recorder.wait_for("soon", "start 1", 1);
    recorder.wait_for("soon", "healthy", 1);
    recorder.wait_for("silent", "hung", 1);
    // Nothing comes an hour early.
    fs::remove_file(&file).unwrap();
    assert!(SystemTime::now() >= before, "it is set forth");
    handle.poll_now().unwrap();
    barrier(handle);
    assert!(wait_status(handle, "later", ChildStatus::BackingOff).retry_in.unwrap() > HOUR / 4);
    let report = supervisor.shutdown();
    assert!(report.is_clean(), "{report}");
    let events = recorder.events();
    assert!(
        events
            .iter()
            .all(|event| !word(event).starts_with("stop") || stop_of(event).uptime < HOUR / 4)
    );
    check_trace(&events, Some(&report), false);
    println!("{DONE}");
}

#[test]
fn process_that_was_suspended_goes_on_as_before() {
    const SUSPENDED: Duration = Duration::from_secs(3);
    if is_inside() {
        let recorder = Recorder::default();
        let (child, strings) = puppet("child");
        let (deaf, gate, started) = stubborn("deaf");
        let supervisor = Supervisor::builder()
            .telemetry(recorder.clone())
            .poll_interval(MS)
            .enabled(|_| true)
            .backoff(constant(Duration::ZERO))
            .child(child)
            .child(idler("other"))
            .child(
                ChildSpec::new("beating", |ctx| {
                    while !ctx.is_stopping() {
                        ctx.heartbeat("beating");
                        // Not by the context, whose waits are signs of life, too.
                        std::thread::sleep(5 * MS);
                    }
                    Ok(())
                })
                .watchdog(SUSPENDED * 2 / 3),
            )
            .child(
                ChildSpec::new("down", |ctx| {
                    if ctx.failures() == 0 { Err("no".into()) } else { idle(ctx) }
                })
                .backoff(constant(SUSPENDED / 2)),
            )
            .child(deaf.abandon_after(SUSPENDED))
            // That many of its backoffs end meanwhile.
            .child(
                ChildSpec::new("failing", |_| Err("no".into())).backoff(constant(SUSPENDED / 60)),
            )
            .start()
            .unwrap();
        strings.next_run();
        wait_status(supervisor.handle(), "down", ChildStatus::BackingOff);
        take(&started);
        supervisor.handle().hold("deaf").unwrap();
        println!("ready");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        assert_eq!(line, "go on\n");
        // It was asked to stop longer ago than it may take, but could not have done so meanwhile.
        drop(gate);
        recorder.wait_for("deaf", "stop held", 1);
        assert_eq!(recorder.count("deaf", "abandoned"), 0);
        assert_eq!(supervisor.handle().child("child").unwrap().run, 1, "the same run");
        strings.act(Act::Fail("no"));
        assert_eq!(strings.next_run().1, 1);
        recorder.wait_for("down", "start 1", 1);
        let failures = recorder.count("failing", "stop");
        recorder.wait_for("failing", "stop", failures + 3);
        let report = supervisor.shutdown();
        assert!(report.is_clean(), "{report}");
        assert_eq!(recorder.story("other"), ["start 0", "stop shutdown 0"]);
        assert_eq!(
            recorder.story("beating"),
            ["start 0", "stop shutdown 0"],
            "nobody was silent of his own accord"
        );
        assert_eq!(
            recorder.story("down"),
            ["start 0", "stop exited 0", "start 1", "stop shutdown 1"]
        );
        // None of the backoffs was cut short, also not of the one that fails all the time: there is
        // no burst.
        check_trace(&recorder.events(), Some(&report), false);
        println!("{DONE}");
        return;
    }
    let mut child = again("clock::process_that_was_suspended_goes_on_as_before")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let number = child.id();
    let signal = |name: &str| {
        assert!(
            Command::new("sh")
                .args(["-c", &format!("kill -{name} {number}")])
                .status()
                .unwrap()
                .success()
        );
    };
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("ready")));
    signal("STOP");
    // Nothing is bound to come meanwhile.
    let _ = crossbeam_channel::never::<()>().recv_timeout(SUSPENDED);
    signal("CONT");
    child.stdin.as_mut().unwrap().write_all(b"go on\n").unwrap();
    assert!(lines.any(|line| line.contains(DONE)));
    assert!(child.wait().unwrap().success());
}
