//! Watches of real servers: whole revisions, in order, to the end.

use std::time::Duration;

use rekindle_client::{
    Client, Compaction, Config, Error, Event, EventType, Keys, Op, Put, Txn, Watch, WatchMessage,
    WatchRequest,
};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members};

const PATIENCE: Duration = Duration::from_secs(20);

fn a_client(cluster: &Cluster) -> Client {
    Client::new(Config::new(cluster.client_urls())).expect("valid endpoints")
}

/// A change as (revision, key, whether it is a put).
fn shape(event: &Event) -> (i64, String, bool) {
    let kv = event.kv.as_ref().expect("every event has a key");
    let key = String::from_utf8(kv.key.to_vec()).expect("the tests' keys are text");
    (kv.mod_revision, key, event.r#type() == EventType::Put)
}

/// Changes until the one of `last_revision`, and in how many messages they came. No message may
/// begin with a revision that another ended with.
async fn changes(watch: &mut Watch, last_revision: i64) -> (Vec<Event>, usize) {
    let (mut events, mut messages): (Vec<Event>, usize) = (Vec::new(), 0);
    loop {
        let message = watch.next(PATIENCE).await.expect("the watch goes on");
        let changes = match message.expect("something comes") {
            WatchMessage::Changes(changes) => changes,
            WatchMessage::Progress { .. } => continue,
        };
        let (first, before) = (&changes.events[0], events.last());
        assert!(before.is_none_or(|before| shape(before).0 < shape(first).0), "a split revision");
        let reached = changes.last_revision();
        events.extend(changes.events);
        messages += 1;
        if reached >= last_revision {
            return (events, messages);
        }
    }
}

#[tokio::test]
async fn changes_come_in_the_order_in_which_they_were_made() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        let client = a_client(&cluster);
        client.put(Put::new("m5", "old")).await.expect("put");
        let mut live = client.watch(WatchRequest::from_revision(2).prev_kv()).await.expect("watch");
        // Neither by key nor by kind: by the order in the transaction.
        let txn = Txn::new()
            .then(Op::Put(Put::new("zz", "1")))
            .then(Op::Delete(Keys::one("m5")))
            .then(Op::Put(Put::new("aa", "2")));
        client.txn(txn).await.expect("txn");
        let want = [
            (2, String::from("m5"), true),
            (3, String::from("zz"), true),
            (3, String::from("m5"), false),
            (3, String::from("aa"), true),
        ];
        let (events, _) = changes(&mut live, 3).await;
        assert_eq!(events.iter().map(shape).collect::<Vec<_>>(), want, "{version}");
        let before = events[2].prev_kv.as_ref().expect("it was asked for");
        assert_eq!(&before.value[..], b"old", "{version}");

        let mut late = client.watch(WatchRequest::from_revision(2)).await.expect("watch");
        let (events, _) = changes(&mut late, 3).await;
        assert_eq!(events.iter().map(shape).collect::<Vec<_>>(), want, "{version}");
        live.cancel().await.expect("the member confirms");
    }
}

/// Writes `revisions` transactions of `keys` keys, named so that their order is not the keys' own,
/// with values of `value_bytes` each. The first has revision 2.
async fn large_transactions(client: &Client, revisions: usize, keys: usize, value_bytes: usize) {
    for _ in 0..revisions {
        let puts = (0..keys).rev().map(|key| {
            Op::Put(Put::new(format!("k{key:03}"), vec![u8::try_from(key).unwrap(); value_bytes]))
        });
        client.txn(puts.fold(Txn::new(), Txn::then)).await.expect("txn");
    }
}

