//! Encrypted archives of a real etcd, restored by their owners and by nobody else.

use crate::booted::{self, hashes};
use crate::command::{done, only, refused, rekindle, restore_alone};
use rekindle_testkit::Version;
use rekindle_testkit::content::files;
use rekindle_testkit::etcd::{Cluster, Members, Sites};
use serde_json::Value;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

/// Stands in values of the keyspace.
const CANARY: &str = "canary-in-the-keyspace";

/// An archive with two owners and a signing key, and what its users have.
struct Sealed {
    dir: tempfile::TempDir,
    told: String,
}

impl Sealed {
    fn init() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flag = |flag: &str, name: &str| format!("--{flag}={}", dir.path().join(name).display());
        let told = done([
            "archive".to_owned(),
            "init".to_owned(),
            dir.path().join("archive").display().to_string(),
            flag("generate-keys", "one"),
            flag("generate-keys", "other"),
            flag("generate-signing-key", "signing"),
        ]);
        Self { dir, told }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn archive(&self) -> String {
        self.path("archive").display().to_string()
    }

    fn flag(&self, flag: &str, name: &str) -> String {
        format!("--{flag}={}", self.path(name).display())
    }

    /// The line of a file behind its comments.
    fn secret(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        text.lines().find(|line| !line.starts_with('#')).unwrap().to_owned()
    }

    fn public(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        text.lines().next().unwrap().strip_prefix("# public key: ").unwrap().to_owned()
    }

