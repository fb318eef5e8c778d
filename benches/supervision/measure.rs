//! Launches taken in turns, and what they tell: medians, quartiles, and how far the same
//! measurement strays by chance.

/// Who does the work of one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    Baseline,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Baseline => "baseline",
        }
    }
}

/// The launches of one workload. Those of one index were made one after the other: a pair is
/// `ours[i]` and `baseline[i]`, and a pair of two baselines is `baseline[i]` and `again[i]`.
#[derive(Debug)]
pub(crate) struct Rounds<T = f64> {
    pub(crate) ours: Vec<T>,
    pub(crate) baseline: Vec<T>,
    pub(crate) again: Vec<T>,
}

impl<T> Rounds<T> {
    /// Makes so many launches of each. Who goes first changes from round to round, so that nobody
    /// always runs in the wake of the same other.
    pub(crate) fn take(count: usize, mut launch: impl FnMut(Side) -> T) -> Self {
        let mut rounds = Self { ours: Vec::new(), baseline: Vec::new(), again: Vec::new() };
        for round in 0..count {
            for turn in 0..3 {
                match (round + turn) % 3 {
                    0 => rounds.ours.push(launch(Side::Ours)),
                    1 => rounds.baseline.push(launch(Side::Baseline)),
                    _ => rounds.again.push(launch(Side::Baseline)),
                }
            }
        }
        rounds
    }

    /// One number of each launch.
    pub(crate) fn map(&self, number: impl Fn(&T) -> f64) -> Rounds {
        let all = |launches: &[T]| launches.iter().map(&number).collect();
        Rounds { ours: all(&self.ours), baseline: all(&self.baseline), again: all(&self.again) }
    }
}

impl Rounds {
    /// The median of ours over the median of the baseline.
    pub(crate) fn ratio(&self) -> f64 {
        median(&self.ours) / median(&self.baseline)
    }

    /// The median of ours less the median of the baseline.
    pub(crate) fn difference(&self) -> f64 {
        median(&self.ours) - median(&self.baseline)
    }

    /// How far from 1 the ratio strays where both sides are the baseline.
    pub(crate) fn ratio_noise(&self) -> f64 {
        noise(1.0, |random| {
            let (a, b) = self.resampled_baselines(random);
            median(&a) / median(&b)
        })
    }

    /// How far from 0 the difference strays where both sides are the baseline.
    pub(crate) fn difference_noise(&self) -> f64 {
        noise(0.0, |random| {
            let (a, b) = self.resampled_baselines(random);
            median(&a) - median(&b)
        })
    }

    /// How far from 1 the quotient of two ratios strays where all sides are the baseline.
    pub(crate) fn growth_noise(&self, from: &Self) -> f64 {
        noise(1.0, |random| {
            let (a, b) = self.resampled_baselines(random);
            let (c, d) = from.resampled_baselines(random);
            (median(&a) / median(&b)) / (median(&c) / median(&d))
        })
    }

    /// As many pairs of two baselines as there are, drawn from them with replacement.
    fn resampled_baselines(&self, random: &mut fastrand::Rng) -> (Vec<f64>, Vec<f64>) {
        let count = self.baseline.len();
        (0..count)
            .map(|_| random.usize(..count))
            .map(|pair| (self.again[pair], self.baseline[pair]))
            .unzip()
    }
}

/// The distance from `neutral` within which 95 % of the draws of a statistic lie. The draws are
/// bootstrap resamples of the pairs of two baselines, so that the noise belongs to the median of
/// all launches and not to a single one; it also grows when the second baseline differs from the
/// first as a whole.
fn noise(neutral: f64, mut statistic: impl FnMut(&mut fastrand::Rng) -> f64) -> f64 {
    const DRAWS: usize = 2_000;
    // The same launches give the same noise.
    let mut random = fastrand::Rng::with_seed(1);
    let strayed: Vec<f64> = (0..DRAWS).map(|_| (statistic(&mut random) - neutral).abs()).collect();
    quantile(&strayed, 0.95)
}

/// The middle half of some values, and their middle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quartiles {
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
}

pub(crate) fn quartiles(values: &[f64]) -> Quartiles {
    Quartiles {
        lower: quantile(values, 0.25),
        median: median(values),
        upper: quantile(values, 0.75),
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this part of the values lies, on the straight line between the two that
/// are nearest.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    assert!(!values.is_empty(), "no values, no quantile");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let position = part * (sorted.len() - 1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it lies between two positions of the list"
    )]
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * position.fract()
}
