//! Asking members for their HashKV, and whether they agree.

use super::members::Members;
use crate::snapshot::ask_all;
use rekindle_archive::MemberHash;
use rekindle_archive::format::header::Moment;
use rekindle_archive::format::witness::Testimony;
use rekindle_client::{Error, EtcdFault, Member, Status};
use rekindle_etcd::{ClusterId, MemberId, RaftTerm, Revision, TombstonesAtCompaction, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A cluster that takes longer for a read has enough to do.
const SLOW: Duration = Duration::from_millis(100);
/// A member that has more in its database is not asked: the scan would keep it busy for seconds.
const IN_USE_MAX: u64 = 2 << 30;
/// How long a member that is behind may catch up.
const CATCH_UP: Duration = Duration::from_secs(1);
const CATCH_UP_EVERY: Duration = Duration::from_millis(100);

/// What members have said.
pub(super) struct Said {
    /// Of which revision.
    pub revision: Revision,
    pub hashes: Vec<MemberHash>,
    /// Those that had not come so far.
    pub lagging: Vec<MemberId>,
    /// How long all their scans took.
    pub took: Duration,
}

/// Asks one member after the other, followers first; why none was asked.
pub(super) async fn ask(members: &Members, now: fn() -> Moment) -> Result<Said, String> {
    let client = members.client();
    let began = Instant::now();
    let newest = client.linearizable_revision().await.map_err(|error| error.to_string())?;
    if began.elapsed() > SLOW {
        return Err("the cluster is too busy to be asked for a HashKV".to_owned());
    }
    let revision = Revision::new(newest).ok_or("it has no revision")?;
    let asked = client.members().iter().zip(ask_all(&client).await);
    let mut able: Vec<_> =
        asked.filter_map(|(member, it)| Some((member.clone(), it.status.ok()?))).collect();
    let mut known = BTreeSet::new();
    able.retain(|(_, status)| !status.is_learner && known.insert(status.header.member_id));
    if able.iter().any(|(_, status)| status.db_size_in_use > IN_USE_MAX) {
        return Err(
            "the database is so large that a HashKV would stop members for seconds".to_owned()
        );
    }
    able.sort_by_key(|(_, status)| status.leader == status.header.member_id);
    let mut said = Said { revision, hashes: Vec::new(), lagging: Vec::new(), took: Duration::ZERO };
    let mut failed = String::new();
    for (member, status) in able {
        let (at, began) = (now(), Instant::now());
        match hash(&member, newest).await {
            Ok(Some(answer)) => {
                said.took += began.elapsed();
                let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                said.hashes.push(MemberHash {
                    cluster: ClusterId(answer.header.cluster_id),
                    member: MemberId(answer.header.member_id),
                    term: RaftTerm(answer.header.raft_term),
                    etcd: status.version.clone(),
                    revision,
                    compact: Revision::new(answer.compact_revision).filter(|it| it.get() > 0),
                    at,
                    said: Testimony { hash: answer.hash, took_ms },
                });
            }
            Ok(None) => said.lagging.push(member_id(&status)),
            Err(error) => failed = format!("{}: {error}", member.endpoint()),
        }
    }
    if said.hashes.is_empty() { Err(failed) } else { Ok(said) }
}

fn member_id(status: &Status) -> MemberId {
    MemberId(status.header.member_id)
}

/// None where it does not catch up.
async fn hash(member: &Member, revision: i64) -> Result<Option<rekindle_client::HashKv>, Error> {
    let deadline = Instant::now() + CATCH_UP;
    loop {
        match member.hash_kv(revision).await {
            Err(error) if error.etcd_fault() == Some(EtcdFault::FutureRevision) => {
                if Instant::now() >= deadline {
                    return Ok(None);
                }
                tokio::time::sleep(CATCH_UP_EVERY).await;
            }
            answer => return answer.map(Some),
        }
    }
}

/// Members whose keyspaces differ at the same revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// That revision.
    pub revision: Revision,
    /// What each has said.
    pub hashes: Vec<(MemberId, u32)>,
    /// Those that most others contradict; none where nobody has a majority.
    pub suspects: BTreeSet<MemberId>,
}

/// Who is contradicted by most others, and who agrees with them.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub suspects: BTreeSet<MemberId>,
    pub cleared: BTreeSet<MemberId>,
}

