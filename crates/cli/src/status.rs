//! `rekindle status`: what a source holds, and whether it is sound.

use crate::args::StatusArgs;
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use crate::source::{Access, Kind, Log, Source, Users};
use rekindle_bolt::Usage;
use rekindle_etcd::digest::Sha256Digest;
use rekindle_etcd::{AlarmKind, Boots, BucketUse, Error, Facts, KeyCount, Line, Member, Status};
use serde_json::{Value, json};
use std::sync::atomic::AtomicBool;

/// The lines of etcd that a source may be brought up on.
const LINES: [Line; 4] = [Line::V3_4, Line::V3_5, Line::V3_6, Line::V3_7];

/// What the checker can say at best.
pub(crate) const SOUND: &str = "sound: no damage in pages and records";

pub(crate) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let path = args.store.source(args.source.as_deref())?;
    let (store, keys) = (&args.store, &args.keys);
    let access =
        Access { store, spool: args.spool.directory(), keys, point: None, users: Users::OfPoint };
    let source = Source::open_any(&path, args.wal_dir.as_deref(), &access)?.reading_ahead();
    let digest = verify(&source, args.verify_hash);
    let backend = source.backend()?;
    let at = |error: Error| Failure::from(error).at(&source.path);
    let status = match source.records()? {
        Some(mut records) => backend.status_of(&mut records, KeyCount::Remembered)?,
        None => backend.status(KeyCount::Remembered).map_err(at)?,
    };
    // Small buckets that cannot be read are one finding more; the rest is still worth telling.
    let facts = backend.facts();
    let cut = source.cut(backend.db().page_size());
    let report = Report { source: &source, status: &status, facts: &facts, digest: &digest, cut };
    report.output().print(args.output.format())?;
    report.verdict()
}

/// The digest of a snapshot, where it was asked for and is there.
fn verify(source: &Source, wanted: bool) -> Option<Result<Sha256Digest, Failure>> {
    let is_snapshot = matches!(source.kind, Kind::Snapshot(_));
    (wanted && is_snapshot).then(|| source.verify_digest(&AtomicBool::new(false)))
}

/// Refuses a source in which anything is damaged.
pub(crate) fn check_sound(source: &Source) -> Result<(), Failure> {
    let backend = source.backend()?;
    let status = backend.status(KeyCount::Reckoned);
    let status = status.map_err(|error| Failure::from(error).at(&source.path))?;
    let (facts, cut) = (backend.facts(), source.cut(backend.db().page_size()));
    Report { source, status: &status, facts: &facts, digest: &None, cut }.verdict()
}

struct Report<'a> {
    source: &'a Source,
    status: &'a Status,
    facts: &'a Result<Facts, Error>,
    digest: &'a Option<Result<Sha256Digest, Failure>>,
    /// What shows that the file's end is missing.
    cut: Option<String>,
}

