//! The walk over a snapshot: records go into blocks for where they belong, the rest is kept.

use super::pack::ToWork;
use crate::error::Error;
use crate::format::block::{self, Packing};
use crate::frame::{self, Frame};
use crate::plan::reuse::{Route, To};
use crate::write::Progress;
use rekindle_bolt::{Damage, Pair, Part, ReadAt, Visit};
use rekindle_etcd::{
    Backend, Ended, HashKvHasher, HashRequest, KeyCount, RecordDamage, RecordFault, RecordKey,
    Status, read_record, schema,
};
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

/// The walk.
pub(super) struct Walk<'a> {
    to_work: &'a SyncSender<ToWork>,
    progress: &'a Progress<'a>,
    routes: &'a [Route],
    /// The route of the block that is being filled.
    route: usize,
    block: block::Builder,
    blocks: u64,
    bucket: Vec<u8>,
    hasher: Option<HashKvHasher>,
    pub(super) small: Small,
}

/// What the walk has found out.
pub(super) struct Walked {
    pub status: Status,
    pub hash: u32,
}

/// All buckets but the records.
#[derive(Default)]
pub(super) struct Small {
    pub(super) frame: Frame,
    pub(super) kubernetes: bool,
    /// Bytes of the records' blocks before compression.
    pub(super) record_bytes: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        to_work: &'a SyncSender<ToWork>,
        routes: &'a [Route],
        progress: &'a Progress<'a>,
    ) -> Self {
        Self {
            to_work,
            progress,
            routes,
            route: 0,
            block: block::Builder::default(),
            blocks: 0,
            bucket: Vec::new(),
            hasher: None,
            small: Small::default(),
        }
    }

    /// Walks over all of it, and tells its status and its HashKV on the way.
    pub(super) fn run<S: ReadAt>(&mut self, backend: &Backend<S>) -> Result<Walked, Error> {
        self.hasher = Some(HashKvHasher::new(&HashRequest::default(), &backend.facts()?)?);
        // Memory stays small, however many keys there are.
        let status = backend.status_along(KeyCount::Reckoned, self);
        let status = status.map_err(|ended| match ended {
            Ended::Status(error) => Error::Source(error),
            Ended::Along(error) => error,
        })?;
        self.hand_over()?;
        let hash = self.hasher.take().ok_or(Error::Panicked)?.finish().hash;
        Ok(Walked { status, hash })
    }

    fn record(&mut self, pair: Pair<'_>) -> Result<(), Error> {
        let (key, kv) =
            read_record(pair).map_err(|fault| rekindle_etcd::Error::from(damage(pair, fault)))?;
        self.small.kubernetes |= schema::is_kubernetes(kv.key);
        if let Some(hasher) = &mut self.hasher {
            // None is of a later revision than the last.
            let _ = hasher.add(pair)?;
        }
        let bytes = (pair.key.len() + pair.value.len()) as u64;
        self.progress.walked.fetch_add(bytes, Ordering::Relaxed);
        self.go_on_to(key)?;
        if self.block.is_full_before(pair.value.len(), Packing::QUICK) && self.may_end_before(key) {
            self.hand_over()?;
        }
        let added = self.block.add(key, pair.value, kv.key);
        added.map_err(|fault| Error::Record { record: key.to_string(), fault })?;
        self.small.frame.set_last_record(pair.key, pair.value);
        Ok(())
    }

    /// The route of this record; what was filled for another one is handed over.
    fn go_on_to(&mut self, key: RecordKey) -> Result<(), Error> {
        let is_behind = |route: &Route| route.last.is_some_and(|last| last < key);
        if self.routes.get(self.route).is_some_and(is_behind) {
            self.hand_over()?;
            let rest = self.routes.get(self.route..).unwrap_or_default();
            self.route += rest.iter().take_while(|route| is_behind(route)).count();
        }
        Ok(())
    }

    fn to(&self) -> To {
        self.routes.get(self.route).map_or(To::Pack, |route| route.to)
    }

    /// A segment has whole revisions, so its blocks have.
    fn may_end_before(&self, key: RecordKey) -> bool {
        self.to() != To::Log || self.block.last().is_none_or(|last| last.revision < key.revision)
    }

    fn hand_over(&mut self) -> Result<(), Error> {
        if self.progress.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let Some(block) = self.block.take() else { return Ok(()) };
        self.small.record_bytes += block.bytes();
        let work = ToWork { number: self.blocks, route: self.route, to: self.to(), block };
        self.blocks += 1;
        // Who is gone has failed, and is asked why.
        self.to_work.send(work).map_err(|_| Error::Stopped)
    }
}

fn damage(pair: Pair<'_>, fault: RecordFault) -> RecordDamage {
    RecordDamage { key: pair.key.to_vec(), fault }
}

impl Visit for Walk<'_> {
    type Stop = Error;

    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.bucket = name.to_vec();
        self.small.frame.bucket(name);
        Ok(())
    }

    fn pair(&mut self, pair: Pair<'_>) -> Result<(), Error> {
        if pair.is_bucket {
            return Err(rekindle_etcd::Error::from(damage(pair, RecordFault::Bucket)).into());
        }
        if self.bucket == schema::KEY {
            return self.record(pair);
        }
        self.small.frame.add(&self.bucket, pair)
    }

    fn damage(&mut self, part: Part, damage: &Damage) -> Result<(), Error> {
        frame::refuse(part, damage)
    }
}
