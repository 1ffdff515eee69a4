//! A snapshot that becomes a base of an archive.

use super::{Checked, Saved, of_member};
use crate::archive::{Pin, now, shown, with_signing_key};
use crate::args::SaveArgs;
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use crate::source::Source;
use crate::spool::Spool;
use crate::terminal;
use rekindle_archive::{
    Archive, BaseRequest, BaseWritten, Comparison, Counts, Error, Origin, Progress, prepare_base,
};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// An archive that a base is saved into.
pub(super) struct Place {
    archive: Archive,
    pin: Pin,
    /// All records are written anew.
    full: bool,
    /// The snapshot on its way.
    pub spool: Spool,
}

impl Place {
    pub(super) fn new(archive: Archive, args: &SaveArgs) -> Result<Self, Failure> {
        // Of one archive only one save goes on at a time on this host: the second is told so.
        let spool = Spool::new(args.spool.directory(), &format!("{}.db", archive.id()))?;
        // Before anything is asked of the cluster.
        let said = crate::configured::fingerprint(args.keys.fingerprint, archive.store());
        let pin = Pin::check(spool.directory(), &archive, said)?;
        let archive = with_signing_key(archive, &args.keys)?;
        Ok(Self { archive, pin, full: args.full, spool })
    }

    /// Makes a base of the snapshot at `part`, if it is judged good. The outer failure is the
    /// snapshot's, the inner one is not.
    pub(super) fn add(
        &self,
        part: &Path,
        origin: &Origin,
        crc: u32,
        judge: &dyn Fn(&Checked) -> Result<(), Failure>,
        stop: &AtomicBool,
    ) -> Result<Result<(Checked, Base<'_>), Failure>, Failure> {
        let source = Source::open(part, None)?;
        let backend = source.backend().map_err(of_member)?;
        let facts = backend.facts().map_err(|error| of_member(error.into()))?;
        let walked = AtomicU64::new(0);
        let position = || walked.load(Ordering::Relaxed);
        let work = || {
            Ok::<_, Failure>(std::thread::scope(|threads| {
                // What is archived is what came over the wire.
                let same = threads.spawn(|| source.verify_crc(crc, stop));
                let progress = Progress { walked: &walked, stop };
                let plain = BaseRequest::new(&self.archive, origin, &now, progress);
                let tables = Some(self.spool.directory());
                let request = BaseRequest { tables, full: self.full, ..plain };
                let prepared = prepare_base(&request, &backend);
                let panicked =
                    |_| Err(Failure::new(Code::Failed, "the reading thread has panicked"));
                (prepared, same.join().unwrap_or_else(panicked))
            }))
        };
        let (prepared, same) = terminal::watching("archiving", None, position, work)?;
        if let Err(failure) = same {
            return Ok(Err(failure));
        }
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(Error::Source(error)) => return Err(of_member(error.into())),
            Err(error) => return Ok(Err(error.into())),
        };
        let checked = Checked { status: prepared.status().clone(), facts };
        judge(&checked)?;
        for error in prepared.unreadable() {
            eprintln!("warning: a restore point cannot be read: {error}");
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(Err(Error::Stopped.into()));
        }
        let written = match prepared.publish(now()) {
            Ok(written) => written,
            Err(error) => return Ok(Err(error.into())),
        };
        // The base is there; what goes wrong now does not undo it.
        if let Err(failure) = self.pin.keep() {
            eprintln!("warning: {}", failure.what);
        }
        Ok(Ok((checked, Base { archive: &self.archive, written })))
    }
}

/// A base that was written.
pub(super) struct Base<'a> {
    archive: &'a Archive,
    written: BaseWritten,
}

impl Base<'_> {
    pub(super) fn output(&self, saved: &Saved) -> Output {
        let (place, facts) = (self.archive.store().place().to_owned(), &self.written.facts);
        let revision = facts.last.get();
        let simple = format!("Base of revision {revision} saved into {place}");
        let mut out = Output { simple, ..Output::default() };
        out.add("archive", "Archive", place.clone());
        out.add("object", "Object", self.written.name.clone());
        out.add("revision", "Revision", revision);
        out.add("time", "Time", shown(facts.state));
        out.add("timeline", "Timeline", facts.timeline.to_string());
        out.add("records", "Records", facts.records);
        out.add("totalKey", "Keys", saved.checked.status.live_keys);
        out.add("size", "Size", facts.logical_bytes);
        out.add("newBytes", "New bytes", facts.new_bytes);
        out.add("objects", "Objects", self.written.objects);
        self.add_comparison(&mut out);
        out.add("sha256", "SHA-256", saved.digest.to_string());
        out.add("endpoint", "Endpoint", saved.endpoint.clone());
        out.add("role", "Role", saved.role);
        out.add("etcdVersion", "Etcd version", saved.version.clone());
        out.text = output::lines(&[
            ("saved", format!("base of revision {revision} into {place}")),
            ("keys", saved.keys_line()),
            (
                "size",
                format!(
                    "{} of records, {} written ({} objects)",
                    output::bytes(facts.logical_bytes),
                    output::bytes(facts.new_bytes),
                    grouped(self.written.objects)
                ),
            ),
            ("SHA-256", format!("{} (of the snapshot, good)", saved.digest)),
            ("checker", saved.checker_line()),
            ("timeline", facts.timeline.to_string()),
            ("compared", compared(&self.written.comparison)),
            ("etcd", format!("{}, {} {}", saved.version, saved.role, saved.endpoint)),
        ]);
        out
    }

    /// What the snapshot contradicts, if it does: the base was saved, and somebody has to look.
    pub(super) fn alarm(&self) -> Option<Failure> {
        let Comparison::Contradicted { older, contradiction } = &self.written.comparison else {
            return None;
        };
        let what = format!(
            "the snapshot contradicts the base of revision {older}: {contradiction}. The base was \
             saved in full, into a history of its own"
        );
        Some(Failure::new(Code::BadData, what).remedy(
            "save from another member (--endpoints with that one alone) to see which is wrong, and \
             compare rekindle hashkv of the members; if the cluster was restored from elsewhere, \
             all is well",
        ))
    }

    fn add_comparison(&self, out: &mut Output) {
        let none = Counts::default();
        let (result, counts) = match &self.written.comparison {
            Comparison::First => ("first", &none),
            Comparison::Unknown { .. } => ("unknown", &none),
            Comparison::Agreed { counts, .. } => ("agreed", counts),
            Comparison::Contradicted { .. } => ("contradicted", &none),
        };
        out.add("comparison", "Comparison", result);
        out.add("knownRecords", "Known records", counts.known);
        out.add("newRecords", "New records", counts.new);
        out.add("unverifiedRecords", "Unverified records", counts.unverified);
    }
}

/// The comparison with the last base, for people.
fn compared(comparison: &Comparison) -> String {
    match comparison {
        Comparison::First => "with nothing: this is the first base of its history".to_owned(),
        Comparison::Unknown { reason } => {
            format!("with nothing, so it was written in full: {reason}")
        }
        Comparison::Agreed { older, counts } => {
            let mut text = format!(
                "with the base of revision {older}: equal; {} records were there, {} came since",
                grouped(counts.known),
                grouped(counts.new)
            );
            if counts.unverified > 0 {
                text += &format!(
                    "; {} are gone, and were compacted before a base saw why",
                    grouped(counts.unverified)
                );
            }
            text
        }
        Comparison::Contradicted { older, .. } => {
            format!("with the base of revision {older}: it CONTRADICTS it; written in full")
        }
    }
}
