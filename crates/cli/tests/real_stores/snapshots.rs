//! Plain snapshots as objects.

use crate::command::{bare, done, endpoint, endpoints, failed, rekindle};
use rekindle_testkit::Version;
use rekindle_testkit::doubles::{Ending, SnapshotDouble, SnapshotScript};
use rekindle_testkit::etcd::{Cluster, Members};
use rekindle_testkit::stores::{Bucket, Minio};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

fn save(bucket: &Bucket, target: &str, spool: &Path) -> Command {
    let mut command = rekindle(bucket);
    command.arg("save").arg(target).arg("--spool").arg(spool).arg(endpoint(bucket));
    command
}

fn reading(bucket: &Bucket, words: &[&str], spool: &Path) -> Command {
    let mut command = rekindle(bucket);
    command.args(words).arg("--spool").arg(spool).arg(endpoint(bucket));
    command
}

#[test]
fn a_snapshot_is_one_object_that_all_commands_read() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let minio = Minio::start();
    let bucket = minio.bucket("bucket");
    let scratch = tempfile::tempdir().unwrap();
    let spool = scratch.path().join("spool");
    // Larger than what goes in one piece.
    let value = scratch.path().join("value");
    fs::write(&value, "x".repeat(1_000_000)).unwrap();
    for number in 0..20 {
        let mut put = cluster.etcdctl_command();
        put.args(["put", &format!("key-{number}")]).stdin(fs::File::open(&value).unwrap());
        assert!(put.output().unwrap().status.success());
    }
    let url = bucket.url("one/exported/etcd-snapshots/%Y.db");
    let told = done(save(&bucket, &url, &spool).arg("-w=json").arg(endpoints(&cluster)));
    let told: Value = serde_json::from_str(&told).unwrap();
    let object = told["file"].as_str().unwrap();
    assert!(object.starts_with(&bucket.url("one/exported/etcd-snapshots/2")), "{object}");
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 0, "nothing stays in the spool");
    assert_eq!(minio.unfinished_uploads(), 0);

    let json = done(&mut reading(&bucket, &["status", "--verify-hash", "-w=json", object], &spool));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["sha256"].as_str(), json["sound"].as_bool()), (Some("good"), Some(true)));
    assert_eq!(json["revision"], 21);
    let hash = done(&mut reading(&bucket, &["hashkv", "-w=json", object], &spool));
    let hash: Value = serde_json::from_str(&hash).unwrap();
    let live = cluster.etcdctl_json(["endpoint", "hashkv"]);
    assert_eq!(hash["hash"], live[0]["HashKV"]["hash"]);

    let dir = scratch.path().join("restored");
    let mut restore = reading(&bucket, &["restore", object, "--allow-live-peers"], &spool);
    done(restore.arg("--data-dir").arg(&dir));
    assert!(dir.join("member/snap/db").exists());
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 0, "nothing stays in the spool");

    // Another one takes its place.
    cluster.etcdctl(["put", "more", "1"]);
    done(save(&bucket, object, &spool).arg(endpoints(&cluster)));
    let json = done(&mut reading(&bucket, &["status", "-w=json", object], &spool));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["revision"], 22);
}

/// What came damaged is never seen, and an older snapshot of that name stays.
#[test]
fn what_is_not_whole_is_not_there() {
    let minio = Minio::start();
    let bucket = minio.bucket("bucket");
    let scratch = tempfile::tempdir().unwrap();
    let url = bucket.url("snapshot.db");
    // More than one part, so that parts have gone when it ends.
    let script = SnapshotScript::sound(1200);
    for ending in [Ending::WrongDigest, Ending::EndAfter(1000), Ending::CutAfter(1000)] {
        let double = SnapshotDouble::start(script.clone().ending(ending));
        let mut save = save(&bucket, &url, scratch.path());
        save.arg("--without-quorum").arg(format!("--endpoints={}", double.url()));
        let output = save.output().unwrap();
        assert!(!output.status.success(), "{ending:?}");
        let told = failed(6, &mut reading(&bucket, &["status", &url], scratch.path()));
        assert!(told.contains("NoSuchKey"), "{told}");
        assert_eq!(minio.unfinished_uploads(), 0, "{ending:?}");
    }
}

#[test]
fn a_folder_without_an_archive_is_refused_with_both_remedies() {
    let minio = Minio::start();
    let bucket = minio.bucket("bucket");
    let scratch = tempfile::tempdir().unwrap();
    let told = failed(2, &mut save(&bucket, &bucket.url("folder/"), scratch.path()));
    assert!(told.contains("name an object in it"), "{told}");
    assert!(told.contains("rekindle archive init"), "{told}");
}

/// etcdbrctl's flags and variables for the same place.
#[test]
fn etcdbrctls_flags() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let minio = Minio::start();
    let bucket = minio.bucket("bucket");
    let scratch = tempfile::tempdir().unwrap();
    let value = |name: &str| {
        let mut variables = bucket.variables.iter();
        variables.find(|(known, _)| known == name).unwrap().1.clone()
    };
    let ecs = |words: &[&str]| {
        let mut command = bare();
        command
            .args(words)
            .args(["--storage-provider=ECS", "--store-container=bucket", "--store-prefix=a/b"])
            .arg("--spool")
            .arg(scratch.path())
            .env("ECS_ENDPOINT", &bucket.endpoint_url)
            .env("ECS_ACCESS_KEY_ID", value("AWS_ACCESS_KEY_ID"))
            .env("ECS_SECRET_ACCESS_KEY", value("AWS_SECRET_ACCESS_KEY"));
        command
    };
    cluster.etcdctl(["put", "a", "1"]);
    done(ecs(&["save", "snapshot.db"]).arg(endpoints(&cluster)));
    let url = bucket.url("a/b/snapshot.db");
    done(&mut reading(&bucket, &["status", &url], scratch.path()));
    done(&mut ecs(&["status", "snapshot.db"]));
    let told = failed(2, ecs(&["save"]).arg(endpoints(&cluster)));
    assert!(told.contains("rekindle archive init"), "{told}");
}
