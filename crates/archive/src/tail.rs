//! What the log has behind a base, so that more can be brought back than bases.

use crate::archive::{Archive, BaseEntry, Stock};
use crate::error::Error;
use crate::forks;
use crate::format::base::Base;
use crate::format::header::{HEADER_MAX, Header, Moment};
use crate::format::segment::Instant;
use crate::format::{FormatFault, Kind, TimelineId};
use crate::frame::Frame;
use crate::names;
use crate::object::{self, OpenedRun};
use crate::plan::cover::{Piece, SegmentEntry, cover, ranges_of, reach, superseded};
use crate::plan::retain::stands_for;
use crate::prune;
use crate::read::read_base;
use crate::store::Listed;
use rekindle_bolt::Pair;
use rekindle_etcd::schema::{self, is_kubernetes};
use rekindle_etcd::{KeyValue, Lease, RecordKey, Revision};
use std::collections::{BTreeMap, BTreeSet};

/// Revisions that the log of a timeline has without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRange {
    /// Of which history.
    pub timeline: TimelineId,
    /// The first one.
    pub first: Revision,
    /// The last one.
    pub last: Revision,
}

/// Revisions of the log that are taken behind a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Of which history.
    pub timeline: TimelineId,
    /// The first one.
    pub from: Revision,
    /// The last one.
    pub to: Revision,
    /// Records and their bytes at most: those of all segments that have any of it.
    pub records: u64,
    /// See there.
    pub bytes: u64,
    /// When the cluster was at the last one.
    pub at: Moment,
    /// Nobody saw when: it is reckoned from what was seen before and afterwards.
    pub reckoned: bool,
    /// Records were erased from some of its segments.
    pub erased: bool,
    /// What is taken of which segments.
    pub(crate) pieces: Vec<TailPiece>,
}

impl Archive {
    /// Whether all of a tail is there still, and nothing was erased from it since it was planned.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn has_tail(&self, tail: &Tail) -> Result<bool, Error> {
        let erased = Erased::read(self)?;
        let stock = self.stock(std::iter::once(tail.timeline))?;
        let living = erased.living_log(&stock, tail.timeline);
        let names: BTreeSet<_> = living.iter().map(|segment| &segment.name).collect();
        Ok(tail.pieces.iter().all(|piece| names.contains(&piece.name)))
    }
}

/// What is taken of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TailPiece {
    /// The segment's name, and its bytes.
    pub name: String,
    pub bytes: u64,
    /// The first revision, and the last.
    pub from: Revision,
    pub to: Revision,
}

impl From<&Piece<'_>> for TailPiece {
    fn from(Piece { segment, from, to }: &Piece<'_>) -> Self {
        Self { name: segment.name.clone(), bytes: segment.bytes, from: *from, to: *to }
    }
}

/// What the log has behind a base, without a gap.
pub struct Following<'a> {
    archive: &'a Archive,
    entry: &'a BaseEntry,
    /// In the order of revisions, from the one behind the base's.
    segments: Vec<SegmentEntry>,
    /// All of its timeline.
    log: Vec<SegmentEntry>,
}

impl Archive {
    /// What the log has, by names alone: the ranges of each timeline in their order. What lies between two
    /// of them is a gap.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn log(&self) -> Result<Vec<LogRange>, Error> {
        let erased = Erased::read(self)?;
        let stock = Stock::of(self.store().list(names::TIMELINES)?);
        let mut ranges = Vec::new();
        for timeline in stock.timelines() {
            let log = ranges_of(&erased.living_log(&stock, timeline));
            ranges.extend(log.map(|(first, last)| LogRange { timeline, first, last }));
        }
        Ok(ranges)
    }

    /// Lists what the log has behind a base.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn following<'a>(&'a self, entry: &'a BaseEntry) -> Result<Following<'a>, Error> {
        let facts = &entry.header.facts;
        let erased = Erased::read(self)?;
        let stock = self.stock(std::iter::once(facts.timeline))?;
        let log = erased.living_log(&stock, facts.timeline);
        let next = facts.last.later(1);
        let reached = next.map(|next| reach(&log, next)).unwrap_or_default();
        let segments = reached.into_iter().map(|piece| piece.segment.clone()).collect();
        Ok(Following { archive: self, entry, segments, log })
    }
}

