//! The journal: what was followed, kept on this host for a while, unsealed, readable by its owner only.
//! Archives are fed from it, and bases are compared with it. It is no part of an archive: what is lost
//! of it comes from a snapshot.
//!
//! ```text
//! 16   "rekindle cut 1" and two zeros
//! 8    first revision
//! 8    last revision
//! 8    records
//! 8    bytes before compression
//! 8    leases
//! 8    milliseconds since 1970 at which the cluster was at the last revision
//! 8    cluster
//! 8    member
//! 8    raft term
//! 8    bytes of the content
//! the content of a segment
//! 32   BLAKE3 of all before
//! ```

use super::cut::{Cut, Witness};
use crate::error::Error;
use crate::format::cursor::Cursor;
use crate::format::header::Moment;
use crate::format::run::Run;
use crate::format::{ArchiveId, DIGEST, Domain, FormatFault, ObjectId, TimelineId, segment};
use crate::object;
use crate::prune::GRACE;
use rekindle_etcd::{ClusterId, MemberId, RaftTerm, RecordKey, Revision};
use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 16] = b"rekindle cut 1\0\0";
/// Bytes before the content.
const HEAD: usize = MAGIC.len() + 10 * 8;
const WHAT: &str = "a piece of the journal";
const EXTENSION: &str = "cut";
/// Of the file that says which timeline of an archive it feeds.
const MARK: &str = "feeds";

/// The journal of a cluster. It has a file for each cut.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    kept: VecDeque<Kept>,
    bytes: u64,
    bytes_max: u64,
    /// Held, so that nobody else uses it.
    _lock: File,
}

/// A cut that the journal has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    path: Arc<Path>,
    /// The first revision.
    pub first: Revision,
    /// The last one.
    pub last: Revision,
    /// Records.
    pub records: u64,
    /// The cluster was at the last revision at this moment.
    pub state: Moment,
    /// Who told of it.
    pub witness: Witness,
    logical_bytes: u64,
    leases: u64,
    /// Bytes of its content.
    pub bytes: u64,
}

impl Journal {
    /// Opens the journal that lies in a directory, or begins one. What is damaged of it is taken away,
    /// with all that is older. One to which nothing came for a day begins anew: by then nothing of an archive
    /// shows what was erased from it meanwhile, and must not come back.
    ///
    /// # Errors
    /// [`Error::Spool`].
    pub fn open(directory: &Path, bytes_max: u64, now: Moment) -> Result<Self, Error> {
        let failed = |error: io::Error| at(directory, &error);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let path = directory.join("lock");
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.map_err(|error| at(&path, &error))?;
        if lock.try_lock().is_err() {
            let cause = "another capture on this host uses it".to_owned();
            return Err(Error::Spool { path: directory.display().to_string(), cause });
        }
        let paths = files(directory, EXTENSION)?;
        let mut journal = Self {
            directory: directory.to_owned(),
            kept: VecDeque::new(),
            bytes: 0,
            bytes_max,
            _lock: lock,
        };
        // From the newest on, as far as one goes on from the other.
        let mut whole = true;
        for path in paths.into_iter().rev() {
            let kept = Kept::open(&path).filter(|kept| match journal.kept.front() {
                Some(next) => kept.last.later(1) == Some(next.first),
                // One that was being written when the host went down has not all its bytes.
                None => kept.read().is_ok(),
            });
            match kept.filter(|_| whole) {
                Some(kept) => {
                    journal.bytes += kept.bytes;
                    journal.kept.push_front(kept);
                }
                None => {
                    whole = journal.kept.is_empty();
                    std::fs::remove_file(&path).map_err(|error| at(&path, &error))?;
                }
            }
        }
        let is_old = |kept: &Kept| now.0.saturating_sub(kept.state.0) >= GRACE;
        if journal.newest().is_none_or(is_old) {
            // Nothing shows that the cluster is still the same.
            journal.clear()?;
        }
        Ok(journal)
    }

    /// The timeline of an archive that goes on from what this journal has: a base of it was made from
    /// here, and nothing has shown since that the cluster became another one.
    #[must_use]
    pub fn feeds(&self, archive: ArchiveId) -> Option<TimelineId> {
        let text = std::fs::read_to_string(self.mark(archive)).ok()?;
        TimelineId::parse(text.trim())
    }

