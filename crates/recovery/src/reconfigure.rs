//! What an etcd is to be before it starts: fresh, as it was, a new member, or restored. Pure.
//!
//! What may never happen here: an etcd that starts with nothing where there was a cluster. With the same flags it would be a
//! healthy and empty cluster with the same ids.

use crate::replace::Listed;

/// What lies in the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// Nothing.
    Nothing,
    /// A member.
    Member {
        /// Of this cluster.
        cluster: u64,
        /// With this id.
        id: u64,
    },
    /// Something that does not say what it is.
    Unreadable,
    /// This fence stands there.
    Fenced(String),
}

/// What the cluster says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nobody does.
    Nobody,
    /// It serves, and lists these.
    Serves {
        /// Its id.
        cluster: u64,
        /// All that it lists.
        members: Vec<Listed>,
    },
}

/// What the archives know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// None is configured.
    NoArchive,
    /// They cannot be asked.
    Away(String),
    /// They have nothing: nobody was here before.
    Nothing,
    /// They have it; and so many of its hosts, of so many, say that their data are gone.
    Cluster {
        /// With nothing.
        gone: usize,
        /// All that are to be.
        all: usize,
    },
}

/// What it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// A member of a new cluster, with nothing.
    Fresh,
    /// What it was.
    Restart,
    /// A new member of a cluster that serves.
    Join,
    /// As it is in the archive; so are all others.
    Restore,
    /// Not yet, and why.
    Wait(String),
    /// Nothing that could be decided here: why, and what to do.
    Refuse(String, &'static str),
}

const REPLACE: &str = "rekindle replace, on this host";
const RECOVER: &str = "rekindle recover";

/// Decides it for a member with these peer URLs. `allow_fresh` where no archive could know of an earlier cluster, and
/// somebody says that there was none.
#[must_use]
pub fn reconfigure(
    local: &Local,
    answer: &Answer,
    known: &Known,
    peer_urls: &[String],
    allow_fresh: bool,
) -> Start {
    match (local, answer) {
        (Local::Fenced(id), _) => Start::Refuse(
            format!("its data directory is fenced by {id}"),
            "finish what that was put up for, or take it back",
        ),
        (Local::Member { cluster, id }, Answer::Serves { cluster: theirs, members }) => {
            of_member((*cluster, *id), *theirs, members)
        }
        (Local::Member { .. }, Answer::Nobody) => Start::Restart,
        (Local::Unreadable, Answer::Serves { .. }) => Start::Refuse(
            "what is in its data directory cannot be read, and the others serve".to_owned(),
            REPLACE,
        ),
        (Local::Unreadable, Answer::Nobody) => Start::Refuse(
            "what is in its data directory cannot be read, and nobody serves".to_owned(),
            RECOVER,
        ),
        (Local::Nothing, Answer::Serves { members, .. }) => of_nothing(members, peer_urls),
        (Local::Nothing, Answer::Nobody) => alone(known, allow_fresh),
    }
}

fn of_member((cluster, id): (u64, u64), theirs: u64, members: &[Listed]) -> Start {
    if cluster != theirs {
        let why = format!("its data are of cluster {cluster:x}, and {theirs:x} serves");
        return Start::Refuse(
            why,
            "find out which is the right one; then rekindle replace, on the hosts of the other",
        );
    }
    match members.iter().any(|member| member.id == id) {
        true => Start::Restart,
        false => {
            let why = format!("member {id:x} was taken out of the cluster");
            Start::Refuse(why, REPLACE)
        }
    }
}

fn of_nothing(members: &[Listed], peer_urls: &[String]) -> Start {
    let is_own = |it: &&Listed| it.peer_urls.iter().any(|url| peer_urls.contains(url));
    match members.iter().find(is_own) {
        Some(member) if !member.started => Start::Join,
        Some(_) => {
            Start::Refuse("its data are gone, and the others count on them".to_owned(), REPLACE)
        }
        None => Start::Refuse(
            "the cluster serves, and does not know it".to_owned(),
            "add it: rekindle replace, on this host",
        ),
    }
}

fn alone(known: &Known, allow_fresh: bool) -> Start {
    match known {
        Known::Nothing => Start::Fresh,
        Known::NoArchive if allow_fresh => Start::Fresh,
        Known::NoArchive => Start::Refuse(
            "there is nothing in its data directory, and no archive to say whether there was a cluster".to_owned(),
            "if there was none, pass --allow-fresh once; else rekindle recover",
        ),
        Known::Away(why) => Start::Wait(format!("the archive knows whether there was a cluster, and cannot be asked: {why}")),
        Known::Cluster { gone, all } if gone >= all && *all > 0 => Start::Restore,
        Known::Cluster { gone, all } => Start::Wait(format!(
            "there was a cluster, and the data of this host are gone; {gone} of {all} hosts say that of theirs: it waits until \
             the others serve, or all say so"
        )),
    }
}

/// What a host has said in the store where all meet, before its etcd starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its member's name.
    pub member: String,
    /// When, in milliseconds since 1970 by its clock.
    pub at: i64,
    /// What.
    pub said: Said,
}

/// See [`Note`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Its data are gone.
    Gone,
    /// It was restored from the archive's point of this revision, or has joined others that were.
    Restored(i64),
}

/// What was said longer ago does not count.
const COUNTS_FOR_MS: i64 = 15 * 60 * 1000;

