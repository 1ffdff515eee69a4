//! Finding records: in which packs and segments they lie, and which bases have them.

use super::{ForgetPoint, ForgetRequest, Forgotten};
use crate::archive::{Archive, BaseEntry, Stock};
use crate::error::Error;
use crate::format::base::{Base, Part, PartKind};
use crate::format::filter::{self, KeyHash};
use crate::format::{DIGEST, FormatFault, Kind, TimelineId};
use crate::object::{self, OpenedRun};
use crate::plan::cover::{Piece, SegmentEntry, superseded};
use crate::plan::verdict::Sight;
use crate::read::{is_known, read_base};
use crate::store::{Listed, StoreFaultKind};
use crate::verify::sight_of;
use crate::{names, prune};
use rekindle_etcd::{Backend, KeyValue, RecordKey};
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

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
    goes: bool,
}

/// What was found in a pack or a segment.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Of the object.
    pub bytes: u64,
    /// In their order.
    hits: Arc<[Hit]>,
    /// It is damaged, and no base needs it.
    pub is_unreadable: bool,
}

impl Found {
    pub(super) fn goes(&self) -> bool {
        self.is_unreadable || self.hits.iter().any(|hit| hit.goes)
    }
}

/// What a base loses.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    /// Of each part that has such records, or lies in a segment that has: its place, and their numbers
    /// in it.
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
pub(super) type Range = (TimelineId, RecordKey, RecordKey, [u8; DIGEST]);

/// The range that a part is, if it is one.
pub(super) fn range_of(part: &Part) -> Option<Range> {
    match part.what {
        PartKind::Pack { .. } => None,
        PartKind::Log { digest } => Some((part.timeline, part.first, part.last, digest)),
    }
}

