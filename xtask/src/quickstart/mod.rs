//! The whole story in one command: a cluster, its snapshot, an archive that follows it, a mistake, and
//! three members of the moment before.
//!
//! Every command that it shows is run as shown, and every line below one is of its output. What does
//! not come out as it must ends the story with an error. No server outlives it.

mod load;
mod shell;

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lexopt::Parser;

use crate::background::Background;
use crate::etcd::{self, Etcd, Site};
use crate::interrupt::Interrupt;
use crate::{Command, checkout, tools};
use shell::Shell;

pub const COMMAND: Command = Command {
    name: "quickstart",
    summary: "Start an etcd, follow it, delete by mistake, restore the moment before, and compare",
    help: "
Usage: cargo xtask quickstart

Builds rekindle, gets etcd 3.6 where it is not there yet (`cargo xtask tools etcd-3.6`), and runs
the whole way on this machine, showing each command: load an etcd, save it to a file, follow it into an
archive, delete a part of it by mistake, restore the moment before as three members, start them, and
compare HashKV. It works in a temporary folder and on free ports of 127.0.0.1; when it ends, nothing
of it is left.",
    run,
};

/// The pin whose servers the story is told with.
const ETCD: &str = "etcd-3.6";

/// How long a server may take until it answers.
const START_WITHIN: Duration = Duration::from_secs(60);

/// A day: none runs out while the story is told.
const LEASE_SECONDS: u32 = 86_400;
const LEASES: usize = 3;

/// The name of the first cluster's one member, and of its data directory.
const SOURCE: &str = "source";

/// The revision up to which the history is forgotten.
const COMPACT_AT: u32 = 35;

fn run(mut args: Parser) -> Result<ExitCode> {
    if let Some(arg) = args.next()? {
        return Err(arg.unexpected().into());
    }
    let interrupt = Interrupt::listen()?;
    let rekindle = checkout::build_rekindle()?;
    let etcd = tools::folder(ETCD)?;
    interrupt.check()?;
    let folder = tempfile::Builder::new().prefix("rekindle-quickstart-").tempdir()?;
    let programs = [etcd.as_path(), rekindle.parent().context("the binary is in a folder")?];
    let shell = Shell::new(folder.path().to_path_buf(), &programs)?;
    let rekindle = rekindle.strip_prefix(checkout::root()).unwrap_or(&rekindle);
    let rekindle = rekindle.display().to_string();
    Story { shell, interrupt, rekindle, servers: Vec::new() }.tell()?;
    Ok(ExitCode::SUCCESS)
}

struct Story {
    shell: Shell,
    interrupt: Interrupt,
    /// Where the binary is, from the top of the checkout.
    rekindle: String,
    servers: Vec<Etcd>,
}

impl Story {
    fn tell(mut self) -> Result<()> {
        let [source] = Site::find([SOURCE])?;
        self.load(&source)?;
        self.save()?;
        let (revision, hash) = self.follow()?;
        let members = Site::find(["a", "b", "c"])?;
        self.restore(&revision, &members)?;
        self.compare(&revision, &hash, &members)?;
        drop(self.servers);
        println!("All of that is ended and gone. What next: {} save --help", self.rekindle);
        Ok(())
    }

    /// An etcd with keys, leases, deletes and a compacted history.
    fn load(&mut self, source: &Site) -> Result<()> {
        println!("1. A cluster with something to lose: {} keys, some leased.", load::keys());
        self.start(source)?;
        self.wait()?;
        self.shell.export("ETCDCTL_ENDPOINTS", source.endpoint());
        let grant = format!("etcdctl lease grant {LEASE_SECONDS}");
        let leases: Vec<String> = (0..LEASES)
            .map(|_| lease_id(&self.shell.run_unseen(&grant, None)?))
            .collect::<Result<_>>()?;
        shell::show(&format!("{grant}   # {LEASES} times"));
        let transactions = load::transactions(&leases);
        shell::show(&format!("etcdctl txn < changes.txt   # {} times", transactions.len()));
        for transaction in transactions {
            self.interrupt.check()?;
            fs::write(self.shell.folder().join("changes.txt"), transaction)?;
            self.shell.run_unseen("etcdctl txn", Some("changes.txt"))?;
        }
        self.shell.run(&format!("etcdctl compact {COMPACT_AT} --physical"))?;
        Ok(())
    }

