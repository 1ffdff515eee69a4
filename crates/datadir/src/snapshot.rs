//! A snapshot file that appears under its name only when it is whole.

use crate::disk::{Disk, NewFile};
use crate::error::{At, Error};
use crate::place::{make_parents, parent};
use crate::restore::{Progress, Watched};
use rekindle_bolt::{Layout, ReadAt};
use rekindle_etcd::restore::{Source, copy};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// A snapshot that is being written, as `<name>.part` (the name that etcdctl uses). Dropped before
/// it is published, it leaves nothing behind.
pub struct NewSnapshot<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    part: PathBuf,
    file: Option<Box<dyn NewFile + 'a>>,
    published: bool,
}

/// A database that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its bytes.
    pub size: u64,
    /// Records in it.
    pub records: u64,
}

impl std::fmt::Debug for NewSnapshot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSnapshot").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<'a> NewSnapshot<'a> {
    /// Begins a snapshot that is to be called `path`, in place of a part that a killed run has left.
    /// Missing directories are made.
    ///
    /// # Errors
    /// [`Error::AtWork`] where another run is writing it; [`Error::NotAFile`] where a directory has
    /// the name; [`Error::Io`].
    pub fn create(disk: &'a dyn Disk, path: &Path) -> Result<Self, Error> {
        let is_directory = |path: &Path| {
            let found = disk.stat(path).at("looking at", path)?;
            Ok::<_, Error>(found.map(|found| found.is_directory))
        };
        let part = path.with_added_extension("part");
        for path in [path, &part] {
            if is_directory(path)? == Some(true) {
                return Err(Error::NotAFile { path: path.to_owned() });
            }
        }
        make_parents(disk, path)?;
        if is_directory(&part)?.is_some() {
            if disk.is_locked(&part).at("locking", &part)? {
                return Err(Error::AtWork { path: part });
            }
            disk.remove_file(&part).at("removing", &part)?;
        }
        let file = Some(disk.create_files(&[&part], 0o600).at("creating", &part)?);
        Ok(Self { disk, path: path.to_owned(), part, file, published: false })
    }

    /// Where it is until it is published.
    #[must_use]
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// The next bytes, in pieces, each of them worth a write of its own.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&mut self, pieces: &[impl AsRef<[u8]>]) -> Result<(), Error> {
        let mut pieces: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece.as_ref())).collect();
        let mut left = pieces.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        let Some(file) = &mut self.file else { return Ok(()) };
        while !left.is_empty() {
            let written = file.write_vectored(left).at("writing", &self.part)?;
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }

    /// Writes a database with the very content of `source` from front to back, and hands it to the
    /// file system. Its digest is still to come.
    ///
    /// # Errors
    /// [`Error::Rebuild`], [`Error::Io`], [`Error::Interrupted`].
    pub fn write_database<S: ReadAt>(
        &mut self,
        source: Source<'_, S>,
        layout: Layout,
        progress: &Progress,
    ) -> Result<Database, Error> {
        let Some(files) = self.file.take() else { return Err(Error::Interrupted) };
        let copied = copy(source, layout, Watched { files, progress });
        if progress.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let copied = copied?;
        let mut file = copied.file.out.files;
        file.write_at(&copied.file.metas, 0).at("writing", &self.part)?;
        self.file = Some(file);
        Ok(Database { size: copied.file.size, records: copied.records })
    }

    /// Hands all bytes to the file system, so that others can read them.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn flush(&mut self) -> Result<(), Error> {
        match &mut self.file {
            Some(file) => file.flush().at("writing", &self.part),
            None => Ok(()),
        }
    }

    /// Makes all bytes durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&mut self) -> Result<(), Error> {
        match &mut self.file {
            Some(file) => file.sync().at("syncing", &self.part),
            None => Ok(()),
        }
    }

    /// Gives the file its name, durably, in place of an earlier file of that name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn publish(mut self) -> Result<(), Error> {
        self.sync()?;
        // Its lock is held until it has its name: another run would take it for a leftover.
        self.disk.rename(&self.part, &self.path).at("renaming", &self.part)?;
        self.published = true;
        self.file = None;
        let parent = parent(&self.path);
        self.disk.sync_directory(&parent).at("syncing", &parent)
    }
}

impl Drop for NewSnapshot<'_> {
    fn drop(&mut self) {
        self.file = None;
        if !self.published {
            // Whoever failed has said so; the next run removes what this cannot.
            let _ = self.disk.remove_file(&self.part);
        }
    }
}
