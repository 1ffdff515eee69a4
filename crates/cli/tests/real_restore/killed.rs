//! Restores that die on the way. Whenever that is, the old directory is whole, no etcd can start on
//! a mixture, and there is a way on and a way back.

use crate::booted::hashes;
use crate::command::{done, refused, rekindle, restore_alone};
use crate::listing::{Entry, aside, listing, names};
use crate::sources::Source;
use rekindle_testkit::Version;
use rekindle_testkit::etcd::Cluster;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A process that writes beyond its limit gets it.
const SIGXFSZ: i32 = 25;

/// A machine may be too busy for a kill to come in time; so often it is tried.
const ATTEMPTS: usize = 20;

/// An etcd that has stopped, and the restore that is to replace its directory.
struct Scene {
    cluster: Cluster,
    old: Vec<Entry>,
    args: Vec<String>,
    _kept: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let cluster = Cluster::with(Version::LATEST).start();
        cluster.etcdctl(["put", "old", "content"]);
        cluster.member(0).stop();
        let kept = tempfile::tempdir().unwrap();
        let snapshot = Source::kubernetes().write(kept.path());
        let args = restore_alone(&snapshot, cluster.sites(), &["--bump-revision=0", "--yes"]);
        let old = listing(cluster.member(0).data_dir());
        Self { cluster, old, args, _kept: kept }
    }

    fn data_dir(&self) -> &Path {
        self.cluster.member(0).data_dir()
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let name = self.data_dir().file_name().unwrap().to_str().unwrap();
        self.data_dir().with_file_name(format!("{name}{suffix}"))
    }

    /// A restore was interrupted and has left its journal.
    fn is_interrupted(&self) -> bool {
        self.journal().exists()
    }

    fn journal(&self) -> PathBuf {
        self.beside(".restore.json")
    }

    fn is_old_in_place(&self) -> bool {
        self.data_dir().is_dir() && listing(self.data_dir()) == self.old
    }

    /// Wherever the old directory is, it is whole and there once.
    fn check_old_is_whole(&self) {
        let mut places = aside(self.data_dir(), "before");
        places.extend([self.data_dir().to_owned(), self.beside(".blocked")]);
        places.retain(|place| place.is_dir() && listing(place) == self.old);
        assert_eq!(places.len(), 1, "{:?}", names(self.data_dir().parent().unwrap()));
        if self.data_dir().is_file() {
            let mut etcd = Command::new(Version::LATEST.binary("etcd"));
            etcd.env_clear().arg("--data-dir").arg(self.data_dir());
            etcd.args(["--listen-peer-urls=http://127.0.0.1:0"]);
            etcd.args(["--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls="]);
            let output = etcd.output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && told.contains("not a directory"), "{told}");
        }
    }

    /// The restored directory is in place, boots and is right; then the old one comes back.
    fn check_restored_and_roll_back(&self) {
        let before = aside(self.data_dir(), "before");
        assert_eq!(before.len(), 1, "{before:?}");
        assert_eq!(listing(&before[0]), self.old);
        let member = self.cluster.member(0);
        member.start();
        let source = Source::kubernetes();
        assert_eq!(hashes(&self.cluster, source.revision), [source.hash]);
        assert_eq!(self.cluster.etcdctl(["get", "old"]), "");
        self.cluster.etcdctl(["put", "written", "after the restore"]);
        member.stop();
        self.end_earlier("--rollback");
        for undone in aside(self.data_dir(), "undone") {
            fs::remove_dir_all(undone).unwrap();
        }
        self.check_nothing_is_left();
    }

    /// The old directory is in place, and what restores leave beside it is gone.
    fn check_nothing_is_left(&self) {
        assert!(self.is_old_in_place());
        assert_eq!(names(self.cluster.sites().dir()), ["m0", "m0.log"]);
    }

    /// `--resume` or `--rollback`.
    fn end_earlier(&self, verb: &str) -> String {
        let data_dir = format!("--data-dir={}", self.data_dir().display());
        done(["restore", verb, "--yes", &data_dir])
    }

    /// Runs the restore and kills it as soon as the moment has come.
    fn kill_when(&self, reached: fn(&Self) -> bool) {
        let mut command = rekindle(&self.args);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() && !reached(self) {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Restores, whatever an interrupted restore has left.
    fn go_on(&self, way: &str) {
        if !self.is_interrupted() {
            if self.is_old_in_place() {
                done(&self.args);
            }
            return;
        }
        let again = rekindle(&self.args).output().unwrap();
        if again.status.success() {
            return;
        }
        let told = String::from_utf8(again.stderr).unwrap();
        assert!(told.contains("finish it with restore --resume"), "{told}");
        self.end_earlier(way);
        if way == "--rollback" {
            assert!(self.is_old_in_place());
            done(&self.args);
        }
    }
}

/// Limits of a file's size, in blocks of 512 bytes, at which writing ends: at the journal, in the
/// database, in the room reserved for the log.
const LIMITS: [u32; 3] = [0, 8, 60_000];

#[test]
fn a_restore_that_dies_while_it_builds_can_be_repeated() {
    let scene = Scene::new();
    let data_dir = format!("--data-dir={}", scene.data_dir().display());
    for blocks in LIMITS {
        let die = || {
            let limited = format!("ulimit -c 0; ulimit -f {blocks}; exec \"$@\"");
            let mut command = Command::new("sh");
            command.env_clear().args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_rekindle")]);
            let output = command.args(&scene.args).output().unwrap();
            assert_eq!(output.status.signal(), Some(SIGXFSZ), "{blocks} blocks: {output:?}");
            assert!(scene.is_old_in_place());
        };
        die();
        done(&scene.args);
        scene.check_restored_and_roll_back();
        if blocks > 0 {
            // There is a journal: it can be cleared away, too.
            die();
            let told = refused(6, ["restore", "--resume", &data_dir]);
            assert!(told.contains("restore again"), "{told}");
            scene.check_nothing_is_left();
            die();
            scene.end_earlier("--rollback");
            scene.check_nothing_is_left();
        }
    }
}

/// What shows from outside how far a restore is.
const MOMENTS: [fn(&Scene) -> bool; 8] = [
    Scene::is_interrupted,
    |scene| scene.beside(".part/member/snap/db").exists(),
    |scene| scene.beside(".part/member/wal/0000000000000000-0000000000000000.wal").exists(),
    |scene| scene.beside(".blocked").exists(),
    |scene| fs::read_to_string(scene.journal()).is_ok_and(|text| text.contains("swapping")),
    |scene| scene.data_dir().is_file(),
    |scene| !aside(scene.data_dir(), "before").is_empty(),
    |scene| scene.data_dir().is_dir() && !aside(scene.data_dir(), "before").is_empty(),
];

#[test]
fn a_restore_killed_at_any_moment_can_be_finished_or_taken_back() {
    let scene = Scene::new();
    // How many are met depends on the scheduler; that each has its way out, tests on a simulated
    // disk show one by one.
    let mut met = 0;
    for reached in MOMENTS {
        for way in ["--resume", "--rollback"] {
            let came_in_time = (0..ATTEMPTS).any(|_| {
                scene.kill_when(reached);
                scene.check_old_is_whole();
                let interrupted = scene.is_interrupted();
                scene.go_on(way);
                scene.check_restored_and_roll_back();
                interrupted
            });
            met += usize::from(came_in_time);
        }
    }
    assert!(met > 0, "no restore was interrupted");
}
