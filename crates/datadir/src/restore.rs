//! Carrying out a restore: build beside, prove, exchange; and finishing or taking back one that was
//! interrupted.
//!
//! Until the new directories are complete and durable, and the caller has found the source good,
//! nothing that was there is touched. Nothing that was there is ever removed.

use crate::disk::{Disk, Lock, NewFile};
use crate::error::{At, Error};
use crate::journal::{Journal, Made, State};
use crate::place::{Place, WalPlace, make_parents, parent};
use crate::swap::{self, Blocker, Leg, Move, check_unlocked};
use rekindle_bolt::{Damage, Layout, ReadAt};
use rekindle_etcd::Member;
use rekindle_etcd::restore::{Content, Plan, PlannedFile, Root, Source, directory, rebuild};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One member's data directory that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whose.
    pub member: Member,
    /// Where.
    pub place: Place,
}

/// What a running restore tells, and listens to. Shared with other threads.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the database written so far.
    pub written: AtomicU64,
    /// Set to end the restore; nothing is left of it then. Not heeded once directories are being
    /// exchanged.
    pub stop: Arc<AtomicBool>,
}

/// What a restore has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Bytes of the database.
    pub size: u64,
    /// Records in it.
    pub records: u64,
    /// What was wrong with the source without costing content.
    pub mended: Vec<Damage>,
    /// Where each target's old directory is now.
    pub set_aside: Vec<Option<PathBuf>>,
}

/// What could be done about an interrupted restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The new directory is in place.
    Completed,
    /// The old directory is in place, or never was elsewhere.
    TakenBack,
    /// The directory of before an earlier restore is in place; the restored one is here.
    RolledBack {
        /// Where what was rolled back is now.
        undone: PathBuf,
    },
}

/// Refuses what should not be begun: an unfinished restore, a running etcd, a file in the place.
///
/// # Errors
/// [`Error::Unfinished`], [`Error::InUse`], [`Error::NotADirectory`], [`Error::InTheWay`],
/// [`Error::Io`].
pub fn check_target(disk: &dyn Disk, place: &Place) -> Result<(), Error> {
    let path = place.journal();
    if let Some(journal) = Journal::read(disk, &path)? {
        check_idle(disk, place, &journal)?;
        if matches!(journal.state, State::Swapping { .. }) {
            return Err(Error::Unfinished { journal: path });
        }
    }
    for path in [Some(&place.data_dir), place.wal.as_ref().map(|wal| &wal.wal_dir)] {
        let Some(path) = path else { continue };
        let found = disk.stat(path).at("looking at", path)?;
        if found.is_some_and(|found| !found.is_directory) {
            return Err(Error::NotADirectory { path: path.clone() });
        }
    }
    check_is_data_dir(disk, place)?;
    check_log_is_known(disk, place, &place.swapped)?;
    check_unlocked(disk, &place.database_in(&place.swapped))
}

/// Fails where something is in the directory that is no member: it would all be moved away.
fn check_is_data_dir(disk: &dyn Disk, place: &Place) -> Result<(), Error> {
    let path = &place.data_dir;
    if place.swapped != *path || disk.stat(path).at("looking at", path)?.is_none() {
        return Ok(());
    }
    let names = disk.list(path).at("listing", path)?;
    match names.iter().min() {
        Some(holds) if !names.iter().any(|name| name == "member") => {
            Err(Error::NotADataDir { path: path.clone(), holds: holds.clone() })
        }
        _ => Ok(()),
    }
}

/// Fails where `swapped`, the old directory now or before, holds a member without its log, and no
/// directory is named for that: the two must come and go together.
fn check_log_is_known(disk: &dyn Disk, place: &Place, swapped: &Path) -> Result<(), Error> {
    let is_there = |path: &Path| Ok::<_, Error>(disk.stat(path).at("looking at", path)?.is_some());
    let log = swapped.join(place.strip("member/wal"));
    if place.wal.is_none() && is_there(&place.database_in(swapped))? && !is_there(&log)? {
        return Err(Error::LogElsewhere { path: swapped.to_owned() });
    }
    Ok(())
}

