//! How long it takes to look at a cluster, to replace a member and to bring all back: real etcds on this machine, 1 GB in
//! them. `cargo xtask recovery-times` builds and runs it, and prints the table of docs/recovery.md.

use bytes::Bytes;
use rekindle_client::{Client, Config, Op, Put, Txn};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Host, Hosts, Members};
use rustix::process::Signal;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of a value, values in a transaction, and transactions: a gigabyte.
const VALUE: usize = 64 << 10;
const OPS: usize = 16;
const TXNS: usize = 1000;
/// Runs of what is short.
const RUNS: usize = 5;

fn main() {
    let program = std::env::args().nth(1).expect("recovery_times REKINDLE");
    println!("| what | took | beside it | ratio |\n|---|---|---|---|");
    check(&program);
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("archive").display().to_string();
    let hosts = Hosts::start(Version::LATEST, Members(3), true);
    fill(&hosts);
    run(&program, &["archive", "init", &archive, "--unencrypted"]);
    run(&program, &["save", &archive, "--endpoints", &hosts.endpoints()]);
    replace(&program, &hosts);
    recover(&program, &hosts, &archive);
}

fn row(what: &str, took: Duration, beside: Option<(&str, Duration)>) {
    let (beside, ratio) = match beside {
        Some((name, other)) => {
            let ratio = took.as_secs_f64() / other.as_secs_f64();
            (format!("{name}: {:.2} s", other.as_secs_f64()), format!("{ratio:.2}"))
        }
        None => (String::new(), String::new()),
    };
    println!("| {what} | {:.2} s | {beside} | {ratio} |", took.as_secs_f64());
}

fn run(program: &str, words: &[&str]) -> Duration {
    let began = Instant::now();
    let mut command = Command::new(program);
    let output = command.args(words).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || words[0] == "check", "{words:?}: {said}");
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn check(program: &str) {
    let hosts = Hosts::start(Version::LATEST, Members(5), false);
    let endpoints = hosts.endpoints();
    let look = || run(program, &["check", "--endpoints", &endpoints]);
    row("check of 5 members", median((0..RUNS).map(|_| look()).collect()), None);
    hosts.iter().for_each(|host| host.signal(Signal::STOP));
    row("check of 5 members that all hang", median((0..RUNS).map(|_| look()).collect()), None);
    hosts.iter().for_each(|host| host.signal(Signal::CONT));
}

fn fill(hosts: &Hosts) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rekindle_testkit::install_crypto_provider();
    runtime.block_on(async {
        let client = Client::new(Config::new([hosts.endpoints()])).unwrap();
        let mut state = 1_u64;
        for number in 0..TXNS {
            let put = |at: usize| {
                let mut value = Vec::with_capacity(VALUE);
                while value.len() < VALUE {
                    // Nothing that a compressor could make use of.
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    value.extend_from_slice(&state.to_le_bytes());
                }
                Op::Put(Put::new(format!("/{number:06}/{at:02}"), Bytes::from(value)))
            };
            let txn = (0..OPS).map(put).fold(Txn::default(), Txn::then);
            client.txn(txn).await.unwrap();
        }
    });
}

fn member(hosts: &Hosts, host: &Host) -> Vec<String> {
    let data_dir = host.data_dir.display();
    vec![
        format!("--endpoints={}", hosts.endpoints()),
        format!("--name={}", host.name),
        format!("--data-dir={data_dir}"),
        format!("--initial-advertise-peer-urls={}", host.peer_url),
        format!("--start-command={}", host.start),
        format!("--stop-command={}", host.stop),
    ]
}

/// Ours, and what etcd's own tools take for the same, in turn.
fn replace(program: &str, hosts: &Hosts) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        hosts.host(1).lose();
        let own = member(hosts, hosts.host(1));
        let words: Vec<_> =
            ["replace", "--yes"].into_iter().chain(own.iter().map(String::as_str)).collect();
        ours.push(run(program, &words));
        hosts.wait_until_they_serve();
        theirs.push(by_hand(hosts, hosts.host(1)));
        hosts.wait_until_they_serve();
    }
    row(
        "replace a member, 1 GB",
        median(ours),
        Some(("etcdctl member remove, add, promote by hand", median(theirs))),
    );
}

fn by_hand(hosts: &Hosts, host: &Host) -> Duration {
    let list = hosts.etcdctl_json(&["member", "list"]);
    let own = |it: &&serde_json::Value| it["name"] == host.name;
    let id = list["members"].as_array().unwrap().iter().find(own).unwrap()["ID"].as_u64().unwrap();
    host.lose();
    let began = Instant::now();
    let until = |words: &[&str]| while hosts.try_etcdctl(words).is_err() {};
    until(&["member", "remove", &format!("{id:x}")]);
    until(&["member", "add", &host.name, "--learner", &format!("--peer-urls={}", host.peer_url)]);
    let initial: Vec<_> = hosts.iter().map(Host::initial).collect();
    host.begin_as(&initial.join(","), "existing");
    let list = hosts.etcdctl_json(&["member", "list"]);
    let learns = |it: &&serde_json::Value| it["isLearner"] == serde_json::Value::Bool(true);
    let id =
        list["members"].as_array().unwrap().iter().find(learns).unwrap()["ID"].as_u64().unwrap();
    until(&["member", "promote", &format!("{id:x}")]);
    began.elapsed()
}

fn recover(program: &str, hosts: &Hosts, archive: &str) {
    let directory = tempfile::tempdir().unwrap();
    for host in hosts.iter() {
        let own = serde_json::json!({
            "name": host.name, "peerUrls": [host.peer_url], "dataDir": host.data_dir,
            "start": host.start, "stop": host.stop,
        });
        let text = format!(
            "clusters:\n- name: prod\n  endpoints: [{}]\n  member: {own}\n  archives: [{{place: {archive}}}]\n",
            hosts.endpoints()
        );
        std::fs::write(directory.path().join(format!("{}.yaml", host.name)), text).unwrap();
    }
    // In the place of ssh: the target is the name of a configuration.
    let remote = format!("{program} --config {}/$HOST.yaml", directory.path().display());
    let ssh = directory.path().join("ssh");
    std::fs::write(&ssh, "export HOST=$1\nexec /bin/sh -c \"$2\"\n").unwrap();
    let words = [
        "recover".to_owned(),
        "--yes".to_owned(),
        format!("--endpoints={}", hosts.endpoints()),
        format!("--ssh=/bin/sh {}", ssh.display()),
        format!("--remote-command={remote}"),
        "--host=m0".to_owned(),
        "--host=m1".to_owned(),
        "--host=m2".to_owned(),
        archive.to_owned(),
    ];
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let times = (0..3).map(|_| {
        hosts.iter().for_each(Host::lose);
        run(program, &words)
    });
    row("all three lost, 1 GB: from confirmation to healthy", median(times.collect()), None);
    let target = directory.path().join("restored").display().to_string();
    let times = (0..3).map(|number| {
        run(program, &["restore", archive, "--yes", "--data-dir", &format!("{target}{number}")])
    });
    row("of which restoring one of them, alone on this machine", median(times.collect()), None);
}
