//! Static pods: the kubelet runs what has a manifest in its directory, and ends what has none there any more.

use super::{Fault, Settings, WITHIN, at, patch};
use serde::Deserialize;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Beside the kubelet's directory: what is in it does not run.
const HELD: &str = "rekindle-held";
/// What runs of a control plane beside etcd, and reads all of it.
const READERS: [&str; 3] =
    ["kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"];

/// What is said of the manifest before it was changed.
const BEFORE: &str = "before";
/// How often is looked whether processes have ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Pod {
    spec: PodSpec,
}

#[derive(Deserialize)]
struct PodSpec {
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
}

/// Where a manifest is while its pod is not to run.
pub(super) fn held(manifest: &Path) -> PathBuf {
    let name = manifest.file_name().unwrap_or_default();
    let directory = manifest.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    directory.join(HELD).join(name)
}

/// Where a manifest is now: in the kubelet's directory, or held.
#[must_use]
pub fn manifest_now(manifest: &Path) -> PathBuf {
    let held = held(manifest);
    if !manifest.exists() && held.exists() { held } else { manifest.to_owned() }
}

/// Manifests of a control plane that are held, and do not run.
#[must_use]
pub fn held_manifests(manifest: &Path) -> Vec<PathBuf> {
    all(manifest).iter().map(|path| held(path)).filter(|path| path.exists()).collect()
}

/// Moves the manifests away, and waits until what they have started has ended: a kube-apiserver takes its whole grace period.
pub(super) fn stop(manifest: &Path) -> Result<(), Fault> {
    let directory = held(manifest).parent().unwrap_or(Path::new("/")).to_owned();
    std::fs::create_dir_all(&directory).map_err(at("making", &directory))?;
    keep_before(manifest)?;
    for path in all(manifest).into_iter().filter(|path| path.exists()) {
        std::fs::rename(&path, held(&path)).map_err(at("moving away", &path))?;
    }
    if !held(manifest).exists() {
        return Err(Fault::Unfit(format!("there is no manifest {}", manifest.display())));
    }
    wait_for(&held_manifests(manifest), false, WITHIN)
}

/// etcd alone: the others come back once it serves.
pub(super) fn start(manifest: &Path, settings: &Settings) -> Result<(), Fault> {
    let held = held(manifest);
    if held.exists() {
        let before = std::fs::read_to_string(&held).map_err(at("reading", &held))?;
        let after = patch(&before, settings)
            .map_err(|why| Fault::Unfit(format!("{} cannot be changed: {why}", held.display())))?;
        if after != before {
            replace(&held, &after)?;
        }
    }
    put_back(manifest)?;
    match manifest.exists() {
        true => Ok(()),
        false => Err(Fault::Unfit(format!("there is no manifest {}", manifest.display()))),
    }
}

/// It is to be what it was before.
pub(super) fn restore_settings(manifest: &Path) -> Result<(), Fault> {
    let before = before(manifest);
    match std::fs::read_to_string(&before) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at("reading", &before)(error)),
        Ok(text) => replace(&manifest_now(manifest), &text),
    }
}

/// All the others run again, and nothing is remembered.
pub(super) fn finish(manifest: &Path) -> Result<(), Fault> {
    let back: Vec<_> = all(manifest).into_iter().filter(|path| held(path).exists()).collect();
    back.iter().try_for_each(|path| put_back(path))?;
    wait_for(&back, true, WITHIN)?;
    let before = before(manifest);
    match std::fs::remove_file(&before) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(at("removing", &before)(error))
        }
        _ => Ok(()),
    }
}

pub(super) fn is_unfinished(manifest: &Path) -> bool {
    before(manifest).exists()
}

fn put_back(path: &Path) -> Result<(), Fault> {
    let from = held(path);
    match from.exists() {
        true => std::fs::rename(&from, path).map_err(at("moving back", &from)),
        false => Ok(()),
    }
}

