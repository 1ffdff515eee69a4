//! Two who have written the same revisions.

use crate::following::{Following, agreed, save_as};
use crate::keyspaces::{HOST, cut, revision};
use crate::keyspaces::{Keyspace, now, now_is, verdict};
use rekindle_archive::{Error, Word, read_base};

/// A log that two have written, one up to the third revision behind its start, and one from the second to the
/// fourth: the same but for what `third` says of the third. With the keyspace of the second, and the start.
fn written_twice(third: &[(&str, bool)], bytes: usize) -> (Following, Keyspace, i64) {
    let mut following = Following::new();
    let (start, before) = (following.end, following.keyspace.clone());
    following.write(2);
    following.keyspace.write(&[("/key/2", false)], 300);
    following.follow();
    let ours = std::mem::replace(&mut following.keyspace, before);
    following.write(2);
    following.keyspace.write(third, bytes);
    following.write(1);
    let theirs = std::mem::replace(&mut following.keyspace, ours);
    let timeline = following.writer.timeline();
    let mut writer = following.saving.archive.claim(timeline, HOST, "there", now()).unwrap();
    writer.append(&cut(&theirs, start + 2, start + 4), now()).unwrap();
    (following, theirs, start)
}

#[test]
fn what_two_have_written_alike_is_one_log() {
    let (following, _, start) = written_twice(&[("/key/2", false)], 300);
    let archive = &following.saving.archive;
    let found = verdict(archive, now_is()).unwrap().findings;
    assert_eq!(found, []);
    let entry = archive.list().unwrap().bases.remove(0);
    let behind = archive.following(&entry).unwrap();
    assert_eq!(behind.last(), revision(start + 4));
    behind.up_to(read_base(archive, &entry).unwrap(), behind.last()).unwrap();
}

/// The log was compared with the snapshot as if the second had begun where the first had ended: records that
/// both have written seemed to be missing in the cluster, which got a new history for that.
#[test]
fn a_base_behind_what_two_have_written() {
    let (following, theirs, start) = written_twice(&[("/key/2", false)], 300);
    let (archive, spool) = (&following.saving.archive, following.saving.spool.path());
    let base = save_as(archive, &theirs, spool, (None, true)).unwrap();
    agreed(&base);
    assert_eq!(base.facts.last, revision(start + 4));
    assert_eq!(base.facts.timeline, following.writer.timeline());
    assert_eq!(verdict(archive, now_is()).unwrap().findings, []);
}

/// Readers took what one of them had written, and did not look at the other.
#[test]
fn a_fork_is_named_and_not_restored() {
    let check = |what: &str, third: &[(&str, bool)], bytes: usize| {
        let (following, _, start) = written_twice(third, bytes);
        let archive = &following.saving.archive;
        let found = verdict(archive, now_is()).unwrap().findings;
        let parted = revision(start + 3);
        assert_eq!(found.len(), 1, "{what}: {found:?}");
        let (word, revisions) = (found[0].word, found[0].revisions);
        assert_eq!((word, revisions), (Word::Forked, Some((parted, parted))), "{what}");

        let entry = archive.list().unwrap().bases.remove(0);
        let behind = archive.following(&entry).unwrap();
        let base = || read_base(archive, &entry).unwrap();
        behind.up_to(base(), revision(start + 2)).unwrap();
        for to in [parted, behind.last()] {
            let refused = behind.up_to(base(), to).unwrap_err();
            let Error::Forked { revision, .. } = refused else { panic!("{what}: {refused}") };
            assert_eq!(revision, parted, "{what}");
        }
    };
    check("another value", &[("/key/2", false)], 301);
    check("a key more", &[("/key/2", false), ("/more", false)], 300);
    check("a delete", &[("/key/2", true)], 300);
}
