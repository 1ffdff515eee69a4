//! Who is told what, and what a changed configuration does.

use crate::harness::{DEADLINE, Guarding, Place, done, rekindle, told as said};
use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::etcd::{Cluster, Members};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

/// Takes every request, and tells its first line and its body.
fn listener() -> (String, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut first, mut length) = (String::new(), 0);
            stream.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.get_mut().write_all(answer).unwrap();
            if tell.send((first, String::from_utf8(body).unwrap())).is_err() {
                return;
            }
        }
    });
    (address, told)
}

#[test]
fn what_fails_is_told_until_it_is_over() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let (address, told) = listener();
    let more = format!(
        "webhooks: [{{url: 'http://{address}/alarms?token=canary'}}]\nheartbeat: {{url: 'http://{address}/alive', every: 1s}}\n"
    );
    // A directory has the name of the file: that is refused until it is gone.
    fs::create_dir_all(place.path("backup/snapshot.db")).unwrap();
    let config = place.configure(
        "agent",
        &cluster,
        &more,
        "  snapshots:
  - {name: often, schedule: '@every 1s', to: [HERE/backup/snapshot.db]}
",
    );
    let mut agent = Guarding::start(&config);
    let wait_for = |want: &str| loop {
        let (first, body) = told.recv_timeout(DEADLINE).unwrap();
        if first.contains(want) || body.contains(want) {
            return body;
        }
    };
    let alarm = wait_for("JobFailed");
    let alarm: serde_json::Value = serde_json::from_str(&alarm).unwrap();
    assert_eq!(
        (&*alarm["status"].to_string(), &*alarm["cluster"].to_string()),
        ("\"firing\"", "\"prod\"")
    );
    assert!(alarm["summary"].to_string().contains("is a directory"), "{alarm}");
    assert!(alarm["remedy"].to_string().contains("rekindle save"), "{alarm}");
    fs::remove_dir(place.path("backup/snapshot.db")).unwrap();
    agent.wait_for("snapshot-often: done");
    wait_for("resolved");
    wait_for("/alive");
    let said = agent.stop();
    assert!(!said.iter().any(|line| line.contains("canary")), "{said:#?}");
}

/// A changed configuration is taken when it is good, and told when it is not.
#[test]
fn a_changed_configuration_is_taken_when_it_is_good() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let job = |name: &str| {
        format!("  snapshots:\n  - {{name: {name}, schedule: '@every 1s', to: [HERE/{name}.db]}}\n")
    };
    let config = place.configure("agent", &cluster, "", &job("one"));
    let mut agent = Guarding::start(&config);
    let address = agent.address();
    agent.wait_for("snapshot-one: done");
    place.configure("agent", &cluster, "", &job("two").replace("schedule", "shedule"));
    agent.signal("-HUP");
    let line = agent.wait_for("is not good");
    assert!(line.contains("did you mean schedule?"), "{line}");
    Guarding::wait_for_metric(&address, "rekindle_config_good 0");
    agent.wait_for("snapshot-one: done");
    place.configure("agent", &cluster, "", &job("two"));
    agent.signal("-HUP");
    agent.wait_for("snapshot-two: done");
    Guarding::wait_for_metric(&address, "rekindle_config_good 1");
    agent.stop();
    // Another agent cannot work with the same state.
    let mut one = Guarding::start(&config);
    one.wait_for("guarding");
    let mut other = Guarding::start(&config);
    other.wait_for("another agent works with");
}

/// Its directory cannot be made: that is an alarm until it can, and the other clusters go on.
#[test]
fn a_cluster_that_cannot_be_begun_harms_no_other() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let job = |name: &str| {
        format!("  snapshots:\n  - {{name: {name}, schedule: '@every 1s', to: [HERE/{name}.db]}}\n")
    };
    let config = place.configure("agent", &cluster, "", &job("one"));
    let mut agent = Guarding::start(&config);
    let address = agent.address();
    agent.wait_for("snapshot-one: done");
    let kept = place.path("agent/config.yaml");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let in_the_way = place.path("agent/clusters/other");
    fs::write(&in_the_way, "").unwrap();
    let endpoints = cluster.client_urls().join(", ");
    let other = format!("- name: other\n  endpoints: [{endpoints}]\n{}", job("two"));
    place.configure("agent", &cluster, "", &(job("one") + &other));
    agent.signal("-HUP");
    let line = agent.wait_for("NotGuarded");
    assert!(line.contains("making") && line.contains("clusters/other"), "{line}");
    agent.wait_for("snapshot-one: done");
    fs::remove_file(&in_the_way).unwrap();
    agent.wait_for("NotGuarded : over");
    agent.wait_for("snapshot-two: done");
    // One of them is paused, the other goes on.
    let words = ["--config", config.to_str().unwrap(), "agent", "pause", "--reason=moving"];
    done(words.iter().chain(&["--config-cluster=other"]));
    Guarding::wait_for_metric(&address, "rekindle_cluster_paused{cluster=\"other\"} 1");
    Guarding::wait_for_metric(&address, "rekindle_cluster_paused{cluster=\"prod\"} 0");
    agent.wait_for("snapshot-one: done");
    agent.stop();
}

