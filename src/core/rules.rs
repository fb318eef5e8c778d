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
}

/// The builder's settings for all children; a child's own settings override them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    pub(crate) healthy_after: Duration,
    pub(crate) stop_timeout: Duration,
}

impl Rules {
    /// The interval between two looks for heartbeats: a quarter of the watchdog's limit, and at
    /// least 1 ms.
    pub(crate) fn time_to_look(&self) -> Duration {
        // The nanosecond makes up for the rounding: four intervals are never shorter than the
        // limit.
        let quarter = self
            .watchdog
            .map_or(Duration::MAX, |limit| (limit / 4).saturating_add(Duration::from_nanos(1)));
        quarter.max(Duration::from_millis(1))
    }
}
