//! What can go wrong with an archive.

use crate::format::FormatFault;
use crate::store::StoreFault;
use crate::write::Contradiction;
use rekindle_etcd::Revision;

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
    /// A range of the log that a base needs is not there.
    #[error("{base} needs revision {missing} of the log, which no segment has")]
    LogMissing {
        /// The base.
        base: String,
        /// The first revision that is missing.
        missing: Revision,
    },
    /// The records of a part are not those that a base means.
    #[error(
        "{base}: the archive's records from revision {first} to {last} are not those it was made of"
    )]
    Log {
        /// The base.
        base: String,
        /// The first revision.
        first: Revision,
        /// The last one.
        last: Revision,
    },
    /// The snapshot contradicts the cluster's last base.
    #[error("the snapshot contradicts the last base: {0}")]
    Contradiction(Contradiction),
    /// The snapshot is older than what the archive has, and nothing says that the cluster went back.
    #[error(
        "the snapshot is older than the newest base, and no linearizable read shows whether the \
         cluster went back or this member lags behind"
    )]
    Lagging,
    /// The base took so long that what it shares with older ones may have been pruned.
    #[error("the base took more than 12 hours")]
    TooLate,
    /// What the base shares with an older one was pruned meanwhile.
    #[error("{object} was pruned meanwhile, and the base with it")]
    Vanished {
        /// What is gone.
        object: String,
    },
    /// A file of the spool cannot be read or written.
    #[error("{path}: {cause}")]
    Spool {
        /// The file.
        path: String,
        /// What the system says.
        cause: String,
    },
    /// Whoever asked has asked to stop.
    #[error("interrupted")]
    Stopped,
}

impl Error {
    /// The object that it is about, with its place, if it is about one.
    pub(crate) fn object(&self) -> Option<&str> {
        match self {
            Self::Store(StoreFault { object, .. })
            | Self::Damaged { object, .. }
            | Self::TooNew { object, .. }
            | Self::Requires { object, .. }
            | Self::Json { object, .. }
            | Self::Stranger { object, .. } => Some(object),
            _ => None,
        }
    }

    pub(crate) fn damaged(object: &str, fault: FormatFault) -> Self {
        Self::Damaged { object: object.to_owned(), fault }
    }
}
