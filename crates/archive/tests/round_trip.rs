//! What went into an archive comes out of it, or an error does.

use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, BaseEntry, BaseRecords, BaseRequest, Error, Origin, Progress, Store, prepare_base,
    read_base,
};
use rekindle_bolt::{BulkWriter, Layout, Pair, Visit, check};
use rekindle_etcd::restore::Records;
use rekindle_etcd::{Backend, ClusterId, KeyValue, MemberId, RecordKey, Revision, schema};
use rekindle_testkit::content::{files, noise};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// A clock that goes on by a second whenever it is looked at.
static NOW: AtomicI64 = AtomicI64::new(0);

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
type Content = BTreeMap<Vec<u8>, Pairs>;

/// A keyspace of so many records with values of so many bytes, some of them deletes, and the
/// buckets around it.
fn content(records: i64, len: usize) -> Content {
    let mut pairs = Pairs::new();
    for number in 2..2 + records {
        let at = RecordKey::first_of(Revision::new(number).unwrap());
        let name = format!("/registry/pods/{}", number % 97);
        let (key, value) = (name.as_bytes(), noise(number as u64, len));
        if number % 10 == 0 {
            let kv = KeyValue { key, ..KeyValue::default() };
            pairs.push((RecordKey { tombstone: true, ..at }.to_bytes(), kv.to_bytes()));
        } else {
            let kv = KeyValue { key, value: &value, mod_revision: number, ..KeyValue::default() };
            pairs.push((at.to_bytes(), kv.to_bytes()));
        }
    }
    let meta = vec![
        (schema::meta::CONSISTENT_INDEX.to_vec(), 77_u64.to_be_bytes().to_vec()),
        (schema::meta::TERM.to_vec(), 5_u64.to_be_bytes().to_vec()),
    ];
    let lease = (0..50_u64).map(|id| (id.to_be_bytes().to_vec(), noise(id, 20))).collect();
    Content::from([
        (schema::KEY.to_vec(), pairs),
        (schema::LEASE.to_vec(), lease),
        (schema::META.to_vec(), meta),
        (schema::AUTH.to_vec(), Pairs::new()),
    ])
}

fn a_database(content: &Content) -> Vec<u8> {
    let mut writer = BulkWriter::new(Vec::new(), Layout::new(4096, 4096).unwrap()).unwrap();
    for (name, pairs) in content {
        let mut bucket = writer.bucket(name).unwrap();
        pairs.iter().for_each(|(key, value)| bucket.put(key, value).unwrap());
        writer = bucket.finish().unwrap();
    }
    let finished = writer.finish().unwrap();
    let mut bytes = finished.out;
    bytes[..finished.metas.len()].copy_from_slice(&finished.metas);
    bytes
}

fn origin() -> Origin {
    Origin {
        cluster: ClusterId(1),
        member: MemberId(2),
        etcd: "3.6.16".to_owned(),
        state: Moment(1000),
        current: true,
    }
}

fn save(archive: &Archive, content: &Content) -> Result<(), Error> {
    let backend = Backend::open(a_database(content)).unwrap();
    let going_on = AtomicBool::new(false);
    let now = || Moment(NOW.fetch_add(1000, Ordering::Relaxed));
    let origin = Origin { state: now(), ..origin() };
    let walked = AtomicU64::new(0);
    let progress = Progress { walked: &walked, stop: &going_on };
    let request = BaseRequest::new(archive, &origin, &now, progress);
    prepare_base(&request, &backend)?.publish(now()).map(drop)
}

/// Everything that a base brings back.
fn read(archive: &Archive, entry: &BaseEntry) -> Result<Content, Box<dyn std::error::Error>> {
    let base = read_base(archive, entry)?;
    let mut records = BaseRecords::new(archive, entry, &base)?;
    let backend = Backend::open(base.frame)?;
    let mut small = Collect::default();
    let report = check(backend.db(), &mut small).unwrap();
    assert!(report.is_sound());
    let mut pairs = Pairs::new();
    while let Some(pair) = records.next_record().map_err(|fault| fault.to_string())? {
        pairs.push((pair.key.to_vec(), pair.value.to_vec()));
    }
    small.0.insert(schema::KEY.to_vec(), pairs);
    Ok(small.0)
}

