//! Members and clusters: their ids, their URLs, their JSON.
//!
//! Source: etcd `server/etcdserver/api/membership/{member,cluster}.go`,
//! `client/pkg/types/{urls,urlsmap,id}.go`.

use crate::ids::{ClusterId, MemberId};
use serde_json::Value;
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// A URL at which a member listens, in the form that etcd accepts: `http://host:port` or
/// `https://host:port` without a path, `unix://…` or `unixs://…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url(String);

/// Why text is no such URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("URL \"{url}\" {fault}")]
pub struct UrlFault {
    /// The text.
    pub url: String,
    /// What is wrong with it.
    pub fault: &'static str,
}

impl Url {
    /// Reads a URL by etcd's rules; blanks around it are cut off.
    ///
    /// # Errors
    /// [`UrlFault`] says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, UrlFault> {
        let text = text.trim();
        let fault = |fault| UrlFault { url: text.to_owned(), fault };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| fault("has no scheme"))?;
        let scheme = scheme.to_ascii_lowercase();
        if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(fault("contains blanks"));
        }
        match scheme.as_str() {
            "http" | "https" => {
                if rest.contains(['/', '?', '#']) {
                    return Err(fault("must not contain a path"));
                }
                let (host, port) = host_and_port(rest)
                    .ok_or_else(|| fault("does not have the form \"host:port\""))?;
                if host.is_empty() || port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(fault("does not have the form \"host:port\""));
                }
            }
            "unix" | "unixs" => {}
            _ => return Err(fault("must have the scheme http, https, unix or unixs")),
        }
        Ok(Self(format!("{scheme}://{rest}")))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host and port of an http or https URL; an IPv6 host without its brackets.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(&str, &str)> {
        let (scheme, rest) = self.0.split_once("://")?;
        scheme.starts_with("http").then(|| host_and_port(rest))?
    }
}

fn host_and_port(authority: &str) -> Option<(&str, &str)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once("]:")?;
        return Some((host, port));
    }
    let (host, port) = authority.rsplit_once(':')?;
    (!host.contains(':')).then_some((host, port))
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What `--initial-cluster` says: the peer URLs of each member by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    peers: BTreeMap<String, Vec<Url>>,
}

/// Why an initial cluster is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterFault {
    /// No member at all.
    #[error("the initial cluster is empty")]
    Empty,
    /// A part that is not `name=url`.
    #[error("\"{part}\" in the initial cluster is not NAME=URL")]
    NotNamed {
        /// The part.
        part: String,
    },
    /// A peer URL that etcd does not accept.
    #[error("initial cluster, member {name}: {fault}")]
    Url {
        /// The member.
        name: String,
        /// What is wrong.
        fault: UrlFault,
    },
    /// One URL for two members.
    #[error("peer URL {url} is used twice in the initial cluster")]
    Duplicate {
        /// The URL.
        url: Url,
    },
    /// Two members came out with the same id, or one with id 0.
    #[error("two members have the id {id}; choose another cluster token")]
    SameId {
        /// The id.
        id: MemberId,
    },
}

impl InitialCluster {
    /// Reads `name=url,name=url`; a name that repeats has several URLs.
    ///
    /// # Errors
    /// [`ClusterFault`].
    pub fn parse(text: &str) -> Result<Self, ClusterFault> {
        let mut peers: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, url) = part
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| ClusterFault::NotNamed { part: part.to_owned() })?;
            let url = Url::parse(url)
                .map_err(|fault| ClusterFault::Url { name: name.to_owned(), fault })?;
            peers.entry(name.to_owned()).or_default().push(url);
        }
        if peers.is_empty() {
            return Err(ClusterFault::Empty);
        }
        let mut all: Vec<_> = peers.values().flatten().collect();
        all.sort();
        if let Some([url, _]) = all.array_windows().find(|[a, b]| a == b) {
            return Err(ClusterFault::Duplicate { url: (*url).clone() });
        }
        peers.values_mut().for_each(|urls| urls.sort());
        Ok(Self { peers })
    }

    /// Names with their peer URLs, both sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Url])> {
        self.peers.iter().map(|(name, urls)| (name.as_str(), urls.as_slice()))
    }

    /// The peer URLs of a member.
    #[must_use]
    pub fn peer_urls(&self, name: &str) -> Option<&[Url]> {
        self.peers.get(name).map(Vec::as_slice)
    }

    /// The cluster that these members form under a token.
    ///
    /// # Errors
    /// [`ClusterFault::SameId`].
    pub fn with_token(&self, token: &str) -> Result<Cluster, ClusterFault> {
        let mut members: Vec<_> = self
            .iter()
            .map(|(name, urls)| Member {
                id: member_id(urls, token),
                name: name.to_owned(),
                peer_urls: urls.iter().map(Url::to_string).collect(),
                client_urls: Vec::new(),
                is_learner: false,
            })
            .collect();
        members.sort_by_key(|member| member.id);
        let same = members.array_windows().find(|[a, b]| a.id == b.id).map(|[a, _]| a.id);
        let zero = members.iter().map(|member| member.id).find(|id| id.0 == 0);
        if let Some(id) = same.or(zero) {
            return Err(ClusterFault::SameId { id });
        }
        let id = cluster_id(&members);
        Ok(Cluster { id, token: token.to_owned(), members })
    }
}

