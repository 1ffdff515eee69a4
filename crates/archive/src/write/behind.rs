//! What the log of a timeline has behind its last base, and whether the next base may build on it.
//!
//! A base names ranges of the log, and is lost where they hold anything else than it says. So it names only
//! what this host knows to be what the cluster has: what it has fed from its own journal, or can read itself.
//! Of anything else it needs nothing: its records come in packs.

use super::BaseRequest;
use super::table::Row;
use crate::archive::Archive;
use crate::error::Error;
use crate::format::block::Fingerprint;
use crate::format::filter::KeyHash;
use crate::format::{Facts, TimelineId, ValueDigests};
use crate::log::{LogRange, LogSource, LogView, Stored, Witness};
use crate::plan::cover::{SegmentEntry, reach};
use crate::tail::{self, Erased};
use rekindle_bolt::{ReadAt, Scan};
use rekindle_etcd::{Backend, RecordKey, Revision, read_record, schema};
use std::collections::BTreeMap;

/// What the log has there.
pub(super) enum Behind {
    /// Nothing.
    Nothing,
    /// These records.
    Known(LogRange),
    /// Something, of which nobody here can say what.
    Unknown,
}

/// What the log of a timeline has behind a revision, and whether the timeline goes on with a base at revision
/// `to`. It does where the cluster is known to have been `followed` into it.
pub(super) fn look(
    request: &BaseRequest<'_>,
    timeline: TimelineId,
    followed: bool,
    (from, to): (Revision, Revision),
) -> Result<(Behind, bool), Error> {
    if request.leaves {
        return Ok((Behind::Nothing, false));
    }
    let archive = request.archive;
    let stock = archive.stock(std::iter::once(timeline))?;
    let is_behind = |it: &&SegmentEntry| !it.is_empty() && it.last > from;
    let behind: Vec<_> = stock.log(timeline).iter().filter(is_behind).cloned().collect();
    let Some(end) = behind.iter().map(|segment| segment.last).max() else {
        return Ok((Behind::Nothing, true));
    };
    let known = match from.later(1).filter(|first| *first <= to) {
        Some(first) if !has_erased(archive, &behind)? => {
            known(request, timeline, &behind, (first, end.min(to)))?
        }
        _ => None,
    };
    Ok(match known {
        // What came behind the snapshot came while it was taken, or the cluster went back.
        Some(range) => (Behind::Known(range), followed || end <= to),
        None => (Behind::Unknown, followed),
    })
}

impl Behind {
    /// Whether a snapshot has the same records, if there are any; false where nothing shows it, or they cannot
    /// be read, which is put down.
    pub(super) fn agrees<S: ReadAt>(
        self,
        backend: &Backend<S>,
        unreadable: &mut Vec<Error>,
    ) -> Result<bool, Error> {
        let log = match self {
            Self::Known(log) => log,
            Self::Nothing => return Ok(true),
            Self::Unknown => return Ok(false),
        };
        agrees(backend, log).or_else(|error| match error {
            Error::Journal { .. } => {
                unreadable.push(error);
                Ok(false)
            }
            error => Err(error),
        })
    }
}

/// Whether a snapshot has the same records in a range, as far as it was not compacted; false where all of it was.
fn agrees<S: ReadAt>(backend: &Backend<S>, range: LogRange) -> Result<bool, Error> {
    let before = Revision::new(range.first.get() - 1).unwrap_or_default();
    let compact = backend.facts()?.compaction.revision().unwrap_or_default();
    let (floor, last) = (compact.max(before), range.last);
    let Some(first) = floor.later(1).filter(|first| *first <= last) else { return Ok(false) };
    let Some(bucket) = backend.bucket(schema::KEY)? else { return Ok(false) };
    let (mut rows, digests) = (range.rows(), ValueDigests::default());
    let mut next = || loop {
        match rows.next_row()? {
            Some(row) if row.key.revision < first => {}
            row => break Ok::<_, Error>(row),
        }
    };
    let start = RecordKey::first_of(first).to_bytes();
    let mut scan = Scan::starting_at(backend.db(), &bucket, &start);
    while let Some(leaf) = scan.next_leaf().map_err(rekindle_etcd::Error::from)? {
        for pair in leaf.pairs() {
            let Ok((key, kv)) = read_record(pair) else { return Ok(false) };
            if key.revision > last {
                return Ok(next()?.is_none());
            }
            if key.revision < first {
                continue;
            }
            let (name, value) = (KeyHash::of(kv.key), digests.of(pair.value));
            let own = Row::new(&Fingerprint { key, name, value }, 0);
            match next()? {
                Some(row) if (Row { number: 0, ..row }) == own => {}
                _ => return Ok(false),
            }
        }
    }
    Ok(next()?.is_none())
}

