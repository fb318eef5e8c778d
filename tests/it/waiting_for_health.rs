//! Waits until all children are well at work, of which some come after others.

use std::{thread, time::Duration};

use circuit_breaker_supervisor::{
    ChildSpec, ChildStatus, Handle, OffBy, RestartPolicy, Supervisor,
};
use crossbeam_channel::{Receiver, bounded};

use crate::support::*;

/// Waits on a thread of its own for so long that only an answer ends it.
fn waiter(handle: &Handle) -> Receiver<String> {
    let (sender, answer) = bounded(1);
    let handle = handle.clone();
    thread::spawn(move || {
        let answer = handle.wait_until_healthy(HOUR);
        sender.send(answer.map_or_else(|error| error.to_string(), |()| String::from("ok")))
    });
    answer
}

/// A migration that runs, is healthy, and is given up if it fails; `orders`, which waits for its
/// end; and somebody who waits until all are healthy.
fn waiting_for_a_migration() -> (Supervisor, Puppet, Receiver<String>) {
    let (migration, strings) = puppet("migration");
    let supervisor = Supervisor::builder()
        .child(migration.restart(RestartPolicy::Transient).max_restarts(0))
        .child(healthy("orders").after("migration"))
        .start()
        .unwrap();
    strings.next_run();
    strings.act(Act::MarkHealthy);
    wait_status(supervisor.handle(), "migration", ChildStatus::Healthy);
    let answer = waiter(supervisor.handle());
    (supervisor, strings, answer)
}

#[test]
fn wait_until_healthy_ends_when_the_root_is_given_up() {
    let (supervisor, strings, answer) = waiting_for_a_migration();
    strings.act(Act::Fail("no such table"));
    wait_status(supervisor.handle(), "migration", ChildStatus::GaveUp);
    let answer = answer.recv_timeout(5 * SECOND);
    assert!(answer.is_ok(), "{answer:?}; {}", supervisor.handle().snapshot());
}

#[test]
fn wait_until_healthy_ends_when_the_root_is_held_and_all_are_down_on_purpose() {
    let (supervisor, _strings, answer) = waiting_for_a_migration();
    supervisor.handle().hold("migration").unwrap();
    wait_off(supervisor.handle(), "migration", OffBy::Operator);
    let now = supervisor.handle().wait_until_healthy(Duration::ZERO);
    let answer = answer.recv_timeout(5 * SECOND);
    assert!(now.is_ok() && answer.is_ok(), "{answer:?}; {}", supervisor.handle().snapshot());
}

#[test]
fn wait_until_healthy_ends_when_the_root_is_added_and_given_up() {
    let supervisor = Supervisor::builder()
        .child(healthy("db"))
        .child(healthy("orders").after("db"))
        .start()
        .unwrap();
    let handle = supervisor.handle();
    handle.wait_until_healthy(DEADLINE).unwrap();
    handle.remove("db").unwrap();
    handle.wait_until_gone("db", DEADLINE).unwrap();
    handle.restart("orders").unwrap();
    wait_status(handle, "orders", ChildStatus::Waiting);
    let answer = waiter(handle);
    handle.add(ChildSpec::new("db", |_| Err("refused".into())).max_restarts(0)).unwrap();
    wait_status(handle, "db", ChildStatus::GaveUp);
    assert!(handle.wait_until_healthy(HOUR).is_err()); // a new one returns at once
    let answer = answer.recv_timeout(5 * SECOND);
    assert!(answer.is_ok(), "{answer:?}; {}", handle.snapshot());
}
