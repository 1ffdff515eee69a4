//! Where a restore writes, what it leaves alone, and the way back.

use crate::booted::hashes;
use crate::command::{done, only, refused, restore_alone};
use crate::listing::{aside, listing, names};
use crate::sources::Source;
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members, Setup, Sites};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// A stopped cluster of one with something in it that the snapshot does not have.
pub fn stopped(flags: &[String]) -> Cluster {
    let setup = flags.iter().fold(Cluster::with(Version::LATEST), Setup::flag);
    let cluster = setup.start();
    cluster.etcdctl(["put", "old", "content"]);
    cluster.member(0).stop();
    cluster
}

/// Kubernetes' keys, outside of every data directory.
pub fn snapshot() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = Source::kubernetes().write(directory.path());
    (directory, path)
}

/// Starts the cluster, which has come up from the snapshot, and stops it.
pub fn check_is_restored(cluster: &Cluster) {
    let source = Source::kubernetes();
    cluster.member(0).start();
    assert_eq!(hashes(cluster, source.revision), [source.hash]);
    assert_eq!(cluster.etcdctl(["get", "old"]), "");
    cluster.etcdctl(["put", "written", "after the restore"]);
    cluster.member(0).stop();
}

/// Starts the cluster, which is what it was before.
pub fn check_is_the_old_one(cluster: &Cluster) {
    cluster.member(0).start();
    assert_eq!(cluster.etcdctl(["get", "old", "--print-value-only"]), "content\n");
    assert_eq!(cluster.etcdctl(["get", "written"]), "");
    assert_eq!(cluster.etcdctl(["get", "/registry", "--prefix"]), "");
}

/// The one thing that was set aside.
fn only_aside(directory: &Path, word: &str) -> PathBuf {
    let found = aside(directory, word);
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

/// Restores over an old directory and takes it back.
fn check_there_and_back(cluster: &Cluster, directories: &[&Path], flags: &[&str]) {
    let (_kept, snapshot) = snapshot();
    let data_dir = cluster.member(0).data_dir();
    let before: Vec<_> = directories.iter().map(|directory| listing(directory)).collect();
    let args = restore_alone(&snapshot, cluster.sites(), &[&["--bump-revision=0"], flags].concat());
    let unasked = refused(4, &args);
    assert!(unasked.contains("pass --yes"), "{unasked}");
    let told = done(args.iter().map(String::as_str).chain(["--yes"]));
    for (directory, before) in directories.iter().zip(&before) {
        let aside = only_aside(directory, "before");
        assert_eq!(listing(&aside), *before);
        assert!(told.contains(aside.to_str().unwrap()), "{told}");
    }
    check_is_restored(cluster);
    let data_dir_flag = format!("--data-dir={}", data_dir.display());
    let back = [&["restore", "--rollback", "--yes", &data_dir_flag], flags].concat();
    let told = done(back);
    for (directory, before) in directories.iter().zip(&before) {
        assert_eq!(listing(directory), *before);
        assert_eq!(aside(directory, "before"), [""; 0].map(PathBuf::from));
        assert!(only_aside(directory, "undone").is_dir());
    }
    let undone = only_aside(data_dir, "undone");
    assert!(told.contains(undone.to_str().unwrap()), "{told}");
    check_is_the_old_one(cluster);
}

#[test]
fn an_existing_directory_is_set_aside_and_comes_back() {
    let cluster = stopped(&[]);
    let data_dir = cluster.member(0).data_dir().to_owned();
    check_there_and_back(&cluster, &[&data_dir], &[]);
}

#[test]
fn each_members_directory_is_set_aside() {
    let sites = Sites::new(Members(3));
    let (_kept, snapshot) = snapshot();
    let (members, cluster) = (sites.dir().display(), sites.initial_cluster());
    let flags = [format!("--members={members}"), format!("--initial-cluster={cluster}")];
    let args = ["restore", snapshot.to_str().unwrap(), &flags[0], &flags[1], "--bump-revision=0"];
    done(args);
    let listings = || sites.iter().map(|site| listing(site.data_dir())).collect::<Vec<_>>();
    let before = listings();
    let unasked = refused(4, args);
    assert!(unasked.contains("pass --yes"), "{unasked}");
    assert_eq!(listings(), before);
    done(args.into_iter().chain(["--yes"]));
    for (site, before) in sites.iter().zip(before) {
        assert_eq!(listing(&only_aside(site.data_dir(), "before")), before);
    }
    let cluster = Cluster::with(Version::LATEST).on(sites).start();
    let source = Source::kubernetes();
    assert_eq!(hashes(&cluster, source.revision), [source.hash; 3]);
}

#[test]
fn a_log_in_its_own_directory_goes_and_comes_with_it() {
    let logs = tempfile::tempdir().unwrap();
    let wal_dir = logs.path().join("wal");
    let flag = format!("--wal-dir={}", wal_dir.display());
    let cluster = stopped(std::slice::from_ref(&flag));
    let data_dir = cluster.member(0).data_dir().to_owned();
    assert!(!data_dir.join("member/wal").exists() && wal_dir.exists());
    check_there_and_back(&cluster, &[&data_dir, &wal_dir], &[&flag]);
}

#[test]
fn a_running_etcd_is_left_alone() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let (_kept, snapshot) = snapshot();
    let data_dir = cluster.member(0).data_dir().to_str().unwrap();
    let there = names(cluster.sites().dir());
    let told = refused(4, restore_alone(&snapshot, cluster.sites(), &["--yes"]));
    assert!(told.contains(data_dir) && told.contains("stop etcd first"), "{told}");
    let data_dir_flag = format!("--data-dir={data_dir}");
    fs::create_dir(cluster.sites().dir().join("m0.before-20200101T000000Z")).unwrap();
    let told = refused(4, ["restore", "--rollback", "--yes", &data_dir_flag]);
    assert!(told.contains(data_dir) && told.contains("stop etcd first"), "{told}");
    fs::remove_dir(cluster.sites().dir().join("m0.before-20200101T000000Z")).unwrap();
    let elsewhere = Sites::new(Members(1));
    let told = refused(4, restore_alone(Path::new(data_dir), &elsewhere, &[]));
    assert!(told.contains("an etcd is running on this data directory"), "{told}");
    assert_eq!(names(cluster.sites().dir()), there);
    assert!(names(elsewhere.dir()).is_empty());
    cluster.etcdctl(["put", "still", "alive"]);
}

