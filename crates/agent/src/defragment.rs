//! Which members are to be defragmented, and whether any may be: while that lasts, a member answers nobody.
//!
//! What may never happen here: two members away at once; one begun while the cluster is not whole.

use crate::snapshot::Candidate;
use rekindle_client::Status;
use rekindle_etcd::Version;

/// How far a member may be behind the others' raft log.
const BEHIND_MAX: u64 = 5000;
/// etcd that could crash in it and differ from its peers afterwards (etcd#14733).
const CRASHES: std::ops::Range<Version> = Version::new(3, 5, 0)..Version::new(3, 5, 6);
/// What members complain of that a defragmentation is for.
const OF_SPACE: &str = "NOSPACE";

/// When it is worth it: both must be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worth {
    /// So many bytes are free in the file.
    pub bytes: u64,
    /// They are so many hundredths of it.
    pub percent: u64,
}

/// What is to be done with members, by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefragmentPlan {
    /// Those to be defragmented, one after the other; the leader is the last.
    pub order: Vec<usize>,
}

/// Bytes of the file that hold nothing.
#[must_use]
pub fn free(status: &Status) -> u64 {
    status.db_size.saturating_sub(status.db_size_in_use)
}

/// Decides it; `members` are all that the cluster has.
///
/// # Errors
/// Why nothing may be done now.
pub fn plan(members: &[Candidate], worth: Worth) -> Result<DefragmentPlan, String> {
    let statuses = whole(members)?;
    let is_worth = |status: &Status| {
        let free = free(status);
        free >= worth.bytes
            && u128::from(free) * 100 >= u128::from(status.db_size) * u128::from(worth.percent)
    };
    let is_leader = |status: &Status| status.leader == status.header.member_id;
    let worthy = statuses.iter().enumerate().filter(|(_, status)| is_worth(status));
    let mut order: Vec<_> = worthy.map(|(number, _)| number).collect();
    if let Some(status) = order.iter().filter_map(|number| statuses.get(*number)).find(|status| {
        Version::parse(&status.version).is_some_and(|version| CRASHES.contains(&version))
    }) {
        return Err(format!(
            "etcd {} may crash in it and lose what others have (etcd#14733): upgrade to 3.5.6 or later first",
            status.version
        ));
    }
    order.sort_by_key(|number| statuses.get(*number).is_some_and(|status| is_leader(status)));
    Ok(DefragmentPlan { order })
}

/// All members answer, agree on a leader, keep up, and complain of nothing but a lack of space.
///
/// # Errors
/// What is not so.
pub fn whole(members: &[Candidate]) -> Result<Vec<&Status>, String> {
    let mut statuses = Vec::new();
    for (number, member) in members.iter().enumerate() {
        match &member.status {
            Ok(status) => statuses.push(status),
            Err(why) => return Err(format!("member {} does not answer: {why}", number + 1)),
        }
    }
    let newest = statuses.iter().map(|status| status.raft_index).max().unwrap_or_default();
    let leader = statuses.first().map(|status| status.leader);
    for status in &statuses {
        let id = status.header.member_id;
        if status.leader == 0 || Some(status.leader) != leader {
            return Err(format!("member {id:x} knows another leader, or none"));
        }
        if newest.saturating_sub(status.raft_applied_index) > BEHIND_MAX {
            return Err(format!("member {id:x} is behind the others"));
        }
        if let Some(complaint) = status.errors.iter().find(|it| !it.contains(OF_SPACE)) {
            return Err(format!("member {id:x} complains: {complaint}"));
        }
        if status.is_learner {
            return Err(format!("member {id:x} is a learner, and still learns"));
        }
    }
    Ok(statuses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_client::Header;

    const MIB: u64 = 1 << 20;

    fn member(id: u64, size: u64, in_use: u64) -> Candidate {
        let header = Header { member_id: id, ..Header::default() };
        let status = Status {
            header,
            version: "3.6.16".to_owned(),
            db_size: size * MIB,
            db_size_in_use: in_use * MIB,
            leader: 1,
            raft_index: 10_000,
            raft_applied_index: 10_000,
            ..Status::default()
        };
        Candidate { status: Ok(status) }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Vec<Candidate>), want: Result<&[usize], &str>) {
        let mut members = vec![member(1, 400, 100), member(2, 400, 300), member(3, 400, 100)];
        change(&mut members);
        let plan = plan(&members, Worth { bytes: 100 * MIB, percent: 45 });
        match (plan, want) {
            (Ok(plan), Ok(want)) => assert_eq!(plan.order, want),
            (Err(why), Err(want)) => assert!(why.contains(want), "{why}"),
            (plan, want) => panic!("{plan:?} instead of {want:?}"),
        }
    }

    fn change(number: usize, change: fn(&mut Status)) -> impl FnOnce(&mut Vec<Candidate>) {
        move |members| change(members[number].status.as_mut().unwrap())
    }

    #[test]
    fn where_it_is_worth_it_the_leader_comes_last() {
        check(|_| (), Ok(&[2, 0]));
        // Much, but a small part; a large part, but little.
        check(change(0, |it| it.db_size_in_use = 300 * MIB), Ok(&[2]));
        check(change(0, |it| (it.db_size, it.db_size_in_use) = (90 * MIB, 0)), Ok(&[2]));
        check(|members| *members = vec![member(1, 400, 390)], Ok(&[]));
        check(change(2, |it| it.errors = vec!["alarm:NOSPACE".to_owned()]), Ok(&[2, 0]));
    }

    #[test]
    fn where_the_cluster_is_not_whole_nothing_is_begun() {
        check(|members| members[1].status = Err("refused".to_owned()), Err("does not answer"));
        check(change(1, |it| it.leader = 0), Err("another leader"));
        check(change(1, |it| it.leader = 2), Err("another leader"));
        check(change(1, |it| it.raft_applied_index = 4999), Err("behind"));
        check(change(1, |it| it.is_learner = true), Err("learner"));
        check(change(1, |it| it.errors = vec!["alarm:CORRUPT".to_owned()]), Err("CORRUPT"));
        check(change(2, |it| it.version = "3.5.5".to_owned()), Err("etcd#14733"));
        // What nobody defragments may be of any version.
        check(change(1, |it| it.version = "3.5.5".to_owned()), Ok(&[2, 0]));
    }
}
