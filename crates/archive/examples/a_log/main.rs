//! Puts a base and a log behind it into an empty archive, as a capture would, to measure with.
//!
//! - `a_log DIRECTORY KEYS UPDATES`: of values of 1 KB that do not compress, in segments as large as those that
//!   a busy capture writes.
//! - `a_log DIRECTORY --kubernetes SPOOL FILE...`: of records of Kubernetes, a minute in each file, as
//!   `crates/client/examples/kubernetes` writes them down. Prints what they come to, as JSON: `updates`;
//!   `flushedBytes`, as written every 5 s; `logBytes`, when that was merged; `jsonBytes` and `gzippedBytes` of
//!   etcdbrctl's format, 20 s in a file, without its sum.

mod kubernetes;

use rekindle_archive::format::ObjectId;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, BaseRequest, Change, Cutter, LogWriter, Origin, Progress, Store, Witness, prepare_base,
};
use rekindle_bolt::{BulkWriter, Layout};
use rekindle_etcd::{
    Backend, ClusterId, KeyValue, MemberId, RaftTerm, RecordKey, Revision, schema,
};
use rekindle_testkit::content::noise;
use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};

type Failure = Box<dyn Error>;

const PAGE: usize = 4096;
const VALUE_BYTES: usize = 1000;
/// As the capture cuts by default.
const SEGMENT_BYTES: usize = 8 << 20;
const CLUSTER: ClusterId = ClusterId(1);
const MEMBER: MemberId = MemberId(2);
const TERM: RaftTerm = RaftTerm(5);
const WITNESS: Witness = Witness { cluster: CLUSTER, member: MEMBER, term: TERM };
/// So many updates a millisecond.
const RATE: i64 = 10;

fn main() -> Result<(), Failure> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let open = |directory: &str| -> Result<Archive, Failure> {
        Ok(Archive::open(Store::directory(Path::new(directory))?)?)
    };
    match &args[..] {
        [directory, flag, spool, minutes @ ..] if flag == "--kubernetes" => {
            println!("{}", kubernetes::run(&open(directory)?, Path::new(spool), minutes)?);
            Ok(())
        }
        [directory, keys, updates] => {
            updates_of(&open(directory)?, keys.parse()?, updates.parse()?)
        }
        _ => {
            Err("a_log DIRECTORY KEYS UPDATES, or a_log DIRECTORY --kubernetes SPOOL FILE..."
                .into())
        }
    }
}

/// A base of so many keys; who writes behind it, and the next revision.
fn start(archive: &Archive, keys: i64) -> Result<(LogWriter, Revision), Failure> {
    let origin = Origin {
        cluster: CLUSTER,
        member: MEMBER,
        etcd: "3.6.16".to_owned(),
        state: Moment(0),
        current: true,
    };
    let progress = Progress { walked: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let now = || Moment(1);
    let request = BaseRequest::new(archive, &origin, &now, progress);
    let base = prepare_base(&request, &backend(keys)?)?.publish(now())?;
    let writer = archive.claim(base.facts.timeline, ObjectId([7; 16]), "bench", now())?;
    Ok((writer, revision(keys + 2)?))
}

/// Keys are updated, one after the other.
fn updates_of(archive: &Archive, keys: i64, updates: i64) -> Result<(), Failure> {
    let (mut writer, next) = start(archive, keys)?;
    let mut cutter = Cutter::new(next);
    for number in 0..updates {
        let (key, value) = (name(number % keys), value(keys + number));
        let kv = KeyValue {
            key: &key,
            value: &value,
            create_revision: number % keys + 2,
            mod_revision: keys + 2 + number,
            version: number / keys + 2,
            ..KeyValue::default()
        };
        let at = Moment(2 + number / RATE);
        cutter.add(&[Change { kv, is_delete: false }], at)?;
        if cutter.bytes() >= SEGMENT_BYTES || number + 1 == updates {
            writer.append(&cutter.cut(WITNESS, at)?, at)?;
        }
    }
    Ok(())
}

/// A database of keys of one version each.
fn backend(keys: i64) -> Result<Backend<Vec<u8>>, Failure> {
    let mut writer = BulkWriter::new(Vec::new(), Layout::new(PAGE, PAGE).ok_or("a page size")?)?;
    let mut bucket = writer.bucket(schema::KEY)?;
    for number in 0..keys {
        let (key, value) = (name(number), value(number));
        let revision = revision(number + 2)?;
        let kv = KeyValue {
            key: &key,
            value: &value,
            create_revision: revision.get(),
            mod_revision: revision.get(),
            version: 1,
            ..KeyValue::default()
        };
        bucket.put(&RecordKey::first_of(revision).to_bytes(), &kv.to_bytes())?;
    }
    writer = bucket.finish()?;
    let mut bucket = writer.bucket(schema::META)?;
    bucket.put(schema::meta::CONSISTENT_INDEX, &keys.to_be_bytes())?;
    bucket.put(schema::meta::TERM, &TERM.0.to_be_bytes())?;
    let finished = bucket.finish()?.finish()?;
    let mut bytes = finished.out;
    bytes.get_mut(..finished.metas.len()).ok_or("no meta pages")?.copy_from_slice(&finished.metas);
    Ok(Backend::open(bytes)?)
}

fn revision(number: i64) -> Result<Revision, Failure> {
    Revision::new(number).ok_or_else(|| format!("{number} is no revision").into())
}

fn name(number: i64) -> Vec<u8> {
    format!("/bench/{number:09}").into_bytes()
}

fn value(seed: i64) -> Vec<u8> {
    noise(seed.cast_unsigned(), VALUE_BYTES)
}
