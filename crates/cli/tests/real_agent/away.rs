//! An archive that is away for a while, and one that is not the one it was.

use crate::harness::{Guarding, Place, done, rekindle, told};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members};
use serde_json::Value;
use std::fs;

/// Records of an outage are on this host at once, and in the archive as soon as it is back; and what somebody wants then is
/// done then.
#[test]
fn what_was_done_while_an_archive_was_away_is_told_there_when_it_is_back() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let fields = "  archives: [{place: HERE/archive}]
  capture: {flushInterval: 1s, bases: '@daily'}
  snapshots: [{name: often, schedule: '@every 2s', to: [HERE/snapshot.db]}]
";
    let config = place.configure("agent", &cluster, "", fields);
    let config_flag = config.to_str().unwrap();
    let mut agent = Guarding::start(&config);
    agent.wait_for("writing into");
    agent.wait_for("snapshot-often: done");
    fs::rename(place.path("archive"), place.path("elsewhere")).unwrap();
    cluster.etcdctl(["put", "a", "1"]);
    agent.wait_for("snapshot-often: the record is in");
    let slots = |text: &str| {
        let told: Value = serde_json::from_str(text).unwrap();
        let records = told["records"].as_array().unwrap().iter();
        records.map(|it| it["slot"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let here = slots(&done(["records", "--config", config_flag, "-w=json"]));
    let last = here.last().unwrap();
    let there = slots(&done(["records", &place.path("elsewhere"), "-w=json"]));
    assert!(!there.contains(last), "{last} {there:?}");

    fs::rename(place.path("elsewhere"), place.path("archive")).unwrap();
    let asked = ["--config", config_flag, "agent", "backup-now", "--wait"];
    let asked = rekindle(asked).output().unwrap();
    assert!(asked.status.success(), "{}", told(&asked));
    agent.wait_for("records late");
    agent.stop();
    let there = slots(&done(["records", &place.path("archive"), "-w=json"]));
    assert!(here.iter().all(|slot| there.contains(slot)), "{here:?} {there:?}");
}

/// Two members that are defragmented at a time are two members that answer nobody: nothing is done unasked.
#[test]
fn where_other_agents_cannot_be_asked_nothing_is_defragmented() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let fields = "  archives: [{place: HERE/archive}]
  capture: {enabled: false, bases: '@daily'}
  snapshots: [{name: often, schedule: '@every 1s', to: [HERE/snapshot.db]}]
  defragment: {schedule: '@every 1s', freeBytes: 1, freePercent: 0}
";
    fs::rename(place.path("archive"), place.path("elsewhere")).unwrap();
    let mut agent = Guarding::start(&place.configure("agent", &cluster, "", fields));
    agent.wait_for("defragment: it waits until other agents can be asked");
    (0..3).for_each(|_| _ = agent.wait_for("snapshot-often: done"));
    let said = agent.stop();
    assert!(!said.iter().any(|line| line.contains("defragment: done")), "{said:#?}");
    fs::rename(place.path("elsewhere"), place.path("archive")).unwrap();
    let config = place.path("agent.yaml");
    let mut agent = Guarding::start(config.as_ref());
    agent.wait_for("defragment: done");
}

/// Whoever puts an archive of his own in the place of ours gets nothing: no backup, and no word of what is done.
#[test]
fn an_archive_with_other_keys_gets_no_records() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let sealed = place.path("sealed");
    let init = || {
        let (one, other) = (place.path("one.txt"), place.path("other.txt"));
        [&one, &other].iter().for_each(|path| _ = fs::remove_file(path));
        done(["archive", "init", &sealed, "--generate-keys", &one, "--generate-keys", &other]);
    };
    init();
    let fields = "  archives: [{place: HERE/sealed}]
  capture: {enabled: false, bases: '@daily'}
  snapshots: [{name: often, schedule: '@every 1s', to: [HERE/snapshot.db]}]
";
    let config = place.configure("agent", &cluster, "", fields);
    let mut agent = Guarding::start(&config);
    agent.wait_for("snapshot-often: done");
    let asked = ["--config", config.to_str().unwrap(), "agent", "backup-now", "--wait"];
    let asked = rekindle(asked).output().unwrap();
    assert!(asked.status.success(), "{}", told(&asked));
    agent.stop();
    assert!(fs::exists(format!("{sealed}/records")).unwrap());
    fs::remove_dir_all(&sealed).unwrap();
    init();
    let mut agent = Guarding::start(&config);
    let later = agent.wait_for("snapshot-often: the record is in");
    assert!(later.contains("should have the fingerprint"), "{later}");
    agent.stop();
    assert!(!fs::exists(format!("{sealed}/records")).unwrap());
}
