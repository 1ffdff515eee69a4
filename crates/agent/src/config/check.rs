//! What a type cannot say of a configuration: what belongs together, what makes sense, what would do harm.

use super::load::Fault;
use super::{
    Archive, Cluster, Config, Drill, Keep, LocalMember, Secret, Snapshots, date_in, fill_pattern,
};
use crate::jobs::is_dated;
use crate::probe::Probe;
use crate::schedule::Schedule;
use jiff::Timestamp;
use rekindle_archive::Place;
use rekindle_archive::format::files::is_host;
use rekindle_client::Endpoint;
use std::collections::BTreeSet;
use std::time::Duration;

/// Longest name of a cluster or a job.
const NAME_MAX: usize = 63;
/// Nobody wants to hear of the same more often, or of a job only after so many runs.
const REPEAT_MIN: Duration = Duration::from_secs(60);
const MISSED_MAX: u32 = 1000;
/// Shortest time between two bases: etcd copies its whole database for each.
const BASES_MIN: Duration = Duration::from_secs(60);

/// All that is wrong with a configuration that could be read.
pub(super) fn check(config: &Config) -> Vec<Fault> {
    let mut check = Check { faults: Vec::new() };
    check.config(config);
    check.faults
}

/// Two moments that no date has both of.
const MOMENTS: [Timestamp; 2] = [Timestamp::UNIX_EPOCH, Timestamp::constant(1_000_000_001, 0)];

struct Check {
    faults: Vec<Fault>,
}

impl Check {
    fn fault(&mut self, path: &str, what: impl Into<String>) {
        self.faults.push(Fault { path: path.to_owned(), line: None, what: what.into() });
    }

    fn config(&mut self, config: &Config) {
        if let Err(what) = config.listen() {
            self.fault("listen", what);
        }
        if !config.state.is_absolute() {
            self.fault("state", "write the whole path, from / on");
        }
        match config.alarms.missed_runs {
            0 => self.fault("alarms.missedRuns", "at least 1: a job is not late before it is due"),
            1..=MISSED_MAX => {}
            _ => self.fault("alarms.missedRuns", format!("no more than {MISSED_MAX}")),
        }
        if config.alarms.repeat.0 < REPEAT_MIN {
            self.fault("alarms.repeat", "at least 1m makes sense");
        }
        if config.heartbeat.as_ref().is_some_and(|it| it.every.0 < Duration::from_secs(1)) {
            self.fault("heartbeat.every", "at least 1s makes sense");
        }
        for (number, webhook) in config.webhooks.iter().enumerate() {
            self.url(&format!("webhooks[{number}].url"), &webhook.url);
        }
        if let Some(heartbeat) = &config.heartbeat {
            self.url("heartbeat.url", &heartbeat.url);
        }
        if config.clusters.is_empty() {
            self.fault("clusters", "there is none: name one at least");
        }
        let mut names = BTreeSet::new();
        for (number, cluster) in config.clusters.iter().enumerate() {
            let at = format!("clusters[{number}]");
            self.name(&format!("{at}.name"), &cluster.name, &mut names);
            self.cluster(&at, cluster);
        }
    }

    fn looking(&mut self, at: &str, cluster: &Cluster) {
        let check = &cluster.check;
        if check.every.0 < Duration::from_secs(1) {
            self.fault(&format!("{at}.every"), "at least 1s makes sense");
        }
        if check.fails_after == 0 || check.well_after == 0 {
            self.fault(at, "failsAfter and wellAfter are 1 at least");
        }
        let has_member = cluster.member.is_some() || cluster.manifest.is_some();
        if check.repair && !(check.enabled && has_member) {
            let what =
                "it needs the etcd of this host: give member or manifest, and leave it enabled";
            self.fault(&format!("{at}.repair"), what);
        }
        if check.repair && cluster.archives.is_empty() {
            let what = "agents agree in an archive on who repairs what: give one";
            self.fault(&format!("{at}.repair"), what);
        }
    }

    fn url(&mut self, at: &str, url: &Secret) {
        if let Some(text) = url.literal()
            && !["http://", "https://"].iter().any(|scheme| text.starts_with(scheme))
        {
            self.fault(at, "a URL is wanted that begins with https:// or http://");
        }
    }

