//! What the log says of keys behind a revision: what going back to that costs.

use crate::error::Error;
use crate::format::FormatFault;
use crate::tail::Following;
use rekindle_etcd::{Changed, Changes, KeyValue, Revision};

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
        let mut changes = Changes::behind(revision);
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
                    changes.add(key, &kv);
                }
            }
        }
        Ok(Some(changes.finish(self.last())))
    }
}
