//! The command as it is called: exit codes, and what it says where it can't work.

use std::path::Path;
use std::process::Command;

use devstack::ClickHouse;

use crate::fixture::server;

/// Nothing listens here.
const NOWHERE: &str = "127.0.0.1:1";

struct Outcome {
    code: Option<i32>,
    out: String,
    error: String,
}

fn highwater(server: &ClickHouse, database: &str, arguments: &[&str]) -> Outcome {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(arguments)
        .current_dir(root)
        .env("HIGHWATER_CLICKHOUSE__URL", server.url())
        .env("HIGHWATER_CLICKHOUSE__DATABASE", database)
        .env("HIGHWATER_KAFKA__BROKERS", NOWHERE)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_clean_from_wrong_and_from_unknown() {
    let run = |arguments: &[&str]| highwater(server(), "commandline", arguments);
    // Before there is a database, or a table.
    let outcome = run(&["audit", "--without-kafka"]);
    assert_eq!(outcome.code, Some(3), "{}", outcome.error);
    assert!(outcome.error.contains("the database commandline is not there") && outcome.error.contains("migrate"));
    let outcome = run(&["audit", "--without-kafka", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!((outcome.code, &json["verdict"]), (Some(3), &"not_made".into()));
    assert!(json["error"].as_str().unwrap().contains("is not there"), "{json}");

    assert_eq!(run(&["migrate"]).code, Some(0));
    let outcome = run(&["audit", "--without-kafka", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!((outcome.code, &json["verdict"], &json["lag"]), (Some(0), &"clean".into(), &serde_json::Value::Null));
    for key in ["verdict", "lag", "since", "checks", "findings", "notes", "totals", "sources"] {
        assert!(json.get(key).is_some(), "{key} is not in {json}");
    }
    assert!(run(&["audit", "--without-kafka"]).out.contains("audit: clean"));

    let client = highwater::clickhouse::Client::new(crate::fixture::endpoint(server(), "commandline"));
    let row = "INSERT INTO commandline.ledger (source, kind, `from`, `to`, events) VALUES ('1/t/0', 'batch', 0, 5, 1)";
    client.execute(row).await.unwrap();
    let outcome = run(&["audit", "--without-kafka", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!((outcome.code, &json["verdict"]), (Some(1), &"findings".into()), "{json}");
    let finding = &json["findings"][0];
    assert_eq!((&finding["kind"], &finding["source"]), (&"wrong_sum".into(), &"1/t/0".into()));
    assert_eq!((&finding["from"], &finding["to"], &finding["table"]), (&0.into(), &5.into(), &"ledger".into()));

    client.execute("DROP TABLE commandline.dead_letters").await.unwrap();
    let outcome = run(&["audit", "--without-kafka"]);
    assert_eq!(outcome.code, Some(3));
    assert!(outcome.error.contains("the table dead_letters is missing; make it with `highwater migrate`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_flags_are_refused_with_what_is_allowed() {
    for (arguments, said) in [
        (&["--since", "yesterday"][..], "expected `last`"),
        (&["--since"], "a value is required"),
        (&["--max-lag", "many"], "invalid digit"),
        (&["--max-lag", "-1"], "unexpected argument"),
        (&["--max-age", "10"], "expected a duration"),
        (&["--patience", "soon"], "expected a duration"),
        (&["--max-lag", "5", "--without-kafka"], "cannot be used with"),
        (&["--max-age", "5m", "--without-kafka"], "cannot be used with"),
        (&["--all"], "unexpected argument"),
        (&["--setting", "clickhouse.url=nonsense"], "clickhouse.url"),
    ] {
        let outcome = highwater(server(), "flags", &[&["audit"], arguments].concat());
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.error);
        assert!(outcome.error.contains(said), "{arguments:?}: {}", outcome.error);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_away_are_named() {
    assert_eq!(highwater(server(), "away", &["migrate"]).code, Some(0));
    let outcome = highwater(server(), "away", &["audit"]);
    assert_eq!(outcome.code, Some(3));
    assert!(outcome.error.contains("can't ask Kafka; --without-kafka audits the tables alone"), "{}", outcome.error);

    let url = format!("clickhouse.url=http://{NOWHERE}");
    let outcome = highwater(server(), "away", &["audit", "--without-kafka", "--setting", &url]);
    assert_eq!(outcome.code, Some(3));
    assert!(outcome.error.contains(NOWHERE) && outcome.error.contains("could not be made"), "{}", outcome.error);
}
