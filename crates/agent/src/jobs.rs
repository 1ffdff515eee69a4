//! What is to be done by schedule, as commands.
//!
//! A job is commands of `rekindle`, the same that a person would type: whatever it did can be done again by
//! hand, and what it fails of fails alone.

use crate::config::{Archive, Cluster, Defragment, Keep, Snapshots};
use crate::schedule::{Schedule, jittered};
use jiff::Timestamp;
use std::time::Duration;

/// A fleet does not begin at one second: jobs begin up to so much of their period later, and at most so long.
const SPREAD_PART: u32 = 10;
const SPREAD_MAX: Duration = Duration::from_secs(60);

/// What is done at each slot of a schedule.
#[derive(Clone, Debug)]
pub struct Job {
    /// What it is called: no other one of the cluster has that name.
    pub name: String,
    /// When.
    pub schedule: Schedule,
    /// Up to so much later.
    pub jitter: Duration,
    /// What that comes from: it is another one for each cluster and host.
    pub spread: String,
    /// What it must not wait for.
    pub lane: Lane,
    /// What is done.
    pub what: What,
    /// The place of the archive, or where a snapshot goes.
    pub place: String,
    /// Where agents agree on who does it; none where each does it on its own host.
    pub shared: Option<Shared>,
    /// Nobody does it while agents cannot agree: done twice at a time it does harm.
    pub needs_agreement: bool,
}

/// Where agents agree on who does a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shared {
    /// In this archive.
    Archive(String),
    /// In the first archive of the cluster, if it has any.
    Cluster,
}

/// Jobs of one lane follow each other; those of several lanes run beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Bases: whoever follows the cluster takes no snapshot sooner than a minute after the last one.
    Base,
    /// Snapshots: nothing that takes long may delay the next one.
    Save,
    /// Looking after archives.
    Keep,
}

/// What a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Commands, without the program; each follows where those before are done.
    Commands(Vec<Vec<String>>),
    /// A base, made by whoever follows the cluster.
    Base,
}

impl Job {
    /// The slot that is due, if there is one behind `after`.
    #[must_use]
    pub fn due(&self, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let slot = self.schedule.latest(after, now)?;
        (self.begins(slot) <= now).then_some(slot)
    }

    /// When the run of a slot begins.
    #[must_use]
    pub fn begins(&self, slot: Timestamp) -> Timestamp {
        jittered(slot, &self.spread, self.jitter)
    }
}

