//! Azurite, which speaks Azure Blob Storage's language.

use std::env;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::Bucket;
use super::server::{Ready, Server};
use crate::tool;

/// Its account, and the account's key in base64.
const ACCOUNT: &str = "canaryaccount";
const KEY: &str = "Y2FuYXJ5LWF6dXJpdGUta2V5LXdpdGgtMzItYnl0ZXM=";
/// The version of the protocol that containers are made with.
const VERSION: &str = "2021-12-02";

/// A running Azurite.
#[derive(Debug)]
pub struct Azurite {
    server: Server,
}

impl Azurite {
    /// Starts one.
    pub fn start() -> Self {
        let server = Server::start(Ready::Answers("/"), |port, dir| {
            let mut command = Command::new(tool("azurite", "azurite-blob"));
            command
                .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
                .args(["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location"])
                .arg(dir.join("blobs"))
                .env_clear()
                // It is a script for node.
                .env("PATH", env::var_os("PATH").unwrap_or_default())
                .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"));
            command
        });
        Self { server }
    }

    /// Makes a container.
    pub fn container(&self, name: &str) -> Bucket {
        let path = format!("/{ACCOUNT}/{name}");
        // Its own clock, in the form that it wants.
        let now = self.server.ask("GET", "/", &[], "").expect("it answers");
        let now = now.header("Date").expect("a date").to_owned();
        let signed = format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{now}\nx-ms-version:{VERSION}\n/{ACCOUNT}{path}\n\
             restype:container"
        );
        let key = STANDARD.decode(KEY).expect("base64");
        let signature = STANDARD.encode(hmac(&key, signed.as_bytes()));
        let authorization = format!("SharedKey {ACCOUNT}:{signature}");
        let headers = [
            ("x-ms-date", now.as_str()),
            ("x-ms-version", VERSION),
            ("Authorization", authorization.as_str()),
        ];
        let path = format!("{path}?restype=container");
        self.server.ask("PUT", &path, &headers, "").expect("it answers").succeed();
        let variables = [("AZURE_STORAGE_ACCOUNT", ACCOUNT), ("AZURE_STORAGE_KEY", KEY)];
        Bucket {
            scheme: "az",
            name: name.to_owned(),
            endpoint_url: format!("http://{}/{ACCOUNT}", self.server.address()),
            variables: variables.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
        }
    }
}

/// HMAC with SHA-256 (RFC 2104), for keys of at most one block.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 64;
    let pad = |with: u8| {
        let mut block = [with; BLOCK];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second case of RFC 4231.
    #[test]
    fn hmac_is_that_of_the_rfc() {
        let got = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(got[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        assert_eq!(got[28..], [0x64, 0xec, 0x38, 0x43]);
    }
}
