//! Messages made by hand, good and bad.

use super::*;
use crate::event::COST_COLUMN;

/// A value of a column, whatever its type; floats by their bits.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cell {
    Null,
    Int(i128),
    Bytes(Vec<u8>),
    Uuid(u128),
}

fn cell(column: &Column, row: usize) -> Cell {
    if column.is_null(row) {
        return Cell::Null;
    }
    match &column.values {
        Values::UInt8(values) => Cell::Int(values[row].into()),
        Values::Int32(values) => Cell::Int(values[row].into()),
        Values::Int64(values) => Cell::Int(values[row].into()),
        Values::Float32(values) => Cell::Int(values[row].to_bits().into()),
        Values::Float64(values) => Cell::Int(values[row].to_bits().into()),
        Values::Int128(values) => Cell::Int(values[row]),
        Values::Uuid(values) => Cell::Uuid(values[row]),
        Values::String(values) => Cell::Bytes(values.get(row).to_vec()),
        Values::LowCardinality(values) => Cell::Bytes(values.get(row).into()),
        other => panic!("{other:?} is not decoded into"),
    }
}

/// Everything that must not change when a message is refused, lengths of every buffer included.
fn snapshot(columns: &Columns) -> Vec<(Vec<Cell>, usize, usize)> {
    fn buffer(column: &Column) -> usize {
        match &column.values {
            Values::String(values) => values.size(),
            other => other.len(),
        }
    }
    let times = (columns.times.iter().map(|&time| Cell::Int(time.into())).collect(), columns.offsets.len(), 0);
    let of = |column: &Column| {
        let cells = (0..column.len()).map(|row| cell(column, row)).collect();
        (cells, buffer(column), column.nulls.as_ref().map_or(0, Vec::len))
    };
    columns.columns.iter().map(of).chain([times]).collect()
}

/// An event with these fields beside the required ones, which are written as `ID`, `TIME`, `HEAD`.
fn decoder(fields: &str) -> Decoder {
    let json = format!(
        r#"{{"type": "record", "name": "e", "fields": [
        {{"name": "event_id", "type": "string", "highwater": {{"role": "id"}}}},
        {{"name": "occurred_at", "type": {{"type": "long", "logicalType": "timestamp-millis"}}, "highwater": {{"role": "time"}}}},
        {{"name": "app", "type": "string", "highwater": {{"role": "dimension"}}}},
        {{"name": "environment", "type": "string", "highwater": {{"role": "dimension"}}}}{fields}]}}"#
    );
    Decoder::compile(&EventType::parse("e.avsc", &json).unwrap())
}

pub(super) fn long(value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    crate::event::binary::long(value, &mut bytes);
    bytes
}

pub(super) fn string(value: impl AsRef<[u8]>) -> Vec<u8> {
    [long(value.as_ref().len() as i64), value.as_ref().to_vec()].concat()
}

fn head(id: &str, time: i64) -> Vec<u8> {
    [string(id), long(time), string("zest"), string("test")].concat()
}

const AT: i64 = 1_700_000_000_000;

#[track_caller]
fn refused(decoder: &Decoder, body: &[u8], field: Option<&str>, name: &str) {
    let mut columns = decoder.new_columns();
    let before = snapshot(&columns);
    let error = decoder.decode(body, &mut columns).unwrap_err();
    assert_eq!((error.field.as_deref(), error.name()), (field, name), "{error}");
    assert!(field.is_none_or(|field| error.to_string().contains(&format!("`{field}`"))), "{error}");
    assert_eq!(snapshot(&columns), before);
}

