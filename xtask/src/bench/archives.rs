//! The archives that rows are measured on: made of a server with a snapshot's keys, one for each use.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Bench;
use super::archive_rows::{self as names, Kept};
use super::data::{self, Server, Snapshot};
use super::minio::Minio;
use super::rows::Row;
use super::runner::Outcome;
use super::series::Verdict;
use crate::{checkout, etcd};

/// Rows that read an archive of a folder.
const READING: [&str; 4] =
    [names::RESTORE, names::RESTORE_SEALED, names::PROVE, names::PROVE_SEALED];

/// Logs of so many updates, encrypted or not.
const LOGS: [(&str, u64, bool); 3] = [
    (names::RESTORE_LOG, 300_000, false),
    (names::RESTORE_LOG_SEALED, 300_000, true),
    (names::RESTORE_LONG_LOG, 3_000_000, false),
];
/// Keys of the base before each.
const LOG_KEYS: &str = "20000";

/// A restore makes fewer requests for a GB of keyspace.
const REQUESTS_PER_GB: f64 = 400.0;

/// What came of the rows about archives.
#[derive(Default)]
pub struct Archives {
    pub outcomes: Vec<Outcome>,
    /// How many requests a restore makes, as a line.
    pub requests: String,
}

impl Bench<'_> {
    /// Everything about archives, at one size.
    pub fn archives(&self, snapshot: &Snapshot) -> Result<Archives> {
        let mut all = Archives::default();
        let of_a_server = [names::FIRST, names::SECOND, names::RESTORE_S3];
        if of_a_server.iter().chain(&READING).any(|name| self.wants(name)) {
            self.of_a_server(snapshot, &mut all)?;
        }
        for (name, updates, sealed) in LOGS.into_iter().filter(|(name, ..)| self.wants(name)) {
            let kept = self.in_folder("log", sealed);
            self.init(&kept)?;
            let words = [&self.programs.a_log, &kept.place, LOG_KEYS, &updates.to_string()];
            checkout::run_quietly(&mut etcd::command(&words))?;
            let row = self.maker(snapshot).restore_log(name, &kept, updates);
            all.outcomes.extend(self.measure([row])?);
            data::remove(&kept.files)?;
        }
        if self.wants(names::LIST) {
            let place = self.store.kept("many").display().to_string();
            let count = names::BASES.to_string();
            let words = [&self.programs.many_bases, &place, &count];
            checkout::run_quietly(&mut etcd::command(&words))?;
            all.outcomes.extend(self.measure([self.maker(snapshot).list(&place)])?);
        }
        Ok(all)
    }

    fn of_a_server(&self, snapshot: &Snapshot, all: &mut Archives) -> Result<()> {
        let maker = self.maker(snapshot);
        let server = self.store.server(snapshot)?;
        let endpoint = server.endpoint();
        all.outcomes.extend(self.measure([maker.first_base(&endpoint)])?);
        let is_read = READING.iter().any(|name| self.wants(name));
        let read = is_read.then(|| self.two_kept(&server)).transpose()?;
        let stored = self.wants(names::RESTORE_S3).then(|| self.in_minio(&server)).transpose()?;
        if self.wants(names::SECOND) {
            let kept = self.in_folder("churned", false);
            self.fill(&kept, &server)?;
            all.outcomes.extend(self.measure([maker.second_base(&kept, &endpoint)])?);
        }
        // What follows has the cores to itself.
        drop(server);
        if let Some((plain, sealed, bytes)) = read {
            all.outcomes.extend(self.measure([
                maker.restore_base(&plain),
                maker.restore_sealed(&sealed, &plain),
                maker.prove(&plain, bytes),
                maker.prove(&sealed, bytes),
            ])?);
        }
        if let Some((minio, kept, bytes)) = stored {
            let row = maker.restore_s3(&kept);
            all.requests = self.count(&minio, &row, bytes)?;
            all.outcomes.extend(self.measure([row])?);
        }
        Ok(())
    }

    /// One that is not encrypted and one that is, with the bytes of their keyspace.
    fn two_kept(&self, server: &Server) -> Result<(Kept, Kept, u64)> {
        let (plain, sealed) = (self.in_folder("plain", false), self.in_folder("sealed", true));
        self.fill(&sealed, server)?;
        let bytes = self.fill(&plain, server)?;
        Ok((plain, sealed, bytes))
    }

    fn in_folder(&self, name: &str, sealed: bool) -> Kept {
        let path = |part: &str| self.store.kept(&format!("{name}{part}")).display().to_string();
        Kept {
            place: path(""),
            spool: path("-spool"),
            identity: sealed.then(|| path("-identity")),
            files: self.store.kept(name),
            ..Kept::default()
        }
    }

    fn in_minio(&self, server: &Server) -> Result<(Minio, Kept, u64)> {
        let minio = Minio::start(&self.store.kept("minio"), self.runner.interrupt)?;
        let kept = Kept {
            place: minio.place(),
            spool: self.store.kept("minio-spool").display().to_string(),
            identity: None,
            options: minio.options(),
            variables: minio.variables(),
            files: minio.drive(),
        };
        let bytes = self.fill(&kept, server)?;
        Ok((minio, kept, bytes))
    }

    /// Makes the archive, saves a base into it, and says how many bytes of records that has.
    fn fill(&self, kept: &Kept, server: &Server) -> Result<u64> {
        self.init(kept)?;
        let save = kept.save(&self.programs.rekindle, &server.endpoint());
        let said = checkout::run_quietly(&mut etcd::command(&save))?.stdout;
        let said: Value = serde_json::from_slice(&said).context("a save prints JSON")?;
        said["size"].as_u64().context("a save prints the size of what it saved")
    }

    fn init(&self, kept: &Kept) -> Result<()> {
        let rekindle = &self.programs.rekindle;
        let init = ["archive", "init", &kept.place];
        let init = match &kept.identity {
            None => kept.command(rekindle, &[&init[..], &["--unencrypted"]].concat()),
            Some(file) => kept.command(rekindle, &[&init[..], &["--generate-keys", file]].concat()),
        };
        checkout::run_quietly(&mut etcd::command(&init)).map(drop)
    }

    /// The requests that a restore makes.
    fn count(&self, minio: &Minio, restore: &Row, bytes: u64) -> Result<String> {
        let before = minio.requests_at_rest()?;
        self.runner.once(restore)?;
        let requests = (minio.requests_at_rest()? - before) as f64;
        let gigabytes = bytes as f64 / 1e9;
        let verdict = Verdict::amount(requests / gigabytes, REQUESTS_PER_GB, |n| format!("{n:.0}"));
        Ok(format!(
            "A restore of {gigabytes:.2} GB of records from MinIO makes {requests} requests; a GB {verdict}."
        ))
    }
}
