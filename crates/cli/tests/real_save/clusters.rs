//! Snapshots of every version, and which member they come from.

use crate::command::{Target, done, endpoints, failed};
use rekindle_client::{Alarm, AlarmKind, Client, Config, Member};
use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::etcd::{Cluster, Members, ROOT_PASSWORD, ROOT_USER, etcdutl};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn write_some_keys(cluster: &Cluster) {
    for key in ["a", "b", "c", "a"] {
        cluster.etcdctl(["put", key, "value"]);
    }
    cluster.etcdctl(["del", "c"]);
}

/// Keys of before and after a compaction: both kinds are counted.
fn compact_and_write_more(cluster: &Cluster) {
    cluster.etcdctl(["compact", "6", "--physical"]);
    cluster.etcdctl(["del", "b"]);
    for key in ["b", "c", "a", "d"] {
        cluster.etcdctl(["put", key, "anew"]);
    }
    cluster.etcdctl(["del", "d"]);
}

/// What etcd's own tool says of a snapshot.
fn etcds_status(path: &Path) -> Value {
    let path = path.display().to_string();
    serde_json::from_str(&etcdutl(Version::LATEST, ["snapshot", "status", "-w", "json", &path]))
        .unwrap()
}

#[test]
fn etcds_own_tools_read_what_is_saved_from_every_version() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        write_some_keys(&cluster);
        compact_and_write_more(&cluster);
        let target = Target::new();
        let (stdout, _) = done(target.save(&endpoints(&cluster)).arg("-w=json"));
        assert_eq!(target.names(), ["snap.db"]);
        let mode = fs::metadata(target.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds all the cluster's secrets");

        let printed: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((&printed["revision"], &printed["totalKey"]), (&12.into(), &3.into()));
        let tool = format!("etcd-{}", printed["etcdVersion"].as_str().unwrap());
        assert!(tool.starts_with(&version.to_string()), "{tool}");
        let status = etcds_status(&target.file());
        for field in ["hash", "revision", "totalKey", "totalSize"] {
            assert_eq!(printed[field], status[field], "{version}: {field}");
        }
        // Its restore compares the SHA-256.
        let restored = target.dir().join("restored").display().to_string();
        let file = target.file().display().to_string();
        etcdutl(Version::LATEST, ["snapshot", "restore", &file, "--data-dir", &restored]);
    }
}

#[test]
fn with_client_certificates_and_a_password() {
    let ca = Ca::new("etcd-ca");
    let server = ca.issue("server", &Leaf::server());
    let client = ca.issue("client", &Leaf::client("backup"));
    for version in Version::ALL {
        let cluster = Cluster::with(version).mutual_tls(&ca, &server).auth().start();
        let target = Target::new();
        let (stdout, stderr) = done(
            target
                .save(&endpoints(&cluster))
                .env("ETCDCTL_CACERT", ca.path())
                .env("ETCDCTL_CERT", &client.cert)
                .env("ETCDCTL_KEY", &client.key)
                .env("ETCDCTL_USER", format!("{ROOT_USER}:{ROOT_PASSWORD}")),
        );
        assert!(stdout.contains("sound: no damage in pages and records"), "{stdout}");
        assert!(!format!("{stdout}{stderr}").contains(ROOT_PASSWORD));
        assert_eq!(target.names(), ["snap.db"]);
    }
}

#[test]
fn a_follower_is_asked_before_the_leader_and_a_dead_member_never() {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    write_some_keys(&cluster);
    let target = Target::new();
    let save = || {
        let (stdout, _) = done(target.save(&endpoints(&cluster)).arg("-w=json"));
        serde_json::from_str::<Value>(&stdout).unwrap()
    };
    let first = save();
    assert_eq!((&first["role"], &first["revision"]), (&"follower".into(), &6.into()));

    // The one that served is gone now: the other follower does, or the leader that is elected.
    let served = |url: &str| first["endpoint"].as_str() == Some(url);
    let gone = cluster.members().iter().find(|member| served(member.client_url())).unwrap();
    gone.kill();
    let second = save();
    assert_ne!(second["endpoint"], first["endpoint"]);
    assert_eq!(second["revision"], 6);

    // One endpoint and --cluster reach all members that are there.
    let alive = cluster.members().iter().find(|member| !served(member.client_url())).unwrap();
    let (stdout, _) = done(target.save(alive.client_url()).args(["--cluster", "-w=json"]));
    let third: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(third["role"], "follower");
}

#[test]
fn a_bit_turned_in_a_value_is_found_by_the_digest_and_no_more_is_claimed() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    cluster.etcdctl(["put", "a", "a-value-that-is-easily-found"]);
    let target = Target::new();
    done(&mut target.save(&endpoints(&cluster)));
    let mut bytes = fs::read(target.file()).unwrap();
    let value = b"easily-found";
    let at = bytes.windows(value.len()).rposition(|window| window == value).unwrap();
    bytes[at] ^= 1;
    fs::write(target.file(), bytes).unwrap();
    let status = |flags: &[&str]| {
        let mut command = crate::command::rekindle();
        command.arg("status").arg(target.file()).args(flags);
        command
    };
    let (told, _) = done(&mut status(&[]));
    assert!(told.contains("only --verify-hash proves the bytes of values"), "{told}");
    let (told, _) = done(&mut status(&["-w=json"]));
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["sound"], &told["sha256Compared"]), (&true.into(), &false.into()));
    let output = status(&["-w=json", "--verify-hash"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["sound"], &told["sha256Compared"]), (&false.into(), &true.into()));
}

