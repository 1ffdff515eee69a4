//! What an agent knows of its clusters: what metrics show, and what alarms are judged by.

use crate::files::Certificate;
use crate::health::Health;
use crate::lines::{ArchiveLine, Line};
use crate::records::{Outcome, Record};
use crate::schedule::Schedule;
use crate::surroundings::Warning;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// All of it.
#[derive(Clone, Debug)]
pub struct Board {
    /// When the agent began.
    pub began: Timestamp,
    /// By their names.
    pub clusters: BTreeMap<String, ClusterState>,
    /// The configuration was changed, and is not good: the one before holds.
    pub config_fault: Option<(Timestamp, String)>,
}

/// A cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterState {
    /// Nothing is done by schedule, and why.
    pub paused: Option<String>,
    /// When it was paused last no more.
    pub resumed: Option<Timestamp>,
    /// Following it; none where it is not followed.
    pub capture: Option<CaptureState>,
    /// By their places, as the configuration has them.
    pub archives: BTreeMap<String, ArchiveState>,
    /// By their names.
    pub jobs: BTreeMap<String, JobState>,
    /// Its jobs could not be begun.
    pub unguarded: Option<(Timestamp, String)>,
    /// What makes backups go down with what they are of.
    pub surroundings: Vec<Warning>,
    /// How its members are.
    pub health: Health,
}

/// The process that follows a cluster.
#[derive(Clone, Debug)]
pub struct CaptureState {
    /// Since when it is to be followed, however often the process begins again.
    pub begun: Timestamp,
    /// Since when it runs, or does not.
    pub since: Timestamp,
    /// Whether it runs.
    pub runs: bool,
    /// How often it was started.
    pub starts: u64,
    /// The last revision that has come.
    pub head: Option<i64>,
    /// The cluster is ahead by so many revisions.
    pub behind: i64,
    /// When the cluster was heard of.
    pub heard: Option<Timestamp>,
    /// The last failure that was told.
    pub failure: Option<(Timestamp, String)>,
    /// Members contradict each other.
    pub differs: Option<(Timestamp, String)>,
    /// The cluster became another one.
    pub another_history: Option<(Timestamp, String)>,
    /// How often it did.
    pub histories: u64,
}

/// Moments that are remembered of an archive that is behind.
const AWAITED_MAX: usize = 512;

/// An archive that a cluster is followed into.
#[derive(Clone, Debug, Default)]
pub struct ArchiveState {
    /// What was told last.
    pub line: ArchiveLine,
    /// It has all that the cluster had then.
    pub complete: Option<Timestamp>,
    /// When the cluster was at these revisions, which the archive has not yet.
    pub(crate) awaited: VecDeque<(i64, Timestamp)>,
    /// What was told of it last, in words.
    pub words: String,
    /// It cannot be written into.
    pub failure: Option<(Timestamp, String)>,
    /// The last base contradicts what was there before.
    pub contradicts: Option<(Timestamp, String)>,
    /// Revisions that are no restore points.
    pub gap_revisions: i64,
    /// Bases that were made, and that failed.
    pub bases: u64,
    /// See there.
    pub bases_failed: u64,
    /// The last base failed.
    pub base_failure: Option<(Timestamp, String)>,
}

/// What fails so often at a slot fails: what comes and goes mends itself.
const TRIES: u32 = 3;

/// A job.
#[derive(Clone, Debug, Default)]
pub struct JobState {
    /// Its runs lie so far apart.
    pub period: Duration,
    /// When it is due.
    pub schedule: Option<Schedule>,
    /// Up to so much later it begins.
    pub jitter: Duration,
    /// Since when it is looked after.
    pub since: Option<Timestamp>,
    /// When its next run is due.
    pub next: Option<Timestamp>,
    /// It runs since.
    pub running: Option<Timestamp>,
    /// The slot that is done.
    pub slot: Option<Timestamp>,
    /// When it last succeeded.
    pub succeeded: Option<Timestamp>,
    /// How it ended the last time.
    pub last: Option<Record>,
    /// It fails since, until it succeeds: this run of it was refused, or was its third try.
    pub failing: Option<(Timestamp, Record)>,
    /// Certificates that its last run has seen.
    pub certificates: Vec<Certificate>,
    /// Runs that this agent made, by how they ended.
    pub runs: BTreeMap<&'static str, u64>,
}

