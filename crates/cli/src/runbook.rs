//! `rekindle runbook`: how this cluster is brought back, for paper.

use crate::archive::ReadKeys;
use crate::archive::{open_configured, shown, unlock};
use crate::args::ConnectArgs;
use crate::configured;
use crate::connect::connect;
use crate::failure::{Code, Failure};
use crate::manifest::Manifest;
use crate::output::{self, grouped};
use crate::terminal::{self, Calls};
use clap::Args as ClapArgs;
use jiff::Timestamp;
use rekindle_agent::config::{self, Cluster};
use rekindle_archive::Archive;
use rekindle_client::MemberInfo;
use rekindle_etcd::digest::SnapshotDigest;
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What is to be filled in by hand.
const BLANK: &str = "______________________________";
/// What stands for something that is chosen on the day, or is another on each host.
const DATA_DIR: &str = "DATA-DIR";
const POINT: &str = "POINT";
const IDENTITY: &str = "IDENTITY-FILE";
/// Where manifests go while nothing is to run.
const STOPPED: &str = "/etc/kubernetes/stopped";

/// Print how the cluster of --config is brought back, for paper: it is wanted when nothing else works.
///
/// Names and URLs of its members, where its backups and the keys to them are, the version and digest of this program, and the
/// commands for this very cluster. Holds no secrets. What cannot be reached now is left to be filled in. Print it anew after members,
/// archives or keys have changed.
#[derive(Debug, ClapArgs)]
pub(crate) struct RunbookArgs {}

pub(crate) fn run(_: &RunbookArgs) -> Result<(), Failure> {
    let Some(cluster) = configured::cluster() else {
        return Err(Failure::usage("nothing says of which cluster").remedy("add --config FILE"));
    };
    let known = Known::of(cluster)?;
    let mut text = known.head()?;
    for source in &known.sources {
        text += &source.section();
    }
    text += &known.snapshots();
    text += &known.one_member();
    text += &known.all_members();
    text += &known.files();
    text += AFTERWARDS;
    output::print(&text)
}

const AFTERWARDS: &str = "
## Afterwards

- `etcdctl endpoint health --cluster` and `etcdctl endpoint hashkv --cluster`: all healthy, all equal.
- Kubernetes: `kubectl get nodes`; restart the controllers that keep what they have seen (kube-controller-manager,
  kube-scheduler, kubelets, operators).
- Start the agents again (`systemctl start rekindle`), and look that they write: `rekindle records`.
- Keep what the restore has set aside (`<data-dir>.before-...`) until everybody is content.
";

/// An archive, as far as it can be reached now.
struct Source<'a> {
    archive: &'a config::Archive,
    opened: Result<Archive, Failure>,
}

impl<'a> Source<'a> {
    fn of(archive: &'a config::Archive) -> Self {
        Self { archive, opened: open_configured(archive) }
    }

    /// How a command names its store, behind the place.
    fn store(&self) -> String {
        let store = &self.archive.store;
        let mut flags = String::new();
        let mut add = |flag: &str, value: Option<String>| {
            flags += &value.map(|value| format!(" --{flag}={value}")).unwrap_or_default();
        };
        add("endpoint-url", store.endpoint_url.clone());
        add("region", store.region.clone());
        add("store-ca", store.ca.as_ref().map(|path| path.display().to_string()));
        if store.virtual_host_style {
            flags += " --virtual-host-style";
        }
        flags
    }

    /// And the key to what is in it, where it needs one, or may.
    fn identity(&self) -> String {
        match (&self.opened, self.archive.identities.first()) {
            (Ok(opened), _) if !opened.is_sealed() => String::new(),
            (_, Some(path)) => format!(" --identity={}", path.display()),
            (_, None) => format!(" --identity={IDENTITY}"),
        }
    }

    fn place(&self) -> &str {
        &self.archive.place
    }

