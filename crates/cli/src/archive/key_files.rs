//! Files with keys: read only where nobody else can read them, written once and for their owner only.
//!
//! What may never happen here: a secret in a message; a file that is overwritten; a secret that others
//! could read even for a moment.

use super::key_args::{ReadKeys, WriteKeys};
use crate::configured;
use crate::connect::environment;
use crate::failure::{Code, Failure};
use rekindle_archive::{Archive, Identity, KeyFault, Recipient, SigningKey};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Most bytes of a key file.
const BYTES_MAX: usize = 1 << 20;

/// The archive with what these identities open; where it is not encrypted, as it is.
pub(crate) fn unlock(archive: Archive, keys: &ReadKeys) -> Result<Archive, Failure> {
    let is = archive.fingerprint();
    let said = configured::fingerprint(keys.fingerprint, archive.store());
    if let Some(said) = said.filter(|said| *said != is) {
        let what = format!("the archive's keys have the fingerprint {is}, not {said}");
        return Err(Failure::refused(what)
            .remedy("ask who keeps its keys: they were changed, or it is another archive"));
    }
    if !archive.is_sealed() {
        if !keys.identities.is_empty() {
            eprintln!("warning: {} is not encrypted", archive.store().place());
        }
        return Ok(archive);
    }
    let configured = configured::archive(archive.store()).map(|it| it.identities.clone());
    let configured = configured.filter(|files| !files.is_empty());
    let from_environment = || {
        let files = environment("REKINDLE_IDENTITY")?;
        Some(std::env::split_paths(&files).collect())
    };
    let files = match keys.identities.is_empty() {
        true => configured.or_else(from_environment).unwrap_or_default(),
        false => keys.identities.clone(),
    };
    if files.is_empty() {
        let place = archive.store().place();
        return Err(Failure::usage(format!("{place} is encrypted, and no identity was given"))
            .remedy(
                "name the identity file of one of its owners: --identity, or REKINDLE_IDENTITY",
            ));
    }
    let mut identities = Vec::new();
    for file in &files {
        identities.extend(read_identities(file)?);
    }
    Ok(archive.with_identities(&identities)?)
}

/// The archive with the key that signs for it, where it wants one.
pub(crate) fn with_signing_key(archive: Archive, keys: &WriteKeys) -> Result<Archive, Failure> {
    let from_environment = || environment("REKINDLE_SIGNING_KEY").map(PathBuf::from);
    let configured = || configured::archive(archive.store())?.signing_key.clone();
    let file = keys.signing_key.clone().or_else(configured).or_else(from_environment);
    let archive = match file {
        Some(file) if !archive.signers().is_empty() => {
            let text = read_secret(&file)?;
            let key = SigningKey::parse_file(&text).map_err(|fault| no_key(&file, fault))?;
            archive.with_signing_key(key)?
        }
        _ => archive,
    };
    archive.check_writable()?;
    Ok(archive)
}

/// The identities in a file.
pub(super) fn read_identities(path: &Path) -> Result<Vec<Identity>, Failure> {
    let text = read_secret(path)?;
    Identity::parse_file(&text).map_err(|fault| no_key(path, fault))
}

/// The public keys in a file, one a line.
pub(super) fn read_recipients(path: &Path) -> Result<Vec<Recipient>, Failure> {
    let text = read(path, |_| Ok(()))?;
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(index, line)| {
            line.parse().map_err(|fault| {
                Failure::usage(format!("{}, line {}: {fault}", path.display(), index + 1))
            })
        })
        .collect()
}

fn no_key(path: &Path, fault: KeyFault) -> Failure {
    let failure = Failure::usage(format!("{}: {fault}", path.display()));
    match fault {
        KeyFault::Passphrase => failure.remedy(
            "open it with age -d into a file that only you can read, better in memory (/dev/shm), and \
             name that",
        ),
        KeyFault::Plugin | KeyFault::Ssh => {
            failure.remedy("use an X25519 identity of age, as age-keygen makes them")
        }
        _ => failure.remedy("check the path"),
    }
}

