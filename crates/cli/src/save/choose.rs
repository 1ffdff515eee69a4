//! Which member a snapshot is taken from. Pure: it sees what members say of themselves.

use rekindle_client::{Alarm, AlarmKind, Status};

/// What is known of one endpoint.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// What it says of itself, or why it says nothing.
    pub status: Result<Status, String>,
}

/// What to do about the candidates.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice {
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

/// Members that are not behind `floor`, followers before the leader, else in the order given.
/// Learners and members with a CORRUPT alarm are never chosen.
pub(crate) fn choose(candidates: &[Candidate], alarms: &[Alarm], floor: i64) -> Choice {
    let is_corrupt = |member: u64| {
        alarms.iter().any(|alarm| alarm.member_id == member && alarm.kind == AlarmKind::Corrupt)
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
        assert_eq!(choose(&candidates, &[], 10), Choice::From(vec![1, 2, 0]));
        assert_eq!(choose(&[member(1, 10)], &[], 10), Choice::From(vec![0]));
    }

    #[test]
    fn who_is_behind_or_down_is_passed_over() {
        let candidates = [down(), member(2, 9), member(1, 10)];
        assert_eq!(choose(&candidates, &[], 10), Choice::From(vec![2]));
        assert_eq!(choose(&candidates, &[], 11), Choice::Behind { nearest: 2, revision: 10 });
        assert_eq!(choose(&[down(), down()], &[], 0), Choice::Nobody);
        assert_eq!(choose(&[], &[], 0), Choice::Nobody);
    }

    #[test]
    fn learners_and_corrupt_members_are_never_chosen() {
        let learner = Candidate { status: Ok(Status { is_learner: true, ..status(2, 10) }) };
        let corrupt = Alarm { member_id: 3, kind: AlarmKind::Corrupt };
        let full = Alarm { member_id: 4, kind: AlarmKind::NoSpace };
        let candidates = [learner, member(3, 10), member(4, 10)];
        assert_eq!(choose(&candidates, &[corrupt, full], 10), Choice::From(vec![2]));
        assert_eq!(choose(&candidates[..2], &[corrupt], 10), Choice::Nobody);
    }
}
