//! The bulk writer: sorted pairs in, a whole bbolt file out, from front to back.
//!
//! Pages are appended in the order in which they fill, children before parents, and never touched
//! again; only the two metas at the start come last, from [`Finished`]. Memory is one open page a
//! level of the tree. The result has no free page, and says so in a stored, empty freelist: without
//! it bbolt would walk the whole tree at the first opening to find out.
//!
//! A file whose metas are missing is no database: whoever is cut off while writing leaves nothing
//! that could be taken for one.

use crate::format::{self, PageId, TxId, branch, bucket, leaf, page};
use crate::meta::Meta;
use std::io::{self, Read, Write};

/// How pages are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    page_size: usize,
    leaf_bytes: usize,
}

impl Layout {
    /// Pages of `page_size` bytes (a power of two, 1 KiB to 16 MiB); leaves are filled up to
    /// `leaf_bytes` (a multiple of the page size, at most 1 MiB or one page) and go on over
    /// overflow pages. `None` where one is neither.
    #[must_use]
    pub fn new(page_size: usize, leaf_bytes: usize) -> Option<Self> {
        let possible = format::PAGE_SIZE_MIN..=format::PAGE_SIZE_MAX;
        let sound = page_size.is_power_of_two()
            && possible.contains(&page_size)
            && leaf_bytes >= page_size
            && leaf_bytes.is_multiple_of(page_size)
            && leaf_bytes <= page_size.max(1 << 20);
        sound.then_some(Self { page_size, leaf_bytes })
    }

    /// Bytes a page.
    #[must_use]
    pub fn page_size(&self) -> usize {
        self.page_size
    }
}

/// Why a bulk write failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BulkError {
    /// The output failed.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// Buckets or keys were not handed over in ascending order, or twice.
    #[error("{what} {} does not come after the one before", hex(.key))]
    Order {
        /// "bucket" or "key".
        what: &'static str,
        /// The one that came too late.
        key: Vec<u8>,
    },
    /// A key or bucket name that bbolt would not take.
    #[error("a key of {size} bytes, where 1 to {max} are possible")]
    KeySize {
        /// Its bytes.
        size: usize,
        /// The most that are possible.
        max: usize,
    },
    /// More buckets than one root page holds.
    #[error("more than 65,533 buckets")]
    TooManyBuckets,
    /// A value that bbolt would not take.
    #[error("a value of {size} bytes, where at most {max} are possible")]
    ValueSize {
        /// Its bytes.
        size: usize,
        /// The most that are possible.
        max: usize,
    },
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes one file.
#[derive(Debug)]
pub struct BulkWriter<W> {
    pages: Pages<W>,
    /// The root bucket, which is one leaf: names and bucket headers.
    root: OpenPage,
}

/// A file that lacks only its metas.
#[derive(Debug)]
pub struct Finished<W> {
    /// The output, with all pages written.
    pub out: W,
    /// The first two pages, to be written at offset 0 once everything before is durable.
    pub metas: Vec<u8>,
    /// Bytes of the whole file, a multiple of the page size.
    pub size: u64,
}

impl<W: Write> BulkWriter<W> {
    /// Begins a file at the start of `out` with two blank pages where the metas will go.
    ///
    /// # Errors
    /// [`BulkError::Write`].
    pub fn new(out: W, layout: Layout) -> Result<Self, BulkError> {
        let mut pages = Pages { out, layout, next: format::FIRST_DATA_PAGE, head: Vec::new() };
        pages.out.write_all(&vec![0; layout.page_size * 2])?;
        Ok(Self { pages, root: OpenPage::new(Kind::Leaf) })
    }

    /// Begins the next bucket; names ascend.
    ///
    /// # Errors
    /// [`BulkError::Order`], [`BulkError::KeySize`].
    pub fn bucket(mut self, name: &[u8]) -> Result<BucketWriter<W>, BulkError> {
        check_key("bucket", name, &self.root.last_key)?;
        self.root.last_key = name.to_vec();
        let levels = vec![OpenPage::new(Kind::Leaf)];
        Ok(BucketWriter { writer: self, name: name.to_vec(), levels })
    }

    /// Writes the root and makes the metas.
    ///
    /// # Errors
    /// [`BulkError::Write`].
    pub fn finish(mut self) -> Result<Finished<W>, BulkError> {
        let root = self.pages.append(&mut self.root)?;
        let freelist = self.pages.append(&mut OpenPage::new(Kind::Freelist))?;
        let meta = |txid| Meta {
            page_size: self.pages.layout.page_size,
            root,
            freelist: Some(freelist),
            high_water: self.pages.next,
            txid: TxId(txid),
        };
        // As after two commits: transaction T stands on page T mod 2.
        let mut metas = meta(2).to_page(0);
        metas.extend(meta(1).to_page(1));
        let size = self.pages.next.0.saturating_mul(self.pages.layout.page_size as u64);
        Ok(Finished { out: self.pages.out, metas, size })
    }
}

