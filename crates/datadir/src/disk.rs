//! The door to the file system. [`RealDisk`](crate::RealDisk) is the real one; tests have one that
//! fails at any operation and one that loses what was not synced.
//!
//! A caller that wants something to survive a power cut says so: a file by
//! [`NewFile::sync`], an entry of a directory by [`Disk::sync_directory`].

use std::io;
use std::path::Path;

/// What the data directory's code asks of a file system.
pub trait Disk: Sync {
    /// Makes a directory with these permissions, which the umask does not narrow.
    ///
    /// # Errors
    /// Also where it exists.
    fn create_directory(&self, path: &Path, mode: u32) -> io::Result<()>;

    /// Makes new files, one at each path, all of which get what is written.
    ///
    /// # Errors
    /// Also where one exists.
    fn create_files(&self, paths: &[&Path], mode: u32) -> io::Result<Box<dyn NewFile + '_>>;

    /// Moves a file or directory; the new place is free, or an empty directory.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Exchanges two files or directories in one step.
    ///
    /// # Errors
    /// Whatever the medium reports; some file systems cannot.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory's entries durable.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// What is at a path, links not followed; `None`: nothing.
    ///
    /// # Errors
    /// Whatever the medium reports but that nothing is there.
    fn stat(&self, path: &Path) -> io::Result<Option<Stat>>;

    /// A small file's bytes; `None` where there is none.
    ///
    /// # Errors
    /// Whatever the medium reports but that nothing is there.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Gives a new file or directory the owner and the security label of another.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn adopt(&self, path: &Path, like: &Path) -> io::Result<()>;

    /// Locks a file or directory against [`Disk::is_locked`] until the lock is dropped, or the
    /// process ends in whatever way.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where somebody else has it locked.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;

    /// Some process has locked the file or directory, as etcd locks its database.
    ///
    /// # Errors
    /// Whatever the medium reports; a file that is not there is not locked.
    fn is_locked(&self, path: &Path) -> io::Result<bool>;
}

/// Something locked; dropping it unlocks it.
pub trait Lock: std::fmt::Debug {}

/// New files that are being written, all alike.
pub trait NewFile: io::Write + Send {
    /// Writes at a place that was written before, or leaves a hole.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Gives the file room up to this length, zeros behind what was written.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn reserve(&mut self, length: u64) -> io::Result<()>;

    /// Makes all that was written durable.
    ///
    /// # Errors
    /// Whatever the medium reports; after that the file is not to be trusted.
    fn sync(&mut self) -> io::Result<()>;
}

/// What a path names, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// The device.
    pub device: u64,
    /// The file's number on it.
    pub inode: u64,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Which one it is.
    pub identity: Identity,
    /// It is a directory.
    pub is_directory: bool,
    /// Its permissions.
    pub mode: u32,
}
