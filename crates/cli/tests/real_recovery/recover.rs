//! `rekindle recover` of real clusters whose hosts are reached as over ssh.

use crate::harness::{done, killed_after, member, rekindle, told};
use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::etcd::{Certificates, Hosts, Members};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// A cluster, an archive of it, and a way to its hosts: a program in the place of ssh.
struct Scene {
    hosts: Hosts,
    certificates: Option<Certificates>,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new(members: usize) -> Self {
        Self::with(members, None)
    }

    fn with(members: usize, certificates: Option<Certificates>) -> Self {
        let hosts =
            Hosts::start_with(Version::LATEST, Members(members), true, certificates.clone(), None);
        let scene = Self { hosts, certificates, directory: tempfile::tempdir().unwrap() };
        done(rekindle(["archive", "init", &scene.path("archive"), "--unencrypted"]));
        for host in scene.hosts.iter() {
            // A JSON is a YAML.
            let member = serde_json::json!({
                "name": host.name, "peerUrls": [host.peer_url], "dataDir": host.data_dir,
                "start": host.start, "stop": host.stop,
            });
            let text = format!(
                "state: {}\nclusters:\n- name: prod\n  endpoints: [{}]\n  member: {member}\n  archives: [{{place: {}}}]\n",
                scene.path("state"),
                scene.hosts.endpoints(),
                scene.path("archive")
            );
            fs::write(scene.path(&format!("{}.yaml", host.name)), text).unwrap();
        }
        // It gets a target and a command, as ssh does.
        let ssh = scene.path("ssh");
        let script = "#!/bin/sh\ncase \"$1\" in away) echo 'no route to host' >&2; exit 255;; esac\nexport NAME=$1\nexec /bin/sh -c \"$2\"\n";
        fs::write(&ssh, script).unwrap();
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
        scene
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn fill(&self, from: usize, to: usize) {
        for number in from..to {
            self.hosts.etcdctl(&["put", &format!("/{number}"), "value"]);
        }
    }

    /// What reaches the members.
    fn reaching(&self) -> Vec<String> {
        let endpoints = format!("--endpoints={}", self.hosts.endpoints());
        let flags = self.certificates.iter().flat_map(Certificates::flags);
        std::iter::once(endpoints).chain(flags).collect()
    }

    fn save(&self) {
        let mut save = rekindle(["save", &self.path("archive")]);
        save.args(self.reaching());
        done(save);
    }

    fn recover(&self, more: &[&str]) -> Command {
        self.recover_reaching(&self.reaching(), more)
    }

    fn recover_reaching(&self, reaching: &[String], more: &[&str]) -> Command {
        let mut command = rekindle(["recover", "--yes"]);
        command.args(reaching);
        command.arg(format!("--ssh={}", self.path("ssh")));
        let remote = format!(
            "{} --config {}/$NAME.yaml",
            env!("CARGO_BIN_EXE_rekindle"),
            self.directory.path().display()
        );
        command.arg(format!("--remote-command={remote}"));
        command.args(self.hosts.iter().map(|host| format!("--host={}", host.name)));
        command.args(more);
        command
    }

    fn run(&self, more: &[&str]) -> Output {
        self.recover(more).output().unwrap()
    }

    #[track_caller]
    fn has(&self, keys: usize) {
        self.hosts.wait_until_they_serve();
        let found = self.hosts.etcdctl_json(&["get", "--prefix", "/"]);
        assert_eq!(found["count"], keys);
        let deep = rekindle(["check", "--deep"]).args(self.reaching()).output().unwrap();
        // Certificates of tests are good for a day.
        let is_well = deep.status.success() || self.certificates.is_some();
        assert!(is_well, "{}", told(&deep));
        self.hosts.etcdctl(&["put", "alive", "1"]);
        self.hosts.etcdctl(&["del", "alive"]);
    }
}

#[test]
fn all_disks_are_gone_and_the_archive_brings_the_cluster_back() {
    let scene = Scene::new(3);
    scene.fill(0, 10);
    scene.save();
    let serves = scene.run(&[&scene.path("archive")]);
    assert_eq!(serves.status.code(), Some(4), "{}", told(&serves));
    assert!(told(&serves).contains("the cluster serves"), "{}", told(&serves));
    scene.hosts.iter().for_each(rekindle_testkit::etcd::Host::lose);
    let planned = scene.run(&["--dry-run", &scene.path("archive")]);
    assert!(told(&planned).contains("All are restored from the backup"), "{}", told(&planned));
    let text = done(scene.recover(&[&scene.path("archive")]));
    assert!(text.contains("3 of 3 members"), "{text}");
    assert!(text.contains("proven    3 of 3 endpoints answer with this HashKV"), "{text}");
    scene.has(10);
}

/// A power cut of all: nothing is restored, and nothing is lost.
#[test]
fn a_quorum_of_good_disks_is_started_and_nothing_is_lost() {
    let scene = Scene::new(3);
    scene.fill(0, 5);
    scene.save();
    scene.fill(5, 9);
    scene.hosts.iter().for_each(rekindle_testkit::etcd::Host::end);
    scene.hosts.host(1).lose();
    let text = done(scene.recover(&[&scene.path("archive")]));
    assert!(
        text.contains("nothing is lost") && text.contains("host of m1: rekindle replace"),
        "{text}"
    );
    let host = scene.hosts.host(1);
    let mut replace = rekindle(["replace", "--yes"]);
    replace.args(member(&scene.hosts, host));
    done(replace);
    scene.has(9);
}

/// One of three: what it has is newer than the backup, and beats it; of an older member the backup does.
#[test]
fn what_one_disk_has_left_beats_an_older_backup() {
    let scene = Scene::new(3);
    scene.fill(0, 5);
    scene.save();
    scene.fill(5, 9);
    for number in [0, 2] {
        scene.hosts.host(number).lose();
    }
    // It runs, without a quorum: it is stopped to look at what it has.
    let text = done(scene.recover(&[&scene.path("archive")]));
    assert!(text.contains("restored from the data of m1"), "{text}");
    assert!(text.contains("the backup would lose 4 revisions more"), "{text}");
    scene.has(9);
    // The backup, because somebody says so: back to what it has.
    let text =
        done(scene.recover(&["--from=backup", "--although-it-serves", &scene.path("archive")]));
    assert!(
        text.contains("4 revisions are lost") || text.contains("restored from the backup"),
        "{text}"
    );
    scene.has(5);
}

/// Killed right after it was written to: its log has committed what its database has not.
#[test]
fn what_only_a_log_has_is_applied_to_a_copy() {
    let scene = Scene::new(3);
    scene.fill(0, 20);
    scene.hosts.host(1).signal(Signal::KILL);
    scene.hosts.host(0).lose();
    scene.hosts.host(2).lose();
    let planned = scene.run(&["--dry-run"]);
    assert!(told(&planned).contains("they are lost, for want of an etcd"), "{}", told(&planned));
    let etcd = format!("--etcd={}", Version::LATEST.binary("etcd").display());
    let text = done(scene.recover(&[&etcd]));
    assert!(text.contains("applies them to a copy"), "{text}");
    scene.hosts.wait_until_they_serve();
    let found = scene.hosts.etcdctl_json(&["get", "--prefix", "/"]);
    // Of the last one it may not have heard that it was committed.
    assert!(found["count"].as_i64().unwrap() >= 19, "{}", found["count"]);
    let left = fs::read_dir(scene.hosts.host(1).data_dir.parent().unwrap()).unwrap();
    let left: Vec<_> = left.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.contains("replay")), "{left:?}");
}

