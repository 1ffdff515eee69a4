//! A base for a restore: its small buckets, and its records one after the other.
//!
//! Some threads open packs and segments, which are fetched ahead, and compare their digests; some
//! decompress blocks; the records come out in their order. Memory is a few objects and a few blocks.

use crate::archive::{Archive, BaseEntry};
use crate::error::Error;
use crate::format::base::{Base, Part, PartKind};
use crate::format::block::{self, Entry};
use crate::format::{DIGEST, FormatFault, Kind, LogDigest, ValueDigests};
use crate::names;
use crate::object::{self, OpenedRun};
use crate::store::Pending;
use crate::tail::{Erased, Tail};
use bytes::Bytes;
use rekindle_bolt::Pair;
use rekindle_etcd::restore::{Records, RecordsFault};
use rekindle_etcd::{Backend, RecordKey, Revision};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Most bytes of a base: its packs and dead sets, and a frame that does not compress.
const BASE_MAX: u64 = 1 << 30;
/// Threads that open objects.
const OPENERS: usize = 2;
/// Threads that decompress.
const DECOMPRESSORS: usize = 2;
/// Blocks that wait for a thread, and that wait for the reader of its records.
const WAITING: usize = 1;

/// Reads a base that was listed.
///
/// # Errors
/// [`Error::Store`], [`Error::Damaged`].
pub fn read_base(archive: &Archive, entry: &BaseEntry) -> Result<Base, Error> {
    let name = archive.store().full_name(&entry.name);
    let bytes = archive.store().read(&entry.name, entry.bytes.min(BASE_MAX))?;
    let object = object::open(archive, &name, Kind::Base, bytes)?;
    let damaged = |fault| Error::damaged(&name, fault);
    let base = Base::parse(&object.content).map_err(damaged)?;
    let facts = &entry.header.facts;
    let frame = Backend::open(&base.frame)?.facts()?;
    let frame_is_its_own = frame.revision() == facts.last
        && frame.compaction.revision() == facts.compact
        && frame.term.unwrap_or_default() == facts.term
        && frame.consistent_index.unwrap_or_default() == facts.index
        && frame.last_record.is_none() == base.parts.is_empty();
    let whole = object.header == entry.header
        && base.living() == Some(facts.records)
        && facts.erased == (base.erased > 0);
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
    parts: Arc<[Wanted]>,
    current: Option<Opening>,
    progress: InPart,
    key: Vec<u8>,
    /// The record that was handed out last, and the one that should be the last.
    last: (Option<RecordKey>, Option<RecordKey>),
    /// Records that were handed out, and that there are to be, where that is known before.
    count: (u64, Option<u64>),
    /// Records were erased from the base: its last one may be empty, and is no record where another one comes behind it.
    has_erased: bool,
    base: String,
}

/// How far a part was read.
#[derive(Default)]
struct InPart {
    part: usize,
    /// Its records so far.
    records: u64,
    log: LogDigest,
}

/// A block that was opened.
struct Opening {
    part: usize,
    /// Only these revisions of it are meant.
    clip: Option<Clip>,
    records: block::Records,
    /// Digests of the values, where the part is known by them.
    values: std::vec::IntoIter<[u8; DIGEST]>,
    /// Records were erased from it, and have no value.
    has_erased: bool,
}

/// First and last revision.
type Clip = (Revision, Revision);

/// A block that is to be opened.
struct Job {
    source: Arc<Source>,
    object: Arc<OpenedRun>,
    range: Range<usize>,
    entry: Entry,
}

/// What records are read of.
#[derive(Clone, Debug)]
enum Wanted {
    /// A part of the base.
    Part(Part),
    /// What the log has behind the base.
    Tail(Tail),
}

impl Wanted {
    /// It is what is wanted, as far as an object shows that by itself.
    fn is(&self, object: &OpenedRun) -> bool {
        match self {
            Self::Part(part) => is_known(part, object),
            Self::Tail(tail) => object.header.facts.timeline == tail.timeline,
        }
    }
}