impl Judgement {
    pub(super) fn of(hashes: &[MemberHash]) -> Self {
        let mut judgement = Self::default();
        for group in comparable(hashes) {
            let Some(most) = majority(&group) else { continue };
            for it in group {
                match it.said.hash == most {
                    true => judgement.cleared.insert(it.member),
                    false => judgement.suspects.insert(it.member),
                };
            }
        }
        judgement
    }
}

/// Those that can be compared: that were compacted alike, and hash by the same rule.
fn comparable(hashes: &[MemberHash]) -> impl Iterator<Item = Vec<&MemberHash>> {
    let rule = |hash: &MemberHash| {
        let version = Version::parse(&hash.etcd);
        version.map(|it| TombstonesAtCompaction::of(it) == TombstonesAtCompaction::Skipped)
    };
    let mut alike: BTreeMap<_, Vec<&MemberHash>> = BTreeMap::new();
    for hash in hashes {
        alike.entry((hash.revision, hash.compact, rule(hash))).or_default().push(hash);
    }
    alike.into_values()
}

/// What most of them say; one alone is not most of anything.
fn majority(group: &[&MemberHash]) -> Option<u32> {
    let votes = |hash: u32| group.iter().filter(|it| it.said.hash == hash).count();
    let is_most = |hash: &u32| votes(*hash) > 1 && votes(*hash) * 2 > group.len();
    group.iter().map(|it| it.said.hash).find(is_most)
}

/// Whether members that can be compared differ.
pub(super) fn disagreement(hashes: &[MemberHash]) -> Option<Disagreement> {
    let differ = |group: &Vec<&MemberHash>| {
        group
            .windows(2)
            .any(|pair| matches!(pair, [one, other] if one.said.hash != other.said.hash))
    };
    let group = comparable(hashes).find(differ)?;
    Some(Disagreement {
        revision: group.first()?.revision,
        hashes: group.iter().map(|it| (it.member, it.said.hash)).collect(),
        suspects: Judgement::of(hashes).suspects,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(member: u64, compact: i64, hash: u32) -> MemberHash {
        MemberHash {
            cluster: ClusterId(1),
            member: MemberId(member),
            term: RaftTerm(1),
            etcd: "3.6.4".to_owned(),
            revision: Revision::new(9).unwrap(),
            compact: Revision::new(compact),
            at: Moment(0),
            said: Testimony { hash, took_ms: 1 },
        }
    }

    #[test]
    fn who_agrees_with_most_is_cleared() {
        let check = |hashes: &[MemberHash], suspects: &[u64], cleared: &[u64]| {
            let of = |ids: &[u64]| ids.iter().copied().map(MemberId).collect::<BTreeSet<_>>();
            let found = Judgement::of(hashes);
            assert_eq!((found.suspects, found.cleared), (of(suspects), of(cleared)));
        };
        check(&[said(1, 5, 7), said(2, 5, 8), said(3, 5, 7)], &[2], &[1, 3]);
        // Nobody else can be compared with it: that clears nobody.
        check(&[said(1, 5, 7), said(2, 6, 8), said(3, 5, 7)], &[], &[1, 3]);
        check(&[said(2, 5, 8)], &[], &[]);
        check(&[said(1, 5, 7), said(2, 5, 8)], &[], &[]);
    }

    #[test]
    fn whom_most_others_contradict_is_suspect() {
        let check = |hashes: &[MemberHash], want: Option<&[u64]>| {
            let found = disagreement(hashes).map(|found| found.suspects);
            let want = want.map(|want| want.iter().copied().map(MemberId).collect());
            assert_eq!(found, want);
        };
        check(&[said(1, 5, 7), said(2, 5, 7), said(3, 5, 7)], None);
        check(&[said(1, 5, 7), said(2, 5, 8), said(3, 5, 7)], Some(&[2]));
        check(&[said(1, 5, 7), said(2, 5, 8)], Some(&[]));
        // Compacted otherwise, or by another rule: that says nothing.
        check(&[said(1, 5, 7), said(2, 6, 8), said(3, 7, 9)], None);
        let old = MemberHash { etcd: "3.5.15".to_owned(), ..said(2, 5, 8) };
        check(&[said(1, 5, 7), old.clone()], None);
        check(&[old, MemberHash { etcd: "3.5.2".to_owned(), ..said(3, 5, 9) }], Some(&[]));
        check(&[], None);
    }
}
