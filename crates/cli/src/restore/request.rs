//! The flags of `rekindle restore`, checked against each other and against a manifest.

use crate::args::{LeasesArg, RestoreArgs};
use crate::failure::Failure;
use crate::manifest::Manifest;
use rekindle_client::TlsFiles;
use rekindle_datadir::Place;
use rekindle_etcd::restore::{BumpRequest, DEFAULT_QUOTA, LeaseFate};
use rekindle_etcd::{InitialCluster, Url};
use std::path::{Path, PathBuf};

/// etcdutl's defaults.
const DEFAULT_NAME: &str = "default";
const DEFAULT_PEER_URL: &str = "http://localhost:2380";

/// What is wanted, free of contradictions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub initial_cluster: InitialCluster,
    /// Never the manifest's, which is that of the old cluster: etcd does not look at it again.
    pub token: Option<String>,
    pub directories: Directories,
    pub bump: BumpRequest,
    pub leases: LeaseFate,
    pub quota: u64,
    /// What the manifest's etcd presents to its peers.
    pub peer_identity: TlsFiles,
}

/// Which members' directories are made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Directories {
    /// Those of one member.
    One { name: String, data_dir: PathBuf, wal_dir: Option<PathBuf> },
    /// All, below one directory.
    All(PathBuf),
}

/// Flags that come from the command line or a manifest, which may not contradict each other.
struct Merged<'a> {
    manifest: Option<&'a Manifest>,
}

impl Merged<'_> {
    fn text(&self, flag: &str, given: Option<&String>) -> Result<Option<String>, Failure> {
        let listed = self.manifest.and_then(|manifest| manifest.flag(flag)).map(str::to_owned);
        self.agree(flag, given.cloned(), listed)
    }

    fn path(&self, flag: &str, given: Option<&PathBuf>) -> Result<Option<PathBuf>, Failure> {
        let listed = self.manifest.and_then(|manifest| manifest.path_flag(flag));
        let shown = |path: PathBuf| path.display().to_string();
        let agreed = self.agree(flag, given.cloned().map(shown), listed.map(shown))?;
        Ok(agreed.map(PathBuf::from))
    }

    /// The members. A manifest may list fewer of them than there are: kubeadm writes those that
    /// were there when the host joined.
    fn cluster(&self, given: Option<&String>) -> Result<Option<InitialCluster>, Failure> {
        let listed = self.manifest.and_then(|manifest| manifest.flag("initial-cluster"));
        let (Some(given), Some(listed)) = (given, listed) else {
            return given.map(String::as_str).or(listed).map(parse_cluster).transpose();
        };
        let (cluster, known) = (parse_cluster(given)?, parse_cluster(listed)?);
        if known.iter().any(|(name, urls)| cluster.peer_urls(name) != Some(urls)) {
            return Err(self.contradiction("initial-cluster", given, listed));
        }
        Ok(Some(cluster))
    }

    fn agree(
        &self,
        flag: &str,
        given: Option<String>,
        listed: Option<String>,
    ) -> Result<Option<String>, Failure> {
        match (given, listed) {
            (Some(given), Some(listed)) if given != listed => {
                Err(self.contradiction(flag, &given, &listed))
            }
            (given, listed) => Ok(given.or(listed)),
        }
    }

    fn contradiction(&self, flag: &str, given: &str, listed: &str) -> Failure {
        let path = self.manifest.map(|manifest| manifest.path.display().to_string());
        let what = format!(
            "--{flag} is \"{given}\", but manifest {} says \"{listed}\"",
            path.unwrap_or_default()
        );
        Failure::refused(what).remedy(
            "etcd will start with what its manifest says: make them equal, or leave the flag or \
             --from-manifest away",
        )
    }
}

