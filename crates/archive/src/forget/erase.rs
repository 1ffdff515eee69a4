//! Writing packs, segments and bases anew, without what is to be erased.

use super::ForgetRequest;
use super::search::{Found, Losses, each_record, pieces};
use crate::archive::{Archive, BaseEntry, Stock};
use crate::error::Error;
use crate::format::base::{Base, Part, PartKind};
use crate::format::block;
use crate::format::header::{Facts, Moment};
use crate::format::segment::{self, Sections};
use crate::format::{DIGEST, FormatFault, Header, Kind, LogDigest, TimelineId, ValueDigests, run};
use crate::frame::Frame;
use crate::names;
use crate::object::{self, OpenedRun};
use crate::plan::cover::SegmentEntry;
use crate::read::read_base;
use crate::verify::proof::hash_of;
use crate::write::LEVEL;
use rekindle_etcd::{Backend, KeyValue, RecordKey};
use std::collections::BTreeMap;

/// A pack that was written anew.
struct NewPack {
    bytes: u64,
    what: PartKind,
}

/// One turn of erasing.
pub(super) struct Eraser<'a> {
    archive: &'a Archive,
    request: &'a ForgetRequest<'a>,
    /// By the names of the old ones.
    packs: BTreeMap<String, NewPack>,
    /// With the new segments.
    stock: Stock,
    /// What the new segments say.
    at: Moment,
    /// Of ranges of the log as they are now.
    digests: BTreeMap<(TimelineId, RecordKey, RecordKey), [u8; DIGEST]>,
}

impl<'a> Eraser<'a> {
    /// Writes these objects anew.
    pub(super) fn new(
        archive: &'a Archive,
        request: &'a ForgetRequest<'a>,
        objects: &BTreeMap<String, Found>,
    ) -> Result<Self, Error> {
        let timelines = archive.list()?.bases.into_iter().map(|it| it.header.facts.timeline);
        let stock = archive.stock(timelines)?;
        // Two at once write segments of which one takes the place of the other.
        let last = stock.segments().filter_map(|segment| segment.erased).max();
        let after = last.map_or(i64::MIN, |last| last.0.saturating_add(1));
        let at = Moment((request.now)().0.max(after));
        let (packs, digests) = (BTreeMap::new(), BTreeMap::new());
        let mut eraser = Self { archive, request, packs, stock, at, digests };
        for (name, found) in objects {
            request.progress.go_on()?;
            eraser.renew(name, found)?;
        }
        Ok(eraser)
    }

    fn renew(&mut self, name: &str, found: &Found) -> Result<(), Error> {
        let full_name = self.archive.store().full_name(name);
        let bytes = self.archive.store().read(name, found.bytes)?;
        self.request.progress.add(bytes.len());
        let opened = object::open_run(self.archive, &full_name, found.kind, bytes)?;
        let damaged = |fault| Error::damaged(&full_name, fault);
        let run = without(&opened, found).map_err(damaged)?;
        let raw = run.entries().iter().map(|entry| entry.raw as u64).sum();
        let (content, index_digest) = run.finish();
        let facts = Facts {
            id: object::random_id()?,
            ended: (self.request.now)(),
            logical_bytes: raw,
            ..opened.header.facts.clone()
        };
        match found.kind {
            Kind::Segment => self.create_segment(name, &facts, &opened.sections, &content),
            _ => self.create_pack(name, &facts, &content, index_digest),
        }
    }

    fn create_pack(
        &mut self,
        old: &str,
        facts: &Facts,
        content: &[u8],
        index_digest: [u8; DIGEST],
    ) -> Result<(), Error> {
        let built = object::build(self.archive, facts, content)?;
        let (id, body_digest, bytes) = (facts.id, built.body_digest, built.bytes.len() as u64);
        self.archive.store().create(&names::pack(facts.timeline, id), built.bytes)?;
        let what = PartKind::Pack { id, body_digest, index_digest };
        self.packs.insert(old.to_owned(), NewPack { bytes, what });
        Ok(())
    }

    fn create_segment(
        &mut self,
        old: &str,
        facts: &Facts,
        sections: &Sections,
        content: &[u8],
    ) -> Result<(), Error> {
        let erased = Some(self.at);
        let sections = Sections { erased, ..sections.clone() };
        let whole = [&segment::encode(&sections)[..], content].concat();
        let object = object::build(self.archive, facts, &whole)?.bytes;
        let (first, last, bytes) = (facts.first, facts.last, object.len() as u64);
        // Whatever was listed as a segment has such a name.
        let name = names::erased_segment(old, self.at, facts.id).ok_or(Error::Panicked)?;
        self.archive.store().create(&name, object)?;
        self.stock.add(facts.timeline, SegmentEntry { name, bytes, first, last, erased });
        Ok(())
    }

