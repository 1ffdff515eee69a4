//! The keys of an archive: what of them is public, and the text in which a secret one is kept.
//!
//! An archive's keys come in *generations*, numbered from 1. Each has a key pair that bodies are sealed
//! with, and a key pair that follows from its secret and *endorses* the next generation. A generation's
//! *fingerprint* is the digest of everything that is public of it and of the one before: who knows the
//! newest one knows all.
//!
//! ```text
//! what a fingerprint digests
//!   16      archive
//!    4      generation
//!   32      fingerprint of the generation before, zeros of the first
//!   sized   public key that bodies are sealed to, in age's text; empty where they are not
//!   32      public key that endorses the next generation; zeros where nothing is sealed
//!   varint  signers
//!   32      public key of each signer, ascending
//!
//! the secret of a generation: lines of text, which age itself can read
//!   # rekindle archive <id>
//!   # generation <number>
//!   # recipient <public key>         one for each that it was sealed to
//!   AGE-SECRET-KEY-1<...>
//! ```
//!
//! What may never happen here: a secret that is printed by `{:?}`, or copied and not wiped.

use super::cursor::Put;
use super::digest::{DIGEST, Domain};
use super::fault::FormatFault;
use super::id::{ArchiveId, parse_hex, write_hex};
use std::fmt;
use zeroize::Zeroizing;

/// Bytes of a public key for signatures.
pub const PUBLIC_KEY: usize = 32;
/// Most bytes of a sealed secret: some thousands of recipients.
pub const SECRET_TEXT_MAX: u64 = 1 << 20;

const WHAT: &str = "the text of a key";
const ARCHIVE: &str = "# rekindle archive ";
const GENERATION: &str = "# generation ";
const RECIPIENT: &str = "# recipient ";

/// A generation of an archive's keys, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

impl Generation {
    /// No generation: what is not sealed.
    pub const NONE: Self = Self(0);
    /// The one that an archive is made with.
    pub const FIRST: Self = Self(1);

    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What tells one generation of one archive's public keys from everything else.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; DIGEST]);

impl Fingerprint {
    /// From its 64 hexadecimal digits, in lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }

    /// What the generation before signs to endorse the one with this fingerprint.
    #[must_use]
    pub fn endorsed(&self) -> Vec<u8> {
        [b"rekindle 2026 endorsement".as_slice(), &self.0].concat()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The public keys of a generation that seals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealingKeys {
    /// What bodies are sealed to, as age writes it.
    pub recipient: String,
    /// What the endorsement of the next generation is verified with.
    pub endorser: [u8; PUBLIC_KEY],
}

/// Everything public of one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKeys {
    /// Whose keys these are.
    pub archive: ArchiveId,
    /// Which they are.
    pub generation: Generation,
    /// The generation before; none of the first.
    pub previous: Option<Fingerprint>,
    /// None where nothing is sealed.
    pub sealing: Option<SealingKeys>,
    /// Whose signatures are good, ascending; where there are none, nothing is signed.
    pub signers: Vec<[u8; PUBLIC_KEY]>,
}

impl PublicKeys {
    /// What tells them from all others.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.archive.0);
        bytes.extend_from_slice(&self.generation.0.to_le_bytes());
        bytes.extend_from_slice(&self.previous.map_or([0; DIGEST], |before| before.0));
        let sealing = self.sealing.as_ref();
        bytes.put_sized(sealing.map_or(&[][..], |keys| keys.recipient.as_bytes()));
        bytes.extend_from_slice(&sealing.map_or([0; PUBLIC_KEY], |keys| keys.endorser));
        bytes.put_varint(self.signers.len() as u64);
        self.signers.iter().for_each(|signer| bytes.extend_from_slice(signer));
        Fingerprint(Domain::Fingerprint.digest(&[&bytes]))
    }
}

/// The secret of a generation, as its text says it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText<'a> {
    /// Whose key it is.
    pub archive: ArchiveId,
    /// Which it is.
    pub generation: Generation,
    /// Whom it was sealed to; at least one.
    pub recipients: Vec<&'a str>,
    /// age's text of the identity.
    pub secret: &'a str,
}

impl fmt::Debug for SecretText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the secret of generation {} of {}", self.generation, self.archive)
    }
}

