//! `rekindle archive`: making archives, and what they hold.

use crate::args::{ArchiveCommand, InitArgs, ListArgs};
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use jiff::Timestamp;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{Archive, BaseEntry, Error, Listing, Store, StoreFault, StoreFaultKind};
use rekindle_etcd::Revision;
use serde_json::{Value, json};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) fn run(command: &ArchiveCommand) -> Result<(), Failure> {
    match command {
        ArchiveCommand::Init(args) => init(args),
        ArchiveCommand::List(args) => list(args),
    }
}

fn init(args: &InitArgs) -> Result<(), Failure> {
    let path = local(&args.place)?;
    if !args.unencrypted {
        let what = "nothing says how the archive is to be protected";
        return Err(Failure::usage(what).remedy(
            "this version cannot encrypt yet: pass --unencrypted, and keep others from reading the \
             place, for it will hold the cluster's secrets",
        ));
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(|error| Failure::io("making", &path, &error))?;
    let archive =
        Archive::init_unencrypted(Store::directory(&path)?, &Timestamp::now().to_string())?;
    output::print(&format!(
        "archive   {}\nid        {}\nprotected not at all: it is not encrypted\n\
         next      rekindle save {}\n",
        path.display(),
        archive.id(),
        path.display()
    ))
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let archive = open(&args.archive)?;
    let listing = archive.list()?;
    for error in &listing.unreadable {
        eprintln!("warning: {error}");
    }
    listing_output(&listing).print(args.output.format())?;
    match listing.unreadable.len() {
        0 => Ok(()),
        count => {
            let what = format!("{count} of the archive's objects cannot be read");
            Err(Failure::new(Code::BadData, what).remedy(
                "the restore points that are listed do not need them; look at the store's own history",
            ))
        }
    }
}

fn listing_output(listing: &Listing) -> Output {
    let mut out = Output::default();
    let mut rows = Vec::new();
    for base in &listing.bases {
        let facts = &base.header.facts;
        let time = shown(facts.ended);
        let revision = facts.last.get();
        out.simple += &format!("{time}, {revision}, {}, {}\n", base.bytes, facts.etcd);
        rows.push(vec![
            time,
            revision.to_string(),
            grouped(facts.records),
            output::bytes(facts.logical_bytes),
            output::bytes(facts.new_bytes.saturating_add(base.bytes)),
            facts.etcd.clone(),
            facts.cluster.to_string(),
        ]);
    }
    out.simple = out.simple.trim_end().to_owned();
    let points: Vec<Value> = listing.bases.iter().map(to_json).collect();
    out.add("restorePoints", "Restore points", points);
    out.add("unreadable", "Unreadable", listing.unreadable.len());
    let head = ["TIME", "REVISION", "RECORDS", "SIZE", "NEW", "ETCD", "CLUSTER"];
    out.text = match rows.is_empty() {
        true => "nothing has been saved into it\n".to_owned(),
        false => output::table(&head, &rows),
    };
    out
}

fn to_json(base: &BaseEntry) -> Value {
    let facts = &base.header.facts;
    json!({
        "time": shown(facts.ended),
        "began": shown(facts.began),
        "revision": facts.last.get(),
        "compactRevision": facts.compact.map_or(-1, Revision::get),
        "raftTerm": facts.term.0,
        "raftIndex": facts.index.0,
        "records": facts.records,
        "keys": facts.keys,
        "size": facts.logical_bytes,
        "newBytes": facts.new_bytes.saturating_add(base.bytes),
        "etcdVersion": facts.etcd,
        "cluster": facts.cluster.to_string(),
        "timeline": facts.timeline.to_string(),
        "object": base.name,
    })
}

/// A moment as it is printed: RFC 3339 to the second, UTC.
pub(crate) fn shown(moment: Moment) -> String {
    let at = Timestamp::from_millisecond(moment.0).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The clock, for headers.
pub(crate) fn now() -> Moment {
    Moment(Timestamp::now().as_millisecond())
}

/// The archive at a place.
pub(crate) fn open(place: &str) -> Result<Archive, Failure> {
    Ok(Archive::open(Store::directory(&local(place)?)?)?)
}

/// The archive at a place, if it holds one. Only a definite "not found" means that it does not.
pub(crate) fn find(place: &str) -> Result<Option<Archive>, Failure> {
    let Ok(path) = local(place) else { return Ok(None) };
    if !path.is_dir() {
        return Ok(None);
    }
    match Archive::open(Store::directory(&path)?) {
        Ok(archive) => Ok(Some(archive)),
        Err(Error::NoArchive { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The directory that a place names.
fn local(place: &str) -> Result<PathBuf, Failure> {
    let path = place.strip_prefix("file://").unwrap_or(place);
    match path.split_once("://") {
        Some((scheme, _)) => {
            Err(Failure::usage(format!("{place}: archives on {scheme}:// are not supported yet"))
                .remedy("name a directory"))
        }
        None if path.is_empty() => Err(Failure::usage("\"\" names no place")),
        None => Ok(Path::new(path).to_owned()),
    }
}

/// A point of an archive, behind the last `@` of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The newest.
    Latest,
    /// That revision.
    Revision(Revision),
    /// As it was at that time.
    Time(Moment),
}

impl Point {
    /// Reads `latest`, a revision, an RFC 3339 time, or an age such as `10m`.
    pub(crate) fn parse(text: &str, now: Moment) -> Result<Self, Failure> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Some(revision) = text.parse().ok().and_then(Revision::new) {
            return Ok(Self::Revision(revision));
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self::Time(Moment(time.as_millisecond())));
        }
        let age = crate::time::parse_duration(text).ok().filter(|age| *age > Duration::ZERO);
        let age = age.and_then(|age| i64::try_from(age.as_millis()).ok());
        age.and_then(|age| Some(Self::Time(Moment(now.0.checked_sub(age)?)))).ok_or_else(|| {
            Failure::usage(format!("\"{text}\" is no point in time")).remedy(
                "name latest, a revision, a time such as 2026-11-20T10:00:00Z, or an age such as 10m",
            )
        })
    }

    /// The base that brings it back.
    pub(crate) fn choose(self, listing: &Listing) -> Result<&BaseEntry, Failure> {
        let newest =
            |fits: &dyn Fn(&BaseEntry) -> bool| listing.bases.iter().rev().find(|base| fits(base));
        let found = match self {
            Self::Latest => newest(&|_| true),
            Self::Revision(revision) => newest(&|base| base.header.facts.last == revision),
            Self::Time(time) => newest(&|base| base.header.facts.ended <= time),
        };
        found.ok_or_else(|| {
            let what = match self {
                Self::Latest => "the archive holds no base".to_owned(),
                Self::Revision(revision) => {
                    format!("the archive holds no base at revision {revision}")
                }
                Self::Time(time) => {
                    format!("the archive holds no base from before {}", shown(time))
                }
            };
            Failure::new(Code::NotFound, what).remedy("rekindle archive list shows what there is")
        })
    }
}

/// The archive and the point that an argument names, if it names an archive.
pub(crate) fn parse_source(text: &str) -> Result<Option<(Archive, Point)>, Failure> {
    if let Some(archive) = find(text)? {
        return Ok(Some((archive, Point::Latest)));
    }
    let Some((place, point)) = text.rsplit_once('@') else { return Ok(None) };
    match find(place)? {
        Some(archive) => Ok(Some((archive, Point::parse(point, now())?))),
        None => Ok(None),
    }
}

impl From<StoreFault> for Failure {
    fn from(fault: StoreFault) -> Self {
        let what = fault.to_string();
        match fault.kind {
            StoreFaultKind::NotFound => Self::new(Code::NotFound, what).remedy("check the path"),
            StoreFaultKind::Denied => Self::new(Code::Failed, what)
                .remedy("run as a user who may do that, or give this one the right"),
            _ => Self::new(Code::Failed, what),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let what = error.to_string();
        match error {
            Error::Store(fault) => fault.into(),
            Error::Source(error) => error.into(),
            Error::Stopped => Self::new(Code::Interrupted, "interrupted; nothing was changed"),
            Error::NoArchive { place } => Self::new(Code::NotFound, what)
                .remedy(format!("make one with rekindle archive init {place}, or check the path")),
            Error::IsArchive { .. } | Error::NotEmpty { .. } => {
                Self::refused(what).remedy("choose an empty place, or one that is not there yet")
            }
            Error::TooNew { .. } => Self::refused(what).remedy("use a newer rekindle"),
            Error::Damaged { .. } | Error::Json { .. } | Error::Stranger { .. } => {
                Self::new(Code::BadData, what).remedy(
                    "restore another point: rekindle archive list shows them; or bring the object \
                     back from a copy of the archive",
                )
            }
            _ => Self::new(Code::Failed, what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time() {
        let now = Moment(1_000_000);
        let parse = |text| Point::parse(text, now).ok();
        assert_eq!(parse("latest"), Some(Point::Latest));
        assert_eq!(parse("42"), Revision::new(42).map(Point::Revision));
        assert_eq!(parse("10s"), Some(Point::Time(Moment(990_000))));
        assert_eq!(parse("1970-01-01T00:00:02Z"), Some(Point::Time(Moment(2000))));
        for bad in ["", "-5", "newest", "0s", "2026-11-20", "-10m"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
