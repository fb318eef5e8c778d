//! Errors that bodies get, and those that several calls return.

use std::{error::Error, fmt};

use parking_lot::Mutex;

use crate::{exit::ASKED_TO_STOP, id::ChildId, snapshot::ChildInfo};

/// The run was asked to stop, or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ASKED_TO_STOP)
    }
}

impl Error for Stopped {}

/// Error of [`ChildContext::recv`](crate::ChildContext::recv), which received no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// The run was asked to stop, or has ended.
    Stopped,
    /// The channel is empty and all its senders are gone.
    Disconnected,
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => Stopped.fmt(f),
            Self::Disconnected => f.write_str("receiving on an empty and disconnected channel"),
        }
    }
}

impl Error for RecvError {}

/// Error of [`ChildContext::recv_timeout`](crate::ChildContext::recv_timeout), which received no
/// message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvTimeoutError {
    /// The run was asked to stop, or has ended.
    Stopped,
    /// There was no message in time.
    Timeout,
    /// The channel is empty and all its senders are gone.
    Disconnected,
}

impl fmt::Display for RecvTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => RecvError::Stopped.fmt(f),
            Self::Timeout => f.write_str("timed out waiting on a channel"),
            Self::Disconnected => RecvError::Disconnected.fmt(f),
        }
    }
}

impl Error for RecvTimeoutError {}

/// Error of [`ChildContext::send`](crate::ChildContext::send): holds the message that was not sent.
///
/// It is an [`Error`] for every message that is `Send`, so that `?` works in bodies.
pub struct SendError<T> {
    /// The mutex makes the error `Sync` for every message that is `Send`; a body's error type
    /// requires that.
    message: Mutex<T>,
    stopped: bool,
}

impl<T> SendError<T> {
    pub(crate) fn stopped(message: T) -> Self {
        Self { message: Mutex::new(message), stopped: true }
    }

    pub(crate) fn disconnected(message: T) -> Self {
        Self { message: Mutex::new(message), stopped: false }
    }

    /// Returns the message.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Supervisor};
    ///
    /// let (lines, reader) = crossbeam_channel::unbounded();
    /// let (kept, keeper) = crossbeam_channel::unbounded();
    /// drop(reader);
    /// let supervisor = Supervisor::builder()
    ///     .child(ChildSpec::once("writer", move |ctx| {
    ///         if let Err(error) = ctx.send(&lines, String::from("the last line")) {
    ///             assert!(!error.is_stopped()); // the reader is gone
    ///             kept.send(error.into_inner())?;
    ///         }
    ///         Ok(())
    ///     }))
    ///     .start()?;
    /// assert_eq!(keeper.recv()?, "the last line");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_inner(self) -> T {
        self.message.into_inner()
    }

    /// Returns whether the message was not sent because of a stop request, and not because all
    /// receivers are gone.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stopped { Stopped.fmt(f) } else { f.write_str("sending on a disconnected channel") }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("stopped", &self.stopped).finish_non_exhaustive()
    }
}

impl<T> Error for SendError<T> {}

