//! etcd's own errors, known by the text that gRPC carries.

use super::Retry;

/// A reason that etcd gives for refusing a call.
///
/// The texts are those of etcd's `api/v3rpc/rpctypes/error.go`, 3.4 to 3.7, and of `auth/store.go`,
/// whose errors the maintenance calls of older servers return unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdFault {
    /// A revision that was asked for is compacted away.
    #[error("the revision is compacted away")]
    Compacted,
    /// A revision that was asked for is not there yet.
    #[error("the revision is in the future")]
    FutureRevision,
    /// The cluster has no leader, or the member does not see it.
    #[error("the cluster has no leader")]
    NoLeader,
    /// Only the leader can do this.
    #[error("the member is not the leader")]
    NotLeader,
    /// The leader changed meanwhile.
    #[error("the leader changed meanwhile")]
    LeaderChanged,
    /// The cluster took too long to agree.
    #[error("the cluster took too long to agree")]
    TimedOut,
    /// The member is stopping.
    #[error("the member is stopping")]
    Stopped,
    /// Too few members are healthy.
    #[error("the cluster is unhealthy")]
    Unhealthy,
    /// The cluster does not know this call yet: it is starting, or too old.
    #[error("the cluster is not capable of this")]
    NotCapable,
    /// A member found its data to differ from the others'.
    #[error("the cluster is marked corrupt")]
    Corrupt,
    /// The database has reached its quota.
    #[error("the database has reached its quota")]
    NoSpace,
    /// The member is overloaded.
    #[error("the member has too many requests")]
    TooManyRequests,
    /// The request exceeds `--max-request-bytes`.
    #[error("the request is too large")]
    RequestTooLarge,
    /// The transaction exceeds `--max-txn-ops`.
    #[error("the transaction has too many operations")]
    TooManyOps,
    /// One key is changed twice in a transaction.
    #[error("the transaction changes a key twice")]
    DuplicateKey,
    /// The key is empty.
    #[error("the key is empty")]
    EmptyKey,
    /// User or password is wrong.
    #[error("user or password is wrong")]
    AuthFailed,
    /// Authentication is off.
    #[error("authentication is not enabled")]
    AuthNotEnabled,
    /// The user has no right to do this. Maintenance calls want the root role.
    #[error("permission denied")]
    PermissionDenied,
    /// The token has expired or is not known.
    #[error("the token is invalid")]
    InvalidAuthToken,
    /// Users or roles changed since the token was made.
    #[error("users or roles changed meanwhile")]
    AuthRevisionOld,
    /// Authentication is on, and the request names no user.
    #[error("the cluster wants a user, and none is given")]
    UserEmpty,
    /// The user exists already.
    #[error("the user exists already")]
    UserExists,
    /// There is no such user.
    #[error("there is no such user")]
    UserNotFound,
    /// The role exists already.
    #[error("the role exists already")]
    RoleExists,
    /// There is no such role.
    #[error("there is no such role")]
    RoleNotFound,
    /// Authentication cannot be enabled without a user called root that has the root role.
    #[error("there is no user root with the role root")]
    NoRoot,
    /// There is no such member.
    #[error("there is no such member")]
    MemberNotFound,
    /// The member exists already.
    #[error("the member exists already")]
    MemberExists,
    /// Another member has this peer URL.
    #[error("another member has this peer URL")]
    PeerUrlExists,
    /// A peer URL makes no sense.
    #[error("a peer URL is invalid")]
    BadPeerUrls,
    /// The change would leave too few started members for a quorum.
    #[error("too few members are started for this change")]
    TooFewStarted,
    /// The member is no learner.
    #[error("the member is not a learner")]
    NotLearner,
    /// The learner has not caught up with the leader yet.
    #[error("the learner has not caught up yet")]
    LearnerNotReady,
    /// The cluster has as many learners as it allows.
    #[error("the cluster has too many learners")]
    TooManyLearners,
    /// A learner does not answer this call.
    #[error("the member is a learner and cannot do this")]
    LearnerCannot,
    /// The member cannot become the leader.
    #[error("the member cannot become the leader")]
    BadTransferee,
    /// There is no such lease.
    #[error("there is no such lease")]
    LeaseNotFound,
    /// The lease exists already.
    #[error("the lease exists already")]
    LeaseExists,
    /// The lease's time is longer than etcd allows.
    #[error("the lease's time to live is too long")]
    LeaseTtlTooLarge,
    /// The server gave the call up.
    #[error("the server gave the call up")]
    Canceled,
}

impl EtcdFault {
    /// Recognises what a gRPC status, or the reason of a cancelled watch, says.
    pub(crate) fn from_message(message: &str) -> Option<Self> {
        // A cancelled watch quotes a whole status: "rpc error: code = … desc = etcdserver: …".
        let text = message.rsplit_once("desc = ").map_or(message, |(_, text)| text);
        let text = ["etcdserver: ", "auth: "]
            .into_iter()
            .find_map(|source| text.strip_prefix(source))
            .unwrap_or(text);
        KNOWN.iter().find(|(known, _)| *known == text).map(|(_, fault)| *fault)
    }