    fn save(&self) -> Result<()> {
        self.interrupt.check()?;
        println!(
            "2. Save it to a file, and prove that it is whole (hash, revision, compacted at)."
        );
        let keys = |output: &str| Ok(format!("keys: {}", field(output, "keys")?));
        let saved = self.shell.run_for("rekindle save backup.db", keys)?;
        let expected = format!("keys: {} in ", load::keys());
        ensure!(saved.replace(',', "").starts_with(&expected), "not {} keys", load::keys());
        let sound = |output: &str| field(output, "checker");
        let checked = self.shell.run_for("rekindle status backup.db", sound)?;
        ensure!(checked.starts_with("sound: "), "the snapshot is not sound");
        let hash = self.shell.run_for("rekindle hashkv backup.db -w simple", all)?;
        let answer = self.shell.run_for("etcdctl endpoint hashkv", all)?;
        check_hashes(&hash, &answer, 1)?;
        Ok(())
    }

    /// Returns the last revision before the mistake, and its HashKV as the source sees it.
    fn follow(&self) -> Result<(String, String)> {
        self.interrupt.check()?;
        println!("3. Follow it into an archive, and make a mistake.");
        let id = |output: &str| field(output, "id");
        self.shell.run_for("rekindle archive init --unencrypted archive", id)?;
        let capture = "rekindle capture --archive archive --spool spool --flush-interval 1s";
        shell::show(&format!("{capture} &"));
        let words: Vec<&str> = capture.split_whitespace().collect();
        let log = self.shell.folder().join("capture.log");
        let mut capturing = Background::start(self.shell.command(&words), &log)?;
        tell(&capturing.wait_for("base of revision", &self.interrupt)?);
        capturing.wait_for("writing into", &self.interrupt)?;
        self.shell.run("etcdctl put /shop/order/today the-last-one")?;
        let last = |output: &str| revision_of(output);
        let revision = self.shell.run_for("etcdctl get /shop/order/today -w fields", last)?;
        let at = format!("etcdctl endpoint hashkv --rev {revision}");
        let hash = self.shell.run_for(&at, all)?;
        let gone = |output: &str| Ok(format!("{} orders gone", output.trim()));
        self.shell.run_for("etcdctl del --prefix /shop/order/", gone)?;
        shell::show(&format!("kill -INT {}", capturing.pid()));
        tell(&capturing.stop()?);
        Ok((revision, hash))
    }

    fn restore(&mut self, revision: &str, members: &[Site; 3]) -> Result<()> {
        self.interrupt.check()?;
        println!("4. Restore the moment before as three members from one read, and start them.");
        let cluster = etcd::initial_cluster(members);
        let restored = self.shell.run(&format!(
            "rekindle restore archive --to-revision {revision} --members cluster --initial-cluster \
             {cluster}"
        ))?;
        tell(&format!("restored {}", field(&restored, "restored")?));
        let began = Instant::now();
        let [a, b, c] = members;
        self.start(a)?;
        self.start_unseen(b)?;
        self.start_unseen(c)?;
        self.wait()?;
        let took = began.elapsed().as_secs_f64();
        println!("     {} and {} likewise; all three answer after {took:.1} s", b.name, c.name);
        Ok(())
    }

    fn compare(&mut self, revision: &str, hash: &str, members: &[Site; 3]) -> Result<()> {
        self.interrupt.check()?;
        println!("5. Every member has the HashKV of then (hash, revision), and they take writes.");
        let endpoints = members.each_ref().map(Site::endpoint).join(",");
        self.shell.export("ETCDCTL_ENDPOINTS", endpoints);
        let answers = self.shell.run(&format!("etcdctl endpoint hashkv --rev {revision}"))?;
        answers.lines().for_each(tell);
        let (_, hash) = hash.split_once(", ").context("an endpoint, a hash and a revision")?;
        check_hashes(&format!("{hash}, -1"), &answers, members.len())?;
        let orders = "etcdctl get --prefix /shop/order/ --count-only -w fields";
        let counted = |output: &str| {
            let count = output.lines().find_map(|line| line.strip_prefix("\"Count\" : "));
            Ok(format!("{} orders", count.context("no count")?))
        };
        let orders = self.shell.run_for(orders, counted)?;
        ensure!(orders == format!("{} orders", load::orders() + 1), "orders are missing: {orders}");
        let leases = self.shell.run_unseen("etcdctl lease list", None)?;
        ensure!(leases.starts_with(&format!("found {LEASES} leases")), "lost leases: {leases}");
        let put = self.shell.run_for("etcdctl put /shop/open yes", all)?;
        ensure!(put == "OK", "the new cluster does not take a write: {put}");
        Ok(())
    }