    /// From now on it feeds that timeline of an archive.
    ///
    /// # Errors
    /// [`Error::Spool`].
    pub fn feed(&mut self, archive: ArchiveId, timeline: TimelineId) -> Result<(), Error> {
        self.put(&self.mark(archive), format!("{timeline}\n").as_bytes())?;
        remove_if_there(&self.left(archive))
    }

    /// The cluster is another one than what this archive has: its next base begins a history.
    ///
    /// # Errors
    /// [`Error::Spool`].
    pub fn leave(&mut self, archive: ArchiveId) -> Result<(), Error> {
        self.put(&self.left(archive), b"")
    }

    /// Writes a small file; where there is no room, the oldest of what is kept makes it.
    fn put(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let part = path.with_extension("part");
        loop {
            let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path));
            match written {
                Err(error) if is_full(&error) && !self.kept.is_empty() => self.forget_oldest()?,
                written => return written.map_err(|error| at(path, &error)),
            }
        }
    }

    /// Whether that is so, and no base of it was made since.
    #[must_use]
    pub fn has_left(&self, archive: ArchiveId) -> bool {
        self.left(archive).exists()
    }

    fn left(&self, archive: ArchiveId) -> PathBuf {
        self.directory.join(format!("{archive}.left"))
    }

    /// From now on it does not feed this archive, until a base of it was made.
    ///
    /// # Errors
    /// [`Error::Spool`].
    pub fn feed_not(&mut self, archive: ArchiveId) -> Result<(), Error> {
        remove_if_there(&self.mark(archive))
    }

    /// From now on it feeds none, until a base of each was made.
    ///
    /// # Errors
    /// [`Error::Spool`].
    pub fn feed_none(&mut self) -> Result<(), Error> {
        for path in files(&self.directory, MARK)? {
            std::fs::remove_file(&path).map_err(|error| at(&path, &error))?;
        }
        Ok(())
    }

    fn mark(&self, archive: ArchiveId) -> PathBuf {
        self.directory.join(format!("{archive}.{MARK}"))
    }

    /// The id that the claims of whoever uses it have.
    ///
    /// # Errors
    /// [`Error::Spool`]; the machine gives no randomness.
    pub fn writer(&self) -> Result<ObjectId, Error> {
        let path = self.directory.join("writer");
        let there = std::fs::read_to_string(&path).ok();
        if let Some(id) = there.and_then(|text| ObjectId::parse(text.trim())) {
            return Ok(id);
        }
        let id = object::random_id()?;
        std::fs::write(&path, format!("{id}\n")).map_err(|error| at(&path, &error))?;
        Ok(id)
    }

    /// The first revision that it has.
    #[must_use]
    pub fn first(&self) -> Option<Revision> {
        self.kept.front().map(|kept| kept.first)
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<Revision> {
        self.kept.back().map(|kept| kept.last)
    }

    /// The oldest cut. At the opening each goes on from the one before.
    #[must_use]
    pub fn oldest(&self) -> Option<&Kept> {
        self.kept.front()
    }

    /// The newest cut.
    #[must_use]
    pub fn newest(&self) -> Option<&Kept> {
        self.kept.back()
    }

    /// The cut that has a revision.
    #[must_use]
    pub fn having(&self, revision: Revision) -> Option<&Kept> {
        let place = self.kept.partition_point(|kept| kept.last < revision);
        self.kept.get(place).filter(|kept| kept.first <= revision)
    }

    /// Adds a cut behind the last one; where it begins before that one's end, all that was there goes.
    /// What is too much goes from the front, and what the disk has no room for.
    ///
    /// # Errors
    /// [`Error::Spool`].
    pub fn add(&mut self, cut: &Cut) -> Result<(), Error> {
        if self.last().is_some_and(|last| cut.first <= last) {
            self.clear()?;
        }
        let kept = loop {
            match Kept::write(&self.directory, cut) {
                Ok(kept) => break kept,
                Err((_, error)) if is_full(&error) && !self.kept.is_empty() => {
                    self.forget_oldest()?;
                }
                Err((path, error)) => return Err(at(&path, &error)),
            }
        };
        self.bytes += kept.bytes;
        self.kept.push_back(kept);
        while self.bytes > self.bytes_max && self.kept.len() > 1 {
            self.forget_oldest()?;
        }
        Ok(())
    }

    fn forget_oldest(&mut self) -> Result<(), Error> {
        let Some(oldest) = self.kept.pop_front() else { return Ok(()) };
        self.bytes -= oldest.bytes;
        oldest.remove()
    }

    /// Takes all of it away: the cluster is another one.
    ///
    /// # Errors
    /// [`Error::Spool`].
    pub fn clear(&mut self) -> Result<(), Error> {
        self.feed_none()?;
        while let Some(kept) = self.kept.pop_front() {
            kept.remove()?;
        }
        self.bytes = 0;
        Ok(())
    }

    /// What it has up to a revision, for a base of a timeline.
    #[must_use]
    pub fn view(&self, timeline: TimelineId, last: Revision) -> LogView {
        let kept = self.kept.iter().filter(|kept| kept.first <= last).cloned().collect();
        LogView { timeline, kept }
    }
}

