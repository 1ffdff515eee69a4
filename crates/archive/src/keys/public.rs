//! The public keys of an archive, as `archive.json` and `keys/<generation>.json` state them.

use super::seal::{Identity, Recipient};
use super::sign::{Signer, SigningKey};
use crate::archive::{FORMAT, JSON_MAX, from_json, shown, to_json};
use crate::error::Error;
use crate::format::header::{Moment, SIGNATURE};
use crate::format::keys::{PublicKeys, SealingKeys};
use crate::format::{ArchiveId, Fingerprint, Generation, hex, parse_hex};
use crate::names::{self, KeyName};
use crate::store::Store;
use serde::{Deserialize, Serialize};

/// What `requires` says of an archive that is not encrypted.
const UNENCRYPTED: &str = "unencrypted";
/// What it says where bodies are sealed.
const SEALED: &str = "sealed";
/// What it says where objects are signed.
const SIGNED: &str = "signed";
/// All that this version knows to be required.
pub(crate) const KNOWN: [&str; 3] = [UNENCRYPTED, SEALED, SIGNED];

/// The public keys of one generation, checked.
#[derive(Clone, Debug)]
pub(crate) struct Public {
    pub keys: PublicKeys,
    pub fingerprint: Fingerprint,
    /// What bodies are sealed to; none where nothing is sealed.
    pub recipient: Option<Recipient>,
    /// Who endorses the next generation.
    endorser: Option<Signer>,
    /// Whose signatures are good; where there are none, nothing is signed.
    pub signers: Vec<Signer>,
}

impl Public {
    /// Those of a generation with this secret.
    pub(crate) fn of(
        archive: ArchiveId,
        previous: Option<&Self>,
        secret: Option<&Identity>,
        signers: &[Signer],
    ) -> Self {
        let mut signers = signers.to_vec();
        signers.sort_by_key(|signer| signer.to_bytes());
        signers.dedup();
        let recipient = secret.map(Identity::public);
        let endorser = secret.map(|secret| SigningKey::endorser(secret).public());
        let sealing = recipient.as_ref().zip(endorser).map(|(recipient, endorser)| SealingKeys {
            recipient: recipient.to_string(),
            endorser: endorser.to_bytes(),
        });
        let keys = PublicKeys {
            archive,
            generation: previous.map_or(Generation::FIRST, |before| before.keys.generation.next()),
            previous: previous.map(|before| before.fingerprint),
            sealing,
            signers: signers.iter().map(|signer| signer.to_bytes()).collect(),
        };
        let fingerprint = keys.fingerprint();
        Self { keys, fingerprint, recipient, endorser, signers }
    }

    /// What a reader of its file has to know.
    pub(crate) fn requires(&self) -> Vec<String> {
        let sealing = if self.recipient.is_some() { SEALED } else { UNENCRYPTED };
        let signed = (!self.signers.is_empty()).then_some(SIGNED);
        [sealing].into_iter().chain(signed).map(str::to_owned).collect()
    }

    /// Whether its holder has endorsed the next one.
    fn has_endorsed(&self, next: &Fingerprint, endorsement: &[u8; SIGNATURE]) -> bool {
        self.endorser.is_some_and(|key| key.has_signed(&next.endorsed(), endorsement))
    }
}

/// What both files say of a generation's keys.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ArchiveKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    sealing: Option<SealingFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    signers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SealingFile {
    recipient: String,
    endorser: String,
}

impl ArchiveKeys {
    pub(crate) fn of(public: &Public) -> Self {
        let sealing = public.keys.sealing.as_ref().map(|keys| SealingFile {
            recipient: keys.recipient.clone(),
            endorser: hex(&keys.endorser),
        });
        let signers: Vec<_> = public.signers.iter().map(ToString::to_string).collect();
        let says_something = sealing.is_some() || !signers.is_empty();
        let fingerprint = says_something.then(|| public.fingerprint.to_string());
        Self { sealing, signers, fingerprint }
    }

