//! Which keys were changed behind a revision: what going back to that costs.

use crate::backend::Backend;
use crate::error::{Error, RecordDamage};
use crate::keytable::KeyTable;
use crate::revision::{RecordKey, Revision};
use crate::schema::KUBERNETES_PREFIXES;
use crate::status::read_record;
use crate::{KeyValue, schema};
use rekindle_bolt::{Pair, ReadAt, Scan};
use std::collections::BTreeMap;

/// Keys that are changed behind a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The last revision that was looked at.
    pub to: Revision,
    /// Those that are there at the end and were not before, in their order.
    pub created: Vec<Vec<u8>>,
    /// Those that were there before and are not at the end.
    pub deleted: Vec<Vec<u8>>,
    /// So many were there before and are at the end, and were written between.
    pub written: u64,
}

impl Changed {
    /// Whether nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.created.is_empty() && self.deleted.is_empty() && self.written == 0
    }
}

/// A key that was changed.
struct Key {
    was_there: bool,
    is_there: bool,
}

/// Hears of records behind a revision in their order; takes memory for each key that is changed.
pub struct Changes {
    behind: Revision,
    keys: BTreeMap<Vec<u8>, Key>,
}

impl Changes {
    /// Of what comes behind this revision.
    #[must_use]
    pub fn behind(revision: Revision) -> Self {
        Self { behind: revision, keys: BTreeMap::new() }
    }

    /// Takes the next record; one that is not behind the revision says nothing.
    pub fn add(&mut self, key: RecordKey, kv: &KeyValue<'_>) {
        // Without a key: a raised revision, or an erased record.
        if key.revision <= self.behind || kv.key.is_empty() {
            return;
        }
        let is_there = !key.tombstone;
        if let Some(known) = self.keys.get_mut(kv.key) {
            known.is_there = is_there;
            return;
        }
        let was_there = key.tombstone || kv.create_revision <= self.behind.get();
        self.keys.insert(kv.key.to_vec(), Key { was_there, is_there });
    }

    /// What was changed, up to this revision.
    #[must_use]
    pub fn finish(self, to: Revision) -> Changed {
        let mut changed = Changed { to, ..Changed::default() };
        for (name, key) in self.keys {
            match (key.was_there, key.is_there) {
                (false, true) => changed.created.push(name),
                (true, false) => changed.deleted.push(name),
                (true, true) => changed.written += 1,
                (false, false) => {}
            }
        }
        changed
    }
}

impl<S: ReadAt> Backend<S> {
    /// What this database has changed behind a revision; of keys that were deleted since and compacted it knows nothing.
    ///
    /// # Errors
    /// [`Error::Bolt`], [`Error::Record`] for a damaged database.
    pub fn changed_behind(&self, revision: Revision) -> Result<Changed, Error> {
        let mut changes = Changes::behind(revision);
        let first = RecordKey::first_of(revision.later(1).unwrap_or(revision)).to_bytes();
        self.for_each_record(&first, |key, kv| {
            changes.add(key, &kv);
            Ok(())
        })?;
        Ok(changes.finish(self.facts()?.revision()))
    }

    /// How many keys there are of each kind ([`kind_of`]). Takes some 22 bytes of memory a key.
    ///
    /// # Errors
    /// [`Error::Bolt`], [`Error::Record`] for a damaged database; [`Error::TooManyRecords`].
    pub fn keys_by_kind(&self) -> Result<BTreeMap<String, u64>, Error> {
        let (mut keys, mut kinds, mut names) = (KeyTable::new(), BTreeMap::new(), Vec::new());
        self.for_each_record(&[], |key, kv| {
            if key.tombstone {
                keys.remove(kv.key);
            } else if !kv.key.is_empty() {
                let name = kind_of(kv.key);
                let kind = *kinds.entry(name.clone()).or_insert_with(|| {
                    names.push(name);
                    names.len() as u64 - 1
                });
                keys.insert(kv.key, kind).map_err(|_| Error::TooManyRecords)?;
            }
            Ok(())
        })?;
        let mut counts = BTreeMap::new();
        for kind in keys.ordinals() {
            if let Some(name) = usize::try_from(kind).ok().and_then(|at| names.get(at)) {
                *counts.entry(name.clone()).or_default() += 1;
            }
        }
        Ok(counts)
    }

    fn for_each_record(
        &self,
        first: &[u8],
        mut take: impl FnMut(RecordKey, KeyValue<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(bucket) = self.bucket(schema::KEY)? else { return Ok(()) };
        let damaged =
            |pair: Pair<'_>, fault| Error::from(RecordDamage { key: pair.key.to_vec(), fault });
        let mut scan = Scan::starting_at(self.db(), &bucket, first);
        while let Some(leaf) = scan.next_leaf()? {
            for pair in leaf.pairs().filter(|pair| pair.key >= first) {
                let (key, kv) = read_record(pair).map_err(|fault| damaged(pair, fault))?;
                take(key, kv)?;
            }
        }
        Ok(())
    }
}

/// No kind's name is longer.
const KIND_BYTES_MAX: usize = 128;

/// What a key is of: of Kubernetes' its resource, with its group where the key has one (`pods`, `services/specs`,
/// `cert-manager.io/certificates`); of others nothing is known, and it is empty.
#[must_use]
pub fn kind_of(key: &[u8]) -> String {
    let rest = KUBERNETES_PREFIXES.iter().find_map(|prefix| key.strip_prefix(*prefix));
    let Some(rest) = rest else { return String::new() };
    let mut parts = rest.split(|byte| *byte == b'/');
    let first = parts.next().unwrap_or_default();
    // Groups have dots in their names; and services keep two sorts of things.
    let kind = match (first == b"services" || first.contains(&b'.'), parts.next()) {
        (true, Some(second)) => [first, b"/", second].concat(),
        _ => first.to_vec(),
    };
    let kind = kind.get(..KIND_BYTES_MAX).unwrap_or(&kind);
    String::from_utf8_lossy(kind).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_behind_a_revision() {
        let mut changes = Changes::behind(Revision::new(10).unwrap());
        let mut add = |revision, tombstone, name: &str, created| {
            let revision = Revision::new(revision).unwrap();
            let key = RecordKey { revision, sub: 0, tombstone };
            let kv =
                KeyValue { key: name.as_bytes(), create_revision: created, ..KeyValue::default() };
            changes.add(key, &kv);
        };
        add(10, false, "before", 10);
        add(11, false, "new", 11);
        add(12, false, "written", 3);
        add(13, true, "gone", 0);
        add(14, false, "for a while", 14);
        add(15, true, "for a while", 0);
        add(16, true, "came back", 0);
        add(17, false, "came back", 17);
        add(18, false, "", 0);
        let changed = changes.finish(Revision::new(18).unwrap());
        assert_eq!(changed.created, [b"new"]);
        assert_eq!(changed.deleted, [b"gone"]);
        assert_eq!(changed.written, 2);
    }

    #[test]
    fn kinds_are_those_of_kubernetes_keys() {
        let of = |key: &str| kind_of(key.as_bytes());
        assert_eq!(of("/registry/pods/default/web"), "pods");
        assert_eq!(of("/registry/services/specs/default/web"), "services/specs");
        assert_eq!(of("/registry/stable.example.com/crontabs/ns/a"), "stable.example.com/crontabs");
        assert_eq!(of("/kubernetes.io/secrets/ns/a"), "secrets");
        assert_eq!(of("/registry/health"), "health");
        assert_eq!(of("/a.b"), "");
        assert_eq!(kind_of(&[b"/registry/".as_slice(), &[0xff; 500]].concat()).len(), 384);
    }
}
