//! Archives in object stores.

use crate::command::{done, endpoint, endpoints, failed, rekindle};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members};
use rekindle_testkit::stores::{Azurite, Bucket, Minio};
use serde_json::Value;
use std::process::Command;

fn archive(bucket: &Bucket, words: &[&str]) -> Command {
    let mut command = rekindle(bucket);
    command.arg("archive").args(words).arg(endpoint(bucket));
    command
}

/// Bases go in, are listed, and come back.
fn check(bucket: &Bucket) {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let scratch = tempfile::tempdir().unwrap();
    let url = bucket.url("clusters/one");
    let told = done(&mut archive(bucket, &["init", "--unencrypted", &url]));
    assert!(told.contains(&format!("rekindle save {url}")), "{told}");
    let told = failed(4, &mut archive(bucket, &["init", "--unencrypted", &url]));
    assert!(told.contains("holds an archive already"), "{told}");
    let above = bucket.url("clusters");
    let told = failed(4, &mut archive(bucket, &["init", "--unencrypted", &above]));
    assert!(told.contains("is not empty"), "{told}");
    let told = failed(6, &mut archive(bucket, &["list", &bucket.url("nothing/here")]));
    assert!(told.contains("holds no archive"), "{told}");

    for value in ["1", "2"] {
        cluster.etcdctl(["put", "a", value]);
        let mut save = rekindle(bucket);
        save.arg("save").arg(&url).arg("--spool").arg(scratch.path().join("spool"));
        done(save.args([endpoint(bucket), endpoints(&cluster)]));
    }
    let json = done(&mut archive(bucket, &["list", "-w=json", &url]));
    let json: Value = serde_json::from_str(&json).unwrap();
    let points = json["restorePoints"].as_array().unwrap();
    let revisions: Vec<_> =
        points.iter().map(|point| point["revision"].as_i64().unwrap()).collect();
    assert_eq!(revisions, [2, 3]);

    let dir = scratch.path().join("restored");
    let mut restore = rekindle(bucket);
    restore.arg("restore").arg(format!("{url}@2")).arg("--data-dir").arg(&dir);
    done(restore.args(["--allow-live-peers", &endpoint(bucket)]));
    let mut status = rekindle(bucket);
    let json = done(status.arg("status").arg(dir.join("member/snap/db")).arg("-w=json"));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["revision"].as_i64(), json["sound"].as_bool()), (Some(2), Some(true)));
}

#[test]
fn in_minio() {
    let minio = Minio::start();
    check(&minio.bucket("bucket"));
    assert_eq!(minio.unfinished_uploads(), 0);
}

#[test]
fn in_azurite() {
    check(&Azurite::start().container("container"));
}

#[test]
fn a_probe_says_what_it_found() {
    let minio = Minio::start();
    let bucket = minio.bucket("bucket");
    let url = bucket.url("x");
    let table = done(&mut archive(&bucket, &["probe", &url]));
    assert!(table.contains("create if absent"), "{table}");
    let json = done(&mut archive(&bucket, &["probe", "-w=json", &url]));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["good"], true);
    assert_eq!(json["findings"].as_array().unwrap().len(), 6);
    // Nothing of it stays: the place is still good for an archive.
    done(&mut archive(&bucket, &["init", "--unencrypted", &url]));
}

/// From one server to another, each with an address and credentials of its own, and back.
#[test]
fn a_copy_goes_to_another_server_and_comes_back() {
    let servers = (Minio::start(), Minio::start());
    let (here, there) = (servers.0.bucket("here"), servers.1.bucket("there"));
    let cluster = Cluster::start(Version::LATEST, Members(1));
    cluster.etcdctl(["put", "a", "1"]);
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (here.url("one"), there.url("two"));
    done(&mut archive(&here, &["init", "--unencrypted", &from]));
    let mut save = rekindle(&here);
    save.arg("save").arg(&from).arg("--spool").arg(scratch.path().join("spool"));
    done(save.args([endpoint(&here), endpoints(&cluster)]));
    let two = |words: &[&str], secret: Option<&str>| {
        let mut command = archive(&here, words);
        command.arg(format!("--other-endpoint-url={}", there.endpoint_url));
        for (name, value) in &there.variables {
            command.env(format!("REKINDLE_OTHER_{name}"), value);
        }
        if let Some(secret) = secret {
            command.env("REKINDLE_OTHER_AWS_SECRET_ACCESS_KEY", secret);
        }
        command
    };
    let told = failed(1, &mut two(&["copy", &from, &to], Some("canary-wrong")));
    assert!(told.contains("s3://there"), "{told}");
    done(&mut two(&["copy", &from, &to], None));
    done(&mut archive(&there, &["verify", "--level", "proven", &to]));

    let verdict = |bucket: &Bucket, url: &str| {
        let json = done(&mut archive(bucket, &["verify", "-w=json", url]));
        let json: Value = serde_json::from_str(&json).unwrap();
        json["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(verdict(&here, &from), "OK");
    // MinIO keeps an object as a directory of that name.
    let packs = servers.0.folders("here", ".pack");
    std::fs::remove_dir_all(&packs[0]).unwrap();
    failed(3, &mut archive(&here, &["verify", &from]));
    done(&mut two(&["repair", &from, "--yes", "--from", &to], None));
    assert_eq!(verdict(&here, &from), "OK");
}
