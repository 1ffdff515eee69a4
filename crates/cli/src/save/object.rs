//! A snapshot that becomes one object of a store.
//!
//! It goes into the store in parts while it comes from etcd, and into the spool, where it is checked.
//! Nobody sees it in the store before all of that is good.

use crate::args::SaveArgs;
use crate::failure::Failure;
use crate::spool::Spool;
use rekindle_archive::{Place, Store, Upload};

/// Longest name of a file in the spool, but for its ending.
const NAME_MAX: usize = 100;

/// Where a snapshot goes.
pub(super) struct Object {
    store: Store,
    name: String,
    /// With the place.
    pub shown: String,
    /// The snapshot while it is checked.
    pub spool: Spool,
}

impl Object {
    /// `text` is the place with its date patterns filled in, `pattern` as it was named.
    pub(super) fn new(text: &str, pattern: &str, args: &SaveArgs) -> Result<Self, Failure> {
        let place = Place::parse(text)?;
        let folder = text.ends_with('/');
        let (place, name) = place.split_object().filter(|_| !folder).ok_or_else(|| {
            let what = format!("{} holds no archive, and names no object", text.trim_end_matches('/'));
            Failure::usage(what).remedy(
                "name an object in it, for example with a date: …/etcd-%Y%m%dT%H%M%SZ.db; or make an \
                 archive of an empty place with rekindle archive init",
            )
        })?;
        let store = args.store.open(&place)?;
        // What a killed run has left makes way for the next one to the same target.
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let spooled: String = pattern.chars().map(plain).take(NAME_MAX).collect();
        let spool = Spool::new(args.spool.directory(), &format!("{spooled}.db"))?;
        let shown = store.full_name(&name);
        Ok(Self { store, name, shown, spool })
    }

    /// Begins to upload. Dropped before it is completed, it leaves nothing.
    pub(super) fn upload(&self) -> Upload {
        self.store.upload(&self.name)
    }
}