/// Fails where the restore that has left the journal is still at work: it keeps its new directory
/// locked, wherever that is by now.
fn check_idle(disk: &dyn Disk, place: &Place, journal: &Journal) -> Result<(), Error> {
    let made = journal.made.iter().map(|made| made.path.as_path());
    for path in made.chain([place.swapped.as_path()]) {
        if disk.is_locked(path).at("locking", path)? {
            return Err(Error::AtWork { path: path.to_owned() });
        }
    }
    Ok(())
}

/// A restore that is to be carried out.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// What becomes of the database.
    pub plan: &'a Plan,
    /// How its pages are cut.
    pub layout: Layout,
    /// The members' directories that are to be made, all from one walk over the source.
    pub targets: &'a [Target],
    /// Now, as it goes into names: `20261120T100000Z`.
    pub time: &'a str,
}

/// Builds the directories of all targets, asks `prove` whether the source was good, and only then
/// exchanges them, one after the other.
///
/// # Errors
/// [`Error`]. Targets are then as they were, but for [`Error::Stuck`], and but for those that come
/// before the one whose exchange failed: they are restored.
pub fn restore<S: ReadAt, E: From<Error>>(
    disk: &dyn Disk,
    source: Source<'_, S>,
    job: &Job<'_>,
    progress: &Progress,
    prove: impl FnOnce() -> Result<(), E>,
) -> Result<Restored, E> {
    let mut sites = Vec::new();
    let built = build(disk, source, job, progress, &mut sites);
    let proven = built.map_err(E::from).and_then(|built| prove().map(|()| built));
    let stopped = || progress.stop.load(Ordering::Relaxed).then(|| Error::Interrupted.into());
    let mut restored = match proven.and_then(|built| stopped().map_or(Ok(built), Err)) {
        Ok(restored) => restored,
        Err(error) => {
            // The first failure is what counts; leftovers go with the next restore.
            sites.iter().for_each(|site| drop(site.abandon(disk)));
            return Err(error);
        }
    };
    for (index, site) in sites.iter().enumerate() {
        match site.swap(disk, job.time) {
            Ok(set_aside) => restored.set_aside.push(set_aside),
            Err(stuck @ Error::Stuck { .. }) => return Err(stuck.into()),
            Err(error) => {
                sites.iter().skip(index).for_each(|site| drop(site.abandon(disk)));
                return Err(error.into());
            }
        }
    }
    Ok(restored)
}

/// The journal of a restore that was interrupted and is not at work any more.
fn interrupted(disk: &dyn Disk, place: &Place) -> Result<Journal, Error> {
    let journal = Journal::read(disk, &place.journal())?.ok_or_else(|| {
        let reason = "no restore was interrupted";
        Error::NothingTo { verb: "resume", target: place.data_dir.clone(), reason }
    })?;
    check_idle(disk, place, &journal)?;
    Ok(journal)
}

/// Checks that [`resume`] has something to do, and touches nothing.
///
/// # Errors
/// Those of [`resume`].
pub fn check_resume(disk: &dyn Disk, place: &Place) -> Result<(), Error> {
    match interrupted(disk, place)?.state {
        State::Building => Err(not_whole(place)),
        State::Swapping { .. } => Ok(()),
    }
}

fn not_whole(place: &Place) -> Error {
    let reason = "it was interrupted before the new directory was whole; restore again";
    Error::NothingTo { verb: "resume", target: place.data_dir.clone(), reason }
}

/// Goes on with a restore that was interrupted while it exchanged directories.
///
/// # Errors
/// [`Error::NothingTo`] where none was; [`Error`].
pub fn resume(disk: &dyn Disk, place: &Place) -> Result<Ended, Error> {
    let path = place.journal();
    let journal = interrupted(disk, place)?;
    let State::Swapping { steps } = &journal.state else {
        journal.remove_made(disk)?;
        Journal::remove(disk, &path)?;
        return Err(not_whole(place));
    };
    swap::go_on(disk, steps)?;
    journal.remove_made(disk)?;
    Journal::remove(disk, &path)?;
    Ok(Ended::Completed)
}

/// What a rollback takes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// A restore that was interrupted.
    Interrupted,
    /// The newest finished one.
    Finished {
        /// What it has set aside, and what comes back.
        before: PathBuf,
        /// When that was, as it stands in the name.
        time: String,
    },
}

