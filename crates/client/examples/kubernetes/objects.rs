//! Objects in the form in which Kubernetes stores them: protobuf with a head of its own. Fields that
//! nobody asks for are there for their sizes.

/// A protobuf message that is being written.
#[derive(Default)]
pub struct Message(Vec<u8>);

/// What stands before every object.
const HEAD: &[u8] = b"k8s\0";

impl Message {
    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn each<T>(self, items: impl IntoIterator<Item = T>, add: impl Fn(Self, T) -> Self) -> Self {
        items.into_iter().fold(self, add)
    }

    fn pair(self, field: u64, key: &str, value: &str) -> Self {
        self.message(field, Self::default().text(1, key).text(2, value))
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// With the head before it.
    pub fn into_object(self) -> Vec<u8> {
        [HEAD, &self.0].concat()
    }
}

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// A number that follows from these and looks random.
pub fn hash(numbers: &[u64]) -> u64 {
    let mix = |sum: u64, number: &u64| Random(sum.rotate_left(17) ^ number).next();
    numbers.iter().fold(0, mix)
}

pub fn uid(seed: u64) -> String {
    let (a, b) = (hash(&[seed, 1]), hash(&[seed, 2]));
    let (high, low) = (a >> 32, a & 0xffff);
    format!(
        "{high:08x}-{low:04x}-4{:03x}-9{:03x}-{:012x}",
        a >> 16 & 0xfff,
        b >> 48 & 0xfff,
        b & 0xffff_ffff_ffff
    )
}

fn hex_digest(seed: u64) -> String {
    (0..4).map(|part| format!("{:016x}", hash(&[seed, part]))).collect()
}

/// With microseconds, as in leases.
pub fn time(minute: i64, second: u64, random: u64) -> Message {
    let seconds = 1_760_000_000_u64.wrapping_add_signed(minute * 60) + second;
    Message::default().number(1, seconds).number(2, random % 1_000_000 * 1000)
}

fn moment(minute: i64) -> Message {
    Message::default().number(1, 1_760_000_000_u64.wrapping_add_signed(minute * 60))
}

/// A whole object: type, and the rest as one field.
fn object(version: &str, kind: &str, raw: Message) -> Message {
    let of = Message::default().text(1, version).text(2, kind);
    Message::default().message(1, of).message(2, raw).text(3, "").text(4, "")
}

struct Meta<'a> {
    name: &'a str,
    namespace: &'a str,
    uid: u64,
    labels: &'a [(&'a str, &'a str)],
    owner: Option<(&'a str, &'a str, u64)>,
    /// Who wrote which fields: a manager, and the fields as JSON.
    managed: &'a [(&'a str, &'a str)],
    minute: i64,
}

impl Meta<'_> {
    fn message(&self) -> Message {
        let meta = Message::default()
            .text(1, self.name)
            .text(3, self.namespace)
            .text(5, &uid(self.uid))
            .number(7, 1)
            .message(8, moment(-1000 - (self.uid % 1000).cast_signed()))
            .each(self.labels, |meta, (key, value)| meta.pair(11, key, value));
        let meta = meta.each(self.owner, |meta, (kind, name, id)| {
            let owner = Message::default().text(1, kind).text(3, name).text(4, &uid(id));
            meta.message(13, owner.text(5, "apps/v1").number(6, 1).number(7, 1))
        });
        meta.each(self.managed, |meta, (manager, fields)| {
            let entry = Message::default().text(1, manager).text(2, "Update").text(3, "v1");
            let fields = Message::default().text(1, fields);
            meta.message(
                17,
                entry.message(4, moment(self.minute)).text(6, "FieldsV1").message(7, fields),
            )
        })
    }
}

