//! What is left of an archive where a restore point could not be brought back.

use super::{now, shown};
use crate::failure::{Code, Failure};
use crate::output::grouped;
use crate::terminal;
use rekindle_archive::{
    Archive, BaseEntry, Level, Verdict, Verification, VerifyProgress, VerifyRequest, Word,
};
use std::sync::atomic::{AtomicU64, Ordering};

/// The failure of a base that could not be read, with the restore points that its damage spares.
pub(crate) fn with_what_remains(failure: Failure, archive: &Archive, base: &BaseEntry) -> Failure {
    if failure.code != Code::BadData {
        return failure;
    }
    match look(archive, base) {
        Ok(verdict) if verdict.has(Word::Lost) => {
            let remedy = remedy(&verdict, base, archive.store().place());
            failure.remedy(remedy)
        }
        // Nothing more can be said.
        Ok(_) | Err(_) => failure,
    }
}

fn look(archive: &Archive, base: &BaseEntry) -> Result<Verdict, Failure> {
    let request = VerifyRequest { level: Level::Listed, only: None, now: now() };
    let (done, stop) = (AtomicU64::new(0), terminal::stop_flag()?);
    let progress = VerifyProgress { done: &done, stop: &stop };
    let position = || done.load(Ordering::Relaxed);
    let around = || Verification::begin(archive, &request)?.run_around(base, progress);
    Ok(terminal::watching("looking for what remains", None, position, around)?)
}

fn remedy(verdict: &Verdict, base: &BaseEntry, place: &str) -> String {
    let cluster = base.header.facts.cluster;
    let of_cluster = || {
        let others = verdict.points.iter().filter(|point| point.entry.name != base.name);
        others.filter(|point| point.entry.header.facts.cluster == cluster)
    };
    let remain: Vec<_> = of_cluster().filter(|point| point.level.is_some()).collect();
    let repair = format!(
        "bring back what is lost from a copy: rekindle archive repair {place} --from OTHER"
    );
    let Some(newest) = remain.last() else {
        return format!("no other restore point of cluster {cluster} remains; {repair}");
    };
    let (facts, name) = (&newest.entry.header.facts, newest.entry.name.rsplit('/').next());
    format!(
        "{} of {} other restore points of the cluster have no part in this; the newest is revision {} of \
         {}: {place}@{}. Or {repair}",
        grouped(remain.len()),
        grouped(of_cluster().count()),
        facts.last,
        shown(facts.state),
        name.unwrap_or_default(),
    )
}
