//! Figures as people and programs read them: rows of a table, and lines of JSON.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use serde_json::{Value, json};

use crate::measure::{Quartiles, Rounds, quartiles};

pub(crate) const LEGEND: &str = "\
Each figure is measured against its baseline in the same run, in turns. `ours` and `baseline` are
medians over the launches, with the quartiles in brackets; `value` is the ratio of the two medians,
or their difference where the kind is absolute. `n` counts the idle siblings of the one that
restarts, the children that crash (restart_rate), the threads that wait (waiters) or call
(breaker), the milliseconds asked for (backoff) or the sinks (event); elsewhere, all children. The
baseline of breaker_…_failsafe and …_recloser is that crate, and the value is how many times faster
ours is; that of exit_at_scale is ours among 10 children, and that of waiters is ours without them.

`noise` is how far the same value strays by chance: as many pairs of two baselines are measured in
the same run, and for 95 % of the resamplings of these pairs (bootstrap, 2000 draws) the ratio of
their medians is no further from 1, or the difference of their medians no further from 0. `met` is
NO if the limit is missed by more than the noise; unclear if the noise is larger than what is asked
(the distance of a ratio's limit from 1, or of an absolute limit from 0); yes otherwise.

What times how threads hand over to one another (restart_…, of which the rate of one child only,
and exit_at_scale) has all of them on one core, if this is Linux: which of them share one the kernel
would decide by chance, for a whole launch, and that decides between 4 µs and 50.
";

/// What `value` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours over the baseline; where a limit is a least, more is better.
    Ratio,
    /// In the figure's unit.
    Absolute,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// It is reported, and no more.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Yes,
    No,
    Unclear,
    NotAsked,
}

#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// How many children, siblings, threads or whatever the figure grows with.
    pub(crate) n: usize,
    pub(crate) ours: Quartiles,
    pub(crate) baseline: Quartiles,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) limit: Limit,
    pub(crate) kind: Kind,
    pub(crate) noise: f64,
}

impl Figure {
    /// Ours over the baseline.
    pub(crate) fn ratio(
        name: &'static str,
        n: usize,
        unit: &'static str,
        rounds: &Rounds,
        limit: Limit,
    ) -> Self {
        let (ours, baseline) = (quartiles(&rounds.ours), quartiles(&rounds.baseline));
        let (value, noise) = (rounds.ratio(), rounds.ratio_noise());
        let kind = Kind::Ratio;
        Self { name, n, ours, baseline, unit, value, limit, kind, noise }
    }

    /// Ours less the baseline.
    pub(crate) fn difference(
        name: &'static str,
        n: usize,
        unit: &'static str,
        rounds: &Rounds,
        limit: Limit,
    ) -> Self {
        let (ours, baseline) = (quartiles(&rounds.ours), quartiles(&rounds.baseline));
        let (value, noise) = (rounds.difference(), rounds.difference_noise());
        Self { name, n, ours, baseline, unit, value, limit, kind: Kind::Absolute, noise }
    }

    /// What others take over what ours takes; the noise is that of our baseline.
    pub(crate) fn lead(
        name: &'static str,
        n: usize,
        unit: &'static str,
        rounds: &Rounds,
        theirs: &[f64],
        limit: Limit,
    ) -> Self {
        let (ours, baseline) = (quartiles(&rounds.ours), quartiles(theirs));
        let (value, noise) = (baseline.median / ours.median, rounds.ratio_noise());
        let kind = Kind::Ratio;
        Self { name, n, ours, baseline, unit, value, limit, kind, noise }
    }

    /// How a ratio grows from a small n to a large one: the quotient of two ratios, of which `ours`
    /// and `baseline` are the parts.
    pub(crate) fn growth(
        name: &'static str,
        n: usize,
        large: &Rounds,
        small: &Rounds,
        limit: Limit,
    ) -> Self {
        let grown = |large: &[f64], small: &[f64]| {
            let small = quartiles(small).median;
            quartiles(&large.iter().map(|value| value / small).collect::<Vec<_>>())
        };
        Self {
            name,
            n,
            ours: grown(&large.ours, &small.ours),
            baseline: grown(&large.baseline, &small.baseline),
            unit: "×",
            value: large.ratio() / small.ratio(),
            limit,
            kind: Kind::Ratio,
            noise: large.growth_noise(small),
        }
    }

    fn met(&self) -> Met {
        let neutral = if self.kind == Kind::Ratio { 1.0 } else { 0.0 };
        let (limit, missed_by) = match self.limit {
            Limit::None => return Met::NotAsked,
            Limit::AtMost(limit) => (limit, self.value - limit),
            Limit::AtLeast(limit) => (limit, limit - self.value),
        };
        if missed_by > self.noise {
            Met::No
        } else if self.noise > (limit - neutral).abs() {
            Met::Unclear
        } else {
            Met::Yes
        }
    }

    fn json(&self) -> Value {
        let limit = match self.limit {
            Limit::AtMost(limit) | Limit::AtLeast(limit) => json!(limit),
            Limit::None => Value::Null,
        };
        let kind = match self.kind {
            Kind::Ratio => "ratio",
            Kind::Absolute => "absolute",
        };
        let met = match self.met() {
            Met::Yes => json!(true),
            Met::No => json!(false),
            Met::Unclear => json!("unclear"),
            Met::NotAsked => Value::Null,
        };
        json!({
            "figure": self.name,
            "n": self.n,
            "ours": self.ours.median,
            "baseline": self.baseline.median,
            "unit": self.unit,
            "value": self.value,
            "limit": limit,
            "kind": kind,
            "noise": self.noise,
            "met": met,
        })
    }

    fn row(&self) -> String {
        let limit = match self.limit {
            Limit::AtMost(limit) => format!("≤ {}", short(limit)),
            Limit::AtLeast(limit) => format!("≥ {}", short(limit)),
            Limit::None => "–".into(),
        };
        let met = match self.met() {
            Met::Yes => "yes",
            Met::No => "NO",
            Met::Unclear => "unclear",
            Met::NotAsked => "–",
        };
        let sign = if self.kind == Kind::Ratio { "×" } else { "" };
        format!(
            "{:28} {:>6} {:>27} {:>27} {:6} {:>9} {limit:>8} {:>8} {met}",
            self.name,
            self.n,
            spread(self.ours),
            spread(self.baseline),
            self.unit,
            format!("{}{sign}", short(self.value)),
            format!("±{}", short(self.noise)),
        )
    }
}

pub(crate) fn print_head() {
    let head = format!(
        "{:28} {:>6} {:>27} {:>27} {:6} {:>9} {:>8} {:>8} met",
        "figure", "n", "ours", "baseline", "unit", "value", "limit", "noise"
    );
    println!("{head}\n{}", "─".repeat(head.chars().count() + 4));
}

pub(crate) fn print_row(figure: &Figure) {
    println!("{}", figure.row());
}

/// A line for each figure, to a file or to standard output.
pub(crate) fn write_json(figures: &[Figure], path: Option<&Path>) -> io::Result<()> {
    let mut out: Box<dyn Write> = match path {
        Some(path) => Box::new(File::create(path)?),
        None => Box::new(io::stdout()),
    };
    figures.iter().try_for_each(|figure| writeln!(out, "{}", figure.json()))
}

fn spread(quartiles: Quartiles) -> String {
    format!("{} ({}–{})", short(quartiles.median), short(quartiles.lower), short(quartiles.upper))
}

/// Three digits, or as many as stand before the point.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        size if size < 100_000.0 => format!("{value:.0}"),
        _ => format!("{:.0}k", value / 1000.0),
    }
}
