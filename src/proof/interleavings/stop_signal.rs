//! Loom models of the stop signal of a run, with its callbacks.

use std::{
    sync::{Arc, atomic::Ordering as Seen},
    time::Duration,
};

use crossbeam_channel::TryRecvError;
use loom::thread;

use super::{Count, explore, spawn};
use crate::sync::{
    primitives::atomic::{AtomicBool, AtomicU64, Ordering},
    stop::{StopCallback, StopSignal},
};

fn counting(count: &Count) -> StopCallback {
    let count = count.clone();
    StopCallback::once(move || {
        count.fetch_add(1, Seen::Relaxed);
    })
}

/// Stops a run, as the supervisor does, and calls the callbacks, as the thread spawned for them
/// does.
fn stop(signal: &StopSignal) {
    signal.request();
    if signal.needs_caller() {
        signal.call_all(|panic| assert_eq!(panic, None, "a callback has found a fault"));
    }
}

#[test]
fn callback_is_not_called_once_its_guard_is_gone() {
    explore("guard", None, || {
        let signal = Arc::new(StopSignal::new());
        let (calls, gone) = (Count::default(), Arc::new(AtomicBool::new(false)));
        let written = Arc::new(AtomicU64::new(0));
        let callback = {
            let (calls, gone, written) = (calls.clone(), gone.clone(), written.clone());
            StopCallback::once(move || {
                assert!(!gone.load(Ordering::Relaxed), "called after its guard is gone");
                written.store(1, Ordering::Relaxed);
                thread::yield_now();
                written.store(2, Ordering::Relaxed);
                calls.fetch_add(1, Seen::Relaxed);
            })
        };
        let number = signal.set(callback).ok().flatten().expect("no stop was requested");
        let teller = spawn({
            let signal = signal.clone();
            move || stop(&signal)
        });
        signal.take_back(number);
        gone.store(true, Ordering::Relaxed);
        assert_ne!(
            written.load(Ordering::Relaxed),
            1,
            "the guard has waited for it, and sees what it did"
        );
        teller.join().unwrap();
        assert!(calls.load(Seen::Relaxed) <= 1);
        assert_eq!(written.load(Ordering::Relaxed), 2 * u64::from(calls.load(Seen::Relaxed)));
    });
}

#[test]
fn callbacks_are_called_once_and_one_after_the_other() {
    explore("callers", None, || {
        let signal = Arc::new(StopSignal::new());
        let calls = Count::default();
        for number in [0, 2] {
            let calls = calls.clone();
            let set = signal.set(StopCallback::once(move || {
                assert_eq!(calls.fetch_add(1, Seen::Relaxed), number, "in their order");
                thread::yield_now();
                assert_eq!(calls.fetch_add(1, Seen::Relaxed), number + 1, "one at a time");
            }));
            assert!(set.is_ok());
        }
        // The supervisor thread, and the thread that has found it stuck.
        let other = spawn({
            let signal = signal.clone();
            move || stop(&signal)
        });
        stop(&signal);
        other.join().unwrap();
        assert_eq!(calls.load(Seen::Relaxed), 4);
        assert!(!signal.needs_caller());
    });
}

#[test]
fn callback_that_is_set_as_the_stop_comes_is_called_once() {
    explore("late callback", None, || {
        let signal = Arc::new(StopSignal::new());
        let calls = Count::default();
        let tellers = [(); 2].map(|()| {
            let signal = signal.clone();
            spawn(move || stop(&signal))
        });
        if let Err(mut now) = signal.set(counting(&calls)) {
            assert!(signal.is_stopping());
            assert_eq!(signal.call_now(&mut now), None);
        }
        for teller in tellers {
            teller.join().unwrap();
        }
        assert_eq!(calls.load(Seen::Relaxed), 1);
    });
}

#[test]
fn end_of_a_run_leaves_no_callback_that_is_called_or_kept() {
    explore("end", None, || {
        let signal = Arc::new(StopSignal::new());
        let (calls, ended) = (Count::default(), Arc::new(AtomicBool::new(false)));
        for _ in 0..2 {
            let (calls, ended) = (calls.clone(), ended.clone());
            let set = signal.set(StopCallback::once(move || {
                thread::yield_now();
                assert!(!ended.load(Ordering::Relaxed), "called after the end");
                calls.fetch_add(1, Seen::Relaxed);
            }));
            assert!(set.is_ok());
        }
        let teller = spawn({
            let signal = signal.clone();
            move || stop(&signal)
        });
        assert_eq!(signal.end(), None);
        ended.store(true, Ordering::Relaxed);
        assert!(signal.is_stopping());
        assert!(
            matches!(signal.set(counting(&calls)), Ok(None)),
            "what is set after the end is dropped"
        );
        teller.join().unwrap();
        assert!(calls.load(Seen::Relaxed) <= 2);
        assert_eq!(Arc::strong_count(&ended), 1, "each is dropped");
        assert!(!signal.needs_caller());
    });
}

