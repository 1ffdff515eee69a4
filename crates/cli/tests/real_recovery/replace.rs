//! `rekindle replace` of members of real clusters.

use crate::harness::{done, killed_after, member, rekindle, told};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Host, Hosts, Members};
use rustix::process::Signal;
use std::process::{Command, Output};

fn replace(hosts: &Hosts, host: &Host, more: &[&str]) -> Command {
    let mut command = rekindle(["replace", "--yes"]);
    command.args(member(hosts, host)).args(more);
    command
}

fn run(hosts: &Hosts, host: &Host, more: &[&str]) -> Output {
    replace(hosts, host, more).output().unwrap()
}

/// All vote and serve, all have the same, and all of it.
#[track_caller]
fn check_whole(hosts: &Hosts, keys: usize) {
    hosts.wait_until_they_serve();
    assert_eq!(hosts.voters(), hosts.iter().map(|host| host.name.clone()).collect::<Vec<_>>());
    for host in hosts.iter() {
        let hash = rekindle(["check", "--deep", "-w=json", "--endpoints", &host.client_url])
            .output()
            .unwrap();
        assert!(hash.status.success(), "{}", told(&hash));
    }
    let found = hosts.etcdctl_json(&["get", "--prefix", "/"]);
    assert_eq!(found["count"], keys);
}

fn fill(hosts: &Hosts, from: usize, to: usize) {
    for number in from..to {
        hosts.etcdctl(&["put", &format!("/{number}"), "value"]);
    }
}

#[test]
fn a_member_whose_disk_is_gone_is_replaced() {
    let hosts = Hosts::start(Version::LATEST, Members(3), false);
    fill(&hosts, 0, 5);
    let host = hosts.host(1);
    // It serves: nothing to replace.
    let refused = run(&hosts, host, &[]);
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    assert!(told(&refused).contains("m1 serves"), "{}", told(&refused));
    host.lose();
    let planned = run(&hosts, host, &["--dry-run"]);
    assert!(
        planned.status.success() && told(&planned).contains("5. wait until"),
        "{}",
        told(&planned)
    );
    assert!(!host.data_dir.exists());
    let text = done(replace(&hosts, host, &[]));
    assert!(text.contains("m1 is replaced, votes and serves"), "{text}");
    fill(&hosts, 5, 8);
    check_whole(&hosts, 8);
}

/// What it had is set aside, and nothing is deleted; without the others' quorum nothing is done.
#[test]
fn one_that_is_frozen_is_stopped_first_and_the_quorum_is_kept() {
    let hosts = Hosts::start(Version::LATEST, Members(3), true);
    fill(&hosts, 0, 5);
    let (host, other) = (hosts.host(2), hosts.host(0));
    other.end();
    host.end();
    let refused = run(&hosts, host, &["--command-timeout=2s"]);
    assert!(!refused.status.success() && told(&refused).contains("quorum"), "{}", told(&refused));
    assert!(host.data_dir.join("member").is_dir());
    other.begin();
    host.begin();
    hosts.wait_until_they_serve();
    host.signal(Signal::STOP);
    done(replace(&hosts, host, &[]));
    check_whole(&hosts, 5);
    let aside = std::fs::read_dir(host.data_dir.parent().unwrap()).unwrap();
    let aside: Vec<_> = aside.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    assert!(aside.iter().any(|name| name.starts_with("data.fenced-replace-")), "{aside:?}");
}

/// Killed at each step in turn; the same command again goes on.
#[test]
fn whoever_is_killed_while_it_replaces_goes_on() {
    let hosts = Hosts::start(Version::LATEST, Members(3), true);
    fill(&hosts, 0, 5);
    let host = hosts.host(1);
    for step in 1..=5 {
        host.lose();
        assert!(killed_after(replace(&hosts, host, &[]), step), "it has ended before step {step}");
        done(replace(&hosts, host, &[]));
        check_whole(&hosts, 5);
    }
}
