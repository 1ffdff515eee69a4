//! Whole objects: a header and its body, put together and taken apart.

use crate::archive::Archive;
use crate::error::Error;
use crate::format::header::{self, Facts, Header};
use crate::format::{DIGEST, Domain, FormatFault, Kind, ObjectId};
use bytes::Bytes;

/// Neither sealed nor signed, as all objects are so far.
const PLAIN: u8 = 0;

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

/// The bytes of an object of this archive with this content.
#[expect(clippy::unnecessary_wraps, reason = "sealing will fail where there is no randomness")]
pub(crate) fn build(_archive: &Archive, facts: &Facts, content: &[u8]) -> Result<Built, Error> {
    let facts_digest = facts.digest(PLAIN);
    let body_digest = Domain::Body.digest(&[&facts_digest, content]);
    let body_bytes = (facts_digest.len() + content.len()) as u64;
    let mut bytes = header::encode(facts, PLAIN, body_bytes, &body_digest);
    bytes.reserve_exact(facts_digest.len() + content.len());
    bytes.extend_from_slice(&facts_digest);
    bytes.extend_from_slice(content);
    Ok(Built { bytes, body_digest })
}

/// Reads the object that lies at `name` (with its place), which must be of this kind and archive.
pub(crate) fn open(
    archive: &Archive,
    name: &str,
    want: Kind,
    bytes: &Bytes,
) -> Result<Opened, Error> {
    let damaged = |fault| Error::damaged(name, fault);
    let header = parse(archive, name, want, bytes)?;
    let body = header.body(bytes).map_err(damaged)?;
    let content = header.content(body).map_err(damaged)?;
    let content = bytes.slice_ref(content);
    Ok(Opened { header, content })
}

/// The header of the object that lies at `name`, which must be of this kind and archive.
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
    if header.facts.archive != archive.id() {
        return Err(Error::Stranger {
            object: name.to_owned(),
            got: format!("archive {}", header.facts.archive),
            want: format!("archive {}", archive.id()),
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
