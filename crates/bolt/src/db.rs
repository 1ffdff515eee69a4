//! A file that was found to be bbolt's: its page size, its newest meta, its buckets.

use crate::error::{Damage, Error, Reason};
use crate::format::{self, PageId, meta, page};
use crate::meta::Meta;
use crate::page::{Header, Leaf, Pair, Place, u64_at};
use crate::scan::Scan;
use crate::source::ReadAt;

/// Bytes that hold a page header and a meta.
const META_END: usize = page::SIZE + meta::SIZE;

/// An opened bbolt file. Only the metas were looked at; every other page is checked when read.
#[derive(Debug)]
pub struct Db<S> {
    source: S,
    meta: Meta,
    /// Pages that are both below the high-water mark and in the file.
    pages: u64,
    damage: Vec<Damage>,
}

impl<S: ReadAt> Db<S> {
    /// Finds the page size and the newest valid meta, as bbolt's own opener does: the meta at the
    /// start, else one at 1 KiB, 2 KiB … 16 MiB; of two valid ones that with the later
    /// transaction (bbolt `db.go`, `getPageSize` and `meta`). Bytes behind the last page are
    /// allowed: a live file has grown ahead, a snapshot file carries its digest.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotBolt`], or [`Error::Read`].
    pub fn open(source: S) -> Result<Self, Error> {
        let size = source.size();
        if size == 0 {
            return Err(Error::Empty);
        }
        let first = read_meta(&source, 0, 0)?;
        let page_size = match &first {
            Ok(meta) => meta.page_size,
            Err(damage) => second_meta_page_size(&source)?.ok_or_else(|| Error::NotBolt {
                first: damage.clone(),
                looks_like: looks_like(&source),
            })?,
        };
        let second = read_meta(&source, 1, page_size as u64)?;
        let (meta, mut damage) = newest(first, second, page_size)?;

        let in_file = size / page_size as u64;
        if in_file < meta.high_water.0 {
            let want = meta.high_water.0.saturating_mul(page_size as u64);
            damage.push(Damage::new(PageId(in_file), size, Reason::FileEnds { have: size, want }));
        }
        Ok(Self { source, meta, pages: in_file.min(meta.high_water.0), damage })
    }

    /// The meta in force.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Bytes a page.
    #[must_use]
    pub fn page_size(&self) -> usize {
        self.meta.page_size
    }

    /// Logical size in bytes: all pages below the high-water mark. The file may be longer.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.meta.high_water.0.saturating_mul(self.meta.page_size as u64)
    }

    /// What was wrong but did not keep the file from being opened: one meta of the two, or a file
    /// shorter than the metas say. An intact file has none of it.
    #[must_use]
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// The medium.
    #[must_use]
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Pages that can be read.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    pub(crate) fn place(&self, page: PageId) -> Place {
        Place { page, offset: page.0.saturating_mul(self.meta.page_size as u64) }
    }

    /// The root bucket: its pairs are the named buckets.
    #[must_use]
    pub fn root(&self) -> Bucket {
        Bucket { root: Root::Page(self.meta.root), sequence: 0 }
    }

    /// The bucket of that name below `parent`.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::Damaged`] on the way to it.
    pub fn bucket(&self, parent: &Bucket, name: &[u8]) -> Result<Option<Bucket>, Error> {
        let mut scan = Scan::starting_at(self, parent, name);
        let Some(leaf) = scan.next_leaf()? else {
            return Ok(None);
        };
        let found = leaf.get(leaf.position(name));
        Ok(found.filter(|pair| pair.key == name).and_then(|pair| Bucket::of(&pair, &leaf)))
    }

    /// The value of one key of a bucket.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::Damaged`] on the way to it.
    pub fn get(&self, bucket: &Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mut scan = Scan::starting_at(self, bucket, key);
        let Some(leaf) = scan.next_leaf()? else {
            return Ok(None);
        };
        let found = leaf.get(leaf.position(key));
        Ok(found.filter(|pair| pair.key == key).map(|pair| pair.value.to_vec()))
    }

    /// The greatest key of a bucket.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::Damaged`] on the way to it.
    pub fn last_key(&self, bucket: &Bucket) -> Result<Option<Vec<u8>>, Error> {
        let mut scan = Scan::at_the_end(self, bucket);
        let Some(leaf) = scan.next_leaf()? else {
            return Ok(None);
        };
        Ok(leaf.pairs().next_back().map(|pair| pair.key.to_vec()))
    }
}

