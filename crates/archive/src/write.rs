//! A base of a snapshot.
//!
//! One thread walks the snapshot in the order of its records, some compress blocks, one puts them
//! into packs and sends these off. The base itself comes last: what it names is there by then.

use crate::archive::{Archive, BaseEntry, TimelineOrigin};
use crate::error::Error;
use crate::format::base::{Base, FRAME_MAX, PackUse};
use crate::format::block::{self, Entry, Filled};
use crate::format::header::{Facts, Moment};
use crate::format::{FormatFault, Kind, TimelineId, run};
use crate::store::Pending;
use crate::{names, object};
use rekindle_bolt::{BulkWriter, Damage, Halt, Layout, Pair, Part, ReadAt, Visit, check};
use rekindle_etcd::{
    Backend, ClusterId, HashRequest, MemberId, RaftIndex, RaftTerm, RecordDamage, RecordFault,
    RecordKey, Revision, read_record, schema,
};
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// A pack is closed when its blocks have so many bytes: few enough to be held in memory while they
/// are read, and so many that a restore makes few requests.
const PACK_TARGET: usize = 16 << 20;
/// zstd's level: the fastest, until it is chosen by measurement on real objects.
const LEVEL: i32 = 1;
/// Threads that compress.
const COMPRESSORS: usize = 2;
/// Blocks that wait between threads.
const WAITING: usize = 4;
/// Packs that are on their way to the store at once.
const SENDING: usize = 2;

/// What a snapshot does not say of itself.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The cluster that it is of.
    pub cluster: ClusterId,
    /// The member that gave it.
    pub member: MemberId,
    /// That member's version.
    pub etcd: String,
    /// Keys that live in it, if they were counted.
    pub live_keys: Option<u64>,
    /// When the first bytes of the snapshot had come: its state is of then or before.
    pub state: Moment,
}

/// What is told of the making of a base, and what it listens to.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Bytes of the records that were walked over.
    pub walked: &'a AtomicU64,
    /// Set to end it.
    pub stop: &'a AtomicBool,
}

/// A base that was written.
#[derive(Clone, Debug)]
pub struct BaseWritten {
    /// Its object.
    pub name: String,
    /// What its header says.
    pub facts: Facts,
    /// Packs that were written.
    pub packs: usize,
    /// Its timeline went on from an earlier base.
    pub goes_on: bool,
}

/// A base whose packs are written. It becomes one when it is published; dropped before, it takes its
/// packs away again.
pub struct PreparedBase<'a> {
    archive: &'a Archive,
    facts: Facts,
    base: Base,
    goes_on: bool,
    published: bool,
}

/// Writes what `backend` holds into packs of their own, and prepares a base of them. `now` is the
/// clock.
///
/// # Errors
/// [`Error`]; nothing that was written is part of a base then.
pub fn prepare_base<'a, S: ReadAt>(
    archive: &'a Archive,
    backend: &Backend<S>,
    origin: &Origin,
    now: &(dyn Fn() -> Moment + Sync),
    progress: &Progress<'_>,
) -> Result<PreparedBase<'a>, Error> {
    let facts = backend.facts()?;
    let hash = backend.hash_kv(&HashRequest::default())?.hash;
    let (timeline, goes_on) =
        timeline(archive, origin, (facts.term, facts.consistent_index), now())?;
    let etcd = origin.etcd.chars().filter(char::is_ascii_graphic).take(ETCD_MAX).collect();
    let mut facts = Facts {
        kind: Kind::Pack,
        archive: archive.id(),
        timeline,
        id: object::random_id()?,
        first: Revision::default(),
        last: facts.revision(),
        compact: facts.compaction.revision(),
        term: facts.term.unwrap_or_default(),
        index: facts.consistent_index.unwrap_or_default(),
        state: origin.state,
        ended: Moment::default(),
        records: 0,
        keys: 0,
        logical_bytes: 0,
        new_bytes: 0,
        cluster: origin.cluster,
        member: origin.member,
        etcd,
    };
    let (packed, small) = write_packs(archive, backend, &facts, now, progress)?;
    let (hash, kubernetes, packs) = (hash, small.kubernetes, packed.packs);
    let base = Base { hash, kubernetes, packs, frame: Vec::new() };
    facts.kind = Kind::Base;
    facts.first = base.packs.first().map_or(facts.last, |pack| pack.first.revision);
    facts.records = small.records;
    facts.keys = origin.live_keys.unwrap_or_default();
    facts.logical_bytes = packed.logical_bytes;
    facts.new_bytes = base.packs.iter().map(|pack| pack.bytes).sum();
    let mut prepared = PreparedBase { archive, facts, base, goes_on, published: false };
    if prepared.base.living() != Some(small.records) {
        return Err(Error::Panicked);
    }
    prepared.base.frame = small.frame(backend.db().page_size())?;
    Ok(prepared)
}