#[tokio::test]
async fn what_etcd_cuts_is_put_together() {
    const KEYS: usize = 40;
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        let client = a_client(&cluster);
        large_transactions(&client, 6, KEYS, 30 << 10).await;
        // From the past: the server takes all six at once, 7 MiB, and cuts them every 2 MiB or so,
        // amid a revision.
        let mut watch = client.watch(WatchRequest::from_revision(2)).await.expect("watch");
        let (events, messages) = changes(&mut watch, 7).await;
        let want: Vec<_> = (2..=7)
            .flat_map(|revision| (0..KEYS).rev().map(move |key| (revision, key)))
            .map(|(revision, key)| (revision, format!("k{key:03}"), true))
            .collect();
        assert_eq!(events.iter().map(shape).collect::<Vec<_>>(), want, "{version}");
        assert!(messages > 1, "{version}: it was never cut");
        for event in &events {
            let kv = event.kv.as_ref().expect("every event has a key");
            assert_eq!(kv.value.len(), 30 << 10, "{version}");
        }
    }
}

#[tokio::test]
async fn a_revision_that_is_cut_is_held_only_up_to_a_limit() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let client = a_client(&cluster);
    large_transactions(&client, 6, 40, 30 << 10).await;
    let request = WatchRequest::from_revision(2).revision_bytes_max(64 << 10);
    let mut watch = client.watch(request).await.expect("watch");
    let error = loop {
        match watch.next(PATIENCE).await {
            Ok(message) => assert!(message.is_some(), "it is cut amid a revision"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::RevisionTooLarge { limit: 65_536, .. }), "{error}");
}

#[tokio::test]
async fn compaction_ends_a_watch_that_is_behind_it() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        let client = a_client(&cluster);
        for _ in 0..4 {
            client.put(Put::new("a", "")).await.expect("put");
        }
        client.compact(4, Compaction::Scheduled).await.expect("compact");
        let mut watch = client.watch(WatchRequest::from_revision(3)).await.expect("watch");
        let error = watch.next(PATIENCE).await.expect_err("it is compacted");
        match error {
            Error::WatchCompacted { start: 3, compact_revision: 4, .. } => {}
            other => panic!("{version}: {other}"),
        }
        let mut watch = client.watch(WatchRequest::from_revision(4)).await.expect("watch");
        assert_eq!(changes(&mut watch, 5).await.0.len(), 2, "{version}");
    }
}

/// Asks until an answer comes: etcd says nothing while it has not caught up with the watch itself.
async fn progress(watch: &mut Watch) -> WatchMessage {
    loop {
        watch.request_progress().await.expect("the watch is open");
        if let Some(message) = watch.next(Duration::from_millis(100)).await.expect("it goes on") {
            return message;
        }
    }
}

#[tokio::test]
async fn progress_is_told_on_request() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        let client = a_client(&cluster);
        client.put(Put::new("a", "1")).await.expect("put");
        let mut watch = client.watch(WatchRequest::from_revision(2)).await.expect("watch");
        assert_eq!(watch.header().revision, 2, "{version}");
        changes(&mut watch, 2).await;
        assert_eq!(watch.next(Duration::from_millis(1)).await, Ok(None), "{version}");
        let told = tokio::time::timeout(PATIENCE, progress(&mut watch)).await;
        assert_eq!(told, Ok(WatchMessage::Progress { revision: 2 }), "{version}");
    }
}

#[tokio::test]
async fn a_member_that_dies_ends_its_watches() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let client = a_client(&cluster);
    let mut watch = client.watch(WatchRequest::from_revision(2)).await.expect("watch");
    cluster.member(0).kill();
    let error = watch.next(PATIENCE).await.expect_err("it was killed");
    assert!(matches!(error, Error::Lost { call: "Watch", .. }), "{error}");
    let error = client.watch(WatchRequest::from_revision(2)).await.expect_err("it was killed");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_member_without_a_leader_ends_its_watches() {
    let cluster = Cluster::start(Version::LATEST, Members(3));
    let client = Client::new(Config::new([cluster.member(0).client_url()])).expect("valid");
    let mut watch = client.watch(WatchRequest::from_revision(2)).await.expect("watch");
    cluster.member(1).kill();
    cluster.member(2).kill();
    let error = watch.next(PATIENCE).await.expect_err("there is no quorum");
    assert_eq!(error.etcd_fault(), Some(rekindle_client::EtcdFault::NoLeader), "{error}");
    assert!(error.is_transient());
}
