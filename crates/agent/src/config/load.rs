//! Reading a configuration: every fault with its place.

use super::{Config, check};
use rekindle_archive::Place;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;
use std::path::PathBuf;

/// No configuration is larger.
const BYTES_MAX: usize = 4 << 20;
/// Names that are so alike are taken for each other.
const ALIKE: f64 = 0.75;
/// What the reader says, and what a person wants to know.
const WORDS: [(&str, &str); 8] = [
    ("invalid u", "a whole number is wanted, from 0 on"),
    ("invalid boolean", "true or false is wanted"),
    ("expected sequence start", "a list is wanted: [a, b], or a line with - for each"),
    ("expected mapping start", "fields are wanted, such as name: value"),
    ("expected string scalar", "a text is wanted"),
    ("cannot deserialize null", "there is no value"),
    ("duplicate mapping key: ", "it is there twice: "),
    ("unclosed bracket ", "a bracket is not closed: "),
];

/// Something that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, such as `clusters[0].archives[1].place`.
    pub path: String,
    /// In which line, from 1 on.
    pub line: Option<u64>,
    /// What.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !matches!(&*self.path, "" | ".") {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

impl Config {
    /// Archives by the one name that their places always have.
    fn normalize(&mut self) {
        for archive in self.clusters.iter_mut().flat_map(|cluster| &mut cluster.archives) {
            if let Ok(place) = Place::parse(&archive.place) {
                archive.place = place.to_string();
            }
        }
    }

    /// The state that a text names which may be no good configuration.
    #[must_use]
    pub fn state_in(text: &str) -> PathBuf {
        let named = text.lines().find_map(|line| line.strip_prefix("state:"));
        let named = named.map(|value| value.split(" #").next().unwrap_or(value).trim());
        let named = named.map(|value| value.trim_matches(['"', '\'']));
        named.filter(|value| !value.is_empty()).map_or_else(super::default_state, PathBuf::from)
    }

    /// Reads a configuration. Secrets are not looked at.
    ///
    /// # Errors
    /// All that is wrong with it; where it cannot be read at all, the first fault.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        if text.len() > BYTES_MAX {
            let what = format!("it is larger than {} MiB", BYTES_MAX >> 20);
            return Err(vec![Fault { path: String::new(), line: None, what }]);
        }
        let mut path = String::new();
        let read = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
            serde_path_to_error::deserialize(deserializer).map_err(|error| {
                path = error.path().to_string();
                error.into_inner()
            })
        });
        let mut faults = match read {
            Ok(mut config) => {
                let faults = check::check(&config);
                if faults.is_empty() {
                    config.normalize();
                    return Ok(config);
                }
                faults
            }
            Err(error) => vec![of_yaml(&error, &path)],
        };
        let lines = serde_saphyr::from_str::<Spanned<Node>>(text).ok();
        for fault in faults.iter_mut().filter(|fault| fault.line.is_none()) {
            fault.line = lines.as_ref().and_then(|root| line_of(root, &fault.path));
        }
        Err(faults)
    }
}

/// What the reader says, in fewer words.
fn of_yaml(error: &serde_saphyr::Error, path: &str) -> Fault {
    let error = error.without_snippet();
    let is_missing = matches!(error, serde_saphyr::Error::SerdeMissingField { .. });
    // That something is missing is known at the end of what should have it.
    let line = error.location().filter(|_| !is_missing).map(|location| location.line());
    let what = match error {
        serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => {
            unknown("field", field, expected)
        }
        serde_saphyr::Error::SerdeUnknownVariant { variant, expected, .. } => {
            unknown("value", variant, expected)
        }
        serde_saphyr::Error::SerdeMissingField { field, .. } => format!("{field} is missing"),
        other => {
            // It ends with where that was, which is said already.
            let text = other.to_string();
            let end = text.rfind(" at line ").or_else(|| text.find(" (line "));
            plain(text.get(..end.unwrap_or(text.len())).unwrap_or_default())
        }
    };
    Fault { path: path.trim_end_matches(".?").trim_matches('?').to_owned(), line, what }
}

