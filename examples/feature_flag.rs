//! A feature flag that switches a child off and on again while the program runs.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use circuit_breaker_supervisor::{ChildSpec, ChildStatus, Supervisor};

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let mailer_is_on = Arc::new(AtomicBool::new(false));
    let flag = mailer_is_on.clone();
    let supervisor = Supervisor::builder()
        .name("shop")
        .poll_interval(Duration::from_millis(100))
        .enabled(move |id| match id {
            "mailer" => Some(flag.load(Ordering::Relaxed)),
            _ => None, // not ours to say: as it was, and that is on
        })
        .children(["orders", "mailer"].map(|id| ChildSpec::new(id, |ctx| ctx.wait_until_stopped())))
        .on_event(|event| println!("  {event}"))
        .start()?;
    let handle = supervisor.handle();
    println!("{}\n", handle.snapshot());

    println!("the flag goes on; the next poll finds it");
    mailer_is_on.store(true, Ordering::Relaxed);
    handle.wait_for("mailer", LIMIT, |mailer| mailer.is_running())?;

    println!("the flag goes off, and nobody waits for the poll");
    mailer_is_on.store(false, Ordering::Relaxed);
    handle.poll_now()?;
    handle.wait_for("mailer", LIMIT, |mailer| matches!(mailer.status, ChildStatus::Off { .. }))?;

    println!("\n{}\n", handle.snapshot());
    println!("{}", supervisor.shutdown());
    Ok(())
}
