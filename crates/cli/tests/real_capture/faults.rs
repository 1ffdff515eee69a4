//! What goes wrong around a capture, and what becomes of it.

use crate::harness::{
    Capturing, Place, archived_hash, done, hash, opened_hash, put, put_at, rekindle,
};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members, Sites};
use serde_json::Value;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The member that is watched dies: another one goes on, without a hole.
#[test]
fn a_member_that_dies_is_left() {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    let place = Place::new();
    let mut capturing = place.capture(&cluster, "host", &[]);
    capturing.wait_for("writing into");
    for member in 0..3 {
        put(&cluster, "before", &member.to_string());
        cluster.member(member).kill();
        for number in 0..5 {
            put_at(&cluster, (member + 1) % 3, &format!("key-{number}"), &member.to_string());
        }
        cluster.member(member).start();
    }
    let last = put(&cluster, "last", "");
    capturing.stop();
    assert_eq!(archived_hash(&place.at(last)), hash(&cluster, last));
}

/// A second one stands by, and takes over when the first falls silent.
#[test]
fn a_second_capture_takes_over() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let mut first = place.capture(&cluster, "one", &[]);
    first.wait_for("writing into");
    put(&cluster, "a", "1");
    let mut second = place.capture(&cluster, "two", &[]);
    second.wait_for("standing by");
    put(&cluster, "a", "2");
    first.kill();
    second.wait_for("writing into");
    let last = put(&cluster, "a", "3");
    second.stop();
    assert_eq!(archived_hash(&place.at(last)), hash(&cluster, last));
}

/// Of a log that it cannot read a second one knows that it is of the same cluster, for it was told the same at the same
/// moments: it goes on in that very history, and leaves nothing out.
#[test]
fn who_takes_over_a_sealed_log_goes_on_in_it() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let keys = tempfile::tempdir().unwrap();
    let key = |name: &str| keys.path().join(name).display().to_string();
    let (one, other) = (key("one"), key("other"));
    let place = Place::with(&["--generate-keys", &one, "--generate-keys", &other]);
    let mut first = place.capture(&cluster, "one", &[]);
    first.wait_for("writing into");
    let mut second = place.capture(&cluster, "two", &[]);
    second.wait_for("standing by");
    let began = Instant::now();
    let mut revisions = Vec::new();
    while began.elapsed() < Duration::from_secs(6) {
        let revision = put(&cluster, "a", "x");
        place.wait_until_it_has(revision);
        revisions.push(revision);
    }
    first.kill();
    second.wait_for("writing into");
    revisions.push(put(&cluster, "a", "last"));
    second.stop();
    let told = done(["archive", "list", "-w=json", place.archive().to_str().unwrap()]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["log"].as_array().unwrap().len(), 1, "{told:#}");
    for revision in revisions {
        let there = opened_hash(&place.at(revision), &["--identity", &one]);
        assert_eq!(there, hash(&cluster, revision));
    }
}

/// Whoever was frozen and comes again finds that another one writes: he stands by.
#[test]
fn a_capture_that_was_frozen_stands_by() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let mut first = place.capture(&cluster, "one", &[]);
    first.wait_for("writing into");
    first.freeze();
    let mut second = place.capture(&cluster, "two", &[]);
    second.wait_for("writing into");
    put(&cluster, "a", "1");
    first.thaw();
    first.wait_for("standing by");
    let last = put(&cluster, "a", "2");
    second.stop();
    assert_eq!(archived_hash(&place.at(last)), hash(&cluster, last));
}

/// An archive that is not there delays no other, and has everything once it is there again.
#[test]
fn an_archive_that_fails_catches_up() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let other = place.path().join("other");
    done(["archive", "init", "--unencrypted", other.to_str().unwrap()]);
    let archive = place.archive();
    let mut capturing = place.capture_into(&cluster, "host", &[&archive, &other], &[]);
    capturing.wait_for("writing into");
    capturing.wait_for("writing into");
    let away = place.path().join("away");
    std::fs::rename(&other, &away).unwrap();
    let middle = put(&cluster, "a", "1");
    capturing.wait_for("cannot be written into now");
    assert!(!other.exists(), "nothing is made where a disk is not mounted");
    std::fs::rename(&away, &other).unwrap();
    capturing.wait_for(&format!("writing into {}", other.display()));
    let last = put(&cluster, "a", "2");
    capturing.stop();
    for archive in [&archive, &other] {
        for revision in [middle, last] {
            let point = format!("{}@{revision}", archive.display());
            assert_eq!(archived_hash(&point), hash(&cluster, revision), "{point}");
        }
    }
}

