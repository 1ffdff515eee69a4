//! What members say, judged: pure.

use super::observe::{Observed, ObservedMember, Seen};
use jiff::{SignedDuration, Timestamp};
use rekindle_client::Status;
use rekindle_etcd::Version;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How many entries of the raft log a member may not have applied yet (etcd refuses writes from 5,000 on:
/// `server/etcdserver/v3_server.go`, `maxGapBetweenApplyAndCommitIndex`).
const LAG_MAX: u64 = 5000;
/// So much of its quota a database may take, in percent, until that is told, and until it is urgent.
const QUOTA_WARNS: u64 = 80;
const QUOTA_URGENT: u64 = 95;
/// So long before its end a certificate is told of, and is urgent.
const EXPIRES_SOON: SignedDuration = SignedDuration::from_hours(28 * 24);
const EXPIRES_NOW: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Clocks may differ by so much: what they say has whole seconds.
const SKEW_MAX: SignedDuration = SignedDuration::from_secs(3);
/// A read as of now that takes longer is told of.
const READ_SLOW: std::time::Duration = std::time::Duration::from_secs(1);

/// How a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// All members serve, and nothing urgent is wrong with any.
    Healthy,
    /// It serves, and something is wrong.
    Degraded,
    /// Nobody serves.
    NoQuorum,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// It will be bad.
    Warning,
    /// It is.
    Urgent,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing it is, in a word.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Of which member, if it is of one.
    pub member: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do now.
    pub remedy: &'static str,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// In a word.
    pub verdict: Verdict,
    /// Voting members, and how many of them serve; and how many have to.
    pub voters: usize,
    /// See there.
    pub serving: usize,
    /// See there.
    pub quorum: usize,
    /// The leader's id, where all who see one see the same.
    pub leader: Option<u64>,
    /// The worst first.
    pub findings: Vec<Finding>,
}

/// Judges it.
#[must_use]
pub fn judge(observed: &Observed) -> Health {
    let voters: Vec<_> = observed.members.iter().filter(|member| member.votes).collect();
    let serving = voters.iter().filter(|member| member.serves()).count();
    let leaders: BTreeSet<_> = statuses(observed).map(|(_, status)| status.leader).collect();
    let known: Vec<_> = leaders.iter().copied().filter(|leader| *leader != 0).collect();
    let leader = match &*known {
        [leader] => Some(*leader),
        _ => None,
    };
    let mut judge = Judge { at: observed.at, findings: Vec::new() };
    judge.cluster(observed, serving, &known);
    observed.members.iter().for_each(|member| judge.member(member));
    judge.compare(observed);
    let mut findings = judge.findings;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let verdict = match (serving, findings.first().map(|finding| finding.severity)) {
        (0, _) => Verdict::NoQuorum,
        (_, Some(Severity::Urgent)) => Verdict::Degraded,
        _ => Verdict::Healthy,
    };
    let quorum = voters.len() / 2 + 1;
    Health { verdict, voters: voters.len(), serving, quorum, leader, findings }
}

fn statuses(observed: &Observed) -> impl Iterator<Item = (&ObservedMember, &Status)> {
    observed.members.iter().filter_map(|member| Some((member, member.status()?)))
}

struct Judge {
    at: Timestamp,
    findings: Vec<Finding>,
}

