//! `rekindle doctor`: what is wrong with a cluster, its member on this host and its backups, with the evidence.

use crate::archive::open_configured;
use crate::args::{ConnectArgs, OutputArgs};
use crate::check::unlocked;
use crate::configured;
use crate::connect::connect;
use crate::drill::in_path;
use crate::failure::{Code, Failure};
use crate::manifest::{KUBEADM, Manifest};
use crate::member::{Here, MemberArgs, local};
use crate::output::Output;
use crate::source::{Access, Kind, Source, Users};
use crate::terminal::{self, Calls};
use crate::time::parse_duration;
use clap::Args as ClapArgs;
use jiff::Timestamp;
use rekindle_agent::records::{self, Outcome};
use rekindle_agent::surroundings::{Look, other_owners, warnings};
use rekindle_archive::{Archive, BaseEntry, Listing};
use rekindle_datadir::{RealDisk, fence_at};
use rekindle_etcd::{Boots, Version};
use rekindle_recovery::doctor::{
    Backups, Claim, DataDir, KeyPair, backups, claims, data_dir, disk, fragmented, key_pair,
};
use rekindle_recovery::health::{Finding, Observed, Severity, judge, observe};
use rekindle_recovery::host::{Host, held_manifests, manifest_now};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Times that a few bytes are made durable.
const SYNCS: usize = 30;
/// So many of what members have said last are compared.
const WITNESSES: usize = 50;
/// As much as etcd's log writes at a time, about.
const SYNC_BYTES: usize = 2048;

/// Find what is wrong: with the cluster, its member on this host, its certificates and its backups; with the evidence, and
/// what to do next.
///
/// What it can look at it looks at: a member's host says more than another one, and root sees more than others. Beside the data
/// directory some bytes are written, to see how fast its disk is; nothing else is changed. Exit code 0: nothing urgent; 10:
/// something is.
#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    /// Most time for all members' answers.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "4s")]
    pub timeout: Duration,
    #[command(flatten)]
    pub member: MemberArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let calls = Calls::new(terminal::stop_flag()?)?;
    let now = Timestamp::now();
    let mut found = Vec::new();
    let observed = match connect(&args.connect) {
        Ok(connection) => {
            let seen = observe(&connection.client, args.timeout, false);
            let observed = calls.wait(async { Ok::<_, Failure>(seen.await) })?;
            found.extend(judge(&observed).findings);
            observed
        }
        Err(failure) => {
            found.push(urgent("Connection", failure.what));
            Observed::default()
        }
    };
    for member in &observed.members {
        found.extend(member.status().and_then(|status| fragmented(&member.label(), status)));
    }
    let manifest = manifest(args)?;
    let here = args.member.find_place(&args.connect).ok();
    if let Some(here) = &here {
        found.extend(of_host(here, &observed, manifest.as_ref())?);
    }
    for pair in pairs(manifest.as_ref(), here.as_ref()) {
        found.extend(key_pair(&pair, now));
    }
    let revision =
        observed.members.iter().filter_map(|it| it.status()).map(|it| it.header.revision).max();
    found.extend(of_backups(revision, now));
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    told(&found, here.is_some()).print(args.output.format())?;
    match found.first().filter(|worst| worst.severity == Severity::Urgent) {
        Some(worst) => Err(Failure::new(Code::Degraded, worst.what.clone()).remedy(worst.remedy)),
        None => Ok(()),
    }
}

fn urgent(name: &'static str, what: String) -> Finding {
    let remedy = "look at --endpoints, --cacert, --cert and --key";
    Finding { name, severity: Severity::Urgent, member: None, what, remedy }
}

fn manifest(args: &DoctorArgs) -> Result<Option<Manifest>, Failure> {
    let configured = configured::cluster().and_then(|cluster| cluster.manifest.clone());
    let path = args.connect.from_manifest.clone().or(configured);
    let path =
        path.or_else(|| manifest_now(Path::new(KUBEADM)).exists().then(|| PathBuf::from(KUBEADM)));
    path.as_deref().map(Manifest::read).transpose()
}

