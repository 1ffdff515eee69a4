//! Bases of every version, restored out of an archive.

use crate::booted::{self, ask, ask_json};
use crate::command::{done, identity, only, refused, rekindle, restore, restore_alone};
use crate::sources::{Source, revision_of};
use rekindle_testkit::Version;
use rekindle_testkit::content::files;
use rekindle_testkit::etcd::{Cluster, Members, Sites, etcdutl};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

#[test]
fn a_base_of_every_version_becomes_a_cluster_of_three() {
    for version in Version::ALL {
        let source = Source::of(version);
        let sites = Sites::new(Members(3));
        let restore_on = |site| {
            let host = tempfile::tempdir().unwrap();
            done(restore(&source.write_archive(host.path()), &sites, site))
        };
        let plans: Vec<_> = sites.iter().map(restore_on).collect();
        booted::check(version, sites, source, &plans);
    }
}

/// Runs a command that prints JSON.
fn json(args: &[&str], path: &Path) -> Value {
    let printed = done(args.iter().copied().chain(["-w=json", path.to_str().unwrap()]));
    serde_json::from_str(&printed).unwrap()
}

/// etcd's own tool restores what was exported, and etcd serves from it what was saved.
#[test]
fn a_base_of_every_version_is_exported_for_etcdutl() {
    for version in Version::ALL {
        let source = Source::of(version);
        let sites = Sites::new(Members(1));
        let archive = source.write_archive(sites.dir());
        let exported = sites.dir().join("deep/exported.db");
        let export = ["archive", "export", archive.to_str().unwrap(), exported.to_str().unwrap()];
        done(export);
        let mode = std::fs::metadata(&exported).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds all the cluster's secrets");
        let status = json(&["status", "--verify-hash"], &exported);
        assert_eq!([&status["sound"], &status["sha256"]], [&Value::from(true), &"good".into()]);

        let told = refused(4, export);
        assert!(told.contains("is there already"), "{told}");
        std::fs::write(&exported, "in the way").unwrap();
        done(export.into_iter().chain(["--force"]));
        let site = only(&sites);
        let mut args =
            ["snapshot", "restore", exported.to_str().unwrap()].map(str::to_owned).to_vec();
        args.extend(identity(&sites, site));
        args.push(format!("--data-dir={}", site.data_dir().display()));
        etcdutl(version, args);
        booted::check(version, sites, source, &[]);
    }
}

/// Of a base the same is told as of the snapshot that it was made of, but for what only a file has.
#[test]
fn a_base_is_told_of_like_its_snapshot() {
    for version in Version::ALL {
        let (source, directory) = (Source::of(version), tempfile::tempdir().unwrap());
        let snapshot = source.write(directory.path());
        let archive = source.write_archive(directory.path());
        let revision = source.revision.to_string();
        for more in [&[][..], &["--old-tombstone-rule"], &["--compact-rev", &revision]] {
            let words = [&["hashkv"], more].concat();
            assert_eq!(json(&words, &archive), json(&words, &snapshot), "{version} {more:?}");
        }
        let exported = directory.path().join("exported.db");
        let [from, to] = [&archive, &exported].map(|path| path.to_str().unwrap());
        done(["archive", "export", from, to]);
        let ([mut base, mut file], keys) = (
            [&archive, &exported].map(|path| json(&["status"], path)),
            ["totalSize", "pageSize", "inUse", "free", "source", "sha256"],
        );
        for key in keys {
            base.as_object_mut().unwrap().remove(key).unwrap();
            file.as_object_mut().unwrap().remove(key).unwrap();
        }
        assert_eq!(base, file, "{version}");
        let table = done(["status", from]);
        assert!(table.contains("sound: no damage in records"), "{table}");
    }
    let none = refused(6, ["hashkv", "/nowhere@5"]);
    assert!(none.contains("/nowhere@5"), "{none}");
}

