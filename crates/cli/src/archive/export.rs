//! `rekindle archive export`: a restore point as a snapshot file.
//!
//! The file is written from front to back, read back, digested and hashed before it gets its name.

use crate::args::ExportArgs;
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use crate::restore::{free_space, largest_size, layout};
use crate::save::{missing_directories, replaceable};
use crate::source::{Access, ArchivedBase, Kind, Source, Users};
use crate::terminal;
use rekindle_bolt::ReadAt;
use rekindle_datadir::{Database, FileSource, NewSnapshot, Progress, RealDisk};
use rekindle_etcd::digest::{Sha256Digest, SnapshotDigest};
use rekindle_etcd::restore::{Records, Source as Content};
use rekindle_etcd::{Backend, HashKv, HashRequest, KeyCount, Revision};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that are read at once for the digest.
const DIGEST_READ: usize = 1 << 20;

pub(super) fn run(args: &ExportArgs) -> Result<(), Failure> {
    let (store, keys, point) = (&args.store, &args.keys, Some(&args.point));
    let access = Access { store, spool: None, keys, point, users: Users::OfPoint };
    let source = Source::open_any(&store.source(Some(&args.source))?, None, &access)?;
    let Kind::Base(base) = &source.kind else {
        let what = format!("{} is no archive", args.source.display());
        return Err(Failure::usage(what).remedy("name an archive: ARCHIVE or ARCHIVE@POINT"));
    };
    check_target(args, &source)?;
    for directory in missing_directories(&args.file) {
        eprintln!("making directory {}", directory.display());
    }
    let progress = Progress { stop: terminal::stop_flag()?, ..Progress::default() };
    let written = || progress.written.load(Ordering::Relaxed);
    let work = || export(&source, base, &args.file, &progress);
    let exported = terminal::watching("exporting", None, written, work);
    let exported = exported.map_err(|failure| source.with_what_remains(failure))?;
    exported.output(base, &args.file).print(args.output.format())
}

/// Refuses a file that is there and may not be replaced, and a disk that is too small.
fn check_target(args: &ExportArgs, source: &Source) -> Result<(), Failure> {
    if args.file.to_string_lossy().contains("://") {
        let what = format!("{} is a URL", args.file.display());
        return Err(Failure::usage(what).remedy("export to a file, and bring it there"));
    }
    replaceable(&args.file)?;
    if args.file.is_dir() || args.file.file_name().is_none() {
        let what = format!("{} is a directory", args.file.display());
        return Err(Failure::usage(what).remedy("name a file in it"));
    }
    if args.file.exists() && !args.force {
        let what = format!("{} is there already", args.file.display());
        return Err(Failure::refused(what).remedy("name another file, or pass --force"));
    }
    let file = std::path::absolute(&args.file)
        .map_err(|error| Failure::io("looking at", &args.file, &error))?;
    let there = file.ancestors().skip(1).find(|path| path.exists()).unwrap_or(Path::new("/"));
    // Leaves are packed here, so the half of it that a restore reckons with is enough.
    let (free, need) = (free_space(there)?, largest_size(&source.backend()?) / 2);
    if free < need {
        let (free, need) = (output::bytes(free), output::bytes(need));
        let what = format!("{} has {free} free, the snapshot needs some {need}", there.display());
        return Err(Failure::refused(what).remedy("make room, or name a file elsewhere"));
    }
    Ok(())
}

/// A snapshot that has its name.
struct Exported {
    database: Database,
    digest: Sha256Digest,
    hash: HashKv,
}

