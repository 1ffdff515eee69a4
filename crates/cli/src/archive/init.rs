//! `rekindle archive init`: makes an archive of an empty place.

use super::key_args::ProtectArgs;
use super::key_files::{NewKeyFile, generate_identity, read_recipients};
use super::{keep_to_ourselves, now, probe};
use crate::args::{InitArgs, StoreArgs};
use crate::failure::{Code, Failure};
use crate::output;
use rekindle_archive::{
    Archive, Error, Identity, Place, Protection, Recipient, Sealing, SigningKey, Store,
};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

pub(super) fn run(args: &InitArgs) -> Result<(), Failure> {
    let place = Place::parse(&args.store.place(args.place.as_deref())?)?;
    check_said(&args.protect)?;
    let mut keys = NewKeys::make(&args.protect)?;
    keep_to_ourselves();
    let store = new_store(&place, &args.store)?;
    must_be_new(&store)?;
    let found = probe::probe(&store)?;
    probe::verdict(&store, &found)?;
    let archive = Archive::init(store, now(), &keys.protection())?;
    keys.files.iter_mut().for_each(|(_, file)| file.keep());
    keys.test(&archive)?;
    if let Place::Directory(path) = &place {
        warn_of_others(path);
    }
    output::print(&keys.text(&archive))?;
    if let [_] = &keys.owners[..] {
        eprintln!("{ONE_OWNER}");
    }
    Ok(())
}

/// The store at a place; a directory is made.
pub(super) fn new_store(place: &Place, args: &StoreArgs) -> Result<Store, Failure> {
    if let Place::Directory(path) = place {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| Failure::io("making", path, &error))?;
    }
    args.open(place)
}

/// Nothing is tried out where something lies already.
fn must_be_new(store: &Store) -> Result<(), Failure> {
    let place = store.place().to_owned();
    match Archive::open(store.clone()) {
        Ok(_) => Err(Error::IsArchive { place }.into()),
        Err(Error::NoArchive { .. }) if store.is_empty()? => Ok(()),
        Err(Error::NoArchive { .. }) => Err(Error::NotEmpty { place }.into()),
        Err(error) => Err(error.into()),
    }
}

fn warn_of_others(path: &Path) {
    let mode = std::fs::metadata(path).map_or(0, |found| found.permissions().mode());
    if mode & 0o077 != 0 {
        eprintln!("warning: others may look into {}: chmod 700 it", path.display());
    }
}

/// What is said of an archive with one owner only.
pub(super) const ONE_OWNER: &str = "warning: the archive has one owner only: if that identity is lost, \
    every backup in it is lost for ever. Add another owner: rekindle archive rekey --add";

/// Nothing is left unsaid about who will be able to read.
fn check_said(args: &ProtectArgs) -> Result<(), Failure> {
    let sealed = !args.recipients.is_empty()
        || !args.recipients_files.is_empty()
        || !args.generate_keys.is_empty();
    if args.unencrypted || sealed {
        return Ok(());
    }
    let what = "nothing says how the archive is to be protected";
    Err(Failure::usage(what).remedy(
        "to encrypt it, name its owners with --recipient PUBLIC-KEY (of age), or have keys made with \
         --generate-keys FILE; or pass --unencrypted, and keep others from reading the place, for it \
         will hold the cluster's secrets",
    ))
}

/// The keys of an archive that is to be made, and the files that were written for it.
struct NewKeys {
    unencrypted: bool,
    owners: Vec<Recipient>,
    identities: Vec<Identity>,
    signers: Vec<rekindle_archive::Signer>,
    /// What each file is.
    files: Vec<(&'static str, NewKeyFile)>,
}

impl NewKeys {
    fn make(args: &ProtectArgs) -> Result<Self, Failure> {
        let mut keys = Self {
            unencrypted: args.unencrypted,
            owners: Vec::new(),
            identities: Vec::new(),
            signers: args.signers.clone(),
            files: Vec::new(),
        };
        let mut owners = args.recipients.clone();
        for file in &args.recipients_files {
            owners.extend(read_recipients(file)?);
        }
        for path in &args.generate_keys {
            let (file, identity) = generate_identity(path)?;
            owners.push(identity.public());
            keys.identities.push(identity);
            keys.files.push(("identity", file));
        }
        for owner in owners {
            if !keys.owners.contains(&owner) {
                keys.owners.push(owner);
            }
        }
        if let Some(path) = &args.generate_signing_key {
            let key = SigningKey::generate()?;
            let file = NewKeyFile::write(path, "rekindle-signing-key.txt", &key.file_text())?;
            keys.signers.push(key.public());
            keys.files.push(("signing key", file));
        }
        Ok(keys)
    }

    fn protection(&self) -> Protection {
        let sealing = match self.unencrypted {
            true => Sealing::Unencrypted,
            false => Sealing::To(self.owners.clone()),
        };
        Protection { sealing, signers: self.signers.clone() }
    }

    /// Each new identity opens the archive, alone.
    fn test(&self, archive: &Archive) -> Result<(), Failure> {
        for identity in &self.identities {
            let opened = archive.clone().with_identities(std::slice::from_ref(identity));
            opened.map_err(|error| {
                let what = format!("a new key does not open the archive: {error}");
                Failure::new(Code::Failed, what)
                    .remedy("remove the archive, and make it anew at another place")
            })?;
        }
        Ok(())
    }

    fn text(&self, archive: &Archive) -> String {
        let place = archive.store().place().to_owned();
        let mut rows = vec![("archive", place.clone()), ("id", archive.id().to_string())];
        rows.push(("store", "probed: it does all that an archive needs".to_owned()));
        rows.push(("protected", protection_text(archive, &self.owners)));
        if archive.is_sealed() || !archive.signers().is_empty() {
            rows.push((
                "fingerprint",
                format!(
                    "{}\nof its public keys: write it down; rekindle save --fingerprint compares it",
                    archive.fingerprint()
                ),
            ));
        }
        for (what, file) in &self.files {
            rows.push((what, file.path.display().to_string()));
        }
        if !self.identities.is_empty() {
            rows.push((
                "keep",
                "an identity opens everything, and without one nothing can ever be restored: tested, \
                 each opens the archive.\nNow copy at least one off this machine, to where neither a \
                 fire nor a burglar here gets at it,\nand leave none here that is not needed: saving \
                 needs none"
                    .to_owned(),
            ));
        }
        rows.push(("next", format!("rekindle save {place}")));
        output::lines(&rows)
    }
}

/// Who reads what is written now, and whose signatures it must have.
pub(super) fn protection_text(archive: &Archive, owners: &[Recipient]) -> String {
    let mut lines = vec![match archive.is_sealed() {
        true => "encrypted; to be read by".to_owned(),
        false => "not at all: it is not encrypted".to_owned(),
    }];
    lines.extend(owners.iter().map(ToString::to_string));
    if !archive.signers().is_empty() {
        lines.push("signed by".to_owned());
        lines.extend(archive.signers().iter().map(ToString::to_string));
    }
    lines.join("\n")
}
