//! The state at one revision: which records of which packs and of which ranges of the log, and the
//! small buckets in full.
//!
//! ```text
//! base
//!    4       HashKV at the base's revision and compact revision, by the rule of etcd 3.6
//!    1       1 where keys of Kubernetes were seen; + 2 where records of it were erased
//!    varint  records of it that were erased, where the byte before says so
//!    varint  parts
//!    one a part, in the order of their records, which do not overlap
//!       1       1: a pack, 2: a range of the log
//!       16      its timeline
//!       varint  revision of its first record
//!       varint  2 x sub-revision of it, + 1 for a tombstone
//!       the same two of its last record
//!       varint  records
//!       varint  bytes as stored; of a range of the log as it was stored first
//!       varint  bytes of the dead set
//!       dead set: numbers of records, from 0, in Roaring's portable format; none where all live
//!       of a pack:
//!          16   id
//!          32   BLAKE3 of its body, as its header says
//!          32   BLAKE3 of its index
//!       of a range of the log:
//!          32   digest of its records
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
/// Parts of a base at most: with packs of 8 MiB that is 8 TiB.
const PARTS_MAX: u64 = 1 << 20;

/// The sorts of parts.
const A_PACK: u8 = 1;
const A_RANGE: u8 = 2;

/// Bits of a base's second field.
const KUBERNETES: u8 = 1;
const ERASED: u8 = 2;

const WHAT: &str = "a base";

/// A base.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// HashKV at the base's revision and compact revision, by the rule of etcd 3.6: tombstones at the
    /// compact revision are left out.
    pub hash: u32,
    /// Keys of Kubernetes were seen in the records.
    pub kubernetes: bool,
    /// Records that it had and that were erased on demand: [`Self::hash`] is over the others.
    pub erased: u64,
    /// Where the records lie, in their order.
    pub parts: Vec<Part>,
    /// A bbolt file with the small buckets, and the last record as the only one of `key`.
    pub frame: Vec<u8>,
}

/// A pack or a range of the log that a base uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Where it lies.
    pub timeline: TimelineId,
    /// Its first record.
    pub first: RecordKey,
    /// Its last record.
    pub last: RecordKey,
    /// Records in it, dead ones too.
    pub records: u64,
    /// Bytes of the object; of a range of the log those of the segments that held it first.
    pub bytes: u64,
    /// Numbers of its records, from 0, that do not belong to the base.
    pub dead: RoaringBitmap,
    /// What it is.
    pub what: PartKind,
}

/// What a part of a base is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// An object of its own.
    Pack {
        /// Its name.
        id: ObjectId,
        /// BLAKE3 of its body.
        body_digest: [u8; DIGEST],
        /// BLAKE3 of its index.
        index_digest: [u8; DIGEST],
    },
    /// All records of the log from the first one's revision to the last one's, however they are cut
    /// into segments.
    Log {
        /// See [`super::LogDigest`].
        digest: [u8; DIGEST],
    },
}

impl Part {
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
        self.parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.living()))
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
        let erased = if self.erased > 0 { ERASED } else { 0 };
        out.push(u8::from(self.kubernetes) | erased);
        if self.erased > 0 {
            out.put_varint(self.erased);
        }
        out.put_varint(self.parts.len() as u64);
        self.parts.iter().for_each(|part| part.put(&mut out));
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
        let [flags] = cursor.array()?;
        let kubernetes = flags & KUBERNETES != 0;
        let erased = if flags & ERASED != 0 { cursor.varint()? } else { 0 };
        if flags & !(KUBERNETES | ERASED) != 0 || (flags & ERASED != 0) != (erased > 0) {
            return Err(cursor.senseless());
        }
        let count = cursor.varint()?;
        if count > PARTS_MAX {
            return Err(cursor.senseless());
        }
        let mut parts: Vec<Part> = Vec::new();
        for _ in 0..count {
            let part = Part::parse(&mut cursor)?;
            if parts.last().is_some_and(|before| before.last >= part.first) {
                return Err(cursor.senseless());
            }
            parts.push(part);
        }
        let raw = cursor.length()?;
        check_frame(raw)?;
        let frame = zstd::bulk::decompress(cursor.sized()?, raw).ok();
        let frame = frame.filter(|frame| frame.len() == raw);
        let frame = frame.ok_or(FormatFault::Compression { what: "the frame of a base" })?;
        cursor.end()?;
        Ok(Self { hash, kubernetes, erased, parts, frame })
    }
}

