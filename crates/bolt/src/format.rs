//! Where every field of a bbolt file lies. Nothing here runs; a test holds the tables below to the
//! constants. All integers are little-endian (bbolt writes the host's order; a big-endian file is
//! not portable and is refused as having a foreign magic).
//!
//! A file is a sequence of pages; page N begins at byte N x page size. A page may go on over
//! `overflow` further pages. Source: bbolt `internal/common/{page,meta,inode,bucket}.go`.
//!
//! ```text
//! page header (16 bytes)
//!    0  8  id
//!    8  2  flags
//!   10  2  count
//!   12  4  overflow
//! meta, behind the page header (64 bytes)
//!    0  4  magic
//!    4  4  version
//!    8  4  page size
//!   12  4  flags
//!   16  8  root page
//!   24  8  root sequence
//!   32  8  freelist page
//!   40  8  high-water page
//!   48  8  transaction
//!   56  8  checksum
//! branch element (16 bytes)
//!    0  4  position
//!    4  4  key size
//!    8  8  child page
//! leaf element (16 bytes)
//!    0  4  flags
//!    4  4  position
//!    8  4  key size
//!   12  4  value size
//! bucket header (16 bytes)
//!    0  8  root page
//!    8  8  sequence
//! ```
//!
//! `position` counts from the start of its own element. A bucket header whose root page is 0 is
//! followed by the bucket's only page, inline, with page id 0.

use std::fmt;

/// The number of a page: its byte offset divided by the page size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u64);

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a bbolt write transaction; each commit has the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub u64);

