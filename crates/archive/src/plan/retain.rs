//! Which bases stay, and why.
//!
//! Rules keep: a base stays that any of them keeps. Limits take away, whatever keeps it. Each cluster
//! is looked at by itself, and its newest base always stays.

use crate::archive::BaseEntry;
use crate::format::header::Moment;
use crate::format::{Facts, TimelineId};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rekindle_etcd::Revision;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What is to be kept. Times are milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// All of the log that is younger, and the base on which it stands.
    pub log: Option<i64>,
    /// All bases that are younger.
    pub within: Option<i64>,
    /// So many of the newest bases.
    pub last: usize,
    /// The newest base of each of so many hours of which there is one; of days, weeks and months.
    pub hourly: usize,
    /// See there.
    pub daily: usize,
    /// See there.
    pub weekly: usize,
    /// See there.
    pub monthly: usize,
    /// A limit: no base is older.
    pub ttl: Option<i64>,
    /// A limit: so many bases are kept at most.
    pub max_bases: Option<usize>,
}

impl Policy {
    /// What becomes of backups of these moments, the newest first; the newest always stays.
    #[must_use]
    pub fn judge(&self, newest_first: &[Moment], now: Moment) -> Vec<Reason> {
        let dated = |at: &Moment| (*at, TimelineId([0; 16]), Revision::default());
        let dated: Vec<_> = newest_first.iter().map(dated).collect();
        of_one_cluster(&dated, &Self { log: None, ..self.clone() }, &BTreeSet::new(), now)
    }

    /// No rule keeps anything by itself: all stays that the limits leave.
    fn is_without_rules(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly];
        self.log.is_none() && self.within.is_none() && counts == [0; 5]
    }
}

/// Why a base stays, or goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It stays: it is the newest of its cluster.
    Newest,
    /// It stays: there is no rule but limits.
    NoRule,
    /// It stays: it is among the last ones.
    Last,
    /// It stays: it is young enough.
    Within,
    /// It stays: the kept log goes on from it.
    Log,
    /// It stays: it is the newest of a period.
    Period {
        /// Hour, day, week or month.
        unit: &'static str,
        /// Its beginning.
        begins: String,
    },
    /// It stays: another one stands for it, from which records were erased, and whoever erased them has
    /// still to remove it. It goes with that one.
    Replaced,
    /// It goes: another one is the same, for two have erased the same at once, or one did so again.
    Twin {
        /// That one's name.
        base: String,
    },
    /// It stays until the next time: enough go at once.
    Postponed,
    /// It goes: nothing keeps it.
    Unkept,
    /// It goes: it is older than the limit.
    TooOld,
    /// It goes: newer ones are as many as the limit.
    TooMany,
}

impl Reason {
    /// Whether it stays.
    #[must_use]
    pub fn stays(&self) -> bool {
        !matches!(self, Self::Twin { .. } | Self::Unkept | Self::TooOld | Self::TooMany)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("the newest"),
            Self::NoRule => f.write_str("within the limits"),
            Self::Last => f.write_str("one of the last"),
            Self::Within => f.write_str("young"),
            Self::Log => f.write_str("the kept log goes on from it"),
            Self::Period { unit, begins } => write!(f, "{unit} of {begins}"),
            Self::Postponed => f.write_str("it goes next time"),
            Self::Replaced => f.write_str("another stands for it, with less: forget again"),
            Self::Twin { .. } => f.write_str("another is the same"),
            Self::Unkept => f.write_str("no rule keeps it"),
            Self::TooOld => f.write_str("older than the limit"),
            Self::TooMany => f.write_str("more than the limit"),
        }
    }
}

/// The bases on which the kept log stands.
pub(crate) type Standing = BTreeSet<(TimelineId, Revision)>;

/// A base as rules know it.
type Dated = (Moment, TimelineId, Revision);

/// What becomes of each of these bases, by their places. `standing` are those on which the kept log stands.
pub(crate) fn retain(
    bases: &[BaseEntry],
    policy: &Policy,
    standing: &Standing,
    now: Moment,
) -> Vec<Reason> {
    let mut reasons = vec![Reason::Unkept; bases.len()];
    let mut clusters: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let replaced = replaced(bases);
    for (place, base) in bases.iter().enumerate() {
        if !replaced.contains_key(&place) {
            clusters.entry(base.header.facts.cluster.0).or_default().push(place);
        }
    }
    for mut places in clusters.into_values() {
        let key = |place: &usize| {
            bases.get(*place).map(|base| {
                let facts = &base.header.facts;
                (facts.state, facts.term, facts.index, facts.last)
            })
        };
        places.sort_by_key(key);
        places.reverse();
        let dated = |place: &usize| {
            let facts = &bases.get(*place)?.header.facts;
            Some((facts.state, facts.timeline, facts.last))
        };
        let dated: Vec<_> = places.iter().filter_map(dated).collect();
        let reasons_of_it = of_one_cluster(&dated, policy, standing, now);
        for (place, reason) in places.into_iter().zip(reasons_of_it) {
            if let Some(slot) = reasons.get_mut(place) {
                *slot = reason;
            }
        }
    }
    for (place, by) in replaced {
        let Some(((base, other), reason)) =
            bases.get(place).zip(bases.get(by)).zip(reasons.get(by))
        else {
            continue;
        };
        let reason = match reason.stays() {
            false => reason.clone(),
            true if is_twin(&base.header.facts, &other.header.facts) => {
                Reason::Twin { base: other.name.clone() }
            }
            true => Reason::Replaced,
        };
        if let Some(slot) = reasons.get_mut(place) {
            *slot = reason;
        }
    }
    reasons
}

