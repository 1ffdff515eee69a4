//! `rekindle archive stats`: what an archive holds, and what that costs.

use super::{now, open, unlock};
use crate::args::StatsArgs;
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use rekindle_archive::{AgeUse, KindUse, Stats, stats};
use serde_json::{Value, json};

pub(super) fn run(args: &StatsArgs) -> Result<(), Failure> {
    let stats = stats(&unlock(open(&args.archive, &args.store)?, &args.keys)?, now())?;
    output(&stats).print(args.output.format())?;
    match stats.unreadable {
        0 => Ok(()),
        count => {
            let what = format!("{} of the archive's objects cannot be read", grouped(count));
            Err(Failure::new(Code::BadData, what)
                .remedy("rekindle archive verify says which, and what they take away"))
        }
    }
}

/// How many times smaller the second is than the first.
fn ratio(large: u64, small: u64) -> Option<f64> {
    (small > 0).then(|| large as f64 / small as f64)
}

fn shown(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}"))
}

fn output(stats: &Stats) -> Output {
    let (stored, logical, dead) = (stats.stored(), stats.logical(), stats.dead());
    let data = stats.kinds.iter().filter(|kind| kind.logical > 0).map(|kind| kind.stored).sum();
    let (compression, sharing) = (ratio(logical, data), ratio(stats.bases_bytes, logical));
    let saved = ratio(stats.bases_bytes, stored);
    let simple = format!("{stored}, {logical}, {dead}, {}", stats.bases_bytes);
    let mut out = Output { simple, ..Output::default() };
    out.add("stored", "Stored bytes", stored);
    out.add("logical", "Record bytes", logical);
    out.add("dead", "Dead bytes", dead);
    out.add("basesSize", "Bytes of all bases", stats.bases_bytes);
    out.add("compression", "Compression", compression);
    out.add("sharing", "Sharing", sharing);
    out.add("saved", "Times smaller than snapshots", saved);
    out.add("unreadable", "Unreadable", stats.unreadable);
    let kinds: Vec<Value> = stats.kinds.iter().map(kind_json).collect();
    out.json.insert("kinds".to_owned(), kinds.into());
    let ages: Vec<Value> = stats.ages.iter().map(age_json).collect();
    out.json.insert("ages".to_owned(), ages.into());
    let lines = [
        ("stored", output::bytes(stored)),
        ("dead", format!("some {}: records that no base has any more", output::bytes(dead))),
        ("records", format!("{}, compressed {} times", output::bytes(logical), shown(compression))),
        (
            "bases",
            format!(
                "{} of records in all, each kept once for {} uses: {} times smaller than as many \
                 snapshots",
                output::bytes(stats.bases_bytes),
                shown(sharing),
                shown(saved)
            ),
        ),
    ];
    let kinds: Vec<_> = stats.kinds.iter().map(kind_row).collect();
    let ages: Vec<_> = stats.ages.iter().map(age_row).collect();
    out.text = output::lines(&lines)
        + &output::table(&["KIND", "OBJECTS", "STORED", "RECORDS", "DEAD"], &kinds)
        + &output::table(&["AGE", "BASES", "SIZE", "STORED"], &ages);
    out
}

fn kind_row(kind: &KindUse) -> Vec<String> {
    let bytes = |count: u64| if count > 0 { output::bytes(count) } else { "-".to_owned() };
    vec![
        format!("{}s", kind.kind),
        grouped(kind.objects),
        output::bytes(kind.stored),
        bytes(kind.logical),
        bytes(kind.dead),
    ]
}

fn kind_json(kind: &KindUse) -> Value {
    json!({
        "kind": kind.kind.to_string(),
        "objects": kind.objects,
        "stored": kind.stored,
        "logical": kind.logical,
        "dead": kind.dead,
    })
}

fn age_row(age: &AgeUse) -> Vec<String> {
    let days = match age.days_max {
        Some(1) => "up to a day".to_owned(),
        Some(days) => format!("up to {days} days"),
        None => "older".to_owned(),
    };
    vec![days, grouped(age.bases), output::bytes(age.bases_bytes), output::bytes(age.stored)]
}

fn age_json(age: &AgeUse) -> Value {
    json!({
        "daysMax": age.days_max,
        "bases": age.bases,
        "basesSize": age.bases_bytes,
        "stored": age.stored,
    })
}
