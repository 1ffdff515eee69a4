//! Certificates for the tests: an authority, what it signs, and every way they can be wrong.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// A certificate authority and the directory that holds it and all it signed.
///
/// The directory disappears with it.
#[derive(Debug)]
pub struct Ca {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key, as PEM files.
#[derive(Debug, Clone)]
pub struct CertFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What a certificate shall say. Begin with [`Leaf::server`] or [`Leaf::client`].
#[derive(Debug, Clone)]
pub struct Leaf {
    common_name: String,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    purposes: Vec<ExtendedKeyUsagePurpose>,
}

impl Leaf {
    /// A certificate for a server on the loopback address, good for a day.
    pub fn server() -> Self {
        Self {
            names: vec!["localhost".to_owned()],
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            ..Self::client("etcd-server")
        }
    }

    /// A client's certificate. etcd takes `common_name` for the user where it authenticates by
    /// certificate.
    pub fn client(common_name: &str) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            common_name: common_name.to_owned(),
            names: Vec::new(),
            addresses: Vec::new(),
            not_before: now - Duration::hours(1),
            not_after: now + Duration::days(1),
            // etcd's own HTTP gateway uses the server's certificate as a client's, as kubeadm allows.
            purposes: vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        }
    }

    /// Good for no server.
    pub fn for_clients_alone(self) -> Self {
        Self { purposes: vec![ExtendedKeyUsagePurpose::ClientAuth], ..self }
    }

    /// Good at these addresses.
    ///
    /// # Panics
    /// Where one is none.
    pub fn at<'a>(self, addresses: impl IntoIterator<Item = &'a str>) -> Self {
        let addresses = addresses.into_iter().map(|address| address.parse().unwrap()).collect();
        Self { addresses, ..self }
    }

    /// Replaces all names and addresses by one DNS name.
    pub fn named(self, name: &str) -> Self {
        Self { names: vec![name.to_owned()], addresses: Vec::new(), ..self }
    }

    /// Lets it have expired an hour ago.
    pub fn expired(self) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { not_before: now - Duration::days(2), not_after: now - Duration::hours(1), ..self }
    }

    /// Makes it valid only from tomorrow on.
    pub fn not_yet_valid(self) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { not_before: now + Duration::days(1), not_after: now + Duration::days(2), ..self }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::new(self.names.clone()).expect("names are ASCII");
        params.distinguished_name.push(DnType::CommonName, &self.common_name);
        params.subject_alt_names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        params.not_before = self.not_before;
        params.not_after = self.not_after;
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages.clone_from(&self.purposes);
        params
    }
}

impl Ca {
    /// A new authority called `common_name`.
    pub fn new(common_name: &str) -> Self {
        let dir = TempDir::with_prefix("rekindle-ca-").expect("a temporary directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).expect("a self-signed certificate");
        write(&dir.path().join("ca.crt"), &cert.pem());
        Self { dir, issuer: Issuer::new(params, key) }
    }

    /// The authority's own certificate, a PEM file.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// Signs `leaf` and writes it, with a new key, to files called after `file_name`.
    pub fn issue(&self, file_name: &str, leaf: &Leaf) -> CertFiles {
        let key = KeyPair::generate().expect("a key");
        let cert = leaf.params().signed_by(&key, &self.issuer).expect("a signed certificate");
        let files = CertFiles {
            cert: self.dir.path().join(format!("{file_name}.crt")),
            key: self.dir.path().join(format!("{file_name}.key")),
        };
        write(&files.cert, &cert.pem());
        write(&files.key, &key.serialize_pem());
        files
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}
