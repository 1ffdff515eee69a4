//! A base of an archive as a source, with what the log has behind it, and whose users it comes with.

use crate::archive::{Point, now, shown, with_what_remains};
use crate::failure::Failure;
use crate::output::grouped;
use jiff::SignedDuration;
use rekindle_archive::format::TimelineId;
use rekindle_archive::format::base::Base;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, BaseEntry, Earlier, Error, Listing, StoreFaultKind, Tail, UsersFrom, read_base,
};
use rekindle_etcd::{Changed, Revision};
use std::collections::BTreeMap;

/// So much of the log is read at most to say what is not brought back.
pub(crate) const CHANGED_BYTES_MAX: u64 = 64 << 20;
/// So many milliseconds a host's clock may be ahead of another's.
const CLOCKS_DIFFER: i64 = 5 * 60_000;

/// Whose users, roles and passwords of an archive are meant.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Users {
    /// Those of the point, whatever they may: nobody is to be served with it.
    OfPoint,
    /// Those of the point, unless anybody has more rights by them than he has now; or those that were said.
    Accepted(Option<UsersFrom>),
}

/// A base of an archive. Its database has the small buckets only.
#[derive(Debug)]
pub(crate) struct ArchivedBase {
    pub archive: Archive,
    pub entry: BaseEntry,
    /// With the last record of the tail, where there is one.
    pub base: Base,
    /// What comes behind it in the log.
    pub tail: Option<Tail>,
    /// It is taken up to an earlier revision than its own, which is this one.
    pub own_revision: Option<Revision>,
    /// Nobody saw when the cluster was there.
    pub reckoned: bool,
    /// The newest base of the same history.
    newest: BaseEntry,
    /// Users, roles and passwords are as they were then, and not as at the point.
    pub users_of: Option<Moment>,
}

/// The newest base of a base's cluster, in whichever of its histories.
fn newest_base<'a>(listing: &'a Listing, base: &'a BaseEntry) -> &'a BaseEntry {
    let same = |other: &&BaseEntry| other.header.facts.cluster == base.header.facts.cluster;
    let position = |other: &&BaseEntry| {
        let facts = &other.header.facts;
        (facts.state, facts.term, facts.index)
    };
    listing.bases.iter().filter(same).max_by_key(position).unwrap_or(base)
}

/// Bases of the cluster that are newer than one, the newest first.
fn newer_bases<'a>(listing: &'a Listing, base: &BaseEntry) -> Vec<&'a BaseEntry> {
    let position = |other: &BaseEntry| {
        let facts = &other.header.facts;
        (facts.state, facts.term, facts.index)
    };
    let same = |other: &&BaseEntry| other.header.facts.cluster == base.header.facts.cluster;
    let newer = listing.bases.iter().filter(same).filter(|it| position(it) > position(base));
    let mut newer: Vec<_> = newer.collect();
    newer.sort_by_key(|other| std::cmp::Reverse(position(other)));
    newer
}

/// The newest base of the same history up to a revision that can be read.
fn base_before<'a>(
    archive: &Archive,
    listing: &'a Listing,
    base: &BaseEntry,
    to: Revision,
) -> Result<Option<&'a BaseEntry>, Failure> {
    let timeline = base.header.facts.timeline;
    let position = |base: &&BaseEntry| (base.header.facts.last, base.header.facts.index);
    let own = listing.bases.iter().filter(|it| it.header.facts.timeline == timeline);
    let mut before: Vec<_> = own.filter(|it| it.header.facts.last <= to).collect();
    before.sort_by_key(position);
    for base in before.into_iter().rev() {
        match read_base(archive, base) {
            Ok(_) => return Ok(Some(base)),
            Err(Error::Store(fault)) if fault.kind != StoreFaultKind::NotFound => {
                return Err(fault.into());
            }
            Err(error) => eprintln!("warning: users are not those of {}: {error}", base.name),
        }
    }
    Ok(None)
}

