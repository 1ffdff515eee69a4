//! What administrators get wrong most often: each is told apart, with the flag and the remedy, and
//! leaves nothing behind.

use crate::command::{Target, endpoints, failed};
use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, CertFiles, Leaf};
use rekindle_testkit::etcd::{Cluster, Members, ROOT_PASSWORD, ROOT_USER, Sites};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

/// Runs a save that must fail with this exit code, and say all of this.
#[track_caller]
fn check(code: i32, target: &Target, command: &mut Command, wants: &[&str]) {
    let stderr = failed(code, command);
    for want in wants {
        assert!(stderr.contains(want), "nothing of \"{want}\" in:\n{stderr}");
    }
    assert!(stderr.contains("what to do: "), "{stderr}");
    assert!(target.names().is_empty(), "{:?}", target.names());
}

fn mutual() -> (Ca, CertFiles, Cluster) {
    let ca = Ca::new("etcd-ca");
    let server = ca.issue("server", &Leaf::server());
    let client = ca.issue("client", &Leaf::client("backup"));
    let cluster = Cluster::with(Version::LATEST).mutual_tls(&ca, &server).start();
    (ca, client, cluster)
}

fn flag(name: &str, path: impl AsRef<Path>) -> String {
    format!("--{name}={}", path.as_ref().display())
}

#[test]
fn nobody_there() {
    let sites = Sites::new(Members(1));
    let silent = sites.iter().next().unwrap().client_url();
    let target = Target::new();
    check(5, &target, &mut target.save(&silent), &[&silent, "refused", "etcd is running there"]);
    check(2, &target, &mut target.save("ftp://h:1"), &["ftp", "--endpoints"]);
}

#[test]
fn certificates() {
    let (ca, client, cluster) = mutual();
    let target = Target::new();
    let url = endpoints(&cluster);
    let save = || target.save(&url);
    let (cacert, cert, key) =
        (flag("cacert", ca.path()), flag("cert", &client.cert), flag("key", &client.key));

    let wants = ["client certificate", "--cert", "--key"];
    check(1, &target, save().arg(&cacert), &wants);
    check(2, &target, save().args([&cacert, &cert]), &["--cert", "--key"]);
    let other = Ca::new("another-ca");
    let wrong = flag("cacert", other.path());
    let path = other.path().display().to_string();
    check(
        1,
        &target,
        save().args([&wrong, &cert, &key]),
        &["unknown authority", &path, "--cacert"],
    );
    let missing = flag("key", target.dir().join("no-such.key"));
    check(1, &target, save().args([&cacert, &cert, &missing]), &["no-such.key", "--key"]);
    let text = ca.path().with_file_name("text.pem");
    fs::write(&text, "not a certificate").unwrap();
    let text = flag("cacert", text);
    check(1, &target, save().args([&text, &cert, &key]), &["text.pem", "--cacert"]);
    let plain = url.replace("https:", "http:");
    check(1, &target, &mut target.save(&plain), &["TLS", "https://"]);
}

#[test]
fn a_server_certificate_of_another_name_or_out_of_its_time() {
    let ca = Ca::new("etcd-ca");
    let leaf = Leaf::server;
    for (name, leaf, wants) in [
        ("named", leaf().named("other.example"), ["other.example", "--endpoints"]),
        ("expired", leaf().expired(), ["expired", "kubeadm certs renew"]),
    ] {
        let server = ca.issue(name, &leaf);
        let cluster = Cluster::with(Version::LATEST).tls(&ca, &server).start();
        let target = Target::new();
        let mut command = target.save(&endpoints(&cluster));
        check(1, &target, command.arg(flag("cacert", ca.path())), &wants);
    }
}

#[test]
fn users() {
    let cluster = Cluster::with(Version::LATEST).auth().start();
    cluster.etcdctl(["user", "add", "reader:pw"]);
    cluster.etcdctl(["role", "add", "reader"]);
    cluster.etcdctl(["role", "grant-permission", "reader", "--prefix=true", "read", ""]);
    cluster.etcdctl(["user", "grant-role", "reader", "reader"]);
    let target = Target::new();
    let url = endpoints(&cluster);
    let save = || target.save(&url);
    check(1, &target, &mut save(), &["--user"]);
    let wrong = format!("--user={ROOT_USER}:wrong-{ROOT_PASSWORD}");
    let stderr = failed(1, save().arg(&wrong));
    assert!(!stderr.contains(ROOT_PASSWORD), "{stderr}");
    check(1, &target, save().arg(&wrong), &["--user", "--password"]);
    check(1, &target, save().arg("--user=reader:pw"), &["permission denied", "role root"]);
    check(2, &target, save().arg("--user=reader"), &["ETCDCTL_PASSWORD"]);
}

#[test]
fn names_that_cannot_be_a_file() {
    let target = Target::new();
    let sites = Sites::new(Members(1));
    let nobody = sites.iter().next().unwrap().client_url();
    let save = |name: &str| {
        let mut command = crate::command::rekindle();
        command.arg("save").arg(name).arg(format!("--endpoints={nobody}"));
        command
    };
    let directory = target.dir().display().to_string();
    check(2, &target, &mut save(&directory), &["is a directory", "%Y"]);
    check(2, &target, &mut save("ftp://bucket/x"), &["ftp://", "s3://BUCKET"]);
    for nothing in ["", "-"] {
        check(2, &target, &mut save(nothing), &["names no file", "name a file"]);
    }
    check(2, &target, &mut save("%!.db"), &["%!", "%% for a percent sign"]);
}

#[test]
fn what_is_no_file_or_is_at_work_is_not_replaced() {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    let target = Target::new();
    let save = |path: &Path| {
        let mut command = crate::command::rekindle();
        command.arg("save").arg(path).arg(format!("--endpoints={}", endpoints(&cluster)));
        let stderr = failed(4, &mut command);
        assert!(stderr.contains("what to do: name"), "{stderr}");
        stderr
    };
    let fifo = target.dir().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(save(&fifo).contains("no regular file"));
    assert!(save(Path::new("/dev/null")).contains("no regular file"));
    // Also one that leads nowhere.
    let link = target.dir().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    assert!(save(&link).contains("the file itself"));
    // It once cost somebody the identity of an archive.
    let key = target.dir().join("key");
    fs::write(&key, "AGE-SECRET-KEY-1").unwrap();
    assert!(save(&key).contains("neither a snapshot nor empty"));
    assert_eq!(fs::read(&key).unwrap(), b"AGE-SECRET-KEY-1");
    fs::remove_file(&key).unwrap();
    let database = cluster.member(0).data_dir().join("member/snap/db");
    let before = fs::metadata(&database).unwrap().ino();
    assert!(save(&database).contains("locked"));
    assert_eq!(fs::metadata(&database).unwrap().ino(), before);
    assert_eq!(target.names(), ["fifo", "link"]);
    assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
}
