//! How the members of a cluster are, as `rekindle check` says it again and again.

use jiff::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What one look has found: a part of the JSON of `rekindle check`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// Members that vote.
    pub voters: u32,
    /// Of these, those that serve.
    pub serving: u32,
    /// So many have to.
    pub quorum: u32,
    /// All that it lists.
    pub members: Vec<Member>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What is to be done.
    pub next: Next,
}

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Member {
    /// Its name; empty until it has started.
    pub name: String,
    /// It has answered a read as of now.
    pub serves: bool,
    /// How long that took.
    pub read_seconds: Option<f64>,
    /// The revision that it has.
    pub revision: Option<i64>,
    /// Index of the last entry of its log, and of the last one that its database has.
    pub raft_index: Option<u64>,
    /// See there.
    pub applied_index: Option<u64>,
    /// Size of its database, what of it is in use, and its quota, in bytes.
    pub db_size: Option<u64>,
    /// See there.
    pub db_size_in_use: Option<u64>,
    /// See there.
    pub db_size_quota: Option<u64>,
    /// When its certificate expires.
    pub certificate_expires: Option<Timestamp>,
    /// Its clock is ahead of this host's by so much.
    pub clock_ahead_seconds: Option<f64>,
}

/// Something that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Finding {
    /// What kind of thing it is.
    pub name: String,
    /// `Urgent` or `Warning`.
    pub severity: String,
    /// Of which member, if it is of one.
    pub member: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do now.
    pub remedy: String,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Next {
    /// `nothing`, `wait`, `ask` or `do`.
    pub decision: String,
    /// Why it is not simply done.
    pub why: Option<String>,
    /// `restart`, `replace`, `remove` or `recover`.
    pub step: Option<String>,
    /// Of this member.
    pub member: Option<String>,
    /// Which is this host's.
    pub here: bool,
    /// What a human types.
    pub command: Option<String>,
}

impl Next {
    /// Somebody, or something, has to do it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        ["do", "ask"].contains(&&*self.decision)
    }
}

/// How often in a row something has to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Until it is believed.
    pub fails: u32,
    /// And until it is over.
    pub well: u32,
}

/// Something that was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// When it was seen first.
    pub since: Timestamp,
    /// How it was seen last.
    pub finding: Finding,
    /// So often in a row; or, where it was believed, not any more for so often.
    times: u32,
    /// It is believed.
    pub is_believed: bool,
}

/// What is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// The last look.
    pub report: Report,
    /// When that was.
    pub at: Option<Timestamp>,
    /// Looking itself fails.
    pub failure: Option<(Timestamp, String)>,
    /// By name and member.
    pub seen: BTreeMap<(String, String), Seen>,
    /// Since when something is to be done, and what.
    pub wanted: Option<(Timestamp, Next)>,
    /// It was to be done unasked, and was not, or failed: why.
    pub hindrance: Option<String>,
}

impl Health {
    /// Takes in what was found now.
    pub fn hear(&mut self, report: Report, now: Timestamp, times: Times) {
        let key =
            |finding: &Finding| (finding.name.clone(), finding.member.clone().unwrap_or_default());
        let found: BTreeMap<_, _> =
            report.findings.iter().map(|it| (key(it), it.clone())).collect();
        self.seen.retain(|key, seen| match (found.contains_key(key), seen.is_believed) {
            (true, _) => true,
            // Once is no streak.
            (false, false) => false,
            (false, true) => {
                seen.times += 1;
                seen.times < times.well
            }
        });
        for (key, finding) in found {
            let new = Seen { since: now, finding: finding.clone(), times: 0, is_believed: false };
            let seen = self.seen.entry(key).or_insert(new);
            seen.finding = finding;
            match seen.is_believed {
                true => seen.times = 0,
                false => {
                    seen.times += 1;
                    seen.is_believed = seen.times >= times.fails;
                    if seen.is_believed {
                        seen.times = 0;
                    }
                }
            }
        }
        let since = self.wanted.as_ref().map_or(now, |(since, _)| *since);
        self.wanted = report.next.is_wanted().then(|| (since, report.next.clone()));
        if self.wanted.is_none() {
            self.hindrance = None;
        }
        (self.report, self.at, self.failure) = (report, Some(now), None);
    }

    /// Looking failed.
    pub fn fail(&mut self, why: String, now: Timestamp) {
        self.failure.get_or_insert((now, String::new())).1 = why;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_once_is_not_believed_and_what_is_gone_once_is_not_over() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let finding = Finding { name: "Down".to_owned(), ..Finding::default() };
        let next = Next { decision: "do".to_owned(), ..Next::default() };
        let bad = Report { findings: vec![finding], next, ..Report::default() };
        let times = Times { fails: 3, well: 2 };
        let mut health = Health::default();
        let mut hear = |report: &Report, second| {
            health.hear(report.clone(), at(second), times);
            let wanted = health.wanted.as_ref().map(|(since, _)| since.as_second());
            (
                health.seen.values().map(|seen| (seen.since.as_second(), seen.is_believed)).next(),
                wanted,
            )
        };
        let good = Report::default();
        assert_eq!(hear(&bad, 1), (Some((1, false)), Some(1)));
        assert_eq!(hear(&bad, 2), (Some((1, false)), Some(1)));
        assert_eq!(hear(&good, 3), (None, None));
        for second in 4..6 {
            assert_eq!(hear(&bad, second), (Some((4, false)), Some(4)));
        }
        assert_eq!(hear(&bad, 6), (Some((4, true)), Some(4)));
        assert_eq!(hear(&good, 7), (Some((4, true)), None));
        assert_eq!(hear(&bad, 8), (Some((4, true)), Some(8)));
        assert_eq!(hear(&good, 9), (Some((4, true)), None));
        assert_eq!(hear(&good, 10), (None, None));
    }
}
