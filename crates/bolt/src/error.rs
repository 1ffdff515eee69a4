//! What can be wrong with a file, said with page and byte offset.

use crate::format::PageId;
use std::io;

/// Why a file could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The medium failed; the file itself may be sound.
    #[error("reading {len} bytes at offset {offset} failed: {}", os_text(*.kind, *.os))]
    Read {
        /// Byte offset in the file.
        offset: u64,
        /// Bytes that were asked for.
        len: usize,
        /// What sort of failure.
        kind: io::ErrorKind,
        /// The operating system's number for it, where there is one.
        os: Option<i32>,
    },
    /// Neither of the two metas is there: not a bbolt file, or one whose head is lost.
    #[error("not a bbolt database: {}{first}; the second meta was looked for at every page size", looks_like_text(.looks_like))]
    NotBolt {
        /// What is wrong with the first meta.
        first: Damage,
        /// What the first bytes suggest that the file is instead.
        looks_like: Option<&'static str>,
    },
    /// The file has no bytes at all.
    #[error("the file is empty")]
    Empty,
    /// A page that is needed is damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
}

fn looks_like_text(what: &Option<&'static str>) -> String {
    what.map(|what| format!("it looks like {what}; ")).unwrap_or_default()
}

fn os_text(kind: io::ErrorKind, os: Option<i32>) -> String {
    os.map_or_else(|| kind.to_string(), |os| io::Error::from_raw_os_error(os).to_string())
}

impl Error {
    pub(crate) fn read(error: &io::Error, offset: u64, len: usize) -> Self {
        Self::Read { offset, len, kind: error.kind(), os: error.raw_os_error() }
    }
}

/// One thing that is wrong with one page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("page {page} at offset {offset}: {reason}")]
pub struct Damage {
    /// The page.
    pub page: PageId,
    /// Byte offset in the file: of the page, or of the field in it that is wrong.
    pub offset: u64,
    /// What is wrong.
    pub reason: Reason,
}

/// The reasons for a [`Damage`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The file ends inside the page.
    #[error("the file ends after {have} bytes, the page needs {want}")]
    FileEnds {
        /// Bytes in the file.
        have: u64,
        /// Bytes that the page would need.
        want: u64,
    },
    /// The meta's magic number is another one.
    #[error("meta has magic {got:#010x}, not 0xed0cdaed")]
    MetaMagic {
        /// What stands there.
        got: u32,
    },
    /// A version of bbolt's format that there has never been.
    #[error("meta has version {got}, not 2")]
    MetaVersion {
        /// What stands there.
        got: u32,
    },
    /// The meta's checksum does not fit its bytes.
    #[error("meta has checksum {got:#018x}, its bytes give {want:#018x}")]
    MetaChecksum {
        /// What stands there.
        got: u64,
        /// What the bytes give.
        want: u64,
    },
    /// The meta's page size is none, or is not where the meta was found.
    #[error("meta says page size {got}, which cannot be")]
    MetaPageSize {
        /// What stands there.
        got: u32,
    },
    /// The page header carries another page's number.
    #[error("the page calls itself page {got}")]
    PageId {
        /// What stands there.
        got: u64,
    },
    /// The page is of another kind than its place asks for.
    #[error("page flags {got:#06x}, want {want}")]
    PageKind {
        /// What stands there.
        got: u16,
        /// The kind in words.
        want: &'static str,
    },
    /// A page number outside the file's pages.
    #[error("reference to page {got}, outside 2..{high_water}")]
    PageOutside {
        /// The number.
        got: u64,
        /// The first page id that was never used.
        high_water: u64,
    },
    /// The page claims more overflow pages than the file has, or than any etcd writes.
    #[error("{overflow} overflow pages do not fit below page {high_water}")]
    Overflow {
        /// What the header says.
        overflow: u32,
        /// The first page id that was never used.
        high_water: u64,
    },
    /// More elements than the page has room for.
    #[error("{count} elements do not fit into {room} bytes")]
    Elements {
        /// What the header says.
        count: usize,
        /// Bytes behind the header.
        room: usize,
    },
    /// An element's key or value lies outside the page or over another's.
    #[error(
        "element {index}: {size} bytes at {position} lie outside the page or over another element"
    )]
    ElementBounds {
        /// Its place in the page.
        index: usize,
        /// Offset of the key in the page.
        position: usize,
        /// Bytes of key and value.
        size: u64,
    },
    /// An element's flags are neither "value" nor "bucket".
    #[error("element {index}: flags {got:#x}")]
    ElementFlags {
        /// Its place in the page.
        index: usize,
        /// What stands there.
        got: u32,
    },
    /// A key without bytes.
    #[error("element {index}: empty key")]
    EmptyKey {
        /// Its place in the page.
        index: usize,
    },
    /// Keys do not ascend.
    #[error("element {index}: its key is not above the one before")]
    KeyOrder {
        /// Its place in the page.
        index: usize,
    },
    /// The first key is below the separator in the parent page.
    #[error("its first key is below the separator in its parent")]
    BelowSeparator,
    /// A key is not below the next separator in the parent page.
    #[error("its last key is not below the next separator in its parent")]
    AboveSeparator,
    /// A branch page without children.
    #[error("branch page without children")]
    EmptyBranch,
    /// A leaf page without keys that is not a bucket's root.
    #[error("leaf page without keys below a branch")]
    EmptyLeaf,
    /// A tree deeper than any file can need: a cycle.
    #[error("the tree is deeper than {max} pages: a cycle")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// Buckets in buckets deeper than is followed.
    #[error("buckets nested deeper than {max}")]
    NestedTooDeep {
        /// The limit.
        max: usize,
    },
    /// A second reference to the page.
    #[error("the page is referenced twice")]
    ReachedTwice,
    /// The page is both in use and on the freelist.
    #[error("the page is in use and on the freelist")]
    ReachedButFree,
    /// The page is neither in use nor free.
    #[error("the page is neither in use nor free")]
    Lost,
    /// The freelist names a page twice or out of order.
    #[error("freelist entry {index} names page {got}, not above the one before")]
    FreelistOrder {
        /// Its place in the list.
        index: u64,
        /// The page named.
        got: u64,
    },
    /// A bucket's value is too short for its header.
    #[error("element {index}: a bucket of {size} bytes, shorter than its header")]
    BucketHeader {
        /// Its place in the page.
        index: usize,
        /// Bytes of the value.
        size: usize,
    },
    /// An inline bucket is damaged.
    #[error("inline bucket: {0}")]
    Inline(Box<Reason>),
    /// The root bucket holds a plain value.
    #[error("element {index}: a plain value in the root bucket, which may hold only buckets")]
    PlainValueInRoot {
        /// Its place in the page.
        index: usize,
    },
}

impl Damage {
    pub(crate) fn new(page: PageId, offset: u64, reason: Reason) -> Self {
        Self { page, offset, reason }
    }
}
