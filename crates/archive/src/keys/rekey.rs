//! Changing who can read an archive: a plan first, which touches nothing, then what it says.

use super::Keys;
use super::public::{Public, generation_file};
use super::seal::{Identity, Recipient};
use super::secrets::{Secret, create_key_object};
use super::sign::Signer;
use crate::error::Error;
use crate::format::header::Moment;
use crate::format::{ArchiveId, Generation};
use crate::names;
use crate::store::{Store, StoreFaultKind};

/// Who is to be able to read and to write from now on, and who is not.
#[derive(Clone, Debug, Default)]
pub struct RekeyRequest {
    /// Who comes.
    pub add: Vec<Recipient>,
    /// Who goes.
    pub remove: Vec<Recipient>,
    /// Who may sign from now on.
    pub add_signers: Vec<Signer>,
    /// Who may not any more.
    pub remove_signers: Vec<Signer>,
}

/// Why a change of keys makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RekeyFault {
    /// Neither adds nor removes anybody.
    #[error("nothing says who is to be added or removed")]
    Nothing,
    /// Somebody is added who is there.
    #[error("{who} can read the archive already")]
    AlreadyThere {
        /// The public key.
        who: String,
    },
    /// Somebody is removed who is not there.
    #[error("{who} is none of those who can read what is written now, or may sign it")]
    NotThere {
        /// The public key.
        who: String,
    },
    /// Nobody could read what is written then.
    #[error("nobody would be left who can read what is written from now on")]
    Nobody,
    /// Objects of an archive without keys are not sealed.
    #[error("the archive is not encrypted: it has no keys to be changed")]
    Unencrypted,
    /// The plan was made when the archive had other keys.
    #[error("somebody else has changed the keys of the archive meanwhile")]
    Overtaken,
}

/// What a change of keys does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RekeyPlan {
    /// The generation that is the newest now.
    pub newest: Generation,
    /// The one that begins, where somebody goes or the signers change: its key pair is new.
    pub begins: Option<Generation>,
    /// Who can read what is written from then on.
    pub recipients: Vec<Recipient>,
    /// Whose signatures are demanded then.
    pub signers: Vec<Signer>,
    /// Who is added.
    pub added: Vec<Recipient>,
    /// Who is removed; each keeps what he could read.
    pub removed: Vec<Recipient>,
    /// Generations that are there, and that those who are added will open, too.
    pub shared: Vec<Generation>,
    /// Generations that stay closed to them, for the identities at hand do not open these.
    pub withheld: Vec<Generation>,
}

/// Decides what a change of keys does.
pub(crate) fn plan(keys: &Keys, place: &str, request: &RekeyRequest) -> Result<RekeyPlan, Error> {
    if !keys.is_sealed() {
        return Err(RekeyFault::Unencrypted.into());
    }
    let newest = keys.newest();
    let generation = newest.keys.generation;
    let secret = keys.secrets.get(generation).map_err(|why| Error::Closed {
        object: place.to_owned(),
        generation,
        why,
    })?;
    let recipients = changed(&secret.recipients, &request.add, &request.remove)?;
    let signers = changed(&newest.signers, &request.add_signers, &request.remove_signers)?;
    if recipients.is_empty() {
        return Err(RekeyFault::Nobody.into());
    }
    let begins = !request.remove.is_empty() || signers != newest.signers;
    if !begins && request.add.is_empty() {
        return Err(RekeyFault::Nothing.into());
    }
    let all = keys.generations().map(|public| public.keys.generation);
    let (shared, withheld) = match request.add.is_empty() {
        true => (Vec::new(), Vec::new()),
        false => all.partition(|generation| keys.secrets.get(*generation).is_ok()),
    };
    Ok(RekeyPlan {
        newest: generation,
        begins: begins.then(|| generation.next()),
        recipients,
        signers,
        added: request.add.clone(),
        removed: request.remove.clone(),
        shared,
        withheld,
    })
}

/// A list after somebody came and somebody went.
fn changed<T: Clone + PartialEq + ToString>(
    now: &[T],
    add: &[T],
    remove: &[T],
) -> Result<Vec<T>, RekeyFault> {
    if let Some(missing) = remove.iter().find(|who| !now.contains(who)) {
        return Err(RekeyFault::NotThere { who: missing.to_string() });
    }
    let mut then: Vec<_> = now.iter().filter(|who| !remove.contains(who)).cloned().collect();
    for who in add {
        if now.contains(who) || then.contains(who) {
            return Err(RekeyFault::AlreadyThere { who: who.to_string() });
        }
        then.push(who.clone());
    }
    Ok(then)
}

/// Does what a plan says. Secrets are there before what names them, so that a generation that was
/// begun is whole or not there.
pub(crate) fn execute(
    store: &Store,
    archive: ArchiveId,
    keys: &Keys,
    plan: &RekeyPlan,
    now: Moment,
) -> Result<(), Error> {
    if keys.newest().keys.generation != plan.newest {
        return Err(RekeyFault::Overtaken.into());
    }
    for generation in &plan.shared {
        share(store, archive, keys, plan, *generation)?;
    }
    match plan.begins {
        Some(generation) => begin(store, archive, keys, plan, generation, now),
        None => Ok(()),
    }
}

/// Opens a generation that is there to those who are added.
fn share(
    store: &Store,
    archive: ArchiveId,
    keys: &Keys,
    plan: &RekeyPlan,
    generation: Generation,
) -> Result<(), Error> {
    let closed = |why| Error::Closed { object: store.place().to_owned(), generation, why };
    let mut secret = keys.secrets.get(generation).map_err(closed)?.clone();
    // Sealed to all, so that each of them learns of the others.
    secret.recipients.retain(|who| !plan.removed.contains(who) && !plan.added.contains(who));
    secret.recipients.extend(plan.added.iter().cloned());
    create_key_object(store, archive, generation, &secret).map(drop)
}

fn begin(
    store: &Store,
    archive: ArchiveId,
    keys: &Keys,
    plan: &RekeyPlan,
    generation: Generation,
    now: Moment,
) -> Result<(), Error> {
    let before = keys.newest();
    let endorser = keys.secret(store.place(), before.keys.generation)?;
    let identity = Identity::generate();
    let public = Public::of(archive, Some(before), Some(&identity), &plan.signers);
    let secret = Secret { identity, recipients: plan.recipients.clone() };
    let object = create_key_object(store, archive, generation, &secret)?;
    let file = generation_file(&public, &before.fingerprint, endorser, now);
    match store.create(&names::public_keys(generation), file) {
        Err(fault) if fault.kind == StoreFaultKind::Exists => {
            // What cannot be removed is of no use to anybody: no public key leads to it.
            let _ = store.remove(&object);
            Err(RekeyFault::Overtaken.into())
        }
        created => Ok(created?),
    }
}
