//! Start that gets no thread, which is never seen as a run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use circuit_breaker_supervisor::{CallError, Supervisor};

use crate::support::*;

#[test]
fn start_without_a_thread_is_never_seen_as_running_nor_permitted() {
    const FAILED_STARTS: usize = 8;
    let recorder = Recorder::default();
    let huge = idler("huge").stack_size(IMPOSSIBLE_STACK);
    let breaker = huge.breaker();
    let supervisor = Supervisor::builder()
        .telemetry(recorder.clone())
        .backoff(constant(Duration::ZERO))
        .child(huge)
        .start()
        .unwrap();
    let handle = supervisor.handle().clone();
    let enough = Arc::new(AtomicBool::new(false));
    let is_enough = enough.clone();
    let observer = thread::spawn(move || {
        let (mut running, mut permitted, mut called) = (0, 0, 0);
        while !is_enough.load(Ordering::SeqCst) {
            running += usize::from(handle.child("huge").unwrap().is_running());
            permitted += usize::from(breaker.is_call_permitted());
            called += usize::from(!matches!(
                breaker.call(|| Ok::<_, ()>(())),
                Err(CallError::Rejected(_))
            ));
        }
        (running, permitted, called)
    });
    let failed = |count| recorder.wait_for("huge", "stop not_spawned", count);
    failed(FAILED_STARTS);
    enough.store(true, Ordering::SeqCst);
    let (running, permitted, called) = observer.join().unwrap();
    assert_eq!(
        (running, permitted, called),
        (0, 0, 0),
        "seen as running, permitted, and called, so many times"
    );
    assert_eq!(recorder.count("huge", "start"), 0);
    assert!(supervisor.shutdown().is_clean());
}