impl Part {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self.what {
            PartKind::Pack { .. } => A_PACK,
            PartKind::Log { .. } => A_RANGE,
        });
        out.extend_from_slice(&self.timeline.0);
        put_key(out, self.first);
        put_key(out, self.last);
        out.put_varint(self.records);
        out.put_varint(self.bytes);
        let mut dead = Vec::new();
        if !self.dead.is_empty() {
            // A Vec takes everything.
            let _ = self.dead.serialize_into(&mut dead);
        }
        out.put_sized(&dead);
        match &self.what {
            PartKind::Pack { id, body_digest, index_digest } => {
                out.extend_from_slice(&id.0);
                out.extend_from_slice(body_digest);
                out.extend_from_slice(index_digest);
            }
            PartKind::Log { digest } => out.extend_from_slice(digest),
        }
    }

    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, FormatFault> {
        let [sort] = cursor.array()?;
        let timeline = TimelineId(cursor.array()?);
        let (first, last) = (key(cursor)?, key(cursor)?);
        let (records, bytes) = (cursor.varint()?, cursor.varint()?);
        let dead = dead_set(cursor.sized()?, records).ok_or_else(|| cursor.senseless())?;
        let what = match sort {
            A_PACK => PartKind::Pack {
                id: ObjectId(cursor.array()?),
                body_digest: cursor.array()?,
                index_digest: cursor.array()?,
            },
            A_RANGE => PartKind::Log { digest: cursor.array()? },
            _ => return Err(FormatFault::NotYet { what: "a base with parts of another sort" }),
        };
        match first <= last && records > 0 {
            true => Ok(Self { timeline, first, last, records, bytes, dead, what }),
            false => Err(cursor.senseless()),
        }
    }
}

/// The dead set of a part with so many records.
fn dead_set(bytes: &[u8], records: u64) -> Option<RoaringBitmap> {
    if bytes.is_empty() {
        return Some(RoaringBitmap::new());
    }
    let mut rest = bytes;
    let dead = RoaringBitmap::deserialize_from(&mut rest).ok()?;
    let max = dead.max().filter(|_| rest.is_empty())?;
    (u64::from(max) < records).then_some(dead)
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

    fn a_part(first: i64, last: i64, dead: &[u32], what: PartKind) -> Part {
        Part {
            timeline: TimelineId([9; 16]),
            first: a_key(first, 0, false),
            last: a_key(last, 3, true),
            records: 100,
            bytes: 1000,
            dead: dead.iter().copied().collect(),
            what,
        }
    }

    fn a_pack(first: i64, last: i64, dead: &[u32]) -> Part {
        let id = ObjectId([first as u8; 16]);
        let (body_digest, index_digest) = ([last as u8; DIGEST], [8; DIGEST]);
        a_part(first, last, dead, PartKind::Pack { id, body_digest, index_digest })
    }

    fn a_base() -> Base {
        let range = a_part(10, 12, &[7], PartKind::Log { digest: [5; DIGEST] });
        let parts = vec![a_pack(2, 5, &[]), a_pack(6, 9, &[0, 1, 2, 50, 99]), range];
        Base { hash: 0xdead_beef, kubernetes: true, erased: 300, parts, frame: vec![7; 5000] }
    }

    #[test]
    fn what_is_written_is_read() {
        let empty = Base { erased: 0, parts: Vec::new(), frame: Vec::new(), ..a_base() };
        for base in [a_base(), empty] {
            assert_eq!(Base::parse(&base.encode().unwrap()).unwrap(), base);
        }
        assert_eq!(a_base().parts[1].living(), 95);
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
        check(|base| base.parts.reverse());
        check(|base| base.parts[1].first = base.parts[0].last);
        check(|base| base.parts[1].records = 99);
        check(|base| base.parts[0].records = 0);
        check(|base| base.parts[0].last = a_key(1, 0, false));
        let large = Base { frame: vec![0; FRAME_MAX + 1], ..a_base() };
        assert!(matches!(large.encode(), Err(FormatFault::TooLarge { .. })));
    }
}