/// Writes one bucket.
#[derive(Debug)]
pub struct BucketWriter<W> {
    writer: BulkWriter<W>,
    name: Vec<u8>,
    /// The open page of each level, leaves first.
    levels: Vec<OpenPage>,
}

impl<W: Write> BucketWriter<W> {
    /// Adds a pair; keys ascend.
    ///
    /// # Errors
    /// [`BulkError::Order`], [`BulkError::KeySize`], [`BulkError::ValueSize`],
    /// [`BulkError::Write`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), BulkError> {
        if value.len() > format::VALUE_SIZE_MAX {
            let (size, max) = (value.len(), format::VALUE_SIZE_MAX);
            return Err(BulkError::ValueSize { size, max });
        }
        let limit = self.writer.pages.layout.leaf_bytes;
        let Some(leaf) = self.levels.first_mut() else {
            return Ok(());
        };
        check_key("key", key, &leaf.last_key)?;
        if leaf.count() > 0 && !leaf.has_room(key.len() + value.len(), limit) {
            self.close_page(0)?;
        }
        if let Some(leaf) = self.levels.first_mut() {
            leaf.push(key, value, 0)?;
            leaf.last_key.clear();
            leaf.last_key.extend_from_slice(key);
        }
        Ok(())
    }

    /// Ends the bucket and hands the file back. A small one goes inline into the root, as bbolt does it (`bucket.go`,
    /// `inlineable`).
    ///
    /// # Errors
    /// [`BulkError::Write`].
    pub fn finish(mut self) -> Result<BulkWriter<W>, BulkError> {
        let inline_max = self.writer.pages.layout.page_size / 4;
        let mut value = vec![0; bucket::SIZE];
        match self.levels.as_mut_slice() {
            [leaf] if leaf.used() <= inline_max => {
                leaf.head(PageId(0), 0, &mut value);
                value.extend_from_slice(&leaf.data);
            }
            _ => {
                let root = self.close_tree()?;
                value.clear();
                value.extend_from_slice(&root.0.to_le_bytes());
                value.extend_from_slice(&0_u64.to_le_bytes());
            }
        }
        let root = &mut self.writer.root;
        if !root.has_room(0, usize::MAX) {
            return Err(BulkError::TooManyBuckets);
        }
        root.push(&self.name, &value, leaf::FLAG_BUCKET.into())?;
        Ok(self.writer)
    }

    /// Writes all open pages; the topmost is the root.
    fn close_tree(&mut self) -> Result<PageId, BulkError> {
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.levels.len();
            match self.levels.get_mut(level) {
                // A branch with one child is no more than that child.
                Some(top) if is_top => match top.only_child() {
                    Some(child) => return Ok(child),
                    None => return self.writer.pages.append(top),
                },
                Some(_) => self.close_page(level)?,
                None => return Ok(PageId(0)),
            }
            level += 1;
        }
    }

    /// Writes the open page of a level and hands its id up to the next.
    fn close_page(&mut self, level: usize) -> Result<(), BulkError> {
        let Some(open) = self.levels.get_mut(level) else {
            return Ok(());
        };
        let first_key = open.first_key().to_vec();
        let id = self.writer.pages.append(open)?;
        if level + 1 == self.levels.len() {
            self.levels.push(OpenPage::new(Kind::Branch));
        }
        let limit = self.writer.pages.layout.page_size;
        let is_full =
            |parent: &OpenPage| parent.count() > 1 && !parent.has_room(first_key.len(), limit);
        if self.levels.get(level + 1).is_some_and(is_full) {
            self.close_page(level + 1)?;
        }
        match self.levels.get_mut(level + 1) {
            Some(parent) => parent.push(&first_key, &[], id.0),
            None => Ok(()),
        }
    }
}

fn check_key(what: &'static str, key: &[u8], previous: &[u8]) -> Result<(), BulkError> {
    if key.is_empty() || key.len() > format::KEY_SIZE_MAX {
        return Err(BulkError::KeySize { size: key.len(), max: format::KEY_SIZE_MAX });
    }
    if key <= previous {
        return Err(BulkError::Order { what, key: key.to_vec() });
    }
    Ok(())
}

/// The output and the number of the next page.
#[derive(Debug)]
struct Pages<W> {
    out: W,
    layout: Layout,
    next: PageId,
    /// Header and elements of the page that is being appended, kept for its capacity.
    head: Vec<u8>,
}

