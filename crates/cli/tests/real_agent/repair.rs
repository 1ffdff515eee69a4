//! An agent looks at the members, and brings that of its host back where it may.

use crate::harness::{Guarding, Place};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Hosts, Members};
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;

/// The configuration of the agent on the host of the first member.
fn configure(place: &Place, hosts: &Hosts, repair: bool) -> PathBuf {
    let host = hosts.host(0);
    let member = serde_json::json!({
        "name": host.name, "peerUrls": [host.peer_url], "dataDir": host.data_dir,
        "start": host.start, "stop": host.stop,
    });
    let text = format!(
        "state: {}\nlisten: off\nclusters:\n- name: prod\n  endpoints: [{}]\n  archives: [{{place: {}}}]\n  capture: {{enabled: false}}\n  \
         member: {member}\n  check: {{every: 1s, failsAfter: 2, repair: {repair}}}\n",
        place.path("state"),
        hosts.endpoints(),
        place.path("archive"),
    );
    let path = PathBuf::from(place.path("agent.yaml"));
    fs::write(&path, text).unwrap();
    path
}

fn is_set_aside(hosts: &Hosts) -> bool {
    let parent = hosts.host(0).data_dir.parent().unwrap();
    let mut entries = fs::read_dir(parent).unwrap().map(|it| it.unwrap().file_name());
    entries.any(|name| name.to_string_lossy().contains("fenced"))
}

#[test]
fn a_crashed_member_is_started_again_and_a_lost_one_replaced() {
    let hosts = Hosts::start(Version::LATEST, Members(3), false);
    hosts.etcdctl(&["put", "/a", "1"]);
    let place = Place::new();
    let mut agent = Guarding::start(&configure(&place, &hosts, true));
    agent.wait_for("guarding");
    hosts.host(0).signal(Signal::KILL);
    agent.wait_for("rekindle on-host start");
    agent.wait_for("repair: done");
    hosts.wait_until_they_serve();
    assert!(!is_set_aside(&hosts), "what is good is not replaced");
    hosts.host(0).lose();
    agent.wait_for("rekindle replace --yes");
    agent.wait_for("repair: done");
    hosts.wait_until_they_serve();
    assert_eq!(hosts.voters().len(), 3);
    let made = place.records();
    let repairs: Vec<_> = made.iter().filter(|record| record["job"] == "repair").collect();
    assert_eq!(repairs.len(), 2, "{made:#?}");
    assert!(repairs.iter().all(|record| record["outcome"] == "done"), "{repairs:#?}");
}

#[test]
fn without_leave_it_is_only_said_what_to_do() {
    let hosts = Hosts::start(Version::LATEST, Members(3), false);
    let place = Place::new();
    let mut agent = Guarding::start(&configure(&place, &hosts, false));
    agent.wait_for("guarding");
    hosts.host(0).lose();
    let said = agent.wait_for("MemberUnwell m0 Down");
    assert!(said.contains("ALARM"), "{said}");
    let said = agent.wait_for("RecoveryWanted");
    assert!(
        said.contains("replace m0") && said.contains("on this host: rekindle replace"),
        "{said}"
    );
    hosts.host(1).lose();
    agent.wait_for("NoQuorum");
    agent.wait_for("What to do: rekindle recover");
    assert!(!is_set_aside(&hosts));
    assert!(place.records().is_empty());
}
