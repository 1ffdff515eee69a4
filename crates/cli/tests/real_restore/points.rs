//! Points between the bases of an archive: a cluster as it was at any revision that the log has.

use crate::booted::{self, KvHash, ask, hashes};
use crate::command::{done, only, refused, rekindle, restore_alone};
use crate::sources::{revision_of, transaction};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members, Sites, etcdutl};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An archive with two bases of a cluster, and what its member said of revisions between them.
struct Between {
    directory: tempfile::TempDir,
    hashes: BTreeMap<i64, KvHash>,
    /// Revisions of the bases.
    bases: [i64; 2],
    /// The id of a lease that was granted between them.
    lease: String,
}

impl Between {
    fn of(version: Version) -> Self {
        let cluster = Cluster::with(version).start();
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path().join("archive");
        done(["archive", "init", "--unencrypted", archive.to_str().unwrap()]);
        let save = || {
            let spool = directory.path().join("spool");
            let client = cluster.member(0).client_url();
            let (archive, spool) = (archive.to_str().unwrap(), spool.to_str().unwrap());
            done(["save", archive, "--endpoints", client, "--spool", spool, "-w=json"])
        };
        for round in 0..5 {
            let put = |number| format!("put key-{number} {round}\n");
            transaction(&cluster, &(0..5).map(put).collect::<String>());
        }
        cluster.etcdctl(["compact", "--physical", "3"]);
        save();
        let mut known = BTreeMap::new();
        let mut first = 0;
        let granted = cluster.etcdctl(["lease", "grant", "600"]);
        let id = granted.split(' ').nth(1).unwrap().to_owned();
        let lease = format!("--lease={id}");
        for round in 0..8 {
            transaction(
                &cluster,
                &format!("put z {round}\ndel key-1\nput a {round}\nput key-9 x\n"),
            );
            cluster.etcdctl(["put", &format!("key-{round}"), "leased", &lease]);
            cluster.etcdctl(["put", "empty", ""]);
            let deleted = cluster.etcdctl_json(["del", "--prefix", "key-"]);
            let last = revision_of(&deleted);
            for revision in last - 3..=last {
                let [hash] = hashes(&cluster, revision)[..] else { panic!("it has one member") };
                known.insert(revision, hash);
            }
            first = if round == 0 { last - 4 } else { first };
        }
        save();
        let last = *known.last_key_value().unwrap().0;
        Self { directory, hashes: known, bases: [first, last], lease: id }
    }

    fn archive(&self) -> PathBuf {
        self.directory.path().join("archive")
    }

    fn at(&self, point: impl std::fmt::Display) -> String {
        format!("{}@{point}", self.archive().display())
    }
}

fn hash_of(path: &str) -> KvHash {
    let told: Value = serde_json::from_str(&done(["hashkv", "-w=json", path])).unwrap();
    let number = |field: &str| told[field].as_i64().unwrap();
    let hash = number("hash").unsigned_abs();
    KvHash { hash, compact_revision: number("compactRevision") }
}

#[test]
fn each_revision_has_the_hash_that_the_member_gave() {
    for version in Version::ALL {
        let between = Between::of(version);
        assert!(between.hashes.len() >= 32);
        for (revision, hash) in &between.hashes {
            assert_eq!(hash_of(&between.at(revision)), *hash, "{version}, revision {revision}");
        }
        // Up to where it was compacted before the first base, and behind the last.
        for beyond in [3, between.bases[1] + 1] {
            let told = refused(6, ["hashkv", &between.at(beyond)]);
            assert!(told.contains(&format!("nothing of revision {beyond}")), "{told}");
        }
    }
}

#[test]
fn a_cluster_as_it_was_between_two_bases() {
    for version in Version::ALL {
        let between = Between::of(version);
        // Amid a transaction of several changes nothing ends: this one deletes, and puts anew.
        let (revision, hash) = between.hashes.iter().nth(17).unwrap();
        let to = format!("--to-revision={revision}");
        let sites = Sites::new(Members(1));
        let plan = done(restore_alone(&between.archive(), &sites, &[&to]));
        assert!(plan.contains("base of an archive and its log"), "{plan}");
        assert!(plan.contains(&format!("to revision {revision} of about ")), "{plan}");
        booted::check_databases(version, &sites, *revision);
        let exported = between.directory.path().join("exported.db");
        let (archive, file) = (between.archive(), exported.to_str().unwrap());
        let told = done(["archive", "export", archive.to_str().unwrap(), file, &to]);
        assert!(told.contains(&format!("{revision}, as of about ")), "{told}");
        assert_eq!(hash_of(file), *hash);
        let status = etcdutl(version, ["snapshot", "status", "-w", "json", file]);
        let status: Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["revision"], *revision);
        let cluster = Cluster::with(version).on(sites).start();
        assert_eq!(hashes(&cluster, *revision), [*hash], "{version}");
        // The lease was granted after the first base, and is in the second.
        let leases = ask(&cluster, cluster.member(0), &["lease", "list"]);
        assert!(leases.contains(&between.lease), "{version}: {leases}");
        let told = ["lease", "timetolive", &between.lease, "--keys"];
        let told = ask(&cluster, cluster.member(0), &told);
        assert!(
            told.contains("granted with TTL(600s)") && told.contains("[key-4]"),
            "{version}: {told}"
        );
        let key = ask(&cluster, cluster.member(0), &["get", "a", "--print-value-only"]);
        assert!(!key.is_empty());
    }
}