#[test]
fn a_dry_run_says_the_same_and_touches_nothing() {
    let cluster = stopped(&[]);
    let (_kept, snapshot) = snapshot();
    let before = listing(cluster.sites().dir());
    let plan = done(restore_alone(&snapshot, cluster.sites(), &["--dry-run"]));
    assert!(plan.contains("what is there goes to "), "{plan}");
    assert_eq!(listing(cluster.sites().dir()), before);
    let sites = Sites::new(Members(1));
    let plan = done(restore_alone(&snapshot, &sites, &["--dry-run"]));
    assert!(names(sites.dir()).is_empty());
    let told = done(restore_alone(&snapshot, &sites, &[]));
    assert!(told.starts_with(&plan), "planned\n{plan}and did\n{told}");
    let data_dir = format!("--data-dir={}", only(&sites).data_dir().display());
    let before = listing(sites.dir());
    refused(6, ["restore", "--rollback", "--dry-run", &data_dir]);
    assert_eq!(listing(sites.dir()), before);
    Cluster::with(Version::LATEST).on(sites).start();
}

#[test]
fn owner_and_mode_of_the_old_directory_are_kept() {
    let cluster = stopped(&[]);
    let data_dir = cluster.member(0).data_dir();
    fs::set_permissions(data_dir, fs::Permissions::from_mode(0o750)).unwrap();
    // Only root can give a directory away; for others it stays their own.
    let _ = chown(data_dir, Some(12_345), Some(23_456));
    let owner = listing(data_dir)[0].owner;
    let (_kept, snapshot) = snapshot();
    done(restore_alone(&snapshot, cluster.sites(), &["--bump-revision=0", "--yes"]));
    let restored = listing(data_dir);
    assert!(restored.iter().all(|entry| entry.owner == owner), "{restored:?}");
    assert_eq!(restored[0].mode, 0o750);
    check_is_restored(&cluster);
}

#[test]
fn contradictions_are_refused_with_both_values() {
    let sites = Sites::new(Members(1));
    let (_kept, snapshot) = snapshot();
    let (snapshot, url) = (snapshot.to_str().unwrap(), only(&sites).peer_url());
    let cluster = format!("--initial-cluster=m0={url}");
    let data_dir = format!("--data-dir={}", only(&sites).data_dir().display());
    let args = ["restore", snapshot, &cluster, &data_dir];
    let told = refused(4, args.into_iter().chain(["--name=m7"]));
    assert!(
        told.contains(&format!("\"m7\", which is not in --initial-cluster \"m0={url}\"")),
        "{told}"
    );
    let other = "--initial-advertise-peer-urls=http://127.0.0.1:1";
    let told = refused(4, args.into_iter().chain(["--name=m0", other]));
    assert!(told.contains("http://127.0.0.1:1") && told.contains(&url), "{told}");
    assert!(names(sites.dir()).is_empty());
}

