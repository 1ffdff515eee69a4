//! Members that a snapshot can be taken from, waited for while they catch up.

use super::choose::{Candidate, Choice, choose};
use rekindle_client::{Client, Endpoint, Member, Status};
use std::time::{Duration, Instant};

/// How often members that are behind are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum NoMember {
    /// None is as far as the cluster was.
    #[error("no member has caught up with revision {floor}: {nearest} is nearest, at {revision}")]
    Behind {
        /// What was asked for.
        floor: i64,
        /// The one that is nearest to it.
        nearest: Endpoint,
        /// Its revision.
        revision: i64,
    },
    /// None can give one.
    #[error("no member can give a snapshot:{}", lines(.why))]
    Nobody {
        /// Of each why.
        why: Vec<(Endpoint, String)>,
    },
}

fn lines(why: &[(Endpoint, String)]) -> String {
    why.iter().map(|(endpoint, why)| format!("\n  {endpoint}: {why}")).collect()
}

/// What every member that a client knows says of itself.
pub async fn ask_all(client: &Client) -> Vec<Candidate> {
    // One that does not answer delays no other.
    let ask = |member: &Member| {
        let member = member.clone();
        // Alarms come with it: to ask for them would be a write, through raft.
        tokio::spawn(async move { member.status().await })
    };
    let asked: Vec<_> = client.members().iter().map(ask).collect();
    let mut answers = Vec::new();
    for answer in asked {
        let status = match answer.await {
            Ok(status) => status.map_err(|error| error.to_string()),
            Err(failed) => Err(failed.to_string()),
        };
        answers.push(Candidate { status });
    }
    answers
}

/// Members that are at a revision or beyond, the best first. `first` is what [`ask_all`] has said; those
/// that are behind have so much time to catch up.
///
/// # Errors
/// [`NoMember`].
pub async fn pick(
    client: &Client,
    first: Vec<Candidate>,
    floor: i64,
    patience: Duration,
) -> Result<Vec<(Member, Status)>, NoMember> {
    let (deadline, mut candidates) = (Instant::now() + patience, first);
    loop {
        match choose(&candidates, floor) {
            Choice::From(order) => {
                let member = |index: usize| {
                    let status = candidates.get(index)?.status.as_ref().ok()?.clone();
                    Some((client.members().get(index)?.clone(), status))
                };
                return Ok(order.into_iter().filter_map(member).collect());
            }
            Choice::Behind { .. } if Instant::now() < deadline => {
                tokio::time::sleep(ASK_AGAIN).await;
                candidates = ask_all(client).await;
            }
            Choice::Behind { nearest, revision } => match client.members().get(nearest) {
                Some(member) => {
                    let nearest = member.endpoint().clone();
                    return Err(NoMember::Behind { floor, nearest, revision });
                }
                None => return Err(nobody(client, &candidates)),
            },
            Choice::Nobody => return Err(nobody(client, &candidates)),
        }
    }
}

fn nobody(client: &Client, candidates: &[Candidate]) -> NoMember {
    let why = client.members().iter().zip(candidates).map(|(member, candidate)| {
        let why = match &candidate.status {
            Err(error) => error.clone(),
            Ok(status) if status.is_learner => "it is a learner".to_owned(),
            Ok(_) => "it has raised the alarm CORRUPT".to_owned(),
        };
        (member.endpoint().clone(), why)
    });
    NoMember::Nobody { why: why.collect() }
}
