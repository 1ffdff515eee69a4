//! When somebody has to look: what is wrong, since when, and what to do.

use crate::board::{Board, CaptureState, ClusterState, JobState};
use crate::config::Config;
use crate::health::Health;
use crate::records::Outcome;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long something that is started anew again and again may be away.
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);
/// A job is not late sooner, however often it is due.
const LATE_MIN: Duration = Duration::from_secs(60);
/// How long it stays told that a cluster became another one.
const HISTORY_FOR: Duration = Duration::from_secs(86_400);

/// Each alarm: its name, how urgent it is, and when it is raised.
pub const ALARMS: &[(&str, &str, &str)] = &[
    (
        "NotFollowed",
        "critical",
        "Nothing was heard of a cluster that is followed for a minute: it is silent, or the process that follows it \
         ends again and again.",
    ),
    (
        "ArchiveBehind",
        "critical",
        "An archive has not what the cluster had `alarms.behind` ago; not where another host writes into it.",
    ),
    (
        "MembersDiffer",
        "critical",
        "Members have said different HashKVs of one revision, until they agree.",
    ),
    (
        "BaseContradicts",
        "critical",
        "A snapshot is not what the archive had of the same revisions, until a base agrees again.",
    ),
    ("BaseFailed", "warning", "No base could be made of a snapshot, until one is made."),
    (
        "AnotherHistory",
        "warning",
        "The cluster became another one: it was restored, or somebody has put one in its place. For a day.",
    ),
    (
        "JobFailed",
        "critical, warning",
        "A job was refused (critical), or has failed at the third try of one slot (warning), until it succeeds.",
    ),
    (
        "JobOverdue",
        "critical",
        "A job has not succeeded at the last `alarms.missedRuns` of its times, and for a minute at least.",
    ),
    (
        "CertificateExpires",
        "critical, warning",
        "A certificate among `hostFiles` expires within `alarms.expiry`; critical within a quarter of that.",
    ),
    (
        "ConfigurationBad",
        "critical",
        "A changed configuration is not good, so the one before holds.",
    ),
    (
        "NotGuarded",
        "critical",
        "Following a cluster and doing its jobs cannot be begun; it is tried again each second.",
    ),
    (
        "NoQuorum",
        "critical",
        "No member serves, `check.failsAfter` times in a row, until one does `check.wellAfter` times.",
    ),
    (
        "MemberUnwell",
        "critical, warning",
        "Something is wrong with a member (Down, NotServing, NoSpace, Corrupt, Quota, Lags, Certificate, Clock and so on), so \
         often in a row; critical where it is urgent.",
    ),
    (
        "ClusterUnwell",
        "critical, warning",
        "The same of the whole cluster (NoLeader, Hashes, Elections, Versions and so on).",
    ),
    (
        "RecoveryWanted",
        "critical",
        "Something is to be done about members that is not done unasked; the remedy is what to type.",
    ),
    ("NotChecked", "warning", "Members cannot be looked at."),
    ("OneDestination", "warning", "All backups are in one place."),
    (
        "ArchiveInCluster",
        "warning",
        "An archive's store is in the cluster that it is of, or on a member's host.",
    ),
    ("IdentitiesOnHost", "warning", "All identities that open an archive are on a member's host."),
    (
        "AtRestKeysUnsaved",
        "warning",
        "The keys with which Kubernetes encrypts at rest are in no `hostFiles`.",
    ),
    (
        "Paused",
        "warning",
        "Nothing is done by schedule. Alarms of jobs are muted meanwhile: none is raised, and none is over.",
    ),
];

/// The table of alarms, for people.
#[must_use]
pub fn reference() -> String {
    let mut page = "\n## Alarms\n\n| alarm | urgency | when |\n|---|---|---|\n".to_owned();
    for (name, urgency, when) in ALARMS {
        page += &format!("| `{name}` | {urgency} | {when} |\n");
    }
    page
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// What kind of thing it is.
    pub name: &'static str,
    /// Whether somebody has to look now, or at the next occasion.
    pub severity: Severity,
    /// The cluster; empty where it is the agent.
    pub cluster: String,
    /// The archive, or the job.
    pub subject: String,
    /// What is wrong.
    pub summary: String,
    /// What to do.
    pub remedy: String,
    /// Since when.
    pub since: Timestamp,
    /// Nobody is to be told now that it begins: the cluster is paused. It is not over, either.
    #[serde(skip)]
    pub muted: bool,
}

/// How urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Now.
    Critical,
    /// At the next occasion.
    Warning,
}

