//! Flags about an archive's keys, as they are typed.

use crate::args::StoreArgs;
use clap::Args as ClapArgs;
use rekindle_archive::format::Fingerprint;
use rekindle_archive::{Recipient, Signer};
use std::path::PathBuf;

/// How a new archive is protected.
#[derive(Debug, Default, ClapArgs)]
#[command(next_help_heading = "Protection")]
pub(crate) struct ProtectArgs {
    /// Keep everything readable to whoever can read the place: secrets of the cluster, too.
    #[arg(long, conflicts_with_all = ["recipients", "recipients_files", "generate_keys"])]
    pub unencrypted: bool,
    /// An owner, who will be able to read everything: a public key of age (age1...). Several are wise.
    #[arg(long = "recipient", value_name = "PUBLIC-KEY", value_parser = recipient)]
    pub recipients: Vec<Recipient>,
    /// A file with owners' public keys, one a line.
    #[arg(long = "recipients-file", value_name = "FILE")]
    pub recipients_files: Vec<PathBuf>,
    /// Make a new owner, and write the identity into this file, or into rekindle-identity.txt in this
    /// directory. Nothing is overwritten. Keep one of them off this machine.
    #[arg(long, value_name = "FILE-OR-DIR")]
    pub generate_keys: Vec<PathBuf>,
    /// Take only what this signing key has signed: its public key. Several may be given.
    #[arg(long = "signer", value_name = "PUBLIC-KEY", value_parser = signer)]
    pub signers: Vec<Signer>,
    /// Make a new signing key, and write it into this file; what is saved must be signed with it.
    #[arg(long, value_name = "FILE")]
    pub generate_signing_key: Option<PathBuf>,
}

/// What reading an encrypted archive needs.
#[derive(Debug, Default, ClapArgs)]
#[command(next_help_heading = "Keys")]
pub(crate) struct ReadKeys {
    /// Identity file of an owner, to read what is encrypted; several may be given [default:
    /// REKINDLE_IDENTITY, several with colons between them]
    #[arg(long = "identity", value_name = "FILE")]
    pub identities: Vec<PathBuf>,
    /// What the archive's keys must be: refuses others.
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    pub fingerprint: Option<Fingerprint>,
}

/// What saving into a protected archive needs.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Keys")]
pub(crate) struct WriteKeys {
    /// Signing key file, where the archive takes only what is signed [default: REKINDLE_SIGNING_KEY]
    #[arg(long, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,
    /// What the archive's keys must be, as archive init or archive rekey has printed it [default: what
    /// they were at the first save from this host]
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    pub fingerprint: Option<Fingerprint>,
}

/// Change who can read what is saved from now on.
///
/// Whoever is added reads everything, also what was saved before. Whoever is removed keeps what he could
/// read: a new key pair begins for what comes later, and each host that saves wants its new fingerprint
/// once.
#[derive(Debug, ClapArgs)]
pub(crate) struct RekeyArgs {
    /// The archive.
    pub archive: String,
    /// Add an owner: a public key of age.
    #[arg(long, value_name = "PUBLIC-KEY", value_parser = recipient)]
    pub add: Vec<Recipient>,
    /// Remove an owner.
    #[arg(long, value_name = "PUBLIC-KEY", value_parser = recipient)]
    pub remove: Vec<Recipient>,
    /// Take what this signing key has signed, too.
    #[arg(long, value_name = "PUBLIC-KEY", value_parser = signer)]
    pub add_signer: Vec<Signer>,
    /// Do not take any more what this signing key signs.
    #[arg(long, value_name = "PUBLIC-KEY", value_parser = signer)]
    pub remove_signer: Vec<Signer>,
    /// Print the plan and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub keys: ReadKeys,
}

fn recipient(text: &str) -> Result<Recipient, String> {
    text.parse().map_err(|fault: rekindle_archive::KeyFault| fault.to_string())
}

fn signer(text: &str) -> Result<Signer, String> {
    text.parse().map_err(|fault: rekindle_archive::KeyFault| fault.to_string())
}

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    Fingerprint::parse(text).ok_or_else(|| "a fingerprint has 64 hexadecimal digits".to_owned())
}
