//! Everything that can go wrong between us and a cluster.
//!
//! An error says what failed, at which endpoint or file, and through [`Error::retry`] whether
//! trying again helps. None carries a password, a token or a key.

mod etcd;
mod tls;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use etcd::EtcdFault;
pub use tls::{CertificateSummary, TlsFault};
pub use tonic::Code;

use crate::endpoint::{Endpoint, EndpointFault};

/// Why something could not be had from a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text of an endpoint makes no sense.
    #[error("endpoint {text:?}: {fault}")]
    Endpoint {
        /// The text, without anything before an `@`.
        text: String,
        /// What is wrong with it.
        fault: EndpointFault,
    },
    /// No endpoint was given at all.
    #[error("no endpoint is given")]
    NoEndpoints,
    /// The user was given without a password.
    #[error("user {user:?} is given without a password")]
    NoPassword {
        /// The user.
        user: String,
    },
    /// A file that TLS needs cannot be used.
    #[error("{role} {}: {fault}", path.display())]
    File {
        /// What the file is for.
        role: FileRole,
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// A client certificate was given without its key, or a key without its certificate.
    #[error("{given} {} is given, but no {missing}", path.display())]
    HalfIdentity {
        /// What was given.
        given: FileRole,
        /// Its path.
        path: PathBuf,
        /// What was not.
        missing: FileRole,
    },
    /// The key is not the certificate's.
    #[error("the key in {} is not that of the certificate in {}", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// No connection could be made. Nothing was sent.
    #[error("cannot connect to {endpoint}: {fault}")]
    Unreachable {
        /// Where to.
        endpoint: Endpoint,
        /// Why.
        fault: DialFault,
    },
    /// TLS could not be agreed on. No request was looked at.
    #[error("cannot speak TLS with {endpoint}: {fault}")]
    Tls {
        /// With whom.
        endpoint: Endpoint,
        /// Why.
        fault: Box<TlsFault>,
    },
    /// The connection ended before the answer did. The request may have been carried out.
    #[error("the connection to {endpoint} was lost during {call}: {cause}")]
    Lost {
        /// To whom.
        endpoint: Endpoint,
        /// The method that was called.
        call: &'static str,
        /// What HTTP/2 or the network said.
        cause: String,
    },
    /// No answer came in time. The request may have been carried out, or may still be.
    #[error("{endpoint} did not answer {call} within {after:?}")]
    Deadline {
        /// Who.
        endpoint: Endpoint,
        /// The method that was called.
        call: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// A stream stopped moving.
    #[error(
        "{call} from {endpoint} stalled: nothing came for {after:?}, {received} bytes came before"
    )]
    Stalled {
        /// Whose.
        endpoint: Endpoint,
        /// The method that streams.
        call: &'static str,
        /// How long was waited for the next message.
        after: Duration,
        /// Bytes of content received until then.
        received: u64,
    },
    /// etcd refused, for a reason that we know.
    #[error("{endpoint} refused {call}: {fault}")]
    Etcd {
        /// Who.
        endpoint: Endpoint,
        /// The method that was called.
        call: &'static str,
        /// The reason.
        fault: EtcdFault,
        /// The reason in etcd's own words.
        message: String,
    },
    /// The call failed for a reason that we do not know.
    #[error("{call} at {endpoint} failed with gRPC status {code:?}: {message}")]
    Rpc {
        /// Where.
        endpoint: Endpoint,
        /// The method that was called.
        call: &'static str,
        /// gRPC's status code.
        code: Code,
        /// What the server said.
        message: String,
    },
    /// An answer that no etcd gives.
    #[error("{endpoint} answered {call} with {what}, which no etcd does")]
    Protocol {
        /// Who.
        endpoint: Endpoint,
        /// The method that was called.
        call: &'static str,
        /// What came.
        what: &'static str,
    },
    /// A watch cannot go on: what it asks for was compacted away.
    #[error(
        "{endpoint} cannot watch from revision {start}: all before {compact_revision} is compacted"
    )]
    WatchCompacted {
        /// Who.
        endpoint: Endpoint,
        /// The revision that the watch wanted next.
        start: i64,
        /// The oldest that can be watched.
        compact_revision: i64,
    },
    /// One revision holds more than a watch was allowed to hold in memory.
    #[error("revision {revision} watched at {endpoint} is larger than the limit of {limit} bytes")]
    RevisionTooLarge {
        /// Whose watch.
        endpoint: Endpoint,
        /// The revision.
        revision: i64,
        /// The limit in bytes.
        limit: usize,
    },
    /// No endpoint could do it; why is given for each.
    #[error("no endpoint could do it:{}", listed(failures))]
    AllFailed {
        /// One error for each endpoint tried, in that order.
        failures: Vec<Self>,
    },
}

fn listed(failures: &[Error]) -> String {
    failures.iter().map(|failure| format!("\n  {failure}")).collect()
}

/// What a file is for, in the words of etcdctl's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileRole {
    /// `--cacert`: who may sign a server's certificate.
    CaCert,
    /// `--cert`: the client's certificate.
    Cert,
    /// `--key`: its private key.
    Key,
}

