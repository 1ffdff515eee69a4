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
//!
//! section 4: leases that its records are the first to hang on, as far as whoever followed saw
//!    varint  how many
//!    one a lease
//!       8       its id
//!       varint  the seconds that it was granted
//! ```
//!
//! One without a record says that nothing had come: its first revision is the one behind its last, and
//! its state is of when that was still so.

use super::cursor::{Cursor, Put};
use super::fault::FormatFault;
use super::header::Moment;
use rekindle_etcd::Revision;

/// The sort of the section of times.
const TIMES: u64 = 2;
/// The sort of the section of leases.
const LEASES: u64 = 4;

const WHAT: &str = "a segment";

/// What a segment says beside its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// When its revisions came.
    pub times: Times,
    /// Leases that its records are the first to hang on, as far as whoever followed saw.
    pub leases: Vec<LeaseGrant>,
}

/// A lease as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseGrant {
    /// Its id.
    pub id: i64,
    /// The seconds that it lives when nobody keeps it alive.
    pub ttl_s: u64,
}

/// What a segment says of when its revisions came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Nobody watched between these: what lies between two of them is reckoned.
    pub reckoned: bool,
    /// At which moment the cluster was at which revision; revisions ascend.
    pub marks: Vec<(Revision, Moment)>,
}

/// A revision, and when the cluster was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// The revision.
    pub revision: Revision,
    /// When.
    pub at: Moment,
    /// Nobody saw when: it is reckoned from what was seen before and afterwards.
    pub reckoned: bool,
}

impl Times {
    /// The newest revision at which the cluster was at a moment or before. None where all are later.
    #[must_use]
    pub fn newest_at(&self, moment: Moment) -> Option<Instant> {
        let place = self.marks.iter().rposition(|(_, at)| *at <= moment)?;
        let (revision, at) = *self.marks.get(place)?;
        let seen = Instant { revision, at, reckoned: false };
        let Some((next, later)) = self.marks.get(place + 1).filter(|_| self.reckoned) else {
            return Some(seen);
        };
        // Both differences are of what ascends; neither overflows 128 bits.
        let parts = i128::from(moment.0) - i128::from(at.0);
        let whole = i128::from(later.0) - i128::from(at.0);
        let steps = i128::from(next.get()) - i128::from(revision.get());
        let step = u64::try_from(steps.saturating_mul(parts) / whole.max(1)).unwrap_or_default();
        match step {
            0 => Some(seen),
            step => Some(Instant { revision: revision.later(step)?, at: moment, reckoned: true }),
        }
    }

    /// When the cluster was at a revision. None where nothing is known of that.
    #[must_use]
    pub fn of(&self, revision: Revision) -> Option<Instant> {
        let place = self.marks.iter().position(|(marked, _)| *marked >= revision)?;
        let (marked, at) = *self.marks.get(place)?;
        let seen = Instant { revision, at, reckoned: false };
        let before = place.checked_sub(1).and_then(|place| self.marks.get(place));
        let Some((before, earlier)) = before.filter(|_| marked > revision) else {
            return (marked == revision).then_some(seen);
        };
        // It came behind the one mark, and had come when the other was made.
        let whole = i128::from(marked.get()) - i128::from(before.get());
        let parts = i128::from(revision.get()) - i128::from(before.get());
        let time = i128::from(at.0) - i128::from(earlier.0);
        let since = i64::try_from(time.saturating_mul(parts) / whole.max(1)).unwrap_or_default();
        let reckoned = Moment(earlier.0.saturating_add(since));
        Some(if self.reckoned { Instant { at: reckoned, reckoned: true, ..seen } } else { seen })
    }
}

/// The content of a segment, but for its run, which comes behind it.
#[must_use]
pub fn encode(notes: &Notes) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_varint(if notes.leases.is_empty() { 1 } else { 2 });
    out.put_varint(TIMES);
    out.put_sized(&encode_times(&notes.times));
    if !notes.leases.is_empty() {
        out.put_varint(LEASES);
        out.put_sized(&encode_leases(&notes.leases));
    }
    out
}

fn encode_leases(leases: &[LeaseGrant]) -> Vec<u8> {
    let mut section = Vec::new();
    section.put_varint(leases.len() as u64);
    for lease in leases {
        section.extend_from_slice(&lease.id.to_le_bytes());
        section.put_varint(lease.ttl_s);
    }
    section
}