/// Finds what [`roll_back`] would take back, and touches nothing.
///
/// # Errors
/// Those of [`roll_back`].
pub fn plan_roll_back(disk: &dyn Disk, place: &Place) -> Result<Undo, Error> {
    if let Some(journal) = Journal::read(disk, &place.journal())? {
        check_idle(disk, place, &journal)?;
        if !is_finished(disk, &journal)? {
            return Ok(Undo::Interrupted);
        }
    }
    let (before, time) = place.newest_before(disk)?.ok_or_else(|| {
        let reason = "no earlier directory was set aside beside it";
        Error::NothingTo { verb: "roll back", target: place.data_dir.clone(), reason }
    })?;
    check_unlocked(disk, &place.database_in(&place.swapped))?;
    check_log_is_known(disk, place, &before)?;
    Ok(Undo::Finished { before, time })
}

/// Every step was taken; only the journal is left.
fn is_finished(disk: &dyn Disk, journal: &Journal) -> Result<bool, Error> {
    match &journal.state {
        State::Building => Ok(false),
        State::Swapping { steps } => swap::is_complete(disk, steps),
    }
}

/// Takes back an interrupted restore, or else the newest finished one: what it had set aside comes
/// back, and what it had made is set aside.
///
/// # Errors
/// [`Error::NothingTo`] where nothing was set aside; [`Error`].
pub fn roll_back(disk: &dyn Disk, place: &Place, time: &str) -> Result<Ended, Error> {
    let undo = plan_roll_back(disk, place)?;
    let path = place.journal();
    if let Some(journal) = Journal::read(disk, &path)? {
        if let (Undo::Interrupted, State::Swapping { steps }) = (&undo, &journal.state) {
            swap::undo(disk, steps)?;
        }
        journal.remove_made(disk)?;
        Journal::remove(disk, &path)?;
    }
    let Undo::Finished { before, time: then } = undo else {
        return Ok(Ended::TakenBack);
    };
    let data = Move {
        target: place.swapped.clone(),
        leaves: leg(disk, &place.swapped, place.undone(time))?,
        arrives: found(disk, &before)?.map(|what| Leg { what, place: before }),
    };
    let log = match &place.wal {
        None => Vec::new(),
        Some(wal) => wal_moves(disk, wal, &wal.before(&then), &wal.undone(time))?,
    };
    let site = Site { place, made: Vec::new(), lock: None };
    site.exchange(disk, &data, &log)?;
    Ok(Ended::RolledBack { undone: place.undone(time) })
}

/// How the file begins that takes a data directory's place meanwhile.
const BLOCKER_TEXT: &str = "A restore is exchanging this data directory.";

/// The new directories of one target while they are built.
struct Site<'a> {
    place: &'a Place,
    made: Vec<Made>,
    /// Tells other restores that this one is at work.
    lock: Option<Box<dyn Lock>>,
}

fn build<'a, S: ReadAt>(
    disk: &dyn Disk,
    source: Source<'_, S>,
    job: &Job<'a>,
    progress: &Progress,
    sites: &mut Vec<Site<'a>>,
) -> Result<Restored, Error> {
    for target in job.targets {
        check_target(disk, &target.place)?;
        let log = target.place.wal.as_ref().map(|wal| wal.before(job.time));
        for aside in [Some(target.place.before(job.time)), log].into_iter().flatten() {
            if disk.stat(&aside).at("looking at", &aside)?.is_some() {
                return Err(Error::InTheWay { path: aside });
            }
        }
        sites.push(Site { place: &target.place, made: Vec::new(), lock: None });
        if let Some(site) = sites.last_mut() {
            site.begin(disk)?;
        }
    }
    let restored = write_databases(disk, source, job, progress)?;
    for (target, site) in job.targets.iter().zip(sites.iter()) {
        for file in directory(job.plan, &target.member).files {
            site.write_file(disk, &file)?;
        }
        site.make_durable(disk)?;
    }
    Ok(restored)
}

