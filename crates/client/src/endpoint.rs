//! Endpoints as etcdctl takes them: `host:port`, with or without a scheme.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::Error;

/// etcd's port for clients, where an endpoint names none.
const DEFAULT_PORT: u16 = 2379;

/// Where one member serves clients. Cheap to clone; shown as a URL.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(Arc<Parts>);

#[derive(PartialEq, Eq, Hash)]
struct Parts {
    address: Address,
    tls: bool,
}

/// What is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    /// A host name or an IP address, without brackets.
    Tcp { host: String, port: u16 },
    /// A socket in the file system.
    Unix(PathBuf),
}

/// What is wrong with the text of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointFault {
    /// There is no host, or no path of a socket.
    #[error("no host is named")]
    NoHost,
    /// Only http, https, unix and unixs are known.
    #[error("scheme {0:?} is none of http, https, unix, unixs")]
    Scheme(String),
    /// The port is not a number from 1 to 65535.
    #[error("{0:?} is not a port")]
    Port(String),
    /// Something follows the port.
    #[error("an endpoint has no path, but this has {0:?}")]
    Path(String),
    /// User and password stand elsewhere; the text is not repeated, as it may hold one.
    #[error("an endpoint has no user or password before an \"@\"")]
    UserInfo,
}

impl Endpoint {
    /// Reads an endpoint.
    ///
    /// `http` and `https` say whether TLS is spoken, as do `unix` and `unixs`; without a scheme,
    /// and for `unix`, `tls_by_default` says so, like etcd's own client
    /// (`client/v3/internal/endpoint`). The port is 2379 unless given. An IPv6 address with a port
    /// stands in brackets.
    ///
    /// # Errors
    /// [`Error::Endpoint`].
    pub fn parse(text: &str, tls_by_default: bool) -> Result<Self, Error> {
        parse(text.trim(), tls_by_default).map(|parts| Self(Arc::new(parts))).map_err(|fault| {
            let shown = text.rsplit('@').next().unwrap_or_default();
            Error::Endpoint { text: shown.to_owned(), fault }
        })
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        self.0.tls
    }

    pub(crate) fn address(&self) -> &Address {
        &self.0.address
    }

    /// The name that the server's certificate must bear.
    pub(crate) fn server_name(&self) -> String {
        match &self.0.address {
            Address::Tcp { host, .. } => host.clone(),
            // etcd's client takes the file's name up to a colon.
            Address::Unix(path) => {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                file.split(':').next().unwrap_or_default().to_owned()
            }
        }
    }

    /// Host and port, as HTTP writes them.
    pub(crate) fn authority(&self) -> String {
        let origin = self.origin();
        origin.split_once("://").map_or(origin.as_str(), |(_, rest)| rest).to_owned()
    }

