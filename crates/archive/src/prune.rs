//! Pruning: bases that nothing keeps go, and later what they alone needed.
//!
//! A writer makes use of what a base needs that it has listed, and has at most half of the grace for
//! it. So data go in two steps: what no base needs is written into `prune/`, and goes when it has
//! stood there for the whole grace, by the store's clock and by this machine's, and still no base
//! needs it.
//!
//! What may never happen here: the newest base of a cluster taken away; data taken away that a base
//! needs, or that one may be being made of; anything while a base cannot be read, for nobody knows
//! what it needs.

use crate::archive::{Archive, BaseEntry, Stock, from_json, shown, to_json};
use crate::error::Error;
use crate::format::base::{Base, PartKind};
use crate::format::header::{HEADER_MAX, Moment};
use crate::format::{Kind, TimelineId};
use crate::plan::cover::{SegmentEntry, only_in};
pub use crate::plan::retain::{Policy, Reason};
use crate::plan::retain::{Standing, retain};
use crate::plan::standing::{restorable, standing};
use crate::read::read_base;
use crate::store::{Listed, StoreFaultKind};
use crate::tail::LogRange;
use crate::{host, names, object};
use rekindle_etcd::Revision;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// How long what nobody needs stays, in milliseconds.
pub const GRACE: i64 = 24 * 60 * 60 * 1000;
/// Most bytes of a mark.
const MARK_MAX: u64 = 256 << 20;
/// The version of marks.
const FORMAT: u16 = 1;

/// What a prune is to do.
#[derive(Clone, Debug)]
pub struct PruneRequest {
    /// What stays.
    pub policy: Policy,
    /// The most bases that go at once; the oldest go first.
    pub bases_max: usize,
    /// How long what nobody needs stays, in milliseconds: [`GRACE`], but for tests.
    pub grace: i64,
    /// The clock.
    pub now: Moment,
}

/// What a prune would do.
#[derive(Clone, Debug)]
pub struct PrunePlan {
    /// Every base, in the order of time, and why it stays or goes.
    pub bases: Vec<(BaseEntry, Reason)>,
    /// Bases that would go and wait for the next time.
    pub postponed: usize,
    /// What no base will need: it is marked now, and goes after the grace.
    pub marked: Vec<Listed>,
    /// What was marked before, for so long that it goes now.
    pub collected: Vec<Listed>,
    /// Revisions of the log that are in no segment any more afterwards.
    pub log: Vec<LogRange>,
    /// Files of hosts that no restore point is as old as.
    pub files: Vec<Listed>,
    /// Files in a directory that somebody began before the grace and never finished.
    pub staged: usize,
    /// What was needed by any base when it was made.
    before: BTreeSet<String>,
    /// Marks that name any of that.
    void: Vec<Mark>,
    needs: Needs,
    request: PruneRequest,
}

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Bases that went.
    pub bases: usize,
    /// Objects that are marked now.
    pub marked: usize,
    /// Objects that went.
    pub collected: usize,
    /// Their bytes.
    pub collected_bytes: u64,
    /// Files that somebody began and never finished.
    pub staged: usize,
    /// What the store does not let go, with its reason.
    pub held: Vec<(String, String)>,
}

/// `prune/<id>.json`.
#[derive(Debug, Serialize, Deserialize)]
struct MarkFile {
    format: u16,
    requires: Vec<String>,
    /// When, by the clock of who marked.
    marked: String,
    objects: Vec<String>,
    /// They hold what was to be erased: no rule that keeps the log keeps them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    erased: bool,
}

/// What was marked before.
#[derive(Clone, Debug)]
struct Mark {
    name: String,
    /// By the clock of who marked, and by the store's.
    marked: (Moment, Moment),
    objects: BTreeSet<String>,
    erased: bool,
}

