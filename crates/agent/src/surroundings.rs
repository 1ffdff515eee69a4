//! What makes backups go down with what they are of: where they lie, and where the keys to them do.

use crate::config::{Archive, Cluster, Store};
use rekindle_archive::Identity;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Something that is not as it should be, though all is done as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What kind of thing it is.
    pub name: &'static str,
    /// The archive, or the file.
    pub subject: String,
    /// What is wrong.
    pub summary: String,
    /// What to do.
    pub remedy: &'static str,
}

/// What is to be known of the host and its archives.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// Where Kubernetes has the keys with which it encrypts at rest, if it is on this host and does.
    pub at_rest: Option<&'a str>,
    /// How many owners an archive has beside those whose identities are on this host; none where that cannot be known.
    pub other_owners: &'a dyn Fn(&Archive) -> Option<usize>,
    /// The number of the disk that a path is on.
    pub disk: &'a dyn Fn(&Path) -> Option<u64>,
}

/// All of it.
#[must_use]
pub fn warnings(cluster: &Cluster, look: Look<'_>) -> Vec<Warning> {
    let mut found = Vec::new();
    if destinations(cluster, look).len() == 1 {
        found.push(Warning {
            name: "OneDestination",
            subject: String::new(),
            summary: "all backups are in one place: one disk, or one bucket".to_owned(),
            remedy: "add an archive in another place, or copy it there: rekindle archive copy",
        });
    }
    for archive in &cluster.archives {
        let place = &archive.place;
        if let Some(why) = guarded_place(cluster, archive) {
            found.push(Warning {
                name: "ArchiveInCluster",
                subject: place.clone(),
                summary: format!("{place} {why}: what takes the cluster takes its backups"),
                remedy: "add an archive elsewhere: another site, another account",
            });
        }
        if is_on_member(cluster) && (look.other_owners)(archive) == Some(0) {
            found.push(Warning {
                name: "IdentitiesOnHost",
                subject: place.clone(),
                summary: format!(
                    "all identities that open {place} are on this host, which is a member's: where it is lost, \
                     nothing can be restored, and whoever takes it reads all backups"
                ),
                remedy: "add an owner whose identity is elsewhere: rekindle archive rekey --add",
            });
        }
    }
    let is_saved = |path: &str| {
        let files = cluster.archives.iter().filter_map(|archive| archive.host_files.as_ref());
        let covers = |above: &Path| Path::new(path).starts_with(above);
        files
            .into_iter()
            .any(|it| it.paths.is_empty() || it.paths.iter().any(|above| covers(above)))
    };
    if let Some(path) = look.at_rest.filter(|path| !is_saved(path)) {
        found.push(Warning {
            name: "AtRestKeysUnsaved",
            subject: path.to_owned(),
            summary: format!(
                "Kubernetes encrypts Secrets with the keys in {path}, which is in no backup: without it they \
                 are lost, whatever is restored"
            ),
            remedy: "give an encrypted archive hostFiles",
        });
    }
    found
}

/// Where backups go, each disk and each bucket once.
fn destinations(cluster: &Cluster, look: Look<'_>) -> BTreeSet<String> {
    let archives = cluster.archives.iter().map(|archive| (&archive.place, &archive.store));
    let snapshots =
        cluster.snapshots.iter().flat_map(|job| job.to.iter().map(|to| (to, &job.store)));
    let destination = |(place, store): (&String, &Store)| {
        let path = place.strip_prefix("file://").unwrap_or(place);
        match path.split_once("://") {
            Some((scheme, rest)) => {
                let bucket = rest.split('/').next().unwrap_or_default();
                let endpoint = store.endpoint_url.as_deref().unwrap_or_default();
                format!("{scheme}://{}/{bucket}", host_of(endpoint))
            }
            None => (look.disk)(Path::new(path)).map_or(path.to_owned(), |disk| disk.to_string()),
        }
    };
    archives.chain(snapshots).map(destination).collect()
}

/// Why an archive lies in what it guards.
fn guarded_place(cluster: &Cluster, archive: &Archive) -> Option<&'static str> {
    let host = host_of(archive.store.endpoint_url.as_deref()?);
    let in_cluster = [".svc", ".cluster.local"].iter().any(|end| host.ends_with(end));
    if in_cluster {
        return Some("is kept by a service of Kubernetes");
    }
    let is_same = |endpoint: &String| host_of(endpoint) == host;
    cluster.endpoints.iter().any(is_same).then_some("is kept on a member's host")
}

/// Whether this host is a member's.
fn is_on_member(cluster: &Cluster) -> bool {
    let is_own = |endpoint: &String| {
        let host = host_of(endpoint);
        host == "localhost" || host.starts_with("127.") || host == "::1"
    };
    cluster.manifest.is_some() || cluster.endpoints.iter().any(is_own)
}