#[test]
fn ids_and_times_are_judged() {
    let decoder = decoder("");
    refused(&decoder, &head("", AT), Some("event_id"), "missing_id");
    refused(&decoder, &head("a", 0), Some("occurred_at"), "missing_time");
    refused(&decoder, &head("a", -1), Some("occurred_at"), "missing_time");
    refused(&decoder, &head("a", i64::MIN), Some("occurred_at"), "missing_time");
    refused(&decoder, &head("a", 4_291_747_200_000), Some("occurred_at"), "time_out_of_range");
    refused(&decoder, &head("a", i64::MAX), Some("occurred_at"), "time_out_of_range");
    let mut columns = decoder.new_columns();
    let row = decoder.decode(&head("a", 4_291_747_199_999), &mut columns).unwrap();
    assert_eq!(row.time, 4_291_747_199_999_000);
    assert_eq!(decoder.decode(&head("a", 1), &mut columns).unwrap().time, 1_000);
    refused(&decoder, &[string(b"\xff"), long(AT)].concat(), Some("event_id"), "bad_utf8");
    refused(&decoder, b"", Some("event_id"), "truncated");
}

#[test]
fn an_id_hashes_alike_for_ever() {
    let decoder = decoder("");
    let mut columns = decoder.new_columns();
    let mut id = |id: &str| decoder.decode(&head(id, AT), &mut columns).unwrap().id;
    // From Google's own CityHash 1.1. They must never change: ids are compared with those of events read before.
    assert_eq!(id("order-1"), ORDER_1);
    assert_eq!(id("a much longer id, which takes the other branch of the hash: 0123456789"), LONG);
    assert_ne!(id("order-2"), ORDER_1);
}
const ORDER_1: u128 = 0x208d_aa88_f375_1ef3_6c34_ca9e_0ebb_fcde;
const LONG: u128 = 0xd4a7_519a_ba03_7a3b_fd1c_8546_e9c2_ef8e;