impl PreparedBase<'_> {
    /// Creates the base.
    ///
    /// # Errors
    /// [`Error`]; there is no base then.
    pub fn publish(mut self, now: Moment) -> Result<BaseWritten, Error> {
        self.facts.ended = now;
        let facts = &self.facts;
        let name = names::base(facts.timeline, facts.last, facts.index, facts.id);
        let content = self.base.encode().map_err(|fault| Error::damaged(&name, fault))?;
        let object = object::build(self.archive, facts, &content)?;
        let created = self.archive.store().create(&name, object.bytes);
        // After a fault that says nothing of it, it may be there after all, and needs its packs.
        self.published = match &created {
            Ok(()) => true,
            Err(fault) => fault.may_be_done(),
        };
        created?;
        let (facts, packs) = (self.facts.clone(), self.base.packs.len());
        Ok(BaseWritten { name, facts, packs, goes_on: self.goes_on })
    }
}

impl Drop for PreparedBase<'_> {
    fn drop(&mut self) {
        if !self.published {
            remove_packs(self.archive, &self.base.packs);
        }
    }
}

/// Takes away packs that no base names. What cannot be removed is collected later.
fn remove_packs(archive: &Archive, packs: &[PackUse]) {
    for pack in packs {
        let _ = archive.store().remove(&names::pack(pack.timeline, pack.id));
    }
}

/// Most bytes of a version that a header holds.
const ETCD_MAX: usize = 16;

/// The timeline that a snapshot belongs to: that of the cluster's newest base, unless the cluster
/// went back behind it, as one that was restored has. Bases that were being made at the same time
/// say nothing of that, nor does a position that is not known.
fn timeline(
    archive: &Archive,
    origin: &Origin,
    position: (Option<RaftTerm>, Option<RaftIndex>),
    now: Moment,
) -> Result<(TimelineId, bool), Error> {
    let mut listing = archive.list()?;
    if let Some(unreadable) = listing.unreadable.pop() {
        return Err(unreadable);
    }
    let of_cluster = |base: &&BaseEntry| base.header.facts.cluster == origin.cluster;
    let mut newest_first = listing.bases.iter().rev().filter(of_cluster);
    let newest = newest_first.clone().next();
    let before = newest_first.find(|base| base.header.facts.ended < origin.state);
    let went_back = before.is_some_and(|base| {
        let there = (base.header.facts.term, base.header.facts.index);
        matches!(position, (Some(term), Some(index)) if (term, index) < there)
    });
    let began = match newest.map(|base| base.header.facts.timeline) {
        Some(newest) if !went_back => return Ok((newest, true)),
        Some(newest) => TimelineOrigin {
            parent: Some(newest),
            fork: position.1.unwrap_or_default().0,
            reason: "the cluster went back behind the newest base: it was restored",
        },
        None => TimelineOrigin { parent: None, fork: 0, reason: "the first base of the cluster" },
    };
    Ok((archive.timeline(origin.cluster, began, now)?, false))
}

