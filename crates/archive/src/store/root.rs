//! The directory that a store was opened with, and whether it is still there: what is unmounted leaves an empty
//! directory behind, on a disk where nobody wants backups.

use super::{Objects, StoreFault, StoreFaultKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory, and what it is known by.
#[derive(Clone, Debug)]
pub(super) struct Root(Arc<(PathBuf, Option<Identity>)>);

/// File system and number, as stat(2) has them.
type Identity = (u64, u64);

impl Root {
    pub(super) fn new(path: &Path) -> Self {
        Self(Arc::new((path.to_owned(), identity(path))))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0.0
    }
}

fn identity(path: &Path) -> Option<Identity> {
    path.metadata().ok().map(|found| (found.dev(), found.ino()))
}

impl Objects {
    /// Nothing is made below a directory that has gone, and what lies below another one is not what this store has.
    pub(super) fn check_root(&self, doing: &'static str, name: &str) -> Result<(), StoreFault> {
        let Some(Root(root)) = &self.root else { return Ok(()) };
        let (path, known) = &**root;
        let found = identity(path);
        if found.is_some() && found == *known {
            return Ok(());
        }
        let is = if found.is_none() { "is gone" } else { "is another directory than it was" };
        Err(StoreFault {
            doing,
            object: self.full_name(name),
            kind: StoreFaultKind::Unmounted,
            cause: format!("{} {is}", path.display()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Store, StoreFaultKind};
    use std::fs;

    #[test]
    fn nothing_is_made_below_a_directory_that_has_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (here, away) = (directory.path().join("here"), directory.path().join("away"));
        fs::create_dir(&here).unwrap();
        let store = Store::directory(&here).unwrap();
        store.create("a/1", b"x".to_vec()).unwrap();
        let check = |want: &str| {
            let faults = [
                store.create("b/1", b"x".to_vec()).unwrap_err(),
                store.replace("b/1", b"x".to_vec().into()).unwrap_err(),
                store.list("a").unwrap_err(),
                store.is_empty().unwrap_err(),
            ];
            for fault in faults {
                assert_eq!(fault.kind, StoreFaultKind::Unmounted, "{fault}");
                assert!(fault.cause.ends_with(want), "{fault}");
            }
        };
        // As a file system that is unmounted, and one that is mounted over it.
        fs::rename(&here, &away).unwrap();
        check("is gone");
        assert!(!here.exists());
        fs::create_dir(&here).unwrap();
        check("is another directory than it was");
        assert_eq!(fs::read_dir(&here).unwrap().count(), 0);
        fs::remove_dir(&here).unwrap();
        fs::rename(&away, &here).unwrap();
        store.create("b/1", b"x".to_vec()).unwrap();
        assert_eq!(store.list("a").unwrap().len(), 1);
    }
}