/// An object that records are read of.
#[derive(Clone, Debug)]
struct Source {
    /// The part that they belong to.
    part: usize,
    name: String,
    bytes: u64,
    clip: Option<Clip>,
    /// The part is known by the digests of its values.
    is_digested: bool,
}

impl BaseRecords {
    /// Begins to read.
    ///
    /// # Errors
    /// [`Error::LogMissing`]; [`Error::Store`] where the log cannot be listed; the machine gives no
    /// threads.
    pub fn new(archive: &Archive, entry: &BaseEntry, base: &Base) -> Result<Self, Error> {
        Self::with_tail(archive, entry, base, None)
    }

    /// The same, with what comes behind the base in the log.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_tail(
        archive: &Archive,
        entry: &BaseEntry,
        base: &Base,
        tail: Option<&Tail>,
    ) -> Result<Self, Error> {
        let parts = base.parts.iter().cloned().map(Wanted::Part);
        let parts: Arc<[Wanted]> = parts.chain(tail.cloned().map(Wanted::Tail)).collect();
        let sources = sources(archive, entry, &parts)?;
        let (mut jobs, mut blocks) = (Vec::new(), Vec::new());
        for _ in 0..DECOMPRESSORS {
            let (job, to_open) = sync_channel::<Result<Job, Error>>(WAITING);
            let (opened, block) = sync_channel(WAITING);
            let archive = archive.clone();
            start("decompress", move || decompress(&archive, &to_open, &opened))?;
            jobs.push(job);
            blocks.push(block);
        }
        let name_of_base = archive.store().full_name(&entry.name);
        let (archive, theirs) = (archive.clone(), Arc::clone(&parts));
        let mut openers = Vec::new();
        for _ in 0..OPENERS {
            let (to_open, coming) = sync_channel(1);
            // What was opened is held by nobody but who opened it: an object has many megabytes.
            let (opened, result) = sync_channel(0);
            let opener = Opener { archive: archive.clone(), parts: Arc::clone(&theirs) };
            start("open", move || opener.run(&coming, &opened))?;
            openers.push((to_open, result));
        }
        let fetch = Fetch { archive, openers, jobs, turn: 0 };
        start("fetch", move || fetch.run(sources))?;
        Ok(Self {
            blocks,
            turn: 0,
            parts,
            current: None,
            progress: InPart::default(),
            key: Vec::new(),
            last: (None, Backend::open(base.frame.as_slice())?.facts()?.last_record),
            count: (0, tail.is_none().then_some(entry.header.facts.records)),
            has_erased: base.erased > 0,
            base: name_of_base,
        })
    }

    /// Goes on to the next block; there is none at the end.
    fn next_block(&mut self) -> Result<bool, Error> {
        let Some(blocks) = self.blocks.get(self.turn) else { return Ok(false) };
        self.turn = (self.turn + 1) % self.blocks.len();
        let Ok(opening) = blocks.recv() else { return Ok(false) };
        let opening = opening?;
        while self.progress.part < opening.part {
            self.end_part()?;
        }
        self.current = Some(opening);
        Ok(true)
    }

    /// The part has given all that it should.
    fn end_part(&mut self) -> Result<(), Error> {
        let InPart { part, records, log } = std::mem::take(&mut self.progress);
        self.progress.part = part + 1;
        // That a tail is whole shows by its last record.
        let Some(Wanted::Part(part)) = self.parts.get(part) else { return Ok(()) };
        let same = match part.what {
            PartKind::Pack { .. } => true,
            PartKind::Log { digest } => digest == log.value(),
        };
        match same && records == part.records {
            true => Ok(()),
            false => {
                let (first, last) = (part.first.revision, part.last.revision);
                Err(Error::Log { base: self.base.clone(), first, last })
            }
        }
    }

    /// All parts have given what they should, and nothing else is there.
    fn end(&mut self) -> Result<(), Error> {
        while self.progress.part < self.parts.len() {
            self.end_part()?;
        }
        match self.count.1.is_none_or(|count| count == self.count.0) && self.last.0 == self.last.1 {
            true => Ok(()),
            false => Err(Error::damaged(&self.base, FormatFault::Ends { what: "its records" })),
        }
    }
}

