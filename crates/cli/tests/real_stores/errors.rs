//! What goes wrong most often on the way to a store: each is told apart, with the remedy. That no
//! secret is shown is looked at in every run.

use crate::command::{bare, endpoint, failed, rekindle};
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::stores::{Azurite, Bucket, Minio};
use std::process::Command;

/// Lists an archive, which must fail with this exit code, and say all of this.
#[track_caller]
fn check(code: i32, command: &mut Command, wants: &[&str]) {
    let told = failed(code, command);
    for want in wants {
        assert!(told.contains(want), "nothing of \"{want}\" in:\n{told}");
    }
    assert!(told.contains("what to do: "), "{told}");
}

fn list(bucket: &Bucket) -> Command {
    let mut command = rekindle(bucket);
    command.args(["archive", "list", &bucket.url("x"), &endpoint(bucket)]);
    command
}

#[test]
fn of_s3() {
    let minio = Minio::start();
    let bucket = minio.bucket("bucket");
    check(6, &mut list(&bucket), &["s3://bucket/x holds no archive", "archive init"]);
    check(6, &mut list(&bucket.missing()), &["NoSuchBucket", "makes no buckets"]);
    let with = |name: &str, value: &str| list(&bucket.clone().with(name, value));
    let secret = "AWS_SECRET_ACCESS_KEY";
    check(1, &mut with(secret, "canary-wrong"), &["SignatureDoesNotMatch", secret]);
    check(1, &mut with("AWS_ACCESS_KEY_ID", "canary-unknown"), &["InvalidAccessKeyId", secret]);
    check(1, &mut with("AWS_SESSION_TOKEN", "canary-token"), &["token", secret]);
    check(2, &mut with(secret, ""), &["s3://bucket/x", "SecretAccessKey"]);

    let mut elsewhere = bucket.clone();
    elsewhere.endpoint_url = elsewhere.endpoint_url.replace("http:", "https:");
    check(1, &mut list(&elsewhere), &["TLS", "write http://"]);
    elsewhere.endpoint_url = "127.0.0.1".to_owned();
    check(2, &mut list(&elsewhere), &["neither with https:// nor with http://"]);
    elsewhere.endpoint_url = "http://canary-user:canary-password@127.0.0.1".to_owned();
    check(2, &mut list(&elsewhere), &["belong into the environment"]);
    drop(minio);
    check(5, &mut list(&bucket), &["refused", "--endpoint-url"]);
}

#[test]
fn of_tls() {
    let ca = Ca::new("store-ca");
    let minio = Minio::start_tls(&ca.issue("minio", &Leaf::server()));
    let bucket = minio.bucket("bucket");
    check(1, &mut list(&bucket), &["no authority that is trusted", "--store-ca"]);
    let file = format!("--store-ca={}", ca.path().display());
    check(6, list(&bucket).arg(&file), &["holds no archive"]);
    check(6, list(&bucket).arg("--store-ca=/nonexistent/ca"), &["/nonexistent/ca"]);
    let mut plain = bucket.clone();
    plain.endpoint_url = plain.endpoint_url.replace("https:", "http:");
    check(1, list(&plain).arg(&file), &["HTTPS", "https:// where"]);

    let expired = Minio::start_tls(&ca.issue("expired", &Leaf::server().expired()));
    check(1, list(&expired.bucket("bucket")).arg(&file), &["it has expired", "renew"]);
    let other = Minio::start_tls(&ca.issue("other", &Leaf::server().named("other.example")));
    check(1, list(&other.bucket("bucket")).arg(&file), &["another name", "--endpoint-url"]);
}

#[test]
fn of_azure() {
    let azurite = Azurite::start();
    let container = azurite.container("container");
    check(6, &mut list(&container), &["az://container/x holds no archive"]);
    check(6, &mut list(&container.missing()), &["ContainerNotFound", "makes no buckets"]);
    let wrong = container.clone().with("AZURE_STORAGE_KEY", "Y2FuYXJ5LXdyb25nLWtleQ==");
    check(1, &mut list(&wrong), &["AZURE_STORAGE_KEY"]);
    let sas = "sv=2021-12-02&ss=b&srt=sco&sp=rwdlac&se=2020-01-01T00:00:00Z&sig=canary-signature";
    let mut expired = container.clone();
    expired.variables.retain(|(name, _)| name != "AZURE_STORAGE_KEY");
    let expired = expired.with("AZURE_STORAGE_SAS_TOKEN", sas);
    check(1, &mut list(&expired), &["403"]);
}

#[test]
fn of_places() {
    let list = |place: &str| {
        let mut command = bare();
        command.args(["archive", "list", place]);
        command
    };
    check(2, &mut list("ftp://canary-user@host/x"), &["s3://"]);
    check(2, &mut list("s3://canary-key:canary-secret@bucket/x"), &["environment"]);
    check(2, &mut list("az://container/x?sig=canary-signature"), &["environment"]);
    check(2, &mut list("s3:///x"), &["names no bucket"]);
    let mut both = list("/somewhere");
    both.args(["--bandwidth=1MiB"]);
    check(2, &mut both, &["--bandwidth is for object stores"]);
}
