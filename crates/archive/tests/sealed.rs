//! What is sealed and signed is opened by its owners, and by nobody else; what is not the archive's own
//! is refused.

use rekindle_archive::format::header::{self, FLAG_SEALED, FLAG_SIGNED, Moment, at};
use rekindle_archive::format::{Domain, Generation, Header};
use rekindle_archive::{
    Archive, BaseRecords, BaseRequest, Closed, Error, Identity, Origin, Progress, Protection,
    RekeyFault, RekeyRequest, Sealing, SigningKey, Store, prepare_base, read_base,
};
use rekindle_bolt::{BulkWriter, Layout};
use rekindle_etcd::restore::Records;
use rekindle_etcd::{Backend, ClusterId, KeyValue, MemberId, RecordKey, Revision, schema};
use rekindle_testkit::content::{files, noise};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use tempfile::TempDir;

/// A clock that goes on by a second whenever it is looked at.
static NOW: AtomicI64 = AtomicI64::new(0);

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
type Failed = Box<dyn std::error::Error>;

fn now() -> Moment {
    Moment(NOW.fetch_add(1000, Ordering::Relaxed))
}

/// Letters that stand in every value: where they are seen, nothing was sealed.
const CANARY: &[u8] = b"a canary in the keyspace";

fn records(count: i64) -> Pairs {
    let record = |number| {
        let value = [CANARY, &noise(number as u64, 20)].concat();
        let kv =
            KeyValue { key: b"key", value: &value, mod_revision: number, ..KeyValue::default() };
        (RecordKey::first_of(Revision::new(number).unwrap()).to_bytes(), kv.to_bytes())
    };
    (2..2 + count).map(record).collect()
}

