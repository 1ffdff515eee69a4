//! An archive as a whole: what makes a place one, and what it holds.

use crate::error::Error;
use crate::format::base::{Part, PartKind};
use crate::format::header::{HEADER_MAX, Header, Moment};
use crate::format::{ArchiveId, Domain, Fingerprint, FormatFault, Generation, Kind, TimelineId};
use crate::keys::{
    self, ArchiveKeys, Identity, Keys, Protection, Public, Recipient, RekeyPlan, RekeyRequest,
    Sealing, Secret, Secrets, Signer, SigningKey,
};
use crate::plan::cover::{Piece, SegmentEntry, cover, superseded, superseding};
use crate::store::{Listed, Store, StoreFaultKind};
use crate::{names, object};
use rekindle_etcd::{ClusterId, Revision};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An archive in a store.
#[derive(Clone, Debug)]
pub struct Archive {
    store: Store,
    id: ArchiveId,
    keys: Arc<Keys>,
}

/// The version of the JSON files.
pub(crate) const FORMAT: u16 = 1;
/// Most bytes of a JSON file.
pub(crate) const JSON_MAX: u64 = 1 << 20;

/// `archive.json`. Fields that this version does not know say nothing that it has to know.
#[derive(Debug, Serialize, Deserialize)]
struct ArchiveFile {
    /// It is read before the rest, which may be another then.
    format: u16,
    /// What a reader has to know of it. That nothing in it is sealed was said aloud when it was made.
    requires: Vec<String>,
    archive: String,
    created: String,
    #[serde(flatten)]
    keys: ArchiveKeys,
}

impl ArchiveFile {
    /// Reads the file of the archive that a place holds; its id, too.
    fn read(store: &Store) -> Result<(Self, ArchiveId), Error> {
        let bytes = match store.read(names::ARCHIVE, JSON_MAX) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound => {
                return Err(Error::NoArchive { place: store.place().to_owned() });
            }
            read => read?,
        };
        let object = store.full_name(names::ARCHIVE);
        let file: Self = from_json(&object, &bytes)?;
        match ArchiveId::parse(&file.archive) {
            Some(id) => Ok((file, id)),
            None => Err(Error::Json { object, fault: "its id is none".to_owned() }),
        }
    }
}

/// `timeline.json`.
#[derive(Debug, Serialize, Deserialize)]
struct TimelineFile {
    format: u16,
    requires: Vec<String>,
    timeline: String,
    cluster: String,
    /// The timeline that it went on from, if that is known. To be there it has to say null.
    #[serde(deserialize_with = "Option::deserialize")]
    parent: Option<String>,
    /// The last revision that both have; 0 where that is not known.
    fork: i64,
    began: String,
    reason: String,
}

/// A base that was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseEntry {
    /// The object's name.
    pub name: String,
    /// Bytes of the object.
    pub bytes: u64,
    /// Its header.
    pub header: Header,
}

/// The bases of an archive.
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order of time.
    pub bases: Vec<BaseEntry>,
    /// Objects that stand among them and cannot be read, with the reason.
    pub unreadable: Vec<Error>,
}

impl Archive {
    /// Makes an archive of an empty place. What it will hold is not encrypted.
    ///
    /// # Errors
    /// [`Error::IsArchive`], [`Error::NotEmpty`], [`Error::Store`].
    pub fn init_unencrypted(store: Store, created: Moment) -> Result<Self, Error> {
        let protection = Protection { sealing: Sealing::Unencrypted, signers: Vec::new() };
        Self::init(store, created, &protection)
    }

