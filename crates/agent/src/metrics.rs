//! What an agent shows to Prometheus, in its text format.

use crate::alarms::Alarm;
use crate::board::{Board, JobState};
use crate::files::Certificate;
use crate::health::Health;
use crate::records::Outcome;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Each metric: its name, its type, and what it is.
pub const METRICS: &[(&str, &str, &str)] = &[
    ("rekindle_agent_start_time_seconds", "gauge", "When the agent began, in seconds since 1970."),
    ("rekindle_config_good", "gauge", "1, or 0 where a changed configuration was refused."),
    ("rekindle_alarm", "gauge", "1 for each alarm that goes on."),
    ("rekindle_cluster_paused", "gauge", "1 while nothing is done by schedule."),
    ("rekindle_capture_running", "gauge", "1 while a process follows the cluster."),
    ("rekindle_capture_starts_total", "counter", "How often that process was started."),
    ("rekindle_head_revision", "gauge", "The last revision of the cluster that has come."),
    ("rekindle_behind_revisions", "gauge", "How many revisions the cluster is ahead of that."),
    (
        "rekindle_histories_begun_total",
        "counter",
        "How often the cluster was found to be another one, or restored: a history of its own began in the archives.",
    ),
    ("rekindle_heard_time_seconds", "gauge", "When the cluster was last heard of."),
    ("rekindle_archive_revision", "gauge", "The last revision that an archive has for good."),
    (
        "rekindle_archive_lag_seconds",
        "gauge",
        "For how long an archive has not all that the cluster has.",
    ),
    ("rekindle_archive_standing_by", "gauge", "1 while another host writes into the archive."),
    (
        "rekindle_archive_record_bytes_total",
        "counter",
        "Bytes of records written into the log by this process.",
    ),
    ("rekindle_archive_stored_bytes_total", "counter", "What these take in the store."),
    ("rekindle_archive_gap_revisions_total", "counter", "Revisions that are no restore points."),
    ("rekindle_base_revision", "gauge", "The revision of the newest base."),
    ("rekindle_base_time_seconds", "gauge", "When the newest base was the cluster's."),
    (
        "rekindle_base_proven_revision",
        "gauge",
        "The newest revision found equal to a snapshot of the cluster.",
    ),
    ("rekindle_bases_total", "counter", "Bases that were made, by how they ended."),
    ("rekindle_job_runs_total", "counter", "Runs of a job by this agent, by how they ended."),
    ("rekindle_job_running", "gauge", "1 while it runs."),
    ("rekindle_job_success_time_seconds", "gauge", "When a job last succeeded."),
    ("rekindle_job_next_time_seconds", "gauge", "When its next run is due."),
    ("rekindle_job_period_seconds", "gauge", "How far its runs lie apart."),
    ("rekindle_job_duration_seconds", "gauge", "How long its last run took."),
    ("rekindle_job_bytes", "gauge", "Bytes that its last run has written."),
    (
        "rekindle_restore_seconds",
        "gauge",
        "How long the restore of the last drill took, until etcd answered or it was checked without one.",
    ),
    (
        "rekindle_archive_forks",
        "gauge",
        "Parts of an archive's log that its last verification found written in two ways.",
    ),
    ("rekindle_check_time_seconds", "gauge", "When the members were looked at last."),
    ("rekindle_voting_members", "gauge", "Members that vote."),
    ("rekindle_serving_members", "gauge", "Of these, those that have answered a read as of then."),
    ("rekindle_quorum_members", "gauge", "So many of them have to serve."),
    ("rekindle_member_serves", "gauge", "Whether a member has answered a read as of then."),
    ("rekindle_member_read_seconds", "gauge", "How long that took."),
    ("rekindle_member_revision", "gauge", "The last revision that it has."),
    (
        "rekindle_member_unapplied_entries",
        "gauge",
        "Entries of its raft log that its database has not yet.",
    ),
    ("rekindle_member_db_bytes", "gauge", "Size of its database."),
    ("rekindle_member_db_in_use_bytes", "gauge", "What is in use of that."),
    ("rekindle_member_db_quota_bytes", "gauge", "What it may have; etcd says so from 3.6 on."),
    (
        "rekindle_member_clock_ahead_seconds",
        "gauge",
        "Its clock is ahead of the agent's by so much.",
    ),
    (
        "rekindle_member_certificate_expiry_time_seconds",
        "gauge",
        "When the certificate that it serves with expires.",
    ),
    (
        "rekindle_certificate_expiry_time_seconds",
        "gauge",
        "When a certificate among the host's files expires.",
    ),
];

