//! What the bulk writer wrote, the reader reads and the checker passes.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use rekindle_bolt::{
    Bucket, BulkError, BulkWriter, Db, Layout, PageId, Pair, Piece, ReadAt, Scan, Visit, check,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;
type Content = BTreeMap<Vec<u8>, Pairs>;

fn write(content: &Content, layout: Layout) -> Vec<u8> {
    let mut writer = BulkWriter::new(Vec::new(), layout).unwrap();
    for (name, pairs) in content {
        let mut bucket = writer.bucket(name).unwrap();
        for (key, value) in pairs {
            bucket.put(key, value).unwrap();
        }
        writer = bucket.finish().unwrap();
    }
    let finished = writer.finish().unwrap();
    let mut bytes = finished.out;
    assert_eq!(bytes.len() as u64, finished.size);
    bytes[..finished.metas.len()].copy_from_slice(&finished.metas);
    bytes
}

#[derive(Default)]
struct Collect {
    content: Content,
    name: Vec<u8>,
}

impl Visit for Collect {
    type Stop = Infallible;

    fn bucket(&mut self, name: &[u8]) -> Result<(), Infallible> {
        self.name = name.to_vec();
        self.content.insert(name.to_vec(), Pairs::new());
        Ok(())
    }

    fn pair(&mut self, pair: Pair<'_>) -> Result<(), Infallible> {
        let pairs = self.content.get_mut(&self.name).unwrap();
        pairs.insert(pair.key.to_vec(), pair.value.to_vec());
        Ok(())
    }
}

/// Reads all that a sound file holds.
fn read(bytes: &Vec<u8>) -> Content {
    let db = Db::open(bytes).unwrap();
    let mut collect = Collect::default();
    let report = check(&db, &mut collect).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(
        report.usage.in_use_bytes(),
        bytes.len() as u64,
        "a bulk-written file has no free page"
    );
    collect.content
}

fn check_round_trip(content: &Content, layout: Layout) {
    let bytes = write(content, layout);
    assert_eq!(&read(&bytes), content);
    let db = Db::open(&bytes).unwrap();
    assert_eq!(db.page_size(), layout.page_size());
    for (name, pairs) in content {
        let bucket = db.bucket(&db.root(), name).unwrap().unwrap();
        assert_eq!(db.last_key(&bucket).unwrap(), pairs.keys().last().cloned());
        for (key, value) in pairs.iter().step_by(1 + pairs.len() / 100) {
            assert_eq!(db.get(&bucket, key).unwrap().as_ref(), Some(value));
        }
        check_seek(&db, &bucket, pairs);
    }
    assert!(db.bucket(&db.root(), b"\xff no such bucket").unwrap().is_none());
}

/// A scan that starts at a key yields exactly the pairs from it on.
fn check_seek(db: &Db<&Vec<u8>>, bucket: &Bucket, pairs: &Pairs) {
    for key in pairs.keys().step_by(1 + pairs.len() / 10) {
        let mut scan = Scan::starting_at(db, bucket, key);
        let mut got = Vec::new();
        while let Some(leaf) = scan.next_leaf().unwrap() {
            got.extend(leaf.pairs().map(|pair| pair.key.to_vec()).filter(|found| found >= key));
        }
        let want: Vec<_> = pairs.range(key.clone()..).map(|(key, _)| key.clone()).collect();
        assert_eq!(got, want);
        let mut beyond = key.clone();
        beyond.push(0);
        if !pairs.contains_key(&beyond) {
            assert_eq!(db.get(bucket, &beyond).unwrap(), None);
        }
    }
}

fn a_layout() -> impl Strategy<Value = Layout> {
    let sizes = [(1024, 1024), (1024, 4096), (4096, 4096), (4096, 16384), (65536, 65536)];
    (0..sizes.len()).prop_map(move |at| Layout::new(sizes[at].0, sizes[at].1).unwrap())
}

fn some_pairs() -> impl Strategy<Value = Pairs> {
    let value = prop_oneof![4 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 0..9000)];
    let key = prop_oneof![4 => vec(any::<u8>(), 1..12), 1 => vec(any::<u8>(), 1..900)];
    btree_map(key, value, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn reads_back_what_was_written(
        content in btree_map(vec(any::<u8>(), 1..10), some_pairs(), 0..5),
        layout in a_layout(),
    ) {
        check_round_trip(&content, layout);
    }
}

#[test]
fn three_levels_of_branches() {
    let pairs: Pairs =
        (0..40_000_u32).map(|n| (n.to_be_bytes().to_vec(), n.to_le_bytes().to_vec())).collect();
    let content = Content::from([(b"key".to_vec(), pairs)]);
    check_round_trip(&content, Layout::new(1024, 1024).unwrap());
}

/// A source that keeps what it was told and what was read in pieces.
#[derive(Default)]
struct Listening {
    bytes: Vec<u8>,
    told: RefCell<Vec<Vec<Piece>>>,
    read: RefCell<Vec<Vec<Piece>>>,
}