fn before(manifest: &Path) -> PathBuf {
    held(manifest).with_added_extension(BEFORE)
}

/// What was kept already is what was there before anything was changed.
fn keep_before(manifest: &Path) -> Result<(), Fault> {
    let (now, before) = (manifest_now(manifest), before(manifest));
    if before.exists() || !now.exists() {
        return Ok(());
    }
    let part = before.with_added_extension("part");
    // With its mode.
    std::fs::copy(&now, &part).map_err(at("copying", &now))?;
    std::fs::rename(&part, &before).map_err(at("writing", &before))
}

fn all(manifest: &Path) -> Vec<PathBuf> {
    let beside = READERS.iter().map(|name| manifest.with_file_name(name));
    std::iter::once(manifest.to_owned()).chain(beside).collect()
}

/// The command line of each container. A manifest that cannot be read is the kubelet's matter.
fn command_lines(manifest: &Path) -> Vec<Vec<String>> {
    let pod = std::fs::read_to_string(manifest).ok();
    let pod: Option<Pod> = pod.and_then(|text| serde_saphyr::from_str(&text).ok());
    let containers = pod.map(|pod| pod.spec.containers).unwrap_or_default();
    let lines = containers.into_iter().map(|it| [it.command, it.args].concat());
    lines.filter(|line| !line.is_empty()).collect()
}

