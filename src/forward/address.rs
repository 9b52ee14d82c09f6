//! Where a target is: a URL whose path, query and user may be secrets, so that none of them is ever shown.

use std::fmt;
use std::time::Duration;

use hyper::Uri;

use super::Kind;
use crate::registry::base64;
use crate::tls::{Dialer, TlsError, TlsFiles};

/// A target's address: `http://` or `https://`, with whatever is behind the host.
#[derive(Clone)]
pub struct Address {
    /// Host and port, as the header `Host` has them.
    pub(super) authority: String,
    /// Whether HTTP is spoken under TLS.
    pub(crate) https: bool,
    /// Path and query.
    pub(super) path: String,
    /// The value of the header `Authorization`.
    pub(super) authorization: Option<String>,
    /// Opens connections.
    pub(super) dialer: Dialer,
    /// The setting that has the address.
    pub(super) setting: &'static str,
    /// Parts of the address that nobody may read, in lower case.
    secrets: Vec<String>,
}

/// A shorter part of a path or query is none that a secret stands in, but a word that any answer may have.
const SHORTEST_SECRET: usize = 6;

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows a webhook's path may post to it.
        write!(f, "{}", self.url())
    }
}

/// Why an address can't be used. None repeats it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a URL.
    #[error("a URL is not of the form http://host/path or https://host/path")]
    Malformed,
    /// More than one, of a target that has one.
    #[error("only Alertmanager may have several URLs: the members of a cluster")]
    Several,
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The addresses of a target, from a text with URLs between spaces, or those of a cluster between commas. In the URL of any
/// other target a comma is a letter as any.
///
/// # Errors
/// One is no such URL; the files for TLS can't be used.
pub fn addresses(kind: Kind, text: &str, files: &TlsFiles) -> Result<Vec<Address>, AddressError> {
    let parts = |letter: char| letter.is_ascii_whitespace() || (letter == ',' && kind == Kind::Alertmanager);
    let urls = text.split(parts).filter(|url| !url.is_empty());
    let found: Vec<Address> = urls.map(|url| Address::open(kind, url, files)).collect::<Result<_, _>>()?;
    match found.len() {
        0 => Err(AddressError::Malformed),
        1 => Ok(found),
        _ if kind == Kind::Alertmanager => Ok(found),
        _ => Err(AddressError::Several),
    }
}

impl Address {
    fn open(kind: Kind, url: &str, files: &TlsFiles) -> Result<Address, AddressError> {
        let uri: Uri = url.parse().map_err(|_| AddressError::Malformed)?;
        let (https, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(AddressError::Malformed),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(AddressError::Malformed)?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let user = authority.rsplit_once('@').map(|(user, _)| unescaped(user).ok_or(AddressError::Malformed));
        let given = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = match kind {
            // The address is Alertmanager's own, with the prefix of a proxy or without.
            Kind::Alertmanager if uri.query().is_none() => {
                format!("{}/api/v2/alerts", uri.path().trim_end_matches('/'))
            }
            Kind::Alertmanager => return Err(AddressError::Malformed),
            Kind::Webhook | Kind::Slack => given.to_owned(),
        };
        let section = kind.section();
        let credentials = authority.rsplit_once('@').map_or("", |(user, _)| user);
        let sent = user.transpose()?.map(|user| base64(&user));
        let mut secrets = secrets(given, credentials);
        secrets.extend(sent.as_ref().map(|sent| sent.trim_end_matches('=').to_lowercase()));
        Ok(Address {
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(port)),
            https,
            path,
            authorization: sent.map(|sent| format!("Basic {sent}")),
            dialer: if https { Dialer::new(section, files)? } else { Dialer::plain(section)? },
            setting: section.address,
            secrets,
        })
    }

    /// Whether a text repeats a part of the path or query, the user or the password, also as they are sent, as many an answer
    /// does.
    pub(super) fn is_told_by(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        self.secrets.iter().any(|secret| text.contains(secret))
    }

    /// Looks whether somebody listens there, under TLS if it says so; nothing is sent.
    ///
    /// # Errors
    /// In words, with the setting to look at.
    pub async fn reach(&self, patience: Duration) -> Result<(), String> {
        let uri: Uri = self.url().parse().map_err(|_| "the host is no host name".to_owned())?;
        let late = || Err(format!("no connection within {} s", patience.as_secs_f64()));
        tokio::time::timeout(patience, self.dialer.dial(uri)).await.unwrap_or_else(|_| late()).map(drop)
    }

    /// Scheme, host and port.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }
}