/// Writes the database once into all targets.
fn write_databases<S: ReadAt>(
    disk: &dyn Disk,
    source: Source<'_, S>,
    job: &Job<'_>,
    progress: &Progress,
) -> Result<Restored, Error> {
    let places = || job.targets.iter().map(|target| &target.place);
    let paths: Vec<_> = places().map(|place| place.database_in(&place.part())).collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let Some(first) = paths.first() else { return Err(Error::Interrupted) };
    let files = disk.create_files(&paths, 0o600).at("creating", first)?;
    for (place, path) in places().zip(&paths) {
        adopt(disk, path, &place.swapped)?;
    }
    let rebuilt = rebuild(source, job.plan, job.layout, Watched { files, progress });
    if progress.stop.load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    let rebuilt = rebuilt?;
    let mut files = rebuilt.file.out.files;
    // Without metas it is no database: they come when everything else is durable.
    files.sync().at("syncing", first)?;
    files.write_at(&rebuilt.file.metas, 0).at("writing", first)?;
    files.sync().at("syncing", first)?;
    Ok(Restored {
        size: rebuilt.file.size,
        records: rebuilt.records,
        mended: rebuilt.mended,
        set_aside: Vec::new(),
    })
}

/// Counts what is written, and ends it on request.
pub(crate) struct Watched<'f, 'p> {
    pub files: Box<dyn NewFile + 'f>,
    pub progress: &'p Progress,
}

impl Write for Watched<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.progress.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        let written = self.files.write(bytes)?;
        self.progress.written.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.files.flush()
    }
}