/// Nothing is left of an export that fails, and it says which object is damaged.
#[test]
fn a_damaged_base_is_not_exported() {
    let (source, directory) = (Source::of(Version::LATEST), tempfile::tempdir().unwrap());
    let archive = source.write_archive(directory.path());
    damage_packs(&archive);
    let exported = directory.path().join("exported.db");
    let [from, to] = [&archive, &exported].map(|path| path.to_str().unwrap());
    for command in [&["archive", "export", from, to][..], &["hashkv", from], &["status", from]] {
        let told = refused(3, command);
        assert!(told.contains(".pack: its body was changed"), "{told}");
    }
    let mut names = std::fs::read_dir(directory.path()).unwrap();
    assert!(names.all(|name| name.unwrap().file_name() == "archive"));
    let no_archive = rekindle(["archive", "export", to, to]).output().unwrap();
    assert_eq!(no_archive.status.code(), Some(6));
}

/// What was forgotten is in no cluster that comes out of the archive; all else is, at its revision.
#[test]
fn a_cluster_without_what_was_forgotten() {
    for version in Version::ALL {
        let sites = Sites::new(Members(1));
        let source = Source::kubernetes();
        let archive = source.write_archive(sites.dir());
        let place = archive.to_str().unwrap();
        let before = json(&["archive", "list"], &archive);
        let keys = |list: &Value| list["restorePoints"][0]["keys"].as_i64().unwrap();
        // The last record is the node.
        for (key, more, records) in [
            ("/registry/pods/default/pod-03", &["--prefix"][..], 3),
            ("/registry/minions/n1", &[], 1),
        ] {
            let forget = [&["archive", "forget", place, key][..], more].concat();
            let told = |how| -> Value {
                let printed = done(forget.iter().chain(&[how, "-w=json"]));
                serde_json::from_str(&printed).unwrap()
            };
            let plan = told("--dry-run");
            let point = &plan["restorePoints"][0];
            let (lost, records) = (Value::from(1), Value::from(records));
            assert_eq!([&point["keys"], &point["records"]], [&lost, &records], "{plan}");
            let asked = refused(4, &forget);
            assert!(asked.contains("--yes"), "{asked}");
            let done = told("--yes");
            assert_eq!(done["rewritten"], 1, "{done}");
            assert_eq!(told("--yes")["restorePoints"], Value::Array(Vec::new()));
        }
        let after = json(&["archive", "list"], &archive);
        assert_eq!(keys(&before) - keys(&after), 2);
        assert_eq!(after["restorePoints"][0]["erased"], true);
        let table = done(["archive", "list", place]);
        assert!(table.contains("listed, erased"), "{table}");
        let verdict = done(["archive", "verify", "--level", "proven", place]);
        assert!(verdict.contains("on demand from 1"), "{verdict}");
        let status = rekindle(["status", place]).output().unwrap();
        assert!(status.status.success());
        let warning = String::from_utf8(status.stderr).unwrap();
        assert!(warning.contains("4 of its records were erased on demand"), "{warning}");

        done(restore_alone(&archive, &sites, &["--bump-revision=0"]));
        booted::check_databases(version, &sites, source.revision);
        let cluster = Cluster::with(version).on(sites).start();
        let left = ask_json(&cluster, &["get", "", "--from-key"]);
        assert_eq!(left["header"]["revision"], source.revision, "{version}");
        assert_eq!(left["kvs"].as_array().unwrap().len(), 9, "{left}");
        let pod = ["get", "--print-value-only", "/registry/pods/default/pod-04"];
        assert_eq!(ask(&cluster, cluster.member(0), &pod), "2\n");
        let put = ask_json(&cluster, &["put", "/registry/minions/n1", "anew"]);
        assert_eq!(revision_of(&put), source.revision + 1);
    }
}

