//! Any bytes as the content of a witness; and as that of a segment, with all blocks of its run. What the reader takes, the writer
//! writes so that it is read as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_archive::format::run::Run;
use rekindle_archive::format::segment;
use rekindle_archive::format::witness::Testimony;

fuzz_target!(|content: &[u8]| {
    if let Ok(testimony) = Testimony::parse(content) {
        assert_eq!(Testimony::parse(&testimony.encode()), Ok(testimony));
    }
    let Ok((notes, run)) = segment::parse(content) else { return };
    let again = [&segment::encode(&notes)[..], run].concat();
    let read = segment::parse(&again).expect("what was written can be read");
    assert!(read == (notes, run));
    let Ok(index) = Run::parse_index(run) else { return };
    for (range, entry) in index.blocks() {
        let Ok(mut records) = Run::open(run, &range, entry) else { continue };
        let (mut count, mut last) = (0, None);
        while let Some(key) = records.advance() {
            assert!(last < Some(key), "records ascend");
            (count, last) = (count + 1, Some(key));
        }
        assert_eq!((count, last), (entry.records, Some(entry.last)));
    }
});