/// The static pod manifest that kubeadm would have written for the one member.
fn manifest(sites: &Sites, directory: &Path) -> PathBuf {
    let site = only(sites);
    let (name, url, data) = (site.name(), site.peer_url(), site.data_dir().display());
    let yaml = format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --data-dir=/var/lib/etcd
    - --initial-advertise-peer-urls={url}
    - --initial-cluster={name}={url}
    - --name={name}
    - --snapshot-count=10000
    image: etcd
    name: etcd
    volumeMounts:
    - mountPath: /var/lib/etcd
      name: etcd-data
  hostNetwork: true
  volumes:
  - hostPath:
      path: {data}
      type: DirectoryOrCreate
    name: etcd-data
"
    );
    let path = directory.join("etcd.yaml");
    fs::write(&path, yaml).unwrap();
    path
}

#[test]
fn a_manifest_says_who_and_where() {
    let sites = Sites::new(Members(1));
    let (kept, snapshot) = snapshot();
    let snapshot = snapshot.to_str().unwrap();
    let manifest = format!("--from-manifest={}", manifest(&sites, kept.path()).display());
    let args = ["restore", snapshot, &manifest, "--bump-revision=0"];
    let data_dir = only(&sites).data_dir().display().to_string();
    for (flag, given, listed) in [
        ("name", "m7", "m0"),
        ("data-dir", "/nowhere", data_dir.as_str()),
        ("initial-cluster", "m0=http://127.0.0.1:1", sites.initial_cluster().as_str()),
    ] {
        let told = refused(4, args.into_iter().chain([format!("--{flag}={given}").as_str()]));
        assert!(told.contains(&format!("--{flag} is \"{given}\", but manifest")), "{told}");
        assert!(told.contains(&format!("says \"{listed}\"")), "{told}");
    }
    assert!(names(sites.dir()).is_empty());
    done(args);
    let cluster = Cluster::with(Version::LATEST).on(sites).start();
    let source = Source::kubernetes();
    assert_eq!(hashes(&cluster, source.revision), [source.hash]);
}

#[test]
fn what_is_no_data_directory_is_not_moved_away() {
    let (_kept, snapshot) = snapshot();
    let sites = Sites::new(Members(1));
    let home = only(&sites).data_dir();
    fs::create_dir(home).unwrap();
    fs::write(home.join("thesis.txt"), "all of it").unwrap();
    let before = listing(sites.dir());
    let told = refused(4, restore_alone(&snapshot, &sites, &["--yes"]));
    assert!(told.contains("no etcd data directory") && told.contains("thesis.txt"), "{told}");
    assert_eq!(listing(sites.dir()), before);
    let args = ["restore", snapshot.to_str().unwrap(), "--yes", "--allow-live-peers"];
    let told = refused(2, args.into_iter().chain(["--data-dir=/"]));
    assert!(told.contains("root of all files"), "{told}");
}

/// A rollback that left the restored log in its place made etcd panic.
#[test]
fn directory_and_log_come_and_go_together() {
    let logs = tempfile::tempdir().unwrap();
    let flag = format!("--wal-dir={}", logs.path().join("wal").display());
    let cluster = stopped(std::slice::from_ref(&flag));
    let (_kept, snapshot) = snapshot();
    let told = refused(4, restore_alone(&snapshot, cluster.sites(), &["--yes"]));
    assert!(told.contains("has its log in a directory of its own"), "{told}");
    assert!(told.contains("--wal-dir"), "{told}");
    done(restore_alone(&snapshot, cluster.sites(), &["--yes", &flag]));
    let data_dir = format!("--data-dir={}", cluster.member(0).data_dir().display());
    let told = refused(4, ["restore", "--rollback", "--yes", &data_dir]);
    assert!(told.contains("--wal-dir"), "{told}");
    done(["restore", "--rollback", "--yes", &data_dir, &flag]);
    check_is_the_old_one(&cluster);
}

#[test]
fn a_rollback_says_first_what_it_brings_back() {
    let cluster = stopped(&[]);
    let data_dir = format!("--data-dir={}", cluster.member(0).data_dir().display());
    for more in [&["--dry-run"][..], &[]] {
        let args = [&["restore", "--rollback", &data_dir], more].concat();
        let told = refused(6, args);
        assert!(told.contains("no earlier directory was set aside"), "{told}");
    }
    let (_kept, snapshot) = snapshot();
    done(restore_alone(&snapshot, cluster.sites(), &["--yes"]));
    let aside = only_aside(cluster.member(0).data_dir(), "before");
    let before = listing(cluster.sites().dir());
    let told = done(["restore", "--rollback", "--dry-run", &data_dir]);
    assert!(told.contains(&format!("brings back {}", aside.display())), "{told}");
    let told = refused(6, ["restore", "--resume", "--dry-run", &data_dir]);
    assert!(told.contains("no restore was interrupted"), "{told}");
    assert_eq!(listing(cluster.sites().dir()), before);
}
