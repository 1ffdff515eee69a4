//! The `.snap` file: a raft snapshot with its CRC, in whose data lies the v2 store.
//!
//! 3.4 and 3.5 take the members from it, 3.6 looks at it, 3.7 does not. Source: etcd
//! `server/etcdserver/api/snap/snapshotter.go`, `snappb/snap.proto`, `v2store/node_extern.go`.

use crate::crc::Crc32c;
use crate::ids::{RaftIndex, RaftTerm};
use crate::membership::{Member, json_list, json_string};
use crate::raft::{ConfState, SnapshotMark};
use crate::wire::{self, Fields, WireFault};

/// Why bytes are no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapFault {
    /// No message.
    #[error("not a raft snapshot: {0}")]
    Wire(#[from] WireFault),
    /// etcd takes it for empty.
    #[error("the snapshot is empty")]
    Empty,
    /// The CRC does not fit.
    #[error("CRC {got:#010x}, its bytes give {want:#010x}")]
    Crc {
        /// What stands there.
        got: u32,
        /// What the bytes give.
        want: u32,
    },
}

/// The name of the `.snap` file of a snapshot.
#[must_use]
pub fn file_name(mark: &SnapshotMark) -> String {
    format!("{:016x}-{:016x}.snap", mark.term.0, mark.index.0)
}

/// Reads a `.snap` file: up to where it reaches, and its data.
///
/// # Errors
/// [`SnapFault`].
pub fn decode(file: &[u8]) -> Result<(SnapshotMark, &[u8]), SnapFault> {
    let (mut got, mut body) = (0, [].as_slice());
    for field in Fields::of(file) {
        let field = field?;
        match field.number {
            1 => got = field.uint32()?,
            2 => body = field.bytes()?,
            _ => {}
        }
    }
    if got == 0 || body.is_empty() {
        return Err(SnapFault::Empty);
    }
    let mut crc = Crc32c::new();
    crc.update(body);
    let want = crc.value();
    if got != want {
        return Err(SnapFault::Crc { got, want });
    }
    let (mut data, mut metadata) = ([].as_slice(), [].as_slice());
    for field in Fields::of(body) {
        let field = field?;
        match field.number {
            1 => data = field.bytes()?,
            2 => metadata = field.bytes()?,
            _ => {}
        }
    }
    Ok((parse_metadata(metadata)?, data))
}

/// raftpb.SnapshotMetadata numbers its fields otherwise than walpb.Snapshot.
fn parse_metadata(message: &[u8]) -> Result<SnapshotMark, WireFault> {
    let mut mark = SnapshotMark::empty();
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => mark.conf_state = Some(ConfState::parse(field.bytes()?)?),
            2 => mark.index = RaftIndex(field.uint64()?),
            3 => mark.term = RaftTerm(field.uint64()?),
            _ => {}
        }
    }
    Ok(mark)
}

/// The bytes of a `.snap` file.
#[must_use]
pub fn encode(mark: &SnapshotMark, data: &[u8]) -> Vec<u8> {
    let mut metadata = Vec::new();
    if let Some(conf_state) = &mark.conf_state {
        wire::put_bytes(&mut metadata, 1, &conf_state.to_bytes());
    }
    wire::put_uint64(&mut metadata, 2, mark.index.0);
    wire::put_uint64(&mut metadata, 3, mark.term.0);
    let mut body = Vec::new();
    wire::put_bytes(&mut body, 1, data);
    wire::put_bytes(&mut body, 2, &metadata);
    let mut crc = Crc32c::new();
    crc.update(&body);
    let mut file = Vec::new();
    wire::put_uint64(&mut file, 1, u64::from(crc.value()));
    wire::put_bytes(&mut file, 2, &body);
    file
}

