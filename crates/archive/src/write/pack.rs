//! From blocks to objects: some threads digest and compress, one compares what comes with the older
//! base, puts what is new into packs and segments, and sends these off.

use super::join::{Counts, Found, Join};
use super::table::{Row, TableWriter};
use crate::archive::Archive;
use crate::error::Error;
use crate::format::base::{Part, PartKind};
use crate::format::block::{Entry, Filled, Fingerprint, Packing};
use crate::format::header::{Facts, Kind, Moment};
use crate::format::segment::{self, Notes};
use crate::format::{DIGEST, LogDigest, ValueDigests, run};
use crate::log::LogFound;
use crate::names::{self, Epoch, SegmentName};
use crate::object;
use crate::plan::reuse::To;
use crate::store::Pending;
use rekindle_etcd::RecordKey;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};

/// A pack or a segment is closed when its blocks have so many bytes: few enough to be held in memory while they
/// are read, and so many that a restore makes few requests.
pub(crate) const PACK_TARGET: usize = 8 << 20;
/// Objects that are on their way to the store at once.
const SENDING: usize = 2;

/// A block that is to be worked on, with its place among all.
pub(super) struct ToWork {
    pub number: u64,
    pub route: usize,
    pub to: To,
    pub block: Filled,
}

/// A block that was worked on.
pub(super) struct Worked {
    number: u64,
    route: usize,
    to: To,
    prints: Vec<Fingerprint>,
    /// As it is stored, unless the archive has it.
    stored: Option<Result<(Vec<u8>, Entry), Error>>,
}

/// Digests and compresses until nothing comes any more.
pub(super) fn work(filled: &Mutex<Receiver<ToWork>>, worked: &SyncSender<Worked>) {
    let digests = ValueDigests::default();
    loop {
        let next = filled.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(ToWork { number, route, to, block }) = next else { return };
        let prints = block.fingerprints(&digests);
        let failed = |fault| Error::Record { record: "of a block".to_owned(), fault };
        let compress = || block.compress(Packing::QUICK).map_err(failed);
        let stored = (to != To::Known).then(compress);
        if worked.send(Worked { number, route, to, prints, stored }).is_err() {
            return;
        }
    }
}

/// What a base is made of, but for its frame.
#[derive(Default)]
pub(super) struct Packed {
    /// In the order of their records.
    pub parts: Vec<Part>,
    /// Objects that were written.
    pub written: Vec<String>,
    /// Records of the base.
    pub records: u64,
    /// Bytes of the objects that were written.
    pub new_bytes: u64,
    pub counts: Counts,
}

/// What all objects of one base share.
pub(super) struct Shared<'a> {
    pub archive: &'a Archive,
    pub facts: &'a Facts,
    pub now: &'a (dyn Fn() -> Moment + Sync),
    /// Of the log.
    pub notes: Notes,
}

/// Compares, and puts blocks into objects.
pub(super) struct Packer<'a> {
    shared: Shared<'a>,
    join: Option<Join>,
    table: Option<TableWriter>,
    /// Parts of the older base, whose dead sets grow.
    older: Vec<Part>,
    /// Which of them holds the row that was come to last.
    at: usize,
    run: run::Builder,
    /// Where the blocks of the run belong.
    route: Option<(usize, To)>,
    /// Records of the pack or of the log so far.
    numbers: u64,
    /// Those of them that are none of the base's.
    dead: RoaringBitmap,
    log: LogSoFar,
    sending: VecDeque<Pending<()>>,
    packed: Packed,
}

/// The range of the log, as far as it was written.
#[derive(Default)]
struct LogSoFar {
    span: Option<(RecordKey, RecordKey)>,
    bytes: u64,
    digest: LogDigest,
}

impl<'a> Packer<'a> {
    pub(super) fn new(
        shared: Shared<'a>,
        join: Option<Join>,
        older: Vec<Part>,
        table: Option<TableWriter>,
    ) -> Self {
        Self {
            shared,
            join,
            table,
            older,
            at: 0,
            run: run::Builder::default(),
            route: None,
            numbers: 0,
            dead: RoaringBitmap::new(),
            log: LogSoFar::default(),
            sending: VecDeque::new(),
            packed: Packed::default(),
        }
    }

