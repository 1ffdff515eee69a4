//! What a log has committed and its database has not: applied by an etcd that is started once, on a copy.

use super::local::log_directory_in;
use crate::args::ConnectArgs;
use crate::connect::connect;
use crate::failure::{Code, Failure};
use crate::terminal::{self, Calls};
use rekindle_agent::child::end_with_parent;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long it may take to apply them, and to end.
const SERVES_WITHIN: Duration = Duration::from_secs(300);
const ENDS_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A copy of a data directory whose database has all that its log had committed.
pub(crate) struct Replayed {
    _directory: TempDir,
    pub database: PathBuf,
}

struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Copies `data` beside itself, and has `etcd` apply what is in its log.
pub(crate) fn replay(data: &Path, wal: Option<&Path>, etcd: &Path) -> Result<Replayed, Failure> {
    let parent = data.parent().unwrap_or(Path::new("/"));
    let directory = tempfile::Builder::new().prefix("rekindle-replay-").tempdir_in(parent);
    let directory =
        directory.map_err(|error| Failure::io("making a directory in", parent, &error))?;
    let member = if data.join("member").is_dir() { data.join("member") } else { data.to_owned() };
    let copy = directory.path().join("data");
    copy_files(&member.join("snap"), &copy.join("member/snap"))?;
    copy_files(
        &wal.map_or_else(|| log_directory_in(&member), Path::to_owned),
        &copy.join("member/wal"),
    )?;
    let mut running = start(etcd, &copy, directory.path())?;
    let [client, _] = running.1;
    wait_until_it_serves(&mut running.0, client, directory.path())?;
    end(&mut running.0)?;
    Ok(Replayed { database: copy.join("member/snap/db"), _directory: directory })
}

fn copy_files(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(to).map_err(|error| Failure::io("making", to, &error))?;
    let entries = std::fs::read_dir(from).map_err(|error| Failure::io("listing", from, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| Failure::io("listing", from, &error))?.path();
        if path.is_file()
            && let Some(name) = path.file_name()
        {
            std::fs::copy(&path, to.join(name))
                .map_err(|error| Failure::io("copying", &path, &error))?;
        }
    }
    Ok(())
}

fn free_port() -> Result<u16, Failure> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = port.map(|address| address.port());
    port.map_err(|error| Failure::new(Code::Failed, format!("looking for a free port: {error}")))
}

fn start(etcd: &Path, data: &Path, directory: &Path) -> Result<(Etcd, [u16; 2]), Failure> {
    let ports = [free_port()?, free_port()?];
    let [client, peer] = ports.map(|port| format!("http://127.0.0.1:{port}"));
    let path = directory.join("log");
    let log = File::create(&path).map_err(|error| Failure::io("creating", &path, &error))?;
    let mut command = end_with_parent(etcd);
    // It would find ours in it, and end.
    command.env_clear();
    command.args(["--name=replay", "--force-new-cluster", "--data-dir"]).arg(data);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("replay={peer}")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let child = command.spawn().map_err(|error| Failure::io("starting", etcd, &error))?;
    Ok((Etcd(child), ports))
}

fn wait_until_it_serves(etcd: &mut Etcd, port: u16, directory: &Path) -> Result<(), Failure> {
    let calls = Calls::new(terminal::stop_flag()?)?;
    let endpoints = Some(format!("http://127.0.0.1:{port}"));
    let client = connect(&ConnectArgs { endpoints, ..ConnectArgs::default() })?.client;
    let until = Instant::now() + SERVES_WITHIN;
    loop {
        let asked = calls.wait(async { Ok::<_, Failure>(client.linearizable_revision().await) })?;
        match asked {
            Ok(_) => return Ok(()),
            // It has users, and serves.
            Err(error) if !error.is_transient() => return Ok(()),
            Err(_) => {}
        }
        if let Ok(Some(status)) = etcd.0.try_wait() {
            let said = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
            let last = said.lines().last().unwrap_or_default().to_owned();
            return Err(Failure::new(Code::Failed, format!("etcd did not start on a copy ({status}): {last}"))
                .remedy("--etcd names one of the cluster's version; without one its database is taken as it is"));
        }
        if Instant::now() >= until {
            return Err(Failure::new(Code::Failed, "etcd does not serve on a copy"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// As it should be ended: it writes what it has applied.
fn end(etcd: &mut Etcd) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::new(Code::Failed, format!("ending etcd: {error}"));
    let pid = i32::try_from(etcd.0.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let told = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        told.map_err(|error| failed(error.into()))?;
    }
    let until = Instant::now() + ENDS_WITHIN;
    while etcd.0.try_wait().map_err(failed)?.is_none() {
        if Instant::now() >= until {
            return Err(Failure::new(Code::Failed, "etcd does not end on a copy"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