impl Report<'_> {
    /// Everything that is wrong, a line each.
    fn findings(&self) -> Vec<String> {
        let status = self.status;
        let mut findings: Vec<_> = self.cut.iter().cloned().collect();
        findings.extend(status.report.findings.iter().map(ToString::to_string));
        findings.extend(status.record_damage.iter().map(ToString::to_string));
        findings.extend(self.facts.as_ref().err().map(ToString::to_string));
        if let Some(Err(failure)) = self.digest {
            findings.push(failure.what.clone());
        }
        findings
    }

    /// Damage is an exit code of its own.
    fn verdict(&self) -> Result<(), Failure> {
        let count = self.status.report.findings_total
            + self.status.record_damage_total
            + u64::from(self.cut.is_some())
            + u64::from(self.facts.is_err())
            + u64::from(matches!(self.digest, Some(Err(_))));
        if count == 0 {
            return Ok(());
        }
        let first = self.findings().into_iter().next().unwrap_or_default();
        let what = format!("damaged: {} findings, the first: {first}", grouped(count));
        let failure = Failure::new(Code::BadData, what).at(&self.source.path);
        let costs_nothing = self.status.report.content_damage == 0
            && self.status.record_damage_total == 0
            && self.cut.is_none()
            && self.facts.is_ok()
            && !matches!(self.digest, Some(Err(_)));
        Err(if costs_nothing {
            failure.remedy(
                "all keys and values could be read; a restore writes them into a sound file",
            )
        } else {
            failure.remedy("take another backup; do not rely on this one")
        })
    }

    fn output(&self) -> Output {
        let status = self.status;
        let version = self.version();
        // A base has no file and no pages.
        let usage = (!self.is_base()).then_some(&status.report.usage);
        let size = usage.map_or_else(|| "-".to_owned(), |_| output::bytes(status.total_size));
        let (hash, revision) = (status.hash, status.revision.get());
        let mut out = Output {
            simple: format!("{hash:08x}, {revision}, {}, {size}, {version}", self.live_keys()),
            ..Output::default()
        };
        out.add("hash", "Hash", hash);
        out.add("revision", "Revision", revision);
        out.add("totalKey", "Keys", status.live_keys);
        out.add("totalSize", "Size", usage.map(|_| status.total_size));
        out.add("version", "Version", version.clone());
        out.add("records", "Records", status.records);
        if let Kind::Base(base) = &self.source.kind
            && base.base.erased > 0
        {
            out.add("erasedRecords", "Erased records", base.base.erased);
        }
        out.add("tombstones", "Tombstones", status.tombstones);
        out.add("pairs", "Pairs in all buckets", status.pairs());
        out.add("pageSize", "Page size", usage.map(|usage| usage.page_size));
        out.add("inUse", "Bytes in use", usage.map(Usage::in_use_bytes));
        out.add("free", "Bytes free", usage.map(Usage::free_bytes));
        out.add("kubernetesKeys", "Kubernetes keys", status.kubernetes.live_keys);
        out.add("kubernetesBytes", "Kubernetes bytes", status.kubernetes.bytes);
        out.add("source", "Source", self.describe());
        self.add_digest(&mut out);
        if let Ok(facts) = self.facts {
            add_facts(&mut out, facts);
        }
        if let Kind::DataDir(log) = &self.source.kind {
            self.add_log(&mut out, log);
        }
        let findings = self.findings();
        out.add("sound", "Sound", findings.is_empty());
        out.json.insert("findings".to_owned(), json!(findings));
        out.json.insert("buckets".to_owned(), status.buckets.iter().map(bucket_json).collect());
        out.text = self.text(&version, &size);
        out
    }

    fn is_base(&self) -> bool {
        matches!(self.source.kind, Kind::Base(_))
    }

    /// The storage version, as etcdutl prints it.
    fn version(&self) -> String {
        let storage = self.facts.as_ref().ok().and_then(|facts| facts.marks.storage);
        storage.map(|version| version.to_string()).unwrap_or_default()
    }

    fn add_digest(&self, out: &mut Output) {
        let state = match (&self.source.kind, self.digest) {
            (Kind::Snapshot(_), None) => "not compared",
            (Kind::Snapshot(_), Some(Ok(_))) => "good",
            (Kind::Snapshot(_), Some(Err(_))) => "bad",
            _ => "none",
        };
        out.add("sha256", "SHA-256", state);
        out.add("sha256Compared", "SHA-256 compared", self.digest.is_some());
    }

    fn add_log(&self, out: &mut Output, log: &Log) {
        let state = &log.state;
        // Of a log that lies elsewhere nothing is known.
        let mut add = |json: &str, field: &str, number: u64| {
            out.add(json, field, (log.segments > 0).then_some(number));
        };
        add("walSegments", "WAL segments", log.segments as u64);
        add("walTerm", "WAL term", state.hard_state.term.0);
        add("walCommit", "WAL commit", state.hard_state.commit.0);
        add("walBeyond", "Committed entries not in the db", self.beyond(log));
    }

    fn beyond(&self, log: &Log) -> u64 {
        let applied = self.facts.as_ref().ok().and_then(|facts| facts.consistent_index);
        log.state.committed_beyond(applied.unwrap_or_default())
    }

    fn text(&self, version: &str, size: &str) -> String {
        let status = self.status;
        let header = ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"];
        let row = vec![
            format!("{:08x}", status.hash),
            status.revision.to_string(),
            self.live_keys().to_string(),
            size.to_owned(),
            version.to_owned(),
        ];
        let mut rows = vec![
            ("source", self.source_line()),
            ("checker", self.checker_lines()),
            ("size", self.size_line(size)),
            (
                "records",
                format!("{} ({} deletes)", grouped(status.records), grouped(status.tombstones)),
            ),
        ];
        if status.kubernetes.records > 0 {
            rows.push(("kubernetes", self.kubernetes_line()));
        }
        if let Ok(facts) = self.facts {
            rows.extend(fact_lines(facts));
        }
        if let Kind::DataDir(log) = &self.source.kind {
            rows.push(("raft log", self.log_line(log)));
        }
        let buckets: Vec<_> = status
            .buckets
            .iter()
            .map(|bucket| {
                let name = String::from_utf8_lossy(&bucket.name).into_owned();
                vec![name, grouped(bucket.pairs), output::bytes(bucket.bytes)]
            })
            .collect();
        output::table(&header, &[row])
            + &output::lines(&rows)
            + &output::table(&["BUCKET", "PAIRS", "BYTES"], &buckets)
    }

    fn size_line(&self, size: &str) -> String {
        if let Kind::Base(base) = &self.source.kind {
            let bytes = output::bytes(base.size_at_most().1);
            let at_most = if !base.is_as_saved() { "at most " } else { "" };
            return format!("{at_most}{bytes} of records");
        }
        let usage = &self.status.report.usage;
        format!(
            "{size}: {} in use, {} free, pages of {} bytes",
            output::bytes(usage.in_use_bytes()),
            output::bytes(usage.free_bytes()),
            usage.page_size
        )
    }

    fn describe(&self) -> String {
        match self.cut {
            Some(_) => "snapshot or db file that was cut".to_owned(),
            None => self.source.describe(),
        }
    }

    fn source_line(&self) -> String {
        if self.cut.is_some() {
            return self.describe();
        }
        let digest = match (&self.source.kind, self.digest) {
            (Kind::Snapshot(_), None) => ", SHA-256 there but not compared (--verify-hash)",
            (Kind::Snapshot(_), Some(Ok(_))) => ", SHA-256 good",
            (Kind::Snapshot(_), Some(Err(_))) => ", SHA-256 BAD",
            (Kind::Database, _) => {
                "\nwarning: nothing proves that it is whole and unchanged; \
                 if it was copied while etcd was running it is no backup"
            }
            (Kind::DataDir(_) | Kind::Base(_), _) => "",
        };
        format!("{}{digest}", self.describe())
    }

    fn checker_lines(&self) -> String {
        let findings = self.findings();
        if findings.is_empty() {
            // The checker sees how values lie in pages, not their bytes.
            let unproven = match (&self.source.kind, self.digest) {
                (Kind::Snapshot(_), None) => "\nonly --verify-hash proves the bytes of values",
                _ => "",
            };
            if self.is_base() {
                return "sound: no damage in records, and every byte was compared with its digests"
                    .to_owned();
            }
            return format!("{SOUND}{unproven}");
        }
        let shown = 10;
        let mut lines = vec![format!("DAMAGED: {} findings", grouped(findings.len()))];
        lines.extend(findings.iter().take(shown).cloned());
        if findings.len() > shown {
            lines.push(format!("and {} more: -w json has them", findings.len() - shown));
        }
        lines.join("\n")
    }

    /// They were remembered, so there is a number.
    fn live_keys(&self) -> u64 {
        self.status.live_keys.unwrap_or_default()
    }

    fn kubernetes_line(&self) -> String {
        let share = &self.status.kubernetes;
        let records = self.status.records.max(1);
        format!(
            "{} keys, {} records ({} %), {}",
            grouped(share.live_keys.unwrap_or_default()),
            grouped(share.records),
            share.records * 100 / records,
            output::bytes(share.bytes)
        )
    }

    fn log_line(&self, log: &Log) -> String {
        if log.segments == 0 {
            return "not in this directory: give --wal-dir".to_owned();
        }
        let state = &log.state;
        let mut line = format!(
            "{} segments, term {}, committed up to {}",
            log.segments, state.hard_state.term, state.hard_state.commit
        );
        match self.beyond(log) {
            0 => line += "; the db has all of it",
            beyond => {
                line += &format!(
                    "\nwarning: {} committed entries are not in the db; etcd would apply them \
                     when it starts, a restore from here would lose them",
                    grouped(beyond)
                );
            }
        }
        if let Some(damage) = &log.damage {
            line += &format!("\nwarning: reading ended at {damage}");
        }
        line
    }
}

