//! A point of an archive, and the base that brings it back.

use super::shown;
use crate::args::{MomentArgs, PointArgs};
use crate::failure::{Code, Failure};
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use rekindle_archive::format::TimelineId;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{Archive, BaseEntry, Listing};
use rekindle_etcd::{ClusterId, Revision};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

/// A point of an archive, behind the last `@` of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The newest.
    Latest,
    /// That revision.
    Revision(Revision),
    /// As it was at that time.
    Time(Moment),
    /// That base, by the last part of its object's name.
    Object(String),
    /// Such a one of that cluster.
    OfCluster(ClusterId, Box<Self>),
    /// Such a one of that history.
    OfTimeline(TimelineId, Box<Self>),
}

impl Point {
    /// Reads `latest`, a revision, an RFC 3339 time, an age such as `10m`, or a base's name; before any of
    /// these a cluster's id and a colon, or a timeline's.
    pub(crate) fn parse(text: &str, now: Moment) -> Result<Self, Failure> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Some((cluster, rest)) = text.split_once(':')
            && let Ok(cluster) = u64::from_str_radix(cluster, 16)
        {
            let point = Box::new(Self::parse(rest, now)?);
            return Ok(Self::OfCluster(ClusterId(cluster), point));
        }
        if let Some((timeline, rest)) = text.split_once(':')
            && let Some(timeline) = TimelineId::parse(timeline)
        {
            return Ok(Self::OfTimeline(timeline, Box::new(Self::parse(rest, now)?)));
        }
        if text.ends_with(".base") {
            let name = text.rsplit('/').next().unwrap_or(text);
            return Ok(Self::Object(name.to_owned()));
        }
        if let Some(revision) = text.parse().ok().and_then(Revision::new) {
            return Ok(Self::Revision(revision));
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self::Time(Moment(time.as_millisecond())));
        }
        if let Some(time) = local_time(text) {
            return Ok(Self::Time(time?));
        }
        let age = crate::time::parse_duration(text).ok().filter(|age| *age > Duration::ZERO);
        let age = age.and_then(|age| i64::try_from(age.as_millis()).ok());
        age.and_then(|age| Some(Self::Time(Moment(now.0.checked_sub(age)?)))).ok_or_else(|| {
            Failure::usage(format!("\"{text}\" is no point in time")).remedy(
                "name latest, a revision, a time such as 2026-11-20T10:00:00Z, an age such as 10m, \
                 or a base by its object's name",
            )
        })
    }

    /// The point that flags name, if they do.
    pub(crate) fn of(args: &PointArgs, now: Moment) -> Result<Option<Self>, Failure> {
        let point = Self::of_moment(&args.moment, now)?;
        let Some(timeline) = &args.timeline else { return Ok(point) };
        let timeline = TimelineId::parse(timeline).ok_or_else(|| {
            Failure::usage(format!("--timeline {timeline} is none"))
                .remedy("rekindle archive list shows them: 32 hexadecimal digits")
        })?;
        Ok(Some(Self::OfTimeline(timeline, Box::new(point.unwrap_or(Self::Latest)))))
    }

    fn of_moment(args: &MomentArgs, now: Moment) -> Result<Option<Self>, Failure> {
        let of_kind = |flag: &str, text: &str, want: fn(&Self) -> bool| {
            if let Some(Err(twice_or_never)) = local_time(text) {
                return Err(twice_or_never);
            }
            let parsed = Self::parse(text, now);
            parsed.ok().filter(|point| want(point.bare())).map(Some).ok_or_else(|| {
                let what = format!("{flag} {text} is none");
                Failure::usage(what).remedy(
                    "--to-revision 4711; --to-time 2026-11-20T10:00:00Z, 2026-11-20T10:00 by this host's \
                     clock, or 10m",
                )
            })
        };
        match args {
            MomentArgs { to_revision: Some(text), .. } => {
                of_kind("--to-revision", text, |point| matches!(point, Self::Revision(_)))
            }
            MomentArgs { to_time: Some(text), .. } => {
                of_kind("--to-time", text, |point| matches!(point, Self::Time(_)))
            }
            MomentArgs { latest, .. } => Ok(latest.then_some(Self::Latest)),
        }
    }

    fn fits(&self, base: &BaseEntry) -> bool {
        let facts = &base.header.facts;
        match self {
            Self::Latest => true,
            Self::Revision(revision) => facts.last == *revision,
            Self::Time(time) => facts.state <= *time,
            Self::Object(name) => base.name.rsplit('/').next() == Some(name.as_str()),
            Self::OfCluster(_, point) | Self::OfTimeline(_, point) => {
                self.is_of_it(base) && point.fits(base)
            }
        }
    }

    /// Whether a base is of the cluster and the history that are named, if they are.
    fn is_of_it(&self, base: &BaseEntry) -> bool {
        let facts = &base.header.facts;
        match self {
            Self::OfCluster(cluster, point) => facts.cluster == *cluster && point.is_of_it(base),
            Self::OfTimeline(timeline, point) => {
                facts.timeline == *timeline && point.is_of_it(base)
            }
            _ => true,
        }
    }

    /// Without the cluster and the history.
    pub(crate) fn bare(&self) -> &Self {
        match self {
            Self::OfCluster(_, point) | Self::OfTimeline(_, point) => point.bare(),
            point => point,
        }
    }

    /// The base that brings it back, and the revision up to which the log is taken behind that.
    pub(crate) fn find(
        &self,
        archive: &Archive,
        listing: &Listing,
    ) -> Result<(BaseEntry, Option<Revision>), Failure> {
        if let Self::Revision(revision) = self.bare()
            && !listing.bases.iter().any(|base| self.fits(base))
        {
            let (entry, to) = self.find_in_log(archive, listing, *revision)?;
            return Ok((entry, Some(to)));
        }
        let entry = self.choose(listing)?.clone();
        if let Self::Revision(revision) = self.bare() {
            self.refuse_others(archive, listing, &entry, *revision)?;
        }
        let following = match self.bare() {
            Self::Object(_) | Self::Revision(_) => return Ok((entry, None)),
            _ => archive.following(&entry)?,
        };
        let to = match self.bare() {
            Self::Time(time) => following.at(*time)?.map(|instant| instant.revision),
            _ => Some(following.last()),
        };
        let to = to.filter(|to| *to > entry.header.facts.last);
        Ok((entry, to))
    }

    /// Refuses a revision that another cluster or history has, too, in its log or before a later base.
    fn refuse_others(
        &self,
        archive: &Archive,
        listing: &Listing,
        entry: &BaseEntry,
        revision: Revision,
    ) -> Result<(), Failure> {
        let own = entry.header.facts.timeline;
        let is_other = |base: &&BaseEntry| base.header.facts.timeline != own;
        if self.later_bases(listing, revision).into_iter().any(|base| is_other(&base)) {
            return Err(of_several(entry, revision));
        }
        for base in self.bases_before(listing, revision).into_iter().filter(is_other) {
            if archive.following(base)?.last() >= revision {
                return Err(of_several(entry, revision));
            }
        }
        Ok(())
    }

    /// A revision of which there is no base: the newest base before it of each history, where the log goes
    /// on so far.
    fn find_in_log(
        &self,
        archive: &Archive,
        listing: &Listing,
        revision: Revision,
    ) -> Result<(BaseEntry, Revision), Failure> {
        let mut reach = Vec::new();
        let mut farthest = None;
        for base in self.bases_before(listing, revision) {
            let last = archive.following(base)?.last();
            farthest = farthest.max(Some(last));
            if last >= revision {
                reach.push(base);
            }
        }
        let later = self.later_bases(listing, revision);
        let timeline = |base: &BaseEntry| base.header.facts.timeline;
        match (&reach[..], &later[..]) {
            ([one], later) if later.iter().all(|it| timeline(it) == timeline(one)) => {
                Ok(((*one).clone(), revision))
            }
            ([], [later]) => Ok(((*later).clone(), revision)),
            ([], []) => {
                let what = format!("the archive holds nothing of revision {revision}");
                let near = match farthest {
                    Some(last) => format!("; before it, the last one that it holds is {last}"),
                    None => String::new(),
                };
                Err(Failure::new(Code::NotFound, what + &near).remedy(
                    "rekindle archive list shows the bases and the log; before a base there is also what was \
                     not compacted away when it was saved",
                ))
            }
            ([one, ..], _) | ([], [one, ..]) => Err(of_several(one, revision)),
        }
    }

    /// Of each history the newest base before a revision.
    fn bases_before<'a>(&self, listing: &'a Listing, revision: Revision) -> Vec<&'a BaseEntry> {
        let mut newest: BTreeMap<_, &BaseEntry> = BTreeMap::new();
        // Of two of which one was made of the other, that from which more was erased: together with the log, from
        // which it was erased as well, the other would be what the cluster never was.
        let position = |base: &BaseEntry| {
            let facts = &base.header.facts;
            (facts.last, facts.term, facts.index, facts.erased, Reverse(facts.records))
        };
        for base in &listing.bases {
            let facts = &base.header.facts;
            if self.is_of_it(base) && facts.last < revision {
                let known = newest.entry(facts.timeline).or_insert(base);
                if position(known) < position(base) {
                    *known = base;
                }
            }
        }
        newest.into_values().collect()
    }

    /// Of each history the first base behind a revision that has all of it.
    fn later_bases<'a>(&self, listing: &'a Listing, revision: Revision) -> Vec<&'a BaseEntry> {
        let mut first: BTreeMap<_, &BaseEntry> = BTreeMap::new();
        for base in listing.bases.iter().filter(|base| self.is_of_it(base)) {
            let facts = &base.header.facts;
            // The first one, which is of an empty etcd, has no record.
            let is_behind = revision > Revision::FIRST && facts.compact < Some(revision);
            if is_behind && facts.last > revision {
                let known = first.entry(facts.timeline).or_insert(base);
                if facts.last < known.header.facts.last {
                    *known = base;
                }
            }
        }
        first.into_values().collect()
    }

    fn no_base(&self) -> Failure {
        let what = match self {
            Self::OfCluster(cluster, _) => {
                format!("the archive holds no such base of cluster {cluster}")
            }
            Self::OfTimeline(timeline, _) => {
                format!("the archive holds no such base of timeline {timeline}")
            }
            Self::Latest => "the archive holds no base".to_owned(),
            Self::Revision(revision) => {
                format!("the archive holds no base at revision {revision}")
            }
            Self::Time(time) => format!("the archive holds no base from before {}", shown(*time)),
            Self::Object(name) => format!("the archive holds no base {name}"),
        };
        Failure::new(Code::NotFound, what).remedy("rekindle archive list shows what there is")
    }

    /// The base that brings it back. Nothing is guessed: neither which cluster is meant, nor what an
    /// object that cannot be read would have been.
    pub(crate) fn choose<'a>(&self, listing: &'a Listing) -> Result<&'a BaseEntry, Failure> {
        let fitting = || listing.bases.iter().filter(|base| self.fits(base));
        let newest = fitting().next_back().ok_or_else(|| self.no_base())?;
        if matches!(self.bare(), Self::Object(_)) {
            return Ok(newest);
        }
        let by_name = "name the base: @ and the last part of its object's name, which rekindle archive \
                       list -w json shows";
        if let Some(error) = listing.unreadable.first() {
            let count = listing.unreadable.len();
            let what = format!(
                "{count} of the archive's objects cannot be read, and may be what is meant; the \
                 first: {error}"
            );
            return Err(Failure::new(Code::BadData, what).remedy(by_name));
        }
        let facts = &newest.header.facts;
        // One of which there is nothing from before a time may be meant all the same.
        let is_time = matches!(self.bare(), Self::Time(_));
        let mut meant = listing.bases.iter().filter(|base| self.is_of_it(base));
        let other = meant.find(|base| {
            base.header.facts.cluster != facts.cluster && (is_time || self.fits(base))
        });
        if let Some(other) = other {
            let what = format!(
                "the archive holds such bases of several clusters: {} and {}",
                facts.cluster, other.header.facts.cluster
            );
            let remedy = format!(
                "name the cluster: @{}:latest, for example, is the newest of that one; or the base: @ \
                 and the last part of its object's name, which rekindle archive list -w json shows",
                facts.cluster
            );
            return Err(Failure::refused(what).remedy(remedy));
        }
        // Clocks may differ; within a timeline raft does not.
        let of_timeline = |base: &&BaseEntry| base.header.facts.timeline == facts.timeline;
        if matches!(self.bare(), Self::Revision(_)) && !fitting().all(|base| of_timeline(&base)) {
            let what = format!(
                "the archive holds revision {} of several histories: the cluster was restored",
                facts.last
            );
            return Err(Failure::refused(what).remedy(
                format!(
                    "name the history: @{}:{}, for example (restore takes --timeline, too); rekindle archive \
                     list shows them; or the base: @ and the last part of its object's name",
                    facts.timeline, facts.last
                ),
            ));
        }
        // Of two of which one was made of the other, that from which more was erased: somebody wanted that, and
        // from the log it is erased as well.
        let position = |base: &&BaseEntry| {
            let facts = &base.header.facts;
            let left = Reverse(facts.records);
            (facts.term, facts.index, facts.erased, facts.state, left, facts.id.0)
        };
        Ok(fitting().filter(of_timeline).max_by_key(position).unwrap_or(newest))
    }
}

