//! What a configuration comes to on this host: whether what it names is there, and what will be done when.

use crate::archive::open_configured;
use crate::connect;
use crate::drill::{NOT_BOOTED, find_etcd};
use crate::failure::{Code, Failure};
use jiff::Timestamp;
use rekindle_agent::config::{Archive, Cluster, Config, Secret, Store as StoreConfig};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The plan, in words.
///
/// What is missing and will not come by itself is an error, all of it at once; what may be away for a while is warned of.
pub(super) fn check(path: &Path, config: &Config) -> Result<String, Failure> {
    let mut check = Check { faults: Vec::new(), warnings: Vec::new() };
    check.config(path, config);
    for warning in &check.warnings {
        eprintln!("warning: {warning}");
    }
    if !check.faults.is_empty() {
        let faults: String = check.faults.iter().map(|fault| format!("\n  {fault}")).collect();
        let what = format!("{} is good, but not for this host:{faults}", path.display());
        return Err(Failure::usage(what).remedy(
            "put what is missing in its place, or mend the path; run this as the agent's user",
        ));
    }
    let mut text = format!("{} is good\n", path.display());
    for cluster in &config.clusters {
        text += &plan(config, cluster)?;
    }
    Ok(text)
}

/// What will be done with a cluster.
fn plan(config: &Config, cluster: &Cluster) -> Result<String, Failure> {
    let jobs = rekindle_agent::jobs::jobs_of(cluster).map_err(Failure::usage)?;
    let mut text = format!("cluster {}\n", cluster.name);
    if let Some((why, remedy)) = super::paused(config, cluster) {
        text += &format!("  paused: {why}; what ends that: {remedy}\n");
    }
    if cluster.is_followed() {
        let places: Vec<_> = cluster.archives.iter().map(|it| &*it.place).collect();
        text += &format!("  followed into {}\n", places.join(", "));
    }
    for job in jobs {
        let next = job.schedule.next(Timestamp::now());
        let next = next.map(|next| next.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let place = if job.place.is_empty() { String::new() } else { format!(": {}", job.place) };
        let how = drilled(cluster, &job.name).unwrap_or_default();
        text += &format!("  {}, next at {}{place}{how}\n", job.name, next.unwrap_or_default());
    }
    Ok(text)
}

/// What a drill starts, if the job is one.
fn drilled(cluster: &Cluster, job: &str) -> Option<String> {
    let name = job.strip_prefix("drill-")?;
    let drill = cluster.archives.iter().find(|it| it.name == name)?.drill.as_ref()?;
    Some(match find_etcd(drill.etcd.as_deref(), !drill.probes.is_empty()).ok()? {
        Some(etcd) => format!(", boots {}", etcd.display()),
        None => {
            format!(", without an etcd, for there is none in PATH: {NOT_BOOTED} is in its records")
        }
    })
}

struct Check {
    faults: Vec<String>,
    warnings: Vec<String>,
}

impl Check {
    fn config(&mut self, path: &Path, config: &Config) {
        let mode = std::fs::metadata(path).map_or(0, |found| found.mode());
        if mode & 0o004 != 0 && config.has_secrets() {
            self.warnings.push(format!(
                "{} has secrets in it, and everybody on this host may read it: chmod o= it, or write file:PATH or \
                 ${{NAME}} in their place",
                path.display()
            ));
        }
        for webhook in &config.webhooks {
            self.secret("a webhook's url", &webhook.url);
            for (name, value) in &webhook.headers {
                self.secret(&format!("a webhook's {name}"), value);
            }
        }
        if let Some(heartbeat) = &config.heartbeat {
            self.secret("the heartbeat's url", &heartbeat.url);
        }
        for cluster in &config.clusters {
            self.cluster(cluster);
        }
    }

    fn fault(&mut self, about: &str, fault: impl std::fmt::Display) {
        self.faults.push(format!("{about}: {fault}"));
    }

    fn secret(&mut self, about: &str, secret: &Secret) {
        if let Err(fault) = secret.reveal(&environment) {
            self.fault(about, fault);
        }
    }

    fn file<'a>(&mut self, about: &str, path: impl IntoIterator<Item = &'a std::path::PathBuf>) {
        for path in path {
            if let Err(error) = std::fs::File::open(path) {
                self.fault(about, format!("reading {}: {error}", path.display()));
            }
        }
    }

    fn cluster(&mut self, cluster: &Cluster) {
        let about = format!("cluster {}", cluster.name);
        let files = [&cluster.manifest, &cluster.cacert, &cluster.cert, &cluster.key];
        let before = self.faults.len();
        self.file(&about, files.into_iter().flatten());
        if self.faults.len() == before
            && let Err(failure) = connect::check(cluster)
        {
            self.fault(&about, failure.what);
        }
        for archive in &cluster.archives {
            self.archive(&format!("{about}: archive {}", archive.name), archive);
        }
        for job in &cluster.snapshots {
            let about = format!("{about}: snapshots {}", job.name);
            self.store(&about, &job.store);
            let files = job.to.iter().map(|to| to.strip_prefix("file://").unwrap_or(to));
            let folders = files.filter(|to| !to.contains("://")).filter_map(|to| {
                let fixed = to.split('%').next().unwrap_or_default();
                fixed.rsplit_once('/').map(|(folder, _)| folder)
            });
            for folder in folders.filter(|folder| !folder.is_empty() && !Path::new(folder).is_dir())
            {
                let what = "is not there: it is made by the first snapshot, also where something should be mounted";
                self.warnings.push(format!("{about}: {folder} {what}"));
            }
        }
    }

    fn store(&mut self, about: &str, store: &StoreConfig) {
        if let Err(fault) = store.options(crate::stores::variables()) {
            self.fault(about, fault);
        }
    }

    fn archive(&mut self, about: &str, archive: &Archive) {
        self.store(about, &archive.store);
        self.file(about, archive.identities.iter().chain(&archive.signing_key));
        if let Some(drill) = &archive.drill
            && let Err(failure) = find_etcd(drill.etcd.as_deref(), !drill.probes.is_empty())
        {
            self.fault(about, format!("drill: {}", failure.what));
        }
        match open_configured(archive) {
            Ok(opened) => self.keys(about, archive, &opened),
            // That is told already.
            Err(failure) if failure.code == Code::Usage => {}
            Err(failure) => self.warnings.push(format!("{about}: {}", failure.what)),
        }
    }

    /// What is to be done with the archive can be done with these keys.
    fn keys(&mut self, about: &str, archive: &Archive, opened: &rekindle_archive::Archive) {
        for path in archive.host_files.iter().flat_map(|files| &files.paths) {
            if let Err(error) = std::fs::symlink_metadata(path) {
                self.warnings.push(format!("{about}: hostFiles: {}: {error}", path.display()));
            }
        }
        if archive.host_files.is_some() && !opened.is_sealed() {
            let what = "is not encrypted: files of a host go into encrypted archives only";
            self.fault(about, format!("{} {what}", archive.place));
        }
        let wants = [
            ("prune", archive.prune.is_some()),
            ("verify", archive.verify.is_some()),
            ("drill", archive.drill.is_some()),
        ];
        let wants: Vec<_> =
            wants.iter().filter(|(_, wants)| *wants).map(|(name, _)| *name).collect();
        if opened.is_sealed() && archive.identities.is_empty() && !wants.is_empty() {
            self.fault(
                about,
                format!(
                    "{} is encrypted, and {} can do nothing without an identity. Name an owner's identity file in \
                     identities: whoever takes this host can read the archive then. Or leave them out here, and \
                     do them on a host that is kept for that",
                    archive.place,
                    wants.join(", ")
                ),
            );
        }
    }
}

fn environment(name: &str) -> Option<String> {
    connect::environment(name)
}