fn save(archive: &Archive, records: &Pairs) -> Result<(), Error> {
    let layout = Layout::new(4096, 4096).unwrap();
    let mut bucket = BulkWriter::new(Vec::new(), layout).unwrap().bucket(schema::KEY).unwrap();
    records.iter().for_each(|(key, value)| bucket.put(key, value).unwrap());
    let finished = bucket.finish().unwrap().finish().unwrap();
    let mut database = finished.out;
    database[..finished.metas.len()].copy_from_slice(&finished.metas);
    let origin = Origin {
        cluster: ClusterId(1),
        member: MemberId(2),
        etcd: "3.6.16".to_owned(),
        state: now(),
        current: true,
    };
    let progress = Progress { walked: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let backend = Backend::open(database).unwrap();
    let request = BaseRequest::new(archive, &origin, &now, progress);
    prepare_base(&request, &backend)?.publish(now()).map(drop)
}

/// The records of the newest base; whatever of the archive cannot be read is an error.
fn read(archive: &Archive) -> Result<Pairs, Failed> {
    let mut listing = archive.list()?;
    if let Some(unreadable) = listing.unreadable.pop() {
        return Err(unreadable.into());
    }
    let entry = listing.bases.pop().ok_or("there is no base")?;
    let base = read_base(archive, &entry)?;
    let mut records = BaseRecords::new(archive, &entry, &base)?;
    let mut pairs = Pairs::new();
    while let Some(pair) = records.next_record().map_err(|fault| fault.to_string())? {
        pairs.push((pair.key.to_vec(), pair.value.to_vec()));
    }
    Ok(pairs)
}

/// An archive in a directory, its owners, and who signs for it.
struct Place {
    directory: TempDir,
    owners: [Identity; 2],
    signer: Option<SigningKey>,
}

impl Place {
    fn sealed() -> Self {
        Self::new(None)
    }

    fn sealed_and_signed() -> Self {
        Self::new(Some(SigningKey::generate().unwrap()))
    }

    fn new(signer: Option<SigningKey>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let owners = [Identity::generate(), Identity::generate()];
        let sealing = Sealing::To(owners.iter().map(Identity::public).collect());
        let signers = signer.iter().map(SigningKey::public).collect();
        let store = Store::directory(directory.path()).unwrap();
        Archive::init(store, Moment(0), &Protection { sealing, signers }).unwrap();
        Self { directory, owners, signer }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn open(&self) -> Result<Archive, Error> {
        Archive::open(Store::directory(self.path()).unwrap())
    }

    /// As a capturer has it: public keys, and what signs.
    fn writer(&self) -> Archive {
        let archive = self.open().unwrap();
        match &self.signer {
            Some(key) => archive.with_signing_key(key.clone()).unwrap(),
            None => archive,
        }
    }

    fn read_as(&self, identities: &[Identity]) -> Result<Pairs, Failed> {
        read(&self.open()?.with_identities(identities)?)
    }

    fn rekey(&self, request: &RekeyRequest) -> Result<Archive, Error> {
        let archive = self.open()?.with_identities(&self.owners[..1])?;
        let plan = archive.plan_rekey(request)?;
        archive.rekey(&plan, now())
    }

    fn remove_second_owner(&self) -> Archive {
        let remove = vec![self.owners[1].public()];
        self.rekey(&RekeyRequest { remove, ..RekeyRequest::default() }).unwrap()
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let files = files(self.path());
        files.into_iter().filter(|path| path.extension().unwrap() == extension).collect()
    }
}

/// Whatever is wrong is an error that says so.
#[track_caller]
fn check_told<T>(result: Result<T, Failed>, want: &str) {
    let told = result.err().expect("an error").to_string();
    assert!(told.contains(want), "{told}");
}

#[test]
fn writing_takes_public_keys_only_and_reading_an_identity() {
    for place in [Place::sealed(), Place::sealed_and_signed()] {
        let records = records(50);
        save(&place.writer(), &records).unwrap();
        for owner in &place.owners {
            assert!(place.read_as(std::slice::from_ref(owner)).unwrap() == records);
        }
        let archive = place.open().unwrap();
        let listing = archive.list().unwrap();
        assert_eq!(listing.unreadable.len(), 0, "listing needs no key");
        let header = &listing.bases[0].header;
        let signed = if place.signer.is_some() { FLAG_SIGNED } else { 0 };
        assert_eq!((header.flags, header.generation), (FLAG_SEALED | signed, Generation(1)));
        assert_eq!(header.facts.records, 50);
        check_told(read(&archive), "and no identity was given");
        check_told(place.read_as(&[Identity::generate()]), "none of the identities given opens");
        for path in files(place.path()) {
            let bytes = std::fs::read(&path).unwrap();
            let seen = bytes.windows(CANARY.len()).any(|window| window == CANARY);
            assert!(!seen, "{} is not sealed", path.display());
            let secret = b"AGE-SECRET-KEY";
            let seen = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!seen, "{} holds a secret", path.display());
        }
    }
}

#[test]
fn what_is_signed_need_not_be_sealed() {
    let key = SigningKey::generate().unwrap();
    let store = Store::memory().unwrap();
    let protection = Protection { sealing: Sealing::Unencrypted, signers: vec![key.public()] };
    let archive = Archive::init(store.clone(), Moment(0), &protection).unwrap();
    let refused = save(&archive, &records(5)).unwrap_err();
    assert!(matches!(refused, Error::NoSigningKey { .. }), "{refused}");
    let other = SigningKey::generate().unwrap();
    let refused = archive.clone().with_signing_key(other).unwrap_err();
    assert!(matches!(refused, Error::ForeignSigningKey { .. }), "{refused}");
    save(&archive.with_signing_key(key).unwrap(), &records(5)).unwrap();
    assert!(read(&Archive::open(store).unwrap()).unwrap() == records(5));
}

#[test]
fn to_nobody_is_not_to_all() {
    let protection = Protection { sealing: Sealing::To(Vec::new()), signers: Vec::new() };
    let store = Store::memory().unwrap();
    let refused = Archive::init(store.clone(), Moment(0), &protection).unwrap_err();
    assert!(matches!(refused, Error::NoRecipients), "{refused}");
    assert_eq!(store.is_empty(), Ok(true));
}

/// Each byte of each object and of each sealed key changed, each cut at each byte: never is anything
/// else read than what was written.
#[test]
fn no_damage_goes_unnoticed() {
    let place = Place::sealed_and_signed();
    let records = records(10);
    save(&place.writer(), &records).unwrap();
    let everything = || place.read_as(&place.owners[..1]);
    assert!(everything().unwrap() == records);
    let of = |extension| place.files(extension).into_iter();
    let objects: Vec<_> = of("age").chain(of("pack")).chain(of("base")).collect();
    assert_eq!(objects.len(), 3);
    for path in objects {
        let whole = std::fs::read(&path).unwrap();
        let check = |bytes: &[u8], what: &str| {
            std::fs::write(&path, bytes).unwrap();
            assert!(everything().is_err(), "{}, {what}", path.display());
        };
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            check(&changed, &format!("byte {at} changed"));
            if at % 7 == 0 {
                check(&whole[..at], &format!("cut at {at}"));
            }
        }
        check(&[&whole[..], &[0]].concat(), "with a byte more");
        std::fs::remove_file(&path).unwrap();
        assert!(everything().is_err(), "{} is gone", path.display());
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(everything().unwrap() == records);
}

/// What counts in the JSON files is under the fingerprint or the endorsement.
#[test]
fn public_keys_cannot_be_changed() {
    let place = Place::sealed_and_signed();
    save(&place.writer(), &records(5)).unwrap();
    place.remove_second_owner();
    let fingerprint = place.open().unwrap().fingerprint();
    for path in place.files("json") {
        if path.ends_with("timeline.json") {
            continue;
        }
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            // Names of people's fields and the date may be anything.
            let Ok(archive) = place.open() else { continue };
            assert_eq!(archive.fingerprint(), fingerprint, "{} at {at}", path.display());
        }
        std::fs::write(&path, &whole).unwrap();
    }
}

