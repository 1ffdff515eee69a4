//! What is said of a recovery.

use super::backup::Backup;
use super::hosts::Reach;
use crate::archive::now;
use crate::check::told;
use crate::member::{Newer, Seen, Staged};
use crate::output::{self, grouped};
use crate::restore::some_of;
use rekindle_recovery::health::{Health, Observed};
use rekindle_recovery::recover::From;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What the data of a host are called.
pub(super) const MEMBER: &str = "the data of ";
/// So many kinds of objects are named.
const KINDS_SHOWN: usize = 6;

pub(super) fn member(name: &str) -> String {
    format!("{MEMBER}{name}")
}

/// The etcd that applies what a log has.
pub(super) fn etcd_of(seen: &Seen, named: Option<&Path>) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(|| seen.etcd.clone())
}

/// All members, as etcd's flag has them.
pub(super) fn initial_cluster(seen: &[Seen]) -> String {
    let pairs =
        seen.iter().flat_map(|it| it.peer_urls.iter().map(move |url| format!("{}={url}", it.name)));
    pairs.collect::<Vec<_>>().join(",")
}

/// What is about to be done.
pub(super) struct Plan<'a> {
    pub id: &'a str,
    pub seen: &'a [Seen],
    pub hosts: &'a [Reach],
    pub from: From,
    pub backup: Option<&'a Backup>,
    pub etcd: Option<&'a Path>,
    /// No host has got as far as the backup.
    pub went_back: bool,
    /// Voters whose hosts are not among these.
    pub left_out: &'a [String],
}

impl Plan<'_> {
    pub(super) fn text(&self) -> String {
        let mut text = format!("Bring the cluster back ({}):\n", self.id);
        for (seen, host) in self.seen.iter().zip(self.hosts) {
            let _ = writeln!(
                text,
                "  {} ({}, {}): {}",
                seen.name,
                host.name(),
                seen.data_dir.display(),
                state(seen)
            );
        }
        text += &self.of_backup();
        for (flag, values) in disagreements(self.seen) {
            let _ = writeln!(text, "  warning: --{flag} is not the same everywhere: {values}");
        }
        match self.from {
            From::Start => return text + &self.start(),
            From::Host(at) => text += &self.of_host(at),
            From::Backup => text += &self.loses(),
        }
        if !self.left_out.is_empty() {
            let _ = writeln!(
                text,
                "  left out: {}: what they have is not looked at, and their etcds must never start again with it",
                self.left_out.join(", ")
            );
        }
        for seen in self.seen {
            let _ = writeln!(
                text,
                "  {}: stopped ({}), what it has set aside, restored, started ({})",
                seen.name, seen.stops, seen.starts
            );
        }
        text
    }

    fn of_backup(&self) -> String {
        let Some(Backup { name, revision, time, .. }) = self.backup else { return String::new() };
        let age = time.map(|time| ago(now().0.saturating_sub(time.0)));
        let age = age.map(|age| format!(", {age} ago")).unwrap_or_default();
        format!("  the backup ({name}): revision {revision}{age}\n")
    }

    fn start(&self) -> String {
        let mut text = "Nothing is restored, and nothing is lost: those with good data are a quorum, and are started.\n".to_owned();
        for seen in self.seen.iter().filter(|it| it.data.is_none()) {
            let _ = writeln!(text, "  afterwards, on the host of {}: rekindle replace", seen.name);
        }
        text
    }

    fn of_host(&self, at: usize) -> String {
        let seen = &self.seen[at];
        let mut text = format!("All are restored from {}.\n", member(&seen.name));
        text += &of_log_alone(seen, self.etcd);
        text += "  what others have committed without it is lost\n";
        if let Some((backup, own)) = self.backup.zip(seen.data.as_ref()) {
            let lost = own.revision - backup.revision;
            let _ = writeln!(text, "  the backup would lose {lost} revisions more{}", keys(seen));
        }
        text
    }

    /// What going back to the backup costs, as far as anybody knows.
    fn loses(&self) -> String {
        let mut text = "All are restored from the backup.\n".to_owned();
        let Some(backup) = self.backup else { return text };
        if self.went_back {
            text += "  the hosts have not got as far: they were started empty, or restored from something older; what they have is set aside\n";
        } else {
            let newest = self.seen.iter().filter(|it| it.data.is_some());
            let revision = |it: &&Seen| it.data.as_ref().map_or(0, |data| data.revision);
            match newest.max_by_key(revision) {
                None if self.seen.iter().any(|it| it.runs) => {
                    text += "  what came after it is lost: the hosts run, and what they have is set aside without a look\n";
                }
                None => {
                    text += "  what came after it is lost: no host has data to compare it with\n";
                }
                Some(seen) if revision(&seen) > backup.revision => {
                    let lost = revision(&seen) - backup.revision;
                    let name = &seen.name;
                    let _ =
                        writeln!(text, "  {lost} revisions are lost that {name} has{}", keys(seen));
                }
                Some(_) => {}
            }
        }
        if let Some(changed) = backup.changed.as_ref().filter(|changed| !changed.is_empty()) {
            let to = changed.to;
            let _ = writeln!(text, "  the archive has more, up to revision {to}:");
            let sorts = [
                ("came later, and will not be there", &changed.created),
                ("were deleted later, and come back", &changed.deleted),
            ];
            for (fate, names) in sorts.into_iter().filter(|(_, names)| !names.is_empty()) {
                let count = grouped(names.len());
                let _ = writeln!(text, "    {count} keys {fate}: {}", some_of(names));
            }
            if changed.written > 0 {
                let count = grouped(changed.written);
                let _ = writeln!(text, "    {count} keys were written later, and go back");
            }
        }
        text
    }
}

