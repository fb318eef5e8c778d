//! Threads that take their time to end after all Rust code on them has run, as those do that a C
//! library has given a value with a destructor. Nobody waits for them without bound.

use std::{env, fs, path::Path, thread};

use circuit_breaker_supervisor::{ChildSpec, ShutdownReport, Supervisor};
use crossbeam_channel::unbounded;

use crate::{subprocess::*, support::*};

/// Names the file that lets the threads end.
const UNBLOCK: &str = "CIRCUIT_BREAKER_SUPERVISOR_TEST_UNBLOCK";

/// Stands before the C library's function, which every Rust thread with a name calls, and gives
/// threads whose names begin with `lingers` a value with a destructor. Such destructors run after
/// those of Rust's thread-local variables. This one waits for the file; in the end, it waits no
/// more, so that nothing is left behind by a test that has failed.
const LINGER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;

static void linger(void *file) {
    for (int tenths = 0; tenths < 1000 && access(file, F_OK) != 0; tenths++) usleep(100 * 1000);
}

static void make_key(void) {
    pthread_key_create(&key, linger);
}

int pthread_setname_np(pthread_t thread, const char *name) {
    int (*real)(pthread_t, const char *) =
        (int (*)(pthread_t, const char *))dlsym(RTLD_NEXT, "pthread_setname_np");
    char *file = getenv("CIRCUIT_BREAKER_SUPERVISOR_TEST_UNBLOCK");
    if (file && strncmp(name, "lingers", 7) == 0) {
        pthread_once(&once, make_key);
        pthread_setspecific(key, file);
    }
    return real(thread, name);
}
"#;

/// Runs the test again with that function before the C library's.
#[track_caller]
fn again_with_lingering_threads(test: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "{}-{}",
        test.replace(':', "-"),
        std::process::id()
    ));
    fs::create_dir_all(&folder).unwrap();
    let (source, library) = (folder.join("linger.c"), folder.join("linger.so"));
    fs::write(&source, LINGER).unwrap();
    let compiler = c_compiler()
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    let Ok(compiled) = compiler else {
        eprintln!("skipped: there is no C compiler");
        return;
    };
    assert!(compiled.success());
    let mut command = again(test);
    command.env("LD_PRELOAD", &library).env(UNBLOCK, folder.join("unblock"));
    run_to_the_end(command);
    fs::remove_dir_all(folder).unwrap();
}

/// Lets the threads end as it is dropped, so that a test which fails does not wait for them either.
fn unblock_at_the_end() -> OnDrop<impl FnMut()> {
    OnDrop(|| fs::write(env::var_os(UNBLOCK).unwrap(), "").unwrap())
}

#[test]
fn thread_that_lingers_delays_no_restart() {
    if !is_inside() {
        again_with_lingering_threads("joins::thread_that_lingers_delays_no_restart");
        return;
    }
    let (sender, runs) = unbounded();
    let sibling = ChildSpec::new("sibling", move |_| {
        let _ = sender.send(());
        Err("no".into())
    });
    let (mut gate, bar) = gate();
    let job = ChildSpec::once("lingers", move |_| {
        bar.wait();
        Ok(())
    });
    let supervisor = Supervisor::builder()
        .telemetry(())
        .backoff(constant(MS))
        .child(job)
        .child(sibling)
        .start()
        .unwrap();
    let unblock = unblock_at_the_end();
    take(&runs);
    gate.open();
    supervisor.handle().wait_until_gone("lingers", DEADLINE).unwrap();
    // Those that came before the job was gone do not count.
    runs.try_iter().for_each(drop);
    for _ in 0..50 {
        take(&runs);
    }
    assert_eq!(threads_named("lingers"), 1, "it is still there");
    drop(unblock);
    assert!(supervisor.shutdown().is_clean());
    println!("{DONE}");
}

/// Has three children whose threads linger, and returns once the supervisor was shut down.
fn check_shutdown(shut_down: impl FnOnce(Supervisor) -> ShutdownReport + Send + 'static) {
    let children = (0..3).map(|number| idler(&format!("lingers-{number}")));
    let supervisor = Supervisor::builder().telemetry(()).children(children).start().unwrap();
    let _unblock = unblock_at_the_end();
    let handle = supervisor.handle().clone();
    for number in 0..3 {
        handle
            .wait_for(&format!("lingers-{number}"), DEADLINE, |child| child.is_running())
            .unwrap();
    }
    let (sender, reports) = unbounded();
    thread::spawn(move || {
        let _ = sender.send(shut_down(supervisor));
    });
    let _ = take(&reports);
    let lingering: usize = (0..3).map(|number| threads_named(&format!("lingers-{number}"))).sum();
    assert_eq!(lingering, 3, "they are still there");
    println!("{DONE}");
}

#[test]
fn threads_that_linger_do_not_keep_a_shutdown_with_a_limit() {
    if !is_inside() {
        again_with_lingering_threads(
            "joins::threads_that_linger_do_not_keep_a_shutdown_with_a_limit",
        );
        return;
    }
    check_shutdown(|supervisor| supervisor.shutdown_within(100 * MS));
}

#[test]
fn threads_that_linger_do_not_keep_a_shutdown() {
    if !is_inside() {
        again_with_lingering_threads("joins::threads_that_linger_do_not_keep_a_shutdown");
        return;
    }
    check_shutdown(|supervisor| supervisor.shutdown());
}
