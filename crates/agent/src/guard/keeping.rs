//! Keeping records of runs: on this host at once, and in the archives as soon as they can be had.

use super::{Level, Ward};
use crate::records::{self, Record, now};
use crate::surroundings::{Look, other_owners, warnings};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often archives are tried that have not got all records.
const DELIVER_EVERY: SignedDuration = SignedDuration::from_secs(30);
/// How often old records are removed.
const TIDY_EVERY: SignedDuration = SignedDuration::from_hours(6);
/// How far back records are looked through that an archive may not have, or that are of other agents.
const BACK: SignedDuration = SignedDuration::from_hours(7 * 24);
/// An archive that hangs is not left alone for longer.
const AWAY_MAX: Duration = Duration::from_secs(600);

/// What archives have not got, by their places: records of slots from then on.
#[derive(Debug, Default)]
pub(super) struct Owed(Mutex<BTreeMap<String, Timestamp>>);

impl Owed {
    fn all(&self) -> BTreeMap<String, Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, place: &str, slot: Timestamp) {
        let mut owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = owed.entry(place.to_owned()).or_insert(slot);
        *first = slot.min(*first);
    }

    /// What was owed from this slot on was delivered; what came meanwhile, with an earlier one, was not.
    fn remove(&self, place: &str, slot: Timestamp) {
        let mut owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if owed.get(place) == Some(&slot) {
            owed.remove(place);
        }
    }
}

/// Archives that could not be opened, why, and until when nobody waits for them again: five times as long as it took to
/// find out, up to [`AWAY_MAX`].
#[derive(Debug, Default)]
pub(super) struct Away(Mutex<BTreeMap<String, (String, Instant)>>);

impl Away {
    pub(super) fn why(&self, place: &str, now: Instant) -> Option<String> {
        let mut away = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        away.retain(|_, (_, until)| *until > now);
        away.get(place).map(|(why, _)| why.clone())
    }

    pub(super) fn add(&self, place: &str, why: &str, took: Duration, now: Instant) {
        let until = now + took.saturating_mul(5).min(AWAY_MAX);
        let mut away = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        away.insert(place.to_owned(), (why.to_owned(), until));
    }
}

/// Keeps a record on this host and in each archive; what an archive does not take now it gets later.
pub(super) fn keep(ward: &Ward, record: &Record) {
    if let Err(fault) = records::put(&ward.own, record) {
        let text = format!("the record was not kept on this host: {fault}");
        ward.say(Level::Warning, Some(&record.job), text);
    }
    for archive in &ward.cluster.archives {
        let kept = ward.open(archive).and_then(|archive| {
            records::put(archive.store(), record).map_err(|fault| fault.to_string())
        });
        if let Err(fault) = kept {
            ward.owed.add(&archive.place, record.slot);
            let text = format!("the record is in {} later: {fault}", archive.place);
            ward.say(Level::Info, Some(&record.job), text);
        }
    }
}

/// How long records are kept, in seconds: for all clusters, also while they are guarded.
#[derive(Clone, Debug)]
pub(super) struct HowLong(Arc<AtomicI64>);

impl HowLong {
    pub(super) fn new(time: Duration) -> Self {
        let this = Self(Arc::default());
        this.set(time);
        this
    }

    pub(super) fn set(&self, time: Duration) {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.0.store(seconds, Ordering::Relaxed);
    }

