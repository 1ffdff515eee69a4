//! `rekindle restore`: data directories for a new cluster.

mod peers;
mod request;
mod text;

use crate::archive::ReadKeys;
use crate::args::{Args, AuthFrom, Command, RestoreArgs, StoreArgs};
use crate::failure::{Code, Failure};
use crate::manifest::Manifest;
use crate::output;
use crate::source::{Access, Kind, Source, Users, read_log};
use crate::{terminal, time};
use clap::Parser;
use rekindle_archive::UsersFrom;
use rekindle_bolt::{Layout, check};
use rekindle_datadir::{
    Disk, Job, Place, Progress, RealDisk, Restored, Target, check_resume, check_target,
    plan_roll_back, restore, resume, roll_back,
};
use rekindle_etcd::digest::{Sha256Digest, SnapshotDigest};
use rekindle_etcd::restore::{
    Plan, Records, Request, Source as Content, SourceFacts, default_token, plan,
};
use rekindle_etcd::{AlarmKind, Backend, Changed, Facts, wal};
pub(crate) use request::resolve;
use request::{Directories, Wanted};
use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use text::PlanText;
pub(crate) use text::some_of;

/// Bytes to which leaves are filled. With values of some kilobytes this packs a database a good
/// deal denser than pages of 4 KiB, and etcd boots on it no slower (see BENCHMARKS.md).
const LEAF_BYTES: usize = 16 << 10;
/// How often a restore is planned whose restore point goes meanwhile.
const TRIES: usize = 3;
/// Room for directories, journals and the like, beside database and log.
const SPACE_MARGIN: u64 = 16 << 20;

pub(crate) fn run(args: &RestoreArgs) -> Result<(), Failure> {
    let manifest = args.from_manifest.as_deref().map(Manifest::read).transpose()?;
    let wanted = Wanted::new(args, manifest.as_ref())?;
    if args.rollback || args.resume {
        return end_earlier(args, &wanted);
    }
    let path = args.store.source(args.source.as_deref())?;
    let access = Access {
        store: &args.store,
        spool: args.spool.directory(),
        keys: &args.keys,
        point: Some(&args.point),
        users: Users::Accepted(args.accept_auth_from.map(|from| match from {
            AuthFrom::Point => UsersFrom::Point,
            AuthFrom::Latest => UsersFrom::Latest,
        })),
    };
    let mut tries_left = TRIES;
    loop {
        let source = Source::open_any(&path, args.source_wal_dir.as_deref(), &access)?;
        tries_left -= 1;
        match restore_from(args, &source, &wanted) {
            Err(failure) if tries_left > 0 && source.is_withdrawn() => {
                eprintln!("warning: {}", failure.what);
                eprintln!(
                    "the restore point was pruned or replaced meanwhile: this is planned anew"
                );
            }
            done => return done.map_err(|failure| source.with_what_remains(failure)),
        }
    }
}

fn restore_from(args: &RestoreArgs, source: &Source, wanted: &Wanted) -> Result<(), Failure> {
    let now = time::for_names();
    let prepared = Prepared::new(args, source, wanted)?;
    let changed = match &source.kind {
        Kind::Base(base) => base.changed_since().map_err(|error| error.to_string()),
        _ => Ok(Some(Changed::default())),
    };
    let text = PlanText {
        source,
        facts: &prepared.facts,
        wanted,
        plan: &prepared.plan,
        targets: &prepared.targets,
        replaced: &prepared.replaced,
        time: &now,
        checks_digest: prepared.checks_digest,
        changed,
    };
    output::print(&text.text())?;
    if !args.allow_live_peers {
        let reuses_ids = text::reuses_ids(&prepared.facts, &prepared.plan);
        peers::check(&prepared.plan.cluster, reuses_ids, &prepared.targets, wanted)?;
    }
    if args.dry_run {
        return Ok(());
    }
    if prepared.replaced.contains(&true) && !args.yes {
        terminal::confirm("An existing data directory is set aside.")?;
    }
    let restored = prepared.carry_out(source, &now)?;
    output::print(&text::result_text(&prepared.plan, &prepared.targets, &restored))
}