    /// The keys, if everything fits together.
    pub(crate) fn check(
        &self,
        object: &str,
        archive: ArchiveId,
        requires: &[String],
        previous: Option<&Public>,
    ) -> Result<Public, Error> {
        let bad = |fault: &str| Error::Json { object: object.to_owned(), fault: fault.to_owned() };
        let is_required = |what| requires.iter().any(|required| required == what);
        if is_required(SEALED) == is_required(UNENCRYPTED) {
            return Err(bad("it is neither sealed nor not"));
        }
        let mut recipient = None;
        let mut endorser = None;
        if let Some(sealing) = &self.sealing {
            let keys = (sealing.recipient.parse().ok(), sealing.endorser.parse().ok());
            let (Some(to), Some(by)) = keys else { return Err(bad("its public key is none")) };
            (recipient, endorser) = (Some(to), Some(by));
        }
        let signers: Option<Vec<Signer>> =
            self.signers.iter().map(|signer| signer.parse().ok()).collect();
        let signers = signers.ok_or_else(|| bad("a signer's public key is none"))?;
        let sealing = recipient.as_ref().zip(endorser).map(|(to, by): (&Recipient, Signer)| {
            SealingKeys { recipient: to.to_string(), endorser: by.to_bytes() }
        });
        let keys = PublicKeys {
            archive,
            generation: previous.map_or(Generation::FIRST, |before| before.keys.generation.next()),
            previous: previous.map(|before| before.fingerprint),
            sealing,
            signers: signers.iter().map(|signer| signer.to_bytes()).collect(),
        };
        let fingerprint = keys.fingerprint();
        if !keys.signers.is_sorted_by(|a, b| a < b) {
            return Err(bad("its signers are out of order"));
        }
        let public = Public { keys, fingerprint, recipient, endorser, signers };
        if public.requires() != requires {
            return Err(bad("its keys are not what it says that it requires"));
        }
        let says_so = Self::of(&public).fingerprint == self.fingerprint;
        if says_so { Ok(public) } else { Err(bad("its keys do not have its fingerprint")) }
    }
}

/// `keys/<generation>.json`.
#[derive(Debug, Serialize, Deserialize)]
struct GenerationFile {
    format: u16,
    requires: Vec<String>,
    archive: String,
    generation: u32,
    created: String,
    /// The fingerprint of the generation before.
    previous: String,
    #[serde(flatten)]
    keys: ArchiveKeys,
    /// That one's signature under this fingerprint.
    endorsement: String,
}

/// The file of a generation behind another, endorsed with that one's secret.
pub(crate) fn generation_file(
    public: &Public,
    previous: &Fingerprint,
    endorser: &Identity,
    created: Moment,
) -> Vec<u8> {
    to_json(&GenerationFile {
        format: FORMAT,
        requires: public.requires(),
        archive: public.keys.archive.to_string(),
        generation: public.keys.generation.0,
        created: shown(created),
        previous: previous.to_string(),
        keys: ArchiveKeys::of(public),
        endorsement: hex(&SigningKey::endorser(endorser).endorse(&public.fingerprint)),
    })
}

/// All generations after the first, each endorsed by the one before.
pub(crate) fn later_generations(
    store: &Store,
    archive: ArchiveId,
    first: &Public,
) -> Result<Vec<Public>, Error> {
    let mut stated = Vec::new();
    for found in store.list(names::KEYS)? {
        if let Some(KeyName::Public(generation)) = names::parse_key(&found.name) {
            stated.push((generation, found.name));
        }
    }
    let mut later: Vec<Public> = Vec::new();
    for (generation, name) in stated {
        let object = store.full_name(&name);
        let before = later.last().unwrap_or(first);
        if generation != before.keys.generation.next() {
            let fault =
                format!("generation {} is missing before it", before.keys.generation.next());
            return Err(Error::Json { object, fault });
        }
        let file: GenerationFile = from_json(&object, &store.read(&name, JSON_MAX)?)?;
        later.push(file.check(object, archive, before)?);
    }
    Ok(later)
}

