//! `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`

use std::fmt;
use std::str::FromStr;

use object_store::path::Path;

/// A prefix leaves room for a key in the 1024 bytes that stores allow.
const MAX_PREFIX: usize = 512;

/// A text that names no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} names no object store: {what}; write s3://bucket/prefix, gs:// or az:// likewise")]
pub struct BadUrl {
    url: String,
    what: &'static str,
}

/// Whose store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// S3, and what is compatible with it.
    Amazon,
    Google,
    Azure,
    /// An embedder's own.
    Other,
}

/// A bucket, and the prefix in it beneath which objects lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    kind: Kind,
    bucket: String,
    prefix: String,
}

impl StoreUrl {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Bucket or container.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Empty, or without a slash at either end.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What it begins with: `s3://bucket`.
    pub(crate) fn store(&self) -> String {
        let scheme = match self.kind {
            Kind::Google => "gs",
            Kind::Azure => "az",
            Kind::Amazon | Kind::Other => "s3",
        };
        format!("{scheme}://{}", self.bucket)
    }
}

impl FromStr for StoreUrl {
    type Err = BadUrl;

    fn from_str(url: &str) -> Result<Self, BadUrl> {
        let bad = |what| BadUrl {
            // What is before an @ may be a secret.
            url: match url.rsplit_once('@') {
                Some((_, rest)) => format!("…@{rest}"),
                None => url.to_owned(),
            },
            what,
        };
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| bad("it has no scheme"))?;
        let kind = match scheme {
            "s3" => Kind::Amazon,
            "gs" => Kind::Google,
            "az" => Kind::Azure,
            _ => return Err(bad("its scheme is not s3, gs or az")),
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.contains('@') {
            return Err(bad("credentials belong in the environment"));
        }
        if bucket.contains(':') {
            return Err(bad(
                "an address of the store's own belongs in the environment, as AWS_ENDPOINT",
            ));
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'$');
        if bucket.is_empty() || bucket.len() > 255 || !bucket.bytes().all(fits) {
            return Err(bad("there is no bucket of such a name"));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if prefix.len() > MAX_PREFIX {
            return Err(bad("the prefix is too long"));
        }
        // Options are not part of it.
        let plain = !prefix.contains(['?', '#']) && Path::from(prefix).as_ref() == prefix;
        if !plain || Path::parse(prefix).is_err() {
            return Err(bad(
                "the prefix has empty parts, or more than plain characters",
            ));
        }
        Ok(Self {
            kind,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.store())?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_they_are_written() {
        for url in ["s3://b", "gs://my.bucket/p", "az://c-1/a/b c/d_e"] {
            assert_eq!(url.parse::<StoreUrl>().unwrap().to_string(), url);
        }
        let slash: StoreUrl = "s3://b/p/".parse().unwrap();
        assert_eq!((slash.bucket(), slash.prefix()), ("b", "p"));
        assert_eq!(slash.to_string(), "s3://b/p");
    }

    #[test]
    fn what_names_no_store_is_refused() {
        for url in [
            "b/p",
            "s3://",
            "s3:///p",
            "s3://b//p",
            "s3://b/../p",
            "s3://b/p?region=x",
            "s3://b/p%2f",
            "s3://host:9000/b",
            "http://b/p",
            "s3://b/\u{1b}[31m",
        ] {
            assert!(url.parse::<StoreUrl>().is_err(), "{url}");
        }
        let refused = "s3://key:secret@b/p".parse::<StoreUrl>().unwrap_err();
        let said = refused.to_string();
        assert!(
            said.contains("environment") && !said.contains("secret"),
            "{said}"
        );
    }
}
