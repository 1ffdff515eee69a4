//! `rekindle archive list`: the restore points.

use super::{open_at, shown};
use crate::args::ListArgs;
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use rekindle_archive::{BaseEntry, Listing, LogRange};
use rekindle_etcd::Revision;
use serde_json::{Value, json};

/// What a listing knows of each restore point: `rekindle archive verify` knows more, and nobody keeps
/// what it found.
const LEVEL: &str = "listed";

pub(super) fn run(args: &ListArgs) -> Result<(), Failure> {
    let place = args.store.place(args.archive.as_deref())?;
    let archive = open_at(&place, &args.store)?;
    let listing = archive.list()?;
    for error in &listing.unreadable {
        eprintln!("warning: {error}");
    }
    let mut out = listing_output(&listing);
    add_log(&mut out, &archive.log()?);
    out.add("encrypted", "Encrypted", archive.is_sealed());
    out.add("signed", "Signed", !archive.signers().is_empty());
    out.add("fingerprint", "Fingerprint", archive.fingerprint().to_string());
    out.print(args.output.format())?;
    match listing.unreadable.len() {
        0 => Ok(()),
        count => {
            let what = format!("{count} of the archive's objects cannot be read");
            Err(Failure::new(Code::BadData, what).remedy(
                "the restore points that are listed do not need them; look at the store's own history",
            ))
        }
    }
}

/// Every revision that the log has behind a base is a restore point, too.
pub(super) fn add_log(out: &mut Output, log: &[LogRange]) {
    let mut rows = Vec::new();
    for of_timeline in log.chunk_by(|one, next| one.timeline == next.timeline) {
        for (place, range) in of_timeline.iter().enumerate() {
            let before = place.checked_sub(1).and_then(|place| of_timeline.get(place));
            if let Some((from, to)) = before.and_then(|before| gap(before, range)) {
                rows.push(("gap", format!("revisions {from} to {to} are in no segment")));
            }
            let (first, last) = (grouped(range.first), grouped(range.last));
            let timeline = range.timeline;
            rows.push(("log", format!("revisions {first} to {last} (timeline {timeline})")));
        }
    }
    if !rows.is_empty() {
        out.text += &output::lines(&rows);
    }
    let told: Vec<Value> = log
        .iter()
        .map(|range| {
            let (first, last) = (range.first.get(), range.last.get());
            json!({ "timeline": range.timeline.to_string(), "first": first, "last": last })
        })
        .collect();
    out.add("log", "Log", told);
}

/// The revisions between two ranges.
fn gap(before: &LogRange, after: &LogRange) -> Option<(String, String)> {
    let last = Revision::new(after.first.get() - 1)?;
    Some((grouped(before.last.later(1)?), grouped(last)))
}

fn listing_output(listing: &Listing) -> Output {
    let mut out = Output::default();
    let mut rows = Vec::new();
    for base in &listing.bases {
        let facts = &base.header.facts;
        let time = shown(facts.state);
        let revision = facts.last.get();
        out.simple += &format!("{time}, {revision}, {}, {}\n", base.bytes, facts.etcd);
        rows.push(vec![
            time,
            revision.to_string(),
            grouped(facts.records),
            output::bytes(facts.logical_bytes),
            output::bytes(facts.new_bytes.saturating_add(base.bytes)),
            level(base).to_owned(),
            facts.etcd.clone(),
            facts.cluster.to_string(),
            facts.timeline.to_string(),
        ]);
    }
    out.simple = out.simple.trim_end().to_owned();
    let points: Vec<Value> = listing.bases.iter().map(to_json).collect();
    out.add("restorePoints", "Restore points", points);
    out.add("unreadable", "Unreadable", listing.unreadable.len());
    let head =
        ["TIME", "REVISION", "RECORDS", "SIZE", "NEW", "LEVEL", "ETCD", "CLUSTER", "TIMELINE"];
    let mut timelines = listing.bases.iter().map(|base| base.header.facts.timeline);
    let first = timelines.next();
    // Nobody needs to know it of a cluster that has only one.
    let shown = if timelines.all(|it| Some(it) == first) { head.len() - 1 } else { head.len() };
    rows.iter_mut().for_each(|row| row.truncate(shown));
    let head = head.get(..shown).unwrap_or(&head);
    out.text = match rows.is_empty() {
        true => "nothing has been saved into it\n".to_owned(),
        false => output::table(head, &rows),
    };
    out
}

/// What was erased on demand makes it another thing than what the cluster had.
fn level(base: &BaseEntry) -> &'static str {
    match base.header.facts.erased {
        true => "listed, erased",
        false => LEVEL,
    }
}

fn to_json(base: &BaseEntry) -> Value {
    let facts = &base.header.facts;
    json!({
        "time": shown(facts.state),
        "ended": shown(facts.ended),
        "revision": facts.last.get(),
        "compactRevision": facts.compact.map_or(-1, Revision::get),
        "raftTerm": facts.term.0,
        "raftIndex": facts.index.0,
        "records": facts.records,
        "keys": facts.keys,
        "size": facts.logical_bytes,
        "newBytes": facts.new_bytes.saturating_add(base.bytes),
        "level": LEVEL,
        "erased": facts.erased,
        "etcdVersion": facts.etcd,
        "cluster": facts.cluster.to_string(),
        "timeline": facts.timeline.to_string(),
        "object": base.name,
    })
}
