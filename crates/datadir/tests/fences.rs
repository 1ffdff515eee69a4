//! Fences that fail at every operation in turn, and whose machine loses power at every one.
//!
//! Whatever happens: what was there is somewhere, whole; where etcd looks is what was there, what came, or a file; and the
//! same steps again lead to where they should.

use rekindle_datadir::{Error, Fence, Fenced, Place, RealDisk, fence_at};
use rekindle_testkit::sim_disk::SimDisk;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

const DATA: &str = "/var/lib/etcd";
const WAL: &str = "/wal/etcd";
const LOG: &str = "0000000000000000-0000000000000000.wal";
const ID: &str = "r1";
const SEEDS: u64 = 6;

type Tree = BTreeMap<String, Option<Vec<u8>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Put,
    Stage,
    Open,
    OpenEmpty,
    Undo,
}
use Turn::{Open, OpenEmpty, Put, Stage, Undo};

#[derive(Clone)]
struct Scene {
    disk: SimDisk,
    place: Place,
    old: Vec<(PathBuf, Tree)>,
}

impl Scene {
    fn new(disk: SimDisk, wal: Option<&str>, mounts: &[&str]) -> Self {
        let mounts: Vec<_> = mounts.iter().map(PathBuf::from).collect();
        let place = Place::new(Path::new(DATA), wal.map(Path::new), &mounts);
        let log = wal.map_or(format!("{DATA}/member/wal"), str::to_owned);
        disk.put(&Path::new(DATA).join("member/snap/db"), b"the old database");
        disk.put(&Path::new(&log).join(LOG), b"the old log");
        let old = |path: &Path| (path.to_owned(), disk.tree(path));
        let mut trees = vec![old(place.swapped())];
        trees.extend(wal.map(|wal| old(Path::new(wal))));
        Self { old: trees, disk, place }
    }

    fn fence(&self) -> Fence<'_> {
        Fence::new(&self.place, ID).unwrap()
    }

    /// What a restore would have built.
    fn stage(&self) -> Result<(), Error> {
        let data = self.fence().staged_data_dir();
        if self.fence().state(&self.disk)? == Fenced::Yes {
            let log = self.fence().staged_wal_dir().unwrap_or(data.join("member/wal"));
            self.disk.put(&data.join("member/snap/db"), b"the new database");
            self.disk.put(&log.join(LOG), b"the new log");
        }
        Ok(())
    }

    /// The number of the turn that failed, and why.
    fn take(&self, turns: &[Turn]) -> Result<(), (usize, Error)> {
        let fence = self.fence();
        let take = |turn: &Turn| match turn {
            Put => fence.put(&self.disk, "why"),
            Stage => self.stage(),
            Open => fence.open(&self.disk),
            OpenEmpty => fence.open_empty(&self.disk),
            Undo => fence.undo(&self.disk),
        };
        let mut turns = turns.iter().enumerate();
        turns.try_for_each(|(number, turn)| take(turn).map_err(|error| (number, error)))
    }

    fn reads(&self, path: &Path) -> Option<Vec<u8>> {
        self.disk.tree(path).get("")?.clone()
    }

    /// The database and the log that an etcd would find.
    fn found(&self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let data = Path::new(DATA);
        let log = self.place.wal.as_ref().map(|wal| wal.wal_dir.clone());
        let log = log.unwrap_or(data.join("member/wal"));
        (self.reads(&data.join("member/snap/db")), self.reads(&log.join(LOG)))
    }

    #[track_caller]
    fn is_at_the_end_of(&self, turns: &[Turn], context: &str) {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        let want = match turns.last() {
            Some(Open) => (text("the new database"), text("the new log")),
            Some(Undo) => (text("the old database"), text("the old log")),
            _ => (None, None),
        };
        let has_log = self.place.wal.as_ref().is_none_or(|wal| !wal.is_mount_point);
        let found = self.found();
        assert_eq!(found.0, want.0, "{context}");
        assert!(
            found.1 == want.1 || !has_log && want.1.is_none(),
            "{context}: {:?}",
            self.disk.tree(Path::new("/wal")).keys()
        );
        let fenced = fence_at(&self.disk, &self.place).unwrap();
        assert_eq!(fenced.is_some(), matches!(turns.last(), Some(Put | Stage)), "{context}");
        if turns.last() != Some(&Undo) {
            let aside = self.disk.tree(&self.fence().set_aside());
            assert_eq!(aside, self.old[0].1, "{context}");
        }
    }

    /// At every moment: the old database is somewhere, and a directory is only where one should be.
    fn is_safe(&self, context: &str) {
        let database = self.old[0].1.iter().find(|(name, _)| name.ends_with("snap/db")).unwrap();
        let places = [self.place.swapped().to_owned(), self.fence().set_aside()];
        let has = |path: &PathBuf| self.disk.tree(path).get(database.0) == Some(database.1);
        assert!(places.iter().any(has), "{context}: the old database is gone");
        let (db, log) = self.found();
        // Never one of each.
        let is_old =
            |it: &Option<Vec<u8>>| it.as_ref().is_some_and(|it| it.starts_with(b"the old"));
        let is_new =
            |it: &Option<Vec<u8>>| it.as_ref().is_some_and(|it| it.starts_with(b"the new"));
        assert!(!(is_old(&db) && is_new(&log) || is_new(&db) && is_old(&log)), "{context}");
    }
}