/// One that is not there when capture begins keeps the cluster from none of the others; and one that is there later has
/// what came meanwhile.
#[test]
fn an_archive_that_is_away_at_the_beginning_comes_later() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let other = place.path().join("other");
    done(["archive", "init", "--unencrypted", other.to_str().unwrap()]);
    let archives = [&*other, &*place.archive()];
    let mut capturing = place.capture_into(&cluster, "host", &archives, &[]);
    for _ in archives {
        capturing.wait_for("writing into");
    }
    put(&cluster, "a", "0");
    capturing.stop();
    let away = place.path().join("away");
    std::fs::rename(&other, &away).unwrap();
    let mut capturing = place.capture_into(&cluster, "host", &archives, &[]);
    capturing.wait_for_all(&["other cannot be written into now", "writing into"]);
    let middle = put(&cluster, "a", "1");
    std::fs::rename(&away, &other).unwrap();
    capturing.wait_for(&format!("writing into {}", other.display()));
    let last = put(&cluster, "a", "2");
    capturing.stop();
    for archive in archives {
        for revision in [middle, last] {
            let point = format!("{}@{revision}", archive.display());
            assert_eq!(archived_hash(&point), hash(&cluster, revision), "{point}");
        }
    }
}

/// Where none is there, and none will be by itself, it says so and ends.
#[test]
fn without_any_archive_nothing_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut command =
        rekindle(["capture", "--endpoints", "127.0.0.1:1", "--spool", &path("spool")]);
    let output = command.args(["--archive", &path("one"), "--archive", &path("two")]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: ") && said.contains("what to do: "), "{said}");
}

/// Every member is replaced by another one: those that were named at the beginning are all gone.
#[test]
fn members_are_replaced() {
    // It would first watch for seconds whether the new one stays.
    let hasty = "--strict-reconfig-check=false";
    let cluster = Cluster::with(Version::LATEST).members(Members(1)).flag(hasty).start();
    let place = Place::new();
    let mut capturing = place.capture(&cluster, "host", &[]);
    capturing.wait_for("writing into");
    put(&cluster, "a", "1");
    let (first, sites) = (cluster.member(0), Sites::new(Members(1)));
    let site = sites.iter().next().unwrap();
    let peer_urls = format!("--peer-urls={}", site.peer_url());
    cluster.etcdctl(["member", "add", "another", &peer_urls]);
    let both = format!("{}={},another={}", first.name(), first.peer_url(), site.peer_url());
    let another = Cluster::with(Version::LATEST)
        .on(sites)
        .flag("--name=another")
        .flag(format!("--initial-cluster={both}"))
        .flag("--initial-cluster-state=existing")
        .flag(hasty)
        .start();
    capturing.wait_for(another.member(0).client_url());
    // Leadership goes over first, or the first one's removal would wait for an election.
    let members = cluster.etcdctl_json(["member", "list"]);
    let id = |name: &str| {
        let members = members["members"].as_array().unwrap();
        let member = members.iter().find(|it| it["name"] == name).unwrap();
        format!("{:x}", member["ID"].as_u64().unwrap())
    };
    cluster.etcdctl(["move-leader", &id("another")]);
    another.etcdctl(["member", "remove", &id(first.name())]);
    first.kill();
    let last = put(&another, "a", "2");
    let said = capturing.stop();
    assert_eq!(archived_hash(&place.at(last)), hash(&another, last), "{said:#?}");
}

/// Into a sealed archive, by a host that cannot read it.
#[test]
fn a_sealed_archive_is_written_without_its_identity() {
    let keys = tempfile::tempdir().unwrap();
    let [one, other] = ["one.key", "other.key"].map(|name| keys.path().join(name));
    let [generate, elsewhere] =
        [&one, &other].map(|it| format!("--generate-keys={}", it.display()));
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::with(&[&generate, &elsewhere]);
    let mut capturing = place.capture(&cluster, "host", &[]);
    capturing.wait_for("writing into");
    let middle = put(&cluster, "canary-of-a-key", "canary-of-a-value");
    let last = put(&cluster, "a", "2");
    capturing.stop();
    let identity = format!("--identity={}", one.display());
    for revision in [middle, last] {
        let point = place.at(revision);
        assert_eq!(opened_hash(&point, &[&identity]), hash(&cluster, revision));
    }
    let mut files = vec![place.archive()];
    while let Some(path) = files.pop() {
        match std::fs::read_dir(&path) {
            Ok(found) => files.extend(found.map(|it| it.unwrap().path())),
            Err(_) => {
                let bytes = std::fs::read(&path).unwrap();
                assert!(!bytes.windows(6).any(|it| it == b"canary"), "{}", path.display());
            }
        }
    }
}

/// It ends while an archive has not everything: that is not called success, and the next run mends it.
#[test]
fn what_is_not_written_at_the_end_is_said() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let mut capturing = place.capture(&cluster, "host", &[]);
    capturing.wait_for("writing into");
    let away = place.path().join("away");
    std::fs::rename(place.archive(), &away).unwrap();
    let last = put(&cluster, "a", "1");
    capturing.wait_for("cannot be written into now");
    let said = capturing.stop_with(5);
    assert!(said.iter().any(|line| line.contains("not everything that came is in")), "{said:#?}");
    std::fs::remove_dir_all(place.archive()).unwrap_or_default();
    std::fs::rename(&away, place.archive()).unwrap();
    place.capture(&cluster, "host", &[]).wait_for("writing into");
    let mut capturing = place.capture(&cluster, "host", &[]);
    capturing.wait_for("writing into");
    let said = capturing.stop();
    assert!(!said.iter().any(|line| line.contains("base of revision")), "{said:#?}");
    assert_eq!(archived_hash(&place.at(last)), hash(&cluster, last));
}

