//! A base of a snapshot.
//!
//! One thread walks the snapshot in the order of its records, some digest and compress, one compares
//! with the cluster's last base and puts what is new into packs and segments. The base itself comes
//! last: what it names is there by then.

mod behind;
mod join;
mod pack;
mod table;
mod timeline;
mod together;
mod walk;

pub use join::{Contradiction, ContradictionKind, Counts};
pub(crate) use pack::PACK_TARGET;
pub(crate) use table::Row;

use crate::archive::{Archive, BaseEntry, Listing};
use crate::error::Error;
use crate::format::base::{Base, Part, PartKind};
use crate::format::header::{Facts, HEADER_MAX, Moment};
use crate::format::segment::{Notes, Times};
use crate::format::{Kind, TimelineId};
use crate::log::LogView;
use crate::plan::reuse::{Older, Route, To, routes};
use crate::store::{Listed, StoreFaultKind};
use crate::{names, object};
use behind::Behind;
use join::{Bounds, Join, Known};
use pack::{Packed, Packer, Shared};
use rekindle_bolt::ReadAt;
use rekindle_etcd::{Backend, ClusterId, MemberId, Revision, Status};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use table::{Table, TableWriter};
use timeline::Choice;
use walk::{Small, Walk, Walked};

/// Threads that digest and compress.
const WORKERS: usize = 2;
/// Blocks that wait between threads.
const WAITING: usize = 4;
/// A base must be published so long after its beginning, in milliseconds: half of the time for which
/// a prune leaves alone what nobody names.
pub(crate) const TIME_MAX: i64 = 12 * 60 * 60 * 1000;

/// What a snapshot does not say of itself.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The cluster that it is of.
    pub cluster: ClusterId,
    /// The member that gave it.
    pub member: MemberId,
    /// That member's version.
    pub etcd: String,
    /// When the first bytes of the snapshot had come: its state is of then or before.
    pub state: Moment,
    /// A linearizable read had been answered before, so it does not lag behind an older one.
    pub current: bool,
}

/// What is told of the making of a base, and what it listens to.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Bytes of the records that were walked over.
    pub walked: &'a AtomicU64,
    /// Set to end it.
    pub stop: &'a AtomicBool,
}

/// A base that is to be made.
#[derive(Clone, Copy)]
pub struct BaseRequest<'a> {
    /// The archive that it goes into.
    pub archive: &'a Archive,
    /// What its snapshot does not say of itself.
    pub origin: &'a Origin,
    /// Where this host keeps its digest tables; without one, every base is written in full.
    pub tables: Option<&'a Path>,
    /// What whoever follows the cluster has put into the archive's log, and still has at hand.
    pub log: Option<&'a LogView>,
    /// The cluster is known to be another one than what the archive's log has: a history begins.
    pub leaves: bool,
    /// The cluster is known to have what the archive's log has; otherwise that is looked at, and where it
    /// cannot be, a history begins.
    pub followed: bool,
    /// The cluster is known to have no base: where it has one by now, another host was quicker, and what that follows is
    /// not known here.
    pub first: bool,
    /// Write all records anew, and share none with an older base.
    pub full: bool,
    /// The clock.
    pub now: &'a (dyn Fn() -> Moment + Sync),
    /// See there.
    pub progress: Progress<'a>,
}

impl<'a> BaseRequest<'a> {
    /// One that follows nothing: what came since the last base comes from the snapshot.
    pub fn new(
        archive: &'a Archive,
        origin: &'a Origin,
        now: &'a (dyn Fn() -> Moment + Sync),
        progress: Progress<'a>,
    ) -> Self {
        let (tables, log, leaves, followed) = (None, None, false, true);
        let (first, full) = (false, false);
        Self { archive, origin, tables, log, leaves, followed, first, full, now, progress }
    }
}

/// How a base came to share records with an older one, or why it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// It is the first one of its timeline.
    First,
    /// The host knows nothing of an older base: it was written in full.
    Unknown {
        /// Why it does not.
        reason: String,
    },
    /// It goes on from an older base, record by record.
    Agreed {
        /// That base's revision.
        older: Revision,
        /// What was counted.
        counts: Counts,
    },
    /// It contradicts the last base, and was written in full into a timeline of its own.
    Contradicted {
        /// That base's revision.
        older: Revision,
        /// The first record that does.
        contradiction: Contradiction,
    },
}

/// A base that was written.
#[derive(Clone, Debug)]
pub struct BaseWritten {
    /// Its object.
    pub name: String,
    /// What its header says.
    pub facts: Facts,
    /// Packs and segments that were written.
    pub objects: usize,
    /// What the comparison with the last base said.
    pub comparison: Comparison,
}

