//! What was measured, as the tables of BENCHMARKS.md. Nothing is measured here.

use serde_json::Value;

use super::rows::Who;
use super::runner::Outcome;
use super::series::{Series, Target, Verdict};

/// The rows of the large table, each against the peer and its target.
pub fn against_the_peer(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| work | rekindle | etcd's own tool | held against | reached? |\n|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        let shown = |series: Option<&Series>| series.map_or_else(String::new, ToString::to_string);
        let held = reference(outcome)
            .map_or_else(String::new, |(name, series)| format!("{name}: {series}"));
        text += &format!(
            "| {} | {} | {} | {held} | {} |\n",
            outcome.row.name,
            shown(outcome.time(|who| who == Who::Us)),
            shown(outcome.time(|who| who == Who::Peer)),
            verdicts(outcome).iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        );
    }
    text
}

/// Peaks of anonymous memory.
pub fn memory(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| anonymous memory, peak | rekindle | etcd's own tool | reached? |\n|---|---|---|---|\n",
    );
    for outcome in outcomes {
        let (Some(most), Some(ours)) = (outcome.row.memory_max, outcome.memory(Who::Us)) else {
            continue;
        };
        let peers =
            outcome.memory(Who::Peer).map_or_else(String::new, |peak| mebibytes(peak as f64));
        let verdict = Verdict::amount(ours as f64, most as f64, mebibytes);
        let name = &outcome.row.name;
        text += &format!("| {name} | {} | {peers} | {verdict} |\n", mebibytes(ours as f64));
    }
    text
}

/// The size of a restored db beside its source's, as a line.
pub fn size(restored: u64, source: u64) -> String {
    let share = 100.0 * restored as f64 / source as f64;
    let verdict = Verdict::amount(share, 60.0, |share| format!("{share:.0} %"));
    let [restored, source] = [restored, source].map(|bytes| bytes as f64 / 1e9);
    format!("A restored db has {restored:.2} GB where its source has {source:.2} GB, {verdict}.")
}

/// One work at several sizes: what a GB costs, and the memory.
pub fn linear(outcomes: &[(f64, Outcome)]) -> String {
    let mut text = String::from(
        "| work, GB of the source | rekindle | a GB | memory | etcd's own tool, once |\n\
         |---|---|---|---|---|\n",
    );
    for (gigabytes, outcome) in outcomes {
        let Some(ours) = outcome.time(|who| who == Who::Us) else { continue };
        let peer =
            outcome.time(|who| who == Who::Peer).map_or_else(String::new, ToString::to_string);
        let memory =
            outcome.memory(Who::Us).map_or_else(String::new, |peak| mebibytes(peak as f64));
        let (_, work) = outcome.row.name.split_once(": ").unwrap_or(("", &outcome.row.name));
        let each = ours.median() / gigabytes;
        text += &format!("| {work}, {gigabytes:.2} | {ours} | {each:.2} s | {memory} | {peer} |\n");
    }
    text
}

/// How far each is from its limit, what the limit alone would be beside the peer, and why.
pub fn limits(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        let row = &outcome.row;
        text += &match (reference(outcome), outcome.time(|who| who == Who::Us)) {
            (Some((name, series)), Some(ours)) => {
                let times = ours.median() / series.median();
                let peer = outcome
                    .time(|who| who == Who::Peer)
                    .map(|peer| format!(" (the peer: {:.2}x)", peer.median() / series.median()));
                let peer = peer.unwrap_or_default();
                format!("- **{}**: {times:.2}x of {name}{peer}. {}\n", row.name, row.note)
            }
            _ => format!("- **{}**: {}\n", row.name, row.note),
        };
    }
    text
}

fn reference(outcome: &Outcome) -> Option<(&'static str, &Series)> {
    let names = outcome.row.jobs.iter().zip(&outcome.times);
    names.into_iter().find_map(|(job, series)| match job.who {
        Who::Reference(name) => Some((name, series)),
        _ => None,
    })
}