#[derive(Default)]
struct Collect(Content, Vec<u8>);

impl Visit for Collect {
    type Stop = Infallible;

    fn bucket(&mut self, name: &[u8]) -> Result<(), Infallible> {
        self.1 = name.to_vec();
        self.0.insert(name.to_vec(), Pairs::new());
        Ok(())
    }

    fn pair(&mut self, pair: Pair<'_>) -> Result<(), Infallible> {
        let bucket = self.0.entry(self.1.clone()).or_default();
        bucket.push((pair.key.to_vec(), pair.value.to_vec()));
        Ok(())
    }
}

fn an_archive() -> Archive {
    Archive::init_unencrypted(Store::memory().unwrap(), Moment(0)).unwrap()
}

#[test]
fn a_base_brings_everything_back() {
    // Nothing, one block, many blocks, many packs.
    for (records, len) in [(0, 0), (1, 10), (500, 100), (3000, 2000), (20_000, 2000)] {
        let (archive, content) = (an_archive(), content(records, len));
        save(&archive, &content).unwrap();
        let listing = archive.list().unwrap();
        assert_eq!(listing.bases.len(), 1);
        let facts = &listing.bases[0].header.facts;
        assert_eq!(facts.records, records as u64);
        assert_eq!(facts.last.get(), 1.max(records + if records > 0 { 1 } else { 0 }));
        assert_eq!((facts.term.0, facts.index.0, facts.etcd.as_str()), (5, 77, "3.6.16"));
        let packs = archive.store().list("timelines").unwrap();
        let packs: Vec<_> = packs.iter().filter(|found| found.name.ends_with(".pack")).collect();
        let raw = records as usize * len;
        assert_eq!(packs.len(), raw.div_ceil(10 << 20), "packs of some 8 MiB for {raw} bytes");
        assert!(packs.iter().all(|pack| pack.bytes < 10 << 20));
        assert!(read(&archive, &listing.bases[0]).unwrap() == content, "{records} of {len}");
    }
}

#[test]
fn bases_of_one_cluster_share_a_timeline_until_it_goes_back() {
    let (archive, content) = (an_archive(), content(10, 10));
    save(&archive, &content).unwrap();
    save(&archive, &content).unwrap();
    let mut back = content;
    let term = (schema::meta::TERM.to_vec(), 1_u64.to_be_bytes().to_vec());
    back.get_mut(schema::META).unwrap()[1] = term;
    save(&archive, &back).unwrap();
    save(&archive, &back).unwrap();
    let listing = archive.list().unwrap();
    let timelines: Vec<_> = listing.bases.iter().map(|base| base.header.facts.timeline).collect();
    assert_eq!(timelines.len(), 4);
    let same = |timeline| timelines.iter().filter(|other| **other == timeline).count();
    assert!(timelines.iter().all(|timeline| same(*timeline) == 2), "{timelines:?}");
}

/// Each byte of each object changed, each object cut at each byte: never is anything else read than
/// what was written.
#[test]
fn no_damage_goes_unnoticed() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let store = || Store::directory(root).unwrap();
    let content = content(20, 30);
    let archive = Archive::init_unencrypted(store(), Moment(0)).unwrap();
    save(&archive, &content).unwrap();
    let everything = || -> Result<Content, Box<dyn std::error::Error>> {
        let archive = Archive::open(store())?;
        let mut listing = archive.list()?;
        match (listing.unreadable.pop(), listing.bases.pop()) {
            (Some(error), _) => Err(error.into()),
            (None, Some(base)) => read(&archive, &base),
            (None, None) => Err("there is no base".into()),
        }
    };
    assert!(everything().unwrap() == content);
    let objects = files(root);
    assert_eq!(objects.len(), 4, "archive, timeline, pack, base: {objects:?}");
    for path in objects.iter().filter(|path| path.extension().unwrap() != "json") {
        let whole = std::fs::read(path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            std::fs::write(path, &changed).unwrap();
            let got = everything();
            assert!(got.is_err(), "{}, byte {at} changed", path.display());
            if at % 7 == 0 {
                std::fs::write(path, &whole[..at]).unwrap();
                assert!(everything().is_err(), "{} cut at {at}", path.display());
            }
        }
        std::fs::write(path, [&whole[..], &[0]].concat()).unwrap();
        assert!(everything().is_err(), "{} with a byte more", path.display());
        std::fs::remove_file(path).unwrap();
        assert!(everything().is_err(), "{} is gone", path.display());
        std::fs::write(path, &whole).unwrap();
    }
    assert!(everything().unwrap() == content);
}

