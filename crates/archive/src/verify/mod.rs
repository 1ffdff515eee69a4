//! Verifying an archive: looking at what its bases need, and judging by what was seen.
//!
//! What may never happen here: an object that is changed; a restore point called good of which a
//! needed object was not seen; a store that fails for a moment taken for data that are lost.

pub(crate) mod proof;
pub(crate) mod reading;
mod testimony;

pub use crate::plan::verdict::{Finding, Level, Point, Verdict, Word};

use crate::archive::{Archive, BaseEntry, Stock};
use crate::error::Error;
use crate::forks;
use crate::format::base::{Base, PartKind};
use crate::format::header::{HEADER_MAX, Moment};
use crate::format::{FormatFault, Kind, TimelineId};
use crate::names;
use crate::object;
use crate::plan::cover::SegmentEntry;
use crate::plan::verdict::{Observed, Seen, Sight, Trouble, judge};
use crate::prune;
use crate::read::read_base;
use crate::store::{Listed, StoreFaultKind};
use reading::{Reading, What};
use rekindle_etcd::Revision;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What no base names is left over when it is so old, in milliseconds: half of that is the longest
/// that a save may take.
const GRACE: i64 = 24 * 60 * 60 * 1000;

/// What is to be verified.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// How thoroughly.
    pub level: Level,
    /// Names of the bases that are verified; none: all of them, and what nobody needs is told, too.
    pub only: Option<Vec<String>>,
    /// The clock.
    pub now: Moment,
}

/// What is told of a verification, and what it listens to.
#[derive(Clone, Copy, Debug)]
pub struct VerifyProgress<'a> {
    /// Bytes that were read; of a proof the bytes of its records.
    pub done: &'a AtomicU64,
    /// Set to end it.
    pub stop: &'a AtomicBool,
}

impl VerifyProgress<'_> {
    pub(crate) fn add(&self, bytes: usize) {
        self.done.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether somebody wants that.
    pub(crate) fn go_on(&self) -> Result<(), Error> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::Stopped),
            false => Ok(()),
        }
    }
}

/// An archive of which is known what its bases need.
pub struct Verification<'a> {
    archive: &'a Archive,
    level: Level,
    pub(crate) observed: Observed,
    /// What is read, by its name; bases are not among it, they were read already.
    pub(crate) readings: BTreeMap<Arc<str>, Reading>,
}

impl<'a> Verification<'a> {
    /// Lists the archive and reads its bases.
    ///
    /// # Errors
    /// [`Error::Store`] where the archive cannot be listed; what a later version of this program has
    /// written.
    pub fn begin(archive: &'a Archive, request: &VerifyRequest) -> Result<Self, Error> {
        let mut listed = archive.store().list(names::TIMELINES)?;
        if request.only.is_none() {
            listed.extend(archive.store().list(names::HOSTS)?);
        }
        let listed: BTreeMap<_, _> = listed.into_iter().map(|it| (it.name, it.bytes)).collect();
        let (level, observed, readings) = (request.level, Observed::default(), BTreeMap::new());
        let mut this = Self { archive, level, observed, readings };
        let listing = archive.list()?;
        let wanted = |name: &str| {
            request.only.as_ref().is_none_or(|only| only.iter().any(|wanted| wanted == name))
        };
        for error in listing.unreadable {
            this.add_headless(error, &wanted)?;
        }
        let stock = archive.stock(listing.bases.iter().map(|base| base.header.facts.timeline))?;
        for entry in listing.bases.into_iter().filter(|entry| wanted(&entry.name)) {
            match read_base(archive, &entry) {
                Ok(base) => this.add_base(&stock, entry, &base),
                Err(error) => this.add_bad_base(entry, error)?,
            }
        }
        // What holds what was erased is no part of the log any more.
        let erased = match prune::erased_objects(archive) {
            Err(Error::Json { .. } | Error::TooNew { .. } | Error::Requires { .. }) => {
                BTreeSet::new()
            }
            erased => erased?,
        };
        if request.only.is_none() {
            // Of those without a record the last one alone says anything, and others go at any time.
            let log = stock.segments().filter(|it| !it.is_empty() && !erased.contains(&it.name));
            log.for_each(|segment| _ = this.need_segment(segment));
            let is_witness = |name: &&String| names::parse_witness(name).is_some();
            for name in listed.keys().filter(is_witness) {
                let bytes = listed.get(name).copied().unwrap_or_default();
                this.need(name.clone(), || Reading::new(What::Witness, bytes));
            }
            for (name, bytes) in
                listed.iter().filter(|(name, _)| names::parse_files(name).is_some())
            {
                this.need(name.clone(), || Reading::new(What::Files, *bytes));
            }
        }
        this.look_at_needed(&listed)?;
        if request.only.is_none() {
            this.look_at_the_rest(&listed, &erased, request.now)?;
        }
        Ok(this)
    }

