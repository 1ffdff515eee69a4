//! The configuration of an agent: what it guards, where backups go, and when.
//!
//! One YAML file. What it says is checked as a whole before anything is done, and every fault is named with
//! its place. `docs/configuration.md` is made from what is written here.

mod check;
mod load;
mod reference;
mod units;

pub use load::Fault;
pub use reference::{reference, schema};
pub use units::{Bytes, Period, Secret, date_in, fill_pattern, parse_bytes, parse_duration};

use rekindle_archive::format::Fingerprint;
use rekindle_archive::{Place, Policy, Retention, RetentionMode, StoreOptions};
use rekindle_client::{Credentials, TlsFiles};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What an agent guards, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Where this host remembers what it has to: journals, records, a copy of this file, and the keys of archives that it
    /// has seen. Not on etcd's own disk.
    #[serde(default = "default_state")]
    pub state: PathBuf,
    /// Address for metrics; without a host it is this machine only, and `off` is none.
    #[serde(default = "default_listen")]
    pub listen: String,
    /// The clusters.
    pub clusters: Vec<Cluster>,
    /// When somebody is to be told.
    #[serde(default)]
    pub alarms: Alarms,
    /// Who is told, by HTTP.
    #[serde(default)]
    pub webhooks: Vec<Webhook>,
    /// What is asked while all is well: whoever is not asked any more raises the alarm.
    pub heartbeat: Option<Heartbeat>,
    /// How long records of what was done are kept; of each job the last that was done is, whatever its age.
    #[serde(default = "days::<31>")]
    pub keep_records: Period,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// What it is called, in metrics and records: lower-case letters, digits and hyphens.
    pub name: String,
    /// Where it is asked, such as `https://10.0.0.1:2379`; other members are found by themselves. Without any it
    /// is the `manifest` that says it.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// Static pod manifest of an etcd of this host, for endpoints and certificates that are not given.
    pub manifest: Option<PathBuf>,
    /// Bundle of the authorities that may have signed the servers' certificates.
    pub cacert: Option<PathBuf>,
    /// Client certificate.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// User, where the cluster asks for one.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// Nothing of it is done by schedule while this says why.
    pub paused: Option<String>,
    /// The etcd member of this host, where commands are to stop, replace or recover it; a `manifest` says it, too.
    pub member: Option<LocalMember>,
    /// How its members are looked at.
    #[serde(default)]
    pub check: Check,
    /// Its archives. The first one also keeps agents from doing a job twice.
    #[serde(default)]
    pub archives: Vec<Archive>,
    /// How it is followed into them.
    #[serde(default)]
    pub capture: Capture,
    /// Plain snapshots, as etcd's own tools read them.
    #[serde(default)]
    pub snapshots: Vec<Snapshots>,
    /// Members whose files are mostly empty are defragmented, one after the other, the leader last, while all are well.
    pub defragment: Option<Defragment>,
}

/// Looking at members.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    /// Look at them.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// So often.
    #[serde(default = "seconds::<30>")]
    pub every: Period,
    /// What is wrong is believed once it was seen so often in a row.
    #[serde(default = "thrice")]
    pub fails_after: u32,
    /// And it is over once it was not seen so often in a row.
    #[serde(default = "twice")]
    pub well_after: u32,
    /// Start the etcd of this host's `member` again where it has crashed, and replace it where its data are gone or damaged,
    /// unasked, while the others serve: one in an hour.
    #[serde(default)]
    pub repair: bool,
}

impl Default for Check {
    fn default() -> Self {
        let (every, fails_after, well_after) = (seconds::<30>(), thrice(), twice());
        Self { enabled: true, every, fails_after, well_after, repair: false }
    }
}

/// The etcd member of a host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalMember {
    /// Its name, as etcd has it.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its log, where that has a directory of its own.
    pub wal_dir: Option<PathBuf>,
    /// Unit of systemd that runs it.
    pub unit: Option<String>,
    /// Command of your own that starts it, for a shell: what it is to be is in `ETCD_INITIAL_CLUSTER` and the like.
    pub start: Option<String>,
    /// Command of your own that stops it, and keeps whatever starts it anew from that.
    pub stop: Option<String>,
}

