//! The state at one revision: which records of which packs, and the small buckets in full.
//!
//! ```text
//! base
//!    4       HashKV at the base's revision and compact revision, by the rule of etcd 3.6
//!    1       1 where keys of Kubernetes were seen, else 0
//!    varint  packs
//!    one a pack, in the order of their records, which do not overlap
//!       1       1: a pack; nothing else yet
//!       16      its timeline
//!       16      id
//!       varint  bytes of the object
//!       32      BLAKE3 of its body, as its header says
//!       32      BLAKE3 of its index
//!       varint  revision of its first record
//!       varint  2 x sub-revision of it, + 1 for a tombstone
//!       the same two of its last record
//!       varint  records
//!       varint  bytes of the dead set
//!       dead set: numbers of records, from 0, in Roaring's portable format; none where all live
//!    varint  bytes of the frame before compression
//!    varint  bytes of the frame
//!    frame: zstd of a bbolt file with all buckets, of which `key` holds the last record only
//! ```

use super::block::{key, put_key};
use super::cursor::{Cursor, Put};
use super::digest::DIGEST;
use super::fault::FormatFault;
use super::id::{ObjectId, TimelineId};
use rekindle_etcd::RecordKey;
use roaring::RoaringBitmap;

/// Most bytes of the frame before compression: leases are the bulk of it, some 40 bytes each.
pub const FRAME_MAX: usize = 256 << 20;
/// Packs of a base at most: with packs of 4 MiB that is 4 TiB.
const PACKS_MAX: u64 = 1 << 20;

/// The sort of entry that names a pack.
const A_PACK: u8 = 1;

const WHAT: &str = "a base";

/// A base.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// HashKV at the base's revision and compact revision, by the rule of etcd 3.6: tombstones at the
    /// compact revision are left out.
    pub hash: u32,
    /// Keys of Kubernetes were seen in the records.
    pub kubernetes: bool,
    /// Where the records lie, in their order.
    pub packs: Vec<PackUse>,
    /// A bbolt file with the small buckets, and the last record as the only one of `key`.
    pub frame: Vec<u8>,
}

/// A pack that a base uses.
#[derive(Clone, Debug, PartialEq)]
pub struct PackUse {
    /// Where it lies.
    pub timeline: TimelineId,
    /// Its name.
    pub id: ObjectId,
    /// Bytes of the object.
    pub bytes: u64,
    /// BLAKE3 of its body.
    pub body_digest: [u8; DIGEST],
    /// BLAKE3 of its index.
    pub index_digest: [u8; DIGEST],
    /// Its first record.
    pub first: RecordKey,
    /// Its last record.
    pub last: RecordKey,
    /// Records in it, dead ones too.
    pub records: u64,
    /// Numbers of its records, from 0, that do not belong to the base.
    pub dead: RoaringBitmap,
}

impl PackUse {
    /// Records that belong to the base.
    #[must_use]
    pub fn living(&self) -> u64 {
        self.records.saturating_sub(self.dead.len())
    }
}

impl Base {
    /// Records that belong to it; none where their number makes no sense.
    #[must_use]
    pub fn living(&self) -> Option<u64> {
        self.packs.iter().try_fold(0_u64, |sum, pack| sum.checked_add(pack.living()))
    }

    /// The content of the object.
    ///
    /// # Errors
    /// [`FormatFault::Compression`] where zstd fails, which it does only without memory;
    /// [`FormatFault::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, FormatFault> {
        check_frame(self.frame.len())?;
        let mut out = Vec::new();
        out.extend_from_slice(&self.hash.to_le_bytes());
        out.push(u8::from(self.kubernetes));
        out.put_varint(self.packs.len() as u64);
        for pack in &self.packs {
            out.push(A_PACK);
            out.extend_from_slice(&pack.timeline.0);
            out.extend_from_slice(&pack.id.0);
            out.put_varint(pack.bytes);
            out.extend_from_slice(&pack.body_digest);
            out.extend_from_slice(&pack.index_digest);
            put_key(&mut out, pack.first);
            put_key(&mut out, pack.last);
            out.put_varint(pack.records);
            let mut dead = Vec::new();
            if !pack.dead.is_empty() {
                // A Vec takes everything.
                let _ = pack.dead.serialize_into(&mut dead);
            }
            out.put_sized(&dead);
        }
        let frame = zstd::bulk::compress(&self.frame, 3)
            .map_err(|_| FormatFault::Compression { what: "the frame of a base" })?;
        out.put_varint(self.frame.len() as u64);
        out.put_sized(&frame);
        Ok(out)
    }

    /// Reads the content of a base.
    ///
    /// # Errors
    /// Whatever no writer writes.
    pub fn parse(content: &[u8]) -> Result<Self, FormatFault> {
        let mut cursor = Cursor::new(content, WHAT);
        let hash = u32::from_le_bytes(cursor.array()?);
        let kubernetes = match cursor.array()? {
            [flag @ (0 | 1)] => flag == 1,
            _ => return Err(cursor.senseless()),
        };
        let count = cursor.varint()?;
        if count > PACKS_MAX {
            return Err(cursor.senseless());
        }
        let mut packs: Vec<PackUse> = Vec::new();
        for _ in 0..count {
            let pack = pack(&mut cursor)?;
            if packs.last().is_some_and(|before| before.last >= pack.first) {
                return Err(cursor.senseless());
            }
            packs.push(pack);
        }
        let raw = cursor.length()?;
        check_frame(raw)?;
        let frame = zstd::bulk::decompress(cursor.sized()?, raw).ok();
        let frame = frame.filter(|frame| frame.len() == raw);
        let frame = frame.ok_or(FormatFault::Compression { what: "the frame of a base" })?;
        cursor.end()?;
        Ok(Self { hash, kubernetes, packs, frame })
    }
}

