//! What supervision costs, measured against the bare standard library doing the same work in the
//! same run.
//!
//! ```sh
//! cargo bench --bench supervision                            # all figures, on a quiet machine
//! cargo bench --bench supervision -- --only restart_p50      # all that begin so; may be repeated
//! cargo bench --bench supervision -- --json figures.jsonl    # the lines of JSON go to a file
//! cargo bench --bench supervision -- --quick                 # only shows that it works
//! cargo bench --bench supervision -- --growth                # time against the number of children
//! cargo bench --bench supervision -- --growth --svg FILE     # and a picture of that
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "the ban is for the library's logic; a benchmark is the outside world"
)]

mod bare;
mod cores;
mod figures;
mod fleet;
mod growth;
mod linux;
mod measure;
mod options;
mod picture;
mod process;
mod report;

use std::{alloc::System, env, panic, process::ExitCode, time::Instant};

use tracking_allocator::Allocator;

use crate::{options::Options, process::Asked};

/// Counts only where a launch asks for it, in a process of its own. Elsewhere it costs one relaxed
/// load, and 8 bytes for each allocation of either side.
#[global_allocator]
static ALLOCATOR: Allocator<System> = Allocator::system();

/// What bodies panic with, and return as an error.
const CRASH: &str = "crash";

fn main() -> ExitCode {
    silence_crashes();
    let args: Vec<String> = env::args().skip(1).collect();
    if let Some(asked) = Asked::parse(&args) {
        for number in figures::launch(&asked) {
            println!("{number}");
        }
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(args.into_iter(), &figures::names()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let began = Instant::now();
    if options.growth {
        if let Err(error) = growth::print(&options) {
            eprintln!("the picture cannot be written: {error}");
            return ExitCode::FAILURE;
        }
    } else if let Err(error) = print_figures(&options) {
        eprintln!("the lines of JSON cannot be written: {error}");
        return ExitCode::FAILURE;
    }
    println!("\ntook {:.0} s", began.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

fn print_figures(options: &Options) -> std::io::Result<()> {
    println!("{}", report::LEGEND);
    if options.quick {
        println!("This is a quick run: it only shows that the benchmark works.\n");
    }
    report::print_head();
    let mut figures = Vec::new();
    for group in figures::GROUPS {
        if group.figures.iter().any(|figure| options.wants(figure)) {
            for figure in
                (group.measure)(options).into_iter().filter(|figure| options.wants(figure.name))
            {
                report::print_row(&figure);
                figures.push(figure);
            }
        }
    }
    println!();
    report::write_json(&figures, options.json.as_deref())
}

/// The default hook takes longer to print a panic than a restart takes. Panics that are not part of
/// a workload are printed.
fn silence_crashes() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&CRASH) {
            default(info);
        }
    }));
}
