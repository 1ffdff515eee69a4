//! For how long something goes on: what fails once may be over, and what is well once may fail again. Pure.

use super::judge::{Finding, Health, Severity, Verdict};
use super::observe::Observed;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const FORMAT: u32 = 1;
/// So many changes of the leader within that time are told of.
const ELECTIONS_MAX: usize = 3;
const ELECTIONS_WITHIN: SignedDuration = SignedDuration::from_mins(10);
/// The cluster as a whole, among the members' names: no member has this one.
const CLUSTER: &str = "";

/// How often in a row it takes to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// That it fails.
    pub fails: u32,
    /// That it is well again.
    pub well: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { fails: 3, well: 2 }
    }
}

/// What is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fate {
    /// It is well.
    #[default]
    Well,
    /// It fails.
    Fails,
}

/// What was seen in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    /// What is believed.
    pub fate: Fate,
    /// How often in a row it was seen otherwise.
    pub against: u32,
    /// Since when that is believed; none where it was never otherwise.
    pub since: Option<Timestamp>,
}

/// What was seen of a cluster until now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    format: u32,
    streaks: BTreeMap<String, Streak>,
    leader: Option<u64>,
    elections: Vec<Timestamp>,
}

impl Default for History {
    fn default() -> Self {
        let (streaks, elections) = (BTreeMap::new(), Vec::new());
        Self { format: FORMAT, streaks, leader: None, elections }
    }
}

impl Streak {
    fn hear(&mut self, fails: bool, thresholds: Thresholds, at: Timestamp) {
        let (seen, needed) = match fails {
            true => (Fate::Fails, thresholds.fails),
            false => (Fate::Well, thresholds.well),
        };
        self.against = if seen == self.fate { 0 } else { self.against.saturating_add(1) };
        if self.against >= needed.max(1) {
            *self = Self { fate: seen, against: 0, since: Some(at) };
        }
    }
}

impl History {
    /// Reads what was written; none where it is of another version, or damaged.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let read: Self = serde_json::from_slice(bytes).ok()?;
        (read.format == FORMAT).then_some(read)
    }

    /// As it is written.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Takes in what was seen, adds to it what only time shows, and judges it by what is believed.
    pub fn hear(&mut self, observed: &Observed, health: &mut Health, thresholds: Thresholds) {
        let at = observed.at;
        let mut seen = BTreeMap::from([(CLUSTER.to_owned(), health.verdict == Verdict::NoQuorum)]);
        for member in &observed.members {
            let label = member.label();
            let is_bad = |finding: &&Finding| {
                finding.severity == Severity::Urgent && finding.member.as_ref() == Some(&label)
            };
            let fails = health.findings.iter().any(|finding| is_bad(&finding));
            seen.insert(label, fails);
        }
        // Who is not in the cluster any more is forgotten.
        self.streaks.retain(|name, _| seen.contains_key(name));
        for (name, fails) in seen {
            self.streaks.entry(name).or_default().hear(fails, thresholds, at);
        }
        self.hear_leader(health, at);
        let of_cluster =
            |finding: &Finding| finding.severity == Severity::Urgent && finding.member.is_none();
        let fails = |name: &str| self.streak(name).fate == Fate::Fails;
        let degraded = self.streaks.keys().any(|name| name != CLUSTER && fails(name));
        health.verdict = match (fails(CLUSTER), health.verdict) {
            (true, _) => Verdict::NoQuorum,
            // That nobody serves is not believed yet.
            (false, Verdict::NoQuorum) => Verdict::Degraded,
            _ if degraded || health.findings.iter().any(of_cluster) => Verdict::Degraded,
            _ => Verdict::Healthy,
        };
    }

    fn hear_leader(&mut self, health: &mut Health, at: Timestamp) {
        let is_recent = |when: &Timestamp| at.duration_since(*when) < ELECTIONS_WITHIN;
        self.elections.retain(is_recent);
        let Some(leader) = health.leader else { return };
        if self.leader.replace(leader).is_some_and(|before| before != leader) {
            self.elections.push(at);
        }
        if self.elections.len() >= ELECTIONS_MAX {
            let minutes = ELECTIONS_WITHIN.as_mins();
            health.findings.push(Finding {
                name: "Elections",
                severity: Severity::Warning,
                member: None,
                what: format!("the leader has changed {} times within {minutes} min", self.elections.len()),
                remedy: "look at the disks of the members, at the network between them, and at the heartbeat interval",
            });
        }
    }

    /// What is believed of a member, by its label.
    #[must_use]
    pub fn streak(&self, member: &str) -> Streak {
        self.streaks.get(member).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::ObservedMember;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    /// What is believed after each look at a cluster of one member: `x` where it failed, `-` where nobody served.
    #[track_caller]
    fn check(looks: &str, want: &str) {
        let mut history = History::default();
        let member = ObservedMember {
            id: Some(1),
            name: "m1".to_owned(),
            votes: true,
            ..ObservedMember::default()
        };
        let mut believed = String::new();
        for (minute, look) in (0..).zip(looks.chars()) {
            let finding = Finding {
                name: "Down",
                severity: Severity::Urgent,
                member: Some("m1".to_owned()),
                what: String::new(),
                remedy: "",
            };
            let findings = if look == '.' { Vec::new() } else { vec![finding] };
            let verdict = match look {
                '.' => Verdict::Healthy,
                'x' => Verdict::Degraded,
                _ => Verdict::NoQuorum,
            };
            let mut health =
                Health { verdict, voters: 1, serving: 1, quorum: 1, leader: Some(1), findings };
            let members = vec![member.clone()];
            let observed = Observed { members, at: at(minute), ..Observed::default() };
            history = History::parse(&history.to_bytes()).unwrap();
            history.hear(&observed, &mut health, Thresholds { fails: 3, well: 2 });
            believed.push(match health.verdict {
                Verdict::Healthy => '.',
                Verdict::Degraded => 'x',
                Verdict::NoQuorum => '-',
            });
        }
        assert_eq!(believed, want, "{looks}");
    }

    #[test]
    fn what_fails_often_enough_in_a_row_is_believed_and_what_is_well_often_enough() {
        check("......", "......");
        check("xx.xx.", "......");
        check("xxx.", "..xx");
        check("xxx..", "..xx.");
        check("xxx.x.x..", "..xxxxxx.");
        // That nobody serves is told of as failing until it is believed.
        check("---..", "xx--.");
        check("--.--.", "xx.xx.");
    }

    #[test]
    fn a_leader_that_changes_again_and_again() {
        let mut history = History::default();
        let mut names = Vec::new();
        for (minute, leader) in [(0, 1), (1, 2), (2, 1), (3, 2), (20, 2)] {
            let mut health = Health {
                verdict: Verdict::Healthy,
                voters: 1,
                serving: 1,
                quorum: 1,
                leader: Some(leader),
                findings: Vec::new(),
            };
            let observed = Observed { at: at(minute), ..Observed::default() };
            history.hear(&observed, &mut health, Thresholds::default());
            names.push(health.findings.first().map_or("", |finding| finding.name));
        }
        assert_eq!(names, ["", "", "", "Elections", ""]);
    }

    #[test]
    fn what_is_of_another_version_begins_anew() {
        assert_eq!(History::parse(b"{}"), None);
        let other = String::from_utf8(History::default().to_bytes()).unwrap();
        assert_eq!(History::parse(other.replace("1", "2").as_bytes()), None);
    }
}
