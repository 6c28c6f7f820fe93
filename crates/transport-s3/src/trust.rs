//! Which authorities may vouch for a store, beside the system's: a private store often has
//! one of its own.

use std::fs;

use object_store::Certificate;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::url::Kind;

/// In place of the system's authorities, for every store. rustls reads it itself, and
/// passes over one that cannot be read.
const REPLACES: &str = "SSL_CERT_FILE";

/// Far above a system's own.
const MAX_BUNDLE: u64 = 16 << 20;

/// What adds to the system's authorities, as the store's own tools have it.
fn adds(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Amazon | Kind::Other => Some("AWS_CA_BUNDLE"),
        Kind::Google | Kind::Azure => None,
    }
}

/// What to set where an authority is not known.
pub(crate) fn advice(kind: Kind) -> String {
    match adds(kind) {
        Some(variable) => {
            format!("set {variable} to a file with the certificate of the authority that issued it")
        }
        None => format!(
            "set {REPLACES} to a file with the certificates of all authorities to be trusted, \
             the one that issued it among them"
        ),
    }
}

/// The authorities that the environment adds. Reads files.
///
/// # Errors
/// What is wrong with a file, and which it is.
pub(crate) fn authorities(
    kind: Kind,
    environment: &[(String, String)],
) -> Result<Vec<Certificate>, String> {
    let named = |variable: &str| {
        let set = environment.iter().find(|(name, _)| name == variable);
        set.map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    };
    if let Some(path) = named(REPLACES) {
        read(REPLACES, path)?;
    }
    let Some((variable, path)) = adds(kind).and_then(|v| Some((v, named(v)?))) else {
        return Ok(Vec::new());
    };
    let found = read(variable, path)?.into_iter();
    found
        .map(|authority| Certificate::from_der(&authority))
        .collect::<Result<_, _>>()
        .map_err(|e| format!("{variable}: {path}: {e}"))
}

fn read(variable: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |e: &dyn std::fmt::Display| format!("{variable}: cannot read {path}: {e}");
    let meta = fs::metadata(path).map_err(|e| unreadable(&e))?;
    if !meta.is_file() || meta.len() > MAX_BUNDLE {
        return Err(unreadable(&"it is no file of certificates"));
    }
    let pem = fs::read(path).map_err(|e| unreadable(&e))?;
    // As with the system's own, one that nobody understands spoils no other.
    let fits =
        |authority: &CertificateDer<'static>| RootCertStore::empty().add(authority.clone()).is_ok();
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .flatten()
        .filter(fits)
        .collect();
    if found.is_empty() {
        return Err(format!(
            "{variable}: there is no certificate in {path}; it takes PEM, which begins with \
             -----BEGIN CERTIFICATE-----"
        ));
    }
    Ok(found)
}
