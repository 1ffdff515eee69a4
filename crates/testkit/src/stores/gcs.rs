//! fake-gcs-server, which speaks Google Cloud Storage's language.

use std::process::Command;

use super::Bucket;
use super::gcs_door::Door;
use super::server::{Ready, Server};
use crate::tool;

/// A running fake-gcs-server. It knows no credentials.
#[derive(Debug)]
pub struct FakeGcs {
    server: Server,
    door: Door,
}

impl FakeGcs {
    /// Starts one.
    pub fn start() -> Self {
        let server = Server::start(Ready::Answers("/storage/v1/b"), |port, _| {
            let mut command = Command::new(tool("fake-gcs-server", "fake-gcs-server"));
            let address = format!("127.0.0.1:{port}");
            command
                .args(["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1"])
                .args(["-port", &port.to_string(), "-public-host", &address])
                .env_clear();
            command
        });
        let door = Door::open(server.address());
        Self { server, door }
    }

    /// Makes a bucket.
    pub fn bucket(&self, name: &str) -> Bucket {
        let body = format!("{{\"name\": \"{name}\"}}");
        let headers = [("Content-Type", "application/json")];
        let made = self.server.ask("POST", "/storage/v1/b?project=x", &headers, &body);
        made.expect("it answers").succeed();
        Bucket {
            scheme: "gs",
            name: name.to_owned(),
            endpoint_url: self.door.url(),
            variables: Vec::new(),
        }
    }
}
