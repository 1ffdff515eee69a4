//! When a job is due.
//!
//! A schedule has slots: moments that every agent reckons in the same way, so that they can agree on who does
//! the job of one.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// Shortest time between two slots.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// So many slots tell how close they lie: those of an hour, each second.
const SLOTS_LOOKED_AT: usize = 3601;

/// When something is due, again and again.
#[derive(Clone, Debug)]
pub struct Schedule(When);

#[derive(Clone, Debug)]
enum When {
    /// At whole multiples of it since 1970.
    Every(Duration),
    Cron {
        cron: Box<Cron>,
        zone: TimeZone,
    },
}

impl Schedule {
    /// Reads `@every TIME`, or a cron expression: five fields, or six with seconds before them; `@daily` and the
    /// like. `zone` is a name of the time zone database such as `Europe/Berlin`; without one it is UTC.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, String> {
        if let Some(every) = text.trim().strip_prefix("@every") {
            let every = crate::config::parse_duration(every.trim())?;
            if every < EVERY_MIN {
                return Err(format!("\"{text}\": not more often than every second"));
            }
            return match zone {
                Some(_) => Err(format!("\"{text}\" has no time zone")),
                None => Ok(Self(When::Every(every))),
            };
        }
        let parser =
            CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|fault| {
            format!("\"{text}\" is no schedule: {fault}; write cron's five fields, or @every 1h")
        })?;
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name)
                .map_err(|_| format!("\"{name}\" is no time zone such as Europe/Berlin"))?,
        };
        let schedule = Self(When::Cron { cron: Box::new(cron), zone });
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(format!("\"{text}\" never comes")),
        }
    }

    /// The first slot behind a moment; none where none comes any more.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.0 {
            When::Every(every) => {
                let every = i64::try_from(every.as_millis()).ok()?;
                let slot = after.as_millisecond().div_euclid(every).checked_add(1)?;
                Timestamp::from_millisecond(slot.checked_mul(every)?).ok()
            }
            When::Cron { cron, zone } => {
                let after = after.to_zoned(zone.clone());
                cron.find_next_occurrence(&after, false).ok().map(|next| next.timestamp())
            }
        }
    }

    /// The last slot at a moment or before it, if it lies behind `after`: what was missed is caught up once.
    #[must_use]
    pub fn latest(&self, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let found = match &self.0 {
            When::Every(every) => {
                let every = i64::try_from(every.as_millis()).ok()?;
                let slot = now.as_millisecond().div_euclid(every);
                Timestamp::from_millisecond(slot.checked_mul(every)?).ok()?
            }
            When::Cron { cron, zone } => {
                let now = now.to_zoned(zone.clone());
                cron.find_previous_occurrence(&now, true).ok()?.timestamp()
            }
        };
        (found > after).then_some(found)
    }

    /// When a job is late that succeeded last at a moment, and was to be done `runs` times since: as long after the last of
    /// these slots as that success was after its own.
    #[must_use]
    pub fn late(&self, succeeded: Timestamp, runs: u32) -> Option<Timestamp> {
        let slots = std::iter::successors(self.next(succeeded), |slot| self.next(*slot));
        let due = slots.take(usize::try_from(runs).unwrap_or(1).max(1)).last()?;
        let own = self.latest(Timestamp::UNIX_EPOCH, succeeded)?;
        due.checked_add(succeeded.duration_since(own)).ok()
    }

    /// The shortest time between two of the slots that follow each other within a while.
    #[must_use]
    pub fn shortest(&self) -> Duration {
        let slots =
            std::iter::successors(self.next(Timestamp::UNIX_EPOCH), |slot| self.next(*slot));
        let slots: Vec<_> = slots.take(SLOTS_LOOKED_AT).collect();
        let between = slots.windows(2).filter_map(|pair| match pair {
            [first, second] => Duration::try_from(second.duration_since(*first)).ok(),
            _ => None,
        });
        between.min().unwrap_or(Duration::MAX)
    }

    /// How far its slots lie from each other about this moment.
    #[must_use]
    pub fn period(&self, about: Timestamp) -> Duration {
        let first = self.next(about);
        let second = first.and_then(|first| self.next(first));
        let between = first.zip(second).map(|(first, second)| second.duration_since(first));
        between.and_then(|it| Duration::try_from(it).ok()).unwrap_or(Duration::MAX)
    }
}

