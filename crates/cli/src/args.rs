//! The command line, as it is typed. Nothing is decided here: each command turns its flags into
//! what it needs and refuses what makes no sense.

use crate::agent::AgentArgs;
use crate::archive::{ForgetArgs, ProtectArgs, PruneArgs, ReadKeys, RekeyArgs, WriteKeys};
use crate::capture::CaptureArgs;
use crate::check::CheckArgs;
use crate::connect::{Env, variable};
use crate::defragment::DefragmentArgs;
use crate::doctor::DoctorArgs;
use crate::drill::DrillArgs;
use crate::host::{RestoreFilesArgs, SaveFilesArgs};
use crate::member::{OnHostArgs, ReconfigureArgs, ReplaceArgs};
use crate::prune_snapshots::PruneSnapshotsArgs;
use crate::records::RecordsArgs;
use crate::recover::RecoverArgs;
use crate::runbook::RunbookArgs;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Backs up etcd, keeps the backups provably good, and brings a cluster back.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 bad or damaged data, \
    4 refused for safety, 5 transient (try again), 6 not found, 130 interrupted.")]
pub(crate) struct Args {
    /// Configuration of rekindle agent: endpoints, certificates, stores and keys that flags do not name are
    /// taken from there.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Configuration")]
    pub config: Option<PathBuf>,
    /// Which of its clusters is meant, where it has several.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Configuration")]
    pub config_cluster: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Save(Box<SaveArgs>),
    Capture(Box<CaptureArgs>),
    Status(StatusArgs),
    Hashkv(HashkvArgs),
    Restore(Box<RestoreArgs>),
    Archive(ArchiveArgs),
    Drill(Box<DrillArgs>),
    Runbook(RunbookArgs),
    Check(Box<CheckArgs>),
    Doctor(Box<DoctorArgs>),
    Replace(Box<ReplaceArgs>),
    Reconfigure(Box<ReconfigureArgs>),
    Recover(Box<RecoverArgs>),
    #[command(hide = true)]
    OnHost(Box<OnHostArgs>),
    Defragment(Box<DefragmentArgs>),
    SaveFiles(Box<SaveFilesArgs>),
    RestoreFiles(Box<RestoreFilesArgs>),
    Agent(AgentArgs),
    Records(RecordsArgs),
    PruneSnapshots(Box<PruneSnapshotsArgs>),
}

/// Make archives and look at them.
///
/// An archive keeps every record of a cluster once, compressed and with its digest. Save bases into
/// it with `rekindle save ARCHIVE`, and restore them with `rekindle restore ARCHIVE[@POINT]`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ArchiveArgs {
    #[command(subcommand)]
    pub command: ArchiveCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    Init(Box<InitArgs>),
    Probe(ProbeArgs),
    List(ListArgs),
    Verify(VerifyArgs),
    Export(ExportArgs),
    Stats(StatsArgs),
    Copy(CopyArgs),
    Repair(RepairArgs),
    Rekey(Box<RekeyArgs>),
    Prune(Box<PruneArgs>),
    Forget(Box<ForgetArgs>),
}

