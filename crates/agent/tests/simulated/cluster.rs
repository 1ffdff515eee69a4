//! A cluster: its revisions, and a watch of them that may lie.

use crate::chance::Chance;
use rekindle_agent::capture::{From, Said};
use rekindle_archive::Witness;
use rekindle_client::{Event, EventType, KeyValue};
use rekindle_etcd::{ClusterId, MemberId, RaftTerm, Revision};

/// What tells one revision from any other: its changes, put into words.
pub(crate) type Content = String;

/// A cluster. Revisions begin at 2, as etcd's do; what lies at place 0 is that one.
pub(crate) struct Cluster {
    /// Of each history all that it ever had; the last one is now.
    pub histories: Vec<Vec<Content>>,
    pub compact: i64,
    pub term: u64,
    /// Nobody lies, fails or goes back any more.
    pub good: bool,
    /// It fails more often.
    wild: bool,
    watch: Option<Watch>,
}

/// A watch, as the server sees it.
struct Watch {
    number: u64,
    from: From,
    /// What comes next, once it has begun.
    next: Option<i64>,
    /// It has said nothing of a revision.
    begins: bool,
    asked: bool,
}

impl Cluster {
    pub(crate) fn new(wild: bool) -> Self {
        let histories = vec![Vec::new()];
        Self { histories, compact: 0, term: 2, good: false, wild, watch: None }
    }

    fn now(&self) -> &Vec<Content> {
        self.histories.last().unwrap()
    }

    pub(crate) fn head(&self) -> i64 {
        1 + self.now().len() as i64
    }

    pub(crate) fn write(&mut self, count: i64, chance: &mut Chance) {
        for _ in 0..count {
            let (number, many) = (chance.number(), chance.once_in(4));
            let delete = chance.once_in(5);
            let change = |at: i64| match delete {
                true => format!("-{number}.{at}"),
                false => format!("+{number}.{at}"),
            };
            let changes: Vec<_> = (0..if many { 3 } else { 1 }).map(change).collect();
            self.histories.last_mut().unwrap().push(changes.join(" "));
        }
    }

    /// It is restored: what came behind some revision is gone, and other things happen.
    pub(crate) fn go_back(&mut self, chance: &mut Chance) {
        // Often only what came last is gone.
        let gone = if chance.once_in(2) { chance.below(self.head()) } else { chance.below(8) };
        let keep = (self.head() - gone).max(1) as usize - 1;
        let mut history = self.now().clone();
        history.truncate(keep);
        self.histories.push(history);
        self.compact = self.compact.min(self.head());
        self.term = 2 + chance.below(self.term as i64 + 2).unsigned_abs();
        let count = chance.below(40);
        self.write(count, chance);
        // What was connected is not any more.
        if let Some(watch) = &mut self.watch {
            watch.next = Some(i64::MAX);
        }
    }

    pub(crate) fn open_watch(&mut self, number: u64, from: From) {
        self.watch = Some(Watch { number, from, next: None, begins: true, asked: false });
    }

    pub(crate) fn end_watch(&mut self) {
        self.watch = None;
    }

    pub(crate) fn ask(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.asked = true;
        }
    }

    fn witness(&self) -> Witness {
        Witness { cluster: ClusterId(1), member: MemberId(1), term: RaftTerm(self.term) }
    }

    /// The next message, if there is one.
    pub(crate) fn say(&mut self, chance: &mut Chance) -> Option<(u64, Said)> {
        let (head, good, compact) = (self.head(), self.good, self.compact);
        let (witness, newest) = (self.witness(), revision(head));
        let watch = self.watch.as_mut()?;
        let number = watch.number;
        let lies = |chance: &mut Chance, times| !good && chance.once_in(times);
        let Some(next) = watch.next else {
            if lies(chance, 20) {
                return self.fall(number, false);
            }
            let from = match watch.from {
                From::Newest => revision(head),
                From::Revision(revision) => revision,
            };
            // There is no first revision.
            watch.next = Some(from.get().max(2));
            return Some((number, Said::Began { from, witness, newest }));
        };
        if next == i64::MAX || lies(chance, if self.wild { 12 } else { 60 }) {
            return self.fall(number, false);
        }
        if next < compact {
            return self.fall(number, true);
        }
        if watch.begins && next == compact && next <= head {
            // Deletes at the very revision of a compaction are gone.
            let is_gone = self.histories.last().unwrap()[(next - 2) as usize].starts_with('-');
            if is_gone {
                (watch.next, watch.begins) = (Some(next + 1), false);
                return None;
            }
        }
        if next > head {
            if !watch.asked && !lies(chance, 100) {
                return None;
            }
            watch.asked = false;
            // A watch that waits for what is to come says nothing.
            let said = Said::Progress { revision: newest };
            return (next == head + 1).then_some((number, said));
        }
        if lies(chance, 100) {
            return Some((number, Said::Progress { revision: newest }));
        }
        // Where the revision that a watch begins at is a delete and does not come, only the next base shows
        // whether it was compacted away or the cluster is another one.
        let begins = watch.begins;
        let passed = if lies(chance, 50) && !begins { 1 + chance.below(3) } else { 0 };
        let again = if lies(chance, 20) { chance.below(5) } else { 0 };
        let first = (next + passed - again).max(2).min(head);
        let last = (first + chance.below(60)).min(head);
        (watch.next, watch.begins) = (Some(last + 1), false);
        let events = (first..=last).flat_map(|number| {
            let content = &self.now()[(number - 2) as usize];
            events(number, content)
        });
        Some((number, Said::Changes { events: events.collect(), witness, newest }))
    }

    fn fall(&mut self, number: u64, compacted: bool) -> Option<(u64, Said)> {
        self.watch = None;
        Some((number, Said::Ended { compacted }))
    }
}

pub(crate) fn revision(number: i64) -> Revision {
    Revision::new(number).unwrap()
}

fn events(revision: i64, content: &str) -> Vec<Event> {
    let event = |change: &str| {
        let (kind, key) = change.split_at(1);
        let put = kind == "+";
        let kv = KeyValue {
            key: key.to_owned().into(),
            mod_revision: revision,
            version: i64::from(put),
            ..KeyValue::default()
        };
        let kind = if put { EventType::Put } else { EventType::Delete };
        Event { r#type: kind as i32, kv: Some(kv), prev_kv: None }
    };
    content.split(' ').map(event).collect()
}
