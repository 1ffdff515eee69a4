//! The samples that are shipped, as they are but for addresses, paths and times.

use crate::harness::{Guarding, Place, done, rekindle, told};
use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, CertFiles, Leaf};
use rekindle_testkit::etcd::{Cluster, Members, ROOT_PASSWORD, ROOT_USER};
use rekindle_testkit::stores::{Bucket, Minio};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A sample with other words in it; each must be there.
struct Sample(String);

impl Sample {
    fn new(name: &str, replaced: &[(&str, &str)]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/samples").join(name);
        let mut text = fs::read_to_string(path).unwrap();
        for (word, other) in replaced {
            assert!(text.contains(word), "{name} has no {word}");
            text = text.replace(word, other);
        }
        Self(text)
    }

    /// Writes it for a host, and sees that it is good there.
    fn on(&self, place: &Place, host: &str) -> PathBuf {
        let path = PathBuf::from(place.path(&format!("{host}.yaml")));
        let head = format!("state: {}\nlisten: 127.0.0.1:0\n", place.path(host));
        fs::write(&path, head + &self.0).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let checked =
            rekindle(["agent", "--check", "--config", path.to_str().unwrap()]).output().unwrap();
        assert!(checked.status.success(), "{}", told(&checked));
        assert!(!told(&checked).contains("warning"), "{}", told(&checked));
        path
    }
}

/// A store with TLS, an archive in it, and what a host has of both.
struct Stored {
    _minio: Minio,
    bucket: Bucket,
    ca: Ca,
    secret: String,
}

impl Stored {
    fn new(place: &Place) -> Self {
        let ca = Ca::new("minio-ca");
        let minio = Minio::start_tls(&ca.issue("minio", &Leaf::server()));
        let bucket = minio.bucket("backup");
        let owners = ["one", "other"].map(|name| place.path(&format!("{name}.txt")));
        let mut init = rekindle(["archive", "init", "s3://backup/etcd", "--endpoint-url"]);
        init.arg(&bucket.endpoint_url).arg("--store-ca").arg(ca.path());
        owners.iter().for_each(|owner| _ = init.arg("--generate-keys").arg(owner));
        let output = init.envs(bucket.variables.clone()).output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        let variables = &bucket.variables;
        let of = |name: &str| variables.iter().find(|(known, _)| known == name).unwrap().1.clone();
        fs::write(place.path("s3-secret"), of("AWS_SECRET_ACCESS_KEY")).unwrap();
        let secret = of("AWS_ACCESS_KEY_ID");
        Self { _minio: minio, bucket, ca, secret }
    }
}

fn client_cert(ca: &Ca) -> CertFiles {
    ca.issue("backup", &Leaf::client("backup"))
}

#[test]
fn one_machine() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let place = Place::new();
    let (one, other) = (place.path("one.txt"), place.path("other.txt"));
    fs::create_dir(place.path("backup")).unwrap();
    done([
        "archive",
        "init",
        &place.path("backup/etcd"),
        "--generate-keys",
        &one,
        "--generate-keys",
        &other,
    ]);
    let etcd = Version::LATEST.binary("etcd").display().to_string();
    let sample = Sample::new(
        "one-machine.yaml",
        &[
            ("http://127.0.0.1:2379", cluster.member(0).client_url()),
            ("/backup/", &place.path("backup/")),
            ("/etc/rekindle/identity.txt", &one),
            ("drill: {}", &format!("drill: {{etcd: {etcd}, schedule: '@every 5s'}}")),
            ("'@every 1m'", "'@every 1s'"),
        ],
    );
    let mut agent = Guarding::start(&sample.on(&place, "host"));
    agent.wait_for("writing into");
    agent.wait_for("snapshot-minutely: done");
    agent.wait_for("drill-main: done");
    let said = agent.stop();
    // All of it is on one disk.
    let is_bad = |line: &String| line.contains("ALARM") && !line.contains("OneDestination");
    assert!(!said.iter().any(is_bad), "{said:#?}");
}

