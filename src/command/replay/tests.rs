//! Files good and bad, without a broker.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashSet;

use super::*;
use crate::command::UsageError;

const EVENT: &str = r#"{"type": "record", "name": "call", "doc": "d", "fields": [
    {"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}, "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "default": "production", "highwater": {"role": "dimension"}},
    {"name": "status", "type": {"type": "enum", "name": "S", "symbols": ["ok", "error"]}, "highwater": {"role": "dimension"}},
    {"name": "input_tokens", "type": "long", "highwater": {"role": "measure"}},
    {"name": "latency_ms", "type": ["null", "double"], "default": null, "highwater": {"role": "measure"}}
]}"#;

const GOOD: &str = "TIMESTAMP,In,Latency\n2023-11-16 18:15:46.6805900,374,\n2023-11-16 18:15:50.9951690,396,1.5\n";

fn event() -> EventType {
    EventType::parse("call.avsc", EVENT).unwrap()
}

fn file(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("calls.csv");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

fn pairs(flags: &[&str]) -> Vec<(String, String)> {
    flags.iter().map(|flag| pair(flag).unwrap()).collect()
}

const MAP: &[&str] = &["TIMESTAMP=occurred_at", "In=input_tokens", "Latency=latency_ms"];
const SET: &[&str] = &["app=zest", "status=ok"];

fn mapping(columns: &[&str], map: &[&str], set: &[&str]) -> Result<Mapping, UsageError> {
    Mapping::new(&event(), columns.iter().map(|name| (*name).to_owned()).collect(), &pairs(map), &pairs(set))
}

fn read(text: &[u8]) -> Vec<Result<Line, BadLine>> {
    let (_directory, path) = file(text);
    let (event, (_, columns)) = (event(), open(&path).unwrap());
    let mapping = Mapping::new(&event, columns, &pairs(MAP), &pairs(SET)).unwrap();
    let mut lines = Lines::open(&path, &event, Writer::Fingerprint(event.fingerprint), &mapping).unwrap();
    std::iter::from_fn(|| lines.next().unwrap()).collect()
}

fn good(text: &[u8]) -> Vec<Line> {
    read(text).into_iter().map(Result::unwrap).collect()
}

#[test]
fn a_line_becomes_the_event_that_it_says() {
    let lines = good(GOOD.as_bytes());
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].timestamp_ms, 1_700_158_546_680);
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, b"highwater:replay:calls.csv:2").to_string();
    assert_eq!(lines[0].id, id);
    let mut expected = Vec::new();
    let values = [
        Datum::Text(id),
        Datum::Integer(1_700_158_546_680_590),
        Datum::Text("zest".into()),
        Datum::Text("production".into()),
        Datum::Symbol(0),
        Datum::Integer(374),
        Datum::Null,
    ];
    encode(&event(), Writer::Fingerprint(event().fingerprint), &values, &mut expected).unwrap();
    assert_eq!(lines[0].payload, expected);
}

#[test]
fn a_second_replay_is_the_first_again() {
    let text: String = (0..500).map(|n| format!("{},{n},\n", 1_700_000_000 + n)).collect();
    let text = format!("TIMESTAMP,In,Latency\n{text}");
    let (first, second) = (good(text.as_bytes()), good(text.as_bytes()));
    assert_eq!(first, second);
    let ids: HashSet<&str> = first.iter().map(|line| line.id.as_str()).collect();
    assert_eq!(ids.len(), 500);
    let mut shares = [0; 4];
    first.iter().for_each(|line| shares[partition(&line.id, 4)] += 1);
    assert!(shares.iter().all(|share| (90..165).contains(share)), "{shares:?}");
}

#[test]
fn line_ends_quotes_and_a_byte_order_mark_do_not_matter() {
    let plain = good(GOOD.as_bytes());
    assert_eq!(good(GOOD.replace('\n', "\r\n").as_bytes()), plain);
    assert_eq!(good(GOOD.trim_end().as_bytes()), plain);
    assert_eq!(good(format!("\u{feff}{}", GOOD.replace("374", "\"374\"")).as_bytes()), plain);
}

