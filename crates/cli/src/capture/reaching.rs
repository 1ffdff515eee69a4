//! Coming by archives, each by itself: one that is away, or wrong, keeps the cluster from none of the others.

use crate::archive::{Pin, WriteKeys, open_at, with_signing_key};
use crate::args::StoreArgs;
use crate::configured;
use crate::failure::{Code, Failure};
use rekindle_agent::capture::Reach;
use rekindle_archive::{Archive, Place};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What does not answer within this time is waited for while the cluster is followed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What archives are reached with.
pub(super) struct Reaching {
    pub store: StoreArgs,
    pub keys: WriteKeys,
    /// Where is remembered what their keys are.
    pub spool: PathBuf,
}

/// The places that are named, as their stores call them.
pub(super) fn places(named: &[String], store: &StoreArgs) -> Result<Vec<String>, Failure> {
    let mut places = Vec::new();
    for named in named {
        let place = Place::parse(&store.place(Some(named))?)?.to_string();
        if places.contains(&place) {
            return Err(Failure::usage(format!("{place} is named twice")));
        }
        places.push(place);
    }
    Ok(places)
}

impl Reaching {
    /// Ways to these archives. Fails where it is known that none of them can be had, now or later.
    pub(super) fn ways(self, places: &[String]) -> Result<Vec<Reach>, Failure> {
        let this = Arc::new(self);
        let (tell, told) = channel();
        let mut ways: Vec<Reach> = Vec::new();
        for place in places {
            let (found, first) = channel();
            let (reaching, its, tell) = (Arc::clone(&this), place.clone(), tell.clone());
            let search = move || {
                let result = reaching.reach(&its);
                let _ = tell.send(result.as_ref().map(drop).map_err(Clone::clone));
                let _ = found.send(result);
            };
            let thread = std::thread::Builder::new().name("reaches".to_owned()).spawn(search);
            thread.map_err(|error| Failure::new(Code::Failed, format!("starting: {error}")))?;
            ways.push(Arc::clone(&this).way(place.clone(), first));
        }
        drop(tell);
        is_any_to_be_had(&told).map(|()| ways)
    }

    /// What the first search has found comes first.
    fn way(self: Arc<Self>, place: String, first: Receiver<Result<Archive, Failure>>) -> Reach {
        Box::new(move || {
            // Whoever searched first has ended.
            let found = first.recv().unwrap_or_else(|_| self.reach(&place));
            found.map_err(|failure| failure.what.replace('\n', "; "))
        })
    }

    fn reach(&self, place: &str) -> Result<Archive, Failure> {
        let archive = open_at(place, &self.store)?;
        let said = configured::fingerprint(self.keys.fingerprint, archive.store());
        let pin = Pin::check(&self.spool, &archive, said)?;
        let archive = with_signing_key(archive, &self.keys)?;
        pin.keep()?;
        Ok(archive)
    }
}

/// Waits for the first that is there; fails with the first failure where all fail, and none of them may be over
/// soon.
fn is_any_to_be_had(told: &Receiver<Result<(), Failure>>) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    let mut fault: Option<Failure> = None;
    loop {
        match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Err(failure)) if failure.code != Code::Transient => {
                fault.get_or_insert(failure);
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => return fault.map_or(Ok(()), Err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_none_can_be_had_it_ends() {
        let check = |answers: &[Result<(), Code>], want: Option<&str>| {
            let (tell, told) = channel();
            for (number, answer) in answers.iter().enumerate() {
                let failure = |code: &Code| Failure::new(*code, number.to_string());
                tell.send(answer.as_ref().copied().map_err(failure)).unwrap();
            }
            drop(tell);
            let is = is_any_to_be_had(&told);
            assert_eq!(is.err().map(|failure| failure.what).as_deref(), want);
        };
        check(&[Ok(())], None);
        check(&[Err(Code::NotFound), Ok(())], None);
        check(&[Err(Code::NotFound), Err(Code::Refused)], Some("0"));
        // It may be there tomorrow: until then the journal has what comes.
        check(&[Err(Code::NotFound), Err(Code::Transient)], None);
    }
}
