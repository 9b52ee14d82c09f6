//! Where ClickHouse is, who we are there, and how long we wait for it.

use std::fmt;
use std::time::Duration;

use hyper::Uri;

/// A ClickHouse server's HTTP interface.
#[derive(Clone)]
pub struct Endpoint {
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
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
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password stays out of logs.
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

/// Why an address can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("the ClickHouse URL {0:?} is not of the form http://host:port")]
    Malformed(String),
    /// TLS.
    #[error(
        "the ClickHouse URL {0:?} asks for https, which highwater does not speak yet; use the plain HTTP port (8123) or a \
         TLS tunnel on this machine"
    )]
    Https(String),
}

impl Endpoint {
    /// Reads `http://host[:port][/]`; the port is 8123 by default. Time-outs begin at 5 s for dialing, 30 s for a
    /// question and 120 s for an insert.
    pub fn new(url: &str, database: &str, user: &str, password: &str) -> Result<Endpoint, EndpointError> {
        let malformed = || EndpointError::Malformed(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(EndpointError::Https(url.to_owned())),
            _ => return Err(malformed()),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(malformed)?;
        let extra = !matches!(uri.path(), "" | "/") || uri.query().is_some();
        let in_authority = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if extra || in_authority {
            return Err(malformed());
        }
        Ok(Endpoint {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(8123),
            database: database.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
            connect_timeout: Duration::from_secs(5),
            query_timeout: Duration::from_secs(30),
            insert_timeout: Duration::from_secs(120),
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
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        let at = |url: &str| Endpoint::new(url, "d", "u", "p").map(|e| (e.host.clone(), e.port, e.authority()));
        assert_eq!(at("http://db:8124"), Ok(("db".into(), 8124, "db:8124".into())));
        assert_eq!(at("http://db/"), Ok(("db".into(), 8123, "db:8123".into())));
        assert_eq!(at("http://[::1]:9"), Ok(("::1".into(), 9, "[::1]:9".into())));
        assert!(matches!(at("https://db:8443"), Err(EndpointError::Https(_))));
        for bad in ["", "db:8123", "http://", "http://db:8123/path", "http://db?x=1", "http://u:p@db", "tcp://db:9000"]
        {
            assert!(matches!(at(bad), Err(EndpointError::Malformed(_))), "{bad:?} was taken");
        }
    }

    #[test]
    fn never_shows_the_password() {
        let endpoint = Endpoint::new("http://db", "d", "u", "secret").unwrap();
        assert!(!format!("{endpoint:?}").contains("secret"));
    }
}