fn encode_times(times: &Times) -> Vec<u8> {
    let mut section = vec![u8::from(times.reckoned)];
    section.put_varint(times.marks.len() as u64);
    let mut before = 0;
    for (revision, moment) in &times.marks {
        section.put_varint(revision.get().abs_diff(before));
        section.extend_from_slice(&moment.0.to_le_bytes());
        before = revision.get();
    }
    section
}

/// Reads the content of a segment: what it says beside its records, and its run.
///
/// # Errors
/// Whatever no writer writes.
pub fn parse(content: &[u8]) -> Result<(Notes, &[u8]), FormatFault> {
    let mut cursor = Cursor::new(content, WHAT);
    let mut notes = Notes::default();
    for _ in 0..cursor.varint()? {
        let sort = cursor.varint()?;
        let section = cursor.sized()?;
        match sort {
            TIMES => notes.times = parse_times(section)?,
            LEASES => notes.leases = parse_leases(section)?,
            unknown if unknown % 2 == 0 => {}
            _ => return Err(FormatFault::NotYet { what: "a segment with more than records" }),
        }
    }
    Ok((notes, cursor.rest()))
}

fn parse_leases(section: &[u8]) -> Result<Vec<LeaseGrant>, FormatFault> {
    let mut cursor = Cursor::new(section, "the leases of a segment");
    let mut leases = Vec::new();
    for _ in 0..cursor.varint()? {
        leases
            .push(LeaseGrant { id: i64::from_le_bytes(cursor.array()?), ttl_s: cursor.varint()? });
    }
    cursor.end()?;
    Ok(leases)
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

    fn some_notes() -> Notes {
        let lease = |id, ttl_s| LeaseGrant { id, ttl_s };
        Notes { times: some_times(), leases: vec![lease(-7, 60), lease(i64::MAX, u64::MAX)] }
    }

    #[test]
    fn what_is_written_is_read() {
        let timed = Notes { times: some_times(), ..Notes::default() };
        for notes in [some_notes(), timed, Notes::default()] {
            let content = [&encode(&notes)[..], b"run"].concat();
            assert_eq!(parse(&content).unwrap(), (notes, &b"run"[..]));
        }
    }

    #[test]
    fn revisions_have_their_times() {
        let mark = |revision, at| (Revision::new(revision).unwrap(), Moment(at));
        let marks = vec![mark(10, 1000), mark(20, 2000), mark(30, 2000), mark(31, 2500)];
        let check = |reckoned, at, want: Option<(i64, i64, bool)>| {
            let times = Times { reckoned, marks: marks.clone() };
            let got = times.newest_at(Moment(at));
            assert_eq!(got.map(|it| (it.revision.get(), it.at.0, it.reckoned)), want, "{at}");
        };
        check(false, 999, None);
        check(false, 1999, Some((10, 1000, false)));
        check(false, 2000, Some((30, 2000, false)));
        check(false, 9999, Some((31, 2500, false)));
        check(true, 999, None);
        check(true, 1000, Some((10, 1000, false)));
        check(true, 1050, Some((10, 1000, false)));
        check(true, 1777, Some((17, 1777, true)));
        check(true, 2499, Some((30, 2000, false)));
        check(true, i64::MAX, Some((31, 2500, false)));
        let of = |reckoned, revision| {
            let times = Times { reckoned, marks: marks.clone() };
            let got = times.of(Revision::new(revision).unwrap());
            got.map(|it| (it.at.0, it.reckoned))
        };
        assert_eq!(
            [9, 10, 15, 31, 32].map(|it| of(false, it)),
            [None, Some((1000, false)), Some((2000, false)), Some((2500, false)), None]
        );
        assert_eq!(of(true, 15), Some((1500, true)));
        let far =
            Times { reckoned: true, marks: vec![mark(0, i64::MIN), mark(i64::MAX, i64::MAX)] };
        assert!(far.newest_at(Moment(0)).unwrap().revision.get() > i64::MAX / 4);
        assert!(far.of(Revision::new(1 << 62).unwrap()).unwrap().reckoned);
    }

    #[test]
    fn no_cut_is_a_segment() {
        let content = encode(&some_notes());
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
        assert_eq!(parse(&with(40)).unwrap(), (Notes::default(), &b""[..]));
        assert!(parse(&with(41)).unwrap_err().is_too_new());
        let mut twice = some_notes();
        twice.times.marks[1].0 = twice.times.marks[0].0;
        assert!(matches!(parse(&encode(&twice)), Err(FormatFault::Senseless { .. })));
    }
}
