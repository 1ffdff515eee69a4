//! What every store must do, whoever keeps it.

use rekindle_archive::{Probe, Store, StoreFaultKind};

/// Does everything once, in an empty store.
#[track_caller]
pub fn check(store: &Store) {
    assert_eq!(store.is_empty(), Ok(true));
    let probe = Probe::run(store, "unique").unwrap();
    assert!(probe.is_good(), "{probe:?}");
    assert_eq!(store.is_empty(), Ok(true), "the probe leaves nothing");

    let names = ["a/2", "a/10", "b/1", "aa/1"];
    names.iter().for_each(|name| store.create(name, name.as_bytes().to_vec()).unwrap());
    assert_eq!(store.is_empty(), Ok(false));
    assert_eq!(store.read("a/10", 4).unwrap(), "a/10");

    let listed = store.list("a").unwrap();
    let listed: Vec<_> = listed.into_iter().map(|found| (found.name, found.bytes)).collect();
    assert_eq!(listed, [("a/10".to_owned(), 4), ("a/2".to_owned(), 3)]);

    store.create("a/2", b"a/2".to_vec()).expect("the same again: an answer was lost");
    let exists = store.create("a/2", b"other".to_vec()).unwrap_err();
    assert_eq!(exists.kind, StoreFaultKind::Exists, "{exists}");
    assert_eq!(store.read("a/2", 100).unwrap(), "a/2", "never changed");

    let missing = store.read("a/3", 100).unwrap_err();
    assert_eq!(missing.kind, StoreFaultKind::NotFound, "{missing}");
    assert!(missing.object.ends_with("/a/3"), "{missing}");

    let large = store.read("a/10", 3).unwrap_err();
    assert_eq!(large.kind, StoreFaultKind::TooLarge, "{large}");
    store.remove("aa/1").unwrap();
    store.remove("aa/1").expect("it is gone");
    assert!(store.list("aa").unwrap().is_empty());

    store.create("empty/1", Vec::new()).unwrap();
    let empty = store.read_starts(store.list("empty").unwrap(), 2);
    assert!(empty[0].as_ref().unwrap().is_empty());
    let starts = store.read_starts(store.list("a").unwrap(), 2);
    assert!(starts.iter().all(|start| start.as_ref().unwrap() == "a/"));
    let long = store.read_starts(store.list("b").unwrap(), 100);
    assert_eq!(long[0].as_ref().unwrap(), "b/1");
    uploads(store);
}

fn uploads(store: &Store) {
    for len in [10, 17 << 20] {
        let bytes: Vec<u8> = (0..len).map(|n| (n / 251) as u8).collect();
        let mut upload = store.upload("a/upload");
        for piece in bytes.chunks(3 << 20) {
            upload.write(piece.to_vec().into()).unwrap();
        }
        upload.complete().unwrap();
        assert!(store.read("a/upload", u64::MAX).unwrap() == bytes, "{len}");
    }
    let mut upload = store.upload("a/given-up");
    upload.write(vec![1; 17 << 20].into()).unwrap();
    drop(upload);
    let missing = store.read("a/given-up", 100).unwrap_err();
    assert_eq!(missing.kind, StoreFaultKind::NotFound, "{missing}");
}