/// Whether a base is what erasing has made of another one, or the other way round.
pub(crate) fn stands_for(one: &Facts, other: &Facts) -> bool {
    let Facts { id, records, keys, logical_bytes, erased, .. } = *other;
    one.id != id && Facts { id, records, keys, logical_bytes, erased, ..one.clone() } == *other
}

/// Whether nothing but their names tells two bases from each other.
fn is_twin(one: &Facts, other: &Facts) -> bool {
    one.id != other.id && Facts { id: one.id, ..other.clone() } == *one
}

/// Bases of one moment, by their places.
type Twins<'a> = Vec<(usize, &'a Facts)>;

/// Places of bases for which others stand, and of the one of these from which the most was erased.
fn replaced(bases: &[BaseEntry]) -> BTreeMap<usize, usize> {
    let mut moments: BTreeMap<_, Twins<'_>> = BTreeMap::new();
    for (place, base) in bases.iter().enumerate() {
        let facts = &base.header.facts;
        moments.entry((facts.state, facts.ended, facts.last)).or_default().push((place, facts));
    }
    let left =
        |facts: &Facts| (Reverse(facts.erased), facts.records, facts.logical_bytes, facts.id.0);
    let mut replaced = BTreeMap::new();
    for twins in moments.into_values().filter(|twins| twins.len() > 1) {
        for (place, facts) in &twins {
            let stand = twins.iter().filter(|(_, other)| {
                other.erased && stands_for(other, facts) && left(other) < left(facts)
            });
            if let Some((by, _)) = stand.min_by_key(|(_, other)| left(other)) {
                replaced.insert(*place, *by);
            }
        }
    }
    replaced
}

/// What becomes of the bases of these moments, the newest first.
fn of_one_cluster(
    newest_first: &[Dated],
    policy: &Policy,
    standing: &Standing,
    now: Moment,
) -> Vec<Reason> {
    let age = |at: &Moment| now.0.saturating_sub(at.0);
    let stands = stands(newest_first, policy, standing, age);
    let mut periods = Periods::new(policy);
    let judge = |(place, (at, ..)): (usize, &Dated)| {
        let kept = periods.keep(*at);
        match () {
            () if place == 0 => Reason::Newest,
            () if policy.ttl.is_some_and(|ttl| age(at) > ttl) => Reason::TooOld,
            () if policy.max_bases.is_some_and(|max| place >= max) => Reason::TooMany,
            () if policy.is_without_rules() => Reason::NoRule,
            () if place < policy.last => Reason::Last,
            () if policy.within.is_some_and(|within| age(at) <= within) => Reason::Within,
            () if stands.contains(&place) => Reason::Log,
            () => kept.unwrap_or(Reason::Unkept),
        }
    };
    newest_first.iter().enumerate().map(judge).collect()
}

/// The places of the bases on which the kept log stands; and of the history of the newest base, which may have come
/// without a log, the newest one that is as old as the log is kept, or else the first one.
fn stands(
    newest_first: &[Dated],
    policy: &Policy,
    standing: &Standing,
    age: impl Fn(&Moment) -> i64,
) -> BTreeSet<usize> {
    let Some(log) = policy.log else { return BTreeSet::new() };
    let place = |found: Option<(usize, &Dated)>| found.map(|(place, _)| place);
    // Of one revision the newest has the newest users.
    let of_log = |base: &(TimelineId, Revision)| {
        place(newest_first.iter().enumerate().find(|(_, it)| (it.1, it.2) == *base))
    };
    let newest = newest_first.first().map(|it| it.1);
    let mut own = newest_first.iter().enumerate().filter(|(_, it)| Some(it.1) == newest);
    let before = own.clone().find(|(_, (at, ..))| age(at) >= log);
    let oldest = place(before.or_else(|| own.next_back()));
    standing.iter().filter_map(of_log).chain(oldest).collect()
}

