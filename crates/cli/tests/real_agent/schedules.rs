//! What is done by schedule, of a cluster with TLS and users.

use crate::harness::{DEADLINE, Guarding, Place, done, rekindle, told};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rekindle_agent::records;
use rekindle_archive::Store;
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Each slot has one run, each run one record, and what was made can be restored.
#[track_caller]
fn check_once(records: &[Value]) {
    let slots: Vec<_> =
        records.iter().map(|it| (it["job"].to_string(), it["slot"].to_string())).collect();
    let different: BTreeSet<_> = slots.iter().collect();
    assert_eq!(different.len(), slots.len(), "{records:#?}");
}

#[test]
fn all_that_is_due_is_done_and_leaves_a_record() {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    let place = Place::new();
    let config = place.configure(
        "agent",
        &cluster,
        "",
        "  archives:
  - place: HERE/archive
    verify: {schedule: '@every 2s', level: proven}
    prune: {schedule: '@every 2s'}
  capture: {flushInterval: 1s}
  snapshots:
  - name: dated
    schedule: '@every 1s'
    to: ['HERE/snapshots/%Y/etcd-%Y%m%dT%H%M%SZ.db', HERE/snapshot.db]
    keep: {last: 2}
",
    );
    let mut agent = Guarding::start(&config);
    let address = agent.address();
    agent.wait_for("writing into");
    cluster.etcdctl(["put", "a", "1"]);
    for _ in 0..4 {
        agent.wait_for("snapshot-dated: done");
    }
    agent.wait_for("verify-main: done");
    agent.wait_for("prune-main: done");
    Guarding::wait_for_metric(&address, "rekindle_archive_revision{cluster=\"prod\",archive=");
    let page = Guarding::metrics(&address);
    assert!(page.contains("rekindle_capture_running{cluster=\"prod\"} 1\n"), "{page}");
    let said = agent.stop();
    // All of it is on one disk.
    let is_bad = |line: &String| line.contains("ALARM") && !line.contains("OneDestination");
    assert!(!said.iter().any(is_bad), "{said:#?}");

    let kept = || {
        let years = fs::read_dir(place.path("snapshots")).unwrap().map(|it| it.unwrap().path());
        let kept = years.flat_map(|year| fs::read_dir(year).unwrap());
        kept.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    // It may have been ended between a save and what goes for it.
    assert!((2..=3).contains(&kept().len()), "{:?}", kept());
    let pattern = place.path("snapshots/%Y/etcd-%Y%m%dT%H%M%SZ.db");
    let two = ["prune-snapshots", &pattern, "--keep-last=2", "--yes", "-w=simple"];
    done(two);
    assert_eq!(done(two), "0, 2\n");
    let kept = kept();
    done(["status".as_ref(), kept[0].as_os_str()]);
    let records = place.records();
    check_once(&records);
    assert_eq!(records, place.records_in("agent/clusters/prod"), "here and there");
    let of = |job: &str| records.iter().filter(|it| it["job"] == job).collect::<Vec<_>>();
    assert!(of("snapshot-dated").len() >= 4 && of("snapshot-dated-2").len() >= 3);
    let first = of("snapshot-dated")[0];
    assert_eq!((&first["outcome"], &first["attempt"]), (&Value::from("done"), &Value::from(1)));
    assert!(first["output"]["fileSize"].as_i64().unwrap() > 0, "{first}");
    assert_eq!(first["command"][0], "rekindle");
    let at = format!("{}@latest", place.path("archive"));
    let hash: Value = serde_json::from_str(&done(["hashkv", "-w=json", &at])).unwrap();
    let revision = hash["hashRevision"].as_i64().or(hash["revision"].as_i64());
    assert_eq!(revision, Some(2), "{hash}");
}

/// While it is paused nothing is done; what somebody asks for is.
#[test]
fn a_pause_holds_and_a_request_is_served() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let config = place.configure(
        "agent",
        &cluster,
        "",
        "  archives: [{place: HERE/archive}]
  capture: {enabled: false, bases: '@every 1s'}
",
    );
    let config_flag = config.to_str().unwrap();
    let agent = |words: &[&str]| {
        rekindle(["--config", config_flag, "agent"].iter().chain(words)).output().unwrap()
    };
    let idle = agent(&["backup-now"]);
    assert_eq!(idle.status.code(), Some(6), "{}", told(&idle));
    for refused in [["--reason", "", "--for", "1h"], ["--reason", "upgrade", "--for", "0s"]] {
        let refused = agent(&[&["pause"], &refused[..]].concat());
        assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
    }
    let paused = agent(&["pause", "--reason", "upgrade", "--for", "1h"]);
    assert!(paused.status.success(), "{}", told(&paused));
    assert!(told(&paused).contains("no agent works with"), "{}", told(&paused));
    let checked = agent(&["--check"]);
    assert!(told(&checked).contains("  paused: upgrade (until "), "{}", told(&checked));
    let mut guarding = Guarding::start(&config);
    let address = guarding.address();
    Guarding::wait_for_metric(&address, "rekindle_cluster_paused{cluster=\"prod\"} 1");
    assert_eq!(place.records(), Vec::<Value>::new());
    let asked = agent(&["backup-now", "--wait"]);
    assert!(asked.status.success(), "{}", told(&asked));
    assert!(told(&asked).contains("base-main: done revision 1"), "{}", told(&asked));
    assert_eq!(place.records().len(), 1, "nothing but what was asked for");
    let listed: Value =
        serde_json::from_str(&done(["archive", "list", &place.path("archive"), "-w=json"]))
            .unwrap();
    assert_eq!(listed["restorePoints"].as_array().unwrap().len(), 1);
    // Whatever the file says meanwhile, it is the agent that works that is told; and it says what pauses it still.
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{good}  no: [")).unwrap();
    let more = agent(&["pause", "--reason", "moving"]);
    assert!(more.status.success() && told(&more).contains("is not good"), "{}", told(&more));
    fs::write(&config, format!("{good}  paused: by hand\n")).unwrap();
    let resumed = agent(&["resume"]);
    assert!(resumed.status.success(), "{}", told(&resumed));
    assert!(told(&resumed).contains("prod stays paused: by hand"), "{}", told(&resumed));
    fs::write(&config, good).unwrap();
    guarding.wait_for("base-main: done");
    guarding.wait_for("base-main: done");
    guarding.stop();
    check_once(&place.records());
}

/// Somebody did it at that time.
fn put_done(store: &Store, job: &str, slot: Timestamp) {
    let agent = records::Agent { id: "0".repeat(16), host: "it was".to_owned() };
    let (cluster, job) = ("prod".to_owned(), job.to_owned());
    let run = records::Run { cluster, job, slot, attempt: 1 };
    let record = records::Record::new(&run, &agent, slot, slot, records::Outcome::Done);
    records::put(store, &record).unwrap();
}

/// It changes how long records are kept, and nothing else: clusters go on, and keep no more.
#[test]
fn records_are_kept_as_a_changed_configuration_says() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let fields = "  snapshots: [{name: one, schedule: '@every 8000h', to: [HERE/one.db]}]\n";
    let config = place.configure("agent", &cluster, "keepRecords: 40d\n", fields);
    let own = place.path("agent/clusters/prod");
    fs::create_dir_all(&own).unwrap();
    let store = Store::directory(own.as_ref()).unwrap();
    let ago =
        |days: i64| records::now().checked_sub(SignedDuration::from_hours(24 * days)).unwrap();
    for days in [60, 20, 1] {
        put_done(&store, "snapshot-one", ago(days));
    }
    let wait_for = |want: usize| {
        let deadline = Instant::now() + DEADLINE;
        let count = || {
            let all = records::since(&store, Some("prod"), Timestamp::UNIX_EPOCH).unwrap();
            // The slot of these thousands of hours may be between them.
            all.iter().filter(|it| it.host == "it was").count()
        };
        while count() != want {
            assert!(Instant::now() < deadline, "{} records are left", count());
            std::thread::yield_now();
        }
    };
    let mut agent = Guarding::start(&config);
    wait_for(2);
    place.configure("agent", &cluster, "keepRecords: 10d\n", fields);
    agent.signal("-HUP");
    agent.wait_for("the configuration was read anew");
    wait_for(1);
    let said = agent.stop();
    assert!(!said.iter().any(|line| line.contains("begun anew")), "{said:#?}");
}