/// Plans a prune. Touches nothing.
///
/// # Errors
/// What of the archive cannot be read: nothing is removed then.
pub fn plan_prune(archive: &Archive, request: &PruneRequest) -> Result<PrunePlan, Error> {
    let look = Look::at(archive, request, Needs::new())?;
    let mut reasons = retain(&look.bases, &request.policy, &look.standing, request.now);
    for (base, reason) in look.bases.iter().zip(&mut reasons) {
        if let Reason::Twin { base: other } = &reason
            && !(is_settled(archive, other, request.now, request.grace)?
                && is_same(archive, base, look.bases.iter().find(|base| base.name == *other))?)
        {
            *reason = Reason::Replaced;
        }
    }
    let mut left = request.bases_max;
    let mut postponed = 0;
    for reason in reasons.iter_mut().filter(|reason| !reason.stays()) {
        match left.checked_sub(1) {
            Some(fewer) => left = fewer,
            None => {
                *reason = Reason::Postponed;
                postponed += 1;
            }
        }
    }
    let bases: Vec<_> = look.bases.iter().cloned().zip(reasons).collect();
    let stays = |name: &String| bases.iter().any(|(base, it)| base.name == *name && it.stays());
    let needed_later = look.needed(stays);
    let before = look.needed(|_| true);
    // What the store's clock says of it shows when it goes.
    let is_ripe = |mark: &Mark| age(request.now, mark.marked.0) >= request.grace;
    let (ripe, marked) = look.marked(&before, is_ripe);
    let unneeded = |found: &&Listed| !needed_later.contains(&found.name);
    let marks = |found: &&Listed| !marked.contains(&found.name) && !ripe.contains(&found.name);
    let unneeded: Vec<_> = look.data.iter().filter(unneeded).collect();
    let marked = unneeded.iter().filter(|it| marks(it)).map(|it| (*it).clone()).collect();
    let ripe = unneeded.iter().filter(|it| ripe.contains(&it.name));
    let collected = ripe.map(|it| (*it).clone()).collect();
    let void = look.marks.iter().filter(|mark| !mark.objects.is_disjoint(&before));
    let void = void.cloned().collect();
    let staged = staged(archive, request)?.len();
    let files = archive.store().list(names::HOSTS)?;
    let kept = bases.iter().filter(|(_, reason)| reason.stays());
    let files = host::unneeded(&files, kept.map(|(base, _)| base.header.facts.state).min());
    let log = look.log_without(&needed_later, stays);
    let (needs, request) = (look.needs, request.clone());
    Ok(PrunePlan {
        bases,
        postponed,
        marked,
        collected,
        log,
        files,
        staged,
        before,
        void,
        needs,
        request,
    })
}

impl PrunePlan {
    /// Whether nothing would be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.going().next().is_none()
            && self.marked.is_empty()
            && self.collected.is_empty()
            && self.files.is_empty()
            && self.staged == 0
    }

    /// The bases that go.
    pub fn going(&self) -> impl Iterator<Item = &BaseEntry> {
        self.bases.iter().filter(|(_, reason)| !reason.stays()).map(|(base, _)| base)
    }

    /// Carries it out. What is there is looked at once more, so that what has come meanwhile counts.
    ///
    /// # Errors
    /// What of the archive cannot be read. What went is gone, and the next prune goes on.
    pub fn carry_out(self, archive: &Archive) -> Result<Pruned, Error> {
        let mut done = Pruned::default();
        // Once their bases are gone, nothing shows that these marks have begun too early.
        for mark in &self.void {
            void(archive, mark, &self.before, self.request.now)?;
        }
        // The time before the look: what takes long does not make a mark older.
        let store_now = store_time(archive, self.request.now)?;
        for (base, reason) in self.bases.iter().filter(|(_, reason)| !reason.stays()) {
            if let Reason::Twin { base: other } = reason
                && !is_settled(archive, other, store_now, self.request.grace)?
            {
                continue;
            }
            match remove(archive, &base.name)? {
                None => done.bases += 1,
                Some(reason) => done.held.push((base.name.clone(), reason)),
            }
        }
        for found in &self.files {
            match remove(archive, &found.name)? {
                None => {
                    done.collected += 1;
                    done.collected_bytes += found.bytes;
                }
                Some(reason) => done.held.push((found.name.clone(), reason)),
            }
        }
        let Self { needs, request, before, .. } = self;
        let look = Look::at(archive, &request, needs)?;
        let needed = look.needed(|_| true);
        // A mark says that nobody needed any of it since then; where somebody did, it begins again.
        let before: BTreeSet<_> = before.union(&needed).cloned().collect();
        let (_, still) = look.marked(&before, |_| false);
        let is_new = |it: &&Listed| !needed.contains(&it.name) && !still.contains(&it.name);
        let fresh: Vec<_> = look.data.iter().filter(is_new).map(|it| it.name.clone()).collect();
        done.marked = fresh.len();
        if !fresh.is_empty() {
            write_mark(archive, fresh, false, request.now)?;
        }
        let (ripe, _) = look.marked(&before, |mark| {
            let (own, stores) = mark.marked;
            age(request.now, own).min(age(store_now, stores)) >= request.grace
        });
        for found in look.data.iter().filter(|it| ripe.contains(&it.name)) {
            match remove(archive, &found.name)? {
                None => {
                    done.collected += 1;
                    done.collected_bytes += found.bytes;
                }
                Some(reason) => done.held.push((found.name.clone(), reason)),
            }
        }
        look.remove_marks(archive, &before)?;
        for file in staged(archive, &request)? {
            archive.store().remove_staged(&file)?;
            done.staged += 1;
        }
        Ok(done)
    }
}