    /// Bytes that [`VerifyProgress::done`] will come to, about; witnesses add to it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let logical = |point: &Seen| point.entry.header.facts.logical_bytes;
        match self.level {
            Level::Listed => 0,
            Level::Read => self.readings.values().map(|reading| reading.bytes).sum(),
            Level::Proven => self.observed.points.iter().map(logical).sum(),
        }
    }

    /// Reads what is to be read, and judges.
    ///
    /// # Errors
    /// [`Error::Stopped`]; what keeps this machine from verifying; what a later version of this
    /// program has written.
    pub fn run(mut self, progress: VerifyProgress<'_>) -> Result<Verdict, Error> {
        if self.level == Level::Proven {
            self.prove(progress)?;
        }
        if self.level >= Level::Read {
            self.read(progress, |_| true)?;
        }
        let forks = match self.level {
            Level::Listed => Vec::new(),
            Level::Read | Level::Proven => self.forks(progress)?,
        };
        let mut verdict = judge(self.level, &self.observed);
        verdict.findings.extend(forks);
        verdict.sort();
        if self.level == Level::Proven {
            testimony::compare(self.archive, &mut verdict, progress)?;
        }
        Ok(verdict)
    }

    /// Segments that are good and tell different things.
    fn forks(&self, progress: VerifyProgress<'_>) -> Result<Vec<Finding>, Error> {
        let mut logs: BTreeMap<TimelineId, Vec<SegmentEntry>> = BTreeMap::new();
        for (name, reading) in &self.readings {
            let is_good = self.observed.objects.get(name) == Some(&Sight::Good);
            if let Some(timeline) = names::timeline_of(name)
                && let Some(segment) = SegmentEntry::named(name, reading.bytes)
                && is_good
            {
                logs.entry(timeline).or_default().push(segment);
            }
        }
        let mut findings = Vec::new();
        for log in logs.values() {
            let forks = forks::find(self.archive, log.iter().collect(), || progress.go_on())?;
            findings.extend(forks.into_iter().map(|fork| {
                let [object, other] = fork.objects;
                Finding {
                    word: Word::Forked,
                    object,
                    reason: format!("{other} has the same revisions in another way"),
                    revisions: Some((fork.revision, fork.revision)),
                    takes: Vec::new(),
                    is_gap: false,
                }
            }));
        }
        Ok(findings)
    }

    /// Reads only what this base needs, which could not be brought back: which others can, as far as
    /// they share the damage with it or the listing shows it.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_around(
        mut self,
        base: &BaseEntry,
        progress: VerifyProgress<'_>,
    ) -> Result<Verdict, Error> {
        let of_base = self.observed.points.iter().find(|point| point.entry == *base);
        let needs: BTreeSet<_> = of_base.into_iter().flat_map(|it| it.needs.clone()).collect();
        self.read(progress, |name| needs.contains(name))?;
        Ok(judge(Level::Listed, &self.observed))
    }

    /// Reads and compares what is there and was not proven.
    fn read(
        &mut self,
        progress: VerifyProgress<'_>,
        wanted: impl Fn(&Arc<str>) -> bool,
    ) -> Result<(), Error> {
        let unread = self.readings.iter().filter(|(name, reading)| {
            let sight = self.observed.objects.get(*name);
            !reading.was_proven && sight == Some(&Sight::Good) && wanted(name)
        });
        let unread: Vec<_> = unread.collect();
        let outcomes = reading::read_all(self.archive, &unread, progress, &|_, _| Ok(()))?;
        for (name, outcome) in outcomes {
            self.observed.objects.insert(name, sight_of(outcome)?);
        }
        Ok(())
    }

    fn prove(&mut self, progress: VerifyProgress<'_>) -> Result<(), Error> {
        let objects = &self.observed.objects;
        for point in &mut self.observed.points {
            let good = |name: &Arc<str>| objects.get(name).is_none_or(|seen| *seen == Sight::Good);
            let own: Arc<str> = point.entry.name.as_str().into();
            if point.trouble.is_some() || !good(&own) || !point.needs.iter().all(good) {
                continue;
            }
            point.trouble = proof::prove(self.archive, &point.entry, progress)?;
            if point.trouble.is_some() {
                continue;
            }
            for name in &point.needs {
                if let Some(reading) = self.readings.get_mut(name) {
                    reading.was_proven = true;
                }
            }
        }
        Ok(())
    }

    /// How an object of the archive is read and compared, if it is known.
    pub(crate) fn reading_of(&self, name: &Arc<str>) -> Option<Reading> {
        let base = || {
            let mut entries = self.observed.points.iter().map(|point| &point.entry);
            entries.find(|entry| *entry.name == **name)
        };
        let reading = self.readings.get(name).cloned();
        reading.or_else(|| Some(Reading::new(What::Base, base()?.bytes)))
    }

    /// Names of the segments that have any of these revisions.
    pub(crate) fn segments_of(&self, first: Revision, last: Revision) -> Vec<Arc<str>> {
        let has_any = |name: &&Arc<str>| {
            let revisions = self.observed.revisions.get(*name);
            revisions.is_some_and(|(from, to)| *from <= last && *to >= first)
        };
        let segments = self.readings.iter().filter(|(_, it)| matches!(it.what, What::Segment));
        segments.map(|(name, _)| name).filter(has_any).cloned().collect()
    }

    /// A base whose very header cannot be read.
    fn add_headless(&mut self, error: Error, wanted: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        let Some(object) = error.object() else { return Err(error) };
        let place = self.archive.store().full_name("");
        let name: Arc<str> = object.strip_prefix(&place).unwrap_or(object).into();
        if wanted(&name) {
            let sight = sight_of(Err(error))?;
            self.observed.objects.insert(Arc::clone(&name), sight);
            self.observed.headless.insert(name);
        }
        Ok(())
    }

    fn add_bad_base(&mut self, entry: BaseEntry, error: Error) -> Result<(), Error> {
        let (name, facts): (Arc<str>, _) = (entry.name.as_str().into(), &entry.header.facts);
        self.observed.objects.insert(Arc::clone(&name), sight_of(Err(error))?);
        self.observed.revisions.insert(name, (facts.first, facts.last));
        self.observed.points.push(Seen { entry, needs: Vec::new(), trouble: None });
        Ok(())
    }

    /// A base whose own bytes were read and compared.
    fn add_base(&mut self, stock: &Stock, entry: BaseEntry, base: &Base) {
        let (mut needs, mut trouble) = (Vec::new(), None);
        self.observed.objects.insert(entry.name.as_str().into(), Sight::Good);
        self.need(names::timeline(entry.header.facts.timeline), || Reading::new(What::Timeline, 0));
        for part in &base.parts {
            let revisions = (part.first.revision, part.last.revision);
            if let PartKind::Pack { id, .. } = part.what {
                let pack = names::pack(part.timeline, id);
                let pack = self.need(pack, || Reading::new(What::Pack(Vec::new()), part.bytes));
                self.readings.entry(Arc::clone(&pack)).and_modify(|known| known.expect(part));
                self.observed.revisions.insert(Arc::clone(&pack), revisions);
                needs.push(pack);
                continue;
            }
            match stock.cover(part) {
                Ok(pieces) => {
                    needs.extend(pieces.iter().map(|piece| self.need_segment(piece.segment)));
                }
                Err(missing) => {
                    let reason = format!("no segment has revision {missing} of the log");
                    let revisions = Some(revisions);
                    trouble = trouble.or(Some(Trouble { word: Word::Lost, reason, revisions }));
                }
            }
        }
        self.observed.points.push(Seen { entry, needs, trouble });
    }

    fn need_segment(&mut self, segment: &SegmentEntry) -> Arc<str> {
        let reading = || Reading::new(What::Segment, segment.bytes);
        let name = self.need(segment.name.clone(), reading);
        let revisions = (segment.first, segment.last);
        self.observed.revisions.insert(Arc::clone(&name), revisions);
        name
    }

    /// An object is to be read; its name is kept once.
    fn need(&mut self, name: String, reading: impl FnOnce() -> Reading) -> Arc<str> {
        if let Some((name, _)) = self.readings.get_key_value(name.as_str()) {
            return Arc::clone(name);
        }
        let name: Arc<str> = name.into();
        self.readings.insert(Arc::clone(&name), reading());
        name
    }

    /// Compares what is needed with the listing; what that does not show is asked for.
    fn look_at_needed(&mut self, listed: &BTreeMap<String, u64>) -> Result<(), Error> {
        let (mut unlisted, mut segments) = (Vec::new(), Vec::new());
        for (name, reading) in &self.readings {
            let found = |bytes| Listed { name: name.to_string(), bytes };
            let sight = match (listed.get(&**name), &reading.what) {
                (None, _) => {
                    unlisted.push(found(1));
                    continue;
                }
                (Some(bytes), What::Segment) => {
                    segments.push(found(*bytes));
                    continue;
                }
                (Some(bytes), What::Pack(_)) if *bytes != reading.bytes => {
                    let want = reading.bytes;
                    Sight::Bad(format!("it has {bytes} bytes, and should have {want}"))
                }
                (Some(_), _) => Sight::Good,
            };
            self.observed.objects.insert(Arc::clone(name), sight);
        }
        let store = self.archive.store();
        let starts = store.read_starts(unlisted.clone(), 1);
        for (found, start) in unlisted.into_iter().zip(starts) {
            let seen = start.map(drop).map_err(Error::from);
            self.observed.objects.insert(found.name.into(), sight_of(seen)?);
        }
        let starts = store.read_starts(segments.clone(), HEADER_MAX as u64);
        for (found, start) in segments.into_iter().zip(starts) {
            let seen = start.map_err(Error::from);
            let seen = seen.and_then(|start| self.check_size(&found, Kind::Segment, &start));
            self.observed.objects.insert(found.name.into(), sight_of(seen.map(drop))?);
        }
        Ok(())
    }

    /// The size of an object is the one that its header says. Tells when it was ended.
    fn check_size(&self, found: &Listed, kind: Kind, start: &[u8]) -> Result<Moment, Error> {
        let name = self.archive.store().full_name(&found.name);
        let header = object::parse(self.archive, &name, kind, start)?;
        let want = (header.size() as u64).saturating_add(header.body_bytes);
        let what = "its body";
        match found.bytes {
            bytes if bytes < want => Err(Error::damaged(&name, FormatFault::Ends { what })),
            bytes if bytes > want => {
                let extra = usize::try_from(bytes - want).unwrap_or(usize::MAX);
                Err(Error::damaged(&name, FormatFault::Extra { what, extra }))
            }
            _ => Ok(header.facts.ended),
        }
    }

    /// Looks at what is there and not needed by any base that can be read.
    fn look_at_the_rest(
        &mut self,
        listed: &BTreeMap<String, u64>,
        erased: &BTreeSet<String>,
        now: Moment,
    ) -> Result<(), Error> {
        // Of claims and signs none is needed for a restore point.
        let is_empty = |name: &str| {
            names::parse_segment(name).is_some_and(|segment| segment.first > segment.last)
        };
        let is_data = |name: &str| {
            names::parse_claim(name).is_none()
                && names::parse_sign(name).is_none()
                && name.starts_with(names::TIMELINES)
                && !is_empty(name)
        };
        let rest = listed.iter().filter(|(name, _)| is_data(name));
        let rest = rest.filter(|(name, _)| !self.observed.objects.contains_key(&***name));
        let rest = rest.map(|(name, bytes)| Listed { name: name.clone(), bytes: *bytes });
        let rest: Vec<_> = rest.collect();
        let starts = self.archive.store().read_starts(rest.clone(), HEADER_MAX as u64);
        for (found, start) in rest.into_iter().zip(starts) {
            let kind = if found.name.ends_with(".seg") { Kind::Segment } else { Kind::Pack };
            let seen = start.map_err(Error::from);
            let sight = match seen.and_then(|start| self.check_size(&found, kind, &start)) {
                Ok(ended)
                    if now.0.saturating_sub(ended.0) < GRACE && !erased.contains(&found.name) =>
                {
                    Sight::Young
                }
                _ => Sight::Old,
            };
            self.observed.objects.insert(found.name.into(), sight);
        }
        Ok(())
    }
}

/// What an object's reading comes to. What says nothing of the object is an error of its own: so does
/// what only a later version of this program knows, or what is sealed to others.
pub(crate) fn sight_of(seen: Result<(), Error>) -> Result<Sight, Error> {
    let Err(error) = seen else { return Ok(Sight::Good) };
    Ok(match error {
        Error::Store(fault) => match fault.kind {
            StoreFaultKind::NotFound => Sight::Bad("it is not there".to_owned()),
            StoreFaultKind::TooLarge => Sight::Bad(fault.cause),
            _ => Sight::Withheld(fault.cause),
        },
        Error::Damaged { ref fault, .. } if fault.is_too_new() => return Err(error),
        Error::Damaged { fault, .. } => Sight::Bad(fault.to_string()),
        Error::Json { fault, .. } => Sight::Bad(fault),
        Error::Stranger { got, .. } => Sight::Bad(format!("it belongs to {got}")),
        Error::Missing { .. }
        | Error::LogMissing { .. }
        | Error::Log { .. }
        | Error::Source(_)
        | Error::NotSealed { .. }
        | Error::Unsigned { .. }
        | Error::WrongSignature { .. } => Sight::Bad(error.to_string()),
        _ => return Err(error),
    })
}