/// Writes all records of the snapshot into packs, and keeps the small buckets.
fn write_packs<S: ReadAt>(
    archive: &Archive,
    backend: &Backend<S>,
    facts: &Facts,
    now: &(dyn Fn() -> Moment + Sync),
    progress: &Progress<'_>,
) -> Result<(Packed, Small), Error> {
    std::thread::scope(|threads| {
        let (to_compress, filled) = sync_channel(WAITING);
        let (to_pack, compressed) = sync_channel(WAITING);
        // Only the compressors hold it: when they are gone, the walk cannot wait for them.
        let filled = Arc::new(Mutex::new(filled));
        for _ in 0..COMPRESSORS {
            let (filled, to_pack) = (Arc::clone(&filled), to_pack.clone());
            threads.spawn(move || compress(&filled, &to_pack));
        }
        drop((filled, to_pack));
        let packer = Packer::new(archive, facts, now);
        let packer = threads.spawn(move || packer.run(&compressed));
        let mut walk = Walk::new(&to_compress, progress);
        let walked = walk.run(backend);
        let small = walk.small;
        drop(to_compress);
        let packed = packer.join().unwrap_or(Err(Error::Panicked));
        // A packer that has failed has ended the walk, too: what it says comes first.
        match (packed, walked) {
            (Err(error), _) => Err(error),
            (Ok(packed), Err(error)) => {
                remove_packs(archive, &packed.packs);
                Err(error)
            }
            (Ok(packed), Ok(())) => Ok((packed, small)),
        }
    })
}

/// A block and its place among all.
type Numbered<T> = (u64, T);
/// A block as it is stored, and what the index says of it.
type Compressed = Result<(Vec<u8>, Entry), FormatFault>;
/// Keys and values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn compress(
    filled: &Mutex<Receiver<Numbered<Filled>>>,
    to_pack: &SyncSender<Numbered<Compressed>>,
) {
    loop {
        let next = filled.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, block)) = next else { return };
        if to_pack.send((number, block.compress(LEVEL))).is_err() {
            return;
        }
    }
}

/// The walk over a snapshot: records go into blocks, the rest is kept.
struct Walk<'a> {
    to_compress: &'a SyncSender<Numbered<Filled>>,
    progress: &'a Progress<'a>,
    block: block::Builder,
    blocks: u64,
    bucket: Vec<u8>,
    small: Small,
}

/// All buckets but the records.
#[derive(Default)]
struct Small {
    buckets: BTreeMap<Vec<u8>, Pairs>,
    bytes: usize,
    kubernetes: bool,
    /// Records that were walked over.
    records: u64,
}

impl<'a> Walk<'a> {
    fn new(to_compress: &'a SyncSender<Numbered<Filled>>, progress: &'a Progress<'a>) -> Self {
        let (block, small) = (block::Builder::default(), Small::default());
        Self { to_compress, progress, block, blocks: 0, bucket: Vec::new(), small }
    }

    fn run<S: ReadAt>(&mut self, backend: &Backend<S>) -> Result<(), Error> {
        check(backend.db(), self).map_err(|halt| match halt {
            Halt::Read(error) => Error::Source(error.into()),
            Halt::Stopped(error) => error,
        })?;
        self.hand_over()
    }

