//! What a restore will change. Pure: it looks at the source's facts and the request, and says.

use crate::backend::{Alarm, AlarmKind, Facts};
use crate::digest::Sha256Digest;
use crate::ids::{RaftIndex, RaftTerm};
use crate::membership::{Cluster, InitialCluster};
use crate::raft::{ConfState, HardState, SnapshotMark};
use crate::revision::Revision;
use sha2::{Digest, Sha256};

/// How far the revision of a Kubernetes keyspace is raised where nothing else is said: more than
/// any cluster writes between the backup and its loss, so that no client meets a revision twice.
pub const DEFAULT_BUMP: u64 = 1_000_000_000;
/// etcd's own quota where none is set (`server/storage/quota.go`, DefaultQuotaBytes).
pub const DEFAULT_QUOTA: u64 = 2 << 30;
/// The term in which a restored log begins, as etcdutl chooses it.
const FIRST_TERM: RaftTerm = RaftTerm(1);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The cluster that is to be.
    pub cluster: Cluster,
    /// Raising the revision.
    pub bump: BumpRequest,
    /// The quota that the restored members will run with, in bytes.
    pub quota: u64,
    /// What becomes of the leases.
    pub leases: LeaseFate,
}

/// What becomes of the source's leases, and of the keys that hang on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaseFate {
    /// They begin their time anew.
    #[default]
    Restore,
    /// They end with the first seconds of the new cluster, and their keys with them.
    Expire,
    /// They are gone, and their keys stay until somebody deletes them.
    Detach,
}

/// Whether the revision is raised and everything before marked as compacted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BumpRequest {
    /// By [`DEFAULT_BUMP`] where the keyspace is Kubernetes', whose caches would otherwise take
    /// the restored past for news; else not.
    #[default]
    IfKubernetes,
    /// Not.
    Never,
    /// By this much, more than 0.
    By(u64),
}

impl BumpRequest {
    /// By how much the revision of a source is raised, given whether it holds Kubernetes' keys.
    #[must_use]
    pub fn amount(self, kubernetes: bool) -> Option<u64> {
        match self {
            Self::IfKubernetes if kubernetes => Some(DEFAULT_BUMP),
            Self::IfKubernetes | Self::Never | Self::By(0) => None,
            Self::By(amount) => Some(amount),
        }
    }
}

/// What the source says of itself.
#[derive(Clone, Copy, Debug)]
pub struct SourceFacts<'a> {
    /// Its small buckets.
    pub facts: &'a Facts,
    /// Keys of Kubernetes were found in it.
    pub kubernetes: bool,
    /// The restored database will have at most about this many bytes.
    pub size_at_most: u64,
}

/// A raised revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bump {
    /// By how much.
    pub amount: u64,
    /// To which; everything before counts as compacted.
    pub to: Revision,
}

/// What becomes of an alarm of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmFate {
    /// It is dropped: its reason is gone.
    Cleared(Alarm),
    /// It stays and must be disarmed by hand once its reason is gone.
    Kept(Alarm),
}

/// What a restore will do to the database, and the log it will begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The cluster that is to be.
    pub cluster: Cluster,
    /// The revision that the source has.
    pub revision: Revision,
    /// How it is raised.
    pub bump: Option<Bump>,
    /// What becomes of the alarms.
    pub alarms: Vec<AlarmFate>,
    /// The revision is not raised only because no keys of Kubernetes were found: should some come
    /// up, the restore stops.
    pub kubernetes_unexpected: bool,
    /// A downgrade of the source that is dropped, to that version.
    pub downgrade_dropped: Option<String>,
    /// What becomes of the leases.
    pub leases: LeaseFate,
}

/// A revision cannot be raised so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {from} cannot be raised by {amount}: there is no such revision")]
pub struct BumpTooFar {
    /// The source's revision.
    pub from: Revision,
    /// By how much it was to be raised.
    pub amount: u64,
}