/// Restores one member without a word, for a cluster of its own: nobody else knows its peer URL.
pub(crate) fn into_directory(source: &Source, data_dir: &Path, peer: &str) -> Result<(), Failure> {
    let cluster = format!("drill={peer}");
    let words = ["rekindle", "restore", "-", "--name=drill", "--bump-revision=0", "--data-dir"];
    let mut words: Vec<_> = words.iter().map(OsStr::new).collect();
    words.extend([data_dir.as_os_str(), OsStr::new("--initial-cluster"), OsStr::new(&cluster)]);
    if !matches!(source.kind, Kind::Snapshot(_)) {
        words.push(OsStr::new("--skip-hash-check"));
    }
    let parsed = Args::try_parse_from(words).map_err(|error| Failure::usage(error.to_string()))?;
    let Command::Restore(args) = parsed.command else {
        return Err(Failure::usage("no restore"));
    };
    let wanted = Wanted::new(&args, None)?;
    let prepared = Prepared::new(&args, source, &wanted)?;
    prepared.carry_out(source, &time::for_names()).map(drop)
}

/// The flags with which another run of this program reaches the same archive.
pub(crate) fn for_words(store: &StoreArgs, keys: &ReadKeys, words: &mut Vec<OsString>) {
    for identity in &keys.identities {
        words.extend(["--identity".into(), identity.clone().into_os_string()]);
    }
    if let Some(fingerprint) = keys.fingerprint {
        words.extend(["--fingerprint".into(), fingerprint.to_string().into()]);
    }
    let flags = [("--endpoint-url", &store.endpoint_url), ("--region", &store.region)];
    for (flag, value) in flags {
        words.extend(value.iter().flat_map(|value| [flag.into(), value.into()]));
    }
    if let Some(path) = &store.store_ca {
        words.extend(["--store-ca".into(), path.clone().into_os_string()]);
    }
    if store.virtual_host_style {
        words.push("--virtual-host-style".into());
    }
}

/// `--resume` and `--rollback`.
fn end_earlier(args: &RestoreArgs, wanted: &Wanted) -> Result<(), Failure> {
    let Directories::One { data_dir, wal_dir, .. } = &wanted.directories else {
        return Err(Failure::usage("name one data directory: --data-dir"));
    };
    let place = resolve(data_dir, wal_dir.as_deref())?;
    let now = free_name(&place, &time::for_names());
    if args.resume {
        if args.dry_run {
            check_resume(&RealDisk, &place)?;
            return output::print(&text::resume_plan(&place));
        }
        let ended = resume(&RealDisk, &place)?;
        return output::print(&text::ended_text(&place, &ended));
    }
    let undo = plan_roll_back(&RealDisk, &place)?;
    output::print(&text::roll_back_plan(&place, &undo, &now))?;
    if args.dry_run {
        return Ok(());
    }
    if !args.yes {
        terminal::confirm("What is there now is set aside.")?;
    }
    let ended = roll_back(&RealDisk, &place, &now)?;
    output::print(&text::ended_text(&place, &ended))
}

/// A time under which nothing was undone yet: a second is long enough for two rollbacks.
fn free_name(place: &Place, now: &str) -> String {
    let mut name = now.to_owned();
    let mut number = 2;
    while place.undone(&name).exists() {
        name = format!("{now}-{number}");
        number += 1;
    }
    name
}

/// A restore that was found possible.
struct Prepared {
    facts: Facts,
    plan: Plan,
    targets: Vec<Target>,
    /// Whether something is in each target.
    replaced: Vec<bool>,
    checks_digest: bool,
}

