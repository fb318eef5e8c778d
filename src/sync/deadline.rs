//! Deadline arithmetic in which an overflow means never.

use std::time::{Duration, Instant};

/// Longer than any program runs. A delay beyond it counts as never, and no timer receives it.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The instant `delay` after `start`; `None` is never.
pub(crate) fn after(start: Instant, delay: Duration) -> Option<Instant> {
    if is_never(delay) { None } else { start.checked_add(delay) }
}

/// Whether a delay is so long that it counts as never.
pub(crate) fn is_never(delay: Duration) -> bool {
    delay > CENTURY
}

/// Whether the deadline has come.
pub(crate) fn is_reached(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|deadline| deadline <= now)
}

/// The sooner of two deadlines.
pub(crate) fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant does as the origin of virtual time")]
    fn absurd_delays_are_never_reached() {
        let now = Instant::now();
        for delay in
            [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(i64::MAX as u64)]
        {
            assert_eq!(after(now, delay), None);
        }
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        assert!(
            !is_never(100 * year)
                && is_never(100 * year + Duration::from_nanos(1))
                && is_never(Duration::MAX)
        );
        assert!(!is_reached(None, now));
        assert!(is_reached(after(now, Duration::ZERO), now));
        assert!(!is_reached(after(now, Duration::from_nanos(1)), now));
        assert_eq!(sooner(Some(now), None), Some(now));
    }
}