/// The objects that hold the records of these parts, in their order.
fn sources(archive: &Archive, entry: &BaseEntry, parts: &[Wanted]) -> Result<Vec<Source>, Error> {
    let of_log = |part: &Wanted| match part {
        Wanted::Part(part) => matches!(part.what, PartKind::Log { .. }).then_some(part.timeline),
        Wanted::Tail(tail) => Some(tail.timeline),
    };
    let stock = archive.stock(parts.iter().filter_map(of_log))?;
    let base = || archive.store().full_name(&entry.name);
    let mut sources = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let pieces = match part {
            Wanted::Part(Part { what: PartKind::Pack { id, .. }, timeline, bytes, .. }) => {
                let (name, bytes) = (names::pack(*timeline, *id), *bytes);
                let (clip, is_digested) = (None, false);
                sources.push(Source { part: number, name, bytes, clip, is_digested });
                continue;
            }
            Wanted::Part(part) => stock.cover(part),
            Wanted::Tail(tail) => {
                let erased = Erased::read(archive)?;
                // As it was planned: what was erased since then would be missing of that, and of nothing else.
                if let Some(piece) = tail.pieces.iter().find(|piece| erased.has(&piece.name)) {
                    return Err(Error::LogMissing { base: base(), missing: piece.from });
                }
                sources.extend(tail.pieces.iter().map(|piece| Source {
                    part: number,
                    name: piece.name.clone(),
                    bytes: piece.bytes,
                    clip: Some((piece.from, piece.to)),
                    is_digested: false,
                }));
                continue;
            }
        };
        let pieces = pieces.map_err(|missing| Error::LogMissing { base: base(), missing })?;
        sources.extend(pieces.into_iter().map(|piece| Source {
            part: number,
            name: piece.segment.name.clone(),
            bytes: piece.segment.bytes,
            clip: Some((piece.from, piece.to)),
            is_digested: true,
        }));
    }
    Ok(sources)
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
            let Some(opening) = &mut self.current else {
                if self.next_block()? {
                    continue;
                }
                self.end()?;
                return Ok(None);
            };
            let Some(key) = opening.records.advance() else {
                self.current = None;
                continue;
            };
            let value = opening.values.next();
            let (from, to) = opening.clip.unwrap_or((key.revision, key.revision));
            if key.revision < from || key.revision > to {
                continue;
            }
            if let Some(value) = value {
                self.progress.log.add(key, &value);
            }
            let number = u32::try_from(self.progress.records).ok();
            self.progress.records += 1;
            let dead = match (self.parts.get(self.progress.part), number) {
                (Some(Wanted::Part(part)), Some(number)) => part.dead.contains(number),
                _ => false,
            };
            // The revision is that of the last record: it stays, with nothing in it.
            let erased = (opening.has_erased || self.has_erased)
                && opening.records.value().is_empty()
                && Some(key) != self.last.1;
            if !dead && !erased {
                self.count.0 += 1;
                self.last.0 = Some(key);
                self.key = key.to_bytes();
                break;
            }
        }
        let value = self.current.as_ref().map_or(&[][..], |block| block.records.value());
        Ok(Some(Pair { key: &self.key, value, is_bucket: false }))
    }
}

/// Opens objects.
struct Opener {
    archive: Archive,
    parts: Arc<[Wanted]>,
}

/// An object that is on its way.
type Coming = (Arc<Source>, Pending<Bytes>);
/// What came of it.
type Readied = Result<OpenedRun, Error>;

impl Opener {
    fn run(self, coming: &Receiver<Coming>, opened: &SyncSender<Readied>) {
        for (source, bytes) in coming {
            let bytes = bytes.wait().map_err(Error::reading);
            if opened.send(bytes.and_then(|bytes| self.open(&source, bytes))).is_err() {
                return;
            }
        }
    }

