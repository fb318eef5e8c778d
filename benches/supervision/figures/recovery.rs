//! How soon the last of many children runs again when what all of them come after is ready again.

use std::time::{Duration, Instant};

use circuit_breaker_supervisor::{Backoff, ChildSpec, Supervisor};
use crossbeam_channel::{Receiver, bounded, unbounded};

use crate::{
    CRASH, bare,
    fleet::{Gate, let_come_to_rest, name},
    measure::{Rounds, Side},
    options::Options,
    report::{Figure, Limit},
};

const CONSUMERS: usize = 1_000;
const LAUNCHES: usize = 15;
const LIMIT: Duration = Duration::from_secs(60);

/// The baseline is as many warm threads, each of which is told by a channel of its own.
pub(crate) fn figures(options: &Options) -> Vec<Figure> {
    let rounds = Rounds::take(options.launches(LAUNCHES), |side| match side {
        Side::Ours => ours(CONSUMERS),
        Side::Baseline => bare_threads(CONSUMERS),
    });
    vec![Figure::ratio("recovery", CONSUMERS, "ms", &rounds, Limit::AtMost(2.0))]
}

/// From the word of the child before them until all run, in milliseconds.
fn ours(n: usize) -> f64 {
    let (word, heard) = unbounded::<()>();
    let db = ChildSpec::new("db", move |ctx| {
        ctx.recv(&heard)?;
        ctx.mark_healthy();
        ctx.wait_until_stopped()
    });
    let (first, second) = (Gate::new(n), Gate::new(n));
    let (crashes, crash) = bounded::<()>(0);
    let consumers = (0..n).map(|index| {
        let (first, second, crash) = (first.clone(), second.clone(), crash.clone());
        ChildSpec::new(name(index), move |ctx| {
            if ctx.run() > 1 {
                second.arrive();
                return ctx.wait_until_stopped();
            }
            first.arrive();
            let _ = crash.recv();
            Err(CRASH.into())
        })
        .after("db")
    });
    let supervisor = Supervisor::builder()
        .backoff(Backoff::constant(Duration::from_secs(3600)))
        .telemetry(())
        .healthy_after(Duration::MAX)
        .child(db)
        .children(consumers)
        .start()
        .expect("the children are in order");
    let handle = supervisor.handle();
    word.send(()).expect("its child listens");
    first.wait();
    // All have had a thread. What they come after goes down, and so do they.
    handle.restart("db").expect("it is listed");
    handle.wait_for("db", LIMIT, |db| db.run == 2).expect("it is started again");
    drop(crashes);
    while handle.snapshot().counts().waiting < n {
        let_come_to_rest(n);
    }
    let began = Instant::now();
    word.send(()).expect("its child listens");
    second.wait();
    let took = began.elapsed();
    assert!(supervisor.shutdown().is_clean());
    took.as_secs_f64() * 1e3
}

fn bare_threads(n: usize) -> f64 {
    let gate = Gate::new(n);
    let (words, threads): (Vec<_>, Vec<_>) = (0..n)
        .map(|index| {
            let (word, heard): (_, Receiver<()>) = bounded(1);
            let gate = gate.clone();
            let listen = move || {
                let _ = heard.recv();
                gate.arrive();
                let _ = heard.recv();
            };
            (word, bare::spawn(index, listen))
        })
        .unzip();
    let_come_to_rest(n);
    let began = Instant::now();
    for word in &words {
        word.send(()).expect("its thread listens");
    }
    gate.wait();
    let took = began.elapsed();
    drop(words);
    for thread in threads {
        thread.join().expect("it does not panic");
    }
    took.as_secs_f64() * 1e3
}
