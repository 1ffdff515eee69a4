//! `rekindle prune-snapshots`: of plain snapshots with dates in their names, old ones go.

use crate::archive::{Rules, now, shown};
use crate::args::{OutputArgs, StoreArgs};
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use crate::terminal;
use clap::Args as ClapArgs;
use jiff::Timestamp;
use rekindle_agent::config::{date_in, fill_pattern};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{Place, Reason, Store};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Remove old snapshots that rekindle save has written under a name with a date.
///
/// Looked at is nothing but files, or objects of a store, whose whole name the pattern could have given. One stays that any
/// --keep rule keeps; --ttl and --max-backups take away whatever keeps it; the newest one always stays. Periods
/// are in UTC.
#[derive(Debug, ClapArgs)]
pub(crate) struct PruneSnapshotsArgs {
    /// The name as rekindle save has it, such as /backup/etcd-%Y%m%dT%H%M%SZ.db; a path or a URL.
    pub pattern: String,
    #[command(flatten)]
    pub rules: Rules,
    /// Print the plan and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before snapshots are removed.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A snapshot that was found.
struct Found {
    name: String,
    bytes: u64,
    at: Moment,
}

/// Where they are.
enum Where {
    Files,
    Objects(Store),
}

pub(crate) fn run(args: &PruneSnapshotsArgs) -> Result<(), Failure> {
    if !rekindle_agent::jobs::is_dated(&args.pattern) {
        return Err(Failure::usage(format!("{} has no date in it", args.pattern))
            .remedy("name them as rekindle save does, such as /backup/etcd-%Y%m%dT%H%M%SZ.db"));
    }
    let filled = fill_pattern(&args.pattern, Timestamp::now()).ok();
    if filled.is_none_or(|name| date_in(&args.pattern, &name).is_none()) {
        let what = format!("names that {} gives do not say of which day they are", args.pattern);
        return Err(Failure::usage(what).remedy("use a year, a month and a day, such as %Y%m%d"));
    }
    if args.rules == Rules::default() {
        return Err(Failure::usage("no rule says what stays")
            .remedy("see --keep-daily, --ttl and the like"));
    }
    if args.rules.keep_log.is_some() {
        return Err(Failure::usage("--keep-log: snapshots have no log"));
    }
    let (place, mut found) = find(&args.pattern, &args.store)?;
    found.sort_by(|a, b| (b.at, &b.name).cmp(&(a.at, &a.name)));
    let moments: Vec<_> = found.iter().map(|it| it.at).collect();
    let reasons = args.rules.policy().judge(&moments, now());
    let going: Vec<_> = found
        .iter()
        .zip(&reasons)
        .filter(|(_, reason)| !reason.stays())
        .map(|(it, _)| it)
        .collect();
    let mut out = plan(&found, &reasons);
    if args.dry_run {
        return out.print(args.output.format());
    }
    if !going.is_empty() && !args.yes {
        eprint!("{}", out.text);
        terminal::confirm(&format!("{} snapshots are removed.", grouped(going.len())))?;
    }
    let mut held = Vec::new();
    for found in going {
        let removed = match &place {
            Where::Files => std::fs::remove_file(&found.name).map_err(|error| error.to_string()),
            Where::Objects(store) => store.remove(&found.name).map_err(|fault| fault.to_string()),
        };
        held.extend(removed.err().map(|cause| format!("{}: {cause}", found.name)));
    }
    out.add("held", "Held", held.len());
    out.print(args.output.format())?;
    match held.first() {
        None => Ok(()),
        Some(first) => {
            let what = format!("{} snapshots could not be removed; {first}", grouped(held.len()));
            Err(Failure::new(Code::Failed, what))
        }
    }
}

fn plan(found: &[Found], reasons: &[Reason]) -> Output {
    let is_going = |(_, reason): &(&Found, &Reason)| !reason.stays();
    let going = found.iter().zip(reasons).filter(is_going).count();
    let bytes: u64 = found.iter().zip(reasons).filter(is_going).map(|(it, _)| it.bytes).sum();
    let simple = format!("{going}, {}", found.len() - going);
    let mut out = Output { simple, ..Output::default() };
    out.add("removed", "Removed", going);
    out.add("removedBytes", "Removed bytes", bytes);
    out.add("kept", "Kept", found.len() - going);
    let told = |(found, reason): (&Found, &Reason)| {
        json!({
            "name": found.name, "time": shown(found.at), "bytes": found.bytes,
            "stays": reason.stays(), "reason": reason.to_string(),
        })
    };
    let snapshots: Vec<Value> = found.iter().zip(reasons).map(told).collect();
    out.json.insert("snapshots".to_owned(), snapshots.into());
    let row = |(found, reason): (&Found, &Reason)| {
        let fate = if reason.stays() { "stays" } else { "goes" };
        vec![shown(found.at), found.name.clone(), fate.to_owned(), reason.to_string()]
    };
    let rows: Vec<_> = found.iter().zip(reasons).map(row).collect();
    out.text = output::table(&["TIME", "SNAPSHOT", "FATE", "WHY"], &rows);
    let goes = format!("{} snapshots, {}", grouped(going), output::bytes(bytes));
    out.text += &output::lines(&[("goes", goes)]);
    out
}

/// All whose names the pattern could have given.
fn find(pattern: &str, store: &StoreArgs) -> Result<(Where, Vec<Found>), Failure> {
    if let Some((scheme, _)) = pattern.split_once("://").filter(|(scheme, _)| *scheme != "file") {
        let fixed = fixed_part(pattern);
        let place = Place::parse(fixed.trim_end_matches('/'))?;
        let (store, root) = (store.open(&place)?, place.to_string());
        let rest = pattern.strip_prefix(&format!("{root}/")).ok_or_else(|| {
            Failure::usage(format!(
                "{pattern}: write {scheme}://BUCKET/PREFIX/NAME, with dates in the name"
            ))
        })?;
        let listed = store.list("")?;
        let found = listed.into_iter().filter_map(|it| {
            let at = date_of(rest, &it.name)?;
            Some(Found { name: it.name, bytes: it.bytes, at })
        });
        let found = found.collect();
        return Ok((Where::Objects(store), found));
    }
    let pattern = pattern.strip_prefix("file://").unwrap_or(pattern);
    let mut found = Vec::new();
    walk(Path::new(fixed_part(pattern)), pattern, &mut found)?;
    Ok((Where::Files, found))
}

/// The folders that have no date.
fn fixed_part(pattern: &str) -> &str {
    let date = pattern.find('%').unwrap_or(pattern.len());
    let end = pattern.get(..date).and_then(|fixed| fixed.rfind('/')).map_or(0, |slash| slash + 1);
    match pattern.get(..end).unwrap_or_default() {
        "" => ".",
        fixed => fixed,
    }
}

fn walk(folder: &Path, pattern: &str, found: &mut Vec<Found>) -> Result<(), Failure> {
    let failure = |error| Failure::io("reading directory", folder, &error);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failure)?,
    };
    let depth = |path: &Path| {
        path.components().filter(|it| !matches!(it, std::path::Component::CurDir)).count()
    };
    for entry in entries {
        let entry = entry.map_err(failure)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(failure)?);
        if kind.is_dir() && depth(&path) < depth(Path::new(pattern)) {
            walk(&path, pattern, found)?;
        } else if kind.is_file() {
            let name = match path.strip_prefix(".") {
                Ok(rest) if !pattern.starts_with("./") => rest.to_owned(),
                _ => PathBuf::from(&path),
            };
            let name = name.display().to_string();
            if let Some(at) = date_of(pattern, &name) {
                let bytes = entry.metadata().map_err(failure)?.len();
                found.push(Found { name, bytes, at });
            }
        }
    }
    Ok(())
}