fn of_several(one: &BaseEntry, revision: Revision) -> Failure {
    let what = format!("the archive holds revision {revision} of several clusters or histories");
    Failure::refused(what).remedy(format!(
        "name the cluster: @{}:{revision}, for example; or, if the cluster was restored, which of its histories: \
         @{}:{revision} (restore takes --timeline, too), or another that rekindle archive list shows",
        one.header.facts.cluster, one.header.facts.timeline
    ))
}

/// A time of this host's clock, such as 2026-11-20T10:00. None where it is none; an error where the clock
/// showed it twice, or never.
fn local_time(text: &str) -> Option<Result<Moment, Failure>> {
    // Of a day nobody knows which end of it is meant.
    let civil = text.contains(':').then(|| text.parse::<civil::DateTime>().ok()).flatten()?;
    let zoned = TimeZone::system().to_ambiguous_zoned(civil).unambiguous();
    Some(zoned.map(|zoned| Moment(zoned.timestamp().as_millisecond())).map_err(|_| {
        Failure::usage(format!("this host's clock showed {text} not once, but twice or never"))
            .remedy("name the time with its offset, such as 2026-11-20T10:00:00+01:00")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_archive::format::{ArchiveId, Facts, Generation, Header, Kind, ObjectId};
    use rekindle_archive::{Protection, Sealing, Store};
    use rekindle_etcd::{MemberId, RaftIndex, RaftTerm};

    /// A base of a cluster and a timeline, of a revision and a time.
    fn a_base(cluster: u64, timeline: u8, revision: i64, state: i64) -> BaseEntry {
        let last = Revision::new(revision).unwrap();
        let facts = Facts {
            kind: Kind::Base,
            archive: ArchiveId([0; 16]),
            timeline: TimelineId([timeline; 16]),
            id: ObjectId([0; 16]),
            first: last,
            last,
            compact: None,
            term: RaftTerm(1),
            index: RaftIndex(revision.unsigned_abs()),
            state: Moment(state),
            ended: Moment(state),
            records: 1,
            keys: 1,
            logical_bytes: 1,
            new_bytes: 1,
            cluster: ClusterId(cluster),
            member: MemberId(1),
            etcd: String::new(),
            erased: false,
        };
        let name = format!("timelines/{timeline}/bases/{cluster}-{revision}-{state}.base");
        let header = Header {
            facts,
            flags: 0,
            generation: Generation::NONE,
            body_bytes: 0,
            body_digest: [0; 32],
        };
        BaseEntry { name, bytes: 0, header }
    }

    /// Which base a point means, by the end of its name, or what is said instead.
    fn check_choice(bases: &[BaseEntry], point: &str, want: &str) {
        let listing = Listing { bases: bases.to_vec(), unreadable: Vec::new() };
        let got = match Point::parse(point, Moment(0)).unwrap().choose(&listing) {
            Ok(base) => base.name.clone(),
            Err(failure) => failure.what,
        };
        assert!(got.contains(want), "{point}: {got}");
    }

    #[test]
    fn a_point_means_one_base_or_is_refused() {
        let one = [a_base(1, 1, 5, 100), a_base(1, 1, 7, 200), a_base(1, 1, 9, 300)];
        check_choice(&one, "latest", "1-9-300.base");
        check_choice(&one, "7", "1-7-200.base");
        check_choice(&one, "1970-01-01T00:00:00.200Z", "1-7-200.base");
        check_choice(&one, "1970-01-01T00:00:00.199Z", "1-5-100.base");
        check_choice(&one, "1-5-100.base", "1-5-100.base");
        check_choice(&one, "timelines/1/bases/1-5-100.base", "1-5-100.base");
        // Once any end of a name was enough, and this meant the newest.
        check_choice(&one, ".base", "holds no base .base");
        check_choice(&one, "00.base", "holds no base 00.base");
        // A clock that went wrong does not make an old state the newest.
        check_choice(&[a_base(1, 1, 9, 100), a_base(1, 1, 7, 200)], "latest", "1-9-100.base");
        // One that erases was cut off: what it has made of the base is there beside it.
        let mut erased = a_base(1, 1, 9, 300);
        erased.header.facts.erased = true;
        erased.name.insert(0, 'x');
        let [_, _, whole] = one;
        check_choice(&[erased.clone(), whole.clone()], "latest", "xtimelines/1/bases/1-9-300.base");
        check_choice(&[whole, erased], "latest", "xtimelines/1/bases/1-9-300.base");
    }

    /// A revision of which one history has a base, and another one all records before a later base.
    #[test]
    fn of_a_revision_that_two_have_none_is_taken() {
        let protection = Protection { sealing: Sealing::Unencrypted, signers: Vec::new() };
        let store = Store::memory().unwrap();
        let archive = Archive::init(store, Moment(0), &protection).unwrap();
        let check = |bases: &[BaseEntry], point: &str, want: &str| {
            let listing = Listing { bases: bases.to_vec(), unreadable: Vec::new() };
            let got = match Point::parse(point, Moment(0)).unwrap().find(&archive, &listing) {
                Ok((base, _)) => base.name,
                Err(failure) => failure.what,
            };
            assert!(got.contains(want), "{point}: {got}");
        };
        let several = "of several clusters or histories";
        let histories = [a_base(1, 1, 5, 100), a_base(1, 2, 9, 200)];
        check(&histories, "5", several);
        check(&histories, &format!("{}:5", TimelineId([1; 16])), "1-5-100.base");
        check(&histories, &format!("{}:5", TimelineId([2; 16])), "1-9-200.base");
        check(&histories, "9", "1-9-200.base");
        check(&histories, "7", "1-9-200.base");
        let clusters = [a_base(1, 1, 5, 100), a_base(2, 2, 9, 200)];
        check(&clusters, "5", several);
        check(&clusters, "0000000000000002:5", "2-9-200.base");
        let mut compacted = a_base(1, 2, 9, 200);
        compacted.header.facts.compact = Revision::new(5);
        check(&[a_base(1, 1, 5, 100), compacted], "5", "1-5-100.base");
    }

    #[test]
    fn neither_cluster_nor_history_is_guessed() {
        let clusters = [a_base(1, 1, 5, 100), a_base(2, 2, 5, 200)];
        check_choice(&clusters, "latest", "such bases of several clusters");
        check_choice(&clusters, "1-5-100.base", "1-5-100.base");
        check_choice(&clusters, "0000000000000001:latest", "1-5-100.base");
        check_choice(&clusters, "0000000000000002:5", "2-5-200.base");
        check_choice(&clusters, "0000000000000001:1970-01-01T00:00:09Z", "1-5-100.base");
        check_choice(&clusters, "0000000000000003:latest", "no such base of cluster");
        // As etcd shows ids, and so do we.
        check_choice(&clusters, &format!("{}:5", ClusterId(2)), "2-5-200.base");
        let histories = [a_base(1, 1, 5, 100), a_base(1, 1, 8, 150), a_base(1, 2, 5, 200)];
        check_choice(&histories, "5", "revision 5 of several histories");
        check_choice(&histories, "8", "1-8-150.base");
        check_choice(&histories, "latest", "1-5-200.base");
        let timeline = |number: u8| TimelineId([number; 16]);
        check_choice(&histories, &format!("{}:latest", timeline(1)), "1-8-150.base");
        check_choice(&histories, &format!("{}:5", timeline(1)), "1-5-100.base");
        check_choice(&histories, &format!("{}:5", timeline(2)), "1-5-200.base");
        check_choice(&histories, &format!("{}:8", timeline(2)), "no such base of timeline");
    }

    #[test]
    fn points_in_time() {
        let now = Moment(1_000_000);
        let parse = |text| Point::parse(text, now).ok();
        assert_eq!(parse("latest"), Some(Point::Latest));
        assert_eq!(parse("42"), Revision::new(42).map(Point::Revision));
        assert_eq!(parse("10s"), Some(Point::Time(Moment(990_000))));
        assert_eq!(parse("1970-01-01T00:00:02Z"), Some(Point::Time(Moment(2000))));
        assert_eq!(parse("x.base"), Some(Point::Object("x.base".to_owned())));
        for bad in ["", "-5", "newest", "0s", "2026-11-20", "-10m"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