impl Prepared {
    fn new(args: &RestoreArgs, source: &Source, wanted: &Wanted) -> Result<Self, Failure> {
        let at = |error| Failure::from(error).at(&source.path);
        let backend = source.backend()?;
        let checks_digest = match source.kind {
            Kind::Snapshot(_) => !args.skip_hash_check,
            Kind::Database if !args.skip_hash_check => return Err(no_digest(source)),
            Kind::Database | Kind::DataDir(_) | Kind::Base(_) => false,
        };
        let facts = backend.facts().map_err(at)?;
        let plan = decide(source, &backend, &facts, wanted)?;
        let targets = targets(&plan, &wanted.directories)?;
        for target in &targets {
            check_is_not_source(source, &target.place)?;
            check_target(&RealDisk, &target.place)?;
            check_took_no_part(&plan, target)?;
        }
        if !args.allow_little_space {
            check_space(&backend, &targets)?;
        }
        let replaced = targets.iter().map(|target| holds_something(&target.place));
        let replaced = replaced.collect::<Result<_, _>>()?;
        Ok(Self { facts, plan, targets, replaced, checks_digest })
    }

    /// Builds while another thread compares the digest: nothing is put in place before both are
    /// done.
    fn carry_out(&self, source: &Source, now: &str) -> Result<Restored, Failure> {
        let backend = source.backend()?;
        let db = backend.db();
        let layout = layout(db.page_size())?;
        let job = Job { plan: &self.plan, layout, targets: &self.targets, time: now };
        let progress = Progress { stop: terminal::stop_flag()?, ..Progress::default() };
        std::thread::scope(|threads| {
            let digest = Digest::start(threads, self.checks_digest, source, &progress.stop);
            let written = || progress.written.load(Ordering::Relaxed);
            let mut records = source.records()?;
            let work = || {
                let records = records.as_mut().map(|records| records as &mut dyn Records);
                let content = Content { db, records };
                restore(&RealDisk, content, &job, &progress, || digest.verdict())
            };
            let result = terminal::watching("restoring", None, written, work);
            result.map_err(|failure: Failure| {
                if failure.code != Code::BadData {
                    // Nobody waits for a digest that says nothing of this.
                    progress.stop.store(true, Ordering::Relaxed);
                    return failure;
                }
                // Of a source that cannot be read it is worth knowing whether it was changed since.
                let failure_at = |failure: Failure| match source.kind {
                    Kind::Base(_) => failure,
                    _ => failure.at(&source.path),
                };
                match digest.verdict() {
                    Err(bad) if bad != failure => failure_at(failure).and(&bad.what),
                    Err(_) => failure,
                    Ok(()) => failure_at(failure),
                }
            })
        })
    }
}

/// How the pages of a new database are cut.
pub(crate) fn layout(page_size: usize) -> Result<Layout, Failure> {
    Layout::new(page_size, LEAF_BYTES.max(page_size)).ok_or_else(|| {
        Failure::new(Code::BadData, format!("no database has pages of {page_size} bytes"))
    })
}

/// The thread that compares the digest, and what it found.
struct Digest<'scope> {
    thread: RefCell<Option<ScopedJoinHandle<'scope, Result<(), Failure>>>>,
    verdict: RefCell<Result<(), Failure>>,
}

impl<'scope> Digest<'scope> {
    fn start<'env>(
        threads: &'scope Scope<'scope, 'env>,
        wanted: bool,
        source: &'env Source,
        stop: &'env AtomicBool,
    ) -> Self {
        let verify = || source.verify_digest(stop).map(drop);
        let thread = wanted.then(|| threads.spawn(verify));
        Self { thread: RefCell::new(thread), verdict: RefCell::new(Ok(())) }
    }

    /// Waits for the verdict, which is the same each time. A digest nobody wanted is good.
    fn verdict(&self) -> Result<(), Failure> {
        if let Some(thread) = self.thread.take() {
            let panicked = |_| Err(Failure::new(Code::Failed, "the digest thread has panicked"));
            *self.verdict.borrow_mut() = thread.join().unwrap_or_else(panicked);
        }
        self.verdict.borrow().clone()
    }
}

fn no_digest(source: &Source) -> Failure {
    let what = format!(
        "{} has no SHA-256 at its end: it is a db file, or a snapshot whose end is missing",
        source.path.display()
    );
    Failure::new(Code::BadData, what).remedy(
        "if it was copied from a stopped member's data directory, pass --skip-hash-check; \
         a snapshot should be fetched again",
    )
}