    fn get(&self) -> SignedDuration {
        SignedDuration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// What is looked after now and then.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    delivered: Option<Timestamp>,
    /// When, and how long records were kept then.
    tidied: Option<(Timestamp, SignedDuration)>,
}

impl Keeping {
    /// Does what is due of it.
    pub(super) fn look_after(&mut self, ward: &Ward) {
        let now = now();
        let is_due = |last: Option<Timestamp>, every| {
            // A clock that was ahead must not keep it from being done.
            last.is_none_or(|at| at > now || now.duration_since(at) >= every)
        };
        if is_due(self.delivered, DELIVER_EVERY) {
            self.delivered = Some(now);
            deliver(ward);
        }
        let keep = ward.keep_records.get();
        let tidied = self.tidied.filter(|(_, kept)| *kept == keep);
        if is_due(tidied.map(|(at, _)| at), TIDY_EVERY) {
            self.tidied = Some((now, keep));
            look_around(ward);
            tidy(ward, now, keep);
        }
    }
}

/// Archives that are back get the records of runs while they were away.
fn deliver(ward: &Ward) {
    for (place, slot) in ward.owed.all() {
        let archive = ward.cluster.archives.iter().find(|archive| archive.place == place);
        let Some(Ok(archive)) = archive.map(|archive| ward.open(archive)) else { continue };
        let cluster = &ward.cluster.name;
        if let Ok(copied) = records::copy_missing(&ward.own, archive.store(), cluster, slot) {
            ward.owed.remove(&place, slot);
            if copied > 0 {
                ward.say(Level::Info, None, format!("{place} has got {copied} records late"));
            }
        }
    }
}

/// Archives get records that they have not, those of other agents are heard, and old ones go.
fn tidy(ward: &Ward, now: Timestamp, keep: SignedDuration) {
    let cluster = &ward.cluster.name;
    let back = |time| now.checked_sub(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let (from, before) = (back(BACK), back(keep));
    let own = &ward.own;
    let mut tidied = records::remove_before(own, cluster, before).map(drop);
    for archive in &ward.cluster.archives {
        let Ok(archive) = ward.open(archive) else { continue };
        let copied = records::copy_missing(own, archive.store(), cluster, from);
        tidied = tidied.and(copied.map(drop));
        tidied = tidied.and(records::remove_before(archive.store(), cluster, before).map(drop));
        match records::newest(archive.store(), cluster, from) {
            Ok(found) => found.into_iter().for_each(|record| hear(ward, record)),
            Err(fault) => tidied = tidied.and(Err(fault)),
        }
    }
    if let Err(error) = ward.requests.tidy(SystemTime::now()) {
        ward.say(Level::Info, None, format!("looking after requests: {error}"));
    }
    if let Err(fault) = tidied {
        ward.say(Level::Info, None, format!("looking after records: {fault}"));
    }
}

/// Hears what another agent has done.
pub(super) fn hear(ward: &Ward, record: Record) {
    if record.agent == ward.agent.id {
        return;
    }
    ward.state(|state| {
        if let Some(job) = state.jobs.get_mut(&record.job) {
            job.hear(record.not_later_than(now()), false);
        }
    });
}

fn look_around(ward: &Ward) {
    let at_rest = crate::files::at_rest_config();
    let other_owners = |archive: &_| other_owners(archive, || ward.open(archive).ok());
    let look = Look { at_rest: at_rest.as_deref(), other_owners: &other_owners, disk: &disk };
    let found = warnings(&ward.cluster, look);
    ward.state(|state| state.surroundings = found);
}

/// The disk that a path is on, or will be.
fn disk(path: &Path) -> Option<u64> {
    path.ancestors().find_map(|path| std::fs::metadata(path).ok()).map(|found| found.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn whoever_has_hung_is_not_waited_for_again_so_soon() {
        let (away, now) = (Away::default(), Instant::now());
        let second = Duration::from_secs(1);
        away.add("/hangs", "why", 120 * second, now);
        away.add("/gone", "why", Duration::ZERO, now);
        assert_eq!(away.why("/gone", now), None);
        assert_eq!(away.why("/hangs", now + 599 * second).as_deref(), Some("why"));
        assert_eq!(away.why("/hangs", now + 600 * second), None);
    }

    #[test]
    fn what_is_owed_is_owed_from_the_first_slot_until_all_is_delivered() {
        let owed = Owed::default();
        owed.add("/a", at(5));
        owed.add("/a", at(7));
        owed.add("/b", at(7));
        let seen = owed.all();
        assert_eq!(seen["/a"], at(5));
        // A run of an earlier slot ends while what is known is delivered.
        owed.add("/a", at(3));
        seen.iter().for_each(|(place, slot)| owed.remove(place, *slot));
        assert_eq!(owed.all(), BTreeMap::from([("/a".to_owned(), at(3))]));
    }
}
