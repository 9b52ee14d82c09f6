//! Schemas, good and bad.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::event::{COST_TYPE, Pii};
use serde_json::json;

const EVENT_ID: &str =
    r#"{"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}, "highwater": {"role": "id"}}"#;
const OCCURRED_AT: &str = r#"{"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "highwater": {"role": "time"}}"#;
const APP: &str = r#"{"name": "app", "type": "string", "highwater": {"role": "dimension"}}"#;
const ENVIRONMENT: &str = r#"{"name": "environment", "type": "string", "highwater": {"role": "dimension"}}"#;

fn record(fields: &[&str]) -> String {
    format!(r#"{{"type": "record", "name": "e", "namespace": "a.b", "fields": [{}]}}"#, fields.join(", "))
}

/// An event with the required fields and these.
fn event(more: &[&str]) -> String {
    record(&[&[EVENT_ID, OCCURRED_AT, APP, ENVIRONMENT], more].concat())
}

fn problem(json: &str) -> (Option<String>, Problem) {
    let error = EventType::parse("schemas/e.avsc", json).expect_err(json);
    let text = error.to_string();
    assert!(text.starts_with("schemas/e.avsc"), "{text}");
    assert!(error.field.as_ref().is_none_or(|field| text.contains(&format!("`{field}`"))), "{text}");
    (error.field, error.problem)
}

#[test]
fn every_kind_has_its_column() {
    let kinds = [
        (json!("boolean"), "Bool"),
        (json!("int"), "Int32"),
        (json!("long"), "Int64"),
        (json!("float"), "Float32"),
        (json!("double"), "Float64"),
        (json!("string"), "String"),
        (json!("bytes"), "String"),
        (json!({"type": "string"}), "String"),
        (json!({"type": "string", "logicalType": "uuid"}), "UUID"),
        (json!({"type": "int", "logicalType": "date"}), "Date32"),
        (json!({"type": "long", "logicalType": "timestamp-millis"}), "DateTime64(3, 'UTC')"),
        (json!({"type": "long", "logicalType": "timestamp-micros"}), "DateTime64(6, 'UTC')"),
        (json!({"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 6}), "Decimal(18, 6)"),
        (json!({"type": "bytes", "logicalType": "decimal", "precision": 38}), "Decimal(38, 0)"),
        (json!({"type": "long", "logicalType": "timestamp-nanos"}), "DateTime64(9, 'UTC')"),
        (json!({"type": "long", "logicalType": "local-timestamp-millis"}), "DateTime64(3, 'UTC')"),
        (json!({"type": "long", "logicalType": "local-timestamp-micros"}), "DateTime64(6, 'UTC')"),
        (json!({"type": "long", "logicalType": "local-timestamp-nanos"}), "DateTime64(9, 'UTC')"),
        (json!({"type": "int", "logicalType": "time-millis"}), "Int32"),
        (json!({"type": "long", "logicalType": "time-micros"}), "Int64"),
        (json!({"type": "fixed", "name": "F", "size": 4}), "String"),
        (json!({"type": "fixed", "name": "F", "size": 16, "logicalType": "uuid"}), "UUID"),
        (
            json!({"type": "fixed", "name": "F", "size": 9, "logicalType": "decimal", "precision": 20, "scale": 1}),
            "Decimal(20, 1)",
        ),
    ];
    for (kind, column) in kinds {
        let array = |items| json!({"type": "array", "items": items});
        let map = |values| json!({"type": "map", "values": values});
        for (avro, nullable, expected) in [
            (kind.clone(), false, column.to_owned()),
            (json!([kind]), false, column.to_owned()),
            (json!(["null", kind]), true, format!("Nullable({column})")),
            (json!([kind, "null"]), true, format!("Nullable({column})")),
            (array(kind.clone()), false, format!("Array({column})")),
            (json!(["null", array(json!([kind, "null"]))]), true, format!("Array(Nullable({column}))")),
            (map(kind.clone()), false, format!("Map(String, {column})")),
            (json!([map(json!(["null", kind])), "null"]), true, format!("Map(String, Nullable({column}))")),
        ] {
            let field = json!({"name": "x", "type": avro}).to_string();
            let event = EventType::parse("f", &event(&[&field])).unwrap();
            assert_eq!(event.columns()[4].clickhouse_type, expected, "{field}");
            assert_eq!(event.fields[4].nullable, nullable);
        }
    }
}

#[test]
fn enums_and_dimensions_are_low_cardinality_and_never_nullable() {
    let event = event(&[
        r#"{"name": "a", "type": {"type": "enum", "name": "S", "symbols": ["x", "y"]}}"#,
        r#"{"name": "b", "type": ["null", "S"]}"#,
        r#"{"name": "c", "type": ["string", "null"], "highwater": {"role": "dimension", "examples": {"p": 2, "q": 1}}}"#,
        r#"{"name": "d", "type": "a.b.S", "highwater": {"role": "dimension", "examples": ["y"]}}"#,
        r#"{"name": "e", "type": {"type": "array", "items": ["null", "S"]}}"#,
        r#"{"name": "f", "type": {"type": "map", "values": "S"}}"#,
    ]);
    let event = EventType::parse("f", &event).unwrap();
    assert!(event.columns()[4..8].iter().all(|column| column.clickhouse_type == "LowCardinality(String)"));
    let nested: Vec<String> = event.columns()[8..].iter().map(|column| column.clickhouse_type.clone()).collect();
    assert_eq!(nested, ["Array(LowCardinality(String))", "Map(String, LowCardinality(String))"]);
    assert_eq!(event.fields[5].kind, Kind::Enum(vec!["x".into(), "y".into()]));
    assert_eq!(event.fields[6].examples, ["p", "p", "q"]);
}

#[test]
fn annotations_are_read() {
    let event = event(&[
        r#"{"name": "who", "type": "string", "highwater": {"role": "subject", "pii": "pseudonymize"}}"#,
        r#"{"name": "ip", "type": "string", "highwater": {"pii": "drop"}}"#,
        r#"{"name": "run", "type": "string", "highwater": {"role": "session"}}"#,
        r#"{"name": "model", "type": "string", "highwater": {"role": "dimension", "price": "model", "otel": "m.n"}}"#,
        r#"{"name": "tokens", "doc": "Tokens.", "type": "long", "highwater": {"role": "measure", "unit": "tokens", "price": "input", "range": [1, 2.5]}}"#,
        r#"{"name": "ms", "type": "double", "highwater": {"role": "measure", "unit": "ms"}}"#,
    ]);
    let event = EventType::parse("f", &event).unwrap();
    let field = |name: &str| &event.fields[event.position(name).unwrap()];
    assert_eq!((event.name.as_str(), event.id, event.time), ("e", 0, 1));
    assert_eq!((field("who").role, field("who").pii), (Some(Role::Subject), Some(Pii::Pseudonymize)));
    assert_eq!((field("ip").role, field("ip").pii), (None, Some(Pii::Drop)));
    assert_eq!(field("run").role, Some(Role::Session));
    assert_eq!((field("model").price, field("model").otel.as_deref()), (Some(Price::Model), Some("m.n")));
    assert_eq!((field("tokens").price, field("tokens").range), (Some(Price::Input), Some([1.0, 2.5])));
    let columns = event.columns();
    let comments: Vec<&str> = columns[8..].iter().map(|column| column.comment.as_str()).collect();
    assert_eq!(comments[..2], ["Tokens. [tokens]", "[ms]"]);
    assert!(event.is_priced());
    assert_eq!((columns[10].name.as_str(), columns[10].clickhouse_type.as_str()), ("cost_usd", COST_TYPE));
    let unpriced = EventType::parse("f", &super::tests::event(&[r#"{"name": "cost_usd", "type": "double"}"#])).unwrap();
    assert!(!unpriced.is_priced());
    assert_eq!(unpriced.columns().len(), 5);
}

#[test]
fn what_is_no_schema_of_an_event() {
    assert!(matches!(problem("{"), (None, Problem::Json(_))));
    assert!(matches!(problem(r#"{"type": "record"}"#), (None, Problem::Avro(_))));
    assert!(matches!(problem(&event(&[APP])), (None, Problem::Avro(text)) if text.contains("app")));
    assert!(matches!(problem(r#""string""#), (None, Problem::NotARecord(_))));
    assert!(matches!(problem(&record(&[])), (Some(field), Problem::Missing(_)) if field == "event_id"));
    let e = r#"{"type": "enum", "name": "E", "symbols": ["A"]}"#;
    let twice = event(&[&format!(r#"{{"name": "x", "type": {e}}}, {{"name": "y", "type": {e}}}"#)]);
    assert!(matches!(problem(&twice), (None, Problem::Avro(text)) if text.contains("twice") || text.contains("defin")));
    let ledger = event(&[]).replace(r#""e""#, r#""ledger""#);
    assert_eq!(problem(&ledger), (None, Problem::ReservedName("ledger".into())));
}

#[test]
fn required_fields_are_there_once_with_their_roles() {
    let all = [EVENT_ID, OCCURRED_AT, APP, ENVIRONMENT];
    for (at, name) in ["event_id", "occurred_at", "app", "environment"].into_iter().enumerate() {
        let mut fields = all.to_vec();
        fields.remove(at);
        assert!(matches!(problem(&record(&fields)), (Some(field), Problem::Missing(_)) if field == name));
        let bare = all[at].split(r#", "highwater""#).next().unwrap().to_owned() + "}";
        let mut fields = all.to_vec();
        fields[at] = &bare;
        assert!(matches!(problem(&record(&fields)), (Some(field), Problem::MustHaveRole(_)) if field == name));
    }
    for (second, role) in [(EVENT_ID, "id"), (OCCURRED_AT, "time")] {
        let second = second.replacen("event_id", "second", 1).replacen("occurred_at", "second", 1);
        let (field, found) = problem(&event(&[&second]));
        assert_eq!(field.as_deref(), Some("second"));
        assert!(matches!(found, Problem::SecondRole { role: found, .. } if found == role));
    }
    let nullable = EVENT_ID.replace(r#"{"type": "string", "logicalType": "uuid"}"#, r#"["null", "string"]"#);
    assert_eq!(problem(&record(&[&nullable, OCCURRED_AT, APP, ENVIRONMENT])).1, Problem::Nullable);
    // What `Missing` tells to add makes a schema whole.
    let added: Vec<&str> = REQUIRED.iter().map(|(.., example)| *example).collect();
    assert!(EventType::parse("f", &record(&added)).is_ok());
}

#[test]
fn bad_fields_are_told_apart() {
    type Check = fn(&Problem) -> bool;
    let cases = [
        (r#""name": "_x", "type": "int""#, (|p| *p == Problem::ReservedColumn) as Check),
        (r#""name": "x", "type": ["null", "e"]"#, |p| *p == Problem::Recursive("a.b.e".into())),
        (r#""name": "x", "type": {"type": "fixed", "name": "F", "size": 0}"#, |p| {
            *p == Problem::Type("fixed a.b.F of 0 bytes".into())
        }),
        (r#""name": "x", "type": {"type": "bytes", "logicalType": "big-decimal"}"#, |p| {
            *p == Problem::Type("big-decimal".into())
        }),
        (r#""name": "x", "type": {"type": "fixed", "name": "F", "size": 12, "logicalType": "duration"}"#, |p| {
            *p == Problem::Duration
        }),
        (r#""name": "x", "type": {"type": "array", "items": "null"}"#, |p| *p == Problem::Item("null".into())),
        (r#""name": "x", "type": {"type": "array", "items": {"type": "array", "items": "int"}}"#, |p| {
            *p == Problem::Item("array of int".into())
        }),
        (r#""name": "x", "type": {"type": "map", "values": {"type": "map", "values": "int"}}"#, |p| {
            *p == Problem::Item("map of int".into())
        }),
        (r#""name": "x", "type": {"type": "array", "items": {"type": "record", "name": "R", "fields": []}}"#, |p| {
            *p == Problem::Item("record a.b.R".into())
        }),
        (r#""name": "x", "type": {"type": "map", "values": ["null", "e"]}"#, |p| {
            *p == Problem::Item("record a.b.e".into())
        }),
        (r#""name": "x", "type": {"type": "array", "items": ["int", "string"]}"#, |p| *p == Problem::Union),
        (r#""name": "x", "type": {"type": "array", "items": {"type": "string", "logicalType": "uid"}}"#, |p| {
            *p == Problem::LogicalType("uid".into())
        }),
        (r#""name": "x", "type": {"type": "bytes", "logicalType": "uuid"}"#, |p| {
            *p == Problem::LogicalType("uuid".into())
        }),
        (r#""name": "x", "type": {"type": "fixed", "name": "F", "size": 15, "logicalType": "uuid"}"#, |p| {
            *p == Problem::LogicalType("uuid".into())
        }),
        (r#""name": "x", "type": {"type": "record", "name": "R", "fields": []}, "highwater": {"pii": "drop"}"#, |p| {
            *p == Problem::AnnotatedRecord
        }),
        (r#""name": "x", "type": "null", "highwater": {"pii": "drop"}"#, |p| *p == Problem::Type("null".into())),
        (r#""name": "x", "type": {"type": "array", "items": "int"}, "highwater": {"role": "measure"}"#, |p| {
            matches!(p, Problem::Kind { kind: "array", .. })
        }),
        (r#""name": "x", "type": {"type": "map", "values": "string"}, "highwater": {"role": "dimension"}"#, |p| {
            matches!(p, Problem::Kind { kind: "map", .. })
        }),
        (r#""name": "x", "type": {"type": "fixed", "name": "F", "size": 4}, "highwater": {"role": "subject"}"#, |p| {
            matches!(p, Problem::Kind { kind: "fixed", .. })
        }),
        (
            r#""name": "x", "type": {"type": "long", "logicalType": "local-timestamp-micros"}, "highwater": {"role": "time"}"#,
            |p| matches!(p, Problem::Kind { kind: "local-timestamp-micros", .. }),
        ),
        (
            r#""name": "x", "type": {"type": "int", "logicalType": "time-millis"}, "highwater": {"role": "measure"}"#,
            |p| matches!(p, Problem::Kind { kind: "time-millis", .. }),
        ),
        (r#""name": "x", "type": ["null", "int", "string"]"#, |p| *p == Problem::Union),
        (r#""name": "x", "type": ["int", "string"]"#, |p| *p == Problem::Union),
        (r#""name": "x", "type": {"type": "string", "logicalType": "uid"}"#, |p| {
            *p == Problem::LogicalType("uid".into())
        }),
        (r#""name": "x", "type": {"type": "string", "logicalType": "date"}"#, |p| {
            *p == Problem::LogicalType("date".into())
        }),
        (r#""name": "x", "type": ["null", {"type": "int", "logicalType": "uuid"}]"#, |p| {
            *p == Problem::LogicalType("uuid".into())
        }),
        (r#""name": "x", "type": {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3}"#, |p| {
            *p == Problem::LogicalType("decimal".into())
        }),
        (r#""name": "x", "type": {"type": "bytes", "logicalType": "decimal"}"#, |p| {
            *p == Problem::LogicalType("decimal".into())
        }),
        (r#""name": "x", "type": {"type": "bytes", "logicalType": "decimal", "precision": 39}"#, |p| {
            *p == Problem::Precision(39)
        }),
        (r#""name": "x", "type": "string", "logicalType": "uuid""#, |p| *p == Problem::MisplacedLogicalType),
        (r#""name": "x", "type": "int", "highwater": "measure""#, |p| *p == Problem::NotAnObject),
        (r#""name": "x", "type": "int", "highwater": ["measure"]"#, |p| *p == Problem::NotAnObject),
        (r#""name": "x", "type": "int", "highwater": {"rôle": "measure"}"#, |p| {
            *p == Problem::UnknownKey("rôle".into())
        }),
        (r#""name": "x", "type": "int", "highwater": {"role": "measure", "role": "measure"}"#, |p| {
            *p == Problem::DuplicateKey("role".into())
        }),
        (
            r#""name": "x", "type": "int", "highwater": {"role": "mesure"}"#,
            |p| matches!(p, Problem::Value { key, value, .. } if key == "role" && value == "\"mesure\""),
        ),
        (
            r#""name": "x", "type": "int", "highwater": {"role": null}"#,
            |p| matches!(p, Problem::Value { key, .. } if key == "role"),
        ),
        (
            r#""name": "x", "type": "int", "highwater": {"role": "measure", "unit": 1}"#,
            |p| matches!(p, Problem::Value { key, .. } if key == "unit"),
        ),
        (
            r#""name": "x", "type": "int", "highwater": {"otel": " "}"#,
            |p| matches!(p, Problem::Value { key, .. } if key == "otel"),
        ),
        (
            r#""name": "x", "type": "int", "highwater": {"pii": "hash"}"#,
            |p| matches!(p, Problem::Value { key, .. } if key == "pii"),
        ),
        (
            r#""name": "x", "type": "int", "highwater": {"price": "cached"}"#,
            |p| matches!(p, Problem::Value { key, .. } if key == "price"),
        ),
        (
            r#""name": "x", "type": "string", "highwater": {"role": "dimension", "examples": {"a": 0}}"#,
            |p| matches!(p, Problem::Value { key, .. } if key == "examples"),
        ),
        (
            r#""name": "x", "type": "string", "highwater": {"role": "dimension", "examples": ["a", 1]}"#,
            |p| matches!(p, Problem::Value { key, .. } if key == "examples"),
        ),
        (
            r#""name": "x", "type": "int", "highwater": {"role": "measure", "range": [2, 1]}"#,
            |p| matches!(p, Problem::Value { key, .. } if key == "range"),
        ),
        (r#""name": "x", "type": "int", "highwater": {"role": "dimension"}"#, |p| {
            matches!(p, Problem::Kind { kind: "int", .. })
        }),
        (r#""name": "x", "type": "string", "highwater": {"role": "measure"}"#, |p| {
            matches!(p, Problem::Kind { kind: "string", .. })
        }),
        (r#""name": "x", "type": "long", "highwater": {"role": "time"}"#, |p| {
            matches!(p, Problem::Kind { kind: "long", .. })
        }),
        (r#""name": "x", "type": "long", "highwater": {"role": "subject"}"#, |p| {
            matches!(p, Problem::Kind { kind: "long", .. })
        }),
        (r#""name": "x", "type": "double", "highwater": {"price": "input"}"#, |p| {
            matches!(p, Problem::Kind { kind: "double", .. })
        }),
        (r#""name": "x", "type": "int", "highwater": {"pii": "pseudonymize"}"#, |p| {
            matches!(p, Problem::Kind { kind: "int", .. })
        }),
        (r#""name": "x", "type": "string", "highwater": {"price": "model"}"#, |p| {
            matches!(p, Problem::NeedsRole { annotation: "price", .. })
        }),
        (r#""name": "x", "type": "int", "highwater": {"unit": "ms"}"#, |p| {
            matches!(p, Problem::NeedsRole { annotation: "unit", .. })
        }),
        (r#""name": "x", "type": "string", "highwater": {"examples": ["a"]}"#, |p| {
            matches!(p, Problem::NeedsRole { annotation: "examples", .. })
        }),
        (
            r#""name": "x", "type": {"type": "enum", "name": "S", "symbols": ["a"]}, "highwater": {"role": "dimension", "examples": ["b"]}"#,
            |p| *p == Problem::Example("b".into()),
        ),
        (r#""name": "x", "type": "int", "highwater": {"role": "measure", "price": "input"}"#, |p| {
            matches!(p, Problem::IncompletePrice(_))
        }),
        (r#""name": "x", "type": "string", "highwater": {"role": "dimension", "price": "model"}"#, |p| {
            matches!(p, Problem::IncompletePrice(_))
        }),
    ];
    for (field, expected) in cases {
        let (at, found) = problem(&event(&[&format!("{{{field}}}")]));
        assert!(expected(&found), "{field}: {found:?}");
        let name = if field.contains("_x") { "_x" } else { "x" };
        assert!(at.as_deref() == Some(name) || matches!(found, Problem::IncompletePrice(_)), "{field}: {at:?}");
    }
}

