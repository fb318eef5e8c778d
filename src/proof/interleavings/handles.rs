//! Loom models of the state that a supervisor shares with its handles.

use std::{sync::Arc, time::Duration};

use super::{explore, shared, spawn};
use crate::{
    child::ChildSpec,
    core::circuit::View,
    error::WaitError,
    event::Order,
    report::{ShutdownCause, ShutdownReport},
    status::CircuitState,
    sync::primitives::atomic::{AtomicBool, Ordering},
};

#[test]
fn whoever_waits_for_a_permit_hears_that_the_child_runs() {
    explore("permit", None, || {
        let (shared, _inbox) = shared();
        let spec = ChildSpec::new("child", |_| Ok(()));
        let breaker = spec.breaker();
        let row = shared.list(&spec);
        let waiter = spawn(move || breaker.wait_until_permitted(Duration::MAX).is_ok());
        assert!(shared.publish_begin(&row, View::of_run(1, CircuitState::HalfOpen)).is_ok());
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn whoever_waits_for_a_permit_hears_that_the_child_is_gone() {
    explore("gone", None, || {
        let (shared, _inbox) = shared();
        let spec = ChildSpec::new("child", |_| Ok(()));
        let breaker = spec.breaker();
        let row = shared.list(&spec);
        let waiter = spawn(move || match breaker.wait_until_permitted(Duration::MAX) {
            Err(WaitError::Gone(_)) => true,
            other => panic!("{other:?}"),
        });
        drop(shared.forget(&row));
        assert!(waiter.join().unwrap());
    });
}

// By its row, as a thread that waits for it sees it, and by the list.
#[test]
fn who_has_seen_that_the_child_is_gone_is_told_so_by_its_breaker() {
    for by_row in [true, false] {
        explore("seen gone", None, move || {
            let (shared, _inbox) = shared();
            let spec = ChildSpec::new("child", |_| Ok(()));
            let breaker = spec.breaker();
            let row = shared.list(&spec);
            let observer = spawn({
                let (shared, row) = (shared.clone(), row.clone());
                move || {
                    let seen = if by_row { row.is_gone() } else { shared.row("child").is_none() };
                    !seen || breaker.permit().unwrap_err().to_string().contains(" is gone ")
                }
            });
            drop(shared.forget(&row));
            assert!(observer.join().unwrap(), "another answer");
        });
    }
}

#[test]
fn who_has_seen_that_the_supervisor_has_ended_is_told_so_by_the_breakers() {
    explore("seen ended", None, || {
        let (shared, _inbox) = shared();
        let spec = ChildSpec::new("child", |_| Ok(()));
        let breaker = spec.breaker();
        let _row = shared.list(&spec);
        let observer = spawn({
            let shared = shared.clone();
            move || {
                let seen = shared.has_ended();
                !seen || breaker.permit().unwrap_err().to_string().contains(" has ended")
            }
        });
        shared.ended(ShutdownReport {
            cause: ShutdownCause::Requested,
            unstopped: Vec::new(),
            stuck_in: None,
            has_ended: true,
        });
        assert!(observer.join().unwrap(), "another answer");
    });
}

// An order that comes before the start prevents the run. In any case, the supervisor receives the
// order.
#[test]
fn run_that_begins_after_an_order_knows_of_it() {
    for order in [Some(Order::Hold), Some(Order::Remove), None] {
        explore("order before a start", None, move || {
            let (shared, inbox) = shared();
            let spec = ChildSpec::new("child", |_| Ok(()));
            let row = shared.list(&spec);
            let returned = Arc::new(AtomicBool::new(false));
            let operator = spawn({
                let (shared, returned) = (shared.clone(), returned.clone());
                move || {
                    match order {
                        Some(order) => {
                            let row = shared.row("child").expect("it is listed");
                            shared.order(&row, order).unwrap();
                        }
                        None => shared.request_shutdown(Duration::MAX),
                    }
                    returned.store(true, Ordering::Release);
                }
            });
            let was_ordered = returned.load(Ordering::Acquire);
            let begun = shared.publish_begin(&row, View::of_run(1, CircuitState::HalfOpen)).is_ok();
            assert!(!(was_ordered && begun), "begun after the order");
            operator.join().unwrap();
            assert_eq!(inbox.try_iter().count(), 1);
        });
    }
}
