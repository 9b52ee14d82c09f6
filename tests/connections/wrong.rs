//! What is wrong is said once, in words that name the setting; what may pass is waited for.

use std::time::{Duration, Instant};

use crate::certificates::Authority;
use crate::proxy;
use crate::stack::{CLIENTS, ELSEWHERE, EXPIRED, PASSWORD, SASL_SSL, Secure};
use crate::support::Process;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs until `parts` are said.
fn wait_for_words(secure: &Secure, name: &str, parts: &[&str]) -> Process {
    let mut process = secure.world.run(name);
    let begun = Instant::now();
    loop {
        let said = process.said();
        if parts.iter().all(|part| said.contains(part)) {
            return process;
        }
        assert!(begun.elapsed() < PATIENCE, "{name}: {parts:?} were not said:\n{said}");
        assert!(process.child.try_wait().unwrap().is_none(), "{name}: it ended:\n{said}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// It says why it waits, once, and waits on.
fn waits(secure: &Secure, name: &str, parts: &[&str]) {
    let mut process = wait_for_words(secure, name, parts);
    std::thread::sleep(Duration::from_secs(3));
    assert!(process.child.try_wait().unwrap().is_none(), "{name}: it gave up: {}", process.said());
    let (_, said) = process.terminate();
    assert_eq!(said.matches("waiting for").count(), 1, "{name}: {said}");
    assert!(
        !said.contains(PASSWORD) && !said.contains("ssl.ca.location") && !said.contains("security.protocol"),
        "{name}: {said}"
    );
}

fn migrated() -> Secure {
    let secure = Secure::start();
    secure.world.done(&["migrate"]);
    secure
}

#[test]
fn a_certificate_that_kafka_shows_in_vain_is_told_with_its_setting() {
    let mut secure = migrated();
    let stranger = Authority::new("a stranger");

    secure.go_to(SASL_SSL, "sasl_ssl", "SCRAM-SHA-512");
    secure.set("KAFKA__CA_FILE", &stranger.ca_file.display().to_string());
    waits(&secure, "wrong-ca", &["signed by no CA that is trusted here", "kafka.ca_file", "localhost"]);
    secure.set("KAFKA__CA_FILE", "");
    waits(&secure, "no-ca", &["signed by no CA that is trusted here", "kafka.ca_file"]);

    secure.go_to(EXPIRED, "ssl", "");
    waits(&secure, "expired", &["its certificate expired on 2024-12-31", "renewed on the server"]);
}

#[test]
fn another_security_than_kafka_has_is_told_with_its_setting() {
    let mut secure = migrated();
    secure.go_to(ELSEWHERE, "ssl", "");
    waits(&secure, "elsewhere", &["elsewhere.example", "not for localhost", "kafka.brokers"]);
    secure.go_to(CLIENTS, "ssl", "");
    waits(&secure, "no-certificate", &["kafka.certificate_file"]);

    // TLS where there is none, and none where there is.
    secure.set("KAFKA__BROKERS", &secure.world.stack.kafka.bootstrap());
    waits(&secure, "tls-to-plain", &["kafka.security"]);
    secure.go_to(SASL_SSL, "plaintext", "");
    waits(&secure, "plain-to-tls", &["kafka.security"]);
}

#[test]
fn credentials_that_kafka_refuses_end_it_with_their_setting() {
    let mut secure = migrated();
    // Neither passes by itself; a supervisor starts it anew, with what is mounted then.
    let generate = ["generate", "--type", "llm_call", "--topic", "t", "--partitions", "1", "--events", "1"];
    for (mechanism, arguments) in
        [("SCRAM-SHA-512", &["run"][..]), ("SCRAM-SHA-256", &["audit"]), ("PLAIN", &generate), ("PLAIN", &["run"])]
    {
        secure.go_to(SASL_SSL, "sasl_ssl", mechanism);
        secure.set("KAFKA__PASSWORD", "another");
        let output = secure.world.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // The audit tells «not made» from «does not add up».
        let code = if arguments == ["audit"] { 3 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {mechanism}: {said}");
        assert!(said.contains("kafka.password") && !said.contains("another"), "{arguments:?} {mechanism}: {said}");
    }
}

#[test]
fn what_is_wrong_with_clickhouse_names_its_setting_and_passes() {
    let mut secure = Secure::start();
    secure.go_to(SASL_SSL, "sasl_ssl", "SCRAM-SHA-512");
    secure.world.generate(&["--events", "1000"]);
    secure.world.done(&["migrate"]);
    let stranger = Authority::new("a stranger");
    let (port, ca_file) = (secure.proxy.port, secure.ca_file());

    secure.set("CLICKHOUSE__CA_FILE", &stranger.ca_file.display().to_string());
    waits(&secure, "wrong-ca", &["signed by no CA that is trusted here", "clickhouse.ca_file"]);
    secure.set("CLICKHOUSE__CA_FILE", &ca_file);
    secure.set("CLICKHOUSE__URL", &format!("https://127.0.0.1:{port}"));
    waits(&secure, "wrong-host", &["\"localhost\"", "not for 127.0.0.1", "clickhouse.url"]);
    secure.set("CLICKHOUSE__URL", &format!("https://localhost:{}", proxy::without_tls()));
    waits(&secure, "https-to-http", &["does not speak TLS", "clickhouse.url"]);

    // A certificate that ran out is renewed while highwater waits for it.
    secure.set("CLICKHOUSE__URL", &format!("https://localhost:{port}"));
    secure.proxy.show(&secure.authority.issue("localhost", 2024));
    let mut process = wait_for_words(&secure, "expired", &["its certificate expired on 2024-12-31"]);
    secure.proxy.show(&secure.authority.issue("localhost", 2061));
    secure.world.wait_for(1_000, &mut process, PATIENCE);
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    secure.world.check();
}
