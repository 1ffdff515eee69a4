//! Writing packs and bases anew, without what is to be erased.

use super::expect::expected;
use super::search::{Losses, Range, each_record, open_piece, pieces, range_of};
use super::{ForgetRequest, Forgotten};
use crate::archive::{Archive, BaseEntry, Stock};
use crate::error::Error;
use crate::format::base::{Base, Part, PartKind};
use crate::format::block::{self, Packing};
use crate::format::header::{Facts, Moment};
use crate::format::{FormatFault, Header, Kind, LogDigest, TimelineId, ValueDigests, run, segment};
use crate::frame::Frame;
use crate::names::{self, SegmentName};
use crate::object::{self, OpenedRun};
use crate::plan::cover::SegmentEntry;
use crate::read::{is_known, read_base};
use crate::store::StoreFaultKind;
use crate::verify::proof::hash_of;
use crate::write::{PACK_TARGET, TIME_MAX, missing};
use rekindle_etcd::{Backend, KeyValue, RecordKey};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;

/// What was written so long ago, in milliseconds, is written once more for another base: that takes its
/// time, too.
const REUSE_MAX: i64 = TIME_MAX / 2;

/// Writes bases anew. What several of them share is written once.
pub(super) struct Eraser<'a> {
    archive: &'a Archive,
    request: &'a ForgetRequest<'a>,
    /// What has become of packs, by the names of the old ones.
    packs: BTreeMap<String, Written>,
    /// What has become of ranges of the log.
    ranges: BTreeMap<Range, Written>,
    /// How many packs were written.
    pub written: usize,
    /// How many segments were.
    pub segments: usize,
}

/// Packs that were written in place of a part, in their order.
#[derive(Clone)]
struct Written {
    packs: Vec<Part>,
    /// When the first of them was begun: what no base names goes some time.
    began: Moment,
}

/// What came of a base.
pub(super) enum Renewed {
    /// Another one stands for it, and this one was there still afterwards.
    Made {
        /// What it is.
        old: Base,
    },
    /// It is not there any more, and nothing was made of it.
    Gone,
}

impl<'a> Eraser<'a> {
    pub(super) fn new(archive: &'a Archive, request: &'a ForgetRequest<'a>) -> Self {
        let (packs, ranges) = (BTreeMap::new(), BTreeMap::new());
        Self { archive, request, packs, ranges, written: 0, segments: 0 }
    }

    /// Creates a base that stands for this one, which must be what it says.
    pub(super) fn renew_base(
        &mut self,
        entry: &BaseEntry,
        losses: &Losses,
        stock: &Stock,
    ) -> Result<Renewed, Error> {
        if !self.is_there(&entry.name)? {
            return Ok(Renewed::Gone);
        }
        let old = read_base(self.archive, entry)?;
        let expected = expected(self.archive, entry, &old, self.request)?;
        if (expected.now, expected.records) != (old.hash, losses.records) {
            let what = "the keyspace that it brings back";
            let full_name = self.archive.store().full_name(&entry.name);
            return Err(Error::damaged(&full_name, FormatFault::Digest { what }));
        }
        let (mut parts, mut began) = (Vec::new(), (self.request.now)());
        for (place, part) in old.parts.iter().enumerate() {
            let Some(numbers) = losses.parts.get(&place) else {
                parts.push(part.clone());
                continue;
            };
            let mut dead = &part.dead | numbers;
            if let Some((_, number)) = losses.last.filter(|(last, _)| *last == place) {
                // The revision is that of the last record: it stays, with nothing in it.
                dead.remove(number);
            }
            let written = self.renewed(entry, part, stock)?;
            began = began.min(written.began);
            parts.append(&mut split(written.packs, &dead));
        }
        parts.retain(|part| part.living() > 0);
        let frame = match losses.last {
            Some(_) => with_empty_last_record(&old.frame)?,
            None => old.frame.clone(),
        };
        let gone = losses.records - u64::from(losses.last.is_some());
        let erased = old.erased.saturating_add(losses.records);
        let facts = &entry.header.facts;
        let facts = Facts {
            id: object::random_id()?,
            records: facts.records.saturating_sub(gone),
            keys: facts.keys.saturating_sub(losses.keys),
            logical_bytes: facts.logical_bytes.saturating_sub(losses.bytes),
            erased: erased > 0,
            ..facts.clone()
        };
        let base = Base { hash: expected.then, kubernetes: old.kubernetes, erased, parts, frame };
        match self.publish(facts, &base, entry, began)? {
            true => Ok(Renewed::Made { old }),
            false => Ok(Renewed::Gone),
        }
    }

