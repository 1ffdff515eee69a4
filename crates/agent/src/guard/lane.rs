//! Doing jobs of a cluster, one after the other.

use super::keeping::{self, Keeping};
use super::requests::Requests;
use super::{Level, Ward};
use crate::child::{is_of_an_error, reason};
use crate::jobs::{Job, Lane, Shared, What};
use crate::lines::Line;
use crate::records::{self, Outcome, Record, Run, now};
use crate::turns::{Attempt, Attempts, Turn, turn};
use jiff::{SignedDuration, Timestamp};
use rekindle_archive::{Archive, Store};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// How often is looked what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A clock may be set: what is due is reckoned anew so often.
const RECKON_EVERY: Duration = Duration::from_secs(60);
/// No job takes longer.
const JOB_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long a claim without a record is believed, at least, and how many periods of the job.
const PATIENCE_MIN: Duration = Duration::from_secs(120);
const PATIENCE_PERIODS: u32 = 2;
/// How often is looked in that time whether it is done.
const LOOKS: u32 = 8;
/// How long a base may take.
const BASE_MAX: Duration = Duration::from_secs(3600);
/// What was away may be back: it is tried at once where somebody wants a base, and this long is waited for it.
const AWAY_AFTER: Duration = Duration::from_secs(10);

/// How far a job is.
struct Progress {
    /// The last slot that is over.
    over: Timestamp,
    /// Nothing before that.
    next: Timestamp,
}

/// Does the jobs of a lane until all is to end.
pub(super) fn run(ward: &Arc<Ward>, lane: Lane) {
    let jobs: Vec<_> = ward.jobs.iter().filter(|job| job.lane == lane).collect();
    let mut worker = Worker {
        ward,
        progress: BTreeMap::new(),
        made: BTreeMap::new(),
        reckoned: Instant::now(),
        held: BTreeSet::new(),
        keeping: Keeping::default(),
    };
    worker.reckon(&jobs);
    while !ward.stop.wait(LOOK_EVERY) {
        if lane == Lane::Keep {
            worker.keeping.look_after(ward);
        }
        if lane == Lane::Base {
            worker.serve_request();
        }
        if worker.reckoned.elapsed() >= RECKON_EVERY {
            worker.reckon(&jobs);
        }
        for job in &jobs {
            if ward.stop.is_set() {
                return;
            }
            worker.look_at(job);
        }
    }
}

struct Worker<'a> {
    ward: &'a Arc<Ward>,
    progress: BTreeMap<&'a str, Progress>,
    /// The slot that each job was done for last, and how that went: also where no record could be kept of it.
    made: BTreeMap<&'a str, (Timestamp, Attempts)>,
    reckoned: Instant,
    /// Jobs that wait until other agents can be asked.
    held: BTreeSet<&'a str>,
    keeping: Keeping,
}