    fn section(&self) -> String {
        let config::Archive { name, place, store, identities, .. } = self.archive;
        let mut text = format!("\n## Archive {name}: `{place}`\n\n");
        let mut line = |what: &str| _ = writeln!(text, "- {what}");
        if let Some(url) = &store.endpoint_url {
            line(&format!("Store: {url}, region {}", store.region.as_deref().unwrap_or("none")));
        }
        if place.contains("://") {
            let names: Vec<_> = store.variables.keys().cloned().collect();
            let names = if names.is_empty() {
                "the provider's variables".to_owned()
            } else {
                names.join(", ")
            };
            line(&format!("Credentials: {names}; kept in {BLANK}"));
        }
        let is_sealed = match &self.opened {
            Ok(opened) => {
                line(&format!(
                    "Id {}, fingerprint of its keys {}",
                    opened.id(),
                    opened.fingerprint()
                ));
                if let Some(base) = opened.list().ok().and_then(|it| it.bases.last().cloned()) {
                    let facts = &base.header.facts;
                    let (revision, at) = (grouped(facts.last.get()), shown(facts.state));
                    line(&format!(
                        "Newest base when this was printed: revision {revision} of {at}"
                    ));
                }
                opened.is_sealed()
            }
            Err(failure) => {
                line(&format!("**Could not be read when this was printed**: {}", failure.what));
                line(&format!("Id {BLANK}, fingerprint of its keys {BLANK}"));
                line(&format!("Encrypted (yes or no): {BLANK}; if it is:"));
                true
            }
        };
        if !is_sealed {
            line("Not encrypted: whoever reads the place can restore");
            return text;
        }
        line("Encrypted: without one of these identities nothing is ever restored");
        let owners = self.opened.clone().and_then(|it| unlock(it, &ReadKeys::default()));
        for owner in owners.as_ref().map(Archive::recipients).unwrap_or_default() {
            let _ = writeln!(text, "  - owner {owner}: identity kept in {BLANK}");
        }
        for path in identities {
            let _ = writeln!(text, "  - on this host: `{}`", path.display());
        }
        let _ = writeln!(text, "  - others: {BLANK}");
        text
    }
}

/// What the cluster says of itself, or what has to be filled in.
struct Known<'a> {
    cluster: &'a Cluster,
    sources: Vec<Source<'a>>,
    id: Option<u64>,
    members: Vec<MemberInfo>,
    version: Option<String>,
    manifest: Option<(PathBuf, Manifest)>,
}

impl<'a> Known<'a> {
    fn of(cluster: &'a Cluster) -> Result<Self, Failure> {
        let manifest = cluster.manifest.clone();
        let manifest = manifest.map(|path| Manifest::read(&path).map(|read| (path, read)));
        let mut this = Self {
            cluster,
            sources: cluster.archives.iter().map(Source::of).collect(),
            id: None,
            members: Vec::new(),
            version: None,
            manifest: manifest.transpose()?,
        };
        let calls = Calls::new(terminal::stop_flag()?)?;
        let client = connect(&ConnectArgs::default())?.client;
        match calls.wait(client.member_list()) {
            Ok(mut listed) => {
                listed.members.sort_by(|a, b| a.name.cmp(&b.name));
                (this.id, this.members) = (Some(listed.header.cluster_id), listed.members);
                let first = client.members().first();
                let status = first.map(|member| calls.wait(member.status()));
                this.version = status.and_then(Result::ok).map(|status| status.version);
            }
            Err(failure) if failure.code == Code::Interrupted => return Err(failure),
            Err(failure) => {
                eprintln!(
                    "warning: the cluster does not say who its members are: {}",
                    failure.what
                );
            }
        }
        Ok(this)
    }

