//! Bytes that no producer writes: an error each, soon, and no more memory than a few times the message.

use std::time::{Duration, Instant};

use highwater::columns::{Decoder, Fault};

use crate::cells::{cells, lengths, room};
use crate::datum::long;
use crate::resolution::{event, head, schema};

/// Bytes of buffers for each byte of a message, at most: an item of 16 bytes in one, doubled as vectors grow.
pub const ROOM: usize = 64;

/// A few rows' worth of each column's first allocation.
pub const LEAST_ROOM: usize = 16_384;

/// Refused by a name, with nothing left behind, soon, and within bounds.
#[track_caller]
fn refused(fields: &str, writer: &str, tail: &[u8], name: &str) -> Fault {
    let decoder = Decoder::resolve(&schema(writer), &event(fields)).unwrap();
    let mut columns = decoder.new_columns();
    let before = lengths(&columns);
    let body = [head(), tail.to_vec()].concat();
    let start = Instant::now();
    let error = decoder.decode(&body, &mut columns).unwrap_err();
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    assert_eq!(error.name(), name, "{error}");
    assert_eq!(lengths(&columns), before);
    assert!(room(&columns) <= LEAST_ROOM + ROOM * body.len(), "{} for {}", room(&columns), body.len());
    error.fault
}

fn field(avro: &str) -> String {
    format!(r#"{{"name": "x", "type": {avro}}}"#)
}

fn longs(values: &[i64]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|value| long(*value, &mut out));
    out
}

