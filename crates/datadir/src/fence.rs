//! A fence: no etcd starts on a data directory, and none goes on, until somebody lifts it.
//!
//! ```text
//! <data-dir>                 a file that says why, so that an etcd that is started dies
//! <data-dir>.fenced-<id>     what was there; never deleted
//! <data-dir>.staged-<id>     what is to come in its place, while it is built
//! <data-dir>.undone-<id>     what came, if that was taken back
//! ```
//!
//! A directory that is only renamed stops nothing: an etcd that runs goes on writing into it. So its locks are taken
//! first. How far an interrupted step came is told by what is where: each can be taken again. A data directory or a log
//! at a mount point is dealt with as [`Place`] says.

use crate::disk::{Disk, Lock};
use crate::error::{At, Error};
use crate::place::{Place, WalPlace, make_parents, parent};
use std::io;
use std::path::{Path, PathBuf};

const TEXT: &str =
    "This file keeps etcd from starting: rekindle has fenced its data directory.\nFence: ";
/// Longest id.
const ID_MAX: usize = 64;

/// A fence, there or to be put up.
#[derive(Clone, Debug)]
pub struct Fence<'a> {
    place: &'a Place,
    id: &'a str,
}

/// How a fence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// It was never put up, or is lifted with all as before.
    No,
    /// It stands.
    Yes,
    /// It was opened: what came stands in the place, and what was there is set aside.
    Opened,
}

/// The id of the fence that stands at a place.
///
/// # Errors
/// [`Error::Io`].
pub fn fence_at(disk: &dyn Disk, place: &Place) -> Result<Option<String>, Error> {
    blocked_by(disk, &place.swapped)
}

