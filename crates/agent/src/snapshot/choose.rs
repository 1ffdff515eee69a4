//! Which member a snapshot is taken from. Pure: it sees what members say of themselves.

use rekindle_client::Status;
use std::collections::BTreeSet;

/// What is known of one endpoint.
#[derive(Debug)]
pub struct Candidate {
    /// What it says of itself, or why it says nothing.
    pub status: Result<Status, String>,
}

/// What to do about the candidates.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// Take it from these, in this order.
    From(Vec<usize>),
    /// One that could do it is still behind the floor; it may catch up.
    Behind {
        /// The one that is nearest.
        nearest: usize,
        /// Its revision.
        revision: i64,
    },
    /// None can.
    Nobody,
}

/// An alarm that a member knows of, its own or another's.
#[derive(Debug, PartialEq, Eq)]
struct Raised<'a> {
    member: u64,
    alarm: &'a str,
}

impl<'a> Raised<'a> {
    /// Reads what etcd's `Maintenance.Status` makes of an alarm: `memberID:9 alarm:NOSPACE `, with
    /// more blanks where Go's protobuf takes them for good.
    fn parse(complaint: &'a str) -> Option<Self> {
        let words = complaint.split([':', ' ', '\u{a0}']).filter(|word| !word.is_empty());
        match words.collect::<Vec<_>>()[..] {
            ["memberID", member, "alarm", alarm] => {
                Some(Self { member: member.parse().ok()?, alarm })
            }
            _ => None,
        }
    }
}

/// Every complaint of every candidate, in words, once.
pub fn complaints(candidates: &[Candidate]) -> BTreeSet<String> {
    let words = |complaint: &str| match Raised::parse(complaint) {
        Some(Raised { member, alarm }) => format!("member {member:x} has raised the alarm {alarm}"),
        None => format!("a member says: {complaint}"),
    };
    all_complaints(candidates).map(words).collect()
}

fn all_complaints(candidates: &[Candidate]) -> impl Iterator<Item = &str> {
    let answers = candidates.iter().filter_map(|candidate| candidate.status.as_ref().ok());
    answers.flat_map(|status| &status.errors).map(String::as_str)
}

/// Members that are not behind `floor`, followers before the leader, else in the order given.
/// Learners are never chosen, nor whoever has a CORRUPT alarm in the eyes of any candidate.
pub fn choose(candidates: &[Candidate], floor: i64) -> Choice {
    let is_corrupt = |member: u64| {
        let corrupt = Raised { member, alarm: "CORRUPT" };
        all_complaints(candidates).filter_map(Raised::parse).any(|raised| raised == corrupt)
    };
    let able = candidates.iter().enumerate().filter_map(|(index, candidate)| {
        let status = candidate.status.as_ref().ok()?;
        let id = status.header.member_id;
        (!status.is_learner && !is_corrupt(id)).then_some((index, status))
    });
    let able: Vec<_> = able.collect();
    let mut ready: Vec<_> =
        able.iter().filter(|(_, status)| status.header.revision >= floor).collect();
    ready.sort_by_key(|(_, status)| status.leader == status.header.member_id);
    if !ready.is_empty() {
        return Choice::From(ready.into_iter().map(|(index, _)| *index).collect());
    }
    match able.iter().max_by_key(|(_, status)| status.header.revision) {
        Some((nearest, status)) => {
            Choice::Behind { nearest: *nearest, revision: status.header.revision }
        }
        None => Choice::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_client::Header;

    const LEADER: u64 = 1;

    fn member(id: u64, revision: i64) -> Candidate {
        Candidate { status: Ok(status(id, revision)) }
    }

    fn status(id: u64, revision: i64) -> Status {
        Status {
            header: Header { cluster_id: 9, member_id: id, revision, raft_term: 2 },
            version: "3.6.16".to_owned(),
            storage_version: String::new(),
            db_size: 0,
            db_size_in_use: 0,
            db_size_quota: 0,
            leader: LEADER,
            raft_index: 0,
            raft_term: 2,
            raft_applied_index: 0,
            is_learner: false,
            errors: Vec::new(),
            downgrade: None,
        }
    }

    fn down() -> Candidate {
        Candidate { status: Err("refused".to_owned()) }
    }

    #[test]
    fn followers_go_before_the_leader() {
        let candidates = [member(1, 10), member(2, 10), member(3, 11)];
        assert_eq!(choose(&candidates, 10), Choice::From(vec![1, 2, 0]));
        assert_eq!(choose(&[member(1, 10)], 10), Choice::From(vec![0]));
    }

    #[test]
    fn who_is_behind_or_down_is_passed_over() {
        let candidates = [down(), member(2, 9), member(1, 10)];
        assert_eq!(choose(&candidates, 10), Choice::From(vec![2]));
        assert_eq!(choose(&candidates, 11), Choice::Behind { nearest: 2, revision: 10 });
        assert_eq!(choose(&[down(), down()], 0), Choice::Nobody);
        assert_eq!(choose(&[], 0), Choice::Nobody);
    }

    #[test]
    fn learners_and_corrupt_members_are_never_chosen() {
        let learner = Candidate { status: Ok(Status { is_learner: true, ..status(2, 10) }) };
        let corrupt = "memberID:3 alarm:CORRUPT ";
        let full = "memberID:4 alarm:NOSPACE ";
        let aware = Candidate {
            status: Ok(Status { errors: vec![corrupt.into(), full.into()], ..status(4, 10) }),
        };
        let candidates = [learner, member(3, 10), aware];
        assert_eq!(choose(&candidates, 10), Choice::From(vec![2]));
        let errors = vec![corrupt.to_owned()];
        let itself = Candidate { status: Ok(Status { errors, ..status(3, 10) }) };
        assert_eq!(choose(&[down(), itself], 10), Choice::Nobody);
    }

    #[test]
    fn alarms_as_etcd_writes_them() {
        let alarm = |member, alarm| Some(Raised { member, alarm });
        for (text, want) in [
            (
                "memberID:10276657743932975437 alarm:NOSPACE ",
                alarm(10276657743932975437, "NOSPACE"),
            ),
            ("memberID:9  alarm:CORRUPT", alarm(9, "CORRUPT")),
            ("memberID: 9 alarm: CORRUPT", alarm(9, "CORRUPT")),
            ("etcdserver: no leader", None),
            ("memberID:x alarm:CORRUPT", None),
            ("", None),
        ] {
            assert_eq!(Raised::parse(text), want, "{text}");
        }
        let errors =
            vec!["etcdserver: no leader".to_owned(), "memberID:255 alarm:NOSPACE ".to_owned()];
        let candidate =
            || Candidate { status: Ok(Status { errors: errors.clone(), ..status(1, 1) }) };
        let told: Vec<_> = complaints(&[candidate(), down(), candidate()]).into_iter().collect();
        let want =
            ["a member says: etcdserver: no leader", "member ff has raised the alarm NOSPACE"];
        assert_eq!(told, want);
    }
}
