//! Any bytes as a bbolt file whose metas' checksums fit: a scan, lookups and the checker see the
//! same pairs where nothing is damaged, and written in bulk they read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_bolt::{
    Bucket, BulkError, BulkWriter, Db, Error, Layout, Pair, ReadAt, Scan, Visit, check, format,
};
use std::convert::Infallible;

/// Named buckets with their pairs, in the order in which they were met.
type Content = Vec<(Vec<u8>, Vec<Held>)>;
/// A key, its value, and whether that is a bucket.
type Held = (Vec<u8>, Vec<u8>, bool);

fuzz_target!(|bytes: &[u8]| {
    let mut file = bytes.to_vec();
    seal_metas(&mut file);
    let Ok(db) = Db::open(&file) else { return };
    let mut checked = Collect::default();
    let report = check(&db, &mut checked).expect("memory does not fail");
    assert_eq!(report.is_sound(), report.findings.is_empty());
    let (scanned, damaged) = scan_buckets(&db);
    if report.content_damage > 0 {
        return;
    }
    assert!(!damaged && scanned == checked.0);
    look_up(&db, &scanned);
    let plain = without_inner_buckets(scanned);
    match write(&plain) {
        Ok(file) => {
            let db = Db::open(&file).expect("what was written opens");
            let mut again = Collect::default();
            let report = check(&db, &mut again).expect("memory does not fail");
            assert_eq!((report.findings, report.usage.free_bytes()), (Vec::new(), 0));
            assert!(again.0 == plain);
        }
        // bbolt would not have taken the key, but its reader does.
        Err(BulkError::KeySize { .. }) => {}
        Err(error) => panic!("{error}"),
    }
});

/// Makes the checksums of both metas fit, so that more than one input in 2^64 gets past them.
fn seal_metas(file: &mut [u8]) {
    let page_size = file.get(page_size_at()..).and_then(<[u8]>::first_chunk);
    let page_size = page_size.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
    for page in [0, page_size] {
        let meta = file.get_mut(page..).and_then(|page| page.get_mut(format::page::SIZE..));
        let Some(meta) = meta.and_then(<[u8]>::first_chunk_mut::<{ format::meta::SIZE }>) else {
            continue;
        };
        let (body, sum) = meta.split_at_mut(format::meta::CHECKSUM);
        sum.copy_from_slice(&fnv1a(body).to_le_bytes());
    }
}

fn page_size_at() -> usize {
    format::page::SIZE + format::meta::PAGE_SIZE
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[derive(Default)]
struct Collect(Content);

impl Visit for Collect {
    type Stop = Infallible;

    fn bucket(&mut self, name: &[u8]) -> Result<(), Infallible> {
        self.0.push((name.to_vec(), Vec::new()));
        Ok(())
    }

    fn pair(&mut self, pair: Pair<'_>) -> Result<(), Infallible> {
        self.0.last_mut().expect("a bucket came before").1.push(held(pair));
        Ok(())
    }
}

fn held(pair: Pair<'_>) -> Held {
    (pair.key.to_vec(), pair.value.to_vec(), pair.is_bucket)
}

/// All named buckets as scans find them, and whether one met damage.
fn scan_buckets<S: ReadAt>(db: &Db<S>) -> (Content, bool) {
    let (mut content, mut damaged) = (Content::new(), false);
    let root = db.root();
    let mut scan = Scan::new(db, &root);
    loop {
        match scan.next_leaf() {
            Ok(Some(leaf)) => {
                for pair in leaf.pairs() {
                    let Some(bucket) = Bucket::of(&pair, &leaf) else { continue };
                    let (pairs, damage) = scan_pairs(db, &bucket);
                    content.push((pair.key.to_vec(), pairs));
                    damaged |= damage;
                }
            }
            Ok(None) => return (content, damaged),
            Err(Error::Damaged(_)) => damaged = true,
            Err(error) => panic!("{error}"),
        }
    }
}

fn scan_pairs<S: ReadAt>(db: &Db<S>, bucket: &Bucket) -> (Vec<Held>, bool) {
    let (mut pairs, mut damaged) = (Vec::new(), false);
    let mut scan = Scan::new(db, bucket);
    loop {
        match scan.next_leaf() {
            Ok(Some(leaf)) => pairs.extend(leaf.pairs().map(held)),
            Ok(None) => return (pairs, damaged),
            Err(Error::Damaged(_)) => damaged = true,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What a scan finds is found by name, too, and nothing beside it.
fn look_up<S: ReadAt>(db: &Db<S>, content: &Content) {
    for (name, pairs) in content {
        let bucket = db.bucket(&db.root(), name).expect("undamaged").expect("it was scanned");
        let last = pairs.last().map(|(key, ..)| key.clone());
        assert_eq!(db.last_key(&bucket), Ok(last));
        for (key, value, _) in pairs.iter().step_by(1 + pairs.len() / 8) {
            assert_eq!(db.get(&bucket, key).as_ref(), Ok(&Some(value.clone())));
            let beyond = [key.as_slice(), &[0]].concat();
            let there = pairs.iter().find(|(key, ..)| *key == beyond);
            assert_eq!(db.get(&bucket, &beyond), Ok(there.map(|(_, value, _)| value.clone())));
        }
    }
}

/// The bulk writer writes none.
fn without_inner_buckets(mut content: Content) -> Content {
    content.iter_mut().for_each(|(_, pairs)| pairs.retain(|(.., is_bucket)| !is_bucket));
    content
}

fn write(content: &Content) -> Result<Vec<u8>, BulkError> {
    let layout = Layout::new(1024, 4096).expect("a layout");
    let mut writer = BulkWriter::new(Vec::new(), layout)?;
    for (name, pairs) in content {
        let mut bucket = writer.bucket(name)?;
        for (key, value, _) in pairs {
            bucket.put(key, value)?;
        }
        writer = bucket.finish()?;
    }
    let finished = writer.finish()?;
    let mut file = finished.out;
    file[..finished.metas.len()].copy_from_slice(&finished.metas);
    Ok(file)
}
