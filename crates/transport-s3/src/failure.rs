//! Pure: what a store's failures mean, and what can be done about them.

use std::error::Error as _;
use std::time::Duration;

use logchain_core::transport::Error;
use object_store::client::{HttpError, HttpErrorKind};

use crate::tls;
use crate::url::Kind;

/// What is repeated of a store's own words.
const MAX_WORDS: usize = 300;

/// A store, as failures speak of it.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    name: String,
    kind: Kind,
}

impl Who {
    pub(crate) fn new(name: String, kind: Kind) -> Self {
        Self { name, kind }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Why a call failed. `key`: what it was about.
    pub(crate) fn explain(&self, key: &str, error: &object_store::Error) -> Error {
        use object_store::Error as E;
        let said = Said::of(error);
        let transport = self.name.clone();
        // By its code first: status and kind are less exact.
        if let Some(failure) = self.by_code(&said) {
            return failure;
        }
        match error {
            E::NotFound { .. } => Error::NotFound {
                transport,
                key: key.to_owned(),
            },
            E::AlreadyExists { .. } | E::Precondition { .. } => Error::AlreadyExists {
                transport,
                key: key.to_owned(),
            },
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => self.forbidden(&said),
            E::NotSupported { .. } | E::NotImplemented { .. } => self.denied(format!(
                "it has no conditional writes, without which no handoff is safe ({})",
                said.words()
            )),
            E::InvalidPath { source } => Error::Corrupt {
                transport,
                reason: format!(
                    "there is an object that is no one's of ours and cannot be listed: {}; remove it",
                    plain(&source.to_string())
                ),
            },
            E::Generic { .. } => self.by_connection(&said),
            _ => Error::Other {
                transport,
                reason: said.words(),
            },
        }
    }

    /// Why it could not even be opened.
    pub(crate) fn misconfigured(&self, error: &object_store::Error) -> Error {
        self.denied(format!(
            "its options do not do: {}",
            Said::of(error).words()
        ))
    }

    /// A call that took too long.
    pub(crate) fn late(&self, what: &str, limit: Duration) -> Error {
        Error::Timeout {
            transport: self.name.clone(),
            reason: format!("{what} took longer than {} s", limit.as_secs_f64()),
        }
    }

    pub(crate) fn denied(&self, reason: String) -> Error {
        Error::Denied {
            transport: self.name.clone(),
            reason,
        }
    }

    fn forbidden(&self, said: &Said) -> Error {
        self.denied(format!(
            "{} may not do this ({}); allow put, get, list and delete beneath the prefix",
            self.credentials(),
            said.name()
        ))
    }

    pub(crate) fn unreachable(&self, reason: String) -> Error {
        Error::Unreachable {
            transport: self.name.clone(),
            reason,
        }
    }

    fn by_code(&self, said: &Said) -> Option<Error> {
        let code = said.code.as_deref()?;
        Some(match code {
            "NoSuchBucket"
            | "ContainerNotFound"
            | "InvalidBucketName"
            // So Azure calls a name that no container can have.
            | "OutOfRangeInput"
            | "InvalidResourceName" => {
                self.denied(format!("there is no such bucket ({code}); make it, or name another"))
            }
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidSecurity"
            | "AuthFailure"
            | "InvalidClientTokenId" => self.denied(format!(
                "it does not know {} ({code}); check {}",
                self.credentials(),
                self.variables()
            )),
            // Azure's word for a clock that is wrong, too.
            "AuthenticationFailed" => self.denied(format!(
                "it does not know {} ({code}); check {}, and this host's clock",
                self.credentials(),
                self.variables()
            )),
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                self.denied(format!("{} are no longer valid ({code})", self.credentials()))
            }
            "RequestTimeTooSkewed" => self.denied(format!(
                "the clocks of this host and of the store are too far apart ({code}); set this host's"
            )),
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => self.denied(format!(
                "the bucket is in another region ({code}); set AWS_REGION, or AWS_ENDPOINT"
            )),
            "SlowDown" | "ServiceUnavailable" | "Throttling" | "ThrottlingException"
            | "RequestLimitExceeded" | "TooManyRequests" | "ServerBusy" => self.unreachable(
                format!("it is overloaded and asks to be called less often ({code})"),
            ),
            "InternalError" | "OperationTimedOut" => {
                self.unreachable(format!("it fails by itself ({code})"))
            }
            "QuotaExceeded" | "QuotaExceededException" | "XMinioStorageFull"
            | "InsufficientCapacity" | "EntityTooLarge" => Error::Full {
                transport: self.name.clone(),
                reason: code.to_owned(),
            },
            _ => return None,
        })
    }

