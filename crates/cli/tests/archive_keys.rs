//! Keys of an archive as they are typed: owners from files, identities from the environment.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use tempfile::TempDir;

/// A directory to work in.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn rekindle(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        let envs = env.iter().copied();
        command.current_dir(self.0.path()).env_clear().envs(envs).args(args).output().unwrap()
    }

    /// What it printed, and what it complained of; it must have ended with this code.
    #[track_caller]
    fn run(&self, code: i32, args: &[&str], env: &[(&str, &str)]) -> (String, String) {
        let Output { status, stdout, stderr } = self.rekindle(args, env);
        let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
        assert_eq!(status.code(), Some(code), "{args:?}: {stdout}{stderr}");
        assert!(!format!("{stdout}{stderr}").contains("AGE-SECRET"), "a secret was shown");
        (stdout, stderr)
    }

    /// A new owner's identity file of that name, and the public key.
    fn owner(&self, name: &str) -> String {
        let archive = format!("{name}-archive");
        self.run(0, &["archive", "init", &archive, "--generate-keys", name], &[]);
        let text = fs::read_to_string(self.path(name)).unwrap();
        let public = text.split_whitespace().find(|word| word.starts_with("age1"));
        public.unwrap().to_owned()
    }
}

#[test]
fn owners_come_from_a_file_and_are_named() {
    let desk = Desk::new();
    let (one, other) = (desk.owner("one.txt"), desk.owner("other.txt"));
    let list = format!("# who may read\n{one}\n\n{other}\n{one}\n");
    fs::write(desk.path("owners"), list).unwrap();
    let (told, warned) = desk.run(0, &["archive", "init", "a", "--recipients-file", "owners"], &[]);
    assert!(told.contains(&one) && told.contains(&other), "{told}");
    assert!(!warned.contains("one owner only"), "{warned}");
    let listed = desk.run(0, &["archive", "list", "a", "-w=json"], &[]).0;
    assert!(listed.contains("\"encrypted\":true"), "{listed}");

    fs::write(desk.path("one-owner"), &one).unwrap();
    let (_, warned) = desk.run(0, &["archive", "init", "b", "--recipients-file", "one-owner"], &[]);
    assert!(warned.contains("one owner only"), "{warned}");
    fs::write(desk.path("bad"), "age1nonsense\n").unwrap();
    let (_, told) = desk.run(2, &["archive", "init", "c", "--recipients-file", "bad"], &[]);
    assert!(told.contains("bad"), "{told}");
    assert!(!desk.path("c").exists(), "nothing was made");
    desk.run(2, &["archive", "init", "c"], &[]);
    desk.run(2, &["archive", "init", "c", "--unencrypted", "--recipient", &one], &[]);
}

/// A generated identity is for its owner's eyes, and none is written over another.
#[test]
fn a_generated_identity_is_kept_from_others() {
    let desk = Desk::new();
    desk.owner("one.txt");
    let mode = fs::metadata(desk.path("one.txt")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(desk.path("one.txt")).unwrap();
    let again = ["archive", "init", "again", "--generate-keys", "one.txt"];
    let (_, told) = desk.run(4, &again, &[]);
    assert!(told.contains("one.txt"), "{told}");
    assert_eq!(fs::read(desk.path("one.txt")).unwrap(), before);
}

#[test]
fn identities_come_from_the_environment() {
    let desk = Desk::new();
    let (one, other) = (desk.owner("one.txt"), desk.owner("other.txt"));
    desk.run(0, &["archive", "init", "a", "--recipient", &one], &[]);
    let add = ["archive", "rekey", "a", "--add", &other, "--yes"];
    let (_, told) = desk.run(2, &add, &[]);
    assert!(told.contains("REKINDLE_IDENTITY"), "{told}");
    let (_, told) = desk.run(4, &add, &[("REKINDLE_IDENTITY", "other.txt")]);
    assert!(told.contains("none of the identities given"), "{told}");
    // The first of them is none of its owners'.
    let both = [("REKINDLE_IDENTITY", "other.txt:one.txt")];
    let (plan, warned) = desk.run(0, &[&add[..4], &[&other, "--dry-run"]].concat(), &both);
    assert!(plan.contains("Plan of the new keys") && !warned.contains("one owner"), "{plan}");
    let (_, told) = desk.run(4, &["archive", "rekey", "a", "--add", &other], &both);
    assert!(told.contains("--yes"), "{told}");
    desk.run(0, &add, &both);
    // Now the other one opens it, too.
    let remove = ["archive", "rekey", "a", "--remove", &one, "--yes", "--identity", "other.txt"];
    let (told, warned) = desk.run(0, &remove, &[]);
    assert!(told.contains("This does not take back what was readable"), "{told}");
    assert!(warned.contains("one owner only"), "{warned}");
    fs::set_permissions(desk.path("one.txt"), fs::Permissions::from_mode(0o644)).unwrap();
    let (_, told) = desk.run(4, &add, &[("REKINDLE_IDENTITY", "one.txt")]);
    assert!(told.contains("one.txt"), "{told}");
}
