//! Stores as they are asked for: a place, and how it is reached.

use super::fault::fault;
use super::http::Connector;
use super::lock::{Lock, Locking};
use super::pace::Pace;
use super::place::{Place, Provider, no_place};
use super::{Retention, Store, StoreFault};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

/// How often a request is made before its fault is told.
const TRIES: usize = 10;
/// How long it is made again.
const PATIENCE: Duration = Duration::from_secs(120);
/// The first wait between two tries, and the longest. Each is a matter of chance within its bounds.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// The region of a bucket that nobody has named one for.
const REGION: &str = "us-east-1";
/// Secrets shorter than this are not looked for in messages: too much else would be taken for them.
const SECRET_MIN: usize = 6;

/// How a store is reached. What is not set here comes from the variables of the environment, which
/// are those of the providers' own tools.
#[derive(Clone, Default)]
pub struct StoreOptions {
    /// Where the store is, if not at its provider's usual place. `http://` only where nothing
    /// secret goes over the network.
    pub endpoint_url: Option<String>,
    /// The region of an S3 bucket.
    pub region: Option<String>,
    /// Put the bucket into the host's name although there is an endpoint of one's own.
    pub virtual_host_style: bool,
    /// Authorities in PEM that are trusted beside the system's.
    pub ca: Option<Vec<u8>>,
    /// Most bytes a second, both ways together.
    pub bandwidth: Option<NonZeroU64>,
    /// How what is created in an S3 bucket is locked.
    pub retention: Option<Retention>,
    /// The environment.
    pub variables: BTreeMap<String, String>,
}

impl fmt::Debug for StoreOptions {
    /// Without the variables: they hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions").field("region", &self.region).finish_non_exhaustive()
    }
}

impl StoreOptions {
    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// What must never be shown.
    pub(super) fn secrets(&self) -> Vec<String> {
        let providers = ["AWS_", "GOOGLE_", "AZURE_", "ECS_"];
        let words = ["KEY", "SECRET", "TOKEN", "SAS", "PASSWORD"];
        let is_secret = |name: &str| {
            providers.iter().any(|provider| name.starts_with(provider))
                && words.iter().any(|word| name.contains(word))
                && !name.ends_with("_FILE")
        };
        let variables = self.variables.iter().filter(|(name, _)| is_secret(name));
        variables
            // A shared access signature is shown piece by piece where a URL is.
            .flat_map(|(_, value)| value.split(['&', '?', ',']).chain([value.as_str()]))
            .flat_map(|part| [part, part.split_once('=').map_or("", |(_, value)| value)])
            .filter(|secret| secret.len() >= SECRET_MIN)
            .map(str::to_owned)
            .collect()
    }
}

impl Store {
    /// The store at a place. Nothing is asked of it yet, but that a directory must be there.
    ///
    /// # Errors
    /// [`StoreFaultKind::NotFound`](super::StoreFaultKind::NotFound) of a directory;
    /// [`StoreFaultKind::Place`](super::StoreFaultKind::Place) where the options make no sense.
    pub fn open(place: &Place, options: &StoreOptions) -> Result<Self, StoreFault> {
        let (provider, bucket, prefix) = match place {
            Place::Directory(_) if options.retention.is_some() => {
                let cause = "objects are locked in S3 buckets only";
                return Err(no_place(&place.to_string(), cause));
            }
            Place::Directory(path) => return Self::directory(path),
            Place::Bucket { provider, bucket, prefix } => (*provider, bucket, prefix),
        };
        let shown = place.to_string();
        let settings = |cause: &str| no_place(&shown, cause);
        let connector = Connector::new(options.ca.as_deref(), options.bandwidth.map(Pace::new));
        let connector =
            connector.map_err(|cause| settings(&format!("the authorities to trust: {cause}")))?;
        let endpoint = options.endpoint(provider).map_err(settings)?;
        if options.retention.is_some() && provider != Provider::S3 {
            return Err(settings("objects are locked in S3 buckets only"));
        }
        let builder = Opening { bucket, prefix, endpoint, options, connector };
        let built = match provider {
            Provider::S3 => builder.s3(),
            Provider::Gcs => builder.gcs().map(|store| (store, None)),
            Provider::Azure => builder.azure().map(|store| (store, None)),
        };
        let secrets = options.secrets();
        let (objects, lock) = built.map_err(|error| {
            let cause = fault("", String::new(), &error).cause;
            settings(&super::without(&secrets, &cause))
        })?;
        let objects: Arc<dyn ObjectStore> = match prefix.as_str() {
            "" => objects,
            prefix => Arc::new(PrefixStore::new(objects, prefix)),
        };
        Self::new(objects, shown, secrets, lock)
    }
}

