//! What a store really does, found out by doing it.

use super::{Listed, Store, StoreFault, StoreFaultKind};

/// Where the probe writes, and removes what it wrote.
pub(super) const FOLDER: &str = "probe";
/// Bytes of what it writes.
const LEN: usize = 4096;

/// What a store was found to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Each thing that an archive wants, in the order in which it was tried.
    pub findings: Vec<Finding>,
}

/// One thing that an archive wants of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub wanted: Wanted,
    /// What is wrong with it.
    pub fault: Option<String>,
}

/// What an archive wants of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// An object can be made.
    Create,
    /// None takes the place of another.
    CreateIfAbsent,
    /// What was written is read at once, as it was.
    ReadAfterWrite,
    /// A part of an object can be read.
    Ranges,
    /// What was written is listed at once.
    Listing,
    /// An object can be removed, and is gone at once.
    Remove,
}

impl Wanted {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::CreateIfAbsent => "create if absent",
            Self::ReadAfterWrite => "read after write",
            Self::Ranges => "range reads",
            Self::Listing => "listing",
            Self::Remove => "remove",
        }
    }
}

impl Probe {
    /// Whether it does all that an archive wants.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.fault.is_none())
    }

    /// What is wrong with one thing.
    #[must_use]
    pub fn fault(&self, wanted: Wanted) -> Option<&str> {
        let finding = self.findings.iter().find(|finding| finding.wanted == wanted)?;
        finding.fault.as_deref()
    }

    /// Tries everything with an object of its own, which is removed again. `unique` makes its name
    /// one that nothing else has.
    ///
    /// # Errors
    /// [`StoreFault`] where nothing can be written at all, and nothing more was tried.
    pub fn run(store: &Store, unique: &str) -> Result<Self, StoreFault> {
        let name = format!("{FOLDER}/{unique}");
        let content: Vec<u8> = (0..LEN).map(|n| (n % 251) as u8).collect();
        store.create(&name, content.clone())?;
        let findings = vec![
            (Wanted::Create, None),
            (Wanted::CreateIfAbsent, create_again(store, &name)),
            (Wanted::ReadAfterWrite, read(store, &name, &content)),
            (Wanted::Ranges, ranges(store, &name, &content)),
            (Wanted::Listing, listing(store, &name)),
            (Wanted::Remove, remove(store, &name)),
        ];
        let findings = findings.into_iter().map(|(wanted, fault)| Finding { wanted, fault });
        Ok(Self { findings: findings.collect() })
    }
}

fn create_again(store: &Store, name: &str) -> Option<String> {
    match store.create(name, b"another".to_vec()) {
        Err(fault) if fault.kind == StoreFaultKind::Exists => None,
        Err(fault) => Some(fault.cause),
        Ok(()) => Some("an object took the place of another".to_owned()),
    }
}

fn read(store: &Store, name: &str, content: &[u8]) -> Option<String> {
    match store.read(name, LEN as u64) {
        Ok(there) if there == content => None,
        Ok(_) => Some("what is read is not what was written".to_owned()),
        Err(fault) => Some(fault.cause),
    }
}

fn ranges(store: &Store, name: &str, content: &[u8]) -> Option<String> {
    const PART: usize = 1000;
    let listed = Listed { name: name.to_owned(), bytes: LEN as u64 };
    match store.read_starts(vec![listed], PART as u64).pop() {
        Some(Ok(start)) if Some(start.as_ref()) == content.get(..PART) => None,
        Some(Err(fault)) => Some(fault.cause),
        _ => Some("other bytes came than were asked for".to_owned()),
    }
}

fn listing(store: &Store, name: &str) -> Option<String> {
    let want = Listed { name: name.to_owned(), bytes: LEN as u64 };
    match store.list(FOLDER) {
        Ok(listed) if listed.contains(&want) => None,
        Ok(listed) if listed.iter().any(|found| found.name == name) => {
            Some("it is listed with another size".to_owned())
        }
        Ok(_) => Some("what was written is not listed".to_owned()),
        Err(fault) => Some(fault.cause),
    }
}

fn remove(store: &Store, name: &str) -> Option<String> {
    if let Err(fault) = store.remove(name) {
        return Some(fault.cause);
    }
    match store.read(name, LEN as u64) {
        Err(fault) if fault.kind == StoreFaultKind::NotFound => None,
        Err(fault) => Some(fault.cause),
        Ok(_) => Some("what was removed can still be read".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::faulty;
    use super::*;
    use rekindle_testkit::fault_store::{Fault, When};

    #[test]
    fn a_good_store_is_found_good_and_left_empty() {
        let store = Store::memory().unwrap();
        let probe = Probe::run(&store, "x").unwrap();
        assert!(probe.is_good(), "{probe:?}");
        assert_eq!(store.is_empty(), Ok(true));
    }

    #[test]
    fn what_is_wrong_is_found() {
        let check = |fault: Fault, operation: u64, wanted: Wanted| {
            let (objects, store) = faulty();
            objects.fail(fault, When::Once(operation));
            let probe = Probe::run(&store, "x").unwrap();
            assert!(probe.fault(wanted).is_some(), "{fault:?} in {operation}: {probe:?}");
        };
        check(Fault::Error, 2, Wanted::CreateIfAbsent);
        check(Fault::Truncated, 4, Wanted::ReadAfterWrite);
        check(Fault::Truncated, 5, Wanted::Ranges);
        check(Fault::Error, 6, Wanted::Listing);
        check(Fault::Error, 7, Wanted::Remove);
        let (objects, store) = faulty();
        objects.lag_listings(100);
        assert!(Probe::run(&store, "x").unwrap().fault(Wanted::Listing).is_some());
        let (objects, store) = faulty();
        objects.fail(Fault::Denied, When::From(1));
        assert_eq!(Probe::run(&store, "x").unwrap_err().kind, StoreFaultKind::Denied);
    }
}
