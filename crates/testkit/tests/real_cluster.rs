//! The harness itself, on real servers.

use std::path::Path;

use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::etcd::{Cluster, Members, ROOT_USER, Sites, etcdutl};

#[test]
fn every_version_starts_stops_and_starts_again() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        cluster.etcdctl(["put", "a", "1"]);
        cluster.member(0).stop();
        cluster.member(0).start();
        assert_eq!(cluster.etcdctl(["get", "a", "--print-value-only"]), "1\n", "{version}");
    }
}

#[test]
fn three_members_survive_the_loss_of_one() {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    cluster.member(2).kill();
    let health = cluster.etcdctl_for(cluster.member(0)).args(["endpoint", "health"]).output();
    assert!(health.expect("etcdctl runs").status.success());
    cluster.member(2).start();
}

#[test]
fn mutual_tls_with_authentication() {
    let ca = Ca::new("etcd-ca");
    let server = ca.issue("server", &Leaf::server());
    let cluster = Cluster::with(Version::V3_5).mutual_tls(&ca, &server).auth().start();
    assert!(cluster.etcdctl(["user", "list"]).contains(ROOT_USER));
    assert!(cluster.member(0).client_url().starts_with("https://"));
}

/// Restores a snapshot with etcd's own tool to every site.
fn restore(version: Version, snapshot: &Path, sites: &Sites) {
    for site in sites.iter() {
        let flags = [
            format!("--name={}", site.name()),
            format!("--data-dir={}", site.data_dir().display()),
            format!("--initial-cluster={}", sites.initial_cluster()),
            format!("--initial-advertise-peer-urls={}", site.peer_url()),
        ];
        let snapshot = snapshot.display().to_string();
        let verbs = ["snapshot".to_owned(), "restore".to_owned(), snapshot];
        etcdutl(version, verbs.into_iter().chain(flags));
    }
}

#[test]
fn restored_directories_boot() {
    for (version, members) in [(Version::V3_4, 1), (Version::V3_6, 5)] {
        let source = Cluster::with(version).auth().start();
        source.etcdctl(["put", "a", "1"]);
        let sites = Sites::new(Members(members));
        let snapshot = sites.dir().join("snapshot.db");
        source.etcdctl(["snapshot", "save", snapshot.to_str().expect("UTF-8")]);
        restore(version, &snapshot, &sites);
        let restored = Cluster::with(version).on(sites).auth_is_on().start();
        assert_eq!(restored.etcdctl(["get", "a", "--print-value-only"]), "1\n", "{version}");
        assert_eq!(restored.members().len(), members, "{version}");
    }
}