/// An agent that was away for a night does what was due meanwhile once; records that are too old go, everywhere.
#[test]
fn what_was_missed_is_caught_up_and_what_is_old_goes() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let (own, now) = (place.path("agent/clusters/prod"), records::now());
    let ago = |days: i64| now.checked_sub(SignedDuration::from_hours(24 * days)).unwrap();
    let missed = ago(60).to_zoned(TimeZone::UTC);
    let config = place.configure(
        "agent",
        &cluster,
        "keepRecords: 40d\n",
        &format!(
            "  archives: [{{place: HERE/archive}}]
  capture: {{enabled: false}}
  snapshots:
  - {{name: monthly, schedule: '@monthly', to: [HERE/monthly.db]}}
  - {{name: yearly, schedule: '@every 8000h', to: [HERE/yearly.db]}}
  - {{name: missed, schedule: '0 0 {} {} *', to: [HERE/missed.db]}}
",
            missed.day(),
            missed.month()
        ),
    );
    fs::create_dir_all(&own).unwrap();
    let stores =
        [&own, &place.path("archive")].map(|path| Store::directory(path.as_ref()).unwrap());
    let put = |job: &str, slot| stores.iter().for_each(|store| put_done(store, job, slot));
    // The first of a month lies between.
    let monthly = "snapshot-monthly";
    put(monthly, ago(now.to_zoned(TimeZone::UTC).day().into()));
    put("snapshot-yearly", ago(1));
    put(monthly, ago(42));
    // It was done before, longer ago than records are kept.
    put("snapshot-missed", ago(70));
    let mut guarding = Guarding::start(&config);
    guarding.wait_for("snapshot-monthly: done");
    guarding.wait_for("snapshot-missed: done");
    guarding.stop();
    for store in &stores {
        let kept = records::since(store, Some("prod"), Timestamp::UNIX_EPOCH).unwrap();
        let of = |job: &str| kept.iter().filter(|it| it.job == job).count();
        assert_eq!((of(monthly), of("snapshot-yearly")), (2, 1), "{kept:#?}");
    }
    assert!(!Path::new(&place.path("yearly.db")).exists());
}

