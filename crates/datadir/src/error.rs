//! What can go wrong with a data directory.

use rekindle_etcd::restore::RebuildError;
use std::io;
use std::path::{Path, PathBuf};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system has failed.
    #[error("{action} {}: {error}", path.display())]
    Io {
        /// What was tried, such as "creating".
        action: &'static str,
        /// With which path.
        path: PathBuf,
        /// What came back.
        error: io::Error,
    },
    /// The database could not be written anew.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// An etcd is running on the directory.
    #[error("{} is locked: an etcd is running on this data directory", database.display())]
    InUse {
        /// The database that is locked.
        database: PathBuf,
    },
    /// Another run is at work on the same directory or file.
    #[error("another run is at work on {}", path.display())]
    AtWork {
        /// What it is building, or has put in place.
        path: PathBuf,
    },
    /// A restore was interrupted while it exchanged the directories.
    #[error("an earlier restore was interrupted half-way; {} says how far it came", journal.display())]
    Unfinished {
        /// Its journal.
        journal: PathBuf,
    },
    /// Something is in the directory, and no member of a cluster.
    #[error("{} is no etcd data directory: there is no member in it, but {holds}", path.display())]
    NotADataDir {
        /// The directory.
        path: PathBuf,
        /// The first of what is there instead.
        holds: String,
    },
    /// A member's log is not below its data directory, and nobody says where it is.
    #[error("the member in {} has its log in a directory of its own", path.display())]
    LogElsewhere {
        /// The data directory, or one that was set aside.
        path: PathBuf,
    },
    /// There is nothing to resume or to roll back.
    #[error("{} has nothing to {verb}: {reason}", target.display())]
    NothingTo {
        /// "resume" or "roll back".
        verb: &'static str,
        /// The data directory.
        target: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// The journal of a restore cannot be read.
    #[error("{}: not a restore journal: {reason}", journal.display())]
    Journal {
        /// Its path.
        journal: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that this program did not make stands where it would build.
    #[error("{} is in the way: it is there already, and was not left by an unfinished restore", path.display())]
    InTheWay {
        /// What it is.
        path: PathBuf,
    },
    /// Something else than a directory stands where etcd's should.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// What it is.
        path: PathBuf,
    },
    /// A directory stands where a file should go.
    #[error("{} is a directory", path.display())]
    NotAFile {
        /// What it is.
        path: PathBuf,
    },
    /// Exchanging the directories failed, and so did undoing it.
    #[error("{error}; undoing what was done failed too: {undo}")]
    Stuck {
        /// What failed first.
        error: Box<Error>,
        /// What failed then.
        undo: Box<Error>,
    },
    /// No id of a fence.
    #[error("\"{id}\" is no id of a fence: letters, digits and - alone")]
    FenceId {
        /// What it is.
        id: String,
    },
    /// Another fence stands there.
    #[error("{} is fenced by {id}", path.display())]
    FencedBy {
        /// What is fenced.
        path: PathBuf,
        /// By which fence.
        id: String,
    },
    /// A fence does not stand there any more, or not yet.
    #[error("{} is not fenced by {id}", path.display())]
    NotFenced {
        /// What should be fenced.
        path: PathBuf,
        /// By which fence.
        id: String,
    },
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Says of an [`io::Error`] what was being done with which path.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|error| Error::Io { action, path: path.to_owned(), error })
    }
}
