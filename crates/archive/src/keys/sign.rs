//! Signatures: Ed25519.
//!
//! What may never happen here: a secret in an error or in `{:?}`.

use super::seal::{Identity, KeyFault};
use crate::error::Error;
use crate::format::Domain;
use crate::format::header::SIGNATURE;
use crate::format::keys::{Fingerprint, PUBLIC_KEY};
use crate::format::{hex, parse_hex};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// The first letters of a signing key, so that who finds one knows what it is.
const PREFIX: &str = "REKINDLE-SIGNING-KEY-";

/// Who signs objects. It is wiped when it is dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the signing key of {}", self.public())
    }
}

impl SigningKey {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Machine`]: it gives no randomness.
    pub fn generate() -> Result<Self, Error> {
        let mut seed = Zeroizing::new([0; PUBLIC_KEY]);
        getrandom::fill(seed.as_mut()).map_err(|error| Error::Machine {
            what: "asking the machine for randomness",
            cause: error.to_string(),
        })?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(&seed)))
    }

    /// The one that endorses the generation after the one with this secret.
    pub(crate) fn endorser(secret: &Identity) -> Self {
        let seed = Zeroizing::new(Domain::Endorser.digest(&[secret.text().as_bytes()]));
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// Its public key.
    #[must_use]
    pub fn public(&self) -> Signer {
        Signer(self.0.verifying_key())
    }

    /// What is written into its file.
    #[must_use]
    pub fn file_text(&self) -> Zeroizing<String> {
        let digits = Zeroizing::new(hex(self.0.as_bytes()));
        let head = format!("# public key: {}\n", self.public());
        let mut text = Zeroizing::new(String::with_capacity(head.len() + PREFIX.len() + 65));
        for part in [&head, PREFIX, &digits, "\n"] {
            text.push_str(part);
        }
        text
    }

    /// Reads what [`Self::file_text`] writes.
    ///
    /// # Errors
    /// [`KeyFault::NotASigningKey`].
    pub fn parse_file(text: &str) -> Result<Self, KeyFault> {
        let lines = text.lines().map(str::trim);
        let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let seed = lines.next().and_then(|line| line.strip_prefix(PREFIX)).and_then(parse_hex);
        match (seed.map(Zeroizing::new), lines.next()) {
            (Some(seed), None) => Ok(Self(ed25519_dalek::SigningKey::from_bytes(&seed))),
            _ => Err(KeyFault::NotASigningKey),
        }
    }

    pub(crate) fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE] {
        self.0.sign(bytes).to_bytes()
    }

    pub(crate) fn endorse(&self, next: &Fingerprint) -> [u8; SIGNATURE] {
        self.sign(&next.endorsed())
    }
}

/// Whose signatures are good: the public part of a [`SigningKey`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signer(VerifyingKey);

impl FromStr for Signer {
    type Err = KeyFault;

    fn from_str(text: &str) -> Result<Self, KeyFault> {
        match parse_hex(text).and_then(|bytes| Self::from_bytes(&bytes)) {
            Some(signer) => Ok(signer),
            None if text.starts_with(PREFIX) => Err(KeyFault::IsSecret),
            None => Err(KeyFault::NotASigner),
        }
    }
}

impl Signer {
    /// None where these bytes are no public key, or one for which anybody can sign.
    pub(crate) fn from_bytes(bytes: &[u8; PUBLIC_KEY]) -> Option<Self> {
        VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak()).map(Self)
    }

    pub(crate) fn to_bytes(self) -> [u8; PUBLIC_KEY] {
        self.0.to_bytes()
    }

    pub(crate) fn has_signed(&self, bytes: &[u8], signature: &[u8; SIGNATURE]) -> bool {
        self.0.verify_strict(bytes, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.0.as_bytes()))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_signatures_are_good() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let mut signature = key.sign(b"bytes");
        assert!(key.public().has_signed(b"bytes", &signature));
        assert!(!key.public().has_signed(b"byteS", &signature));
        assert!(!other.public().has_signed(b"bytes", &signature));
        for bit in 0..SIGNATURE * 8 {
            signature[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.public().has_signed(b"bytes", &signature), "bit {bit}");
            signature[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_signing_key_is_read_from_its_file() {
        let key = SigningKey::generate().unwrap();
        let text = key.file_text();
        let read = SigningKey::parse_file(&text).unwrap();
        assert_eq!(read.public(), key.public());
        assert_eq!(key.public().to_string().parse(), Ok(key.public()));
        let secret = text.lines().nth(1).unwrap();
        assert!(!format!("{key:?}").contains(&secret[PREFIX.len()..]));
        assert_eq!(secret.parse::<Signer>(), Err(KeyFault::IsSecret));
        let twice = format!("{0}\n{0}", text.as_str());
        for bad in ["", "# nothing", &secret[..80], &secret.to_lowercase(), &twice] {
            assert_eq!(SigningKey::parse_file(bad).unwrap_err(), KeyFault::NotASigningKey);
        }
        // The neutral element: anybody signs for it.
        let weak = format!("01{}", "0".repeat(62));
        for bad in ["", "00", &key.public().to_string().to_uppercase(), &weak] {
            assert_eq!(bad.parse::<Signer>(), Err(KeyFault::NotASigner), "{bad}");
        }
    }

    #[test]
    fn an_endorser_follows_from_its_secret() {
        let secret = Identity::generate();
        let endorser = SigningKey::endorser(&secret).public();
        assert_eq!(SigningKey::endorser(&secret).public(), endorser);
        assert_ne!(SigningKey::endorser(&Identity::generate()).public(), endorser);
    }
}