/// What it finds on a member's host.
fn of_host(
    here: &Here,
    observed: &Observed,
    manifest: Option<&Manifest>,
) -> Result<Vec<Finding>, Failure> {
    let ids: Vec<_> = observed.members.iter().filter_map(|member| member.id).collect();
    let listed = observed.cluster.map(|cluster| (cluster, ids.as_slice()));
    let dir = look(here, manifest)?;
    let mut found = data_dir(&dir, listed);
    found.extend(claims(&said(here, observed, manifest, dir.whose)));
    let parent = here.place.data_dir.parent().unwrap_or(Path::new("/"));
    // Where nobody may write nothing is measured.
    if let Ok(took) = syncs(parent) {
        found.extend(disk(&here.place.data_dir.display().to_string(), took));
    }
    Ok(found)
}

fn look(here: &Here, manifest: Option<&Manifest>) -> Result<DataDir, Failure> {
    let path = &here.place.data_dir;
    let runs = local::runs(&here.place)?;
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir);
    let inside = [path.join("member/snap/db"), local::log_directory(&here.place)];
    let owner = metadata.as_ref().map(MetadataExt::uid);
    let stranger = inside
        .into_iter()
        .find(|inside| std::fs::metadata(inside).is_ok_and(|found| Some(found.uid()) != owner));
    let has_member = path.join("member").exists();
    let damage = match has_member && !runs {
        true => local::check(&here.place).err().map(|failure| failure.what),
        false => None,
    };
    let journal = here.place.journal();
    Ok(DataDir {
        path: path.display().to_string(),
        fence: fence_at(&RealDisk, &here.place)?,
        unfinished: journal.exists().then(|| journal.display().to_string()),
        mode: metadata.map(|found| found.mode()),
        stranger: stranger.map(|path| path.display().to_string()),
        whose: local::metadata(&local::log_directory(&here.place))
            .map(|it| (it.cluster.0, it.member.0)),
        orphan: orphan(here).filter(|_| !has_member && !runs),
        held: match &here.host {
            Host::StaticPod { manifest } => held_manifests(manifest),
            Host::Command { .. } | Host::Systemd { .. } => Vec::new(),
        }
        .iter()
        .map(|path| path.display().to_string())
        .collect(),
        refused_by: match has_member && !runs && damage.is_none() {
            true => refused_by(here, manifest),
            false => None,
        },
        damage,
        runs,
    })
}

/// An etcd that was started on the data directory.
fn orphan(here: &Here) -> Option<u32> {
    process(&here.place.data_dir, &Claim::default())?.who.rsplit(' ').next()?.parse().ok()
}

/// The etcd of this host, where its data are of a newer one.
fn refused_by(here: &Here, manifest: Option<&Manifest>) -> Option<String> {
    let (name, version) = match manifest.and_then(Manifest::image) {
        Some(image) => (image.to_owned(), image.rsplit_once(':')?.1.to_owned()),
        None => {
            let program = in_path(Path::new("etcd"))?;
            let said = std::process::Command::new(&program).arg("--version").output().ok()?;
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let version = said.lines().next()?.rsplit(' ').next()?.to_owned();
            (program.display().to_string(), version)
        }
    };
    let line = Version::parse(&version)?.line();
    let wal = here.place.wal.as_ref().map(|wal| wal.wal_dir.as_path());
    let source = Source::open(&here.place.data_dir, wal).ok()?;
    let marks = source.backend().ok()?.facts().ok()?.marks;
    (marks.boots_on(line) != Boots::Yes).then(|| format!("{name} ({version})"))
}

/// Who says what of the flags: the manifest or the configuration, the process, the cluster.
fn said(
    here: &Here,
    observed: &Observed,
    manifest: Option<&Manifest>,
    whose: Option<(u64, u64)>,
) -> Vec<Claim> {
    let flag = |name: &str, value: String| (name.to_owned(), value);
    let own = match manifest {
        Some(manifest) => {
            let flags = [
                "name",
                "data-dir",
                "wal-dir",
                "initial-advertise-peer-urls",
                "advertise-client-urls",
                "quota-backend-bytes",
            ];
            let flags = flags
                .into_iter()
                .filter_map(|name| Some(flag(name, manifest.flag(name)?.to_owned())));
            Claim { who: manifest.path.display().to_string(), flags: flags.collect() }
        }
        None => Claim {
            who: "what this command was told".to_owned(),
            flags: BTreeMap::from([
                flag("name", here.name.clone()),
                flag("data-dir", here.place.data_dir.display().to_string()),
                flag("initial-advertise-peer-urls", here.peer_urls.join(",")),
            ]),
        },
    };
    let mut claims = vec![own];
    claims.extend(process(&here.place.data_dir, &claims[0]));
    let is_own = |id: Option<u64>| whose.is_some_and(|(_, own)| id == Some(own));
    if let Some(member) = observed.members.iter().find(|it| is_own(it.id)) {
        let mut flags = BTreeMap::from([flag("name", member.name.clone())]);
        if !member.client_urls.is_empty() {
            flags.insert("advertise-client-urls".to_owned(), member.client_urls.join(","));
        }
        if !member.peer_urls.is_empty() {
            flags.insert("initial-advertise-peer-urls".to_owned(), member.peer_urls.join(","));
        }
        claims.push(Claim { who: "the cluster's list".to_owned(), flags });
    }
    claims
}

