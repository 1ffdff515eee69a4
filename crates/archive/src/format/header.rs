//! The plain beginning of every object: what it is, without any key.
//!
//! ```text
//! header (256 bytes; 320 with a signature)
//!    0   8  magic "rekindle"
//!    8   2  format version
//!   10   1  kind
//!   11   1  flags
//!   12   4  generation of keys, 0 where not sealed
//!   16  16  archive
//!   32  16  timeline
//!   48  16  the object's own id
//!   64   8  first revision
//!   72   8  last revision
//!   80   8  compact revision, -1 for none
//!   88   8  raft term
//!   96   8  raft index
//!  104   8  state as of, milliseconds since 1970
//!  112   8  ended, milliseconds since 1970
//!  120   8  records
//!  128   8  live keys; leases of a segment
//!  136   8  bytes before compression
//!  144   8  bytes written anew
//!  152   8  cluster id
//!  160   8  member id
//!  168  16  etcd version, text filled up with zeros
//!  184   8  body length
//!  192  32  BLAKE3 of the body
//!  224  32  BLAKE3 of all before
//!  256  64  Ed25519 signature, where the flag says so
//! ```
//!
//! The first 184 bytes are the *facts*. What a kind of object has no use for is zero, a compact
//! revision -1.

use super::Row;
use super::digest::{DIGEST, Domain};
use super::fault::FormatFault;
use super::id::{ArchiveId, ObjectId, TimelineId};
use super::keys::Generation;
use rekindle_etcd::{ClusterId, MemberId, RaftIndex, RaftTerm, Revision};
use std::fmt;

/// The first bytes of every object.
pub const MAGIC: [u8; 8] = *b"rekindle";
/// The newest version that is written and read.
pub const VERSION: u16 = 1;
/// The body is sealed to the archive's key.
pub const FLAG_SEALED: u8 = 1;
/// A signature follows the header.
pub const FLAG_SIGNED: u8 = 1 << 1;
/// Records that belonged to the base or the segment were erased on demand.
pub const FLAG_ERASED: u8 = 1 << 2;
/// Bytes of a signature.
pub const SIGNATURE: usize = 64;

/// Where the fields lie.
pub mod at {
    use super::{DIGEST, Row};

    /// Always [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// Of the format, 2 bytes.
    pub const VERSION: usize = MAGIC + 8;
    /// A [`super::Kind`].
    pub const KIND: usize = VERSION + 2;
    /// `FLAG_*` bits.
    pub const FLAGS: usize = KIND + 1;
    /// Of the keys that the body is sealed to; 0 where it is not.
    pub const GENERATION: usize = FLAGS + 1;
    /// The archive's id.
    pub const ARCHIVE: usize = GENERATION + 4;
    /// The timeline's id.
    pub const TIMELINE: usize = ARCHIVE + 16;
    /// The object's own id.
    pub const ID: usize = TIMELINE + 16;
    /// Of the records.
    pub const FIRST: usize = ID + 16;
    /// Of the records; of a base the revision that it restores.
    pub const LAST: usize = FIRST + 8;
    /// The greater of scheduled and finished.
    pub const COMPACT: usize = LAST + 8;
    /// Of the snapshot.
    pub const TERM: usize = COMPACT + 8;
    /// Of the snapshot.
    pub const INDEX: usize = TERM + 8;
    /// When the state was that of the records at the latest.
    pub const STATE: usize = INDEX + 8;
    /// When it was ended.
    pub const ENDED: usize = STATE + 8;
    /// How many.
    pub const RECORDS: usize = ENDED + 8;
    /// How many.
    pub const KEYS: usize = RECORDS + 8;
    /// Before compression.
    pub const LOGICAL: usize = KEYS + 8;
    /// Of the packs that were written for it.
    pub const NEW: usize = LOGICAL + 8;
    /// Whose records these are.
    pub const CLUSTER: usize = NEW + 8;
    /// Who gave them.
    pub const MEMBER: usize = CLUSTER + 8;
    /// Of that member.
    pub const ETCD: usize = MEMBER + 8;
    /// Bytes behind the header.
    pub const BODY: usize = ETCD + 16;
    /// Of those bytes.
    pub const BODY_DIGEST: usize = BODY + 8;
    /// Of all before.
    pub const CHECKSUM: usize = BODY_DIGEST + DIGEST;
    /// Bytes of a header without a signature.
    pub const END: usize = CHECKSUM + DIGEST;
    /// Bytes of the facts.
    pub const FACTS: usize = BODY;
    const _: () = assert!(END == 256);

