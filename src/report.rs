//! Report of a supervisor's end.

use std::{
    error::Error,
    fmt,
    process::{ExitCode, Termination},
    time::Duration,
};

use crate::{
    event::{Callback, StopCause},
    exit::Exit,
    id::ChildId,
    sync::aside::within_limit,
    thread_info::{ThreadInfo, Whereabouts},
    wording::{GotNoThread, Span},
};

/// How long the end of `main` waits for standard error.
const PRINTED_WITHIN: Duration = Duration::from_secs(1);

/// Report of a supervisor's end: its cause, and the children that did not stop.
///
/// No thread of the supervisor's children is alive except those of the children that the report
/// names. It implements [`Termination`], so that `main` can return it: success if it [is
/// clean](ShutdownReport::is_clean), otherwise exit code 1 and the report on standard error. If
/// that blocks, since a stuck thread holds it or nobody reads it, `main` waits 1 s and no longer.
///
/// ```
/// use circuit_breaker_supervisor::{ShutdownReport, Supervisor};
///
/// fn main() -> ShutdownReport {
///     let supervisor = Supervisor::builder()
///         .start()
///         .expect("nothing is wrong with an empty supervisor");
///     supervisor.shutdown()
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Why the supervisor ended.
    pub cause: ShutdownCause,
    /// The children of which a thread is still alive, in list order. Only the end of the process
    /// ends these threads.
    pub unstopped: Vec<Unstopped>,
    /// The callback in which the supervisor thread is stuck, if any.
    pub stuck_in: Option<StuckIn>,
    /// Whether the supervisor thread has ended. If not, it is stuck in that callback or in the
    /// destructor of a thread-local variable, had more to do than there was time for, or is the
    /// thread that requested this report.
    pub has_ended: bool,
}

impl ShutdownReport {
    /// Returns whether the supervisor ended because it was asked to, and all its threads ended.
    pub fn is_clean(&self) -> bool {
        let has_ended = self.has_ended && self.stuck_in.is_none();
        matches!(self.cause, ShutdownCause::Requested) && self.unstopped.is_empty() && has_ended
    }
}

/// Cause of a supervisor's end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ShutdownCause {
    /// It was asked to shut down.
    Requested,
    /// A [significant](crate::ChildSpec::significant) child was given up.
    GaveUp(ChildGaveUp),
    /// A child, its own or one of a nested supervisor, did not stop within its
    /// [`abandon_after`](crate::ChildSpec::abandon_after): how it was by then.
    Abandoned(Box<Unstopped>),
    /// The supervisor thread died of a fault in this crate. Its children were asked to stop.
    Died,
}

/// Error of [`SupervisorBuilder::run`](crate::SupervisorBuilder::run) when the nested supervisor
/// ended because it gave up a [significant](crate::ChildSpec::significant) child.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChildGaveUp {
    /// The child.
    pub id: ChildId,
    /// Why its last run ended.
    pub cause: StopCause,
    /// How its last run ended.
    pub exit: Exit,
}

impl fmt::Display for ChildGaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "child `{}` was given up: {}", self.id, Why(self.cause, &self.exit))
    }
}

impl Error for ChildGaveUp {}

/// A child that did not stop in time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unstopped {
    /// The child.
    pub id: ChildId,
    /// Its last run; 0 if it never ran.
    pub run: u64,
    /// How long ago it was asked to stop.
    pub stopping_for: Duration,
    /// How far its stop has got.
    pub phase: UnstoppedPhase,
    /// What its run was doing, by its last [`heartbeat`](crate::ChildContext::heartbeat).
    pub doing: Option<&'static str>,
    /// What its thread is doing, as far as that is known; of several threads, the first of the
    /// least advanced ones. While a stop callback is called, that is the thread of the body.
    pub thread: Option<ThreadInfo>,
}

/// How far the stop of a child has got that did not stop in time; if the child has several threads,
/// the least advanced one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum UnstoppedPhase {
    /// One of its [`on_stop`](crate::ChildContext::on_stop) callbacks is being called: its body
    /// still runs, or has returned and waits for the callback.
    InStopCallback,
    /// Its body still runs.
    Running,
    /// What its closure captured is being dropped.
    Dropping,
    /// Its thread is ending; destructors of thread-local variables may run.
    Ending,
}

/// User code in which a supervisor thread is stuck.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StuckIn {
    /// Which user code it is.
    pub callback: Callback,
    /// The child for which it was called, if any.
    pub id: Option<ChildId>,
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            ShutdownCause::Requested => f.write_str("shut down as requested")?,
            ShutdownCause::GaveUp(child) => write!(f, "shut down because {child}")?,
            ShutdownCause::Abandoned(child) => {
                write!(f, "shut down because a child was abandoned, {child}")?
            }
            ShutdownCause::Died => f.write_str("the supervisor thread died")?,
        }
        if self.unstopped.is_empty() {
            f.write_str("; all children stopped")?;
        } else {
            write!(f, "; {} did not stop:", self.unstopped.len())?;
            for (position, child) in self.unstopped.iter().enumerate() {
                write!(f, "{} {child}", if position == 0 { "" } else { "," })?;
            }
        }
        match &self.stuck_in {
            None if !self.has_ended => f.write_str("; the supervisor thread has not ended"),
            None => Ok(()),
            Some(StuckIn { callback, id: Some(id) }) => {
                write!(
                    f,
                    "; the supervisor thread is stuck in the `{callback}` callback for child `{id}`"
                )
            }
            Some(StuckIn { callback, id: None }) => {
                write!(f, "; the supervisor thread is stuck in the `{callback}` callback")
            }
        }
    }
}

impl fmt::Display for Unstopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            UnstoppedPhase::InStopCallback => "in an `on_stop` callback",
            UnstoppedPhase::Running => "running",
            UnstoppedPhase::Dropping => "dropping its state",
            UnstoppedPhase::Ending => "ending its thread",
        };
        write!(
            f,
            "`{}` (run {}, asked {} ago, {phase}{})",
            self.id,
            self.run,
            Span(self.stopping_for),
            Whereabouts { doing: self.doing, thread: self.thread.as_ref() }
        )
    }
}

impl Termination for ShutdownReport {
    fn report(self) -> ExitCode {
        if self.is_clean() {
            ExitCode::SUCCESS
        } else {
            // The last step to the end of the process: a thread that is stuck may hold this.
            within_limit(PRINTED_WITHIN, move || eprintln!("{self}"));
            ExitCode::FAILURE
        }
    }
}

/// Shows why a failed run ended: how it ended by itself, or why it was stopped.
struct Why<'a>(StopCause, &'a Exit);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            StopCause::Exited => write!(f, "it {}", self.1),
            StopCause::NotSpawned => write!(f, "it {}", GotNoThread(self.1)),
            asked => f.write_str(asked.reason()),
        }
    }
}