impl GenerationFile {
    fn check(self, object: String, archive: ArchiveId, before: &Public) -> Result<Public, Error> {
        if self.archive != archive.to_string() {
            let (got, want) = (format!("archive {}", self.archive), format!("archive {archive}"));
            return Err(Error::Stranger { object, got, want });
        }
        let public = self.keys.check(&object, archive, &self.requires, Some(before))?;
        let endorsement = parse_hex(&self.endorsement);
        let endorsed = self.previous == before.fingerprint.to_string()
            && self.generation == public.keys.generation.0
            && public.recipient.is_some()
            && endorsement.is_some_and(|by| before.has_endorsed(&public.fingerprint, &by));
        if endorsed { Ok(public) } else { Err(Error::Unendorsed { object }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive's first keys, and the store that the next ones are put into.
    fn given_keys() -> (Store, ArchiveId, Identity, Public) {
        let (archive, secret) = (ArchiveId([1; 16]), Identity::generate());
        let first = Public::of(archive, None, Some(&secret), &[]);
        (Store::memory().unwrap(), archive, secret, first)
    }

    /// What becomes of a second generation whose endorsement is by this secret.
    fn check_endorsed(by: impl Fn(&Identity) -> Identity, want: Result<u32, ()>) {
        let (store, archive, secret, first) = given_keys();
        let next = Public::of(archive, Some(&first), Some(&Identity::generate()), &[]);
        let file = generation_file(&next, &first.fingerprint, &by(&secret), Moment(0));
        store.create(&names::public_keys(Generation(2)), file).unwrap();
        match (later_generations(&store, archive, &first), want) {
            (Ok(later), Ok(number)) => assert_eq!(later[0].keys.generation, Generation(number)),
            (Err(Error::Unendorsed { .. }), Err(())) => {}
            (got, _) => panic!("{got:?}"),
        }
    }

    #[test]
    fn only_who_holds_a_generation_begins_the_next() {
        check_endorsed(Identity::clone, Ok(2));
        check_endorsed(|_| Identity::generate(), Err(()));
    }

    /// The owner of generation 1 endorses another second one: what follows the true one is refused.
    #[test]
    fn a_generation_follows_one_only() {
        let (store, archive, secret, first) = given_keys();
        let public = |previous, secret| Public::of(archive, Some(previous), Some(secret), &[]);
        let (one, other) = (Identity::generate(), Identity::generate());
        let (one_public, other_public) = (public(&first, &one), public(&first, &other));
        let file = generation_file(&other_public, &first.fingerprint, &secret, Moment(0));
        store.create(&names::public_keys(Generation(2)), file).unwrap();
        let third = public(&one_public, &Identity::generate());
        let file = generation_file(&third, &one_public.fingerprint, &one, Moment(0));
        store.create(&names::public_keys(Generation(3)), file).unwrap();
        let refused = later_generations(&store, archive, &first).unwrap_err();
        // Its fingerprint is over what came before.
        assert!(refused.to_string().contains("its keys do not have its fingerprint"), "{refused}");
    }

    #[test]
    fn generations_have_no_gaps() {
        let (store, archive, secret, first) = given_keys();
        let second = Public::of(archive, Some(&first), Some(&secret), &[]);
        let third = Public::of(archive, Some(&second), Some(&secret), &[]);
        let file = generation_file(&third, &second.fingerprint, &secret, Moment(0));
        store.create(&names::public_keys(Generation(3)), file).unwrap();
        let refused = later_generations(&store, archive, &first).unwrap_err();
        assert!(refused.to_string().contains("generation 2 is missing before it"), "{refused}");
    }

    #[test]
    fn a_file_says_what_its_keys_need() {
        let (_, archive, _, first) = given_keys();
        let check = |change: fn(&mut ArchiveKeys), requires: &[&str], want: &str| {
            let mut keys = ArchiveKeys::of(&first);
            change(&mut keys);
            let requires: Vec<_> = requires.iter().map(ToString::to_string).collect();
            let refused = keys.check("it", archive, &requires, None).unwrap_err().to_string();
            assert!(refused.contains(want), "{refused}");
        };
        let whole: fn(&mut ArchiveKeys) = |_| {};
        check(whole, &[], "neither sealed nor not");
        check(whole, &["sealed", "unencrypted"], "neither sealed nor not");
        check(whole, &["unencrypted"], "are not what it says that it requires");
        check(whole, &["sealed", "signed"], "are not what it says that it requires");
        check(|keys| keys.sealing = None, &["sealed"], "are not what it says that it requires");
        check(|keys| keys.fingerprint = None, &["sealed"], "do not have its fingerprint");
        check(|keys| keys.signers.push("x".into()), &["sealed"], "a signer's public key is none");
        let bad = |keys: &mut ArchiveKeys| keys.sealing.as_mut().unwrap().recipient.push('x');
        check(bad, &["sealed"], "its public key is none");
    }
}