fn plain(text: &str) -> String {
    let Some((begin, words)) = WORDS.iter().find(|(begin, _)| text.starts_with(begin)) else {
        return text.to_owned();
    };
    let rest = text.strip_prefix(begin).and_then(|rest| rest.split(',').next());
    format!("{words}{}", rest.filter(|_| words.ends_with(' ')).unwrap_or_default())
}

fn unknown(kind: &str, name: &str, known: &[&'static str]) -> String {
    let likeness = |other: &str| strsim::jaro_winkler(name, other);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|nearest| likeness(nearest) >= ALIKE) {
        Some(nearest) => format!("there is no {kind} {name}; did you mean {nearest}?"),
        None => format!("there is no {kind} {name}; there are {}", known.join(", ")),
    }
}

/// A document without what its values mean.
enum Node {
    Map(Vec<(String, Spanned<Node>)>),
    List(Vec<Spanned<Node>>),
    Other,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }
}

/// The line of what a path names, or of the last thing on the way to it that is there.
fn line_of(root: &Spanned<Node>, path: &str) -> Option<u64> {
    let mut at = root;
    for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
        let next = match (&at.value, step.strip_suffix(']')) {
            (Node::Map(entries), None) => {
                entries.iter().find(|(name, _)| name == step).map(|(_, value)| value)
            }
            (Node::List(items), Some(number)) => {
                number.parse::<usize>().ok().and_then(|number| items.get(number))
            }
            _ => None,
        };
        let Some(next) = next else { break };
        at = next;
    }
    Some(at.referenced.line())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
