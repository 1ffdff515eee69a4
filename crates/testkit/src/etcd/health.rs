//! Asks a member's own client port whether it answers a linearizable read.
//!
//! etcd's `/health` performs one (`etcdserver/api/etcdhttp`), needs no user, and is there in every
//! version. Alarms make it fail too, which is not what is asked here, so they are left out.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::certs::CertFiles;

/// etcd gives up on the read after 5 s (3.4) by itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

const REQUEST: &[u8] = b"GET /health?exclude=NOSPACE&exclude=CORRUPT HTTP/1.1\r\n\
    Host: localhost\r\nConnection: close\r\n\r\n";

/// Asks over plain HTTP, or over TLS with a client certificate.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    /// Read each time: a test may renew them.
    client: Option<CertFiles>,
}

impl Probe {
    pub(super) fn new(client: Option<&CertFiles>) -> Self {
        Self { client: client.cloned() }
    }

    /// `Ok` when the member on `port` answered a linearizable read, else what it did instead.
    pub(super) fn ask(&self, port: u16) -> Result<(), String> {
        let answer = self.answer(port).map_err(|error| error.to_string())?;
        let status = answer.lines().next().unwrap_or_default();
        if status.contains(" 200 ") { Ok(()) } else { Err(answer) }
    }

    fn answer(&self, port: u16) -> io::Result<String> {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        match &self.client {
            None => exchange(&mut stream),
            Some(client) => {
                let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
                let connection = ClientConnection::new(Arc::new(tls_config(client)), name)
                    .map_err(io::Error::other)?;
                exchange(&mut StreamOwned::new(connection, stream))
            }
        }
    }
}

fn exchange(stream: &mut (impl Read + Write)) -> io::Result<String> {
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // Go closes the connection without TLS's own goodbye.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

fn tls_config(client: &CertFiles) -> ClientConfig {
    let cert = CertificateDer::from_pem_file(&client.cert).expect("a certificate of ours");
    let key = PrivateKeyDer::from_pem_file(&client.key).expect("a key of ours");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_client_auth_cert(vec![cert], key)
        .expect("key and certificate match")
}

/// Accepts every server: a test may have given it a certificate that nobody should accept.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