/// When the job of a slot begins: up to `jitter` later, at a time that job and slot decide.
#[must_use]
pub fn jittered(slot: Timestamp, job: &str, jitter: Duration) -> Timestamp {
    let ms = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
    // FNV-1a: nothing but spread is wanted of it.
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = job.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix);
    let hash = slot.as_millisecond().to_le_bytes().iter().fold(hash, mix);
    let later = hash.checked_rem(ms).unwrap_or(0);
    let later = SignedDuration::from_millis(i64::try_from(later).unwrap_or(0));
    slot.checked_add(later).unwrap_or(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_late_is_told_by_slots() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let schedule = |text| Schedule::parse(text, None).unwrap();
        let hourly = schedule("@hourly");
        let done = at("2026-11-20T10:05:00Z");
        assert_eq!(hourly.late(done, 2), Some(at("2026-11-20T12:05:00Z")));
        // Over a weekend nothing is late that is done on workdays.
        let workdays = schedule("0 3 * * 1-5");
        let friday = at("2026-11-20T03:10:00Z");
        assert_eq!(workdays.late(friday, 2), Some(at("2026-11-24T03:10:00Z")));
        assert_eq!(workdays.late(friday, 1), Some(at("2026-11-23T03:10:00Z")));
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn slots(schedule: &str, zone: Option<&str>, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(schedule, zone).unwrap();
        let mut last = at(after);
        let mut found = Vec::new();
        for _ in 0..count {
            last = schedule.next(last).unwrap();
            found.push(last.to_string());
        }
        found
    }

    #[test]
    fn slots_that_everybody_reckons_alike() {
        let every = slots("@every 15m", None, "2026-11-20T10:07:03Z", 2);
        assert_eq!(every, ["2026-11-20T10:15:00Z", "2026-11-20T10:30:00Z"]);
        let cron = slots("30 2 * * *", None, "2026-11-20T02:30:00Z", 1);
        assert_eq!(cron, ["2026-11-21T02:30:00Z"]);
        let seconds = slots("*/10 * * * * *", None, "2026-11-20T02:30:00Z", 1);
        assert_eq!(seconds, ["2026-11-20T02:30:10Z"]);
        assert_eq!(slots("@daily", None, "2026-11-20T02:30:00Z", 1), ["2026-11-21T00:00:00Z"]);
    }

    /// On the night when clocks go forward 02:30 is no time, and on that when they go back it is two.
    #[test]
    fn a_job_of_the_night_runs_once_a_night() {
        let spring = slots("30 2 * * *", Some("Europe/Berlin"), "2026-03-28T00:00:00Z", 3);
        assert_eq!((&*spring[0], &*spring[2]), ("2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"));
        let autumn = slots("30 2 * * *", Some("Europe/Berlin"), "2026-10-24T12:00:00Z", 2);
        assert_eq!(autumn, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    }

    #[test]
    fn what_was_missed_is_the_last_one_alone() {
        let schedule = Schedule::parse("@every 1h", None).unwrap();
        let (before, now) = (at("2026-11-20T01:00:00Z"), at("2026-11-20T10:59:59Z"));
        assert_eq!(schedule.latest(before, now), Some(at("2026-11-20T10:00:00Z")));
        assert_eq!(schedule.latest(at("2026-11-20T10:00:00Z"), now), None);
        let cron = Schedule::parse("0 3 * * *", Some("Asia/Shanghai")).unwrap();
        assert_eq!(cron.latest(before, now), None);
        let before = at("2026-11-10T01:00:00Z");
        let slot = at("2026-11-19T19:00:00Z");
        assert_eq!(cron.latest(before, now), Some(slot));
        // It is due from its very moment on.
        assert_eq!(cron.latest(before, slot), Some(slot));
    }

    #[test]
    fn what_is_no_schedule_is_said() {
        let fault = |text, zone| Schedule::parse(text, zone).unwrap_err();
        assert!(fault("", None).contains("is no schedule"));
        assert!(fault("61 * * * *", None).contains("is no schedule"));
        assert!(fault("@every soon", None).contains("is no length of time"));
        assert!(fault("@every 10ms", None).contains("not more often"));
        assert!(fault("0 0 30 2 *", None).contains("never comes"));
        assert!(fault("0 0 * * *", Some("Mars/Olympus")).contains("is no time zone"));
        assert!(fault("@every 1h", Some("Europe/Berlin")).contains("has no time zone"));
    }

    #[test]
    fn jobs_begin_at_different_times_but_each_at_its_own() {
        let slot = at("2026-11-20T10:00:00Z");
        let begins = |job| jittered(slot, job, Duration::from_secs(60));
        assert_eq!(begins("a"), begins("a"));
        assert_ne!(begins("a"), begins("b"));
        let other = jittered(at("2026-11-21T10:00:00Z"), "a", Duration::from_secs(60));
        assert_ne!(
            other.duration_since(at("2026-11-21T10:00:00Z")),
            begins("a").duration_since(slot)
        );
        for job in ["a", "b", "c"] {
            let later = begins(job).duration_since(slot);
            assert!(!later.is_negative() && later < SignedDuration::from_secs(60));
        }
        assert_eq!(jittered(slot, "a", Duration::ZERO), slot);
    }

    #[test]
    fn how_far_apart() {
        let period = |text| Schedule::parse(text, None).unwrap().period(at("2026-11-20T10:00:00Z"));
        assert_eq!(period("@every 90s"), Duration::from_secs(90));
        assert_eq!(period("0 3 * * *"), Duration::from_secs(86_400));
    }
}
