//! Exit of a run: how the body ended.

pub(crate) mod chain;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use crate::{
    exit::chain::text_of,
    sync::{
        one_line::OneLine,
        panic::{Panic, Text},
    },
    verdict::{Advice, Verdict},
};

/// Result of a child's body.
///
/// The error type is fixed, so that `?` works on any error in a body without annotations and a body
/// that is an endless `loop` fits as it is.
pub type ChildResult = Result<(), Box<dyn Error + Send + Sync>>;

/// The text of the errors that tell a body of a stop request, and the end of the text of those that
/// have one of them as their source.
pub(crate) const ASKED_TO_STOP: &str = "the child was asked to stop";

/// Exit of one run: how the child's body ended. [`StopCause`](crate::StopCause) says *why* it
/// ended.
///
/// Its `Display` is one line, cut after 300 characters and with control characters escaped,
/// whatever the message holds.
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::{ChildSpec, StopCause, Supervisor};
/// use std::time::Duration;
///
/// let supervisor = Supervisor::builder()
///     .child(ChildSpec::new("worker", |_| panic!("boom")))
///     .start()?;
/// let worker =
///     supervisor.handle().wait_for("worker", Duration::from_secs(10), |worker| {
///         worker.last_stop.is_some()
///     })?;
/// let stop = worker.last_stop.ok_or("it has stopped")?;
/// assert_eq!(
///     (stop.cause, stop.exit.name(), stop.exit.message()),
///     (StopCause::Exited, "panicked", Some("boom"))
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Exit {
    /// The body returned `Ok`.
    Completed,
    /// The body returned an error; or no thread could be spawned to run it, and this is the
    /// operating system's error.
    Failed(Failure),
    /// The body panicked.
    Panicked(Panic),
}

impl Exit {
    /// The same with only the text of the user's error, without the error itself, to be kept for
    /// long.
    pub(crate) fn without_error(&self) -> Self {
        match self {
            Self::Failed(failure) => Self::Failed(failure.without_error()),
            other => other.clone(),
        }
    }

    /// Creates the exit of a body that returns this error, for a [`Simulation`](crate::Simulation).
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(Failure::new(error.into()))
    }

    /// Creates the exit of a body that panics with this message, for a
    /// [`Simulation`](crate::Simulation).
    pub fn panicked(message: &str) -> Self {
        Self::Panicked(Panic::new(Text::Shared(message.into()), None))
    }

    /// Whether this is how a run ends that obeys a stop request: it returns, or passes on the error
    /// by which a wait told it of the request. By the text, since wrappers such as `anyhow` hide
    /// the type.
    pub(crate) fn obeys_stop(&self) -> bool {
        match self {
            Self::Completed => true,
            Self::Failed(failure) => failure.message().ends_with(ASKED_TO_STOP),
            Self::Panicked(_) => false,
        }
    }

    /// What the error of the body says is to follow, if it says anything.
    pub(crate) fn advice(&self) -> Option<Advice> {
        match self {
            Self::Failed(failure) => failure.advice(),
            Self::Completed | Self::Panicked(_) => None,
        }
    }

    /// Returns whether the body returned `Ok`.
    pub fn is_completed(&self) -> bool {
        matches!(self, Self::Completed)
    }

    /// Returns whether the body panicked.
    pub fn is_panicked(&self) -> bool {
        matches!(self, Self::Panicked(_))
    }

    /// Returns the stable name of this exit: `completed`, `failed` or `panicked`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed(_) => "failed",
            Self::Panicked(_) => "panicked",
        }
    }

    /// Returns the text of the panic, or of the error and its sources, as [`Failure`] describes.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Completed => None,
            Self::Failed(failure) => Some(failure.message()),
            Self::Panicked(panic) => Some(panic.message()),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("returned"),
            Self::Failed(failure) => write!(f, "failed: {failure}"),
            Self::Panicked(panic) => write!(f, "panicked: {panic}"),
        }
    }
}