impl StoreOptions {
    /// Where the store is: the flag goes before the environment.
    fn endpoint(&self, provider: Provider) -> Result<Option<String>, &'static str> {
        let names: &[&str] = match provider {
            Provider::S3 => &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
            Provider::Gcs => &["STORAGE_EMULATOR_HOST", "GOOGLE_STORAGE_API_ENDPOINT"],
            Provider::Azure => &["AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_API_ENDPOINT"],
        };
        let from_environment = || names.iter().find_map(|name| self.variable(name));
        let Some(url) = self.endpoint_url.as_deref().or_else(from_environment) else {
            return Ok(None);
        };
        let url = match url.contains("://") {
            true => url.to_owned(),
            // As Google's own libraries read it.
            false if provider == Provider::Gcs => format!("http://{url}"),
            false => return Err("the endpoint begins neither with https:// nor with http://"),
        };
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        if !["http", "https"].contains(&scheme) {
            return Err("the endpoint begins neither with https:// nor with http://");
        }
        if rest.contains(['@', '?', '#']) {
            return Err(
                "the endpoint holds a user or parameters, which belong into the environment",
            );
        }
        if reqwest::Url::parse(&url).is_err() {
            return Err("the endpoint is no URL");
        }
        Ok(Some(url.trim_end_matches('/').to_owned()))
    }
}

/// A store of a bucket that is about to be.
struct Opening<'a> {
    bucket: &'a str,
    prefix: &'a str,
    endpoint: Option<String>,
    options: &'a StoreOptions,
    connector: Connector,
}

type Built = object_store::Result<Arc<dyn ObjectStore>>;

impl Opening<'_> {
    fn s3(self) -> object_store::Result<(Arc<dyn ObjectStore>, Option<Lock>)> {
        let mut builder = AmazonS3Builder::new();
        for (name, value) in self.variables("AWS_") {
            if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        if let Some(region) = &self.options.region {
            builder = builder.with_region(region);
        }
        // A certificate for all buckets of a host has no name for one with dots.
        let at_amazon = self.endpoint.is_none() && !self.bucket.contains('.');
        let virtual_host = self.options.virtual_host_style || at_amazon;
        if let Some(endpoint) = &self.endpoint {
            let endpoint = match virtual_host {
                true => endpoint.replacen("://", &format!("://{}.", self.bucket), 1),
                false => endpoint.clone(),
            };
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        }
        let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
        let builder = builder
            .with_bucket_name(self.bucket)
            .with_virtual_hosted_style_request(virtual_host)
            // The digest of what is sent is signed anyway; so the store compares it, too.
            .with_checksum_algorithm(Checksum::SHA256)
            // Not all that speak S3 know how to remove many at once.
            .with_disable_bulk_delete(true)
            .with_allow_http(true)
            .with_retry(retry());
        let Some(retention) = self.options.retention else {
            return Ok((Arc::new(builder.with_http_connector(self.connector).build()?), None));
        };
        let http = Locking {
            connector: self.connector,
            retention,
            region: region.unwrap_or_else(|| REGION.to_owned()),
            prefix: self.prefix.to_owned(),
            credentials: Arc::default(),
        };
        let s3 = Arc::new(builder.with_http_connector(http.clone()).build()?);
        // It is set once.
        let _ = http.credentials.set(Arc::clone(s3.credentials()));
        let lock = Lock { s3: Arc::clone(&s3), http };
        Ok((s3, Some(lock)))
    }

    fn gcs(self) -> Built {
        let mut builder = GoogleCloudStorageBuilder::new();
        for (name, value) in self.variables("GOOGLE_") {
            if let Ok(key) = name.parse::<GoogleConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        let named = ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"];
        let has_credentials = named.iter().any(|name| self.options.variable(name).is_some())
            || self.options.variable("GOOGLE_SERVICE_ACCOUNT_KEY").is_some();
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint);
            if !has_credentials {
                // An emulator wants none, and none must be looked for.
                builder = builder.with_bearer_token("none");
            }
        }
        let store = builder
            .with_bucket_name(self.bucket)
            .with_retry(retry())
            .with_http_connector(self.connector)
            .build()?;
        Ok(Arc::new(store))
    }

    fn azure(self) -> Built {
        let mut builder = MicrosoftAzureBuilder::new();
        for (name, value) in self.variables("AZURE_") {
            // As Azure's command line calls them.
            let key = match name.as_str() {
                "azure_storage_account" => Ok(AzureConfigKey::AccountName),
                "azure_storage_key" => Ok(AzureConfigKey::AccessKey),
                name => name.parse(),
            };
            if let Ok(key) = key {
                builder = builder.with_config(key, value);
            }
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let store = builder
            .with_container_name(self.bucket)
            .with_allow_http(true)
            .with_retry(retry())
            .with_http_connector(self.connector)
            .build()?;
        Ok(Arc::new(store))
    }

    /// The variables of a provider, by their names in small letters.
    fn variables<'a>(&'a self, provider: &'a str) -> impl Iterator<Item = (String, &'a str)> {
        let variables = self.options.variables.iter();
        let ours =
            variables.filter(move |(name, value)| name.starts_with(provider) && !value.is_empty());
        ours.map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }
}