    /// Makes an archive of an empty place. The secret of its keys is nowhere but in the store, sealed to
    /// its owners; the archive that is returned holds none.
    ///
    /// # Errors
    /// [`Error::IsArchive`], [`Error::NotEmpty`], [`Error::NoRecipients`], [`Error::Store`].
    pub fn init(store: Store, created: Moment, protection: &Protection) -> Result<Self, Error> {
        let place = store.place().to_owned();
        match store.read(names::ARCHIVE, JSON_MAX) {
            Ok(_) => return Err(Error::IsArchive { place }),
            Err(fault) if fault.kind == StoreFaultKind::NotFound => {}
            Err(fault) => return Err(fault.into()),
        }
        if !is_free(&store)? {
            return Err(Error::NotEmpty { place });
        }
        let id = ArchiveId(object::random_id()?.0);
        let secret = match &protection.sealing {
            Sealing::Unencrypted => None,
            Sealing::To(recipients) if recipients.is_empty() => return Err(Error::NoRecipients),
            Sealing::To(recipients) => {
                Some(Secret { identity: Identity::generate(), recipients: recipients.clone() })
            }
        };
        let identity = secret.as_ref().map(|secret| &secret.identity);
        let public = Public::of(id, None, identity, &protection.signers);
        // The key is there before anything is sealed to it.
        let seal = |secret| keys::create_key_object(&store, id, Generation::FIRST, secret);
        let key_object = secret.as_ref().map(seal).transpose()?;
        let file = ArchiveFile {
            format: FORMAT,
            requires: public.requires(),
            archive: id.to_string(),
            created: shown(created),
            keys: ArchiveKeys::of(&public),
        };
        match store.create(names::ARCHIVE, to_json(&file)) {
            Err(fault) if fault.kind == StoreFaultKind::Exists => {
                // It opens nothing: what cannot be removed does no harm.
                key_object.into_iter().for_each(|name| drop(store.remove(&name)));
                Err(Error::IsArchive { place })
            }
            done => {
                done?;
                Ok(Self { store, id, keys: Arc::new(Keys::new(public, Vec::new())) })
            }
        }
    }

    /// Opens the archive that a place holds, with its public keys only: for listing and writing, and for
    /// reading where it is not encrypted.
    ///
    /// # Errors
    /// [`Error::NoArchive`] only where the store says that no `archive.json` is there;
    /// [`Error::TooNew`]; [`Error::Requires`]; [`Error::Json`]; [`Error::Unendorsed`]; [`Error::Store`].
    pub fn open(store: Store) -> Result<Self, Error> {
        let (file, id) = ArchiveFile::read(&store)?;
        let object = store.full_name(names::ARCHIVE);
        let first = file.keys.check(&object, id, &file.requires, None)?;
        let later = match first.recipient {
            Some(_) => keys::later_generations(&store, id, &first)?,
            None => Vec::new(),
        };
        Ok(Self { store, id, keys: Arc::new(Keys::new(first, later)) })
    }

    /// The same, with what these identities open of its keys. An archive that is not encrypted needs
    /// none.
    ///
    /// # Errors
    /// [`Error::WrongIdentity`]; [`Error::KeysGone`]; [`Error::KeyObject`], [`Error::SwappedKey`],
    /// [`Error::Stranger`] where nothing else opens; [`Error::Store`].
    pub fn with_identities(self, identities: &[Identity]) -> Result<Self, Error> {
        if !self.keys.is_sealed() {
            return Ok(self);
        }
        let secrets = Secrets::open(&self.store, self.keys.generations(), identities)?;
        let mut keys = Keys::clone(&self.keys);
        keys.secrets = secrets;
        Ok(Self { keys: Arc::new(keys), ..self })
    }

    /// The same, with the key that signs what is written into it. An archive without signers needs none.
    ///
    /// # Errors
    /// [`Error::ForeignSigningKey`].
    pub fn with_signing_key(self, key: SigningKey) -> Result<Self, Error> {
        if self.signers().is_empty() {
            return Ok(self);
        }
        let signer = key.public();
        if !self.signers().contains(&signer) {
            let (place, signer) = (self.store.place().to_owned(), signer.to_string());
            return Err(Error::ForeignSigningKey { place, signer });
        }
        let mut keys = Keys::clone(&self.keys);
        keys.signing = Some(key);
        Ok(Self { keys: Arc::new(keys), ..self })
    }

    /// Whether everything is at hand that writing needs.
    ///
    /// # Errors
    /// [`Error::NoSigningKey`].
    pub fn check_writable(&self) -> Result<(), Error> {
        match self.signers().is_empty() || self.keys.signing.is_some() {
            true => Ok(()),
            false => Err(Error::NoSigningKey { place: self.store.place().to_owned() }),
        }
    }