impl<W: Write> Pages<W> {
    /// Appends an open page, which is empty afterwards.
    fn append(&mut self, open: &mut OpenPage) -> Result<PageId, BulkError> {
        let page_size = self.layout.page_size;
        let used = open.used();
        let pages = used.div_ceil(page_size);
        let id = self.next;
        self.head.clear();
        open.head(id, pages.saturating_sub(1), &mut self.head);
        self.out.write_all(&self.head)?;
        self.out.write_all(&open.data)?;
        let padding = pages.saturating_mul(page_size).saturating_sub(used);
        io::copy(&mut io::repeat(0).take(padding as u64), &mut self.out)?;
        open.clear();
        self.next = PageId(id.0.saturating_add(pages as u64));
        Ok(id)
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Leaf,
    Branch,
    /// Always empty.
    Freelist,
}

/// A page that is still being filled. Elements come before the data in the file, and their number
/// is known only at the end, so the two are kept apart.
#[derive(Debug)]
struct OpenPage {
    kind: Kind,
    slots: Vec<Slot>,
    data: Vec<u8>,
    /// The greatest key so far, kept when the page is written.
    last_key: Vec<u8>,
}

/// One element. bbolt's fields are 32 bits wide and so are these.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Offset of the key in the data.
    start: u32,
    key: u32,
    value: u32,
    /// Of a leaf the flags, of a branch the child.
    tag: u64,
}

impl OpenPage {
    fn new(kind: Kind) -> Self {
        Self { kind, slots: Vec::new(), data: Vec::new(), last_key: Vec::new() }
    }

    fn count(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of the page as it stands. Leaf and branch elements have the same size.
    fn used(&self) -> usize {
        page::SIZE + self.slots.len() * leaf::SIZE + self.data.len()
    }

    /// One more element with that much data keeps the page within `limit` bytes.
    fn has_room(&self, data: usize, limit: usize) -> bool {
        let bytes = self.used().saturating_add(leaf::SIZE).saturating_add(data);
        bytes <= limit && self.slots.len() + 1 < format::ELEMENTS_MAX
    }

    fn push(&mut self, key: &[u8], value: &[u8], tag: u64) -> Result<(), BulkError> {
        let narrow = |size: usize| {
            let max = format::VALUE_SIZE_MAX;
            u32::try_from(size).map_err(|_| BulkError::ValueSize { size, max })
        };
        self.slots.push(Slot {
            start: narrow(self.data.len())?,
            key: narrow(key.len())?,
            value: narrow(value.len())?,
            tag,
        });
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
        Ok(())
    }

    fn first_key(&self) -> &[u8] {
        let size = self.slots.first().map_or(0, |slot| slot.key as usize);
        self.data.get(..size).unwrap_or_default()
    }

    /// The child of a branch that has one.
    fn only_child(&self) -> Option<PageId> {
        match (self.kind, self.slots.as_slice()) {
            (Kind::Branch, [slot]) => Some(PageId(slot.tag)),
            _ => None,
        }
    }

    /// Appends page header and elements; the data follow them.
    fn head(&self, id: PageId, overflow: usize, out: &mut Vec<u8>) {
        let flags = match self.kind {
            Kind::Leaf => page::FLAG_LEAF,
            Kind::Branch => page::FLAG_BRANCH,
            Kind::Freelist => page::FLAG_FREELIST,
        };
        // Neither can be too wide: `has_room` keeps the count, `push` the bytes.
        let count = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        let overflow = u32::try_from(overflow).unwrap_or(u32::MAX);
        out.extend_from_slice(&id.0.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&overflow.to_le_bytes());
        let mut array = u32::from(count) * ELEMENT_SIZE;
        for slot in &self.slots {
            let position = array.saturating_add(slot.start);
            match self.kind {
                Kind::Leaf => {
                    let flags = u32::try_from(slot.tag).unwrap_or_default();
                    for field in [flags, position, slot.key, slot.value] {
                        out.extend_from_slice(&field.to_le_bytes());
                    }
                }
                Kind::Branch | Kind::Freelist => {
                    out.extend_from_slice(&position.to_le_bytes());
                    out.extend_from_slice(&slot.key.to_le_bytes());
                    out.extend_from_slice(&slot.tag.to_le_bytes());
                }
            }
            array = array.saturating_sub(ELEMENT_SIZE);
        }
    }

    fn clear(&mut self) {
        self.slots.clear();
        self.data.clear();
        // What one huge record has stretched does not stay so.
        self.data.shrink_to(1 << 20);
    }
}

/// Bytes of an element, of a leaf as of a branch.
const ELEMENT_SIZE: u32 = 16;
const _: () = assert!(leaf::SIZE == ELEMENT_SIZE as usize && branch::SIZE == leaf::SIZE);