/// Waits until what manifests start runs, or has ended. Processes, not what a container runtime lists: that forgets one before
/// it has ended.
fn wait_for(manifests: &[PathBuf], to_run: bool, within: Duration) -> Result<(), Fault> {
    let until = Instant::now() + within;
    for manifest in manifests {
        for line in command_lines(manifest) {
            loop {
                let found = process_of(&line);
                if found.is_some() == to_run {
                    break;
                }
                if Instant::now() >= until {
                    let is = found.map_or("does not run".to_owned(), |pid| {
                        format!("(process {pid}) still runs")
                    });
                    return Err(Fault::Unfit(format!(
                        "{} {is} {} s after its manifest was moved to {}: does the kubelet run?",
                        line[0],
                        within.as_secs(),
                        manifest.display(),
                    )));
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
    Ok(())
}

/// One that was started with these words.
fn process_of(line: &[String]) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .find(|(_, path): &(u32, PathBuf)| is_started_so(&command_line(path), line))
        .map(|(pid, _)| pid)
}

/// One whose first thread has ended has none there, and is not over while others end.
fn command_line(process: &Path) -> Vec<u8> {
    let read = |path: &Path| std::fs::read(path.join("cmdline")).unwrap_or_default();
    let own = read(process);
    if !own.is_empty() {
        return own;
    }
    let threads = std::fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    threads.map(|thread| read(&thread.path())).find(|found| !found.is_empty()).unwrap_or_default()
}

/// Words with a variable in them may have become any.
fn is_started_so(found: &[u8], line: &[String]) -> bool {
    let found: Vec<_> =
        found.strip_suffix(b"\0").unwrap_or(found).split(|byte| *byte == 0).collect();
    let is_same = |(word, want): (&&[u8], &String)| want.contains("$(") || *word == want.as_bytes();
    found.len() == line.len() && found.iter().zip(line).all(is_same)
}

/// With the owner and mode of before.
fn replace(path: &Path, text: &str) -> Result<(), Fault> {
    let found = std::fs::metadata(path).map_err(at("looking at", path))?;
    // The kubelet takes whatever lies in its directory for a manifest.
    let directory = path.parent().and_then(Path::parent).unwrap_or(Path::new("/")).join(HELD);
    let name = path.file_name().unwrap_or_default();
    let part = directory.join(name).with_added_extension("part");
    let mut file = std::fs::File::create(&part).map_err(at("creating", &part))?;
    file.write_all(text.as_bytes()).map_err(at("writing", &part))?;
    let mode = std::fs::Permissions::from_mode(found.permissions().mode());
    file.set_permissions(mode).map_err(at("writing", &part))?;
    file.sync_all().map_err(at("syncing", &part))?;
    std::fs::rename(&part, path).map_err(at("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn manifests_go_and_come_back_changed() {
        let directory = tempfile::tempdir().unwrap();
        let manifests = directory.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        let (etcd, api) = (manifests.join("etcd.yaml"), manifests.join("kube-apiserver.yaml"));
        assert!(matches!(stop(&etcd), Err(Fault::Unfit(_))));
        let was = "    - --initial-cluster-state=new # as it was\n";
        std::fs::write(&etcd, was).unwrap();
        std::fs::write(&api, "api").unwrap();
        std::fs::write(manifests.join("other.yaml"), "other").unwrap();
        stop(&etcd).unwrap();
        stop(&etcd).unwrap();
        let left: Vec<_> =
            std::fs::read_dir(&manifests).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, ["other.yaml"]);
        let settings = Settings::from([("initial-cluster-state", "existing".to_owned())]);
        start(&etcd, &settings).unwrap();
        start(&etcd, &Settings::new()).unwrap();
        let text = std::fs::read_to_string(&etcd).unwrap();
        assert_eq!(text, "    - --initial-cluster-state=existing # as it was\n");
        // Whoever reads etcd waits until it serves.
        assert_eq!((api.exists(), held_manifests(&etcd).len()), (false, 1));
        assert_eq!(manifest_now(&api), held(&api));
        finish(&etcd).unwrap();
        assert_eq!(std::fs::read_to_string(&api).unwrap(), "api");
        assert_eq!(manifest_now(&api), api);
        // Forgotten: this is how it is now.
        restore_settings(&etcd).unwrap();
        assert_ne!(std::fs::read_to_string(&etcd).unwrap(), was);
    }

    #[test]
    fn what_a_manifest_said_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let manifests = directory.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        let etcd = manifests.join("etcd.yaml");
        let was = "    - --name=m1 # as it was\n";
        std::fs::write(&etcd, was).unwrap();
        stop(&etcd).unwrap();
        for name in ["m2", "m3"] {
            start(&etcd, &Settings::from([("name", name.to_owned())])).unwrap();
            stop(&etcd).unwrap();
        }
        start(&etcd, &Settings::new()).unwrap();
        restore_settings(&etcd).unwrap();
        finish(&etcd).unwrap();
        assert_eq!(std::fs::read_to_string(&etcd).unwrap(), was);
        let left = std::fs::read_dir(&manifests).unwrap().count();
        assert_eq!(left, 1, "the kubelet runs whatever lies there");
    }

    /// A kube-apiserver takes its grace period, and serves meanwhile.
    #[test]
    fn whoever_still_runs_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let manifest = directory.path().join("etcd.yaml");
        let unique = directory.path().join("none").display().to_string();
        let text =
            format!("spec: {{containers: [{{command: [cat], args: ['-', $(X), {unique}]}}]}}");
        std::fs::write(&manifest, text).unwrap();
        let mut cat = std::process::Command::new("cat");
        cat.args(["-", "x", &unique]).stdin(Stdio::piped()).stderr(Stdio::null());
        let mut child = cat.spawn().unwrap();
        let manifests = [manifest];
        wait_for(&manifests, true, Duration::from_secs(60)).unwrap();
        let fault = wait_for(&manifests, false, Duration::from_millis(10)).unwrap_err();
        let pid = child.id().to_string();
        assert!(fault.to_string().contains(&format!("cat (process {pid}) still runs")), "{fault}");
        drop(child.stdin.take());
        wait_for(&manifests, false, Duration::from_secs(60)).unwrap();
        child.wait().unwrap();
        let fault = wait_for(&manifests, true, Duration::from_millis(10)).unwrap_err();
        assert!(fault.to_string().contains("cat does not run"), "{fault}");
    }
}
