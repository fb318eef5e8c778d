//! Status of a child, with the state of its circuit breaker.

use std::fmt;

/// What a child is doing, or why it is not running.
///
/// The status is derived from what is known of the child; the first row that fits decides. *Wanted*
/// means: its flag is on, it is not held, not being removed or restarted by hand, its supervisor is
/// not shutting down, and it has neither been tripped by its callers nor found to hang.
///
/// | run | condition | status | [`CircuitState`] | what the supervisor does | in the Elixir package |
/// | --- | --- | --- | --- | --- | --- |
/// | running | asked to stop | `Stopping` | open | reports it as overdue once at its stop timeout; has the outermost supervisor shut down after its [`abandon_after`](crate::ChildSpec::abandon_after) | |
/// | running | not wanted | | | asks it to stop | `running_disabled` |
/// | running | up for less than `healthy_after` | `OnTrial` | half-open; closed if nothing has failed | waits for `healthy_after` | `running_in_startup` |
/// | running | up for longer, or said to be healthy | `Healthy` | closed | forgives its failures, reports `Healthy` once | `running_past_startup` |
/// | none | being removed | `Finished`, and gone | open | forgets it | |
/// | none | shutting down | `Off { Shutdown }` | open | nothing | |
/// | none | the restart policy says no more | `Finished` | open | nothing, until restarted by hand | |
/// | none | restarts used up | `GaveUp` | open | nothing, until reset by hand | |
/// | none | held | `Off { Operator }` | open | nothing | |
/// | none | flag off | `Off { Flag }` | open | nothing | `stopped_disabled` |
/// | none | what it comes [after](crate::ChildSpec::after) is not ready | `Waiting` | open | waits until that is ready | |
/// | none | backoff not over | `BackingOff` | open | waits for its end | `stopped_in_backoff` |
/// | none | otherwise | `Due` | open | starts it | `stopped_past_backoff` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChildStatus {
    /// Running, and not for long enough to be trusted.
    OnTrial,
    /// Running, and trusted: its failures are forgiven.
    Healthy,
    /// Running, and asked to stop.
    Stopping,
    /// To be started as soon as what it comes [after](crate::ChildSpec::after) is ready.
    Waiting,
    /// Down after a failure, until its backoff is over.
    BackingOff,
    /// Not wanted.
    Off {
        /// Who keeps it off.
        by: OffBy,
    },
    /// To be started: as soon as the supervisor gets to it and, if it has a
    /// [start rate](crate::SupervisorBuilder::max_starts_per_second), as it is its turn.
    Due,
    /// Ended for good, as its restart policy has it.
    Finished,
    /// Failed more often than its `max_restarts` allow, or said that trying again is useless.
    GaveUp,
}

impl ChildStatus {
    /// Returns whether the child's body is running, be it on trial, healthy or stopping.
    pub fn is_running(self) -> bool {
        matches!(self, Self::OnTrial | Self::Healthy | Self::Stopping)
    }

    /// Whether the child does what it is for, or is down on purpose. `None` if it waits for another
    /// one, on which that depends.
    pub(crate) fn is_at_work(self) -> Option<bool> {
        match self {
            Self::Healthy | Self::Finished | Self::Off { by: OffBy::Flag | OffBy::Operator } => {
                Some(true)
            }
            Self::OnTrial
            | Self::Stopping
            | Self::BackingOff
            | Self::Off { by: OffBy::Shutdown }
            | Self::Due
            | Self::GaveUp => Some(false),
            Self::Waiting => None,
        }
    }
}

impl fmt::Display for ChildStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OnTrial => "on trial",
            Self::Healthy => "healthy",
            Self::Stopping => "stopping",
            Self::Waiting => "waiting",
            Self::BackingOff => "backing off",
            Self::Off { by: OffBy::Flag } => "off (flag)",
            Self::Off { by: OffBy::Operator } => "off (operator)",
            Self::Off { by: OffBy::Shutdown } => "off (shutdown)",
            Self::Due => "due",
            Self::Finished => "finished",
            Self::GaveUp => "gave up",
        })
    }
}

/// Who keeps a child off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OffBy {
    /// Its feature flag.
    Flag,
    /// An operator, by [`Handle::hold`](crate::Handle::hold).
    Operator,
    /// The shutdown of its supervisor.
    Shutdown,
}

/// The state of a child's circuit breaker, as those who depend on the child see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CircuitState {
    /// The child runs and can be relied on.
    Closed,
    /// The child runs again after a failure and is on trial.
    HalfOpen,
    /// The child is down or about to stop: do not call it.
    Open,
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_words_of_which_tables_can_be_made() {
        let words = [
            (ChildStatus::OnTrial, "on trial"),
            (ChildStatus::Healthy, "healthy"),
            (ChildStatus::Stopping, "stopping"),
            (ChildStatus::Waiting, "waiting"),
            (ChildStatus::BackingOff, "backing off"),
            (ChildStatus::Off { by: OffBy::Flag }, "off (flag)"),
            (ChildStatus::Off { by: OffBy::Operator }, "off (operator)"),
            (ChildStatus::Off { by: OffBy::Shutdown }, "off (shutdown)"),
            (ChildStatus::Due, "due"),
            (ChildStatus::Finished, "finished"),
            (ChildStatus::GaveUp, "gave up"),
        ];
        for (status, word) in words {
            assert_eq!(format!("{status:<16}|"), format!("{word:<16}|"));
        }
        let words = [
            (CircuitState::Closed, "closed"),
            (CircuitState::HalfOpen, "half-open"),
            (CircuitState::Open, "open"),
        ];
        for (circuit, word) in words {
            assert_eq!(format!("{circuit:<16}|"), format!("{word:<16}|"));
        }
    }
}