#[test]
fn counts_are_not_believed() {
    for items in [r#""long""#, r#"["null", "long"]"#, r#""string""#, r#"{"type": "string", "logicalType": "uuid"}"#] {
        let array = field(&format!(r#"{{"type": "array", "items": {items}}}"#));
        let map = field(&format!(r#"{{"type": "map", "values": {items}}}"#));
        for count in [1, 1 << 20, i64::MAX] {
            refused(&array, &array, &longs(&[count]), "truncated");
            refused(&map, &map, &longs(&[count]), "truncated");
            refused(&array, &array, &longs(&[-count, 1 << 40]), "truncated");
        }
        refused(&array, &array, &longs(&[i64::MIN, 0]), "truncated");
        refused(&array, &array, &longs(&[-1, -1]), "bad_length");
        refused(&array, &array, &[0xff; 11], "bad_varint");
        refused(&map, &map, &[0x80; 11], "bad_varint");
    }
    let map = field(r#"{"type": "map", "values": "long"}"#);
    refused(&map, &map, &[2, 4, 0xff, 0xfe, 0, 0], "bad_utf8");
    refused(&map, &map, &longs(&[1, -1]), "bad_length");
    refused(&map, &map, &longs(&[1, i64::MAX]), "truncated");
}

#[test]
fn what_is_skipped_is_not_believed_either() {
    let skipped = |avro: &str, tail: &[u8], name: &str| refused("", &field(avro), tail, name);
    skipped(r#"{"type": "array", "items": "long"}"#, &longs(&[i64::MAX]), "truncated");
    skipped(r#"{"type": "map", "values": "null"}"#, &longs(&[i64::MAX]), "truncated");
    skipped(r#""bytes""#, &longs(&[i64::MAX]), "truncated");
    skipped(r#""string""#, &[2, 0xff], "bad_utf8");
    skipped(r#""boolean""#, &[2], "bad_boolean");
    skipped(r#""int""#, &longs(&[1 << 40]), "int_out_of_range");
    skipped(r#"{"type": "enum", "name": "E", "symbols": ["A"]}"#, &[2], "unknown_symbol");
    skipped(r#"["null", "int"]"#, &[4], "unknown_branch");
    skipped(r#"{"type": "fixed", "name": "F", "size": 9000000000000000000}"#, &[0; 100], "truncated");
}

#[test]
fn items_without_bytes_take_no_time() {
    let empty = r#"{"type": "record", "name": "A", "fields": [{"name": "n", "type": "null"}]}"#;
    let twice = format!(
        r#"{{"type": "record", "name": "B", "fields": [{{"name": "a", "type": {empty}}}, {{"name": "b", "type": "A"}}]}}"#
    );
    for items in [r#""null""#.to_owned(), twice, r#"{"type": "fixed", "name": "F", "size": 0}"#.to_owned()] {
        let inner = format!(r#"{{"type": "array", "items": {items}}}"#);
        let writer = field(&format!(r#"{{"type": "array", "items": {inner}}}"#));
        // A thousand arrays of 2^62 items each, in nine kilobytes.
        let mut tail = longs(&[1_000]);
        (0..1_000).for_each(|_| tail.extend(longs(&[1 << 62, 0])));
        tail.push(0);
        let decoder = Decoder::resolve(&schema(&writer), &event("")).unwrap();
        let mut columns = decoder.new_columns();
        let start = Instant::now();
        decoder.decode(&[head(), tail].concat(), &mut columns).unwrap();
        assert!(start.elapsed() < Duration::from_millis(500));
        assert_eq!(columns.len(), 1);
    }
}

#[test]
fn records_without_end_have_one() {
    let list = r#"{"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}"#;
    let tree =
        r#"{"type": "record", "name": "T", "fields": [{"name": "children", "type": {"type": "array", "items": "T"}}]}"#;
    let deep: Vec<u8> = vec![2; 100_000];
    assert_eq!(refused("", &field(list), &deep, "too_deep"), Fault::TooDeep(256));
    refused("", &field(tree), &deep, "too_deep");
    // A record that holds itself has no value; a message of it ends all the same.
    let endless = r#"{"type": "record", "name": "L", "fields": [{"name": "next", "type": "L"}]}"#;
    refused("", &field(endless), &[], "too_deep");
    // As deep as is fine.
    let decoder = Decoder::resolve(&schema(&field(list)), &event("")).unwrap();
    let body = [head(), vec![2; 100], vec![0]].concat();
    decoder.decode(&body, &mut decoder.new_columns()).unwrap();
}

#[test]
fn a_schema_that_doubles_at_each_level_is_read_in_no_time() {
    let mut doubled = r#"{"type": "record", "name": "R0", "fields": [{"name": "n", "type": "null"}]}"#.to_owned();
    for at in 1..=40 {
        let before = at - 1;
        doubled = format!(
            r#"{{"type": "record", "name": "R{at}", "fields": [{{"name": "a", "type": {doubled}}}, {{"name": "b", "type": "R{before}"}}]}}"#
        );
    }
    let start = Instant::now();
    let decoder = Decoder::resolve(&schema(&field(&doubled)), &event("")).unwrap();
    decoder.decode(&head(), &mut decoder.new_columns()).unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn floats_that_are_no_numbers_are_kept_as_they_are() {
    let fields = r#"{"name": "f", "type": "float"}, {"name": "d", "type": "double"},
        {"name": "l", "type": {"type": "array", "items": "double"}}"#;
    let decoder = Decoder::compile(&event(fields));
    let mut columns = decoder.new_columns();
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE / 2.0];
    for (row, value) in odd.into_iter().enumerate() {
        let mut body = head();
        body.extend((value as f32).to_le_bytes());
        body.extend(value.to_le_bytes());
        body.push(2);
        body.extend(value.to_le_bytes());
        body.push(0);
        decoder.decode(&body, &mut columns).unwrap();
        let found = cells(&columns, row);
        assert_eq!(found[5], crate::cells::Cell::Int(value.to_bits().into()));
    }
}

#[test]
fn every_cut_and_every_bit_of_a_message_of_all_types() {
    let fields = r#"{"name": "a", "type": {"type": "array", "items": ["null", {"type": "enum", "name": "E", "symbols": ["A", "B"]}]}},
        {"name": "m", "type": {"type": "map", "values": {"type": "string", "logicalType": "uuid"}}},
        {"name": "r", "type": ["null", {"type": "record", "name": "R", "fields": [
            {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}},
            {"name": "t", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
            {"name": "f", "type": {"type": "fixed", "name": "F", "size": 3}},
            {"name": "b", "type": "boolean"}]}]}"#;
    let mut body = head();
    body.extend([5, 8, 2, 2, 0, 2, 0, 0]);
    body.extend([2, 2, b'k', 72]);
    body.extend(b"0198c1f2-6a4e-7d10-8f3b-2c5d9e7a1b04");
    body.extend([0, 2, 4, 1, 2]);
    body.extend(longs(&[1_700_000_000_000_000_000]));
    body.extend([1, 2, 3, 1]);
    let decoder = Decoder::compile(&event(fields));
    let mut columns = decoder.new_columns();
    decoder.decode(&body, &mut columns).unwrap();
    let before = lengths(&columns);
    for cut in 0..body.len() {
        assert_eq!(decoder.decode(&body[..cut], &mut columns).unwrap_err().name(), "truncated", "{cut}");
        assert_eq!(lengths(&columns), before, "{cut}");
    }
    for bit in 0..8 * body.len() {
        let mut damaged = body.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut columns = decoder.new_columns();
        let empty = lengths(&columns);
        match decoder.decode(&damaged, &mut columns) {
            Ok(_) => assert!(columns.columns.iter().all(|column| column.len() == 1)),
            Err(_) => assert_eq!(lengths(&columns), empty),
        }
        assert!(room(&columns) <= LEAST_ROOM + ROOM * body.len());
    }
}