    /// Whether somebody will be able to open what is saved now: a sealed key of the newest generation
    /// is there. Its bytes are not looked at.
    ///
    /// # Errors
    /// [`Error::KeysGone`]; [`Error::Store`].
    pub(crate) fn check_openable(&self) -> Result<(), Error> {
        if !self.is_sealed() {
            return Ok(());
        }
        let newest = self.generation();
        let is_key = |name: &str| match names::parse_key(name) {
            Some(names::KeyName::Object(generation, _)) => generation == newest,
            _ => false,
        };
        match self.store.list(names::KEYS)?.iter().any(|key| is_key(&key.name)) {
            true => Ok(()),
            false => Err(Error::KeysGone { place: self.store.place().to_owned() }),
        }
    }

    /// Whether the place is still this archive's: a mount may be gone, and what lies below it takes its name.
    ///
    /// # Errors
    /// [`Error::NoArchive`]; [`Error::Stranger`]; [`Error::Json`]; [`Error::Store`].
    pub(crate) fn check_place(&self) -> Result<(), Error> {
        let (_, there) = ArchiveFile::read(&self.store)?;
        match there == self.id {
            true => Ok(()),
            false => Err(Error::Stranger {
                object: self.store.full_name(names::ARCHIVE),
                got: there.to_string(),
                want: self.id.to_string(),
            }),
        }
    }

    /// Whether what is written now can be read here.
    pub(crate) fn can_open(&self) -> bool {
        !self.is_sealed() || self.keys.secret("", self.generation()).is_ok()
    }

