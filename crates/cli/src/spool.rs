//! The spool: where a snapshot lies while it is worked on. It is never on etcd's own disk unasked.

use crate::failure::Failure;
use crate::output;
use crate::restore::free_space;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where root keeps snapshots on their way.
const SPOOL_OF_ROOT: &str = "/var/lib/rekindle/spool";
/// Room beside the snapshot that should stay free.
const SPACE_MARGIN: u64 = 64 << 20;
/// Where an etcd of this host usually has its log.
const ETCDS_LOG: &str = "/var/lib/etcd/member/wal";

/// A snapshot on its way.
#[derive(Debug)]
pub(crate) struct Spool {
    /// The file, but for `.part` behind it.
    pub file: PathBuf,
}

impl Spool {
    /// `name` is that of the file; two with the same name wait for each other.
    pub(crate) fn new(directory: Option<&Path>, name: &str) -> Result<Self, Failure> {
        let named = directory.map(Path::to_owned).or_else(crate::configured::spool);
        let directory = named.or_else(default).ok_or_else(|| {
            Failure::usage("there is no place for the snapshot on its way")
                .remedy("name one: --spool")
        })?;
        let directory = std::path::absolute(&directory)
            .map_err(|error| Failure::io("looking at", &directory, &error))?;
        Ok(Self { file: directory.join(name) })
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
    }

    /// Whoever writes there delays etcd's own writes.
    pub(crate) fn warn_of_etcds_disk(&self) {
        let there = self.directory().ancestors().find(|path| path.exists());
        if there.is_some_and(shares_disk_with_etcd) {
            eprintln!(
                "warning: the spool {} is on the disk of {ETCDS_LOG}: a snapshot that is written there slows \
                 etcd down; name another disk with --spool",
                self.directory().display()
            );
        }
    }

    /// The snapshot lies here as a whole.
    pub(crate) fn check_space(&self, snapshot: u64) -> Result<(), Failure> {
        let there = self.directory().ancestors().find(|path| path.exists());
        let there = there.unwrap_or(Path::new("/"));
        // What a killed run has left makes way for this one.
        let leftover = self.file.with_added_extension("part");
        let leftover = std::fs::metadata(leftover).map_or(0, |found| found.len());
        let free = free_space(there)?.saturating_add(leftover);
        let need = snapshot.saturating_add(SPACE_MARGIN);
        self.warn_of_etcds_disk();
        if free >= need {
            return Ok(());
        }
        let what = format!(
            "{} has {} free, and the snapshot may need {}",
            there.display(),
            output::bytes(free),
            output::bytes(need)
        );
        Err(Failure::refused(what).remedy("make room, or name another place: --spool"))
    }
}

fn shares_disk_with_etcd(spool: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
    device(Path::new(ETCDS_LOG)).is_some_and(|log| device(spool) == Some(log))
}

fn default() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from(SPOOL_OF_ROOT));
    }
    let caches = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    caches.map(|caches| caches.join("rekindle/spool"))
}
