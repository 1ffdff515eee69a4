//! What a restored cluster is asked.

use crate::command::database;
use crate::sources::{DELETED, KEYS, LEASED, READER, Source, revision_of};
use rekindle_client::{
    Client, Config, Credentials, Error, Event, EventType, Keys, WatchMessage, WatchRequest,
};
use rekindle_testkit::etcd::{Cluster, Member, ROOT_PASSWORD, ROOT_USER, Sites, etcdutl};
use rekindle_testkit::{Version, oracle};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// A lease runs out within seconds, unless the machine is busy.
const EXPIRES_WITHIN: Duration = Duration::from_secs(60);

/// A HashKV as a server tells it: comparable with another of the same revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    pub hash: u64,
    pub compact_revision: i64,
}

/// What a member alone answers etcdctl: a token that it gives is not at once known to the others,
/// and not every call of every etcdctl asks for another then.
pub fn ask(cluster: &Cluster, member: &Member, args: &[&str]) -> String {
    let output = cluster.etcdctl_for(member).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The same of the first member, as JSON.
pub fn ask_json(cluster: &Cluster, args: &[&str]) -> Value {
    let args = [&["-w", "json"], args].concat();
    serde_json::from_str(&ask(cluster, cluster.member(0), &args)).unwrap()
}

/// Every member's hash of a revision.
pub fn hashes(cluster: &Cluster, revision: i64) -> Vec<KvHash> {
    let revision = format!("--rev={revision}");
    let hash = |member| {
        let answer = ask(cluster, member, &["endpoint", "hashkv", &revision, "-w", "json"]);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let answer = &answer[0]["HashKV"];
        KvHash {
            hash: answer["hash"].as_u64().unwrap(),
            compact_revision: answer["compact_revision"].as_i64().unwrap(),
        }
    };
    cluster.members().iter().map(hash).collect()
}

/// Starts what was restored from a [`Source::of`] a version, and asks it everything. `plans` is
/// what the restores have printed.
pub fn check(version: Version, sites: Sites, source: &Source, plans: &[String]) {
    check_databases(version, &sites, source.revision);
    let cluster = Cluster::with(version).on(sites).auth_is_on().start();
    check_members(&cluster, plans);
    let members = cluster.members().len();
    assert_eq!(hashes(&cluster, source.revision), vec![source.hash; members], "{version}");
    let put = ask_json(&cluster, &["put", "written", "after the restore"]);
    let beyond = revision_of(&put) - source.revision;
    // The lease may have run out before.
    assert!((1..=2).contains(&beyond), "{version}: {beyond} revisions after the source's");
    check_keys(&cluster, source);
    check_users(&cluster);
    check_lease_expires(&cluster, source);
    // The log that the restore has begun and etcd has gone on with is read as one.
    cluster.member(0).kill();
    cluster.member(0).start();
    check_keys(&cluster, source);
}

/// bbolt's checker accepts every member's database, and etcd's own tool reads it.
pub fn check_databases(version: Version, sites: &Sites, revision: i64) {
    let databases: Vec<PathBuf> = sites.iter().map(|site| database(site.data_dir())).collect();
    for answer in oracle::check(databases.iter().map(PathBuf::as_path)) {
        assert_eq!(answer.verdict, Ok(()));
    }
    for database in &databases {
        let database = database.to_str().unwrap();
        let status = etcdutl(version, ["snapshot", "status", "-w", "json", database]);
        let status: Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["revision"], revision, "{version}: {status}");
    }
}

/// The cluster has the sites' members and no other, with the ids that every restore has announced.
pub fn check_members(cluster: &Cluster, plans: &[String]) {
    let list = ask(cluster, cluster.member(0), &["member", "list"]);
    let mut found = Vec::new();
    for line in list.lines() {
        let [id, "started", name, peer_url, client_url, "false"] =
            line.split(", ").collect::<Vec<_>>()[..]
        else {
            panic!("a voter that has started, not {line}");
        };
        let announced = format!("{id} {name} {peer_url}");
        assert!(plans.iter().all(|plan| plan.contains(&announced)), "{announced}: {plans:?}");
        found.push([name, peer_url, client_url].map(str::to_owned));
    }
    found.sort();
    let sites = cluster.sites().iter();
    let wanted: Vec<_> =
        sites.map(|site| [site.name().to_owned(), site.peer_url(), site.client_url()]).collect();
    assert_eq!(found, wanted);
}

/// Every member has what the source had, and what was written since.
fn check_keys(cluster: &Cluster, source: &Source) {
    let revision = format!("--rev={}", source.revision);
    for member in cluster.members() {
        let get = |key: &str, more: &[&str]| {
            ask(cluster, member, &[&["get", "--print-value-only", key], more].concat())
        };
        assert_eq!(get("written", &[]), "after the restore\n");
        assert_eq!(get(&format!("{KEYS}05"), &[]), "anew\n");
        assert_eq!(get(DELETED, &[]), "");
        assert_eq!(get(LEASED, &[&revision]), "alive\n");
    }
}

/// Users have the passwords and the rights that they had.
fn check_users(cluster: &Cluster) {
    let member = cluster.member(0);
    let refused = |user: &str, args: &[&str]| {
        let mut command = cluster.etcdctl_for(member);
        let output = command.arg(format!("--user={user}")).args(args).output().unwrap();
        assert!(!output.status.success(), "{user} {args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let wrong = refused(&format!("{ROOT_USER}:not-{ROOT_PASSWORD}"), &["get", "written"]);
    assert!(wrong.contains("authentication failed, invalid user ID or password"), "{wrong}");
    let denied = refused(READER, &["put", "key-00", "mine"]);
    assert!(denied.contains("permission denied"), "{denied}");
    let reader = format!("--user={READER}");
    assert_eq!(ask(cluster, member, &[&reader, "get", "key-06"]), "key-06\nagain\n");
}

/// The leased key goes away by itself.
fn check_lease_expires(cluster: &Cluster, source: &Source) {
    let request = WatchRequest::from_revision(source.revision + 1).keys(Keys::one(LEASED));
    let message = first_message(cluster, request).unwrap();
    let Some(WatchMessage::Changes(changes)) = &message else {
        panic!("the lease has not run out within {EXPIRES_WITHIN:?}: {message:?}");
    };
    let events: Vec<_> = changes.events.iter().map(Event::r#type).collect();
    assert_eq!(events, [EventType::Delete]);
}

/// The first message of a watch through the first member; none where none comes.
pub fn first_message(
    cluster: &Cluster,
    request: WatchRequest,
) -> Result<Option<WatchMessage>, Error> {
    let mut config = Config::new([cluster.member(0).client_url()]);
    config.credentials = Some(Credentials::new(ROOT_USER, ROOT_PASSWORD));
    let client = Client::new(config)?;
    wait_for(async {
        let mut watch = client.watch(request).await?;
        watch.next(EXPIRES_WITHIN).await
    })
}

/// Runs a call of the client to its end.
pub fn wait_for<T>(call: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(call)
}
