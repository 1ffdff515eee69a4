//! Records of a keyspace that do not lie in a database.

use crate::error::Error;
use rekindle_bolt::Pair;

/// Why records cannot be read on.
pub type RecordsFault = Box<dyn std::error::Error + Send + Sync>;

/// The records of a keyspace in their order, where they do not lie in a database.
pub trait Records {
    /// The next one, as a pair of the `key` bucket; none at the end.
    ///
    /// # Errors
    /// Whatever keeps them from being read. What was handed out until then is no keyspace.
    fn next_record(&mut self) -> Result<Option<Pair<'_>>, RecordsFault>;
}

/// Why a keyspace whose records lie elsewhere could not be gone through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsError {
    /// The database beside them, or what the records say.
    #[error(transparent)]
    Database(#[from] Error),
    /// The records cannot be read on.
    #[error("{0}")]
    Records(RecordsFault),
}