/// All of it.
#[must_use]
pub fn render(board: &Board, alarms: &[Alarm], now: Timestamp) -> String {
    let mut samples = Samples::default();
    samples.add("rekindle_agent_start_time_seconds", &[], seconds(board.began));
    samples.add("rekindle_config_good", &[], flag(board.config_fault.is_none()));
    for alarm in alarms {
        let labels = [
            ("name", alarm.name),
            ("severity", alarm.severity.name()),
            ("cluster", &*alarm.cluster),
            ("subject", &*alarm.subject),
        ];
        samples.add("rekindle_alarm", &labels, 1.0);
    }
    for (name, state) in &board.clusters {
        let cluster = ("cluster", &**name);
        samples.add("rekindle_cluster_paused", &[cluster], flag(state.paused.is_some()));
        if let Some(capture) = &state.capture {
            let one = [cluster];
            samples.add("rekindle_capture_running", &one, flag(capture.runs));
            samples.add("rekindle_capture_starts_total", &one, capture.starts as f64);
            samples.add_if("rekindle_head_revision", &one, capture.head.map(|it| it as f64));
            samples.add("rekindle_behind_revisions", &one, capture.behind as f64);
            let histories = capture.histories as f64;
            samples.add("rekindle_histories_begun_total", &one, histories);
            samples.add_if("rekindle_heard_time_seconds", &one, capture.heard.map(seconds));
            for (place, archive) in &state.archives {
                let two = [cluster, ("archive", &**place)];
                let line = &archive.line;
                let lag = archive.lag(capture.begun, now).as_secs_f64();
                let number = |it: Option<i64>| it.map(|it| it as f64);
                samples.add_if("rekindle_archive_revision", &two, number(line.written));
                samples.add("rekindle_archive_lag_seconds", &two, lag);
                samples.add("rekindle_archive_standing_by", &two, flag(line.stands_by));
                let (records, stored) = (line.record_bytes as f64, line.stored_bytes as f64);
                samples.add("rekindle_archive_record_bytes_total", &two, records);
                samples.add("rekindle_archive_stored_bytes_total", &two, stored);
                let gap = archive.gap_revisions as f64;
                samples.add("rekindle_archive_gap_revisions_total", &two, gap);
                samples.add_if("rekindle_base_revision", &two, number(line.base));
                samples.add_if("rekindle_base_time_seconds", &two, line.base_time.map(seconds));
                samples.add_if("rekindle_base_proven_revision", &two, number(line.proven));
                for (result, count) in [("done", archive.bases), ("failed", archive.bases_failed)] {
                    let three = [two[0], two[1], ("result", result)];
                    samples.add("rekindle_bases_total", &three, count as f64);
                }
            }
        }
        of_health(&mut samples, cluster, &state.health);
        for (job, state) in &state.jobs {
            of_job(&mut samples, [cluster, ("job_name", &**job)], state);
        }
    }
    samples.render()
}

