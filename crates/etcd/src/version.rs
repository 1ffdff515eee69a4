//! Versions of etcd: which wrote a database, which may boot it, which have known faults.

use std::fmt;

/// A version of etcd, such as 3.6.16. Of a database only the minor version is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Always 3 so far.
    pub major: u32,
    /// The release line.
    pub minor: u32,
    /// The release; 0 in what etcd stores.
    pub patch: u32,
}

impl Version {
    /// A version by its parts.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads `3.6.16`; a leading `v` and what follows `-` or `+` are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('v');
        let numbers = text.split(['-', '+']).next()?;
        let mut parts = numbers.split('.').map(|part| part.parse().ok());
        let version = Self::new(parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
        parts.next().is_none().then_some(version)
    }

    /// The release line, such as 3.6.
    #[must_use]
    pub const fn line(self) -> Line {
        Line { major: self.major, minor: self.minor }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A release line of etcd, such as 3.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// Always 3 so far.
    pub major: u32,
    /// The release line.
    pub minor: u32,
}

impl Line {
    /// etcd 3.4.
    pub const V3_4: Self = Self { major: 3, minor: 4 };
    /// etcd 3.5.
    pub const V3_5: Self = Self { major: 3, minor: 5 };
    /// etcd 3.6.
    pub const V3_6: Self = Self { major: 3, minor: 6 };
    /// etcd 3.7.
    pub const V3_7: Self = Self { major: 3, minor: 7 };
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What in a database tells which etcd wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// `storageVersion` of bucket `meta` (since 3.6).
    pub storage: Option<Version>,
    /// `clusterVersion` of bucket `cluster`.
    pub cluster: Option<Version>,
    /// `term` of bucket `meta` is there (since 3.5).
    pub has_term: bool,
}

impl Marks {
    /// The release line whose format the database has (etcd `server/storage/schema/schema.go`,
    /// UnsafeDetectSchemaVersion): the storage version, else 3.5 where there is a term, else 3.4.
    #[must_use]
    pub fn format(&self) -> Line {
        match (self.storage, self.has_term) {
            (Some(version), _) => version.line(),
            (None, true) => Line::V3_5,
            (None, false) => Line::V3_4,
        }
    }

    /// The newest line that has left a mark: what the cluster ran.
    #[must_use]
    pub fn written_by(&self) -> Line {
        self.cluster.map_or(self.format(), |version| version.line().max(self.format()))
    }

    /// Whether a restored directory boots on that line.
    ///
    /// Found by running each pair: 3.6 refuses a newer storage version, 3.7 a newer cluster
    /// version; 3.4 and 3.5 look at neither, but a downgrade is not supported by etcd.
    #[must_use]
    pub fn boots_on(&self, line: Line) -> Boots {
        let from = self.written_by();
        if line >= from {
            Boots::Yes
        } else if line >= Line::V3_6 {
            Boots::No
        } else {
            Boots::Unsupported
        }
    }
}

/// Whether an etcd takes a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boots {
    /// It does.
    Yes,
    /// It starts, but etcd does not support the step back.
    Unsupported,
    /// It refuses to start.
    No,
}

/// A known fault of some versions of etcd that bears on backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advisory {
    /// What happens, and what to do.
    pub text: &'static str,
    /// Where it is described, in the etcd project.
    pub reference: &'static str,
    /// The ranges of affected versions: from, and the first that is mended.
    affected: &'static [(Version, Version)],
}

const fn from_to(minor: u32, from: u32, mended: u32) -> (Version, Version) {
    (Version::new(3, minor, from), Version::new(3, minor, mended))
}

/// Faults worth a warning when a member of such a version is backed up.
const ADVISORIES: [Advisory; 5] = [
    Advisory {
        text: "members can silently diverge after a crash: compare HashKV of all members, upgrade",
        reference: "postmortem v3.5-data-inconsistency, issue 13766",
        affected: &[from_to(5, 0, 3)],
    },
    Advisory {
        text: "a crash during defragmentation can leave a member at another revision: upgrade",
        reference: "PR 14733",
        affected: &[from_to(5, 0, 6)],
    },
    Advisory {
        text: "the revision can go back after a crash during compaction: upgrade",
        reference: "issue 17780",
        affected: &[from_to(4, 0, 32), from_to(5, 0, 14)],
    },
    Advisory {
        text: "deletes at the compact revision can be lost by watches and compaction: upgrade",
        reference: "issues 18089, 19179",
        affected: &[from_to(4, 0, 36), from_to(5, 0, 18)],
    },
    Advisory {
        text: "transactions can read around role-based access control: upgrade",
        reference: "CVE-2026-44283",
        affected: &[from_to(4, 0, 44), from_to(5, 0, 30), from_to(6, 0, 11)],
    },
];

/// What is known against a version of etcd.
pub fn advisories(version: Version) -> impl Iterator<Item = &'static Advisory> {
    let hit = move |range: &(Version, Version)| range.0 <= version && version < range.1;
    ADVISORIES.iter().filter(move |advisory| advisory.affected.iter().any(hit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(Version::parse("3.6.16"), Some(Version::new(3, 6, 16)));
        assert_eq!(Version::parse("v3.7.0-rc.1"), Some(Version::new(3, 7, 0)));
        assert_eq!(Version::parse("3.5"), Some(Version::new(3, 5, 0)));
        for bad in ["", "3", "3.x.1", "3.6.1.2", "3.6."] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_boots_where() {
        let marks = |storage: &str, cluster: &str, has_term| Marks {
            storage: Version::parse(storage),
            cluster: Version::parse(cluster),
            has_term,
        };
        let boots = |marks: Marks| {
            [Line::V3_4, Line::V3_5, Line::V3_6, Line::V3_7].map(|line| marks.boots_on(line))
        };
        use Boots::{No, Unsupported, Yes};
        assert_eq!(boots(marks("", "3.4.0", false)), [Yes; 4]);
        assert_eq!(boots(marks("", "3.5.0", true)), [Unsupported, Yes, Yes, Yes]);
        assert_eq!(boots(marks("3.6.0", "3.6.0", true)), [Unsupported, Unsupported, Yes, Yes]);
        assert_eq!(boots(marks("3.7.0", "3.7.0", true)), [Unsupported, Unsupported, No, Yes]);
        // A cluster half-way through an upgrade: the storage is still the older one's.
        assert_eq!(boots(marks("3.6.0", "3.7.0", true)), [Unsupported, Unsupported, No, Yes]);
        assert_eq!(marks("", "", false).format(), Line::V3_4);
        assert_eq!(marks("", "", true).format(), Line::V3_5);
    }

    #[test]
    fn advisories_end_with_the_mended_version() {
        let references = |text: &str| -> Vec<_> {
            advisories(Version::parse(text).unwrap()).map(|a| a.reference).collect()
        };
        assert_eq!(references("3.5.2").len(), 5);
        assert_eq!(references("3.5.3").len(), 4);
        assert_eq!(references("3.6.10"), ["CVE-2026-44283"]);
        assert_eq!(references("3.6.11"), [""; 0]);
        assert_eq!(references("3.7.3"), [""; 0]);
    }
}