impl<'a> Fence<'a> {
    /// With an id of letters, digits and `-`: that of what it is put up for.
    ///
    /// # Errors
    /// [`Error::FenceId`].
    pub fn new(place: &'a Place, id: &'a str) -> Result<Self, Error> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        match !id.is_empty() && id.len() <= ID_MAX && id.bytes().all(is_good) {
            true => Ok(Self { place, id }),
            false => Err(Error::FenceId { id: id.to_owned() }),
        }
    }

    /// Where what was there is while it stands, and afterwards.
    #[must_use]
    pub fn set_aside(&self) -> PathBuf {
        self.beside(&self.place.swapped, "fenced")
    }

    /// The data directory that is to be built: on the same file system.
    #[must_use]
    pub fn staged_data_dir(&self) -> PathBuf {
        match self.place.below {
            "" => self.beside(&self.place.swapped, "staged"),
            _ => self.place.data_dir.join(format!("staged-{}", self.id)),
        }
    }

    /// The same of its log, where that has a directory of its own.
    #[must_use]
    pub fn staged_wal_dir(&self) -> Option<PathBuf> {
        self.place.wal.as_ref().map(|wal| self.of_wal(wal, "staged"))
    }

    /// The same of its log, where that has a directory of its own.
    #[must_use]
    pub fn set_aside_wal(&self) -> Option<PathBuf> {
        self.place.wal.as_ref().map(|wal| self.of_wal(wal, "fenced"))
    }

    /// Removes what was staged and not put in place.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear_staged(&self, disk: &dyn Disk) -> Result<(), Error> {
        match self.state(disk)? {
            Fenced::Opened => Ok(()),
            Fenced::No | Fenced::Yes => self.remove_staged(disk),
        }
    }

    /// What is there.
    ///
    /// # Errors
    /// [`Error::FencedBy`] where another fence stands; [`Error::Io`].
    pub fn state(&self, disk: &dyn Disk) -> Result<Fenced, Error> {
        match blocked_by(disk, &self.place.swapped)? {
            Some(id) if id == self.id => Ok(Fenced::Yes),
            Some(id) => Err(Error::FencedBy { path: self.place.swapped.clone(), id }),
            None if is_directory(disk, &self.set_aside())? => Ok(Fenced::Opened),
            None => Ok(Fenced::No),
        }
    }

    /// Puts it up. The etcd must have ended, and whatever starts it anew must be kept from that as well: this is what holds
    /// where that does not.
    ///
    /// # Errors
    /// [`Error::InUse`] where an etcd runs; [`Error::FencedBy`]; [`Error::NotFenced`] where it was opened already;
    /// [`Error::Io`].
    pub fn put(&self, disk: &dyn Disk, why: &str) -> Result<(), Error> {
        let text = format!("{TEXT}{}\n{why}\n", self.id);
        let path = self.place.swapped.clone();
        let is_there = disk.stat(&path).at("looking at", &path)?.is_some();
        if is_there && self.state(disk)? == Fenced::Opened {
            return Err(Error::NotFenced { path, id: self.id.to_owned() });
        }
        let _locks = self.locks(disk, &self.place.swapped)?;
        self.block(disk, &self.place.swapped, &self.set_aside(), &text)?;
        let Some(wal) = &self.place.wal else { return Ok(()) };
        let aside = self.of_wal(wal, "fenced");
        match wal.is_mount_point {
            false => self.block(disk, &wal.wal_dir, &aside, &text),
            true => move_log(disk, &wal.wal_dir, &aside),
        }
    }

    /// Opens it for what was staged; what was there stays set aside.
    ///
    /// # Errors
    /// [`Error::NotFenced`] where it does not stand; [`Error::NothingTo`] where nothing is staged; [`Error::Io`].
    pub fn open(&self, disk: &dyn Disk) -> Result<(), Error> {
        let staged = match self.place.below {
            "" => self.staged_data_dir(),
            below => self.staged_data_dir().join(below),
        };
        if self.state(disk)? == Fenced::No {
            return Err(Error::NotFenced {
                path: self.place.swapped.clone(),
                id: self.id.to_owned(),
            });
        }
        let blocked = blocked_by(disk, &self.place.swapped)?.is_some();
        if blocked && !is_directory(disk, &staged)? {
            let target = self.place.data_dir.clone();
            return Err(Error::NothingTo {
                verb: "put in place",
                target,
                reason: "nothing is staged",
            });
        }
        if let Some(wal) = &self.place.wal {
            let from = self.of_wal(wal, "staged");
            match wal.is_mount_point {
                false => exchange_in(disk, &wal.wal_dir, &from)?,
                true => {
                    move_log(disk, &from, &wal.wal_dir)?;
                    remove_if_there(disk, &from)?;
                }
            }
        }
        // Last, because it is what keeps etcd from starting.
        exchange_in(disk, &self.place.swapped, &staged)?;
        if !self.place.below.is_empty() {
            remove_if_there(disk, &self.staged_data_dir())?;
        }
        Ok(())
    }

    /// Opens it for a member that begins with nothing; what was there stays set aside.
    ///
    /// # Errors
    /// [`Error::NotFenced`]; [`Error::Io`].
    pub fn open_empty(&self, disk: &dyn Disk) -> Result<(), Error> {
        if self.state(disk)? == Fenced::No && !is_directory(disk, &self.set_aside())? {
            // Where nothing was set aside, one that is opened and one that never stood look alike.
            return Ok(());
        }
        if let Some(wal) = self.place.wal.as_ref().filter(|wal| !wal.is_mount_point) {
            unblock(disk, &wal.wal_dir)?;
        }
        unblock(disk, &self.place.swapped)
    }

    /// Takes all back: what was there is there again, and what came is set aside.
    ///
    /// # Errors
    /// [`Error::InUse`] where an etcd runs on what came; [`Error::FencedBy`]; [`Error::Io`].
    pub fn undo(&self, disk: &dyn Disk) -> Result<(), Error> {
        let text = format!("{TEXT}{}\nIt is being taken back.\n", self.id);
        let (data, aside) = (&self.place.swapped, self.set_aside());
        if self.state(disk)? == Fenced::Opened {
            let _locks = self.locks(disk, data)?;
            self.block(disk, data, &self.beside(data, "undone"), &text)?;
        }
        if self.state(disk)? == Fenced::No {
            return self.remove_staged(disk);
        }
        match &self.place.wal {
            Some(wal) if wal.is_mount_point => self.undo_log_at_mount_point(disk, wal)?,
            Some(wal) => {
                let (dir, fenced) = (&wal.wal_dir, self.of_wal(wal, "fenced"));
                if blocked_by(disk, dir)?.is_none() && is_directory(disk, &fenced)? {
                    self.block(disk, dir, &self.of_wal(wal, "undone"), &text)?;
                }
                self.remove_staged(disk)?;
                put_back(disk, dir, &fenced)?;
            }
            None => self.remove_staged(disk)?,
        }
        put_back(disk, data, &aside)
    }

    /// Its files move one by one: which of them came is told by what else is there.
    fn undo_log_at_mount_point(&self, disk: &dyn Disk, wal: &WalPlace) -> Result<(), Error> {
        let (dir, fenced) = (&wal.wal_dir, self.of_wal(wal, "fenced"));
        if is_directory(disk, &self.staged_data_dir())? {
            // It was being opened.
            move_log(disk, dir, &self.of_wal(wal, "staged"))?;
        }
        self.remove_staged(disk)?;
        let undone = self.of_wal(wal, "undone");
        let came = is_directory(disk, &self.beside(&self.place.swapped, "undone"))?;
        if came && !is_directory(disk, &undone)? {
            let undoing = self.of_wal(wal, "undoing");
            move_log(disk, dir, &undoing)?;
            disk.rename(&undoing, &undone).at("renaming", &undoing)?;
            disk.sync_directory(dir).at("syncing", dir)?;
        }
        move_log(disk, &fenced, dir)?;
        remove_if_there(disk, &fenced)
    }

    /// The data directory last: it tells that something was staged.
    fn remove_staged(&self, disk: &dyn Disk) -> Result<(), Error> {
        if let Some(log) = self.staged_wal_dir() {
            unblock(disk, &log)?;
            remove_if_there(disk, &log)?;
        }
        remove_if_there(disk, &self.staged_data_dir())
    }

    fn beside(&self, path: &Path, word: &str) -> PathBuf {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{word}-{}", self.id));
        path.with_file_name(name)
    }

    fn of_wal(&self, wal: &WalPlace, word: &str) -> PathBuf {
        match wal.is_mount_point {
            true => wal.wal_dir.join(format!("{word}-{}", self.id)),
            false => self.beside(&wal.wal_dir, word),
        }
    }

    /// Those that an etcd holds while it runs: of its database, and of each file of its log.
    fn locks(&self, disk: &dyn Disk, swapped: &Path) -> Result<Vec<Box<dyn Lock>>, Error> {
        let database = self.place.database_in(swapped);
        let mut locks = Vec::new();
        if disk.stat(&database).at("looking at", &database)?.is_some() {
            match disk.lock(&database) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Error::InUse { database });
                }
                lock => locks.push(lock.at("locking", &database)?),
            }
        }
        let beside = swapped.join(self.place.strip("member/wal"));
        let log = self.place.wal.as_ref().map_or(beside, |wal| wal.wal_dir.clone());
        if is_directory(disk, &log)? {
            for name in disk.list(&log).at("listing", &log)? {
                let path = log.join(&name);
                if name.ends_with(".wal") && disk.is_locked(&path).at("locking", &path)? {
                    return Err(Error::InUse { database: path });
                }
            }
        }
        Ok(locks)
    }

    /// Puts a file in the place of what is there, which goes aside.
    fn block(&self, disk: &dyn Disk, path: &Path, aside: &Path, text: &str) -> Result<(), Error> {
        if blocked_by(disk, path)?.is_some_and(|id| id == self.id) {
            // An interrupted turn had no exchange, or there was nothing to set aside.
            return disk.sync_directory(&parent(path)).at("syncing", &parent(path));
        }
        make_parents(disk, path)?;
        let found = disk.stat(path).at("looking at", path)?;
        if found.is_some() && is_directory(disk, aside)? {
            return Err(Error::InTheWay { path: aside.to_owned() });
        }
        if found.is_some_and(|found| !found.is_directory) {
            return Err(Error::NotADirectory { path: path.to_owned() });
        }
        if found.is_none() {
            // There was nothing, or a file system without exchange and a crash between the two.
            return self.fill(disk, path, text);
        }
        write_blocker(disk, aside, text)?;
        match disk.exchange(path, aside) {
            Err(error) if crate::restore::cannot_exchange(&error) => {
                disk.remove_file(aside).at("removing", aside)?;
                disk.rename(path, aside).at("renaming", path)?;
                return self.fill(disk, path, text);
            }
            exchanged => exchanged.at("exchanging", path)?,
        }
        disk.sync_directory(&parent(path)).at("syncing", &parent(path))
    }

    /// Puts a file where nothing is; it is whole as soon as it is there.
    fn fill(&self, disk: &dyn Disk, path: &Path, text: &str) -> Result<(), Error> {
        let part = self.beside(path, "part");
        write_blocker(disk, &part, text)?;
        disk.rename(&part, path).at("renaming", &part)?;
        disk.sync_directory(&parent(path)).at("syncing", &parent(path))
    }
}

