//! Where a restore builds, what it exchanges, and where it sets aside what was there.
//!
//! ```text
//! <data-dir>                 etcd's
//! <data-dir>.part            the new one while it is built
//! <data-dir>.before-<time>   the old one afterwards; never deleted
//! <data-dir>.blocked         a file that takes etcd's place while directories are exchanged
//! <data-dir>.restore.json    the journal: there only while a restore is under way
//! ```
//!
//! A data directory that is a mount point cannot be renamed: there `member` below it takes its
//! place in all of these. A WAL directory of its own is exchanged like the data directory, and where
//! it is a mount point, its files one by one.

use crate::disk::Disk;
use crate::error::{At, Error};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The directories of one member and all that is named after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As etcd is told: `--data-dir`.
    pub data_dir: PathBuf,
    /// What is exchanged: the data directory, or `member` below it.
    pub(crate) swapped: PathBuf,
    /// Where the data directory's content begins below what is exchanged: empty, or `member`.
    pub(crate) below: &'static str,
    /// A WAL directory of its own.
    pub wal: Option<WalPlace>,
}

/// A WAL directory outside the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalPlace {
    /// As etcd is told: `--wal-dir`.
    pub wal_dir: PathBuf,
    /// It is a mount point.
    pub is_mount_point: bool,
}

impl Place {
    /// The place of a data directory, given what is mounted. Both paths are absolute and without
    /// links.
    #[must_use]
    pub fn new(data_dir: &Path, wal_dir: Option<&Path>, mount_points: &[PathBuf]) -> Self {
        let is_mount_point = |path: &Path| mount_points.iter().any(|mount| mount == path);
        let (swapped, below) = if is_mount_point(data_dir) {
            (data_dir.join("member"), "member")
        } else {
            (data_dir.to_owned(), "")
        };
        // Where etcd has its WAL anyway is no directory of its own.
        let wal_dir = wal_dir.filter(|wal_dir| *wal_dir != data_dir.join("member/wal"));
        let wal = wal_dir.map(|wal_dir| WalPlace {
            wal_dir: wal_dir.to_owned(),
            is_mount_point: is_mount_point(wal_dir),
        });
        Self { data_dir: data_dir.to_owned(), swapped, below, wal }
    }

    /// What is exchanged.
    #[must_use]
    pub fn swapped(&self) -> &Path {
        &self.swapped
    }

    pub(crate) fn part(&self) -> PathBuf {
        with_suffix(&self.swapped, ".part")
    }

    pub(crate) fn blocked(&self) -> PathBuf {
        with_suffix(&self.swapped, ".blocked")
    }

    /// The journal of a restore under way.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        with_suffix(&self.swapped, ".restore.json")
    }

    /// Where what was there goes.
    #[must_use]
    pub fn before(&self, time: &str) -> PathBuf {
        with_suffix(&self.swapped, &format!(".before-{time}"))
    }

    /// Where a restore that is rolled back goes.
    #[must_use]
    pub fn undone(&self, time: &str) -> PathBuf {
        with_suffix(&self.swapped, &format!(".undone-{time}"))
    }

    /// The database below a directory that is, or will be, exchanged.
    pub(crate) fn database_in(&self, swapped: &Path) -> PathBuf {
        swapped.join(self.strip("member/snap/db"))
    }

    /// A path below the data directory as one below what is exchanged.
    pub(crate) fn strip<'a>(&self, path: &'a str) -> &'a Path {
        let path = Path::new(path);
        path.strip_prefix(self.below).unwrap_or(path)
    }

    /// The newest of what earlier restores have set aside, with the time in its name.
    pub(crate) fn newest_before(
        &self,
        disk: &dyn Disk,
    ) -> Result<Option<(PathBuf, String)>, Error> {
        let parent = parent(&self.swapped);
        let prefix = file_name(&self.before("")).into_string().unwrap_or_default();
        let names = disk.list(&parent).at("listing", &parent)?;
        let times = names.iter().filter_map(|name| name.strip_prefix(&prefix));
        let newest = times.filter(|time| is_time(time)).max();
        Ok(newest.map(|time| (self.before(time), time.to_owned())))
    }
}

impl WalPlace {
    pub(crate) fn part(&self) -> PathBuf {
        if self.is_mount_point {
            self.wal_dir.join("restore.part")
        } else {
            with_suffix(&self.wal_dir, ".part")
        }
    }

