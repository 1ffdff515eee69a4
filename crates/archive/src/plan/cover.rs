//! Which segments a range of the log needs.

use crate::names::{self, Epoch, SegmentName};
use rekindle_etcd::Revision;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A segment that was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// The object's name.
    pub name: String,
    /// Bytes of the object.
    pub bytes: u64,
    /// How often what it holds was merged.
    pub level: u8,
    /// Whose turn it was to write the log.
    pub epoch: Epoch,
    /// The first revision that it has all records of; the one behind the last where it has none.
    pub first: Revision,
    /// The last one.
    pub last: Revision,
}

impl SegmentEntry {
    /// The one that has this name, if that is a segment's.
    pub(crate) fn named(name: &str, bytes: u64) -> Option<Self> {
        let SegmentName { level, epoch, first, last } = names::parse_segment(name)?;
        Some(Self { name: name.to_owned(), bytes, level, epoch, first, last })
    }

    /// Records were erased from it.
    pub(crate) fn is_redacted(&self) -> bool {
        self.level == names::REDACTED
    }

    /// It has no record, and says that none had come.
    pub(crate) fn is_empty(&self) -> bool {
        self.first > self.last
    }
}

/// What is taken of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub segment: &'a SegmentEntry,
    /// The first revision that is taken of it.
    pub from: Revision,
    /// The last one.
    pub to: Revision,
}

/// The fewest segments that have all revisions of a range. Fails with the first revision that none
/// has.
pub(crate) fn cover<'a>(
    segments: impl IntoIterator<Item = &'a SegmentEntry>,
    first: Revision,
    last: Revision,
) -> Result<Vec<Piece<'a>>, Revision> {
    match go_on(segments, first, last) {
        (pieces, None) => Ok(pieces),
        (_, Some(missing)) => Err(missing),
    }
}

/// The fewest segments that have all revisions from one on, up to the first that none has.
pub(crate) fn reach(segments: &[SegmentEntry], first: Revision) -> Vec<Piece<'_>> {
    go_on(segments, first, Revision::MAX).0
}

/// First and last revision of each range that segments have without a gap, in order.
pub(crate) fn ranges_of(
    segments: &[SegmentEntry],
) -> impl Iterator<Item = (Revision, Revision)> + use<> {
    let mut spans: Vec<_> = segments.iter().filter(|it| !it.is_empty()).collect();
    spans.sort_by_key(|segment| (segment.first, segment.last));
    let mut ranges: Vec<(Revision, Revision)> = Vec::new();
    for segment in spans {
        match ranges.last_mut() {
            Some((_, last)) if last.later(1).is_none_or(|next| segment.first <= next) => {
                *last = segment.last.max(*last);
            }
            _ => ranges.push((segment.first, segment.last)),
        }
    }
    ranges.into_iter()
}

/// What is in some ranges, and in others not; both in order.
pub(crate) fn only_in(
    ranges: &[(Revision, Revision)],
    others: &[(Revision, Revision)],
) -> Vec<(Revision, Revision)> {
    let mut only = Vec::new();
    for (first, last) in ranges.iter().copied() {
        let mut next = Some(first);
        for (from, to) in others.iter().filter(|(from, to)| *to >= first && *from <= last) {
            let Some(begin) = next else { break };
            if let Some(before) = from.get().checked_sub(1).and_then(Revision::new)
                && begin < *from
            {
                only.push((begin, before));
            }
            next = to.later(1).map(|after| after.max(begin));
        }
        only.extend(next.filter(|begin| *begin <= last).map(|begin| (begin, last)));
    }
    only
}

