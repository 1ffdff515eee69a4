//! The files of a restored member, in the order in which they must become durable.

use super::plan::Plan;
use crate::ids::RaftIndex;
use crate::membership::Member;
use crate::raft::{Entry, EntryKind, Metadata, SnapshotMark, add_member};
use crate::snap;
use crate::wal::{self, Record, SegmentName, SegmentWriter};

/// Below which of the two directories that etcd is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `--data-dir`.
    Data,
    /// `--wal-dir`; by default `member/wal` below the data directory.
    Wal,
}

/// What goes into a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The database that [`super::rebuild()`] writes.
    Database,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// Below which directory.
    pub root: Root,
    /// Its path below it.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// What goes into it.
    pub content: Content,
    /// Bytes that it is given at once, zeros behind its content; 0 = as many as it has.
    pub reserve: u64,
}

/// A restored member's directories and files (etcd `etcdutl/snapshot/v3_snapshot.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Directories below the data directory, parents first; all with mode 0700.
    pub directories: Vec<&'static str>,
    /// Files in the order in which they are written and made durable.
    pub files: Vec<PlannedFile>,
}

/// Where the database lies below the data directory.
pub const DATABASE: &str = "member/snap/db";

/// Plans the files of one member.
#[must_use]
pub fn directory(plan: &Plan, member: &Member) -> Directory {
    let mark = plan.snapshot_mark();
    let wal = SegmentName { sequence: 0, first: RaftIndex(0) };
    let v2_store = snap::v2_store(&plan.cluster.members);
    let files = vec![
        PlannedFile {
            root: Root::Data,
            path: DATABASE.to_owned(),
            mode: 0o600,
            content: Content::Database,
            reserve: 0,
        },
        PlannedFile {
            root: Root::Wal,
            path: wal.to_string(),
            mode: 0o600,
            content: Content::Bytes(first_segment(plan, member, &mark)),
            reserve: wal::SEGMENT_BYTES,
        },
        PlannedFile {
            root: Root::Data,
            path: format!("member/snap/{}", snap::file_name(&mark)),
            mode: 0o644,
            content: Content::Bytes(snap::encode(&mark, v2_store.as_bytes())),
            reserve: 0,
        },
    ];
    Directory { directories: vec!["member", "member/snap"], files }
}

/// A log in which each member has been added, and a snapshot made.
fn first_segment(plan: &Plan, member: &Member, mark: &SnapshotMark) -> Vec<u8> {
    let mut segment = SegmentWriter::new();
    segment.push(&Record::Metadata(Metadata { member: member.id, cluster: plan.cluster.id }));
    segment.push(&Record::Snapshot(SnapshotMark::empty()));
    for (index, added) in (1..).zip(&plan.cluster.members) {
        let data = add_member(added);
        segment.push(&Record::Entry(Entry {
            kind: EntryKind::ConfChange,
            term: mark.term,
            index: RaftIndex(index),
            data: &data,
        }));
    }
    segment.push(&Record::HardState(plan.hard_state()));
    segment.push(&Record::Snapshot(mark.clone()));
    segment.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::InitialCluster;
    use crate::revision::Revision;
    use crate::wal::{Chain, SegmentReader};

    fn a_plan() -> Plan {
        let text = "n1=http://127.0.0.1:32380,n2=http://127.0.0.1:32480";
        Plan {
            cluster: InitialCluster::parse(text).unwrap().with_token("tok").unwrap(),
            revision: Revision::FIRST,
            bump: None,
            alarms: Vec::new(),
            kubernetes_unexpected: false,
            downgrade_dropped: None,
            leases: crate::restore::LeaseFate::Restore,
        }
    }

    fn bytes(file: &PlannedFile) -> &[u8] {
        match &file.content {
            Content::Bytes(bytes) => bytes,
            Content::Database => &[],
        }
    }

    #[test]
    fn the_wal_is_that_of_etcdutl_3_6() {
        let plan = a_plan();
        let directory = directory(&plan, plan.cluster.member("n1").unwrap());
        let wal = bytes(&directory.files[1]);
        // Frames at 0, 16, 56, 80, 200, 320, 352 and the running CRCs of a WAL that etcdutl 3.5
        // and 3.6 have written for the same members and token.
        let mut at = 0;
        let mut frames = Vec::new();
        while at < wal.len() {
            let field = u64::from_le_bytes(wal[at..at + 8].try_into().unwrap());
            let record = (field & 0xff_ffff) as usize;
            // The CRC is the record's second field, behind two bytes of type and its own tag.
            let mut crc = 0_u32;
            for (place, byte) in wal[at + 11..].iter().enumerate() {
                crc |= u32::from(byte & 0x7f) << (7 * place);
                if byte & 0x80 == 0 {
                    break;
                }
            }
            frames.push((at, record, crc));
            at += 8 + record.next_multiple_of(8);
        }
        assert_eq!(
            frames,
            [
                (0, 4, 0),
                (16, 31, 0x7aa8_4e5f),
                (56, 13, 0x01c3_022b),
                (80, 110, 0x3898_b047),
                (200, 112, 0xa7bf_dd6c),
                (320, 24, 0xbe76_4cdd),
                (352, 39, 0x2edc_b34b),
            ]
        );
    }

    #[test]
    fn members_differ_only_in_whom_the_wal_belongs_to() {
        let plan = a_plan();
        let of = |name| directory(&plan, plan.cluster.member(name).unwrap());
        let (one, two) = (of("n1"), of("n2"));
        assert_ne!(one.files[1], two.files[1]);
        assert_eq!(one.files[2], two.files[2]);
        let mut reader = SegmentReader::new(bytes(&two.files[1]), "w", Chain::start());
        let Some(Record::Metadata(metadata)) = reader.next_record().unwrap() else { panic!() };
        assert_eq!(metadata.member, plan.cluster.member("n2").unwrap().id);
        assert_eq!(metadata.cluster, plan.cluster.id);
    }

    #[test]
    fn names_and_modes() {
        let plan = a_plan();
        let directory = directory(&plan, plan.cluster.member("n1").unwrap());
        let files: Vec<_> = directory
            .files
            .iter()
            .map(|file| (file.root, file.path.as_str(), file.mode, file.reserve))
            .collect();
        assert_eq!(
            files,
            [
                (Root::Data, "member/snap/db", 0o600, 0),
                (Root::Wal, "0000000000000000-0000000000000000.wal", 0o600, 64_000_000),
                (Root::Data, "member/snap/0000000000000001-0000000000000002.snap", 0o644, 0),
            ]
        );
    }
}