    fn by_connection(&self, said: &Said) -> Error {
        let asked = [
            "//169.254.",
            "//metadata.google.internal",
            "/latest/api/token",
        ];
        if asked.iter().any(|address| said.text.contains(address)) {
            // Without any, they are asked for where a cloud's own machines get theirs.
            return self.denied(format!(
                "there are no credentials; set {}",
                self.variables()
            ));
        }
        if said.deepest.contains("URL scheme is not allowed") {
            return self.denied(format!(
                "its address begins with http://: nothing would be encrypted; \
                 set {} if that is as it should be",
                match self.kind {
                    Kind::Google => "GOOGLE_ALLOW_HTTP=true",
                    Kind::Azure => "AZURE_ALLOW_HTTP=true",
                    Kind::Amazon | Kind::Other => "AWS_ALLOW_HTTP=true",
                }
            ));
        }
        if let Some(why) = &said.tls {
            return self.denied(tls::explain(why, self.kind));
        }
        match (said.http, said.status) {
            (Some(HttpErrorKind::Timeout), _) => Error::Timeout {
                transport: self.name.clone(),
                reason: format!("a request had no answer in time ({})", plain(&said.deepest)),
            },
            (Some(HttpErrorKind::Connect), _) => self.unreachable(format!(
                "{}; check the network, and the address where one is set ({})",
                plain(&said.deepest),
                match self.kind {
                    Kind::Azure => "AZURE_ENDPOINT",
                    Kind::Google => "GOOGLE_BASE_URL",
                    Kind::Amazon | Kind::Other => "AWS_ENDPOINT",
                }
            )),
            (Some(_), _) => {
                self.unreachable(format!("the connection broke ({})", plain(&said.deepest)))
            }
            (None, Some(429 | 503)) => self.unreachable(format!(
                "it is overloaded and asks to be called less often ({})",
                said.name()
            )),
            (None, Some(507)) => Error::Full {
                transport: self.name.clone(),
                reason: said.name(),
            },
            (None, Some(401 | 403)) => self.forbidden(said),
            (None, Some(500..)) => {
                self.unreachable(format!("it fails by itself ({})", said.name()))
            }
            (None, Some(_)) => Error::Other {
                transport: self.name.clone(),
                reason: said.words(),
            },
            // Half an answer, or one that nobody can read.
            (None, None) => self.unreachable(said.words()),
        }
    }

    fn credentials(&self) -> &'static str {
        match self.kind {
            Kind::Other => "whoever calls",
            _ => "these credentials",
        }
    }

    fn variables(&self) -> &'static str {
        match self.kind {
            Kind::Amazon => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Kind::Google => "GOOGLE_APPLICATION_CREDENTIALS",
            Kind::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
            Kind::Other => "the store's credentials",
        }
    }
}

/// Whether a put that failed so may have been done all the same, and trying again
/// is of use.
pub(crate) fn is_unclear(error: &object_store::Error) -> bool {
    matches!(
        Said::of(error).http,
        Some(
            HttpErrorKind::Timeout
                | HttpErrorKind::Interrupted
                | HttpErrorKind::Request
                | HttpErrorKind::Decode
        )
    )
}

/// What can be read out of an error: object_store keeps status and body to itself,
/// and prints them.
struct Said {
    text: String,
    deepest: String,
    code: Option<String>,
    status: Option<u16>,
    http: Option<HttpErrorKind>,
    /// Why no encrypted connection came about.
    tls: Option<rustls::Error>,
}

