//! What one decision costs, in nanoseconds: the core on virtual time, and the breaker, each beside
//! a bare loop.
//!
//! `cargo bench --bench decide`. The core is driven by a [`Simulation`], so that its figures hold
//! the engine around it, the views that handles see and two sinks, but no thread and no waiting.

#![allow(clippy::unwrap_used, reason = "a benchmark that finds no value has failed")]
#![allow(missing_docs, reason = "the macro makes a public function")]

use std::{
    collections::HashSet,
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use circuit_breaker_supervisor::{
    Backoff, ChildSpec, Exit, Simulation, Supervisor, SupervisorBuilder,
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::unbounded;

const SECOND: Duration = Duration::from_secs(1);

/// The events of a simulation are kept; so each is used for so many steps only.
const STEPS: u32 = 256;

fn name(index: usize) -> String {
    format!("child-{index:05}")
}

fn builder(children: usize) -> SupervisorBuilder {
    let backoff = Backoff::constant(Duration::ZERO).jitter(0.0);
    Supervisor::builder()
        .telemetry(())
        .backoff(backoff)
        .children((0..children).map(|index| ChildSpec::new(name(index), |_| Ok(()))))
}

fn simulation(builder: SupervisorBuilder) -> Simulation {
    let mut simulation = Simulation::new(builder, 1).unwrap();
    simulation.advance(Duration::ZERO);
    simulation
}

/// From the end of a run to the word for the next one.
fn restart(c: &mut Criterion) {
    let mut group = c.benchmark_group("restart");
    group.throughput(Throughput::Elements(u64::from(STEPS)));
    for children in [1, 100, 10_000] {
        group.bench_function(BenchmarkId::new("exit", children), |b| {
            b.iter_batched_ref(
                || simulation(builder(children)),
                |simulation| {
                    (0..STEPS)
                        .for_each(|_| simulation.exit("child-00000", Exit::Completed).unwrap())
                },
                BatchSize::PerIteration,
            );
        });
    }
    // What any controller has to do at the least: to take the exit from a channel.
    group.bench_function("bare channel", |b| {
        let (sender, exits) = unbounded();
        b.iter(|| {
            for _ in 0..STEPS {
                let _ = sender.send(Exit::Completed);
                let _ = black_box(exits.recv());
            }
        });
    });
    group.finish();
}

/// A round over the flags of all children, none of which has changed.
fn poll(c: &mut Criterion) {
    let mut group = c.benchmark_group("poll");
    for children in [100, 10_000] {
        let on: HashSet<String> = (0..children).map(name).collect();
        group.throughput(Throughput::Elements(children as u64));
        let flags = on.clone();
        let mut simulation = simulation(
            builder(children).poll_interval(SECOND).enabled(move |id| flags.contains(id)),
        );
        group.bench_function(BenchmarkId::new("round", children), |b| {
            b.iter(|| simulation.advance(SECOND))
        });
        let names: Vec<String> = (0..children).map(name).collect();
        group.bench_function(BenchmarkId::new("bare loop", children), |b| {
            b.iter(|| names.iter().filter(|name| black_box(on.contains(*name))).count());
        });
    }
    group.finish();
}

/// One call through a breaker.
fn call(c: &mut Criterion) {
    let mut group = c.benchmark_group("call");
    let mut simulation = simulation(builder(1).backoff(Backoff::constant(SECOND)));
    let breaker = simulation.handle().breaker("child-00000").unwrap();
    group.bench_function("permitted", |b| b.iter(|| breaker.call(|| Ok::<_, ()>(black_box(1)))));
    simulation.exit("child-00000", Exit::failed("no")).unwrap();
    group.bench_function("rejected", |b| {
        b.iter(|| breaker.call(|| Ok::<_, ()>(black_box(1))).is_err())
    });
    group.bench_function("asked first", |b| b.iter(|| breaker.is_call_permitted()));
    let flag = AtomicBool::new(true);
    group.bench_function("bare flag", |b| {
        b.iter(|| flag.load(Ordering::Relaxed).then(|| black_box(1)))
    });
    group.finish();
}

criterion_group! {
    name = decisions;
    config = Criterion::default().without_plots().warm_up_time(SECOND).measurement_time(2 * SECOND);
    targets = restart, poll, call
}
criterion_main!(decisions);