fn bucket_json(bucket: &BucketUse) -> Value {
    let name = String::from_utf8_lossy(&bucket.name);
    json!({ "name": name, "pairs": bucket.pairs, "bytes": bucket.bytes })
}

/// -1 where there is none, as etcd says it.
fn or_minus_one(revision: Option<rekindle_etcd::Revision>) -> i64 {
    revision.map_or(-1, rekindle_etcd::Revision::get)
}

fn add_facts(out: &mut Output, facts: &Facts) {
    let compaction = facts.compaction;
    out.add("compactRevision", "Compact revision", or_minus_one(compaction.revision()));
    out.add("scheduledCompactRevision", "Scheduled compaction", or_minus_one(compaction.scheduled));
    out.add("finishedCompactRevision", "Finished compaction", or_minus_one(compaction.finished));
    out.add("consistentIndex", "Raft index", facts.consistent_index.map(|index| index.0));
    out.add("term", "Raft term", facts.term.map(|term| term.0));
    let cluster = facts.marks.cluster.map(|version| version.to_string());
    out.add("clusterVersion", "Cluster version", cluster);
    out.add("authEnabled", "Auth enabled", facts.auth.enabled);
    let boots = LINES.iter().filter(|line| facts.marks.boots_on(**line) == Boots::Yes);
    let boots = boots.map(|line| Value::from(line.to_string()));
    out.json.insert("bootsOn".to_owned(), boots.collect());
    let member = |member: &Member| {
        json!({
            "id": member.id.to_string(),
            "name": member.name,
            "peerURLs": member.peer_urls,
            "clientURLs": member.client_urls,
            "isLearner": member.is_learner,
        })
    };
    out.json.insert("members".to_owned(), facts.members.iter().map(member).collect());
    let alarms = facts.alarms.iter().map(
        |alarm| json!({ "memberID": alarm.member.to_string(), "alarm": alarm_name(alarm.kind) }),
    );
    out.json.insert("alarms".to_owned(), alarms.collect());
}