/// Where the spool is full, the oldest of the journal makes room, and following goes on.
#[test]
fn a_full_spool_ends_nothing() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let spool = place.path().join("small");
    std::fs::create_dir(&spool).unwrap();
    let script = "mount -t tmpfs -o size=70m none \"$1\" && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(&spool);
    command.arg(env!("CARGO_BIN_EXE_rekindle"));
    command.args(["capture", "--flush-interval=1s", "--archive"]).arg(place.archive());
    command.arg(format!("--endpoints={}", cluster.client_urls().join(",")));
    command.arg("--spool").arg(&spool);
    let mut capturing = Capturing::start(command);
    capturing.wait_for("writing into");
    // Nothing of it can be compressed.
    let mut last = 0;
    for number in 0..100 {
        let mut noise = vec![0; 500_000];
        std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
        let text: String = noise.iter().map(|byte| char::from(b' ' + byte % 94)).collect();
        let mut command = cluster.etcdctl_for(cluster.member(0));
        let mut child = command.args(["put", &format!("noise-{}", number % 5), "-w=json"]);
        child = child.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
        let told = child.wait_with_output().unwrap();
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        last = crate::harness::revision_of(&told);
    }
    capturing.stop();
    assert_eq!(archived_hash(&place.at(last)), hash(&cluster, last));
}

/// A member's disk goes back to what it was, under the same ids, as a virtual machine's does: what it had until
/// then and what it has now are two histories, and both come back. Whether it was followed meanwhile or not.
#[test]
fn a_cluster_that_goes_back_has_two_histories() {
    for is_followed in [true, false] {
        let cluster = Cluster::start(Version::LATEST, Members(1));
        let place = Place::new();
        let mut capturing = place.capture(&cluster, "host", &[]);
        capturing.wait_for("writing into");
        put(&cluster, "a", "1");
        let member = cluster.member(0);
        let saved = place.path().join("saved");
        member.stop();
        copy_directory(member.data_dir(), &saved);
        member.start();
        put(&cluster, "a", "2");
        let before = put(&cluster, "a", "3");
        let was = hash(&cluster, before);
        place.wait_until_it_has(before);
        let mut capturing = match is_followed {
            true => Some(capturing),
            false => {
                capturing.stop();
                None
            }
        };
        member.stop();
        std::fs::remove_dir_all(member.data_dir()).unwrap();
        copy_directory(&saved, member.data_dir());
        member.start();
        put(&cluster, "b", "other");
        let mut capturing =
            capturing.take().unwrap_or_else(|| place.capture(&cluster, "host", &[]));
        capturing.wait_for("the cluster has not what it had");
        capturing.wait_for("written into");
        let last = (0..5).fold(0, |_, number: i64| put(&cluster, "c", &number.to_string()));
        let said = capturing.stop();
        let archive = place.archive();
        eprintln!(
            "DEBUG {is_followed} {said:#?} {}",
            done(["archive", "list", archive.to_str().unwrap()])
        );
        let files = Command::new("find")
            .arg(&archive)
            .args(["-type", "f", "-printf", "%T+ %P\n"])
            .output()
            .unwrap();
        eprintln!("DEBUG {}", String::from_utf8(files.stdout).unwrap());
        let told = done(["archive", "list", "-w=json", archive.to_str().unwrap()]);
        let told: Value = serde_json::from_str(&told).unwrap();
        let points = told["restorePoints"].as_array().unwrap();
        let timelines: std::collections::BTreeSet<_> =
            points.iter().map(|point| point["timeline"].as_str().unwrap()).collect();
        assert_eq!(timelines.len(), 2, "{told}: {said:#?}");
        let now = points.last().unwrap()["timeline"].as_str().unwrap();
        let then = timelines.iter().find(|timeline| **timeline != now).unwrap();
        assert_eq!(archived_hash(&place.at(format!("{then}:{before}"))), was, "{said:#?}");
        assert_eq!(archived_hash(&place.at(format!("{now}:{last}"))), hash(&cluster, last));
        assert_ne!(archived_hash(&place.at(format!("{now}:{before}"))), was);
        let output = rekindle(["hashkv", &place.at(before)]).output().unwrap();
        assert_eq!(output.status.code(), Some(4));
        assert!(String::from_utf8(output.stderr).unwrap().contains("--timeline"));
    }
}

/// A member that takes calls and answers none once kept it from hearing that it was to end.
#[test]
fn interrupted_before_anything_came() {
    let place = Place::new();
    let member = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = rekindle(["capture", "--endpoints"]);
    command.arg(member.local_addr().unwrap().to_string());
    command.arg("--spool").arg(place.path().join("spool")).arg("--archive").arg(place.archive());
    let capture = Capturing::start(command);
    let _call = member.accept().unwrap();
    let said = capture.stop_with(130);
    assert!(said.iter().any(|line| line.contains("interrupted; nothing was changed")), "{said:#?}");
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(done.success());
}
