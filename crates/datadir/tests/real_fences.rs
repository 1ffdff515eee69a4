//! A supervisor that starts etcd again between any two steps of a fence: whatever it has started is gone once the fence stands.

use rekindle_datadir::{Disk, Error, Fence, Fenced, Lock, NewFile, Place, RealDisk, Stat};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Hosts, Members};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A disk before one of whose operations something happens.
struct Watched<'a> {
    at: AtomicUsize,
    when: usize,
    then: &'a (dyn Fn() + Sync),
}

impl Watched<'_> {
    fn disk(&self) -> &'static RealDisk {
        if self.at.fetch_add(1, Ordering::Relaxed) == self.when {
            (self.then)();
        }
        &RealDisk
    }
}

impl Disk for Watched<'_> {
    fn create_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.disk().create_directory(path, mode)
    }

    fn create_files(&self, paths: &[&Path], mode: u32) -> io::Result<Box<dyn NewFile + '_>> {
        self.disk().create_files(paths, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk().rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        self.disk().exchange(one, other)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk().remove_file(path)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        self.disk().remove_tree(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.disk().sync_directory(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        self.disk().stat(path)
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.disk().read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk().list(path)
    }

    fn adopt(&self, path: &Path, like: &Path) -> io::Result<()> {
        self.disk().adopt(path, like)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.disk().lock(path)
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.disk().is_locked(path)
    }
}

/// An etcd that somebody starts on a data directory.
struct Etcd(Child);

impl Etcd {
    fn start(data: &Path) -> Self {
        let mut command = Command::new(Version::LATEST.binary("etcd"));
        command.env_clear().arg("--data-dir").arg(data);
        // Any port will do: nobody asks it.
        command.args([
            "--listen-client-urls=http://127.0.0.1:0",
            "--listen-peer-urls=http://127.0.0.1:0",
        ]);
        command.arg("--advertise-client-urls=http://127.0.0.1:0");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("etcd is started"))
    }

    /// Waits until it has the database, or has ended, or hangs at somebody else's lock.
    fn wait_until_it_has_begun(&mut self, database: &Path) {
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline && self.0.try_wait().unwrap().is_none() {
            if RealDisk.is_locked(database).unwrap_or(false) {
                return;
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    fn wait_until_it_has_ended(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it still runs");
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

/// What one of a cluster has left.
fn data(directory: &Path) -> PathBuf {
    let hosts = Hosts::start(Version::LATEST, Members(1), false);
    hosts.etcdctl(&["put", "/a", "1"]);
    let host = hosts.host(0);
    host.end();
    let data = directory.join("data");
    copy(&host.data_dir, &data);
    data
}

#[test]
fn nothing_that_is_started_between_two_steps_is_left_once_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let original = data(directory.path());
    let mut seen = 0;
    for when in 0.. {
        let data = directory.path().join(format!("data-{when}"));
        copy(&original, &data);
        let place = Place::new(&data, None, &[]);
        let fence = Fence::new(&place, "f1").unwrap();
        let started = Mutex::new(None);
        let start = || {
            let mut etcd = Etcd::start(&data);
            etcd.wait_until_it_has_begun(&data.join("member/snap/db"));
            *started.lock().unwrap() = Some(etcd);
        };
        let disk = Watched { at: AtomicUsize::new(0), when, then: &start };
        match fence.put(&disk, "why") {
            Ok(()) => {}
            // It was there first: it is stopped, and the fence put up then.
            Err(Error::InUse { .. }) => {
                seen += 1;
                drop(started.lock().unwrap().take());
                fence.put(&RealDisk, "why").unwrap();
            }
            Err(error) => panic!("{when}: {error}"),
        }
        let operations = disk.at.load(Ordering::Relaxed);
        let Some(mut etcd) = started.into_inner().unwrap() else {
            if operations <= when {
                assert!(seen > 0 && when > 5, "{seen} of {when}");
                return;
            }
            continue;
        };
        etcd.wait_until_it_has_ended();
        assert_eq!(fence.state(&RealDisk).unwrap(), Fenced::Yes, "{when}");
        assert!(data.is_file(), "{when}: something has come back in its place");
        let mut again = Etcd::start(&data);
        again.wait_until_it_has_ended();
        fence.undo(&RealDisk).unwrap();
        assert!(data.join("member/wal").is_dir());
    }
}
