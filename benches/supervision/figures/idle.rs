//! What a supervisor with nothing to do costs.

use std::{collections::HashSet, hint::black_box, path::PathBuf, thread, time::Duration};

use circuit_breaker_supervisor::Supervisor;
use crossbeam_channel::{Sender, bounded, tick};

use crate::{
    fleet::{Fleet, idle_bodies, let_come_to_rest, name, spec},
    linux,
    measure::{Rounds, Side},
    options::Options,
    process::{Asked, Launch},
    report::{Figure, Limit},
};

const CHILDREN: usize = 1_000;
/// Long enough for the threads to sleep in between, and short enough for many polls: a single one
/// takes 50 µs or 600, by what else the machine is doing.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const POLLS_IN_A_SECOND: f64 = 50.0;
const ROUNDS: usize = 4;

/// All launches of a round sleep at the same time, which costs none of them anything; those that
/// poll wake up in turns.
pub(crate) fn figures(options: &Options) -> Vec<Figure> {
    if !cfg!(target_os = "linux") {
        eprintln!("idle_switches, idle_cpu: skipped, for they read /proc");
        return Vec::new();
    }
    let none = || Rounds { ours: Vec::new(), baseline: Vec::new(), again: Vec::new() };
    let (mut switches, mut cpu) = (none(), none());
    for _ in 0..if options.quick { 1 } else { ROUNDS } {
        let start = |workload| {
            [Side::Ours, Side::Baseline, Side::Baseline].map(|side| {
                thread::sleep(POLL_INTERVAL / 3);
                Launch::start(workload, side, CHILDREN, options.quick)
            })
        };
        let still = start("idle_switches");
        let polling = start("idle_cpu");
        gather(&mut switches, still);
        gather(&mut cpu, polling);
    }
    vec![
        Figure::difference("idle_switches", CHILDREN, "switch", &switches, Limit::AtMost(0.0)),
        Figure::ratio("idle_cpu", CHILDREN, "µs", &cpu, Limit::AtMost(1.2)),
    ]
}

fn gather(rounds: &mut Rounds, launches: [Launch; 3]) {
    let [ours, baseline, again] = launches.map(Launch::finish);
    rounds.ours.extend(ours);
    rounds.baseline.extend(baseline);
    rounds.again.extend(again);
}

fn seconds(asked: &Asked) -> u32 {
    if asked.quick { 1 } else { 10 }
}

/// How often threads were switched while all were idle and there were no flags.
pub(crate) fn switches(asked: &Asked) -> Vec<f64> {
    let fleet = Fleet::unsupervised(asked.side, idle_bodies(asked.n));
    let_come_to_rest(asked.n);
    thread::sleep(Duration::from_millis(500));
    let before = linux::context_switches_of_others();
    thread::sleep(Duration::from_secs(1) * seconds(asked));
    let after = linux::context_switches_of_others();
    fleet.stop();
    vec![after - before]
}

/// How much CPU time the thread that polls has used for a poll, in each second, in microseconds.
pub(crate) fn cpu(asked: &Asked) -> Vec<f64> {
    let (tell_clock, clock) = bounded(1);
    let on: HashSet<String> = (0..asked.n).map(name).collect();
    let mut tell_clock = Some(tell_clock);
    let flag = move |id: &str| {
        tell_once(&mut tell_clock);
        on.contains(id)
    };
    match asked.side {
        Side::Ours => {
            let children = idle_bodies(asked.n).enumerate().map(|(index, body)| spec(index, body));
            let builder = Supervisor::builder()
                .telemetry(())
                .poll_interval(POLL_INTERVAL)
                .enabled(flag)
                .children(children);
            let supervisor = builder.start().expect("the children are in order");
            let used = watch(&clock.recv().expect("the flags are asked for"), seconds(asked));
            assert!(supervisor.shutdown().is_clean());
            used
        }
        Side::Baseline => {
            let (names, ticks) = ((0..asked.n).map(name).collect::<Vec<_>>(), tick(POLL_INTERVAL));
            let mut flag = flag;
            thread::spawn(move || {
                for _ in ticks {
                    for name in &names {
                        black_box(flag(name));
                    }
                }
            });
            watch(&clock.recv().expect("the flags are asked for"), seconds(asked))
        }
    }
}

fn tell_once(clock: &mut Option<Sender<PathBuf>>) {
    if let Some(clock) = clock.take() {
        let _ = clock.send(linux::my_cpu_clock());
    }
}

/// Reads the clock in the middle between two polls, from when all has settled.
fn watch(clock: &std::path::Path, seconds: u32) -> Vec<f64> {
    const SECOND: Duration = Duration::from_secs(1);
    thread::sleep(SECOND + POLL_INTERVAL / 2);
    let mut before = linux::cpu_time(clock);
    let used = (0..seconds).map(|_| {
        thread::sleep(SECOND);
        let after = linux::cpu_time(clock);
        (after - std::mem::replace(&mut before, after)) * 1e6 / POLLS_IN_A_SECOND
    });
    used.collect()
}
