//! The records of a range of the log, as a comparison with a snapshot wants them.

use super::journal::Kept;
use crate::archive::Archive;
use crate::error::Error;
use crate::format::base::{Part, PartKind};
use crate::format::block::{self, Fingerprint};
use crate::format::filter::KeyHash;
use crate::format::header::Moment;
use crate::format::run::Run;
use crate::format::{
    DIGEST, Facts, FormatFault, Kind, LogDigest, TimelineId, ValueDigests, segment,
};
use crate::object;
use crate::plan::cover::SegmentEntry;
use crate::write::Row;
use rekindle_etcd::{KeyValue, RecordKey, Revision};
use roaring::RoaringBitmap;
use std::vec::IntoIter;

/// A range of the log without a gap, and where its records are read.
pub(crate) struct LogRange {
    pub first: Revision,
    pub last: Revision,
    pub sources: Vec<LogSource>,
}

/// Where some of it is read.
pub(crate) enum LogSource {
    /// In the journal, as it was fed to the archive.
    Kept(Kept),
    /// In the archive itself.
    Stored(Box<Stored>),
}

/// A segment.
pub(crate) struct Stored {
    pub archive: Archive,
    pub segment: SegmentEntry,
    pub facts: Facts,
}

impl LogRange {
    /// When the cluster was at its last revision, or shortly afterwards.
    pub(crate) fn state(&self) -> Moment {
        self.sources.last().map_or(Moment(0), |source| match source {
            LogSource::Kept(kept) => kept.state,
            LogSource::Stored(stored) => stored.facts.state,
        })
    }

    /// The part of a base that it is, as far as that is known before its records were read.
    pub(crate) fn part(&self, timeline: TimelineId) -> Part {
        let last = RecordKey { revision: self.last, sub: i64::MAX, tombstone: true };
        let sizes = self.sources.iter().map(|source| match source {
            LogSource::Kept(kept) => (kept.records, kept.bytes),
            LogSource::Stored(stored) => (stored.facts.records, stored.segment.bytes),
        });
        let add = |(one, other): (u64, u64), (records, bytes)| {
            (one.saturating_add(records), other.saturating_add(bytes))
        };
        let (records, bytes) = sizes.fold((0, 0), add);
        Part {
            timeline,
            first: RecordKey::first_of(self.first),
            last,
            records,
            bytes,
            dead: RoaringBitmap::new(),
            what: PartKind::Log { digest: [0; DIGEST] },
        }
    }

    /// Its records, for the comparison.
    pub(crate) fn rows(self) -> LogRows {
        LogRows::new(self)
    }
}

impl LogSource {
    fn blocks(&self) -> Result<Vec<block::Records>, Error> {
        match self {
            Self::Kept(kept) => {
                let cut = kept.read()?;
                let opened = || {
                    let (_, content) = segment::parse(&cut.content)?;
                    let run = Run::parse_index(content)?;
                    let open = |(range, entry)| Run::open(content, &range, entry);
                    run.blocks().map(open).collect::<Result<Vec<_>, _>>()
                };
                opened().map_err(|fault| kept.damaged(&fault))
            }
            Self::Stored(stored) => {
                let Stored { archive, segment, .. } = &**stored;
                let name = archive.store().full_name(&segment.name);
                let bytes = archive.store().read(&segment.name, segment.bytes);
                let opened = bytes.map_err(Error::from);
                let opened =
                    opened.and_then(|bytes| object::open_run(archive, &name, Kind::Segment, bytes));
                let unreadable = |cause: String| Error::Journal { path: name.clone(), cause };
                let opened = opened.map_err(|error| unreadable(error.to_string()))?;
                let open = |(range, entry)| opened.records(&range, entry);
                let blocks = opened.run.blocks().map(open).collect::<Result<Vec<_>, _>>();
                blocks.map_err(|fault| unreadable(fault.to_string()))
            }
        }
    }
}

/// Goes through a range, and digests it on the way.
pub(crate) struct LogRows {
    first: Revision,
    last: Revision,
    sources: IntoIter<LogSource>,
    blocks: IntoIter<block::Records>,
    records: Option<block::Records>,
    digests: ValueDigests,
    found: LogFound,
    log: LogDigest,
}

/// What a range turned out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogFound {
    /// First and last record.
    pub span: Option<(RecordKey, RecordKey)>,
    pub records: u64,
    pub digest: [u8; DIGEST],
}

impl LogRows {
    fn new(range: LogRange) -> Self {
        let LogRange { first, last, sources } = range;
        Self {
            first,
            last,
            sources: sources.into_iter(),
            blocks: Vec::new().into_iter(),
            records: None,
            digests: ValueDigests::default(),
            found: LogFound::default(),
            log: LogDigest::default(),
        }
    }

    /// The next record; none at the end.
    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, Error> {
        loop {
            let Some(records) = &mut self.records else {
                if !self.go_on()? {
                    return self.end().map(|()| None);
                }
                continue;
            };
            let Some(key) = records.advance() else {
                self.records = None;
                continue;
            };
            // Of two who took turns a segment of the second may begin before the last one of the first ends.
            let is_known = self.found.span.is_some_and(|(_, last)| key <= last);
            if is_known || key.revision < self.first || key.revision > self.last {
                continue;
            }
            let value = records.value();
            let name = KeyValue::parse(value).map(|kv| KeyHash::of(kv.key));
            let name =
                name.map_err(|_| damaged(key, FormatFault::Senseless { what: "a record" }))?;
            let print = Fingerprint { key, name, value: self.digests.of(value) };
            self.log.add(key, &print.value);
            let row = Row::new(&print, self.found.records);
            self.found.records += 1;
            let (first, _) = self.found.span.unwrap_or((key, key));
            self.found.span = Some((first, key));
            return Ok(Some(row));
        }
    }

    /// What it was, once all of it has come.
    pub(crate) fn found(self) -> LogFound {
        LogFound { digest: self.log.value(), ..self.found }
    }

    /// The next block; false where there is none.
    fn go_on(&mut self) -> Result<bool, Error> {
        self.records = self.blocks.next();
        if self.records.is_some() {
            return Ok(true);
        }
        let Some(source) = self.sources.next() else { return Ok(false) };
        self.blocks = source.blocks()?.into_iter();
        Ok(true)
    }

    /// All of it has come.
    fn end(&self) -> Result<(), Error> {
        match self.found.span.map(|(first, last)| (first.revision, last.revision)) {
            Some(span) if span == (self.first, self.last) => Ok(()),
            _ => {
                let first = RecordKey::first_of(self.first);
                Err(damaged(first, FormatFault::Ends { what: "the journal" }))
            }
        }
    }
}

fn damaged(key: RecordKey, fault: FormatFault) -> Error {
    Error::Journal { path: format!("revision {}", key.revision), cause: fault.to_string() }
}