/// What waits for a prune because it has what was erased: it is to come back no more.
pub(crate) struct Erased(Option<BTreeSet<String>>);

impl Erased {
    /// Reads the marks. It is done before the log is listed: what is marked between has others in its place only
    /// from then on, which are not listed without it.
    ///
    /// # Errors
    /// [`Error::Store`]. Where a mark cannot be read, nobody knows what waits, and there is no log; bases come
    /// back all the same.
    pub(crate) fn read(archive: &Archive) -> Result<Self, Error> {
        match prune::erased_objects(archive) {
            Err(Error::Json { .. } | Error::TooNew { .. } | Error::Requires { .. }) => {
                Ok(Self(None))
            }
            erased => Ok(Self(Some(erased?))),
        }
    }

    /// Whether it is to come back no more.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|erased| erased.contains(name))
    }

    /// The segments of a timeline but for these.
    pub(crate) fn living_log(&self, stock: &Stock, timeline: TimelineId) -> Vec<SegmentEntry> {
        stock.log(timeline).iter().filter(|segment| !self.has(&segment.name)).cloned().collect()
    }
}

/// The header of each of these segments, or why it cannot be read.
pub(crate) fn headers(archive: &Archive, segments: &[SegmentEntry]) -> Vec<Result<Header, Error>> {
    let store = archive.store();
    let listed = |it: &SegmentEntry| Listed { name: it.name.clone(), bytes: it.bytes };
    let starts = store.read_starts(segments.iter().map(listed).collect(), HEADER_MAX as u64);
    let parse = |(segment, start): (&SegmentEntry, Result<bytes::Bytes, _>)| {
        object::parse(archive, &store.full_name(&segment.name), Kind::Segment, &start?)
    };
    segments.iter().zip(starts).map(parse).collect()
}