/// The parts of an object: header with signature, and body.
fn parts(object: &[u8]) -> (Header, &[u8]) {
    let header = Header::parse(object).unwrap();
    let body = &object[header.size()..];
    (header, body)
}

/// A header that says that this is its body, without a signature.
fn unsigned(header: &Header, body: &[u8]) -> Vec<u8> {
    let digest = Domain::Body.digest(&[body]);
    let (flags, generation) = (header.flags & !FLAG_SIGNED, header.generation);
    let head = header::encode(&header.facts, flags, generation, body.len() as u64, &digest);
    [&head, body].concat()
}

#[test]
fn a_body_under_another_header_is_foreign() {
    let place = Place::sealed();
    save(&place.writer(), &records(5)).unwrap();
    save(&place.writer(), &records(6)).unwrap();
    let [one, other] = &place.files("base")[..] else { panic!() };
    let (one, other_bytes) = (std::fs::read(one).unwrap(), std::fs::read(other).unwrap());
    let ((_, body), (header, _)) = (parts(&one), parts(&other_bytes));
    std::fs::write(other, unsigned(&header, body)).unwrap();
    let archive = place.open().unwrap().with_identities(&place.owners).unwrap();
    let entry = archive.list().unwrap().bases.into_iter().find(|base| other.ends_with(&base.name));
    let told = read_base(&archive, &entry.unwrap()).unwrap_err().to_string();
    assert!(told.contains("its body belongs to another object"), "{told}");
}

#[test]
fn what_is_not_protected_as_the_archive_is_is_refused_by_name() {
    let place = Place::sealed_and_signed();
    save(&place.writer(), &records(5)).unwrap();
    let [path] = &place.files("base")[..] else { panic!() };
    let name = path.file_name().unwrap().to_str().unwrap();
    let whole = std::fs::read(path).unwrap();
    let (header, body) = parts(&whole);
    let check = |object: &[u8], want: &str| {
        std::fs::write(path, object).unwrap();
        let listing = place.open().unwrap().list().unwrap();
        assert_eq!((listing.bases.len(), listing.unreadable.len()), (0, 1), "{want}");
        let told = listing.unreadable[0].to_string();
        assert!(told.contains(want) && told.contains(name), "{told}");
    };
    check(&unsigned(&header, body), "is not signed");
    let mut forged = whole.clone();
    forged[at::END..header.size()].fill(7);
    check(&forged, "is signed, but not by one whom the archive names");
    let plain = Header { flags: 0, generation: Generation::NONE, ..header.clone() };
    check(&unsigned(&plain, body), "is not sealed");
    let newer = Header { generation: Generation(9), ..header.clone() };
    check(
        &unsigned(&newer, body),
        "generation 9 of the archive's keys, which the archive does not",
    );

    // The other way round: an archive that is not encrypted takes nothing that is.
    let open = Place::sealed();
    save(&open.writer(), &records(5)).unwrap();
    let store = Store::memory().unwrap();
    Archive::init_unencrypted(store.clone(), Moment(0)).unwrap();
    let json = String::from_utf8(store.read("archive.json", 1 << 20).unwrap().to_vec()).unwrap();
    let id = |json: &str| json.split("\"archive\": \"").nth(1).unwrap()[..32].to_owned();
    let ours = std::fs::read_to_string(open.path().join("archive.json")).unwrap();
    std::fs::write(open.path().join("archive.json"), json.replace(&id(&json), &id(&ours))).unwrap();
    let told = open.open().unwrap().list().unwrap().unreadable[0].to_string();
    assert!(told.contains("belongs to an archive that is encrypted"), "{told}");
}