fn of_health(samples: &mut Samples, cluster: (&str, &str), health: &Health) {
    let Some(at) = health.at else { return };
    let report = &health.report;
    samples.add("rekindle_check_time_seconds", &[cluster], seconds(at));
    samples.add("rekindle_voting_members", &[cluster], f64::from(report.voters));
    samples.add("rekindle_serving_members", &[cluster], f64::from(report.serving));
    samples.add("rekindle_quorum_members", &[cluster], f64::from(report.quorum));
    for member in report.members.iter().filter(|member| !member.name.is_empty()) {
        let two = [cluster, ("member", &*member.name)];
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        samples.add("rekindle_member_serves", &two, flag(member.serves));
        samples.add_if("rekindle_member_read_seconds", &two, member.read_seconds);
        samples.add_if("rekindle_member_revision", &two, member.revision.map(|it| it as f64));
        let lag = member.raft_index.zip(member.applied_index);
        let lag = lag.map(|(last, applied)| last.saturating_sub(applied));
        samples.add_if("rekindle_member_unapplied_entries", &two, bytes(lag));
        samples.add_if("rekindle_member_db_bytes", &two, bytes(member.db_size));
        samples.add_if("rekindle_member_db_in_use_bytes", &two, bytes(member.db_size_in_use));
        samples.add_if("rekindle_member_db_quota_bytes", &two, bytes(member.db_size_quota));
        samples.add_if("rekindle_member_clock_ahead_seconds", &two, member.clock_ahead_seconds);
        let expiry = member.certificate_expires.map(seconds);
        samples.add_if("rekindle_member_certificate_expiry_time_seconds", &two, expiry);
    }
}

