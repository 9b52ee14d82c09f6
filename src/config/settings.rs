//! Every setting there is: name, type, default, allowed range and documentation, each said once.
//!
//! The doc comments below are what `docs/configuration.md` and `highwater.toml` are made of.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::value::{ByteSize, KeepDays, Properties, Secret, Setting as _};
use super::words::{AlertFraming, Compression, KafkaSecurity, LogFormat, LogLevel, OnLoss, Protocol, SaslMechanism};

/// A group of settings, described.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name in the file; '' for what stands outside of any.
    pub(super) name: &'static str,
    /// What it is about.
    pub(super) doc: &'static [&'static str],
    /// Its settings.
    pub(super) entries: &'static [Entry],
}

/// A setting, described.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name within the section.
    pub(super) name: &'static str,
    /// Its default, in TOML.
    pub(super) default: &'static str,
    /// What is accepted.
    pub(super) allowed: &'static str,
    /// Least and greatest value, as written.
    pub(super) range: Option<(&'static str, &'static str)>,
    /// Whether it is taken from the environment only.
    pub(super) secret: bool,
    /// What it does.
    pub(super) doc: &'static [&'static str],
}

/// Declares the sections with their structs, their descriptions and how they are read.
macro_rules! settings {
    (
        $(#[doc = $top_doc:literal])*
        {
            $($(#[doc = $single_doc:literal])* $single:ident: $single_ty:ty = $single_default:tt
                $(in $single_min:literal to $single_max:literal)?;)*
        }
        $(
            $(#[doc = $section_doc:literal])*
            $section:ident: $Section:ident {
                $($(#[doc = $doc:literal])* $key:ident: $ty:ty = $default:tt $(in $min:literal to $max:literal)?;)*
            }
        )*
    ) => {
        /// All settings, checked.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $($(#[doc = $single_doc])* pub $single: $single_ty,)*
            $($(#[doc = $section_doc])* pub $section: $Section,)*
        }

        $(
            $(#[doc = $section_doc])*
            #[derive(Debug, Clone, PartialEq)]
            pub struct $Section {
                $($(#[doc = $doc])* pub $key: $ty,)*
            }
        )*

        pub(super) const SECTIONS: &[Section] = &[
            Section {
                name: "",
                doc: &[$($top_doc),*],
                entries: &[$(Entry {
                    name: stringify!($single),
                    default: stringify!($single_default),
                    allowed: <$single_ty>::ALLOWED,
                    range: settings!(@range $($single_min $single_max)?),
                    secret: <$single_ty>::SECRET,
                    doc: &[$($single_doc),*],
                }),*],
            },
            $(Section {
                name: stringify!($section),
                doc: &[$($section_doc),*],
                entries: &[$(Entry {
                    name: stringify!($key),
                    default: stringify!($default),
                    allowed: <$ty>::ALLOWED,
                    range: settings!(@range $($min $max)?),
                    secret: <$ty>::SECRET,
                    doc: &[$($doc),*],
                }),*],
            }),*
        ];

        impl Settings {
            /// Reads all, collecting what is wrong in the reader; `None` if anything is.
            pub(super) fn read(reader: &mut Reader) -> Option<Settings> {
                $(let $single = settings!(@read reader, "", $single, $single_ty, $($single_min $single_max)?);)*
                $(
                    let $section = {
                        $(let $key = settings!(@read reader, stringify!($section), $key, $ty, $($min $max)?);)*
                        (|| Some($Section { $($key: $key?),* }))()
                    };
                )*
                Some(Settings { $($single: $single?,)* $($section: $section?),* })
            }
        }
    };
    (@range) => { None };
    (@range $min:literal $max:literal) => { Some((stringify!($min), stringify!($max))) };
    (@read $reader:ident, $section:expr, $key:ident, $ty:ty,) => {
        $reader.get::<$ty>($section, stringify!($key))
    };
    (@read $reader:ident, $section:expr, $key:ident, $ty:ty, $min:literal $max:literal) => {
        $reader.get_within::<$ty>($section, stringify!($key), stringify!($min), stringify!($max))
    };
}

settings! {
    /// The process.
    {
        /// Worker threads of this process, each a member of the consumer group with partitions of its own. More workers
        /// than partitions are idle. Replicas on other machines count the same.
        workers: u64 = 1 in 1 to 256;
    }

    /// Where events come from.
    kafka: KafkaSettings {
        /// Bootstrap servers as `host:port`; a few of the cluster are enough.
        brokers: Vec<String> = ["localhost:9092"];
        /// Topics to read, by their exact names. One topic may carry many event types.
        topics: Vec<String> = ["usage-events"];
        /// Consumer group. A topic is counted by one group per database; another group is refused.
        group: String = "highwater";
        /// How the group divides the partitions: `classic` works with any broker, `consumer` (KIP-848) lets brokers of
        /// Kafka 4.0 and later decide, which is faster with many members.
        protocol: Protocol = "classic";
        /// What to do where retention deleted events before they were read: `record` writes the range into the ledger as
        /// lost, says so as an error and goes on with what is left; `stop` stops that partition until somebody decides,
        /// while retention goes on deleting.
        on_loss: OnLoss = "record";
        /// How connections are secured: `ssl` is TLS, `sasl_ssl` is TLS with a user's name and password,
        /// `sasl_plaintext` sends them, and everything, for anybody on the way to read.
        security: KafkaSecurity = "plaintext";
        /// How the password is proved, where `security` asks for one.
        sasl_mechanism: SaslMechanism = "SCRAM-SHA-512";
        /// User, where `security` asks for one.
        username: Option<String> = "";
        /// The user's password.
        password: Secret = "";
        /// A file with the password and nothing else (a mounted secret), instead of `password`.
        password_file: Option<PathBuf> = "";
        /// Certificates (PEM) of the CAs that sign brokers' certificates; "" trusts those that this system trusts.
        ca_file: Option<PathBuf> = "";
        /// Our certificate (PEM), for brokers that want one, and those between it and its CA.
        certificate_file: Option<PathBuf> = "";
        /// The private key (PEM) of `certificate_file`.
        key_file: Option<PathBuf> = "";
        /// What `key_file` is encrypted with, if it is.
        key_password: Secret = "";
        /// A file with that and nothing else, instead of `key_password`.
        key_password_file: Option<PathBuf> = "";
        /// Further properties of librdkafka, for tuning, by librdkafka's own names, such as
        /// `{ "client.rack" = "eu-1a" }`. In the environment `__` stands for each point:
        /// `HIGHWATER_KAFKA__PROPERTIES__CLIENT__RACK`. Secrets are taken from the environment only. Properties that
        /// exactly-once delivery depends on, and those with a setting of their own, are refused.
        properties: Properties = {};
    }

    /// Where numbers go.
    clickhouse: ClickhouseSettings {
        /// ClickHouse's HTTP interface, `http://host:port` or `https://host:port`; without a port 8123 or 8443. Name the
        /// server itself: a proxy that reconnects unseen breaks what highwater relies on.
        url: String = "http://localhost:8123";
        /// Database; `highwater migrate` makes it.
        database: String = "highwater";
        /// User.
        user: String = "default";
        /// The user's password.
        password: Secret = "";
        /// A file with the password and nothing else (a mounted secret), instead of `password`.
        password_file: Option<PathBuf> = "";
        /// Certificates (PEM) of the CAs that sign the server's certificate; "" trusts those that this system trusts.
        ca_file: Option<PathBuf> = "";
        /// Our certificate (PEM), for a server that wants one, and those between it and its CA.
        certificate_file: Option<PathBuf> = "";
        /// The private key (PEM, not encrypted) of `certificate_file`.
        key_file: Option<PathBuf> = "";
        /// How long to wait for a connection, TLS included.
        connect_timeout: Duration = "5s" in "100ms" to "5m";
        /// How long an insert may take before its outcome counts as unknown and is asked for.
        insert_timeout: Duration = "2m" in "1s" to "10m";
        /// How inserts travel: `lz4` packs them, a third to half fewer bytes on the network for a twentieth of this process's time
        /// where events are short, and a third of it or more where they carry long texts; `none` pays where ClickHouse is on
        /// the same host or behind a network with room.
        compression: Compression = "lz4";
        /// Inserts (parts) for which each table remembers tokens, so that a repeated insert is known as such. Many
        /// partitions, small batches (`[batch]`) or little memory need more; `highwater run` says how many. Set on the
        /// tables by `highwater migrate`.
        token_window: u64 = 100000 in 10000 to 10000000;
    }

    /// The schema registry, for messages that name their schema by its id there (Confluent's framing).
    registry: RegistrySettings {
        /// Address of Confluent's API, `http://host:port` or `https://host:port`, with a path or without (Apicurio has it
        /// under `/apis/ccompat/v7`); "" for none: only Avro single-object encoding is understood then.
        url: Option<String> = "";
        /// User for basic authentication; "" for none.
        user: Option<String> = "";
        /// The user's password.
        password: Secret = "";
        /// A file with the password and nothing else (a mounted secret), instead of `password`.
        password_file: Option<PathBuf> = "";
        /// Certificates (PEM) of the CAs that sign the registry's certificate; "" trusts those that this system trusts.
        ca_file: Option<PathBuf> = "";
        /// Our certificate (PEM), for a registry that wants one, and those between it and its CA.
        certificate_file: Option<PathBuf> = "";
        /// The private key (PEM, not encrypted) of `certificate_file`.
        key_file: Option<PathBuf> = "";
        /// How long an answer may take. An unanswered question is repeated; the partitions that need the answer wait.
        timeout: Duration = "10s" in "100ms" to "5m";
    }

    /// When a batch is sealed and written: at the first of these three.
    batch: BatchSettings {
        /// Greatest age; each partition seals at moments of its own, so far apart. Shorter shows numbers sooner and costs
        /// ClickHouse more parts.
        interval: Duration = "5s" in "100ms" to "10m";
        /// Greatest number of events.
        rows: u64 = 100000 in 1 to 10000000;
        /// Greatest size in memory.
        bytes: ByteSize = "64MiB" in "64KiB" to "4GiB";
    }

    /// What the process may hold.
    memory: MemorySettings {
        /// Bytes of batches being filled or written, over all workers. At the limit partitions pause; nothing is
        /// dropped. At least twice `batch.bytes`: one batch is written while the next fills. Beside it the process needs up to
        /// 120 MiB for each worker, and 2 MiB for each partition: by default one worker with 20 of them stays within 512 MiB.
        limit: ByteSize = "352MiB" in "1MiB" to "1024GiB";
    }

    /// What events are and which of them count.
    events: EventSettings {
        /// Directory of annotated Avro schemas, one event type a file (`*.avsc`). Former schemas whose messages are still
        /// to be read without a registry stand in `former` within it.
        schemas: PathBuf = "schemas";
        /// Directory of packs: rollups and metrics (`*.toml`).
        packs: PathBuf = "packs";
        /// Price list of models; "" for none.
        prices: Option<PathBuf> = "prices.toml";
        /// An event is a duplicate if its id stood among the previous so many offsets of its partition.
        horizon: u64 = 10000 in 0 to 10000000;
        /// An event dated later than its record's own timestamp by more than this is a dead letter.
        max_skew: Duration = "10m" in "0s" to "3650d";
        /// An event dated earlier than its record's own timestamp by more than this is a dead letter.
        max_age: Duration = "30d" in "1m" to "36500d";
        /// How far events may come out of order before a minute counts as complete. Later ones are added all the same.
        lateness: Duration = "30s" in "0s" to "30d";
        /// Series (combinations of dimensions and minute) that a rollup may have in one batch. What is more goes to a
        /// series named `__other__`: counted, never dropped.
        max_series: u64 = 50000 in 1 to 10000000;
    }

    /// How long tables keep what they have, from the event's time on.
    retention: RetentionSettings {
        /// Every single event.
        raw: KeepDays = "730d";
        /// Per-minute aggregates.
        rollups: KeepDays = "0";
        /// Messages that could not be read. They may hold anything: keep them short.
        dead_letters: KeepDays = "30d";
    }

    /// Where alerts and budgets of packs are told of (docs/alerts.md), if there are any.
    alerts: AlertSettings {
        /// Topic of alerts and heartbeats, `highwater-alerts` for example; made if it is missing. "" for none: nothing is
        /// judged.
        topic: Option<String> = "";
        /// Topic of how budgets stand; made if it is missing.
        budget_topic: String = "highwater-budgets";
        /// How messages name their schemas: `single_object` by the fingerprints of `published/*.avsc`, `confluent` by ids
        /// of the schema registry (`registry.url`), where they are registered under `{topic}-dev.highwater.{record}`.
        framing: AlertFraming = "single_object";
        /// Least time from one look at what is new to the next. With `batch.interval` it says how soon a budget that is
        /// spent is told of.
        interval: Duration = "1s" in "100ms" to "10m";
        /// Longest time from one heartbeat to the next.
        heartbeat: Duration = "30s" in "1s" to "1h";
        /// How far back what was judged is judged again when late events come, and corrected. It costs memory: the rows of
        /// that time are kept.
        correct_within: Duration = "1d" in "0s" to "30d";
        /// Memory of the replica that judges for the rows that rules look at, beside `memory.limit`. Where they do not fit,
        /// those of some rules are dropped, which are not judged and said to be so; all others are (docs/alerts.md).
        memory: ByteSize = "256MiB" in "1MiB" to "1024GiB";
        /// Longest time that ClickHouse may take for one question of the rules; beyond, those that asked it are not judged.
        query_time: Duration = "60s" in "1s" to "30m";
        /// Most memory that ClickHouse may take for one question, likewise.
        query_memory: ByteSize = "2GiB" in "1MiB" to "1024GiB";
        /// Most rows of one answer, likewise: series times steps.
        query_rows: u64 = 10_000_000 in 1_000 to 1_000_000_000;
    }

    /// Where `highwater alerts forward` hands alerts on to (docs/alerts.md). Each target that is set gets all of them, in a
    /// consumer group of its own, `{group}-webhook`, `{group}-slack` and `{group}-alertmanager`. URLs may hold tokens, and so
    /// they are secrets; a user and a password in one (`https://user:password@host/`) are shown to the target as such.
    forward: ForwardSettings {
        /// What the consumer groups' names begin with.
        group: String = "highwater-forward";
        /// A URL that gets every message as JSON, with the fields of `published/alert.avsc`.
        webhook_url: Secret = "";
        /// A file with the URL and nothing else (a mounted secret), instead of `webhook_url`.
        webhook_url_file: Option<PathBuf> = "";
        /// An incoming webhook of Slack, or of what takes the same (Mattermost, Rocket.Chat).
        slack_url: Secret = "";
        /// A file with the URL and nothing else, instead of `slack_url`.
        slack_url_file: Option<PathBuf> = "";
        /// Alertmanager's own URL, `http://alertmanager:9093`, with a path where a proxy has it under one. The members of a
        /// cluster all, separated by commas.
        alertmanager_url: Secret = "";
        /// A file with the URL and nothing else, instead of `alertmanager_url`.
        alertmanager_url_file: Option<PathBuf> = "";
        /// Certificates (PEM) of the CAs that sign the targets' certificates; "" trusts those that this system trusts.
        ca_file: Option<PathBuf> = "";
        /// Our certificate (PEM), for targets that want one, and those between it and its CA.
        certificate_file: Option<PathBuf> = "";
        /// The private key (PEM, not encrypted) of `certificate_file`.
        key_file: Option<PathBuf> = "";
        /// How long a target may take to answer. What is not answered in time is posted again.
        timeout: Duration = "10s" in "100ms" to "5m";
        /// How long one message is tried at a target that does not take it, before it is left out with an error in the log.
        /// What a target refuses (with the status 400, 413 or 422) is left out at the third time, and what it answers with
        /// 5xx for ten minutes once it takes another message.
        give_up: Duration = "1d" in "1s" to "3650d";
        /// How often Alertmanager is told anew of what fires: well below its `resolve_timeout` (5m), after which it takes an
        /// alert for over.
        resend: Duration = "1m" in "1s" to "1h";
        /// How long no heartbeat of whoever judges may come before each target is told so, by an alert of its own; never less
        /// than three times `alerts.heartbeat`. 0 for never.
        silent_after: Duration = "5m" in "0s" to "1d";
        /// A page about an alert, to which messages link (`generatorURL` in Alertmanager), with places for `{alert_id}` and
        /// `{rule}`: `https://grafana.example.com/d/alerts?var-rule={rule}`; "" for none.
        link: Option<String> = "";
    }

    /// What the process says, on standard error.
    log: LogSettings {
        /// `human` for a terminal, `json` for one JSON object a line.
        format: LogFormat = "human";
        /// The least severe level that is logged. The environment variable `RUST_LOG` overrides it, per module if need
        /// be: `RUST_LOG=info,librdkafka=debug`.
        level: LogLevel = "info";
    }

    /// What the process tells of itself over HTTP while it runs: metrics for Prometheus (`/metrics`) and health
    /// (`/livez`, `/readyz`). docs/metrics-of-highwater.md lists the metrics.
    telemetry: TelemetrySettings {
        /// Where to listen, in plain HTTP and for everybody who can reach it; no metric holds what stands in an event.
        /// Replicas on one machine need a port each.
        listen: Option<SocketAddr> = "0.0.0.0:9464";
    }
}
