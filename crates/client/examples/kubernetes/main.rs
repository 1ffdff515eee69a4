//! The load of a Kubernetes cluster on its etcd, a minute at a call; the same calls write the same.
//!
//! `cargo run --release -p rekindle-client --example kubernetes -- ENDPOINT NODES MINUTE [RECORDS]`
//!
//! Minute 0 fills an empty etcd with a cluster at rest; 1, 2, 3, … do what that minute brings, as fast
//! as etcd takes it. What is modelled (each change a request and a revision of its own, as the API
//! server makes them; 16 are under way at a time, so neighbours may change places):
//!
//! - 20 pods a node, 10 pods a replica set, each with a deployment, an endpoint slice and a secret.
//! - Each node renews its lease every 10 s, and writes its status of some 8 KB every 5 minutes.
//! - Three controllers hold a leader's lease, and renew it every 2 s.
//! - Of 500 pods one is replaced each minute: the old one is marked and deleted, the new one created,
//!   bound and told of as it starts; six events, and its slice and its replica set twice each.
//! - Of 200 pods one crashes again and again: every 5 minutes its status changes, and an event counts.
//! - Events go an hour after they came.
//! - Every 5 minutes the history up to 5 minutes ago is compacted, by the key that API servers use.
//!
//! Values have the form and the sizes of Kubernetes' protobuf, with the same texts again and again, and
//! what is random in reality (uids, names, addresses, digests, keys) random.
//!
//! `RECORDS`: a file to which each record is appended as etcd stores it, 4 bytes of length before it;
//! its revisions are reckoned. With `-` for an endpoint nothing else is done.

mod objects;

use std::cell::Cell;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::rc::Rc;
use std::time::Duration;

use objects::{Message, hash};
use rekindle_client::{Client, Compaction, Config, Keys, Put, Range};
use tokio::task::{JoinSet, LocalSet};

const PODS_PER_NODE: u64 = 20;
const PODS_PER_SET: u64 = 10;
/// Of so many pods one is replaced each minute.
const REPLACED: u64 = 500;
/// Of so many pods one crashes again and again.
const CRASHING: u64 = 200;
/// Minutes that an event stays.
const EVENT_STAYS: i64 = 60;
/// Minutes between two compactions, and between two statuses of a node.
const PERIOD: i64 = 5;
/// Parts of a minute: leases are renewed in each.
const TICKS: u64 = 6;
const LEADERS: [&str; 3] =
    ["kube-controller-manager", "kube-scheduler", "cloud-controller-manager"];
const RENEWALS_PER_TICK: u64 = 5;

/// Where API servers keep the revision that they compact next.
const COMPACT_KEY: &str = "compact_rev_key";

/// Requests under way at a time.
const AT_A_TIME: usize = 16;
/// A server under such load may take long for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

type Failure = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    LocalSet::new().run_until(run()).await
}

async fn run() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (endpoint, nodes, minute, records) = match &args[..] {
        [endpoint, nodes, minute] => (endpoint, nodes, minute, None),
        [endpoint, nodes, minute, records] => (endpoint, nodes, minute, Some(records)),
        _ => return Err("usage: kubernetes ENDPOINT NODES MINUTE [RECORDS]".into()),
    };
    let (cluster, minute) = (Cluster { nodes: nodes.parse()? }, minute.parse::<i64>()?);
    let changes = match minute {
        0 => cluster.at_rest(),
        minute => (0..TICKS).flat_map(|tick| cluster.tick(minute, tick)).collect(),
    };
    if let Some(path) = records {
        keep(&OpenOptions::new().create(true).append(true).open(path)?, minute, &changes)?;
    }
    let count = changes.len();
    if endpoint == "-" {
        println!("{count} changes");
        return Ok(());
    }
    let mut config = Config::new([endpoint.clone()]);
    config.timeouts.command = PATIENCE;
    let client = Rc::new(Client::new(config)?);
    carry_out(&client, changes).await?;
    if minute % PERIOD == 0 {
        compact(&client).await?;
    }
    println!("{count} changes, revision {}", client.linearizable_revision().await?);
    Ok(())
}

/// A key's new value, or its deletion.
struct Change {
    key: String,
    value: Option<Vec<u8>>,
}

/// A cluster of so many nodes. What is in it at a minute follows from the number of the minute.
struct Cluster {
    nodes: u64,
}

