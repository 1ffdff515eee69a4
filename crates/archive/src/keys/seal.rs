//! Sealing, which is age's: to public keys of recipients, opened with their identities. What has to do
//! with keys the age crate does; the payload is ours ([`super::stream`]), for speed.
//!
//! What may never happen here: a secret in an error or in `{:?}`.

use super::stream::{Changed, FILE_KEY, NONCE, PayloadKey};
use age::secrecy::ExposeSecret;

use age_core::format::{FileKey, Stanza};
use bytes::{Buf, Bytes};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::iter;
use std::str::FromStr;
use zeroize::Zeroizing;

/// What age adds to a body at most, but for 16 bytes in each 64 KiB: its header and a nonce.
const OVERHEAD: usize = 1024;
/// Bytes of the pieces that age seals one by one.
const PIECE: usize = 64 << 10;

/// Why text is no key of the sort that was wanted. The text itself is not repeated: it may be a secret
/// in the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// Neither of the below.
    #[error("it is no public key of age, which begins with age1")]
    NotARecipient,
    /// A secret where a public key was wanted.
    #[error("it is a secret key, where its public key is wanted")]
    IsSecret,
    /// A public key where a secret was wanted.
    #[error("it is a public key, where the secret one is wanted")]
    IsPublic,
    /// A key of SSH.
    #[error("it is a key of SSH, which this rekindle does not use")]
    Ssh,
    /// A key that only a plugin of age can use.
    #[error("it needs a plugin of age, which rekindle does not run")]
    Plugin,
    /// An identity file that is protected with a passphrase.
    #[error("it is protected with a passphrase, which rekindle does not ask for")]
    Passphrase,
    /// No line of it is an identity of age.
    #[error("it holds no secret key of age, which begins with AGE-SECRET-KEY-1")]
    NoIdentity,
    /// A line of an identity file that is nothing.
    #[error("line {line} is no secret key of age")]
    Line {
        /// From 1.
        line: usize,
    },
    /// No signing key.
    #[error("it holds no signing key, which begins with REKINDLE-SIGNING-KEY-")]
    NotASigningKey,
    /// No public key of a signing key.
    #[error("it is no public signing key, which has 64 hexadecimal digits in lower case")]
    NotASigner,
}

/// Whom something is sealed to: a public X25519 key of age.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Recipient(age::x25519::Recipient);

impl FromStr for Recipient {
    type Err = KeyFault;

    fn from_str(text: &str) -> Result<Self, KeyFault> {
        let fault = match text {
            _ if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") => KeyFault::IsSecret,
            _ if text.starts_with("ssh-") => KeyFault::Ssh,
            // After age1 comes no other 1 in a key of age itself: 1 is no digit of Bech32.
            _ if text.strip_prefix("age1").is_some_and(|rest| rest.contains('1')) => {
                KeyFault::Plugin
            }
            _ => KeyFault::NotARecipient,
        };
        let recipient = text.parse().map(Self).map_err(|_| fault)?;
        // One key has one text, so that texts can be compared.
        if recipient.to_string() == text { Ok(recipient) } else { Err(KeyFault::NotARecipient) }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What opens things that were sealed to its public key. It is wiped when it is dropped.
#[derive(Clone)]
pub struct Identity(age::x25519::Identity);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the identity of {}", self.public())
    }
}

impl Identity {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// Its public key.
    #[must_use]
    pub fn public(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// What is written into an identity file; age's own tools read it.
    #[must_use]
    pub fn file_text(&self) -> Zeroizing<String> {
        let secret = self.text();
        let head = format!("# public key: {}\n", self.public());
        let mut text = Zeroizing::new(String::with_capacity(head.len() + secret.len() + 1));
        text.push_str(&head);
        text.push_str(&secret);
        text.push('\n');
        text
    }

    /// age's text of it.
    pub(crate) fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.to_string().expose_secret().to_owned())
    }

    /// age's text, alone.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    /// The identities in the text of an identity file, at least one.
    ///
    /// # Errors
    /// [`KeyFault`].
    pub fn parse_file(text: &str) -> Result<Vec<Self>, KeyFault> {
        let begins = |head: &str| text.trim_start().starts_with(head);
        if begins("age-encryption.org/") || begins("-----BEGIN AGE ENCRYPTED FILE-----") {
            return Err(KeyFault::Passphrase);
        }
        if begins("-----BEGIN ") {
            return Err(KeyFault::Ssh);
        }
        let mut identities = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            identities.push(Self::parse(line).ok_or(match line {
                _ if line.starts_with("AGE-PLUGIN-") => KeyFault::Plugin,
                _ if line.starts_with("age1") => KeyFault::IsPublic,
                _ => KeyFault::Line { line: index + 1 },
            })?);
        }
        if identities.is_empty() { Err(KeyFault::NoIdentity) } else { Ok(identities) }
    }
}

/// Why something that is sealed was not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unopened {
    /// It was sealed to none of these identities' public keys.
    NotOurs,
    /// It was changed, or is nothing of age's.
    Damaged(String),
}

