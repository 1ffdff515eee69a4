//! Saves that are cut short: whatever happens, a file under the name is whole, and an earlier one
//! stays until then.

use crate::command::{Target, done, endpoints, failed, rekindle};
use rekindle_client::{Client, Config, Put};
use rekindle_testkit::Version;
use rekindle_testkit::content::noise;
use rekindle_testkit::etcd::{Cluster, Members};
use rekindle_testkit::proxy::{Fault, Proxy};
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// More than what fits into the socket buffers on the way.
const MEGABYTES: usize = 24;
/// In the midst of it.
const MIDST: u64 = 12 << 20;

fn full_cluster() -> Cluster {
    cluster_of(|_| vec![7; 1 << 20])
}

/// With values that no compression makes smaller.
fn noisy_cluster() -> Cluster {
    cluster_of(|index| noise(index as u64, 1 << 20))
}

fn cluster_of(value: impl Fn(usize) -> Vec<u8>) -> Cluster {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::new(Config::new(cluster.client_urls())).unwrap();
        for index in 0..MEGABYTES {
            client.put(Put::new(format!("k{index}"), value(index))).await.unwrap();
        }
    });
    cluster
}

#[test]
fn a_stream_that_stalls_ends_or_is_changed_leaves_what_was_there() {
    let cluster = full_cluster();
    let target = Target::new();
    done(&mut target.save(&endpoints(&Cluster::start(Version::LATEST, Members(1)))));
    let earlier = fs::read(target.file()).unwrap();
    for (fault, want) in [
        (Fault::StallAfter(MIDST), "--stall-timeout"),
        (Fault::CutAfter(MIDST), "Snapshot"),
        (Fault::FlipAfter(MIDST), "the snapshot came damaged or not whole"),
    ] {
        let proxy = Proxy::start(cluster.member(0).client_url(), fault);
        let stderr = failed(5, target.save(&proxy.url()).arg("--stall-timeout=1s"));
        assert!(stderr.contains(want), "{fault:?}: {stderr}");
        assert!(stderr.contains("trying again may help"), "{fault:?}: {stderr}");
        assert_eq!(target.names(), ["snap.db"], "{fault:?}");
        assert!(fs::read(target.file()).unwrap() == earlier, "{fault:?}");
    }
    done(&mut target.save(&endpoints(&cluster)));
    assert!(fs::metadata(target.file()).unwrap().len() > MIDST);
}

#[test]
fn the_next_member_is_tried_when_one_fails_midway() {
    let cluster = full_cluster();
    let proxy = Proxy::start(cluster.member(0).client_url(), Fault::CutAfter(MIDST));
    let target = Target::new();
    // Both endpoints are one member, which is as good as two.
    let both = format!("{},{}", proxy.url(), endpoints(&cluster));
    let (_, stderr) = done(&mut target.save(&both));
    assert!(stderr.contains("warning: "), "{stderr}");
    assert_eq!(target.names(), ["snap.db"]);
}

/// A save that hangs in the midst of its stream.
fn hanging_save(proxy: &Proxy, target: &Target) -> Child {
    let mut child = target.save(&proxy.url()).spawn().unwrap();
    let part = target.file().with_added_extension("part");
    let deadline = Instant::now() + Duration::from_secs(60);
    // Nothing announces it but the file.
    while !fs::metadata(&part).is_ok_and(|found| found.len() > 0) {
        assert!(Instant::now() < deadline, "nothing is being saved");
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        std::thread::yield_now();
    }
    child
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

#[test]
fn interrupted_it_ends_at_once_and_cleans_up() {
    let cluster = full_cluster();
    let proxy = Proxy::start(cluster.member(0).client_url(), Fault::StallAfter(MIDST));
    for name in ["-INT", "-TERM", "-HUP"] {
        let target = Target::new();
        let mut child = hanging_save(&proxy, &target);
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(130), "{name}");
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert!(stderr.contains("interrupted"), "{stderr}");
        assert!(target.names().is_empty(), "{name}");
    }
}

#[test]
fn killed_it_leaves_a_part_that_the_next_run_replaces() {
    let cluster = full_cluster();
    let proxy = Proxy::start(cluster.member(0).client_url(), Fault::StallAfter(MIDST));
    let target = Target::new();
    let mut child = hanging_save(&proxy, &target);
    // A second one would write the same file.
    let stderr = failed(5, &mut target.save(&endpoints(&cluster)));
    assert!(stderr.contains("snap.db.part"), "{stderr}");
    signal(&child, "-KILL");
    child.wait().unwrap();
    assert_eq!(target.names(), ["snap.db.part"]);
    done(&mut target.save(&endpoints(&cluster)));
    assert_eq!(target.names(), ["snap.db"]);
}

