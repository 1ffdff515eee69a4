//! A directory per host, to be carried there by hand, with what is to be typed on each.

use super::RecoverArgs;
use super::backup::Backup;
use crate::args::{Args, Command};
use crate::failure::Failure;
use crate::output;
use crate::restore;
use clap::Parser;
use rekindle_etcd::InitialCluster;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where etcd has its data, if nothing else is said.
const DATA_DIR: &str = "/var/lib/etcd";

/// Restores all members into directories of `folder`, and writes beside each what is to be done with it.
pub(super) fn write(args: &RecoverArgs, folder: &Path) -> Result<(), Failure> {
    let wanted = args.initial_cluster.as_deref().unwrap_or_default();
    let cluster = InitialCluster::parse(wanted).map_err(|fault| {
        Failure::usage(format!("--initial-cluster: {fault}"))
            .remedy("name all members: --initial-cluster m1=https://10.0.0.1:2380,m2=...")
    })?;
    let backup = Backup::find(args)?;
    let mut words: Vec<OsString> = vec!["rekindle".into(), "restore".into()];
    // A file is named, and does not come in.
    words.extend(backup.file.map(PathBuf::into_os_string));
    words.extend(backup.words.into_iter().filter(|word| word != "-"));
    words.extend(["--members".into(), folder.into(), "--initial-cluster".into(), wanted.into()]);
    words.extend(args.dry_run.then(|| "--dry-run".into()));
    let parsed = Args::try_parse_from(words).map_err(|error| Failure::usage(error.to_string()))?;
    let Command::Restore(restored) = parsed.command else {
        return Err(Failure::usage("no restore"));
    };
    restore::run(&restored)?;
    if args.dry_run {
        return Ok(());
    }
    let names: Vec<_> = cluster.iter().map(|(name, _)| name).collect();
    for name in &names {
        let path = folder.join(format!("{name}.txt"));
        let text = text(args, folder, name, wanted);
        std::fs::write(&path, text).map_err(|error| Failure::io("writing", &path, &error))?;
    }
    let listed = names.iter().map(|name| folder.join(format!("{name}.txt")).display().to_string());
    output::print(&format!(
        "what is to be typed on each host: {}\n",
        listed.collect::<Vec<_>>().join(", ")
    ))
}

fn text(args: &RecoverArgs, folder: &Path, name: &str, initial_cluster: &str) -> String {
    let data = args.member.data_dir.as_deref().unwrap_or(Path::new(DATA_DIR)).display();
    let aside = format!("{data}.before");
    let mut text = format!(
        "# On the host of {name}. Take each step on all hosts before the next one. What is there is set aside, and nothing is deleted.\n"
    );
    let mut add = |head: &str, lines: &[String]| {
        let _ = writeln!(text, "\n# {head}");
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
    };
    let manifests = "/etc/kubernetes/manifests";
    let pods = "etcd,kube-apiserver,kube-controller-manager,kube-scheduler";
    add(
        "1. Stop etcd and whoever reads it. A unit of systemd:",
        &["systemctl disable --now etcd".to_owned()],
    );
    add(
        "   or static pods, of which kube-apiserver takes half a minute:",
        &[
            "mkdir -p /etc/kubernetes/stopped".to_owned(),
            format!("mv {manifests}/{{{pods}}}.yaml /etc/kubernetes/stopped/"),
        ],
    );
    add("   Neither may print anything:", &["pgrep -x etcd; pgrep -x kube-apiserver".to_owned()]);
    add("2. Set aside what is there, if anything is.", &[format!("mv {data} {aside}")]);
    let from = folder.join(name);
    add(
        "3. Carry it here, from where it was restored:",
        &[format!("rsync -a {}/ root@HOST:{data}/", from.display())],
    );
    add(
        "   and give it to whom it belonged:",
        &[
            format!("chown -R --reference={aside} {data}    # or: chown -R etcd:etcd {data}"),
            format!("chmod 700 {data}"),
        ],
    );
    add(
        "4. Where etcd has these flags, in its unit or manifest, they have to say this:",
        &[
            format!("--name={name}"),
            format!("--initial-cluster={initial_cluster}"),
            "--initial-cluster-state=existing".to_owned(),
        ],
    );
    add(
        "5. Start etcd on all hosts.",
        &[
            "systemctl enable --now etcd".to_owned(),
            format!("mv /etc/kubernetes/stopped/etcd.yaml {manifests}/    # of static pods"),
        ],
    );
    add(
        "6. Look: all serve, and all have one hash. Only then the rest of Kubernetes.",
        &[
            "rekindle check --deep --endpoints ...".to_owned(),
            format!("mv /etc/kubernetes/stopped/*.yaml {manifests}/"),
        ],
    );
    text
}
