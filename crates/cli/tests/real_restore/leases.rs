//! What becomes of leases.

use crate::booted::{ask, ask_json, first_message, hashes};
use crate::command::{done, restore_alone};
use crate::sources::revision_of;
use rekindle_client::{Event, EventType, Keys, WatchMessage, WatchRequest};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members, Sites};
use std::path::Path;

const KEY: &str = "leased";

/// A snapshot with a key whose lease lives longer than any test; its revision, and the HashKV there.
fn saved(version: Version, path: &Path) -> (i64, crate::booted::KvHash) {
    let cluster = Cluster::with(version).start();
    let granted = cluster.etcdctl(["lease", "grant", "6000"]);
    let lease = format!("--lease={}", granted.split(' ').nth(1).unwrap());
    let revision = revision_of(&cluster.etcdctl_json(["put", KEY, "alive", &lease]));
    done(["save", path.to_str().unwrap(), "--endpoints", cluster.member(0).client_url()]);
    (revision, hashes(&cluster, revision)[0])
}

/// What was restored with that fate, running, and the plan.
fn restored(version: Version, snapshot: &Path, fate: &str) -> (Cluster, String) {
    let sites = Sites::new(Members(1));
    let plan = done(restore_alone(snapshot, &sites, &[&format!("--leases={fate}")]));
    (Cluster::with(version).on(sites).start(), plan)
}

#[test]
fn leases_expire_or_are_detached() {
    for version in Version::ALL {
        let place = tempfile::tempdir().unwrap();
        let snapshot = place.path().join("snapshot.db");
        let (revision, hash) = saved(version, &snapshot);
        let leases = |cluster: &Cluster| {
            let listed = ask_json(cluster, &["lease", "list"]);
            listed["leases"].as_array().map_or(0, Vec::len)
        };
        let value = |cluster: &Cluster| {
            ask(cluster, cluster.member(0), &["get", KEY, "--print-value-only"])
        };

        let (cluster, plan) = restored(version, &snapshot, "restore");
        assert!(!plan.contains("leases"), "{plan}");
        assert_eq!((leases(&cluster), value(&cluster).as_str()), (1, "alive\n"), "{version}");
        drop(cluster);

        let (cluster, plan) = restored(version, &snapshot, "detach");
        assert!(plan.contains("the keys that hung on them stay"), "{plan}");
        assert_eq!(hashes(&cluster, revision), [hash], "{version}");
        for _ in 0..2 {
            assert_eq!((leases(&cluster), value(&cluster).as_str()), (0, "alive\n"), "{version}");
            cluster.member(0).kill();
            cluster.member(0).start();
        }
        drop(cluster);

        let (cluster, plan) = restored(version, &snapshot, "expire");
        assert!(plan.contains("end within seconds"), "{plan}");
        let watch = WatchRequest::from_revision(revision + 1).keys(Keys::one(KEY));
        let Some(WatchMessage::Changes(changes)) = first_message(&cluster, watch).unwrap() else {
            panic!("{version}: the key is still there");
        };
        let events: Vec<_> = changes.events.iter().map(Event::r#type).collect();
        assert_eq!(events, [EventType::Delete], "{version}");
        assert_eq!(leases(&cluster), 0, "{version}");
    }
}