/// What of an address may be a secret, as it is written and as it is meant.
fn secrets(path: &str, credentials: &str) -> Vec<String> {
    let parts = path.split(['/', '?', '&', '=', ';', ',']).filter(|part| part.len() >= SHORTEST_SECRET);
    let credentials = credentials.split(':').filter(|part| !part.is_empty());
    let both = parts.chain(credentials).flat_map(|part| {
        let meant = unescaped(part).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        [Some(part.to_owned()), meant]
    });
    both.flatten().map(|part| part.to_lowercase()).collect()
}

/// What percent signs stand for; `None`: one stands for nothing.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut out) = (text.bytes(), Vec::with_capacity(text.len()));
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        out.push(match byte {
            b'%' => u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?,
            byte => byte,
        });
    }
    Some(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn open(kind: Kind, text: &str) -> Result<Vec<Address>, AddressError> {
        addresses(kind, text, &TlsFiles::default())
    }

    #[test]
    fn reads_urls_and_shows_nothing_behind_the_host() {
        let slack = open(Kind::Slack, "http://hooks.example.com/services/T0/B0/s3cret?x=1").unwrap();
        assert_eq!((slack[0].authority.as_str(), slack[0].https), ("hooks.example.com:80", false));
        assert_eq!(slack[0].path, "/services/T0/B0/s3cret?x=1");
        assert_eq!(format!("{:?}", slack[0]), "http://hooks.example.com:80");
        let target = Target { kind: Kind::Slack, addresses: slack };
        assert_eq!(target.to_string(), "slack at http://hooks.example.com:80");
        let hook = open(Kind::Webhook, "http://Aladdin:open%20sesame@[::1]:99").unwrap();
        assert_eq!((hook[0].authority.as_str(), hook[0].path.as_str()), ("[::1]:99", "/"));
        assert_eq!(hook[0].authorization.as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!(format!("{:?}", hook[0]), "http://[::1]:99");
    }

    use super::super::Target;

    #[test]
    fn alertmanagers_are_named_by_their_own_address() {
        let cluster = open(Kind::Alertmanager, "http://am-1:9093, http://am-2:9093/prefix/\nhttp://am-3:9093").unwrap();
        let paths: Vec<&str> = cluster.iter().map(|address| address.path.as_str()).collect();
        assert_eq!(paths, ["/api/v2/alerts", "/prefix/api/v2/alerts", "/api/v2/alerts"]);
    }

    #[test]
    fn only_those_of_a_cluster_stand_between_commas() {
        for kind in [Kind::Webhook, Kind::Slack] {
            let hook = open(kind, " http://hooks.example.com/a,b?to=x,http://y\n").unwrap();
            assert_eq!((hook.len(), hook[0].path.as_str()), (1, "/a,b?to=x,http://y"));
        }
    }

    #[test]
    fn a_text_that_repeats_a_part_of_the_address_is_known() {
        let hook =
            &open(Kind::Webhook, "http://user:p%40ss@h/services/T0/s3cr%2Ft/Xy12Zw?token=abc,d3f456&v=1").unwrap()[0];
        for text in [
            "no page /SERVICES here",
            "s3cr%2Ft",
            "a s3cr/t",
            r#"{"path": "\/T0\/xy12zw"}"#,
            "d3f456",
            "user",
            "p@ss",
            "p%40SS",
            // As it is sent.
            "unexpected header: authorization: Basic dXNlcjpwQHNz",
        ] {
            assert!(hook.is_told_by(text), "{text}");
        }
        for text in ["", "T0", "service unavailable", "no such thing at v=1", "pass"] {
            assert!(!hook.is_told_by(text), "{text}");
        }
        // What we ask of it is no secret.
        let manager = &open(Kind::Alertmanager, "http://am:9093").unwrap()[0];
        assert!(!manager.is_told_by("no alerts at /api/v2/alerts"));
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_repeated() {
        let bad = [
            "",
            " ",
            ",",
            "s3cret",
            "ftp://s3cret",
            "http://",
            "http:///s3cret",
            "http://u%zz:p@s3cret",
            "http://a b:x",
        ];
        for text in bad {
            for kind in Kind::ALL {
                let error = open(kind, text).unwrap_err();
                assert_eq!(error, AddressError::Malformed, "{text}");
                assert!(!error.to_string().contains("s3cret"));
            }
        }
        assert_eq!(open(Kind::Alertmanager, "http://am/?s3cret").unwrap_err(), AddressError::Malformed);
        assert_eq!(open(Kind::Slack, "http://a/1 http://b/2").unwrap_err(), AddressError::Several);
        let files = TlsFiles { ca_file: Some("/no/such/file".into()), ..TlsFiles::default() };
        assert!(matches!(addresses(Kind::Slack, "https://a/1", &files), Err(AddressError::Tls(_))));
    }
}