/// Runs a call of our client.
fn call<T>(
    cluster: &Cluster,
    work: impl AsyncFnOnce(Client) -> Result<T, rekindle_client::Error>,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::new(Config::new(cluster.client_urls())).unwrap();
    runtime.block_on(work(client)).unwrap()
}

#[test]
fn a_corrupt_follower_is_never_asked() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(3));
        write_some_keys(&cluster);
        let target = Target::new();
        let save = || {
            let (stdout, stderr) = done(target.save(&endpoints(&cluster)).arg("-w=json"));
            (serde_json::from_str::<Value>(&stdout).unwrap(), stderr)
        };
        let (first, _) = save();
        assert_eq!(first["role"], "follower");
        // Whoever would be asked first from now on.
        let member_id = call(&cluster, async |client| {
            let endpoint = first["endpoint"].as_str();
            let is_first = |member: &&Member| Some(&*member.endpoint().to_string()) == endpoint;
            let member_id =
                client.members().iter().find(is_first).unwrap().status().await?.header.member_id;
            client.raise(Alarm { member_id, kind: AlarmKind::Corrupt }).await?;
            Ok(member_id)
        });
        let (second, stderr) = save();
        let warning = format!("warning: member {member_id:x} has raised the alarm CORRUPT\n");
        assert!(stderr.contains(&warning), "{version}: {stderr}");
        assert_ne!(second["endpoint"], first["endpoint"], "{version}");
    }
}

#[test]
fn nothing_is_written_to_the_cluster() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        write_some_keys(&cluster);
        let target = Target::new();
        let index = || call(&cluster, async |client| client.members()[0].status().await).raft_index;
        // A new cluster writes of itself now and then; a save that writes does so every time.
        let stays = (0..5).any(|_| {
            let before = index();
            done(&mut target.save(&endpoints(&cluster)));
            before == index()
        });
        assert!(stays, "{version}");
    }
}

#[test]
fn without_a_quorum_only_when_told_so() {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    write_some_keys(&cluster);
    cluster.member(1).kill();
    cluster.member(2).kill();
    let target = Target::new();
    let url = cluster.member(0).client_url();
    let stderr = failed(5, target.save(url).arg("--command-timeout=1s"));
    assert!(stderr.contains("look whether the cluster has a leader"), "{stderr}");
    assert!(stderr.contains("rekindle save --without-quorum"), "{stderr}");
    assert!(target.names().is_empty());
    let command = &mut target.save(url);
    let (stdout, stderr) = done(command.args(["--command-timeout=1s", "--without-quorum"]));
    assert!(stderr.contains("warning: no linearizable read"), "{stderr}");
    assert!(stdout.contains("revision"), "{stdout}");
}

#[test]
fn the_name_gets_a_date_and_missing_directories_are_made() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let target = Target::new();
    let daily = target.dir().join("etcd/daily");
    let save = || {
        let mut command = crate::command::rekindle();
        command.arg("save").arg(daily.join("etcd-%Y.db"));
        done(command.arg(format!("--endpoints={}", endpoints(&cluster)))).1
    };
    let told = save();
    let made: Vec<_> =
        told.lines().filter_map(|line| line.strip_prefix("made directory ")).collect();
    let etcd = target.dir().join("etcd");
    assert_eq!(made, [etcd.to_str().unwrap(), daily.to_str().unwrap()], "{told}");
    assert!(!save().contains("made directory"));
    let found: Vec<_> = fs::read_dir(&daily).unwrap().collect();
    let name = found[0].as_ref().unwrap().file_name().into_string().unwrap();
    assert!(name.starts_with("etcd-20") && found.len() == 1, "{name}");
}

/// What kubeadm writes, for an etcd of ours.
fn manifest(directory: &Path, cluster: &Cluster, ca: &Ca, files: [&Path; 2]) -> String {
    let [cert, key] = files;
    let url = cluster.member(0).client_url();
    let pki = directory.display();
    let yaml = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: etcd, namespace: kube-system}}
spec:
  containers:
  - name: etcd
    command:
    - etcd
    - --listen-client-urls={url}
    - --trusted-ca-file=/pki/{}
    - --cert-file=/pki/{}
    - --key-file=/pki/{}
    volumeMounts: [{{mountPath: /pki, name: pki}}]
  volumes: [{{name: pki, hostPath: {{path: {pki}}}}}]
",
        ca.path().file_name().unwrap().display(),
        cert.file_name().unwrap().display(),
        key.file_name().unwrap().display(),
    );
    let path = directory.join("etcd.yaml");
    fs::write(&path, yaml).unwrap();
    path.display().to_string()
}

#[test]
fn a_manifest_is_all_that_is_needed() {
    let ca = Ca::new("etcd-ca");
    let server = ca.issue("server", &Leaf::server());
    let cluster = Cluster::with(Version::LATEST).mutual_tls(&ca, &server).start();
    let pki = ca.path().parent().unwrap().to_owned();
    let manifest = manifest(&pki, &cluster, &ca, [&server.cert, &server.key]);
    let target = Target::new();
    let mut command = crate::command::rekindle();
    command.arg("save").arg(target.file()).arg(format!("--from-manifest={manifest}"));
    done(&mut command);
    assert_eq!(target.names(), ["snap.db"]);
}