    /// Where the old log goes.
    #[must_use]
    pub fn before(&self, time: &str) -> PathBuf {
        self.aside("before", time)
    }

    pub(crate) fn undone(&self, time: &str) -> PathBuf {
        self.aside("undone", time)
    }

    fn aside(&self, word: &str, time: &str) -> PathBuf {
        if self.is_mount_point {
            self.wal_dir.join(format!("{word}-{time}"))
        } else {
            with_suffix(&self.wal_dir, &format!(".{word}-{time}"))
        }
    }
}

/// Whether this is a time as restores write it, `20261120T101112Z`, and not some other word.
fn is_time(text: &str) -> bool {
    let pattern = b"00000000T000000Z";
    text.len() == pattern.len()
        && text.bytes().zip(pattern).all(|(byte, model)| match model {
            b'0' => byte.is_ascii_digit(),
            letter => byte == *letter,
        })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = file_name(path);
    name.push(suffix);
    path.with_file_name(name)
}

fn file_name(path: &Path) -> OsString {
    path.file_name().unwrap_or_default().to_owned()
}

pub(crate) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("/"),
    }
}

/// Makes the directories above a path.
pub(crate) fn make_parents(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    let parent = parent(path);
    if parent == path || disk.stat(&parent).at("looking at", &parent)?.is_some() {
        return Ok(());
    }
    make_parents(disk, &parent)?;
    disk.create_directory(&parent, 0o700).at("creating", &parent)?;
    let above = self::parent(&parent);
    disk.sync_directory(&above).at("syncing", &above)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(data: &str, wal: Option<&str>, mounts: &[&str], want: &[(&str, &str)]) {
        let mounts: Vec<_> = mounts.iter().map(PathBuf::from).collect();
        let place = Place::new(Path::new(data), wal.map(Path::new), &mounts);
        let mut got = vec![
            ("swapped", place.swapped.clone()),
            ("part", place.part()),
            ("before", place.before("T")),
            ("journal", place.journal()),
            ("database", place.database_in(&place.part())),
        ];
        if let Some(wal) = &place.wal {
            got.extend([("wal part", wal.part()), ("wal before", wal.before("T"))]);
        }
        let got: Vec<_> = got.iter().map(|(name, path)| (*name, path.to_str().unwrap())).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn a_plain_directory() {
        check(
            "/var/lib/etcd",
            None,
            &["/", "/var"],
            &[
                ("swapped", "/var/lib/etcd"),
                ("part", "/var/lib/etcd.part"),
                ("before", "/var/lib/etcd.before-T"),
                ("journal", "/var/lib/etcd.restore.json"),
                ("database", "/var/lib/etcd.part/member/snap/db"),
            ],
        );
    }

    #[test]
    fn a_mount_point_with_the_log_on_another() {
        check(
            "/var/lib/etcd",
            Some("/wal"),
            &["/var/lib/etcd", "/wal"],
            &[
                ("swapped", "/var/lib/etcd/member"),
                ("part", "/var/lib/etcd/member.part"),
                ("before", "/var/lib/etcd/member.before-T"),
                ("journal", "/var/lib/etcd/member.restore.json"),
                ("database", "/var/lib/etcd/member.part/snap/db"),
                ("wal part", "/wal/restore.part"),
                ("wal before", "/wal/before-T"),
            ],
        );
    }

    #[test]
    fn a_log_beside_the_data_and_one_in_it() {
        check(
            "/d/etcd",
            Some("/w/log"),
            &[],
            &[
                ("swapped", "/d/etcd"),
                ("part", "/d/etcd.part"),
                ("before", "/d/etcd.before-T"),
                ("journal", "/d/etcd.restore.json"),
                ("database", "/d/etcd.part/member/snap/db"),
                ("wal part", "/w/log.part"),
                ("wal before", "/w/log.before-T"),
            ],
        );
        let place = Place::new(Path::new("/d"), Some(Path::new("/d/member/wal")), &[]);
        assert_eq!(place.wal, None);
    }

    #[test]
    fn what_was_set_aside_is_told_by_its_time() {
        assert!(is_time("20261120T101112Z"));
        for other in ["upgrade-3.7.tgz", "", "20261120T101112Zx", "2026112xT101112Z"] {
            assert!(!is_time(other), "{other}");
        }
    }
}