/// The id of the fence whose file is there.
fn blocked_by(disk: &dyn Disk, path: &Path) -> Result<Option<String>, Error> {
    let found = disk.stat(path).at("looking at", path)?;
    if found.is_none_or(|found| found.is_directory) {
        return Ok(None);
    }
    let bytes = disk.read(path).at("reading", path)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.strip_prefix(TEXT).and_then(|rest| rest.lines().next()).map(str::to_owned))
}

fn is_directory(disk: &dyn Disk, path: &Path) -> Result<bool, Error> {
    Ok(disk.stat(path).at("looking at", path)?.is_some_and(|found| found.is_directory))
}

/// A blocker that is durable before anything else is done.
fn write_blocker(disk: &dyn Disk, path: &Path, text: &str) -> Result<(), Error> {
    if disk.stat(path).at("looking at", path)?.is_some() {
        // A crash has left it.
        disk.remove_file(path).at("removing", path)?;
    }
    let mut file = disk.create_files(&[path], 0o644).at("creating", path)?;
    file.write_all(text.as_bytes()).at("writing", path)?;
    file.sync().at("syncing", path)?;
    disk.sync_directory(&parent(path)).at("syncing", &parent(path))
}

/// What is staged comes in the place of a blocker, which goes.
fn exchange_in(disk: &dyn Disk, path: &Path, staged: &Path) -> Result<(), Error> {
    let blocked = blocked_by(disk, path)?.is_some();
    let is_free = disk.stat(path).at("looking at", path)?.is_none();
    if (blocked || is_free) && is_directory(disk, staged)? {
        let exchanged =
            if is_free { Ok(false) } else { disk.exchange(path, staged).map(|()| true) };
        match exchanged {
            Ok(true) => {}
            Err(error) if !crate::restore::cannot_exchange(&error) => {
                return Err(error).at("exchanging", path);
            }
            // Without exchange nothing is there in between.
            Ok(false) | Err(_) => {
                unblock(disk, path)?;
                disk.rename(staged, path).at("renaming", staged)?;
            }
        }
        disk.sync_directory(&parent(path)).at("syncing", &parent(path))?;
    }
    unblock(disk, staged)
}