/// A base whose packs are written. It becomes one when it is published; dropped before, it takes its
/// packs away again.
pub struct PreparedBase<'a> {
    request: BaseRequest<'a>,
    began: Moment,
    facts: Facts,
    base: Base,
    status: Status,
    written: Vec<String>,
    comparison: Comparison,
    table: Option<TableWriter>,
    unreadable: Vec<Error>,
    published: bool,
}

/// Compares what `backend` holds with the cluster's last base, writes what the archive does not have,
/// and prepares a base of it.
///
/// # Errors
/// [`Error`]; nothing that was written is part of a base then.
pub fn prepare_base<'a, S: ReadAt>(
    request: &BaseRequest<'a>,
    backend: &Backend<S>,
) -> Result<PreparedBase<'a>, Error> {
    let began = (request.now)();
    let etcd = backend.facts()?;
    request.archive.check_place()?;
    request.archive.check_openable()?;
    let mut listing = request.archive.list()?;
    let unreadable = std::mem::take(&mut listing.unreadable);
    let unreadable = unreadable.into_iter().map(says_nothing_of_others);
    let mut unreadable = unreadable.collect::<Result<Vec<_>, _>>()?;
    let position = (etcd.term, etcd.consistent_index);
    let mut choice = timeline::choose(request.archive, &listing, request.origin, position)?;
    if let (true, Choice::GoesOn(timeline)) = (request.first, &choice) {
        let claim = request.archive.activity(*timeline)?.claim;
        let host = claim.map_or_else(|| "another host".to_owned(), |claim| claim.host);
        let place = request.archive.store().place().to_owned();
        return Err(Error::Overtaken { place, host });
    }
    let (mut last, mut comparison) = last_base(request, &listing, &choice)?;
    let (mut behind, mut is_apart) = (Behind::Nothing, false);
    let mut followed = request.followed;
    if let Choice::GoesOn(timeline) = choice {
        followed = followed || together::seen(request, timeline)?;
        let newest = timeline::newest(&listing, timeline);
        let from = last.as_ref().map_or(newest, |last| last.revision);
        let (found, mut goes_on) =
            behind::look(request, timeline, followed, (from, etcd.revision()))?;
        behind = found;
        if last.is_none() {
            // Without digests of the last base nothing else compares the log.
            let found = std::mem::replace(&mut behind, Behind::Unknown);
            goes_on &= followed || found.agrees(backend, &mut unreadable)?;
        }
        if !goes_on {
            choice = Choice::leaves(timeline);
        }
    }
    let header = header(request, &etcd)?;
    loop {
        let timeline = choice.open(request.archive, request.origin.cluster, began)?;
        let facts = Facts { timeline, ..header.clone() };
        let older = last.as_ref().map(|last| (last.revision, last.timeline));
        let making = Making { request, backend, facts: &facts };
        let made = making.make(last.take(), std::mem::replace(&mut behind, Behind::Nothing));
        match (made, older) {
            // It is made again without what cannot be read.
            (Err(error @ Error::Journal { .. }), Some((_, timeline))) if !is_apart => {
                unreadable.push(error);
                (behind, is_apart) = (Behind::Unknown, true);
                match LastBase::find(request, &listing, timeline)? {
                    Ok(found) => last = Some(found),
                    Err(reason) => comparison = Some(Comparison::Unknown { reason }),
                }
                if !followed && matches!(choice, Choice::GoesOn(_)) {
                    choice = Choice::leaves(timeline);
                }
            }
            (Err(Error::Contradiction(contradiction)), Some((older, timeline))) => {
                choice = Choice::forks(timeline, contradiction.agreed());
                comparison = Some(Comparison::Contradicted { older, contradiction });
            }
            (made, older) => {
                let made = made?;
                let counts = made.packed.counts;
                let agreed = |(older, _)| Comparison::Agreed { older, counts };
                let comparison = comparison.or(older.map(agreed)).unwrap_or(Comparison::First);
                let mut prepared = made.prepare(*request, backend, facts, began, comparison)?;
                prepared.unreadable = unreadable;
                return Ok(prepared);
            }
        }
    }
}

/// The base that this one goes on from, or how it comes that there is none.
fn last_base(
    request: &BaseRequest<'_>,
    listing: &Listing,
    choice: &Choice,
) -> Result<(Option<LastBase>, Option<Comparison>), Error> {
    Ok(match choice {
        Choice::GoesOn(_) if request.full => {
            let reason = "that was asked for".to_owned();
            (None, Some(Comparison::Unknown { reason }))
        }
        Choice::GoesOn(timeline) => match LastBase::find(request, listing, *timeline)? {
            Ok(last) => (Some(last), None),
            Err(reason) => (None, Some(Comparison::Unknown { reason })),
        },
        Choice::Begins(_) => (None, Some(Comparison::First)),
    })
}