fn of_job(samples: &mut Samples, two: [(&str, &str); 2], state: &JobState) {
    let outcomes =
        [Outcome::Done, Outcome::Failed, Outcome::Refused, Outcome::Away, Outcome::Interrupted];
    for outcome in outcomes.map(Outcome::name) {
        let count = state.runs.get(outcome).copied().unwrap_or_default();
        let three = [two[0], two[1], ("result", outcome)];
        samples.add("rekindle_job_runs_total", &three, count as f64);
    }
    samples.add("rekindle_job_running", &two, flag(state.running.is_some()));
    let succeeded = state.succeeded.map(seconds);
    samples.add_if("rekindle_job_success_time_seconds", &two, succeeded);
    samples.add_if("rekindle_job_next_time_seconds", &two, state.next.map(seconds));
    samples.add("rekindle_job_period_seconds", &two, state.period.as_secs_f64());
    let last = state.last.as_ref();
    let took = last.map(|it| it.ended.duration_since(it.began).as_secs_f64());
    samples.add_if("rekindle_job_duration_seconds", &two, took);
    let bytes = last.and_then(crate::records::Record::bytes).map(|it| it as f64);
    samples.add_if("rekindle_job_bytes", &two, bytes);
    let output = last.and_then(|it| it.output.as_ref());
    let drilled = output.and_then(|it| it.get("seconds")).and_then(serde_json::Value::as_f64);
    samples.add_if("rekindle_restore_seconds", &two, drilled);
    let findings = output.and_then(|it| it.get("findings")).and_then(serde_json::Value::as_array);
    let forks = findings.map(|all| all.iter().filter(|it| it["found"] == "FORKED").count() as f64);
    samples.add_if("rekindle_archive_forks", &two, forks);
    let mut expiry = BTreeMap::<_, Timestamp>::new();
    for Certificate { path, not_after, .. } in &state.certificates {
        let soonest = expiry.entry(path).or_insert(*not_after);
        *soonest = (*soonest).min(*not_after);
    }
    for (path, not_after) in expiry {
        let three = [two[0], two[1], ("path", &**path)];
        samples.add("rekindle_certificate_expiry_time_seconds", &three, seconds(not_after));
    }
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

/// Samples, by the metric that they are of.
#[derive(Default)]
struct Samples(BTreeMap<&'static str, String>);

impl Samples {
    fn add(&mut self, metric: &'static str, labels: &[(&str, &str)], value: f64) {
        let text = self.0.entry(metric).or_default();
        text.push_str(metric);
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        if !labels.is_empty() {
            let _ = write!(text, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(text, " {value}");
    }

    fn add_if(&mut self, metric: &'static str, labels: &[(&str, &str)], value: Option<f64>) {
        if let Some(value) = value {
            self.add(metric, labels, value);
        }
    }

    fn render(&self) -> String {
        let mut page = String::new();
        for (name, kind, help) in METRICS {
            if let Some(samples) = self.0.get(name) {
                let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
            }
        }
        page
    }
}

/// As the text format wants label values.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// The table of metrics, for people.
#[must_use]
pub fn reference() -> String {
    let mut page = "\n## Metrics\n\n| metric | kind | what it is |\n|---|---|---|\n".to_owned();
    for (name, kind, help) in METRICS {
        let _ = writeln!(page, "| `{name}` | {kind} | {help} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{ArchiveState, CaptureState, ClusterState};
    use crate::lines::ArchiveLine;

    fn health(at: Timestamp) -> Health {
        let member = crate::health::Member {
            name: "m1".to_owned(),
            serves: true,
            read_seconds: Some(0.5),
            revision: Some(7),
            raft_index: Some(9),
            applied_index: Some(7),
            db_size: Some(5),
            db_size_in_use: Some(4),
            db_size_quota: Some(6),
            certificate_expires: Some(at),
            clock_ahead_seconds: Some(0.25),
        };
        let report = crate::health::Report { members: vec![member], ..Default::default() };
        Health { report, at: Some(at), ..Health::default() }
    }

    #[test]
    fn every_metric_is_shown_with_its_help() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut board = Board::new(at(5));
        let capture =
            CaptureState { head: Some(7), heard: Some(at(9)), ..CaptureState::new(at(5)) };
        let mut state = ClusterState { capture: Some(capture), ..ClusterState::default() };
        let text = "another history".to_owned();
        state.hear(crate::lines::Line::AnotherHistory { text }, at(9));
        let line = ArchiveLine {
            written: Some(7),
            base: Some(6),
            base_time: Some(at(8)),
            proven: Some(6),
            ..ArchiveLine::default()
        };
        let archive = ArchiveState { line, ..ArchiveState::default() };
        let run = crate::records::Run {
            cluster: "a".to_owned(),
            job: "j".to_owned(),
            slot: at(6),
            attempt: 1,
        };
        let agent = crate::records::Agent { id: "1".to_owned(), host: "h".to_owned() };
        let mut record = crate::records::Record::new(&run, &agent, at(6), at(8), Outcome::Done);
        record.output = Some(serde_json::json!({
            "fileSize": 12, "seconds": 1.5,
            "findings": [{ "found": "FORKED" }, { "found": "ORPHAN" }, { "found": "FORKED" }],
        }));
        let mut job = JobState { next: Some(at(60)), ..JobState::default() };
        job.hear(record, true);
        let (path, subject) = ("/etc/a".to_owned(), "CN=a".to_owned());
        job.certificates = vec![Certificate { path, subject, not_after: at(70) }];
        let health = health(at(9));
        let state = ClusterState {
            health,
            archives: [("/a \"b\"".to_owned(), archive)].into(),
            jobs: [("j".to_owned(), job)].into(),
            ..state
        };
        board.clusters.insert("a".to_owned(), state);
        let alarm = Alarm {
            name: "Paused",
            severity: crate::alarms::Severity::Warning,
            cluster: "a".to_owned(),
            subject: String::new(),
            summary: String::new(),
            remedy: String::new(),
            since: at(5),
            muted: false,
        };
        let page = render(&board, &[alarm], at(10));
        for (name, kind, help) in METRICS {
            assert!(
                page.contains(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name}")),
                "{name}"
            );
        }
        assert!(
            page.contains("rekindle_archive_revision{cluster=\"a\",archive=\"/a \\\"b\\\"\"} 7\n")
        );
        assert!(
            page.contains(
                "rekindle_job_runs_total{cluster=\"a\",job_name=\"j\",result=\"done\"} 1\n"
            )
        );
        let two = "cluster=\"a\",member=\"m1\"";
        assert!(page.contains(&format!("rekindle_member_unapplied_entries{{{two}}} 2\n")));
        assert!(page.contains(&format!("rekindle_member_serves{{{two}}} 1\n")));
        assert!(page.contains("rekindle_archive_forks{cluster=\"a\",job_name=\"j\"} 2\n"));
        assert!(page.contains("rekindle_histories_begun_total{cluster=\"a\"} 1\n"));
        assert!(page.contains("rekindle_job_duration_seconds{cluster=\"a\",job_name=\"j\"} 2\n"));
    }
}
