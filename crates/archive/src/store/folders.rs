//! Folders of a directory in which nothing is any more. Other stores have none: there a folder is a part of names.
//!
//! What may never happen here: a folder removed that has anything in it, or the directory itself.

use super::{Store, StoreFault};
use std::fs;
use std::io;
use std::path::Path;

impl Store {
    /// Removes what is empty of the folders in one, where their names are such: they, and what folders are in them. Nobody
    /// may be about to create anything in these.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn remove_empty_folders(
        &self,
        folder: &str,
        such: impl Fn(&str) -> bool,
    ) -> Result<(), StoreFault> {
        let Some(root) = &self.objects.root else { return Ok(()) };
        self.objects.check_root("tidying", folder)?;
        let path = root.path().join(folder);
        let removed = folders_in(&path).map(|found| {
            let name = |it: &fs::DirEntry| it.file_name().to_str().is_some_and(&such);
            found.iter().filter(|it| name(it)).for_each(|it| remove_empty(&it.path()));
        });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|error| super::staged::fault("tidying", &path, &error)),
        }
    }
}

/// Links are none.
fn folders_in(path: &Path) -> io::Result<Vec<fs::DirEntry>> {
    let entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries.into_iter().filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())).collect())
}

/// What cannot be removed, because there is something in it or for another reason, does no harm.
fn remove_empty(path: &Path) {
    folders_in(path).unwrap_or_default().iter().for_each(|inner| remove_empty(&inner.path()));
    let _ = fs::remove_dir(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_empty_stays_and_so_does_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let store = Store::directory(directory.path()).unwrap();
        for name in ["a/1/x", "a/1/y", "a/2", "a/other", "b/1"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("a/1/y/file"), "").unwrap();
        std::os::unix::fs::symlink(path("b"), path("a/3")).unwrap();
        store.remove_empty_folders("a", |name| name.len() == 1).unwrap();
        let is_there = |name: &str| path(name).symlink_metadata().is_ok();
        for (name, want) in [
            ("a/1/x", false),
            ("a/1/y/file", true),
            ("a/2", false),
            ("a/3", true),
            ("a/other", true),
            ("b/1", true),
        ] {
            assert_eq!(is_there(name), want, "{name}");
        }
        store.remove_empty_folders("b", |_| true).unwrap();
        assert!(is_there("b") && !is_there("b/1"));
        store.remove_empty_folders("nothing", |_| true).unwrap();
        Store::memory().unwrap().remove_empty_folders("a", |_| true).unwrap();
    }
}
