//! What is wrong with targets is told, by `check`, by `--test` and at the start, without a word of their secrets.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use super::{SECRET, world};
use crate::certificates::Authority;
use crate::receiver::{Receiver, Then, is_up, nobody};
use crate::support::World;
use crate::topic::Topic;

#[test]
fn check_looks_whether_somebody_listens() {
    let mut world = world();
    let hook = Receiver::start();
    drop(Topic::new(&world));
    world.set("FORWARD__WEBHOOK_URL", &hook.url(SECRET));
    let port = nobody();
    world.set("FORWARD__ALERTMANAGER_URL", &format!("http://127.0.0.1:{port}/s3cr3t"));
    let (_, said) = failed(&world, &["check"]);
    assert!(said.contains(&format!("ok       somebody listens at http://127.0.0.1:{}", hook.port)), "{said}");
    assert!(said.contains(&format!("WRONG    http://127.0.0.1:{port}: ")), "{said}");
    assert!(!said.contains("s3cr3t") && hook.requests().is_empty(), "{said}");
}

#[test]
fn targets_under_tls_are_told_if_they_are_trusted() {
    let mut world = world();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let shown = ours.issue("localhost", 2060);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let certificate = CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let hook = Receiver::with(Some(Arc::new(config)));
    world.set("FORWARD__WEBHOOK_URL", &format!("https://Aladdin:s3cr3t@localhost:{}{SECRET}", hook.port));
    world.set("FORWARD__CA_FILE", &ours.ca_file.display().to_string());
    let said = world.done(&["alerts", "forward", "--test"]);
    assert!(said.contains(&format!("the webhook at https://localhost:{} took it", hook.port)), "{said}");
    let request = &hook.requests()[0];
    assert!(request.head.contains("authorization: basic qwxhzgrpbjpzm2nym3q="), "{}", request.head);
    assert_eq!((&request.body["rule"], &request.body["state"]), (&json!("highwater_test"), &json!("resolved")));

    world.set("FORWARD__CA_FILE", &theirs.ca_file.display().to_string());
    let (status, said) = failed(&world, &["alerts", "forward", "--test"]);
    assert_eq!(status, 1);
    assert!(said.contains("signed by no CA that is trusted here; look at forward.ca_file"), "{said}");
    assert!(!said.contains("s3cr3t"), "{said}");
}

fn failed(world: &World, arguments: &[&str]) -> (i32, String) {
    let output = world.command(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), said)
}

/// | what is wrong | what is said |
/// |---|---|
/// | no target; no topic | which settings there are |
/// | a URL in the file, on the command line, empty, of another scheme, two for Slack | where it belongs, and not what it is |
/// | a URL and a file of it; a file that is not there | both are named |
/// | TLS files without TLS; a link that is none | the setting |
/// | a target that refuses, that nobody listens at | what it answered |
#[test]
fn what_is_wrong_is_told_before_anything_is_done() {
    // No server is asked.
    let mut world = Bare::new();
    let forward = ["alerts", "forward"];
    world.says(&forward, 1, "there is nobody to tell: set one of HIGHWATER_FORWARD__WEBHOOK_URL");
    world.set("WEBHOOK_URL", "http://localhost:1/s3cr3t");
    world.says(&forward, 1, "alerts.topic is \"\"");
    world.unset("WEBHOOK_URL");

    let flag = [&forward[..], &["--setting", "forward.slack_url=https://x/s3cr3t"]].concat();
    world.says(
        &flag,
        2,
        "forward.slack_url: found in the flag --setting forward.slack_url=…, where others can read it",
    );
    let bad = [
        ("SLACK_URL", "s3cr3t", "forward.slack_url: a URL is not of the form http://host/path"),
        ("SLACK_URL", "ftp://x/s3cr3t", "forward.slack_url: a URL is not of the form"),
        ("SLACK_URL", "http://x/s3cr3t http://y/", "only Alertmanager may have several URLs"),
        ("ALERTMANAGER_URL", "http://x:1/?s3cr3t", "forward.alertmanager_url: a URL is not of the form"),
        ("ALERTMANAGER_URL", " , ", "forward.alertmanager_url: a URL is not of the form"),
        ("WEBHOOK_URL_FILE", "/no/such/file", "forward.webhook_url_file: can't read /no/such/file"),
        ("CA_FILE", "/no/such/file", "forward.ca_file: set, and used only by https://"),
        ("LINK", "grafana", "forward.link: found something else in"),
        ("LINK", "https://g/{app}", "forward.link: found something else in"),
        ("RESEND", "0s", "forward.resend: found \"0s\""),
        ("GIVE_UP", "soon", "forward.give_up: found \"soon\""),
        ("SILENT_AFTER", "2d", "forward.silent_after: found \"2d\""),
    ];
    for (key, value, expected) in bad {
        world.set(key, value);
        world.says(&forward, 2, expected);
        world.says(&["check", "--offline"], 1, expected);
        world.unset(key);
    }
    world.set("SLACK_URL", "https://x/s3cr3t");
    world.set("CA_FILE", "/no/such/file");
    world.says(&forward, 2, "forward.ca_file: can't read /no/such/file");
    world.unset("CA_FILE");
    world.set("SLACK_URL_FILE", "/no/such/file");
    world.says(&forward, 2, "forward.slack_url: set as HIGHWATER_FORWARD__SLACK_URL and by forward.slack_url_file");
    world.unset("SLACK_URL_FILE");

    let refusing = Receiver::start();
    refusing.always(Then::Answer(403, "", "invalid_token"));
    world.set("SLACK_URL", &refusing.url(SECRET));
    world.says(
        &["alerts", "forward", "--test"],
        1,
        "did not take it: it answered 403 Forbidden; is forward.slack_url right",
    );
    refusing.always(Then::Answer(302, "Location: /s3cr3t\r\n", ""));
    world.says(&["alerts", "forward", "--test"], 1, "redirections are not followed");
    let port = nobody();
    assert!(!is_up(port));
    world.set("SLACK_URL", &format!("http://127.0.0.1:{port}{SECRET}"));
    world.says(&["alerts", "forward", "--test"], 1, "did not take it: ");
}

/// A command line without servers.
struct Bare(std::collections::BTreeMap<String, String>);

impl Bare {
    fn new() -> Bare {
        Bare([("HIGHWATER_LOG__LEVEL".to_owned(), "debug".to_owned())].into())
    }

    fn set(&mut self, key: &str, value: &str) {
        self.0.insert(format!("HIGHWATER_FORWARD__{key}"), value.to_owned());
    }

    fn unset(&mut self, key: &str) {
        self.0.remove(&format!("HIGHWATER_FORWARD__{key}"));
    }

    fn says(&self, arguments: &[&str], status: i32, expected: &str) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_highwater"));
        command.args(arguments).envs(&self.0).current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(said.contains(expected), "{arguments:?} {:?} does not say {expected:?}: {said}", self.0);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(!said.contains("s3cr3t"), "{arguments:?}: {said}");
    }
}