    /// Creates a base, all of which is read once more before. Tells whether it stays: the old one was
    /// there still.
    fn publish(
        &self,
        facts: Facts,
        base: &Base,
        old: &BaseEntry,
        began: Moment,
    ) -> Result<bool, Error> {
        let (archive, store) = (self.archive, self.archive.store());
        let name = names::base(facts.timeline, facts.last, facts.index, facts.id);
        let header = Header { facts: facts.clone(), ..old.header.clone() };
        let entry = BaseEntry { name: name.clone(), bytes: 0, header };
        let damaged = |fault| Error::damaged(&store.full_name(&name), fault);
        if hash_of(archive, &entry, base, self.request.progress)? != base.hash {
            return Err(damaged(FormatFault::Digest { what: "the keyspace that it brings back" }));
        }
        let content = base.encode().map_err(damaged)?;
        let object = object::build(archive, &facts, &content)?;
        if self.age(began) > TIME_MAX {
            // A prune may have taken what was written first.
            return Err(Error::TooLate);
        }
        if store.locks() {
            archive.lock_for_longer(&base.parts, |_| true)?;
        }
        let created = (self.request.now)();
        store.create(&name, object.bytes)?;
        if let Some(object) = missing(archive, &base.parts)? {
            store.remove(&name)?;
            return Err(Error::Vanished { object });
        }
        // Who has replaced the old one before this was there will not look at this any more.
        if self.is_there(&old.name)? {
            return Ok(true);
        }
        if self.age(created) > TIME_MAX {
            // A prune may have taken another one for this one, as they were the same.
            return Err(Error::TooLate);
        }
        store.remove(&name)?;
        Ok(false)
    }

    fn age(&self, at: Moment) -> i64 {
        (self.request.now)().0.saturating_sub(at.0)
    }

