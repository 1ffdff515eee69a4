//! The frame of a base: all buckets of a snapshot but for the records, of which it has the last.

use crate::error::Error;
use crate::format::base::FRAME_MAX;
use rekindle_bolt::{BulkWriter, Damage, Db, Halt, Layout, Pair, Part, Visit, check};
use rekindle_etcd::schema;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Most bytes of keys and values.
const BYTES_MAX: usize = FRAME_MAX / 2;

/// Keys and values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The buckets.
#[derive(Default)]
pub(crate) struct Frame {
    buckets: BTreeMap<Vec<u8>, Pairs>,
    bytes: usize,
}

impl Frame {
    /// Reads a frame that was written by [`Self::to_file`], and its page size.
    ///
    /// # Errors
    /// It is damaged.
    pub(crate) fn parse(file: &[u8]) -> Result<(Self, usize), Error> {
        let db = Db::open(file).map_err(rekindle_etcd::Error::from)?;
        let mut reading = Reading { frame: Self::default(), bucket: Vec::new() };
        check(&db, &mut reading).map_err(|halt| match halt {
            Halt::Read(error) => rekindle_etcd::Error::from(error).into(),
            Halt::Stopped(error) => error,
        })?;
        Ok((reading.frame, db.page_size()))
    }

    /// A bucket is there, if only an empty one.
    pub(crate) fn bucket(&mut self, name: &[u8]) {
        self.buckets.entry(name.to_vec()).or_default();
    }

    /// Adds a pair to a bucket; they come in order.
    ///
    /// # Errors
    /// [`Error::FrameTooLarge`].
    pub(crate) fn add(&mut self, bucket: &[u8], pair: Pair<'_>) -> Result<(), Error> {
        self.bytes += pair.key.len() + pair.value.len();
        if self.bytes > BYTES_MAX {
            return Err(Error::FrameTooLarge { max: BYTES_MAX });
        }
        let pairs = self.buckets.entry(bucket.to_vec()).or_default();
        pairs.push((pair.key.to_vec(), pair.value.to_vec()));
        Ok(())
    }

    /// This is the last record, and not the one before: a restore tells the revision by it.
    pub(crate) fn set_last_record(&mut self, key: &[u8], value: &[u8]) {
        let pairs = self.buckets.entry(schema::KEY.to_vec()).or_default();
        match pairs.first_mut() {
            Some((its_key, its_value)) => {
                its_key.clear();
                its_value.clear();
                its_key.extend_from_slice(key);
                its_value.extend_from_slice(value);
            }
            None => pairs.push((key.to_vec(), value.to_vec())),
        }
    }

    /// Takes over the pairs of a bucket of another frame whose keys this one has not.
    ///
    /// # Errors
    /// [`Error::FrameTooLarge`].
    pub(crate) fn add_missing(&mut self, bucket: &[u8], mut other: Self) -> Result<(), Error> {
        let Some(theirs) = other.buckets.remove(bucket) else { return Ok(()) };
        let mut all: BTreeMap<_, _> = self.buckets.remove(bucket).into_iter().flatten().collect();
        for (key, value) in theirs {
            if let Entry::Vacant(missing) = all.entry(key) {
                self.bytes += missing.key().len() + value.len();
                missing.insert(value);
            }
        }
        self.buckets.insert(bucket.to_vec(), all.into_iter().collect());
        match self.bytes > BYTES_MAX {
            true => Err(Error::FrameTooLarge { max: BYTES_MAX }),
            false => Ok(()),
        }
    }

    /// What a bucket has, in the order of keys; nothing where there is none.
    pub(crate) fn pairs(&self, bucket: &[u8]) -> &[(Vec<u8>, Vec<u8>)] {
        self.buckets.get(bucket).map_or(&[], Vec::as_slice)
    }

    /// What a bucket has now, in the order of keys.
    pub(crate) fn replace(&mut self, bucket: &[u8], pairs: Pairs) {
        self.buckets.insert(bucket.to_vec(), pairs);
    }

    /// A bbolt file of them.
    ///
    /// # Errors
    /// [`Error::Source`] where bbolt has no such page size, or cannot hold a pair.
    pub(crate) fn to_file(&self, page_size: usize) -> Result<Vec<u8>, Error> {
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

/// A frame that is being read.
struct Reading {
    frame: Frame,
    bucket: Vec<u8>,
}

impl Visit for Reading {
    type Stop = Error;

    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.bucket = name.to_vec();
        self.frame.bucket(name);
        Ok(())
    }

    fn pair(&mut self, pair: Pair<'_>) -> Result<(), Error> {
        if self.bucket == schema::KEY {
            // It counts for nothing, as when it was written.
            self.frame.set_last_record(pair.key, pair.value);
            return Ok(());
        }
        self.frame.add(&self.bucket, pair)
    }

    fn damage(&mut self, part: Part, damage: &Damage) -> Result<(), Error> {
        refuse(part, damage)
    }
}

/// What is archived has no damage in its content.
///
/// # Errors
/// [`Error::Source`] for such damage.
pub(crate) fn refuse(part: Part, damage: &Damage) -> Result<(), Error> {
    match part {
        Part::Bookkeeping => Ok(()),
        Part::Content => {
            let damage = rekindle_bolt::Error::from(damage.clone());
            Err(rekindle_etcd::Error::from(damage).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut frame = Frame::default();
        frame.bucket(b"empty");
        let pair = |key, value| Pair { key, value, is_bucket: false };
        frame.add(b"lease", pair(b"a", b"1")).unwrap();
        frame.add(b"lease", pair(b"b", b"")).unwrap();
        frame.set_last_record(b"first", b"x");
        frame.set_last_record(b"last", b"");
        let mut other = Frame::default();
        other.add(b"lease", pair(b"aa", b"3")).unwrap();
        other.add(b"lease", pair(b"b", b"4")).unwrap();
        frame.add_missing(b"lease", other).unwrap();
        let leases = [(b"a", b"1".as_slice()), (b"b", b"")]
            .map(|(key, value)| (key.to_vec(), value.to_vec()));
        let mut want = leases.to_vec();
        want.insert(1, (b"aa".to_vec(), b"3".to_vec()));
        assert_eq!(frame.buckets[b"lease".as_slice()], want);
        let file = frame.to_file(4096).unwrap();
        let (read, page_size) = Frame::parse(&file).unwrap();
        assert_eq!((read.buckets, page_size), (frame.buckets, 4096));
    }
}
