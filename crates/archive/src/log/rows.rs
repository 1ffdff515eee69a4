//! The records of a range of the log, as a comparison with a snapshot wants them.

use super::journal::{Kept, LogRange};
use crate::error::Error;
use crate::format::block::{self, Fingerprint};
use crate::format::filter::KeyHash;
use crate::format::run::Run;
use crate::format::{DIGEST, FormatFault, LogDigest, ValueDigests, segment};
use crate::write::Row;
use rekindle_etcd::{KeyValue, RecordKey, Revision};
use std::vec::IntoIter;

/// Goes through a range, and digests it on the way.
pub(crate) struct LogRows {
    first: Revision,
    last: Revision,
    kept: IntoIter<Kept>,
    blocks: IntoIter<block::Records>,
    records: Option<block::Records>,
    digests: ValueDigests,
    found: LogFound,
    log: LogDigest,
}

/// What a range turned out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogFound {
    /// First and last record.
    pub span: Option<(RecordKey, RecordKey)>,
    pub records: u64,
    pub digest: [u8; DIGEST],
}

impl LogRows {
    pub(super) fn new(range: LogRange) -> Self {
        let LogRange { first, last, kept } = range;
        Self {
            first,
            last,
            kept: kept.into_iter(),
            blocks: Vec::new().into_iter(),
            records: None,
            digests: ValueDigests::default(),
            found: LogFound::default(),
            log: LogDigest::default(),
        }
    }

    /// The next record; none at the end.
    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, Error> {
        loop {
            let Some(records) = &mut self.records else {
                if !self.go_on()? {
                    return self.end().map(|()| None);
                }
                continue;
            };
            let Some(key) = records.advance() else {
                self.records = None;
                continue;
            };
            if key.revision < self.first || key.revision > self.last {
                continue;
            }
            let value = records.value();
            let name = KeyValue::parse(value).map(|kv| KeyHash::of(kv.key));
            let name =
                name.map_err(|_| damaged(key, FormatFault::Senseless { what: "a record" }))?;
            let print = Fingerprint { key, name, value: self.digests.of(value) };
            self.log.add(key, &print.value);
            let row = Row::new(&print, self.found.records);
            self.found.records += 1;
            let (first, _) = self.found.span.unwrap_or((key, key));
            self.found.span = Some((first, key));
            return Ok(Some(row));
        }
    }

    /// What it was, once all of it has come.
    pub(crate) fn found(self) -> LogFound {
        LogFound { digest: self.log.value(), ..self.found }
    }

    /// The next block; false where there is none.
    fn go_on(&mut self) -> Result<bool, Error> {
        self.records = self.blocks.next();
        if self.records.is_some() {
            return Ok(true);
        }
        let Some(kept) = self.kept.next() else { return Ok(false) };
        let cut = kept.read()?;
        let opened = || {
            let (_, content) = segment::parse(&cut.content)?;
            let run = Run::parse_index(content)?;
            let open = |(range, entry)| Run::open(content, &range, entry);
            run.blocks().map(open).collect::<Result<Vec<_>, _>>()
        };
        let first = RecordKey::first_of(kept.first);
        self.blocks = opened().map_err(|fault| damaged(first, fault))?.into_iter();
        Ok(true)
    }

    /// All of it has come.
    fn end(&self) -> Result<(), Error> {
        match self.found.span.map(|(first, last)| (first.revision, last.revision)) {
            Some(span) if span == (self.first, self.last) => Ok(()),
            _ => {
                let first = RecordKey::first_of(self.first);
                Err(damaged(first, FormatFault::Ends { what: "the journal" }))
            }
        }
    }
}

fn damaged(key: RecordKey, fault: FormatFault) -> Error {
    Error::Journal { path: format!("revision {}", key.revision), cause: fault.to_string() }
}
