//! Bases that are saved into an archive.

use crate::command::{Target, done, endpoints, failed, rekindle};
use rekindle_testkit::Version;
use rekindle_testkit::content::files;
use rekindle_testkit::etcd::{Cluster, Members};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn archive(words: &[&str], place: &Path) -> Command {
    let mut command = rekindle();
    command.arg("archive").args(words).arg(place);
    command
}

fn save(cluster: &Cluster, place: &Path, spool: &Path) -> Command {
    let mut command = rekindle();
    command.arg("save").arg(place).arg("--spool").arg(spool);
    command.arg(format!("--endpoints={}", endpoints(cluster)));
    command
}

fn listed(place: &Path) -> Vec<Value> {
    let (json, _) = done(&mut archive(&["list", "-w=json"], place));
    let json: Value = serde_json::from_str(&json).unwrap();
    json["restorePoints"].as_array().unwrap().clone()
}

#[test]
fn bases_are_listed_with_what_they_hold() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let target = Target::new();
    let (place, spool) = (target.dir().join("archive"), target.dir().join("spool"));
    done(&mut archive(&["init", "--unencrypted"], &place));
    assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
    let (nothing, _) = done(&mut archive(&["list"], &place));
    assert_eq!(nothing, "nothing has been saved into it\n");

    cluster.etcdctl(["put", "a", "1"]);
    done(&mut save(&cluster, &place, &spool));
    cluster.etcdctl(["put", "b", "2"]);
    cluster.etcdctl(["del", "a"]);
    let (told, _) = done(&mut save(&cluster, &place, &spool));
    assert!(told.contains("base of revision 4 into"), "{told}");
    assert!(told.contains("with the base of revision 2: equal; 1 records were there, 2"), "{told}");
    let points = listed(&place);
    let numbers =
        |field: &str| points.iter().map(|point| point[field].as_i64().unwrap()).collect::<Vec<_>>();
    assert_eq!(numbers("revision"), [2, 4]);
    assert_eq!(numbers("records"), [1, 3]);
    assert_eq!(numbers("keys"), [1, 1]);
    assert_eq!(points[0]["timeline"], points[1]["timeline"]);
    let modes = files(&place)
        .into_iter()
        .map(|path| fs::metadata(&path).unwrap().permissions().mode() & 0o777);
    assert!(modes.into_iter().all(|mode| mode == 0o600), "they hold all the cluster's secrets");
    let left: Vec<_> = fs::read_dir(&spool).unwrap().map(|file| file.unwrap().path()).collect();
    let ends = |end: &str| left.iter().filter(|path| path.extension().unwrap() == end).count();
    assert_eq!((left.len(), ends("table"), ends("pin")), (2, 1, 1), "{left:?}");
    for path in left {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // By etcdbrctl's flags, too.
    let local = format!("--store-container={}", target.dir().display());
    for verb in ["list", "stats", "verify", "prune"] {
        done(rekindle().args(["archive", verb, "archive", "--storage-provider=Local", &local]));
    }
    let mut export = rekindle();
    export.args(["archive", "export", "archive", "--storage-provider=Local", &local]);
    done(export.arg(target.dir().join("exported.db")));
    let mut copy = rekindle();
    copy.args(["archive", "copy", "archive", "copied", "--storage-provider=Local", &local]);
    let told = failed(2, &mut copy);
    assert!(told.contains("--storage-provider names one place, and here are two"), "{told}");
    // Where the archive was, no plain snapshot is written: a mount may be missing.
    let gone = target.dir().join("gone");
    fs::rename(&place, &gone).unwrap();
    let told = failed(4, &mut save(&cluster, &place, &spool));
    assert!(told.contains("was an archive when this host last saved"), "{told}");
    assert!(!place.exists());
    fs::rename(&gone, &place).unwrap();
    let (told, _) = done(save(&cluster, &place, &spool).arg("--full"));
    assert!(told.contains("written in full: that was asked for"), "{told}");
}