#[test]
fn nested_records_are_flattened() {
    let event = event(&[
        r#"{"name": "host", "type": {"type": "record", "name": "Host", "fields": [
            {"name": "name", "doc": "Its name.", "type": "string", "highwater": {"role": "dimension"}},
            {"name": "nothing", "type": ["null"]},
            {"name": "disk", "type": ["null", {"type": "record", "name": "Disk", "fields": [
                {"name": "free", "type": "long", "highwater": {"role": "measure", "unit": "bytes"}},
                {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["x"]}},
                {"name": "tags", "type": {"type": "array", "items": "string"}}]}]}]}}"#,
        r#"{"name": "peer", "type": [{"type": "Host"}, "null"]}"#,
        r#"{"name": "nothing", "type": "null"}"#,
        r#"{"name": "last", "type": "int"}"#,
    ]);
    let event = EventType::parse("f", &event).unwrap();
    let columns: Vec<(String, String, String)> = event.columns()[4..]
        .iter()
        .zip(&event.fields[4..])
        .map(|(column, field)| (column.name.clone(), field.path.clone(), column.clickhouse_type.clone()))
        .collect();
    let expected = [
        ("host_name", "host.name", "LowCardinality(String)"),
        ("host_disk_free", "host.disk.free", "Nullable(Int64)"),
        ("host_disk_kind", "host.disk.kind", "LowCardinality(String)"),
        ("host_disk_tags", "host.disk.tags", "Array(String)"),
        ("peer_name", "peer.name", "LowCardinality(String)"),
        ("peer_disk_free", "peer.disk.free", "Nullable(Int64)"),
        ("peer_disk_kind", "peer.disk.kind", "LowCardinality(String)"),
        ("peer_disk_tags", "peer.disk.tags", "Array(String)"),
        ("last", "last", "Int32"),
    ];
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(columns, expected);
    assert_eq!(event.columns()[5].comment, "[bytes]");
    assert!(event.fields[8].nullable && !event.fields[4].nullable);
}

