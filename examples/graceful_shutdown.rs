//! A shutdown that asks every child at once, waits a bounded time, and names the one that did not
//! stop.

use std::{error::Error, time::Duration};

use circuit_breaker_supervisor::{ChildContext, ChildResult, ChildSpec, Supervisor};
use crossbeam_channel::{Receiver, Sender, unbounded};

fn main() -> Result<(), Box<dyn Error>> {
    let (orders, queue) = unbounded();
    let (keep_open, deaf_to_all) = unbounded::<()>();
    let supervisor = Supervisor::builder()
        .on_event(|event| println!("  {event}"))
        .child(ChildSpec::new("writer", move |ctx| write_all(ctx, &queue)))
        .child(ChildSpec::new("idle", |ctx| ctx.wait_until_stopped()))
        // It waits without its context, so that nothing reaches it: as a call into a library that
        // blocks would.
        .child(
            ChildSpec::new("stubborn", move |_ctx| Ok(deaf_to_all.recv()?))
                .stop_timeout(Duration::from_millis(500)),
        )
        .start()?;
    accept(&orders);

    println!("shutting down");
    let report = supervisor.shutdown();
    println!("{report}");
    for child in &report.unstopped {
        println!(
            "`{}` did not stop; asked {:?} ago, it is {:?}",
            child.id, child.stopping_for, child.phase
        );
    }
    // `main` could return the report: then the exit code would be 1, and the report on standard
    // error.
    let as_expected =
        !report.is_clean() && report.unstopped.len() == 1 && report.unstopped[0].id == "stubborn";
    drop(keep_open); // its thread would have ended with the process, too
    if as_expected { Ok(()) } else { Err("only `stubborn` should not have stopped".into()) }
}

fn accept(orders: &Sender<u32>) {
    for order in 1..=3 {
        let _ = orders.send(order);
    }
}

/// Finishes what was accepted before the stop: `recv` prefers the stop, so the rest is taken from
/// the queue itself.
fn write_all(ctx: &ChildContext, queue: &Receiver<u32>) -> ChildResult {
    while let Ok(order) = ctx.recv(queue) {
        println!("  order {order} is written");
        let _ = ctx.sleep(Duration::from_millis(200)); // a slow disk
    }
    for order in queue.try_iter() {
        println!("  order {order} is written, after the stop");
    }
    Ok(())
}
