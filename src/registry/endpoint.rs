//! Where the schema registry is, and who we are there.

use std::fmt;
use std::time::Duration;

use hyper::Uri;

/// A registry's address: `http://host[:port][/path]`, to which `/schemas/ids/…` is added.
#[derive(Clone)]
pub struct Endpoint {
    /// Host name or address, without brackets.
    pub(super) host: String,
    /// TCP port.
    pub(super) port: u16,
    /// What stands before `/schemas` and `/subjects`: empty, or beginning with `/` and not ending so.
    pub(super) path: String,
    /// The value of the header `Authorization`.
    pub(super) authorization: Option<String>,
    /// How long a question may take in all.
    pub(super) timeout: Duration,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password stays out of logs.
        write!(f, "{}{}", self.authority(), self.path)
    }
}

/// Why an address can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the schema registry's URL is not of the form http://host:port or http://host:port/path")]
pub struct EndpointError;

impl Endpoint {
    /// Reads a URL; the port is 80 by default. Without a user nobody is named.
    ///
    /// # Errors
    /// It is no such URL.
    pub fn new(url: &str, user: &str, password: &str, timeout: Duration) -> Result<Endpoint, EndpointError> {
        let uri: Uri = url.parse().map_err(|_| EndpointError)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(EndpointError)?;
        let in_authority = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if uri.scheme_str() != Some("http") || in_authority || uri.query().is_some() {
            return Err(EndpointError);
        }
        Ok(Endpoint {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(80),
            path: uri.path().trim_end_matches('/').to_owned(),
            authorization: (!user.is_empty())
                .then(|| format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))),
            timeout,
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

/// Base64 with padding, RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
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
        for bad in ["", "sr:8081", "http://", "http://sr?x=1", "http://u:p@sr", "https://sr", "tcp://sr:1"] {
            assert_eq!(at(bad), Err(EndpointError), "{bad:?} was taken");
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
