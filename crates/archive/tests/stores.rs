//! Stores that need no server.

mod store_check;

use rekindle_archive::{Place, Store, StoreFaultKind, StoreOptions};
use store_check::check;

#[test]
fn in_memory() {
    check(&Store::memory().unwrap());
}

#[test]
fn in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let open = |path: &std::path::Path| {
        let place = Place::parse(path.to_str().unwrap()).unwrap();
        Store::open(&place, &StoreOptions::default())
    };
    check(&open(directory.path()).unwrap());
    let missing = open(&directory.path().join("not there")).unwrap_err();
    assert_eq!(missing.kind, StoreFaultKind::NotFound, "{missing}");
}
