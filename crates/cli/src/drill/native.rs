//! What is seen of a restored data directory where there is no etcd to start on it: by our own checker, by its HashKV, and
//! by what a member has said of its own.

use crate::failure::{Code, Failure};
use crate::source::{Kind, Source};
use crate::status;
use rekindle_archive::{Archive, WitnessEntry};
use rekindle_etcd::{HashKv, HashRequest, TombstonesAtCompaction, Version};
use std::path::Path;

/// What was seen.
pub(super) struct Seen {
    pub hash: HashKv,
    /// The member that has said the same; none where no witness is of what was restored.
    pub witness: Option<WitnessEntry>,
}

/// Looks at what was restored from a source, without an etcd.
pub(super) fn look(source: &Source, data_dir: &Path) -> Result<Seen, Failure> {
    let restored = Source::open(data_dir, None)?.reading_ahead();
    status::check_sound(&restored)?;
    check_log(&restored)?;
    let hash = restored.hash_kv(&HashRequest::default())?;
    let witness = match &source.kind {
        // Whoever was asked had what was erased since.
        Kind::Base(base)
            if base.base.erased == 0 && !base.tail.as_ref().is_some_and(|it| it.erased) =>
        {
            let timeline = base.entry.header.facts.timeline;
            let mut witnesses = base.archive.witnesses()?;
            witnesses.retain(|entry| {
                let facts = &entry.facts;
                facts.timeline == timeline
                    && facts.last <= hash.revision
                    && facts.compact >= hash.compact_revision
            });
            let newest = witnesses.pop();
            newest.map(|entry| hear(&restored, &base.archive, entry)).transpose()?.flatten()
        }
        _ => None,
    };
    Ok(Seen { hash, witness })
}

/// An etcd that is started reads its log first.
fn check_log(restored: &Source) -> Result<(), Failure> {
    let Kind::DataDir(log) = &restored.kind else { return Ok(()) };
    let what = match &log.damage {
        Some(damage) => format!("the raft log that was restored is damaged: {damage}"),
        None if log.segments == 0 => "no raft log was restored".to_owned(),
        None => return Ok(()),
    };
    Err(Failure::new(Code::BadData, what).at(&restored.path))
}

/// Compares what was restored with what a member has said of the same revision; none where that cannot be read, which
/// a verification tells.
fn hear(
    restored: &Source,
    archive: &Archive,
    entry: WitnessEntry,
) -> Result<Option<WitnessEntry>, Failure> {
    let Ok(said) = archive.testimony(&entry) else { return Ok(None) };
    let facts = &entry.facts;
    let rule = Version::parse(&facts.etcd);
    let request = HashRequest {
        revision: Some(facts.last),
        compact_revision: facts.compact,
        tombstones: rule.map_or_else(Default::default, TombstonesAtCompaction::of),
    };
    let got = restored.hash_kv(&request)?.hash;
    if got == said.hash {
        return Ok(Some(entry));
    }
    let (member, said, revision) = (facts.member, said.hash, facts.last);
    let what = format!(
        "member {member} has said HashKV {said} of revision {revision}, and what was restored has {got}"
    );
    Err(Failure::new(Code::BadData, what)
        .remedy("rekindle archive verify --level proven says what is wrong; keep other backups"))
}