    /// Whether reading what it holds needs an identity.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.keys.is_sealed()
    }

    /// Whose signatures it demands of what is written now; where there are none, nothing is signed.
    #[must_use]
    pub fn signers(&self) -> &[Signer] {
        &self.keys.newest().signers
    }

    /// What tells its public keys, all generations of them, from all others.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.keys.newest().fingerprint
    }

    /// Whether its keys once were, or are, those with this fingerprint: the ones now were endorsed by
    /// whoever held those.
    #[must_use]
    pub fn has_had(&self, fingerprint: &Fingerprint) -> bool {
        self.keys.generations().any(|public| public.fingerprint == *fingerprint)
    }

    /// The generation of keys that new objects are sealed to; of an archive that is not encrypted the
    /// first.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.keys.newest().keys.generation
    }

    /// Who can read what is written now; empty where no identity at hand opens it.
    #[must_use]
    pub fn recipients(&self) -> &[Recipient] {
        let newest = self.keys.secrets.get(self.generation());
        newest.map_or(&[], |secret| &secret.recipients)
    }

    /// Decides what a change of its keys does; needs an identity that opens the newest ones.
    ///
    /// # Errors
    /// [`Error::Rekey`]; [`Error::Closed`].
    pub fn plan_rekey(&self, request: &RekeyRequest) -> Result<RekeyPlan, Error> {
        keys::plan(&self.keys, self.store.place(), request)
    }

    /// Does what the plan says. The archive that is returned is opened anew, with public keys only.
    ///
    /// # Errors
    /// [`RekeyFault::Overtaken`](crate::RekeyFault::Overtaken); [`Error::Store`]; the newest keys are
    /// what they were then, or what the plan says.
    pub fn rekey(&self, plan: &RekeyPlan, now: Moment) -> Result<Self, Error> {
        keys::execute(&self.store, self.id, &self.keys, plan, now)?;
        Self::open(self.store.clone())
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Begins a copy of the archive in an empty place, with its very id; or opens the copy that is
    /// there.
    ///
    /// # Errors
    /// [`Error::NotEmpty`]; [`Error::Stranger`] where another archive is there; those of
    /// [`Self::open`].
    pub fn begin_copy(&self, store: Store) -> Result<Self, Error> {
        let there = match Self::open(store.clone()) {
            Err(Error::NoArchive { place }) => {
                if !is_free(&store)? {
                    return Err(Error::NotEmpty { place });
                }
                // As when it was made: its key is there before the archive is.
                self.copy_keys(&store, |name| !name.ends_with(".json"))?;
                let file = self.store.read(names::ARCHIVE, JSON_MAX)?;
                store.create(names::ARCHIVE, file.into())?;
                Self::open(store.clone())?
            }
            opened => opened?,
        };
        if there.id != self.id {
            return Err(Error::Stranger {
                object: there.store.full_name(names::ARCHIVE),
                got: format!("archive {}", there.id),
                want: format!("archive {}", self.id),
            });
        }
        // Secrets come before the public keys that something may be sealed to.
        self.copy_keys(&store, |name| !name.ends_with(".json"))?;
        self.copy_keys(&store, |name| name.ends_with(".json"))?;
        Self::open(store)
    }

    fn copy_keys(&self, to: &Store, wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
        for key in self.store.list(names::KEYS)?.into_iter().filter(|found| wanted(&found.name)) {
            let bytes = self.store.read(&key.name, JSON_MAX)?;
            to.create(&key.name, bytes.into())?;
        }
        Ok(())
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ArchiveId {
        self.id
    }

    /// Where its objects are.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All bases, by their headers alone.
    ///
    /// # Errors
    /// [`Error::Store`] where the store cannot be listed. What cannot be read of it goes into the
    /// listing.
    pub fn list(&self) -> Result<Listing, Error> {
        let found = self.bases_by_name()?;
        let starts = self.store.read_starts(found.clone(), HEADER_MAX as u64);
        let (mut listing, mut gone) = (Listing::default(), Vec::new());
        for (found, start) in found.into_iter().zip(starts) {
            match start {
                Err(fault) if fault.kind == StoreFaultKind::NotFound => gone.push((found, fault)),
                start => {
                    match start.map_err(Error::from).and_then(|it| self.base_entry(found, &it)) {
                        Ok(base) => listing.bases.push(base),
                        Err(error) => listing.unreadable.push(error),
                    }
                }
            }
        }
        if !gone.is_empty() {
            // A prune took them meanwhile, unless they are listed still.
            let there = self.bases_by_name()?;
            gone.retain(|(found, _)| there.contains(found));
            listing.unreadable.extend(gone.into_iter().map(|(_, fault)| fault.into()));
        }
        listing.bases.sort_by_key(|base| {
            let facts = &base.header.facts;
            (facts.state, facts.term, facts.index, facts.last)
        });
        Ok(listing)
    }

    fn bases_by_name(&self) -> Result<Vec<Listed>, Error> {
        let mut found = self.store.list(names::TIMELINES)?;
        found.retain(|found| found.name.ends_with(".base"));
        Ok(found)
    }

    fn base_entry(&self, found: Listed, start: &[u8]) -> Result<BaseEntry, Error> {
        let name = self.store.full_name(&found.name);
        let header = object::parse(self, &name, Kind::Base, start)?;
        let facts = &header.facts;
        let own = names::base(facts.timeline, facts.last, facts.index, facts.id);
        if own != found.name {
            let (got, want) = (format!("the name {own}"), "this one".to_owned());
            return Err(Error::Stranger { object: name, got, want });
        }
        let want = (header.size() as u64).saturating_add(header.body_bytes);
        if found.bytes < want {
            return Err(Error::damaged(&name, FormatFault::Ends { what: "its body" }));
        }
        Ok(BaseEntry { name: found.name, bytes: found.bytes, header })
    }

    /// What there is in these timelines to make bases of, by names alone.
    pub(crate) fn stock(
        &self,
        timelines: impl Iterator<Item = TimelineId>,
    ) -> Result<Stock, Error> {
        let mut listed = Vec::new();
        for timeline in timelines.collect::<BTreeSet<_>>() {
            listed.append(&mut self.store.list(&names::packs(timeline))?);
            listed.append(&mut self.store.list(&names::log(timeline))?);
        }
        Ok(Stock::of(listed))
    }

    /// Locks what a base needs, as far as it is there already and `wanted`, as long as what is created
    /// now; its keys and what says what it is, too: without them nothing opens.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn lock_for_longer(
        &self,
        parts: &[Part],
        wanted: impl Fn(&String) -> bool,
    ) -> Result<(), Error> {
        let stock = self.stock(parts.iter().map(|part| part.timeline))?;
        let mut names: BTreeSet<_> = BTreeSet::from([names::ARCHIVE.to_owned()]);
        names.extend(self.store.list(names::KEYS)?.into_iter().map(|key| key.name));
        for part in parts {
            names.insert(names::timeline(part.timeline));
            match part.what {
                PartKind::Pack { id, .. } => _ = names.insert(names::pack(part.timeline, id)),
                PartKind::Log { .. } => {
                    names.extend(stock.touching(part).map(|it| it.name.clone()));
                }
            }
        }
        let names: Vec<_> = names.into_iter().filter(wanted).collect();
        Ok(self.store.lock_for_longer(&names)?)
    }

    /// The history that a cluster is in: the newest one from which no other with a base goes on. Clocks alone
    /// do not say it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) fn current_timeline(
        &self,
        listing: &Listing,
        cluster: ClusterId,
    ) -> Result<Option<TimelineId>, Error> {
        let of_cluster = || {
            let facts = listing.bases.iter().map(|base| &base.header.facts);
            facts.filter(|facts| facts.cluster == cluster).map(|facts| facts.timeline)
        };
        let all: BTreeSet<_> = of_cluster().collect();
        let mut left = BTreeSet::new();
        for timeline in all.iter().filter(|_| all.len() > 1) {
            left.extend(self.parent_of(*timeline)?);
        }
        Ok(of_cluster()
            .rev()
            .find(|timeline| !left.contains(timeline))
            .or(of_cluster().next_back()))
    }

    /// What a timeline goes on from; none where its file cannot be read, which a verification names.
    fn parent_of(&self, timeline: TimelineId) -> Result<Option<TimelineId>, Error> {
        let name = names::timeline(timeline);
        let bytes = match self.store.read(&name, JSON_MAX) {
            Err(fault)
                if matches!(fault.kind, StoreFaultKind::NotFound | StoreFaultKind::TooLarge) =>
            {
                return Ok(None);
            }
            read => read?,
        };
        let file: Result<TimelineFile, Error> = from_json(&self.store.full_name(&name), &bytes);
        Ok(file.ok().and_then(|file| TimelineId::parse(&file.parent?)))
    }

    /// Checks that a timeline's file says what its id follows from.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Stranger`]; what only a later version of this program knows.
    pub(crate) fn check_timeline(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let object = self.store.full_name(name);
        let file: TimelineFile = from_json(&object, bytes)?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let parent = file.parent.as_deref().map(TimelineId::parse);
        let id = number(&file.cluster).zip(Revision::new(file.fork)).and_then(|(cluster, fork)| {
            let parent = parent.map_or(Some(None), |parent| parent.map(Some))?;
            Some(TimelineOrigin { parent, fork, reason: "" }.id(ClusterId(cluster)))
        });
        let began: Result<jiff::Timestamp, _> = file.began.parse();
        let want = id.filter(|_| began.is_ok()).ok_or_else(|| Error::Json {
            object: object.clone(),
            fault: "it does not say how the timeline began".to_owned(),
        })?;
        match file.timeline == want.to_string() && names::timeline(want) == name {
            true => Ok(()),
            false => Err(Error::Stranger { object, got: file.timeline, want: want.to_string() }),
        }
    }

    /// The timeline of a cluster that begins so; it is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Json`].
    pub(crate) fn timeline(
        &self,
        cluster: ClusterId,
        origin: TimelineOrigin,
        began: Moment,
    ) -> Result<TimelineId, Error> {
        let id = origin.id(cluster);
        let name = names::timeline(id);
        let file = TimelineFile {
            format: FORMAT,
            requires: Vec::new(),
            fork: origin.fork.get(),
            timeline: id.to_string(),
            cluster: cluster.to_string(),
            parent: origin.parent.map(|parent| parent.to_string()),
            began: shown(began),
            reason: origin.reason.to_owned(),
        };
        match self.store.create(&name, to_json(&file)) {
            Err(fault) if fault.kind == StoreFaultKind::Exists => {}
            done => done?,
        }
        let object = self.store.full_name(&name);
        let there: TimelineFile = from_json(&object, &self.store.read(&name, JSON_MAX)?)?;
        let ours = [file.timeline, file.cluster];
        let theirs = [there.timeline, there.cluster];
        match ours == theirs {
            true => Ok(id),
            false => Err(Error::Stranger { object, got: theirs.join("/"), want: ours.join("/") }),
        }
    }
}

