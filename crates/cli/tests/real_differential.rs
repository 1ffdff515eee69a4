//! Hundreds of databases that the real bbolt has written, shaped as etcd's: what we say of them and
//! make of them against what etcdutl says and makes.

use rekindle_testkit::{Version, oracle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Databases, each of another shape.
const DATABASES: u64 = 300;

/// One database and what was made of it.
struct Case {
    seed: u64,
    source: PathBuf,
    directory: PathBuf,
    /// Revisions, counts and so on, as the generator knows them.
    facts: Value,
}

impl Case {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{}-{name}", self.seed))
    }

    fn has(&self, bucket: &str) -> bool {
        let missing = self.facts["shape"]["missing"].as_array().unwrap();
        !missing.iter().any(|name| name == bucket)
    }

    fn number(&self, name: &str) -> i64 {
        self.facts[name].as_i64().unwrap()
    }

    /// The compact revision that a server would have; 0: none.
    fn compact(&self) -> i64 {
        self.number("scheduled_compact_revision").max(self.number("finished_compact_revision"))
    }

    /// Every second restore raises the revision.
    fn is_bumped(&self) -> bool {
        self.seed.is_multiple_of(2)
    }
}

fn databases(directory: &TempDir) -> Vec<Case> {
    let path = |seed: u64| directory.path().join(format!("{seed}.db"));
    let paths: Vec<_> = (0..DATABASES).map(|seed| (path(seed), seed)).collect();
    let jobs = paths.iter().map(|(path, seed)| (path.as_path(), *seed));
    let facts = oracle::generate(jobs, &json!({}));
    let case = |((source, seed), facts)| Case {
        seed,
        source,
        directory: directory.path().to_owned(),
        facts,
    };
    paths.into_iter().zip(facts).map(case).collect()
}

/// Runs `check` on every case, on both cores.
fn on_all<'a>(cases: &'a [Case], check: impl Fn(&'a Case) + Sync) {
    let (one, other) = cases.split_at(cases.len() / 2);
    std::thread::scope(|threads| {
        let half = threads.spawn(|| one.iter().for_each(&check));
        other.iter().for_each(&check);
        half.join().unwrap();
    });
}

fn rekindle(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rekindle")).args(args).output().unwrap()
}