/// What a host's data have that the backup has not.
fn keys(seen: &Seen) -> String {
    let newer = seen.data.as_ref().and_then(|data| data.newer.as_ref());
    let Some(Newer { created, deleted, written, kinds }) = newer else { return String::new() };
    let counts = [(created, "came"), (deleted, "went"), (written, "were written")];
    let counts = counts.into_iter().filter(|(count, _)| **count > 0);
    let counts: Vec<_> =
        counts.map(|(count, word)| format!("{} {word}", grouped(*count))).collect();
    let kinds = some_kinds(kinds);
    match (counts.is_empty(), kinds.is_empty()) {
        (true, _) => String::new(),
        (false, true) => format!(" (keys: {})", counts.join(", ")),
        (false, false) => format!(" (keys: {}; of these {kinds})", counts.join(", ")),
    }
}

/// The kinds with most objects.
fn some_kinds(kinds: &BTreeMap<String, u64>) -> String {
    let mut most: Vec<_> = kinds.iter().filter(|(kind, _)| !kind.is_empty()).collect();
    most.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let shown =
        most.iter().take(KINDS_SHOWN).map(|(kind, count)| format!("{} {kind}", grouped(**count)));
    let mut shown = shown.collect::<Vec<_>>().join(", ");
    if most.len() > KINDS_SHOWN {
        let _ = write!(shown, " and {} kinds more", most.len() - KINDS_SHOWN);
    }
    shown
}

fn ago(milliseconds: i64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

/// Flags that are not the same on all hosts, and which have what.
fn disagreements(seen: &[Seen]) -> Vec<(&str, String)> {
    let flags: std::collections::BTreeSet<_> = seen.iter().flat_map(|it| it.flags.keys()).collect();
    let mut found = Vec::new();
    for flag in flags {
        let values: Vec<_> = seen.iter().map(|it| (it.flags.get(flag), &it.name)).collect();
        let differ = values.iter().any(|(value, _)| *value != values[0].0);
        let told = values.iter().map(|(value, name)| {
            format!("{name} {}", value.map_or("etcd's default", String::as_str))
        });
        if differ {
            found.push((&**flag, told.collect::<Vec<_>>().join(", ")));
        }
    }
    found
}

/// What becomes of entries that only the log of who all are restored from has.
fn of_log_alone(seen: &Seen, etcd: Option<&Path>) -> String {
    let beyond = seen.data.as_ref().map_or(0, |data| data.beyond);
    let fate = match etcd_of(seen, etcd) {
        _ if beyond == 0 => return String::new(),
        Some(etcd) => format!("{} applies them to a copy", etcd.display()),
        None => "they are lost, for want of an etcd there (--etcd)".to_owned(),
    };
    format!("  {beyond} entries of its log are committed and not in its database: {fate}\n")
}

fn state(seen: &Seen) -> String {
    let fault = seen.fault.clone().unwrap_or_default();
    match (seen.opened, &seen.data) {
        (true, _) => "restored already, and in place".to_owned(),
        (false, Some(data)) if seen.fault.is_none() => {
            let facts = data.facts();
            format!(
                "good data of cluster {:x} up to revision {}, log up to {}",
                facts.cluster, data.revision, facts.last.1
            )
        }
        (false, Some(data)) => format!("data up to revision {}, but {fault}", data.revision),
        (false, None) => fault,
    }
}

pub(super) fn result(observed: &Observed, health: &Health, took: f64, id: &str) -> String {
    let Health { serving, voters, .. } = health;
    let text = told(observed, health, None).text;
    format!(
        "{text}{serving} of {voters} members serve, after {took:.1} s; what was there is set aside as *.fenced-{id}\n"
    )
}

/// What was restored, and who says so.
pub(super) fn restored(staged: &Staged, proven: usize, all: usize) -> String {
    let Staged { revision, hash, kinds, .. } = staged;
    let keys = grouped(kinds.values().sum::<u64>());
    let rows = [
        ("restored", format!("{keys} keys, revision {revision}, HashKV {hash}")),
        ("proven", format!("{proven} of {all} endpoints answer with this HashKV")),
    ];
    let mut text = output::lines(&rows);
    let kinds: Vec<_> = kinds.iter().filter(|(kind, _)| !kind.is_empty()).collect();
    if !kinds.is_empty() {
        let rows: Vec<_> =
            kinds.into_iter().map(|(kind, count)| vec![kind.clone(), grouped(*count)]).collect();
        text = output::table(&["KIND", "OBJECTS"], &rows) + &text;
    }
    text
}
