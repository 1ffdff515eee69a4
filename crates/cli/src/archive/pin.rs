//! The keys of archives that this host has saved into: nobody who can write to a store may have later
//! backups sealed to a key of his own unnoticed.
//!
//! At the first save the fingerprint of the archive's public keys is written into the spool directory,
//! `<archive id>.pin`. From then on another one at the same place, or of the same archive, is refused
//! until the user says it himself. Of an archive that is neither sealed nor signed, and whose fingerprint
//! nobody has said, only the place is remembered: where it is gone, no plain snapshot is written instead.

use crate::failure::{Code, Failure};
use rekindle_archive::format::Fingerprint;
use rekindle_archive::{Archive, Place};
use serde_json::{Value, json};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FORMAT: u64 = 1;

/// What this host knows of an archive's keys, and found to be so.
#[derive(Debug)]
pub(crate) struct Pin {
    directory: PathBuf,
    archive: String,
    place: String,
    fingerprint: Fingerprint,
    is_protected: bool,
    /// It was not protected before.
    is_announced: bool,
    /// Pins that it replaces.
    old: Vec<PathBuf>,
    is_new: bool,
}

/// A pin that was read.
struct Found {
    path: PathBuf,
    archive: String,
    place: String,
    fingerprint: Fingerprint,
    is_protected: bool,
}

impl Pin {
    /// Refuses an archive whose keys are other than they were, or than the user says.
    pub(crate) fn check(
        directory: &Path,
        archive: &Archive,
        said: Option<Fingerprint>,
    ) -> Result<Self, Failure> {
        let place = place_of(archive);
        let (id, is) = (archive.id().to_string(), archive.fingerprint());
        if let Some(said) = said.filter(|said| *said != is) {
            return Err(changed(archive, &place, said, is));
        }
        let found = read_all(directory)?.into_iter();
        let found = found.filter(|pin| pin.archive == id || pin.place == place);
        let (same, other): (Vec<_>, Vec<_>) =
            found.partition(|pin| pin.fingerprint == is && pin.archive == id);
        let protected = other.iter().find(|pin| pin.is_protected);
        if let (Some(pin), None) = (protected, said) {
            return Err(changed(archive, &place, pin.fingerprint, is));
        }
        // Whoever says a fingerprint wants it to stay, also that of an archive without keys.
        let was_protected = same.iter().any(|pin| pin.is_protected);
        let has_keys = archive.is_sealed() || !archive.signers().is_empty();
        let is_protected = has_keys || said.is_some() || was_protected;
        let is_announced = is_protected && !was_protected;
        let is_new = is_announced || !same.iter().any(|pin| pin.place == place);
        let old = other.into_iter().map(|pin| pin.path).collect();
        let directory = directory.to_owned();
        Ok(Self {
            directory,
            archive: id,
            place,
            fingerprint: is,
            is_protected,
            is_announced,
            old,
            is_new,
        })
    }

    /// The pin of an archive that was at this place, where there is none now.
    pub(crate) fn lost(directory: &Path, place: &str) -> Result<Option<PathBuf>, Failure> {
        // What is no place is told by who wants to use it.
        let Ok(place) = Place::parse(place) else { return Ok(None) };
        let place = whole_name(&place.to_string());
        let found = read_all(directory)?.into_iter().find(|pin| pin.place == place);
        Ok(found.map(|pin| pin.path))
    }

    /// Remembers the keys, once they were saved with.
    pub(crate) fn keep(&self) -> Result<(), Failure> {
        if !self.is_new {
            return Ok(());
        }
        let path = self.directory.join(format!("{}.pin", self.archive));
        let part = path.with_added_extension("part");
        let failure = |error| Failure::io("writing", &part, &error);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(failure)?;
        let text = json!({
            "format": FORMAT,
            "archive": self.archive,
            "place": self.place,
            "fingerprint": self.fingerprint.to_string(),
            "protected": self.is_protected,
        });
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&part);
        let mut file = file.map_err(failure)?;
        file.write_all(format!("{text:#}\n").as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&part, &path))
            .map_err(failure)?;
        for old in self.old.iter().filter(|old| **old != path) {
            std::fs::remove_file(old).map_err(|error| Failure::io("removing", old, &error))?;
        }
        if self.is_announced {
            eprintln!(
                "pinned the keys of {}: fingerprint {}; compare it with what rekindle archive init or \
                 rekey has printed",
                self.place, self.fingerprint
            );
        }
        Ok(())
    }
}

