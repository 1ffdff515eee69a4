//! Any bytes as a part of an archive: after a first byte that says what, a header with its body, the
//! content of a pack with all its blocks, or the content of a base. What a base's reader takes, its
//! writer writes so that it is read as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_archive::format::Header;
use rekindle_archive::format::base::Base;
use rekindle_archive::format::run::Run;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => object(bytes),
        1 => run(bytes),
        _ => base(bytes),
    }
});

fn object(bytes: &[u8]) {
    let Ok(header) = Header::parse(bytes) else { return };
    if let Ok(body) = header.body(bytes) {
        let _ = header.content(body);
    }
}

fn run(content: &[u8]) {
    let Ok(run) = Run::parse_index(content) else { return };
    for (range, entry) in run.blocks() {
        let Ok(mut records) = Run::open(content, &range, entry) else { continue };
        let (mut count, mut last) = (0, None);
        while let Some(key) = records.advance() {
            assert!(last < Some(key), "records ascend");
            (count, last) = (count + 1, Some(key));
        }
        assert_eq!((count, last), (entry.records, Some(entry.last)));
    }
}

fn base(content: &[u8]) {
    let Ok(base) = Base::parse(content) else { return };
    let again = base.encode().expect("what was read can be written");
    assert!(Base::parse(&again).expect("what was written can be read") == base);
}
