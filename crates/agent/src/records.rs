//! What was done, when, and how it ended: a record of each run of each job, kept on this host and in the archive.
//!
//! ```text
//! records/<cluster>/<day>/<time>-<job>/<attempt>.claim          somebody does it
//! records/<cluster>/<day>/<time>-<job>/<attempt>-<agent>.json   how it ended
//! ```
//!
//! Day and time (UTC) are those of the slot. Nothing in an archive depends on them.

use crate::files::Certificate;
use crate::turns::{Attempt, Attempts};
use jiff::{SignedDuration, Timestamp};
use rekindle_archive::{Listed, Store, StoreFault, StoreFaultKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const FORMAT: u32 = 1;
const FOLDER: &str = "records";
/// So many slots of a job tell how it goes.
const SLOTS: usize = 3;
/// No record is larger.
const BYTES_MAX: u64 = 1 << 20;

/// The clock; nobody wants to know more of it than milliseconds.
#[must_use]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It is done.
    Done,
    /// It failed; another time it may not.
    Failed,
    /// It was refused, or what it needs is bad: trying again makes no difference.
    Refused,
    /// The cluster or a store could not be reached.
    Away,
    /// The agent was ended while it ran.
    Interrupted,
}

impl Outcome {
    /// What an exit code of ours means; none: it was killed.
    #[must_use]
    pub fn of_code(code: Option<i32>) -> Self {
        match code {
            Some(0) => Self::Done,
            Some(2..=4) => Self::Refused,
            Some(5) => Self::Away,
            Some(130) => Self::Interrupted,
            _ => Self::Failed,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Away => "away",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A run of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// 1; a reader refuses another.
    pub format: u32,
    /// What the configuration calls the cluster.
    pub cluster: String,
    /// And the job.
    pub job: String,
    /// When it was due.
    pub slot: Timestamp,
    /// At the how manieth try, from 1 on.
    pub attempt: u32,
    /// The id of the agent that did it.
    pub agent: String,
    /// Its host.
    pub host: String,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// What was run, as a person would type it.
    pub command: Vec<String>,
    /// What it said went wrong.
    pub reason: Option<String>,
    /// What it printed: the JSON of `-w json`.
    pub output: Option<Value>,
}

impl Record {
    /// Certificates that a run has seen, if it was to look: archives are told nothing of what a host has.
    pub(crate) fn take_certificates(&mut self) -> Option<Vec<Certificate>> {
        let seen = self.output.as_mut()?.as_object_mut()?.remove("certificates")?;
        serde_json::from_value(seen).ok()
    }

    /// A record of this version, of a run that ends now.
    #[must_use]
    pub fn new(
        run: &Run,
        agent: &Agent,
        began: Timestamp,
        ended: Timestamp,
        outcome: Outcome,
    ) -> Self {
        Self {
            format: FORMAT,
            cluster: run.cluster.clone(),
            job: run.job.clone(),
            slot: run.slot,
            attempt: run.attempt,
            agent: agent.id.clone(),
            host: agent.host.clone(),
            began,
            ended,
            outcome,
            command: Vec::new(),
            reason: None,
            output: None,
        }
    }

    /// A clock that was ahead must not have the last word for ever.
    #[must_use]
    pub(crate) fn not_later_than(mut self, now: Timestamp) -> Self {
        self.ended = self.ended.min(now);
        self
    }

    /// What came of it: the file, the revision, the verdict, or how much was removed.
    #[must_use]
    pub fn made(&self) -> Option<String> {
        let output = self.output.as_ref()?;
        let text = |name: &str| output.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| output.get(name).and_then(Value::as_i64);
        // What a drill did not do is known of it wherever it is told of.
        let booted = output.get("booted").and_then(Value::as_bool);
        let unbooted = if booted == Some(false) { ", no etcd was booted" } else { "" };
        let revision =
            || number("revision").map(|revision| format!("revision {revision}{unbooted}"));
        let verdict = || {
            let (verdict, level) = text("verdict").zip(text("level"))?;
            let (good, all) = (number("restorePointsGood")?, number("restorePointsVerified")?);
            Some(format!("{verdict}: {good} of {all} restore points {level}"))
        };
        let removed = || number("removed").map(|removed| format!("removed: {removed}"));
        text("file").or_else(revision).or_else(verdict).or_else(removed)
    }

    /// Bytes of it: of the file, or those that an archive has got for it.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let output = self.output.as_ref()?;
        let number = |name: &str| output.get(name).and_then(Value::as_u64);
        number("newBytes").or_else(|| number("fileSize"))
    }

    fn name(&self) -> String {
        let run = Run {
            cluster: self.cluster.clone(),
            job: self.job.clone(),
            slot: self.slot,
            attempt: self.attempt,
        };
        format!("{}/{}-{}.json", run.folder(), self.attempt, self.agent)
    }
}

/// Who runs jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// An id of its own, for ever.
    pub id: String,
    /// The host, for people.
    pub host: String,
}