#[test]
fn values_out_of_their_types_are_refused() {
    let refuse = |field: &str, value: &[u8], name: &str| {
        let decoder = decoder(&format!(r#", {{"name": "x", "type": {field}}}"#));
        refused(&decoder, &[head("a", AT), value.to_vec()].concat(), Some("x"), name);
    };
    refuse(r#""boolean""#, &[2], "bad_boolean");
    refuse(r#""int""#, &long(1 << 31), "int_out_of_range");
    refuse(r#""int""#, &long(i64::from(i32::MIN) - 1), "int_out_of_range");
    refuse(r#""long""#, &[0xff; 11], "bad_varint");
    refuse(r#""float""#, &[0; 3], "truncated");
    refuse(r#""double""#, &[0; 7], "truncated");
    refuse(r#""string""#, &string(b"a\xc3"), "bad_utf8");
    refuse(r#""string""#, &long(-1), "bad_length");
    refuse(r#""string""#, &long(i64::MAX), "truncated");
    refuse(r#""bytes""#, &long(i64::MIN), "bad_length");
    refuse(r#""bytes""#, &long(1 << 40), "truncated");
    refuse(r#""string", "highwater": {"role": "dimension"}"#, &string(b"\xff"), "bad_utf8");
    let symbols = r#"{"type": "enum", "name": "S", "symbols": ["p", "q"]}"#;
    refuse(symbols, &long(2), "unknown_symbol");
    refuse(symbols, &long(-1), "unknown_symbol");
    refuse(r#"["null", "int"]"#, &long(2), "unknown_branch");
    refuse(r#"["int", "null"]"#, &long(-1), "unknown_branch");
    let uuid = r#"{"type": "string", "logicalType": "uuid"}"#;
    for text in [
        "",
        "0198c1f26a4e7d108f3b2c5d9e7a1b04",
        "{0198c1f2-6a4e-7d10-8f3b-2c5d9e7a1b04}",
        "0198c1f2-6a4e-7d10-8f3b-2c5d9e7a1b0g",
        "0198c1f26-a4e-7d10-8f3b-2c5d9e7a1b04",
        "0198c1f2-6a4e-7d10-8f3b-2c5d9e7a1b0ä",
    ] {
        refuse(uuid, &string(text), "bad_uuid");
    }
    let date = r#"{"type": "int", "logicalType": "date"}"#;
    refuse(date, &long(-25_568), "date_out_of_range");
    refuse(date, &long(120_530), "date_out_of_range");
    for (unit, per_second) in [("millis", 1_000), ("micros", 1_000_000)] {
        let timestamp = format!(r#"{{"type": "long", "logicalType": "timestamp-{unit}"}}"#);
        refuse(&timestamp, &long(-2_208_988_800 * per_second - 1), "timestamp_out_of_range");
        refuse(&timestamp, &long(10_413_792_000 * per_second), "timestamp_out_of_range");
    }
    let decimal = r#"{"type": "bytes", "logicalType": "decimal", "precision": 2}"#;
    refuse(decimal, &string([100]), "decimal_too_wide");
    refuse(decimal, &string([1; 40]), "decimal_too_wide");
}

#[test]
fn uuids_are_read_in_any_case_and_never_nil_as_an_id() {
    let json = include_str!("../../../schemas/llm_call.avsc");
    let decoder = Decoder::compile(&EventType::parse("llm_call.avsc", json).unwrap());
    refused(&decoder, &string("00000000-0000-0000-0000-000000000000"), Some("event_id"), "missing_id");
    let decoder = super::tests::decoder(r#", {"name": "x", "type": {"type": "string", "logicalType": "uuid"}}"#);
    let mut columns = decoder.new_columns();
    for text in ["0198c1f2-6a4e-7d10-8f3b-2c5d9e7a1b04", "0198C1F2-6A4e-7d10-8F3B-2C5D9E7A1B04"] {
        decoder.decode(&[head("a", AT), string(text)].concat(), &mut columns).unwrap();
    }
    let expected = Cell::Uuid(0x0198_c1f2_6a4e_7d10_8f3b_2c5d_9e7a_1b04);
    assert_eq!((cell(&columns.columns[4], 0), cell(&columns.columns[4], 1)), (expected.clone(), expected));
}

#[test]
fn columns_of_another_type_are_refused() {
    let (ints, longs) = (decoder(r#", {"name": "x", "type": "int"}"#), decoder(r#", {"name": "x", "type": "long"}"#));
    let body = [head("a", AT), long(1)].concat();
    let mut columns = longs.new_columns();
    let error = ints.decode(&body, &mut columns).unwrap_err();
    assert_eq!((error.field.as_deref(), error.name()), (Some("x"), "wrong_columns"));
    assert_eq!(snapshot(&columns), snapshot(&longs.new_columns()));
    assert_eq!(ints.decode(&body, &mut Columns::default()).unwrap_err().name(), "wrong_columns");
}

#[test]
fn the_cost_is_left_to_the_caller() {
    let priced = decoder(
        r#", {"name": "m", "type": "string", "highwater": {"role": "dimension", "price": "model"}},
             {"name": "i", "type": "long", "highwater": {"price": "input"}}"#,
    );
    let body = [head("a", AT), string("opus"), long(7)].concat();
    let mut columns = priced.new_columns();
    assert_eq!((columns.columns.len(), decoder("").new_columns().columns.len()), (7, 4));
    for row in 0..3 {
        priced.decode(&body, &mut columns).unwrap();
        let cost = columns.columns.last_mut().unwrap();
        assert_eq!((cost.name.as_str(), cost.len()), (COST_COLUMN, row));
        cost.nulls.as_mut().unwrap().push(1);
        cost.values.push_zero();
        columns.offsets.push(row as u64);
        let before = snapshot(&columns);
        priced.decode(&body[..body.len() - 1], &mut columns).unwrap_err();
        assert_eq!(snapshot(&columns), before);
    }
    // Decoded, then dropped as a duplicate before its offset and cost were known.
    let before = snapshot(&columns);
    priced.decode(&body, &mut columns).unwrap();
    columns.truncate(3);
    assert_eq!(snapshot(&columns), before);
}

/// A writer's schema of a hundred thousand fields, and one that has the reader look at a long record for each branch of a
/// long union: neither takes more work than it is long, or than is bearable.
#[test]
fn a_long_writer_is_resolved_in_bearable_work() {
    let head = r#"{"name": "event_id", "type": "string", "highwater": {"role": "id"}},
        {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
        {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
        {"name": "environment", "type": "string", "highwater": {"role": "dimension"}}"#;
    let event = |fields: &str| {
        let json = format!(r#"{{"type": "record", "name": "e", "fields": [{head}{fields}]}}"#);
        EventType::parse("e.avsc", &json).unwrap()
    };
    let many: String = (0..100_000).map(|at| format!(r#", {{"name": "f{at}", "type": "int"}}"#)).collect();
    let writer = format!(r#"{{"type": "record", "name": "e", "fields": [{head}{many}]}}"#);
    let aliases = r#", {"name": "x", "type": "int", "aliases": ["f99999"], "default": 1}"#;
    Decoder::resolve(&writer, &event(aliases)).unwrap();

    let within: String = (0..2_000).map(|at| format!(r#", {{"name": "f{at}", "type": "int"}}"#)).collect();
    let inner = format!(r#"{{"type": "record", "name": "W", "fields": [{{"name": "v", "type": "int"}}{within}]}}"#);
    let branch = |at: usize| {
        let inner = if at == 0 { inner.as_str() } else { "\"W\"" };
        format!(r#"{{"type": "record", "name": "n{at}.S", "fields": [{{"name": "w", "type": {inner}}}]}}"#)
    };
    let branches: Vec<String> = (0..2_000).map(branch).map(|json| json.replace("\"W\"", "\"w.W\"")).collect();
    let writer = format!(
        r#"{{"type": "record", "name": "e", "fields": [{head}, {{"name": "s", "type": [{}]}}]}}"#,
        branches.join(", ")
    );
    let nested = r#", {"name": "s", "type": {"type": "record", "name": "S", "fields": [
        {"name": "w", "type": {"type": "record", "name": "W", "fields": [{"name": "v", "type": "int"}]}}]}}"#;
    let found = Decoder::mismatches(&writer, &event(nested)).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].reason.contains("looks"), "{found:?}");
}

/// Producers don't change all at once: what is written with a former schema that comes with highwater holds the same by the
/// present one, and nothing where it had no field yet.
#[test]
fn what_was_written_with_shipped_former_schemas_reads_as_it_did() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let text = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    let files = std::fs::read_dir(root.join("former")).unwrap().map(|file| file.unwrap().path());
    let mut grown = Vec::new();
    for file in files {
        let former = EventType::parse(&file.display().to_string(), &text(&file)).unwrap();
        let name = format!("{}.avsc", former.name);
        let present = EventType::parse(&name, &text(&root.join(&name))).unwrap();
        assert_ne!(former.fingerprint, present.fingerprint, "{}: the present one, and needless", file.display());
        assert_eq!(Decoder::mismatches(&former.json, &present), Ok(Vec::new()), "{}", file.display());
        let (then, now) = (Decoder::compile(&former), Decoder::resolve(&former.json, &present).unwrap());
        let (mut before, mut after) = (then.new_columns(), now.new_columns());
        let mut rng = fastrand::Rng::with_seed(7);
        for row in 0..200 {
            let body = super::cost::body(&former, &mut rng);
            assert_eq!(then.decode(&body, &mut before), now.decode(&body, &mut after));
            for column in after.columns.iter().filter(|column| column.name != COST_COLUMN) {
                match before.columns.iter().find(|known| known.name == column.name) {
                    Some(known) => assert_eq!(cell(column, row), cell(known, row), "{name}: {}", column.name),
                    None => assert!(
                        [Cell::Null, Cell::Bytes(Vec::new())].contains(&cell(column, row)),
                        "{name}: {}",
                        column.name
                    ),
                }
            }
        }
        let is_new = |column: &&Column| before.columns.iter().all(|known| known.name != column.name);
        grown.extend(after.columns.iter().filter(is_new).map(|column| format!("{name} {}", column.name)));
    }
    assert!(grown.contains(&"llm_call.avsc team".to_owned()), "{grown:?}");
}
