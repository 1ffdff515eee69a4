//! An hour of an agent's life, in a minute: a store that is away, a disk that is full, certificates that change, and
//! processes that are killed.
//!
//! At the end every revision that is looked at can be brought back, and no verification that hosts share was done twice.
//! `REKINDLE_HOUR=N` (as `cargo xtask soak --agent` sets it) lasts N seconds, with as many kills as fit, and 50 at least
//! from 300 on.

use crate::harness::{DEADLINE, Guarding, Place, done, rekindle, told};
use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::content::noise;
use rekindle_testkit::etcd::{Cluster, Members, ROOT_PASSWORD, ROOT_USER};
use rekindle_testkit::stores::{Bucket, Minio};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Without more time there is enough for one of each.
const SECONDS: u64 = 20;
/// One process is killed in so many seconds.
const KILLED_EVERY: u64 = 5;

/// A cluster with TLS and users, a store, and two hosts that guard it.
struct Scene {
    place: Place,
    cluster: Cluster,
    minio: Minio,
    bucket: Bucket,
    ca: Ca,
    client: [PathBuf; 2],
}

impl Scene {
    fn new() -> Self {
        let ca = Ca::new("etcd-ca");
        let server = ca.issue("server", &Leaf::server());
        let cluster = Cluster::with(Version::LATEST)
            .members(Members(3))
            .mutual_tls(&ca, &server)
            .auth()
            .start();
        let minio = Minio::start();
        let bucket = minio.bucket("backup");
        let place = Place::new();
        let client = ["client.crt", "client.key"].map(|name| PathBuf::from(place.path(name)));
        let this = Self { place, cluster, minio, bucket, ca, client };
        this.issue("first");
        let mut init = this.with_store(&["archive", "init", "s3://backup/etcd", "--unencrypted"]);
        let output = init.output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        for host in HOSTS {
            fs::create_dir(this.place.path(&format!("disk-{host}"))).unwrap();
        }
        done(["archive", "init", &this.place.path("disk-two/archive"), "--unencrypted"]);
        this
    }

    /// New certificates take the place of those that are there.
    fn issue(&self, name: &str) {
        let issued = self.ca.issue(name, &Leaf::client("backup"));
        for (from, to) in [issued.cert, issued.key].iter().zip(&self.client) {
            let part = to.with_extension("part");
            fs::copy(from, &part).unwrap();
            fs::rename(part, to).unwrap();
        }
    }

    fn with_store(&self, words: &[&str]) -> std::process::Command {
        let mut command = rekindle(words);
        command
            .args(["--endpoint-url", &self.bucket.endpoint_url])
            .envs(self.bucket.variables.clone());
        command
    }

    /// The configuration of a host: the archive in the store is everybody's, that on its disk its own.
    fn configure(&self, host: &str) -> PathBuf {
        let [cert, key] = self.client.each_ref().map(|path| path.display().to_string());
        let variables: String = self
            .bucket
            .variables
            .iter()
            .map(|(name, value)| format!("{name}: {value}, "))
            .collect();
        let fields = format!(
            "  cacert: {}
  cert: {cert}
  key: {key}
  user: {ROOT_USER}
  password: {ROOT_PASSWORD}
  archives:
  - name: far
    place: s3://backup/etcd
    store: {{endpointUrl: '{}', variables: {{{variables}}}}}
    verify: {{schedule: '@every 2s', level: read}}
  - name: near
    place: HERE/disk-{host}/archive
  capture: {{flushInterval: 1s, bases: '@every 1m'}}
  snapshots:
  - {{name: often, schedule: '@every 2s', to: ['HERE/snapshots-{host}/%Y%m%dT%H%M%SZ.db']}}
",
            self.ca.path().display(),
            self.bucket.endpoint_url
        );
        self.place.configure(host, &self.cluster, "", &fields)
    }

    fn start(&self, host: &str) -> Guarding {
        let config = self.configure(host);
        match host {
            // Its disk is full soon.
            "one" => {
                let disk = self.place.path("disk-one");
                Guarding::start_with_little_room(&config, &disk, &format!("{disk}/archive"))
            }
            _ => Guarding::start(&config),
        }
    }
}

const HOSTS: [&str; 2] = ["one", "two"];

/// When something happens, and what.
type Event = (Duration, fn(&Scene));

#[test]
fn an_hour_in_the_life_of_two_agents() {
    let seconds =
        std::env::var("REKINDLE_HOUR").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let scene = Scene::new();
    let over = AtomicBool::new(false);
    let kills = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                let value: String =
                    noise(number, 20_000).iter().map(|byte| char::from(b'0' + byte % 75)).collect();
                scene.cluster.etcdctl(["put", &format!("key-{}", number % 50), &value]);
            }
        });
        let kills = live(&scene, seconds);
        over.store(true, Ordering::Relaxed);
        kills
    });
    println!("{seconds} s, {kills} kills");
    // Whatever became of them, they come to themselves.
    let mut agents = HOSTS.map(|host| scene.start(host));
    let last =
        scene.cluster.etcdctl_json(["put", "last", "x"])["header"]["revision"].as_i64().unwrap();
    wait_until_archived(&mut agents, last);
    agents.into_iter().for_each(|agent| _ = agent.stop());
    judge(&scene, last);
}