    /// Creates a base that stands for this one.
    pub(super) fn renew_base(&mut self, entry: &BaseEntry, losses: &Losses) -> Result<(), Error> {
        let Base { kubernetes, erased, mut parts, mut frame, .. } = read_base(self.archive, entry)?;
        for (place, numbers) in &losses.parts {
            let Some(part) = parts.get_mut(*place) else { continue };
            self.renew_part(part)?;
            part.dead |= numbers;
        }
        let mut gone = losses.records;
        if let Some((place, number)) = losses.last {
            // The revision is that of the last record: it stays, with nothing in it.
            if let Some(part) = parts.get_mut(place) {
                part.dead.remove(number);
            }
            gone -= 1;
            frame = with_empty_last_record(&frame)?;
        }
        let erased = erased.saturating_add(losses.records);
        let old = &entry.header.facts;
        let facts = Facts {
            id: object::random_id()?,
            records: old.records.saturating_sub(gone),
            keys: old.keys.saturating_sub(losses.keys),
            logical_bytes: old.logical_bytes.saturating_sub(losses.bytes),
            erased: erased > 0,
            ..old.clone()
        };
        let mut base = Base { hash: 0, kubernetes, erased, parts, frame };
        let name = names::base(facts.timeline, facts.last, facts.index, facts.id);
        let header = Header { facts: facts.clone(), ..entry.header.clone() };
        let entry = BaseEntry { name: name.clone(), bytes: 0, header };
        // All of it is read once more before the old one goes.
        base.hash = hash_of(self.archive, &entry, &base, self.request.progress)?;
        let full_name = self.archive.store().full_name(&name);
        let content = base.encode().map_err(|fault| Error::damaged(&full_name, fault))?;
        let object = object::build(self.archive, &facts, &content)?;
        Ok(self.archive.store().create(&name, object.bytes)?)
    }
    /// The part of a base is what was written anew.
    fn renew_part(&mut self, part: &mut Part) -> Result<(), Error> {
        if let PartKind::Pack { id, .. } = part.what {
            let old = names::pack(part.timeline, id);
            let pack = self.packs.get(&old).ok_or(Error::Panicked)?;
            (part.bytes, part.what) = (pack.bytes, pack.what);
            return Ok(());
        }
        part.what = PartKind::Log { digest: [0; DIGEST], erased: Some(self.at) };
        let range = (part.timeline, part.first, part.last);
        let digest = match self.digests.get(&range) {
            Some(digest) => *digest,
            None => self.digest_of(part)?,
        };
        self.digests.insert(range, digest);
        part.what = PartKind::Log { digest, erased: Some(self.at) };
        Ok(())
    }

    fn digest_of(&self, part: &Part) -> Result<[u8; DIGEST], Error> {
        let (mut log, digests) = (LogDigest::default(), ValueDigests::default());
        for piece in pieces(&self.stock, part)? {
            each_record(self.archive, &piece, |key, value| {
                log.add(key, &digests.of(value));
                Ok(())
            })?;
        }
        Ok(log.value())
    }
}

/// The run of an object, with what goes emptied. Blocks that have none of it stay as they are.
fn without(opened: &OpenedRun, found: &Found) -> Result<run::Builder, FormatFault> {
    let mut run = run::Builder::default();
    let mut going = found.hits.iter().filter(|hit| hit.goes).peekable();
    let mut first = 0;
    for (range, entry) in opened.run.blocks() {
        let end = first + entry.records;
        if going.peek().is_none_or(|hit| u64::from(hit.number) >= end) {
            let stored = opened.content.get(range).unwrap_or_default();
            run.add(stored, entry.clone());
            first = end;
            continue;
        }
        let mut records = opened.records(&range, entry)?;
        let mut block = block::Builder::default();
        while let Some(key) = records.advance() {
            let goes = going.next_if(|hit| hit.key == key).is_some();
            let value = if goes { &[][..] } else { records.value() };
            let kv = KeyValue::parse(value);
            let kv = kv.map_err(|_| FormatFault::Senseless { what: "a record" })?;
            block.add(key, value, kv.key)?;
        }
        // A block has a record at the least.
        let filled = block.take().ok_or(FormatFault::Ends { what: "a block" })?;
        let (stored, entry) = filled.compress(LEVEL)?;
        run.add(&stored, entry);
        first = end;
    }
    Ok(run)
}

fn with_empty_last_record(file: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut frame, page_size) = Frame::parse(file)?;
    let last = Backend::open(file)?.facts()?.last_record.ok_or(Error::Panicked)?;
    frame.set_last_record(&last.to_bytes(), &[]);
    frame.to_file(page_size)
}
