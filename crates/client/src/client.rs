//! A cluster as a whole: calls that any member can answer.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message;

use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::error::{Error, EtcdFault};
use crate::member::Member;
use crate::method::Method;

/// A cluster, reached through one or more endpoints.
///
/// A call goes to the endpoint that answered last and from there to the others in turn. A *read*
/// goes on whenever a member cannot be reached, does not answer, or cannot serve it, and is tried
/// once more where the connection broke or the leader changed; a *write* goes on only where it
/// surely was not carried out: no connection was made, TLS was not agreed on, or the member is a
/// learner. Each call's documentation says which it is. Each attempt has the whole
/// of the command's time, so that a member that hangs does not use up the others'.
#[derive(Debug)]
pub struct Client {
    config: Config,
    members: Vec<Member>,
    /// The index of the member that answered last.
    preferred: AtomicUsize,
}

impl Client {
    /// Checks the configuration and reads its files. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Endpoint`], [`Error::NoEndpoints`], [`Error::File`], [`Error::HalfIdentity`],
    /// [`Error::KeyMismatch`].
    pub fn new(config: Config) -> Result<Self, Error> {
        let endpoints = config.parsed_endpoints()?;
        let tls = config.tls.clone().unwrap_or_default();
        if endpoints.iter().any(Endpoint::is_tls) {
            tls.load()?;
        }
        let member = |endpoint| {
            let credentials = config.credentials.clone();
            Member::new(endpoint, tls.clone(), credentials, config.timeouts.clone())
        };
        let members = endpoints.into_iter().map(member).collect();
        Ok(Self { config, members, preferred: AtomicUsize::new(0) })
    }

    /// One member for each endpoint, in the order given.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A client for every member that the cluster lists, at the URLs that they advertise to
    /// clients. etcdctl's `--cluster`. A read.
    ///
    /// # Errors
    /// Those of [`Client::member_list`] and [`Client::new`].
    pub async fn of_all_members(&self) -> Result<Self, Error> {
        let listed = self.member_list().await?;
        let endpoints = listed.members.into_iter().flat_map(|member| member.client_urls).collect();
        Self::new(Config { endpoints, ..self.config.clone() })
    }

    /// A client for its members, and behind them those at these endpoints that are none of them yet.
    ///
    /// # Errors
    /// Those of [`Client::new`].
    pub fn with_more<E: Into<String>>(
        &self,
        endpoints: impl IntoIterator<Item = E>,
    ) -> Result<Self, Error> {
        let endpoints = endpoints.into_iter().map(E::into);
        let endpoints = self.config.endpoints.iter().cloned().chain(endpoints).collect();
        Self::new(Config { endpoints, ..self.config.clone() })
    }

    /// Makes a call that changes nothing, at the first member that can answer.
    pub(crate) async fn read<Q, P>(&self, method: &Method<Q, P>, request: Q) -> Result<P, Error>
    where
        Q: Message + Clone + 'static,
        P: Message + Default + 'static,
    {
        let call = async |member: &Member| match member.call(method, request.clone()).await {
            Err(error) if may_be_over(&error) => member.call(method, request.clone()).await,
            answer => answer,
        };
        self.first(Error::is_this_members_alone, call).await
    }

    /// Makes a call that changes something, at the first member that does not surely refuse it.
    pub(crate) async fn write<Q, P>(&self, method: &Method<Q, P>, request: Q) -> Result<P, Error>
    where
        Q: Message + Clone + 'static,
        P: Message + Default + 'static,
    {
        let call = async |member: &Member| member.call(method, request.clone()).await;
        self.first(Error::was_not_carried_out, call).await
    }

    /// The first member's answer, going on to the next after an error of which `go_on` says so.
    pub(crate) async fn first<'a, T, F>(
        &'a self,
        go_on: impl Fn(&Error) -> bool,
        call: impl Fn(&'a Member) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for offset in 0..self.members.len() {
            let index = (first + offset) % self.members.len();
            match call(&self.members[index]).await {
                Err(error) if go_on(&error) => {
                    tracing::debug!(%error, "trying the next endpoint");
                    failures.push(error);
                }
                settled => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return settled;
                }
            }
        }
        Err(if failures.len() == 1 { failures.remove(0) } else { Error::AllFailed { failures } })
    }
}

/// Whether what failed a read is most likely over already: an old connection broke unnoticed and
/// the next one is new, or an election took away the leader that was asked, and there is another.
fn may_be_over(error: &Error) -> bool {
    matches!(error, Error::Lost { .. } | Error::Etcd { fault: EtcdFault::LeaderChanged, .. })
}
