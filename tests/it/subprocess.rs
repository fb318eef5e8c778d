//! Tests that run themselves again, in a process of their own.

use std::{
    env,
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, Output, Stdio},
};

use crate::support::DEADLINE;

const INSIDE: &str = "CIRCUIT_BREAKER_SUPERVISOR_TEST_INSIDE";

/// Set where this program runs on another machine than it was built for: the words of the command
/// that runs it, with a space between them.
const EMULATOR: &str = "CIRCUIT_BREAKER_SUPERVISOR_TEST_EMULATOR";

/// Set where the C compiler of this machine is not that of the program.
const C_COMPILER: &str = "CIRCUIT_BREAKER_SUPERVISOR_TEST_CC";

/// The signal of `abort`.
pub(crate) const SIGABRT: Option<i32> = Some(6);

/// Whether this is the process that a test has made for itself.
pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Whether an emulator runs this program, which cannot do what a test needs. Says so, for those who
/// count what was not run.
pub(crate) fn cannot_be_emulated(need: &str) -> bool {
    let is_emulated = env::var_os(EMULATOR).is_some();
    if is_emulated {
        println!("not run under an emulator: {need}");
    }
    is_emulated
}

/// The compiler by which a test makes a library that is loaded into its program.
pub(crate) fn c_compiler() -> Command {
    Command::new(env::var_os(C_COMPILER).unwrap_or_else(|| "cc".into()))
}

/// The words of the command that runs the test binary.
fn program() -> Vec<OsString> {
    let emulator = env::var(EMULATOR).unwrap_or_default();
    let mut words: Vec<_> = emulator.split_whitespace().map(OsString::from).collect();
    words.push(env::current_exe().unwrap().into());
    words
}

/// The test binary, to run this one test in a process of its own. The name is that of the test with
/// its module.
pub(crate) fn again(test: &str) -> Command {
    let words = program();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    of_test(test, command)
}

/// As [`again`], with no more than so much address space. It is the one limit on threads that holds
/// for root too and needs no rights: a thread whose stack does not fit cannot be spawned. `None`
/// under an emulator, whose own address space this would limit.
pub(crate) fn again_within(kib: u64, test: &str) -> Option<Command> {
    if cannot_be_emulated("a limit of the address space") {
        return None;
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -v {kib} && exec \"$0\" \"$@\"")]).args(program());
    Some(of_test(test, shell))
}

fn of_test(test: &str, mut command: Command) -> Command {
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(INSIDE, "1").env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let (code, signal) = (ExitStatus::code(&status), status.signal());
        Self { code, signal, out: text(&stdout), err: text(&stderr) }
    }
}

/// Waits for the end of such a process, whatever it is.
pub(crate) fn run(mut command: Command) -> Ended {
    command.output().unwrap().into()
}

/// What a test says inside once it has come to its end.
pub(crate) const DONE: &str = "all is well";

/// Waits for the good end of such a process.
#[track_caller]
pub(crate) fn run_to_the_end(command: Command) -> Ended {
    let ended = run(command);
    let Ended { code, signal, out, err } = &ended;
    assert!(
        *code == Some(0) && out.contains(DONE),
        "code {code:?}, signal {signal:?}\n{out}\n{err}"
    );
    ended
}

#[track_caller]
pub(crate) fn check_done(test: &str) {
    run_to_the_end(again(test));
}

/// Waits for ever: whoever calls this is ended by another thread.
pub(crate) fn wait_for_the_end() -> ! {
    let _ = crossbeam_channel::never::<()>().recv_timeout(DEADLINE);
    panic!("the process should have ended");
}
