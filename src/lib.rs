//! highwater turns usage telemetry on Kafka into numbers people can trust.
//!
//! Services publish Avro events to topics; highwater consumes them as a consumer group and writes every event and its
//! per-minute aggregates into ClickHouse, exactly once, with a ledger that proves it.
//!
//! # The one idea
//! Every table carries the high-water mark of each source in the same part as its rows, and an insert is a
//! compare-and-set on that mark:
//!
//! ```text
//! start at the ledger's end E
//! poll → decode → columns                        open batch [E, …)
//! seal at `to`                                   after 5 s, 100,000 events or 64 MiB
//! insert each block, built on the mark found     raw, rollup, dead letters
//! ask the marks: all of the batch there?         else build the rest on the mark found, and again
//! insert the ledger row [E, to), built on E; ask
//! commit `to` to Kafka                           a hint
//! ```
//!
//! A *source* is a partition of a topic in one of its lives; a *block* is one insert into one month of one table; the
//! *mark* of a source there is one past the last of its offsets that the table holds. Of two writers who found the same
//! mark one wins, whoever they are: after a crash, asleep, or both believing that they own the partition. Kafka's group
//! only divides the work.
//!
//! # Layout
//! Data flows one way: config → event → columns/rollup → batch → insert → commit.
//!
//! | room | what it is |
//! |---|---|
//! | [`config`] | files and environment → checked settings |
//! | [`event`] | annotated Avro schema → event type; framing on the wire |
//! | [`columns`] | Avro bytes → ClickHouse columns, and the Native block |
//! | [`rollup`] | packs, histograms, prices; columns → per-minute aggregates |
//! | [`alert`] | rules and budgets over metrics: judged on complete minutes, told with their evidence |
//! | [`plan`] | the three above, compiled: what every message is put through |
//! | [`writers`] | what is known of the schemas that messages were written with |
//! | [`batch`] | a range of offsets and its blocks; the ledger's row |
//! | [`partition`] | the delivery protocol of one partition, a pure state machine |
//! | [`ports`] | what a worker needs of a log, a store and a schema registry |
//! | [`meter`] | what a worker tells of its work |
//! | [`worker`] | one consumer's thread, driving partitions between the two |
//! | [`evaluator`] | judges alerts while workers consume, and publishes them |
//! | [`forward`] | hands alerts on to webhooks, as a subscriber of their topic |
//! | [`kafka`] | the log |
//! | [`clickhouse`] | the store; tables and their migration |
//! | [`registry`] | the schema registry |
//! | [`tls`] | certificates, dialing under TLS or without, and what went wrong with it |
//! | [`telemetry`] | what the process says of itself |
//! | [`allocator`] | how memory goes back to the system |
//! | [`failpoint`] | where a test may end the process, in debug builds |
//! | [`command`] | one file per subcommand |
//!
//! From [`event`] to [`worker`] nothing knows a socket, a clock or a thread: time and I/O come in as arguments, so that a
//! simulation can run this code through failures by the million.

pub mod alert;
pub mod allocator;
pub mod batch;
pub mod clickhouse;
pub mod columns;
pub mod command;
pub mod config;
pub mod evaluator;
pub mod event;
pub mod failpoint;
pub mod forward;
pub mod kafka;
pub mod meter;
pub mod partition;
pub mod plan;
pub mod ports;
pub mod registry;
pub mod rollup;
pub mod telemetry;
pub mod tls;
pub mod worker;
pub mod writers;