impl Kept {
    /// Nothing of it is left where that fails.
    fn write(directory: &Path, cut: &Cut) -> Result<Self, (Arc<Path>, io::Error)> {
        let (first, last) = (cut.first, cut.last);
        let name = format!("{:020}-{:020}.{EXTENSION}", first.get(), last.get());
        let path: Arc<Path> = directory.join(name).into();
        let mut bytes = Vec::with_capacity(HEAD + cut.content.len() + DIGEST);
        bytes.extend_from_slice(MAGIC);
        for number in [first.get(), last.get()] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [cut.records, cut.logical_bytes, cut.leases] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&cut.state.0.to_le_bytes());
        let Witness { cluster, member, term } = cut.witness;
        for number in [cluster.0, member.0, term.0, cut.content.len() as u64] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&cut.content);
        let digest = Domain::Table.digest(&[&bytes]);
        bytes.extend_from_slice(&digest);
        let _ = std::fs::remove_file(&path);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        // It is not synced: what a host loses that goes down comes from a snapshot.
        if let Err(error) = file.and_then(|mut file| file.write_all(&bytes)) {
            let _ = std::fs::remove_file(&path);
            return Err((path, error));
        }
        Ok(Self {
            path,
            first,
            last,
            records: cut.records,
            state: cut.state,
            witness: cut.witness,
            logical_bytes: cut.logical_bytes,
            leases: cut.leases,
            bytes: cut.content.len() as u64,
        })
    }

    /// What the head of a file says, if the file has all its bytes.
    fn open(path: &Path) -> Option<Self> {
        let mut head = [0; HEAD];
        let mut file = File::open(path).ok()?;
        file.read_exact(&mut head).ok()?;
        let kept = Self::parse(path, &head).ok()?;
        let len = (HEAD + DIGEST) as u64;
        let whole = file.metadata().ok()?.len() == len.saturating_add(kept.bytes);
        Some(kept).filter(|_| whole)
    }

    fn parse(path: &Path, head: &[u8]) -> Result<Self, FormatFault> {
        let mut cursor = Cursor::new(head, WHAT);
        if cursor.array()? != *MAGIC {
            return Err(FormatFault::NotOurs);
        }
        let mut number = || cursor.array().map(u64::from_le_bytes);
        let mut next = || -> Result<Revision, FormatFault> {
            let revision = Revision::new(number()?.cast_signed());
            revision.ok_or(FormatFault::Senseless { what: WHAT })
        };
        let (first, last) = (next()?, next()?);
        let (records, logical_bytes, leases) = (number()?, number()?, number()?);
        let state = Moment(number()?.cast_signed());
        let (cluster, member) = (ClusterId(number()?), MemberId(number()?));
        let witness = Witness { cluster, member, term: RaftTerm(number()?) };
        let (path, bytes) = (path.into(), number()?);
        match first <= last {
            true => Ok(Self {
                path,
                first,
                last,
                records,
                state,
                witness,
                logical_bytes,
                leases,
                bytes,
            }),
            false => Err(FormatFault::Senseless { what: WHAT }),
        }
    }

    /// The cut itself.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn read(&self) -> Result<Cut, Error> {
        let damaged = |fault| self.damaged(&fault);
        let mut bytes = std::fs::read(&*self.path).map_err(|error| self.damaged(&error))?;
        let end = bytes.len().checked_sub(DIGEST).filter(|end| *end >= HEAD);
        let end = end.ok_or_else(|| damaged(FormatFault::Ends { what: WHAT }))?;
        let (head, digest) = bytes.split_at(end);
        if Domain::Table.digest(&[head]) != *digest {
            return Err(damaged(FormatFault::Digest { what: WHAT }));
        }
        bytes.truncate(end);
        let content = bytes.split_off(HEAD);
        if Self::parse(&self.path, &bytes).map_err(damaged)? != *self {
            return Err(damaged(FormatFault::Foreign));
        }
        Ok(Cut {
            first: self.first,
            last: self.last,
            records: self.records,
            logical_bytes: self.logical_bytes,
            leases: self.leases,
            state: self.state,
            witness: self.witness,
            content,
        })
    }

    /// When the cluster was seen at one of its revisions.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn seen(&self, revision: Revision) -> Result<Option<Moment>, Error> {
        let cut = self.read()?;
        let (notes, _) = segment::parse(&cut.content).map_err(|fault| self.damaged(&fault))?;
        Ok(notes.times.of(revision).map(|seen| seen.at))
    }

    /// The records of its last revision.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn last_records(&self) -> Result<Vec<(RecordKey, Vec<u8>)>, Error> {
        let cut = self.read()?;
        let find = || -> Result<_, FormatFault> {
            let (_, content) = segment::parse(&cut.content)?;
            let run = Run::parse_index(content)?;
            let mut found = Vec::new();
            for (range, entry) in run.blocks().filter(|(_, it)| it.last.revision == self.last) {
                let mut records = Run::open(content, &range, entry)?;
                while let Some(key) = records.advance() {
                    if key.revision == self.last {
                        found.push((key, records.value().to_vec()));
                    }
                }
            }
            Ok(found)
        };
        find().map_err(|fault| self.damaged(&fault))
    }

    pub(super) fn damaged(&self, why: &dyn std::fmt::Display) -> Error {
        Error::Journal { path: self.path.display().to_string(), cause: why.to_string() }
    }

    fn remove(&self) -> Result<(), Error> {
        remove_if_there(&self.path)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path, &error)),
        _ => Ok(()),
    }
}

