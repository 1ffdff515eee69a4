//! MinIO, which speaks S3.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::Bucket;
use super::server::{Ready, Server};
use crate::certs::CertFiles;
use crate::tool;

/// Its user, and that user's secret; both are easily found where they should not be.
const USER: &str = "canary-minio-user";
const SECRET: &str = "canary-minio-secret";

/// A running MinIO.
#[derive(Debug)]
pub struct Minio {
    server: Server,
    scheme: &'static str,
}

impl Minio {
    /// Starts one that speaks plain HTTP.
    pub fn start() -> Self {
        let server = Server::start(Ready::Answers("/minio/health/cluster"), command);
        Self { server, scheme: "http" }
    }

    /// Starts one that speaks TLS with this certificate.
    pub fn start_tls(files: &CertFiles) -> Self {
        let server = Server::start(Ready::Connects, |port, dir| {
            let certs = dir.join("certs");
            fs::create_dir_all(&certs).expect("a directory");
            fs::copy(&files.cert, certs.join("public.crt")).expect("a certificate of ours");
            fs::copy(&files.key, certs.join("private.key")).expect("a key of ours");
            let mut command = command(port, dir);
            command.arg("--certs-dir").arg(certs);
            command
        });
        Self { server, scheme: "https" }
    }

    /// Stops its execution: connections stay open and nothing answers, until [`Self::thaw`].
    pub fn freeze(&self) {
        self.server.signal(Signal::STOP);
    }

    /// Lets it go on after [`Self::freeze`].
    pub fn thaw(&self) {
        self.server.signal(Signal::CONT);
    }

    /// Makes a bucket.
    pub fn bucket(&self, name: &str) -> Bucket {
        // A directory of its drive is a bucket.
        fs::create_dir_all(self.server.dir().join("drive").join(name)).expect("a bucket");
        self.unmade_bucket(name)
    }

    /// A bucket that is to be made, by a request for a special one.
    pub fn unmade_bucket(&self, name: &str) -> Bucket {
        let variables = [
            ("AWS_ACCESS_KEY_ID", USER),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            // Nothing but this is to be found in the environment.
            ("AWS_REGION", "us-east-1"),
        ];
        Bucket {
            scheme: "s3",
            name: name.to_owned(),
            endpoint_url: format!("{}://{}", self.scheme, self.server.address()),
            variables: variables.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
        }
    }

    /// Objects of a bucket whose names end so, as the directories in which MinIO keeps them.
    pub fn folders(&self, bucket: &str, end: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.server.dir().join("drive").join(bucket)];
        while let Some(folder) = folders.pop() {
            if folder.to_string_lossy().ends_with(end) {
                found.push(folder);
                continue;
            }
            let below = fs::read_dir(&folder).expect("a directory").flatten();
            folders.extend(below.map(|it| it.path()).filter(|path| path.is_dir()));
        }
        found
    }

    /// What is in a bucket, uploads that were never completed included, by MinIO's own files.
    pub fn unfinished_uploads(&self) -> usize {
        let folder = self.server.dir().join("drive/.minio.sys/multipart");
        fs::read_dir(folder).map_or(0, Iterator::count)
    }
}

fn command(port: u16, dir: &Path) -> Command {
    let drive = dir.join("drive");
    fs::create_dir_all(&drive).expect("a directory");
    let mut command = Command::new(tool("minio", "minio"));
    command
        .args(["server", "--quiet", "--address", &format!("127.0.0.1:{port}")])
        .arg(drive)
        .env_clear()
        .env("MINIO_ROOT_USER", USER)
        .env("MINIO_ROOT_PASSWORD", SECRET)
        // No console, no look for a newer one, and a drive on the root disk.
        .env("MINIO_BROWSER", "off")
        .env("MINIO_UPDATE", "off")
        .env("MINIO_CI_CD", "1");
    command
}