impl<'a> Worker<'a> {
    /// Reckons when each job is due.
    fn reckon(&mut self, jobs: &[&'a Job]) {
        self.reckoned = Instant::now();
        let now = now();
        for job in jobs {
            let known = self.ward.state(|state| state.jobs.get(&job.name).and_then(|it| it.slot));
            let over = self.progress.get(&*job.name).map(|it| it.over).or(known).unwrap_or(now);
            // A clock that was ahead must not keep a job from being done.
            let over = over.min(now);
            self.wait_for(job, over, next_of(job, over));
        }
    }

    fn wait_for(&mut self, job: &'a Job, over: Timestamp, next: Timestamp) {
        self.progress.insert(&job.name, Progress { over, next });
        self.ward.state(|state| {
            if let Some(state) = state.jobs.get_mut(&job.name) {
                (state.next, state.slot) = (Some(next), Some(over));
            }
        });
    }

    fn look_at(&mut self, job: &'a Job) {
        let now = now();
        let Some(progress) = self.progress.get(&*job.name) else { return };
        let over = progress.over;
        if now < progress.next || self.ward.state(|state| state.paused.is_some()) {
            return;
        }
        let Some(slot) = job.due(over, now) else {
            self.wait_for(job, over, next_of(job, over));
            return;
        };
        if job.what == What::Base && !self.writes_any() {
            // Whoever writes into them makes them.
            self.wait_for(job, slot, next_of(job, slot));
            return;
        }
        let (archive, unasked) = match self.coordinator(job).transpose() {
            Ok(archive) => (archive, None),
            Err(fault) if job.needs_agreement => return self.hold(job, over, &unheard(fault)),
            Err(fault) => (None, Some(fault)),
        };
        let (cluster, name) = (self.ward.cluster.name.clone(), job.name.clone());
        let mut run = Run { cluster, job: name, slot, attempt: 1 };
        let mut attempts = self.attempts(&run, archive.as_ref());
        if let Some((_, made)) = self.made.get(&*job.name).filter(|(of, _)| *of == slot) {
            attempts.extend(made.clone());
        }
        let patience = patience(job, now);
        match turn(&attempts, &self.ward.agent.id, now, patience) {
            Turn::Over => {
                self.held.remove(&*job.name);
                self.hear_of_others(&run, archive.as_ref());
                self.wait_for(job, slot, next_of(job, slot));
            }
            Turn::Wait(until) => {
                self.hear_of_others(&run, archive.as_ref());
                // Whoever does it may be done sooner; and the next slot takes the place of this one.
                let soon = (patience / LOOKS).clamp(LOOK_EVERY, RECKON_EVERY);
                let soon = SignedDuration::try_from(soon).unwrap_or(SignedDuration::ZERO);
                let soon = now.checked_add(soon).unwrap_or(until);
                match next_of(job, slot) {
                    next if next <= now => self.wait_for(job, slot, next),
                    next => self.wait_for(job, over, until.min(soon).min(next)),
                }
            }
            Turn::Make(attempt) => {
                run.attempt = attempt;
                if let Some(fault) = unasked {
                    let text = format!("done without asking other agents: {fault}");
                    self.ward.say(Level::Warning, Some(&job.name), text);
                }
                self.claim_and_make(job, &run, archive.as_ref(), over);
            }
        }
    }

    fn claim_and_make(
        &mut self,
        job: &'a Job,
        run: &Run,
        archive: Option<&Archive>,
        over: Timestamp,
    ) {
        if let Some(why) = self.still_runs(job, run, archive) {
            return self.hold(job, over, &why);
        }
        if !self.claim(job, run, archive) {
            return;
        }
        // Of two that have claimed different slots meanwhile, one at least sees the other's claim now.
        let made = match self.still_runs(job, run, archive) {
            Some(why) => Some(self.withdraw(run, why)),
            None => {
                self.held.remove(&*job.name);
                self.make(job, run)
            }
        };
        // Whether it is tried again is decided the next time.
        self.remember(job, run.slot, made);
    }

    /// Why a job that does harm twice at a time is not to be done now: another agent does it for another slot, and has not
    /// ended; or nobody knows.
    fn still_runs(&self, job: &Job, run: &Run, archive: Option<&Archive>) -> Option<String> {
        let store = archive.filter(|_| job.needs_agreement)?.store();
        let now = now();
        let patience = SignedDuration::try_from(patience(job, now)).unwrap_or(SignedDuration::MAX);
        let since = now.checked_sub(patience).unwrap_or(Timestamp::UNIX_EPOCH);
        // Nobody has claimed an earlier one since.
        let first = job.schedule.latest(Timestamp::UNIX_EPOCH, since).unwrap_or(since);
        let me = &self.ward.agent.id;
        match records::unfinished(store, run, me, records::Claimed { first, since, now }) {
            Ok(None) => None,
            Ok(Some(Attempt { agent, claimed, .. })) => {
                Some(format!("it waits for agent {agent}, which does it since {claimed}"))
            }
            Err(fault) => Some(unheard(fault)),
        }
    }

    /// It was claimed, and is not done.
    fn withdraw(&self, run: &Run, why: String) -> Record {
        let now = now();
        let record = Record::new(run, &self.ward.agent, now, now, Outcome::Interrupted);
        let record = Record { reason: Some(why), ..record };
        keeping::keep(self.ward, &record);
        self.tell(&record);
        record
    }

    /// It is not done now: what is done twice at a time does harm.
    fn hold(&mut self, job: &'a Job, over: Timestamp, why: &str) {
        if self.held.insert(&job.name) {
            self.ward.say(Level::Warning, Some(&job.name), why);
        }
        let again = job.schedule.period(now()).clamp(LOOK_EVERY, RECKON_EVERY);
        let again = SignedDuration::try_from(again).unwrap_or(SignedDuration::ZERO);
        self.wait_for(job, over, now().checked_add(again).unwrap_or(Timestamp::MAX));
    }

    fn remember(&mut self, job: &'a Job, slot: Timestamp, made: Option<Record>) {
        // Whoever follows the cluster tries again by himself to make a base.
        let Some(record) = made.filter(|_| job.what != What::Base) else {
            return self.wait_for(job, slot, next_of(job, slot));
        };
        let (_, attempts) = self
            .made
            .entry(&job.name)
            .and_modify(|known| {
                if known.0 != slot {
                    *known = (slot, Attempts::new());
                }
            })
            .or_insert_with(|| (slot, Attempts::new()));
        let ended = Some((record.outcome, record.ended));
        attempts
            .insert(record.attempt, Attempt { agent: record.agent, claimed: record.began, ended });
    }

    /// Where agents agree on who does a job.
    fn coordinator(&self, job: &Job) -> Option<Result<Archive, String>> {
        let archives = &self.ward.cluster.archives;
        let archive = match job.shared.as_ref()? {
            Shared::Archive(place) => archives.iter().find(|archive| archive.place == *place),
            Shared::Cluster => archives.first(),
        };
        archive.map(|archive| self.ward.open(archive))
    }

    fn attempts(&self, run: &Run, archive: Option<&Archive>) -> Attempts {
        let mut attempts = records::attempts(&self.ward.own, run).unwrap_or_default();
        let theirs = archive.map(|archive| records::attempts(archive.store(), run));
        for (number, theirs) in theirs.and_then(Result::ok).into_iter().flatten() {
            let own = attempts.entry(number).or_insert_with(|| theirs.clone());
            if own.ended.is_none() {
                *own = theirs;
            }
        }
        attempts
    }

    /// Whether it is ours; where nobody can be asked it is, unless agents have to agree on it.
    fn claim(&self, job: &Job, run: &Run, archive: Option<&Archive>) -> bool {
        let now = now();
        let unasked = !job.needs_agreement;
        let claim = |store: &Store| run.claim(store, &self.ward.agent, now).unwrap_or(unasked);
        archive.is_none_or(|archive| claim(archive.store())) && claim(&self.ward.own)
    }

    fn hear_of_others(&self, run: &Run, archive: Option<&Archive>) {
        let Some(archive) = archive else { return };
        for record in records::of_slot(archive.store(), run).unwrap_or_default() {
            keeping::hear(self.ward, record);
        }
    }

    /// Does it; the record of it is kept here, and in the archives.
    fn make(&self, job: &Job, run: &Run) -> Option<Record> {
        let began = now();
        self.ward.state(|state| {
            state.jobs.entry(job.name.clone()).or_default().running = Some(began);
        });
        let record = match &job.what {
            What::Commands(commands) => Some(self.commands(job, run, commands, began)),
            What::Base => self.base(run, began),
        };
        let Some(mut record) = record else {
            self.ward.state(|state| {
                state.jobs.entry(job.name.clone()).or_default().running = None;
            });
            return None;
        };
        let certificates = record.take_certificates();
        keeping::keep(self.ward, &record);
        self.tell(&record);
        self.ward.state(|state| {
            let state = state.jobs.entry(job.name.clone()).or_default();
            state.certificates = certificates.unwrap_or(std::mem::take(&mut state.certificates));
            state.hear(record.clone(), true);
        });
        Some(record)
    }

    fn tell(&self, record: &Record) {
        let took = record.ended.duration_since(record.began);
        let made = record.made().map(|made| format!(", {made}")).unwrap_or_default();
        let why = record.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let took = took.as_secs_f64();
        let text = format!("{} after {took:.1} s{made}{why}", record.outcome.name());
        let level = match record.outcome {
            Outcome::Done | Outcome::Interrupted => Level::Info,
            _ => Level::Warning,
        };
        self.ward.say(level, Some(&record.job), text);
    }

    fn commands(&self, job: &Job, run: &Run, commands: &[Vec<String>], began: Timestamp) -> Record {
        let new = |outcome| Record::new(run, &self.ward.agent, began, now(), outcome);
        let mut output: Option<Value> = None;
        let mut ran = Vec::new();
        for words in commands {
            ran = [vec!["rekindle".to_owned()], words.clone(), self.ward.program.also.clone()]
                .concat();
            let (ward, name) = (Arc::clone(self.ward), job.name.clone());
            let hear = move |line: &str| {
                // What went wrong is told with the record.
                if !is_of_an_error(line) {
                    ward.say(Level::Info, Some(&name), line);
                }
            };
            let ended = match self.ward.program.run(words, &self.ward.stop, JOB_MAX, hear) {
                Ok(ended) => ended,
                Err(error) => {
                    let reason = Some(format!("starting it: {error}"));
                    return Record { command: ran, reason, output, ..new(Outcome::Failed) };
                }
            };
            add_output(&mut output, serde_json::from_str(ended.stdout.trim()).ok());
            let outcome = match (self.ward.stop.is_set(), ended.too_long) {
                (_, true) => Outcome::Failed,
                (true, _) if ended.code != Some(0) => Outcome::Interrupted,
                _ => Outcome::of_code(ended.code),
            };
            if outcome != Outcome::Done {
                let too_long = || format!("it took longer than {} h", JOB_MAX.as_secs() / 3600);
                let code = || match ended.code {
                    Some(code) => format!("it has ended with code {code}"),
                    None => "it was killed".to_owned(),
                };
                let reason = reason(&ended.said).filter(|_| !ended.too_long);
                let reason = reason.or_else(|| ended.too_long.then(too_long)).unwrap_or_else(code);
                return Record { command: ran, reason: Some(reason), output, ..new(outcome) };
            }
        }
        Record { command: ran, output, ..new(Outcome::Done) }
    }

    /// The archives that this host writes into.
    fn written(&self) -> Vec<String> {
        self.ward.state(|state| {
            let writes = |(place, it): (&String, &crate::board::ArchiveState)| {
                let is_known = !it.line.archive.is_empty();
                (is_known && !it.line.stands_by).then(|| place.clone())
            };
            state.archives.iter().filter_map(writes).collect()
        })
    }

    /// Archives that cannot be written into now, and why.
    fn away(&self) -> BTreeMap<String, String> {
        self.ward.state(|state| {
            let failing =
                state.archives.iter().filter_map(|(place, it)| Some((place, it.failure.as_ref()?)));
            failing.map(|(place, (_, why))| (place.clone(), why.clone())).collect()
        })
    }

    fn writes_any(&self) -> bool {
        !self.written().is_empty()
    }

    /// Has a base made in each archive that this host writes into; none where it writes into none.
    fn base(&self, run: &Run, began: Timestamp) -> Option<Record> {
        let told = self.ward.following.want_base();
        let patience = Instant::now() + AWAY_AFTER;
        let mut missing = self.written();
        while missing.is_empty() && Instant::now() < patience && !self.ward.stop.is_set() {
            self.ward.stop.wait(LOOK_EVERY);
            missing = self.written();
        }
        if missing.is_empty() {
            return None;
        }
        let until = Instant::now() + BASE_MAX;
        let (mut made, mut faults) = (Vec::new(), Vec::new());
        while !missing.is_empty() && Instant::now() < until && !self.ward.stop.is_set() {
            match told.recv_timeout(LOOK_EVERY) {
                Ok(Line::Base { archive, revision, new_bytes, text, .. }) => {
                    missing.retain(|place| *place != archive);
                    match revision {
                        Some(revision) => made.push(json!({
                            "archive": archive, "revision": revision, "newBytes": new_bytes,
                        })),
                        None => faults.push(text),
                    }
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {
                    let (still, away) = (self.written(), self.away());
                    missing.retain(|place| still.contains(place));
                    if Instant::now() < patience {
                        continue;
                    }
                    // It gets its base by itself, once it can be written into.
                    missing.retain(|place| match away.get(place) {
                        Some(why) => {
                            faults.push(why.clone());
                            false
                        }
                        None => true,
                    });
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        faults.extend(missing.iter().map(|place| format!("{place} has got none in time")));
        if made.is_empty() && faults.is_empty() {
            faults.push("another host writes into the archives now: ask there".to_owned());
        }
        let outcome = match (self.ward.stop.is_set() && !missing.is_empty(), faults.is_empty()) {
            (true, _) => Outcome::Interrupted,
            (false, true) => Outcome::Done,
            (false, false) => Outcome::Away,
        };
        let revision = made.iter().filter_map(|it| it["revision"].as_i64()).max();
        let bytes: u64 = made.iter().filter_map(|it| it["newBytes"].as_u64()).sum();
        let output = json!({ "revision": revision, "newBytes": bytes, "bases": made });
        let record = Record::new(run, &self.ward.agent, began, now(), outcome);
        let reason = (!faults.is_empty()).then(|| faults.join("; "));
        Some(Record { reason, output: Some(output), ..record })
    }

    /// Does what somebody wants now, whatever is due.
    fn serve_request(&mut self) {
        let Some((path, request)) = self.ward.requests.first() else { return };
        let is_backup = |job: &&Job| job.lane == Lane::Base;
        let jobs = self.ward.jobs.iter();
        let mut wanted: Vec<_> = jobs.clone().filter(is_backup).collect();
        if wanted.is_empty() {
            wanted = jobs.filter(|job| job.lane == Lane::Save).collect();
        }
        let mut done = Vec::new();
        for job in wanted {
            let (cluster, name) = (self.ward.cluster.name.clone(), job.name.clone());
            let run = Run { cluster, job: name, slot: request.asked, attempt: 1 };
            let made = self.make(job, &run);
            done.push(made.unwrap_or_else(|| {
                // Whoever is asked elsewhere can do it.
                let why = self.ward.state(|state| {
                    let words: Vec<_> =
                        state.archives.values().map(|it| it.words.clone()).collect();
                    words.into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join("; ")
                });
                let record = Record::new(&run, &self.ward.agent, now(), now(), Outcome::Away);
                let why =
                    if why.is_empty() { "no archive was reached yet".to_owned() } else { why };
                Record {
                    reason: Some(format!("this host writes into no archive: {why}")),
                    ..record
                }
            }));
        }
        Requests::answer(&path, &done);
    }
}

/// What several commands have printed: that of the first, and in `also` that of those behind it.
fn add_output(output: &mut Option<Value>, printed: Option<Value>) {
    match (output, printed) {
        (output @ None, printed) => *output = printed,
        (Some(Value::Object(first)), Some(printed)) => {
            if let Value::Array(also) = first.entry("also").or_insert_with(|| json!([])) {
                also.push(printed);
            }
        }
        _ => {}
    }
}

/// How long a claim without a record is believed: where it does harm when two do it, as long as anything may take.
fn patience(job: &Job, now: Timestamp) -> Duration {
    if job.needs_agreement {
        return JOB_MAX;
    }
    let patience = job.schedule.period(now).saturating_mul(PATIENCE_PERIODS);
    patience.clamp(PATIENCE_MIN, JOB_MAX)
}

fn unheard(fault: impl std::fmt::Display) -> String {
    format!("it waits until other agents can be asked: {fault}")
}

/// When the slot behind one begins.
fn next_of(job: &Job, over: Timestamp) -> Timestamp {
    let slot = job.schedule.next(over);
    slot.map_or(Timestamp::MAX, |slot| job.begins(slot))
}