impl Cluster {
    fn pods(&self) -> u64 {
        self.nodes * PODS_PER_NODE
    }

    fn sets(&self) -> u64 {
        self.pods().div_ceil(PODS_PER_SET)
    }

    fn at_rest(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for node in 0..self.nodes {
            changes.extend([put_node(node, 0), put_lease(node, 0, 0)]);
        }
        for set in 0..self.sets() {
            changes.extend([put_secret(set), put_deployment(set), put_set(set, 0)]);
            changes.push(self.put_slice(set, 0));
        }
        for slot in 0..self.pods() {
            changes.push(put_pod(slot, generation(slot, 0), Phase::Running, 0));
            for minute in 1 - EVENT_STAYS..=0 {
                changes.extend(self.events_of(slot, minute).into_iter().map(put_event));
            }
        }
        changes
    }

    /// What happens in a tenth second and up to the next.
    fn tick(&self, minute: i64, tick: u64) -> Vec<Change> {
        let mut changes: Vec<_> =
            (0..self.nodes).map(|node| put_lease(node, minute, tick)).collect();
        for renewal in 0..RENEWALS_PER_TICK {
            let renew = |leader: &&str| put_leader(leader, minute, tick, renewal);
            changes.extend(LEADERS.iter().map(renew));
        }
        let is_due = |node: &u64| (node + tick).is_multiple_of(TICKS) && due(*node, minute);
        changes.extend((0..self.nodes).filter(is_due).map(|node| put_node(node, minute)));
        for slot in (0..self.pods()).filter(|slot| (slot % TICKS) == tick) {
            if is_replaced(slot, minute) {
                self.replace(slot, minute, &mut changes);
            }
            if crashes(slot, minute) {
                let generation = generation(slot, minute);
                changes.push(put_pod(slot, generation, Phase::Crashed, minute));
                changes.push(put_event(Event { slot, generation, number: CRASH, minute }));
                changes.push(put_pod(slot, generation, Phase::Running, minute));
            }
            let gone = self.events_of(slot, minute - EVENT_STAYS).into_iter();
            changes.extend(gone.map(|event| Change { key: event.key(), value: None }));
        }
        changes
    }

    fn replace(&self, slot: u64, minute: i64, changes: &mut Vec<Change>) {
        let (new, set) = (generation(slot, minute), slot / PODS_PER_SET);
        let old = new - 1;
        changes.push(put_pod(slot, old, Phase::Leaving, minute));
        changes.push(put_pod(slot, new, Phase::Created, minute));
        changes.push(put_set(set, minute));
        changes.push(put_pod(slot, new, Phase::Bound, minute));
        let mut events = self.events_of(slot, minute).into_iter().map(put_event);
        changes.extend(events.by_ref().take(3));
        changes.push(put_pod(slot, new, Phase::Starting, minute));
        changes.push(self.put_slice(set, minute));
        changes.extend(events);
        changes.push(put_pod(slot, new, Phase::Running, minute));
        changes.push(self.put_slice(set, minute));
        changes.push(put_set(set, minute));
        changes.push(put_pod(slot, old, Phase::Left, minute));
        changes.push(Change { key: pod_key(slot, old), value: None });
    }

    /// Of a pod that is replaced in this minute.
    fn events_of(&self, slot: u64, minute: i64) -> Vec<Event> {
        let generation = generation(slot, minute);
        let event = |number| Event { slot, generation, number, minute };
        let count = if is_replaced(slot, minute) { EVENTS.len() - 1 } else { 0 };
        (0..count).map(event).collect()
    }

    fn put_slice(&self, set: u64, minute: i64) -> Change {
        let slots = set * PODS_PER_SET..((set + 1) * PODS_PER_SET).min(self.pods());
        let endpoints = slots.map(|slot| objects::Endpoint {
            address: address(slot, generation(slot, minute)),
            node: node_name(slot / PODS_PER_NODE),
            pod: pod_name(slot, generation(slot, minute)),
            uid: hash(&[1, slot, generation(slot, minute)]),
        });
        let (name, space) = (format!("{}-x7k2p", app(set)), namespace(set));
        let value = objects::endpoint_slice(&name, &space, hash(&[2, set]), endpoints, minute);
        put(format!("/registry/endpointslices/{space}/{name}"), value)
    }
}

