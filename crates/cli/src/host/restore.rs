//! `rekindle restore-files`: what was saved of a host, listed, compared and put back.

use super::{parse_host, this_host};
use crate::archive::{ReadKeys, now, open, shown, unlock};
use crate::args::{OutputArgs, StoreArgs};
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use crate::time;
use clap::Args as ClapArgs;
use rekindle_agent::files::{Put, PutFault, Putting, certificates, differences, put};
use rekindle_archive::format::files::{FileEntry, FileKind, Files};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{Archive, FilesEntry};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Bring certificates, manifests and configuration of a host back from an archive.
///
/// Without --host what there is of which hosts. With it and --to the files are put below that directory (/ for where
/// they were), each with its owner and permissions; where anything is there with another content nothing is written, unless --replace
/// moves it aside first. --list shows what was saved, --diff how what is on this host differs from it.
#[derive(Debug, ClapArgs)]
pub(crate) struct RestoreFilesArgs {
    /// The archive.
    pub archive: String,
    /// Which host's files.
    #[arg(long, value_name = "NAME", value_parser = parse_host)]
    pub host: Option<String>,
    /// As they were then: a time such as 2026-11-20T10:00:00Z, or an age such as 10m [default: the newest]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Put them below this directory.
    #[arg(long, value_name = "DIR", requires = "host")]
    pub to: Option<PathBuf>,
    /// What is there with another content gets a name with .before- and the time behind it.
    #[arg(long, requires = "to")]
    pub replace: bool,
    /// List them.
    #[arg(long, requires = "host", conflicts_with_all = ["to", "diff"])]
    pub list: bool,
    /// Compare them with what lies below this directory [default: /]
    #[arg(long, value_name = "DIR", requires = "host", num_args = 0..=1, default_missing_value = "/", conflicts_with = "to")]
    pub diff: Option<PathBuf>,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub keys: ReadKeys,
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(crate) fn run(args: &RestoreFilesArgs) -> Result<(), Failure> {
    let archive = open(&args.archive, &args.store.clone().read_only())?;
    let (found, unreadable) = archive.files()?;
    for name in &unreadable {
        eprintln!(
            "warning: {name} is damaged: rekindle archive verify says how, rekindle archive repair mends it from a copy"
        );
    }
    let Some(host) = &args.host else {
        hosts(&found).print(args.output.format())?;
        return damaged(&unreadable);
    };
    let entry = choose(&found, host, args.at.as_deref())?;
    // Names sort by time: an older one is not taken in silence.
    let is_newer = |name: &&String| {
        name.strip_prefix("host/")
            .and_then(|it| it.split_once('/'))
            .is_some_and(|(of, _)| of == host)
            && **name > entry.name
    };
    if args.at.is_none() && unreadable.iter().any(|name| is_newer(&name)) {
        let what = format!(
            "what was saved last of {host} is damaged; before that is that of {}",
            shown(entry.at)
        );
        return Err(Failure::new(Code::BadData, what).remedy(format!(
            "mend it from a copy (rekindle archive repair), or take the older one: --at {}",
            shown(entry.at)
        )));
    }
    let archive: Archive = unlock(archive, &args.keys)?;
    let files = archive.read_files(entry)?;
    let out = match (&args.to, &args.diff) {
        (Some(to), _) => restored(&files, entry, to, args.replace)?,
        (None, Some(root)) => compared(&files, entry, root)?,
        (None, None) if args.list => listed(&files, entry),
        (None, None) => {
            return Err(Failure::usage("nothing says what to do with them")
                .remedy("add --to DIR, --list or --diff"));
        }
    };
    out.print(args.output.format())
}

fn damaged(unreadable: &[String]) -> Result<(), Failure> {
    match unreadable.len() {
        0 => Ok(()),
        count => Err(Failure::new(Code::BadData, format!("{count} of these objects are damaged"))
            .remedy("mend them from a copy: rekindle archive repair")),
    }
}

/// The newest of a host, or the newest that is as old as somebody wants.
fn choose<'a>(
    found: &'a [FilesEntry],
    host: &str,
    at: Option<&str>,
) -> Result<&'a FilesEntry, Failure> {
    let of_host = || found.iter().filter(|entry| entry.host == host);
    let latest = at.map(moment).transpose()?.unwrap_or(Moment(i64::MAX));
    if let Some(entry) = of_host().rfind(|entry| entry.at <= latest) {
        return Ok(entry);
    }
    let (what, remedy) = match of_host().next() {
        Some(first) => {
            (format!("nothing of {host} is so old"), format!("the first is of {}", shown(first.at)))
        }
        None => {
            let mut hosts: Vec<_> = found.iter().map(|entry| &*entry.host).collect();
            hosts.dedup();
            (format!("nothing of {host} was saved"), format!("there is: {}", hosts.join(", ")))
        }
    };
    Err(Failure::new(Code::NotFound, what).remedy(remedy))
}

fn moment(text: &str) -> Result<Moment, Failure> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(Moment(time.as_millisecond()));
    }
    let ago = time::parse_duration(text).map_err(|_| {
        Failure::usage(format!(
            "\"{text}\" is neither a time such as 2026-11-20T10:00:00Z nor an age such as 10m"
        ))
    })?;
    Ok(Moment(now().0.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX))))
}

