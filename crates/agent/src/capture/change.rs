//! What a watch tells, as a segment takes it.

use rekindle_archive::Change;
use rekindle_client::{Event, EventType};
use rekindle_etcd::{KeyValue, Revision};

/// The revision that made a change.
pub(super) fn revision_of(event: &Event) -> Revision {
    let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    Revision::new(revision).unwrap_or_default()
}

/// The change as a segment takes it; none without a key.
pub(super) fn change_of(event: &Event) -> Option<Change<'_>> {
    let kv = event.kv.as_ref()?;
    let is_delete = event.r#type == EventType::Delete as i32;
    let kv = KeyValue {
        key: &kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: &kv.value,
        lease: kv.lease,
    };
    Some(Change { kv, is_delete })
}
