//! A base of a snapshot.
//!
//! One thread walks the snapshot in the order of its records, some compress blocks, one puts them
//! into packs and sends these off. The base itself comes last: what it names is there by then.

use crate::archive::{Archive, TimelineOrigin, shown};
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// A pack is closed when its blocks have so many bytes: few enough to be held in memory while they
/// are read, and so many that a restore makes few requests.
const PACK_TARGET: usize = 16 << 20;
/// zstd's level: beside it, 3 and 9 were slower and made synthetic loads no smaller.
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
    /// When the snapshot was begun.
    pub began: Moment,
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

/// Writes a base of what `backend` holds, with packs of its own. `now` is the clock.
///
/// # Errors
/// [`Error`]; nothing that was written is part of a base then.
pub fn write_base<S: ReadAt>(
    archive: &Archive,
    backend: &Backend<S>,
    origin: &Origin,
    now: &(dyn Fn() -> Moment + Sync),
    stop: &AtomicBool,
) -> Result<BaseWritten, Error> {
    let facts = backend.facts()?;
    let hash = backend.hash_kv(&HashRequest::default())?.hash;
    let (term, index) =
        (facts.term.unwrap_or_default(), facts.consistent_index.unwrap_or_default());
    let (timeline, goes_on) = timeline(archive, origin, (term, index), now())?;
    let etcd = origin.etcd.chars().filter(char::is_ascii).take(ETCD_MAX).collect();
    let mut facts = Facts {
        kind: Kind::Pack,
        archive: archive.id(),
        timeline,
        first: Revision::default(),
        last: facts.revision(),
        compact: facts.compaction.revision(),
        term,
        index,
        began: origin.began,
        ended: Moment::default(),
        records: 0,
        keys: 0,
        logical_bytes: 0,
        new_bytes: 0,
        cluster: origin.cluster,
        member: origin.member,
        etcd,
    };
    let (packed, small) = write_packs(archive, backend, &facts, now, stop)?;
    let frame = small.frame(backend.db().page_size())?;
    let base = Base { hash, kubernetes: small.kubernetes, packs: packed.packs, frame };
    facts.kind = Kind::Base;
    facts.first = base.packs.first().map_or(facts.last, |pack| pack.first.revision);
    facts.records = base.packs.iter().map(PackUse::living).sum();
    facts.keys = origin.live_keys.unwrap_or_default();
    facts.logical_bytes = packed.logical_bytes;
    facts.new_bytes = base.packs.iter().map(|pack| pack.bytes).sum();
    facts.ended = now();
    let name = names::base(timeline, facts.last, index, object::random_id()?);
    let content = base.encode().map_err(|fault| Error::damaged(&name, fault))?;
    archive.store().create(&name, object::build(&facts, &content).bytes)?;
    Ok(BaseWritten { name, facts, packs: base.packs.len(), goes_on })
}

/// Most bytes of a version that a header holds.
const ETCD_MAX: usize = 16;

/// The timeline that a snapshot belongs to: that of the cluster's newest base, unless the cluster
/// went back behind it, as one that was restored has.
fn timeline(
    archive: &Archive,
    origin: &Origin,
    position: (RaftTerm, RaftIndex),
    now: Moment,
) -> Result<(TimelineId, bool), Error> {
    let listing = archive.list()?;
    let of_cluster = |base: &&crate::BaseEntry| base.header.facts.cluster == origin.cluster;
    let newest = listing.bases.iter().rev().find(of_cluster).map(|base| &base.header.facts);
    let origin_of = match newest {
        Some(newest) if (newest.term, newest.index) <= position => {
            return Ok((newest.timeline, true));
        }
        Some(newest) => TimelineOrigin {
            parent: Some(newest.timeline),
            fork: position.1.0,
            reason: "the cluster went back behind the newest base: it was restored",
        },
        None => TimelineOrigin { parent: None, fork: 0, reason: "the first base of the cluster" },
    };
    Ok((archive.timeline(origin.cluster, origin_of, &shown(now))?, false))
}

/// Writes all records of the snapshot into packs, and keeps the small buckets.
fn write_packs<S: ReadAt>(
    archive: &Archive,
    backend: &Backend<S>,
    facts: &Facts,
    now: &(dyn Fn() -> Moment + Sync),
    stop: &AtomicBool,
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
        let mut walk = Walk::new(&to_compress, stop);
        let walked = walk.run(backend);
        let small = walk.small;
        drop(to_compress);
        let packed = packer.join().unwrap_or(Err(Error::Panicked));
        // A packer that has failed has ended the walk, too: what it says comes first.
        match (packed, walked) {
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
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
    stop: &'a AtomicBool,
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
}

impl<'a> Walk<'a> {
    fn new(to_compress: &'a SyncSender<Numbered<Filled>>, stop: &'a AtomicBool) -> Self {
        let (block, small) = (block::Builder::default(), Small::default());
        Self { to_compress, stop, block, blocks: 0, bucket: Vec::new(), small }
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
        let added = self.block.add(key, pair.value, kv.key);
        added.map_err(|fault| Error::Record { record: key.to_string(), fault })?;
        // The last one stays: the frame tells the revision by it.
        let last = vec![(pair.key.to_vec(), pair.value.to_vec())];
        match self.small.buckets.get_mut(schema::KEY) {
            Some(there) => *there = last,
            None => drop(self.small.buckets.insert(schema::KEY.to_vec(), last)),
        }
        match self.block.is_full() {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    fn hand_over(&mut self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) {
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
    began: Moment,
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
            began: now(),
            run: run::Builder::default(),
            packs: Vec::new(),
            sending: VecDeque::new(),
            logical_bytes: 0,
        }
    }

    fn run(mut self, compressed: &Receiver<Numbered<Compressed>>) -> Result<Packed, Error> {
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
        self.send()?;
        self.sending.drain(..).try_for_each(Pending::wait)?;
        Ok(Packed { packs: self.packs, logical_bytes: self.logical_bytes })
    }

    fn send(&mut self) -> Result<(), Error> {
        let run = std::mem::take(&mut self.run);
        let Some((first, last, records, logical_bytes)) = span(run.entries()) else {
            return Ok(());
        };
        let facts = Facts {
            first: first.revision,
            last: last.revision,
            compact: None,
            began: std::mem::replace(&mut self.began, (self.now)()),
            ended: (self.now)(),
            records,
            logical_bytes,
            ..self.facts.clone()
        };
        let id = object::random_id()?;
        let built = object::build(&facts, &run.finish());
        let (bytes, body_digest) = (built.bytes.len() as u64, built.body_digest);
        if self.sending.len() >= SENDING
            && let Some(oldest) = self.sending.pop_front()
        {
            oldest.wait()?;
        }
        let name = names::pack(facts.timeline, id);
        self.sending.push_back(self.archive.store().create_later(&name, built.bytes));
        let dead = RoaringBitmap::new();
        self.packs.push(PackUse { id, bytes, body_digest, first, last, records, dead });
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
