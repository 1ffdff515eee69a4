//! Raised revisions: no client that remembers the lost cluster may take the restored past for news.

use crate::booted::{self, ask, ask_json, first_message, hashes};
use crate::command::{done, refused, restore_alone};
use crate::sources::{Source, revision_of};
use rekindle_client::{Error, WatchRequest};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members, Sites};

/// What a Kubernetes keyspace gets unless told otherwise.
const DEFAULT_AMOUNT: i64 = 1_000_000_000;

/// Restores Kubernetes' keys into a cluster of one, with more flags.
fn restored(more: &[&str]) -> (Sites, String) {
    let sites = Sites::new(Members(1));
    let snapshot = Source::kubernetes().write(sites.dir());
    let plan = done(restore_alone(&snapshot, &sites, more));
    (sites, plan)
}

/// The revision has been raised by so much, and everything before is gone for good.
fn check_raised(cluster: &Cluster, amount: i64) {
    let source = Source::kubernetes();
    let raised = source.revision + amount;
    let put = ask_json(cluster, &["put", "/registry/written", "after the restore"]);
    assert_eq!(revision_of(&put), raised + 1);
    let watch = first_message(cluster, WatchRequest::from_revision(source.revision));
    let Err(Error::WatchCompacted { compact_revision, .. }) = watch else {
        panic!("a watch from the past must be told so, not {watch:?}");
    };
    assert_eq!(compact_revision, raised);
    let past = format!("--rev={}", source.revision);
    let output = cluster.etcdctl_command().args(["get", "/registry/x", &past]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("required revision has been compacted"), "{error}");
    for member in cluster.members() {
        let key = ask(cluster, member, &["get", "/registry/minions/n1", "--print-value-only"]);
        assert_eq!(key, "here\n");
    }
    let all = hashes(cluster, raised + 1);
    assert!(all.iter().all(|hash| *hash == all[0] && hash.compact_revision == raised), "{all:?}");
}

#[test]
fn a_raised_revision_on_every_version() {
    for version in Version::ALL {
        let (sites, plan) = restored(&["--bump-revision=1000", "--mark-compacted"]);
        let from = Source::kubernetes().revision;
        let announced = format!("{from}, raised by 1,000 to {}", from + 1000);
        assert!(plan.contains(&announced), "{plan}");
        check_raised(&Cluster::with(version).on(sites).start(), 1000);
    }
}

#[test]
fn kubernetes_gets_a_raised_revision_unasked() {
    let sites = Sites::new(Members(3));
    let snapshot = Source::kubernetes().write(sites.dir());
    let plan = done([
        "restore",
        snapshot.to_str().unwrap(),
        &format!("--members={}", sites.dir().display()),
        &format!("--initial-cluster={}", sites.initial_cluster()),
    ]);
    assert!(plan.contains("so that Kubernetes' caches start anew"), "{plan}");
    booted::check_databases(
        Version::LATEST,
        &sites,
        Source::kubernetes().revision + DEFAULT_AMOUNT,
    );
    let cluster = Cluster::with(Version::LATEST).on(sites).start();
    booted::check_members(&cluster, &[plan]);
    check_raised(&cluster, DEFAULT_AMOUNT);
}

#[test]
fn kubernetes_keeps_its_revision_on_request() {
    let source = Source::kubernetes();
    let (sites, _) = restored(&["--bump-revision=0"]);
    let cluster = Cluster::with(Version::LATEST).on(sites).start();
    assert_eq!(hashes(&cluster, source.revision), [source.hash]);
    let put = ask_json(&cluster, &["put", "/registry/written", "after the restore"]);
    assert_eq!(revision_of(&put), source.revision + 1);
}

#[test]
fn raising_and_compacting_go_together() {
    let sites = Sites::new(Members(1));
    let snapshot = Source::kubernetes().write(sites.dir());
    for (flag, want) in [
        ("--bump-revision=1000", "error: --bump-revision needs --mark-compacted\n"),
        ("--mark-compacted", "error: --mark-compacted needs --bump-revision above 0\n"),
    ] {
        assert_eq!(refused(2, restore_alone(&snapshot, &sites, &[flag])), want);
    }
    assert!(!sites.iter().any(|site| site.data_dir().exists()));
}
