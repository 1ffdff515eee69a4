//! The backup that a cluster may be brought back from.

use super::RecoverArgs;
use crate::archive::{Point, parse_source, shown};
use crate::failure::Failure;
use crate::member::voters;
use crate::source::{Access, Kind, Source, Users};
use rekindle_archive::format::header::Moment;
use rekindle_etcd::Changed;
use rekindle_recovery::recover::{self, Voter};
use std::ffi::OsString;
use std::path::PathBuf;

/// It, and the words with which each host restores it.
#[derive(Clone, Debug)]
pub(super) struct Backup {
    pub name: String,
    pub revision: i64,
    /// Somebody has named this very point of an archive.
    pub is_named: bool,
    /// When it was so, of an archive's.
    pub time: Option<Moment>,
    /// What the archive itself has behind it; none where that is too much to look at, or it is no archive's.
    pub changed: Option<Changed>,
    pub words: Vec<OsString>,
    /// Those that voted when it was so.
    pub voters: Vec<Voter>,
    /// It is a file, which other hosts have not got.
    pub file: Option<PathBuf>,
}

impl Backup {
    /// What the command was told to take.
    pub(super) fn find(args: &RecoverArgs) -> Result<Self, Failure> {
        let path = args.store.source(args.source.as_deref())?;
        let access = Access {
            store: &args.store,
            spool: args.spool.directory(),
            keys: &args.keys,
            point: Some(&args.point),
            users: Users::Accepted(None),
        };
        let source = Source::open_any(&path, None, &access)?;
        let facts = source.backend()?.facts().map_err(Failure::from)?;
        let voters = voters(&facts.members);
        let name = path.display().to_string();
        let mut words: Vec<OsString> = Vec::new();
        if let Kind::Base(base) = &source.kind {
            let point = Point::of(&args.point, crate::archive::now())?;
            let named = || Ok::<_, Failure>(parse_source(&name, &args.store)?.map(|it| it.1));
            let point = point.map_or_else(named, |point| Ok(Some(point)))?;
            let place = name.rsplit_once('@').map_or(&*name, |it| it.0);
            let (revision, time) = (base.revision().get(), base.time());
            let timeline = base.entry.header.facts.timeline;
            words.extend([place.into(), "--to-revision".into(), revision.to_string().into()]);
            words.extend(["--timeline".into(), timeline.to_string().into()]);
            crate::restore::for_words(&args.store, &args.keys, &mut words);
            return Ok(Self {
                name: format!("{place}@{revision} of {}", shown(time)),
                revision,
                is_named: point.is_some_and(|point| point != Point::Latest),
                time: Some(time),
                // What it costs is good to know, and no condition.
                changed: base.changed_since().ok().flatten(),
                words,
                voters,
                file: None,
            });
        }
        let revision = facts.revision().get();
        words.push("-".into());
        let skip = !matches!(source.kind, Kind::Snapshot(_));
        words.extend(skip.then(|| "--skip-hash-check".into()));
        Ok(Self { revision, words, voters, file: Some(path), ..Self::named(name) })
    }

    /// The data of a host, which are in a file now.
    pub(super) fn of_host(name: String, revision: i64, file: PathBuf) -> Self {
        Self { revision, words: vec!["-".into()], file: Some(file), ..Self::named(name) }
    }

    fn named(name: String) -> Self {
        let (is_named, time, changed) = (false, None, None);
        let (words, voters) = (Vec::new(), Vec::new());
        Self { name, revision: 0, is_named, time, changed, words, voters, file: None }
    }

    pub(super) fn facts(&self) -> recover::Backup {
        recover::Backup { revision: self.revision, is_named: self.is_named }
    }
}