/// Disks are emptied, and etcd is started on them: it is healthy and knows nothing. Bringing that back is what nobody wants.
#[test]
fn a_cluster_that_was_started_empty_is_not_what_comes_back() {
    let scene = Scene::new(3);
    let archive = scene.path("archive");
    scene.fill(0, 10);
    scene.save();
    scene.hosts.iter().for_each(rekindle_testkit::etcd::Host::lose);
    let all: Vec<_> = scene.hosts.iter().map(rekindle_testkit::etcd::Host::initial).collect();
    scene.hosts.iter().for_each(|host| host.begin_as(&all.join(","), "new"));
    scene.hosts.wait_until_they_serve();
    let refused = told(&scene.run(&[&archive]));
    assert!(refused.contains("it was started empty, or from something older"), "{refused}");
    // Whoever guards it saves what it is now: that is the newest history, and not what is meant either.
    scene.save();
    let refused = scene.run(&[&archive, "--although-it-serves"]);
    assert_eq!(refused.status.code(), Some(4));
    let refused = told(&refused);
    assert!(refused.contains("etcd was started empty then"), "{refused}");
    let further = refused.split_once('@').and_then(|(_, rest)| rest.split_once(' ')).unwrap().0;
    let restore = rekindle(["restore", &archive, "--data-dir", &scene.path("data"), "--dry-run"])
        .args(["--name=m0", "--initial-cluster=m0=http://127.0.0.1:1"])
        .output()
        .unwrap();
    assert!(told(&restore).contains(further), "{}", told(&restore));
    let text = done(scene.recover(&[&format!("{archive}@{further}"), "--although-it-serves"]));
    assert!(text.contains("All are restored from the backup"), "{text}");
    scene.has(10);
}

