//! Whoever serves at the peer URLs of a restored cluster.

use crate::command::{done, refused, restore, restore_alone};
use crate::sources::Source;
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members, Sites};

#[test]
fn a_cluster_that_still_runs_is_not_restored_over() {
    let old = Cluster::start(Version::LATEST, Members(1));
    let snapshot = old.sites().dir().join("snapshot.db");
    done(["save", snapshot.to_str().unwrap(), "--endpoints", old.member(0).client_url()]);
    let elsewhere = old.sites().dir().join("elsewhere");
    // Not over the running member's own directory, which is locked anyway.
    let mut args = restore_alone(&snapshot, old.sites(), &[]);
    args.retain(|arg| !arg.starts_with("--data-dir"));
    args.push(format!("--data-dir={}", elsewhere.display()));
    let status = old.etcdctl_json(["endpoint", "status"]);
    let old_id = status[0]["Status"]["header"]["cluster_id"].as_u64().unwrap();
    for dry_run in [Some("--dry-run"), None] {
        let told = refused(4, args.iter().map(String::as_str).chain(dry_run));
        let url = old.member(0).peer_url();
        assert!(told.contains(&format!("peer URL {url} is to be member m0 of cluster ")), "{told}");
        assert!(
            told.contains(&format!("but a member of cluster {old_id:x} serves there")),
            "{told}"
        );
        assert!(told.contains("--allow-live-peers"), "{told}");
        assert!(!elsewhere.exists());
    }
    args.push("--allow-live-peers".to_owned());
    done(&args);
}

#[test]
fn members_of_the_same_restore_may_run_already() {
    let source = Source::of(Version::LATEST);
    let sites = Sites::new(Members(3));
    let snapshot = source.write(sites.dir());
    for site in sites.iter() {
        done(restore(&snapshot, &sites, site));
    }
    let cluster = Cluster::with(Version::LATEST).on(sites).auth_is_on().start();
    cluster.member(2).stop();

    // It has taken part: made anew, it would not know what it has acknowledged.
    let sites = cluster.sites();
    let third = sites.iter().nth(2).unwrap();
    let mut args = restore(&snapshot, sites, third);
    let told = refused(4, args.iter().map(String::as_str).chain(["--yes"]));
    assert!(told.contains("has taken part in it"), "{told}");

    // A third host on which nothing is: the others serve the cluster that it is restored for.
    std::fs::rename(third.data_dir(), sites.dir().join("lost")).unwrap();
    args.extend(["--dry-run".to_owned()]);
    done(&args);
    // For another cluster they are in the way.
    args.push("--initial-cluster-token=another".to_owned());
    let told = refused(4, &args);
    let serves = |index: usize| {
        let url = cluster.member(index).peer_url();
        told.contains(&format!("peer URL {url} is to be member m{index} of cluster "))
    };
    assert!(serves(0) || serves(1), "{told}");
    assert!(told.contains("but a member of cluster "), "{told}");
}
