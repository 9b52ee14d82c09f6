//! One broker with a port of each kind, one ClickHouse behind TLS.

use devstack::{ClickHouse, Kafka, SecureListener, Stack};

use crate::certificates::Authority;
use crate::proxy::Proxy;
use crate::support::World;

pub const USER: &str = "highwater";
/// Every password is this, so that a test finds it wherever it should not be.
pub const PASSWORD: &str = "hunter2-must-not-be-seen";

/// Numbers of the broker's secure ports.
pub const SASL_SSL: usize = 0;
pub const EXPIRED: usize = 1;
pub const CLIENTS: usize = 2;
pub const ELSEWHERE: usize = 3;
pub const SASL_PLAINTEXT: usize = 4;

pub struct Secure {
    pub world: World,
    pub authority: Authority,
    pub proxy: Proxy,
}

impl Secure {
    /// Nothing is set for Kafka beside topics; ClickHouse is reached over https.
    pub fn start() -> Secure {
        let authority = Authority::new("ours");
        let (good, expired) = (authority.issue("localhost", 2060), authority.issue("localhost", 2024));
        let elsewhere = authority.issue("elsewhere.example", 2060);
        let users = vec![(USER.to_owned(), PASSWORD.to_owned())];
        let ssl = |keystore: &std::path::Path| SecureListener {
            protocol: "SSL",
            keystore: Some(keystore.to_owned()),
            ..SecureListener::default()
        };
        let kafka = Kafka::options()
            .secure(SecureListener { protocol: "SASL_SSL", users: users.clone(), ..ssl(&good.keystore) })
            .secure(ssl(&expired.keystore))
            .secure(SecureListener { client_ca: Some(authority.ca_file.clone()), ..ssl(&good.keystore) })
            .secure(ssl(&elsewhere.keystore))
            .secure(SecureListener { protocol: "SASL_PLAINTEXT", users, ..SecureListener::default() });
        let stack = Stack::start_with(kafka, ClickHouse::options()).unwrap();
        let proxy = Proxy::start(&stack.clickhouse.url(), &good, None);
        let mut secure = Secure { world: World::of(stack), authority, proxy };
        let url = format!("https://localhost:{}", secure.proxy.port);
        secure.set("CLICKHOUSE__URL", &url);
        secure.set("CLICKHOUSE__CA_FILE", &secure.ca_file());
        secure.set("CLICKHOUSE__PASSWORD", PASSWORD);
        secure
    }

    pub fn set(&mut self, key: &str, value: &str) {
        self.world.set(key, value);
    }

    pub fn ca_file(&self) -> String {
        self.authority.ca_file.display().to_string()
    }

    pub fn address(&self, number: usize) -> String {
        self.world.stack.kafka.secure_bootstrap(number).unwrap()
    }

    /// Goes to one of the secure ports; `""` leaves the mechanism, the user and the password away.
    pub fn go_to(&mut self, number: usize, security: &str, mechanism: &str) {
        let ca_file = if security.ends_with("ssl") { self.ca_file() } else { String::new() };
        let (user, password) = if mechanism.is_empty() { ("", "") } else { (USER, PASSWORD) };
        self.set("KAFKA__BROKERS", &self.address(number));
        self.set("KAFKA__SECURITY", security);
        self.set("KAFKA__CA_FILE", &ca_file);
        self.set("KAFKA__SASL_MECHANISM", if mechanism.is_empty() { "PLAIN" } else { mechanism });
        self.set("KAFKA__USERNAME", user);
        self.set("KAFKA__PASSWORD", password);
    }
}