/// Segments of which one that was merged oftener, in the same turn, has everything; and that one. One from
/// which records were erased stands for none: bases may need what it was.
pub(crate) fn superseded(segments: &[SegmentEntry]) -> Vec<(&SegmentEntry, &SegmentEntry)> {
    let counts = |segment: &&SegmentEntry| !segment.is_empty() && !segment.is_redacted();
    let mut in_order: Vec<_> = segments.iter().filter(counts).collect();
    // Of those that begin together the one that was merged oftenest comes first.
    in_order.sort_by_key(|it| (it.epoch, it.first, Reverse(it.level)));
    let mut found = Vec::new();
    // Of each level the one that reaches farthest so far.
    let mut reaching: BTreeMap<(Epoch, u8), &SegmentEntry> = BTreeMap::new();
    for segment in in_order {
        let above = (segment.epoch, segment.level.saturating_add(1))..=(segment.epoch, u8::MAX);
        let mut above = reaching.range(above);
        if let Some((_, merged)) = above.rfind(|(_, merged)| merged.last >= segment.last) {
            found.push((segment, *merged));
        }
        let reach = reaching.entry((segment.epoch, segment.level)).or_insert(segment);
        if segment.last > reach.last {
            *reach = segment;
        }
    }
    found
}

/// Those that stand for others.
pub(crate) fn superseding(segments: &[SegmentEntry]) -> Vec<&SegmentEntry> {
    let mut merged: Vec<_> = superseded(segments).into_iter().map(|(_, merged)| merged).collect();
    merged.sort_by(|one, other| one.name.cmp(&other.name));
    merged.dedup();
    merged
}

