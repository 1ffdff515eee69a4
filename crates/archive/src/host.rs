//! Files of hosts, kept beside the timelines: always sealed.

use crate::archive::Archive;
use crate::error::Error;
use crate::format::files::{FILES_MAX, Files, is_host};
use crate::format::header::{Facts, HEADER_MAX, Moment};
use crate::format::{FormatFault, Kind, TimelineId};
use crate::names;
use crate::object;
use crate::store::Listed;
use rekindle_etcd::{ClusterId, MemberId, RaftIndex, RaftTerm, Revision};
use std::collections::BTreeMap;

/// How they are compressed: a host has few.
const LEVEL: i32 = 9;

/// What was kept of a host at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesEntry {
    /// The object's name.
    pub name: String,
    /// Bytes of the object.
    pub bytes: u64,
    /// The host, as the name says; the content says it, too.
    pub host: String,
    /// When it was so.
    pub at: Moment,
    /// Files, directories and links.
    pub count: u64,
    /// Bytes before compression.
    pub logical_bytes: u64,
}

impl Archive {
    /// Keeps what there is of a host; the object's name.
    ///
    /// # Errors
    /// [`Error::FilesUnsealed`] where the archive is not encrypted; [`Error::FilesTooLarge`]; [`Error::Store`].
    pub fn add_files(&self, files: &Files, now: Moment) -> Result<String, Error> {
        if !self.is_sealed() {
            return Err(Error::FilesUnsealed { place: self.store().place().to_owned() });
        }
        if !is_host(&files.host) {
            return Err(Error::NoHost { host: files.host.clone() });
        }
        let raw = files.encode();
        // What nobody could read is not written.
        Files::parse(&raw).map_err(|fault| Error::damaged("the files of a host", fault))?;
        if raw.len() > FILES_MAX {
            return Err(Error::FilesTooLarge { max: FILES_MAX });
        }
        let facts = Facts {
            kind: Kind::Files,
            archive: self.id(),
            timeline: TimelineId([0; 16]),
            id: object::random_id()?,
            first: Revision::default(),
            last: Revision::default(),
            compact: None,
            term: RaftTerm(0),
            index: RaftIndex::default(),
            state: now,
            ended: now,
            records: files.entries.len() as u64,
            keys: 0,
            logical_bytes: raw.len() as u64,
            new_bytes: 0,
            cluster: ClusterId(0),
            member: MemberId(0),
            etcd: String::new(),
            erased: false,
        };
        let built = object::build(self, &facts, &compressed(&raw)?)?;
        let name = names::files(&files.host, facts.ended, facts.id);
        self.store().create(&name, built.bytes)?;
        Ok(name)
    }

    /// What was kept of hosts, by host and time, and names of what of it cannot be read.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn files(&self) -> Result<(Vec<FilesEntry>, Vec<String>), Error> {
        let mut listed = self.store().list(names::HOSTS)?;
        listed.retain(|found| names::parse_files(&found.name).is_some());
        let starts = self.store().read_starts(listed.clone(), HEADER_MAX as u64);
        let entry = |Listed { name, bytes }: &Listed, start: Result<bytes::Bytes, _>| {
            let full_name = self.store().full_name(name);
            let header = object::parse(self, &full_name, Kind::Files, &start.ok()?).ok()?;
            let whole = (header.size() as u64).saturating_add(header.body_bytes);
            let Facts { ended: at, records: count, logical_bytes, .. } = header.facts;
            let (host, name) = (names::parse_files(name)?.to_owned(), name.clone());
            let entry = FilesEntry { name, bytes: *bytes, host, at, count, logical_bytes };
            (whole == *bytes).then_some(entry)
        };
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        for (listed, start) in listed.into_iter().zip(starts) {
            match entry(&listed, start) {
                Some(entry) => found.push(entry),
                None => unreadable.push(listed.name),
            }
        }
        found.sort_by(|a, b| (&a.host, a.at, &a.name).cmp(&(&b.host, b.at, &b.name)));
        Ok((found, unreadable))
    }

    /// Reads what was kept; that needs an identity.
    ///
    /// # Errors
    /// [`Error::Damaged`]; [`Error::Store`]; what is wrong with the keys.
    pub fn read_files(&self, entry: &FilesEntry) -> Result<Files, Error> {
        let bytes = self.store().read(&entry.name, entry.bytes)?;
        check(self, &entry.name, bytes)
    }
}

