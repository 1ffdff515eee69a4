//! What a store is called by: a path, or a URL.

use super::{StoreFault, StoreFaultKind};
use object_store::path::Path as ObjectPath;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory of this machine, or one that is mounted: a path, or `file://PATH`.
    Directory(PathBuf),
    /// A part of a bucket: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`.
    Bucket {
        /// Who keeps it.
        provider: Provider,
        /// The bucket, or Azure's container.
        bucket: String,
        /// What all names begin with; empty for the whole bucket.
        prefix: String,
    },
}

/// Whose language a store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// S3, of Amazon and of many others.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Provider {
    const ALL: [Self; 3] = [Self::S3, Self::Gcs, Self::Azure];

    /// What a URL begins with.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

impl Place {
    /// Reads a path or a URL.
    ///
    /// # Errors
    /// [`StoreFaultKind::Place`]. What may hold a secret is not repeated.
    pub fn parse(text: &str) -> Result<Self, StoreFault> {
        let path = text.strip_prefix("file://").unwrap_or(text);
        let Some((scheme, rest)) = path.split_once("://") else {
            return match path.is_empty() {
                true => Err(no_place("\"\"", "it is empty")),
                false => Ok(Self::Directory(Path::new(path).to_owned())),
            };
        };
        let Some(provider) = Provider::ALL.into_iter().find(|known| known.scheme() == scheme)
        else {
            let shown = format!("{scheme}://…");
            return Err(no_place(&shown, "places begin with s3://, gs://, az:// or file://"));
        };
        if rest.contains(['?', '#', '@']) {
            let shown = format!("{scheme}://…");
            let why = "a place holds no user, no password and no parameters; credentials come from \
                       the environment";
            return Err(no_place(&shown, why));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._$".contains(c);
        if bucket.is_empty() || !bucket.chars().all(is_name) {
            return Err(no_place(&format!("{scheme}://…"), "it names no bucket"));
        }
        ObjectPath::parse(prefix).map_err(|_| {
            no_place(text, "the names in it may be neither empty, nor . nor .., nor unprintable")
        })?;
        Ok(Self::Bucket { provider, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// The place and the name of an object of which this is the whole name.
    #[must_use]
    pub fn split_object(&self) -> Option<(Self, String)> {
        let Self::Bucket { provider, bucket, prefix } = self else { return None };
        let (folder, name) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        let (bucket, prefix) = (bucket.clone(), folder.to_owned());
        let place = Self::Bucket { provider: *provider, bucket, prefix };
        (!name.is_empty()).then(|| (place, name.to_owned()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Bucket { provider, bucket, prefix } if prefix.is_empty() => {
                write!(f, "{}://{bucket}", provider.scheme())
            }
            Self::Bucket { provider, bucket, prefix } => {
                write!(f, "{}://{bucket}/{prefix}", provider.scheme())
            }
        }
    }
}

pub(super) fn no_place(object: &str, cause: &str) -> StoreFault {
    StoreFault {
        doing: "reading the place",
        object: object.to_owned(),
        kind: StoreFaultKind::Place,
        cause: cause.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_shown() {
        let check = |text: &str, want: &str| {
            assert_eq!(Place::parse(text).unwrap().to_string(), want);
        };
        check("/backup/etcd", "/backup/etcd");
        check("file:///backup/etcd", "/backup/etcd");
        check("s3://bucket", "s3://bucket");
        check("s3://bucket/", "s3://bucket");
        check("gs://bucket/a/b/", "gs://bucket/a/b");
        check("az://container/a", "az://container/a");
    }

    #[test]
    fn what_is_no_place_is_refused_without_repeating_secrets() {
        let check = |text: &str, want: &str| {
            let fault = Place::parse(text).unwrap_err();
            assert_eq!(fault.kind, StoreFaultKind::Place);
            assert!(fault.to_string().contains(want), "{fault}");
            assert!(!fault.to_string().contains("secret"), "{fault}");
        };
        check("", "it is empty");
        check("ftp://secret@host/x", "places begin with");
        check("s3://key:secret@bucket/x", "credentials come from the environment");
        check("az://container/x?sig=secret", "credentials come from the environment");
        check("s3://key:secret", "it names no bucket");
        check("s3:///x", "it names no bucket");
        check("s3://bucket/a//b", "may be neither empty");
        check("s3://bucket/../b", "may be neither empty");
    }

    #[test]
    fn an_object_is_the_last_of_its_names() {
        let check = |text: &str, want: Option<(&str, &str)>| {
            let split = Place::parse(text).unwrap().split_object();
            let split = split.map(|(place, name)| (place.to_string(), name));
            assert_eq!(split, want.map(|(place, name)| (place.to_owned(), name.to_owned())));
        };
        check("s3://bucket/a/b.db", Some(("s3://bucket/a", "b.db")));
        check("s3://bucket/b.db", Some(("s3://bucket", "b.db")));
        check("s3://bucket", None);
        check("/a/b.db", None);
    }
}
