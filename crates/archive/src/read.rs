//! A base for a restore: its small buckets, and its records one after the other.
//!
//! One thread fetches packs ahead and compares their digests, some decompress blocks; the records
//! come out in their order. Memory is a few packs and a few blocks.

use crate::archive::{Archive, BaseEntry};
use crate::error::Error;
use crate::format::base::{Base, PackUse};
use crate::format::block::{self, Entry};
use crate::format::run::Run;
use crate::format::{FormatFault, Kind};
use crate::names;
use crate::object::{self, Opened};
use bytes::Bytes;
use rekindle_bolt::Pair;
use rekindle_etcd::Backend;
use rekindle_etcd::restore::{Records, RecordsFault};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Most bytes of a base: its packs and dead sets, and a frame that does not compress.
const BASE_MAX: u64 = 1 << 30;
/// Threads that decompress.
const DECOMPRESSORS: usize = 2;
/// Blocks that wait for a thread, and that wait for the reader of its records.
const WAITING: usize = 2;

/// Reads a base that was listed.
///
/// # Errors
/// [`Error::Store`], [`Error::Damaged`].
pub fn read_base(archive: &Archive, entry: &BaseEntry) -> Result<Base, Error> {
    let name = archive.store().full_name(&entry.name);
    let bytes = archive.store().read(&entry.name, entry.bytes.min(BASE_MAX))?;
    let object = object::open(archive, &name, Kind::Base, &bytes)?;
    let damaged = |fault| Error::damaged(&name, fault);
    let base = Base::parse(&object.content).map_err(damaged)?;
    let facts = &entry.header.facts;
    let frame = Backend::open(&base.frame)?.facts()?;
    let last_record = base.packs.last().map(|pack| pack.last);
    let frame_is_its_own = frame.revision() == facts.last
        && frame.compaction.revision() == facts.compact
        && frame.term.unwrap_or_default() == facts.term
        && frame.consistent_index.unwrap_or_default() == facts.index
        && frame.last_record == last_record;
    let whole = object.header == entry.header && base.living() == Some(facts.records);
    match whole && frame_is_its_own {
        true => Ok(base),
        false => Err(damaged(FormatFault::Senseless { what: "a base" })),
    }
}

/// The records of a base, in their order.
pub struct BaseRecords {
    /// Of each decompressor, which take turns.
    blocks: Vec<Receiver<Result<Opening, Error>>>,
    turn: usize,
    packs: Arc<[PackUse]>,
    current: Option<Opening>,
    /// Number of the next record in its pack.
    number: u64,
    key: Vec<u8>,
    /// Records that were handed out, and that there are to be.
    count: (u64, u64),
    base: String,
}

/// A block that was opened.
struct Opening {
    pack: usize,
    /// It is the first of its pack.
    begins: bool,
    records: block::Records,
}

/// A block that is to be opened.
struct Job {
    pack: usize,
    begins: bool,
    object: Arc<Opened>,
    range: Range<usize>,
    entry: Entry,
    name: Arc<str>,
}

impl BaseRecords {
    /// Begins to read.
    ///
    /// # Errors
    /// The machine gives no threads.
    pub fn new(archive: &Archive, entry: &BaseEntry, base: &Base) -> Result<Self, Error> {
        let (mut jobs, mut blocks) = (Vec::new(), Vec::new());
        for _ in 0..DECOMPRESSORS {
            let (job, to_open) = sync_channel::<Result<Job, Error>>(WAITING);
            let (opened, block) = sync_channel(WAITING);
            start("decompress", move || decompress(&to_open, &opened))?;
            jobs.push(job);
            blocks.push(block);
        }
        let packs: Arc<[PackUse]> = base.packs.as_slice().into();
        let (archive, theirs) = (archive.clone(), Arc::clone(&packs));
        start("fetch", move || Fetch { archive, jobs, turn: 0 }.run(&theirs))?;
        Ok(Self {
            blocks,
            turn: 0,
            packs,
            current: None,
            number: 0,
            key: Vec::new(),
            count: (0, entry.header.facts.records),
            base: entry.name.clone(),
        })
    }

