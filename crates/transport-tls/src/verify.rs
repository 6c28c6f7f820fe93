//! Checks a server's certificate: that it is of the CA, in force, not revoked, and for servers.
//!
//! It is not compared with what was dialled. Agents find each other by addresses in sockets, for
//! which no certificate was made; whether the names in it fit is for the
//! [link](crate::ExpectedPeer) to say.
//!
//! Must not know: names.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};

use crate::pki::Trust;

pub(crate) struct ChainVerifier {
    roots: RootCertStore,
    crls: Vec<CertRevocationList<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ChainVerifier {
    pub(crate) fn new(trust: Trust, provider: &CryptoProvider) -> Result<Self, String> {
        let read = |crl: &rustls::pki_types::CertificateRevocationListDer<'_>| {
            let crl = OwnedCertRevocationList::from_der(crl).map_err(|e| e.to_string())?;
            Ok::<_, String>(CertRevocationList::from(crl))
        };
        Ok(Self {
            crls: trust.crls.iter().map(read).collect::<Result<_, _>>()?,
            roots: trust.roots,
            algorithms: provider.signature_verification_algorithms,
        })
    }
}

impl fmt::Debug for ChainVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainVerifier({} CAs)", self.roots.len())
    }
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        // Fails where there is no list, and then nothing is revoked.
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|options| {
            // A list of one CA says nothing of another's.
            options
                .with_status_policy(UnknownStatusPolicy::Allow)
                .build()
        });
        EndEntityCert::try_from(end_entity)
            .and_then(|certificate| {
                certificate
                    .verify_for_usage(
                        self.algorithms.all,
                        &self.roots.roots,
                        intermediates,
                        now,
                        KeyUsage::server_auth(),
                        revocation,
                        None,
                    )
                    .map(drop)
            })
            .map(|()| ServerCertVerified::assertion())
            .map_err(|e| Error::InvalidCertificate(refused(e)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// As rustls says it, so that the server gets the alert that fits.
fn refused(error: webpki::Error) -> CertificateError {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::CertRevoked => CertificateError::Revoked,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}