/// All is well with the disks, and the wrong things are on them.
#[test]
fn a_point_that_is_named_is_gone_back_to() {
    let scene = Scene::new(1);
    let archive = scene.path("archive");
    scene.fill(0, 5);
    scene.save();
    scene.fill(3, 9);
    scene.hosts.etcdctl(&["del", "/0"]);
    scene.save();
    let point = format!("{archive}@6");
    let plan = told(&scene.run(&[&point, "--although-it-serves", "--dry-run"]));
    assert!(plan.contains("All are restored from the backup"), "{plan}");
    let text = done(scene.recover(&[&point, "--although-it-serves"]));
    assert!(text.contains("proven    1 of 1 endpoints"), "{text}");
    scene.has(5);
}

/// It was put in place, and does not come up: a wrong flag, say.
#[test]
fn what_does_not_come_up_is_taken_back() {
    let scene = Scene::new(1);
    scene.fill(0, 5);
    scene.save();
    scene.fill(5, 7);
    let host = scene.hosts.host(0);
    let start = Path::new(&host.start);
    let good = fs::read_to_string(start).unwrap();
    let wrong = scene.path("wrong");
    fs::write(&wrong, "").unwrap();
    // Once.
    let failing =
        format!("#!/bin/sh\nrm {wrong} 2>/dev/null && {{ echo wrong flag >&2; exit 1; }}\n");
    fs::write(start, good.replacen("#!/bin/sh\n", &failing, 1)).unwrap();
    let words = ["--from=backup", "--although-it-serves", &scene.path("archive")];
    let failed = told(&scene.run(&words));
    assert!(failed.contains("wrong flag") && failed.contains("all was taken back"), "{failed}");
    scene.has(7);
    done(scene.recover(&words));
    scene.has(5);
}

/// One host cannot do its part: nothing changes anywhere.
#[test]
fn what_fails_before_anything_is_in_place_is_taken_back() {
    let scene = Scene::new(3);
    scene.fill(0, 5);
    scene.save();
    scene.fill(5, 7);
    let config = scene.path("m2.yaml");
    let good = fs::read_to_string(&config).unwrap();
    // It cannot restore: its data directory's file system has no room for what is staged.
    let elsewhere = good.replace(&scene.path("archive"), &scene.path("nowhere"));
    fs::write(&config, elsewhere).unwrap();
    let staged = scene.hosts.host(2).data_dir.parent().unwrap().to_owned();
    let in_the_way = staged.join("data.staged-r1");
    fs::write(&in_the_way, "in the way").unwrap();
    let words = ["--id=r1", "--from=backup", "--although-it-serves", &scene.path("archive")];
    let failed = scene.run(&words);
    assert!(!failed.status.success(), "{}", told(&failed));
    assert!(told(&failed).contains("all was taken back"), "{}", told(&failed));
    scene.has(7);
    let left: Vec<_> =
        fs::read_dir(scene.hosts.host(0).data_dir.parent().unwrap()).unwrap().collect();
    let names: Vec<_> =
        left.into_iter().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    assert!(
        !names.iter().any(|name| name.contains("fenced") || name.contains("staged")),
        "{names:?}"
    );
    fs::remove_file(in_the_way).unwrap();
    fs::write(&config, good).unwrap();
    done(scene.recover(&words));
    scene.has(5);
    // And afterwards, because it was the wrong thing to do.
    done(scene.recover(&["--id=r1", "--undo"]));
    scene.has(7);
}

