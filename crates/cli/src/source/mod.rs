//! What a command is pointed at: a snapshot, a bare database, a stopped member's data directory, a
//! base of an archive.

use crate::archive::{Point, ReadKeys, now, parse_source, shown, unlock, with_what_remains};
use crate::args::{PointArgs, StoreArgs};
use crate::failure::{Code, Failure};
use crate::fetch::fetch;
use rekindle_archive::{BaseEntry, BaseRecords, Place};
use rekindle_bolt::{Piece, ReadAt};
use rekindle_datadir::FileSource;
use rekindle_etcd::digest::{self, DIGEST_BYTES, DigestFault, Sha256Digest, SnapshotDigest};
use rekindle_etcd::wal::{Chain, SegmentName, SegmentReader, WalDamage};
use rekindle_etcd::{Backend, Crc32c, HashKv, HashRequest, LogState};
use std::fs::{File, TryLockError};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

mod base;

pub(crate) use base::{ArchivedBase, CHANGED_BYTES_MAX, Users};

/// Bytes that are read at once for a digest.
const DIGEST_READ: usize = 256 << 10;
/// How many such reads are begun before they are needed.
const DIGEST_AHEAD: u64 = 2;

/// An opened source. Reads of it are reads of the database file.
#[derive(Debug)]
pub(crate) struct Source {
    /// As it was named.
    pub path: PathBuf,
    pub kind: Kind,
    bytes: Bytes,
}

/// Where a source's database is.
#[derive(Debug)]
enum Bytes {
    File(FileSource),
    /// The frame of a base.
    Memory(Vec<u8>),
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// A snapshot with this digest at its end, not yet compared.
    Snapshot(Sha256Digest),
    /// A database alone: copied out of a data directory, or a snapshot whose end is missing.
    Database,
    /// A stopped member's directory. The lock keeps etcd from starting while it is read.
    DataDir(Box<Log>),
    /// A base of an archive.
    Base(Box<ArchivedBase>),
}

/// A member's raft log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub state: LogState,
    /// Segments that were read; none where the log lies elsewhere.
    pub segments: usize,
    /// What ended the reading, if not the end.
    pub damage: Option<WalDamage>,
}

/// How a source is reached, where it is not a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    pub store: &'a StoreArgs,
    /// Where a snapshot of a store is kept while it is read.
    pub spool: Option<&'a Path>,
    /// What opens an archive.
    pub keys: &'a ReadKeys,
    /// Which point of it is meant, if that is not said with its name.
    pub point: Option<&'a PointArgs>,
    /// Whose users are meant.
    pub users: Users,
}

impl Source {
    /// Opens what `path` names, which may be an archive, with a point behind an `@`, or a URL.
    pub(crate) fn open_any(
        path: &Path,
        wal_dir: Option<&Path>,
        access: &Access<'_>,
    ) -> Result<Self, Failure> {
        let Some(text) = path.to_str() else { return Self::open(path, wal_dir) };
        let no_log = || match wal_dir {
            Some(_) => {
                Err(Failure::usage("a WAL directory goes with a data directory, not with a store"))
            }
            None => Ok(()),
        };
        if let Some((archive, point)) = parse_source(text, access.store)? {
            no_log()?;
            let named = text.ends_with("@latest") || point != Point::Latest;
            let point = match access.point.map(|args| Point::of(args, now())).transpose()?.flatten()
            {
                Some(_) if named => {
                    let what = format!("{text} names a point, and so does a flag");
                    return Err(Failure::usage(what).remedy("leave one of them out"));
                }
                flag => flag.unwrap_or(point),
            };
            let archive = unlock(archive, access.keys)?;
            return Ok(Self::of_base(path, ArchivedBase::open(archive, &point, access.users)?));
        }
        let place = Place::parse(text)?;
        if let Place::Directory(path) = &place {
            // A name that was mistyped is nothing else, whatever goes with it.
            std::fs::metadata(path).map_err(|error| Failure::io("opening", path, &error))?;
        }
        if let Some(args) = access.point
            && Point::of(args, now())?.is_some()
        {
            let what = format!("{} is no archive, and holds one point only", path.display());
            return Err(Failure::usage(what)
                .remedy("leave --to-revision, --to-time, --latest and --timeline out"));
        }
        if let Users::Accepted(Some(_)) = access.users {
            let what = format!("{} is no archive, and has users of one time only", path.display());
            return Err(Failure::usage(what).remedy("leave --accept-auth-from out"));
        }
        if !access.keys.identities.is_empty() || access.keys.fingerprint.is_some() {
            let what = format!("{} is no archive, and needs no keys", path.display());
            return Err(Failure::usage(what).remedy("leave --identity and --fingerprint away"));
        }
        match place {
            place @ Place::Bucket { .. } => {
                no_log()?;
                Self::of_file(path, fetch(&place, access)?)
            }
            Place::Directory(path) => Self::open(&path, wal_dir),
        }
    }