/// The facts of a base that is to be made, as far as they are known before it is.
fn header(request: &BaseRequest<'_>, etcd: &rekindle_etcd::Facts) -> Result<Facts, Error> {
    Ok(Facts {
        kind: Kind::Base,
        archive: request.archive.id(),
        timeline: TimelineId([0; 16]),
        id: object::random_id()?,
        first: Revision::default(),
        last: etcd.revision(),
        compact: etcd.compaction.revision(),
        term: etcd.term.unwrap_or_default(),
        index: etcd.consistent_index.unwrap_or_default(),
        state: request.origin.state,
        ended: Moment::default(),
        records: 0,
        keys: 0,
        logical_bytes: 0,
        new_bytes: 0,
        cluster: request.origin.cluster,
        member: request.origin.member,
        etcd: version(&request.origin.etcd),
        erased: false,
    })
}

/// A base that is damaged takes nothing away from one that is made now. Anything else may: the store may
/// not show what is there, or a later version of this program may have written it.
fn says_nothing_of_others(error: Error) -> Result<Error, Error> {
    match &error {
        Error::Damaged { fault, .. } if fault.is_too_new() => Err(error),
        Error::Damaged { .. }
        | Error::Stranger { .. }
        | Error::NotSealed { .. }
        | Error::Unsigned { .. }
        | Error::WrongSignature { .. } => Ok(error),
        _ => Err(error),
    }
}

/// Most bytes of a version that a header holds.
const ETCD_MAX: usize = 16;

fn version(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(ETCD_MAX).collect()
}

/// The last base of the cluster that this host has written.
struct LastBase {
    revision: Revision,
    compact: Option<Revision>,
    state: Moment,
    timeline: TimelineId,
    parts: Vec<Part>,
    rows: Known,
}