    pub(super) fn retry(self) -> Retry {
        match self {
            Self::NoLeader
            | Self::LeaderChanged
            | Self::TimedOut
            | Self::Stopped
            | Self::Unhealthy
            | Self::NotLeader
            | Self::LearnerCannot => Retry::Elsewhere,
            Self::TooManyRequests
            | Self::NotCapable
            | Self::AuthRevisionOld
            | Self::InvalidAuthToken
            | Self::LearnerNotReady
            | Self::Canceled => Retry::Later,
            _ => Retry::Never,
        }
    }
}

const KNOWN: &[(&str, EtcdFault)] = &[
    ("mvcc: required revision has been compacted", EtcdFault::Compacted),
    ("mvcc: required revision is a future revision", EtcdFault::FutureRevision),
    ("no leader", EtcdFault::NoLeader),
    ("not leader", EtcdFault::NotLeader),
    ("leader changed", EtcdFault::LeaderChanged),
    ("request timed out", EtcdFault::TimedOut),
    ("request timed out, possibly due to previous leader failure", EtcdFault::TimedOut),
    ("request timed out, possibly due to connection lost", EtcdFault::TimedOut),
    ("request timed out, waiting for the applied index took too long", EtcdFault::TimedOut),
    ("context deadline exceeded", EtcdFault::TimedOut),
    ("server stopped", EtcdFault::Stopped),
    ("unhealthy cluster", EtcdFault::Unhealthy),
    ("not capable", EtcdFault::NotCapable),
    ("corrupt cluster", EtcdFault::Corrupt),
    ("mvcc: database space exceeded", EtcdFault::NoSpace),
    ("too many requests", EtcdFault::TooManyRequests),
    ("request is too large", EtcdFault::RequestTooLarge),
    ("too many operations in txn request", EtcdFault::TooManyOps),
    ("duplicate key given in txn request", EtcdFault::DuplicateKey),
    ("key is not provided", EtcdFault::EmptyKey),
    ("authentication failed, invalid user ID or password", EtcdFault::AuthFailed),
    ("authentication failed, password was given for no password user", EtcdFault::AuthFailed),
    ("authentication is not enabled", EtcdFault::AuthNotEnabled),
    ("permission denied", EtcdFault::PermissionDenied),
    ("invalid auth token", EtcdFault::InvalidAuthToken),
    ("revision of auth store is old", EtcdFault::AuthRevisionOld),
    ("revision in header is old", EtcdFault::AuthRevisionOld),
    ("user name is empty", EtcdFault::UserEmpty),
    ("user name already exists", EtcdFault::UserExists),
    ("user already exists", EtcdFault::UserExists),
    ("user name not found", EtcdFault::UserNotFound),
    ("user not found", EtcdFault::UserNotFound),
    ("role name already exists", EtcdFault::RoleExists),
    ("role already exists", EtcdFault::RoleExists),
    ("role name not found", EtcdFault::RoleNotFound),
    ("role not found", EtcdFault::RoleNotFound),
    ("root user does not exist", EtcdFault::NoRoot),
    ("root user does not have root role", EtcdFault::NoRoot),
    ("member not found", EtcdFault::MemberNotFound),
    ("member ID already exist", EtcdFault::MemberExists),
    ("Peer URLs already exists", EtcdFault::PeerUrlExists),
    ("given member URLs are invalid", EtcdFault::BadPeerUrls),
    ("re-configuration failed due to not enough started members", EtcdFault::TooFewStarted),
    ("can only promote a learner member", EtcdFault::NotLearner),
    ("can only promote a learner member which is in sync with leader", EtcdFault::LearnerNotReady),
    ("too many learner members in cluster", EtcdFault::TooManyLearners),
    ("rpc not supported for learner", EtcdFault::LearnerCannot),
    ("bad leader transferee", EtcdFault::BadTransferee),
    ("requested lease not found", EtcdFault::LeaseNotFound),
    ("lease already exists", EtcdFault::LeaseExists),
    ("too large lease TTL", EtcdFault::LeaseTtlTooLarge),
    ("watch canceled", EtcdFault::Canceled),
    ("request canceled", EtcdFault::Canceled),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_server_are_recognised() {
        for (message, want) in [
            ("etcdserver: mvcc: required revision has been compacted", Some(EtcdFault::Compacted)),
            ("etcdserver: invalid auth token", Some(EtcdFault::InvalidAuthToken)),
            ("auth: permission denied", Some(EtcdFault::PermissionDenied)),
            (
                "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
                Some(EtcdFault::PermissionDenied),
            ),
            ("etcdserver: no such thing", None),
            ("", None),
        ] {
            assert_eq!(EtcdFault::from_message(message), want, "{message}");
        }
    }

    #[test]
    fn no_text_means_two_things() {
        for (index, (text, _)) in KNOWN.iter().enumerate() {
            assert!(KNOWN[..index].iter().all(|(other, _)| other != text), "{text}");
        }
    }
}
