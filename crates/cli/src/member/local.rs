//! What lies in a member's data directory, as far as it can be told while its etcd may run.

use crate::failure::{Code, Failure};
use crate::source::{Kind, Source};
use rekindle_datadir::{Disk, Place, RealDisk, fence_at};
use rekindle_etcd::raft::Metadata;
use rekindle_etcd::wal::{Chain, Record, SegmentName, SegmentReader};
use rekindle_etcd::{Backend, Changed, KeyCount, Member, Revision, kind_of};
use rekindle_recovery::recover::{Data, Voter};
use rekindle_recovery::replace::Local;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Where its log is.
pub(crate) fn log_directory(place: &Place) -> PathBuf {
    let own = place.wal.as_ref().map(|wal| wal.wal_dir.clone());
    own.unwrap_or_else(|| place.data_dir.join("member/wal"))
}

/// The same below what etcd has as `member`.
pub(crate) fn log_directory_in(member: &Path) -> PathBuf {
    member.join("wal")
}

/// Its etcd runs: it has its database locked.
pub(crate) fn runs(place: &Place) -> Result<bool, Failure> {
    let database = place.data_dir.join("member/snap/db");
    RealDisk.is_locked(&database).map_err(|error| Failure::io("locking", &database, &error))
}

/// What lies there.
pub(crate) fn look(place: &Place) -> Result<Local, Failure> {
    if fence_at(&RealDisk, place)?.is_some() {
        return Ok(Local::Fenced);
    }
    let member = place.data_dir.join("member");
    let is_there =
        member.try_exists().map_err(|error| Failure::io("looking at", &member, &error))?;
    if !is_there {
        return Ok(Local::Nothing);
    }
    Ok(match metadata(&log_directory(place)) {
        Some(found) => Local::Member(found.member.0),
        None => Local::Unreadable,
    })
}

/// Whose log it is: the beginning of each of its files says it.
pub(crate) fn metadata(directory: &Path) -> Option<Metadata> {
    let entries = std::fs::read_dir(directory).ok()?;
    let names = entries.flatten().filter_map(|it| SegmentName::parse(it.file_name().to_str()?));
    let first = names.min()?.to_string();
    let file = BufReader::new(File::open(directory.join(&first)).ok()?);
    let mut reader = SegmentReader::new(file, first, Chain::start());
    while let Ok(Some(record)) = reader.next_record() {
        if let Record::Metadata(metadata) = record {
            return Some(metadata);
        }
    }
    None
}

/// See [`Data`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SeenData {
    cluster: u64,
    voters: usize,
    last_term: u64,
    last_index: u64,
    applied: u64,
    pub beyond: u64,
    pub revision: i64,
    sound: bool,
    /// Those that voted, as its database has them.
    pub members: Vec<Voter>,
    /// What it has changed behind the revision that was asked for.
    pub newer: Option<Newer>,
}

/// Keys that were changed behind a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Newer {
    pub created: u64,
    pub deleted: u64,
    pub written: u64,
    /// Those that came or went, by Kubernetes' kinds.
    pub kinds: BTreeMap<String, u64>,
}

impl From<Changed> for Newer {
    fn from(changed: Changed) -> Self {
        let mut kinds = BTreeMap::new();
        for key in changed.created.iter().chain(&changed.deleted) {
            *kinds.entry(kind_of(key)).or_default() += 1;
        }
        kinds.remove("");
        Self {
            created: changed.created.len() as u64,
            deleted: changed.deleted.len() as u64,
            written: changed.written,
            kinds,
        }
    }
}

impl SeenData {
    pub(crate) fn facts(&self) -> Data {
        let Self {
            cluster, voters, last_term, last_index, applied, beyond, revision, sound, ..
        } = *self;
        Data { cluster, voters, last: (last_term, last_index), applied, beyond, revision, sound }
    }
}

/// What is in a stopped member's data directory, and what is wrong with it, if anything is; and what it has changed `since`.
pub(crate) fn facts(
    data: &Path,
    wal: Option<&Path>,
    since: Option<Revision>,
) -> Result<(SeenData, Option<String>), Failure> {
    let source = Source::open(data, wal)?.reading_ahead();
    let Kind::DataDir(log) = &source.kind else {
        return Err(Failure::new(Code::BadData, "it is no data directory"));
    };
    let Some(metadata) = log.state.metadata else {
        return Err(Failure::new(Code::BadData, "its log does not say whose it is"));
    };
    let backend = Backend::open(&source).map_err(Failure::from)?;
    let status = backend.status(KeyCount::Reckoned).map_err(Failure::from)?;
    let facts = backend.facts().map_err(Failure::from)?;
    let (term, index) = log.state.last_entry.unwrap_or_default();
    let fault = match (status.is_sound(), &log.damage) {
        (false, _) => Some("its database is damaged".to_owned()),
        (true, Some(damage)) => Some(format!("its log is damaged: {damage}")),
        (true, None) => None,
    };
    // One that has never written to its database has applied nothing.
    let applied = facts.consistent_index.unwrap_or_default();
    let revision = facts.revision();
    let newer = since.filter(|since| *since <= revision && fault.is_none());
    let newer = newer.map(|since| backend.changed_behind(since)).transpose();
    let newer = newer.map_err(Failure::from)?.map(Newer::from);
    let members = voters(&facts.members);
    let data = SeenData {
        cluster: metadata.cluster.0,
        // Too many rather than too few: of what is in the log alone it is not known what it does.
        voters: members.len() + log.state.changes_beyond(applied),
        last_term: term.0,
        last_index: index.0,
        applied: applied.0,
        beyond: log.state.committed_beyond(applied),
        revision: revision.get(),
        sound: fault.is_none(),
        members,
        newer,
    };
    Ok((data, fault))
}

/// Those of a database's members that vote.
pub(crate) fn voters(members: &[Member]) -> Vec<Voter> {
    let voters = members.iter().filter(|member| !member.is_learner);
    let voter =
        |member: &Member| Voter { name: member.name.clone(), peer_urls: member.peer_urls.clone() };
    voters.map(voter).collect()
}

/// Whether what is in it is good.
pub(crate) fn check(place: &Place) -> Result<(), Failure> {
    let wal = place.wal.as_ref().map(|wal| wal.wal_dir.as_path());
    match facts(&place.data_dir, wal, None)? {
        (_, Some(fault)) => Err(Failure::new(Code::BadData, fault)),
        (_, None) => Ok(()),
    }
}
