//! What is refused, and in which words.

use std::io::Write as _;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn refused(ca: Option<&str>, certificate: Option<&str>, key: Option<&str>) -> TlsError {
    let made = [ca, certificate, key].map(|text| text.map(file));
    let path = |at: usize| made[at].as_ref().map(|file| file.path().to_owned());
    let files = TlsFiles { ca_file: path(0), certificate_file: path(1), key_file: path(2) };
    files.client_config().unwrap_err()
}

#[test]
fn files_that_belong_together_are_taken() {
    let (certificate, key) = pair();
    let (ca, certificate, key) = (file(&certificate), file(&certificate), file(&key));
    let path = |file: &tempfile::NamedTempFile| Some(file.path().to_owned());
    let files = TlsFiles { ca_file: path(&ca), certificate_file: path(&certificate), key_file: path(&key) };
    assert!(files.client_config().unwrap().client_auth_cert_resolver.has_certs());
    let trusting = TlsFiles { ca_file: path(&ca), ..TlsFiles::default() };
    assert!(!trusting.client_config().unwrap().client_auth_cert_resolver.has_certs());
}

#[test]
fn bad_files_are_told_by_their_setting_and_never_shown() {
    let (certificate, key) = pair();
    let (_, other_key) = pair();
    let secret = key.lines().nth(1).unwrap().to_owned();
    let damaged = format!("-----BEGIN PRIVATE KEY-----\n{secret}!\n-----END PRIVATE KEY-----\n");
    let endless = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n");
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let ca = Some(certificate.as_str());
    let cases = [
        (refused(Some(""), None, None), "ca_file", "no certificate"),
        (refused(Some("certificate"), None, None), "ca_file", "no certificate"),
        (refused(Some(&key), None, None), "ca_file", "no certificate"),
        (refused(ca, Some(&certificate), None), "key_file", "missing"),
        (refused(ca, None, Some(&key)), "certificate_file", "missing"),
        (refused(ca, Some(&key), Some(&key)), "certificate_file", "no certificate"),
        (refused(ca, Some(&certificate), Some(&certificate)), "key_file", "no private key"),
        (refused(ca, Some(&certificate), Some(&encrypted)), "key_file", "not encrypted"),
        (refused(ca, Some(&certificate), Some(&damaged)), "key_file", "base64"),
        (refused(ca, Some(&certificate), Some(&endless)), "key_file", "no end"),
        (refused(ca, Some(&certificate), Some(&other_key)), "certificate_file", "not usable"),
    ];
    for (error, key, part) in cases {
        assert_eq!(error.key, key, "{error}");
        assert!(error.what.contains(part), "{error}");
        assert!(!error.to_string().contains(&secret), "{error}");
    }
    let missing = TlsFiles { ca_file: Some("/does/not/exist".into()), ..TlsFiles::default() };
    assert!(missing.client_config().unwrap_err().what.contains("/does/not/exist"));
}

#[test]
fn a_wrapped_error_is_found_and_names_its_setting() {
    let inner = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    let wrapped = std::io::Error::other(std::io::Error::new(std::io::ErrorKind::InvalidData, inner));
    let said = explain(Section::CLICKHOUSE, &wrapped);
    assert!(said.contains("clickhouse.ca_file") && said.contains("trusted"), "{said}");
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
    assert!(explain(Section::KAFKA, &alert).contains("kafka.certificate_file"));
    let other = std::io::Error::other("refused");
    assert_eq!(explain(Section::KAFKA, &other), "refused");
}