impl Judge {
    fn find(
        &mut self,
        (name, severity): (&'static str, Severity),
        member: Option<&ObservedMember>,
        what: impl Into<String>,
        remedy: &'static str,
    ) {
        let (member, what) = (member.map(ObservedMember::label), what.into());
        self.findings.push(Finding { name, severity, member, what, remedy });
    }

    fn cluster(&mut self, observed: &Observed, serving: usize, leaders: &[u64]) {
        let answering = statuses(observed).filter(|(member, _)| member.votes).count();
        let voters = observed.members.iter().filter(|member| member.votes).count();
        if let Some(why) = &observed.unlisted {
            let what = format!("nobody says who is in the cluster: {why}");
            let remedy =
                "check the endpoints; then on each host systemctl status etcd, or crictl ps";
            self.find(("Unlisted", Severity::Urgent), None, what, remedy);
        }
        if serving == 0 {
            let what = match answering > voters / 2 {
                true => format!(
                    "{answering} of {voters} voting members answer, and none of them serves"
                ),
                false => format!(
                    "only {answering} of {voters} voting members answer: the quorum is lost"
                ),
            };
            let remedy =
                "start the members that are down; where their data are lost: rekindle runbook";
            self.find(("NoQuorum", Severity::Urgent), None, what, remedy);
        }
        if answering > 0 && leaders.is_empty() {
            let remedy = "look at the members' logs: an election that goes on and on has a slow disk or network";
            self.find(("NoLeader", Severity::Urgent), None, "no member sees a leader", remedy);
        }
        if leaders.len() > 1 {
            let seen: Vec<_> = leaders.iter().map(|leader| format!("{leader:x}")).collect();
            let what = format!("members see different leaders: {}", seen.join(", "));
            let remedy = "look again: an election is over in seconds; else members are of different clusters";
            self.find(("Leaders", Severity::Urgent), None, what, remedy);
        }
    }

    fn member(&mut self, member: &ObservedMember) {
        let Some(best) = member.best() else {
            let what = "it has not started yet: it is listed without an address";
            let remedy =
                "start it with --initial-cluster-state=existing, or etcdctl member remove it";
            return self.find(("NotStarted", Severity::Urgent), Some(member), what, remedy);
        };
        match (&best.status, &best.read) {
            (Err(why), _) => {
                let what = format!("it does not answer at {}: {why}", best.endpoint);
                let remedy = "on its host: systemctl status etcd, or crictl ps and crictl logs; a crashed etcd with \
                              good data is restarted, not replaced";
                self.find(("Down", Severity::Urgent), Some(member), what, remedy);
            }
            (Ok(status), Err(why)) if !status.is_learner => {
                let what = format!("it answers, and serves no read as of now: {why}");
                let remedy =
                    "it sees no quorum: look at its log, its disk and its network to its peers";
                self.find(("NotServing", Severity::Urgent), Some(member), what, remedy);
            }
            (Ok(_), Ok(took)) if *took > READ_SLOW => {
                let what = format!("a read as of now took {:.1} s", took.as_secs_f64());
                let remedy =
                    "look at etcd_disk_wal_fsync_duration_seconds and the network between members";
                self.find(("Slow", Severity::Warning), Some(member), what, remedy);
            }
            _ => {}
        }
        if let Ok(status) = &best.status {
            self.status(member, status);
        }
        self.place(member, best);
    }

    fn status(&mut self, member: &ObservedMember, status: &Status) {
        for complaint in &status.errors {
            let (name, remedy) = if complaint.contains("NOSPACE") {
                let remedy = "compact, rekindle defragment, etcdctl alarm disarm; until then nothing is written";
                ("NoSpace", remedy)
            } else if complaint.contains("CORRUPT") {
                ("Corrupt", "replace this member: its data differ from the others'")
            } else {
                ("Complains", "look at its log")
            };
            let what = format!("it complains: {complaint}");
            self.find((name, Severity::Urgent), Some(member), what, remedy);
        }
        let lag = status.raft_index.saturating_sub(status.raft_applied_index);
        if lag > LAG_MAX {
            let what =
                format!("{lag} entries of the raft log are not applied yet: it refuses writes");
            let remedy = "look at its disk and processor; a restart does not help";
            self.find(("Lags", Severity::Urgent), Some(member), what, remedy);
        }
        if status.is_learner {
            let what = "it is a learner: it does not vote, and counts for no quorum";
            let remedy = "once it has caught up: etcdctl member promote ID";
            self.find(("Learner", Severity::Warning), Some(member), what, remedy);
        }
        let share = status.db_size.saturating_mul(100).checked_div(status.db_size_quota);
        if let Some(share) = share.filter(|share| *share >= QUOTA_WARNS) {
            let severity = if share >= QUOTA_URGENT { Severity::Urgent } else { Severity::Warning };
            let what = format!("its database takes {share} % of its quota");
            let remedy = "rekindle defragment where much of it is free; else find who writes so much, or raise \
                          --quota-backend-bytes";
            self.find(("Quota", severity), Some(member), what, remedy);
        }
    }

    fn place(&mut self, member: &ObservedMember, seen: &Seen) {
        if let Some(expires) = seen.certificate {
            let left = expires.duration_since(self.at);
            let severity = match left {
                left if left < EXPIRES_NOW => Some(Severity::Urgent),
                left if left < EXPIRES_SOON => Some(Severity::Warning),
                _ => None,
            };
            if let Some(severity) = severity {
                let word = if left.is_negative() { "has expired" } else { "expires" };
                let what = format!("its certificate {word} at {expires}");
                let remedy = "kubeadm certs renew all, or whoever has issued it; etcd takes a new one from disk";
                self.find(("Certificate", severity), Some(member), what, remedy);
            }
        }
        if let Some(ahead) = seen.ahead.filter(|ahead| ahead.abs() > SKEW_MAX) {
            let word = if ahead.is_negative() { "behind" } else { "ahead of" };
            let what = format!("its clock is {:#} {word} this host's", ahead.abs());
            let remedy = "look at chronyc tracking, or timedatectl, on both";
            self.find(("Clock", Severity::Warning), Some(member), what, remedy);
        }
    }

    /// What can be seen only of several together.
    fn compare(&mut self, observed: &Observed) {
        let newest = statuses(observed).map(|(_, status)| status.raft_applied_index).max();
        let newest = newest.unwrap_or_default();
        let versions: BTreeSet<_> = statuses(observed)
            .filter_map(|(_, status)| Version::parse(&status.version))
            .map(|version| (version.major, version.minor))
            .collect();
        if versions.len() > 1 {
            let shown: Vec<_> =
                versions.iter().map(|(major, minor)| format!("{major}.{minor}")).collect();
            let what = format!("members are of versions {}", shown.join(" and "));
            let remedy = "that is right during an upgrade only: end it";
            self.find(("Versions", Severity::Warning), None, what, remedy);
        }
        for (member, status) in statuses(observed) {
            if observed.cluster.is_some_and(|cluster| cluster != status.header.cluster_id) {
                let what =
                    format!("it is of cluster {:x}, and not of this one", status.header.cluster_id);
                let remedy = "somebody has started it with other data: stop it, and look at its data directory";
                self.find(("Foreign", Severity::Urgent), Some(member), what, remedy);
            } else if newest.saturating_sub(status.raft_applied_index) > LAG_MAX {
                let behind = newest - status.raft_applied_index;
                let what = format!("it is {behind} entries of the raft log behind the others");
                let remedy = "look at its disk and its network; it catches up by itself if it can";
                self.find(("Behind", Severity::Urgent), Some(member), what, remedy);
            }
        }
        self.hashes(observed);
    }

    fn hashes(&mut self, observed: &Observed) {
        let hashed = |member: &ObservedMember| member.best()?.hash.clone()?.ok();
        let hashes: Vec<_> = observed.members.iter().filter_map(hashed).collect();
        let differs = hashes.windows(2).any(|pair| match pair {
            [one, other] => {
                (one.revision, one.compact_revision) == (other.revision, other.compact_revision)
                    && one.hash != other.hash
            }
            _ => false,
        });
        if differs {
            let what = "members have different data at the same revision";
            let remedy = "replace the one that differs from most; of two, the one that was down or crashed last";
            self.find(("Hashes", Severity::Urgent), None, what, remedy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_client::{HashKv, Header};
    use std::time::Duration;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn seen(id: u64) -> Seen {
        let header = Header { cluster_id: 7, member_id: id, revision: 9, raft_term: 3 };
        let status = Status {
            header,
            version: "3.6.16".to_owned(),
            db_size: 50,
            db_size_quota: 100,
            leader: 1,
            raft_index: 10_000,
            raft_applied_index: 10_000,
            ..Status::default()
        };
        Seen {
            endpoint: format!("https://m{id}:2379"),
            status: Ok(status),
            read: Ok(Duration::from_millis(3)),
            certificate: Some(at(90 * 86_400)),
            ahead: Some(SignedDuration::from_secs(1)),
            barred: false,
            hash: None,
        }
    }

    fn cluster(count: u64) -> Observed {
        let member = |id| ObservedMember {
            id: Some(id),
            name: format!("m{id}"),
            votes: true,
            seen: vec![seen(id)],
            ..ObservedMember::default()
        };
        let members = (1..=count).map(member).collect();
        Observed { cluster: Some(7), members, unlisted: None, at: at(0) }
    }

    fn down(member: &mut ObservedMember) {
        member.seen[0].status = Err("refused".to_owned());
        member.seen[0].read = Err("refused".to_owned());
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Observed), verdict: Verdict, want: &[&str]) {
        let mut observed = cluster(3);
        change(&mut observed);
        let health = judge(&observed);
        let names: Vec<_> = health.findings.iter().map(|finding| finding.name).collect();
        assert_eq!((health.verdict, &*names), (verdict, want), "{:#?}", health.findings);
        assert!(health.findings.iter().all(|it| !it.what.is_empty() && !it.remedy.is_empty()));
    }

    /// A change of what the second member says.
    fn status(change: fn(&mut Status)) -> impl FnOnce(&mut Observed) {
        move |observed| change(observed.members[1].seen[0].status.as_mut().unwrap())
    }

    fn look(change: fn(&mut Seen)) -> impl FnOnce(&mut Observed) {
        move |observed| change(&mut observed.members[1].seen[0])
    }

    use Verdict::{Degraded, Healthy, NoQuorum};

    #[test]
    fn who_serves() {
        check(|_| (), Healthy, &[]);
        for count in 1..=7 {
            let health = judge(&cluster(count));
            let want = usize::try_from(count).unwrap();
            assert_eq!((health.voters, health.serving, health.quorum), (want, want, want / 2 + 1));
            assert_eq!((health.verdict, health.leader), (Healthy, Some(1)));
        }
        check(|it| down(&mut it.members[1]), Degraded, &["Down"]);
        let two_down = |observed: &mut Observed| {
            observed.members[1..].iter_mut().for_each(down);
            observed.members[0].seen[0].read = Err("no answer".to_owned());
            observed.members[0].seen[0].status.as_mut().unwrap().leader = 0;
        };
        check(two_down, NoQuorum, &["NoQuorum", "NoLeader", "NotServing", "Down", "Down"]);
        let gone = |observed: &mut Observed| observed.members.iter_mut().for_each(down);
        check(gone, NoQuorum, &["NoQuorum", "Down", "Down", "Down"]);
        check(look(|it| it.read = Err("no answer".to_owned())), Degraded, &["NotServing"]);
        check(look(|it| it.read = Ok(Duration::from_millis(1001))), Healthy, &["Slow"]);
        check(|it| it.unlisted = Some("no answer".to_owned()), Degraded, &["Unlisted"]);
        check(|it| it.members[1].seen.clear(), Degraded, &["NotStarted"]);
        // Where one of its addresses answers, it answers.
        let second = |observed: &mut Observed| {
            down(&mut observed.members[1]);
            observed.members[1].seen.push(seen(2));
        };
        check(second, Healthy, &[]);
    }

    #[test]
    fn what_members_say() {
        check(status(|it| it.leader = 2), Degraded, &["Leaders"]);
        check(status(|it| it.errors = vec!["NOSPACE".to_owned()]), Degraded, &["NoSpace"]);
        check(status(|it| it.errors = vec!["CORRUPT".to_owned()]), Degraded, &["Corrupt"]);
        check(
            status(|it| it.errors = vec!["etcdserver: no leader".to_owned()]),
            Degraded,
            &["Complains"],
        );
        check(status(|it| it.raft_applied_index = 5000), Healthy, &[]);
        check(status(|it| it.raft_applied_index = 4999), Degraded, &["Lags", "Behind"]);
        let behind = status(|it| (it.raft_index, it.raft_applied_index) = (4999, 4999));
        check(behind, Degraded, &["Behind"]);
        let learner = |observed: &mut Observed| {
            observed.members[1].votes = false;
            observed.members[1].seen[0].read = Err("not supported".to_owned());
            observed.members[1].seen[0].status.as_mut().unwrap().is_learner = true;
        };
        check(learner, Healthy, &["Learner"]);
        check(status(|it| it.db_size = 79), Healthy, &[]);
        check(status(|it| it.db_size = 80), Healthy, &["Quota"]);
        check(status(|it| it.db_size = 95), Degraded, &["Quota"]);
        check(status(|it| it.db_size_quota = 0), Healthy, &[]);
        check(status(|it| it.version = "3.5.1".to_owned()), Healthy, &["Versions"]);
        check(status(|it| it.header.cluster_id = 8), Degraded, &["Foreign"]);
    }

    #[test]
    fn certificates_clocks_and_hashes() {
        let expires = |days: i64| {
            move |observed: &mut Observed| {
                observed.members[1].seen[0].certificate = Some(at(days * 86_400 - 1));
            }
        };
        check(expires(29), Healthy, &[]);
        check(expires(28), Healthy, &["Certificate"]);
        check(expires(7), Degraded, &["Certificate"]);
        check(expires(-1), Degraded, &["Certificate"]);
        check(look(|it| it.ahead = Some(SignedDuration::from_secs(-4))), Healthy, &["Clock"]);
        check(look(|it| it.ahead = None), Healthy, &[]);
        let hashes = |hashes: [(u32, i64); 3]| {
            move |observed: &mut Observed| {
                for (member, (hash, compact_revision)) in observed.members.iter_mut().zip(hashes) {
                    let header = Header::default();
                    let hash = HashKv { header, hash, revision: 9, compact_revision };
                    member.seen[0].hash = Some(Ok(hash));
                }
            }
        };
        check(hashes([(1, 5), (1, 5), (1, 5)]), Healthy, &[]);
        check(hashes([(1, 5), (1, 5), (2, 5)]), Degraded, &["Hashes"]);
        // What counts depends on what was compacted: such hashes say nothing of each other.
        check(hashes([(1, 5), (2, 6), (3, 7)]), Healthy, &[]);
    }
}
