//! Backups: whether there are any, how old, and what proves them.

use super::finding;
use crate::health::{Finding, Severity};
use jiff::{SignedDuration, Timestamp};

/// One archive.
#[derive(Clone, Debug, Default)]
pub struct Backups {
    /// Where.
    pub place: String,
    /// Why it cannot be looked at.
    pub away: Option<String>,
    /// Its newest point: revision and time.
    pub newest: Option<(i64, Timestamp)>,
    /// The highest revision that any of its histories of the cluster has.
    pub farthest: Option<i64>,
    /// When its points were last proven, as records say.
    pub proven: Option<Timestamp>,
    /// Members that have said different HashKVs of one revision: two of them, and which revision.
    pub differ: Option<(String, String, i64)>,
}

/// Older ones are.
const STALE: SignedDuration = SignedDuration::from_hours(25);
/// A week, and a day for whoever was away.
const UNPROVEN: SignedDuration = SignedDuration::from_hours(8 * 24);

/// Looks at it; `revision` is the cluster's.
#[must_use]
pub fn backups(archive: &Backups, revision: Option<i64>, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    let place = &archive.place;
    let mut add = |kind, what: String, remedy| found.push(finding(kind, what, remedy));
    if let Some(why) = &archive.away {
        let what = format!("{place} cannot be looked at: {why}");
        add(
            ("ArchiveAway", Severity::Urgent),
            what,
            "rekindle archive probe says what is wrong with its store",
        );
        return found;
    }
    let Some((newest, time)) = archive.newest else {
        let what = format!("{place} has no restore point");
        add(
            ("NoBackup", Severity::Urgent),
            what,
            "rekindle save, and rekindle agent for all that comes",
        );
        return found;
    };
    let age = now.duration_since(time);
    if age > STALE {
        let what =
            format!("the newest restore point of {place} is of {time}, {} h ago", age.as_hours());
        add(
            ("Stale", Severity::Urgent),
            what,
            "look whether rekindle agent runs (systemctl status rekindle), and at rekindle records",
        );
    }
    if archive.proven.is_none_or(|proven| now.duration_since(proven) > UNPROVEN) {
        let what = match archive.proven {
            Some(proven) => format!("nothing has proven {place} since {proven}"),
            None => format!("nothing has ever proven what {place} has"),
        };
        add(
            ("Unproven", Severity::Warning),
            what,
            "rekindle archive verify --level proven; rekindle agent does it each week where verify is configured",
        );
    }
    if let Some((one, other, revision)) = &archive.differ {
        let what = format!(
            "{one} and {other} have said different HashKVs of revision {revision}: {place} keeps both"
        );
        let remedy = "rekindle check --deep says whether they still differ; then rekindle replace on the host of the one that \
                      differs from the archive (rekindle archive verify --level proven)";
        add(("WitnessesDiffer", Severity::Urgent), what, remedy);
    }
    let farthest = archive.farthest.unwrap_or(newest).max(newest);
    if let Some(revision) = revision.filter(|revision| *revision < farthest) {
        let what = format!(
            "the cluster is at revision {revision}, and {place} has it up to {farthest}: its revisions went back"
        );
        let remedy = "it was restored from something older, or is empty: rekindle archive list shows what there is; clients that \
                      watch may have seen what is gone";
        add(("WentBack", Severity::Urgent), what, remedy);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_that_is_wrong_with_backups_is_named() {
        let now: Timestamp = "2026-11-20T10:00:00Z".parse().unwrap();
        let ago = |hours| now.checked_sub(SignedDuration::from_hours(hours)).unwrap();
        let good = Backups {
            place: "/a".to_owned(),
            newest: Some((50, ago(1))),
            proven: Some(ago(24)),
            ..Backups::default()
        };
        let names = |archive: &Backups, revision| {
            backups(archive, revision, now).iter().map(|found| found.name).collect::<Vec<_>>()
        };
        assert!(names(&good, Some(50)).is_empty() && names(&good, None).is_empty());
        assert_eq!(names(&good, Some(49)), ["WentBack"]);
        // What it was started empty with was saved since.
        assert_eq!(names(&Backups { farthest: Some(90), ..good.clone() }, Some(60)), ["WentBack"]);
        let differ = Some(("m1".to_owned(), "m2".to_owned(), 40));
        assert_eq!(names(&Backups { differ, ..good.clone() }, None), ["WitnessesDiffer"]);
        assert_eq!(
            names(&Backups { newest: Some((50, ago(26))), ..good.clone() }, None),
            ["Stale"]
        );
        assert_eq!(names(&Backups { proven: None, ..good.clone() }, None), ["Unproven"]);
        assert_eq!(names(&Backups { proven: Some(ago(200)), ..good.clone() }, None), ["Unproven"]);
        assert_eq!(names(&Backups { newest: None, ..good.clone() }, None), ["NoBackup"]);
        assert_eq!(names(&Backups { away: Some(String::new()), ..good }, None), ["ArchiveAway"]);
    }
}
