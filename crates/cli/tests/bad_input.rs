//! Files that are no sound backup: a precise error, and the data directory stays as it was.

use rekindle_bolt::{BulkWriter, Layout};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const PAGE: usize = 1024;

/// A small sound database: what every etcd has, and a few hundred records.
fn a_database() -> Vec<u8> {
    let mut writer = BulkWriter::new(Vec::new(), Layout::new(PAGE, PAGE).unwrap()).unwrap();
    for name in ["cluster", "key", "members", "members_removed", "meta"] {
        let mut bucket = writer.bucket(name.as_bytes()).unwrap();
        if name == "key" {
            for revision in 2..200_u64 {
                let mut key = revision.to_be_bytes().to_vec();
                key.push(b'_');
                key.extend(0_u64.to_be_bytes());
                // Fields 1 to 5: key, creation, modification, version, value.
                let mut kv = vec![0x0a, 1, b'k'];
                for (tag, number) in [(0x10, 2), (0x18, revision), (0x20, revision - 1)] {
                    kv.push(tag);
                    kv.extend([(number & 0x7f | 0x80) as u8, (number >> 7) as u8]);
                }
                kv.extend([0x2a, 8]);
                kv.extend([b'v'; 8]);
                bucket.put(&key, &kv).unwrap();
            }
        }
        writer = bucket.finish().unwrap();
    }
    let finished = writer.finish().unwrap();
    let mut bytes = finished.out;
    bytes[..finished.metas.len()].copy_from_slice(&finished.metas);
    bytes
}