/// What a restore needs goes while it shows its plan, and another base stands for the one that it meant.
#[test]
fn a_restore_point_that_is_replaced_meanwhile_is_planned_anew() {
    let sites = Sites::new(Members(1));
    let source = Source::kubernetes();
    let archive = source.write_archive(sites.dir());
    let place = archive.to_str().unwrap();
    let forget = |key: &str| done(["archive", "forget", place, key, "--yes"]);
    forget("/registry/pods/default/pod-03");
    let old: Vec<_> = packs(&archive);
    // It cannot show its plan before somebody makes room.
    let (mut plan, mut full) = std::io::pipe().unwrap();
    full.write_all(&[b' '; 64 << 10]).unwrap();
    let mut restoring = rekindle(restore_alone(&archive, &sites, &["--bump-revision=0"]));
    restoring.stdout(full).stderr(Stdio::piped());
    let mut child = restoring.spawn().unwrap();
    drop(restoring);
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.contains("3 of its records were erased"), "the base was read: {line}");
    forget("/registry/pods/default/pod-04");
    old.iter().for_each(|pack| std::fs::remove_file(pack).unwrap());
    let mut shown = String::new();
    plan.read_to_string(&mut shown).unwrap();
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert!(rest.contains("planned anew") && rest.contains("6 of its records"), "{rest}");
    booted::check_databases(Version::LATEST, &sites, source.revision);
}

fn packs(archive: &Path) -> Vec<PathBuf> {
    let mut packs = files(&archive.join("timelines"));
    packs.retain(|path| path.extension().is_some_and(|end| end == "pack"));
    packs
}

/// From whole to damaged, and back to whole from a copy.
#[test]
fn a_damaged_archive_is_found_out_and_repaired() {
    let (source, directory) = (Source::of(Version::LATEST), tempfile::tempdir().unwrap());
    let archive = source.write_archive(directory.path());
    let copied = directory.path().join("copy");
    let [from, to] = [&archive, &copied].map(|path| path.to_str().unwrap());
    for level in ["listed", "read", "proven"] {
        let verdict = json(&["archive", "verify", "--level", level], &archive);
        assert_eq!(verdict["verdict"], "OK", "{verdict}");
        assert_eq!(verdict["restorePoints"][0]["level"], level);
    }
    let stats = json(&["archive", "stats"], &archive);
    let counted: i64 = (0..3).map(|kind| stats["kinds"][kind]["objects"].as_i64().unwrap()).sum();
    let objects = files(&archive.join("timelines")).into_iter();
    let objects = objects.filter(|path| path.extension().unwrap() != "json");
    assert_eq!(counted, i64::try_from(objects.count()).unwrap());
    done(["archive", "stats", from]);
    done(["archive", "copy", from, to]);
    assert!(done(["archive", "copy", from, to]).contains("nothing: all was there"));

    let packs = damage_packs(&archive);
    let told = refused(3, ["archive", "verify", from]);
    assert!(told.contains("of the archive's objects are lost"), "{told}");
    let table = rekindle(["archive", "verify", from, "--latest"]).output().unwrap().stdout;
    let table = String::from_utf8(table).unwrap();
    for part in ["verdict         LOST", "NONE of 1", "1 restore point", "its body was changed"] {
        assert!(table.contains(part), "{part} in {table}");
    }
    let damaged = std::fs::read(&packs[0]).unwrap();
    let plan = done(["archive", "repair", from, "--from", to, "--dry-run"]);
    assert!(plan.contains("replace"), "{plan}");
    let asked = refused(4, ["archive", "repair", from, "--from", to]);
    assert!(asked.contains("pass --yes"), "{asked}");
    assert!(std::fs::read(&packs[0]).unwrap() == damaged, "a plan touches nothing");
    done(["archive", "repair", from, "--from", to, "--yes"]);
    let verdict = json(&["archive", "verify", "--level=proven"], &archive);
    assert_eq!(verdict["verdict"], "OK", "{verdict}");
    done(["archive", "verify", "--level=proven", to]);
    let sites = Sites::new(Members(1));
    let plan = done(restore_alone(&copied, &sites, &[]));
    booted::check(Version::LATEST, sites, source, &[plan]);
}