/// etcdutl 3.7: that of 3.6 panics in hashkv where a record has a lease.
fn etcdutl(args: &[&str]) -> Output {
    Command::new(Version::V3_7.binary("etcdutl")).args(args).output().unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn status_says_what_etcdutl_says() {
    let directory = TempDir::new().unwrap();
    let cases = databases(&directory);
    on_all(&cases, |case| {
        let ours = rekindle(&["status", text(&case.source), "-w", "json"]);
        // A database without the records' bucket is not etcd's.
        if !case.has("key") {
            assert_eq!(ours.status.code(), Some(3), "seed {}", case.seed);
            return;
        }
        let ours = json_of(&ours);
        assert_eq!(ours["sound"], true, "seed {}: {}", case.seed, ours["findings"]);
        assert_eq!(ours["records"], case.facts["records"], "seed {}", case.seed);
        let theirs = etcdutl(&["snapshot", "status", text(&case.source), "-w", "json"]);
        if !case.has("meta") {
            // It needs that bucket for the version.
            assert!(!theirs.status.success(), "seed {}", case.seed);
            return;
        }
        let theirs = json_of(&theirs);
        for field in ["hash", "revision", "totalKey", "totalSize"] {
            assert_eq!(ours[field], theirs[field], "seed {}, {field}", case.seed);
        }
        let version = theirs["version"].as_str().unwrap_or_default();
        assert_eq!(ours["version"], version, "seed {}", case.seed);
    });
}

#[test]
fn hashkv_is_what_etcdutl_computes() {
    let directory = TempDir::new().unwrap();
    let cases = databases(&directory);
    on_all(&cases, |case| {
        if !case.has("key") {
            return;
        }
        let (latest, compact) = (case.number("revision"), case.compact());
        let revisions = [0, (latest + compact) / 2, compact, compact - 1, latest + 1];
        for revision in revisions.into_iter().filter(|revision| *revision >= 0) {
            let revision = format!("--rev={revision}");
            let ours = rekindle(&["hashkv", text(&case.source), "-w", "json", &revision]);
            // etcdutl opens its input for writing, and compacts it.
            let copy = case.path("copy.db");
            std::fs::copy(&case.source, &copy).unwrap();
            let theirs = etcdutl(&["hashkv", text(&copy), "-w", "json", &revision]);
            let what = format!("seed {}, {revision}: {ours:?} {theirs:?}", case.seed);
            assert_eq!(ours.status.success(), theirs.status.success(), "{what}");
            if ours.status.success() {
                assert_eq!(json_of(&ours), json_of(&theirs), "{what}");
            }
        }
    });
}

const MEMBERS: &[&str] = &[
    "--name=b",
    "--initial-cluster=a=http://127.0.0.1:1,b=http://127.0.0.1:2,b=http://127.0.0.1:3",
    "--initial-advertise-peer-urls=http://127.0.0.1:3,http://127.0.0.1:2",
    "--initial-cluster-token=token",
    "--skip-hash-check",
];

/// Restores a case with both; their directories, where etcdutl could.
fn restore(case: &Case) -> Option<(PathBuf, PathBuf)> {
    let run = |program: fn(&[&str]) -> Output, verb: &[&'static str], directory: &Path| {
        let data_dir = format!("--data-dir={}", directory.display());
        let mut args = verb.to_vec();
        args.extend([text(&case.source), &data_dir]);
        args.extend(MEMBERS);
        match case.is_bumped() {
            true => args.extend(["--bump-revision=1000000", "--mark-compacted"]),
            false => args.push("--bump-revision=0"),
        }
        program(&args)
    };
    let (ours, theirs) = (case.path("ours"), case.path("theirs"));
    let made = run(rekindle, &["restore"], &ours);
    if !case.has("key") {
        assert_eq!(made.status.code(), Some(3), "seed {}", case.seed);
        assert!(!ours.exists(), "seed {}", case.seed);
        return None;
    }
    assert!(made.status.success(), "seed {}: {made:?}", case.seed);
    let made = run(etcdutl, &["snapshot", "restore"], &theirs);
    made.status.success().then_some((ours, theirs))
}

#[test]
fn restored_content_is_what_etcdutl_restores() {
    let directory = TempDir::new().unwrap();
    let cases = databases(&directory);
    let restored = std::sync::Mutex::new(Vec::new());
    on_all(&cases, |case| {
        if let Some((ours, theirs)) = restore(case) {
            assert_eq!(listing(&ours), listing(&theirs), "seed {}", case.seed);
            // Six hundred logs that reserve 64 MB each are more than many a disk has.
            for data_dir in [&ours, &theirs] {
                std::fs::remove_dir_all(data_dir.join("member/wal")).unwrap();
            }
            restored.lock().unwrap().push((case, ours, theirs));
        }
    });
    let restored = restored.into_inner().unwrap();
    // etcdutl cannot restore those that lack a bucket it needs; most must remain.
    assert!(restored.len() > 200, "{} of {DATABASES}", restored.len());
    let db = |directory: &PathBuf| directory.join("member/snap/db");
    let ours: Vec<_> = restored.iter().map(|(_, ours, _)| db(ours)).collect();
    let theirs: Vec<_> = restored.iter().map(|(_, _, theirs)| db(theirs)).collect();
    for (answer, path) in oracle::check(ours.iter().map(PathBuf::as_path)).iter().zip(&ours) {
        assert_eq!(answer.verdict, Ok(()), "bbolt check of {}", path.display());
    }
    let dumps = oracle::dump(ours.iter().map(PathBuf::as_path))
        .into_iter()
        .zip(oracle::dump(theirs.iter().map(PathBuf::as_path)));
    for ((case, ..), (ours, theirs)) in restored.iter().zip(dumps) {
        check_content(case, ours, theirs);
    }
}

type Buckets = BTreeMap<String, Value>;

/// Equal, but for what a restore should change and etcdutl leaves.
fn check_content(case: &Case, mut ours: Buckets, mut theirs: Buckets) {
    for bucket in ["meta", "cluster", "alarm"] {
        let pairs = |dump: &mut Buckets| {
            let pairs = dump.remove(bucket).map_or(json!([]), |bucket| bucket["pairs"].clone());
            let pairs: Option<Vec<(String, String)>> = serde_json::from_value(pairs).unwrap();
            let mut pairs = pairs.unwrap_or_default();
            pairs.retain(|(key, _)| !is_changed(case, bucket, key));
            pairs
        };
        assert_eq!(pairs(&mut ours), pairs(&mut theirs), "seed {}, {bucket}", case.seed);
    }
    // A compaction may have outlived the newest records: we raise the revision above both.
    if case.is_bumped() && case.compact() >= case.number("revision") {
        ours.remove("key");
        theirs.remove("key");
    }
    assert_eq!(ours, theirs, "seed {}", case.seed);
}

fn is_changed(case: &Case, bucket: &str, key: &str) -> bool {
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    match bucket {
        // The old cluster's voters, which etcdutl leaves.
        "meta" if key == hex("confState") => true,
        "meta" => case.is_bumped() && key == hex("scheduledCompactRev"),
        "cluster" => key == hex("downgrade"),
        // NOSPACE (kind 1) is cleared where the database fits its quota.
        "alarm" => key.ends_with("1001"),
        _ => false,
    }
}

/// Paths with modes and kinds.
fn listing(directory: &Path) -> Vec<String> {
    let found =
        Command::new("find").args([text(directory), "-printf", "%P %m %y\n"]).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    let mut lines: Vec<_> = found.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
