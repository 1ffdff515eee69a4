//! The archives that rows are measured on: made of a server with a snapshot's keys, one for each use.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Bench;
use super::archive_rows::{self as names, Kept};
use super::data::{Server, Snapshot};
use super::runner::Outcome;
use crate::{checkout, etcd};

/// Rows that read an archive.
const READING: [&str; 4] =
    [names::RESTORE, names::RESTORE_SEALED, names::PROVE, names::PROVE_SEALED];

impl Bench<'_> {
    /// Everything about archives, at one size.
    pub fn archives(&self, snapshot: &Snapshot) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        if [names::FIRST, names::SECOND].iter().chain(&READING).any(|name| self.wants(name)) {
            outcomes = self.of_a_server(snapshot)?;
        }
        if self.wants(names::LIST) {
            let place = self.store.kept("many").display().to_string();
            let count = names::BASES.to_string();
            let words = [&self.programs.many_bases, &place, &count];
            checkout::run_quietly(&mut etcd::command(&words))?;
            outcomes.extend(self.measure([self.maker(snapshot).list(&place)])?);
        }
        Ok(outcomes)
    }

    fn of_a_server(&self, snapshot: &Snapshot) -> Result<Vec<Outcome>> {
        let maker = self.maker(snapshot);
        let server = self.store.server(snapshot)?;
        let endpoint = server.endpoint();
        let mut outcomes = self.measure([maker.first_base(&endpoint)])?;
        let is_read = READING.iter().any(|name| self.wants(name));
        let read = is_read.then(|| self.kept_pair(snapshot, &server)).transpose()?;
        if self.wants(names::SECOND) {
            let (kept, _) = self.keep(snapshot, "churned", &server)?;
            outcomes.extend(self.measure([maker.second_base(&kept, &endpoint)])?);
        }
        // What follows has the cores to itself.
        drop(server);
        if let Some((plain, sealed, bytes)) = read {
            outcomes.extend(self.measure([
                maker.restore_base(&plain),
                maker.restore_sealed(&sealed, &plain),
                maker.prove(&plain, bytes),
                maker.prove(&sealed, bytes),
            ])?);
        }
        Ok(outcomes)
    }

    /// One that is not encrypted and one that is, with the bytes of their keyspace.
    fn kept_pair(&self, snapshot: &Snapshot, server: &Server) -> Result<(Kept, Kept, u64)> {
        let (plain, bytes) = self.keep(snapshot, "plain", server)?;
        let (sealed, _) = self.keep(snapshot, SEALED, server)?;
        Ok((plain, sealed, bytes))
    }

    /// Makes an archive with a base, and says how many bytes of records that has.
    fn keep(&self, snapshot: &Snapshot, name: &str, server: &Server) -> Result<(Kept, u64)> {
        let path = |part: &str| self.store.kept(&format!("{name}{part}")).display().to_string();
        let identity = (name == SEALED).then(|| path("-identity"));
        let kept = Kept { place: path(""), spool: path("-spool"), identity };
        let protection = match &kept.identity {
            None => vec!["--unencrypted"],
            Some(file) => vec!["--generate-keys", file],
        };
        let maker = self.maker(snapshot);
        checkout::run_quietly(&mut etcd::command(&maker.init(&kept.place, &protection)))?;
        let save = maker.save_base(&kept.place, &kept.spool, &server.endpoint());
        let said = checkout::run_quietly(&mut etcd::command(&save))?.stdout;
        let said: Value = serde_json::from_slice(&said).context("a save prints JSON")?;
        let bytes = said["size"].as_u64().context("a save prints the size of what it saved")?;
        Ok((kept, bytes))
    }
}

/// The name of the one that is encrypted.
const SEALED: &str = "sealed";