/// The search.
pub(super) struct Search<'a> {
    archive: &'a Archive,
    request: &'a ForgetRequest<'a>,
    bases: Vec<BaseEntry>,
    stock: Stock,
    /// What a prune takes because it has what was erased.
    waiting: BTreeSet<String>,
    /// Packs and segments that bases need.
    needed: BTreeSet<String>,
    /// What bases say of those packs.
    packs: BTreeMap<String, Part>,
    pub objects: BTreeMap<String, Found>,
    /// What was found in ranges of the log: many bases name the same.
    ranges: BTreeMap<Range, Arc<[Hit]>>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        archive: &'a Archive,
        request: &'a ForgetRequest<'a>,
        bases: Vec<BaseEntry>,
    ) -> Result<Self, Error> {
        let waiting = prune::erased_objects(archive)?;
        let stock = Stock::of(archive.store().list(names::TIMELINES)?);
        let (mut needed, mut packs) = (BTreeSet::new(), BTreeMap::new());
        for entry in &bases {
            let base = read_base(archive, entry)?;
            needed.append(&mut prune::needs_of(&base, &stock));
            for part in base.parts {
                if let PartKind::Pack { id, .. } = part.what {
                    let name = names::pack(part.timeline, id);
                    packs.entry(name).or_insert(Part { dead: RoaringBitmap::new(), ..part });
                }
            }
        }
        let (objects, ranges) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { archive, request, bases, stock, waiting, needed, packs, objects, ranges })
    }

    /// Looks through all packs and segments, but for those that wait already for a prune to take them
    /// because they have such records.
    pub(super) fn look_through(&mut self) -> Result<(), Error> {
        let packs = self.stock.packs.iter().map(|(name, bytes)| (name.clone(), *bytes));
        let segments = self.stock.segments().map(|it| (it.name.clone(), it.bytes));
        let all: Vec<_> = packs
            .chain(segments)
            .filter(|(name, _)| !self.waiting.contains(name) || self.needed.contains(name))
            .map(|(name, bytes)| Listed { name, bytes })
            .collect();
        let store = self.archive.store();
        let mut coming = None;
        let mut objects = all.iter().peekable();
        while let Some(Listed { name, bytes }) = objects.next() {
            let read = coming.take().unwrap_or_else(|| store.read_later(name, *bytes));
            // The next one comes while this one is looked through.
            coming = objects.peek().map(|next| store.read_later(&next.name, next.bytes));
            self.request.progress.go_on()?;
            let hits = read.wait().map_err(Error::from).and_then(|read| self.hits_in(name, read));
            let (hits, is_unreadable) = match hits {
                Ok(hits) => (hits, false),
                Err(error) if self.needed.contains(name) => return Err(error),
                Err(Error::Store(fault)) if fault.kind == StoreFaultKind::NotFound => continue,
                Err(Error::Store(fault)) => return Err(fault.into()),
                // What is not at hand to open it with, or what a later version has written, is good.
                Err(error) => match sight_of(Err(error))? {
                    Sight::Bad(_) => (Vec::new(), true),
                    _ => continue,
                },
            };
            let found = Found { bytes: *bytes, hits: hits.into(), is_unreadable };
            self.objects.insert(name.clone(), found);
        }
        Ok(())
    }

    /// Segments that have any of it, and for which no merged one stands.
    pub(super) fn segments(&self) -> Vec<(TimelineId, SegmentEntry)> {
        let goes = |it: &SegmentEntry| {
            self.objects.get(&it.name).is_some_and(|it| it.goes() && !it.is_unreadable)
        };
        // One that is damaged, or waits for a prune, stands for none.
        let stays = |it: &&SegmentEntry| {
            let found = self.objects.get(&it.name);
            found.is_some_and(|it| !it.is_unreadable) && !self.waiting.contains(&it.name)
        };
        let of_timeline = |timeline| {
            let log: Vec<_> = self.stock.log(timeline).iter().filter(stays).cloned().collect();
            let merged: BTreeSet<_> =
                superseded(&log).into_iter().map(|it| it.0.name.clone()).collect();
            let own = log.iter().filter(|it| goes(it) && !merged.contains(&it.name)).cloned();
            own.map(|segment| (timeline, segment)).collect::<Vec<_>>()
        };
        self.stock.timelines().flat_map(of_timeline).collect()
    }

    fn hits_in(&self, name: &str, bytes: bytes::Bytes) -> Result<Vec<Hit>, Error> {
        self.request.progress.add(bytes.len());
        let full_name = self.archive.store().full_name(name);
        let kind = if name.ends_with(".pack") { Kind::Pack } else { Kind::Segment };
        let opened = object::open_run(self.archive, &full_name, kind, bytes)?;
        let damaged = |fault| Error::damaged(&full_name, fault);
        if self.packs.get(name).is_some_and(|part| !is_known(part, &opened)) {
            return Err(damaged(FormatFault::Foreign));
        }
        hits_in(&opened, self.request.what).map_err(damaged)
    }

    /// The bases that have any of it, or share an object with it.
    pub(super) fn points(&mut self) -> Result<Vec<(ForgetPoint, Losses)>, Error> {
        let mut points = Vec::new();
        for entry in self.bases.clone() {
            let base = read_base(self.archive, &entry)?;
            let losses = self.losses(&entry, &base)?;
            if !losses.parts.is_empty() {
                let Losses { records, keys, .. } = losses;
                points.push((ForgetPoint { entry, records, keys }, losses));
            }
        }
        Ok(points)
    }

    fn losses(&mut self, entry: &BaseEntry, base: &Base) -> Result<Losses, Error> {
        let mut losses = Losses::default();
        let last = Backend::open(base.frame.as_slice())?.facts()?.last_record;
        let mut newest: HashMap<KeyHash, bool> = HashMap::new();
        for (place, part) in base.parts.iter().enumerate() {
            let hits = self.hits_of(entry, part)?;
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
            if !going.is_empty() || self.lies_in_what_goes(part) {
                losses.parts.insert(place, going);
            }
        }
        losses.keys = newest.values().filter(|lost| **lost).count() as u64;
        Ok(losses)
    }

    /// A segment goes as a whole, whatever part of it a base needs.
    fn lies_in_what_goes(&self, part: &Part) -> bool {
        let goes = |name: &String| self.objects.get(name).is_some_and(Found::goes);
        match part.what {
            PartKind::Pack { id, .. } => goes(&names::pack(part.timeline, id)),
            PartKind::Log { .. } => self.stock.touching(part).any(|segment| goes(&segment.name)),
        }
    }

    /// What was found in a part of a base, with its numbers there.
    fn hits_of(&mut self, entry: &BaseEntry, part: &Part) -> Result<Arc<[Hit]>, Error> {
        let Some(range) = range_of(part) else {
            let PartKind::Pack { id, .. } = part.what else { return Ok(Arc::default()) };
            let found = self.objects.get(&names::pack(part.timeline, id));
            return Ok(found.map_or_else(Arc::default, |found| Arc::clone(&found.hits)));
        };
        if let Some(hits) = self.ranges.get(&range) {
            return Ok(Arc::clone(hits));
        }
        let mut hits = Vec::new();
        if self.lies_in_what_goes(part) || self.has_any(part) {
            let mut number = 0_u32;
            for piece in pieces(self.archive, &self.stock, entry, part)? {
                let found = self.objects.get(&piece.segment.name);
                let in_piece = found.map_or(&[][..], |found| &found.hits);
                let opened = open_piece(self.archive, &piece)?;
                each_record(self.archive, &piece, &opened, |key, _| {
                    if let Ok(at) = in_piece.binary_search_by_key(&key, |hit| hit.key)
                        && let Some(hit) = in_piece.get(at)
                    {
                        hits.push(Hit { number, ..*hit });
                    }
                    number = number.checked_add(1).ok_or(Error::Panicked)?;
                    Ok(())
                })?;
            }
        }
        let hits: Arc<[Hit]> = hits.into();
        self.ranges.insert(range, Arc::clone(&hits));
        Ok(hits)
    }

    /// Whether a range of the log may have later versions of such keys.
    fn has_any(&self, part: &Part) -> bool {
        let has_any = |name: &String| self.objects.get(name).is_some_and(|it| !it.hits.is_empty());
        self.stock.touching(part).any(|segment| has_any(&segment.name))
    }
}

