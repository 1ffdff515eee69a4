//! Nobody may serve where the restored members will: not themselves, and of the others only
//! members of the same cluster, restored from the same source on their hosts.

use super::request::Wanted;
use crate::failure::{Code, Failure};
use crate::terminal::Calls;
use rekindle_client::{AtPeerUrl, Timeouts, at_peer_url};
use rekindle_datadir::Target;
use rekindle_etcd::{Cluster, ClusterId, Member};
use std::sync::Arc;

/// Refuses the restore of `targets`, members of `cluster`, while another cluster serves at a peer
/// URL, or anything at one of theirs.
///
/// Where members have ids of the source's (`reuses_ids`), the cluster's id says nothing: the old
/// one has it too.
pub(super) fn check(
    cluster: &Cluster,
    reuses_ids: bool,
    targets: &[Target],
    wanted: &Wanted,
) -> Result<(), Failure> {
    // Nothing has begun yet, so Ctrl-C may simply end the program.
    let calls = Calls::new(Arc::default())?;
    let urls = cluster
        .members
        .iter()
        .flat_map(|member| member.peer_urls.iter().map(move |url| (member, url.as_str())));
    let found = calls.wait(ask(urls.clone().map(|(_, url)| url.to_owned()), wanted))?;
    for ((member, url), found) in urls.zip(found) {
        let restored_here = targets.iter().any(|target| target.member == *member);
        if let Some(who) = in_the_way(&found, cluster.id, restored_here || reuses_ids) {
            return Err(refusal(member, url, cluster.id, &who));
        }
    }
    Ok(())
}

/// Asks at all URLs at once: a host that is down takes the whole time of a dial.
async fn ask(
    urls: impl Iterator<Item = String>,
    wanted: &Wanted,
) -> Result<Vec<AtPeerUrl>, Failure> {
    let asked = urls.map(|url| {
        let identity = wanted.peer_identity.clone();
        tokio::spawn(async move { at_peer_url(&url, identity, &Timeouts::default()).await })
    });
    let mut found = Vec::new();
    for answer in asked.collect::<Vec<_>>() {
        let panicked = |error| Failure::new(Code::Failed, format!("asking a peer: {error}"));
        found.push(answer.await.map_err(panicked)??);
    }
    Ok(found)
}

/// Who serves there and must not: anyone, or only members of another cluster.
fn in_the_way(found: &AtPeerUrl, cluster_id: ClusterId, is_anyone: bool) -> Option<String> {
    match found {
        AtPeerUrl::Nobody => None,
        AtPeerUrl::Cluster(id) if ClusterId(*id) == cluster_id && !is_anyone => None,
        AtPeerUrl::Cluster(id) => {
            Some(format!("a member of cluster {} serves there", ClusterId(*id)))
        }
        AtPeerUrl::Unknown(why) => {
            Some(format!("something serves there of which the cluster is not known ({why})"))
        }
    }
}

fn refusal(member: &Member, url: &str, cluster_id: ClusterId, who: &str) -> Failure {
    let what = format!(
        "peer URL {url} is to be member {} of cluster {cluster_id}, but {who}",
        member.name
    );
    Failure::refused(what).remedy(
        "stop etcd on every host of the old cluster before a new one takes its place; for a copy \
         that will never be started at these URLs: --allow-live-peers",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_cluster_on_other_hosts_may_serve() {
        let other = "a member of cluster 2 serves there";
        let unknown = "something serves there of which the cluster is not known (silent)";
        for (found, here, want) in [
            (AtPeerUrl::Nobody, true, None),
            (AtPeerUrl::Nobody, false, None),
            (AtPeerUrl::Cluster(1), false, None),
            (AtPeerUrl::Cluster(1), true, Some("a member of cluster 1 serves there")),
            (AtPeerUrl::Cluster(2), false, Some(other)),
            (AtPeerUrl::Cluster(2), true, Some(other)),
            (AtPeerUrl::Unknown("silent".to_owned()), false, Some(unknown)),
            (AtPeerUrl::Unknown("silent".to_owned()), true, Some(unknown)),
        ] {
            assert_eq!(in_the_way(&found, ClusterId(1), here).as_deref(), want, "{found:?} {here}");
        }
    }
}
