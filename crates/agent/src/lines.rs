//! What `rekindle capture -w json` prints, a line each: what an agent knows of the captures that it runs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Line {
    /// How far it is; every second.
    Status {
        /// The last revision that has come.
        head: Option<i64>,
        /// So many revisions the cluster is ahead of it, as far as is known.
        behind: i64,
        /// For so long, in seconds.
        behind_seconds: f64,
        /// Since when the cluster has not said anything, in seconds; none: it never has.
        silent_seconds: Option<f64>,
        /// How far each archive is.
        archives: Vec<ArchiveLine>,
    },
    /// A base was made, or not.
    Base {
        /// The archive's place.
        archive: String,
        /// Of which revision; none where it failed.
        revision: Option<i64>,
        /// When that was the cluster's.
        time: Option<Timestamp>,
        /// Bytes that were written for it.
        new_bytes: u64,
        /// It is not what was there before.
        contradicts: bool,
        /// The same in words.
        text: String,
    },
    /// Members have said their HashKV, and agree or not.
    Members {
        /// They do not.
        differ: bool,
        /// The same in words.
        text: String,
    },
    /// Revisions are no restore points of an archive.
    Gap {
        /// The archive's place.
        archive: String,
        /// The first of them.
        first: i64,
        /// The last.
        last: i64,
        /// The same in words.
        text: String,
    },
    /// The cluster is another one than before, or was restored.
    AnotherHistory {
        /// The same in words.
        text: String,
    },
    /// Anything else.
    Note {
        /// Something failed, and is tried again.
        failed: bool,
        /// The archive's place, where it is of one.
        #[serde(default)]
        archive: Option<String>,
        /// In words.
        text: String,
    },
}

/// How far an archive is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveLine {
    /// Its place.
    pub archive: String,
    /// The last revision that it has for good.
    pub written: Option<i64>,
    /// Another host writes into it.
    pub stands_by: bool,
    /// Bytes of the records that this capture has written into its log.
    pub record_bytes: u64,
    /// What they take in the store.
    pub stored_bytes: u64,
    /// The revision of its newest base, as far as this host knows.
    pub base: Option<i64>,
    /// When that was the cluster's.
    pub base_time: Option<Timestamp>,
    /// The newest revision at which this capture found it equal to a snapshot.
    pub proven: Option<i64>,
}

impl Line {
    /// Reads a line; none where it is of a later version, or nothing of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As it is printed.
    #[must_use]
    pub fn print(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_printed() {
        let archive =
            ArchiveLine { archive: "/a".to_owned(), base: Some(3), ..ArchiveLine::default() };
        let lines = [
            Line::Status {
                head: Some(7),
                behind: 0,
                behind_seconds: 0.5,
                silent_seconds: None,
                archives: vec![archive],
            },
            Line::Members { differ: true, text: "ALARM".to_owned() },
        ];
        for line in lines {
            let text = line.print();
            assert!(!text.contains('\n'));
            assert_eq!(Line::parse(&text), Some(line));
        }
        assert_eq!(Line::parse("writing into /a"), None);
        assert_eq!(Line::parse(r#"{"event":"ofAnotherVersion"}"#), None);
    }
}
