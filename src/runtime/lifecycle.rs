//! How far a supervisor has got: running, closing or ended.

use std::time::{Duration, Instant};

use crate::{
    report::{ChildGaveUp, ShutdownCause, ShutdownReport, Unstopped},
    sync::deadline,
};

/// How far a supervisor has got. All that handles and children's threads know of a shutdown follows
/// from this value; the supervisor thread keeps what it has noticed.
#[derive(Default)]
pub(crate) enum Lifecycle {
    #[default]
    Running,
    /// A shutdown was requested: no run begins any more.
    Closing(Shutdown),
    Ended {
        at: Instant,
        report: ShutdownReport,
    },
}

/// A shutdown that was requested.
pub(crate) struct Shutdown {
    cause: ShutdownCause,
    /// The shortest of the requested limits for the children to stop.
    limit: Duration,
    /// When the first of these limits is over, counted from its request.
    cap: Option<Instant>,
    /// `Shutdown` was sent, and the supervisor thread has not received it yet.
    is_sent: bool,
    /// Set when the supervisor thread notices it.
    noticed: Option<Noticed>,
    /// The children were stopped without the supervisor thread, which may be stuck for ever and
    /// publish nothing any more.
    is_taken_over: bool,
}

/// A shutdown as the supervisor thread carries it out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noticed {
    /// When the supervisor thread noticed the shutdown.
    pub(crate) since: Instant,
    /// Each child has its stop timeout to stop, but at most this long.
    pub(crate) limit: Duration,
    /// The shutdown waits for no child any longer than until then.
    pub(crate) cap: Option<Instant>,
}

impl Lifecycle {
    /// Requests a shutdown; a further request counts only if its limit is shorter. Returns whether
    /// `Shutdown` has to be sent to the supervisor thread.
    pub(crate) fn request_shutdown(&mut self, limit: Duration, now: Instant) -> bool {
        let cap = deadline::after(now, limit);
        match self {
            Self::Running => {
                *self = Self::Closing(Shutdown::new(ShutdownCause::Requested, limit, cap));
                true
            }
            Self::Closing(shutdown) if limit < shutdown.limit => {
                shutdown.limit = limit;
                shutdown.cap = deadline::sooner(shutdown.cap, cap);
                !std::mem::replace(&mut shutdown.is_sent, true)
            }
            Self::Closing(_) | Self::Ended { .. } => false,
        }
    }

    /// Has the supervisor shut down because it gave up a child. The first such cause stays, and
    /// nothing changes a shutdown that is carried out already: then this gives the cause back.
    /// Otherwise returns whether `Shutdown` has to be sent to the supervisor thread.
    pub(crate) fn give_up(&mut self, cause: ChildGaveUp) -> Result<bool, ChildGaveUp> {
        match self {
            Self::Running => {
                *self =
                    Self::Closing(Shutdown::new(ShutdownCause::GaveUp(cause), Duration::MAX, None));
                Ok(true)
            }
            Self::Closing(shutdown)
                if matches!(shutdown.cause, ShutdownCause::Requested)
                    && shutdown.noticed.is_none()
                    && !shutdown.is_taken_over =>
            {
                shutdown.cause = ShutdownCause::GaveUp(cause);
                Ok(false)
            }
            Self::Closing(_) | Self::Ended { .. } => Err(cause),
        }
    }

    /// Has the supervisor shut down because a child does not stop, unless it shuts down already.
    /// Returns whether `Shutdown` has to be sent to the supervisor thread.
    pub(crate) fn abandon(&mut self, child: Unstopped) -> bool {
        let is_new = self.is_running();
        if is_new {
            let cause = ShutdownCause::Abandoned(Box::new(child));
            *self = Self::Closing(Shutdown::new(cause, Duration::MAX, None));
        }
        is_new
    }

    /// Notes that the supervisor thread has received `Shutdown`.
    pub(crate) fn notice(&mut self, now: Instant) -> Noticed {
        let Self::Closing(shutdown) = self else {
            return Noticed { since: now, limit: Duration::ZERO, cap: Some(now) };
        };
        shutdown.is_sent = false;
        let limit = shutdown.limit;
        let noticed = shutdown.noticed.get_or_insert(Noticed { since: now, limit, cap: None });
        noticed.limit = limit;
        noticed.cap = deadline::sooner(noticed.cap, deadline::after(now, limit));
        *noticed
    }

    /// Notes that the children are stopped without the supervisor thread.
    pub(crate) fn take_over(&mut self) {
        if let Self::Closing(shutdown) = self {
            shutdown.is_taken_over = true;
        }
    }

    /// Ends it, unless it has ended: the first report stays. Returns what has to be dropped with no
    /// lock held, since it may hold a user's error.
    #[must_use]
    pub(crate) fn end(&mut self, report: ShutdownReport, now: Instant) -> Self {
        let ended = Self::Ended { at: now, report };
        match self {
            Self::Ended { .. } => ended,
            Self::Running | Self::Closing(_) => std::mem::replace(self, ended),
        }
    }

    /// Whether runs may begin and children may be added.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }

    /// When the supervisor thread noticed the shutdown, or ended, if it has.
    pub(crate) fn noticed_at(&self) -> Option<Instant> {
        match self {
            Self::Running => None,
            Self::Closing(shutdown) => shutdown.noticed.map(|noticed| noticed.since),
            Self::Ended { at, .. } => Some(*at),
        }
    }

    /// Until when the children have time to stop, in a shutdown with a limit.
    pub(crate) fn cap(&self) -> Option<Instant> {
        match self {
            Self::Closing(shutdown) => shutdown.cap,
            Self::Running | Self::Ended { .. } => None,
        }
    }

    /// Whether the supervisor thread may never publish the end of a run: it has ended, or was found
    /// stuck.
    pub(crate) fn shows_no_more(&self) -> bool {
        match self {
            Self::Running => false,
            Self::Closing(shutdown) => shutdown.is_taken_over,
            Self::Ended { .. } => true,
        }
    }

    pub(crate) fn report(&self) -> Option<&ShutdownReport> {
        match self {
            Self::Running | Self::Closing(_) => None,
            Self::Ended { report, .. } => Some(report),
        }
    }

    /// Why it shuts down.
    pub(crate) fn cause(&self) -> ShutdownCause {
        match self {
            Self::Running => ShutdownCause::Requested,
            Self::Closing(Shutdown { cause, .. })
            | Self::Ended { report: ShutdownReport { cause, .. }, .. } => cause.clone(),
        }
    }
}

impl Shutdown {
    fn new(cause: ShutdownCause, limit: Duration, cap: Option<Instant>) -> Self {
        Self { cause, limit, cap, is_sent: true, noticed: None, is_taken_over: false }
    }
}
