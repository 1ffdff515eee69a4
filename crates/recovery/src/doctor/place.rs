//! Flags, data directory and disk of a member's host.

use super::finding;
use crate::health::{Finding, Severity};
use rekindle_client::Status;
use std::collections::BTreeMap;
use std::time::Duration;

/// What somebody says that an etcd's flags are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Who: a manifest, a process, the cluster.
    pub who: String,
    /// By the flags' names without dashes.
    pub flags: BTreeMap<String, String>,
}

/// Flags that have to be the same, wherever they are said.
const SAME: [&str; 6] = [
    "name",
    "data-dir",
    "wal-dir",
    "initial-advertise-peer-urls",
    "advertise-client-urls",
    "quota-backend-bytes",
];

/// Where they disagree.
#[must_use]
pub fn claims(claims: &[Claim]) -> Vec<Finding> {
    let mut found = Vec::new();
    for flag in SAME {
        let said: Vec<_> =
            claims.iter().filter_map(|it| Some((&it.who, normal(it.flags.get(flag)?)))).collect();
        let Some((first, value)) = said.first() else { continue };
        if let Some((other, differs)) = said.iter().find(|(_, it)| it != value) {
            let what = format!("--{flag} is {value} by {first}, and {differs} by {other}");
            let remedy = "make them equal: a process keeps what it was started with until it is started anew, and what the \
                          cluster lists is changed by etcdctl member update";
            found.push(finding(("Flags", Severity::Warning), what, remedy));
        }
    }
    found
}

/// In no order, and without what says nothing.
fn normal(value: &str) -> String {
    let mut parts: Vec<_> =
        value.split(',').map(|part| part.trim().trim_end_matches('/')).collect();
    parts.sort_unstable();
    parts.join(",")
}

/// What lies in a data directory.
#[derive(Clone, Debug, Default)]
pub struct DataDir {
    /// Where.
    pub path: String,
    /// A fence stands there.
    pub fence: Option<String>,
    /// A restore that has not ended.
    pub unfinished: Option<String>,
    /// Its permissions.
    pub mode: Option<u32>,
    /// Something in it that belongs to somebody else than it does.
    pub stranger: Option<String>,
    /// Cluster and member of its log.
    pub whose: Option<(u64, u64)>,
    /// What is in it cannot be read, and why.
    pub damage: Option<String>,
    /// The etcd runs on it.
    pub runs: bool,
    /// A process of etcd that has it as its data directory, although its files are gone.
    pub orphan: Option<u32>,
    /// Manifests that lie where nothing starts them.
    pub held: Vec<String>,
    /// The etcd of this host, where the data are of a newer one.
    pub refused_by: Option<String>,
}

/// Looks at it; `listed` are the cluster's id and its members', where it says them.
#[must_use]
pub fn data_dir(dir: &DataDir, listed: Option<(u64, &[u64])>) -> Vec<Finding> {
    let mut found = starting(dir);
    let path = &dir.path;
    let mut add = |kind, what: String, remedy| found.push(finding(kind, what, remedy));
    if let Some(own) = &dir.refused_by {
        let what = format!(
            "the data in {path} are of a newer etcd than {own}, which refuses them or was never meant for them"
        );
        add(
            ("NewerData", Severity::Urgent),
            what,
            "install the newer etcd again: rekindle status says which ones come up on it",
        );
    }
    if let Some(journal) = &dir.unfinished {
        let what = format!("a restore into {path} has not ended: {journal}");
        add(("Unfinished", Severity::Urgent), what, "rekindle restore --resume, or --rollback");
    }
    if let Some(mode) = dir.mode.filter(|mode| mode & 0o077 != 0) {
        let what = format!("{path} has mode {:o}: others may read all keys", mode & 0o7777);
        add(("DataReadable", Severity::Warning), what, "chmod 700");
    }
    if let Some(stranger) = &dir.stranger {
        let what = format!(
            "{stranger} belongs to somebody else than {path} does: etcd may not be able to open it"
        );
        add(("Owner", Severity::Urgent), what, "chown -R it to the user that etcd runs as");
    }
    if let Some(damage) = dir.damage.as_ref().filter(|_| !dir.runs) {
        let what = format!("what is in {path} is not good: {damage}");
        add(
            ("Damaged", Severity::Urgent),
            what,
            "rekindle status says more; while the others serve: rekindle replace, else rekindle recover",
        );
    }
    if let (Some((cluster, member)), Some((theirs, members))) = (dir.whose, listed) {
        if cluster != theirs {
            let what =
                format!("the data in {path} are of cluster {cluster:x}, and {theirs:x} answers");
            add(
                ("OtherCluster", Severity::Urgent),
                what,
                "find out which is the right one; then rekindle replace on the hosts of the other",
            );
        } else if !members.contains(&member) {
            let what = format!(
                "the data in {path} are of member {member:x}, which the cluster does not list: it was taken out"
            );
            add(("Removed", Severity::Urgent), what, "rekindle replace, on this host");
        }
    }
    found
}

