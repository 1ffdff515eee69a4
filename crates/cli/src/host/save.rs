//! `rekindle save-files`: files of this host, into an archive, when they have changed.

use super::{parse_host, this_host};
use crate::archive::{Pin, WriteKeys, keep_to_ourselves, now, open, shown, with_signing_key};
use crate::args::{OutputArgs, SpoolArgs, StoreArgs};
use crate::configured;
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use crate::spool::Spool;
use clap::Args as ClapArgs;
use jiff::Timestamp;
use rekindle_agent::files::{Certificate, Collected, certificates, collect, usual};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{Archive, FilesEntry};
use rekindle_etcd::digest::SnapshotDigest;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Save certificates, manifests and configuration of this host into an encrypted archive.
///
/// Without paths all that brings a host of kubeadm, or an etcd under systemd, back, as far as it is there:
/// /etc/kubernetes, the keys with which Kubernetes encrypts at rest, the kubelet's configuration, units, /etc/etcd. With
/// owners and permissions; links are kept as links. Writes nothing where nothing has changed since the last time.
#[derive(Debug, ClapArgs)]
pub(crate) struct SaveFilesArgs {
    /// The archive; it must be encrypted.
    pub archive: String,
    /// Whole paths of files and directories [default: see above]
    pub paths: Vec<PathBuf>,
    /// What this host is called [default: its own name]
    #[arg(long, value_name = "NAME", value_parser = parse_host)]
    pub host: Option<String>,
    /// Write them also where nothing has changed.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub keys: WriteKeys,
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(crate) fn run(args: &SaveFilesArgs) -> Result<(), Failure> {
    keep_to_ourselves();
    let spool = Spool::new(args.spool.directory(), "files")?;
    let archive = open(&args.archive, &args.store)?;
    let said = configured::fingerprint(args.keys.fingerprint, archive.store());
    let pin = Pin::check(spool.directory(), &archive, said)?;
    let archive = with_signing_key(archive, &args.keys)?;
    let asked = asked(args)?;
    let host = args.host.clone().unwrap_or_else(this_host);
    let found = collect(&host, &asked).map_err(Failure::usage)?;
    if found.files.entries.is_empty() {
        let what = format!("there is nothing of {} on this host", asked.join(", "));
        return Err(Failure::new(Code::NotFound, what).remedy("name what is to be saved"));
    }
    let known = Known::new(spool.directory(), &archive, &host);
    let mut digest = SnapshotDigest::new();
    digest.update(&found.files.encode());
    let digest = digest.of_all().to_string();
    let there = match args.force {
        true => None,
        false => known.unchanged(&archive, &digest)?,
    };
    let saved = match there {
        Some(entry) => Saved { name: entry.name, unchanged_since: Some(shown(entry.at)) },
        None => {
            // First of all: what cannot be remembered would be written again and again.
            let now = now();
            known.remember(&archive, &digest, now)?;
            let name = archive.add_files(&found.files, now)?;
            Saved { name, unchanged_since: None }
        }
    };
    pin.keep()?;
    output(&found, &saved).print(args.output.format())?;
    whole(&found)
}

fn asked(args: &SaveFilesArgs) -> Result<Vec<String>, Failure> {
    if args.paths.is_empty() {
        return Ok(usual());
    }
    let asked = args.paths.iter().map(|path| {
        let whole =
            std::path::absolute(path).map_err(|error| Failure::io("looking at", path, &error))?;
        let text = whole.into_os_string().into_string();
        text.map_err(|path| Failure::usage(format!("{} is no text", path.display())))
    });
    asked.collect()
}

/// What was saved where.
struct Saved {
    name: String,
    unchanged_since: Option<String>,
}

/// What this host has saved last: it cannot read it in the archive.
struct Known {
    path: PathBuf,
    host: String,
}

impl Known {
    fn new(directory: &Path, archive: &Archive, host: &str) -> Self {
        Self { path: directory.join(format!("{}.files", archive.id())), host: host.to_owned() }
    }

    /// What is in the archive of this, if that is the newest there.
    fn unchanged(&self, archive: &Archive, digest: &str) -> Result<Option<FilesEntry>, Failure> {
        let read = std::fs::read(&self.path).unwrap_or_default();
        let known: Value = serde_json::from_slice(&read).unwrap_or_default();
        let is = |field: &str, value: &str| known.get(field).and_then(Value::as_str) == Some(value);
        // What was sealed to other keys is sealed anew.
        let fingerprint = archive.fingerprint().to_string();
        if !(is("digest", digest) && is("host", &self.host) && is("fingerprint", &fingerprint)) {
            return Ok(None);
        }
        let newest = archive.files()?.0.into_iter().rfind(|entry| entry.host == self.host);
        let at = known.get("at").and_then(Value::as_i64);
        Ok(newest.filter(|entry| at == Some(entry.at.0)))
    }

    fn remember(&self, archive: &Archive, digest: &str, at: Moment) -> Result<(), Failure> {
        let failure = |error| Failure::io("writing", &self.path, &error);
        let part = self.path.with_added_extension("part");
        let made = self.path.parent().map_or(Ok(()), |parent| {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)
        });
        made.map_err(failure)?;
        let fingerprint = archive.fingerprint().to_string();
        let text = json!({
            "digest": digest, "host": self.host, "at": at.0, "fingerprint": fingerprint,
        });
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&part);
        file.and_then(|mut file| file.write_all(text.to_string().as_bytes()))
            .and_then(|()| std::fs::rename(&part, &self.path))
            .map_err(failure)
    }
}

/// What should be there and is not is told, once the rest is safe.
fn whole(found: &Collected) -> Result<(), Failure> {
    if let Some((path, why)) =
        found.skipped.iter().find(|(_, why)| !why.starts_with("it is neither"))
    {
        let what = format!("saved without {path}: {why}");
        return Err(Failure::new(Code::Failed, what).remedy("run as a user who may read it"));
    }
    match &found.missing[..] {
        [] => Ok(()),
        missing => {
            let what = format!("saved without {}: not there", missing.join(", "));
            Err(Failure::new(Code::NotFound, what).remedy("mount or mend it, or do not name it"))
        }
    }
}

fn output(found: &Collected, saved: &Saved) -> Output {
    let files = &found.files;
    let certificates = certificates(files);
    let soonest = certificates.iter().min_by_key(|it| it.not_after);
    let simple = format!("{}, {}", files.host, saved.name);
    let mut out = Output { simple, ..Output::default() };
    out.add("host", "Host", files.host.clone());
    out.add("file", "File", saved.name.clone());
    out.add("unchanged", "Unchanged", saved.unchanged_since.is_some());
    out.add("entries", "Entries", files.entries.len());
    for (path, why) in &found.skipped {
        eprintln!("warning: {path} was left out: {why}");
    }
    let all: Vec<_> = certificates.iter().filter_map(|it| serde_json::to_value(it).ok()).collect();
    out.json.insert("certificates".to_owned(), all.into());
    let word = match &saved.unchanged_since {
        Some(since) => format!("unchanged since {since}"),
        None => "saved".to_owned(),
    };
    let mut rows = vec![
        ("files", format!("{word}: {} of {}", grouped(files.entries.len()), files.host)),
        ("object", saved.name.clone()),
    ];
    if let Some(Certificate { path, subject, not_after }) = soonest {
        let days = not_after.duration_since(Timestamp::now()).as_hours() / 24;
        rows.push(("expires", format!("{not_after} ({days} days), {subject} in {path}")));
    }
    out.text = output::lines(&rows);
    out
}
