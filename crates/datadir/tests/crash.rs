//! A restore that fails at every operation in turn, and whose machine loses power at every one.
//!
//! Whatever happens: the old data directory is somewhere, whole; where etcd looks there is the old
//! one, the new one, or nothing it could start on; and `resume` and `roll_back` lead out of it.

use rekindle_bolt::{BulkWriter, Db, Layout};
use rekindle_datadir::{
    Disk, Ended, Error, Job, NewSnapshot, Place, Progress, Restored, Target, check_target, restore,
    resume, roll_back,
};
use rekindle_etcd::restore::{BumpRequest, LeaseFate, Plan, Request, SourceFacts, plan};
use rekindle_etcd::wal::{Chain, SegmentReader};
use rekindle_etcd::{Backend, InitialCluster, KeyCount, KeyValue, RecordKey, Revision, snap};
use rekindle_testkit::sim_disk::SimDisk;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Times as they go into names, one after the other.
const T1: &str = "20261120T100001Z";
const T2: &str = "20261120T100002Z";
const T3: &str = "20261120T100003Z";

const DATA: &str = "/var/lib/etcd";
const WAL: &str = "/wal/etcd";
const SEEDS: u64 = 6;

/// A database of a few records.
fn a_source() -> Vec<u8> {
    let layout = Layout::new(4096, 4096).unwrap();
    let mut bucket = BulkWriter::new(Vec::new(), layout).unwrap().bucket(b"key").unwrap();
    for revision in 2..40 {
        let key = RecordKey::first_of(Revision::new(revision).unwrap());
        let kv = KeyValue {
            key: format!("k{revision}").as_bytes(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            value: &[7; 300],
            lease: 0,
        }
        .to_bytes();
        bucket.put(&key.to_bytes(), &kv).unwrap();
    }
    let finished = bucket.finish().unwrap().finish().unwrap();
    let mut bytes = finished.out;
    bytes[..finished.metas.len()].copy_from_slice(&finished.metas);
    bytes
}

/// Paths below a directory, with the bytes of those that are files.
type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// One way a data directory can lie.
#[derive(Clone)]
struct Scene {
    disk: SimDisk,
    place: Place,
    /// Trees that must never be lost, by where they are at the start.
    old: Vec<(PathBuf, Tree)>,
    source: Vec<u8>,
    plan: Plan,
}

impl Scene {
    fn new(disk: SimDisk, wal: Option<&str>, mounts: &[&str]) -> Self {
        let source = a_source();
        let cluster = InitialCluster::parse("m=http://h:1").unwrap().with_token("t").unwrap();
        let facts = Backend::open(&source).unwrap().facts().unwrap();
        let facts = SourceFacts { facts: &facts, kubernetes: false, size_at_most: 0 };
        let request =
            Request { cluster, bump: BumpRequest::Never, quota: 0, leases: LeaseFate::Restore };
        let plan = plan(&facts, &request).unwrap();
        let mounts: Vec<_> = mounts.iter().map(PathBuf::from).collect();
        let place = Place::new(Path::new(DATA), wal.map(Path::new), &mounts);
        Self { disk, place, old: Vec::new(), source, plan }
    }

    /// Puts an old member there.
    fn with_old(mut self) -> Self {
        let data = Path::new(DATA);
        self.disk.put(&data.join("member/snap/db"), b"the old database");
        self.disk.put(&data.join("member/snap/0001.snap"), b"the old snapshot");
        let wal = self.place.wal.as_ref().map(|wal| wal.wal_dir.clone());
        let wal = wal.unwrap_or_else(|| data.join("member/wal"));
        self.disk.put(&wal.join("0000000000000000-0000000000000000.wal"), b"the old log");
        self.disk.put(&wal.join("0000000000000001-0000000000000009.wal"), b"the newer log");
        let swapped = self.place.swapped().to_owned();
        self.old.push((swapped.clone(), self.disk.tree(&swapped)));
        if self.place.wal.is_some() {
            self.old.push((wal.clone(), self.disk.tree(&wal)));
        }
        self
    }

    fn run(&self) -> Result<Restored, Error> {
        self.run_at(T1)
    }

    fn run_at(&self, time: &str) -> Result<Restored, Error> {
        let db = Db::open(&self.source).unwrap();
        let member = self.plan.cluster.members[0].clone();
        let targets = [Target { member, place: self.place.clone() }];
        let layout = Layout::new(4096, 16384).unwrap();
        let job = Job { plan: &self.plan, layout, targets: &targets, time };
        restore(&self.disk, (&db).into(), &job, &Progress::default(), || Ok(()))
    }

    fn on(&self, disk: SimDisk) -> Self {
        Self { disk, ..self.clone() }
    }

    fn has(&self, path: &Path, tree: &Tree) -> bool {
        let found = self.disk.tree(path);
        // A mount point's log directory also holds what was set aside.
        tree.iter().all(|(name, bytes)| found.get(name) == Some(bytes))
    }

    fn is_old(&self) -> bool {
        !self.old.is_empty() && self.old.iter().all(|(path, tree)| self.has(path, tree))
    }

    fn is_absent(&self) -> bool {
        self.disk.tree(self.place.swapped()).is_empty()
    }

    /// A file stands where etcd wants a directory.
    fn is_blocked(&self) -> bool {
        self.disk.tree(self.place.swapped()).get("").is_some_and(Option::is_some)
    }

    /// Everything of a restored member is there and reads well.
    fn is_new(&self) -> bool {
        let data = self.disk.tree(Path::new(DATA));
        let wal = match &self.place.wal {
            Some(wal) => self.disk.tree(&wal.wal_dir),
            None => self.disk.tree(&Path::new(DATA).join("member/wal")),
        };
        let Some(Some(db)) = data.get("/member/snap/db") else { return false };
        let sound = Backend::open(db).is_ok_and(|backend| {
            backend
                .status(KeyCount::Reckoned)
                .is_ok_and(|status| status.is_sound() && status.records == 38)
        });
        let logs: Vec<_> = wal
            .iter()
            .filter(|(name, _)| name.ends_with(".wal") && name.matches('/').count() == 1)
            .collect();
        let [(_, Some(log))] = logs.as_slice() else { return false };
        let mut reader = SegmentReader::new(log.as_slice(), "w", Chain::start());
        let mut records = 0;
        while let Ok(Some(_)) = reader.next_record() {
            records += 1;
        }
        let is_snap = |name: &str| name.starts_with("/member/") && name.ends_with(".snap");
        let snap = data.iter().find(|(name, _)| is_snap(name));
        let snap = snap.and_then(|(_, bytes)| bytes.as_ref());
        sound && records == 5 && snap.is_some_and(|bytes| snap::decode(bytes).is_ok())
    }

    /// The old trees are all somewhere, whole.
    fn old_is_safe(&self) -> bool {
        self.old.iter().all(|(path, tree)| {
            let name = path.to_str().unwrap();
            let places = ["", ".before-20261120T100001Z", ".blocked", "/before-20261120T100001Z"];
            places.iter().any(|suffix| self.has(Path::new(&format!("{name}{suffix}")), tree))
                || self.is_spread(path, tree)
        })
    }

    /// The log on a mount point goes aside file by file.
    fn is_spread(&self, path: &Path, tree: &Tree) -> bool {
        let (here, aside) =
            (self.disk.tree(path), self.disk.tree(&path.join("before-20261120T100001Z")));
        let is_file = |entry: &(&String, &Option<Vec<u8>>)| entry.1.is_some();
        tree.iter()
            .filter(is_file)
            .all(|(name, bytes)| here.get(name) == Some(bytes) || aside.get(name) == Some(bytes))
    }

    fn check_invariants(&self, what: &str) {
        assert!(self.old_is_safe(), "{what}: the old directory is not whole anywhere");
        let states = [self.is_old(), self.is_new(), self.is_blocked(), self.is_absent()];
        assert!(states.contains(&true), "{what}: etcd could start on {:?}", self.names());
        if self.is_new() {
            assert!(!self.is_old(), "{what}");
        }
    }

    fn names(&self) -> Vec<String> {
        self.disk.tree(Path::new("/")).into_keys().collect()
    }

    /// Whatever state an interruption has left, each way out leads out.
    fn check_ways_out(&self, what: &str) {
        self.check_invariants(what);
        let had_old = !self.old.is_empty();

        let scene = self.on(self.disk.after_kill());
        match resume(&scene.disk, &scene.place) {
            Ok(ended) => {
                assert_eq!(ended, Ended::Completed, "{what}");
                assert!(scene.is_new(), "{what}: resumed to {:?}", scene.names());
            }
            Err(Error::NothingTo { .. }) => {
                let fine =
                    scene.is_new() || if had_old { scene.is_old() } else { scene.is_absent() };
                assert!(fine, "{what}: nothing to resume, but {:?}", scene.names());
            }
            Err(error) => panic!("{what}: resume: {error}"),
        }
        scene.check_invariants(what);

        let scene = self.on(self.disk.after_kill());
        match roll_back(&scene.disk, &scene.place, T2) {
            Ok(_) | Err(Error::NothingTo { .. }) if had_old => {
                assert!(scene.is_old(), "{what}: rolled back to {:?}", scene.names());
            }
            Ok(_) => assert!(scene.is_absent(), "{what}: {:?}", scene.names()),
            Err(Error::NothingTo { .. }) => {}
            Err(error) => panic!("{what}: roll back: {error}"),
        }

        // The same command again either works or says what to do.
        let scene = self.on(self.disk.after_kill());
        match scene.run_at(T3) {
            Ok(_) => assert!(scene.is_new(), "{what}: restored again to {:?}", scene.names()),
            Err(Error::Unfinished { .. }) => {
                assert!(check_target(&scene.disk, &scene.place).is_err(), "{what}");
            }
            Err(error) => panic!("{what}: again: {error}"),
        }
    }
}

/// Runs a restore with a fault at operation 0, 1, 2 … until it completes.
fn every_operation(
    name: &str,
    scene: &Scene,
    check: impl Fn(&Scene, &str, u64, Result<Restored, Error>),
    arm: impl Fn(&SimDisk, u64),
) {
    for at in 0.. {
        let scene = scene.on(scene.disk.after_kill());
        arm(&scene.disk, at);
        let result = scene.run();
        if at >= scene.disk.operations() {
            assert!(result.is_ok() && scene.is_new(), "{name}: without a fault");
            assert!(at > 50, "{name}: only {at} operations");
            return;
        }
        check(&scene, &format!("{name}, operation {at}"), at, result);
    }
}

fn check_all(name: &str, scene: &Scene) {
    every_operation(
        &format!("{name}, failing"),
        scene,
        |scene, what, _, result| {
            let scene = scene.on(scene.disk.after_kill());
            match result {
                // A failure to clean up, or to undo, is not the end of the road.
                Ok(_) | Err(Error::Stuck { .. }) => {}
                Err(_) if scene.old.is_empty() => {}
                Err(error) => assert!(
                    scene.is_old() || scene.is_new(),
                    "{what}: {error}, and then {:?}",
                    scene.names()
                ),
            }
            scene.check_ways_out(what);
        },
        SimDisk::fail_at,
    );
    every_operation(
        &format!("{name}, killed"),
        scene,
        |scene, what, _, result| {
            assert!(result.is_err(), "{what}");
            scene.on(scene.disk.after_kill()).check_ways_out(what);
        },
        SimDisk::cut_power_at,
    );
    every_operation(
        &format!("{name}, power cut"),
        scene,
        |scene, what, at, _| {
            for seed in (0..SEEDS).map(|seed| if seed < 2 { seed } else { at * SEEDS + seed }) {
                let after = scene.on(scene.disk.after_power_cut(seed));
                after.check_ways_out(&format!("{what}, seed {seed}"));
            }
        },
        SimDisk::cut_power_at,
    );
}

#[test]
fn in_place_of_an_old_member() {
    check_all("old", &Scene::new(SimDisk::new(), None, &[]).with_old());
}

#[test]
fn where_nothing_was() {
    let scene = Scene::new(SimDisk::new(), None, &[]);
    scene.disk.put(Path::new("/var/lib/other"), b"");
    check_all("new", &scene);
}

#[test]
fn with_the_log_elsewhere() {
    check_all("log", &Scene::new(SimDisk::new(), Some(WAL), &[]).with_old());
}

#[test]
fn on_mount_points() {
    let scene = Scene::new(SimDisk::new(), Some(WAL), &[DATA, WAL]).with_old();
    check_all("mounts", &scene);
}

#[test]
fn where_names_cannot_be_exchanged() {
    let disk = SimDisk::new().without_exchange();
    check_all("no exchange", &Scene::new(disk, Some(WAL), &[]).with_old());
}

#[test]
fn a_running_etcd_is_refused() {
    let scene = Scene::new(SimDisk::new(), None, &[]).with_old();
    scene.disk.lock(&Path::new(DATA).join("member/snap/db"));
    assert!(matches!(scene.run(), Err(Error::InUse { .. })));
    assert!(scene.is_old());
    assert_eq!(scene.disk.list(Path::new("/var/lib")).unwrap(), ["etcd"]);
}

#[test]
fn an_etcd_that_starts_meanwhile_keeps_its_directory() {
    let scene = Scene::new(SimDisk::new(), None, &[]).with_old();
    let db = Db::open(&scene.source).unwrap();
    let member = scene.plan.cluster.members[0].clone();
    let targets = [Target { member, place: scene.place.clone() }];
    let layout = Layout::new(4096, 4096).unwrap();
    let job = Job { plan: &scene.plan, layout, targets: &targets, time: T1 };
    let start_etcd = || {
        scene.disk.lock(&Path::new(DATA).join("member/snap/db"));
        Ok(())
    };
    let result =
        restore::<_, Error>(&scene.disk, (&db).into(), &job, &Progress::default(), start_etcd);
    assert!(matches!(result, Err(Error::InUse { .. })), "{result:?}");
    assert!(scene.is_old(), "{:?}", scene.names());
    assert_eq!(scene.disk.list(Path::new("/var/lib")).unwrap(), ["etcd"]);
}

#[test]
fn a_finished_restore_can_be_rolled_back_and_that_too() {
    for (wal, mounts) in [(None, &[] as &[&str]), (Some(WAL), &[]), (Some(WAL), &[DATA, WAL])] {
        let scene = Scene::new(SimDisk::new(), wal, mounts).with_old();
        let restored = scene.run().unwrap();
        assert_eq!(restored.set_aside, [Some(scene.place.before(T1))]);
        assert!(scene.is_new());
        let ended = roll_back(&scene.disk, &scene.place, T2).unwrap();
        assert_eq!(ended, Ended::RolledBack { undone: scene.place.undone(T2) });
        assert!(scene.is_old(), "{:?}", scene.names());
        assert!(matches!(roll_back(&scene.disk, &scene.place, T3), Err(Error::NothingTo { .. })));
        assert!(scene.is_old());
    }
}

#[test]
fn what_a_restore_did_not_make_is_not_removed() {
    let scene = Scene::new(SimDisk::new(), None, &[]).with_old();
    scene.disk.put(Path::new("/var/lib/etcd.part/mine"), b"precious");
    assert!(matches!(scene.run(), Err(Error::InTheWay { .. })));
    assert!(scene.is_old());
    assert!(scene.disk.tree(Path::new("/var/lib/etcd.part")).contains_key("/mine"));

    let scene = Scene::new(SimDisk::new(), None, &[]).with_old();
    scene.disk.put(Path::new("/var/lib/etcd.blocked"), b"precious");
    assert!(scene.run().is_err());
    assert!(scene.is_old());
    assert_eq!(scene.disk.read(Path::new("/var/lib/etcd.blocked")).unwrap().unwrap(), b"precious");
}

#[test]
fn a_bad_source_changes_nothing() {
    let scene = Scene::new(SimDisk::new(), None, &[]).with_old();
    let db = Db::open(&scene.source).unwrap();
    let member = scene.plan.cluster.members[0].clone();
    let targets = [Target { member, place: scene.place.clone() }];
    let layout = Layout::new(4096, 4096).unwrap();
    let job = Job { plan: &scene.plan, layout, targets: &targets, time: T1 };
    let bad = || Err(Error::Interrupted);
    assert!(restore(&scene.disk, (&db).into(), &job, &Progress::default(), bad).is_err());
    assert!(scene.is_old());
    assert_eq!(scene.disk.list(Path::new("/var/lib")).unwrap(), ["etcd"]);
}

/// Saves a snapshot in place of an older one, as `rekindle save` does.
fn save(disk: &SimDisk) -> Result<(), Error> {
    let mut snapshot = NewSnapshot::create(disk, Path::new("/backup/deep/snap.db"))?;
    snapshot.write(&[b"the ", b"new "])?;
    snapshot.write(&[b"snapshot"])?;
    snapshot.sync()?;
    snapshot.publish()
}

/// What is under the snapshot's name.
fn saved(disk: &SimDisk) -> Option<Vec<u8>> {
    disk.tree(Path::new("/backup/deep")).remove("/snap.db").flatten()
}

#[test]
fn a_snapshot_is_the_old_one_or_the_new_one() {
    for old in [None, Some(b"the old snapshot".to_vec())] {
        let fresh = SimDisk::new();
        if let Some(old) = &old {
            fresh.put(Path::new("/backup/deep/snap.db"), old);
        }
        let is_good = |disk: &SimDisk| {
            let found = saved(disk);
            found == old || found.as_deref() == Some(b"the new snapshot")
        };
        for at in 0.. {
            let disk = fresh.after_kill();
            disk.fail_at(at);
            let result = save(&disk);
            if at >= disk.operations() {
                assert!(result.is_ok() && at > 10, "{result:?} after {at} operations");
                assert_eq!(saved(&disk.after_power_cut(0)).unwrap(), b"the new snapshot");
                break;
            }
            assert!(is_good(&disk), "failed at {at}");

            let disk = fresh.after_kill();
            disk.cut_power_at(at);
            let _ = save(&disk);
            for seed in 0..SEEDS * 2 {
                let after = disk.after_power_cut(seed);
                assert!(is_good(&after), "cut at {at}, seed {seed}: {:?}", saved(&after));
                save(&after).unwrap();
                assert_eq!(saved(&after).unwrap(), b"the new snapshot");
            }
        }
    }
}

#[test]
fn a_failed_save_leaves_no_part() {
    let disk = SimDisk::new();
    disk.put(Path::new("/backup/other"), b"");
    let mut snapshot = NewSnapshot::create(&disk, Path::new("/backup/snap.db")).unwrap();
    snapshot.write(&[b"half"]).unwrap();
    drop(snapshot);
    assert_eq!(disk.list(Path::new("/backup")).unwrap(), ["other"]);
    disk.put(Path::new("/backup/snap.db/x"), b"");
    let refused = NewSnapshot::create(&disk, Path::new("/backup/snap.db")).unwrap_err();
    assert!(matches!(refused, Error::NotAFile { .. }), "{refused}");
}
