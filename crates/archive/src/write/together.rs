//! Whether whoever wrote the log and this host have followed the same cluster, where nobody here can read the log.
//!
//! Two who saw the same revisions at the same moments, with as many records between them, told by members of one cluster
//! in one term, saw one history: a cluster that goes back does not come to the same revision again within seconds.

use super::BaseRequest;
use crate::error::Error;
use crate::format::header::Moment;
use crate::format::{Facts, TimelineId};
use crate::log::{Kept, LogRange, LogSource};
use crate::plan::cover::SegmentEntry;
use crate::tail::{self, Erased};
use std::cmp::Reverse;

/// Two who are told of a revision at moments no further apart, in milliseconds and by clocks of their own, are told of it
/// together.
const TOGETHER: i64 = 2000;
/// So far must the first and the last of these moments lie apart.
const APART: i64 = 2 * TOGETHER;
/// So many segments are looked at, the newest first.
const LOOKED_AT: usize = 16;

/// Whether this host has seen together with its writers how the log of a timeline ends.
pub(super) fn seen(request: &BaseRequest<'_>, timeline: TimelineId) -> Result<bool, Error> {
    let Some(log) = request.log.filter(|log| log.timeline == timeline && !request.leaves) else {
        return Ok(false);
    };
    let archive = request.archive;
    let erased = Erased::read(archive)?;
    let stock = archive.stock(std::iter::once(timeline))?;
    let mut segments = erased.living_log(&stock, timeline);
    segments.retain(|segment| !segment.is_empty() && !segment.is_redacted());
    segments.sort_by_key(|segment| Reverse((segment.last, segment.first)));
    segments.truncate(LOOKED_AT);
    let mut moments = Vec::new();
    for (segment, header) in segments.iter().zip(tail::headers(archive, &segments)) {
        let facts = match header {
            Ok(header) => header.facts,
            Err(Error::Store(fault)) => return Err(fault.into()),
            Err(_) => break,
        };
        let Some(pieces) = log.around(segment.first, segment.last) else { break };
        if !is_same(pieces, segment, &facts)? {
            return Ok(false);
        }
        moments.push(facts.state);
    }
    let span = moments.iter().max().zip(moments.iter().min());
    Ok(span.is_some_and(|(Moment(last), Moment(first))| last.saturating_sub(*first) >= APART))
}

/// Whether the pieces of a journal have what a segment has, as far as its header says.
fn is_same(pieces: &[Kept], segment: &SegmentEntry, facts: &Facts) -> Result<bool, Error> {
    let Some(last) = pieces.last() else { return Ok(false) };
    let told = (last.witness.cluster, last.witness.term);
    let Some(at) = last.seen(segment.last)? else { return Ok(false) };
    if told != (facts.cluster, facts.term) || (at.0 - facts.state.0).abs() > TOGETHER {
        return Ok(false);
    }
    let sources = pieces.iter().cloned().map(LogSource::Kept).collect();
    let mut rows = LogRange { first: segment.first, last: segment.last, sources }.rows();
    while rows.next_row()?.is_some() {}
    Ok(rows.found().records == facts.records)
}
