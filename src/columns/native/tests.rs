//! Blocks byte by byte, written down from the format and not from the encoder.
#![allow(clippy::unwrap_used)]

use super::*;

/// A block of one column, from its second row to its last but one.
fn block(clickhouse_type: &str, values: Values, nulls: Option<Vec<u8>>) -> Vec<u8> {
    let column = Column { name: "c".to_owned(), clickhouse_type: clickhouse_type.to_owned(), values, nulls };
    let mut out = b"kept".to_vec();
    encode(&[&column], 1..column.len() - 1, &mut out);
    assert_eq!(&out[..4], b"kept");
    out.split_off(4)
}

/// Columns 1, so many rows, name `c`, the type, the data.
#[track_caller]
fn check(block: Vec<u8>, rows: u8, clickhouse_type: &str, data: &[&[u8]]) {
    let header = [&[1, rows, 1, b'c', clickhouse_type.len() as u8], clickhouse_type.as_bytes()].concat();
    assert_eq!(block, [header, data.concat()].concat());
}

#[test]
fn numbers_are_little_endian() {
    check(block("Bool", Values::UInt8(vec![1, 0, 1, 0]), None), 2, "Bool", &[&[0, 1]]);
    let values = Values::UInt32(vec![9, 0x0102_0304, 5, 9]);
    check(block("DateTime('UTC')", values, None), 2, "DateTime('UTC')", &[&[4, 3, 2, 1, 5, 0, 0, 0]]);
    let values = Values::UInt64(vec![9, 0x0102, 9]);
    check(block("UInt64", values, None), 1, "UInt64", &[&[2, 1, 0, 0, 0, 0, 0, 0]]);
    check(block("Date32", Values::Int32(vec![9, -2, 9]), None), 1, "Date32", &[&[0xfe, 0xff, 0xff, 0xff]]);
    let values = Values::Int64(vec![9, -2, 9]);
    let micros = "DateTime64(6, 'UTC')";
    check(block(micros, values, None), 1, micros, &[&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]]);
    check(block("Float32", Values::Float32(vec![9.0, 1.0, 9.0]), None), 1, "Float32", &[&[0, 0, 0x80, 0x3f]]);
    let values = Values::Float64(vec![9.0, -2.0, 9.0]);
    check(block("Float64", values, None), 1, "Float64", &[&[0, 0, 0, 0, 0, 0, 0, 0xc0]]);
}

