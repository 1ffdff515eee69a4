//! The snapshot stream of real servers.

use std::time::{Duration, Instant};

use rekindle_client::{Client, Config, Error, Put, Retry, SnapshotStream, TlsFiles};
use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::etcd::{Cluster, Members};
use sha2::{Digest, Sha256};

const DIGEST_BYTES: usize = 32;

/// More than what fits into all the windows and socket buffers between a server and us.
const MEGABYTES: usize = 32;

async fn fill(client: &Client, megabytes: usize) {
    let value = vec![7; 1 << 20];
    for index in 0..megabytes {
        client.put(Put::new(format!("k{index}"), value.clone())).await.expect("put");
    }
}

/// Reads all of a stream and checks the digest at its end; how many bytes of data came.
async fn drain(stream: &mut SnapshotStream) -> Result<usize, Error> {
    let mut whole = Vec::new();
    while let Some(chunk) = stream.next().await? {
        whole.extend_from_slice(&chunk.blob);
        if chunk.remaining_bytes == 0 && chunk.blob.len() == DIGEST_BYTES {
            assert!(whole.len() % 512 == DIGEST_BYTES, "the digest comes last");
        }
    }
    assert_eq!(stream.received(), whole.len() as u64);
    let (data, digest) = whole.split_at(whole.len() - DIGEST_BYTES);
    assert_eq!(&Sha256::digest(data)[..], digest);
    Ok(data.len())
}

#[tokio::test]
async fn its_digest_is_right_on_every_version() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        let client = Client::new(Config::new(cluster.client_urls())).expect("valid endpoints");
        fill(&client, 4).await;
        let member = &client.members()[0];
        let mut stream = member.snapshot().await.expect("a snapshot");
        let data = drain(&mut stream).await.expect("all of it");
        assert!(data > 4 << 20 && data.is_multiple_of(4096), "{version}: {data}");

        let mut stream = member.snapshot().await.expect("a second one");
        let first = stream.next().await.expect("a piece").expect("not the end");
        assert_eq!(first.remaining_bytes, (data - first.blob.len()) as u64, "{version}");
        assert!(first.version.is_empty() || version >= Version::V3_6, "{}", first.version);
    }
}

#[tokio::test]
async fn over_tls() {
    let ca = Ca::new("etcd-ca");
    let server = ca.issue("server", &Leaf::server());
    let cluster = Cluster::with(Version::LATEST).tls(&ca, &server).start();
    let mut config = Config::new(cluster.client_urls());
    config.tls = Some(TlsFiles { ca_cert: Some(ca.path()), ..TlsFiles::default() });
    let client = Client::new(config).expect("valid files");
    fill(&client, 2).await;
    let mut stream = client.members()[0].snapshot().await.expect("a snapshot");
    drain(&mut stream).await.expect("all of it");
}

#[tokio::test]
async fn a_frozen_member_stalls_it() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let mut config = Config::new(cluster.client_urls());
    config.timeouts.stall = Duration::from_secs(1);
    let client = Client::new(config).expect("valid endpoints");
    fill(&client, MEGABYTES).await;
    let mut stream = client.members()[0].snapshot().await.expect("a snapshot");
    let first = stream.next().await.expect("a piece").expect("not the end");
    cluster.member(0).freeze();

    let mut last_piece = Instant::now();
    let error = loop {
        match stream.next().await {
            Ok(Some(_)) => last_piece = Instant::now(),
            Ok(None) => panic!("the whole stream was under way already"),
            Err(error) => break error,
        }
    };
    let waited = last_piece.elapsed();
    assert!(waited < Duration::from_secs(4), "it took {waited:?} to notice");
    assert_eq!(error.retry(), Retry::Elsewhere);
    match error {
        Error::Stalled { call: "Snapshot", after, received, .. } => {
            assert_eq!(after, Duration::from_secs(1));
            assert!(received >= first.blob.len() as u64);
        }
        other => panic!("{other}"),
    }
    cluster.member(0).thaw();
}

#[tokio::test]
async fn a_killed_member_ends_it_with_an_error() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let client = Client::new(Config::new(cluster.client_urls())).expect("valid endpoints");
    fill(&client, MEGABYTES).await;
    let mut stream = client.members()[0].snapshot().await.expect("a snapshot");
    stream.next().await.expect("a piece").expect("not the end");
    cluster.member(0).kill();
    let error = loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a cut stream must not look complete"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Lost { call: "Snapshot", .. }), "{error}");
    assert!(error.is_transient());
}