    /// Works until nothing comes any more; `whole` says then whether that was all. What fails takes
    /// away what was written.
    pub(super) fn run(
        mut self,
        worked: &Receiver<Worked>,
        whole: &AtomicBool,
    ) -> Result<(Packed, Option<TableWriter>), Error> {
        match self.pack(worked, whole) {
            Ok(()) => Ok((self.packed, self.table)),
            Err(error) => {
                self.sending.drain(..).for_each(|sending| drop(sending.wait()));
                remove(self.shared.archive, &self.packed.written);
                Err(error)
            }
        }
    }

    fn pack(&mut self, worked: &Receiver<Worked>, whole: &AtomicBool) -> Result<(), Error> {
        // Those that overtook the next one.
        let mut early = BTreeMap::new();
        let mut next = 0;
        for block in worked {
            early.insert(block.number, block);
            while let Some(block) = early.remove(&next) {
                self.add(block)?;
                next += 1;
            }
        }
        if !whole.load(Ordering::Relaxed) {
            // What did not come is not missing.
            return Err(Error::Stopped);
        }
        if !early.is_empty() {
            return Err(Error::Panicked);
        }
        self.end_route()?;
        if let Some(join) = self.join.take() {
            let (older, at) = (&mut self.older, &mut self.at);
            let (counts, log) = join.finish(|row| bury(older, at, row))?;
            self.packed.counts = counts;
            self.settle(log);
        }
        while let Some(sending) = self.sending.pop_front() {
            sending.wait()?;
        }
        self.packed.parts.append(&mut self.older);
        self.packed.parts.retain(|part| part.living() > 0);
        self.packed.parts.sort_by_key(|part| part.first);
        Ok(())
    }

    /// What was not known of the log behind the older base before all of it had come.
    fn settle(&mut self, log: Option<LogFound>) {
        let Some((LogFound { records, digest, .. }, (first, last))) =
            log.and_then(|log| Some((log, log.span?)))
        else {
            return;
        };
        // Where it is small, it may be in a pack by now.
        let is_it = |part: &&mut Part| part.first.revision == first.revision;
        if let Some(part) = self.older.iter_mut().rev().take(1).find(is_it) {
            (part.first, part.last, part.records) = (first, last, records);
            part.what = PartKind::Log { digest };
        }
    }

    fn add(&mut self, block: Worked) -> Result<(), Error> {
        if self.route != Some((block.route, block.to)) {
            self.end_route()?;
            self.route = Some((block.route, block.to));
        }
        let stored = block.stored.transpose()?;
        if let Some((_, entry)) = &stored {
            self.send_if_full(entry)?;
        }
        for print in &block.prints {
            self.record(print, block.to)?;
        }
        if let Some((bytes, entry)) = stored {
            self.run.add(&bytes, entry);
        }
        Ok(())
    }

    /// Segments hold whole revisions.
    fn send_if_full(&mut self, next: &Entry) -> Result<(), Error> {
        let last = self.run.entries().last().map(|entry| entry.last.revision);
        let is_log = matches!(self.route, Some((_, To::Log)));
        if self.run.bytes() < PACK_TARGET || is_log && last >= Some(next.first.revision) {
            return Ok(());
        }
        self.send()
    }

    fn record(&mut self, print: &Fingerprint, to: To) -> Result<(), Error> {
        let found = match &mut self.join {
            Some(join) => {
                let (older, at) = (&mut self.older, &mut self.at);
                join.next(print, |row| bury(older, at, row))?
            }
            None => Found::New,
        };
        let number = match (to, found) {
            (To::Known, Found::Known { number }) => number,
            (To::Known, _) => return Ok(()),
            _ => {
                self.numbers += 1;
                self.numbers - 1
            }
        };
        if found == Found::Garbage {
            // It is in the pack, and it is none of the base's: of what goes with it some is gone.
            self.dead.extend(u32::try_from(number));
            return Ok(());
        }
        self.packed.records += 1;
        if to == To::Log {
            let span = self.log.span.get_or_insert((print.key, print.key));
            span.1 = print.key;
            self.log.digest.add(print.key, &print.value);
        }
        match &mut self.table {
            Some(table) => table.add(&Row::new(print, number)),
            None => Ok(()),
        }
    }

    /// Whatever comes next goes somewhere else.
    fn end_route(&mut self) -> Result<(), Error> {
        self.send()?;
        let log = std::mem::take(&mut self.log);
        if let Some((first, last)) = log.span {
            let what = PartKind::Log { digest: log.digest.value() };
            self.push(first, last, self.numbers, log.bytes, what);
        }
        self.numbers = 0;
        Ok(())
    }

