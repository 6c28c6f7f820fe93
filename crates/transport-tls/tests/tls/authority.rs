//! Certificates for tests: CAs, and hosts with a folder of files.

use std::fs;
use std::path::Path;

use logchain_transport_tls::Pki;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) pem: String,
}

/// What a certificate says.
#[derive(Clone)]
pub(crate) struct Says<'a> {
    pub(crate) cn: &'a str,
    pub(crate) alternatives: &'a [&'a str],
    pub(crate) until: i32,
    pub(crate) purposes: &'a [ExtendedKeyUsagePurpose],
    pub(crate) serial: u64,
}

impl Default for Says<'_> {
    fn default() -> Self {
        Self {
            cn: "h1",
            alternatives: &["127.0.0.1"],
            until: 2090,
            purposes: &[
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            serial: 7,
        }
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::made(name, None)
    }

    /// One that another one vouches for.
    pub(crate) fn under(name: &str, parent: &Self) -> Self {
        Self::made(name, Some(parent))
    }

    fn made(name: &str, parent: Option<&Self>) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = match parent {
            Some(parent) => {
                params.signed_by(&key, &Issuer::from_params(&parent.params, &parent.key))
            }
            None => params.self_signed(&key),
        };
        let pem = certificate.unwrap().pem();
        Self { params, key, pem }
    }

    /// A certificate and its key.
    pub(crate) fn issue(&self, says: &Says<'_>) -> (String, String) {
        let alternatives: Vec<String> = says.alternatives.iter().map(|s| (*s).into()).collect();
        let mut params = CertificateParams::new(alternatives).unwrap();
        params.distinguished_name = DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(DnType::CountryName, "GB");
        name.push(DnType::OrganizationName, "Red Hat");
        name.push(DnType::CommonName, says.cn);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(says.until, 1, 1);
        params.extended_key_usages = says.purposes.to_vec();
        params.serial_number = Some(SerialNumber::from(says.serial));
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = Issuer::from_params(&self.params, &self.key);
        list.signed_by(&issuer).unwrap().pem().unwrap()
    }

    /// A host whose certificate is good for both ends.
    pub(crate) fn host(&self, says: &Says<'_>) -> Host {
        let host = Host(TempDir::new().unwrap());
        host.write("cacert.pem", &self.pem);
        host.renew(self, says);
        host
    }

    pub(crate) fn named(&self, cn: &str) -> Host {
        self.host(&Says {
            cn,
            ..Says::default()
        })
    }
}

/// A folder of files.
pub(crate) struct Host(TempDir);

impl Host {
    pub(crate) fn pki(&self) -> Pki {
        Pki::in_folder(self.0.path())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// As whoever renews certificates should: the file is replaced.
    #[expect(clippy::disallowed_methods, reason = "overwriting is the point")]
    pub(crate) fn write(&self, name: &str, text: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.0.path().join(name)).unwrap();
    }

    pub(crate) fn renew(&self, authority: &Authority, says: &Says<'_>) {
        let (certificate, key) = authority.issue(says);
        for end in ["server", "client"] {
            self.write(&format!("{end}cert.pem"), &certificate);
            self.write(&format!("{end}key.pem"), &key);
        }
    }
}
