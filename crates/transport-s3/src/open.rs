//! From a URL, options and the environment to a store.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use logchain_core::transport::{Error, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};

use crate::failure::Who;
use crate::store::StoreTransport;
use crate::trust;
use crate::url::{Kind, StoreUrl};

/// A store that is there is connected to within this.
const CONNECT: Duration = Duration::from_secs(5);

/// No request is begun again after this: whoever called may try again later.
const RETRY: Duration = Duration::from_secs(15);

/// How often a request is begun again.
const RETRIES: usize = 6;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// How long one call may take, all its tries included; a single request takes
    /// at most half of it.
    pub patience: Duration,
    /// object_store's own names and what they are set to, as `("region", "eu-1")`;
    /// they win over the environment.
    pub settings: Vec<(String, String)>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(60),
            settings: Vec::new(),
        }
    }
}

impl StoreTransport {
    /// The store behind a URL, configured by `options` and the environment:
    /// whatever begins with `AWS_`, `GOOGLE_` or `AZURE_` and is a name that
    /// object_store knows; and `AWS_CA_BUNDLE` or `SSL_CERT_FILE`, files with the
    /// certificates of authorities. Nothing is asked of the store yet:
    /// [`StoreTransport::probe`] does.
    ///
    /// Reads files: call it where blocking is no harm.
    ///
    /// # Errors
    /// [`Error::Denied`] where the options contradict each other or lack something, or a file
    /// that is named cannot be read.
    pub fn open(url: &StoreUrl, options: &StoreOptions) -> Result<Self> {
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::open_in(url, options, environment)
    }

    /// As [`StoreTransport::open`], with an environment that is given.
    ///
    /// # Errors
    /// As [`StoreTransport::open`].
    pub fn open_in(
        url: &StoreUrl,
        options: &StoreOptions,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        // One that an embedder has chosen stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let who = Who::new(url.to_string(), url.kind());
        let prefix = match url.kind() {
            Kind::Google => "GOOGLE_",
            Kind::Azure => "AZURE_",
            Kind::Amazon | Kind::Other => "AWS_",
        };
        let environment: Vec<_> = environment.into_iter().collect();
        let authorities = trust::authorities(url.kind(), &environment);
        let given = Given {
            authorities: authorities.map_err(|reason| who.denied(reason))?,
            environment: environment
                .into_iter()
                .filter(|(name, _)| name.starts_with(prefix))
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
            options,
            who: &who,
        };
        let built: object_store::Result<Arc<dyn ObjectStore>> = match url.kind() {
            Kind::Google => given
                .configure::<_, GoogleConfigKey>(
                    GoogleCloudStorageBuilder::new()
                        .with_client_options(given.client())
                        .with_retry(given.retry()),
                    |builder, key, value| builder.with_config(key, value),
                )?
                .with_bucket_name(url.bucket())
                .build()
                .map(|store| Arc::new(store) as _),
            Kind::Azure => given
                .configure::<_, AzureConfigKey>(
                    MicrosoftAzureBuilder::new()
                        .with_client_options(given.client())
                        .with_retry(given.retry()),
                    |builder, key, value| builder.with_config(key, value),
                )?
                .with_container_name(url.bucket())
                .build()
                .map(|store| Arc::new(store) as _),
            Kind::Amazon | Kind::Other => given
                .configure::<_, AmazonS3ConfigKey>(
                    AmazonS3Builder::new()
                        .with_client_options(given.client())
                        .with_retry(given.retry())
                        .with_unsigned_payload(given.is_encrypted())
                        // We delete one by one, which every store understands.
                        .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true"),
                    |builder, key, value| builder.with_config(key, value),
                )?
                .with_bucket_name(url.bucket())
                .build()
                .map(|store| Arc::new(store) as _),
        };
        let store = built.map_err(|e| who.misconfigured(&e))?;
        let transport = Self::new(store, &url.store(), url.prefix());
        // Amazon's directory buckets are the only ones that list in no order.
        let ordered = !url.bucket().ends_with("--x-s3");
        Ok(transport
            .of_kind(who, ordered)
            .with_patience(options.patience))
    }
}

/// All that configures a store.
struct Given<'a> {
    authorities: Vec<Certificate>,
    environment: Vec<(String, String)>,
    options: &'a StoreOptions,
    who: &'a Who,
}

impl Given<'_> {
    fn client(&self) -> ClientOptions {
        let request = (self.options.patience / 2).max(Duration::from_secs(1));
        let client = ClientOptions::new()
            .with_timeout(request)
            .with_connect_timeout(CONNECT.min(request));
        let authorities = self.authorities.iter().cloned();
        authorities.fold(client, ClientOptions::with_root_certificate)
    }

    fn retry(&self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(3),
                base: 2.0,
            },
            max_retries: RETRIES,
            retry_timeout: RETRY.min(self.options.patience / 2),
        }
    }

    /// TLS protects what is sent: hashing it once more for the signature would only
    /// take time, at both ends.
    fn is_encrypted(&self) -> bool {
        use AmazonS3ConfigKey::{Endpoint, S3Endpoint};
        let mut all = self.environment.iter().chain(&self.options.settings);
        all.all(|(name, value)| {
            let names_it = matches!(name.parse(), Ok(Endpoint | S3Endpoint));
            !names_it || value.starts_with("https://")
        })
    }

    fn configure<B, K: FromStr>(
        &self,
        mut builder: B,
        with: fn(B, K, String) -> B,
    ) -> Result<B, Error> {
        for (name, value) in &self.environment {
            // Others use variables of these beginnings too.
            if let Ok(key) = name.parse() {
                builder = with(builder, key, value.clone());
            }
        }
        for (name, value) in &self.options.settings {
            let key = name.parse().map_err(|_| Error::Denied {
                transport: self.who.name().to_owned(),
                reason: format!("there is no option {name:?} for such a store"),
            })?;
            builder = with(builder, key, value.clone());
        }
        Ok(builder)
    }
}
