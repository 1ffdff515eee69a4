//! Certificates, as they lie in files.

use super::finding;
use crate::health::{Finding, Severity};
use jiff::Timestamp;
use std::net::IpAddr;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

/// A certificate that an etcd serves with, and what goes with it.
#[derive(Clone, Debug, Default)]
pub struct KeyPair {
    /// Where the certificate is, and the file itself.
    pub cert: (String, Vec<u8>),
    /// Where its key is, and who may read it (`st_mode`).
    pub key: Option<(String, u32)>,
    /// Where the authorities are that the others trust, and that file.
    pub authorities: Option<(String, Vec<u8>)>,
    /// Hosts of the URLs at which it is reached.
    pub hosts: Vec<String>,
    /// It is a client's as well: peers are.
    pub is_client: bool,
}

/// Looks at it.
#[must_use]
pub fn key_pair(pair: &KeyPair, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    let path = &pair.cert.0;
    if let Some((key, mode)) = pair.key.as_ref().filter(|(_, mode)| mode & 0o077 != 0) {
        let what =
            format!("the private key {key} has mode {:o}: others may read it", mode & 0o7777);
        found.push(finding(
            ("KeyReadable", Severity::Warning),
            what,
            "chmod 600, and who owns etcd's process owns it",
        ));
    }
    let pems = pems(&pair.cert.1);
    let Some(certificate) = pems.first().and_then(|pem| pem.parse_x509().ok()) else {
        let what = format!("{path} has no certificate in it");
        let remedy = "look at the file: kubeadm certs renew all, or whoever has issued it";
        found.push(finding(("NoCertificate", Severity::Urgent), what, remedy));
        return found;
    };
    found.extend(validity(path, &certificate, now));
    found.extend(names(path, &certificate, &pair.hosts));
    found.extend(usage(path, &certificate, pair.is_client));
    if let Some((authorities, bytes)) = &pair.authorities {
        found.extend(authority(path, &certificate, authorities, bytes));
    }
    found
}

fn pems(bytes: &[u8]) -> Vec<Pem> {
    let pems = Pem::iter_from_buffer(bytes).map_while(Result::ok);
    pems.filter(|pem| pem.label == "CERTIFICATE").collect()
}

fn validity(path: &str, certificate: &X509Certificate<'_>, now: Timestamp) -> Option<Finding> {
    let validity = certificate.validity();
    let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let shown =
        |second| Timestamp::from_second(second).map(|it| it.to_string()).unwrap_or_default();
    if now.as_second() > to {
        let what = format!(
            "{path} has expired at {}: every connection is refused (x509: certificate has expired)",
            shown(to)
        );
        let remedy =
            "kubeadm certs renew all, or whoever has issued it; etcd takes a new one from disk";
        return Some(finding(("Expired", Severity::Urgent), what, remedy));
    }
    (now.as_second() < from).then(|| {
        let what = format!("{path} is valid only from {} on", shown(from));
        finding(
            ("NotYetValid", Severity::Urgent),
            what,
            "look at this host's clock (timedatectl), and at that of who has issued it",
        )
    })
}

/// Each host at which it is reached has to be among its names.
fn names(path: &str, certificate: &X509Certificate<'_>, hosts: &[String]) -> Option<Finding> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let is_named = |host: &&String| names.iter().any(|name| is_name(name, host));
    let missing: Vec<_> = hosts.iter().filter(|host| !is_named(host)).cloned().collect();
    (!missing.is_empty()).then(|| {
        let all: Vec<_> = names.iter().map(shown).collect();
        let what = format!(
            "{path} does not name {} (it names {}): x509: certificate is valid for other names",
            missing.join(", "),
            all.join(", ")
        );
        finding(
            ("HostName", Severity::Urgent),
            what,
            "issue one that names every host and address of its URLs, as subject alternative names",
        )
    })
}

fn is_name(name: &GeneralName<'_>, host: &str) -> bool {
    match (name, host.parse::<IpAddr>()) {
        (GeneralName::IPAddress(bytes), Ok(address)) => match address {
            IpAddr::V4(address) => *bytes == address.octets(),
            IpAddr::V6(address) => *bytes == address.octets(),
        },
        (GeneralName::DNSName(name), Err(_)) => match name.strip_prefix("*.") {
            Some(rest) => {
                host.split_once('.').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(rest))
            }
            None => name.eq_ignore_ascii_case(host),
        },
        _ => false,
    }
}

fn shown(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(|it| IpAddr::from(it).to_string());
            let six = || <[u8; 16]>::try_from(*bytes).map(|it| IpAddr::from(it).to_string());
            four.or_else(|_| six()).unwrap_or_default()
        }
        other => other.to_string(),
    }
}

fn usage(path: &str, certificate: &X509Certificate<'_>, is_client: bool) -> Option<Finding> {
    let usage = certificate.extended_key_usage().ok().flatten()?.value;
    let missing = match (usage.any, usage.server_auth, usage.client_auth) {
        (true, ..) => None,
        (_, false, _) => Some("serverAuth"),
        (_, _, false) if is_client => Some("clientAuth"),
        _ => None,
    }?;
    let what = format!(
        "{path} lacks the extended key usage {missing}: x509: certificate specifies an incompatible key usage"
    );
    Some(finding(
        ("KeyUsage", Severity::Urgent),
        what,
        "issue one with serverAuth and clientAuth: a peer is both",
    ))
}

fn authority(
    path: &str,
    certificate: &X509Certificate<'_>,
    authorities: &str,
    bytes: &[u8],
) -> Option<Finding> {
    let pems = pems(bytes);
    let has_signed = |pem: &Pem| {
        pem.parse_x509().is_ok_and(|authority| {
            authority.subject() == certificate.issuer()
                && certificate.verify_signature(Some(authority.public_key())).is_ok()
        })
    };
    (!pems.iter().any(has_signed)).then(|| {
        let what = format!(
            "no authority in {authorities} has signed {path} (issuer: {}): x509: certificate signed by unknown authority",
            certificate.issuer()
        );
        let remedy = "put the authority that has signed it into the bundle of all members and clients, or issue one that theirs has signed";
        finding(("Authority", Severity::Urgent), what, remedy)
    })
}
