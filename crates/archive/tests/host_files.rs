//! Files of hosts: always sealed, verified, copied and pruned as everything else in an archive.

use rekindle_archive::format::files::{FileEntry, FileKind, Files};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, Error, Identity, Level, Policy, Protection, PruneRequest, Sealing, Store, Transfer,
    Verification, VerifyProgress, VerifyRequest, Word, plan_prune,
};
use rekindle_testkit::content;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};

const CANARY: &[u8] = b"a canary in a key";

fn some(host: &str, key: &[u8]) -> Files {
    let entry = |path: &str, what| FileEntry {
        path: path.to_owned(),
        mode: 0o600,
        owner: 0,
        group: 0,
        what,
    };
    Files {
        host: host.to_owned(),
        asked: vec!["/etc/kubernetes".to_owned()],
        left_out: Vec::new(),
        entries: vec![
            entry("/etc/kubernetes", FileKind::Directory),
            entry("/etc/kubernetes/ca.key", FileKind::File([CANARY, key].concat())),
        ],
    }
}

struct Place {
    directory: tempfile::TempDir,
    owner: Identity,
}

impl Place {
    fn new() -> Self {
        let this = Self { directory: tempfile::tempdir().unwrap(), owner: Identity::generate() };
        std::fs::create_dir(this.path("archive")).unwrap();
        let sealing = Sealing::To(vec![this.owner.public()]);
        let protection = Protection { sealing, signers: Vec::new() };
        Archive::init(this.store("archive"), Moment(0), &protection).unwrap();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn store(&self, name: &str) -> Store {
        Store::directory(&self.path(name)).unwrap()
    }

    /// As a host has it: with public keys only.
    fn archive(&self, name: &str) -> Archive {
        Archive::open(self.store(name)).unwrap()
    }

    fn opened(&self, name: &str) -> Archive {
        self.archive(name).with_identities(std::slice::from_ref(&self.owner)).unwrap()
    }
}

fn request() -> VerifyRequest {
    VerifyRequest { level: Level::Read, only: None, now: Moment(1000) }
}

fn findings(archive: &Archive) -> Vec<(Word, String)> {
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let progress = VerifyProgress { done: &done, stop: &stop };
    let verdict = Verification::begin(archive, &request()).unwrap().run(progress).unwrap();
    verdict.findings.into_iter().map(|found| (found.word, found.object)).collect()
}

#[test]
fn they_are_kept_by_who_cannot_read_them() {
    let place = Place::new();
    let archive = place.archive("archive");
    for (host, at) in [("b", 1), ("a", 2), ("a", 3)] {
        archive.add_files(&some(host, &[at]), Moment(at.into())).unwrap();
    }
    let (listed, unreadable) = archive.files().unwrap();
    assert!(unreadable.is_empty());
    let hosts: Vec<_> = listed.iter().map(|it| (&*it.host, it.at.0, it.count)).collect();
    assert_eq!(hosts, [("a", 2, 2), ("a", 3, 2), ("b", 1, 2)]);
    assert!(archive.read_files(&listed[1]).is_err(), "that takes an identity");
    assert_eq!(place.opened("archive").read_files(&listed[1]).unwrap(), some("a", &[3]));
    for path in content::files(&place.path("archive")) {
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|it| it == CANARY), "{}", path.display());
    }
    std::fs::create_dir(place.path("plain")).unwrap();
    let plain = Archive::init_unencrypted(place.store("plain"), Moment(0)).unwrap();
    let refused = plain.add_files(&some("a", &[]), Moment(1)).unwrap_err();
    assert!(matches!(refused, Error::FilesUnsealed { .. }), "{refused}");
}

#[test]
fn they_are_verified_and_copied() {
    let place = Place::new();
    let name = place.archive("archive").add_files(&some("a", &[1]), Moment(1)).unwrap();
    let archive = place.opened("archive");
    assert_eq!(findings(&archive), []);
    std::fs::create_dir(place.path("copy")).unwrap();
    let copied = archive.begin_copy(place.store("copy")).unwrap();
    copy(&archive, copied.store());
    assert_eq!(
        std::fs::read(place.path("copy").join(&name)).ok(),
        std::fs::read(place.path("archive").join(&name)).ok()
    );
    // Each byte that is changed is found; and what lies under another host's name is not his.
    let path = place.path("archive").join(&name);
    let good = std::fs::read(&path).unwrap();
    for at in [0, 10, 100, 300, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert_eq!(findings(&archive), [(Word::Lost, name.clone())], "{at}");
        let (listed, unreadable) = archive.files().unwrap();
        let is_told =
            unreadable == std::slice::from_ref(&name) || archive.read_files(&listed[0]).is_err();
        assert!(is_told, "{at}");
    }
    std::fs::write(&path, &good).unwrap();
    let other = name.replace("/a/", "/b/");
    std::fs::create_dir(place.path("archive/host/b")).unwrap();
    std::fs::write(place.path("archive").join(&other), &good).unwrap();
    assert_eq!(findings(&archive), [(Word::Lost, other)]);
}

fn copy(archive: &Archive, to: &Store) {
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let transfer = Transfer::copy(archive, to, &request()).unwrap();
    let copied = transfer.run(VerifyProgress { done: &done, stop: &stop }).unwrap();
    assert_eq!((copied.objects, copied.left.len()), (1, 0));
}

#[test]
fn without_restore_points_none_goes() {
    let place = Place::new();
    let archive = place.opened("archive");
    for at in 1..4 {
        archive.add_files(&some("a", &[at]), Moment(at.into())).unwrap();
    }
    let policy = Policy { last: 1, ..Policy::default() };
    let request = PruneRequest { policy, bases_max: 10, grace: 0, now: Moment(100) };
    let plan = plan_prune(&archive, &request).unwrap();
    assert!(plan.is_empty());
}
