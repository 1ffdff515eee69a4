//! `rekindle archive verify`: which restore points can be brought back, and what is wrong.

use super::list::add_log;
use super::{Point, now, parse_source, shown, unlock};
use crate::args::{StoreArgs, VerifyArgs, VerifyLevel};
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use crate::terminal;
use rekindle_archive::Point as RestorePoint;
use rekindle_archive::{
    Archive, Finding, Level, Verdict, Verification, VerifyProgress, VerifyRequest, Word,
};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let (archive, point) = named(&args.archive, &args.store)?;
    let archive = unlock(archive, &args.keys)?;
    let point = match (point, args.latest) {
        (Some(_), true) => return Err(Failure::usage("a point and --latest are two things")),
        (point, false) => point,
        (None, true) => Some(Point::Latest),
    };
    let chosen =
        |point: Point| Ok::<_, Failure>(vec![point.choose(&archive.list()?)?.name.clone()]);
    let level = level(args.level);
    let request = VerifyRequest { level, only: point.map(chosen).transpose()?, now: now() };
    let stop = terminal::stop_flag()?;
    let verification = Verification::begin(&archive, &request)?;
    let (done, total) = (AtomicU64::new(0), verification.bytes());
    let progress = VerifyProgress { done: &done, stop: &stop };
    let position = || done.load(Ordering::Relaxed);
    let verdict =
        terminal::watching("verifying", Some(total), position, || verification.run(progress))?;
    let mut out = output(&verdict, level);
    if request.only.is_none() {
        add_log(&mut out, &archive.log()?);
    }
    out.print(args.output.format())?;
    failure(&verdict)
}

pub(super) fn level(level: VerifyLevel) -> Level {
    match level {
        VerifyLevel::Listed => Level::Listed,
        VerifyLevel::Read => Level::Read,
        VerifyLevel::Proven => Level::Proven,
    }
}

/// The archive and the point of it, where one is named.
pub(super) fn named(text: &str, store: &StoreArgs) -> Result<(Archive, Option<Point>), Failure> {
    let text = &store.place(Some(text))?;
    match parse_source(text, store)? {
        // Nobody has named the latest one.
        Some((archive, Point::Latest)) if !text.ends_with("@latest") => Ok((archive, None)),
        Some((archive, point)) => Ok((archive, Some(point))),
        None => Ok((super::open_at(text, store)?, None)),
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Listed => "listed",
        Level::Read => "read",
        Level::Proven => "proven",
    }
}

fn output(verdict: &Verdict, level: Level) -> Output {
    let remain: Vec<_> = verdict.points.iter().filter(|point| point.level.is_some()).collect();
    let (good, all) = (remain.len(), verdict.points.len());
    let word = worst(verdict).map_or_else(|| "OK".to_owned(), |word| word.to_string());
    let mut out = Output { simple: format!("{word}, {good}, {all}"), ..Output::default() };
    out.add("verdict", "Verdict", word.clone());
    out.add("level", "Level", level_name(level));
    out.add("restorePointsGood", "Restore points good", good);
    out.add("restorePointsVerified", "Restore points verified", all);
    out.add("witnesses", "Witnesses that agree", verdict.witnesses);
    let points: Vec<Value> = verdict.points.iter().map(point_json).collect();
    out.json.insert("restorePoints".to_owned(), points.into());
    let findings: Vec<Value> = verdict.findings.iter().map(finding_json).collect();
    out.json.insert("findings".to_owned(), findings.into());
    let mut rows = vec![("verdict", word), ("level", level_name(level).to_owned())];
    rows.push(("restore points", points_line(verdict, &remain)));
    if verdict.witnesses > 0 {
        let line = format!("{} of what members said themselves agree", grouped(verdict.witnesses));
        rows.push(("witnesses", line));
    }
    let erased = remain.iter().filter(|point| point.entry.header.facts.erased).count();
    if erased > 0 {
        let line = format!("on demand from {}: these prove what is left", grouped(erased));
        rows.push(("records erased", line));
    }
    out.text = output::lines(&rows);
    if !verdict.findings.is_empty() {
        let rows: Vec<_> = verdict.findings.iter().map(finding_row).collect();
        out.text += &output::table(&["FOUND", "REVISIONS", "TAKES AWAY", "OBJECT", "WHY"], &rows);
    }
    out
}

