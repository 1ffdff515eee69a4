//! The two metas: raw bytes, and what they say once their checksum fits.

use crate::error::Reason;
use crate::format::{self, PageId, TxId, meta, page};
use crate::page::{Header, u32_at, u64_at};

/// A checked meta: the root of one committed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Bytes a page, a power of two.
    pub page_size: usize,
    /// Root page of the root bucket.
    pub root: PageId,
    /// Where the freelist is stored; `None`: not stored, all that is not reachable is free.
    pub freelist: Option<PageId>,
    /// First page id never used: the logical size of the file in pages.
    pub high_water: PageId,
    /// The transaction that wrote it.
    pub txid: TxId,
}

impl Meta {
    /// Reads the meta in a page's first bytes (header and structure).
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Reason> {
        let body: &[u8; meta::SIZE] =
            bytes.get(page::SIZE..).and_then(<[u8]>::first_chunk).ok_or(Reason::FileEnds {
                have: bytes.len() as u64,
                want: (page::SIZE + meta::SIZE) as u64,
            })?;
        let u32_of = |at| u32_at(body, at).unwrap_or_default();
        let u64_of = |at| u64_at(body, at).unwrap_or_default();
        let magic = u32_of(meta::MAGIC);
        if magic != meta::MAGIC_VALUE {
            return Err(Reason::MetaMagic { got: magic });
        }
        let version = u32_of(meta::VERSION);
        if version != meta::VERSION_VALUE {
            return Err(Reason::MetaVersion { got: version });
        }
        let got = u64_of(meta::CHECKSUM);
        let want = format::fnv1a(body.get(..meta::CHECKSUM).unwrap_or_default());
        if got != want {
            return Err(Reason::MetaChecksum { got, want });
        }
        // The header is not under the checksum; bbolt's opener ignores it.
        let flags = Header::parse(bytes).map_or(0, |header| header.flags);
        if flags != page::FLAG_META {
            return Err(Reason::PageKind { got: flags, want: "meta (0x0004)" });
        }
        let claimed = u32_of(meta::PAGE_SIZE);
        let page_size = usize::try_from(claimed).unwrap_or_default();
        let possible = format::PAGE_SIZE_MIN..=format::PAGE_SIZE_MAX;
        if !page_size.is_power_of_two() || !possible.contains(&page_size) {
            return Err(Reason::MetaPageSize { got: claimed });
        }
        let freelist = u64_of(meta::FREELIST);
        Ok(Self {
            page_size,
            root: PageId(u64_of(meta::ROOT)),
            freelist: (freelist != meta::NO_FREELIST).then_some(PageId(freelist)),
            high_water: PageId(u64_of(meta::HIGH_WATER)),
            txid: TxId(u64_of(meta::TXID)),
        })
    }

    /// The page that carries this meta, `page_size` bytes, for slot 0 or 1 of the file.
    pub(crate) fn to_page(self, slot: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.page_size);
        bytes.extend_from_slice(&slot.to_le_bytes());
        bytes.extend_from_slice(&page::FLAG_META.to_le_bytes());
        bytes.extend_from_slice(&[0; page::SIZE - page::COUNT]);
        let start = bytes.len();
        bytes.extend_from_slice(&meta::MAGIC_VALUE.to_le_bytes());
        bytes.extend_from_slice(&meta::VERSION_VALUE.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.page_size).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&0_u32.to_le_bytes());
        bytes.extend_from_slice(&self.root.0.to_le_bytes());
        bytes.extend_from_slice(&0_u64.to_le_bytes());
        let freelist = self.freelist.map_or(meta::NO_FREELIST, |page| page.0);
        bytes.extend_from_slice(&freelist.to_le_bytes());
        bytes.extend_from_slice(&self.high_water.0.to_le_bytes());
        bytes.extend_from_slice(&self.txid.0.to_le_bytes());
        let sum = format::fnv1a(bytes.get(start..).unwrap_or_default());
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.resize(self.page_size, 0);
        bytes
    }
}