/// How an object store is reached, where a place is a URL.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct StoreArgs {
    /// Where the store is, if not at its provider's: https://HOST:PORT [default: AWS_ENDPOINT_URL_S3,
    /// AWS_ENDPOINT_URL, STORAGE_EMULATOR_HOST or AZURE_STORAGE_ENDPOINT]
    #[arg(long, value_name = "URL", help_heading = STORES)]
    pub endpoint_url: Option<String>,
    /// Region of the bucket [default: AWS_REGION, else us-east-1]
    #[arg(long, help_heading = STORES)]
    pub region: Option<String>,
    /// Ask for BUCKET.HOST instead of HOST/BUCKET at an endpoint of one's own.
    #[arg(long, help_heading = STORES)]
    pub virtual_host_style: bool,
    /// Bundle of authorities that may have signed the store's certificate, too [default:
    /// AWS_CA_BUNDLE]
    #[arg(long, value_name = "FILE", help_heading = STORES)]
    pub store_ca: Option<PathBuf>,
    /// Most bytes a second to and from the store, such as 50MiB.
    #[arg(long, value_name = "BYTES", value_parser = crate::stores::parse_bytes,
          help_heading = STORES)]
    pub bandwidth: Option<NonZeroU64>,
    /// Lock what is created in an S3 bucket for so long, such as 30d: nobody can remove it before.
    #[arg(long, value_name = "TIME", value_parser = crate::stores::parse_lock,
          help_heading = STORES)]
    pub object_lock: Option<Duration>,
    /// Whether who has the right to may lift such a lock (governance) or nobody can (compliance).
    #[arg(long, value_name = "MODE", default_value = "compliance", requires = "object_lock",
          help_heading = STORES)]
    pub object_lock_mode: LockMode,
    /// Which of a command's places is meant.
    #[arg(skip)]
    pub role: Role,
    /// etcdbrctl's way to name a place: S3, GCS, ABS, ECS, OCS or Local.
    #[arg(long, value_name = "PROVIDER", help_heading = STORES)]
    pub storage_provider: Option<String>,
    /// Its bucket, container or directory [default: STORAGE_CONTAINER]
    #[arg(long, value_name = "NAME", help_heading = STORES)]
    pub store_container: Option<String>,
    /// What all names in it begin with.
    #[arg(long, value_name = "PREFIX", help_heading = STORES)]
    pub store_prefix: Option<String>,
}

/// See [`RestoreArgs::leases`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LeasesArg {
    /// They begin their time anew.
    #[default]
    Restore,
    /// They end within seconds of the start, and their keys with them.
    Expire,
    /// They are gone, and their keys stay.
    Detach,
}

/// See [`RestoreArgs::accept_auth_from`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuthFrom {
    /// As they were at the restore point.
    Point,
    /// As the newest base has them.
    Latest,
}

/// Which point of an archive is meant, where that is not said behind an `@`.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Point of an archive")]
pub(crate) struct PointArgs {
    #[command(flatten)]
    pub moment: MomentArgs,
    /// Of this history, where the cluster was restored and has several: rekindle archive list shows them.
    #[arg(long, value_name = "ID")]
    pub timeline: Option<String>,
}

/// See [`PointArgs`].
#[derive(Clone, Debug, Default, ClapArgs)]
#[group(multiple = false)]
pub(crate) struct MomentArgs {
    /// As it was at this revision.
    #[arg(long, value_name = "REVISION")]
    pub to_revision: Option<String>,
    /// As it was at this time, such as 2026-11-20T10:00:00Z, 2026-11-20T10:00 where the clock on the wall
    /// said so, or 10m for ten minutes ago.
    #[arg(long, value_name = "TIME")]
    pub to_time: Option<String>,
    /// The newest that it has; so it is where nothing is said.
    #[arg(long)]
    pub latest: bool,
}

/// Which of a command's places is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    #[default]
    Only,
    /// The first one of two, of which either may be a path.
    First,
    /// See [`OtherStoreArgs`].
    Other,
}

/// How the other one of two places is reached, where that is not as the first one.
///
/// Credentials of its own are in variables with REKINDLE_OTHER_ before their names, such as
/// REKINDLE_OTHER_AWS_ACCESS_KEY_ID: one of a provider's takes the place of all of that provider's.
#[derive(Debug, Default, ClapArgs)]
#[command(next_help_heading = "The other place")]
pub(crate) struct OtherStoreArgs {
    /// Where its store is [default: as --endpoint-url, unless REKINDLE_OTHER_AWS_ENDPOINT_URL and the
    /// like say so; all variables of a provider may stand with REKINDLE_OTHER_ before their names]
    #[arg(long, value_name = "URL")]
    pub other_endpoint_url: Option<String>,
    /// Region of its bucket.
    #[arg(long, value_name = "REGION")]
    pub other_region: Option<String>,
    /// Bundle of authorities that may have signed its certificate, too.
    #[arg(long, value_name = "FILE")]
    pub other_store_ca: Option<PathBuf>,
}

/// How objects are locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LockMode {
    Governance,
    #[default]
    Compliance,
}

const STORES: &str = "Object stores";

