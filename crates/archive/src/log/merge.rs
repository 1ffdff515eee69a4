//! Merging: what was written every few seconds becomes one segment for five minutes, an hour, a day.
//!
//! It is put together from the journal, so a host that cannot open the archive can do it. The segments that
//! it was merged of stay until a prune finds that they say nothing that the merged one does not.

use super::cut::Cutter;
use super::journal::Kept;
use super::writer::{Turn, Written};
use crate::error::Error;
use crate::format::header::Moment;
use rekindle_etcd::Revision;

/// What a merged segment of each level is of, in milliseconds, from level 1 on.
const SPANS: [i64; 3] = [5 * 60_000, 60 * 60_000, 24 * 60 * 60_000];
/// The most bytes of a merged segment, about: a restore holds a few of them in memory.
const MERGED_MAX: u64 = 12 << 20;
/// After a failure of the store, so many milliseconds nothing is tried.
const PATIENCE: i64 = 60_000;

/// What of the log was written in a turn, and how far it is merged.
#[derive(Debug, Default)]
pub struct Merging {
    stretches: Vec<Stretch>,
    /// Nothing before this.
    not_before: Option<Moment>,
}

/// A part of the log that is one segment.
#[derive(Clone, Debug)]
struct Stretch {
    /// How often it was merged, or was found to be not worth it.
    level: u8,
    /// What it is in the journal.
    kept: Vec<Kept>,
    /// The segment's name, and its bytes.
    name: String,
    bytes: u64,
}

impl Stretch {
    fn first(&self) -> Option<Revision> {
        self.kept.first().map(|kept| kept.first)
    }

    fn last(&self) -> Option<Revision> {
        self.kept.last().map(|kept| kept.last)
    }

    /// Which span of a level it belongs to.
    fn span(&self, length: i64) -> Option<i64> {
        self.kept.last().map(|kept| kept.state.0.div_euclid(length))
    }
}

/// Segments that become one, or fewer.
#[derive(Clone, Debug)]
pub struct Merge {
    level: u8,
    first: Revision,
    last: Revision,
    /// What each of the segments is in the journal, and its bytes.
    parts: Vec<(Vec<Kept>, u64)>,
    /// Names of the segments.
    names: Vec<String>,
}

impl Merging {
    /// A piece of the journal is written.
    pub fn wrote(&mut self, kept: Kept, Written { name, .. }: Written) {
        let bytes = kept.bytes;
        self.stretches.push(Stretch { level: 0, kept: vec![kept], name, bytes });
    }

    /// What is to be merged now: all of a time that is over, if that makes fewer objects.
    pub fn due(&mut self, now: Moment) -> Option<Merge> {
        if self.not_before.is_some_and(|moment| now < moment) {
            return None;
        }
        for (level, length) in (1..).zip(SPANS) {
            let current = now.0.div_euclid(length);
            let mut at = 0;
            while let Some(stretch) = self.stretches.get(at) {
                let (span, count) = (stretch.span(length), self.group(at, level, length));
                if count == 0 || span.is_none_or(|span| span >= current) {
                    at += count.max(1);
                    continue;
                }
                let group = self.stretches.get(at..at + count).unwrap_or_default();
                if let Some(merge) = merge_of(group, level) {
                    return Some(merge);
                }
                let group = self.stretches.iter_mut().skip(at).take(count);
                group.for_each(|stretch| stretch.level = level);
                at += count;
            }
        }
        // What nothing comes of any more is forgotten.
        self.stretches.retain(|stretch| usize::from(stretch.level) < SPANS.len());
        None
    }

    /// So many from this place on are of one span, go on from each other, and are still to be merged so often.
    fn group(&self, at: usize, level: u8, length: i64) -> usize {
        let behind = self.stretches.get(at..).unwrap_or_default();
        let goes_on = |(before, it): (&Stretch, &Stretch)| {
            before.last().and_then(|last| last.later(1)) == it.first()
                && before.span(length) == it.span(length)
                && it.level < level
        };
        match behind.first().is_some_and(|first| first.level < level) {
            true => {
                1 + behind.iter().zip(behind.iter().skip(1)).take_while(|it| goes_on(*it)).count()
            }
            false => 0,
        }
    }