/// Killed again and again at any time: no slot is done twice, nothing half-made is left, and it goes on.
#[test]
fn whoever_is_killed_goes_on() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let config = place.configure(
        "agent",
        &cluster,
        "",
        "  archives:
  - place: HERE/archive
    verify: {schedule: '@every 1s', level: read}
  capture: {flushInterval: 1s}
  snapshots:
  - {name: often, schedule: '@every 1s', to: [HERE/snapshots/%Y%m%dT%H%M%SZ.db]}
",
    );
    let waits =
        ["guarding", "following from", "saving from", "verify-main: done", "snapshot-often: done"];
    for (round, wait) in waits.into_iter().cycle().take(8).enumerate() {
        let mut agent = Guarding::start(&config);
        cluster.etcdctl(["put", "round", &round.to_string()]);
        agent.wait_for(wait);
        agent.kill();
    }
    let mut agent = Guarding::start(&config);
    agent.wait_for("writing into");
    agent.wait_for("snapshot-often: done");
    agent.stop();
    let records = place.records_in("agent/clusters/prod");
    let done_runs: Vec<_> = records.iter().filter(|it| it["outcome"] == "done").cloned().collect();
    check_once(&done_runs);
    assert!(done_runs.len() >= 3, "{records:#?}");
    for entry in fs::read_dir(place.path("snapshots")).unwrap() {
        let path = entry.unwrap().path();
        // A part of a slot that was given up stays until the next save of that very name.
        if path.extension().is_some_and(|extension| extension == "db") {
            done(["status".as_ref(), path.as_os_str()]);
        }
    }
    let verdict = done(["archive", "verify", "--level=proven", &place.path("archive")]);
    assert!(verdict.contains("OK"), "{verdict}");
    let at = format!("{}@latest", place.path("archive"));
    let hash: Value = serde_json::from_str(&done(["hashkv", "-w=json", &at])).unwrap();
    let revision = hash["hashRevision"].as_i64().or(hash["revision"].as_i64());
    assert_eq!(revision, Some(9), "{hash}");
}

/// Where no record can be kept, a slot is done once all the same.
#[test]
fn a_job_is_not_done_again_because_no_record_can_be_kept() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let config = place.configure(
        "agent",
        &cluster,
        "",
        "  snapshots:
  - {name: often, schedule: '@every 4s', to: [HERE/snapshot.db]}
",
    );
    fs::create_dir_all(place.path("agent/clusters/prod")).unwrap();
    fs::write(place.path("agent/clusters/prod/records"), "no directory").unwrap();
    let mut agent = Guarding::start(&config);
    let mut time = || {
        let line = agent.wait_for("snapshot-often: done");
        line.split(' ').next().unwrap().parse::<Timestamp>().unwrap()
    };
    let (first, second) = (time(), time());
    assert!(second.duration_since(first).as_millis() > 2000, "{first} {second}");
    let said = agent.stop();
    assert!(said.iter().any(|line| line.contains("was not kept on this host")), "{said:#?}");
}
