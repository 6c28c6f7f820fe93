//! Where the certificates lie, and what TLS makes of them.
//!
//! Must not know: when they are read again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::files::{self, Stamp};
use crate::protocol::ALPN;
use crate::verify::ChainVerifier;

/// The files of a host's certificates, all PEM. Who listens uses the server's pair, who connects
/// the client's; one certificate that is good for both may stand for both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pki {
    /// Certificates of the CAs.
    pub ca: PathBuf,
    /// Lists of what the CAs revoked. A file that does not exist revokes nothing.
    pub crl: Option<PathBuf>,
    /// The certificate of who listens, and those between it and the CA.
    pub server_certificate: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// The certificate of who connects, and those between it and the CA.
    pub client_certificate: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

/// Why certificates are of no use: which file, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}", path = path.display())]
pub struct PkiError {
    path: PathBuf,
    reason: String,
}

impl PkiError {
    fn of(path: &Path, reason: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Pki {
    /// Where libvirt has them: below `/etc/pki`.
    #[must_use]
    pub fn libvirt() -> Self {
        let ours = |name: &str| Path::new("/etc/pki/libvirt").join(name);
        Self {
            ca: "/etc/pki/CA/cacert.pem".into(),
            crl: Some("/etc/pki/CA/cacrl.pem".into()),
            server_certificate: ours("servercert.pem"),
            server_key: ours("private/serverkey.pem"),
            client_certificate: ours("clientcert.pem"),
            client_key: ours("private/clientkey.pem"),
        }
    }

    /// All in one folder, as below `~/.pki/libvirt`.
    #[must_use]
    pub fn in_folder(folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        Self {
            ca: folder.join("cacert.pem"),
            crl: Some(folder.join("cacrl.pem")),
            server_certificate: folder.join("servercert.pem"),
            server_key: folder.join("serverkey.pem"),
            client_certificate: folder.join("clientcert.pem"),
            client_key: folder.join("clientkey.pem"),
        }
    }
}

/// What either end of a connection has, from its files.
pub(crate) trait Tls: Send + Sync + Sized + 'static {
    fn certificate(pki: &Pki) -> &Path;
    fn key(pki: &Pki) -> &Path;
    fn build(pki: &Pki, trust: Trust, identity: Identity) -> Result<Self, PkiError>;

    /// Blocks.
    fn load(pki: &Pki) -> Result<Self, PkiError> {
        let trust = Trust::load(pki)?;
        let identity = Identity::load(Self::certificate(pki), Self::key(pki))?;
        Self::build(pki, trust, identity)
    }

    /// Blocks, for a moment.
    fn stamps(pki: &Pki) -> Vec<Stamp> {
        let always = [pki.ca.as_path(), Self::certificate(pki), Self::key(pki)];
        let paths = always.into_iter().chain(pki.crl.as_deref());
        paths.map(files::stamp).collect()
    }
}

/// Whom to believe.
pub(crate) struct Trust {
    pub(crate) roots: RootCertStore,
    pub(crate) crls: Vec<CertificateRevocationListDer<'static>>,
}

/// Our own certificate.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Trust {
    fn load(pki: &Pki) -> Result<Self, PkiError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&pki.ca)? {
            roots.add(certificate).map_err(|e| {
                PkiError::of(
                    &pki.ca,
                    format!("it has a certificate that is no CA's: {e}"),
                )
            })?;
        }
        let crls = match &pki.crl {
            Some(path) if files::stamp(path).is_some() => {
                let data = read(path)?;
                let crls = CertificateRevocationListDer::pem_slice_iter(&data);
                crls.collect::<Result<_, _>>().map_err(|e| pem(path, &e))?
            }
            _ => Vec::new(),
        };
        Ok(Self { roots, crls })
    }
}

impl Identity {
    fn load(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        let chain = certificates(certificate)?;
        let data = read(key)?;
        let key = PrivateKeyDer::from_pem_slice(&data).map_err(|e| match e {
            PemError::NoItemsFound => PkiError::of(key, "it has no key that is not encrypted"),
            e => pem(key, &e),
        })?;
        Ok(Self { chain, key })
    }
}

impl Tls for ServerConfig {
    fn certificate(pki: &Pki) -> &Path {
        &pki.server_certificate
    }

    fn key(pki: &Pki) -> &Path {
        &pki.server_key
    }

    fn build(pki: &Pki, trust: Trust, identity: Identity) -> Result<Self, PkiError> {
        let Trust { roots, crls } = trust;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .with_crls(crls)
            // A list of one CA says nothing of another's.
            .allow_unknown_revocation_status()
            .build()
            .map_err(|e| PkiError::of(pki.crl.as_deref().unwrap_or(&pki.ca), e.to_string()))?;
        let mut config = Self::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|config| {
                let config = config.with_client_cert_verifier(verifier);
                config.with_single_cert(identity.chain, identity.key)
            })
            .map_err(|e| unfit(&pki.server_certificate, &pki.server_key, &e))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Who is resumed is not asked for a certificate again, so nobody is.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl Tls for ClientConfig {
    fn certificate(pki: &Pki) -> &Path {
        &pki.client_certificate
    }

    fn key(pki: &Pki) -> &Path {
        &pki.client_key
    }

    fn build(pki: &Pki, trust: Trust, identity: Identity) -> Result<Self, PkiError> {
        let verifier = ChainVerifier::new(trust, &provider())
            .map_err(|e| PkiError::of(pki.crl.as_deref().unwrap_or(&pki.ca), e))?;
        let mut config = Self::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|config| {
                config
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(verifier))
                    .with_client_auth_cert(identity.chain, identity.key)
            })
            .map_err(|e| unfit(&pki.client_certificate, &pki.client_key, &e))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }
}

/// Ours, whatever a program chose as its default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unfit(certificate: &Path, key: &Path, error: &rustls::Error) -> PkiError {
    match error {
        rustls::Error::InconsistentKeys(_) => PkiError::of(
            certificate,
            format!("it does not belong to the key in {}", key.display()),
        ),
        e => PkiError::of(certificate, format!("it is of no use with its key: {e}")),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let data = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&data).collect();
    let found = found.map_err(|e| pem(path, &e))?;
    match found.is_empty() {
        true => Err(PkiError::of(path, "it has no certificate")),
        false => Ok(found),
    }
}

fn pem(path: &Path, error: &PemError) -> PkiError {
    PkiError::of(path, format!("it is damaged: {error}"))
}

fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    files::read(path).map_err(|e| PkiError::of(path, e.to_string()))
}
