//! What it takes so that revisions of the log can be brought back: a base, and all that leads from there.

use super::cover::{SegmentEntry, cover, only_in, ranges_of, reach};
use rekindle_etcd::Revision;
use std::collections::BTreeSet;

/// First and last revision.
pub(crate) type Range = (Revision, Revision);

/// What the kept part of a timeline's log stands on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The revisions of bases.
    pub bases: BTreeSet<Revision>,
    /// Names of older segments, between these and what is kept.
    pub segments: BTreeSet<String>,
}

/// Of each range of what is kept the newest base from before it, with all that leads from there to it; behind a gap
/// the first base within.
pub(crate) fn standing(
    log: &[SegmentEntry],
    kept: &[SegmentEntry],
    bases: &BTreeSet<Revision>,
) -> Standing {
    let mut standing = Standing::default();
    for (first, last) in ranges_of(kept) {
        let before = bases.range(..first).next_back().copied();
        let leads = |base: Revision| {
            let from = base.later(1)?;
            let until = first.get().checked_sub(1).and_then(Revision::new)?;
            if from > until {
                return Some((base, Vec::new()));
            }
            let pieces = cover(log, from, until).ok()?;
            Some((base, pieces.into_iter().map(|piece| piece.segment.name.clone()).collect()))
        };
        match before.and_then(leads) {
            Some((base, segments)) => {
                standing.bases.insert(base);
                standing.segments.extend(segments);
            }
            None => standing.bases.extend(bases.range(first..=last).next()),
        }
    }
    standing
}

/// The revisions of the log that can be brought back of such bases.
pub(crate) fn restorable(log: &[SegmentEntry], bases: &BTreeSet<Revision>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for base in bases {
        let next = base.later(1);
        let pieces = next.map(|next| reach(log, next)).unwrap_or_default();
        let last = pieces.last().map_or(*base, |piece| piece.to);
        match ranges.last_mut() {
            Some((_, end)) if end.later(1).is_none_or(|next| *base <= next) => {
                *end = last.max(*end);
            }
            _ => ranges.push((*base, last)),
        }
    }
    let logged: Vec<_> = ranges_of(log).collect();
    only_in(&ranges, &only_in(&ranges, &logged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Epoch;

    fn revision(number: i64) -> Revision {
        Revision::new(number).unwrap()
    }

    fn segments(ranges: &[(i64, i64)]) -> Vec<SegmentEntry> {
        let named = |(first, last): &(i64, i64)| SegmentEntry {
            name: format!("{first}-{last}"),
            bytes: 1,
            level: 0,
            epoch: Epoch::NONE,
            first: revision(*first),
            last: revision(*last),
        };
        ranges.iter().map(named).collect()
    }

    fn revisions(of: &[i64]) -> BTreeSet<Revision> {
        of.iter().copied().map(revision).collect()
    }

    #[track_caller]
    fn check(log: &[(i64, i64)], kept: &[(i64, i64)], bases: &[i64], want: (&[i64], &[&str])) {
        let found = standing(&segments(log), &segments(kept), &revisions(bases));
        let names: Vec<_> = found.segments.iter().map(String::as_str).collect();
        assert_eq!((found.bases, &*names), (revisions(want.0), want.1));
    }

    #[test]
    fn kept_log_stands_on_the_base_before_it_and_what_leads_there() {
        let log = [(11, 20), (21, 30), (31, 40), (41, 50)];
        check(&log, &[(31, 40), (41, 50)], &[10, 20], (&[20], &["21-30"]));
        check(&log, &[(31, 40), (41, 50)], &[10, 30, 45], (&[30], &[]));
        check(&log, &[(31, 40), (41, 50)], &[10], (&[10], &["11-20", "21-30"]));
        check(&log, &[], &[10], (&[], &[]));
        // A segment reaches over the base.
        check(&log, &log[2..], &[25], (&[25], &["21-30"]));
    }

    /// The base behind a gap once went, and with it all that the log has from there on.
    #[test]
    fn behind_a_gap_it_stands_on_the_first_base_there() {
        let log = [(22, 26), (47, 56)];
        check(&log, &log, &[21, 46, 56], (&[21, 46], &[]));
        check(&log, &log, &[21, 50, 56], (&[21, 50], &[]));
        check(&log, &log, &[21], (&[21], &[]));
        check(&log, &log[1..], &[21, 46], (&[46], &[]));
    }

    #[test]
    fn what_can_be_brought_back() {
        let told = |log: &[(i64, i64)], bases: &[i64]| {
            let shown = |(first, last): &(Revision, Revision)| format!("{first}-{last}");
            let ranges = restorable(&segments(log), &revisions(bases));
            ranges.iter().map(shown).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&[(22, 26), (47, 56)], &[21, 46]), "22-26 47-56");
        assert_eq!(told(&[(22, 26), (47, 56)], &[21, 50]), "22-26 50-56");
        assert_eq!(told(&[(22, 26), (47, 56)], &[46]), "47-56");
        assert_eq!(told(&[(22, 26)], &[10, 15, 60]), "");
        assert_eq!(told(&[], &[10, 15]), "");
    }
}
