//! `rekindle hashkv`: the hash by which etcd's members compare themselves.

use crate::args::HashkvArgs;
use crate::failure::{Code, Failure};
use crate::output::{self, Output};
use crate::source::{Access, Source, Users};
use rekindle_etcd::{HashRequest, Revision, TombstonesAtCompaction};

pub(crate) fn run(args: &HashkvArgs) -> Result<(), Failure> {
    let revision = |flag: &str, number: i64| {
        Revision::new(number).ok_or_else(|| Failure::usage(format!("{flag} {number} is negative")))
    };
    let request = HashRequest {
        revision: Some(revision("--rev", args.rev)?).filter(|revision| revision.get() > 0),
        compact_revision: args
            .compact_rev
            .map(|number| revision("--compact-rev", number))
            .transpose()?,
        tombstones: match args.old_tombstone_rule {
            true => TombstonesAtCompaction::Hashed,
            false => TombstonesAtCompaction::Skipped,
        },
    };
    let path = args.store.source(args.source.as_deref())?;
    let (store, keys) = (&args.store, &args.keys);
    let access =
        Access { store, spool: args.spool.directory(), keys, point: None, users: Users::OfPoint };
    let source = Source::open_any(&path, None, &access)?.reading_ahead();
    let backend = source.backend()?;
    if let Some(cut) = source.cut(backend.db().page_size()) {
        eprintln!("warning: {}: {cut}", source.path.display());
    }
    let hash = source.hash_kv(&request).map_err(|failure| match failure.code {
        Code::NotFound => failure.remedy("rekindle status shows which revisions there are"),
        _ => failure,
    })?;
    let compact = hash.compact_revision.map_or(-1, Revision::get);
    let (number, revision) = (hash.hash, hash.revision.get());
    let mut out =
        Output { simple: format!("{number}, {revision}, {compact}"), ..Output::default() };
    out.add("hash", "Hash", number);
    out.add("hashRevision", "Hash revision", revision);
    out.add("compactRevision", "Compact revision", compact);
    let row = [number.to_string(), revision.to_string(), compact.to_string()];
    out.text = output::table(&["HASH", "HASH REVISION", "COMPACT REVISION"], &[row.to_vec()]);
    out.print(args.output.format())
}