const LEASE_FIELDS: &str = r#"{"f:metadata":{"f:ownerReferences":{".":{},"k:{\"uid\":\"\"}":{}}},"f:spec":{"f:holderIdentity":{},"f:leaseDurationSeconds":{},"f:renewTime":{}}}"#;
const NODE_FIELDS: &str = r#"{"f:status":{"f:allocatable":{"f:memory":{}},"f:conditions":{"k:{\"type\":\"DiskPressure\"}":{"f:lastHeartbeatTime":{}},"k:{\"type\":\"MemoryPressure\"}":{"f:lastHeartbeatTime":{}},"k:{\"type\":\"PIDPressure\"}":{"f:lastHeartbeatTime":{}},"k:{\"type\":\"Ready\"}":{"f:lastHeartbeatTime":{}}},"f:images":{}}}"#;
const SPEC_FIELDS: &str = r#"{"f:metadata":{"f:generateName":{},"f:labels":{".":{},"f:app":{},"f:pod-template-hash":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"\"}":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"service\"}":{".":{},"f:env":{".":{},"k:{\"name\":\"DATABASE_URL\"}":{".":{},"f:name":{},"f:value":{}},"k:{\"name\":\"LOG_LEVEL\"}":{".":{},"f:name":{},"f:value":{}}},"f:image":{},"f:imagePullPolicy":{},"f:livenessProbe":{".":{},"f:failureThreshold":{},"f:httpGet":{".":{},"f:path":{},"f:port":{},"f:scheme":{}},"f:periodSeconds":{}},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}},"f:readinessProbe":{".":{},"f:failureThreshold":{},"f:httpGet":{".":{},"f:path":{},"f:port":{},"f:scheme":{}}},"f:resources":{".":{},"f:limits":{".":{},"f:cpu":{},"f:memory":{}},"f:requests":{".":{},"f:cpu":{},"f:memory":{}}},"f:terminationMessagePath":{},"f:terminationMessagePolicy":{},"f:volumeMounts":{}}},"f:dnsPolicy":{},"f:enableServiceLinks":{},"f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":{},"f:terminationGracePeriodSeconds":{},"f:volumes":{}}}"#;
const STATUS_FIELDS: &str = r#"{"f:status":{"f:conditions":{"k:{\"type\":\"ContainersReady\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Initialized\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Ready\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}}},"f:containerStatuses":{},"f:hostIP":{},"f:phase":{},"f:podIP":{},"f:podIPs":{},"f:startTime":{}}}"#;

pub fn lease(name: &str, namespace: &str, holder: &str, uid: u64, renewed: &Message) -> Message {
    let meta = Meta {
        name,
        namespace,
        uid,
        labels: &[],
        owner: Some(("Node", name, uid ^ 1)),
        managed: &[("kubelet", LEASE_FIELDS)],
        minute: -500,
    };
    let spec = Message::default().text(1, holder).number(2, 40).bytes(4, &renewed.0);
    object(
        "coordination.k8s.io/v1",
        "Lease",
        Message::default().message(1, meta.message()).message(2, spec),
    )
}

pub fn node(name: &str, number: u64, minute: i64) -> Message {
    let meta = Meta {
        name,
        namespace: "",
        uid: hash(&[20, number]),
        labels: &[
            ("beta.kubernetes.io/arch", "amd64"),
            ("kubernetes.io/hostname", name),
            ("node.kubernetes.io/instance-type", "m6i.2xlarge"),
            ("topology.kubernetes.io/zone", "eu-central-1a"),
        ],
        owner: None,
        managed: &[("kubelet", SPEC_FIELDS), ("kubelet", NODE_FIELDS)],
        minute,
    };
    let condition = |status: Message, (name, message): (&str, &str)| {
        let condition = Message::default().text(1, name).text(2, "False");
        let times = condition.message(3, moment(minute)).message(4, moment(-4000));
        status.message(4, times.text(5, "KubeletIsHealthy").text(6, message))
    };
    let image = |status: Message, image: u64| {
        let repository = format!("registry.example.com/team/service-{:02}", image % 40);
        // Nodes have the same images, each some others.
        let digest = hex_digest(hash(&[21, image]));
        let names = Message::default()
            .text(1, &format!("{repository}@sha256:{digest}"))
            .text(1, &format!("{repository}:v1.{}.0", image / 40));
        status.message(8, names.number(2, 50_000_000 + image * 1_234_567))
    };
    let resources = ["cpu", "ephemeral-storage", "hugepages-2Mi", "memory", "pods"];
    let status = Message::default()
        .each(resources, |status, name| status.pair(1, name, "32756Mi"))
        .each(resources, |status, name| status.pair(2, name, "31732Mi"))
        .each(
            [
                ("MemoryPressure", "kubelet has sufficient memory available"),
                ("DiskPressure", "kubelet has no disk pressure"),
                ("PIDPressure", "kubelet has sufficient PID available"),
                ("Ready", "kubelet is posting ready status"),
            ],
            condition,
        )
        .text(7, &uid(hash(&[22, number])))
        .each((0..40).map(|place| place + number % 7 * 40), image);
    let spec =
        Message::default().text(3, &format!("aws:///eu-central-1a/i-{:017x}", hash(&[23, number])));
    let raw = Message::default().message(1, meta.message()).message(2, spec).message(3, status);
    object("v1", "Node", raw)
}