    /// A snapshot that a file holds, or a database without a digest.
    fn of_file(path: &Path, file: FileSource) -> Result<Self, Failure> {
        let digest = stored_digest(&file).map_err(|error| Failure::io("reading", path, &error))?;
        let kind = digest.map_or(Kind::Database, Kind::Snapshot);
        Ok(Self { path: path.to_owned(), kind, bytes: Bytes::File(file) })
    }

    fn of_base(path: &Path, base: ArchivedBase) -> Self {
        let bytes = Bytes::Memory(base.base.frame.clone());
        Self { path: path.to_owned(), kind: Kind::Base(Box::new(base)), bytes }
    }

    /// Whether it is a base that is not in its archive any more, or of the log behind it something is not.
    pub(crate) fn is_withdrawn(&self) -> bool {
        let Kind::Base(base) = &self.kind else { return false };
        let is_it = |other: &BaseEntry| other.name == base.entry.name;
        let is_gone = base.archive.list().is_ok_and(|it| !it.bases.iter().any(is_it));
        let lacks = |tail| base.archive.has_tail(tail).is_ok_and(|has| !has);
        is_gone || base.tail.as_ref().is_some_and(lacks)
    }

    /// Its HashKV, as etcd would answer it.
    pub(crate) fn hash_kv(&self, request: &HashRequest) -> Result<HashKv, Failure> {
        let backend = self.backend()?;
        let hash = match self.records()? {
            Some(mut records) => backend.hash_kv_of(&mut records, request).map_err(Failure::from),
            None => backend.hash_kv(request).map_err(Failure::from),
        };
        hash.map_err(|failure| failure.at(&self.path))
    }

    /// What came of reading it, with what remains where it is a base and damaged.
    pub(crate) fn with_what_remains(&self, failure: Failure) -> Failure {
        match &self.kind {
            Kind::Base(base) => with_what_remains(failure, &base.archive, &base.entry),
            _ => failure,
        }
    }

    /// Opens what `path` names: a file or a data directory.
    pub(crate) fn open(path: &Path, wal_dir: Option<&Path>) -> Result<Self, Failure> {
        let found =
            std::fs::metadata(path).map_err(|error| Failure::io("opening", path, &error))?;
        if found.is_dir() {
            return Self::open_directory(path, wal_dir);
        }
        let source = Self::of_file(path, open_file(path)?)?;
        if let (Kind::Database, Bytes::File(file)) = (&source.kind, &source.bytes) {
            refuse_locked(file.file(), path)?;
        }
        Ok(source)
    }

    fn open_directory(path: &Path, wal_dir: Option<&Path>) -> Result<Self, Failure> {
        // A data directory, or the `member` directory in it.
        let below = ["member/snap/db", "snap/db"].map(|below| path.join(below));
        let mut database = None;
        for below in &below {
            if database.is_none() && is_there(below)? {
                database = Some(below);
            }
        }
        let Some(database) = database else {
            let what = format!("{} is a directory without member/snap/db", path.display());
            return Err(Failure::new(Code::NotFound, what)
                .remedy("name a snapshot file, a db file, an etcd data directory or an archive"));
        };
        let file = open_file(database)?;
        lock_shared(file.file(), path)?;
        let beside = database.parent().and_then(Path::parent).map(|member| member.join("wal"));
        let log = match (wal_dir, beside) {
            (Some(directory), _) => named_log(directory)?,
            (None, Some(beside)) if is_there(&beside)? => read_log(&beside)?,
            _ => Log::default(),
        };
        let (kind, bytes) = (Kind::DataDir(Box::new(log)), Bytes::File(file));
        Ok(Self { path: path.to_owned(), kind, bytes })
    }

    /// The same, read with a second thread: for a command that does nothing beside.
    pub(crate) fn reading_ahead(self) -> Self {
        let bytes = match self.bytes {
            Bytes::File(file) => Bytes::File(file.reading_ahead()),
            memory => memory,
        };
        Self { bytes, ..self }
    }

    /// The source as etcd's.
    pub(crate) fn backend(&self) -> Result<Backend<&Self>, Failure> {
        Backend::open(self).map_err(|error| Failure::from(error).at(&self.path))
    }