impl LastBase {
    /// Finds it, or says why there is none to go on from: its table may be gone or damaged, it may be
    /// of another timeline, or objects of it may be gone.
    fn find(
        request: &BaseRequest<'_>,
        listing: &Listing,
        timeline: TimelineId,
    ) -> Result<Result<Self, String>, Error> {
        let Some(path) = table_path(request) else {
            return Ok(Err("there is no spool".to_owned()));
        };
        let table = match Table::open(&path) {
            Ok(Some(table)) => table,
            Ok(None) => return Ok(Err("this host has not saved this cluster yet".to_owned())),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let is_it =
            |entry: &&BaseEntry| entry.name == table.base && entry.header.body_digest == table.body;
        let Some(entry) = listing.bases.iter().find(is_it) else {
            return Ok(Err("the last base of this host is not in the archive".to_owned()));
        };
        let facts = &entry.header.facts;
        if facts.timeline != timeline {
            return Ok(Err("the last base of this host is of another history".to_owned()));
        }
        if let Some(missing) = missing(request.archive, &table.parts)? {
            return Ok(Err(format!("the archive has lost {missing}")));
        }
        Ok(Ok(Self {
            revision: facts.last,
            compact: facts.compact,
            state: facts.state,
            timeline,
            parts: table.parts.clone(),
            rows: Known { table: table.into_rows(), log: None },
        }))
    }
}

fn table_path(request: &BaseRequest<'_>) -> Option<PathBuf> {
    let name = format!("{}-{}.table", request.archive.id(), request.origin.cluster);
    request.tables.map(|tables| tables.join(name))
}

/// The first object that parts need and that is not there whole.
pub(crate) fn missing(archive: &Archive, parts: &[Part]) -> Result<Option<String>, Error> {
    let stock = archive.stock(parts.iter().map(|part| part.timeline))?;
    let mut segments = BTreeMap::new();
    for part in parts {
        match part.what {
            PartKind::Pack { id, .. } => {
                let name = names::pack(part.timeline, id);
                if stock.packs.get(&name) != Some(&part.bytes) {
                    return Ok(Some(name));
                }
            }
            PartKind::Log { .. } => match stock.cover(part) {
                Ok(pieces) => segments.extend(
                    pieces.into_iter().map(|it| (it.segment.name.clone(), it.segment.bytes)),
                ),
                Err(lost) => return Ok(Some(format!("revision {lost} of the log"))),
            },
        }
    }
    let segments: Vec<_> =
        segments.into_iter().map(|(name, bytes)| Listed { name, bytes }).collect();
    let starts = archive.store().read_starts(segments.clone(), HEADER_MAX as u64);
    for (found, start) in segments.into_iter().zip(starts) {
        let name = archive.store().full_name(&found.name);
        let start = match start {
            Err(fault) if fault.kind == StoreFaultKind::NotFound => return Ok(Some(found.name)),
            start => start?,
        };
        let header = object::parse(archive, &name, Kind::Segment, &start);
        let size = header.map(|it| (it.size() as u64).saturating_add(it.body_bytes));
        if size.ok() != Some(found.bytes) {
            return Ok(Some(found.name));
        }
    }
    Ok(None)
}

/// A base that is being made of a snapshot.
struct Making<'a, 'r, S> {
    request: &'r BaseRequest<'a>,
    backend: &'r Backend<S>,
    /// Those that all its objects share.
    facts: &'r Facts,
}

/// The last base, with what the log has behind it.
fn with_log(last: LastBase, behind: Behind) -> LastBase {
    let Behind::Known(log) = behind else { return last };
    let LastBase { compact, timeline, mut parts, rows, .. } = last;
    let (revision, state) = (log.last, log.state());
    parts.push(log.part(timeline));
    let rows = Known { log: Some(log.rows()), ..rows };
    LastBase { revision, compact, state, timeline, parts, rows }
}

/// What was made.
struct Made {
    packed: Packed,
    small: Small,
    walked: Walked,
    table: Option<TableWriter>,
}

impl<S: ReadAt> Making<'_, '_, S> {
    /// Writes what the last base does not have; without one, everything.
    fn make(&self, last: Option<LastBase>, behind: Behind) -> Result<Made, Error> {
        let rest = match behind {
            Behind::Unknown => To::Pack,
            _ => To::Log,
        };
        let Some(last) = last.map(|last| with_log(last, behind)) else {
            let routes = routes(None, None, rest);
            let packer = self.packer(None, Vec::new(), Notes::default())?;
            return self.run(&routes, packer);
        };
        let compact = self.facts.compact.max(last.compact);
        let bounds = Bounds { older: last.revision, compact };
        let marks = vec![(last.revision, last.state), (self.facts.last, self.facts.state)];
        let times = Times { reckoned: true, marks };
        let older = Older { parts: last.parts, revision: last.revision };
        let rewritten = crate::plan::reuse::rewritten(&older.parts);
        let routes = routes(Some(&older), compact, rest);
        let parts = older.parts.into_iter().zip(rewritten);
        let kept = parts.filter(|(_, rewritten)| !rewritten).map(|(part, _)| part).collect();
        let join = Join::new(last.rows, bounds)?;
        let notes = Notes { times, ..Notes::default() };
        let packer = self.packer(Some(join), kept, notes)?;
        self.run(&routes, packer)
    }

    fn packer(
        &self,
        join: Option<Join>,
        kept: Vec<Part>,
        notes: Notes,
    ) -> Result<Packer<'_>, Error> {
        let (archive, facts, now) = (self.request.archive, self.facts, self.request.now);
        let table = table_path(self.request).map(|path| TableWriter::create(&path)).transpose()?;
        Ok(Packer::new(Shared { archive, facts, now, notes }, join, kept, table))
    }

    fn run(&self, routes: &[Route], packer: Packer<'_>) -> Result<Made, Error> {
        // What was not walked over to its end is no snapshot to be compared.
        let whole = &AtomicBool::new(false);
        std::thread::scope(|threads| {
            let (to_work, filled) = sync_channel(WAITING);
            let (to_pack, worked) = sync_channel(WAITING);
            // Only the workers hold it: when they are gone, the walk cannot wait for them.
            let filled = Arc::new(Mutex::new(filled));
            for _ in 0..WORKERS {
                let (filled, to_pack) = (Arc::clone(&filled), to_pack.clone());
                threads.spawn(move || pack::work(&filled, &to_pack));
            }
            drop((filled, to_pack));
            let packer = threads.spawn(move || packer.run(&worked, whole));
            let mut walk = Walk::new(&to_work, routes, &self.request.progress);
            let walked = walk.run(self.backend);
            let small = walk.small;
            whole.store(walked.is_ok(), Ordering::Relaxed);
            drop(to_work);
            let packed = packer.join().unwrap_or(Err(Error::Panicked));
            // A packer that has failed has ended the walk, too: what it says comes first.
            match (packed, walked) {
                (Err(Error::Stopped), Err(error)) | (Err(error), _) => Err(error),
                (Ok((packed, _)), Err(error)) => {
                    pack::remove(self.request.archive, &packed.written);
                    Err(error)
                }
                (Ok((packed, table)), Ok(walked)) => Ok(Made { packed, small, walked, table }),
            }
        })
    }
}

