//! Segments that have the same revisions: whether they tell the same of them.
//!
//! Writers that took turns, and merging, leave such behind. Where they differ, two histories were written as
//! one, and nobody can say which of them is the cluster's.

use crate::archive::Archive;
use crate::error::Error;
use crate::format::FormatFault;
use crate::object::{self, OpenedRun};
use crate::plan::cover::SegmentEntry;
use rekindle_etcd::Revision;

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
    // The readable one that reaches farthest so far. Whatever shares revisions with any before shares them with
    // it, so that all are compared, one through the other.
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
        let Some(one) = opened else {
            farthest = Some((segment, None));
            continue;
        };
        let Some(other) = open(archive, segment)? else { continue };
        let shared = (segment.first, segment.last.min(before.last));
        match first_difference(one, &other, shared) {
            Ok(differ) => forks.extend(differ.map(|revision| Fork {
                objects: [before.name.clone(), segment.name.clone()],
                revision,
            })),
            // A block of one of them is damaged: whoever reads it is told so.
            Err(_) => continue,
        }
        if segment.last > before.last {
            farthest = Some((segment, Some(other)));
        }
    }
    Ok(forks)
}

/// None where it is damaged.
fn open(archive: &Archive, segment: &SegmentEntry) -> Result<Option<OpenedRun>, Error> {
    match object::read_segment(archive, &segment.name, segment.bytes) {
        Err(Error::Store(fault)) => Err(fault.into()),
        read => Ok(read.ok()),
    }
}

/// The first of some revisions of which two runs have different records.
fn first_difference(
    one: &OpenedRun,
    other: &OpenedRun,
    (first, last): (Revision, Revision),
) -> Result<Option<Revision>, FormatFault> {
    let erased = [one, other].map(|run| run.header.facts.erased);
    let (mut one, mut other) = (one.within(first, last), other.within(first, last));
    // What was erased from one of them is empty there.
    let is_blank = |value: &[u8], erased: bool| erased && value.is_empty();
    loop {
        let differ = match (one.advance()?, other.advance()?) {
            (None, None) => return Ok(None),
            (Some(this), Some(that)) if this == that => {
                let (mine, theirs) = (one.value(), other.value());
                let is_blank = is_blank(mine, erased[0]) || is_blank(theirs, erased[1]);
                (mine != theirs && !is_blank).then_some(this.revision)
            }
            (this, that) => this.into_iter().chain(that).map(|key| key.revision).min(),
        };
        if differ.is_some() {
            return Ok(differ);
        }
    }
}
