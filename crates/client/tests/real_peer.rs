//! Who serves at a peer URL.

use std::net::TcpListener;
use std::time::Duration;

use rekindle_client::{AtPeerUrl, Client, Config, Error, Timeouts, TlsFiles, at_peer_url};
use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::etcd::{Cluster, Members, Sites};

async fn ask(url: &str, identity: TlsFiles) -> AtPeerUrl {
    // Long enough for a busy machine where an answer comes, short where none does.
    let timeouts = Timeouts { command: Duration::from_secs(20), ..Timeouts::default() };
    at_peer_url(url, identity, &timeouts).await.expect("a valid URL")
}

async fn cluster_id(cluster: &Cluster) -> u64 {
    let client = Client::new(Config::new(cluster.client_urls())).expect("valid endpoints");
    client.members()[0].status().await.expect("status").header.cluster_id
}

#[tokio::test]
async fn a_member_of_every_version_names_its_cluster() {
    for version in Version::ALL {
        let cluster = Cluster::start(version, Members(1));
        let found = ask(cluster.member(0).peer_url(), TlsFiles::default()).await;
        assert_eq!(found, AtPeerUrl::Cluster(cluster_id(&cluster).await), "{version}");
    }
}

#[tokio::test]
async fn a_member_whose_peers_need_certificates() {
    let ca = Ca::new("peer-ca");
    let files = ca.issue("peer", &Leaf::server());
    for version in Version::ALL {
        let sites = Sites::new(Members(1));
        let url = sites.iter().next().expect("one site").peer_url().replace("http:", "https:");
        let cluster = Cluster::with(version)
            .on(sites)
            .flag(format!("--listen-peer-urls={url}"))
            .flag(format!("--initial-advertise-peer-urls={url}"))
            .flag(format!("--initial-cluster=m0={url}"))
            .flag(format!("--peer-cert-file={}", files.cert.display()))
            .flag(format!("--peer-key-file={}", files.key.display()))
            .flag(format!("--peer-trusted-ca-file={}", ca.path().display()))
            .flag("--peer-client-cert-auth")
            .start();
        let (cert, key) = (Some(files.cert.clone()), Some(files.key.clone()));
        let identity = TlsFiles { cert, key, ..TlsFiles::default() };
        let found = ask(&url, identity).await;
        assert_eq!(found, AtPeerUrl::Cluster(cluster_id(&cluster).await), "{version}");

        let AtPeerUrl::Unknown(why) = ask(&url, TlsFiles::default()).await else {
            panic!("{version}: without a certificate nothing is answered")
        };
        assert!(why.contains("client certificate"), "{version}: {why}");
    }
}

#[tokio::test]
async fn what_is_no_member_is_told_from_nobody() {
    let sites = Sites::new(Members(1));
    let silent = sites.iter().next().expect("one site").peer_url();
    assert_eq!(ask(&silent, TlsFiles::default()).await, AtPeerUrl::Nobody);

    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", mute.local_addr().expect("an address"));
    let timeouts = Timeouts { command: Duration::from_millis(100), ..Timeouts::default() };
    let found = at_peer_url(&url, TlsFiles::default(), &timeouts).await.expect("a valid URL");
    assert_eq!(found, AtPeerUrl::Unknown("no answer within 100ms".to_owned()));

    // The port for clients is a mistake that is easily made.
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let AtPeerUrl::Unknown(why) = ask(cluster.member(0).client_url(), TlsFiles::default()).await
    else {
        panic!("clients are not told the cluster's id")
    };
    assert_eq!(why, "it answers 404 Not Found and names no cluster");
    let error = at_peer_url("ftp://h:1", TlsFiles::default(), &timeouts).await.unwrap_err();
    assert!(matches!(error, Error::Endpoint { .. }), "{error}");
}
