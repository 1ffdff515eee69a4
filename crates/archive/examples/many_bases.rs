//! Makes an archive with many bases, to measure listings with: `many_bases DIRECTORY COUNT`.
//!
//! Their headers are whole, one an hour; they hold nothing. They are written as plain files: a store
//! would sync each.

use rekindle_archive::format::base::Base;
use rekindle_archive::format::header::{self, Moment};
use rekindle_archive::format::{Domain, Facts, Generation, Kind, ObjectId, TimelineId};
use rekindle_archive::{Archive, Store};
use rekindle_etcd::{ClusterId, MemberId, RaftIndex, RaftTerm, Revision};
use std::error::Error;
use std::fs;
use std::path::Path;

const HOUR: i64 = 3_600_000;
const REVISIONS_PER_HOUR: i64 = 36_000;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [directory, count] = &args[..] else { return Err("many_bases DIRECTORY COUNT".into()) };
    fs::create_dir_all(directory)?;
    let archive = Archive::init_unencrypted(Store::directory(Path::new(directory))?, Moment(0))?;
    let (parts, frame) = (Vec::new(), Vec::new());
    let base = Base { hash: 0, kubernetes: true, erased: 0, parts, frame }.encode()?;
    let timeline = TimelineId([1; 16]);
    let bases = Path::new(directory).join(format!("timelines/{timeline}/bases"));
    fs::create_dir_all(&bases)?;
    for number in 1..=count.parse()? {
        let facts = facts(&archive, timeline, number)?;
        let Facts { last, index, id, .. } = facts;
        let name = format!("{:020}-{:020}-{id}.base", last.get(), index.0);
        fs::write(bases.join(name), object(&facts, &base))?;
    }
    Ok(())
}

fn facts(archive: &Archive, timeline: TimelineId, number: u32) -> Result<Facts, Box<dyn Error>> {
    let last = i64::from(number) * REVISIONS_PER_HOUR;
    let mut id = [0; 16];
    id.iter_mut().zip(Domain::Facts.digest(&[&number.to_le_bytes()])).for_each(|(to, of)| *to = of);
    Ok(Facts {
        kind: Kind::Base,
        archive: archive.id(),
        timeline,
        id: ObjectId(id),
        first: Revision::default(),
        last: Revision::new(last).ok_or("too many bases")?,
        compact: Revision::new(last - REVISIONS_PER_HOUR / 12),
        term: RaftTerm(2),
        index: RaftIndex(u64::from(number) * 40_000),
        state: Moment(i64::from(number) * HOUR),
        ended: Moment(i64::from(number) * HOUR + 10_000),
        records: 100_000,
        keys: 90_000,
        logical_bytes: 500_000_000,
        new_bytes: 5_000_000,
        cluster: ClusterId(1),
        member: MemberId(1),
        etcd: "3.6.16".to_owned(),
        erased: false,
    })
}

/// The base as it is stored, not sealed.
fn object(facts: &Facts, base: &[u8]) -> Vec<u8> {
    let body = [&facts.digest(0, Generation::NONE)[..], base].concat();
    let digest = Domain::Body.digest(&[&body]);
    let mut object = header::encode(facts, 0, Generation::NONE, body.len() as u64, &digest);
    object.extend_from_slice(&body);
    object
}
