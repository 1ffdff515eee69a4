//! What goes wrong around a capture, and what becomes of it.

use crate::harness::{Place, archived_hash, done, hash, put, put_at};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members};

/// The member that is watched dies: another one goes on, without a hole.
#[test]
fn a_member_that_dies_is_left() {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    let place = Place::new();
    let mut capturing = place.capture(&cluster, "host", &[]);
    capturing.wait_for("writing into");
    for member in 0..3 {
        put(&cluster, "before", &member.to_string());
        cluster.member(member).kill();
        for number in 0..5 {
            put_at(&cluster, (member + 1) % 3, &format!("key-{number}"), &member.to_string());
        }
        cluster.member(member).start();
    }
    let last = put(&cluster, "last", "");
    capturing.stop();
    assert_eq!(archived_hash(&place.at(last)), hash(&cluster, last));
}

/// A second one stands by, and takes over when the first falls silent.
#[test]
fn a_second_capture_takes_over() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let mut first = place.capture(&cluster, "one", &[]);
    first.wait_for("writing into");
    put(&cluster, "a", "1");
    let mut second = place.capture(&cluster, "two", &[]);
    second.wait_for("standing by");
    put(&cluster, "a", "2");
    first.kill();
    second.wait_for("writing into");
    let last = put(&cluster, "a", "3");
    second.stop();
    assert_eq!(archived_hash(&place.at(last)), hash(&cluster, last));
}

/// Whoever was frozen and comes again finds that another one writes: he stands by.
#[test]
fn a_capture_that_was_frozen_stands_by() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let mut first = place.capture(&cluster, "one", &[]);
    first.wait_for("writing into");
    first.freeze();
    let mut second = place.capture(&cluster, "two", &[]);
    second.wait_for("writing into");
    put(&cluster, "a", "1");
    first.thaw();
    first.wait_for("standing by");
    let last = put(&cluster, "a", "2");
    second.stop();
    assert_eq!(archived_hash(&place.at(last)), hash(&cluster, last));
}

/// An archive that is not there delays no other, and has everything once it is there again.
#[test]
fn an_archive_that_fails_catches_up() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let other = place.path().join("other");
    done(["archive", "init", "--unencrypted", other.to_str().unwrap()]);
    let archive = place.archive();
    let mut capturing = place.capture_into(&cluster, "host", &[&archive, &other], &[]);
    capturing.wait_for("writing into");
    capturing.wait_for("writing into");
    let away = place.path().join("away");
    std::fs::rename(&other, &away).unwrap();
    let middle = put(&cluster, "a", "1");
    capturing.wait_for("cannot be written into now");
    // What has come to lie there meanwhile is nobody's.
    std::fs::remove_dir_all(&other).unwrap();
    std::fs::rename(&away, &other).unwrap();
    capturing.wait_for("can be written into again");
    let last = put(&cluster, "a", "2");
    capturing.stop();
    for archive in [&archive, &other] {
        for revision in [middle, last] {
            let point = format!("{}@{revision}", archive.display());
            assert_eq!(archived_hash(&point), hash(&cluster, revision), "{point}");
        }
    }
}
