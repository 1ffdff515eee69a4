//! Snapshots of each version, restored for each later one, and those that may not go back.

use crate::booted;
use crate::command::{done, restore_alone};
use crate::sources::Source;
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members, Sites};

/// Restores a snapshot of one version into a cluster of one of another.
fn restored(from: Version) -> (Sites, String) {
    let sites = Sites::new(Members(1));
    let snapshot = Source::of(from).write(sites.dir());
    let plan = done(restore_alone(&snapshot, &sites, &[]));
    (sites, plan)
}

/// What the plan says of the etcds that the restored directory boots on.
fn check_plan(from: Version, want: &str) {
    let (_, plan) = restored(from);
    let line = plan.lines().find(|line| line.starts_with("etcd ")).unwrap();
    assert_eq!(line.trim_start_matches("etcd").trim_start(), want);
}

fn check_boots_on(from: Version, later: &[Version]) {
    for version in later {
        let (sites, plan) = restored(from);
        booted::check(*version, sites, Source::of(from), &[plan]);
    }
}

#[test]
fn of_etcd_3_4_on_each_later_one() {
    check_plan(Version::V3_4, "3.4; comes up on 3.4, 3.5, 3.6, 3.7");
    check_boots_on(Version::V3_4, &[Version::V3_5, Version::V3_6, Version::V3_7]);
}

#[test]
fn of_etcd_3_5_on_each_later_one() {
    check_plan(Version::V3_5, "3.5; comes up on 3.5, 3.6, 3.7");
    check_boots_on(Version::V3_5, &[Version::V3_6, Version::V3_7]);
}

#[test]
fn of_etcd_3_6_on_the_later_one() {
    check_plan(Version::V3_6, "3.6; comes up on 3.6, 3.7");
    check_boots_on(Version::V3_6, &[Version::V3_7]);
}

#[test]
fn of_etcd_3_7_is_refused_by_the_one_before_as_announced() {
    check_plan(Version::V3_7, "3.7; comes up on 3.7; refused by 3.6");
    let (sites, _) = restored(Version::V3_7);
    let reason = Cluster::with(Version::V3_6).on(sites).start_in_vain();
    // By the storage's version; or by the cluster's, where the storage's was not yet written.
    let reasons = ["is not supported", "invalid downgrade"];
    assert!(reasons.iter().any(|text| reason.contains(text)), "{reason}");
}
