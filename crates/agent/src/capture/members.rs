//! The members of a cluster, as they are now: some are replaced while it is followed.

use super::witness::Judgement;
use super::{Report, Reports, Told};
use rekindle_client::{Client, Endpoint};
use rekindle_etcd::MemberId;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The endpoints that were given, and the members that the cluster lists beside them.
pub(super) struct Members {
    given: Arc<Client>,
    known: Mutex<Arc<Client>>,
    /// Members that most others contradict: nothing is taken of them.
    suspects: Mutex<BTreeSet<MemberId>>,
    reports: Reports,
}

impl Members {
    pub(super) async fn of(given: Client, reports: Reports) -> Self {
        let given = Arc::new(given);
        let known = Mutex::new(Arc::clone(&given));
        let this = Self { known, given, suspects: Mutex::default(), reports };
        this.list().await;
        this
    }

    /// A client of all.
    pub(super) fn client(&self) -> Arc<Client> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who was suspect stays so until a majority agrees with it.
    pub(super) fn judge(&self, judgement: &Judgement) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.retain(|member| !judgement.cleared.contains(member));
        suspects.extend(&judgement.suspects);
    }

    pub(super) fn is_suspect(&self, member: MemberId) -> bool {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).contains(&member)
    }

    /// Looks which they are. Where that cannot be known, it stays as it was.
    pub(super) async fn list(&self) {
        let before = self.client();
        let Ok(listed) = before.member_list().await else { return };
        let urls = listed.members.into_iter().flat_map(|member| member.client_urls);
        let Ok(now) = self.given.with_more(urls) else { return };
        // Who stays keeps his connections.
        let endpoints = endpoints(&now);
        if endpoints != self::endpoints(&before) {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(now);
            let _ = self.reports.send(Report::Told(Told::Members { endpoints }));
        }
    }
}

fn endpoints(client: &Client) -> Vec<Endpoint> {
    client.members().iter().map(|member| member.endpoint().clone()).collect()
}