impl Wanted {
    pub(crate) fn new(args: &RestoreArgs, manifest: Option<&Manifest>) -> Result<Self, Failure> {
        let merged = Merged { manifest };
        let peer_file = |flag| manifest.and_then(|manifest| manifest.path_flag(flag));
        let peer_identity = TlsFiles {
            cert: peer_file("peer-cert-file"),
            key: peer_file("peer-key-file"),
            ..TlsFiles::default()
        };
        let (initial_cluster, directories) = match &args.members {
            Some(directory) => {
                let cluster = merged.cluster(args.initial_cluster.as_ref())?.ok_or_else(|| {
                    Failure::usage("--members needs --initial-cluster with all members")
                })?;
                (cluster, Directories::All(directory.clone()))
            }
            None => one_member(args, &merged)?,
        };
        let quota = match args.quota_backend_bytes {
            Some(quota) => Some(quota),
            None => manifest_quota(manifest)?,
        };
        Ok(Self {
            initial_cluster,
            token: args.initial_cluster_token.clone(),
            directories,
            bump: bump(args)?,
            leases: match args.leases {
                LeasesArg::Restore => LeaseFate::Restore,
                LeasesArg::Expire => LeaseFate::Expire,
                LeasesArg::Detach => LeaseFate::Detach,
            },
            // 0 and less mean etcd's default there too.
            quota: quota.filter(|quota| *quota > 0).unwrap_or(DEFAULT_QUOTA),
            peer_identity,
        })
    }
}

fn manifest_quota(manifest: Option<&Manifest>) -> Result<Option<u64>, Failure> {
    let Some(text) = manifest.and_then(|manifest| manifest.flag("quota-backend-bytes")) else {
        return Ok(None);
    };
    let quota = text.parse::<i64>().map(|quota| u64::try_from(quota).unwrap_or(0));
    let fault = || Failure::usage(format!("the manifest's --quota-backend-bytes is \"{text}\""));
    quota.map(Some).map_err(|_| fault())
}

fn parse_cluster(text: &str) -> Result<InitialCluster, Failure> {
    InitialCluster::parse(text)
        .map_err(|fault| Failure::usage(format!("--initial-cluster: {fault}")))
}

fn one_member(
    args: &RestoreArgs,
    merged: &Merged<'_>,
) -> Result<(InitialCluster, Directories), Failure> {
    let name = merged.text("name", args.name.as_ref())?.unwrap_or(DEFAULT_NAME.to_owned());
    let advertised = merged
        .text("initial-advertise-peer-urls", args.initial_advertise_peer_urls.as_ref())?
        .map(|text| parse_urls(&text))
        .transpose()?;
    let cluster = match merged.cluster(args.initial_cluster.as_ref())? {
        Some(cluster) => cluster,
        None => {
            let default = || vec![DEFAULT_PEER_URL.to_owned()];
            let urls = advertised.as_ref().map_or_else(default, |urls| {
                urls.iter().map(ToString::to_string).collect::<Vec<_>>()
            });
            let parts: Vec<_> = urls.iter().map(|url| format!("{name}={url}")).collect();
            parse_cluster(&parts.join(","))?
        }
    };
    let Some(listed) = cluster.peer_urls(&name) else {
        return Err(Failure::refused(format!(
            "--name is \"{name}\", which is not in --initial-cluster \"{cluster}\""
        ))
        .remedy("etcd would not start so: give the member's name as --initial-cluster has it"));
    };
    if let Some(advertised) = advertised.filter(|advertised| advertised != listed) {
        let text = |urls: &[Url]| urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
        return Err(Failure::refused(format!(
            "--initial-advertise-peer-urls is \"{}\", but --initial-cluster has \"{}\" for {name}",
            text(&advertised),
            text(listed)
        ))
        .remedy("make them equal: etcd compares them when it starts"));
    }
    let data_dir = merged.path("data-dir", args.data_dir.as_ref())?;
    let data_dir = data_dir.unwrap_or_else(|| PathBuf::from(format!("{name}.etcd")));
    let wal_dir = merged.path("wal-dir", args.wal_dir.as_ref())?;
    Ok((cluster, Directories::One { name, data_dir, wal_dir }))
}

