//! Any bytes as a database that is restored: what is sound can be, and the result is sound, has
//! the same records, and says of itself what the plan has said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_bolt::{BulkError, Layout};
use rekindle_etcd::restore::{
    AlarmFate, BumpRequest, Content, DEFAULT_QUOTA, LeaseFate, Plan, RebuildError, Request,
    SourceFacts, directory, plan, rebuild,
};
use rekindle_etcd::wal::{Chain, SegmentReader};
use rekindle_etcd::{
    Backend, Cluster, Error, Facts, HashRequest, InitialCluster, KeyCount, LogState, RaftIndex,
    RecordFault, snap,
};
use std::sync::LazyLock;

static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    let text = "a=http://h:1,b=http://h:2,c=http://h:3";
    InitialCluster::parse(text).expect("URLs").with_token("t").expect("ids")
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(source) = Backend::open(bytes) else { return };
    let (Ok(facts), Ok(kubernetes)) = (source.facts(), source.holds_kubernetes()) else { return };
    let said = SourceFacts { facts: &facts, kubernetes, size_at_most: bytes.len() as u64 };
    let (cluster, bump) = (CLUSTER.clone(), bump(bytes));
    let leases = match bytes.len() % 3 {
        0 => LeaseFate::Restore,
        1 => LeaseFate::Expire,
        _ => LeaseFate::Detach,
    };
    let request = Request { cluster, bump, quota: DEFAULT_QUOTA, leases };
    let Ok(plan) = plan(&said, &request) else { return };
    let layout = Layout::new(1024, 4096).expect("a layout");
    let rebuilt = match rebuild(source.db().into(), &plan, layout, Vec::new()) {
        Ok(rebuilt) => rebuilt,
        Err(error) => return assert!(may_refuse(&source, &error), "{error}"),
    };
    let mut file = rebuilt.file.out;
    file[..rebuilt.file.metas.len()].copy_from_slice(&rebuilt.file.metas);
    let restored = Backend::open(file.as_slice()).expect("a database");
    let status = restored.status(KeyCount::Reckoned).expect("memory does not fail");
    assert!(status.is_sound(), "{:?} {:?}", status.report.findings, status.record_damage);
    assert_eq!((status.records, status.report.usage.free_bytes()), (rebuilt.records, 0));
    check_facts(&plan, &facts, &restored.facts().expect("facts"));
    if plan.bump.is_none() {
        let hash = |backend: &Backend<_>| backend.hash_kv(&HashRequest::default());
        assert_eq!(hash(&restored), hash(&source));
    }
    check_directory(&plan);
});

/// How far to raise the revision stands in the last byte, where bbolt allows any.
fn bump(bytes: &[u8]) -> BumpRequest {
    match bytes.last().copied().unwrap_or_default() {
        0 => BumpRequest::Never,
        1 => BumpRequest::IfKubernetes,
        by => BumpRequest::By(1 << (by % 64)),
    }
}

/// A restore stops only at damage, and at what no etcd writes.
fn may_refuse(source: &Backend<&[u8]>, error: &RebuildError) -> bool {
    match error {
        RebuildError::KubernetesAfterAll | RebuildError::BucketTooLarge { .. } => true,
        RebuildError::Write(error) => matches!(error, BulkError::KeySize { .. }),
        RebuildError::Source(Error::Record(damage)) if damage.fault == RecordFault::Bucket => true,
        _ => !source.status(KeyCount::Remembered).expect("memory does not fail").is_sound(),
    }
}

fn check_facts(plan: &Plan, source: &Facts, restored: &Facts) {
    assert_eq!(restored.revision(), plan.final_revision());
    assert_eq!(restored.members, plan.cluster.members);
    assert_eq!(restored.consistent_index, Some(plan.index()));
    assert_eq!(restored.term, Some(plan.hard_state().term));
    assert_eq!(restored.downgrade, None);
    let kept = plan.alarms.iter().filter_map(|fate| match fate {
        AlarmFate::Kept(alarm) => Some(*alarm),
        AlarmFate::Cleared(_) => None,
    });
    assert_eq!(restored.alarms, kept.collect::<Vec<_>>());
    assert_eq!((restored.auth, restored.marks.storage), (source.auth, source.marks.storage));
    assert_eq!(restored.marks.cluster, source.marks.cluster);
}

/// Log and snapshot can be read, and say the same of where the members start.
fn check_directory(plan: &Plan) {
    for member in &plan.cluster.members {
        let mut log = LogState::default();
        let mut snapshot = None;
        for file in directory(plan, member).files {
            match file.content {
                Content::Bytes(bytes) if file.path.ends_with(".snap") => {
                    snapshot = Some(snap::decode(&bytes).expect("a snapshot").0);
                }
                Content::Bytes(bytes) => {
                    let mut reader = SegmentReader::new(&bytes[..], file.path, Chain::start());
                    while let Some(record) = reader.next_record().expect("a log") {
                        log.add(&record);
                    }
                }
                Content::Database => {}
            }
        }
        assert_eq!(log.metadata.map(|metadata| metadata.member), Some(member.id));
        assert_eq!(log.snapshot(), snapshot.as_ref());
        assert_eq!(log.committed_beyond(RaftIndex(0)), plan.index().0);
    }
}
