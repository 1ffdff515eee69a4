//! What a cluster goes through while it is followed: the log goes on, or says what it has not.

use crate::harness::{Place, archived_hash, done, hash, put, put_at, rekindle};
use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::etcd::{Cluster, Members};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Of a member that is watched at and hears nothing any more, nothing else tells but that it is silent.
#[test]
fn a_member_that_falls_silent_is_left() {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    let place = Place::new();
    let mut capturing = place.capture(&cluster, "host", &[]);
    capturing.wait_for("writing into");
    let before = put(&cluster, "a", "1");
    // It is the first that is asked.
    let silent = cluster.member(0);
    silent.freeze();
    put_at(&cluster, 1, "a", "2");
    place.wait_until_it_has(before + 1);
    silent.thaw();
    let last = put(&cluster, "a", "3");
    let said = capturing.stop();
    assert!(!said.iter().any(|line| line.contains("no restore points")), "{said:#?}");
    assert_eq!(archived_hash(&place.at(last)), hash(&cluster, last));
}

/// The database is full, is compacted and defragmented, and takes writes again: nothing is missing.
#[test]
fn a_full_database_is_followed_on() {
    let quota = "--quota-backend-bytes=16777216";
    let cluster = Cluster::with(Version::LATEST).members(Members(1)).flag(quota).start();
    let place = Place::new();
    let mut capturing = place.capture(&cluster, "host", &[]);
    capturing.wait_for("writing into");
    let value = "x".repeat(100_000);
    let takes_more = || {
        let output = cluster.etcdctl_command().args(["put", "large", &value]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || told.contains("database space exceeded"), "{told}");
        output.status.success()
    };
    while takes_more() {}
    let revision = |cluster: &Cluster| {
        cluster.etcdctl_json(["get", "large"])["header"]["revision"].as_i64().unwrap()
    };
    let full = revision(&cluster);
    let at_full = hash(&cluster, full);
    place.wait_until_it_has(full);
    cluster.etcdctl(["compact", "--physical", &full.to_string()]);
    cluster.etcdctl(["defrag"]);
    cluster.etcdctl(["alarm", "disarm"]);
    let last = put(&cluster, "small", "1");
    let said = capturing.stop();
    assert!(!said.iter().any(|line| line.contains("no restore points")), "{said:#?}");
    assert_eq!(archived_hash(&place.at(full)), at_full);
    let verdict = done(["archive", "verify", "--level=proven", place.archive().to_str().unwrap()]);
    assert!(verdict.contains("OK"), "{verdict}");
    place.wait_until_it_has(last);
}

/// Certificates are renewed by another authority, on disk alone: capture is not told of it.
#[test]
fn certificates_are_renewed() {
    let (ca, renewed) = (Ca::new("etcd-ca"), Ca::new("another-ca"));
    let server = ca.issue("server", &Leaf::server());
    let client = ca.issue("client", &Leaf::client("capture"));
    let cluster = Cluster::with(Version::LATEST).mutual_tls(&ca, &server).start();
    let place = Place::new();
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let flags = [flag("cacert", &ca.path()), flag("cert", &client.cert), flag("key", &client.key)];
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let mut capturing = place.capture(&cluster, "host", &flags);
    capturing.wait_for("writing into");
    put(&cluster, "a", "1");
    cluster.member(0).kill();
    let copy = |from: &Path| fs::copy(from, ca.path().with_file_name(from.file_name().unwrap()));
    copy(&renewed.path()).unwrap();
    for (name, leaf) in [
        ("server", Leaf::server()),
        ("client", Leaf::client("capture")),
        ("harness", Leaf::client("harness")),
    ] {
        let files = renewed.issue(name, &leaf);
        copy(&files.cert).unwrap();
        copy(&files.key).unwrap();
    }
    cluster.member(0).start();
    let last = put(&cluster, "a", "2");
    place.wait_until_it_has(last);
    let said = capturing.stop();
    assert_eq!(archived_hash(&place.at(last)), hash(&cluster, last), "{said:#?}");
}

/// What was compacted away while nobody followed is a gap, which is told, listed, and refused to a restore;
/// what is behind it is whole.
#[test]
fn what_was_compacted_meanwhile_is_a_gap() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let mut capturing = place.capture(&cluster, "host", &[]);
    capturing.wait_for("writing into");
    let before = put(&cluster, "a", "before");
    let at_before = hash(&cluster, before);
    place.wait_until_it_has(before);
    capturing.stop();
    let gone = put(&cluster, "a", "gone");
    put(&cluster, "b", "gone");
    let kept = put(&cluster, "a", "kept");
    cluster.etcdctl(["compact", "--physical", &kept.to_string()]);
    let mut capturing = place.capture(&cluster, "host", &[]);
    let told = capturing.wait_for("are no restore points of");
    let range = format!("revisions {gone} to {}", kept - 1);
    assert!(told.contains(&range), "{told}, and not {range}");
    let last = put(&cluster, "a", "last");
    place.wait_until_it_has(last);
    capturing.stop();
    assert_eq!(archived_hash(&place.at(before)), at_before);
    assert_eq!(archived_hash(&place.at(last)), hash(&cluster, last));
    let listed = done(["archive", "list", "-w=json", place.archive().to_str().unwrap()]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let holds = |revision: i64| {
        let mut ranges = listed["log"].as_array().unwrap().iter();
        ranges.any(|range| {
            let end = |name: &str| range[name].as_i64().unwrap();
            (end("first")..=end("last")).contains(&revision)
        })
    };
    assert_eq!([before, gone, last].map(holds), [true, false, true], "{listed}");
    let refused = rekindle(["hashkv", &place.at(gone)]).output().unwrap();
    assert_eq!(refused.status.code(), Some(6));
}

/// Before anything is done, a plan says which keys going back takes away, and which it brings back.
#[test]
fn a_plan_names_what_is_not_brought_back() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let mut capturing = place.capture(&cluster, "host", &[]);
    capturing.wait_for("writing into");
    put(&cluster, "/registry/secrets/shop/password", "1");
    let then = put(&cluster, "/registry/configmaps/shop/colours", "1");
    cluster.etcdctl(["del", "/registry/secrets/shop/password"]);
    put(&cluster, "/registry/pods/shop/later", "1");
    let last = put(&cluster, "/registry/configmaps/shop/colours", "2");
    place.wait_until_it_has(last);
    capturing.stop();
    let data_dir = place.path().join("restored");
    let restore = |revision: i64| {
        done([
            "restore",
            "--dry-run",
            place.archive().to_str().unwrap(),
            &format!("--to-revision={revision}"),
            &format!("--data-dir={}", data_dir.display()),
        ])
    };
    let plan = restore(then);
    for want in [
        "leaves out".to_owned(),
        format!("{} revisions", last - then),
        format!("up to revision {last} of its log:"),
        "1 keys came later, and will not be there: /registry/pods/shop/later".to_owned(),
        "1 keys were deleted later, and come back: /registry/secrets/shop/password".to_owned(),
        "1 keys were written later, and go back".to_owned(),
    ] {
        assert!(plan.contains(&want), "{want}: {plan}");
    }
    assert!(!restore(last).contains("leaves out"));
}