/// What identifies a source to the hosts that restore it: its digest, else its head, which holds
/// the transaction and root of the database. Of an archive the base and all that does not come of records:
/// what of leases and users is meant depends on when it is asked, and by which flags.
fn identity(source: &Source, backend: &Backend<&Source>) -> Sha256Digest {
    match source.kind {
        Kind::Snapshot(digest) => digest,
        Kind::Base(ref base) => {
            let mut digest = SnapshotDigest::new();
            digest.update(&base.entry.header.body_digest);
            digest.update(&base.base.frame);
            digest.of_all()
        }
        _ => backend.identity(),
    }
}

fn decide(
    source: &Source,
    backend: &Backend<&Source>,
    facts: &Facts,
    wanted: &Wanted,
) -> Result<Plan, Failure> {
    let at = |error: rekindle_etcd::Error| Failure::from(error).at(&source.path);
    let kubernetes = match &source.kind {
        Kind::Base(base) => base.base.kubernetes,
        _ => backend.holds_kubernetes().map_err(at)?,
    };
    let token = wanted.token.clone().unwrap_or_else(|| {
        let (revision, raised_by) = (facts.revision(), wanted.bump.amount(kubernetes));
        let identity = identity(source, backend);
        default_token(&identity, revision, raised_by, wanted.leases, &wanted.initial_cluster)
    });
    let cluster = wanted
        .initial_cluster
        .with_token(&token)
        .map_err(|fault| Failure::usage(format!("--initial-cluster: {fault}")))?;
    let has_nospace = facts.alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace);
    let size_at_most = match has_nospace {
        true => in_use(backend).map_err(at)?,
        false => largest_size(backend),
    };
    let source_facts = SourceFacts { facts, kubernetes, size_at_most };
    let request =
        Request { cluster, bump: wanted.bump, quota: wanted.quota, leases: wanted.leases };
    plan(&source_facts, &request).map_err(|error| Failure::usage(error.to_string()))
}

/// Bytes that a restored database has at most, quickly had.
pub(crate) fn largest_size(backend: &Backend<&Source>) -> u64 {
    match &backend.db().source().kind {
        // Keys of 18 bytes, elements of 16, and leaves of which half may stay empty.
        Kind::Base(base) => {
            let (records, bytes) = base.size_at_most();
            let content = bytes.saturating_add(records.saturating_mul(40));
            content.saturating_mul(2).saturating_add(backend.db().size())
        }
        _ => backend.db().size(),
    }
}

/// Bytes in use: what a defragmented copy needs at most. Walks the whole database.
fn in_use(backend: &Backend<&Source>) -> Result<u64, rekindle_etcd::Error> {
    if matches!(backend.db().source().kind, Kind::Base(_)) {
        return Ok(largest_size(backend));
    }
    match check(backend.db(), &mut ()) {
        Ok(report) => Ok(report.usage.in_use_bytes()),
        Err(rekindle_bolt::Halt::Read(error)) => Err(error.into()),
        Err(rekindle_bolt::Halt::Stopped(never)) => match never {},
    }
}

fn targets(plan: &Plan, directories: &Directories) -> Result<Vec<Target>, Failure> {
    match directories {
        Directories::One { name, data_dir, wal_dir } => {
            let member = plan.cluster.member(name).cloned().ok_or_else(|| {
                Failure::usage(format!("--name {name} is not in --initial-cluster"))
            })?;
            Ok(vec![Target { member, place: resolve(data_dir, wal_dir.as_deref())? }])
        }
        Directories::All(directory) => plan
            .cluster
            .members
            .iter()
            .map(|member| {
                if member.name.contains('/') || [".", ".."].contains(&member.name.as_str()) {
                    let what = format!("member name \"{}\" cannot be a directory", member.name);
                    return Err(Failure::usage(what));
                }
                let place = resolve(&directory.join(&member.name), None)?;
                Ok(Target { member: member.clone(), place })
            })
            .collect(),
    }
}

