//! Snapshots to restore from, saved once per version from real servers by `rekindle save`.

use crate::booted::{KvHash, hashes};
use crate::command::{done, rekindle};
use rekindle_testkit::Version;
use rekindle_testkit::content::files;
use rekindle_testkit::etcd::{Cluster, ROOT_PASSWORD, ROOT_USER};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

/// A user who may read keys that begin with [`KEYS`], and nothing else.
pub const READER: &str = "reader:only-looking";
pub const KEYS: &str = "key-";
/// Deleted at the revision up to which the source is compacted.
pub const DELETED: &str = "key-03";
/// The key that a lease is attached to.
pub const LEASED: &str = "leased";

/// How long the lease lives, in seconds: a machine too slow to save within the first gets another.
const LEASES_S: [u32; 4] = [2, 6, 30, 120];

/// Cheap passwords: their hashes keep the cost they were made with.
const CHEAP_PASSWORDS: &str = "--bcrypt-cost=4";

/// A snapshot, and what the server said of it.
pub struct Source {
    bytes: Vec<u8>,
    /// Files of an archive with a base of the same revision.
    archive: Vec<(PathBuf, Vec<u8>)>,
    pub revision: i64,
    pub hash: KvHash,
}

impl Source {
    /// Keys with history, users, and a lease.
    pub fn of(version: Version) -> &'static Self {
        static SOURCES: [OnceLock<Source>; Version::ALL.len()] =
            [const { OnceLock::new() }; Version::ALL.len()];
        let index = Version::ALL.iter().position(|each| *each == version).unwrap();
        SOURCES[index].get_or_init(|| save_history(version))
    }

    /// Kubernetes' keys, without users, by the oldest version: it boots on all.
    pub fn kubernetes() -> &'static Self {
        static SOURCE: OnceLock<Source> = OnceLock::new();
        SOURCE.get_or_init(|| {
            let cluster = Cluster::with(Version::V3_4).start();
            for round in 0..3 {
                let key = |name| format!("put /registry/pods/default/pod-{name:02} {round}\n");
                transaction(&cluster, &(0..10).map(key).collect::<String>());
            }
            let put = cluster.etcdctl_json(["put", "/registry/minions/n1", "here"]);
            Self::save(&cluster, revision_of(&put), &Bases::new()).unwrap()
        })
    }

    /// Puts the snapshot into a directory.
    pub fn write(&self, directory: &Path) -> PathBuf {
        let path = directory.join("snapshot.db");
        std::fs::write(&path, &self.bytes).unwrap();
        path
    }

    /// Puts the archive into a directory.
    pub fn write_archive(&self, directory: &Path) -> PathBuf {
        let root = directory.join("archive");
        for (name, bytes) in &self.archive {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        root
    }

    /// Saves a snapshot and one base more; none where their revision is not this one.
    fn save(cluster: &Cluster, revision: i64, bases: &Bases) -> Option<Self> {
        let [hash] = hashes(cluster, revision)[..] else { panic!("it has one member") };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot.db");
        save(cluster, &path, directory.path());
        if bases.save(cluster)["revision"] != revision {
            return None;
        }
        let ours = done(["hashkv", "-w", "json", path.to_str().unwrap()]);
        let ours: Value = serde_json::from_str(&ours).unwrap();
        if ours["hashRevision"] != revision {
            return None;
        }
        let of_file = KvHash {
            hash: ours["hash"].as_u64().unwrap(),
            compact_revision: ours["compactRevision"].as_i64().unwrap(),
        };
        assert_eq!(of_file, hash, "rekindle hashkv and {}", cluster.version());
        let bytes = std::fs::read(&path).unwrap();
        Some(Self { bytes, archive: bases.files(), revision, hash })
    }
}

/// An archive with its spool.
struct Bases(tempfile::TempDir);

impl Bases {
    fn new() -> Self {
        let bases = Self(tempfile::tempdir().unwrap());
        done(["archive", "init", "--unencrypted", bases.archive().to_str().unwrap()]);
        bases
    }