/// Whether an archive can begin there: nothing is there, or sealed keys alone, which an archive has
/// left that was to begin and was cut off. They open nothing.
fn is_free(store: &Store) -> Result<bool, Error> {
    let is_key = |name: &str| matches!(names::parse_key(name), Some(names::KeyName::Object(..)));
    Ok(store.has_only(is_key)?)
}

/// Packs and segments that were listed.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    /// Bytes of packs, by their names.
    pub packs: BTreeMap<String, u64>,
    logs: BTreeMap<TimelineId, Vec<SegmentEntry>>,
}

impl Stock {
    /// What of it was listed.
    pub(crate) fn of(listed: impl IntoIterator<Item = Listed>) -> Self {
        let mut stock = Self::default();
        for Listed { name, bytes } in listed {
            if let Some(segment) = SegmentEntry::named(&name, bytes)
                && let Some(timeline) = names::timeline_of(&name)
            {
                stock.logs.entry(timeline).or_default().push(segment);
            } else if name.ends_with(".pack") {
                stock.packs.insert(name, bytes);
            }
        }
        stock
    }

    /// Segments that have any of a part of a base.
    pub(crate) fn touching(&self, part: &Part) -> impl Iterator<Item = &SegmentEntry> {
        let (first, last) = (part.first.revision, part.last.revision);
        let log = self.log(part.timeline).iter().filter(|it| !it.is_empty());
        log.filter(move |it| it.first <= last && it.last >= first)
    }