fn export(
    source: &Source,
    base: &ArchivedBase,
    path: &Path,
    progress: &Progress,
) -> Result<Exported, Failure> {
    let backend = source.backend()?;
    let layout = layout(backend.db().page_size())?;
    let mut records = source.records()?;
    let records = records.as_mut().map(|records| records as &mut dyn Records);
    let mut snapshot = NewSnapshot::create(&RealDisk, path)?;
    let content = Content { db: backend.db(), records };
    let database = snapshot.write_database(content, layout, progress)?;
    snapshot.flush()?;
    let part = snapshot.part().to_owned();
    let (digest, hash) = std::thread::scope(|threads| {
        let proven = threads.spawn(|| prove(&part, base));
        let digest = digest(&part, &progress.stop);
        let panicked = |_| Err(Failure::new(Code::Failed, "the checking thread has panicked"));
        (digest, proven.join().unwrap_or_else(panicked))
    });
    let (digest, hash) = (digest?, hash?);
    snapshot.write(&[digest.0])?;
    snapshot.publish()?;
    Ok(Exported { database, digest, hash })
}

/// The digest of what was written, read back.
fn digest(part: &Path, stop: &AtomicBool) -> Result<Sha256Digest, Failure> {
    let failed = |error| Failure::io("reading", part, &error);
    let file = FileSource::open(part).map_err(failed)?;
    let (mut digest, mut buffer, mut at) = (SnapshotDigest::new(), vec![0; DIGEST_READ], 0);
    while at < file.size() {
        if stop.load(Ordering::Relaxed) {
            return Err(rekindle_datadir::Error::Interrupted.into());
        }
        let left = usize::try_from(file.size() - at).unwrap_or(usize::MAX);
        buffer.truncate(left);
        file.read_exact_at(&mut buffer, at).map_err(failed)?;
        digest.update(&buffer);
        at += buffer.len() as u64;
    }
    Ok(digest.of_all())
}

/// Checks every page and record of what was written, and that it is the keyspace of the base.
fn prove(part: &Path, base: &ArchivedBase) -> Result<HashKv, Failure> {
    let file = FileSource::open(part).map_err(|error| Failure::io("reading", part, &error))?;
    let backend = Backend::open(file)?;
    let status = backend.status(KeyCount::Reckoned)?;
    let hash = backend.hash_kv(&HashRequest::default())?;
    // What nobody has asked a member for at that very revision can only be sound.
    let known = base.is_as_saved().then_some(base.base.hash);
    match status.is_sound() && known.is_none_or(|known| known == hash.hash) {
        true => Ok(hash),
        false => {
            let what = format!(
                "what came out of the base is not what went in: HashKV {}{}",
                hash.hash,
                known.map_or_else(String::new, |known| format!(", not {known}"))
            );
            Err(Failure::new(Code::BadData, what)
                .remedy("rekindle archive verify says what is wrong with the archive"))
        }
    }
}

impl Exported {
    fn output(&self, base: &ArchivedBase, path: &Path) -> Output {
        let path = path.display().to_string();
        let (revision, time) = (base.revision().get(), super::shown(base.time()));
        let reckoned = base.reckoned;
        let simple = format!("Snapshot exported to {path}");
        let mut out = Output { simple, ..Output::default() };
        out.add("file", "File", path.clone());
        out.add("object", "Object", base.entry.name.clone());
        out.add("revision", "Revision", revision);
        out.add("time", "Time", time.clone());
        out.add("reckoned", "Reckoned", reckoned);
        out.add("records", "Records", self.database.records);
        out.add("totalSize", "Size", self.database.size);
        out.add("sha256", "SHA-256", self.digest.to_string());
        out.add("hash", "Hash", self.hash.hash);
        let compact = self.hash.compact_revision.map_or(-1, Revision::get);
        out.add("compactRevision", "Compact revision", compact);
        out.text = output::lines(&[
            ("exported", path),
            (
                "revision",
                format!("{revision}, as of {}{time}", if reckoned { "about " } else { "" }),
            ),
            ("records", grouped(self.database.records)),
            ("size", output::bytes(self.database.size)),
            ("SHA-256", self.digest.to_string()),
            (
                "HashKV",
                match base.is_as_saved() {
                    true if base.base.erased > 0 => {
                        format!("{}, that of what is left of the saved snapshot", self.hash.hash)
                    }
                    true => format!("{}, that of the saved snapshot", self.hash.hash),
                    false => format!(
                        "{}; of what the archive has, nobody has asked a member for it at that revision",
                        self.hash.hash
                    ),
                },
            ),
        ]);
        out
    }
}
