//! The secrets of an archive's generations: sealed to its owners in `keys/`, opened in memory.

use super::public::Public;
use super::seal::{Identity, Recipient, Unopened, seal, unseal};
use crate::error::Error;
use crate::format::keys::{SECRET_TEXT_MAX, SecretText};
use crate::format::{ArchiveId, Domain, Generation, ObjectId};
use crate::names::{self, KeyName};
use crate::store::Store;
use std::collections::BTreeMap;
use std::fmt;

/// Why a generation's secret is not at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// Nobody asked for any.
    NoIdentity,
    /// It is sealed to others; the identities open these.
    Others {
        /// Generations that they do open.
        open: Vec<Generation>,
    },
    /// The archive states no such generation.
    Unknown,
    /// What should hold it is damaged.
    Damaged {
        /// What is wrong with it.
        fault: String,
    },
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIdentity => f.write_str("and no identity was given"),
            Self::Others { open } => {
                let open: Vec<_> = open.iter().map(ToString::to_string).collect();
                write!(f, "which the identities given do not open: they open {}", open.join(", "))
            }
            Self::Unknown => f.write_str("which the archive does not state"),
            Self::Damaged { fault } => write!(f, "whose secret cannot be had: {fault}"),
        }
    }
}

/// The secret of one generation.
#[derive(Clone, Debug)]
pub(crate) struct Secret {
    pub identity: Identity,
    /// Whom it is sealed to, by all objects that were opened.
    pub recipients: Vec<Recipient>,
}

/// The secrets that the identities given have opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets {
    open: BTreeMap<Generation, Secret>,
    /// Objects that could not be used, of each generation the first.
    damaged: BTreeMap<Generation, String>,
}

impl Secrets {
    pub(crate) fn get(&self, generation: Generation) -> Result<&Secret, Closed> {
        self.open.get(&generation).ok_or_else(|| match self.damaged.get(&generation) {
            Some(fault) => Closed::Damaged { fault: fault.clone() },
            // At least one is open where identities were given.
            None if self.open.is_empty() => Closed::NoIdentity,
            None => Closed::Others { open: self.open.keys().copied().collect() },
        })
    }

    /// Opens what these identities open; at least one generation.
    pub(crate) fn open<'a>(
        store: &Store,
        generations: impl Iterator<Item = &'a Public>,
        identities: &[Identity],
    ) -> Result<Self, Error> {
        let publics: BTreeMap<_, _> =
            generations.map(|public| (public.keys.generation, public)).collect();
        let (mut secrets, mut first_fault, mut objects) = (Self::default(), None, 0);
        for found in store.list(names::KEYS)? {
            let Some(KeyName::Object(generation, id)) = names::parse_key(&found.name) else {
                continue;
            };
            // Of a generation that was being begun when its writer was killed.
            let Some(public) = publics.get(&generation) else { continue };
            objects += 1;
            let object = store.full_name(&found.name);
            let sealed = store.read(&found.name, SECRET_TEXT_MAX)?;
            match read_key_object(&object, id, &sealed, public, identities) {
                Ok(Some(secret)) => secrets.add(generation, secret),
                Ok(None) => {}
                Err(error) => {
                    secrets.damaged.entry(generation).or_insert_with(|| error.to_string());
                    first_fault = first_fault.or(Some(error));
                }
            }
        }
        let place = store.place().to_owned();
        match (secrets.open.is_empty(), first_fault) {
            (false, _) => Ok(secrets),
            (true, Some(fault)) => Err(fault),
            (true, None) if objects == 0 => Err(Error::KeysGone { place }),
            (true, None) => Err(Error::WrongIdentity { place }),
        }
    }

    fn add(&mut self, generation: Generation, found: Secret) {
        let known = self
            .open
            .entry(generation)
            .or_insert_with(|| Secret { identity: found.identity.clone(), recipients: Vec::new() });
        for recipient in found.recipients {
            if !known.recipients.contains(&recipient) {
                known.recipients.push(recipient);
            }
        }
    }
}

/// The secret in a key object; none where it is sealed to others.
fn read_key_object(
    object: &str,
    id: ObjectId,
    sealed: &[u8],
    public: &Public,
    identities: &[Identity],
) -> Result<Option<Secret>, Error> {
    let bad = |fault: String| Error::KeyObject { object: object.to_owned(), fault };
    if key_object_id(sealed) != id {
        return Err(bad("it was changed: its name is another's".to_owned()));
    }
    let text = match unseal(identities, sealed) {
        Ok(text) => text,
        Err(Unopened::NotOurs) => return Ok(None),
        Err(Unopened::Damaged(fault)) => return Err(bad(fault)),
    };
    let text = SecretText::parse(&text).map_err(|fault| bad(fault.to_string()))?;
    let (archive, generation) = (public.keys.archive, public.keys.generation);
    if text.archive != archive {
        return Err(Error::Stranger {
            object: object.to_owned(),
            got: format!("archive {}", text.archive),
            want: format!("archive {archive}"),
        });
    }
    if text.generation != generation {
        return Err(bad(format!("it holds the key of generation {}", text.generation)));
    }
    let recipients: Option<_> = text.recipients.iter().map(|text| text.parse().ok()).collect();
    match (Identity::parse(text.secret), recipients) {
        (Some(identity), Some(recipients)) if Some(identity.public()) == public.recipient => {
            Ok(Some(Secret { identity, recipients }))
        }
        (Some(_), Some(_)) => Err(Error::SwappedKey { object: object.to_owned(), generation }),
        _ => Err(bad("what it holds is no key".to_owned())),
    }
}

/// A key object is named by what it holds, so that damage is no riddle to those who cannot open it.
fn key_object_id(sealed: &[u8]) -> ObjectId {
    let digest = Domain::KeyObject.digest(&[sealed]);
    let mut id = [0; 16];
    id.iter_mut().zip(digest).for_each(|(byte, digit)| *byte = digit);
    ObjectId(id)
}

/// Seals the secret of a generation to its owners and puts it into the store; its name.
pub(crate) fn create_key_object(
    store: &Store,
    archive: ArchiveId,
    generation: Generation,
    secret: &Secret,
) -> Result<String, Error> {
    let recipients: Vec<_> = secret.recipients.iter().map(ToString::to_string).collect();
    let text = secret.identity.text();
    let recipients = recipients.iter().map(String::as_str).collect();
    let text = SecretText { archive, generation, recipients, secret: &text }.encode();
    let mut sealed = Vec::new();
    seal(&secret.recipients, &[&text], &mut sealed)
        .map_err(|cause| Error::Sealing { what: "a key", cause })?;
    let name = names::key_object(generation, key_object_id(&sealed));
    store.create(&name, sealed)?;
    Ok(name)
}