/// The fewest segments of a range as far as it goes, and the first revision that none has.
fn go_on<'a>(
    segments: impl IntoIterator<Item = &'a SegmentEntry>,
    first: Revision,
    last: Revision,
) -> (Vec<Piece<'a>>, Option<Revision>) {
    let mut by_first: Vec<_> = segments.into_iter().filter(|segment| !segment.is_empty()).collect();
    by_first.sort_by_key(|segment| segment.first);
    let mut waiting = by_first.into_iter().peekable();
    let mut pieces = Vec::new();
    let mut farthest: Option<&SegmentEntry> = None;
    let mut next = first;
    while next <= last {
        while let Some(segment) = waiting.next_if(|segment| segment.first <= next) {
            if farthest.is_none_or(|there| segment.last > there.last) {
                farthest = Some(segment);
            }
        }
        let Some(segment) = farthest.filter(|segment| segment.last >= next) else {
            return (pieces, Some(next));
        };
        let to = segment.last.min(last);
        pieces.push(Piece { segment, from: next, to });
        let Some(after) = to.later(1) else { break };
        next = after;
    }
    (pieces, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: i64) -> Revision {
        Revision::new(number).unwrap()
    }

    fn entries(segments: &[(i64, i64)]) -> Vec<SegmentEntry> {
        let named = |(first, last): &(i64, i64)| SegmentEntry {
            name: format!("{first}-{last}"),
            bytes: 1,
            level: 0,
            epoch: Epoch::NONE,
            first: revision(*first),
            last: revision(*last),
        };
        segments.iter().map(named).collect()
    }

    /// Which segments a range needs, and what of each, or which revision is missing.
    fn check(segments: &[(i64, i64)], (first, last): (i64, i64), want: &str) {
        let segments = entries(segments);
        let got = match cover(&segments, revision(first), revision(last)) {
            Ok(pieces) => {
                let shown = |piece: &Piece<'_>| {
                    format!("{}:{}-{}", piece.segment.name, piece.from, piece.to)
                };
                pieces.iter().map(shown).collect::<Vec<_>>().join(" ")
            }
            Err(missing) => format!("no {missing}"),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn ranges_are_told_without_their_seams() {
        let told = |all: &[(i64, i64)]| {
            let shown = |(first, last): (Revision, Revision)| format!("{first}-{last}");
            ranges_of(&entries(all)).map(shown).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&[(6, 9), (1, 5), (2, 3), (11, 12), (13, 12), (12, 20)]), "1-9 11-20");
        assert_eq!(told(&[(5, 4)]), "");
        assert_eq!(told(&[(1, i64::MAX), (7, 9)]), format!("1-{}", i64::MAX));
    }

    #[test]
    fn what_only_some_have() {
        let told = |all: &[(i64, i64)], others: &[(i64, i64)]| {
            let shown = |(first, last): &(Revision, Revision)| format!("{first}-{last}");
            let ranges = |all| ranges_of(&entries(all)).collect::<Vec<_>>();
            let only = only_in(&ranges(all), &ranges(others));
            only.iter().map(shown).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&[(1, 9)], &[]), "1-9");
        assert_eq!(told(&[(1, 9)], &[(1, 4), (5, 9)]), "");
        assert_eq!(told(&[(1, 9), (20, 30)], &[(3, 4), (7, 22)]), "1-2 5-6 23-30");
        assert_eq!(told(&[(5, 9)], &[(1, 4), (6, 6), (10, 12)]), "5-5 7-9");
        assert_eq!(told(&[(1, i64::MAX)], &[(4, i64::MAX)]), "1-3");
        assert_eq!(told(&[], &[(1, 4)]), "");
    }

    #[test]
    fn what_was_merged_is_superseded_in_its_own_turn() {
        let named = |(level, epoch, first, last): &(u8, u64, i64, i64)| SegmentEntry {
            name: format!("{level}:{epoch}:{first}-{last}"),
            bytes: 1,
            level: *level,
            epoch: Epoch(*epoch),
            first: revision(*first),
            last: revision(*last),
        };
        let check = |all: &[(u8, u64, i64, i64)], want: &str| {
            let segments: Vec<_> = all.iter().map(named).collect();
            let found = superseded(&segments);
            let names: Vec<_> = found.iter().map(|(segment, _)| segment.name.as_str()).collect();
            assert_eq!(names.join(" "), want);
        };
        check(&[(0, 1, 1, 5), (0, 1, 6, 9), (1, 1, 1, 9), (0, 1, 10, 12)], "0:1:1-5 0:1:6-9");
        check(
            &[(1, 1, 1, 9), (1, 1, 10, 20), (2, 1, 1, 20), (0, 1, 3, 4)],
            "1:1:1-9 0:1:3-4 1:1:10-20",
        );
        // Another turn may have seen something else; one that hangs over is no part of it.
        check(&[(0, 1, 1, 5), (1, 2, 1, 9), (0, 2, 8, 10)], "");
        check(&[(1, 1, 1, 9), (1, 1, 1, 9), (0, 1, 10, 9)], "");
    }

    #[test]
    fn a_range_is_covered_or_what_is_missing_is_named() {
        check(&[(1, 10)], (1, 10), "1-10:1-10");
        check(&[(1, 10)], (4, 5), "1-10:4-5");
        check(&[(6, 10), (1, 5)], (1, 10), "1-5:1-5 6-10:6-10");
        // Merged ones stand beside those that they were merged of.
        check(&[(1, 2), (3, 4), (5, 6), (1, 6), (7, 8)], (2, 7), "1-6:2-6 7-8:7-7");
        // Of two writers.
        check(&[(1, 5), (3, 8), (7, 12)], (1, 12), "1-5:1-5 3-8:6-8 7-12:9-12");
        check(&[(1, 5), (7, 9)], (1, 9), "no 6");
        check(&[(1, 5)], (6, 6), "no 6");
        check(&[], (3, 4), "no 3");
        check(&[(5, 6)], (3, 4), "no 3");
        let reached = |all: &[(i64, i64)], first| {
            let segments = entries(all);
            reach(&segments, revision(first)).last().map(|piece| piece.to.get())
        };
        assert_eq!(reached(&[(1, 5), (6, 9), (11, 12)], 3), Some(9));
        assert_eq!(reached(&[(1, 5)], 6), None);
        // Those without a record say nothing of a record.
        assert_eq!(reached(&[(1, 5), (6, 5), (6, 7), (8, 7)], 3), Some(7));
        check(&[(1, 5), (6, 5), (4, 3)], (4, 6), "no 6");
        let max = i64::MAX;
        check(&[(1, max)], (max, max), &format!("1-{max}:{max}-{max}"));
    }
}
