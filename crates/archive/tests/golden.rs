//! Archives of version 1 of the format, made once and read for ever.
//!
//! `tests/golden/v1` was written by the example `golden` and is never written again: what reads it
//! today must read it in ten years. `records.txt` says what each base brings back, record by record.

mod keyspaces;

use keyspaces::{told, verdict};
use rekindle_archive::format::base::PartKind;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{Archive, Identity, Level, Store, Verdict, Word, read_base};
use std::path::{Path, PathBuf};

fn golden(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(kind)
}

fn open(kind: &str, identities: &[Identity]) -> Archive {
    let archive = Archive::open(Store::directory(&golden(kind)).unwrap()).unwrap();
    archive.with_identities(identities).unwrap()
}

fn check(kind: &str, identities: &[Identity]) {
    let archive = open(kind, identities);
    check_told(&archive, "records.txt");
    let verdict = verdict(&archive, Moment(1_790_001_000_000)).unwrap();
    assert_eq!(verdict.findings, []);
    check_proven(&verdict);
    // It is worth something only if it has some of everything.
    let bases = archive.list().unwrap().bases;
    let parts: Vec<_> =
        bases.iter().flat_map(|entry| read_base(&archive, entry).unwrap().parts).collect();
    assert!(bases.len() >= 2);
    assert!(
        parts.iter().any(|part| matches!(part.what, PartKind::Log { .. })),
        "a range of the log"
    );
    assert!(parts.iter().any(|part| matches!(part.what, PartKind::Pack { .. })), "a pack");
    assert!(parts.iter().any(|part| !part.dead.is_empty()), "a dead set");
    let timelines: std::collections::BTreeSet<_> =
        bases.iter().map(|base| base.header.facts.timeline).collect();
    assert_eq!(timelines.len(), 2, "a timeline that leaves another");
}

fn check_told(archive: &Archive, records: &str) {
    let want = std::fs::read_to_string(golden(records)).unwrap();
    assert!(told(archive).unwrap() == want, "not {records}");
}

fn check_proven(verdict: &Verdict) {
    assert!(verdict.points.iter().all(|point| point.level == Some(Level::Proven)));
}

/// Some keys were forgotten; what they lay in before is there still.
#[test]
fn version_1_erased() {
    let archive = open("erased", &[]);
    check_told(&archive, "erased.txt");
    let verdict = verdict(&archive, Moment(1_790_001_000_000)).unwrap();
    assert!(
        verdict.findings.iter().all(|it| it.word == Word::Orphan || it.word == Word::Uploading)
    );
    check_proven(&verdict);
    let bases = archive.list().unwrap().bases;
    assert!(bases.iter().all(|base| base.header.facts.erased));
    let erased = bases.iter().map(|entry| read_base(&archive, entry).unwrap().erased);
    assert!(erased.min() > Some(0));
}

#[test]
fn version_1() {
    check("plain", &[]);
}

#[test]
fn version_1_sealed() {
    let identity = std::fs::read_to_string(golden("identity.txt")).unwrap();
    check("sealed", &Identity::parse_file(&identity).unwrap());
    let nobody = Archive::open(Store::directory(&golden("sealed")).unwrap()).unwrap();
    let closed = read_base(&nobody, &nobody.list().unwrap().bases[0]).unwrap_err();
    assert!(closed.to_string().contains("no identity was given"), "{closed}");
}
