//! What is tried on the node, and what must be seen.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::machine::{Node, said};
use crate::interrupt::Interrupt;

const WATCH: &str = "watch.log";
const WITHIN: Duration = Duration::from_secs(120);
/// Kinds that go on changing by themselves, and those that are no objects.
const PASSING: [&str; 3] = ["events", "leases.coordination.k8s.io", "componentstatuses"];
/// What must be as it was. Status is what controllers make of it.
const PARTS: [&str; 8] =
    ["spec", "data", "rules", "roleRef", "subjects", "webhooks", "value", "secrets"];
const IMAGE: &str = "localhost/pod:pinned";

/// A deployment of such an image.
fn deployment(name: &str, replicas: u32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": {
                    "containers": [{ "name": "pod", "image": image, "imagePullPolicy": "Never" }],
                },
            },
        },
    })
}

/// The node, what guards it, and who watches it.
pub struct Trial {
    node: Node,
    rekindle: PathBuf,
    interrupt: Interrupt,
    background: std::cell::RefCell<Vec<Child>>,
    before: std::cell::RefCell<Before>,
}

/// What was there the second before.
#[derive(Default)]
struct Before {
    time: String,
    objects: BTreeMap<String, Value>,
    /// Containers by pod, and how often they were started.
    containers: BTreeMap<String, Value>,
}

impl Trial {
    pub fn new(node: Node, rekindle: PathBuf, interrupt: Interrupt) -> Result<Self> {
        let config = format!(
            "state: {state}\nlisten: off\nclusters:\n- name: node\n  manifest: /etc/kubernetes/manifests/etcd.yaml\n  \
             archives: [{{place: {archive}}}]\n  capture: {{flushInterval: 1s}}\n",
            state = node.path("state").display(),
            archive = node.path("archive").display(),
        );
        fs::write(node.path("agent.yaml"), config)?;
        let (background, before) = Default::default();
        Ok(Self { node, rekindle, interrupt, background, before })
    }

    /// What the agent has said, for whoever looks for what went wrong.
    pub fn said(&self) -> String {
        fs::read_to_string(self.node.path("agent.log")).unwrap_or_default()
    }

    /// Takes all steps, and prints of each what was seen.
    pub fn run(&self) -> Result<()> {
        type Step = fn(&Trial) -> Result<String>;
        const STEPS: &[(&str, Step)] = &[
            ("guarded", Trial::is_guarded),
            ("filled", Trial::is_filled),
            ("destroyed", Trial::is_destroyed),
            ("refused", Trial::guesses_nothing),
            ("wrong flag", Trial::takes_back_what_does_not_start),
            ("recovered", Trial::recovers),
            ("objects", Trial::every_object_is_as_it_was),
            ("pods", Trial::pods_run_on),
            ("watchers", Trial::who_watches_sees_it),
            ("guarded on", Trial::is_guarded_on),
        ];
        for (name, step) in STEPS {
            println!("{name:<10} {}", step(self).with_context(|| format!("step `{name}`"))?);
        }
        Ok(())
    }

    fn archive(&self) -> String {
        self.node.path("archive").display().to_string()
    }

    fn rekindle(&self, words: &[&str]) -> Command {
        let config = self.node.path("agent.yaml").display().to_string();
        let program = self.rekindle.display().to_string();
        self.node.enter([&[&*program], words, &["--config", &config]].concat())
    }

