//! A worker that panics once, and comes back.

use std::time::Duration;

use circuit_breaker_supervisor::{ChildSpec, ChildStatus, Supervisor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (jobs, queue) = crossbeam_channel::unbounded();
    let supervisor = Supervisor::builder()
        .on_event(|event| println!("{event}"))
        .child(ChildSpec::new("worker", move |ctx| {
            loop {
                let job: &str = ctx.recv(&queue)?; // ends at a stop, too
                assert_ne!(job, "poison", "cannot digest this");
                println!("done: {job}");
                ctx.mark_healthy();
            }
        }))
        .start()?;

    for job in ["first", "poison", "second"] {
        jobs.send(job)?;
    }
    supervisor.handle().wait_for("worker", Duration::from_secs(10), |worker| {
        worker.run == 2 && worker.status == ChildStatus::Healthy
    })?;
    println!("{}", supervisor.handle().snapshot());
    println!("{}", supervisor.shutdown());
    Ok(())
}
