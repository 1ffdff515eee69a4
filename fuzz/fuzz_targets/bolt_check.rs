//! Any bytes as a bbolt file: opened, then checked from end to end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_bolt::{Db, check};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(db) = Db::open(bytes) {
        // What it finds is its own affair; that it ends, and how, is ours.
        let _ = check(&db, &mut ());
    }
});