    fn open(&self, source: &Source, bytes: Bytes) -> Result<OpenedRun, Error> {
        let name = self.archive.store().full_name(&source.name);
        let kind = if source.clip.is_some() { Kind::Segment } else { Kind::Pack };
        let opened = object::open_run(&self.archive, &name, kind, bytes)?;
        let part = self.parts.get(source.part);
        match part.is_some_and(|part| part.is(&opened)) {
            true => Ok(opened),
            false => Err(Error::damaged(&name, FormatFault::Foreign)),
        }
    }
}

/// Has objects fetched and opened ahead, and deals out their blocks.
struct Fetch {
    archive: Archive,
    /// They take turns.
    openers: Vec<(SyncSender<Coming>, Receiver<Readied>)>,
    jobs: Vec<SyncSender<Result<Job, Error>>>,
    turn: usize,
}

impl Fetch {
    fn run(mut self, sources: Vec<Source>) {
        let store = self.archive.store().clone();
        let sources: Vec<_> = sources.into_iter().map(Arc::new).collect();
        let ahead = self.openers.len();
        for number in 0..sources.len() + ahead {
            let Some((to_open, opened)) = self.openers.get(number % ahead) else { return };
            // Its last one is taken before it gets the next.
            let last = number.checked_sub(ahead);
            let last = last.map(|number| sources.get(number).zip(opened.recv().ok()));
            if let Some(source) = sources.get(number) {
                let coming = (Arc::clone(source), store.read_later(&source.name, source.bytes));
                if to_open.send(coming).is_err() {
                    return;
                }
            }
            let Some(last) = last else { continue };
            let Some((source, opened)) = last else { return };
            match opened {
                Ok(object) => {
                    if !self.deal_object(source, object) {
                        return;
                    }
                }
                Err(error) => {
                    self.deal(Err(error));
                    return;
                }
            }
        }
    }

    /// Whether anybody still wants it.
    fn deal_object(&mut self, source: &Arc<Source>, object: OpenedRun) -> bool {
        let object = Arc::new(object);
        object.run.blocks().all(|(range, entry)| {
            let (source, entry) = (Arc::clone(source), entry.clone());
            self.deal(Ok(Job { source, object: Arc::clone(&object), range, entry }))
        })
    }

    /// Whether anybody still wants it.
    fn deal(&mut self, job: Result<Job, Error>) -> bool {
        let Some(jobs) = self.jobs.get(self.turn) else { return false };
        self.turn = (self.turn + 1) % self.jobs.len();
        jobs.send(job).is_ok()
    }
}

/// It is what the base says of it. What a segment holds shows when all of its range was read.
pub(crate) fn is_known(part: &Part, object: &OpenedRun) -> bool {
    match part.what {
        PartKind::Pack { body_digest, index_digest, .. } => {
            let run = &object.run;
            object.header.body_digest == body_digest
                && *run.index_digest() == index_digest
                && run.span() == Some((part.first, part.last))
                && run.records() == part.records
        }
        PartKind::Log { .. } => object.header.facts.timeline == part.timeline,
    }
}

fn decompress(
    archive: &Archive,
    jobs: &Receiver<Result<Job, Error>>,
    opened: &SyncSender<Result<Opening, Error>>,
) {
    let digests = ValueDigests::default();
    for job in jobs {
        let opening = job.and_then(|job| {
            let open = job.open(&digests);
            open.map_err(|fault| {
                Error::damaged(&archive.store().full_name(&job.source.name), fault)
            })
        });
        if opened.send(opening).is_err() {
            return;
        }
    }
}

impl Job {
    fn open(&self, digests: &ValueDigests) -> Result<Opening, FormatFault> {
        let records = self.object.records(&self.range, &self.entry)?;
        let Source { part, clip, is_digested, .. } = *self.source;
        let mut values = Vec::new();
        if is_digested {
            let mut records = records.clone();
            while records.advance().is_some() {
                values.push(digests.of(records.value()));
            }
        }
        let has_erased = clip.is_some() && self.object.header.facts.erased;
        Ok(Opening { part, clip, records, values: values.into_iter(), has_erased })
    }
}
