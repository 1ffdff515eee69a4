//! Users, passwords and tokens with real servers.

use rekindle_client::{
    Access, Client, Config, Credentials, Error, EtcdFault, Keys, Put, Range, Retry, TlsFiles,
    WatchRequest,
};
use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::etcd::{Cluster, ROOT_PASSWORD, ROOT_USER};

const READER: &str = "reader";
const READERS_PASSWORD: &str = "battery-staple";

fn as_user(cluster: &Cluster, user: &str, password: &str) -> Client {
    let mut config = Config::new(cluster.client_urls());
    config.credentials = Some(Credentials::new(user, password));
    Client::new(config).expect("valid endpoints")
}

fn as_root(cluster: &Cluster) -> Client {
    as_user(cluster, ROOT_USER, ROOT_PASSWORD)
}

#[track_caller]
fn check_refused<T: std::fmt::Debug>(result: Result<T, Error>, want: EtcdFault, story: &str) {
    let error = result.expect_err(story);
    assert_eq!(error.etcd_fault(), Some(want), "{story}: {error}");
    assert_eq!(error.retry(), Retry::Never, "{story}: {error}");
    let text = format!("{error} {error:?}");
    assert!(
        ![ROOT_PASSWORD, READERS_PASSWORD].iter().any(|secret| text.contains(secret)),
        "{text}"
    );
}

/// The first error of a snapshot, which may come with its first message.
async fn snapshot(client: &Client) -> Result<usize, Error> {
    let mut stream = client.members()[0].snapshot().await?;
    let mut bytes = 0;
    while let Some(chunk) = stream.next().await? {
        bytes += chunk.blob.len();
    }
    Ok(bytes)
}

#[tokio::test]
async fn what_root_may_and_others_may_not() {
    for version in Version::ALL {
        let cluster = Cluster::with(version).auth().start();
        let root = as_root(&cluster);
        root.put(Put::new("a", "1")).await.expect("put");
        assert!(snapshot(&root).await.expect("a snapshot") > 0, "{version}");
        root.members()[0].hash_kv(0).await.expect("hash");
        if version >= Version::V3_5 {
            assert!(root.auth_status().await.expect("auth status").enabled, "{version}");
        }

        root.role_add("readers").await.expect("role add");
        root.role_grant("readers", Access::Read, Keys::prefix("a")).await.expect("grant");
        root.user_add(READER, READERS_PASSWORD).await.expect("user add");
        root.user_grant_role(READER, "readers").await.expect("grant role");
        let reader = as_user(&cluster, READER, READERS_PASSWORD);
        assert_eq!(reader.range(Range::new(Keys::one("a"))).await.expect("range").count, 1);
        let denied = EtcdFault::PermissionDenied;
        check_refused(reader.range(Range::new(Keys::all())).await, denied, "all keys");
        check_refused(reader.put(Put::new("a", "2")).await, denied, "a write");
        check_refused(snapshot(&reader).await, denied, "a snapshot");
        check_refused(reader.members()[0].hash_kv(0).await, denied, "a hash");
        check_refused(reader.watch(WatchRequest::from_revision(1)).await, denied, "a watch");

        let wrong = as_user(&cluster, ROOT_USER, "wrong");
        check_refused(
            wrong.linearizable_revision().await,
            EtcdFault::AuthFailed,
            "a wrong password",
        );
        check_refused(snapshot(&wrong).await, EtcdFault::AuthFailed, "a wrong password");
        let nobody = Client::new(Config::new(cluster.client_urls())).expect("valid endpoints");
        check_refused(nobody.linearizable_revision().await, EtcdFault::UserEmpty, "no user");
    }
}

#[tokio::test]
async fn credentials_are_not_needed_but_do_no_harm_where_authentication_is_off() {
    for version in Version::ALL {
        let cluster = Cluster::with(version).start();
        let client = as_root(&cluster);
        client.put(Put::new("a", "1")).await.expect("put");

        // Turned on while we go on.
        client.user_add(ROOT_USER, ROOT_PASSWORD).await.expect("user add");
        let no_root = client.auth_enable().await;
        check_refused(no_root, EtcdFault::NoRoot, "root lacks its role");
        client.role_add("root").await.expect("role add");
        client.user_grant_role(ROOT_USER, "root").await.expect("grant role");
        client.auth_enable().await.expect("enable");
        client.put(Put::new("a", "2")).await.expect("a token is got when it is needed");
        client.auth_disable().await.expect("disable");
        client.put(Put::new("a", "3")).await.expect("a token does no harm");
    }
}

#[tokio::test]
async fn an_expired_token_is_renewed() {
    for version in Version::ALL {
        let cluster =
            Cluster::with(version).auth().flag("--auth-token-ttl=1").flag("--log-level=debug");
        let cluster = cluster.start();
        let client = as_root(&cluster);
        client.put(Put::new("a", "1")).await.expect("put");
        // There is no other token: the cluster was set up before authentication was on.
        cluster.member(0).wait_for_log("deleted a simple token");
        client.put(Put::new("a", "2")).await.expect("the token is renewed");
        let mut watch = client.watch(WatchRequest::from_revision(2)).await.expect("a watch");
        watch.next(std::time::Duration::from_secs(5)).await.expect("the watch has a good token");
    }
}

#[tokio::test]
async fn a_token_lost_with_its_server_is_renewed() {
    for version in Version::ALL {
        let cluster = Cluster::with(version).auth().start();
        let client = as_root(&cluster);
        client.put(Put::new("a", "1")).await.expect("put");
        // Tokens are in the server's memory only.
        cluster.member(0).kill();
        cluster.member(0).start();
        client.linearizable_revision().await.expect("connection and token are renewed");
        client.put(Put::new("a", "2")).await.expect("put");
        snapshot(&client).await.expect("a snapshot");
    }
}

#[tokio::test]
async fn a_certificate_stands_for_its_user() {
    let ca = Ca::new("etcd-ca");
    let server = ca.issue("server", &Leaf::server());
    let cluster = Cluster::with(Version::LATEST).mutual_tls(&ca, &server).auth().start();
    let client_of = |user: &str| {
        let files = ca.issue(user, &Leaf::client(user));
        let mut config = Config::new(cluster.client_urls());
        config.tls = Some(TlsFiles {
            ca_cert: Some(ca.path()),
            cert: Some(files.cert),
            key: Some(files.key),
            insecure_skip_verify: false,
        });
        Client::new(config).expect("valid files")
    };
    snapshot(&client_of(ROOT_USER)).await.expect("root may");
    let stranger = snapshot(&client_of("stranger")).await;
    check_refused(stranger, EtcdFault::UserNotFound, "no such user");
}
