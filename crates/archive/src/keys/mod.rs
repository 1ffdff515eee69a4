//! The keys of an archive: the public ones that everybody sees, and what this process can do with the
//! secrets that it was given.
//!
//! Whoever writes needs public keys only, and his own signing key where signatures are demanded.
//! Secrets of generations are there only where identities were given, and only in memory.
//!
//! What may never happen here: an object that is taken for the archive's own although it is not sealed
//! or signed as the archive's are; a generation that is believed without the endorsement of the one
//! before; a secret that touches a store unsealed.

mod public;
mod rekey;
mod seal;
mod secrets;
mod sign;
mod stream;

pub(crate) use public::{ArchiveKeys, KNOWN, Public, later_generations};
pub use rekey::{RekeyFault, RekeyPlan, RekeyRequest};
pub(crate) use rekey::{execute, plan};
pub use seal::{Identity, KeyFault, Recipient};
pub(crate) use seal::{Unopened, seal, unseal_body};
pub use secrets::Closed;
pub(crate) use secrets::{Secret, Secrets, create_key_object};
pub use sign::{Signer, SigningKey};

use crate::error::Error;
use crate::format::header::{FLAG_SEALED, FLAG_SIGNED};
use crate::format::{Generation, Header};

/// How a new archive is to be protected.
#[derive(Clone, Debug)]
pub struct Protection {
    /// Whether what it holds is sealed, and to whom.
    pub sealing: Sealing,
    /// Whose signatures are demanded; where there are none, nothing is signed.
    pub signers: Vec<Signer>,
}

/// Whether what an archive holds is sealed.
#[derive(Clone, Debug)]
pub enum Sealing {
    /// Whoever reads the store reads the cluster's secrets.
    Unencrypted,
    /// To a key pair of its own, whose secret is sealed to these.
    To(Vec<Recipient>),
}

/// The keys of an archive that was opened.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    first: Public,
    /// From the second on.
    later: Vec<Public>,
    pub secrets: Secrets,
    pub signing: Option<SigningKey>,
}

impl Keys {
    /// Public keys only.
    pub(crate) fn new(first: Public, later: Vec<Public>) -> Self {
        Self { first, later, secrets: Secrets::default(), signing: None }
    }

    /// What new objects are sealed to and signed for.
    pub(crate) fn newest(&self) -> &Public {
        self.later.last().unwrap_or(&self.first)
    }

    /// All generations, in their order.
    pub(crate) fn generations(&self) -> impl Iterator<Item = &Public> {
        std::iter::once(&self.first).chain(&self.later)
    }

    fn generation(&self, wanted: Generation) -> Option<&Public> {
        self.generations().find(|public| public.keys.generation == wanted)
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.first.recipient.is_some()
    }

    /// The header's flags and generation of what is written now.
    pub(crate) fn marks(&self) -> (u8, Generation) {
        let newest = self.newest();
        let signed = if newest.signers.is_empty() { 0 } else { FLAG_SIGNED };
        match newest.recipient {
            Some(_) => (FLAG_SEALED | signed, newest.keys.generation),
            None => (signed, Generation::NONE),
        }
    }

    /// Refuses a header that is not protected as the archive's own are. `object` begins with it, and
    /// lies at `name`.
    pub(crate) fn check(&self, name: &str, header: &Header, object: &[u8]) -> Result<(), Error> {
        let (name, is) = (name.to_owned(), |flag| header.flags & flag != 0);
        let public = match (self.is_sealed(), is(FLAG_SEALED)) {
            (false, false) => &self.first,
            (true, false) => return Err(Error::NotSealed { object: name }),
            (false, true) => return Err(stranger(name, "an archive that is encrypted")),
            (true, true) => {
                let generation = header.generation;
                let unknown =
                    || Error::Closed { object: name.clone(), generation, why: Closed::Unknown };
                self.generation(generation).ok_or_else(unknown)?
            }
        };
        match (public.signers.is_empty(), header.signature(object)) {
            (true, None) => Ok(()),
            (true, Some(_)) => Err(stranger(name, "an archive that has signers")),
            (false, None) => Err(Error::Unsigned { object: name }),
            (false, Some((signed, signature))) => {
                let good = public.signers.iter().any(|key| key.has_signed(signed, signature));
                if good { Ok(()) } else { Err(Error::WrongSignature { object: name }) }
            }
        }
    }

    /// The secret that opens what is sealed to a generation.
    pub(crate) fn secret(&self, object: &str, generation: Generation) -> Result<&Identity, Error> {
        let found = self.secrets.get(generation);
        found.map(|secret| &secret.identity).map_err(|why| Error::Closed {
            object: object.to_owned(),
            generation,
            why,
        })
    }
}

fn stranger(object: String, got: &str) -> Error {
    Error::Stranger { object, got: got.to_owned(), want: "this one, which is not so".to_owned() }
}