fn scenes() -> Vec<(&'static str, Scene)> {
    vec![
        ("plain", Scene::new(SimDisk::new(), None, &[])),
        ("log beside", Scene::new(SimDisk::new(), Some(WAL), &[])),
        ("mount point", Scene::new(SimDisk::new(), None, &[DATA])),
        ("both mount points", Scene::new(SimDisk::new(), Some(WAL), &[DATA, WAL])),
        ("no exchange", Scene::new(SimDisk::new().without_exchange(), None, &[])),
    ]
}

const STORIES: &[&[Turn]] = &[
    &[Put],
    &[Put, OpenEmpty],
    &[Put, Undo],
    &[Put, Stage, Undo],
    &[Put, Stage, Open],
    &[Put, Stage, Open, Undo],
];

#[test]
fn each_step_can_be_taken_again_whatever_interrupted_it() {
    for (name, scene) in scenes() {
        for story in STORIES {
            let whole = Scene { disk: scene.disk.clone(), ..scene.clone() };
            whole.take(story).unwrap_or_else(|error| panic!("{name} {story:?}: {error:?}"));
            whole.is_at_the_end_of(story, &format!("{name} {story:?}"));
            for at in 0..whole.disk.operations() {
                interrupted(&scene, story, at, &format!("{name} {story:?} at {at}"));
            }
        }
    }
}

fn interrupted(scene: &Scene, story: &[Turn], at: u64, context: &str) {
    let failing = scene.clone();
    failing.disk.fail_at(at);
    let Err((number, first)) = failing.take(story) else { return };
    let killed = scene.clone();
    killed.disk.cut_power_at(at);
    let _ = killed.take(story);
    let cuts = (0..SEEDS).map(|seed| (format!("cut {seed}"), killed.disk.after_power_cut(seed)));
    let afterwards = [("failed".to_owned(), failing.disk.after_kill())].into_iter().chain(cuts);
    for (how, disk) in afterwards {
        let context = format!("{context}, {how}, {first:?}");
        let after = Scene { disk, ..scene.clone() };
        after.is_safe(&context);
        after.take(&story[number..]).unwrap_or_else(|error| panic!("{context}: {error:?}"));
        after.is_at_the_end_of(story, &context);
    }
}

#[test]
fn a_fence_of_another_is_respected() {
    let scene = Scene::new(SimDisk::new(), None, &[]);
    scene.take(&[Put]).unwrap();
    let other = Fence::new(&scene.place, "r2").unwrap();
    for refused in [other.put(&scene.disk, ""), other.undo(&scene.disk), other.open(&scene.disk)] {
        assert!(matches!(refused, Err(Error::FencedBy { .. })), "{refused:?}");
    }
    assert!(matches!(Fence::new(&scene.place, "../x"), Err(Error::FenceId { .. })));
    assert!(matches!(scene.fence().open(&scene.disk), Err(Error::NothingTo { .. })));
    assert_eq!(fence_at(&scene.disk, &scene.place).unwrap().as_deref(), Some(ID));
}

/// As etcd locks: its database by flock(2), its log by fcntl(2).
#[test]
fn nothing_is_fenced_while_somebody_has_it_locked() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("etcd");
    let place = Place::new(&data, None, &[]);
    for path in ["member/snap/db", "member/wal/0.wal"] {
        let path = data.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "x").unwrap();
    }
    let fence = Fence::new(&place, ID).unwrap();
    let database = File::open(data.join("member/snap/db")).unwrap();
    database.lock().unwrap();
    assert!(matches!(fence.put(&RealDisk, ""), Err(Error::InUse { .. })));
    drop(database);
    fence.put(&RealDisk, "").unwrap();
    assert!(data.is_file());
    fence.undo(&RealDisk).unwrap();
    assert_eq!(std::fs::read(data.join("member/wal/0.wal")).unwrap(), b"x");
}
