//! Objects from one store into another: a copy of an archive, or what is to be repaired of one.
//!
//! Data come before the bases that name them, each compared with what is known of it before it is
//! created. What was interrupted goes on where it ended: what is there is not fetched again.
//!
//! What may never happen here: an object that was created without having been compared; one taken away
//! before a good one is at hand; a base that comes before what it names.

use crate::archive::Archive;
use crate::error::Error;
use crate::names;
use crate::plan::retain::stands_for;
use crate::plan::verdict::{Level, Seen, Sight, Verdict, Word};
use crate::store::{Listed, Store, StoreFaultKind};
use crate::verify::reading::{Reading, What, read_all};
use crate::verify::{Verification, VerifyProgress, VerifyRequest, sight_of};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An object that is to come over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// Its bytes, as far as they are known.
    pub bytes: u64,
    /// One of that name is there, is damaged, and goes.
    pub replaces: bool,
}

/// Something that does not come over, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its name.
    pub name: String,
    /// Why it does not.
    pub reason: String,
    /// Nothing is wrong: it was erased there on purpose.
    pub is_meant: bool,
}

/// What is to come over from one archive into another place.
pub struct Transfer<'a> {
    from: &'a Archive,
    to: Store,
    /// In the order in which they come: data, then bases.
    items: Vec<Item>,
    readings: BTreeMap<Arc<str>, Reading>,
    /// Of each base that comes: what it needs.
    needs: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    /// What cannot come, as far as that is known before.
    left: Vec<Left>,
}

/// What came over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Objects.
    pub objects: u64,
    /// Their bytes, as far as they are known.
    pub bytes: u64,
    /// What did not come.
    pub left: Vec<Left>,
}

impl<'a> Transfer<'a> {
    /// What another place lacks of an archive, or of these bases of it. Orphans stay where they are.
    ///
    /// # Errors
    /// [`Error::Store`]; what [`Verification::begin`] fails with.
    pub fn copy(from: &'a Archive, to: &Store, request: &VerifyRequest) -> Result<Self, Error> {
        let source = Verification::begin(from, request)?;
        let there = sizes(to)?;
        let mut transfer = Self::new(from, to);
        transfer.leave_bad(&source);
        let unwanted = transfer.leave_forgotten(&source)?;
        for (name, reading) in &source.readings {
            if unwanted.contains(name) {
                continue;
            }
            match there.get(&**name) {
                None => transfer.add(name, reading, false),
                Some(bytes) if *bytes == reading.bytes => {}
                Some(_) if matches!(reading.what, What::Timeline) => {}
                Some(bytes) => transfer.leave(
                    name,
                    &format!("one of {bytes} bytes is there already: it needs repair"),
                ),
            }
        }
        for point in &source.observed.points {
            let name: Arc<str> = point.entry.name.as_str().into();
            let is_good = source.observed.objects.get(&name) == Some(&Sight::Good);
            if is_good && !there.contains_key(&*name) && !unwanted.contains(&name) {
                let reading = Reading::new(What::Base, point.entry.bytes);
                transfer.add(&name, &reading, false);
                let mut needs = point.needs.clone();
                // One that is damaged takes nothing away; one that may come yet is waited for.
                let timeline: Arc<str> = names::timeline(point.entry.header.facts.timeline).into();
                needs.extend(Some(timeline).filter(|it| transfer.readings.contains_key(it)));
                transfer.needs.insert(name, needs);
            }
        }
        Ok(transfer)
    }

