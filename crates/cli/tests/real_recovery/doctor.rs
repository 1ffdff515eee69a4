//! `rekindle doctor`: each trouble is created for real and named, and a healthy cluster has none.

use crate::harness::{done, rekindle, told};
use rekindle_archive::format::witness::Testimony;
use rekindle_archive::{Archive, MemberHash, Store};
use rekindle_etcd::MemberId;
use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, CertFiles, Leaf};
use rekindle_testkit::etcd::{Cluster, Host, Hosts, Members, Site};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

/// Names of what it finds, the exit code with them.
#[track_caller]
fn doctor(words: &[String]) -> (i32, Vec<String>) {
    let output = rekindle(["doctor", "-w=json", "--timeout=3s"]).args(words).output().unwrap();
    let found: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", told(&output)));
    let found = found["findings"].as_array().unwrap().iter();
    let names = found.map(|it| it["name"].as_str().unwrap().to_owned());
    // What others write here meanwhile is the machine's matter.
    let names = names.filter(|name| name != "SlowDisk").collect();
    (output.status.code().unwrap(), names)
}

fn words(endpoints: &str, name: &str, data_dir: &Path, peer_url: &str) -> Vec<String> {
    let data_dir = data_dir.display();
    vec![
        format!("--endpoints={endpoints}"),
        format!("--name={name}"),
        format!("--data-dir={data_dir}"),
        format!("--initial-advertise-peer-urls={peer_url}"),
    ]
}

#[track_caller]
fn finds(words: &[String], name: &str) {
    let (_, found) = doctor(words);
    assert!(found.iter().any(|it| it == name), "{name} is not in {found:?}");
}

/// Etcd has it in memory; on the disk lies something else.
fn lay(files: &CertFiles, other: &CertFiles) {
    fs::copy(&other.cert, &files.cert).unwrap();
}

#[test]
fn each_thing_that_is_wrong_with_certificates_is_named() {
    let (ca, other) = (Ca::new("etcd-ca"), Ca::new("other-ca"));
    let server = ca.issue("server", &Leaf::server());
    fs::set_permissions(&server.key, fs::Permissions::from_mode(0o600)).unwrap();
    let setup = Cluster::with(Version::LATEST).mutual_tls(&ca, &server);
    let cluster = setup.flag(format!("--trusted-ca-file={}", ca.path().display())).start();
    let member = cluster.member(0);
    let mut words = words(member.client_url(), member.name(), member.data_dir(), member.peer_url());
    let client = ca.issue("doctor", &Leaf::client("doctor"));
    words.push(format!("--cacert={}", ca.path().display()));
    words.push(format!("--cert={}", client.cert.display()));
    words.push(format!("--key={}", client.key.display()));
    assert_eq!(doctor(&words), (10, vec!["Certificate".to_owned()]), "it is good for a day only");
    for (name, ca, leaf) in [
        ("Expired", &ca, Leaf::server().expired()),
        ("NotYetValid", &ca, Leaf::server().not_yet_valid()),
        ("HostName", &ca, Leaf::server().named("elsewhere.example")),
        ("KeyUsage", &ca, Leaf::server().for_clients_alone()),
        ("Authority", &other, Leaf::server()),
    ] {
        lay(&server, &ca.issue(&name.to_lowercase(), &leaf));
        finds(&words, name);
    }
    fs::write(&server.cert, "nothing").unwrap();
    finds(&words, "NoCertificate");
    fs::set_permissions(&server.key, fs::Permissions::from_mode(0o644)).unwrap();
    finds(&words, "KeyReadable");
}