/// What keeps an etcd from starting, or makes it a bad thing to do.
fn starting(dir: &DataDir) -> Vec<Finding> {
    let mut found = Vec::new();
    let path = &dir.path;
    let mut add = |kind, what: String, remedy| found.push(finding(kind, what, remedy));
    if let Some(id) = &dir.fence {
        let what = format!("{path} is fenced by {id}: no etcd starts there");
        add(
            ("Fenced", Severity::Urgent),
            what,
            "run the command again that has put it up (rekindle replace, or recover --id), or take it back with --undo",
        );
    }
    if let Some(pid) = dir.orphan {
        let what = format!(
            "etcd (process {pid}) still runs, and its files in {path} are gone: what it has ends with it"
        );
        add(
            ("FilesGone", Severity::Urgent),
            what,
            "do not restart it: rekindle save FILE first, while it serves; then rekindle replace, or recover FILE",
        );
    }
    if let Some(first) = dir.held.first().filter(|_| dir.fence.is_none()) {
        let what = format!(
            "{} manifests are held back and run nowhere, the first one {first}",
            dir.held.len()
        );
        add(
            ("Held", Severity::Urgent),
            what,
            "run the command again that has moved them (rekindle replace, or recover --id), or move them back once etcd serves",
        );
    }
    found
}

/// Space in databases that is free, and of no use to others.
#[must_use]
pub fn fragmented(member: &str, status: &Status) -> Option<Finding> {
    /// Not worth a word below that.
    const BYTES_MIN: u64 = 100 << 20;
    let free = status.db_size.saturating_sub(status.db_size_in_use);
    let percent = free.saturating_mul(100).checked_div(status.db_size).unwrap_or_default();
    (free >= BYTES_MIN && percent >= 45).then(|| {
        let what = format!("{percent} % of its database file is free ({} MiB)", free >> 20);
        let found = finding(("Fragmented", Severity::Warning), what, "rekindle defragment");
        Finding { member: Some(member.to_owned()), ..found }
    })
}

/// How long it took to make some bytes durable beside the data, again and again.
#[must_use]
pub fn disk(path: &str, mut took: Vec<Duration>) -> Option<Finding> {
    /// etcd's own figure for the log (docs, "Hardware recommendations").
    const SLOW: Duration = Duration::from_millis(10);
    took.sort_unstable();
    let at = took.len() * 99 / 100;
    let slow = took.get(at.min(took.len().checked_sub(1)?)).filter(|slow| **slow > SLOW)?;
    let what = format!(
        "of {} fsyncs beside {path} the slowest took {:.0} ms, and 10 ms are the most that etcd should see",
        took.len(),
        slow.as_secs_f64() * 1000.0
    );
    Some(finding(
        ("SlowDisk", Severity::Warning),
        what,
        "give etcd a disk of its own, an SSD; look at what else writes there (iotop)",
    ))
}