/// How far a pod is.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Created,
    Bound,
    Starting,
    Running,
    Crashed,
    Leaving,
    Left,
}

/// An event about a pod.
struct Event {
    slot: u64,
    generation: u64,
    number: usize,
    minute: i64,
}

/// Reasons and messages; the last is of those that crash.
const EVENTS: [(&str, &str); 7] = [
    ("Scheduled", "Successfully assigned the pod to the node"),
    ("Pulling", "Pulling image \"registry.example.com/team/service:v1.2.3\""),
    ("Pulled", "Successfully pulled image \"registry.example.com/team/service:v1.2.3\" in 1.2s"),
    ("Created", "Created container service"),
    ("Started", "Started container service"),
    ("Unhealthy", "Readiness probe failed: Get \"http://10.0.0.1:8080/ready\": connection refused"),
    ("BackOff", "Back-off restarting failed container service in pod"),
];
const CRASH: usize = EVENTS.len() - 1;

impl Event {
    fn key(&self) -> String {
        let set = self.slot / PODS_PER_SET;
        let pod = pod_name(self.slot, self.generation);
        let id = hash(&[3, self.slot, self.generation, self.number as u64]);
        format!("/registry/events/{}/{pod}.{id:016x}", namespace(set))
    }
}

fn put(key: String, value: Message) -> Change {
    Change { key, value: Some(value.into_object()) }
}

fn put_event(event: Event) -> Change {
    let Event { slot, generation, number, minute } = event;
    let (reason, message) = EVENTS[number];
    let pod = pod_name(slot, generation);
    let uid = hash(&[1, slot, generation]);
    let node = node_name(slot / PODS_PER_NODE);
    let space = namespace(slot / PODS_PER_SET);
    put(event.key(), objects::event(&pod, &space, uid, &node, (reason, message), minute))
}

fn put_lease(node: u64, minute: i64, tick: u64) -> Change {
    let name = node_name(node);
    let at = objects::time(minute, tick * 10 + node % 10, hash(&[4, node, tick]));
    let value = objects::lease(&name, "kube-node-lease", &name, hash(&[5, node]), &at);
    put(format!("/registry/leases/kube-node-lease/{name}"), value)
}

fn put_leader(leader: &str, minute: i64, tick: u64, renewal: u64) -> Change {
    let at = objects::time(minute, tick * 10 + renewal * 2, hash(&[6, tick, renewal]));
    let holder = format!("control-plane-1_{}", objects::uid(leader.len() as u64));
    let value = objects::lease(leader, "kube-system", &holder, leader.len() as u64, &at);
    put(format!("/registry/leases/kube-system/{leader}"), value)
}

fn put_node(node: u64, minute: i64) -> Change {
    let name = node_name(node);
    put(format!("/registry/minions/{name}"), objects::node(&name, node, minute))
}

fn put_secret(set: u64) -> Change {
    let (name, space) = (format!("{}-tls", app(set)), namespace(set));
    put(
        format!("/registry/secrets/{space}/{name}"),
        objects::secret(&name, &space, hash(&[7, set])),
    )
}

fn put_deployment(set: u64) -> Change {
    let (name, space) = (app(set), namespace(set));
    let value = objects::workload("Deployment", &name, &space, hash(&[8, set]), 0);
    put(format!("/registry/deployments/{space}/{name}"), value)
}

fn put_set(set: u64, minute: i64) -> Change {
    let (name, space) = (set_name(set), namespace(set));
    let value = objects::workload("ReplicaSet", &name, &space, hash(&[9, set]), minute);
    put(format!("/registry/replicasets/{space}/{name}"), value)
}

fn put_pod(slot: u64, generation: u64, phase: Phase, minute: i64) -> Change {
    let set = slot / PODS_PER_SET;
    let bound = phase != Phase::Created;
    let started = bound && phase != Phase::Bound;
    let pod = objects::Pod {
        name: pod_name(slot, generation),
        namespace: namespace(set),
        app: app(set),
        owner: (set_name(set), hash(&[9, set])),
        uid: hash(&[1, slot, generation]),
        node: bound.then(|| node_name(slot / PODS_PER_NODE)),
        address: started.then(|| address(slot, generation)),
        phase: match phase {
            Phase::Created | Phase::Bound | Phase::Starting => "Pending",
            Phase::Running | Phase::Leaving => "Running",
            Phase::Crashed => "CrashLoopBackOff",
            Phase::Left => "Succeeded",
        },
        leaving: matches!(phase, Phase::Leaving | Phase::Left),
        minute,
    };
    put(pod_key(slot, generation), objects::pod(&pod))
}

