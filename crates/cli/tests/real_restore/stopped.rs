//! A stopped member's data directory as a source, and a database copied out of one.

use crate::booted::hashes;
use crate::command::{database, done, refused, restore_alone};
use crate::listing::listing;
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members, Sites};
use std::path::Path;

/// Restores into a cluster of one; what was said, and the cluster.
fn restored(source: &Path, more: &[&str]) -> (String, Cluster) {
    let sites = Sites::new(Members(1));
    let plan = done(restore_alone(source, &sites, more));
    (plan, Cluster::with(Version::LATEST).on(sites).start())
}

#[test]
fn a_data_directory_is_a_source() {
    for version in Version::ALL {
        let source = Cluster::start(version, Members(1));
        source.etcdctl(["put", "a", "1"]);
        source.etcdctl(["put", "a", "2"]);
        let wanted = hashes(&source, 3);
        source.member(0).stop();
        let before = listing(source.member(0).data_dir());
        let (plan, cluster) = restored(source.member(0).data_dir(), &[]);
        assert!(plan.contains("data directory of a stopped member"), "{plan}");
        assert!(!plan.contains("will be lost"), "{version}: {plan}");
        assert_eq!(hashes(&cluster, 3), wanted, "{version}");
        assert_eq!(listing(source.member(0).data_dir()), before, "{version}");
        cluster.etcdctl(["put", "written", "after the restore"]);
    }
}

#[test]
fn entries_that_the_database_lacks_are_announced() {
    let setup = Cluster::with(Version::LATEST).flag("--backend-batch-interval=1h");
    let source = setup.start();
    for value in ["1", "2", "3"] {
        source.etcdctl(["put", "a", value]);
    }
    source.member(0).kill();
    let (plan, cluster) = restored(source.member(0).data_dir(), &[]);
    let announced = "committed entries are in the member's log but not in its database: \
                     they will be lost";
    assert!(plan.contains(announced), "{plan}");
    assert_eq!(cluster.etcdctl(["get", "a"]), "");
    // Its own etcd applies them.
    source.member(0).start();
    assert_eq!(source.etcdctl(["get", "a", "--print-value-only"]), "3\n");
}

#[test]
fn a_bare_database_is_a_source_with_a_warning() {
    let source = Cluster::start(Version::LATEST, Members(1));
    source.etcdctl(["put", "a", "1"]);
    let wanted = hashes(&source, 2);
    source.member(0).stop();
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("db");
    std::fs::copy(database(source.member(0).data_dir()), &copy).unwrap();
    let told = refused(3, restore_alone(&copy, &Sites::new(Members(1)), &[]));
    assert!(told.contains("pass --skip-hash-check"), "{told}");
    let (plan, cluster) = restored(&copy, &["--skip-hash-check"]);
    let warning = "nothing proves that the db file is whole and unchanged";
    assert!(plan.contains(warning), "{plan}");
    assert_eq!(hashes(&cluster, 2), wanted);
    cluster.etcdctl(["put", "written", "after the restore"]);
}

#[test]
fn a_log_that_is_elsewhere_is_missed() {
    let logs = tempfile::tempdir().unwrap();
    let wal_dir = logs.path().join("wal");
    let source = Cluster::with(Version::LATEST)
        .flag(format!("--wal-dir={}", wal_dir.display()))
        .flag("--backend-batch-interval=1h")
        .start();
    source.etcdctl(["put", "a", "1"]);
    source.member(0).kill();
    let plan = |more: &[&str]| {
        let flags = [&["--dry-run"], more].concat();
        done(restore_alone(source.member(0).data_dir(), &Sites::new(Members(1)), &flags))
    };
    assert!(plan(&[]).contains("the member's log was not found"));
    let told = plan(&[&format!("--source-wal-dir={}", wal_dir.display())]);
    assert!(told.contains("they will be lost") && !told.contains("was not found"), "{told}");
}
