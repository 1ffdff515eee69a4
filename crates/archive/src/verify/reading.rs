//! Reading whole objects, several at once, and comparing them with what is known of them.

use super::VerifyProgress;
use crate::archive::Archive;
use crate::error::Error;
use crate::format::base::{Base, Part};
use crate::format::{FormatFault, Kind};
use crate::host;
use crate::names;
use crate::object;
use crate::read::is_known;
use crate::store::Pending;
use crate::witness;
use bytes::Bytes;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};

/// Most threads that compare: each holds two objects.
const THREADS_MAX: usize = 4;
/// Most bytes of a segment; one is a single request.
const SEGMENT_MAX: u64 = 1 << 30;

/// An object that is to be read.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub what: What,
    /// Its bytes; of a timeline's file nobody knows them.
    pub bytes: u64,
    /// All of it went into a proof.
    pub was_proven: bool,
}

/// What an object should be.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Timeline,
    /// A pack, as bases know it: all in the same way, unless one is wrong.
    Pack(Vec<Part>),
    Segment,
    Witness,
    Files,
    Base,
}

impl Reading {
    pub(crate) fn new(what: What, bytes: u64) -> Self {
        Self { what, bytes, was_proven: false }
    }

    /// A base says of a pack that it is this.
    pub(crate) fn expect(&mut self, part: &Part) {
        let What::Pack(known) = &mut self.what else { return };
        let same = |there: &Part| {
            (there.what, there.first, there.last, there.records)
                == (part.what, part.first, part.last, part.records)
        };
        if !known.iter().any(same) {
            known.push(Part { dead: Default::default(), ..part.clone() });
        }
    }

    fn fetch(&self, archive: &Archive, name: &str) -> Pending<Bytes> {
        let most = match self.what {
            What::Timeline => crate::archive::JSON_MAX,
            What::Pack(_) | What::Base | What::Witness | What::Files => self.bytes,
            What::Segment => SEGMENT_MAX,
        };
        archive.store().read_later(name, most)
    }

    fn check(&self, archive: &Archive, name: &str, bytes: &Bytes) -> Result<(), Error> {
        let full_name = archive.store().full_name(name);
        let damaged = |fault| Error::damaged(&full_name, fault);
        match &self.what {
            What::Timeline => archive.check_timeline(name, bytes),
            What::Pack(known) => {
                let opened = object::open_run(archive, &full_name, Kind::Pack, bytes.clone())?;
                match known.iter().all(|part| is_known(part, &opened)) {
                    true => Ok(()),
                    false => Err(damaged(FormatFault::Foreign)),
                }
            }
            What::Base => {
                let object = object::open(archive, &full_name, Kind::Base, bytes.clone())?;
                let base = Base::parse(&object.content).map_err(damaged)?;
                match base.living() == Some(object.header.facts.records) {
                    true => Ok(()),
                    false => Err(damaged(FormatFault::Senseless { what: "a base" })),
                }
            }
            What::Witness => witness::check(archive, name, bytes.clone()).map(drop),
            What::Files => host::check(archive, name, bytes.clone()).map(drop),
            What::Segment => {
                let opened = object::open_run(archive, &full_name, Kind::Segment, bytes.clone())?;
                let facts = &opened.header.facts;
                let place = names::log(facts.timeline);
                let (first, last) = (facts.first, facts.last);
                let told = names::parse_segment(name).map(|told| (told.first, told.last));
                let is_its_own = told == Some((first, last)) && name.starts_with(&place);
                match is_its_own {
                    true => Ok(()),
                    false => Err(damaged(FormatFault::Senseless { what: "its place" })),
                }
            }
        }
    }
}

/// What came of objects.
pub(crate) type Outcomes = Vec<(Arc<str>, Result<(), Error>)>;

/// Reads these objects, each once and as a whole, compares them with what is known of them, and does
/// something with those that are good; where that fails, it ends.
pub(crate) fn read_all(
    archive: &Archive,
    readings: &[(&Arc<str>, &Reading)],
    progress: VerifyProgress<'_>,
    with_good: &(dyn Fn(&str, Bytes) -> Result<(), Error> + Sync),
) -> Result<Outcomes, Error> {
    let next = Mutex::new(readings.iter());
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    std::thread::scope(|scope| {
        let work = || -> Result<Outcomes, Error> {
            let take = || {
                let next = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                next.map(|(name, reading)| (*name, *reading, reading.fetch(archive, name)))
            };
            let mut outcomes = Vec::new();
            let mut coming = take();
            while let Some((name, reading, bytes)) = coming {
                // The next one comes while this one is compared.
                coming = take();
                progress.go_on()?;
                let read = bytes.wait().map_err(Error::from).and_then(|bytes| {
                    progress.add(bytes.len());
                    reading.check(archive, name, &bytes)?;
                    Ok(bytes)
                });
                let outcome = match read {
                    Ok(bytes) => Ok(with_good(name, bytes)?),
                    Err(error) => Err(error),
                };
                outcomes.push((Arc::clone(name), outcome));
            }
            Ok(outcomes)
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut outcomes = Vec::new();
        for thread in threads {
            outcomes.extend(thread.join().unwrap_or(Err(Error::Panicked))?);
        }
        Ok(outcomes)
    })
}
