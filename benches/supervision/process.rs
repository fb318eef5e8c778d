//! Launches in a fresh process: this program runs itself, so that what earlier launches left in the
//! allocator counts for none.

use std::{
    env,
    process::{Child, Command, Stdio},
};

use crate::measure::Side;

/// The hidden argument that asks for one launch.
pub(crate) const LAUNCH: &str = "--launch";

/// A launch under way in a process of its own.
#[derive(Debug)]
pub(crate) struct Launch(Child);

impl Launch {
    pub(crate) fn start(workload: &str, side: Side, n: usize, quick: bool) -> Self {
        let program = env::current_exe().expect("a program that runs has a file");
        let child = Command::new(program)
            .args([
                LAUNCH,
                workload,
                side.name(),
                &n.to_string(),
                if quick { "quick" } else { "full" },
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.expect("this program can be run"))
    }

    /// The numbers that it printed.
    pub(crate) fn finish(self) -> Vec<f64> {
        let output = self.0.wait_with_output().expect("the output of a child process can be read");
        assert!(output.status.success(), "a launch failed: {}", output.status);
        let text = String::from_utf8(output.stdout).expect("numbers are text");
        text.split_whitespace()
            .map(|number| number.parse().expect("a launch prints numbers"))
            .collect()
    }
}

/// Makes one launch and waits for it.
pub(crate) fn launch(workload: &str, side: Side, n: usize, quick: bool) -> Vec<f64> {
    Launch::start(workload, side, n, quick).finish()
}

/// What a process that was asked for one launch is asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) workload: String,
    pub(crate) side: Side,
    pub(crate) n: usize,
    pub(crate) quick: bool,
}

impl Asked {
    pub(crate) fn parse(args: &[String]) -> Option<Self> {
        let [launch, workload, side, n, quick] = args else { return None };
        if launch != LAUNCH {
            return None;
        }
        let side = if side == Side::Ours.name() { Side::Ours } else { Side::Baseline };
        Some(Self { workload: workload.clone(), side, n: n.parse().ok()?, quick: quick == "quick" })
    }
}