/// Whether nobody will take a base away again that he has made of another one: it is there for the
/// grace, by the clock that says `now`.
fn is_settled(archive: &Archive, base: &str, now: Moment, grace: i64) -> Result<bool, Error> {
    match archive.store().modified(base) {
        Err(fault) if fault.kind == StoreFaultKind::NotFound => Ok(false),
        // Clocks differ, and nothing is younger than nothing.
        made => Ok(age(now, made?).max(0) >= grace),
    }
}

/// Whether two bases of which all facts are the same bring back the same.
fn is_same(archive: &Archive, one: &BaseEntry, other: Option<&BaseEntry>) -> Result<bool, Error> {
    let Some(other) = other else { return Ok(false) };
    let (one, other) = (read_base(archive, one)?, read_base(archive, other)?);
    let content = |base: &Base| (base.hash, base.kubernetes, base.erased);
    Ok(content(&one) == content(&other) && one.frame == other.frame)
}

/// Files that were begun before the grace: no save takes that long. By the clock of files.
fn staged(archive: &Archive, request: &PruneRequest) -> Result<Vec<PathBuf>, Error> {
    let grace = Duration::from_millis(request.grace.unsigned_abs());
    let before = SystemTime::now().checked_sub(grace);
    Ok(archive.store().staged(before.unwrap_or(SystemTime::UNIX_EPOCH))?)
}

fn age(now: Moment, at: Moment) -> i64 {
    now.0.saturating_sub(at.0)
}

/// Removes an object. Tells why the store does not let it go, where it may not.
pub(crate) fn remove(archive: &Archive, name: &str) -> Result<Option<String>, Error> {
    match archive.store().remove(name) {
        Err(fault) if fault.kind == StoreFaultKind::Denied => Ok(Some(fault.cause)),
        removed => Ok(removed.map(|()| None)?),
    }
}

/// Writes down what nobody needs; the mark's name.
pub(crate) fn write_mark(
    archive: &Archive,
    objects: Vec<String>,
    erased: bool,
    now: Moment,
) -> Result<String, Error> {
    let name = names::mark(object::random_id()?);
    let (requires, marked) = (Vec::new(), shown(now));
    let file = MarkFile { format: FORMAT, requires, marked, objects, erased };
    archive.store().create(&name, to_json(&file))?;
    Ok(name)
}

/// Names of what waits for the grace because it holds what was to be erased.
pub(crate) fn erased_objects(archive: &Archive) -> Result<BTreeSet<String>, Error> {
    let erased = marks(archive)?.into_iter().filter(|mark| mark.erased);
    Ok(erased.flat_map(|mark| mark.objects).collect())
}

/// Removes marks of what a base needs that is about to go: nobody needed it is what they say.
pub(crate) fn void_marks(
    archive: &Archive,
    needed: &BTreeSet<String>,
    now: Moment,
) -> Result<(), Error> {
    for mark in marks(archive)?.iter().filter(|mark| !mark.objects.is_disjoint(needed)) {
        void(archive, mark, needed, now)?;
    }
    Ok(())
}