impl Note {
    /// The name of its object, below where notes are.
    #[must_use]
    pub fn name(&self) -> String {
        let Self { member, at, said } = self;
        match said {
            Said::Gone => format!("{member}/{at:020}-gone"),
            Said::Restored(revision) => format!("{member}/{at:020}-restored-{revision}"),
        }
    }

    /// What a name says, if it is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (member, rest) = name.rsplit_once('/')?;
        let (at, said) = rest.split_once('-')?;
        let said = match said.strip_prefix("restored-") {
            Some(revision) => Said::Restored(revision.parse().ok()?),
            None => (said == "gone").then_some(Said::Gone)?,
        };
        Some(Self { member: member.to_owned(), at: at.parse().ok()?, said })
    }
}

/// How many of the hosts say that their data are gone, this one among them; none where this one was restored from the same
/// point before: what the others have acknowledged to it since it must not forget.
#[must_use]
pub fn count_gone(notes: &[Note], own: &str, all: &[String], revision: i64, now: i64) -> usize {
    let is_same = |note: &&Note| note.said == Said::Restored(revision);
    if notes.iter().filter(|note| note.member == own).any(|note| is_same(&note)) {
        return 0;
    }
    let is_gone = |name: &&String| {
        let last = notes.iter().filter(|note| note.member == **name).max_by_key(|note| note.at);
        let is_recent = |note: &&Note| now.abs_diff(note.at) <= COUNTS_FOR_MS.unsigned_abs();
        last.filter(is_recent).is_some_and(|note| note.said == Said::Gone || is_same(&note))
    };
    all.iter().filter(is_gone).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://h1:2380";

    fn serves(id: u64, started: bool, url: &str) -> Answer {
        let (name, peer_urls) = (format!("m{id}"), vec![url.to_owned()]);
        let listed = Listed { id, name, started, peer_urls, votes: true };
        Answer::Serves { cluster: 7, members: vec![listed] }
    }

    /// In a letter: what it comes to.
    fn letter(local: &Local, answer: &Answer, known: &Known, allow_fresh: bool) -> char {
        match reconfigure(local, answer, known, &[URL.to_owned()], allow_fresh) {
            Start::Fresh => 'F',
            Start::Restart => 'S',
            Start::Join => 'J',
            Start::Restore => 'R',
            Start::Wait(_) => 'w',
            Start::Refuse(..) => '-',
        }
    }

    /// Each case of what lies there, who answers and what is known.
    #[test]
    fn nothing_is_begun_where_there_was_something() {
        let locals = [
            Local::Nothing,
            Local::Member { cluster: 7, id: 1 },
            Local::Member { cluster: 8, id: 1 },
            Local::Member { cluster: 7, id: 2 },
            Local::Unreadable,
            Local::Fenced("r1".to_owned()),
        ];
        let answers = [
            Answer::Nobody,
            serves(1, true, URL),
            serves(1, false, URL),
            serves(1, true, "http://h2:2380"),
        ];
        let known = [
            Known::NoArchive,
            Known::Away(String::new()),
            Known::Nothing,
            Known::Cluster { gone: 1, all: 3 },
            Known::Cluster { gone: 3, all: 3 },
        ];
        let want = [
            // Nothing there: nobody answers, it is listed, it was added, it is not listed.
            ["-wFwR", "-----", "JJJJJ", "-----"],
            ["SSSSS", "SSSSS", "SSSSS", "SSSSS"],
            ["SSSSS", "-----", "-----", "-----"],
            ["SSSSS", "-----", "-----", "-----"],
            ["-----", "-----", "-----", "-----"],
            ["-----", "-----", "-----", "-----"],
        ];
        for (local, want) in locals.iter().zip(want) {
            for (answer, want) in answers.iter().zip(want) {
                let got: String =
                    known.iter().map(|known| letter(local, answer, known, false)).collect();
                assert_eq!(got, want, "{local:?} {answer:?}");
            }
        }
        // Somebody says that there was none: that counts where nothing else could know.
        let got: String = known
            .iter()
            .map(|known| letter(&Local::Nothing, &Answer::Nobody, known, true))
            .collect();
        assert_eq!(got, "FwFwR");
    }

    fn note(member: &str, at: i64, said: Said) -> Note {
        Note { member: member.to_owned(), at, said }
    }

    #[test]
    fn a_host_counts_by_what_it_has_said_last() {
        let all = ["a", "b", "c"].map(str::to_owned);
        let now = 10_000_000;
        let gone = |member, ago: i64| note(member, now - ago, Said::Gone);
        let restored =
            |member, ago: i64, revision| note(member, now - ago, Said::Restored(revision));
        let count = |notes: &[Note]| count_gone(notes, "a", &all, 50, now);
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[gone("a", 0), gone("b", 60_000), gone("x", 0)]), 2);
        assert_eq!(count(&[gone("a", 0), gone("b", 0), gone("c", COUNTS_FOR_MS + 1)]), 2);
        // One was faster, and is restored from the same point already.
        assert_eq!(count(&[gone("a", 0), gone("b", 9), gone("c", 9), restored("c", 5, 50)]), 3);
        // That was another time.
        assert_eq!(count(&[gone("a", 0), gone("b", 9), gone("c", 9), restored("c", 5, 40)]), 2);
        // This one was restored from it itself, and its data are gone once more.
        let once_more = [restored("a", 9, 50), gone("a", 0), gone("b", 0), gone("c", 0)];
        assert_eq!(count(&once_more), 0);
        for note in once_more {
            assert_eq!(Note::parse(&note.name()), Some(note));
        }
        assert_eq!(Note::parse("a/5-other"), None);
    }
}
