//! Many clusters in one agent: what is wrong with some is not felt by the others.
//!
//! With `REKINDLE_FLEET=N` (as `cargo xtask soak --agent` sets it) there are N clusters, and lag and memory are measured.

use crate::harness::{DEADLINE, Guarding, Place};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The one that is frozen, and the one whose archive has no room.
const FROZEN: usize = 0;
const FULL: usize = 1;
/// How long it is measured.
const MEASURED: Duration = Duration::from_secs(60);
/// Most memory of the agent and all its processes with 20 clusters, and most lag in flush intervals.
const MEMORY_MAX: u64 = 512 << 20;
const LAG_MAX: f64 = 2.0;
const FLUSH: f64 = 5.0;

fn count() -> Option<usize> {
    std::env::var("REKINDLE_FLEET").ok()?.parse().ok()
}

fn configuration(place: &Place, clusters: &[Cluster], flush: &str) -> PathBuf {
    let mut yaml = format!("state: {}\nlisten: 127.0.0.1:0\nclusters:\n", place.path("agent"));
    for (number, cluster) in clusters.iter().enumerate() {
        let url = cluster.member(0).client_url();
        let archive = place.path(&format!("{}/archive", home(number)));
        yaml += &format!(
            "- name: c{number}\n  endpoints: ['{url}']\n  archives: [{{place: '{archive}'}}]\n  \
             capture: {{flushInterval: {flush}}}\n"
        );
    }
    let path = PathBuf::from(place.path("agent.yaml"));
    fs::write(&path, yaml).unwrap();
    path
}

fn home(number: usize) -> String {
    format!("home-{number}")
}

/// Clusters, and an agent that guards them; one archive is on a file system of two megabytes.
fn begin(place: &Place, count: usize, flush: &str) -> (Vec<Cluster>, Guarding) {
    let clusters: Vec<_> = std::thread::scope(|scope| {
        let start = || Cluster::start(Version::LATEST, Members(1));
        let started: Vec<_> = (0..count).map(|_| scope.spawn(start)).collect();
        started.into_iter().map(|cluster| cluster.join().unwrap()).collect()
    });
    for number in 0..count {
        fs::create_dir(place.path(&home(number))).unwrap();
        if number != FULL {
            let archive = place.path(&format!("{}/archive", home(number)));
            crate::harness::done(["archive", "init", &archive, "--unencrypted"]);
        }
    }
    let config = configuration(place, &clusters, flush);
    let full = place.path(&home(FULL));
    let agent = Guarding::start_with_little_room(&config, &full, &format!("{full}/archive"));
    (clusters, agent)
}

/// Values by name of the samples of a metric.
fn samples(page: &str, metric: &str) -> BTreeMap<String, f64> {
    let of_metric =
        page.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix("{cluster=\""));
    let read = |rest: &str| {
        let (cluster, rest) = rest.split_once('"')?;
        Some((cluster.to_owned(), rest.rsplit_once(' ')?.1.parse().ok()?))
    };
    of_metric.filter_map(read).collect()
}

/// Waits until the archives of these clusters have what these have now.
fn wait_until_archived(address: &str, clusters: &[Cluster], healthy: &[usize]) {
    let heads: Vec<_> = healthy
        .iter()
        .map(|number| {
            let put = clusters[*number].etcdctl_json(["put", "head", "x"]);
            (format!("c{number}"), put["header"]["revision"].as_i64().unwrap())
        })
        .collect();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let page = Guarding::metrics(address);
        let written = samples(&page, "rekindle_archive_revision");
        #[expect(clippy::cast_precision_loss, reason = "revisions of a test are few")]
        let has = |(name, head): &(String, i64)| written.get(name) >= Some(&(*head as f64));
        if heads.iter().all(has) {
            return;
        }
        assert!(Instant::now() < deadline, "{heads:?}: {written:?}");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_wrong_with_one_is_not_felt_by_others() {
    let place = Place::new();
    let measured = count();
    let count = measured.unwrap_or(4);
    let flush = if measured.is_some() { "5s" } else { "1s" };
    let (clusters, mut agent) = begin(&place, count, flush);
    let address = agent.address();
    let healthy: Vec<_> = (0..count).filter(|number| ![FROZEN, FULL].contains(number)).collect();
    let all_but_full: Vec<_> = (0..count).filter(|number| *number != FULL).collect();
    wait_until_archived(&address, &clusters, &all_but_full);
    clusters[FROZEN].member(0).freeze();
    // More than there is room for, and nothing that could be compressed.
    for number in 0..40 {
        let value = noise(number, 100_000);
        clusters[FULL].etcdctl(["put", "much", &value]);
    }
    let full = format!("{}/archive cannot be written into now", home(FULL));
    agent.wait_for_any(&[&full, "no base was made in"]);
    wait_until_archived(&address, &clusters, &healthy);
    if measured.is_some() {
        measure(&mut agent, &address, &clusters, &healthy);
    }
    clusters[FROZEN].member(0).thaw();
    wait_until_archived(&address, &clusters, &all_but_full);
    agent.stop();
}

/// Letters that no compression makes fewer of, as far as letters go.
fn noise(seed: u64, len: usize) -> String {
    let bytes = rekindle_testkit::content::noise(seed, len);
    bytes.into_iter().map(|byte| char::from(b'0' + byte % 75)).collect()
}

/// With a write a second to each: how far archives lag at most, and what memory all of it takes.
fn measure(agent: &mut Guarding, address: &str, clusters: &[Cluster], healthy: &[usize]) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for number in healthy {
                    clusters[*number].etcdctl(["put", "key", "value"]);
                }
            }
        });
        let (mut lag, mut memory) = (0.0_f64, 0);
        let until = Instant::now() + MEASURED;
        while Instant::now() < until {
            let lags = samples(&Guarding::metrics(address), "rekindle_archive_lag_seconds");
            let of_healthy = healthy.iter().filter_map(|number| lags.get(&format!("c{number}")));
            lag = of_healthy.fold(lag, |most, lag| most.max(*lag));
            memory = memory.max(agent.memory());
            agent.listen_for(Duration::from_secs(1));
        }
        over.store(true, Ordering::Relaxed);
        println!(
            "{} clusters: lag at most {lag:.1} s, memory at most {} MiB",
            clusters.len(),
            memory >> 20
        );
        assert!(lag <= LAG_MAX * FLUSH, "they lag {lag} s");
        assert!(memory <= MEMORY_MAX, "{memory} bytes of memory");
    });
}
