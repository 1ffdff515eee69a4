//! A cluster that is followed into an archive, without a cluster.

use crate::keyspaces::{
    CLUSTER, HOST, Keyspace, Saving, a_spool, advance, cut, now, now_is, revision,
};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, BaseRequest, BaseWritten, Comparison, Error, Journal, LogView, LogWriter, Merging,
    Origin, Progress, Store, Written, prepare_base,
};
use rekindle_etcd::MemberId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// A cluster that is followed into an archive.
pub struct Following {
    pub saving: Saving,
    pub keyspace: Keyspace,
    pub journal: Journal,
    pub writer: LogWriter,
    /// Up to where it was followed.
    pub end: i64,
}

impl Following {
    pub fn new() -> Self {
        Self::into(Saving::new())
    }

    pub fn into(saving: Saving) -> Self {
        let mut keyspace = Keyspace::new();
        for number in 0..20 {
            keyspace.write(&[(&format!("/key/{}", number % 7), false)], 200);
        }
        let base = saving.save(&keyspace);
        let journal =
            Journal::open(&saving.spool.path().join("journal"), 1 << 30, now_is()).unwrap();
        let writer = saving.archive.claim(base.facts.timeline, HOST, "here", now()).unwrap();
        let end = keyspace.revision;
        Self { saving, keyspace, journal, writer, end }
    }

    pub fn write(&mut self, count: i64) {
        for number in 0..count {
            let number = self.keyspace.revision + number;
            let changes = [
                (&*format!("/key/{}", number % 7), number % 5 == 0),
                ("/always", false),
                (&*format!("/other/{}", number % 3), number % 4 == 0),
            ];
            self.keyspace.write(&changes[..1 + (number as usize) % 3], 300);
        }
    }

    /// Writes what has come into the log.
    pub fn follow(&mut self) -> Written {
        let cut = cut(&self.keyspace, self.end + 1, self.keyspace.revision);
        self.end = self.keyspace.revision;
        self.journal.add(&cut).unwrap();
        self.writer.append(&cut, now()).unwrap()
    }

    pub fn view(&self) -> LogView {
        self.journal.view(self.writer.timeline(), revision(self.end))
    }

    pub fn try_save(
        &self,
        keyspace: &Keyspace,
        log: Option<&LogView>,
    ) -> Result<BaseWritten, Error> {
        save(&self.saving.archive, keyspace, self.saving.spool.path(), log)
    }
}

pub fn save(
    archive: &Archive,
    keyspace: &Keyspace,
    tables: &Path,
    log: Option<&LogView>,
) -> Result<BaseWritten, Error> {
    save_as(archive, keyspace, tables, (log, true))
}

/// By somebody who knows of no base, and follows nothing into the archive yet.
pub fn save_first(
    archive: &Archive,
    keyspace: &Keyspace,
    tables: &Path,
) -> Result<BaseWritten, Error> {
    save_knowing(archive, keyspace, tables, (None, false, true))
}

/// With what is known of the archive's log: what a journal has, and whether it is said to be of this history.
pub fn save_as(
    archive: &Archive,
    keyspace: &Keyspace,
    tables: &Path,
    (log, followed): (Option<&LogView>, bool),
) -> Result<BaseWritten, Error> {
    save_knowing(archive, keyspace, tables, (log, followed, false))
}

fn save_knowing(
    archive: &Archive,
    keyspace: &Keyspace,
    tables: &Path,
    (log, followed, first): (Option<&LogView>, bool, bool),
) -> Result<BaseWritten, Error> {
    let (cluster, member) = (CLUSTER, MemberId(2));
    let (etcd, state) = ("3.6.16".to_owned(), now());
    let origin = Origin { cluster, member, etcd, state, current: true };
    let progress = Progress { walked: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let at = now();
    let clock = move || at;
    let plain = BaseRequest::new(archive, &origin, &clock, progress);
    let request = BaseRequest { tables: Some(tables), log, followed, first, ..plain };
    prepare_base(&request, &keyspace.backend())?.publish(now())
}

pub fn agreed(base: &BaseWritten) -> rekindle_archive::Counts {
    match &base.comparison {
        Comparison::Agreed { counts, .. } => *counts,
        other => panic!("{other:?}"),
    }
}

/// The same, followed into another archive.
pub fn again(keyspace: &Keyspace) -> Following {
    let mut following = Following::new();
    following.keyspace = keyspace.clone();
    following.follow();
    following
}

/// Follows for some hours, merging what is due. When each revision came.
pub fn follow_and_merge(following: &mut Following, hours: i64) -> BTreeMap<i64, Moment> {
    let (mut merging, mut came) = (Merging::default(), BTreeMap::new());
    for _ in 0..hours * 60 {
        following.write(1);
        let written = following.follow();
        let kept = following.journal.newest().unwrap().clone();
        came.insert(kept.last.get(), kept.state);
        merging.wrote(kept, written);
        advance(60_000);
        while let Some(merge) = merging.due(now_is()) {
            let merged = following.writer.merger().merge(&merge, now);
            merging.done(&merge, merged, now_is());
        }
    }
    came
}

/// Names of all segments.
pub fn segments(archive: &Archive) -> BTreeSet<String> {
    let listed = archive.store().list("timelines").unwrap().into_iter().map(|it| it.name);
    listed.filter(|name| name.ends_with(".seg")).collect()
}

pub fn of_level(segments: &BTreeSet<String>, level: u8) -> usize {
    segments.iter().filter(|name| name.contains(&format!("/log/{level}/"))).count()
}

/// A directory, and an archive in it by its name.
pub fn a_place() -> (tempfile::TempDir, std::path::PathBuf, Saving) {
    let directory = a_spool();
    let place = directory.path().join("archive");
    std::fs::create_dir(&place).unwrap();
    let mut saving = Saving::new();
    let store = Store::directory(&place).unwrap();
    saving.archive = Archive::init_unencrypted(store, now()).unwrap();
    (directory, place, saving)
}
