//! What several runs of one thing took, and what that says against a target.

use std::fmt;

/// Seconds of several runs, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Series(Vec<f64>);

impl Series {
    pub fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self(seconds)
    }

    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() % 2 {
            1 => self.0[middle],
            _ => (self.0[middle - 1] + self.0[middle]) / 2.0,
        }
    }
}

impl fmt::Display for Series {
    /// The median, and the least and the most.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", digits(self.median()))?;
        match self.0[..] {
            [least, .., most] => write!(f, " ({}–{})", digits(least), digits(most)),
            _ => Ok(()),
        }
    }
}

/// Two digits after the point, three where it is small.
fn digits(seconds: f64) -> String {
    if seconds < 0.1 { format!("{seconds:.3}") } else { format!("{seconds:.2}") }
}

/// What a measured figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// As many times as fast as the peer, or more.
    FasterThanPeer(f64),
    /// As many times the reference's time, or less.
    TimesReference(f64),
    /// So many seconds, or less.
    Seconds(f64),
    /// Of so many bytes, as many GB a second, or more.
    Rate { bytes: u64, least: f64 },
    /// Of so many revisions, so many a second, or more.
    Revisions { count: u64, least: f64 },
    /// Of what ours prints as JSON, one number is at most so many hundredths of another.
    Percent { of: &'static str, part: &'static str, most: f64 },
}

/// A figure beside its target.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    pub text: String,
    pub reached: bool,
}

impl Verdict {
    /// A ratio that must not be below.
    pub fn at_least(ratio: f64, target: f64, what: &str) -> Self {
        let reached = ratio >= target;
        Self { text: format!("{ratio:.2}x {what} (≥ {target}x)"), reached }
    }

    /// A ratio that must not be above.
    pub fn at_most(ratio: f64, target: f64, what: &str) -> Self {
        let reached = ratio <= target;
        Self { text: format!("{ratio:.2}x {what} (≤ {target}x)"), reached }
    }

    /// A rate that must not be below.
    pub fn rate(gigabytes: f64, target: f64) -> Self {
        let reached = gigabytes >= target;
        Self { text: format!("{gigabytes:.2} GB/s (≥ {target} GB/s)"), reached }
    }

    /// A number each second that must not be below.
    pub fn each_second(number: f64, least: f64) -> Self {
        let thousands = |number: f64| format!("{:.0},000", number / 1000.0);
        let text = format!("{} revisions/s (≥ {})", thousands(number), thousands(least));
        Self { text, reached: number >= least }
    }

    /// An amount that must not be above, both as they are shown.
    pub fn amount(amount: f64, most: f64, shown: impl Fn(f64) -> String) -> Self {
        let text = format!("{} (≤ {})", shown(amount), shown(most));
        Self { text, reached: amount <= most }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.reached { "reached" } else { "**not reached**" };
        write!(f, "{}: {word}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_series(seconds: &[f64], median: f64, shown: &str) {
        let series = Series::of(seconds.to_vec());
        assert_eq!((series.median(), series.to_string().as_str()), (median, shown));
    }

    #[test]
    fn a_series_is_its_median_and_its_ends() {
        check_series(&[3.0], 3.0, "3.00 s");
        check_series(&[3.0, 1.0, 2.0], 2.0, "2.00 s (1.00–3.00)");
        check_series(&[4.0, 1.0, 3.0, 2.0], 2.5, "2.50 s (1.00–4.00)");
        check_series(&[0.0123, 0.25], 0.13115, "0.13 s (0.012–0.25)");
    }

    #[test]
    fn a_verdict_holds_the_figure_against_the_target() {
        let check = |verdict: Verdict, shown: &str| assert_eq!(verdict.to_string(), shown);
        check(Verdict::at_least(2.61, 2.6, "as fast"), "2.61x as fast (≥ 2.6x): reached");
        check(Verdict::at_least(2.5, 2.6, "as fast"), "2.50x as fast (≥ 2.6x): **not reached**");
        check(Verdict::at_most(1.1, 1.1, "of SHA"), "1.10x of SHA (≤ 1.1x): reached");
        check(Verdict::at_most(1.2, 1.1, "of SHA"), "1.20x of SHA (≤ 1.1x): **not reached**");
        check(Verdict::rate(1.996, 2.0), "2.00 GB/s (≥ 2 GB/s): **not reached**");
        check(Verdict::amount(20.0, 64.0, |n| format!("{n} MiB")), "20 MiB (≤ 64 MiB): reached");
    }
}
