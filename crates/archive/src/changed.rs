//! What the log says of keys behind a revision: what going back to that costs.

use crate::error::Error;
use crate::format::FormatFault;
use crate::tail::Following;
use rekindle_etcd::{KeyValue, Revision};
use std::collections::BTreeMap;

/// Keys that the log changes behind a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The last revision that was looked at.
    pub to: Revision,
    /// Those that are there at the end and were not before, in their order.
    pub created: Vec<Vec<u8>>,
    /// Those that were there before and are not at the end.
    pub deleted: Vec<Vec<u8>>,
    /// So many were there before and are at the end, and were written between.
    pub written: u64,
}

/// A key that was changed.
struct Key {
    was_there: bool,
    is_there: bool,
}

impl Changed {
    /// Whether nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.created.is_empty() && self.deleted.is_empty() && self.written == 0
    }
}

impl Following<'_> {
    /// What the log changes behind a revision that it has, or that is the base's; none where more than so
    /// many bytes of segments would have to be read for it.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn changed_behind(
        &self,
        revision: Revision,
        bytes_max: u64,
    ) -> Result<Option<Changed>, Error> {
        let segments: Vec<_> = self.segments().iter().filter(|it| it.last > revision).collect();
        let bytes = segments.iter().map(|segment| segment.bytes).fold(0, u64::saturating_add);
        if bytes > bytes_max {
            return Ok(None);
        }
        let mut keys: BTreeMap<Vec<u8>, Key> = BTreeMap::new();
        for segment in segments {
            let (name, opened) = self.open(segment)?;
            let damaged = |fault| Error::damaged(&name, fault);
            for (range, entry) in opened.run.blocks() {
                let mut records = opened.records(&range, entry).map_err(damaged)?;
                while let Some(key) = records.advance() {
                    if key.revision <= revision {
                        continue;
                    }
                    let kv = KeyValue::parse(records.value())
                        .map_err(|_| damaged(FormatFault::Senseless { what: "a record" }))?;
                    if kv.key.is_empty() {
                        continue; // It was erased.
                    }
                    let is_there = !key.tombstone;
                    if let Some(known) = keys.get_mut(kv.key) {
                        known.is_there = is_there;
                        continue;
                    }
                    let was_there = key.tombstone || kv.create_revision <= revision.get();
                    keys.insert(kv.key.to_vec(), Key { was_there, is_there });
                }
            }
        }
        let mut changed = Changed { to: self.last(), ..Changed::default() };
        for (name, key) in keys {
            match (key.was_there, key.is_there) {
                (false, true) => changed.created.push(name),
                (true, false) => changed.deleted.push(name),
                (true, true) => changed.written += 1,
                (false, false) => {}
            }
        }
        Ok(Some(changed))
    }
}
