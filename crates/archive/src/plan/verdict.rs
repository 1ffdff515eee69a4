//! What becomes of restore points, by what was seen of the objects that they need.

use crate::archive::BaseEntry;
use rekindle_etcd::Revision;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// How much is known of a restore point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every object that it needs is there, with the right size.
    Listed,
    /// Every byte of them was compared with its digests.
    Read,
    /// Its records give the HashKV that the cluster's snapshot had.
    Proven,
}

/// What is to be said of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// It is missing or damaged.
    Lost,
    /// A member has said that its keyspace was another one.
    Contradicts,
    /// Another segment has the same revisions in another way.
    Forked,
    /// The store does not hand it out now; that may pass.
    Delayed,
    /// No base names it yet, and it is young: a save is under way, or was cut off.
    Uploading,
    /// No base names it.
    Orphan,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "LOST",
            Self::Contradicts => "CONTRADICTS",
            Self::Forked => "FORKED",
            Self::Delayed => "DELAYED",
            Self::Uploading => "UPLOADING",
            Self::Orphan => "ORPHAN",
        })
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is to be said of it.
    pub word: Word,
    /// The object's name, or that of a base.
    pub object: String,
    /// What was seen.
    pub reason: String,
    /// The revisions that the object holds, where its name or a base tells.
    pub revisions: Option<(Revision, Revision)>,
    /// Names of the bases that cannot be brought back without it.
    pub takes: Vec<String>,
    /// It is a base, and good, but these revisions of the log that it needs are missing.
    pub is_gap: bool,
}

/// A restore point, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its base.
    pub entry: BaseEntry,
    /// How much is known of it; none where it cannot be brought back now.
    pub level: Option<Level>,
}

/// What a verification has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The restore points that were verified, in the order of time.
    pub points: Vec<Point>,
    /// So many times a member had said of its keyspace what the archive has.
    pub witnesses: usize,
    /// All that is not as it should be, the worst first.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// The worst first.
    pub(crate) fn sort(&mut self) {
        self.findings.sort_by(|one, other| {
            (one.word, &one.object, &one.reason).cmp(&(other.word, &other.object, &other.reason))
        });
    }

    /// Whether that is to be said of anything.
    #[must_use]
    pub fn has(&self, word: Word) -> bool {
        self.findings.iter().any(|found| found.word == word)
    }
}

/// What was seen of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    Good,
    /// It is missing or damaged.
    Bad(String),
    /// The store fails with it.
    Withheld(String),
    /// No base needs it; it is too young to be left over, or old enough.
    Young,
    Old,
}

/// What was seen of a restore point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub entry: BaseEntry,
    /// Names of the objects that it needs, but for its own.
    pub needs: Vec<Arc<str>>,
    /// What is wrong with it where all those may be good.
    pub trouble: Option<Trouble>,
}

/// What is wrong with a restore point, and not with one object of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub word: Word,
    pub reason: String,
    /// The revisions of the log that are missing, where that is the trouble.
    pub revisions: Option<(Revision, Revision)>,
}

/// What was seen, all of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub points: Vec<Seen>,
    /// Objects by their names.
    pub objects: BTreeMap<Arc<str>, Sight>,
    /// Bases, by their names, of which not even the header can be read.
    pub headless: BTreeSet<Arc<str>>,
    /// Revisions of objects, as far as they are known.
    pub revisions: BTreeMap<Arc<str>, (Revision, Revision)>,
}

impl Observed {
    /// Names of the bases that cannot be brought back without an object.
    fn needing(&self, name: &Arc<str>) -> Vec<String> {
        let needs = |point: &&Seen| *point.entry.name == **name || point.needs.contains(name);
        let headless = self.headless.get(name).into_iter().map(ToString::to_string);
        let needing = self.points.iter().filter(needs).map(|point| point.entry.name.clone());
        headless.chain(needing).collect()
    }
}

