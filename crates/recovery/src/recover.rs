//! Bringing a whole cluster back: from what, pure.

use serde::{Deserialize, Serialize};

/// A host that is to have a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Its member's name.
    pub name: String,
    /// Its data, where there are any that can be read.
    pub data: Option<Data>,
    /// Its etcd runs.
    pub runs: bool,
    /// Where peers reach it.
    pub peer_urls: Vec<String>,
}

/// A voter of the last configuration that anybody knows of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Voter {
    /// Its name; empty where it has never started.
    pub name: String,
    /// Where peers reach it.
    pub peer_urls: Vec<String>,
}

impl Voter {
    /// What it is called.
    #[must_use]
    pub fn label(&self) -> &str {
        match self.name.is_empty() {
            true => self.peer_urls.first().map_or("a member without a name", String::as_str),
            false => &self.name,
        }
    }

    fn is_on(&self, host: &HostFacts) -> bool {
        let urls = &self.peer_urls;
        host.name == self.name || host.peer_urls.iter().any(|url| urls.contains(url))
    }
}

/// Those that none of these hosts has: nobody stops their etcds.
#[must_use]
pub fn left_out<'a>(hosts: &[HostFacts], voters: &'a [Voter]) -> Vec<&'a Voter> {
    voters.iter().filter(|voter| !hosts.iter().any(|host| voter.is_on(host))).collect()
}

/// So many of them, of so many, may be a quorum and write on by themselves, beside whatever is restored.
#[must_use]
pub fn may_write_on(left_out: usize, voters: usize) -> bool {
    left_out > voters / 2
}

/// What is in a stopped member's data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// The cluster's id.
    pub cluster: u64,
    /// Members that voted in it, as far as this one knew: at most so many.
    pub voters: usize,
    /// Term and index of the last entry of its log.
    pub last: (u64, u64),
    /// Index of the last entry that its database has.
    pub applied: u64,
    /// Entries known to be committed that are in the log, and not in the database.
    pub beyond: u64,
    /// Revision of the database.
    pub revision: i64,
    /// Database and log pass their checks.
    pub sound: bool,
}

impl Data {
    /// The highest revision that it may have with what its log has: an entry makes one at most.
    fn revision_max(&self) -> i64 {
        let beyond = self.last.1.saturating_sub(self.applied);
        self.revision.saturating_add(i64::try_from(beyond).unwrap_or(i64::MAX))
    }
}

/// A backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Its revision.
    pub revision: i64,
    /// Somebody has named this very point.
    pub is_named: bool,
}

/// What a cluster is brought back from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Nothing is restored: those with good data are started, and are a quorum.
    Start,
    /// The data of this host.
    Host(usize),
    /// The backup.
    Backup,
}

/// Why nothing can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hopeless {
    /// Members' data are of more than one cluster.
    SeveralClusters,
    /// There are neither good data nor a backup.
    NothingLeft,
}

/// The best of what is left: that which loses least, where nobody has named a point to go back to.
///
/// An etcd that was started on an emptied directory has good data, and next to nothing in them: what has not got as far as the
/// backup is no quorum of what the backup is of.
///
/// # Errors
/// [`Hopeless`].
pub fn choose(hosts: &[HostFacts], backup: Option<Backup>) -> Result<From, Hopeless> {
    if backup.is_some_and(|backup| backup.is_named) {
        return Ok(From::Backup);
    }
    let sound = |host: &HostFacts| host.data.filter(|data| data.sound);
    let mut clusters: Vec<_> = hosts.iter().filter_map(sound).map(|data| data.cluster).collect();
    clusters.sort_unstable();
    clusters.dedup();
    if clusters.len() > 1 {
        return Err(Hopeless::SeveralClusters);
    }
    let good: Vec<_> =
        hosts.iter().enumerate().filter_map(|(at, host)| Some((at, sound(host)?))).collect();
    // Whoever knew of most has the last word on how many there were.
    let best = good.iter().max_by_key(|(_, data)| (data.last, data.revision));
    let voters = best.map_or(0, |(_, data)| data.voters).max(hosts.len());
    if good.len() > voters / 2 && !went_back(hosts, backup) {
        return Ok(From::Start);
    }
    match (best, backup) {
        (Some((_, data)), Some(backup)) if backup.revision > data.revision => Ok(From::Backup),
        (Some((at, _)), _) => Ok(From::Host(*at)),
        (None, Some(_)) => Ok(From::Backup),
        (None, None) => Err(Hopeless::NothingLeft),
    }
}