    fn push(
        &mut self,
        first: RecordKey,
        last: RecordKey,
        records: u64,
        bytes: u64,
        what: PartKind,
    ) {
        let timeline = self.shared.facts.timeline;
        let dead = std::mem::take(&mut self.dead);
        self.packed.parts.push(Part { timeline, first, last, records, bytes, dead, what });
    }

    /// Sends off the run so far.
    fn send(&mut self) -> Result<(), Error> {
        let run = std::mem::take(&mut self.run);
        let Some(span) = Span::of(run.entries()) else { return Ok(()) };
        let facts = Facts {
            first: span.first.revision,
            last: span.last.revision,
            id: object::random_id()?,
            compact: None,
            ended: (self.shared.now)(),
            records: span.records,
            logical_bytes: span.raw,
            ..self.shared.facts.clone()
        };
        let (content, index_digest) = run.finish();
        match self.route {
            Some((_, To::Log)) => self.send_segment(facts, &content),
            _ => self.send_pack(facts, &span, &content, index_digest),
        }
    }

    fn send_pack(
        &mut self,
        facts: Facts,
        span: &Span,
        content: &[u8],
        index_digest: [u8; DIGEST],
    ) -> Result<(), Error> {
        if self.dead.len() == span.records {
            // It is garbage alone: no base would name it.
            self.dead.clear();
            self.numbers = 0;
            return Ok(());
        }
        let facts = Facts { kind: Kind::Pack, ..facts };
        let built = object::build(self.shared.archive, &facts, content)?;
        let (bytes, body_digest) = (built.bytes.len() as u64, built.body_digest);
        self.create(names::pack(facts.timeline, facts.id), built.bytes)?;
        let what = PartKind::Pack { id: facts.id, body_digest, index_digest };
        self.push(span.first, span.last, span.records, bytes, what);
        self.numbers = 0;
        Ok(())
    }

    fn send_segment(&mut self, facts: Facts, content: &[u8]) -> Result<(), Error> {
        let facts = Facts { kind: Kind::Segment, ..facts };
        let mut whole = segment::encode(&self.shared.notes);
        whole.extend_from_slice(content);
        let bytes = object::build(self.shared.archive, &facts, &whole)?.bytes;
        self.log.bytes += bytes.len() as u64;
        let place =
            SegmentName { level: 0, epoch: Epoch::NONE, first: facts.first, last: facts.last };
        let name = names::segment(facts.timeline, place, facts.id);
        self.create(name, bytes)
    }

    fn create(&mut self, name: String, bytes: Vec<u8>) -> Result<(), Error> {
        if self.sending.len() >= SENDING
            && let Some(oldest) = self.sending.pop_front()
        {
            oldest.wait()?;
        }
        self.packed.new_bytes += bytes.len() as u64;
        self.sending.push_back(self.shared.archive.store().create_later(&name, bytes));
        self.packed.written.push(name);
        Ok(())
    }
}

/// Marks a row of the older base as dead in its part.
fn bury(parts: &mut [Part], at: &mut usize, row: &Row) {
    let rest = parts.get_mut(*at..).unwrap_or_default();
    *at += rest.iter().take_while(|part| part.last < row.key).count();
    // What belongs to a part that is written anew is in none of these.
    let part = parts.get_mut(*at).filter(|part| part.first <= row.key);
    if let Some((part, number)) = part.zip(u32::try_from(row.number).ok()) {
        part.dead.insert(number);
    }
}

/// Takes away objects that no base names. What cannot be removed is collected later.
pub(super) fn remove(archive: &Archive, names: &[String]) {
    for name in names {
        let _ = archive.store().remove(name);
    }
}

/// What the blocks of a run hold.
struct Span {
    first: RecordKey,
    last: RecordKey,
    records: u64,
    /// Bytes before compression.
    raw: u64,
}

impl Span {
    fn of(entries: &[Entry]) -> Option<Self> {
        Some(Self {
            first: entries.first()?.first,
            last: entries.last()?.last,
            records: entries.iter().map(|entry| entry.records).sum(),
            raw: entries.iter().map(|entry| entry.raw as u64).sum(),
        })
    }
}