impl ReadAt for Listening {
    fn size(&self) -> u64 {
        self.bytes.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.bytes.read_exact_at(buf, offset)
    }

    fn read_pieces(&self, buf: &mut Vec<u8>, pieces: &[Piece]) -> std::io::Result<()> {
        self.read.borrow_mut().push(pieces.to_vec());
        self.bytes.read_pieces(buf, pieces)
    }

    fn will_read(&self, pieces: &[Piece]) {
        self.told.borrow_mut().push(pieces.to_vec());
    }
}

#[test]
fn the_source_is_told_over_branches_what_comes_next() {
    let value = |n: u32| vec![n as u8; 3000];
    let pairs: Pairs = (0..2000_u32).map(|n| (n.to_be_bytes().to_vec(), value(n))).collect();
    let bytes = write(&Content::from([(b"key".to_vec(), pairs)]), Layout::new(1024, 1024).unwrap());
    let db = Db::open(Listening { bytes, ..Listening::default() }).unwrap();
    let bucket = db.bucket(&db.root(), b"key").unwrap().unwrap();
    let lookups = db.source().read.take();
    assert!(lookups.iter().flatten().all(|piece| piece.len == 1024), "a page a level: {lookups:?}");
    assert_eq!(*db.source().told.borrow(), [[]; 0], "a lookup needs nothing else");

    let mut scan = Scan::new(&db, &bucket);
    let mut leaves = 0;
    while scan.next_leaf().unwrap().is_some() {
        leaves += 1;
    }
    let (told, mut read) = (db.source().told.take(), db.source().read.take());
    assert_eq!(leaves, 2000);
    assert!(told.len() > 50, "{} batches of some 40 leaves", told.len());
    // Branches are read alone, and so is the first leaf: nothing was told before.
    read.retain(|pieces| pieces[..] != [Piece { len: 1024, ..pieces[0] }]);
    read.remove(0);
    let odd = read.iter().zip(&told).find(|(read, told)| read != told);
    assert_eq!((odd, read.len()), (None, told.len()));
}

#[test]
fn a_value_larger_than_a_leaf_goes_on_over_overflow_pages() {
    let pairs = Pairs::from([
        (b"a".to_vec(), vec![1; 3]),
        (b"b".to_vec(), vec![2; 2_000_000]),
        (b"c".to_vec(), vec![3; 3]),
    ]);
    let bytes = write(
        &Content::from([(b"key".to_vec(), pairs.clone())]),
        Layout::new(4096, 16384).unwrap(),
    );
    assert_eq!(read(&bytes)[b"key".as_slice()], pairs);
}

#[test]
fn small_buckets_lie_inline_in_the_root() {
    let pairs = Pairs::from([(b"k".to_vec(), vec![0; 900])]);
    let small = write(&Content::from([(b"b".to_vec(), pairs)]), Layout::new(4096, 4096).unwrap());
    assert_eq!(small.len(), 4 * 4096, "two metas, the root, the freelist");
    let pairs = Pairs::from([(b"k".to_vec(), vec![0; 1100])]);
    let large = write(&Content::from([(b"b".to_vec(), pairs)]), Layout::new(4096, 4096).unwrap());
    assert_eq!(large.len(), 5 * 4096, "and the bucket's own page");
}

#[test]
fn refuses_what_bbolt_could_not_read() {
    let writer = BulkWriter::new(Vec::new(), Layout::new(4096, 4096).unwrap()).unwrap();
    let mut bucket = writer.bucket(b"b").unwrap();
    bucket.put(b"k", b"").unwrap();
    let refused = |result: Result<(), BulkError>| result.unwrap_err().to_string();
    assert_eq!(refused(bucket.put(b"k", b"")), "key 6b does not come after the one before");
    assert_eq!(refused(bucket.put(b"a", b"")), "key 61 does not come after the one before");
    assert_eq!(refused(bucket.put(b"", b"")), "a key of 0 bytes, where 1 to 32768 are possible");
    let long = vec![0xff; 32769];
    assert_eq!(
        refused(bucket.put(&long, b"")),
        "a key of 32769 bytes, where 1 to 32768 are possible"
    );
    let writer = bucket.finish().unwrap();
    let error = writer.bucket(b"b").map(drop).unwrap_err().to_string();
    assert_eq!(error, "bucket 62 does not come after the one before");
}

#[test]
fn layouts_that_bbolt_could_not_open_are_none() {
    for (page, leaf) in [
        (0, 0),
        (512, 512),
        (3000, 3000),
        (4096, 2048),
        (4096, 6000),
        (4096, 2 << 20),
        (32 << 20, 32 << 20),
    ] {
        assert_eq!(Layout::new(page, leaf), None, "{page} {leaf}");
    }
}

#[test]
fn the_high_water_mark_is_the_end_of_the_file() {
    let bytes = write(&Content::new(), Layout::new(4096, 4096).unwrap());
    let db = Db::open(&bytes).unwrap();
    assert_eq!(db.meta().high_water, PageId(4));
    assert_eq!(db.size(), bytes.len() as u64);
    assert_eq!(db.meta().freelist, Some(PageId(3)));
}