/// The periods of which a base was kept.
struct Periods {
    /// Unit, how many of it, and those that have one.
    units: [(&'static str, usize, BTreeSet<String>); 4],
}

impl Periods {
    fn new(policy: &Policy) -> Self {
        let units = [
            ("month", policy.monthly),
            ("week", policy.weekly),
            ("day", policy.daily),
            ("hour", policy.hourly),
        ];
        Self { units: units.map(|(unit, count)| (unit, count, BTreeSet::new())) }
    }

    /// Why a base of that moment stays; the newest of a period comes first.
    fn keep(&mut self, at: Moment) -> Option<Reason> {
        let mut reason = None;
        for (unit, count, seen) in &mut self.units {
            let begins = begin(unit, at);
            if seen.len() < *count && seen.insert(begins.clone()) && reason.is_none() {
                reason = Some(Reason::Period { unit, begins });
            }
        }
        reason
    }
}

/// When the period began in which that moment lies, in UTC; weeks begin on Monday.
fn begin(unit: &str, at: Moment) -> String {
    let at = Timestamp::from_millisecond(at.0).unwrap_or_default();
    let time = TimeZone::UTC.to_datetime(at);
    match unit {
        "month" => time.strftime("%Y-%m").to_string(),
        "week" => {
            let days = i64::from(time.weekday().to_monday_zero_offset());
            let monday = time.date().checked_sub(jiff::Span::new().days(days));
            monday.map_or_else(|_| String::new(), |monday| monday.to_string())
        }
        "day" => time.date().to_string(),
        _ => time.strftime("%Y-%m-%dT%H:00Z").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    /// What becomes of bases of these ages, in hours, the newest first.
    fn check(policy: &Policy, ages: &[i64], want: &str) {
        // A Wednesday.
        let now = "2026-11-18T12:30:00Z".parse::<Timestamp>().unwrap().as_millisecond();
        let dated =
            |hours: &i64| (Moment(now - hours * HOUR), TimelineId([1; 16]), Revision::default());
        let dated: Vec<_> = ages.iter().map(dated).collect();
        let reasons = of_one_cluster(&dated, policy, &BTreeSet::new(), Moment(now));
        let shown: Vec<_> = reasons.iter().map(ToString::to_string).collect();
        assert_eq!(shown.join("; "), want, "{policy:?}");
    }

    #[test]
    fn rules_keep() {
        let none = Policy::default();
        check(&none, &[], "");
        check(&none, &[1, 50], "the newest; within the limits");
        let last = Policy { last: 2, ..Policy::default() };
        check(&last, &[1, 2, 3], "the newest; one of the last; no rule keeps it");
        let within = Policy { within: Some(DAY), ..Policy::default() };
        check(&within, &[40, 50], "the newest; no rule keeps it");
        check(&within, &[1, 24, 25], "the newest; young; no rule keeps it");
        let daily = Policy { daily: 2, ..Policy::default() };
        // Of days that have none, none is counted.
        check(
            &daily,
            &[1, 2, 70, 71, 100],
            "the newest; no rule keeps it; day of 2026-11-15; no rule keeps it; no rule keeps it",
        );
        let hourly = Policy { hourly: 2, ..Policy::default() };
        check(&hourly, &[0, 0, 1], "the newest; no rule keeps it; hour of 2026-11-18T11:00Z");
        let weekly = Policy { weekly: 3, monthly: 2, ..Policy::default() };
        check(
            &weekly,
            &[1, 24, 4 * 24, 11 * 24, 20 * 24, 60 * 24],
            "the newest; no rule keeps it; week of 2026-11-09; week of 2026-11-02; \
             month of 2026-10; no rule keeps it",
        );
    }

    #[test]
    fn the_log_needs_a_base_to_stand_on() {
        let log = Policy { log: Some(2 * DAY), ..Policy::default() };
        check(
            &log,
            &[1, 30, 49, 60],
            "the newest; no rule keeps it; the kept log goes on from it; no rule keeps it",
        );
        // It once went where none was older than the log that is kept.
        check(&log, &[1, 20, 30], "the newest; no rule keeps it; the kept log goes on from it");
        check(&log, &[1], "the newest");
        // A history that a take-over has ended, of which the log is young; and one whose log is not kept.
        let [one, two, old] = [1, 2, 3].map(|number| TimelineId([number; 16]));
        let ages = [(1, two), (3, one), (4, one), (5, one), (50, old)];
        let revision = |number| Revision::new(number).unwrap();
        let dated =
            ages.map(|(hours, timeline)| (Moment(-hours * HOUR), timeline, revision(100 - hours)));
        let standing = Standing::from([(one, revision(96))]);
        let reasons = of_one_cluster(&dated, &log, &standing, Moment(0));
        let [newest, unkept, stands] = [Reason::Newest, Reason::Unkept, Reason::Log];
        assert_eq!(reasons, [newest, unkept.clone(), stands, unkept.clone(), unkept]);
    }

    #[test]
    fn limits_take_away() {
        let ttl = Policy { ttl: Some(DAY), last: 3, ..Policy::default() };
        check(&ttl, &[20, 24, 25], "the newest; one of the last; older than the limit");
        check(&ttl, &[100, 200], "the newest; older than the limit");
        let max = Policy { max_bases: Some(2), ..Policy::default() };
        check(&max, &[1, 2, 3], "the newest; within the limits; more than the limit");
        let none = Policy { max_bases: Some(0), ..Policy::default() };
        check(&none, &[1, 2], "the newest; more than the limit");
    }
}