/// Runs a save in a mount namespace of its own, where a file system with these options is mounted
/// over the directory that it saves to.
fn save_on(mount_options: &str, target: &Target, cluster: &Cluster) -> Command {
    let save = target.save(&endpoints(cluster));
    let script = format!(
        "mount -t tmpfs -o {mount_options} none '{0}' && \"$@\"; code=$?; ls -A '{0}'; exit $code",
        target.dir().display()
    );
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
    command.arg(save.get_program()).args(save.get_args());
    command
}

#[test]
fn a_full_or_read_only_file_system_is_named_and_nothing_stays() {
    let cluster = full_cluster();
    for (options, want, remedy) in [
        ("size=8m", "No space left on device", "make room"),
        ("ro", "Read-only file system", "not mounted read-only"),
    ] {
        let target = Target::new();
        let output = save_on(options, &target, &cluster).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(want) && stderr.contains(remedy), "{stderr}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "what is left in {options}");
    }
}

/// The base is not there, nor are the packs that were written for it.
#[test]
fn an_archive_on_a_full_file_system_holds_nothing_of_the_base() {
    let cluster = noisy_cluster();
    let target = Target::new();
    let spool = tempfile::tempdir().unwrap();
    let place = target.dir().join("archive").display().to_string();
    let script = format!(
        "mount -t tmpfs -o size=8m none '{}' && \"$0\" archive init --unencrypted '{place}' \
         > '{}/init' && \"$0\" \"$@\"; code=$?; find '{place}' -type f; exit $code",
        target.dir().display(),
        spool.path().display()
    );
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &script]);
    command.arg(env!("CARGO_BIN_EXE_rekindle")).args(["save", &place]);
    command.arg(format!("--endpoints={}", endpoints(&cluster)));
    let output = command.arg("--spool").arg(spool.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("No space left") && stderr.contains("make room"), "{stderr}");
    let left = String::from_utf8(output.stdout).unwrap();
    assert!(left.lines().all(|name| name.ends_with(".json")), "{left}");
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 1, "only what init printed");
}

/// A copy once said that the data were bad where the disk was full.
#[test]
fn a_copy_onto_a_full_file_system_ends_with_that() {
    let cluster = noisy_cluster();
    let (target, whole) = (Target::new(), Target::new());
    let [from, to] = [&whole, &target].map(|it| it.dir().join("archive").display().to_string());
    done(rekindle().args(["archive", "init", "--unencrypted", &from]));
    let endpoints = format!("--endpoints={}", endpoints(&cluster));
    done(rekindle().args(["save", &from, &endpoints, "--spool"]).arg(whole.dir()));
    let script = "mount -t tmpfs -o size=8m none \"$1\" && shift && \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(target.dir());
    command.arg(env!("CARGO_BIN_EXE_rekindle")).args(["archive", "copy", &from, &to]);
    let told = failed(1, &mut command);
    assert!(told.contains("No space left") && told.contains("make room"), "{told}");
    done(rekindle().args(["archive", "copy", &from, &to]));
    done(rekindle().args(["archive", "verify", &to]));
}

/// Makes the last leaf with overflow pages no leaf, in the database of a running member: its
/// snapshots are copies of that.
fn damage(cluster: &Cluster) {
    const PAGE: usize = 4096;
    let path = cluster.member(0).data_dir().join("member/snap/db");
    let bytes = fs::read(&path).unwrap();
    let is_leaf = |at: &usize| bytes[at + 8] == 2 && bytes[at + 12..at + 16] != [0; 4];
    let leaf = (0..bytes.len()).step_by(PAGE).rfind(is_leaf).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[4], leaf as u64 + 8).unwrap();
}

#[test]
fn a_member_whose_database_is_damaged_gives_no_backup() {
    let cluster = full_cluster();
    // Everything is on disk then, and every leaf is in use.
    cluster.etcdctl(["defrag"]);
    damage(&cluster);
    let target = Target::new();
    let stderr = failed(3, &mut target.save(&endpoints(&cluster)));
    assert!(stderr.contains("the member's database is damaged"), "{stderr}");
    assert!(stderr.contains("page flags 0x0004"), "{stderr}");
    assert!(target.names().is_empty());
}
