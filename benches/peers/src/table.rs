//! Launches all peers in turns, and prints the table.

use std::{
    env,
    io::Read,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{measure::quartiles, peers, workload::Workload};

/// A launch that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

const LEGEND: &str = "\
Medians over the launches, each in a process of its own, all peers in turns; below them the
quartiles. restart: from a panic to the first instruction of the next run (on the child's own
thread or task), p50 of a launch, no backoff, the crashes follow one another at once, n idle
siblings. start: until n children run. stop: from the wish until all of them have ended, threads
joined. memory: bytes held for each of n idle children, the runtime included. Nobody prints the
panics. Green threads win at start, stop and memory: they make no OS thread. They give none either:
a child that blocks blocks others.
";

pub(crate) fn print(quick: bool) {
    println!("{LEGEND}");
    for peer in peers::ALL {
        println!("{:19} {}", peer.name, peer.settings);
    }
    if quick {
        println!("\nThis is a quick run: it only shows that the benchmark works.");
    }
    let began = Instant::now();
    let mut failures = Vec::new();
    print!("\n{:8} {:>5} {:8}", "", "n", "");
    for peer in peers::ALL {
        print!(" {:>19}", peer.name);
    }
    println!();
    for workload in Workload::ALL {
        for &n in workload.sizes() {
            // Of a peer that has failed once, nothing more is asked here.
            let mut launches = peers::ALL.map(|_| Some(Vec::new()));
            for _ in 0..if quick { 1 } else { 11 } {
                for (peer, launches) in peers::ALL.iter().zip(&mut launches) {
                    let Some(values) = launches else { continue };
                    match launch(peer.name, workload, n) {
                        Ok(value) => values.push(value),
                        Err(why) => {
                            *launches = None;
                            failures.push(format!(
                                "{} does not do {} with n = {n}: {why}",
                                peer.name,
                                workload.name()
                            ));
                        }
                    }
                }
            }
            let cells = launches.map(|launches| launches.map(|values| quartiles(&values)));
            print!("{:8} {n:>5} {:8}", workload.name(), workload.unit());
            for cell in &cells {
                print!(" {:>19}", cell.map_or_else(|| "–".into(), |cell| short(cell.median)));
            }
            print!("\n{:23}", "");
            for cell in &cells {
                let spread =
                    cell.map(|cell| format!("({}–{})", short(cell.lower), short(cell.upper)));
                print!(" {:>19}", spread.unwrap_or_default());
            }
            println!();
        }
    }
    for failure in failures {
        println!("– {failure}");
    }
    println!("\ntook {:.0} s", began.elapsed().as_secs_f64());
}

fn launch(peer: &str, workload: Workload, n: usize) -> Result<f64, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .args(["--launch", peer, workload.name(), &n.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    wait(&mut child)?;
    let mut answer = String::new();
    let mut stdout = child.stdout.take().expect("it is piped");
    stdout.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    answer.trim().parse().map_err(|_| format!("it printed {answer:?}"))
}

fn wait(child: &mut Child) -> Result<(), String> {
    let began = Instant::now();
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(status.to_string()),
            None if began.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("not done after {PATIENCE:?}"));
            }
            None => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Three digits, or as many as stand before the point.
fn short(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