#[test]
fn bad_lines_are_told_with_line_and_column() {
    let text = b"TIMESTAMP,In,Latency\n1700000000,1,\nyesterday,2,\n1700000000,1.5,\n1700000000,1\n1700000000,1,2,3\n\
                 1700000000,1,\xFF\n1700000000,,\n1700000000,9223372036854775808,\n1700000000,1,inf\n\n\nx,1,\n\n1700000000,2,\n";
    for text in [text.to_vec(), String::from_utf8_lossy(text).replace('\n', "\r\n").into_bytes()] {
        let found: Vec<_> = read(&text).into_iter().filter_map(Result::err).collect();
        let places: Vec<_> = found.iter().map(|bad| (bad.line, bad.column.as_deref())).collect();
        let (time, tokens, latency) = (Some("TIMESTAMP"), Some("In"), Some("Latency"));
        let expected = [
            (3, time),
            (4, tokens),
            (5, None),
            (6, None),
            (7, latency),
            (8, tokens),
            (9, tokens),
            (10, latency),
            (13, time),
        ];
        assert_eq!(places, expected, "{found:#?}");
        assert!(found[0].problem.starts_with("found \"yesterday\"; expected a time"), "{found:?}");
        assert!(found[2].problem.contains("found 2 columns; expected 3"), "{found:?}");
    }
}

#[test]
fn what_was_found_is_counted_and_cut_short() {
    let text: String = (0..30).map(|_| "x,1,\n").collect();
    let (_directory, path) = file(format!("TIMESTAMP,In,Latency\n1700000000,1,\n{text}").as_bytes());
    let (event, mapping) = (event(), mapping(&["TIMESTAMP", "In", "Latency"], MAP, SET).unwrap());
    let found =
        check(&mut Lines::open(&path, &event, Writer::Fingerprint(event.fingerprint), &mapping).unwrap()).unwrap();
    assert_eq!((found.good, found.bad, found.told.len()), (1, 30, TOLD));
    let told = Told(Path::new("calls.csv"), &found).to_string();
    assert!(told.contains("\n  calls.csv:3:TIMESTAMP: found \"x\"; expected a time"), "{told}");
    assert!(told.ends_with("and 10 more"), "{told}");
}

#[test]
fn a_mapping_names_all_its_mistakes() {
    let map = ["TIMESTAMP=occured_at", "Inn=input_tokens", "In=latency_ms", "In=latency_ms"];
    let error =
        mapping(&["TIMESTAMP", "In"], &map, &["status=fine", "event_id=1", "colour=red"]).unwrap_err().to_string();
    let expected = [
        "there is no field `occured_at`; did you mean `occurred_at`?",
        "there is no column `Inn`; did you mean `In`?",
        "--map In=latency_ms: the field has a source already",
        "--set status=fine: found \"fine\"; expected one of ok, error",
        "--set event_id=1",
        "there is no field `colour`; there are event_id,",
        "the field `occurred_at` has no source; add --map COLUMN=occurred_at",
        "the field `app` has no source and no default; add --set app=VALUE",
    ];
    for part in expected {
        assert!(error.contains(part), "{part}\n{error}");
    }
    assert_eq!(error.lines().count(), expected.len() + 1, "{error}");
}

#[test]
fn one_id_or_time_for_all_is_refused() {
    let id = "event_id=67e55044-10b1-426f-9247-bb680e5fe0c8";
    let error = mapping(&["TIMESTAMP", "In", "Latency"], MAP, &["app=a", "status=ok", id]).unwrap_err();
    assert!(error.to_string().contains("duplicates of the first"), "{error}");
    let error = mapping(&["In"], &["In=input_tokens"], &["app=a", "status=ok", "occurred_at=0"]).unwrap_err();
    assert!(error.to_string().contains("--map COLUMN=occurred_at"), "{error}");
    let error = mapping(&["In", "In"], &["In=input_tokens"], SET).unwrap_err();
    assert!(error.to_string().contains("more than one column"), "{error}");
}

#[test]
fn a_file_without_columns_is_refused() {
    let (_directory, path) = file(b"");
    assert!(open(&path).unwrap_err().to_string().contains("is empty"));
    let missing = format!("{:#}", open(Path::new("/does/not/exist.csv")).unwrap_err());
    assert!(missing.contains("/does/not/exist.csv"), "{missing}");
}
