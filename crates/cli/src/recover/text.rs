//! What is said of a recovery.

use super::Backup;
use super::hosts::Reach;
use crate::member::Seen;
use rekindle_recovery::health::Health;
use rekindle_recovery::recover::From;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What the data of a host are called.
pub(super) const MEMBER: &str = "the data of ";

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

pub(super) fn plan(
    id: &str,
    seen: &[Seen],
    hosts: &[Reach],
    (from, backup): (From, Option<&Backup>),
    etcd: Option<&Path>,
) -> String {
    let mut text = format!("Bring the cluster back ({id}):\n");
    for (seen, host) in seen.iter().zip(hosts) {
        let _ = writeln!(
            text,
            "  {} ({}, {}): {}",
            seen.name,
            host.name(),
            seen.data_dir.display(),
            state(seen)
        );
    }
    if let Some(Backup { name, revision, time, .. }) = backup {
        let time = time.as_ref().map(|time| format!(", {time}")).unwrap_or_default();
        let _ = writeln!(text, "  the backup ({name}): revision {revision}{time}");
    }
    let newest = seen.iter().filter_map(|it| it.data).map(|data| data.revision).max();
    match from {
        From::Start => {
            text += "Nothing is restored, and nothing is lost: those with good data are a quorum, and are started.\n";
            let lost = seen.iter().filter(|it| it.data.is_none());
            for seen in lost {
                let _ =
                    writeln!(text, "  afterwards, on the host of {}: rekindle replace", seen.name);
            }
            return text;
        }
        From::Host(at) => {
            let _ = writeln!(text, "All are restored from {}.", member(&seen[at].name));
            let own = seen[at].data;
            text += &of_log_alone(&seen[at], etcd);
            text += "  what others have committed without it is lost\n";
            if let (Some(backup), Some(own)) = (backup, own) {
                let _ = writeln!(
                    text,
                    "  the backup would lose {} revisions more",
                    own.revision - backup.revision
                );
            }
        }
        From::Backup => {
            text += "All are restored from the backup.\n";
            let lost = backup.zip(newest).map(|(backup, newest)| newest - backup.revision);
            match lost {
                Some(lost) if lost > 0 => {
                    let _ = writeln!(text, "  {lost} revisions are lost that a host still has");
                }
                Some(_) => {}
                None => {
                    text += "  what came after it is lost: no host has data to compare it with\n";
                }
            }
        }
    }
    for seen in seen {
        let _ = writeln!(
            text,
            "  {}: stopped ({}), what it has set aside, restored, started ({})",
            seen.name, seen.stops, seen.starts
        );
    }
    text
}

/// What becomes of entries that only the log of who all are restored from has.
fn of_log_alone(seen: &Seen, etcd: Option<&Path>) -> String {
    let beyond = seen.data.map_or(0, |data| data.beyond);
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

pub(super) fn result(health: &Health, took: f64, id: &str) -> String {
    format!(
        "the cluster serves again after {took:.1} s: {} of {} members; what was there is set aside as *.fenced-{id}\n",
        health.serving, health.voters
    )
}
