//! Static pods: the kubelet runs what has a manifest in its directory, and ends what has none there any more.

use super::{Fault, Settings, at, patch};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Beside the kubelet's directory: what is in it does not run.
const HELD: &str = "rekindle-held";
/// What runs of a control plane beside etcd, and reads all of it.
const READERS: [&str; 3] =
    ["kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"];

/// Where a manifest is while its pod is not to run.
pub(super) fn held(manifest: &Path) -> PathBuf {
    let name = manifest.file_name().unwrap_or_default();
    let directory = manifest.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    directory.join(HELD).join(name)
}

pub(super) fn stop(manifest: &Path) -> Result<(), Fault> {
    let held = held(manifest);
    let directory = held.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).map_err(at("making", directory))?;
    for path in all(manifest) {
        let to = super::static_pod::held(&path);
        if path.exists() {
            std::fs::rename(&path, &to).map_err(at("moving away", &path))?;
        }
    }
    match held.exists() {
        true => Ok(()),
        false => Err(Fault::Unfit(format!("there is no manifest {}", manifest.display()))),
    }
}

/// etcd's own first; the others follow it.
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
    for path in all(manifest) {
        let from = super::static_pod::held(&path);
        if from.exists() {
            std::fs::rename(&from, &path).map_err(at("moving back", &from))?;
        }
    }
    match manifest.exists() {
        true => Ok(()),
        false => Err(Fault::Unfit(format!("there is no manifest {}", manifest.display()))),
    }
}

fn all(manifest: &Path) -> Vec<PathBuf> {
    let beside = READERS.iter().map(|name| manifest.with_file_name(name));
    std::iter::once(manifest.to_owned()).chain(beside).collect()
}

/// With the owner and mode of before.
fn replace(path: &Path, text: &str) -> Result<(), Fault> {
    let found = std::fs::metadata(path).map_err(at("looking at", path))?;
    let part = path.with_extension("part");
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

    #[test]
    fn manifests_go_and_come_back_changed() {
        let directory = tempfile::tempdir().unwrap();
        let manifests = directory.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        let (etcd, api) = (manifests.join("etcd.yaml"), manifests.join("kube-apiserver.yaml"));
        assert!(matches!(stop(&etcd), Err(Fault::Unfit(_))));
        std::fs::write(&etcd, "    - --initial-cluster-state=new # as it was\n").unwrap();
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
        assert_eq!(std::fs::read_to_string(&api).unwrap(), "api");
    }
}
