//! The walk over a snapshot: records go into blocks for where they belong, the rest is kept.

use super::pack::ToWork;
use crate::error::Error;
use crate::format::base::FRAME_MAX;
use crate::format::block;
use crate::plan::reuse::{Route, To};
use crate::write::Progress;
use rekindle_bolt::{BulkWriter, Damage, Layout, Pair, Part, ReadAt, Visit};
use rekindle_etcd::{
    Backend, Ended, HashKvHasher, HashRequest, KeyCount, RecordDamage, RecordFault, RecordKey,
    Status, read_record, schema,
};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

/// Keys and values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

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
    buckets: BTreeMap<Vec<u8>, Pairs>,
    bytes: usize,
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
        if self.block.is_full_before(pair.value.len()) && self.may_end_before(key) {
            self.hand_over()?;
        }
        let added = self.block.add(key, pair.value, kv.key);
        added.map_err(|fault| Error::Record { record: key.to_string(), fault })?;
        // The last one stays: the frame tells the revision by it.
        let pairs = self.small.buckets.entry(schema::KEY.to_vec()).or_default();
        match pairs.first_mut() {
            Some((key, value)) => {
                key.clear();
                value.clear();
                key.extend_from_slice(pair.key);
                value.extend_from_slice(pair.value);
            }
            None => pairs.push((pair.key.to_vec(), pair.value.to_vec())),
        }
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
        self.small.buckets.entry(name.to_vec()).or_default();
        Ok(())
    }

    fn pair(&mut self, pair: Pair<'_>) -> Result<(), Error> {
        if pair.is_bucket {
            return Err(rekindle_etcd::Error::from(damage(pair, RecordFault::Bucket)).into());
        }
        if self.bucket == schema::KEY {
            return self.record(pair);
        }
        self.small.bytes += pair.key.len() + pair.value.len();
        if self.small.bytes > FRAME_MAX / 2 {
            return Err(Error::FrameTooLarge { max: FRAME_MAX / 2 });
        }
        let bucket = self.small.buckets.entry(self.bucket.clone()).or_default();
        bucket.push((pair.key.to_vec(), pair.value.to_vec()));
        Ok(())
    }

    fn damage(&mut self, part: Part, damage: &Damage) -> Result<(), Error> {
        match part {
            Part::Bookkeeping => Ok(()),
            Part::Content => {
                let damage = rekindle_bolt::Error::from(damage.clone());
                Err(rekindle_etcd::Error::from(damage).into())
            }
        }
    }
}

impl Small {
    /// A bbolt file of them.
    pub(super) fn frame(&self, page_size: usize) -> Result<Vec<u8>, Error> {
        let layout = Layout::new(page_size, page_size).ok_or(rekindle_etcd::Error::NotEtcd)?;
        let mut writer = BulkWriter::new(Vec::new(), layout)?;
        for (name, pairs) in &self.buckets {
            let mut bucket = writer.bucket(name)?;
            for (key, value) in pairs {
                bucket.put(key, value)?;
            }
            writer = bucket.finish()?;
        }
        let finished = writer.finish()?;
        let mut frame = finished.out;
        let metas = frame.iter_mut().zip(&finished.metas);
        metas.for_each(|(byte, meta)| *byte = *meta);
        Ok(frame)
    }
}
