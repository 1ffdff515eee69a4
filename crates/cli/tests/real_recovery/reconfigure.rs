//! `rekindle reconfigure` before each start of real etcds.

use crate::harness::{done, member, rekindle, told};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Host, Hosts, Members};
use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

struct Scene {
    hosts: Hosts,
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let hosts = Hosts::start(Version::LATEST, Members(3), false);
        let scene = Self { hosts, directory: tempfile::tempdir().unwrap() };
        done(rekindle(["archive", "init", &scene.archive(), "--unencrypted"]));
        scene
    }

    fn archive(&self) -> String {
        self.directory.path().join("archive").display().to_string()
    }

    fn environment(&self) -> String {
        self.directory.path().join("environment").display().to_string()
    }

    fn initial_cluster(&self) -> String {
        self.hosts.iter().map(Host::initial).collect::<Vec<_>>().join(",")
    }

    fn reconfigure(&self, host: &Host, more: &[&str]) -> Output {
        let mut command = rekindle(["reconfigure", &self.archive(), "--answer-within=1s"]);
        command.args(member(&self.hosts, host));
        command.arg(format!("--initial-cluster={}", self.initial_cluster()));
        command.arg(format!("--environment={}", self.environment()));
        command.args(more).output().unwrap()
    }

    /// Decides, and starts it as a unit would.
    #[track_caller]
    fn start(&self, host: &Host, word: &str) -> String {
        let output = self.reconfigure(host, &[]);
        assert!(told(&output).contains(&format!("{}: {word}", host.name)), "{}", told(&output));
        let script = format!("set -a; . {}; exec {}", self.environment(), host.start);
        let started = Command::new("/bin/sh").args(["-c", &script]).status().unwrap();
        assert!(started.success());
        let said = String::from_utf8(output.stdout).unwrap();
        said.trim().rsplit(' ').next().unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn is_refused(&self, host: &Host, code: i32, why: &str) {
        let output = self.reconfigure(host, &[]);
        assert_eq!(output.status.code(), Some(code), "{}", told(&output));
        assert!(told(&output).contains(why), "{}", told(&output));
    }
}

fn check(hosts: &Hosts) -> Option<i32> {
    let output = rekindle(["check", "--timeout=2s", "--endpoints", &hosts.endpoints()]).output();
    output.unwrap().status.code()
}

#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come");
    }
}

/// An etcd that is started with nothing would be a healthy and empty cluster: never where the archive knows of one.
#[test]
fn stop_all_start_all_brings_the_cluster_back() {
    let scene = Scene::new();
    let hosts = &scene.hosts;
    for number in 0..5 {
        hosts.etcdctl(&["put", &format!("/{number}"), "value"]);
    }
    done(rekindle(["save", &scene.archive(), "--endpoints", &hosts.endpoints()]));
    // All have good data: they are started as they were.
    hosts.iter().for_each(Host::end);
    hosts.iter().for_each(|host| drop(scene.start(host, "restart")));
    hosts.wait_until_they_serve();
    // One has lost its data, and the others serve.
    hosts.host(1).lose();
    scene.is_refused(hosts.host(1), 4, "its data are gone, and the others count on them");
    // Nobody serves: it waits, for the others' data may be good.
    hosts.host(0).end();
    until(|| check(hosts) == Some(11));
    scene.is_refused(hosts.host(1), 5, "1 of 3 hosts say that of theirs");
    hosts.host(0).lose();
    hosts.host(2).lose();
    scene.is_refused(hosts.host(0), 5, "2 of 3 hosts");
    scene.start(hosts.host(2), "restore");
    scene.start(hosts.host(0), "restore");
    // Two are a quorum: the third may come to one that serves.
    let word = scene.start(hosts.host(1), "");
    assert!(["restore", "join"].contains(&&*word), "{word}");
    hosts.wait_until_they_serve();
    assert_eq!(hosts.etcdctl_json(&["get", "--prefix", "/"])["count"], 5);
    // Once more, and nothing has been saved since: what it has acknowledged to the others it would not know any more.
    hosts.etcdctl(&["put", "/new", "value"]);
    hosts.iter().for_each(Host::lose);
    for host in hosts.iter() {
        scene.is_refused(host, 5, "0 of 3 hosts");
    }
    // What hosts have said there is no part of the archive, and nothing wrong with it.
    done(rekindle(["archive", "verify", &scene.archive()]));
}

#[test]
fn what_is_new_begins_or_joins_and_nothing_else_does() {
    let scene = Scene::new();
    let hosts = &scene.hosts;
    let host = hosts.host(2);
    let id = hosts.etcdctl_json(&["member", "list", "--hex"]);
    let members = id["members"].as_array().unwrap();
    let own = members.iter().find(|it| it["name"] == "m2").unwrap();
    let id = match &own["ID"] {
        serde_json::Value::String(text) => text.clone(),
        number => format!("{:x}", number.as_u64().unwrap()),
    };
    host.lose();
    hosts.etcdctl(&["member", "remove", &id]);
    scene.is_refused(host, 4, "does not know it");
    // It takes that only once its members know for some seconds that they are connected.
    let urls = format!("--peer-urls={}", host.peer_url);
    until(|| hosts.try_etcdctl(&["member", "add", "m2", &urls]).is_ok());
    scene.start(host, "join");
    hosts.wait_until_they_serve();
    // A fence is respected, and so is what cannot be read.
    host.end();
    let log = host.data_dir.join("member/wal");
    fs::rename(&log, host.data_dir.join("gone")).unwrap();
    scene.is_refused(host, 4, "cannot be read");
    // The archive knows of no cluster, and nobody answers: it begins one.
    hosts.iter().for_each(Host::lose);
    scene.start(hosts.host(0), "fresh");
    scene.start(hosts.host(1), "fresh");
    let word = scene.start(hosts.host(2), "");
    assert!(["fresh", "join"].contains(&&*word), "{word}");
    hosts.wait_until_they_serve();
    let hidden = format!("{}-hidden", scene.archive());
    hosts.iter().for_each(Host::lose);
    fs::rename(scene.archive(), hidden).unwrap();
    scene.is_refused(hosts.host(0), 5, "cannot be asked");
}