/// A pod, as far as it differs from others.
pub struct Pod {
    pub name: String,
    pub namespace: String,
    pub app: String,
    /// Name and uid of its replica set.
    pub owner: (String, u64),
    pub uid: u64,
    pub node: Option<String>,
    pub address: Option<String>,
    pub phase: &'static str,
    pub leaving: bool,
    pub minute: i64,
}

pub fn pod(pod: &Pod) -> Message {
    let template = format!("{:x}", pod.owner.1 >> 28);
    let started = pod.address.is_some();
    let managers = [("kube-controller-manager", SPEC_FIELDS), ("kubelet", STATUS_FIELDS)];
    let meta = Meta {
        name: &pod.name,
        namespace: &pod.namespace,
        uid: pod.uid,
        labels: &[("app", &pod.app), ("pod-template-hash", &template), ("team", &pod.namespace)],
        owner: Some(("ReplicaSet", &pod.owner.0, pod.owner.1)),
        managed: if started { &managers } else { &managers[..1] },
        minute: pod.minute,
    };
    let meta = meta.message().each(pod.leaving.then(|| moment(pod.minute)), |meta, at| {
        meta.message(9, at).number(10, 30)
    });
    let account = format!("kube-api-access-{:05x}", pod.uid >> 44);
    let spec = containers(&pod.app, &account)
        .each(&pod.node, |spec, node| spec.text(10, node))
        .each(["not-ready", "unreachable"], |spec, key| {
            let key = format!("node.kubernetes.io/{key}");
            let toleration = Message::default().text(1, &key).text(2, "Exists");
            spec.message(22, toleration.text(4, "NoExecute").number(5, 300))
        });
    let raw = Message::default().message(1, meta).message(2, spec).message(3, pod_status(pod));
    object("v1", "Pod", raw)
}

fn containers(app: &str, account: &str) -> Message {
    let probe = |path| {
        let get = Message::default().text(1, path).number(2, 8080).text(4, "HTTP");
        Message::default().message(1, get).number(2, 5).number(3, 10).number(4, 1).number(5, 3)
    };
    let database = format!("postgres://{app}.db.svc.cluster.local:5432/{app}");
    let mounts = Message::default().text(1, account).number(2, 1);
    let container = Message::default()
        .text(1, "service")
        .text(2, &format!("registry.example.com/team/{app}:v1.2.3"))
        .message(6, Message::default().text(1, "http").number(3, 8080).text(4, "TCP"))
        .pair(7, "DATABASE_URL", &database)
        .pair(7, "LOG_LEVEL", "info")
        .pair(8, "limits", "cpu=1,memory=1Gi")
        .pair(8, "requests", "cpu=250m,memory=512Mi")
        .message(9, mounts.text(3, "/var/run/secrets/kubernetes.io/serviceaccount"))
        .message(10, probe("/live"))
        .message(11, probe("/ready"))
        .text(13, "/dev/termination-log")
        .text(14, "IfNotPresent")
        .text(20, "File");
    let token = Message::default().text(1, "token").number(2, 3607).text(3, "kube-root-ca.crt");
    Message::default()
        .message(1, Message::default().text(1, account).message(2, token.text(4, "ca.crt")))
        .message(2, container)
        .text(3, "Always")
        .number(4, 30)
        .text(6, "ClusterFirst")
        .text(8, "default")
        .text(9, "default")
        .text(19, "default-scheduler")
}

fn pod_status(pod: &Pod) -> Message {
    let condition = |status: Message, name: &str| {
        let condition = Message::default().text(1, name).text(2, "True");
        status.message(2, condition.message(3, moment(0)).message(4, moment(pod.minute)))
    };
    let conditions: &[&str] = match (&pod.node, &pod.address) {
        (None, _) => &[],
        (_, None) => &["PodScheduled"],
        _ => &[
            "PodReadyToStartContainers",
            "Initialized",
            "Ready",
            "ContainersReady",
            "PodScheduled",
        ],
    };
    let status = Message::default()
        .text(1, pod.phase)
        .each(conditions, |status, name| condition(status, name))
        .each(&pod.node, |status, node| status.text(5, node));
    status.each(&pod.address, |status, address| {
        let image = format!("registry.example.com/team/{}", pod.app);
        let state = Message::default().text(1, pod.phase).message(2, moment(pod.minute));
        let container = Message::default()
            .text(1, "service")
            .message(2, state)
            .number(4, 1)
            .number(5, u64::from(pod.phase == "CrashLoopBackOff"))
            .text(6, &format!("{image}:v1.2.3"))
            .text(7, &format!("{image}@sha256:{}", hex_digest(pod.owner.1)))
            .text(8, &format!("containerd://{}", hex_digest(pod.uid)));
        status
            .text(6, address)
            .message(7, moment(pod.minute))
            .message(8, container)
            .text(9, "Burstable")
    })
}