impl fmt::Display for InitialCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.iter().flat_map(|(name, urls)| urls.iter().map(move |url| (name, url)));
        for (index, (name, url)) in parts.enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{name}={url}")?;
        }
        Ok(())
    }
}

/// A cluster that is to be: its members with their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// The token that went into the ids.
    pub token: String,
    /// Its members by ascending id; never empty.
    pub members: Vec<Member>,
}

impl Cluster {
    /// The member of that name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// First 8 bytes of SHA-1 over the sorted peer URLs and the token (`member.go`, computeMemberId).
fn member_id(sorted_urls: &[Url], token: &str) -> MemberId {
    let mut hash = Sha1::new();
    for url in sorted_urls {
        hash.update(url.as_str());
    }
    hash.update(token);
    MemberId(first_u64(&hash.finalize()))
}

/// First 8 bytes of SHA-1 over the ascending member ids (`cluster.go`, genID).
fn cluster_id(sorted_members: &[Member]) -> ClusterId {
    let mut hash = Sha1::new();
    for member in sorted_members {
        hash.update(member.id.0.to_be_bytes());
    }
    ClusterId(first_u64(&hash.finalize()))
}

fn first_u64(digest: &[u8]) -> u64 {
    digest.first_chunk().map_or(0, |chunk| u64::from_be_bytes(*chunk))
}

/// A member as etcd describes it in the `members` bucket and in its raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started.
    pub name: String,
    /// URLs for the other members.
    pub peer_urls: Vec<String>,
    /// URLs for clients; empty until it has started.
    pub client_urls: Vec<String>,
    /// It has no vote.
    pub is_learner: bool,
}

impl Member {
    /// The JSON of Go's encoder: field order of the struct, empty optional fields left out.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json =
            format!("{{\"id\":{},\"peerURLs\":{}", self.id.0, json_list(&self.peer_urls));
        if self.is_learner {
            json += ",\"isLearner\":true";
        }
        if !self.name.is_empty() {
            json += ",\"name\":";
            json += &json_string(&self.name);
        }
        if !self.client_urls.is_empty() {
            json += ",\"clientURLs\":";
            json += &json_list(&self.client_urls);
        }
        json + "}"
    }

    /// Reads that JSON; `None` where it lacks id or peer URLs, or they have another type.
    #[must_use]
    pub fn parse_json(json: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(json).ok()?;
        let strings = |field: &str| match value.get(field) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(list) => {
                list.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
        };
        Some(Self {
            id: MemberId(value.get("id")?.as_u64()?),
            name: value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            peer_urls: strings("peerURLs")?,
            client_urls: strings("clientURLs")?,
            is_learner: value.get("isLearner").and_then(Value::as_bool).unwrap_or_default(),
        })
    }
}

/// A JSON list of strings, null when empty as Go writes a nil slice.
pub(crate) fn json_list(items: &[String]) -> String {
    if items.is_empty() {
        return "null".to_owned();
    }
    let items: Vec<_> = items.iter().map(|item| json_string(item)).collect();
    format!("[{}]", items.join(","))
}