impl Board {
    /// Of an agent that begins.
    #[must_use]
    pub fn new(began: Timestamp) -> Self {
        Self { began, clusters: BTreeMap::new(), config_fault: None }
    }
}

impl CaptureState {
    /// Of one that was not started yet.
    #[must_use]
    pub fn new(since: Timestamp) -> Self {
        Self {
            begun: since,
            since,
            runs: false,
            starts: 0,
            head: None,
            behind: 0,
            heard: None,
            failure: None,
            differs: None,
            another_history: None,
            histories: 0,
        }
    }
}

impl ClusterState {
    /// Begun anew with a changed configuration: what is looked at seldom is as it was until it is looked at again.
    #[must_use]
    pub fn after(mut self, before: &mut Self) -> Self {
        self.surroundings = std::mem::take(&mut before.surroundings);
        for (name, job) in &mut self.jobs {
            if let Some(before) = before.jobs.get_mut(name) {
                job.certificates = std::mem::take(&mut before.certificates);
                job.runs = std::mem::take(&mut before.runs);
            }
        }
        self
    }

    /// Hears what capture tells.
    pub fn hear(&mut self, line: Line, now: Timestamp) {
        let Some(capture) = &mut self.capture else { return };
        match line {
            Line::Status { head, behind, silent_seconds, archives, .. } => {
                (capture.head, capture.behind) = (head, behind);
                let ago = silent_seconds.map(SignedDuration::try_from_secs_f64);
                let ago = ago.and_then(Result::ok);
                capture.heard = ago.and_then(|ago| now.checked_sub(ago).ok()).or(capture.heard);
                // What the cluster has that did not come yet was there when it was heard of.
                let newest = head.map(|head| head.saturating_add(behind.max(0)));
                for line in archives {
                    let place = line.archive.clone();
                    let state = self.archives.entry(place).or_default();
                    state.hear(line, newest.zip(capture.heard));
                }
            }
            Line::Base { archive, revision, contradicts, text, .. } => {
                let state = self.archives.entry(archive).or_default();
                match revision {
                    Some(_) => {
                        state.bases += 1;
                        state.base_failure = None;
                        state.contradicts = contradicts.then_some((now, text));
                    }
                    None => {
                        state.bases_failed += 1;
                        let since = state.base_failure.as_ref().map_or(now, |(since, _)| *since);
                        state.base_failure = Some((since, text));
                    }
                }
            }
            Line::Members { differ, text } => capture.differs = differ.then_some((now, text)),
            Line::Gap { archive, first, last, .. } => {
                let state = self.archives.entry(archive).or_default();
                state.gap_revisions += last.saturating_sub(first).saturating_add(1).max(0);
            }
            Line::AnotherHistory { text } => {
                capture.histories += 1;
                capture.another_history = Some((now, text));
            }
            Line::Note { failed, archive: Some(archive), text } => {
                let state = self.archives.entry(archive).or_default();
                state.words.clone_from(&text);
                state.failure = failed.then_some((now, text));
            }
            Line::Note { failed: true, archive: None, text } => capture.failure = Some((now, text)),
            Line::Note { failed: false, .. } => {}
        }
    }
}

