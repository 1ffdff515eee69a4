//! Why TLS was not agreed on, in an administrator's terms.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Why TLS with a member failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFault {
    /// The server's certificate was signed by nobody whom we trust.
    UnknownAuthority {
        /// What the server presented, as far as it can be read.
        presented: Option<CertificateSummary>,
        /// The file with the authorities trusted; without one, the system's are.
        ca_file: Option<PathBuf>,
        /// Their names.
        trusted: Vec<String>,
    },
    /// The server's certificate is past its end.
    Expired {
        /// What the server presented, as far as it can be read.
        presented: Option<CertificateSummary>,
    },
    /// The server's certificate is not valid yet.
    NotYetValid {
        /// What the server presented, as far as it can be read.
        presented: Option<CertificateSummary>,
    },
    /// The server's certificate is for other names.
    WrongName {
        /// The name in the endpoint.
        wanted: String,
        /// The names in the certificate.
        presented: Vec<String>,
    },
    /// The server's certificate is refused for another reason.
    BadCertificate {
        /// What the server presented, as far as it can be read.
        presented: Option<CertificateSummary>,
        /// The reason.
        reason: String,
    },
    /// The server demands a client certificate, and none was given.
    ClientCertificateWanted,
    /// The server refused the client certificate.
    ClientCertificateRefused {
        /// The certificate that we presented.
        cert: PathBuf,
        /// What it says.
        presented: Option<CertificateSummary>,
        /// The server's TLS alert.
        alert: String,
    },
    /// TLS was wanted, but the server speaks plain HTTP: the endpoint should begin with `http://`.
    PeerIsPlain,
    /// Plain HTTP was wanted, but the server speaks TLS: the endpoint should begin with `https://`.
    PeerIsTls,
    /// Anything else, in the words of the TLS library.
    Other(String),
}

/// What one certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateSummary {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The DNS names and IP addresses that it is for. The common name in its subject is none.
    pub names: Vec<String>,
    /// From when on it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
}

impl CertificateSummary {
    /// Reads a certificate in DER.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        Some(Self {
            subject: cert.subject().to_string(),
            issuer: cert.issuer().to_string(),
            names: names(&cert),
            not_before: cert.validity().not_before.timestamp(),
            not_after: cert.validity().not_after.timestamp(),
        })
    }
}

fn names(cert: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = cert.subject_alternative_name() else {
        return Vec::new();
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => <[u8; 4]>::try_from(*octets)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from))
            .ok()
            .map(|address| address.to_string()),
        _ => None,
    }
}

impl fmt::Display for CertificateSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}, signed by {:?}, valid from {} to {}",
            self.subject,
            self.issuer,
            Utc(self.not_before),
            Utc(self.not_after)
        )
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAuthority { presented, ca_file, trusted } => {
                write!(
                    f,
                    "its certificate{} is signed by an unknown authority: ",
                    Presented(presented)
                )?;
                match ca_file {
                    Some(path) => write!(f, "{} has {}", path.display(), trusted.join("; ")),
                    None => f.write_str("this system does not trust it"),
                }
            }
            Self::Expired { presented } => {
                write!(f, "its certificate{} has expired", Presented(presented))
            }
            Self::NotYetValid { presented } => {
                write!(f, "its certificate{} is not valid yet", Presented(presented))
            }
            Self::WrongName { wanted, presented } if presented.is_empty() => {
                write!(f, "its certificate is for no name at all, not for {wanted}")
            }
            Self::WrongName { wanted, presented } => {
                write!(f, "its certificate is for {}, not for {wanted}", presented.join(", "))
            }
            Self::BadCertificate { presented, reason } => {
                write!(f, "its certificate{} is refused: {reason}", Presented(presented))
            }
            Self::ClientCertificateWanted => {
                f.write_str("it demands a client certificate, and none is given")
            }
            Self::ClientCertificateRefused { cert, presented, alert } => {
                let path = cert.display();
                write!(f, "it refuses the client certificate {path}")?;
                write!(f, "{}: {alert}", Presented(presented))
            }
            Self::PeerIsPlain => f.write_str("it speaks plain HTTP, so the endpoint is http://…"),
            Self::PeerIsTls => f.write_str("it speaks TLS, so the endpoint is https://…"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// A certificate in the middle of a sentence.
struct Presented<'a>(&'a Option<CertificateSummary>);

impl fmt::Display for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(summary) => write!(f, " ({summary})"),
            None => Ok(()),
        }
    }
}

/// Seconds since 1970 as RFC 3339.
struct Utc(i64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(time) = OffsetDateTime::UNIX_EPOCH.checked_add(time::Duration::seconds(self.0))
        else {
            return write!(f, "second {}", self.0);
        };
        let (date, month) = (time.date(), u8::from(time.month()));
        write!(f, "{:04}-{month:02}-{:02}T", date.year(), date.day())?;
        write!(f, "{:02}:{:02}:{:02}Z", time.hour(), time.minute(), time.second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fault: &TlsFault, want: &str) {
        assert_eq!(fault.to_string(), want);
    }

    fn a_summary() -> Option<CertificateSummary> {
        Some(CertificateSummary {
            subject: "CN=etcd".into(),
            issuer: "CN=other-ca".into(),
            names: Vec::new(),
            not_before: 0,
            not_after: 1_700_000_000,
        })
    }

    #[test]
    fn faults_in_an_administrators_terms() {
        check(
            &TlsFault::UnknownAuthority {
                presented: a_summary(),
                ca_file: Some("/pki/ca.crt".into()),
                trusted: vec!["CN=etcd-ca".into()],
            },
            "its certificate (\"CN=etcd\", signed by \"CN=other-ca\", valid from \
             1970-01-01T00:00:00Z to 2023-11-14T22:13:20Z) is signed by an unknown \
             authority: /pki/ca.crt has CN=etcd-ca",
        );
        check(
            &TlsFault::UnknownAuthority { presented: None, ca_file: None, trusted: Vec::new() },
            "its certificate is signed by an unknown authority: this system does not trust it",
        );
        check(
            &TlsFault::WrongName {
                wanted: "10.0.0.1".into(),
                presented: vec!["localhost".into(), "127.0.0.1".into()],
            },
            "its certificate is for localhost, 127.0.0.1, not for 10.0.0.1",
        );
    }
}
