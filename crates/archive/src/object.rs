//! Whole objects: a header and its body, put together and taken apart.

use crate::archive::Archive;
use crate::error::Error;
use crate::format::block::{self, Entry};
use crate::format::header::{self, FLAG_SEALED, FLAG_SIGNED, Facts, Header};
use crate::format::run::Run;
use crate::format::segment::{self, Notes};
use crate::format::{DIGEST, Domain, FormatFault, Kind, ObjectId};
use crate::keys::{self, Unopened};
use bytes::Bytes;
use rekindle_etcd::{RecordKey, Revision};
use std::ops::Range;

/// An object that was put together.
pub(crate) struct Built {
    pub bytes: Vec<u8>,
    pub body_digest: [u8; DIGEST],
}

/// An object that was read and whose digests were compared.
pub(crate) struct Opened {
    pub header: Header,
    pub content: Bytes,
}

/// The bytes of an object of this archive with this content, sealed and signed as the archive's are.
/// That takes public keys only, and a signing key where signatures are demanded.
pub(crate) fn build(archive: &Archive, facts: &Facts, content: &[u8]) -> Result<Built, Error> {
    archive.check_writable()?;
    let keys = archive.keys();
    let (flags, generation) = keys.marks();
    let size = header::size(flags);
    let facts_digest = facts.digest(flags, generation);
    // The body is put where it belongs at once: it may have many megabytes.
    let mut bytes = vec![0; size];
    match &keys.newest().recipient {
        Some(recipient) => {
            let to = std::slice::from_ref(recipient);
            keys::seal(to, &[&facts_digest, content], &mut bytes)
                .map_err(|cause| Error::Sealing { what: "a body", cause })?;
        }
        None => {
            bytes.reserve_exact(facts_digest.len() + content.len());
            bytes.extend_from_slice(&facts_digest);
            bytes.extend_from_slice(content);
        }
    }
    let body = bytes.get(size..).unwrap_or_default();
    let (body_bytes, body_digest) = (body.len() as u64, Domain::Body.digest(&[body]));
    let mut head = header::encode(facts, flags, generation, body_bytes, &body_digest);
    if let (FLAG_SIGNED, Some(key)) = (flags & FLAG_SIGNED, &keys.signing) {
        let signature = key.sign(&head);
        head.extend_from_slice(&signature);
    }
    bytes.iter_mut().zip(head).for_each(|(byte, of_head)| *byte = of_head);
    Ok(Built { bytes, body_digest })
}

/// Reads the object that lies at `name` (with its place), which must be of this kind and archive. Bytes
/// that nobody else has are unsealed where they lie.
pub(crate) fn open(
    archive: &Archive,
    name: &str,
    want: Kind,
    bytes: Bytes,
) -> Result<Opened, Error> {
    let damaged = |fault| Error::damaged(name, fault);
    let header = parse(archive, name, want, &bytes)?;
    let body = bytes.slice_ref(header.body(&bytes).map_err(damaged)?);
    drop(bytes);
    let body = match header.flags & FLAG_SEALED {
        0 => body,
        _ => unsealed(archive, name, &header, body)?,
    };
    let content = body.slice_ref(header.content(&body).map_err(damaged)?);
    Ok(Opened { header, content })
}

/// A pack or a segment that was opened.
pub(crate) struct OpenedRun {
    pub header: Header,
    /// Of a segment.
    pub notes: Notes,
    pub run: Run,
    /// Of the run.
    pub content: Bytes,
}

impl OpenedRun {
    /// The records of one of its blocks.
    pub(crate) fn records(
        &self,
        range: &Range<usize>,
        entry: &Entry,
    ) -> Result<block::Records, FormatFault> {
        Run::open(&self.content, range, entry)
    }

    /// The records of some of its revisions, in their order.
    pub(crate) fn within(&self, first: Revision, last: Revision) -> Within<'_> {
        let blocks = self.run.blocks().collect::<Vec<_>>().into_iter();
        Within { opened: self, blocks, current: None, first, last }
    }
}

