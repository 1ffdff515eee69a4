//! No false alarm: histories of all kinds, saved from members at their own pace, are called good.
//!
//! `REKINDLE_SEEDS` says how many; there are few without it.

mod keyspaces;

use keyspaces::{Keyspace, Saving, now_is, seeds, verdict};
use rekindle_archive::{Comparison, Level};
use rekindle_testkit::content::noise;
use std::collections::BTreeSet;

/// Numbers by a seed.
struct Chance {
    seed: u64,
    drawn: u64,
}

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.drawn += 1;
        let bytes = noise(self.seed * 100_003 + self.drawn, 16);
        u64::from_le_bytes(bytes[8..].try_into().unwrap()) % end
    }

    fn between(&mut self, first: i64, last: i64) -> i64 {
        first + self.below((last - first).unsigned_abs() + 1).cast_signed()
    }
}

/// A cluster that changes, and what etcd does with deletes at the compact revision.
struct History {
    chance: Chance,
    cluster: Keyspace,
    living: BTreeSet<String>,
    keeps_deletes: bool,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut chance = Chance { seed, drawn: 0 };
        let keeps_deletes = chance.below(2) == 0;
        Self { chance, cluster: Keyspace::new(), living: BTreeSet::new(), keeps_deletes }
    }

    /// A transaction of some keys, each once; what is deleted was there.
    fn write(&mut self) {
        let first = self.chance.below(12);
        let names = (0..=self.chance.below(3)).map(|n| format!("/key/{}", (first + n * 5) % 12));
        let names: BTreeSet<_> = names.collect();
        let mut changes = Vec::new();
        for name in &names {
            let deletes = self.living.contains(name) && self.chance.below(3) == 0;
            match deletes {
                true => self.living.remove(name),
                false => self.living.insert(name.clone()),
            };
            changes.push((name.as_str(), deletes));
        }
        self.cluster.write(&changes, 20);
    }

    /// A compaction is asked for, often just where something was deleted.
    fn compact(&mut self) {
        let deletes = self.cluster.records.keys().filter(|(_, _, tombstone)| *tombstone);
        let deletes: Vec<_> = deletes.map(|(revision, ..)| *revision).collect();
        let (scheduled, revision) = (self.cluster.scheduled, self.cluster.revision);
        let at = match (self.chance.below(2), deletes.len()) {
            (0, 1..) => deletes[self.chance.below(deletes.len() as u64) as usize],
            _ => self.chance.between(scheduled, revision),
        };
        self.cluster.schedule(at.max(scheduled));
    }

    /// A member that has done what it came to.
    fn member(&mut self) -> Keyspace {
        let mut member = self.cluster.clone();
        let came = match self.chance.below(3) {
            0 => i64::MAX,
            _ => self.chance.between(0, member.scheduled + 1),
        };
        member.remove(self.keeps_deletes, |revision| revision < came);
        member
    }
}

#[test]
fn clean_histories_are_called_good() {
    seeds(200).for_each(check_history);
}

/// A pack that was to be written anew had nothing but garbage: it was written, and no base named it.
#[test]
fn garbage_alone_makes_no_pack() {
    check_history(617);
}

fn check_history(seed: u64) {
    println!("history {seed}");
    let (mut history, saving) = (History::new(seed), Saving::new());
    for step in 0..4 {
        (0..=history.chance.below(12)).for_each(|_| history.write());
        if history.chance.below(2) == 0 {
            // What a member compacts at once lies in a gap that nobody has seen.
            history.compact();
        }
        let member = history.member();
        let written = saving.save(&member);
        let agreed = matches!(written.comparison, Comparison::Agreed { .. });
        assert!(agreed || step == 0, "step {step}: {:?}", written.comparison);
        check_brings_back(&saving.read(&written), &member, step);
    }
    let verdict = verdict(&saving.archive, now_is()).unwrap();
    assert_eq!(verdict.findings, []);
    let proven = verdict.points.iter().filter(|point| point.level == Some(Level::Proven));
    assert_eq!(proven.count(), 4);
}

/// All that the member has, but for garbage, which may be left out.
fn check_brings_back(got: &keyspaces::Pairs, member: &Keyspace, step: u64) {
    let mut kept = member.clone();
    kept.remove(false, |_| true);
    let (all, kept) = (member.pairs(), kept.pairs());
    assert!(got.iter().all(|pair| all.contains(pair)), "step {step}: more than there was");
    assert!(kept.iter().all(|pair| got.contains(pair)), "step {step}: less than there was");
}
