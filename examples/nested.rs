//! A tree of supervisors: a branch on a child's thread, whose crashes stay inside, until it gives
//! up and is restarted as a whole. The handle of the root sees and commands all of it.

use std::{error::Error, time::Duration};

use circuit_breaker_supervisor::{
    Backoff, ChildContext, ChildGaveUp, ChildInfo, ChildResult, ChildSpec, Event, EventKind, Exit,
    Supervisor,
};
use crossbeam_channel::{Receiver, unbounded};

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let (sink, events) = unbounded();
    let (orders, queue) = unbounded();
    let (cuts, line) = unbounded();
    let supervisor = Supervisor::builder()
        .name("shop")
        .on_event(|event| println!("  {event}"))
        .telemetry(sink) // the nested supervisor has no sinks of its own: its events come here, too
        .backoff(Backoff::constant(Duration::from_millis(300)))
        .child(ChildSpec::new("ingest", move |ctx| ingest(ctx, &queue, &line)))
        .child(ChildSpec::new("reports", |ctx| ctx.wait_until_stopped()))
        .start()?;
    let handle = supervisor.handle();
    started(&events, "ingest/orders", 0)?;

    println!("a poisoned order: the crash stays inside, and can be seen from outside");
    orders.send("poison")?;
    started(&events, "ingest/orders", 1)?;
    println!("{}", handle.snapshot());
    assert_eq!(handle.child("ingest").map(|ingest| ingest.failures), Some(0));
    assert!(!handle.snapshot().is_healthy(), "what fails below counts");

    println!("a path of the log is a path for the operator");
    orders.send("42 boxes")?; // with which it is healthy again
    let orders_of = |failures| move |orders: &ChildInfo| orders.failures == failures;
    handle.wait_for("ingest/orders", LIMIT, orders_of(0))?;
    handle.hold("ingest/orders")?;
    handle.wait_for("ingest/orders", LIMIT, |orders| !orders.is_running())?;
    println!("{}", handle.snapshot());
    handle.release("ingest/orders")?;
    started(&events, "ingest/orders", 0)?;

    println!(
        "the line is cut, and once more: the significant child gives up, and the branch with it"
    );
    cuts.send(())?;
    cuts.send(())?;
    let ingest = handle.wait_for("ingest", LIMIT, |ingest| ingest.failures == 1)?;
    println!("{}", handle.snapshot());
    let exit = ingest.last_stop.map(|stop| stop.exit);
    let Some(Exit::Failed(failure)) = exit else {
        return Err("`ingest` should have failed".into());
    };
    let gave_up =
        failure.error().downcast_ref::<ChildGaveUp>().ok_or("it should say who gave up")?;
    assert_eq!(gave_up.id, "ingest/feed");

    println!("after its backoff the whole branch comes back, new");
    started(&events, "ingest/orders", 0)?;
    started(&events, "ingest/feed", 0)?;
    assert_eq!(
        handle.child("ingest").map(|ingest| ingest.failures),
        Some(1),
        "the branch is on trial"
    );
    assert_eq!(
        handle.child("reports").map(|reports| reports.failures),
        Some(0),
        "its neighbour has nothing to do with it"
    );

    let report = supervisor.shutdown();
    println!("{report}");
    if report.is_clean() { Ok(()) } else { Err("all should have stopped".into()) }
}

/// The branch: it is a child's body, run anew after each failure, and so makes its children anew.
fn ingest(ctx: &ChildContext, queue: &Receiver<&'static str>, line: &Receiver<()>) -> ChildResult {
    let (queue, line) = (queue.clone(), line.clone());
    let orders = ChildSpec::new("orders", move |ctx| {
        loop {
            let order = ctx.recv(&queue)?;
            assert!(order != "poison", "cannot digest this");
            ctx.mark_healthy();
        }
    });
    let feed = ChildSpec::new("feed", move |ctx| {
        ctx.recv(&line)?;
        Err("the line was cut".into())
    });
    Supervisor::builder()
        .backoff(Backoff::constant(Duration::from_millis(50)))
        .child(orders)
        .child(feed.max_restarts(1).significant(true)) // the branch is of no use without it
        .run(ctx)
}

/// Waits for the start of a child after so many failures.
fn started(events: &Receiver<Event>, id: &str, failures: u32) -> Result<(), Box<dyn Error>> {
    let is_it = |event: &Event| {
        event.id == id && event.failures == failures && matches!(event.kind, EventKind::Started)
    };
    while !is_it(&events.recv_timeout(LIMIT)?) {}
    Ok(())
}