impl<'a> SecretText<'a> {
    /// The text; it is wiped when it is dropped.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let heads = [ARCHIVE, GENERATION, RECIPIENT, RECIPIENT];
        let recipients: usize =
            self.recipients.iter().map(|text| RECIPIENT.len() + text.len() + 1).sum();
        let room = heads.map(str::len).into_iter().sum::<usize>() + 64 + self.secret.len();
        // A buffer that grows would leave the secret behind in the one before.
        let mut text = Zeroizing::new(Vec::with_capacity(room + recipients));
        let head = format!("{ARCHIVE}{}\n{GENERATION}{}\n", self.archive, self.generation);
        text.extend_from_slice(head.as_bytes());
        for recipient in &self.recipients {
            text.extend_from_slice(format!("{RECIPIENT}{recipient}\n").as_bytes());
        }
        text.extend_from_slice(self.secret.as_bytes());
        text.push(b'\n');
        text
    }

    /// Reads what [`Self::encode`] writes, and nothing else.
    ///
    /// # Errors
    /// [`FormatFault::Senseless`]; [`FormatFault::Ends`].
    pub fn parse(text: &'a [u8]) -> Result<Self, FormatFault> {
        let senseless = FormatFault::Senseless { what: WHAT };
        let text = std::str::from_utf8(text).map_err(|_| senseless.clone())?;
        let mut rest = text;
        let mut line = || {
            let (line, behind) = rest.split_once('\n')?;
            rest = behind;
            Some(line)
        };
        let ends = FormatFault::Ends { what: WHAT };
        let archive = line().ok_or(ends.clone())?.strip_prefix(ARCHIVE);
        let archive = archive.and_then(ArchiveId::parse).ok_or(senseless.clone())?;
        let number = line().ok_or(ends.clone())?.strip_prefix(GENERATION);
        let generation = number.and_then(parse_generation).ok_or(senseless.clone())?;
        let mut recipients = Vec::new();
        let secret = loop {
            let line = line().ok_or(ends.clone())?;
            match line.strip_prefix(RECIPIENT) {
                Some(recipient) if is_word(recipient) => recipients.push(recipient),
                Some(_) => return Err(senseless),
                None => break line,
            }
        };
        if recipients.is_empty() || !is_word(secret) || line().is_some() || !rest.is_empty() {
            return Err(senseless);
        }
        Ok(Self { archive, generation, recipients, secret })
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// A generation in its one form.
fn parse_generation(text: &str) -> Option<Generation> {
    let number = text.parse().ok().map(Generation)?;
    (number != Generation::NONE && number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public_keys() -> PublicKeys {
        PublicKeys {
            archive: ArchiveId([1; 16]),
            generation: Generation(2),
            previous: Some(Fingerprint([2; 32])),
            sealing: Some(SealingKeys { recipient: "age1x".to_owned(), endorser: [3; 32] }),
            signers: vec![[4; 32]],
        }
    }

    #[test]
    fn a_fingerprint_is_of_everything() {
        let keys = public_keys();
        let others = [
            PublicKeys { archive: ArchiveId([2; 16]), ..keys.clone() },
            PublicKeys { generation: Generation(3), ..keys.clone() },
            PublicKeys { previous: None, ..keys.clone() },
            PublicKeys { sealing: None, ..keys.clone() },
            PublicKeys {
                sealing: Some(SealingKeys { recipient: "age1y".to_owned(), endorser: [3; 32] }),
                ..keys.clone()
            },
            PublicKeys {
                sealing: Some(SealingKeys { recipient: "age1x".to_owned(), endorser: [4; 32] }),
                ..keys.clone()
            },
            PublicKeys { signers: vec![], ..keys.clone() },
            PublicKeys { signers: vec![[4; 32], [5; 32]], ..keys.clone() },
        ];
        let fingerprint = keys.fingerprint();
        for other in others {
            assert_ne!(other.fingerprint(), fingerprint, "{other:?}");
        }
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Some(fingerprint));
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()[1..]), None);
        // What hosts have pinned must be the same for ever.
        let want = "9aac1698932f36a57941e00f3058535af97f3d7a14d56c73e846f8d5a1e3f41c";
        assert_eq!(fingerprint.to_string(), want);
    }

    fn a_secret() -> SecretText<'static> {
        SecretText {
            archive: ArchiveId([1; 16]),
            generation: Generation(7),
            recipients: vec!["age1a", "age1b"],
            secret: "AGE-SECRET-KEY-1CANARY",
        }
    }

    #[test]
    fn the_text_of_a_secret_is_read_as_it_was_written() {
        let text = a_secret().encode();
        assert_eq!(SecretText::parse(&text).unwrap(), a_secret());
        assert!(!format!("{:?}", a_secret()).contains("CANARY"));
        for len in 0..text.len() {
            assert!(SecretText::parse(&text[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn what_no_writer_writes_is_refused() {
        let text = String::from_utf8(a_secret().encode().to_vec()).unwrap();
        let check = |from: &str, to: &str| {
            let bad = text.replace(from, to);
            assert_ne!(bad, text);
            let fault = SecretText::parse(bad.as_bytes()).unwrap_err();
            assert!(!fault.to_string().contains("CANARY"), "{fault}");
        };
        check("# generation 7", "# generation 07");
        check("# generation 7", "# generation 0");
        check("# generation 7", "# generation +7");
        check("# generation 7", "# generation 4294967296");
        check("archive 01", "archive 0");
        check("# recipient age1a\n# recipient age1b\n", "");
        check("age1a", "");
        check("age1a", "age 1a");
        check("AGE-", "# AGE-");
        check("CANARY\n", "CANARY\n\n");
        check("CANARY\n", "CANARY\nmore");
        check("\n", "\r\n");
        assert!(SecretText::parse(&[0xff]).is_err());
    }
}