    /// What has to be filled in, because it could not be asked.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.members.is_empty() {
            missing.push("the members of the cluster".to_owned());
        }
        for source in self.sources.iter().filter(|source| source.opened.is_err()) {
            missing.push(format!("the keys of {}", source.place()));
        }
        missing
    }

    fn head(&self) -> Result<String, Failure> {
        let name = &self.cluster.name;
        let now = Timestamp::now().strftime("%Y-%m-%d %H:%M UTC");
        let id = self.id.map_or_else(|| BLANK.to_owned(), |id| format!("{id:x}"));
        let version = self.version.clone().unwrap_or_else(|| BLANK.to_owned());
        let (program, digest) = program()?;
        let mut text = format!("# How to bring {name} back\n\n");
        let missing = self.missing();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            eprintln!("warning: the paper is incomplete: {missing} could not be asked");
            let _ = writeln!(
                text,
                "**This paper is incomplete**: {missing} could not be asked. Fill in what is blank, or print it \
                 anew when they can.\n"
            );
        }
        let _ = write!(
            text,
            "As of {now}. Cluster id {id}, etcd {version}. Program: rekindle {}, {program}, SHA-256\n{digest}.\n\
             Whom to call: {BLANK}\n\n## Members\n\n| name | id | peers | clients |\n|---|---|---|---|\n",
            env!("CARGO_PKG_VERSION"),
        );
        for member in &self.members {
            let MemberInfo { name, id, peer_urls, client_urls, .. } = member;
            let (peers, clients) = (peer_urls.join(" "), client_urls.join(" "));
            let _ = writeln!(text, "| {name} | {id:x} | {peers} | {clients} |");
        }
        if self.members.is_empty() {
            (0..3).for_each(|_| _ = writeln!(text, "| {BLANK} | | {BLANK} | {BLANK} |"));
        }
        if self.manifest.is_none() {
            let _ = writeln!(
                text,
                "\nWhere etcd has its data (what `--data-dir` or `ETCD_DATA_DIR` of the running etcd says), {DATA_DIR} \
                 below: {BLANK}"
            );
        }
        Ok(text)
    }

    fn snapshots(&self) -> String {
        let places: Vec<_> = self.cluster.snapshots.iter().flat_map(|job| &job.to).collect();
        if places.is_empty() {
            return String::new();
        }
        let mut text = "\n## Plain snapshots\n\nFor `rekindle restore` and etcd's own `etcdutl snapshot restore`, without \
                        any key:\n\n"
            .to_owned();
        places.iter().for_each(|place| _ = writeln!(text, "- `{place}`"));
        text
    }

    fn initial_cluster(&self) -> String {
        let of_member = |member: &MemberInfo| {
            let name = &member.name;
            member.peer_urls.iter().map(move |url| format!("{name}={url}")).collect::<Vec<_>>()
        };
        let all: Vec<_> = self.members.iter().flat_map(of_member).collect();
        if all.is_empty() { format!("NAME=PEER-URL,...{BLANK}") } else { all.join(",") }
    }

    fn data_dir(&self) -> String {
        let named = self.manifest.as_ref().and_then(|(_, read)| read.path_flag("data-dir"));
        named.map_or_else(|| DATA_DIR.to_owned(), |path| path.display().to_string())
    }

    fn one_member(&self) -> String {
        format!(
            "\n## One member is lost, the others are well\n\nNot from a backup: the others have everything. On one of them `etcdctl \
             member remove ID`, then `etcdctl member add NAME --peer-urls=URL`; move {} on the lost host aside, and start its etcd \
             with `--initial-cluster-state=existing` and all members in `--initial-cluster`.\n",
            self.data_dir()
        )
    }

    /// The same commands on each host but for its name, so that the members know each other.
    fn all_members(&self) -> String {
        let mut text = "\n## Most members are lost, or the data are wrong\n\n".to_owned();
        text += "1. Stop the agents, on every host that has one: `systemctl stop rekindle`. What they have saved stays.\n";
        text += "2. **Choose one point and use it on every host.** These tell which there are:\n\n";
        for source in &self.sources {
            let (place, store) = (source.place(), source.store());
            let _ = writeln!(text, "       rekindle archive list {place}{store}");
        }
        let _ = writeln!(
            text,
            "\n   {POINT} below is `latest`, a revision, a time such as `2026-11-20T10:00:00Z`, or an age such as `10m`: {BLANK}"
        );
        text += "3. Stop etcd on every host, and what writes into it:\n\n";
        match &self.manifest {
            Some((path, _)) => self.of_manifest(&mut text, path),
            None => self.of_units(&mut text),
        }
        text += "\nWhat was there is set aside, not deleted; `rekindle restore --help` says how an interrupted one is ended.\n";
        text
    }

    fn of_manifest(&self, text: &mut String, path: &Path) {
        let folder = path.parent().unwrap_or(Path::new("/")).display();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let path = path.display();
        let initial = self.initial_cluster();
        let _ = write!(
            text,
            "       mkdir -p {STOPPED}\n       mv {folder}/kube-apiserver.yaml {path} {STOPPED}/\n       pgrep -x etcd   # again, \
             until it prints nothing\n\n4. On every host:\n\n"
        );
        self.restores(
            text,
            &[format!("--from-manifest={STOPPED}/{file} --initial-cluster={initial}")],
        );
        let _ = write!(
            text,
            "\n5. On every host, etcd first, then the API server:\n\n       mv {STOPPED}/{file} {path}\n       mv \
             {STOPPED}/kube-apiserver.yaml {folder}/\n"
        );
    }

    fn of_units(&self, text: &mut String) {
        let (initial, data_dir) = (self.initial_cluster(), self.data_dir());
        let flags = |name: &str, urls: &str| {
            format!(
                "--name={name} --initial-cluster={initial} --initial-advertise-peer-urls={urls} --data-dir={data_dir}"
            )
        };
        let mut all: Vec<_> = self
            .members
            .iter()
            .map(|member| flags(&member.name, &member.peer_urls.join(",")))
            .collect();
        if all.is_empty() {
            all.push(flags("NAME", "PEER-URL"));
        }
        *text += "       systemctl stop etcd\n\n4. On each host the line with its name:\n\n";
        self.restores(text, &all);
        *text += "\n5. On every host:\n\n       systemctl start etcd\n";
    }

    /// The commands, for each archive: any of them may be the one that is left.
    fn restores(&self, text: &mut String, flags: &[String]) {
        let mut all: Vec<_> = self
            .sources
            .iter()
            .map(|source| {
                let name = format!("archive {}", source.archive.name);
                let from = format!("{}@{POINT}{}", source.place(), source.store());
                (name, from, source.identity())
            })
            .collect();
        if all.is_empty() {
            all.push(("a snapshot".to_owned(), "SNAPSHOT-FILE".to_owned(), String::new()));
        }
        for (number, (name, from, identity)) in all.iter().enumerate() {
            let word = if number == 0 { "From" } else { "\n   Or, if that cannot be had, from" };
            let word = if number == 0 { format!("   {word}") } else { word.to_owned() };
            let _ = writeln!(text, "{word} {name}:\n");
            for flags in flags {
                let _ = writeln!(text, "       rekindle restore {from} {flags}{identity}");
            }
        }
    }

    fn files(&self) -> String {
        let with_files = self.sources.iter().filter(|it| it.archive.host_files.is_some());
        let lines: String = with_files
            .map(|source| {
                let (place, store, identity) = (source.place(), source.store(), source.identity());
                format!("    rekindle restore-files {place}{store} --host=NAME --to=/{identity}\n")
            })
            .collect();
        if lines.is_empty() {
            return String::new();
        }
        format!(
            "\n## A host is lost: certificates, manifests, configuration\n\n{lines}\n\
             Without `--host` and `--to` it lists whose there are; `--diff` instead of `--to` shows what differs.\n"
        )
    }
}

/// This program, and the digest of its file.
fn program() -> Result<(String, String), Failure> {
    let path = std::env::current_exe()
        .map_err(|error| Failure::io("looking for", Path::new("this program"), &error))?;
    let failure = |error| Failure::io("reading", &path, &error);
    let mut file = std::fs::File::open(&path).map_err(failure)?;
    let (mut digest, mut buffer) = (SnapshotDigest::new(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).map_err(failure)?;
        if read == 0 {
            break;
        }
        digest.update(buffer.get(..read).unwrap_or_default());
    }
    Ok((path.display().to_string(), digest.of_all().to_string()))
}
