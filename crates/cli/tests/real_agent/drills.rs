//! Drills: what is restored into a throwaway etcd is what the archive has, and where it is not, that is said.

use crate::harness::{Guarding, Place, done, rekindle, told};
use rekindle_archive::format::header::Moment;
use rekindle_archive::format::witness::Testimony;
use rekindle_archive::{Archive, MemberHash, Store};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

fn etcd() -> String {
    Version::LATEST.binary("etcd").display().to_string()
}

/// An archive with two bases and a key more in each.
fn archived(place: &Place, cluster: &Cluster) {
    let endpoints = cluster.client_urls().join(",");
    for key in ["/shop/1", "/shop/2"] {
        cluster.etcdctl(["put", key, "x"]);
        let (archive, spool) = (place.path("archive"), place.path("spool"));
        done(["save", &archive, "--spool", &spool, "--endpoints", &endpoints]);
    }
}

fn drill(place: &Place, more: &[&str]) -> Output {
    drill_with(place, &etcd(), more)
}

fn drill_with(place: &Place, etcd: &str, more: &[&str]) -> Output {
    let (archive, spool) = (place.path("archive"), place.path("drills"));
    let words = ["drill", &archive, "--spool", &spool, "--etcd", etcd, "-w=json"];
    rekindle(words.iter().chain(more)).output().unwrap()
}

#[track_caller]
fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", told(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All files of a directory that end like this.
fn files(directory: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path, end)),
            false if path.display().to_string().ends_with(end) => found.push(path),
            false => {}
        }
    }
    found
}

#[test]
fn what_is_drilled_is_what_the_archive_has() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    archived(&place, &cluster);
    let told_of = report(&drill(&place, &["--probe=/shop/=2"]));
    assert_eq!((&told_of["verdict"], &told_of["revision"]), (&Value::from("OK"), &Value::from(3)));
    assert_eq!(told_of["probes"][0]["keys"], 2);
    // Of two bases the older one is the only other.
    let older = report(&drill(&place, &["--random"]));
    assert!(older["revision"].as_i64().unwrap() >= 2, "{older}");
    let missing = drill(&place, &["--probe=/shop/=3"]);
    assert_eq!(missing.status.code(), Some(3), "{}", told(&missing));
    assert!(told(&missing).contains("2 keys with /shop/"), "{}", told(&missing));
    let slow = drill(&place, &["--within=1ms"]);
    assert_eq!(slow.status.code(), Some(1), "{}", told(&slow));
    let none = drill_with(&place, "/nowhere/etcd", &[]);
    assert!(told(&none).contains("--etcd"), "{}", told(&none));
    // An etcd that ends at once is told of with what it said.
    let broken = place.path("etcd");
    fs::write(&broken, "#!/bin/sh\necho it is broken >&2\nexit 7\n").unwrap();
    fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let ended = drill_with(&place, &broken, &[]);
    assert_eq!(ended.status.code(), Some(3), "{}", told(&ended));
    assert!(told(&ended).contains("it is broken"), "{}", told(&ended));
    let left: Vec<_> = fs::read_dir(place.path("drills")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "nothing but the lock is left: {left:?}");
}

/// Whatever is damaged, the next drill is red.
#[test]
fn damage_turns_a_drill_red() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    archived(&place, &cluster);
    let archive = PathBuf::from(place.path("archive"));
    for end in [".base", ".pack", ".seg", "timeline.json"] {
        for damage in ["flipped", "cut", "gone"] {
            let files = files(&archive, end);
            let kept: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
            for (path, bytes) in files.iter().zip(&kept) {
                let mut bytes = bytes.clone();
                let middle = bytes.len() / 2;
                match damage {
                    "flipped" => bytes[middle] ^= 1,
                    "cut" => bytes.truncate(middle),
                    _ => {}
                }
                fs::remove_file(path).unwrap();
                if damage != "gone" {
                    fs::write(path, bytes).unwrap();
                }
            }
            let drilled = drill(&place, &[]);
            // No restore needs what a timeline says of itself.
            let is_needed = end != "timeline.json";
            assert_eq!(drilled.status.success(), !is_needed, "{end} {damage}: {}", told(&drilled));
            for (path, bytes) in files.iter().zip(kept) {
                fs::write(path, bytes).unwrap();
            }
        }
    }
    report(&drill(&place, &[]));
}

