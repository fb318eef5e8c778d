//! Backoff: the delay before a failed child is tried again.

use std::{fmt, time::Duration};

/// One, in the fixed-point form in which the jitter is computed.
const ONE: u128 = 1 << 32;

/// Delay before a child is tried again, for each failure in a row.
///
/// The delay depends on the *attempt*: 1 for the first failure since the child was last healthy, 2
/// for the second, and so on. It is computed once for each failure that is retried, on the
/// supervisor thread. A delay of zero restarts at once; [`Duration::MAX`] (or anything beyond a
/// century) means "never, until it is reset by hand".
///
/// | constructor | delay of attempt 1, 2, 3, … | jitter unless set |
/// | --- | --- | --- |
/// | [`Backoff::default`] | 100 ms, 200 ms, 400 ms, … up to 60 s | 0.1 |
/// | [`Backoff::exponential`] | doubles from `initial` up to `max` | 0.1 |
/// | [`Backoff::constant`] | always the same | 0.1 |
/// | [`Backoff::from_fn`] | what the closure returns | none: the delay is used unchanged |
///
/// Jitter only ever *shortens* a delay. So no delay exceeds its maximum, and children that failed
/// together are restarted at different times even when all have reached the maximum. All arithmetic
/// is in integers and saturates.
///
/// All children without a backoff of their own share the supervisor's. A closure that keeps state
/// for one child belongs in that child's [`ChildSpec::backoff`](crate::ChildSpec::backoff).
///
/// # Examples
///
/// ```
/// use circuit_breaker_supervisor::Backoff;
/// use std::time::Duration;
///
/// let mut backoff =
///     Backoff::exponential(Duration::from_millis(50), Duration::from_secs(1))
///         .jitter(0.2)
///         .seed(7);
/// let millis: Vec<_> = backoff.preview(7).iter().map(Duration::as_millis).collect();
/// assert_eq!(millis, [50, 100, 200, 400, 800, 1000, 1000]);
/// ```
#[doc(alias = "RestartSec")]
pub struct Backoff {
    curve: Curve,
    /// The largest part of a delay that the jitter may take away, in parts of [`ONE`].
    jitter: u128,
    random: fastrand::Rng,
    is_seeded: bool,
}

enum Curve {
    Exponential { initial: Duration, max: Duration },
    Constant(Duration),
    Custom(Box<dyn FnMut(u32) -> Duration + Send>),
}

impl Backoff {
    /// Creates a backoff that doubles from `initial` with every failure and never exceeds `max`.
    ///
    /// An `initial` above `max` is cut to `max`.
    ///
    /// ```
    /// use circuit_breaker_supervisor::Backoff;
    /// use std::time::Duration;
    ///
    /// let mut backoff =
    ///     Backoff::exponential(Duration::from_secs(1), Duration::from_secs(5));
    /// assert_eq!(backoff.preview(4), [1, 2, 4, 5].map(Duration::from_secs));
    /// ```
    pub fn exponential(initial: Duration, max: Duration) -> Self {
        Self::new(Curve::Exponential { initial, max }, 0.1)
    }

    /// Creates a backoff whose delay is always `delay`, less the jitter.
    ///
    /// ```
    /// use circuit_breaker_supervisor::Backoff;
    /// use std::time::Duration;
    ///
    /// let exactly_a_second = Backoff::constant(Duration::from_secs(1)).jitter(0.0);
    /// # let _ = exactly_a_second;
    /// ```
    pub fn constant(delay: Duration) -> Self {
        Self::new(Curve::Constant(delay), 0.1)
    }

    /// Creates a backoff from a closure that receives the attempt, 1 or more.
    ///
    /// The closure runs on the supervisor thread and should be quick. If it panics, the delay of
    /// [`Backoff::default`] is used for that failure, and the panic is reported as an event. The
    /// delays that it returns are used unchanged, with no jitter unless [`jitter`](Backoff::jitter)
    /// adds it.
    ///
    /// # Examples
    ///
    /// The formula that the Elixir package `circuit_breaker_supervisor` shows in its README,
    /// `attempt⁴ + 15 + random(30) × attempt` milliseconds:
    ///
    /// ```
    /// use circuit_breaker_supervisor::Backoff;
    /// use std::time::Duration;
    ///
    /// let mut backoff = Backoff::from_fn(|attempt| {
    ///     let attempt = u64::from(attempt);
    ///     Duration::from_millis(
    ///         attempt
    ///             .saturating_pow(4)
    ///             .saturating_add(15)
    ///             .saturating_add(fastrand::u64(1..=30) * attempt),
    ///     )
    /// });
    /// let third = backoff.preview(3)[2];
    /// assert!(
    ///     third >= Duration::from_millis(81 + 15 + 3)
    ///         && third <= Duration::from_millis(81 + 15 + 90)
    /// );
    /// ```
    pub fn from_fn(delay: impl FnMut(u32) -> Duration + Send + 'static) -> Self {
        Self::new(Curve::Custom(Box::new(delay)), 0.0)
    }