#[test]
fn each_thing_that_is_wrong_on_a_host_is_named() {
    let hosts = Hosts::start(Version::LATEST, Members(3), false);
    hosts.etcdctl(&["put", "/a", "1"]);
    let host = hosts.host(1);
    let own = words(&hosts.endpoints(), &host.name, &host.data_dir, &host.peer_url);
    assert_eq!(doctor(&own), (0, Vec::new()), "all is well");
    let mut other = own.clone();
    other[3] = "--initial-advertise-peer-urls=http://127.0.0.1:1".to_owned();
    finds(&other, "Flags");
    fs::set_permissions(&host.data_dir, fs::Permissions::from_mode(0o755)).unwrap();
    finds(&own, "DataReadable");
    fs::set_permissions(&host.data_dir, fs::Permissions::from_mode(0o700)).unwrap();
    host.end();
    finds(&own, "Down");
    // Some bytes of a page of the tree.
    let database = host.data_dir.join("member/snap/db");
    let good = fs::read(&database).unwrap();
    let file = fs::File::options().write(true).open(&database).unwrap();
    for page in 2..8 {
        file.write_all_at(&[0xff; 64], page * 4096).unwrap();
    }
    finds(&own, "Damaged");
    fs::write(&database, good).unwrap();
    let list = hosts.etcdctl_json(&["member", "list"]);
    let members = list["members"].as_array().unwrap().iter();
    let id = members
        .filter(|it| it["name"] == "m1")
        .map(|it| it["ID"].as_u64().unwrap())
        .next()
        .unwrap();
    hosts.etcdctl(&["member", "remove", &format!("{id:x}")]);
    finds(&own, "Removed");
    // One that is asked of another cluster.
    let foreign = Hosts::start(Version::LATEST, Members(1), false);
    let (single, data) = (foreign.host(0), &host.data_dir);
    finds(&words(&single.client_url, "m1", data, &host.peer_url), "OtherCluster");
    let unfinished = data.with_file_name("data.restore.json");
    fs::write(&unfinished, "{}").unwrap();
    finds(&own, "Unfinished");
    fs::remove_file(unfinished).unwrap();
    fs::rename(data, data.with_extension("aside")).unwrap();
    fs::write(
        data,
        "This file keeps etcd from starting: rekindle has fenced its data directory.\nFence: r1\n",
    )
    .unwrap();
    finds(&own, "Fenced");
}

#[test]
fn what_is_wrong_with_backups_is_named() {
    let hosts = Hosts::start(Version::LATEST, Members(1), false);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let config = path("agent.yaml");
    let text = format!(
        "state: {}\nclusters:\n- name: prod\n  endpoints: [{}]\n  archives: [{{place: {}}}]\n",
        path("state"),
        hosts.endpoints(),
        path("archive")
    );
    fs::write(&config, text).unwrap();
    let own = [format!("--config={config}")];
    finds(&own, "ArchiveAway");
    done(rekindle(["archive", "init", &path("archive"), "--unencrypted"]));
    finds(&own, "NoBackup");
    for number in 0..5 {
        hosts.etcdctl(&["put", "/a", &number.to_string()]);
    }
    done(rekindle(["save", &path("archive"), "--endpoints", &hosts.endpoints()]));
    let (code, found) = doctor(&own);
    assert_eq!((code, found), (0, vec!["Unproven".to_owned(), "OneDestination".to_owned()]));
    // Somebody has started it with nothing, and nobody has noticed.
    let host = hosts.host(0);
    host.lose();
    host.begin_new();
    hosts.wait_until_they_serve();
    finds(&own, "WentBack");
}

/// The manifest of a static pod, with the flags of a host's etcd.
fn manifest(host: &Host, image: &str) -> String {
    let flags = [
        format!("--name={}", host.name),
        format!("--data-dir={}", host.data_dir.display()),
        format!("--initial-advertise-peer-urls={}", host.peer_url),
        format!("--advertise-client-urls={}", host.client_url),
        format!("--listen-client-urls={}", host.client_url),
        "--quota-backend-bytes=8589934592".to_owned(),
    ];
    let flags: String = flags.iter().map(|flag| format!("    - {flag}\n")).collect();
    format!(
        "kind: Pod\nspec:\n  containers:\n  - name: etcd\n    image: {image}\n    command:\n    - etcd\n{flags}"
    )
}

#[test]
fn each_thing_that_is_wrong_with_a_static_pod_is_named() {
    let hosts = Hosts::start(Version::LATEST, Members(1), false);
    hosts.etcdctl(&["put", "/a", "1"]);
    let host = hosts.host(0);
    let directory = tempfile::tempdir().unwrap();
    let (manifests, held) =
        (directory.path().join("manifests"), directory.path().join("rekindle-held"));
    fs::create_dir(&manifests).unwrap();
    fs::create_dir(&held).unwrap();
    let path = manifests.join("etcd.yaml");
    fs::write(&path, manifest(host, "registry.k8s.io/etcd:3.7.3-0")).unwrap();
    let own = [format!("--from-manifest={}", path.display())];
    assert_eq!(doctor(&own), (0, Vec::new()), "all is well");
    let reader = held.join("kube-apiserver.yaml");
    fs::write(&reader, "kind: Pod\n").unwrap();
    finds(&own, "Held");
    fs::remove_file(reader).unwrap();
    host.end();
    // What started it was taken back to an older release.
    fs::write(&path, manifest(host, "registry.k8s.io/etcd:3.5.9-0")).unwrap();
    finds(&own, "NewerData");
    fs::write(&path, manifest(host, "registry.k8s.io/etcd:3.7.3-0")).unwrap();
    host.begin();
    hosts.wait_until_they_serve();
    fs::remove_dir_all(host.data_dir.join("member")).unwrap();
    finds(&own, "FilesGone");
}

