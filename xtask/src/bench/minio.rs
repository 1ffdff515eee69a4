//! MinIO, for archives in a store that speaks S3, with the requests that it has answered.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::etcd::{self, Site};
use crate::interrupt::Interrupt;
use crate::{checkout, tools};

const START_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at whether it answers.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

const USER: &str = "bench-user";
const SECRET: &str = "bench-secret";
const BUCKET: &str = "bench";

/// A running MinIO, on this machine.
pub struct Minio {
    child: Child,
    site: Site,
    drive: PathBuf,
}

impl Minio {
    /// Starts one that keeps its objects in a new folder.
    pub fn start(folder: &Path, interrupt: &Interrupt) -> Result<Self> {
        let program = tools::folder("minio")?.join("minio");
        let [site] = Site::find(["minio"])?;
        let drive = folder.join("drive");
        // A folder of its drive is a bucket.
        fs::create_dir_all(drive.join(BUCKET))?;
        let log = File::create(folder.join("log"))?;
        let drive_text = drive.display().to_string();
        let endpoint = site.endpoint();
        let words = ["server", "--quiet", "--address", &endpoint, &drive_text];
        let mut command = etcd::command(&[&[&*program.display().to_string()], &words[..]].concat());
        command
            .env_clear()
            .env("HOME", folder)
            .env("MINIO_ROOT_USER", USER)
            .env("MINIO_ROOT_PASSWORD", SECRET)
            .env("MINIO_BROWSER", "off")
            .env("MINIO_UPDATE", "off")
            .env("MINIO_CI_CD", "1")
            .env("MINIO_PROMETHEUS_AUTH_TYPE", "public")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().with_context(|| checkout::missing(&command))?;
        let mut minio = Self { child, site, drive };
        minio.wait_until_ready(interrupt)?;
        Ok(minio)
    }

    fn wait_until_ready(&mut self, interrupt: &Interrupt) -> Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        let is_ready = |minio: &Self| {
            let answer = etcd::get(&minio.site.endpoint(), "/minio/health/ready");
            answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
        };
        while !is_ready(self) {
            interrupt.check()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("MinIO ended ({status})");
            }
            if Instant::now() > deadline {
                bail!("MinIO is silent for {} s", START_WITHIN.as_secs());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// A place in it.
    pub fn place(&self) -> String {
        format!("s3://{BUCKET}/archive")
    }

    /// What each command about that place needs.
    pub fn options(&self) -> Vec<String> {
        vec!["--endpoint-url".to_owned(), format!("http://{}", self.site.endpoint())]
    }

    /// All of the environment that commands see.
    pub fn variables(&self) -> Vec<String> {
        vec![
            format!("AWS_ACCESS_KEY_ID={USER}"),
            format!("AWS_SECRET_ACCESS_KEY={SECRET}"),
            "AWS_REGION=us-east-1".to_owned(),
        ]
    }

    /// Where its objects lie.
    pub fn drive(&self) -> PathBuf {
        self.drive.clone()
    }

    /// Requests of S3 that it has answered since its start. It tells them late.
    pub fn requests_at_rest(&self) -> Result<u64> {
        thread::sleep(METRICS_LATE);
        Ok(requests(&etcd::get(&self.site.endpoint(), METRICS)?))
    }
}

/// MinIO keeps its metrics for so long before it counts again.
const METRICS_LATE: Duration = Duration::from_secs(11);
const METRICS: &str = "/minio/v2/metrics/cluster";

/// The sum of what the metrics say of each sort of request.
fn requests(metrics: &str) -> u64 {
    let of_line = |line: &str| -> Option<f64> {
        line.strip_prefix("minio_s3_requests_total{")?.rsplit(' ').next()?.parse().ok()
    };
    metrics.lines().filter_map(of_line).sum::<f64>() as u64
}

impl Drop for Minio {
    fn drop(&mut self) {
        // It fails only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_summed() {
        let metrics = "# HELP minio_s3_requests_total Total number\n\
                       minio_s3_requests_total{api=\"getobject\",server=\"a\"} 41\n\
                       minio_s3_requests_total{api=\"listobjectsv2\",server=\"a\"} 1\n\
                       minio_s3_requests_rejected_total{server=\"a\"} 7\n";
        assert_eq!(requests(metrics), 42);
    }
}
