//! What Erlang's `breaky` shows first, in this library's terms: a database that is away, and
//! callers that are told so at once.
//!
//! breaky trips after 10 failures and tries again after 10 s; here that is 1 s, so that nobody has
//! to wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use circuit_breaker_supervisor::{
    Backoff, Breaker, CallError, ChildContext, ChildResult, ChildSpec, ChildStatus, Rejected,
    Supervisor,
};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

type Query = (&'static str, Sender<Result<u32, &'static str>>);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let is_up = Arc::new(AtomicBool::new(true));
    let (queries, inbox) = unbounded();
    let its = is_up.clone();
    let spec = ChildSpec::new("db", move |ctx| serve(ctx, &inbox, &its))
        .failure_threshold(10)
        .backoff(Backoff::constant(Duration::from_secs(1)).jitter(0.0));
    let db = spec.breaker();
    let supervisor =
        Supervisor::builder().on_event(|event| println!("    {event}")).child(spec).start()?;

    println!("rows: {}", select(&db, &queries)?);

    is_up.store(false, Ordering::Relaxed);
    let failed =
        (0..10).filter(|_| matches!(select(&db, &queries), Err(CallError::Failed(_)))).count();
    println!("the database is away: {failed} queries failed");
    supervisor
        .handle()
        .wait_for("db", Duration::from_secs(10), |db| db.status == ChildStatus::BackingOff)?;
    let Err(CallError::Rejected(rejected)) = select(&db, &queries) else {
        return Err("the breaker should be open".into());
    };
    println!("db_unavailable, and this query was not sent: {}", reason(&rejected));

    is_up.store(true, Ordering::Relaxed);
    db.wait_until_permitted(Duration::from_secs(10))?;
    println!("rows: {}, while the breaker is {}", select(&db, &queries)?, db.state());
    println!("{}", supervisor.shutdown());
    Ok(())
}

/// The process that owns the connection.
fn serve(ctx: &ChildContext, inbox: &Receiver<Query>, is_up: &AtomicBool) -> ChildResult {
    loop {
        let (query, reply) = ctx.recv(inbox)?;
        let rows = u32::try_from(query.len())?;
        let _ = reply.send(if is_up.load(Ordering::Relaxed) {
            Ok(rows)
        } else {
            Err("connection refused")
        });
    }
}

/// `breaky:call(db, "select * from my_table;")`
fn select(db: &Breaker, queries: &Sender<Query>) -> Result<u32, CallError<&'static str>> {
    db.call(|| {
        let (reply, answer) = bounded(1);
        queries.send(("select * from my_table;", reply)).map_err(|_| "nobody listens")?;
        answer.recv_timeout(Duration::from_secs(10)).map_err(|_| "no answer in time")?
    })
}

fn reason(rejected: &Rejected) -> String {
    match rejected.retry_in() {
        Some(delay) => format!("the database is tried again in {delay:.1?}"),
        None => rejected.to_string(),
    }
}
