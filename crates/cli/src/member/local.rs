//! What lies in a member's data directory, as far as it can be told while its etcd may run.

use crate::failure::Failure;
use rekindle_datadir::{Disk, Place, RealDisk, fence_at};
use rekindle_etcd::raft::Metadata;
use rekindle_etcd::wal::{Chain, Record, SegmentName, SegmentReader};
use rekindle_recovery::replace::Local;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Where its log is.
pub(crate) fn log_directory(place: &Place) -> PathBuf {
    let own = place.wal.as_ref().map(|wal| wal.wal_dir.clone());
    own.unwrap_or_else(|| place.data_dir.join("member/wal"))
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