/// No host can have what the backup has: they were started empty, or restored from something older.
#[must_use]
pub fn went_back(hosts: &[HostFacts], backup: Option<Backup>) -> bool {
    let sound = hosts.iter().filter_map(|host| host.data.filter(|data| data.sound));
    let most = sound.map(|data| data.revision_max()).max();
    most.zip(backup).is_some_and(|(most, backup)| most < backup.revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: Data = Data {
        cluster: 1,
        voters: 3,
        last: (2, 100),
        applied: 60,
        beyond: 0,
        revision: 50,
        sound: true,
    };

    fn backup(revision: i64) -> Option<Backup> {
        Some(Backup { revision, is_named: false })
    }

    fn hosts(data: [Option<Data>; 3]) -> Vec<HostFacts> {
        let host = |(number, data)| HostFacts { data, ..host(number) };
        data.into_iter().enumerate().map(host).collect()
    }

    fn host(number: usize) -> HostFacts {
        let peer_urls = vec![format!("http://h{number}:2380")];
        HostFacts { name: format!("m{number}"), data: None, runs: false, peer_urls }
    }

    fn voter(number: usize) -> Voter {
        let HostFacts { name, peer_urls, .. } = host(number);
        Voter { name, peer_urls }
    }

    #[test]
    fn whoever_is_on_no_host_is_left_out() {
        let voters: Vec<_> = (0..5).map(voter).collect();
        let left = |hosts: &[HostFacts]| left_out(hosts, &voters).len();
        assert_eq!(left(&[host(0), host(3)]), 3);
        // It has another name now, or other URLs, and is the same.
        let renamed = HostFacts { name: "other".to_owned(), ..host(1) };
        let moved = HostFacts { peer_urls: vec!["http://h9:2380".to_owned()], ..host(2) };
        assert_eq!(left(&[host(0), renamed, moved]), 2);
        assert_eq!(left(&[]), 5);
        assert!(left_out(&[host(0)], &[]).is_empty());
    }

    #[test]
    fn a_quorum_that_is_left_out_may_write_on() {
        for (left, voters, may) in
            [(2, 3, true), (1, 3, false), (1, 2, false), (2, 4, false), (3, 5, true)]
        {
            assert_eq!(may_write_on(left, voters), may, "{left} of {voters}");
        }
        assert!(may_write_on(1, 1));
        assert!(!may_write_on(0, 0));
    }

    #[test]
    fn a_quorum_of_good_data_beats_every_backup() {
        let some = Some(DATA);
        let bad = Some(Data { sound: false, ..DATA });
        assert_eq!(choose(&hosts([some, some, None]), backup(90)), Ok(From::Start));
        assert_eq!(choose(&hosts([some, bad, bad]), backup(90)), Ok(From::Backup));
        assert_eq!(choose(&hosts([some, bad, None]), backup(40)), Ok(From::Host(0)));
        assert_eq!(choose(&hosts([some, None, None]), None), Ok(From::Host(0)));
        // Two of what were five.
        let of_five = Some(Data { voters: 5, ..DATA });
        assert_eq!(choose(&hosts([of_five, of_five, None]), backup(90)), Ok(From::Backup));
        assert_eq!(choose(&hosts([None, None, None]), backup(1)), Ok(From::Backup));
        // Its database does not know yet who was in the cluster.
        let of_nobody = Some(Data { voters: 0, ..DATA });
        assert_eq!(choose(&hosts([of_nobody, None, None]), None), Ok(From::Host(0)));
        assert_eq!(choose(&hosts([None, None, bad]), None), Err(Hopeless::NothingLeft));
    }

    /// Empty ones that formed a cluster of the same ids would else be started once more.
    #[test]
    fn what_has_not_got_as_far_as_the_backup_is_not_what_it_is_of() {
        let empty = Some(Data { revision: 8, last: (2, 69), applied: 69, ..DATA });
        assert_eq!(choose(&hosts([empty; 3]), backup(423)), Ok(From::Backup));
        assert_eq!(choose(&hosts([empty; 3]), backup(8)), Ok(From::Start));
        assert_eq!(choose(&hosts([empty; 3]), None), Ok(From::Start));
        // Databases lag behind their logs.
        assert_eq!(choose(&hosts([Some(DATA); 3]), backup(90)), Ok(From::Start));
        assert_eq!(choose(&hosts([Some(DATA); 3]), backup(91)), Ok(From::Backup));
    }

    #[test]
    fn a_point_that_somebody_names_is_what_he_gets() {
        let named = Some(Backup { revision: 3, is_named: true });
        assert_eq!(choose(&hosts([Some(DATA); 3]), named), Ok(From::Backup));
    }

    #[test]
    fn the_log_says_which_member_knew_most() {
        let of_five = Data { voters: 5, ..DATA };
        let ahead = Data { last: (3, 90), revision: 45, ..of_five };
        let found = choose(&hosts([Some(of_five), Some(ahead), None]), backup(45));
        assert_eq!(found, Ok(From::Host(1)));
        let other = Data { cluster: 2, ..of_five };
        let found = choose(&hosts([Some(of_five), Some(other), None]), None);
        assert_eq!(found, Err(Hopeless::SeveralClusters));
    }
}