/// A pack under another's name, as a confused copy would leave it.
#[test]
fn objects_that_were_swapped_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let archive = Archive::init_unencrypted(Store::directory(root).unwrap(), Moment(0)).unwrap();
    let mut other = content(20, 30);
    save(&archive, &other).unwrap();
    *other.get_mut(schema::KEY).unwrap()[0].1.last_mut().unwrap() ^= 1;
    save(&archive, &other).unwrap();
    let packs: Vec<_> =
        files(root).into_iter().filter(|path| path.extension().unwrap() == "pack").collect();
    let [one, other] = &packs[..] else { panic!("{packs:?}") };
    let bytes = std::fs::read(one).unwrap();
    std::fs::write(one, std::fs::read(other).unwrap()).unwrap();
    std::fs::write(other, bytes).unwrap();
    for base in archive.list().unwrap().bases {
        let error = read(&archive, &base).unwrap_err().to_string();
        assert!(error.contains("belongs to the name"), "{error}");
    }
}

/// A base that was copied is no second restore point.
#[test]
fn an_object_under_another_name_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let archive = Archive::init_unencrypted(Store::directory(root).unwrap(), Moment(0)).unwrap();
    save(&archive, &content(20, 30)).unwrap();
    let name = archive.list().unwrap().bases[0].name.clone();
    let (before, _) = name.rsplit_once('-').unwrap();
    let copy = format!("{before}-{:032x}.base", 7);
    std::fs::copy(root.join(&name), root.join(&copy)).unwrap();
    let listing = archive.list().unwrap();
    assert_eq!((listing.bases.len(), listing.unreadable.len()), (1, 1));
    let told = listing.unreadable[0].to_string();
    assert!(told.contains("belongs to the name"), "{told}");
}

fn objects(archive: &Archive) -> usize {
    let objects = archive.store().list("timelines").unwrap();
    objects.iter().filter(|object| !object.name.ends_with("timeline.json")).count()
}

#[test]
fn what_does_not_become_a_base_takes_its_packs_away() {
    let (archive, content) = (an_archive(), content(20_000, 2000));
    let backend = Backend::open(a_database(&content)).unwrap();
    let (walked, going_on) = (AtomicU64::new(0), AtomicBool::new(false));
    let progress = Progress { walked: &walked, stop: &going_on };
    let (archive, origin, now) = (&archive, &origin(), &|| Moment(1));
    let request = BaseRequest::new(archive, origin, now, progress);
    let prepare = || prepare_base(&request, &backend);
    let prepared = prepare().unwrap();
    assert_eq!(objects(archive), 4, "packs and no base");
    drop(prepared);
    assert_eq!(objects(archive), 0);
    // Stopped while packs are on their way.
    std::thread::scope(|threads| {
        let prepared = threads.spawn(prepare);
        while objects(archive) == 0 && !prepared.is_finished() {
            std::thread::yield_now();
        }
        going_on.store(true, Ordering::Relaxed);
        drop(prepared.join().unwrap());
    });
    assert_eq!(objects(archive), 0);
}

#[test]
fn a_base_that_was_stopped_is_none() {
    let (archive, content) = (an_archive(), content(500, 100));
    let backend = Backend::open(a_database(&content)).unwrap();
    let (walked, stop) = (AtomicU64::new(0), AtomicBool::new(true));
    let progress = Progress { walked: &walked, stop: &stop };
    let (archive, origin, now) = (&archive, &origin(), &|| Moment(1));
    let request = BaseRequest::new(archive, origin, now, progress);
    let stopped = prepare_base(&request, &backend).err().unwrap();
    assert!(matches!(stopped, Error::Stopped), "{stopped}");
    assert!(archive.list().unwrap().bases.is_empty());
}
