//! Makes a base of a snapshot file in a new archive, to measure with: `base_of FILE DIRECTORY`.

use rekindle_archive::format::header::Moment;
use rekindle_archive::{Archive, BaseRequest, Error, Origin, Progress, Store, prepare_base};
use rekindle_bolt::ReadAt;
use rekindle_etcd::{Backend, ClusterId, MemberId};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};

struct Snapshot(File);

impl ReadAt for Snapshot {
    fn size(&self) -> u64 {
        self.0.metadata().map_or(0, |found| found.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [file, directory] = &args[..] else { return Err("base_of FILE DIRECTORY".into()) };
    std::fs::create_dir_all(directory)?;
    let store = Store::directory(Path::new(directory))?;
    let archive = match Archive::open(store.clone()) {
        Err(Error::NoArchive { .. }) => Archive::init_unencrypted(store, Moment(0))?,
        opened => opened?,
    };
    let backend = Backend::open(Snapshot(File::open(file)?))?;
    let origin = Origin {
        cluster: ClusterId(1),
        member: MemberId(1),
        etcd: String::new(),
        state: Moment(0),
        current: true,
    };
    let progress = Progress { walked: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let now = || Moment(1);
    let request = BaseRequest::new(&archive, &origin, &now, progress);
    let written = prepare_base(&request, &backend)?.publish(now())?;
    println!("{}", written.name);
    Ok(())
}
