//! `rekindle check` of real clusters to which things happen.

use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::etcd::{Cluster, Members};
use serde_json::Value;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Far more than anything takes here, for a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(90);

fn rekindle(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.env_clear().args(args).stdin(Stdio::null()).output().unwrap()
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn check(endpoints: &str, more: &[&str]) -> (i32, Value) {
    let words = [&["check", "-w=json", "--endpoints", endpoints], more].concat();
    let output = rekindle(&words);
    let json = serde_json::from_slice(&output.stdout);
    (output.status.code().unwrap(), json.unwrap_or_else(|_| panic!("{}", told(&output))))
}

fn names(checked: &Value) -> Vec<&str> {
    let findings = checked["findings"].as_array().unwrap().iter();
    findings.map(|finding| finding["name"].as_str().unwrap()).collect()
}

/// Looks until the exit code is this one.
fn until(endpoints: &str, code: i32) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let (is, checked) = check(endpoints, &[]);
        if is == code {
            return checked;
        }
        assert!(Instant::now() < deadline, "{is}: {checked:#}");
    }
}

/// One member is asked, and knows the others; then they go, one after the other.
#[test]
fn members_that_go_and_come() {
    for version in [Version::V3_4, Version::LATEST] {
        let cluster = Cluster::start(version, Members(3));
        let first = cluster.member(0).client_url();
        let checked = until(first, 0);
        assert_eq!(names(&checked), Vec::<&str>::new(), "{checked:#}");
        assert_eq!(
            (&checked["serving"], &checked["quorum"]),
            (&3.into(), &2.into()),
            "{checked:#}"
        );
        assert_eq!(checked["members"].as_array().unwrap().len(), 3, "{checked:#}");
        let (code, deep) = check(first, &["--deep"]);
        let hashes: Vec<_> =
            deep["members"].as_array().unwrap().iter().map(|it| it["hash"].as_u64()).collect();
        assert!(
            code == 0 && hashes[0].is_some() && hashes.iter().all(|it| *it == hashes[0]),
            "{deep:#}"
        );

        cluster.member(2).kill();
        let checked = until(first, 10);
        assert!(names(&checked).contains(&"Down"), "{checked:#}");
        let down = checked["members"].as_array().unwrap().iter().find(|it| it["serves"] == false);
        assert_eq!(down.unwrap()["name"], cluster.member(2).name(), "{checked:#}");
        // Without a quorum nobody agrees on who the members are: what one of them knows is good enough.
        cluster.member(1).kill();
        let checked = until(first, 11);
        assert!(names(&checked).contains(&"NoQuorum"), "{checked:#}");
        assert_eq!(checked["members"].as_array().unwrap().len(), 3, "{checked:#}");
        std::thread::scope(|scope| {
            let cluster = &cluster;
            [1, 2].into_iter().for_each(|number| {
                scope.spawn(move || cluster.member(number).start());
            });
        });
        until(first, 0);
    }
}

/// All that hang together are waited for, and not one after the other.
#[test]
fn members_that_hang_are_waited_for_together() {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    let endpoints = cluster.client_urls().join(",");
    cluster.members().iter().for_each(rekindle_testkit::etcd::Member::freeze);
    let words = ["check", "--endpoints", &endpoints, "--timeout=2s"];
    let began = Instant::now();
    let output = rekindle(&words);
    let took = began.elapsed();
    cluster.members().iter().for_each(rekindle_testkit::etcd::Member::thaw);
    assert_eq!(output.status.code(), Some(11), "{}", told(&output));
    assert!(told(&output).contains("nobody says who is in the cluster"), "{}", told(&output));
    // One after the other, three would take six seconds and more.
    assert!(took < Duration::from_secs(6), "{took:?}");
}

/// A learner votes for nothing; one that is listed and was never started is told of.
#[test]
fn learners_and_members_that_never_came() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let first = cluster.member(0).client_url();
    cluster.etcdctl(["member", "add", "new", "--learner", "--peer-urls=http://127.0.0.1:1"]);
    let (code, checked) = check(first, &[]);
    assert_eq!((code, names(&checked)), (10, vec!["NotStarted"]), "{checked:#}");
    assert_eq!((&checked["voters"], &checked["quorum"]), (&1.into(), &1.into()), "{checked:#}");
}

/// What a timer runs believes a failure once it has seen it so often in a row, and its end likewise.
#[test]
fn a_state_file_counts_what_goes_on() {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    let first = cluster.member(0).client_url();
    until(first, 0);
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state.json").display().to_string();
    let look = || check(first, &["--state", &state, "--fails-after=2", "--well-after=2"]).0;
    assert_eq!(look(), 0);
    cluster.member(2).kill();
    until(first, 10);
    assert_eq!([look(), look()], [0, 10]);
    cluster.member(2).start();
    until(first, 0);
    assert_eq!([look(), look()], [10, 0]);
    std::fs::write(&state, "{").unwrap();
    assert_eq!(look(), 0, "what is damaged begins anew");
}

/// With TLS and users: the certificate's end is seen, and who may read nothing sees the health all the same.
#[test]
fn certificates_and_users() {
    let ca = Ca::new("etcd-ca");
    let server = ca.issue("server", &Leaf::server());
    let client = ca.issue("client", &Leaf::client("nobody"));
    let cluster = Cluster::with(Version::LATEST).mutual_tls(&ca, &server).auth().start();
    let path = |path: &std::path::Path| path.display().to_string();
    let (ca, cert, key) = (path(&ca.path()), path(&client.cert), path(&client.key));
    let keys = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    let (code, checked) = check(cluster.member(0).client_url(), &keys);
    assert!(checked["members"][0]["certificateExpires"].is_string(), "{checked:#}");
    assert!(checked["members"][0]["clockAheadSeconds"].is_number(), "{checked:#}");
    assert_eq!(checked["members"][0]["serves"], true, "{checked:#}");
    assert!(code == 0 || names(&checked) == ["Certificate"], "{checked:#}");
}

/// The database is full: nothing is written, and that is told first.
#[test]
fn a_full_database() {
    let quota = "--quota-backend-bytes=2097152";
    let cluster = Cluster::with(Version::LATEST).flag(quota).start();
    let first = cluster.member(0).client_url();
    let value = "v".repeat(100_000);
    for number in 0..60 {
        let mut put = cluster.etcdctl_command();
        let full =
            !put.args(["put", &format!("k{number}"), &value]).output().unwrap().status.success();
        if full {
            break;
        }
    }
    let (code, checked) = check(first, &[]);
    assert_eq!(code, 10, "{checked:#}");
    assert!(
        names(&checked).contains(&"NoSpace") && names(&checked).contains(&"Quota"),
        "{checked:#}"
    );
}