impl Site<'_> {
    /// Makes the empty directories, after clearing away what an interrupted build has left.
    fn begin(&mut self, disk: &dyn Disk) -> Result<(), Error> {
        let (part, path) = (self.place.part(), self.place.journal());
        make_parents(disk, &part)?;
        if let Some(journal) = Journal::read(disk, &path)? {
            check_idle(disk, self.place, &journal)?;
            journal.remove_made(disk)?;
        }
        self.make(disk, &part, &self.place.swapped)?;
        self.lock = Some(disk.lock(&part).at("locking", &part)?);
        let log = self.place.wal.as_ref();
        if let Some(log) = log {
            make_parents(disk, &log.part())?;
            self.make(disk, &log.part(), &log.wal_dir)?;
        }
        // Only now, so that the journal can say which directories are ours; one that a crash
        // leaves before is empty, and an empty one is taken over.
        Journal::building(self.made.clone()).write(disk, &path)?;
        let mut below = vec!["member", "member/snap"];
        if log.is_none() {
            below.push("member/wal");
        }
        for directory in below {
            let directory = part.join(self.place.strip(directory));
            if directory != part {
                disk.create_directory(&directory, 0o700).at("creating", &directory)?;
                adopt(disk, &directory, &self.place.swapped)?;
            }
        }
        Ok(())
    }

    /// Makes an empty directory with the owner and permissions of the one that it will replace.
    fn make(&mut self, disk: &dyn Disk, path: &Path, old: &Path) -> Result<(), Error> {
        if let Some(found) = disk.stat(path).at("looking at", path)? {
            if !found.is_directory || !disk.list(path).at("listing", path)?.is_empty() {
                return Err(Error::InTheWay { path: path.to_owned() });
            }
            disk.remove_tree(path).at("removing", path)?;
        }
        let mode = disk.stat(old).at("looking at", old)?.map_or(0o700, |old| old.mode);
        disk.create_directory(path, mode).at("creating", path)?;
        adopt(disk, path, old)?;
        let identity =
            found(disk, path)?.ok_or_else(|| Error::InTheWay { path: path.to_owned() })?;
        self.made.push(Made { path: path.to_owned(), identity });
        Ok(())
    }

    /// Where a planned file goes while the directory is built.
    fn path_of(&self, file: &PlannedFile) -> PathBuf {
        match (file.root, &self.place.wal) {
            (Root::Wal, Some(wal)) => wal.part().join(&file.path),
            (Root::Wal, None) => {
                self.place.part().join(self.place.strip("member/wal")).join(&file.path)
            }
            (Root::Data, _) => self.place.part().join(self.place.strip(&file.path)),
        }
    }

    fn write_file(&self, disk: &dyn Disk, planned: &PlannedFile) -> Result<(), Error> {
        let Content::Bytes(bytes) = &planned.content else { return Ok(()) };
        let path = self.path_of(planned);
        let mut file = disk.create_files(&[&path], planned.mode).at("creating", &path)?;
        match (planned.root, &self.place.wal) {
            (Root::Wal, Some(wal)) => adopt(disk, &path, &wal.wal_dir)?,
            _ => adopt(disk, &path, &self.place.swapped)?,
        }
        file.write_all(bytes).at("writing", &path)?;
        if planned.reserve > 0 {
            file.reserve(planned.reserve).at("reserving room for", &path)?;
        }
        file.sync().at("syncing", &path)
    }

    /// Makes the directories' entries durable, the deepest first.
    fn make_durable(&self, disk: &dyn Disk) -> Result<(), Error> {
        for made in &self.made {
            sync_tree(disk, &made.path)?;
            let parent = parent(&made.path);
            disk.sync_directory(&parent).at("syncing", &parent)?;
        }
        Ok(())
    }

    /// Removes what was made.
    fn abandon(&self, disk: &dyn Disk) -> Result<(), Error> {
        Journal::building(self.made.clone()).remove_made(disk)?;
        Journal::remove(disk, &self.place.journal())
    }

    /// Puts the new directories in place; says where the old one is.
    fn swap(&self, disk: &dyn Disk, time: &str) -> Result<Option<PathBuf>, Error> {
        let place = self.place;
        let part = place.part();
        // What is put in place is what was built here, and nothing that came there since.
        for made in &self.made {
            if found(disk, &made.path)? != Some(made.identity) {
                return Err(Error::InTheWay { path: made.path.clone() });
            }
        }
        let data = Move {
            target: place.swapped.clone(),
            leaves: leg(disk, &place.swapped, place.before(time))?,
            arrives: leg(disk, &part, part.clone())?,
        };
        let log = match &place.wal {
            None => Vec::new(),
            Some(wal) => wal_moves(disk, wal, &wal.part(), &wal.before(time))?,
        };
        self.exchange(disk, &data, &log)?;
        Ok(data.leaves.map(|leg| leg.place))
    }

    /// Takes the steps of a swap; what fails is taken back.
    fn exchange(&self, disk: &dyn Disk, data: &Move, log: &[Move]) -> Result<(), Error> {
        let path = self.place.journal();
        let blocker = match data.leaves {
            None => None,
            Some(_) => self.make_blocker(disk, &path)?,
        };
        let mut made = self.made.clone();
        made.extend(
            blocker
                .iter()
                .map(|blocker| Made { path: blocker.path.clone(), identity: blocker.identity }),
        );
        let steps = swap::steps(data, log, blocker.as_ref());
        let journal = Journal::swapping(steps.clone(), made);
        let taken = journal.write(disk, &path).and_then(|()| swap::go_on(disk, &steps));
        let Err(error) = taken else {
            journal.remove_made(disk)?;
            return Journal::remove(disk, &path);
        };
        let undone = swap::undo(disk, &steps)
            .and_then(|()| journal.remove_made(disk))
            .and_then(|()| Journal::remove(disk, &path));
        match undone {
            Ok(()) => Err(error),
            Err(undo) => Err(Error::Stuck { error: Box::new(error), undo: Box::new(undo) }),
        }
    }

    /// The file that takes the data directory's place: who starts an etcd now is told what to do.
    /// `None` where the file system cannot exchange two names.
    fn make_blocker(&self, disk: &dyn Disk, journal: &Path) -> Result<Option<Blocker>, Error> {
        let path = self.place.blocked();
        let probe = path.with_added_extension("part");
        let text = format!(
            "{BLOCKER_TEXT} If it was interrupted, finish it with\n\
             rekindle restore --resume --data-dir {data}\nor take it back with\n\
             rekindle restore --rollback --data-dir {data}\nIts journal is {}\n",
            journal.display(),
            data = self.place.data_dir.display(),
        );
        for path in [&path, &probe] {
            // A crash before the journal named it has left one.
            match disk.read(path).at("reading", path)? {
                Some(found) if !is_blocker(&found) => {
                    return Err(Error::InTheWay { path: path.clone() });
                }
                Some(_) => disk.remove_file(path).at("removing", path)?,
                None => {}
            }
            let mut file = disk.create_files(&[path], 0o600).at("creating", path)?;
            file.write_all(text.as_bytes()).at("writing", path)?;
            file.sync().at("syncing", path)?;
        }
        let exchanged = disk.exchange(&path, &probe);
        disk.remove_file(&probe).at("removing", &probe)?;
        match exchanged {
            Err(error) if cannot_exchange(&error) => {
                disk.remove_file(&path).at("removing", &path)?;
                return Ok(None);
            }
            exchanged => exchanged.at("exchanging", &path)?,
        }
        let identity = found(disk, &path)?.ok_or_else(|| Error::InTheWay { path: path.clone() })?;
        let database = self.place.strip("member/snap/db").to_owned();
        Ok(Some(Blocker { path, identity, database }))
    }
}

