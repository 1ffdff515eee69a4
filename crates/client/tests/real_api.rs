//! Every call, on every version of etcd.

use std::time::Duration;

use rekindle_client::{
    Alarm, AlarmKind, Client, Code, Compaction, Compare, CompareIs, Config, Error, EtcdFault, Keys,
    LeaseKeys, Op, OpResult, Put, Range, Role, Txn,
};
use rekindle_testkit::Version;
use rekindle_testkit::etcd::{Cluster, Members};

fn a_client(cluster: &Cluster) -> Client {
    Client::new(Config::new(cluster.client_urls())).expect("valid endpoints")
}

#[tokio::test]
async fn keys() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        let client = a_client(&cluster);
        for (key, value) in [("a/1", "one"), ("a/2", "two"), ("b", "three")] {
            client.put(Put::new(key, value)).await.expect("put");
        }

        let found = client.range(Range::new(Keys::prefix("a/"))).await.expect("range");
        let values: Vec<_> = found.kvs.iter().map(|kv| &kv.value[..]).collect();
        assert_eq!(values, [b"one", b"two"], "{version}");
        assert_eq!((found.count, found.more, found.header.revision), (2, false, 4), "{version}");
        let limited = client.range(Range::new(Keys::all()).limit(1).keys_only()).await;
        let limited = limited.expect("range");
        assert!(limited.more && limited.count == 3 && limited.kvs[0].value.is_empty());
        let counted =
            client.members()[0].range(Range::new(Keys::all()).count_only().serializable());
        assert_eq!(counted.await.expect("range").count, 3);

        let deleted = client.delete(Keys::one("b")).await.expect("delete");
        assert_eq!((deleted.count, deleted.header.revision), (1, 5), "{version}");
        assert_eq!(client.linearizable_revision().await, Ok(5), "{version}");
        let before = client.range(Range::new(Keys::one("b")).at_revision(4)).await.expect("range");
        assert_eq!(before.kvs.len(), 1, "{version}");

        client.compact(5, Compaction::Finished).await.expect("compact");
        let compacted = client.range(Range::new(Keys::one("b")).at_revision(4)).await;
        let fault = compacted.expect_err("it is compacted").etcd_fault();
        assert_eq!(fault, Some(EtcdFault::Compacted), "{version}");
        let future = client.range(Range::new(Keys::one("b")).at_revision(99)).await;
        let fault = future.expect_err("it is not there yet").etcd_fault();
        assert_eq!(fault, Some(EtcdFault::FutureRevision), "{version}");
    }
}

#[tokio::test]
async fn transactions() {
    let cluster = Cluster::start(Version::V3_4, Members(1));
    let client = a_client(&cluster);
    let absent = || Compare::version("a", CompareIs::Equal, 0);
    let txn = || {
        Txn::new()
            .when(absent())
            .then(Op::Put(Put::new("a", "1")))
            .then(Op::Range(Range::new(Keys::one("a"))))
            .otherwise(Op::Delete(Keys::one("a")))
    };
    let first = client.txn(txn()).await.expect("txn");
    assert!(first.succeeded);
    assert!(
        matches!(&first.results[..], [OpResult::Put, OpResult::Range(found)] if found.count == 1)
    );
    let second = client.txn(txn()).await.expect("txn");
    assert!(!second.succeeded);
    assert!(matches!(&second.results[..], [OpResult::Delete(deleted)] if deleted.count == 1));

    let twice = Txn::new().then(Op::Put(Put::new("a", ""))).then(Op::Put(Put::new("a", "")));
    let fault = client.txn(twice).await.expect_err("a key is written twice").etcd_fault();
    assert_eq!(fault, Some(EtcdFault::DuplicateKey));
}

#[tokio::test]
async fn leases() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        let client = a_client(&cluster);
        let granted = client.lease_grant(77, 600).await.expect("grant");
        assert_eq!((granted.id, granted.granted_ttl_s), (77, 600), "{version}");
        client.put(Put::new("a", "").lease(77)).await.expect("put");
        let lease = client.lease(77, LeaseKeys::Listed).await.expect("time to live");
        let lease = lease.expect("it lives");
        assert_eq!(lease.keys, ["a"], "{version}");
        assert!((1..=600).contains(&lease.remaining_ttl_s), "{version}: {lease:?}");
        assert_eq!(client.lease_ids().await, Ok(vec![77]), "{version}");
        let exists = client.lease_grant(77, 600).await.expect_err("it exists").etcd_fault();
        assert_eq!(exists, Some(EtcdFault::LeaseExists), "{version}");
        client.lease_revoke(77).await.expect("revoke");
        assert_eq!(client.lease(77, LeaseKeys::Omitted).await, Ok(None), "{version}");
        let gone = client.lease_revoke(77).await.expect_err("it is gone").etcd_fault();
        assert_eq!(gone, Some(EtcdFault::LeaseNotFound), "{version}");
    }
}

