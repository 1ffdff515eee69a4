//! How a failure is told: what, where, whether trying again helps, and what to do now.

use rekindle_archive as archive;
use rekindle_bolt as bolt;
use rekindle_datadir as datadir;
use rekindle_etcd as etcd;
use rekindle_etcd::restore::RebuildError;
use std::fmt;
use std::io;
use std::path::Path;

/// Exit codes; 0 is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// It could not be done.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Data are bad or damaged.
    BadData = 3,
    /// It was not done because it might do harm.
    Refused = 4,
    /// It may work at another time.
    Transient = 5,
    /// What was named is not there.
    NotFound = 6,
    /// The cluster serves, and something urgent is wrong with it.
    Degraded = 10,
    /// Nobody of the cluster serves.
    NoQuorum = 11,
    /// The user stopped it.
    Interrupted = 130,
}

/// Why a command ended without success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub code: Code,
    /// What failed, and where.
    pub what: String,
    /// What to do now.
    pub remedy: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), remedy: None }
    }

    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Code::Usage, what)
    }

    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self::new(Code::Refused, what)
    }

    pub(crate) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// Puts the file in front of what failed.
    pub(crate) fn at(self, path: &Path) -> Self {
        Self { what: format!("{}: {}", path.display(), self.what), ..self }
    }

    /// Adds a sentence to what failed.
    pub(crate) fn and(self, more: &str) -> Self {
        Self { what: format!("{}\n{more}", self.what), ..self }
    }

    /// A failure of the file system with one path.
    pub(crate) fn io(action: &str, path: &Path, error: &io::Error) -> Self {
        let what = format!("{action} {}: {error}", path.display());
        let failure = Self::new(io_code(error.kind()), what);
        match io_remedy(error.kind()) {
            Some(remedy) => failure.remedy(remedy),
            None => failure,
        }
    }
}

fn io_code(kind: io::ErrorKind) -> Code {
    match kind {
        io::ErrorKind::NotFound => Code::NotFound,
        io::ErrorKind::Interrupted | io::ErrorKind::TimedOut => Code::Transient,
        _ => Code::Failed,
    }
}

fn io_remedy(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::PermissionDenied => {
            Some("run as a user who may do that: data directories of etcd often belong to root")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("make room on that file system; what was half-written has been removed")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("choose a place on a file system that is not mounted read-only")
        }
        io::ErrorKind::NotFound => Some("check the path"),
        _ => None,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.what)?;
        if self.code == Code::Transient {
            writeln!(f, "trying again may help")?;
        }
        if let Some(remedy) = &self.remedy {
            writeln!(f, "what to do: {remedy}")?;
        }
        Ok(())
    }
}

impl From<bolt::Error> for Failure {
    fn from(error: bolt::Error) -> Self {
        let what = error.to_string();
        match error {
            bolt::Error::Read { kind, .. } => Self::new(io_code(kind), what),
            bolt::Error::Empty | bolt::Error::NotBolt { .. } => Self::new(Code::BadData, what)
                .remedy("name a snapshot file, a db file or an etcd data directory"),
            _ => Self::new(Code::BadData, what).remedy(
                "take another backup; `rekindle status` lists everything that is wrong with this one",
            ),
        }
    }
}

impl From<etcd::Error> for Failure {
    fn from(error: etcd::Error) -> Self {
        let what = error.to_string();
        match error {
            etcd::Error::Bolt(error) => error.into(),
            etcd::Error::Compacted { .. }
            | etcd::Error::FutureRevision { .. }
            | etcd::Error::CompactRevision { .. } => Self::new(Code::NotFound, what),
            _ => Self::new(Code::BadData, what),
        }
    }
}

impl From<etcd::RecordsError> for Failure {
    fn from(error: etcd::RecordsError) -> Self {
        let what = error.to_string();
        match error {
            etcd::RecordsError::Database(error) => error.into(),
            etcd::RecordsError::Records(fault) => of_records(fault),
            _ => Self::new(Code::Failed, what),
        }
    }
}

/// What is told of records that come from an archive.
fn of_records(fault: etcd::RecordsFault) -> Failure {
    match fault.downcast::<archive::Error>() {
        Ok(error) => (*error).into(),
        Err(fault) => Failure::new(Code::Failed, fault.to_string()),
    }
}

impl From<datadir::Error> for Failure {
    fn from(error: datadir::Error) -> Self {
        let what = error.to_string();
        match error {
            datadir::Error::Io { action, path, error } => Self::io(action, &path, &error),
            datadir::Error::Rebuild(RebuildError::Source(error)) => error.into(),
            datadir::Error::Rebuild(RebuildError::Records(fault)) => of_records(fault),
            datadir::Error::Rebuild(RebuildError::KubernetesAfterAll) => Self::refused(what)
                .remedy("pass --bump-revision 1000000000 --mark-compacted, or --bump-revision 0"),
            datadir::Error::InUse { .. } => Self::refused(what).remedy(
                "stop etcd first: move its static pod manifest away, or systemctl stop etcd",
            ),
            datadir::Error::AtWork { .. } => {
                Self::new(Code::Transient, what).remedy("wait until it has ended")
            }
            datadir::Error::Unfinished { .. } => Self::refused(what)
                .remedy("finish it with restore --resume, or take it back with restore --rollback"),
            datadir::Error::NothingTo { .. } => Self::new(Code::NotFound, what),
            datadir::Error::Journal { .. } => Self::new(Code::BadData, what),
            datadir::Error::InTheWay { .. } => {
                Self::refused(what).remedy("look what it is, and move it away")
            }
            datadir::Error::NotADirectory { .. } => Self::refused(what)
                .remedy("name the directory of etcd's --data-dir, or one that is not there yet"),
            datadir::Error::NotADataDir { .. } => Self::refused(what).remedy(
                "everything in it would be moved away: name the directory of etcd's --data-dir, an \
                 empty one, or one that is not there yet",
            ),
            datadir::Error::LogElsewhere { .. } => Self::refused(what).remedy(
                "the two must come and go together: give that directory as --wal-dir, as etcd has it; \
                 where the log is lost, move what is left of the member away first",
            ),
            datadir::Error::NotAFile { .. } => Self::usage(what)
                .remedy("name a file in it, for example with a date: …/etcd-%Y%m%dT%H%M%SZ.db"),
            datadir::Error::Stuck { .. } => Self::new(Code::Failed, what).remedy(
                "mend what the file system reports, then restore --resume or --rollback: \
                 the old data directory is whole, and etcd cannot start meanwhile",
            ),
            datadir::Error::Interrupted => {
                Self::new(Code::Interrupted, "interrupted; nothing was changed")
            }
            _ => Self::new(Code::Failed, what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_and_what_to_do() {
        let failure = Failure::new(Code::Transient, "no answer").remedy("wait");
        let want = "error: no answer\ntrying again may help\nwhat to do: wait\n";
        assert_eq!(failure.to_string(), want);
        assert_eq!(Failure::usage("bad flag").to_string(), "error: bad flag\n");
    }

    #[test]
    fn codes_by_kind() {
        let code = |kind| Failure::io("reading", Path::new("f"), &io::Error::from(kind)).code;
        assert_eq!(code(io::ErrorKind::NotFound), Code::NotFound);
        assert_eq!(code(io::ErrorKind::PermissionDenied), Code::Failed);
        assert_eq!(Failure::from(bolt::Error::Empty).code, Code::BadData);
        assert_eq!(Failure::from(etcd::Error::NotEtcd).code, Code::BadData);
        assert_eq!(Failure::from(datadir::Error::Interrupted).code, Code::Interrupted);
    }
}
