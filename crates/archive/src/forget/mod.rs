//! Erasing records on demand: secrets that were changed, data of persons.
//!
//! Packs are written anew with such records empty, so that no record changes its number; what a base
//! takes of the log, where that has any of them, becomes packs, too. Bases that use these are written
//! anew, with such records among the dead, and then the old ones go. Segments are written anew, too, for
//! points between bases and behind them; bases never take any of these, for they know the log by what it
//! was. The old packs and segments are
//! marked, and go as whatever no base needs: after the grace, for a writer may be using them.
//!
//! Several may do so at once. Whoever removes a base has created one himself that stands for it, and has
//! seen the old one once more since then; who does not see it takes his own away again, for somebody
//! else has made of the old one what he knows nothing of. So one is always left, and of what anybody
//! erases nothing comes back. Two may be left that are the same: a prune removes one.
//!
//! What may never happen here: a restore point that is gone before another one stands for it; one that
//! says that it is whole and is not; one that was damaged and seems to be good afterwards.

mod erase;
mod expect;
mod search;

use crate::archive::{Archive, BaseEntry, Stock};
use crate::error::Error;
use crate::format::TimelineId;
use crate::format::header::Moment;
use crate::names;
use crate::plan::cover::SegmentEntry;
use crate::prune;
use crate::tail::LogRange;
use crate::verify::VerifyProgress;
use erase::{Eraser, Renewed};
use rekindle_etcd::Revision;
use search::{Found, Losses, Search};
use std::collections::{BTreeMap, BTreeSet};

/// Which records are to be erased: all versions of some keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The key, or what the keys begin with; not empty.
    pub key: Vec<u8>,
    /// All keys that begin so.
    pub prefix: bool,
    /// Only versions up to this revision; none: all of them.
    pub to: Option<Revision>,
}

impl Forgotten {
    /// Whether a key is one of these. None is empty: that is a record that was erased, or etcd's own.
    fn is(&self, key: &[u8]) -> bool {
        match self.prefix {
            true => !key.is_empty() && key.starts_with(&self.key),
            false => !key.is_empty() && key == self.key,
        }
    }

    /// Whether a record of that key and revision is one of these.
    fn takes(&self, key: &[u8], revision: Revision) -> bool {
        self.is(key) && self.to.is_none_or(|to| revision <= to)
    }
}

/// What is to be erased, and how that is watched.
#[derive(Clone, Copy)]
pub struct ForgetRequest<'a> {
    /// Which records.
    pub what: &'a Forgotten,
    /// The clock.
    pub now: &'a dyn Fn() -> Moment,
    /// Bytes that were read, and whether to go on.
    pub progress: VerifyProgress<'a>,
}

/// A restore point that is written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgetPoint {
    /// Its base.
    pub entry: BaseEntry,
    /// Records that it loses: none where they only lie beside its own.
    pub records: u64,
    /// Keys that are gone after a restore of it.
    pub keys: u64,
}

/// A restore point that is to be written anew.
#[derive(Clone, Debug)]
struct Going {
    point: ForgetPoint,
    losses: Losses,
}

/// What would be erased.
#[derive(Clone, Debug)]
pub struct ForgetPlan {
    going: Vec<Going>,
    /// Packs and segments that have any of it, or of which nobody can say and no base needs them.
    objects: BTreeMap<String, Found>,
    /// Those segments among them that are written anew.
    segments: Vec<(TimelineId, SegmentEntry)>,
}

/// What was erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgot {
    /// Restore points that were written anew.
    pub bases: usize,
    /// Packs that were written for that.
    pub packs: usize,
    /// Segments of the log that were written anew.
    pub segments: usize,
    /// Old packs and segments, which go with a prune after the grace.
    pub marked: usize,
    /// Bytes of these.
    pub marked_bytes: u64,
    /// Bases that the store does not let go, with its reason: they have the records still.
    pub held: Vec<(String, String)>,
}

/// Looks for records that are to be erased. Touches nothing.
///
/// # Errors
/// What of the restore points cannot be read: nobody knows what they have.
pub fn plan_forget(archive: &Archive, request: &ForgetRequest<'_>) -> Result<ForgetPlan, Error> {
    let mut listing = archive.list()?;
    if let Some(unreadable) = listing.unreadable.pop() {
        return Err(unreadable);
    }
    let mut search = Search::new(archive, request, listing.bases)?;
    search.look_through()?;
    let points = search.points()?;
    let going = points.into_iter().map(|(point, losses)| Going { point, losses }).collect();
    let segments = search.segments();
    let objects = search.objects.into_iter().filter(|(_, found)| found.goes());
    Ok(ForgetPlan { going, objects: objects.collect(), segments })
}

impl ForgetPlan {
    /// The restore points that are written anew, in the order of time.
    pub fn points(&self) -> impl ExactSizeIterator<Item = &ForgetPoint> {
        self.going.iter().map(|going| &going.point)
    }