fn retry() -> RetryConfig {
    let (init_backoff, max_backoff) = WAITS;
    RetryConfig {
        backoff: BackoffConfig { init_backoff, max_backoff, base: 2. },
        max_retries: TRIES,
        retry_timeout: PATIENCE,
    }
}

#[cfg(test)]
mod tests {
    use super::super::StoreFaultKind;
    use super::*;

    fn options(variables: &[(&str, &str)]) -> StoreOptions {
        let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        StoreOptions { variables: variables.collect(), ..StoreOptions::default() }
    }

    #[test]
    fn the_flag_goes_before_the_environment() {
        let both = [("AWS_ENDPOINT_URL", "http://a:1"), ("AWS_ENDPOINT_URL_S3", "https://b/")];
        let endpoint = |options: &StoreOptions| options.endpoint(Provider::S3).unwrap();
        assert_eq!(endpoint(&options(&both[..1])).unwrap(), "http://a:1");
        assert_eq!(endpoint(&options(&both)).unwrap(), "https://b");
        let endpoint_url = Some("http://c".to_owned());
        assert_eq!(endpoint(&StoreOptions { endpoint_url, ..options(&both) }).unwrap(), "http://c");
        assert_eq!(endpoint(&options(&[])), None);
        let google = options(&[("STORAGE_EMULATOR_HOST", "127.0.0.1:9")]);
        assert_eq!(google.endpoint(Provider::Gcs).unwrap().unwrap(), "http://127.0.0.1:9");
        for bad in ["a:1", "ftp://a", "https://user:secret@a", "https://a?x=secret", "https://["] {
            let endpoint_url = Some(bad.to_owned());
            let options = StoreOptions { endpoint_url, ..options(&[]) };
            let fault = options.endpoint(Provider::S3).unwrap_err();
            assert!(!fault.contains("secret"), "{fault}");
        }
    }

    #[test]
    fn secrets_are_known_by_their_variables() {
        let options = options(&[
            ("AWS_SECRET_ACCESS_KEY", "canary-1"),
            ("AZURE_STORAGE_SAS_TOKEN", "?sv=2020-01-01&sig=canary-2"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/a/file"),
            ("AWS_REGION", "eu-west-1"),
            ("MY_SECRET", "canary-3"),
        ]);
        let secrets = options.secrets();
        assert!(secrets.iter().any(|secret| secret == "canary-1"));
        assert!(secrets.iter().any(|secret| secret == "canary-2"));
        assert!(!secrets.iter().any(|secret| ["/a/file", "canary-3"].contains(&secret.as_str())));
        assert!(!format!("{options:?}").contains("canary"));
    }

    #[test]
    fn settings_that_make_no_sense_are_told() {
        let place = Place::parse("s3://bucket/x").unwrap();
        let fault = Store::open(&place, &options(&[("AWS_ACCESS_KEY_ID", "canary-id")]));
        let fault = fault.unwrap_err();
        assert_eq!(fault.kind, StoreFaultKind::Place);
        assert!(fault.to_string().contains("SecretAccessKey"), "{fault}");
        assert!(!fault.to_string().contains("canary"), "{fault}");
        let bad = StoreOptions { ca: Some(b"none".to_vec()), ..options(&[]) };
        let fault = Store::open(&place, &bad).unwrap_err();
        assert!(fault.to_string().contains("no certificate in PEM"), "{fault}");
    }
}
