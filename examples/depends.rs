//! Children that depend on one another: a migration first, then one probe for a server, then its
//! consumers; an outage and its end; a shutdown in which the consumers' last flush finds the
//! server.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use circuit_breaker_supervisor::{
    Backoff, ChildContext, ChildResult, ChildSpec, ChildStatus, Event, EventKind, Handle,
    RestartPolicy, Supervisor,
};
use crossbeam_channel::unbounded;

const LIMIT: Duration = Duration::from_secs(60);

/// Stands for a server that may be away.
#[derive(Clone)]
struct Server(Arc<AtomicBool>);

impl Server {
    fn call(&self) -> Result<(), &'static str> {
        if self.0.load(Ordering::SeqCst) { Ok(()) } else { Err("connection refused") }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let server = Server(Arc::new(AtomicBool::new(true)));
    let (probe, its) = (server.clone(), server.clone());
    let (sink, events) = unbounded();
    let supervisor = Supervisor::builder()
        .name("shop")
        .on_event(|event| println!("  {event}"))
        .telemetry(sink)
        .child(ChildSpec::new("migration", |_ctx| Ok(())).restart(RestartPolicy::Transient))
        .child(
            ChildSpec::new("db", move |ctx| watch(ctx, &probe))
                .backoff(Backoff::constant(Duration::from_millis(200)))
                .after("migration"),
        )
        .children((1..=5).map(|number| {
            let server = its.clone();
            ChildSpec::new(format!("consumer-{number}"), move |ctx| consume(ctx, &server))
                .backoff(Backoff::constant(Duration::from_secs(600)))
                .after("db")
        }))
        .start()?;
    let handle = supervisor.handle();
    handle.wait_until_healthy(LIMIT)?;

    println!("the server goes away, and takes all with it");
    server.0.store(false, Ordering::SeqCst);
    wait_for_all(handle, |status| status == ChildStatus::Waiting)?;
    println!("{}", handle.snapshot());
    if let Err(error) = handle.wait_until_healthy(Duration::from_millis(300)) {
        println!("{error}");
    }

    println!("and comes back");
    server.0.store(true, Ordering::SeqCst);
    handle.wait_for("db", LIMIT, |db| db.status == ChildStatus::Healthy)?;
    wait_for_all(handle, |status| status == ChildStatus::Healthy)?;
    let happened: Vec<Event> = events.try_iter().collect();
    let last = |is_it: &dyn Fn(&Event) -> bool| happened.iter().rfind(|event| is_it(event));
    let recovered = last(&|event| event.id == "db").ok_or("`db` has recovered")?;
    let started = last(&|event| matches!(event.kind, EventKind::Started)).ok_or("they started")?;
    println!("all consumers started within {:?} of that", started.at - recovered.at);

    println!("the consumers flush, and only then does the probe stop");
    let report = supervisor.shutdown();
    println!("{report}");
    if report.is_clean() { Ok(()) } else { Err("all should have stopped".into()) }
}

/// The probe: it says whether the server is there.
fn watch(ctx: &ChildContext, server: &Server) -> ChildResult {
    loop {
        server.call()?;
        ctx.mark_healthy();
        ctx.sleep(Duration::from_millis(10))?;
    }
}

/// A consumer. It knows nothing of the probe.
fn consume(ctx: &ChildContext, server: &Server) -> ChildResult {
    ctx.mark_healthy();
    while !ctx.is_stopping() {
        server.call()?;
        if ctx.sleep(Duration::from_millis(10)).is_err() {
            break;
        }
    }
    // The last flush needs the server.
    Ok(server.call()?)
}

fn wait_for_all(
    handle: &Handle,
    is_it: impl Fn(ChildStatus) -> bool,
) -> Result<(), Box<dyn Error>> {
    for number in 1..=5 {
        handle.wait_for(&format!("consumer-{number}"), LIMIT, |child| is_it(child.status))?;
    }
    Ok(())
}