/// A place by the one name that it always has.
fn place_of(archive: &Archive) -> String {
    whole_name(archive.store().place())
}

fn whole_name(place: &str) -> String {
    let place = place.strip_prefix("file://").unwrap_or(place);
    if place.contains("://") {
        return place.trim_end_matches('/').to_owned();
    }
    // What is not there has a place in what is.
    let path = std::path::absolute(place).unwrap_or_else(|_| PathBuf::from(place));
    let known =
        path.ancestors().find_map(|above| Some((std::fs::canonicalize(above).ok()?, above)));
    let whole = known.and_then(|(whole, above)| Some(whole.join(path.strip_prefix(above).ok()?)));
    let whole = whole.unwrap_or(path);
    let shown = whole.display().to_string();
    if shown == "/" { shown } else { shown.trim_end_matches('/').to_owned() }
}

fn changed(archive: &Archive, place: &str, was: Fingerprint, is: Fingerprint) -> Failure {
    let who = match archive.has_had(&was) {
        true => {
            "Somebody who holds the keys of before has begun these, as rekindle archive rekey does"
        }
        false => {
            "Nobody who held the keys of before has endorsed these: it is another archive, or somebody \
             wants the backups sealed to a key of his own"
        }
    };
    let what =
        format!("the keys of {place} should have the fingerprint {was}, but they have {is}. {who}");
    Failure::refused(what).remedy(format!(
        "ask who keeps the archive's keys; if rekindle archive init or rekey has printed that very \
         fingerprint, pass --fingerprint {is}"
    ))
}

fn read_all(directory: &Path) -> Result<Vec<Found>, Failure> {
    let failure = |error| Failure::io("looking for pinned keys in", directory, &error);
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failure)?,
    };
    let mut pins = Vec::new();
    for entry in entries {
        let path = entry.map_err(failure)?.path();
        if path.extension().is_some_and(|extension| extension == "pin") {
            pins.push(read(path)?);
        }
    }
    Ok(pins)
}