    /// The table in the module's head.
    pub const TABLE: [Row; 24] = [
        (MAGIC, VERSION - MAGIC, "magic \"rekindle\""),
        (VERSION, KIND - VERSION, "format version"),
        (KIND, FLAGS - KIND, "kind"),
        (FLAGS, GENERATION - FLAGS, "flags"),
        (GENERATION, ARCHIVE - GENERATION, "generation of keys, 0 where not sealed"),
        (ARCHIVE, TIMELINE - ARCHIVE, "archive"),
        (TIMELINE, ID - TIMELINE, "timeline"),
        (ID, FIRST - ID, "the object's own id"),
        (FIRST, LAST - FIRST, "first revision"),
        (LAST, COMPACT - LAST, "last revision"),
        (COMPACT, TERM - COMPACT, "compact revision, -1 for none"),
        (TERM, INDEX - TERM, "raft term"),
        (INDEX, STATE - INDEX, "raft index"),
        (STATE, ENDED - STATE, "state as of, milliseconds since 1970"),
        (ENDED, RECORDS - ENDED, "ended, milliseconds since 1970"),
        (RECORDS, KEYS - RECORDS, "records"),
        (KEYS, LOGICAL - KEYS, "live keys; leases of a segment"),
        (LOGICAL, NEW - LOGICAL, "bytes before compression"),
        (NEW, CLUSTER - NEW, "bytes written anew"),
        (CLUSTER, MEMBER - CLUSTER, "cluster id"),
        (MEMBER, ETCD - MEMBER, "member id"),
        (ETCD, BODY - ETCD, "etcd version, text filled up with zeros"),
        (BODY, BODY_DIGEST - BODY, "body length"),
        (BODY_DIGEST, CHECKSUM - BODY_DIGEST, "BLAKE3 of the body"),
    ];
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Kind {
    /// Records that were written in bulk.
    Pack = 1,
    /// The state at one revision.
    Base = 2,
    /// Records of the log.
    Segment = 3,
    /// What a member has said of its keyspace.
    Witness = 4,
    /// Files of a host.
    Files = 5,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Pack, Self::Base, Self::Segment, Self::Witness, Self::Files];

    fn of(byte: u8) -> Result<Self, FormatFault> {
        let found = Self::ALL.into_iter().find(|kind| *kind as u8 == byte);
        found.ok_or(FormatFault::UnknownKind { got: byte })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pack => "pack",
            Self::Base => "base",
            Self::Segment => "segment",
            Self::Witness => "witness",
            Self::Files => "files",
        })
    }
}

/// A moment: milliseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

/// What a header says of its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// The archive that it belongs to.
    pub archive: ArchiveId,
    /// The timeline that it belongs to.
    pub timeline: TimelineId,
    /// Its own, which its name ends with.
    pub id: ObjectId,
    /// The least revision of its records.
    pub first: Revision,
    /// The greatest one; of a base the revision that it restores.
    pub last: Revision,
    /// The greater of the scheduled and the finished compaction; only of a base.
    pub compact: Option<Revision>,
    /// Raft term of the snapshot.
    pub term: RaftTerm,
    /// Raft index of the snapshot.
    pub index: RaftIndex,
    /// The records are what the cluster had at this moment or shortly before.
    pub state: Moment,
    /// When it was ended.
    pub ended: Moment,
    /// Records in it; of a base those that it restores.
    pub records: u64,
    /// Keys that live at its revision; only of a base, 0 where that is not known. Of a segment the
    /// leases that it tells of.
    pub keys: u64,
    /// Bytes of its blocks before compression.
    pub logical_bytes: u64,
    /// Bytes of the packs that were written for it; only of a base.
    pub new_bytes: u64,
    /// The cluster whose records these are.
    pub cluster: ClusterId,
    /// The member that gave them; 0 where that is not known.
    pub member: MemberId,
    /// That member's version, at most 16 bytes; empty where it is not known.
    pub etcd: String,
    /// Records that belonged to it were erased on demand; only of a base or a segment.
    pub erased: bool,
}

