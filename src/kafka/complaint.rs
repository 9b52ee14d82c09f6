//! What librdkafka complains of when brokers can't be reached: kept for whoever asked in vain, and said with the setting
//! to look at.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::tls::{self, Section, TlsFiles};

/// How long looking at a broker's certificate may take, a step.
const PATIENCE: Duration = Duration::from_secs(1);

/// What OpenSSL says of every certificate that it does not take, whatever is wrong with it.
const UNVERIFIED: &str = "certificate verify failed";

/// Whether brokers refused our credentials: that does not pass until somebody changes a setting or the broker's users.
/// librdkafka has one code for this and for a broker that goes away in the middle of it.
pub(super) fn is_refusal(reason: &str) -> bool {
    let authentication = ["SASL authentication error", "mechanism handshake failed", "Failed to initialize SASL"];
    authentication.iter().any(|part| reason.contains(part)) && !reason.contains("failed: Local:")
}

/// A complaint in librdkafka's words, without those on its own properties, and with the setting to look at.
pub(super) fn explain(reason: &str) -> String {
    let cuts = [
        " (after ",
        ": broker certificate could not be verified",
        " (see ",
        ": connecting to a PLAINTEXT",
        ": requesting ApiVersion",
    ];
    let end = cuts.iter().filter_map(|cut| reason.find(cut)).min().unwrap_or(reason.len());
    let said = &reason[..end];
    match advice(reason) {
        Some(advice) => format!("{said}; {advice}"),
        None => said.to_owned(),
    }
}

fn advice(reason: &str) -> Option<&'static str> {
    let has = |part: &str| reason.contains(part);
    Some(if has(UNVERIFIED) || has("Failed to verify broker certificate") {
        "look at kafka.ca_file, at the host names in kafka.brokers, and at the broker's certificate"
    } else if has("client SSL authentication might be required") || has("certificate required") {
        "it asks for our certificate: set kafka.certificate_file and kafka.key_file"
    } else if has("SSL handshake failed") && has(":SSL alert number") || has("tlsv1 alert") || has("sslv3 alert") {
        "it refuses our certificate; look at kafka.certificate_file and at whom the broker trusts"
    } else if has("SSL handshake failed") || has("SSL connection closed") {
        "does the broker speak TLS there? Look at kafka.security and at the ports in kafka.brokers"
    } else if has("mechanism handshake failed") {
        "look at kafka.sasl_mechanism"
    } else if is_refusal(reason) {
        "look at kafka.username, kafka.password and kafka.sasl_mechanism"
    } else if has("in state APIVERSION_QUERY") {
        // A broker that does not understand the first question hangs up: so does one that waits for TLS.
        "does the broker want TLS there? Look at kafka.security and at the ports in kafka.brokers"
    } else if has("incorrect security.protocol") || has("verify that security.protocol") {
        "look at kafka.security"
    } else {
        return None;
    })
}

/// The same for a client with these librdkafka properties, after a look at the certificate of the broker that
/// is complained of.
pub(super) fn diagnose(reason: &str, properties: &BTreeMap<String, String>) -> String {
    let found = (|| {
        let (_, rest) = reason.contains(UNVERIFIED).then(|| reason.split_once("ssl://"))??;
        let (host, port) = rest.split(['/', ' ', ',']).next()?.trim_end_matches(':').rsplit_once(':')?;
        let ca_file = properties.get("ssl.ca.location").filter(|path| *path != "probe").map(PathBuf::from);
        let files = TlsFiles { ca_file, ..TlsFiles::default() };
        let verdict = tls::examine(Section::KAFKA, &files, host, port.parse().ok()?, PATIENCE)?;
        Some(format!("TLS with the broker {host}:{port} failed: {verdict}"))
    })();
    found.unwrap_or_else(|| explain(reason))
}

/// The latest complaint.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<Option<String>>);

impl Complaints {
    /// Keeps it in place of the one before.
    pub(super) fn note(&self, reason: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    /// It, if there was one.
    pub(super) fn latest(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_are_refused_differ_from_a_broker_that_goes() {
        let refused = [
            "sasl_ssl://a:1/bootstrap: SASL authentication error: Authentication failed during authentication due to \
             invalid credentials with SASL mechanism SCRAM-SHA-512 (after 5ms in state AUTH_REQ)",
            "sasl_ssl://a:1/1: SASL SCRAM-SHA-256 mechanism handshake failed: Broker: Unsupported SASL mechanism: \
             broker's supported mechanisms: PLAIN",
        ];
        let gone = [
            "a:1/1: SASL authentication error: SaslAuthenticateRequest failed: Local: Broker transport failure",
            "a:1/1: SASL PLAIN mechanism handshake failed: Local: Broker transport failure: broker's supported mechanisms: ",
            "a:1/1: Connect to ipv4#127.0.0.1:1 failed: Connection refused",
        ];
        for reason in refused {
            assert!(is_refusal(reason), "{reason}");
        }
        for reason in gone {
            assert!(!is_refusal(reason), "{reason}");
        }
    }

    #[test]
    fn each_complaint_names_a_setting_and_no_property() {
        let unverified = "ssl://a:1/b: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker \
                          certificate could not be verified, verify that ssl.ca.location is correctly configured";
        let cases = [
            (unverified, "kafka.ca_file"),
            (
                "ssl://a:1/b: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener? (after 1ms)",
                "kafka.security",
            ),
            ("ssl://a:1/b: SSL handshake failed: error:0A00010B:SSL routines::wrong version number", "kafka.security"),
            (
                "a:1/b: SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism",
                "kafka.sasl_mechanism",
            ),
            ("a:1/b: SASL authentication error: invalid credentials", "kafka.password"),
            (
                "a:1/b: Disconnected: requesting ApiVersion: might be caused by incorrect security.protocol configuration \
              (connecting to a SSL listener?)",
                "kafka.security",
            ),
            (
                "ssl://a:1/b: SSL handshake failed: unexpected message: client SSL authentication might be required (see \
              ssl.key.location and ssl.certificate.location)",
                "kafka.certificate_file",
            ),
        ];
        for (reason, setting) in cases {
            let said = explain(reason);
            assert!(said.contains(setting) && said.contains("a:1/b"), "{said}");
            assert!(!said.contains("ssl.ca.location") && !said.contains("ssl.key.location"), "{said}");
        }
        let refused = "a:1/b: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)";
        assert_eq!(explain(refused), "a:1/b: Connect to ipv4#127.0.0.1:1 failed: Connection refused");
    }
}
