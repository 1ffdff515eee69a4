//! The real file system.

use crate::disk::{Disk, Identity, Lock, NewFile, Stat};
use crate::files::Files;
use rustix::fs::{CWD, FlockOperation, RenameFlags, XattrFlags};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Where SELinux keeps a file's label.
const SECURITY_LABEL: &str = "security.selinux";

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        DirBuilder::new().mode(mode).create(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(mode))
    }

    fn create_files(&self, paths: &[&Path], mode: u32) -> io::Result<Box<dyn NewFile + '_>> {
        Ok(Box::new(Files::create(paths, mode)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        let Some(found) = if_there(std::fs::symlink_metadata(path))? else { return Ok(None) };
        Ok(Some(Stat {
            identity: Identity { device: found.dev(), inode: found.ino() },
            is_directory: found.is_dir(),
            mode: found.permissions().mode() & 0o7777,
        }))
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        if_there(std::fs::read(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = std::fs::read_dir(path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn adopt(&self, path: &Path, like: &Path) -> io::Result<()> {
        let (new, old) = (std::fs::symlink_metadata(path)?, std::fs::symlink_metadata(like)?);
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            std::os::unix::fs::lchown(path, Some(old.uid()), Some(old.gid()))?;
        }
        let mut label = [0_u8; 4096];
        match rustix::fs::lgetxattr(like, SECURITY_LABEL, &mut label) {
            Ok(length) => {
                let label = &label[..length.min(label.len())];
                Ok(rustix::fs::lsetxattr(path, SECURITY_LABEL, label, XattrFlags::empty())?)
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = File::open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        // bbolt locks with flock(2), as the standard library does.
        let Some(file) = if_there(File::open(path))? else { return Ok(false) };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Files of the log have fcntl(2)'s (etcd's client/pkg/fileutil/lock_linux.go).
        let Ok(file) = File::options().read(true).write(true).open(path) else { return Ok(false) };
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(false),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// An flock(2) lasts as long as the handle.
impl Lock for File {}

/// Makes an answer of "nothing is there".
fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Bytes that a file system has left for whoever asks, at the nearest directory above that is there.
///
/// # Errors
/// What the system says.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let found = rustix::fs::statvfs(there)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