/// A verdict on each target of a row.
pub fn verdicts(outcome: &Outcome) -> Vec<Verdict> {
    let Some(ours) = outcome.time(|who| who == Who::Us) else { return Vec::new() };
    let peer = outcome.time(|who| who == Who::Peer);
    let verdict = |target: &Target| match *target {
        Target::FasterThanPeer(times) => {
            Some(Verdict::at_least(peer?.median() / ours.median(), times, "as fast"))
        }
        Target::TimesReference(times) => {
            let (name, series) = reference(outcome)?;
            let ratio = ours.median() / series.median();
            Some(Verdict::at_most(ratio, times, &format!("of {name}")))
        }
        Target::Seconds(most) => {
            Some(Verdict::amount(ours.median(), most, |seconds| format!("{seconds:.2} s")))
        }
        Target::Rate { bytes, least } => {
            Some(Verdict::rate(bytes as f64 / 1e9 / ours.median(), least))
        }
        Target::Revisions { count, least } => {
            Some(Verdict::each_second(count as f64 / ours.median(), least))
        }
        Target::Percent { of, part, most } => {
            let said: Value = serde_json::from_str(&outcome.said).ok()?;
            let percent = 100.0 * said[part].as_f64()? / said[of].as_f64()?;
            let mut verdict = Verdict::amount(percent, most, |percent| format!("{percent:.2} %"));
            verdict.text = format!("{part} of {of}: {}", verdict.text);
            Some(verdict)
        }
    };
    outcome.row.targets.iter().filter_map(verdict).collect()
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.0} MiB", bytes / 1_048_576.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::{Input, Job, Row};

    fn an_outcome(name: &str, targets: &[Target]) -> Outcome {
        let job = |who| Job {
            who,
            before: Vec::new(),
            lines: Vec::new(),
            input: Input::None,
            boots: None,
            once: false,
        };
        let jobs = [Who::Us, Who::Peer, Who::Reference("SHA-256 alone")].map(job).to_vec();
        let row = Row {
            name: name.into(),
            jobs,
            targets: targets.to_vec(),
            memory_max: Some(64 << 20),
            same_output: false,
            note: "Why.",
        };
        let times = [vec![1.0, 1.2, 1.1], vec![3.3], vec![1.0]].map(Series::of).to_vec();
        let memory = vec![(Who::Us, 20 << 20), (Who::Peer, 90 << 20)];
        Outcome { row, times, memory, said: r#"{"newBytes": 15, "size": 1000}"#.to_owned() }
    }

    #[test]
    fn a_row_shows_times_and_verdicts() {
        let targets = [Target::FasterThanPeer(2.6), Target::TimesReference(1.05)];
        let table = against_the_peer(&[an_outcome("restore", &targets)]);
        let row = "| restore | 1.10 s (1.00–1.20) | 3.30 s | SHA-256 alone: 1.00 s \
                   | 3.00x as fast (≥ 2.6x): reached; \
                   1.10x of SHA-256 alone (≤ 1.05x): **not reached** |";
        assert_eq!(table.lines().nth(2), Some(row));
    }

    #[test]
    fn what_has_no_peer_is_held_against_figures() {
        let targets = [
            Target::Seconds(2.0),
            Target::Rate { bytes: 2_200_000_000, least: 2.5 },
            Target::Revisions { count: 330_000, least: 500_000.0 },
            Target::Percent { of: "size", part: "newBytes", most: 3.0 },
        ];
        let shown: Vec<_> =
            verdicts(&an_outcome("x", &targets)).iter().map(ToString::to_string).collect();
        let expected = [
            "1.10 s (≤ 2.00 s): reached",
            "2.00 GB/s (≥ 2.5 GB/s): **not reached**",
            "300,000 revisions/s (≥ 500,000): **not reached**",
            "newBytes of size: 1.50 % (≤ 3.00 %): reached",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn memory_is_held_against_its_limit() {
        let table = memory(&[an_outcome("save", &[])]);
        let row = "| save | 20 MiB | 90 MiB | 20 MiB (≤ 64 MiB): reached |";
        assert_eq!(table.lines().nth(2), Some(row));
    }

    #[test]
    fn sizes_are_shown_by_what_a_gigabyte_costs() {
        let table = linear(&[(0.5, an_outcome("linear 0.5 GB: status", &[]))]);
        let row = "| status, 0.50 | 1.10 s (1.00–1.20) | 2.20 s | 20 MiB | 3.30 s |";
        assert_eq!(table.lines().nth(2), Some(row));
        let shown = size(940_000_000, 1_640_000_000);
        assert!(shown.ends_with("57 % (≤ 60 %): reached."), "{shown}");
    }

    #[test]
    fn limits_say_how_far_and_why() {
        let text = limits(&[an_outcome("restore", &[])]);
        assert_eq!(text, "- **restore**: 1.10x of SHA-256 alone (the peer: 3.30x). Why.\n");
    }
}
