//! One page, from raw bytes to a structure that may be followed.
//!
//! [`Branch`] and [`Leaf`] exist only after every element of the page was found inside the page,
//! in key order and between the separators of its parent; their methods cannot fail.

use crate::error::{Damage, Reason};
use crate::format::{self, PageId, branch, leaf, page};
use std::cmp::Ordering;
use std::sync::Arc;

/// Where a page came from, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub page: PageId,
    /// Byte offset of the page's first byte in the file.
    pub offset: u64,
}

impl Place {
    pub(crate) fn damage(self, reason: Reason) -> Damage {
        Damage::new(self.page, self.offset, reason)
    }

    /// Damage at an offset inside the page.
    fn damage_at(self, inside: usize, reason: Reason) -> Damage {
        Damage::new(self.page, self.offset.saturating_add(inside as u64), reason)
    }
}

/// The separators of the parent page between which all keys of a page must lie.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds<'a> {
    /// Keys are not below this one.
    pub lower: Option<&'a [u8]>,
    /// Keys are below this one.
    pub upper: Option<&'a [u8]>,
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

/// The 16 bytes at the start of a page, unchecked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub id: u64,
    pub flags: u16,
    pub count: usize,
    pub overflow: u32,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(bytes, page::ID)?,
            flags: u16_at(bytes, page::FLAGS)?,
            count: usize::from(u16_at(bytes, page::COUNT)?),
            overflow: u32_at(bytes, page::OVERFLOW)?,
        })
    }
}

/// An element's key and value as places in the page.
#[derive(Clone, Copy)]
struct Element {
    /// Offset of the key in the page; the value follows it.
    key: usize,
    key_size: usize,
    value_size: usize,
    flags: u32,
}

impl Element {
    fn leaf(bytes: &[u8], index: usize) -> Option<Self> {
        let at = page::SIZE + index * leaf::SIZE;
        let element: &[u8; leaf::SIZE] = bytes.get(at..)?.first_chunk()?;
        Some(Self {
            key: at.checked_add(u32_at(element, leaf::POSITION)? as usize)?,
            key_size: u32_at(element, leaf::KEY_SIZE)? as usize,
            value_size: u32_at(element, leaf::VALUE_SIZE)? as usize,
            flags: u32_at(element, leaf::FLAGS)?,
        })
    }

    fn branch(bytes: &[u8], index: usize) -> Option<Self> {
        let at = page::SIZE + index * branch::SIZE;
        let element: &[u8; branch::SIZE] = bytes.get(at..)?.first_chunk()?;
        Some(Self {
            key: at.checked_add(u32_at(element, branch::POSITION)? as usize)?,
            key_size: u32_at(element, branch::KEY_SIZE)? as usize,
            value_size: 0,
            flags: 0,
        })
    }

    fn key(self, bytes: &[u8]) -> Option<&[u8]> {
        bytes.get(self.key..)?.get(..self.key_size)
    }

    fn value(self, bytes: &[u8]) -> Option<&[u8]> {
        bytes.get(self.key..)?.get(self.key_size..)?.get(..self.value_size)
    }

    /// First byte behind the element's data.
    fn end(self) -> Option<usize> {
        self.key.checked_add(self.key_size)?.checked_add(self.value_size)
    }
}

/// What branch and leaf pages have in common: each element inside the page and behind the one
/// before, keys ascending and between the bounds.
fn check_elements(
    bytes: &[u8],
    place: Place,
    count: usize,
    element_size: usize,
    bounds: Bounds<'_>,
    element: impl Fn(usize) -> Option<Element>,
) -> Result<(), Damage> {
    let room = bytes.len().saturating_sub(page::SIZE);
    let array_end = page::SIZE + count * element_size;
    if array_end > bytes.len() {
        return Err(place.damage_at(page::COUNT, Reason::Elements { count, room }));
    }
    let mut data_end = array_end;
    let mut previous: Option<&[u8]> = None;
    for index in 0..count {
        let at = page::SIZE + index * element_size;
        let outside = |found: Option<Element>| {
            let (position, size) =
                found.map_or((0, 0), |e| (e.key, e.key_size as u64 + e.value_size as u64));
            place.damage_at(at, Reason::ElementBounds { index, position, size })
        };
        let found = element(index).ok_or_else(|| outside(None))?;
        let end = found.end().filter(|end| *end <= bytes.len() && found.key >= data_end);
        let (Some(end), Some(key)) = (end, found.key(bytes)) else {
            return Err(outside(Some(found)));
        };
        data_end = end;
        if key.is_empty() {
            return Err(place.damage_at(at, Reason::EmptyKey { index }));
        }
        if previous.is_some_and(|previous| key <= previous) {
            return Err(place.damage_at(at, Reason::KeyOrder { index }));
        }
        if previous.is_none() && bounds.lower.is_some_and(|lower| key < lower) {
            return Err(place.damage_at(at, Reason::BelowSeparator));
        }
        previous = Some(key);
    }
    match (previous, bounds.upper) {
        (Some(last), Some(upper)) if last >= upper => Err(place.damage(Reason::AboveSeparator)),
        _ => Ok(()),
    }
}