/// An archive, and what is done with it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Archive {
    /// What it is called, in metrics and records, where there are several.
    #[serde(default = "main_name")]
    pub name: String,
    /// A directory or a URL such as `s3://BUCKET/PREFIX`, made with `rekindle archive init`.
    pub place: String,
    /// How its store is reached.
    #[serde(default)]
    pub store: Store,
    /// Identity files of an owner: what verifies or prunes an encrypted archive needs one. Keep one elsewhere.
    #[serde(default)]
    pub identities: Vec<PathBuf>,
    /// Signing key file, where the archive takes only what is signed.
    pub signing_key: Option<PathBuf>,
    /// What the archive's keys must be, as `rekindle archive init` has printed it; else what they were the first time.
    #[schemars(with = "Option<String>")]
    #[serde(default, deserialize_with = "fingerprint")]
    pub fingerprint: Option<Fingerprint>,
    /// Old restore points go; without this all stay for ever.
    pub prune: Option<Prune>,
    /// What is stored is read and compared.
    pub verify: Option<Verify>,
    /// The newest point, and another by chance, are restored into a throwaway etcd.
    pub drill: Option<Drill>,
    /// Certificates, manifests and configuration of each agent's host, when they change; the archive must be encrypted.
    pub host_files: Option<HostFiles>,
}

/// How an object store is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Store {
    /// Where it is, if not at its provider's, such as `https://minio:9000`.
    pub endpoint_url: Option<String>,
    /// Region of the bucket.
    pub region: Option<String>,
    /// Ask for BUCKET.HOST instead of HOST/BUCKET.
    #[serde(default)]
    pub virtual_host_style: bool,
    /// Bundle of authorities that may have signed its certificate, too.
    pub ca: Option<PathBuf>,
    /// Most bytes a second to and from it.
    pub bandwidth: Option<Bytes>,
    /// Lock what is created for so long: nobody can remove it before.
    pub object_lock: Option<Period>,
    /// Whether who has the right to may lift such a lock, or nobody can.
    #[serde(default)]
    pub object_lock_mode: LockMode,
    /// Variables of its provider, such as `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. Any of a provider's takes the
    /// place of all of that provider's in the environment.
    #[serde(default)]
    pub variables: BTreeMap<String, Secret>,
}

/// How objects are locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LockMode {
    /// Who has the right to may lift it.
    Governance,
    /// Nobody can.
    #[default]
    Compliance,
}

/// Following a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capture {
    /// Follow it; without archives there is nothing to follow it into.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Write what has come so often: what came since is what a disaster costs.
    #[serde(default = "seconds::<5>")]
    pub flush_interval: Period,
    /// When bases are made: a restore reads one, and what came since.
    #[serde(default = "hourly")]
    pub bases: String,
    /// Zone of that cron.
    pub time_zone: Option<String>,
    /// Ask members for their HashKV so often; 0 for never.
    #[serde(default = "seconds::<3600>")]
    pub witness_interval: Period,
    /// Most bytes of the journal on this host.
    #[serde(default = "journal")]
    pub journal: Bytes,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            enabled: true,
            flush_interval: seconds::<5>(),
            bases: hourly(),
            time_zone: None,
            witness_interval: seconds::<3600>(),
            journal: journal(),
        }
    }
}

/// Snapshots on a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshots {
    /// What the job is called, in metrics and records.
    pub name: String,
    /// When.
    pub schedule: String,
    /// Zone of the cron.
    pub time_zone: Option<String>,
    /// It begins up to so much later, each job at another time.
    #[serde(default = "seconds::<0>")]
    pub jitter: Period,
    /// Files or URLs, each written by itself, in this order. Date patterns such as `%Y%m%dT%H%M%SZ` are filled in, in UTC.
    pub to: Vec<String>,
    /// How the stores of URLs are reached.
    #[serde(default)]
    pub store: Store,
    /// Which of the dated ones stay; without rules all do.
    #[serde(default)]
    pub keep: Keep,
}

/// Which backups stay: those that any rule keeps, less those that `ttl` and `maxBackups` take away. The newest always
/// stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Keep {
    /// Of an archive: the log of so long, and the base on which it stands.
    pub log: Option<Period>,
    /// All that are so young.
    pub within: Option<Period>,
    /// The newest of each of so many hours.
    #[serde(default)]
    pub hourly: usize,
    /// Of so many days, in UTC.
    #[serde(default)]
    pub daily: usize,
    /// Of so many weeks.
    #[serde(default)]
    pub weekly: usize,
    /// Of so many months.
    #[serde(default)]
    pub monthly: usize,
    /// So many of the newest.
    #[serde(default)]
    pub last: usize,
    /// None that is older, in seconds.
    pub ttl: Option<u64>,
    /// No more than so many.
    pub max_backups: Option<usize>,
}

impl Keep {
    /// What is kept where `prune` has no rules of its own.
    #[must_use]
    pub fn usual() -> Self {
        Self { log: Some(days::<7>()), daily: 7, weekly: 4, monthly: 6, ..Self::default() }
    }