/// A public key or identities as age sees them, and the key of the file that went through: by that we
/// seal and open the payload ourselves.
struct Joint<'a, T> {
    inner: &'a [T],
    file_key: RefCell<Option<Zeroizing<[u8; FILE_KEY]>>>,
}

impl<'a, T> Joint<'a, T> {
    fn new(inner: &'a [T]) -> Self {
        Self { inner, file_key: RefCell::default() }
    }

    fn saw(&self, file_key: &FileKey) {
        *self.file_key.borrow_mut() = Some(Zeroizing::new(*file_key.expose_secret()));
    }

    /// The key of the payload behind this nonce.
    fn payload_key(self, nonce: Option<&[u8; NONCE]>) -> Option<PayloadKey> {
        let file_key = self.file_key.into_inner()?;
        PayloadKey::new(&file_key, nonce?).ok()
    }
}

impl age::Recipient for Joint<'_, Recipient> {
    fn wrap_file_key(
        &self,
        file_key: &FileKey,
    ) -> Result<(Vec<Stanza>, HashSet<String>), age::EncryptError> {
        self.saw(file_key);
        let mut stanzas = Vec::new();
        for recipient in self.inner {
            stanzas.extend(recipient.0.wrap_file_key(file_key)?.0);
        }
        // Keys of this sort have no labels.
        Ok((stanzas, HashSet::new()))
    }
}

impl age::Identity for Joint<'_, Identity> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, age::DecryptError>> {
        let found = self.inner.iter().find_map(|identity| identity.0.unwrap_stanza(stanza))?;
        if let Ok(file_key) = &found {
            self.saw(file_key);
        }
        Some(found)
    }
}

