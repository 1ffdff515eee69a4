//! Every kind of damage, and what the checker says of it.
//!
//! The file under test has 1 KiB pages: 0 and 1 metas, 2 to 4 leaves of bucket `big`, 5 its branch,
//! 6 the root leaf with `big` and the inline bucket `inl`.

use rekindle_bolt::{BulkWriter, Damage, Db, Error, Layout, Piece, ReadAt, Reason, Scan, check};
use std::cell::Cell;

const PAGE: usize = 1024;
const META: usize = 16;

fn a_file() -> Vec<u8> {
    let writer = BulkWriter::new(Vec::new(), Layout::new(PAGE, PAGE).unwrap()).unwrap();
    let mut big = writer.bucket(b"big").unwrap();
    for n in 0..9_u8 {
        big.put(&[b'k', n], &[n; 300]).unwrap();
    }
    let writer = big.finish().unwrap();
    let mut inl = writer.bucket(b"inl").unwrap();
    inl.put(b"one", b"1").unwrap();
    inl.put(b"two", b"2").unwrap();
    let writer = inl.finish().unwrap();
    let finished = writer.finish().unwrap();
    let mut bytes = finished.out;
    bytes[..2 * PAGE].copy_from_slice(&finished.metas);
    // Without the freelist, which is the last page: the tests have freelists of their own.
    bytes.truncate(7 * PAGE);
    put_in_metas(&mut bytes, 32, &u64::MAX.to_le_bytes());
    put_in_metas(&mut bytes, 40, &7_u64.to_le_bytes());
    bytes
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

/// Changes a field of both metas and makes their checksums fit.
fn put_in_metas(bytes: &mut [u8], field: usize, new: &[u8]) {
    for page in [0, PAGE] {
        put(bytes, page + META + field, new);
        let sum =
            bytes[page + META..page + META + 56].iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
                (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        put(bytes, page + META + 56, &sum.to_le_bytes());
    }
}

/// Appends a freelist page that holds `ids`.
fn add_freelist(bytes: &mut Vec<u8>, ids: &[u64]) {
    let id = (bytes.len() / PAGE) as u64;
    let mut page = id.to_le_bytes().to_vec();
    page.extend(0x10_u16.to_le_bytes());
    page.extend((ids.len() as u16).to_le_bytes());
    page.extend([0; 4]);
    page.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    page.resize(PAGE, 0);
    bytes.extend(page);
    put_in_metas(bytes, 32, &id.to_le_bytes());
    put_in_metas(bytes, 40, &(id + 1).to_le_bytes());
}

/// Adds blank pages below the high-water mark.
fn add_blank_pages(bytes: &mut Vec<u8>, pages: usize) {
    bytes.resize(bytes.len() + pages * PAGE, 0);
    let high_water = (bytes.len() / PAGE) as u64;
    put_in_metas(bytes, 40, &high_water.to_le_bytes());
}

/// The checker's findings, a line each.
fn findings(bytes: &Vec<u8>) -> String {
    let report = match Db::open(bytes) {
        Ok(db) => check(&db, &mut ()).unwrap(),
        Err(error) => return format!("{error}\n"),
    };
    assert_eq!(report.findings.len() as u64, report.findings_total);
    report.findings.iter().map(|damage| format!("{damage}\n")).collect()
}

fn check_damage(change: impl FnOnce(&mut Vec<u8>), want: &str) {
    let mut bytes = a_file();
    assert_eq!(findings(&bytes), "", "the file before the change");
    change(&mut bytes);
    assert_eq!(findings(&bytes).trim_end(), want);
}

#[test]
fn metas() {
    check_damage(
        |b| put(b, META, &[0]),
        "page 0 at offset 0: meta has magic 0xed0cda00, not 0xed0cdaed",
    );
    check_damage(
        |b| put(b, PAGE + META + 4, &[3]),
        "page 1 at offset 1024: meta has version 3, not 2",
    );
    check_damage(
        |b| put(b, META + 16, &[99]),
        "page 0 at offset 0: meta has checksum 0xb9491029eb9d1efc, its bytes give 0x17261bc1aaa982f9",
    );
    check_damage(|b| put(b, 8, &[2]), "page 0 at offset 0: page flags 0x0002, want meta (0x0004)");
    check_damage(|b| put(b, PAGE, &[5]), "page 1 at offset 1024: the page calls itself page 5");
    check_damage(
        |b| put_in_metas(b, 8, &1000_u32.to_le_bytes()),
        "not a bbolt database: page 0 at offset 0: meta says page size 1000, which cannot be; \
         the second meta was looked for at every page size",
    );
    check_damage(
        |b| put_in_metas(b, 8, &4096_u32.to_le_bytes()),
        "page 1 at offset 4096: meta has magic 0x00000000, not 0xed0cdaed\n\
         page 1 at offset 7168: the file ends after 7168 bytes, the page needs 28672\n\
         page 6 at offset 24576: the file ends after 7168 bytes, the page needs 28672",
    );
}

#[test]
fn the_root() {
    check_damage(
        |b| put_in_metas(b, 16, &77_u64.to_le_bytes()),
        "page 77 at offset 78848: reference to page 77, outside 2..7",
    );
    check_damage(
        |b| put_in_metas(b, 16, &1_u64.to_le_bytes()),
        "page 1 at offset 1024: reference to page 1, outside 2..7",
    );
    check_damage(
        |b| put(b, 6 * PAGE + 16, &[0]),
        "page 6 at offset 6144: element 0: a plain value in the root bucket, which may hold only buckets",
    );
}

#[test]
fn page_headers() {
    check_damage(|b| put(b, 3 * PAGE, &[9]), "page 3 at offset 3072: the page calls itself page 9");
    check_damage(
        |b| put(b, 3 * PAGE + 8, &[0x10]),
        "page 3 at offset 3072: page flags 0x0010, want branch (0x0001) or leaf (0x0002)",
    );
    check_damage(
        |b| put(b, 3 * PAGE + 10, &[0]),
        "page 3 at offset 3072: leaf page without keys below a branch",
    );
    check_damage(
        |b| put(b, 3 * PAGE + 10, &[0xff, 0xff]),
        "page 3 at offset 3082: 65535 elements do not fit into 1008 bytes",
    );
    check_damage(
        |b| put(b, 3 * PAGE + 12, &[1]),
        "page 4 at offset 4096: the page is referenced twice",
    );
    check_damage(
        |b| put(b, 3 * PAGE + 12, &[0xff; 4]),
        "page 3 at offset 3072: 4294967295 overflow pages do not fit below page 7",
    );
    check_damage(
        |b| put(b, 5 * PAGE + 10, &[0]),
        "page 5 at offset 5130: branch page without children",
    );
}

#[test]
fn elements() {
    let element = |index: usize| 3 * PAGE + 16 + index * 16;
    check_damage(|b| put(b, element(1), &[4]), "page 3 at offset 3104: element 1: flags 0x4");
    check_damage(
        |b| put(b, element(1) + 4, &[0xff, 0xff]),
        "page 3 at offset 3104: element 1: 302 bytes at 65567 lie outside the page or over another element",
    );
    check_damage(
        |b| put(b, element(1) + 4, &[0; 4]),
        "page 3 at offset 3104: element 1: 302 bytes at 32 lie outside the page or over another element",
    );
    check_damage(|b| put(b, element(1) + 8, &[0]), "page 3 at offset 3104: element 1: empty key");
    check_damage(
        |b| put(b, element(2) + 12, &[0xff; 4]),
        "page 3 at offset 3120: element 2: 4294967297 bytes at 668 lie outside the page or over another element",
    );
    // The keys of page 3 are k3, k4, k5 at 64, 366, 668.
    check_damage(
        |b| put(b, 3 * PAGE + 366 + 1, &[9]),
        "page 3 at offset 3120: element 2: its key is not above the one before",
    );
    check_damage(
        |b| put(b, 3 * PAGE + 64 + 1, &[2]),
        "page 3 at offset 3088: its first key is below the separator in its parent",
    );
    check_damage(
        |b| put(b, 3 * PAGE + 668 + 1, &[6]),
        "page 3 at offset 3072: its last key is not below the next separator in its parent",
    );
}

#[test]
fn trees() {
    let child = |index: usize| 5 * PAGE + 16 + index * 16 + 8;
    check_damage(|b| put(b, child(1), &[2]), "page 2 at offset 2048: the page is referenced twice");
    check_damage(|b| put(b, child(1), &[5]), "page 5 at offset 5120: the page is referenced twice");
    check_damage(
        |b| put(b, child(1), &[0x40]),
        "page 5 at offset 5120: reference to page 64, outside 2..7",
    );
    check_damage(
        |b| put(b, child(1), &[0]),
        "page 5 at offset 5120: reference to page 0, outside 2..7",
    );
}

#[test]
fn buckets() {
    // Element 1 of the root is the inline bucket; its value begins behind two elements, the
    // first pair (3 + 16 bytes) and its own name.
    let value = 6 * PAGE + 16 + 2 * 16 + 3 + 16 + 3;
    check_damage(
        |b| put(b, 6 * PAGE + 16 + 16 + 12, &[15]),
        "page 6 at offset 6176: element 1: a bucket of 15 bytes, shorter than its header",
    );
    check_damage(
        |b| put(b, value + 16 + 8, &[1]),
        "page 6 at offset 6144: inline bucket: page flags 0x0001, want leaf (0x0002)",
    );
    check_damage(
        |b| put(b, value + 16, &[1]),
        "page 6 at offset 6144: inline bucket: the page calls itself page 1",
    );
    check_damage(
        |b| put(b, value + 16 + 10, &[200]),
        "page 6 at offset 6144: inline bucket: 200 elements do not fit into 40 bytes",
    );
    // A plain value made a bucket that has page 4 as its root.
    check_damage(
        |b| {
            put(b, 2 * PAGE + 16, &[1]);
            put(b, 2 * PAGE + 64 + 2, &4_u64.to_le_bytes());
        },
        "page 4 at offset 4096: the page is referenced twice",
    );
}

#[test]
fn freelists() {
    check_damage(|b| add_freelist(b, &[]), "");
    check_damage(
        |b| {
            add_blank_pages(b, 2);
            add_freelist(b, &[7, 8]);
        },
        "",
    );
    check_damage(
        |b| {
            add_blank_pages(b, 1);
            add_freelist(b, &[]);
        },
        "page 7 at offset 7168: the page is neither in use nor free",
    );
    check_damage(
        |b| add_freelist(b, &[4]),
        "page 4 at offset 4096: the page is in use and on the freelist",
    );
    check_damage(
        |b| {
            add_blank_pages(b, 2);
            add_freelist(b, &[8, 7]);
        },
        "page 9 at offset 9240: freelist entry 1 names page 7, not above the one before\n\
         page 7 at offset 7168: the page is neither in use nor free",
    );
    check_damage(
        |b| add_freelist(b, &[800]),
        "page 7 at offset 7184: reference to page 800, outside 2..8",
    );
    check_damage(
        |b| {
            add_freelist(b, &[]);
            put(b, 7 * PAGE + 10, &[0xff, 0xff, 0, 0, 0, 0]);
            put(b, 7 * PAGE + 16, &[0xff; 8]);
        },
        "page 7 at offset 7168: 18446744073709551615 elements do not fit into 1000 bytes",
    );
    check_damage(
        |b| {
            add_freelist(b, &[]);
            put(b, 7 * PAGE + 8, &[2]);
        },
        "page 7 at offset 7168: page flags 0x0002, want freelist (0x0010)",
    );
    check_damage(
        |b| put_in_metas(b, 32, &5_u64.to_le_bytes()),
        "page 5 at offset 5120: page flags 0x0001, want freelist (0x0010)",
    );
}

#[test]
fn truncated_anywhere() {
    let whole = a_file();
    for len in 1..whole.len() {
        let cut = whole[..len].to_vec();
        assert_ne!(findings(&cut), "", "cut to {len} bytes");
    }
    check_damage(
        |b| b.truncate(6 * PAGE + 17),
        "page 6 at offset 6161: the file ends after 6161 bytes, the page needs 7168\n\
         page 6 at offset 6144: the file ends after 6161 bytes, the page needs 7168",
    );
}

#[test]
fn files_that_are_no_database() {
    let says = |bytes: &[u8]| Db::open(&bytes.to_vec()).map(drop).unwrap_err().to_string();
    assert_eq!(says(b""), "the file is empty");
    let long = |head: &[u8]| [head, &[7; 4000]].concat();
    for (bytes, want) in [
        (long(b"\x1f\x8b\x08"), "it looks like gzip (decompress it first)"),
        (long(b"\x28\xb5\x2f\xfd"), "it looks like zstd (decompress it first)"),
        (long(b"PK\x03\x04"), "it looks like a zip archive (unpack it first)"),
        (b"hello, this is a note\n".repeat(300), "it looks like text"),
        (vec![0; 5000], "it looks like a file of zeros"),
        (b"x".to_vec(), "it looks like text"),
    ] {
        let said = says(&bytes);
        assert!(
            said.starts_with(&format!("not a bbolt database: {want}; page 0 at offset 0: ")),
            "{said}"
        );
    }
}

#[test]
fn a_damaged_page_costs_only_its_own_keys() {
    let mut bytes = a_file();
    put(&mut bytes, 3 * PAGE, &[9]);
    let db = Db::open(&bytes).unwrap();
    let bucket = db.bucket(&db.root(), b"big").unwrap().unwrap();
    let mut scan = Scan::new(&db, &bucket);
    let mut keys = Vec::new();
    let mut errors = 0;
    loop {
        match scan.next_leaf() {
            Ok(Some(leaf)) => keys.extend(leaf.pairs().map(|pair| pair.key[1])),
            Ok(None) => break,
            Err(Error::Damaged(_)) => errors += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((keys, errors), (vec![0, 1, 2, 6, 7, 8], 1));
}

/// A source on a medium with a bad page.
struct BadPage(Vec<u8>, u64);

impl ReadAt for BadPage {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        let bad = self.1 * PAGE as u64;
        match offset < bad + PAGE as u64 && bad < offset + buf.len() as u64 {
            true => Err(std::io::Error::other("bad sector")),
            false => self.0.read_exact_at(buf, offset),
        }
    }
}

/// Neighbours are read at once, and the first of them was blamed, and lost.
#[test]
fn a_page_that_cannot_be_read_is_named_and_costs_only_itself() {
    let db = Db::open(BadPage(a_file(), 4)).unwrap();
    let bucket = db.bucket(&db.root(), b"big").unwrap().unwrap();
    let mut scan = Scan::new(&db, &bucket);
    let mut keys = Vec::new();
    let mut offsets = Vec::new();
    loop {
        match scan.next_leaf() {
            Ok(Some(leaf)) => keys.extend(leaf.pairs().map(|pair| pair.key[1])),
            Ok(None) => break,
            Err(Error::Read { offset, .. }) => offsets.push(offset),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((keys, offsets), (vec![0, 1, 2, 3, 4, 5], vec![4 * PAGE as u64]));
}

/// A source that counts how often it is read, however many pieces come at once.
struct Counting(Vec<u8>, Cell<usize>);

impl ReadAt for Counting {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.1.set(self.1.get() + 1);
        self.0.read_exact_at(buf, offset)
    }

    fn read_pieces(&self, buf: &mut Vec<u8>, pieces: &[Piece]) -> std::io::Result<()> {
        self.1.set(self.1.get() + 1);
        self.0.read_pieces(buf, pieces)
    }
}

/// With pages of 16 MiB, a branch that names two damaged pages in turn, a million times, once kept
/// the checker busy for hours.
#[test]
fn a_page_that_is_named_again_is_not_read_again() {
    const CHILDREN: usize = 800;
    let mut bytes = a_file();
    add_blank_pages(&mut bytes, 1000);
    // Page 100 becomes a branch of many children, all of them one of two blank pages far apart.
    let start = 100 * PAGE;
    put(&mut bytes, start, &100_u64.to_le_bytes());
    put(&mut bytes, start + 8, &[1, 0, (CHILDREN % 256) as u8, (CHILDREN / 256) as u8, 15]);
    for index in 0..CHILDREN {
        let element = start + 16 + index * 16;
        let position = 16 * (CHILDREN - index) + 3 * index;
        put(&mut bytes, element, &(position as u32).to_le_bytes());
        put(&mut bytes, element + 4, &3_u32.to_le_bytes());
        put(&mut bytes, element + 8, &[7_u64, 700][index % 2].to_le_bytes());
        let number = (index as u16).to_be_bytes();
        put(&mut bytes, element + position, &[b'l', number[0], number[1]]);
    }
    put(&mut bytes, 5 * PAGE + 10, &[1]);
    put(&mut bytes, 5 * PAGE + 16 + 8, &[100]);
    let db = Db::open(Counting(bytes, Cell::new(0))).unwrap();
    let report = check(&db, &mut ()).unwrap();
    let twice = |damage: &&Damage| matches!(damage.reason, Reason::ReachedTwice);
    assert_eq!(report.findings.iter().filter(twice).count(), CHILDREN - 2, "{report:?}");
    let reads = db.source().1.get();
    assert!(reads < 12, "{reads} reads");
}

#[test]
fn no_single_bit_makes_it_panic() {
    let whole = a_file();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        findings(&bytes);
    }
}
