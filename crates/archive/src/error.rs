//! What can go wrong with an archive.

use crate::format::FormatFault;
use crate::store::StoreFault;

/// Why an archive did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// An object is damaged, or none of ours.
    #[error("{object}: {fault}")]
    Damaged {
        /// Where it lies.
        object: String,
        /// What is wrong with it.
        fault: FormatFault,
    },
    /// A place that should be an archive holds no `archive.json`.
    #[error("{place} holds no archive")]
    NoArchive {
        /// The place.
        place: String,
    },
    /// A place that should become an archive is one.
    #[error("{place} holds an archive already")]
    IsArchive {
        /// The place.
        place: String,
    },
    /// A place that should become an archive holds something else.
    #[error("{place} is not empty")]
    NotEmpty {
        /// The place.
        place: String,
    },
    /// The archive was written by a later version of this program.
    #[error("{object}: format version {got}, and this rekindle knows those up to {newest}")]
    TooNew {
        /// Where it says so.
        object: String,
        /// What it says.
        got: u16,
        /// What this program knows.
        newest: u16,
    },
    /// The archive needs something that only a later version of this program has.
    #[error("{object} needs \"{what}\", which this rekindle does not know")]
    Requires {
        /// Where it says so.
        object: String,
        /// What it needs.
        what: String,
    },
    /// A JSON file that is not what it should be.
    #[error("{object}: {fault}")]
    Json {
        /// Where it lies.
        object: String,
        /// What is wrong with it.
        fault: String,
    },
    /// An object says that it belongs to something else.
    #[error("{object} belongs to {got}, not to {want}")]
    Stranger {
        /// Where it lies.
        object: String,
        /// What it says.
        got: String,
        /// What it should say.
        want: String,
    },
    /// The snapshot cannot be read as a keyspace.
    #[error(transparent)]
    Source(#[from] rekindle_etcd::Error),
    /// The frame of small buckets cannot be written.
    #[error("writing the small buckets: {0}")]
    Frame(#[from] rekindle_bolt::BulkError),
    /// A small bucket has grown out of all proportion.
    #[error("the buckets beside the records have more than {max} bytes, which no etcd writes")]
    FrameTooLarge {
        /// The most that is archived.
        max: usize,
    },
    /// A record that no block takes.
    #[error("record {record}: {fault}")]
    Record {
        /// Its revision.
        record: String,
        /// What is wrong with it.
        fault: FormatFault,
    },
    /// The machine gives no randomness, threads or the like.
    #[error("{what}: {cause}")]
    Machine {
        /// What was wanted.
        what: &'static str,
        /// What the machine said.
        cause: String,
    },
    /// A thread of ours has panicked.
    #[error("a thread has panicked: this is a fault of rekindle")]
    Panicked,
    /// Whoever asked has asked to stop.
    #[error("interrupted")]
    Stopped,
}

impl Error {
    pub(crate) fn damaged(object: &str, fault: FormatFault) -> Self {
        Self::Damaged { object: object.to_owned(), fault }
    }
}