/// Seals the parts, one behind the other, to all recipients, and puts that behind `out`.
///
/// # Errors
/// What age says; it fails only where there is no recipient.
pub(crate) fn seal(
    recipients: &[Recipient],
    parts: &[&[u8]],
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve_exact(len + len / PIECE * 16 + recipients.len() * 128 + OVERHEAD);
    let joint = Joint::new(recipients);
    let to = (!recipients.is_empty()).then_some(&joint as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(to.into_iter());
    let encryptor = encryptor.map_err(|error| error.to_string())?;
    // Head and nonce are written at once, and nothing else before something is to be sealed.
    drop(encryptor.wrap_output(&mut *out).map_err(|error| error.to_string())?);
    let key = joint.payload_key(out.last_chunk());
    let sealed = key.ok_or(Changed).and_then(|key| key.seal(parts, out));
    sealed.map_err(|Changed| "the cipher failed".to_owned())
}

/// Opens what was sealed, whole. What comes out is wiped when it is dropped.
pub(crate) fn unseal(
    identities: &[Identity],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Unopened> {
    // A buffer that grows would leave a part of it behind in the one before.
    let mut opened = Zeroizing::new(Vec::with_capacity(sealed.len()));
    unseal_into(identities, sealed, &mut opened)?;
    Ok(opened)
}

/// Opens a body. Nobody wipes it: it is the cluster's records, of which memory is full meanwhile.
pub(crate) fn unseal_body(identity: &Identity, sealed: Bytes) -> Result<Bytes, Unopened> {
    let (key, head) = payload_key(std::slice::from_ref(identity), &sealed)?;
    match sealed.try_into_mut() {
        // Nobody else has them: no other memory is needed.
        Ok(mut bytes) => {
            bytes.advance(head);
            let opened = key.open_in_place(&mut bytes).map_err(changed)?;
            bytes.truncate(opened);
            Ok(bytes.freeze())
        }
        Err(sealed) => {
            let mut opened = Vec::with_capacity(sealed.len());
            let payload = sealed.get(head..).unwrap_or_default();
            key.open(payload, &mut opened).map_err(changed)?;
            Ok(opened.into())
        }
    }
}

fn changed(_: Changed) -> Unopened {
    Unopened::Damaged("it was changed or cut".to_owned())
}

fn unseal_into(
    identities: &[Identity],
    sealed: &[u8],
    opened: &mut Vec<u8>,
) -> Result<(), Unopened> {
    let (key, head) = payload_key(identities, sealed)?;
    key.open(sealed.get(head..).unwrap_or_default(), opened).map_err(changed)
}

/// What opens a payload, and the bytes of the head before it.
fn payload_key(identities: &[Identity], sealed: &[u8]) -> Result<(PayloadKey, usize), Unopened> {
    let damaged = |error: age::DecryptError| match error {
        age::DecryptError::NoMatchingKeys => Unopened::NotOurs,
        error => Unopened::Damaged(plain(&error).to_owned()),
    };
    let mut payload = sealed;
    let decryptor = age::Decryptor::new_buffered(&mut payload).map_err(damaged)?;
    if decryptor.is_scrypt() {
        return Err(Unopened::NotOurs);
    }
    // This compares the head's MAC; the reader that it gives has read nothing yet.
    let joint = Joint::new(identities);
    let head = decryptor.decrypt(iter::once(&joint as &dyn age::Identity)).map(drop);
    head.map_err(damaged)?;
    let len = sealed.len() - payload.len();
    let key = joint.payload_key(sealed.get(..len).and_then(<[u8]>::last_chunk));
    Ok((key.ok_or(Changed).map_err(changed)?, len))
}

/// age's errors in our words: its own come in the language of the environment.
fn plain(error: &age::DecryptError) -> &'static str {
    match error {
        age::DecryptError::InvalidMac => "its head was changed",
        age::DecryptError::UnknownFormat => "it is of a later version of age",
        age::DecryptError::Io(_) => "it ends within its head",
        _ => "it is nothing that age has sealed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_is_sealed_to_several_is_opened_by_each() {
        let identities = [Identity::generate(), Identity::generate(), Identity::generate()];
        let recipients: Vec<_> = identities[..2].iter().map(Identity::public).collect();
        for len in [0, 1, PIECE - 3, PIECE, 3 * PIECE + 1] {
            let body = vec![7; len];
            let mut sealed = b"before".to_vec();
            seal(&recipients, &[b"abc", &body], &mut sealed).unwrap();
            assert!(sealed.starts_with(b"before"));
            let sealed = &sealed[6..];
            let want = [&b"abc"[..], &body].concat();
            for identity in &identities[..2] {
                assert_eq!(unseal_body(identity, sealed.to_vec().into()).unwrap(), want);
                let shared = Bytes::copy_from_slice(sealed);
                assert_eq!(unseal_body(identity, shared.clone()).unwrap(), want);
                drop(shared);
            }
            assert_eq!(*unseal(&identities, sealed).unwrap(), want);
            let nobody = unseal_body(&identities[2], sealed.to_vec().into());
            assert_eq!(nobody.unwrap_err(), Unopened::NotOurs);
        }
        assert!(seal(&[], &[b"x"], &mut Vec::new()).is_err());
    }

    /// The age crate opens what we seal, and we open what it seals.
    #[test]
    fn it_is_what_age_does() {
        let (one, other) = (Identity::generate(), Identity::generate());
        let recipients = [one.public(), other.public()];
        for len in [1, PIECE - 1, PIECE, PIECE + 1, 40 * PIECE, 40 * PIECE + 5] {
            let body: Vec<u8> = (0..len).map(|at| (at % 241) as u8).collect();
            let mut ours = Vec::new();
            seal(&recipients, &[&body[..len / 2], &body[len / 2..]], &mut ours).unwrap();
            let decryptor = age::Decryptor::new(&ours[..]).unwrap();
            let mut reader = decryptor.decrypt(iter::once(&other.0 as _)).unwrap();
            let mut opened = Vec::new();
            reader.read_to_end(&mut opened).unwrap();
            assert!(opened == body, "{len}");

            let to = recipients.iter().map(|recipient| &recipient.0 as _);
            let encryptor = age::Encryptor::with_recipients(to).unwrap();
            let mut theirs = Vec::new();
            let mut writer = encryptor.wrap_output(&mut theirs).unwrap();
            writer.write_all(&body).unwrap();
            writer.finish().unwrap();
            assert!(unseal_body(&other, theirs.into()).unwrap() == body, "{len}");
        }
    }

    #[test]
    fn recipients_are_public_keys_of_age() {
        let identity = Identity::generate();
        let (secret, public) = (identity.text(), identity.public().to_string());
        assert_eq!(public.parse(), Ok(identity.public()));
        let check = |text: &str, want| assert_eq!(text.parse::<Recipient>(), Err(want), "{text}");
        check("", KeyFault::NotARecipient);
        check(&public[..20], KeyFault::NotARecipient);
        check(&public.to_uppercase(), KeyFault::NotARecipient);
        check(&secret, KeyFault::IsSecret);
        check("ssh-ed25519 AAAA", KeyFault::Ssh);
        check("age1yubikey1qqqq", KeyFault::Plugin);
        assert!(!format!("{identity:?}").contains(secret.as_str()));
    }

    #[test]
    fn identity_files_are_ages() {
        let (one, other) = (Identity::generate(), Identity::generate());
        let text = format!("{}\n\n  {}\n", one.file_text().as_str(), other.text().as_str());
        let read = Identity::parse_file(&text).unwrap();
        let publics: Vec<_> = read.iter().map(Identity::public).collect();
        assert_eq!(publics, [one.public(), other.public()]);
        let check = |text: &str, want| {
            let fault = Identity::parse_file(text).unwrap_err();
            assert_eq!(fault, want);
        };
        check("", KeyFault::NoIdentity);
        check("# nothing\n", KeyFault::NoIdentity);
        check("age-encryption.org/v1\n-> scrypt", KeyFault::Passphrase);
        check("-----BEGIN AGE ENCRYPTED FILE-----\n", KeyFault::Passphrase);
        check("-----BEGIN OPENSSH PRIVATE KEY-----\n", KeyFault::Ssh);
        check("AGE-PLUGIN-YUBIKEY-1QQQ\n", KeyFault::Plugin);
        check(&one.public().to_string(), KeyFault::IsPublic);
        check("\nnonsense\n", KeyFault::Line { line: 2 });
    }
}