/// A base with users, roles and passwords that nobody gets more rights by than he has now, or with those that
/// were asked for.
fn with_users(
    archive: &Archive,
    base: Base,
    entry: &BaseEntry,
    listing: &Listing,
    accepted: Option<UsersFrom>,
) -> Result<(Base, Option<Moment>), Failure> {
    let (mut later, mut unread) = (None, None);
    for newer in newer_bases(listing, entry) {
        match read_base(archive, newer) {
            Ok(read) => {
                later = Some((newer, read));
                break;
            }
            Err(Error::Store(fault)) if fault.kind != StoreFaultKind::NotFound => {
                return Err(fault.into());
            }
            Err(error) if accepted == Some(UsersFrom::Latest) => return Err(error.into()),
            Err(error) => {
                eprintln!("warning: users and passwords are not compared with later ones: {error}");
                unread = Some(error);
            }
        }
    }
    let (newest, later) = match (later, unread) {
        (Some(later), _) => later,
        // Where there never were users, what cannot be read of later ones keeps nobody from an earlier one.
        (None, Some(error)) if accepted.is_none() && base.has_users()? => {
            let what = format!(
                "no later base can be read, so nobody knows whether users and passwords of the point give \
                 rights that nobody has any more: {error}"
            );
            return Err(Failure::refused(what).remedy(
                "--accept-auth-from point takes those of the point all the same; rekindle archive repair \
                 brings back what is lost from a copy",
            ));
        }
        (None, _) => return Ok((base, None)),
    };
    match (base.users_drift(&later)?, accepted) {
        (_, Some(UsersFrom::Latest)) => {
            let users_of = newest.header.facts.state;
            Ok((base.with_users(UsersFrom::Latest, &later)?, Some(users_of)))
        }
        (_, Some(UsersFrom::Point)) | (None, None) => {
            Ok((base.with_users(UsersFrom::Point, &later)?, None))
        }
        (Some(drift), None) => {
            let what = match drift.opens {
                true => {
                    "at that point the cluster asked nobody for a password, and later it did: whoever \
                     reaches it could read and change everything"
                        .to_owned()
                }
                false => format!(
                    "users or roles that were removed or changed later would be as they were, with \
                     passwords and permissions that may have been taken: {}",
                    drift.reverted.join(", ")
                ),
            };
            Err(Failure::refused(what).remedy(format!(
                "--accept-auth-from latest takes users, roles and passwords as they were at {}; \
                 --accept-auth-from point takes those of the point all the same",
                shown(newest.header.facts.state)
            )))
        }
    }
}

/// Another history of the cluster that has got further than the newest one: an etcd that is started on an emptied directory
/// begins one with next to nothing in it, and that is not what anybody wants back.
fn further_history(
    archive: &Archive,
    listing: &Listing,
    entry: &BaseEntry,
    last: Revision,
) -> Result<Option<Failure>, Failure> {
    let own = &entry.header.facts;
    let mut newest = BTreeMap::new();
    for base in &listing.bases {
        let facts = &base.header.facts;
        if facts.cluster == own.cluster && facts.timeline != own.timeline {
            let known = newest.entry(facts.timeline).or_insert(base);
            if known.header.facts.last < facts.last {
                *known = base;
            }
        }
    }
    for (timeline, base) in newest {
        let reached = archive.following(base)?.last().max(base.header.facts.last);
        if reached > last {
            let since = shown(first_of(listing, own.timeline).unwrap_or(own.state));
            let what = format!(
                "the newest history of the cluster, which begins at {since}, has got to revision {last}, and another one to \
                 {reached}: etcd was started empty then, or restored from something older"
            );
            let remedy = format!(
                "name the one that is meant: @{timeline}:latest is the one that got further, @{}:latest the newest one; or a \
                 time",
                own.timeline
            );
            return Ok(Some(Failure::refused(what).remedy(remedy)));
        }
    }
    Ok(None)
}

/// Nobody restores the newest history unasked where another got further.
fn check_none_got_further(
    archive: &Archive,
    listing: &Listing,
    entry: &BaseEntry,
    last: Revision,
    users: Users,
) -> Result<(), Failure> {
    match (further_history(archive, listing, entry, last)?, users) {
        (Some(failure), Users::Accepted(_)) => return Err(failure),
        (Some(failure), Users::OfPoint) => eprintln!("warning: {}", failure.what),
        (None, _) => {}
    }
    Ok(())
}

/// When the first base of a history was made.
fn first_of(listing: &Listing, timeline: TimelineId) -> Option<Moment> {
    let of_it = listing.bases.iter().filter(|base| base.header.facts.timeline == timeline);
    of_it.map(|base| base.header.facts.state).min()
}

impl ArchivedBase {
    /// Opens the base that a point of an archive stands on.
    pub(super) fn open(archive: Archive, point: &Point, users: Users) -> Result<Self, Failure> {
        if let Point::Time(asked) = point.bare()
            && asked.0 > now().0.saturating_add(CLOCKS_DIFFER)
        {
            let what = format!("{} is in the future", shown(*asked));
            return Err(Failure::usage(what).remedy("--latest is the newest that there is"));
        }
        let (listing, entry, to, base) = loop {
            let listing = archive.list()?;
            let (entry, to) = point.find(&archive, &listing)?;
            match read_base(&archive, &entry) {
                // A prune may have come between: then it is not listed any more, and another is meant.
                Err(Error::Store(fault))
                    if fault.kind == StoreFaultKind::NotFound
                        && !archive.list()?.bases.contains(&entry) => {}
                Ok(base) => break (listing, entry, to, base),
                Err(error) => return Err(with_what_remains(error.into(), &archive, &entry)),
            }
        };
        let own_revision = entry.header.facts.last;
        let (entry, base, tail, reckoned) = match to {
            None => (entry, base, None, false),
            Some(to) if to < own_revision => {
                let before = base_before(&archive, &listing, &entry, to)?;
                if before.is_none() {
                    eprintln!(
                        "warning: users, roles and passwords are those of revision {own_revision}: there is \
                         no earlier base"
                    );
                }
                let Earlier { entry, base, reckoned } = archive.as_of(&entry, base, to, before)?;
                (entry, base, None, reckoned)
            }
            Some(to) => {
                let (base, tail) = archive.following(&entry)?.up_to(base, to)?;
                let reckoned = tail.reckoned;
                (entry, base, Some(tail), reckoned)
            }
        };
        let own_revision = Some(own_revision).filter(|own| *own > entry.header.facts.last);
        if tail.as_ref().is_some_and(|tail| tail.erased) {
            eprintln!("warning: records of the log on the way to it were erased on demand");
        }
        if base.erased > 0 {
            eprintln!(
                "warning: {} of its records were erased on demand: what is left is not all that the \
                 cluster had at revision {}",
                grouped(base.erased),
                entry.header.facts.last
            );
        }
        if *point.bare() == Point::Latest && !matches!(point, Point::OfTimeline(..)) {
            let last = tail.as_ref().map_or(entry.header.facts.last, |tail| tail.to);
            check_none_got_further(&archive, &listing, &entry, last, users)?;
        }
        let newest = newest_base(&listing, &entry).clone();
        let (base, users_of) = match users {
            Users::OfPoint => (base, None),
            Users::Accepted(accepted) => with_users(&archive, base, &entry, &listing, accepted)?,
        };
        let base = Self { archive, entry, base, tail, own_revision, reckoned, newest, users_of };
        if let Point::Time(asked) = point.bare() {
            eprintln!("{}", base.distance(*asked));
            if let Some(warning) = base.unknown_at(*asked, &listing)? {
                eprintln!("warning: {warning}");
            }
        }
        Ok(base)
    }