    /// Starts something that goes on, and writes what it says.
    fn start(&self, mut command: Command, log: &str) -> Result<()> {
        let file = File::create(self.node.path(log))?;
        command.stdout(file.try_clone()?).stderr(file).stdin(Stdio::null());
        self.background.borrow_mut().push(command.spawn()?);
        Ok(())
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.node.path(name)).unwrap_or_default()
    }

    fn is_guarded(&self) -> Result<String> {
        said(&mut self.rekindle(&["archive", "init", &self.archive(), "--unencrypted"]))?;
        self.start(self.rekindle(&["agent"]), "agent.log")?;
        self.interrupt.until("the agent follows etcd", WITHIN, || {
            Ok(self.said().contains("following from revision").then_some(()))
        })?;
        Ok("the agent follows the etcd of the manifest".to_owned())
    }

    fn is_filled(&self) -> Result<String> {
        let node = &self.node;
        // One waits until somebody gives it an image that there is.
        for (name, replicas, image) in [("web", 2, IMAGE), ("waits", 1, "localhost/none")] {
            let path = node.path(&format!("{name}.json"));
            fs::write(&path, deployment(name, replicas, image).to_string())?;
        }
        node.kubectl(&["create", "namespace", "shop"])?;
        node.kubectl(&["-n", "shop", "create", "configmap", "settings", "--from-literal=a=b"])?;
        node.kubectl(&["-n", "shop", "create", "secret", "generic", "key", "--from-literal=c=d"])?;
        for name in ["web.json", "waits.json"] {
            node.kubectl(&["create", "-f", &node.path(name).display().to_string()])?;
        }
        node.kubectl(&["-n", "shop", "rollout", "status", "deploy/web", "--timeout=60s"])?;
        let mut watch = Command::new(node.path("kubectl"));
        watch.args(["-n", "shop", "rollout", "status", "deploy/waits"]);
        self.start(watch, WATCH)?;
        self.interrupt.until("somebody watches", WITHIN, || {
            Ok(self.log(WATCH).contains("0 of 1 updated replicas").then_some(()))
        })?;
        let objects = self.objects()?;
        let containers = self.containers()?;
        let time = said(Command::new("date").args(["--utc", "+%Y-%m-%dT%H:%M:%S.%3NZ"]))?;
        let time = time.trim().to_owned();
        let count = objects.len();
        *self.before.borrow_mut() = Before { time, objects, containers };
        // By this the archive is known to have all of it.
        let made = node.kubectl(&["create", "configmap", "mark", "--output=json"])?;
        let made: Value = serde_json::from_str(&made)?;
        let revision = made["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let point = format!("{}@{revision}", self.archive());
        self.interrupt.until("the archive has it", WITHIN, || {
            Ok(said(&mut self.rekindle(&["status", &point])).is_ok().then_some(()))
        })?;
        Ok(format!("{count} objects, up to revision {revision}"))
    }

    /// The worst of it: etcd goes on, on an empty directory.
    fn is_destroyed(&self) -> Result<String> {
        self.node.kubectl(&["-n", "shop", "delete", "configmap", "settings"])?;
        fs::remove_dir_all(self.node.path("etcd/member"))?;
        said(&mut self.node.enter(["pkill", "-KILL", "-x", "etcd"]))?;
        self.interrupt.until("an empty etcd serves", WITHIN, || {
            let health = self.rekindle(&["check", "--write-out=json"]).output()?;
            let health: Value = serde_json::from_slice(&health.stdout).unwrap_or_default();
            let revision = health["members"][0]["revision"].as_i64();
            Ok(revision.filter(|revision| (1..200).contains(revision)))
        })?;
        Ok("the kubelet has started etcd on an emptied directory: healthy, and empty".to_owned())
    }

    fn guesses_nothing(&self) -> Result<String> {
        let Output { status, stderr, .. } =
            self.rekindle(&["recover", &self.archive(), "--yes"]).output()?;
        let said = String::from_utf8_lossy(&stderr).into_owned();
        ensure!(status.code() == Some(4), "{status}: {said}");
        Ok(said.lines().find(|line| line.starts_with("error")).unwrap_or_default().to_owned())
    }

    /// A manifest that somebody has edited: what is restored does not come up, and all is as it was before.
    fn takes_back_what_does_not_start(&self) -> Result<String> {
        let manifest = self.node.path("kubernetes/manifests/etcd.yaml");
        let good = fs::read_to_string(&manifest)?;
        let wrong = good.replacen("    - --name=", "    - --no-such-flag=1\n    - --name=", 1);
        ensure!(wrong != good, "the manifest has no name:\n{good}");
        fs::write(&manifest, &wrong)?;
        let began = Instant::now();
        let Output { status, stderr, .. } = self.recover()?;
        let told = String::from_utf8_lossy(&stderr).into_owned();
        ensure!(!status.success() && told.contains("all was taken back"), "{status}: {told}");
        let after = fs::read_to_string(&manifest).context("the manifest is not back")?;
        ensure!(after == wrong, "the manifest has changed:\n{after}");
        fs::write(&manifest, good)?;
        Ok(format!(
            "it does not start; all taken back after {:.1} s",
            began.elapsed().as_secs_f64()
        ))
    }

    fn recover(&self) -> Result<Output> {
        let point = format!("{}@{}", self.archive(), self.before.borrow().time);
        let mut recover = self.rekindle(&["recover", &point, "--yes", "--although-it-serves"]);
        Ok(recover.output()?)
    }

    fn recovers(&self) -> Result<String> {
        let began = Instant::now();
        let Output { status, stdout, stderr } = self.recover()?;
        let (printed, told) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        ensure!(status.success(), "{status}:\n{printed}\n{told}");
        ensure!(printed.contains("endpoints answer with this HashKV"), "{printed}");
        let took = began.elapsed();
        self.interrupt.until("kube-apiserver is ready", WITHIN, || {
            Ok(self.node.kubectl(&["get", "--raw", "/readyz"]).ok())
        })?;
        let (took, ready) = (took.as_secs_f64(), began.elapsed().as_secs_f64());
        let line = |name: &str| printed.lines().find(|it| it.starts_with(name)).unwrap_or_default();
        Ok(format!("in {took:.1} s, kube-apiserver ready after {ready:.1} s; {}", line("proven")))
    }

    fn every_object_is_as_it_was(&self) -> Result<String> {
        let (before, after) = (self.before.borrow(), self.objects()?);
        for (name, object) in &before.objects {
            let found = after.get(name).with_context(|| format!("{name} is not there"))?;
            ensure!(found == object, "{name} was\n{object}\nand is\n{found}");
        }
        let new: Vec<_> = after.keys().filter(|name| !before.objects.contains_key(*name)).collect();
        ensure!(new.is_empty(), "these were not there: {new:?}");
        Ok(format!("all {} are as they were, and no others", after.len()))
    }

    /// Containers that nobody had to start again.
    fn pods_run_on(&self) -> Result<String> {
        let after =
            self.interrupt.until("pods are told of", WITHIN, || Ok(self.containers().ok()))?;
        let before = &self.before.borrow().containers;
        ensure!(
            !before.is_empty() && *before == after,
            "they were\n{before:?}\nand are\n{after:?}"
        );
        Ok(format!("{} run on in the containers that they had", after.len()))
    }

    /// With revisions of before: it has to be told that it must list anew.
    fn who_watches_sees_it(&self) -> Result<String> {
        ensure!(!self.log(WATCH).contains("success"), "{}", self.log(WATCH));
        let image = format!("pod={IMAGE}");
        self.node.kubectl(&["-n", "shop", "set", "image", "deploy/waits", &image])?;
        self.interrupt.until("who watched sees it", WITHIN, || {
            Ok(self.log(WATCH).contains("successfully rolled out").then_some(()))
        })?;
        Ok("a client that has watched since before sees what is done now".to_owned())
    }

    fn is_guarded_on(&self) -> Result<String> {
        let revision: i64 = {
            let made = self.node.kubectl(&["create", "configmap", "later", "--output=json"])?;
            let made: Value = serde_json::from_str(&made)?;
            let revision = &made["metadata"]["resourceVersion"];
            revision.as_str().and_then(|text| text.parse().ok()).context("no resourceVersion")?
        };
        let point = format!("{}@{revision}", self.archive());
        self.interrupt.until("the archive goes on", WITHIN, || {
            Ok(said(&mut self.rekindle(&["status", &point])).is_ok().then_some(()))
        })?;
        Ok(format!("the archive has revision {revision} of the cluster that came back"))
    }

    /// All objects by name, without what controllers make of them.
    fn objects(&self) -> Result<BTreeMap<String, Value>> {
        let kinds = self.node.kubectl(&["api-resources", "--verbs=list", "--output=name"])?;
        let kinds: Vec<_> = kinds.lines().filter(|kind| !PASSING.contains(kind)).collect();
        let words = ["get", &kinds.join(","), "--all-namespaces", "--output=json"];
        let found: Value = serde_json::from_str(&self.node.kubectl(&words)?)?;
        let items = found["items"].as_array().context("no items")?;
        let of = |item: &Value| {
            let text = |name: &str| item["metadata"][name].as_str().unwrap_or_default().to_owned();
            let kind = item["kind"].as_str().unwrap_or_default();
            let mut kept = serde_json::Map::new();
            kept.insert("uid".to_owned(), text("uid").into());
            kept.extend(PARTS.iter().map(|part| ((*part).to_owned(), item[*part].clone())));
            (format!("{kind} {}/{}", text("namespace"), text("name")), kept.into())
        };
        // Of what a manifest starts the kubelet makes an image anew, and that of etcd has another flag.
        let is_image = |item: &&Value| {
            !item["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null()
        };
        Ok(items.iter().filter(|item| !is_image(item)).map(of).collect())
    }

    /// The containers of the pods of the namespace, and how often each was started.
    fn containers(&self) -> Result<BTreeMap<String, Value>> {
        let pods = self.node.kubectl(&["-n", "shop", "get", "pods", "--output=json"])?;
        let pods: Value = serde_json::from_str(&pods)?;
        let pods = pods["items"].as_array().context("no pods")?;
        let of = |pod: &Value| {
            let status = &pod["status"]["containerStatuses"][0];
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            (name, json!([status["containerID"], status["restartCount"]]))
        };
        Ok(pods.iter().map(of).collect())
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        for child in self.background.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