impl Made {
    fn prepare<'a, S: ReadAt>(
        self,
        request: BaseRequest<'a>,
        backend: &Backend<S>,
        mut facts: Facts,
        began: Moment,
        comparison: Comparison,
    ) -> Result<PreparedBase<'a>, Error> {
        let Self { packed, small, walked: Walked { status, hash }, table } = self;
        let Packed { parts, written, records, new_bytes, .. } = packed;
        facts.first = parts.first().map_or(facts.last, |part| part.first.revision);
        facts.records = records;
        facts.keys = status.live_keys.unwrap_or_default();
        facts.logical_bytes = small.record_bytes;
        facts.new_bytes = new_bytes;
        let kubernetes = small.kubernetes;
        let base = Base { hash, kubernetes, erased: 0, parts, frame: Vec::new() };
        let (published, unreadable) = (false, Vec::new());
        let mut prepared = PreparedBase {
            request,
            began,
            facts,
            base,
            status,
            written,
            comparison,
            table,
            unreadable,
            published,
        };
        if prepared.base.living() != Some(records) {
            return Err(Error::Panicked);
        }
        prepared.base.frame = small.frame.to_file(backend.db().page_size())?;
        Ok(prepared)
    }
}

impl PreparedBase<'_> {
    /// Older bases that cannot be read.
    #[must_use]
    pub fn unreadable(&self) -> &[Error] {
        &self.unreadable
    }

    /// What the snapshot holds, and whether it is sound.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Creates the base.
    ///
    /// # Errors
    /// [`Error`]; there is no base then.
    pub fn publish(mut self, now: Moment) -> Result<BaseWritten, Error> {
        if now.0.saturating_sub(self.began.0) > TIME_MAX {
            return Err(Error::TooLate);
        }
        self.facts.ended = now;
        let (archive, facts) = (self.request.archive, &self.facts);
        let name = names::base(facts.timeline, facts.last, facts.index, facts.id);
        let content = self.base.encode().map_err(|fault| Error::damaged(&name, fault))?;
        let object = object::build(archive, facts, &content)?;
        if archive.store().locks() {
            // Before the base is: one that is there is locked with all that it needs.
            archive.lock_for_longer(&self.base.parts, |name| !self.written.contains(name))?;
        }
        let created = archive.store().create(&name, object.bytes);
        // After a fault that says nothing of it, it may be there after all, and needs its packs.
        self.published = match &created {
            Ok(()) => true,
            Err(fault) => fault.may_be_done(),
        };
        created?;
        // What was written into another place of that name is no base of it.
        archive.check_place()?;
        self.still_there(&name)?;
        if let Some(table) = self.table.take() {
            table.commit(&name, &object.body_digest, &self.base)?;
        }
        Ok(BaseWritten {
            name,
            facts: self.facts.clone(),
            objects: self.written.len(),
            comparison: self.comparison.clone(),
        })
    }

    /// What the base shares with an older one, or has written itself, may have been pruned since
    /// then: a prune did not know of this base. Then it is none.
    fn still_there(&self, name: &str) -> Result<(), Error> {
        let Some(object) = missing(self.request.archive, &self.base.parts)? else { return Ok(()) };
        self.request.archive.store().remove(name)?;
        pack::remove(self.request.archive, &self.written);
        Err(Error::Vanished { object })
    }
}

impl Drop for PreparedBase<'_> {
    fn drop(&mut self) {
        if !self.published {
            pack::remove(self.request.archive, &self.written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use rekindle_bolt::{BulkWriter, Layout};
    use rekindle_etcd::{RecordKey, schema};

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
            state: Moment(0),
            current: true,
        };
        let progress = Progress { walked: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
        let now = || Moment(1);
        let request = BaseRequest::new(&archive, &origin, &now, progress);
        let prepared = prepare_base(&request, &a_backend()).unwrap();
        let facts = &prepared.facts;
        let [pack] = &prepared.written[..] else { panic!("{:?}", prepared.written) };
        let pack = pack.clone();
        let name = names::base(facts.timeline, facts.last, facts.index, facts.id);
        archive.store().create(&name, b"in the way".to_vec()).unwrap();
        archive.store().read(&pack, 1000).unwrap();
        let failed = prepared.publish(now()).unwrap_err();
        assert!(matches!(&failed, Error::Store(fault) if fault.kind == StoreFaultKind::Exists));
        let gone = archive.store().read(&pack, 1000).unwrap_err();
        assert_eq!(gone.kind, StoreFaultKind::NotFound);
    }
}
