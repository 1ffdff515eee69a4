//! `rekindle reconfigure`: what this host's etcd is to be, decided before each start.

use super::{Here, MemberArgs, local};
use crate::archive::{ReadKeys, find};
use crate::args::{Args, Command, ConnectArgs, StoreArgs};
use crate::connect::connect;
use crate::failure::{Code, Failure};
use crate::output;
use crate::restore::for_words;
use crate::source::{Access, Kind, Source, Users};
use crate::terminal::{self, Calls};
use crate::time::parse_duration;
use clap::{Args as ClapArgs, Parser};
use jiff::Timestamp;
use rekindle_archive::{Archive, Store, StoreFault, StoreFaultKind};
use rekindle_client::Role;
use rekindle_datadir::{RealDisk, fence_at};
use rekindle_etcd::InitialCluster;
use rekindle_recovery::host::variable;
use rekindle_recovery::reconfigure::{
    Answer, Known, Local, Note, Said, Start, count_gone, reconfigure,
};
use rekindle_recovery::replace::Listed;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where hosts say in an archive's store that their data are gone.
const NOTES: &str = "recovery/starts";

/// Decide what this host's etcd is to be, before it starts: ExecStartPre of its unit.
///
/// With good data it is started as it was. With nothing it joins a cluster that serves and has added it; begins a new one
/// where the archive has never known one; or is restored from the archive, once the hosts of all members have said in the
/// archive's store that their data are gone. Whatever else there is, it is not started, and is told what to do. What etcd
/// needs to know is written as ETCD_INITIAL_CLUSTER and ETCD_INITIAL_CLUSTER_STATE into a file for EnvironmentFile=.
#[derive(Debug, ClapArgs)]
pub(crate) struct ReconfigureArgs {
    /// The archive that knows whether there was a cluster [default: the first of the configuration]
    pub archive: Option<String>,
    /// All members, as NAME=PEER-URL,... for a new cluster.
    #[arg(long, value_name = "MEMBERS")]
    pub initial_cluster: String,
    /// Write what etcd is to be into this file.
    #[arg(long, value_name = "FILE")]
    pub environment: Option<PathBuf>,
    /// Nobody knows whether there was a cluster, and you say that there was none.
    #[arg(long)]
    pub allow_fresh: bool,
    /// Most time for the others to answer.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5s")]
    pub answer_within: Duration,
    #[command(flatten)]
    pub member: MemberArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub keys: ReadKeys,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

pub(crate) fn run(args: &ReconfigureArgs) -> Result<(), Failure> {
    let here = args.member.find_place(&args.connect)?;
    let cluster = InitialCluster::parse(&args.initial_cluster)
        .map_err(|fault| Failure::usage(format!("--initial-cluster: {fault}")))?;
    if cluster.peer_urls(&here.name).is_none() {
        return Err(Failure::usage(format!("--initial-cluster has no member {}", here.name)));
    }
    let lies = look(&here)?;
    let answer = ask(args)?;
    let alone = (&lies, &answer) == (&Local::Nothing, &Answer::Nobody);
    let (known, archive) = match alone {
        // Nothing depends on it.
        false => (Known::NoArchive, None),
        true => know(args, &here, &cluster)?,
    };
    let start = reconfigure(&lies, &answer, &known, &here.peer_urls, args.allow_fresh);
    let (word, settings) = match start {
        Start::Fresh => (
            "fresh",
            vec![
                ("initial-cluster", args.initial_cluster.clone()),
                ("initial-cluster-state", "new".to_owned()),
            ],
        ),
        Start::Restart => ("restart", Vec::new()),
        Start::Join => {
            // From now on it knows what the others count on.
            if let Ok((revision, archive)) = newest_of(args) {
                let _ = say(archive.store(), &here.name, Said::Restored(revision));
            }
            ("join", joining(&here, &answer))
        }
        Start::Restore => {
            restore(args, &here, archive.as_ref())?;
            (
                "restore",
                vec![
                    ("initial-cluster", args.initial_cluster.clone()),
                    ("initial-cluster-state", "existing".to_owned()),
                ],
            )
        }
        Start::Wait(why) => {
            let what = format!("{}: {why}", here.name);
            return Err(
                Failure::new(Code::Transient, what).remedy("it is decided anew at the next start")
            );
        }
        Start::Refuse(why, remedy) => {
            return Err(Failure::refused(format!("{}: {why}", here.name)).remedy(remedy));
        }
    };
    if let Some(path) = &args.environment {
        write_environment(path, &settings)?;
    }
    output::print(&format!("{}: {word}\n", here.name))
}

fn look(here: &Here) -> Result<Local, Failure> {
    if let Some(id) = fence_at(&RealDisk, &here.place)? {
        return Ok(Local::Fenced(id));
    }
    let is_there =
        |path: &Path| path.try_exists().map_err(|error| Failure::io("looking at", path, &error));
    if !is_there(&here.place.data_dir.join("member"))? {
        return Ok(Local::Nothing);
    }
    let has_database = is_there(&here.place.data_dir.join("member/snap/db"))?;
    let metadata = local::metadata(&local::log_directory(&here.place)).filter(|_| has_database);
    Ok(metadata.map_or(Local::Unreadable, |found| Local::Member {
        cluster: found.cluster.0,
        id: found.member.0,
    }))
}

/// Only one that serves counts: without a quorum nobody knows who is in it.
fn ask(args: &ReconfigureArgs) -> Result<Answer, Failure> {
    let calls = Calls::new(terminal::stop_flag()?)?;
    let client = connect(&args.connect)?.client;
    let answer = async {
        let asked = async {
            // 3.4 lists without a quorum; a read does not come without one.
            client.linearizable_revision().await?;
            client.member_list().await
        };
        Ok::<_, Failure>(tokio::time::timeout(args.answer_within, asked).await)
    };
    match calls.wait(answer)? {
        Ok(Ok(list)) => {
            let member = |it: rekindle_client::MemberInfo| Listed {
                id: it.id,
                started: !it.client_urls.is_empty(),
                name: it.name,
                peer_urls: it.peer_urls,
                votes: it.role == Role::Voter,
            };
            let members = list.members.into_iter().map(member).collect();
            Ok(Answer::Serves { cluster: list.header.cluster_id, members })
        }
        // Whoever answers, and refuses us, is a cluster; it must not be taken for none.
        Ok(Err(error)) if !error.is_transient() => Err(error.into()),
        Ok(Err(_)) | Err(_) => Ok(Answer::Nobody),
    }
}

/// What an archive knows; where it knows a cluster, it is told that the data of this host are gone.
fn know(
    args: &ReconfigureArgs,
    here: &Here,
    cluster: &InitialCluster,
) -> Result<(Known, Option<Archive>), Failure> {
    let Some(place) = place_of(args) else { return Ok((Known::NoArchive, None)) };
    let archive = match find(&place, &args.store) {
        Ok(Some(archive)) => archive,
        Ok(None) => return Ok((Known::Away(format!("there is no archive at {place}")), None)),
        Err(failure) => return Ok((Known::Away(failure.what), None)),
    };
    if archive.list()?.bases.is_empty() {
        return Ok((Known::Nothing, Some(archive)));
    }
    let revision = match newest(args, &place) {
        Ok(revision) => revision,
        Err(failure) => return Ok((Known::Away(failure.what), None)),
    };
    say(archive.store(), &here.name, Said::Gone)?;
    let names: Vec<_> = cluster.iter().map(|(name, _)| name.to_owned()).collect();
    let listed = archive.store().list(NOTES)?;
    let notes =
        listed.iter().filter_map(|it| Note::parse(it.name.strip_prefix(NOTES)?.strip_prefix('/')?));
    let notes: Vec<_> = notes.collect();
    let now = Timestamp::now().as_millisecond();
    let gone = count_gone(&notes, &here.name, &names, revision, now);
    Ok((Known::Cluster { gone, all: names.len() }, Some(archive)))
}

fn place_of(args: &ReconfigureArgs) -> Option<String> {
    let configured = crate::configured::cluster().and_then(|it| it.archives.first());
    args.archive.clone().or_else(|| Some(configured?.place.clone()))
}

/// The archive, and its newest point.
fn newest_of(args: &ReconfigureArgs) -> Result<(i64, Archive), Failure> {
    let none = || Failure::usage("no archive is named");
    let place = place_of(args).ok_or_else(none)?;
    let archive = find(&place, &args.store)?.ok_or_else(none)?;
    Ok((newest(args, &place)?, archive))
}

/// Its newest point.
fn newest(args: &ReconfigureArgs, place: &str) -> Result<i64, Failure> {
    let users = Users::Accepted(None);
    let access = Access { store: &args.store, spool: None, keys: &args.keys, point: None, users };
    match Source::open_any(Path::new(place), None, &access)?.kind {
        Kind::Base(base) => Ok(base.revision().get()),
        _ => Err(Failure::usage(format!("{place} is no archive"))),
    }
}

fn say(store: &Store, member: &str, said: Said) -> Result<(), StoreFault> {
    let note = Note { member: member.to_owned(), at: Timestamp::now().as_millisecond(), said };
    match store.create(&format!("{NOTES}/{}", note.name()), b"{}\n".to_vec()) {
        Err(fault) if fault.kind == StoreFaultKind::Exists => Ok(()),
        created => created,
    }
}

/// From the newest point; all hosts make the same plan of it, and the same cluster.
fn restore(args: &ReconfigureArgs, here: &Here, archive: Option<&Archive>) -> Result<(), Failure> {
    let Some(archive) = archive else { return Err(Failure::usage("no archive is named")) };
    let place = archive.store().place().to_owned();
    let revision = newest(args, &place)?;
    let mut words: Vec<OsString> = ["rekindle", "restore"].map(OsString::from).to_vec();
    words.push(place.into());
    let mut add = |flag: &str, value: OsString| words.extend([OsString::from(flag), value]);
    add("--to-revision", revision.to_string().into());
    add("--name", here.name.clone().into());
    add("--initial-cluster", args.initial_cluster.clone().into());
    add("--data-dir", here.place.data_dir.clone().into());
    if let Some(wal) = &here.place.wal {
        add("--wal-dir", wal.wal_dir.clone().into());
    }
    for_words(&args.store, &args.keys, &mut words);
    words.extend(["--yes".into()]);
    let parsed = Args::try_parse_from(words).map_err(|error| Failure::usage(error.to_string()))?;
    let Command::Restore(restore) = parsed.command else {
        return Err(Failure::usage("no restore"));
    };
    // Said first: whoever was restored once is not restored from the same again.
    say(archive.store(), &here.name, Said::Restored(revision))?;
    crate::restore::run(&restore)
}

fn joining(here: &Here, answer: &Answer) -> Vec<(&'static str, String)> {
    let Answer::Serves { members, .. } = answer else { return Vec::new() };
    let pairs = members.iter().flat_map(|it| {
        let own = it.peer_urls.iter().any(|url| here.peer_urls.contains(url));
        let name = match (own, &*it.name) {
            (true, _) => here.name.clone(),
            (false, "") => format!("m{:x}", it.id),
            (false, name) => name.to_owned(),
        };
        it.peer_urls.iter().map(move |url| format!("{name}={url}"))
    });
    vec![
        ("initial-cluster", pairs.collect::<Vec<_>>().join(",")),
        ("initial-cluster-state", "existing".to_owned()),
    ]
}

fn write_environment(path: &Path, settings: &[(&'static str, String)]) -> Result<(), Failure> {
    let failed = |error| Failure::io("writing", path, &error);
    let part = path.with_added_extension("part");
    let mut file = std::fs::File::create(&part).map_err(failed)?;
    for (flag, value) in settings {
        writeln!(file, "{}={value}", variable(flag)).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)
}
