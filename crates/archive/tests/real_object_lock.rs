//! S3's object lock: what is saved cannot be removed before its time, by MinIO.

mod keyspaces;

use http::{HeaderMap, Method, Request};
use keyspaces::{Keyspace, a_spool, now, prepare};
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpConnector, HttpRequestBody, ReqwestConnector};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, Level, Place, Policy, PruneRequest, Retention, RetentionMode, Store, StoreOptions,
    Transfer, VerifyProgress, VerifyRequest, plan_prune,
};
use rekindle_testkit::stores::{Bucket, Minio};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;
use tokio::runtime::Runtime;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Asks a store what we have no calls for.
struct S3 {
    runtime: Runtime,
    client: HttpClient,
    bucket: Bucket,
}

impl S3 {
    fn new(bucket: Bucket) -> Self {
        // Another test may have done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = ClientOptions::new().with_allow_http(true);
        let client = ReqwestConnector::default().connect(&options).unwrap();
        Self { runtime, client, bucket }
    }

    /// Status and headers of the answer to a request for what lies below the endpoint.
    fn ask(&self, method: Method, path: &str, header: Option<(&str, &str)>) -> (u16, HeaderMap) {
        let mut request =
            Request::builder().method(method).uri(format!("{}/{path}", self.bucket.endpoint_url));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let mut request = request.body(HttpRequestBody::empty()).unwrap();
        let variable = |name: &str| {
            let mut known = self.bucket.variables.iter();
            known.find(|(known, _)| known == name).unwrap().1.clone()
        };
        let credential = AwsCredential {
            key_id: variable("AWS_ACCESS_KEY_ID"),
            secret_key: variable("AWS_SECRET_ACCESS_KEY"),
            token: None,
        };
        let authorizer = AwsAuthorizer::new(&credential, "s3", "us-east-1");
        authorizer.try_authorize(&mut request, None).unwrap();
        let answer = self.runtime.block_on(self.client.execute(request)).unwrap();
        (answer.status().as_u16(), answer.headers().clone())
    }

    /// Mode and end of an object's lock.
    fn lock_of(&self, path: &str) -> Option<(String, jiff::Timestamp)> {
        let (status, headers) = self.ask(Method::HEAD, path, None);
        assert_eq!(status, 200, "{path}");
        let text = |name: &str| Some(headers.get(name)?.to_str().unwrap().to_owned());
        let until = text("x-amz-object-lock-retain-until-date")?.parse().unwrap();
        Some((text("x-amz-object-lock-mode")?, until))
    }
}

fn open(bucket: &Bucket, retention: Option<(RetentionMode, Duration)>) -> Store {
    let options = StoreOptions {
        endpoint_url: Some(bucket.endpoint_url.clone()),
        variables: bucket.variables.iter().cloned().collect(),
        retention: retention.map(|(mode, period)| Retention { mode, period }),
        ..StoreOptions::default()
    };
    Store::open(&Place::parse(&bucket.url("backups")).unwrap(), &options).unwrap()
}

fn save(archive: &Archive, keyspace: &Keyspace, spool: &Path) {
    prepare(archive, keyspace, Some(spool), &now, |prepared| prepared.publish(now())).unwrap();
}

/// Of each object of the archive: mode and days of its lock.
fn locks(s3: &S3, archive: &Archive) -> Vec<(String, String, i64)> {
    let found = archive.store().list("timelines").unwrap();
    let lock = |name: String| {
        let (mode, until) = s3.lock_of(&format!("locked/backups/{name}")).expect("a lock");
        let hours = jiff::Timestamp::now().duration_until(until).as_hours();
        (name, mode, (hours + 1) / 24)
    };
    found.into_iter().map(|it| lock(it.name)).collect()
}