    /// The URL whose authority goes into each request. A socket has none of its own.
    pub(crate) fn origin(&self) -> String {
        match &self.0.address {
            Address::Tcp { .. } => self.to_string(),
            Address::Unix(_) if self.0.tls => "https://localhost".to_owned(),
            Address::Unix(_) => "http://localhost".to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.0.tls { "s" } else { "" };
        match &self.0.address {
            Address::Tcp { host, port } if host.contains(':') => {
                write!(f, "http{secure}://[{host}]:{port}")
            }
            Address::Tcp { host, port } => write!(f, "http{secure}://{host}:{port}"),
            Address::Unix(path) => write!(f, "unix{secure}://{}", path.display()),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn parse(text: &str, tls_by_default: bool) -> Result<Parts, EndpointFault> {
    if text.contains('@') {
        return Err(EndpointFault::UserInfo);
    }
    for (scheme, tls) in [("unixs:", true), ("unix:", tls_by_default)] {
        if let Some(path) = text.strip_prefix(scheme) {
            return unix(path.strip_prefix("//").unwrap_or(path), tls);
        }
    }
    let (tls, rest) = match text.split_once("://") {
        None => (tls_by_default, text),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        Some((scheme, _)) => return Err(EndpointFault::Scheme(scheme.to_owned())),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if path.len() > 1 {
        return Err(EndpointFault::Path(path.to_owned()));
    }
    let (host, port) = host_and_port(authority)?;
    if host.is_empty() {
        return Err(EndpointFault::NoHost);
    }
    Ok(Parts { address: Address::Tcp { host: host.to_owned(), port }, tls })
}

fn unix(path: &str, tls: bool) -> Result<Parts, EndpointFault> {
    if path.is_empty() {
        return Err(EndpointFault::NoHost);
    }
    Ok(Parts { address: Address::Unix(path.into()), tls })
}

fn host_and_port(authority: &str) -> Result<(&str, u16), EndpointFault> {
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Ok((authority, DEFAULT_PORT));
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) if host.parse::<Ipv6Addr>().is_err() => return Err(EndpointFault::NoHost),
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or(rest))),
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let Some(port) = port else {
        return Ok((host, DEFAULT_PORT));
    };
    match port.parse() {
        Ok(number) if number > 0 => Ok((host, number)),
        _ => Err(EndpointFault::Port(port.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_shown(text: &str, want: &str, want_with_tls: &str) {
        for (tls, want) in [(false, want), (true, want_with_tls)] {
            let endpoint = Endpoint::parse(text, tls).expect(text);
            assert_eq!(endpoint.to_string(), want, "{text} with TLS by default: {tls}");
        }
    }

    #[test]
    fn endpoints_as_etcdctl_takes_them() {
        let same = |text, want| check_shown(text, want, want);
        check_shown("127.0.0.1:2379", "http://127.0.0.1:2379", "https://127.0.0.1:2379");
        check_shown("etcd.example:1", "http://etcd.example:1", "https://etcd.example:1");
        check_shown("etcd.example", "http://etcd.example:2379", "https://etcd.example:2379");
        check_shown("[::1]:99", "http://[::1]:99", "https://[::1]:99");
        check_shown("[::1]", "http://[::1]:2379", "https://[::1]:2379");
        check_shown("fd00::7", "http://[fd00::7]:2379", "https://[fd00::7]:2379");
        check_shown(" h:5 ", "http://h:5", "https://h:5");
        same("http://h:5", "http://h:5");
        same("HTTPS://h:5/", "https://h:5");
        same("https://[fd00::7]:5", "https://[fd00::7]:5");
        check_shown("unix:///run/etcd.sock", "unix:///run/etcd.sock", "unixs:///run/etcd.sock");
        check_shown("unix://localhost:m0", "unix://localhost:m0", "unixs://localhost:m0");
        same("unixs:sock", "unixs://sock");
    }

    #[track_caller]
    fn check_fault(text: &str, want: EndpointFault) {
        match Endpoint::parse(text, false) {
            Err(Error::Endpoint { fault, .. }) => assert_eq!(fault, want, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_is_no_endpoint() {
        check_fault("", EndpointFault::NoHost);
        check_fault("https://", EndpointFault::NoHost);
        check_fault(":2379", EndpointFault::NoHost);
        check_fault("[nonsense]:1", EndpointFault::NoHost);
        check_fault("unix://", EndpointFault::NoHost);
        check_fault("ftp://h:1", EndpointFault::Scheme("ftp".into()));
        check_fault("h:0", EndpointFault::Port("0".into()));
        check_fault("h:65536", EndpointFault::Port("65536".into()));
        check_fault("h:", EndpointFault::Port(String::new()));
        check_fault("[::1]x", EndpointFault::Port("x".into()));
        check_fault("http://h:1/v3", EndpointFault::Path("/v3".into()));
        check_fault("http://root:pw@h:1", EndpointFault::UserInfo);
    }

    #[test]
    fn a_password_in_an_endpoint_is_not_repeated() {
        let error = Endpoint::parse("https://root:hunter2@h:1", false).expect_err("it has a user");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn the_name_that_a_certificate_must_bear() {
        for (text, want) in
            [("h:1", "h"), ("[::1]:1", "::1"), ("unix:///run/localhost:m0", "localhost")]
        {
            let endpoint = Endpoint::parse(text, true).expect(text);
            assert_eq!(endpoint.server_name(), want);
        }
    }
}