/// Removes a mark. What it names beside is waiting from now on; that it holds what was erased stays
/// known.
fn void(
    archive: &Archive,
    mark: &Mark,
    needed: &BTreeSet<String>,
    now: Moment,
) -> Result<(), Error> {
    let rest: Vec<_> = mark.objects.difference(needed).cloned().collect();
    if mark.erased && !rest.is_empty() {
        write_mark(archive, rest, true, now)?;
    }
    remove(archive, &mark.name).map(drop)
}

/// The store's time, by an empty mark.
fn store_time(archive: &Archive, now: Moment) -> Result<Moment, Error> {
    let mark = write_mark(archive, Vec::new(), false, now)?;
    let at = archive.store().modified(&mark)?;
    archive.store().remove(&mark)?;
    Ok(at)
}

/// What bases need, by their names: they never change.
type Needs = BTreeMap<String, BTreeSet<String>>;

/// What there is.
struct Look {
    bases: Vec<BaseEntry>,
    needs: Needs,
    /// Packs and segments.
    data: Vec<Listed>,
    /// Of them what the kept log has, and what it takes to bring it back.
    log: BTreeSet<String>,
    /// The bases on which it stands.
    standing: Standing,
    /// Of each base behind which no other of its timeline comes: what the log has behind it. It is as new as
    /// nothing else, and stays as long as that base does.
    tails: BTreeMap<String, BTreeSet<String>>,
    marks: Vec<Mark>,
}

impl Look {
    /// Looks, and reads the bases of which is not known what they need.
    fn at(archive: &Archive, request: &PruneRequest, known: Needs) -> Result<Self, Error> {
        // Data before bases: what is named by a base that comes meanwhile is not listed.
        let listed = archive.store().list(names::TIMELINES)?;
        let data: Vec<_> = listed.into_iter().filter(|it| is_data_name(&it.name)).collect();
        let mut listing = archive.list()?;
        if let Some(unreadable) = listing.unreadable.pop() {
            return Err(unreadable);
        }
        let (mut needs, stock) = (Needs::new(), Stock::of(data.iter().cloned()));
        for entry in &listing.bases {
            let of_base = match known.get(&entry.name) {
                Some(of_base) => of_base.clone(),
                None => needs_of(&read_base(archive, entry)?, &stock),
            };
            needs.insert(entry.name.clone(), of_base);
        }
        let (mut log, marks) = (kept_log(archive, request, &stock)?, marks(archive)?);
        let mut tails = tails(&listing.bases, &stock);
        let is_erased =
            |name: &str| marks.iter().any(|mark| mark.erased && mark.objects.contains(name));
        let logs = tails.values_mut().chain([&mut log]);
        logs.for_each(|names| names.retain(|name| !is_erased(name)));
        let living = Stock::of(data.iter().filter(|it| !is_erased(&it.name)).cloned());
        let standing = stand(&listing.bases, &living, &mut log);
        let superseded = stock.superseded(is_erased, |merged| is_whole(archive, merged))?;
        let all = needs.values_mut().chain(tails.values_mut()).chain([&mut log]);
        all.for_each(|names| names.retain(|name| !superseded.contains(name)));
        Ok(Self { bases: listing.bases, needs, data, log, standing, tails, marks })
    }

    /// What the bases of these names need, and the kept log.
    fn needed(&self, wanted: impl Fn(&String) -> bool) -> BTreeSet<String> {
        let needs = self.needs.iter().chain(&self.tails);
        let of_bases = needs.filter(|(name, _)| wanted(name)).flat_map(|(_, it)| it);
        let bases = self.bases.iter().filter(|base| wanted(&base.name));
        let oldest = oldest_of_timelines(bases);
        let witnesses = self.data.iter().map(|it| &it.name).filter(|name| {
            // It speaks of a restore point that there is.
            let oldest = names::timeline_of(name).and_then(|timeline| oldest.get(&timeline));
            oldest.is_some_and(|oldest| names::parse_witness(name) >= Some(*oldest))
        });
        of_bases.chain(&self.log).chain(witnesses).cloned().collect()
    }