    /// The records, where they are not in the database.
    pub(crate) fn records(&self) -> Result<Option<BaseRecords>, Failure> {
        let Kind::Base(base) = &self.kind else { return Ok(None) };
        let ArchivedBase { archive, entry, base, tail, .. } = &**base;
        Ok(Some(BaseRecords::with_tail(archive, entry, base, tail.as_ref())?))
    }

    /// What shows that a file's end is missing: it is no whole number of pages, nor that and a digest.
    pub(crate) fn cut(&self, page_size: usize) -> Option<String> {
        if matches!(self.kind, Kind::DataDir(_) | Kind::Base(_)) {
            return None;
        }
        let size = self.size();
        let beyond = size % page_size as u64;
        (beyond != 0 && beyond != DIGEST_BYTES as u64).then(|| {
            format!(
                "the file was cut: its {size} bytes are no whole number of pages of {page_size} \
                 bytes, nor that and a SHA-256"
            )
        })
    }

    /// What it is, in words.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Snapshot(_) => "snapshot".to_owned(),
            Kind::Database => "db file without a SHA-256 at its end".to_owned(),
            Kind::DataDir(_) => "data directory of a stopped member".to_owned(),
            Kind::Base(base) => {
                let facts = &base.entry.header.facts;
                let name = base.entry.name.rsplit('/').next().unwrap_or_default();
                let (cluster, time) = (facts.cluster, shown(facts.state));
                if let Some(own) = base.own_revision {
                    let (last, about) = (facts.last, if base.reckoned { "about " } else { "" });
                    return format!(
                        "base of an archive\n  {name}\n  of cluster {cluster}, which has revision {own} and \
                         those before,\n  taken up to revision {last} of {about}{time}"
                    );
                }
                let Some(tail) = &base.tail else {
                    return format!(
                        "base of an archive\n  {name}\n  of cluster {cluster}, as of {time}"
                    );
                };
                let (last, about) = (facts.last, if tail.reckoned { "about " } else { "" });
                format!(
                    "base of an archive and its log\n  {name}\n  of cluster {cluster}, revision {last} of \
                     {time},\n  and the log from there to revision {} of {about}{}",
                    tail.to,
                    shown(tail.at)
                )
            }
        }
    }

    /// Compares the digest of a snapshot with its bytes, until `stop` is set.
    pub(crate) fn verify_digest(&self, stop: &AtomicBool) -> Result<Sha256Digest, Failure> {
        let mut digest = SnapshotDigest::new();
        self.read_all(stop, |bytes| digest.update(bytes))?;
        digest.finish().map_err(|fault| digest_failure(&fault).at(&self.path))
    }

    /// Compares the CRC-32C of the whole file with what it was when the file was written.
    pub(crate) fn verify_crc(&self, want: u32, stop: &AtomicBool) -> Result<(), Failure> {
        let mut crc = Crc32c::new();
        self.read_all(stop, |bytes| crc.update(bytes))?;
        match crc.value() == want {
            true => Ok(()),
            false => {
                let what = format!("{} gives other bytes than were written", self.path.display());
                Err(Failure::new(Code::BadData, what)
                    .remedy("its disk or this machine's memory is failing: name another --spool"))
            }
        }
    }

    /// Reads the whole file, from front to back.
    fn read_all(&self, stop: &AtomicBool, mut each: impl FnMut(&[u8])) -> Result<(), Failure> {
        let Bytes::File(file) = &self.bytes else {
            return Err(Failure::usage("a base of an archive has no SHA-256 of a snapshot"));
        };
        // The digest is the slowest part of a restore: it does not wait for its bytes.
        let file = file.shared().reading_ahead();
        let _ = rustix::fs::fadvise(file.file(), 0, None, rustix::fs::Advice::Sequential);
        let mut buffer = Vec::new();
        let piece = |number: u64| {
            let offset = number.saturating_mul(DIGEST_READ as u64);
            let left = usize::try_from(file.size().saturating_sub(offset)).unwrap_or(usize::MAX);
            [Piece { offset, len: left.min(DIGEST_READ) }]
        };
        for number in 0..file.size().div_ceil(DIGEST_READ as u64) {
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::new(Code::Interrupted, "interrupted; nothing was changed"));
            }
            file.will_read(&piece(number + DIGEST_AHEAD));
            file.read_pieces(&mut buffer, &piece(number))
                .map_err(|error| Failure::io("reading", &self.path, &error))?;
            each(&buffer);
        }
        Ok(())
    }
}

fn digest_failure(fault: &DigestFault) -> Failure {
    Failure::new(Code::BadData, fault.to_string())
        .remedy("the file was changed or damaged after it was saved: use another copy")
}