/// One row of a byte table: offset, size, name.
pub type Row = (usize, usize, &'static str);

/// The header at the start of every page.
pub mod page {
    /// The page's own number; 0 in an inline page.
    pub const ID: usize = 0;
    /// Exactly one of the `FLAG_*` bits.
    pub const FLAGS: usize = ID + 8;
    /// Elements in the page.
    pub const COUNT: usize = FLAGS + 2;
    /// Further physical pages that belong to this one.
    pub const OVERFLOW: usize = COUNT + 2;
    /// Bytes of the header.
    pub const SIZE: usize = OVERFLOW + 4;
    /// The table in the module's head.
    pub const TABLE: [super::Row; 4] = [
        (ID, FLAGS - ID, "id"),
        (FLAGS, COUNT - FLAGS, "flags"),
        (COUNT, OVERFLOW - COUNT, "count"),
        (OVERFLOW, SIZE - OVERFLOW, "overflow"),
    ];
    const _: () = assert!(SIZE == 16);

    /// Inner page of a tree.
    pub const FLAG_BRANCH: u16 = 0x01;
    /// Page of keys and values.
    pub const FLAG_LEAF: u16 = 0x02;
    /// One of the two metas.
    pub const FLAG_META: u16 = 0x04;
    /// List of free pages.
    pub const FLAG_FREELIST: u16 = 0x10;
}

/// The meta structure on pages 0 and 1, counted from behind the page header.
pub mod meta {
    /// Always [`MAGIC_VALUE`].
    pub const MAGIC: usize = 0;
    /// Always [`VERSION_VALUE`].
    pub const VERSION: usize = MAGIC + 4;
    /// Bytes a page.
    pub const PAGE_SIZE: usize = VERSION + 4;
    /// Unused, 0.
    pub const FLAGS: usize = PAGE_SIZE + 4;
    /// Root page of the root bucket.
    pub const ROOT: usize = FLAGS + 4;
    /// Sequence of the root bucket.
    pub const SEQUENCE: usize = ROOT + 8;
    /// Page of the freelist or [`NO_FREELIST`].
    pub const FREELIST: usize = SEQUENCE + 8;
    /// First page id never used: the logical size of the file in pages.
    pub const HIGH_WATER: usize = FREELIST + 8;
    /// The transaction that wrote this meta.
    pub const TXID: usize = HIGH_WATER + 8;
    /// FNV-1a 64 over all that comes before it.
    pub const CHECKSUM: usize = TXID + 8;
    /// Bytes of the structure.
    pub const SIZE: usize = CHECKSUM + 8;
    /// The table in the module's head.
    pub const TABLE: [super::Row; 10] = [
        (MAGIC, VERSION - MAGIC, "magic"),
        (VERSION, PAGE_SIZE - VERSION, "version"),
        (PAGE_SIZE, FLAGS - PAGE_SIZE, "page size"),
        (FLAGS, ROOT - FLAGS, "flags"),
        (ROOT, SEQUENCE - ROOT, "root page"),
        (SEQUENCE, FREELIST - SEQUENCE, "root sequence"),
        (FREELIST, HIGH_WATER - FREELIST, "freelist page"),
        (HIGH_WATER, TXID - HIGH_WATER, "high-water page"),
        (TXID, CHECKSUM - TXID, "transaction"),
        (CHECKSUM, SIZE - CHECKSUM, "checksum"),
    ];
    const _: () = assert!(SIZE == 64);

    /// First four bytes of a meta.
    pub const MAGIC_VALUE: u32 = 0xED0C_DAED;
    /// The only version that there has been.
    pub const VERSION_VALUE: u32 = 2;
    /// Freelist page of a file whose freelist is not stored (etcd on Linux): the opener recomputes it.
    pub const NO_FREELIST: u64 = u64::MAX;
}

/// One element of a branch page.
pub mod branch {
    /// Offset of the key from the start of this element.
    pub const POSITION: usize = 0;
    /// Bytes of the key.
    pub const KEY_SIZE: usize = POSITION + 4;
    /// The page below.
    pub const CHILD: usize = KEY_SIZE + 4;
    /// Bytes of an element.
    pub const SIZE: usize = CHILD + 8;
    /// The table in the module's head.
    pub const TABLE: [super::Row; 3] = [
        (POSITION, KEY_SIZE - POSITION, "position"),
        (KEY_SIZE, CHILD - KEY_SIZE, "key size"),
        (CHILD, SIZE - CHILD, "child page"),
    ];
    const _: () = assert!(SIZE == 16);
}

/// One element of a leaf page; the value follows its key.
pub mod leaf {
    /// [`FLAG_BUCKET`] or 0.
    pub const FLAGS: usize = 0;
    /// Offset of the key from the start of this element.
    pub const POSITION: usize = FLAGS + 4;
    /// Bytes of the key.
    pub const KEY_SIZE: usize = POSITION + 4;
    /// Bytes of the value.
    pub const VALUE_SIZE: usize = KEY_SIZE + 4;
    /// Bytes of an element.
    pub const SIZE: usize = VALUE_SIZE + 4;
    /// The table in the module's head.
    pub const TABLE: [super::Row; 4] = [
        (FLAGS, POSITION - FLAGS, "flags"),
        (POSITION, KEY_SIZE - POSITION, "position"),
        (KEY_SIZE, VALUE_SIZE - KEY_SIZE, "key size"),
        (VALUE_SIZE, SIZE - VALUE_SIZE, "value size"),
    ];
    const _: () = assert!(SIZE == 16);

    /// The value is a bucket.
    pub const FLAG_BUCKET: u32 = 0x01;
}

/// The start of a bucket's value.
pub mod bucket {
    /// Root page of the bucket's tree; 0 = inline.
    pub const ROOT: usize = 0;
    /// The bucket's sequence number; etcd leaves it 0.
    pub const SEQUENCE: usize = ROOT + 8;
    /// Bytes of the header.
    pub const SIZE: usize = SEQUENCE + 8;
    /// The table in the module's head.
    pub const TABLE: [super::Row; 2] =
        [(ROOT, SEQUENCE - ROOT, "root page"), (SEQUENCE, SIZE - SEQUENCE, "sequence")];
    const _: () = assert!(SIZE == 16);
}

/// Smallest page size that an opener looks for (bbolt `db.go`, getPageSizeFromSecondMeta).
pub const PAGE_SIZE_MIN: usize = 1024;
/// Largest page size that an opener looks for.
pub const PAGE_SIZE_MAX: usize = 1024 << 14;
/// A page holds fewer elements than this (bbolt `node.go`, write).
pub const ELEMENTS_MAX: usize = 0xFFFF;
/// Longest key that bbolt accepts (bbolt `bucket.go`, MaxKeySize).
pub const KEY_SIZE_MAX: usize = 32768;
/// Longest value that bbolt accepts (bbolt `bucket.go`, MaxValueSize).
pub const VALUE_SIZE_MAX: usize = (1 << 31) - 2;
/// Data pages start behind the two metas.
pub const FIRST_DATA_PAGE: PageId = PageId(2);

/// Deepest tree that is followed. 4 KiB pages with two children each would pass 2^32 pages before.
pub const DEPTH_MAX: usize = 32;
/// Deepest nesting of buckets that is followed; etcd has one level below the root.
pub const NESTING_MAX: usize = 8;
/// Most bytes of one page with its overflow that are read at once. etcd's largest request is
/// 1.5 MiB unless an operator raises it, and a leaf is cut after two records.
pub const PAGE_BYTES_MAX: u64 = 512 << 20;

/// FNV-1a, 64 bits: the checksum of a meta.
#[must_use]
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_in_the_head_are_the_constants() {
        let tables: [(&str, usize, &[Row]); 5] = [
            ("page header", page::SIZE, &page::TABLE),
            ("meta, behind the page header", meta::SIZE, &meta::TABLE),
            ("branch element", branch::SIZE, &branch::TABLE),
            ("leaf element", leaf::SIZE, &leaf::TABLE),
            ("bucket header", bucket::SIZE, &bucket::TABLE),
        ];
        let mut text = String::from("//! ```text\n");
        for (name, size, rows) in tables {
            text += &format!("//! {name} ({size} bytes)\n");
            for (offset, size, field) in rows {
                text += &format!("//! {offset:>4} {size:>2}  {field}\n");
            }
        }
        text += "//! ```\n";
        let source = include_str!("format.rs");
        assert!(source.contains(&text), "the head of format.rs should have\n{text}");
    }

    #[test]
    fn fnv1a_of_known_vectors() {
        // http://www.isthe.com/chongo/tech/comp/fnv/ test vectors.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