    /// What the archive has beyond it, in words: revisions and time.
    pub(crate) fn left_out(&self) -> Option<String> {
        let facts = &self.newest.header.facts;
        // What cannot be read of later ones keeps nobody from an earlier one.
        let behind = self.archive.following(&self.newest).and_then(|behind| behind.newest());
        let behind = behind.ok().flatten().map(|it| (it.revision, it.at));
        let (revision, at) = behind.unwrap_or((facts.last, facts.state));
        let count = revision.get().abs_diff(self.revision().get());
        let ms = at.0.saturating_sub(self.time().0).max(0);
        (revision > self.revision()).then(|| {
            format!(
                "{} revisions, {:#}: the archive has the cluster up to revision {revision} of {}",
                grouped(count),
                SignedDuration::from_millis(ms),
                shown(at)
            )
        })
    }

    /// What the log has changed since; none where more than [`CHANGED_BYTES_MAX`] would be read for that.
    pub(crate) fn changed_since(&self) -> Result<Option<Changed>, Error> {
        let following = self.archive.following(&self.entry)?;
        following.changed_behind(self.revision(), CHANGED_BYTES_MAX)
    }

    /// Whether it is what a snapshot was, no more and no less.
    pub(crate) fn is_as_saved(&self) -> bool {
        self.tail.is_none() && self.own_revision.is_none()
    }

    /// Its revision.
    pub(crate) fn revision(&self) -> Revision {
        self.tail.as_ref().map_or(self.entry.header.facts.last, |tail| tail.to)
    }

    /// When the cluster was there.
    pub(crate) fn time(&self) -> Moment {
        self.tail.as_ref().map_or(self.entry.header.facts.state, |tail| tail.at)
    }

    /// Records and their bytes at most.
    pub(crate) fn size_at_most(&self) -> (u64, u64) {
        let facts = &self.entry.header.facts;
        let (records, bytes) = self.tail.as_ref().map_or((0, 0), |tail| (tail.records, tail.bytes));
        (facts.records.saturating_add(records), facts.logical_bytes.saturating_add(bytes))
    }

    /// What is not known of the time that was asked for.
    fn unknown_at(&self, asked: Moment, listing: &Listing) -> Result<Option<String>, Error> {
        let following = self.archive.following(&self.entry)?;
        let revision = self.revision();
        if following.last() > revision {
            return Ok(None);
        }
        let (until, in_log) = following.end()?;
        if until.is_some_and(|until| asked <= until) || asked <= self.time() {
            return Ok(None);
        }
        let timeline = self.entry.header.facts.timeline;
        let bases = listing.bases.iter().map(|base| &base.header.facts);
        let later = bases.filter(|facts| facts.timeline == timeline && facts.last > revision);
        let next = later.map(|facts| facts.last).chain(in_log).min();
        Ok(Some(match next {
            // It was at this one until the other came.
            Some(next) if Some(next) == revision.later(1) => return Ok(None),
            Some(next) => format!(
                "the archive knows no times between revisions {revision} and {next}, and the cluster was \
                 somewhere there then; some of these may be restored with --to-revision"
            ),
            None => {
                let until = until.unwrap_or(self.time()).max(self.time());
                format!("the archive knows nothing of this history after {}", shown(until))
            }
        }))
    }

    /// How far it is from the time that was asked for.
    fn distance(&self, asked: Moment) -> String {
        let (revision, at) = (self.revision(), self.time());
        let about = if self.reckoned { "about " } else { "" };
        let before = SignedDuration::from_millis(asked.0.saturating_sub(at.0).max(0));
        format!(
            "asked for {}: the archive has revision {revision}, at which the cluster was {about}{before:#} before",
            shown(asked)
        )
    }
}