/// A stopped member's directory is read while it is restored, and so cannot be replaced meanwhile.
fn check_is_not_source(source: &Source, place: &Place) -> Result<(), Failure> {
    let same = |path: &Path| path.canonicalize().is_ok_and(|path| path == place.data_dir);
    if matches!(source.kind, Kind::DataDir(_)) && same(&source.path) {
        let what = format!("{} is to be read and replaced at once", source.path.display());
        let remedy = "move it away (mv DIR DIR.old) and restore from there";
        return Err(Failure::refused(what).remedy(remedy));
    }
    Ok(())
}

/// A member that has taken part in the very cluster that is to be made must not be made again: it
/// would have forgotten its votes and what it has acknowledged, and the others count on that.
fn check_took_no_part(plan: &Plan, target: &Target) -> Result<(), Failure> {
    let place = &target.place;
    let beside = place.data_dir.join("member/wal");
    let log_dir = place.wal.as_ref().map_or(beside, |wal| wal.wal_dir.clone());
    if !log_dir.is_dir() {
        return Ok(());
    }
    // What cannot be read is set aside like anything else.
    let Ok(log) = read_log(&log_dir) else { return Ok(()) };
    let is_same = log.state.metadata.is_some_and(|found| found.cluster == plan.cluster.id);
    match log.state.last_entry {
        Some((_, index)) if is_same && index > plan.index() => {
            let what = format!(
                "{} is member {} of this very cluster {} and has taken part in it, up to entry \
                 {index} of its log, not just {}: restored again, it would not know of that",
                place.data_dir.display(),
                target.member.name,
                plan.cluster.id,
                plan.index()
            );
            Err(Failure::refused(what).remedy(
                "to start all over, restore every member with another --initial-cluster-token; to \
                 bring back one member, remove it from the cluster and add it anew",
            ))
        }
        _ => Ok(()),
    }
}

/// Something is in the data directory that would be set aside.
fn holds_something(place: &Place) -> Result<bool, Failure> {
    let path = place.swapped();
    match RealDisk.stat(path).map_err(|error| Failure::io("looking at", path, &error))? {
        None => Ok(false),
        Some(_) => {
            let names = RealDisk.list(path);
            Ok(!names.map_err(|error| Failure::io("listing", path, &error))?.is_empty())
        }
    }
}

/// Old and new stand side by side for a while: there must be room for the new.
fn check_space(backend: &Backend<&Source>, targets: &[Target]) -> Result<(), Failure> {
    let need = |size: u64| {
        let each = size.saturating_add(wal::SEGMENT_BYTES + SPACE_MARGIN);
        each.saturating_mul(targets.len() as u64)
    };
    for target in targets {
        let mut there = target.place.data_dir.as_path();
        while !there.exists() {
            there = there.parent().unwrap_or(Path::new("/"));
        }
        let free = free_space(there)?;
        // The file's size is quickly had, and more than is needed; its use takes a walk.
        if free >= need(largest_size(backend)) {
            continue;
        }
        let need = need(in_use(backend)?);
        if free < need {
            let what = format!(
                "{} has {} free, the restore needs up to {}",
                there.display(),
                output::bytes(free),
                output::bytes(need)
            );
            return Err(Failure::refused(what).remedy(
                "make room, or choose another --data-dir; this is the most that it may take, so \
                 --allow-little-space tries: where it does not fit, nothing changes",
            ));
        }
    }
    Ok(())
}

pub(crate) fn free_space(path: &Path) -> Result<u64, Failure> {
    rekindle_datadir::free_space(path).map_err(|error| Failure::io("looking at", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second one once failed: what it would have set aside had the name of the first.
    #[test]
    fn two_rollbacks_in_a_second_go_to_two_places() {
        let directory = tempfile::tempdir().unwrap();
        let place = resolve(&directory.path().join("etcd"), None).unwrap();
        assert_eq!(free_name(&place, "T"), "T");
        for name in ["T", "T-2"] {
            std::fs::create_dir(place.undone(name)).unwrap();
        }
        assert_eq!(free_name(&place, "T"), "T-3");
    }
}
