//! A restore's plan and its result, in words.

use super::request::Wanted;
use crate::archive::shown;
use crate::output::{self, grouped};
use crate::source::{CHANGED_BYTES_MAX, Kind, Source};
use crate::status::{alarm_name, boots_line};
use rekindle_datadir::{Ended, Place, Restored, Target, Undo};
use rekindle_etcd::restore::{AlarmFate, BumpRequest, LeaseFate, Plan};
use rekindle_etcd::{Changed, Facts};
use std::collections::BTreeSet;

/// So many keys are named of each fate.
const KEYS_SHOWN: usize = 10;

/// What a restore is about to do.
pub(crate) struct PlanText<'a> {
    pub source: &'a Source,
    pub facts: &'a Facts,
    pub wanted: &'a Wanted,
    pub plan: &'a Plan,
    pub targets: &'a [Target],
    /// Data directories that something is in.
    pub replaced: &'a [bool],
    pub time: &'a str,
    pub checks_digest: bool,
    /// What the log changes behind it; none where there is too much of it.
    pub changed: Result<Option<Changed>, String>,
}

impl PlanText<'_> {
    pub(crate) fn text(&self) -> String {
        let plan = self.plan;
        let mut rows = vec![
            ("source", self.source_line()),
            ("revision", self.revision_line()),
            ("etcd", boots_line(self.facts)),
            ("cluster", format!("{} with token {}", plan.cluster.id, plan.cluster.token)),
            ("members", self.member_lines()),
            ("makes", self.target_lines()),
        ];
        if let Kind::Base(base) = &self.source.kind
            && let Some(left_out) = base.left_out()
        {
            rows.insert(2, ("leaves out", left_out + &self.fates()));
        }
        if let Kind::Base(base) = &self.source.kind
            && let Some(at) = base.users_of
        {
            rows.insert(2, ("users", format!("with roles and passwords as of {}", shown(at))));
        }
        match plan.leases {
            LeaseFate::Restore => {}
            LeaseFate::Expire => {
                rows.push((
                    "leases",
                    "end within seconds of the start, with their keys".to_owned(),
                ));
            }
            LeaseFate::Detach => {
                rows.push(("leases", "are gone; the keys that hung on them stay".to_owned()));
            }
        }
        let warnings = self.warnings();
        if !warnings.is_empty() {
            rows.push(("warning", warnings.join("\n")));
        }
        format!("Plan of the restore\n{}", output::lines(&rows))
    }

    /// What becomes of keys that were changed later, a line for each sort.
    fn fates(&self) -> String {
        let changed = match &self.changed {
            Ok(Some(changed)) if changed.is_empty() => return String::new(),
            Ok(Some(changed)) => changed,
            Ok(None) => {
                let most = output::bytes(CHANGED_BYTES_MAX);
                return format!(
                    "\nwhich keys is not said: the log behind it is larger than {most}"
                );
            }
            Err(error) => return format!("\nwhich keys these changed cannot be said: {error}"),
        };
        let mut text = format!("\nup to revision {} of its log:", changed.to);
        let sorts = [
            ("came later, and will not be there", &changed.created),
            ("were deleted later, and come back", &changed.deleted),
        ];
        for (fate, names) in sorts.into_iter().filter(|(_, names)| !names.is_empty()) {
            text += &format!("\n  {} keys {fate}: {}", grouped(names.len()), some_of(names));
        }
        if changed.written > 0 {
            text +=
                &format!("\n  {} keys were written later, and go back", grouped(changed.written));
        }
        text
    }

    fn source_line(&self) -> String {
        let digest = match (&self.source.kind, self.checks_digest) {
            (_, true) => ", SHA-256 compared while restoring",
            (Kind::Snapshot(_), false) => ", SHA-256 not compared (--skip-hash-check)",
            _ => "",
        };
        format!("{}: {}{digest}", self.source.path.display(), self.source.describe())
    }

    fn revision_line(&self) -> String {
        let plan = self.plan;
        match plan.bump {
            None => plan.revision.to_string(),
            Some(bump) => format!(
                "{}, raised by {} to {}; everything before counts as compacted{}",
                plan.revision,
                grouped(bump.amount),
                bump.to,
                match self.wanted.bump {
                    BumpRequest::IfKubernetes =>
                        ",\nso that Kubernetes' caches start anew (--bump-revision 0 turns it off)",
                    _ => "",
                }
            ),
        }
    }

    fn member_lines(&self) -> String {
        let member = |member: &rekindle_etcd::Member| {
            format!("{} {} {}", member.id, member.name, member.peer_urls.join(","))
        };
        self.plan.cluster.members.iter().map(member).collect::<Vec<_>>().join("\n")
    }

    fn target_lines(&self) -> String {
        let mut lines = Vec::new();
        for (target, replaced) in self.targets.iter().zip(self.replaced) {
            let place = &target.place;
            let mut line = format!("{} for {}", place.data_dir.display(), target.member.name);
            if let Some(wal) = &place.wal {
                line += &format!(", its log in {}", wal.wal_dir.display());
            }
            if *replaced {
                line += &format!("\n  what is there goes to {}", place.before(self.time).display());
                if let Some(wal) = &place.wal {
                    line += &format!(" and {}", wal.before(self.time).display());
                }
            }
            lines.push(line);
        }
        lines.join("\n")
    }

    fn warnings(&self) -> Vec<String> {
        let plan = self.plan;
        let mut warnings = Vec::new();
        let names = |members: &[rekindle_etcd::Member]| {
            members.iter().map(|member| member.name.clone()).collect::<BTreeSet<_>>()
        };
        let (old, new) = (names(&self.facts.members), names(&plan.cluster.members));
        if !old.is_empty() && old != new {
            let list = |names: &BTreeSet<String>| {
                names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
            };
            warnings.push(format!(
                "the source's cluster was {}, the new one is {}: is --initial-cluster all of it?",
                list(&old),
                list(&new)
            ));
        }
        if reuses_ids(self.facts, plan) {
            warnings.push(
                "members get the ids that they had: members of the old cluster would take them for \
                 their own. Leave --initial-cluster-token away, or give one that was never used"
                    .into(),
            );
        }
        for fate in &plan.alarms {
            warnings.push(match fate {
                AlarmFate::Cleared(alarm) => format!(
                    "alarm {} of the source is cleared: the database fits the quota of {}",
                    alarm_name(alarm.kind),
                    output::bytes(self.wanted.quota)
                ),
                AlarmFate::Kept(alarm) => format!(
                    "alarm {} stays and blocks the cluster; once its reason is gone: etcdctl alarm disarm",
                    alarm_name(alarm.kind)
                ),
            });
        }
        if let Some(target) = &plan.downgrade_dropped {
            warnings.push(format!("the source's downgrade to {target} is dropped"));
        }
        if self.facts.auth.enabled {
            warnings
                .push("authentication is on: users and passwords are what the source has".into());
        }
        if let Kind::Database = &self.source.kind {
            warnings.push(
                "nothing proves that the db file is whole and unchanged; if it was copied while \
                 etcd was running, or fetched without its end, it is no backup"
                    .into(),
            );
        }
        if let Kind::DataDir(log) = &self.source.kind {
            let applied = self.facts.consistent_index.unwrap_or_default();
            let beyond = log.state.committed_beyond(applied);
            if log.segments == 0 || log.damage.is_some() {
                warnings.push(
                    "the member's log was not found, or not read to its end: what it holds beyond \
                     the database will be lost (--source-wal-dir, where it is elsewhere)"
                        .into(),
                );
            }
            if beyond > 0 {
                warnings.push(format!(
                    "{} committed entries are in the member's log but not in its database: \
                     they will be lost",
                    grouped(beyond)
                ));
            }
        }
        warnings
    }
}

