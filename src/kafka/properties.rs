//! librdkafka's properties: which of them an operator may set by name.

/// What becomes of a property that an operator sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is handed to librdkafka, which may still refuse its value.
    Free,
    /// It would break delivery; the reason, as a sentence without its subject.
    Fixed(&'static str),
    /// It has a setting of its own, in section `kafka`.
    Setting(&'static str),
}

/// Judges a property by its name.
pub fn judge(name: &str) -> Verdict {
    let name = name.trim();
    let find = |list: &[(&str, &'static str)]| list.iter().find(|(listed, _)| *listed == name).map(|(_, what)| *what);
    match (find(SETTINGS), find(FIXED)) {
        (Some(setting), _) => Verdict::Setting(setting),
        (_, Some(reason)) => Verdict::Fixed(reason),
        _ => Verdict::Free,
    }
}

/// Properties with a setting of their own. The aliases `metadata.broker.list` and `sasl.mechanism` are librdkafka's.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("bootstrap.servers", "brokers"),
    ("group.id", "group"),
    ("group.protocol", "protocol"),
    ("metadata.broker.list", "brokers"),
    ("sasl.mechanism", "sasl_mechanism"),
    ("sasl.mechanisms", "sasl_mechanism"),
    ("sasl.password", "password"),
    ("sasl.username", "username"),
    ("security.protocol", "security"),
    ("ssl.ca.location", "ca_file"),
    ("ssl.certificate.location", "certificate_file"),
    ("ssl.key.location", "key_file"),
    ("ssl.key.password", "key_password"),
];

/// Properties that no operator may set: each would move a position, commit an offset, show an aborted event or hide a
/// delivery behind the engine's back. The alias `auto.commit.enable` is librdkafka's.
pub(super) const FIXED: &[(&str, &str)] = &[
    ("allow.auto.create.topics", "a consumer that made a missing topic would begin to count one that nobody writes to"),
    ("api.version.fallback.ms", "a broker taken for an older one shows aborted events"),
    ("api.version.request", "a broker taken for an older one shows aborted events"),
    ("auto.commit.enable", "an offset is committed when its events are in ClickHouse, and not before"),
    ("auto.offset.reset", "where a partition starts is decided by the ledger"),
    ("broker.version.fallback", "a broker taken for an older one shows aborted events"),
    ("client.id", "each client has a name of its own, by which brokers log it"),
    ("delivery.report.only.error", "what was sent is known by the reports of success"),
    ("enable.auto.commit", "an offset is committed when its events are in ClickHouse, and not before"),
    ("enable.auto.offset.store", "an offset is committed when its events are in ClickHouse, and not before"),
    ("enable.idempotence", "a producer that is not idempotent sends events twice"),
    ("enable.partition.eof", "minutes are complete when the end of a partition is reached"),
    ("enabled_events", "which events are heard is decided by the engine"),
    ("isolation.level", "events of aborted transactions must not be counted"),
    ("offset.store.method", "an offset is committed when its events are in ClickHouse, and not before"),
    ("check.crcs", "a damaged batch of records would be skipped like a gap, and counted nowhere"),
    ("partition.assignment.strategy", "members of one group must agree; kafka.protocol chooses"),
    ("test.mock.num.brokers", "it replaces the brokers"),
    ("transactional.id", "events are not sent in transactions"),
];

/// The other names of librdkafka 2.12, for suggestions.
pub const FREE: &[&str] = &[
    "acks",
    "api.version.request.timeout.ms",
    "auto.commit.interval.ms",
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "broker.address.ttl",
    "client.dns.lookup",
    "client.rack",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "consume.callback.max.messages",
    "coordinator.query.interval.ms",
    "debug",
    "delivery.timeout.ms",
    "enable.gapless.guarantee",
    "enable.metrics.push",
    "enable.random.seed",
    "enable.sasl.oauthbearer.unsecure.jwt",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.instance.id",
    "group.protocol.type",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "https.ca.location",
    "https.ca.pem",
    "linger.ms",
    "log.connection.close",
    "log.queue",
    "log.thread.name",
    "log_level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.copy.max.bytes",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.max.age.ms",
    "metadata.recovery.rebootstrap.trigger.ms",
    "metadata.recovery.strategy",
    "offset.store.path",
    "offset.store.sync.interval.ms",
    "partitioner",
    "plugin.library.paths",
    "produce.offset.report",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "queuing.strategy",
    "receive.message.max.bytes",
    "reconnect.backoff.jitter.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.keytab",
    "sasl.kerberos.kinit.cmd",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.oauthbearer.assertion.algorithm",
    "sasl.oauthbearer.assertion.claim.aud",
    "sasl.oauthbearer.assertion.claim.exp.seconds",
    "sasl.oauthbearer.assertion.claim.iss",
    "sasl.oauthbearer.assertion.claim.jti.include",
    "sasl.oauthbearer.assertion.claim.nbf.seconds",
    "sasl.oauthbearer.assertion.claim.sub",
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.grant.type",
    "sasl.oauthbearer.metadata.authentication.type",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "session.timeout.ms",
    "socket.blocking.max.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.max.fails",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.certificate.stores",
    "ssl.ca.pem",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.engine.id",
    "ssl.engine.location",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.providers",
    "ssl.sigalgs.list",
    "statistics.interval.ms",
    "sticky.partitioning.linger.ms",
    "topic.blacklist",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.fast.cnt",
    "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.interval.ms",
    "topic.metadata.refresh.sparse",
    "transaction.timeout.ms",
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::error::KafkaError;
    use rdkafka::types::RDKafkaConfRes;

    use super::*;

    /// librdkafka knows every name here: a list of names with a slip of the pen would refuse nothing.
    #[test]
    fn every_name_is_one_of_librdkafkas() {
        let is_known = |name: &str| {
            let set = ClientConfig::new().set(name, "x").create_native_config();
            !matches!(set, Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)))
        };
        let listed = SETTINGS.iter().chain(FIXED).map(|(name, _)| *name).chain(FREE.iter().copied());
        for name in listed {
            assert!(is_known(name), "{name}");
        }
        assert!(!is_known("no.such.property"));
    }

    #[test]
    fn names_are_judged_once() {
        for (name, setting) in SETTINGS {
            assert_eq!(judge(name), Verdict::Setting(setting));
            assert!(!FIXED.iter().any(|(fixed, _)| fixed == name) && !FREE.contains(name), "{name}");
        }
        for (name, reason) in FIXED {
            assert_eq!(judge(&format!(" {name} ")), Verdict::Fixed(reason));
            assert!(!FREE.contains(name), "{name}");
        }
        for name in ["client.rack", "fetch.wait.max.ms", "no.such.property"] {
            assert_eq!(judge(name), Verdict::Free);
        }
    }
}