    fn fingerprint(&self) -> String {
        let listed = done(["archive", "list", "-w=json", &self.archive()]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        listed["fingerprint"].as_str().unwrap().to_owned()
    }

    fn save(&self, cluster: &Cluster, more: &[String]) -> Output {
        let mut command = rekindle(["save", &self.archive()]);
        command.arg(format!("--endpoints={}", cluster.member(0).client_url()));
        command.arg(self.flag("spool", "spool")).args(more).output().unwrap()
    }

    fn saved(&self, cluster: &Cluster) {
        let output = self.save(cluster, &[self.flag("signing-key", "signing")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Neither the keyspace nor a secret lies in the archive or the spool.
    fn check_closed(&self) {
        let secrets = ["one", "other", "signing"].map(|name| self.secret(name));
        let canaries: Vec<_> = secrets.iter().map(String::as_str).chain([CANARY]).collect();
        for path in files(&self.path("archive")).into_iter().chain(files(&self.path("spool"))) {
            let bytes = std::fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            let seen = canaries.iter().find(|canary| text.contains(**canary));
            assert_eq!(seen, None, "{}", path.display());
            check_private(&path);
        }
    }

    /// No secret is in what was printed.
    fn check_silent(&self, told: &str) {
        for secret in ["one", "other", "signing"].map(|name| self.secret(name)) {
            assert!(!told.contains(&secret[21..]), "{told}");
        }
    }
}

fn check_private(path: &Path) {
    let mode = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{}", path.display());
}

fn given_cluster() -> Cluster {
    let cluster = Cluster::start(Version::LATEST, Members(1));
    for number in 0..20 {
        cluster.etcdctl(["put", &format!("key-{number}"), &format!("{CANARY}-{number}")]);
    }
    cluster
}

#[test]
fn what_is_sealed_and_signed_comes_back_with_an_identity() {
    let (cluster, sealed) = (given_cluster(), Sealed::init());
    for said in ["fingerprint", "copy at least one off this machine", "signed by", "age1"] {
        assert!(sealed.told.contains(said), "{}", sealed.told);
    }
    sealed.check_silent(&sealed.told);
    ["one", "other", "signing"].iter().for_each(|name| check_private(&sealed.path(name)));
    // One that signs, and needs no identity.
    sealed.saved(&cluster);
    sealed.check_closed();
    let revision = 21;
    let hash = hashes(&cluster, revision);
    for owner in ["one", "other"] {
        let sites = Sites::new(Members(1));
        let source = sealed.path("archive");
        done(restore_alone(&source, &sites, &[&sealed.flag("identity", owner)]));
        booted::check_databases(Version::LATEST, &sites, revision);
        let restored = Cluster::with(Version::LATEST).on(sites).start();
        assert_eq!(hashes(&restored, revision), hash, "as etcd answers it");
    }
}

#[test]
fn who_may_not_read_is_told_why() {
    let (cluster, sealed) = (given_cluster(), Sealed::init());
    let other = Sealed::init();
    sealed.saved(&cluster);
    let sites = Sites::new(Members(1));
    let told = |code: i32, more: &[&str]| {
        let told = refused(code, restore_alone(&sealed.path("archive"), &sites, more));
        sealed.check_silent(&told);
        assert!(told.contains("what to do: "), "{told}");
        told
    };
    assert!(told(2, &[]).contains("is encrypted, and no identity was given"));
    let foreign = told(4, &[&other.flag("identity", "one")]);
    assert!(foreign.contains("none of the identities given opens"), "{foreign}");
    let signing = told(2, &[&sealed.flag("identity", "signing")]);
    assert!(signing.contains("line 2 is no secret key of age"), "{signing}");
    let zeros = format!("--fingerprint={}", "0".repeat(64));
    let other_keys = told(4, &[&sealed.flag("identity", "one"), &zeros]);
    assert!(other_keys.contains(&sealed.fingerprint()), "{other_keys}");
    let open = Permissions::from_mode(0o644);
    std::fs::set_permissions(sealed.path("one"), open).unwrap();
    let open = told(4, &[&sealed.flag("identity", "one")]);
    assert!(open.contains("its mode is 0644") && open.contains("chmod 600"), "{open}");

    let [key] = &files(&sealed.path("archive/keys"))[..] else { panic!() };
    let whole = std::fs::read(key).unwrap();
    std::fs::write(key, &whole[1..]).unwrap();
    let damaged = told(3, &[&sealed.flag("identity", "other")]);
    assert!(damaged.contains(key.to_str().unwrap()), "{damaged}");
    std::fs::write(key, whole).unwrap();
    let pack = files(&sealed.path("archive"));
    let pack = pack.iter().find(|path| path.extension().unwrap() == "pack").unwrap();
    let mut bytes = std::fs::read(pack).unwrap();
    bytes[300] ^= 1;
    std::fs::write(pack, bytes).unwrap();
    let forged = told(3, &[&sealed.flag("identity", "other")]);
    assert!(forged.contains("not by one whom the archive names as a signer"), "{forged}");
    assert!(!only(&sites).data_dir().exists(), "nothing was put in place");
}

#[test]
fn saving_wants_the_keys_that_it_knows() {
    let (cluster, sealed, other) = (given_cluster(), Sealed::init(), Sealed::init());
    let refused = |code: i32, more: &[String], want: &str| {
        let output = sealed.save(&cluster, more);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(want) && told.contains("what to do: "), "{told}");
        sealed.check_silent(&told);
    };
    refused(2, &[], "takes only what is signed, and no signing key was given");
    let foreign = format!("--signing-key={}", other.path("signing").display());
    refused(4, &[foreign], "as one of its signers");
    let signing = sealed.flag("signing-key", "signing");
    let zeros = format!("--fingerprint={}", "0".repeat(64));
    refused(4, &[signing.clone(), zeros], "should have the fingerprint 000");
    sealed.saved(&cluster);
    sealed.saved(&cluster);

    // Somebody puts another archive there; one that is his, or not encrypted at all.
    let (place, aside) = (sealed.path("archive"), sealed.path("aside"));
    std::fs::rename(&place, &aside).unwrap();
    done(["archive", "init", "--unencrypted", &sealed.archive()]);
    refused(
        4,
        std::slice::from_ref(&signing),
        "Nobody who held the keys of before has endorsed these",
    );
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::rename(&aside, &place).unwrap();
    sealed.saved(&cluster);
}

#[test]
fn a_removed_owner_reads_what_was_and_no_more() {
    let (cluster, sealed) = (given_cluster(), Sealed::init());
    sealed.saved(&cluster);
    let removed = format!("--remove={}", sealed.public("other"));
    let rekey = |more: &[&str]| {
        let archive = sealed.archive();
        let identity = sealed.flag("identity", "one");
        let words = [&["archive", "rekey", archive.as_str(), identity.as_str()], more].concat();
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = sealed.fingerprint();
    let plan = done(rekey(&[&removed, "--dry-run"]));
    for said in ["generation 2 begins", "This does not take back what was readable"] {
        assert!(plan.contains(said), "{plan}");
    }
    assert_eq!(sealed.fingerprint(), before, "a plan touches nothing");
    let told = refused(4, rekey(&[&removed]));
    assert!(told.contains("--yes"), "{told}");
    assert!(refused(2, rekey(&["--yes"])).contains("nothing says who is to be added"));
    let told = done(rekey(&[&removed, "--yes"]));
    let after = sealed.fingerprint();
    assert!(before != after && told.contains(&format!("--fingerprint {after}")), "{told}");

    let signing = sealed.flag("signing-key", "signing");
    let output = sealed.save(&cluster, std::slice::from_ref(&signing));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("Somebody who holds the keys of before has begun these"), "{told}");
    let output = sealed.save(&cluster, &[signing, format!("--fingerprint={after}")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    sealed.saved(&cluster);

    let sites = Sites::new(Members(1));
    let listed = done(["archive", "list", "-w=json", &sealed.archive()]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let object = listed["restorePoints"][0]["object"].as_str().unwrap();
    let source = |point: &str| PathBuf::from(format!("{}@{point}", sealed.archive()));
    let flags = |owner| [sealed.flag("identity", owner), "--dry-run".to_owned()];
    let of = |point: &str, owner| {
        let flags = flags(owner);
        restore_alone(&source(point), &sites, &flags.each_ref().map(String::as_str))
    };
    done(of(object, "other"));
    done(of("latest", "one"));
    let told = refused(4, of("latest", "other"));
    assert!(told.contains("sealed to generation 2 of the archive's keys"), "{told}");
    assert!(told.contains("that identity was removed before this was saved"), "{told}");
}