fn parse_urls(text: &str) -> Result<Vec<Url>, Failure> {
    let urls: Result<Vec<_>, _> = text.split(',').map(Url::parse).collect();
    let mut urls =
        urls.map_err(|fault| Failure::usage(format!("--initial-advertise-peer-urls: {fault}")))?;
    urls.sort();
    Ok(urls)
}

/// etcdutl wants both flags or none; 0 alone turns off what Kubernetes would get.
fn bump(args: &RestoreArgs) -> Result<BumpRequest, Failure> {
    match (args.bump_revision, args.mark_compacted) {
        (None, false) => Ok(BumpRequest::IfKubernetes),
        (Some(0), false) => Ok(BumpRequest::Never),
        (Some(amount), true) if amount > 0 => Ok(BumpRequest::By(amount)),
        (Some(_), false) => Err(Failure::usage("--bump-revision needs --mark-compacted")),
        (_, true) => Err(Failure::usage("--mark-compacted needs --bump-revision above 0")),
    }
}

/// Where a data directory really lies: absolute, without links, with what is mounted there.
pub(crate) fn resolve(data_dir: &Path, wal_dir: Option<&Path>) -> Result<Place, Failure> {
    let data_dir = real_path(data_dir)?;
    if data_dir.parent().is_none() {
        return Err(Failure::usage("--data-dir is the root of all files")
            .remedy("name a directory below it"));
    }
    let wal_dir = wal_dir.map(real_path).transpose()?;
    if let Some(wal_dir) = &wal_dir
        && (data_dir.starts_with(wal_dir) || wal_dir.starts_with(data_dir.join("member/snap")))
    {
        let what = format!(
            "--wal-dir {} and --data-dir {} lie in each other",
            wal_dir.display(),
            data_dir.display()
        );
        return Err(Failure::usage(what));
    }
    Ok(Place::new(&data_dir, wal_dir.as_deref(), &mount_points()?))
}

/// The path without links; of one that does not exist yet, its nearest parent's.
fn real_path(path: &Path) -> Result<PathBuf, Failure> {
    let failure = |error| Failure::io("resolving", path, &error);
    let absolute = std::path::absolute(path).map_err(failure)?;
    let mut missing = Vec::new();
    let mut known = absolute.as_path();
    loop {
        match known.canonicalize() {
            Ok(mut real) => {
                real.extend(missing.iter().rev());
                return Ok(real);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                match (known.parent(), known.file_name()) {
                    (Some(parent), Some(name)) => {
                        missing.push(name.to_owned());
                        known = parent;
                    }
                    _ => return Err(failure(error)),
                }
            }
            Err(error) => return Err(failure(error)),
        }
    }
}

/// Everything that is mounted (proc(5), mountinfo: the fifth field, octal escapes).
fn mount_points() -> Result<Vec<PathBuf>, Failure> {
    let path = Path::new("/proc/self/mountinfo");
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::io("reading", path, &error))?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect())
}