/// The jobs of a cluster.
///
/// # Errors
/// A schedule makes no sense; a configuration that was read has none such.
pub fn jobs_of(cluster: &Cluster) -> Result<Vec<Job>, String> {
    let mut jobs = Vec::new();
    for archive in &cluster.archives {
        jobs.extend(of_archive(archive)?);
    }
    let capture = &cluster.capture;
    let base = |name: String, what, place: &str| {
        Ok::<_, String>(Job {
            spread: String::new(),
            name,
            schedule: Schedule::parse(&capture.bases, capture.time_zone.as_deref())?,
            jitter: Duration::ZERO,
            lane: Lane::Base,
            what,
            place: place.to_owned(),
            shared: (!place.is_empty()).then(|| Shared::Archive(place.to_owned())),
            needs_agreement: false,
        })
    };
    if cluster.is_followed() {
        jobs.push(base("base".to_owned(), What::Base, "")?);
    } else {
        for Archive { name, place, .. } in &cluster.archives {
            let what = What::Commands(vec![words(&["save", place])]);
            jobs.push(base(format!("base-{name}"), what, place)?);
        }
    }
    for snapshots in &cluster.snapshots {
        jobs.extend(of_snapshots(snapshots)?);
    }
    if let Some(Defragment { schedule, time_zone, free_bytes, free_percent }) = &cluster.defragment
    {
        let (bytes, percent) =
            (format!("--free-bytes={free_bytes}"), format!("--free-percent={free_percent}"));
        jobs.push(Job {
            name: "defragment".to_owned(),
            spread: String::new(),
            schedule: Schedule::parse(schedule, time_zone.as_deref())?,
            jitter: Duration::ZERO,
            lane: Lane::Keep,
            what: What::Commands(vec![words(&["defragment", "--yes", &bytes, &percent])]),
            place: String::new(),
            shared: Some(Shared::Cluster),
            needs_agreement: true,
        });
    }
    for job in &mut jobs {
        job.spread = format!("{}/{}", cluster.name, job.name);
        // Of snapshots it is said in the configuration: who wants one at a minute wants it then.
        if job.lane != Lane::Save {
            job.jitter = (job.schedule.shortest() / SPREAD_PART).min(SPREAD_MAX);
        }
    }
    Ok(jobs)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn of_archive(archive: &Archive) -> Result<Vec<Job>, String> {
    let mut jobs = Vec::new();
    let job = |name: &str, schedule: &str, zone: Option<&str>, commands| {
        Ok::<_, String>(Job {
            name: format!("{name}-{}", archive.name),
            spread: String::new(),
            schedule: Schedule::parse(schedule, zone)?,
            jitter: Duration::ZERO,
            lane: Lane::Keep,
            what: What::Commands(commands),
            place: archive.place.clone(),
            shared: Some(Shared::Archive(archive.place.clone())),
            needs_agreement: false,
        })
    };
    if let Some(prune) = &archive.prune {
        let mut command = words(&["archive", "prune", &archive.place, "--yes"]);
        command.extend(rules(&prune.keep));
        jobs.push(job("prune", &prune.schedule, prune.time_zone.as_deref(), vec![command])?);
    }
    if let Some(verify) = &archive.verify {
        let level = verify.level.name();
        let command = words(&["archive", "verify", &archive.place, "--level", level]);
        jobs.push(job("verify", &verify.schedule, verify.time_zone.as_deref(), vec![command])?);
    }
    if let Some(drill) = &archive.drill {
        let mut command = words(&["drill", &archive.place]);
        let mut add = |flag: &str, value: String| command.push(format!("--{flag}={value}"));
        if let Some(etcd) = &drill.etcd {
            add("etcd", etcd.display().to_string());
        }
        drill.probes.iter().for_each(|probe| add("probe", probe.clone()));
        if let Some(within) = &drill.within {
            add("within", within.to_string());
        }
        let older = [command.clone(), words(&["--random"])].concat();
        let zone = drill.time_zone.as_deref();
        jobs.push(job("drill", &drill.schedule, zone, vec![command, older])?);
    }
    if let Some(files) = &archive.host_files {
        let mut command = words(&["save-files", &archive.place]);
        command.extend(files.host.iter().map(|host| format!("--host={host}")));
        command.extend(files.paths.iter().map(|path| path.display().to_string()));
        let zone = files.time_zone.as_deref();
        jobs.push(Job { shared: None, ..job("files", &files.schedule, zone, vec![command])? });
    }
    Ok(jobs)
}

/// One for each place: what fails of one delays no other, and each has records of its own.
fn of_snapshots(snapshots: &Snapshots) -> Result<Vec<Job>, String> {
    let schedule = Schedule::parse(&snapshots.schedule, snapshots.time_zone.as_deref())?;
    let job = |(number, to): (usize, &String)| {
        let name = match number {
            0 => format!("snapshot-{}", snapshots.name),
            number => format!("snapshot-{}-{}", snapshots.name, number + 1),
        };
        let mut commands = vec![words(&["save", to])];
        if !snapshots.keep.is_empty() && is_dated(to) {
            let mut command = words(&["prune-snapshots", to, "--yes"]);
            command.extend(rules(&snapshots.keep));
            commands.push(command);
        }
        Job {
            name,
            spread: String::new(),
            schedule: schedule.clone(),
            jitter: snapshots.jitter.0,
            lane: Lane::Save,
            what: What::Commands(commands),
            place: to.clone(),
            // A path is of this host alone.
            shared: to.contains("://").then_some(Shared::Cluster),
            needs_agreement: false,
        }
    };
    Ok(snapshots.to.iter().enumerate().map(job).collect())
}

/// Whether the name of a place has a date in it.
#[must_use]
pub fn is_dated(place: &str) -> bool {
    place.replace("%%", "").contains('%')
}

/// Rules as flags.
fn rules(keep: &Keep) -> Vec<String> {
    let mut flags = Vec::new();
    let mut add = |flag: &str, value: Option<String>| {
        flags.extend(value.map(|value| format!("--{flag}={value}")));
    };
    let count = |count: usize| (count > 0).then(|| count.to_string());
    add("keep-log", keep.log.map(|it| it.to_string()));
    add("keep-within", keep.within.map(|it| it.to_string()));
    add("keep-hourly", count(keep.hourly));
    add("keep-daily", count(keep.daily));
    add("keep-weekly", count(keep.weekly));
    add("keep-monthly", count(keep.monthly));
    add("keep-last", count(keep.last));
    add("ttl", keep.ttl.map(|it| it.to_string()));
    add("max-backups", keep.max_backups.map(|it| it.to_string()));
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[track_caller]
    fn check(yaml: &str, want: &[(&str, &str)]) {
        let head = "clusters:\n- name: prod\n  endpoints: [127.0.0.1:2379]\n";
        let config = Config::parse(&format!("{head}{yaml}")).unwrap();
        let jobs = jobs_of(&config.clusters[0]).unwrap().into_iter();
        let told = |job: Job| match job.what {
            What::Base => (job.name, "(capture)".to_owned()),
            What::Commands(commands) => {
                let commands: Vec<_> = commands.iter().map(|words| words.join(" ")).collect();
                (job.name, commands.join(" && "))
            }
        };
        let found: Vec<_> = jobs.map(told).collect();
        let found: Vec<_> = found.iter().map(|(name, does)| (&**name, &**does)).collect();
        assert_eq!(found, want);
    }

    #[test]
    fn every_job_is_a_command_that_a_person_could_type() {
        check(
            "  archives:
  - place: /backup/etcd
    prune: {}
    verify: {level: read}
    drill: {etcd: /usr/bin/etcd, probes: [/registry/pods/=3], within: 5m}
  - name: far
    place: s3://bucket/etcd
    prune: {schedule: '@daily', keep: {ttl: 86400}}
    hostFiles: {host: node-1, paths: [/etc/etcd]}
  snapshots:
  - name: daily
    schedule: '@daily'
    to: ['/snapshots/etcd-%Y%m%d.db', s3://bucket/snapshot.db]
    keep: {last: 7}
  defragment: {freeBytes: 1GiB}
",
            &[
                (
                    "prune-main",
                    "archive prune /backup/etcd --yes --keep-log=7d --keep-daily=7 --keep-weekly=4 \
                     --keep-monthly=6",
                ),
                ("verify-main", "archive verify /backup/etcd --level read"),
                (
                    "drill-main",
                    "drill /backup/etcd --etcd=/usr/bin/etcd --probe=/registry/pods/=3 --within=5m && \
                     drill /backup/etcd --etcd=/usr/bin/etcd --probe=/registry/pods/=3 --within=5m --random",
                ),
                ("prune-far", "archive prune s3://bucket/etcd --yes --ttl=86400"),
                ("files-far", "save-files s3://bucket/etcd --host=node-1 /etc/etcd"),
                ("base", "(capture)"),
                (
                    "snapshot-daily",
                    "save /snapshots/etcd-%Y%m%d.db && \
                     prune-snapshots /snapshots/etcd-%Y%m%d.db --yes --keep-last=7",
                ),
                ("snapshot-daily-2", "save s3://bucket/snapshot.db"),
                ("defragment", "defragment --yes --free-bytes=1GiB --free-percent=45"),
            ],
        );
    }

    #[test]
    fn where_nobody_follows_bases_are_saved() {
        check(
            "  capture: {enabled: false, bases: '@every 10m'}
  archives: [{place: /backup/etcd}]
",
            &[("base-main", "save /backup/etcd")],
        );
    }

    /// All that many clusters and hosts do at midnight begins at another second, and is of midnight.
    #[test]
    fn a_fleet_does_not_begin_at_one_second() {
        let yaml = |name: &str| {
            format!(
                "clusters:
- name: {name}
  endpoints: [127.0.0.1:2379]
  archives: [{{place: /backup/etcd, prune: {{schedule: '@daily'}}, verify: {{schedule: '@every 100s'}}}}]
  capture: {{bases: '@daily'}}
  snapshots: [{{name: daily, schedule: '@daily', to: [/a.db]}}]
  defragment: {{schedule: '@daily'}}
"
            )
        };
        let slot: Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
        let mut begun = std::collections::BTreeSet::new();
        for number in 0..20 {
            let config = Config::parse(&yaml(&format!("c{number}"))).unwrap();
            for job in jobs_of(&config.clusters[0]).unwrap() {
                let begins = job.begins(slot);
                let later = begins.duration_since(slot).as_millis();
                let most = match &*job.name {
                    "snapshot-daily" => 1,
                    "verify-main" => 10_000,
                    _ => 60_000,
                };
                assert!((0..most).contains(&later), "{} begins {later} ms later", job.name);
                begun.extend((most > 1).then_some(begins));
                let before = slot.checked_sub(jiff::SignedDuration::from_secs(1)).unwrap();
                assert_eq!(job.due(before, begins), Some(slot));
            }
        }
        assert!(begun.len() > 70, "80 jobs begin at {} times", begun.len());
    }

    #[test]
    fn a_slot_is_due_with_its_jitter_and_once() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let job = Job {
            name: "a".to_owned(),
            spread: "a".to_owned(),
            schedule: Schedule::parse("@hourly", None).unwrap(),
            jitter: Duration::from_secs(600),
            lane: Lane::Save,
            what: What::Base,
            place: String::new(),
            shared: None,
            needs_agreement: false,
        };
        let slot = at("2026-11-20T10:00:00Z");
        let begins = job.begins(slot);
        let before = at("2026-11-20T09:30:00Z");
        assert_eq!(job.due(before, begins), Some(slot));
        let sooner = Timestamp::from_millisecond(begins.as_millisecond() - 1).unwrap();
        assert_eq!(job.due(before, sooner), None);
        assert_eq!(job.due(slot, begins), None);
        // Of many that were missed it is the last one.
        let days_later = at("2026-11-23T10:59:00Z");
        assert_eq!(job.due(slot, days_later), Some(at("2026-11-23T10:00:00Z")));
    }
}
