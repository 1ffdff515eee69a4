//! Files of a host: saved when they change, listed, compared and put back, and their certificates watched.

use crate::harness::{Guarding, Place, done, rekindle, told};
use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::etcd::{Cluster, Members};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// A sealed archive, and a host with a certificate and a key.
struct Scene {
    place: Place,
    identity: String,
}

impl Scene {
    fn new() -> Self {
        let place = Place::new();
        let (identity, other) = (place.path("one.txt"), place.path("other.txt"));
        let init = ["archive", "init", &place.path("sealed")];
        let init =
            init.iter().copied().chain(["--generate-keys", &identity, "--generate-keys", &other]);
        done(init);
        fs::create_dir_all(place.path("etc/pki")).unwrap();
        fs::write(place.path("etc/pki/ca.key"), "canary").unwrap();
        fs::set_permissions(place.path("etc/pki/ca.key"), fs::Permissions::from_mode(0o600))
            .unwrap();
        Self { place, identity }
    }

    fn restore(&self, more: &[&str]) -> std::process::Output {
        let sealed = self.place.path("sealed");
        let words = ["restore-files", &sealed, "--host", "node-1", "--identity", &self.identity];
        rekindle(words.iter().chain(more)).output().unwrap()
    }
}

#[test]
fn files_of_a_host_are_saved_when_they_change_and_come_back() {
    let scene = Scene::new();
    let place = &scene.place;
    let authority = Ca::new("etcd-ca");
    let expired = authority.issue("expired", &Leaf::server().expired());
    fs::copy(&expired.cert, place.path("etc/pki/server.crt")).unwrap();
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let fields = "  archives:
  - place: HERE/sealed
    identities: [HERE/one.txt, HERE/other.txt]
    hostFiles: {schedule: '@every 1s', host: node-1, paths: [HERE/etc]}
  capture: {enabled: false, bases: '@every 1h'}
";
    let mut agent = Guarding::start(&place.configure("agent", &cluster, "", fields));
    let address = agent.address();
    let line = agent.wait_for("CertificateExpires");
    assert!(line.contains("server.crt") && line.contains("has expired at"), "{line}");
    let path = place.path("etc/pki/server.crt");
    let metric =
        "rekindle_certificate_expiry_time_seconds{cluster=\"prod\",job_name=\"files-main\",path=";
    Guarding::wait_for_metric(&address, &format!("{metric}\"{path}\"}}"));
    for _ in 0..2 {
        agent.wait_for("files-main: done");
    }
    let hosts = || -> Vec<Value> {
        let listed = done(["restore-files", &place.path("sealed"), "-w=json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        listed["files"].as_array().unwrap().clone()
    };
    assert_eq!(hosts().len(), 1, "what has not changed is written once");
    fs::write(place.path("etc/pki/new"), "new").unwrap();
    agent.wait_for("files-main: done");
    agent.wait_for("files-main: done");
    let said = agent.stop();
    assert_eq!(hosts().len(), 2);
    // Whoever can read the store is not told what the host has.
    let kept = place.records_in("sealed");
    assert!(!kept.is_empty() && !format!("{kept:?}").contains("server.crt"), "{kept:#?}");
    assert!(said.iter().any(|line| line.contains("IdentitiesOnHost")), "{said:#?}");

    fs::write(place.path("etc/pki/ca.key"), "other").unwrap();
    let different = scene.restore(&["--diff", "-w=simple"]);
    assert_eq!(String::from_utf8_lossy(&different.stdout), "1\n", "{}", told(&different));
    let refused = scene.restore(&["--to", "/"]);
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    assert_eq!(fs::read_to_string(place.path("etc/pki/ca.key")).unwrap(), "other");
    let restored = scene.restore(&["--to", &place.path("back")]);
    assert!(restored.status.success(), "{}", told(&restored));
    let key = format!("{}{}", place.path("back"), place.path("etc/pki/ca.key"));
    assert_eq!(fs::read_to_string(&key).unwrap(), "canary");
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
    assert!(scene.restore(&["--to", "/", "--replace"]).status.success());
    assert_eq!(fs::read_to_string(place.path("etc/pki/ca.key")).unwrap(), "canary");
    // The first one, before there was a new file.
    let at = hosts()[0]["time"].as_str().unwrap().to_owned();
    let first = scene.restore(&["--at", &at, "--list", "-w=json"]);
    assert!(
        !told(&first).contains("pki/new") && told(&first).contains("pki/ca.key"),
        "{}",
        told(&first)
    );
}

/// Without an owner's key nothing is shown of them, and into an archive that anybody can read they do not go.
#[test]
fn files_of_a_host_are_for_owners_only() {
    let scene = Scene::new();
    let place = &scene.place;
    let (etc, sealed) = (place.path("etc"), place.path("sealed"));
    let save = |archive: &str, more: &[&str]| {
        let words = ["save-files", archive, &etc, "--host", "node-1", "--spool"];
        rekindle(words.iter().chain(&[&*place.path("spool")]).chain(more)).output().unwrap()
    };
    let refused = save(&place.path("archive"), &[]);
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    assert!(told(&refused).contains("is not encrypted"), "{}", told(&refused));
    assert!(save(&sealed, &[]).status.success());
    let words = ["restore-files", &sealed, "--host", "node-1", "--list"];
    let closed = rekindle(words).output().unwrap();
    assert!(!closed.status.success() && !told(&closed).contains("ca.key"), "{}", told(&closed));
    let lacking = save(&sealed, &["/no/such/path"]);
    assert_eq!(lacking.status.code(), Some(6), "{}", told(&lacking));
    assert!(told(&lacking).contains("saved without /no/such/path"), "{}", told(&lacking));
}