/// What was set aside comes back in the place of a blocker; where nothing was, only the blocker goes.
fn put_back(disk: &dyn Disk, path: &Path, aside: &Path) -> Result<(), Error> {
    exchange_in(disk, path, aside)?;
    unblock(disk, path)
}

fn unblock(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    if blocked_by(disk, path)?.is_some() {
        disk.remove_file(path).at("removing", path)?;
        disk.sync_directory(&parent(path)).at("syncing", &parent(path))?;
    }
    Ok(())
}

fn is_of_log(name: &str) -> bool {
    [".wal", ".tmp", ".broken"].iter().any(|end| name.ends_with(end))
}

/// Moves the files of a log into another directory of the same file system.
fn move_log(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), Error> {
    if !is_directory(disk, from)? {
        return Ok(());
    }
    if !is_directory(disk, to)? {
        disk.create_directory(to, 0o700).at("creating", to)?;
    }
    // Before anything is in it: what is in a directory that nobody finds is lost.
    disk.sync_directory(&parent(to)).at("syncing", &parent(to))?;
    for name in disk.list(from).at("listing", from)? {
        if is_of_log(&name) {
            let path = from.join(&name);
            disk.rename(&path, &to.join(&name)).at("renaming", &path)?;
        }
    }
    disk.sync_directory(to).at("syncing", to)?;
    disk.sync_directory(from).at("syncing", from)
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    if is_directory(disk, path)? {
        disk.remove_tree(path).at("removing", path)?;
        disk.sync_directory(&parent(path)).at("syncing", &parent(path))?;
    }
    Ok(())
}