    /// The revisions of the log that can be brought back now, and not any more of what is needed.
    fn log_without(
        &self,
        needed: &BTreeSet<String>,
        stays: impl Fn(&String) -> bool,
    ) -> Vec<LogRange> {
        let going: BTreeSet<_> = self.marks.iter().flat_map(|mark| &mark.objects).collect();
        let there = self.data.iter().filter(|it| !going.contains(&it.name));
        let there = Stock::of(there.cloned());
        let left = Stock::of(self.data.iter().filter(|it| needed.contains(&it.name)).cloned());
        let staying = revisions_of(self.bases.iter().filter(|base| stays(&base.name)));
        let (all, none) = (revisions_of(&self.bases), BTreeSet::new());
        let of_timeline = |timeline| {
            let can = |stock: &Stock, bases: &BTreeMap<_, _>| {
                restorable(stock.log(timeline), bases.get(&timeline).unwrap_or(&none))
            };
            let gone = only_in(&can(&there, &all), &can(&left, &staying));
            gone.into_iter().map(move |(first, last)| LogRange { timeline, first, last })
        };
        there.timelines().flat_map(of_timeline).collect()
    }

    /// Names that were marked: where the mark is ripe, and where it is not. A mark of which anything
    /// was needed counts for nothing.
    fn marked(
        &self,
        needed: &BTreeSet<String>,
        is_ripe: impl Fn(&Mark) -> bool,
    ) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut ripe, mut unripe) = (BTreeSet::new(), BTreeSet::new());
        for mark in self.marks.iter().filter(|mark| mark.objects.is_disjoint(needed)) {
            let names = if is_ripe(mark) { &mut ripe } else { &mut unripe };
            names.extend(mark.objects.iter().cloned());
        }
        (ripe, unripe)
    }

    /// Removes marks that count for nothing, or of which nothing is left.
    fn remove_marks(&self, archive: &Archive, needed: &BTreeSet<String>) -> Result<(), Error> {
        let there = archive.store().list(names::TIMELINES)?;
        let there: BTreeSet<_> = there.into_iter().map(|it| it.name).collect();
        for mark in &self.marks {
            if !mark.objects.is_disjoint(needed) || mark.objects.is_disjoint(&there) {
                remove(archive, &mark.name)?;
            }
        }
        Ok(())
    }
}

/// Names of what a base needs: of the log every segment that has any of it.
pub(crate) fn needs_of(base: &Base, stock: &Stock) -> BTreeSet<String> {
    let mut needs = BTreeSet::new();
    for part in &base.parts {
        if let PartKind::Pack { id, .. } = part.what {
            needs.insert(names::pack(part.timeline, id));
            continue;
        }
        needs.extend(stock.touching(part).map(|segment| segment.name.clone()));
    }
    needs
}

/// Whether every byte of a segment is as it was written, sealed or not.
fn is_whole(archive: &Archive, segment: &SegmentEntry) -> Result<bool, Error> {
    let name = archive.store().full_name(&segment.name);
    let bytes = match archive.store().read(&segment.name, segment.bytes) {
        Err(fault) if matches!(fault.kind, StoreFaultKind::NotFound | StoreFaultKind::TooLarge) => {
            return Ok(false);
        }
        read => read?,
    };
    let header = object::parse(archive, &name, Kind::Segment, &bytes);
    Ok(header.is_ok_and(|header| header.body(&bytes).is_ok()))
}

fn oldest_of_timelines<'a>(
    bases: impl Iterator<Item = &'a BaseEntry>,
) -> BTreeMap<TimelineId, Revision> {
    let mut oldest = BTreeMap::new();
    for facts in bases.map(|base| &base.header.facts) {
        let revision = oldest.entry(facts.timeline).or_insert(facts.last);
        *revision = facts.last.min(*revision);
    }
    oldest
}