/// The date in a name, as archives tell time.
fn date_of(pattern: &str, name: &str) -> Option<Moment> {
    date_in(pattern, name).map(|at| Moment(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_pattern_has_named_is_found() {
        let date = |pattern, name| date_of(pattern, name).map(shown);
        let pattern = "/b/etcd-%Y%m%dT%H%M%SZ.db";
        let found = date(pattern, "/b/etcd-20261120T090503Z.db");
        assert_eq!(found.as_deref(), Some("2026-11-20T09:05:03.000Z"));
        for other in [
            "/b/etcd-20261120T090503Z.db.part",
            "/b/etcd-2026.db",
            "/b/notes",
            "/b/etcd-20261320T000000Z.db",
        ] {
            assert_eq!(date(pattern, other), None, "{other}");
        }
        let daily = date("/b/%Y/%m/%d.db", "/b/2026/11/20.db");
        assert_eq!(daily.as_deref(), Some("2026-11-20T00:00:00.000Z"));
        assert_eq!(date("/b/%Y-%j.db", "/b/2026-999.db"), None);
        assert_eq!(date("/b/%s.db", "/b/60.db").as_deref(), Some("1970-01-01T00:01:00.000Z"));
        assert_eq!(date("/b/%H.db", "/b/09.db"), None);
    }

    #[test]
    fn where_they_are_looked_for() {
        assert_eq!(fixed_part("/b/%Y/%m.db"), "/b/");
        assert_eq!(fixed_part("/b/x-%Y.db"), "/b/");
        assert_eq!(fixed_part("x-%Y.db"), ".");
        assert_eq!(fixed_part("s3://bucket/a/x-%Y.db"), "s3://bucket/a/");
    }
}
