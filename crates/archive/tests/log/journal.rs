//! What a host keeps of what came.

use crate::following::Following;
use crate::keyspaces::{Keyspace, a_spool, advance, now_is};
use crate::keyspaces::{cut, revision};
use rekindle_archive::format::TimelineId;
use rekindle_archive::{Error, GRACE, Journal};
use std::path::Path;

#[test]
fn a_journal_is_kept() {
    let (directory, keyspace) = (a_spool(), {
        let mut keyspace = Keyspace::new();
        (0..40).for_each(|number| keyspace.write(&[("k", number % 3 == 0)], 500));
        keyspace
    });
    let path = directory.path().join("journal");
    let cuts: Vec<_> = (0..4).map(|n| cut(&keyspace, 2 + n * 10, 11 + n * 10)).collect();
    let id = {
        let mut journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
        let other = Journal::open(&path, 1 << 30, now_is()).unwrap_err();
        assert!(other.to_string().contains("another capture on this host uses it"), "{other}");
        cuts.iter().for_each(|cut| journal.add(cut).unwrap());
        journal.writer().unwrap()
    };
    let archive = following_id();
    let mut journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
    assert_eq!(journal.writer().unwrap(), id);
    assert_eq!((journal.first(), journal.last()), (Some(revision(2)), Some(revision(41))));
    for (number, cut) in cuts.iter().enumerate() {
        let at = revision(5 + 10 * number as i64);
        assert_eq!(journal.having(at).unwrap().read().unwrap(), *cut);
    }
    assert!(journal.having(revision(1)).is_none() && journal.having(revision(42)).is_none());
    let newest = journal.newest().unwrap().last_records().unwrap();
    assert_eq!(newest.iter().map(|(key, _)| key.revision.get()).collect::<Vec<_>>(), [41]);

    let timeline = TimelineId([3; 16]);
    assert_eq!(journal.feeds(archive), None);
    journal.feed(archive, timeline).unwrap();
    drop(journal);
    let mut journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
    assert_eq!(journal.feeds(archive), Some(timeline));
    journal.clear().unwrap();
    assert_eq!((journal.first(), journal.feeds(archive)), (None, None));

    // It is bounded, and what does not go on from it stands beside it.
    drop(journal);
    let bytes = cuts[0].content.len() as u64;
    let mut journal = Journal::open(&path, bytes * 2 + bytes / 2, now_is()).unwrap();
    [0, 1, 3].iter().for_each(|n| journal.add(&cuts[*n]).unwrap());
    assert_eq!((journal.first(), journal.last()), (Some(revision(12)), Some(revision(41))));
    assert!(journal.having(revision(25)).is_none());
    // What goes back takes all before away: it is of another history.
    journal.feed(archive, timeline).unwrap();
    journal.add(&cuts[1]).unwrap();
    assert_eq!((journal.first(), journal.last()), (Some(revision(12)), Some(revision(21))));
    assert_eq!(journal.feeds(archive), None);
}

fn following_id() -> rekindle_archive::format::ArchiveId {
    rekindle_archive::format::ArchiveId([5; 16])
}

/// Of a journal that a host left when it went down, what is damaged is none.
#[test]
fn a_damaged_journal_is_none() {
    let directory = a_spool();
    let path = directory.path().join("journal");
    let mut keyspace = Keyspace::new();
    (0..20).for_each(|_| keyspace.write(&[("k", false)], 100));
    let mut journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
    let names = |path: &Path| {
        let files = std::fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> =
            files.filter(|it| it.extension().is_some_and(|it| it == "cut")).collect();
        files.sort();
        files
    };
    let cuts = [cut(&keyspace, 2, 11), cut(&keyspace, 12, 21)];
    cuts.iter().for_each(|cut| journal.add(cut).unwrap());
    drop(journal);
    let newest = names(&path).pop().unwrap();
    let whole = std::fs::read(&newest).unwrap();
    for at in (0..whole.len()).step_by(7) {
        for change in [true, false] {
            let mut bytes = whole.clone();
            if change {
                bytes[at] ^= 1;
            } else {
                bytes.truncate(at);
            }
            std::fs::write(&newest, bytes).unwrap();
            let journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
            assert_eq!(journal.last(), Some(revision(11)), "byte {at}");
        }
    }
    // An older one is found out when it is read, or not needed.
    let mut journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
    journal.add(&cuts[1]).unwrap();
    let oldest = names(&path).remove(0);
    let mut bytes = std::fs::read(&oldest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&oldest, bytes).unwrap();
    assert!(matches!(journal.having(revision(3)).unwrap().read(), Err(Error::Journal { .. })));
}

/// Nobody can say any more what was erased meanwhile.
#[test]
fn an_old_journal_begins_anew() {
    let mut following = Following::new();
    following.write(3);
    following.follow();
    let path = following.saving.spool.path().join("journal");
    drop(following.journal);
    advance(GRACE / 2);
    assert!(Journal::open(&path, 1 << 30, now_is()).unwrap().newest().is_some());
    advance(GRACE / 2);
    assert!(Journal::open(&path, 1 << 30, now_is()).unwrap().newest().is_none());
}
