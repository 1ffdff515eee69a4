//! The oracle: an older base and a snapshot, compared record by record.
//!
//! What compaction at C would have kept is, for each key, its newest record up to C, unless that is
//! a delete. So, with E for the older base and the log since then, and C for the greatest compact
//! revision of both:
//!
//! - above C, both have the same records;
//! - what compaction keeps of E, the snapshot has; a delete exactly at C may be there or not, by
//!   etcd's version;
//! - what the snapshot has up to C is in E, or it is garbage: records that compaction has still to
//!   remove at one member, and that were removed already at the other.
//!
//! Where records between both bases were compacted before anybody saw them (a gap), what was deleted
//! in it cannot be told from what was lost: it is counted.

use crate::error::Error;
use crate::format::block::Fingerprint;
use crate::format::filter::KeyHash;
use crate::log::{LogFound, LogRows};
use crate::write::table::{Row, Rows};
use rekindle_etcd::{RecordKey, Revision};
use std::collections::HashMap;
use std::fmt;

/// Why a snapshot does not go on from an older base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The record in question.
    pub record: RecordKey,
    /// What is wrong with it.
    pub kind: ContradictionKind,
}

/// What contradicts an older base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContradictionKind {
    /// It is in the older base, and not in the snapshot.
    Missing,
    /// It is in the snapshot, and not in the older base.
    Added,
    /// It is in both, and differs.
    Changed,
    /// It does not follow on the one before: what lies between them is missing.
    Hole,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ContradictionKind::Missing => "is missing in the snapshot, and nothing explains it",
            ContradictionKind::Added => "is in the snapshot, and the archive never saw it",
            ContradictionKind::Changed => "differs from what the archive has",
            ContradictionKind::Hole => "does not follow on the one before it",
        };
        write!(f, "record {} {what}", self.record)
    }
}

impl Contradiction {
    /// The last revision before it.
    pub(crate) fn agreed(&self) -> Revision {
        Revision::new(self.record.revision.get() - 1).unwrap_or_default()
    }
}

/// The revisions that a comparison turns on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The older base's revision.
    pub older: Revision,
    /// The greatest compact revision of both.
    pub compact: Option<Revision>,
}

/// What becomes of a record of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The older base has it, as that number of its part.
    Known { number: u64 },
    /// Nobody had it yet.
    New,
    /// It is on its way out, and the older base has it no more.
    Garbage,
}

/// What was counted in a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records of the snapshot that the archive had.
    pub known: u64,
    /// Records that came after the older base.
    pub new: u64,
    /// Records that compaction has still to remove, and that the older base has no more.
    pub garbage: u64,
    /// Records that are gone, and were deleted or not when nobody watched.
    pub unverified: u64,
}

/// What the archive has, one record after the other.
pub(crate) struct Known {
    /// Those of the older base.
    pub table: Rows,
    /// Those of the log behind it.
    pub log: Option<LogRows>,
}

impl Known {
    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        match (self.table.next_row()?, &mut self.log) {
            (None, Some(log)) => log.next_row(),
            (row, _) => Ok(row),
        }
    }
}

/// A comparison that is under way.
pub(crate) struct Join {
    rows: Known,
    next: Option<Row>,
    bounds: Bounds,
    /// Of keys whose newest record up to C so far is gone: that record.
    gone: HashMap<KeyHash, RecordKey>,
    /// Of keys whose newest record up to C so far is one that only the snapshot has: that record.
    strange: HashMap<KeyHash, RecordKey>,
    /// The record that was come to last, of those that belong to a log.
    log: Option<RecordKey>,
    counts: Counts,
}

impl Join {
    pub(crate) fn new(mut rows: Known, bounds: Bounds) -> Result<Self, Error> {
        let next = rows.next_row()?;
        let (gone, strange) = (HashMap::new(), HashMap::new());
        Ok(Self { rows, next, bounds, gone, strange, log: None, counts: Counts::default() })
    }

    /// Compares the next record of the snapshot. Rows of the older base that are gone before it go to
    /// `dead`.
    pub(crate) fn next(
        &mut self,
        print: &Fingerprint,
        mut dead: impl FnMut(&Row),
    ) -> Result<Found, Error> {
        while let Some(row) = self.next.filter(|row| row.key < print.key) {
            self.is_gone(&row)?;
            dead(&row);
            self.next = self.rows.next_row()?;
        }
        let compacted = self.is_compacted(print.key);
        if compacted {
            self.gone.remove(&print.name);
            self.strange.remove(&print.name);
        }
        match self.next.filter(|row| row.key == print.key) {
            Some(row) if row != Row::new(print, row.number) => {
                Err(contradiction(print.key, ContradictionKind::Changed))
            }
            Some(row) => {
                self.next = self.rows.next_row()?;
                self.counts.known += 1;
                Ok(Found::Known { number: row.number })
            }
            None if print.key.revision > self.bounds.older => self.is_new(print.key, compacted),
            None if !compacted => Err(contradiction(print.key, ContradictionKind::Added)),
            None => {
                if !print.key.tombstone {
                    self.strange.insert(print.name, print.key);
                }
                self.counts.garbage += 1;
                Ok(Found::Garbage)
            }
        }
    }

    /// Ends it: what is left of the older base goes to `dead`. Tells what the log behind it was, too.
    pub(crate) fn finish(
        mut self,
        mut dead: impl FnMut(&Row),
    ) -> Result<(Counts, Option<LogFound>), Error> {
        while let Some(row) = self.next {
            self.is_gone(&row)?;
            dead(&row);
            self.next = self.rows.next_row()?;
        }
        if let Some(record) = self.strange.values().min() {
            return Err(contradiction(*record, ContradictionKind::Added));
        }
        // What was deleted in a gap nobody saw.
        let gap = self.bounds.compact > Some(self.bounds.older);
        match self.gone.values().min() {
            Some(record) if !gap => Err(contradiction(*record, ContradictionKind::Missing)),
            _ => {
                self.counts.unverified = self.gone.len() as u64;
                Ok((self.counts, self.rows.log.map(LogRows::found)))
            }
        }
    }

    fn is_compacted(&self, key: RecordKey) -> bool {
        self.bounds.compact.is_some_and(|compact| key.revision <= compact)
    }

    fn is_gone(&mut self, row: &Row) -> Result<(), Error> {
        if !self.is_compacted(row.key) {
            return Err(contradiction(row.key, ContradictionKind::Missing));
        }
        self.strange.remove(&row.name);
        match row.key.tombstone {
            true => self.gone.remove(&row.name),
            false => self.gone.insert(row.name, row.key),
        };
        Ok(())
    }

    /// Behind the older base and behind C, nothing may be missing between two records.
    fn is_new(&mut self, key: RecordKey, compacted: bool) -> Result<Found, Error> {
        self.counts.new += 1;
        if compacted {
            return Ok(Found::New);
        }
        let head = self.bounds.compact.unwrap_or_default().max(self.bounds.older);
        let follows = match self.log {
            Some(before) if before.revision == key.revision => key.sub == before.sub + 1,
            before => {
                let before = before.map_or(head, |before| before.revision);
                key.sub == 0 && before.later(1) == Some(key.revision)
            }
        };
        self.log = Some(key);
        match follows {
            true => Ok(Found::New),
            false => Err(contradiction(key, ContradictionKind::Hole)),
        }
    }
}

fn contradiction(record: RecordKey, kind: ContradictionKind) -> Error {
    Error::Contradiction(Contradiction { record, kind })
}
