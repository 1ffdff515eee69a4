//! Members whose files are mostly empty are defragmented, one after the other.

use crate::harness::{DEADLINE, Guarding, Place, rekindle, told};
use jiff::SignedDuration;
use rekindle_agent::records;
use rekindle_archive::Store;
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members};
use serde_json::Value;
use std::process::Output;
use std::time::Instant;

/// A cluster of three with files of some megabytes that hold nothing.
fn emptied() -> Cluster {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    let value = "v".repeat(100_000);
    for number in 0..60 {
        cluster.etcdctl(["put", &format!("key-{number}"), &value]);
    }
    cluster.etcdctl(["del", "--prefix", "key-"]);
    let revision = cluster.etcdctl_json(["get", "x"])["header"]["revision"].as_i64().unwrap();
    cluster.etcdctl(["compact", "--physical", &revision.to_string()]);
    // What is free shows once etcd has written something else.
    let deadline = Instant::now() + DEADLINE;
    loop {
        cluster.etcdctl(["put", "x", "y"]);
        let statuses = cluster.etcdctl_json(["endpoint", "status"]);
        let in_use =
            statuses.as_array().unwrap().iter().map(|it| it["Status"]["dbSizeInUse"].as_u64());
        if in_use.max() < Some(Some(1 << 20)) {
            return cluster;
        }
        assert!(Instant::now() < deadline, "{statuses}");
    }
}

fn defragment(cluster: &Cluster, more: &[&str]) -> Output {
    let endpoints = cluster.client_urls().join(",");
    let words = ["defragment", "--endpoints", &endpoints, "--free-bytes=1MiB", "--free-percent=20"];
    rekindle(words.iter().chain(more)).output().unwrap()
}

fn members(output: &Output) -> Vec<Value> {
    let out: Value = serde_json::from_slice(&output.stdout).unwrap();
    out["members"].as_array().unwrap().clone()
}

#[test]
fn what_is_mostly_empty_is_made_smaller_and_the_leader_is_last() {
    let cluster = emptied();
    let planned = defragment(&cluster, &["--dry-run", "-w=json"]);
    assert!(planned.status.success(), "{}", told(&planned));
    assert!(
        members(&planned)
            .iter()
            .all(|it| it["chosen"] == true && it["dbSize"].as_u64() > Some(4 << 20)),
        "{}",
        told(&planned)
    );
    let unasked = defragment(&cluster, &[]);
    assert_eq!(unasked.status.code(), Some(4), "{}", told(&unasked));
    // Nothing but while all are well.
    cluster.member(2).kill();
    let refused = defragment(&cluster, &["--yes"]);
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    assert!(told(&refused).contains("does not answer"), "{}", told(&refused));
    cluster.member(2).start();

    let statuses = cluster.etcdctl_json(["endpoint", "status"]);
    let leader = statuses
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["Status"]["leader"] == it["Status"]["header"]["member_id"]);
    let leader = leader.unwrap()["Endpoint"].as_str().unwrap().to_owned();
    let done = defragment(&cluster, &["--yes", "-w=json"]);
    assert!(done.status.success(), "{}", told(&done));
    assert!(
        members(&done).iter().all(|it| it["dbSizeAfter"].as_u64() < Some(1 << 20)),
        "{}",
        told(&done)
    );
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let last = said.lines().rfind(|line| line.starts_with("defragmenting")).unwrap();
    assert!(last.contains(&leader), "{leader}: {said}");
    // Now nothing is worth it.
    let again = defragment(&cluster, &["--yes", "-w=simple"]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), "0, 0\n", "{}", told(&again));
}

#[test]
fn an_agent_defragments_where_it_is_worth_it() {
    let cluster = emptied();
    let place = Place::new();
    let fields = "  archives: [{place: HERE/archive}]
  capture: {enabled: false}
  defragment: {schedule: '@every 1s', freeBytes: 1MiB, freePercent: 20}
";
    let mut agent = Guarding::start(&place.configure("agent", &cluster, "", fields));
    agent.wait_for("defragment: done");
    agent.stop();
    let record = place.records().into_iter().find(|it| it["output"]["defragmented"] == 3).unwrap();
    assert!(record["output"]["freedBytes"].as_u64() > Some(9 << 20), "{record}");
}

/// Another agent has begun for an earlier slot, and is not done: two at a time would take a cluster its majority.
#[test]
fn what_is_under_way_for_an_earlier_slot_is_waited_for() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let fields = "  archives: [{place: HERE/archive}]
  capture: {enabled: false}
  defragment: {schedule: '@every 1s'}
";
    let config = place.configure("agent", &cluster, "", fields);
    let (store, now) = (Store::directory(place.path("archive").as_ref()).unwrap(), records::now());
    let slot = now.checked_sub(SignedDuration::from_hours(3)).unwrap();
    let (name, job) = ("prod".to_owned(), "defragment".to_owned());
    let run = records::Run { cluster: name, job, slot, attempt: 1 };
    let other = records::Agent { id: "0".repeat(16), host: "other".to_owned() };
    assert!(run.claim(&store, &other, slot).unwrap());
    let mut agent = Guarding::start(&config);
    agent.wait_for("defragment: it waits for agent 0000000000000000, which does it since");
    let made =
        |place: &Place| place.records().iter().filter(|it| it["job"] == "defragment").count();
    assert_eq!(made(&place), 0);
    let record = records::Record::new(&run, &other, slot, now, records::Outcome::Done);
    records::put(&store, &record).unwrap();
    agent.wait_for("defragment: done");
    agent.stop();
    assert!(made(&place) >= 2);
}