/// Two of five are left, and nobody is heard without a certificate.
#[test]
fn what_is_left_of_five_with_certificates_becomes_five() {
    let ca = Ca::new("etcd-ca");
    let own = ca.issue("member", &Leaf::server());
    let scene = Scene::with(5, Some(Certificates { ca: ca.path(), own }));
    scene.fill(0, 5);
    scene.save();
    scene.fill(5, 12);
    // Who cannot ask it does not know whether it serves.
    let other = Ca::new("other");
    let unknown = [&scene.reaching()[0], &format!("--cacert={}", other.path().display())];
    let unknown = unknown.map(String::clone);
    let barred = scene.recover_reaching(&unknown, &[&scene.path("archive")]).output().unwrap();
    assert_eq!(barred.status.code(), Some(4), "{}", told(&barred));
    assert!(
        told(&barred).contains("whether the cluster serves cannot be asked"),
        "{}",
        told(&barred)
    );
    scene.hosts.wait_until_they_serve();
    for number in [0, 2, 4] {
        scene.hosts.host(number).lose();
    }
    let text = done(scene.recover(&[&scene.path("archive")]));
    assert!(text.contains("restored from the data of m"), "{text}");
    assert!(text.contains("proven    5 of 5 endpoints"), "{text}");
    scene.has(12);
}

/// One host of three, and the others may live: nothing is stopped there, and nothing is restored beside them.
#[test]
fn whoever_may_write_on_elsewhere_is_named_and_nothing_is_done() {
    let scene = Scene::new(3);
    scene.fill(0, 5);
    scene.save();
    scene.hosts.iter().skip(1).for_each(|host| host.signal(Signal::STOP));
    let one = scene.hosts.host(0);
    let recover = |more: &[&str]| {
        let mut recover = rekindle(["recover", "--yes", &scene.path("archive")]);
        recover.args(member(&scene.hosts, one)).args(more).output().unwrap()
    };
    // By what its etcd lists, while that runs; by what its data say, and the backup, later.
    for lost in [false, true] {
        let refused = recover(&[]);
        assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
        assert!(told(&refused).contains("--without m1 --without m2"), "{}", told(&refused));
        if lost {
            break;
        }
        one.lose();
    }
    let refused = recover(&["--without=m1", "--without=m3"]);
    assert_eq!(refused.status.code(), Some(0), "one of three is no quorum: {}", told(&refused));
    scene.hosts.iter().skip(1).for_each(|host| {
        host.signal(Signal::CONT);
        host.end();
    });
}

/// Killed as soon as it has said so much; the same again with its id goes on.
#[test]
fn whoever_is_killed_while_it_recovers_goes_on() {
    let scene = Scene::new(3);
    scene.fill(0, 5);
    scene.save();
    for lines in [1, 4, 7, 9] {
        scene.hosts.iter().for_each(rekindle_testkit::etcd::Host::lose);
        let id = format!("--id=r{lines}");
        let words = [&*id, &scene.path("archive")];
        assert!(killed_after(scene.recover(&words), lines), "it has ended before line {lines}");
        done(scene.recover(&words));
        scene.has(5);
    }
}

/// Nobody can reach the hosts: what is carried there makes one cluster, and the paper says how.
#[test]
fn directories_are_carried_to_hosts_by_hand() {
    let scene = Scene::new(3);
    scene.fill(0, 5);
    scene.save();
    scene.hosts.iter().for_each(rekindle_testkit::etcd::Host::lose);
    let all: Vec<_> = scene.hosts.iter().map(rekindle_testkit::etcd::Host::initial).collect();
    let (archive, folder) = (scene.path("archive"), scene.path("carried"));
    let mut command = rekindle(["recover", &archive, "--members", &folder]);
    command.args([&format!("--initial-cluster={}", all.join(",")), "--data-dir=/data/etcd"]);
    done(command);
    for host in scene.hosts.iter() {
        let text = fs::read_to_string(format!("{folder}/{}.txt", host.name)).unwrap();
        for line in [
            "mv /data/etcd /data/etcd.before",
            &format!("rsync -a {folder}/{}/ root@HOST:/data/etcd/", host.name),
            &format!("--initial-cluster={}", all.join(",")),
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
        fs::rename(format!("{folder}/{}", host.name), &host.data_dir).unwrap();
        host.begin_as(&all.join(","), "existing");
    }
    scene.has(5);
}

/// One host alone, with flags and no configuration.
#[test]
fn a_cluster_of_one_comes_back_from_a_snapshot_file() {
    let scene = Scene::new(1);
    scene.fill(0, 5);
    let snapshot = scene.path("snapshot.db");
    done(rekindle(["save", &snapshot, "--endpoints", &scene.hosts.endpoints()]));
    let host = scene.hosts.host(0);
    host.lose();
    let mut command = rekindle(["recover", &snapshot, "--yes"]);
    command.args(member(&scene.hosts, host));
    done(command);
    scene.has(5);
    assert!(Path::new(&snapshot).exists());
}