    /// Shows how a server is started on a data directory, and starts it.
    fn start(&mut self, site: &Site) -> Result<()> {
        let words = serve(site);
        shell::show(&format!("{} &", words.join(" ")));
        self.start_unseen(site)
    }

    fn start_unseen(&mut self, site: &Site) -> Result<()> {
        let log = self.shell.folder().join(format!("{}.log", site.name));
        self.servers.push(Etcd::start(site, self.shell.command(&serve(site)), &log)?);
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        let Self { servers, interrupt, .. } = self;
        servers.iter_mut().try_for_each(|etcd| etcd.wait_until_healthy(START_WITHIN, interrupt))
    }
}

/// The command that serves a site, from its folder under `cluster`, or the source's own.
fn serve(site: &Site) -> Vec<String> {
    let data_dir = match site.name.as_str() {
        SOURCE => SOURCE.to_owned(),
        member => format!("cluster/{member}"),
    };
    let mut words = vec!["etcd".to_owned()];
    words.extend(site.arguments(&data_dir));
    words
}

fn tell(line: &str) {
    println!("     {line}");
}

/// What an output of one line says.
fn all(output: &str) -> Result<String> {
    Ok(output.trim().to_owned())
}

/// What follows the word in the line that begins with it.
fn field(output: &str, word: &str) -> Result<String> {
    let mut values = output.lines().filter_map(|line| line.trim_start().strip_prefix(word));
    let value = values.find(|value| value.starts_with(' '));
    Ok(value.with_context(|| format!("nothing about `{word}` in:\n{output}"))?.trim().to_owned())
}

/// `"Revision" : 57`
fn revision_of(fields: &str) -> Result<String> {
    let found = fields.lines().find_map(|line| line.strip_prefix("\"Revision\" : "));
    Ok(found.with_context(|| format!("no revision in:\n{fields}"))?.to_owned())
}

/// `lease 390da1fdf30fc103 granted with TTL(3600s)`
fn lease_id(granted: &str) -> Result<String> {
    let id = granted.split_whitespace().nth(1);
    Ok(id.with_context(|| format!("no lease id in `{granted}`"))?.to_owned())
}

/// Fails unless as many servers as that answered, all with the hash and the revision of the snapshot:
/// `HASH, REVISION, COMPACTED` against `ENDPOINT, HASH, REVISION` lines.
fn check_hashes(snapshot: &str, answers: &str, servers: usize) -> Result<()> {
    let (wanted, _) = snapshot.trim().rsplit_once(", ").context("a hash and two revisions")?;
    let equal = answers
        .lines()
        .filter(|line| line.split_once(", ").is_some_and(|(_, found)| found.trim() == wanted));
    let equal = equal.count();
    ensure!(equal == servers, "{equal} of {servers} servers have {wanted}:\n{answers}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_differing_hash_is_found() {
        let check = |answers| check_hashes("34, 7, 2\n", answers, 2).is_ok();
        assert!(check("a:1, 34, 7\nb:2, 34, 7\n"));
        assert!(!check("a:1, 34, 7\nb:2, 35, 7\n"));
        assert!(!check("a:1, 34, 7\nb:2, 34, 8\n"));
        assert!(!check("a:1, 34, 7\n"));
        assert!(!check(""));
    }

    #[test]
    fn a_field_is_the_rest_of_its_line() {
        let output = "saved     x\nkeys      1,012 in 2,000 records\n";
        assert_eq!(field(output, "keys").unwrap(), "1,012 in 2,000 records");
        assert!(field(output, "key").is_err());
        assert!(field(output, "checker").is_err());
    }

    #[test]
    fn the_id_of_a_lease_is_read() {
        assert_eq!(lease_id("lease 390d granted with TTL(3600s)\n").unwrap(), "390d");
        assert!(lease_id("").is_err());
    }
}