    /// Sets how much of each delay may be taken away at random: 0.25 makes a delay of 4 s one
    /// between 3 s and 4 s.
    ///
    /// The fraction is clamped to 0..=1, and NaN counts as 0. The idea of jitter is Marc Brooker's,
    /// in the AWS architecture article "Exponential Backoff And Jitter".
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = parts(fraction);
        self
    }

    /// Makes the jitter reproducible: two backoffs with the same seed give the same delays.
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = fastrand::Rng::with_seed(seed);
        self.is_seeded = true;
        self
    }

    /// Seeds the jitter, unless it has a seed of its own.
    pub(crate) fn be_repeatable(&mut self, seed: u64) {
        if !self.is_seeded {
            self.random = fastrand::Rng::with_seed(seed);
        }
    }

    /// Whether it holds a user's closure, whose `Drop` is user code.
    pub(crate) fn holds_closure(&self) -> bool {
        matches!(self.curve, Curve::Custom(_))
    }

    /// Returns the delays of the first `count` attempts without jitter: the longest that each can
    /// be.
    ///
    /// A closure given to [`from_fn`](Backoff::from_fn) is called for each attempt, on this thread.
    ///
    /// # Panics
    ///
    /// If that closure panics.
    pub fn preview(&mut self, count: u32) -> Vec<Duration> {
        (1..=count).map(|attempt| self.curve.longest(attempt)).collect()
    }

    /// The delay after the failure with which the count reached `attempt`.
    pub(crate) fn delay(&mut self, attempt: u32) -> Duration {
        let longest = self.curve.longest(attempt);
        if self.jitter == 0 {
            return longest;
        }
        let nanos = longest.as_nanos();
        // A duration has fewer than 2⁹⁵ nanoseconds, so neither product exceeds 2¹²⁷.
        let span = nanos * self.jitter / ONE;
        let cut = span * u128::from(self.random.u32(..)) / ONE;
        from_nanos(nanos - cut)
    }

    fn new(curve: Curve, jitter: f64) -> Self {
        Self { curve, jitter: parts(jitter), random: fastrand::Rng::new(), is_seeded: false }
    }
}

impl Default for Backoff {
    /// Doubles from 100 ms to 60 s, with a jitter of 0.1.
    fn default() -> Self {
        Self::exponential(Duration::from_millis(100), Duration::from_secs(60))
    }
}

impl fmt::Debug for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { curve, jitter, random: _, is_seeded: _ } = self;
        let mut out = f.debug_struct("Backoff");
        match curve {
            Curve::Exponential { initial, max } => out.field("initial", initial).field("max", max),
            Curve::Constant(delay) => out.field("constant", delay),
            Curve::Custom(_) => out.field("from_fn", &"…"),
        };
        out.field("jitter", &(*jitter as f64 / ONE as f64)).finish()
    }
}

impl Curve {
    fn longest(&mut self, attempt: u32) -> Duration {
        match self {
            Self::Exponential { initial, max } => {
                doubled(*initial, attempt.saturating_sub(1)).min(*max)
            }
            Self::Constant(delay) => *delay,
            Self::Custom(delay) => delay(attempt),
        }
    }
}

fn doubled(initial: Duration, times: u32) -> Duration {
    let factor = 1u128.checked_shl(times).unwrap_or(u128::MAX);
    from_nanos(initial.as_nanos().saturating_mul(factor))
}