/// Error in the configuration of a supervisor or a child, found before anything was started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A child's id is empty.
    EmptyId,
    /// A child's id holds a NUL, which no thread name can.
    NulInId(ChildId),
    /// A child's id holds a `/`, which separates the ids of a path.
    SlashInId(ChildId),
    /// Two children have this id, or a listed child has it already.
    DuplicateId(ChildId),
    /// [`run`](crate::SupervisorBuilder::run) was called with the context of this child on a thread
    /// that is not the child's.
    ForeignThread(ChildId),
    /// The supervisor's name holds a NUL, which no thread name can.
    NulInName,
    /// The poll interval is zero.
    ZeroPollInterval,
    /// The supervisor may start no run in a second.
    ZeroStartRate,
    /// A child comes [after](crate::ChildSpec::after) one that its own supervisor does not list.
    #[non_exhaustive]
    UnknownAfter {
        /// The child.
        child: ChildId,
        /// The id that is not listed.
        after: ChildId,
    },
    /// A child comes [after](crate::ChildSpec::after) one that runs only
    /// [once](crate::ChildSpec::once), and so is never ready.
    #[non_exhaustive]
    AfterOnce {
        /// The child.
        child: ChildId,
        /// The one that runs only once.
        after: ChildId,
    },
    /// Children come [after](crate::ChildSpec::after) one another in a circle: each after the next
    /// one. The last is the first.
    Circle(Vec<ChildId>),
    /// The interval of the pulse is zero.
    ZeroPulse,
    /// The watchdog of this child is zero.
    ZeroWatchdog(ChildId),
    /// The time after which this child is abandoned is zero.
    ZeroAbandonAfter(ChildId),
    /// The failure threshold of this child is zero.
    ZeroFailureThreshold(ChildId),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyId => f.write_str("the id of a child is empty"),
            Self::SlashInId(id) => write!(f, "the id {id:?} holds a `/`"),
            Self::NulInId(id) => write!(f, "the id {id:?} holds a NUL"),
            Self::DuplicateId(id) => write!(f, "the id {id:?} is taken"),
            Self::ForeignThread(id) => {
                write!(f, "a nested supervisor has to run on the own thread of its child {id:?}")
            }
            Self::NulInName => f.write_str("the supervisor's name holds a NUL"),
            Self::UnknownAfter { child, after } => {
                write!(
                    f,
                    "the child {child:?} comes after {after:?}, which its supervisor does not list"
                )
            }
            Self::AfterOnce { child, after } => {
                write!(f, "the child {child:?} comes after {after:?}, which runs only once")
            }
            Self::Circle(ids) => {
                f.write_str("children come after one another in a circle: ")?;
                for (number, id) in ids.iter().enumerate() {
                    write!(f, "{}{id:?}", if number == 0 { "" } else { " after " })?;
                }
                Ok(())
            }
            Self::ZeroWatchdog(id) => write!(f, "the `watchdog` of the child {id:?} is zero"),
            Self::ZeroAbandonAfter(id) => {
                write!(f, "the `abandon_after` of the child {id:?} is zero")
            }
            Self::ZeroFailureThreshold(id) => {
                write!(f, "the `failure_threshold` of the child {id:?} is zero")
            }
            Self::ZeroPollInterval => f.write_str("`poll_interval` is zero"),
            Self::ZeroPulse => f.write_str("the interval of the `pulse` is zero"),
            Self::ZeroStartRate => f.write_str("`max_starts_per_second` is zero"),
        }
    }
}

impl Error for ConfigError {}

/// Error of a command that was refused.
///
/// Its `Debug` is its `Display`, since `main` prints the `Debug` of an error that it returns.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no child of this id.
    UnknownId(ChildId),
    /// The supervisor has ended.
    Ended,
}

impl fmt::Debug for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownId(id) => write!(f, "there is no child {id:?}"),
            Self::Ended => f.write_str("the supervisor has ended"),
        }
    }
}

impl Error for CommandError {}

/// Error of a wait that ended without what was waited for.
///
/// Its `Debug` is its `Display`, since `main` prints the `Debug` of an error that it returns.
#[derive(Clone)]
#[non_exhaustive]
pub enum WaitError {
    /// There is no child of this id: the first of a path.
    UnknownId(ChildId),
    /// The time is over; holds the child's last state, or that of the child below which it is to
    /// run. `None` where there is no child to show: the wait was for the whole supervisor, or for a
    /// child that is not listed yet.
    TimedOut(Option<Box<ChildInfo>>),
    /// The child is gone from the list; holds its last state.
    Gone(Box<ChildInfo>),
    /// The supervisor has ended; holds the child's last state.
    Ended(Box<ChildInfo>),
    /// The time is over; holds the children that are not well, without those that only wait for one
    /// of these.
    NotHealthy(Vec<ChildInfo>),
    /// The supervisor shuts down or has ended, so that no child becomes healthy any more.
    ShuttingDown,
    /// The supervisor's own thread cannot wait for itself: the call came from a callback.
    OnSupervisorThread,
}

impl fmt::Debug for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownId(id) => write!(f, "there is no child {id:?}"),
            Self::TimedOut(Some(child)) => write!(f, "timed out: {child}"),
            Self::TimedOut(None) => f.write_str("timed out"),
            Self::Gone(child) => write!(f, "the child is gone: {child}"),
            Self::Ended(child) => write!(f, "the supervisor has ended: {child}"),
            Self::NotHealthy(children) => {
                f.write_str("not healthy: ")?;
                for (number, child) in children.iter().enumerate() {
                    let separator = if number == 0 { "" } else { "; and " };
                    write!(f, "{separator}{child}")?;
                }
                Ok(())
            }
            Self::ShuttingDown => f.write_str("the supervisor shuts down or has ended"),
            Self::OnSupervisorThread => {
                f.write_str("a callback on the supervisor's thread cannot wait for the supervisor")
            }
        }
    }
}

impl Error for WaitError {}