/// The host of a URL, or of a host and port.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// How many owners an archive has whose identities are not on this host, as far as these open it.
pub fn other_owners(
    archive: &Archive,
    open: impl FnOnce() -> Option<rekindle_archive::Archive>,
) -> Option<usize> {
    let read = |path: &PathBuf| Identity::parse_file(&std::fs::read_to_string(path).ok()?).ok();
    let own: Vec<_> = archive.identities.iter().filter_map(read).flatten().collect();
    if own.is_empty() {
        return None;
    }
    let opened = open()?.with_identities(&own).ok()?;
    let own: Vec<_> = own.iter().map(Identity::public).collect();
    Some(opened.recipients().iter().filter(|owner| !own.contains(owner)).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[track_caller]
    fn check(yaml: &str, at_rest: Option<&str>, owners: Option<usize>, want: &[&str]) {
        let names = names(yaml, Look { at_rest, other_owners: &|_| owners, disk: &|_| None });
        let names: Vec<_> = names.into_iter().filter(|name| *name != "OneDestination").collect();
        assert_eq!(names, want);
    }

    fn names(yaml: &str, look: Look<'_>) -> Vec<&'static str> {
        let config = Config::parse(&format!("clusters:\n- name: a\n{yaml}")).unwrap();
        let found = warnings(&config.clusters[0], look);
        found.iter().map(|warning| warning.name).collect()
    }

    #[test]
    fn one_disk_and_one_bucket_are_one_place() {
        let check = |first: &str, second: &str, want: bool| {
            let yaml = format!(
                "  endpoints: ['h:1']\n  archives: [{{place: '{first}'}}]\n  snapshots: [{{name: a, schedule: \
                 '@daily', to: ['{second}']}}]\n"
            );
            let disk = |path: &Path| Some(u64::from(path.starts_with("/mnt")));
            let look = Look { at_rest: None, other_owners: &|_| None, disk: &disk };
            assert_eq!(names(&yaml, look) == ["OneDestination"], want, "{first} {second}");
        };
        check("/a", "/b/%Y.db", true);
        check("/a", "file:///b/%Y.db", true);
        check("/a", "/mnt/b/%Y.db", false);
        check("/a", "s3://b/%Y.db", false);
        check("s3://b/etcd", "s3://b/snapshots/%Y.db", true);
        check("s3://b/etcd", "s3://c/%Y.db", false);
        check("s3://b/etcd", "gs://b/%Y.db", false);
    }

    #[test]
    fn backups_in_what_they_are_of() {
        let yaml = |endpoint: &str| {
            format!(
                "  endpoints: ['https://10.0.0.1:2379', '[fd00::1]:2379']
  archives: [{{place: 's3://b/etcd', store: {{endpointUrl: '{endpoint}'}}}}]\n"
            )
        };
        check(&yaml("https://minio.example:9000"), None, None, &[]);
        for inside in [
            "http://minio.storage.svc:9000",
            "http://minio.x.svc.cluster.local/",
            "https://10.0.0.1:9000",
            "http://[fd00::1]:9000",
        ] {
            check(&yaml(inside), None, None, &["ArchiveInCluster"]);
        }
    }

    #[test]
    fn keys_that_are_nowhere_else() {
        let away = "  endpoints: ['10.0.0.1:2379']\n  archives: [{place: /a}]\n";
        let here = "  endpoints: ['127.0.0.1:2379']\n  archives: [{place: /a}]\n";
        check(away, None, Some(0), &[]);
        check(here, None, Some(1), &[]);
        check(here, None, None, &[]);
        check(here, None, Some(0), &["IdentitiesOnHost"]);
        check(
            &here.replace("endpoints: ['127.0.0.1:2379']", "manifest: /m"),
            None,
            Some(0),
            &["IdentitiesOnHost"],
        );
    }

    #[test]
    fn keys_at_rest_that_nobody_saves() {
        let yaml = |files: &str| format!("  manifest: /m\n  archives: [{{place: /a{files}}}]\n");
        check(&yaml(""), None, None, &[]);
        let at_rest = Some("/etc/kubernetes/enc/keys.yaml");
        check(&yaml(""), at_rest, None, &["AtRestKeysUnsaved"]);
        check(
            &yaml(", hostFiles: {paths: [/etc/kubernetes/pki]}"),
            at_rest,
            None,
            &["AtRestKeysUnsaved"],
        );
        check(&yaml(", hostFiles: {paths: [/etc/kubernetes]}"), at_rest, None, &[]);
        check(&yaml(", hostFiles: {}"), at_rest, None, &[]);
    }
}
