//! What lies in directories, told so that every change shows.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file or directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Below the directory that was listed; that itself is the empty path.
    pub path: PathBuf,
    pub mode: u32,
    pub owner: (u32, u32),
    /// Which one it is, how long, and when it was last written.
    state: (u64, u64, i64, i64),
}

/// The directory and everything below it, sorted.
pub fn listing(directory: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    list(directory, Path::new(""), &mut entries);
    entries.sort();
    entries
}

fn list(directory: &Path, below: &Path, entries: &mut Vec<Entry>) {
    let path = directory.join(below);
    let found = fs::symlink_metadata(&path).unwrap();
    entries.push(Entry {
        path: below.to_owned(),
        mode: found.mode() & 0o7777,
        owner: (found.uid(), found.gid()),
        state: (found.ino(), found.size(), found.mtime(), found.mtime_nsec()),
    });
    if found.is_dir() {
        for entry in fs::read_dir(&path).unwrap() {
            list(directory, &below.join(entry.unwrap().file_name()), entries);
        }
    }
}

/// The names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What was set aside beside a directory, or put there by a rollback: `word` is its name's.
pub fn aside(directory: &Path, word: &str) -> Vec<PathBuf> {
    let prefix = format!("{}.{word}-", directory.file_name().unwrap().to_str().unwrap());
    let parent = directory.parent().unwrap();
    let names = names(parent);
    names.iter().filter(|name| name.starts_with(&prefix)).map(|name| parent.join(name)).collect()
}
