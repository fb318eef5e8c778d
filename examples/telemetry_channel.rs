//! Events that go through a channel to whoever counts them, on a thread other than the
//! supervisor's.

use std::{collections::BTreeMap, error::Error, time::Duration};

use circuit_breaker_supervisor::{Backoff, ChildSpec, Event, EventKind, Supervisor};
use crossbeam_channel::bounded;

fn main() -> Result<(), Box<dyn Error>> {
    // When the channel is full, events are dropped rather than waited for; that shows as a gap in
    // their numbers.
    let (sink, events) = bounded(1024);
    let supervisor = Supervisor::builder()
        .backoff(Backoff::exponential(Duration::from_millis(10), Duration::from_secs(1)))
        .telemetry(sink)
        .child(ChildSpec::new("probe", |ctx| match ctx.failures() {
            0..3 => Err(format!("attempt {} finds nobody", ctx.failures()).into()),
            _ => {
                ctx.mark_healthy();
                ctx.wait_until_stopped()
            }
        }))
        .start()?;

    // Reading while the supervisor runs: until the probe is well.
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|event: &Event| matches!(event.kind, EventKind::Healthy { .. }))
    {
        seen.push(events.recv_timeout(Duration::from_secs(60))?);
    }
    println!("{}", supervisor.shutdown());
    seen.extend(events); // ends, since the supervisor has dropped its sink
    summarise(&seen);
    Ok(())
}

fn summarise(events: &[Event]) {
    let mut counts = BTreeMap::new();
    for event in events {
        println!("{:>3}  {event}", event.seq);
        *counts.entry(event.name()).or_insert(0) += 1;
        if let EventKind::Stopped { retry_in: Some(delay), exit, .. } = &event.kind {
            println!("     it {exit}, and is down for {delay:?}");
        }
    }
    println!("{counts:#?}");
    let dropped = events.last().map_or(0, |last| last.seq + 1 - events.len() as u64);
    println!("{dropped} events were dropped");
}
