//! How the time grows with the number of children.

use std::{fs, io, time::Instant};

use crossbeam_channel::{Receiver, bounded};

use crate::{
    figures::{How, crash, lifetime, poll},
    fleet::{Body, Fleet, Gate, let_come_to_rest},
    measure::{Side, median},
    options::Options,
    picture::{self, Panel},
    process::{self, Asked},
    report::short,
};

const LAUNCHES: usize = 5;
const WORKLOADS: [&str; 4] = ["start", "crash storm", "poll", "stop"];

/// A row for each workload and size: the time, and the time for each child.
pub(crate) fn print(options: &Options) -> io::Result<()> {
    println!("Medians of {} launches, each in a process of its own.", options.launches(LAUNCHES));
    println!("All children crash at once in the storm, which is over when all run again.");
    println!("A straight line has the same time for each child in every row.\n");
    println!(
        "{:12} {:>7} {:>12} {:>12} {:>14} {:>14} {:>7}",
        "workload", "n", "ours, µs", "bare, µs", "ours / n, µs", "bare / n, µs", "ratio"
    );
    let sizes = options.sizes(&[10, 100, 1_000, 10_000]);
    let times: Vec<[Vec<f64>; 2]> = sizes
        .iter()
        .map(|&n| [Side::Ours, Side::Baseline].map(|side| times(side, n, options)))
        .collect();
    for (workload, name) in WORKLOADS.iter().enumerate() {
        for (&n, [ours, bare]) in sizes.iter().zip(&times) {
            let (ours, bare) = (ours[workload], bare[workload]);
            println!(
                "{name:12} {n:>7} {:>12} {:>12} {:>14.3} {:>14.3} {:>7}",
                short(ours),
                short(bare),
                ours / n as f64,
                bare / n as f64,
                format!("{}×", short(ours / bare))
            );
        }
    }
    let Some(path) = &options.svg else { return Ok(()) };
    let panel = |(workload, name): (usize, &&'static str)| {
        let of_child = |side: usize| {
            sizes.iter().zip(&times).map(|(&n, times)| times[side][workload] / n as f64).collect()
        };
        Panel { name, ours: of_child(0), bare: of_child(1) }
    };
    let panels: Vec<_> = WORKLOADS.iter().enumerate().map(panel).collect();
    fs::write(path, picture::draw(&sizes, &panels))
}

/// The medians of all workloads, in microseconds.
fn times(side: Side, n: usize, options: &Options) -> Vec<f64> {
    let launches: Vec<Vec<f64>> = (0..options.launches(LAUNCHES))
        .map(|_| process::launch("growth", side, n, options.quick))
        .collect();
    let one =
        |workload: usize| median(&launches.iter().map(|times| times[workload]).collect::<Vec<_>>());
    (0..WORKLOADS.len()).map(one).collect()
}

pub(crate) fn launch(asked: &Asked) -> Vec<f64> {
    let (start, stop) = lifetime(asked.side, asked.n);
    vec![start * 1e3, storm(asked.side, asked.n), poll(asked.side, asked.n), stop * 1e3]
}

/// From the word to crash until all children run again.
fn storm(side: Side, n: usize) -> f64 {
    let (started, restarted) = (Gate::new(n), Gate::new(n));
    let (words, heard): (Vec<_>, Vec<_>) = (0..n).map(|_| bounded(1)).unzip();
    let bodies = heard.into_iter().map(|heard: Receiver<()>| -> Body {
        let (started, restarted) = (started.clone(), restarted.clone());
        let mut has_crashed = false;
        Box::new(move |ctx| {
            if std::mem::replace(&mut has_crashed, true) {
                restarted.arrive();
                return ctx.idle();
            }
            started.arrive();
            let _ = heard.recv();
            crash(How::Panic)
        })
    });
    let fleet = Fleet::supervised(side, bodies);
    started.wait();
    let_come_to_rest(n);
    let began = Instant::now();
    for word in &words {
        let _ = word.send(());
    }
    restarted.wait();
    let took = began.elapsed();
    fleet.stop();
    took.as_secs_f64() * 1e6
}
