//! Asking every member of a cluster how it is, all at once.

use jiff::{SignedDuration, Timestamp};
use rekindle_client::{Client, HashKv, Introduction, Member, MemberInfo, MemberList, Role, Status};
use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// A cluster, as its members have it.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Its id; none where nobody says who is in it.
    pub cluster: Option<u64>,
    /// Its members: those that it lists, or where nobody lists any those that were asked.
    pub members: Vec<ObservedMember>,
    /// Where nobody lists any: what failed.
    pub unlisted: Option<String>,
    /// When it was looked at.
    pub at: Timestamp,
}

/// A member.
#[derive(Clone, Debug, Default)]
pub struct ObservedMember {
    /// Its id, if it is listed or says it.
    pub id: Option<u64>,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where the cluster says that peers reach it, and clients.
    pub peer_urls: Vec<String>,
    /// See there.
    pub client_urls: Vec<String>,
    /// Whether it votes.
    pub votes: bool,
    /// What was seen at each place where it should be.
    pub seen: Vec<Seen>,
}

/// What was seen at an endpoint.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Where.
    pub endpoint: String,
    /// What it says of itself, or why it says nothing.
    pub status: Result<Status, String>,
    /// How long a read as of now took, or why there was none.
    pub read: Result<Duration, String>,
    /// It did not let itself be asked, and will not: TLS, or the user. Whether it serves is not known.
    pub barred: bool,
    /// When its certificate expires; none without TLS.
    pub certificate: Option<Timestamp>,
    /// Its clock is ahead of this host's by so much, give or take a second; none where it does not say.
    pub ahead: Option<SignedDuration>,
    /// Its keyspace's hash, where that was asked for.
    pub hash: Option<Result<HashKv, String>>,
}

impl ObservedMember {
    /// What was seen where it is best: where it answers a read, else where it answers.
    #[must_use]
    pub fn best(&self) -> Option<&Seen> {
        self.seen.iter().min_by_key(|seen| (seen.read.is_err(), seen.status.is_err()))
    }

    /// What it says of itself, if it answers.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        self.best()?.status.as_ref().ok()
    }

    /// Whether it serves: it has answered a read as of now.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.best().is_some_and(|seen| seen.read.is_ok())
    }

    /// What it is called.
    #[must_use]
    pub fn label(&self) -> String {
        match (&*self.name, self.id) {
            ("", Some(id)) => format!("{id:x}"),
            ("", None) => self.seen.first().map(|seen| seen.endpoint.clone()).unwrap_or_default(),
            (name, _) => name.to_owned(),
        }
    }
}

/// Asks each member everything, within a time for all of it. With `deep` each is asked for the hash of its keyspace, too:
/// a member writes nothing while it reckons that.
pub async fn observe(client: &Client, within: Duration, deep: bool) -> Observed {
    let at = Timestamp::now();
    let until = Instant::now() + within;
    // Half of it may go by until it is known whom to ask.
    let listed = list(client, within / 2).await;
    let (list, unlisted) = match listed {
        Ok(list) => (Some(list), None),
        Err(why) => (None, Some(why)),
    };
    let more = list.iter().flat_map(|list| &list.members).flat_map(|it| it.client_urls.clone());
    let all = client.with_more(more);
    let all = all.as_ref().map_or(client.members(), Client::members);
    let mut asked = JoinSet::new();
    for (number, member) in all.iter().cloned().enumerate() {
        asked.spawn(async move { (number, ask(member, until).await) });
    }
    let mut seen = asked.join_all().await;
    seen.sort_by_key(|(number, _)| *number);
    let mut seen: Vec<_> = seen.into_iter().map(|(_, seen)| seen).collect();
    if deep {
        hash_all(all, &mut seen, within).await;
    }
    let cluster = list.as_ref().map(|list| list.header.cluster_id);
    let members = sort(list.map(|list| list.members).unwrap_or_default(), seen);
    Observed { cluster, members, unlisted, at }
}