    /// No rule is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As archives know it.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Policy {
            log: self.log.map(|it| ms(it.0)),
            within: self.within.map(|it| ms(it.0)),
            last: self.last,
            hourly: self.hourly,
            daily: self.daily,
            weekly: self.weekly,
            monthly: self.monthly,
            ttl: self.ttl.map(|seconds| ms(Duration::from_secs(seconds))),
            max_bases: self.max_backups,
        }
    }
}

/// Pruning an archive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Prune {
    /// When.
    #[serde(default = "nightly")]
    pub schedule: String,
    /// Zone of the cron.
    pub time_zone: Option<String>,
    /// What stays; without it the log of 7 days, and of 7 days, 4 weeks and 6 months one base each.
    #[serde(default = "Keep::usual")]
    pub keep: Keep,
}

/// Verifying an archive.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verify {
    /// When.
    #[serde(default = "weekly")]
    pub schedule: String,
    /// Zone of the cron.
    pub time_zone: Option<String>,
    /// How thoroughly.
    #[serde(default)]
    pub level: VerifyLevel,
}

/// Drills.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drill {
    /// When.
    #[serde(default = "early")]
    pub schedule: String,
    /// Zone of the cron.
    pub time_zone: Option<String>,
    /// The etcd to start, of the cluster's version; without it that in `PATH`. Where there is none, none is started: what was
    /// restored is checked, its HashKV is compared, and its record says so.
    pub etcd: Option<PathBuf>,
    /// Prefixes of which there must be keys, or at least so many: `PREFIX` or `PREFIX=COUNT`. They need an etcd.
    #[serde(default)]
    pub probes: Vec<String>,
    /// It is a failure when one takes longer.
    pub within: Option<Period>,
}

/// Defragmenting members.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Defragment {
    /// When is looked whether it is worth it.
    #[serde(default = "deep_night")]
    pub schedule: String,
    /// Zone of the cron.
    pub time_zone: Option<String>,
    /// Only where so many bytes of a file are free.
    #[serde(default = "hundred_mib")]
    pub free_bytes: Bytes,
    /// And only where that is so much of it, in percent.
    #[serde(default = "nearly_half")]
    pub free_percent: u64,
}

/// Files of the host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostFiles {
    /// When is looked whether they have changed.
    #[serde(default = "quarterly")]
    pub schedule: String,
    /// Zone of the cron.
    pub time_zone: Option<String>,
    /// What this host is called in the archive; without it by its own name.
    pub host: Option<String>,
    /// Whole paths of files and directories; without any what kubeadm, the kubelet and etcd have, as far as it is there, and the
    /// keys with which Kubernetes encrypts at rest.
    #[serde(default)]
    pub paths: Vec<PathBuf>,
}

/// How thoroughly an archive is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum VerifyLevel {
    /// Every object that a restore point needs is there.
    Listed,
    /// Every byte is read and compared with its digests.
    Read,
    /// Each keyspace is put together, and its HashKV compared.
    #[default]
    Proven,
}

impl VerifyLevel {
    /// As the command line names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Read => "read",
            Self::Proven => "proven",
        }
    }
}

/// When an alarm is raised.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Alarms {
    /// An archive has not what the cluster had so long ago.
    #[serde(default = "seconds::<300>")]
    pub behind: Period,
    /// A job has not succeeded for so many times its period.
    #[serde(default = "twice")]
    pub missed_runs: u32,
    /// A certificate among the files of a host expires within this time; it is urgent within a quarter of that.
    #[serde(default = "days::<28>")]
    pub expiry: Period,
    /// An alarm that goes on is told again so often.
    #[serde(default = "days::<1>")]
    pub repeat: Period,
}

impl Default for Alarms {
    fn default() -> Self {
        Self {
            behind: seconds::<300>(),
            missed_runs: twice(),
            expiry: days::<28>(),
            repeat: days::<1>(),
        }
    }
}

/// Somebody who is told of alarms.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhook {
    /// Where: it is told by POST.
    pub url: Secret,
    /// How it wants to be told.
    #[serde(default)]
    pub format: WebhookFormat,
    /// Headers, such as `Authorization`.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
}

/// How alarms are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WebhookFormat {
    /// One object: `status` (firing or resolved), `name`, `severity`, `cluster`, `subject`, `summary`, `remedy`, `since`.
    #[default]
    Json,
    /// A list of alerts, as Alertmanager's `/api/v2/alerts` takes it.
    Alertmanager,
    /// `text` with a line, as Slack, Mattermost and others take it.
    Text,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Heartbeat {
    /// Where: it is asked by GET while no critical alarm goes on.
    pub url: Secret,
    /// So often.
    #[serde(default = "seconds::<60>")]
    pub every: Period,
}