    /// What an archive has lost, by a verdict, and another one of the same id still has.
    ///
    /// # Errors
    /// [`Error::Stranger`] where the other is not of the same id; those of [`Self::copy`].
    pub fn repair(
        archive: &Archive,
        verdict: &Verdict,
        from: &'a Archive,
        request: &VerifyRequest,
    ) -> Result<Self, Error> {
        same_archive(from, archive)?;
        let all = VerifyRequest { level: Level::Listed, only: None, now: request.now };
        let source = Verification::begin(from, &all)?;
        let there = sizes(archive.store())?;
        let mut transfer = Self::new(from, archive.store());
        let mut wanted = BTreeSet::new();
        for found in verdict.findings.iter().filter(|found| found.word == Word::Lost) {
            let name: Arc<str> = found.object.as_str().into();
            match (source.reading_of(&name), found.revisions) {
                // The base is good, and a range of the log that it needs is missing.
                (_, Some((first, last))) if found.is_gap => {
                    let segments = source.segments_of(first, last).into_iter();
                    wanted.extend(segments.filter(|name| !there.contains_key(&**name)));
                }
                (Some(_), _) => _ = wanted.insert(name),
                (None, _) => transfer.leave(&name, "the other archive does not have it"),
            }
        }
        for name in wanted {
            let Some(reading) = source.reading_of(&name) else { continue };
            match source.observed.objects.get(&name) {
                Some(Sight::Good) => {
                    transfer.add(&name, &reading, there.contains_key(&*name));
                }
                _ => transfer.leave(&name, "it is damaged in the other archive, too"),
            }
        }
        Ok(transfer)
    }

    fn new(from: &'a Archive, to: &Store) -> Self {
        Self {
            from,
            to: to.clone(),
            items: Vec::new(),
            readings: BTreeMap::new(),
            needs: BTreeMap::new(),
            left: Vec::new(),
        }
    }

    /// What is to come over.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// What cannot come over, and why.
    #[must_use]
    pub fn left(&self) -> &[Left] {
        &self.left
    }

    /// Bytes that are to come over, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }

    /// Brings it over.
    ///
    /// # Errors
    /// [`Error::Stopped`]; what keeps this machine, or the place that is written to, from going on.
    /// What has come over stays.
    pub fn run(self, progress: VerifyProgress<'_>) -> Result<Transferred, Error> {
        let mut done = Transferred { left: self.left.clone(), ..Transferred::default() };
        let mut lost: BTreeSet<Arc<str>> =
            self.left.iter().map(|it| it.name.as_str().into()).collect();
        let replaced = self.items.iter().filter(|item| item.replaces);
        let replaced: BTreeSet<_> = replaced.map(|item| item.name.as_str()).collect();
        for bases in [false, true] {
            let mut now: Vec<(&Arc<str>, &Reading)> = Vec::new();
            let of_sort = |it: &(&Arc<str>, &Reading)| matches!(it.1.what, What::Base) == bases;
            for (name, reading) in self.readings.iter().filter(of_sort) {
                let needs = self.needs.get(name).map_or(&[][..], Vec::as_slice);
                match needs.iter().find(|name| lost.contains(*name)) {
                    None => now.push((name, reading)),
                    Some(need) => done.left.push(Left {
                        name: name.to_string(),
                        reason: format!("it needs {need}, which did not come over"),
                        is_meant: false,
                    }),
                }
            }
            let create = |name: &str, bytes: bytes::Bytes| match replaced.contains(name) {
                true => Ok(self.to.replace(name, bytes)?),
                false => match self.to.create(name, bytes.into()) {
                    // Another copy, at the same time, has brought it.
                    Err(fault) if fault.kind == StoreFaultKind::Exists => Ok(()),
                    created => Ok(created?),
                },
            };
            if bases && self.to.locks() {
                self.lock_what_was_there(now.iter().map(|(base, _)| *base))?;
            }
            for (name, outcome) in read_all(self.from, &now, progress, &create)? {
                match outcome {
                    Ok(()) => {
                        done.objects += 1;
                        done.bytes += self.readings.get(&name).map_or(0, |reading| reading.bytes);
                    }
                    Err(error) => {
                        let reason = error.to_string();
                        sight_of(Err(error))?;
                        done.left.push(Left { name: name.to_string(), reason, is_meant: false });
                        lost.insert(name);
                    }
                }
            }
        }
        self.withdraw(&mut done)?;
        Ok(done)
    }

