//! What a [`Client`](crate::Client) is made from.

use std::fmt;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::tls::TlsFiles;

/// Which cluster, how to speak with it, and as whom.
#[derive(Debug, Clone)]
pub struct Config {
    /// Endpoints as etcdctl takes them; one text may hold several, separated by commas.
    pub endpoints: Vec<String>,
    /// How TLS is spoken. Where it is given, endpoints without a scheme use it; where it is not,
    /// `https://` endpoints are checked against the system's authorities.
    pub tls: Option<TlsFiles>,
    /// The user, for a cluster with authentication.
    pub credentials: Option<Credentials>,
    /// How long is waited for what.
    pub timeouts: Timeouts,
}

impl Config {
    /// These endpoints, and etcdctl's defaults for the rest.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: None,
            credentials: None,
            timeouts: Timeouts::default(),
        }
    }

    /// Every endpoint once, in the order given.
    pub(crate) fn parsed_endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for text in self.endpoints.iter().flat_map(|list| list.split(',')) {
            let endpoint = Endpoint::parse(text, self.tls.is_some())?;
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        if endpoints.is_empty() { Err(Error::NoEndpoints) } else { Ok(endpoints) }
    }
}

/// How long is waited for what. No limit bounds a whole stream, only the time without a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, TLS included. etcdctl's `--dial-timeout`.
    pub dial: Duration,
    /// For an answer, from one member. etcdctl's `--command-timeout`.
    pub command: Duration,
    /// For an answer that makes the member read its whole database: HashKV, Defragment, and a
    /// compaction that waits for the disk.
    pub scan: Duration,
    /// For the next message of a stream that should be moving.
    pub stall: Duration,
    /// How long a connection is silent before the peer is asked whether it is there. etcdctl's
    /// `--keepalive-time`; less than 10 s is raised to 10 s, as Go's gRPC does, because etcd closes
    /// the connections of clients that ask more often than every 5 s.
    pub keepalive_time: Duration,
    /// How long the peer may take to say so. etcdctl's `--keepalive-timeout`.
    pub keepalive_timeout: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(2),
            command: Duration::from_secs(5),
            scan: Duration::from_secs(600),
            stall: Duration::from_secs(30),
            keepalive_time: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(6),
        }
    }
}

/// A user and its password. Its `Debug` shows only the user.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// A user and its password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into() }
    }

    /// Reads etcdctl's `--user` and `--password`: where there is no password, `user` is
    /// `NAME:PASSWORD`, divided at the first colon (`etcdctl/ctlv3/command/global.go`).
    ///
    /// # Errors
    /// [`Error::NoPassword`] when neither holds a password; etcdctl then asks on the terminal.
    pub fn from_flags(user: &str, password: Option<&str>) -> Result<Self, Error> {
        let divided = match password {
            Some(password) => Some((user, password)),
            None => user.split_once(':'),
        };
        let (user, password) =
            divided.ok_or_else(|| Error::NoPassword { user: user.to_owned() })?;
        Ok(Self::new(user, password))
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_as_etcdctl_takes_them() {
        let flags = Credentials::from_flags;
        assert_eq!(flags("root:a:b", None), Ok(Credentials::new("root", "a:b")));
        assert_eq!(flags("root:a", Some("pw")), Ok(Credentials::new("root:a", "pw")));
        assert_eq!(flags("root", None), Err(Error::NoPassword { user: "root".into() }));
    }

    #[test]
    fn debug_shows_no_password() {
        let mut config = Config::new(["127.0.0.1:2379"]);
        config.credentials = Some(Credentials::new("root", "hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn endpoints_are_split_and_counted_once() {
        let shown = |endpoints: &[&str]| {
            let parsed = Config::new(endpoints.iter().copied()).parsed_endpoints();
            parsed.map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let want = ["http://a:1", "http://b:2379"].map(String::from).to_vec();
        assert_eq!(shown(&["a:1,b", "http://a:1"]), Ok(want));
        assert_eq!(shown(&[]), Err(Error::NoEndpoints));
    }
}