fn default_state() -> PathBuf {
    PathBuf::from("/var/lib/rekindle")
}

fn default_listen() -> String {
    "127.0.0.1:8379".to_owned()
}

fn main_name() -> String {
    "main".to_owned()
}

fn yes() -> bool {
    true
}

fn seconds<const N: u64>() -> Period {
    Period(Duration::from_secs(N))
}

fn days<const N: u64>() -> Period {
    Period(Duration::from_secs(N * 86_400))
}

fn twice() -> u32 {
    2
}

fn thrice() -> u32 {
    3
}

fn journal() -> Bytes {
    Bytes(NonZeroU64::MIN.saturating_add((2 << 30) - 1))
}

fn hourly() -> String {
    "@every 1h".to_owned()
}

fn quarterly() -> String {
    "@every 15m".to_owned()
}

fn deep_night() -> String {
    "23 2 * * *".to_owned()
}

fn hundred_mib() -> Bytes {
    Bytes(NonZeroU64::MIN.saturating_add((100 << 20) - 1))
}

fn nearly_half() -> u64 {
    45
}

fn nightly() -> String {
    "17 3 * * *".to_owned()
}

fn early() -> String {
    "29 5 * * *".to_owned()
}

fn weekly() -> String {
    "41 4 * * 0".to_owned()
}

fn fingerprint<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Fingerprint>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let parsed = Fingerprint::parse(&text).map(Some);
    parsed.ok_or_else(|| serde::de::Error::custom("a fingerprint has 64 hexadecimal digits"))
}

/// Reads a variable of the environment.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Where metrics are served, if anywhere.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn listen(&self) -> Result<Option<SocketAddr>, String> {
        if self.listen == "off" {
            return Ok(None);
        }
        let text = match self.listen.strip_prefix(':') {
            Some(port) => format!("127.0.0.1:{port}"),
            None => self.listen.clone(),
        };
        text.parse().map(Some).map_err(|_| {
            format!("\"{}\" is no address such as 127.0.0.1:8379, and not off", self.listen)
        })
    }

    /// The cluster with a name; the only one where none is named.
    #[must_use]
    pub fn cluster(&self, name: Option<&str>) -> Option<&Cluster> {
        match (name, &self.clusters[..]) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(name), clusters) => clusters.iter().find(|cluster| cluster.name == name),
        }
    }

    /// What this host remembers of a cluster.
    #[must_use]
    pub fn state_of(&self, cluster: &Cluster) -> PathBuf {
        self.state.join("clusters").join(&cluster.name)
    }

    /// Whether secrets are written in it.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        let headers = self.webhooks.iter().flat_map(|webhook| webhook.headers.values());
        let passwords = self.clusters.iter().filter_map(|cluster| cluster.password.as_ref());
        let archives = self.clusters.iter().flat_map(|it| &it.archives).map(|it| &it.store);
        let snapshots = self.clusters.iter().flat_map(|it| &it.snapshots).map(|it| &it.store);
        let variables = archives.chain(snapshots).flat_map(|store| store.variables.values());
        headers.chain(passwords).chain(variables).any(|secret| secret.literal().is_some())
    }

    /// Where snapshots of a cluster lie on their way, its journal, and what is known of archives' keys.
    #[must_use]
    pub fn spool_of(&self, cluster: &Cluster) -> PathBuf {
        self.state_of(cluster).join("spool")
    }
}

impl Cluster {
    /// Whether it is followed, revision by revision.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.capture.enabled && !self.archives.is_empty()
    }

    /// The files for TLS, where there are any.
    #[must_use]
    pub fn tls(&self) -> Option<TlsFiles> {
        let tls = TlsFiles {
            ca_cert: self.cacert.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            insecure_skip_verify: false,
        };
        (tls.ca_cert.is_some() || tls.cert.is_some() || tls.key.is_some()).then_some(tls)
    }

    /// Who asks it.
    ///
    /// # Errors
    /// The password cannot be had.
    pub fn credentials(&self, env: Env<'_>) -> Result<Option<Credentials>, String> {
        let Some(user) = &self.user else { return Ok(None) };
        let password = self.password.as_ref().map(|secret| secret.reveal(env)).transpose();
        let password = password.map_err(|fault| format!("password of {user}: {fault}"))?;
        Credentials::from_flags(user, password.as_deref())
            .map(Some)
            .map_err(|error| error.to_string())
    }

    /// The archive at a place.
    #[must_use]
    pub fn archive(&self, place: &str) -> Option<&Archive> {
        self.archives.iter().find(|archive| is_same(&archive.place, place))
    }

    /// How the store at a place is reached: that of the archive there, or of snapshots that go there.
    #[must_use]
    pub fn store_of(&self, place: &str) -> Option<&Store> {
        let of_archive = self.archive(place).map(|archive| &archive.store);
        let folder = |to: &String| {
            to.split_once("://").map(|(scheme, rest)| {
                let bucket = rest.split('/').next().unwrap_or_default();
                format!("{scheme}://{bucket}")
            })
        };
        let goes_there = |job: &&Snapshots| {
            let mut buckets = job.to.iter().filter_map(folder);
            buckets.any(|bucket| place == bucket || place.starts_with(&format!("{bucket}/")))
        };
        of_archive.or_else(|| self.snapshots.iter().find(goes_there).map(|job| &job.store))
    }
}

