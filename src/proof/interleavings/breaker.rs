//! Loom models of a breaker, to which callers report while the supervisor thread publishes.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::{explore, shared, spawn};
use crate::{
    breaker::Breaker,
    child::ChildSpec,
    core::circuit::View,
    runtime::{inbox::Message, row::Row, shared::Shared},
    status::CircuitState,
};

/// A child as its callers and the supervisor thread know it. The test acts as the supervisor
/// thread.
struct Listed {
    shared: Arc<Shared>,
    inbox: Receiver<Message>,
    row: Arc<Row>,
    breaker: Breaker,
}

impl Listed {
    fn new(threshold: u32) -> Self {
        let (shared, inbox) = shared();
        let spec = ChildSpec::new("child", |_| Ok(())).failure_threshold(threshold);
        let breaker = spec.breaker();
        let row = shared.list(&spec);
        Self { shared, inbox, row, breaker }
    }

    fn show(&self, run: u64, circuit: CircuitState) {
        assert!(self.shared.publish(&self.row, View::of_run(run, circuit), None).is_none());
    }

    /// The trips that were sent to the supervisor: their runs, and the failures that led to them.
    fn trips(&self) -> Vec<(u64, u32)> {
        let trip = |message| match message {
            Message::Trip { run, failures, .. } => Some((run, failures)),
            _ => None,
        };
        self.inbox.try_iter().filter_map(trip).collect()
    }
}

// Two callers report failures while the child becomes healthy. On trial, the first failure trips
// it; once it is healthy, it takes both.
#[test]
fn trip_is_told_once_for_each_run() {
    explore("trip", None, || {
        let child = Listed::new(2);
        child.show(1, CircuitState::HalfOpen);
        let callers = [(); 2].map(|()| {
            let permit = child.breaker.permit().unwrap();
            spawn(move || permit.failure("no answer"))
        });
        child.show(1, CircuitState::Closed);
        for caller in callers {
            caller.join().unwrap();
        }
        let trips = child.trips();
        assert!(matches!(trips[..], [(1, 1 | 2)]), "{trips:?}");
        child.show(1, CircuitState::Closed);
        assert!(
            !child.breaker.is_call_permitted(),
            "it stays so until the supervisor has heard of it"
        );
        child.show(1, CircuitState::Open);
        child.breaker.report_failure("again");
        assert!(child.trips().is_empty());
    });
}

#[test]
fn count_outlives_what_the_supervisor_shows_of_the_same_run() {
    explore("count", None, || {
        let child = Listed::new(2);
        child.show(1, CircuitState::Closed);
        let breaker = child.breaker.clone();
        let caller = spawn(move || breaker.report_failure("one"));
        child.show(1, CircuitState::Closed);
        child.breaker.report_failure("another");
        child.show(1, CircuitState::Closed);
        caller.join().unwrap();
        assert_eq!(child.trips(), [(1, 2)]);
    });
}

#[test]
fn reports_of_an_earlier_run_do_not_count() {
    explore("earlier run", None, || {
        let child = Listed::new(2);
        child.show(1, CircuitState::Closed);
        child.breaker.report_failure("once");
        let (bad, good) = (child.breaker.permit().unwrap(), child.breaker.permit().unwrap());
        let caller = spawn(move || {
            bad.failure("twice");
            good.success();
        });
        child.show(1, CircuitState::Open);
        child.show(2, CircuitState::Closed);
        child.breaker.report_failure("once again");
        caller.join().unwrap();
        assert!(child.breaker.is_call_permitted(), "it takes two");
        child.breaker.report_failure("twice again");
        assert!(
            !child.breaker.is_call_permitted(),
            "and they were not forgiven by a success of the run before"
        );
        let trips = child.trips();
        assert!(matches!(trips[..], [(2, 2)] | [(1, 2), (2, 2)]), "{trips:?}");
    });
}

#[test]
fn success_is_counted_before_a_failure_or_after_it_and_none_is_lost() {
    explore("success", None, || {
        let child = Listed::new(3);
        child.show(1, CircuitState::Closed);
        child.breaker.report_failure("one");
        let (good, bad, worse) = (
            child.breaker.permit().unwrap(),
            child.breaker.permit().unwrap(),
            child.breaker.permit().unwrap(),
        );
        let callers = [spawn(move || good.success()), spawn(move || bad.failure("two"))];
        worse.failure("three");
        for caller in callers {
            caller.join().unwrap();
        }
        // Now there are between zero and three failures in a row, and only three trip the child.
        let is_tripped = child.trips() == [(1, 3)];
        assert_eq!(child.breaker.is_call_permitted(), !is_tripped);
        let mut more = 0;
        while child.breaker.is_call_permitted() {
            child.breaker.report_failure("more");
            more += 1;
        }
        assert!(is_tripped && more == 0 || (1..=3).contains(&more), "{more}");
    });
}

#[test]
fn open_for_good_is_final() {
    explore("for good", None, || {
        let child = Listed::new(1);
        let breaker = child.breaker.clone();
        let caller = spawn(move || {
            breaker.report_failure("no answer");
            breaker.report_success();
        });
        let (shared, breaker) = (child.shared.clone(), child.breaker.clone());
        let taking_over = spawn(move || {
            shared.show_take_over();
            assert!(!breaker.is_call_permitted());
        });
        child.show(1, CircuitState::HalfOpen);
        child.show(1, CircuitState::Closed);
        caller.join().unwrap();
        taking_over.join().unwrap();
        assert!(!child.breaker.is_call_permitted());
        child.show(2, CircuitState::Closed);
        assert!(!child.breaker.is_call_permitted());
        assert!(child.trips().len() <= 1);
    });
}
