//! What was followed is what comes back.

use crate::harness::{KvHash, Place, archived_hash, done, hash, put, revision_of, transaction};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members, Sites};
use std::collections::BTreeMap;

/// Changes of all sorts, and what the member says of the revisions that they make.
pub fn work(cluster: &Cluster, round: i64, known: &mut BTreeMap<i64, KvHash>) {
    let granted = cluster.etcdctl(["lease", "grant", "600"]);
    let lease = format!("--lease={}", granted.split(' ').nth(1).unwrap());
    transaction(cluster, &format!("put z {round}\ndel key-1\nput a {round}\nput key-9 x\n"));
    cluster.etcdctl(["put", &format!("key-{round}"), "leased", &lease]);
    cluster.etcdctl(["put", "empty", ""]);
    cluster.etcdctl(["put", "key-1", "anew"]);
    let many: String = (0..100).map(|n| format!("put many-{n} {round}\n")).collect();
    transaction(cluster, &many);
    let deleted = cluster.etcdctl_json(["del", "--prefix", "key-"]);
    let last = revision_of(&deleted);
    for revision in last - 5..=last {
        known.insert(revision, hash(cluster, revision));
    }
}

/// On each etcd: what is asked of any revision that came while capture ran is what the member said of it
/// then, before and behind compactions and bases; and one is restored and booted.
#[test]
fn every_revision_comes_back() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        let place = Place::new();
        put(&cluster, "before", "it began");
        let mut capturing = place.capture(&cluster, "host", &[]);
        capturing.wait_for("writing into");
        let mut known = BTreeMap::new();
        for round in 0..3 {
            work(&cluster, round, &mut known);
        }
        // The log keeps what the cluster forgets.
        let compacted = *known.last_key_value().unwrap().0;
        cluster.etcdctl(["compact", "--physical", &compacted.to_string()]);
        let mut after = BTreeMap::new();
        for round in 3..5 {
            work(&cluster, round, &mut after);
        }
        let said = capturing.stop();
        assert!(!said.iter().any(|line| line.contains("warning")), "{version}: {said:#?}");
        for (revision, hash) in &known {
            assert_eq!(archived_hash(&place.at(revision)), *hash, "{version}: {revision}");
        }
        // A compaction is in no watch: later revisions come back with what it removed.
        let keyspace = |revision: i64| {
            let exported = place.path().join(format!("{revision}.db"));
            let (archive, file) = (place.archive(), exported.to_str().unwrap().to_owned());
            let to = format!("--to-revision={revision}");
            done(["archive", "export", archive.to_str().unwrap(), &file, &to]);
            file
        };
        let last = *after.last_key_value().unwrap().0;
        let sites = Sites::new(Members(1));
        let site = sites.iter().next().unwrap();
        done([
            "restore",
            &keyspace(last),
            &format!("--name={}", site.name()),
            &format!("--initial-cluster={}", sites.initial_cluster()),
            &format!("--initial-advertise-peer-urls={}", site.peer_url()),
            &format!("--data-dir={}", site.data_dir().display()),
        ]);
        let restored = Cluster::with(version).on(sites).start();
        // What the cluster has compacted, the restored one compacts, too: then they are the same.
        let compact = compacted.to_string();
        restored.etcdctl(["compact", "--physical", &compact]);
        for (revision, want) in &after {
            assert_eq!(hash(&restored, *revision), *want, "{version}: {revision}");
        }
        let leases = |cluster: &Cluster| {
            let listed = cluster.etcdctl(["lease", "list"]);
            let mut ids: Vec<_> = listed.lines().skip(1).map(str::to_owned).collect();
            ids.sort();
            ids
        };
        assert_eq!(leases(&restored), leases(&cluster), "{version}: leases");
        let verdict =
            done(["archive", "verify", "--level=proven", place.archive().to_str().unwrap()]);
        assert!(verdict.contains("OK"), "{verdict}");
    }
}

/// Killed again and again amid its work, it goes on where it was: no snapshot, no hole.
#[test]
fn a_capture_that_was_killed_goes_on() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let mut known = BTreeMap::new();
    let mut first = place.capture(&cluster, "host", &[]);
    first.wait_for("writing into");
    work(&cluster, 0, &mut known);
    first.stop();
    for round in 1..5 {
        let mut capturing = place.capture(&cluster, "host", &[]);
        capturing.wait_for("writing into");
        work(&cluster, round, &mut known);
        capturing.kill();
    }
    let mut capturing = place.capture(&cluster, "host", &[]);
    capturing.wait_for("writing into");
    let said = capturing.stop();
    assert!(!said.iter().any(|line| line.contains("base of revision")), "{said:#?}");
    for (revision, hash) in known {
        assert_eq!(archived_hash(&place.at(revision)), hash, "{revision}");
    }
    let listed = done(["archive", "list", "-w=json", place.archive().to_str().unwrap()]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["restorePoints"].as_array().unwrap().len(), 1, "{listed}");
}

/// What members say of their keyspaces is kept with what was followed of them, and agrees, on each etcd:
/// before and behind a compaction.
#[test]
fn members_are_heard_as_witnesses() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(3));
        let place = Place::new();
        let mut capturing = place.capture(&cluster, "host", &["--witness-interval=1s"]);
        capturing.wait_for("writing into");
        let mut known = BTreeMap::new();
        work(&cluster, 0, &mut known);
        capturing.wait_for("members have said");
        let last = *known.last_key_value().unwrap().0;
        cluster.etcdctl(["compact", "--physical", &last.to_string()]);
        work(&cluster, 1, &mut known);
        for _ in 0..2 {
            capturing.wait_for("3 members have said");
        }
        capturing.stop();
        let archive = place.archive();
        let told =
            done(["archive", "verify", "--level=proven", "-w=json", archive.to_str().unwrap()]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert!(told["witnesses"].as_u64().unwrap() >= 3, "{version}: {told}");
        assert_eq!(told["verdict"], "OK", "{version}: {told}");
    }
}