#[test]
fn decimals_are_as_wide_as_their_precision_asks() {
    let values = || Values::Int128(vec![9, -2, 9]);
    let minus_two: [u8; 16] = [0xfe, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
    for (clickhouse_type, width) in [
        ("Decimal(9, 2)", 4),
        ("Decimal(10, 2)", 8),
        ("Decimal(18, 2)", 8),
        ("Decimal(19, 2)", 16),
        ("SimpleAggregateFunction(sum, Decimal(38, 12))", 16),
    ] {
        check(block(clickhouse_type, values(), None), 1, clickhouse_type, &[&minus_two[..width]]);
    }
    let nullable = "Nullable(Decimal(9, 2))";
    check(block(nullable, values(), Some(vec![0, 0, 0])), 1, nullable, &[&[0], &minus_two[..4]]);
}

#[test]
fn a_uuid_is_two_halves_the_high_one_first() {
    let values = Values::Uuid(vec![9, 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, 9]);
    let high = [0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00];
    let low = [0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88];
    check(block("UUID", values, None), 1, "UUID", &[&high, &low]);
}

#[test]
fn nulls_come_before_the_values() {
    let values = Values::Int32(vec![9, 7, 0, 9]);
    let nulls = Some(vec![0, 0, 1, 0]);
    check(block("Nullable(Int32)", values, nulls), 2, "Nullable(Int32)", &[&[0, 1], &[7, 0, 0, 0], &[0, 0, 0, 0]]);
}

#[test]
fn strings_have_their_length_before_them() {
    let mut strings = Strings::default();
    for value in [&b"skipped"[..], b"ab", b"", b"\xff", &[b'x'; 300], b"skipped"] {
        strings.push(value);
    }
    let long = [&[0xac, 0x02], &[b'x'; 300][..]].concat();
    check(block("String", Values::String(strings), None), 4, "String", &[b"\x02ab", b"\x00", b"\x01\xff", &long]);
}

#[test]
fn distributions_are_two_arrays_with_ends_that_begin_at_zero() {
    let mut rows = Distributions::default();
    rows.push(&[(9.0, 9), (10.0, 9)]);
    rows.push(&[(1.0, 3)]);
    rows.push(&[]);
    rows.push(&[(1.0, 4), (2.0, 5)]);
    rows.push(&[(9.0, 9)]);
    let number = |value: u64| value.to_le_bytes();
    let float = |value: f64| value.to_bits().to_le_bytes();
    let clickhouse_type = "SimpleAggregateFunction(sumMap, Tuple(Array(Float64), Array(UInt64)))";
    let data: Vec<[u8; 8]> = vec![
        number(1),
        number(1),
        number(3),
        float(1.0),
        float(1.0),
        float(2.0),
        number(1),
        number(1),
        number(3),
        number(3),
        number(4),
        number(5),
    ];
    check(block(clickhouse_type, Values::Distributions(rows), None), 3, clickhouse_type, &[&data.concat()]);
}

fn column(clickhouse_type: &str, values: Values, nulls: Option<Vec<u8>>) -> Column {
    Column { name: String::new(), clickhouse_type: clickhouse_type.to_owned(), values, nulls }
}

#[test]
fn arrays_are_their_ends_and_then_all_items() {
    let items = column("Nullable(Int32)", Values::Int32(vec![9, 9, 7, 0, 8, 9]), Some(vec![0, 0, 0, 1, 0, 0]));
    let rows = Nested { ends: vec![2, 4, 4, 5, 6], columns: vec![items] };
    let ends: Vec<u8> = [2u64, 2, 3].iter().flat_map(|end| end.to_le_bytes()).collect();
    let data: [&[u8]; 3] = [&ends, &[0, 1, 0], &[7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]];
    check(block("Array(Nullable(Int32))", Values::Nested(rows), None), 3, "Array(Nullable(Int32))", &data);
}

#[test]
fn maps_are_arrays_of_keys_and_of_values_with_versions_before_all() {
    let mut keys = Strings::default();
    ["-", "a", "b", "-"].iter().for_each(|key| keys.push(key.as_bytes()));
    let mut values = LowCardinality::default();
    ["-", "x", "", "-"].iter().for_each(|value| values.push(value));
    let columns = vec![column("String", Values::String(keys), None), column("", Values::LowCardinality(values), None)];
    let rows = Nested { ends: vec![1, 3, 4], columns };
    let clickhouse_type = "Map(String, LowCardinality(String))";
    let data: [&[u8]; 6] = [
        &1u64.to_le_bytes(),
        &2u64.to_le_bytes(),
        b"\x01a\x01b",
        &[0, 6, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        b"\x00\x01x",
        &[2, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    ];
    check(block(clickhouse_type, Values::Nested(rows), None), 1, clickhouse_type, &data);
}

#[test]
fn rows_without_items_have_ends_and_no_dictionary() {
    let items = column("", Values::LowCardinality(LowCardinality::default()), None);
    let rows = Nested { ends: vec![0, 0, 0], columns: vec![items] };
    let clickhouse_type = "Array(LowCardinality(String))";
    let data: [&[u8]; 2] = [&1u64.to_le_bytes(), &0u64.to_le_bytes()];
    check(block(clickhouse_type, Values::Nested(rows), None), 1, clickhouse_type, &data);
}

const LOW_CARDINALITY: &str = "LowCardinality(String)";

/// Version, flags with the index's width, number of dictionary entries.
fn dictionary_head(width: u8, entries: u64) -> Vec<u8> {
    [&[1, 0, 0, 0, 0, 0, 0, 0, width, 6, 0, 0, 0, 0, 0, 0][..], &entries.to_le_bytes()].concat()
}

#[test]
fn a_dictionary_is_sent_whole_where_rows_outnumber_it() {
    let mut values = LowCardinality::default();
    for value in ["a", "bc", "", "bc", "a", "a"] {
        values.push(value);
    }
    let data = [&dictionary_head(0, 3)[..], b"\x00\x01a\x02bc", &4u64.to_le_bytes(), &[2, 0, 2, 1]].concat();
    check(block(LOW_CARDINALITY, Values::LowCardinality(values), None), 4, LOW_CARDINALITY, &[&data]);
}

#[test]
fn a_dictionary_is_sent_without_what_the_rows_do_not_use() {
    let mut values = LowCardinality::default();
    for value in ["a", "x", "bc", "a", "bc", "d"] {
        values.push(value);
    }
    values.intern("unused");
    values.intern("neither");
    // Without row 0 and row 5: x, bc, a, bc.
    let entries = b"\x00\x01x\x02bc\x01a";
    let data = [&dictionary_head(0, 4)[..], entries, &4u64.to_le_bytes(), &[1, 2, 3, 2]].concat();
    check(block(LOW_CARDINALITY, Values::LowCardinality(values), None), 4, LOW_CARDINALITY, &[&data]);
}

#[test]
fn an_index_is_as_wide_as_its_dictionary_asks() {
    for (entries, width, last) in
        [(256usize, 0, &[255][..]), (257, 1, &[0, 1]), (65_536, 1, &[255, 255]), (65_537, 2, &[0, 0, 1, 0])]
    {
        let mut values = LowCardinality::default();
        (0..entries).for_each(|at| values.push(&if at == 0 { String::new() } else { at.to_string() }));
        let column = Column {
            name: "c".to_owned(),
            clickhouse_type: LOW_CARDINALITY.to_owned(),
            values: Values::LowCardinality(values),
            nulls: None,
        };
        let mut out = Vec::new();
        encode(&[&column], 0..entries, &mut out);
        let head = dictionary_head(width, entries as u64);
        assert!(out.windows(head.len()).any(|window| window == head), "{entries}");
        assert!(out.ends_with(last), "{entries}");
    }
}

#[test]
fn no_rows_have_no_data_at_all() {
    let mut out = Vec::new();
    let column = Column::constant_low_cardinality("s", "x", 5);
    encode(&[&column], 2..2, &mut out);
    assert_eq!(out, [&[1, 0, 1, b's', 22], LOW_CARDINALITY.as_bytes()].concat());
    out.clear();
    encode(&[], 0..0, &mut out);
    assert_eq!(out, [0, 0]);
}

#[test]
fn columns_follow_each_other() {
    let first = Column::constant_low_cardinality("s", "x", 2);
    let second = Column {
        name: "n".to_owned(),
        clickhouse_type: "UInt64".to_owned(),
        values: Values::UInt64(vec![1, 2]),
        nulls: None,
    };
    let (mut both, mut one, mut other) = (Vec::new(), Vec::new(), Vec::new());
    encode(&[&first, &second], 0..2, &mut both);
    encode(&[&first], 0..2, &mut one);
    encode(&[&second], 0..2, &mut other);
    assert_eq!(both, [&[2, 2], &one[2..], &other[2..]].concat());
}

/// Strings of uneven lengths, some of them null, and as many numbers.
fn many(rows: usize) -> [Column; 3] {
    let mut strings = Strings::default();
    (0..rows).for_each(|row| strings.push("abcdefg".repeat(row % 40).as_bytes()));
    let column = |name: &str, clickhouse_type: &str, values, nulls| Column {
        name: name.to_owned(),
        clickhouse_type: clickhouse_type.to_owned(),
        values,
        nulls,
    };
    let nulls = (0..rows).map(|row| u8::from(row % 40 == 0)).collect();
    [
        column("s", "Nullable(String)", Values::String(strings), Some(nulls)),
        column("n", "UInt64", Values::UInt64((0..rows as u64).collect()), None),
        column("b", "Bool", Values::UInt8((0..rows).map(|row| (row % 2) as u8).collect()), None),
    ]
}

#[test]
fn taken_away_piece_by_piece_it_is_the_same() {
    let rows = 30_000;
    let columns = many(rows);
    let columns: Vec<&Column> = columns.iter().collect();
    let (mut whole, mut taken, mut rest, mut pieces) = (Vec::new(), Vec::new(), Vec::new(), 0);
    encode(&columns, 7..rows, &mut whole);
    encode_piecewise(&columns, 7..rows, &mut rest, &mut |written| {
        pieces += 1;
        assert!((PIECE..2 * PIECE).contains(&written.len()), "{}", written.len());
        taken.append(written);
    });
    taken.append(&mut rest);
    assert!(pieces > 10 && taken == whole, "{pieces} pieces");
}

#[test]
#[should_panic(expected = "shorter than its block")]
fn strings_that_end_before_the_block_are_no_block() {
    let [mut strings, ..] = many(10);
    strings.nulls = None;
    encode(&[&strings], 0..11, &mut Vec::new());
}