/// An old data directory, and room for a bad file.
struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for directory in ["data/member/snap", "data/member/wal"] {
            fs::create_dir_all(dir.path().join(directory)).unwrap();
        }
        fs::write(dir.path().join("data/member/snap/db"), "old").unwrap();
        Self { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("bad.db")
    }

    fn run(&self, args: &[&str], bytes: &[u8]) -> Output {
        fs::write(self.file(), bytes).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.env_clear().current_dir(self.dir.path()).stdin(Stdio::null());
        command.args(args).output().unwrap()
    }

    fn restore(&self, bytes: &[u8], more: &[&str]) -> Output {
        let flags = ["restore", "bad.db", "--data-dir=data", "--yes", "--allow-live-peers"];
        self.run(&[&flags, more].concat(), bytes)
    }

    /// The old data directory is as it was, and nothing stands beside it.
    #[track_caller]
    fn check_untouched(&self, what: &str) {
        let old = fs::read(self.dir.path().join("data/member/snap/db")).unwrap();
        assert_eq!(old, b"old", "{what}");
        assert_eq!(names(self.dir.path()), ["bad.db", "data"], "{what}");
        assert_eq!(names(&self.dir.path().join("data/member")), ["snap", "wal"], "{what}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn what_is_no_database_is_said_to_be_what_it_is() {
    let scene = Scene::new();
    let gzip = [&[0x1f, 0x8b, 8, 0][..], &[7; 5000]].concat();
    for (bytes, want) in [
        (&b""[..], "bad.db: the file is empty"),
        (b"once upon a time\n", "it looks like text"),
        (&gzip, "it looks like gzip (decompress it first)"),
        (&[0; 9000], "not a bbolt database"),
    ] {
        for output in [
            scene.restore(bytes, &[]),
            scene.restore(bytes, &["--skip-hash-check"]),
            scene.run(&["status", "bad.db"], bytes),
            scene.run(&["hashkv", "bad.db"], bytes),
        ] {
            assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
            assert!(stderr(&output).contains(want), "{}", stderr(&output));
            assert!(stderr(&output).contains("what to do: "), "{}", stderr(&output));
        }
        scene.check_untouched(want);
    }
}

#[test]
fn a_file_that_was_cut_is_refused_wherever_that_was() {
    let scene = Scene::new();
    let whole = a_database();
    // The last page lists free pages and holds no content.
    let content = whole.len() - PAGE;
    for length in (1..content).step_by(PAGE / 4 + 1) {
        let bytes = &whole[..length];
        let output = scene.restore(bytes, &["--skip-hash-check"]);
        assert_eq!(output.status.code(), Some(3), "{length}: {}", stderr(&output));
        assert!(stderr(&output).contains(" at offset "), "{length}: {}", stderr(&output));
        scene.check_untouched(&format!("cut after {length}"));
        let output = scene.run(&["status", "bad.db"], bytes);
        assert_eq!(output.status.code(), Some(3), "{length}: {}", stderr(&output));
    }
    // Without its end it might be a database that was copied: one has to say so.
    let output = scene.restore(&whole, &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("has no SHA-256 at its end"), "{}", stderr(&output));
    scene.check_untouched("no digest");
    let output = scene.restore(&whole[..content], &["--skip-hash-check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("cost no data"), "{stdout}");
}

/// A leaf in the middle of the records.
fn a_leaf(whole: &[u8]) -> usize {
    let is_leaf = |page: &usize| whole[page * PAGE + 8] == 2;
    let leaves: Vec<usize> = (2..whole.len() / PAGE).filter(is_leaf).collect();
    leaves[leaves.len() / 2] * PAGE
}

#[test]
fn a_damaged_page_is_named_and_restored_by_nothing() {
    let scene = Scene::new();
    let mut bytes = a_database();
    let at = a_leaf(&bytes);
    bytes[at + 8] = 4;
    let page = format!("page {} at offset {at}", at / PAGE);
    for output in [
        scene.restore(&bytes, &["--skip-hash-check"]),
        scene.run(&["status", "bad.db"], &bytes),
        scene.run(&["hashkv", "bad.db"], &bytes),
    ] {
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(format!("{stdout}{}", stderr(&output)).contains(&page), "{output:?}");
        scene.check_untouched("a damaged page");
    }
}

#[test]
fn a_snapshot_is_restored_only_with_the_right_digest() {
    let scene = Scene::new();
    let mut bytes = a_database();
    bytes.extend([7; 32]);
    let output = scene.restore(&bytes, &[]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    scene.check_untouched("a wrong digest");
    // What it should be is said.
    let told = stderr(&output);
    let (_, right) = told.split_once("the bytes before it give ").unwrap();
    let digits = &right.as_bytes()[..64];
    let text = |pair: &[u8]| String::from_utf8(pair.to_vec()).unwrap();
    let digest = digits.chunks(2).map(|pair| u8::from_str_radix(&text(pair), 16).unwrap());
    let data = bytes.len() - 32;
    bytes.truncate(data);
    bytes.extend(digest);
    // A value that was changed is found by nothing else.
    let value = bytes.windows(8).position(|window| window == [b'v'; 8]).unwrap();
    bytes[value] ^= 1;
    let output = scene.restore(&bytes, &[]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    scene.check_untouched("a changed value");
    bytes[value] ^= 1;
    let output = scene.restore(&bytes, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_snapshot_that_was_cut_within_its_digest_is_named_so() {
    let scene = Scene::new();
    let whole = a_database();
    // As many bytes of its 32, and one that leaves them 32 behind a sector but not behind a page.
    for more in [1, 16, 31, 512 + 32] {
        let bytes = [&whole[..], &vec![0; more]].concat();
        let output = scene.run(&["status", "bad.db"], &bytes);
        assert_eq!(output.status.code(), Some(3), "{more}: {}", stderr(&output));
        assert!(stderr(&output).contains("the file was cut"), "{more}: {}", stderr(&output));
        assert!(stderr(&output).contains("do not rely on this one"), "{}", stderr(&output));
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains("snapshot or db file that was cut"), "{stdout}");
        let output = scene.run(&["hashkv", "bad.db"], &bytes);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stderr(&output).contains("warning: bad.db: the file was cut"), "{more}");
    }
    for args in [["status", "bad.db"], ["hashkv", "bad.db"]] {
        let output = scene.run(&args, &whole);
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
    }
}

#[test]
fn of_a_raft_log_that_lies_elsewhere_nothing_is_claimed() {
    let scene = Scene::new();
    let database = scene.dir.path().join("data/member/snap/db");
    fs::write(database, a_database()).unwrap();
    for named in ["--wal-dir=data/member/wal", "--wal-dir=nowhere"] {
        let output = scene.run(&["status", "data", named], b"");
        assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    }
    // Empty, and not there at all.
    for is_there in [true, false] {
        if !is_there {
            fs::remove_dir(scene.dir.path().join("data/member/wal")).unwrap();
        }
        let output = scene.run(&["status", "data"], b"");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains("raft log   not in this directory: give --wal-dir"), "{stdout}");
        let output = scene.run(&["status", "data", "-w=json"], b"");
        let stdout = String::from_utf8(output.stdout).unwrap();
        for field in ["walSegments", "walTerm", "walCommit", "walBeyond"] {
            assert!(stdout.contains(&format!("\"{field}\":null")), "{field}: {stdout}");
        }
    }
}

#[test]
fn a_database_that_is_locked_is_not_read() {
    let scene = Scene::new();
    let read = |command| scene.run(&[command, "data/member/snap/db"], b"");
    let database = scene.dir.path().join("data/member/snap/db");
    fs::write(&database, a_database()).unwrap();
    let held = fs::File::open(&database).unwrap();
    held.lock().unwrap();
    for command in ["status", "hashkv"] {
        let output = read(command);
        assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
        assert!(stderr(&output).contains("locked by a process"), "{}", stderr(&output));
        assert!(stderr(&output).contains("rekindle save"), "{}", stderr(&output));
    }
    held.unlock().unwrap();
    for command in ["status", "hashkv"] {
        assert_eq!(read(command).status.code(), Some(0));
    }
}

#[test]
fn a_bit_that_was_turned_is_found_or_does_no_harm() {
    let whole = a_database();
    let mut refused = 0;
    for at in (0..whole.len()).step_by(331) {
        let scene = Scene::new();
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let output = scene.restore(&bytes, &["--skip-hash-check"]);
        match output.status.code() {
            Some(0) => {
                assert_ne!(names(&scene.dir.path().join("data/member/wal")), [""; 0], "{at}");
            }
            Some(3) => {
                refused += 1;
                scene.check_untouched(&format!("bit turned at {at}"));
            }
            code => panic!("{at}: {code:?} {}", stderr(&output)),
        }
    }
    assert!(refused > 0, "no bit mattered");
}

#[test]
fn a_capture_that_makes_no_sense_is_refused() {
    let spool = tempfile::tempdir().unwrap();
    let archive = spool.path().join("none").display().to_string();
    for (flags, want) in [
        (&["--flush-interval", "500ms"][..], "--flush-interval of 0.5 s: at least 1 s makes sense"),
        (&["--base-interval", "30s"], "--base-interval of 30 s: at least 60 s makes sense"),
        (&["--journal", "5KiB"], "--journal of 5120 bytes: at least 16MiB makes sense"),
        (&["--witness-interval", "x"], "no length of time"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.args(["capture", "--archive", &archive]).args(flags);
        let output = command.env_clear().output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(want), "{told}");
    }
}