/// A header whose checksum is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it says.
    pub facts: Facts,
    /// `FLAG_*` bits.
    pub flags: u8,
    /// Of the keys that the body is sealed to; [`Generation::NONE`] where it is not.
    pub generation: Generation,
    /// Bytes of the body as stored.
    pub body_bytes: u64,
    /// BLAKE3 of the body as stored.
    pub body_digest: [u8; DIGEST],
}

/// Most bytes of a header.
pub const HEADER_MAX: usize = at::END + SIGNATURE;

impl Facts {
    /// Digest of the facts, with which an unsealed body begins. `flags` and `generation` are those of
    /// the header; what the facts say of themselves need not be among the flags.
    #[must_use]
    pub fn digest(&self, flags: u8, generation: Generation) -> [u8; DIGEST] {
        Domain::Facts.digest(&[&self.encode(flags, generation)])
    }

    /// The first bytes of a header.
    fn encode(&self, flags: u8, generation: Generation) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_MAX);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(self.kind as u8);
        out.push(flags | if self.erased { FLAG_ERASED } else { 0 });
        out.extend_from_slice(&generation.0.to_le_bytes());
        out.extend_from_slice(&self.archive.0);
        out.extend_from_slice(&self.timeline.0);
        out.extend_from_slice(&self.id.0);
        let compact = self.compact.map_or(-1, Revision::get);
        for number in [self.first.get(), self.last.get(), compact] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.term.0, self.index.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for moment in [self.state, self.ended] {
            out.extend_from_slice(&moment.0.to_le_bytes());
        }
        let counts = [self.records, self.keys, self.logical_bytes, self.new_bytes];
        for number in counts.into_iter().chain([self.cluster.0, self.member.0]) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let etcd = self.etcd.bytes().chain(std::iter::repeat(0));
        out.extend(etcd.take(at::BODY - at::ETCD));
        out
    }
}

/// Bytes of a header, but for a signature.
#[must_use]
pub fn encode(
    facts: &Facts,
    flags: u8,
    generation: Generation,
    body_bytes: u64,
    body_digest: &[u8; DIGEST],
) -> Vec<u8> {
    let mut out = facts.encode(flags, generation);
    out.extend_from_slice(&body_bytes.to_le_bytes());
    out.extend_from_slice(body_digest);
    let checksum = Domain::Header.digest(&[&out]);
    out.extend_from_slice(&checksum);
    out
}

/// Bytes of a header with these flags, and of the signature where they say that there is one.
#[must_use]
pub fn size(flags: u8) -> usize {
    at::END + if flags & FLAG_SIGNED != 0 { SIGNATURE } else { 0 }
}

