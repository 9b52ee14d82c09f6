//! What is wrong with a TLS connection, in words that name the setting to look at.

use std::error::Error;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConnection};

use super::TlsFiles;

/// Whose settings messages name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// The section with `ca_file`, `certificate_file` and `key_file`.
    pub name: &'static str,
    /// The setting that holds the server's address.
    pub address: &'static str,
}

impl Section {
    /// Kafka's.
    pub const KAFKA: Section = Section { name: "kafka", address: "kafka.brokers" };
    /// ClickHouse's.
    pub const CLICKHOUSE: Section = Section { name: "clickhouse", address: "clickhouse.url" };
    /// The schema registry's.
    pub const REGISTRY: Section = Section { name: "registry", address: "registry.url" };
}

/// An error with all that lies behind it («network error» alone helps nobody); where TLS is behind it, what that means
/// and which setting to look at.
pub fn explain(section: Section, error: &(dyn Error + 'static)) -> String {
    match tls_error(error) {
        Some(found) => verdict(section, found),
        None => with_causes(error),
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(behind) = cause {
        let more = behind.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = behind.source();
    }
    text
}

/// rustls's error, however deep it is wrapped. An I/O error is not the source of what it carries, but holds it.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match held {
            Some(held) => Some(held as &'a (dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

fn verdict(section: Section, error: &rustls::Error) -> String {
    use AlertDescription as Alert;
    use rustls::Error as Tls;
    let Section { name, address } = section;
    match error {
        Tls::InvalidCertificate(error) => certificate(section, error),
        Tls::AlertReceived(Alert::CertificateRequired) => {
            format!("it asks for our certificate: set {name}.certificate_file and {name}.key_file")
        }
        Tls::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied),
        ) => format!("it refuses our certificate ({alert:?}); look at {name}.certificate_file and at whom it trusts"),
        Tls::InvalidMessage(_) => format!("what listens there does not speak TLS; look at the port in {address}"),
        Tls::NoCertificatesPresented => "it shows no certificate".to_owned(),
        other => format!("TLS failed: {other}"),
    }
}

fn certificate(section: Section, error: &CertificateError) -> String {
    use CertificateError as Bad;
    let Section { name, address } = section;
    match error {
        Bad::UnknownIssuer => format!(
            "its certificate is signed by no CA that is trusted here; look at {name}.ca_file (where it is not set, the CAs of \
             this system are trusted)"
        ),
        Bad::BadSignature => format!("its certificate was not signed by the CA of that name that is trusted here; look at {name}.ca_file"),
        Bad::Expired => "its certificate has expired; it must be renewed on the server".to_owned(),
        Bad::ExpiredContext { not_after, .. } => {
            format!("its certificate expired on {}; it must be renewed on the server", date(*not_after))
        }
        Bad::NotValidYet => "its certificate is not valid yet; look at both clocks".to_owned(),
        Bad::NotValidYetContext { not_before, .. } => {
            format!("its certificate is not valid before {}; look at both clocks", date(*not_before))
        }
        Bad::NotValidForName => {
            format!("its certificate is for another host; look at the host in {address}, or at the server's certificate")
        }
        Bad::NotValidForNameContext { expected, presented } => format!(
            "its certificate is for {}, and not for {}; look at the host in {address}, or at the server's certificate",
            if presented.is_empty() { "no host".to_owned() } else { presented.join(", ") },
            expected.to_str()
        ),
        other if other.to_string().contains("CaUsedAsEndEntity") => {
            "its certificate is that of a CA, which may sign others but not be shown as its own; it needs one with CA:FALSE"
                .to_owned()
        }
        other => format!("its certificate is refused: {other}; look at {name}.ca_file"),
    }
}

fn date(time: UnixTime) -> String {
    let second = i64::try_from(time.as_secs()).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
    second.map_or_else(|| "a date beyond all calendars".to_owned(), |second| second.to_string())
}

/// Shakes hands with a server as `files` say, and answers what is wrong; `None` if nothing is, or if nobody is there.
/// It is for clients that can't tell: OpenSSL says to librdkafka only that a certificate was not verified. Blocks up to
/// three times `patience`.
pub fn examine(section: Section, files: &TlsFiles, host: &str, port: u16, patience: Duration) -> Option<String> {
    let config = match files.client_config() {
        Ok(config) => config,
        Err(error) => return Some(format!("{}.{}: {}", section.name, error.key, error.what)),
    };
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let mut client = ClientConnection::new(Arc::new(config), name).ok()?;
    let mut stream =
        (host, port).to_socket_addrs().ok()?.find_map(|at| TcpStream::connect_timeout(&at, patience).ok())?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.set_write_timeout(Some(patience)).ok()?;
    let error = client.complete_io(&mut stream).err()?;
    tls_error(&error).map(|found| verdict(section, found))
}
