//! What going back to a revision costs.

use crate::following::Following;
use crate::keyspaces::now;
use crate::keyspaces::{revision, witness};
use rekindle_archive::{Change, Cutter};
use rekindle_etcd::KeyValue;

/// Writes a revision into the log: of each key, the revision that created it; 0 for a delete.
fn write(following: &mut Following, changes: &[(&str, i64)]) -> i64 {
    following.end += 1;
    let mod_revision = following.end;
    let mut cutter = Cutter::new(revision(mod_revision));
    let changes: Vec<_> = changes
        .iter()
        .map(|&(key, create_revision)| {
            let key = key.as_bytes();
            let kv = KeyValue { key, create_revision, mod_revision, ..KeyValue::default() };
            Change { kv, is_delete: create_revision == 0 }
        })
        .collect();
    cutter.add(&changes, now()).unwrap();
    following.writer.append(&cutter.cut(witness(), now()).unwrap(), now()).unwrap();
    following.end
}

/// Keys that came, went, or were only written behind it; those that came and went are nobody's loss.
#[test]
fn what_the_log_changes_behind_a_revision() {
    let mut following = Following::new();
    let next = following.end + 1;
    let then = write(&mut following, &[("/a", next), ("/there", next), ("/deleted", next)]);
    write(&mut following, &[("/b", next + 1), ("/short", next + 1), ("/there", next)]);
    write(&mut following, &[("/deleted", 0)]);
    write(&mut following, &[("/short", 0), ("/there", next)]);
    let archive = &following.saving.archive;
    let entry = archive.list().unwrap().bases.remove(0);
    let behind = archive.following(&entry).unwrap();
    let changed = behind.changed_behind(revision(then), 1 << 20).unwrap().unwrap();
    assert_eq!(changed.to, revision(following.end));
    assert_eq!(changed.created, [b"/b".to_vec()]);
    assert_eq!(changed.deleted, [b"/deleted".to_vec()]);
    assert_eq!(changed.written, 1);
    // At the end nothing is behind it, and too much is not read.
    assert!(behind.changed_behind(behind.last(), 1 << 20).unwrap().unwrap().is_empty());
    assert_eq!(behind.changed_behind(revision(then), 10).unwrap(), None);
}