impl Header {
    /// Reads the header at the start of an object, or of its first [`HEADER_MAX`] bytes.
    ///
    /// # Errors
    /// Whatever no writer of a version up to [`VERSION`] writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatFault> {
        let ends = FormatFault::Ends { what: "its header" };
        if !bytes.starts_with(&MAGIC) {
            let short = MAGIC.starts_with(bytes) && !bytes.is_empty();
            return Err(if short { ends } else { FormatFault::NotOurs });
        }
        let field = Fields(bytes);
        let version = u16::from_le_bytes(field.array(at::VERSION)?);
        if version != VERSION {
            return Err(FormatFault::Version { got: version });
        }
        let head = bytes.get(..at::CHECKSUM).ok_or(ends)?;
        if Domain::Header.digest(&[head]) != field.array(at::CHECKSUM)? {
            return Err(FormatFault::Digest { what: "its header" });
        }
        let [flags] = field.array(at::FLAGS)?;
        if flags & !(FLAG_SEALED | FLAG_SIGNED | FLAG_ERASED) != 0 {
            return Err(FormatFault::Flags { got: flags });
        }
        let generation = Generation(u32::from_le_bytes(field.array(at::GENERATION)?));
        if (flags & FLAG_SEALED == 0) != (generation == Generation::NONE) {
            return Err(FormatFault::Senseless { what: "the generation of its keys" });
        }
        Ok(Self {
            facts: field.facts()?,
            flags,
            generation,
            body_bytes: field.u64(at::BODY)?,
            body_digest: field.array(at::BODY_DIGEST)?,
        })
    }

    /// Bytes of the header itself, and of its signature.
    #[must_use]
    pub fn size(&self) -> usize {
        size(self.flags)
    }

    /// What a signature signs, and the signature, of an object that begins with this header; none
    /// where the flags say that it has none, or where it ends before.
    #[must_use]
    pub fn signature<'a>(&self, object: &'a [u8]) -> Option<(&'a [u8], &'a [u8; SIGNATURE])> {
        let (signed, rest) = object.split_at_checked(at::END)?;
        let signature = rest.first_chunk()?;
        (self.flags & FLAG_SIGNED != 0).then_some((signed, signature))
    }

    /// The body of an object that begins with this header, whole and unchanged.
    ///
    /// # Errors
    /// It is shorter or longer than the header says, or its digest is another.
    pub fn body<'a>(&self, object: &'a [u8]) -> Result<&'a [u8], FormatFault> {
        let body = object.get(self.size()..).unwrap_or_default();
        let have = body.len() as u64;
        if have < self.body_bytes {
            return Err(FormatFault::Ends { what: "its body" });
        }
        if have > self.body_bytes {
            let extra = usize::try_from(have - self.body_bytes).unwrap_or(usize::MAX);
            return Err(FormatFault::Extra { what: "its body", extra });
        }
        if Domain::Body.digest(&[body]) != self.body_digest {
            return Err(FormatFault::Digest { what: "its body" });
        }
        Ok(body)
    }

    /// What an unsealed body holds, once it is shown to belong to this header.
    ///
    /// # Errors
    /// [`FormatFault::Foreign`].
    pub fn content<'a>(&self, unsealed: &'a [u8]) -> Result<&'a [u8], FormatFault> {
        let (digest, content) =
            unsealed.split_first_chunk::<DIGEST>().ok_or(FormatFault::Ends { what: "its body" })?;
        if *digest != self.facts.digest(self.flags, self.generation) {
            return Err(FormatFault::Foreign);
        }
        Ok(content)
    }
}

