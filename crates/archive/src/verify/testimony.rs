//! Comparing an archive with what members have said of their keyspaces: the archive, put together at the same
//! revision as if compacted at the same one, has to have the same HashKV.

use super::proof::{Counted, of_records};
use super::{VerifyProgress, sight_of};
use crate::archive::{Archive, BaseEntry};
use crate::error::Error;
use crate::plan::verdict::{Finding, Verdict, Word};
use crate::read::{BaseRecords, read_base};
use crate::witness::{self, WitnessEntry};
use rekindle_etcd::{Backend, HashRequest, TombstonesAtCompaction, Version};

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
        for entry in behind.into_iter().filter(|entry| Some(entry.facts.last) == newest) {
            match check(archive, base, entry, progress)? {
                Outcome::Agrees => verdict.witnesses += 1,
                Outcome::Unknown => {}
                Outcome::Contradicts { said, got } => {
                    verdict.findings.push(contradiction(entry, said, got));
                }
            }
        }
    }
    Ok(())
}

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
    progress: VerifyProgress<'_>,
) -> Result<Outcome, Error> {
    let (facts, own) = (&entry.facts, &base.header.facts);
    if facts.compact < own.compact || own.erased {
        return Ok(Outcome::Unknown);
    }
    let said = match witness::read(archive, entry) {
        Ok(said) => said.hash,
        Err(error) => return sight_of(Err(error)).map(|_| Outcome::Unknown),
    };
    match hash_at(archive, base, entry, progress) {
        Ok(Some(got)) if got == said => Ok(Outcome::Agrees),
        Ok(Some(got)) => Ok(Outcome::Contradicts { said, got }),
        Ok(None) => Ok(Outcome::Unknown),
        Err(error) => sight_of(Err(error)).map(|_| Outcome::Unknown),
    }
}

/// HashKV of what the archive has at the revision of a witness; none where it has not come so far.
fn hash_at(
    archive: &Archive,
    entry: &BaseEntry,
    witness: &WitnessEntry,
    progress: VerifyProgress<'_>,
) -> Result<Option<u32>, Error> {
    let (base, to) = (read_base(archive, entry)?, witness.facts.last);
    let (base, tail) = match to > entry.header.facts.last {
        false => (base, None),
        true => match archive.following(entry)?.up_to(base, to) {
            Err(Error::LogMissing { .. }) => return Ok(None),
            found => found.map(|(base, tail)| (base, Some(tail)))?,
        },
    };
    let records = BaseRecords::with_tail(archive, entry, &base, tail.as_ref())?;
    let backend = Backend::open(base.frame.as_slice())?;
    let request = HashRequest {
        revision: Some(to),
        compact_revision: witness.facts.compact,
        tombstones: Version::parse(&witness.facts.etcd)
            .map_or_else(Default::default, TombstonesAtCompaction::of),
    };
    let mut counted = Counted { records, progress };
    Ok(Some(backend.hash_kv_of(&mut counted, &request).map_err(of_records)?.hash))
}