/// An attempt at a job of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What the configuration calls the cluster.
    pub cluster: String,
    /// And the job.
    pub job: String,
    /// When it was due.
    pub slot: Timestamp,
    /// From 1 on.
    pub attempt: u32,
}

#[derive(Serialize, Deserialize)]
struct ClaimFile {
    format: u32,
    agent: String,
    host: String,
    claimed: Timestamp,
}

impl Run {
    fn folder(&self) -> String {
        let at = self.slot.strftime("%Y%m%d/%H%M%S%.3f");
        format!("{FOLDER}/{}/{at}-{}", self.cluster, self.job)
    }

    /// Claims it; tells whether it is this agent's now.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub fn claim(&self, store: &Store, agent: &Agent, now: Timestamp) -> Result<bool, StoreFault> {
        let Agent { id, host } = agent.clone();
        let claim = ClaimFile { format: FORMAT, agent: id, host, claimed: now };
        let name = format!("{}/{}.claim", self.folder(), self.attempt);
        match store.create(&name, to_json(&claim)) {
            Err(fault) if fault.kind == StoreFaultKind::Exists => Ok(false),
            created => created.map(|()| true),
        }
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// The attempts at a slot that a store knows of; what cannot be read of them is left out.
///
/// # Errors
/// [`StoreFault`].
pub fn attempts(store: &Store, run: &Run) -> Result<Attempts, StoreFault> {
    attempts_of(store, &store.list(&run.folder())?)
}

fn attempts_of(store: &Store, listed: &[Listed]) -> Result<Attempts, StoreFault> {
    let mut attempts = Attempts::new();
    for listed in listed {
        let stem = listed.name.rsplit('/').next().unwrap_or_default();
        let number = stem.split(['.', '-']).next().and_then(|number| number.parse().ok());
        let Some(number) = number.filter(|number| *number > 0) else { continue };
        let bytes = match store.read(&listed.name, BYTES_MAX) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound => continue,
            read => read?,
        };
        let found = match stem.ends_with(".claim") {
            true => serde_json::from_slice(&bytes).ok().map(|claim: ClaimFile| Attempt {
                agent: claim.agent,
                claimed: claim.claimed,
                ended: None,
            }),
            false => serde_json::from_slice(&bytes).ok().map(|record: Record| Attempt {
                agent: record.agent,
                claimed: record.began,
                ended: Some((record.outcome, record.ended)),
            }),
        };
        if let Some(found) = found {
            let known = attempts.entry(number).or_insert_with(|| found.clone());
            // A record says more than a claim, and that it is done more than that it is not.
            let is_more = |outcome| {
                !matches!(known.ended, Some((Outcome::Done, _))) || outcome == Outcome::Done
            };
            if found.ended.is_some_and(|(outcome, _)| is_more(outcome)) {
                *known = found;
            }
        }
    }
    Ok(attempts)
}

/// Which claims are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Claimed {
    /// Of slots from this one on.
    pub first: Timestamp,
    /// Those that were made since.
    pub since: Timestamp,
    /// Until now.
    pub now: Timestamp,
}