/// The etcd that runs with this data directory, by its command line.
fn process(data_dir: &Path, own: &Claim) -> Option<Claim> {
    let named = own.flags.get("data-dir").cloned().unwrap_or_default();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let words: Vec<_> = line
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            let is_etcd = Path::new(words.first()?).file_name()? == "etcd";
            let flags = is_etcd.then(|| flags(&words))?;
            let directory = flags.get("data-dir")?;
            let is_it = Path::new(directory) == data_dir || *directory == named;
            is_it.then(|| Claim { who: format!("process {pid}"), flags })
        })
        .next()
}

fn flags(words: &[String]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut words = words.iter().skip(1).peekable();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                (flag, words.next_if(|next| !next.starts_with('-')).cloned().unwrap_or_default())
            }
        };
        found.insert(name.to_owned(), value);
    }
    found
}

/// The certificates that the member serves with, for clients and for peers.
fn pairs(manifest: Option<&Manifest>, here: Option<&Here>) -> Vec<KeyPair> {
    let own = Claim::default();
    let process = here.and_then(|here| process(&here.place.data_dir, &own));
    let flag = |name: &str| {
        let listed = manifest.and_then(|manifest| manifest.path_flag(name));
        listed.or_else(|| process.as_ref()?.flags.get(name).map(PathBuf::from))
    };
    let text = |name: &str| {
        let listed = manifest.and_then(|manifest| manifest.flag(name)).map(str::to_owned);
        listed.or_else(|| process.as_ref()?.flags.get(name).cloned())
    };
    let roles =
        [("", "advertise-client-urls", false), ("peer-", "initial-advertise-peer-urls", true)];
    let pair = |(prefix, urls, is_client): (&str, &str, bool)| {
        let cert = flag(&format!("{prefix}cert-file"))?;
        let key = flag(&format!("{prefix}key-file"));
        let key =
            key.and_then(|key| Some((key.display().to_string(), key.metadata().ok()?.mode())));
        let authorities = flag(&format!("{prefix}trusted-ca-file"));
        let authorities = authorities
            .and_then(|path| Some((path.display().to_string(), std::fs::read(&path).ok()?)));
        let hosts = text(urls).unwrap_or_default();
        let hosts = hosts.split(',').filter_map(host_of).collect();
        let bytes = std::fs::read(&cert).unwrap_or_default();
        Some(KeyPair {
            cert: (cert.display().to_string(), bytes),
            key,
            authorities,
            hosts,
            is_client,
        })
    };
    roles.into_iter().filter_map(pair).collect()
}

/// The host of a URL.
fn host_of(url: &str) -> Option<String> {
    let (_, rest) = url.trim().split_once("://")?;
    let rest = rest.split('/').next()?;
    let host = match rest.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => rest.rsplit_once(':').map_or(rest, |(host, _)| host),
    };
    Some(host.to_owned())
}

/// How long it takes to make a few bytes durable there.
fn syncs(directory: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file = tempfile::tempfile_in(directory)?;
    let bytes = [0x5a; SYNC_BYTES];
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        took.push(began.elapsed());
    }
    Ok(took)
}

/// What a configuration names.
fn of_backups(revision: Option<i64>, now: Timestamp) -> Vec<Finding> {
    let Some(cluster) = configured::cluster() else { return Vec::new() };
    let mut found = Vec::new();
    for archive in &cluster.archives {
        let seen = newest(archive, &cluster.name).unwrap_or_else(|failure| Backups {
            place: archive.place.clone(),
            away: Some(failure.what),
            ..Backups::default()
        });
        found.extend(backups(&seen, revision, now));
    }
    let device = |path: &Path| {
        path.ancestors().find_map(|path| std::fs::metadata(path).ok()).map(|found| found.dev())
    };
    let at_rest = rekindle_agent::files::at_rest_config();
    let others = |archive: &_| other_owners(archive, || open_configured(archive).ok());
    let look = Look { at_rest: at_rest.as_deref(), other_owners: &others, disk: &device };
    found.extend(warnings(cluster, look).into_iter().map(|warning| Finding {
        name: warning.name,
        severity: Severity::Warning,
        member: None,
        what: warning.summary,
        remedy: warning.remedy,
    }));
    found
}