/// What is asked for by the clock, and what cannot be meant.
#[test]
fn points_are_named_by_flags() {
    let between = Between::of(Version::LATEST);
    let archive = between.archive();
    let sites = Sites::new(Members(1));
    let plan = |path: &Path, flags: &[&str]| {
        let mut flags = flags.to_vec();
        flags.push("--dry-run");
        let output = rekindle(restore_alone(path, &sites, &flags)).output().unwrap();
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
        (output.status.code().unwrap(), stdout + &stderr)
    };
    let list = done(["archive", "list", "-w=json", archive.to_str().unwrap()]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let time = |place: usize| -> jiff::Timestamp {
        list["restorePoints"][place]["time"].as_str().unwrap().parse().unwrap()
    };
    let middle = time(0) + time(1).duration_since(time(0)) / 2;
    let (code, told) = plan(&archive, &[&format!("--to-time={middle}")]);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("base of an archive and its log"), "{told}");
    assert!(told.contains("asked for ") && told.contains(" before\n"), "{told}");
    let goes_to = format!("the archive has the cluster up to revision {} of", between.bases[1]);
    assert!(told.contains("leaves out") && told.contains(&goes_to), "{told}");
    let (code, told) = plan(&archive, &["--latest"]);
    assert!(code == 0 && told.contains(&format!("revision  {}", between.bases[1])), "{told}");
    assert!(!told.contains("leaves out"), "{told}");
    let at = PathBuf::from(between.at(between.bases[1]));
    for (path, flags, code, want) in [
        (&at, &["--latest"][..], 2, "names a point, and so does a flag"),
        (&archive, &["--to-revision=0x5"], 2, "--to-revision 0x5 is none"),
        (&archive, &["--to-revision=10m"], 2, "--to-revision 10m is none"),
        (&archive, &["--to-time=latest"], 2, "--to-time latest is none"),
        (&archive, &["--to-time=2026-11-20"], 2, "--to-time 2026-11-20 is none"),
        (&archive, &["--to-time=9999d"], 6, "holds no base from before"),
        (&archive, &["--to-revision=1"], 6, "nothing of revision 1"),
    ] {
        let (got, told) = plan(path, flags);
        assert!(got == code && told.contains(want), "{got}: {told}");
    }
    let told = refused(6, restore_alone(Path::new("/nowhere"), &sites, &["--to-revision=5"]));
    assert!(told.contains("opening /nowhere"), "{told}");
    let skipped = restore_alone(&archive, &sites, &["--to-time=2026-03-29T02:30:00"]);
    let output = rekindle(skipped).env("TZ", "CET-1CEST,M3.5.0,M10.5.0/3").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("not once, but twice or never"), "{told}");
    let file = between.directory.path().join("file");
    std::fs::write(&file, "no archive").unwrap();
    let (code, told) = plan(&file, &["--to-revision=5"]);
    assert!(code == 2 && told.contains("is no archive, and holds one point only"), "{told}");
    assert!(!only(&sites).data_dir().exists());
}

/// No log leads to revisions behind a compaction that came between two saves; the later base has them. They were
/// refused.
#[test]
fn revisions_that_only_a_later_base_has() {
    for version in Version::ALL {
        let cluster = Cluster::with(version).start();
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path().join("archive");
        let place = archive.to_str().unwrap();
        done(["archive", "init", "--unencrypted", place]);
        let save = || {
            let spool = directory.path().join("spool");
            let client = cluster.member(0).client_url();
            done(["save", place, "--endpoints", client, "--spool", spool.to_str().unwrap()])
        };
        let put = |key: &str, value: &str| revision_of(&cluster.etcdctl_json(["put", key, value]));
        put("key", "before");
        save();
        let lost = put("key", "lost");
        let compact = put("other", "x");
        let found = put("key", "found");
        let deleted = revision_of(&cluster.etcdctl_json(["del", "other"]));
        put("key", "later");
        cluster.etcdctl(["compact", "--physical", &compact.to_string()]);
        save();
        let at = |revision: i64| format!("{place}@{revision}");
        for revision in [found, deleted] {
            let [hash] = hashes(&cluster, revision)[..] else { panic!("it has one member") };
            assert_eq!(hash_of(&at(revision)), hash, "{version}, revision {revision}");
        }
        for revision in [lost, compact] {
            let told = refused(6, ["hashkv", &at(revision)]);
            assert!(told.contains(&format!("nothing of revision {revision}")), "{told}");
        }
        let exported = directory.path().join("exported.db");
        let told = done(["archive", "export", &at(found), exported.to_str().unwrap()]);
        assert!(told.contains("nobody has asked a member"), "{told}");

        let sites = Sites::new(Members(1));
        let plan = done(restore_alone(&archive, &sites, &[&format!("--to-revision={found}")]));
        assert!(plan.contains(&format!("taken up to revision {found} of about ")), "{plan}");
        assert!(plan.contains("leaves out"), "{plan}");
        booted::check_databases(version, &sites, found);
        let restored = Cluster::with(version).on(sites).start();
        let value = |key| ask(&restored, restored.member(0), &["get", key, "--print-value-only"]);
        assert_eq!(
            (value("key").as_str(), value("other").as_str()),
            ("found\n", "x\n"),
            "{version}"
        );
    }
}
