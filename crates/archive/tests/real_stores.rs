//! Stores of real servers: all do the same.

mod store_check;

use rekindle_archive::{Place, Store, StoreFaultKind, StoreOptions};
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::stores::{Azurite, Bucket, FakeGcs, Minio};
use std::time::Instant;
use store_check::check;

fn options(bucket: &Bucket) -> StoreOptions {
    StoreOptions {
        endpoint_url: Some(bucket.endpoint_url.clone()),
        variables: bucket.variables.iter().cloned().collect(),
        ..StoreOptions::default()
    }
}

fn open(bucket: &Bucket, prefix: &str) -> Store {
    Store::open(&Place::parse(&bucket.url(prefix)).unwrap(), &options(bucket)).unwrap()
}

/// The whole of a bucket, a part of it, and one that is not there.
fn check_all(bucket: &Bucket) {
    check(&open(bucket, "a/prefix"));
    let whole = open(bucket, "");
    assert!(whole.list("a/prefix").unwrap().len() > 2);
    let missing = open(&bucket.missing(), "");
    for fault in [
        missing.read("archive.json", 100).unwrap_err(),
        missing.list("a").unwrap_err(),
        missing.create("a", b"object".to_vec()).unwrap_err(),
    ] {
        assert_eq!(fault.kind, StoreFaultKind::NoBucket, "{fault}");
    }
}

#[test]
fn minio() {
    let minio = Minio::start();
    let bucket = minio.bucket("bucket");
    check_all(&bucket);
    assert_eq!(minio.unfinished_uploads(), 0);
    let fault = |bucket: &Bucket| open(bucket, "").read("a", 100).unwrap_err();
    let wrong = fault(&bucket.clone().with("AWS_SECRET_ACCESS_KEY", "canary-wrong"));
    assert_eq!(wrong.kind, StoreFaultKind::Credentials, "{wrong}");
    let unknown = fault(&bucket.clone().with("AWS_ACCESS_KEY_ID", "canary-unknown"));
    assert_eq!(unknown.kind, StoreFaultKind::Credentials, "{unknown}");
    let expired = fault(&bucket.clone().with("AWS_SESSION_TOKEN", "canary-token"));
    assert_eq!(expired.kind, StoreFaultKind::Credentials, "{expired}");
}

#[test]
fn fake_gcs() {
    check_all(&FakeGcs::start().bucket("bucket"));
}

#[test]
fn azurite() {
    let azurite = Azurite::start();
    let container = azurite.container("container");
    check_all(&container);
    let wrong = container.with("AZURE_STORAGE_KEY", "Y2FuYXJ5LXdyb25nLWtleQ==");
    let wrong = open(&wrong, "").read("a", 100).unwrap_err();
    assert_eq!(wrong.kind, StoreFaultKind::Credentials, "{wrong}");
}

#[test]
fn certificates() {
    let ca = Ca::new("store-ca");
    let minio = Minio::start_tls(&ca.issue("minio", &Leaf::server()));
    let bucket = minio.bucket("bucket");
    let place = Place::parse(&bucket.url("x")).unwrap();
    let fault =
        |options: StoreOptions| Store::open(&place, &options).unwrap().read("a", 100).unwrap_err();
    let untrusted = fault(options(&bucket));
    assert_eq!(untrusted.kind, StoreFaultKind::Certificate, "{untrusted}");
    assert!(untrusted.to_string().contains("no authority that is trusted"), "{untrusted}");
    let pem = std::fs::read(ca.path()).unwrap();
    let trusted = fault(StoreOptions { ca: Some(pem), ..options(&bucket) });
    assert_eq!(trusted.kind, StoreFaultKind::NotFound, "{trusted}");
    let plain = bucket.endpoint_url.replace("https:", "http:");
    let plain = fault(StoreOptions { endpoint_url: Some(plain), ..options(&bucket) });
    assert_eq!(plain.kind, StoreFaultKind::Tls, "{plain}");
}

/// Who has never answered is not asked for minutes.
#[test]
fn nobody_there() {
    let bucket = Minio::start().bucket("bucket");
    let began = Instant::now();
    let nobody = open(&bucket, "").read("a", 100).unwrap_err();
    assert_eq!(nobody.kind, StoreFaultKind::Unreachable, "{nobody}");
    assert!(nobody.to_string().contains("refused"), "{nobody}");
    assert!(began.elapsed().as_secs() < 30);
}

#[test]
fn plain_http_is_no_tls() {
    let minio = Minio::start();
    let mut secure = minio.bucket("bucket");
    secure.endpoint_url = secure.endpoint_url.replace("http:", "https:");
    let fault = open(&secure, "").read("a", 100).unwrap_err();
    assert_eq!(fault.kind, StoreFaultKind::Tls, "{fault}");
}

#[test]
fn bytes_a_second_are_limited() {
    let minio = Minio::start();
    let bucket = minio.bucket("bucket");
    let place = Place::parse(&bucket.url("x")).unwrap();
    let bandwidth = std::num::NonZeroU64::new(4 << 20);
    let store = Store::open(&place, &StoreOptions { bandwidth, ..options(&bucket) }).unwrap();
    let began = Instant::now();
    store.create("a", vec![1; 4 << 20]).unwrap();
    store.read("a", u64::MAX).unwrap();
    // Two seconds' worth, less the frames that go at once.
    assert!(began.elapsed().as_millis() > 1800, "{:?}", began.elapsed());
}