impl Following<'_> {
    /// The last revision that can be brought back of this base: its own where nothing follows.
    #[must_use]
    pub fn last(&self) -> Revision {
        self.segments.last().map_or(self.entry.header.facts.last, |segment| segment.last)
    }

    /// The last revision that can be brought back of this base, if that is one behind its own.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn newest(&self) -> Result<Option<Instant>, Error> {
        let last = self.segments.last().map(std::slice::from_ref).unwrap_or_default();
        Ok(self.headers(last)?.first().map(end_of))
    }

    /// Until when nothing is known to have come behind [`Self::last`], as far as segments tell; and the first
    /// revision behind that which the log has after a gap.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn end(&self) -> Result<(Option<Moment>, Option<Revision>), Error> {
        let last = self.last();
        let tells = |it: &&SegmentEntry| it.last == last && (it.is_empty() || it.first <= last);
        let telling: Vec<_> = self.log.iter().filter(tells).cloned().collect();
        let headers = headers(self.archive, &telling).into_iter().filter_map(Result::ok);
        let until = headers.map(|header| header.facts.state).max();
        let behind = self.log.iter().filter(|it| !it.is_empty() && it.first > last);
        Ok((until, behind.map(|segment| segment.first).min()))
    }

    /// The newest revision at which the cluster was at a moment or before, if that is one behind the
    /// base.
    ///
    /// # Errors
    /// A segment cannot be read that may have that moment.
    pub fn at(&self, moment: Moment) -> Result<Option<Instant>, Error> {
        let mut before: Option<Header> = None;
        let mut found = None;
        // What cannot be read may be the one that is meant, as long as none behind it is from before that moment.
        let mut unreadable = None;
        for (segment, header) in self.segments.iter().zip(headers(self.archive, &self.segments)) {
            match header {
                // A header says when the cluster was at the end of its segment, or later.
                Ok(header) if header.facts.state > moment => {
                    found = Some(segment);
                    break;
                }
                Ok(header) => (before, unreadable) = (Some(header), None),
                Err(error) => unreadable = unreadable.or(Some(error)),
            }
        }
        if let Some(error) = unreadable {
            return Err(error);
        }
        let before = before.as_ref();
        let Some(segment) = found else { return Ok(before.map(end_of)) };
        let (_, opened) = self.open(segment)?;
        let within = opened.notes.times.newest_at(moment).filter(|it| it.revision >= segment.first);
        let within = within.map(|it| Instant { revision: it.revision.min(self.last()), ..it });
        Ok(within.or(before.map(end_of)))
    }

    /// The base with what comes behind it up to a revision.
    ///
    /// # Errors
    /// [`Error::LogMissing`]; [`Error::Forked`]; a segment cannot be read.
    pub fn up_to(&self, base: Base, to: Revision) -> Result<(Base, Tail), Error> {
        let facts = &self.entry.header.facts;
        let name = self.archive.store().full_name(&self.entry.name);
        let missing = |missing| Error::LogMissing { base: name.clone(), missing };
        let from = facts.last.later(1).filter(|from| *from <= to).ok_or_else(|| missing(to))?;
        let pieces = cover(&self.segments, from, to).map_err(missing)?;
        self.check_turns_agree(from, to)?;
        if base.erased == 0 && pieces.iter().any(|piece| piece.segment.is_redacted()) {
            self.check_is_whole()?;
        }
        let needed: Vec<_> = pieces.iter().map(|piece| piece.segment.clone()).collect();
        let headers = self.headers(&needed)?;
        let sum =
            |count: fn(&Header) -> u64| headers.iter().map(count).fold(0, u64::saturating_add);
        let (records, bytes) =
            (sum(|header| header.facts.records), sum(|header| header.facts.logical_bytes));
        let Some(last) = pieces.last() else { return Err(missing(to)) };
        let (last_name, opened) = self.open(last.segment)?;
        let damaged = |fault| Error::damaged(&last_name, fault);
        let end = End::find(&opened, last).map_err(damaged)?;
        let at = opened.notes.times.of(to).unwrap_or(Instant {
            revision: to,
            at: opened.header.facts.state,
            reckoned: true,
        });
        let (mut frame, page_size) = Frame::parse(&base.frame)?;
        self.add_granted(&mut frame, &needed, &headers)?;
        if let Some(later) = self.next_base(to)? {
            // What was granted since the base; of what had ended before the later one nothing is known.
            frame.add_missing(schema::LEASE, Frame::parse(&later.frame)?.0)?;
        }
        frame.set_last_record(&end.key.to_bytes(), &end.value);
        let kubernetes = base.kubernetes || end.kubernetes;
        let frame = frame.to_file(page_size)?;
        let tail = Tail {
            timeline: facts.timeline,
            from,
            to,
            records,
            bytes,
            at: at.at,
            reckoned: at.reckoned,
            erased: headers.iter().any(|header| header.facts.erased),
            pieces: pieces.iter().map(TailPiece::from).collect(),
        };
        Ok((Base { frame, kubernetes, ..base }, tail))
    }

    /// What was erased from the log was not in this base. Where it was, another base stands for it, and together
    /// with what is left of the log this one would be what the cluster never was.
    fn check_is_whole(&self) -> Result<(), Error> {
        let facts = &self.entry.header.facts;
        let listing = self.archive.list()?;
        let by = listing.bases.iter().find(|other| {
            let theirs = &other.header.facts;
            let is_same =
                (theirs.state, theirs.ended, theirs.last) == (facts.state, facts.ended, facts.last);
            is_same && theirs.erased && stands_for(theirs, facts)
        });
        let name = |name: &str| self.archive.store().full_name(name);
        match by {
            Some(by) => Err(Error::Replaced { base: name(&self.entry.name), by: name(&by.name) }),
            None => Ok(()),
        }
    }

    /// Where several have written these revisions, they have written the same.
    fn check_turns_agree(&self, from: Revision, to: Revision) -> Result<(), Error> {
        let has_any = |it: &&SegmentEntry| !it.is_empty() && it.first <= to && it.last >= from;
        let epochs = self.log.iter().filter(has_any).map(|segment| segment.epoch);
        if epochs.collect::<BTreeSet<_>>().len() < 2 {
            return Ok(());
        }
        // What a turn has merged is its own.
        let merged: BTreeSet<_> = superseded(&self.log).into_iter().map(|it| &it.0.name).collect();
        let all = self.log.iter().filter(has_any).filter(|it| !merged.contains(&it.name));
        let forks = forks::find(self.archive, all.collect(), || Ok(()))?;
        let first = forks.into_iter().filter(|fork| fork.revision <= to);
        match first.min_by_key(|fork| fork.revision) {
            Some(fork) => Err(fork.into_error(self.archive)),
            None => Ok(()),
        }
    }

    /// Leases that whoever followed saw records hang on.
    fn add_granted(
        &self,
        frame: &mut Frame,
        segments: &[SegmentEntry],
        headers: &[Header],
    ) -> Result<(), Error> {
        for (segment, _) in segments.iter().zip(headers).filter(|(_, it)| it.facts.keys > 0) {
            let mut granted = Frame::default();
            let (_, opened) = self.open(segment)?;
            let leases: BTreeMap<_, _> =
                opened.notes.leases.iter().map(|lease| (lease.id, lease.ttl_s)).collect();
            for (id, ttl_s) in leases {
                let lease = Lease { id, ttl_s: i64::try_from(ttl_s).unwrap_or(i64::MAX) };
                let (key, value) = (lease.key(), lease.to_bytes());
                granted.add(schema::LEASE, Pair { key: &key, value: &value, is_bucket: false })?;
            }
            frame.add_missing(schema::LEASE, granted)?;
        }
        Ok(())
    }

    /// The first base from that revision on, unless it is damaged.
    fn next_base(&self, to: Revision) -> Result<Option<Base>, Error> {
        let timeline = self.entry.header.facts.timeline;
        let bases = self.archive.list()?.bases.into_iter();
        let later = bases
            .filter(|base| base.header.facts.timeline == timeline && base.header.facts.last >= to);
        let first = later.min_by_key(|base| (base.header.facts.last, base.header.facts.index));
        match first.map(|entry| read_base(self.archive, &entry)).transpose() {
            Err(Error::Store(fault)) => Err(fault.into()),
            read => Ok(read.ok().flatten()),
        }
    }

    fn headers(&self, segments: &[SegmentEntry]) -> Result<Vec<Header>, Error> {
        headers(self.archive, segments).into_iter().collect()
    }

    /// Its segments, of which the last ones may overlap.
    pub(crate) fn segments(&self) -> &[SegmentEntry] {
        &self.segments
    }

    pub(crate) fn open(&self, segment: &SegmentEntry) -> Result<(String, OpenedRun), Error> {
        let name = self.archive.store().full_name(&segment.name);
        Ok((name, object::read_segment(self.archive, &segment.name, segment.bytes)?))
    }
}

/// When the cluster was at the end of a segment, or later.
fn end_of(segment: &Header) -> Instant {
    Instant { revision: segment.facts.last, at: segment.facts.state, reckoned: false }
}

/// The last record of a revision, and what was seen on the way to it.
struct End {
    key: RecordKey,
    value: Vec<u8>,
    kubernetes: bool,
}

impl End {
    fn find(opened: &OpenedRun, piece: &Piece<'_>) -> Result<Self, FormatFault> {
        let (mut last, mut kubernetes) = (None, false);
        let mut records = opened.within(piece.from, piece.to);
        while let Some(key) = records.advance()? {
            let value = records.value();
            let kv =
                KeyValue::parse(value).map_err(|_| FormatFault::Senseless { what: "a record" })?;
            kubernetes |= is_kubernetes(kv.key);
            if key.revision == piece.to {
                last = Some((key, value.to_vec()));
            }
        }
        // A segment has all of the revisions that it says.
        let (key, value) = last.ok_or(FormatFault::Senseless { what: "a segment" })?;
        Ok(Self { key, value, kubernetes })
    }
}