impl Said {
    fn of(error: &object_store::Error) -> Self {
        let text = error.to_string();
        let mut http = None;
        let mut deepest = None;
        let mut source = error.source();
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<HttpError>() {
                http = Some(error.kind());
            }
            deepest = Some(error.to_string());
            source = error.source();
        }
        Self {
            code: code(&text),
            status: status(&text),
            deepest: deepest.unwrap_or_else(|| text.clone()),
            tls: tls::find(error),
            http,
            text,
        }
    }

    /// The store's name for it.
    fn name(&self) -> String {
        match (&self.code, self.status) {
            (Some(code), _) => code.clone(),
            (None, Some(status)) => format!("HTTP {status}"),
            (None, None) => plain(&self.deepest),
        }
    }

    fn words(&self) -> String {
        match (&self.code, self.status) {
            (None, None) => plain(&self.text),
            _ => self.name(),
        }
    }
}

/// Of an answer's body, as S3, Google and Azure write it.
fn code(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let fits = !code.is_empty() && code.len() <= 64;
    (fits && code.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| code.to_owned())
}

fn status(text: &str) -> Option<u16> {
    // The second one is that of one deletion of a batch, which is how Azure is asked.
    let (_, rest) = text
        .split_once("status code: ")
        .or_else(|| text.rsplit_once("(code: "))?;
    rest.get(..3)?.parse().ok()
}

/// Outside words that go to a terminal.
fn plain(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c.is_whitespace());
    let words: Vec<_> = words.filter(|w| !w.is_empty()).collect();
    words.join(" ").chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use logchain_core::transport::Advice;

    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    fn s3() -> Who {
        Who::new("s3://b".to_owned(), Kind::Amazon)
    }

    #[test]
    fn codes_say_what_to_do() {
        for (code, advice, word) in [
            ("NoSuchBucket", Advice::Fix, "make it"),
            ("InvalidAccessKeyId", Advice::Fix, "AWS_ACCESS_KEY_ID"),
            (
                "SignatureDoesNotMatch",
                Advice::Fix,
                "AWS_SECRET_ACCESS_KEY",
            ),
            ("RequestTimeTooSkewed", Advice::Fix, "clocks"),
            ("AuthenticationFailed", Advice::Fix, "clock"),
            ("PermanentRedirect", Advice::Fix, "AWS_REGION"),
            ("SlowDown", Advice::Retry, "less often"),
            ("InternalError", Advice::Retry, "fails"),
            ("QuotaExceeded", Advice::Fix, "full"),
        ] {
            let text = format!(
                "Server returned non-2xx status code: 400 Bad Request: \
                 <Error><Code>{code}</Code></Error>"
            );
            let error = s3().explain("k", &generic(&text));
            let said = error.to_string();
            assert_eq!(error.advice(), advice, "{said}");
            assert!(said.contains(word) && said.contains(code), "{said}");
            assert!(!said.contains('<'), "{said}");
        }
    }

    #[test]
    fn no_bucket_is_never_taken_for_no_object() {
        let source = "status code: 404 Not Found: <Code>NoSuchBucket</Code>";
        let error = object_store::Error::NotFound {
            path: "k".to_owned(),
            source: source.into(),
        };
        assert!(matches!(s3().explain("k", &error), Error::Denied { .. }));
    }

    #[test]
    fn a_status_alone_is_enough() {
        for (status, advice) in [
            (503, Advice::Retry),
            (500, Advice::Retry),
            (400, Advice::Fix),
        ] {
            let text = format!("Server returned non-2xx status code: {status} X: ");
            assert_eq!(s3().explain("k", &generic(&text)).advice(), advice);
        }
    }

    #[test]
    fn one_deletion_of_a_batch_says_what_it_is() {
        let azure = Who::new("az://c".to_owned(), Kind::Azure);
        for (code, advice) in [(403, Advice::Fix), (500, Advice::Retry), (409, Advice::Fix)] {
            let text = format!("Bulk delete request failed for key (k): Reason (code: {code})");
            let error = azure.explain("k", &generic(&text));
            assert_eq!(error.advice(), advice, "{error}");
        }
    }

    #[test]
    fn outside_words_are_made_safe() {
        let said = s3().explain("k", &generic("a\u{1b}[31m\n\nb")).to_string();
        assert!(said.ends_with("a [31m b"), "{said:?}");
        assert_eq!(code("<Code>\u{1b}[2J</Code>"), None);
    }
}