fn unescape(field: &str) -> PathBuf {
    let mut text = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text += before;
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                text.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                text.push('\\');
                rest = after;
            }
        }
    }
    PathBuf::from(text + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use crate::failure::Code;
    use clap::Parser;

    fn wanted(flags: &str, manifest: Option<&Manifest>) -> Result<Wanted, Failure> {
        let words = ["rekindle", "restore", "snap.db"];
        let words = words.into_iter().chain(flags.split_whitespace());
        match Args::try_parse_from(words).unwrap().command {
            Command::Restore(args) => Wanted::new(&args, manifest),
            _ => unreachable!(),
        }
    }

    fn check_refused(flags: &str, want: &str) {
        assert_eq!(wanted(flags, None).unwrap_err().what, want, "{flags}");
    }

    #[test]
    fn defaults_are_etcdutls() {
        let wanted = wanted("", None).unwrap();
        assert_eq!(wanted.initial_cluster.to_string(), "default=http://localhost:2380");
        let name = "default".to_owned();
        let data_dir = PathBuf::from("default.etcd");
        assert_eq!(wanted.directories, Directories::One { name, data_dir, wal_dir: None });
        assert_eq!((wanted.token, wanted.bump), (None, BumpRequest::IfKubernetes));
    }

    #[test]
    fn a_name_and_urls_alone_make_a_cluster_of_one() {
        let wanted = wanted("--name n1 --initial-advertise-peer-urls http://h:2,http://h:1", None);
        assert_eq!(wanted.unwrap().initial_cluster.to_string(), "n1=http://h:1,n1=http://h:2");
    }

    #[test]
    fn contradictions_are_refused_with_both_values() {
        check_refused(
            "--name n3 --initial-cluster n1=http://h:1,n2=http://h:2",
            "--name is \"n3\", which is not in --initial-cluster \"n1=http://h:1,n2=http://h:2\"",
        );
        check_refused(
            "--name n1 --initial-cluster n1=http://h:1 --initial-advertise-peer-urls http://h:9",
            "--initial-advertise-peer-urls is \"http://h:9\", but --initial-cluster has \
             \"http://h:1\" for n1",
        );
        check_refused("--members d", "--members needs --initial-cluster with all members");
        check_refused(
            "--initial-cluster n1=h:1",
            "--initial-cluster: initial cluster, member n1: URL \"h:1\" has no scheme",
        );
    }

    #[test]
    fn bump_and_compaction_go_together() {
        let bump = |flags| wanted(flags, None).map(|wanted| wanted.bump);
        assert_eq!(bump("--bump-revision 0"), Ok(BumpRequest::Never));
        assert_eq!(bump("--bump-revision 9 --mark-compacted"), Ok(BumpRequest::By(9)));
        check_refused("--bump-revision 9", "--bump-revision needs --mark-compacted");
        check_refused("--mark-compacted", "--mark-compacted needs --bump-revision above 0");
        let zero = "--bump-revision 0 --mark-compacted";
        check_refused(zero, "--mark-compacted needs --bump-revision above 0");
    }

    #[test]
    fn a_manifest_fills_in_and_may_not_be_contradicted() {
        let yaml = "
kind: Pod
spec:
  containers:
  - name: etcd
    command: [etcd, --name=cp, --initial-cluster=cp=https://h:2380, --data-dir=/var/lib/etcd,
              --initial-advertise-peer-urls=https://h:2380, --quota-backend-bytes=8589934592]
";
        let file = std::env::temp_dir().join(format!("manifest-{}.yaml", std::process::id()));
        std::fs::write(&file, yaml).unwrap();
        let manifest = Manifest::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let filled = wanted("", Some(&manifest)).unwrap();
        assert_eq!(filled.initial_cluster.to_string(), "cp=https://h:2380");
        assert_eq!(filled.quota, 8 << 30);
        let (name, data_dir) = ("cp".to_owned(), PathBuf::from("/var/lib/etcd"));
        assert_eq!(filled.directories, Directories::One { name, data_dir, wal_dir: None });
        assert!(wanted("--name cp", Some(&manifest)).is_ok());
        let refused = wanted("--name other", Some(&manifest)).unwrap_err();
        let want = format!("--name is \"other\", but manifest {} says \"cp\"", file.display());
        assert_eq!(refused.what, want);

        let more = "--initial-cluster cp=https://h:2380,cp2=https://i:2380";
        let cluster = wanted(more, Some(&manifest)).unwrap().initial_cluster;
        assert_eq!(cluster.to_string(), "cp=https://h:2380,cp2=https://i:2380");
        for other in ["cp=https://h:1,cp2=https://i:2380", "cp2=https://i:2380"] {
            let refused =
                wanted(&format!("--initial-cluster {other}"), Some(&manifest)).unwrap_err();
            let want = format!(
                "--initial-cluster is \"{other}\", but manifest {} says \"cp=https://h:2380\"",
                file.display()
            );
            assert_eq!((refused.code, refused.what), (Code::Refused, want));
        }
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape("/mnt/a\\040b\\134c"), Path::new("/mnt/a b\\c"));
        assert_eq!(unescape("/var/lib/etcd"), Path::new("/var/lib/etcd"));
    }
}