    /// The segments of a timeline.
    pub(crate) fn log(&self, timeline: TimelineId) -> &[SegmentEntry] {
        self.logs.get(&timeline).map_or(&[], Vec::as_slice)
    }

    /// The timelines that have a log.
    pub(crate) fn timelines(&self) -> impl Iterator<Item = TimelineId> {
        self.logs.keys().copied()
    }

    /// All segments.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &SegmentEntry> {
        self.logs.values().flatten()
    }

    /// Names of segments of which a merged one of the same turn has everything and is not going itself.
    pub(crate) fn superseded(
        &self,
        going: impl Fn(&str) -> bool,
        is_whole: impl Fn(&SegmentEntry) -> Result<bool, Error>,
    ) -> Result<BTreeSet<String>, Error> {
        let mut names = BTreeSet::new();
        for log in self.logs.values() {
            let mut staying: Vec<_> = log.iter().filter(|it| !going(&it.name)).cloned().collect();
            // One that is damaged stands for none; then others may have to stand for what it was made of.
            let (mut whole, mut damaged) = (BTreeSet::new(), BTreeSet::new());
            loop {
                let before = damaged.len();
                for merged in superseding(&staying) {
                    if !whole.contains(&merged.name) {
                        let known = if is_whole(merged)? { &mut whole } else { &mut damaged };
                        known.insert(merged.name.clone());
                    }
                }
                if damaged.len() == before {
                    break;
                }
                staying.retain(|segment| !damaged.contains(&segment.name));
            }
            names.extend(superseded(&staying).into_iter().map(|(it, _)| it.name.clone()));
        }
        Ok(names)
    }

    /// The segments that a part of a base needs. Fails with the first revision that none has.
    pub(crate) fn cover(&self, part: &Part) -> Result<Vec<Piece<'_>>, Revision> {
        let whole = self.log(part.timeline).iter().filter(|segment| !segment.is_redacted());
        cover(whole, part.first.revision, part.last.revision)
    }
}

/// Where a timeline's history begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimelineOrigin {
    /// What it goes on from.
    pub parent: Option<TimelineId>,
    /// The last revision that both have; 0 where that is not known.
    pub fork: Revision,
    /// Why, for people.
    pub reason: &'static str,
}

impl TimelineOrigin {
    fn id(self, cluster: ClusterId) -> TimelineId {
        let parent = self.parent.map_or([0; 16], |parent| parent.0);
        let parts = [&cluster.0.to_le_bytes()[..], &parent, &self.fork.get().to_le_bytes()];
        let digest = Domain::Timeline.digest(&parts);
        let mut id = [0; 16];
        id.iter_mut().zip(digest).for_each(|(byte, digit)| *byte = digit);
        TimelineId(id)
    }
}

