//! The snapshots that are measured on: written by a real etcd, made once, kept beside the tools.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::rows::Programs;
use crate::etcd::{Etcd, Site};
use crate::interrupt::Interrupt;
use crate::{checkout, etcd, tools};

/// Keys of 2 KB that make a db of 1 GB: etcd puts one into each page of 4 KiB.
const KEYS_PER_GB: f64 = 250_000.0;

/// Larger than any db here; etcd's own default is 2 GB.
const QUOTA: u64 = 16 << 30;

/// A server that has a large db reads all of it first.
const START_WITHIN: Duration = Duration::from_secs(120);

/// What makes the keys: a snapshot of an older one is made anew.
const FILLER: &str = "crates/client/examples/fill.rs";

/// A snapshot to measure on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub path: PathBuf,
    pub bytes: u64,
    /// How many keys were ever written.
    pub keys: u64,
}

/// Where snapshots are kept and outputs go: on one disk, of this run alone until it is dropped.
pub struct Store<'a> {
    root: PathBuf,
    work: PathBuf,
    programs: &'a Programs,
    interrupt: &'a Interrupt,
    _lock: File,
}

impl<'a> Store<'a> {
    pub fn open(programs: &'a Programs, interrupt: &'a Interrupt) -> Result<Self> {
        let root = tools::place("bench")?;
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let lock = File::create(root.join(".lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another `cargo xtask bench` is running"),
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the data"),
        }
        let work = root.join("work");
        // What a killed run has left.
        remove(&work)?;
        fs::create_dir(&work)?;
        Ok(Self { root, work, programs, interrupt, _lock: lock })
    }

    /// A path for what a job makes.
    pub fn output(&self) -> PathBuf {
        self.work.join("out")
    }

    /// A path for what several rows need. It stays until the store goes.
    pub fn kept(&self, name: &str) -> PathBuf {
        self.work.join(format!("kept-{name}"))
    }

    /// Keys as they were written, `size` GB of them.
    pub fn plain(&self, size: f64) -> Result<Snapshot> {
        self.snapshot("plain", size)
    }

    /// The same, a part of them written again or deleted, and the history compacted.
    pub fn compacted(&self, size: f64) -> Result<Snapshot> {
        self.snapshot("compacted", size)
    }

    fn snapshot(&self, kind: &str, size: f64) -> Result<Snapshot> {
        let filler = fs::read(checkout::root().join(FILLER)).context("cannot read the filler")?;
        let digest = tools::digest_of([(FILLER.to_owned(), filler)]);
        let path = self.root.join(format!("{kind}-{size}-{}.db", &digest[..8]));
        let keys = keys(size);
        if !path.exists() {
            self.make(kind, keys, &path)?;
            self.remove_older(&format!("{kind}-{size}-"), &path)?;
        }
        Ok(Snapshot { bytes: fs::metadata(&path)?.len(), path, keys })
    }

    fn make(&self, kind: &str, keys: u64, path: &Path) -> Result<()> {
        eprint!("making {} ({keys} keys)", path.display());
        let began = Instant::now();
        let server = self.empty_server()?;
        let endpoint = server.endpoint();
        let count = keys.to_string();
        let mut fill = vec![self.programs.fill.as_str(), &endpoint, &count];
        if kind == "compacted" {
            fill.push(kind);
        }
        checkout::run_quietly(&mut etcd::command(&fill))?;
        let part = self.work.join("part");
        let target = part.display().to_string();
        let save = [&self.programs.etcdctl, "snapshot", "save", &target, "--endpoints", &endpoint];
        checkout::run_quietly(&mut etcd::command(&save))?;
        drop(server);
        fs::rename(&part, path)?;
        eprintln!(" — {:.0} s", began.elapsed().as_secs_f64());
        Ok(())
    }

    fn remove_older(&self, prefix: &str, newest: &Path) -> Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(prefix) && path != newest {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// A server with the keys of a snapshot, which etcdutl has restored as they were.
    pub fn server(&self, snapshot: &Snapshot) -> Result<Server> {
        let folder = self.folder()?;
        let (file, target) = (snapshot.path.display().to_string(), data_dir(&folder));
        let restore = [&self.programs.etcdutl, "snapshot", "restore", &file, "--data-dir", &target];
        checkout::run_quietly(&mut etcd::command(&restore))?;
        self.serve(folder, &[])
    }

    /// A server without keys, which does not wait for its disk.
    pub fn empty_server(&self) -> Result<Server> {
        self.serve(self.folder()?, &["--unsafe-no-fsync"])
    }

    /// A server without keys, which does.
    pub fn durable_server(&self) -> Result<Server> {
        self.serve(self.folder()?, &[])
    }

    /// Kills a server, and starts it again with what it has, at another address.
    pub fn killed(&self, server: Server) -> Result<Server> {
        let Server { _etcd, _folder, .. } = server;
        drop(_etcd);
        self.serve(_folder, &[])
    }

    fn folder(&self) -> Result<TempDir> {
        Ok(tempfile::tempdir_in(&self.work)?)
    }

    fn serve(&self, folder: TempDir, options: &[&str]) -> Result<Server> {
        let [site] = Site::find(["default"])?;
        let mut words = vec![self.programs.etcd.clone()];
        words.extend(site.arguments(&data_dir(&folder)));
        words.extend(["--quota-backend-bytes".to_owned(), QUOTA.to_string()]);
        words.extend(options.iter().map(|&option| option.to_owned()));
        let log = folder.path().join("log");
        let mut server = Etcd::start(&site, etcd::command(&words), &log)?;
        server.wait_until_healthy(START_WITHIN, self.interrupt)?;
        Ok(Server { site, _etcd: server, _folder: folder })
    }

    /// A copy that a job may modify.
    pub fn copy(&self, snapshot: &Snapshot) -> Result<PathBuf> {
        let copy = self.work.join("copy");
        fs::copy(&snapshot.path, &copy).context("cannot copy the snapshot")?;
        Ok(copy)
    }
}

impl Drop for Store<'_> {
    fn drop(&mut self) {
        // What stays is removed by the next run.
        let _ = remove(&self.work);
    }
}

/// A server with some keys. When it goes, it is ended first, and then its folder removed.
pub struct Server {
    site: Site,
    _etcd: Etcd,
    _folder: TempDir,
}

impl Server {
    pub fn endpoint(&self) -> String {
        self.site.endpoint()
    }
}

fn data_dir(folder: &TempDir) -> String {
    folder.path().join("data").display().to_string()
}

/// Removes a file, or a folder with all that is in it, if there is one.
pub fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

fn keys(size: f64) -> u64 {
    (size * KEYS_PER_GB).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_make_as_many_keys() {
        assert_eq!([0.1, 0.4, 1.6, 6.0].map(keys), [25_000, 100_000, 400_000, 1_500_000]);
    }
}