/// The error that a body returned, and its text.
///
/// The text is that of the error and of all its [sources](Error::source), joined by `: `, as in
/// `error connecting to server: Connection refused`. A source is left out if the text of the error
/// before it ends with the source's text. The text has at most 64 KiB, covers the first 16 errors
/// of the chain, and ends with `…` if that is not all.
///
/// It is made once, on the child's own thread. Everything that this crate prints uses that text, so
/// an error's `Display`, which may be slow or panic, is called only once. A panic in a `Display` or
/// a `source` is reported as [`Callback::Display`](crate::Callback::Display), and the text keeps
/// what was written before it.
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::Exit;
/// use std::{error::Error, fmt, io};
///
/// #[derive(Debug)]
/// struct Connecting(io::Error);
///
/// impl fmt::Display for Connecting {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         f.write_str("error connecting to server")
///     }
/// }
///
/// impl Error for Connecting {
///     fn source(&self) -> Option<&(dyn Error + 'static)> {
///         Some(&self.0)
///     }
/// }
///
/// let exit = Exit::failed(Connecting(io::ErrorKind::ConnectionRefused.into()));
/// assert_eq!(exit.message(), Some("error connecting to server: connection refused"));
/// ```
#[derive(Clone, Debug)]
pub struct Failure {
    shared: Arc<TextAndError>,
}

#[derive(Debug)]
struct TextAndError {
    message: String,
    error: Box<dyn Error + Send + Sync>,
    advice: Option<Advice>,
}

impl Failure {
    fn without_error(&self) -> Self {
        let TextAndError { message, error: _, advice } = &*self.shared;
        let (message, error) = (message.clone(), message.as_str().into());
        Self { shared: Arc::new(TextAndError { message, error, advice: *advice }) }
    }

    pub(crate) fn new(error: Box<dyn Error + Send + Sync>) -> Self {
        Self::catching(error).0
    }

    /// Also returns the panic of a `Display` or a `source`.
    pub(crate) fn catching(error: Box<dyn Error + Send + Sync>) -> (Self, Option<Panic>) {
        let (error, advice) = match error.downcast::<Verdict>() {
            Ok(verdict) => (verdict.error, Some(verdict.advice)),
            Err(error) => (error, None),
        };
        let (message, panic) = text_of(&*error);
        (Self { shared: Arc::new(TextAndError { message, error, advice }) }, panic)
    }

    pub(crate) fn advice(&self) -> Option<Advice> {
        self.shared.advice
    }

    /// Returns whether the body said by a [`Verdict`] that trying again is useless.
    pub fn gives_up(&self) -> bool {
        self.advice() == Some(Advice::GiveUp)
    }

    /// Returns the time before which the child is not to be tried again, if the body said so by a
    /// [`Verdict`].
    pub fn retry_after(&self) -> Option<Duration> {
        match self.advice()? {
            Advice::GiveUp => None,
            Advice::RetryAfter(wait) => Some(wait),
        }
    }

    /// Returns the text of the error and its sources.
    pub fn message(&self) -> &str {
        &self.shared.message
    }

    /// Returns the error itself, for downcasting and for its sources.
    ///
    /// # Examples
    ///
    /// ```
    /// use circuit_breaker_supervisor::{ChildSpec, Exit, Supervisor};
    /// use std::{io, time::Duration};
    ///
    /// let supervisor = Supervisor::builder()
    ///     .child(ChildSpec::new("reader", |_| {
    ///         Err(io::Error::from(io::ErrorKind::BrokenPipe).into())
    ///     }))
    ///     .start()?;
    /// let reader =
    ///     supervisor.handle().wait_for("reader", Duration::from_secs(10), |reader| {
    ///         reader.last_stop.is_some()
    ///     })?;
    /// let Some(Exit::Failed(failure)) = reader.last_stop.map(|stop| stop.exit) else {
    ///     unreachable!()
    /// };
    /// let error: &io::Error = failure.error().downcast_ref().ok_or("another error")?;
    /// assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.shared.error
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        OneLine(&self.shared.message).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_messages_are_shown_as_one_short_line_and_kept_up_to_64_kib() {
        let text = format!("first\nsecond\0{}", "x".repeat(1 << 20));
        let exit = Exit::failed(text.as_str());
        let line = exit.to_string();
        assert!(line.starts_with("failed: first\\nsecond\\u{0}xxx"), "{line}");
        assert!(line.chars().count() < 330 && !line.contains('\n'));
        let kept = exit.message().unwrap();
        assert_eq!(
            (kept.len(), kept.strip_suffix('…').is_some_and(|start| text.starts_with(start))),
            (64 * 1024, true)
        );
        let panicked = Exit::panicked(&text);
        assert_eq!(
            panicked.message(),
            Some(text.as_str()),
            "a panic has its text already, and nothing is made of it"
        );
    }
}