#[test]
fn what_is_saved_is_locked_with_all_that_it_shares() {
    let minio = Minio::start();
    let s3 = S3::new(minio.unmade_bucket("locked"));
    let made = s3.ask(Method::PUT, "locked", Some(("x-amz-bucket-object-lock-enabled", "true")));
    assert_eq!(made.0, 200);
    let compliance = RetentionMode::Compliance;
    let store = open(&s3.bucket, Some((compliance, DAY)));
    let archive = Archive::init_unencrypted(store, Moment(0)).unwrap();
    assert_eq!(s3.lock_of("locked/backups/archive.json").unwrap().0, "COMPLIANCE");
    let (mut keyspace, spool) = (Keyspace::new(), a_spool());
    (0..50).for_each(|n| keyspace.write(&[(&format!("/key/{n}"), false)], 100));
    save(&archive, &keyspace, spool.path());
    let first = locks(&s3, &archive);
    assert_eq!(first.len(), 3, "timeline, pack, base: {first:?}");
    assert!(first.iter().all(|(_, mode, days)| (mode.as_str(), *days) == ("COMPLIANCE", 1)));

    // What the next base shares is locked as long as that; the older base stays as it is.
    let archive = Archive::open(open(&s3.bucket, Some((compliance, 10 * DAY)))).unwrap();
    keyspace.write(&[("/key/new", false)], 100);
    save(&archive, &keyspace, spool.path());
    let second = locks(&s3, &archive);
    let mut days: Vec<_> =
        second.iter().map(|(name, _, days)| (name.rsplit_once('.').unwrap().1, *days)).collect();
    days.sort_unstable();
    assert_eq!(days, [("base", 1), ("base", 10), ("json", 10), ("pack", 10), ("seg", 10)]);

    // A prune hides a base; it is there still, and nobody can remove it. Marks go.
    let old = second.iter().find(|it| it.0.ends_with(".base") && it.2 == 1).unwrap();
    let path = format!("locked/backups/{}", old.0);
    let (_, headers) = s3.ask(Method::HEAD, &path, None);
    let version = headers["x-amz-version-id"].to_str().unwrap();
    let policy = Policy { last: 1, ..Policy::default() };
    let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now() };
    let done = plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap();
    assert_eq!((done.bases, done.held), (1, Vec::new()));
    assert_eq!(archive.list().unwrap().bases.len(), 1);
    let versioned = format!("{path}?versionId={version}");
    assert_eq!(s3.ask(Method::HEAD, &versioned, None).0, 200);
    assert_ne!(s3.ask(Method::DELETE, &versioned, None).0, 204, "it is locked");
    assert_eq!(s3.ask(Method::HEAD, &versioned, None).0, 200);

    // What goes in parts is locked, too.
    let governed = open(&s3.bucket, Some((RetentionMode::Governance, DAY)));
    let mut upload = governed.upload("snapshot.db");
    (0..3).for_each(|_| upload.write(vec![1; 8 << 20].into()).unwrap());
    upload.complete().unwrap();
    assert_eq!(s3.lock_of("locked/backups/snapshot.db").unwrap().0, "GOVERNANCE");
}

#[test]
fn what_is_copied_is_locked_with_all_that_was_there() {
    let minio = Minio::start();
    let s3 = S3::new(minio.unmade_bucket("locked"));
    let made = s3.ask(Method::PUT, "locked", Some(("x-amz-bucket-object-lock-enabled", "true")));
    assert_eq!(made.0, 200);
    let (mut keyspace, spool, place) = (Keyspace::new(), a_spool(), tempfile::tempdir().unwrap());
    let from = Store::directory(place.path()).unwrap();
    let from = Archive::init_unencrypted(from, Moment(0)).unwrap();
    let mut seen = Vec::new();
    for days in [1, 10] {
        keyspace.write(&[(&format!("/key/{days}"), false)], 100);
        save(&from, &keyspace, spool.path());
        let to = open(&s3.bucket, Some((RetentionMode::Compliance, days * DAY)));
        let to = from.begin_copy(to).unwrap();
        let request = VerifyRequest { level: Level::Read, only: None, now: now() };
        let transfer = Transfer::copy(&from, to.store(), &request).unwrap();
        let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
        assert_eq!(transfer.run(progress).unwrap().left, []);
        let ends = locks(&s3, &to).into_iter();
        seen = ends
            .map(|(name, _, days)| (name.rsplit_once('.').unwrap().1.to_owned(), days))
            .collect();
        seen.sort_unstable();
        let archive_ends = s3.lock_of("locked/backups/archive.json").unwrap().1;
        let hours = jiff::Timestamp::now().duration_until(archive_ends).as_hours();
        assert_eq!((hours + 1) / 24, i64::from(days));
    }
    let seen: Vec<_> = seen.iter().map(|(kind, days)| (kind.as_str(), *days)).collect();
    assert_eq!(seen, [("base", 1), ("base", 10), ("json", 10), ("pack", 10), ("seg", 10)]);
}

#[test]
fn a_bucket_without_locks_is_told() {
    let minio = Minio::start();
    let bucket = minio.bucket("plain");
    let store = open(&bucket, Some((RetentionMode::Compliance, DAY)));
    let fault = store.create("a", b"object".to_vec()).unwrap_err();
    assert!(fault.to_string().contains("ObjectLockConfiguration"), "{fault}");
    let azure = Place::parse("az://container/x").unwrap();
    let retention = Some(Retention { mode: RetentionMode::Compliance, period: DAY });
    for place in [azure, Place::parse("/nowhere").unwrap()] {
        let options = StoreOptions { retention, ..StoreOptions::default() };
        let fault = Store::open(&place, &options).unwrap_err();
        assert!(fault.to_string().contains("S3 buckets only"), "{fault}");
    }
}
