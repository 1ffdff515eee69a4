//! From what the TLS library says to what an administrator can act on.

use rustls::{AlertDescription, CertificateError, Error};

use super::{Recorder, Tls};
use crate::error::{CertificateSummary, TlsFault};

/// Why a handshake failed.
pub(crate) fn handshake_fault(
    error: &Error,
    tls: &Tls,
    seen: &Recorder,
    server_name: &str,
) -> TlsFault {
    let presented = seen.presented().and_then(|der| CertificateSummary::from_der(der));
    match error {
        Error::InvalidCertificate(reason) => certificate_fault(reason, tls, presented, server_name),
        other => session_fault(other, tls),
    }
}

/// Why a session ended that seemed to be agreed on: in TLS 1.3 a server looks at the client's
/// certificate only after the client thinks that all is done.
pub(crate) fn session_fault(error: &Error, tls: &Tls) -> TlsFault {
    use AlertDescription as Alert;
    let Error::AlertReceived(alert) = error else {
        return TlsFault::Other(error.to_string());
    };
    let about_our_certificate = matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
    );
    match &tls.identity {
        _ if !about_our_certificate => TlsFault::Other(error.to_string()),
        // TLS 1.2 has no alert of its own for this; Go says "bad certificate".
        None => TlsFault::ClientCertificateWanted,
        Some((cert, der)) => TlsFault::ClientCertificateRefused {
            cert: cert.clone(),
            presented: CertificateSummary::from_der(der),
            alert: format!("{alert:?}"),
        },
    }
}

fn certificate_fault(
    reason: &CertificateError,
    tls: &Tls,
    presented: Option<CertificateSummary>,
    server_name: &str,
) -> TlsFault {
    use CertificateError as Reason;
    match reason {
        Reason::UnknownIssuer => TlsFault::UnknownAuthority {
            presented,
            ca_file: tls.trust.ca_file.clone(),
            // The system's authorities are too many to be listed.
            trusted: tls.trust.ca_file.as_ref().map(|_| tls.trusted_names()).unwrap_or_default(),
        },
        Reason::Expired | Reason::ExpiredContext { .. } => TlsFault::Expired { presented },
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => {
            TlsFault::NotYetValid { presented }
        }
        Reason::NotValidForName | Reason::NotValidForNameContext { .. } => TlsFault::WrongName {
            wanted: server_name.to_owned(),
            presented: presented.map(|summary| summary.names).unwrap_or_default(),
        },
        other => TlsFault::BadCertificate { presented, reason: other.to_string() },
    }
}