impl Severity {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// What an alarm is of: while this stays the same, it is the same alarm.
pub type Key = (&'static str, String, String);

impl Alarm {
    /// See [`Key`].
    #[must_use]
    pub fn key(&self) -> Key {
        (self.name, self.cluster.clone(), self.subject.clone())
    }
}

/// All that is wrong.
#[must_use]
pub fn alarms(board: &Board, config: &Config, now: Timestamp) -> Vec<Alarm> {
    let (cluster, alarms) = (String::new(), Vec::new());
    let mut judge = Judge { config, now, cluster, muted: false, alarms };
    if let Some((since, fault)) = &board.config_fault {
        judge.raise(
            ("ConfigurationBad", Severity::Critical),
            "",
            format!(
                "the configuration was changed, and the one before holds: {}",
                fault.lines().map(str::trim).collect::<Vec<_>>().join("; ")
            ),
            "rekindle agent --config FILE --check says what is wrong",
            *since,
        );
    }
    for (name, state) in &board.clusters {
        name.clone_into(&mut judge.cluster);
        judge.cluster(state, board.began);
    }
    judge.alarms
}

struct Judge<'a> {
    config: &'a Config,
    now: Timestamp,
    cluster: String,
    muted: bool,
    alarms: Vec<Alarm>,
}

impl Judge<'_> {
    fn raise(
        &mut self,
        (name, severity): (&'static str, Severity),
        subject: &str,
        summary: String,
        remedy: &str,
        since: Timestamp,
    ) {
        let (cluster, subject, remedy) =
            (self.cluster.clone(), subject.to_owned(), remedy.to_owned());
        debug_assert!(ALARMS.iter().any(|(known, ..)| *known == name), "{name} is in no reference");
        let muted = self.muted;
        let alarm = Alarm { name, severity, cluster, subject, summary, remedy, since, muted };
        self.alarms.push(alarm);
    }

    fn ago(&self, at: Timestamp) -> Duration {
        Duration::try_from(self.now.duration_since(at)).unwrap_or_default()
    }

    fn cluster(&mut self, state: &ClusterState, began: Timestamp) {
        if let Some(reason) = &state.paused {
            let summary = format!("nothing is done by schedule: {reason}");
            let remedy = "rekindle agent resume, or paused in the configuration";
            self.raise(("Paused", Severity::Warning), "", summary, remedy, self.now);
        }
        if let Some((since, fault)) = &state.unguarded {
            let summary = format!("nothing is done for the cluster: {fault}");
            let remedy = "mend what the reason says: it begins by itself then";
            self.raise(("NotGuarded", Severity::Critical), "", summary, remedy, *since);
        }
        for warning in &state.surroundings {
            let kind = (warning.name, Severity::Warning);
            let (subject, summary) = (&warning.subject, warning.summary.clone());
            self.raise(kind, subject, summary, warning.remedy, began);
        }
        if let Some(capture) = &state.capture {
            self.capture(capture, state);
        }
        self.health(&state.health);
        self.certificates(state);
        self.muted = state.paused.is_some();
        for (name, job) in &state.jobs {
            self.job(name, job, state.resumed);
        }
        self.muted = false;
    }

    fn capture(&mut self, capture: &CaptureState, state: &ClusterState) {
        // A process that begins and ends again and again hears nothing either.
        let heard = capture.heard.unwrap_or(capture.begun);
        if self.ago(heard) >= RESTARTS_WITHIN {
            let why = capture.failure.as_ref().map_or("it ends again and again", |(_, why)| why);
            let why = why.lines().next().unwrap_or_default();
            let summary = format!("the cluster is not followed: {why}");
            let remedy = "look at the agent's log; run rekindle capture --config FILE by hand";
            self.raise(("NotFollowed", Severity::Critical), "", summary, remedy, heard);
        }
        if let Some((since, text)) = &capture.differs {
            let remedy =
                "compare etcdctl endpoint hashkv --cluster, and replace the member that differs";
            self.raise(("MembersDiffer", Severity::Critical), "", text.clone(), remedy, *since);
        }
        if let Some((since, text)) = &capture.another_history
            && self.ago(*since) < HISTORY_FOR
        {
            let remedy =
                "if somebody has restored the cluster all is well; else find out who writes there";
            self.raise(("AnotherHistory", Severity::Warning), "", text.clone(), remedy, *since);
        }
        for (place, archive) in &state.archives {
            let since = archive.complete.unwrap_or(capture.begun);
            if archive.lag(capture.begun, self.now) >= self.config.alarms.behind.0 {
                let why = capture.failure.as_ref().filter(|(at, _)| *at >= since);
                let why = archive.failure.as_ref().or(why);
                let why = why.map(|(_, why)| format!(": {why}")).unwrap_or_default();
                let summary = format!("{place} has not what the cluster had since then{why}");
                let remedy = "look at the agent's log, the store and the cluster's health";
                self.raise(("ArchiveBehind", Severity::Critical), place, summary, remedy, since);
            }
            if let Some((since, text)) = &archive.contradicts {
                let remedy =
                    "compare rekindle hashkv of the members; until then trust neither blindly";
                let kind = ("BaseContradicts", Severity::Critical);
                self.raise(kind, place, text.clone(), remedy, *since);
            }
            if let Some((since, text)) = &archive.base_failure {
                let remedy = "it is tried again by itself; the reason says what to mend";
                self.raise(("BaseFailed", Severity::Warning), place, text.clone(), remedy, *since);
            }
        }
    }

    fn health(&mut self, health: &Health) {
        for ((name, member), seen) in health.seen.iter().filter(|(_, seen)| seen.is_believed) {
            let severity = match &*seen.finding.severity {
                "urgent" => Severity::Critical,
                _ => Severity::Warning,
            };
            let (kind, subject) = match (&**name, &**member) {
                ("NoQuorum", _) => ("NoQuorum", String::new()),
                (name, "") => ("ClusterUnwell", name.to_owned()),
                (name, member) => ("MemberUnwell", format!("{member} {name}")),
            };
            let (what, remedy) = (seen.finding.what.clone(), &seen.finding.remedy);
            self.raise((kind, severity), &subject, what, remedy, seen.since);
        }
        if let Some((since, next)) = &health.wanted {
            let repairs = next.decision == "do" && next.here && self.repairs();
            let why = health.hindrance.clone().or_else(|| next.why.clone());
            // What is being done needs nobody.
            if !repairs || health.hindrance.is_some() {
                let whose = next.member.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
                let step = next.step.as_deref().unwrap_or_default();
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                let remedy = next.command.as_deref().unwrap_or_default();
                let kind = ("RecoveryWanted", Severity::Critical);
                self.raise(kind, "", format!("{step}{whose}{why}"), remedy, *since);
            }
        }
        if let Some((since, why)) = &health.failure {
            let summary = format!("members cannot be looked at: {why}");
            let remedy = "rekindle check --config FILE by hand says more";
            self.raise(("NotChecked", Severity::Warning), "", summary, remedy, *since);
        }
    }

    fn repairs(&self) -> bool {
        self.config.cluster(Some(&self.cluster)).is_some_and(|cluster| cluster.check.repair)
    }

    /// Of several files with one certificate, and several archives with one file, one is told.
    fn certificates(&mut self, state: &ClusterState) {
        let soon = self.config.alarms.expiry.0;
        let mut told = BTreeSet::new();
        let mut found: Vec<_> = state.jobs.values().flat_map(|job| &job.certificates).collect();
        // Of several in one file the one that expires first counts.
        found.sort_by_key(|found| found.not_after);
        for found in found {
            let left = Duration::try_from(found.not_after.duration_since(self.now));
            let left = left.unwrap_or_default();
            if left >= soon || !told.insert(&found.path) {
                continue;
            }
            let severity = if left < soon / 4 { Severity::Critical } else { Severity::Warning };
            let word = if left.is_zero() { "has expired" } else { "expires" };
            let summary = format!("{} {word} at {}", found.subject, found.not_after);
            let remedy = "renew it: kubeadm certs renew, or whoever has issued it; then restart what uses it";
            let since = i64::try_from(soon.as_secs())
                .ok()
                .and_then(|soon| found.not_after.checked_sub(SignedDuration::from_secs(soon)).ok());
            let kind = ("CertificateExpires", severity);
            self.raise(kind, &found.path, summary, remedy, since.unwrap_or(self.now));
        }
    }

    /// Nothing was to be done before `resumed`.
    fn job(&mut self, name: &str, job: &JobState, resumed: Option<Timestamp>) {
        if let Some((since, last)) = &job.failing {
            let reason = last.reason.as_deref().unwrap_or("it said nothing of why");
            let why = reason.lines().next().unwrap_or_default();
            let verb = match last.outcome {
                Outcome::Refused => "was refused",
                Outcome::Away => "could not be done",
                _ => "failed",
            };
            let summary = format!("it {verb} at {}: {why}", last.ended);
            let severity = match last.outcome {
                Outcome::Refused => Severity::Critical,
                _ => Severity::Warning,
            };
            let own = reason.lines().find_map(|line| line.strip_prefix("what to do: "));
            let own = own.map(|own| format!("{own}; then ")).unwrap_or_default();
            let remedy = match &*last.command {
                [] => format!("{own}rekindle agent backup-now --wait"),
                command => format!("{own}by hand: {}", command.join(" ")),
            };
            self.raise(("JobFailed", severity), name, summary, &remedy, *since);
        }
        let Some(since) = job.succeeded.or(job.since) else { return };
        let begun = resumed.map_or(since, |resumed| since.max(resumed));
        let runs = self.config.alarms.missed_runs;
        let late = job.schedule.as_ref().and_then(|schedule| schedule.late(begun, runs));
        // It may begin later than it did the last time.
        let late = late.and_then(|late| late.checked_add(job.jitter).ok());
        // What other agents have done is not known at once.
        let known = job.since.map_or(begun, |since| since.max(begun));
        if self.ago(known) > LATE_MIN && late.is_some_and(|late| self.now > late) {
            let summary = match job.succeeded {
                Some(at) => format!("it has not succeeded since {at}"),
                None => format!("it has not succeeded since the agent began to do it, {since}"),
            };
            let remedy = "look at rekindle records, and whether an agent runs that may do it";
            self.raise(("JobOverdue", Severity::Critical), name, summary, remedy, since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::ArchiveState;
    use crate::files::Certificate;
    use crate::records::{Agent, Record, Run};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn config() -> Config {
        let yaml = "clusters:\n- {name: a, endpoints: ['h:1'], archives: [{place: /a}]}\n";
        Config::parse(yaml).unwrap()
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut ClusterState), now: i64, want: &[&str]) {
        let mut board = Board::new(at(0));
        let mut state = ClusterState {
            capture: Some(CaptureState {
                runs: true,
                heard: Some(at(now)),
                ..CaptureState::new(at(0))
            }),
            ..ClusterState::default()
        };
        let complete = ArchiveState { complete: Some(at(now)), ..ArchiveState::default() };
        state.archives.insert("/a".to_owned(), complete);
        change(&mut state);
        board.clusters.insert("a".to_owned(), state);
        let found = alarms(&board, &config(), at(now));
        let names: Vec<_> = found.iter().map(|alarm| alarm.name).collect();
        assert_eq!(names, want);
        let is_paused = names.contains(&"Paused");
        assert!(found.iter().all(|it| it.muted == (is_paused && it.name.starts_with("Job"))));
        assert!(found.iter().all(|alarm| !alarm.remedy.is_empty() && alarm.since <= at(now)));
    }

    fn record(outcome: Outcome, attempt: u32) -> Record {
        let (cluster, job) = ("a".to_owned(), "j".to_owned());
        let run = Run { cluster, job, slot: at(0), attempt };
        let ended = 50;
        let agent = Agent { id: "1".to_owned(), host: "h".to_owned() };
        Record::new(&run, &agent, at(ended), at(ended), outcome)
    }

    fn job(outcome: Option<(Outcome, u32)>) -> JobState {
        let period = Duration::from_secs(100);
        let schedule = crate::schedule::Schedule::parse("@every 100s", None).ok();
        let since = Some(at(0));
        let mut job = JobState { period, schedule, since, ..JobState::default() };
        if let Some((outcome, attempt)) = outcome {
            job.hear(record(outcome, attempt), true);
        }
        job
    }

    #[test]
    fn all_is_well() {
        check(|_| (), 1000, &[]);
    }

    #[test]
    fn whoever_does_not_follow_any_more_is_noticed() {
        let ended = |state: &mut ClusterState| {
            let capture = state.capture.as_mut().unwrap();
            // It has just begun again, and ended: that once made all of it anew.
            (capture.runs, capture.since, capture.heard) = (false, at(925), Some(at(900)));
        };
        check(ended, 930, &[]);
        check(ended, 960, &["NotFollowed"]);
        // Of which nothing was ever heard.
        let silent = |state: &mut ClusterState| state.capture.as_mut().unwrap().heard = None;
        check(silent, 59, &[]);
        check(silent, 60, &["NotFollowed"]);
        let behind = |state: &mut ClusterState| {
            state.archives.get_mut("/a").unwrap().complete = Some(at(700));
        };
        check(behind, 999, &[]);
        check(behind, 1000, &["ArchiveBehind"]);
    }

    #[test]
    fn what_was_told_is_raised() {
        let capture = |change: fn(&mut CaptureState)| {
            move |state: &mut ClusterState| change(state.capture.as_mut().unwrap())
        };
        let archive = |change: fn(&mut ArchiveState)| {
            move |state: &mut ClusterState| change(state.archives.get_mut("/a").unwrap())
        };
        check(capture(|it| it.differs = Some((at(1), String::new()))), 9, &["MembersDiffer"]);
        let history = capture(|it| it.another_history = Some((at(1), String::new())));
        check(history, 9, &["AnotherHistory"]);
        check(history, 100_000, &[]);
        let contradicts = archive(|it| it.contradicts = Some((at(1), String::new())));
        check(contradicts, 9, &["BaseContradicts"]);
        check(archive(|it| it.base_failure = Some((at(1), String::new()))), 9, &["BaseFailed"]);
        check(|state| state.paused = Some("upgrade".to_owned()), 9, &["Paused"]);
        let one = crate::surroundings::Warning {
            name: "OneDestination",
            subject: String::new(),
            summary: String::new(),
            remedy: "add one",
        };
        check(|state| state.surroundings = vec![one], 9, &["OneDestination"]);
    }

    #[test]
    fn certificates_that_expire() {
        let now = 1000;
        let expires = |day: i64| {
            move |state: &mut ClusterState| {
                let certificate = |path: &str| Certificate {
                    path: path.to_owned(),
                    subject: "CN=etcd".to_owned(),
                    not_after: at(now + day * 86_400 - 1),
                };
                let certificates = vec![certificate("/a"), certificate("/a")];
                let job = JobState { certificates, ..JobState::default() };
                state.jobs.insert("files-main".to_owned(), job);
            }
        };
        let severity = |day| {
            let (mut board, mut state) = (Board::new(at(0)), ClusterState::default());
            expires(day)(&mut state);
            // Another one in the same file, which lasts longer, hides nothing.
            let certificates = &mut state.jobs.get_mut("files-main").unwrap().certificates;
            certificates[0].not_after = at(now + 20 * 86_400);
            board.clusters.insert("a".to_owned(), state);
            alarms(&board, &config(), at(now))[0].severity
        };
        assert_eq!((severity(8), severity(7)), (Severity::Warning, Severity::Critical));
        check(expires(29), now, &[]);
        check(expires(28), now, &["CertificateExpires"]);
        check(expires(-3), now, &["CertificateExpires"]);
    }

    #[test]
    fn jobs_that_fail_and_jobs_that_do_not_run() {
        let with = |outcome| {
            move |state: &mut ClusterState| _ = state.jobs.insert("j".to_owned(), job(outcome))
        };
        check(with(Some((Outcome::Done, 1))), 60, &[]);
        check(with(Some((Outcome::Interrupted, 3))), 60, &[]);
        check(with(Some((Outcome::Refused, 1))), 60, &["JobFailed"]);
        for outcome in [Outcome::Failed, Outcome::Away] {
            check(with(Some((outcome, 2))), 60, &[]);
            check(with(Some((outcome, 3))), 60, &["JobFailed"]);
        }
        check(with(Some((Outcome::Done, 1))), 250, &[]);
        check(with(Some((Outcome::Done, 1))), 251, &["JobOverdue"]);
        let spread = |state: &mut ClusterState| {
            let jitter = Duration::from_secs(20);
            state.jobs.insert("j".to_owned(), JobState { jitter, ..job(Some((Outcome::Done, 1))) });
        };
        check(spread, 270, &[]);
        check(spread, 271, &["JobOverdue"]);
        let paused = |state: &mut ClusterState| {
            state.jobs.insert("j".to_owned(), job(Some((Outcome::Refused, 1))));
            state.paused = Some("upgrade".to_owned());
        };
        // Those of the job are muted, but not over.
        check(paused, 999, &["Paused", "JobFailed", "JobOverdue"]);
        let resumed = |state: &mut ClusterState| {
            state.jobs.insert("j".to_owned(), job(None));
            state.resumed = Some(at(900));
        };
        check(resumed, 1000, &[]);
        check(resumed, 1101, &["JobOverdue"]);
        check(with(None), 200, &[]);
        check(with(None), 201, &["JobOverdue"]);
    }

    #[test]
    fn the_agent_itself() {
        let mut board = Board::new(at(0));
        board.config_fault = Some((at(1), "line 3".to_owned()));
        let found = alarms(&board, &config(), at(2));
        assert_eq!((found.len(), found[0].name), (1, "ConfigurationBad"));
        assert_eq!(found[0].key(), ("ConfigurationBad", String::new(), String::new()));
    }
}