/// An attempt of another agent at another slot of a job that has no record yet: it may be under way. None is of a slot between
/// the first one and the moment since when claims count.
///
/// # Errors
/// [`StoreFault`].
pub fn unfinished(
    store: &Store,
    run: &Run,
    me: &str,
    claimed: Claimed,
) -> Result<Option<Attempt>, StoreFault> {
    let Claimed { first, since, now } = claimed;
    let day = SignedDuration::from_hours(24);
    // Another one's clock may be ahead.
    let until = run.slot.max(now).checked_add(day).unwrap_or(Timestamp::MAX);
    let moments = std::iter::successors(Some(since), |at| at.checked_add(day).ok());
    let moments = moments.take_while(|at| *at <= until).chain([first, run.slot, until]);
    let days: BTreeSet<_> = moments.map(|at| at.strftime("%Y%m%d").to_string()).collect();
    let (own, mut slots) = (run.folder(), BTreeMap::<String, Vec<Listed>>::new());
    for day in days {
        for found in store.list(&format!("{FOLDER}/{}/{day}", run.cluster))? {
            let folder = folder_of(&found.name);
            let job = folder.rsplit('/').next().and_then(|name| name.split_once('-'));
            if folder != own && job.is_some_and(|(_, job)| job == run.job) {
                slots.entry(folder.to_owned()).or_default().push(found);
            }
        }
    }
    for listed in slots.values_mut() {
        let ended: BTreeSet<_> = listed.iter().filter_map(|it| ended_of(&it.name)).collect();
        listed.retain(|it| claim_of(&it.name).is_some_and(|attempt| !ended.contains(attempt)));
        let mut claims = attempts_of(store, listed)?.into_values();
        let found = claims.find(|it| it.agent != me && it.claimed > since);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The attempt that a name is the claim of.
fn claim_of(name: &str) -> Option<&str> {
    name.rsplit('/').next()?.strip_suffix(".claim")
}

/// The attempt that a name is the record of.
fn ended_of(name: &str) -> Option<String> {
    let (attempt, _) = name.rsplit('/').next()?.strip_suffix(".json")?.split_once('-')?;
    Some(attempt.to_owned())
}

/// The records of a slot; what cannot be read of them is left out.
///
/// # Errors
/// [`StoreFault`].
pub fn of_slot(store: &Store, run: &Run) -> Result<Vec<Record>, StoreFault> {
    let mut listed = store.list(&run.folder())?;
    listed.retain(|found| found.name.ends_with(".json"));
    let read = store.read_starts(listed, BYTES_MAX).into_iter();
    Ok(read.filter_map(|bytes| serde_json::from_slice(&bytes.ok()?).ok()).collect())
}

/// Keeps a record.
///
/// # Errors
/// [`StoreFault`].
pub fn put(store: &Store, record: &Record) -> Result<(), StoreFault> {
    match store.create(&record.name(), to_json(record)) {
        // The same run was told before, with other words: what is there stays.
        Err(fault) if fault.kind == StoreFaultKind::Exists => Ok(()),
        created => created,
    }
}

/// The records of slots from a moment on, the oldest first; of one cluster, or of all.
///
/// # Errors
/// [`StoreFault`].
pub fn since(
    store: &Store,
    cluster: Option<&str>,
    from: Timestamp,
) -> Result<Vec<Record>, StoreFault> {
    let folder = cluster.map_or(FOLDER.to_owned(), |cluster| format!("{FOLDER}/{cluster}"));
    let mut listed = store.list(&folder)?;
    let first = from.strftime("%Y%m%d").to_string();
    listed.retain(|found| {
        found.name.ends_with(".json") && day_of(&found.name).is_some_and(|day| day >= &*first)
    });
    let mut records = Vec::new();
    for read in store.read_starts(listed, BYTES_MAX) {
        let bytes = match read {
            Err(fault) if fault.kind == StoreFaultKind::NotFound => continue,
            read => read?,
        };
        let record: Option<Record> = serde_json::from_slice(&bytes).ok();
        records.extend(record.filter(|it| it.format == FORMAT && it.slot >= from));
    }
    records.sort_by(|a, b| (a.slot, &a.job, a.attempt).cmp(&(b.slot, &b.job, b.attempt)));
    Ok(records)
}

/// How each job of a cluster goes: the records of its [`SLOTS`] newest slots, and of more as far back as it was done
/// last, in the order in which they ended. What cannot be read of them is left out.
///
/// # Errors
/// [`StoreFault`].
pub fn newest(store: &Store, cluster: &str, from: Timestamp) -> Result<Vec<Record>, StoreFault> {
    let first = from.strftime("%Y%m%d").to_string();
    let mut listed = store.list(&format!("{FOLDER}/{cluster}"))?;
    listed.retain(|found| day_of(&found.name).is_some_and(|day| day >= &*first));
    let (mut records, _) = back_to_done(store, by_jobs(listed));
    records.sort_by_key(|record| record.ended);
    Ok(records)
}

/// Records by jobs and slots; names of slots are ordered.
type ByJobs = BTreeMap<String, BTreeMap<String, Vec<Listed>>>;

fn by_jobs(listed: Vec<Listed>) -> ByJobs {
    let mut jobs = ByJobs::new();
    for found in listed.into_iter().filter(|found| found.name.ends_with(".json")) {
        let folder = folder_of(&found.name).to_owned();
        let job = folder.rsplit('/').next().and_then(|name| name.split_once('-'));
        let Some((_, job)) = job else { continue };
        jobs.entry(job.to_owned()).or_default().entry(folder).or_default().push(found);
    }
    jobs
}

/// Reads the newest slots of each job, back to one that was done; and what could not be read, if it was there.
fn back_to_done(store: &Store, mut left: ByJobs) -> (Vec<Record>, Option<StoreFault>) {
    let (mut records, mut unread, mut slots) = (Vec::new(), None, SLOTS);
    while !left.is_empty() {
        let newest = |of: &mut BTreeMap<String, Vec<Listed>>| {
            std::iter::from_fn(|| of.pop_last()).take(slots).flat_map(|it| it.1).collect::<Vec<_>>()
        };
        let asked = left.values_mut().flat_map(newest).collect();
        for read in store.read_starts(asked, BYTES_MAX) {
            let bytes = match read {
                Ok(bytes) => bytes,
                Err(fault) => {
                    unread =
                        unread.or(Some(fault).filter(|it| it.kind != StoreFaultKind::NotFound));
                    continue;
                }
            };
            let record: Option<Record> = serde_json::from_slice(&bytes).ok();
            let Some(record) = record.filter(|it| it.format == FORMAT) else { continue };
            if record.outcome == Outcome::Done {
                left.remove(&record.job);
            }
            records.push(record);
        }
        left.retain(|_, of| !of.is_empty());
        // Who fails for weeks is not asked for slot by slot.
        slots *= 2;
    }
    (records, unread)
}

/// Copies records that a store does not have, such as those of runs while it was away.
///
/// # Errors
/// [`StoreFault`].
pub fn copy_missing(
    from: &Store,
    to: &Store,
    cluster: &str,
    since_slot: Timestamp,
) -> Result<usize, StoreFault> {
    let own = since(from, Some(cluster), since_slot)?;
    if own.is_empty() {
        return Ok(0);
    }
    let there = to.list(&format!("{FOLDER}/{cluster}"))?;
    let is_there = |record: &Record| {
        let name = record.name();
        there.binary_search_by(|found| found.name.cmp(&name)).is_ok()
    };
    let missing: Vec<_> = own.iter().filter(|record| !is_there(record)).collect();
    missing.iter().try_for_each(|record| put(to, record))?;
    Ok(missing.len())
}

/// Removes what is of days before that of a moment, but for the newest slot of each job that was done: whatever its age, it
/// tells whether the job is overdue, and which slots were missed.
///
/// # Errors
/// [`StoreFault`]; where it cannot be read which slots were done, nothing is removed.
pub fn remove_before(store: &Store, cluster: &str, before: Timestamp) -> Result<usize, StoreFault> {
    let first = before.strftime("%Y%m%d").to_string();
    let folder = format!("{FOLDER}/{cluster}");
    let listed = store.list(&folder)?;
    let is_old = |found: &&Listed| day_of(&found.name).is_some_and(|day| day < &*first);
    let old: Vec<_> = listed.iter().filter(is_old).cloned().collect();
    let mut jobs = by_jobs(listed);
    let of_old = by_jobs(old.clone());
    jobs.retain(|job, _| of_old.contains_key(job));
    let (records, unread) = back_to_done(store, jobs);
    if let Some(fault) = unread {
        return Err(fault);
    }
    let mut kept = BTreeMap::new();
    for record in records.iter().filter(|it| it.outcome == Outcome::Done) {
        let newest = kept.entry(&*record.job).or_insert(record);
        *newest = if record.slot > newest.slot { record } else { *newest };
    }
    let kept: Vec<_> = kept.values().map(|it| folder_of(&it.name()).to_owned()).collect();
    let mut removed = 0;
    for found in old.iter().filter(|it| !kept.iter().any(|kept| folder_of(&it.name) == kept)) {
        store.remove(&found.name)?;
        removed += 1;
    }
    // Nobody writes into days that are over for so long.
    store.remove_empty_folders(&folder, |day| day.len() == 8 && day < &*first)?;
    Ok(removed)
}

/// That of its slot.
fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn day_of(name: &str) -> Option<&str> {
    name.split('/').nth(2).filter(|day| day.len() == 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_testkit::fault_store::{Fault, FaultStore, When};
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn run(slot: &str, attempt: u32) -> Run {
        let (cluster, job) = ("prod".to_owned(), "snapshot-daily".to_owned());
        Run { cluster, job, slot: at(slot), attempt }
    }

    fn agent(id: &str) -> Agent {
        Agent { id: id.to_owned(), host: format!("host of {id}") }
    }

    fn record(slot: &str, attempt: u32, id: &str, outcome: Outcome) -> Record {
        let (began, ended) = (at("2026-11-20T10:00:01Z"), at("2026-11-20T10:00:09Z"));
        Record::new(&run(slot, attempt), &agent(id), began, ended, outcome)
    }

    const TEN: &str = "2026-11-20T10:00:00Z";

    #[test]
    fn a_claim_is_of_the_first_alone() {
        let store = Store::memory().unwrap();
        let (now, first) = (at("2026-11-20T10:00:01Z"), run(TEN, 1));
        assert!(first.claim(&store, &agent("a"), now).unwrap());
        assert!(!first.claim(&store, &agent("b"), now).unwrap());
        assert!(first.claim(&store, &agent("a"), now).unwrap(), "an answer was lost");
        let seen = attempts(&store, &first).unwrap();
        assert_eq!((&*seen[&1].agent, seen[&1].ended), ("a", None));
        put(&store, &record(TEN, 1, "a", Outcome::Away)).unwrap();
        assert!(run(TEN, 2).claim(&store, &agent("b"), now).unwrap());
        let seen = attempts(&store, &first).unwrap();
        assert_eq!(seen[&1].ended.unwrap().0, Outcome::Away);
        assert_eq!((&*seen[&2].agent, seen[&2].ended), ("b", None));
        let other = Run { job: "snapshot-daily-2".to_owned(), ..run(TEN, 1) };
        assert_eq!(attempts(&store, &other).unwrap(), Attempts::new());
    }

    /// What takes longer than its period is not begun a second time for the next slot.
    #[test]
    fn what_is_under_way_for_another_slot_is_seen() {
        let store = Store::memory().unwrap();
        let claimed = |since: &str| Claimed {
            first: at("2026-11-01T00:00:00Z"),
            since: at(since),
            now: at("2026-11-20T10:20:00Z"),
        };
        let next = run("2026-11-20T10:20:00Z", 1);
        let seen = |me: &str, since: &str| unfinished(&store, &next, me, claimed(since)).unwrap();
        let (yesterday, later) = ("2026-11-19T10:20:00Z", "2026-11-20T10:10:00Z");
        let other = Run { job: "other".to_owned(), ..run(TEN, 1) };
        for run in [&other, &next] {
            assert!(run.claim(&store, &agent("a"), at("2026-11-20T10:00:01Z")).unwrap());
        }
        assert_eq!(seen("b", yesterday), None, "those are of another job, and of this slot");
        assert!(run(TEN, 1).claim(&store, &agent("a"), at("2026-11-20T10:00:01Z")).unwrap());
        assert_eq!(seen("b", yesterday).unwrap().agent, "a");
        assert_eq!(
            seen("a", yesterday),
            None,
            "who does one after the other knows that he does none"
        );
        assert_eq!(seen("b", later), None, "that one is gone");
        put(&store, &record(TEN, 1, "a", Outcome::Failed)).unwrap();
        assert_eq!(seen("b", yesterday), None);
        // One that was missed, and is made up for.
        let missed = run("2026-11-01T00:00:00Z", 1);
        assert!(missed.claim(&store, &agent("a"), at("2026-11-20T10:00:01Z")).unwrap());
        assert_eq!(seen("b", yesterday).unwrap().agent, "a");
    }

    #[test]
    fn who_could_not_see_the_others_record_keeps_his_own() {
        let store = Store::memory().unwrap();
        for (id, outcome) in [("a", Outcome::Done), ("b", Outcome::Failed)] {
            put(&store, &record(TEN, 1, id, outcome)).unwrap();
        }
        assert_eq!(since(&store, Some("prod"), at(TEN)).unwrap().len(), 2);
        let seen = attempts(&store, &run(TEN, 1)).unwrap();
        assert_eq!(seen[&1].ended.unwrap().0, Outcome::Done);
    }

    #[test]
    fn records_are_found_by_time_copied_and_removed_by_days() {
        let (own, archive) = (Store::memory().unwrap(), Store::memory().unwrap());
        let slots = ["2026-11-18T23:00:00Z", "2026-11-19T01:00:00Z", TEN];
        for slot in slots {
            put(&own, &record(slot, 1, "a", Outcome::Done)).unwrap();
        }
        put(&archive, &record(TEN, 1, "a", Outcome::Done)).unwrap();
        let copied = copy_missing(&own, &archive, "prod", at("2026-11-19T00:00:00Z")).unwrap();
        assert_eq!(copied, 1);
        assert_eq!(copy_missing(&own, &archive, "prod", Timestamp::UNIX_EPOCH).unwrap(), 1);
        let found = since(&archive, None, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(found.iter().map(|it| it.slot).collect::<Vec<_>>(), slots.map(at));
        assert_eq!(since(&archive, Some("other"), Timestamp::UNIX_EPOCH).unwrap(), []);
        assert_eq!(since(&archive, None, at("2026-11-19T02:00:00Z")).unwrap().len(), 1);
        assert_eq!(remove_before(&archive, "prod", at(TEN)).unwrap(), 2);
        assert_eq!(since(&archive, None, Timestamp::UNIX_EPOCH).unwrap().len(), 1);
    }

    /// A job of every month, and records of a week: it is not overdue as soon as the week is over.
    #[test]
    fn what_was_done_last_is_kept_whatever_its_age() {
        let objects = FaultStore::in_memory();
        let store = Store::from_objects(objects.clone(), "faulty").unwrap();
        let slots = ["2026-09-01T00:00:00Z", "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z"];
        let outcomes = [Outcome::Done, Outcome::Done, Outcome::Failed];
        for (slot, outcome) in slots.into_iter().zip(outcomes) {
            assert!(run(slot, 1).claim(&store, &agent("a"), at(slot)).unwrap());
            put(&store, &record(slot, 1, "a", outcome)).unwrap();
            // Another one is done still, and needs nothing that is old.
            let other = Record { job: "other".to_owned(), ..record(slot, 1, "a", outcome) };
            put(&store, &other).unwrap();
        }
        let other = Record {
            job: "other".to_owned(),
            ..record("2026-11-20T09:00:00Z", 1, "a", Outcome::Done)
        };
        put(&store, &other).unwrap();
        // Behind the listing.
        objects.fail(Fault::Error, When::From(objects.operations() + 2));
        remove_before(&store, "prod", at(TEN)).unwrap_err();
        objects.heal();
        assert_eq!(remove_before(&store, "prod", at(TEN)).unwrap(), 2 * 2 + 3);
        assert_eq!(remove_before(&store, "prod", at(TEN)).unwrap(), 0);
        let known = newest(&store, "prod", Timestamp::UNIX_EPOCH).unwrap();
        let known: Vec<_> = known.iter().map(|it| (&*it.job, it.slot)).collect();
        assert_eq!(known, [("other", other.slot), ("snapshot-daily", at(slots[1]))]);
        let claimed = attempts(&store, &run(slots[1], 1)).unwrap();
        assert_eq!(claimed[&1].ended.unwrap().0, Outcome::Done);
    }

    /// Those of a minute's job would be a thousand a day.
    #[test]
    fn days_that_are_removed_leave_no_folders() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::directory(directory.path()).unwrap();
        for slot in ["2026-11-18T23:00:00Z", "2026-11-19T01:00:00Z", TEN] {
            put(&store, &record(slot, 1, "a", Outcome::Done)).unwrap();
        }
        assert_eq!(remove_before(&store, "prod", at(TEN)).unwrap(), 2);
        let days = std::fs::read_dir(directory.path().join("records/prod")).unwrap();
        let days: Vec<_> = days.map(|day| day.unwrap().file_name()).collect();
        assert_eq!(days, ["20261120"]);
    }

    /// Whoever has failed for long is overdue: that it was done before that has to be known after a restart.
    #[test]
    fn how_a_job_goes_is_known_as_far_back_as_it_was_done() {
        let store = Store::memory().unwrap();
        let slot = |number: usize| format!("2026-11-20T{:02}:{:02}:00Z", number / 60, number % 60);
        for number in 0..100 {
            let done = number < 20;
            let outcome = if done { Outcome::Done } else { Outcome::Failed };
            put(&store, &record(&slot(number), 1, "a", outcome)).unwrap();
            let other = Record {
                job: "other".to_owned(),
                outcome: Outcome::Done,
                ..record(&slot(number), 1, "a", outcome)
            };
            put(&store, &other).unwrap();
        }
        let found = newest(&store, "prod", at(TEN).min(Timestamp::UNIX_EPOCH)).unwrap();
        let of = |job: &str| found.iter().filter(|it| it.job == job).collect::<Vec<_>>();
        assert_eq!(of("other").len(), SLOTS);
        let failing = of("snapshot-daily");
        let done = failing.iter().filter(|it| it.outcome == Outcome::Done).map(|it| it.slot).max();
        assert_eq!(done, Some(at(&slot(19))));
        assert!(failing.iter().any(|it| it.slot == at(&slot(99))) && failing.len() > 80);
    }

    #[test]
    fn what_was_made_is_told_of_each_kind() {
        let mut record = record(TEN, 1, "a", Outcome::Done);
        assert_eq!((record.made(), record.bytes()), (None, None));
        record.output = Some(json!({ "file": "/x.db", "fileSize": 7, "revision": 3 }));
        assert_eq!((record.made().as_deref(), record.bytes()), (Some("/x.db"), Some(7)));
        record.output = Some(json!({ "revision": 3, "newBytes": 5 }));
        assert_eq!((record.made().as_deref(), record.bytes()), (Some("revision 3"), Some(5)));
        record.output = Some(json!({ "revision": 3, "booted": false }));
        assert_eq!(record.made().as_deref(), Some("revision 3, no etcd was booted"));
        record.output = Some(json!({ "removed": 2, "collectedBytes": 5 }));
        assert_eq!((record.made().as_deref(), record.bytes()), (Some("removed: 2"), None));
        record.output = Some(json!({
            "verdict": "OK", "level": "read", "restorePointsGood": 3, "restorePointsVerified": 4,
        }));
        assert_eq!(record.made().as_deref(), Some("OK: 3 of 4 restore points read"));
    }

    #[test]
    fn exit_codes_say_whether_to_try_again() {
        let of = |code| Outcome::of_code(code);
        assert_eq!(
            [of(Some(0)), of(Some(1)), of(Some(5))],
            [Outcome::Done, Outcome::Failed, Outcome::Away]
        );
        for code in [2, 3, 4] {
            assert_eq!(of(Some(code)), Outcome::Refused);
        }
        assert_eq!([of(Some(130)), of(None)], [Outcome::Interrupted, Outcome::Failed]);
    }
}
