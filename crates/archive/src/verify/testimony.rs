//! Comparing an archive with what members have said of their keyspaces: the archive, put together at the same
//! revision as if compacted at the same one, has to have the same HashKV.

use super::proof::{Counted, of_records};
use super::{VerifyProgress, sight_of};
use crate::archive::{Archive, BaseEntry};
use crate::error::Error;
use crate::format::Facts;
use crate::plan::verdict::{Finding, Verdict, Word};
use crate::read::{BaseRecords, read_base};
use crate::witness::{self, WitnessEntry};
use rekindle_etcd::{Backend, HashRequest, Revision, TombstonesAtCompaction, Version};
use std::collections::BTreeMap;

/// Compares with the newest witness of each restore point: of those that came before the next one. Whoever was
/// asked at the same revision is compared, too.
pub(super) fn compare(
    archive: &Archive,
    verdict: &mut Verdict,
    progress: VerifyProgress<'_>,
) -> Result<(), Error> {
    let witnesses = archive.witnesses()?;
    let points = verdict.points.iter().filter(|point| point.level.is_some());
    let good: Vec<_> = points.map(|point| point.entry.clone()).collect();
    for base in &good {
        let facts = &base.header.facts;
        let next = good.iter().map(|other| &other.header.facts);
        let next = next.filter(|it| it.timeline == facts.timeline && it.last > facts.last);
        let next = next.map(|it| it.last).min();
        let is_behind = |entry: &&WitnessEntry| {
            let it = &entry.facts;
            it.timeline == facts.timeline
                && it.last >= facts.last
                && next.is_none_or(|next| it.last < next)
        };
        let behind: Vec<_> = witnesses.iter().filter(is_behind).collect();
        let newest = behind.last().map(|entry| entry.facts.last);
        // What several members have said of the same is put together once.
        let mut known = BTreeMap::new();
        for entry in behind.into_iter().filter(|entry| Some(entry.facts.last) == newest) {
            match check(archive, base, entry, (&mut known, progress))? {
                Outcome::Agrees => verdict.witnesses += 1,
                Outcome::Unknown => {}
                Outcome::Contradicts { said, got } => {
                    verdict.findings.push(contradiction(entry, said, got));
                }
            }
        }
    }
    verdict.sort();
    Ok(())
}

/// HashKV of an archive at a revision as if compacted at another, by a rule; none where it does not have that.
type Known = BTreeMap<(Option<Revision>, bool), Option<u32>>;

fn contradiction(entry: &WitnessEntry, said: u32, got: u32) -> Finding {
    let (member, revision) = (entry.facts.member, entry.facts.last);
    let reason = format!(
        "member {member} has said HashKV {said} of revision {revision}, and the archive has {got}"
    );
    Finding {
        word: Word::Contradicts,
        object: entry.name.clone(),
        reason,
        revisions: Some((revision, revision)),
        takes: Vec::new(),
        is_gap: false,
    }
}

enum Outcome {
    Agrees,
    /// The archive does not have what it was of, or has it otherwise compacted, or erased; or the witness
    /// cannot be read, which is said elsewhere.
    Unknown,
    Contradicts {
        said: u32,
        got: u32,
    },
}

fn check(
    archive: &Archive,
    base: &BaseEntry,
    entry: &WitnessEntry,
    (known, progress): (&mut Known, VerifyProgress<'_>),
) -> Result<Outcome, Error> {
    let (facts, own) = (&entry.facts, &base.header.facts);
    if facts.compact < own.compact || own.erased {
        return Ok(Outcome::Unknown);
    }
    let said = match witness::read(archive, entry) {
        Ok(said) => said.hash,
        Err(error) => return sight_of(Err(error)).map(|_| Outcome::Unknown),
    };
    let rule =
        Version::parse(&facts.etcd).map_or_else(Default::default, TombstonesAtCompaction::of);
    let which = (facts.compact, rule == TombstonesAtCompaction::Skipped);
    let got = match known.get(&which) {
        Some(known) => *known,
        None => {
            let got = hash_at(archive, base, facts, (rule, progress));
            let got = got.or_else(|error| sight_of(Err(error)).map(|_| None))?;
            known.insert(which, got);
            got
        }
    };
    Ok(match got {
        Some(got) if got == said => Outcome::Agrees,
        Some(got) => Outcome::Contradicts { said, got },
        None => Outcome::Unknown,
    })
}

/// HashKV of what the archive has at the revision of a witness; none where it has not come so far.
fn hash_at(
    archive: &Archive,
    entry: &BaseEntry,
    witness: &Facts,
    (tombstones, progress): (TombstonesAtCompaction, VerifyProgress<'_>),
) -> Result<Option<u32>, Error> {
    let (base, to) = (read_base(archive, entry)?, witness.last);
    let (base, tail) = match to > entry.header.facts.last {
        false => (base, None),
        true => match archive.following(entry)?.up_to(base, to) {
            Err(Error::LogMissing { .. }) => return Ok(None),
            Ok((_, tail)) if tail.erased => return Ok(None),
            found => found.map(|(base, tail)| (base, Some(tail)))?,
        },
    };
    let records = BaseRecords::with_tail(archive, entry, &base, tail.as_ref())?;
    let backend = Backend::open(base.frame.as_slice())?;
    let (revision, compact_revision) = (Some(to), witness.compact);
    let request = HashRequest { revision, compact_revision, tombstones };
    let mut counted = Counted { records, progress };
    Ok(Some(backend.hash_kv_of(&mut counted, &request).map_err(of_records)?.hash))
}