/// The file is a blocker, or as much of one as a crash has left: what did not reach the disk is
/// missing or zero.
fn is_blocker(found: &[u8]) -> bool {
    found.iter().zip(BLOCKER_TEXT.as_bytes()).all(|(found, text)| found == text || *found == 0)
}

/// The file system has no exchange of two names.
pub(crate) fn cannot_exchange(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

/// What leaves and what comes in a WAL directory of its own.
fn wal_moves(
    disk: &dyn Disk,
    wal: &WalPlace,
    from: &Path,
    aside: &Path,
) -> Result<Vec<Move>, Error> {
    if !wal.is_mount_point {
        let arrives = leg(disk, from, from.to_owned())?;
        let leaves = leg(disk, &wal.wal_dir, aside.to_owned())?;
        return Ok(vec![Move { target: wal.wal_dir.clone(), leaves, arrives }]);
    }
    let mut moves = Vec::new();
    for name in disk.list(&wal.wal_dir).at("listing", &wal.wal_dir)? {
        if name.ends_with(".wal") || name.ends_with(".tmp") || name.ends_with(".broken") {
            let target = wal.wal_dir.join(&name);
            let leaves = leg(disk, &target, aside.join(&name))?;
            moves.push(Move { target, leaves, arrives: None });
        }
    }
    if !moves.is_empty() && disk.stat(aside).at("looking at", aside)?.is_none() {
        disk.create_directory(aside, 0o700).at("creating", aside)?;
        disk.sync_directory(&wal.wal_dir).at("syncing", &wal.wal_dir)?;
    }
    for name in disk.list(from).at("listing", from)? {
        let arrives = leg(disk, &from.join(&name), from.join(&name))?;
        moves.push(Move { target: wal.wal_dir.join(&name), leaves: None, arrives });
    }
    Ok(moves)
}

/// What is at a path, with its other place; nothing, where it is an empty directory.
fn leg(disk: &dyn Disk, path: &Path, other: PathBuf) -> Result<Option<Leg>, Error> {
    let Some(found) = disk.stat(path).at("looking at", path)? else { return Ok(None) };
    let empty = found.is_directory && disk.list(path).at("listing", path)?.is_empty();
    Ok((!empty).then_some(Leg { what: found.identity, place: other }))
}

fn found(disk: &dyn Disk, path: &Path) -> Result<Option<crate::Identity>, Error> {
    Ok(disk.stat(path).at("looking at", path)?.map(|found| found.identity))
}

/// Gives a new file or directory the owner of the one that it will replace, where there is one.
fn adopt(disk: &dyn Disk, path: &Path, old: &Path) -> Result<(), Error> {
    match disk.stat(old).at("looking at", old)? {
        Some(_) => disk.adopt(path, old).at("giving the owner to", path),
        None => Ok(()),
    }
}

/// Syncs the directories of a tree, the deepest first.
fn sync_tree(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    for name in disk.list(path).at("listing", path)? {
        let below = path.join(name);
        if disk.stat(&below).at("looking at", &below)?.is_some_and(|found| found.is_directory) {
            sync_tree(disk, &below)?;
        }
    }
    disk.sync_directory(path).at("syncing", path)
}