/// Decides a restore.
///
/// # Errors
/// [`BumpTooFar`].
pub fn plan(source: &SourceFacts<'_>, request: &Request) -> Result<Plan, BumpTooFar> {
    let revision = source.facts.revision();
    let bump = request.bump.amount(source.kubernetes).map(|amount| match revision.later(amount) {
        Some(to) => Ok(Bump { amount, to }),
        None => Err(BumpTooFar { from: revision, amount }),
    });
    let fate = |alarm: &Alarm| match alarm.kind {
        AlarmKind::NoSpace if source.size_at_most <= request.quota => AlarmFate::Cleared(*alarm),
        // A corrupt cluster's data may be what is being restored: nothing here proves otherwise.
        _ => AlarmFate::Kept(*alarm),
    };
    let downgrade = source.facts.downgrade.as_ref().filter(|downgrade| downgrade.enabled);
    Ok(Plan {
        cluster: request.cluster.clone(),
        revision,
        bump: bump.transpose()?,
        alarms: source.facts.alarms.iter().map(fate).collect(),
        kubernetes_unexpected: request.bump == BumpRequest::IfKubernetes && !source.kubernetes,
        downgrade_dropped: downgrade.map(|downgrade| downgrade.target.clone()),
        leases: request.leases,
    })
}

impl Plan {
    /// The revision after the restore.
    #[must_use]
    pub fn final_revision(&self) -> Revision {
        self.bump.map_or(self.revision, |bump| bump.to)
    }

    /// The last entry of the new log: one for each member.
    #[must_use]
    pub fn index(&self) -> RaftIndex {
        RaftIndex(self.cluster.members.len() as u64)
    }

    /// Who votes.
    #[must_use]
    pub fn conf_state(&self) -> ConfState {
        ConfState::of_voters(&self.cluster.members)
    }

    /// The new log's state: all entries committed.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        let vote = self.cluster.members.first().map_or(0, |member| member.id.0);
        HardState { term: FIRST_TERM, vote, commit: self.index() }
    }

    /// The snapshot from which the members start.
    #[must_use]
    pub fn snapshot_mark(&self) -> SnapshotMark {
        SnapshotMark { index: self.index(), term: FIRST_TERM, conf_state: Some(self.conf_state()) }
    }
}