/// Where no etcd is named and none is in PATH: tests have none there.
fn drill_natively(place: &Place, more: &[&str]) -> Output {
    let (archive, spool) = (place.path("archive"), place.path("drills"));
    let words = ["drill", &archive, "--spool", &spool];
    rekindle(words.iter().chain(more)).output().unwrap()
}

#[test]
fn without_an_etcd_what_was_restored_is_proven_natively() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    archived(&place, &cluster);
    let in_words = drill_natively(&place, &[]);
    assert!(in_words.status.success(), "{}", told(&in_words));
    assert!(told(&in_words).contains("no etcd was booted"), "{}", told(&in_words));
    let json = || report(&drill_natively(&place, &["-w=json"]));
    let seen = json();
    assert_eq!((&seen["booted"], &seen["verdict"]), (&Value::from(false), &Value::from("OK")));
    assert_eq!((&seen["level"], &seen["witnessRevision"]), (&Value::from("read"), &Value::Null));
    assert_eq!(report(&drill(&place, &[]))["booted"], true);
    report(&drill_natively(&place, &["--random", "-w=json"]));
    // What needs an etcd that runs is refused.
    let probed = drill_natively(&place, &["--probe=/shop/"]);
    assert_eq!(probed.status.code(), Some(2), "{}", told(&probed));
    assert!(told(&probed).contains("probes need one that runs"), "{}", told(&probed));
    // What a member has said counts, whatever the archive says of itself.
    let hash = u32::try_from(seen["hash"].as_u64().unwrap()).unwrap();
    witness(&place, hash);
    let seen = json();
    assert_eq!((&seen["level"], &seen["witnessRevision"]), (&"proven".into(), &Value::from(3)));
    witness(&place, hash ^ 1);
    let other = drill_natively(&place, &[]);
    assert_eq!(other.status.code(), Some(3), "{}", told(&other));
    assert!(told(&other).contains("of revision 3, and what was restored has"), "{}", told(&other));
    change(Path::new(&place.path("archive")), ".pack", |bytes| flip(bytes, 2));
    let damaged = drill_natively(&place, &[]);
    assert_eq!(damaged.status.code(), Some(3), "{}", told(&damaged));
}

/// Somebody says that of the newest point of an archive.
fn witness(place: &Place, hash: u32) {
    let store = Store::directory(Path::new(&place.path("archive"))).unwrap();
    let archive = Archive::open(store).unwrap();
    let listing = archive.list().unwrap();
    let facts = &listing.bases.last().unwrap().header.facts;
    let at = Moment(facts.state.0 + archive.witnesses().unwrap().len() as i64);
    let said = MemberHash {
        cluster: facts.cluster,
        member: facts.member,
        term: facts.term,
        etcd: facts.etcd.clone(),
        revision: facts.last,
        compact: facts.compact,
        at,
        said: Testimony { hash, took_ms: 1 },
    };
    archive.add_witness(facts.timeline, &said, at).unwrap();
}

/// It is known beforehand which drill it will be, and afterwards which one it was.
#[test]
fn an_agent_without_an_etcd_says_so() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    archived(&place, &cluster);
    let configure = |drill: &str| {
        let capture = "  capture: {enabled: false, bases: '@every 1000h'}";
        let archives = format!("  archives:\n  - place: HERE/archive\n    drill: {{{drill}}}");
        place.configure("agent", &cluster, "", &format!("{archives}\n{capture}\n"))
    };
    let check = |config: &Path| {
        let words = ["agent", "--check", "--config", config.to_str().unwrap()];
        rekindle(words).output().unwrap()
    };
    let named = check(&configure(&format!("etcd: {}", etcd())));
    assert!(told(&named).contains(&format!("boots {}", etcd())), "{}", told(&named));
    let probed = check(&configure("probes: [/shop/]"));
    assert_eq!(probed.status.code(), Some(2), "{}", told(&probed));
    assert!(told(&probed).contains("probes need one that runs"), "{}", told(&probed));
    let config = configure("schedule: '@every 1s'");
    let checked = check(&config);
    assert!(told(&checked).contains("without an etcd, for there is none"), "{}", told(&checked));
    let mut agent = Guarding::start(&config);
    let line = agent.wait_for("drill-main: done");
    assert!(line.contains("no etcd was booted"), "{line}");
    agent.stop();
    let records = place.records();
    let record = records.iter().find(|record| record["job"] == "drill-main").unwrap();
    assert_eq!(record["output"]["booted"], false, "{record}");
}

