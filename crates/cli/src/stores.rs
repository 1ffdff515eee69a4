//! Where archives and snapshots are, as the command line names it: paths, URLs, etcdbrctl's flags.

use crate::args::{LockMode, OtherStoreArgs, Role, StoreArgs};
use crate::configured;
use crate::connect::Env;
use crate::failure::Failure;
use crate::time::parse_duration;
pub(crate) use rekindle_agent::config::parse_bytes;
use rekindle_archive::{Place, Retention, RetentionMode, Store, StoreOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A kind of store as etcdbrctl names it.
struct Brctl {
    name: &'static str,
    /// What its URLs begin with here.
    scheme: &'static str,
    /// How its variables begin, where they are not the provider's own.
    variables: Option<&'static str>,
}

const fn brctl(name: &'static str, scheme: &'static str, variables: Option<&'static str>) -> Brctl {
    Brctl { name, scheme, variables }
}

const PROVIDERS: &[Brctl] = &[
    brctl("S3", "s3://", None),
    brctl("GCS", "gs://", None),
    brctl("ABS", "az://", None),
    brctl("ECS", "s3://", Some("ECS_")),
    brctl("OCS", "s3://", Some("OCS_")),
    brctl("Local", "", None),
];

/// The region that etcdbrctl signs for where a store has none.
const NO_REGION: &str = "US-Standard";

impl StoreArgs {
    /// The place that is meant by an argument, or by etcdbrctl's flags: with these the argument is a
    /// name below.
    pub(crate) fn place(&self, named: Option<&str>) -> Result<String, Failure> {
        self.place_with(named, &crate::connect::environment)
    }

    fn place_with(&self, named: Option<&str>, env: Env<'_>) -> Result<String, Failure> {
        let Some(provider) = self.provider()? else {
            if self.store_container.is_some() || self.store_prefix.is_some() {
                return Err(Failure::usage(
                    "--store-container and --store-prefix say where, but not \
                    at whose store",
                )
                .remedy("add --storage-provider"));
            }
            return named.map(str::to_owned).ok_or_else(|| {
                Failure::usage("no place is named").remedy("name a path or a URL such as s3://…")
            });
        };
        if self.role != Role::Only {
            let what = "--storage-provider names one place, and here are two";
            return Err(Failure::usage(what).remedy("name both as paths or URLs such as s3://…"));
        }
        let container = self.store_container.clone().or_else(|| env("STORAGE_CONTAINER"));
        let container = container.ok_or_else(|| {
            Failure::usage(format!(
                "--storage-provider {} does not say which container",
                provider.name
            ))
            .remedy("add --store-container, or set STORAGE_CONTAINER")
        })?;
        if let Some(named) = named.filter(|named| named.contains("://") || named.starts_with('/')) {
            let what = format!("{named} and --storage-provider name two places");
            return Err(Failure::usage(what).remedy("leave one of them out"));
        }
        let parts = [self.store_prefix.as_deref(), named].into_iter().flatten();
        let parts = parts.map(|part| part.trim_matches('/')).filter(|part| !part.is_empty());
        Ok(parts.fold(
            format!("{}{}", provider.scheme, container.trim_end_matches('/')),
            |place, part| format!("{place}/{part}"),
        ))
    }

    /// The same of an argument that is a path as often as not.
    pub(crate) fn source(&self, named: Option<&Path>) -> Result<PathBuf, Failure> {
        match named.map(Path::to_str) {
            // No URL, whatever it is.
            Some(None) => Ok(named.unwrap_or(Path::new("")).to_owned()),
            named => self.place(named.flatten()).map(PathBuf::from),
        }
    }

    fn provider(&self) -> Result<Option<&'static Brctl>, Failure> {
        let Some(named) = self.storage_provider.as_deref() else { return Ok(None) };
        let known = PROVIDERS.iter().find(|known| known.name.eq_ignore_ascii_case(named));
        known.map(Some).ok_or_else(|| {
            let known: Vec<_> = PROVIDERS.iter().map(|known| known.name).collect();
            Failure::usage(format!("--storage-provider {named} is not supported"))
                .remedy(format!("one of {} is", known.join(", ")))
        })
    }

    /// The store at a place.
    pub(crate) fn open(&self, place: &Place) -> Result<Store, Failure> {
        if let (Place::Directory(path), Some(_), Role::Only) = (place, self.bandwidth, self.role) {
            let what =
                format!("--bandwidth is for object stores, and {} is a path", path.display());
            return Err(Failure::usage(what).remedy("leave it out"));
        }
        let mut variables = variables();
        if let Place::Directory(_) = place {
            // It is asked over no network, whatever the environment says of networks.
            variables.remove("AWS_CA_BUNDLE");
        }
        let options = match self.configured(place) {
            Some(store) => {
                let options = store.options(variables).map_err(|fault| {
                    Failure::usage(format!("the configuration's store of {place}: {fault}"))
                })?;
                self.over(options)?
            }
            None => self.options(variables)?,
        };
        Ok(Store::open(place, &options)?)
    }

    /// What flags say goes before what a configuration says.
    fn over(&self, options: StoreOptions) -> Result<StoreOptions, Failure> {
        let ca = self.store_ca.as_deref().map(read).transpose()?;
        Ok(StoreOptions {
            endpoint_url: self.endpoint_url.clone().or(options.endpoint_url),
            region: self.region.clone().or(options.region),
            virtual_host_style: self.virtual_host_style || options.virtual_host_style,
            ca: ca.or(options.ca),
            bandwidth: self.bandwidth.or(options.bandwidth),
            retention: self.retention().or(options.retention),
            variables: options.variables,
        })
    }

    fn retention(&self) -> Option<Retention> {
        let mode = match self.object_lock_mode {
            LockMode::Governance => RetentionMode::Governance,
            LockMode::Compliance => RetentionMode::Compliance,
        };
        self.object_lock.map(|period| Retention { mode, period })
    }

    /// What a configuration says of the store at a place, unless flags name another one.
    fn configured(&self, place: &Place) -> Option<&'static rekindle_agent::config::Store> {
        let cluster = configured::cluster().filter(|_| self.storage_provider.is_none())?;
        cluster.store_of(&place.to_string())
    }

    /// How the other place is reached. Only what is written into is locked.
    pub(crate) fn other(&self, other: &OtherStoreArgs) -> Self {
        let OtherStoreArgs { other_endpoint_url, other_region, other_store_ca } = other;
        Self {
            endpoint_url: other_endpoint_url.clone().or_else(|| self.endpoint_url.clone()),
            region: other_region.clone().or_else(|| self.region.clone()),
            store_ca: other_store_ca.clone().or_else(|| self.store_ca.clone()),
            role: Role::Other,
            ..self.clone()
        }
    }

    /// How the first one of two places is reached.
    pub(crate) fn first(&self) -> Self {
        Self { role: Role::First, ..self.clone() }
    }

    /// The same for a place that is only read: nothing there is locked.
    pub(crate) fn read_only(self) -> Self {
        Self { object_lock: None, ..self }
    }

    fn options(&self, mut variables: BTreeMap<String, String>) -> Result<StoreOptions, Failure> {
        if self.role == Role::Other {
            variables = of_the_other(variables);
        }
        let mut endpoint_url = self.endpoint_url.clone();
        let mut region = self.region.clone();
        let prefix = self.provider()?.and_then(|provider| provider.variables);
        if let Some(prefix) = prefix {
            let variable = |name: &str| variables.get(&format!("{prefix}{name}")).cloned();
            let disable_ssl = variable("DISABLE_SSL").is_some_and(|value| value == "true");
            endpoint_url = endpoint_url.or_else(|| {
                variable("ENDPOINT").map(|endpoint| with_scheme(&endpoint, disable_ssl))
            });
            region = region.or_else(|| variable("REGION")).or(Some(NO_REGION.to_owned()));
            // Theirs alone: credentials for another store must not be sent to this one.
            let theirs = ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY"]
                .map(|name| (format!("AWS_{name}"), variable(name)));
            variables.retain(|name, _| !name.starts_with("AWS_"));
            let theirs = theirs.into_iter().filter_map(|(name, value)| Some((name, value?)));
            variables.extend(theirs);
        }
        let ca = self.store_ca.clone();
        let ca = ca.or_else(|| variables.get("AWS_CA_BUNDLE").map(PathBuf::from));
        let ca = ca.map(|path| read(&path));
        Ok(StoreOptions {
            endpoint_url,
            region,
            virtual_host_style: self.virtual_host_style,
            ca: ca.transpose()?,
            bandwidth: self.bandwidth,
            retention: self.retention(),
            variables,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::io("reading", path, &error))
}

/// The environment, as far as it is text.
pub(crate) fn variables() -> BTreeMap<String, String> {
    let variables = std::env::vars_os();
    variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// What the names of variables for the other place begin with.
const OTHER: &str = "REKINDLE_OTHER_";

/// The variables for the other place: any of a provider's takes the place of all of that provider's.
fn of_the_other(mut variables: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = variables
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(OTHER)?.to_owned(), value.clone())));
    let own: Vec<_> = own.collect();
    let provider = |name: &str| name.split_once('_').map(|(provider, _)| provider.to_owned());
    let providers: BTreeSet<_> = own.iter().filter_map(|(name, _)| provider(name)).collect();
    variables.retain(|name, _| provider(name).is_none_or(|it| !providers.contains(&it)));
    variables.extend(own);
    variables
}