impl ReadAt for Source {
    fn size(&self) -> u64 {
        match &self.bytes {
            Bytes::File(file) => file.size(),
            Bytes::Memory(bytes) => bytes.size(),
        }
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.bytes {
            Bytes::File(file) => file.read_exact_at(buf, offset),
            Bytes::Memory(bytes) => bytes.read_exact_at(buf, offset),
        }
    }

    fn read_pieces(&self, buf: &mut Vec<u8>, pieces: &[Piece]) -> io::Result<()> {
        match &self.bytes {
            Bytes::File(file) => file.read_pieces(buf, pieces),
            Bytes::Memory(bytes) => bytes.read_pieces(buf, pieces),
        }
    }

    fn will_read(&self, pieces: &[Piece]) {
        if let Bytes::File(file) = &self.bytes {
            file.will_read(pieces);
        }
    }
}

/// Whether something is there; who may not look does not know it.
fn is_there(path: &Path) -> Result<bool, Failure> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(false)
        }
        Err(error) => Err(Failure::io("opening", path, &error)),
    }
}

fn open_file(path: &Path) -> Result<FileSource, Failure> {
    FileSource::open(path).map_err(|error| Failure::io("opening", path, &error))
}

fn stored_digest(file: &FileSource) -> io::Result<Option<Sha256Digest>> {
    if !digest::has_digest(file.size()) {
        return Ok(None);
    }
    let mut bytes = [0; DIGEST_BYTES];
    file.read_exact_at(&mut bytes, file.size() - DIGEST_BYTES as u64)?;
    Ok(Some(Sha256Digest(bytes)))
}

/// The log in the directory that a user has named for it.
fn named_log(directory: &Path) -> Result<Log, Failure> {
    let log = read_log(directory)?;
    if log.segments == 0 {
        let what = format!("{} holds no segments of a raft log", directory.display());
        return Err(Failure::new(Code::NotFound, what)
            .remedy("name the directory that etcd has as --wal-dir"));
    }
    Ok(log)
}

/// Refuses a bare database on which an etcd is running. It stays unlocked: a restore may be about
/// to set aside the very directory that it lies in. Not every file system has locks.
fn refuse_locked(file: &File, path: &Path) -> Result<(), Failure> {
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map_err(|error| Failure::io("unlocking", path, &error)),
        Err(TryLockError::WouldBlock) => {
            let what = format!(
                "{} is locked by a process that is using it: it changes while it is read",
                path.display()
            );
            Err(Failure::refused(what)
                .remedy("take a snapshot of the running member with rekindle save, or stop it"))
        }
        Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// Keeps an etcd from starting on the directory; fails where one is running.
fn lock_shared(file: &File, path: &Path) -> Result<(), Failure> {
    match file.try_lock_shared() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let what = format!("{}: an etcd is running on this data directory", path.display());
            Err(Failure::refused(what)
                .remedy("take a snapshot of the running member with rekindle save, or stop it"))
        }
        Err(TryLockError::Error(error)) => Err(Failure::io("locking", path, &error)),
    }
}

pub(crate) fn read_log(directory: &Path) -> Result<Log, Failure> {
    let failure = |error: io::Error| Failure::io("reading", directory, &error);
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failure)? {
        let name = entry.map_err(failure)?.file_name();
        segments.extend(name.to_str().and_then(SegmentName::parse));
    }
    segments.sort();
    let mut log = Log { segments: segments.len(), ..Log::default() };
    let mut chain = Chain::start();
    for name in segments {
        let path = directory.join(name.to_string());
        let file = File::open(&path).map_err(|error| Failure::io("opening", &path, &error))?;
        let mut reader = SegmentReader::new(BufReader::new(file), name.to_string(), chain);
        loop {
            match reader.next_record() {
                Ok(Some(record)) => log.state.add(&record),
                Ok(None) => break,
                Err(damage) => {
                    log.damage = Some(damage);
                    return Ok(log);
                }
            }
        }
        chain = reader.into_chain();
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_said_not_to_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Source::open(directory.path(), None).unwrap_err();
        let failure = open();
        assert_eq!(failure.code, Code::NotFound);
        assert!(failure.what.ends_with("is a directory without member/snap/db"), "{failure}");
        // As with a directory that one may not read, which root always may.
        std::os::unix::fs::symlink("member", directory.path().join("member")).unwrap();
        let failure = open();
        assert_eq!(failure.code, Code::Failed);
        assert!(failure.what.starts_with("opening "), "{failure}");
    }
}