fn pack(cursor: &mut Cursor<'_>) -> Result<PackUse, FormatFault> {
    if cursor.array()? != [A_PACK] {
        return Err(cursor.senseless());
    }
    let timeline = TimelineId(cursor.array()?);
    let id = ObjectId(cursor.array()?);
    let bytes = cursor.varint()?;
    let (body_digest, index_digest) = (cursor.array()?, cursor.array()?);
    let (first, last) = (key(cursor)?, key(cursor)?);
    let records = cursor.varint()?;
    let dead = match cursor.sized()? {
        [] => Some(RoaringBitmap::new()),
        mut bytes => {
            let dead = RoaringBitmap::deserialize_from(&mut bytes).ok();
            dead.filter(|dead| bytes.is_empty() && !dead.is_empty())
        }
    };
    let dead = dead.filter(|dead| dead.max().is_none_or(|max| u64::from(max) < records));
    match dead {
        Some(dead) if first <= last && records > 0 => Ok(PackUse {
            timeline,
            id,
            bytes,
            body_digest,
            index_digest,
            first,
            last,
            records,
            dead,
        }),
        _ => Err(cursor.senseless()),
    }
}

fn check_frame(bytes: usize) -> Result<(), FormatFault> {
    match bytes > FRAME_MAX {
        true => {
            let (got, max) = (bytes as u64, FRAME_MAX as u64);
            Err(FormatFault::TooLarge { what: "the frame of a base", got, max })
        }
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::tests::a_key;
    use super::*;

    fn a_pack(first: i64, last: i64, dead: &[u32]) -> PackUse {
        PackUse {
            id: ObjectId([first as u8; 16]),
            timeline: TimelineId([9; 16]),
            bytes: 1000,
            index_digest: [8; DIGEST],
            body_digest: [last as u8; DIGEST],
            first: a_key(first, 0, false),
            last: a_key(last, 3, true),
            records: 100,
            dead: dead.iter().copied().collect(),
        }
    }

    fn a_base() -> Base {
        let packs = vec![a_pack(2, 5, &[]), a_pack(6, 9, &[0, 1, 2, 50, 99])];
        Base { hash: 0xdead_beef, kubernetes: true, packs, frame: vec![7; 5000] }
    }

    #[test]
    fn what_is_written_is_read() {
        for base in [a_base(), Base { packs: Vec::new(), frame: Vec::new(), ..a_base() }] {
            assert_eq!(Base::parse(&base.encode().unwrap()).unwrap(), base);
        }
        assert_eq!(a_base().packs[1].living(), 95);
    }

    #[test]
    fn no_cut_and_no_addition_is_a_base() {
        let content = a_base().encode().unwrap();
        for length in 0..content.len() {
            assert!(Base::parse(&content[..length]).is_err(), "{length} bytes");
        }
        let extra = FormatFault::Extra { what: WHAT, extra: 1 };
        assert_eq!(Base::parse(&[&content[..], &[0]].concat()).unwrap_err(), extra);
    }

    #[test]
    fn bases_that_make_no_sense() {
        let check = |change: fn(&mut Base)| {
            let mut base = a_base();
            change(&mut base);
            let fault = Base::parse(&base.encode().unwrap()).unwrap_err();
            assert_eq!(fault, FormatFault::Senseless { what: WHAT });
        };
        check(|base| base.packs.reverse());
        check(|base| base.packs[1].first = base.packs[0].last);
        check(|base| base.packs[1].records = 99);
        check(|base| base.packs[0].records = 0);
        check(|base| base.packs[0].last = a_key(1, 0, false));
        let large = Base { frame: vec![0; FRAME_MAX + 1], ..a_base() };
        assert!(matches!(large.encode(), Err(FormatFault::TooLarge { .. })));
    }
}
