//! Where the schema registry is, and who we are there.

use std::fmt;
use std::time::Duration;

use hyper::Uri;

use crate::tls::{Dialer, Section, TlsError, TlsFiles};

/// A registry's address: `http://host[:port][/path]` or `https://…`, to which `/schemas/ids/…` is added.
#[derive(Clone)]
pub struct Endpoint {
    /// Host name or address, without brackets.
    host: String,
    /// TCP port.
    port: u16,
    /// Whether HTTP is spoken under TLS.
    pub(crate) https: bool,
    /// What stands before `/schemas` and `/subjects`: empty, or beginning with `/` and not ending so.
    pub(super) path: String,
    /// The value of the header `Authorization`.
    pub(super) authorization: Option<String>,
    /// How long a question may take in all.
    pub(super) timeout: Duration,
    /// Opens connections.
    pub(super) dialer: Dialer,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password stays out of logs.
        write!(f, "{}{}", self.authority(), self.path)
    }
}

/// Why an address can't be used. None repeats it: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL, or one with more in it.
    #[error(
        "the schema registry's URL is not of the form http://host:port or https://host:port, with a path or without; user and \
         password have settings of their own"
    )]
    Malformed,
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Endpoint {
    /// [`Endpoint::open`] with the trust of this system.
    ///
    /// # Errors
    /// As there.
    pub fn new(url: &str, user: &str, password: &str, timeout: Duration) -> Result<Endpoint, EndpointError> {
        Endpoint::open(url, user, password, timeout, &TlsFiles::default())
    }

    /// Reads a URL; the port is 80 or 443 by default. Without a user nobody is named.
    ///
    /// # Errors
    /// It is no such URL; the files for TLS can't be used.
    pub fn open(
        url: &str,
        user: &str,
        password: &str,
        timeout: Duration,
        files: &TlsFiles,
    ) -> Result<Endpoint, EndpointError> {
        let uri: Uri = url.parse().map_err(|_| EndpointError::Malformed)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(EndpointError::Malformed)?;
        let in_authority = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let (https, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(EndpointError::Malformed),
        };
        if in_authority || uri.query().is_some() {
            return Err(EndpointError::Malformed);
        }
        let section = Section::REGISTRY;
        Ok(Endpoint {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(port),
            https,
            path: uri.path().trim_end_matches('/').to_owned(),
            authorization: (!user.is_empty())
                .then(|| format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))),
            timeout,
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

/// Base64 with padding, RFC 4648 section 4.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, &byte| (group << 8) | u32::from(byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = (group >> (18 - 6 * digit)) & 63;
            out.push(if digit <= chunk.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(url: &str) -> Result<(String, String), EndpointError> {
        Endpoint::new(url, "", "", Duration::ZERO).map(|endpoint| (endpoint.authority(), endpoint.path))
    }

    #[test]
    fn reads_urls() {
        assert_eq!(at("http://sr:8081"), Ok(("sr:8081".into(), String::new())));
        assert_eq!(at("http://sr/"), Ok(("sr:80".into(), String::new())));
        assert_eq!(at("http://[::1]:9/apis/ccompat/v7/"), Ok(("[::1]:9".into(), "/apis/ccompat/v7".into())));
        assert_eq!(at("https://sr/x"), Ok(("sr:443".into(), "/x".into())));
        for bad in ["", "sr:8081", "http://", "http://sr?x=1", "http://u:p@sr", "https://u:p@sr", "tcp://sr:1"] {
            assert_eq!(at(bad), Err(EndpointError::Malformed), "{bad:?} was taken");
        }
    }

    #[test]
    fn base64_is_the_rfcs() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xFB, 0xFF, 0xBF]), "+/+/");
    }

    #[test]
    fn the_password_goes_into_the_header_and_nowhere_else() {
        let endpoint = Endpoint::new("http://sr:1/x", "Aladdin", "open sesame", Duration::ZERO).unwrap();
        assert_eq!(endpoint.authorization.as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!(format!("{endpoint:?}"), "sr:1/x");
        assert_eq!(Endpoint::new("http://sr", "", "x", Duration::ZERO).unwrap().authorization, None);
    }
}