/// Fields by their place.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], FormatFault> {
        let found = self.0.get(at..).and_then(<[u8]>::first_chunk);
        found.copied().ok_or(FormatFault::Ends { what: "its header" })
    }

    fn u64(&self, at: usize) -> Result<u64, FormatFault> {
        self.array(at).map(u64::from_le_bytes)
    }

    fn i64(&self, at: usize) -> Result<i64, FormatFault> {
        self.array(at).map(i64::from_le_bytes)
    }

    fn revision(&self, at: usize) -> Result<Revision, FormatFault> {
        Revision::new(self.i64(at)?).ok_or(FormatFault::Senseless { what: "a revision" })
    }

    fn facts(&self) -> Result<Facts, FormatFault> {
        let senseless = |what| FormatFault::Senseless { what };
        let [kind] = self.array(at::KIND)?;
        let compact = match self.i64(at::COMPACT)? {
            -1 => None,
            number => Some(Revision::new(number).ok_or(senseless("the compact revision"))?),
        };
        let etcd: [u8; at::BODY - at::ETCD] = self.array(at::ETCD)?;
        let length = etcd.iter().position(|byte| *byte == 0).unwrap_or(etcd.len());
        let (etcd, zeros) = etcd.split_at(length);
        let etcd = std::str::from_utf8(etcd)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(senseless("the etcd version"));
        }
        let (kind, [flags]) = (Kind::of(kind)?, self.array(at::FLAGS)?);
        let (first, last) = (self.revision(at::FIRST)?, self.revision(at::LAST)?);
        // A segment without a record begins behind its end.
        let is_empty =
            kind == Kind::Segment && self.u64(at::RECORDS)? == 0 && last.later(1) == Some(first);
        if first > last && !is_empty {
            return Err(senseless("the span of revisions"));
        }
        let erased = flags & FLAG_ERASED != 0;
        if erased && !matches!(kind, Kind::Base | Kind::Segment) {
            return Err(FormatFault::Flags { got: flags });
        }
        Ok(Facts {
            kind,
            archive: ArchiveId(self.array(at::ARCHIVE)?),
            timeline: TimelineId(self.array(at::TIMELINE)?),
            id: ObjectId(self.array(at::ID)?),
            first,
            last,
            compact,
            term: RaftTerm(self.u64(at::TERM)?),
            index: RaftIndex(self.u64(at::INDEX)?),
            state: Moment(self.i64(at::STATE)?),
            ended: Moment(self.i64(at::ENDED)?),
            records: self.u64(at::RECORDS)?,
            keys: self.u64(at::KEYS)?,
            logical_bytes: self.u64(at::LOGICAL)?,
            new_bytes: self.u64(at::NEW)?,
            cluster: ClusterId(self.u64(at::CLUSTER)?),
            member: MemberId(self.u64(at::MEMBER)?),
            etcd: etcd.ok_or(senseless("the etcd version"))?.to_owned(),
            erased,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn some_facts(kind: Kind) -> Facts {
        let revision = |number| Revision::new(number).unwrap();
        Facts {
            kind,
            archive: ArchiveId([1; 16]),
            timeline: TimelineId([2; 16]),
            id: ObjectId([3; 16]),
            first: revision(3),
            last: revision(1 << 40),
            compact: Some(revision(77)),
            term: RaftTerm(4),
            index: RaftIndex(5),
            state: Moment(1_790_000_000_000),
            ended: Moment(1_790_000_001_234),
            records: 6,
            keys: 7,
            logical_bytes: 8,
            new_bytes: 9,
            cluster: ClusterId(10),
            member: MemberId(11),
            etcd: "3.6.16".to_owned(),
            erased: false,
        }
    }

    fn an_object(facts: &Facts, content: &[u8], flags: u8) -> Vec<u8> {
        let generation = Generation(if flags & FLAG_SEALED == 0 { 0 } else { 3 });
        let body = [&facts.digest(flags, generation)[..], content].concat();
        let digest = Domain::Body.digest(&[&body]);
        let mut object = encode(facts, flags, generation, body.len() as u64, &digest);
        object.extend([9; SIGNATURE].iter().filter(|_| flags & FLAG_SIGNED != 0));
        object.extend(body);
        object
    }

    /// The table in the head, and the one in FORMAT.md.
    #[test]
    fn tables_are_the_constants() {
        let rest = [
            (at::CHECKSUM, DIGEST, "BLAKE3 of all before"),
            (at::END, SIGNATURE, "Ed25519 signature, where the flag says so"),
        ];
        let rows: Vec<Row> = at::TABLE.into_iter().chain(rest).collect();
        let head = rows.iter().map(|(at, len, name)| format!("//!  {at:3}  {len:2}  {name}\n"));
        let head: String = head.collect();
        assert!(include_str!("header.rs").contains(&head), "{head}");
        let doc = rows.iter().map(|(at, len, name)| format!("| {at} | {len} | {name} |\n"));
        let doc: String = doc.collect();
        assert!(include_str!("../../../../FORMAT.md").contains(&doc), "{doc}");
        let end = rows.iter().fold(0, |end, (at, len, name)| {
            assert_eq!(*at, end, "{name}");
            at + len
        });
        assert_eq!(end, HEADER_MAX);
    }

    #[test]
    fn what_is_written_is_read() {
        let without = Facts { compact: None, etcd: String::new(), ..some_facts(Kind::Segment) };
        let long = Facts { etcd: "3.6.16-rc.12+gke".to_owned(), ..some_facts(Kind::Pack) };
        let erased = Facts { erased: true, ..some_facts(Kind::Base) };
        for facts in [some_facts(Kind::Base), erased, without, long] {
            for flags in [0, FLAG_SEALED, FLAG_SIGNED] {
                let object = an_object(&facts, b"content", flags);
                let header = Header::parse(&object).unwrap();
                let flags = flags | if facts.erased { FLAG_ERASED } else { 0 };
                assert_eq!((&header.facts, header.flags), (&facts, flags));
                let body = header.body(&object).unwrap();
                assert_eq!(header.content(body).unwrap(), b"content");
            }
        }
    }

    /// Whatever is changed, something says so.
    #[test]
    fn no_bit_of_an_object_can_be_changed() {
        let facts = some_facts(Kind::Base);
        let object = an_object(&facts, b"content", 0);
        let read = |object: &[u8]| {
            let header = Header::parse(object)?;
            Ok::<_, FormatFault>(header.content(header.body(object)?)?.to_vec())
        };
        assert_eq!(read(&object).unwrap(), b"content");
        for bit in 0..object.len() * 8 {
            let mut changed = object.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let fault = read(&changed).unwrap_err();
            let want = match bit / 8 {
                0..at::VERSION => matches!(fault, FormatFault::NotOurs),
                at::VERSION..at::KIND => matches!(fault, FormatFault::Version { .. }),
                at::KIND..at::END => fault == FormatFault::Digest { what: "its header" },
                _ => fault == FormatFault::Digest { what: "its body" },
            };
            assert!(want, "bit {bit}: {fault}");
        }
        for length in 0..object.len() {
            let fault = read(&object[..length]).unwrap_err();
            let want = matches!(fault, FormatFault::Ends { .. }) || length == 0;
            assert!(want, "{length} bytes: {fault}");
        }
        let extra = FormatFault::Extra { what: "its body", extra: 1 };
        assert_eq!(read(&[&object[..], &[0]].concat()).unwrap_err(), extra);
    }

    /// With a good checksum: only somebody who makes headers on purpose can do that.
    #[test]
    fn what_a_header_may_not_say() {
        let check = |change: fn(&mut Vec<u8>), want: FormatFault| {
            let mut bytes = an_object(&some_facts(Kind::Base), b"", 0);
            change(&mut bytes);
            let checksum = Domain::Header.digest(&[&bytes[..at::CHECKSUM]]);
            bytes[at::CHECKSUM..at::END].copy_from_slice(&checksum);
            assert_eq!(Header::parse(&bytes).unwrap_err(), want);
        };
        let senseless = |what| FormatFault::Senseless { what };
        check(|b| b[at::VERSION] = 2, FormatFault::Version { got: 2 });
        check(|b| b[at::KIND] = 0, FormatFault::UnknownKind { got: 0 });
        check(|b| b[at::KIND] = 99, FormatFault::UnknownKind { got: 99 });
        check(|b| b[at::FLAGS] = 8, FormatFault::Flags { got: 8 });
        let an_erased_pack = |b: &mut Vec<u8>| {
            b[at::KIND] = Kind::Pack as u8;
            b[at::FLAGS] = FLAG_ERASED;
        };
        check(an_erased_pack, FormatFault::Flags { got: FLAG_ERASED });
        check(|b| b[at::GENERATION] = 1, senseless("the generation of its keys"));
        check(|b| b[at::FLAGS] = FLAG_SEALED, senseless("the generation of its keys"));
        check(|b| b[at::FIRST + 7] = 0x80, senseless("a revision"));
        check(|b| b[at::COMPACT + 7] = 0x80, senseless("the compact revision"));
        check(|b| b[at::ETCD] = 0, senseless("the etcd version"));
        check(|b| b[at::ETCD] = 0xff, senseless("the etcd version"));
        check(|b| b[at::ETCD] = 0x1b, senseless("the etcd version"));
        check(|b| b[at::FIRST + 6] = 1, senseless("the span of revisions"));
    }

    #[test]
    fn a_body_under_another_header_is_foreign() {
        let facts = some_facts(Kind::Pack);
        let object = an_object(&facts, b"content", 0);
        let body = &object[at::END..];
        let other = Facts { records: 99, ..facts };
        let digest = Domain::Body.digest(&[body]);
        let header = encode(&other, 0, Generation::NONE, body.len() as u64, &digest);
        let swapped = [&header[..], body].concat();
        let header = Header::parse(&swapped).unwrap();
        let body = header.body(&swapped).unwrap();
        assert_eq!(header.content(body), Err(FormatFault::Foreign));
    }
}