impl ArchiveState {
    /// `newest` is the newest revision of the cluster, and when it was known to be that.
    fn hear(&mut self, line: ArchiveLine, newest: Option<(i64, Timestamp)>) {
        self.line = line;
        if self.line.stands_by {
            // Whoever writes there makes them now.
            self.base_failure = None;
        }
        let Some((newest, at)) = newest else { return };
        let has = |revision: i64| self.line.written.is_some_and(|written| written >= revision);
        if self.line.stands_by || has(newest) {
            self.complete = Some(at);
            self.awaited.clear();
            return;
        }
        while let Some((_, then)) = self.awaited.pop_front_if(|(revision, _)| has(*revision)) {
            self.complete = Some(then);
        }
        if self.awaited.back().is_none_or(|(last, _)| *last < newest) {
            self.awaited.push_back((newest, at));
        }
        if self.awaited.len() > AWAITED_MAX {
            // It goes on for long: half as exact is exact enough.
            let mut is_kept = false;
            self.awaited.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
    }

    /// For how long it has not all that the cluster has; reckoned from `since` where it never had.
    #[must_use]
    pub fn lag(&self, since: Timestamp, now: Timestamp) -> Duration {
        let complete = self.complete.unwrap_or(since);
        Duration::try_from(now.duration_since(complete)).unwrap_or_default()
    }
}

impl JobState {
    /// Hears how a run ended. `made` by this agent, or by another one.
    pub fn hear(&mut self, record: Record, made: bool) {
        if made {
            *self.runs.entry(record.outcome.name()).or_default() += 1;
            self.running = None;
        }
        if record.outcome == Outcome::Done {
            self.succeeded = self.succeeded.max(Some(record.ended));
        }
        if self.last.as_ref().is_some_and(|last| last.ended > record.ended) {
            return;
        }
        match record.outcome {
            Outcome::Done => self.failing = None,
            Outcome::Failed | Outcome::Away if record.attempt < TRIES => {}
            Outcome::Refused | Outcome::Failed | Outcome::Away => {
                let since = self.failing.as_ref().map_or(record.ended, |(since, _)| *since);
                self.failing = Some((since, record.clone()));
            }
            Outcome::Interrupted => {}
        }
        self.last = Some(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn status(head: i64, written: i64) -> Line {
        let archive = ArchiveLine {
            archive: "/a".to_owned(),
            written: Some(written),
            ..ArchiveLine::default()
        };
        Line::Status {
            head: Some(head),
            behind: 0,
            behind_seconds: 0.0,
            silent_seconds: Some(0.0),
            archives: vec![archive],
        }
    }

    fn followed() -> ClusterState {
        ClusterState { capture: Some(CaptureState::new(at(0))), ..ClusterState::default() }
    }

    fn lag(state: &ClusterState, now: i64) -> u64 {
        state.archives["/a"].lag(at(0), at(now)).as_secs()
    }

    #[test]
    fn an_archive_lags_by_what_it_has_not_and_not_by_what_goes_on() {
        let mut state = followed();
        state.hear(status(10, 10), at(0));
        assert_eq!(lag(&state, 0), 0);
        // Writes without an end: what came 5 s ago is there.
        for second in 1..60 {
            state.hear(status(10 + second, 10 + (second - 5).max(0)), at(second));
            assert!(lag(&state, second) <= 6, "{second}: {}", lag(&state, second));
        }
        // Nothing of what comes is written any more.
        for second in 60..2000 {
            state.hear(status(10 + second, 64), at(second));
        }
        assert_eq!(lag(&state, 1999), 1945);
        assert!(state.archives["/a"].awaited.len() <= AWAITED_MAX);
        // It comes on, and what it has tells how far.
        state.hear(status(2010, 1010), at(2000));
        assert!((1000..1010).contains(&lag(&state, 2000)), "{}", lag(&state, 2000));
        state.hear(status(2011, 2011), at(2001));
        assert_eq!(lag(&state, 2001), 0);
    }

    /// Whoever stands by has nothing to write: that is somebody else's lag.
    #[test]
    fn whoever_stands_by_does_not_lag() {
        let mut state = followed();
        let Line::Status { mut archives, head, behind, behind_seconds, silent_seconds } =
            status(10, 1)
        else {
            unreachable!()
        };
        archives[0].stands_by = true;
        let stands_by = Line::Status { archives, head, behind, behind_seconds, silent_seconds };
        state.hear(status(10, 1), at(0));
        assert_eq!(lag(&state, 90), 90);
        state.hear(stands_by, at(100));
        assert_eq!(lag(&state, 100), 0);
    }

    #[test]
    fn where_the_cluster_is_silent_nothing_is_complete() {
        let mut state = followed();
        state.hear(status(10, 10), at(0));
        let Line::Status { head, behind, behind_seconds, archives, .. } = status(10, 10) else {
            unreachable!()
        };
        let silent =
            Line::Status { head, behind, behind_seconds, silent_seconds: Some(100.0), archives };
        state.hear(silent, at(100));
        assert_eq!(lag(&state, 100), 100);
        assert_eq!(state.capture.unwrap().heard, Some(at(0)));
    }

    #[test]
    fn a_job_fails_until_it_succeeds() {
        let mut job = JobState::default();
        let mut hear = |outcome, slot: i64, attempt| {
            let (cluster, name) = ("a".to_owned(), "j".to_owned());
            let run = crate::records::Run { cluster, job: name, slot: at(slot), attempt };
            let agent = crate::records::Agent { id: "1".to_owned(), host: "h".to_owned() };
            let ended = at(slot + i64::from(attempt));
            job.hear(Record::new(&run, &agent, ended, ended, outcome), true);
            job.failing.as_ref().map(|(since, last)| (*since, last.ended))
        };
        assert_eq!(hear(Outcome::Failed, 10, 1), None);
        assert_eq!(hear(Outcome::Away, 10, 2), None);
        assert_eq!(hear(Outcome::Failed, 10, 3), Some((at(13), at(13))));
        // The first tries at the next slot say nothing new, and nothing better.
        assert_eq!(hear(Outcome::Failed, 20, 1), Some((at(13), at(13))));
        assert_eq!(hear(Outcome::Interrupted, 20, 2), Some((at(13), at(13))));
        assert_eq!(hear(Outcome::Refused, 30, 1), Some((at(13), at(31))));
        assert_eq!(hear(Outcome::Done, 40, 1), None);
        assert_eq!(hear(Outcome::Refused, 50, 1), Some((at(51), at(51))));
        // What another agent has done before that is heard of later, and says nothing any more.
        assert_eq!(hear(Outcome::Done, 45, 1), Some((at(51), at(51))));
    }

    #[test]
    fn each_archive_has_failures_of_its_own() {
        let mut state = followed();
        let note = |failed, archive: Option<&str>| Line::Note {
            failed,
            archive: archive.map(str::to_owned),
            text: "words".to_owned(),
        };
        state.hear(note(true, Some("/a")), at(1));
        state.hear(note(true, None), at(2));
        assert_eq!(state.archives["/a"].failure, Some((at(1), "words".to_owned())));
        assert_eq!(state.capture.as_ref().unwrap().failure, Some((at(2), "words".to_owned())));
        state.hear(note(false, Some("/a")), at(3));
        assert_eq!(state.archives["/a"].failure, None);
    }

    #[test]
    fn a_good_base_ends_what_a_bad_one_began() {
        let mut state = followed();
        let base = |revision, contradicts| Line::Base {
            archive: "/a".to_owned(),
            revision,
            time: None,
            new_bytes: 0,
            contradicts,
            text: "words".to_owned(),
        };
        state.hear(base(None, false), at(1));
        state.hear(base(None, false), at(2));
        assert_eq!(state.archives["/a"].base_failure, Some((at(1), "words".to_owned())));
        state.hear(base(Some(7), true), at(3));
        let archive = &state.archives["/a"];
        assert_eq!((archive.bases, archive.bases_failed), (1, 2));
        assert!(archive.base_failure.is_none() && archive.contradicts.is_some());
        state.hear(base(Some(8), false), at(4));
        assert!(state.archives["/a"].contradicts.is_none());
    }
}