#[test]
fn what_is_no_archive_is_refused_with_both_remedies() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let target = Target::new();
    let told = failed(2, &mut save(&cluster, target.dir(), target.dir()));
    assert!(told.contains("is a directory, and no archive"), "{told}");
    assert!(told.contains("rekindle archive init"), "{told}");
    assert!(told.contains("name a file in it"), "{told}");

    let place = target.dir().join("archive");
    let told = failed(2, &mut archive(&["init"], &place));
    for way in ["--recipient PUBLIC-KEY", "--generate-keys FILE", "pass --unencrypted"] {
        assert!(told.contains(way), "{told}");
    }
    assert!(!place.exists(), "nothing initialises itself");
    done(&mut archive(&["init", "--unencrypted"], &place));
    let told = failed(4, &mut archive(&["init", "--unencrypted"], &place));
    assert!(told.contains("holds an archive already"), "{told}");
    let told = failed(4, &mut archive(&["init", "--unencrypted"], target.dir()));
    assert!(told.contains("is not empty"), "{told}");
    let told = failed(6, &mut archive(&["list"], &target.dir().join("missing")));
    assert!(told.contains("No such file or directory"), "{told}");
    let told = failed(6, &mut archive(&["list"], target.dir()));
    assert!(told.contains("holds no archive"), "{told}");

    fs::write(place.join("archive.json"), "{\"format\": 9}").unwrap();
    let told = failed(4, &mut save(&cluster, &place, target.dir()));
    assert!(told.contains("format version 9, and this rekindle knows those up to 1"), "{told}");
    let told = failed(4, rekindle().arg("status").arg(&place));
    assert!(told.contains("format version 9, and this rekindle knows those up to 1"), "{told}");
}

/// A damaged archive once made every member send its snapshot, one after the other; and a damaged
/// restore point once kept everybody from making new ones.
#[test]
fn a_damaged_archive_is_no_fault_of_the_members() {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    let target = Target::new();
    let place = target.dir().join("archive");
    done(&mut archive(&["init", "--unencrypted"], &place));
    done(&mut save(&cluster, &place, target.dir()));
    let base = listed(&place)[0]["object"].as_str().unwrap().to_owned();
    fs::write(place.join(&base), "rekindle").unwrap();
    let (_, warned) = done(&mut save(&cluster, &place, target.dir()));
    assert!(
        warned.contains("a restore point cannot be read") && warned.contains(&base),
        "{warned}"
    );
    // What a later version has written may be anything.
    let id = fs::read_dir(place.join("timelines")).unwrap().next().unwrap().unwrap().file_name();
    let newer = format!("timelines/{}/bases/x.base", id.to_str().unwrap());
    fs::write(place.join(newer), [b"rekindle", &[9; 400][..]].concat()).unwrap();
    let told = failed(4, &mut save(&cluster, &place, target.dir()));
    assert_eq!(told.matches("saving from").count(), 1, "{told}");
}

/// A part that a killed run has left counted as used, for ever.
#[test]
fn a_leftover_in_the_spool_makes_way() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let target = Target::new();
    let place = target.dir().join("archive");
    let (told, _) = done(&mut archive(&["init", "--unencrypted"], &place));
    let id = told.lines().find_map(|line| line.strip_prefix("id")).unwrap().trim();
    let spool = target.dir().join("spool");
    fs::create_dir(&spool).unwrap();
    let leftover = fs::File::create(spool.join(format!("{id}.db.part"))).unwrap();
    leftover.set_len(1 << 60).or_else(|_| leftover.set_len(1 << 40)).unwrap();
    done(&mut save(&cluster, &place, &spool));
    assert!(!spool.join(format!("{id}.db.part")).exists());
}

#[test]
fn an_unreadable_base_is_named_and_the_others_are_listed() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let target = Target::new();
    let place = target.dir().join("archive");
    done(&mut archive(&["init", "--unencrypted"], &place));
    for value in ["1", "2"] {
        cluster.etcdctl(["put", "a", value]);
        done(&mut save(&cluster, &place, target.dir()));
    }
    let object = listed(&place)[0]["object"].as_str().unwrap().to_owned();
    fs::write(place.join(&object), "rekindle").unwrap();
    let output = archive(&["list", "-w=json"], &place).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["restorePoints"].as_array().unwrap().len(), 1);
    assert_eq!(json["restorePoints"][0]["revision"], 3);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&format!("{object}: it ends within its header")), "{told}");
}