/// The worst that is to be said of what restore points need.
fn worst(verdict: &Verdict) -> Option<Word> {
    let words = [Word::Lost, Word::Contradicts, Word::Forked, Word::Delayed];
    words.into_iter().find(|word| verdict.has(*word))
}

fn points_line(verdict: &Verdict, remain: &[&RestorePoint]) -> String {
    let all = verdict.points.len();
    let ends = |points: &[&RestorePoint]| {
        let show = |point: &&RestorePoint| {
            let facts = &point.entry.header.facts;
            format!("revision {} of {}", facts.last, shown(facts.state))
        };
        match points {
            [] => String::new(),
            [one] => format!(": {}", show(one)),
            [first, .., last] => format!(": {} to {}", show(first), show(last)),
        }
    };
    match (remain.len(), all) {
        (_, 0) => "none".to_owned(),
        (0, all) => format!("NONE of {} can be brought back", grouped(all)),
        (good, all) if good == all => format!("{} good{}", grouped(good), ends(remain)),
        (good, all) => {
            format!("{} of {} good{}", grouped(good), grouped(all), ends(remain))
        }
    }
}

fn finding_row(found: &Finding) -> Vec<String> {
    let revisions =
        found.revisions.map_or_else(|| "-".to_owned(), |(first, last)| format!("{first}-{last}"));
    let takes = match found.takes.len() {
        0 => "nothing".to_owned(),
        1 => "1 restore point".to_owned(),
        count => format!("{} restore points", grouped(count)),
    };
    vec![found.word.to_string(), revisions, takes, found.object.clone(), found.reason.clone()]
}

fn finding_json(found: &Finding) -> Value {
    json!({
        "found": found.word.to_string(),
        "object": found.object,
        "why": found.reason,
        "firstRevision": found.revisions.map(|(first, _)| first.get()),
        "lastRevision": found.revisions.map(|(_, last)| last.get()),
        "takesAway": found.takes,
    })
}

fn point_json(point: &RestorePoint) -> Value {
    let facts = &point.entry.header.facts;
    json!({
        "time": shown(facts.state),
        "revision": facts.last.get(),
        "cluster": facts.cluster.to_string(),
        "timeline": facts.timeline.to_string(),
        "object": point.entry.name,
        "level": point.level.map(level_name),
        "erased": facts.erased,
    })
}

fn failure(verdict: &Verdict) -> Result<(), Failure> {
    let count = |word: Word| verdict.findings.iter().filter(|found| found.word == word).count();
    match worst(verdict) {
        Some(Word::Lost) => {
            let what = format!("{} of the archive's objects are lost", grouped(count(Word::Lost)));
            Err(Failure::new(Code::BadData, what).remedy(
                "bring them back from a copy: rekindle archive repair ARCHIVE --from OTHER; the next \
                 rekindle save --full makes a new restore point that needs nothing of it",
            ))
        }
        Some(Word::Contradicts) => {
            let what = "a member's own HashKV is not that of what was archived of the cluster";
            Err(Failure::new(Code::BadData, what).remedy(
                "members may differ from each other: compare etcdctl endpoint hashkv --cluster --rev of one \
                 revision, and replace the member that differs; until then trust neither blindly",
            ))
        }
        Some(Word::Forked) => {
            let what = "segments of the log have the same revisions in different ways";
            Err(Failure::new(Code::BadData, what).remedy(
                "two histories were written as one: no restore goes there; the next rekindle save --full is a \
                 restore point of the cluster as it is",
            ))
        }
        Some(_) => {
            let delayed = grouped(count(Word::Delayed));
            let what = format!("the store did not hand out {delayed} of the archive's objects");
            Err(Failure::new(Code::Transient, what))
        }
        None if verdict.points.is_empty() => {
            Err(Failure::new(Code::NotFound, "the archive holds no restore point")
                .remedy("rekindle save or rekindle capture writes the first"))
        }
        None => Ok(()),
    }
}