fn hosts(found: &[FilesEntry]) -> Output {
    let mut out = Output::default();
    let told = |it: &FilesEntry| {
        json!({
            "host": it.host, "time": shown(it.at), "entries": it.count, "bytes": it.logical_bytes,
            "file": it.name,
        })
    };
    out.json.insert("files".to_owned(), found.iter().map(told).collect::<Vec<_>>().into());
    let row = |it: &FilesEntry| {
        out.simple += &format!("{}, {}, {}\n", it.host, shown(it.at), it.count);
        vec![it.host.clone(), shown(it.at), grouped(it.count), output::bytes(it.logical_bytes)]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    out.text = output::table(&["HOST", "TIME", "ENTRIES", "BYTES"], &rows);
    let this = this_host();
    if !found.iter().any(|it| it.host == this) {
        out.text += &output::lines(&[("this host", format!("{this}, of which nothing was saved"))]);
    }
    out
}

/// What begins each output of one host.
fn begun(files: &Files, entry: &FilesEntry) -> Output {
    let mut out =
        Output { simple: format!("{}, {}", files.host, shown(entry.at)), ..Output::default() };
    out.add("host", "Host", files.host.clone());
    out.add("time", "Time", shown(entry.at));
    out.add("entries", "Entries", files.entries.len());
    out.json.insert("leftOut".to_owned(), files.left_out.clone().into());
    for path in &files.left_out {
        eprintln!(
            "warning: {path} is not among them: it was not there, or could not be read, when they were saved"
        );
    }
    out
}

fn kind(entry: &FileEntry) -> String {
    match &entry.what {
        FileKind::Directory => "directory".to_owned(),
        FileKind::File(bytes) => output::bytes(bytes.len() as u64),
        FileKind::Link(target) => format!("-> {target}"),
    }
}

fn listed(files: &Files, entry: &FilesEntry) -> Output {
    let mut out = begun(files, entry);
    let told = |it: &FileEntry| {
        let mode = format!("{:04o}", it.mode);
        json!({ "path": it.path, "mode": mode, "owner": it.owner, "group": it.group, "what": kind(it) })
    };
    let all: Vec<_> = files.entries.iter().map(told).collect();
    out.json.insert("files".to_owned(), all.into());
    let expiry = certificates(files);
    let row = |it: &FileEntry| {
        let of_file = expiry.iter().filter(|found| found.path == it.path);
        let expires = of_file.map(|found| found.not_after).min();
        vec![
            format!("{:04o}", it.mode),
            format!("{}:{}", it.owner, it.group),
            kind(it),
            it.path.clone(),
            expires.map(|at| format!("expires {at}")).unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = files.entries.iter().map(row).collect();
    out.text = output::table(&["MODE", "OWNER", "WHAT", "PATH", "CERTIFICATE"], &rows);
    out
}

fn compared(files: &Files, entry: &FilesEntry, root: &Path) -> Result<Output, Failure> {
    let failure = |error| Failure::io("reading below", root, &error);
    let mut found = differences(files, root).map_err(failure)?;
    found.extend(added(files, root));
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let mut out = begun(files, entry);
    out.simple = found.len().to_string();
    out.add("different", "Different", found.len());
    let told = |(path, is): &(String, rekindle_agent::files::Difference)| json!({ "path": path, "difference": is.word() });
    let all: Vec<Value> = found.iter().map(told).collect();
    out.json.insert("differences".to_owned(), all.into());
    let rows: Vec<_> =
        found.iter().map(|(path, is)| vec![is.word().to_owned(), path.clone()]).collect();
    out.text = output::table(&["HERE", "PATH"], &rows);
    let count =
        format!("{} of {} entries differ", grouped(found.len()), grouped(files.entries.len()));
    out.text += &output::lines(&[("compared", count)]);
    Ok(out)
}

/// What lies below the paths that were asked for, and was not saved.
fn added(files: &Files, root: &Path) -> Vec<(String, rekindle_agent::files::Difference)> {
    if root != Path::new("/") {
        return Vec::new();
    }
    let Ok(here) = rekindle_agent::files::collect(&files.host, &files.asked) else {
        return Vec::new();
    };
    let is_new = |entry: &FileEntry| {
        files.entries.binary_search_by(|kept| kept.path.cmp(&entry.path)).is_err()
    };
    let new = here.files.entries.into_iter().filter(is_new);
    new.map(|entry| (entry.path, rekindle_agent::files::Difference::Added)).collect()
}

fn restored(
    files: &Files,
    entry: &FilesEntry,
    to: &Path,
    replace: bool,
) -> Result<Output, Failure> {
    let to = std::path::absolute(to).map_err(|error| Failure::io("looking at", to, &error))?;
    let aside = format!(".before-{}", time::for_names());
    let done = put(files, Putting { root: &to, replace, aside: &aside }).map_err(|fault| match fault {
        PutFault::InTheWay(what) => Failure::refused(what).remedy(
            "look at it with --diff; --replace moves what is there aside; or name an empty directory",
        ),
        PutFault::Failed(what) => Failure::new(Code::Failed, what)
            .remedy("mend that, and run it again: it goes on, and leaves what is there"),
    })?;
    let Put { written, same, aside, not_owned } = &done;
    let mut out = begun(files, entry);
    out.add("written", "Written", written.len());
    out.add("same", "Same", *same);
    let moved: Vec<_> = aside.iter().map(|path| path.display().to_string()).collect();
    out.json.insert("movedAside".to_owned(), moved.clone().into());
    let mut rows = vec![(
        "restored",
        format!(
            "{} entries of {} as of {} below {}; {} were there",
            grouped(written.len()),
            files.host,
            shown(entry.at),
            to.display(),
            grouped(same)
        ),
    )];
    rows.extend(moved.into_iter().map(|path| ("moved aside", path)));
    if *not_owned > 0 {
        let what = format!("{} could not get their owners: only root can", grouped(not_owned));
        rows.push(("owners", what));
    }
    out.text = output::lines(&rows);
    Ok(out)
}
