//! Verdict of a body: an error that says what is to follow.

use std::{error::Error, fmt, time::Duration};

/// Error of a body that says what is to follow: that a retry is useless, or when one makes sense.
///
/// A body returns it in place of the error itself, whose text and
/// [sources](Error::source) it has. It holds for a run that ended by itself. It is looked for in
/// the error that the body returns, and not in its sources: what the child of a nested supervisor
/// says holds for that child alone.
///
/// - After [`give_up`](Verdict::give_up) the child is given up at once, as if its
///   [`max_restarts`](crate::ChildSpec::max_restarts) were used up.
/// - After [`retry_after`](Verdict::retry_after) the child is tried again after its backoff, but
///   not sooner than after this wait. It is a failure as any other, and its backoff is asked.
///
/// A [`once`](crate::ChildSpec::once) child is not tried again in either case. The supervisor
/// unpacks the verdict: events, [`Failure::error`](crate::Failure::error) and
/// [`Failure::message`](crate::Failure::message) have the inner error, and
/// [`Failure::gives_up`](crate::Failure::gives_up) and
/// [`Failure::retry_after`](crate::Failure::retry_after) the verdict.
///
/// An error of `anyhow` or `eyre` hides the verdict in it. Take it out again where the body returns
/// it: `work().map_err(|error| error.downcast::<Verdict>().map_or_else(Into::into, Into::into))`.
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::{ChildSpec, ChildStatus, Supervisor, Verdict};
/// use std::{num::ParseIntError, time::Duration};
///
/// fn port(text: &str) -> Result<u16, ParseIntError> {
///     text.parse()
/// }
///
/// let supervisor = Supervisor::builder()
///     .child(ChildSpec::new("listener", |ctx| {
///         // The setting does not get better by trying again.
///         let _port = port("many").map_err(Verdict::give_up)?;
///         ctx.wait_until_stopped()
///     }))
///     .child(ChildSpec::new("uploads", |_| {
///         let wait = Duration::from_secs(3600); // the server's `Retry-After`
///         Err(Verdict::retry_after(wait, "too many requests").into())
///     }))
///     .start()?;
/// let (handle, limit) = (supervisor.handle(), Duration::from_secs(10));
/// let listener =
///     handle.wait_for("listener", limit, |child| child.status == ChildStatus::GaveUp)?;
/// assert_eq!(listener.failures, 1);
/// let uploads = handle.wait_for("uploads", limit, |child| child.retry_in.is_some())?;
/// assert!(uploads.retry_in > Some(Duration::from_secs(3500)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Verdict {
    pub(crate) advice: Advice,
    pub(crate) error: Box<dyn Error + Send + Sync>,
}

/// What a verdict says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    GiveUp,
    RetryAfter(Duration),
}

impl Advice {
    /// The stable word for it in log lines.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GiveUp => "give_up",
            Self::RetryAfter(_) => "retry_after",
        }
    }
}

impl Verdict {
    /// Says that trying again is useless: the child is given up.
    pub fn give_up(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { advice: Advice::GiveUp, error: error.into() }
    }

    /// Says that the child is not to be tried again before this wait is over.
    ///
    /// [`Duration::MAX`] is "not before it is reset by hand".
    pub fn retry_after(wait: Duration, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { advice: Advice::RetryAfter(wait), error: error.into() }
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { advice, error } = self;
        f.debug_struct("Verdict").field("advice", advice).field("error", error).finish()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Verdict {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