fn read(path: PathBuf) -> Result<Found, Failure> {
    let text = std::fs::read(&path).map_err(|error| Failure::io("reading", &path, &error))?;
    let json: Value = serde_json::from_slice(&text).unwrap_or_default();
    let text = |field: &str| json.get(field).and_then(Value::as_str).map(str::to_owned);
    let is_known = json.get("format").and_then(Value::as_u64) == Some(FORMAT);
    let fingerprint = text("fingerprint").and_then(|text| Fingerprint::parse(&text));
    let is_protected = json.get("protected").and_then(Value::as_bool).unwrap_or(true);
    match (text("archive"), text("place"), fingerprint.filter(|_| is_known)) {
        (Some(archive), Some(place), Some(fingerprint)) => {
            Ok(Found { path, archive, place, fingerprint, is_protected })
        }
        _ => Err(Failure::new(Code::BadData, format!("{} is damaged", path.display())).remedy(
            "it says which keys this host has saved with: remove it, and pass --fingerprint with what \
             rekindle archive init or rekey has printed",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_archive::format::header::Moment;
    use rekindle_archive::{Identity, Protection, RekeyRequest, Sealing, Store};

    fn an_archive(place: &Path, owners: &[Identity]) -> Archive {
        let sealing = match owners {
            [] => Sealing::Unencrypted,
            owners => Sealing::To(owners.iter().map(Identity::public).collect()),
        };
        let _ = std::fs::remove_dir_all(place);
        std::fs::create_dir(place).unwrap();
        let protection = Protection { sealing, signers: Vec::new() };
        Archive::init(Store::directory(place).unwrap(), Moment(0), &protection).unwrap()
    }

    #[track_caller]
    fn check_refused(spool: &Path, archive: &Archive, want: &str) {
        let refused = Pin::check(spool, archive, None).unwrap_err();
        assert_eq!(refused.code, Code::Refused);
        assert!(refused.what.contains(want), "{refused}");
        let remedy = refused.remedy.unwrap();
        assert!(remedy.contains(&format!("--fingerprint {}", archive.fingerprint())), "{remedy}");
    }

    fn said(spool: &Path, archive: &Archive) {
        Pin::check(spool, archive, Some(archive.fingerprint())).unwrap().keep().unwrap();
        Pin::check(spool, archive, None).unwrap();
    }

    #[test]
    fn other_keys_are_refused_until_they_are_said() {
        let directory = tempfile::tempdir().unwrap();
        let (place, spool) = (directory.path().join("archive"), directory.path().join("spool"));
        let owners = [Identity::generate(), Identity::generate()];
        let archive = an_archive(&place, &owners);
        Pin::check(&spool, &archive, None).unwrap();
        Pin::check(&spool, &archive, None).unwrap().keep().unwrap();
        Pin::check(&spool, &archive, None).unwrap();
        let other = Fingerprint([7; 32]);
        let refused = Pin::check(&spool, &archive, Some(other)).unwrap_err();
        assert!(refused.what.contains(&other.to_string()), "{refused}");

        let open = archive.clone().with_identities(&owners).unwrap();
        let remove = vec![owners[1].public()];
        let plan = open.plan_rekey(&RekeyRequest { remove, ..RekeyRequest::default() }).unwrap();
        let rekeyed = open.rekey(&plan, Moment(1)).unwrap();
        check_refused(&spool, &rekeyed, "Somebody who holds the keys of before has begun these");
        said(&spool, &rekeyed);
        check_refused(&spool, &archive, "Nobody who held the keys of before");

        // Another archive in its place, by an attacker; and one that is not even encrypted.
        let replaced = an_archive(&place, &owners);
        check_refused(&spool, &replaced, "Nobody who held the keys of before");
        let plain = an_archive(&place, &[]);
        check_refused(&spool, &plain, "Nobody who held the keys of before");
        said(&spool, &plain);
        check_refused(&spool, &an_archive(&place, &[]), "Nobody who held");
        assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 1, "what is replaced goes");
    }

    #[test]
    fn what_is_not_protected_is_remembered_by_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, place) = (directory.path().join("spool"), directory.path().join("archive"));
        let lost = |place: &Path| Pin::lost(&spool, place.to_str().unwrap()).unwrap();
        assert_eq!(lost(&place), None);
        let archive = an_archive(&place, &[]);
        Pin::check(&spool, &archive, None).unwrap().keep().unwrap();
        // Another one in its place is not refused: there are no keys to be wrong.
        let archive = an_archive(&place, &[]);
        Pin::check(&spool, &archive, None).unwrap().keep().unwrap();
        // Until somebody says which one he means.
        said(&spool, &archive);
        let other_place = directory.path().join("elsewhere");
        Pin::check(&spool, &an_archive(&other_place, &[]), None).unwrap();
        let pin = spool.join(format!("{}.pin", archive.id()));
        assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 1);
        std::fs::remove_dir_all(&place).unwrap();
        assert_eq!(lost(&place), Some(pin.clone()));
        assert_eq!(lost(&directory.path().join("./archive/")), Some(pin));
        assert_eq!(lost(&directory.path().join("archive2")), None);
        std::fs::write(spool.join("x.pin"), "{}").unwrap();
        let damaged = Pin::check(&spool, &archive, None).unwrap_err();
        assert!(damaged.what.ends_with("x.pin is damaged"), "{damaged}");
    }
}