/// A bucket: where its tree begins.
#[derive(Clone, Debug)]
pub struct Bucket {
    pub(crate) root: Root,
    sequence: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum Root {
    Page(PageId),
    /// The only page of the bucket, and the page of the file in which it lies.
    Inline(Vec<u8>, Place),
}

impl Bucket {
    /// The bucket that a pair of `leaf` holds; `None` where the pair is a plain value.
    #[must_use]
    pub fn of(pair: &Pair<'_>, leaf: &Leaf<'_>) -> Option<Self> {
        if !pair.is_bucket {
            return None;
        }
        let root = u64_at(pair.value, format::bucket::ROOT)?;
        let sequence = u64_at(pair.value, format::bucket::SEQUENCE)?;
        let root = match root {
            0 => Root::Inline(pair.value.get(format::bucket::SIZE..)?.to_vec(), leaf.place()),
            page => Root::Page(PageId(page)),
        };
        Some(Self { root, sequence })
    }

    /// The bucket's sequence number.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// Reads the meta at `offset`, which is page `slot`. The outer error is the medium's.
fn read_meta<S: ReadAt>(source: &S, slot: u64, offset: u64) -> Result<Result<Meta, Damage>, Error> {
    let damage = |reason| Damage::new(PageId(slot), offset, reason);
    let have = source.size();
    let want = offset.saturating_add(META_END as u64);
    if have < want {
        return Ok(Err(damage(Reason::FileEnds { have, want })));
    }
    let mut bytes = [0; META_END];
    source
        .read_exact_at(&mut bytes, offset)
        .map_err(|error| Error::read(&error, offset, META_END))?;
    let meta = Meta::parse(&bytes).and_then(|meta| match Header::parse(&bytes) {
        Some(header) if header.id != slot => Err(Reason::PageId { got: header.id }),
        _ => Ok(meta),
    });
    Ok(meta.map_err(damage))
}

/// Looks for the second meta at each page size there can be.
fn second_meta_page_size<S: ReadAt>(source: &S) -> Result<Option<usize>, Error> {
    let mut page_size = format::PAGE_SIZE_MIN;
    while page_size <= format::PAGE_SIZE_MAX {
        if let Ok(meta) = read_meta(source, 1, page_size as u64)?
            && meta.page_size == page_size
        {
            return Ok(Some(page_size));
        }
        page_size *= 2;
    }
    Ok(None)
}

/// The meta in force, and what is wrong with the other one.
fn newest(
    first: Result<Meta, Damage>,
    second: Result<Meta, Damage>,
    page_size: usize,
) -> Result<(Meta, Vec<Damage>), Error> {
    match (first, second) {
        (Ok(a), Ok(b)) if a.page_size != b.page_size => {
            let got = u32::try_from(b.page_size).unwrap_or(0);
            let damage = Damage::new(PageId(1), page_size as u64, Reason::MetaPageSize { got });
            Ok((a, vec![damage]))
        }
        (Ok(a), Ok(b)) => Ok((if b.txid > a.txid { b } else { a }, Vec::new())),
        (Ok(meta), Err(damage)) | (Err(damage), Ok(meta)) => Ok((meta, vec![damage])),
        (Err(damage), Err(_)) => Err(Error::Damaged(damage)),
    }
}

/// A guess at what a file is that has no meta.
fn looks_like<S: ReadAt>(source: &S) -> Option<&'static str> {
    let mut head = [0; 512];
    let len = usize::try_from(source.size()).unwrap_or(usize::MAX).min(head.len());
    let head = head.get_mut(..len)?;
    source.read_exact_at(head, 0).ok()?;
    const SIGNS: [(&[u8], &str); 7] = [
        (b"\x1f\x8b", "gzip (decompress it first)"),
        (b"\x28\xb5\x2f\xfd", "zstd (decompress it first)"),
        (b"PK\x03\x04", "a zip archive (unpack it first)"),
        (b"\xfd7zXZ\x00", "xz (decompress it first)"),
        (b"BZh", "bzip2 (decompress it first)"),
        (b"age-encryption.org/", "an age-encrypted file (decrypt it first)"),
        (b"-----BEGIN ", "a PEM file (a certificate or a key)"),
    ];
    if let Some((_, what)) = SIGNS.iter().find(|(sign, _)| head.starts_with(sign)) {
        return Some(what);
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some("a tar archive (unpack it first)");
    }
    if head.iter().all(|byte| *byte == 0) {
        return Some("a file of zeros");
    }
    let text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    head.iter().all(text).then_some("text")
}