/// The revisions of bases, by their timelines.
fn revisions_of<'a>(
    bases: impl IntoIterator<Item = &'a BaseEntry>,
) -> BTreeMap<TimelineId, BTreeSet<Revision>> {
    let mut revisions: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for base in bases {
        let facts = &base.header.facts;
        revisions.entry(facts.timeline).or_default().insert(facts.last);
    }
    revisions
}

/// The bases on which a kept log stands; the log gets what leads from there to it.
fn stand(bases: &[BaseEntry], living: &Stock, log: &mut BTreeSet<String>) -> Standing {
    let mut all = Standing::new();
    for (timeline, revisions) in revisions_of(bases) {
        let there = living.log(timeline);
        let kept: Vec<_> = there.iter().filter(|it| log.contains(&it.name)).cloned().collect();
        let found = standing(there, &kept, &revisions);
        all.extend(found.bases.into_iter().map(|base| (timeline, base)));
        log.extend(found.segments);
    }
    all
}

/// Names of the segments behind each base that no other of its timeline comes behind.
fn tails(bases: &[BaseEntry], stock: &Stock) -> BTreeMap<String, BTreeSet<String>> {
    let newest: BTreeMap<_, _> = {
        let mut bases: Vec<_> = bases.iter().collect();
        bases.sort_by_key(|base| base.header.facts.last);
        bases.into_iter().map(|base| (base.header.facts.timeline, base)).collect()
    };
    let tail = |base: &BaseEntry| {
        let log = stock.log(base.header.facts.timeline).iter();
        let behind = log.filter(|it| !it.is_empty() && it.last > base.header.facts.last);
        (base.name.clone(), behind.map(|segment| segment.name.clone()).collect())
    };
    newest.into_values().map(tail).collect()
}

/// Names of the segments that are young enough for the kept log.
fn kept_log(
    archive: &Archive,
    request: &PruneRequest,
    stock: &Stock,
) -> Result<BTreeSet<String>, Error> {
    let Some(kept) = request.policy.log else { return Ok(BTreeSet::new()) };
    let listed = |it: &SegmentEntry| Listed { name: it.name.clone(), bytes: it.bytes };
    let segments: Vec<_> = stock.segments().map(listed).collect();
    let starts = archive.store().read_starts(segments.clone(), HEADER_MAX as u64);
    let mut log = BTreeSet::new();
    for (found, start) in segments.into_iter().zip(starts) {
        let name = archive.store().full_name(&found.name);
        let is_empty = names::parse_segment(&found.name).is_some_and(|it| it.first > it.last);
        let start = match start {
            // Whoever writes the log takes away what said that nothing had come until earlier.
            Err(fault) if fault.kind == StoreFaultKind::NotFound && is_empty => continue,
            start => start?,
        };
        let header = object::parse(archive, &name, Kind::Segment, &start)?;
        if request.now.0.saturating_sub(header.facts.state.0) <= kept {
            log.insert(found.name);
        }
    }
    Ok(log)
}

/// What was marked before.
fn marks(archive: &Archive) -> Result<Vec<Mark>, Error> {
    let store = archive.store();
    let mut marks = Vec::new();
    for found in store.list(names::PRUNE)? {
        let object = store.full_name(&found.name);
        let bytes = match store.read(&found.name, MARK_MAX) {
            // Another prune has taken it away: it allows nothing any more.
            Err(fault) if fault.kind == StoreFaultKind::NotFound => continue,
            read => read?,
        };
        let file: MarkFile = from_json(&object, &bytes)?;
        let marked = file
            .marked
            .parse::<jiff::Timestamp>()
            .map_err(|error| Error::Json { object: object.clone(), fault: error.to_string() })?;
        let created = match store.modified(&found.name) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound => continue,
            created => created?,
        };
        let marked = (Moment(marked.as_millisecond()), created);
        let objects = file.objects.into_iter().filter(|name| is_data_name(name)).collect();
        marks.push(Mark { name: found.name, marked, objects, erased: file.erased });
    }
    Ok(marks)
}

/// A mark of somebody else must not name anything but data.
fn is_data_name(name: &str) -> bool {
    let is_below = name.starts_with(names::TIMELINES) && !name.contains("..");
    is_below && [".pack", ".seg", ".witness"].iter().any(|end| name.ends_with(end))
}