fn newest(archive: &rekindle_agent::config::Archive, cluster: &str) -> Result<Backups, Failure> {
    let opened = unlocked(archive)?;
    let mut seen = Backups { place: archive.place.clone(), ..Backups::default() };
    let listing = opened.list()?;
    if listing.bases.is_empty() {
        return Ok(seen);
    }
    let (store, keys) = (crate::args::StoreArgs::default(), crate::archive::ReadKeys::default());
    // What is the newest is told, and not restored.
    let users = Users::OfPoint;
    let access = Access { store: &store, spool: None, keys: &keys, point: None, users };
    if let Kind::Base(base) = Source::open_any(Path::new(&archive.place), None, &access)?.kind {
        let time = Timestamp::from_millisecond(base.time().0).unwrap_or_default();
        seen.newest = Some((base.revision().get(), time));
    }
    seen.farthest = farthest(&opened, &listing)?;
    seen.differ = differing(&opened)?;
    let is_proof = |record: &&records::Record| {
        let output = record.output.as_ref();
        record.outcome == Outcome::Done
            && output.is_some_and(|it| it["level"] == "proven" && it["verdict"] == "OK")
    };
    let kept = records::newest(opened.store(), cluster, Timestamp::UNIX_EPOCH).unwrap_or_default();
    seen.proven = kept.iter().filter(is_proof).map(|record| record.ended).max();
    Ok(seen)
}

/// The highest revision of any history.
fn farthest(archive: &Archive, listing: &Listing) -> Result<Option<i64>, Failure> {
    let mut newest: BTreeMap<_, &BaseEntry> = BTreeMap::new();
    for base in &listing.bases {
        let known = newest.entry(base.header.facts.timeline).or_insert(base);
        if known.header.facts.last < base.header.facts.last {
            *known = base;
        }
    }
    let mut farthest = None;
    for base in newest.into_values() {
        farthest = farthest.max(Some(archive.following(base)?.last().get()));
    }
    Ok(farthest)
}

/// Whether the newest of what members have said of one revision differs.
fn differing(archive: &Archive) -> Result<Option<(String, String, i64)>, Failure> {
    let mut said = BTreeMap::new();
    let mut witnesses = archive.witnesses()?;
    let older = witnesses.len().saturating_sub(WITNESSES);
    for entry in witnesses.split_off(older) {
        let facts = &entry.facts;
        // What cannot be read of it a verification names.
        let Ok(testimony) = archive.testimony(&entry) else { continue };
        let of = (facts.timeline, facts.last, facts.compact);
        let (other, hash) =
            said.entry(of).or_insert_with(|| (facts.member.to_string(), testimony.hash)).clone();
        if hash != testimony.hash {
            return Ok(Some((other, facts.member.to_string(), facts.last.get())));
        }
    }
    Ok(None)
}

fn told(found: &[Finding], is_host: bool) -> Output {
    let urgent = found.iter().filter(|it| it.severity == Severity::Urgent).count();
    let mut out = Output { simple: format!("{urgent}, {}", found.len()), ..Output::default() };
    out.add("urgent", "Urgent", urgent);
    out.add("findings", "Findings", serde_json::to_value(found).unwrap_or_default());
    out.text = String::new();
    for finding in found {
        let sign = if finding.severity == Severity::Urgent { "!!" } else { "! " };
        let whose = finding.member.as_ref().map(|it| format!("{it}: ")).unwrap_or_default();
        out.text += &format!(
            "{sign} {}: {whose}{}\n   what to do: {}\n",
            finding.name, finding.what, finding.remedy
        );
    }
    if !is_host {
        out.text += "no member of this host is known: its data, flags and disk were not looked at (--manifest, or member in the configuration)\n";
    }
    if found.is_empty() {
        out.text += "nothing is wrong that could be seen from here\n";
    }
    out
}
