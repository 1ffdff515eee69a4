//! Clusters of one, three and five members, on every version.

use crate::booted::{self, ask_json, wait_for};
use crate::command::{done, restore, restore_alone};
use crate::sources::Source;
use rekindle_client::{Alarm, AlarmKind, Client, Config};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members, Sites};

/// All members' directories by one command.
fn restore_together(source: &Source, sites: &Sites) -> Vec<String> {
    let snapshot = source.write(sites.dir());
    let plan = done([
        "restore",
        snapshot.to_str().unwrap(),
        &format!("--members={}", sites.dir().display()),
        &format!("--initial-cluster={}", sites.initial_cluster()),
    ]);
    vec![plan]
}

/// Each member's directory by a command of its own, from a copy of its own, as on so many hosts.
/// Only the restores' agreement on cluster and ids lets the members find together.
fn restore_host_by_host(source: &Source, sites: &Sites) -> Vec<String> {
    let restore_on = |site| {
        let host = tempfile::tempdir().unwrap();
        done(restore(&source.write(host.path()), sites, site))
    };
    sites.iter().map(restore_on).collect()
}

fn check_sizes(version: Version) {
    let source = Source::of(version);
    for members in [1, 3, 5] {
        let sites = Sites::new(Members(members));
        let plans = match members {
            3 => restore_host_by_host(source, &sites),
            _ => restore_together(source, &sites),
        };
        booted::check(version, sites, source, &plans);
    }
}

#[test]
fn etcd_3_4_with_1_3_and_5_members() {
    check_sizes(Version::V3_4);
}

#[test]
fn etcd_3_5_with_1_3_and_5_members() {
    check_sizes(Version::V3_5);
}

#[test]
fn etcd_3_6_with_1_3_and_5_members() {
    check_sizes(Version::V3_6);
}

#[test]
fn etcd_3_7_with_1_3_and_5_members() {
    check_sizes(Version::V3_7);
}

#[test]
fn three_members_with_an_alarm_become_one_without() {
    let source = Cluster::start(Version::V3_6, Members(3));
    source.etcdctl(["put", "a", "1"]);
    let status = ask_json(&source, &["endpoint", "status"]);
    let member_id = status[0]["Status"]["header"]["member_id"].as_u64().unwrap();
    let client = Client::new(Config::new(source.client_urls())).unwrap();
    wait_for(client.raise(Alarm { member_id, kind: AlarmKind::NoSpace })).unwrap();
    let output = source.etcdctl_command().args(["put", "a", "2"]).output().unwrap();
    assert!(!output.status.success(), "the alarm blocks writes");
    let sites = Sites::new(Members(1));
    let snapshot = sites.dir().join("snapshot.db");
    let endpoints = source.client_urls().join(",");
    done(["save", snapshot.to_str().unwrap(), "--endpoints", &endpoints]);
    let plan = done(restore_alone(&snapshot, &sites, &[]));
    assert!(plan.contains("alarm NOSPACE of the source is cleared"), "{plan}");
    assert!(plan.contains("the source's cluster was m0, m1, m2, the new one is m0"), "{plan}");
    let cluster = Cluster::with(Version::V3_6).on(sites).start();
    booted::check_members(&cluster, &[plan]);
    assert_eq!(cluster.etcdctl(["alarm", "list"]), "");
    cluster.etcdctl(["put", "a", "3"]);
}
