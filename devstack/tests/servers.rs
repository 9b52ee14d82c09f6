//! Each server starts, answers, dies and comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use devstack::{ClickHouse, Kafka, Registry, http};

/// Asks a broker which requests it knows (ApiVersions, version 0): the error
/// code and how many it knows.
fn api_versions(bootstrap: &str) -> io::Result<(u16, u32)> {
    let mut stream = TcpStream::connect(bootstrap)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    // Length 10; key 18, version 0, correlation id 7, no client id.
    stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff])?;
    // Length, correlation id, error code, count.
    let mut head = [0; 14];
    stream.read_exact(&mut head)?;
    assert_eq!(head[4..8], [0, 0, 0, 7]);
    let error = u16::from_be_bytes([head[8], head[9]]);
    Ok((error, u32::from_be_bytes([head[10], head[11], head[12], head[13]])))
}

#[test]
fn kafka_answers_and_comes_back_on_its_port() {
    let kafka = Kafka::options().property("num.partitions", "3").start().unwrap();
    let (error, known) = api_versions(&kafka.bootstrap()).unwrap();
    assert_eq!(error, 0);
    assert!(known > 20, "{known}");
    assert_eq!(kafka.cluster_id().len(), 22);

    kafka.pause().unwrap();
    assert!(api_versions(&kafka.bootstrap()).is_err(), "a frozen broker answers");
    kafka.resume().unwrap();
    api_versions(&kafka.bootstrap()).unwrap();

    let pid = kafka.pid().unwrap();
    kafka.kill().unwrap();
    assert_eq!(kafka.pid(), None);
    assert!(TcpStream::connect(kafka.bootstrap()).is_err(), "the port is still open");
    assert!(kafka.pause().is_err(), "nothing is there to be paused");
    kafka.restart().unwrap();
    assert_ne!(kafka.pid(), Some(pid));
    api_versions(&kafka.bootstrap()).unwrap();

    let folder = kafka.folder().to_owned();
    drop(kafka);
    assert!(!folder.exists(), "{} is left", folder.display());
}

#[test]
fn kafka_that_does_not_start_shows_its_log() {
    let kafka = Kafka::options().property("log.segment.bytes", "many").start();
    let message = kafka.err().unwrap().to_string();
    assert!(message.contains("ended before it was ready"), "{message}");
    assert!(message.contains("log.segment.bytes"), "{message}");
    let log = message.split_whitespace().find(|word| word.ends_with("/log:")).unwrap();
    let folder = std::path::Path::new(log.trim_end_matches(':')).parent().unwrap().to_owned();
    assert!(folder.join("log").is_file(), "the log that the message names is gone");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn clickhouse_keeps_its_rows_through_a_kill() {
    let clickhouse = ClickHouse::options().start().unwrap();
    let select = "SELECT a FROM t ORDER BY a";
    assert_eq!(clickhouse.query("SELECT 1").unwrap(), "1\n");
    clickhouse.query("CREATE TABLE t (a Int32) ENGINE = MergeTree ORDER BY a").unwrap();
    clickhouse.query("INSERT INTO t VALUES (1)").unwrap();
    clickhouse.kill().unwrap();
    let dead = clickhouse.query(select).unwrap_err();
    assert!(format!("{dead:#}").contains("no answer"), "{dead:#}");
    clickhouse.restart().unwrap();
    assert_eq!(clickhouse.query(select).unwrap(), "1\n");

    clickhouse.query("INSERT INTO t VALUES (2)").unwrap();
    clickhouse.stop().unwrap();
    assert_eq!(clickhouse.pid(), None);
    clickhouse.restart().unwrap();
    assert_eq!(clickhouse.query(select).unwrap(), "1\n2\n");

    let refused = clickhouse.query("SELECT no_such_column").unwrap_err().to_string();
    assert!(refused.contains("UNKNOWN_IDENTIFIER"), "{refused}");
    assert!(TcpStream::connect(clickhouse.tcp_address()).is_ok());
}

#[test]
fn clickhouse_refuses_a_port_that_another_one_has() {
    let first = ClickHouse::options().start().unwrap();
    let port = first.url().rsplit(':').next().unwrap().parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let second = ClickHouse::options().http_port(port).folder(folder.path()).start();
    let message = second.err().unwrap().to_string();
    assert!(message.contains("Address already in use"), "{message}");
}

#[test]
fn registry_answers() {
    let registry = Registry::start().unwrap();
    let url = registry.url();
    let (port, path) = url.strip_prefix("http://127.0.0.1:").unwrap().split_once('/').unwrap();
    let target = format!("/{path}/subjects");
    let answer = http::request(port.parse().unwrap(), "GET", &target, "", Duration::from_secs(5)).unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "[]"));
}
