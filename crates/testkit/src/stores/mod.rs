//! Real object stores on loopback ports: MinIO, fake-gcs-server, Azurite.
//!
//! Each runs in a temporary directory of its own and ends when it is dropped; when a test fails, its
//! log is printed. [`Bucket`] says how `rekindle` reaches what is in it.
//!
//! ```no_run
//! use rekindle_testkit::stores::Minio;
//!
//! let minio = Minio::start();
//! let bucket = minio.bucket("backups");
//! println!("{} with {:?}", bucket.url("cluster"), bucket.variables);
//! ```

mod azurite;
mod gcs;
mod gcs_door;
mod minio;
mod server;

pub use azurite::Azurite;
pub use gcs::FakeGcs;
pub use minio::Minio;

/// A bucket of a real store, and how it is reached.
#[derive(Debug, Clone)]
pub struct Bucket {
    scheme: &'static str,
    name: String,
    /// Where the store is.
    pub endpoint_url: String,
    /// Credentials, and what else the environment has to hold.
    pub variables: Vec<(String, String)>,
}

impl Bucket {
    /// The URL of what begins with `prefix` in it.
    pub fn url(&self, prefix: &str) -> String {
        format!("{}://{}/{prefix}", self.scheme, self.name)
    }

    /// The same with a variable of another value.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A bucket beside it that was never made.
    pub fn missing(&self) -> Self {
        Self { name: "never-made".to_owned(), ..self.clone() }
    }
}