fn compressed(raw: &[u8]) -> Result<Vec<u8>, Error> {
    use crate::format::Put;
    let mut content = Vec::new();
    content.put_varint(raw.len() as u64);
    let packed = zstd::bulk::compress(raw, LEVEL)
        .map_err(|error| Error::Machine { what: "compressing", cause: error.to_string() })?;
    content.extend(packed);
    Ok(content)
}

/// Checks an object, and reads it.
pub(crate) fn check(archive: &Archive, name: &str, bytes: bytes::Bytes) -> Result<Files, Error> {
    let full_name = archive.store().full_name(name);
    let damaged = |fault| Error::damaged(&full_name, fault);
    let opened = object::open(archive, &full_name, Kind::Files, bytes)?;
    let files = parse(&opened.content).map_err(damaged)?;
    let facts = &opened.header.facts;
    match names::files(&files.host, facts.ended, facts.id) == name {
        true => Ok(files),
        false => Err(damaged(FormatFault::Senseless { what: "its place" })),
    }
}

fn parse(content: &[u8]) -> Result<Files, FormatFault> {
    let what = "the files of a host";
    let mut cursor = crate::format::Cursor::new(content, what);
    let len = cursor.length()?;
    if len > FILES_MAX {
        return Err(FormatFault::Senseless { what });
    }
    let raw =
        zstd::bulk::decompress(cursor.rest(), len).map_err(|_| FormatFault::Senseless { what })?;
    match raw.len() == len {
        true => Files::parse(&raw),
        false => Err(FormatFault::Senseless { what }),
    }
}

/// Those that nothing speaks for any more: of each host all that are older than the newest one that was there when
/// the oldest restore point was, which is `oldest`; where there is none, all stay. The newest of a host always stays.
pub(crate) fn unneeded(listed: &[Listed], oldest: Option<Moment>) -> Vec<Listed> {
    let Some(oldest) = oldest else { return Vec::new() };
    let mut hosts: BTreeMap<&str, Vec<(Moment, &Listed)>> = BTreeMap::new();
    for found in listed {
        let parsed = names::parse_files(&found.name).zip(names::time_of_files(&found.name));
        if let Some((host, at)) = parsed {
            hosts.entry(host).or_default().push((at, found));
        }
    }
    let mut unneeded = Vec::new();
    for mut of_host in hosts.into_values() {
        of_host.sort_by_key(|(at, found)| (*at, found.name.clone()));
        let stays_from = of_host.iter().rposition(|(at, _)| *at <= oldest).unwrap_or(0);
        unneeded.extend(of_host.into_iter().take(stays_from).map(|(_, found)| found.clone()));
    }
    unneeded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ObjectId;

    #[test]
    fn what_a_restore_point_may_want_stays() {
        let listed = |host: &str, at: i64| {
            let name = names::files(host, Moment(at), ObjectId([1; 16]));
            Listed { name, bytes: 1 }
        };
        let all = [listed("a", 10), listed("a", 20), listed("a", 30), listed("b", 5)];
        let check = |oldest: Option<i64>, want: &[usize]| {
            let want: Vec<_> = want.iter().map(|at| all[*at].clone()).collect();
            assert_eq!(unneeded(&all, oldest.map(Moment)), want, "{oldest:?}");
        };
        check(Some(4), &[]);
        check(Some(19), &[]);
        check(Some(20), &[0]);
        check(Some(29), &[0]);
        check(Some(99), &[0, 1]);
        check(None, &[]);
    }
}