/// The least v2 store that every etcd accepts: the members with their peer URLs.
pub(crate) fn v2_store(members: &[Member]) -> String {
    let leaf = |path: &str, value: &str| node(path, value, "null");
    let directory = |path: &str, children: &[(String, String)]| {
        let children: Vec<_> =
            children.iter().map(|(name, node)| format!("{}:{node}", json_string(name))).collect();
        node(path, "", &format!("{{{}}}", children.join(",")))
    };
    let member = |member: &Member| {
        let path = format!("/0/members/{}", member.id);
        let attributes = format!("{{\"peerURLs\":{}}}", json_list(&member.peer_urls));
        let child = leaf(&format!("{path}/raftAttributes"), &attributes);
        (member.id.to_string(), directory(&path, &[("raftAttributes".to_owned(), child)]))
    };
    let members: Vec<_> = members.iter().map(member).collect();
    let cluster = directory("/0", &[("members".to_owned(), directory("/0/members", &members))]);
    let root = [("0".to_owned(), cluster), ("1".to_owned(), directory("/1", &[]))];
    format!("{{\"Root\":{}}}", directory("/", &root))
}

fn node(path: &str, value: &str, children: &str) -> String {
    format!(
        "{{\"Path\":{},\"CreatedIndex\":0,\"ModifiedIndex\":0,\
         \"ExpireTime\":\"0001-01-01T00:00:00Z\",\"Value\":{},\"Children\":{children}}}",
        json_string(path),
        json_string(value),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::MemberId;
    use proptest::prelude::*;

    fn mark() -> SnapshotMark {
        let voters = vec![MemberId(0x41f5_eef9_73fc_e2df), MemberId(0xca7a_34e1_6cff_9c1b)];
        SnapshotMark {
            index: RaftIndex(2),
            term: RaftTerm(1),
            conf_state: Some(ConfState { voters, learners: Vec::new() }),
        }
    }

    #[test]
    fn metadata_as_etcd_3_6_writes_it() {
        let want = b"\x0a\x17\x08\xdf\xc5\xf3\x9f\x97\xdf\xfb\xfa\x41\x08\x9b\xb8\xfe\xe7\x96\
                     \x9c\x8d\xbd\xca\x01\x28\x00\x10\x02\x18\x01";
        let file = encode(&mark(), b"data");
        assert!(file.ends_with(want), "{file:02x?}");
        assert_eq!(decode(&file), Ok((mark(), b"data".as_slice())));
        assert_eq!(file_name(&mark()), "0000000000000001-0000000000000002.snap");
    }

    #[test]
    fn damaged_files_are_refused() {
        let file = encode(&mark(), b"data");
        for bit in 0..file.len() * 8 {
            let mut bytes = file.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // Bits of the CRC's varint above the 32nd are cut off by every decoder.
            let harmless = decode(&bytes) == Ok((mark(), b"data".as_slice()));
            assert!(decode(&bytes).is_err() || (harmless && bit / 8 == 5), "bit {bit}");
        }
        for len in 0..file.len() {
            assert!(decode(&file[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn the_v2_store_is_json_with_the_members() {
        let member = Member {
            id: MemberId(0xab),
            name: "n".to_owned(),
            peer_urls: vec!["http://h:1".to_owned()],
            client_urls: Vec::new(),
            is_learner: false,
        };
        let json: serde_json::Value = serde_json::from_str(&v2_store(&[member])).unwrap();
        let leaf = &json["Root"]["Children"]["0"]["Children"]["members"]["Children"]["ab"]["Children"]
            ["raftAttributes"];
        assert_eq!(leaf["Path"], "/0/members/ab/raftAttributes");
        assert_eq!(leaf["Value"], "{\"peerURLs\":[\"http://h:1\"]}");
        assert!(leaf["Children"].is_null());
        assert!(json["Root"]["Children"]["1"]["Children"].is_object());
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(data in proptest::collection::vec(any::<u8>(), 1..50), index: u64) {
            let mark = SnapshotMark { index: RaftIndex(index), ..mark() };
            let file = encode(&mark, &data);
            prop_assert_eq!(decode(&file), Ok((mark, data.as_slice())));
        }
    }
}