    /// Goes on to the next block; there is none at the end.
    fn next_block(&mut self) -> Result<bool, Error> {
        let Some(blocks) = self.blocks.get(self.turn) else { return Ok(false) };
        self.turn = (self.turn + 1) % self.blocks.len();
        let Ok(opening) = blocks.recv() else { return Ok(false) };
        let opening = opening?;
        if opening.begins {
            self.number = 0;
        }
        self.current = Some(opening);
        Ok(true)
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started
        .map(drop)
        .map_err(|error| Error::Machine { what: "starting a thread", cause: error.to_string() })
}

impl Records for BaseRecords {
    fn next_record(&mut self) -> Result<Option<Pair<'_>>, RecordsFault> {
        loop {
            let Some(Opening { pack, records, .. }) = &mut self.current else {
                if self.next_block()? {
                    continue;
                }
                return match self.count {
                    (got, want) if got == want => Ok(None),
                    _ => {
                        let fault = FormatFault::Ends { what: "its records" };
                        Err(Error::damaged(&self.base, fault).into())
                    }
                };
            };
            let Some(key) = records.advance() else {
                self.current = None;
                continue;
            };
            let number = u32::try_from(self.number).ok();
            self.number += 1;
            let pack = self.packs.get(*pack);
            let dead = pack.zip(number).is_some_and(|(pack, number)| pack.dead.contains(number));
            if !dead {
                self.count.0 += 1;
                self.key = key.to_bytes();
                break;
            }
        }
        let value = self.current.as_ref().map_or(&[][..], |block| block.records.value());
        Ok(Some(Pair { key: &self.key, value, is_bucket: false }))
    }
}

/// Fetches packs and deals out their blocks.
struct Fetch {
    archive: Archive,
    jobs: Vec<SyncSender<Result<Job, Error>>>,
    turn: usize,
}

impl Fetch {
    fn run(mut self, packs: &[PackUse]) {
        let store = self.archive.store().clone();
        let read =
            |pack: &PackUse| store.read_later(&names::pack(pack.timeline, pack.id), pack.bytes);
        let mut coming = packs.first().map(read);
        for (number, pack) in packs.iter().enumerate() {
            let Some(bytes) = coming.take() else { return };
            let dealt = bytes.wait().map_err(Error::from).and_then(|bytes| {
                // The next one comes while this one is dealt out.
                coming = packs.get(number + 1).map(read);
                self.deal_pack(number, pack, bytes)
            });
            match dealt {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    self.deal(Err(error));
                    return;
                }
            }
        }
    }

    /// Whether anybody still wants it.
    fn deal_pack(&mut self, number: usize, pack: &PackUse, bytes: Bytes) -> Result<bool, Error> {
        let name = self.archive.store().full_name(&names::pack(pack.timeline, pack.id));
        let damaged = |fault| Error::damaged(&name, fault);
        let object = object::open(&self.archive, &name, Kind::Pack, &bytes)?;
        if object.header.body_digest != pack.body_digest {
            return Err(damaged(FormatFault::Foreign));
        }
        let run = Run::parse(&object.content, &object.header.facts).map_err(damaged)?;
        let known = *run.index_digest() == pack.index_digest
            && run.span() == Some((pack.first, pack.last))
            && run.records() == pack.records;
        if !known {
            return Err(damaged(FormatFault::Foreign));
        }
        let (object, name): (_, Arc<str>) = (Arc::new(object), name.as_str().into());
        for (index, (range, entry)) in run.blocks().enumerate() {
            let (object, name, entry) = (Arc::clone(&object), Arc::clone(&name), entry.clone());
            let job = Job { pack: number, begins: index == 0, object, range, entry, name };
            if !self.deal(Ok(job)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether anybody still wants it.
    fn deal(&mut self, job: Result<Job, Error>) -> bool {
        let Some(jobs) = self.jobs.get(self.turn) else { return false };
        self.turn = (self.turn + 1) % self.jobs.len();
        jobs.send(job).is_ok()
    }
}

fn decompress(jobs: &Receiver<Result<Job, Error>>, opened: &SyncSender<Result<Opening, Error>>) {
    for job in jobs {
        let opening = job.and_then(|Job { pack, begins, object, range, entry, name }| {
            let records = Run::open(&object.content, &range, &entry);
            let records = records.map_err(|fault| Error::damaged(&name, fault))?;
            Ok(Opening { pack, begins, records })
        });
        if opened.send(opening).is_err() {
            return;
        }
    }
}