/// Where a snapshot lies while it is worked on.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct SpoolArgs {
    /// Where a snapshot lies on its way into an archive, or to and from an object store; not on
    /// etcd's own disk [default: /var/lib/rekindle/spool, or ~/.cache/rekindle/spool where one is
    /// not root]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
}

impl SpoolArgs {
    /// The directory that is named.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.spool.as_deref()
    }
}

/// Make an archive of an empty place.
///
/// A place is a directory, or a part of a bucket: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX,
/// az://CONTAINER/PREFIX. It is probed first: a store in which one object can take the place of
/// another is refused.
#[derive(Debug, ClapArgs)]
pub(crate) struct InitArgs {
    /// A directory, a network mount, or a URL.
    #[arg(required_unless_present = "storage_provider")]
    pub place: Option<String>,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub protect: ProtectArgs,
}

/// Find out whether a place does what an archive needs.
///
/// Writes one small object, tries to replace it, reads, lists and removes it. Exit code 4 where
/// something is missing.
#[derive(Debug, ClapArgs)]
pub(crate) struct ProbeArgs {
    /// A directory, a network mount, or a URL.
    #[arg(required_unless_present = "storage_provider")]
    pub place: Option<String>,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// List what an archive can bring back.
#[derive(Debug, ClapArgs)]
pub(crate) struct ListArgs {
    /// The archive: a directory or a URL.
    #[arg(required_unless_present = "storage_provider")]
    pub archive: Option<String>,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Say which restore points can be brought back, and what is wrong with the others.
///
/// Findings are LOST (missing or damaged), DELAYED (the store does not hand it out now), UPLOADING (no
/// base names it yet: a save is under way, or was cut off less than a day ago) and ORPHAN (no base names
/// it). Exit code 3 where something is lost, 5 where something is delayed.
#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyArgs {
    /// The archive, or one point of it: ARCHIVE[@POINT]. Without one all of it is verified.
    pub archive: String,
    /// How thoroughly.
    #[arg(long, value_enum, default_value_t = VerifyLevel::Read)]
    pub level: VerifyLevel,
    /// Only the newest restore point.
    #[arg(long)]
    pub latest: bool,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub keys: ReadKeys,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How thoroughly an archive is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyLevel {
    /// Every object that a restore point needs is there, with the right size.
    Listed,
    /// Every byte of them is read once and compared with its digests.
    Read,
    /// Each keyspace is put together, and its HashKV compared with that of the snapshot.
    Proven,
}

/// Write a restore point as a plain snapshot file, for etcd's own tools.
///
/// The file has every key and value, users, leases and members as they were: `etcdutl snapshot restore`
/// takes it. It gets its name only when it was read back and its HashKV is that of the cluster.
#[derive(Debug, ClapArgs)]
pub(crate) struct ExportArgs {
    /// The archive, and which point of it: ARCHIVE[@POINT], the newest where none is named.
    pub source: PathBuf,
    /// File to write.
    pub file: PathBuf,
    /// Replace the file if it is there, once the new one is whole.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub point: PointArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub keys: ReadKeys,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Say what an archive holds, and what that costs.
///
/// Nothing is read but headers and bases, so dead bytes (of records that no base has any more) are
/// reckoned by the number of records.
#[derive(Debug, ClapArgs)]
pub(crate) struct StatsArgs {
    /// The archive: a directory or a URL.
    pub archive: String,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub keys: ReadKeys,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Copy an archive to another place, or what is new of it since the last copy.
///
/// Every object is compared with its digests before it is created there, and data come before the bases
/// that name them. Interrupted, it goes on with what is missing when it is run again.
#[derive(Debug, ClapArgs)]
pub(crate) struct CopyArgs {
    /// The archive, or one point of it: ARCHIVE[@POINT].
    pub from: String,
    /// The place of the copy: an empty or new directory, or an earlier copy.
    pub to: String,
    /// Only the newest restore point.
    #[arg(long)]
    pub latest: bool,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub other: OtherStoreArgs,
    #[command(flatten)]
    pub keys: ReadKeys,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Bring lost objects of an archive back from a copy.
///
/// Verifies the archive first. A damaged object is removed only when the copy's own is read and good.
#[derive(Debug, ClapArgs)]
pub(crate) struct RepairArgs {
    /// The archive that is damaged.
    pub archive: String,
    /// A copy of it.
    #[arg(long, value_name = "ARCHIVE")]
    pub from: String,
    /// How thoroughly damage is looked for.
    #[arg(long, value_enum, default_value_t = VerifyLevel::Read)]
    pub level: VerifyLevel,
    /// Print the plan and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before a damaged object is replaced.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub other: OtherStoreArgs,
    #[command(flatten)]
    pub keys: ReadKeys,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON object with etcdutl's names and more.
    Json,
    /// `"Name" : value`, a line each.
    Fields,
    /// etcdutl's line and nothing else.
    Simple,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct OutputArgs {
    /// Output format [default: that of ETCDCTL_WRITE_OUT, else table]
    #[arg(short = 'w', long = "write-out", value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
}

impl OutputArgs {
    /// The format that is meant, also by the environment; what etcdctl has beyond ours is no fault.
    pub(crate) fn format(&self) -> Format {
        self.format_with(&crate::connect::environment)
    }

