//! One round.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::chance::Chance;
use super::load;
use crate::checkout;
use crate::etcd::{self, Etcd, Site};
use crate::interrupt::Interrupt;

const START_WITHIN: Duration = Duration::from_secs(60);

/// How long a follower may be behind.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(10);

/// Of a save, and of a restore.
const KILLS: u32 = 6;

/// Names enough for the largest cluster.
const NAMES: &[&str] = &["a", "b", "c", "d", "e"];

pub struct Programs {
    pub rekindle: PathBuf,
    pub etcd: PathBuf,
    pub etcdctl: PathBuf,
}

pub struct Round {
    programs: Programs,
    chance: Chance,
    interrupt: Interrupt,
    folder: TempDir,
}

/// What a round did.
pub struct Done {
    from: usize,
    to: usize,
    hash: String,
    killed: u32,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, hash, killed } = self;
        write!(f, "{from} to {to} members, HashKV {hash}, {killed} killed on the way")
    }
}

impl Round {
    pub fn new(programs: Programs, chance: Chance, interrupt: Interrupt) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rekindle-soak-").tempdir()?;
        Ok(Self { programs, chance, interrupt, folder })
    }

    pub fn run(mut self) -> Result<Done> {
        let done = self.play();
        if done.is_err() {
            let kept = self.folder.keep();
            return done.with_context(|| format!("left for a look: {}", kept.display()));
        }
        done
    }

    fn play(&mut self) -> Result<Done> {
        let count = self.chance.one_of(&[1, 3]);
        let sources = Site::find_all(&NAMES[..count])?;
        let servers = self.found(&sources)?;
        self.load(&sources)?;
        let hash = self.hash_of_servers(&sources)?;
        let (saved, mut killed) = self.save(&sources, &hash)?;
        drop(servers);

        let members = Site::find_all(&NAMES[..self.chance.one_of(&[1, 3, 5])])?;
        killed += self.restore(&saved, &members, &hash)?;
        let _servers = self.start(&members, "restored", |_| Vec::new())?;
        let found = self.hash_of_servers(&members)?;
        ensure!(found == hash, "the source's HashKV is {hash}, that of its members {found}");
        let endpoints = endpoints(&members);
        self.etcdctl(&["put", "/soak/after", "yes", "--endpoints", &endpoints], None)?;
        Ok(Done { from: count, to: members.len(), hash, killed })
    }

    /// Starts a new cluster.
    fn found(&self, sites: &[Site]) -> Result<Vec<Etcd>> {
        self.start(sites, "source", |site| etcd::founding_arguments(site, sites))
    }

    /// Starts a server for each site, on a folder of its name, and waits until all answer.
    fn start(
        &self,
        sites: &[Site],
        folder: &str,
        more: impl Fn(&Site) -> Vec<String>,
    ) -> Result<Vec<Etcd>> {
        let mut servers = Vec::new();
        for site in sites {
            let mut words = vec![self.programs.etcd.display().to_string()];
            words.extend(site.arguments(&format!("{folder}/{}", site.name)));
            words.extend(more(site));
            let mut command = etcd::command(&words);
            command.current_dir(self.folder.path());
            let log = self.folder.path().join(format!("{folder}-{}.log", site.name));
            servers.push(Etcd::start(site, command, &log)?);
        }
        for server in &mut servers {
            server.wait_until_healthy(START_WITHIN, &self.interrupt)?;
        }
        Ok(servers)
    }

    fn load(&mut self, sites: &[Site]) -> Result<()> {
        let transactions = 5 + self.chance.below(40);
        let input = self.folder.path().join("changes.txt");
        let endpoints = endpoints(sites);
        for done in 1..=transactions {
            self.interrupt.check()?;
            fs::write(&input, load::transaction(&mut self.chance))?;
            self.etcdctl(&["txn", "--endpoints", &endpoints], Some(&input))?;
            if self.chance.below(20) == 0 {
                let revision = (1 + self.chance.below(done)).to_string();
                // Refused where it is below an earlier one.
                let _ = self.etcdctl(
                    &["compact", &revision, "--physical", "--endpoints", &endpoints],
                    None,
                );
            }
        }
        Ok(())
    }

    /// The file that was saved, and how often a save was killed. Another save of the same target is
    /// killed at a random moment each time: the target must be absent or complete.
    fn save(&mut self, sites: &[Site], hash: &str) -> Result<(String, u32)> {
        let endpoints = endpoints(sites);
        let save = |target| ["save", target, "--endpoints", endpoints.as_str()];
        let began = Instant::now();
        self.rekindle(&save("saved.db"))?;
        let took = began.elapsed();
        let mut killed = 0;
        for _ in 0..KILLS {
            killed += u32::from(self.kill(&save("killed.db"), took)?);
            if self.folder.path().join("killed.db").exists() {
                self.rekindle(&["status", "killed.db", "--verify-hash"])?;
                self.check_hash("killed.db", hash)?;
            }
        }
        self.check_hash("saved.db", hash)?;
        Ok(("saved.db".to_owned(), killed))
    }

    /// The same for a restore, and at last one that is left alone.
    fn restore(&mut self, saved: &str, members: &[Site], hash: &str) -> Result<u32> {
        let cluster = etcd::initial_cluster(members);
        let restore = |target| {
            ["restore", saved, "--members", target, "--initial-cluster", &cluster, "--yes"]
        };
        let began = Instant::now();
        self.rekindle(&restore("timed"))?;
        let took = began.elapsed();
        let mut killed = 0;
        for _ in 0..KILLS {
            wait_for_another_second()?;
            killed += u32::from(self.kill(&restore("restored"), took)?);
            self.end_half_done(members)?;
            for site in members {
                let member = format!("restored/{}", site.name);
                if self.folder.path().join(&member).exists() {
                    self.check_hash(&member, hash)?;
                }
            }
        }
        wait_for_another_second()?;
        self.rekindle(&restore("restored"))?;
        Ok(killed)
    }

    /// What was killed while it exchanged directories refuses another restore until it is brought to
    /// an end, one way or the other.
    fn end_half_done(&mut self, members: &[Site]) -> Result<()> {
        for site in members {
            let member = format!("restored/{}", site.name);
            let journal = self.folder.path().join(format!("{member}.restore.json"));
            if fs::read_to_string(journal).is_ok_and(|text| text.contains("\"swapping\"")) {
                let way = self.chance.one_of(&["--resume", "--rollback"]);
                self.rekindle(&["restore", way, "--data-dir", &member, "--yes"])?;
            }
        }
        Ok(())
    }

    /// Runs rekindle and kills it within about as much time as it takes. True: it was killed; what
    /// ended before must have gone well.
    fn kill(&mut self, words: &[&str], took: Duration) -> Result<bool> {
        self.interrupt.check()?;
        let mut command = self.command(&self.programs.rekindle, words);
        let path = self.folder.path().join("killed.log");
        let mut child = command.stdout(Stdio::null()).stderr(File::create(&path)?).spawn()?;
        let micros = took.as_micros() as u64;
        thread::sleep(Duration::from_micros(self.chance.below(micros + micros / 5 + 1)));
        child.kill()?;
        let status = child.wait()?;
        let killed = status.signal().is_some();
        if !killed && !status.success() {
            let said = fs::read_to_string(path)?;
            bail!("`{}` failed ({status}):\n{}", checkout::show(&command), said.trim_end());
        }
        Ok(killed)
    }

    fn check_hash(&self, source: &str, expected: &str) -> Result<()> {
        let found = self.rekindle(&["hashkv", source, "-w", "simple"])?;
        let found = found.split(", ").next().unwrap_or_default();
        ensure!(found == expected, "{source}: HashKV is {found}, that of the cluster {expected}");
        Ok(())
    }

    /// The HashKV on which all must agree once they have caught up.
    fn hash_of_servers(&self, sites: &[Site]) -> Result<String> {
        let deadline = Instant::now() + CATCH_UP_WITHIN;
        loop {
            self.interrupt.check()?;
            let endpoints = endpoints(sites);
            let answer = self.etcdctl(&["endpoint", "hashkv", "--endpoints", &endpoints], None)?;
            match common_hash(&answer) {
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("servers differ:\n{answer}"));
                }
                Err(_) => thread::sleep(Duration::from_millis(10)),
                found => return found,
            }
        }
    }

    fn rekindle(&self, words: &[&str]) -> Result<String> {
        let mut command = self.command(&self.programs.rekindle, words);
        Ok(String::from_utf8(checkout::run_quietly(&mut command)?.stdout)?.trim().to_owned())
    }

    fn etcdctl(&self, words: &[&str], input: Option<&Path>) -> Result<String> {
        let mut command = self.command(&self.programs.etcdctl, words);
        if let Some(input) = input {
            command.stdin(File::open(input)?);
        }
        Ok(String::from_utf8(checkout::run_quietly(&mut command)?.stdout)?.trim().to_owned())
    }

    fn command(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = etcd::command(&[program]);
        command.args(words).current_dir(self.folder.path());
        command
    }
}

/// A restore names what it sets aside after the second, and refuses a name that is taken.
fn wait_for_another_second() -> Result<()> {
    let second = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|d| d.as_secs());
    let now = second()?;
    while second()? == now {
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn endpoints(sites: &[Site]) -> String {
    sites.iter().map(Site::endpoint).collect::<Vec<_>>().join(",")
}

/// The hash in `ENDPOINT, HASH, REVISION` lines, where all are the same after the endpoint. The
/// revision is 0 before etcd 3.6.
fn common_hash(answer: &str) -> Result<String> {
    let mut answers = answer.lines().map(|line| line.split_once(", ").map(|(_, rest)| rest));
    let first = answers.next().flatten().context("no answer")?;
    ensure!(answers.all(|rest| rest == Some(first)), "not the same in each line");
    Ok(first.split(", ").next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_must_agree_on_a_hash() {
        assert_eq!(common_hash("a:1, 34, 7\nb:2, 34, 7\n").unwrap(), "34");
        assert!(common_hash("a:1, 34, 7\nb:2, 35, 7\n").is_err());
        assert!(common_hash("a:1, 34, 7\nb:2\n").is_err());
        assert!(common_hash("").is_err());
    }
}
