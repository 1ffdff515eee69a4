//! Several endpoints, some of which are of no use.

use std::time::Duration;

use rekindle_client::{
    Client, Config, Error, EtcdFault, Keys, Put, Range, Retry, Role, WatchRequest,
};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members, Sites};

fn a_client(cluster: &Cluster) -> Client {
    Client::new(Config::new(cluster.client_urls())).expect("valid endpoints")
}

/// A client that gives up soon on a member that hangs.
fn an_impatient_client(cluster: &Cluster) -> Client {
    let mut config = Config::new(cluster.client_urls());
    config.timeouts.command = Duration::from_secs(2);
    Client::new(config).expect("valid endpoints")
}

#[tokio::test]
async fn reads_and_writes_go_on_without_a_member() {
    let cluster = Cluster::start(Version::V3_5, Members(3));
    cluster.member(0).kill();
    let client = a_client(&cluster);
    // The two that are left may be electing still: the read waits until they are done.
    client.linearizable_revision().await.expect("two of three answer");
    client.put(Put::new("a", "1")).await.expect("put");
    let revision = client.linearizable_revision().await.expect("two of three answer");
    let mut watch = client.watch(WatchRequest::from_revision(revision)).await.expect("watch");
    assert!(watch.next(Duration::from_secs(5)).await.expect("it goes on").is_some());
}

#[tokio::test]
async fn a_read_goes_on_when_a_member_hangs_and_a_write_does_not() {
    let cluster = Cluster::start(Version::V3_6, Members(3));
    let client = an_impatient_client(&cluster);
    client.put(Put::new("a", "1")).await.expect("put");
    // The client now prefers the first, to which it is connected.
    cluster.member(0).freeze();
    let error = client.put(Put::new("a", "2")).await.expect_err("nobody knows whether it was done");
    assert!(matches!(error, Error::Deadline { call: "Put", .. }), "{error}");
    let found = client.range(Range::new(Keys::one("a"))).await.expect("the others answer");
    assert_eq!(found.count, 1);
    client.put(Put::new("a", "3")).await.expect("what answered last is preferred");
    cluster.member(0).thaw();
}

#[tokio::test]
async fn without_a_quorum_each_member_says_why() {
    let cluster = Cluster::start(Version::V3_6, Members(3));
    let client = an_impatient_client(&cluster);
    client.put(Put::new("a", "1")).await.expect("put");
    cluster.member(1).kill();
    cluster.member(2).kill();
    let error = client.linearizable_revision().await.expect_err("there is no quorum");
    assert_eq!(error.retry(), Retry::Later, "{error}");
    let Error::AllFailed { failures } = error else { panic!("{error}") };
    assert_eq!(failures.len(), 3);
    let unreachable =
        failures.iter().filter(|failure| matches!(failure, Error::Unreachable { .. })).count();
    assert_eq!(unreachable, 2, "{failures:?}");

    // What needs no quorum still works.
    let alive = &client.members()[0];
    let found = alive.range(Range::new(Keys::one("a")).serializable()).await.expect("range");
    assert_eq!(found.count, 1);
    assert_eq!(alive.known_members().await.expect("list").members.len(), 3);
    alive.status().await.expect("status");
}

#[tokio::test]
async fn a_learner_sends_writes_elsewhere() {
    let setup = Cluster::with(Version::V3_6).flag("--strict-reconfig-check=false");
    let cluster = setup.start();
    let sites = Sites::new(Members(1));
    let place = sites.iter().next().expect("one site");
    let peer_urls = vec![place.peer_url()];
    let added = a_client(&cluster).member_add(peer_urls, Role::Learner).await.expect("add");
    assert!(added.is_some());
    let initial = format!("{}={},learner={}", "m0", cluster.member(0).peer_url(), place.peer_url());
    let learner = Cluster::with(Version::V3_6)
        .flag("--name=learner")
        .flag("--initial-cluster-state=existing")
        .flag(format!("--initial-cluster={initial}"))
        .on(sites)
        .start();

    let urls = [learner.member(0).client_url(), cluster.member(0).client_url()];
    let both = Client::new(Config::new(urls)).expect("valid endpoints");
    let status = both.members()[0].status().await.expect("a learner has a status");
    assert!(status.is_learner);
    both.put(Put::new("a", "1")).await.expect("the voter takes it");
    let refused = Client::new(Config::new([urls[0]])).expect("valid").put(Put::new("a", "2")).await;
    let error = refused.expect_err("a learner takes no write");
    assert_eq!(error.etcd_fault(), Some(EtcdFault::LearnerCannot), "{error}");
}
