//! What comes through is exact, whichever way it comes.

use std::time::Duration;

use crate::proxy::Proxy;
use crate::stack::{CLIENTS, PASSWORD, SASL_PLAINTEXT, SASL_SSL, Secure, USER};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn exact_over_tls_with_users_and_passwords() {
    let mut secure = Secure::start();
    let password_file = secure.authority.folder.path().join("password");
    std::fs::write(&password_file, format!("{PASSWORD}\n")).unwrap();
    secure.go_to(SASL_SSL, "sasl_ssl", "SCRAM-SHA-512");
    secure.set("KAFKA__PASSWORD", "");
    secure.set("KAFKA__PASSWORD_FILE", &password_file.display().to_string());
    secure.set("WORKERS", "2");
    let world = &secure.world;
    world.generate(&["--events", "30000", "--disorder", "20s", "--duplicates", "0.01", "--bad", "0.002"]);
    world.done(&["migrate"]);
    let mut process = world.run("tls");
    let sent = crate::shared::truth::of(&world.stack.kafka.bootstrap(), crate::support::TOPIC).messages;
    world.wait_for(sent, &mut process, MINUTE);
    // The server goes, and each connection with it.
    world.stack.clickhouse.kill().unwrap();
    world.generate(&["--events", "5000", "--seed", "2"]);
    world.stack.clickhouse.restart().unwrap();
    world.wait_for(sent + 5_000, &mut process, MINUTE);
    let (status, said) = process.terminate();
    assert!(status.success(), "{status}: {said}");
    world.check();
    let heads = secure.proxy.heads();
    let credentials = format!("x-clickhouse-user: default\r\nx-clickhouse-key: {PASSWORD}\r\n");
    assert!(heads.len() > 5);
    assert!(heads.iter().all(|head| head.contains(&credentials)), "{heads:?}");

    // Every other way in: what is sent over it is there, and its position can be asked.
    let client = secure.authority.issue("client.example", 2060);
    secure.set("KAFKA__PASSWORD_FILE", "");
    let ways = [
        (SASL_SSL, "sasl_ssl", "PLAIN"),
        (SASL_SSL, "sasl_ssl", "SCRAM-SHA-256"),
        (SASL_PLAINTEXT, "sasl_plaintext", "PLAIN"),
        (SASL_PLAINTEXT, "sasl_plaintext", "SCRAM-SHA-512"),
        (CLIENTS, "ssl", ""),
    ];
    let mut sent = sent + 5_000;
    for (seed, (number, security, mechanism)) in ways.into_iter().enumerate() {
        secure.go_to(number, security, mechanism);
        if number == CLIENTS {
            secure.set("KAFKA__CERTIFICATE_FILE", &client.certificate_file.display().to_string());
            secure.set("KAFKA__KEY_FILE", &client.key_file.display().to_string());
        }
        secure.world.generate(&["--events", "500", "--seed", &(seed + 3).to_string()]);
        sent += 500;
        let mut process = secure.world.run(&format!("{security}-{mechanism}"));
        secure.world.wait_for(sent, &mut process, MINUTE);
        let (status, said) = process.terminate();
        assert!(status.success(), "{USER} over {security} {mechanism}: {status}: {said}");
    }
    secure.world.check();

    // ClickHouse that wants a certificate of ours.
    let shown = secure.authority.issue("localhost", 2060);
    let strict = Proxy::start(&secure.world.stack.clickhouse.url(), &shown, Some(&secure.authority));
    secure.set("CLICKHOUSE__URL", &format!("https://localhost:{}", strict.port));
    let output = secure.world.command(&["migrate"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("clickhouse.certificate_file"), "{said}");
    secure.set("CLICKHOUSE__CERTIFICATE_FILE", &client.certificate_file.display().to_string());
    secure.set("CLICKHOUSE__KEY_FILE", &client.key_file.display().to_string());
    assert!(secure.world.done(&["audit"]).contains("clean"));
}
