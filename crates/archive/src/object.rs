//! Whole objects: a header and its body, put together and taken apart.

use crate::error::Error;
use crate::format::header::{self, Facts, Header};
use crate::format::{ArchiveId, DIGEST, Domain, FormatFault, Kind, ObjectId};

/// Neither sealed nor signed, as all objects are so far.
const PLAIN: u8 = 0;

/// The bytes of an object with this content.
pub(crate) fn build(facts: &Facts, content: &[u8]) -> Built {
    let facts_digest = facts.digest(PLAIN);
    let body_digest = Domain::Body.digest(&[&facts_digest, content]);
    let body_bytes = (facts_digest.len() + content.len()) as u64;
    let mut bytes = header::encode(facts, PLAIN, body_bytes, &body_digest);
    bytes.reserve_exact(facts_digest.len() + content.len());
    bytes.extend_from_slice(&facts_digest);
    bytes.extend_from_slice(content);
    Built { bytes, body_digest }
}

/// An object that was put together.
pub(crate) struct Built {
    pub bytes: Vec<u8>,
    pub body_digest: [u8; DIGEST],
}

/// An object that was read and whose digests were compared.
pub(crate) struct Opened<B> {
    pub header: Header,
    bytes: B,
    /// Where the content begins.
    start: usize,
}

impl<B: AsRef<[u8]>> Opened<B> {
    /// Reads the object that lies at `name`, which must be of this kind and archive.
    pub(crate) fn new(name: &str, want: Kind, archive: ArchiveId, bytes: B) -> Result<Self, Error> {
        let damaged = |fault| Error::damaged(name, fault);
        let object = bytes.as_ref();
        let header = parse(name, want, archive, object)?;
        let body = header.body(object).map_err(damaged)?;
        let content = header.content(body).map_err(damaged)?;
        let start = object.len() - content.len();
        Ok(Self { header, bytes, start })
    }

    pub(crate) fn content(&self) -> &[u8] {
        self.bytes.as_ref().get(self.start..).unwrap_or_default()
    }
}

/// The header of the object that lies at `name`, which must be of this kind and archive.
pub(crate) fn parse(
    name: &str,
    want: Kind,
    archive: ArchiveId,
    bytes: &[u8],
) -> Result<Header, Error> {
    let header = Header::parse(bytes).map_err(|fault| Error::damaged(name, fault))?;
    let got = header.facts.kind;
    if got != want {
        return Err(Error::damaged(name, FormatFault::Kind { got, want }));
    }
    let not_yet = [(header::FLAG_SEALED, "sealed"), (header::FLAG_SIGNED, "signed")];
    if let Some((_, what)) = not_yet.into_iter().find(|(flag, _)| header.flags & flag != 0) {
        return Err(Error::damaged(name, FormatFault::NotYet { what }));
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
    if header.facts.archive != archive {
        return Err(Error::Stranger {
            object: name.to_owned(),
            got: format!("archive {}", header.facts.archive),
            want: format!("archive {archive}"),
        });
    }
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