/// A checked branch page, with its bytes. Clones share them: a hostile file can have branches of
/// hundreds of megabytes.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    bytes: Arc<[u8]>,
    count: usize,
}

impl Branch {
    /// Checks a page whose header says that it is a branch.
    pub(crate) fn parse(bytes: &[u8], place: Place, bounds: Bounds<'_>) -> Result<Self, Damage> {
        let count = Header::parse(bytes).map_or(0, |header| header.count);
        if count == 0 {
            return Err(place.damage_at(page::COUNT, Reason::EmptyBranch));
        }
        check_elements(bytes, place, count, branch::SIZE, bounds, |i| Element::branch(bytes, i))?;
        Ok(Self { bytes: bytes.into(), count })
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The separator before child `index`: no key below it is in that child.
    pub(crate) fn key(&self, index: usize) -> Option<&[u8]> {
        (index < self.count).then(|| Element::branch(&self.bytes, index)?.key(&self.bytes))?
    }

    /// The page id in element `index`, as it stands there.
    pub(crate) fn child(&self, index: usize) -> Option<PageId> {
        let at = page::SIZE + index * branch::SIZE + branch::CHILD;
        (index < self.count).then(|| u64_at(&self.bytes, at).map(PageId))?
    }

    /// The child in which `key` would lie.
    pub(crate) fn position(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle).map(|separator| separator.cmp(key)) {
                Some(Ordering::Greater) | None => high = middle,
                Some(_) => low = middle + 1,
            }
        }
        low.saturating_sub(1)
    }
}

/// A checked leaf page.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    bytes: &'a [u8],
    count: usize,
    place: Place,
}

/// One key of a leaf with what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The key, never empty.
    pub key: &'a [u8],
    /// The value; of a bucket its header and, where it is inline, its page.
    pub value: &'a [u8],
    /// The value is a bucket.
    pub is_bucket: bool,
}

impl<'a> Leaf<'a> {
    /// Checks a page whose header says that it is a leaf.
    pub(crate) fn parse(bytes: &'a [u8], place: Place, bounds: Bounds<'_>) -> Result<Self, Damage> {
        let count = Header::parse(bytes).map_or(0, |header| header.count);
        check_elements(bytes, place, count, leaf::SIZE, bounds, |i| Element::leaf(bytes, i))?;
        let leaf = Self { bytes, count, place };
        for index in 0..count {
            let at = page::SIZE + index * leaf::SIZE;
            let Some(element) = Element::leaf(bytes, index) else {
                continue;
            };
            if element.flags & !leaf::FLAG_BUCKET != 0 {
                let got = element.flags;
                return Err(place.damage_at(at, Reason::ElementFlags { index, got }));
            }
            if element.flags == leaf::FLAG_BUCKET && element.value_size < format::bucket::SIZE {
                let size = element.value_size;
                return Err(place.damage_at(at, Reason::BucketHeader { index, size }));
            }
        }
        Ok(leaf)
    }

    /// A leaf that was checked before.
    pub(crate) fn trusted(bytes: &'a [u8], count: usize, place: Place) -> Self {
        Self { bytes, count, place }
    }

    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// No pairs: only the root page of an empty bucket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The page that the leaf starts on (for an inline bucket the page that it lies in).
    #[must_use]
    pub fn page(&self) -> PageId {
        self.place.page
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Pair `index` in key order.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Pair<'a>> {
        if index >= self.count {
            return None;
        }
        let element = Element::leaf(self.bytes, index)?;
        Some(Pair {
            key: element.key(self.bytes)?,
            value: element.value(self.bytes)?,
            is_bucket: element.flags == leaf::FLAG_BUCKET,
        })
    }

    /// The pairs in key order.
    pub fn pairs(&self) -> impl DoubleEndedIterator<Item = Pair<'a>> + use<'a> {
        let leaf = *self;
        (0..self.count).filter_map(move |index| leaf.get(index))
    }

    /// Place of the first pair whose key is not below `key`.
    pub(crate) fn position(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle).is_some_and(|pair| pair.key < key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}