    /// How many packs and segments have any of it, and their bytes.
    #[must_use]
    pub fn objects(&self) -> (usize, u64) {
        self.count(false)
    }

    /// The revisions of which segments of the log are written anew, each with its timeline.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = LogRange> {
        let range = |(timeline, segment): &(TimelineId, SegmentEntry)| LogRange {
            timeline: *timeline,
            first: segment.first,
            last: segment.last,
        };
        self.segments.iter().map(range)
    }

    /// How many packs and segments are damaged so that nobody knows what they have, and their bytes. No
    /// restore point needs them; they go, too.
    #[must_use]
    pub fn unreadable(&self) -> (usize, u64) {
        self.count(true)
    }

    fn count(&self, unreadable: bool) -> (usize, u64) {
        let found = self.objects.values().filter(|found| found.is_unreadable == unreadable);
        found.fold((0, 0), |(count, bytes), found| (count + 1, bytes + found.bytes))
    }

    /// Whether there is nothing to erase.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.going.is_empty() && self.objects.is_empty()
    }

    /// Carries it out, and looks again until nothing is found: somebody may have saved meanwhile.
    ///
    /// # Errors
    /// What of the archive cannot be read or written. Every restore point is there as it was, or
    /// without the records; the next run goes on.
    pub fn carry_out(
        mut self,
        archive: &Archive,
        request: &ForgetRequest<'_>,
    ) -> Result<Forgot, Error> {
        archive.check_writable()?;
        archive.check_openable()?;
        let mut work = Work::new(archive, request);
        while work.is_left(&self) {
            work.erase(&self)?;
            self = plan_forget(archive, request)?;
        }
        work.done.packs = work.eraser.written;
        work.done.segments = work.eraser.segments;
        Ok(work.done)
    }
}

/// Erasing, round by round.
struct Work<'a> {
    archive: &'a Archive,
    request: &'a ForgetRequest<'a>,
    eraser: Eraser<'a>,
    done: Forgot,
    /// Bases that the store does not let go.
    held: BTreeSet<String>,
    /// Packs and segments that these need.
    needed: BTreeSet<String>,
    /// Segments that were written anew.
    renewed: BTreeSet<String>,
}

impl<'a> Work<'a> {
    fn new(archive: &'a Archive, request: &'a ForgetRequest<'a>) -> Self {
        let eraser = Eraser::new(archive, request);
        let (held, needed, renewed) = Default::default();
        Self { archive, request, eraser, done: Forgot::default(), held, needed, renewed }
    }

    /// Whether a plan has anything but what the store does not let go.
    fn is_left(&self, plan: &ForgetPlan) -> bool {
        plan.points().any(|point| !self.held.contains(&point.entry.name))
            || plan.objects.keys().any(|name| !self.needed.contains(name))
    }

    fn erase(&mut self, plan: &ForgetPlan) -> Result<(), Error> {
        let stock = Stock::of(self.archive.store().list(names::TIMELINES)?);
        for Going { point, losses } in &plan.going {
            if !self.held.contains(&point.entry.name) {
                self.erase_from(&point.entry, losses, &stock)?;
            }
        }
        // Before what they stand for is said to go: what is behind the newest base is a restore point, too.
        for (timeline, segment) in &plan.segments {
            // One that a base needs which the store does not let go is found again and again.
            if self.renewed.insert(segment.name.clone()) {
                self.eraser.renew_segment(*timeline, segment)?;
            }
        }
        let marked = plan.objects.iter().filter(|(name, _)| !self.needed.contains(*name));
        let (names, bytes): (Vec<_>, Vec<_>) =
            marked.map(|(name, found)| (name.clone(), found.bytes)).unzip();
        self.done.marked += names.len();
        self.done.marked_bytes += bytes.iter().sum::<u64>();
        if !names.is_empty() {
            prune::write_mark(self.archive, names, true, (self.request.now)())?;
        }
        Ok(())
    }

    /// Puts another base in the place of this one.
    fn erase_from(
        &mut self,
        entry: &BaseEntry,
        losses: &Losses,
        stock: &Stock,
    ) -> Result<(), Error> {
        let old = match self.eraser.renew_base(entry, losses, stock)? {
            // What has become of it is looked for anew.
            Renewed::Gone => return Ok(()),
            Renewed::Made { old } => old,
        };
        let needs = prune::needs_of(&old, stock);
        prune::void_marks(self.archive, &needs, (self.request.now)())?;
        match prune::remove(self.archive, &entry.name)? {
            None => self.done.bases += 1,
            Some(reason) => {
                self.done.held.push((entry.name.clone(), reason));
                self.held.insert(entry.name.clone());
                self.needed.extend(needs);
            }
        }
        Ok(())
    }
}
