//! What a base brings back, and what must be left of that.

use super::ForgetRequest;
use crate::archive::{Archive, BaseEntry};
use crate::error::Error;
use crate::format::FormatFault;
use crate::format::base::Base;
use crate::read::BaseRecords;
use crate::verify::proof::of_records;
use rekindle_bolt::Pair;
use rekindle_etcd::{
    Backend, HashKvHasher, HashRequest, KeyValue, RecordKey, Records, RecordsError,
};

/// The keyspace of a base before records are erased from it, and afterwards.
pub(super) struct Expected {
    /// HashKV of it as it is.
    pub now: u32,
    /// HashKV of what is left.
    pub then: u32,
    /// Records that are erased.
    pub records: u64,
}

/// Reads all records of a base once. Knows nothing of where they lie: what is written of them later is
/// held against this.
///
/// # Errors
/// Any of them cannot be read, or is not what the base says.
pub(super) fn expected(
    archive: &Archive,
    entry: &BaseEntry,
    base: &Base,
    request: &ForgetRequest<'_>,
) -> Result<Expected, Error> {
    let facts = Backend::open(base.frame.as_slice())?.facts()?;
    let hasher = || HashKvHasher::new(&HashRequest::default(), &facts);
    let (mut now, mut then, mut erased) = (hasher()?, hasher()?, 0);
    let mut records = BaseRecords::new(archive, entry, base)?;
    while let Some(pair) =
        records.next_record().map_err(|fault| of_records(RecordsError::Records(fault)))?
    {
        request.progress.add(pair.key.len() + pair.value.len());
        request.progress.go_on()?;
        _ = now.add(pair)?;
        let senseless = || {
            let name = archive.store().full_name(&entry.name);
            Error::damaged(&name, FormatFault::Senseless { what: "a record" })
        };
        let key = RecordKey::parse(pair.key).map_err(|_| senseless())?;
        let kv = KeyValue::parse(pair.value).map_err(|_| senseless())?;
        let takes = request.what.takes(kv.key, key.revision);
        erased += u64::from(takes);
        if !takes {
            _ = then.add(pair)?;
        } else if facts.last_record == Some(key) {
            // The revision is that of the last record: it stays, with nothing in it.
            _ = then.add(Pair { value: &[], ..pair })?;
        }
    }
    Ok(Expected { now: now.finish().hash, then: then.finish().hash, records: erased })
}