/// Changes a byte of each pack, and says which they are.
fn damage_packs(archive: &Path) -> Vec<PathBuf> {
    let is_pack = |path: &PathBuf| path.extension().unwrap() == "pack";
    let packs: Vec<_> = files(archive).into_iter().filter(is_pack).collect();
    for path in &packs {
        let mut bytes = std::fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    packs
}

#[test]
fn kubernetes_keys_raise_the_revision_of_a_base_too() {
    let source = Source::kubernetes();
    let sites = Sites::new(Members(1));
    let archive = source.write_archive(sites.dir());
    let plan = done(restore_alone(&archive, &sites, &[]));
    assert!(plan.contains("raised by 1,000,000,000"), "{plan}");
    booted::check_databases(Version::LATEST, &sites, source.revision + 1_000_000_000);
}

#[test]
fn points_of_an_archive_are_found_or_refused() {
    let source = Source::of(Version::LATEST);
    let sites = Sites::new(Members(1));
    let archive = source.write_archive(sites.dir());
    let plan = |point: &str, code: i32| {
        let site = only(&sites);
        let mut args = vec!["restore".to_owned(), format!("{}@{point}", archive.display())];
        args.extend(identity(&sites, site));
        args.extend([format!("--data-dir={}", site.data_dir().display()), "--dry-run".to_owned()]);
        match code {
            0 => done(args),
            code => refused(code, args),
        }
    };
    for point in ["latest", &source.revision.to_string(), "1ms"] {
        let plan = plan(point, 0);
        assert!(plan.contains("base of an archive"), "{plan}");
    }
    // It once gave the newest.
    assert!(plan("2999-01-01T00:00:00Z", 2).contains("in the future"));
    let listed = done(["archive", "list", "-w=json", archive.to_str().unwrap()]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let point = listed["restorePoints"].as_array().unwrap().last().unwrap();
    let [time, object] = ["time", "object"].map(|field| point[field].as_str().unwrap());
    let name = object.rsplit('/').next().unwrap();
    for point in [time, name] {
        let plan = plan(point, 0);
        assert!(plan.contains(&format!("{name}\n")) && plan.contains(time), "{point}: {plan}");
    }
    let none = plan("1", 6);
    assert!(none.contains("holds nothing of revision 1"), "{none}");
    let none = plan("2020-01-01T00:00:00Z", 6);
    assert!(none.contains("holds no base from before 2020-01-01T00:00:00.000Z"), "{none}");
    assert!(plan("yesterday", 2).contains("\"yesterday\" is no point in time"));
    assert!(!only(&sites).data_dir().exists(), "a plan touches nothing");

    // What cannot be read may be what is meant: nothing else is taken for it in silence.
    let bad = Path::new(object).with_file_name("later.base");
    std::fs::write(archive.join(bad), "rekindle").unwrap();
    let told = plan("latest", 3);
    assert!(told.contains("1 of the archive's objects cannot be read"), "{told}");
    assert!(told.contains("later.base: it ends within its header"), "{told}");
    plan(name, 0);

    // A file of that very name is what is meant.
    let file = format!("{}@42", archive.display());
    std::fs::write(&file, "no database").unwrap();
    assert!(plan("42", 3).contains("no database") || plan("42", 3).contains("not a bbolt"));
}

/// Packs or segments with one byte changed, or gone: the restore fails, and nothing is in place.
#[test]
fn a_damaged_archive_is_refused_and_leaves_nothing() {
    let source = Source::of(Version::LATEST);
    let sites = Sites::new(Members(1));
    let archive = source.write_archive(sites.dir());
    let refuse = || {
        let told = refused(3, restore_alone(&archive, &sites, &[]));
        assert!(!only(&sites).data_dir().exists());
        told
    };
    for (kind, when_gone) in [
        ("pack", ".pack is gone, and a base needs it"),
        ("seg", "of the log, which no segment has"),
    ] {
        let mut objects = files(&archive);
        objects.retain(|path| path.extension().unwrap() == kind);
        let whole: Vec<_> = objects.iter().map(|path| std::fs::read(path).unwrap()).collect();
        for (path, bytes) in objects.iter().zip(&whole) {
            let mut changed = bytes.clone();
            *changed.last_mut().unwrap() ^= 1;
            std::fs::write(path, changed).unwrap();
        }
        let told = refuse();
        assert!(told.contains(&format!(".{kind}: its body was changed: its digest")), "{told}");
        objects.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        let told = refuse();
        assert!(told.contains(when_gone), "{told}");
        objects.iter().zip(whole).for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }
    done(restore_alone(&archive, &sites, &[]));
}
