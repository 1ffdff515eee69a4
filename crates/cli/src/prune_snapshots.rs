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
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Remove old snapshots that rekindle save has written under a name with a date.
///
/// Looked at is nothing but files, or objects of a store, whose whole name the pattern could have given. One stays that any
/// --keep rule keeps; --ttl and --max-backups take away whatever keeps it; the newest one always stays. Periods
/// are in UTC. What saves that were killed have left beside them goes after a day.
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

/// So long a save that is at work may be silent, where a file system tells of no locks.
const LEFT: Duration = Duration::from_secs(24 * 3600);

/// What a save that was killed has left.
struct Left {
    name: String,
    bytes: u64,
}

impl Left {
    /// Unless somebody may be writing it: it is locked, or was written to within a day.
    fn find(name: &str) -> Option<Self> {
        let (_, bytes) = abandoned(Path::new(name))?;
        Some(Self { name: name.to_owned(), bytes })
    }

    /// Its lock is held until it is gone, so that nobody goes on with it.
    fn remove(&self) -> Result<(), String> {
        let path = Path::new(&self.name);
        let Some((_lock, _)) = abandoned(path) else { return Ok(()) };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    }
}

/// Its lock and its bytes.
fn abandoned(path: &Path) -> Option<(File, u64)> {
    let file = File::open(path).ok()?;
    // Whoever writes it has locked it for himself alone. Over NFS a file that is only read cannot be locked so.
    file.try_lock_shared().ok()?;
    // What was looked at before it was locked may have been written to since.
    let found = file.metadata().ok()?;
    let age = SystemTime::now().duration_since(found.modified().ok()?).ok()?;
    (age > LEFT).then_some((file, found.len()))
}

/// What was found.
struct Looked {
    place: Where,
    found: Vec<Found>,
    left: Vec<Left>,
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
    let Looked { place, mut found, left } = find(&args.pattern, &args.store)?;
    found.sort_by(|a, b| (b.at, &b.name).cmp(&(a.at, &a.name)));
    let moments: Vec<_> = found.iter().map(|it| it.at).collect();
    let reasons = args.rules.policy().judge(&moments, now());
    let going: Vec<_> = found
        .iter()
        .zip(&reasons)
        .filter(|(_, reason)| !reason.stays())
        .map(|(it, _)| it)
        .collect();
    let mut out = plan(&found, &reasons, &left);
    if args.dry_run {
        return out.print(args.output.format());
    }
    let count = going.len() + left.len();
    if count > 0 && !args.yes {
        eprint!("{}", out.text);
        terminal::confirm(&format!("{} files are removed.", grouped(count)))?;
    }
    let left = left.iter().filter_map(|it| it.remove().err().map(|cause| (&it.name, cause)));
    let mut held: Vec<_> = left.map(|(name, cause)| format!("{name}: {cause}")).collect();
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
            let what = format!("{} files could not be removed; {first}", grouped(held.len()));
            Err(Failure::new(Code::Failed, what))
        }
    }
}

fn plan(found: &[Found], reasons: &[Reason], left: &[Left]) -> Output {
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
    let bytes: u64 = left.iter().map(|it| it.bytes).sum();
    out.add("leftFiles", "Left files", left.len());
    out.add("leftBytes", "Left bytes", bytes);
    let names: Vec<_> = left.iter().map(|it| Value::from(&*it.name)).collect();
    out.json.insert("left".to_owned(), names.into());
    if !left.is_empty() {
        let goes = format!("{} files, {}", grouped(left.len()), output::bytes(bytes));
        out.text += &output::lines(&[("goes, of saves that were cut off", goes)]);
    }
    out
}

/// All whose names the pattern could have given.
fn find(pattern: &str, store: &StoreArgs) -> Result<Looked, Failure> {
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
        // Objects are there as a whole or not at all.
        let (found, left) = (found.collect(), Vec::new());
        return Ok(Looked { place: Where::Objects(store), found, left });
    }
    let pattern = pattern.strip_prefix("file://").unwrap_or(pattern);
    let mut looked = Looked { place: Where::Files, found: Vec::new(), left: Vec::new() };
    walk(Path::new(fixed_part(pattern)), pattern, &mut looked)?;
    Ok(looked)
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

fn walk(folder: &Path, pattern: &str, looked: &mut Looked) -> Result<(), Failure> {
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
            walk(&path, pattern, looked)?;
        } else if kind.is_file() {
            let name = match path.strip_prefix(".") {
                Ok(rest) if !pattern.starts_with("./") => rest.to_owned(),
                _ => PathBuf::from(&path),
            };
            let name = name.display().to_string();
            if let Some(at) = date_of(pattern, &name) {
                let bytes = entry.metadata().map_err(failure)?.len();
                looked.found.push(Found { name, bytes, at });
            } else if name.strip_suffix(".part").is_some_and(|it| date_of(pattern, it).is_some()) {
                looked.left.extend(Left::find(&name));
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
    use crate::args::{Args, Command};
    use clap::Parser;

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
    fn what_killed_saves_have_left_goes_and_nothing_that_is_being_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let old = SystemTime::now() - LEFT - Duration::from_secs(60);
        let make = |name: &str, written: SystemTime| {
            let file = File::create(path(name)).unwrap();
            file.set_modified(written).unwrap();
            file
        };
        let whole = "a-20261101.db";
        make(whole, old);
        for name in ["a-20261102.db.part", "other.db.part", "a-2026.db.part", "a-20261103.part"] {
            make(name, old);
        }
        make("a-20261104.db.part", SystemTime::now());
        let written = make("a-20261105.db.part", old);
        written.lock().unwrap();
        let pattern = path("a-%Y%m%d.db").display().to_string();
        let words = ["rekindle", "prune-snapshots", &pattern, "--keep-last=1"];
        let run_with = |more: &str| {
            let parsed = Args::try_parse_from(words.iter().chain(&[more])).unwrap();
            let Command::PruneSnapshots(args) = parsed.command else { panic!("another command") };
            run(&args).unwrap();
        };
        let count = || std::fs::read_dir(directory.path()).unwrap().count();
        run_with("--dry-run");
        assert_eq!(count(), 7);
        run_with("--yes");
        assert_eq!((count(), path("a-20261102.db.part").exists()), (6, false));
        drop(written);
        run_with("--yes");
        assert_eq!((count(), path("a-20261105.db.part").exists()), (5, false));
    }

    #[test]
    fn where_they_are_looked_for() {
        assert_eq!(fixed_part("/b/%Y/%m.db"), "/b/");
        assert_eq!(fixed_part("/b/x-%Y.db"), "/b/");
        assert_eq!(fixed_part("x-%Y.db"), ".");
        assert_eq!(fixed_part("s3://bucket/a/x-%Y.db"), "s3://bucket/a/");
    }
}
