//! The cluster's members: listing and changing them.

use crate::client::Client;
use crate::error::Error;
use crate::kv::Header;
use crate::member::Member;
use crate::proto::etcdserverpb as pb;

/// A member as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started for the first time.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where it says that clients reach it; empty until it has started for the first time.
    pub client_urls: Vec<String>,
    /// Whether it votes.
    pub role: Role,
}

/// Whether a member votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It votes.
    Voter,
    /// It only learns, until it is promoted.
    Learner,
}

impl From<pb::Member> for MemberInfo {
    fn from(member: pb::Member) -> Self {
        Self {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_ur_ls,
            client_urls: member.client_ur_ls,
            role: if member.is_learner { Role::Learner } else { Role::Voter },
        }
    }
}

/// All members of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberList {
    /// Who answered. Its revision is always 0: members are not part of the key space.
    pub header: Header,
    /// The members, in no certain order.
    pub members: Vec<MemberInfo>,
}

impl From<pb::MemberListResponse> for MemberList {
    fn from(answer: pb::MemberListResponse) -> Self {
        let members = answer.members.into_iter().map(Into::into).collect();
        Self { header: answer.header.into(), members }
    }
}

impl Client {
    /// The members that the cluster agrees on (3.4 knows only what the answering member knows). A
    /// read.
    ///
    /// # Errors
    /// Without a quorum [`Error::Deadline`] or [`EtcdFault::TimedOut`](crate::EtcdFault::TimedOut).
    pub async fn member_list(&self) -> Result<MemberList, Error> {
        let request = pb::MemberListRequest { linearizable: true };
        Ok(self.read(&pb::MEMBER_LIST, request).await?.into())
    }

    /// Adds a member that is to be started at these peer URLs. A write.
    ///
    /// # Errors
    /// [`EtcdFault::PeerUrlExists`](crate::EtcdFault::PeerUrlExists),
    /// [`EtcdFault::TooFewStarted`](crate::EtcdFault::TooFewStarted),
    /// [`EtcdFault::Unhealthy`](crate::EtcdFault::Unhealthy),
    /// [`EtcdFault::TooManyLearners`](crate::EtcdFault::TooManyLearners).
    pub async fn member_add(
        &self,
        peer_urls: Vec<String>,
        role: Role,
    ) -> Result<Option<MemberInfo>, Error> {
        let is_learner = role == Role::Learner;
        let request = pb::MemberAddRequest { peer_ur_ls: peer_urls, is_learner };
        let added = self.write(&pb::MEMBER_ADD, request).await?;
        Ok(added.member.map(Into::into))
    }

    /// Removes a member. A write.
    ///
    /// # Errors
    /// [`EtcdFault::MemberNotFound`](crate::EtcdFault::MemberNotFound),
    /// [`EtcdFault::TooFewStarted`](crate::EtcdFault::TooFewStarted).
    pub async fn member_remove(&self, id: u64) -> Result<(), Error> {
        self.write(&pb::MEMBER_REMOVE, pb::MemberRemoveRequest { id }).await.map(drop)
    }

    /// Makes a learner a voter. A write.
    ///
    /// # Errors
    /// [`EtcdFault::LearnerNotReady`](crate::EtcdFault::LearnerNotReady),
    /// [`EtcdFault::NotLearner`](crate::EtcdFault::NotLearner).
    pub async fn member_promote(&self, id: u64) -> Result<(), Error> {
        self.write(&pb::MEMBER_PROMOTE, pb::MemberPromoteRequest { id }).await.map(drop)
    }

    /// Replaces a member's peer URLs. A write.
    ///
    /// # Errors
    /// [`EtcdFault::MemberNotFound`](crate::EtcdFault::MemberNotFound),
    /// [`EtcdFault::PeerUrlExists`](crate::EtcdFault::PeerUrlExists).
    pub async fn member_update(&self, id: u64, peer_urls: Vec<String>) -> Result<(), Error> {
        let request = pb::MemberUpdateRequest { id, peer_ur_ls: peer_urls };
        self.write(&pb::MEMBER_UPDATE, request).await.map(drop)
    }
}

impl Member {
    /// The members that this one knows of. Answers without a quorum, too, and may be behind.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn known_members(&self) -> Result<MemberList, Error> {
        let request = pb::MemberListRequest { linearizable: false };
        Ok(self.call(&pb::MEMBER_LIST, request).await?.into())
    }
}
