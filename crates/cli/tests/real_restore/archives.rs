//! Bases of every version, restored out of an archive.

use crate::booted;
use crate::command::{done, identity, only, refused, restore, restore_alone};
use crate::sources::Source;
use rekindle_testkit::Version;
use rekindle_testkit::content::files;
use rekindle_testkit::etcd::{Members, Sites};

#[test]
fn a_base_of_every_version_becomes_a_cluster_of_three() {
    for version in Version::ALL {
        let source = Source::of(version);
        let sites = Sites::new(Members(3));
        let restore_on = |site| {
            let host = tempfile::tempdir().unwrap();
            done(restore(&source.write_archive(host.path()), &sites, site))
        };
        let plans: Vec<_> = sites.iter().map(restore_on).collect();
        booted::check(version, sites, source, &plans);
    }
}

#[test]
fn kubernetes_keys_raise_the_revision_of_a_base_too() {
    let source = Source::kubernetes();
    let sites = Sites::new(Members(1));
    let archive = source.write_archive(sites.dir());
    let plan = done(restore_alone(&archive, &sites, &[]));
    assert!(plan.contains("raised by 1,000,000,000"), "{plan}");
    booted::check_databases(Version::LATEST, &sites, source.revision + 1_000_000_000);
}

#[test]
fn points_of_an_archive_are_found_or_refused() {
    let source = Source::of(Version::LATEST);
    let sites = Sites::new(Members(1));
    let archive = source.write_archive(sites.dir());
    let plan = |point: &str, code: i32| {
        let site = only(&sites);
        let mut args = vec!["restore".to_owned(), format!("{}@{point}", archive.display())];
        args.extend(identity(&sites, site));
        args.extend([format!("--data-dir={}", site.data_dir().display()), "--dry-run".to_owned()]);
        match code {
            0 => done(args),
            code => refused(code, args),
        }
    };
    for point in ["latest", &source.revision.to_string(), "2999-01-01T00:00:00Z"] {
        let plan = plan(point, 0);
        assert!(plan.contains("base of an archive"), "{plan}");
    }
    let listed = done(["archive", "list", "-w=json", archive.to_str().unwrap()]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let point = listed["restorePoints"].as_array().unwrap().last().unwrap();
    let [time, object] = ["time", "object"].map(|field| point[field].as_str().unwrap());
    let name = object.rsplit('/').next().unwrap();
    for point in [time, name] {
        let plan = plan(point, 0);
        assert!(plan.contains(&format!("{name}\n")) && plan.contains(time), "{point}: {plan}");
    }
    let none = plan("1", 6);
    assert!(none.contains("holds no base at revision 1"), "{none}");
    let none = plan("2020-01-01T00:00:00Z", 6);
    assert!(none.contains("holds no base from before 2020-01-01T00:00:00.000Z"), "{none}");
    assert!(plan("yesterday", 2).contains("\"yesterday\" is no point in time"));
    assert!(!only(&sites).data_dir().exists(), "a plan touches nothing");

    // What cannot be read may be what is meant: nothing else is taken for it in silence.
    let bad = std::path::Path::new(object).with_file_name("later.base");
    std::fs::write(archive.join(bad), "rekindle").unwrap();
    let told = plan("latest", 3);
    assert!(told.contains("1 of the archive's objects cannot be read"), "{told}");
    assert!(told.contains("later.base: it ends within its header"), "{told}");
    plan(name, 0);

    // A file of that very name is what is meant.
    let file = format!("{}@42", archive.display());
    std::fs::write(&file, "no database").unwrap();
    assert!(plan("42", 3).contains("no database") || plan("42", 3).contains("not a bbolt"));
}

/// Packs or segments with one byte changed, or gone: the restore fails, and nothing is in place.
#[test]
fn a_damaged_archive_is_refused_and_leaves_nothing() {
    let source = Source::of(Version::LATEST);
    let sites = Sites::new(Members(1));
    let archive = source.write_archive(sites.dir());
    let refuse = || {
        let told = refused(3, restore_alone(&archive, &sites, &[]));
        assert!(!only(&sites).data_dir().exists());
        told
    };
    for (kind, when_gone) in [
        ("pack", ".pack is gone, and a base needs it"),
        ("seg", "of the log, which no segment has"),
    ] {
        let mut objects = files(&archive);
        objects.retain(|path| path.extension().unwrap() == kind);
        let whole: Vec<_> = objects.iter().map(|path| std::fs::read(path).unwrap()).collect();
        for (path, bytes) in objects.iter().zip(&whole) {
            let mut changed = bytes.clone();
            *changed.last_mut().unwrap() ^= 1;
            std::fs::write(path, changed).unwrap();
        }
        let told = refuse();
        assert!(told.contains(&format!(".{kind}: its body was changed: its digest")), "{told}");
        objects.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        let told = refuse();
        assert!(told.contains(when_gone), "{told}");
        objects.iter().zip(whole).for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }
    done(restore_alone(&archive, &sites, &[]));
}