    fn record(&mut self, pair: Pair<'_>) -> Result<(), Error> {
        let (key, kv) =
            read_record(pair).map_err(|fault| rekindle_etcd::Error::from(damage(pair, fault)))?;
        self.small.kubernetes |= schema::is_kubernetes(kv.key);
        self.small.records += 1;
        let bytes = (pair.key.len() + pair.value.len()) as u64;
        self.progress.walked.fetch_add(bytes, Ordering::Relaxed);
        if self.block.is_full_before(pair.value.len()) {
            self.hand_over()?;
        }
        let added = self.block.add(key, pair.value, kv.key);
        added.map_err(|fault| Error::Record { record: key.to_string(), fault })?;
        // The last one stays: the frame tells the revision by it.
        let pairs = self.small.buckets.entry(schema::KEY.to_vec()).or_default();
        match pairs.first_mut() {
            Some((key, value)) => {
                key.clear();
                value.clear();
                key.extend_from_slice(pair.key);
                value.extend_from_slice(pair.value);
            }
            None => pairs.push((pair.key.to_vec(), pair.value.to_vec())),
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), Error> {
        if self.progress.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let Some(block) = self.block.take() else { return Ok(()) };
        let number = self.blocks;
        self.blocks += 1;
        // Who is gone has failed, and is asked why.
        self.to_compress.send((number, block)).map_err(|_| Error::Stopped)
    }
}

fn damage(pair: Pair<'_>, fault: RecordFault) -> RecordDamage {
    RecordDamage { key: pair.key.to_vec(), fault }
}

impl Visit for Walk<'_> {
    type Stop = Error;

    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.bucket = name.to_vec();
        self.small.buckets.entry(name.to_vec()).or_default();
        Ok(())
    }

    fn pair(&mut self, pair: Pair<'_>) -> Result<(), Error> {
        if pair.is_bucket {
            return Err(rekindle_etcd::Error::from(damage(pair, RecordFault::Bucket)).into());
        }
        if self.bucket == schema::KEY {
            return self.record(pair);
        }
        self.small.bytes += pair.key.len() + pair.value.len();
        if self.small.bytes > FRAME_MAX / 2 {
            return Err(Error::FrameTooLarge { max: FRAME_MAX / 2 });
        }
        let bucket = self.small.buckets.entry(self.bucket.clone()).or_default();
        bucket.push((pair.key.to_vec(), pair.value.to_vec()));
        Ok(())
    }

    fn damage(&mut self, part: Part, damage: &Damage) -> Result<(), Error> {
        match part {
            Part::Bookkeeping => Ok(()),
            Part::Content => {
                let damage = rekindle_bolt::Error::from(damage.clone());
                Err(rekindle_etcd::Error::from(damage).into())
            }
        }
    }
}

impl Small {
    /// A bbolt file of them.
    fn frame(&self, page_size: usize) -> Result<Vec<u8>, Error> {
        let layout = Layout::new(page_size, page_size).ok_or(rekindle_etcd::Error::NotEtcd)?;
        let mut writer = BulkWriter::new(Vec::new(), layout)?;
        for (name, pairs) in &self.buckets {
            let mut bucket = writer.bucket(name)?;
            for (key, value) in pairs {
                bucket.put(key, value)?;
            }
            writer = bucket.finish()?;
        }
        let finished = writer.finish()?;
        let mut frame = finished.out;
        let metas = frame.iter_mut().zip(&finished.metas);
        metas.for_each(|(byte, meta)| *byte = *meta);
        Ok(frame)
    }
}

/// Puts blocks into packs and sends these to the store.
struct Packer<'a> {
    archive: &'a Archive,
    /// Those that all packs share.
    facts: &'a Facts,
    now: &'a (dyn Fn() -> Moment + Sync),
    run: run::Builder,
    packs: Vec<PackUse>,
    sending: VecDeque<Pending<()>>,
    logical_bytes: u64,
}

/// What a packer has made.
struct Packed {
    packs: Vec<PackUse>,
    logical_bytes: u64,
}

impl<'a> Packer<'a> {
    fn new(archive: &'a Archive, facts: &'a Facts, now: &'a (dyn Fn() -> Moment + Sync)) -> Self {
        Self {
            archive,
            facts,
            now,
            run: run::Builder::default(),
            packs: Vec::new(),
            sending: VecDeque::new(),
            logical_bytes: 0,
        }
    }

    fn run(mut self, compressed: &Receiver<Numbered<Compressed>>) -> Result<Packed, Error> {
        let packed = self.pack(compressed);
        if packed.is_err() {
            self.sending.drain(..).for_each(|sending| drop(sending.wait()));
            remove_packs(self.archive, &self.packs);
        }
        packed.map(|()| Packed { packs: self.packs, logical_bytes: self.logical_bytes })
    }

