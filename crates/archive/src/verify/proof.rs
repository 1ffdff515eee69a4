//! Proving a base: its keyspace, put together from the archive, has the HashKV of the snapshot.

use super::{VerifyProgress, sight_of};
use crate::archive::{Archive, BaseEntry};
use crate::error::Error;
use crate::format::base::Base;
use crate::plan::verdict::{Sight, Trouble, Word};
use crate::read::{BaseRecords, read_base};
use rekindle_bolt::Pair;
use rekindle_etcd::{Backend, HashRequest, Records, RecordsError, RecordsFault};

/// Goes through all records of a base; tells why they are not what the snapshot had.
pub(super) fn prove(
    archive: &Archive,
    entry: &BaseEntry,
    progress: VerifyProgress<'_>,
) -> Result<Option<Trouble>, Error> {
    let hashes = read_base(archive, entry)
        .and_then(|base| Ok((hash_of(archive, entry, &base, progress)?, base.hash)));
    let (word, reason) = match hashes {
        Ok((got, want)) if got == want => return Ok(None),
        Ok((got, want)) => {
            (Word::Lost, format!("its records give HashKV {got}, and the snapshot had {want}"))
        }
        Err(error) => {
            let told = error.to_string();
            match sight_of(Err(error))? {
                Sight::Withheld(_) => (Word::Delayed, told),
                _ => (Word::Lost, told),
            }
        }
    };
    Ok(Some(Trouble { word, reason, revisions: None }))
}

/// HashKV of the records of a base.
///
/// # Errors
/// Any of them cannot be read, or is not what the base says.
pub(crate) fn hash_of(
    archive: &Archive,
    entry: &BaseEntry,
    base: &Base,
    progress: VerifyProgress<'_>,
) -> Result<u32, Error> {
    let mut counted = Counted { records: BaseRecords::new(archive, entry, base)?, progress };
    let backend = Backend::open(base.frame.as_slice())?;
    let hash = backend.hash_kv_of(&mut counted, &HashRequest::default());
    Ok(hash.map_err(of_records)?.hash)
}

/// What has ended the reading of records.
pub(crate) fn of_records(error: RecordsError) -> Error {
    match error {
        RecordsError::Database(error) => error.into(),
        RecordsError::Records(fault) => match fault.downcast::<Error>() {
            Ok(error) => *error,
            Err(_) => Error::Panicked,
        },
        _ => Error::Panicked,
    }
}

/// Counts records on their way.
pub(super) struct Counted<'a> {
    pub records: BaseRecords,
    pub progress: VerifyProgress<'a>,
}

impl Records for Counted<'_> {
    fn next_record(&mut self) -> Result<Option<Pair<'_>>, RecordsFault> {
        let pair = self.records.next_record()?;
        if let Some(pair) = &pair {
            self.progress.add(pair.key.len() + pair.value.len());
            self.progress.go_on()?;
        }
        Ok(pair)
    }
}