#[test]
fn three_machines() {
    let ca = Ca::new("etcd-ca");
    let server = ca.issue("server", &Leaf::server());
    let cluster =
        Cluster::with(Version::LATEST).members(Members(3)).mutual_tls(&ca, &server).auth().start();
    let place = Place::new();
    let stored = Stored::new(&place);
    let client = client_cert(&ca);
    for folder in ["backup", "etc/etcd"] {
        fs::create_dir_all(place.path(folder)).unwrap();
    }
    fs::write(place.path("etc/etcd/etcd.conf"), "name: m0").unwrap();
    fs::write(place.path("password"), ROOT_PASSWORD).unwrap();
    fs::write(place.path("webhook"), "http://127.0.0.1:1").unwrap();
    let shown = |path: &Path| path.display().to_string();
    let sample = Sample::new(
        "three-machines.yaml",
        &[
            (
                "https://10.0.0.1:2379, https://10.0.0.2:2379, https://10.0.0.3:2379",
                &cluster.client_urls().join(", "),
            ),
            ("/etc/etcd/pki/ca.crt", &shown(&ca.path())),
            ("/etc/etcd/pki/backup.crt", &shown(&client.cert)),
            ("/etc/etcd/pki/backup.key", &shown(&client.key)),
            ("user: root", &format!("user: {ROOT_USER}")),
            ("/etc/rekindle/etcd-password", &place.path("password")),
            ("https://minio.example:9000", &stored.bucket.endpoint_url),
            ("/etc/rekindle/minio-ca.crt", &shown(&stored.ca.path())),
            ("AWS_ACCESS_KEY_ID: backup", &format!("AWS_ACCESS_KEY_ID: {}", stored.secret)),
            ("/etc/rekindle/s3-secret", &place.path("s3-secret")),
            (
                "{paths: [/etc/etcd]}",
                &format!("{{schedule: '@every 1s', paths: [{}]}}", place.path("etc/etcd")),
            ),
            ("'/backup/", &format!("'{}/", place.path("backup"))),
            ("schedule: '0 3 * * *'\n    jitter: 10m", "schedule: '@every 1s'"),
            ("/etc/rekindle/webhook", &place.path("webhook")),
        ],
    );
    let mut first = Guarding::start(&sample.on(&place, "one"));
    first.wait_for("writing into");
    for host in ["two", "three"] {
        let mut agent = Guarding::start(&sample.on(&place, host));
        agent.wait_for("standing by");
        agent.wait_for("snapshot-daily: done");
        agent.stop();
    }
    first.wait_for("files-main: done");
    first.stop();
}

#[test]
fn kubeadm() {
    let ca = Ca::new("etcd-ca");
    let server = ca.issue("server", &Leaf::server());
    let cluster = Cluster::with(Version::LATEST).mutual_tls(&ca, &server).start();
    let place = Place::new();
    let stored = Stored::new(&place);
    let pki = ca.path().parent().unwrap().display().to_string();
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: etcd, namespace: kube-system}}
spec:
  containers:
  - name: etcd
    command:
    - etcd
    - --listen-client-urls={}
    - --trusted-ca-file=/pki/ca.crt
    - --cert-file=/pki/server.crt
    - --key-file=/pki/server.key
    volumeMounts: [{{mountPath: /pki, name: pki}}]
  volumes: [{{name: pki, hostPath: {{path: {pki}}}}}]
",
        cluster.member(0).client_url()
    );
    fs::create_dir_all(place.path("backups")).unwrap();
    fs::write(place.path("etcd.yaml"), manifest).unwrap();
    let sample = Sample::new(
        "kubeadm.yaml",
        &[
            ("/etc/kubernetes/manifests/etcd.yaml", &place.path("etcd.yaml")),
            ("https://minio.example:9000", &stored.bucket.endpoint_url),
            ("/etc/rekindle/minio-ca.crt", &stored.ca.path().display().to_string()),
            ("AWS_ACCESS_KEY_ID: backup", &format!("AWS_ACCESS_KEY_ID: {}", stored.secret)),
            ("/etc/rekindle/s3-secret", &place.path("s3-secret")),
            ("hostFiles: {}", &format!("hostFiles: {{schedule: '@every 1s', paths: [{pki}]}}")),
            ("'@every 10m'", "'@every 1s'"),
            ("/var/backups/etcd", &place.path("backups")),
        ],
    );
    let mut agent = Guarding::start(&sample.on(&place, "host"));
    agent.wait_for("writing into");
    agent.wait_for("files-main: done");
    agent.wait_for("snapshot-local: done");
    agent.stop();
}
