//! Pairs of writer and reader written by hand: what is read, and what is refused in which words.

use highwater::columns::{DecodeError, Decoder, ResolveError};
use highwater::event::EventType;

use crate::cells::{Cell, cells};
use crate::datum::{bytes, long};

const HEAD: &str = r#"
    {"name": "event_id", "type": "string", "highwater": {"role": "id"}},
    {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
    {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
    {"name": "environment", "type": "string", "highwater": {"role": "dimension"}}"#;

pub fn schema(fields: &str) -> String {
    let comma = if fields.is_empty() { "" } else { "," };
    format!(r#"{{"type": "record", "name": "e", "fields": [{HEAD}{comma}{fields}]}}"#)
}

pub fn event(fields: &str) -> EventType {
    EventType::parse("e.avsc", &schema(fields)).unwrap()
}

pub fn head() -> Vec<u8> {
    let mut body = Vec::new();
    bytes(b"id", &mut body);
    long(1_700_000_000_000, &mut body);
    bytes(b"zest", &mut body);
    bytes(b"test", &mut body);
    body
}

/// The cells after the required ones, of a message with this end.
fn read(writer: &str, reader: &str, tail: &[u8]) -> Result<Vec<Cell>, DecodeError> {
    let decoder = Decoder::resolve(&schema(writer), &event(reader)).unwrap();
    let mut columns = decoder.new_columns();
    decoder.decode(&[head(), tail.to_vec()].concat(), &mut columns)?;
    Ok(cells(&columns, 0).split_off(4))
}

/// The only field that can't be read, whether none of its values can be, and why.
fn mismatch(writer: &str, reader: &str) -> (String, bool, String) {
    let (writer, reader) = (schema(writer), event(reader));
    let found = Decoder::mismatches(&writer, &reader).unwrap();
    let [found] = found.as_slice() else { panic!("{found:?}") };
    let resolved = Decoder::resolve(&writer, &reader);
    assert_eq!(resolved.is_err(), found.always);
    if let Err(error) = resolved {
        assert!(error.to_string().contains(&found.to_string()), "{error}");
    }
    (found.field.clone(), found.always, found.reason.clone())
}

fn text(value: &str) -> Cell {
    Cell::Bytes(value.into())
}

#[test]
fn fields_are_added_removed_renamed_and_moved() {
    let writer = r#"{"name": "gone", "type": {"type": "array", "items": ["null", "string"]}},
        {"name": "b", "type": "int"}, {"name": "old", "type": "string"}"#;
    let reader = r#"{"name": "new", "type": "string", "aliases": ["older", "old"]},
        {"name": "b", "type": "double"},
        {"name": "added", "type": {"type": "map", "values": "long"}, "default": {"k": 7}},
        {"name": "host", "type": ["null", {"type": "record", "name": "Host", "fields": [
            {"name": "name", "type": "string", "default": "here"}, {"name": "port", "type": ["int"], "default": 80}]}],
            "default": null}"#;
    let tail = [&[4, 0, 2, 2, b'x', 0][..], &[13], &[4, b'h', b'i']].concat();
    let map = Cell::Map([(b"k".to_vec(), Cell::Int(7))].into());
    let seven = Cell::Int((-7f64).to_bits().into());
    assert_eq!(read(writer, reader, &tail).unwrap(), [text("hi"), seven, map, Cell::Null, Cell::Null]);
}

#[test]
fn a_record_that_is_missing_takes_its_default_and_its_fields_take_theirs() {
    let reader = r#"{"name": "host", "default": {"name": "there"}, "type": {"type": "record", "name": "Host", "fields": [
        {"name": "name", "type": "string"}, {"name": "port", "type": "int", "default": 80}]}}"#;
    assert_eq!(read("", reader, &[]).unwrap(), [text("there"), Cell::Int(80)]);
    let writer = r#"{"name": "host", "type": ["null", {"type": "record", "name": "x.Host", "fields": [
        {"name": "name", "type": "bytes"}]}]}"#;
    assert_eq!(read(writer, reader, &[2, 2, b'a']).unwrap(), [text("a"), Cell::Int(80)]);
    assert_eq!(read(writer, reader, &[0]).unwrap_err().name(), "unreadable_branch");
}