    fn is_there(&self, name: &str) -> Result<bool, Error> {
        match self.archive.store().modified(name) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound => Ok(false),
            seen => Ok(seen.map(|_| true)?),
        }
    }

    /// What a part becomes, with nobody dead in it yet.
    fn renewed(&mut self, entry: &BaseEntry, part: &Part, stock: &Stock) -> Result<Written, Error> {
        self.request.progress.go_on()?;
        let began = (self.request.now)();
        let is_young = |written: &&Written| self.age(written.began) <= REUSE_MAX;
        if let PartKind::Pack { id, .. } = part.what {
            let name = names::pack(part.timeline, id);
            if let Some(known) = self.packs.get(&name).filter(is_young) {
                return Ok(known.clone());
            }
            let written = Written { packs: vec![self.renew_pack(&name, part)?], began };
            self.written += 1;
            self.packs.insert(name, written.clone());
            return Ok(written);
        }
        let range = range_of(part);
        if let Some(known) =
            range.as_ref().and_then(|range| self.ranges.get(range)).filter(is_young)
        {
            return Ok(known.clone());
        }
        let written = Written { packs: self.pack_range(entry, part, stock)?, began };
        self.written += written.packs.len();
        self.ranges.extend(range.map(|range| (range, written.clone())));
        Ok(written)
    }

    /// Writes a segment anew: what is behind the newest base, and what bases are derived from, stays.
    pub(super) fn renew_segment(
        &mut self,
        timeline: TimelineId,
        segment: &SegmentEntry,
    ) -> Result<(), Error> {
        let (archive, store) = (self.archive, self.archive.store());
        self.request.progress.go_on()?;
        let name = store.full_name(&segment.name);
        let bytes = match store.read(&segment.name, segment.bytes) {
            // Somebody else has done it, and a prune has come by; a store that is wrong once must not be believed:
            // the segment is said to go next.
            Err(fault) if fault.kind == StoreFaultKind::NotFound => {
                let listed = store.list(&names::log(timeline))?;
                return match listed.iter().any(|it| it.name == segment.name) {
                    true => Err(fault.into()),
                    false => Ok(()),
                };
            }
            read => read?,
        };
        let opened = object::open_run(archive, &name, Kind::Segment, bytes)?;
        let run = without(&opened, self.request.what).map_err(|it| Error::damaged(&name, it))?;
        let facts = Facts {
            id: object::random_id()?,
            logical_bytes: run.entries().iter().map(|entry| entry.raw as u64).sum(),
            erased: true,
            ..opened.header.facts.clone()
        };
        let mut content = segment::encode(&opened.notes);
        content.extend_from_slice(&run.finish().0);
        let object = object::build(archive, &facts, &content)?;
        let SegmentEntry { epoch, first, last, .. } = *segment;
        let own = SegmentName { level: names::REDACTED, epoch, first, last };
        store.create(&names::segment(timeline, own, facts.id), object.bytes)?;
        self.segments += 1;
        Ok(())
    }

    fn renew_pack(&self, name: &str, part: &Part) -> Result<Part, Error> {
        let full_name = self.archive.store().full_name(name);
        let bytes = self.archive.store().read(name, part.bytes)?;
        self.request.progress.add(bytes.len());
        let opened = object::open_run(self.archive, &full_name, Kind::Pack, bytes)?;
        if !is_known(part, &opened) {
            return Err(Error::damaged(&full_name, FormatFault::Foreign));
        }
        let run = without(&opened, self.request.what);
        let run = run.map_err(|fault| Error::damaged(&full_name, fault))?;
        self.create_pack(run, &opened.header.facts)
    }

    /// Packs of the records of a range of the log.
    fn pack_range(
        &self,
        entry: &BaseEntry,
        part: &Part,
        stock: &Stock,
    ) -> Result<Vec<Part>, Error> {
        let (mut log, digests) = (LogDigest::default(), ValueDigests::default());
        let (mut packs, mut filling) = (Vec::new(), Filling::default());
        let mut facts = None;
        for piece in pieces(self.archive, stock, entry, part)? {
            let opened = open_piece(self.archive, &piece)?;
            let facts = facts.get_or_insert_with(|| opened.header.facts.clone());
            each_record(self.archive, &piece, &opened, |key, value| {
                log.add(key, &digests.of(value));
                let full = filling.add(key, value, self.request.what);
                let full =
                    full.map_err(|fault| Error::Record { record: key.to_string(), fault })?;
                if let Some(run) = full {
                    packs.push(self.create_pack(run, facts)?);
                }
                Ok(())
            })?;
        }
        let rest = filling.finish();
        let rest = rest.map_err(|fault| Error::Record { record: part.last.to_string(), fault })?;
        if let Some((run, facts)) = rest.zip(facts.as_ref()) {
            packs.push(self.create_pack(run, facts)?);
        }
        match part.what {
            PartKind::Log { digest } if digest == log.value() => Ok(packs),
            _ => {
                let (first, last) = (part.first.revision, part.last.revision);
                let base = self.archive.store().full_name(&entry.name);
                Err(Error::Log { base, first, last })
            }
        }
    }

    /// Creates a pack of a run that has a record at the least; `like` says whose records they are.
    fn create_pack(&self, run: run::Builder, like: &Facts) -> Result<Part, Error> {
        let entries = run.entries();
        let first = entries.first().map(|entry| entry.first);
        let span = first.zip(entries.last().map(|entry| entry.last));
        let (first, last) = span.ok_or(Error::Panicked)?;
        let records = entries.iter().map(|entry| entry.records).sum();
        let logical_bytes = entries.iter().map(|entry| entry.raw as u64).sum();
        let (content, index_digest) = run.finish();
        let facts = Facts {
            kind: Kind::Pack,
            id: object::random_id()?,
            first: first.revision,
            last: last.revision,
            ended: (self.request.now)(),
            records,
            logical_bytes,
            ..like.clone()
        };
        let built = object::build(self.archive, &facts, &content)?;
        let (id, body_digest, bytes) = (facts.id, built.body_digest, built.bytes.len() as u64);
        self.archive.store().create(&names::pack(facts.timeline, id), built.bytes)?;
        Ok(Part {
            timeline: facts.timeline,
            first,
            last,
            records,
            bytes,
            dead: RoaringBitmap::new(),
            what: PartKind::Pack { id, body_digest, index_digest },
        })
    }
}