/// Judges what was seen at a level.
pub(crate) fn judge(level: Level, observed: &Observed) -> Verdict {
    let mut verdict = Verdict::default();
    let mut taken = BTreeSet::new();
    for (name, sight) in &observed.objects {
        let (word, reason) = match sight {
            Sight::Good => continue,
            Sight::Bad(reason) => (Word::Lost, reason.as_str()),
            Sight::Withheld(reason) => (Word::Delayed, reason.as_str()),
            Sight::Young => (Word::Uploading, "no base names it yet"),
            Sight::Old => (Word::Orphan, "no base names it"),
        };
        let takes = observed.needing(name);
        taken.extend(takes.iter().cloned());
        let revisions = observed.revisions.get(name).copied();
        let (object, reason) = (name.to_string(), reason.to_owned());
        let is_gap = false;
        verdict.findings.push(Finding { word, object, reason, revisions, takes, is_gap });
    }
    for Seen { entry, trouble, .. } in &observed.points {
        // What fails for want of a good object is not told twice.
        if let Some(trouble) = trouble.as_ref().filter(|_| !taken.contains(&entry.name)) {
            verdict.findings.push(Finding {
                word: trouble.word,
                object: entry.name.clone(),
                reason: trouble.reason.clone(),
                revisions: trouble.revisions,
                takes: vec![entry.name.clone()],
                is_gap: trouble.revisions.is_some(),
            });
        }
        let lost = trouble.is_some() || taken.contains(&entry.name);
        let level = (!lost).then_some(level);
        verdict.points.push(Point { entry: entry.clone(), level });
    }
    verdict.sort();
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::header::tests::some_facts;
    use crate::format::{DIGEST, Generation, Header, Kind};

    fn a_point(name: &str, needs: &str, trouble: Option<Word>) -> Seen {
        let header = Header {
            facts: some_facts(Kind::Base),
            flags: 0,
            generation: Generation::default(),
            body_bytes: 1,
            body_digest: [0; DIGEST],
        };
        Seen {
            entry: BaseEntry { name: name.to_owned(), bytes: 1, header },
            needs: needs.split_whitespace().map(Into::into).collect(),
            trouble: trouble.map(|word| Trouble { word, reason: "why".into(), revisions: None }),
        }
    }

    /// Two bases, `x` of `a` and `b`, and `y` of `b` and `c`: what is found, and what remains.
    fn check(objects: &[(&str, Sight)], trouble: Option<Word>, want: &[&str]) {
        let objects = objects.iter().map(|(name, sight)| ((*name).into(), sight.clone()));
        let observed = Observed {
            points: vec![a_point("x", "a b", trouble), a_point("y", "b c", None)],
            objects: objects.collect(),
            headless: BTreeSet::from(["z".into()]),
            revisions: BTreeMap::new(),
        };
        let verdict = judge(Level::Read, &observed);
        let findings = verdict
            .findings
            .iter()
            .map(|found| format!("{} {}: {}", found.word, found.object, found.takes.join(" ")));
        let remains = verdict.points.iter().filter(|point| point.level.is_some());
        let remains: Vec<_> = remains.map(|point| point.entry.name.as_str()).collect();
        let got: Vec<_> = findings.chain([remains.join(" ")]).collect();
        assert_eq!(got, want);
        let levels = verdict.points.iter().filter_map(|point| point.level);
        assert!(levels.into_iter().all(|level| level == Level::Read));
    }

    #[test]
    fn points_are_lost_with_what_they_need() {
        let bad = || Sight::Bad("it is not there".to_owned());
        let withheld = || Sight::Withheld("timed out".to_owned());
        check(&[], None, &["x y"]);
        check(&[("a", Sight::Good), ("x", Sight::Good)], None, &["x y"]);
        check(&[("a", bad())], None, &["LOST a: x", "y"]);
        check(&[("b", bad())], None, &["LOST b: x y", ""]);
        check(&[("y", bad())], None, &["LOST y: y", "x"]);
        check(&[("z", bad())], None, &["LOST z: z", "x y"]);
        check(&[("timeline.json", bad())], None, &["LOST timeline.json: ", "x y"]);
        check(&[("c", withheld())], None, &["DELAYED c: y", "x"]);
        check(&[("c", withheld()), ("a", bad())], None, &["LOST a: x", "DELAYED c: y", ""]);
        // What nobody needs takes nothing away.
        let rest = [("o", Sight::Old), ("n", Sight::Young)];
        check(&rest, None, &["UPLOADING n: ", "ORPHAN o: ", "x y"]);
        // What fails for want of an object is told once.
        check(&[], Some(Word::Lost), &["LOST x: x", "y"]);
        check(&[], Some(Word::Delayed), &["DELAYED x: x", "y"]);
        check(&[("a", bad())], Some(Word::Lost), &["LOST a: x", "y"]);
        check(&[("c", bad())], Some(Word::Lost), &["LOST c: y", "LOST x: x", ""]);
    }
}