/// An object that somebody has sealed to the archive's public key, which everybody knows, is read as
/// its own where no signature is demanded, and refused where one is.
#[test]
fn only_a_signature_tells_who_wrote() {
    for place in [Place::sealed(), Place::sealed_and_signed()] {
        save(&place.writer(), &records(5)).unwrap();
        let anybody = save(&place.open().unwrap(), &records(6));
        assert_eq!(anybody.is_err(), place.signer.is_some());
    }
}

#[test]
fn who_is_added_reads_everything_and_who_is_removed_reads_what_was() {
    let place = Place::sealed_and_signed();
    let (third, [first, second]) = (Identity::generate(), &place.owners);
    save(&place.writer(), &records(5)).unwrap();
    let before = place.open().unwrap().fingerprint();
    let add = vec![third.public()];
    place.rekey(&RekeyRequest { add, ..RekeyRequest::default() }).unwrap();
    let archive = place.open().unwrap();
    assert_eq!((archive.generation(), archive.fingerprint()), (Generation(1), before));
    assert!(place.read_as(std::slice::from_ref(&third)).unwrap() == records(5));

    let rekeyed = place.remove_second_owner();
    assert_eq!(rekeyed.generation(), Generation(2));
    assert_ne!(rekeyed.fingerprint(), before);
    assert!(place.read_as(std::slice::from_ref(second)).unwrap() == records(5), "what was");
    save(&place.writer(), &records(9)).unwrap();
    for owner in [first, &third] {
        assert!(place.read_as(std::slice::from_ref(owner)).unwrap() == records(9));
        let archive = place.open().unwrap().with_identities(std::slice::from_ref(owner)).unwrap();
        assert_eq!(archive.recipients(), [first.public(), third.public()]);
        let older = &archive.list().unwrap().bases[0];
        assert_eq!(older.header.generation, Generation(1));
        read_base(&archive, older).expect("the older generation stays readable");
    }
    let want =
        "generation 2 of the archive's keys, which the identities given do not open: they open 1";
    check_told(place.read_as(std::slice::from_ref(second)), want);
}

#[test]
fn a_plan_says_who_reads_what() {
    let place = Place::sealed();
    let [first, second] = &place.owners;
    place.remove_second_owner();
    let third = Identity::generate();
    let archive = || place.open().unwrap().with_identities(std::slice::from_ref(first)).unwrap();
    let request = RekeyRequest { add: vec![third.public()], ..RekeyRequest::default() };
    let plan = archive().plan_rekey(&request).unwrap();
    assert_eq!((plan.newest, plan.begins), (Generation(2), None));
    assert_eq!(plan.shared, [Generation(1), Generation(2)]);
    let names = files(place.path());
    let check = |request: RekeyRequest, want: &RekeyFault| match archive().plan_rekey(&request) {
        Err(Error::Rekey(fault)) => assert_eq!(fault, *want),
        other => panic!("{other:?}"),
    };
    let none = RekeyRequest::default;
    let text = |identity: &Identity| identity.public().to_string();
    check(none(), &RekeyFault::Nothing);
    let there = RekeyFault::AlreadyThere { who: text(first) };
    check(RekeyRequest { add: vec![first.public()], ..none() }, &there);
    let gone = RekeyFault::NotThere { who: text(second) };
    check(RekeyRequest { remove: vec![second.public()], ..none() }, &gone);
    check(RekeyRequest { remove: vec![first.public()], ..none() }, &RekeyFault::Nobody);
    let closed = place.open().unwrap().plan_rekey(&request).unwrap_err();
    assert!(matches!(closed, Error::Closed { why: Closed::NoIdentity, .. }), "{closed}");
    let removed = place.open().unwrap().with_identities(std::slice::from_ref(second)).unwrap();
    let closed = removed.plan_rekey(&request).unwrap_err();
    assert!(matches!(closed, Error::Closed { why: Closed::Others { .. }, .. }), "{closed}");
    assert_eq!(files(place.path()), names, "plans touch nothing");

    // Of two who plan at the same time, one is told.
    let (one, other) = (archive(), archive());
    let begin = RekeyRequest { add: vec![third.public()], remove: vec![first.public()], ..none() };
    let plans = (one.plan_rekey(&begin).unwrap(), other.plan_rekey(&begin).unwrap());
    one.rekey(&plans.0, now()).unwrap();
    let overtaken = other.rekey(&plans.1, now()).unwrap_err();
    assert!(matches!(overtaken, Error::Rekey(RekeyFault::Overtaken)), "{overtaken}");
    assert_eq!(place.open().unwrap().generation(), Generation(3));
    place.open().unwrap().with_identities(&[third]).unwrap();
}

