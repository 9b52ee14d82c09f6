//! TLS and dialing: whom to trust, who we are, and one way to `http://` and `https://` servers.
//!
//! What goes wrong is said in words that name the setting to look at. Certificates of this system are trusted unless a CA
//! file is named, which then is the only one trusted.

mod diagnosis;
mod exchange;

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower_service::Service as _;

pub use self::diagnosis::{Section, examine, explain};

/// The files that TLS needs. `Default` trusts what this system trusts and shows no certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Certificates of the CAs to trust, PEM; `None`: those of this system.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and those between it and its CA, PEM.
    pub certificate_file: Option<PathBuf>,
    /// Its private key, PEM, not encrypted.
    pub key_file: Option<PathBuf>,
}

/// Why TLS can't be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} (setting `{key}`)")]
pub struct TlsError {
    /// The setting within its section: `ca_file`, `certificate_file` or `key_file`.
    pub key: &'static str,
    /// What is wrong with it.
    pub what: String,
}

impl TlsError {
    fn of(key: &'static str, what: impl Into<String>) -> TlsError {
        TlsError { key, what: what.into() }
    }
}

impl TlsFiles {
    /// The certificates and the key, for rustls.
    ///
    /// # Errors
    /// A file can't be read or holds something else; certificate and key do not belong together; this system trusts no CA.
    pub fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let mut roots = RootCertStore::empty();
        let (key, found) = match &self.ca_file {
            Some(file) => ("ca_file", certificates(file).map_err(|what| TlsError::of("ca_file", what))?),
            // Files of the system's that can't be read are as good as not there.
            None => ("ca_file", rustls_native_certs::load_native_certs().certs),
        };
        let (trusted, _) = roots.add_parsable_certificates(found);
        if trusted == 0 {
            let what = match &self.ca_file {
                Some(file) => format!("{} holds no certificate that can be trusted", file.display()),
                None => "this system trusts no CA: install its package ca-certificates, or name a CA file".to_owned(),
            };
            return Err(TlsError::of(key, what));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::of(key, error.to_string()))?
            .with_root_certificates(roots);
        match (&self.certificate_file, &self.key_file) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate).map_err(|what| TlsError::of("certificate_file", what))?;
                let key = private_key(key).map_err(|what| TlsError::of("key_file", what))?;
                let refused = |error: rustls::Error| TlsError::of("certificate_file", format!("not usable: {error}"));
                builder.with_client_auth_cert(chain, key).map_err(refused)
            }
            (Some(_), None) => Err(TlsError::of("key_file", "missing, and certificate_file needs it")),
            (None, Some(_)) => Err(TlsError::of("certificate_file", "missing, and key_file belongs to one")),
        }
    }
}

/// All certificates of a PEM file, at least one.
///
/// # Errors
/// In words: the file can't be read, or has none.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", file.display())),
        Err(error) => Err(format!("{} is no PEM: {}", file.display(), kind(&error))),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            format!(
                "{} holds no private key in PEM that is not encrypted (-----BEGIN PRIVATE KEY-----)",
                file.display()
            )
        }
        error => format!("{} is no PEM: {}", file.display(), kind(&error)),
    })
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("can't read {}: {error}", file.display()))
}

/// What is wrong with a PEM file, without a byte of it: it may be a key.
fn kind(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section begins wrongly",
        pem::Error::Base64Decode(_) => "a section is no base64",
        _ => "it is damaged",
    }
}

/// An open connection, plain or under TLS, for hyper.
pub type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Opens connections: one for each call, never again by itself.
#[derive(Clone)]
pub struct Dialer {
    connector: HttpsConnector<HttpConnector>,
    section: Section,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialer({})", self.section.name)
    }
}

impl Dialer {
    /// For `http://` and `https://`; messages name the settings of `section`.
    ///
    /// # Errors
    /// As [`TlsFiles::client_config`].
    pub fn new(section: Section, files: &TlsFiles) -> Result<Dialer, TlsError> {
        Ok(Dialer::over(section, files.client_config()?))
    }

    /// For `http://` only: whoever is dialed by `https://` is not trusted.
    ///
    /// # Errors
    /// None that can be met: rustls refuses its own defaults.
    pub fn plain(section: Section) -> Result<Dialer, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::of("ca_file", error.to_string()))?;
        Ok(Dialer::over(section, builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()))
    }

    fn over(section: Section, config: ClientConfig) -> Dialer {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // A long query sends nothing meanwhile, and firewalls forget who is silent.
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        Dialer { connector: HttpsConnector::from((tcp, config)), section }
    }

    /// Dials the host of `uri` once; the scheme says whether under TLS. The caller bounds the time.
    ///
    /// # Errors
    /// In words, with the setting to look at.
    pub async fn dial(&self, uri: Uri) -> Result<Stream, String> {
        let dialed = self.connector.clone().call(uri).await;
        dialed.map_err(|error| self.explain(error.as_ref()))
    }

    /// The same for hyper's pooled client.
    pub fn connector(&self) -> HttpsConnector<HttpConnector> {
        self.connector.clone()
    }

    /// [`explain`] for this section: also what is found out about the handshake only when the first bytes are read.
    pub fn explain(&self, error: &(dyn Error + 'static)) -> String {
        explain(self.section, error)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