/// The first of some keys.
pub(crate) fn some_of(keys: &[Vec<u8>]) -> String {
    let shown = keys.iter().take(KEYS_SHOWN);
    let shown = shown.map(|key| String::from_utf8_lossy(key).escape_debug().to_string());
    let more = match keys.len().saturating_sub(KEYS_SHOWN) {
        0 => String::new(),
        more => format!(" and {} more", grouped(more)),
    };
    shown.collect::<Vec<_>>().join(", ") + &more
}

/// Members that are to be have ids that the source's had: the token is an old one.
pub(crate) fn reuses_ids(facts: &Facts, plan: &Plan) -> bool {
    let old = |id| facts.members.iter().any(|member| member.id == id);
    plan.cluster.members.iter().any(|member| old(member.id))
}

/// What a restore has done, and what comes next.
pub(crate) fn result_text(plan: &Plan, targets: &[Target], restored: &Restored) -> String {
    let mut lines = vec![format!(
        "restored {} records up to revision {}, {} each",
        grouped(restored.records),
        plan.final_revision(),
        output::bytes(restored.size)
    )];
    for (target, aside) in targets.iter().zip(&restored.set_aside) {
        lines.push(format!("{}: {}", target.member.name, target.place.data_dir.display()));
        if let Some(aside) = aside {
            let back = back_command(&target.place);
            lines.push(format!("  set aside: {}; to take it back: {back}", aside.display()));
        }
    }
    if !restored.mended.is_empty() {
        lines.push(format!(
            "the source's bookkeeping had {} faults, of which the restored database is free",
            restored.mended.len()
        ));
        lines.push(match restored.mended.iter().any(|damage| damage.page.0 < 2) {
            true => "one of them was in a meta: the newest transaction may be missing".to_owned(),
            false => "they cost no data".to_owned(),
        });
    }
    let others = plan.cluster.members.len() - targets.len();
    if others > 0 {
        let hosts = if others == 1 { "host".to_owned() } else { format!("{others} hosts") };
        lines.push(format!(
            "next: restore the same source with the same flags on the other {hosts} (the plan must \
             say cluster {} there, too), then start etcd on all",
            plan.cluster.id
        ));
    } else {
        lines.push("next: start etcd".to_owned());
    }
    lines.join("\n") + "\n"
}