#[test]
fn bad_nested_fields_are_told_by_their_path() {
    let nested = |field: &str| {
        let record = r#"{"name": "a", "type": ["null", {"type": "record", "name": "A", "fields": [{"name": "n", "type": "int"}, {FIELD}]}]}"#;
        let clash = r#"{"name": "a_b", "type": "int"}"#;
        problem(&event(&[clash, &record.replace("FIELD", field)]))
    };
    let at = Some("a.b".to_owned());
    let clash = Problem::Clash { column: "a_b".into(), other: "a_b".into() };
    assert_eq!(nested(r#""name": "b", "type": "int""#), (at.clone(), clash));
    assert_eq!(nested(r#""name": "b", "type": ["int", "string"]"#), (at.clone(), Problem::Union));
    assert_eq!(nested(r#""name": "b", "type": ["null", "A"]"#), (at.clone(), Problem::Recursive("a.b.A".into())));
    let misplaced = nested(r#""name": "b", "type": "int", "logicalType": "date""#);
    assert_eq!(misplaced, (at.clone(), Problem::MisplacedLogicalType));
    let twice = nested(r#""name": "b", "type": "int", "highwater": {"role": "measure", "role": "measure"}"#);
    assert_eq!(twice, (at.clone(), Problem::DuplicateKey("role".into())));
    let id = nested(r#""name": "b", "type": "string", "highwater": {"role": "id"}"#);
    assert_eq!(id, (at, Problem::Nullable));
}

#[test]
fn an_event_has_bounds() {
    let columns: Vec<String> = (0..997).map(|at| format!(r#"{{"name": "c{at}", "type": "int"}}"#)).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    assert!(EventType::parse("f", &event(&columns[..996])).is_ok());
    assert_eq!(problem(&event(&columns)), (Some("c996".into()), Problem::TooLarge("1,000 columns")));
    // Each record holds the one before twice: 2^40 of them, and no column.
    let mut doubled = r#"{"type": "record", "name": "R0", "fields": []}"#.to_owned();
    for at in 1..20 {
        doubled = format!(
            r#"{{"type": "record", "name": "R{at}", "fields": [{{"name": "a", "type": {doubled}}}, {{"name": "b", "type": "R{}"}}]}}"#,
            at - 1
        );
    }
    let field = format!(r#"{{"name": "x", "type": {doubled}}}"#);
    assert_eq!(problem(&event(&[&field])).1, Problem::TooLarge("1,000 records"));
}

#[test]
fn prices_and_privacy_are_judged_over_all_fields() {
    let model = r#"{"name": "m", "type": "string", "highwater": {"role": "dimension", "price": "model"}}"#;
    let input = r#"{"name": "i", "type": "int", "highwater": {"price": "input"}}"#;
    for twice in [model, input] {
        let second =
            twice.replacen(r#""name": "m""#, r#""name": "n""#, 1).replacen(r#""name": "i""#, r#""name": "n""#, 1);
        let (field, found) = problem(&event(&[model, input, &second]));
        assert_eq!(field.as_deref(), Some("n"));
        assert!(matches!(found, Problem::SecondPrice { .. }), "{found:?}");
    }
    let cost = r#"{"name": "cost_usd", "type": "double"}"#;
    assert_eq!(problem(&event(&[model, input, cost])), (Some("cost_usd".into()), Problem::ReservedColumn));
    let app = APP.replace(r#""dimension""#, r#""dimension", "pii": "drop""#);
    let whole = record(&[EVENT_ID, OCCURRED_AT, &app, ENVIRONMENT]);
    assert_eq!(problem(&whole), (Some("app".into()), Problem::PiiOnRequired));
}

#[test]
fn the_schemas_that_come_with_it_are_good() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.is_file()).collect();
    assert!(!files.is_empty());
    for file in files {
        let event = EventType::parse(&file.to_string_lossy(), &std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(file.file_stem().and_then(|name| name.to_str()), Some(event.name.as_str()));
        assert!(!event.doc.is_empty());
        for field in &event.fields {
            assert!(!field.doc.is_empty(), "{}.{} needs a doc", event.name, field.name);
            let demo = !field.examples.is_empty() || field.range.is_some();
            let needed = matches!(field.role, Some(Role::Dimension | Role::Measure));
            assert_eq!(demo, needed, "{}.{}: examples for a dimension, a range for a measure", event.name, field.name);
        }
    }
}

#[test]
fn a_model_call_is_priced_by_four_classes_of_tokens() {
    let event = EventType::parse("llm_call.avsc", include_str!("../../../schemas/llm_call.avsc")).unwrap();
    let priced = |price| event.fields.iter().find(|field| field.price == Some(price)).map(|field| field.name.as_str());
    assert_eq!(priced(Price::Model), Some("model"));
    assert_eq!(priced(Price::Input), Some("input_tokens"));
    assert_eq!(priced(Price::Output), Some("output_tokens"));
    assert_eq!(priced(Price::CacheRead), Some("cache_read_tokens"));
    assert_eq!(priced(Price::CacheWrite), Some("cache_write_tokens"));
    let billed = &event.columns()[event.position("billed_usd").unwrap()];
    assert_eq!(billed.clickhouse_type, "Nullable(Decimal(18, 9))");
    assert!(billed.comment.ends_with("[USD]"));
}