#[tokio::test]
async fn status_and_hash_agree_with_etcdctl() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        let client = a_client(&cluster);
        client.put(Put::new("a", "1")).await.expect("put");
        let member = &client.members()[0];

        let before = member.status().await.expect("status");
        let theirs = &cluster.etcdctl_json(["endpoint", "status"])[0]["Status"];
        let status = member.status().await.expect("status");
        assert_eq!(theirs["version"], status.version, "{version}");
        assert_eq!(theirs["leader"], status.leader, "{version}");
        assert_eq!(theirs["header"]["cluster_id"], status.header.cluster_id, "{version}");
        assert_eq!(status.leader, status.header.member_id, "{version}");
        // A young cluster still writes things of its own.
        let db_size = theirs["dbSize"].as_u64().expect("a size");
        assert!((before.db_size..=status.db_size).contains(&db_size), "{version}: {db_size}");
        assert!(status.db_size_in_use > 0 && !status.is_learner, "{version}: {status:?}");
        assert!(status.storage_version.is_empty() || version >= Version::V3_6, "{status:?}");

        let hash = member.hash_kv(0).await.expect("hash");
        let theirs = &cluster.etcdctl_json(["endpoint", "hashkv"])[0]["HashKV"];
        assert_eq!(theirs["hash"], hash.hash, "{version}");
        assert_eq!((hash.revision, hash.compact_revision), (2, -1), "{version}");
        assert_eq!(member.hash_kv(2).await.expect("hash").hash, hash.hash, "{version}");
        member.defragment().await.expect("defragment");
    }
}

#[tokio::test]
async fn alarms() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        let client = a_client(&cluster);
        assert_eq!(client.alarms().await, Ok(vec![]), "{version}");
        let member_id = client.members()[0].status().await.expect("status").header.member_id;
        let alarm = Alarm { member_id, kind: AlarmKind::NoSpace };
        client.raise(alarm).await.expect("raise");
        assert_eq!(client.alarms().await, Ok(vec![alarm]), "{version}");
        let refused = client.put(Put::new("a", "1")).await.expect_err("there is no space");
        assert_eq!(refused.etcd_fault(), Some(EtcdFault::NoSpace), "{version}");
        assert!(!refused.is_transient(), "{version}");
        client.disarm(alarm).await.expect("disarm");
        client.put(Put::new("a", "1")).await.expect("put");
    }
}

#[tokio::test]
async fn members() {
    // Otherwise members must have been connected for five seconds before one can be added.
    let setup = Cluster::with(Version::V3_6).members(Members(3));
    let cluster = setup.flag("--strict-reconfig-check=false").start();
    let client = Client::new(Config::new([cluster.member(1).client_url()])).expect("valid");
    let listed = client.member_list().await.expect("member list");
    assert_eq!(client.members()[0].known_members().await.expect("list").members, listed.members);
    let mut names: Vec<_> = listed.members.iter().map(|member| &member.name[..]).collect();
    names.sort_unstable();
    assert_eq!(names, ["m0", "m1", "m2"]);
    let all = client.of_all_members().await.expect("valid client URLs");
    assert_eq!(all.members().len(), 3);

    let leader = all.members()[0].status().await.expect("status").leader;
    let follower = listed.members.iter().find(|member| member.id != leader).expect("a follower");
    for member in all.members() {
        let moved = member.move_leader(follower.id).await;
        if let Err(error) = &moved {
            assert_eq!(error.etcd_fault(), Some(EtcdFault::NotLeader), "{error}");
        }
    }

    let url = String::from("http://127.0.0.1:1");
    let added = client.member_add(vec![url.clone()], Role::Learner).await.expect("add");
    let added = added.expect("etcd says whom it added");
    assert_eq!((added.role, &added.peer_urls[..]), (Role::Learner, &[url][..]));
    let unready = client.member_promote(added.id).await.expect_err("it never started");
    assert_eq!(unready.etcd_fault(), Some(EtcdFault::LearnerNotReady));
    client.member_update(added.id, vec!["http://127.0.0.1:2".into()]).await.expect("update");
    client.member_remove(added.id).await.expect("remove");
    let gone = client.member_remove(added.id).await.expect_err("it is gone");
    assert_eq!(gone.etcd_fault(), Some(EtcdFault::MemberNotFound));
}

#[tokio::test]
async fn a_call_that_a_version_does_not_know() {
    let cluster = Cluster::start(Version::V3_4, Members(1));
    let error = a_client(&cluster).auth_status().await.expect_err("3.4 has no such call");
    assert!(matches!(error, Error::Rpc { code: Code::Unimplemented, .. }), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_frozen_member_misses_the_deadline() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let mut config = Config::new(cluster.client_urls());
    config.timeouts.command = Duration::from_millis(300);
    let client = Client::new(config).expect("valid endpoints");
    client.members()[0].status().await.expect("status");
    cluster.member(0).freeze();
    let error = client.members()[0].status().await.expect_err("it is frozen");
    assert!(matches!(error, Error::Deadline { call: "Status", .. }), "{error}");
    assert!(error.is_transient());
    cluster.member(0).thaw();
    client.members()[0].status().await.expect("it goes on");
}

#[tokio::test]
async fn a_socket_in_the_file_system() {
    let socket = tempfile::tempdir().expect("a directory");
    let path = socket.path().join("localhost:m0");
    let url = format!("unix://{}", path.display());
    let cluster = Cluster::with(Version::V3_6).also_listen(&url).start();
    let client = Client::new(Config::new([url])).expect("a valid endpoint");
    client.put(Put::new("a", "1")).await.expect("put");
    assert_eq!(cluster.etcdctl(["get", "a", "--print-value-only"]), "1\n");
}
