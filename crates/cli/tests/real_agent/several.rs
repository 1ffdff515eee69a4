//! Two agents, as on two hosts, that share an archive.

use crate::harness::{DEADLINE, Guarding, Place};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Instant;

/// Each job of the archive is done by one of them, the cluster is followed by one, and who is killed is replaced.
#[test]
fn one_does_what_two_could() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let fields = "  archives:
  - place: HERE/archive
    verify: {schedule: '@every 1s', level: read}
  capture: {flushInterval: 1s}
";
    let start = |name: &str| Guarding::start(&place.configure(name, &cluster, "", fields));
    let mut first = start("first");
    first.wait_for("writing into");
    let mut second = start("second");
    second.wait_for("standing by");
    let until = |wanted: usize| {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let records = place.records();
            if records.len() >= wanted {
                return records;
            }
            assert!(Instant::now() < deadline, "{records:#?}");
        }
    };
    let records = until(6);
    let mut slots: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for record in &records {
        slots.entry(record["slot"].to_string()).or_default().push(record);
    }
    let is_done = |runs: &[&Value]| runs.iter().filter(|run| run["outcome"] == "done").count();
    assert!(slots.values().all(|runs| is_done(runs) <= 1), "{slots:#?}");
    first.kill();
    second.wait_for("writing into");
    let count = records.len();
    until(count + 3);
    second.stop();
}
