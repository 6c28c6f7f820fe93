//! Pure: why no encrypted connection to a store came about.

use std::error::Error;
use std::io;

use rustls::{CertificateError, InvalidMessage};

use crate::trust;
use crate::url::Kind;

/// rustls's own word, wherever in the chain it lies. An [`io::Error`] that wraps one does
/// not name it as its source.
pub(crate) fn find(error: &(dyn Error + 'static)) -> Option<rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found.clone());
        }
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// One sentence: what is wrong, and what to do.
pub(crate) fn explain(error: &rustls::Error, kind: Kind) -> String {
    use CertificateError as C;
    let why = match error {
        rustls::Error::InvalidCertificate(why) => why,
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            return "its address begins with https://, but what answers there does not encrypt"
                .to_owned();
        }
        other => return format!("no encrypted connection came about: {other}"),
    };
    match why {
        C::UnknownIssuer => format!(
            "its certificate comes from an authority that is not known here; {}",
            trust::advice(kind)
        ),
        C::Expired | C::ExpiredContext { .. } => {
            "its certificate has expired, or this host's clock is wrong; renew it".to_owned()
        }
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "its certificate is not valid yet, or this host's clock is wrong".to_owned()
        }
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            "its certificate is another name's; use an address that it names".to_owned()
        }
        C::Revoked => "its certificate was revoked; renew it".to_owned(),
        other => {
            let why = rustls::Error::InvalidCertificate(other.clone()).to_string();
            // rustls hands on this word of its verifier's as text alone.
            if why.contains("CaUsedAsEndEntity") {
                return "its certificate is an authority's own (CA:TRUE), as one that signed \
                        itself often is: give the server one that the authority issued"
                    .to_owned();
            }
            format!("its certificate will not do: {why}")
        }
    }
}
