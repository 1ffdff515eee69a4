//! TLS as etcdctl's flags describe it: which files, whom to trust, whom to present.
//!
//! The files are read again for each new connection, so certificates that were renewed on disk are
//! used from the next connection on, as etcd's own client does (`client/pkg/transport`).

mod explain;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::Error;
use crate::error::{CertificateSummary, FileFault, FileRole};

pub(crate) use explain::{handshake_fault, session_fault};
pub(crate) use verify::Recorder;

/// The files and choices behind a TLS connection; all of them may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that may sign a server's certificate, in PEM. Without it the system's are
    /// trusted.
    pub ca_cert: Option<PathBuf>,
    /// The client certificate, in PEM, followed by intermediate ones if there are any.
    pub cert: Option<PathBuf>,
    /// The client certificate's private key, in PEM, not encrypted.
    pub key: Option<PathBuf>,
    /// Accepts any certificate that a server presents.
    pub insecure_skip_verify: bool,
}

/// TLS ready for use: the files read and found to fit together.
#[derive(Clone)]
pub(crate) struct Tls {
    config: ClientConfig,
    verifier: Arc<dyn ServerCertVerifier>,
    trust: Trust,
    /// The client certificate and its file.
    identity: Option<(PathBuf, CertificateDer<'static>)>,
}

/// Whose signatures count.
#[derive(Clone)]
struct Trust {
    ca_file: Option<PathBuf>,
    authorities: Vec<CertificateDer<'static>>,
}

impl TlsFiles {
    /// Reads the files and checks that they can be used together.
    pub(crate) fn load(&self) -> Result<Tls, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = Trust::load(self.ca_cert.as_deref())?;
        let verifier: Arc<dyn ServerCertVerifier> = if self.insecure_skip_verify {
            Arc::new(verify::AnyServer::new(Arc::clone(&provider)))
        } else {
            trust.verifier(&provider)?
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(FileRole::CaCert, Path::new(""), &error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier));
        let (mut config, identity) = match self.identity_files()? {
            None => (builder.with_no_client_auth(), None),
            Some((cert, key)) => {
                let chain = certificates(FileRole::Cert, cert)?;
                let presented = chain.first().cloned().map(|leaf| (cert.to_owned(), leaf));
                let config = builder
                    .with_client_auth_cert(chain, private_key(key)?)
                    .map_err(|error| identity_fault(cert, key, &error))?;
                (config, presented)
            }
        };
        // Newer gRPC servers close connections that do not ask for HTTP/2.
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Tls { config, verifier, trust, identity })
    }

    fn identity_files(&self) -> Result<Option<(&Path, &Path)>, Error> {
        let half = |given, path: &Path, missing| {
            Err(Error::HalfIdentity { given, path: path.to_owned(), missing })
        };
        match (&self.cert, &self.key) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some((cert, key))),
            (Some(cert), None) => half(FileRole::Cert, cert, FileRole::Key),
            (None, Some(key)) => half(FileRole::Key, key, FileRole::Cert),
        }
    }
}

impl Tls {
    /// The configuration of one connection, with a recorder of what the server presents.
    pub(crate) fn for_one_connection(&self) -> (Arc<ClientConfig>, Arc<Recorder>) {
        let recorder = Arc::new(Recorder::new(Arc::clone(&self.verifier)));
        let mut config = self.config.clone();
        let verifier: Arc<dyn ServerCertVerifier> = recorder.clone();
        config.dangerous().set_certificate_verifier(verifier);
        (Arc::new(config), recorder)
    }

    /// For who speaks HTTP/1.1: what is agreed on in the handshake is what the server expects then.
    pub(crate) fn for_http1(mut self) -> Self {
        self.config.alpn_protocols = vec![b"http/1.1".to_vec()];
        self
    }

    fn trusted_names(&self) -> Vec<String> {
        let summaries = self.trust.authorities.iter();
        summaries
            .filter_map(|der| CertificateSummary::from_der(der))
            .map(|authority| authority.subject)
            .collect()
    }
}

impl Trust {
    fn load(ca_file: Option<&Path>) -> Result<Self, Error> {
        let authorities = match ca_file {
            Some(path) => certificates(FileRole::CaCert, path)?,
            None => system_authorities().to_vec(),
        };
        Ok(Self { ca_file: ca_file.map(Path::to_owned), authorities })
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            Some(path) => {
                for authority in &self.authorities {
                    roots
                        .add(authority.clone())
                        .map_err(|error| unusable(FileRole::CaCert, path, &error))?;
                }
            }
            None => _ = roots.add_parsable_certificates(self.authorities.iter().cloned()),
        }
        if roots.is_empty() {
            // A system without authorities: no server can be verified, whatever it presents.
            return Err(Error::File {
                role: FileRole::CaCert,
                path: PathBuf::from("(the system's)"),
                fault: FileFault::NoCertificate,
            });
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| {
                let path = self.ca_file.clone().unwrap_or_default();
                unusable(FileRole::CaCert, &path, &error)
            })
    }
}

/// The system's authorities, read once.
fn system_authorities() -> &'static [CertificateDer<'static>] {
    static AUTHORITIES: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    AUTHORITIES.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "some of the system's authorities cannot be read");
        }
        found.certs
    })
}

fn read(role: FileRole, path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| {
        let fault = FileFault::Read { kind: error.kind(), message: error.to_string() };
        Error::File { role, path: path.to_owned(), fault }
    })
}

fn certificates(role: FileRole, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(role, path)?;
    let certs = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(role, path, &error))?;
    if certs.is_empty() {
        let fault = FileFault::NoCertificate;
        return Err(Error::File { role, path: path.to_owned(), fault });
    }
    Ok(certs)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read(FileRole::Key, path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let encrypted = text.windows(10).any(|window| window == b"ENCRYPTED ");
        let fault = match error {
            _ if encrypted => FileFault::EncryptedKey,
            pem::Error::NoItemsFound => FileFault::NoKey,
            other => FileFault::Unusable(other.to_string()),
        };
        Error::File { role: FileRole::Key, path: path.to_owned(), fault }
    })
}

fn identity_fault(cert: &Path, key: &Path, error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            Error::KeyMismatch { cert: cert.to_owned(), key: key.to_owned() }
        }
        rustls::Error::InvalidCertificate(_) => unusable(FileRole::Cert, cert, error),
        _ => unusable(FileRole::Key, key, error),
    }
}

fn unusable(role: FileRole, path: &Path, error: &impl std::error::Error) -> Error {
    let fault = FileFault::Unusable(error.to_string());
    Error::File { role, path: path.to_owned(), fault }
}
