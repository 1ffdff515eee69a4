//! What an etcd static pod manifest says: kubeadm's, and others of that shape.
//!
//! Flags come from `command` and `args`, else from `ETCD_*` in `env`. Paths are those inside the
//! container and are mapped to the host's through the `hostPath` volumes.

use crate::failure::{Code, Failure};
use rekindle_recovery::host::manifest_now;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where kubeadm puts it.
pub(crate) const KUBEADM: &str = "/etc/kubernetes/manifests/etcd.yaml";
/// No manifest is larger.
const SIZE_MAX: u64 = 1 << 20;

/// An etcd's flags, by name without dashes, and where its paths are on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub path: PathBuf,
    image: Option<String>,
    flags: BTreeMap<String, String>,
    /// Path in the container, path on the host; the longest first.
    mounts: Vec<(PathBuf, PathBuf)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    #[serde(default)]
    kind: String,
    spec: PodSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    containers: Vec<Container>,
    #[serde(default)]
    volumes: Vec<Volume>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    name: String,
    image: Option<String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<EnvVar>,
    #[serde(default)]
    volume_mounts: Vec<VolumeMount>,
}

#[derive(Deserialize)]
struct EnvVar {
    name: String,
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VolumeMount {
    name: String,
    mount_path: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    host_path: Option<HostPath>,
}

#[derive(Deserialize)]
struct HostPath {
    path: PathBuf,
}

impl Manifest {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let io = |error| {
            Failure::io("reading manifest", path, &error)
                .remedy("name the manifest: --from-manifest=FILE")
        };
        // While a cluster is brought back it does not lie where it runs.
        let now = manifest_now(path);
        let size = std::fs::metadata(&now).map_err(io)?.len();
        if size > SIZE_MAX {
            return Err(bad(path, "it is larger than any manifest"));
        }
        Self::parse(path, &std::fs::read_to_string(&now).map_err(io)?)
    }

    fn parse(path: &Path, yaml: &str) -> Result<Self, Failure> {
        let pod: Pod = serde_saphyr::from_str(yaml)
            .map_err(|error| bad(path, &format!("not a pod: {error}")))?;
        if pod.kind != "Pod" {
            return Err(bad(path, &format!("its kind is \"{}\", not Pod", pod.kind)));
        }
        let is_etcd = |container: &&Container| {
            let command = container.command.iter().chain(&container.args).next();
            container.name == "etcd" || command.is_some_and(|word| word.ends_with("etcd"))
        };
        let container = pod.spec.containers.iter().find(is_etcd);
        let container = container.ok_or_else(|| bad(path, "no container of it runs etcd"))?;
        let mut mounts: Vec<_> = container
            .volume_mounts
            .iter()
            .filter_map(|mount| {
                let volume = pod.spec.volumes.iter().find(|volume| volume.name == mount.name)?;
                Some((mount.mount_path.clone(), volume.host_path.as_ref()?.path.clone()))
            })
            .collect();
        mounts.sort_by_key(|(inside, _)| std::cmp::Reverse(inside.components().count()));
        let (path, image) = (path.to_owned(), container.image.clone());
        Ok(Self { path, image, flags: flags(container), mounts })
    }

    /// The image that it is started from, such as `registry.k8s.io/etcd:3.6.5-0`.
    pub(crate) fn image(&self) -> Option<&str> {
        self.image.as_deref()
    }

    /// The value of one of etcd's flags, such as `name`.
    pub(crate) fn flag(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }

    /// The path that a flag names, as it is on the host.
    pub(crate) fn path_flag(&self, name: &str) -> Option<PathBuf> {
        let inside = Path::new(self.flag(name)?);
        let mapped = self.mounts.iter().find_map(|(mount, host)| {
            let below = inside.strip_prefix(mount).ok()?;
            Some(if below.as_os_str().is_empty() { host.clone() } else { host.join(below) })
        });
        Some(mapped.unwrap_or_else(|| inside.to_owned()))
    }
}

/// Flags of the command line, which win, over those of the environment.
fn flags(container: &Container) -> BTreeMap<String, String> {
    let mut flags = BTreeMap::new();
    for variable in &container.env {
        let name = variable.name.strip_prefix("ETCD_").map(str::to_lowercase);
        if let (Some(name), Some(value)) = (name, &variable.value) {
            flags.insert(name.replace('_', "-"), value.clone());
        }
    }
    let mut words = container.command.iter().chain(&container.args).peekable();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix('-').map(|word| word.trim_start_matches('-')) else {
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => match words.next_if(|next| !next.starts_with('-')) {
                Some(value) => (flag, value.clone()),
                None => (flag, "true".to_owned()),
            },
        };
        flags.insert(name.to_owned(), value);
    }
    flags
}

