//! Certificate authorities and what they sign, as files.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};

/// An authority that lives as long as a test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub folder: tempfile::TempDir,
    pub ca_file: PathBuf,
}

/// A certificate and its key, PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
    /// Key and certificate in one file.
    pub keystore: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { issuer: Issuer::new(params, key), folder, ca_file }
    }

    /// For a host, until the end of a year.
    pub fn issue(&self, host: &str, until: i32) -> Issued {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let key = key.serialize_pem();
        let file = |name: &str, text: &str| {
            let path = self.folder.path().join(format!("{host}-{until}-{name}.pem"));
            std::fs::write(&path, text).unwrap();
            path
        };
        Issued {
            certificate_file: file("certificate", &certificate),
            key_file: file("key", &key),
            keystore: file("keystore", &format!("{key}{certificate}")),
            certificate,
            key,
        }
    }
}
