//! A member's status, its hash of the key space, alarms, and upkeep.

use crate::client::Client;
use crate::error::Error;
use crate::kv::Header;
use crate::member::Member;
use crate::proto::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;

/// How a member is.
#[derive(Default, Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Who answered, and at which revision. The answer is the member's own: it may be behind.
    pub header: Header,
    /// Its etcd version: `3.6.16`.
    pub version: String,
    /// The version of its database's layout, `3.6.0`; empty before 3.6, and in the first seconds of
    /// a new cluster.
    pub storage_version: String,
    /// Size of its database file in bytes.
    pub db_size: u64,
    /// How much of that is in use.
    pub db_size_in_use: u64,
    /// How large it may become; 0 where it does not say (before 3.6).
    pub db_size_quota: u64,
    /// The leader's member id; 0 when it sees none.
    pub leader: u64,
    /// The newest raft index that it knows to be committed.
    pub raft_index: u64,
    /// Its raft term.
    pub raft_term: u64,
    /// The newest raft index that it has applied.
    pub raft_applied_index: u64,
    /// Whether it is a learner.
    pub is_learner: bool,
    /// What it complains of: alarms, no leader.
    pub errors: Vec<String>,
    /// The downgrade under way, if any (since 3.6).
    pub downgrade: Option<Downgrade>,
}

/// A downgrade of the cluster that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downgrade {
    /// To which version: `3.5.0`.
    pub target_version: String,
}

impl From<pb::StatusResponse> for Status {
    fn from(answer: pb::StatusResponse) -> Self {
        let downgrade = answer.downgrade_info.filter(|info| info.enabled);
        Self {
            header: answer.header.into(),
            version: answer.version,
            storage_version: answer.storage_version,
            db_size: unsigned(answer.db_size),
            db_size_in_use: unsigned(answer.db_size_in_use),
            db_size_quota: unsigned(answer.db_size_quota),
            leader: answer.leader,
            raft_index: answer.raft_index,
            raft_term: answer.raft_term,
            raft_applied_index: answer.raft_applied_index,
            is_learner: answer.is_learner,
            errors: answer.errors,
            downgrade: downgrade.map(|info| Downgrade { target_version: info.target_version }),
        }
    }
}

fn unsigned(size: i64) -> u64 {
    u64::try_from(size).unwrap_or_default()
}

/// A member's hash of the key space. Two are comparable when both revisions are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKv {
    /// Who answered.
    pub header: Header,
    /// The hash: CRC-32C over the records that count (etcd's `storage/mvcc/hash.go`).
    pub hash: u32,
    /// The revision up to which was hashed.
    pub revision: i64,
    /// The compact revision that decided what counts; -1 where nothing was ever compacted.
    pub compact_revision: i64,
}

/// Something that keeps the cluster from working normally until it is disarmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm {
    /// The member that raised it.
    pub member_id: u64,
    /// What is wrong.
    pub kind: AlarmKind,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AlarmKind {
    /// The database has reached its quota: nothing can be written.
    NoSpace,
    /// The member's data differs from the others': nothing is served.
    Corrupt,
    /// One that we do not know, by its number.
    Unknown(i32),
}

impl AlarmKind {
    fn from_number(number: i32) -> Self {
        match pb::AlarmType::try_from(number) {
            Ok(pb::AlarmType::Nospace) => Self::NoSpace,
            Ok(pb::AlarmType::Corrupt) => Self::Corrupt,
            _ => Self::Unknown(number),
        }
    }

    fn number(self) -> i32 {
        match self {
            Self::NoSpace => pb::AlarmType::Nospace.into(),
            Self::Corrupt => pb::AlarmType::Corrupt.into(),
            Self::Unknown(number) => number,
        }
    }
}

impl Member {
    /// How it is.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn status(&self) -> Result<Status, Error> {
        Ok(self.call(&pb::STATUS, pb::StatusRequest {}).await?.into())
    }

    /// Its hash of the key space up to `revision`, or up to its newest for 0. It reads its whole
    /// database for that, and writes wait meanwhile.
    ///
    /// # Errors
    /// [`EtcdFault::Compacted`](crate::EtcdFault::Compacted),
    /// [`EtcdFault::FutureRevision`](crate::EtcdFault::FutureRevision),
    /// [`EtcdFault::PermissionDenied`](crate::EtcdFault::PermissionDenied) without the root role.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKv, Error> {
        let within = self.timeouts().scan;
        let answer = self.call_within(within, &pb::HASH_KV, pb::HashKvRequest { revision }).await?;
        let header = Header::from(answer.header);
        // Before 3.6 the answer does not repeat the revision; its header holds the newest.
        let hashed = [answer.hash_revision, revision, header.revision];
        Ok(HashKv {
            header,
            hash: answer.hash,
            revision: hashed.into_iter().find(|revision| *revision != 0).unwrap_or_default(),
            compact_revision: answer.compact_revision,
        })
    }

    /// Rewrites its database without free pages. It serves nothing meanwhile.
    ///
    /// # Errors
    /// [`EtcdFault::PermissionDenied`](crate::EtcdFault::PermissionDenied) without the root role.
    pub async fn defragment(&self) -> Result<(), Error> {
        let within = self.timeouts().scan;
        self.call_within(within, &pb::DEFRAGMENT, pb::DefragmentRequest {}).await.map(drop)
    }

    /// Hands leadership to the member `target_id`.
    ///
    /// # Errors
    /// [`EtcdFault::NotLeader`](crate::EtcdFault::NotLeader) unless this member leads,
    /// [`EtcdFault::BadTransferee`](crate::EtcdFault::BadTransferee).
    pub async fn move_leader(&self, target_id: u64) -> Result<(), Error> {
        self.call(&pb::MOVE_LEADER, pb::MoveLeaderRequest { target_id }).await.map(drop)
    }
}

impl Client {
    /// The alarms of all members. A read.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn alarms(&self) -> Result<Vec<Alarm>, Error> {
        let request = pb::AlarmRequest::default();
        let answer = self.read(&pb::ALARM, request).await?;
        let alarm = |alarm: pb::AlarmMember| Alarm {
            member_id: alarm.member_id,
            kind: AlarmKind::from_number(alarm.alarm),
        };
        Ok(answer.alarms.into_iter().map(alarm).collect())
    }

    /// Ends an alarm. A write.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn disarm(&self, alarm: Alarm) -> Result<(), Error> {
        self.alarm(AlarmAction::Deactivate, alarm).await
    }

    /// Raises an alarm, for a drill. A write.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn raise(&self, alarm: Alarm) -> Result<(), Error> {
        self.alarm(AlarmAction::Activate, alarm).await
    }

    async fn alarm(
        &self,
        action: AlarmAction,
        Alarm { member_id, kind }: Alarm,
    ) -> Result<(), Error> {
        let request = pb::AlarmRequest { action: action.into(), member_id, alarm: kind.number() };
        self.write(&pb::ALARM, request).await.map(drop)
    }
}
