//! Questions to a peer with which no connection came about: does it speak TLS, or plain HTTP/2, and
//! why did it end the session?
//!
//! Asked only after a failure, on a connection of their own, to tell `http://` written for
//! `https://`, the reverse, and a client certificate that is missing from a server that is broken.

use std::io;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::tls::TlsFiles;
use crate::wire::{Stream, tls_error};

/// The client's greeting and an empty SETTINGS frame (RFC 9113, 3.4).
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// The type of a SETTINGS frame, in the fourth byte of its header (RFC 9113, 6.5).
const SETTINGS: u8 = 4;

/// Whether the peer answers a plain HTTP/2 greeting with one of its own.
pub(crate) async fn speaks_plain_http2(mut stream: Box<dyn Stream>) -> io::Result<bool> {
    stream.write_all(GREETING).await?;
    let mut header = [0; 9];
    stream.read_exact(&mut header).await?;
    Ok(header[3] == SETTINGS)
}

/// Whether a TLS handshake gets anywhere. Who the peer is does not matter.
pub(crate) async fn speaks_tls(stream: Box<dyn Stream>) -> io::Result<bool> {
    let anyone = TlsFiles { insecure_skip_verify: true, ..TlsFiles::default() };
    let tls = anyone.load().map_err(io::Error::other)?;
    let (config, _) = tls.for_one_connection();
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    match TlsConnector::from(config).connect(name, stream).await {
        Ok(_) => Ok(true),
        // An alert is TLS too: a server that wants a client certificate sends one.
        Err(error) => Ok(matches!(tls_error(&error), Some(rustls::Error::AlertReceived(_)))),
    }
}

/// Listens, saying nothing, to how a peer ends a TLS session. In TLS 1.3 that is when we learn what
/// it thinks of our certificate.
pub(crate) async fn first_alert(mut stream: Box<dyn Stream>) -> Option<rustls::Error> {
    let error = stream.read_u8().await.err()?;
    tls_error(&error).cloned()
}
