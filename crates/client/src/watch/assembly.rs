//! Puts revisions together that etcd cut.
//!
//! Never gives out a part of a revision, nor holds more than one.

use crate::proto::mvccpb::Event;

/// What came of a revision that is not complete yet.
#[derive(Debug)]
pub(super) struct Assembly {
    /// The changes of the last revision, of which more is to come, and their size.
    unfinished: Vec<Event>,
    bytes: usize,
    pub(super) limit: usize,
    /// The revision after the last that was delivered, or where the watch began.
    pub(super) next_revision: i64,
}

/// A revision exceeds the limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub(super) revision: i64,
}

impl Assembly {
    pub(super) fn new(next_revision: i64, limit: usize) -> Self {
        Self { unfinished: Vec::new(), bytes: 0, limit, next_revision }
    }

    pub(super) fn is_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Takes in a message's changes and gives out those of whole revisions. In a fragment all but
    /// the last revision are whole; in what is not one, or the last, all are.
    pub(super) fn add(
        &mut self,
        events: Vec<Event>,
        fragment: bool,
    ) -> Result<Vec<Event>, TooLarge> {
        let mut ready = std::mem::take(&mut self.unfinished);
        ready.extend(events);
        let Some(last) = ready.last().map(revision) else {
            return Ok(ready);
        };
        if fragment {
            let begin = ready.partition_point(|event| revision(event) < last);
            self.unfinished = ready.split_off(begin);
        }
        self.bytes = self.unfinished.iter().map(event_bytes).sum();
        if self.bytes > self.limit {
            return Err(TooLarge { revision: last });
        }
        if let Some(last) = ready.last() {
            self.next_revision = revision(last) + 1;
        }
        Ok(ready)
    }
}

/// The revision that made a change.
pub(super) fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

fn event_bytes(event: &Event) -> usize {
    [&event.kv, &event.prev_kv].into_iter().flatten().map(|kv| kv.key.len() + kv.value.len()).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::proto::mvccpb::KeyValue;

    /// Changes at these revisions, of ten bytes each.
    fn changes(revisions: &[i64]) -> Vec<Event> {
        let change = |mod_revision| Event {
            kv: Some(KeyValue {
                key: Bytes::from_static(b"key"),
                value: Bytes::from_static(b"7 bytes"),
                mod_revision,
                ..KeyValue::default()
            }),
            ..Event::default()
        };
        revisions.iter().copied().map(change).collect()
    }

    /// Feeds messages, each with its revisions and whether it is a fragment; what each gives out,
    /// and where the watch would go on.
    #[track_caller]
    fn check(messages: &[(&[i64], bool)], want: &[&[i64]], next_revision: i64) {
        let mut assembly = Assembly::new(1, 1000);
        for ((revisions, fragment), want) in messages.iter().zip(want) {
            let given = assembly.add(changes(revisions), *fragment).expect("it is small");
            assert_eq!(given.iter().map(revision).collect::<Vec<_>>(), *want);
        }
        assert_eq!(assembly.next_revision, next_revision);
    }

    #[test]
    fn whole_messages_pass_through() {
        check(&[(&[2, 2, 3], false), (&[4], false)], &[&[2, 2, 3], &[4]], 5);
    }

    #[test]
    fn a_cut_revision_waits_for_its_end() {
        check(&[(&[2, 3, 3], true), (&[3], true), (&[3], false)], &[&[2], &[], &[3, 3, 3, 3]], 4);
        check(&[(&[2, 2], true), (&[2, 3], true), (&[4], false)], &[&[], &[2, 2, 2], &[3, 4]], 5);
    }

    #[test]
    fn a_cut_between_revisions_holds_the_last_back() {
        // Whether more of it comes, only the next message tells.
        check(&[(&[2, 3], true), (&[4], false)], &[&[2], &[3, 4]], 5);
        check(&[(&[2], true), (&[], false)], &[&[], &[2]], 3);
    }

    #[test]
    fn only_what_is_held_counts_against_the_limit() {
        let mut assembly = Assembly::new(1, 25);
        assert_eq!(assembly.add(changes(&[2, 2, 2, 2]), false).map(|given| given.len()), Ok(4));
        assert_eq!(assembly.add(changes(&[3, 3, 3, 4, 4]), true).map(|given| given.len()), Ok(3));
        assert!(assembly.is_unfinished());
        assert_eq!(assembly.add(changes(&[4]), true), Err(TooLarge { revision: 4 }));
    }
}