pub(crate) fn to_json(file: &impl Serialize) -> Vec<u8> {
    // Structs of text and numbers always become JSON.
    let mut bytes = serde_json::to_vec_pretty(file).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// Reads a JSON file; one of a later format is named as such before anything else is said of it.
pub(crate) fn from_json<T: for<'a> Deserialize<'a>>(
    object: &str,
    bytes: &[u8],
) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Format {
        format: u16,
        #[serde(default)]
        requires: Vec<String>,
    }
    let json = |error: serde_json::Error| Error::Json {
        object: object.to_owned(),
        fault: error.to_string(),
    };
    let Format { format, requires } = serde_json::from_slice(bytes).map_err(json)?;
    if format == 0 {
        return Err(Error::Json {
            object: object.to_owned(),
            fault: "format 0 is none".to_owned(),
        });
    }
    if format > FORMAT {
        let (object, newest) = (object.to_owned(), FORMAT);
        return Err(Error::TooNew { object, got: format, newest });
    }
    if let Some(what) = requires.into_iter().find(|what| !keys::KNOWN.contains(&what.as_str())) {
        return Err(Error::Requires { object: object.to_owned(), what });
    }
    serde_json::from_slice(bytes).map_err(json)
}

/// A moment as text, for the JSON files.
pub(crate) fn shown(moment: Moment) -> String {
    jiff::Timestamp::from_millisecond(moment.0).map_or_else(|_| String::new(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn an_archive() -> Archive {
        Archive::init_unencrypted(Store::memory().unwrap(), Moment(0)).unwrap()
    }

    #[test]
    fn an_archive_is_made_once() {
        let archive = an_archive();
        let store = archive.store().clone();
        assert_eq!(Archive::open(store.clone()).unwrap().id(), archive.id());
        let again = Archive::init_unencrypted(store, Moment(0)).unwrap_err();
        assert!(matches!(again, Error::IsArchive { .. }), "{again}");

        let store = Store::memory().unwrap();
        let none = Archive::open(store.clone()).unwrap_err();
        assert!(matches!(none, Error::NoArchive { .. }), "{none}");
        store.create("something/else", Vec::new()).unwrap();
        let other = Archive::init_unencrypted(store, Moment(0)).unwrap_err();
        assert!(matches!(other, Error::NotEmpty { .. }), "{other}");
    }

    #[test]
    fn what_is_no_archive_of_ours_is_refused() {
        let check = |json: &str, want: &str| {
            let store = Store::memory().unwrap();
            store.create(names::ARCHIVE, json.as_bytes().to_vec()).unwrap();
            let got = Archive::open(store).unwrap_err().to_string();
            assert!(got.contains(want), "{got}");
        };
        let id = ArchiveId([1; 16]);
        let newer = r#"{"format": 2, "shape": "unheard of"}"#;
        check(newer, "format version 2, and this rekindle knows those up to 1");
        check("", "EOF");
        check(r#"{"format": 0}"#, "format 0 is none");
        check(r#"{"format": 1}"#, "missing field `requires`");
        check(r#"{"format": 1, "requires": ["magic"]}"#, "needs \"magic\"");
        let bare = format!(r#"{{"format": 1, "requires": [], "archive": "{id}", "created": ""}}"#);
        check(&bare, "it is neither sealed nor not");
        let rest = r#""requires": ["unencrypted"], "created": """#;
        check(&format!(r#"{{"format": 1, "archive": "x", {rest}}}"#), "its id is none");
        let more = format!(r#"{{"format": 1, "archive": "{id}", "x": 1, {rest}}}"#);
        let store = Store::memory().unwrap();
        store.create(names::ARCHIVE, more.into_bytes()).unwrap();
        assert_eq!(Archive::open(store).unwrap().id(), id, "more is not required");
    }

    #[test]
    fn timelines_are_made_once_and_agree() {
        let archive = an_archive();
        let origin = TimelineOrigin { parent: None, fork: Revision::default(), reason: "first" };
        let (a, b) = (ClusterId(1), ClusterId(2));
        let one = archive.timeline(a, origin, Moment(0)).unwrap();
        assert_eq!(archive.timeline(a, origin, Moment(1)).unwrap(), one);
        assert_ne!(archive.timeline(b, origin, Moment(0)).unwrap(), one);
        let child = TimelineOrigin {
            parent: Some(one),
            fork: Revision::new(7).unwrap(),
            reason: "restored",
        };
        assert_ne!(archive.timeline(a, child, Moment(0)).unwrap(), one);
    }
}
