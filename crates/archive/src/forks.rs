//! Segments that have the same revisions: whether they tell the same of them.
//!
//! Writers that took turns, and merging, leave such behind. Where they differ, two histories were written as
//! one, and nobody can say which of them is the cluster's.

use crate::archive::Archive;
use crate::error::Error;
use crate::format::block::{self, Entry};
use crate::format::{FormatFault, Kind};
use crate::object::{self, OpenedRun};
use crate::plan::cover::SegmentEntry;
use rekindle_etcd::{RecordKey, Revision};
use std::ops::Range;

/// Two segments that tell different things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fork {
    /// The names of both.
    pub objects: [String; 2],
    /// Of the first revision of which they differ.
    pub revision: Revision,
}

impl Fork {
    pub(crate) fn into_error(self, archive: &Archive) -> Error {
        let objects = self.objects.map(|name| archive.store().full_name(&name));
        Error::Forked { objects, revision: self.revision }
    }
}

/// Compares all segments of a timeline that share revisions. What was erased from some is no difference, and
/// what cannot be read is left out.
///
/// # Errors
/// [`Error::Store`]; those of `go_on`, which is asked before each of them.
pub(crate) fn find(
    archive: &Archive,
    mut segments: Vec<&SegmentEntry>,
    mut go_on: impl FnMut() -> Result<(), Error>,
) -> Result<Vec<Fork>, Error> {
    segments.retain(|segment| !segment.is_empty());
    segments.sort_by_key(|segment| (segment.first, segment.last));
    let mut forks = Vec::new();
    // The one that reaches farthest so far. Whatever shares revisions with any before shares them with it, so
    // that all are compared, one through the other.
    let mut farthest: Option<(&SegmentEntry, Option<OpenedRun>)> = None;
    for segment in segments {
        go_on()?;
        let Some((before, opened)) = farthest.as_mut().filter(|(it, _)| it.last >= segment.first)
        else {
            farthest = Some((segment, None));
            continue;
        };
        if opened.is_none() {
            *opened = open(archive, before)?;
        }
        let theirs = open(archive, segment)?;
        if let (Some(one), Some(other)) = (&opened, &theirs)
            && !one.header.facts.erased
            && !other.header.facts.erased
        {
            let shared = (segment.first, segment.last.min(before.last));
            let differ = first_difference(one, other, shared);
            let differ = differ.map_err(|fault| Error::damaged(&segment.name, fault))?;
            forks.extend(differ.map(|revision| Fork {
                objects: [before.name.clone(), segment.name.clone()],
                revision,
            }));
        }
        if segment.last > before.last {
            farthest = Some((segment, theirs));
        }
    }
    Ok(forks)
}

fn open(archive: &Archive, segment: &SegmentEntry) -> Result<Option<OpenedRun>, Error> {
    let store = archive.store();
    let bytes = store.read(&segment.name, segment.bytes)?;
    let name = store.full_name(&segment.name);
    Ok(object::open_run(archive, &name, Kind::Segment, bytes).ok())
}

/// The first of some revisions of which two runs have different records.
fn first_difference(
    one: &OpenedRun,
    other: &OpenedRun,
    (first, last): (Revision, Revision),
) -> Result<Option<Revision>, FormatFault> {
    let within = |run| Within { blocks: run_blocks(run), run, current: None, first, last };
    let (mut one, mut other) = (within(one), within(other));
    loop {
        let differ = match (one.advance()?, other.advance()?) {
            (None, None) => return Ok(None),
            (Some(this), Some(that)) if this == that => {
                (one.value() != other.value()).then_some(this.revision)
            }
            (this, that) => this.into_iter().chain(that).map(|key| key.revision).min(),
        };
        if differ.is_some() {
            return Ok(differ);
        }
    }
}

/// Where a block lies, and what the index says of it.
type Block<'a> = (Range<usize>, &'a Entry);

fn run_blocks(run: &OpenedRun) -> std::vec::IntoIter<Block<'_>> {
    run.run.blocks().collect::<Vec<_>>().into_iter()
}

/// The records of some revisions of a run.
struct Within<'a> {
    run: &'a OpenedRun,
    blocks: std::vec::IntoIter<Block<'a>>,
    current: Option<block::Records>,
    first: Revision,
    last: Revision,
}

impl Within<'_> {
    fn advance(&mut self) -> Result<Option<RecordKey>, FormatFault> {
        loop {
            if let Some(key) = self.current.as_mut().and_then(block::Records::advance) {
                match key.revision {
                    revision if revision < self.first => continue,
                    revision if revision > self.last => return Ok(None),
                    _ => return Ok(Some(key)),
                }
            }
            let needed = self.blocks.find(|(_, entry)| entry.last.revision >= self.first);
            let Some((range, entry)) = needed else { return Ok(None) };
            self.current = Some(self.run.records(&range, entry)?);
        }
    }

    fn value(&self) -> &[u8] {
        self.current.as_ref().map(block::Records::value).unwrap_or_default()
    }
}
