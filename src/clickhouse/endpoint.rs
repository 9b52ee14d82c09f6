//! Where ClickHouse is, who we are there, and how long we wait for it.

use std::fmt;
use std::time::Duration;

use hyper::Uri;

use crate::tls::{Dialer, Section, TlsError, TlsFiles};

/// A ClickHouse server's HTTP interface.
#[derive(Clone)]
pub struct Endpoint {
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether HTTP is spoken under TLS.
    pub https: bool,
    /// Database of all tables.
    pub database: String,
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// How long dialing may take.
    pub connect_timeout: Duration,
    /// How long a question may take, from its first byte to the last of the answer.
    pub query_timeout: Duration,
    /// How long an insert may take, likewise.
    pub insert_timeout: Duration,
    /// Whether inserts are compressed.
    pub compressed: bool,
    /// Opens connections.
    pub(crate) dialer: Dialer,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password stays out of logs.
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

/// Why an address can't be used. None repeats it: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("the ClickHouse URL is not of the form http://host:port or https://host:port")]
    Malformed,
    /// User, password or both in the address.
    #[error(
        "the ClickHouse URL holds a user or a password; they have settings of their own, which are kept out of logs"
    )]
    Credentials,
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Endpoint {
    /// [`Endpoint::open`] with the trust of this system.
    ///
    /// # Errors
    /// As there.
    pub fn new(url: &str, database: &str, user: &str, password: &str) -> Result<Endpoint, EndpointError> {
        Endpoint::open(url, database, user, password, &TlsFiles::default())
    }

    /// Reads `http://host[:port][/]` or `https://…`; the port is 8123 or 8443 by default. Time-outs begin at 5 s for
    /// dialing, 30 s for a question and 120 s for an insert.
    ///
    /// # Errors
    /// The URL is another, or holds credentials; the files for TLS can't be used.
    pub fn open(
        url: &str,
        database: &str,
        user: &str,
        password: &str,
        files: &TlsFiles,
    ) -> Result<Endpoint, EndpointError> {
        let names_somebody = ["user=", "password="].iter().any(|name| url.contains(name));
        if url.contains('@') || names_somebody {
            return Err(EndpointError::Credentials);
        }
        let uri: Uri = url.parse().map_err(|_| EndpointError::Malformed)?;
        let (https, port) = match uri.scheme_str() {
            Some("http") => (false, 8123),
            Some("https") => (true, 8443),
            _ => return Err(EndpointError::Malformed),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(EndpointError::Malformed)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(EndpointError::Malformed);
        }
        let section = Section::CLICKHOUSE;
        Ok(Endpoint {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(port),
            https,
            database: database.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
            connect_timeout: Duration::from_secs(5),
            query_timeout: Duration::from_secs(30),
            insert_timeout: Duration::from_secs(120),
            compressed: true,
            dialer: if https { Dialer::new(section, files)? } else { Dialer::plain(section)? },
        })
    }

    /// The value of the `Host` header.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Scheme, host and port.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        let at = |url: &str| Endpoint::new(url, "d", "u", "p").map(|e| (e.host.clone(), e.port, e.url()));
        assert_eq!(at("http://db:8124"), Ok(("db".into(), 8124, "http://db:8124".into())));
        assert_eq!(at("http://db/"), Ok(("db".into(), 8123, "http://db:8123".into())));
        assert_eq!(at("http://[::1]:9"), Ok(("::1".into(), 9, "http://[::1]:9".into())));
        for bad in ["", "db:8123", "http://", "http://db:8123/path", "http://db?x=1", "tcp://db:9000"] {
            assert_eq!(at(bad), Err(EndpointError::Malformed), "{bad:?} was taken");
        }
        for bad in ["http://u:p@db", "http://u@db", "https://u:p#x@db", "http://db/?user=u&password=p"] {
            assert_eq!(at(bad), Err(EndpointError::Credentials), "{bad:?} was taken");
        }
    }

    #[test]
    fn https_trusts_whom_it_is_told_to() {
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::new(vec!["ca".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, ca).unwrap();
        let files = TlsFiles { ca_file: Some(ca_file), ..TlsFiles::default() };
        let endpoint = Endpoint::open("https://db", "d", "u", "p", &files).unwrap();
        assert_eq!((endpoint.https, endpoint.port, endpoint.url()), (true, 8443, "https://db:8443".into()));
        let files = TlsFiles { ca_file: Some("/does/not/exist".into()), ..TlsFiles::default() };
        let error = Endpoint::open("https://db", "d", "u", "p", &files).unwrap_err();
        assert!(error.to_string().contains("ca_file") && error.to_string().contains("/does/not/exist"), "{error}");
    }

    #[test]
    fn never_shows_the_password() {
        let endpoint = Endpoint::new("http://db", "d", "u", "secret").unwrap();
        assert!(!format!("{endpoint:?}").contains("secret"));
    }
}
