//! What is printed for paper brings the cluster back when it is typed.

use crate::harness::{Place, done, rekindle, told};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members};
use std::fs;

/// Every command on the paper is carried out as it stands there, but for what is to be filled in and the answer yes.
#[test]
fn what_is_on_paper_brings_the_cluster_back() {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    let place = Place::new();
    let (one, other) = (place.path("one.txt"), place.path("other.txt"));
    let sealed = place.path("sealed");
    done(["archive", "init", &sealed, "--generate-keys", &one, "--generate-keys", &other]);
    let fields = "  archives:
  - {place: HERE/archive}
  - {name: far, place: HERE/sealed, identities: [HERE/one.txt], hostFiles: {}}
  snapshots:
  - {name: daily, schedule: '@daily', to: [HERE/etcd-%Y.db]}
";
    let config = place.configure("agent", &cluster, "", fields);
    let config = config.to_str().unwrap();
    cluster.etcdctl(["put", "a", "before"]);
    done(["save", &sealed, "--config", config]);
    cluster.etcdctl(["put", "a", "after"]);
    let paper = done(["runbook", "--config", config]);
    let id = cluster.etcdctl_json(["member", "list"])["header"]["cluster_id"].as_u64().unwrap();
    for want in [
        &*format!("Cluster id {id:x}"),
        "fingerprint of its keys",
        "/one.txt`\n",
        "systemctl stop rekindle",
        "/sealed --host=NAME --to=/ --identity=",
        "rekindle archive list ",
        "Where etcd has its data",
        "etcd-%Y.db",
    ] {
        assert!(paper.contains(want), "{want}: {paper}");
    }
    assert!(!paper.contains("incomplete"), "{paper}");
    assert_eq!(paper.matches("owner age1").count(), 2, "{paper}");
    let secret = fs::read_to_string(&one).unwrap();
    let secret = secret.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap();
    assert!(!paper.contains(secret), "{paper}");

    (0..3).for_each(|number| cluster.member(number).kill());
    let lines = paper.lines().map(str::trim).filter(|line| line.starts_with("rekindle restore "));
    let (plain, commands): (Vec<_>, Vec<_>) =
        lines.partition(|line| line.contains("/archive@POINT "));
    assert_eq!((plain.len(), commands.len()), (3, 3), "{paper}");
    assert!(plain.iter().all(|command| !command.contains("--identity")), "{paper}");
    for number in 0..3 {
        let member = cluster.member(number);
        let own = format!("--name={} ", member.name());
        let command = commands.iter().find(|command| command.contains(&own)).unwrap();
        let data_dir = format!("--data-dir={}", member.data_dir().display());
        let words = command.split_whitespace().skip(1);
        let words = words.map(|word| word.replace("--data-dir=DATA-DIR", &data_dir));
        let words = words.map(|word| word.replace("@POINT", "@latest"));
        // Nobody is at a terminal to be asked.
        let words = words.chain(["--yes".to_owned()]);
        let restored = rekindle(words.collect::<Vec<_>>()).output().unwrap();
        assert!(restored.status.success(), "{command}: {}", told(&restored));
    }
    // One is ready when the others are.
    let cluster = &cluster;
    std::thread::scope(|scope| {
        (0..3).for_each(|number| _ = scope.spawn(move || cluster.member(number).start()));
    });
    let got = cluster.etcdctl_json(["get", "a"]);
    // "before", as etcdctl writes bytes.
    assert_eq!(got["kvs"][0]["value"], "YmVmb3Jl", "{got}");
}

/// What cannot be reached is left to be filled in: paper is printed before the bad day, and on it.
#[test]
fn what_is_away_is_left_to_be_filled_in() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("agent.yaml");
    let yaml = "clusters:
- name: prod
  endpoints: ['127.0.0.1:1']
  archives:
  - place: s3://bucket/etcd
    store: {endpointUrl: 'http://127.0.0.1:1', region: here}
";
    fs::write(&config, yaml).unwrap();
    let output = rekindle(["runbook", "--config", config.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let paper = String::from_utf8(output.stdout).unwrap();
    for want in [
        "This paper is incomplete",
        "Cluster id ____",
        "fingerprint of its keys ____",
        "Encrypted (yes or no): ____",
        "rekindle restore s3://bucket/etcd@POINT --endpoint-url=http://127.0.0.1:1 --region=here --name=NAME",
        "--identity=IDENTITY-FILE",
    ] {
        assert!(paper.contains(want), "{want}: {paper}");
    }
}