    /// What became of it. Where the journal has it no more, or some of it was erased, it stays as it is; where
    /// the store has failed, it is tried again later.
    pub fn done(&mut self, merge: &Merge, result: Result<Merged, Error>, now: Moment) {
        let is_of = |stretch: &Stretch| {
            stretch.first() >= Some(merge.first) && stretch.last() <= Some(merge.last)
        };
        let Some(at) = self.stretches.iter().position(is_of) else { return };
        match result {
            Ok(Merged(merged)) => {
                self.stretches.retain(|stretch| !is_of(stretch));
                self.stretches.splice(at..at, merged);
            }
            Err(Error::Store(_)) => self.not_before = Some(Moment(now.0.saturating_add(PATIENCE))),
            Err(_) => {
                let group = self.stretches.iter_mut().filter(|stretch| is_of(stretch));
                group.for_each(|stretch| stretch.level = merge.level);
            }
        }
    }
}

fn merge_of(group: &[Stretch], level: u8) -> Option<Merge> {
    let bytes: u64 = group.iter().map(|stretch| stretch.bytes).sum();
    let (objects, fewer) = (group.len() as u64, bytes.div_ceil(MERGED_MAX));
    // What hardly makes fewer is not read and written again.
    if fewer * 5 > objects * 4 {
        return None;
    }
    let (first, last) = (group.first()?.first()?, group.last()?.last()?);
    let parts = group.iter().map(|stretch| (stretch.kept.clone(), stretch.bytes)).collect();
    let names = group.iter().map(|stretch| stretch.name.clone()).collect();
    Some(Merge { level, first, last, parts, names })
}

/// What was merged.
#[derive(Debug)]
pub struct Merged(Vec<Stretch>);

impl Merged {
    /// So many objects came of it.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.0.len()
    }
}

/// Merges segments of a turn.
#[derive(Clone, Debug)]
pub struct Merger {
    turn: Turn,
}

impl Merger {
    pub(super) fn new(turn: Turn) -> Self {
        Self { turn }
    }

    /// Puts segments together and writes what they come to. Takes memory of one merged segment and its
    /// sealed form.
    ///
    /// # Errors
    /// [`Error::Journal`] where it has them no more; [`Error::Vanished`] where one was erased meanwhile;
    /// [`Error::Overtaken`]; [`Error::Store`].
    pub fn merge(&self, merge: &Merge, now: impl Fn() -> Moment) -> Result<Merged, Error> {
        self.turn.check()?;
        let mut cutter = Cutter::merging(merge.first);
        let (mut merged, mut taken): (Vec<Stretch>, Vec<Kept>) = Default::default();
        let mut write = |cutter: &mut Cutter, taken: &mut Vec<Kept>| {
            let Some(last) = taken.last() else { return Ok(()) };
            let cut = cutter.cut(last.witness, last.state)?;
            let Written { name, bytes } = self.turn.create(merge.level, &cut, now())?;
            let kept = std::mem::take(taken);
            merged.push(Stretch { level: merge.level, kept, name, bytes });
            Ok::<_, Error>(())
        };
        for (part, bytes) in &merge.parts {
            // Each goes into one as a whole: one that two stand for would never be superseded.
            if cutter.closed_bytes() as u64 + bytes > MERGED_MAX {
                write(&mut cutter, &mut taken)?;
            }
            for kept in part {
                cutter.add_cut(&kept.read()?)?;
                taken.push(kept.clone());
            }
        }
        write(&mut cutter, &mut taken)?;
        // Whoever erases looks again after he has said what goes: he finds these, or is found here.
        if let Some(object) = self.turn.gone(&merge.names)? {
            merged.iter().try_for_each(|stretch| self.turn.remove(&stretch.name))?;
            return Err(Error::Vanished { object });
        }
        Ok(Merged(merged))
    }
}