/// A JSON string as Go's encoder writes it: `<`, `>`, `&` and U+2028/9 escaped too.
pub(crate) fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                // Writing into a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(text: &str, token: &str) -> Cluster {
        InitialCluster::parse(text).unwrap().with_token(token).unwrap()
    }

    #[test]
    fn ids_as_etcdutl_computes_them() {
        let two = cluster("n1=http://127.0.0.1:32380,n2=http://127.0.0.1:32480", "tok");
        let ids: Vec<_> = two.members.iter().map(|m| (m.id.to_string(), m.name.as_str())).collect();
        assert_eq!(
            ids,
            [("41f5eef973fce2df".to_owned(), "n2"), ("ca7a34e16cff9c1b".to_owned(), "n1")]
        );
        assert_eq!(two.id.to_string(), "782185fdd402bd74");
    }

    #[test]
    fn ids_do_not_depend_on_the_order_of_urls() {
        let one = cluster("a=http://h:1,a=http://h:2", "t");
        let other = cluster("a=http://h:2, a=http://h:1", "t");
        assert_eq!(one, other);
    }

    #[test]
    fn urls_by_etcds_rules() {
        let check = |text: &str, want: Result<&str, &str>| {
            let got =
                Url::parse(text).map(|url| url.to_string()).map_err(|fault| fault.to_string());
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{text}");
        };
        check("http://10.0.0.1:2380", Ok("http://10.0.0.1:2380"));
        check(" HTTPS://etcd-0.local:2380 ", Ok("https://etcd-0.local:2380"));
        check("http://[::1]:2380", Ok("http://[::1]:2380"));
        check("unix://m1:2380", Ok("unix://m1:2380"));
        check("10.0.0.1:2380", Err("URL \"10.0.0.1:2380\" has no scheme"));
        check("http://h:1/", Err("URL \"http://h:1/\" must not contain a path"));
        check("http://h", Err("URL \"http://h\" does not have the form \"host:port\""));
        check("http://:1", Err("URL \"http://:1\" does not have the form \"host:port\""));
        check("http://::1:1", Err("URL \"http://::1:1\" does not have the form \"host:port\""));
        check("http://h:x", Err("URL \"http://h:x\" does not have the form \"host:port\""));
        check("http://a b:1", Err("URL \"http://a b:1\" contains blanks"));
        check(
            "ftp://h:1",
            Err("URL \"ftp://h:1\" must have the scheme http, https, unix or unixs"),
        );
    }

    #[test]
    fn initial_clusters_that_are_none() {
        let check = |text: &str, want: &str| {
            assert_eq!(InitialCluster::parse(text).unwrap_err().to_string(), want);
        };
        check("", "the initial cluster is empty");
        check(" , ", "the initial cluster is empty");
        check("http://h:1", "\"http://h:1\" in the initial cluster is not NAME=URL");
        check("=http://h:1", "\"=http://h:1\" in the initial cluster is not NAME=URL");
        check("a=h:1", "initial cluster, member a: URL \"h:1\" has no scheme");
        check(
            "a=http://h:1,b=http://h:1",
            "peer URL http://h:1 is used twice in the initial cluster",
        );
    }

    #[test]
    fn an_initial_cluster_prints_as_it_is_read() {
        let text = "a=http://h:1,a=http://h:2,b=https://h:3";
        assert_eq!(InitialCluster::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn member_json_as_go_writes_it() {
        let member = Member {
            id: MemberId(14_589_869_124_234_091_547),
            name: "n<1>&".to_owned(),
            peer_urls: vec!["http://127.0.0.1:32380".to_owned()],
            client_urls: Vec::new(),
            is_learner: false,
        };
        let json = member.to_json();
        assert_eq!(
            json,
            "{\"id\":14589869124234091547,\"peerURLs\":[\"http://127.0.0.1:32380\"],\
             \"name\":\"n\\u003c1\\u003e\\u0026\"}"
        );
        assert_eq!(Member::parse_json(json.as_bytes()), Some(member.clone()));
        let learner = Member {
            client_urls: vec!["http://h:1".to_owned(), "http://h:2".to_owned()],
            is_learner: true,
            ..member
        };
        assert_eq!(Member::parse_json(learner.to_json().as_bytes()), Some(learner));
        assert_eq!(Member::parse_json(b"{\"peerURLs\":[]}"), None);
        assert_eq!(Member::parse_json(b"{\"id\":1,\"peerURLs\":[1]}"), None);
        assert_eq!(Member::parse_json(b"nonsense"), None);
    }
}
