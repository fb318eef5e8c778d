//! Settings of one child, by which the core decides about it.

use std::time::Duration;

use crate::status::ChildStatus;

/// The restart policies of OTP: whether a child that has ended by itself starts again. Users choose
/// `Temporary` by `ChildSpec::once`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Permanent,
    Transient,
    Temporary,
}

impl Policy {
    /// Whether a child in this status is ready, for those that come after it.
    pub(crate) fn is_ready_in(self, status: ChildStatus) -> bool {
        match self {
            Self::Permanent => status == ChildStatus::Healthy,
            Self::Transient => status == ChildStatus::Finished,
            Self::Temporary => false,
        }
    }
}

/// The settings of one child, completed with the defaults of its supervisor.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    pub(crate) healthy_after: Duration,
    pub(crate) stop_timeout: Duration,
    pub(crate) max_restarts: Option<u32>,
    pub(crate) significant: bool,
    pub(crate) watchdog: Option<Duration>,
    pub(crate) abandon_after: Option<Duration>,
}

/// The builder's settings for all children; a child's own settings override them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    pub(crate) healthy_after: Duration,
    pub(crate) stop_timeout: Duration,
}