    fn name<'a>(&mut self, at: &str, name: &'a str, names: &mut BTreeSet<&'a str>) {
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_plain) {
            let what = format!(
                "\"{name}\" is no name: up to {NAME_MAX} lower-case letters, digits and hyphens"
            );
            self.fault(at, what);
        } else if !names.insert(name) {
            self.fault(at, format!("there are two that are called {name}"));
        }
    }

    fn cluster(&mut self, at: &str, cluster: &Cluster) {
        self.reaching(at, cluster);
        if cluster.paused.as_ref().is_some_and(|why| why.trim().is_empty()) {
            let what = "say why it is paused, or take it out: whoever is paged reads it";
            self.fault(&format!("{at}.paused"), what);
        }
        if cluster.archives.is_empty() && cluster.snapshots.is_empty() {
            self.fault(at, "nothing is done with it: give archives, or snapshots");
        }
        let (mut places, mut names) = (BTreeSet::new(), BTreeSet::new());
        for (number, archive) in cluster.archives.iter().enumerate() {
            let at = format!("{at}.archives[{number}]");
            self.name(&format!("{at}.name"), &archive.name, &mut names);
            if !places.insert(whole(&archive.place)) {
                self.fault(&format!("{at}.place"), format!("{} is named twice", archive.place));
            }
            self.archive(&at, archive);
        }
        self.capture(&format!("{at}.capture"), cluster);
        self.looking(&format!("{at}.check"), cluster);
        if let Some(defragment) = &cluster.defragment {
            let at = format!("{at}.defragment");
            let zone = defragment.time_zone.as_deref();
            self.schedule(&format!("{at}.schedule"), &defragment.schedule, zone);
            if defragment.free_percent > 100 {
                self.fault(
                    &format!("{at}.freePercent"),
                    "no more than 100 percent of a file are free",
                );
            }
        }
        let (mut names, mut files) = (BTreeSet::new(), BTreeSet::new());
        for (number, job) in cluster.snapshots.iter().enumerate() {
            let at = format!("{at}.snapshots[{number}]");
            self.name(&format!("{at}.name"), &job.name, &mut names);
            self.snapshots(&at, job);
            for (number, to) in job.to.iter().enumerate() {
                let at = format!("{at}.to[{number}]");
                if !files.insert(to) {
                    self.fault(&at, format!("{to} is written by two jobs"));
                }
                if places.contains(&whole(to)) {
                    let what = "is an archive: capture.bases says when it gets bases";
                    self.fault(&at, format!("{to} {what}"));
                }
                let is_in = |place: &String| to.starts_with(&format!("{place}/"));
                if let Some(place) = places.iter().find(|place| is_in(place)) {
                    self.fault(
                        &at,
                        format!("it lies in the archive {place}: name a place beside it"),
                    );
                }
            }
        }
    }

    fn reaching(&mut self, at: &str, cluster: &Cluster) {
        if cluster.endpoints.is_empty() && cluster.manifest.is_none() {
            self.fault(at, "nothing says where it is: give endpoints, or the manifest of a member");
        }
        for (number, endpoint) in cluster.endpoints.iter().enumerate() {
            let at = format!("{at}.endpoints[{number}]");
            match Endpoint::parse(endpoint, false) {
                Err(error) => self.fault(&at, error.to_string()),
                Ok(_) if !has_port(endpoint) => {
                    self.fault(&at, format!("\"{endpoint}\" has no port: add it, such as :2379"));
                }
                Ok(_) => {}
            }
        }
        if cluster.password.is_some() && cluster.user.is_none() {
            self.fault(&format!("{at}.password"), "there is a password, but no user");
        }
        if cluster.cert.is_some() != cluster.key.is_some() {
            self.fault(at, "cert and key go together: give both, or neither");
        }
        if let Some(member) = &cluster.member {
            self.member(&format!("{at}.member"), member);
        }
    }

    fn member(&mut self, at: &str, member: &LocalMember) {
        if member.peer_urls.is_empty() {
            self.fault(&format!("{at}.peerUrls"), "nothing says where its peers reach it");
        }
        self.whole_path(&format!("{at}.dataDir"), &member.data_dir.display().to_string());
        if let Some(wal_dir) = &member.wal_dir {
            self.whole_path(&format!("{at}.walDir"), &wal_dir.display().to_string());
        }
        let commands = [&member.start, &member.stop].into_iter().flatten().count();
        match (commands, &member.unit) {
            (1, _) => self.fault(at, "start and stop go together: give both, or neither"),
            (2, Some(_)) => {
                self.fault(at, "it has a unit, or commands of its own: give one of them");
            }
            _ => {}
        }
    }

    fn archive(&mut self, at: &str, archive: &Archive) {
        if let Err(error) = Place::parse(&archive.place) {
            self.fault(&format!("{at}.place"), error.to_string());
        }
        self.whole_path(&format!("{at}.place"), &archive.place);
        if let Some(prune) = &archive.prune {
            let zone = prune.time_zone.as_deref();
            self.schedule(&format!("{at}.prune.schedule"), &prune.schedule, zone);
            if prune.keep.is_empty() {
                self.fault(&format!("{at}.prune.keep"), "no rule is given, so nothing would go");
            }
        }
        if let Some(verify) = &archive.verify {
            let zone = verify.time_zone.as_deref();
            self.schedule(&format!("{at}.verify.schedule"), &verify.schedule, zone);
        }
        if let Some(drill) = &archive.drill {
            self.drill(&format!("{at}.drill"), drill);
        }
        if let Some(files) = &archive.host_files {
            let at = format!("{at}.hostFiles");
            self.schedule(&format!("{at}.schedule"), &files.schedule, files.time_zone.as_deref());
            if files.host.as_ref().is_some_and(|host| !is_host(host)) {
                let what = "a host has a name of letters, digits, dots, hyphens and underscores";
                self.fault(&format!("{at}.host"), what);
            }
            for (number, path) in files.paths.iter().enumerate() {
                self.whole_path(&format!("{at}.paths[{number}]"), &path.display().to_string());
            }
        }
    }

    fn drill(&mut self, at: &str, drill: &Drill) {
        self.schedule(&format!("{at}.schedule"), &drill.schedule, drill.time_zone.as_deref());
        for (number, probe) in drill.probes.iter().enumerate() {
            if let Err(what) = Probe::parse(probe) {
                self.fault(&format!("{at}.probes[{number}]"), what);
            }
        }
    }

    fn capture(&mut self, at: &str, cluster: &Cluster) {
        let capture = &cluster.capture;
        let zone = capture.time_zone.as_deref();
        if let Some(bases) = self.schedule(&format!("{at}.bases"), &capture.bases, zone)
            && cluster.is_followed()
            && bases.shortest() < BASES_MIN
        {
            let what = format!(
                "\"{}\": not more often than every minute, for etcd copies its whole database for each; what \
                 comes between is in the log",
                capture.bases
            );
            self.fault(&format!("{at}.bases"), what);
        }
        if capture.flush_interval.0.as_secs() < 1 {
            self.fault(&format!("{at}.flushInterval"), "at least 1s makes sense");
        }
        if capture.journal.0.get() < 16 << 20 {
            self.fault(&format!("{at}.journal"), "at least 16MiB makes sense");
        }
    }

    fn snapshots(&mut self, at: &str, job: &Snapshots) {
        let zone = job.time_zone.as_deref();
        if let Some(schedule) = self.schedule(&format!("{at}.schedule"), &job.schedule, zone)
            && job.jitter.0 >= schedule.shortest()
        {
            let what = "as long as from one run to the next, or longer: runs would be left out";
            self.fault(&format!("{at}.jitter"), what);
        }
        if job.to.is_empty() {
            self.fault(&format!("{at}.to"), "nothing says where to");
        }
        for (number, to) in job.to.iter().enumerate() {
            let at = format!("{at}.to[{number}]");
            if to.ends_with('/') || to.is_empty() {
                let what = "names no file: add one, such as etcd-%Y%m%dT%H%M%SZ.db";
                self.fault(&at, format!("\"{to}\" {what}"));
            }
            self.whole_path(&at, to);
            let [one, other] = MOMENTS.map(|moment| fill_pattern(to, moment));
            let is_found = |name: &String| date_in(to, name).is_some();
            let keeps = is_dated(to) && !job.keep.is_empty();
            if keeps && other.as_ref().is_ok_and(|name| !is_found(name)) {
                let what = format!(
                    "names that \"{to}\" gives do not say of which day they are, so keep would find none: use a \
                     year, a month and a day, such as %Y%m%d"
                );
                self.fault(&at, what);
            }
            let remedy = "a % begins a pattern such as %Y; write %% for a percent sign itself";
            match one {
                Err(what) => {
                    self.fault(&at, format!("date pattern in \"{to}\": {what}; {remedy}"));
                }
                Ok(one) if is_dated(to) && other.is_ok_and(|other| other == one) => {
                    self.fault(
                        &at,
                        format!("the pattern in \"{to}\" is always the same; {remedy}"),
                    );
                }
                Ok(_) => {}
            }
        }
        if job.keep != Keep::default() && !job.to.iter().any(|to| is_dated(to)) {
            let what = "no name in to has a date: each run replaces the one before";
            self.fault(&format!("{at}.keep"), what);
        }
        if job.keep.log.is_some() {
            self.fault(&format!("{at}.keep.log"), "snapshots have no log");
        }
    }

    /// An agent has no directory of its own that a path could begin in.
    fn whole_path(&mut self, at: &str, place: &str) {
        if !place.contains("://") && !place.starts_with('/') {
            self.fault(at, format!("\"{place}\": write the whole path, from / on, or a URL"));
        }
    }

    fn schedule(&mut self, at: &str, text: &str, zone: Option<&str>) -> Option<Schedule> {
        let parsed = Schedule::parse(text, zone);
        parsed.map_err(|what| self.fault(at, what)).ok()
    }
}

fn whole(place: &str) -> String {
    let whole = Place::parse(place).map_or_else(|_| place.to_owned(), |it| it.to_string());
    whole.trim_end_matches('/').to_owned()
}

/// Whether an endpoint ends with a port, or is a socket's.
fn has_port(endpoint: &str) -> bool {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let port = rest.trim_end_matches('/').rsplit_once(':').map(|(_, port)| port);
    scheme.starts_with("unix")
        || port.is_some_and(|port| !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit()))
}
