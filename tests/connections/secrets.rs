//! No secret is in anything that is printed, however much is printed and whatever fails.

use crate::stack::{CLIENTS, PASSWORD, SASL_SSL, Secure};

/// All that a command prints within some seconds, or more if it has not yet said by then what it is expected to say.
fn printed(secure: &Secure, arguments: &[&str], expected: &str) -> String {
    let mut command = secure.world.command(arguments);
    command.env("RUST_LOG", "trace");
    let (out, err) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let mut child = command.stdout(out.reopen().unwrap()).stderr(err.reopen().unwrap()).spawn().unwrap();
    let said =
        || format!("{}{}", std::fs::read_to_string(out.path()).unwrap(), std::fs::read_to_string(err.path()).unwrap());
    let begun = std::time::Instant::now();
    let mut patience = std::time::Duration::from_secs(4);
    while child.try_wait().unwrap().is_none() && begun.elapsed() < patience {
        std::thread::sleep(std::time::Duration::from_millis(50));
        if begun.elapsed() > patience && patience.as_secs() < 60 && !said().contains(expected) {
            patience += std::time::Duration::from_secs(5);
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    said()
}

#[test]
fn no_secret_is_ever_printed() {
    let mut secure = Secure::start();
    secure.world.done(&["migrate"]);
    secure.set("KAFKA__PROPERTIES__DEBUG", "all");
    let client = secure.authority.issue("client.example", 2060);
    let check = |secure: &Secure, name: &str, arguments: &[&str], proof: &str| {
        let printed = printed(secure, arguments, proof);
        assert!(printed.contains(proof), "{name} {arguments:?} says nothing of {proof}: {printed}");
        for secret in [PASSWORD, client.key.lines().nth(1).unwrap()] {
            if let Some(at) = printed.find(secret) {
                let from = printed.floor_char_boundary(at.saturating_sub(300));
                panic!("{name} {arguments:?} prints a secret: …{}", &printed[from..at + secret.len()]);
            }
        }
    };
    let generate = ["generate", "--type", "llm_call", "--topic", "llm-calls", "--partitions", "4", "--events", "10"];
    let everything = [&["run"][..], &["audit"], &["migrate"], &generate, &["--help"], &["run", "--help"]];

    // All is well, and librdkafka tells all that it does.
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        secure.go_to(SASL_SSL, "sasl_ssl", mechanism);
        check(&secure, mechanism, &generate, "10 messages");
        check(&secure, mechanism, &["run"], "librdkafka");
    }
    secure.go_to(CLIENTS, "ssl", "");
    secure.set("KAFKA__CERTIFICATE_FILE", &client.certificate_file.display().to_string());
    secure.set("KAFKA__KEY_FILE", &client.key_file.display().to_string());
    secure.set("KAFKA__KEY_PASSWORD", PASSWORD);
    check(&secure, "a certificate", &generate, "10 messages");
    check(&secure, "a certificate", &["run"], "librdkafka");
    secure.set("KAFKA__KEY_FILE", &secure.ca_file());
    check(&secure, "a key that is none", &["run"], "Kafka");
    for key in ["KAFKA__CERTIFICATE_FILE", "KAFKA__KEY_FILE", "KAFKA__KEY_PASSWORD"] {
        secure.set(key, "");
    }

    // The broker knows another password.
    secure.go_to(SASL_SSL, "sasl_ssl", "PLAIN");
    for (mechanism, user) in [("PLAIN", "nobody"), ("SCRAM-SHA-512", "nobody")] {
        secure.set("KAFKA__SASL_MECHANISM", mechanism);
        secure.set("KAFKA__USERNAME", user);
        check(&secure, "a wrong user", &["run"], "kafka.password");
    }

    // Nobody is there.
    secure.world.stack.kafka.kill().unwrap();
    secure.world.stack.clickhouse.kill().unwrap();
    for arguments in everything {
        check(&secure, "nobody there", arguments, "");
    }

    // Addresses with passwords in them.
    for key in ["CLICKHOUSE__URL", "KAFKA__BROKERS"] {
        secure.set(key, &format!("http://me:{PASSWORD}@localhost:1"));
        check(&secure, key, &["run"], "password");
    }
}