#[test]
fn a_type_may_be_referred_to_by_its_alias() {
    let record = r#"{"type": "record", "name": "R", "aliases": ["Q"], "fields": [{"name": "n", "type": "int"}]}"#;
    let writer =
        format!(r#"{{"name": "r", "type": {record}}}, {{"name": "gone", "type": "Q"}}, {{"name": "q", "type": "Q"}}"#);
    let reader = format!(r#"{{"name": "r", "type": {record}}}, {{"name": "q", "type": "Q"}}"#);
    assert_eq!(read(&writer, &reader, &[2, 4, 6]).unwrap(), [Cell::Int(1), Cell::Int(3)]);
    let event = event(&reader);
    assert_eq!(
        event.fingerprint,
        super::resolution::event(&reader.replace(r#""type": "Q""#, r#""type": "R""#)).fingerprint
    );
}

#[test]
fn a_field_may_have_the_name_of_its_event() {
    let reader = r#"{"name": "e", "type": {"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}]}}"#;
    assert_eq!(mismatch(&reader.replace("int", "string"), reader).0, "e.n");
}

#[test]
fn a_name_goes_before_an_alias() {
    let writer = r#"{"name": "a", "type": "int"}, {"name": "b", "type": "int"}"#;
    let reader = r#"{"name": "b", "type": "int", "aliases": ["a"]}, {"name": "c", "type": "int", "aliases": ["a"]}"#;
    assert_eq!(read(writer, reader, &[2, 4]).unwrap(), [Cell::Int(2), Cell::Int(1)]);
}

#[test]
fn symbols_go_by_name_and_to_the_default() {
    let symbols = |symbols: &str, more: &str| {
        format!(r#"{{"name": "x", "type": {{"type": "enum", "name": "E", "symbols": [{symbols}]{more}}}}}"#)
    };
    let writer = symbols(r#""B", "NEW", "A""#, "");
    let strict = symbols(r#""A", "B", "C""#, "");
    assert_eq!(read(&writer, &strict, &[0]).unwrap(), [text("B")]);
    assert_eq!(read(&writer, &strict, &[4]).unwrap(), [text("A")]);
    let refused = read(&writer, &strict, &[2]).unwrap_err();
    assert_eq!((refused.name(), refused.field.as_deref()), ("unreadable_symbol", Some("x")));
    assert_eq!(read(&writer, &strict, &[6]).unwrap_err().name(), "unknown_symbol");
    let kind = symbols(r#""A", "B", "C""#, r#", "default": "C""#);
    assert_eq!(read(&writer, &kind, &[2]).unwrap(), [text("C")]);
    let (field, always, reason) = mismatch(&writer, &strict);
    assert_eq!((field.as_str(), always), ("x", false));
    assert!(reason.contains("NEW") && reason.contains("default"), "{reason}");
    assert!(mismatch(&symbols(r#""Z""#, ""), &strict).1);
}

#[test]
fn unions_are_read_branch_by_branch() {
    let field = |avro: &str| format!(r#"{{"name": "x", "type": {avro}}}"#);
    let writer = field(r#"["string", "null", "int", "boolean"]"#);
    let reader = field(r#"["null", "long"]"#);
    assert_eq!(read(&writer, &reader, &[2]).unwrap(), [Cell::Null]);
    assert_eq!(read(&writer, &reader, &[4, 6]).unwrap(), [Cell::Int(3)]);
    assert_eq!(read(&writer, &reader, &[6, 1]).unwrap_err().name(), "unreadable_branch");
    assert_eq!(read(&writer, &reader, &[8]).unwrap_err().name(), "unknown_branch");
    assert_eq!(read(&writer, &reader, &[1]).unwrap_err().name(), "unknown_branch");
    assert_eq!(read(&field(r#"["int"]"#), &field(r#""float""#), &[0, 4]).unwrap(), [Cell::Int(2f32.to_bits().into())]);
    assert_eq!(read(&field(r#""null""#), &reader, &[]).unwrap(), [Cell::Null]);
    // Every branch that can't be read is told, and the others are read.
    let found = Decoder::mismatches(&schema(&writer), &event(&reader)).unwrap();
    assert_eq!(found.iter().map(|mismatch| mismatch.always).collect::<Vec<_>>(), [false, false]);
}

#[test]
fn items_and_values_are_resolved_too() {
    let field = |avro: &str| format!(r#"{{"name": "x", "type": {avro}}}"#);
    let writer = field(r#"{"type": "array", "items": ["int", "null"]}"#);
    let reader = field(r#"["null", {"type": "array", "items": ["null", "double"]}]"#);
    let list = Cell::List(vec![Cell::Int(1f64.to_bits().into()), Cell::Null]);
    assert_eq!(read(&writer, &reader, &[1, 2, 0, 2, 2, 2, 0]).unwrap(), [list]);
    assert_eq!(read(&writer, &reader, &[3, 6, 0, 2, 2, 0]).unwrap().len(), 1, "a block's size is not believed");
    let map = field(r#"{"type": "map", "values": "int"}"#);
    let twice = [4, 2, b'k', 0, 2, b'k', 0, 0];
    assert_eq!(read(&map, &map, &twice).unwrap_err().name(), "duplicate_key");
    assert!(mismatch(&map, &field(r#"{"type": "map", "values": "boolean"}"#)).1);
    let nulls = field(r#"{"type": "array", "items": "null"}"#);
    assert!(mismatch(&nulls, &reader).2.contains("no bytes"));
}

#[test]
fn every_pair_that_can_not_be_read_is_told() {
    let field = |avro: &str| format!(r#"{{"name": "x", "type": {avro}}}"#);
    let logical = |base: &str, logical: &str| format!(r#"{{"type": "{base}", "logicalType": "{logical}"}}"#);
    let decimal =
        |scale: u8| format!(r#"{{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": {scale}}}"#);
    let fixed = |name: &str, size: u8| format!(r#"{{"type": "fixed", "name": "{name}", "size": {size}}}"#);
    for (writer, reader, words) in [
        (r#""long""#.to_owned(), r#""int""#.to_owned(), "written as long"),
        (r#""double""#.to_owned(), r#""float""#.to_owned(), "read as float"),
        (r#""string""#.to_owned(), r#""long""#.to_owned(), "written as string"),
        (r#""null""#.to_owned(), r#""long""#.to_owned(), "written as null"),
        (logical("long", "timestamp-millis"), logical("long", "timestamp-micros"), "bytes do not mean"),
        (logical("int", "date"), logical("long", "timestamp-micros"), "bytes do not mean"),
        (logical("long", "local-timestamp-micros"), logical("long", "timestamp-micros"), "bytes do not mean"),
        (decimal(2), decimal(3), "digits behind the point"),
        (r#""string""#.to_owned(), decimal(2), "decimal(9, 2)"),
        (decimal(2), r#""string""#.to_owned(), "decimal(9, 2)"),
        (fixed("F", 4), fixed("F", 5), "4 bytes"),
        (fixed("F", 4), fixed("G", 4), "alias"),
        (fixed("F", 4), r#""bytes""#.to_owned(), "fixed"),
        (r#"{"type": "array", "items": "int"}"#.to_owned(), r#""int""#.to_owned(), "array of int"),
    ] {
        let (at, always, reason) = mismatch(&field(&writer), &field(&reader));
        assert_eq!((at.as_str(), always), ("x", true), "{writer} {reader}");
        assert!(reason.contains(words), "{reason}");
    }
    assert!(mismatch("", &field(r#""int""#)).2.contains("has no default"));
    let far = r#"{"name": "x", "type": {"type": "int", "logicalType": "date"}, "default": 1000000}"#;
    assert!(mismatch("", far).2.contains("can't be stored"));
    let nested = |avro: &str| {
        field(&format!(r#"{{"type": "record", "name": "R", "fields": [{{"name": "y", "type": "{avro}"}}]}}"#))
    };
    assert_eq!(mismatch(&nested("string"), &nested("int")).0, "x.y");
}

#[test]
fn ids_and_times_are_never_defaults() {
    let reader = schema("").replace(r#""name": "event_id","#, r#""name": "event_id", "default": "x","#);
    let writer = schema("").replace("event_id", "other_id");
    let found = Decoder::mismatches(&writer, &EventType::parse("e", &reader).unwrap()).unwrap();
    assert_eq!((found[0].field.as_str(), found[0].always), ("event_id", true));
    assert!(found[0].reason.contains("one of its own"));
}

#[test]
fn the_whole_is_told_too() {
    let event = event("");
    assert!(matches!(Decoder::resolve("{", &event), Err(ResolveError::Schema { .. })));
    assert!(matches!(Decoder::resolve(r#"{"type": "record"}"#, &event), Err(ResolveError::Schema { .. })));
    for other in [r#""string""#.to_owned(), schema("").replace(r#""e""#, r#""other""#)] {
        let error = Decoder::resolve(&other, &event).unwrap_err();
        let ResolveError::Mismatches { mismatches, .. } = &error else { panic!("{error}") };
        assert_eq!(mismatches[0].field, "e");
    }
    // Everything at once.
    let writer = schema("").replace(r#""app""#, r#""application""#).replace("timestamp-millis", "timestamp-micros");
    let ResolveError::Mismatches { mismatches, .. } = Decoder::resolve(&writer, &event).unwrap_err() else {
        panic!("refused")
    };
    let fields: Vec<&str> = mismatches.iter().map(|mismatch| mismatch.field.as_str()).collect();
    assert_eq!(fields, ["occurred_at", "app"]);
}

#[test]
fn uuids_and_decimals_are_read_in_both_forms() {
    let fields = r#"{"name": "u", "type": {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}},
        {"name": "d", "type": {"type": "fixed", "name": "D", "size": 3, "logicalType": "decimal", "precision": 5}},
        {"name": "f", "type": {"type": "fixed", "name": "F", "size": 2}}"#;
    let tail = [&[7; 16][..], &[0xff, 0xff, 0xfe], b"\0\0"].concat();
    let id = Cell::Uuid(u128::from_be_bytes([7; 16]));
    assert_eq!(read(fields, fields, &tail).unwrap(), [id, Cell::Int(-2), Cell::Bytes(vec![0, 0])]);
    let wide = [&[7; 16][..], &[0x7f, 0xff, 0xff], b"\0\0"].concat();
    assert_eq!(read(fields, fields, &wide).unwrap_err().name(), "decimal_too_wide");
    // A wider decimal of the same scale, or bytes that never said that they were one.
    let decimal = |precision| {
        format!(r#"{{"name": "d", "type": {{"type": "bytes", "logicalType": "decimal", "precision": {precision}}}}}"#)
    };
    assert_eq!(read(&decimal(2), &decimal(9), &[2, 5]).unwrap(), [Cell::Int(5)]);
    assert_eq!(read(r#"{"name": "d", "type": "bytes"}"#, &decimal(9), &[2, 5]).unwrap(), [Cell::Int(5)]);
}