/// A file that only its owner may read.
fn read_secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    read(path, |file| {
        let found = file.metadata().map_err(|error| Failure::io("looking at", path, &error))?;
        let mode = found.permissions().mode() & 0o7777;
        if found.is_file() && mode & 0o077 != 0 {
            let what = format!("others may read {}: its mode is {mode:04o}", path.display());
            return Err(Failure::refused(what).remedy(format!(
                "chmod 600 {}; if somebody may have read it already, replace the key",
                path.display()
            )));
        }
        Ok(())
    })
}

fn read(
    path: &Path,
    check: impl FnOnce(&File) -> Result<(), Failure>,
) -> Result<Zeroizing<String>, Failure> {
    let failure = |error| Failure::io("reading", path, &error);
    let file = File::open(path).map_err(failure)?;
    check(&file)?;
    // A buffer that grows would leave a part of the secret behind in the one before.
    let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES_MAX));
    file.take(BYTES_MAX as u64).read_to_end(&mut bytes).map_err(failure)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::usage(format!("{} is no text", path.display())))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A file with a key that was just written; it goes again unless it is kept.
#[derive(Debug)]
pub(super) struct NewKeyFile {
    pub path: PathBuf,
    kept: bool,
}

impl NewKeyFile {
    /// Writes a file that is not there yet, for its owner only. In a directory it is called `name`.
    pub(super) fn write(path: &Path, name: &str, text: &str) -> Result<Self, Failure> {
        let path = if path.is_dir() { path.join(name) } else { path.to_owned() };
        let mut options = OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o600).open(&path);
        let mut file = made.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                Failure::refused(format!("{} is there already", path.display()))
                    .remedy("name another file: a key is never overwritten")
            }
            _ => Failure::io("making", &path, &error),
        })?;
        let new = Self { path, kept: false };
        let failure = |error| Failure::io("writing", &new.path, &error);
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failure)?;
        let directory = new.path.parent().filter(|path| !path.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))
            .and_then(|directory| directory.sync_all())
            .map_err(failure)?;
        Ok(new)
    }

    /// It stays.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for NewKeyFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Writes a new identity, and reads it back as it will be read some day.
pub(super) fn generate_identity(path: &Path) -> Result<(NewKeyFile, Identity), Failure> {
    let identity = Identity::generate();
    let file = NewKeyFile::write(path, "rekindle-identity.txt", &identity.file_text())?;
    let read = read_identities(&file.path)?;
    match &read[..] {
        [back] if back.public() == identity.public() => Ok((file, identity)),
        _ => {
            let what = format!("{} does not hold what was written into it", file.path.display());
            Err(Failure::new(Code::Failed, what).remedy("name a file on another file system"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (file, identity) = generate_identity(directory.path()).unwrap();
        assert!(file.path.ends_with("rekindle-identity.txt"));
        let mode = |mode| std::fs::set_permissions(&file.path, PermissionsExt::from_mode(mode));
        for others in [0o604, 0o640, 0o644, 0o660] {
            mode(others).unwrap();
            let refused = read_identities(&file.path).unwrap_err();
            assert_eq!(refused.code, Code::Refused);
            assert!(refused.remedy.unwrap().contains("chmod 600"));
        }
        mode(0o400).unwrap();
        assert_eq!(read_identities(&file.path).unwrap()[0].public(), identity.public());

        let again = generate_identity(&file.path).unwrap_err();
        assert!(again.what.ends_with("is there already"), "{again}");
        let path = file.path.clone();
        drop(file);
        assert!(!path.exists(), "nobody kept it");
    }

    #[test]
    fn faults_name_the_file_and_never_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let (file, identity) = generate_identity(directory.path()).unwrap();
        let secret = identity.file_text().lines().last().unwrap().to_owned();
        let bad = directory.path().join("bad");
        let check = |text: &str, want: &str| {
            let written = NewKeyFile::write(&bad, "", text).unwrap();
            let refused = read_identities(&bad).and(read_recipients(&bad)).unwrap_err();
            drop(written);
            let told = refused.to_string();
            assert!(told.contains(want) && !told.contains(&secret[20..]), "{told}");
        };
        check(&secret[..60], "bad: line 1 is no secret key of age");
        check("age-encryption.org/v1\n", "protected with a passphrase");
        check(&secret, "bad, line 1: it is a secret key, where its public key is wanted");
        drop(file);
    }
}