/// The files of a directory with that extension, by their names.
fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let failed = |error: io::Error| at(directory, &error);
    let mut paths = Vec::new();
    for found in std::fs::read_dir(directory).map_err(failed)? {
        let path = found.map_err(failed)?.path();
        if path.extension().is_some_and(|it| it == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn at(path: &Path, error: &io::Error) -> Error {
    Error::Spool { path: path.display().to_string(), cause: error.to_string() }
}

/// What a journal has for a base that is to be made: the archive's log may be what was fed from it.
#[derive(Clone, Debug)]
pub struct LogView {
    /// The history that it belongs to.
    pub timeline: TimelineId,
    kept: Vec<Kept>,
}

impl LogView {
    /// The pieces that have all revisions of a range between them, of which the first and the last may have more.
    pub(crate) fn around(&self, first: Revision, last: Revision) -> Option<&[Kept]> {
        let begin = self.kept.partition_point(|kept| kept.last < first);
        let end = self.kept.partition_point(|kept| kept.first <= last);
        let pieces = self.kept.get(begin..end)?;
        let goes_on = pieces.is_sorted_by(|one, next| one.last.later(1) == Some(next.first));
        let ends = (pieces.first()?.first <= first, pieces.last()?.last >= last);
        (goes_on && ends == (true, true)).then_some(pieces)
    }

    /// What it has of the same: the pieces from the first revision to the last one of a segment, if those are
    /// whole pieces without a gap.
    pub(crate) fn pieces(&self, first: Revision, last: Revision) -> &[Kept] {
        let begin = self.kept.partition_point(|kept| kept.first < first);
        let end = self.kept.partition_point(|kept| kept.last <= last);
        let pieces = self.kept.get(begin..end).unwrap_or_default();
        let goes_on = pieces.windows(2).all(|pair| match pair {
            [one, next] => one.last.later(1) == Some(next.first),
            _ => true,
        });
        let ends = pieces.first().map(|kept| kept.first).zip(pieces.last().map(|kept| kept.last));
        if goes_on && ends == Some((first, last)) { pieces } else { &[] }
    }
}