/// Who is in the cluster: what a quorum says, or else what any of those says that can be reached.
async fn list(client: &Client, within: Duration) -> Result<MemberList, String> {
    let agreed = timed(within, client.member_list());
    let known = async {
        let mut asked = JoinSet::new();
        for member in client.members() {
            let member = member.clone();
            asked.spawn(async move { timed(within, member.members_known()).await });
        }
        let all = asked.join_all().await;
        let why = all.iter().find_map(|known| known.as_ref().err().cloned());
        // Who knows most was there last.
        let known = all.into_iter().filter_map(Result::ok).max_by_key(|list| list.members.len());
        known.ok_or_else(|| why.unwrap_or_else(|| "nobody was asked".to_owned()))
    };
    let (agreed, known) = tokio::join!(agreed, known);
    agreed.or(known)
}

async fn ask(member: Member, until: Instant) -> Seen {
    let left = until.saturating_duration_since(Instant::now());
    let began = Instant::now();
    let (status, (read, barred), introduction) = tokio::join!(
        timed(left, member.status()),
        async {
            let mut barred = false;
            let read = async {
                let read = member.read_as_of_now().await.map(|()| began.elapsed());
                read.inspect_err(|error| barred = !error.is_transient())
            };
            (timed(left, read).await, barred)
        },
        timed(left, async {
            let introduction = member.introduction().await?;
            Ok::<_, rekindle_client::Error>((introduction, Timestamp::now()))
        }),
    );
    let introduction = introduction.ok();
    let certificate = introduction.as_ref().and_then(|(it, _)| expiry(it));
    let ahead = introduction.as_ref().and_then(|(it, now)| ahead(it, *now));
    let endpoint = member.endpoint().to_string();
    Seen { endpoint, status, read, barred, certificate, ahead, hash: None }
}

async fn timed<T, E: std::fmt::Display>(
    within: Duration,
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(within, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {:.1} s", within.as_secs_f64())),
    }
}

/// The hash of each, one after the other and as of the oldest revision that any has, so that they can be compared.
async fn hash_all(members: &[Member], seen: &mut [Seen], within: Duration) {
    let revisions = seen.iter().filter_map(|seen| Some(seen.status.as_ref().ok()?.header.revision));
    let Some(revision) = revisions.min() else { return };
    for (member, seen) in members.iter().zip(seen).filter(|(_, seen)| seen.status.is_ok()) {
        seen.hash =
            Some(timed(within.max(Duration::from_secs(60)), member.hash_kv(revision)).await);
    }
}

fn expiry(introduction: &Introduction) -> Option<Timestamp> {
    let der = introduction.certificate.as_ref()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

fn ahead(introduction: &Introduction, now: Timestamp) -> Option<SignedDuration> {
    let date = introduction.date.as_ref()?;
    let there = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(there.duration_since(now))
}

/// Whose each of it is: by the id that it says, else by where it was asked.
fn sort(listed: Vec<MemberInfo>, seen: Vec<Seen>) -> Vec<ObservedMember> {
    let mut members: Vec<_> = listed
        .into_iter()
        .map(|info| {
            let urls: BTreeSet<_> = info.client_urls.iter().map(|url| authority(url)).collect();
            let urls: BTreeSet<_> = urls.into_iter().map(str::to_owned).collect();
            let (id, votes) = (Some(info.id), info.role == Role::Voter);
            let MemberInfo { name, peer_urls, client_urls, .. } = info;
            let seen = Vec::new();
            (urls, ObservedMember { id, name, peer_urls, client_urls, votes, seen })
        })
        .collect();
    for seen in seen {
        let id = seen.status.as_ref().ok().map(|status| status.header.member_id);
        let is_its = |(urls, member): &&mut (BTreeSet<String>, ObservedMember)| match id {
            Some(id) => member.id == Some(id),
            None => urls.contains(authority(&seen.endpoint)),
        };
        match members.iter_mut().find(is_its) {
            Some((_, member)) => member.seen.push(seen),
            // Somebody else, or where nobody lists any.
            None => {
                let votes = seen.status.as_ref().map_or(true, |status| !status.is_learner);
                let urls = BTreeSet::from([authority(&seen.endpoint).to_owned()]);
                let seen = vec![seen];
                let member = ObservedMember { id, votes, seen, ..ObservedMember::default() };
                members.push((urls, member));
            }
        }
    }
    let mut members: Vec<_> = members.into_iter().map(|(_, member)| member).collect();
    members.sort_by(|one, other| (&one.name, one.id).cmp(&(&other.name, other.id)));
    members
}

/// Host and port of a URL.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.trim_end_matches('/')
}