/// What takes a restore back.
fn back_command(place: &Place) -> String {
    let mut command =
        format!("rekindle restore --rollback --data-dir {}", place.data_dir.display());
    if let Some(wal) = &place.wal {
        command += &format!(" --wal-dir {}", wal.wal_dir.display());
    }
    command
}

/// What `--resume` is about to do.
pub(crate) fn resume_plan(place: &Place) -> String {
    format!("finishes the interrupted restore of {}\n", place.data_dir.display())
}

/// What `--rollback` is about to do.
pub(crate) fn roll_back_plan(place: &Place, undo: &Undo, now: &str) -> String {
    let data_dir = place.data_dir.display();
    match undo {
        Undo::Interrupted => format!("takes back the interrupted restore of {data_dir}\n"),
        Undo::Finished { before, time } => format!(
            "brings back {}, set aside at {time}\nwhat is in {data_dir} now goes to {}\n",
            before.display(),
            place.undone(now).display()
        ),
    }
}

/// What `--resume` or `--rollback` has done.
pub(crate) fn ended_text(place: &Place, ended: &Ended) -> String {
    let data_dir = place.data_dir.display();
    match ended {
        Ended::Completed => format!("{data_dir} is the restored one now\n"),
        Ended::TakenBack => format!("{data_dir} is as it was before the interrupted restore\n"),
        Ended::RolledBack { undone } => format!(
            "{data_dir} is as it was before the restore; what was restored is in {}\n",
            undone.display()
        ),
    }
}