/// Where a restore point cannot be brought back, its user is told of one that can.
#[test]
fn damage_names_a_restore_point_that_it_spares() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let target = Target::new();
    let place = target.dir().join("archive");
    done(&mut archive(&["init", "--unencrypted"], &place));
    for key in ["a", "b"] {
        cluster.etcdctl(["put", key, "1"]);
        done(&mut save(&cluster, &place, target.dir()));
    }
    let restore = |point: &str| {
        let mut command = rekindle();
        let data_dir = target.dir().join("restored").display().to_string();
        command.args(["restore", point, "--name=a", "--initial-cluster=a=http://127.0.0.1:1"]);
        command.args(["--initial-advertise-peer-urls=http://127.0.0.1:1", "--data-dir", &data_dir]);
        command
    };
    let damage = |kind: &str| {
        let objects = files(&place);
        let object = objects.iter().find(|path| path.extension().unwrap() == kind).unwrap();
        let mut bytes = fs::read(object).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(object, bytes).unwrap();
    };
    let latest = place.to_str().unwrap();
    damage("seg");
    let mut export = rekindle();
    export.args(["archive", "export", latest]).arg(target.dir().join("exported.db"));
    for command in [&mut restore(latest), &mut export] {
        let told = failed(3, command);
        assert!(told.contains("1 of 1 other restore points of the cluster have no part"), "{told}");
        assert!(told.contains("the newest is revision 2 of "), "{told}");
        assert!(told.contains(&format!("rekindle archive repair {latest} --from")), "{told}");
    }
    let told = failed(3, &mut restore(latest));
    let name = told.split_once(&format!("{latest}@")).unwrap().1.split_once(".base").unwrap().0;
    let older = format!("{latest}@{name}.base");
    done(&mut restore(&older));
    fs::remove_dir_all(target.dir().join("restored")).unwrap();
    damage("pack");
    let told = failed(3, &mut restore(latest));
    assert!(told.contains("no other restore point of cluster "), "{told}");
}

#[test]
fn old_restore_points_go_when_somebody_has_agreed() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let target = Target::new();
    let (place, spool) = (target.dir().join("archive"), target.dir().join("spool"));
    done(&mut archive(&["init", "--unencrypted"], &place));
    for value in ["1", "2", "3"] {
        cluster.etcdctl(["put", "a", value]);
        done(&mut save(&cluster, &place, &spool));
    }
    let before = files(&place);
    let rules = ["prune", "--keep-last=1"];
    let (plan, _) = done(archive(&rules, &place).arg("--dry-run"));
    assert!(plan.contains("the newest") && plan.contains("no rule keeps it"), "{plan}");
    let told = failed(4, &mut archive(&rules, &place));
    assert!(told.contains("nobody is here to be asked"), "{told}");
    assert_eq!(files(&place), before, "a plan touches nothing");

    let (json, _) = done(archive(&rules, &place).args(["--yes", "-w=json"]));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["removed"], &json["collected"]), (&2.into(), &0.into()), "{json}");
    let points = listed(&place);
    assert_eq!(points.len(), 1);
    assert_eq!(points[0]["revision"], 4);
    // What the newest needs of the older ones is there, and the next one goes on from it.
    done(&mut archive(&["verify", "--level=proven"], &place));
    cluster.etcdctl(["put", "a", "4"]);
    let (told, _) = done(&mut save(&cluster, &place, &spool));
    assert!(told.contains("with the base of revision 4: equal"), "{told}");
    // By no rule nothing goes; by this one, one of a day stays.
    let (told, warned) = done(archive(&["prune"], &place).arg("--yes"));
    assert!(told.contains("removed    0 restore points"), "{told}");
    assert!(warned.contains("no rule was given"), "{warned}");
    let (told, _) = done(archive(&["prune", "--keep-daily=7"], &place).arg("--yes"));
    assert!(told.contains("removed    1 restore points"), "{told}");
    let told = failed(2, archive(&["prune", "--keep-within=soon"], &place).arg("--yes"));
    assert!(told.contains("is no length of time"), "{told}");
}