fn from_nanos(nanos: u128) -> Duration {
    const PER_SECOND: u128 = 1_000_000_000;
    match u64::try_from(nanos / PER_SECOND) {
        Ok(seconds) => Duration::new(
            seconds,
            u32::try_from(nanos % PER_SECOND).expect("a remainder of 10⁹ fits"),
        ),
        Err(_) => Duration::MAX,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the fraction was clamped to 0..=1, and a float's NaN becomes 0"
)]
fn parts(fraction: f64) -> u128 {
    (fraction.clamp(0.0, 1.0) * ONE as f64) as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn default_doubles_from_100_ms_to_a_minute() {
        let schedule = Backoff::default().preview(40);
        assert_eq!(schedule[..4], [100 * MS, 200 * MS, 400 * MS, 800 * MS]);
        assert_eq!(schedule[39], Duration::from_secs(60));
        assert!(schedule.is_sorted());
    }

    #[test]
    fn only_a_backoff_of_the_programs_own_holds_a_closure() {
        assert!(Backoff::from_fn(|_| MS).holds_closure());
        assert!(!Backoff::constant(MS).holds_closure() && !Backoff::default().holds_closure());
    }

    #[test]
    fn absurd_attempts_and_durations_saturate() {
        let mut backoff = Backoff::exponential(Duration::MAX, Duration::MAX).jitter(1.0);
        for attempt in [1, 2, 127, 128, 129, u32::MAX] {
            assert!(backoff.delay(attempt) <= Duration::MAX);
            assert_eq!(backoff.curve.longest(attempt), Duration::MAX);
        }
        let mut tiny = Backoff::exponential(Duration::from_nanos(1), Duration::MAX).jitter(0.0);
        assert_eq!(tiny.delay(u32::MAX), Duration::MAX);
        assert_eq!(
            Backoff::exponential(Duration::ZERO, MS).jitter(0.5).delay(u32::MAX),
            Duration::ZERO
        );
        assert_eq!(Backoff::exponential(5 * MS, 2 * MS).jitter(0.0).delay(1), 2 * MS);
    }

    #[test]
    fn jitter_stays_inside_its_interval_and_repeats_with_its_seed() {
        let draws = |seed| {
            let mut backoff = Backoff::constant(1000 * MS).jitter(0.25).seed(seed);
            (0..1_000_000).map(move |_| backoff.delay(9)).collect::<Vec<_>>()
        };
        let one = draws(42);
        assert!(one.iter().all(|delay| *delay >= 750 * MS && *delay <= 1000 * MS));
        assert!(*one.iter().min().unwrap() < 751 * MS, "the whole interval is used");
        assert!(*one.iter().max().unwrap() > 999 * MS, "the whole interval is used");
        assert_eq!(one, draws(42));
        assert_ne!(one, draws(43));
    }

    #[test]
    fn seed_of_its_own_comes_before_one_that_is_given_by_others() {
        let draws = |mut backoff: Backoff| {
            backoff.be_repeatable(42);
            (0..100).map(|_| backoff.delay(1)).collect::<Vec<_>>()
        };
        let with_none = || Backoff::constant(1000 * MS).jitter(1.0);
        assert_eq!(draws(with_none()), draws(with_none()));
        assert_eq!(draws(with_none()), draws(with_none().seed(42)));
        assert_ne!(draws(with_none()), draws(with_none().seed(43)));
    }

    #[test]
    fn odd_fractions_are_clamped() {
        for (fraction, shortest) in [
            (f64::NAN, 1000),
            (-1.0, 1000),
            (f64::NEG_INFINITY, 1000),
            (2.0, 0),
            (f64::INFINITY, 0),
        ] {
            let mut backoff = Backoff::constant(1000 * MS).jitter(fraction).seed(1);
            let least = (0..10_000).map(|_| backoff.delay(1)).min().unwrap();
            assert!(
                least >= shortest * MS && least <= shortest * MS + 10 * MS,
                "{fraction}: {least:?}"
            );
        }
    }

    #[test]
    fn closures_are_taken_at_their_word() {
        let mut falling = Backoff::from_fn(|attempt| 100 * MS / attempt);
        assert_eq!([1, 2, 4].map(|attempt| falling.delay(attempt)), [100 * MS, 50 * MS, 25 * MS]);
    }

    #[test]
    fn debug_shows_the_settings() {
        let text = format!("{:?}", Backoff::constant(MS).jitter(0.5));
        assert_eq!(text, "Backoff { constant: 1ms, jitter: 0.5 }");
    }
}
