//! TLS with real servers: what works, and each way in which it does not, told apart.

use std::fs;
use std::path::PathBuf;

use rekindle_client::{
    Client, Config, DialFault, Error, FileFault, FileRole, Put, Retry, TlsFault, TlsFiles,
};
use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, CertFiles, Leaf};
use rekindle_testkit::etcd::{Cluster, Setup};

fn trusting(ca: &Ca) -> TlsFiles {
    TlsFiles { ca_cert: Some(ca.path()), ..TlsFiles::default() }
}

fn presenting(ca: &Ca, client: &CertFiles) -> TlsFiles {
    let CertFiles { cert, key } = client.clone();
    TlsFiles { cert: Some(cert), key: Some(key), ..trusting(ca) }
}

fn a_client(endpoint: &str, tls: TlsFiles) -> Result<Client, Error> {
    Client::new(Config { tls: Some(tls), ..Config::new([endpoint]) })
}

async fn status(endpoint: &str, tls: TlsFiles) -> Result<(), Error> {
    a_client(endpoint, tls)?.members()[0].status().await.map(drop)
}

#[track_caller]
fn tls_fault(result: Result<(), Error>) -> TlsFault {
    match result {
        Err(error @ Error::Tls { .. }) => {
            assert_eq!(error.retry(), Retry::Never, "{error}");
            let Error::Tls { fault, .. } = error else { unreachable!("matched above") };
            *fault
        }
        other => panic!("not a TLS fault: {other:?}"),
    }
}

fn one(leaf: &Leaf, mutual: bool) -> (Ca, Cluster) {
    let ca = Ca::new("etcd-ca");
    let server = ca.issue("server", leaf);
    let setup: Setup = Cluster::with(Version::LATEST);
    let setup = if mutual { setup.mutual_tls(&ca, &server) } else { setup.tls(&ca, &server) };
    let cluster = setup.start();
    (ca, cluster)
}

#[tokio::test]
async fn mutual_tls_on_every_version() {
    let ca = Ca::new("etcd-ca");
    let server = ca.issue("server", &Leaf::server());
    let client = ca.issue("client", &Leaf::client("backup"));
    for version in Version::ALL {
        let cluster = Cluster::with(version).mutual_tls(&ca, &server).start();
        // Without a scheme: the files say that TLS is meant.
        let address = cluster.member(0).client_address();
        let client = a_client(&address, presenting(&ca, &client)).expect("valid files");
        client.put(Put::new("a", "1")).await.expect("put");
        assert_eq!(client.linearizable_revision().await, Ok(2), "{version}");
    }
}

#[tokio::test]
async fn an_unknown_authority_is_named_with_the_file_that_lacks_it() {
    let (_ca, cluster) = one(&Leaf::server(), false);
    let other = Ca::new("other-ca");
    match tls_fault(status(cluster.member(0).client_url(), trusting(&other)).await) {
        TlsFault::UnknownAuthority { presented, ca_file, trusted } => {
            assert_eq!(presented.expect("a readable certificate").issuer, "CN=etcd-ca");
            assert_eq!(ca_file, Some(other.path()));
            assert_eq!(trusted, ["CN=other-ca"]);
        }
        fault => panic!("{fault}"),
    }
}

#[tokio::test]
async fn a_server_certificate_out_of_its_time() {
    let (ca, cluster) = one(&Leaf::server().expired(), false);
    match tls_fault(status(cluster.member(0).client_url(), trusting(&ca)).await) {
        TlsFault::Expired { presented } => {
            let presented = presented.expect("a readable certificate");
            assert!(presented.not_before < presented.not_after);
        }
        fault => panic!("{fault}"),
    }

    let (ca, cluster) = one(&Leaf::server().not_yet_valid(), false);
    let fault = tls_fault(status(cluster.member(0).client_url(), trusting(&ca)).await);
    assert!(matches!(fault, TlsFault::NotYetValid { presented: Some(_) }), "{fault}");
}

#[tokio::test]
async fn a_server_certificate_for_another_name() {
    let (ca, cluster) = one(&Leaf::server().named("etcd.example"), false);
    let url = cluster.member(0).client_url();
    match tls_fault(status(url, trusting(&ca)).await) {
        TlsFault::WrongName { wanted, presented } => {
            assert_eq!(wanted, "127.0.0.1");
            assert_eq!(presented, ["etcd.example"]);
        }
        fault => panic!("{fault}"),
    }
    let unchecked = TlsFiles { insecure_skip_verify: true, ..TlsFiles::default() };
    status(url, unchecked).await.expect("nothing is checked");
}

