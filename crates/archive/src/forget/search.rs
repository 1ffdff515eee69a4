//! Finding records: in which packs and segments they lie, and which bases have them.

use super::{ForgetPoint, ForgetRequest, Forgotten};
use crate::archive::{Archive, BaseEntry, Stock};
use crate::error::Error;
use crate::format::base::{Base, Part, PartKind};
use crate::format::filter::{self, KeyHash};
use crate::format::header::Moment;
use crate::format::{FormatFault, Kind, TimelineId};
use crate::names;
use crate::object::{self, OpenedRun};
use crate::plan::cover::Piece;
use crate::read::{is_known, read_base};
use rekindle_etcd::{Backend, KeyValue, RecordKey};
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, HashMap};

/// A record of such a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    /// Its number in what it was found in.
    pub number: u32,
    pub key: RecordKey,
    name: KeyHash,
    /// Bytes of its value.
    bytes: u64,
    /// It is to be erased; later versions may stay.
    pub goes: bool,
}

/// What was found in a pack or a segment.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub kind: Kind,
    /// Of the object.
    pub bytes: u64,
    /// In their order.
    pub hits: Vec<Hit>,
}

impl Found {
    pub(super) fn goes(&self) -> bool {
        self.hits.iter().any(|hit| hit.goes)
    }
}

/// What a base loses.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    /// Of each part that has such records: its place, and their numbers in it.
    pub parts: BTreeMap<usize, RoaringBitmap>,
    /// Records of the base.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Keys of which the newest record goes.
    pub keys: u64,
    /// Where the last record is one of them: its part, and its number there.
    pub last: Option<(usize, u32)>,
}

/// A range of the log, as bases name it.
type Range = (TimelineId, RecordKey, RecordKey, Option<Moment>);

/// The search.
pub(super) struct Search<'a> {
    archive: &'a Archive,
    request: &'a ForgetRequest<'a>,
    bases: Vec<BaseEntry>,
    stock: Stock,
    pub objects: BTreeMap<String, Found>,
    /// What was found in ranges of the log: many bases name the same.
    ranges: BTreeMap<Range, Vec<Hit>>,
}

impl<'a> Search<'a> {
    /// Looks through everything that these bases need, and through the log.
    pub(super) fn new(
        archive: &'a Archive,
        request: &'a ForgetRequest<'a>,
        bases: Vec<BaseEntry>,
    ) -> Result<Self, Error> {
        let stock = archive.stock(bases.iter().map(|base| base.header.facts.timeline))?;
        let (objects, ranges) = (BTreeMap::new(), BTreeMap::new());
        let mut search = Self { archive, request, bases, stock, objects, ranges };
        let mut wanted: BTreeMap<String, (u64, Option<Part>)> = BTreeMap::new();
        for entry in &search.bases {
            for part in read_base(archive, entry)?.parts {
                let PartKind::Pack { id, .. } = part.what else {
                    let segments = search.stock.touching(&part);
                    wanted.extend(segments.map(|it| (it.name.clone(), (it.bytes, None))));
                    continue;
                };
                let name = names::pack(part.timeline, id);
                wanted.entry(name).or_insert_with(|| {
                    (part.bytes, Some(Part { dead: RoaringBitmap::new(), ..part }))
                });
            }
        }
        let log = search.stock.segments();
        wanted.extend(log.map(|segment| (segment.name.clone(), (segment.bytes, None))));
        search.look_through(&wanted)?;
        Ok(search)
    }

    fn look_through(
        &mut self,
        wanted: &BTreeMap<String, (u64, Option<Part>)>,
    ) -> Result<(), Error> {
        let store = self.archive.store();
        let mut coming = None;
        let mut names = wanted.iter().peekable();
        while let Some((name, (bytes, part))) = names.next() {
            let read = coming.take().unwrap_or_else(|| store.read_later(name, *bytes));
            // The next one comes while this one is looked through.
            coming = names.peek().map(|(name, (bytes, _))| store.read_later(name, *bytes));
            let read = read.wait()?;
            self.request.progress.add(read.len());
            self.request.progress.go_on()?;
            let full_name = store.full_name(name);
            let kind = if part.is_some() { Kind::Pack } else { Kind::Segment };
            let opened = object::open_run(self.archive, &full_name, kind, read)?;
            let damaged = |fault| Error::damaged(&full_name, fault);
            if part.as_ref().is_some_and(|part| !is_known(part, &opened)) {
                return Err(damaged(FormatFault::Foreign));
            }
            let hits = hits_in(&opened, self.request.what).map_err(damaged)?;
            self.objects.insert(name.clone(), Found { kind, bytes: *bytes, hits });
        }
        Ok(())
    }

    /// The bases that have any of it, or share an object with it.
    pub(super) fn points(&mut self) -> Result<Vec<(ForgetPoint, Losses)>, Error> {
        let mut points = Vec::new();
        for entry in self.bases.clone() {
            let base = read_base(self.archive, &entry)?;
            let losses = self.losses(&base)?;
            if !losses.parts.is_empty() {
                let Losses { records, keys, .. } = losses;
                points.push((ForgetPoint { entry, records, keys }, losses));
            }
        }
        Ok(points)
    }