#[test]
fn signers_change_with_a_generation() {
    let place = Place::sealed_and_signed();
    let (old, new) = (place.signer.clone().unwrap(), SigningKey::generate().unwrap());
    save(&place.writer(), &records(5)).unwrap();
    let (add_signers, remove_signers) = (vec![new.public()], vec![old.public()]);
    let request = RekeyRequest { add_signers, remove_signers, ..RekeyRequest::default() };
    let archive = place.rekey(&request).unwrap();
    let refused = archive.clone().with_signing_key(old).unwrap_err();
    assert!(matches!(refused, Error::ForeignSigningKey { .. }), "{refused}");
    save(&archive.with_signing_key(new).unwrap(), &records(6)).unwrap();
    assert!(place.read_as(&place.owners).unwrap() == records(6));
    assert_eq!(place.open().unwrap().list().unwrap().bases.len(), 2, "what was signed stays so");
}

/// Somebody who can write to the store puts his own keys there.
#[test]
fn an_attackers_own_keys_are_refused() {
    // A generation that a stranger's archive has.
    let (place, attacker) = (Place::sealed(), Place::sealed());
    save(&place.writer(), &records(5)).unwrap();
    attacker.remove_second_owner();
    let [public] = &attacker
        .files("json")
        .into_iter()
        .filter(|path| !path.ends_with("archive.json"))
        .collect::<Vec<_>>()[..]
    else {
        panic!()
    };
    let below =
        |place: &Place, path: &Path| place.path().join("keys").join(path.file_name().unwrap());
    let planted = below(&place, public);
    std::fs::copy(public, &planted).unwrap();
    check_told(place.open().map_err(Failed::from), "belongs to archive");
    let id = |place: &Place| place.open().unwrap().id().to_string();
    let theirs = std::fs::read_to_string(public).unwrap();
    std::fs::remove_file(&planted).unwrap();
    let ours = theirs.replace(&id(&attacker), &id(&place));
    std::fs::write(&planted, ours).unwrap();
    check_told(place.open().map_err(Failed::from), "its keys do not have its fingerprint");
    std::fs::remove_file(&planted).unwrap();

    // His public key in archive.json, everything computed anew: another fingerprint, and the owners see
    // it as soon as they read.
    let fingerprint = place.open().unwrap().fingerprint();
    let json = place.path().join("archive.json");
    let theirs = std::fs::read_to_string(attacker.path().join("archive.json")).unwrap();
    let own = std::fs::read(&json).unwrap();
    std::fs::write(&json, theirs.replace(&id(&attacker), &id(&place))).unwrap();
    check_told(place.open().map_err(Failed::from), "its keys do not have its fingerprint");
    std::fs::write(&json, theirs).unwrap();
    assert_ne!(place.open().unwrap().fingerprint(), fingerprint);
    check_told(place.read_as(&place.owners), "belongs to archive");
    std::fs::write(&json, own).unwrap();

    // His key object: the owners' own archive has a name for it.
    for path in attacker.files("age") {
        std::fs::copy(&path, below(&place, &path)).unwrap();
    }
    assert!(
        place.read_as(&place.owners).unwrap() == records(5),
        "what does not open is passed over"
    );
    check_told(place.read_as(&attacker.owners), "belongs to archive");
}

#[test]
fn keys_that_are_gone_are_told_from_keys_of_others() {
    let place = Place::sealed();
    save(&place.writer(), &records(5)).unwrap();
    let [key] = &place.files("age")[..] else { panic!() };
    std::fs::remove_file(key).unwrap();
    check_told(place.read_as(&place.owners), "nothing is left in its keys/");
    std::fs::write(key, "age-encryption.org/v1\n").unwrap();
    check_told(place.read_as(&place.owners), "it was changed: its name is another's");
}
