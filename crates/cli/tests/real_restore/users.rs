//! Going back to before there were passwords, or to what users might do before, wants a word.

use crate::command::{done, only, refused, restore_alone};
use rekindle_testkit::Version;
use rekindle_testkit::content::files;
use rekindle_testkit::etcd::{Cluster, Members, ROOT_PASSWORD, ROOT_USER, Sites};
use std::path::{Path, PathBuf};
use std::process::Command;

/// An archive of a cluster before and after it began to ask for passwords, and after a role was taken from a
/// user; the three revisions.
fn archived(place: &Path) -> (PathBuf, [i64; 3]) {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let archive = place.join("archive");
    done(["archive", "init", archive.to_str().unwrap(), "--unencrypted"]);
    let put = |value: &str, flags: &[&str]| {
        let args = ["put", "key", value].into_iter().chain(flags.iter().copied());
        cluster.etcdctl_json(args)["header"]["revision"].as_i64().unwrap()
    };
    let root = format!("--user={ROOT_USER}:{ROOT_PASSWORD}");
    let save = |flags: &[&str]| {
        let endpoints = cluster.client_urls().join(",");
        let spool = place.join("spool").display().to_string();
        let args =
            ["save", archive.to_str().unwrap(), "--endpoints", &endpoints, "--spool", &spool];
        done(args.iter().chain(flags));
    };
    let open = put("before", &[]);
    save(&[]);
    for command in [
        &["user", "add", &format!("{ROOT_USER}:{ROOT_PASSWORD}")][..],
        &["role", "add", "root"],
        &["user", "grant-role", ROOT_USER, "root"],
        &["user", "add", "eve:secret"],
        &["user", "grant-role", "eve", "root"],
        &["auth", "enable"],
    ] {
        cluster.etcdctl(command.iter().copied());
    }
    let closed = put("after", &[&root]);
    save(&[&root]);
    cluster.etcdctl([&root[..], "user", "revoke-role", "eve", "root"]);
    let revoked = put("after", &[&root]);
    save(&[&root]);
    (archive, [open, closed, revoked])
}

#[test]
fn a_restore_gives_nobody_rights_that_were_taken() {
    let place = tempfile::tempdir().unwrap();
    let (archive, [open, closed, revoked]) = archived(place.path());
    let restore = |sites: &Sites, revision: i64, more: &[&str]| {
        let to = format!("--to-revision={revision}");
        let more: Vec<_> = [&to[..]].into_iter().chain(more.iter().copied()).collect();
        restore_alone(&archive, sites, &more)
    };
    let sites = Sites::new(Members(1));
    let told = refused(4, restore(&sites, open, &[]));
    assert!(told.contains("asked nobody for a password"), "{told}");
    assert!(told.contains("--accept-auth-from latest"), "{told}");
    let told = refused(4, restore(&sites, closed, &[]));
    assert!(told.contains("user eve"), "{told}");
    assert!(!only(&sites).data_dir().exists());
    done(restore(&Sites::new(Members(1)), revoked, &[]));

    let plan = done(restore(&sites, open, &["--accept-auth-from=latest"]));
    assert!(plan.contains("with roles and passwords as of "), "{plan}");
    let restored = Cluster::with(Version::LATEST).on(sites).auth_is_on().start();
    let mut anybody = Command::new(Version::LATEST.binary("etcdctl"));
    anybody.env_clear().arg(format!("--endpoints={}", restored.client_urls().join(",")));
    let refused = anybody.args(["get", "key"]).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("user name is empty"), "{told}");
    assert_eq!(restored.etcdctl(["get", "key", "--print-value-only"]), "before\n");

    let sites = Sites::new(Members(1));
    let other = done(restore(&sites, open, &["--accept-auth-from=point"]));
    // Hosts that do not say the same must not find together.
    let cluster_of = |plan: &str| {
        let line = plan.lines().find(|line| line.contains("with token")).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_ne!(cluster_of(&plan), cluster_of(&other));
    let restored = Cluster::with(Version::LATEST).on(sites).start();
    assert_eq!(restored.etcdctl(["get", "key", "--print-value-only"]), "before\n");
}

/// It once restored with the users of the point, and only warned.
#[test]
fn users_of_the_latest_base_are_not_replaced_where_that_cannot_be_read() {
    let place = tempfile::tempdir().unwrap();
    let (archive, [_, closed, _]) = archived(place.path());
    let bases =
        files(&archive).into_iter().filter(|path| path.extension().is_some_and(|it| it == "base"));
    let newest = bases.max().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::remove_file(&newest).unwrap();
    std::fs::write(&newest, bytes).unwrap();
    let sites = Sites::new(Members(1));
    let to = format!("--to-revision={closed}");
    refused(3, restore_alone(&archive, &sites, &[&to, "--accept-auth-from=latest"]));
    assert!(!only(&sites).data_dir().exists());
    // Nobody knows what was taken from whom since.
    let told = refused(4, restore_alone(&archive, &sites, &[&to]));
    assert!(told.contains("--accept-auth-from point"), "{told}");
    assert!(!only(&sites).data_dir().exists());
    done(restore_alone(&archive, &sites, &[&to, "--accept-auth-from=point"]));
}

#[test]
fn a_plain_snapshot_has_users_of_one_time() {
    let place = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let snapshot = place.path().join("snapshot.db");
    done(["save", snapshot.to_str().unwrap(), "--endpoints", &cluster.client_urls().join(",")]);
    let sites = Sites::new(Members(1));
    let told = refused(2, restore_alone(&snapshot, &sites, &["--accept-auth-from=latest"]));
    assert!(told.contains("leave --accept-auth-from out"), "{told}");
}