/// The segments of a range of the log.
pub(super) fn pieces<'s>(
    archive: &Archive,
    stock: &'s Stock,
    entry: &BaseEntry,
    part: &Part,
) -> Result<Vec<Piece<'s>>, Error> {
    stock.cover(part).map_err(|missing| Error::LogMissing {
        base: archive.store().full_name(&entry.name),
        missing,
    })
}

/// Reads the segment of a piece.
pub(super) fn open_piece(archive: &Archive, piece: &Piece<'_>) -> Result<OpenedRun, Error> {
    object::read_segment(archive, &piece.segment.name, piece.segment.bytes)
}

/// Shows the records that are taken of a segment.
pub(super) fn each_record(
    archive: &Archive,
    piece: &Piece<'_>,
    opened: &OpenedRun,
    mut show: impl FnMut(RecordKey, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let name = archive.store().full_name(&piece.segment.name);
    let mut records = opened.within(piece.from, piece.to);
    while let Some(key) = records.advance().map_err(|fault| Error::damaged(&name, fault))? {
        show(key, records.value())?;
    }
    Ok(())
}

fn hits_in(opened: &OpenedRun, what: &Forgotten) -> Result<Vec<Hit>, FormatFault> {
    let (mut hits, mut first) = (Vec::new(), 0);
    for (range, entry) in opened.run.blocks() {
        if what.prefix || filter::may_hold(&entry.filter, KeyHash::of(&what.key)) {
            let mut records = opened.records(&range, entry)?;
            let mut number = first;
            while let Some(key) = records.advance() {
                let value = records.value();
                let kv = KeyValue::parse(value)
                    .map_err(|_| FormatFault::Senseless { what: "a record" })?;
                if what.is(kv.key) {
                    let goes = what.takes(kv.key, key.revision);
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
