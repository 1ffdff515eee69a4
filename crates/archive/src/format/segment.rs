//! A part of the log: all records of some revisions, and what is known of when they came.
//!
//! ```text
//! segment
//!    varint  sections
//!    one a section
//!       varint  sort: an even one may be passed over by who does not know it, an odd one may not
//!       sized   its bytes
//!    run
//!
//! section 2: times
//!    1       1 where what lies between two of them is reckoned and was not seen, else 0
//!    varint  how many
//!    one a time, in the order of their revisions
//!       varint  revision, less that of the one before (of the first: as it is)
//!       8       milliseconds since 1970 at which the cluster was at that revision
//! ```

use super::cursor::{Cursor, Put};
use super::fault::FormatFault;
use super::header::Moment;
use rekindle_etcd::Revision;

/// The sort of the section of times.
const TIMES: u64 = 2;

const WHAT: &str = "a segment";

/// What a segment says of when its revisions came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Nobody watched between these: what lies between two of them is reckoned.
    pub reckoned: bool,
    /// At which moment the cluster was at which revision; revisions ascend.
    pub marks: Vec<(Revision, Moment)>,
}

/// The content of a segment, but for its run, which comes behind it.
#[must_use]
pub fn encode(times: &Times) -> Vec<u8> {
    let mut section = vec![u8::from(times.reckoned)];
    section.put_varint(times.marks.len() as u64);
    let mut before = 0;
    for (revision, moment) in &times.marks {
        section.put_varint(revision.get().abs_diff(before));
        section.extend_from_slice(&moment.0.to_le_bytes());
        before = revision.get();
    }
    let mut out = Vec::new();
    out.put_varint(1);
    out.put_varint(TIMES);
    out.put_sized(&section);
    out
}

/// Reads the content of a segment: its times, and its run.
///
/// # Errors
/// Whatever no writer writes.
pub fn parse(content: &[u8]) -> Result<(Times, &[u8]), FormatFault> {
    let mut cursor = Cursor::new(content, WHAT);
    let mut times = Times::default();
    for _ in 0..cursor.varint()? {
        let sort = cursor.varint()?;
        let section = cursor.sized()?;
        match sort {
            TIMES => times = parse_times(section)?,
            unknown if unknown % 2 == 0 => {}
            _ => return Err(FormatFault::NotYet { what: "a segment with more than records" }),
        }
    }
    Ok((times, cursor.rest()))
}

fn parse_times(section: &[u8]) -> Result<Times, FormatFault> {
    let mut cursor = Cursor::new(section, "the times of a segment");
    let reckoned = match cursor.array()? {
        [flag @ (0 | 1)] => flag == 1,
        _ => return Err(cursor.senseless()),
    };
    let mut marks: Vec<(Revision, Moment)> = Vec::new();
    let mut before = Revision::default();
    for number in 0..cursor.varint()? {
        let step = cursor.varint()?;
        let revision = before.later(step).filter(|_| step > 0 || number == 0);
        let revision = revision.ok_or_else(|| cursor.senseless())?;
        marks.push((revision, Moment(i64::from_le_bytes(cursor.array()?))));
        before = revision;
    }
    cursor.end()?;
    Ok(Times { reckoned, marks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_times() -> Times {
        let mark = |revision, at| (Revision::new(revision).unwrap(), Moment(at));
        Times { reckoned: true, marks: vec![mark(5, 1000), mark(900, -3), mark(901, 70)] }
    }

    #[test]
    fn what_is_written_is_read() {
        for times in [some_times(), Times::default()] {
            let content = [&encode(&times)[..], b"run"].concat();
            assert_eq!(parse(&content).unwrap(), (times, &b"run"[..]));
        }
    }

    #[test]
    fn no_cut_is_a_segment() {
        let content = encode(&some_times());
        for length in 0..content.len() {
            assert!(parse(&content[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn sections_that_are_not_known() {
        let with = |sort| {
            let mut content = vec![1];
            content.put_varint(sort);
            content.put_sized(b"?");
            content
        };
        assert_eq!(parse(&with(40)).unwrap(), (Times::default(), &b""[..]));
        assert!(parse(&with(41)).unwrap_err().is_too_new());
        let mut twice = some_times();
        twice.marks[1].0 = twice.marks[0].0;
        assert!(matches!(parse(&encode(&twice)), Err(FormatFault::Senseless { .. })));
    }
}
