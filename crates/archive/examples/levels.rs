//! What zstd's levels make of records, in the blocks that packs consist of.
//!
//! `cargo run --release -p rekindle-archive --example levels -- FILE LEVEL...`
//!
//! `FILE` is a snapshot, or what `kubernetes` (an example of the client) has written down of all its
//! records, where the name ends in `.records`; a level is one of zstd's, or `dense`, as merged segments are. A
//! line for each level: MB a second that one thread
//! compresses (with digest and filter, as a save does) and opens again, how many times smaller blocks
//! become, and the bytes of all of them.

use rekindle_archive::format::block::{Builder, Filled, Packing};
use rekindle_bolt::{Halt, Pair, ReadAt, Visit, check};
use rekindle_etcd::{Backend, RecordKey, Revision, read_record, schema};
use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("usage: levels FILE LEVEL...")?;
    let levels = args.map(Level::new).collect::<Result<_, Failure>>();
    let mut blocks = Blocks { levels: levels?, in_records: false };
    match file.ends_with(".records") {
        true => blocks.read_records(&File::open(&file)?)?,
        false => blocks.read_snapshot(Snapshot(File::open(&file)?))?,
    }
    for level in &mut blocks.levels {
        level.work()?;
        println!("{}", level.line());
    }
    Ok(())
}

/// What a level does.
struct Level {
    name: String,
    packing: Packing,
    block: Builder,
    raw: usize,
    stored: usize,
    compressing: Duration,
    opening: Duration,
}

impl Level {
    fn new(name: String) -> Result<Self, Failure> {
        let packing = match &*name {
            "dense" => Packing::DENSE,
            level => Packing { level: level.parse()?, ..Packing::QUICK },
        };
        let (compressing, opening) = (Duration::ZERO, Duration::ZERO);
        let (block, raw, stored) = (Builder::default(), 0, 0);
        Ok(Self { name, packing, block, raw, stored, compressing, opening })
    }

    fn add(&mut self, key: RecordKey, value: &[u8], name: &[u8]) -> Result<(), Failure> {
        if self.block.is_full_before(value.len(), self.packing) {
            self.work()?;
        }
        Ok(self.block.add(key, value, name)?)
    }

    /// Compresses what was added, and opens it.
    fn work(&mut self) -> Result<(), Failure> {
        let Some(block) = self.block.take() else { return Ok(()) };
        let (stored, entry) =
            timed(&mut self.compressing, || Filled::compress(block, self.packing))?;
        let records = timed(&mut self.opening, || entry.open_unchecked(&stored))?;
        drop(records);
        self.raw += entry.raw;
        self.stored += stored.len();
        Ok(())
    }

    fn line(&self) -> String {
        let rate = |took: Duration| self.raw as f64 / took.as_secs_f64() / 1e6;
        format!(
            "level {}: {:.0} MB/s, opened at {:.0} MB/s, {:.2} times smaller, {} bytes",
            self.name,
            rate(self.compressing),
            rate(self.opening),
            self.raw as f64 / self.stored as f64,
            self.stored
        )
    }
}

fn timed<T>(sum: &mut Duration, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    *sum += began.elapsed();
    done
}

/// The records, at all levels.
struct Blocks {
    levels: Vec<Level>,
    in_records: bool,
}

impl Blocks {
    fn add(&mut self, key: RecordKey, value: &[u8], name: &[u8]) -> Result<(), Failure> {
        self.levels.iter_mut().try_for_each(|level| level.add(key, value, name))
    }

    fn read_snapshot(&mut self, snapshot: Snapshot) -> Result<(), Failure> {
        let backend = Backend::open(snapshot)?;
        match check(backend.db(), self) {
            Ok(_) => Ok(()),
            Err(Halt::Read(error)) => Err(error.into()),
            Err(Halt::Stopped(error)) => Err(error),
        }
    }

    fn read_records(&mut self, file: &File) -> Result<(), Failure> {
        let left = file.metadata()?.len();
        let (mut file, mut left, mut record) = (BufReader::new(file), left, Vec::new());
        let mut key = RecordKey { revision: Revision::default(), sub: 0, tombstone: false };
        while left > 0 {
            let mut length = [0; 4];
            file.read_exact(&mut length)?;
            record.resize(usize::try_from(u32::from_le_bytes(length))?, 0);
            file.read_exact(&mut record)?;
            left -= 4 + record.len() as u64;
            key.revision = Revision::new(key.revision.get() + 1).ok_or("too many records")?;
            self.add(key, &record, b"")?;
        }
        Ok(())
    }
}

impl Visit for Blocks {
    type Stop = Failure;

    fn bucket(&mut self, name: &[u8]) -> Result<(), Failure> {
        self.in_records = name == schema::KEY;
        Ok(())
    }

    fn pair(&mut self, pair: Pair<'_>) -> Result<(), Failure> {
        if !self.in_records {
            return Ok(());
        }
        let (key, kv) = read_record(pair)?;
        self.add(key, pair.value, kv.key)
    }
}

struct Snapshot(File);

impl ReadAt for Snapshot {
    fn size(&self) -> u64 {
        self.0.metadata().map_or(0, |found| found.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}