// A helper of the body sets a callback and takes it back, while the body ends and the run is
// requested to stop.
#[test]
fn helpers_guard_the_end_and_the_stop_agree() {
    explore("helper", None, || {
        let signal = Arc::new(StopSignal::new());
        let (calls, token) = (Count::default(), Arc::new(()));
        let teller = spawn({
            let signal = signal.clone();
            move || stop(&signal)
        });
        let helper = spawn({
            let (signal, calls, token) = (signal.clone(), calls.clone(), token.clone());
            move || match signal
                .set(StopCallback::once(move || drop((calls.fetch_add(1, Seen::Relaxed), token))))
            {
                Ok(Some(number)) => signal.take_back(number),
                Ok(None) => assert!(signal.is_stopping()),
                Err(mut callback) => assert_eq!(signal.call_now(&mut callback), None),
            }
        });
        signal.end();
        teller.join().unwrap();
        helper.join().unwrap();
        assert!(calls.load(Seen::Relaxed) <= 1);
        assert_eq!(Arc::strong_count(&token), 1);
    });
}

#[test]
fn channel_is_disconnected_whenever_it_is_asked_for() {
    explore("channel", None, || {
        let signal = Arc::new(StopSignal::new());
        let askers = [(); 2].map(|()| {
            let signal = signal.clone();
            spawn(move || signal.stopped().clone())
        });
        stop(&signal);
        assert_eq!(signal.stopped().try_recv(), Err(TryRecvError::Disconnected));
        for asker in askers {
            assert_eq!(asker.join().unwrap().try_recv(), Err(TryRecvError::Disconnected));
        }
    });
}

#[test]
fn whoever_sees_the_stop_sees_what_was_done_before() {
    explore("order", None, || {
        let signal = Arc::new(StopSignal::new());
        let reason = Arc::new(AtomicU64::new(0));
        let teller = spawn({
            let (signal, reason) = (signal.clone(), reason.clone());
            move || {
                reason.store(1, Ordering::Relaxed);
                signal.request();
                assert!(signal.is_stopping());
            }
        });
        if signal.is_stopping() {
            assert_eq!(reason.load(Ordering::Relaxed), 1);
        }
        teller.join().unwrap();
        assert!(signal.is_stopping());
    });
}

// Loom models no time: a callback that repeats is called once, and waits to be called again.
#[test]
fn callback_that_repeats_is_not_called_after_its_guard_is_gone_and_its_caller_leaves() {
    explore("repeating callback", None, || {
        let signal = Arc::new(StopSignal::new());
        let gone = Arc::new(AtomicBool::new(false));
        let (seen, token) = (gone.clone(), Arc::new(()));
        let its = token.clone();
        let callback = StopCallback::every(Duration::MAX, move || {
            assert!(!seen.load(Ordering::Relaxed), "called after its guard is gone");
            drop(its.clone());
        });
        let number = signal.set(callback).ok().flatten().expect("no stop was requested");
        let teller = spawn({
            let signal = signal.clone();
            move || stop(&signal)
        });
        signal.take_back(number);
        gone.store(true, Ordering::Relaxed);
        assert_eq!(Arc::strong_count(&token), 1, "it is dropped before its guard is gone");
        teller.join().unwrap();
        assert!(!signal.needs_caller());
    });
}

// It is set as the stop comes and ends with the run: by whoever calls it, it is dropped once.
#[test]
fn callback_that_repeats_ends_with_its_run() {
    explore("repeating callback at the end", None, || {
        let signal = Arc::new(StopSignal::new());
        let token = Arc::new(());
        let its = token.clone();
        let teller = spawn({
            let signal = signal.clone();
            move || stop(&signal)
        });
        let callback = StopCallback::every(Duration::MAX, move || drop(its.clone()));
        let is_orphan = match signal.set(callback) {
            Ok(number) => {
                assert!(number.is_some());
                false
            }
            Err(mut callback) => {
                assert_eq!(signal.call_now(&mut callback), None);
                signal.repeat(callback).is_some_and(|(_, is_orphan)| is_orphan)
            }
        };
        // The thread that the supervisor is asked for.
        let caller = is_orphan.then(|| {
            let signal = signal.clone();
            spawn(move || stop(&signal))
        });
        assert_eq!(signal.end(), None);
        teller.join().unwrap();
        caller.into_iter().for_each(|caller| caller.join().unwrap());
        assert_eq!(Arc::strong_count(&token), 1);
        assert!(!signal.needs_caller());
    });
}

#[test]
fn stop_request_and_the_end_wake_all_who_sleep() {
    for wake in [StopSignal::request, |signal: &StopSignal| assert_eq!(signal.end(), None)] {
        explore("sleep", None, move || {
            let signal = Arc::new(StopSignal::new());
            let other = spawn({
                let signal = signal.clone();
                move || signal.sleep(Duration::MAX)
            });
            let waker = spawn({
                let signal = signal.clone();
                move || wake(&signal)
            });
            signal.sleep(Duration::MAX);
            assert!(signal.is_stopping());
            other.join().unwrap();
            waker.join().unwrap();
        });
    }
}