pub fn event(
    pod: &str,
    namespace: &str,
    uid: u64,
    node: &str,
    (reason, message): (&str, &str),
    minute: i64,
) -> Message {
    let name = format!("{pod}.{:016x}", uid ^ reason.len() as u64);
    let meta = Meta {
        name: &name,
        namespace,
        uid: uid ^ hash(&[reason.len() as u64]),
        labels: &[],
        owner: None,
        managed: &[(
            "kubelet",
            r#"{"f:count":{},"f:firstTimestamp":{},"f:involvedObject":{},"f:lastTimestamp":{},"f:message":{},"f:reason":{},"f:reportingComponent":{},"f:reportingInstance":{},"f:source":{"f:component":{},"f:host":{}},"f:type":{}}"#,
        )],
        minute,
    };
    let about = Message::default()
        .text(1, "Pod")
        .text(2, namespace)
        .text(3, pod)
        .text(4, &self::uid(uid))
        .text(5, "v1")
        .text(7, "spec.containers{service}");
    let raw = Message::default()
        .message(1, meta.message())
        .message(2, about)
        .text(3, reason)
        .text(4, message)
        .message(5, Message::default().text(1, "kubelet").text(2, node))
        .message(6, moment(minute))
        .message(7, moment(minute))
        .number(8, 1)
        .text(9, "Normal")
        .text(14, "kubelet")
        .text(15, node);
    object("v1", "Event", raw)
}

/// One pod of an endpoint slice.
pub struct Endpoint {
    pub address: String,
    pub node: String,
    pub pod: String,
    pub uid: u64,
}

pub fn endpoint_slice(
    name: &str,
    namespace: &str,
    uid: u64,
    endpoints: impl Iterator<Item = Endpoint>,
    minute: i64,
) -> Message {
    let meta = Meta {
        name,
        namespace,
        uid,
        labels: &[("endpointslice.kubernetes.io/managed-by", "endpointslice-controller.k8s.io")],
        owner: Some(("Service", name, uid ^ 1)),
        managed: &[("kube-controller-manager", SPEC_FIELDS)],
        minute,
    };
    let endpoint = |slice: Message, endpoint: Endpoint| {
        let about = Message::default().text(1, "Pod").text(2, namespace).text(3, &endpoint.pod);
        let conditions = Message::default().number(1, 1).number(2, 1).number(3, 0);
        let found = Message::default().text(1, &endpoint.address).message(2, conditions);
        let found = found.message(4, about.text(4, &self::uid(endpoint.uid)));
        slice.message(2, found.text(6, &endpoint.node).text(7, "eu-central-1a"))
    };
    let raw = Message::default().message(1, meta.message()).each(endpoints, endpoint);
    let port = Message::default().text(1, "http").text(2, "TCP").number(3, 8080);
    object("discovery.k8s.io/v1", "EndpointSlice", raw.message(3, port).text(4, "IPv4"))
}

/// A deployment or a replica set.
pub fn workload(kind: &str, name: &str, namespace: &str, uid: u64, minute: i64) -> Message {
    let meta = Meta {
        name,
        namespace,
        uid,
        labels: &[("app", name), ("team", namespace)],
        owner: Some(("Deployment", name, uid ^ 1)),
        managed: &[("helm", SPEC_FIELDS), ("kube-controller-manager", STATUS_FIELDS)],
        minute,
    };
    let spec = containers(name, "kube-api-access").number(30, 10);
    let status =
        Message::default().number(1, 10).number(2, 10).number(3, minute.cast_unsigned() + 1);
    let raw = Message::default().message(1, meta.message()).message(2, spec).message(3, status);
    object("apps/v1", kind, raw)
}

/// A certificate and its key: base64, so it hardly compresses.
pub fn secret(name: &str, namespace: &str, uid: u64) -> Message {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut random = Random(uid);
    let data: Vec<u8> = (0..2800).map(|_| DIGITS[(random.next() % 64) as usize]).collect();
    let meta = Meta {
        name,
        namespace,
        uid,
        labels: &[("controller.cert-manager.io/fao", "true")],
        owner: None,
        managed: &[("cert-manager", SPEC_FIELDS)],
        minute: 0,
    };
    let data = Message::default().text(1, "tls.crt").bytes(2, &data);
    let raw = Message::default().message(1, meta.message()).message(2, data);
    object("v1", "Secret", raw.text(3, "kubernetes.io/tls"))
}
