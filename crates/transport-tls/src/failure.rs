//! Why there is no connection to an agent, in one sentence that an operator can act on.
//!
//! Must not know: sockets.

use std::io;

use logchain_core::transport::Error;
use logchain_transport_wire::{DialFailure, Outcome};
use rustls::{AlertDescription, CertificateError};

use crate::Pki;

/// Why a connection could not be made.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    outcome: Outcome,
    sentence: String,
}

impl Failure {
    pub(crate) fn of(outcome: Outcome, sentence: impl Into<String>) -> Self {
        let sentence = sentence.into();
        Self { outcome, sentence }
    }

    pub(crate) fn denied(sentence: impl Into<String>) -> Self {
        Self::of(Outcome::Denied, sentence)
    }

    pub(crate) fn unreachable(sentence: impl Into<String>) -> Self {
        Self::of(Outcome::Unreachable, sentence)
    }

    /// Of a handshake, or of what came instead of a greeting after it.
    pub(crate) fn handshake(error: &io::Error, pki: &Pki) -> Self {
        let inner = error.get_ref().and_then(|e| e.downcast_ref());
        match inner {
            Some(rustls::Error::InvalidCertificate(e)) => Self::denied(its_certificate(e, pki)),
            Some(rustls::Error::AlertReceived(alert)) => Self::denied(our_certificate(*alert, pki)),
            Some(rustls::Error::InvalidMessage(_)) => {
                Self::denied("what answers there does not speak TLS")
            }
            Some(rustls::Error::NoApplicationProtocol) => Self::other_service(),
            Some(e) => Self::denied(format!("TLS fails: {e}")),
            None if error.kind() == io::ErrorKind::Unsupported => {
                Self::denied(format!("{error}; bring both to one release"))
            }
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::unreachable("the connection was closed during the handshake")
            }
            None if error.kind() == io::ErrorKind::InvalidData => Self::denied(error.to_string()),
            None => Self::unreachable(format!("the handshake broke off: {error}")),
        }
    }

    pub(crate) fn other_service() -> Self {
        Self::denied("what answers there is no logchain agent")
    }
}

fn its_certificate(error: &CertificateError, pki: &Pki) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            format!("its certificate is not of the CA in {}", pki.ca.display())
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not in force yet; see whether the clocks agree".to_owned()
        }
        CertificateError::Revoked => "its certificate was revoked".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not one for servers".to_owned()
        }
        other => format!("its certificate is of no use: {other}"),
    }
}

/// What it does not like in ours.
fn our_certificate(alert: AlertDescription, pki: &Pki) -> String {
    let ours = pki.client_certificate.display();
    match alert {
        AlertDescription::UnknownCA => {
            format!("it does not know the CA of this host's certificate {ours}")
        }
        AlertDescription::CertificateExpired => {
            format!(
                "to it this host's certificate {ours} has expired; see whether the clocks agree"
            )
        }
        AlertDescription::CertificateRevoked => {
            format!("this host's certificate {ours} was revoked")
        }
        AlertDescription::UnsupportedCertificate => {
            format!("this host's certificate {ours} is not one for clients")
        }
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            format!("it has no use for this host's certificate {ours}")
        }
        AlertDescription::NoApplicationProtocol | AlertDescription::HandshakeFailure => {
            "what answers there is no logchain agent".to_owned()
        }
        AlertDescription::ProtocolVersion => "it does not speak TLS 1.3".to_owned(),
        other => format!("it ended the handshake: {other:?}"),
    }
}

impl DialFailure for Failure {
    fn broke() -> Self {
        Self::unreachable("the connection broke")
    }

    fn into_error(self, transport: String) -> Error {
        self.outcome.into_error(transport, "", self.sentence)
    }
}