/// etcdbrctl's endpoints are hosts as often as URLs.
fn with_scheme(endpoint: &str, plain: bool) -> String {
    match (endpoint.contains("://"), plain) {
        (true, _) => endpoint.to_owned(),
        (false, true) => format!("http://{endpoint}"),
        (false, false) => format!("https://{endpoint}"),
    }
}

/// Reads for how long something is locked.
pub(crate) fn parse_lock(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("a lock lasts longer than that".to_owned()),
        period => Ok(period),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    fn flags(provider: &str, container: Option<&str>, prefix: Option<&str>) -> StoreArgs {
        StoreArgs {
            storage_provider: Some(provider.to_owned()),
            store_container: container.map(str::to_owned),
            store_prefix: prefix.map(str::to_owned),
            ..StoreArgs::default()
        }
    }

    #[test]
    fn the_other_place_has_credentials_of_its_own() {
        let variables = |all: &[(&str, &str)]| -> BTreeMap<_, _> {
            all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let mine = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SESSION_TOKEN", "t"), ("AZURE_X", "x")];
        let args = StoreArgs { region: Some("r".to_owned()), ..StoreArgs::default() };
        let other = args.other(&OtherStoreArgs::default());
        let both = |args: &StoreArgs, of| args.options(variables(of)).unwrap();
        assert_eq!(both(&other, &mine).variables, variables(&mine), "the same, unless it is said");
        assert_eq!(both(&other, &mine).region.as_deref(), Some("r"));
        let theirs = [&mine[..], &[("REKINDLE_OTHER_AWS_ACCESS_KEY_ID", "b")]].concat();
        let options = both(&other, &theirs);
        assert_eq!(options.variables["AWS_ACCESS_KEY_ID"], "b");
        assert!(!options.variables.contains_key("AWS_SESSION_TOKEN"), "that is of another one");
        assert_eq!(options.variables["AZURE_X"], "x");
        assert_eq!(both(&args, &theirs).variables["AWS_ACCESS_KEY_ID"], "a");
    }

    #[test]
    fn etcdbrctls_flags_name_the_same_places() {
        let place = |args: &StoreArgs, named| args.place_with(named, &|_| None).unwrap();
        let s3 = flags("S3", Some("bucket"), Some("etcd/main/"));
        assert_eq!(place(&s3, None), "s3://bucket/etcd/main");
        assert_eq!(place(&s3, Some("%Y.db")), "s3://bucket/etcd/main/%Y.db");
        assert_eq!(place(&flags("GCS", Some("b"), None), None), "gs://b");
        assert_eq!(place(&flags("ABS", Some("c"), Some("p")), None), "az://c/p");
        assert_eq!(place(&flags("Local", Some("/d/"), Some("p")), None), "/d/p");
        assert_eq!(place(&StoreArgs::default(), Some("x")), "x");
        let env = |name: &str| (name == "STORAGE_CONTAINER").then(|| "b".to_owned());
        let ecs = flags("ECS", None, Some("p"));
        assert_eq!(ecs.place_with(None, &env).unwrap(), "s3://b/p");

        let refused = |args: &StoreArgs, named| {
            let failure = args.place_with(named, &|_| None).unwrap_err();
            assert_eq!(failure.code, Code::Usage);
            assert!(failure.remedy.is_some());
        };
        refused(&s3, Some("s3://other/x"));
        refused(&s3.first(), Some("x"));
        refused(&s3.other(&OtherStoreArgs::default()), Some("x"));
        refused(&ecs, None);
        refused(&flags("Swift", Some("c"), None), None);
        refused(&StoreArgs { storage_provider: None, ..s3 }, None);
        refused(&StoreArgs::default(), None);
    }

    #[test]
    fn credentials_of_another_store_stay_here() {
        let variables = [
            ("ECS_ENDPOINT", "ecs:9021"),
            ("ECS_ACCESS_KEY_ID", "id"),
            ("ECS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "of amazon"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let variables = BTreeMap::from(variables);
        let options = flags("ECS", None, None).options(variables.clone()).unwrap();
        assert_eq!(options.endpoint_url.as_deref(), Some("https://ecs:9021"));
        assert_eq!(options.variables["AWS_SECRET_ACCESS_KEY"], "secret");
        assert!(!options.variables.contains_key("AWS_SESSION_TOKEN"));
        let options = StoreArgs::default().options(variables).unwrap();
        assert_eq!((options.endpoint_url, options.region), (None, None));
        assert!(options.variables.contains_key("AWS_SESSION_TOKEN"));
    }

    #[test]
    fn a_lock_lasts() {
        assert_eq!(parse_lock("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert!(parse_lock("0s").is_err() && parse_lock("-1d").is_err());
    }
}
