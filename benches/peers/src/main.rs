//! Other supervisors beside ours and beside bare threads, in one table.
//!
//! ```sh
//! cargo run --release              # in this folder, on a quiet machine
//! cargo run --release -- --quick   # does it work? Its figures mean nothing.
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "the ban is for the library's logic; a benchmark is the outside world"
)]

mod crasher;
#[path = "../../supervision/linux.rs"]
#[allow(dead_code, reason = "shared with the other benchmark, which needs more of it")]
mod linux;
#[path = "../../supervision/measure.rs"]
#[allow(dead_code, reason = "shared with the other benchmark, which needs more of it")]
mod measure;
mod peers;
mod table;
mod workload;

// The same code that the other benchmark measures.
#[path = "../../supervision/bare.rs"]
#[allow(dead_code, reason = "shared with the other benchmark, which needs more of it")]
mod bare;
#[path = "../../supervision/fleet.rs"]
#[allow(dead_code, reason = "shared with the other benchmark, which needs more of it")]
mod fleet;

use std::{env, panic, process::ExitCode};

use crate::workload::Workload;

fn main() -> ExitCode {
    silence_crashes();
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => table::print(false),
        ["--quick"] => table::print(true),
        // One launch, in a process that was made for it.
        ["--launch", peer, workload, n] => {
            let peer = peers::ALL.iter().find(|known| known.name == peer).expect("a known peer");
            let workload = Workload::named(workload).expect("a known workload");
            println!("{}", workload.measure(peer, n.parse().expect("a number")));
        }
        _ => {
            eprintln!("there is --quick, and no more");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The default hook takes longer to print a panic than a restart takes. Panics that are not part of
/// a workload are printed.
fn silence_crashes() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&"crash") {
            default(info);
        }
    }));
}