/// All that a configuration names and that is not on this host is told before anything is begun.
#[test]
fn what_is_not_on_this_host_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("agent.yaml");
    let yaml = "\
state: /nowhere
webhooks: [{url: 'file:/no/webhook'}]
clusters:
- name: prod
  endpoints: ['127.0.0.1:1']
  cacert: /no/ca.crt
  password: canary
  user: root
  archives:
  - place: /no/archive
    identities: [/no/identity.txt]
    drill: {etcd: /no/etcd}
  snapshots:
  - name: daily
    schedule: '@daily'
    to: ['s3://bucket/etcd-%Y.db', /no/etcd-%Y.db]
    store: {variables: {AWS_SECRET_ACCESS_KEY: '${NONE}'}}
";
    fs::write(&config, yaml).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let words = ["agent", "--check", "--config", config.to_str().unwrap()];
    let output = rekindle(words).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    for want in [
        "a webhook's url: reading /no/webhook: ",
        "cluster prod: reading /no/ca.crt: ",
        "archive main: reading /no/identity.txt: ",
        "archive main: drill: there is no program /no/etcd",
        "snapshots daily: AWS_SECRET_ACCESS_KEY: the environment has no variable NONE",
        "warning: cluster prod: snapshots daily: /no is not there",
        "has secrets in it, and everybody on this host may read it",
    ] {
        assert!(said(&output).contains(want), "{want}: {}", said(&output));
    }
    assert!(!said(&output).contains("canary"));
    // Files that are there, and do not go together.
    let ca = Ca::new("etcd-ca");
    let (one, other) =
        (ca.issue("one", &Leaf::client("one")), ca.issue("two", &Leaf::client("two")));
    let yaml = |ca: &Path, cert: &Path, key: &Path| {
        format!(
            "state: /nowhere\nclusters:\n- name: prod\n  endpoints: ['https://127.0.0.1:1']\n  cacert: {}\n  cert: \
             {}\n  key: {}\n  snapshots: [{{name: a, schedule: '@daily', to: [/tmp/a.db]}}]\n",
            ca.display(),
            cert.display(),
            key.display()
        )
    };
    let check = |yaml: String| {
        fs::write(&config, yaml).unwrap();
        rekindle(words).output().unwrap()
    };
    let good = check(yaml(&ca.path(), &one.cert, &one.key));
    assert!(good.status.success(), "{}", said(&good));
    let mixed = check(yaml(&ca.path(), &one.cert, &other.key));
    assert_eq!(mixed.status.code(), Some(2), "{}", said(&mixed));
    let empty = check(yaml(&one.key, &one.cert, &one.key));
    assert_eq!(empty.status.code(), Some(2), "{}", said(&empty));
}

/// What needs an identity is refused without one, before anything is begun.
#[test]
fn an_encrypted_archive_wants_an_identity_for_what_reads_it() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let (sealed, keys) = (place.path("sealed"), place.path("keys"));
    fs::create_dir(&keys).unwrap();
    let (one, other) = (format!("{keys}/one.txt"), format!("{keys}/other.txt"));
    let init = ["archive", "init", &sealed, "--generate-keys", &one, "--generate-keys", &other];
    assert!(rekindle(init).output().unwrap().status.success());
    let check = |fields: &str| {
        let fields = format!("  archives:\n  - place: HERE/sealed\n{fields}");
        let config = place.configure("agent", &cluster, "", &fields);
        let words = ["agent", "--check", "--config", config.to_str().unwrap()];
        rekindle(words).output().unwrap()
    };
    let refused = check("    prune: {}\n    drill: {}\n");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("prune, drill can do nothing without an identity"));
    let good = check("    prune: {}\n    identities: [HERE/keys/one.txt]\n");
    assert!(good.status.success(), "{}", said(&good));
    assert!(said(&good).contains("prune-main, next at"), "{}", said(&good));
    assert!(check("").status.success(), "following takes public keys only");
    // What is no archive is warned of: it may be made later.
    let nothing = place.configure("agent", &cluster, "", "  archives: [{place: HERE/nothing}]\n");
    let words = ["agent", "--check", "--config", nothing.to_str().unwrap()];
    let warned = rekindle(words).output().unwrap();
    assert!(warned.status.success() && said(&warned).contains("warning"), "{}", said(&warned));
}