#[test]
fn space_that_is_of_no_use_to_others_is_named() {
    let hosts = Hosts::start(Version::LATEST, Members(1), false);
    let own = [format!("--endpoints={}", hosts.endpoints())];
    let value = "v".repeat(120_000);
    for _ in 0..1000 {
        hosts.etcdctl(&["put", "/a", &value]);
    }
    let revision = hosts.etcdctl_json(&["get", "/a"])["header"]["revision"].to_string();
    hosts.etcdctl(&["compact", "--physical", &revision]);
    finds(&own, "Fragmented");
}

#[test]
fn members_that_have_said_different_hashes_are_named() {
    let hosts = Hosts::start(Version::LATEST, Members(1), false);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (archive, identity, config) = (path("archive"), path("identity"), path("agent.yaml"));
    done(rekindle(["archive", "init", &archive, "--generate-keys", &identity]));
    hosts.etcdctl(&["put", "/a", "1"]);
    done(rekindle(["save", &archive, "--endpoints", &hosts.endpoints()]));
    let text = format!(
        "state: {}\nclusters:\n- name: prod\n  endpoints: [{}]\n  archives: [{{place: {archive}, identities: [{identity}]}}]\n",
        path("state"),
        hosts.endpoints(),
    );
    fs::write(&config, text).unwrap();
    let own = [format!("--config={config}")];
    // The only one that opens it lies beside the etcd that it is of.
    finds(&own, "IdentitiesOnHost");
    let store = Store::directory(Path::new(&archive)).unwrap();
    let opened = Archive::open(store).unwrap();
    let facts = opened.list().unwrap().bases.remove(0).header.facts;
    for (member, hash) in [(1, 5), (2, 6)] {
        let said = MemberHash {
            cluster: facts.cluster,
            member: MemberId(member),
            term: facts.term,
            etcd: "3.7.3".to_owned(),
            revision: facts.last,
            compact: None,
            at: facts.state,
            said: Testimony { hash, took_ms: 1 },
        };
        opened.add_witness(facts.timeline, &said, facts.state).unwrap();
    }
    finds(&own, "WitnessesDiffer");
    // And what each has said last.
    let members = hosts.etcdctl_json(&["member", "list"]);
    let id = members["members"][0]["ID"].as_u64().unwrap();
    let check = |words: &[&str]| {
        let output = rekindle(["check", "-w=json"]).args(&own).args(words).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["members"][0]["witness"].clone()
    };
    assert_eq!(check(&["--witnesses"]), Value::Null);
    let said = |hash| MemberHash {
        cluster: facts.cluster,
        member: MemberId(id),
        term: facts.term,
        etcd: "3.7.3".to_owned(),
        revision: facts.last,
        compact: None,
        at: facts.state,
        said: Testimony { hash, took_ms: 1 },
    };
    opened.add_witness(facts.timeline, &said(5), facts.state).unwrap();
    let witness = check(&["--witnesses"]);
    assert_eq!((&witness["revision"], &witness["equal"]), (&2.into(), &false.into()), "{witness}");
}

/// Whoever adds a finding makes the trouble here, or says why that cannot be had.
#[test]
fn no_finding_is_forgotten() {
    // A slow disk is not to be had here, nor one whose backup is a day old without a clock of its own: units show these.
    const ELSEWHERE: [&str; 3] = ["SlowDisk", "Stale", "Owner"];
    let sources = [
        include_str!("../../../recovery/src/doctor/backups.rs"),
        include_str!("../../../recovery/src/doctor/certificates.rs"),
        include_str!("../../../recovery/src/doctor/place.rs"),
    ];
    let named = |line: &'static str| {
        let (name, rest) = line.split_once("(\"")?.1.split_once('"')?;
        rest.starts_with(", Severity").then_some(name)
    };
    let names: Vec<_> = sources.iter().flat_map(|text| text.lines()).filter_map(named).collect();
    assert!(names.len() > 20, "{names:?}");
    let own = include_str!("doctor.rs");
    let is_made = |name: &&str| own.contains(&format!("\"{name}\""));
    let missing: Vec<_> = names.iter().filter(|name| !is_made(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(ELSEWHERE.iter().all(|name| names.contains(name)));
}

/// A place where nothing runs: what is named is told, and nothing panics.
#[test]
fn where_nothing_is_nothing_is_broken() {
    let site = rekindle_testkit::etcd::Sites::new(Members(1));
    let site: &Site = site.iter().next().unwrap();
    let nowhere = words(&site.client_url(), "m0", site.data_dir(), &site.peer_url());
    let (code, found) = doctor(&nowhere);
    assert_eq!(code, 10);
    assert!(found.contains(&"NoQuorum".to_owned()), "{found:?}");
}