impl std::fmt::Display for FileRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CaCert => "CA certificate",
            Self::Cert => "client certificate",
            Self::Key => "client key",
        })
    }
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileFault {
    /// It cannot be read.
    #[error("cannot read it: {message}")]
    Read {
        /// The kind of failure.
        kind: io::ErrorKind,
        /// The system's words.
        message: String,
    },
    /// It holds no certificate in PEM.
    #[error("it holds no PEM certificate")]
    NoCertificate,
    /// It holds no private key in PEM.
    #[error("it holds no PEM private key")]
    NoKey,
    /// Its key is encrypted, which etcd's own tools do not take either.
    #[error("its key is encrypted with a passphrase, which is not supported")]
    EncryptedKey,
    /// It is PEM, but what is inside is damaged or of no kind that we know.
    #[error("what it holds cannot be used: {0}")]
    Unusable(String),
}

/// Why no connection could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialFault {
    /// The host is known by no name service.
    #[error("the name {host:?} cannot be resolved: {message}")]
    UnknownHost {
        /// The name.
        host: String,
        /// The resolver's words.
        message: String,
    },
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// Connection and TLS handshake took too long.
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    /// Another fault of the network or the socket.
    #[error("{message}")]
    Io {
        /// The kind of failure.
        kind: io::ErrorKind,
        /// The system's words.
        message: String,
    },
}

/// The method that gets a token, before the call that needs it.
const LOG_IN: &str = "Authenticate";

/// Whether trying again helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Retry {
    /// No: something must be changed first.
    Never,
    /// Another member may well answer at once; the same one perhaps later.
    Elsewhere,
    /// The same may work after a while.
    Later,
}

impl Error {
    /// Whether trying again helps.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::Deadline { .. }
            | Self::Stalled { .. } => Retry::Elsewhere,
            Self::Etcd { fault, .. } => fault.retry(),
            Self::Rpc { code: Code::Unavailable | Code::DeadlineExceeded, .. } => Retry::Elsewhere,
            Self::Rpc { code: Code::ResourceExhausted | Code::Aborted, .. } => Retry::Later,
            // The whole was tried everywhere already; one member that may recover is enough.
            Self::AllFailed { failures } if failures.iter().any(Self::is_transient) => Retry::Later,
            _ => Retry::Never,
        }
    }

    /// Whether the same request may succeed later, or at another member, with nothing changed.
    pub fn is_transient(&self) -> bool {
        self.retry() != Retry::Never
    }

    /// etcd's reason, where it gave one that we know.
    pub fn etcd_fault(&self) -> Option<EtcdFault> {
        match self {
            Self::Etcd { fault, .. } => Some(*fault),
            _ => None,
        }
    }

    /// Whether the request surely changed nothing, so that even a write may go to another member.
    pub(crate) fn was_not_carried_out(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Tls { .. } => true,
            Self::Etcd { fault: EtcdFault::LearnerCannot, .. } => true,
            // The request itself was to follow.
            Self::Lost { call, .. } | Self::Deadline { call, .. } => *call == LOG_IN,
            Self::Etcd { call, fault, .. } => *call == LOG_IN && fault.retry() == Retry::Elsewhere,
            _ => false,
        }
    }

    /// Whether another member may do what this one did not, for a request that can be repeated.
    pub(crate) fn is_this_members_alone(&self) -> bool {
        self.retry() == Retry::Elsewhere || self.was_not_carried_out()
    }

    /// Whether a new token may help.
    pub(crate) fn wants_new_token(&self) -> bool {
        use EtcdFault::{AuthRevisionOld, InvalidAuthToken, UserEmpty};
        matches!(self.etcd_fault(), Some(InvalidAuthToken | AuthRevisionOld | UserEmpty))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn an_endpoint() -> Endpoint {
        Endpoint::parse("http://h:2379", false).expect("an endpoint")
    }

    fn refused(fault: EtcdFault) -> Error {
        let message = String::from("etcdserver: …");
        Error::Etcd { endpoint: an_endpoint(), call: "Range", fault, message }
    }

    fn unreachable() -> Error {
        Error::Unreachable { endpoint: an_endpoint(), fault: DialFault::Refused }
    }

    #[test]
    fn whether_trying_again_helps() {
        let denied = refused(EtcdFault::PermissionDenied);
        for (error, want) in [
            (unreachable(), Retry::Elsewhere),
            (refused(EtcdFault::NoLeader), Retry::Elsewhere),
            (refused(EtcdFault::TooManyRequests), Retry::Later),
            (denied.clone(), Retry::Never),
            (Error::NoEndpoints, Retry::Never),
            (Error::AllFailed { failures: vec![unreachable(), denied.clone()] }, Retry::Later),
            (Error::AllFailed { failures: vec![denied.clone()] }, Retry::Never),
        ] {
            assert_eq!(error.retry(), want, "{error}");
        }
    }

    #[test]
    fn a_write_goes_elsewhere_only_if_it_was_not_carried_out() {
        let lost = |call| Error::Lost { endpoint: an_endpoint(), call, cause: String::new() };
        for (error, want) in [
            (unreachable(), true),
            (refused(EtcdFault::LearnerCannot), true),
            (refused(EtcdFault::TimedOut), false),
            (lost("Put"), false),
            (lost("Authenticate"), true),
        ] {
            assert_eq!(error.was_not_carried_out(), want, "{error}");
            assert!(error.is_this_members_alone(), "{error}");
        }
    }

    #[test]
    fn every_failure_is_listed() {
        let error = Error::AllFailed {
            failures: vec![unreachable(), refused(EtcdFault::PermissionDenied)],
        };
        assert_eq!(
            error.to_string(),
            "no endpoint could do it:\n  \
             cannot connect to http://h:2379: connection refused\n  \
             http://h:2379 refused Range: permission denied"
        );
    }
}
