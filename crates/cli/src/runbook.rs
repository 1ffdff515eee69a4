//! `rekindle runbook`: how this cluster is brought back, for paper.

use crate::archive::ReadKeys;
use crate::archive::{open_at, shown, unlock};
use crate::args::{ConnectArgs, StoreArgs};
use crate::configured;
use crate::connect::connect;
use crate::failure::{Code, Failure};
use crate::manifest::Manifest;
use crate::output::{self, grouped};
use crate::terminal::{self, Calls};
use clap::Args as ClapArgs;
use jiff::Timestamp;
use rekindle_agent::config::{Archive, Cluster};
use rekindle_client::MemberInfo;
use rekindle_etcd::digest::SnapshotDigest;
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What is to be filled in by hand.
const BLANK: &str = "______________________________";
/// Where etcd's data are, where nothing says so.
const DATA_DIR: &str = "/var/lib/etcd";
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
    for archive in &cluster.archives {
        text += &archive_section(archive);
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
- Start the agent again (`systemctl start rekindle`), and look that it writes: `rekindle records`.
- Keep what the restore has set aside (`<data-dir>.before-...`) until everybody is content.
";

/// What the cluster says of itself, or what has to be filled in.
struct Known<'a> {
    cluster: &'a Cluster,
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

    fn head(&self) -> Result<String, Failure> {
        let name = &self.cluster.name;
        let now = Timestamp::now().strftime("%Y-%m-%d %H:%M UTC");
        let id = self.id.map_or_else(|| BLANK.to_owned(), |id| format!("{id:x}"));
        let version = self.version.clone().unwrap_or_else(|| BLANK.to_owned());
        let (program, digest) = program()?;
        let mut text = format!(
            "# How to bring {name} back\n\nAs of {now}. Cluster id {id}, etcd {version}. Program: rekindle {}, {program}, SHA-256\n{digest}.\n\
             Whom to call: {BLANK}\n\n## Members\n\n| name | id | peers | clients |\n|---|---|---|---|\n",
            env!("CARGO_PKG_VERSION"),
        );
        for member in &self.members {
            let MemberInfo { name, id, peer_urls, client_urls, .. } = member;
            let (peers, clients) = (peer_urls.join(" "), client_urls.join(" "));
            let _ = writeln!(text, "| {name} | {id:x} | {peers} | {clients} |");
        }
        if self.members.is_empty() {
            let _ = writeln!(text, "| {BLANK} | | {BLANK} | {BLANK} |");
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
        let (source, identity) = self.source();
        let initial = self.initial_cluster();
        text += "1. **Choose one point and use it on every host**: `rekindle archive list`; write `@latest`, `@REVISION`, a \
                 time such as `@2026-11-20T10:00:00Z` or `@10m` behind the place. Point: ";
        text += BLANK;
        text += "\n2. Stop etcd on every host, and what writes into it:\n";
        match &self.manifest {
            Some((path, _)) => {
                let folder = path.parent().unwrap_or(Path::new("/")).display();
                let _ = write!(
                    text,
                    "\n       mkdir -p {STOPPED}\n       mv {folder}/kube-apiserver.yaml {} {STOPPED}/\n       pgrep -x etcd   # again, \
                     until it prints nothing\n\n",
                    path.display()
                );
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                let _ = write!(
                    text,
                    "3. On every host:\n\n       rekindle restore {source} --from-manifest={STOPPED}/{file} --initial-cluster={initial}{identity}\n\n\
                     4. On every host, etcd first, then the API server:\n\n       mv {STOPPED}/{file} {}\n       mv \
                     {STOPPED}/kube-apiserver.yaml {folder}/\n",
                    path.display()
                );
            }
            None => {
                text += "\n       systemctl stop etcd\n\n3. On each host:\n\n";
                for member in &self.members {
                    let (name, urls) = (&member.name, member.peer_urls.join(","));
                    let _ = writeln!(
                        text,
                        "       rekindle restore {source} --name={name} --initial-cluster={initial} --initial-advertise-peer-urls={urls} --data-dir={}{identity}",
                        self.data_dir()
                    );
                }
                if self.members.is_empty() {
                    let _ = writeln!(
                        text,
                        "       rekindle restore {source} --name={BLANK} --initial-cluster={initial} --initial-advertise-peer-urls={BLANK} --data-dir={}{identity}",
                        self.data_dir()
                    );
                }
                text += "\n4. On every host:\n\n       systemctl start etcd\n";
            }
        }
        text += "\nWhat was there is set aside, not deleted; `rekindle restore --help` says how an interrupted one is ended.\n";
        text
    }

    /// Where the data come from, and the keys to it.
    fn source(&self) -> (String, String) {
        let Some(archive) = self.cluster.archives.first() else {
            let first = self.cluster.snapshots.iter().flat_map(|job| &job.to).next();
            return (first.cloned().unwrap_or_else(|| BLANK.to_owned()), String::new());
        };
        let endpoint = archive.store.endpoint_url.as_ref();
        let endpoint = endpoint.map(|url| format!(" --endpoint-url={url}")).unwrap_or_default();
        let is_sealed = open_at(&archive.place, &StoreArgs::default()).map(|it| it.is_sealed());
        let identity = match (archive.identities.first(), is_sealed) {
            (_, Ok(false)) => String::new(),
            (Some(path), _) => format!(" --identity={}", path.display()),
            (None, _) => " --identity=FILE".to_owned(),
        };
        (format!("{}@latest{endpoint}", archive.place), identity)
    }

    fn files(&self) -> String {
        let with_files = self.cluster.archives.iter().find(|archive| archive.host_files.is_some());
        let Some(archive) = with_files else { return String::new() };
        format!(
            "\n## A host is lost: certificates, manifests, configuration\n\n    rekindle restore-files {} --host=NAME --to=/ --identity=FILE\n\n\
             Without `--host` it lists whose there are; `--diff` instead of `--to` shows what differs.\n",
            archive.place
        )
    }
}

fn archive_section(archive: &Archive) -> String {
    let mut text = format!("\n## Archive {}: `{}`\n\n", archive.name, archive.place);
    let mut line = |what: &str| _ = writeln!(text, "- {what}");
    if let Some(url) = &archive.store.endpoint_url {
        line(&format!(
            "Store: {url}, region {}",
            archive.store.region.as_deref().unwrap_or("none")
        ));
    }
    let names: Vec<_> = archive.store.variables.keys().cloned().collect();
    if archive.place.contains("://") {
        let names =
            if names.is_empty() { "the provider's variables".to_owned() } else { names.join(", ") };
        line(&format!("Credentials: {names}; kept in {BLANK}"));
    }
    let opened = open_at(&archive.place, &StoreArgs::default());
    let opened = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            eprintln!("warning: {}", failure.what);
            line(&format!("Id {BLANK}, fingerprint of its keys {BLANK}"));
            return text;
        }
    };
    line(&format!("Id {}, fingerprint of its keys {}", opened.id(), opened.fingerprint()));
    let newest = opened.list().ok().and_then(|listing| listing.bases.last().cloned());
    if let Some(base) = newest {
        let facts = &base.header.facts;
        let (revision, at) = (grouped(facts.last.get()), shown(facts.state));
        line(&format!("Newest base when this was printed: revision {revision} of {at}"));
    }
    if !opened.is_sealed() {
        line("Not encrypted: whoever reads the place can restore");
        return text;
    }
    line("Encrypted: without one of these identities nothing is ever restored");
    let owners = unlock(opened, &ReadKeys::default()).map(|opened| opened.recipients().to_vec());
    for owner in owners.unwrap_or_default() {
        let _ = writeln!(text, "  - owner {owner}: identity kept in {BLANK}");
    }
    for path in &archive.identities {
        let _ = writeln!(text, "  - on this host: `{}`", path.display());
    }
    let _ = writeln!(text, "  - others: {BLANK}");
    text
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