/// Whether two texts name one place.
fn is_same(one: &str, other: &str) -> bool {
    let whole =
        |text: &str| Place::parse(text).map_or_else(|_| text.to_owned(), |it| it.to_string());
    one == other || whole(one) == whole(other)
}

impl Store {
    /// As stores are opened with it, in an environment.
    ///
    /// # Errors
    /// A secret or a file cannot be had.
    pub fn options(
        &self,
        mut environment: BTreeMap<String, String>,
    ) -> Result<StoreOptions, String> {
        let provider = |name: &str| name.split('_').next().unwrap_or_default().to_owned();
        let own: Vec<_> = self.variables.keys().map(|name| provider(name)).collect();
        let mut variables = BTreeMap::new();
        for (name, secret) in &self.variables {
            let value = secret.reveal(&|name| environment.get(name).cloned());
            variables.insert(name.clone(), value.map_err(|fault| format!("{name}: {fault}"))?);
        }
        environment.retain(|name, _| !own.contains(&provider(name)));
        environment.append(&mut variables);
        let mode = match self.object_lock_mode {
            LockMode::Governance => RetentionMode::Governance,
            LockMode::Compliance => RetentionMode::Compliance,
        };
        Ok(StoreOptions {
            endpoint_url: self.endpoint_url.clone(),
            region: self.region.clone(),
            virtual_host_style: self.virtual_host_style,
            ca: self.ca.as_deref().map(read).transpose()?,
            bandwidth: self.bandwidth.map(|it| it.0),
            retention: self.object_lock.map(|period| Retention { mode, period: period.0 }),
            variables: environment,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("reading {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(yaml: &str) -> Cluster {
        let head = "clusters:\n- name: a\n  endpoints: [127.0.0.1:2379]\n";
        Config::parse(&format!("{head}{yaml}")).unwrap().clusters.remove(0)
    }

    #[test]
    fn a_store_has_credentials_of_its_own() {
        let cluster = cluster(
            "  archives:
  - place: s3://bucket/etcd
    store: {endpointUrl: 'http://minio', variables: {AWS_ACCESS_KEY_ID: '${KEY}'}}
  snapshots:
  - {name: s, schedule: '@daily', to: ['s3://other/a/%Y.db'], store: {region: there}}
",
        );
        let environment = [("KEY", "k"), ("AWS_SESSION_TOKEN", "of another"), ("AZURE_X", "x")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = BTreeMap::from(environment);
        let store = cluster.store_of("s3://bucket/etcd").unwrap();
        let options = store.options(environment.clone()).unwrap();
        assert_eq!(options.endpoint_url.as_deref(), Some("http://minio"));
        assert_eq!(options.variables["AWS_ACCESS_KEY_ID"], "k");
        assert!(!options.variables.contains_key("AWS_SESSION_TOKEN"));
        assert_eq!(options.variables["AZURE_X"], "x");
        let missing = store.options(BTreeMap::new()).unwrap_err();
        assert_eq!(missing, "AWS_ACCESS_KEY_ID: the environment has no variable KEY");
        let of_snapshots = cluster.store_of("s3://other/a/2026.db").unwrap();
        assert_eq!(of_snapshots.region.as_deref(), Some("there"));
        assert!(cluster.store_of("s3://others/a").is_none());
    }

    #[test]
    fn nothing_is_kept_by_no_rule() {
        assert!(Keep::default().is_empty() && !Keep::usual().is_empty());
        let policy = Keep { ttl: Some(3600), ..Keep::default() }.policy();
        assert_eq!(policy, Policy { ttl: Some(3_600_000), ..Policy::default() });
        assert_eq!(Keep::usual().policy().log, Some(7 * 86_400_000));
    }
}