    fn format_with(&self, env: Env<'_>) -> Format {
        let named = || Format::from_str(&variable(env, "WRITE_OUT")?, false).ok();
        self.format.or_else(named).unwrap_or_default()
    }
}

/// How a cluster is reached: etcdctl's flags, with its environment (ETCDCTL_ENDPOINTS and so on;
/// REKINDLE_ENDPOINTS and so on go before them).
#[derive(Debug, Default, ClapArgs)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// Endpoints, separated by commas [default: the manifest's, or 127.0.0.1:2379]
    #[arg(long, value_name = "URLS")]
    pub endpoints: Option<String>,
    /// Use all members that the cluster lists, not only the endpoints given.
    #[arg(long)]
    pub cluster: bool,
    /// Bundle of the authorities that may have signed the servers' certificates.
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Client certificate.
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// USER[:PASSWORD]; the password is asked for where it is missing.
    #[arg(long)]
    pub user: Option<String>,
    /// Password; better given as ETCDCTL_PASSWORD, which no process list shows.
    #[arg(long)]
    pub password: Option<String>,
    /// Do not verify the servers' certificates. Only for tests.
    #[arg(long)]
    pub insecure_skip_tls_verify: bool,
    /// Most time for a connection [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_duration)]
    pub dial_timeout: Option<Duration>,
    /// Most time for a short command [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_duration)]
    pub command_timeout: Option<Duration>,
    /// Most time without a byte from a snapshot [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_duration)]
    pub stall_timeout: Option<Duration>,
    /// Silence after which a server is asked whether it is there [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_duration)]
    pub keepalive_time: Option<Duration>,
    /// Most time for the answer to that [default: 6s]
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_duration)]
    pub keepalive_timeout: Option<Duration>,
    /// Take endpoints and certificates from a static pod manifest; done without asking where no
    /// endpoint is given and kubeadm's manifest is there.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
          default_missing_value = crate::manifest::KUBEADM)]
    pub from_manifest: Option<PathBuf>,
    /// Accepted for etcdctl's sake: the scheme of an endpoint says it.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    pub insecure_transport: Option<Option<bool>>,
    /// Accepted for etcdctl's sake.
    #[arg(long, hide = true)]
    pub debug: bool,
    /// Not supported; named so that the error can say what to do instead.
    #[arg(short = 'd', long, hide = true)]
    pub discovery_srv: Option<String>,
}

/// What [`crate::connect`] reads where a flag is missing.
pub(crate) const ENVIRONMENT: &str = "Environment, where a flag is not given: ETCDCTL_ENDPOINTS, \
    ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY, ETCDCTL_USER, ETCDCTL_PASSWORD, \
    ETCDCTL_INSECURE_SKIP_TLS_VERIFY, ETCDCTL_DIAL_TIMEOUT, ETCDCTL_COMMAND_TIMEOUT, \
    ETCDCTL_STALL_TIMEOUT, ETCDCTL_KEEPALIVE_TIME, ETCDCTL_KEEPALIVE_TIMEOUT, ETCDCTL_WRITE_OUT. \
    The same names with REKINDLE_ go before them.";

/// Save a snapshot of a running cluster to a file, a URL, or into an archive.
///
/// Chooses a healthy member that is not behind (a follower before the leader), verifies the SHA-256
/// while the snapshot streams, checks every page and record, and only then gives the file its name.
#[derive(Debug, ClapArgs)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct SaveArgs {
    /// File or URL to write, or an archive to save a base into. Date patterns such as %Y-%m-%d are
    /// filled in (UTC); a file or object of that name is replaced once the new one is whole.
    #[arg(required_unless_present = "storage_provider")]
    pub target: Option<String>,
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Into an archive: write all records anew, and share none with older restore points, which may be
    /// damaged.
    #[arg(long)]
    pub full: bool,
    /// Save what a member has although the cluster has no quorum: it may be behind.
    #[arg(long)]
    pub without_quorum: bool,
    #[command(flatten)]
    pub keys: WriteKeys,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Say what a snapshot, a stopped member or a base of an archive holds, and check it completely.
///
/// Prints etcdutl's numbers, the checker's verdict, every bucket, and what of it is Kubernetes'.
/// Nothing is ever written. Exit code 3 where something is damaged.
#[derive(Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    /// Snapshot file, db file, data directory of a stopped member, or ARCHIVE[@POINT].
    #[arg(required_unless_present = "storage_provider")]
    pub source: Option<PathBuf>,
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Also compare the SHA-256 at the end of a snapshot (reads every byte once more). Nothing else
    /// proves the bytes of values.
    #[arg(long)]
    pub verify_hash: bool,
    /// The member's WAL directory, where it is not below its data directory.
    #[arg(long, value_name = "DIR")]
    pub wal_dir: Option<PathBuf>,
    #[command(flatten)]
    pub keys: ReadKeys,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Compute HashKV of a snapshot, a stopped member or a base of an archive, as etcd would answer it.
///
/// Compare it with `etcdctl endpoint hashkv`: equal revision and equal compact revision mean equal
/// keyspaces. Nothing is ever written (etcdutl's own hashkv changes its input).
#[derive(Debug, ClapArgs)]
pub(crate) struct HashkvArgs {
    /// Snapshot file, db file, data directory of a stopped member, or ARCHIVE[@POINT].
    #[arg(required_unless_present = "storage_provider")]
    pub source: Option<PathBuf>,
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Hash up to this revision; 0: the latest.
    #[arg(long, default_value_t = 0, value_name = "REVISION")]
    pub rev: i64,
    /// Hash as if compacted at this revision; default: the source's own compaction.
    #[arg(long, value_name = "REVISION")]
    pub compact_rev: Option<i64>,
    /// Hash a tombstone exactly at the compact revision, as etcd before 3.4.34 and 3.5.16 does.
    #[arg(long)]
    pub old_tombstone_rule: bool,
    #[command(flatten)]
    pub keys: ReadKeys,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Make data directories for a new cluster out of a snapshot or a stopped member.
///
/// Builds beside what is there, checks everything, and only then exchanges; what was there is set
/// aside as <data-dir>.before-<time> and never deleted. The database comes out defragmented.
#[derive(Debug, ClapArgs)]
pub(crate) struct RestoreArgs {
    /// Snapshot file, db file, data directory of a stopped member, or ARCHIVE[@POINT].
    #[arg(required_unless_present_any = ["rollback", "resume", "storage_provider"])]
    pub source: Option<PathBuf>,
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Name of this member [default: default]
    #[arg(long)]
    pub name: Option<String>,
    /// All members as NAME=PEER-URL,... [default: <name>=<initial-advertise-peer-urls>]
    #[arg(long, value_name = "MEMBERS")]
    pub initial_cluster: Option<String>,
    /// Token that goes into the ids of members and cluster; the same on every host
    /// [default: rekindle-<hash of source, revision and initial cluster>]
    #[arg(long, value_name = "TOKEN")]
    pub initial_cluster_token: Option<String>,
    /// Peer URLs of this member [default: those in --initial-cluster, or http://localhost:2380]
    #[arg(long, value_name = "URLS")]
    pub initial_advertise_peer_urls: Option<String>,
    /// Data directory to make [default: <name>.etcd]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// WAL directory [default: <data-dir>/member/wal]
    #[arg(long, value_name = "DIR")]
    pub wal_dir: Option<PathBuf>,
    /// Make the data directories of all members, DIR/<name> each, from one read.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["name", "data_dir", "wal_dir", "initial_advertise_peer_urls"])]
    pub members: Option<PathBuf>,
    /// Take name, URLs and directories from a static pod manifest.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
          default_missing_value = crate::manifest::KUBEADM)]
    pub from_manifest: Option<PathBuf>,
    /// Do not compare the SHA-256 (a db file copied out of a data directory has none).
    #[arg(long)]
    pub skip_hash_check: bool,
    /// Raise the revision by this much, with --mark-compacted [default: 1000000000 where the
    /// keyspace is Kubernetes', else 0]
    #[arg(long, value_name = "AMOUNT")]
    pub bump_revision: Option<u64>,
    /// Mark everything before the raised revision as compacted, so that watches start anew.
    #[arg(long)]
    pub mark_compacted: bool,
    /// Quota that etcd will run with, in bytes: a NOSPACE alarm is cleared where the database fits.
    #[arg(long, value_name = "BYTES")]
    pub quota_backend_bytes: Option<u64>,
    /// Restore although something answers at the peer URLs.
    #[arg(long)]
    pub allow_live_peers: bool,
    /// Try although the file system may be too small: where it is, nothing changes.
    #[arg(long)]
    pub allow_little_space: bool,
    /// The WAL directory of a source that is a data directory, where it is not below it.
    #[arg(long, value_name = "DIR")]
    pub source_wal_dir: Option<PathBuf>,
    #[command(flatten)]
    pub point: PointArgs,
    /// Whose users, roles and passwords come back, where those of the point could give anybody rights that he
    /// has no more by the newest base of the archive: of the point, or the latest.
    #[arg(long, value_name = "WHICH", value_enum)]
    pub accept_auth_from: Option<AuthFrom>,
    /// What becomes of leases and of the keys that hang on them.
    #[arg(long, value_name = "FATE", value_enum, default_value_t)]
    pub leases: LeasesArg,
    /// Print the plan and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before an existing data directory is set aside.
    #[arg(long)]
    pub yes: bool,
    /// Bring back what the last restore has set aside.
    #[arg(long, conflicts_with_all = ["source", "resume", "members"])]
    pub rollback: bool,
    /// Go on with a restore that was interrupted while it exchanged directories.
    #[arg(long, conflicts_with_all = ["source", "members"])]
    pub resume: bool,
    #[command(flatten)]
    pub keys: ReadKeys,
    /// Accepted for etcdutl's sake; memory is not mapped here.
    #[arg(long, hide = true, value_name = "BYTES")]
    pub initial_memory_map_size: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_format_comes_from_the_environment_too() {
        let format = |flag: Option<Format>, value: &str| {
            let env = |name: &str| (name == "ETCDCTL_WRITE_OUT").then(|| value.to_owned());
            OutputArgs { format: flag }.format_with(&env)
        };
        assert_eq!(format(None, "json"), Format::Json);
        assert_eq!(format(Some(Format::Fields), "json"), Format::Fields);
        // etcdctl's own.
        assert_eq!(format(None, "protobuf"), Format::Table);
        assert_eq!(OutputArgs { format: None }.format_with(&|_| None), Format::Table);
    }

    #[test]
    fn the_help_of_save_names_every_variable() {
        let mut command = Args::command();
        let help = command.find_subcommand_mut("save").unwrap().render_help().to_string();
        let (source, _tests) = include_str!("connect.rs").split_once("#[cfg(test)]").unwrap();
        let quoted = source.split('"').filter(|text| {
            text.len() > 2
                && text.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
        });
        let names: Vec<_> = quoted.filter(|name| *name != "DISCOVERY_SRV").collect();
        assert!(names.len() >= 12, "{names:?}");
        for name in names {
            assert!(help.contains(&format!("ETCDCTL_{name}")), "{name} in {help}");
        }
    }
}