/// What happens in that time; how many processes were killed.
fn live(scene: &Scene, seconds: u64) -> u64 {
    let mut agents = HOSTS.map(|host| Some(scene.start(host)));
    if let Some(agent) = &mut agents[0] {
        agent.wait_for("writing into");
    }
    let (mut kills, began) = (0, Instant::now());
    let at = |part: u64| Duration::from_secs(seconds * part / 8);
    let mut events: Vec<Event> = vec![
        (at(2), |scene| scene.minio.freeze()),
        (at(4), |scene| scene.issue("second")),
        (at(6), |scene| scene.minio.thaw()),
    ];
    events.reverse();
    while began.elapsed() < Duration::from_secs(seconds) {
        while let Some((_, event)) = events.pop_if(|(at, _)| *at <= began.elapsed()) {
            event(scene);
        }
        let due = began.elapsed().as_secs() / KILLED_EVERY;
        if kills < due {
            let number = usize::try_from(kills % 2).unwrap();
            // At any moment of whatever it does.
            agents[number].take().into_iter().for_each(Guarding::kill);
            agents[number] = Some(scene.start(HOSTS[number]));
            kills += 1;
        }
        agents[0].iter_mut().for_each(|agent| agent.listen_for(Duration::from_millis(50)));
    }
    assert!(events.is_empty());
    agents.into_iter().flatten().for_each(Guarding::kill);
    kills
}

/// Whoever writes into the store has written this.
fn wait_until_archived(agents: &mut [Guarding], last: i64) {
    let addresses: Vec<_> = agents.iter_mut().map(Guarding::address).collect();
    let deadline = Instant::now() + DEADLINE;
    let metric = "rekindle_archive_revision{cluster=\"prod\",archive=\"s3://backup/etcd\"} ";
    loop {
        let pages: Vec<_> = addresses.iter().map(|address| Guarding::metrics(address)).collect();
        let lines = pages.iter().flat_map(|page| page.lines());
        let mut written = lines.filter_map(|line| line.strip_prefix(metric)?.parse::<i64>().ok());
        if written.any(|written| written >= last) {
            return;
        }
        assert!(Instant::now() < deadline, "{pages:#?}");
        std::thread::yield_now();
    }
}

fn judge(scene: &Scene, last: i64) {
    let json = |words: &[&str]| -> Value {
        let output = scene.with_store(words).args(["-w", "json"]).output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let verified = json(&["archive", "verify", "s3://backup/etcd", "--level", "proven"]);
    assert_eq!(verified["findings"].as_array().map(Vec::len), Some(0), "{verified}");
    // Nothing is lost: one history, and each revision of it can be had. The log need not have all of them: a host that was
    // killed between its first base and the first part of the log brings what came then in its next base.
    let listed = json(&["archive", "list", "s3://backup/etcd"]);
    let first = listed["restorePoints"][0]["revision"].as_i64().unwrap();
    let log = listed["log"].as_array().unwrap();
    let timelines: BTreeSet<_> = log.iter().map(|it| it["timeline"].to_string()).collect();
    assert_eq!(timelines.len(), 1, "{log:#?}");
    assert!(log.iter().any(|it| it["last"].as_i64() >= Some(last)), "{log:#?}");
    for revision in (0..=8).map(|part| first + (last - first) * part / 8) {
        let of_archive = json(&["hashkv", &format!("s3://backup/etcd@{revision}")]);
        let member = scene.cluster.member(0);
        let mut hashkv = scene.cluster.etcdctl_for(member);
        hashkv.args(["endpoint", "hashkv", "-w", "json", &format!("--rev={revision}")]);
        let of_member: Value = serde_json::from_slice(&hashkv.output().unwrap().stdout).unwrap();
        assert_eq!(of_archive["hash"], of_member[0]["HashKV"]["hash"], "{revision}: {of_member}");
    }
    once(&json(&["records", "s3://backup/etcd"]));
    for host in HOSTS {
        snapshots(Path::new(&scene.place.path(&format!("snapshots-{host}"))));
    }
    let near = done(["archive", "verify", &scene.place.path("disk-two/archive"), "--level=proven"]);
    assert!(near.contains("OK"), "{near}");
}

/// Nothing is doubled: what hosts share was done once at each slot.
fn once(records: &Value) {
    let mut slots: BTreeMap<String, usize> = BTreeMap::new();
    for record in records["records"].as_array().unwrap() {
        if record["job"] == "verify-far" && record["outcome"] == "done" {
            *slots.entry(record["slot"].to_string()).or_default() += 1;
        }
    }
    assert!(!slots.is_empty() && slots.values().all(|count| *count == 1), "{slots:#?}");
}

/// Whatever has its name is whole.
fn snapshots(directory: &Path) {
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "db") {
            done(["status".as_ref(), path.as_os_str()]);
            count += 1;
        }
    }
    assert!(count > 0);
}
