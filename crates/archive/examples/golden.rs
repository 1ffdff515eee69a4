//! Writes the golden archives of a format version into an empty directory, once and for all:
//! `golden DIRECTORY`. A version that has its archives keeps them: see tests/golden.rs.
//!
//! Two archives of the same keyspace, one of them sealed, to `identity.txt`: bases with dead
//! records, a range of the log, and a last base that contradicts the one before and begins a timeline.
//! A third one, `erased`, of which keys were forgotten.

#[path = "../tests/keyspaces/mod.rs"]
mod keyspaces;

use keyspaces::{Keyspace, all_of, forget, prepare, told};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{Archive, Identity, Protection, Sealing, Store};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [directory] = &args[..] else { return Err("golden DIRECTORY".into()) };
    let directory = Path::new(directory);
    fs::create_dir(directory)?;
    let identity = Identity::generate();
    fs::write(directory.join("identity.txt"), identity.file_text().as_bytes())?;
    let sealing = Sealing::To(vec![identity.public()]);
    let plain = write(&directory.join("plain"), Sealing::Unencrypted, &[])?;
    let sealed = write(&directory.join("sealed"), sealing, &[identity])?;
    assert_eq!(plain, sealed);
    fs::write(directory.join("records.txt"), plain)?;
    let erased = directory.join("erased");
    write(&erased, Sealing::Unencrypted, &[])?;
    let archive = Archive::open(Store::directory(&erased)?)?;
    forget(&archive, &all_of("/registry/pods/1"), &|| Moment(1_790_000_500_000))?;
    fs::write(directory.join("erased.txt"), told(&archive)?)?;
    Ok(())
}

/// Writes one, and tells what it brings back.
fn write(place: &Path, sealing: Sealing, identities: &[Identity]) -> Result<String, Failed> {
    fs::create_dir(place)?;
    let protection = Protection { sealing, signers: Vec::new() };
    let archive = Archive::init(Store::directory(place)?, Moment(1_790_000_000_000), &protection)?;
    let spool = tempfile::tempdir()?;
    let clock = AtomicI64::new(1_790_000_000_000);
    let now = || Moment(clock.fetch_add(1000, Ordering::Relaxed));
    for keyspace in keyspaces() {
        let spool = Some(spool.path());
        prepare(&archive, &keyspace, spool, &now, |prepared| prepared.publish(now()))?;
    }
    let archive = archive.clone().with_identities(identities)?;
    Ok(told(&archive)?)
}

fn keyspaces() -> Vec<Keyspace> {
    let mut keyspace = Keyspace::new();
    for n in 0..30 {
        keyspace.write(&[(&format!("/registry/pods/{}", n % 20), n == 25), ("/lease", false)], 60);
    }
    let mut saved = vec![keyspace.clone()];
    for n in 0..12 {
        keyspace.write(&[(&format!("/registry/pods/{n}"), n == 7), ("/lease", false)], 60);
    }
    keyspace.compact(20);
    saved.push(keyspace.clone());
    keyspace.write(&[("/registry/pods/3", true)], 0);
    saved.push(keyspace.clone());
    // One record is another than the archive has.
    let newest = keyspace.records.values_mut().next_back().expect("a record");
    newest.0 = "/registry/pods/4".to_owned();
    saved.push(keyspace);
    saved
}