/// Packs that stand for one part, with those dead that are dead in it.
fn split(mut packs: Vec<Part>, dead: &RoaringBitmap) -> Vec<Part> {
    let mut before = 0;
    for pack in &mut packs {
        let end = before + pack.records;
        let own = dead.iter().map(u64::from).filter(|number| (before..end).contains(number));
        pack.dead = own.filter_map(|number| u32::try_from(number - before).ok()).collect();
        before = end;
    }
    packs
}

/// Adds a record as it is from now on.
fn add(
    block: &mut block::Builder,
    key: RecordKey,
    value: &[u8],
    what: &Forgotten,
) -> Result<(), FormatFault> {
    let kv = KeyValue::parse(value).map_err(|_| FormatFault::Senseless { what: "a record" })?;
    match what.takes(kv.key, key.revision) {
        true => block.add(key, &[], &[]),
        false => block.add(key, value, kv.key),
    }
}

/// The run of a pack, with what goes emptied.
fn without(opened: &OpenedRun, what: &Forgotten) -> Result<run::Builder, FormatFault> {
    let mut run = run::Builder::default();
    for (range, entry) in opened.run.blocks() {
        let mut records = opened.records(&range, entry)?;
        let mut block = block::Builder::default();
        while let Some(key) = records.advance() {
            add(&mut block, key, records.value(), what)?;
        }
        // A block has a record at the least.
        let filled = block.take().ok_or(FormatFault::Ends { what: "a block" })?;
        let (stored, entry) = filled.compress(Packing::DENSE)?;
        run.add(&stored, entry);
    }
    Ok(run)
}

/// A pack that is being filled.
#[derive(Default)]
struct Filling {
    run: run::Builder,
    block: block::Builder,
}

impl Filling {
    /// Adds a record; tells the run before it, where that is enough for a pack.
    fn add(
        &mut self,
        key: RecordKey,
        value: &[u8],
        what: &Forgotten,
    ) -> Result<Option<run::Builder>, FormatFault> {
        let mut full = None;
        if self.block.is_full_before(value.len(), Packing::QUICK) {
            self.end_block()?;
            if self.run.bytes() >= PACK_TARGET {
                full = Some(std::mem::take(&mut self.run));
            }
        }
        add(&mut self.block, key, value, what)?;
        Ok(full)
    }

    fn end_block(&mut self) -> Result<(), FormatFault> {
        if let Some(filled) = self.block.take() {
            let (stored, entry) = filled.compress(Packing::QUICK)?;
            self.run.add(&stored, entry);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Option<run::Builder>, FormatFault> {
        self.end_block()?;
        Ok(Some(self.run).filter(|run| !run.entries().is_empty()))
    }
}

fn with_empty_last_record(file: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut frame, page_size) = Frame::parse(file)?;
    let last = Backend::open(file)?.facts()?.last_record.ok_or(Error::Panicked)?;
    frame.set_last_record(&last.to_bytes(), &[]);
    frame.to_file(page_size)
}