    /// All bases.
    pub(super) fn bases(&self) -> &[BaseEntry] {
        &self.bases
    }

    fn losses(&mut self, base: &Base) -> Result<Losses, Error> {
        let mut losses = Losses::default();
        let last = Backend::open(base.frame.as_slice())?.facts()?.last_record;
        let mut newest: HashMap<KeyHash, bool> = HashMap::new();
        for (place, part) in base.parts.iter().enumerate() {
            let hits = self.hits_of(part)?;
            for hit in hits.iter().filter(|hit| !part.dead.contains(hit.number)) {
                newest.insert(hit.name, hit.goes && !hit.key.tombstone);
                if hit.goes {
                    losses.records += 1;
                    losses.bytes += hit.bytes;
                    if last == Some(hit.key) {
                        losses.last = Some((place, hit.number));
                    }
                }
            }
            let going = hits.iter().filter(|hit| hit.goes).map(|hit| hit.number);
            let going: RoaringBitmap = going.collect();
            if !going.is_empty() {
                losses.parts.insert(place, going);
            }
        }
        losses.keys = newest.values().filter(|lost| **lost).count() as u64;
        Ok(losses)
    }

    /// What was found in a part of a base, with its numbers there.
    fn hits_of(&mut self, part: &Part) -> Result<Vec<Hit>, Error> {
        let erased = match part.what {
            PartKind::Pack { id, .. } => {
                let found = self.objects.get(&names::pack(part.timeline, id));
                return Ok(found.map_or_else(Vec::new, |found| found.hits.clone()));
            }
            PartKind::Log { erased, .. } => erased,
        };
        let range = (part.timeline, part.first, part.last, erased);
        if let Some(hits) = self.ranges.get(&range) {
            return Ok(hits.clone());
        }
        let (mut hits, mut numbers) = (Vec::new(), 0);
        for piece in pieces(&self.stock, part)? {
            let found = self.objects.get(&piece.segment.name);
            let in_piece = found.map_or(&[][..], |found| &found.hits);
            let is_hit = |key: RecordKey| in_piece.binary_search_by_key(&key, |hit| hit.key).ok();
            if in_piece.is_empty() && piece_is_whole(&piece) {
                // Only their number counts.
                numbers += run_of(self.archive, &piece)?.run.records();
                continue;
            }
            each_record(self.archive, &piece, |key, _| {
                if let Some(hit) = is_hit(key).and_then(|at| in_piece.get(at)) {
                    let number = u32::try_from(numbers).map_err(|_| Error::Panicked)?;
                    hits.push(Hit { number, ..*hit });
                }
                numbers += 1;
                Ok(())
            })?;
        }
        self.ranges.insert(range, hits.clone());
        Ok(hits)
    }
}

/// The segments of a range of the log.
pub(super) fn pieces<'s>(stock: &'s Stock, part: &Part) -> Result<Vec<Piece<'s>>, Error> {
    stock
        .cover(part)
        .map_err(|missing| Error::LogMissing { base: names::log(part.timeline), missing })
}

fn piece_is_whole(piece: &Piece<'_>) -> bool {
    (piece.from, piece.to) == (piece.segment.first, piece.segment.last)
}

fn run_of(archive: &Archive, piece: &Piece<'_>) -> Result<OpenedRun, Error> {
    let name = &piece.segment.name;
    let bytes = archive.store().read(name, piece.segment.bytes)?;
    object::open_run(archive, &archive.store().full_name(name), Kind::Segment, bytes)
}

/// Shows the records that are taken of a segment.
pub(super) fn each_record(
    archive: &Archive,
    piece: &Piece<'_>,
    mut show: impl FnMut(RecordKey, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let opened = run_of(archive, piece)?;
    let name = archive.store().full_name(&piece.segment.name);
    for (range, entry) in opened.run.blocks() {
        let mut records =
            opened.records(&range, entry).map_err(|fault| Error::damaged(&name, fault))?;
        while let Some(key) = records.advance() {
            if (piece.from..=piece.to).contains(&key.revision) {
                show(key, records.value())?;
            }
        }
    }
    Ok(())
}

fn hits_in(opened: &OpenedRun, what: &Forgotten) -> Result<Vec<Hit>, FormatFault> {
    let (mut hits, mut first) = (Vec::new(), 0);
    for (range, entry) in opened.run.blocks() {
        let may_hold = what.prefix || filter::may_hold(&entry.filter, KeyHash::of(&what.key));
        if may_hold {
            let mut records = opened.records(&range, entry)?;
            let mut number = first;
            while let Some(key) = records.advance() {
                let value = records.value();
                let kv = KeyValue::parse(value)
                    .map_err(|_| FormatFault::Senseless { what: "a record" })?;
                if what.is(kv.key) {
                    let goes = what.to.is_none_or(|to| key.revision <= to);
                    let (name, bytes) = (KeyHash::of(kv.key), value.len() as u64);
                    let number = u32::try_from(number)
                        .map_err(|_| FormatFault::Senseless { what: "the number of records" })?;
                    hits.push(Hit { number, key, name, bytes, goes });
                }
                number += 1;
            }
        }
        first += entry.records;
    }
    Ok(hits)
}