fn pod_key(slot: u64, generation: u64) -> String {
    let space = namespace(slot / PODS_PER_SET);
    format!("/registry/pods/{space}/{}", pod_name(slot, generation))
}

fn node_name(node: u64) -> String {
    format!("ip-10-{}-{}-{}.internal", node / 65_536, node / 256 % 256, node % 256)
}

fn namespace(set: u64) -> String {
    format!("team-{:03}", set % 50)
}

fn app(set: u64) -> String {
    const WORDS: [&str; 8] =
        ["frontend", "billing", "search", "worker", "gateway", "reports", "auth", "queue"];
    format!("{}-{set:05}", WORDS[(set % 8) as usize])
}

fn set_name(set: u64) -> String {
    format!("{}-{:09x}", app(set), hash(&[10, set]) >> 28)
}

fn pod_name(slot: u64, generation: u64) -> String {
    let end = hash(&[11, slot, generation]) >> 44;
    format!("{}-{end:05x}", set_name(slot / PODS_PER_SET))
}

fn address(slot: u64, generation: u64) -> String {
    let random = hash(&[12, slot, generation]);
    format!("10.{}.{}.{}", 64 + random % 64, random >> 8 & 255, random >> 16 & 255)
}

/// How often a pod was replaced up to a minute, that one included.
fn generation(slot: u64, minute: i64) -> u64 {
    (1 - EVENT_STAYS..=minute).filter(|minute| is_replaced(slot, *minute)).count() as u64
}

fn is_replaced(slot: u64, minute: i64) -> bool {
    hash(&[13, slot, minute.cast_unsigned()]).is_multiple_of(REPLACED)
}

fn crashes(slot: u64, minute: i64) -> bool {
    slot % CRASHING == 7 && due(slot / CRASHING, minute)
}

/// Each number is due once in a period.
fn due(number: u64, minute: i64) -> bool {
    number % PERIOD.cast_unsigned() == minute.rem_euclid(PERIOD).cast_unsigned()
}

/// Appends the records as etcd would store them, but for the revisions.
fn keep(file: &File, minute: i64, changes: &[Change]) -> Result<(), Failure> {
    let mut file = BufWriter::new(file);
    for (number, change) in changes.iter().enumerate() {
        let revision = minute.cast_unsigned() * 100_000 + number as u64 + 2;
        let mut record = Message::default().text(1, &change.key);
        if let Some(value) = &change.value {
            record = record.number(2, revision).number(3, revision).number(4, 1).bytes(5, value);
        }
        let record = record.into_bytes();
        file.write_all(&u32::try_from(record.len())?.to_le_bytes())?;
        file.write_all(&record)?;
    }
    Ok(file.flush()?)
}

async fn carry_out(client: &Rc<Client>, changes: Vec<Change>) -> Result<(), Failure> {
    let changes = Rc::new(Cell::new(changes.into_iter()));
    let mut workers: JoinSet<Result<(), Failure>> = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (client, changes) = (Rc::clone(client), Rc::clone(&changes));
        workers.spawn_local(async move {
            loop {
                let mut left = changes.take();
                let next = left.next();
                changes.set(left);
                match next {
                    None => return Ok(()),
                    Some(Change { key, value: Some(value) }) => {
                        client.put(Put::new(key, value)).await?;
                    }
                    Some(Change { key, value: None }) => {
                        client.delete(Keys::one(key)).await?;
                    }
                }
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    Ok(())
}

/// As API servers do: up to what was the head a period ago, which a key remembers.
async fn compact(client: &Client) -> Result<(), Failure> {
    let found = client.range(Range::new(Keys::one(COMPACT_KEY))).await?;
    if let Some(kv) = found.kvs.first() {
        let revision = std::str::from_utf8(&kv.value)?.parse()?;
        client.compact(revision, Compaction::Finished).await?;
    }
    let head = client.linearizable_revision().await?;
    client.put(Put::new(COMPACT_KEY, head.to_string())).await?;
    Ok(())
}
