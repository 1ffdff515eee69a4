//! What a capture makes of a Kubernetes cluster's updates, beside what they are as gzipped JSON.

use crate::{Failure, WITNESS, start};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, Change, Cutter, Journal, LogWriter, Merging, Policy, PruneRequest, plan_prune,
};
use rekindle_etcd::KeyValue;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// As a capture flushes by default, in milliseconds.
const FLUSH: i64 = 5_000;
/// What is one file of JSON.
const FILE: i64 = 20_000;
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// Bytes of some updates.
#[derive(Default)]
struct Bytes {
    updates: u64,
    /// As they were written every few seconds.
    flushed: u64,
    json: u64,
    gzipped: u64,
}

/// A capture, as far as it writes.
struct Capture {
    cutter: Cutter,
    journal: Journal,
    writer: LogWriter,
    merging: Merging,
    bytes: Bytes,
    /// The file of JSON that is being written.
    file: String,
}

/// Writes the records of files, one a minute, into the log of an empty archive; what they come to there.
pub(crate) fn run(archive: &Archive, spool: &Path, minutes: &[String]) -> Result<String, Failure> {
    let (writer, next) = start(archive, 1)?;
    let journal = Journal::open(spool, 1 << 30, Moment(0))?;
    let (cutter, merging) = (Cutter::new(next), Merging::default());
    let (bytes, file) = (Bytes::default(), String::new());
    let mut capture = Capture { cutter, journal, writer, merging, bytes, file };
    for (minute, path) in (1..).zip(minutes) {
        let records = std::fs::read(path)?;
        let records = split(&records)?;
        let (count, mut last) = (i64::try_from(records.len())?, minute * MINUTE);
        for (number, record) in (0..).zip(records) {
            let at = minute * MINUTE + number * MINUTE / count;
            capture.pass(last, at)?;
            capture.tell(&record, Moment(at))?;
            last = at;
        }
        capture.pass(last, (minute + 1) * MINUTE)?;
    }
    capture.merge(Moment(i64::MAX / 2))?;
    let log = living(archive, i64::try_from(minutes.len())? * MINUTE)?;
    let Bytes { updates, flushed, json, gzipped } = capture.bytes;
    Ok(format!(
        "{{\"updates\": {updates}, \"flushedBytes\": {flushed}, \"logBytes\": {log}, \
         \"jsonBytes\": {json}, \"gzippedBytes\": {gzipped}}}"
    ))
}

/// The values of records as etcd stores them, 4 bytes of length before each.
fn split(mut bytes: &[u8]) -> Result<Vec<KeyValue<'_>>, Failure> {
    let mut records = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        let (record, rest) = rest.split_at_checked(len).ok_or("a record that is cut off")?;
        records.push(KeyValue::parse(record)?);
        bytes = rest;
    }
    Ok(records)
}

impl Capture {
    /// The time goes from one moment to another.
    fn pass(&mut self, from: i64, to: i64) -> Result<(), Failure> {
        let passes = |length: i64| from.div_euclid(length) != to.div_euclid(length);
        if passes(FLUSH) && self.cutter.bytes() > 0 {
            let (cut, now) = (self.cutter.cut(WITNESS, Moment(from))?, Moment(to));
            self.journal.add(&cut)?;
            let written = self.writer.append(&cut, now)?;
            self.bytes.flushed += written.bytes;
            let kept = self.journal.newest().ok_or("it was kept")?.clone();
            self.merging.wrote(kept, written);
            self.merge(now)?;
        }
        if passes(FILE) && !self.file.is_empty() {
            let json = format!("[{}]", std::mem::take(&mut self.file));
            self.bytes.json += json.len() as u64;
            self.bytes.gzipped += gzipped(json)?;
        }
        Ok(())
    }

    fn merge(&mut self, now: Moment) -> Result<(), Failure> {
        while let Some(merge) = self.merging.due(now) {
            let merged = self.writer.merger().merge(&merge, || now)?;
            self.merging.done(&merge, Ok(merged), now);
        }
        Ok(())
    }

    fn tell(&mut self, record: &KeyValue<'_>, at: Moment) -> Result<(), Failure> {
        let is_delete = record.create_revision == 0;
        // Those that were written down are reckoned, and not all there.
        let revision = self.cutter.next().get();
        let kv = KeyValue { create_revision: revision, mod_revision: revision, ..*record };
        self.bytes.updates += 1;
        let comma = if self.file.is_empty() { "" } else { "," };
        self.file += &format!("{comma}{}", json(&kv, is_delete, at));
        Ok(self.cutter.add(&[Change { kv, is_delete }], at)?)
    }
}

/// An update as etcdbrctl writes it: Go's JSON of an event of etcd's client.
fn json(kv: &KeyValue<'_>, is_delete: bool, at: Moment) -> String {
    let r#type = if is_delete { "\"type\":1," } else { "" };
    let key = BASE64_STANDARD.encode(kv.key);
    let rest = match is_delete {
        true => format!("\"mod_revision\":{}", kv.mod_revision),
        false => format!(
            "\"create_revision\":{},\"mod_revision\":{},\"version\":{},\"value\":\"{}\"",
            kv.create_revision,
            kv.mod_revision,
            kv.version,
            BASE64_STANDARD.encode(kv.value)
        ),
    };
    format!(
        "{{\"etcdEvent\":{{{type}\"kv\":{{\"key\":\"{key}\",{rest}}}}},\"time\":\"{}\"}}",
        jiff::Timestamp::from_millisecond(at.0).unwrap_or_default()
    )
}

/// Bytes of a file after gzip, at its own level.
fn gzipped(json: String) -> Result<u64, Failure> {
    let mut gzip = Command::new("gzip");
    let mut gzip = gzip.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = gzip.stdin.take().ok_or("gzip has an input")?;
    let writing = std::thread::spawn(move || input.write_all(json.as_bytes()));
    let mut packed = Vec::new();
    gzip.stdout.take().ok_or("gzip has an output")?.read_to_end(&mut packed)?;
    writing.join().map_err(|_| "writing failed")??;
    match gzip.wait()?.success() {
        true => Ok(packed.len() as u64),
        false => Err("gzip failed".into()),
    }
}

/// Bytes of the log when what was merged is gone.
fn living(archive: &Archive, end: i64) -> Result<u64, Failure> {
    for days in 1..=3 {
        let policy = Policy { log: Some(1000 * DAY), last: 1, ..Policy::default() };
        let now = Moment(end + days * DAY);
        let request = PruneRequest { policy, bases_max: 10, grace: 1, now };
        plan_prune(archive, &request)?.carry_out(archive)?;
    }
    let listed = archive.store().list("timelines")?;
    let segments = listed.iter().filter(|found| found.name.ends_with(".seg"));
    Ok(segments.map(|found| found.bytes).sum())
}
