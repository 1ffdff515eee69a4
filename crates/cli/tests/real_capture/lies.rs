//! A watch that says what is not so: what it leaves out is found, and nothing comes twice.

use crate::following::work;
use crate::harness::{Place, archived_hash, done, hash, transaction};
use rekindle_agent::capture::{Capture, Ended, Notice, Settings, Signals, Told};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{Archive, Comparison, Store};
use rekindle_client::{Client, Config};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members, Sites};
use rekindle_testkit::watch_proxy::{Lie, WatchProxy};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DEADLINE: Duration = Duration::from_secs(90);

/// A capture in this process, of a cluster of one whose watches lie.
struct Scene {
    proxy: WatchProxy,
    cluster: Cluster,
    place: Place,
    told: Receiver<Told>,
    stop: Arc<AtomicBool>,
    capture: JoinHandle<Ended>,
}

impl Scene {
    fn new(version: Version, settings: Settings) -> Self {
        let sites = Sites::new(Members(1));
        let site = sites.iter().next().unwrap();
        let proxy = WatchProxy::start(&site.client_url());
        // The cluster tells nobody where it can be had without the proxy.
        let advertised = format!("--advertise-client-urls={}", proxy.url());
        let cluster = Cluster::with(version).on(sites).flag(advertised).start();
        let place = Place::new();
        let store = Store::directory(&place.archive()).unwrap();
        let spool = place.path().join("spool");
        std::fs::create_dir(&spool).unwrap();
        let capture = Capture {
            cluster: Client::new(Config::new([proxy.url()])).unwrap(),
            archives: vec![Box::new(move || Ok(Archive::open(store.clone()).unwrap()))],
            spool,
            journal_max: 1 << 30,
            settings,
            host: "host".to_owned(),
            now,
        };
        let (telling, told) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let capture = std::thread::spawn(move || {
            let tell = &mut |told| telling.send(told).unwrap_or_default();
            let base = AtomicBool::new(false);
            capture.run(Signals { stop: &theirs, base: &base }, tell).unwrap()
        });
        let scene = Self { proxy, cluster, place, told, stop, capture };
        scene.wait_for(|told| matches!(told, Told::Writing { .. }));
        scene
    }

    /// Waits until this is told, and passes over what comes before.
    fn wait_for(&self, is_it: impl Fn(&Told) -> bool) {
        while !is_it(&self.told.recv_timeout(DEADLINE).unwrap()) {}
    }

    /// Ends it; what it has told.
    fn end(self) -> (Cluster, Place, Vec<Told>) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.capture.join().unwrap();
        assert!(ended.complete && ended.lacking.is_empty(), "{ended:?}");
        (self.cluster, self.place, self.told.iter().collect())
    }
}

fn now() -> Moment {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Moment(passed.as_millis().try_into().unwrap())
}

/// What does not come at all, or too early, is noticed by the revisions that are there, and asked for
/// again; what comes twice or in pieces is taken once.
#[test]
fn what_a_watch_leaves_out_is_asked_for_again() {
    for version in [Version::V3_4, Version::LATEST] {
        let settings = Settings { flush_every: Duration::from_millis(200), ..Settings::default() };
        let scene = Scene::new(version, settings);
        let mut known = BTreeMap::new();
        for (round, lie) in (0..).zip(Lie::ALL).filter(|(_, lie)| *lie != Lie::DropEvent) {
            scene.proxy.lie(lie);
            work(&scene.cluster, round, &mut known);
            assert_eq!(scene.proxy.wait_until_told(), lie);
            scene.place.wait_until_it_has(*known.last_key_value().unwrap().0);
        }
        let (_cluster, place, told) = scene.end();
        let lost = |told: &&Told| matches!(told, Told::Notice(Notice::Lost { .. }));
        assert!(told.iter().filter(lost).count() >= 2, "{version}: {told:#?}");
        assert!(!told.iter().any(|told| matches!(told, Told::Base { .. })), "{told:#?}");
        for (revision, want) in known {
            assert_eq!(archived_hash(&place.at(revision)), want, "{version}: {revision}");
        }
    }
}

/// Of a revision with several changes nobody sees that one is missing, but the next base does: it says so,
/// and begins a history that is whole.
#[test]
fn what_is_missing_within_a_revision_is_found_by_the_next_base() {
    let settings = Settings {
        flush_every: Duration::from_millis(200),
        snapshots_every: Duration::from_secs(1),
        bases_every: Duration::from_secs(2),
        ..Settings::default()
    };
    let scene = Scene::new(Version::LATEST, settings);
    scene.proxy.lie(Lie::DropEvent);
    transaction(&scene.cluster, "put a 1\nput b 2\nput c 3\n");
    assert_eq!(scene.proxy.wait_until_told(), Lie::DropEvent);
    scene.wait_for(|told| match told {
        Told::Base { written, .. } => match &written.comparison {
            Comparison::Contradicted { .. } => true,
            other => {
                let last = written.facts.last.get();
                assert!(last == 1, "{last}: {other:?}");
                false
            }
        },
        _ => false,
    });
    let (cluster, place, _) = scene.end();
    let latest = place.at("latest");
    let last = cluster.etcdctl_json(["get", "a"])["header"]["revision"].as_i64().unwrap();
    assert_eq!(archived_hash(&latest), hash(&cluster, last));
    let verdict = done(["archive", "verify", "--level=proven", place.archive().to_str().unwrap()]);
    assert!(verdict.contains("OK"), "{verdict}");
}