fn bad(path: &Path, what: &str) -> Failure {
    Failure::new(Code::BadData, format!("manifest {}: {what}", path.display()))
        .remedy("give the flags themselves instead of --from-manifest")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<Manifest, Failure> {
        Manifest::parse(Path::new("etcd.yaml"), yaml)
    }

    const KUBEADM_YAML: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --name=cp-1
    - --data-dir=/var/lib/etcd
    - --initial-cluster=cp-1=https://10.0.0.1:2380
    - --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379
    - --cert-file=/etc/kubernetes/pki/etcd/server.crt
    - --client-cert-auth=true
    - --snapshot-count
    - '10000'
    - --quiet
    image: registry.k8s.io/etcd:3.6.5-0
    name: etcd
    volumeMounts:
    - mountPath: /var/lib/etcd
      name: etcd-data
    - mountPath: /etc/kubernetes/pki/etcd
      name: etcd-certs
  hostNetwork: true
  volumes:
  - hostPath: {path: /etc/kubernetes/pki/etcd, type: DirectoryOrCreate}
    name: etcd-certs
  - hostPath: {path: /data/etcd, type: DirectoryOrCreate}
    name: etcd-data
";

    #[test]
    fn flags_and_paths_of_a_kubeadm_manifest() {
        let manifest = parse(KUBEADM_YAML).unwrap();
        assert_eq!(manifest.flag("name"), Some("cp-1"));
        assert_eq!(manifest.flag("initial-cluster"), Some("cp-1=https://10.0.0.1:2380"));
        assert_eq!(manifest.flag("snapshot-count"), Some("10000"));
        assert_eq!(manifest.flag("quiet"), Some("true"));
        assert_eq!(manifest.flag("wal-dir"), None);
        let path = |flag| manifest.path_flag(flag).unwrap();
        assert_eq!(path("data-dir"), Path::new("/data/etcd"));
        assert_eq!(path("cert-file"), Path::new("/etc/kubernetes/pki/etcd/server.crt"));
    }

    #[test]
    fn flags_from_the_environment_give_way_to_the_command_line() {
        let yaml = "
kind: Pod
spec:
  containers:
  - name: main
    command: [/usr/local/bin/etcd]
    args: [--name, a]
    env:
    - {name: ETCD_NAME, value: b}
    - {name: ETCD_INITIAL_ADVERTISE_PEER_URLS, value: 'http://h:1'}
    - {name: HOME, value: /root}
    - {name: ETCD_DATA_DIR}
";
        let manifest = parse(yaml).unwrap();
        assert_eq!(manifest.flag("name"), Some("a"));
        assert_eq!(manifest.flag("initial-advertise-peer-urls"), Some("http://h:1"));
        assert_eq!(manifest.flag("data-dir"), None);
    }

    #[test]
    fn what_is_no_etcd_pod_is_refused() {
        let says = |yaml: &str| parse(yaml).unwrap_err().what;
        assert!(says("").starts_with("manifest etcd.yaml: not a pod: "));
        assert!(says("a: [").starts_with("manifest etcd.yaml: not a pod: "));
        assert_eq!(
            says("kind: Service\nspec: {containers: []}"),
            "manifest etcd.yaml: its kind is \"Service\", not Pod"
        );
        assert_eq!(
            says(
                "kind: Pod\nspec: {containers: [{name: kube-scheduler, command: [kube-scheduler]}]}"
            ),
            "manifest etcd.yaml: no container of it runs etcd"
        );
    }

    /// Of a seed, numbers that look like chance (splitmix64).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % limit as u64) as usize
        }

        /// The text with some of it changed, cut out, doubled or put elsewhere.
        fn mutated(&mut self, text: &str) -> String {
            const SIGNS: [&str; 16] = [
                "&a ", "*a", "<<: *a", "- ", ": ", "? ", "{", "}", "[", "]", "|", "!!", "'",
                "---\n", "\t", "\0",
            ];
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..=self.below(4) {
                let start = self.below(bytes.len());
                let end = (start + self.below(40)).min(bytes.len());
                let at = self.below(bytes.len());
                let piece = bytes[start..end].to_vec();
                match self.below(4) {
                    0 => bytes[start] = self.below(256) as u8,
                    1 if piece.len() < bytes.len() => drop(bytes.drain(start..end)),
                    2 => drop(bytes.splice(at..at, piece)),
                    _ => drop(bytes.splice(at..at, SIGNS[self.below(SIGNS.len())].bytes())),
                }
            }
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }

    /// The binary's own decoder of foreign text, which no fuzz target reaches.
    #[test]
    fn no_manifest_makes_it_panic() {
        let mut accepted = 0;
        for seed in 0..10_000 {
            let yaml = Numbers(seed).mutated(KUBEADM_YAML);
            match parse(&yaml) {
                Ok(manifest) => {
                    accepted += 1;
                    for name in manifest.flags.keys() {
                        assert!(manifest.path_flag(name).is_some(), "{name} of\n{yaml}");
                    }
                }
                Err(failure) => assert!(failure.what.starts_with("manifest etcd.yaml: "), "{yaml}"),
            }
        }
        // Else the mutations were too wild to reach what lies behind the parser.
        assert!(accepted > 1000, "{accepted}");
    }

    #[test]
    fn aliases_of_aliases_are_no_way_to_fill_the_memory() {
        let mut yaml = "kind: Pod\na0: &a0 [etcd]\n".to_owned();
        for n in 1..12 {
            let aliases = vec![format!("*a{}", n - 1); 20].join(",");
            yaml += &format!("a{n}: &a{n} [{aliases}]\n");
        }
        yaml += "spec: {containers: [{name: etcd, command: *a11}]}\n";
        let failure = parse(&yaml).unwrap_err();
        assert!(failure.what.starts_with("manifest etcd.yaml: not a pod: "), "{}", failure.what);
    }
}