/// Whether any of it waits for a prune because it has what was erased: a base that names it would keep it; or
/// was written anew without that.
fn has_erased(archive: &Archive, behind: &[SegmentEntry]) -> Result<bool, Error> {
    // These were listed before: what was erased since then is marked by now.
    let erased = Erased::read(archive)?;
    Ok(behind.iter().any(|segment| segment.is_redacted() || erased.has(&segment.name)))
}

/// The log as far as it goes, if this host knows all of it, and nothing lies beyond a gap.
fn known(
    request: &BaseRequest<'_>,
    timeline: TimelineId,
    behind: &[SegmentEntry],
    (first, to): (Revision, Revision),
) -> Result<Option<LogRange>, Error> {
    let pieces = reach(behind, first);
    let end = behind.iter().map(|segment| segment.last).max();
    if pieces.last().map(|piece| piece.to) != end {
        return Ok(None);
    }
    let facts = facts_of(request.archive, behind)?;
    let fed = request.log.filter(|log| {
        let is_fed =
            |it: &SegmentEntry| facts.get(&it.name).is_some_and(|facts| is_fed(log, it, facts));
        log.timeline == timeline && behind.iter().all(is_fed)
    });
    let segments = pieces.into_iter().map(|piece| piece.segment);
    let sources = match fed {
        Some(log) => {
            let kept = segments.flat_map(|it| log.pieces(it.first, it.last));
            kept.cloned().map(LogSource::Kept).collect()
        }
        None if request.archive.can_open() => {
            let stored = |segment: &SegmentEntry| {
                let facts = facts.get(&segment.name)?.clone();
                let (archive, segment) = (request.archive.clone(), segment.clone());
                Some(LogSource::Stored(Box::new(Stored { archive, segment, facts })))
            };
            let Some(sources) = segments.map(stored).collect() else { return Ok(None) };
            sources
        }
        None => return Ok(None),
    };
    Ok(Some(LogRange { first, last: to, sources }))
}

/// What the headers of segments say, by their names; none of one that is damaged.
fn facts_of(
    archive: &Archive,
    segments: &[SegmentEntry],
) -> Result<BTreeMap<String, Facts>, Error> {
    let mut facts = BTreeMap::new();
    for (segment, header) in segments.iter().zip(tail::headers(archive, segments)) {
        match header {
            Ok(header) => _ = facts.insert(segment.name.clone(), header.facts),
            Err(Error::Store(fault)) => return Err(fault.into()),
            Err(_) => {}
        }
    }
    Ok(facts)
}

/// Whether a segment was made of pieces of a journal. What two hosts have followed, or what one has followed of
/// two histories, did not come to them at the same milliseconds.
fn is_fed(log: &LogView, segment: &SegmentEntry, facts: &Facts) -> bool {
    let pieces = log.pieces(segment.first, segment.last);
    let Some(last) = pieces.last() else { return false };
    let records: u64 = pieces.iter().map(|kept| kept.records).sum();
    let witness = Witness { cluster: facts.cluster, member: facts.member, term: facts.term };
    (records, last.witness, last.state) == (facts.records, witness, facts.state)
}
