//! Any text as the name of a WAL segment, which is accepted only as etcd writes it, and as a
//! version, which reads the same once written and boots on its own line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_etcd::wal::SegmentName;
use rekindle_etcd::{Boots, Marks, Version, advisories};

fuzz_target!(|text: &str| {
    if let Some(name) = SegmentName::parse(text) {
        assert_eq!(name.to_string(), text);
    }
    if let Some(version) = Version::parse(text) {
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        assert_eq!(Version::parse(&format!("v{version}-rc.1")), Some(version));
        let marks = Marks { storage: Some(version), cluster: Some(version), has_term: true };
        assert_eq!(marks.boots_on(version.line()), Boots::Yes);
        assert!(advisories(version).all(|advisory| !advisory.text.is_empty()));
    }
});