    /// What bases share with those that are there already is locked as long as they are.
    fn lock_what_was_there<'b>(
        &self,
        bases: impl Iterator<Item = &'b Arc<str>>,
    ) -> Result<(), Error> {
        let mut names = BTreeSet::new();
        for base in bases {
            names.extend(names::timeline_of(base).map(names::timeline));
            names.extend(self.needs.get(base).into_iter().flatten().map(ToString::to_string));
        }
        if names.is_empty() {
            return Ok(());
        }
        names.retain(|name| !self.readings.contains_key(name.as_str()));
        names.insert(names::ARCHIVE.to_owned());
        names.extend(self.to.list(names::KEYS)?.into_iter().map(|key| key.name));
        Ok(self.to.lock_for_longer(&names.into_iter().collect::<Vec<_>>())?)
    }

    /// What bases need may have been pruned before they came, for nobody there needed it. Such a
    /// base is none.
    fn withdraw(&self, done: &mut Transferred) -> Result<(), Error> {
        let there = if self.needs.is_empty() { BTreeMap::new() } else { sizes(&self.to)? };
        for (base, needs) in self.needs.iter().filter(|(base, _)| there.contains_key(&***base)) {
            let Some(gone) = needs.iter().find(|name| !there.contains_key(&***name)) else {
                continue;
            };
            self.to.remove(base)?;
            done.objects -= 1;
            done.bytes -= self.readings.get(base).map_or(0, |reading| reading.bytes);
            let reason = format!("{gone} was pruned there meanwhile");
            done.left.push(Left { name: base.to_string(), reason, is_meant: false });
        }
        Ok(())
    }

    fn add(&mut self, name: &Arc<str>, reading: &Reading, replaces: bool) {
        if self.left.iter().any(|left| *left.name == **name) {
            return;
        }
        self.items.push(Item { name: name.to_string(), bytes: reading.bytes, replaces });
        self.readings.insert(Arc::clone(name), reading.clone());
    }

    fn leave(&mut self, name: &str, reason: &str) {
        let (name, reason) = (name.to_owned(), reason.to_owned());
        self.left.push(Left { name, reason, is_meant: false });
    }

    /// What was forgotten there does not come back. Names of what stays for that.
    fn leave_forgotten(&mut self, source: &Verification<'_>) -> Result<BTreeSet<Arc<str>>, Error> {
        let there = Archive::open(self.to.clone())?.list()?.bases;
        let erased: Vec<_> = there.iter().filter(|base| base.header.facts.erased).collect();
        let is_forgotten = |point: &&Seen| {
            let facts = &point.entry.header.facts;
            erased.iter().any(|base| stands_for(&base.header.facts, facts))
        };
        let points = source.observed.points.iter();
        let (forgotten, others): (Vec<_>, Vec<_>) = points.partition(is_forgotten);
        let mut unwanted: BTreeSet<Arc<str>> =
            forgotten.iter().flat_map(|point| point.needs.iter().cloned()).collect();
        for need in others.iter().flat_map(|point| &point.needs) {
            unwanted.remove(need);
        }
        for point in forgotten {
            let reason = "records of it were erased there: erase them here, too".to_owned();
            let name = point.entry.name.clone();
            self.left.push(Left { name, reason, is_meant: true });
            unwanted.insert(point.entry.name.as_str().into());
        }
        Ok(unwanted)
    }

    /// What the source itself does not have.
    fn leave_bad(&mut self, source: &Verification<'_>) {
        for (name, sight) in &source.observed.objects {
            if let Sight::Bad(reason) | Sight::Withheld(reason) = sight {
                self.leave(name, reason);
            }
        }
    }
}

fn sizes(store: &Store) -> Result<BTreeMap<String, u64>, Error> {
    let mut listed = store.list(names::TIMELINES)?;
    listed.extend(store.list(names::HOSTS)?);
    Ok(listed.into_iter().map(|Listed { name, bytes }| (name, bytes)).collect())
}

fn same_archive(one: &Archive, other: &Archive) -> Result<(), Error> {
    match one.id() == other.id() {
        true => Ok(()),
        false => Err(Error::Stranger {
            object: one.store().full_name(names::ARCHIVE),
            got: format!("archive {}", one.id()),
            want: format!("archive {}", other.id()),
        }),
    }
}