/// The records of some revisions of a run.
pub(crate) struct Within<'a> {
    opened: &'a OpenedRun,
    blocks: std::vec::IntoIter<(Range<usize>, &'a Entry)>,
    current: Option<block::Records>,
    first: Revision,
    last: Revision,
}

impl Within<'_> {
    /// The next one; its value is [`Self::value`].
    pub(crate) fn advance(&mut self) -> Result<Option<RecordKey>, FormatFault> {
        loop {
            if let Some(key) = self.current.as_mut().and_then(block::Records::advance) {
                match key.revision {
                    revision if revision < self.first => continue,
                    revision if revision > self.last => return Ok(None),
                    _ => return Ok(Some(key)),
                }
            }
            let needed = self.blocks.find(|(_, entry)| entry.last.revision >= self.first);
            let Some((range, entry)) = needed else { return Ok(None) };
            self.current = Some(self.opened.records(&range, entry)?);
        }
    }

    /// Of the record that was told last.
    pub(crate) fn value(&self) -> &[u8] {
        self.current.as_ref().map(block::Records::value).unwrap_or_default()
    }
}

/// Reads the pack or the segment that lies at `name` (with its place).
pub(crate) fn open_run(
    archive: &Archive,
    name: &str,
    kind: Kind,
    bytes: Bytes,
) -> Result<OpenedRun, Error> {
    let damaged = |fault| Error::damaged(name, fault);
    let Opened { header, content } = open(archive, name, kind, bytes)?;
    let (notes, content) = match kind {
        Kind::Segment => {
            let (notes, run) = segment::parse(&content).map_err(damaged)?;
            (notes, content.slice_ref(run))
        }
        _ => (Notes::default(), content),
    };
    let run = Run::parse(&content, &header.facts).map_err(damaged)?;
    Ok(OpenedRun { header, notes, run, content })
}

/// Reads the segment with this name in the archive, which has so many bytes.
pub(crate) fn read_segment(archive: &Archive, name: &str, bytes: u64) -> Result<OpenedRun, Error> {
    let store = archive.store();
    let read = store.read(name, bytes)?;
    open_run(archive, &store.full_name(name), Kind::Segment, read)
}

fn unsealed(archive: &Archive, name: &str, header: &Header, body: Bytes) -> Result<Bytes, Error> {
    let identity = archive.keys().secret(name, header.generation)?;
    keys::unseal_body(identity, body).map_err(|unopened| {
        let cause = match unopened {
            Unopened::NotOurs => "it is sealed to another".to_owned(),
            Unopened::Damaged(cause) => cause,
        };
        Error::damaged(name, FormatFault::Sealed { cause })
    })
}

/// The header of the object that lies at `name`, which must be of this kind and archive, and sealed and
/// signed as the archive's are. `bytes` are the first of the object: header and signature at least.
pub(crate) fn parse(
    archive: &Archive,
    name: &str,
    want: Kind,
    bytes: &[u8],
) -> Result<Header, Error> {
    let header = Header::parse(bytes).map_err(|fault| Error::damaged(name, fault))?;
    let got = header.facts.kind;
    if got != want {
        return Err(Error::damaged(name, FormatFault::Kind { got, want }));
    }
    let id = header.facts.id;
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    if !stem.ends_with(&id.to_string()) {
        return Err(Error::Stranger {
            object: name.to_owned(),
            got: format!("the name {id}"),
            want: "this one".to_owned(),
        });
    }
    if header.facts.archive != archive.id() {
        return Err(Error::Stranger {
            object: name.to_owned(),
            got: format!("archive {}", header.facts.archive),
            want: format!("archive {}", archive.id()),
        });
    }
    archive.keys().check(name, &header, bytes)?;
    Ok(header)
}

/// A name that nothing else has.
pub(crate) fn random_id() -> Result<ObjectId, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::Machine {
        what: "asking the machine for randomness",
        cause: error.to_string(),
    })?;
    Ok(ObjectId(bytes))
}