pub(crate) fn alarm_name(kind: AlarmKind) -> String {
    match kind {
        AlarmKind::NoSpace => "NOSPACE".to_owned(),
        AlarmKind::Corrupt => "CORRUPT".to_owned(),
        AlarmKind::Other(other) => other.to_string(),
    }
}

/// On which etcds a source comes up, in words.
pub(crate) fn boots_line(facts: &Facts) -> String {
    let on = |wanted| {
        let lines = LINES.iter().filter(|line| facts.marks.boots_on(**line) == wanted);
        lines.map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let mut line = format!("{}; comes up on {}", facts.marks.written_by(), on(Boots::Yes));
    let refused = on(Boots::No);
    if !refused.is_empty() {
        line += &format!("; refused by {refused}");
    }
    line
}

fn fact_lines(facts: &Facts) -> Vec<(&'static str, String)> {
    let compaction = match (facts.compaction.revision(), facts.compaction.finished) {
        (None, _) => "never".to_owned(),
        (Some(compact), finished) if finished == Some(compact) => format!("up to {compact}"),
        (Some(compact), _) => format!("up to {compact}, not finished"),
    };
    let mut rows = vec![("etcd", boots_line(facts)), ("compacted", compaction)];
    if let Some(index) = facts.consistent_index {
        let term = facts.term.map(|term| format!(", term {term}")).unwrap_or_default();
        rows.push(("raft", format!("index {index}{term}")));
    }
    let member = |member: &Member| {
        let learner = if member.is_learner { " (learner)" } else { "" };
        format!("{} {} {}{learner}", member.id, member.name, member.peer_urls.join(","))
    };
    let members: Vec<_> = facts.members.iter().map(member).collect();
    if !members.is_empty() {
        rows.push(("members", members.join("\n")));
    }
    if facts.auth.enabled {
        rows.push(("auth", "on".to_owned()));
    }
    let alarms: Vec<_> = facts
        .alarms
        .iter()
        .map(|alarm| format!("{} of member {}", alarm_name(alarm.kind), alarm.member))
        .collect();
    if !alarms.is_empty() {
        rows.push(("alarms", alarms.join("\n")));
    }
    if let Some(downgrade) = facts.downgrade.as_ref().filter(|downgrade| downgrade.enabled) {
        rows.push(("downgrade", format!("under way, to {}", downgrade.target)));
    }
    rows
}