state: /var/lib/rekindle
clusters:
- name: prod
  endpoints: [https://10.0.0.1:2379]
  cacert: /ca.crt
  archives:
  - place: /backup/etcd
    prune:
      keep: {daily: 7}
  snapshots:
  - name: minutely
    schedule: '@every 1m'
    to: [/backup/snapshot.db]
";

    #[track_caller]
    fn check_refused(from: &str, to: &str, want: &[&str]) {
        assert!(GOOD.contains(from), "{from}");
        let faults = Config::parse(&GOOD.replacen(from, to, 1)).unwrap_err();
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults, want);
    }

    #[test]
    fn what_is_good_is_read() {
        let config = Config::parse(GOOD).unwrap();
        let cluster = config.cluster(None).unwrap();
        assert_eq!(cluster.archive("/backup/etcd").unwrap().prune.as_ref().unwrap().keep.daily, 7);
        assert_eq!(cluster.capture.flush_interval.to_string(), "5s");
        assert_eq!(cluster.capture.journal.to_string(), "2GiB");
        assert_eq!(config.listen().unwrap(), Some("127.0.0.1:8379".parse().unwrap()));
        assert!(config.cluster(Some("prod")).is_some() && config.cluster(Some("x")).is_none());
    }

    #[test]
    fn what_is_unknown_names_what_it_is_like() {
        let want = "line 5: clusters[0].caCert: there is no field caCert; did you mean cacert?";
        check_refused("cacert", "caCert", &[want]);
        let want = "line 5: clusters[0].xyzzy: there is no field xyzzy; there are name, ";
        let faults = Config::parse(&GOOD.replace("cacert", "xyzzy")).unwrap_err();
        assert!(faults[0].to_string().starts_with(want), "{}", faults[0]);
    }

    #[test]
    fn what_is_of_the_wrong_kind_is_named_with_its_place() {
        let faults = Config::parse(&GOOD.replace("daily: 7", "daily: many")).unwrap_err();
        let told = faults[0].to_string();
        assert!(told.starts_with("line 9: clusters[0].archives[0].prune.keep.daily: "), "{told}");
        let faults = Config::parse(&GOOD.replace("- name: prod\n  ", "- ")).unwrap_err();
        assert_eq!(faults[0].to_string(), "line 3: clusters[0]: name is missing");
        let faults = Config::parse("clusters: [").unwrap_err();
        assert_eq!((faults.len(), faults[0].line), (1, Some(1)));
        assert_eq!(Config::parse("").unwrap_err().len(), 1);
    }

    #[test]
    fn all_that_makes_no_sense_is_told_at_once() {
        check_refused(
            "/var/lib/rekindle",
            "rekindle\nlisten: here",
            &[
                "line 2: listen: \"here\" is no address such as 127.0.0.1:8379, and not off",
                "line 1: state: write the whole path, from / on",
            ],
        );
        let faults = Config::parse(&GOOD.replace("@every 1m", "@every x")).unwrap_err();
        let told = faults[0].to_string();
        assert!(
            told.starts_with("line 12: clusters[0].snapshots[0].schedule: \"x\" is no"),
            "{told}"
        );
        check_refused(
            "[/backup/snapshot.db]",
            "[backup/, /b/x.db]\n    keep: {last: 3, log: 1d}",
            &[
                "line 13: clusters[0].snapshots[0].to[0]: \"backup/\" names no file: add one, such as \
                 etcd-%Y%m%dT%H%M%SZ.db",
                "line 13: clusters[0].snapshots[0].to[0]: \"backup/\": write the whole path, from / on, \
                 or a URL",
                "line 14: clusters[0].snapshots[0].keep: no name in to has a date: each run replaces \
                 the one before",
                "line 14: clusters[0].snapshots[0].keep.log: snapshots have no log",
            ],
        );
        check_refused(
            "  endpoints: [https://10.0.0.1:2379]\n",
            "  password: x\n  cert: /c\n",
            &[
                "line 3: clusters[0]: nothing says where it is: give endpoints, or the manifest of a \
                 member",
                "line 4: clusters[0].password: there is a password, but no user",
                "line 3: clusters[0]: cert and key go together: give both, or neither",
            ],
        );
        check_refused(
            "{daily: 7}",
            "{}",
            &["line 9: clusters[0].archives[0].prune.keep: no rule is given, so nothing would go"],
        );
        check_refused(
            "{daily: 7}",
            "{daily: 7}\n  - {place: /backup/etcd, name: other}",
            &["line 10: clusters[0].archives[1].place: /backup/etcd is named twice"],
        );
        check_refused(
            "{daily: 7}",
            "{daily: 7}\n  - place: /backup/other",
            &["line 10: clusters[0].archives[1].name: there are two that are called main"],
        );
    }

    #[test]
    fn what_the_reader_says_is_said_plainly() {
        let check = |from: &str, to: &str, want: &str| {
            assert!(GOOD.contains(from), "{from}");
            let faults = Config::parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            let told = faults[0].to_string();
            assert!(told.ends_with(&format!(": {want}")), "{told}");
        };
        check("daily: 7", "daily: many", "a whole number is wanted, from 0 on");
        check("daily: 7", "daily: -1", "a whole number is wanted, from 0 on");
        check("{daily: 7}", "yes", "fields are wanted, such as name: value");
        check("[/backup/snapshot.db]", "/b", "a list is wanted: [a, b], or a line with - for each");
        check("name: prod", "name: [a]", "a text is wanted");
        check("cacert: /ca.crt", "name: b", "it is there twice: name");
        check("'@every 1m'", "", "there is no value");
    }

    #[test]
    fn what_would_do_harm_is_refused() {
        let port = "line 4: clusters[0].endpoints[0]: \"https://10.0.0.1\" has no port: add it, such as \
                    :2379";
        check_refused(":2379", "", &[port]);
        let often = "line 10: clusters[0].capture.bases: \"@every 10s\": not more often than every minute, for \
                     etcd copies its whole database for each; what comes between is in the log";
        check_refused("  snapshots", "  capture: {bases: '@every 10s'}\n  snapshots", &[often]);
        check_refused(
            "[/backup/snapshot.db]",
            "[/backup/etcd/x.db, /b.db, /b.db, /%Q.db]",
            &[
                "line 13: clusters[0].snapshots[0].to[3]: the pattern in \"/%Q.db\" is always the same; a % \
                 begins a pattern such as %Y; write %% for a percent sign itself",
                "line 13: clusters[0].snapshots[0].to[0]: it lies in the archive /backup/etcd: name a place \
                 beside it",
                "line 13: clusters[0].snapshots[0].to[2]: /b.db is written by two jobs",
            ],
        );
        check_refused(
            "[/backup/snapshot.db]",
            "[/backup/etcd/, '/b/%H.db']\n    keep: {last: 3}",
            &[
                "line 13: clusters[0].snapshots[0].to[0]: \"/backup/etcd/\" names no file: add one, such as \
                 etcd-%Y%m%dT%H%M%SZ.db",
                "line 13: clusters[0].snapshots[0].to[1]: names that \"/b/%H.db\" gives do not say of which day \
                 they are, so keep would find none: use a year, a month and a day, such as %Y%m%d",
                "line 13: clusters[0].snapshots[0].to[0]: /backup/etcd/ is an archive: capture.bases says when \
                 it gets bases",
                "line 13: clusters[0].snapshots[0].to[0]: it lies in the archive /backup/etcd: name a place \
                 beside it",
            ],
        );
        let paused = "line 10: clusters[0].paused: say why it is paused, or take it out: whoever is paged \
                      reads it";
        check_refused("  snapshots", "  paused: ' '\n  snapshots", &[paused]);
        check_refused(
            "clusters:",
            "alarms: {missedRuns: 0}\nwebhooks: [{url: 'ftp://canary'}]\nheartbeat: {url: 'file:/x'}\nclusters:",
            &[
                "line 2: alarms.missedRuns: at least 1: a job is not late before it is due",
                "line 3: webhooks[0].url: a URL is wanted that begins with https:// or http://",
            ],
        );
        check_refused(
            "clusters:",
            "alarms: {missedRuns: 1001, repeat: 59s}\nheartbeat: {url: 'http://h', every: 0s}\nclusters:",
            &[
                "line 2: alarms.missedRuns: no more than 1000",
                "line 2: alarms.repeat: at least 1m makes sense",
                "line 3: heartbeat.every: at least 1s makes sense",
            ],
        );
        let jitter = "line 13: clusters[0].snapshots[0].jitter: as long as from one run to the next, or longer: runs \
                      would be left out";
        check_refused("'@every 1m'", "'@every 1m'\n    jitter: 60s", &[jitter]);
        let probe = "line 10: clusters[0].archives[0].drill.probes[0]: \"=x\" is neither PREFIX nor \
                     PREFIX=COUNT, such as /registry/pods/=3";
        check_refused("{daily: 7}", "{daily: 7}\n    drill: {probes: ['=x']}", &[probe]);
    }

    #[test]
    fn the_state_is_found_in_what_is_not_good() {
        let check =
            |text: &str, want: &str| assert_eq!(Config::state_in(text), PathBuf::from(want));
        check("listen: off\nstate: '/s' # ours\nclusters: [", "/s");
        check("state: /var/lib/x\n", "/var/lib/x");
        check("clusters:\n- {state: /no}\n", "/var/lib/rekindle");
    }

    #[test]
    fn a_place_has_one_name() {
        let config = Config::parse(&GOOD.replace("/backup/etcd", "s3://bucket/etcd/")).unwrap();
        assert_eq!(config.clusters[0].archives[0].place, "s3://bucket/etcd");
    }

    #[test]
    fn names_are_plain_and_of_one_alone() {
        let bad = "line 3: clusters[0].name: \"Prod_1\" is no name: up to 63 lower-case letters, \
                   digits and hyphens";
        check_refused("name: prod", "name: Prod_1", &[bad]);
    }

    #[test]
    fn secrets_are_in_no_fault_and_not_shown() {
        let text = GOOD.replace("  cacert", "  user: root\n  password: canary\n  cacert");
        let config = Config::parse(&text).unwrap();
        assert!(!format!("{config:?}").contains("canary"));
        let bad = text.replace("password: canary", "password: [canary]");
        let faults = Config::parse(&bad).unwrap_err();
        assert!(!faults[0].to_string().contains("canary"), "{}", faults[0]);
    }
}