    fn archive(&self) -> PathBuf {
        self.0.path().join("archive")
    }

    fn save(&self, cluster: &Cluster) -> Value {
        let told = save(cluster, &self.archive(), &self.0.path().join("spool"));
        serde_json::from_slice(&told).unwrap()
    }

    /// Saves a base that goes on from the one before.
    fn go_on(&self, cluster: &Cluster, known: i64, new: i64) {
        let told = self.save(cluster);
        assert_eq!(told["comparison"], "agreed", "{told}");
        assert_eq!((&told["knownRecords"], &told["newRecords"]), (&known.into(), &new.into()));
        assert_eq!(told["unverifiedRecords"], 0);
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let archive = self.archive();
        let read = |path: PathBuf| {
            let name = path.strip_prefix(&archive).unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        };
        files(&archive).into_iter().map(read).collect()
    }
}

fn save(cluster: &Cluster, target: &Path, spool: &Path) -> Vec<u8> {
    let mut command = rekindle(["save", "-w=json", "--endpoints", cluster.member(0).client_url()]);
    let output = command
        .env("ETCDCTL_USER", ROOT_USER)
        .env("ETCDCTL_PASSWORD", ROOT_PASSWORD)
        .arg(target)
        .arg("--spool")
        .arg(spool)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The revision in a response's header.
pub fn revision_of(response: &Value) -> i64 {
    response["header"]["revision"].as_i64().unwrap()
}

fn save_history(version: Version) -> Source {
    let cluster = Cluster::with(version).flag(CHEAP_PASSWORDS).auth().start();
    let bases = Bases::new();
    write_history(&cluster, &bases);
    let saved = LEASES_S.iter().find_map(|ttl| {
        let granted = cluster.etcdctl(["lease", "grant", &ttl.to_string()]);
        let lease = format!("--lease={}", granted.split(' ').nth(1).unwrap());
        let put = cluster.etcdctl_json(["put", LEASED, "alive", &lease]);
        Source::save(&cluster, revision_of(&put), &bases)
    });
    saved.expect("a snapshot in which the lease lives")
}

/// Several versions of keys, several changes in one revision, a key deleted for good and one made
/// anew, compacted up to a tombstone; with bases on the way.
fn write_history(cluster: &Cluster, bases: &Bases) {
    for round in 0..4 {
        let filler = "v".repeat(200);
        let put = |number| format!("put {KEYS}{number:02} {round}-{filler}\n");
        transaction(cluster, &(0..10).map(put).collect::<String>());
    }
    assert_eq!(bases.save(cluster)["comparison"], "first");
    let deleted = revision_of(&cluster.etcdctl_json(["del", DELETED]));
    bases.go_on(cluster, 40, 1);
    transaction(cluster, &format!("del {KEYS}05\nput {KEYS}06 again\nput other mine\n"));
    cluster.etcdctl(["put", &format!("{KEYS}05"), "anew"]);
    cluster.etcdctl(["compact", "--physical", &deleted.to_string()]);
    // Ten keys, of which one is gone: its tombstone stays or not, by version.
    let living = bases.save(cluster);
    assert_eq!(living["comparison"], "agreed", "{living}");
    cluster.etcdctl(["user", "add", READER]);
    cluster.etcdctl(["role", "add", "readers"]);
    cluster.etcdctl(["role", "grant-permission", "readers", "read", "--prefix=true", KEYS]);
    let (reader, _) = READER.split_once(':').unwrap();
    cluster.etcdctl(["user", "grant-role", reader, "readers"]);
}

/// All of it in one revision.
pub fn transaction(cluster: &Cluster, changes: &str) {
    let mut command = cluster.etcdctl_command();
    let mut child = command.arg("txn").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // No conditions; the changes; nothing else to be done.
    write!(child.stdin.take().unwrap(), "\n{changes}\n\n").unwrap();
    assert!(child.wait().unwrap().success());
}