#[tokio::test]
async fn a_client_certificate_is_demanded_or_refused() {
    let (ca, cluster) = one(&Leaf::server(), true);
    let url = cluster.member(0).client_url();
    let fault = tls_fault(status(url, trusting(&ca)).await);
    assert_eq!(fault, TlsFault::ClientCertificateWanted);

    let other = Ca::new("other-ca");
    let stranger = other.issue("client", &Leaf::client("backup"));
    let expired = ca.issue("expired", &Leaf::client("backup").expired());
    for (client, issuer) in [(&stranger, "CN=other-ca"), (&expired, "CN=etcd-ca")] {
        match tls_fault(status(url, presenting(&ca, client)).await) {
            TlsFault::ClientCertificateRefused { cert, presented, .. } => {
                assert_eq!(cert, client.cert);
                assert_eq!(presented.expect("a readable certificate").issuer, issuer);
            }
            fault => panic!("{fault}"),
        }
    }
}

#[tokio::test]
async fn http_and_https_taken_for_each_other() {
    let (ca, cluster) = one(&Leaf::server(), false);
    let plain = format!("http://{}", cluster.member(0).client_address());
    assert_eq!(tls_fault(status(&plain, trusting(&ca)).await), TlsFault::PeerIsTls);
    let (_mutual_ca, mutual) = one(&Leaf::server(), true);
    let plain = format!("http://{}", mutual.member(0).client_address());
    assert_eq!(tls_fault(status(&plain, trusting(&ca)).await), TlsFault::PeerIsTls);

    for version in Version::ALL {
        let cluster = Cluster::with(version).start();
        let secure = format!("https://{}", cluster.member(0).client_address());
        let fault = tls_fault(status(&secure, trusting(&ca)).await);
        assert_eq!(fault, TlsFault::PeerIsPlain, "{version}");
    }
}

#[tokio::test]
async fn renewed_files_are_used_from_the_next_connection_on() {
    let (ca, cluster) = one(&Leaf::server(), true);
    let files = ca.issue("client", &Leaf::client("backup").expired());
    let url = cluster.member(0).client_url();
    let client = a_client(url, presenting(&ca, &files)).expect("valid files");
    client.members()[0].status().await.expect_err("the certificate has expired");
    let renewed = ca.issue("renewed", &Leaf::client("backup"));
    fs::rename(renewed.cert, files.cert).expect("rename");
    fs::rename(renewed.key, files.key).expect("rename");
    client.members()[0].status().await.expect("the certificate was renewed");
}

#[track_caller]
fn check_file(tls: TlsFiles, role: FileRole, path: PathBuf, want: FileFault) {
    match a_client("https://127.0.0.1:1", tls) {
        Err(Error::File { role: given, path: at, fault }) => {
            assert_eq!((given, at, fault), (role, path, want));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_that_cannot_be_used() {
    let ca = Ca::new("etcd-ca");
    let client = ca.issue("client", &Leaf::client("backup"));
    let other = ca.issue("other", &Leaf::client("backup"));
    let good = presenting(&ca, &client);

    let missing = PathBuf::from("/nonexistent/ca.crt");
    match a_client("https://h:1", TlsFiles { ca_cert: Some(missing.clone()), ..good.clone() }) {
        Err(Error::File { role: FileRole::CaCert, path, fault: FileFault::Read { .. } }) => {
            assert_eq!(path, missing);
        }
        other => panic!("{other:?}"),
    }
    let tls = TlsFiles { ca_cert: Some(client.key.clone()), ..good.clone() };
    check_file(tls, FileRole::CaCert, client.key.clone(), FileFault::NoCertificate);
    let tls = TlsFiles { key: Some(client.cert.clone()), ..good.clone() };
    check_file(tls, FileRole::Key, client.cert.clone(), FileFault::NoKey);

    let encrypted = client.key.with_file_name("encrypted.key");
    let text = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    fs::write(&encrypted, text).expect("write");
    let tls = TlsFiles { key: Some(encrypted.clone()), ..good.clone() };
    check_file(tls, FileRole::Key, encrypted, FileFault::EncryptedKey);

    let mismatched = TlsFiles { key: Some(other.key.clone()), ..good.clone() };
    let error = a_client("https://h:1", mismatched).expect_err("the key is another's");
    assert_eq!(error, Error::KeyMismatch { cert: client.cert.clone(), key: other.key });
    let error = a_client("https://h:1", TlsFiles { key: None, ..good }).expect_err("no key");
    let want =
        Error::HalfIdentity { given: FileRole::Cert, path: client.cert, missing: FileRole::Key };
    assert_eq!(error, want);
}

#[tokio::test]
async fn nobody_there() {
    // A port that was free a moment ago and is not given out again.
    let cluster = Cluster::with(Version::LATEST).start();
    cluster.member(0).kill();
    let client = Client::new(Config::new(cluster.client_urls())).expect("valid endpoints");
    let error = client.members()[0].status().await.expect_err("it was killed");
    assert!(matches!(error, Error::Unreachable { fault: DialFault::Refused, .. }), "{error}");
    assert!(error.is_transient());

    let client = Client::new(Config::new(["etcd.invalid:2379"])).expect("a valid endpoint");
    let error = client.members()[0].status().await.expect_err("there is no such host");
    assert!(
        matches!(error, Error::Unreachable { fault: DialFault::UnknownHost { .. }, .. }),
        "{error}"
    );
}
