//! Erasing records on demand: secrets that were changed, data of persons.
//!
//! Packs are written anew with such records empty, so that no record changes its number; what a base
//! takes of the log, where that has any of them, becomes packs, too. Bases that use these are written
//! anew, with such records among the dead, and then the old ones go. The old packs and segments are
//! marked, and go as whatever no base needs: after the grace, for a writer may be using them.
//!
//! What may never happen here: a restore point that is gone before another one stands for it; one that
//! says that it is whole and is not; one that was damaged and seems to be good afterwards.

mod erase;
mod search;

use crate::archive::{Archive, BaseEntry, Stock};
use crate::error::Error;
use crate::format::header::Moment;
use crate::names;
use crate::plan::retain::stands_for;
use crate::prune;
use crate::read::read_base;
use crate::verify::VerifyProgress;
use erase::Eraser;
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

    /// Whether what was written at a revision is among the versions.
    fn reaches(&self, revision: Revision) -> bool {
        self.to.is_none_or(|to| revision <= to)
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
    /// One that was cut off has left a base that stands for it already.
    replaced: bool,
}

/// What would be erased.
#[derive(Clone, Debug)]
pub struct ForgetPlan {
    going: Vec<Going>,
    /// Packs and segments that have any of it, or of which nobody can say and no base needs them.
    objects: BTreeMap<String, Found>,
}

/// What was erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgot {
    /// Restore points that were written anew.
    pub bases: usize,
    /// Packs that were written for that.
    pub packs: usize,
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
    let names: BTreeSet<_> = points.iter().map(|(point, _)| point.entry.name.clone()).collect();
    let is_clean = |entry: &&BaseEntry| !names.contains(&entry.name);
    let clean: Vec<_> = search.bases().iter().filter(is_clean).collect();
    let going = points.into_iter().map(|(point, losses)| {
        let facts = &point.entry.header.facts;
        let replaced = clean.iter().any(|entry| stands_for(&entry.header.facts, facts));
        Going { point, losses, replaced }
    });
    let going = going.collect();
    let objects = search.objects.into_iter().filter(|(_, found)| found.goes());
    Ok(ForgetPlan { going, objects: objects.collect() })
}

impl ForgetPlan {
    /// The restore points that are written anew, in the order of time.
    pub fn points(&self) -> impl ExactSizeIterator<Item = &ForgetPoint> {
        self.going.iter().map(|going| &going.point)
    }

    /// How many packs and segments have any of it, and their bytes.
    #[must_use]
    pub fn objects(&self) -> (usize, u64) {
        (self.objects.len(), self.objects.values().map(|found| found.bytes).sum())
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
        let mut done = Forgot::default();
        let mut eraser = Eraser::new(archive, request);
        // What cannot go: bases, and what they need.
        let (mut held, mut needed) = (BTreeSet::new(), BTreeSet::new());
        while self.going.iter().any(|it| !held.contains(&it.point.entry.name))
            || self.objects.keys().any(|name| !needed.contains(name))
        {
            let stock = Stock::of(archive.store().list(names::TIMELINES)?);
            for going in &self.going {
                let entry = &going.point.entry;
                if held.contains(&entry.name) {
                    continue;
                }
                if !going.replaced && !eraser.renew_base(entry, &going.losses, &stock)? {
                    // It is looked for anew below.
                    continue;
                }
                let needs = prune::needs_of(&read_base(archive, entry)?, &stock);
                prune::void_marks(archive, &needs)?;
                match prune::remove(archive, &entry.name)? {
                    None => done.bases += 1,
                    Some(reason) => {
                        done.held.push((entry.name.clone(), reason));
                        held.insert(entry.name.clone());
                        needed.extend(needs);
                    }
                }
            }
            let marked = self.objects.iter().filter(|(name, _)| !needed.contains(*name));
            let marked: Vec<_> = marked.map(|(name, found)| (name.clone(), found.bytes)).collect();
            done.marked += marked.len();
            done.marked_bytes += marked.iter().map(|(_, bytes)| bytes).sum::<u64>();
            if !marked.is_empty() {
                let names = marked.into_iter().map(|(name, _)| name).collect();
                prune::write_mark(archive, names, true, (request.now)())?;
            }
            self = plan_forget(archive, request)?;
        }
        done.packs = eraser.packs();
        Ok(done)
    }
}