    fn pack(&mut self, compressed: &Receiver<Numbered<Compressed>>) -> Result<(), Error> {
        // Those that overtook the next one.
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (number, block) in compressed {
            early.insert(number, block);
            while let Some(block) = early.remove(&next) {
                let (stored, entry) = block
                    .map_err(|fault| Error::Record { record: "of a block".to_owned(), fault })?;
                self.logical_bytes += entry.raw as u64;
                self.run.add(&stored, entry);
                next += 1;
                if self.run.bytes() >= PACK_TARGET {
                    self.send()?;
                }
            }
        }
        if !early.is_empty() {
            return Err(Error::Panicked);
        }
        self.send()?;
        while let Some(sending) = self.sending.pop_front() {
            sending.wait()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Error> {
        let run = std::mem::take(&mut self.run);
        let Some((first, last, records, logical_bytes)) = span(run.entries()) else {
            return Ok(());
        };
        let facts = Facts {
            first: first.revision,
            last: last.revision,
            id: object::random_id()?,
            compact: None,
            ended: (self.now)(),
            records,
            logical_bytes,
            ..self.facts.clone()
        };
        let (content, index_digest) = run.finish();
        let built = object::build(self.archive, &facts, &content)?;
        let (bytes, body_digest) = (built.bytes.len() as u64, built.body_digest);
        if self.sending.len() >= SENDING
            && let Some(oldest) = self.sending.pop_front()
        {
            oldest.wait()?;
        }
        let (timeline, id) = (facts.timeline, facts.id);
        let name = names::pack(timeline, id);
        self.sending.push_back(self.archive.store().create_later(&name, built.bytes));
        let dead = RoaringBitmap::new();
        self.packs.push(PackUse {
            timeline,
            id,
            bytes,
            body_digest,
            index_digest,
            first,
            last,
            records,
            dead,
        });
        Ok(())
    }
}

/// First and last record, how many there are, and their bytes.
fn span(entries: &[Entry]) -> Option<(RecordKey, RecordKey, u64, u64)> {
    let (first, last) = (entries.first()?.first, entries.last()?.last);
    let records = entries.iter().map(|entry| entry.records).sum();
    let raw = entries.iter().map(|entry| entry.raw as u64).sum();
    Some((first, last, records, raw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, StoreFaultKind};

    /// A backend without a record but one.
    fn a_backend() -> Backend<Vec<u8>> {
        let layout = Layout::new(4096, 4096).unwrap();
        let mut bucket = BulkWriter::new(Vec::new(), layout).unwrap().bucket(schema::KEY).unwrap();
        let at = RecordKey::first_of(Revision::new(2).unwrap());
        let kv = rekindle_etcd::KeyValue { key: b"k", mod_revision: 2, ..Default::default() };
        bucket.put(&at.to_bytes(), &kv.to_bytes()).unwrap();
        let finished = bucket.finish().unwrap().finish().unwrap();
        let mut bytes = finished.out;
        bytes[..finished.metas.len()].copy_from_slice(&finished.metas);
        Backend::open(bytes).unwrap()
    }

    /// Its packs once stayed, and the user was told that they had been removed.
    #[test]
    fn a_base_that_could_not_be_created_takes_its_packs_away() {
        let archive = Archive::init_unencrypted(Store::memory().unwrap(), Moment(0)).unwrap();
        let origin = Origin {
            cluster: ClusterId(1),
            member: MemberId(2),
            etcd: String::new(),
            live_keys: None,
            state: Moment(0),
        };
        let progress = Progress { walked: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
        let now = || Moment(1);
        let prepared = prepare_base(&archive, &a_backend(), &origin, &now, &progress).unwrap();
        let facts = &prepared.facts;
        let pack = names::pack(facts.timeline, prepared.base.packs[0].id);
        let name = names::base(facts.timeline, facts.last, facts.index, facts.id);
        archive.store().create(&name, b"in the way".to_vec()).unwrap();
        archive.store().read(&pack, 1000).unwrap();
        let failed = prepared.publish(now()).unwrap_err();
        assert!(matches!(&failed, Error::Store(fault) if fault.kind == StoreFaultKind::Exists));
        let gone = archive.store().read(&pack, 1000).unwrap_err();
        assert_eq!(gone.kind, StoreFaultKind::NotFound);
    }
}
