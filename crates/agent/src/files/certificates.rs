//! Certificates among files, and when they expire.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rekindle_archive::format::files::{FileKind, Files};
use serde::{Deserialize, Serialize};
use x509_parser::pem::Pem;

/// The fields of a kubeconfig that hold certificates.
const IN_KUBECONFIGS: [&str; 2] = ["client-certificate-data:", "certificate-authority-data:"];
/// Most certificates of a file that are looked at: a bundle of authorities has hundreds.
const OF_FILE_MAX: usize = 4;

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The file.
    pub path: String,
    /// Whose it is.
    pub subject: String,
    /// When it expires.
    pub not_after: Timestamp,
}

/// Those in files in PEM, and in kubeconfigs. What cannot be read is passed over.
#[must_use]
pub fn certificates(files: &Files) -> Vec<Certificate> {
    let mut found = Vec::new();
    for entry in &files.entries {
        let FileKind::File(bytes) = &entry.what else { continue };
        let all = pems(bytes).into_iter().take(OF_FILE_MAX);
        found.extend(all.filter_map(|pem| certificate(&entry.path, &pem)));
    }
    found
}

fn pems(bytes: &[u8]) -> Vec<Pem> {
    let text = String::from_utf8_lossy(bytes);
    let values = text.lines().filter_map(|line| {
        let line = line.trim();
        IN_KUBECONFIGS.iter().find_map(|field| line.strip_prefix(field))
    });
    let embedded = values.filter_map(|value| STANDARD.decode(value.trim()).ok());
    let all = std::iter::once(bytes.to_vec()).chain(embedded);
    all.flat_map(|bytes| Pem::iter_from_buffer(&bytes).map_while(Result::ok).collect::<Vec<_>>())
        .collect()
}

fn certificate(path: &str, pem: &Pem) -> Option<Certificate> {
    let x509 = (pem.label == "CERTIFICATE").then(|| pem.parse_x509().ok())??;
    let not_after = Timestamp::from_second(x509.validity().not_after.timestamp()).ok()?;
    Some(Certificate { path: path.to_owned(), subject: x509.subject().to_string(), not_after })
}
