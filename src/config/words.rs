//! Settings that are one of a few words.

use config::Value;

use super::value::{Setting, text_of};

/// Declares an enumeration that is written as one of a few words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $allowed:literal { $($(#[$variant_meta:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant),* }

        impl $name {
            /// As settings write it.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }

        impl Setting for $name {
            const ALLOWED: &'static str = $allowed;

            fn read(value: &Value, _: bool) -> Option<Self> {
                match text_of(value)? { $($word => Some($name::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// How the members of a consumer group agree on who reads which partition.
    Protocol, "\"classic\" or \"consumer\"" {
        /// The members agree among themselves; any broker.
        Classic = "classic",
        /// The broker decides: KIP-848, Kafka 4.0 and later.
        Consumer = "consumer",
    }
}

words! {
    /// How connections to brokers are secured.
    KafkaSecurity, "\"plaintext\", \"ssl\", \"sasl_plaintext\" or \"sasl_ssl\"" {
        /// Not at all.
        Plaintext = "plaintext",
        /// By TLS; who we are is told by a certificate, if at all.
        Ssl = "ssl",
        /// Who we are is told by name and password, and anybody on the way can read everything.
        SaslPlaintext = "sasl_plaintext",
        /// By TLS; who we are is told by name and password.
        SaslSsl = "sasl_ssl",
    }
}

impl KafkaSecurity {
    /// Whether connections are under TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, KafkaSecurity::Ssl | KafkaSecurity::SaslSsl)
    }

    /// Whether name and password are told.
    pub fn is_sasl(self) -> bool {
        matches!(self, KafkaSecurity::SaslPlaintext | KafkaSecurity::SaslSsl)
    }
}

words! {
    /// How a password is proved to brokers.
    SaslMechanism, "\"PLAIN\", \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\"" {
        /// By showing it.
        Plain = "PLAIN",
        /// By a salted challenge; the broker keeps no password.
        ScramSha256 = "SCRAM-SHA-256",
        /// The same with a longer hash.
        ScramSha512 = "SCRAM-SHA-512",
    }
}

words! {
    /// What to do where the log deleted events before they were read.
    OnLoss, "\"record\" or \"stop\"" {
        /// Say so in the ledger and go on.
        Record = "record",
        /// Stop the partition.
        Stop = "stop",
    }
}

words! {
    /// How inserts travel to ClickHouse.
    Compression, "\"lz4\" or \"none\"" {
        /// Packed, which takes a tenth of the process's time.
        Lz4 = "lz4",
        /// As they are, about half as many bytes again.
        None = "none",
    }
}

words! {
    /// How published messages name their schemas.
    AlertFraming, "\"single_object\" or \"confluent\"" {
        /// By fingerprint, in Avro's single-object encoding.
        SingleObject = "single_object",
        /// By the id that a schema registry gave it.
        Confluent = "confluent",
    }
}

words! {
    /// How a log line looks.
    LogFormat, "\"human\" or \"json\"" {
        /// For a terminal.
        Human = "human",
        /// One JSON object a line, for machines.
        Json = "json",
    }
}

words! {
    /// The least severe level that is logged.
    LogLevel, "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"" {
        /// Only what stops something.
        Error = "error",
        /// And what needs an eye.
        Warn = "warn",
        /// And what happens.
        Info = "info",
        /// And why.
        Debug = "debug",
        /// And everything else.
        Trace = "trace",
    }
}