/// The cluster token of a restore that names none: the same on every host that restores the same
/// source as the same cluster, raised by the same amount and with the same leases, and no other's: members of the old cluster
/// cannot join, and neither can hosts on which something else was restored.
#[must_use]
pub fn default_token(
    source: &Sha256Digest,
    revision: Revision,
    raised_by: Option<u64>,
    leases: LeaseFate,
    initial_cluster: &InitialCluster,
) -> String {
    let mut hash = Sha256::new();
    hash.update(source.0);
    hash.update(revision.get().to_be_bytes());
    hash.update(raised_by.unwrap_or(0).to_be_bytes());
    hash.update([leases as u8]);
    hash.update(initial_cluster.to_string());
    let digest: [u8; 32] = hash.finalize().into();
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("rekindle-{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Auth, Compaction, Downgrade};
    use crate::ids::MemberId;
    use crate::revision::RecordKey;
    use crate::version::Marks;

    fn facts() -> Facts {
        Facts {
            last_record: Some(RecordKey::first_of(Revision::new(42).unwrap())),
            compaction: Compaction::default(),
            consistent_index: None,
            term: None,
            marks: Marks::default(),
            members: Vec::new(),
            alarms: Vec::new(),
            auth: Auth::default(),
            downgrade: None,
        }
    }

    fn request(bump: BumpRequest) -> Request {
        let cluster = InitialCluster::parse("a=http://h:1,b=http://h:2,c=http://h:3").unwrap();
        Request {
            cluster: cluster.with_token("t").unwrap(),
            bump,
            quota: 1000,
            leases: LeaseFate::Restore,
        }
    }

    fn planned(facts: &Facts, kubernetes: bool, bump: BumpRequest) -> Plan {
        let source = SourceFacts { facts, kubernetes, size_at_most: 1000 };
        plan(&source, &request(bump)).unwrap()
    }

    #[test]
    fn the_revision_is_raised_for_kubernetes_and_on_request() {
        let check = |kubernetes, bump, want: Option<u64>| {
            let plan = planned(&facts(), kubernetes, bump);
            assert_eq!(plan.bump.map(|bump| bump.amount), want, "{kubernetes} {bump:?}");
            assert_eq!(plan.final_revision().get(), 42 + want.unwrap_or(0).cast_signed());
        };
        check(false, BumpRequest::IfKubernetes, None);
        check(true, BumpRequest::IfKubernetes, Some(DEFAULT_BUMP));
        check(true, BumpRequest::Never, None);
        check(true, BumpRequest::By(0), None);
        check(false, BumpRequest::By(7), Some(7));
        check(true, BumpRequest::By(7), Some(7));
    }

    #[test]
    fn a_compaction_beyond_the_last_record_counts() {
        // etcd issue 17780: the newest records were tombstones and are gone.
        let compaction = Compaction { scheduled: Revision::new(50), finished: None };
        let plan = planned(&Facts { compaction, ..facts() }, false, BumpRequest::By(10));
        assert_eq!((plan.revision.get(), plan.final_revision().get()), (50, 60));
    }

    #[test]
    fn a_revision_beyond_the_last_there_is_cannot_be() {
        let facts = facts();
        let source = SourceFacts { facts: &facts, kubernetes: false, size_at_most: 0 };
        let error = plan(&source, &request(BumpRequest::By(u64::MAX))).unwrap_err();
        assert_eq!(error.from.get(), 42);
    }

    #[test]
    fn alarms_are_cleared_only_where_their_reason_is_gone() {
        let alarm = |kind| Alarm { member: MemberId(1), kind };
        let (space, corrupt) = (alarm(AlarmKind::NoSpace), alarm(AlarmKind::Corrupt));
        let facts = Facts { alarms: vec![space, corrupt], ..facts() };
        let fates = |size_at_most| {
            let source = SourceFacts { facts: &facts, kubernetes: false, size_at_most };
            plan(&source, &request(BumpRequest::Never)).unwrap().alarms
        };
        assert_eq!(fates(1000), [AlarmFate::Cleared(space), AlarmFate::Kept(corrupt)]);
        assert_eq!(fates(1001), [AlarmFate::Kept(space), AlarmFate::Kept(corrupt)]);
    }

    #[test]
    fn a_downgrade_under_way_is_dropped() {
        let downgrade = |enabled| Some(Downgrade { enabled, target: "3.5.0".to_owned() });
        let dropped = |enabled| {
            let facts = Facts { downgrade: downgrade(enabled), ..facts() };
            planned(&facts, false, BumpRequest::Never).downgrade_dropped
        };
        assert_eq!(dropped(true).as_deref(), Some("3.5.0"));
        assert_eq!(dropped(false), None);
    }

    #[test]
    fn the_default_token_depends_on_all_that_must_agree() {
        let cluster = |text| InitialCluster::parse(text).unwrap();
        let revision = |number| Revision::new(number).unwrap();
        let with = |leases, by, digest, rev, text| {
            let source = Sha256Digest([digest; 32]);
            default_token(&source, revision(rev), by, leases, &cluster(text))
        };
        let raised = |by, digest, rev, text| with(LeaseFate::Restore, by, digest, rev, text);
        let token = |digest, rev, text| raised(None, digest, rev, text);
        let one = token(1, 5, "a=http://h:1,b=http://h:2");
        assert_eq!(one, token(1, 5, "b=http://h:2,a=http://h:1"));
        assert!(one.starts_with("rekindle-") && one.len() == 25, "{one}");
        for other in [
            token(2, 5, "a=http://h:1,b=http://h:2"),
            token(1, 6, "a=http://h:1,b=http://h:2"),
            token(1, 5, "a=http://h:1"),
            // A host that raises its revision and one that does not must not find together.
            raised(Some(7), 1, 5, "a=http://h:1,b=http://h:2"),
            with(LeaseFate::Expire, None, 1, 5, "a=http://h:1,b=http://h:2"),
            with(LeaseFate::Detach, None, 1, 5, "a=http://h:1,b=http://h:2"),
        ] {
            assert_ne!(one, other);
        }
    }
}