/// The agent drills by schedule; whatever is damaged, the next drill is red, and it is green when that is mended.
#[test]
fn an_agent_drills_and_alarms() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    archived(&place, &cluster);
    let etcd = etcd();
    let config = place.configure(
        "agent",
        &cluster,
        "",
        &format!(
            "  archives:
  - place: HERE/archive
    drill: {{schedule: '@every 1s', etcd: {etcd}, probes: [/shop/]}}
  capture: {{enabled: false, bases: '@every 1000h'}}
"
        ),
    );
    let mut agent = Guarding::start(&config);
    agent.wait_for("drill-main: done");
    let records = place.records();
    let record = records.iter().find(|record| record["job"] == "drill-main").unwrap();
    assert_eq!(record["output"]["level"], "drilled", "{record}");
    let archive = PathBuf::from(place.path("archive"));
    for (kind, damage) in DAMAGES {
        let whole = files(&archive, "");
        let whole: Vec<_> =
            whole.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
        eprintln!("damage: {kind}");
        damage(&archive);
        // What it is told of is within one period: the next drill is of the slot behind this one.
        agent.wait_for_any(&["drill-main: refused", "drill-main: failed"]);
        for (bytes, path) in
            whole.iter().filter(|(_, path)| !path.starts_with(archive.join("records")))
        {
            fs::write(path, bytes).unwrap();
        }
        agent.wait_for("drill-main: done");
    }
    let said = agent.stop();
    let alarms = said.iter().filter(|line| line.contains("ALARM prod: JobFailed drill-main"));
    assert!(alarms.count() >= DAMAGES.len() / 2, "{said:#?}");
}

/// What it is, and how it is done to an archive.
type Damage = (&'static str, fn(&Path));

/// What becomes of disks and by mistakes.
const DAMAGES: [Damage; 12] = [
    ("a bit of the bases", |archive| change(archive, ".base", |bytes| flip(bytes, 2))),
    ("a bit of a header", |archive| change(archive, ".base", |bytes| flip(bytes, 100))),
    ("half of the bases", |archive| {
        change(archive, ".base", |bytes| bytes.truncate(bytes.len() / 2));
    }),
    ("the bases", |archive| remove(archive, ".base")),
    ("a bit of the packs", |archive| change(archive, ".pack", |bytes| flip(bytes, 2))),
    ("the packs' content", |archive| change(archive, ".pack", Vec::clear)),
    ("more in the packs", |archive| change(archive, ".pack", |bytes| bytes.extend(b"more"))),
    ("the packs", |archive| remove(archive, ".pack")),
    ("zeros in the packs", |archive| change(archive, ".pack", |bytes| bytes.fill(0))),
    ("packs in the place of others", |archive| {
        let packs = files(archive, ".pack");
        let first = fs::read(&packs[0]).unwrap();
        let last = fs::read(packs.last().unwrap()).unwrap();
        fs::write(&packs[0], last).unwrap();
        fs::write(packs.last().unwrap(), first).unwrap();
        // Where there is one only, it is another file's.
        if packs.len() == 1 {
            fs::copy(&files(archive, ".base")[0], &packs[0]).unwrap();
        }
    }),
    ("archive.json", |archive| fs::remove_file(archive.join("archive.json")).unwrap()),
    ("what archive.json says", |archive| fs::write(archive.join("archive.json"), "{}").unwrap()),
];

fn change(archive: &Path, end: &str, change: impl Fn(&mut Vec<u8>)) {
    for path in files(archive, end) {
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

fn flip(bytes: &mut [u8], part: usize) {
    let at = if part == 2 { bytes.len() / 2 } else { part };
    bytes[at] ^= 1;
}

fn remove(archive: &Path, end: &str) {
    files(archive, end).iter().for_each(|path| fs::remove_file(path).unwrap());
}
